//! An operator who replaces nodes: takes one out for ever, dead or alive, and lets a new one in. Whether and when that is done is
//! Look's to decide; the operator asks until it is.

use crate::clients::{Connection, Record};
use crate::cluster::Run;
use crate::common::Reply;
use crate::net::{HostId, Net, address_of};
use crate::node::JOIN_TOKEN;
use look::disk::pages::MemoryGenerations;
use look::disk::sim::SimDisk;
use look::raft::{Joiner, Stream, join_over};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Between two tries.
const AGAIN: Duration = Duration::from_millis(300);

/// How far it is.
pub enum Replacement {
    /// Node number so and so leaves.
    Leaving(usize, JoinHandle<()>),
    Joining(JoinHandle<u64>),
    Voting(JoinHandle<()>),
}

#[derive(Clone)]
struct Operator {
    net: Net,
    record: Record,
}

impl Operator {
    /// Asks one node after the other until an answer is `done`. A leader does not leave: then another is to lead.
    async fn insist(self, order: String, done: &'static str) {
        for turn in 0.. {
            let hosts = self.record.lock().hosts.clone();
            let (host, id) = hosts[turn % hosts.len()];
            let answer = self.ask(host, &order).await;
            tracing::info!("{order}: {answer:?}");
            let answer = answer.as_ref().map(Reply::text).unwrap_or_default();
            if answer == "OK" || answer.contains(done) {
                return;
            }
            if answer.contains("TRANSFER to another node first") {
                self.ask(host, &format!("LOOK.CLUSTER TRANSFER {id}")).await;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn ask(&self, host: HostId, order: &str) -> Option<Reply> {
        Connection::open(&self.net, host).await.ok()?.ask(order).await.ok()
    }

    /// The node to be on `host` asks every node until one lets it in.
    async fn join(self, host: HostId) -> u64 {
        let addr = address_of(host);
        let joiner = Joiner { token: JOIN_TOKEN, addr: &addr, id: None, stop_at: None };
        for turn in 0.. {
            let hosts = self.record.lock().hosts.clone();
            let peer = hosts[turn % hosts.len()].0;
            let reached = tokio::time::timeout(AGAIN, self.net.connect(host, peer)).await;
            if let Ok(Ok(stream)) = reached {
                let joined = join_over(Box::new(stream) as Box<dyn Stream>, &joiner).await;
                tracing::info!("join through {peer}: {joined:?}");
                if let Ok(joined) = joined {
                    return joined.node.0;
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
        unreachable!("it asks for ever")
    }
}

impl Run {
    /// Another node in the place of number `i`, which is wiped at once or goes on until it learns that it was removed. One at a
    /// time: a cluster that lacks a voter can lose no other.
    pub fn replace(&mut self, i: usize) -> bool {
        if self.replacement.is_some() {
            return false;
        }
        if self.random.chance(50) {
            self.nodes[i].kill();
            self.retire(i);
        }
        let order = format!("LOOK.CLUSTER REMOVE {}", self.nodes[i].id);
        let leaving = self.world.spawn(self.operator().insist(order, "is not a member"));
        self.replacement = Some(Replacement::Leaving(i, leaving));
        true
    }

    fn operator(&self) -> Operator {
        Operator { net: self.net.clone(), record: self.record.clone() }
    }

    pub fn follow_replacement(&mut self) {
        self.replacement = match self.replacement.take() {
            Some(Replacement::Leaving(i, leaving)) if leaving.is_finished() => {
                self.nodes[i].removed = true;
                Some(Replacement::Joining(self.world.spawn(self.operator().join(self.next_host()))))
            }
            Some(Replacement::Joining(joining)) if joining.is_finished() => {
                let id = self.world.block_on(joining).expect("the operator does not panic");
                if self.nodes.iter().any(|node| node.id >= id) {
                    self.truth.violation(format!("a node joins as {id}, and ids are never used again"));
                }
                self.add_node(id);
                let order = format!("LOOK.CLUSTER PROMOTE {id}");
                Some(Replacement::Voting(self.world.spawn(self.operator().insist(order, "votes already"))))
            }
            Some(Replacement::Voting(voting)) if voting.is_finished() => None,
            other => other,
        };
    }

    /// Node number `i` says that it was removed.
    pub fn dismissed(&mut self, i: usize) {
        let leaves = matches!(&self.replacement, Some(Replacement::Leaving(leaving, _)) if *leaving == i);
        if !self.nodes[i].removed && !leaves {
            self.truth
                .violation(format!("node {} says that it was removed, and nobody wanted it to be", self.nodes[i].id));
        }
        self.nodes[i].kill();
        self.retire(i);
    }

    /// It never comes back, its disks are thrown away, and clients know.
    fn retire(&mut self, i: usize) {
        let node = &mut self.nodes[i];
        node.gone = true;
        (node.disk, node.pages) = (SimDisk::new(0), MemoryGenerations::default());
        self.record.lock().hosts.retain(|(_, id)| *id != node.id);
    }
}
