//! openraft's state machine: hands committed entries to the apply thread and goes on.
//!
//! The apply thread is an ordinary thread and owns the [`StateMachine`]. What it does is queued in one bounded channel, so
//! that a checkpoint taken over from a peer stands in order with the entries around it. An entry's slot is freed when it
//! has been handed over; when apply falls behind, the channel fills, slots stay taken and the batcher waits.
//!
//! Why not wait for each set to be applied: the raft thread and the apply thread would take turns, each idle for two
//! wake-ups a batch. openraft's own idea of "applied" therefore runs ahead by at most [`SETS_WAITING_MAX`] sets; nothing
//! but [`Progress`] is ever asked how far the state has come.

use super::types::{RaftLogId, RaftStored, Types, applied_of, body_of, log_position, position, stored};
use crate::apply::machine::{Applied, Checkpoint, Committed, LogPosition, Receive, Roster, StateMachine};
use crate::base::histogram::Histogram;
use crate::base::{Epoch, LogIndex};
use crate::disk::urgent;
use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot, SnapshotMeta};
use openraft::{OptionalSend, impls::BasicNode};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// Sets of entries between raft and apply.
const SETS_WAITING_MAX: usize = 8;
/// Entries gathered into one set.
const SET_ENTRIES_MAX: usize = 64;

enum ToApply {
    Entries(Vec<Committed>),
    Checkpoint(oneshot::Sender<Option<Box<dyn Checkpoint>>>),
    Receive(u64, Epoch, oneshot::Sender<Result<Box<dyn Receive>, String>>),
    Install(Applied, Box<dyn Receive>, oneshot::Sender<Result<(), String>>),
    Stop,
}

/// How far the state of this node has come; written by the apply thread.
pub struct Progress {
    index: watch::Sender<LogIndex>,
    term: AtomicU64,
    roster: watch::Sender<Arc<Roster>>,
    failure: watch::Sender<Option<String>>,
    /// How long sets of entries took; the apply thread's.
    pub applies: Histogram,
    /// From a proposal until its entry goes to apply; the raft thread's.
    pub commits: Histogram,
}

impl Progress {
    fn new(at: LogPosition, roster: Arc<Roster>) -> Self {
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
    fn advance(&self, to: LogPosition, roster: Arc<Roster>) {
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

/// The apply thread, seen from outside.
pub struct ApplyThread {
    sender: mpsc::Sender<ToApply>,
    thread: Option<JoinHandle<()>>,
}

impl ApplyThread {
    pub fn start(machine: Box<dyn StateMachine>) -> io::Result<(ApplyThread, Arc<Progress>, Applied)> {
        let applied = machine.applied();
        let (mut apply, turns, progress) = ApplyThread::by_hand(machine);
        apply.thread = Some(urgent::spawn("look-apply", move || turns.run())?);
        Ok((apply, progress, applied))
    }

    /// The same without a thread.
    pub fn by_hand(machine: Box<dyn StateMachine>) -> (ApplyThread, Turns, Arc<Progress>) {
        let progress = Arc::new(Progress::new(machine.applied().last, machine.roster()));
        let (sender, receiver) = mpsc::channel(SETS_WAITING_MAX);
        let turns = Turns { machine, receiver, progress: progress.clone() };
        (ApplyThread { sender, thread: None }, turns, progress)
    }

    pub fn machine(&self, progress: Arc<Progress>, applied: Applied) -> Machine {
        Machine { sender: self.sender.clone(), progress, handed: applied }
    }

    pub fn pieces(&self) -> Pieces {
        Pieces(self.sender.clone())
    }

    /// Ends the thread after what is queued. Blocks; not for async tasks.
    pub fn stop(&mut self) {
        let _ = self.sender.blocking_send(ToApply::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The state machine and what is queued for it.
pub struct Turns {
    machine: Box<dyn StateMachine>,
    receiver: mpsc::Receiver<ToApply>,
    progress: Arc<Progress>,
}

impl Turns {
    fn run(mut self) {
        let mut next = None;
        while let Some(command) = next.take().or_else(|| wait(&mut self.receiver, &mut *self.machine)) {
            match self.turn(command) {
                Some(left) => next = left,
                None => return,
            }
        }
    }

    /// As a task, each turn after a time that `delay` chooses.
    pub async fn run_as_task(mut self, delay: impl Fn() -> Duration) {
        let mut next = None;
        loop {
            let Some(command) = (match next.take() {
                Some(command) => Some(command),
                None => self.receiver.recv().await,
            }) else {
                return;
            };
            tokio::time::sleep(delay()).await;
            match self.turn(command) {
                Some(left) => next = left,
                None => return,
            }
        }
    }

    /// Carries out a command, with what may go together with it, and gives back a command taken too early. None: the end.
    fn turn(&mut self, command: ToApply) -> Option<Option<ToApply>> {
        let mut next = None;
        match command {
            ToApply::Entries(mut entries) => {
                // Everything that waits is one set: one publication, one wake-up
                while let Ok(more) = self.receiver.try_recv() {
                    match more {
                        ToApply::Entries(more) => entries.extend(more),
                        other => {
                            next = Some(other);
                            break;
                        }
                    }
                }
                if let Err(why) = apply(&mut *self.machine, entries, &self.progress) {
                    self.progress.fail(why);
                    return None;
                }
            }
            ToApply::Checkpoint(reply) => drop(reply.send(self.machine.checkpoint())),
            ToApply::Receive(source, epoch, reply) => {
                let taken = self.machine.takes(epoch).and_then(|()| self.machine.receive(source));
                let _ = reply.send(taken);
            }
            ToApply::Install(meta, received, reply) => {
                let last = meta.last;
                let result = self.machine.install(meta, received);
                if result.is_ok() {
                    self.progress.advance(last, self.machine.roster());
                }
                let _ = reply.send(result);
            }
            ToApply::Stop => return None,
        }
        Some(next)
    }
}

/// The next command. While there is none, the machine does what can wait.
fn wait(receiver: &mut mpsc::Receiver<ToApply>, machine: &mut dyn StateMachine) -> Option<ToApply> {
    loop {
        match receiver.try_recv() {
            Ok(command) => return Some(command),
            Err(mpsc::error::TryRecvError::Disconnected) => return None,
            Err(mpsc::error::TryRecvError::Empty) if machine.idle() => return receiver.blocking_recv(),
            Err(mpsc::error::TryRecvError::Empty) => {}
        }
    }
}

fn apply(machine: &mut dyn StateMachine, entries: Vec<Committed>, progress: &Progress) -> Result<(), String> {
    let Some(last) = entries.last().map(|e| e.position) else { return Ok(()) };
    let begun = Instant::now();
    // A broken invariant in apply must stop this node's writes, not leave them hanging
    let applied = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| machine.apply(entries)));
    applied.unwrap_or_else(|_| Err("panic in apply".into()))?;
    progress.applies.record(begun.elapsed());
    progress.advance(last, machine.roster());
    Ok(())
}

fn stopped() -> io::Error {
    io::Error::other("apply has stopped")
}

/// Asks the apply thread for checkpoints to send or to fill.
#[derive(Clone)]
pub struct Pieces(mpsc::Sender<ToApply>);

impl Pieces {
    pub async fn checkpoint(&self) -> Result<Option<Box<dyn Checkpoint>>, io::Error> {
        let (tx, rx) = oneshot::channel();
        self.0.send(ToApply::Checkpoint(tx)).await.map_err(|_| stopped())?;
        rx.await.map_err(|_| stopped())
    }

    /// A checkpoint of `epoch` is to come.
    pub async fn receive(&self, source: u64, epoch: Epoch) -> Result<Box<dyn Receive>, io::Error> {
        let (tx, rx) = oneshot::channel();
        self.0.send(ToApply::Receive(source, epoch, tx)).await.map_err(|_| stopped())?;
        rx.await.map_err(|_| stopped())?.map_err(io::Error::other)
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
    sender: mpsc::Sender<ToApply>,
    progress: Arc<Progress>,
    /// What has been handed over.
    handed: Applied,
}

impl Machine {
    async fn hand_over(&mut self, entries: Vec<Committed>) -> Result<(), io::Error> {
        if let Some(why) = self.progress.failure() {
            return Err(io::Error::other(why));
        }
        self.sender.send(ToApply::Entries(entries)).await.map_err(|_| stopped())
    }
}

impl Machine {
    /// A checkpoint as if a peer had sent it.
    async fn copy(&self, mut checkpoint: Box<dyn Checkpoint>) -> Result<Box<dyn Receive>, io::Error> {
        let mut received = Pieces(self.sender.clone()).receive(0, checkpoint.epoch()).await?;
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
        let mut set = Vec::new();
        let mut responders = Vec::new();
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let position = log_position(position(&entry.log_id));
            let body = body_of(entry.payload);
            if let crate::apply::machine::Body::Membership(bytes) = &body {
                self.handed.membership = Some((position, bytes.clone()));
            }
            self.handed.last = position;
            set.push(Committed { position, body });
            responders.extend(responder);
            if set.len() == SET_ENTRIES_MAX {
                self.hand_over(std::mem::take(&mut set)).await?;
                responders.drain(..).for_each(|r| r.send(()));
            }
        }
        if !set.is_empty() {
            self.hand_over(set).await?;
        }
        responders.into_iter().for_each(|r| r.send(()));
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        // Checkpoints are made by their own thread; openraft only learns of the newest
        let newest = Pieces(self.sender.clone()).checkpoint().await.ok()?.map(snapshot_of);
        let restored = || {
            let (last_log_id, last_membership) = stored(&self.handed);
            Snapshot { meta: SnapshotMeta { last_log_id, last_membership }, snapshot: SnapshotData::Restored }
        };
        newest.or_else(|| force.then(restored)).map(|s| Builder(Mutex::new(Some(s))))
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let newest = Pieces(self.sender.clone()).checkpoint().await.ok().flatten();
        Builder(Mutex::new(newest.map(snapshot_of)))
    }

    async fn install_snapshot(&mut self, meta: &LookMeta, snapshot: SnapshotData) -> Result<(), io::Error> {
        let received = match snapshot {
            SnapshotData::Theirs(received) => received,
            SnapshotData::Ours(checkpoint) => self.copy(checkpoint).await?,
            SnapshotData::Restored => return Err(io::Error::other("a position without pages cannot be installed")),
        };
        let applied = applied_of(meta.last_log_id.as_ref(), &meta.last_membership);
        let (tx, rx) = oneshot::channel();
        self.sender.send(ToApply::Install(applied.clone(), received, tx)).await.map_err(|_| stopped())?;
        rx.await.map_err(|_| stopped())?.map_err(io::Error::other)?;
        self.handed = applied;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<LookSnapshot>, io::Error> {
        Ok(Pieces(self.sender.clone()).checkpoint().await?.map(snapshot_of))
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    struct Untidy(Arc<AtomicU32>);

    impl StateMachine for Untidy {
        fn applied(&self) -> Applied {
            Applied::default()
        }
        fn roster(&self) -> Arc<Roster> {
            Arc::default()
        }
        fn apply(&mut self, _: Vec<Committed>) -> Result<(), String> {
            Ok(())
        }
        fn idle(&mut self) -> bool {
            self.0.fetch_sub(1, Ordering::SeqCst) == 1
        }
        fn checkpoint(&mut self) -> Option<Box<dyn Checkpoint>> {
            None
        }
        fn receive(&mut self, _: u64) -> Result<Box<dyn Receive>, String> {
            Err("nothing to receive".into())
        }
        fn install(&mut self, _: Applied, _: Box<dyn Receive>) -> Result<(), String> {
            Err("nothing to install".into())
        }
    }

    #[test]
    fn an_idle_machine_tidies_up_until_nothing_is_left() {
        let left = Arc::new(AtomicU32::new(100));
        let (mut thread, progress, _) = ApplyThread::start(Box::new(Untidy(left.clone()))).unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while left.load(Ordering::SeqCst) > 0 && std::time::Instant::now() < until {
            std::thread::yield_now();
        }
        assert_eq!(left.load(Ordering::SeqCst), 0);
        let entry = Committed {
            position: LogPosition { term: 1, index: LogIndex(1) },
            body: crate::apply::machine::Body::Blank,
        };
        left.store(1, Ordering::SeqCst);
        thread.sender.blocking_send(ToApply::Entries(vec![entry])).unwrap();
        thread.stop();
        assert_eq!(progress.index(), LogIndex(1));
    }
}
