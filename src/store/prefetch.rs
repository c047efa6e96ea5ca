//! Group prefetch: walks several keys down the trie in step. Each step only asks for the lines that the next one reads, so
//! that the misses of the whole group overlap (Chen, Ailamaki, Gibbons, Mowry 2004).

use super::arena::Ref;
use super::kinds;
use super::read::Read;
use super::trie;

const GROUP: usize = 32;
/// Deeper ways are rare.
const STEPS_MAX: usize = 6;
/// Most ways remembered.
const WAYS_MAX: usize = 1024;
/// So many keys in a row are looked for: one that is not asked for does not cost the next ones their ways.
const SKIPPED_MAX: usize = 3;

pub(super) fn keys<R: Read + ?Sized>(version: &R, keys: &[(u8, u64)]) {
    for group in keys.chunks(GROUP) {
        walk(version, group, |_, _, _| {});
    }
}

/// Where the ways of keys went that were fetched, so that their lookups need not search again. What came of a branch since then
/// they see for themselves ([`trie::descend_along`]), but it must not have been freed.
#[derive(Default)]
pub(super) struct Ways {
    ways: Vec<Fetched>,
    /// Those before it were asked for.
    next: usize,
}

struct Fetched {
    db: u8,
    hash: u64,
    steps: [(Ref, u16); STEPS_MAX],
    len: u8,
}

impl Ways {
    /// As [`keys`], and remembers the ways behind those that nobody asked for yet.
    pub fn fetch<R: Read + ?Sized>(&mut self, version: &R, keys: &[(u8, u64)]) {
        self.ways.drain(..self.next);
        self.next = 0;
        for group in keys.chunks(GROUP) {
            let (first, steps) = (self.ways.len(), [(Ref::NULL, 0); STEPS_MAX]);
            let room = group.len().min(WAYS_MAX.saturating_sub(first));
            self.ways.extend(group[..room].iter().map(|&(db, hash)| Fetched { db, hash, steps, len: 0 }));
            let ways = &mut self.ways[first..];
            walk(version, group, |i, branch, cell| {
                if let Some(way) = ways.get_mut(i) {
                    way.steps[way.len as usize] = (branch, cell as u16);
                    way.len += 1;
                }
            });
        }
    }

    /// The branches passed and the cell taken in each, as far as they are known. Keys are asked for in the order in which they were
    /// fetched, or not at all.
    #[inline]
    pub fn of(&mut self, db: u8, hash: u64) -> &[(Ref, u16)] {
        let mut ahead = self.ways[self.next..].iter().take(1 + SKIPPED_MAX);
        let Some(skipped) = ahead.position(|way| way.hash == hash && way.db == db) else { return &[] };
        // It may be asked for again
        self.next += skipped;
        let way = &self.ways[self.next];
        &way.steps[..way.len as usize]
    }

    /// Branches may be freed.
    pub fn forget(&mut self) {
        self.ways.clear();
        self.next = 0;
    }
}

/// Tells `passed` which key passed which branch, and the cell it took.
#[inline]
fn walk<R: Read + ?Sized>(version: &R, group: &[(u8, u64)], mut passed: impl FnMut(usize, Ref, usize)) {
    let arena = version.arena();
    let mut at = [Ref::NULL; GROUP];
    let mut cells = [0u16; GROUP];
    for (at, &(db, _)) in at.iter_mut().zip(group) {
        *at = version.db(db).keys.root;
    }
    for level in 0..STEPS_MAX {
        let mut going = false;
        // The nodes' first lines are near: find the cells, ask for their lines.
        for (i, &(_, hash)) in group.iter().enumerate() {
            cells[i] = 0;
            if !at[i].is_resident() {
                continue;
            }
            let node = arena.node(at[i]);
            if node.kind() != kinds::BRANCH {
                arena.prefetch(at[i], trie::LINE);
                at[i] = Ref::NULL;
                continue;
            }
            let bitmap = node.u64(trie::BITMAP);
            let digit = trie::digit(hash, b"", level);
            if !trie::has(bitmap, digit) {
                at[i] = Ref::NULL;
                continue;
            }
            let cell = trie::cell_of(bitmap, digit);
            cells[i] = cell as u16;
            going = true;
            if cell >= trie::LINE - 8 {
                arena.prefetch(at[i], cell);
            }
        }
        if !going {
            return;
        }
        for i in 0..group.len() {
            if cells[i] != 0 {
                passed(i, at[i], cells[i] as usize);
                at[i] = arena.node(at[i]).child(cells[i] as usize);
                arena.prefetch(at[i], 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Epoch, mix64};
    use crate::store::{Value, WindowSettings, Writer, create};
    use std::collections::BTreeMap;
    use std::sync::atomic::Ordering;

    type Model = BTreeMap<(u8, u64), u64>;

    fn name(key: u64) -> Vec<u8> {
        key.to_le_bytes().to_vec()
    }

    /// Few hashes a branch, so that branches are replaced all the time; some keys share theirs.
    fn hash(key: u64) -> u64 {
        mix64(key / 2) << 44
    }

    /// A writer whose dead are freed at the next publication.
    fn writer_without_window() -> Writer {
        let (store, writer) = create().unwrap();
        let WindowSettings { ms, epochs, .. } = store.settings();
        ms.store(0, Ordering::Relaxed);
        epochs.store(0, Ordering::Relaxed);
        writer
    }

    fn check(writer: &mut Writer, model: &Model, db: u8, key: u64) {
        let mut slot = writer.find_slot(db, hash(key), &name(key));
        let found = writer.entry(&mut slot, &name(key)).map(|entry| match entry.value() {
            Value::Int(n) => n as u64,
            other => panic!("{other:?}"),
        });
        assert_eq!(found, model.get(&(db, key)).copied(), "key {key} of database {db}");
    }

    fn change(writer: &mut Writer, model: &mut Model, db: u8, key: u64, random: u64) {
        let mut slot = writer.find_slot(db, hash(key), &name(key));
        if random.is_multiple_of(3) {
            assert_eq!(writer.remove(&mut slot, &name(key)), model.remove(&(db, key)).is_some());
        } else {
            writer.put(&mut slot, &name(key), Value::Int(random as i64), None);
            model.insert((db, key), random);
        }
    }

    fn turn(writer: &mut Writer, model: &mut Model, random: u64) {
        match random % 40 {
            0 => {
                writer.flush_db(1);
                model.retain(|(db, _), _| *db != 1);
            }
            1 => {
                writer.swap_db(0, 1);
                *model = std::mem::take(model).into_iter().map(|((db, key), n)| ((1 - db, key), n)).collect();
            }
            2..5 => writer.publish(),
            5..8 => {
                writer.mark();
                let mut other = model.clone();
                (0..5).for_each(|i| change(writer, &mut other, 0, mix64(random + i) % 3000, mix64(random ^ i)));
                writer.rollback();
            }
            _ => {}
        }
    }

    #[test]
    fn keys_are_found_along_remembered_ways_whatever_happened_since() {
        let mut writer = writer_without_window();
        let (mut model, mut random) = (Model::new(), 7);
        let mut next = || {
            random = mix64(random + 1);
            random
        };
        for round in 0..3000 {
            writer.set_epoch(Epoch(round + 1));
            let keys: Vec<(u8, u64)> = (0..next() % 100).map(|_| ((next() % 2) as u8, next() % 3000)).collect();
            writer.fetch(&keys.iter().map(|&(db, key)| (db, hash(key))).collect::<Vec<_>>());
            for &(db, key) in &keys {
                match next() % 8 {
                    0 => continue,
                    1 => check(&mut writer, &model, db, next() % 3000),
                    2 => check(&mut writer, &model, db, key),
                    _ => change(&mut writer, &mut model, db, key, next()),
                }
                turn(&mut writer, &mut model, next());
            }
            writer.publish();
        }
        for key in 0..3000 {
            (0..2).for_each(|db| check(&mut writer, &model, db, key));
        }
        assert_eq!(writer.db_len(0) + writer.db_len(1), model.len() as u64);
    }

    #[test]
    fn ways_are_forgotten_before_a_branch_can_be_another() {
        let mut writer = writer_without_window();
        let at = |digit: u64| digit << 59;
        let put = |writer: &mut Writer, digit| {
            let mut slot = writer.find_slot(0, at(digit), &name(digit));
            writer.put(&mut slot, &name(digit), Value::Int(digit as i64), None);
        };
        (1..=3).for_each(|digit| put(&mut writer, digit));
        writer.publish();
        let root = writer.db(0).keys.root;
        writer.fetch(&[(0, at(3))]);
        let mut slot = writer.find_slot(0, at(1), &name(1));
        assert!(writer.remove(&mut slot, &name(1)));
        (0..4).for_each(|_| writer.publish());
        put(&mut writer, 4);
        assert_eq!(writer.db(0).keys.root, root, "the new branch lies where the old one was");
        let mut slot = writer.find_slot(0, at(3), &name(3));
        assert_eq!(writer.entry(&mut slot, &name(3)).map(|entry| entry.value()), Some(Value::Int(3)));
    }

    #[test]
    fn ways_are_given_in_the_order_of_fetching() {
        let (_store, mut writer) = create().unwrap();
        let all: Vec<(u8, u64)> = (0..WAYS_MAX as u64 + 100).map(|key| (0, mix64(key))).collect();
        for &(db, hash) in &all {
            let mut slot = writer.find_slot(db, hash, b"k");
            writer.put(&mut slot, b"k", Value::Int(1), None);
        }
        let mut ways = Ways::default();
        ways.fetch(&writer, &all);
        assert_eq!(ways.ways.len(), WAYS_MAX);
        for &(db, hash) in &all[..WAYS_MAX] {
            assert!(ways.of(db, hash ^ 1).is_empty());
            let steps = ways.of(db, hash).to_vec();
            assert!(!steps.is_empty(), "the root is a branch");
            assert_eq!(ways.of(db, hash), steps, "asked again");
        }
        assert!(ways.of(0, all[WAYS_MAX].1).is_empty(), "no room was left for it");
        ways.fetch(&writer, &all[..50]);
        assert!(ways.ways.len() <= 51, "those that were asked for are gone");
        ways.forget();
        assert!(ways.of(0, all[0].1).is_empty());
    }
}
