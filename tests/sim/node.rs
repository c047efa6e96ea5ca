//! One simulated node: the server from the bytes of its clients to its disks, on a runtime of its own. Dropping the runtime is
//! `kill -9`; not running it is SIGSTOP; what is kept besides is what a machine keeps: disks, and a clock.

use crate::net::{End, HostId, HostNet, Ms, Net, Power, address_of};
use crate::truth::{After, Truth};
use look::apply::digests::Digests;
use look::apply::machine::{Applied, Checkpoint, Committed, Receive, Roster, StateMachine};
use look::base::{Clock, Millis, NodeId, unguessable};
use look::batch::Gather;
use look::command::Table;
use look::disk::LogOptions;
use look::disk::pages::MemoryGenerations;
use look::disk::sim::SimDisk;
use look::gateway::{Gateway, GatewayOptions};
use look::node::Base;
use look::node::answers::at_once;
use look::node::backend::NodeBackend;
use look::node::config::Config;
use look::node::datadir::Owner;
use look::node::keeper::Keeper;
use look::node::machine::NodeMachine;
use look::node::state::SharedState;
use look::raft::{Raft, RaftConfig, Stream, Tasks};
use look::store::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::time::Instant;

/// 2026-01-01, in milliseconds: when all simulations begin.
const BEGIN: Millis = 1_767_225_600_000;

/// The cluster's name among peers.
const CLUSTER: u64 = 77;

/// What a node must show to join.
pub const JOIN_TOKEN: &str = "simulated";

/// What all nodes of a run have in common.
#[derive(Clone)]
pub struct Settings {
    pub nodes: u64,
    /// Entries between two checkpoints, and how often to look.
    pub checkpoint_entries: u64,
    pub checkpoint_look: Ms,
    pub keep_entries: u64,
    pub segment_bytes: u64,
    pub history_bytes: u64,
    /// Time between two heartbeats of a leader; elections wait five to eight times as long.
    pub heartbeat: Ms,
    pub log_ms: Ms,
    pub apply_ms: Ms,
}

/// A node's wall clock: virtual time, and how far it is off.
struct NodeClock {
    net: Net,
    off: Arc<AtomicI64>,
}

impl Clock for NodeClock {
    fn now_ms(&self) -> Millis {
        BEGIN + self.net.now() as Millis + self.off.load(Ordering::Relaxed)
    }
    fn monotonic_us(&self) -> u64 {
        self.net.now() * 1000
    }
}

/// What has come up so far of a process.
#[derive(Default)]
pub struct Parts {
    pub state: OnceLock<Arc<SharedState>>,
    pub raft: OnceLock<Raft>,
    pub backend: OnceLock<NodeBackend>,
    gateway: OnceLock<Gateway<NodeBackend>>,
    /// Why it did not.
    pub failed: OnceLock<String>,
    /// The entry that the newest checkpoint of this process shows.
    pub checkpoint: AtomicU64,
    /// From the begin of a checkpoint's transfer until it is installed.
    pub receiving: AtomicBool,
}

/// A running process.
pub struct Process {
    runtime: Runtime,
    pub parts: Arc<Parts>,
    began: Instant,
    /// Milliseconds that its own timers have seen.
    ran: Ms,
}

pub struct Node {
    pub id: u64,
    pub host: HostId,
    /// One of those that began the cluster.
    founder: bool,
    pub disk: SimDisk,
    pub pages: MemoryGenerations,
    pub process: Option<Process>,
    net: Net,
    table: Arc<Table>,
    truth: Truth,
    settings: Settings,
    /// Made by all nodes.
    checkpoints: Arc<AtomicU64>,
    /// Milliseconds by which its clock is wrong.
    pub clock_off: Arc<AtomicI64>,
    /// Milliseconds that each write of its log takes besides.
    pub disk_slow: Arc<AtomicU64>,
    pub paused: bool,
    /// Its disk is damaged for good: it must not start again.
    pub lost: bool,
    /// Its cluster has removed it.
    pub removed: bool,
    /// It was wiped, or knows that it was removed: it never starts again.
    pub gone: bool,
}

impl Node {
    pub fn new(
        id: u64,
        host: HostId,
        net: Net,
        table: Arc<Table>,
        truth: Truth,
        settings: Settings,
        checkpoints: Arc<AtomicU64>,
    ) -> Node {
        let founder = id <= settings.nodes;
        Node {
            id,
            host,
            founder,
            disk: SimDisk::new(unguessable()),
            pages: MemoryGenerations::default(),
            process: None,
            net,
            table,
            truth,
            settings,
            checkpoints,
            clock_off: Arc::default(),
            disk_slow: Arc::default(),
            paused: false,
            lost: false,
            removed: false,
            gone: false,
        }
    }

    pub fn start(&mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime");
        let parts = Arc::new(Parts::default());
        let began = runtime.block_on(async { Instant::now() });
        let _inside = runtime.enter();
        let boot = Boot {
            id: self.id,
            host: self.host,
            founder: self.founder,
            disk: self.disk.clone(),
            pages: self.pages.clone(),
            clock: Arc::new(NodeClock { net: self.net.clone(), off: self.clock_off.clone() }),
            disk_slow: self.disk_slow.clone(),
            net: self.net.clone(),
            table: self.table.clone(),
            truth: self.truth.clone(),
            settings: self.settings.clone(),
            checkpoints: self.checkpoints.clone(),
            parts: parts.clone(),
        };
        runtime.spawn(async move {
            let parts = boot.parts.clone();
            if let Err(why) = boot.run().await {
                let _ = parts.failed.set(why);
            }
        });
        drop(_inside);
        self.net.set_power(self.host, Power::On);
        self.process = Some(Process { runtime, parts, began, ran: 0 });
    }

    pub fn kill(&mut self) {
        self.net.set_power(self.host, Power::NoProcess);
        self.process = None;
        self.paused = false;
    }

    /// Nothing that was not synced is sure to be there at the next start.
    pub fn cut_power(&mut self) {
        self.net.set_power(self.host, Power::Off);
        self.process = None;
        self.paused = false;
        self.disk.restart();
        self.pages.crash(unguessable());
    }

    /// Lets the process run for `ms` of its own time.
    pub fn run(&mut self, ms: Ms) {
        let Some(process) = self.process.as_mut().filter(|_| !self.paused) else { return };
        let parts = process.parts.clone();
        let _span = tracing::error_span!("node", id = self.id).entered();
        {
            let _inside = process.runtime.enter();
            for (from, stream) in self.net.arrivals(self.host, |from| match from {
                crate::net::CLIENTS => parts.gateway.get().is_some(),
                _ => parts.raft.get().is_some(),
            }) {
                parts.serve(from, stream);
            }
        }
        process.ran += ms;
        let until = process.began + Duration::from_millis(process.ran);
        process.runtime.block_on(async { tokio::time::sleep_until(until).await });
    }

    /// After a pause all its timers are late at once.
    pub fn resume(&mut self, slept: Ms) {
        self.paused = false;
        if let Some(process) = &mut self.process {
            process.ran += slept;
            process.runtime.block_on(async { tokio::time::advance(Duration::from_millis(slept)).await });
        }
    }

    pub fn parts(&self) -> Option<&Parts> {
        self.process.as_ref().map(|p| &*p.parts)
    }
}

impl Parts {
    fn serve(&self, from: u64, stream: End) {
        match (from, self.raft.get(), self.gateway.get()) {
            (crate::net::CLIENTS, _, Some(gateway)) => gateway.serve(stream, "client"),
            (_, Some(raft), _) => raft.serve_peer(Box::new(stream) as Box<dyn Stream>),
            _ => {}
        }
    }
}

struct Boot {
    id: u64,
    host: HostId,
    founder: bool,
    disk: SimDisk,
    pages: MemoryGenerations,
    clock: Arc<NodeClock>,
    disk_slow: Arc<AtomicU64>,
    net: Net,
    table: Arc<Table>,
    truth: Truth,
    settings: Settings,
    checkpoints: Arc<AtomicU64>,
    parts: Arc<Parts>,
}

impl Boot {
    /// In the order of `node::start`.
    async fn run(self) -> Result<(), String> {
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let config = Config { max_write_cost: u64::MAX, ..Config::default() };
        let opened = Keeper::open_in(Box::new(self.pages.clone())).map_err(|e| text(&e))?;
        let from_checkpoint = opened.frontier.applied.last.index.0;
        self.parts.checkpoint.store(from_checkpoint, Ordering::Relaxed);
        let (base, machine) = Base::new(&config, opened, self.table.clone(), self.clock.clone());
        let _ = self.parts.state.set(base.state.clone());
        let (state, truth, parts) = (base.state.clone(), self.truth.clone(), self.parts.clone());
        let watched = Watched { node: self.id, machine, state, truth, parts };
        let raft =
            Raft::start_as_tasks(self.raft_config(), Arc::new(self.disk.clone()), Box::new(watched), self.tasks());
        let raft = raft.await.map_err(|e| text(&e))?;
        let _ = self.parts.raft.set(raft.clone());
        let batcher = base.batcher(&config, &raft, &self.owner(), Gather::Nothing, at_once());
        while base.state.progress.hash_seed().is_none() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let hasher = base.state.hasher();
        let backend = NodeBackend(base.finish(&config, raft, batcher, hasher, Path::new("simulated"), None));
        let gateway = Gateway::start(GatewayOptions::default(), backend.clone()).await.map_err(|e| text(&e))?;
        let _ = self.parts.backend.set(backend);
        let _ = self.parts.gateway.set(gateway);
        self.checkpoints().await;
        Ok(())
    }

    fn owner(&self) -> Owner {
        let cluster = "simulated".to_string();
        Owner { node: NodeId(self.id), cluster, cluster_id: CLUSTER, directory: 100 + self.id }
    }

    fn raft_config(&self) -> RaftConfig {
        let id = NodeId(self.id);
        let log = LogOptions {
            segment_bytes: self.settings.segment_bytes,
            history_bytes: self.settings.history_bytes,
            prepare_ahead: false,
            ..LogOptions::new(self.id, unguessable())
        };
        let heartbeat = Duration::from_millis(self.settings.heartbeat);
        let founders = if self.founder { self.settings.nodes } else { 0 };
        let initial = (1..=founders).map(|n| (NodeId(n), address_of(n))).collect();
        RaftConfig {
            initial,
            cluster: Some(CLUSTER),
            join_token: JOIN_TOKEN.into(),
            directory: self.owner().directory,
            keep_entries: self.settings.keep_entries,
            heartbeat,
            election: heartbeat * 5..heartbeat * 8,
            ..RaftConfig::alone(id, log)
        }
    }

    fn tasks(&self) -> Tasks {
        let delay = |usual: Ms, slow: Arc<AtomicU64>| {
            Box::new(move || Duration::from_millis(unguessable() % (usual + 1) + slow.load(Ordering::Relaxed)))
                as Box<dyn Fn() -> Duration + Send + Sync>
        };
        Tasks {
            host: Arc::new(HostNet { net: self.net.clone(), host: self.host }),
            log_delay: delay(self.settings.log_ms, self.disk_slow.clone()),
            apply_delay: delay(self.settings.apply_ms, Arc::default()),
        }
    }

    /// What the checkpoint thread does, by entries.
    async fn checkpoints(&self) {
        let Some(backend) = self.parts.backend.get() else { return };
        loop {
            tokio::time::sleep(Duration::from_millis(self.settings.checkpoint_look)).await;
            let applied = backend.0.state.progress.frontier().applied.last.index.0;
            if applied < self.parts.checkpoint.load(Ordering::Relaxed) + self.settings.checkpoint_entries {
                continue;
            }
            if backend.checkpoint_now().is_ok() {
                self.parts.checkpoint.store(applied, Ordering::Relaxed);
                self.checkpoints.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The node's state machine, watched.
struct Watched {
    node: u64,
    machine: NodeMachine,
    state: Arc<SharedState>,
    truth: Truth,
    parts: Arc<Parts>,
}

impl Watched {
    fn look(&self) {
        let Ok(snapshot) = self.state.store().snapshot().map(|s| (s.epoch().0, s.digest())) else { return };
        let time = self.state.progress.now.load(Ordering::Relaxed);
        let after = After { epoch: snapshot.0, digest: snapshot.1, time };
        self.truth.state(self.node, self.machine.applied().last.index.0, after);
    }
}

impl StateMachine for Watched {
    fn applied(&self) -> Applied {
        self.machine.applied()
    }
    fn roster(&self) -> Arc<Roster> {
        self.machine.roster()
    }
    fn digests(&self) -> Arc<Digests> {
        self.machine.digests()
    }
    fn apply(&mut self, entries: Vec<Committed>) -> Result<(), String> {
        // One by one, so that states can be compared at every entry
        for entry in entries {
            let entry = vec![entry];
            self.truth.applies(self.node, self.machine.applied().last.index.0, &entry);
            self.machine.apply(entry)?;
            self.look();
        }
        Ok(())
    }
    fn checkpoint(&mut self) -> Option<Box<dyn Checkpoint>> {
        self.machine.checkpoint()
    }
    fn receive(&mut self, source: u64) -> Result<Box<dyn Receive>, String> {
        self.parts.receiving.store(true, Ordering::Relaxed);
        self.machine.receive(source)
    }
    fn install(&mut self, meta: Applied, received: Box<dyn Receive>) -> Result<(), String> {
        self.machine.install(meta, received)?;
        self.parts.checkpoint.store(self.machine.applied().last.index.0, Ordering::Relaxed);
        self.parts.receiving.store(false, Ordering::Relaxed);
        self.look();
        Ok(())
    }
}
