//! Lists, sets, hashes and sorted sets under a key.
//!
//! `slot.open(list)` and `slot.list` give the collection under a slot; its word is the slot's. Changes stay in the environment until
//! `slot.close()` (or any other write to the keyspace, or the end of the call) writes the collection back; one that has become empty removes
//! its key.

use super::edge::{blocks, depth, helpers};
use super::keys::WRONGTYPE;
use crate::lang::env::Env;
use crate::lang::ir::Trap;
use crate::lang::table::{Kills, Row};
use crate::store::tree::{self, Order, Tree};
use crate::store::{Coll, MapRoot, Value, ValueKind, map};

pub const ROWS: &[Row] = &[
    Row::write("Slot.open_list() -> List", "10", "1", open_list).fails().kills(Kills::Nothing),
    Row::write("Slot.open_set() -> Set", "10", "1", open_set).fails().kills(Kills::Nothing),
    Row::write("Slot.open_hash() -> Hash", "10", "1", open_hash).fails().kills(Kills::Nothing),
    Row::write("Slot.open_zset() -> Zset", "10", "1", open_zset).fails().kills(Kills::Nothing),
    Row::read("Slot.list -> List?", "10", "1", list).fails(),
    Row::read("Slot.set -> Set?", "10", "1", set).fails(),
    Row::read("Slot.hash -> Hash?", "10", "1", hash).fails(),
    Row::read("Slot.zset -> Zset?", "10", "1", zset).fails(),
    Row::trim("Slot.close()", "60", "depth + 3", close).kills(Kills::Views),
    Row::read("List.len -> int", "2", "0", len).bound("len"),
    Row::read("Set.len -> int", "2", "0", len).bound("len"),
    Row::read("Hash.len -> int", "2", "0", len).bound("len"),
    Row::read("Zset.len -> int", "2", "0", len).bound("len"),
    Row::write("List.push_front(b: bytes)", "40 + blocks(b)", "2", push_front),
    Row::write("List.push_back(b: bytes)", "40 + blocks(b)", "2", push_back),
    Row::trim("List.pop_front() -> bytes?", "55 + longest", "2", pop_front).own(),
    Row::trim("List.pop_back() -> bytes?", "55 + longest", "2", pop_back).own(),
    Row::read("List.get(i: int) -> bytes?", "35", "depth", get_element),
    Row::read("List.range(from: int) -> ListIter", "20", "depth", range),
    Row::read("ListIter.next -> bytes?", "12", "1", super::walk::next_element),
    Row::write("Set.add(m: bytes) -> bool", "40 + blocks(m)", "depth + 1", add),
    Row::trim("Set.remove(m: bytes) -> bool", "40 + blocks(m)", "depth + 1", remove_member),
    Row::read("Set.has(m: bytes) -> bool", "20 + blocks(m)", "depth", has),
    Row::trim("Set.pop_random() -> bytes?", "100 + longest", "depth + 2", pop_random).own(),
    Row::read("Set.iter() -> SetIter", "20", "1", iter),
    Row::read("SetIter.next -> bytes?", "12", "1", super::walk::next_member),
    Row::read("Hash.get(f: bytes) -> bytes?", "20 + blocks(f)", "depth", get_field),
    Row::write("Hash.put(f: bytes, v: bytes) -> bool", "40 + blocks(f) + blocks(v)", "depth + 1", put_field),
    Row::trim("Hash.remove(f: bytes) -> bool", "40 + blocks(f)", "depth + 1", remove_member),
    Row::read("Hash.iter() -> HashIter", "20", "1", iter),
    Row::read("HashIter.next -> (bytes, bytes)?", "12", "1", super::walk::next_field),
    Row::read("Zset.score(m: bytes) -> float?", "20 + blocks(m)", "depth", score),
    Row::write("Zset.put(m: bytes, score: float) -> bool", "120 + 3*blocks(m)", "3*depth + 2", put_score),
    Row::trim("Zset.remove(m: bytes) -> bool", "80 + 3*blocks(m)", "2*depth + 2", remove_scored),
    Row::trim("Zset.pop_first() -> (bytes, float)?", "100 + longest", "2*depth + 2", pop_first).own(),
    Row::read("Zset.rank(m: bytes) -> int?", "60 + 2*blocks(m)", "2*depth", rank),
    Row::read("Zset.below(score: float, inclusive: bool) -> int", "35", "depth", below).bound("len"),
    Row::read("Zset.below_lex(m: bytes, inclusive: bool) -> int", "35 + blocks(m)", "depth", below_lex).bound("len"),
    Row::read("Zset.range(rank: int, reverse: bool) -> ZsetIter", "20", "depth", ranked),
    Row::read("ZsetIter.next -> (bytes, float)?", "12", "1", super::walk::next_ranked),
];

/// A collection in use: its roots as they are now.
#[derive(Clone, Copy)]
pub struct OpenCollection {
    kind: ValueKind,
    coll: Coll,
    due: Option<i64>,
    dirty: bool,
    /// A program's own: nothing else reaches it, so it stays open until the call ends.
    program: bool,
}

impl OpenCollection {
    fn tree(&self) -> Tree {
        self.coll.tree((self.kind == ValueKind::Zset) as usize)
    }
    fn set_tree(&mut self, tree: Tree) {
        self.coll.set_tree((self.kind == ValueKind::Zset) as usize, tree);
    }
}

impl Env {
    /// Opens a program's collection, empty if it is not there yet.
    pub(super) fn open_of_program(&mut self, slot: u64, kind: ValueKind) -> Result<(), Trap> {
        self.open(slot, kind, true)?;
        self.opened(slot)?.program = true;
        Ok(())
    }
    pub(super) fn opened_ordered(&mut self, handle: u64) -> Result<Coll, Trap> {
        let open = *self.opened(handle)?;
        if open.program && open.kind == ValueKind::Zset { Ok(open.coll) } else { Err(Trap::Index) }
    }
    pub(super) fn change_ordered(&mut self, handle: u64, coll: Coll) -> Result<(), Trap> {
        self.changed(handle, |open| open.coll = coll)
    }

    /// Opens what is under a slot; `create` where there is nothing. False: there is nothing.
    fn open(&mut self, slot: u64, kind: ValueKind, create: bool) -> Result<bool, Trap> {
        self.charge(10, 1);
        if let Some((_, open)) = self.open.iter().find(|(s, _)| *s as u64 == slot) {
            return if open.kind == kind { Ok(true) } else { self.fail(WRONGTYPE) };
        }
        // Two slots of one key must not change the same trees behind each other's back.
        let state = self.slot(slot)?;
        let twice =
            self.open.iter().any(|(s, _)| self.slot(*s as u64).is_ok_and(|o| o.db == state.db && o.hash == state.hash));
        if twice {
            self.settle()?;
        }
        let entry = self.entry(slot)?;
        let coll = match entry.map(|e| e.value()) {
            None if !create => return Ok(false),
            None => Coll::default(),
            Some(value) if value.kind() == kind => value.coll().unwrap_or_default(),
            Some(_) => return self.fail(WRONGTYPE),
        };
        let due = entry.and_then(|e| e.due());
        self.open.push((slot as u32, OpenCollection { kind, coll, due, dirty: false, program: false }));
        Ok(true)
    }

    fn opened(&mut self, handle: u64) -> Result<&mut OpenCollection, Trap> {
        self.open.iter_mut().find(|(s, _)| *s as u64 == handle).map(|(_, o)| o).ok_or(Trap::Index)
    }
    fn opened_as(&mut self, handle: u64, kind: ValueKind) -> Result<OpenCollection, Trap> {
        let open = *self.opened(handle)?;
        // a sorted set's score, where a program keeps a row, would be nonsense
        let foreign = open.program && kind == ValueKind::Zset;
        if open.kind == kind && !foreign { Ok(open) } else { Err(Trap::Index) }
    }
    fn opened_map(&mut self, handle: u64) -> Result<MapRoot, Trap> {
        let open = *self.opened(handle)?;
        if open.kind == ValueKind::List { Err(Trap::Index) } else { Ok(open.coll.map()) }
    }
    fn changed(&mut self, handle: u64, change: impl FnOnce(&mut OpenCollection)) -> Result<(), Trap> {
        let open = self.opened(handle)?;
        open.dirty = true;
        change(open);
        Ok(())
    }

    /// Writes every changed collection of the keyspace back and forgets its handle: before any other write to the keyspace.
    pub(in crate::lang) fn settle(&mut self) -> Result<(), Trap> {
        while let Some(last) = self.open.iter().rposition(|(_, open)| !open.program) {
            let (slot, open) = self.open.remove(last);
            self.write_back(slot as u64, open)?;
        }
        Ok(())
    }
    /// The same for all collections: at the end of a call.
    pub(in crate::lang) fn settle_all(&mut self) -> Result<(), Trap> {
        while let Some((slot, open)) = self.open.pop() {
            self.write_back(slot as u64, open)?;
        }
        Ok(())
    }

    fn write_back(&mut self, slot: u64, open: OpenCollection) -> Result<(), Trap> {
        if !open.dirty {
            return Ok(());
        }
        let empty = open.coll.len == 0;
        let coll = if empty { Coll::default() } else { open.coll };
        let Some(value) = Value::of(open.kind, coll) else { return Err(Trap::Index) };
        self.put_back(slot, value, open.due)?;
        if empty { self.drop_entry(slot) } else { Ok(()) }
    }
}

helpers! {
    /// `slot.open(list)`
    fn open_list(env, slot) { env.open(slot, ValueKind::List, true).map(|_| slot) }
    /// `slot.open(set)`
    fn open_set(env, slot) { env.open(slot, ValueKind::Set, true).map(|_| slot) }
    /// `slot.open(hash)`
    fn open_hash(env, slot) { env.open(slot, ValueKind::Hash, true).map(|_| slot) }
    /// `slot.open(zset)`
    fn open_zset(env, slot) { env.open(slot, ValueKind::Zset, true).map(|_| slot) }
    /// `slot.list`
    fn list(env, slot) {
        let there = env.open(slot, ValueKind::List, false)?;
        env.give(there.then_some(slot))
    }
    /// `slot.set`
    fn set(env, slot) {
        let there = env.open(slot, ValueKind::Set, false)?;
        env.give(there.then_some(slot))
    }
    /// `slot.hash`
    fn hash(env, slot) {
        let there = env.open(slot, ValueKind::Hash, false)?;
        env.give(there.then_some(slot))
    }
    /// `slot.zset`
    fn zset(env, slot) {
        let there = env.open(slot, ValueKind::Zset, false)?;
        env.give(there.then_some(slot))
    }
    /// Writes the slot's collection back. Its length can be read after; changing it again writes it back again.
    fn close(env, slot) {
        let depth = depth(env.db_len(env.slot(slot)?.db)?);
        env.charge(60, depth + 3);
        if let Some(at) = env.open.iter().position(|(s, _)| *s as u64 == slot) {
            let open = env.open[at].1;
            env.open[at].1.dirty = false;
            env.write_back(slot, open)?;
            if open.dirty && open.coll.len == 0 {
                env.open[at].1.coll = Coll::default();
            }
        }
        Ok(0)
    }
    /// Elements, members or fields.
    fn len(env, handle) {
        env.charge(2, 0);
        Ok(env.opened(handle)?.coll.len)
    }
    /// `list.push_front`
    fn push_front(env, handle, b) { push(env, handle, b, tree::push_front) }
    /// `list.push_back`
    fn push_back(env, handle, b) { push(env, handle, b, tree::push_back) }
    /// `list.pop_front`
    fn pop_front(env, handle) { pop(env, handle, |_| 0) }
    /// `list.pop_back`
    fn pop_back(env, handle) { pop(env, handle, |len| len - 1) }
    /// `list.get`: from the front, none outside.
    fn get_element(env, handle, i) {
        let tree = env.opened_as(handle, ValueKind::List)?.tree();
        env.charge(35, depth(tree.len));
        let item = if (i as i64) < 0 { None } else { tree::get(env.arena()?, &tree, i) };
        let word = item.map(|item| env.lend(item));
        env.give(word)
    }
    /// `list.range`: from that element on.
    fn range(env, handle, from) {
        let tree = env.opened_as(handle, ValueKind::List)?.tree();
        env.charge(20, depth(tree.len));
        env.walk_list(&tree, (from as i64).max(0) as u64)
    }
    /// `set.add`: whether it is new.
    fn add(env, handle, m) {
        let mut map = env.opened_as(handle, ValueKind::Set)?.coll.map();
        let member = env.stable_bytes(m)?;
        env.charge(40 + blocks(member.len()), depth(map.len) + 1);
        let hash = env.hash(member);
        if map::get(env.arena()?, &map, hash, member).is_some() {
            return Ok(0);
        }
        map::put(env.writer()?.mutator(), &mut map, hash, member, b"");
        env.changed(handle, |open| open.coll.set_map(map))?;
        Ok(1)
    }
    /// `set.remove`, `hash.remove`: whether it was there.
    fn remove_member(env, handle, m) {
        let member = env.bytes(m)?;
        let map = env.opened_map(handle)?;
        env.charge(40 + blocks(member.len()), depth(map.len) + 1);
        if env.opened(handle)?.kind == ValueKind::Zset {
            return Err(Trap::Index);
        }
        remove_from_map(env, handle, member)
    }
    /// `set.has`
    fn has(env, handle, m) {
        let map = env.opened_map(handle)?;
        let member = env.bytes(m)?;
        env.charge(20 + blocks(member.len()), depth(map.len));
        let hash = env.hash(member);
        Ok(map::get(env.arena()?, &map, hash, member).is_some() as u64)
    }
    /// `set.pop_random`: takes a member out, each with the same chance.
    fn pop_random(env, handle) {
        let map = env.opened_as(handle, ValueKind::Set)?.coll.map();
        env.charge(100, depth(map.len) + 2);
        let mut more = env.draw();
        let rng = || { more = crate::base::mix64(more.wrapping_add(0x9e37_79b9_7f4a_7c15)); more };
        let Some(item) = map::random(env.arena()?, &map, rng) else { return Ok(0) };
        let word = env.keep(item.key);
        env.charge(blocks(item.key.len()), 0);
        let member = env.bytes(word)?;
        remove_from_map(env, handle, member)?;
        env.give(Some(word))
    }
    /// `set.iter`, `hash.iter`
    fn iter(env, handle) {
        env.charge(20, 1);
        let map = env.opened_map(handle)?;
        env.walk_map(&map)
    }
    /// `hash.get`
    fn get_field(env, handle, f) {
        let map = env.opened_as(handle, ValueKind::Hash)?.coll.map();
        let field = env.bytes(f)?;
        env.charge(20 + blocks(field.len()), depth(map.len));
        let hash = env.hash(field);
        let value = map::get(env.arena()?, &map, hash, field);
        let word = value.map(|v| env.lend(v));
        env.give(word)
    }
    /// `hash.put`: whether the field is new.
    fn put_field(env, handle, f, v) {
        let mut map = env.opened_as(handle, ValueKind::Hash)?.coll.map();
        let (field, value) = (env.stable_bytes(f)?, env.stable_bytes(v)?);
        env.charge(40 + blocks(field.len()) + blocks(value.len()), depth(map.len) + 1);
        let hash = env.hash(field);
        let new = map::put(env.writer()?.mutator(), &mut map, hash, field, value);
        env.changed(handle, |open| open.coll.set_map(map))?;
        Ok(new as u64)
    }
    /// `zset.score`
    fn score(env, handle, m) {
        let map = env.opened_as(handle, ValueKind::Zset)?.coll.map();
        let member = env.bytes(m)?;
        env.charge(20 + blocks(member.len()), depth(map.len));
        let score = score_of(env, &map, member)?;
        env.give(score.map(f64::to_bits))
    }
    /// `zset.put`: adds the member or moves it; whether it is new.
    fn put_score(env, handle, m, score) {
        let mut open = env.opened_as(handle, ValueKind::Zset)?;
        let member = env.stable_bytes(m)?;
        env.charge(120 + 3 * blocks(member.len()), 3 * depth(open.coll.len) + 2);
        let mut map = open.coll.map();
        let mut tree = open.tree();
        let old = score_of(env, &map, member)?;
        let hash = env.hash(member);
        let score = f64::from_bits(score);
        let mutator = env.writer()?.mutator();
        let mut item = Vec::with_capacity(8 + member.len());
        if let Some(old) = old {
            tree::score_item(old, member, &mut item);
            tree::remove(mutator, &mut tree, Order::Score, &item);
            item.clear();
        }
        tree::score_item(score, member, &mut item);
        tree::insert(mutator, &mut tree, Order::Score, &item);
        map::put(mutator, &mut map, hash, member, &score.to_bits().to_le_bytes());
        open.coll.set_map(map);
        open.set_tree(tree);
        env.changed(handle, |o| o.coll = open.coll)?;
        Ok(old.is_none() as u64)
    }
    /// `zset.remove`: whether it was there.
    fn remove_scored(env, handle, m) {
        let len = env.opened_as(handle, ValueKind::Zset)?.coll.len;
        let member = env.bytes(m)?;
        env.charge(80 + 3 * blocks(member.len()), 2 * depth(len) + 2);
        remove_ranked(env, handle, member)
    }
    /// `zset.pop_first`: takes out the lowest.
    fn pop_first(env, handle) {
        let tree = env.opened_as(handle, ValueKind::Zset)?.tree();
        env.charge(100, 2 * depth(tree.len) + 2);
        let Some(item) = tree::get(env.arena()?, &tree, 0) else { return Ok(0) };
        let (score, member) = tree::split_score(item);
        env.charge(blocks(member.len()), 0);
        let word = env.keep(member);
        let member = env.bytes(word)?;
        remove_ranked(env, handle, member)?;
        env.set_result(2, score.to_bits());
        env.give(Some(word))
    }
    /// `zset.rank`: from the lowest.
    fn rank(env, handle, m) {
        let open = env.opened_as(handle, ValueKind::Zset)?;
        let member = env.bytes(m)?;
        env.charge(60 + 2 * blocks(member.len()), 2 * depth(open.coll.len));
        let Some(score) = score_of(env, &open.coll.map(), member)? else { return Ok(0) };
        let mut item = Vec::with_capacity(8 + member.len());
        tree::score_item(score, member, &mut item);
        let rank = tree::rank(env.arena()?, &open.tree(), Order::Score, &item);
        env.give(rank.ok())
    }
    /// `zset.below`: how many have a lower score, or one as low when `inclusive`.
    fn below(env, handle, score, inclusive) {
        let tree = env.opened_as(handle, ValueKind::Zset)?.tree();
        env.charge(35, depth(tree.len));
        Ok(tree::below(env.arena()?, &tree, f64::from_bits(score), inclusive != 0))
    }
    /// `zset.below_lex`: the same by member, all scores being equal.
    fn below_lex(env, handle, m, inclusive) {
        let tree = env.opened_as(handle, ValueKind::Zset)?.tree();
        let member = env.bytes(m)?;
        env.charge(35 + blocks(member.len()), depth(tree.len));
        Ok(tree::below_lex(env.arena()?, &tree, member, inclusive != 0))
    }
    /// `zset.range`: from the member of that rank on, upwards or downwards.
    fn ranked(env, handle, rank, reverse) {
        let tree = env.opened_as(handle, ValueKind::Zset)?.tree();
        env.charge(20, depth(tree.len));
        env.walk_ranked(&tree, (rank as i64).max(0) as u64, reverse != 0)
    }
}

fn push(
    env: &mut Env,
    handle: u64,
    b: u64,
    push: impl FnOnce(&mut crate::store::Mutator, &mut Tree, &[u8]),
) -> Result<u64, Trap> {
    let mut tree = env.opened_as(handle, ValueKind::List)?.tree();
    let item = env.stable_bytes(b)?;
    env.charge(40 + blocks(item.len()), 2);
    push(env.writer()?.mutator(), &mut tree, item);
    env.changed(handle, |open| open.set_tree(tree))?;
    Ok(0)
}

fn pop(env: &mut Env, handle: u64, at: impl FnOnce(u64) -> u64) -> Result<u64, Trap> {
    let mut tree = env.opened_as(handle, ValueKind::List)?.tree();
    env.charge(55, 2);
    if tree.len == 0 {
        return Ok(0);
    }
    let at = at(tree.len);
    let Some(item) = tree::get(env.arena()?, &tree, at) else { return Ok(0) };
    env.charge(blocks(item.len()), 0);
    let word = env.keep(item);
    tree::remove_at(env.writer()?.mutator(), &mut tree, at);
    env.changed(handle, |open| open.set_tree(tree))?;
    env.give(Some(word))
}

fn remove_from_map(env: &mut Env, handle: u64, member: &[u8]) -> Result<u64, Trap> {
    let mut map = env.opened_map(handle)?;
    let hash = env.hash(member);
    if map::get(env.arena()?, &map, hash, member).is_none() {
        return Ok(0);
    }
    map::remove(env.writer()?.mutator(), &mut map, hash, member);
    env.changed(handle, |open| open.coll.set_map(map))?;
    Ok(1)
}

fn remove_ranked(env: &mut Env, handle: u64, member: &[u8]) -> Result<u64, Trap> {
    let mut open = env.opened_as(handle, ValueKind::Zset)?;
    let mut map = open.coll.map();
    let mut tree = open.tree();
    let Some(score) = score_of(env, &map, member)? else { return Ok(0) };
    let hash = env.hash(member);
    let mut item = Vec::with_capacity(8 + member.len());
    tree::score_item(score, member, &mut item);
    let mutator = env.writer()?.mutator();
    tree::remove(mutator, &mut tree, Order::Score, &item);
    map::remove(mutator, &mut map, hash, member);
    open.coll.set_map(map);
    open.set_tree(tree);
    env.changed(handle, |o| o.coll = open.coll)?;
    Ok(1)
}

fn score_of(env: &Env, map: &MapRoot, member: &[u8]) -> Result<Option<f64>, Trap> {
    let bits = map::get(env.arena()?, map, env.hash(member), member);
    Ok(bits.and_then(|b| b.try_into().ok()).map(|b| f64::from_bits(u64::from_le_bytes(b))))
}
