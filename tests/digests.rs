//! Nodes that apply the same log come to the same state: through panics, and through random choices that riders stand between.

mod common;

use common::server::{skip, subject_is_redis};
use common::{Cluster, Connection, Reply, words};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

fn start() -> Option<(tempfile::TempDir, Cluster)> {
    if subject_is_redis() {
        skip("Redis has no cluster of this kind");
        return None;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let cluster = Cluster::start(dir.path(), 3).unwrap_or_else(|why| panic!("{why}"));
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
