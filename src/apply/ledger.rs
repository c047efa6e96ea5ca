//! # The ledger: what has been applied already
//!
//! Tables in the replicated state (the store's system database), so that every node skips alike, also after a restart:
//! the last applied sequence of each gateway, and the first reply of each `LOOK.ONCE` token. Beside them what outlives a
//! membership: the id that the next node gets, and the data directory that each node brought along.

use super::machine::Roster;
use crate::base::members::Members;
use crate::base::{GatewayId, KeyHasher, Millis, NodeId};
use crate::store::{Read, SYSTEM_DB, Value, Writer, rope};
use std::collections::BTreeMap;

const GATEWAY: &[u8] = b"gateway:";
const TOKEN: &[u8] = b"once:";
const HASH_SEED: &[u8] = b"hash-seed";
const NEXT_NODE: &[u8] = b"next-node";
const DIRECTORY: &[u8] = b"node-directory:";

/// Gateways remembered before the idle ones are looked for.
const GATEWAYS_MAX: usize = 1024;
/// A gateway id lives as long as one start of a node; one that wrote nothing for so long, milliseconds, will not return.
const GATEWAY_IDLE_MS: Millis = 7 * 24 * 3600 * 1000;
/// How long a token's reply is kept, milliseconds.
pub const TOKEN_KEPT_MS: Millis = 24 * 3600 * 1000;

const SYSTEM: u8 = SYSTEM_DB;

/// Hash of keys of the system database: its names are ours, so its seed need not be secret.
fn system_hash(key: &[u8]) -> u64 {
    KeyHasher::new(0).hash(key)
}

/// Reads a value of the system database.
fn system_get<R: Read>(state: &R, key: &[u8]) -> Option<Vec<u8>> {
    match state.find(SYSTEM, system_hash(key), key)?.value() {
        Value::Str(s) => Some(s.to_vec()),
        Value::Int(i) => Some(i.to_string().into_bytes()),
        Value::Rope(rope) => {
            let mut bytes = Vec::with_capacity(rope.len as usize);
            rope::read(state.arena(), rope, 0, rope.len, |piece| bytes.extend_from_slice(piece));
            Some(bytes)
        }
        _ => None,
    }
}

fn system_put(writer: &mut Writer, key: &[u8], value: &[u8], due: Option<Millis>) {
    let mut slot = writer.find_slot(SYSTEM, system_hash(key), key);
    writer.put(&mut slot, key, Value::Str(value), due);
}

fn system_word<R: Read>(state: &R, key: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(system_get(state, key)?.try_into().ok()?))
}

/// Raises the next node's id above everything in `members`: an id is never given twice, whoever leaves.
pub fn note_members(writer: &mut Writer, members: &Members) {
    let next = members.highest().next();
    if system_word(writer, NEXT_NODE).is_none_or(|known| known < next.0) {
        system_put(writer, NEXT_NODE, &next.0.to_le_bytes(), None);
    }
}

fn directory_key(node: NodeId) -> Vec<u8> {
    [DIRECTORY, &node.0.to_be_bytes()].concat()
}

/// Remembers the data directory of a node; the first one wins, so that a wiped node cannot come back under its old id.
pub fn set_directory(writer: &mut Writer, node: NodeId, directory: u64) {
    let key = directory_key(node);
    if system_word(writer, &key).is_none() {
        system_put(writer, &key, &directory.to_le_bytes(), None);
    }
}

/// What the state knows of the nodes.
pub fn roster<R: Read>(state: &R, members: Members) -> Roster {
    let next = system_word(state, NEXT_NODE).map_or(members.highest().next(), NodeId);
    let directory = |id: &NodeId| Some((*id, system_word(state, &directory_key(*id))?));
    let directories = members.nodes.keys().filter_map(directory).collect();
    Roster { members, next, directories }
}

/// The cluster's hash seed, once the log has set it.
pub fn hash_seed<R: Read>(state: &R) -> Option<u64> {
    system_word(state, HASH_SEED)
}

/// Sets the seed; the first one wins.
pub fn set_hash_seed(writer: &mut Writer, seed: u64) {
    if hash_seed(writer).is_none() {
        system_put(writer, HASH_SEED, &seed.to_le_bytes(), None);
    }
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    sequence: u64,
    at: Millis,
    changed: bool,
}

/// Last applied sequence by gateway: the state's table, held in memory and written back once a batch.
#[derive(Debug, Default)]
pub struct Ledger {
    gateways: BTreeMap<GatewayId, Seen>,
}

impl Ledger {
    /// What the state says.
    pub fn load<R: Read>(state: &R) -> Ledger {
        let mut gateways = BTreeMap::new();
        let mut cursor = 0;
        loop {
            cursor = state.scan(SYSTEM, cursor, |entry| {
                if let (Some(id), Value::Str(v)) = (entry.key().strip_prefix(GATEWAY), entry.value())
                    && let (Ok(id), Some((sequence, at))) = (id.try_into(), v.split_first_chunk::<8>())
                    && let Ok(at) = at.try_into()
                {
                    let seen =
                        Seen { sequence: u64::from_le_bytes(*sequence), at: Millis::from_le_bytes(at), changed: false };
                    gateways.insert(GatewayId(u64::from_be_bytes(id)), seen);
                }
                true
            });
            if cursor == 0 {
                return Ledger { gateways };
            }
        }
    }

    /// Whether a chunk runs: only the next one of its gateway does. A smaller sequence is a repeat; a larger one follows a chunk
    /// that was lost on the way, and both will be sent again.
    pub fn admit(&mut self, gateway: GatewayId, sequence: u64, now: Millis) -> bool {
        let seen = self.gateways.entry(gateway).or_insert(Seen { sequence: 0, at: now, changed: false });
        if sequence != seen.sequence + 1 {
            return false;
        }
        *seen = Seen { sequence, at: now, changed: true };
        true
    }

    pub fn last(&self, gateway: GatewayId) -> u64 {
        self.gateways.get(&gateway).map_or(0, |s| s.sequence)
    }

    /// Writes the batch's changes into the state.
    pub fn store(&mut self, writer: &mut Writer, now: Millis) {
        for (id, seen) in self.gateways.iter_mut().filter(|(_, s)| s.changed) {
            let mut value = [0u8; 16];
            value[..8].copy_from_slice(&seen.sequence.to_le_bytes());
            value[8..].copy_from_slice(&seen.at.to_le_bytes());
            system_put(writer, &gateway_key(*id), &value, None);
            seen.changed = false;
        }
        if self.gateways.len() > GATEWAYS_MAX {
            self.forget_idle(writer, now);
        }
    }

    fn forget_idle(&mut self, writer: &mut Writer, now: Millis) {
        self.gateways.retain(|id, seen| {
            let kept = now - seen.at < GATEWAY_IDLE_MS;
            if !kept {
                let key = gateway_key(*id);
                let mut slot = writer.find_slot(SYSTEM, system_hash(&key), &key);
                writer.remove(&mut slot, &key);
            }
            kept
        });
    }
}

fn gateway_key(id: GatewayId) -> Vec<u8> {
    [GATEWAY, &id.0.to_be_bytes()].concat()
}

fn token_key(token: &[u8]) -> Vec<u8> {
    [TOKEN, token].concat()
}

/// The first reply under a token, and the digest of the body that earned it.
pub struct Stored {
    pub body: u64,
    pub reply: Vec<u8>,
}

/// What is stored under `token`, if it has not expired.
pub fn token<R: Read>(state: &R, token: &[u8], now: Millis) -> Option<Stored> {
    let key = token_key(token);
    let entry = state.find(SYSTEM, system_hash(&key), &key)?;
    if entry.due().is_some_and(|due| due <= now) {
        return None;
    }
    let value = system_get(state, &key)?;
    let (body, reply) = value.split_first_chunk::<8>()?;
    Some(Stored { body: u64::from_le_bytes(*body), reply: reply.to_vec() })
}

/// Keeps the first reply under `token`.
pub fn store_token(writer: &mut Writer, token: &[u8], body: u64, reply: &[u8], now: Millis) {
    system_put(writer, &token_key(token), &[&body.to_le_bytes()[..], reply].concat(), Some(now + TOKEN_KEPT_MS));
}
