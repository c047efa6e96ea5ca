//! Reading a version: the newest, an older one, or the writer's own. Expiry is the caller's business: an entry says when it is due.

use super::arena::{Arena, Ref};
use super::entry::{Entry, Seen};
use super::map::{in_stretch, random_place, random_stretch};
use super::root::{DbState, RootState};
use super::trie::{self, Leaves};
use super::{prefetch, slots};
use crate::base::{Epoch, Millis, mix64};

/// A version of everything.
pub trait Read {
    fn arena(&self) -> &Arena;
    fn db(&self, db: u8) -> DbState;
    fn deletions(&self) -> Ref;
    /// Which versions of keys it shows.
    fn seen(&self) -> Seen;
    /// The last epoch whose effects it shows.
    fn epoch(&self) -> Epoch;
    /// Log time of that epoch.
    fn time(&self) -> Millis;
    /// The running effect digest.
    fn digest(&self) -> u64;
    /// All of it, for a checkpoint or a replay.
    fn state(&self) -> RootState;

    /// The entry of a key.
    #[inline]
    fn find(&self, db: u8, hash: u64, key: &[u8]) -> Option<Entry<'_>> {
        let leaf = trie::find_leaf(self.arena(), self.db(db).keys.root, hash, key)?;
        let newest = Entry::new(self.arena(), leaf);
        if newest.is(hash, key) { newest.at(self.seen()) } else { None }
    }
    /// Brings the ways to these keys near, level by level and all together, so that their cache misses overlap. Best 16 to 64 at a time.
    fn prefetch(&self, keys: &[(u8, u64)]) {
        prefetch::keys(self, keys);
    }
    /// Keys of a database, expired ones that nobody removed yet included.
    fn db_len(&self, db: u8) -> u64 {
        self.db(db).keys.len
    }
    /// Keys with a deadline.
    fn expires_len(&self, db: u8) -> u64 {
        self.db(db).expires.len
    }
    /// Shows keys from hash `cursor` on until `go_on` says no. Tells where to go on, 0 at the end. Every key that is there from the
    /// first call to the last of a full scan is shown exactly once, whatever else changes in between.
    fn scan<'a>(&'a self, db: u8, cursor: u64, mut go_on: impl FnMut(Entry<'a>) -> bool) -> u64 {
        let mut walk = Keys::new(self, db, cursor);
        let mut stopped_at = None;
        while let Some(entry) = walk.next(self) {
            if stopped_at.is_some_and(|hash| hash != entry.hash()) {
                return entry.hash();
            }
            if !go_on(entry) {
                stopped_at = Some(entry.hash());
            }
        }
        0
    }
    /// A key, each with the same chance.
    fn random_key(&self, db: u8, mut rng: impl FnMut() -> u64) -> Option<Entry<'_>> {
        let len = self.db_len(db);
        if len == 0 {
            return None;
        }
        loop {
            let (first, bits) = random_stretch(len, rng());
            let mut place = random_place(len, bits, rng());
            let mut walk = Keys::new(self, db, first);
            while let Some(entry) = walk.next(self) {
                if !in_stretch(entry.hash(), first, bits) {
                    break;
                }
                if place == 0 {
                    return Some(entry);
                }
                place -= 1;
            }
        }
    }
    /// The epoch that last changed a key, for WATCH: of an absent one, the last at which it may have been removed.
    fn last_change(&self, db: u8, hash: u64, key: &[u8]) -> Epoch {
        match self.find(db, hash, key) {
            // A database that was swapped in has keys with old versions.
            Some(entry) => entry.version().max(self.db(db).cleared),
            None => slots::last(self.arena(), self.deletions(), deletion_slot(db, hash)).max(self.db(db).cleared),
        }
    }

    /// Whether a key may have changed after `epoch`. `absent`: it did not exist then, so that a flush has taken it away only if
    /// some key came into being before that flush.
    fn changed_since(&self, db: u8, hash: u64, key: &[u8], epoch: Epoch, absent: bool) -> bool {
        if !absent || self.db(db).vanished > epoch {
            return self.last_change(db, hash, key) > epoch;
        }
        self.find(db, hash, key).is_some()
            || slots::last(self.arena(), self.deletions(), deletion_slot(db, hash)) > epoch
    }
}

/// The slot of a key in the table of last deletions; databases are spread over the same table.
pub(super) fn deletion_slot(db: u8, hash: u64) -> u64 {
    hash ^ mix64(db as u64)
}

/// Walks the keys of a database in the order of hashes. Not across writes to it.
pub struct Keys {
    leaves: Leaves,
    from: u64,
}

impl Keys {
    pub fn new<R: Read + ?Sized>(version: &R, db: u8, from: u64) -> Keys {
        Keys { leaves: Leaves::new(version.arena(), version.db(db).keys.root, from), from }
    }
    pub fn next<'a, R: Read + ?Sized>(&mut self, version: &'a R) -> Option<Entry<'a>> {
        loop {
            let newest = Entry::new(version.arena(), self.leaves.next(version.arena())?);
            if newest.hash() >= self.from
                && let Some(entry) = newest.at(version.seen())
            {
                return Some(entry);
            }
        }
    }
}
