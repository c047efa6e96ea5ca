//! # node: the wiring of one node
//!
//! Order of start: data directory (locked), newest checkpoint, code table, log and Raft (which applies what the log holds after the
//! checkpoint), batcher, gateway. Order of stop: gateway, Raft, log; a clean stop needs no checkpoint. Holds no logic of its own: what the
//! gateway asks of a node is in [`backend`], what the log asks in [`machine`], when it makes checkpoints in [`checkpointing`].

pub mod answers;
pub mod backend;
pub mod backup;
pub mod checkpointing;
pub mod code;
pub mod config;
pub mod datadir;
pub mod digest;
pub mod encryption;
pub mod export;
pub mod keeper;
pub mod machine;
pub mod reads;
pub mod state;
pub mod tls;
pub mod verify;

use crate::admin::Admin;
use crate::apply::{Answers, Own};
use crate::base::batch::{Chunk, ChunkBuilder, handler};
use crate::base::members::EXPORT;
use crate::base::{Clock, Epoch, GatewayId, KeyHasher, NodeId, SystemClock, random};
use crate::batch::{Batcher, BatcherConfig, Gather, Lull};
use crate::command::{Table, builtin};
use crate::disk::seal::Sealer;
use crate::disk::{LogError, LogOptions, RealDisk};
use crate::gateway::{Gateway, GatewayOptions, TlsListen};
use crate::history::History;
use crate::lang::engine::Engine;
use crate::raft::{Joiner, PeerTls, Raft, RaftConfig, StartError};
use backend::{Node, NodeBackend, RaftLog};
use code::NodeCode;
use config::{Config, EngineChoice};
use datadir::{DataDir, DataDirError, Owner, REPAIR};
use keeper::Keeper;
use machine::NodeMachine;
use state::SharedState;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tls::Identity;
use tokio::runtime::RuntimeFlavor;

/// Name of the threads that serve clients.
const WORKER: &str = "look-gateway";
/// How often a start that waits for its cluster says so.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long connections may finish what they have begun at a stop.
const GRACE: Duration = Duration::from_secs(5);

/// Why a node could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error(transparent)]
    DataDir(#[from] datadir::DataDirError),
    #[error(transparent)]
    Keeper(#[from] keeper::KeeperError),
    #[error(transparent)]
    Raft(#[from] crate::raft::StartError),
    #[error(transparent)]
    Gateway(#[from] crate::gateway::GatewayError),
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    #[error("this build is broken: {0}")]
    Builtin(#[from] builtin::BuiltinError),
    #[error("'{0}' is no address to listen on; give an IP address to --bind")]
    Bind(String),
    #[error(transparent)]
    Encryption(#[from] encryption::EncryptionError),
    #[error("cannot join the cluster at {0}: {1}")]
    Join(String, std::io::Error),
    #[error("cannot show epoch {0}: {1}")]
    Export(Epoch, String),
    #[error("the data in {0} is damaged: {1}. {REPAIR}")]
    Damaged(PathBuf, String),
    /// The cluster wants this node no more.
    #[error("{0}")]
    Dismissed(String),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// The threads that serve clients. One alone takes its tasks from a plain queue, in their order: tokio's scheduler for many gives
/// each a short queue that 500 clients overflow, and those who did not fit wait long.
struct Workers {
    handle: tokio::runtime::Handle,
    lull: Arc<Lull>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    /// Keeps the runtime.
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Workers {
    fn start(threads: usize) -> Result<Workers, std::io::Error> {
        use tokio::runtime::Builder;
        let lull = Arc::new(Lull::default());
        let (parks, wakes) = (lull.clone(), lull.clone());
        let mut builder = if threads == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
        if threads > 1 {
            builder.worker_threads(threads);
        }
        let runtime = builder
            .thread_name(WORKER)
            .on_thread_park(move || parks.thread_parks())
            .on_thread_unpark(move || wakes.thread_wakes())
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let work = move || drop(runtime.block_on(stopped));
        let thread = std::thread::Builder::new().name(WORKER.into()).spawn(work)?;
        Ok(Workers { handle, lull, stop: Some(stop), thread: Some(thread) })
    }

    /// How apply answers the clients.
    fn answers(&self) -> Answers {
        match &self.thread {
            Some(thread) if self.handle.runtime_flavor() == RuntimeFlavor::CurrentThread => {
                answers::together(&self.handle, thread.thread().id())
            }
            _ => answers::at_once(),
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs a node until it is told to stop.
pub fn serve(mut config: Config) -> Result<(), NodeError> {
    start_tracing();
    let workers = Workers::start(config.io_threads)?;
    let runtime = &workers.handle;
    let identity = config.uses_tls().then(|| Identity::load(&config)).transpose()?;
    let options = gateway_options(&config, identity.as_ref())?;
    runtime.block_on(async { check_ports(&options, config.admin_address()).await })?;
    let started = Instant::now();
    let mut data = DataDir::open(&config.dir)?;
    let seal = encryption::open(data.path(), config.encryption_key_file.as_deref())?;
    let known = data.owner().map(|owner| known_owner(&config, owner)).transpose()?;
    let node_id = known.as_ref().map_or(config.node_id, |owner| owner.node);
    let peers = identity.filter(|_| config.tls_cluster).map(|i| i.for_peers(node_id)).transpose()?;
    let owner = match known {
        Some(owner) => owner,
        None => data.claim(runtime.block_on(new_owner(&config, peers.as_ref()))?)?,
    };
    let data = Arc::new(data);
    config.node_id = owner.node;
    config.stop_at = owner.stop_at();
    let served = start(&config, &owner, peers, &data, seal, &workers).and_then(|node| {
        let backend = NodeBackend(node);
        if let Some(epoch) = config.stop_at {
            export::follow(&backend, epoch, data.clone())?;
        }
        runtime.block_on(run(backend, config.clone(), options, started))
    });
    let served = served.map_err(|error| damage_in(&config.dir, error));
    if let Err(NodeError::Dismissed(_) | NodeError::Export(..)) = &served {
        data.dismiss()?;
    }
    drop(workers);
    drop(data);
    served
}

/// Damage that a room below reports, with the directory that it is in and what to do.
fn damage_in(dir: &Path, error: NodeError) -> NodeError {
    match &error {
        NodeError::Keeper(inner) if inner.is_damage() => NodeError::Damaged(dir.into(), inner.to_string()),
        NodeError::Raft(StartError::Log(inner @ (LogError::Corrupt { .. } | LogError::Sealed { .. }))) => {
            NodeError::Damaged(dir.into(), inner.to_string())
        }
        _ => error,
    }
}

/// Whose the directory is, if this configuration may go on with it. A node that joined is told by its directory who it is.
fn known_owner(config: &Config, owner: &Owner) -> Result<Owner, DataDirError> {
    if owner.joined() && config.initial_cluster.is_empty() {
        let other = config.stop_at.filter(|epoch| owner.stop_at() != Some(*epoch));
        let as_found = other.map_or_else(|| owner.cluster.clone(), |epoch| Owner::joining(Some(epoch)));
        return owner.check(&config.dir, owner.node, &as_found).map(|()| owner.clone());
    }
    let founding = config.join.as_ref().map_or_else(|| cluster_text(config), |peer| format!("one to join at {peer}"));
    owner.check(&config.dir, config.node_id, &founding).map(|()| owner.clone())
}

/// Of a new directory: a founder, or the node that a cluster lets in.
async fn new_owner(config: &Config, tls: Option<&PeerTls>) -> Result<Owner, NodeError> {
    let (Some(peer), Some(addr)) = (&config.join, config.peer_addr) else { return Ok(founder(config)) };
    // A certificate names an id; without one the cluster gives the next
    let id = tls.map(|_| config.node_id);
    let kind = if config.stop_at.is_some() { EXPORT } else { "" };
    let joiner = Joiner { token: &config.join_token, addr: &format!("{kind}{addr}"), id, stop_at: config.stop_at };
    let joined = crate::raft::join(peer, &joiner, tls).await;
    let joined = joined.map_err(|e| NodeError::Join(peer.clone(), e))?;
    eprintln!("look: joined the cluster at {peer} as node {}, a learner", joined.node);
    Ok(Owner {
        node: joined.node,
        cluster: Owner::joining(config.stop_at),
        cluster_id: joined.cluster,
        directory: random() | 1,
    })
}

/// A node that begins a cluster. Those that begin it together must give it the same name without having met.
fn founder(config: &Config) -> Owner {
    let together = !config.initial_cluster.is_empty();
    let cluster_id = if together { crate::raft::cluster_id(&founders(config)) } else { random() };
    Owner { node: config.node_id, cluster: cluster_text(config), cluster_id, directory: random() | 1 }
}

fn start_tracing() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("LOOK_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error,look=info"));
    let _ =
        tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_writer(std::io::stderr).try_init();
}

fn gateway_options(config: &Config, identity: Option<&Identity>) -> Result<GatewayOptions, NodeError> {
    let tls = match identity.filter(|_| config.tls_port != 0) {
        None => None,
        Some(identity) => Some(TlsListen {
            listen: listen_addresses(config, config.tls_port)?,
            config: identity.for_clients(config.tls_auth_clients)?,
        }),
    };
    // As with Redis, port 0 beside a TLS port is no port in clear; alone it is any that is free
    let clear = config.port != 0 || tls.is_none();
    Ok(GatewayOptions {
        listen: if clear { listen_addresses(config, config.port)? } else { Vec::new() },
        tls,
        unix_socket: config.unixsocket.clone(),
        unix_mode: config.unixsocketperm,
        parameters: parameters(config),
    })
}

fn listen_addresses(config: &Config, port: u16) -> Result<Vec<SocketAddr>, NodeError> {
    let address = |text: &String| {
        let ip: IpAddr = match text.as_str() {
            "localhost" => IpAddr::from([127, 0, 0, 1]),
            "*" => IpAddr::from([0, 0, 0, 0]),
            other => other.parse().map_err(|_| NodeError::Bind(text.clone()))?,
        };
        Ok(SocketAddr::new(ip, port))
    };
    config.bind.iter().map(address).collect()
}

/// A port in use is said before the data is touched.
async fn check_ports(options: &GatewayOptions, admin: Option<SocketAddr>) -> Result<(), NodeError> {
    let tls = options.tls.iter().flat_map(|tls| &tls.listen);
    for address in options.listen.iter().chain(tls).chain(&admin).filter(|a| a.port() != 0) {
        let bound = tokio::net::TcpListener::bind(address).await;
        bound.map_err(|e| crate::gateway::GatewayError::Listen(address.to_string(), e))?;
    }
    Ok(())
}

/// The founding configuration, as the data directory remembers it.
fn cluster_text(config: &Config) -> String {
    let nodes = config.initial_cluster.iter().map(|(id, at)| format!("{id}={at}"));
    let text = nodes.collect::<Vec<_>>().join(",");
    if text.is_empty() { "alone".into() } else { text }
}

/// Opens everything below the gateway.
fn start(
    config: &Config,
    owner: &Owner,
    peers: Option<PeerTls>,
    data: &DataDir,
    seal: Option<Arc<Sealer>>,
    workers: &Workers,
) -> Result<Arc<Node>, NodeError> {
    let engine = match config.engine {
        EngineChoice::Jit => Engine::Jit,
        EngineChoice::Interpreter => Engine::Interp,
    };
    let table = Arc::new(builtin::table(engine)?);
    let opened = Keeper::open(&data.pages_dir(), seal.clone())?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let (base, machine) = Base::new(config, opened, table, clock);
    let disk = Arc::new(RealDisk::open(data.log_dir())?);
    let mut raft_config = raft_config(config, owner, peers, seal.clone());
    // Peers would have to wait for clients
    let shares = config.io_threads == 1 && raft_config.listen.is_none();
    raft_config.runtime = shares.then(|| workers.handle.clone());
    let raft = Raft::start(raft_config, disk, Box::new(machine))
        // It replays the log, and so meets pages that cannot be read
        .map_err(|e| unreadable(config, &base.state).unwrap_or(e.into()))?;
    let gather = match config.io_threads {
        1 if shares => Gather::Turns,
        1 => Gather::Lull(workers.lull.clone()),
        _ => Gather::Nothing,
    };
    let batcher = base.batcher(config, &raft, owner, gather, workers.answers());
    eprintln!("look: waiting for a leader …");
    let hasher = wait_for_cluster(config, &base.state, &raft)?;
    Ok(base.finish(config, raft, batcher, hasher, data.path(), seal))
}

/// A node that is being started: what it has before its Raft runs. (The simulation starts its nodes from here, too.)
pub struct Base {
    pub state: Arc<SharedState>,
    keeper: Arc<Keeper>,
    table: Arc<Table>,
    clock: Arc<dyn Clock>,
}

impl Base {
    /// Around what recovery found; with the state machine for [`Raft`].
    pub fn new(
        config: &Config,
        opened: keeper::Opened,
        table: Arc<Table>,
        clock: Arc<dyn Clock>,
    ) -> (Base, NodeMachine) {
        let settings = opened.store.settings();
        settings.ms.store(config.window_ms as i64, Ordering::Relaxed);
        settings.epochs.store(config.window_epochs, Ordering::Relaxed);
        settings.bytes.store(config.window_bytes, Ordering::Relaxed);
        let state = Arc::new(SharedState::new(opened.store.clone()));
        let keeper = Arc::new(opened.keeper);
        let machine = NodeMachine::new(
            opened.store,
            opened.writer,
            opened.frontier,
            state.clone(),
            keeper.clone(),
            table.clone(),
            config.stop_at,
        );
        (Base { state, keeper, table, clock }, machine)
    }

    /// Starts the batcher, with what this node has to tell the cluster first.
    pub fn batcher(&self, config: &Config, raft: &Raft, owner: &Owner, gather: Gather, answers: Answers) -> Batcher {
        let (watched, failing) = (raft.clone(), self.state.clone());
        raft.spawn(async move { failing.fail(watched.failed().await) });
        let interval = Duration::from_millis(config.batch_interval_ms);
        let batcher_config = BatcherConfig { interval, gather, ..BatcherConfig::default() };
        let batcher = Batcher::start(raft.clone(), self.clock.clone(), random(), batcher_config);
        let own = batcher.clone();
        let on_applied = Box::new(move |sequence| own.on_applied(sequence));
        let _ = self.state.own.set(Own { gateway: batcher.gateway(), on_applied, answers });
        // An export has nothing to say
        let first = first_chunk(&self.state, raft, owner, self.table.version()).filter(|_| config.stop_at.is_none());
        if let Some(chunk) = first {
            let _ = batcher.submit(chunk);
        }
        batcher
    }

    /// The whole node, once the cluster's hash seed is known.
    pub fn finish(
        self,
        config: &Config,
        raft: Raft,
        batcher: Batcher,
        hasher: KeyHasher,
        data: &Path,
        seal: Option<Arc<Sealer>>,
    ) -> Arc<Node> {
        let Base { state, keeper, table, clock } = self;
        let max_write_cost = Arc::new(AtomicU64::new(config.max_write_cost));
        let log = Arc::new(RaftLog(raft.clone()));
        let history = History::new(table.clone(), state.progress.clone(), log, keeper.clone());
        Arc::new(Node {
            state,
            keeper,
            raft,
            batcher,
            history: Arc::new(history),
            code: Arc::new(NodeCode::new(table, hasher, max_write_cost.clone())),
            clock,
            max_write_cost,
            checkpoint_bytes: AtomicU64::new(config.checkpoint_bytes),
            run_id: format!("{:016x}{:016x}{:08x}", random(), random(), random() as u32),
            data_dir: data.to_path_buf(),
            config_file: config.file.clone(),
            stop: tokio::sync::Notify::new(),
            backups: backup::Backups::default(),
            seal,
            reads: AtomicU64::new(random()),
            stop_at: config.stop_at,
        })
    }
}

/// The nodes that a new cluster begins with.
fn founders(config: &Config) -> Vec<(NodeId, String)> {
    let own = config.peer_addr.map(|at| at.to_string()).unwrap_or_default();
    match config.initial_cluster.is_empty() {
        true => vec![(config.node_id, own)],
        false => config.initial_cluster.iter().map(|(id, at)| (*id, at.to_string())).collect(),
    }
}

fn raft_config(config: &Config, owner: &Owner, peers: Option<PeerTls>, seal: Option<Arc<Sealer>>) -> RaftConfig {
    let mut log = LogOptions::new(config.node_id.0, random());
    log.history_bytes = config.history_bytes;
    log.seal = seal;
    let mut raft = RaftConfig::alone(config.node_id, log);
    raft.initial = if owner.joined() { Vec::new() } else { founders(config) };
    raft.listen = config.peer_addr;
    raft.cluster = Some(owner.cluster_id);
    raft.directory = owner.directory;
    raft.keep_entries = config.log_keep_entries;
    raft.advertise = config.peer_addr.map(|at| at.to_string());
    raft.join_token = config.join_token.clone();
    raft.tls = peers;
    raft.export = config.stop_at.is_some();
    raft
}

/// What this node has to tell the cluster before clients come: a hash seed (every node offers one), and its directory. Of each the
/// first in the log wins.
fn first_chunk(state: &SharedState, raft: &Raft, owner: &Owner, code_version: u64) -> Option<Chunk> {
    let mut records = ChunkBuilder::default();
    let mut record = |words: &[u64]| {
        records.begin(handler::SYSTEM, 0);
        for word in words {
            records.word(*word);
        }
        let _ = records.end();
    };
    if state.progress.hash_seed().is_none() {
        record(&[handler::SYSTEM_HASH_SEED, random()]);
    }
    if !raft.roster().directories.contains_key(&owner.node) {
        record(&[handler::SYSTEM_NODE, owner.node.0, owner.directory]);
    }
    (!records.is_empty()).then(|| records.finish(GatewayId(0), 0, code_version))
}

/// A page of the state that could not be read, if there was one.
fn unreadable(config: &Config, state: &SharedState) -> Option<NodeError> {
    state.store().fault().map(|page| NodeError::Damaged(config.dir.clone(), page.to_string()))
}

/// Until the cluster's first batch is applied here nobody can be served.
fn wait_for_cluster(config: &Config, state: &SharedState, raft: &Raft) -> Result<KeyHasher, NodeError> {
    let mut say_at = Instant::now() + PATIENCE;
    loop {
        if let Some(hasher) = backend::wait_for_seed(state, Duration::from_millis(500)) {
            return Ok(hasher);
        }
        if let Some(why) = raft.dismissal() {
            return Err(NodeError::Dismissed(why));
        }
        if let Some(damage) = unreadable(config, state) {
            return Err(damage);
        }
        if let (Some(epoch), Some(why)) = (config.stop_at, state.failure.get()) {
            return Err(export::give_up(raft, epoch, why));
        }
        if Instant::now() > say_at {
            eprintln!("look: still waiting for a quorum of {}", cluster_text(config));
            say_at += PATIENCE;
        }
    }
}

/// Serves clients until a signal or `SHUTDOWN`, then stops in order.
async fn run(backend: NodeBackend, config: Config, options: GatewayOptions, started: Instant) -> Result<(), NodeError> {
    let gateway = Gateway::start(options, backend.clone()).await?;
    let admin = match config.admin_address() {
        None => None,
        Some(address) => Some(admin(address, &gateway).await?),
    };
    announce(&backend, &config, &gateway, started);
    if let Some(admin) = &admin {
        eprintln!("status page on http://{}/", admin.address());
    }
    let stopping = Arc::new(AtomicBool::new(false));
    let checkpoints = {
        let (backend, stopping) = (backend.clone(), stopping.clone());
        std::thread::Builder::new()
            .name("look-checkpoint".into())
            .spawn(move || checkpointing::checkpoint_loop(&backend, &|| stopping.load(Ordering::Relaxed)))?
    };
    let mut dismissed = None;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
        () = gateway.stop_requested() => {}
        () = backend.0.stop.notified() => {}
        why = backend.0.raft.dismissed() => dismissed = Some(why),
    }
    eprintln!("look: stopping");
    backend.0.raft.hand_over().await;
    gateway.shutdown(GRACE).await;
    stopping.store(true, Ordering::Relaxed);
    let raft = backend.0.raft.clone();
    let stop = tokio::task::spawn_blocking(move || {
        let _ = checkpoints.join();
        raft.shutdown();
    });
    let _ = stop.await;
    backend.0.state.waiting.abandon();
    dismissed.map_or(Ok(()), |why| Err(NodeError::Dismissed(why)))
}

async fn admin(listen: SocketAddr, gateway: &Gateway<NodeBackend>) -> Result<Admin, NodeError> {
    let started = Admin::start(listen, gateway.shared().clone()).await;
    started.map_err(|e| crate::gateway::GatewayError::Listen(format!("{listen} (admin-port)"), e).into())
}

/// What the gateway is to know of the configuration.
fn parameters(config: &Config) -> Vec<(String, String)> {
    let yes_no = |b: bool| if b { "yes" } else { "no" }.to_owned();
    [
        ("port", config.port.to_string()),
        ("bind", config.bind.join(" ")),
        ("dir", config.dir.display().to_string()),
        ("admin-port", config.admin_port.to_string()),
        ("admin-bind", config.admin_bind.to_string()),
        ("tls-port", config.tls_port.to_string()),
        ("tls-cert-file", config.tls_cert_file.display().to_string()),
        ("tls-key-file", config.tls_key_file.display().to_string()),
        ("tls-ca-cert-file", config.tls_ca_cert_file.display().to_string()),
        ("tls-auth-clients", config.tls_auth_clients.to_string()),
        ("tls-protocols", config.tls_protocols.join(" ")),
        ("tls-cluster", yes_no(config.tls_cluster)),
        ("unixsocket", config.unixsocket.iter().map(|path| path.display().to_string()).collect()),
        ("unixsocketperm", format!("{:o}", config.unixsocketperm)),
        ("requirepass", config.requirepass.clone()),
        ("aclfile", config.aclfile.clone()),
        ("protected-mode", yes_no(config.protected_mode)),
        ("enable-debug-command", config.enable_debug_command.clone()),
        ("maxclients", config.maxclients.to_string()),
        ("io-threads", config.io_threads.to_string()),
        ("window-ms", config.window_ms.to_string()),
        ("window-epochs", config.window_epochs.to_string()),
        ("window-bytes", config.window_bytes.to_string()),
        ("max-write-cost", config.max_write_cost.to_string()),
        ("batch-interval", config.batch_interval_ms.to_string()),
        ("checkpoint-bytes", config.checkpoint_bytes.to_string()),
        ("history-bytes", config.history_bytes.to_string()),
        ("engine", if config.engine == EngineChoice::Jit { "jit" } else { "interpreter" }.to_owned()),
        ("node-id", config.node_id.to_string()),
        ("peer-addr", config.peer_addr.map(|a| a.to_string()).unwrap_or_default()),
        ("initial-cluster", if config.initial_cluster.is_empty() { String::new() } else { cluster_text(config) }),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn announce(backend: &NodeBackend, config: &Config, gateway: &Gateway<NodeBackend>, started: Instant) {
    use crate::gateway::backend::Backend;
    let status = backend.0.raft.status();
    let clear = gateway.addresses().iter().map(SocketAddr::to_string);
    let tls = gateway.tls_addresses().iter().map(|a| format!("{a} (TLS)"));
    let unix = config.unixsocket.iter().map(|path| path.display().to_string());
    let at = clear.chain(tls).chain(unix).collect::<Vec<_>>().join(" ");
    eprintln!("look {}: node {} listens on {at}", env!("CARGO_PKG_VERSION"), config.node_id);
    eprintln!("data in {}; epoch {}, log entry {}", config.dir.display(), backend.epoch(), status.applied);
    eprintln!("recovered in {} ms; ready", started.elapsed().as_millis());
    if let Some(why) = backend.0.code.table.code().refused() {
        eprintln!("machine code is not to be had ({why}); the interpreter serves");
    }
}

/// `look fmt FILE...`: files that differ are written, or with `check` only named; diagnostics to standard error.
pub fn format_files(files: &[PathBuf], check: bool) -> ExitCode {
    let table = crate::lang::helpers::table();
    let mut failed = false;
    for file in files {
        match crate::lang::format::format_file(file, check, table) {
            Ok(false) => {}
            Ok(true) if check => {
                failed = true;
                eprintln!("{}: not in canonical form; run `look fmt`", file.display());
            }
            Ok(true) => println!("{}", file.display()),
            Err(text) => {
                failed = true;
                eprint!("{text}");
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// `look check FILE...`: bounds to standard output, diagnostics to standard error.
pub fn check_files(files: &[PathBuf]) -> ExitCode {
    let checked = crate::lang::check_files(files, crate::lang::helpers::table());
    if checked.refused == 0 {
        print!("{}", checked.text);
        ExitCode::SUCCESS
    } else {
        eprint!("{}", checked.text);
        ExitCode::FAILURE
    }
}
