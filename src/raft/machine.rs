//! openraft's state machine: queues committed entries for apply (`turns.rs`) and goes on.
//!
//! An entry's slot is freed when it has been handed over; when apply falls behind, the queue fills, slots stay taken and the
//! batcher waits.
//!
//! Why not wait for each set to be applied: the raft thread and the apply thread would take turns, each idle for two
//! wake-ups a batch. openraft's own idea of "applied" therefore runs ahead by at most the length of that queue; nothing
//! but [`Progress`] is ever asked how far the state has come.

use super::turns::{Queue, ToApply};
use super::types::{RaftLogId, RaftStored, Types, applied_of, body_of, log_position, position, stored, weight_of};
use crate::apply::machine::{Applied, Body, Checkpoint, Committed, LogPosition, Receive, Roster};
use crate::base::LogIndex;
use crate::base::histogram::Histogram;
use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot, SnapshotMeta};
use openraft::{OptionalSend, impls::BasicNode};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// Entries gathered into one set.
const SET_ENTRIES_MAX: usize = 64;

/// How far the state of this node has come; written by whoever applies.
pub struct Progress {
    index: watch::Sender<LogIndex>,
    term: AtomicU64,
    roster: watch::Sender<Arc<Roster>>,
    failure: watch::Sender<Option<String>>,
    /// How long sets of entries took; whose applied them.
    pub applies: Histogram,
    /// From a proposal until its entry goes to apply; the raft thread's.
    pub commits: Histogram,
}

impl Progress {
    pub fn new(at: LogPosition, roster: Arc<Roster>) -> Self {
        Progress {
            roster: watch::Sender::new(roster),
            index: watch::Sender::new(at.index),
            term: AtomicU64::new(at.term),
            failure: watch::Sender::new(None),
            applies: Histogram::default(),
            commits: Histogram::default(),
        }
    }
    pub fn index(&self) -> LogIndex {
        *self.index.borrow()
    }
    /// Term of the newest applied entry.
    pub fn term(&self) -> u64 {
        self.term.load(Ordering::Acquire)
    }
    pub fn failure(&self) -> Option<String> {
        self.failure.borrow().clone()
    }
    pub fn subscribe(&self) -> watch::Receiver<LogIndex> {
        self.index.subscribe()
    }
    /// What the applied state knows of the nodes.
    pub fn roster(&self) -> Arc<Roster> {
        self.roster.borrow().clone()
    }
    /// The roster first: whoever waits for an entry finds what it said of the nodes.
    pub fn advance(&self, to: LogPosition, roster: Arc<Roster>) {
        self.roster.send_if_modified(|old| !Arc::ptr_eq(&std::mem::replace(old, roster.clone()), &roster));
        self.term.store(to.term, Ordering::Release);
        self.index.send_replace(to.index);
    }
    /// Returns when the state can go no further, and says why.
    pub async fn failed(&self) -> String {
        let mut failure = self.failure.subscribe();
        let failed = failure.wait_for(Option::is_some).await;
        failed.ok().and_then(|why| why.clone()).unwrap_or_default()
    }
    pub fn fail(&self, why: String) {
        tracing::error!("no more is applied here: {why}");
        self.failure.send_replace(Some(why));
    }
}

/// What openraft calls a snapshot's data: a checkpoint to be read, or one that was received.
pub enum SnapshotData {
    Ours(Box<dyn Checkpoint>),
    Theirs(Box<dyn Receive>),
    /// Only the position of what recovery restored; there is nothing to read.
    Restored,
}

type LookSnapshot = Snapshot<super::types::Term, u64, BasicNode, SnapshotData>;
type LookMeta = SnapshotMeta<super::types::Term, u64, BasicNode>;

fn snapshot_of(checkpoint: Box<dyn Checkpoint>) -> LookSnapshot {
    let (last_log_id, last_membership) = stored(&checkpoint.meta());
    Snapshot { meta: SnapshotMeta { last_log_id, last_membership }, snapshot: SnapshotData::Ours(checkpoint) }
}

pub struct Machine {
    queue: Queue,
    progress: Arc<Progress>,
    /// What has been handed over.
    handed: Applied,
}

impl Machine {
    pub fn new(queue: Queue, progress: Arc<Progress>, handed: Applied) -> Machine {
        Machine { queue, progress, handed }
    }

    async fn hand_over(&mut self, entries: Vec<Committed>, weight: usize) -> Result<(), io::Error> {
        if let Some(why) = self.progress.failure() {
            return Err(io::Error::other(why));
        }
        self.queue.send(ToApply::Entries(entries), Some(weight)).await
    }

    /// A checkpoint as if a peer had sent it.
    async fn copy(&self, mut checkpoint: Box<dyn Checkpoint>) -> Result<Box<dyn Receive>, io::Error> {
        let mut received = self.queue.receive(0, checkpoint.epoch()).await?;
        while let Some(piece) = checkpoint.next().map_err(io::Error::other)? {
            received.piece(piece).map_err(io::Error::other)?;
        }
        Ok(received)
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<RaftLogId>, RaftStored), io::Error> {
        Ok(stored(&self.handed))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let (mut set, mut weight) = (Vec::new(), 0);
        let mut responders = Vec::new();
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let position = log_position(position(&entry.log_id));
            weight += weight_of(&entry);
            let body = body_of(entry.payload);
            if let Body::Membership(bytes) = &body {
                self.handed.membership = Some((position, bytes.clone()));
            }
            self.handed.last = position;
            set.push(Committed { position, body });
            responders.extend(responder);
            if set.len() == SET_ENTRIES_MAX {
                self.hand_over(std::mem::take(&mut set), std::mem::take(&mut weight)).await?;
                responders.drain(..).for_each(|r| r.send(()));
            }
        }
        if !set.is_empty() {
            self.hand_over(set, weight).await?;
        }
        responders.into_iter().for_each(|r| r.send(()));
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        // Checkpoints are made by their own thread; openraft only learns of the newest
        let newest = self.queue.checkpoint().await.ok()?.map(snapshot_of);
        let restored = || {
            let (last_log_id, last_membership) = stored(&self.handed);
            Snapshot { meta: SnapshotMeta { last_log_id, last_membership }, snapshot: SnapshotData::Restored }
        };
        newest.or_else(|| force.then(restored)).map(|s| Builder(Mutex::new(Some(s))))
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let newest = self.queue.checkpoint().await.ok().flatten();
        Builder(Mutex::new(newest.map(snapshot_of)))
    }

    async fn install_snapshot(&mut self, meta: &LookMeta, snapshot: SnapshotData) -> Result<(), io::Error> {
        let received = match snapshot {
            SnapshotData::Theirs(received) => received,
            SnapshotData::Ours(checkpoint) => self.copy(checkpoint).await?,
            SnapshotData::Restored => return Err(io::Error::other("a position without pages cannot be installed")),
        };
        let applied = applied_of(meta.last_log_id.as_ref(), &meta.last_membership);
        self.queue.install(applied.clone(), received).await?;
        self.handed = applied;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<LookSnapshot>, io::Error> {
        Ok(self.queue.checkpoint().await?.map(snapshot_of))
    }
}

/// Hands a checkpoint to openraft once. (The lock is for openraft, which wants it `Sync`.)
pub struct Builder(Mutex<Option<LookSnapshot>>);

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<LookSnapshot, io::Error> {
        let snapshot = self.0.lock().unwrap_or_else(|e| e.into_inner()).take();
        snapshot.ok_or_else(|| io::Error::other("there is no checkpoint yet"))
    }
}
