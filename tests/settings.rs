//! Replicated settings: what changes replies is set for the cluster, by an epoch of the log; the rest is each node's own.

mod common;

use common::{Cluster, Connection, Reply, Server};
use std::time::{Duration, Instant};

fn config(server: &Server, name: &str) -> String {
    let reply = server.connect().line(&format!("CONFIG GET {name}")).expect("a reply");
    reply.items().get(1).map(Reply::text).unwrap_or_default()
}

fn await_config(server: &Server, name: &str, value: &str) {
    let begin = Instant::now();
    while config(server, name) != value {
        assert!(begin.elapsed() < Duration::from_secs(10), "{name} is {} and not {value}", config(server, name));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_setting_is_the_clusters_and_outlives_restarts() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut cluster = Cluster::start(dir.path(), 3).expect("three nodes");
    let mut one = cluster.node(1).connect();
    let mut ask = |line: &str| one.line(line).expect("a reply");
    ask("SET k v");
    let before = ask("LOOK.LAST");
    assert_eq!(ask("CONFIG SET max-write-cost 400 maxclients 77").text(), "OK");
    assert_eq!(Reply::Int(before.int().expect("an epoch") + 1), ask("LOOK.LAST"), "one epoch");
    assert_eq!(ask(&format!("LOOK.AT {} GET k", before.int().unwrap_or(0))).text(), "v");
    for id in 2..=3 {
        await_config(cluster.node(id), "max-write-cost", "400");
        assert_eq!(config(cluster.node(id), "maxclients"), "10000", "of one node");
        let refused =
            cluster.node(id).connect().line("BITOP AND d a b c d e f g h i j k l m n o p q r s t u v w x y z");
        assert!(refused.expect("a reply").text().contains("max-write-cost is 400"));
    }
    // From a checkpoint, from the log, and from a peer.
    assert_eq!(cluster.node(2).connect().line("SAVE").expect("a reply").text(), "OK");
    cluster.kill9(2);
    cluster.kill9(3);
    cluster.launch(2).expect("a restart");
    cluster.await_writable(2, Duration::from_secs(30)).expect("node 2 is back");
    assert_eq!(config(cluster.node(2), "max-write-cost"), "400");
    let mut two = cluster.node(2).connect();
    assert_eq!(two.line("CONFIG SET max-write-cost 500 requirepass secret").expect("a reply").text(), "OK");
    assert!(cluster.node(2).connect().line("GET k").expect("a reply").text().starts_with("NOAUTH"));
    cluster.launch(3).expect("a restart");
    let begin = Instant::now();
    let address = cluster.node(3).address();
    while !Connection::open(address).and_then(|mut c| c.line("GET k")).is_ok_and(|r| r.text().starts_with("NOAUTH")) {
        assert!(begin.elapsed() < Duration::from_secs(30), "node 3 knows no password:\n{}", cluster.output());
        std::thread::sleep(Duration::from_millis(50));
    }
}
