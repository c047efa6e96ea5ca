//! A cluster that grows, shrinks and restarts while it serves.
//!
//! `LOOK_ROLLING_ROUNDS=n` for longer runs.

mod common;

use common::server::{free_port, look_binary, skip, subject_is_redis};
use common::{Cluster, Connection, JOIN_TOKEN, PATIENCE, Reply, Server, setting, wait};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn cluster(dir: &tempfile::TempDir) -> Option<Cluster> {
    if subject_is_redis() {
        skip("Redis has no cluster of this kind");
        return None;
    }
    Some(Cluster::start(dir.path(), 3).unwrap_or_else(|why| panic!("{why}")))
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// Asks until it is done: right after an election or another change the answer may be "try again".
fn insist(cluster: &Cluster, id: usize, line: &str) {
    let mut last = String::new();
    wait(&format!("{line}: {last}"), || match cluster.ask(id, line) {
        Ok(_) => true,
        Err(why) => {
            assert!(why.contains("try again") || why.contains("take over"), "{line}: {why}");
            last = why;
            false
        }
    });
}

fn epoch(cluster: &Cluster) -> i64 {
    cluster.ask(1, "LOOK.EPOCH").and_then(|r| r.int().ok_or("no number".into())).unwrap_or_else(|why| panic!("{why}"))
}

/// The line of a node in `LOOK.CLUSTER`.
fn line_of(cluster: &Cluster, asked: usize, node: usize) -> Option<String> {
    let text = cluster.ask(asked, "LOOK.CLUSTER").map(|r| r.text()).unwrap_or_default();
    text.lines().find(|l| l.starts_with(&format!("node{node}:"))).map(str::to_owned)
}

fn has_role(cluster: &Cluster, node: usize, role: &str) -> bool {
    line_of(cluster, 1, node).is_some_and(|l| l.contains(&format!("role={role}")))
}

#[test]
fn a_node_joins_learns_votes_and_is_dismissed() {
    let dir = directory();
    let Some(mut cluster) = cluster(&dir) else { return };
    let before = epoch(&cluster);
    cluster.ask(1, "SET greeting hello").expect("a write");
    assert_eq!(epoch(&cluster), before + 1);

    let four = cluster.join().expect("starts");
    cluster.await_writable(four, PATIENCE).unwrap_or_else(|why| panic!("{why}"));
    assert!(has_role(&cluster, four, "learner"), "{:?}", line_of(&cluster, 1, four));
    // The join, the greeting, and a write through the learner
    assert_eq!(epoch(&cluster), before + 3, "a change of membership is one epoch");
    for consistency in ["strong", "eventual"] {
        let mut reader = cluster.node(four).connect();
        reader.line(&format!("LOOK.CONSISTENCY {consistency}")).expect("answers");
        assert_eq!(reader.line("GET greeting").expect("reads"), Reply::Bulk(b"hello".to_vec()));
    }
    // Any node takes the order, the learner too
    insist(&cluster, four, &format!("LOOK.CLUSTER PROMOTE {four}"));
    assert_eq!(epoch(&cluster), before + 4);
    wait("the promotion", || has_role(&cluster, four, "follower"));
    let refused = |line: &str| cluster.ask(2, line).expect_err(line);
    assert!(refused(&format!("LOOK.CLUSTER PROMOTE {four}")).contains("votes already"));
    assert!(refused("LOOK.CLUSTER REMOVE 9").contains("not a member"));
    assert!(refused("LOOK.CLUSTER REMOVE x").contains("number"));
    let leader = cluster.leader().expect("leads");
    assert!(refused(&format!("LOOK.CLUSTER REMOVE {leader}")).contains("TRANSFER"));

    insist(&cluster, 2, &format!("LOOK.CLUSTER DEMOTE {four}"));
    wait("the demotion", || has_role(&cluster, four, "learner"));
    insist(&cluster, 2, &format!("LOOK.CLUSTER REMOVE {four}"));
    assert_eq!(epoch(&cluster), before + 6);
    assert_eq!(line_of(&cluster, 1, four), None);
    // The past of a change of membership is readable like any other
    assert_eq!(cluster.ask(2, &format!("LOOK.AT {} GET greeting", before + 6)).expect("reads").text(), "hello");
    let dismissed = cluster.nodes[four - 1].as_mut().expect("ran");
    let status = dismissed.await_exit(PATIENCE).expect("a removed node stops");
    assert!(!status.success());
    assert!(dismissed.output().contains("was removed from its cluster"), "{}", dismissed.output());
    cluster.launch(four).expect("starts");
    let again = cluster.nodes[four - 1].as_mut().expect("ran");
    assert!(again.await_exit(PATIENCE).is_some_and(|s| !s.success()), "its directory serves no more");
    cluster.kill9(four);

    let five = cluster.join().expect("starts");
    cluster.await_writable(five, PATIENCE).unwrap_or_else(|why| panic!("{why}"));
    assert!(has_role(&cluster, five, "learner"), "an id is never given twice");
}

#[test]
fn who_has_no_token_does_not_join() {
    let dir = directory();
    let Some(cluster) = cluster(&dir) else { return };
    let members = cluster.ask(1, "LOOK.CLUSTER").expect("answers").text().lines().count();
    for (token, words) in [("wrong", "token is wrong"), ("", "--join-token")] {
        let data = dir.path().join("stranger");
        let flags = [
            "--dir",
            "d",
            "--peer-addr",
            "127.0.0.1:1",
            "--join",
            &format!("127.0.0.1:{}", cluster.peer_port(2)),
            "--join-token",
            token,
        ];
        let flags = flags.map(String::from);
        let mut stranger = Server::launch(&look_binary(), &data, common::server::free_port(), &flags).expect("starts");
        assert!(stranger.await_exit(PATIENCE).is_some_and(|s| !s.success()));
        assert!(stranger.output().contains(words), "{}", stranger.output());
    }
    assert_ne!(JOIN_TOKEN, "wrong");
    assert_eq!(cluster.ask(1, "LOOK.CLUSTER").expect("answers").text().lines().count(), members);
}

/// Jepsen on RedisRaft, issue 30: a voter that lost its data must not vote again.
#[test]
fn a_wiped_node_comes_back_only_as_a_learner_under_a_new_id() {
    let dir = directory();
    let Some(mut cluster) = cluster(&dir) else { return };
    insist(&cluster, 1, "LOOK.CLUSTER TRANSFER 1");
    for n in 0..50 {
        cluster.ask(2, &format!("RPUSH list {n}")).expect("a write");
    }
    cluster.kill9(3);
    std::fs::remove_dir_all(cluster.data_dir(3)).expect("wiped");
    cluster.launch(3).expect("starts");
    let wiped = cluster.nodes[2].as_mut().expect("ran");
    let status = wiped.await_exit(PATIENCE).expect("a wiped node stops");
    assert!(!status.success() && wiped.output().contains("another data directory"), "{}", wiped.output());
    cluster.kill9(3);
    assert_eq!(cluster.ask(2, "LLEN list").expect("reads").int(), Some(50));

    insist(&cluster, 1, "LOOK.CLUSTER REMOVE 3");
    let four = cluster.join().expect("starts");
    cluster.await_writable(four, PATIENCE).unwrap_or_else(|why| panic!("{why}"));
    assert!(has_role(&cluster, four, "learner"));
    assert_eq!(cluster.ask(four, "LLEN list").expect("reads").int(), Some(50));
}

#[test]
fn a_node_that_lags_is_not_promoted() {
    let dir = directory();
    let Some(mut cluster) = cluster(&dir) else { return };
    let four = cluster.join().expect("starts");
    cluster.await_writable(four, PATIENCE).unwrap_or_else(|why| panic!("{why}"));
    cluster.node(four).signal("STOP");
    // One entry each
    let mut writer = cluster.node(1).connect();
    for n in 0..1200 {
        assert!(!writer.line(&format!("SET k {n}")).expect("writes").is_error());
    }
    let why = cluster.ask(1, &format!("LOOK.CLUSTER PROMOTE {four}")).expect_err("it lags");
    let lag = why.split_ascii_whitespace().filter_map(|w| w.parse::<u64>().ok()).nth(1);
    assert!(why.contains("lags") && lag.is_some_and(|lag| lag >= 1100), "{why}");
    cluster.node(four).signal("CONT");
    wait("it catches up", || cluster.ask(1, &format!("LOOK.CLUSTER PROMOTE {four}")).is_ok());
}

/// Releases whose peers speak in other frames must not guess at each other's.
#[test]
fn a_peer_of_another_version_is_told_so_by_both_sides() {
    let dir = directory();
    if subject_is_redis() {
        return skip("Redis has no cluster of this kind");
    }
    let hello = |version: u8| [&b"LOOKPEER"[..], &[version], &[0; 39]].concat();
    let cluster = Cluster::start(dir.path(), 1).unwrap_or_else(|why| panic!("{why}"));
    let mut older = TcpStream::connect(("127.0.0.1", cluster.peer_port(1))).expect("connects");
    older.write_all(&hello(1)).expect("is read");
    let mut answer = Vec::new();
    older.read_to_end(&mut answer).expect("a hello and the end");
    assert!(answer.len() == 48 && answer.starts_with(b"LOOKPEER") && answer[8] > 1, "{answer:?}");
    wait("what the node says", || cluster.node(1).output().contains("it speaks version 1 of the peers' protocol"));

    let newer = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = newer.local_addr().expect("bound").to_string();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = newer.accept().expect("the joiner comes");
        stream.read_exact(&mut [0; 48]).expect("a hello");
        stream.write_all(&hello(200)).expect("is read");
    });
    let own = format!("127.0.0.1:{}", free_port());
    let flags = ["--dir", "joiner", "--peer-addr", &own, "--join", &at, "--join-token", JOIN_TOKEN].map(String::from);
    let mut joiner = Server::launch(&look_binary(), dir.path(), free_port(), &flags).expect("starts");
    assert!(joiner.await_exit(PATIENCE).is_some_and(|status| !status.success()), "{}", joiner.output());
    answering.join().expect("it answered");
    let said = joiner.output();
    assert!(said.contains("it speaks version 200") && said.contains("the same release of look"), "{said}");
}

/// What a client of a node that stays up saw.
#[derive(Default)]
struct Seen {
    writes: i64,
    reads: i64,
    pause: Duration,
    errors: Vec<String>,
}

/// Writes and strong reads in turn, on one connection.
fn work(address: SocketAddr, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut connection = Connection::open(address).expect("connects");
    let mut newest = 0;
    while !stop.load(Ordering::SeqCst) && seen.errors.is_empty() {
        for line in ["INCR counter", "GET counter"] {
            let begin = Instant::now();
            match connection.line(line).map_err(|e| e.to_string()) {
                Ok(reply) if reply.int().is_some_and(|n| n >= newest) => newest = reply.int().unwrap_or(0),
                other => seen.errors.push(format!("{line} after {:?}: {other:?}", begin.elapsed())),
            }
            seen.pause = seen.pause.max(begin.elapsed());
        }
        seen.writes += 1;
        seen.reads += 1;
    }
    seen
}

/// Clients of `ids` work while `what` happens. No operation may fail.
fn under_load(cluster: &mut Cluster, ids: &[usize], what: impl FnOnce(&mut Cluster)) -> Seen {
    let addresses: Vec<_> = ids.iter().map(|id| cluster.node(*id).address()).collect();
    let stop = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> =
            addresses.iter().flat_map(|at| [*at, *at]).map(|at| scope.spawn(move || work(at, stop))).collect();
        std::thread::sleep(Duration::from_millis(300));
        what(cluster);
        std::thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::SeqCst);
        let mut all = Seen::default();
        for seen in clients.into_iter().map(|c| c.join().unwrap_or_else(|_| panic!("a client panicked"))) {
            all.writes += seen.writes;
            all.reads += seen.reads;
            all.pause = all.pause.max(seen.pause);
            all.errors.extend(seen.errors);
        }
        assert!(all.errors.is_empty(), "{:?}\n{}", all.errors, cluster.output());
        all
    })
}

#[test]
fn leadership_is_handed_over_in_milliseconds() {
    let dir = directory();
    let Some(mut cluster) = cluster(&dir) else { return };
    let mut pauses = Vec::new();
    for round in 0..6 {
        let to = round % 3 + 1;
        let seen = under_load(&mut cluster, &[1, 2, 3], |cluster| {
            insist(cluster, round % 2 + 1, &format!("LOOK.CLUSTER TRANSFER {to}"));
            assert_eq!(cluster.leader(), Ok(to));
        });
        pauses.push(seen.pause);
    }
    pauses.sort();
    eprintln!("transfer: longest operation in each of {} rounds: {pauses:?}", pauses.len());
    // A third of the rounds: what takes longer in some is the machine
    assert!(pauses[pauses.len() / 3] < Duration::from_millis(400), "an election is about 1.3 s: {pauses:?}");
}

#[test]
fn a_rolling_restart_fails_no_operation() {
    let dir = directory();
    let Some(mut cluster) = cluster(&dir) else { return };
    let (mut writes, mut reads, mut pause) = (0, 0, Duration::ZERO);
    for round in 0..setting("LOOK_ROLLING_ROUNDS", 1) {
        for id in 1..=3 {
            let stay: Vec<usize> = (1..=3).filter(|other| *other != id).collect();
            // The worst case: the node that goes leads
            insist(&cluster, id, &format!("LOOK.CLUSTER TRANSFER {id}"));
            let seen = under_load(&mut cluster, &stay, |cluster| {
                cluster.node(id).signal("TERM");
                let server = cluster.nodes[id - 1].as_mut().expect("runs");
                assert!(server.await_exit(PATIENCE).is_some_and(|s| s.success()), "{}", server.output());
                cluster.launch(id).expect("starts");
                cluster.await_writable(id, PATIENCE).unwrap_or_else(|why| panic!("{why}"));
            });
            assert!(seen.writes > 100, "INVALID: only {} writes in round {round}", seen.writes);
            (writes, reads, pause) = (writes + seen.writes, reads + seen.reads, pause.max(seen.pause));
        }
    }
    eprintln!("rolling restart: {writes} writes and {reads} reads, none failed, longest {pause:?}");
    assert_eq!(cluster.ask(1, "GET counter").expect("reads").int(), Some(writes), "each write once");
}

#[test]
fn an_export_stops_at_its_epoch_and_stays_there() {
    let dir = directory();
    let Some(mut cluster) = cluster(&dir) else { return };
    let state = |cluster: &Cluster, node: usize| {
        let ask = |line: &str| cluster.ask(node, line).unwrap_or_else(|why| panic!("{line}: {why}"));
        (ask("LOOK.EPOCH").int().expect("a number"), ask("DEBUG DIGEST").text())
    };
    let mut writer = cluster.node(1).connect();
    let mut write = |from: usize| {
        let all: Vec<_> = (from..from + 300).map(|i| common::words(&format!("SET key:{} {i}", i % 50))).collect();
        writer.pipeline(&all).expect("replies");
    };
    write(0);
    // A state to compare with, then writes in the same pipeline on both sides of a second epoch
    let past = state(&cluster, 1);
    write(300);
    let middle = epoch(&cluster) - 137;
    write(600);
    // Checkpoints of later epochs are no hindrance while the log reaches back
    (1..=3).for_each(|id| drop(cluster.ask(id, "SAVE").expect("is saved")));

    for (stop, digest) in [(past.0, Some(past.1.clone())), (middle, None)] {
        let id = cluster.join_with(vec!["--stop-at".into(), stop.to_string()]).expect("starts");
        await_answer(&mut cluster, id);
        let shown = state(&cluster, id);
        assert_eq!(shown.0, stop);
        assert!(digest.is_none_or(|digest| digest == shown.1), "another content at epoch {stop}");
        for key in 0..50 {
            let then = cluster.ask(1, &format!("LOOK.AT {stop} GET key:{key}")).expect("reads");
            assert_eq!(cluster.ask(id, &format!("GET key:{key}")).expect("reads"), then, "key:{key} at epoch {stop}");
        }
        // It left, and stays where it is whatever the cluster does
        wait("its leave", || line_of(&cluster, 1, id).is_none());
        write(900);
        for line in
            ["SET key:1 x", "LOOK.READAT OFF", "SET key:1 x", "CONFIG SET requirepass x", "LOOK.ONCE token INCR n"]
        {
            let answer = cluster.ask(id, line);
            assert_eq!(answer.is_err_and(|e| e.starts_with("READONLY")), line != "LOOK.READAT OFF", "{line}");
        }
        assert_eq!(state(&cluster, id), shown);
        wait("its note of that", || cluster.node(id).output().contains("left the cluster"));
        cluster.kill9(id);
        cluster.launch(id).expect("starts");
        await_answer(&mut cluster, id);
        assert_eq!(state(&cluster, id), shown, "after a restart, with nobody's help");
        std::thread::sleep(Duration::from_secs(1));
        let said = cluster.node(id).output();
        assert_eq!(said.matches("left the cluster").count(), 1, "it left once, and asks no more: {said}");
        cluster.kill9(id);
    }

    // One whose epoch is still to come follows, and is never promoted
    let stop = epoch(&cluster) + 400;
    let id = cluster.join_with(vec!["--stop-at".into(), stop.to_string()]).expect("starts");
    wait("the join", || line_of(&cluster, 1, id).is_some());
    assert!(has_role(&cluster, id, "export"), "{:?}", line_of(&cluster, 1, id));
    let refused = cluster.ask(2, &format!("LOOK.CLUSTER PROMOTE {id}")).expect_err("promoted");
    assert!(refused.contains("never votes"), "{refused}");
    write(1200);
    write(1500);
    await_answer(&mut cluster, id);
    assert_eq!(state(&cluster, id).0, stop);
}

#[test]
fn an_export_of_an_epoch_before_the_log_says_what_can_be_had() {
    if subject_is_redis() {
        return skip("Redis has no cluster of this kind");
    }
    let dir = directory();
    let flags = vec![["--set", "log-keep-entries=4"].map(String::from).to_vec()];
    let mut cluster = Cluster::start_with(dir.path(), flags).unwrap_or_else(|why| panic!("{why}"));
    (0..30).for_each(|n| drop(cluster.ask(1, &format!("SET key {n}")).expect("writes")));
    // The first checkpoint lets the log go up to it when the next one is there
    cluster.ask(1, "SAVE").expect("is saved");
    (0..30).for_each(|n| drop(cluster.ask(1, &format!("SET key {n}")).expect("writes")));
    let saved = epoch(&cluster);
    cluster.ask(1, "SAVE").expect("is saved");
    let members = |cluster: &Cluster| cluster.ask(1, "LOOK.CLUSTER").expect("answers").text().matches("node").count();
    wait("the log lets go", || cluster.node(1).info("log_first") > 20);

    let early = cluster.join_with(vec!["--stop-at".into(), "3".into()]).expect("starts");
    let node = cluster.nodes[early - 1].as_mut().expect("was started");
    let (status, why) = (node.await_exit(PATIENCE), format!("--stop-at {saved} or later can be had"));
    assert!(status.is_some_and(|s| !s.success()) && node.output().contains(&why), "{status:?}: {}", node.output());
    assert_eq!(members(&cluster), 1, "it did not join: {}", cluster.output());
    cluster.kill9(early);
    let id = cluster.join_with(vec!["--stop-at".into(), saved.to_string()]).expect("starts");
    await_answer(&mut cluster, id);
    assert_eq!(cluster.ask(id, "LOOK.EPOCH").expect("answers").int(), Some(saved));
    assert_eq!(cluster.ask(id, "GET key").expect("answers").text(), "29");
}

#[test]
fn an_export_that_the_log_does_not_wait_for_says_so_and_leaves() {
    if subject_is_redis() {
        return skip("Redis has no cluster of this kind");
    }
    let dir = directory();
    let flags = vec![["--set", "log-keep-entries=4"].map(String::from).to_vec()];
    let mut cluster = Cluster::start_with(dir.path(), flags).unwrap_or_else(|why| panic!("{why}"));
    let write =
        |cluster: &Cluster| (0..30).for_each(|n| drop(cluster.ask(1, &format!("SET key {n}")).expect("writes")));
    // It joins before its epoch, and is away while that comes and goes
    let stop = epoch(&cluster) + 20;
    let id = cluster.join_with(vec!["--stop-at".into(), stop.to_string()]).expect("starts");
    wait("it follows", || line_of(&cluster, 1, id).is_some_and(|line| line.ends_with("lag=0")));
    cluster.kill9(id);
    write(&cluster);
    let (saved, past) = (epoch(&cluster), cluster.node(1).info("log_last"));
    cluster.ask(1, "SAVE").expect("is saved");
    write(&cluster);
    cluster.ask(1, "SAVE").expect("is saved");
    wait("the log lets go", || cluster.node(1).info("log_first") + 8 > past);
    assert!(saved > stop, "INVALID: epoch {stop} is the checkpoint's");
    let newest = epoch(&cluster);
    cluster.launch(id).expect("starts");
    let node = cluster.nodes[id - 1].as_mut().expect("was started");
    let status = node.await_exit(PATIENCE);
    let said = node.output();
    assert!(
        status.is_some_and(|s| !s.success()) && said.contains("let go of it while this node joined"),
        "{status:?}: {said}"
    );
    assert!(said.contains(&format!("--stop-at {newest} or later can be had")), "{said}");
    wait("its leave", || line_of(&cluster, 1, id).is_none());
}

/// Waits until a node serves.
fn await_answer(cluster: &mut Cluster, id: usize) {
    let node = cluster.nodes[id - 1].as_mut().expect("was started");
    node.await_ready(PATIENCE).unwrap_or_else(|why| panic!("{why}"));
}
