//! What the gateway asks of its node.

use super::code::NodeCode;
use super::keeper::{Keeper, KeeperError};
use super::reads::{NodeReads, keys_of_plan, run_plan};
use super::state::SharedState;
use crate::apply::machine::{Committed, LogPosition};
use crate::apply::pending::{Outcome, Pending, Plan, Watch};
use crate::apply::planted::Bug;
use crate::apply::runner::Runner;
use crate::apply::system::SystemState;
use crate::base::batch::ChunkBuilder;
use crate::base::members::{EXPORT, dialed};
use crate::base::{Clock, Epoch, GatewayId, KeyHasher, LogIndex, Millis, NodeId, mix64};
use crate::batch::{Batcher, Refused as Full};
use crate::command::Table;
use crate::gateway::EXPORT_WRITES;
use crate::gateway::backend::{
    Backend, CommandId, Consistency, MemberChange, NodeFacts, PastError, Place, Refused, Timings,
};
use crate::history::{History, HistoryError, LogReader, Version};
use crate::lang::engine::Engine;
use crate::raft::{Change, Raft};
use crate::resp::{ReplyBuf, Request};
use crate::store::checkpoint::Checkpointed;
use crate::store::{Entry, Read, Value};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Bytes of log that one step of a replay reads.
const REPLAY_BYTES: usize = 4 << 20;

/// The log, for readers of the past.
pub struct RaftLog(pub Raft);

impl LogReader for RaftLog {
    fn read(&self, from: LogIndex, to: LogIndex) -> Result<Vec<Committed>, String> {
        self.0.history(from..to.next(), REPLAY_BYTES).map_err(|e| e.to_string())
    }

    fn since(&self) -> LogIndex {
        self.0.history_since()
    }
}

/// Everything that the gateway's calls reach.
pub struct Node {
    pub state: Arc<SharedState>,
    pub keeper: Arc<Keeper>,
    pub raft: Raft,
    pub batcher: Batcher,
    pub history: Arc<History>,
    pub code: Arc<NodeCode>,
    pub clock: Arc<dyn Clock>,
    pub max_write_cost: Arc<AtomicU64>,
    pub checkpoint_bytes: AtomicU64,
    pub run_id: String,
    pub data_dir: PathBuf,
    pub config_file: Option<PathBuf>,
    /// Told by `SHUTDOWN`; the flag says whether a checkpoint is wanted.
    pub stop: Notify,
    pub reads: AtomicU64,
    /// An export: the epoch that it shows.
    pub stop_at: Option<Epoch>,
    pub backups: super::backup::Backups,
    pub seal: Option<Arc<crate::disk::seal::Sealer>>,
}

#[derive(Clone)]
pub struct NodeBackend(pub Arc<Node>);

impl NodeBackend {
    fn hash(&self, key: &[u8]) -> u64 {
        self.0.code.hasher.hash(key)
    }

    fn table(&self) -> &Arc<Table> {
        &self.0.code.table
    }

    /// Why this node must answer nothing, if so.
    fn unfit(&self) -> Option<Refused> {
        self.0.raft.unfit().map(|why| Refused(why.to_owned().into()))
    }

    /// Makes a checkpoint and lets the log go of what it covers. Blocks.
    pub fn checkpoint_now(&self) -> Result<(), KeeperError> {
        self.checkpointed(self.0.keeper.run(&self.0.state)?);
        Ok(())
    }

    pub(super) fn checkpointed(&self, made: Option<(LogPosition, Checkpointed)>) {
        if let Some((position, made)) = made {
            tracing::info!(
                "checkpoint at epoch {}: {} nodes in {} pages, {} bytes written",
                made.record.epoch(),
                made.nodes,
                made.pages,
                made.page_bytes
            );
            self.0.raft.checkpointed(position);
        }
    }
}

fn past_error(e: HistoryError) -> PastError {
    match e {
        HistoryError::TooOld(since) => PastError::TooOld(since),
        HistoryError::Future(upper) => PastError::Future(upper),
        other => PastError::Unreadable(other.to_string()),
    }
}

impl Backend for NodeBackend {
    type Code = NodeCode;
    type Reads = NodeReads;

    fn code(&self) -> Arc<NodeCode> {
        self.0.code.clone()
    }

    fn reads(&self) -> NodeReads {
        let number = self.0.reads.fetch_add(1, Ordering::Relaxed);
        let seed = mix64(number ^ self.0.clock.monotonic_us().rotate_left(32));
        NodeReads::new(self.0.state.clone(), self.table().clone(), self.0.clock.clone(), number, seed)
    }

    fn watch(&self, db: u8, key: &[u8]) -> Watch {
        let hash = self.hash(key);
        let (epoch, absent) = match self.0.state.store().snapshot() {
            Ok(newest) => (newest.epoch(), newest.find(db, hash, key).is_none()),
            Err(_) => (self.epoch(), false),
        };
        Watch { db, key: key.to_vec(), hash, epoch, absent }
    }

    fn epoch(&self) -> Epoch {
        self.0.state.store().epoch()
    }

    fn now_ms(&self) -> Millis {
        self.0.clock.now_ms()
    }

    fn system(&self) -> Arc<SystemState> {
        self.0.state.progress.system()
    }

    fn system_version(&self) -> Epoch {
        self.0.state.progress.system_version()
    }

    async fn submit(&self, records: &mut ChunkBuilder, code_version: u64, pending: Pending) {
        let chunk = records.finish(GatewayId(0), 0, code_version);
        let failed = |why: &str| match self.unfit() {
            Some(unfit) => Outcome::Refused(unfit.0),
            None => Outcome::Refused(format!("MISCONF this node takes no more writes: {why}").into()),
        };
        if let Some(why) = self.0.state.failure.get() {
            return pending.finish(Epoch::ZERO, failed(why));
        }
        if self.0.stop_at.is_some() {
            return pending.finish(Epoch::ZERO, Outcome::Refused(EXPORT_WRITES.into()));
        }
        let mut pending = Some(pending);
        loop {
            let waiting = &self.0.state.waiting;
            let register = |sequence| {
                if let Some(pending) = pending.take() {
                    waiting.register(sequence, pending);
                }
            };
            match self.0.batcher.submit_with(chunk.clone(), register) {
                Ok(_) => return,
                Err(Full::Full) => self.0.batcher.room().await,
                Err(Full::Stopped) => {
                    if let Some(pending) = pending.take() {
                        let text = "LOADING this node takes no writes now; use another node of the cluster";
                        // Raft knows of a failure before the state does
                        let why = self.0.raft.failure();
                        pending.finish(Epoch::ZERO, why.map_or(Outcome::Refused(text.into()), |why| failed(&why)));
                    }
                    return;
                }
            }
        }
    }

    async fn fence(&self, consistency: Consistency, last: Epoch) -> Result<(), Refused> {
        if let Some(refused) = self.unfit() {
            return Err(refused);
        }
        let clock = &*self.0.clock;
        if self.0.raft.is_leader() {
            self.0.state.leader_says(clock.now_ms(), clock);
        }
        match consistency {
            Consistency::Eventual => Ok(()),
            _ if self.0.stop_at.is_some() => Ok(()),
            Consistency::Strong if self.0.raft.reads_are_local() => Ok(()),
            Consistency::Strong => {
                let read = self.0.raft.read_index().await;
                let point = read.map_err(|e| Refused(format!("CLUSTERDOWN {e}").into()))?;
                if let Some(now) = point.leader_ms {
                    self.0.state.leader_says(now, clock);
                }
                Ok(())
            }
            Consistency::Session => {
                let mut applied = self.0.raft.watch_applied();
                while self.epoch() < last {
                    if applied.changed().await.is_err() {
                        return Err(Refused("ERR this node stops".into()));
                    }
                }
                Ok(())
            }
        }
    }

    async fn read_at(
        &self,
        at: Epoch,
        code: Arc<NodeCode>,
        plan: Plan,
        mut reply: ReplyBuf,
    ) -> Result<(ReplyBuf, Plan), (PastError, Plan)> {
        let node = self.0.clone();
        if let Some(Refused(why)) = self.unfit() {
            return Err((PastError::Unreadable(why.into_owned()), plan));
        }
        let task = move || {
            let keys = keys_of_plan(&code.table, &plan);
            // A page of an old checkpoint may be damaged
            let found = AssertUnwindSafe(|| node.history.at(&node.state.store(), at, keys.as_deref()));
            let version = match catch_unwind(found) {
                Ok(Ok(version)) => version,
                Ok(Err(e)) => return Err((past_error(e), plan)),
                Err(_) => return Err((PastError::Unreadable("the state of that time cannot be read".into()), plan)),
            };
            let mut place = Place::default();
            match version {
                Version::Kept(snapshot, now) => {
                    let mut runner = Runner::new(code.table.clone(), node.state.hasher(), at, now);
                    runner.set_seed(at.0);
                    run_plan(&mut runner, &code.table, &snapshot, &plan, &mut place, usize::MAX, true, &mut reply);
                }
                Version::Private(writer, mut runner, _kept) => {
                    runner.set_seed(at.0);
                    run_plan(&mut runner, &code.table, &writer, &plan, &mut place, usize::MAX, true, &mut reply);
                }
            }
            Ok((reply, plan))
        };
        match self.0.raft.blocking(task).await {
            Ok(done) => done,
            Err(_) => Err((PastError::Unreadable("the read of the past did not end".into()), Plan::default())),
        }
    }

    fn stays_at(&self) -> Option<Epoch> {
        self.0.stop_at
    }

    fn epoch_at(&self, time: Millis) -> Result<Epoch, PastError> {
        let store = self.0.state.store();
        store.epoch_at(time).ok_or_else(|| PastError::TooOld(self.since()))
    }

    fn since(&self) -> Epoch {
        self.0.history.since(&self.0.state.store())
    }

    fn facts(&self) -> NodeFacts {
        let node = &self.0;
        let store = node.state.store();
        let usage = store.usage();
        let status = node.raft.status();
        let progress = &node.state.progress;
        let keyspace = store.snapshot().map(|s| keyspace(&s, node.clock.now_ms())).unwrap_or_default();
        let totals = progress.totals();
        let epoch = self.epoch();
        NodeFacts {
            node_id: node.raft.node_id().0,
            run_id: node.run_id.clone(),
            data_dir: node.data_dir.display().to_string(),
            config_file: node.config_file.as_ref().map(|p| p.display().to_string()).unwrap_or_default(),
            keyspace,
            used_memory: usage.arena_bytes,
            dataset_bytes: usage.live_bytes,
            expired_keys: progress.expired_keys.load(Ordering::Relaxed),
            keyspace_hits: totals.hits,
            keyspace_misses: totals.misses,
            epoch,
            since: self.since(),
            window_roots: usage.roots,
            window_bytes: usage.dead_bytes,
            leader: status.leadership.leader.map(|n| n.0),
            is_leader: status.leadership.me,
            term: status.leadership.term,
            log_first: status.first.0,
            log_last: status.last.0,
            log_committed: status.committed.0,
            log_applied: status.applied.0,
            peers: status
                .peers
                .iter()
                .filter(|p| p.id != node.raft.node_id())
                .map(|p| {
                    (p.id.0, p.addr.clone(), p.matched.map_or(0, |m| m.0), p.lag.unwrap_or(0), p.matched.is_some())
                })
                .collect(),
            last_checkpoint_s: node.keeper.last_s.load(Ordering::Relaxed),
            checkpoint_in_progress: node.keeper.in_progress(),
            last_checkpoint_ok: node.keeper.last_ok.load(Ordering::Relaxed),
            changes_since_checkpoint: epoch.0.saturating_sub(node.keeper.last_epoch.load(Ordering::Relaxed)),
            jit: self.table().code().engine() == Engine::Jit,
            code_version: self.table().version(),
            command_costs: self
                .table()
                .iter()
                .zip(&totals.commands)
                .filter(|(_, total)| total.counter.calls > 0)
                .map(|(command, total)| (command.name.clone(), *total))
                .collect(),
            failure: status.failure.clone(),
            extra: status.failure.map(|f| ("write_failure".to_owned(), f)).into_iter().collect(),
        }
    }

    fn timings(&self) -> Timings {
        let (times, progress) = (self.0.raft.times(), &self.0.state.progress);
        Timings {
            batches: progress.batches.load(Ordering::Relaxed),
            epochs: progress.epochs.load(Ordering::Relaxed),
            batch_wait: self.0.batcher.waits(),
            commit: times.commit,
            sync: times.sync,
            apply: times.apply,
        }
    }

    fn cluster(&self) -> String {
        let status = self.0.raft.status();
        let me = self.0.raft.node_id();
        let mut text = format!("leader:{}\r\n", status.leadership.leader.map_or(0, |n| n.0));
        for peer in &status.peers {
            let role = match () {
                () if peer.addr.starts_with(EXPORT) => "export",
                () if Some(peer.id) == status.leadership.leader => "leader",
                () if peer.id == me => status.role,
                () if peer.voter => "follower",
                () => "learner",
            };
            text += &format!("node{}:addr={},role={role}", peer.id.0, dialed(&peer.addr));
            if let Some(matched) = peer.matched {
                text += &format!(",matched={matched}");
            }
            if let Some(lag) = peer.lag {
                text += &format!(",lag={lag}");
            }
            if peer.id == me {
                text += &format!(",last={},committed={},applied={}", status.last, status.committed, status.applied);
            }
            text += "\r\n";
        }
        text
    }

    async fn change_member(&self, change: MemberChange, node: u64) -> Result<(), Refused> {
        let node = NodeId(node);
        let change = match change {
            MemberChange::Promote => Change::Promote(node),
            MemberChange::Demote => Change::Demote(node),
            MemberChange::Remove => Change::Remove(node),
            MemberChange::Transfer => Change::Transfer(node),
        };
        self.0.raft.change(change).await.map_err(|e| Refused(format!("ERR {e}").into()))
    }

    fn explain(&self, code: &NodeCode, id: CommandId, request: Request<'_>, db: u8, out: &mut ReplyBuf) {
        match self.0.state.store().snapshot() {
            Ok(snapshot) => code.explain(id, request, db, &snapshot, out),
            Err(e) => out.error(e.to_string()),
        }
    }

    fn memory_usage(&self, db: u8, key: &[u8], _samples: i64) -> Option<u64> {
        let snapshot = self.0.state.store().snapshot().ok()?;
        let entry = snapshot.find(db, self.hash(key), key)?;
        Some(48 + key.len() as u64 + value_bytes(&entry))
    }

    fn debug_object(&self, db: u8, key: &[u8]) -> Option<String> {
        let snapshot = self.0.state.store().snapshot().ok()?;
        let entry = snapshot.find(db, self.hash(key), key)?;
        let (version, bytes) = (entry.version(), value_bytes(&entry));
        Some(format!(
            "Value at:0x0 refcount:1 encoding:raw serializedlength:{bytes} lru:0 lru_seconds_idle:0 epoch:{version}"
        ))
    }

    async fn debug(&self, request: Request<'_>, out: &mut ReplyBuf) -> bool {
        match request.arg(1).to_ascii_lowercase().as_slice() {
            b"set-active-expire" => out.ok(),
            b"digest" => match self.0.state.store().snapshot() {
                // Reads everything
                Ok(snapshot) => match tokio::task::spawn_blocking(move || super::digest::content(&snapshot)).await {
                    Ok(digest) => out.simple(format!("{digest:032x}").as_bytes()),
                    Err(e) => out.error(format!("ERR {e}")),
                },
                Err(e) => out.error(e.to_string()),
            },
            b"effect-digest" => match self.0.state.store().snapshot() {
                Ok(snapshot) => out.simple(format!("{:016x}", snapshot.digest()).as_bytes()),
                Err(e) => out.error(e.to_string()),
            },
            b"plant-panic" if request.len() == 3 => {
                self.0.state.progress.planted.plant(Bug::PanicOn(request.arg(2).to_vec()));
                out.ok();
            }
            b"plant-divergence" if request.len() == 2 => {
                self.0.state.progress.planted.plant(Bug::Diverge);
                out.ok();
            }
            _ => return false,
        }
        true
    }

    fn configure(&self, name: &str, value: &str) -> Result<(), String> {
        let number = || super::config::memory(name, value).map_err(|e| e.to_string());
        let store = self.0.state.store();
        let settings = store.settings();
        match name {
            "window-ms" => settings.ms.store(number()? as i64, Ordering::Relaxed),
            "window-epochs" => settings.epochs.store(number()?, Ordering::Relaxed),
            "window-bytes" => settings.bytes.store(number()?, Ordering::Relaxed),
            "max-write-cost" => self.0.max_write_cost.store(number()?, Ordering::Relaxed),
            "checkpoint-bytes" => self.0.checkpoint_bytes.store(number()?, Ordering::Relaxed),
            _ => {}
        }
        Ok(())
    }

    fn reset_stats(&self) {
        self.0.state.progress.reset_totals();
        self.0.state.progress.expired_keys.store(0, Ordering::Relaxed);
    }

    async fn backup(&self, words: Vec<Vec<u8>>) -> Result<Vec<u8>, String> {
        let this = self.clone();
        let answer = tokio::task::spawn_blocking(move || this.0.backups.answer(&this, &words)).await;
        answer.unwrap_or_else(|_| Err("the backup did not go on".into()))
    }

    async fn checkpoint(&self) -> Result<(), String> {
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || this.checkpoint_now()).await;
        done.map_err(|_| "the checkpoint did not end".to_owned())?.map_err(|e| e.to_string())
    }

    fn replicas_with(&self, epoch: Epoch) -> usize {
        // The log's order is the epochs' order: whoever holds the entry that is applied here now holds this epoch.
        if self.epoch() < epoch {
            return 0;
        }
        let status = self.0.raft.status();
        let others = status.peers.iter().filter(|p| p.id != self.0.raft.node_id());
        others.filter(|p| p.matched.is_some_and(|m| m >= status.applied)).count()
    }

    fn shutdown(&self, checkpoint: bool) {
        let this = self.clone();
        std::thread::spawn(move || {
            if checkpoint && let Err(e) = this.checkpoint_now() {
                tracing::warn!("no checkpoint at shutdown: {e}");
            }
            this.0.stop.notify_one();
        });
    }
}

/// Keys, keys with a deadline, and their average time to live, by database.
fn keyspace<R: Read>(state: &R, _now: Millis) -> Vec<(u8, u64, u64, u64)> {
    let used = (0..crate::base::limits::DATABASES as u8).filter(|&db| state.db_len(db) > 0);
    used.map(|db| (db, state.db_len(db), state.expires_len(db), 0)).collect()
}

fn value_bytes(entry: &Entry<'_>) -> u64 {
    match entry.value() {
        Value::Int(_) => 8,
        Value::Str(s) => s.len() as u64,
        Value::Rope(rope) => rope.len,
        Value::List(c) | Value::Set(c) | Value::Hash(c) | Value::Zset(c) | Value::Stream(c) => {
            c.len * 32 + c.extent.total() * 64
        }
    }
}

/// The hasher under the cluster's seed, once it is known.
pub fn wait_for_seed(state: &SharedState, give_up: Duration) -> Option<KeyHasher> {
    let end = Instant::now() + give_up;
    loop {
        if let Some(seed) = state.progress.hash_seed() {
            return Some(KeyHasher::new(seed));
        }
        if Instant::now() > end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
