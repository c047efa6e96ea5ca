//! Who this node is, and with whom it speaks.
//!
//! A node is known by its id and by the data directory that it first started with. A node that comes back with another directory
//! has lost what it once promised to keep: if it voted or acknowledged again under its old id, acknowledged writes could be
//! lost. So nobody speaks with it any more (Jepsen on RedisRaft, issue 30); it joins as a new node.

use super::frame::Hello;
use super::machine::Progress;
use super::tls::PeerTls;
use crate::apply::machine::Standing;
use crate::base::NodeId;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

pub struct Identity {
    pub cluster: u64,
    pub node: u64,
    /// Random name of the data directory; 0: not told.
    pub directory: u64,
    /// `None`: peers speak in clear.
    pub tls: Option<PeerTls>,
    pub progress: Arc<Progress>,
    /// Checkpoints on their way to peers: what comes behind them must stay in the log, or the next one would be due at once.
    pub transfers: AtomicUsize,
}

/// What a node answers when it is asked about another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Verdict {
    Welcome = 0,
    Removed = 1,
    OtherDirectory = 2,
}

impl Verdict {
    pub fn from_u8(b: u8) -> Option<Verdict> {
        [Verdict::Welcome, Verdict::Removed, Verdict::OtherDirectory].into_iter().find(|v| *v as u8 == b)
    }

    /// Why `node` is not spoken with.
    pub fn refusal(self, node: NodeId) -> Option<String> {
        match self {
            Verdict::Welcome => None,
            Verdict::Removed => Some(format!(
                "node {node} was removed from its cluster; to use this machine again, start it with an empty --dir and --join"
            )),
            Verdict::OtherDirectory => Some(format!(
                "node {node} is known to its cluster by another data directory, and must not come back without it: restore that \
                 directory, or LOOK.CLUSTER REMOVE {node} and start with an empty --dir and --join"
            )),
        }
    }
}

impl Identity {
    pub fn hello(&self, to: u64) -> Hello {
        Hello { cluster: self.cluster, from: self.node, to, directory: self.directory }
    }

    /// What the applied state says of a node. A state that is behind says too little, never something that was not so.
    pub fn verdict(&self, node: u64, directory: u64) -> Verdict {
        let (roster, node) = (self.progress.roster(), NodeId(node));
        match roster.standing(node) {
            Standing::Removed => Verdict::Removed,
            _ if !roster.knows_directory(node, directory) => Verdict::OtherDirectory,
            _ => Verdict::Welcome,
        }
    }
}
