//! What must hold whatever happens, looked at from outside all nodes.

use crate::net::Ms;
use look::apply::machine::{Body, Committed};
use look::base::batch::{Batch, Chunk, handler};
use look::base::{GatewayId, mix64};
use look::raft::Leadership;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// What the first node that applied an entry saw; every other must see the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    term: u64,
    body: u64,
}

/// The state after an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct After {
    pub epoch: u64,
    pub digest: u64,
    /// Log time.
    pub time: i64,
}

#[derive(Default)]
struct Seen {
    entries: BTreeMap<u64, Entry>,
    states: BTreeMap<u64, After>,
    leaders: BTreeMap<u64, u64>,
    violations: Vec<String>,
    /// The newest epoch.
    epoch: u64,
    /// The last chunk of each gateway that ran.
    ran: BTreeMap<GatewayId, u64>,
    /// Where the log has the pipelines that bear a mark, since the last question.
    places: Places,
}

/// Pipelines by their marks.
pub type Places = BTreeMap<u64, Place>;

/// Where a pipeline is in the log.
pub struct Place {
    pub first: u64,
    pub epochs: u64,
}

/// What a client writes to know its pipeline in the log.
pub fn mark(number: u64) -> String {
    format!("#{number}#")
}

fn mark_in(blob: &[u8]) -> Option<u64> {
    std::str::from_utf8(blob.split(|byte| *byte == b'#').nth(1)?).ok()?.parse().ok()
}

/// How many epochs a chunk makes: its calls, a transaction being one.
fn epochs_of(chunk: &Chunk) -> u64 {
    let (mut epochs, mut calls) = (0, chunk.calls());
    while let Some(call) = calls.next() {
        match (call.handler, call.words.get(0)) {
            (handler::SYSTEM, handler::SYSTEM_HASH_SEED | handler::SYSTEM_NODE) => continue,
            (handler::EXEC, records) => calls.by_ref().take(records as usize).for_each(drop),
            _ => {}
        }
        epochs += 1;
    }
    epochs
}

/// Clones share it.
#[derive(Clone, Default)]
pub struct Truth(Arc<Mutex<Seen>>);

fn body_of(body: &Body) -> u64 {
    let mut sum = 0u64;
    let mut add = |bytes: &[u8]| {
        sum = mix64(sum ^ crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes));
    };
    match body {
        Body::Batch(batch) => batch.write_to(|piece| add(piece)),
        Body::Membership(bytes) => add(bytes),
        _ => {}
    }
    sum
}

impl Seen {
    /// A batch is applied for the first time. Of each gateway's chunks only the next one runs.
    fn find_marks(&mut self, batch: &Batch) {
        let mut epoch = self.epoch;
        for chunk in &batch.chunks {
            let ran = self.ran.entry(chunk.gateway).or_default();
            if chunk.sequence != *ran + 1 {
                continue;
            }
            *ran = chunk.sequence;
            let epochs = epochs_of(chunk);
            if let Some(number) = mark_in(&chunk.blob)
                && self.places.insert(number, Place { first: epoch + 1, epochs }).is_some()
            {
                self.violations.push(format!("pipeline {number} is applied twice"));
            }
            epoch += epochs;
        }
    }
}

impl Truth {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn violation(&self, what: String) {
        self.seen().violations.push(what);
    }

    pub fn violations(&self) -> Vec<String> {
        self.seen().violations.clone()
    }

    /// Entries reach apply: log matching, and committed entries never change.
    pub fn applies(&self, node: u64, last: u64, entries: &[Committed]) {
        let mut seen = self.seen();
        let mut expected = last + 1;
        for entry in entries {
            let (index, term) = (entry.position.index.0, entry.position.term);
            if index != expected {
                seen.violations.push(format!("node {node} applies entry {index} after {}", expected - 1));
            }
            expected = index + 1;
            let this = Entry { term, body: body_of(&entry.body) };
            if let (Body::Batch(batch), None) = (&entry.body, seen.entries.get(&index)) {
                seen.find_marks(batch);
            }
            let first = *seen.entries.entry(index).or_insert(this);
            if first != this {
                seen.violations
                    .push(format!("node {node} applies at {index} {this:?}, another node applied {first:?}"));
            }
        }
    }

    /// The state after entry `index`: the same on every node, and neither epochs nor log time ever go back.
    pub fn state(&self, node: u64, index: u64, after: After) {
        let mut seen = self.seen();
        seen.epoch = seen.epoch.max(after.epoch);
        let first = *seen.states.entry(index).or_insert(after);
        if first != after {
            seen.violations.push(format!("node {node} has at entry {index} {after:?}, another node had {first:?}"));
        }
        let before = seen.states.range(..index).next_back().map(|(_, s)| *s);
        if before.is_some_and(|before| before.epoch > after.epoch || before.time > after.time) {
            seen.violations.push(format!("node {node}: {after:?} at entry {index}, {before:?} before"));
        }
    }

    /// Election safety, and leader completeness as far as lengths show it.
    pub fn leadership(&self, node: u64, leadership: Leadership, last: u64) {
        if !leadership.me {
            return;
        }
        let mut seen = self.seen();
        let term = leadership.term;
        if let Some(leader) = seen.leaders.get(&term).copied() {
            if leader != node {
                seen.violations.push(format!("term {term} has two leaders: {leader} and {node}"));
            }
            return;
        }
        seen.leaders.insert(term, node);
        let committed = seen.entries.iter().rev().find(|(_, e)| e.term < term).map_or(0, |(i, _)| *i);
        if last < committed {
            let what = format!("node {node} leads term {term} with a log up to {last}; entry {committed} is committed");
            seen.violations.push(what);
        }
    }

    /// The newest entry that any node applied.
    pub fn newest(&self) -> u64 {
        self.seen().entries.last_key_value().map_or(0, |(i, _)| *i)
    }

    /// `purged <= checkpoint <= applied <= committed <= last`.
    pub fn order(&self, node: u64, at: Ms, [purged, checkpoint, applied, committed, last]: [u64; 5]) {
        if !(purged <= checkpoint && checkpoint <= applied && applied <= committed.max(checkpoint) && committed <= last)
        {
            self.violation(format!(
                "node {node} at {at} ms: purged {purged}, checkpoint {checkpoint}, applied {applied}, committed {committed}, last {last}"
            ));
        }
    }

    /// No node will apply an entry before `index` again.
    pub fn forget_before(&self, index: u64) {
        let mut seen = self.seen();
        seen.entries = seen.entries.split_off(&index);
        seen.states = seen.states.split_off(&index);
    }

    /// The pipelines that the log has got since the last call.
    pub fn take_places(&self) -> Places {
        std::mem::take(&mut self.seen().places)
    }

    pub fn leaders(&self) -> usize {
        self.seen().leaders.len()
    }
}
