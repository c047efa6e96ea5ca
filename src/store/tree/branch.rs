//! Branches of the counted tree.
//!
//! ```text
//! header | count u16, 6 bytes unused | weight u64 x cap | child cell x cap | separator 2 x u64 x cap (ordered only)
//! ```
//! A weight is the number of items below a child, so rank and selection walk one path.
//!
//! A separator is the first 16 bytes of order of some key, with prefix(last of the child before) <= separator <=
//! prefix(first of the child). A search that meets its own prefix compares with the child's first item itself. Why not whole
//! keys: fixed entries keep branches flat words that copy and search without a pointer, and members rarely share both
//! score and first eight bytes.

use crate::store::arena::{Arena, Node, Ref};
use crate::store::kinds;
use crate::store::mutator::Mutator;
use smallvec::{SmallVec, smallvec};

/// First 16 bytes of a key's order.
pub type Prefix = [u64; 2];

const COUNT: usize = 8;
const WEIGHTS: usize = 16;
const CAP_PLAIN: usize = 60;
const CAP_ORDERED: usize = 31;

/// A child as its parent sees it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub at: Ref,
    pub weight: u64,
    pub prefix: Prefix,
}

/// What takes the place of changed children: none, one, or two after a split.
pub type Entries = SmallVec<[Entry; 2]>;

/// The way from a root down to a leaf: branch and child index at each level, top first.
pub type Path = SmallVec<[(Ref, u16); 8]>;

pub fn is_branch(kind: u8) -> bool {
    matches!(kind, kinds::TREE_BRANCH | kinds::TREE_BRANCH_ORDERED)
}

fn cap(kind: u8) -> usize {
    if kind == kinds::TREE_BRANCH_ORDERED { CAP_ORDERED } else { CAP_PLAIN }
}

fn bytes(kind: u8) -> usize {
    WEIGHTS + cap(kind) * if kind == kinds::TREE_BRANCH_ORDERED { 32 } else { 16 }
}

pub fn count(node: Node<'_>) -> usize {
    node.u16(COUNT) as usize
}

pub fn weights(node: Node<'_>) -> &[u64] {
    node.words(WEIGHTS, count(node))
}

fn cell_offset(kind: u8, i: usize) -> usize {
    WEIGHTS + (cap(kind) + i) * 8
}

fn prefix_offset(i: usize) -> usize {
    WEIGHTS + CAP_ORDERED * 16 + i * 16
}

/// The resident child `i`.
pub fn child<'a>(arena: &'a Arena, node: Node<'a>, i: usize) -> Node<'a> {
    arena.child(node.cell(cell_offset(node.kind(), i)))
}

pub fn prefixes(node: Node<'_>) -> impl Fn(usize) -> Prefix {
    let words = node.words(prefix_offset(0), count(node) * 2);
    move |i| [words[2 * i], words[2 * i + 1]]
}

/// The child that holds position `rank` and the position within it; the end of the tree is the end of its last child.
pub fn pick(node: Node<'_>, mut rank: u64) -> (usize, u64) {
    let weights = weights(node);
    let mut i = 0;
    while i + 1 < weights.len() && rank >= weights[i] {
        rank -= weights[i];
        i += 1;
    }
    (i, rank)
}

/// Walks down to the leaf that holds position `rank`.
pub fn seek<'a>(arena: &'a Arena, root: Ref, mut rank: u64, path: &mut Path) -> (Node<'a>, u64) {
    let mut node = arena.node(arena.load(root));
    while is_branch(node.kind()) {
        let (i, below) = pick(node, rank);
        path.push((node.get(), i as u16));
        rank = below;
        node = child(arena, node, i);
    }
    (node, rank)
}

pub fn cells(node: Node<'_>, mut visit: impl FnMut(usize)) {
    (0..count(node)).for_each(|i| visit(cell_offset(node.kind(), i)))
}

fn entry(node: Node<'_>, i: usize) -> Entry {
    let kind = node.kind();
    let prefix = if kind == kinds::TREE_BRANCH_ORDERED { prefixes(node)(i) } else { [0; 2] };
    Entry { at: node.child(cell_offset(kind, i)), weight: weights(node)[i], prefix }
}

type AllEntries = SmallVec<[Entry; 64]>;

fn entries(node: Node<'_>) -> AllEntries {
    (0..count(node)).map(|i| entry(node, i)).collect()
}

fn set_entry(m: &mut Mutator, at: Ref, i: usize, entry: &Entry) {
    let mut node = m.node_mut(at);
    let kind = node.kind();
    node.set_u64(WEIGHTS + i * 8, entry.weight);
    node.set_child(cell_offset(kind, i), entry.at);
    if kind == kinds::TREE_BRANCH_ORDERED {
        node.set_u64(prefix_offset(i), entry.prefix[0]);
        node.set_u64(prefix_offset(i) + 8, entry.prefix[1]);
    }
}

fn fill(m: &mut Mutator, at: Ref, all: &[Entry]) {
    m.node_mut(at).set_u16(COUNT, all.len() as u16);
    for (i, entry) in all.iter().enumerate() {
        set_entry(m, at, i, entry);
    }
}

fn make(m: &mut Mutator, kind: u8, all: &[Entry]) -> Entry {
    let at = m.alloc(bytes(kind), kind);
    fill(m, at, all);
    of(m, at)
}

/// A branch as its parent sees it.
fn of(m: &Mutator, at: Ref) -> Entry {
    let node = m.arena().node(at);
    let prefix = if node.kind() == kinds::TREE_BRANCH_ORDERED { prefixes(node)(0) } else { [0; 2] };
    Entry { at, weight: weights(node).iter().sum(), prefix }
}

/// Replaces `gone` children, from the one the path names on, by `new`, up to the root. `kind` is what a new root becomes.
pub fn splice(m: &mut Mutator, root: &mut Ref, kind: u8, mut path: Path, mut gone: usize, mut new: Entries) {
    while let Some((at, i)) = path.pop() {
        let shrinks = new.len() < gone;
        new = splice_one(m, at, i as usize, gone, &new);
        gone = 1;
        if shrinks && new.len() == 1 {
            gone = merge(m, &mut path, &mut new[0]);
        }
    }
    *root = match new.as_slice() {
        [] => Ref::NULL,
        [only] => collapse(m, only.at),
        _ => make(m, kind, &new).at,
    };
}

fn splice_one(m: &mut Mutator, at: Ref, i: usize, gone: usize, new: &[Entry]) -> Entries {
    if gone == new.len() {
        let at = m.own(at);
        for (k, entry) in new.iter().enumerate() {
            set_entry(m, at, i + k, entry);
        }
        return smallvec![of(m, at)];
    }
    let node = m.arena().node(at);
    let (kind, cap) = (node.kind(), cap(node.kind()));
    let mut all = entries(node);
    all.drain(i..i + gone);
    all.insert_many(i, new.iter().copied());
    if all.is_empty() {
        m.retire(at);
        return Entries::new();
    }
    let at = m.own(at);
    if all.len() <= cap {
        fill(m, at, &all);
        return smallvec![of(m, at)];
    }
    // Growth at an end leaves a full branch behind, so that queues and logs pack tightly.
    let cut = match i {
        _ if i + new.len() >= all.len() => all.len() - 1,
        0 => 1,
        _ => all.len() / 2,
    };
    fill(m, at, &all[..cut]);
    let right = make(m, kind, &all[cut..]);
    smallvec![of(m, at), right]
}

/// Joins a branch that has become sparse with a resident neighbour, if both fit well into one. Tells how many children of
/// the parent the result replaces, and points the path at the first of them.
fn merge(m: &mut Mutator, path: &mut Path, sparse: &mut Entry) -> usize {
    let node = m.arena().node(sparse.at);
    let cap = cap(node.kind());
    let Some((parent, i)) = path.last_mut().filter(|_| count(node) < cap / 4) else { return 1 };
    let Some((first, other)) = neighbour(m.arena(), *parent, *i as usize) else { return 1 };
    let beside = m.arena().node(other);
    if count(node) + count(beside) > cap * 3 / 4 {
        return 1;
    }
    let (left, right) = if first == *i as usize { (sparse.at, other) } else { (other, sparse.at) };
    let mut all = entries(m.arena().node(left));
    all.extend(entries(m.arena().node(right)));
    *i = first as u16;
    let left = m.own(left);
    fill(m, left, &all);
    m.retire(right);
    *sparse = of(m, left);
    2
}

/// A resident neighbour of child `i`, and the index of the left one of the two. A neighbour on disk is left there: joining
/// saves a little space, and is not worth a read in the apply thread.
pub fn neighbour(arena: &Arena, parent: Ref, i: usize) -> Option<(usize, Ref)> {
    let parent = arena.node(parent);
    let at = |i| parent.child(cell_offset(parent.kind(), i));
    let right = (i + 1 < count(parent)).then(|| (i, at(i + 1))).filter(|(_, at)| at.is_resident());
    right.or_else(|| i.checked_sub(1).map(|left| (left, at(left))).filter(|(_, at)| at.is_resident()))
}

/// A branch with a single child gives way to it.
fn collapse(m: &mut Mutator, mut at: Ref) -> Ref {
    loop {
        let node = m.arena().node(at);
        if !is_branch(node.kind()) || count(node) != 1 {
            return at;
        }
        let only = child(m.arena(), node, 0).get();
        m.retire(at);
        at = only;
    }
}
