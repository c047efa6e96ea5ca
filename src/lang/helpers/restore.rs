//! RESTORE: a decoded payload becomes the value of a key.

use super::number;
use super::rdb::{self, PayloadError, Restored};
use crate::lang::env::Env;
use crate::lang::ir::Trap;
use crate::store::tree::{self, Order, Tree};
use crate::store::{Coll, MapRoot, Value, map};

/// The value in a payload, if it can be stored: a collection has elements, a sorted set none of them twice.
pub fn decoded(env: &mut Env, payload: &[u8]) -> Result<Restored, Trap> {
    match rdb::restore(payload) {
        Ok(value) if is_sound(&value) => Ok(value),
        Ok(_) => env.fail(PayloadError::Content.to_string()),
        Err(error) => env.fail(error.to_string()),
    }
}

fn is_sound(value: &Restored) -> bool {
    match value {
        Restored::Str(_) => true,
        Restored::List(items) | Restored::Set(items) => !items.is_empty(),
        Restored::Hash(fields) => !fields.is_empty(),
        Restored::Zset(scored) => {
            let mut members: Vec<&[u8]> = scored.iter().map(|(member, _)| member.as_slice()).collect();
            members.sort_unstable();
            !members.is_empty() && members.windows(2).all(|two| two[0] != two[1])
        }
    }
}

/// Puts the value under the slot's key.
pub fn store(env: &mut Env, slot: u64, value: Restored, due: Option<i64>) -> Result<(), Trap> {
    let value = match value {
        Restored::Str(bytes) => {
            let number = number::int(&bytes).map(Value::Int);
            return env.put(slot, number.unwrap_or(Value::Str(&bytes)), due);
        }
        Restored::List(items) => list(env, &items)?,
        Restored::Set(members) => {
            let map = members.iter().try_fold(MapRoot::default(), |map, m| with(env, map, m, b""))?;
            Value::Set(of_map(map))
        }
        Restored::Hash(fields) => {
            let map = fields.iter().try_fold(MapRoot::default(), |map, (f, v)| with(env, map, f, v))?;
            Value::Hash(of_map(map))
        }
        Restored::Zset(members) => zset(env, &members)?,
    };
    env.put(slot, value, due)
}

fn list<'v>(env: &mut Env, items: &[Vec<u8>]) -> Result<Value<'v>, Trap> {
    let mut tree = Tree::EMPTY;
    let mutator = env.writer()?.mutator();
    for item in items {
        tree::push_back(mutator, &mut tree, item);
    }
    let mut coll = Coll::default();
    coll.set_tree(0, tree);
    Ok(Value::List(coll))
}

fn of_map(map: MapRoot) -> Coll {
    let mut coll = Coll::default();
    coll.set_map(map);
    coll
}

fn with(env: &mut Env, mut map: MapRoot, key: &[u8], value: &[u8]) -> Result<MapRoot, Trap> {
    let hash = env.hash(key);
    map::put(env.writer()?.mutator(), &mut map, hash, key, value);
    Ok(map)
}

fn zset<'v>(env: &mut Env, members: &[(Vec<u8>, f64)]) -> Result<Value<'v>, Trap> {
    let mut tree = Tree::EMPTY;
    let mut map = MapRoot::default();
    let mut item = Vec::new();
    for (member, score) in members {
        let hash = env.hash(member);
        let mutator = env.writer()?.mutator();
        item.clear();
        tree::score_item(*score, member, &mut item);
        tree::insert(mutator, &mut tree, Order::Score, &item);
        map::put(mutator, &mut map, hash, member, &score.to_bits().to_le_bytes());
    }
    let mut coll = of_map(map);
    coll.set_tree(1, tree);
    Ok(Value::Zset(coll))
}
