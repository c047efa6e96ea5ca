//! # raft: one order for all nodes
//!
//! Owns openraft and its adapters (log storage, state machine, network), the peer protocol and the read index. Promises:
//! an entry reaches apply only when a quorum has it on disk, in the same order everywhere; a read index is handed out only
//! by a leader that a quorum still follows and that has committed an entry of its own term. No openraft type leaves this
//! room, and RESP never enters it.
//!
//! Threads: `look-raft` runs all of openraft, the peer connections and the batcher on one single-threaded runtime;
//! `look-apply` applies; `look-log` writes the log. One write costs the hand-overs gateway → raft → log →
//! raft → apply → gateway, each once a batch; a sole voter's `look-raft` writes itself, and saves two of them. With
//! [`RaftConfig::runtime`] the thread that serves clients is `look-raft` and writes and applies what is small: no hand-over is
//! left (`here.rs`; two cores, `redis-benchmark -t set` with 50 clients at pipeline 1: 34,400 instead of 19,800 a second,
//! 22.7 instead of 33.3 us of CPU each, medians of five, as it was made in 0106a83).

mod agreement;
mod frame;
mod here;
mod identity;
mod link;
mod log_store;
mod machine;
mod members;
mod network;
mod runtime;
mod server;
mod tasks;
mod tls;
mod turns;
mod types;

pub use frame::probe as probe_frames;
pub use tls::{PeerTls, PeerTlsError};

use crate::apply::digests::Digests;
use crate::apply::machine::{Applied, Committed, LogPosition, Roster, StateMachine};
use crate::base::batch::{Batch, Chunk};
use crate::base::histogram::Distribution;
use crate::base::planted::planted;
use crate::base::{LogIndex, Millis, NodeId, mix64};
use crate::disk::{Disk, Log, LogError, LogOptions, urgent};
use frame::{Builder, Kind};
use here::Here;
use identity::Identity;
use link::Link;
pub use link::{Host, Later, Stream};
use log_store::LogStore;
use machine::{Machine, Progress};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::impls::BasicNode;
use openraft::{ReadPolicy, ServerState, SnapshotPolicy};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};
pub use tasks::Tasks;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use turns::{ApplyThread, Queue};
use types::{Proposal, Slot, Types};

pub use members::{Change, ChangeError, Joined, Joiner, join, join_over};

/// How long a read waits for a leader and a quorum before it is refused.
pub const READ_TIMEOUT: Duration = Duration::from_secs(3);
/// How soon it asks again when nobody could answer.
const READ_RETRY: Duration = Duration::from_millis(20);

#[derive(Clone, Debug)]
pub struct RaftConfig {
    pub node: NodeId,
    /// Where peers reach the nodes that begin the cluster, this one among them. One node alone needs no address.
    /// Empty for a node that joined one.
    pub initial: Vec<(NodeId, String)>,
    /// The cluster's name for its peers; `None`: it follows from `initial`.
    pub cluster: Option<u64>,
    /// Random name of this node's data directory; 0: not told to peers.
    pub directory: u64,
    /// Where peers reach this node, when the membership does not say.
    pub advertise: Option<String>,
    /// What a node must show to join; empty: nobody joins.
    pub join_token: String,
    /// Where this node listens for peers; `None`: alone.
    pub listen: Option<std::net::SocketAddr>,
    /// `None`: peers speak in clear.
    pub tls: Option<PeerTls>,
    pub log: LogOptions,
    pub heartbeat: Duration,
    /// A follower that hears no leader for the end of this range, and a time in it besides, stands for election.
    pub election: Range<Duration>,
    /// Goes on when its cluster has dismissed it, and does not ask whether its state is that of the others.
    pub export: bool,
    /// Entries on their way at once.
    pub in_flight: usize,
    /// Entries kept in the log behind a checkpoint, for followers that are a little late.
    pub keep_entries: u64,
    /// Where Raft runs instead of on a thread of its own. Small batches are written and applied there, too.
    pub runtime: Option<tokio::runtime::Handle>,
}

impl RaftConfig {
    pub fn alone(node: NodeId, log: LogOptions) -> Self {
        RaftConfig {
            node,
            initial: vec![(node, String::new())],
            cluster: None,
            directory: 0,
            advertise: None,
            join_token: String::new(),
            listen: None,
            tls: None,
            log,
            heartbeat: Duration::from_millis(100),
            election: Duration::from_millis(500)..Duration::from_millis(800),
            export: false,
            in_flight: 8,
            keep_entries: 4096,
            runtime: None,
        }
    }

    /// How the log is opened for a machine that has what its checkpoint says. Nobody else can need that of a node that no peer reaches;
    /// elsewhere the log has it for followers that are a little late, who would be sent pages in its place.
    fn log_behind(&self, machine: &dyn StateMachine) -> LogOptions {
        let covered = if self.listen.is_none() { machine.applied().last.index.0 } else { 0 };
        LogOptions { covered, ..self.log.clone() }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Log(#[from] LogError),
    /// The checkpoint that allowed the log to be purged is not there.
    #[error(
        "the log begins after entry {purged}, but the newest checkpoint ends at entry {restored}: a checkpoint is missing, or an \
         older one was put back. Restore the whole directory of this node, or in a cluster start it empty"
    )]
    StateBehindLog { purged: u64, restored: u64 },
    #[error("peer address: {0}")]
    Listen(String),
    #[error("consensus: {0}")]
    Raft(String),
    #[error("start: {0}")]
    Io(#[from] std::io::Error),
}

/// Why a strong read cannot be answered now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("no leader is known")]
    NoLeader,
    #[error("no quorum confirms the leader")]
    NoQuorum,
    #[error("this node has stopped: {0}")]
    Stopped(String),
}

/// Who leads, as far as this node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Leadership {
    pub leader: Option<NodeId>,
    pub term: u64,
    /// This node leads.
    pub me: bool,
}

/// What `LOOK.CLUSTER` shows.
#[derive(Clone, Debug, Default)]
pub struct Status {
    pub role: &'static str,
    pub leadership: Leadership,
    /// The oldest entry that the log still has.
    pub first: LogIndex,
    pub last: LogIndex,
    pub committed: LogIndex,
    pub applied: LogIndex,
    /// All members, this one among them.
    pub peers: Vec<PeerStatus>,
    /// Why this node takes no writes, if so.
    pub failure: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct PeerStatus {
    pub id: NodeId,
    pub addr: String,
    pub voter: bool,
    /// Newest entry known to be on its disk; known to the leader only.
    pub matched: Option<LogIndex>,
    /// Entries it lacks.
    pub lag: Option<u64>,
}

/// What an entry's way takes.
pub struct Times {
    /// From its proposal, on the leader, until it goes to apply.
    pub commit: Distribution,
    /// A durable write of the log.
    pub sync: Distribution,
    /// A set of entries.
    pub apply: Distribution,
}

/// Takes chunks that a follower's gateway sent here. False: this node does not lead `term`, or has no room.
pub trait ForwardSink: Send + Sync {
    fn forwarded(&self, from: NodeId, term: u64, chunks: Vec<Chunk>) -> bool;
    /// An entry proposed in `term` was not taken: no quorum has answered this leader of late, or it leads no more.
    fn refused(&self, term: u64, batch: &Batch);
    /// This node takes part no more.
    fn stopped(&self);
    /// The clock that stamps this node's batches.
    fn now_ms(&self) -> Millis;
}

/// What a strong read must see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadPoint {
    pub index: LogIndex,
    /// The leader's clock as it answered; None: this node leads, and the clock is its own.
    pub leader_ms: Option<Millis>,
}

/// What a thread that serves clients, too, writes and applies itself ([`Batch::weight`]: some 900 SETs of 64 bytes, half a millisecond). Paired medians
/// against a third of it (`redis-benchmark -t set -r 1000000 -d 64`, 50 clients): SET at pipeline 16, whose wave goes in one batch then, is 9 to 17 % faster,
/// at pipeline 64 5 % slower to 1 % faster.
const HERE_WEIGHT_MAX: usize = 384 << 10;

type OpenRaft = openraft::Raft<Types, Machine>;

struct Node {
    id: u64,
    identity: Arc<Identity>,
    join_token: String,
    advertise: Option<String>,
    /// One node joins at a time: the next id follows from the state.
    joining: tokio::sync::Mutex<()>,
    /// Why this node must take part no more.
    dismissed: watch::Sender<Option<String>>,
    raft: OpenRaft,
    store: LogStore,
    progress: Arc<Progress>,
    digests: Arc<Digests>,
    /// Why this node must not serve, if so.
    unfit: OnceLock<String>,
    queue: Queue,
    leadership: watch::Sender<Leadership>,
    /// Of it, what is asked for every chunk: whether this node leads.
    leads: AtomicBool,
    /// While this node is the only voter and leads: its term. Else `u64::MAX`.
    alone_since: AtomicU64,
    sink: OnceLock<Arc<dyn ForwardSink>>,
    links: Mutex<BTreeMap<u64, Links>>,
    reads: Mutex<Reads>,
    slots: Arc<Semaphore>,
    in_flight: usize,
    runtime: tokio::runtime::Handle,
}

/// Two links a peer: chunks must not wait behind reads.
#[derive(Clone)]
struct Links {
    addr: String,
    chunks: Link,
    reads: Link,
}

#[derive(Default)]
struct Reads {
    waiting: Vec<oneshot::Sender<Result<ReadPoint, ReadError>>>,
    round_runs: bool,
    stopped: bool,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(|e| e.into_inner())
}

/// This node's part in the cluster; clones share it.
#[derive(Clone)]
pub struct Raft {
    node: Arc<Node>,
    threads: Arc<Mutex<Option<Threads>>>,
}

type Wait = Box<dyn FnOnce() + Send>;

struct Threads {
    stop: oneshot::Sender<()>,
    /// Returns when Raft has ended.
    ended: Wait,
    apply: ApplyThread,
}

/// The membership of a new cluster, as a state keeps it.
pub fn founding(initial: &[(NodeId, String)]) -> Result<bytes::Bytes, StartError> {
    let ids = initial.iter().map(|(id, _)| id.0).collect();
    let nodes: BTreeMap<u64, BasicNode> =
        initial.iter().map(|(id, addr)| (id.0, BasicNode { addr: addr.clone() })).collect();
    let membership = types::RaftMembership::new(vec![ids], nodes).map_err(|e| StartError::Raft(e.to_string()))?;
    Ok(types::membership_bytes(&membership))
}

/// The same for all nodes that were started with the same initial cluster.
pub fn cluster_id(initial: &[(NodeId, String)]) -> u64 {
    let mut sorted = initial.to_vec();
    sorted.sort();
    sorted
        .iter()
        .fold(0x4c4f_4f4b, |hash, (id, addr)| mix64(hash ^ mix64(id.0 ^ xxhash_rust::xxh3::xxh3_64(addr.as_bytes()))))
}

fn openraft_config(config: &RaftConfig) -> Result<Arc<openraft::Config>, StartError> {
    let ms = |d: Duration| d.as_millis() as u64;
    let config = openraft::Config {
        cluster_name: "look".into(),
        heartbeat_interval: ms(config.heartbeat),
        election_timeout_min: ms(config.election.start),
        election_timeout_max: ms(config.election.end),
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: config.keep_entries,
        // Behind by this much, a follower gets a checkpoint only if the log no longer has what it lacks
        replication_lag_threshold: u64::MAX / 4,
        install_snapshot_timeout: 120_000,
        api_channel_size: Some(1024),
        enable_pre_vote: Some(true),
        // Followers get entries before the leader's own disk has them: one that led on in its term after a restart could have
        // lost entries that its peers hold, and put others in their places, with the same term and index
        enable_leader_restore: Some(planted("a leader leads on in its term")),
        ..openraft::Config::default()
    };
    config.validate().map(Arc::new).map_err(|e| StartError::Raft(e.to_string()))
}

/// The log must not have let go of entries that the state lacks.
fn check_state_reaches_log(store: &LogStore, applied: &Applied) -> Result<(), StartError> {
    let (purged, restored) = (store.log().state().purged.index, applied.last.index.0);
    if purged > restored { Err(StartError::StateBehindLog { purged, restored }) } else { Ok(()) }
}

impl Raft {
    /// Opens the log, starts the threads and takes part. Blocks until this node can be asked (not until there is a leader).
    pub fn start(config: RaftConfig, disk: Arc<dyn Disk>, machine: Box<dyn StateMachine>) -> Result<Raft, StartError> {
        let (log_here, apply_here) = match config.runtime {
            None => (Here::always(), Here::never()),
            Some(_) => (Here::up_to(HERE_WEIGHT_MAX), Here::up_to(HERE_WEIGHT_MAX)),
        };
        let store = LogStore::new(Log::open(disk, config.log_behind(&*machine))?, log_here);
        check_state_reaches_log(&store, &machine.applied())?;
        let digests = machine.digests();
        let (apply, progress, applied) = ApplyThread::start(machine, apply_here)?;
        let (machine, queue) = (apply.machine(progress.clone(), applied), apply.queue());
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (runtime, handle) = match config.runtime.clone() {
            Some(shared) => (None, shared),
            None => {
                let own = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let handle = own.handle().clone();
                (Some(own), handle)
            }
        };
        let shared = handle.clone();
        let main = async move {
            let host = Arc::new(link::Machine);
            let parts = Parts { config, store, progress, digests, queue, machine, handle, host };
            match parts.start().await {
                Ok(node) => {
                    let _ = ready.send(Ok(node.clone()));
                    let _ = stopped.await;
                    let _ = node.raft.shutdown().await;
                    node.end();
                }
                Err(e) => drop(ready.send(Err(e))),
            }
        };
        let ended: Wait = match runtime {
            Some(runtime) => {
                let thread = urgent::spawn("look-raft", move || runtime.block_on(main))?;
                Box::new(move || drop(thread.join()))
            }
            None => {
                let task = shared.spawn(main);
                Box::new(move || drop(shared.block_on(task)))
            }
        };
        let node = is_ready.recv().map_err(|_| StartError::Raft("the raft thread ended".into()))??;
        let threads = Threads { stop, ended, apply };
        Ok(Raft { node, threads: Arc::new(Mutex::new(Some(threads))) })
    }

    /// Stops taking part, applies what is queued, closes the log. Blocks; not for async tasks. Other clones see errors from now on.
    pub fn shutdown(&self) {
        let Some(mut threads) = lock(&self.threads).take() else { return };
        let _ = threads.stop.send(());
        (threads.ended)();
        threads.apply.stop();
        if let Err(e) = self.node.store.log().flush() {
            tracing::warn!("closing the log: {e}");
        }
    }

    pub fn node_id(&self) -> NodeId {
        NodeId(self.node.id)
    }
    pub fn cluster_id(&self) -> u64 {
        self.node.identity.cluster
    }
    /// What the applied state knows of the nodes.
    pub fn roster(&self) -> Arc<Roster> {
        self.node.progress.roster()
    }
    pub fn leadership(&self) -> Leadership {
        *self.node.leadership.borrow()
    }
    pub fn watch_leadership(&self) -> watch::Receiver<Leadership> {
        self.node.leadership.subscribe()
    }
    pub fn is_leader(&self) -> bool {
        self.node.leads.load(Ordering::Acquire)
    }
    pub fn leader(&self) -> Option<NodeId> {
        self.leadership().leader
    }
    /// The newest entry that this node has applied.
    pub fn applied(&self) -> LogIndex {
        self.node.progress.index()
    }
    /// The newest entry that this node knows to be committed.
    pub fn committed(&self) -> LogIndex {
        LogIndex(self.node.raft.metrics().borrow_watched().local_committed.map_or(0, |id| id.index + 1))
    }
    pub fn watch_applied(&self) -> watch::Receiver<LogIndex> {
        self.node.progress.subscribe()
    }
    /// Why this node takes no writes any more, if so.
    pub fn failure(&self) -> Option<String> {
        self.node.failure().or_else(|| self.node.store.log().failure().map(|f| f.to_string()))
    }
    /// Why this node must answer nobody, if so. Begins with an error code.
    pub fn unfit(&self) -> Option<&str> {
        self.node.unfit.get().map(String::as_str)
    }
    /// Part of what this node must show is damaged: it takes part no more.
    pub fn damaged(&self, why: String) {
        let node = self.node.clone();
        self.spawn(async move { node.retire(format!("DAMAGED {why}")).await });
    }
    /// Returns when this node can apply no more, and says why.
    pub async fn failed(&self) -> String {
        self.node.progress.failed().await
    }
    /// Waits until `index` is applied here.
    pub async fn wait_applied(&self, index: LogIndex) -> Result<(), ReadError> {
        self.node.wait_applied(index).await
    }
    /// Runs a task on the raft thread: whoever works with every batch saves a hand-over there.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.node.runtime.spawn(task);
    }
    /// Where chunks go that followers send here. Once a start.
    pub fn set_sink(&self, sink: Arc<dyn ForwardSink>) {
        let _ = self.node.sink.set(sink);
    }

    /// One of [`RaftConfig::in_flight`] places for an entry on its way. `alone`: only once nothing else is on its way.
    pub async fn slot(&self, alone: bool) -> Option<InFlight> {
        let places = self.node.in_flight as u32;
        let mut permit = self.node.slots.clone().acquire_many_owned(if alone { places } else { 1 }).await.ok()?;
        drop(permit.split(permit.num_permits().saturating_sub(1)));
        Some(InFlight(permit))
    }

    /// Proposes an entry as leader of `term`; the slot is freed when it has been handed to apply or is known to be refused.
    /// A refusal is told to the sink; what became of an accepted entry is seen by whoever watches what is applied.
    pub async fn propose(&self, term: u64, batch: Arc<Batch>, slot: InFlight) {
        let leader = openraft::vote::leader_id_std::CommittedLeaderId::new(term);
        let sink = self.node.sink.get().cloned();
        let refused = {
            let batch = batch.clone();
            Box::new(move || sink.iter().for_each(|sink| sink.refused(term, &batch)))
        };
        let slot = Slot { permit: slot.0, refused, proposed: Instant::now(), progress: self.node.progress.clone() };
        let write = self.node.raft.write(Proposal(batch)).with_leader(leader).responder(slot);
        if let Err(e) = write.await {
            tracing::debug!("proposal refused: {e}");
        }
    }

    /// Sends chunks to the leader. `Ok(false)`: it does not lead that term, or has no room.
    pub async fn forward(&self, leader: NodeId, term: u64, chunks: &[Chunk]) -> std::io::Result<bool> {
        let links = self.node.links(leader.0).ok_or(std::io::ErrorKind::NotConnected)?;
        let mut b = Builder::new(Kind::Forward, 0, 8 + chunks.iter().map(Chunk::encoded_len).sum::<usize>());
        b.u64(term);
        chunks.iter().for_each(|c| {
            c.write_to(|piece| {
                b.bytes(piece);
            })
        });
        let response = links.chunks.call(b, Duration::from_secs(3)).await?;
        Ok(response.payload.first() == Some(&1))
    }

    /// True when this node alone makes the cluster, leads, and has applied an entry of its own term: then its newest
    /// published root is what a strong read must see, at once. Two atomic loads.
    pub fn reads_are_local(&self) -> bool {
        self.node.reads_are_local()
    }

    /// Waits until everything acknowledged before this call is applied here. One round for all that wait at the same time.
    pub async fn read_index(&self) -> Result<ReadPoint, ReadError> {
        if self.node.reads_are_local() || planted("a read asks nobody") {
            return Ok(ReadPoint { index: self.applied(), leader_ms: None });
        }
        let point = self.node.read_round().await?;
        if !planted("a read does not wait for apply") {
            self.node.wait_applied(point.index).await?;
        }
        Ok(point)
    }

    /// Runs `work` where it may wait for a disk; the simulation has no threads for that.
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> std::io::Result<T> {
        link::blocking(&*self.node.identity.host, work).await
    }

    /// Everything up to `position` is in a durable checkpoint: the log may let go of it.
    pub fn checkpointed(&self, position: LogPosition) {
        if self.node.identity.transfers.load(Ordering::Acquire) > 0 {
            return tracing::debug!("a checkpoint is on its way to a peer; the log stays until the next one");
        }
        let raft = self.node.raft.clone();
        tracing::debug!("checkpoint at {position:?}");
        self.node.runtime.spawn(async move {
            if let Err(e) = raft.trigger().snapshot().await {
                tracing::debug!("telling of a checkpoint: {e}");
            }
        });
    }

    /// Entries by index, those behind a checkpoint too as far as they are kept; up to about `bytes_max`, or fewer.
    /// Reads the disk: not for async tasks.
    pub fn history(&self, range: Range<LogIndex>, bytes_max: usize) -> Result<Vec<Committed>, LogError> {
        let records = self.node.store.log().read(range.start.0..range.end.0, bytes_max)?;
        let mut entries = records.into_iter().map(types::entry_of).collect::<Result<Vec<_>, _>>()?;
        if entries.is_empty() {
            // What a quorum has on disk is applied here, also before this node's own disk has it
            entries = self.node.store.in_memory(range.start.0..range.end.0, bytes_max);
        }
        let committed = |entry: types::RaftEntry| Committed {
            position: types::log_position(types::position(&entry.log_id)),
            body: types::body_of(entry.payload),
        };
        Ok(entries.into_iter().map(committed).collect())
    }

    /// The oldest entry that [`Raft::history`] finds.
    pub fn history_since(&self) -> LogIndex {
        let (applied, log) = (self.applied(), self.node.store.log());
        // A peer's checkpoint is in place before the log knows what it leaves out
        if applied.0 > log.state().last.index { applied.next() } else { LogIndex(log.oldest()) }
    }

    /// What took how long since the start.
    pub fn times(&self) -> Times {
        let progress = &self.node.progress;
        Times {
            commit: progress.commits.copy(),
            sync: self.node.store.log().sync_times(),
            apply: progress.applies.copy(),
        }
    }

    pub fn status(&self) -> Status {
        let metrics = self.node.raft.metrics().borrow_watched().clone();
        let last = metrics.last_log_index.map_or(0, |i| i + 1);
        let membership = metrics.membership_config.membership();
        let voters: Vec<u64> = membership.voter_ids().collect();
        let peer = |(id, node): (&u64, &BasicNode)| {
            let replicated = metrics.replication.as_ref().and_then(|r| r.get(id));
            let matched = replicated.map(|at| at.as_ref().map_or(0, |at| at.index + 1));
            let matched = if *id == self.node.id { Some(last) } else { matched };
            PeerStatus {
                id: NodeId(*id),
                addr: node.addr.clone(),
                voter: voters.contains(id),
                matched: matched.map(LogIndex),
                lag: matched.map(|m| last.saturating_sub(m)),
            }
        };
        let role = match metrics.state {
            ServerState::Leader => "leader",
            ServerState::Follower => "follower",
            ServerState::Candidate => "candidate",
            ServerState::Learner => "learner",
            ServerState::Shutdown => "stopped",
        };
        Status {
            role,
            leadership: self.leadership(),
            first: LogIndex(metrics.purged.map_or(0, |id| id.index + 1) + 1),
            last: LogIndex(last),
            committed: LogIndex(metrics.local_committed.map_or(0, |id| id.index + 1)),
            applied: self.applied(),
            peers: membership.nodes().map(peer).collect(),
            failure: self.failure(),
        }
    }
}

/// A place among the entries in flight.
pub struct InFlight(OwnedSemaphorePermit);

/// What the raft thread begins with.
struct Parts {
    config: RaftConfig,
    store: LogStore,
    progress: Arc<Progress>,
    digests: Arc<Digests>,
    queue: Queue,
    machine: Machine,
    handle: tokio::runtime::Handle,
    host: Arc<dyn Host>,
}

impl Parts {
    async fn start(self) -> Result<Arc<Node>, StartError> {
        let config = self.config;
        let id = config.node.0;
        let identity = Arc::new(Identity {
            cluster: config.cluster.unwrap_or_else(|| cluster_id(&config.initial)),
            node: id,
            directory: config.directory,
            tls: config.tls.clone(),
            progress: self.progress.clone(),
            host: self.host,
            transfers: AtomicUsize::new(0),
        });
        let listener = match config.listen {
            Some(addr) => {
                let bound = tokio::net::TcpListener::bind(addr).await;
                Some(bound.map_err(|e| StartError::Listen(format!("{addr}: {e}")))?)
            }
            None => None,
        };
        let peers = network::Peers(identity.clone());
        let raft = OpenRaft::new(id, openraft_config(&config)?, peers, self.store.clone(), self.machine);
        let raft = raft.await.map_err(|e| StartError::Raft(e.to_string()))?;
        let node = Arc::new(Node {
            id,
            identity,
            join_token: config.join_token.clone(),
            advertise: config.advertise.clone(),
            joining: tokio::sync::Mutex::default(),
            dismissed: watch::Sender::new(None),
            raft,
            store: self.store,
            progress: self.progress,
            digests: self.digests.clone(),
            unfit: OnceLock::new(),
            queue: self.queue,
            leadership: watch::Sender::new(Leadership::default()),
            leads: AtomicBool::new(false),
            alone_since: AtomicU64::new(u64::MAX),
            sink: OnceLock::new(),
            links: Mutex::default(),
            reads: Mutex::default(),
            slots: Arc::new(Semaphore::new(config.in_flight)),
            in_flight: config.in_flight,
            runtime: self.handle,
        });
        if let Some(listener) = listener {
            tokio::spawn(server::serve(listener, node.clone()));
        }
        tokio::spawn(observe(node.clone()));
        if !config.export {
            tokio::spawn(members::watch_standing(node.clone()));
            tokio::spawn(agreement::watch(node.clone(), self.digests));
        }
        node.begin(&config).await?;
        Ok(node)
    }
}

/// Follows what openraft says of leadership and membership.
async fn observe(node: Arc<Node>) {
    let mut metrics = node.raft.server_metrics();
    // Changes with every entry: looked at only between an election and the first answers of a quorum
    let mut all = node.raft.metrics();
    loop {
        let (leadership, alone, unconfirmed) = {
            let m = metrics.borrow_watched();
            let leads = m.state == ServerState::Leader && m.vote.committed;
            let alone = leads && m.membership_config.membership().voter_ids().eq([node.id]);
            // openraft refuses all writes until a quorum has answered the new leader
            let unconfirmed = leads && !alone && all.borrow_watched().last_quorum_acked.is_none();
            // A vote that is not committed is a candidacy
            let leader = m.current_leader.filter(|_| m.vote.committed && !unconfirmed).map(NodeId);
            let leadership = Leadership { leader, term: m.vote.leader_id.term, me: leads && !unconfirmed };
            (leadership, alone, unconfirmed)
        };
        node.alone_since.store(if alone { leadership.term } else { u64::MAX }, Ordering::Release);
        node.store.set_sole(alone);
        node.leads.store(leadership.me, Ordering::Release);
        node.leadership.send_if_modified(|old| std::mem::replace(old, leadership) != leadership);
        let ended = tokio::select! {
            changed = metrics.changed() => changed.is_err(),
            changed = all.changed(), if unconfirmed => changed.is_err(),
        };
        if ended {
            // It ends by itself when the log can write no more
            if let Some(why) = node.store.log().failure() {
                node.progress.fail(format!("{why}; make room or mend the disk, then restart this node"));
            }
            return node.end();
        }
    }
}

impl Node {
    /// The first start of the first nodes makes the cluster; every later one finds it made.
    async fn begin(&self, config: &RaftConfig) -> Result<(), StartError> {
        let error = |e: &dyn std::fmt::Display| StartError::Raft(e.to_string());
        if !self.raft.is_initialized().await.map_err(|e| error(&e))? {
            if config.initial.is_empty() {
                // It joined: its leader tells it everything
                return Ok(());
            }
            let members: BTreeMap<u64, BasicNode> =
                config.initial.iter().map(|(id, addr)| (id.0, BasicNode { addr: addr.clone() })).collect();
            // All initial nodes write the same first entry; a node that was faster is as good. It stands for election
            // at once: a second candidacy would only make the answers to the first one void
            if let Err(e) = self.raft.initialize(members).await {
                tracing::debug!("initial membership: {e}");
            }
        } else if self.raft.voter_ids().eq([self.id]) {
            // Nobody else could lead
            self.raft.trigger().elect(false).await.map_err(|e| error(&e))?;
        }
        Ok(())
    }

    /// A majority has another state than this node at entry `index`: it takes part no more.
    async fn diverged(&self, index: LogIndex) {
        let why = format!(
            "DIVERGED the state of this node is not the majority's at entry {index}; it serves no more. Start it with an empty \
             directory, so that it takes the state from its peers"
        );
        self.retire(why).await;
    }

    /// Answers nobody from now on, and neither votes nor takes entries.
    async fn retire(&self, why: String) {
        if self.unfit.set(why.clone()).is_err() {
            return;
        }
        self.progress.fail(why);
        let _ = self.raft.shutdown().await;
        self.end();
    }

    /// The raft thread ends: nobody must wait for it.
    fn end(&self) {
        self.alone_since.store(u64::MAX, Ordering::Release);
        self.leads.store(false, Ordering::Release);
        self.leadership.send_replace(Leadership::default());
        let mut reads = lock(&self.reads);
        reads.stopped = true;
        reads.waiting.clear();
        if let Some(sink) = self.sink.get() {
            sink.stopped();
        }
    }

    fn reads_are_local(&self) -> bool {
        self.progress.term() >= self.alone_since.load(Ordering::Acquire)
    }

    fn stopped(&self) -> ReadError {
        ReadError::Stopped(self.failure().unwrap_or_else(|| "shut down".into()))
    }

    async fn wait_applied(&self, index: LogIndex) -> Result<(), ReadError> {
        if self.progress.index() >= index {
            return Ok(());
        }
        let mut applied = self.progress.subscribe();
        let wait = applied.wait_for(|at| *at >= index);
        match tokio::time::timeout(READ_TIMEOUT, wait).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(self.stopped()),
            Err(_) if self.failure().is_some() => Err(self.stopped()),
            Err(_) => Err(ReadError::NoQuorum),
        }
    }

    /// Why reads and writes end here, if so.
    fn failure(&self) -> Option<String> {
        self.dismissed.borrow().clone().or_else(|| self.progress.failure())
    }

    /// The index that a read begun now must see. A caller that comes while a round runs waits for the next one: a round
    /// proves only what was true after it began.
    async fn read_round(self: &Arc<Self>) -> Result<ReadPoint, ReadError> {
        let (tx, rx) = oneshot::channel();
        {
            let mut reads = lock(&self.reads);
            if reads.stopped {
                return Err(self.stopped());
            }
            reads.waiting.push(tx);
            if !std::mem::replace(&mut reads.round_runs, true) {
                self.runtime.spawn(self.clone().read_rounds());
            }
        }
        rx.await.map_err(|_| self.stopped())?
    }

    async fn read_rounds(self: Arc<Self>) {
        loop {
            let waiting = {
                let mut reads = lock(&self.reads);
                if reads.waiting.is_empty() {
                    reads.round_runs = false;
                    return;
                }
                std::mem::take(&mut reads.waiting)
            };
            let result = self.ask_until_answered().await;
            for waiter in waiting {
                let _ = waiter.send(result.clone());
            }
        }
    }

    /// While leadership changes hands there may be nobody to ask: a read waits for it as a write does.
    async fn ask_until_answered(&self) -> Result<ReadPoint, ReadError> {
        let give_up = tokio::time::Instant::now() + READ_TIMEOUT;
        let mut changes = self.leadership.subscribe();
        loop {
            changes.mark_unchanged();
            let asked = tokio::select! {
                asked = tokio::time::timeout_at(give_up, self.ask_for_index()) => asked.unwrap_or(Err(ReadError::NoQuorum)),
                // Whoever was asked may never answer now
                _ = changes.changed() => continue,
            };
            let error = match asked {
                Ok(point) => return Ok(point),
                Err(error) => error,
            };
            if tokio::time::Instant::now() + READ_RETRY >= give_up || self.failure().is_some() {
                return Err(error);
            }
            let _ = tokio::time::timeout(READ_RETRY, changes.changed()).await;
        }
    }

    async fn ask_for_index(&self) -> Result<ReadPoint, ReadError> {
        let leadership = *self.leadership.borrow();
        let leader = leadership.leader.ok_or(ReadError::NoLeader)?;
        if leader.0 == self.id {
            let here = |index| ReadPoint { index, leader_ms: None };
            if planted("a leader asks no quorum") {
                return Ok(here(self.progress.index()));
            }
            let round = self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await;
            let linearizer = round.map_err(|e| match e.forward_to_leader() {
                Some(_) => ReadError::NoLeader,
                None => ReadError::NoQuorum,
            })?;
            if planted("a new leader reads before its first entry") {
                let committed = self.raft.metrics().borrow_watched().local_committed;
                return Ok(here(LogIndex(committed.map_or(0, |id| id.index + 1))));
            }
            return Ok(here(LogIndex(linearizer.read_log_id().log_id().index + 1)));
        }
        let links = self.links(leader.0).ok_or(ReadError::NoLeader)?;
        let request = Builder::new(Kind::ReadIndex, 0, 0);
        let frame = links.reads.call(request, READ_TIMEOUT).await.map_err(|_| ReadError::NoQuorum)?;
        let mut answer = types::Reader(&frame.payload);
        let (index, now) = (answer.u64(), answer.u64());
        let index = index.map(LogIndex).ok_or(ReadError::NoQuorum)?;
        Ok(ReadPoint { index, leader_ms: now.map(|now| now as Millis) })
    }

    /// Links to a member, made anew when its address changed.
    fn links(&self, to: u64) -> Option<Links> {
        let membership = self.raft.server_metrics().borrow_watched().membership_config.clone();
        let addr = membership.membership().get_node(&to)?.addr.clone();
        let mut links = lock(&self.links);
        if links.get(&to).is_none_or(|l| l.addr != addr) {
            let link = || Link::new(addr.clone(), self.identity.clone(), to);
            let (chunks, reads) = (link(), link());
            links.insert(to, Links { addr, chunks, reads });
        }
        links.get(&to).cloned()
    }
}
