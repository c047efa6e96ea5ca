//! Three nodes on loopback.

use super::resp::{Connection, Reply};
use super::server::{Server, free_port, look_binary};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub struct Cluster {
    /// By node id - 1; `None` while a node is down.
    pub nodes: Vec<Option<Server>>,
    ports: Vec<(u16, u16)>,
    /// Where peers are told to reach the founders.
    reached: Vec<u16>,
    /// The first so many nodes founded the cluster; the others joined it.
    founders: usize,
    /// More flags, by node id - 1.
    flags: Vec<Vec<String>>,
    dir: PathBuf,
}

/// What a node must know to join.
pub const JOIN_TOKEN: &str = "let me in";

impl Cluster {
    /// Starts `n` nodes and waits until each of them takes a write.
    pub fn start(dir: &Path, n: usize) -> Result<Cluster, String> {
        Cluster::start_with(dir, vec![Vec::new(); n])
    }

    /// As [`Cluster::start`], a node for each set of more flags.
    pub fn start_with(dir: &Path, flags: Vec<Vec<String>>) -> Result<Cluster, String> {
        Cluster::start_reached(dir, flags, |_, _| None)
    }

    /// As [`Cluster::start_with`]; `way` may name another port at which a node's peers reach its own peer port.
    pub fn start_reached(
        dir: &Path,
        flags: Vec<Vec<String>>,
        way: impl Fn(usize, u16) -> Option<u16>,
    ) -> Result<Cluster, String> {
        let n = flags.len();
        let ports: Vec<_> = (0..n).map(|_| (free_port(), free_port())).collect();
        let reached = ports.iter().zip(1..).map(|((_, peer), id)| way(id, *peer).unwrap_or(*peer)).collect();
        let nodes = (0..n).map(|_| None).collect();
        let mut cluster = Cluster { nodes, ports, reached, flags, founders: n, dir: dir.to_owned() };
        for id in 1..=n {
            cluster.launch(id)?;
        }
        for id in 1..=n {
            cluster.await_writable(id, super::PATIENCE)?;
        }
        Ok(cluster)
    }

    /// Starts this node's process; does not wait.
    pub fn launch(&mut self, id: usize) -> Result<(), String> {
        let founders = self.reached.iter().zip(1..);
        let peers: Vec<String> = founders.map(|(peer, id)| format!("{id}=127.0.0.1:{peer}")).collect();
        let (port, peer) = self.ports[id - 1];
        let dir = self.dir.join(format!("node{id}"));
        let mut flags: Vec<String> = ["--bind", "127.0.0.1", "--join-token", JOIN_TOKEN].map(String::from).into();
        flags.extend(["--set", "enable-debug-command=yes"].map(String::from));
        flags.extend(["--dir".into(), dir.join("data").display().to_string()]);
        flags.extend(["--peer-addr".into(), format!("127.0.0.1:{peer}")]);
        if id <= self.founders {
            flags.extend(["--node-id".into(), id.to_string(), "--initial-cluster".into(), peers.join(",")]);
        } else {
            flags.extend(["--join".into(), format!("127.0.0.1:{}", self.peer_port(self.up()[0]))]);
        }
        flags.extend_from_slice(&self.flags[id - 1]);
        self.nodes[id - 1] = Some(Server::launch(&look_binary(), &dir, port, &flags)?);
        Ok(())
    }

    /// Starts a node that joins; does not wait. The cluster gives it the next id, which is this one's answer.
    pub fn join(&mut self) -> Result<usize, String> {
        self.join_with(Vec::new())
    }

    /// As [`Cluster::join`], with more flags.
    pub fn join_with(&mut self, flags: Vec<String>) -> Result<usize, String> {
        self.ports.push((free_port(), free_port()));
        self.flags.push(flags);
        self.nodes.push(None);
        self.launch(self.nodes.len())?;
        Ok(self.nodes.len())
    }

    pub fn data_dir(&self, id: usize) -> PathBuf {
        self.dir.join(format!("node{id}")).join("data")
    }

    /// One line to one node; an error reply is an error.
    pub fn ask(&self, id: usize, line: &str) -> Result<Reply, String> {
        let reply = self.node(id).connect().line(line).map_err(|e| format!("node {id}: {line}: {e}"))?;
        if reply.is_error() { Err(reply.text()) } else { Ok(reply) }
    }

    pub fn node(&self, id: usize) -> &Server {
        self.nodes[id - 1].as_ref().unwrap_or_else(|| panic!("node {id} is down"))
    }

    /// Where its peers reach it.
    pub fn peer_port(&self, id: usize) -> u16 {
        self.ports[id - 1].1
    }

    pub fn up(&self) -> Vec<usize> {
        (1..=self.nodes.len()).filter(|id| self.nodes[id - 1].is_some()).collect()
    }

    pub fn kill9(&mut self, id: usize) {
        self.nodes[id - 1] = None; // dropping kills and waits
    }

    /// What each node printed last.
    pub fn output(&self) -> String {
        self.up().iter().map(|id| format!("--- node {id}\n{}", self.node(*id).output())).collect()
    }

    pub fn await_writable(&mut self, id: usize, longest: Duration) -> Result<Duration, String> {
        let begin = Instant::now();
        loop {
            let server = self.nodes[id - 1].as_mut().ok_or("the node is down")?;
            if let Some(status) = server.exited() {
                return Err(format!("node {id} stopped with {status}:\n{}", server.output()));
            }
            let written = Connection::open(server.address()).and_then(|mut c| {
                c.patience(Duration::from_secs(5))?;
                c.line(&format!("SET writable:{id} 1"))
            });
            if written.is_ok_and(|r| !r.is_error()) {
                return Ok(begin.elapsed());
            }
            if begin.elapsed() > longest {
                return Err(format!("node {id} took no write within {longest:?}:\n{}", self.output()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The leader as `LOOK.CLUSTER` of any live node names it.
    pub fn leader(&self) -> Result<usize, String> {
        let begin = Instant::now();
        while begin.elapsed() < super::PATIENCE {
            for id in self.up() {
                let text = self.node(id).connect().line("LOOK.CLUSTER").map(|r| r.text()).unwrap_or_default();
                let named =
                    text.lines().find_map(|l| l.trim().strip_prefix("leader:")).and_then(|v| v.trim().parse().ok());
                if let Some(leader) = named.filter(|leader| self.up().contains(leader)) {
                    return Ok(leader);
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(format!("no leader is named by LOOK.CLUSTER:\n{}", self.output()))
    }

    /// Waits until each live node, asked for its own local state, gives this reply.
    pub fn await_equal(&self, line: &str, expected: &Reply, longest: Duration) -> Result<(), String> {
        let begin = Instant::now();
        for id in self.up() {
            let mut connection = self.node(id).connect();
            connection.line("LOOK.CONSISTENCY eventual").map_err(|e| e.to_string())?;
            loop {
                let got = connection.line(line).map_err(|e| format!("node {id}: {line}: {e}"))?;
                if got == *expected {
                    break;
                }
                if begin.elapsed() > longest {
                    return Err(format!("node {id} did not catch up: {line} gives {got:?}, expected {expected:?}"));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }
}
