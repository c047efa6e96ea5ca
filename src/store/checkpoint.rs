//! # Checkpoints: versions of the store made durable
//!
//! Owns the root record, the run that writes one, and the deletion of what no kept record needs. Promises:
//!
//! - a record names only pages that are durable; a run that fails at any step leaves the older records whole;
//! - the writer is never blocked: a run reads a version that its caller has pinned;
//! - a run writes what is not on disk yet, and no more than the pages around it.
//!
//! Old pages are found by marking from the kept records, not by lists of the dead: leaf pages are known by their id, so a
//! mark reads about one page in a hundred, and nothing that a crash or a shared subtree could upset needs to be kept.

use super::arena::{Arena, Ref};
use super::entry::Seen;
use super::extent::Extent;
use super::map::MapRoot;
use super::page::{self, Packed, Packer};
use super::root::{DBS, DbState, RootState};
use crate::base::{Epoch, Millis, PageId, SubBatch};
use crate::disk::pages::{PageStore, PagesError};
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Version of the root record's own layout.
const RECORD_FORMAT: u32 = 4;
const RECORD_MAGIC: u32 = u32::from_le_bytes(*b"LKRT");

/// What can go wrong with checkpoints, besides reading single pages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    #[error(transparent)]
    Pages(#[from] PagesError),
    #[error("root record {sequence} cannot be read: {what}")]
    Record { sequence: u64, what: &'static str },
    #[error(
        "root record {sequence} has format {found}; this version of Look reads {RECORD_FORMAT}: start the version that wrote it, or choose an empty --dir"
    )]
    Format { sequence: u64, found: u32 },
    #[error("a transfer of pages is damaged: {0}")]
    Transfer(&'static str),
}

/// What a checkpoint says beside the version itself. Means nothing here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Position of the last applied entry, as `raft` writes it.
    pub applied: Vec<u8>,
    /// Membership, as `raft` writes it.
    pub membership: Vec<u8>,
}

/// A checkpoint: where a version's pages begin, and what belongs to it.
///
/// ```text
/// "LKRT" | format u32 | sequence, next page number, sub-batch, epoch, time, digest, last deletions u64 | databases: count u64,
/// keys, their count and extent, expires, their count and extent, cleared, created, vanished u64 each | applied, membership: length u64, bytes each
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RootRecord {
    pub sequence: u64,
    pub next_page: u64,
    /// The version; its references are null or pages.
    pub state: RootState,
    pub meta: Meta,
}

impl RootRecord {
    pub fn encode(&self) -> Vec<u8> {
        let (state, meta) = (&self.state, &self.meta);
        let mut words =
            vec![self.sequence, self.next_page, state.sub_batch.0, state.epoch.0, state.time as u64, state.digest];
        words.extend([state.deletions.0, DBS as u64]);
        for db in &state.dbs {
            for map in [db.keys, db.expires] {
                words.extend([map.root.0, map.len, map.extent.0]);
            }
            words.extend([db.cleared.0, db.created.0, db.vanished.0]);
        }
        let mut out = [RECORD_MAGIC.to_le_bytes(), RECORD_FORMAT.to_le_bytes()].concat();
        words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
        for bytes in [&meta.applied, &meta.membership] {
            out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            out.extend_from_slice(bytes);
        }
        out
    }

    /// The newest epoch that it shows.
    pub fn epoch(&self) -> Epoch {
        self.state.epoch
    }

    /// A checksum of all of it.
    pub fn check(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&self.encode())
    }

    /// The keys of all pages that it reaches in `store`.
    pub fn pages(&self, store: &dyn PageStore) -> Result<Vec<PageId>, CheckpointError> {
        let mut pages = Vec::new();
        reach(store, &self.roots(), |key, _| {
            pages.push(key);
            Ok(())
        })?;
        Ok(pages)
    }

    pub(super) fn roots(&self) -> Vec<Ref> {
        roots(&self.state)
    }

    /// What encoded bytes say their sequence is.
    pub fn sequence_of(bytes: &[u8]) -> u64 {
        bytes.get(8..16).map_or(0, |word| word.iter().rev().fold(0, |all, &byte| all << 8 | byte as u64))
    }

    /// `sequence` is the key under which the bytes were found.
    pub fn decode(sequence: u64, bytes: &[u8]) -> Result<RootRecord, CheckpointError> {
        let broken = |what| CheckpointError::Record { sequence, what };
        let mut reader = Reader(bytes);
        if reader.u32() != Some(RECORD_MAGIC) {
            return Err(broken("not a root record"));
        }
        match reader.u32() {
            Some(RECORD_FORMAT) => {}
            Some(found) => return Err(CheckpointError::Format { sequence, found }),
            None => return Err(broken("cut off")),
        }
        let record = reader.record().ok_or(broken("cut off"))?;
        if record.sequence != sequence || !reader.0.is_empty() {
            return Err(broken("another record's sequence, or bytes behind its end"));
        }
        Ok(record)
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }
    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }
    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
    fn bytes(&mut self) -> Option<Vec<u8>> {
        let len = self.u64()?;
        Some(self.take(usize::try_from(len).ok()?)?.to_vec())
    }
    fn record(&mut self) -> Option<RootRecord> {
        let (sequence, next_page) = (self.u64()?, self.u64()?);
        let mut state = RootState {
            sub_batch: SubBatch(self.u64()?),
            epoch: Epoch(self.u64()?),
            time: self.u64()? as Millis,
            digest: self.u64()?,
            deletions: self.durable()?,
            ..RootState::default()
        };
        if self.u64()? != DBS as u64 {
            return None;
        }
        for db in &mut state.dbs {
            let (keys, expires) = (self.map()?, self.map()?);
            let (cleared, created, vanished) = (Epoch(self.u64()?), Epoch(self.u64()?), Epoch(self.u64()?));
            *db = DbState { keys, expires, cleared, created, vanished };
        }
        let meta = Meta { applied: self.bytes()?, membership: self.bytes()? };
        Some(RootRecord { sequence, next_page, state, meta })
    }
    fn map(&mut self) -> Option<MapRoot> {
        Some(MapRoot { root: self.durable()?, len: self.u64()?, extent: Extent(self.u64()?) })
    }
    /// A reference that means something outside of this process.
    fn durable(&mut self) -> Option<Ref> {
        self.u64().map(Ref).filter(|root| !root.is_resident())
    }
}

/// The references of a version, in a fixed order.
fn roots(state: &RootState) -> Vec<Ref> {
    std::iter::once(state.deletions).chain(state.dbs.iter().flat_map(|db| [db.keys.root, db.expires.root])).collect()
}

/// The same version, its references replaced in that order.
fn with_roots(state: &RootState, roots: &[Ref]) -> RootState {
    let mut state = *state;
    let cells = std::iter::once(&mut state.deletions);
    let cells = cells.chain(state.dbs.iter_mut().flat_map(|db| [&mut db.keys.root, &mut db.expires.root]));
    cells.zip(roots).for_each(|(cell, root)| *cell = *root);
    state
}

/// Which records to keep, and with them the past that they show.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// At least this many, the newest ones.
    pub records: usize,
    /// The oldest sub-batch that a kept or pinned root in memory shows: pages that it may still have to load stay.
    pub oldest_live: SubBatch,
}

/// What a run did.
#[derive(Clone, Debug)]
pub struct Checkpointed {
    pub record: RootRecord,
    pub nodes: u64,
    pub pages: u64,
    pub page_bytes: u64,
    pub pages_deleted: u64,
}

/// The durable versions of one store: writes them, counts who reads them, deletes them.
pub struct Checkpoints {
    store: Arc<dyn PageStore>,
    /// Held for a whole run: there is one at a time.
    run: Mutex<Progress>,
    records: Mutex<Records>,
}

struct Progress {
    next_sequence: u64,
    next_page: u64,
    /// Pages written since the last sweep, and pages that it left.
    written: u64,
    live: u64,
}

#[derive(Default)]
struct Records {
    /// Ascending by sequence, epoch and sub-batch alike.
    kept: Vec<RootRecord>,
    /// Sequences that views read, and how many views each.
    viewed: BTreeMap<u64, u32>,
}

/// Nothing behind these locks is left half-changed by a panic: each holder replaces numbers as its last step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Checkpoints {
    /// Of an opened page store; `kept` are its intact records, ascending, and `next_page` is above every page in it.
    pub(super) fn new(store: Arc<dyn PageStore>, kept: Vec<RootRecord>, newest: u64, next_page: u64) -> Checkpoints {
        let run = Progress { next_sequence: newest + 1, next_page, written: 0, live: 0 };
        Checkpoints { store, run: Mutex::new(run), records: Mutex::new(Records { kept, viewed: BTreeMap::new() }) }
    }

    pub fn store(&self) -> &Arc<dyn PageStore> {
        &self.store
    }

    /// The newest durable record.
    pub fn newest(&self) -> Option<RootRecord> {
        lock(&self.records).kept.last().cloned()
    }

    /// The oldest epoch that a record still shows, of those that `wanted` takes.
    pub fn oldest_epoch(&self, wanted: impl Fn(&RootRecord) -> bool) -> Option<Epoch> {
        lock(&self.records).kept.iter().find(|record| wanted(record)).map(|record| record.state.epoch)
    }

    /// Whether a record of that sequence and checksum was made here, as far as anybody still knows.
    pub fn made(&self, sequence: u64, check: u64) -> bool {
        let records = lock(&self.records);
        match records.kept.iter().find(|record| record.sequence == sequence) {
            Some(record) => record.check() == check,
            None => records.kept.first().is_some_and(|oldest| sequence < oldest.sequence),
        }
    }

    /// Makes a version durable: `state` as its snapshot tells it, which the caller keeps pinned until this returns. Returns
    /// when all of it is synced, so that the log up to it may be purged. `pace` hears after each page how many bytes of pages
    /// there are by now, and may take its time.
    pub fn run(
        &self,
        arena: &Arena,
        state: &RootState,
        meta: Meta,
        retention: Retention,
        pace: &dyn Fn(u64),
    ) -> Result<Checkpointed, CheckpointError> {
        let mut progress = lock(&self.run);
        // Sweeping does not need them, but somebody must empty the list.
        arena.pages().take_freed();
        let mut packed = Packed::default();
        self.store.write_sorted(&mut |put| {
            // The number advances also if it fails: some pages may be there under those that were used.
            let mut written = 0;
            let mut put = |key, page: Vec<u8>| {
                written += page.len() as u64;
                put(key, page).map(|()| pace(written))
            };
            packed =
                Packer::new(arena, &mut put, &mut progress.next_page, Seen(state.sub_batch)).pack(&roots(state))?;
            Ok(())
        })?;
        let (sequence, next_page) = (progress.next_sequence, progress.next_page);
        let record = RootRecord { sequence, next_page, state: with_roots(state, &packed.roots), meta };
        progress.next_sequence += 1;
        self.store.commit_root(sequence, &record.encode())?;
        for (head, id) in packed.heads {
            arena.pages().mark(arena.node(head), id, state.sub_batch);
        }
        lock(&self.records).kept.push(record.clone());
        let Packed { nodes, pages, page_bytes, .. } = packed;
        progress.written += pages;
        let pages_deleted = self.sweep(&mut progress, retention)?;
        Ok(Checkpointed { record, nodes, pages, page_bytes, pages_deleted })
    }

    /// Deletes what is beyond retention, when it is likely to be a fifth of all pages or more.
    fn sweep(&self, progress: &mut Progress, retention: Retention) -> Result<u64, CheckpointError> {
        let (keep, drop) = self.split(retention);
        if drop.is_empty() || progress.written * 4 < progress.live {
            return Ok(0);
        }
        let roots: Vec<Ref> = keep.iter().flat_map(|record| record.roots()).collect();
        let mut live: HashSet<u64> = HashSet::new();
        reach(&*self.store, &roots, |key, _| {
            live.insert(page::number(key));
            Ok(())
        })?;
        let dead: Vec<PageId> = self.store.ids()?.into_iter().filter(|id| !live.contains(&page::number(*id))).collect();
        // Nobody may open a view of these from here on.
        lock(&self.records).kept.retain(|record| !drop.contains(&record.sequence));
        self.store.delete(&dead, &drop)?;
        progress.written = 0;
        progress.live = live.len() as u64;
        Ok(dead.len() as u64)
    }

    /// The records to keep, and the sequences of the others.
    fn split(&self, retention: Retention) -> (Vec<RootRecord>, Vec<u64>) {
        let records = lock(&self.records);
        let count = records.kept.len();
        let for_memory =
            records.kept.partition_point(|record| record.state.sub_batch <= retention.oldest_live).saturating_sub(1);
        let from = for_memory.min(count.saturating_sub(retention.records.max(1)));
        let (mut keep, mut drop) = (records.kept[from..].to_vec(), Vec::new());
        for record in &records.kept[..from] {
            match records.viewed.contains_key(&record.sequence) {
                true => keep.push(record.clone()),
                false => drop.push(record.sequence),
            }
        }
        (keep, drop)
    }

    /// The newest record at or before an epoch, kept from deletion as long as the view lives.
    pub fn view(self: &Arc<Self>, epoch: Epoch) -> Option<View> {
        let mut records = lock(&self.records);
        let i = records.kept.partition_point(|record| record.state.epoch <= epoch).checked_sub(1)?;
        let record = records.kept[i].clone();
        *records.viewed.entry(record.sequence).or_insert(0) += 1;
        Some(View { record, checkpoints: self.clone() })
    }

    /// The newest record, as [`view`](Self::view).
    pub fn view_newest(self: &Arc<Self>) -> Option<View> {
        self.view(Epoch(u64::MAX))
    }
}

/// A durable version that is being read.
pub struct View {
    record: RootRecord,
    checkpoints: Arc<Checkpoints>,
}

impl View {
    pub fn record(&self) -> &RootRecord {
        &self.record
    }
    /// Where its pages come from: give it to an arena of its own.
    pub fn source(&self) -> page::Source {
        page::Source(self.checkpoints.store.clone())
    }
    pub fn store(&self) -> &Arc<dyn PageStore> {
        &self.checkpoints.store
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let mut records = lock(&self.checkpoints.records);
        if let Some(count) = records.viewed.get_mut(&self.record.sequence) {
            *count -= 1;
            if *count == 0 {
                records.viewed.remove(&self.record.sequence);
            }
        }
    }
}

/// Visits the key of every page that some roots reach, once; internal ones with their bytes. Reads no leaf page.
pub(super) fn reach(
    store: &dyn PageStore,
    roots: &[Ref],
    visit: impl FnMut(PageId, Option<&[u8]>) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    reach_since(store, roots, 0, visit)
}

/// The same, leaving out pages whose number is below `first` (and what they refer to, which is older still).
pub(super) fn reach_since(
    store: &dyn PageStore,
    roots: &[Ref],
    first: u64,
    mut visit: impl FnMut(PageId, Option<&[u8]>) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    let mut seen: HashSet<PageId> = HashSet::new();
    let mut open: Vec<PageId> = roots.iter().filter_map(|root| root.page()).map(page::key).collect();
    while let Some(key) = open.pop() {
        if page::number(key) < first || !seen.insert(key) {
            continue;
        }
        if page::is_leaf(key) {
            visit(key, None)?;
            continue;
        }
        let bytes = store.read(key)?;
        visit(key, Some(&bytes))?;
        open.extend(page::links(key, &bytes)?);
    }
    Ok(())
}
