//! The keyspace: databases and slots. A slot is one lookup, reused; a key whose deadline is not after the log time reads as absent.

use super::edge::{blocks, depth, helpers, optional};
use super::text::{field_width, int_view, slice_word};
use super::walk::Walk;
use super::{bits, encoding, number, rdb};
use crate::base::KeyHasher;
use crate::base::limits::{BULK_BYTES_MAX, DATABASES};
use crate::lang::env::{Env, Held, View};
use crate::lang::ir::Trap;
use crate::lang::table::{Kills, Row};
use crate::store::rope::{self, Rope};
use crate::store::{Entry, SYSTEM_DB, Slot, Value};
use std::ptr::NonNull;

pub const WRONGTYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";
/// How often an expired key is drawn before RANDOMKEY gives up.
const DRAWS_MAX: u64 = 100;
/// A string shorter than this is built in one piece when it changes; a longer one changes as a rope.
const ROPE_FROM: u64 = 4096;

pub const ROWS: &[Row] = &[
    Row::read("Db.slot(key: key) -> Slot", "20 + blocks(key)", "depth", slot),
    Row::read("slot_in(db: int, key: key) -> Slot", "20 + blocks(key)", "4", slot_in).fails(),
    Row::read("Db.index -> int", "1", "0", db_index).bound("15"),
    Row::read("Db.len -> int", "2", "1", db_len).bound("len"),
    Row::read("Db.random -> bytes?", "200", "100*depth", db_random).bound("longest"),
    Row::read("Db.scan_end(cursor: int, count: int) -> int", "10 + 4*count", "count", scan_end),
    Row::read("Db.scan(from: int, to: int) -> KeyIter", "20", "depth", scan),
    Row::trim("Db.clear()", "20", "1", clear),
    Row::trim("clear_all()", "20", "1", clear_all),
    Row::trim("swap_dbs(a: int, b: int)", "20", "1", swap_dbs).fails(),
    Row::read("Slot.value -> Value", "4", "1", value),
    Row::read("Slot.exists -> bool", "2", "0", exists),
    Row::read("Slot.is_collection -> bool", "2", "0", is_collection),
    Row::read("Slot.str -> bytes?", "6", "1", str_of).fails(),
    Row::read("Slot.text -> bytes?", "6", "1", text_of),
    Row::read("Slot.size -> int", "4", "1", size).bound("536870912").fails(),
    Row::read("Slot.due -> time?", "2", "0", due),
    Row::write("Slot.put_str(value: bytes, due: time?)", "30 + blocks(value)", "2", put_str),
    Row::write("Slot.put_int(value: int, due: time?)", "30", "2", put_int),
    Row::trim("Slot.set_due(due: time?)", "30", "2", set_due),
    Row::trim("Slot.remove() -> bool", "40", "depth + 1", remove),
    Row::write("Slot.append(tail: bytes) -> int", "104 + blocks(tail)", "depth + 2", append).fails().bound("536870912"),
    Row::write("Slot.write(offset: int, part: bytes) -> int", "104 + blocks(part)", "depth + 2", write)
        .fails()
        .bound("536870912"),
    Row::read("Slot.bits(offset: int, width: int, sign: bool) -> int", "30", "1", bits_of).fails(),
    Row::write("Slot.set_bits(offset: int, width: int, value: int)", "144", "depth + 2", set_bits).fails(),
    Row::trim("Slot.move_to(db: int, to: key)", "60 + blocks(to)", "2*depth", move_to).fails(),
    Row::write("Slot.copy_to(db: int, to: key)", "60 + blocks(to) + 50*len + 2*total", "2*depth + len", copy_to)
        .fails(),
    Row::read("Slot.encoding -> bytes", "600", "1", encoding_of).bound("1").own(),
    // An element takes its own blocks and one for what tells its length.
    Row::read("Slot.dump -> bytes", "70 + 8*len + 8*total", "2 + len", dump).bound("1 + len + total").own(),
    Row::write("Slot.restore(payload: bytes, due: time?)", "60 + 1024*blocks(payload)", "8*blocks(payload)", restore)
        .fails(),
    Row::read("restorable(payload: bytes)", "60 + 1024*blocks(payload)", "0", restorable).fails(),
    Row::read("KeyIter.next -> (bytes, int)?", "12", "1", super::walk::next_key).kills(Kills::Nothing),
];

/// One lookup.
#[derive(Clone, Copy)]
pub struct SlotState {
    pub db: u8,
    pub hash: u64,
    key: NonNull<[u8]>,
    found: Found,
}

#[derive(Clone, Copy)]
enum Found {
    Write(Slot),
    Read(Option<Entry<'static>>),
}

impl SlotState {
    /// The key's bytes.
    pub fn key<'e>(&self) -> &'e [u8] {
        // SAFETY: the bytes of an argument, view or literal, which outlive the call's use of the slot (see `Env::bytes`).
        unsafe { self.key.as_ref() }
    }
}

impl Env {
    /// Looks a key up once.
    pub(super) fn find(&mut self, db: u8, key: u64, hash: u64) -> Result<u64, Trap> {
        let key = self.bytes(key)?;
        let depth = depth(self.db_len(db)?);
        self.charge(20 + blocks(key.len()), depth);
        self.look_up(db, key, hash)
    }

    /// A key of the system database, whose names are ours: its seed need not be secret.
    pub(super) fn find_system(&mut self, key: &[u8]) -> Result<u64, Trap> {
        self.look_up(SYSTEM_DB, key, KeyHasher::new(0).hash(key))
    }

    #[inline]
    fn look_up(&mut self, db: u8, key: &[u8], hash: u64) -> Result<u64, Trap> {
        let found = match self.held {
            // SAFETY: lent to `run` for the call; not a write.
            Held::Write(writer) => Found::Write(unsafe { &mut *writer.as_ptr() }.find_slot(db, hash, key)),
            _ => Found::Read(self.version()?.entry(db, hash, key)),
        };
        if let Found::Read(Some(entry)) = &found
            && self.patience != u64::MAX
            && entry.value().size().max(entry.value().extent().total()) > self.patience
        {
            return Err(Trap::Large);
        }
        if let Found::Read(entry) = &found
            && db != SYSTEM_DB
        {
            let live = entry.as_ref().is_some_and(|e| e.due().is_none_or(|due| due > self.now));
            self.hits += u64::from(live);
            self.misses += u64::from(!live);
        }
        self.slots.push(SlotState { db, hash, key: NonNull::from(key), found });
        Ok(self.slots.len() as u64 - 1)
    }

    #[inline]
    pub(super) fn slot(&self, slot: u64) -> Result<SlotState, Trap> {
        self.slots.get(slot as usize).copied().ok_or(Trap::Index)
    }

    /// The live entry of a slot.
    #[inline]
    pub(super) fn entry<'e>(&mut self, slot: u64) -> Result<Option<Entry<'e>>, Trap> {
        let state = self.slots.get_mut(slot as usize).ok_or(Trap::Index)?;
        let key = state.key();
        let found: Option<Entry<'e>> = match (&mut state.found, self.held) {
            // SAFETY: lent to `run` for the call; an entry is not kept across a write (see `Env::bytes`).
            (Found::Write(slot), Held::Write(writer)) => unsafe { &mut *writer.as_ptr() }.entry(slot, key),
            (Found::Read(entry), _) => *entry,
            _ => return Err(Trap::Index),
        };
        Ok(found.filter(|e| e.due().is_none_or(|due| due > self.now)))
    }

    /// Stores a value under a slot's key.
    pub(super) fn put(&mut self, slot: u64, value: Value<'_>, due: Option<i64>) -> Result<(), Trap> {
        self.settle()?;
        let state = self.slot(slot)?;
        let Found::Write(mut found) = state.found else { return Err(Trap::Index) };
        self.writer()?.put(&mut found, state.key(), value, due);
        self.slots[slot as usize].found = Found::Write(found);
        Ok(())
    }

    #[inline]
    fn put_string(&mut self, slot: u64, value: u64, due: Option<i64>) -> Result<(), Trap> {
        let bytes = self.stable_bytes(value)?;
        self.charge(30 + blocks(bytes.len()), 2);
        let value = if bytes.len() <= 20 { number::int(bytes).map(Value::Int) } else { None };
        self.put(slot, value.unwrap_or(Value::Str(bytes)), due)
    }

    /// Writes a value back whose trees are the old ones, changed.
    pub(super) fn put_back(&mut self, slot: u64, value: Value<'_>, due: Option<i64>) -> Result<(), Trap> {
        let state = self.slot(slot)?;
        let Found::Write(mut found) = state.found else { return Err(Trap::Index) };
        self.writer()?.put_back(&mut found, state.key(), value, due);
        self.slots[slot as usize].found = Found::Write(found);
        Ok(())
    }

    /// Removes a slot's entry and drops its value.
    pub(super) fn drop_entry(&mut self, slot: u64) -> Result<(), Trap> {
        let state = self.slot(slot)?;
        let Found::Write(mut found) = state.found else { return Err(Trap::Index) };
        self.writer()?.remove(&mut found, state.key());
        self.slots[slot as usize].found = Found::Write(found);
        Ok(())
    }

    pub(super) fn db_len(&self, db: u8) -> Result<u64, Trap> {
        Ok(self.version()?.len(db))
    }

    /// A database by its handle: 0 is the selected one, `n + 1` database `n`.
    fn db_of(&mut self, word: u64) -> Result<u8, Trap> {
        if word == 0 { Ok(self.db) } else { self.db_numbered(word - 1) }
    }

    fn db_numbered(&mut self, index: u64) -> Result<u8, Trap> {
        if index < DATABASES as u64 { Ok(index as u8) } else { self.fail("ERR DB index is out of range") }
    }
}

helpers! {
    /// `db.slot(key)`
    fn slot(env, db, key, hash) {
        let db = env.db_of(db)?;
        env.find(db, key, hash)
    }
    /// A slot of a database by number.
    fn slot_in(env, db, key, hash) {
        let db = env.db_numbered(db)?;
        env.find(db, key, hash)
    }
    /// Number of the selected database.
    fn db_index(env, db) {
        env.charge(1, 0);
        Ok(env.db_of(db)? as u64)
    }
    /// Keys in a database, those included that have expired and were not yet removed.
    fn db_len(env, db) {
        env.charge(2, 1);
        let db = env.db_of(db)?;
        env.db_len(db)
    }
    /// A random key that has not expired.
    fn db_random(env, db) {
        let db = env.db_of(db)?;
        for _ in 0..DRAWS_MAX {
            env.charge(2, depth(env.db_len(db)?));
            let mut state = env.draw();
            let mut rng = || {
                state = crate::base::mix64(state.wrapping_add(0x9e37_79b9_7f4a_7c15));
                state
            };
            let picked = env.version()?.random_entry(db, &mut rng);
            let Some(entry) = picked else { return Ok(0) };
            if entry.due().is_none_or(|due| due > env.now) {
                let key = env.lend(entry.key());
                return env.give(Some(key));
            }
        }
        Ok(0)
    }
    /// Where a scan of `count` more entries would stop; 0 = the end.
    fn scan_end(env, db, cursor, count) {
        let db = env.db_of(db)?;
        let mut left = (count as i64).max(1);
        let mut seen = 0;
        let end = env.version()?.show_keys(db, cursor, &mut |_| {
            seen += 1;
            left -= 1;
            left > 0
        });
        env.charge(10 + 4 * seen, seen);
        Ok(end)
    }
    /// The entries from one cursor to another.
    fn scan(env, db, from, to) {
        let db = env.db_of(db)?;
        env.charge(20, depth(env.db_len(db)?));
        env.start_walk(Walk::keys(db, from, to))
    }
    /// Empties a database.
    fn clear(env, db) {
        env.charge(20, 1);
        let db = env.db_of(db)?;
        env.settle()?;
        env.writer()?.flush_db(db);
        Ok(0)
    }
    /// Empties all databases.
    fn clear_all(env) {
        env.charge(20, 1);
        env.settle()?;
        env.writer()?.flush_all();
        Ok(0)
    }
    /// Exchanges two databases.
    fn swap_dbs(env, a, b) {
        env.charge(20, 1);
        let (a, b) = (env.db_numbered(a)?, env.db_numbered(b)?);
        env.settle()?;
        env.writer()?.swap_db(a, b);
        Ok(0)
    }
    /// `slot.value`: tag and payload.
    fn value(env, slot) {
        env.charge(4, 1);
        let (tag, payload) = match env.entry(slot)?.map(|e| e.value()) {
            None => (0, 0),
            Some(Value::Int(i)) => (1, i as u64),
            Some(Value::Str(s)) => (2, env.lend(s)),
            Some(Value::Rope(r)) => (2, env.push_view(View::Rope(r, 0, r.len))),
            Some(other) => (super::tag(other.kind()), 0),
        };
        env.set_result(1, payload);
        Ok(tag)
    }
    /// Is there a value?
    fn exists(env, slot) {
        env.charge(2, 0);
        Ok(env.entry(slot)?.is_some() as u64)
    }
    /// Is there a value that is not a string?
    fn is_collection(env, slot) {
        env.charge(2, 0);
        Ok(env.entry(slot)?.is_some_and(|e| super::tag(e.kind()) > 2) as u64)
    }
    /// The string; ends the call if there is another type.
    fn str_of(env, slot) {
        env.charge(6, 1);
        match env.entry(slot)?.map(|e| e.value()) {
            None => Ok(0),
            Some(value) => match string_view(env, value) {
                Some(word) => env.give(Some(word)),
                None => env.fail(WRONGTYPE),
            },
        }
    }
    /// The string; none if there is another type.
    fn text_of(env, slot) {
        env.charge(6, 1);
        let word = env.entry(slot)?.and_then(|e| string_view(env, e.value()));
        env.give(word)
    }
    /// Bytes of the string, 0 if there is none.
    fn size(env, slot) {
        env.charge(4, 1);
        match env.entry(slot)?.map(|e| e.value()) {
            None => Ok(0),
            Some(Value::Str(s)) => Ok(s.len() as u64),
            Some(Value::Rope(r)) => Ok(r.len),
            Some(Value::Int(i)) => Ok(digits(i)),
            Some(_) => env.fail(WRONGTYPE),
        }
    }
    /// The deadline.
    fn due(env, slot) {
        env.charge(2, 0);
        let due = env.entry(slot)?.and_then(|e| e.due());
        env.give(due.map(|d| d as u64))
    }
    /// Stores a string; integers in canonical spelling are kept as numbers.
    fn put_str(env, slot, value, tag, due) {
        env.put_string(slot, value, optional(tag, due))?;
        Ok(0)
    }
    /// As `put_str`, with a panic behind the write when the key is the planted one.
    fn put_str_then_panic(env, slot, value, tag, due) {
        env.put_string(slot, value, optional(tag, due))?;
        assert!(env.slot(slot)?.key() != env.panic_key, "planted panic");
        Ok(0)
    }
    /// Stores a number.
    fn put_int(env, slot, value, tag, due) {
        env.charge(30, 2);
        env.put(slot, Value::Int(value as i64), optional(tag, due))?;
        Ok(0)
    }
    /// Sets or takes away the deadline.
    fn set_due(env, slot, tag, due) {
        env.charge(30, 2);
        if env.entry(slot)?.is_some() {
            env.settle()?;
            let state = env.slot(slot)?;
            let Found::Write(mut found) = state.found else { return Err(Trap::Index) };
            env.writer()?.set_due(&mut found, state.key(), optional(tag, due));
            env.slots[slot as usize].found = Found::Write(found);
        }
        Ok(0)
    }
    /// Removes the key; whether it was there.
    fn remove(env, slot) {
        let depth = depth(env.db_len(env.slot(slot)?.db)?);
        env.charge(40, depth + 1);
        if env.entry(slot)?.is_none() {
            return Ok(0);
        }
        env.settle()?;
        env.drop_entry(slot)?;
        Ok(1)
    }
    /// Adds to the end of a string; its new length.
    fn append(env, slot, tail) {
        let tail = env.stable_bytes(tail)?;
        let depth = depth(env.db_len(env.slot(slot)?.db)?);
        env.charge(104 + blocks(tail.len()), depth + 2);
        let len = string_len(env, slot)?;
        write_at(env, slot, len, tail)
    }
    /// Writes at a place of a string, zeros before it if it is too short; its new length.
    fn write(env, slot, offset, part) {
        let part = env.stable_bytes(part)?;
        let depth = depth(env.db_len(env.slot(slot)?.db)?);
        env.charge(104 + blocks(part.len()), depth + 2);
        write_at(env, slot, offset, part)
    }
    /// A field of bits; bits past the end are 0.
    fn bits_of(env, slot, offset, width, sign) {
        env.charge(30, 1);
        let width = field_width(width)?;
        let mut window = [0u8; 9];
        read_window(env, slot, offset, &mut window)?;
        let value = bits::field(&window, offset % 8, width);
        Ok(if sign != 0 { bits::signed(value, width) as u64 } else { value })
    }
    /// Sets a field of bits; the string grows to hold it.
    fn set_bits(env, slot, offset, width, value) {
        let depth = depth(env.db_len(env.slot(slot)?.db)?);
        env.charge(144, depth + 2);
        let width = field_width(width)?;
        let mut window = [0u8; 9];
        read_window(env, slot, offset, &mut window)?;
        bits::set_field(&mut window, offset % 8, width, value);
        let span = bits::cover(offset % 8, width);
        write_at(env, slot, offset / 8, &window[..span.end])?;
        Ok(0)
    }
    /// Moves value and deadline to another key.
    fn move_to(env, slot, db, key, hash) {
        relocate(env, [slot, db, key, hash], crate::store::Writer::move_entry)
    }
    /// Copies value and deadline to another key.
    fn copy_to(env, slot, db, key, hash) {
        let (len, total) = env.entry(slot)?.map_or((0, 0), |e| (e.value().size(), e.value().extent().total()));
        env.charge(50 * len + 2 * total, len);
        relocate(env, [slot, db, key, hash], crate::store::Writer::copy_entry)
    }
    /// What OBJECT ENCODING says.
    fn encoding_of(env, slot) {
        env.charge(600, 1);
        let Some(entry) = env.entry(slot)? else { return Ok(env.lend(b"")) };
        let name = encoding::name(env.arena()?, entry.value());
        Ok(env.lend(name.as_bytes()))
    }
    /// The value as DUMP serialises it.
    fn dump(env, slot) {
        let Some(entry) = env.entry(slot)? else { return Ok(env.lend(b"")) };
        let value = entry.value();
        let len = value.coll().map_or(0, |c| c.len);
        let mut out = Vec::new();
        rdb::dump(env.arena()?, value, &mut out);
        let places = if value.coll().is_some() { len } else { blocks(out.len()) };
        env.charge(60 + 8 * len.max(blocks(out.len())), 1 + places);
        Ok(env.keep(&out))
    }
    /// Fails where `restore` would.
    fn restorable(env, payload) {
        let payload = env.bytes(payload)?;
        env.charge(60 + 1024 * blocks(payload.len()), 0);
        super::restore::decoded(env, payload)?;
        Ok(0)
    }
    /// Stores what DUMP made, here or in Redis.
    fn restore(env, slot, payload, tag, due) {
        let payload = env.bytes(payload)?;
        env.charge(60 + 1024 * blocks(payload.len()), 8 * blocks(payload.len()));
        let value = super::restore::decoded(env, payload)?;
        super::restore::store(env, slot, value, optional(tag, due))?;
        Ok(0)
    }
}

type Relocate = fn(&mut crate::store::Writer, &mut Slot, &[u8], &mut Slot, &[u8]) -> bool;

/// Gives a slot's value to another key, whose own is dropped.
fn relocate(env: &mut Env, [slot, db, key, hash]: [u64; 4], relocate: Relocate) -> Result<u64, Trap> {
    let db = env.db_numbered(db)?;
    env.settle()?;
    if env.entry(slot)?.is_none() {
        return Ok(0);
    }
    let target = env.find(db, key, hash)?;
    let depth = depth(env.db_len(db)?);
    env.charge(40, depth);
    let (from, to) = (env.slot(slot)?, env.slot(target)?);
    if from.db == to.db && from.key() == to.key() {
        return Ok(0);
    }
    let (Found::Write(mut source), Found::Write(mut target)) = (from.found, to.found) else { return Err(Trap::Index) };
    relocate(env.writer()?, &mut source, from.key(), &mut target, to.key());
    env.slots[slot as usize].found = Found::Write(source);
    Ok(0)
}

fn string_view(env: &mut Env, value: Value<'_>) -> Option<u64> {
    match value {
        Value::Str(s) => Some(env.lend(s)),
        Value::Rope(r) => Some(env.push_view(View::Rope(r, 0, r.len))),
        Value::Int(i) => Some(int_view(env, i)),
        _ => None,
    }
}

/// Characters of a number.
fn digits(value: i64) -> u64 {
    value.unsigned_abs().checked_ilog10().map_or(1, |n| n as u64 + 1) + (value < 0) as u64
}

fn string_len(env: &mut Env, slot: u64) -> Result<u64, Trap> {
    match env.entry(slot)?.map(|e| e.value()) {
        None => Ok(0),
        Some(Value::Str(s)) => Ok(s.len() as u64),
        Some(Value::Rope(r)) => Ok(r.len),
        Some(Value::Int(i)) => Ok(digits(i)),
        Some(_) => env.fail(WRONGTYPE),
    }
}

/// The bytes around bit `offset`: nine, from its own byte on, zeros past the end.
fn read_window(env: &mut Env, slot: u64, offset: u64, window: &mut [u8; 9]) -> Result<(), Trap> {
    let Some(entry) = env.entry(slot)? else { return Ok(()) };
    let Some(all) = string_view(env, entry.value()) else { return env.fail(WRONGTYPE) };
    let from = offset / 8;
    let part = slice_word(env, all, from, from.saturating_add(9))?;
    let bytes = env.bytes(part)?;
    window[..bytes.len()].copy_from_slice(bytes);
    Ok(())
}

/// Changes a part of a slot's string, which keeps its deadline; the new length.
fn write_at(env: &mut Env, slot: u64, offset: u64, part: &[u8]) -> Result<u64, Trap> {
    let end = offset.checked_add(part.len() as u64).filter(|end| *end <= BULK_BYTES_MAX as u64);
    let Some(end) = end else { return env.fail("ERR string exceeds maximum allowed size (proto-max-bulk-len)") };
    let entry = env.entry(slot)?;
    let due = entry.and_then(|e| e.due());
    let value = entry.map(|e| e.value());
    let old: &[u8] = match value {
        Some(Value::Rope(mut rope)) => {
            env.settle()?;
            let len = rope.len.max(end);
            rope::write(env.writer()?.mutator(), &mut rope, offset, part);
            env.put_back(slot, Value::Rope(rope), due)?;
            return Ok(len);
        }
        None => &[],
        Some(Value::Str(s)) => s,
        Some(Value::Int(i)) => {
            let word = int_view(env, i);
            env.bytes(word)?
        }
        Some(_) => return env.fail(WRONGTYPE),
    };
    let len = end.max(old.len() as u64);
    if len >= ROPE_FROM {
        env.settle()?;
        let mut rope = Rope::default();
        let mutator = env.writer()?.mutator();
        rope::write(mutator, &mut rope, 0, old);
        rope::write(mutator, &mut rope, offset, part);
        env.put(slot, Value::Rope(rope), due)?;
        return Ok(len);
    }
    let out = env.scratch.take(len as usize);
    out.fill(0);
    out[..old.len()].copy_from_slice(old);
    out[offset as usize..end as usize].copy_from_slice(part);
    env.put(slot, Value::Str(out), due)?;
    Ok(len)
}
