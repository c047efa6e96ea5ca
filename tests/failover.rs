//! Killing the leader under load is a pause for clients of the surviving nodes: no error, no lost and no doubled write.
//!
//! `LOOK_FAILOVER_ROUNDS=n` for longer runs.

mod common;

use common::server::{skip, subject_is_redis};
use common::{Cluster, Connection, Reply, setting};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const ROUNDS: u64 = 3;
/// An election takes about one and a half seconds; a busy machine gets more.
const PAUSE_MAX: Duration = Duration::from_secs(6);

/// What one client did in one round.
#[derive(Default, Debug)]
struct Work {
    acknowledged: i64,
    /// Sent, and the connection broke before the reply: counted once or not at all.
    unknown: i64,
    pause: Duration,
    errors: Vec<String>,
}

/// A client of one node that stays: every reply must be a success, however long it takes.
fn stay(address: SocketAddr, name: &str, stop: &AtomicBool, depth: usize) -> Work {
    let mut work = Work::default();
    let Ok(mut connection) = Connection::open(address) else {
        work.errors.push(format!("{name}: cannot connect"));
        return work;
    };
    let request = common::words("INCR counter");
    let push = |n: i64| vec![b"RPUSH".to_vec(), format!("list:{name}").into_bytes(), n.to_string().into_bytes()];
    let mut last = Instant::now();
    while !stop.load(Ordering::SeqCst) {
        let mut requests = vec![request.clone(); depth];
        requests.push(push(work.acknowledged + depth as i64));
        match connection.pipeline(&requests) {
            Ok(replies) => {
                work.errors.extend(replies.iter().filter(|r| r.is_error()).map(|r| format!("{name}: {r:?}")));
                work.acknowledged += depth as i64;
            }
            Err(e) => {
                work.unknown += depth as i64;
                work.errors.push(format!("{name}: {e}"));
            }
        }
        work.pause = work.pause.max(last.elapsed());
        last = Instant::now();
        if !work.errors.is_empty() {
            break;
        }
    }
    work
}

/// A client that may lose its node: it goes to another one and sends the same token again.
fn roam(addresses: &[SocketAddr], name: &str, stop: &AtomicBool) -> Work {
    let mut work = Work::default();
    let mut at = 0;
    let mut connection = Connection::open(addresses[at]);
    while !stop.load(Ordering::SeqCst) || connection.is_err() {
        let line = format!("LOOK.ONCE {name}:{} INCR once", work.acknowledged + 1);
        match connection.as_mut().map_err(|e| e.to_string()).and_then(|c| c.line(&line).map_err(|e| e.to_string())) {
            Ok(reply) if reply.is_error() => {
                work.errors.push(format!("{name}: {reply:?}"));
                return work;
            }
            Ok(_) => work.acknowledged += 1,
            Err(_) => {
                at = (at + 1) % addresses.len();
                connection = Connection::open(addresses[at]);
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
    work
}

#[test]
fn killing_the_leader_is_a_pause_and_nothing_else() {
    if subject_is_redis() {
        return skip("Redis has no cluster of this kind");
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut cluster = Cluster::start(dir.path(), 3).unwrap_or_else(|why| panic!("{why}"));
    let (mut acknowledged, mut unknown, mut tokens) = (0, 0, 0);
    let rounds = setting("LOOK_FAILOVER_ROUNDS", ROUNDS);
    for round in 0..rounds {
        let leader = cluster.leader().unwrap_or_else(|why| panic!("round {round}: {why}"));
        let works = load_and_kill(&mut cluster, leader, round);
        let staying = &works[..works.len() - 1];
        let errors: Vec<&String> = works.iter().flat_map(|w| &w.errors).collect();
        assert!(errors.is_empty(), "round {round}, leader {leader} killed: {errors:?}\n{}", cluster.output());
        let pause = staying.iter().map(|w| w.pause).max().unwrap_or_default();
        let moved: i64 = staying.iter().map(|w| w.acknowledged).sum();
        eprintln!(
            "failover: round {round}, leader {leader} killed, {moved} writes acknowledged, longest pause {pause:?}"
        );
        assert!(moved > 100, "INVALID: only {moved} writes in round {round}");
        assert!(pause < PAUSE_MAX, "round {round}: a client waited {pause:?}");
        acknowledged += moved;
        unknown += staying.iter().map(|w| w.unknown).sum::<i64>();
        tokens += works[works.len() - 1].acknowledged;
        check(&cluster, acknowledged, unknown, tokens).unwrap_or_else(|why| panic!("round {round}: {why}"));
        check_lists(&cluster, round).unwrap_or_else(|why| panic!("round {round}: {why}"));
        cluster.launch(leader).unwrap_or_else(|why| panic!("{why}"));
        let back = cluster
            .await_writable(leader, Duration::from_secs(30))
            .unwrap_or_else(|why| panic!("round {round}: {why}"));
        eprintln!("failover: node {leader} is back after {back:?}");
        check(&cluster, acknowledged, unknown, tokens)
            .unwrap_or_else(|why| panic!("round {round}, all nodes up: {why}"));
    }
}

/// Load on every surviving node, and one client that starts at the leader; the leader dies in the middle.
fn load_and_kill(cluster: &mut Cluster, leader: usize, round: u64) -> Vec<Work> {
    let survivors: Vec<usize> = cluster.up().into_iter().filter(|id| *id != leader).collect();
    let mut addresses = vec![cluster.node(leader).address()];
    addresses.extend(survivors.iter().map(|id| cluster.node(*id).address()));
    let stop = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut clients = Vec::new();
        for id in &survivors {
            for depth in [1, 16] {
                let address = cluster.node(*id).address();
                let name = format!("{round}:{id}:{depth}");
                clients.push(scope.spawn(move || stay(address, &name, stop, depth)));
            }
        }
        clients.push(scope.spawn(move || roam(&addresses, &format!("token:{round}"), stop)));
        std::thread::sleep(Duration::from_millis(1000));
        cluster.kill9(leader);
        // Long enough for an election and for writes after it.
        std::thread::sleep(Duration::from_millis(6000));
        stop.store(true, Ordering::SeqCst);
        clients.into_iter().map(|c| c.join().unwrap_or_else(|_| panic!("a client panicked"))).collect()
    })
}

fn check(cluster: &Cluster, acknowledged: i64, unknown: i64, tokens: i64) -> Result<(), String> {
    let asked = cluster.up()[0];
    let strong = |line: &str| cluster.node(asked).connect().line(line).map_err(|e| format!("{line}: {e}"));
    let counter = strong("GET counter")?.int().unwrap_or(0);
    if !(acknowledged..=acknowledged + unknown).contains(&counter) {
        return Err(format!("counter is {counter}, acknowledged {acknowledged}, unknown {unknown}"));
    }
    let once = strong("GET once")?.int().unwrap_or(0);
    if once != tokens {
        return Err(format!("{tokens} tokens, each sent until it was answered, counted {once}"));
    }
    for (key, value) in [("counter", counter), ("once", once)] {
        let expected = Reply::Bulk(value.to_string().into_bytes());
        cluster.await_equal(&format!("GET {key}"), &expected, Duration::from_secs(20))?;
    }
    Ok(())
}

/// Every client pushed rising numbers: none may be missing, doubled or out of order, on any node.
fn check_lists(cluster: &Cluster, round: u64) -> Result<(), String> {
    for id in cluster.up() {
        for depth in [1, 16] {
            for reader in cluster.up() {
                let line = format!("LRANGE list:{round}:{id}:{depth} 0 -1");
                let reply = cluster.node(reader).connect().line(&line).map_err(|e| e.to_string())?;
                let numbers: Vec<i64> = reply.items().iter().filter_map(Reply::int).collect();
                let wrong = numbers.iter().zip(1..).find(|(n, i)| **n != i * depth);
                if let Some((n, i)) = wrong {
                    return Err(format!("node {reader}: {line}: item {i} is {n}"));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_follower_serves_its_own_writes_and_strong_reads() {
    if subject_is_redis() {
        return skip("Redis has no cluster of this kind");
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let cluster = Cluster::start(dir.path(), 3).unwrap_or_else(|why| panic!("{why}"));
    let mut connections: Vec<Connection> = cluster.up().iter().map(|id| cluster.node(*id).connect()).collect();
    for n in 0..200i64 {
        let (writer, reader) = (n as usize % 3, (n as usize + 1) % 3);
        let written = connections[writer].line(&format!("SET k {n}")).expect("a write on any node");
        assert_eq!(written, Reply::Simple(b"OK".to_vec()));
        let read = connections[reader].line("GET k").expect("a strong read on any node");
        assert_eq!(read.int(), Some(n), "node {} reads what node {} wrote", reader + 1, writer + 1);
    }
}

#[test]
fn without_a_majority_no_write_is_acknowledged() {
    if subject_is_redis() {
        return skip("Redis has no cluster of this kind");
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut cluster = Cluster::start(dir.path(), 3).unwrap_or_else(|why| panic!("{why}"));
    let leader = cluster.leader().unwrap_or_else(|why| panic!("{why}"));
    for id in cluster.up() {
        if id != leader {
            cluster.kill9(id);
        }
    }
    let mut connection = cluster.node(leader).connect();
    connection.patience(Duration::from_secs(3)).expect("a time limit");
    let reply = connection.line("SET lonely 1");
    assert!(reply.as_ref().map_or(true, Reply::is_error), "acknowledged without a majority: {reply:?}");
}
