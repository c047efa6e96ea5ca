//! Last deletions: for each of 4096 slots of hashes the epoch of the last removal of a key in it. WATCH on a key that is
//! absent compares this: a removal of another key of the slot may abort an EXEC needlessly, never the other way round.
//!
//! ```text
//! top = header | cell × 64          leaf = header | epoch u64 × 64
//! ```

use super::arena::{Arena, Node, Ref};
use super::kinds;
use super::mutator::Mutator;
use crate::base::Epoch;

const BYTES: usize = 8 + 64 * 8;

pub fn cells(_: Node<'_>, mut visit: impl FnMut(usize)) {
    for i in 0..64 {
        visit(8 + 8 * i);
    }
}

fn places(hash: u64) -> (usize, usize) {
    (8 + 8 * (hash & 63) as usize, 8 + 8 * (hash >> 6 & 63) as usize)
}

/// Epoch of the last deletion in the slot of `hash`.
pub fn last(arena: &Arena, root: Ref, hash: u64) -> Epoch {
    if root.is_null() {
        return Epoch::ZERO;
    }
    let (cell, word) = places(hash);
    let top = arena.node(arena.load(root));
    if top.child(cell).is_null() {
        return Epoch::ZERO;
    }
    Epoch(arena.child(top.cell(cell)).u64(word))
}

/// Notes a deletion.
pub fn note(m: &mut Mutator, root: &mut Ref, hash: u64, epoch: Epoch) {
    let (cell, word) = places(hash);
    *root = owned(m, *root, kinds::SLOTS);
    let leaf = m.arena().node(*root).child(cell);
    let leaf = owned(m, leaf, kinds::SLOT_LEAF);
    m.node_mut(leaf).set_u64(word, epoch.0);
    m.node_mut(*root).set_child(cell, leaf);
}

fn owned(m: &mut Mutator, at: Ref, kind: u8) -> Ref {
    if !at.is_null() {
        let at = m.load(at);
        return m.own(at);
    }
    let mut node = m.alloc_node(BYTES, kind);
    node.bytes_mut(8, BYTES - 8).fill(0);
    node.get()
}
