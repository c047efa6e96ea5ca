//! Faults one at a time, where what must happen can be said exactly.

use crate::common::server::skip;
use crate::common::{Random, Reply};
use crate::faults::{Breaker, Fault};
use crate::net::has;
use crate::network;
use crate::nodes::Nodes;
use std::path::Path;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn three(dir: &Path) -> Option<Nodes> {
    Some(Nodes::new(network(3)?, dir, 3, &[]))
}

fn wait(what: &str, nodes: &Nodes, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "waited too long: {what}\n{}", nodes.outputs());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn ask(nodes: &Nodes, place: usize, line: &str) -> String {
    let text = |reply: Reply| reply.int().map_or_else(|| reply.text(), |n| n.to_string());
    nodes.ask(place, line).map_or_else(|why| why, text)
}

/// Brings leadership to a place.
fn lead(nodes: &Nodes, place: usize) {
    let order = format!("LOOK.CLUSTER TRANSFER {}", place + 1);
    wait("a transfer", nodes, || nodes.ask(place, &order).is_ok() && nodes.leader() == Some(place));
}

fn all_equal(nodes: &Nodes) {
    wait("equal digests", nodes, || {
        let all = [0, 1, 2].map(|place| (ask(nodes, place, "LOOK.EPOCH"), ask(nodes, place, "DEBUG DIGEST")));
        all.iter().all(|one| *one == all[0])
    });
}

/// Writes to a place until it takes no more; how many it took, and its last word.
fn fill(nodes: &Nodes, place: usize, bytes: usize, at_most: usize) -> (usize, String) {
    for n in 0..at_most {
        let value = vec![b'x'; bytes];
        let set = [b"SET".to_vec(), format!("large:{place}:{n}").into_bytes(), value];
        let reply = nodes.connect(place, PATIENCE).and_then(|mut c| c.call(&set).map_err(|e| e.to_string()));
        match reply {
            Ok(reply) if !reply.is_error() => {}
            Ok(refusal) => return (n, refusal.text()),
            Err(why) => return (n, why),
        }
    }
    (at_most, String::new())
}

#[test]
fn a_full_disk_stops_one_node_and_room_brings_it_back() {
    let dir = directory();
    let Some(mut nodes) = three(dir.path()) else { return };
    nodes.small_disk(2, 80).expect("a small disk");
    nodes.start_all().unwrap_or_else(|why| panic!("{why}"));
    lead(&nodes, 0);
    // More than a segment of the log, through a node that has room
    let (taken, why) = fill(&nodes, 0, 1 << 20, 90);
    assert_eq!((taken, why.as_str()), (90, ""), "the others have room\n{}", nodes.outputs());
    wait("it says that its disk is full", &nodes, || nodes.output(2).contains("No space left on device"));
    let (taken, why) = fill(&nodes, 2, 1, 1);
    assert!(taken == 0 && why.starts_with("MISCONF"), "{taken}, {why}\n{}", nodes.outputs());
    nodes.kill(2);
    nodes.resize_disk(2, 600).expect("room");
    nodes.launch(2).expect("starts");
    nodes.await_writable(2, PATIENCE).unwrap_or_else(|why| panic!("{why}"));
    all_equal(&nodes);
    assert_eq!(ask(&nodes, 2, "STRLEN large:0:89"), (1 << 20).to_string());
}

#[test]
fn a_node_whose_syncs_fail_acknowledges_nothing_and_the_others_go_on() {
    if !has("strace") {
        return skip("strace is not installed");
    }
    let dir = directory();
    let Some(mut nodes) = three(dir.path()) else { return };
    nodes.start_all().unwrap_or_else(|why| panic!("{why}"));
    lead(&nodes, 0);
    for place in [0, 1] {
        let mut strace = nodes.break_syncs(place).expect("strace starts");
        let leads = nodes.leader() == Some(place);
        let mut acknowledged = 0;
        let mut connection = nodes.connect(place, Duration::from_secs(5)).expect("connects");
        // strace takes a moment until it holds every thread
        let refusal = loop {
            match connection.line(&format!("SET last:{place} {}", acknowledged + 1)) {
                Ok(reply) if reply.is_error() => break reply.text(),
                Ok(_) => acknowledged += 1,
                Err(e) => break e.to_string(),
            }
        };
        assert!(nodes.output(place).contains("Input/output error"), "{refusal}\n{}", nodes.outputs());
        let (taken, why) = fill(&nodes, place, 1, 1);
        assert!(taken == 0 && why.starts_with("MISCONF"), "{taken}, {why}\n{}", nodes.outputs());
        let begin = Instant::now();
        nodes.await_writable(2, PATIENCE).unwrap_or_else(|why| panic!("{why}"));
        println!(
            "sync error: leads {leads}, {acknowledged} writes before it, then '{refusal}'; others write after {:.1?}",
            begin.elapsed()
        );
        let newest: u64 = ask(&nodes, 2, &format!("GET last:{place}")).parse().unwrap_or(0);
        // The write that got no OK may have happened or not
        assert!((acknowledged..=acknowledged + 1).contains(&newest), "{newest} of {acknowledged}");
        nodes.kill(place);
        let _ = strace.wait();
        nodes.launch(place).expect("starts");
        nodes.await_writable(place, PATIENCE).unwrap_or_else(|why| panic!("{why}"));
    }
    all_equal(&nodes);
}

#[test]
fn a_wrong_clock_neither_ends_nor_prolongs_a_life() {
    let dir = directory();
    let Some(mut nodes) = three(dir.path()) else { return };
    if !nodes.can_set_clocks() {
        return skip("libfaketime is not installed (apt-get install faketime)");
    }
    nodes.start_all().unwrap_or_else(|why| panic!("{why}"));
    lead(&nodes, 0);
    let everywhere = |nodes: &Nodes, line: &str| [0, 1, 2].map(|place| ask(nodes, place, line));
    for wrong in [3600, -3600] {
        nodes.set_clock(1, wrong).expect("a clock");
        // The library looks for a new time once a second
        std::thread::sleep(Duration::from_millis(1500));
        let begin = Instant::now();
        for line in ["SET long v PX 600000", "SET short v PX 1500"] {
            assert!(nodes.ask(1, line).is_ok());
        }
        assert_eq!(everywhere(&nodes, "GET long"), ["v", "v", "v"], "a follower is {wrong} s off");
        wait("the short life ends", &nodes, || everywhere(&nodes, "EXISTS short").iter().all(|n| n == "0"));
        assert!(begin.elapsed() > Duration::from_millis(500), "it ended after {:?}", begin.elapsed());
        nodes.set_clock(1, 0).expect("a clock");
    }
    // The leader's clock is the cluster's: it may end a life too early, but alike everywhere, and for ever
    nodes.set_clock(0, 3600).expect("a clock");
    std::thread::sleep(Duration::from_millis(1500));
    assert!(nodes.ask(0, "SET other v").is_ok());
    wait("an hour has passed", &nodes, || everywhere(&nodes, "EXISTS long").iter().all(|n| n == "0"));
    nodes.set_clock(0, 0).expect("a clock");
    std::thread::sleep(Duration::from_millis(1500));
    lead(&nodes, 2);
    assert!(nodes.ask(2, "SET other w").is_ok());
    assert_eq!(everywhere(&nodes, "EXISTS long"), ["0", "0", "0"]);
    all_equal(&nodes);
}

/// TCP tries again ever more seldom: without more ado a partition of seven seconds would last another five on connections that were there before.
#[test]
fn a_partition_is_over_when_it_is_over() {
    let dir = directory();
    let Some(mut nodes) = three(dir.path()) else { return };
    nodes.start_all().unwrap_or_else(|why| panic!("{why}"));
    lead(&nodes, 0);
    (0..3).for_each(|place| drop(nodes.ask(place, "GET k").expect("a read")));
    nodes.net.block([(0, 2), (2, 0), (1, 2), (2, 1)]).expect("rules");
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(7) {
        let read =
            nodes.connect(2, Duration::from_secs(1)).and_then(|mut c| c.line("GET k").map_err(|e| e.to_string()));
        assert!(read.map_or(true, |reply| reply.is_error()), "a node that is alone answers");
        assert!(nodes.ask(0, "INCR k").is_ok(), "{}", nodes.outputs());
    }
    nodes.net.heal().expect("rules");
    let begin = Instant::now();
    wait("a strong read on each node", &nodes, || (0..3).all(|place| nodes.ask(place, "GET k").is_ok()));
    let took = begin.elapsed();
    println!("partition: strong reads on all nodes {took:.2?} after it");
    assert!(took < Duration::from_secs(4), "after the partition it took {took:?}");
}

/// The harness itself: faults of these kinds are really there.
#[test]
fn what_is_cut_off_is_cut_off() {
    let dir = directory();
    let Some(mut nodes) = three(dir.path()) else { return };
    nodes.start_all().unwrap_or_else(|why| panic!("{why}"));
    lead(&nodes, 0);
    nodes.net.block([(0, 1), (1, 0), (0, 2), (2, 0)]).expect("rules");
    let reply = nodes.connect(0, Duration::from_secs(2)).and_then(|mut c| c.line("SET k 1").map_err(|e| e.to_string()));
    assert!(reply.as_ref().map_or(true, |reply| reply.is_error()), "a leader alone acknowledged: {reply:?}");
    nodes.await_writable(1, PATIENCE).unwrap_or_else(|why| panic!("{why}"));
    nodes.net.heal().expect("rules");
    nodes.await_writable(0, PATIENCE).unwrap_or_else(|why| panic!("{why}"));
    // One way only: what node 1 says is not heard, what it hears is
    let leader = nodes.await_leader(PATIENCE).unwrap_or_else(|why| panic!("{why}"));
    let others: Vec<usize> = (0..3).filter(|place| *place != leader).collect();
    nodes.net.block(others.iter().map(|other| (leader, *other))).expect("rules");
    wait("another leads", &nodes, || others.iter().any(|other| nodes.ask(*other, "SET k 2").is_ok()));
    nodes.net.heal().expect("rules");
    // All at once
    let mut breaker = Breaker::new(&mut nodes, Random::new(1), &[Fault::KillAll]);
    breaker.run(Duration::from_millis(500));
    breaker.end();
    assert_eq!(breaker.violations, Vec::<String>::new());
    all_equal(&nodes);
}
