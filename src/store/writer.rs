//! # The writer: the one place that makes new versions
//!
//! Owned by the apply thread; a private replay has one of its own that never publishes. Calls change nodes of the current
//! sub-batch in place; [`Writer::publish`] ends it and shows its root to readers.

use super::arena::{Arena, ArenaError, PageSource, Ref};
use super::entry::{Coll, Draft, Entry, KEY_INLINE_MAX, STR_INLINE_MAX, Value};
use super::garbage::DeadMark;
use super::map::{self, MapRoot};
use super::mutator::{Mutator, MutatorMark};
use super::read::{Read, deletion_slot};
use super::root::{DBS, DbState, RootState, RootView, SYSTEM_DB};
use super::rope::{self, Rope};
use super::snapshot::{OwnedSnapshot, Store};
use super::trie::{self, End, Path};
use super::window::KeptRoot;
use super::{blob, slots};
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
    /// The entry, or null.
    entry: Ref,
    /// What is in the way of a new entry: null for a hole.
    other: Ref,
    stamp: u64,
    path: Path,
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
    saved: Option<(RootState, MutatorMark)>,
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
        let (saved, old_roots) = (None, VecDeque::new());
        Writer { m, state, stamp: 1, saved, old_roots, dead_before: DeadMark::default(), scratch: Vec::new(), home }
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

    /// Looks a key up, for reading and for writing.
    #[inline]
    pub fn find_slot(&self, db: u8, hash: u64, key: &[u8]) -> Slot {
        let mut slot = Slot { db, hash, entry: Ref::NULL, other: Ref::NULL, stamp: 0, path: Path::new() };
        self.look(&mut slot, key);
        slot
    }

    #[inline]
    fn look(&self, slot: &mut Slot, key: &[u8]) {
        (slot.entry, slot.other, slot.stamp) = (Ref::NULL, Ref::NULL, self.stamp);
        let root = self.state.dbs[slot.db as usize].keys.root;
        if let End::Leaf(leaf) = trie::descend(self.m.arena(), root, slot.hash, key, &mut slot.path) {
            let is_it = Entry::new(self.m.arena(), self.m.arena().node(leaf)).is(slot.hash, key);
            *(if is_it { &mut slot.entry } else { &mut slot.other }) = leaf;
        }
    }

    #[inline]
    fn refresh(&self, slot: &mut Slot, key: &[u8]) {
        if slot.stamp != self.stamp {
            self.look(slot, key);
        }
    }

    /// The slot's entry now.
    #[inline]
    pub fn entry(&self, slot: &mut Slot, key: &[u8]) -> Option<Entry<'_>> {
        self.refresh(slot, key);
        (!slot.entry.is_null()).then(|| Entry::new(self.m.arena(), self.m.arena().node(slot.entry)))
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
        self.refresh(slot, key);
        self.m.fold(slot.hash ^ slot.db as u64, value.digest() ^ due.map_or(0, |d| mix64(d as u64)));
        let mut draft = Draft { hash: slot.hash, version: self.state.epoch, key, key_blob: Ref::NULL, value, due };
        if slot.entry.is_null() {
            if key.len() > KEY_INLINE_MAX {
                draft.key_blob = blob::put(&mut self.m, &[key]);
            }
            return self.insert(slot, draft);
        }
        let old = Entry::new(self.m.arena(), self.m.arena().node(slot.entry));
        let (old_due, old_roots) = (old.due(), old.roots_as_stored());
        draft.key_blob = old.key_blob();
        if drop_old {
            self.drop_trees(old_roots);
        }
        if old_due != due {
            self.move_deadline(slot.db, slot.hash, old_due, due);
        }
        self.replace(slot, &draft);
    }

    #[inline]
    fn replace(&mut self, slot: &mut Slot, draft: &Draft<'_>) {
        let bytes = draft.bytes();
        let old = self.m.arena().node(slot.entry);
        if self.m.is_owned(slot.entry) && bytes <= old.capacity() && old.capacity() - bytes < 16 {
            draft.fill(&mut self.m.node_mut(slot.entry));
            return;
        }
        let mut node = self.m.alloc_node(bytes, super::kinds::ENTRY);
        draft.fill(&mut node);
        let new = node.get();
        trie::replace(&mut self.m, &mut self.state.dbs[slot.db as usize].keys.root, &mut slot.path, new);
        self.m.retire(slot.entry);
        slot.entry = new;
        self.touched(slot, true);
    }

    #[inline]
    fn insert(&mut self, slot: &mut Slot, draft: Draft<'_>) {
        let mut node = self.m.alloc_node(draft.bytes(), super::kinds::ENTRY);
        draft.fill(&mut node);
        let new = node.get();
        let db = &mut self.state.dbs[slot.db as usize];
        db.keys.len += 1;
        let root = &mut db.keys.root;
        if slot.other.is_null() {
            trie::insert(&mut self.m, root, &mut slot.path, slot.hash, draft.key, new);
        } else {
            let arena = self.m.shared_arena().clone();
            let other = Entry::new(&arena, arena.node(slot.other));
            let (a, b) = ((other.hash(), other.key(), slot.other), (slot.hash, draft.key, new));
            let branch = trie::fork(&mut self.m, slot.path.len(), a, b);
            trie::replace(&mut self.m, root, &mut slot.path, branch);
        }
        let forked = !slot.other.is_null();
        (slot.entry, slot.other) = (new, Ref::NULL);
        self.touched(slot, !forked);
        if let Some(due) = draft.due {
            self.move_deadline(slot.db, slot.hash, None, Some(due));
        }
    }

    /// Slots found before are stale; this one is not if its path is still right.
    #[inline]
    fn touched(&mut self, slot: &mut Slot, path_is_right: bool) {
        self.stamp += 1;
        slot.stamp = if path_is_right { self.stamp } else { 0 };
    }

    /// Changes only the deadline.
    pub fn set_due(&mut self, slot: &mut Slot, key: &[u8], due: Option<Millis>) {
        self.refresh(slot, key);
        if slot.entry.is_null() {
            return;
        }
        let arena = self.m.shared_arena().clone();
        let value = Entry::new(&arena, arena.node(slot.entry)).value();
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
        self.refresh(slot, key);
        if slot.entry.is_null() {
            return false;
        }
        let entry = Entry::new(self.m.arena(), self.m.arena().node(slot.entry));
        let (due, roots, key_blob) = (entry.due(), entry.roots_as_stored(), entry.key_blob());
        self.m.fold(slot.hash ^ slot.db as u64, 0);
        if drop_value {
            self.drop_trees(roots);
        }
        if !key_blob.is_null() {
            self.m.retire(key_blob);
        }
        if due.is_some() {
            self.move_deadline(slot.db, slot.hash, due, None);
        }
        let db = &mut self.state.dbs[slot.db as usize];
        db.keys.len -= 1;
        trie::remove(&mut self.m, &mut db.keys.root, &mut slot.path);
        self.m.retire(slot.entry);
        slot.entry = Ref::NULL;
        self.touched(slot, false);
        if slot.db != SYSTEM_DB {
            slots::note(&mut self.m, &mut self.state.deletions, deletion_slot(slot.db, slot.hash), self.state.epoch);
        }
        true
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
        if from.entry.is_null() {
            return false;
        }
        let entry = Entry::new(&arena, arena.node(from.entry));
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
        if from.entry.is_null() {
            return false;
        }
        let entry = Entry::new(&arena, arena.node(from.entry));
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
                if let Some(copy) = Value::of(value.kind(), Coll { len: coll.len, roots }) {
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
        let old = std::mem::replace(state, DbState { cleared: self.state.epoch, ..DbState::default() });
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
        self.state.dbs.swap(a as usize, b as usize);
        for db in [a, b] {
            self.state.dbs[db as usize].cleared = self.state.epoch;
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
            self.stamp += 1;
        }
    }

    /// Ends the sub-batch: readers see its root from here on, the window keeps it, and old nodes are freed by bounded work.
    /// A private writer only ends the sub-batch.
    pub fn publish(&mut self) {
        assert!(self.saved.is_none(), "a mark is open");
        let Home::Store(store) = &self.home else { return self.m.next_sub_batch() };
        let shared = store.0.clone();
        self.state.digest = self.m.digest();
        self.state.sub_batch = self.m.current();
        let root = self.state.write(&mut self.m);
        let kept = KeptRoot { root, sub_batch: self.m.current(), epoch: self.state.epoch, time: self.state.time };
        self.m.next_sub_batch();
        shared.published.publish(root.0, kept.sub_batch.0);
        while shared.window.is_full() {
            self.let_go(shared.window.release_one(0));
        }
        shared.window.push(kept);
        let died = self.m.dead().since(self.dead_before) as usize;
        self.dead_before = self.m.dead().mark();
        self.collect(COLLECT_EXTRA + 2 * died);
        shared.live_bytes.store(self.m.live_bytes(), Ordering::Relaxed);
        shared.dead_bytes.store(self.m.dead().bytes(), Ordering::Relaxed);
        shared.dead_entries.store(self.m.dead().entries(), Ordering::Relaxed);
    }

    /// Goes back to the newest published root, whatever state the sub-batch is in: a helper that panicked may have left it half
    /// changed. Published nodes never change, so that root is whole; the memory of the nodes made since then is lost.
    pub fn return_to_root(&mut self) {
        let Home::Store(store) = &self.home else { unreachable!("a private replay has no root to return to") };
        let root = RootView(store.arena().node(Ref(store.0.published.root()))).state();
        self.m.forget(self.dead_before, root.digest);
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
        self.m.collect(SubBatch(oldest), budget)
    }
}
