//! # Keeper: checkpoints of one node
//!
//! Owns the page store (a directory of generations, of which one counts), makes checkpoints on a thread of its own, and hands old ones to readers of the past and whole ones to peers.

use super::state::SharedState;
use crate::apply::Frontier;
use crate::apply::machine::{Applied, Begun, Checkpoint, LogPosition, Receive, Sent};
use crate::base::planted::planted;
use crate::base::{Epoch, LogIndex, PageId, random};
use crate::disk::pages::generations::{Fresh, Generations, PageStores};
use crate::disk::pages::{PagesError, PagesOptions};
use crate::disk::seal::Sealer;
use crate::history::{OldState, OldStates};
use crate::store::checkpoint::{CheckpointError, Checkpointed, Checkpoints, Meta, Retention, RootRecord, View};
use crate::store::transfer::{Export, Import, OwnParts};
use crate::store::{self, Read, Store, Writer, page, recovery};
use bytes::Bytes;
use std::any::Any;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Checkpoints kept for reads of the past, beyond what the window needs.
const RECORDS_KEPT: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Pages(#[from] PagesError),
    #[error(transparent)]
    Arena(#[from] store::ArenaError),
    #[error("the newest checkpoint is damaged ({0}), and the log behind an older one may be gone")]
    Newest(CheckpointError),
    #[error("{0}")]
    Other(String),
}

impl KeeperError {
    /// As [`PagesError::is_damage`].
    pub fn is_damage(&self) -> bool {
        match self {
            KeeperError::Pages(error) | KeeperError::Checkpoint(CheckpointError::Pages(error)) => error.is_damage(),
            KeeperError::Checkpoint(CheckpointError::Record { .. }) | KeeperError::Newest(_) => true,
            _ => false,
        }
    }
}

/// What was found on disk.
pub struct Opened {
    pub keeper: Keeper,
    pub store: Store,
    pub writer: Writer,
    pub frontier: Frontier,
}

pub struct Keeper {
    generations: Box<dyn PageStores>,
    checkpoints: Mutex<Arc<Checkpoints>>,
    /// Random name of the page store that counts, for those whom it sends checkpoints.
    source: AtomicU64,
    /// A checkpoint that a peer has begun to send.
    unfinished: Mutex<Option<Unfinished>>,
    /// What a transfer or a checkpoint found damaged.
    damage: Arc<OnceLock<String>>,
    running: AtomicBool,
    /// How many wait for a checkpoint.
    waiting: AtomicUsize,
    pub last_ok: AtomicBool,
    /// Unix seconds of the newest checkpoint.
    pub last_s: AtomicI64,
    /// Epoch and log bytes at the newest checkpoint.
    pub last_epoch: AtomicU64,
    pub last_bytes: AtomicU64,
    /// Bytes of pages that it wrote.
    pub last_page_bytes: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn encode_position(at: LogPosition) -> Vec<u8> {
    [at.term.to_le_bytes(), at.index.0.to_le_bytes()].concat()
}

fn decode_position(bytes: &[u8]) -> Option<(LogPosition, &[u8])> {
    let (term, rest) = bytes.split_first_chunk::<8>()?;
    let (index, rest) = rest.split_first_chunk::<8>()?;
    Some((LogPosition { term: u64::from_le_bytes(*term), index: LogIndex(u64::from_le_bytes(*index)) }, rest))
}

pub fn meta_of(applied: &Applied) -> Meta {
    let membership = match &applied.membership {
        Some((at, bytes)) => [&encode_position(*at)[..], bytes].concat(),
        None => Vec::new(),
    };
    Meta { applied: encode_position(applied.last), membership }
}

/// What a checkpoint says of itself.
pub fn frontier_of(record: &RootRecord) -> Result<Frontier, KeeperError> {
    let (last, _) = decode_position(&record.meta.applied)
        .ok_or_else(|| KeeperError::Other("a checkpoint does not say which entry it shows".into()))?;
    let membership = decode_position(&record.meta.membership).map(|(at, bytes)| (at, Bytes::copy_from_slice(bytes)));
    Ok(Frontier { applied: Applied { last, membership }, epoch: record.epoch(), now: record.state.time })
}

impl Keeper {
    /// Opens the page store in `dir` and with it the newest checkpoint, if there is one. Reads root records only.
    pub fn open(dir: &Path, seal: Option<Arc<Sealer>>) -> Result<Opened, KeeperError> {
        let options = PagesOptions { seal, ..PagesOptions::default() };
        Keeper::open_in(Box::new(Generations::new(dir, options)?))
    }

    /// The same with page stores of another kind.
    pub fn open_in(generations: Box<dyn PageStores>) -> Result<Opened, KeeperError> {
        let pages = generations.open()?;
        let recovered = recovery::open(pages.clone())?;
        if let Some(damage) = recovered.damaged.into_iter().next() {
            return Err(KeeperError::Newest(damage));
        }
        let (store, writer, frontier) = match &recovered.record {
            Some(record) => {
                let (store, writer) = store::open(record.state, Box::new(page::Source(pages)))?;
                (store, writer, frontier_of(record)?)
            }
            None => {
                let (store, writer) = store::create()?;
                store.arena().pages().set_source(Box::new(page::Source(pages)));
                (store, writer, Frontier::default())
            }
        };
        let keeper = Keeper {
            generations,
            checkpoints: Mutex::new(recovered.checkpoints),
            source: AtomicU64::new(random() | 1),
            unfinished: Mutex::default(),
            damage: Arc::default(),
            waiting: AtomicUsize::new(0),
            running: AtomicBool::new(false),
            last_ok: AtomicBool::new(true),
            last_s: AtomicI64::new(frontier.now / 1000),
            last_epoch: AtomicU64::new(frontier.epoch.0),
            last_bytes: AtomicU64::new(0),
            last_page_bytes: AtomicU64::new(0),
        };
        Ok(Opened { keeper, store, writer, frontier })
    }

    pub fn in_progress(&self) -> bool {
        self.running.load(Ordering::Relaxed)
    }

    fn checkpoints(&self) -> Arc<Checkpoints> {
        lock(&self.checkpoints).clone()
    }

    /// Somebody waits for a checkpoint: it should be made at once.
    pub fn hurries(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Makes a checkpoint of the newest state, as fast as it can be; returns when it is durable. Blocks. None: nothing changed since
    /// the last one.
    pub fn run(&self, state: &SharedState) -> Result<Option<(LogPosition, Checkpointed)>, KeeperError> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let made = self.run_paced(state, &|_| ());
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        made
    }

    /// The same, in no hurry: see [`Checkpoints::run`].
    pub fn run_paced(
        &self,
        state: &SharedState,
        pace: &dyn Fn(u64),
    ) -> Result<Option<(LogPosition, Checkpointed)>, KeeperError> {
        let checkpoints = self.checkpoints();
        let bytes = state.progress.log_bytes.load(Ordering::Relaxed);
        let mut frontier = state.progress.frontier();
        if planted("a checkpoint says too much") {
            frontier.applied.last.index = frontier.applied.last.index.next();
        }
        if checkpoints.newest().is_some_and(|newest| newest.meta == meta_of(&frontier.applied)) {
            return Ok(None);
        }
        let store = state.store();
        let snapshot = store.snapshot_at(frontier.epoch).map_err(|e| KeeperError::Other(e.to_string()))?;
        self.running.store(true, Ordering::Relaxed);
        let retention = Retention { records: RECORDS_KEPT, oldest_live: store.oldest_sub_batch() };
        let made = checkpoints.run(snapshot.arena(), &snapshot.state(), meta_of(&frontier.applied), retention, pace);
        self.running.store(false, Ordering::Relaxed);
        self.last_ok.store(made.is_ok(), Ordering::Relaxed);
        let made = noted(&self.damage, made)?;
        self.last_s.store(frontier.now / 1000, Ordering::Relaxed);
        self.last_epoch.store(frontier.epoch.0, Ordering::Relaxed);
        self.last_bytes.store(bytes, Ordering::Relaxed);
        self.last_page_bytes.store(made.page_bytes, Ordering::Relaxed);
        Ok(Some((frontier.applied.last, made)))
    }

    /// The newest durable checkpoint, kept from deletion, and the checkpoints among which it is.
    pub fn view_newest(&self) -> Option<(View, Arc<Checkpoints>)> {
        let checkpoints = self.checkpoints();
        checkpoints.view_newest().map(|view| (view, checkpoints))
    }

    /// The newest durable checkpoint as a stream.
    pub fn export(&self) -> Option<Box<dyn Checkpoint>> {
        let view = self.checkpoints().view_newest()?;
        let meta = frontier_of(view.record()).ok()?.applied;
        let pieces = noted(&self.damage, Export::new(view)).ok()?;
        Some(Box::new(Sending {
            meta,
            pieces,
            source: self.source.load(Ordering::Relaxed),
            damage: self.damage.clone(),
        }))
    }

    /// What is damaged here, if a transfer met it.
    pub fn damage(&self) -> Option<&str> {
        self.damage.get().map(String::as_str)
    }

    /// Where a peer's checkpoint goes: a generation of its own, the same one again after a connection broke.
    pub fn receive(&self, source: u64) -> Result<Box<dyn Receive>, KeeperError> {
        let mut unfinished = lock(&self.unfinished);
        if unfinished.as_ref().is_none_or(|begun| begun.source != source || source == 0) {
            // What was begun before is in the way of a fresh one
            *unfinished = None;
            let own = self.checkpoints().view_newest().map(|view| Arc::new(OwnParts::new(view, random() | 1)));
            *unfinished = Some(Unfinished { source, fresh: self.generations.fresh()?, have: Arc::default(), own });
        }
        let begun = unfinished.clone().ok_or_else(|| KeeperError::Other("no transfer was begun".into()))?;
        let import = Import::resume(begun.fresh.pages.clone(), begun.have, begun.own);
        Ok(Box::new(Received { fresh: begun.fresh, import }))
    }

    /// Makes a received checkpoint the current one.
    pub fn install(&self, received: Box<dyn Receive>) -> Result<(Store, Writer, Frontier), KeeperError> {
        let received = received
            .into_any()
            .downcast::<Received>()
            .map_err(|_| KeeperError::Other("a checkpoint was received elsewhere".into()))?;
        let Received { fresh, import } = *received;
        // Whatever comes of it: what is not whole now never will be
        *lock(&self.unfinished) = None;
        let record = import.finish()?;
        let pages = self.generations.adopt(fresh)?;
        let recovered = recovery::open(pages.clone())?;
        let (store, writer) = store::open(record.state, Box::new(page::Source(pages)))?;
        *lock(&self.checkpoints) = recovered.checkpoints;
        self.source.store(random() | 1, Ordering::Relaxed);
        Ok((store, writer, frontier_of(&record)?))
    }
}

#[derive(Clone)]
struct Unfinished {
    source: u64,
    fresh: Fresh,
    have: Arc<AtomicU64>,
    /// What this node has of an older version.
    own: Option<Arc<OwnParts>>,
}

struct Sending {
    meta: Applied,
    pieces: Export,
    source: u64,
    damage: Arc<OnceLock<String>>,
}

/// Remembers damage.
fn noted<T>(damage: &OnceLock<String>, read: Result<T, CheckpointError>) -> Result<T, CheckpointError> {
    read.inspect_err(|error| {
        if matches!(error, CheckpointError::Pages(pages) if pages.is_damage()) {
            let _ = damage.set(error.to_string());
        }
    })
}

impl Checkpoint for Sending {
    fn meta(&self) -> Applied {
        self.meta.clone()
    }
    fn epoch(&self) -> Epoch {
        self.pieces.record().epoch()
    }
    fn next(&mut self) -> Result<Option<Bytes>, String> {
        noted(&self.damage, self.pieces.next_piece()).map(|piece| piece.map(Bytes::from)).map_err(|e| e.to_string())
    }
    fn source(&self) -> u64 {
        self.source
    }
    fn resume(&mut self, begun: Begun) {
        self.pieces.resume(PageId(begun.have), Some(begun.seed).filter(|seed| *seed != 0));
    }
    fn offer(&mut self) -> Result<Option<Bytes>, String> {
        noted(&self.damage, self.pieces.offer()).map(|names| names.map(Bytes::from)).map_err(|e| e.to_string())
    }
    fn wanted(&mut self, lacking: &[u8]) {
        self.pieces.wanted(lacking);
    }
    fn sent(&self) -> Sent {
        let ((done, total), tally) = (self.pieces.progress(), self.pieces.tally());
        Sent { done, total, pages: tally.pages, spared: tally.spared }
    }
}

struct Received {
    fresh: Fresh,
    import: Import,
}

impl Receive for Received {
    fn piece(&mut self, piece: Bytes) -> Result<(), String> {
        self.import.piece(&piece).map_err(|e| e.to_string())
    }
    fn begun(&self) -> Begun {
        Begun { have: self.import.have().0, seed: self.import.seed().unwrap_or(0) }
    }
    fn lacks(&mut self, offer: &[u8]) -> Vec<u8> {
        self.import.lacks(offer)
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

impl OldStates for Keeper {
    fn at_or_before(&self, epoch: Epoch) -> Result<Option<OldState>, String> {
        let Some(view) = self.checkpoints().view(epoch) else { return Ok(None) };
        let frontier = frontier_of(view.record()).map_err(|e| e.to_string())?;
        let (store, writer) = store::open(view.record().state, Box::new(view.source())).map_err(|e| e.to_string())?;
        let index = frontier.applied.last.index;
        Ok(Some(OldState {
            writer,
            epoch: frontier.epoch,
            now: frontier.now,
            index,
            kept: Some(Box::new((view, store))),
        }))
    }

    fn since(&self, log: LogIndex) -> Option<Epoch> {
        let goes_on = |record: &RootRecord| frontier_of(record).is_ok_and(|f| f.applied.last.index.next() >= log);
        self.checkpoints().oldest_epoch(goes_on)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Value;
    use std::time::{Duration, Instant};

    #[test]
    fn who_waits_for_a_checkpoint_hurries_the_one_that_runs() {
        let dir = tempfile::tempdir().unwrap();
        let Opened { keeper, store, mut writer, .. } = Keeper::open(dir.path(), None).unwrap();
        let mut slot = writer.find_slot(0, 1, b"k");
        writer.put(&mut slot, b"k", Value::Int(1), None);
        writer.publish();
        let state = SharedState::new(store);
        let (paced, hurried) = (AtomicBool::new(false), AtomicBool::new(false));
        let pace = |_| {
            paced.store(true, Ordering::Relaxed);
            let begun = Instant::now();
            while !keeper.hurries() && begun.elapsed() < Duration::from_secs(20) {
                std::thread::yield_now();
            }
            hurried.store(keeper.hurries(), Ordering::Relaxed);
        };
        std::thread::scope(|threads| {
            let slow = threads.spawn(|| keeper.run_paced(&state, &pace).unwrap());
            while !paced.load(Ordering::Relaxed) && !slow.is_finished() {
                std::thread::yield_now();
            }
            keeper.run(&state).unwrap();
            assert!(slow.join().unwrap().is_some());
        });
        assert!(hurried.into_inner());
        assert!(!keeper.hurries());
    }
}
