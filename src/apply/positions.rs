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
    /// The newest entry that it shows, and how many of that entry's chunks.
    pub index: LogIndex,
    pub chunks: usize,
}

/// Places of the roots in the window, oldest first. Locked once a sub-batch by apply, and for a search by readers of the past.
#[derive(Default)]
pub struct Positions(Mutex<VecDeque<Place>>);

impl Positions {
    pub fn push(&self, place: Place) {
        let mut all = self.lock();
        match all.back_mut() {
            Some(last) if last.epoch == place.epoch => *last = place,
            _ => all.push_back(place),
        }
    }

    /// Forgets places before `since`, but keeps the newest of those.
    pub fn release(&self, since: Epoch) {
        let mut all = self.lock();
        while all.len() > 1 && all[1].epoch <= since {
            all.pop_front();
        }
    }

    /// The place of the newest root that shows just `epoch`.
    pub fn of(&self, epoch: Epoch) -> Option<Place> {
        let all = self.lock();
        all.binary_search_by_key(&epoch, |p| p.epoch).ok().map(|i| all[i])
    }

    /// The oldest root behind which a log that begins with entry `log` goes on; the newest needs none.
    pub fn since(&self, log: LogIndex) -> Option<Epoch> {
        let goes_on = |p: &&Place| p.index >= log || (p.chunks == usize::MAX && p.index.next() >= log);
        let all = self.lock();
        all.iter().find(goes_on).or(all.back()).map(|p| p.epoch)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Place>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_roots_that_the_log_does_not_reach_only_the_newest_can_be_read() {
        let positions = Positions::default();
        assert_eq!(positions.since(LogIndex(1)), None);
        positions.push(Place { epoch: Epoch(5), index: LogIndex(9), chunks: 2 });
        positions.push(Place { epoch: Epoch(8), index: LogIndex(10), chunks: 3 });
        let since = |log| positions.since(LogIndex(log)).map(|epoch| epoch.0);
        assert_eq!((since(9), since(10), since(11), since(90)), (Some(5), Some(8), Some(8), Some(8)));
    }
}
