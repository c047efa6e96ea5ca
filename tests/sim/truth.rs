//! What must hold whatever happens, looked at from outside all nodes.

use crate::net::Ms;
use look::apply::machine::{Body, Committed};
use look::base::mix64;
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

    pub fn leaders(&self) -> usize {
        self.seen().leaders.len()
    }
}
