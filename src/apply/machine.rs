//! What the log hands to apply, in plain words: no room below `raft` knows openraft.

use super::digests::Digests;
use crate::base::batch::Batch;
use crate::base::members::Members;
use crate::base::{Epoch, LogIndex, NodeId};
use bytes::Bytes;
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where an entry lies in the replicated log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct LogPosition {
    pub term: u64,
    pub index: LogIndex,
}

/// An entry that a quorum has on disk.
#[derive(Clone, Debug)]
pub struct Committed {
    pub position: LogPosition,
    pub body: Body,
}

#[derive(Clone, Debug)]
pub enum Body {
    /// A new leader's first entry.
    Blank,
    Batch(Arc<Batch>),
    /// A [`Members`]; the newest one and its position are kept with the state.
    Membership(Bytes),
}

/// How far a state has come. The default is the empty state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    pub last: LogPosition,
    pub membership: Option<(LogPosition, Bytes)>,
}

/// What the replicated state knows of the cluster's nodes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Roster {
    pub members: Members,
    /// The id of the next node that joins; greater than any id ever given.
    pub next: NodeId,
    /// The data directory that a member started with first.
    pub directories: BTreeMap<NodeId, u64>,
}

/// What a node is to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Member,
    /// It was a member once; it will never be one again.
    Removed,
    /// Not heard of yet: this state may be behind.
    Unknown,
}

impl Roster {
    pub fn standing(&self, node: NodeId) -> Standing {
        match () {
            () if self.members.nodes.contains_key(&node) => Standing::Member,
            () if node < self.next => Standing::Removed,
            () => Standing::Unknown,
        }
    }

    /// Whether this is the directory that the node is known by (0: it does not tell; also true while nothing is known).
    pub fn knows_directory(&self, node: NodeId, directory: u64) -> bool {
        directory == 0 || self.directories.get(&node).is_none_or(|known| *known == directory)
    }
}

/// The replicated state, on the apply thread; never called from an async task.
pub trait StateMachine: Send + 'static {
    /// What recovery restored.
    fn applied(&self) -> Applied;
    /// What it knows of the nodes. The same `Arc` until something of it changes.
    fn roster(&self) -> Arc<Roster>;
    /// Digests of its newest states, for peers to compare. None at all: there is nothing to compare.
    fn digests(&self) -> Arc<Digests> {
        Arc::default()
    }
    /// Entries without gaps, in order, each once per start. An error stops the node's writes.
    fn apply(&mut self, entries: Vec<Committed>) -> Result<(), String>;
    /// Nothing waits to be applied: does a little of what can wait. True: nothing is left to do.
    fn idle(&mut self) -> bool {
        true
    }
    /// The newest durable checkpoint, to send to a peer that lags behind the log.
    fn checkpoint(&mut self) -> Option<Box<dyn Checkpoint>>;
    /// Whether a checkpoint of this epoch is of use here; if not, why.
    fn takes(&mut self, _epoch: Epoch) -> Result<(), String> {
        Ok(())
    }
    /// A peer sends a checkpoint: where its pieces go.
    /// `source`: [`Checkpoint::source`] of what comes.
    fn receive(&mut self, source: u64) -> Result<Box<dyn Receive>, String>;
    /// Replaces the whole state by a received checkpoint.
    fn install(&mut self, meta: Applied, received: Box<dyn Receive>) -> Result<(), String>;
}

/// A checkpoint as a stream of pieces, at most 1 MiB each.
pub trait Checkpoint: Send {
    fn meta(&self) -> Applied;
    /// The newest that it shows.
    fn epoch(&self) -> Epoch {
        Epoch::ZERO
    }
    fn next(&mut self) -> Result<Option<Bytes>, String>;
    /// Name of the page store that it comes from: whoever has a page from there need not be sent it again. 0: it has no such name.
    fn source(&self) -> u64 {
        0
    }
    /// Before the first piece: leaves out what an earlier transfer brought, and makes offers to a receiver with parts of its own, see
    /// [`Receive::begun`].
    fn resume(&mut self, _begun: Begun) {}
    /// Names of what the next piece may hold, for a receiver that has part of it.
    fn offer(&mut self) -> Result<Option<Bytes>, String> {
        Ok(None)
    }
    /// Its answer.
    fn wanted(&mut self, _lacking: &[u8]) {}
    fn sent(&self) -> Sent {
        Sent::default()
    }
}

/// What a receiver has of a checkpoint before it comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Begun {
    /// How far an earlier transfer from the same source came before its connection broke: pages are sent in the order of their keys,
    /// and those up to this key are here.
    pub have: u64,
    /// The seed of the names that offers are made of; 0: there is nothing here to compare with.
    pub seed: u64,
}

/// How far a checkpoint was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Pages sent or left out, and pages in all.
    pub done: usize,
    pub total: usize,
    /// Pages of which anything was sent.
    pub pages: usize,
    /// Bytes left out because the receiver has them in pages of its own.
    pub spared: u64,
}

/// The receiving end of a [`Checkpoint`].
pub trait Receive: Send + Any {
    fn piece(&mut self, piece: Bytes) -> Result<(), String>;
    fn begun(&self) -> Begun {
        Begun::default()
    }
    /// The answer to an offer. May take long.
    fn lacks(&mut self, _offer: &[u8]) -> Vec<u8> {
        Vec::new()
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send>;
}
