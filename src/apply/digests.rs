//! Digests of the state after each of the newest entries: what nodes compare. A digest covers every change since the
//! beginning (the store folds each one in), so nodes that differ once differ from then on.

use super::lock;
use crate::base::LogIndex;
use std::collections::VecDeque;
use std::sync::Mutex;

/// Entries remembered: some seconds of the busiest log.
const KEPT: usize = 8192;

/// Locked once a batch by apply, and a few times a second by who compares.
#[derive(Default)]
pub struct Digests(Mutex<VecDeque<(LogIndex, u64)>>);

impl Digests {
    /// The state after the entry at `index`, which follows the last one noted.
    pub fn note(&self, index: LogIndex, digest: u64) {
        let mut all = lock(&self.0);
        if all.len() == KEPT {
            all.pop_front();
        }
        all.push_back((index, digest));
    }

    /// The state was replaced by that of the entry at `index`.
    pub fn begin(&self, index: LogIndex, digest: u64) {
        let mut all = lock(&self.0);
        all.clear();
        all.push_back((index, digest));
    }

    /// None: not applied yet, or too long ago.
    pub fn at(&self, index: LogIndex) -> Option<u64> {
        let all = lock(&self.0);
        let place = all.binary_search_by_key(&index, |(i, _)| *i).ok()?;
        Some(all[place].1)
    }

    /// The newest entry that is applied.
    pub fn newest(&self) -> LogIndex {
        lock(&self.0).back().map_or(LogIndex(0), |(index, _)| *index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_entries_are_remembered_and_no_others() {
        let digests = Digests::default();
        assert_eq!((digests.newest(), digests.at(LogIndex(0))), (LogIndex(0), None));
        digests.begin(LogIndex(10), 1);
        (11..=10 + KEPT as u64).for_each(|i| digests.note(LogIndex(i), i));
        assert_eq!((digests.at(LogIndex(10)), digests.at(LogIndex(11))), (None, Some(11)));
        assert_eq!((digests.newest(), digests.at(LogIndex(11 + KEPT as u64))), (LogIndex(10 + KEPT as u64), None));
        digests.begin(LogIndex(5), 7);
        assert_eq!((digests.newest(), digests.at(LogIndex(5)), digests.at(LogIndex(11))), (LogIndex(5), Some(7), None));
    }
}
