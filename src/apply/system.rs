//! # The system database: replicated state that is no client's
//!
//! A database of the store that no SELECT reaches, so it is in every checkpoint, in what peers send and in every past version, and
//! FLUSHALL leaves it alone. It holds the tables of [`super::ledger`] and *named pieces*: bytes under a name, which a
//! `SYSTEM_SET` record changes (any number of them, one epoch) and which the gateway of every node follows: configuration that changes
//! replies (`config:<name>`), users. What a piece means is the gateway's concern.

use crate::base::batch::{Call, handler};
use crate::base::words::BytesWord;
use crate::base::{Epoch, KeyHasher, Millis};
use crate::store::{Read, SYSTEM_DB, Value, Writer, rope};
use std::collections::BTreeMap;

/// Names of pieces in the database.
const PIECE: &[u8] = b"system:";
/// The epoch that last changed any piece.
const VERSION: &[u8] = b"system-version";

/// Hash of keys of the system database: its names are ours, so its seed need not be secret.
fn hash(key: &[u8]) -> u64 {
    KeyHasher::new(0).hash(key)
}

pub(super) fn due<R: Read>(state: &R, key: &[u8]) -> Option<Millis> {
    state.find(SYSTEM_DB, hash(key), key)?.due()
}

pub(super) fn get<R: Read>(state: &R, key: &[u8]) -> Option<Vec<u8>> {
    match state.find(SYSTEM_DB, hash(key), key)?.value() {
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

pub(super) fn put(writer: &mut Writer, key: &[u8], value: &[u8], due: Option<Millis>) {
    let mut slot = writer.find_slot(SYSTEM_DB, hash(key), key);
    writer.put(&mut slot, key, Value::Str(value), due);
}

pub(super) fn remove(writer: &mut Writer, key: &[u8]) {
    let mut slot = writer.find_slot(SYSTEM_DB, hash(key), key);
    writer.remove(&mut slot, key);
}

/// Visits the names that begin with `prefix`, without it.
pub(super) fn names<R: Read>(state: &R, prefix: &[u8], mut visit: impl FnMut(&[u8])) {
    let mut cursor = 0;
    loop {
        cursor = state.scan(SYSTEM_DB, cursor, |entry| {
            entry.key().strip_prefix(prefix).into_iter().for_each(&mut visit);
            true
        });
        if cursor == 0 {
            return;
        }
    }
}

fn version<R: Read>(state: &R) -> Epoch {
    let bytes = get(state, VERSION).and_then(|v| v.try_into().ok());
    bytes.map_or(Epoch::ZERO, |v| Epoch(u64::from_le_bytes(v)))
}

/// All named pieces, as of one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SystemState {
    /// The epoch that last changed any of them; 0 when none was ever set.
    pub version: Epoch,
    pieces: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl SystemState {
    /// What the state says.
    pub fn load<R: Read>(state: &R) -> SystemState {
        let mut all = SystemState { version: version(state), pieces: BTreeMap::new() };
        let mut found = Vec::new();
        names(state, PIECE, |name| found.push(name.to_vec()));
        all.read(state, found);
        all
    }

    /// Takes over what `changed` names.
    pub(super) fn update<R: Read>(&mut self, state: &R, changed: Vec<Vec<u8>>) {
        self.version = version(state);
        self.read(state, changed);
    }

    fn read<R: Read>(&mut self, state: &R, names: Vec<Vec<u8>>) {
        for name in names {
            let value = get(state, &[PIECE, &name].concat());
            self.set(name, value);
        }
    }

    /// Changes this copy.
    pub fn set(&mut self, name: Vec<u8>, value: Option<Vec<u8>>) {
        match value {
            Some(value) => self.pieces.insert(name, value),
            None => self.pieces.remove(&name),
        };
    }

    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.pieces.get(name).map(Vec::as_slice)
    }

    /// Pieces whose names begin with `prefix`: the rest of the name, and the value, in order of name.
    pub fn with_prefix<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let from = self.pieces.range(prefix.to_vec()..);
        from.map_while(move |(name, value)| Some((name.strip_prefix(prefix)?, value.as_slice())))
    }
}

/// Runs a `SYSTEM_SET` record under the writer's epoch and notes the names it changed. False: some piece has changed after the
/// epoch that the record names, and nothing was done.
pub(super) fn set(
    writer: &mut Writer,
    epoch: Epoch,
    record: &Call<'_>,
    blob: &[u8],
    changed: &mut Vec<Vec<u8>>,
) -> bool {
    if version(writer) > Epoch(record.words.get(1)) {
        return false;
    }
    let bytes = |word: u64| {
        let word = BytesWord(word);
        blob.get(word.offset()..word.offset() + word.len()).unwrap_or_default()
    };
    for change in (2..record.words.len()).step_by(2) {
        let name = bytes(record.words.get(change));
        let key = [PIECE, name].concat();
        match record.words.get(change + 1) {
            handler::SYSTEM_REMOVE => remove(writer, &key),
            value => put(writer, &key, bytes(value), None),
        }
        changed.push(name.to_vec());
    }
    put(writer, VERSION, &epoch.0.to_le_bytes(), None);
    true
}
