//! The digest of everything that a version holds: equal on any two nodes that hold the same keys, values and deadlines, however they came to.

use crate::base::limits::DATABASES;
use crate::store::tree::{self, Tree};
use crate::store::{Arena, Entry, Read, Value, map, rope};
use xxhash_rust::xxh3::Xxh3;

/// Keys whose deadline is not after the version's time count as gone.
pub fn content<R: Read>(version: &R) -> u128 {
    let mut sum = 0;
    for db in 0..DATABASES as u8 {
        version.scan(db, 0, |entry| {
            if entry.due().is_none_or(|due| due > version.time()) {
                sum ^= of_entry(db, version.arena(), entry);
            }
            true
        });
    }
    sum
}

/// Lengths separate what follows each other.
fn put(hash: &mut Xxh3, bytes: &[u8]) {
    hash.update(&(bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

fn of_entry(db: u8, arena: &Arena, entry: Entry<'_>) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(&[db]);
    put(&mut hash, entry.key());
    hash.update(&entry.due().unwrap_or(-1).to_le_bytes());
    match entry.value() {
        // A string is the same, whichever way it is kept
        Value::Int(n) => put(&mut hash, n.to_string().as_bytes()),
        Value::Str(s) => put(&mut hash, s),
        Value::Rope(r) => {
            hash.update(&r.len.to_le_bytes());
            rope::read(arena, r, 0, r.len, |piece| hash.update(piece));
        }
        Value::Set(c) | Value::Hash(c) => {
            hash.update(&[entry.kind() as u8]);
            hash.update(&of_map(arena, &c.map()).to_le_bytes());
        }
        Value::List(c) => of_tree(&mut hash, arena, entry.kind() as u8, c.tree(0)),
        Value::Zset(c) | Value::Stream(c) => {
            of_tree(&mut hash, arena, entry.kind() as u8, c.tree(1));
        }
    }
    hash.digest128()
}

/// The order of a map depends on its seed: not part of what it holds.
fn of_map(arena: &Arena, map: &map::MapRoot) -> u128 {
    let mut sum = 0;
    let mut cursor = map::Cursor::new(arena, map, 0);
    while let Some(item) = cursor.next(arena) {
        let mut hash = Xxh3::new();
        put(&mut hash, item.key);
        put(&mut hash, item.value);
        sum ^= hash.digest128();
    }
    sum
}

fn of_tree(hash: &mut Xxh3, arena: &Arena, kind: u8, tree: Tree) {
    hash.update(&[kind]);
    let mut cursor = tree::Cursor::at(arena, &tree, 0);
    while let Some(item) = cursor.next(arena) {
        put(hash, item);
    }
}
