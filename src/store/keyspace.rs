//! The keyspace's trie: branches that all versions share, leaves that are chains of versions.
//!
//! A SET puts a new version of its key before the old one (see `entry.rs`) and changes one cell, in place; no branch is copied.
//! That is right for every reader because a trie of more keys than a version has still leads to all that it has:
//!
//! - a new key: its branch is copied with one cell more, and takes the old one's place in its parent. Who reads an older
//!   version finds a leaf that was born too late for it, and passes it by;
//! - a removed key stays, as a tombstone, until no version needs what was before it; then its cell goes ([`remove`]);
//! - a branch that was replaced dies like any node. Whoever is in it sees what it led to when it died, and that is all
//!   that a version older than its death can ask for.
//!
//! A branch's birth is the sub-batch of the last change below it: that is how a checkpoint finds what is new.
//!
//! Why not copy branches too, as maps inside values do: with 1 M keys and sub-batches of 1024, a SET copied 450 bytes of branches for
//! the sake of a 100-byte entry, and the window held five times the memory. A private replay, which must leave the shared
//! branches alone, does copy.

use super::arena::Ref;
use super::kinds;
use super::mutator::Mutator;
use super::trie::{self, BITMAP, CELLS, Path};
use std::sync::atomic::Ordering;

/// Tells the branches of the way that something below them changes. Ancestors of one that knows know.
#[inline]
fn stamp(m: &Mutator, path: &Path, levels: usize) {
    path.nodes[..levels].iter().rev().take_while(|branch| m.stamp_shared(**branch)).for_each(drop);
}

/// Stores `child` where the path's branch at `level` hangs.
#[inline]
fn link(m: &mut Mutator, root: &mut Ref, path: &Path, level: usize, child: Ref) {
    stamp(m, path, level);
    match level {
        0 => *root = child,
        _ => m.store_shared(path.nodes[level - 1], path.cells[level - 1] as usize, child),
    }
}

/// Puts `leaf` (or a branch made of it) where the path ends at an existing child. The old child is the caller's to retire.
#[inline]
pub fn replace(m: &mut Mutator, root: &mut Ref, path: &mut Path, leaf: Ref) {
    if m.is_private() {
        return trie::replace(m, root, path, leaf);
    }
    link(m, root, path, path.len(), leaf);
}

/// Puts `leaf` into the hole where the path ends.
pub fn insert(m: &mut Mutator, root: &mut Ref, path: &mut Path, hash: u64, key: &[u8], leaf: Ref) {
    if m.is_private() {
        return trie::insert(m, root, path, hash, key, leaf);
    }
    let Some(last) = path.len().checked_sub(1) else {
        *root = leaf;
        return;
    };
    let branch = path.nodes[last];
    let with = trie::copy_with(m, branch, trie::digit(hash, key, last), leaf);
    m.retire_shared(branch);
    path.nodes[last] = with;
    link(m, root, path, last, with);
}

/// Takes the leaf at the path's end out: no version needs it or what was before it. A branch that is left with one leaf
/// gives way to it. The leaf is the caller's to retire.
pub fn remove(m: &mut Mutator, root: &mut Ref, path: &mut Path) {
    let mut below = Ref::NULL;
    for level in (0..path.len()).rev() {
        let (branch, cell) = (path.nodes[level], path.cells[level] as usize);
        let node = m.arena().node(branch);
        let count = node.u64(BITMAP).count_ones() as usize;
        if count == 1 {
            m.retire_shared(branch);
            continue;
        }
        if !below.is_null() {
            return link(m, root, path, level + 1, below);
        }
        let other = Ref(node.cell(if cell == CELLS { CELLS + 8 } else { CELLS }).load(Ordering::Acquire));
        // A child on disk stays where it is: the shape is nobody's business but speed's.
        if count == 2 && other.is_resident() && m.arena().node(other).kind() != kinds::BRANCH {
            m.retire_shared(branch);
            below = other;
            continue;
        }
        let without = trie::copy_without(m, branch, cell);
        m.retire_shared(branch);
        return link(m, root, path, level, without);
    }
    *root = below;
}
