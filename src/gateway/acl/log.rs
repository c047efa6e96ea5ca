//! `ACL LOG`: who was refused what, newest first. What happens again within a minute is counted, not listed again.

use crate::base::Millis;
use std::collections::VecDeque;

/// Entries that a new one is compared with.
const COMPARED: usize = 10;
/// Longer apart than this, two refusals are two entries.
const TOGETHER_MS: Millis = 60_000;
/// Names and keys are shown so far: a stranger's guesses must not fill memory.
const TEXT_BYTES_MAX: usize = 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    Command,
    Key,
    Auth,
}

impl Reason {
    pub fn name(self) -> &'static str {
        match self {
            Reason::Command => "command",
            Reason::Key => "key",
            Reason::Auth => "auth",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    pub reason: Reason,
    /// Within MULTI and EXEC.
    pub multi: bool,
    /// The command or key.
    pub object: Vec<u8>,
    pub user: Vec<u8>,
    /// The connection's line of `CLIENT LIST`.
    pub client: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub id: u64,
    pub count: u64,
    pub created_ms: Millis,
    pub updated_ms: Millis,
    pub refusal: Refusal,
}

#[derive(Debug, Default)]
pub struct Log {
    entries: VecDeque<Entry>,
    next: u64,
}

impl Log {
    /// Keeps at most `max` entries.
    pub fn add(&mut self, mut refusal: Refusal, now: Millis, max: usize) {
        refusal.object.truncate(TEXT_BYTES_MAX);
        refusal.user.truncate(TEXT_BYTES_MAX);
        let same = |e: &Entry| {
            let r = &e.refusal;
            (r.reason, r.multi) == (refusal.reason, refusal.multi)
                && (now - e.updated_ms).abs() <= TOGETHER_MS
                && r.object == refusal.object
                && r.user == refusal.user
        };
        let known = self.entries.iter().take(COMPARED).position(same).and_then(|at| self.entries.remove(at));
        let entry = match known {
            Some(entry) => Entry { count: entry.count + 1, updated_ms: now, refusal, ..entry },
            None => {
                self.next += 1;
                Entry { id: self.next - 1, count: 1, created_ms: now, updated_ms: now, refusal }
            }
        };
        self.entries.push_front(entry);
        self.entries.truncate(max);
    }
    pub fn newest(&self, count: usize) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter().take(count)
    }
    pub fn reset(&mut self) {
        self.entries.clear();
    }
}
