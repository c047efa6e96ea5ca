//! Epochs and reads in the past, seen from outside: one write is one epoch, each can be read, none ever changes.

mod common;

use common::server::{skip, subject_is_redis};
use common::{Cluster, Connection, Random, Reply, Server, words};
use std::collections::BTreeMap;

fn look() -> Option<(tempfile::TempDir, Server)> {
    if subject_is_redis() {
        skip("Redis has no past");
        return None;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::look(dir.path(), &[]).unwrap_or_else(|why| panic!("{why}"));
    Some((dir, server))
}

fn int(connection: &mut Connection, line: &str) -> i64 {
    let reply = connection.line(line).unwrap_or_else(|e| panic!("{line}: {e}"));
    reply.int().unwrap_or_else(|| panic!("{line}: {reply:?}"))
}

fn bulk(value: i64) -> Reply {
    Reply::Bulk(value.to_string().into_bytes())
}

#[test]
fn every_epoch_of_one_pipeline_can_be_read() {
    let Some((_dir, server)) = look() else { return };
    let mut c = server.connect();
    let before = int(&mut c, "LOOK.EPOCH");
    let requests: Vec<_> = (0..5000).map(|_| words("INCR n")).collect();
    let replies = c.pipeline(&requests).expect("one pipeline");
    assert_eq!(replies.last(), Some(&Reply::Int(5000)));
    assert_eq!(int(&mut c, "LOOK.EPOCH"), before + 5000, "one write, one epoch");
    assert_eq!(int(&mut c, "LOOK.LAST"), before + 5000);
    let reads: Vec<_> = (1..=5000).map(|n| words(&format!("LOOK.AT {} GET n", before + n))).collect();
    for (n, reply) in (1..).zip(c.pipeline(&reads).expect("past reads")) {
        assert_eq!(reply, bulk(n), "at epoch {}", before + n);
    }
    assert!(c.line(&format!("LOOK.AT {before} GET n")).expect("before the first").is_nil());
}

#[test]
fn what_changes_nothing_for_others_costs_as_many_epochs_as_promised() {
    let Some((_dir, server)) = look() else { return };
    let mut c = server.connect();
    let cost = |c: &mut Connection, lines: &[&str]| -> i64 {
        let before = int(c, "LOOK.EPOCH");
        lines.iter().for_each(|l| drop(c.line(l).expect("a reply")));
        int(c, "LOOK.EPOCH") - before
    };
    assert_eq!(cost(&mut c, &["GET a", "PING", "NOSUCH", "SET a", "KEYS *", "EXISTS a"]), 0, "reads and refusals");
    assert_eq!(cost(&mut c, &["SET a 1"]), 1);
    assert_eq!(cost(&mut c, &["MULTI", "SET a 1", "INCR a", "GET a", "EXEC"]), 1, "EXEC is one epoch");
    assert_eq!(cost(&mut c, &["MULTI", "SET a 1", "DISCARD"]), 0);
}

#[test]
fn epochs_out_of_reach_are_typed_errors_with_the_bounds() {
    let Some((_dir, server)) = look() else { return };
    let mut c = server.connect();
    c.line("SET a 1").expect("a write");
    let newest = int(&mut c, "LOOK.EPOCH");
    let future = c.line(&format!("LOOK.AT {} GET a", newest + 1000)).expect("a reply").text();
    assert!(future.starts_with("EPOCHFUTURE") && future.contains(&format!("upper={}", newest + 1)), "{future}");
    for line in ["LOOK.AT", "LOOK.AT x GET a", "LOOK.AT 1", "LOOK.AT -1 GET a", "LOOK.AT 99999999999999999999 GET a"] {
        assert!(c.line(line).expect("a reply").is_error(), "{line}");
    }
    let refused = c.line(&format!("LOOK.AT {newest} SET a 2")).expect("a reply");
    assert!(refused.is_error(), "a write in the past: {refused:?}");
    assert_eq!(c.line("GET a").expect("a read"), bulk(1));
    assert!(int(&mut c, "LOOK.SINCE") <= newest);
}

#[test]
fn a_connection_can_live_in_the_past() {
    let Some((_dir, server)) = look() else { return };
    let (mut c, mut other) = (server.connect(), server.connect());
    c.line("SET a old").expect("a write");
    let then = int(&mut c, "LOOK.EPOCH");
    c.line("SET a new").expect("a write");
    assert_eq!(c.line(&format!("LOOK.READAT {then}")).expect("READAT"), Reply::Simple(b"OK".to_vec()));
    assert_eq!(c.line("GET a").expect("a read"), Reply::Bulk(b"old".to_vec()));
    assert!(c.line("SET a no").expect("a reply").is_error(), "writes are refused in the past");
    assert_eq!(other.line("GET a").expect("a read"), Reply::Bulk(b"new".to_vec()));
    c.line("LOOK.READAT OFF").expect("READAT OFF");
    assert_eq!(c.line("GET a").expect("a read"), Reply::Bulk(b"new".to_vec()));
}

#[test]
fn a_token_with_another_body_is_an_error() {
    let Some((_dir, server)) = look() else { return };
    let mut c = server.connect();
    assert_eq!(c.line("LOOK.ONCE t INCR n").expect("first"), Reply::Int(1));
    assert_eq!(server.connect().line("LOOK.ONCE t INCR n").expect("again"), Reply::Int(1));
    assert!(c.line("LOOK.ONCE t INCR m").expect("another body").is_error());
    assert_eq!(c.line("GET n").expect("a read"), bulk(1));
}

#[test]
fn expiry_is_as_of_the_epoch() {
    let Some((_dir, server)) = look() else { return };
    let mut c = server.connect();
    c.line("SET a 1 PX 150").expect("a write");
    // Not the newest, which may be the one in which it was found expired
    let alive = int(&mut c, "LOOK.LAST");
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(c.line("GET a").expect("a read").is_nil());
    assert_eq!(c.line(&format!("LOOK.AT {alive} GET a")).expect("a past read"), bulk(1));
    let left = int(&mut c, &format!("LOOK.AT {alive} PTTL a"));
    assert!((1..=150).contains(&left), "PTTL as of its epoch: {left}");
    c.line("SET b 1").expect("a later write, under a later time");
    let later = int(&mut c, "LOOK.EPOCH");
    assert!(c.line(&format!("LOOK.AT {later} GET a")).expect("a past read").is_nil());
}

#[test]
fn a_batch_without_an_epoch_changes_nothing_of_the_one_before() {
    let Some((_dir, server)) = look() else { return };
    let (mut c, mut other) = (server.connect(), server.connect());
    for line in ["WATCH w", "MULTI", "SET never 1"] {
        c.line(line).expect("a reply");
    }
    other.line("SET w 1").expect("a write, which the transaction will find");
    other.line("SET a 1 PX 150").expect("a write");
    let alive = int(&mut other, "LOOK.LAST");
    let read = |c: &mut Connection| {
        let value = c.line(&format!("LOOK.AT {alive} GET a")).expect("a past read");
        (value, int(c, &format!("LOOK.AT {alive} PTTL a")))
    };
    let before = read(&mut other);
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(c.line("EXEC").expect("aborted, in the log, at a time at which `a` is expired").is_nil());
    assert_eq!(int(&mut other, "LOOK.EPOCH"), alive, "an aborted transaction has no epoch");
    assert_eq!((read(&mut other), before.0.clone()), (before, bulk(1)));
}

/// Every value of some keys, by epoch.
#[derive(Default)]
struct Chronicle {
    values: BTreeMap<(String, i64), Option<Reply>>,
    first: i64,
    last: i64,
}

impl Chronicle {
    /// Random writes; each notes what its key holds from its epoch on.
    fn write(&mut self, connection: &mut Connection, random: &mut Random, count: usize) {
        for _ in 0..count {
            let key = format!("k{}", random.below(5));
            let line = match random.below(6) {
                0 => format!("DEL {key}"),
                1 => format!("APPEND {key} x{}", random.below(10)),
                2 => format!("SET {key} {} EX 1000", random.below(1000)),
                3 => format!("SETRANGE {key} {} yz", random.below(50)),
                4 => format!("RENAME {key} k{}", random.below(5)),
                _ => format!("SET {key} {}", random.below(1000)),
            };
            connection.line(&line).expect("a reply");
            let epoch = int(connection, "LOOK.EPOCH");
            if self.first == 0 {
                self.first = epoch;
            }
            self.last = epoch;
            for name in (0..5).map(|n| format!("k{n}")) {
                let now = connection.line(&format!("GET {name}")).expect("a live read");
                self.values.insert((name, epoch), Some(now).filter(|r| !r.is_nil()));
            }
        }
    }

    fn check(&self, connection: &mut Connection, random: &mut Random, reads: usize) {
        for _ in 0..reads {
            let epoch = random.between(self.first, self.last);
            let name = format!("k{}", random.below(5));
            let known = self.values.range(..=(name.clone(), epoch)).next_back().filter(|((n, _), _)| *n == name);
            let expected = known.and_then(|(_, value)| value.clone());
            let line = format!("LOOK.AT {epoch} GET {name}");
            let got = connection.line(&line).expect("a past read");
            assert_eq!(Some(got).filter(|r| !r.is_nil()), expected, "{line}");
        }
    }
}

#[test]
fn the_past_is_what_it_was_even_after_a_restart() {
    let Some((dir, mut server)) = look() else { return };
    let mut random = Random::new(1);
    let mut chronicle = Chronicle::default();
    for round in 0..4 {
        let mut c = server.connect();
        chronicle.write(&mut c, &mut random, 300);
        if round == 1 {
            assert!(!c.line("SAVE").expect("a checkpoint").is_error());
        }
        chronicle.check(&mut c, &mut random, 500);
        server.kill9();
        drop(server);
        server = Server::look(dir.path(), &[]).unwrap_or_else(|why| panic!("{why}"));
        chronicle.check(&mut server.connect(), &mut random, 500);
    }
}

#[test]
fn the_past_is_the_same_on_every_node() {
    if subject_is_redis() {
        return skip("Redis has no past");
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let cluster = Cluster::start(dir.path(), 3).unwrap_or_else(|why| panic!("{why}"));
    let mut random = Random::new(2);
    let mut chronicle = Chronicle::default();
    chronicle.write(&mut cluster.node(1).connect(), &mut random, 300);
    for id in cluster.up() {
        chronicle.check(&mut cluster.node(id).connect(), &mut random, 500);
    }
}
