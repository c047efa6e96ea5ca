//! openraft's types as Look fills them in, and their forms on disk and between peers.

use super::machine::Progress;
use super::runtime::Runtime;
use crate::apply::machine::{Applied, Body, LogPosition};
use crate::base::batch::Batch;
use crate::base::members::Members;
pub use crate::base::members::Reader;
use crate::base::{LogIndex, NodeId};
use crate::disk::{Kind, LogError, Payload, Position, Record};
use bytes::Bytes;
use openraft::impls::{BasicNode, BoxedErrorSource, EntryPayload, InlineBatch};
use openraft::raft::ClientWriteResult;
use openraft::raft::responder::Responder;
use openraft::vote::leader_id_std;
use openraft::{LogId, Membership, OptionalSend, RaftTypeConfig, StoredMembership};
use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::OwnedSemaphorePermit;

#[derive(Debug, Clone, Copy, Default, Eq, PartialEq, Ord, PartialOrd)]
pub struct Types;

pub type Term = leader_id_std::CommittedLeaderId<u64>;
pub type RaftLogId = LogId<Term>;
pub type RaftVote = openraft::impls::Vote<leader_id_std::LeaderId<u64, u64>>;
pub type RaftEntry = openraft::impls::Entry<Term, EntryPayload<Proposal, u64, BasicNode>>;
pub type RaftMembership = Membership<u64, BasicNode>;
pub type RaftStored = StoredMembership<Term, u64, BasicNode>;

impl RaftTypeConfig for Types {
    type D = Proposal;
    type R = ();
    type NodeId = u64;
    type Node = BasicNode;
    type Term = u64;
    type LeaderId = leader_id_std::LeaderId<u64, u64>;
    type Vote = RaftVote;
    type Payload = EntryPayload<Proposal, u64, BasicNode>;
    type Entry = RaftEntry;
    type AsyncRuntime = Runtime;
    type Responder<T>
        = Slot
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = BoxedErrorSource;
}

/// What an entry carries: a batch that all holders share.
#[derive(Clone, Debug)]
pub struct Proposal(pub Arc<Batch>);

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch of {} chunks", self.0.chunks.len())
    }
}

/// One of the few entries in flight. Freed when the entry was handed to apply, or is known to have been refused.
pub struct Slot {
    pub permit: OwnedSemaphorePermit,
    /// Called once when the entry was refused.
    pub refused: Box<dyn FnOnce() + Send>,
    pub proposed: Instant,
    pub progress: Arc<Progress>,
}

impl<T: OptionalSend + 'static> Responder<Types, T> for Slot {
    fn on_complete(self, result: T) {
        let result: &dyn Any = &result;
        if result.downcast_ref::<ClientWriteResult<Types>>().is_some_and(Result::is_err) {
            (self.refused)();
        } else {
            self.progress.commits.record(self.proposed.elapsed());
        }
        drop(self.permit);
    }
}

/// A batch as the log lays it out.
struct BatchPayload(Arc<Batch>);

impl Payload for BatchPayload {
    fn encoded_len(&self) -> usize {
        self.0.encoded_len()
    }
    fn write_to(&self, out: &mut dyn FnMut(&[u8])) {
        self.0.write_to(out)
    }
}

/// openraft counts entries from 0, Look and its log from 1.
pub fn position(id: &RaftLogId) -> Position {
    Position { term: id.leader_id.term, index: id.index + 1 }
}

/// `None` for the position before the first entry.
pub fn log_id(p: Position) -> Option<RaftLogId> {
    let index = p.index.checked_sub(1)?;
    Some(LogId::new(leader_id_std::CommittedLeaderId::new(p.term), index))
}

pub fn log_position(p: Position) -> LogPosition {
    LogPosition { term: p.term, index: LogIndex(p.index) }
}

pub fn disk_position(p: LogPosition) -> Position {
    Position { term: p.term, index: p.index.0 }
}

pub fn payload_of(entry: &RaftEntry) -> (Kind, Arc<dyn Payload>) {
    match &entry.payload {
        EntryPayload::Blank => (Kind::Blank, Arc::new(Bytes::new())),
        EntryPayload::Normal(p) => (Kind::Batch, Arc::new(BatchPayload(p.0.clone()))),
        EntryPayload::Membership(m) => (Kind::Membership, Arc::new(membership_bytes(m))),
    }
}

/// As [`Batch::weight`].
pub fn weight_of(entry: &RaftEntry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(p) => p.0.weight(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}

/// An entry from its parts as they lie in the log or in a peer's frame.
pub fn entry_of(record: Record) -> Result<RaftEntry, LogError> {
    let damaged = |what| LogError::Corrupt { file: "entry".into(), offset: record.index, what };
    let payload = match record.kind {
        Kind::Blank => EntryPayload::Blank,
        Kind::Batch => match Batch::parse(record.payload) {
            Ok(batch) => EntryPayload::Normal(Proposal(Arc::new(batch))),
            Err(_) => return Err(damaged("an entry is not a batch")),
        },
        Kind::Membership => EntryPayload::Membership(
            parse_membership(&record.payload).ok_or_else(|| damaged("an entry is not a membership"))?,
        ),
        _ => return Err(damaged("a record is not an entry")),
    };
    let position = Position { term: record.term, index: record.index };
    let log_id = log_id(position).ok_or_else(|| damaged("an entry has no index"))?;
    Ok(RaftEntry { log_id, payload })
}

pub fn body_of(payload: EntryPayload<Proposal, u64, BasicNode>) -> Body {
    match payload {
        EntryPayload::Blank => Body::Blank,
        EntryPayload::Normal(p) => Body::Batch(p.0),
        EntryPayload::Membership(m) => Body::Membership(membership_bytes(&m)),
    }
}

pub fn members_of(m: &RaftMembership) -> Members {
    let voters = m.get_joint_config().iter().map(|config| config.iter().map(|id| NodeId(*id)).collect()).collect();
    Members { voters, nodes: m.nodes().map(|(id, node)| (NodeId(*id), node.addr.clone())).collect() }
}

/// `None`: a config without voters, or a voter without an address.
pub fn membership_of(members: &Members) -> Option<RaftMembership> {
    let configs = members.voters.iter().map(|config| config.iter().map(|id| id.0).collect()).collect();
    let nodes: BTreeMap<u64, BasicNode> =
        members.nodes.iter().map(|(id, addr)| (id.0, BasicNode { addr: addr.clone() })).collect();
    Membership::new(configs, nodes).ok()
}

pub fn membership_bytes(m: &RaftMembership) -> Bytes {
    members_of(m).to_bytes().into()
}

pub fn parse_membership(bytes: &[u8]) -> Option<RaftMembership> {
    membership_of(&Members::parse(bytes)?)
}

/// Last entry and membership of a state, as openraft names them.
pub fn stored(applied: &Applied) -> (Option<RaftLogId>, RaftStored) {
    let last = log_id(disk_position(applied.last));
    let membership = applied.membership.as_ref().and_then(|(at, bytes)| Some((*at, parse_membership(bytes)?)));
    let stored = membership.map_or_else(RaftStored::default, |(at, m)| RaftStored::new(log_id(disk_position(at)), m));
    (last, stored)
}

pub fn applied_of(last: Option<&RaftLogId>, membership: &RaftStored) -> Applied {
    let last = last.map_or_else(LogPosition::default, |id| log_position(position(id)));
    let membership =
        membership.log_id().as_ref().map(|id| (log_position(position(id)), membership_bytes(membership.membership())));
    Applied { last, membership }
}
