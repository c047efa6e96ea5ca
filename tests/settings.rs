//! Settings and statistics, as an operator sees them. What changes replies is set for the cluster, by an epoch of the log; the rest is each node's own.

mod common;

use common::{Cluster, Connection, PATIENCE, Reply, Server, wait};

fn config(server: &Server, name: &str) -> String {
    let reply = server.connect().line(&format!("CONFIG GET {name}")).expect("a reply");
    reply.items().get(1).map(Reply::text).unwrap_or_default()
}

fn await_config(server: &Server, name: &str, value: &str) {
    wait(&format!("{name} to be {value}"), || config(server, name) == value);
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
    cluster.await_writable(2, PATIENCE).expect("node 2 is back");
    assert_eq!(config(cluster.node(2), "max-write-cost"), "400");
    let mut two = cluster.node(2).connect();
    assert_eq!(two.line("CONFIG SET max-write-cost 500 requirepass secret").expect("a reply").text(), "OK");
    assert!(cluster.node(2).connect().line("GET k").expect("a reply").text().starts_with("NOAUTH"));
    cluster.launch(3).expect("a restart");
    let get = || Connection::open(cluster.node(3).address()).and_then(|mut c| c.line("GET k"));
    wait("node 3 knows the password", || get().is_ok_and(|reply| reply.text().starts_with("NOAUTH")));
}

/// The reads of a transaction that writes run where writes are applied: together with them they may cost what one write may.
#[test]
fn a_transaction_whose_reads_are_too_large_is_refused_before_anything_is_run() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let look = Server::look(dir.path(), &[]).expect("a node");
    let mut one = look.connect();
    let mut ask = |line: &str| one.line(line).expect("a reply");
    for n in 0..200 {
        ask(&format!("SET key:{n} v"));
    }
    ask("CONFIG SET max-write-cost 5000");
    let before = ask("LOOK.EPOCH");
    ask("MULTI");
    ask("SET a 1");
    assert_eq!(ask("KEYS *").text(), "QUEUED");
    let refused = ask("EXEC").text();
    assert!(refused.starts_with("EXECABORT ") && refused.ends_with("max-write-cost is 5000"), "{refused}");
    assert_eq!((ask("EXISTS a"), ask("LOOK.EPOCH")), (Reply::Int(0), before));
    // as things are at EXEC, in the database that they are asked of
    for (db, answers) in [(1, 3), (0, 1)] {
        ask("MULTI");
        ask(&format!("SELECT {db}"));
        ask("SET a 1");
        ask("KEYS *");
        let reply = ask("EXEC");
        assert_eq!(if answers == 1 { 1 } else { reply.items().len() }, answers, "{reply:?}");
        assert_eq!(reply.text().starts_with("EXECABORT "), answers == 1, "{reply:?}");
        ask("SELECT 0");
    }
    // one that only reads delays nobody
    ask("MULTI");
    ask("KEYS *");
    assert_eq!(ask("EXEC").items()[0].items().len(), 200);
}

/// What is stored under its keys counts, not only what its arguments say.
#[test]
fn a_write_that_is_large_by_what_is_stored_is_refused_before_it_is_run() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let look = Server::look(dir.path(), &[]).expect("a node");
    let mut one = look.connect();
    let mut ask = |line: &str| one.line(line).expect("a reply");
    let members: String = (0..500).map(|n| format!(" member:{n}")).collect();
    ask(&format!("RPUSH large{members}"));
    ask(&format!("RPUSH wide{}", " x".repeat(10)));
    ask("RPUSH small a b");
    ask("CONFIG SET max-write-cost 5000");
    let before = ask("LOOK.EPOCH");
    let refused = ask("COPY large other").text();
    assert!(refused.starts_with("ERR 'copy' may take 2"), "50 operations for each of 500 elements: {refused}");
    assert!(refused.ends_with("max-write-cost is 5000; most of them are 50*len(source)"), "{refused}");
    assert!(ask("LOOK.ONCE token COPY large other").text().ends_with("50*len(source)"));
    assert!(ask("LPOP large 400").text().contains("max-write-cost is 5000"));
    // together with others, and without running those
    ask("MULTI");
    ask("SET a 1");
    ask("COPY large other");
    let refused = ask("EXEC").text();
    assert!(refused.starts_with("EXECABORT ") && refused.ends_with("max-write-cost is 5000"), "{refused}");
    assert_eq!((ask("EXISTS a other"), ask("LOOK.EPOCH")), (Reply::Int(0), before));
    // small by what is stored, whatever the arguments allow
    assert_eq!(ask("COPY small other"), Reply::Int(1));
    assert_eq!(ask("LOOK.ONCE token COPY small again"), Reply::Int(1));
    assert_eq!(ask("LPOP wide 1000000").items().len(), 10);
    assert_eq!(ask("LPOP large 3").items().len(), 3);
    ask("MULTI");
    ask("COPY small other REPLACE");
    assert_eq!(ask("EXEC").items(), [Reply::Int(1)]);
    // what is seen is what was stored when the command came
    (0..2).for_each(|_| drop(ask(&format!("RPUSH small{}", " x".repeat(60)))));
    assert!(ask("COPY small other REPLACE").text().contains("max-write-cost is 5000"));
}

/// The line of an INFO section that begins with `name:`.
fn stat(server: &Server, section: &str, name: &str) -> String {
    let text = server.connect().line(&format!("INFO {section}")).expect("a reply").text();
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':').map(str::to_owned));
    line.unwrap_or_else(|| panic!("INFO {section} has no {name}:\n{text}"))
}

#[test]
fn what_commands_cost_is_told_by_command_and_by_client() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let look = Server::look(dir.path(), &[]).expect("a node");
    let mut one = look.connect();
    let mut ask = |line: &str| one.line(line).expect("a reply");
    ask("CLIENT SETNAME shop");
    ask("CONFIG SET slowlog-log-slower-than 0");
    ask("SLOWLOG RESET");
    for line in ["SET a 1 EX 100 NX", "GET a", "GET none", "INCR a", "LPUSH a x", "MSET b 2 c 3", "nosuch"] {
        ask(line);
    }
    ask("CONFIG SET slowlog-log-slower-than -1");
    let slow = ask("SLOWLOG GET -1");
    let shown: Vec<String> = slow
        .items()
        .iter()
        .rev()
        .map(|e| e.items()[3].items().iter().map(Reply::text).collect::<Vec<_>>().join(" "))
        .collect();
    for wanted in ["SET a 1 NX EX 100", "GET none", "LPUSH a x", "MSET b 2 c 3"] {
        assert!(shown.iter().any(|line| line == wanted), "{wanted}: {shown:?}");
    }
    assert_eq!(slow.items()[0].items()[5].text(), "shop");
    assert!(stat(&look, "commandstats", "cmdstat_get").starts_with("calls=2,usec="));
    assert!(stat(&look, "commandstats", "cmdstat_lpush").ends_with("rejected_calls=0,failed_calls=1"));
    assert!(stat(&look, "commandstats", "cmdstat_client|setname").starts_with("calls=1,usec="));
    assert!(stat(&look, "latencystats", "latency_percentiles_usec_set").starts_with("p50="));
    assert_eq!(stat(&look, "errorstats", "errorstat_ERR"), "count=1");
    assert_eq!(stat(&look, "errorstats", "errorstat_WRONGTYPE"), "count=1");
    assert_eq!(
        (stat(&look, "stats", "keyspace_hits"), stat(&look, "stats", "keyspace_misses")),
        ("1".into(), "1".into())
    );
    let histogram = ask("LATENCY HISTOGRAM get");
    assert_eq!(histogram.items()[0].text(), "get");
    assert_eq!(histogram.items()[1].items()[1], Reply::Int(2));
    let usage =
        || look.connect().line("LOOK.USAGE").expect("a reply").items().iter().map(Reply::text).collect::<Vec<_>>();
    assert!(usage().iter().any(|line| line.starts_with("mset: calls=1,failed=0,ops=")), "{:?}", usage());
    let of_shop = |lines: Vec<String>| lines.into_iter().find(|line| line.starts_with("client shop: "));
    let before = of_shop(usage()).expect("the client's line");
    assert!(before.starts_with("client shop: calls=6,ops="), "{before}");
    drop(one);
    assert_eq!(of_shop(usage()), Some(before), "what it cost is remembered when it has left");
    let mut two = look.connect();
    let text = two.line("LATENCY DOCTOR").expect("a reply").text();
    assert!(text.contains("disabled"), "{text}");
    two.line("CONFIG RESETSTAT").expect("a reply");
    assert!(two.line("LATENCY HISTOGRAM get set").expect("a reply").items().is_empty());
}
