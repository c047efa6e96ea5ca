//! The keyspace's trie: branches that all versions share, leaves that are chains of versions.
//!
//! A SET puts a new version of its key before the old one (see `entry.rs`) and changes one cell, in place; no branch is copied.
//! That is right for every reader because a trie of more keys than a version has still leads to all that it has:
//!
//! - a new key: a wide branch (see `trie.rs`) has a cell for it. One that is not is copied with one cell more, or made wide, and takes the
//!   old one's place in its parent. Who reads an older version finds a leaf that was born too late for it, and passes it by;
//! - a removed key stays, as a tombstone, until no version needs what was before it; then its cell goes ([`remove`]);
//! - a branch that was replaced dies like any node. Whoever is in it sees what it led to when it died, and that is all
//!   that a version older than its death can ask for.
//!
//! A branch's birth is the sub-batch of the last change below it: that is how a checkpoint finds what is new.
//!
//! Why wide branches: each new key used to leave its old branch dead. Of 1 M keys put into an empty store 68 MB were dead, with wide branches
//! 17 MB, at 131 instead of 128 bytes a key live (`cargo bench --bench store`).
//!
//! Why not copy branches too, as maps inside values do: with 1 M keys and sub-batches of 1024, a SET copied 450 bytes of branches for
//! the sake of a 100-byte entry, and the window held five times the memory. A private replay, which must leave the shared
//! branches alone, does copy.

use super::arena::Ref;
use super::kinds;
use super::mutator::Mutator;
use super::trie::{self, BITMAP, CELLS, Path, WIDE_FROM};

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
    let node = m.arena().node(branch);
    if trie::is_wide(node) {
        return link(m, root, path, path.len(), leaf);
    }
    let digit = trie::digit(hash, key, last);
    let with = if node.u64(BITMAP).count_ones() as usize + 1 < WIDE_FROM {
        trie::copy_with(m, branch, digit, leaf)
    } else {
        trie::copy_wide(m, branch, digit, leaf)
    };
    m.retire_shared(branch);
    path.nodes[last] = with;
    path.cells[last] = trie::cell_of(m.arena().node(with).u64(BITMAP), digit) as u16;
    link(m, root, path, last, with);
}

/// Takes the leaf at the path's end out: no version needs it or what was before it. A branch that is left with one leaf
/// gives way to it. The leaf is the caller's to retire.
pub fn remove(m: &mut Mutator, root: &mut Ref, path: &mut Path) {
    let mut below = Ref::NULL;
    for level in (0..path.len()).rev() {
        let (branch, cell) = (path.nodes[level], path.cells[level] as usize);
        let node = m.arena().node(branch);
        let count = trie::children(node).count();
        if count == 1 {
            m.retire_shared(branch);
            continue;
        }
        if !below.is_null() {
            return link(m, root, path, level + 1, below);
        }
        let digit = trie::nth_digit(node.u64(BITMAP), (cell - CELLS) / 8);
        let other = trie::children(node).find(|(other, _)| *other != digit).map_or(Ref::NULL, |(_, other)| other);
        // A child on disk stays where it is: the shape is nobody's business but speed's.
        if count == 2 && other.is_resident() && m.arena().node(other).kind() != kinds::BRANCH {
            m.retire_shared(branch);
            below = other;
            continue;
        }
        if trie::is_wide(node) && count > WIDE_FROM / 2 {
            return link(m, root, path, level + 1, Ref::NULL);
        }
        let without = trie::copy_without(m, branch, digit);
        m.retire_shared(branch);
        return link(m, root, path, level, without);
    }
    *root = below;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Epoch;
    use crate::store::read::Keys;
    use crate::store::{Read, Store, Value, Writer, create};

    /// Parts from all others in the root.
    fn hash(digit: u64) -> u64 {
        digit << 59 | 5
    }

    fn name(digit: u64) -> [u8; 1] {
        [digit as u8]
    }

    fn put(writer: &mut Writer, digit: u64) {
        let mut slot = writer.find_slot(0, hash(digit), &name(digit));
        writer.put(&mut slot, &name(digit), Value::Int(digit as i64), None);
    }

    fn remove(writer: &mut Writer, digit: u64) {
        let mut slot = writer.find_slot(0, hash(digit), &name(digit));
        assert!(writer.remove(&mut slot, &name(digit)));
    }

    /// A version shows these keys and no others, looked up and walked through.
    fn check<R: Read>(version: &R, digits: &[u64]) {
        let found: Vec<u64> = (0..32).filter(|&d| version.find(0, hash(d), &name(d)).is_some()).collect();
        assert_eq!(found, digits);
        let mut keys = Keys::new(version, 0, 0);
        let walked: Vec<u64> = std::iter::from_fn(|| keys.next(version).map(|entry| entry.key()[0] as u64)).collect();
        assert_eq!(walked, digits);
        let mut from = Keys::new(version, 0, hash(20));
        assert_eq!(from.next(version).map(|e| e.key()[0] as u64), digits.iter().copied().find(|d| *d >= 20));
    }

    /// A store of one key for each of the first digits, of epoch 1.
    fn with(keys: u64) -> (Store, Writer) {
        let (store, mut writer) = create().unwrap();
        writer.set_epoch(Epoch(1));
        (0..keys).for_each(|digit| put(&mut writer, digit));
        writer.publish();
        (store, writer)
    }

    #[test]
    fn a_new_key_takes_its_cell_of_a_wide_branch() {
        let (store, mut writer) = with(WIDE_FROM as u64 - 1);
        let before = store.snapshot().unwrap();
        writer.set_epoch(Epoch(2));
        put(&mut writer, 31);
        let root = writer.db(0).keys.root;
        assert!(trie::is_wide(writer.arena().node(root)));
        for digit in (WIDE_FROM as u64 - 1..31).rev() {
            writer.set_epoch(Epoch(40 - digit));
            put(&mut writer, digit);
            writer.publish();
            assert_eq!(writer.db(0).keys.root, root, "nothing is copied");
            let shown: Vec<u64> = (0..WIDE_FROM as u64 - 1).chain(digit..32).collect();
            check(&store.snapshot().unwrap(), &shown);
        }
        check(&before, &(0..WIDE_FROM as u64 - 1).collect::<Vec<_>>());
        let past = store.snapshot_at(Epoch(40 - 20)).unwrap();
        check(&past, &(0..WIDE_FROM as u64 - 1).chain(20..32).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_taken_back_leaves_its_cell_empty() {
        let (store, mut writer) = with(12);
        let root = writer.db(0).keys.root;
        writer.set_epoch(Epoch(2));
        writer.mark();
        put(&mut writer, 25);
        writer.rollback();
        assert_eq!(writer.db(0).keys.root, root);
        check(&writer, &(0..12).collect::<Vec<_>>());
        put(&mut writer, 25);
        writer.return_to_root();
        check(&writer, &(0..12).collect::<Vec<_>>());
        put(&mut writer, 25);
        writer.publish();
        check(&store.snapshot().unwrap(), &(0..12).chain([25]).collect::<Vec<_>>());
    }

    #[test]
    fn a_wide_branch_that_lost_most_of_its_children_is_packed_again() {
        let (store, mut writer) = with(32);
        store.settings().ms.store(0, std::sync::atomic::Ordering::Relaxed);
        store.settings().epochs.store(0, std::sync::atomic::Ordering::Relaxed);
        for digit in 0..32 {
            writer.set_epoch(Epoch(2 + digit));
            remove(&mut writer, digit);
            // What is removed goes when no root shows it any more
            (0..3).for_each(|_| writer.publish());
            check(&store.snapshot().unwrap(), &(digit + 1..32).collect::<Vec<_>>());
            let root = writer.db(0).keys.root;
            match 31 - digit as usize {
                0 => assert!(root.is_null()),
                1 => assert_eq!(writer.arena().node(root).kind(), kinds::ENTRY),
                left => {
                    let node = writer.arena().node(root);
                    assert_eq!(trie::children(node).count(), left);
                    assert_eq!(trie::is_wide(node), left >= WIDE_FROM / 2, "{left} are left");
                }
            }
        }
    }

    #[test]
    fn a_private_replay_leaves_the_shared_branch_alone() {
        let (store, mut writer) = with(12);
        let mut replay = Writer::private(store.snapshot().unwrap());
        replay.set_epoch(Epoch(2));
        put(&mut replay, 25);
        writer.set_epoch(Epoch(2));
        put(&mut writer, 26);
        writer.publish();
        put(&mut replay, 27);
        check(&replay, &(0..12).chain([25, 27]).collect::<Vec<_>>());
        check(&store.snapshot().unwrap(), &(0..12).chain([26]).collect::<Vec<_>>());
    }
}
