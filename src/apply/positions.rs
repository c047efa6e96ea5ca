//! Where each kept root lies in the log: which entry holds the calls behind it, and how many of that entry's chunks and calls it
//! already shows. Private replay begins there.

use crate::base::{Epoch, LogIndex};
use std::collections::VecDeque;
use std::sync::Mutex;

/// The place of a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Place {
    /// The last epoch that the root shows.
    pub epoch: Epoch,
    /// The entry that this epoch came from.
    pub index: LogIndex,
}

/// Places of the roots in the window, oldest first. Locked once a sub-batch by apply, and for a search by readers of the past.
#[derive(Default)]
pub struct Positions(Mutex<VecDeque<Place>>);

impl Positions {
    pub fn push(&self, place: Place) {
        let mut all = self.lock();
        if all.back().is_some_and(|last| last.epoch == place.epoch) {
            return;
        }
        all.push_back(place);
    }

    /// Forgets places before `since`, but keeps the newest of those.
    pub fn release(&self, since: Epoch) {
        let mut all = self.lock();
        while all.len() > 1 && all[1].epoch <= since {
            all.pop_front();
        }
    }

    /// The entries that may hold `epoch`: from the one of the last place before it to the one of the first place at or after it.
    pub fn entries_of(&self, epoch: Epoch) -> Option<(LogIndex, LogIndex)> {
        let all = self.lock();
        let next = all.partition_point(|p| p.epoch < epoch);
        let last = all.get(next)?;
        let first = next.checked_sub(1).map_or(last, |i| &all[i]);
        Some((first.index, last.index))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Place>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
