//! OBJECT ENCODING: the name of the encoding that Redis 7.2 would use for a value (Look has its own, see `store`).

use super::number;
use crate::store::tree::{self, Tree};
use crate::store::{Arena, Value, map};

/// `hash-max-listpack-entries`
const HASH_LISTPACK_ENTRIES_MAX: u64 = 512;
/// `zset-max-listpack-entries`, `set-max-listpack-entries`.
const LISTPACK_ENTRIES_MAX: u64 = 128;
/// `hash-max-listpack-value` and its kin, bytes.
const LISTPACK_VALUE_MAX: usize = 64;
/// `set-max-intset-entries`
const INTSET_ENTRIES_MAX: u64 = 512;
/// `list-max-listpack-size -2`: bytes of a list that is one node.
const LIST_BYTES_MAX: usize = 8192;
/// Longest string in one piece with its object header.
const EMBSTR_MAX: usize = 44;

pub fn name(arena: &Arena, value: Value<'_>) -> &'static str {
    match value {
        Value::Int(_) => "int",
        Value::Str(s) if s.len() <= EMBSTR_MAX => "embstr",
        Value::Str(_) | Value::Rope(_) => "raw",
        Value::List(c) => list(arena, &c.tree(0)),
        Value::Set(c) => set(arena, &c.map()),
        Value::Hash(c) if fits_listpack(arena, &c.map(), HASH_LISTPACK_ENTRIES_MAX) => "listpack",
        Value::Hash(_) => "hashtable",
        Value::Zset(c) if fits_listpack(arena, &c.map(), LISTPACK_ENTRIES_MAX) => "listpack",
        Value::Zset(_) => "skiplist",
        Value::Stream(_) => "stream",
    }
}

fn list(arena: &Arena, tree: &Tree) -> &'static str {
    let mut cursor = tree::Cursor::at(arena, tree, 0);
    let mut bytes = 0;
    while bytes <= LIST_BYTES_MAX {
        match cursor.next(arena) {
            Some(item) => bytes += item.len() + 2,
            None => return "listpack",
        }
    }
    "quicklist"
}

fn set(arena: &Arena, map: &map::MapRoot) -> &'static str {
    if map.len <= INTSET_ENTRIES_MAX && all(arena, map, |member, _| number::int(member).is_some()) {
        return "intset";
    }
    if fits_listpack(arena, map, LISTPACK_ENTRIES_MAX) { "listpack" } else { "hashtable" }
}

fn fits_listpack(arena: &Arena, map: &map::MapRoot, entries_max: u64) -> bool {
    // The values of a set are empty, those of a sorted set are scores.
    let short = |bytes: &[u8]| bytes.len() <= LISTPACK_VALUE_MAX;
    map.len <= entries_max && all(arena, map, |key, value| short(key) && short(value))
}

fn all(arena: &Arena, map: &map::MapRoot, good: impl Fn(&[u8], &[u8]) -> bool) -> bool {
    let mut cursor = map::Cursor::new(arena, map, 0);
    while let Some(item) = cursor.next(arena) {
        if !good(item.key, item.value) {
            return false;
        }
    }
    true
}
