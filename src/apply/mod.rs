//! # apply: the loop that changes the store
//!
//! One thread at a time takes committed entries in order, gives every call its epoch, runs its program against the writer, answers the
//! chunks whose gateway is on this node, and publishes a new root, within a large batch again and again. No I/O, no clock, no await; the only locks are taken
//! once a chunk or a root. What two nodes apply is equal byte for byte: everything here depends on the entries and the state alone
//! (replies are written for the own gateway's chunks only and never read back).
//!
//! [`machine`] is what the log hands over, [`runner`] runs calls, [`ledger`] remembers what was applied, [`pending`] is what a gateway waits
//! for, [`positions`] tells history where each root lies in the log, [`system`] is the replicated state that is no client's,
//! [`digests`] is what nodes compare, [`planted`] holds bugs for tests.
//!
//! A panic in a helper fails its call on every node alike: calls that keep no undo are run again from the newest root, with undo
//! for each (see `Applier::run_again`).

pub mod digests;
pub mod ledger;
pub mod machine;
pub mod nodes;
pub mod pending;
pub mod planted;
pub mod positions;
pub mod runner;
pub mod system;

use crate::base::batch::{Batch, Chunk};
use crate::base::limits::SUB_BATCH_CALLS_MAX;
use crate::base::members::Members;
use crate::base::planted::planted;
use crate::base::{Epoch, GatewayId, KeyHasher, LogIndex, Millis, Stopwatch};
use crate::command::Table;
use crate::command::costs::{Counter, Totals};
use crate::store::{Read, Store, Value, Writer};
use arc_swap::ArcSwap;
use digests::Digests;
use ledger::Ledger;
use machine::{Applied, Body, Committed, Roster};
use pending::{Answered, Cost, Outcome, Pending};
use planted::{Bug, Planted};
use positions::{Place, Positions};
use runner::{Keys, RunError, Runner};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use system::SystemState;

/// Parts of the totals.
const SHARDS: usize = 8;

/// Keys fetched into the cache ahead of their calls.
const PREFETCH: usize = 32;
/// Nodes freed at a time while nothing waits: some tens of microseconds.
const IDLE_FREED: usize = 512;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Chunks of this node's gateway that are on their way through the log, in order of sequence.
#[derive(Default)]
pub struct Waiting(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    pending: VecDeque<(u64, Pending)>,
    abandoned: bool,
}

impl Waiting {
    /// Sequences must come in order: call it where they are given out.
    pub fn register(&self, sequence: u64, pending: Pending) {
        let mut queue = lock(&self.0);
        if !queue.abandoned {
            queue.pending.push_back((sequence, pending));
        }
    }

    fn take(&self, sequence: u64) -> Option<Pending> {
        let all = &mut lock(&self.0).pending;
        while all.front().is_some_and(|(s, _)| *s < sequence) {
            all.pop_front();
        }
        if all.front()?.0 != sequence {
            return None;
        }
        all.pop_front().map(|(_, p)| p)
    }

    /// Drops all, those to come too: their clients learn that the outcome is unknown.
    pub fn abandon(&self) {
        let mut queue = lock(&self.0);
        queue.abandoned = true;
        queue.pending.clear();
    }
}

/// How far the published state has come, at the end of a batch.
#[derive(Clone, Debug, Default)]
pub struct Frontier {
    pub applied: Applied,
    pub epoch: Epoch,
    pub now: Millis,
}

/// What other threads may see of apply.
#[derive(Default)]
pub struct Progress {
    frontier: Mutex<Frontier>,
    pub positions: Positions,
    /// Log time of the newest root, for readers: a key is expired when its deadline is not after this or the node's clock.
    pub now: AtomicI64,
    pub expired_keys: AtomicU64,
    /// Bytes of entries applied since start.
    pub log_bytes: AtomicU64,
    /// Batches applied since start.
    pub batches: AtomicU64,
    /// Epochs made since start.
    pub epochs: AtomicU64,
    hash_seed: Mutex<Option<u64>>,
    system: ArcSwap<SystemState>,
    system_version: AtomicU64,
    /// In shards, so that those who add do not meet.
    totals: [Mutex<Totals>; SHARDS],
    /// What peers compare.
    pub digests: Arc<Digests>,
    pub planted: Planted,
}

impl Progress {
    pub fn frontier(&self) -> Frontier {
        lock(&self.frontier).clone()
    }
    /// Known once the cluster's first batch is applied; clients are served from then on.
    pub fn hash_seed(&self) -> Option<u64> {
        *lock(&self.hash_seed)
    }
    /// The newest system state; never older than a reply of this node.
    pub fn system(&self) -> Arc<SystemState> {
        self.system.load_full()
    }
    /// Its version: whether to look again.
    pub fn system_version(&self) -> Epoch {
        Epoch(self.system_version.load(Ordering::Acquire))
    }
    fn publish_system(&self, state: SystemState) {
        let version = state.version.0;
        self.system.store(Arc::new(state));
        self.system_version.store(version, Ordering::Release);
    }
    /// What calls have cost on this node.
    pub fn totals(&self) -> Totals {
        let mut all = Totals::default();
        self.totals.iter().for_each(|shard| all.add(&lock(shard)));
        all
    }
    pub fn reset_totals(&self) {
        self.totals.iter().for_each(|shard| *lock(shard) = Totals::default());
    }
    /// Adds what a runner's calls have cost, which took `nanos` together: see [`Runner::settle_costs`].
    pub fn settle(&self, runner: &mut Runner, shard: u64, nanos: u64) -> (Counter, u64) {
        runner.settle_costs(nanos, &mut lock(&self.totals[shard as usize % SHARDS]))
    }
}

/// Takes the answers of a batch, all of them, in the order of their chunks.
pub type Answers = Box<dyn Fn(&mut Vec<Answered>) + Send + Sync>;

/// This node's gateway: known once its batcher runs. Whatever is applied before that came from earlier starts.
pub struct Own {
    pub gateway: GatewayId,
    /// Tells the batcher how far its own chunks have come.
    pub on_applied: Box<dyn Fn(u64) + Send + Sync>,
    pub answers: Answers,
}

/// The loop's state; whoever takes a turn has it alone.
pub struct Applier {
    writer: Writer,
    store: Store,
    runner: Runner,
    ledger: Ledger,
    waiting: Arc<Waiting>,
    progress: Arc<Progress>,
    own: Arc<OnceLock<Own>>,
    applied: Applied,
    roster: Arc<Roster>,
    keys: Keys,
    finished: Vec<Answered>,
    stopwatch: Stopwatch,
    since_root: SinceRoot,
    /// Shows this epoch when it is reached, and nothing that comes after it.
    stop_at: Epoch,
}

/// What the running batch has done since the newest root, to do it again.
#[derive(Default)]
struct SinceRoot {
    /// The newest epoch that the root shows.
    epoch: Epoch,
    /// The root lies inside the batch: expired keys are removed already.
    inside: bool,
    /// Chunks that ran, by number.
    chunks: Vec<usize>,
}

impl Applier {
    /// Goes on from what `writer` holds, which shows `frontier`.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        store: Store,
        writer: Writer,
        table: Arc<Table>,
        frontier: Frontier,
        waiting: Arc<Waiting>,
        progress: Arc<Progress>,
        own: Arc<OnceLock<Own>>,
    ) -> Applier {
        let ledger = Ledger::load(&writer);
        let roster = Arc::new(nodes::roster(&writer, &frontier.applied));
        let seed = ledger::hash_seed(&writer);
        let runner = Runner::new(table, KeyHasher::new(seed.unwrap_or(0)), frontier.epoch, frontier.now);
        *lock(&progress.hash_seed) = seed;
        progress.publish_system(SystemState::load(&writer));
        progress.now.store(frontier.now, Ordering::Release);
        progress.positions.push(Place {
            epoch: frontier.epoch,
            index: frontier.applied.last.index,
            chunks: usize::MAX,
        });
        progress.digests.begin(frontier.applied.last.index, writer.digest());
        *lock(&progress.frontier) = frontier.clone();
        Applier {
            writer,
            store,
            runner,
            ledger,
            waiting,
            progress,
            own,
            applied: frontier.applied,
            roster,
            keys: Keys::default(),
            finished: Vec::new(),
            stopwatch: Stopwatch::start(),
            since_root: SinceRoot { epoch: frontier.epoch, ..SinceRoot::default() },
            stop_at: Epoch(u64::MAX),
        }
    }

    /// An export's: stops in the midst of a batch, if the epoch lies there.
    pub fn stopping_at(mut self, epoch: Epoch) -> Applier {
        self.stop_at = epoch;
        self
    }

    pub fn applied(&self) -> Applied {
        self.applied.clone()
    }

    /// Frees a few nodes that no version needs any more; true when none is left. A dropped collection of a million nodes gives its
    /// memory back also when no write follows.
    pub fn idle(&mut self) -> bool {
        self.writer.collect(IDLE_FREED)
    }

    pub fn roster(&self) -> Arc<Roster> {
        self.roster.clone()
    }

    /// Applies entries in order and publishes the state after each.
    pub fn apply(&mut self, entries: Vec<Committed>) -> Result<(), RunError> {
        let own = self.own.clone();
        let own = own.get();
        let holds_own = |entry: &Committed| match (&entry.body, own) {
            (Body::Batch(batch), Some(own)) => batch.chunks.iter().any(|c| c.gateway == own.gateway),
            _ => false,
        };
        let tell = entries.iter().any(holds_own);
        for entry in entries {
            if self.runner.epoch >= self.stop_at {
                break;
            }
            match &entry.body {
                Body::Blank => {}
                Body::Membership(bytes) => {
                    let members = Members::parse(bytes).unwrap_or_default();
                    self.runner.membership(&mut self.writer, entry.position.index, &members);
                    self.applied.membership = Some((entry.position, bytes.clone()));
                }
                Body::Batch(_)
                    if entry.position.index.0 % 50 == 49 && !tell && planted("a follower leaves out a batch") => {}
                Body::Batch(batch) => self.batch(entry.position.index, batch)?,
            }
            self.applied.last = entry.position;
            if std::mem::take(&mut self.runner.roster_changed) {
                self.roster = Arc::new(nodes::roster(&self.writer, &self.applied));
            }
            // Of other entries nothing is to be run again
            let chunks = if let Body::Batch(batch) = &entry.body { batch.chunks.len() } else { usize::MAX };
            self.publish_batch(Place { epoch: self.runner.epoch, index: entry.position.index, chunks });
        }
        if tell {
            self.tell_own();
        }
        Ok(())
    }

    /// Tells the batcher how far its chunks have come: after each set that held any of them, run or skipped, and after
    /// a peer's checkpoint replaced the state.
    pub fn tell_own(&self) {
        if let Some(own) = self.own.get() {
            (own.on_applied)(self.ledger.last(own.gateway));
        }
    }

    fn batch(&mut self, index: LogIndex, batch: &Batch) -> Result<(), RunError> {
        let first = self.runner.epoch;
        self.stopwatch.lap();
        self.take_bugs();
        let expired = self.runner.begin_batch(&mut self.writer, index, batch);
        self.progress.expired_keys.fetch_add(expired, Ordering::Relaxed);
        self.runner.collect_keys(batch, &mut self.keys);
        let mut since_root = 0;
        let mut fetched = 0;
        for (number, chunk) in batch.chunks.iter().enumerate() {
            self.runner.begin_chunk(number, chunk)?;
            let end = self.keys.ends.get(number).copied().unwrap_or_default();
            if fetched < end {
                let from = fetched;
                fetched = end.max(from + PREFETCH).min(self.keys.all.len());
                self.writer.fetch(self.keys.all.get(from..fetched).unwrap_or_default());
            }
            if since_root > 0 && since_root + chunk.calls as usize > SUB_BATCH_CALLS_MAX {
                self.publish(Place { epoch: self.runner.epoch, index, chunks: number });
                self.answer();
                self.since_root.inside = true;
                since_root = 0;
            }
            since_root += chunk.calls as usize;
            self.chunk(index, batch, number)?;
        }
        self.ledger.store(&mut self.writer, self.runner.now);
        if self.progress.hash_seed().is_none()
            && let Some(seed) = ledger::hash_seed(&self.writer)
        {
            self.runner.env.set_hasher(KeyHasher::new(seed));
            *lock(&self.progress.hash_seed) = Some(seed);
        }
        if !self.runner.system_changed.is_empty() {
            let mut system = (*self.progress.system()).clone();
            system.update(&self.writer, std::mem::take(&mut self.runner.system_changed));
            self.progress.publish_system(system);
        }
        self.progress.log_bytes.fetch_add(batch.encoded_len() as u64, Ordering::Relaxed);
        self.progress.batches.fetch_add(1, Ordering::Relaxed);
        self.progress.epochs.fetch_add(self.runner.epoch.0 - first.0, Ordering::Relaxed);
        Ok(())
    }

    fn chunk(&mut self, index: LogIndex, batch: &Batch, number: usize) -> Result<(), RunError> {
        let chunk = &batch.chunks[number];
        if !self.ledger.admit(chunk.gateway, chunk.sequence, self.runner.now) {
            return Ok(());
        }
        let own = self.own.get().is_some_and(|own| own.gateway == chunk.gateway);
        let mut pending = if own { self.waiting.take(chunk.sequence) } else { None };
        let mut ran = self.run(chunk, pending.as_mut());
        if let Err(why @ RunError::Panicked(..)) = &ran {
            tracing::error!("{why}; that call fails, on every node: please report this");
            self.run_again(index, batch)?;
            self.runner.begin_chunk(number, chunk)?;
            ran = self.run(chunk, pending.as_mut());
        }
        let outcome = ran?;
        self.settle(chunk, pending.as_mut());
        self.since_root.chunks.push(number);
        let epoch = self.runner.epoch;
        self.finished.extend(pending.map(|pending| Answered { pending, epoch, outcome }));
        Ok(())
    }

    /// Accounts for a chunk that has run; the stopwatch has run since the chunk before it.
    fn settle(&mut self, chunk: &Chunk, pending: Option<&mut Pending>) {
        let (sum, longest) = self.progress.settle(&mut self.runner, 0, self.stopwatch.lap());
        let Some(pending) = pending else { return };
        let slow = self.runner.slow(longest, pending.slow_us, &chunk.blob, &pending.plan.riders.blob);
        pending.cost = Cost { calls: sum.calls, ops: sum.ops, locs: sum.locs, nanos: sum.nanos, slow };
    }

    fn run(&mut self, chunk: &Chunk, pending: Option<&mut Pending>) -> Result<Outcome, RunError> {
        let Some(Pending { plan, reply, reply_bytes_max, .. }) = pending else {
            self.runner.run_until(&mut self.writer, chunk, self.stop_at)?;
            return Ok(Outcome::Applied);
        };
        reply.clear();
        let too_long = self.runner.run_answering(&mut self.writer, chunk, plan, reply, *reply_bytes_max)?;
        Ok(if too_long { Outcome::TooLong } else { Outcome::Applied })
    }

    /// A call without undo panicked and left the newest sub-batch half changed: takes the sub-batch back and runs its chunks
    /// again, with undo for every call from here to the next root. All nodes do the same and come to the same state.
    fn run_again(&mut self, index: LogIndex, batch: &Batch) -> Result<(), RunError> {
        self.writer.return_to_root();
        self.runner.epoch = self.since_root.epoch;
        self.runner.careful = true;
        if !self.since_root.inside {
            self.runner.begin_batch(&mut self.writer, index, batch);
        }
        for &number in &self.since_root.chunks {
            // Those that this node answers have their replies already
            self.runner.begin_chunk(number, &batch.chunks[number])?;
            self.runner.run_until(&mut self.writer, &batch.chunks[number], self.stop_at)?;
        }
        Ok(())
    }

    fn take_bugs(&mut self) {
        for bug in self.progress.planted.take() {
            match bug {
                Bug::PanicOn(_) => self.progress.planted.arm(&mut self.runner.env),
                Bug::Diverge => {
                    let mut slot = self.writer.find_slot(0, 0, b"planted divergence");
                    self.writer.put(&mut slot, b"planted divergence", Value::Int(1), None);
                }
            }
        }
    }

    /// The state shown now is whole: nothing before it needs to be run again.
    fn rooted(&mut self) {
        self.runner.careful = false;
        self.since_root.epoch = self.runner.epoch;
        self.since_root.inside = false;
        self.since_root.chunks.clear();
    }

    /// Shows readers what has been applied so far.
    fn publish(&mut self, place: Place) {
        self.writer.publish();
        self.rooted();
        self.progress.now.store(self.runner.now, Ordering::Release);
        self.progress.positions.push(place);
    }

    /// Ends a batch: first the root, then the replies, so that a client that has its reply finds its write.
    fn publish_batch(&mut self, place: Place) {
        {
            let mut frontier = lock(&self.progress.frontier);
            self.writer.publish();
            *frontier = Frontier { applied: self.applied.clone(), epoch: self.runner.epoch, now: self.runner.now };
        }
        self.rooted();
        self.progress.digests.note(place.index, self.writer.digest());
        self.progress.now.store(self.runner.now, Ordering::Release);
        self.progress.positions.push(place);
        self.progress.positions.release(self.store.since());
        self.answer();
    }

    /// After the root that shows what is answered.
    fn answer(&mut self) {
        if let Some(own) = self.own.get().filter(|_| !self.finished.is_empty()) {
            (own.answers)(&mut self.finished);
        }
    }
}
