//! The root: everything that one version consists of.
//!
//! ```text
//! root node = header | epoch u64 | time i64 | digest u64 | last deletions cell | databases u64 (bit set) | database × bits
//! database  = keys cell, u64, extent | expires cell, u64, extent | cleared, created, vanished epochs u64
//! ```
//!
//! A database that holds nothing takes no room: a root is kept per sub-batch, and the window may keep a million.

use super::arena::{Arena, Node, Ref};
use super::extent::Extent;
use super::kinds;
use super::map::MapRoot;
use super::mutator::Mutator;
use crate::base::limits::DATABASES;
use crate::base::{Epoch, Millis, SubBatch};

/// The database of replicated configuration, once tokens and the exactly-once table: never selected, never flushed.
pub const SYSTEM_DB: u8 = DATABASES as u8;
pub const DBS: usize = DATABASES + 1;

/// One database.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DbState {
    pub keys: MapRoot,
    /// Expiry index: a map in the order of deadlines.
    pub expires: MapRoot,
    /// Last epoch that flushed or swapped it.
    pub cleared: Epoch,
    /// Last epoch that put a new key here.
    pub created: Epoch,
    /// What `created` was when it was last flushed or swapped: no key that went away then was newer.
    pub vanished: Epoch,
}

/// A version as its owner keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RootState {
    pub sub_batch: SubBatch,
    pub epoch: Epoch,
    pub time: Millis,
    pub digest: u64,
    pub deletions: Ref,
    pub dbs: [DbState; DBS],
}

impl Default for RootState {
    fn default() -> Self {
        RootState {
            sub_batch: SubBatch::ZERO,
            epoch: Epoch::ZERO,
            time: 0,
            digest: 0,
            deletions: Ref::NULL,
            dbs: [DbState::default(); DBS],
        }
    }
}

const EPOCH: usize = 8;
const TIME: usize = 16;
const DIGEST: usize = 24;
const DELETIONS: usize = 32;
const MASK: usize = 40;
const DB: usize = 48;
const DB_BYTES: usize = 72;

impl RootState {
    /// Writes the root's node.
    pub(super) fn write(&self, m: &mut Mutator) -> Ref {
        let used = |db: &&DbState| **db != DbState::default();
        let mut node = m.alloc_node(DB + DB_BYTES * self.dbs.iter().filter(used).count(), kinds::ROOT);
        node.set_u64(EPOCH, self.epoch.0);
        node.set_u64(TIME, self.time as u64);
        node.set_u64(DIGEST, self.digest);
        node.set_child(DELETIONS, self.deletions);
        let (mut mask, mut at) = (0u64, DB);
        for (i, db) in self.dbs.iter().enumerate().filter(|(_, db)| used(db)) {
            mask |= 1 << i;
            for (at, map) in [(at, db.keys), (at + 24, db.expires)] {
                node.set_child(at, map.root);
                node.set_u64(at + 8, map.len);
                node.set_u64(at + 16, map.extent.0);
            }
            node.set_u64(at + 48, db.cleared.0);
            node.set_u64(at + 56, db.created.0);
            node.set_u64(at + 64, db.vanished.0);
            at += DB_BYTES;
        }
        node.set_u64(MASK, mask);
        node.get()
    }

    /// Loads the tops of all trees, so that readers never meet a page there.
    pub(super) fn load_tops(&mut self, arena: &Arena) {
        self.deletions = arena.load(self.deletions);
        for db in &mut self.dbs {
            db.keys.root = arena.load(db.keys.root);
            db.expires.root = arena.load(db.expires.root);
        }
    }
}

/// A root, read in place.
#[derive(Clone, Copy)]
pub(super) struct RootView<'a>(pub Node<'a>);

impl RootView<'_> {
    pub fn epoch(self) -> Epoch {
        Epoch(self.0.u64(EPOCH))
    }
    pub fn time(self) -> Millis {
        self.0.u64(TIME) as i64
    }
    pub fn digest(self) -> u64 {
        self.0.u64(DIGEST)
    }
    pub fn deletions(self) -> Ref {
        self.0.child(DELETIONS)
    }
    #[inline]
    pub fn db(self, db: u8) -> DbState {
        let mask = self.0.u64(MASK);
        if mask >> db & 1 == 0 {
            return DbState::default();
        }
        let at = DB + DB_BYTES * (mask & ((1 << db) - 1)).count_ones() as usize;
        let map = |at| MapRoot { root: self.0.child(at), len: self.0.u64(at + 8), extent: Extent(self.0.u64(at + 16)) };
        let epoch = |at| Epoch(self.0.u64(at));
        let (cleared, created, vanished) = (epoch(at + 48), epoch(at + 56), epoch(at + 64));
        DbState { keys: map(at), expires: map(at + 24), cleared, created, vanished }
    }
    pub fn state(self) -> RootState {
        RootState {
            sub_batch: self.0.birth(),
            epoch: self.epoch(),
            time: self.time(),
            digest: self.digest(),
            deletions: self.deletions(),
            dbs: std::array::from_fn(|i| self.db(i as u8)),
        }
    }
}
