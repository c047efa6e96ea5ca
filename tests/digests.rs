//! Nodes that apply the same log come to the same state, through panics and whatever stands between; one that does not is found.

mod common;

use common::server::{skip, subject_is_redis};
use common::{Cluster, Connection, PATIENCE, Reply, wait, words};
use std::time::{Duration, Instant};

fn start() -> Option<(tempfile::TempDir, Cluster)> {
    if subject_is_redis() {
        skip("Redis has no cluster of this kind");
        return None;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let flags = vec![["--set", "log-keep-entries=4"].map(String::from).to_vec(); 3];
    let cluster = Cluster::start_with(dir.path(), flags).unwrap_or_else(|why| panic!("{why}"));
    Some((dir, cluster))
}

fn pipeline(connection: &mut Connection, lines: &[&str]) -> Vec<Reply> {
    connection.pipeline(&lines.iter().map(|l| words(l)).collect::<Vec<_>>()).expect("a connection that stays")
}

fn follower(cluster: &Cluster) -> usize {
    let leader = cluster.leader().expect("a leader");
    (1..=3).find(|id| *id != leader).expect("three nodes")
}

/// All nodes show the same digest once each has applied the last write of `through`.
fn assert_equal_state(cluster: &Cluster, through: &mut Connection) {
    through.line("INCR done").expect("a write");
    let done = through.line("GET done").expect("a read");
    cluster.await_equal("GET done", &done, PATIENCE).unwrap_or_else(|why| panic!("{why}"));
    let digest = through.line("DEBUG DIGEST").expect("a digest");
    cluster.await_equal("DEBUG DIGEST", &digest, PATIENCE).unwrap_or_else(|why| panic!("{why}"));
}

#[test]
fn a_panic_in_a_helper_fails_its_call_on_every_node_alike() {
    let Some((_dir, cluster)) = start() else { return };
    for id in cluster.up() {
        let planted = cluster.node(id).connect().line("DEBUG PLANT-PANIC boom").expect("a reply");
        assert_eq!(planted.text(), "OK");
    }
    let mut client = cluster.node(follower(&cluster)).connect();
    for round in 1..=3 {
        let replies = pipeline(
            &mut client,
            &[
                "INCR n",
                "LPUSH l a",
                "SET boom x",
                "INCR n",
                "GET boom",
                "GET n",
                "MULTI",
                "INCR n",
                "SET boom y",
                "EXEC",
            ],
        );
        assert_eq!(replies[0].int(), Some(3 * round - 2));
        assert_eq!(replies[1].int(), Some(round));
        assert!(replies[2].is_error() && replies[2].text().contains("panicked"), "{:?}", replies[2]);
        assert_eq!(replies[3].int(), Some(3 * round - 1));
        assert!(replies[4].is_nil(), "the call that panicked left nothing behind: {:?}", replies[4]);
        assert_eq!(replies[5].text(), (3 * round - 1).to_string());
        let exec = replies[9].items();
        assert!(exec[0].int() == Some(3 * round) && exec[1].is_error(), "{exec:?}");
    }
    // The past says the same: the call failed then, too
    let epoch = client.line("LOOK.LAST").expect("an epoch").int().expect("a number");
    for back in 0..12 {
        let at = client.line(&format!("LOOK.AT {} GET boom", epoch - back)).expect("a reply");
        assert!(at.is_nil(), "epoch {}: {at:?}", epoch - back);
    }
    assert_eq!(client.line(&format!("LOOK.AT {} GET n", epoch - 1)).expect("a reply").text(), "8");
    assert_equal_state(&cluster, &mut client);
}

#[test]
fn random_choices_do_not_depend_on_riders() {
    let Some((_dir, cluster)) = start() else { return };
    let mut client = cluster.node(follower(&cluster)).connect();
    let members: Vec<String> = (0..200).map(|i| format!("m{i}")).collect();
    client.line(&format!("SADD s {}", members.join(" "))).expect("a write");
    for _ in 0..10 {
        pipeline(&mut client, &["GET a", "SPOP s", "GET b", "RANDOMKEY", "SPOP s", "SPOP s 2"]);
    }
    assert_equal_state(&cluster, &mut client);
}

/// Asks until the reply is an error of this kind; tells how long that took.
fn until_error(connection: &mut Connection, line: &str, kind: &str) -> Duration {
    let begin = Instant::now();
    loop {
        let reply = connection.line(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        if reply.is_error() {
            assert!(reply.text().starts_with(kind), "{line}: {reply:?}");
            return begin.elapsed();
        }
        assert!(begin.elapsed() < PATIENCE, "{line} is still answered: {reply:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Within a second. A stall of the machine is no fault of the nodes; it does not hit three clusters in a row.
fn a_divergence_is_found_within_a_second(wrong: impl Fn(&Cluster) -> usize) {
    let found: Vec<Duration> = (0..3)
        .map_while(|_| start().map(|(_dir, cluster)| a_divergence_is_found(&cluster, wrong(&cluster))))
        .take_while(|found| *found >= Duration::from_secs(1))
        .collect();
    assert!(found.len() < 3, "found after {found:?}");
}

/// Tells how soon.
fn a_divergence_is_found(cluster: &Cluster, wrong: usize) -> Duration {
    let mut at_wrong = cluster.node(wrong).connect();
    at_wrong.line("LOOK.CONSISTENCY eventual").expect("a reply");
    let mut client = cluster.node(1 + wrong % 3).connect();
    client.line("SET x 1").expect("a write");
    assert_eq!(at_wrong.line("DEBUG PLANT-DIVERGENCE").expect("a reply").text(), "OK");
    client.line("SET x 2").expect("the write that carries the divergence");
    let found = until_error(&mut at_wrong, "GET x", "DIVERGED");
    eprintln!("digests: found after {found:?}");
    // The answer may be faster than what the node says of it
    wait("what the node says", || cluster.node(wrong).output().contains("is not the majority's"));
    for line in ["SET x 3", "LOOK.AT 1 GET x"] {
        let refused = at_wrong.line(line).expect("a reply");
        assert!(refused.is_error() && refused.text().contains("DIVERGED"), "{line}: {refused:?}");
    }
    // The others go on
    let begin = Instant::now();
    while client.line("INCR n").map_or(true, |r| r.is_error()) {
        assert!(begin.elapsed() < PATIENCE, "the others take no writes:\n{}", cluster.output());
        client = cluster.node(1 + wrong % 3).connect();
    }
    assert!(!client.line("GET x").expect("a strong read").is_error());
    // What the log has let go of would come as a checkpoint: it takes none
    let leads = cluster.leader().expect("a leader");
    for _ in 0..2 {
        (0..20).for_each(|_| drop(client.line("INCR n").expect("a write")));
        cluster.ask(leads, "SAVE").expect("is saved");
    }
    std::thread::sleep(Duration::from_secs(2));
    let said = cluster.node(wrong).output();
    assert!(!said.contains("checkpoint of"), "{said}");
    found
}

#[test]
fn a_follower_that_differs_stops_within_a_second() {
    a_divergence_is_found_within_a_second(follower);
}

#[test]
fn a_leader_that_differs_stops_within_a_second() {
    a_divergence_is_found_within_a_second(|cluster| cluster.leader().expect("a leader"));
}

#[test]
fn planting_needs_the_debug_command() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let flags = ["--set".to_owned(), "enable-debug-command=no".to_owned()];
    let server = common::Server::look(dir.path(), &flags).unwrap_or_else(|why| panic!("{why}"));
    let mut client = server.connect();
    for line in ["DEBUG PLANT-PANIC k", "DEBUG PLANT-DIVERGENCE", "DEBUG SLEEP 0"] {
        let reply = client.line(line).expect("a reply");
        assert!(reply.text().starts_with("ERR DEBUG command not allowed"), "{line}: {reply:?}");
    }
    assert!(!client.line("SET k v").expect("a reply").is_error());
}
