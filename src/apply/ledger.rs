//! # The ledger: what has been applied already
//!
//! Two tables in the replicated state (the [`system`] database), so that every node skips alike, also after a restart:
//! the last applied sequence of each gateway, and the first reply of each `LOOK.ONCE` token.

use super::system;
use crate::base::planted::planted;
use crate::base::{GatewayId, Millis};
use crate::store::{Read, Writer};
use std::collections::BTreeMap;

const GATEWAY: &[u8] = b"gateway:";
const TOKEN: &[u8] = b"once:";
const HASH_SEED: &[u8] = b"hash-seed";

/// Gateways remembered before the idle ones are looked for.
const GATEWAYS_MAX: usize = 1024;
/// A gateway id lives as long as one start of a node; one that wrote nothing for so long, milliseconds, will not return.
const GATEWAY_IDLE_MS: Millis = 7 * 24 * 3600 * 1000;
/// How long a token's reply is kept, milliseconds.
pub const TOKEN_KEPT_MS: Millis = 24 * 3600 * 1000;

/// The cluster's hash seed, once the log has set it.
pub fn hash_seed<R: Read>(state: &R) -> Option<u64> {
    Some(u64::from_le_bytes(system::get(state, HASH_SEED)?.try_into().ok()?))
}

/// Sets the seed; the first one wins.
pub fn set_hash_seed(writer: &mut Writer, seed: u64) {
    if hash_seed(writer).is_none() {
        system::put(writer, HASH_SEED, &seed.to_le_bytes(), None);
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
        if planted("the ledger is forgotten at a start") {
            return Ledger::default();
        }
        system::names(state, GATEWAY, |id| {
            let Ok(id) = id.try_into() else { return };
            let id = GatewayId(u64::from_be_bytes(id));
            let value = system::get(state, &gateway_key(id)).unwrap_or_default();
            if let Some((sequence, at)) = value.split_first_chunk::<8>()
                && let Ok(at) = at.try_into()
            {
                let seen =
                    Seen { sequence: u64::from_le_bytes(*sequence), at: Millis::from_le_bytes(at), changed: false };
                gateways.insert(id, seen);
            }
        });
        Ledger { gateways }
    }

    /// Whether a chunk runs: only the next one of its gateway does. A smaller sequence is a repeat; a larger one follows a chunk
    /// that was lost on the way, and both will be sent again.
    pub fn admit(&mut self, gateway: GatewayId, sequence: u64, now: Millis) -> bool {
        let seen = self.gateways.entry(gateway).or_insert(Seen { sequence: 0, at: now, changed: false });
        if sequence != seen.sequence + 1 && !(planted("a repeat is applied") && sequence <= seen.sequence) {
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
        if planted("the ledger is not stored") {
            return;
        }
        for (id, seen) in self.gateways.iter_mut().filter(|(_, s)| s.changed) {
            let mut value = [0u8; 16];
            value[..8].copy_from_slice(&seen.sequence.to_le_bytes());
            value[8..].copy_from_slice(&seen.at.to_le_bytes());
            system::put(writer, &gateway_key(*id), &value, None);
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
                system::remove(writer, &gateway_key(*id));
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
    if system::due(state, &key).is_some_and(|due| due <= now) {
        return None;
    }
    let value = system::get(state, &key)?;
    let (body, reply) = value.split_first_chunk::<8>()?;
    Some(Stored { body: u64::from_le_bytes(*body), reply: reply.to_vec() })
}

/// Keeps the first reply under `token`.
pub fn store_token(writer: &mut Writer, token: &[u8], body: u64, reply: &[u8], now: Millis) {
    system::put(writer, &token_key(token), &[&body.to_le_bytes()[..], reply].concat(), Some(now + TOKEN_KEPT_MS));
}
