//! Nodes of one process over real sockets: elections, replication, exactly-once, partitions, catching up.

use bytes::Bytes;
use look::apply::machine::{Applied, Body, Checkpoint, Committed, Receive, Roster, StateMachine};
use look::base::batch::{Chunk, ChunkBuilder};
use look::base::members::Members;
use look::base::{LogIndex, NodeId, SystemClock};
use look::batch::{Batcher, BatcherConfig, Gather};
use look::disk::sim::SimDisk;
use look::disk::{Log, LogOptions, Position};
use look::raft::{Change, Raft, RaftConfig, ReadError, ReadPoint};
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// The chunks that took effect, in order, and what the exactly-once rule needs to know.
#[derive(Clone, Default)]
struct Ledger {
    applied: Applied,
    last: BTreeMap<u64, u64>,
    ran: Vec<(u64, u64)>,
    skipped: u64,
}

impl Ledger {
    fn to_bytes(&self) -> Bytes {
        let words: Vec<u64> = self.ran.iter().flat_map(|(g, s)| [*g, *s]).collect();
        words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>().into()
    }

    fn from_bytes(applied: Applied, bytes: &[u8]) -> Ledger {
        let words: Vec<u64> = bytes.chunks(8).map(|b| u64::from_le_bytes(b.try_into().expect("eight"))).collect();
        let ran: Vec<(u64, u64)> = words.chunks(2).map(|w| (w[0], w[1])).collect();
        let mut last = BTreeMap::new();
        ran.iter().for_each(|(g, s)| {
            last.insert(*g, *s);
        });
        Ledger { applied, last, ran, skipped: 0 }
    }
}

#[derive(Clone, Default)]
struct Machine {
    ledger: Arc<Mutex<Ledger>>,
    batcher: Arc<OnceLock<Batcher>>,
    /// The ledger as of the newest checkpoint.
    checkpoint: Arc<Mutex<Option<Ledger>>>,
    roster: Arc<Roster>,
}

impl StateMachine for Machine {
    fn applied(&self) -> Applied {
        self.ledger.lock().unwrap().applied.clone()
    }

    fn roster(&self) -> Arc<Roster> {
        self.roster.clone()
    }

    fn apply(&mut self, entries: Vec<Committed>) -> Result<(), String> {
        let mut ledger = self.ledger.lock().unwrap();
        let mut own = None;
        for entry in entries {
            assert_eq!(entry.position.index.0, ledger.applied.last.index.0 + 1, "entries come without a gap");
            ledger.applied.last = entry.position;
            match entry.body {
                Body::Blank => {}
                Body::Membership(bytes) => {
                    let members = Members::parse(&bytes).expect("a membership");
                    let next = self.roster.next.max(members.highest().next());
                    self.roster = Arc::new(Roster { members, next, ..Roster::default() });
                    ledger.applied.membership = Some((entry.position, bytes));
                }
                Body::Batch(batch) => {
                    for chunk in &batch.chunks {
                        let last = ledger.last.entry(chunk.gateway.0).or_default();
                        if chunk.sequence == *last + 1 {
                            *last += 1;
                            ledger.ran.push((chunk.gateway.0, chunk.sequence));
                        } else {
                            ledger.skipped += 1;
                        }
                        if self.batcher.get().is_some_and(|b| b.gateway() == chunk.gateway) {
                            own = ledger.last.get(&chunk.gateway.0).copied();
                        }
                    }
                }
            }
        }
        drop(ledger);
        if let (Some(sequence), Some(batcher)) = (own, self.batcher.get()) {
            batcher.on_applied(sequence);
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> Option<Box<dyn Checkpoint>> {
        let ledger = self.checkpoint.lock().unwrap().clone()?;
        Some(Box::new(Pages { meta: ledger.applied.clone(), bytes: ledger.to_bytes() }))
    }

    fn receive(&mut self, _: u64) -> Result<Box<dyn Receive>, String> {
        Ok(Box::new(Pages::default()))
    }

    fn install(&mut self, meta: Applied, received: Box<dyn Receive>) -> Result<(), String> {
        let pages = received.into_any().downcast::<Pages>().map_err(|_| "foreign pages")?;
        let ledger = Ledger::from_bytes(meta, &pages.bytes);
        *self.checkpoint.lock().unwrap() = Some(ledger.clone());
        if let Some(batcher) = self.batcher.get() {
            batcher.on_applied(ledger.last.get(&batcher.gateway().0).copied().unwrap_or(0));
        }
        *self.ledger.lock().unwrap() = ledger;
        Ok(())
    }
}

#[derive(Default)]
struct Pages {
    meta: Applied,
    bytes: Bytes,
}

impl Checkpoint for Pages {
    fn meta(&self) -> Applied {
        self.meta.clone()
    }
    fn next(&mut self) -> Result<Option<Bytes>, String> {
        let piece = self.bytes.split_to(self.bytes.len().min(1000));
        Ok((!piece.is_empty()).then_some(piece))
    }
}

impl Receive for Pages {
    fn piece(&mut self, piece: Bytes) -> Result<(), String> {
        self.bytes = [&self.bytes[..], &piece[..]].concat().into();
        Ok(())
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

/// Carries bytes between nodes; who speaks to whom is read from the hello.
struct Wires {
    cut: Arc<Mutex<BTreeSet<(u64, u64)>>>,
    addrs: Vec<SocketAddr>,
}

impl Wires {
    /// `real[i]` is where node `i + 1` listens.
    fn new(real: &[SocketAddr]) -> Wires {
        let cut = Arc::new(Mutex::new(BTreeSet::new()));
        let start = |to: &SocketAddr| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let (to, cut) = (*to, cut.clone());
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let cut = cut.clone();
                    std::thread::spawn(move || wire(stream, to, cut));
                }
            });
            addr
        };
        let addrs = real.iter().map(start).collect();
        Wires { cut, addrs }
    }

    fn isolate(&self, node: u64, nodes: u64) {
        let mut cut = self.cut.lock().unwrap();
        for other in (1..=nodes).filter(|n| *n != node) {
            cut.insert((node, other));
            cut.insert((other, node));
        }
    }

    fn heal(&self) {
        self.cut.lock().unwrap().clear();
    }
}

fn wire(mut from: TcpStream, to: SocketAddr, cut: Arc<Mutex<BTreeSet<(u64, u64)>>>) {
    let mut hello = [0; 40];
    let Ok(()) = from.read_exact(&mut hello) else { return };
    let word = |at: usize| u64::from_le_bytes(hello[at..at + 8].try_into().unwrap());
    let link = (word(24), word(32));
    if cut.lock().unwrap().contains(&link) {
        return;
    }
    let Ok(mut to) = TcpStream::connect(to) else { return };
    if to.write_all(&hello).is_err() {
        return;
    }
    let (back_from, back_to) = (to.try_clone().unwrap(), from.try_clone().unwrap());
    let back_cut = cut.clone();
    std::thread::spawn(move || carry(back_from, back_to, link, back_cut));
    carry(from, to, link, cut);
}

fn carry(mut from: TcpStream, mut to: TcpStream, link: (u64, u64), cut: Arc<Mutex<BTreeSet<(u64, u64)>>>) {
    let mut buf = vec![0; 64 << 10];
    from.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    loop {
        let dead = cut.lock().unwrap().contains(&link);
        let n = match from.read(&mut buf) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) && !dead => {
                continue;
            }
            Err(_) => break,
        };
        // Again: the cut may have come while this waited
        let dead = dead || cut.lock().unwrap().contains(&link);
        if dead || to.write_all(&buf[..n]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = to.shutdown(std::net::Shutdown::Both);
}

struct Node {
    raft: Raft,
    batcher: Batcher,
    machine: Machine,
    submitted: u64,
}

struct Cluster {
    real: Vec<SocketAddr>,
    wires: Wires,
    disks: Vec<SimDisk>,
    machines: Vec<Machine>,
    nodes: Vec<Option<Node>>,
    starts: u64,
}

fn free_addrs(n: usize) -> Vec<SocketAddr> {
    let listeners: Vec<_> = (0..n).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|l| l.local_addr().unwrap()).collect()
}

impl Cluster {
    fn new(n: usize) -> Cluster {
        let real = free_addrs(n);
        let wires = Wires::new(&real);
        let disks = (0..n as u64).map(SimDisk::new).collect();
        let machines = (0..n).map(|_| Machine::default()).collect();
        let mut cluster = Cluster { real, wires, disks, machines, nodes: (0..n).map(|_| None).collect(), starts: 0 };
        (0..n).for_each(|i| cluster.start(i));
        cluster
    }

    fn start(&mut self, i: usize) {
        self.starts += 1;
        let id = NodeId(i as u64 + 1);
        let addr = |(i, a): (usize, &SocketAddr)| (NodeId(i as u64 + 1), a.to_string());
        let initial = self.wires.addrs.iter().enumerate().map(addr).collect();
        let log = LogOptions { segment_bytes: 1 << 20, prepare_ahead: false, ..LogOptions::new(id.0, 77) };
        let config = RaftConfig { initial, listen: Some(self.real[i]), keep_entries: 0, ..RaftConfig::alone(id, log) };
        let machine = Machine { batcher: Arc::default(), ..self.machines[i].clone() };
        let disk = Arc::new(self.disks[i].clone());
        let raft = Raft::start(config, disk, Box::new(machine.clone())).expect("starts");
        let clock = Arc::new(SystemClock::default());
        let batcher = Batcher::start(raft.clone(), clock, 1000 + self.starts, BatcherConfig::default());
        let _ = machine.batcher.set(batcher.clone());
        self.nodes[i] = Some(Node { raft, batcher, machine, submitted: 0 });
    }

    /// Stops a node. Its state in memory is what its newest checkpoint holds.
    fn stop(&mut self, i: usize) {
        let node = self.nodes[i].take().expect("runs");
        node.raft.shutdown();
        let checkpoint = node.machine.checkpoint.lock().unwrap().clone();
        *self.machines[i].ledger.lock().unwrap() = checkpoint.unwrap_or_default();
    }

    fn node(&self, i: usize) -> &Node {
        self.nodes[i].as_ref().expect("runs")
    }

    fn submit(&mut self, i: usize, n: u64) {
        let node = self.nodes[i].as_mut().expect("runs");
        for _ in 0..n {
            node.submitted = node.batcher.submit(chunk()).expect("takes chunks");
        }
    }

    /// The node that leads, in the eyes of a majority.
    fn leader(&self) -> usize {
        let mut found = 0;
        wait("a leader", || {
            let votes = self.nodes.iter().flatten().filter_map(|n| n.raft.leader());
            let mut count = BTreeMap::<u64, usize>::new();
            votes.for_each(|v| *count.entry(v.0).or_default() += 1);
            let best = count.into_iter().max_by_key(|(_, n)| *n);
            best.is_some_and(|(id, n)| {
                found = id as usize - 1;
                n * 2 > self.nodes.len() && self.nodes[found].as_ref().is_some_and(|n| n.raft.is_leader())
            })
        });
        found
    }

    fn wait_all_applied(&self) {
        wait("all chunks of running nodes applied", || self.nodes.iter().flatten().all(|n| n.batcher.waiting().0 == 0));
        wait("equal ledgers", || {
            let mut ledgers = self.nodes.iter().flatten().map(|n| n.machine.ledger.lock().unwrap().ran.clone());
            let first = ledgers.next().unwrap();
            ledgers.all(|l| l == first)
        });
    }

    /// Every chunk submitted on `i` since its start took effect once, in order.
    fn check_gateway(&self, i: usize) {
        let node = self.node(i);
        let gateway = node.batcher.gateway().0;
        for other in self.nodes.iter().flatten() {
            let ledger = other.machine.ledger.lock().unwrap();
            let ran: Vec<u64> = ledger.ran.iter().filter(|(g, _)| *g == gateway).map(|(_, s)| *s).collect();
            assert!(
                ran.iter().copied().eq(1..=node.submitted),
                "node {i}: {} of {} took effect",
                ran.len(),
                node.submitted
            );
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.iter().flatten().for_each(|n| n.raft.shutdown());
    }
}

fn chunk() -> Chunk {
    let mut b = ChunkBuilder::default();
    b.begin(7, 0);
    let word = b.bytes(b"value");
    b.word(word.0);
    assert!(b.end());
    let records: Vec<u8> = b.words.iter().flat_map(|w| w.to_le_bytes()).collect();
    Chunk { calls: b.calls, records: records.into(), blob: b.blob.into(), ..Chunk::default() }
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn one_node_needs_no_network_and_goes_on_after_a_restart() {
    goes_on_after_restarts(None, BatcherConfig::default());
}

/// Raft, log and apply on the thread that serves clients.
#[test]
fn one_node_on_a_shared_thread_goes_on_after_a_restart() {
    let shared = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let config = BatcherConfig { gather: Gather::Turns, ..BatcherConfig::default() };
    goes_on_after_restarts(Some(shared.handle().clone()), config);
}

fn goes_on_after_restarts(runtime: Option<tokio::runtime::Handle>, batcher_config: BatcherConfig) {
    let disk = SimDisk::new(1);
    let (mut total, mut term, mut waits) = (0, 0, Vec::new());
    for start in 1..=3 {
        let machine = Machine::default();
        let log = LogOptions { segment_bytes: 1 << 20, prepare_ahead: false, ..LogOptions::new(1, 5) };
        let config = RaftConfig { runtime: runtime.clone(), ..RaftConfig::alone(NodeId(1), log) };
        let began = Instant::now();
        let raft = Raft::start(config, Arc::new(disk.clone()), Box::new(machine.clone())).expect("starts");
        let batcher = Batcher::start(raft.clone(), Arc::new(SystemClock::default()), start, batcher_config.clone());
        let _ = machine.batcher.set(batcher.clone());
        for _ in 0..100 {
            batcher.submit(chunk()).expect("takes");
        }
        wait("applied", || batcher.waiting().0 == 0);
        waits.push(began.elapsed());
        total += 100;
        assert_eq!(machine.ledger.lock().unwrap().ran.len(), total, "the log is applied again, and goes on");
        wait("local reads", || raft.reads_are_local());
        assert_eq!(block_on(raft.read_index()), Ok(ReadPoint { index: raft.applied(), leader_ms: None }));
        assert_eq!(raft.status().role, "leader");
        // What it sent to peers in its old term may be more than its own disk has: that term's places are taken
        assert!(raft.leadership().term > term, "no node leads one term in two lives");
        term = raft.leadership().term;
        raft.shutdown();
        assert!(block_on(raft.read_index()).is_err(), "a stopped node answers no strong read");
    }
    // Of all starts, or it is the machine that was busy
    assert!(waits.iter().min() < Some(&Duration::from_secs(1)), "one node waits for an election: {waits:?}");
}

#[test]
fn three_nodes_take_writes_everywhere_and_agree() {
    let mut cluster = Cluster::new(3);
    cluster.leader();
    (0..3).for_each(|i| cluster.submit(i, 500));
    cluster.wait_all_applied();
    (0..3).for_each(|i| cluster.check_gateway(i));
    for i in 0..3 {
        let node = cluster.node(i);
        let index = block_on(node.raft.read_index()).expect("reads anywhere").index;
        assert!(node.raft.applied() >= index && index > LogIndex(0));
        assert_eq!(node.raft.status().peers.len(), 3);
    }
    assert!(!cluster.node(0).raft.reads_are_local(), "a member of three may not read without asking");
}

#[test]
fn a_stopped_leader_is_followed_by_another_and_every_chunk_takes_effect_once() {
    let mut cluster = Cluster::new(3);
    let (mut elections, mut waits) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let leader = cluster.leader();
        let others: Vec<usize> = (0..3).filter(|i| *i != leader).collect();
        others.iter().for_each(|&i| cluster.submit(i, 200));
        let began = Instant::now();
        cluster.stop(leader);
        others.iter().for_each(|&i| cluster.submit(i, 200));
        cluster.leader();
        let led = Instant::now();
        cluster.wait_all_applied();
        elections.push(led - began);
        waits.push(led.elapsed());
        cluster.start(leader);
        cluster.submit(leader, 50);
        cluster.wait_all_applied();
        (0..3).for_each(|i| cluster.check_gateway(i));
    }
    eprintln!("elections took {elections:?}, and writes went on {waits:?} after them");
    // The median: what takes time in one round only is the machine
    elections.sort();
    waits.sort();
    assert!(elections[1] < Duration::from_secs(5), "{elections:?}");
    assert!(waits[1] < Duration::from_secs(1), "lost under the new leader, then sent again: {waits:?}");
}

#[test]
fn a_cut_off_leader_refuses_reads_and_its_writes_take_effect_once_later() {
    let mut cluster = Cluster::new(3);
    let old = cluster.leader();
    cluster.submit(old, 10);
    cluster.wait_all_applied();
    cluster.wires.isolate(old as u64 + 1, 3);
    cluster.submit(old, 20);
    let other = (old + 1) % 3;
    cluster.submit(other, 20);
    wait("the majority goes on", || cluster.node(other).batcher.waiting().0 == 0);
    let read = block_on(cluster.node(old).raft.read_index());
    assert!(matches!(read, Err(ReadError::NoQuorum | ReadError::NoLeader)), "{read:?}");
    assert_eq!(cluster.node(old).batcher.waiting().0, 20, "nothing was acknowledged without a quorum");
    let members = cluster.node(other).raft.roster();
    for change in [Change::Demote(NodeId(other as u64 + 1)), Change::Remove(NodeId(other as u64 + 1))] {
        let changed = block_on(cluster.node(old).raft.change(change));
        assert!(changed.is_err(), "two leaders accepted a change of membership: {change:?}");
    }
    assert_eq!(cluster.node(other).raft.roster(), members);
    cluster.wires.heal();
    cluster.wait_all_applied();
    (0..3).for_each(|i| cluster.check_gateway(i));
    assert!(block_on(cluster.node(old).raft.read_index()).is_ok());
}

#[test]
fn a_late_node_catches_up_by_a_checkpoint_when_the_log_is_gone() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let late = (leader + 1) % 3;
    cluster.submit(leader, 50);
    cluster.wait_all_applied();
    cluster.stop(late);
    let lacks = cluster.node(leader).raft.applied();
    for _ in 0..20 {
        cluster.submit(leader, 50);
        wait("applied", || cluster.node(leader).batcher.waiting().0 == 0);
    }
    for i in (0..3).filter(|i| *i != late) {
        let node = cluster.node(i);
        wait("the follower too", || node.machine.ledger.lock().unwrap().ran.len() == 1050);
        let ledger = node.machine.ledger.lock().unwrap().clone();
        let at = ledger.applied.last;
        *node.machine.checkpoint.lock().unwrap() = Some(ledger);
        node.raft.checkpointed(at);
    }
    // Purged entries leave the log but stay readable as history
    for i in (0..3).filter(|i| *i != late) {
        wait("the log lets go", || cluster.node(i).raft.status().first > lacks);
    }
    let history = cluster.node(leader).raft.history(LogIndex(1)..LogIndex(10), usize::MAX).expect("history reads");
    assert_eq!(history.len(), 9);
    cluster.start(late);
    cluster.submit(late, 10);
    cluster.wait_all_applied();
    (0..3).for_each(|i| cluster.check_gateway(i));
    assert!(cluster.machines[late].checkpoint.lock().unwrap().is_some(), "it came by a checkpoint");
}

#[test]
fn a_state_older_than_the_log_is_refused_with_what_to_do() {
    let disk = SimDisk::new(77);
    let options = LogOptions::new(1, 5);
    let log = Log::open(Arc::new(disk.clone()), options.clone()).expect("opens");
    log.purge(Position { term: 1, index: 40 }, Box::new(|_| ())).expect("accepts");
    log.flush().expect("durable");
    drop(log);
    let started = Raft::start(RaftConfig::alone(NodeId(1), options), Arc::new(disk), Box::new(Machine::default()));
    let error = started.err().expect("the entries up to 40 are nowhere").to_string();
    assert!(error.contains("begins after entry 40") && error.contains("Restore"), "{error}");
}
