//! Adaptive group commit, and the exactly-once half that lies before the log.
//!
//! Every chunk of this node's gateway gets the next sequence number and stays in `unapplied` until this node's own apply
//! has seen it. One task on the raft thread takes what has not been sent, as one batch (or one frame to the leader), when
//! one of the few places in flight is free: while entries are on their way the next batch fills. An idle node's single
//! chunk leaves at once.
//!
//! Whenever the leader or its term changes, everything unapplied is sent again, in order. What was in already is skipped
//! by apply, on every node alike: it runs a chunk only if its sequence follows the last one of that gateway. So a chunk
//! that went ahead of a lost one does no harm either.

use super::lull::Lull;
use crate::base::batch::{Batch, BatchHeader, Chunk};
use crate::base::histogram::{Distribution, Histogram};
use crate::base::planted::planted;
use crate::base::{Clock, GatewayId, Millis, NodeId, mix64};
use crate::raft::{ForwardSink, Leadership, Raft};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Chunks that a leader known to be there has not brought back after this long are sent again, then after twice as long,
/// and so on: the net under all else. More often would only burden a slow disk with repeats.
const RESEND_AFTER: Duration = Duration::from_secs(1);
const RESEND_AFTER_MAX: Duration = Duration::from_secs(8);
/// After a leader refused chunks or could not be reached.
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// A batch with less in it travels alone.
const SMALL_BATCH_BYTES: usize = 32 << 10;
/// So much that is not applied is gathered, where gathering costs nothing but turns of the same thread.
const GATHER_BYTES: usize = 256 << 10;

#[derive(Clone, Debug)]
pub struct BatcherConfig {
    /// A batch is closed at this many bytes (one larger chunk makes a batch of its own).
    pub batch_bytes: usize,
    /// Chunks of this gateway not yet applied, in bytes; past it, [`Refused::Full`].
    pub unapplied_bytes_max: usize,
    /// Chunks of other nodes' gateways waiting for their batch, in bytes.
    pub foreign_bytes_max: usize,
    /// Least time between two batches; zero: as fast as places in flight allow.
    pub interval: Duration,
    pub gather: Gather,
}

/// What a batch waits for before it leaves, besides its place.
#[derive(Clone, Debug, Default)]
pub enum Gather {
    #[default]
    Nothing,
    /// A small one: a lull of the gateway's thread.
    Lull(Arc<Lull>),
    /// The gateway's thread is this one: until its tasks have nothing more to bring.
    Turns,
}

impl Gather {
    fn lull(&self) -> Option<&Lull> {
        match self {
            Gather::Lull(lull) => Some(lull),
            Gather::Nothing | Gather::Turns => None,
        }
    }
}

impl Default for BatcherConfig {
    fn default() -> Self {
        let (batch_bytes, interval) = (4 << 20, Duration::ZERO);
        let bytes_max = 256 << 20;
        BatcherConfig {
            batch_bytes,
            unapplied_bytes_max: bytes_max,
            foreign_bytes_max: bytes_max,
            interval,
            gather: Gather::Nothing,
        }
    }
}

/// Why a chunk was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too much is unapplied already: wait for [`Batcher::room`].
    #[error("too many writes are waiting")]
    Full,
    #[error("this node takes no writes")]
    Stopped,
}

#[derive(Default)]
struct State {
    /// Chunks of this gateway that its node has not applied, in order of sequence.
    unapplied: VecDeque<Chunk>,
    unapplied_bytes: usize,
    last_sequence: u64,
    /// All up to here were sent to the present leader.
    sent: u64,
    foreign: VecDeque<Chunk>,
    foreign_bytes: usize,
    leadership: Leadership,
    /// The task sleeps: the next chunk wakes it.
    asleep: bool,
    stopped: bool,
    /// Highest sequence applied when the task last looked for a stall.
    applied: u64,
    /// The last proposal was refused: the next waits a little.
    refused: bool,
    /// When the oldest came of what is on its way nowhere yet.
    waiting_since: Option<Instant>,
}

impl State {
    fn unsent(&self) -> usize {
        (self.last_sequence - self.sent) as usize
    }

    fn has_work(&self) -> bool {
        match self.leadership.leader {
            None => false,
            Some(_) => self.unsent() > 0 || !self.foreign.is_empty(),
        }
    }

    /// Bytes not yet sent; counting stops where it no longer matters.
    fn waiting_bytes(&self) -> usize {
        let mut bytes = self.foreign_bytes;
        for chunk in self.unapplied.range(self.unapplied.len() - self.unsent()..) {
            if bytes >= SMALL_BATCH_BYTES {
                break;
            }
            bytes += chunk.encoded_len();
        }
        bytes
    }

    /// What waited has left; how long it had to.
    fn waited(&mut self) -> Option<Duration> {
        let since = self.waiting_since.take()?;
        if self.unsent() > 0 || !self.foreign.is_empty() {
            self.waiting_since = Some(Instant::now());
        }
        Some(since.elapsed())
    }

    fn send_again(&mut self) {
        self.sent = self.last_sequence - self.unapplied.len() as u64;
    }

    /// Chunks not yet sent, up to `bytes_max` (at least one).
    fn take_unsent(&mut self, out: &mut Vec<Chunk>, mut room: usize) {
        let from = self.unapplied.len() - self.unsent();
        for chunk in self.unapplied.range(from..) {
            let len = chunk.encoded_len();
            if len > room && !out.is_empty() {
                break;
            }
            out.push(chunk.clone());
            self.sent = chunk.sequence;
            room = room.saturating_sub(len);
        }
    }

    fn take_foreign(&mut self, out: &mut Vec<Chunk>, room: usize) -> usize {
        let mut bytes = 0;
        while let Some(chunk) = self.foreign.front() {
            let len = chunk.encoded_len();
            if bytes + len > room && !out.is_empty() {
                break;
            }
            bytes += len;
            self.foreign_bytes -= len;
            out.extend(self.foreign.pop_front());
        }
        room.saturating_sub(bytes)
    }
}

struct Shared {
    state: Mutex<State>,
    wake: Notify,
    room: Notify,
    gateway: GatewayId,
    config: BatcherConfig,
    clock: Arc<dyn Clock>,
    seed: u64,
    /// How long the oldest chunk of each batch, or frame to the leader, waited; the sender's.
    waits: Histogram,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Takes chunks from all connections of this node; clones share it.
#[derive(Clone)]
pub struct Batcher(Arc<Shared>);

impl Batcher {
    /// `seed`: fresh random bits; the gateway's id and the seeds of batches come from it.
    pub fn start(raft: Raft, clock: Arc<dyn Clock>, seed: u64, config: BatcherConfig) -> Batcher {
        let name = if planted("a gateway's id is used again") { 0 } else { seed };
        let gateway = GatewayId(mix64(name ^ mix64(raft.node_id().0)) | 1);
        let leadership = raft.leadership();
        let state = Mutex::new(State { leadership, ..State::default() });
        let (wake, room) = (Notify::new(), Notify::new());
        let shared = Arc::new(Shared { state, wake, room, gateway, config, clock, seed, waits: Histogram::default() });
        raft.set_sink(shared.clone());
        raft.spawn(watch_leadership(raft.clone(), shared.clone()));
        raft.spawn(Sender::new(raft.clone(), shared.clone()).run());
        Batcher(shared)
    }

    /// The gateway of this start of this node.
    pub fn gateway(&self) -> GatewayId {
        self.0.gateway
    }

    /// Takes a chunk (gateway and sequence are filled in here) and tells its sequence. Never blocks.
    pub fn submit(&self, chunk: Chunk) -> Result<u64, Refused> {
        self.submit_with(chunk, |_| {})
    }

    /// As [`Batcher::submit`]; `register` learns the sequence before the chunk can possibly be applied. It runs under the
    /// batcher's lock: a few instructions, please.
    pub fn submit_with(&self, mut chunk: Chunk, register: impl FnOnce(u64)) -> Result<u64, Refused> {
        let mut state = self.0.lock();
        if state.stopped {
            return Err(Refused::Stopped);
        }
        let len = chunk.encoded_len();
        if state.unapplied_bytes + len > self.0.config.unapplied_bytes_max && !state.unapplied.is_empty() {
            return Err(Refused::Full);
        }
        state.waiting_since.get_or_insert_with(Instant::now);
        state.last_sequence += 1 + u64::from(state.last_sequence % 64 == 63 && planted("a sequence is left out"));
        let sequence = state.last_sequence;
        chunk.gateway = self.0.gateway;
        chunk.sequence = sequence;
        register(sequence);
        state.unapplied_bytes += len;
        state.unapplied.push_back(chunk);
        let wake = std::mem::take(&mut state.asleep);
        drop(state);
        if wake {
            self.0.wake.notify_one();
        }
        Ok(sequence)
    }

    /// Waits until [`Batcher::submit`] would not say [`Refused::Full`] (another caller may be faster).
    pub async fn room(&self) {
        loop {
            let notified = self.0.room.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            {
                let state = self.0.lock();
                if state.stopped
                    || state.unapplied.is_empty()
                    || state.unapplied_bytes < self.0.config.unapplied_bytes_max / 2
                {
                    return;
                }
            }
            notified.await;
        }
    }

    /// This node has applied all chunks of its own gateway up to `sequence`. Once a set of entries, from the apply thread.
    pub fn on_applied(&self, sequence: u64) {
        let mut state = self.0.lock();
        let half = self.0.config.unapplied_bytes_max / 2;
        let was_full = state.unapplied_bytes >= half;
        while state.unapplied.front().is_some_and(|c| c.sequence <= sequence) {
            if let Some(chunk) = state.unapplied.pop_front() {
                state.unapplied_bytes -= chunk.encoded_len();
            }
        }
        // A resend may have begun before this: it need not send these again
        state.sent = state.sent.max(sequence.min(state.last_sequence));
        let has_room = state.unapplied_bytes < half;
        let all = state.unapplied.len() == state.unsent();
        drop(state);
        self.0.config.gather.lull().into_iter().filter(|_| all).for_each(|lull| lull.applied());
        if was_full && has_room {
            self.0.room.notify_waiters();
        }
    }

    /// How long batches waited since the start.
    pub fn waits(&self) -> Distribution {
        self.0.waits.copy()
    }

    /// Chunks not yet applied here, and their bytes.
    pub fn waiting(&self) -> (usize, usize) {
        let state = self.0.lock();
        (state.unapplied.len(), state.unapplied_bytes)
    }
}

impl ForwardSink for Shared {
    fn forwarded(&self, _from: NodeId, term: u64, chunks: Vec<Chunk>) -> bool {
        let mut state = self.lock();
        let bytes: usize = chunks.iter().map(Chunk::encoded_len).sum();
        let room = state.foreign_bytes + bytes <= self.config.foreign_bytes_max || state.foreign.is_empty();
        if !state.leadership.me || state.leadership.term != term || !room {
            return false;
        }
        state.foreign_bytes += bytes;
        state.foreign.extend(chunks);
        state.waiting_since.get_or_insert_with(Instant::now);
        let wake = std::mem::take(&mut state.asleep);
        drop(state);
        if wake {
            self.wake.notify_one();
        }
        true
    }

    fn refused(&self, term: u64, batch: &Batch) {
        let mut state = self.lock();
        if !state.leadership.me || state.leadership.term != term {
            return;
        }
        state.refused = true;
        state.send_again();
        for chunk in batch.chunks.iter().filter(|c| c.gateway != self.gateway) {
            state.foreign_bytes += chunk.encoded_len();
            state.foreign.push_back(chunk.clone());
        }
        // Back to the order in which their gateways sent them
        state.foreign.make_contiguous().sort_by_key(|c| (c.gateway, c.sequence));
        state.asleep = false;
        drop(state);
        self.wake.notify_one();
    }

    fn now_ms(&self) -> Millis {
        self.clock.now_ms()
    }

    fn stopped(&self) {
        self.lock().stopped = true;
        self.wake.notify_one();
        self.room.notify_waiters();
    }
}

async fn watch_leadership(raft: Raft, shared: Arc<Shared>) {
    let mut watch = raft.watch_leadership();
    loop {
        let leadership = *watch.borrow_and_update();
        {
            let mut state = shared.lock();
            if leadership != state.leadership {
                state.leadership = leadership;
                // Their gateways send them again, to whoever leads
                state.foreign.clear();
                state.foreign_bytes = 0;
                state.send_again();
                state.asleep = false;
                shared.wake.notify_one();
            }
        }
        if watch.changed().await.is_err() {
            return;
        }
    }
}

struct Sender {
    raft: Raft,
    shared: Arc<Shared>,
    changes: tokio::sync::watch::Receiver<Leadership>,
    last_ms: Millis,
    batches: u64,
    /// When to look for a stall, and how long after the look before.
    look_at: Instant,
    look_after: Duration,
}

impl Sender {
    fn new(raft: Raft, shared: Arc<Shared>) -> Sender {
        let changes = raft.watch_leadership();
        let look_at = Instant::now() + RESEND_AFTER;
        Sender { raft, shared, changes, last_ms: 0, batches: 0, look_at, look_after: RESEND_AFTER }
    }

    async fn run(mut self) {
        loop {
            if Instant::now() >= self.look_at {
                self.look_for_stall();
            }
            let leadership = {
                let mut state = self.shared.lock();
                if state.stopped {
                    return;
                }
                state.asleep = !state.has_work();
                if state.asleep { None } else { Some(state.leadership) }
            };
            match leadership {
                None => {
                    let _ = tokio::time::timeout_at(self.look_at, self.shared.wake.notified()).await;
                }
                Some(leadership) if leadership.me => self.propose(leadership).await,
                Some(leadership @ Leadership { leader: Some(leader), .. }) => self.forward(leader, leadership).await,
                Some(_) => {}
            }
        }
    }

    /// Sends everything again if nothing of what waits has been applied since the last look.
    fn look_for_stall(&mut self) {
        let mut state = self.shared.lock();
        let applied = state.last_sequence - state.unapplied.len() as u64;
        let stalled = !state.unapplied.is_empty() && applied == state.applied && state.leadership.leader.is_some();
        if stalled {
            let (waiting, after) = (state.unapplied.len(), self.look_after);
            tracing::debug!("{waiting} chunks are not applied after {after:?}; sending again");
            state.send_again();
        }
        state.applied = applied;
        drop(state);
        self.look_after = if stalled { (self.look_after * 2).min(RESEND_AFTER_MAX) } else { RESEND_AFTER };
        self.look_at = Instant::now() + self.look_after;
    }

    /// Whether this is still the newest leadership; from here on `changes` wakes for the next one.
    async fn still(&mut self, leadership: Leadership) -> bool {
        let still = *self.changes.borrow_and_update() == leadership;
        if !still {
            // The task that sends all again after a change has not run yet
            tokio::task::yield_now().await;
        }
        still
    }

    /// One batch, as soon as there is a place for it; what comes meanwhile goes with it. A small one waits until nothing is on
    /// its way, and for a lull: an entry costs three to five hand-overs between threads, whatever is in it.
    async fn propose(&mut self, leadership: Leadership) {
        if std::mem::take(&mut self.shared.lock().refused) {
            tokio::time::sleep(RETRY_AFTER).await;
        }
        if !self.still(leadership).await {
            return;
        }
        let small = self.shared.lock().waiting_bytes() < SMALL_BATCH_BYTES;
        let slot = tokio::select! {
            slot = self.raft.slot(small) => slot,
            // Entries of a leader that lost its followers keep their places until the next leader has dealt with them
            _ = self.changes.changed() => None,
        };
        let Some(slot) = slot else { return };
        match &self.shared.config.gather {
            Gather::Lull(lull) if small => lull.wait().await,
            Gather::Turns => self.take_turns().await,
            Gather::Lull(_) | Gather::Nothing => {}
        }
        let chunks = {
            let mut state = self.shared.lock();
            if state.leadership != leadership {
                return;
            }
            let mut chunks = Vec::new();
            let room = state.take_foreign(&mut chunks, self.shared.config.batch_bytes);
            state.take_unsent(&mut chunks, room);
            state.waited().into_iter().for_each(|waited| self.shared.waits.record(waited));
            chunks
        };
        let Some(last) = chunks.last() else { return };
        if last.gateway == self.shared.gateway {
            self.shared.config.gather.lull().into_iter().for_each(|lull| lull.sent());
        }
        self.last_ms = self.last_ms.max(self.shared.clock.now_ms());
        self.batches += 1;
        let seed = mix64(self.shared.seed ^ mix64(self.batches ^ mix64(self.last_ms as u64)));
        let header = BatchHeader { time_ms: self.last_ms, seed, chunks: chunks.len() as u32 };
        self.raft.propose(leadership.term, Arc::new(Batch { header, chunks }), slot).await;
        if !self.shared.config.interval.is_zero() {
            tokio::time::sleep(self.shared.config.interval).await;
        }
    }

    /// Lets the gateway's tasks run, which share this thread, until they bring nothing more: everything that one look at the
    /// sockets finds goes in one batch, and the replies of the batch before have gone out.
    async fn take_turns(&self) {
        loop {
            let before = {
                let state = self.shared.lock();
                if state.unapplied_bytes >= GATHER_BYTES {
                    return;
                }
                state.last_sequence
            };
            tokio::task::yield_now().await;
            if self.shared.lock().last_sequence == before {
                return;
            }
        }
    }

    /// One frame to the leader; the next follows its answer, so that what waits meanwhile goes together and in order.
    async fn forward(&mut self, leader: NodeId, leadership: Leadership) {
        let term = leadership.term;
        if !self.still(leadership).await {
            return;
        }
        let chunks = {
            let mut state = self.shared.lock();
            let mut chunks = Vec::new();
            state.take_unsent(&mut chunks, self.shared.config.batch_bytes);
            state.waited().into_iter().for_each(|waited| self.shared.waits.record(waited));
            chunks
        };
        let Some(last) = chunks.last().map(|c| c.sequence) else { return };
        let taken = tokio::select! {
            taken = self.raft.forward(leader, term, &chunks) => taken,
            // A leader that is gone without a word would be waited for; the new one gets all of it again
            _ = self.changes.changed() => return,
        };
        if matches!(taken, Ok(true)) {
            return;
        }
        let again = {
            let mut state = self.shared.lock();
            let same = state.leadership == leadership;
            if same && state.sent >= last {
                state.send_again();
            }
            same
        };
        if again {
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }
}
