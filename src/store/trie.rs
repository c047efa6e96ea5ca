//! The hash trie's inner nodes: a bitmap of 32 digits and the children that exist.
//!
//! ```text
//! header | bitmap u64 | child cell × popcount(bitmap)
//! ```
//!
//! A branch with all 32 bits is *wide*: it has a cell for every digit, and some may be null. The keyspace makes such branches of
//! those that have grown to [`WIDE_FROM`] children, so that a new key needs no copy of its branch (`keyspace.rs`).
//!
//! Digits are five bits of the hash, the highest first, so that the order of the trie is the order of hashes: a scan whose
//! cursor is a hash is exact under writes. Past the hash's 64 bits the digits come from a second hash of the key itself,
//! so that keys with equal hashes part as well. What lies below the branches (leaves) is the business of `entry.rs`
//! (the keyspace, one entry a leaf) and `map.rs` (buckets).
//!
//! Why not six bits: with 1 M keys and sub-batches of 1024, what a SET leaves dead falls from 690 to 495 bytes with five (the last
//! shared level is 272 bytes a node, not 528), bytes a key stay at 128, and a GET is no slower.

use super::arena::{Arena, Node, Ref};
use super::kinds;
use super::mutator::Mutator;
use crate::base::KeyHasher;
use smallvec::SmallVec;
use std::sync::atomic::Ordering;

const DIGIT_BITS: u32 = 5;
/// Levels whose digit comes from the hash: twelve of five bits and one of four.
pub const HASH_LEVELS: usize = 13;
/// Deepest level: the second hash has as many.
pub const LEVELS_MAX: usize = 2 * HASH_LEVELS;
pub const BITMAP: usize = 8;
pub const CELLS: usize = 16;
/// Of a processor's cache.
pub(super) const LINE: usize = 64;
/// The bitmap of a wide branch.
const WIDE: u64 = u32::MAX as u64;
/// A shared branch of so many children becomes wide.
pub(super) const WIDE_FROM: usize = 9;

#[inline]
fn digit_of(hash: u64, level: usize) -> u32 {
    if level < HASH_LEVELS - 1 {
        (hash >> (64 - DIGIT_BITS * (level as u32 + 1))) as u32 & ((1 << DIGIT_BITS) - 1)
    } else {
        hash as u32 & 15
    }
}

#[cold]
fn second_hash(key: &[u8]) -> u64 {
    KeyHasher::new(0x6c6f_6f6b).hash(key)
}

/// The digit of (hash, key) at `level`.
#[inline]
pub fn digit(hash: u64, key: &[u8], level: usize) -> u32 {
    if level < HASH_LEVELS { digit_of(hash, level) } else { digit_of(second_hash(key), level - HASH_LEVELS) }
}

/// Byte offset of the cell for `digit`, whether it exists or would be inserted there.
#[inline]
pub fn cell_of(bitmap: u64, digit: u32) -> usize {
    CELLS + 8 * (bitmap & ((1 << digit) - 1)).count_ones() as usize
}

#[inline]
pub fn has(bitmap: u64, digit: u32) -> bool {
    bitmap >> digit & 1 == 1
}

#[inline]
pub(super) fn is_wide(node: Node<'_>) -> bool {
    node.u64(BITMAP) == WIDE
}

/// The children of a branch, with their digits.
pub(super) fn children<'a>(node: Node<'a>) -> impl Iterator<Item = (u32, Ref)> + 'a {
    let bitmap = node.u64(BITMAP);
    let all = (0..32).filter(move |digit| has(bitmap, *digit));
    all.map(move |digit| (digit, node.child(cell_of(bitmap, digit)))).filter(|(_, child)| !child.is_null())
}

pub fn cells(node: Node<'_>, mut visit: impl FnMut(usize)) {
    for i in 0..node.u64(BITMAP).count_ones() as usize {
        visit(CELLS + 8 * i);
    }
}

/// The branches passed on the way down, and the cell taken in each.
#[derive(Clone, Copy)]
pub struct Path {
    pub(super) nodes: [Ref; LEVELS_MAX],
    pub(super) cells: [u16; LEVELS_MAX],
    len: u8,
}

impl Path {
    #[inline]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Path {
        Path { nodes: [Ref::NULL; LEVELS_MAX], cells: [0; LEVELS_MAX], len: 0 }
    }
    #[inline]
    fn push(&mut self, node: Ref, cell: usize) {
        self.nodes[self.len as usize] = node;
        self.cells[self.len as usize] = cell as u16;
        self.len += 1;
    }
    /// Branches passed: the level of what lies below them.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// What a descent ends at.
pub enum End {
    /// A leaf is in the way: the one looked for, or another.
    Leaf(Ref),
    /// The last branch of the path has no child of this digit (or there is no tree at all).
    Hole,
}

/// Follows (hash, key) from `root` to a leaf or a hole, noting the way.
#[inline]
pub fn descend(arena: &Arena, root: Ref, hash: u64, key: &[u8], path: &mut Path) -> End {
    descend_along(arena, root, hash, key, &[], path)
}

/// As [`descend`], along branches that an earlier walk of this hash passed and that were not freed since: as far as each still
/// leads to the next there is nothing to search, and nothing to wait for.
#[inline]
pub fn descend_along(arena: &Arena, root: Ref, hash: u64, key: &[u8], known: &[(Ref, u16)], path: &mut Path) -> End {
    path.len = 0;
    if root.is_null() {
        return End::Hole;
    }
    let mut node = arena.node(arena.load(root));
    for &(branch, cell) in known {
        if node.get() != branch {
            break;
        }
        path.push(branch, cell as usize);
        let Some(child) = arena.child_if_any(node.cell(cell as usize)) else { return End::Hole };
        node = child;
    }
    while node.kind() == kinds::BRANCH {
        let bitmap = node.u64(BITMAP);
        let digit = digit(hash, key, path.len());
        let cell = cell_of(bitmap, digit);
        path.push(node.get(), cell);
        if !has(bitmap, digit) {
            return End::Hole;
        }
        let Some(child) = arena.child_if_any(node.cell(cell)) else { return End::Hole };
        node = child;
    }
    End::Leaf(node.get())
}

/// As [`descend`], without noting the way.
#[inline]
pub fn find_leaf<'a>(arena: &'a Arena, root: Ref, hash: u64, key: &[u8]) -> Option<Node<'a>> {
    if root.is_null() {
        return None;
    }
    let mut node = arena.node(arena.load(root));
    let mut level = 0;
    while node.kind() == kinds::BRANCH {
        let digit = digit(hash, key, level);
        // Most branches are wide: the cell comes near while the bitmap says whether this one is
        arena.prefetch(node.get(), CELLS + 8 * digit as usize);
        let bitmap = node.u64(BITMAP);
        if !has(bitmap, digit) {
            return None;
        }
        let cell = node.cell(cell_of(bitmap, digit));
        // The value of an entry begins behind its first line
        arena.prefetch(Ref(cell.load(Ordering::Relaxed)), LINE);
        node = arena.child_if_any(cell)?;
        level += 1;
    }
    Some(node)
}

/// Makes the first `levels` branches of the path owned, top down.
#[inline]
fn own_path(m: &mut Mutator, root: &mut Ref, path: &mut Path, levels: usize) {
    // Ancestors of an owned node are owned: look at the lowest one first.
    if levels == 0 || m.is_owned(path.nodes[levels - 1]) {
        return;
    }
    for level in 0..levels {
        let old = path.nodes[level];
        let new = m.own(old);
        if new != old {
            path.nodes[level] = new;
            link(m, root, path, level, new);
        }
    }
}

/// Stores `child` where the path's branch at `level` hangs.
#[inline]
fn link(m: &mut Mutator, root: &mut Ref, path: &Path, level: usize, child: Ref) {
    match level {
        0 => *root = child,
        _ => m.node_mut(path.nodes[level - 1]).set_child(path.cells[level - 1] as usize, child),
    }
}

/// Puts `leaf` (or a branch made of it) where the path ends at an existing child. The old child is the caller's to retire.
#[inline]
pub fn replace(m: &mut Mutator, root: &mut Ref, path: &mut Path, leaf: Ref) {
    own_path(m, root, path, path.len());
    link(m, root, path, path.len(), leaf);
}

/// Makes every branch of the path owned, so that an owned leaf below may be changed without `replace`.
#[inline]
pub fn own(m: &mut Mutator, root: &mut Ref, path: &mut Path) {
    own_path(m, root, path, path.len());
}

/// Puts `leaf` into the hole where the path ends.
pub fn insert(m: &mut Mutator, root: &mut Ref, path: &mut Path, hash: u64, key: &[u8], leaf: Ref) {
    let Some(last) = path.len().checked_sub(1) else {
        *root = leaf;
        return;
    };
    own_path(m, root, path, last);
    let branch = path.nodes[last];
    if is_wide(m.arena().node(branch)) {
        return replace(m, root, path, leaf);
    }
    let with = branch_with(m, branch, digit(hash, key, last), leaf);
    if with != branch {
        path.nodes[last] = with;
        link(m, root, path, last, with);
    }
}

/// The branch with one child more: in place when it is owned and has room.
fn branch_with(m: &mut Mutator, branch: Ref, digit: u32, leaf: Ref) -> Ref {
    let node = m.arena().node(branch);
    if m.is_owned(branch) && CELLS + 8 * (node.u64(BITMAP).count_ones() as usize + 1) <= node.capacity() {
        add_cell(m, branch, digit, leaf);
        return branch;
    }
    let new = copy_with(m, branch, digit, leaf);
    m.retire(branch);
    new
}

/// A copy of the branch with one child more.
pub(super) fn copy_with(m: &mut Mutator, branch: Ref, digit: u32, leaf: Ref) -> Ref {
    let cells = m.arena().node(branch).u64(BITMAP).count_ones() as usize;
    let new = m.copy_node(branch, CELLS + 8 * (cells + 1));
    add_cell(m, new, digit, leaf);
    new
}

fn add_cell(m: &mut Mutator, branch: Ref, digit: u32, leaf: Ref) {
    let mut node = m.node_mut(branch);
    let bitmap = node.u64(BITMAP);
    let (cell, end) = (cell_of(bitmap, digit), CELLS + 8 * bitmap.count_ones() as usize);
    node.move_within(cell, cell + 8, end - cell);
    node.set_child(cell, leaf);
    node.set_u64(BITMAP, bitmap | 1 << digit);
}

/// A wide copy of the branch, with one child more.
pub(super) fn copy_wide(m: &mut Mutator, branch: Ref, digit: u32, leaf: Ref) -> Ref {
    let mut all = [Ref::NULL; 32];
    all[digit as usize] = leaf;
    children(m.arena().node(branch)).for_each(|(digit, child)| all[digit as usize] = child);
    let mut new = m.alloc_node(CELLS + 8 * all.len(), kinds::BRANCH);
    new.set_u64(BITMAP, WIDE);
    all.iter().enumerate().for_each(|(digit, child)| new.set_child(CELLS + 8 * digit, *child));
    new.get()
}

/// A copy of the branch without one child, and without empty cells.
pub(super) fn copy_without(m: &mut Mutator, branch: Ref, digit: u32) -> Ref {
    let rest: SmallVec<[(u32, Ref); 32]> =
        children(m.arena().node(branch)).filter(|(other, _)| *other != digit).collect();
    self::branch(m, &rest)
}

fn take_cell(m: &mut Mutator, branch: Ref, cell: usize) {
    let mut node = m.node_mut(branch);
    let bitmap = node.u64(BITMAP);
    let digit = nth_digit(bitmap, (cell - CELLS) / 8);
    node.move_within(cell + 8, cell, CELLS + 8 * bitmap.count_ones() as usize - cell - 8);
    node.set_u64(BITMAP, bitmap & !(1 << digit));
}

/// Takes the leaf at the path's end out of the trie. A branch that is left with one leaf gives way to it. The leaf is the caller's to retire.
pub fn remove(m: &mut Mutator, root: &mut Ref, path: &mut Path) {
    own_path(m, root, path, path.len());
    let mut below = Ref::NULL;
    for level in (0..path.len()).rev() {
        let (branch, cell) = (path.nodes[level], path.cells[level] as usize);
        let mut node = m.node_mut(branch);
        let bitmap = node.u64(BITMAP);
        let count = bitmap.count_ones() as usize;
        if !below.is_null() {
            // A leaf came up: it takes its branch's place, and goes on up if it is alone there too.
            node.set_child(cell, below);
            if count > 1 {
                return;
            }
            m.retire(branch);
            continue;
        }
        if count == 1 {
            m.retire(branch);
            continue;
        }
        take_cell(m, branch, cell);
        if count > 2 {
            return;
        }
        let only = Ref(m.arena().node(branch).cell(CELLS).load(Ordering::Relaxed));
        // A child on disk stays where it is: the shape is nobody's business but speed's.
        if !only.is_resident() || m.arena().node(only).kind() == kinds::BRANCH {
            return;
        }
        m.retire(branch);
        below = only;
    }
    *root = below;
}

/// The digit of the `n`th child.
#[inline]
pub fn nth_digit(bitmap: u64, n: usize) -> u32 {
    let mut rest = bitmap;
    for _ in 0..n {
        rest &= rest - 1;
    }
    rest.trailing_zeros()
}

/// Branches from `level` on that part two leaves of different keys.
pub fn fork(m: &mut Mutator, level: usize, a: (u64, &[u8], Ref), b: (u64, &[u8], Ref)) -> Ref {
    assert!(level < LEVELS_MAX, "two keys share 128 bits of two hashes");
    let (da, db) = (digit(a.0, a.1, level), digit(b.0, b.1, level));
    if da == db {
        let below = fork(m, level + 1, a, b);
        return branch(m, &[(da, below)]);
    }
    if da < db { branch(m, &[(da, a.2), (db, b.2)]) } else { branch(m, &[(db, b.2), (da, a.2)]) }
}

/// A branch of children in ascending order of digits.
pub fn branch(m: &mut Mutator, children: &[(u32, Ref)]) -> Ref {
    let mut node = m.alloc_node(CELLS + 8 * children.len(), kinds::BRANCH);
    let mut bitmap = 0;
    for (i, &(digit, child)) in children.iter().enumerate() {
        bitmap |= 1 << digit;
        node.set_child(CELLS + 8 * i, child);
    }
    node.set_u64(BITMAP, bitmap);
    node.get()
}

/// Walks leaves in the order of hashes. Not across changes of the tree.
pub struct Leaves {
    nodes: [Ref; LEVELS_MAX],
    next: [u16; LEVELS_MAX],
    len: usize,
    /// A root that is itself a leaf.
    single: Ref,
}

impl Leaves {
    /// From the first leaf that may hold hashes from `from` on.
    pub fn new(arena: &Arena, root: Ref, from: u64) -> Leaves {
        let mut walk = Leaves { nodes: [Ref::NULL; LEVELS_MAX], next: [0; LEVELS_MAX], len: 0, single: Ref::NULL };
        if root.is_null() {
            return walk;
        }
        let mut node = arena.node(arena.load(root));
        while node.kind() == kinds::BRANCH {
            let bitmap = node.u64(BITMAP);
            // Below the hash's levels all keys have the same hash: take them from the first.
            let digit = if walk.len < HASH_LEVELS { digit_of(from, walk.len) } else { 0 };
            let cell = cell_of(bitmap, digit);
            walk.nodes[walk.len] = node.get();
            walk.len += 1;
            if !has(bitmap, digit) {
                walk.next[walk.len - 1] = cell as u16;
                return walk;
            }
            walk.next[walk.len - 1] = cell as u16 + 8;
            let Some(child) = arena.child_if_any(node.cell(cell)) else { return walk };
            node = child;
        }
        walk.single = node.get();
        walk
    }

    #[inline]
    pub fn next<'a>(&mut self, arena: &'a Arena) -> Option<Node<'a>> {
        if !self.single.is_null() {
            return Some(arena.node(std::mem::take(&mut self.single)));
        }
        while let Some(top) = self.len.checked_sub(1) {
            let node = arena.node(self.nodes[top]);
            let cell = self.next[top] as usize;
            if cell == CELLS + 8 * node.u64(BITMAP).count_ones() as usize {
                self.len -= 1;
                continue;
            }
            self.next[top] = cell as u16 + 8;
            let Some(child) = arena.child_if_any(node.cell(cell)) else { continue };
            if child.kind() != kinds::BRANCH {
                return Some(child);
            }
            self.nodes[self.len] = child.get();
            self.next[self.len] = CELLS as u16;
            self.len += 1;
        }
        None
    }
}
