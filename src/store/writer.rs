//! # The writer: the one place that makes new versions
//!
//! Owned by the apply thread; a private replay has one of its own that never publishes. Calls change nodes of the current
//! sub-batch in place; [`Writer::publish`] ends it and shows its root to readers.

use super::arena::{Arena, ArenaError, PageSource, Ref};
use super::entry::{Coll, Draft, Entry, KEY_INLINE_MAX, Past, STR_INLINE_MAX, Seen, Value};
use super::extent::blocks;
use super::garbage::DeadMark;
use super::map::{self, MapRoot};
use super::mutator::{Mutator, MutatorMark, PRIVATE};
use super::prefetch::Ways;
use super::read::{Read, deletion_slot};
use super::root::{DBS, DbState, RootState, RootView, SYSTEM_DB};
use super::rope::{self, Rope};
use super::snapshot::{OwnedSnapshot, Store};
use super::trie::{self, End, Path};
use super::window::KeptRoot;
use super::{blob, keyspace, slots};
use crate::base::limits::DATABASES;
use crate::base::{Epoch, Millis, SubBatch, mix64};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Nodes freed at each publication beyond twice those that died in the sub-batch.
const COLLECT_EXTRA: usize = 1024;
/// Deadlines are ordered by 48 bits of milliseconds: until the year 10889.
const DUE_MAX: u64 = (1 << 48) - 1;

/// One lookup of a key, used again by the writes that follow it. Stays valid across other writes: it looks anew when it must.
#[derive(Clone, Copy)]
pub struct Slot {
    pub db: u8,
    pub hash: u64,
    number: u64,
    found: Found,
    stamp: u64,
}

/// What lies at the end of a key's way.
#[derive(Clone, Copy)]
enum Found {
    Hole,
    /// Another key.
    Other(Ref),
    /// The key's tombstone.
    Gone(Ref),
    Entry(Ref),
}

/// Where the last lookup went, for the write that follows it. Of the trie as `stamp` names it.
struct Way {
    /// Whose lookup: keys may share a hash.
    slot: u64,
    stamp: u64,
    path: Path,
}

/// A tombstone that may go once no version is older than `born`.
#[derive(Clone, Copy)]
struct Tombstone {
    born: SubBatch,
    at: Ref,
}

/// A key that is overdue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    pub db: u8,
    pub hash: u64,
    /// Its deadline, cut to 48 bits.
    pub due: Millis,
}

pub struct Writer {
    m: Mutator,
    state: RootState,
    /// Grows with every change of a keyspace trie.
    stamp: u64,
    /// Found so far.
    slots: u64,
    way: Way,
    /// Of keys to come.
    ways: Ways,
    /// What [`Writer::rollback`] returns to.
    saved: Option<(RootState, MutatorMark)>,
    /// In the order of their births.
    tombstones: VecDeque<Tombstone>,
    old_roots: VecDeque<(SubBatch, Ref)>,
    /// The dead list at the last publication.
    dead_before: DeadMark,
    scratch: Vec<u8>,
    /// The published store; a private replay holds the version it began at instead.
    home: Home,
}

enum Home {
    Store(Store),
    Private(OwnedSnapshot),
}

/// An empty store.
pub fn create() -> Result<(Store, Writer), ArenaError> {
    Ok(restore(Arc::new(Arena::new()?), RootState::default()))
}

/// A store from a checkpoint's root, whose references are pages.
pub fn open(state: RootState, source: Box<dyn PageSource>) -> Result<(Store, Writer), ArenaError> {
    let arena = Arc::new(Arena::new()?);
    arena.pages().set_source(source);
    Ok(restore(arena, state))
}

/// A store over an arena that already holds `state`.
pub fn restore(arena: Arc<Arena>, mut state: RootState) -> (Store, Writer) {
    state.load_tops(&arena);
    let mut m = Mutator::new(arena.clone(), state.sub_batch);
    m.set_digest(state.digest);
    state.sub_batch = m.current();
    let root = state.write(&mut m);
    m.next_sub_batch();
    let first = KeptRoot { root, sub_batch: state.sub_batch, epoch: state.epoch, time: state.time };
    let store = Store::new(arena, first);
    (store.clone(), Writer::new(m, state, Home::Store(store)))
}

impl Read for Writer {
    #[inline]
    fn arena(&self) -> &Arena {
        self.m.arena()
    }
    #[inline]
    fn db(&self, db: u8) -> DbState {
        self.state.dbs[db as usize]
    }
    fn deletions(&self) -> Ref {
        self.state.deletions
    }
    #[inline]
    fn seen(&self) -> Seen {
        match &self.home {
            Home::Store(_) => Seen(PRIVATE),
            Home::Private(from) => from.seen(),
        }
    }
    fn epoch(&self) -> Epoch {
        self.state.epoch
    }
    fn time(&self) -> Millis {
        self.state.time
    }
    fn digest(&self) -> u64 {
        self.m.digest()
    }
    fn state(&self) -> RootState {
        RootState { digest: self.m.digest(), ..self.state }
    }
}

impl Writer {
    fn new(m: Mutator, state: RootState, home: Home) -> Writer {
        Writer {
            m,
            state,
            stamp: 1,
            slots: 0,
            way: Way { slot: 0, stamp: 0, path: Path::new() },
            ways: Ways::default(),
            saved: None,
            tombstones: VecDeque::new(),
            old_roots: VecDeque::new(),
            dead_before: DeadMark::default(),
            scratch: Vec::new(),
            home,
        }
    }

    /// A writer on top of a version that nobody else will ever see: to replay calls after it. Dropping it gives its memory back.
    pub fn private(from: OwnedSnapshot) -> Writer {
        let mut m = Mutator::private(from.arena_arc());
        m.set_digest(from.digest());
        let state = from.state();
        Writer::new(m, state, Home::Private(from))
    }

    /// The allocation context, for maps, ropes and trees.
    pub fn mutator(&mut self) -> &mut Mutator {
        &mut self.m
    }

    /// The version a private replay began at.
    pub fn private_from(&self) -> Option<Epoch> {
        match &self.home {
            Home::Private(from) => Some(from.epoch()),
            Home::Store(_) => None,
        }
    }

    /// The epoch and the log time of the call that runs next: entries written from now on carry the epoch.
    #[inline]
    pub fn set_epoch(&mut self, epoch: Epoch) {
        self.state.epoch = epoch;
    }
    pub fn set_time(&mut self, time: Millis) {
        self.state.time = time;
    }

    // ---- one key ----

    /// As [`Read::prefetch`], for keys that will be looked up here in this order, or not at all.
    pub fn fetch(&mut self, keys: &[(u8, u64)]) {
        let mut ways = std::mem::take(&mut self.ways);
        ways.fetch(self, keys);
        self.ways = ways;
    }

    /// Looks a key up, for reading and for writing.
    #[inline]
    pub fn find_slot(&mut self, db: u8, hash: u64, key: &[u8]) -> Slot {
        self.slots += 1;
        let mut slot = Slot { db, hash, number: self.slots, found: Found::Hole, stamp: 0 };
        self.look(&mut slot, key);
        slot
    }

    #[inline]
    fn look(&mut self, slot: &mut Slot, key: &[u8]) {
        // A replay stands in the past: what came after it is there, but does not count.
        let seen = self.seen();
        let (arena, way) = (self.m.arena(), &mut self.way);
        (way.slot, way.stamp) = (slot.number, self.stamp);
        slot.stamp = self.stamp;
        let root = self.state.dbs[slot.db as usize].keys.root;
        let known = self.ways.of(slot.db, slot.hash);
        let End::Leaf(leaf) = trie::descend_along(arena, root, slot.hash, key, known, &mut way.path) else {
            slot.found = Found::Hole;
            return;
        };
        let newest = Entry::new(arena, arena.node(leaf));
        slot.found = match newest.is(slot.hash, key) {
            false => Found::Other(leaf),
            true => newest.at(seen).map_or(Found::Gone(leaf), |entry| Found::Entry(entry.get())),
        };
    }

    #[inline]
    fn refresh(&mut self, slot: &mut Slot, key: &[u8]) {
        if slot.stamp != self.stamp {
            self.look(slot, key);
        }
    }

    /// Refreshes the slot, and the way to it.
    #[inline]
    fn find_way(&mut self, slot: &mut Slot, key: &[u8]) {
        let way = &self.way;
        if slot.stamp != self.stamp || (way.slot, way.stamp) != (slot.number, self.stamp) {
            self.look(slot, key);
        }
    }

    /// The slot's entry now.
    #[inline]
    pub fn entry(&mut self, slot: &mut Slot, key: &[u8]) -> Option<Entry<'_>> {
        self.refresh(slot, key);
        self.found(slot)
    }

    #[inline]
    fn found(&self, slot: &Slot) -> Option<Entry<'_>> {
        match slot.found {
            Found::Entry(at) => Some(Entry::new(self.m.arena(), self.m.arena().node(at))),
            _ => None,
        }
    }

    /// Sets the key's value and deadline. What the old value's trees held is dropped.
    #[inline]
    pub fn put(&mut self, slot: &mut Slot, key: &[u8], value: Value<'_>, due: Option<Millis>) {
        self.write(slot, key, value, due, true);
    }

    /// As [`Writer::put`] for a value that was taken from this entry and changed: the old trees live on in it.
    /// A collection that became empty takes its key with it.
    #[inline]
    pub fn put_back(&mut self, slot: &mut Slot, key: &[u8], value: Value<'_>, due: Option<Millis>) {
        if value.coll().is_some_and(|coll| coll.len == 0) {
            self.take_out(slot, key, false);
            return;
        }
        self.write(slot, key, value, due, false);
    }

    fn write(&mut self, slot: &mut Slot, key: &[u8], value: Value<'_>, due: Option<Millis>, drop_old: bool) {
        let value = match value {
            Value::Str(long) if long.len() > STR_INLINE_MAX => Value::Rope(self.rope_of(&[long])),
            value => value,
        };
        self.find_way(slot, key);
        self.m.fold(slot.hash ^ slot.db as u64, value.digest() ^ due.map_or(0, |d| mix64(d as u64)));
        let draft = Draft {
            hash: slot.hash,
            version: self.state.epoch,
            key,
            key_blob: Ref::NULL,
            value,
            due,
            past: None,
            gone: false,
        };
        let Some(old) = self.found(slot) else { return self.insert(slot, draft) };
        let (old_due, old_roots) = (old.due(), old.roots_as_stored());
        let key_blob = old.key_blob();
        if drop_old {
            self.drop_trees(old_roots);
        }
        if old_due != due {
            self.move_deadline(slot.db, slot.hash, old_due, due);
        }
        self.follow(slot, Draft { key_blob, ..draft });
    }

    /// Puts a version before the one at the slot (an entry or a tombstone).
    #[inline]
    fn follow(&mut self, slot: &mut Slot, mut draft: Draft<'_>) {
        let (Found::Entry(at) | Found::Gone(at)) = slot.found else { unreachable!("nothing to follow") };
        let old = Entry::new(self.m.arena(), self.m.arena().node(at));
        draft.past = Some(Past::after(old, self.m.current()));
        let mut node = self.m.alloc_node(draft.bytes(), super::kinds::ENTRY);
        draft.fill(&mut node);
        let new = node.get();
        keyspace::replace(&mut self.m, &mut self.state.dbs[slot.db as usize].keys.root, &mut self.way.path, new);
        self.retire_entry(at);
        slot.found = if draft.gone { Found::Gone(new) } else { Found::Entry(new) };
        self.touched(slot, true);
    }

    #[inline]
    fn retire_entry(&mut self, at: Ref) {
        match self.m.is_private() {
            true => self.m.retire(at),
            false => self.m.retire_shared(at),
        }
    }

    /// The key comes, or comes again.
    #[inline]
    fn insert(&mut self, slot: &mut Slot, mut draft: Draft<'_>) {
        let db = &mut self.state.dbs[slot.db as usize];
        db.keys.len += 1;
        db.keys.extent.grow(blocks(draft.key.len()));
        db.created = self.state.epoch;
        if let Some(due) = draft.due {
            self.move_deadline(slot.db, slot.hash, None, Some(due));
        }
        if let Found::Gone(at) = slot.found {
            draft.key_blob = Entry::new(self.m.arena(), self.m.arena().node(at)).key_blob();
            return self.follow(slot, draft);
        }
        if draft.key.len() > KEY_INLINE_MAX {
            draft.key_blob = blob::put(&mut self.m, &[draft.key]);
        }
        let mut node = self.m.alloc_node(draft.bytes(), super::kinds::ENTRY);
        draft.fill(&mut node);
        let new = node.get();
        let (root, path) = (&mut self.state.dbs[slot.db as usize].keys.root, &mut self.way.path);
        let forked = if let Found::Other(at) = slot.found {
            let arena = self.m.shared_arena().clone();
            let other = Entry::new(&arena, arena.node(at));
            let (a, b) = ((other.hash(), other.key(), at), (slot.hash, draft.key, new));
            let branch = trie::fork(&mut self.m, path.len(), a, b);
            keyspace::replace(&mut self.m, root, path, branch);
            true
        } else {
            keyspace::insert(&mut self.m, root, path, slot.hash, draft.key, new);
            false
        };
        slot.found = Found::Entry(new);
        self.touched(slot, !forked);
    }

    /// Slots found before are stale; this one is not, and neither is the way to it if its path is still right.
    #[inline]
    fn touched(&mut self, slot: &mut Slot, path_is_right: bool) {
        self.stamp += 1;
        slot.stamp = self.stamp;
        if path_is_right {
            self.way.stamp = self.stamp;
        }
    }

    /// Changes only the deadline.
    pub fn set_due(&mut self, slot: &mut Slot, key: &[u8], due: Option<Millis>) {
        self.refresh(slot, key);
        let Found::Entry(at) = slot.found else { return };
        let arena = self.m.shared_arena().clone();
        let value = Entry::new(&arena, arena.node(at)).value();
        if let Value::Str(s) = value {
            // The node that holds the bytes may be the one that is written.
            let bytes = self.copy_out(s);
            self.put_back(slot, key, Value::Str(&bytes), due);
            self.scratch = bytes;
        } else {
            self.put_back(slot, key, value, due);
        }
    }

    fn copy_out(&mut self, s: &[u8]) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        bytes.extend_from_slice(s);
        bytes
    }

    /// Removes the key and drops its value, which must be as stored (else: [`Writer::put_back`]). False when it was not there.
    pub fn remove(&mut self, slot: &mut Slot, key: &[u8]) -> bool {
        self.take_out(slot, key, true)
    }

    fn take_out(&mut self, slot: &mut Slot, key: &[u8], drop_value: bool) -> bool {
        self.find_way(slot, key);
        let Some(entry) = self.found(slot) else { return false };
        let (due, roots, key_blob) = (entry.due(), entry.roots_as_stored(), entry.key_blob());
        self.m.fold(slot.hash ^ slot.db as u64, 0);
        if drop_value {
            self.drop_trees(roots);
        }
        if due.is_some() {
            self.move_deadline(slot.db, slot.hash, due, None);
        }
        let keys = &mut self.state.dbs[slot.db as usize].keys;
        keys.len -= 1;
        keys.extent.shrink(blocks(key.len()));
        let (hash, version, value) = (slot.hash, self.state.epoch, Value::Str(b""));
        self.follow(slot, Draft { hash, version, key, key_blob, value, due: None, past: None, gone: true });
        if let (Found::Gone(at), false) = (slot.found, self.m.is_private()) {
            self.tombstones.push_back(Tombstone { born: self.m.current(), at });
        }
        if slot.db != SYSTEM_DB {
            slots::note(&mut self.m, &mut self.state.deletions, deletion_slot(slot.db, slot.hash), self.state.epoch);
        }
        true
    }

    /// Takes tombstones out that no version needs, at most `budget`; tells the sub-batch of the first that is left.
    fn clear_tombstones(&mut self, oldest: SubBatch, mut budget: usize) -> SubBatch {
        while let Some(&Tombstone { born, at }) = self.tombstones.front() {
            if born > oldest || budget == 0 {
                return born.min(oldest);
            }
            budget -= 1;
            self.tombstones.pop_front();
            self.clear_tombstone(at);
            self.stamp += 1;
        }
        oldest
    }

    /// The node is still there even if the key came back or its database was flushed: it died after its birth, and what died
    /// after the birth of the oldest tombstone is not freed.
    fn clear_tombstone(&mut self, at: Ref) {
        let arena = self.m.shared_arena().clone();
        let tombstone = Entry::new(&arena, arena.node(at));
        let path = &mut self.way.path;
        // SWAPDB may have moved it.
        for db in &mut self.state.dbs {
            let end = trie::descend(&arena, db.keys.root, tombstone.hash(), tombstone.key(), path);
            if matches!(end, End::Leaf(leaf) if leaf == at) {
                keyspace::remove(&mut self.m, &mut db.keys.root, path);
                let key_blob = tombstone.key_blob();
                if !key_blob.is_null() {
                    self.m.retire_shared(key_blob);
                }
                return self.m.retire_shared(at);
            }
        }
    }

    fn drop_trees(&mut self, roots: [Ref; 2]) {
        for root in roots {
            if !root.is_null() {
                self.m.retire_tree(root);
            }
        }
    }

    /// RENAME, MOVE: the value and its deadline go to another key (whose value is dropped); nothing is copied but a short string.
    /// False when there is no such key. `from` and `to` are different keys.
    pub fn move_entry(&mut self, from: &mut Slot, from_key: &[u8], to: &mut Slot, to_key: &[u8]) -> bool {
        let arena = self.m.shared_arena().clone();
        self.refresh(from, from_key);
        let Found::Entry(at) = from.found else { return false };
        let entry = Entry::new(&arena, arena.node(at));
        let due = entry.due();
        match entry.value() {
            Value::Str(s) => {
                let bytes = self.copy_out(s);
                self.take_out(from, from_key, false);
                self.put(to, to_key, Value::Str(&bytes), due);
                self.scratch = bytes;
            }
            value => {
                self.take_out(from, from_key, false);
                self.put(to, to_key, value, due);
            }
        }
        true
    }

    /// COPY: the other key (whose value is dropped) gets a copy of the value, node by node, with the deadline. False when there is no such key.
    pub fn copy_entry(&mut self, from: &mut Slot, from_key: &[u8], to: &mut Slot, to_key: &[u8]) -> bool {
        let arena = self.m.shared_arena().clone();
        self.refresh(from, from_key);
        let Found::Entry(at) = from.found else { return false };
        let entry = Entry::new(&arena, arena.node(at));
        let due = entry.due();
        match entry.value() {
            Value::Str(s) => {
                let bytes = self.copy_out(s);
                self.put(to, to_key, Value::Str(&bytes), due);
                self.scratch = bytes;
            }
            Value::Int(n) => self.put(to, to_key, Value::Int(n), due),
            Value::Rope(r) => {
                let root = self.m.copy_tree(r.root);
                self.put(to, to_key, Value::Rope(Rope { root, len: r.len }), due);
            }
            value => {
                let coll = value.coll().unwrap_or_default();
                let roots = coll.roots.map(|root| self.m.copy_tree(root));
                if let Some(copy) = Value::of(value.kind(), Coll { roots, ..coll }) {
                    self.put(to, to_key, copy, due);
                }
            }
        }
        true
    }

    /// A rope of the pieces, one after the other.
    pub fn rope_of(&mut self, pieces: &[&[u8]]) -> Rope {
        let mut rope = Rope::default();
        for piece in pieces {
            let at = rope.len;
            rope::write(&mut self.m, &mut rope, at, piece);
        }
        rope
    }

    // ---- whole databases ----

    /// FLUSHDB. O(1); the memory comes back bit by bit once no version needs it.
    pub fn flush_db(&mut self, db: u8) {
        let state = &mut self.state.dbs[db as usize];
        let emptied = DbState {
            cleared: self.state.epoch,
            created: state.created,
            vanished: state.created,
            ..DbState::default()
        };
        let old = std::mem::replace(state, emptied);
        self.m.retire_tree(old.keys.root);
        self.m.retire_tree(old.expires.root);
        self.m.fold(db as u64, old.keys.len ^ 1 << 63);
        self.stamp += 1;
    }

    pub fn flush_all(&mut self) {
        for db in 0..DATABASES as u8 {
            if self.state.dbs[db as usize].keys.len > 0 {
                self.flush_db(db);
            }
        }
    }

    pub fn swap_db(&mut self, a: u8, b: u8) {
        let (epoch, dbs) = (self.state.epoch, &mut self.state.dbs);
        let before = [dbs[a as usize].created, dbs[b as usize].created];
        dbs.swap(a as usize, b as usize);
        for (db, before) in [a, b].into_iter().zip(before) {
            let db = &mut dbs[db as usize];
            // What comes is new here; what goes was put here at `before` at the latest.
            let created = if db.keys.len > 0 { epoch } else { before };
            *db = DbState { cleared: epoch, created, vanished: before, ..*db };
        }
        self.m.fold(a as u64, b as u64 ^ 1 << 62);
        self.stamp += 1;
    }

    // ---- expiry ----

    /// Place of a deadline in the order of deadlines: 48 bits of it, then of the key's hash.
    fn due_order(due: Millis, hash: u64) -> u64 {
        (due.max(0) as u64).min(DUE_MAX) << 16 | hash >> 48
    }

    fn move_deadline(&mut self, db: u8, hash: u64, old: Option<Millis>, new: Option<Millis>) {
        let index: &mut MapRoot = &mut self.state.dbs[db as usize].expires;
        let key = hash.to_be_bytes();
        if let Some(due) = old {
            map::remove(&mut self.m, index, Self::due_order(due, hash), &key);
        }
        if let Some(due) = new {
            map::put(&mut self.m, index, Self::due_order(due, hash), &key, b"");
        }
    }

    /// The most overdue key of the first database that has one whose deadline is not after `now`.
    pub fn next_expired(&self, now: Millis) -> Option<Expired> {
        for db in 0..DBS as u8 {
            let index = self.state.dbs[db as usize].expires;
            if index.len == 0 {
                continue;
            }
            if let Some(first) = map::Cursor::new(self.arena(), &index, 0).next(self.arena())
                && (first.hash >> 16) as i64 <= now
            {
                let hash = first.key.try_into().map_or(0, u64::from_be_bytes);
                return Some(Expired { db, hash, due: (first.hash >> 16) as i64 });
            }
        }
        None
    }

    /// Removes a key that [`Writer::next_expired`] named; its name goes to `name`. False when only the index knew it.
    pub fn remove_expired(&mut self, expired: Expired, name: &mut Vec<u8>) -> bool {
        let Expired { db, hash, due } = expired;
        name.clear();
        let leaf = trie::find_leaf(self.arena(), self.state.dbs[db as usize].keys.root, hash, b"");
        let entry = leaf.map(|leaf| Entry::new(self.arena(), leaf));
        match entry {
            Some(e)
                if e.hash() == hash
                    && !e.is_gone()
                    && e.due().is_some_and(|d| Self::due_order(d, hash) == Self::due_order(due, hash)) =>
            {
                name.extend_from_slice(e.key());
                let mut slot = self.find_slot(db, hash, name);
                self.remove(&mut slot, name)
            }
            _ => {
                self.move_deadline(db, hash, Some(due), None);
                false
            }
        }
    }

    // ---- sub-batches ----

    /// Begins a sub-batch whose effects [`Writer::rollback`] can take back. Marks do not nest.
    pub fn mark(&mut self) {
        let mark = self.m.mark();
        self.saved = Some((self.state, mark));
    }

    /// The effects since the mark stay.
    pub fn commit(&mut self) {
        if self.saved.take().is_some() {
            self.m.commit();
        }
    }

    /// The effects since the mark never were.
    pub fn rollback(&mut self) {
        if let Some((state, mark)) = self.saved.take() {
            self.m.rollback(mark);
            self.state = state;
            self.forget_tombstones(self.m.current());
            self.stamp += 1;
        }
    }

    /// Ends the sub-batch: readers see its root from here on, the window keeps it, and old nodes are freed by bounded work.
    /// A private writer only ends the sub-batch.
    pub fn publish(&mut self) {
        assert!(self.saved.is_none(), "a mark is open");
        let Home::Store(store) = &self.home else { return self.m.rooted() };
        let shared = store.0.clone();
        self.state.digest = self.m.digest();
        self.state.sub_batch = self.m.current();
        let root = self.state.write(&mut self.m);
        let kept = KeptRoot { root, sub_batch: self.m.current(), epoch: self.state.epoch, time: self.state.time };
        self.m.rooted();
        shared.published.publish(root.0, kept.sub_batch.0);
        while shared.window.is_full() {
            self.let_go(shared.window.release_one(0));
        }
        shared.window.push(kept);
        let died = self.m.dead().since(self.dead_before) as usize;
        self.dead_before = self.m.dead().mark();
        self.collect(COLLECT_EXTRA + 2 * died);
    }

    /// Those born from `born` on were never made.
    fn forget_tombstones(&mut self, born: SubBatch) {
        while self.tombstones.back().is_some_and(|tombstone| tombstone.born >= born) {
            self.tombstones.pop_back();
        }
    }

    /// Goes back to the newest published root, whatever state the sub-batch is in: a helper that panicked may have left it half
    /// changed. Published nodes never change, but for shared cells, which are put back, so that root is whole; the memory of the
    /// nodes made since then is lost.
    pub fn return_to_root(&mut self) {
        let Home::Store(store) = &self.home else { unreachable!("a private replay has no root to return to") };
        let root = RootView(store.arena().node(Ref(store.0.published.root()))).state();
        self.m.forget(self.dead_before, root.digest);
        self.forget_tombstones(root.sub_batch.next());
        self.state = root;
        self.saved = None;
        self.stamp += 1;
    }

    fn let_go(&mut self, root: Option<KeptRoot>) {
        self.old_roots.extend(root.map(|r| (r.sub_batch, r.root)));
    }

    /// Lets old versions go as the window's settings say, and frees at most `budget` nodes that none needs. True when none is left.
    pub fn collect(&mut self, budget: usize) -> bool {
        let Home::Store(store) = &self.home else { return true };
        self.ways.forget();
        let shared = store.0.clone();
        while let Some(root) = shared.window.release_one(self.m.dead().bytes()) {
            self.let_go(Some(root));
            if self.m.dead().bytes() > shared.window.settings.bytes.load(Ordering::Relaxed) {
                break;
            }
        }
        let oldest = shared.pins.oldest(shared.window.oldest().sub_batch.0);
        while let Some(&(sub_batch, root)) = self.old_roots.front()
            && sub_batch.0 < oldest
        {
            self.old_roots.pop_front();
            self.m.free(root);
        }
        let oldest = self.clear_tombstones(SubBatch(oldest), budget);
        let all = self.m.collect(oldest, budget);
        shared.live_bytes.store(self.m.live_bytes(), Ordering::Relaxed);
        shared.dead_bytes.store(self.m.dead().bytes(), Ordering::Relaxed);
        shared.dead_entries.store(self.m.dead().entries(), Ordering::Relaxed);
        all
    }
}
