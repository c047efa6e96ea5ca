//! Collections that a program declares, and its local lists.
//!
//! A program's collection is a value like any other, kept in the system database under a name of its own: a `map` is a hash, a `set` a
//! set, a `seq` a list; an `omap` or `oset` has the two roots of a sorted set, a map (key to row) and a tree of keys in the order of
//! their bytes. So versions, checkpoints, digests and the undo journal hold for them without a word of their own.
//!
//! ```text
//! key   = field …                       order of bytes = order of fields
//! field = 1 | int, sign bit flipped, 8 bytes, big-endian      (also bool, enum)
//!       | 2 | float as a sortable u64, 8 bytes, big-endian
//!       | 3 | bytes, each 0 written as 0 ff | 0 0
//! row   = number of words | word × | bytes      u64 little-endian; a word of bytes: offset behind the words << 32 | length
//! ```
//!
//! Keys and rows are built in the call's draft: fields, then `*_done`. Sizes are the declared ones: a program checks before it writes.

use super::edge::{blocks, depth, helpers};
use crate::lang::env::Env;
use crate::lang::ir::Trap;
use crate::lang::table::Row;
use crate::store::tree::{self, Order};
use crate::store::{ValueKind, map};

/// Most words that a list of a program may hold.
const LIST_WORDS_MAX: u64 = 1 << 20;

pub const ROWS: &[Row] = &[
    Row::read("program_map(name: bytes) -> Hash", "30 + blocks(name)", "13", program_map),
    Row::read("program_set(name: bytes) -> Set", "30 + blocks(name)", "13", program_set),
    Row::read("program_ordered(name: bytes) -> Ordered", "30 + blocks(name)", "13", program_ordered),
    Row::read("program_seq(name: bytes) -> List", "30 + blocks(name)", "13", program_seq),
    Row::read("Ordered.len -> int", "2", "0", super::collections::len).bound("len"),
    Row::read("Ordered.get(k: bytes) -> bytes?", "20 + blocks(k)", "depth", get),
    Row::write("Ordered.put(k: bytes, v: bytes) -> bool", "90 + 3*blocks(k) + blocks(v)", "3*depth + 2", put),
    Row::trim("Ordered.remove(k: bytes) -> bool", "80 + 3*blocks(k)", "2*depth + 2", remove),
    Row::read("Ordered.below(k: bytes) -> int", "35 + blocks(k)", "depth", below).bound("len"),
    Row::read("Ordered.at(rank: int) -> bytes?", "35", "depth", at),
    Row::trim(
        "Ordered.take(from: bytes, to: bytes, size: int) -> bytes?",
        "150 + 2*blocks(from) + blocks(to) + 4*size",
        "4*depth + 2",
        take,
    )
    .own(),
    Row::pure("key_int(x: int)", "4", "0", key_int),
    Row::pure("key_float(x: float)", "4", "0", key_float),
    Row::pure("key_bytes(x: bytes)", "6 + 2*blocks(x)", "0", key_bytes),
    Row::pure("key_done(past: bool, size: int) -> bytes", "6 + size", "0", key_done).own(),
    Row::pure("bytes.key_int(i: int) -> int", "6 + blocks(self)", "0", key_int_at),
    Row::pure("bytes.key_float(i: int) -> float", "6 + blocks(self)", "0", key_float_at),
    Row::pure("bytes.key_bytes(i: int) -> bytes", "10 + 2*blocks(self)", "0", key_bytes_at).own(),
    Row::pure("row_word(x: int)", "4", "0", row_word),
    Row::pure("row_bytes(x: bytes)", "6 + blocks(x)", "0", row_bytes),
    Row::pure("row_done(size: int) -> bytes", "6 + size", "0", row_done).own(),
    Row::pure("bytes.row_word(i: int) -> int", "4", "0", row_word_at),
    Row::pure("bytes.row_bytes(i: int) -> bytes", "6", "0", row_bytes_at),
    Row::pure("check_int(x: int, min: int, max: int)", "3", "0", check_int).fails(),
    Row::pure("check_bytes(x: bytes, max: int)", "3", "0", check_bytes).fails(),
    Row::pure("bytes.own() -> bytes", "6 + blocks(self)", "0", own).own(),
    Row::pure("list_new(width: int, max: int) -> Items", "6", "0", list_new),
    Row::pure("Items.len -> int", "2", "0", list_len),
    Row::pure("list_push(l: Items, x: int)", "6", "0", list_push).fails(),
    Row::pure("list_get(l: Items, i: int) -> int", "4", "0", list_get).fails(),
    Row::pure("list_set(l: Items, i: int, x: int)", "4", "0", list_set).fails(),
];

/// A key or a row being built.
#[derive(Default)]
pub(in crate::lang) struct Draft {
    key: Vec<u8>,
    words: Vec<u64>,
    heap: Vec<u8>,
}

impl Draft {
    pub(in crate::lang) fn clear(&mut self) {
        self.key.clear();
        self.words.clear();
        self.heap.clear();
    }
}

/// A local list: elements of `width` words.
pub(in crate::lang) struct Items {
    width: u64,
    words_max: u64,
    words: Vec<u64>,
}

const INT: u8 = 1;
const FLOAT: u8 = 2;
const BYTES: u8 = 3;

/// A float as a number that compares as it does; both zeros are one.
fn sortable(x: f64) -> u64 {
    let bits = (x + 0.0).to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}
fn unsortable(x: u64) -> f64 {
    f64::from_bits(if x >> 63 == 1 { x & !(1 << 63) } else { !x })
}

/// One field of a key.
enum Field<'a> {
    Word(u8, u64),
    /// As written: zeros doubled.
    Bytes(&'a [u8]),
}

/// The field at the front, and what follows it. None: this is no key.
fn field(key: &[u8]) -> Option<(Field<'_>, &[u8])> {
    let (&kind, rest) = key.split_first()?;
    if kind != BYTES {
        let (word, rest) = rest.split_first_chunk::<8>()?;
        return Some((Field::Word(kind, u64::from_be_bytes(*word)), rest));
    }
    let mut at = 0;
    loop {
        at += rest.get(at..)?.iter().position(|b| *b == 0)?;
        match rest.get(at + 1)? {
            0 => return Some((Field::Bytes(&rest[..at]), &rest[at + 2..])),
            _ => at += 2,
        }
    }
}

impl Env {
    /// Opens the program's collection of this name; one that does not exist yet is empty.
    fn open_program(&mut self, name: u64, kind: ValueKind) -> Result<u64, Trap> {
        let name = self.bytes(name)?;
        // the rest is what opening charges
        self.charge(20 + blocks(name.len()), 12);
        let slot = self.find_system(name)?;
        self.open_of_program(slot, kind)?;
        Ok(slot)
    }

    fn key_field(&mut self, key: u64, i: u64) -> Result<Field<'static>, Trap> {
        let mut rest: &'static [u8] = self.bytes(key)?;
        self.charge(6 + blocks(rest.len()), 0);
        for _ in 0..i {
            rest = field(rest).ok_or(Trap::Index)?.1;
        }
        field(rest).map(|f| f.0).ok_or(Trap::Index)
    }

    fn row_at(&mut self, row: u64, i: u64) -> Result<(&'static [u8], u64), Trap> {
        let row: &'static [u8] = self.bytes(row)?;
        let words = row.as_chunks::<8>().0;
        let word = usize::try_from(i).ok().and_then(|i| words.get(i)).ok_or(Trap::Index)?;
        Ok((row, u64::from_le_bytes(*word)))
    }

    fn items(&mut self, list: u64) -> Result<&mut Items, Trap> {
        self.lists.get_mut(list as usize).ok_or(Trap::Index)
    }
}

helpers! {
    /// A `map`.
    fn program_map(env, name) {
        env.open_program(name, ValueKind::Hash)
    }
    /// A `set`.
    fn program_set(env, name) {
        env.open_program(name, ValueKind::Set)
    }
    /// An `omap` or `oset`.
    fn program_ordered(env, name) {
        env.open_program(name, ValueKind::Zset)
    }
    /// A `seq`.
    fn program_seq(env, name) {
        env.open_program(name, ValueKind::List)
    }
    /// The row of a key.
    fn get(env, handle, k) {
        let map = env.opened_ordered(handle)?.map();
        let key = env.bytes(k)?;
        env.charge(20 + blocks(key.len()), depth(map.len));
        let row = map::get(env.arena()?, &map, env.hash(key), key);
        let word = row.map(|v| env.lend(v));
        env.give(word)
    }
    /// Sets the row of a key: whether the key is new.
    fn put(env, handle, k, v) {
        let mut coll = env.opened_ordered(handle)?;
        let (key, row) = (env.stable_bytes(k)?, env.stable_bytes(v)?);
        env.charge(90 + 3 * blocks(key.len()) + blocks(row.len()), 3 * depth(coll.len) + 2);
        let mut map = coll.map();
        let mut tree = coll.tree(1);
        let hash = env.hash(key);
        let mutator = env.writer()?.mutator();
        let new = map::put(mutator, &mut map, hash, key, row);
        if new {
            tree::insert(mutator, &mut tree, Order::Bytes, key);
        }
        coll.set_map(map);
        coll.set_tree(1, tree);
        env.change_ordered(handle, coll)?;
        Ok(new as u64)
    }
    /// Removes a key: whether it was there.
    fn remove(env, handle, k) {
        let coll = env.opened_ordered(handle)?;
        let key = env.stable_bytes(k)?;
        env.charge(80 + 3 * blocks(key.len()), 2 * depth(coll.len) + 2);
        remove_key(env, handle, key)
    }
    /// How many keys are less.
    fn below(env, handle, k) {
        let tree = env.opened_ordered(handle)?.tree(1);
        let key = env.bytes(k)?;
        env.charge(35 + blocks(key.len()), depth(tree.len));
        Ok(tree::lower_bound(env.arena()?, &tree, Order::Bytes, key))
    }
    /// The key of that rank.
    fn at(env, handle, rank) {
        let tree = env.opened_ordered(handle)?.tree(1);
        env.charge(35, depth(tree.len));
        let key = tree::get(env.arena()?, &tree, rank);
        let word = key.map(|k| env.lend(k));
        env.give(word)
    }
    /// Takes out the first key that is not less than `from` and less than `to` (which is no limit when it is empty).
    fn take(env, handle, from, to, _size) {
        let tree = env.opened_ordered(handle)?.tree(1);
        let (from, to) = (env.stable_bytes(from)?, env.stable_bytes(to)?);
        env.charge(150 + 2 * blocks(from.len()) + blocks(to.len()), 4 * depth(tree.len) + 2);
        let rank = tree::lower_bound(env.arena()?, &tree, Order::Bytes, from);
        let Some(key) = tree::get(env.arena()?, &tree, rank).filter(|k| to.is_empty() || *k < to) else { return Ok(0) };
        env.charge(4 * blocks(key.len()), 0);
        let word = env.keep(key);
        let key = env.bytes(word)?;
        remove_key(env, handle, key)?;
        env.give(Some(word))
    }
    /// Adds an int (or bool, enum, time) to the key in the draft.
    fn key_int(env, x) {
        env.charge(4, 0);
        env.draft.key.push(INT);
        env.draft.key.extend_from_slice(&(x ^ 1 << 63).to_be_bytes());
        Ok(0)
    }
    /// Adds a float.
    fn key_float(env, x) {
        env.charge(4, 0);
        env.draft.key.push(FLOAT);
        env.draft.key.extend_from_slice(&sortable(f64::from_bits(x)).to_be_bytes());
        Ok(0)
    }
    /// Adds bytes.
    fn key_bytes(env, x) {
        let bytes = env.bytes(x)?;
        env.charge(6 + 2 * blocks(bytes.len()), 0);
        let key = &mut env.draft.key;
        key.push(BYTES);
        for (i, part) in bytes.split(|b| *b == 0).enumerate() {
            if i > 0 {
                key.extend_from_slice(&[0, 0xff]);
            }
            key.extend_from_slice(part);
        }
        key.extend_from_slice(&[0, 0]);
        Ok(0)
    }
    /// The key. `past`: the least one that is greater than all that begin with it; empty if there is none.
    fn key_done(env, past, _size) {
        let mut key = std::mem::take(&mut env.draft.key);
        if past != 0 {
            while key.pop_if(|b| *b == 0xff).is_some() {}
            if let Some(last) = key.last_mut() {
                *last += 1;
            }
        }
        env.charge(6 + blocks(key.len()), 0);
        let word = env.keep(&key);
        key.clear();
        env.draft.key = key;
        Ok(word)
    }
    /// The int in a key's field.
    fn key_int_at(env, key, i) {
        match env.key_field(key, i)? {
            Field::Word(INT, word) => Ok(word ^ 1 << 63),
            _ => Err(Trap::Index),
        }
    }
    /// The float in a key's field.
    fn key_float_at(env, key, i) {
        match env.key_field(key, i)? {
            Field::Word(FLOAT, word) => Ok(unsortable(word).to_bits()),
            _ => Err(Trap::Index),
        }
    }
    /// The bytes in a key's field.
    fn key_bytes_at(env, key, i) {
        let Field::Bytes(written) = env.key_field(key, i)? else { return Err(Trap::Index) };
        env.charge(4 + blocks(written.len()), 0);
        let out = env.scratch.take(written.len());
        let mut len = 0;
        for (n, part) in written.split(|b| *b == 0).enumerate() {
            // what stands behind a zero is the ff that was written with it
            let part = if n == 0 { part } else { out[len] = 0; len += 1; part.get(1..).unwrap_or(&[]) };
            out[len..len + part.len()].copy_from_slice(part);
            len += part.len();
        }
        Ok(env.lend(&out[..len]))
    }
    /// Adds a word to the row in the draft.
    fn row_word(env, x) {
        env.charge(4, 0);
        env.draft.words.push(x);
        Ok(0)
    }
    /// Adds bytes.
    fn row_bytes(env, x) {
        let bytes = env.bytes(x)?;
        env.charge(6 + blocks(bytes.len()), 0);
        // The offset counts from the heap until the number of words is known.
        env.draft.words.push((env.draft.heap.len() as u64) << 32 | bytes.len() as u64);
        env.draft.heap.extend_from_slice(bytes);
        Ok(0)
    }
    /// The row.
    fn row_done(env, _size) {
        let count = env.draft.words.len();
        let len = 8 + count * 8 + env.draft.heap.len();
        env.charge(6 + blocks(len), 0);
        let out = env.scratch.take(len);
        let (words, heap) = out.split_at_mut(8 + count * 8);
        let cells = words.chunks_exact_mut(8);
        for (cell, word) in cells.zip([count as u64].iter().chain(&env.draft.words)) {
            cell.copy_from_slice(&word.to_le_bytes());
        }
        heap.copy_from_slice(&env.draft.heap);
        env.draft.words.clear();
        env.draft.heap.clear();
        Ok(env.lend(out))
    }
    /// A word of a row.
    fn row_word_at(env, row, i) {
        env.charge(4, 0);
        Ok(env.row_at(row, i.saturating_add(1))?.1)
    }
    /// Bytes of a row.
    fn row_bytes_at(env, row, i) {
        env.charge(6, 0);
        let (_, count) = env.row_at(row, 0)?;
        let (row, word) = env.row_at(row, i.saturating_add(1))?;
        let heap = usize::try_from(count).ok().and_then(|n| n.checked_mul(8)).and_then(|n| row.get(n.checked_add(8)?..));
        let (from, len) = ((word >> 32) as usize, word as u32 as usize);
        let part = heap.and_then(|heap| heap.get(from..from + len)).ok_or(Trap::Index)?;
        Ok(env.lend(part))
    }
    /// Ends the call unless `min <= x <= max`.
    fn check_int(env, x, min, max) {
        env.charge(3, 0);
        let x = x as i64;
        if x < min as i64 || x > max as i64 { env.fail("ERR value is out of the range of its field") } else { Ok(0) }
    }
    /// Ends the call unless there are at most `max` bytes.
    fn check_bytes(env, x, max) {
        env.charge(3, 0);
        if env.len_of(x)? > max { env.fail("ERR value is too long for its field") } else { Ok(0) }
    }
    /// A copy that no write ends.
    fn own(env, x) {
        let bytes = env.bytes(x)?;
        env.charge(6 + blocks(bytes.len()), 0);
        Ok(env.keep(bytes))
    }
    /// An empty list of elements of `width` words, `max` at the most.
    fn list_new(env, width, max) {
        env.charge(6, 0);
        let words_max = width.saturating_mul(max).min(LIST_WORDS_MAX);
        env.lists.push(Items { width: width.max(1), words_max, words: Vec::new() });
        Ok(env.lists.len() as u64 - 1)
    }
    /// Its elements.
    fn list_len(env, list) {
        env.charge(2, 0);
        let list = env.items(list)?;
        Ok(list.words.len() as u64 / list.width)
    }
    /// Adds a word.
    fn list_push(env, list, x) {
        env.charge(6, 0);
        let list = env.items(list)?;
        if list.words.len() as u64 >= list.words_max {
            return env.fail("ERR a list of this program is full");
        }
        list.words.push(x);
        Ok(0)
    }
    /// A word.
    fn list_get(env, list, i) {
        env.charge(4, 0);
        env.items(list)?.words.get(i as usize).copied().ok_or(Trap::Index)
    }
    /// Changes a word.
    fn list_set(env, list, i, x) {
        env.charge(4, 0);
        *env.items(list)?.words.get_mut(i as usize).ok_or(Trap::Index)? = x;
        Ok(0)
    }
}

fn remove_key(env: &mut Env, handle: u64, key: &[u8]) -> Result<u64, Trap> {
    let mut coll = env.opened_ordered(handle)?;
    let (mut map, mut tree) = (coll.map(), coll.tree(1));
    let hash = env.hash(key);
    if map::get(env.arena()?, &map, hash, key).is_none() {
        return Ok(0);
    }
    let mutator = env.writer()?.mutator();
    map::remove(mutator, &mut map, hash, key);
    tree::remove(mutator, &mut tree, Order::Bytes, key);
    coll.set_map(map);
    coll.set_tree(1, tree);
    env.change_ordered(handle, coll)?;
    Ok(1)
}
