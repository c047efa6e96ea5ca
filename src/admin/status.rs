//! What the status page shows, as JSON.

use super::history::Sample;
use crate::command::costs::Total;
use crate::gateway::Shared;
use crate::gateway::backend::Backend;
use crate::gateway::observe::{Slow, process_bytes};
use serde::Serialize;

/// Entries of the slow log, and commands, that are shown.
const SLOW_MAX: usize = 20;
const COMMANDS_MAX: usize = 40;

#[derive(Serialize)]
pub struct Status {
    version: &'static str,
    node: u64,
    /// Why this node cannot serve, if so.
    not_ready: Option<String>,
    leader: Option<u64>,
    term: u64,
    epoch: u64,
    since: u64,
    log_last: u64,
    log_committed: u64,
    log_applied: u64,
    uptime_s: u64,
    last_checkpoint_s: i64,
    clients: usize,
    keys: u64,
    used_bytes: u64,
    resident_bytes: u64,
    window_bytes: u64,
    /// To be copied into commands: where clients come in.
    host: String,
    port: String,
    tls_port: String,
    nodes: Vec<Node>,
    commands: Vec<Command>,
    slow: Vec<SlowCommand>,
    samples: Vec<Sample>,
}

/// A line of `LOOK.CLUSTER`.
#[derive(Serialize)]
struct Node {
    id: u64,
    facts: Vec<(String, String)>,
}

#[derive(Serialize)]
struct Command {
    name: String,
    calls: u64,
    failed: u64,
    micros: u64,
    ops: u64,
    locs: u64,
}

#[derive(Serialize)]
struct SlowCommand {
    time_s: i64,
    micros: i64,
    /// As one would type it.
    command: String,
    client: String,
}

pub fn status<B: Backend>(shared: &Shared<B>, not_ready: Option<String>, samples: Vec<Sample>) -> Status {
    let facts = shared.backend.facts();
    let bind = shared.config.get("bind");
    Status {
        version: env!("CARGO_PKG_VERSION"),
        node: facts.node_id,
        not_ready,
        leader: facts.leader,
        term: facts.term,
        epoch: facts.epoch.0,
        since: facts.since.0,
        log_last: facts.log_last,
        log_committed: facts.log_committed,
        log_applied: facts.log_applied,
        uptime_s: shared.started.elapsed().as_secs(),
        last_checkpoint_s: facts.last_checkpoint_s,
        clients: shared.clients.len(),
        keys: facts.keyspace.iter().map(|db| db.1).sum(),
        used_bytes: facts.used_memory,
        resident_bytes: process_bytes("VmRSS"),
        window_bytes: facts.window_bytes,
        host: bind.split_whitespace().next().unwrap_or("127.0.0.1").to_owned(),
        port: shared.config.get("port"),
        tls_port: shared.config.get("tls-port"),
        nodes: nodes(&shared.backend.cluster()),
        commands: hottest(shared.commands()),
        slow: shared.slow_log.newest(SLOW_MAX).iter().map(slow).collect(),
        samples,
    }
}

/// `node1:addr=…,role=…` lines, whatever else they say.
fn nodes(cluster: &str) -> Vec<Node> {
    let node = |line: &str| {
        let (id, facts) = line.trim().strip_prefix("node")?.split_once(':')?;
        let facts = facts.split(',').filter_map(|fact| fact.split_once('='));
        Some(Node { id: id.parse().ok()?, facts: facts.map(|(n, v)| (n.to_owned(), v.to_owned())).collect() })
    };
    cluster.lines().filter_map(node).collect()
}

/// By the steps that they took.
fn hottest(mut stats: Vec<(String, Total)>) -> Vec<Command> {
    stats.sort_by_key(|(_, total)| std::cmp::Reverse(total.counter.ops));
    let command = |(name, Total { counter: c, .. }): (String, Total)| Command {
        name,
        calls: c.calls,
        failed: c.failed,
        micros: c.nanos / 1000,
        ops: c.ops,
        locs: c.locs,
    };
    stats.into_iter().take(COMMANDS_MAX).map(command).collect()
}

fn slow(entry: &Slow) -> SlowCommand {
    let words: Vec<String> = entry.args.iter().map(|arg| typed(arg)).collect();
    SlowCommand {
        time_s: entry.time_s,
        micros: entry.micros,
        command: words.join(" "),
        client: if entry.name.is_empty() { entry.addr.clone() } else { entry.name.clone() },
    }
}

fn typed(arg: &[u8]) -> String {
    let plain = |b: &u8| b.is_ascii_graphic() && !b"\"'\\".contains(b);
    if !arg.is_empty() && arg.iter().all(plain) {
        String::from_utf8_lossy(arg).into_owned()
    } else {
        format!("\"{}\"", arg.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_of_the_cluster_is_what_its_line_says() {
        let nodes = nodes("leader:2\r\nnode2:addr=127.0.0.1:7002,role=leader,new=thing\r\nnonsense\r\nnodex:a=b\r\n");
        assert_eq!(nodes.len(), 1);
        let facts: Vec<_> = nodes[0].facts.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(
            (nodes[0].id, &facts[..]),
            (2, &[("addr", "127.0.0.1:7002"), ("role", "leader"), ("new", "thing")][..])
        );
    }

    #[test]
    fn arguments_are_shown_as_one_would_type_them() {
        assert_eq!([typed(b"GET"), typed(b""), typed(b"a b\xff\"")], ["GET", "\"\"", "\"a b\\xff\\\"\""]);
    }
}
