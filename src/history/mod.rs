//! # history: reads in the past
//!
//! A read at an epoch is exact, also between two mutations of one batch. Three ways, the cheapest that fits:
//!
//! 1. the first kept root that shows the epoch, when none of the keys read has changed between the epoch and that root (every key
//!    knows the epoch that last changed it): no replay, the price of a live read;
//! 2. the last kept root before the epoch, and a private replay of the calls in between, at most a sub-batch of them;
//! 3. past the window, the newest checkpoint on disk that is not younger, and a private replay of the log after it.
//!
//! Replay runs on a private writer: its nodes go away with it and nobody else sees them. Time is the stamp of the epoch's batch, so
//! the answer is the same on every node and whenever it is asked for.

use crate::apply::Progress;
use crate::apply::ledger::{Ledger, hash_seed};
use crate::apply::machine::{Body, Committed};
use crate::apply::positions::Place;
use crate::apply::runner::{RunError, Runner};
use crate::base::members::Members;
use crate::base::{Epoch, KeyHasher, LogIndex, Millis};
use crate::command::Table;
use crate::store::{Read, Store, WindowError, Writer};
use std::any::Any;
use std::sync::Arc;

/// Why an epoch cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    #[error("EPOCHTOOOLD since={0}")]
    TooOld(Epoch),
    #[error("EPOCHFUTURE upper={0}")]
    Future(Epoch),
    #[error("the log of that time cannot be read: {0}")]
    Log(String),
    #[error(transparent)]
    Replay(#[from] RunError),
    #[error("a checkpoint cannot be read: {0}")]
    Checkpoint(String),
    #[error("too many reads of the past at once; try again")]
    Busy,
}

impl From<WindowError> for HistoryError {
    fn from(e: WindowError) -> Self {
        match e {
            WindowError::TooOld { since } => HistoryError::TooOld(since),
            WindowError::Future { upper } => HistoryError::Future(upper),
            WindowError::TooManyReaders => HistoryError::Busy,
        }
    }
}

/// Entries of the log by index, from memory or disk; also those that consensus no longer needs, as far as they are kept.
pub trait LogReader: Send + Sync {
    /// Entries `from ..= to`, or as many of them from `from` on as fit in a piece of moderate size (at least one).
    fn read(&self, from: LogIndex, to: LogIndex) -> Result<Vec<Committed>, String>;
    /// The oldest entry that is still kept.
    fn since(&self) -> LogIndex;
}

/// An old checkpoint, opened.
pub struct OldState {
    pub writer: Writer,
    pub epoch: Epoch,
    pub now: Millis,
    /// The last entry that it shows.
    pub index: LogIndex,
    /// What keeps its pages from being deleted.
    pub kept: Kept,
}

/// Held as long as a version is read.
pub type Kept = Option<Box<dyn Any + Send>>;

/// Checkpoints that are still on disk.
pub trait OldStates: Send + Sync {
    /// The newest one that does not show anything after `epoch`.
    fn at_or_before(&self, epoch: Epoch) -> Result<Option<OldState>, String>;
    /// What the oldest one shows behind which a log that begins with entry `log` goes on.
    fn since(&self, log: LogIndex) -> Option<Epoch>;
}

/// A version of everything, as of one epoch.
pub enum Version {
    /// A kept root that answers for it, to be read at this time.
    Kept(crate::store::OwnedSnapshot, Millis),
    /// A private copy, with the runner that made it.
    Private(Writer, Runner, Kept),
}

/// The past of one node.
pub struct History {
    table: Arc<Table>,
    progress: Arc<Progress>,
    log: Arc<dyn LogReader>,
    old: Arc<dyn OldStates>,
}

/// The empty state before the first entry.
fn beginning() -> Result<OldState, HistoryError> {
    let (store, writer) = crate::store::create().map_err(|e| HistoryError::Checkpoint(e.to_string()))?;
    Ok(OldState { writer, epoch: Epoch::ZERO, now: 0, index: LogIndex(0), kept: Some(Box::new(store)) })
}

/// A key that a read depends on.
#[derive(Clone, Debug)]
pub struct KeyRead<'a> {
    pub db: u8,
    pub hash: u64,
    pub key: &'a [u8],
}

impl History {
    pub fn new(
        table: Arc<Table>,
        progress: Arc<Progress>,
        log: Arc<dyn LogReader>,
        old: Arc<dyn OldStates>,
    ) -> History {
        History { table, progress, log, old }
    }

    /// The oldest epoch from which on all can be read: what is between two versions that are kept is replayed from the log.
    pub fn since(&self, store: &Store) -> Epoch {
        if self.whole_log() {
            return Epoch::ZERO;
        }
        let log = self.log.since();
        let window = self.progress.positions.since(log).map_or(store.since(), |kept| kept.max(store.since()));
        self.old.since(log).map_or(window, |old| old.min(window))
    }

    /// The log reaches back to its first entry, so everything can be replayed from the empty state.
    fn whole_log(&self) -> bool {
        self.log.since() <= LogIndex(1)
    }

    /// The version as of `epoch`. `keys` are those the reads depend on; None when that is not known (`KEYS`, `DBSIZE`, …).
    pub fn at(&self, store: &Store, epoch: Epoch, keys: Option<&[KeyRead<'_>]>) -> Result<Version, HistoryError> {
        match self.version(store, epoch, keys, false) {
            // A helper panicked then, as it did when the batch was applied: its call failed, and must fail again
            Err(HistoryError::Replay(RunError::Panicked(..))) => self.version(store, epoch, keys, true),
            Err(HistoryError::Log(_)) if epoch < self.since(store) => Err(HistoryError::TooOld(self.since(store))),
            other => other,
        }
    }

    /// `careful`: replays with undo for every call.
    fn version(
        &self,
        store: &Store,
        epoch: Epoch,
        keys: Option<&[KeyRead<'_>]>,
        careful: bool,
    ) -> Result<Version, HistoryError> {
        match self.in_window(store, epoch, keys, careful) {
            // A root may need the entry whose last chunk it shows, where a checkpoint needs only what comes behind it
            Err(HistoryError::TooOld(_) | HistoryError::Log(_)) => self.on_disk(store, epoch, careful),
            other => other,
        }
    }

    fn in_window(
        &self,
        store: &Store,
        epoch: Epoch,
        keys: Option<&[KeyRead<'_>]>,
        careful: bool,
    ) -> Result<Version, HistoryError> {
        let after = store.snapshot_showing(epoch)?;
        let unchanged = |k: &KeyRead<'_>| after.last_change(k.db, k.hash, k.key) <= epoch;
        if after.epoch() == epoch || keys.is_some_and(|keys| keys.iter().all(unchanged)) {
            let time = after.time();
            return Ok(Version::Kept(after, time));
        }
        let before = store.snapshot_at(epoch)?;
        let Some(place) = self.progress.positions.of(before.epoch()) else {
            return Err(HistoryError::TooOld(store.since()));
        };
        let (from, now) = (before.epoch(), before.time());
        self.replay(
            OldState { writer: Writer::private(before), epoch: from, now, index: place.index, kept: None },
            place,
            epoch,
            careful,
        )
    }

    fn on_disk(&self, store: &Store, epoch: Epoch, careful: bool) -> Result<Version, HistoryError> {
        let old = match self.old.at_or_before(epoch).map_err(HistoryError::Checkpoint)? {
            Some(old) => old,
            None if self.whole_log() => beginning()?,
            None => return Err(HistoryError::TooOld(self.since(store))),
        };
        let place = Place { epoch: old.epoch, index: old.index, chunks: usize::MAX };
        self.replay(old, place, epoch, careful)
    }

    /// Runs the calls behind `place`, which `from` shows, up to and including `epoch`.
    fn replay(&self, from: OldState, place: Place, epoch: Epoch, careful: bool) -> Result<Version, HistoryError> {
        let OldState { mut writer, epoch: shown, now, kept, .. } = from;
        let hasher = KeyHasher::new(hash_seed(&writer).unwrap_or(0));
        let mut runner = Runner::new(self.table.clone(), hasher, shown, now);
        runner.careful = careful;
        self.progress.planted.arm(&mut runner.env);
        let last = self.progress.frontier().applied.last.index;
        replay(&*self.log, last, &mut writer, &mut runner, place, epoch)?;
        Ok(Version::Private(writer, runner, kept))
    }
}

/// Runs the calls behind `place`, which `writer` shows, up to and including `epoch`; the log ends with entry `last`. Tells the last
/// entry of which anything was run.
pub fn replay(
    log: &dyn LogReader,
    last: LogIndex,
    writer: &mut Writer,
    runner: &mut Runner,
    place: Place,
    epoch: Epoch,
) -> Result<LogIndex, HistoryError> {
    let mut ledger = Ledger::load(writer);
    let mut index = if place.chunks == usize::MAX { place.index.next() } else { place.index };
    while runner.epoch < epoch {
        let entries = log.read(index, last).map_err(HistoryError::Log)?;
        if entries.is_empty() {
            return Err(HistoryError::Log(format!("entry {index} is missing")));
        }
        for entry in entries {
            index = entry.position.index.next();
            let batch = match &entry.body {
                Body::Batch(batch) => batch,
                Body::Membership(bytes) => {
                    let members = Members::parse(bytes).unwrap_or_default();
                    runner.membership(writer, entry.position.index, &members);
                    if runner.epoch >= epoch {
                        break;
                    }
                    continue;
                }
                Body::Blank => continue,
            };
            let shown = if entry.position.index == place.index { place.chunks } else { 0 };
            if shown == 0 {
                runner.begin_batch(writer, entry.position.index, batch);
            } else {
                runner.resume_batch(entry.position.index, batch);
            }
            for (number, chunk) in batch.chunks.iter().enumerate() {
                if runner.epoch >= epoch {
                    break;
                }
                runner.begin_chunk(number, chunk)?;
                if ledger.admit(chunk.gateway, chunk.sequence, runner.now) && number >= shown {
                    runner.run_until(writer, chunk, epoch)?;
                }
            }
            if runner.epoch >= epoch {
                break;
            }
            ledger.store(writer, runner.now);
        }
    }
    Ok(LogIndex(index.0.saturating_sub(1)))
}
