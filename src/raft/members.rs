//! Changes of membership: who may join, who votes, who leads, who leaves.
//!
//! Each change is one entry of the log, and so one epoch: a learner that comes, or one voter more or less. Voter sets that
//! differ by one node share a majority, so no joint membership is needed, provided that the leader has committed an
//! entry of its own term first (Ongaro's correction to 4.1 of his thesis); openraft's `append_membership` checks that.
//!
//! What could end the service is refused: a voter that is far behind, a majority of which too few would answer, the leader's own
//! departure. An isolated leader can propose nothing: its lease has run out, or a quorum never confirms (Jepsen, issue 17).

use super::frame::{self, Builder, Frame, Hello, Kind};
use super::identity::Verdict;
use super::link::Stream;
use super::tls::{Passport, PeerTls};
use super::types::{Types, members_of, membership_of};
use super::{Node, READ_TIMEOUT, Raft};
use crate::base::members::{Members, Reader};
use crate::base::{Epoch, NodeId};
use openraft::async_runtime::Instant;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::impls::{BasicNode, EntryPayload};
use openraft::raft::Precondition;
use openraft::{ChangeMembers, RaftMetrics};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// A node that misses more entries than this does not become a voter or a leader: the cluster would wait for it.
const LAG_MAX: u64 = 1024;
/// A node that answered so recently counts as alive.
const ALIVE: Duration = Duration::from_secs(2);
/// A change that no quorum confirmed by then may still happen.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// A node of which only the address is known has said who it is by then.
const REACH_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a node asks whether it is still a member.
const STANDING_EVERY: Duration = Duration::from_secs(1);
/// A join request is short.
pub const JOIN_BYTES_MAX: usize = 4096;

/// What an operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A learner becomes a voter.
    Promote(NodeId),
    /// A voter becomes a learner.
    Demote(NodeId),
    /// A node leaves for ever.
    Remove(NodeId),
    /// Another voter leads.
    Transfer(NodeId),
}

/// Why it does not happen. Each text says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    #[error("no leader is known; try again")]
    NoLeader,
    #[error("node {0} is not a member; LOOK.CLUSTER shows who is")]
    NotMember(NodeId),
    #[error("node {0} votes already")]
    Votes(NodeId),
    #[error("node {0} is an export: it stops at an epoch and never votes")]
    Export(NodeId),
    #[error("node {0} does not vote")]
    NoVoter(NodeId),
    #[error("node {0} leads; LOOK.CLUSTER TRANSFER to another node first")]
    Leads(NodeId),
    #[error(
        "node {node} lags {lag} entries behind; at most {LAG_MAX} may be missing, try again when LOOK.CLUSTER shows less"
    )]
    Lags { node: NodeId, lag: u64 },
    #[error("node {0} does not answer")]
    Silent(NodeId),
    #[error(
        "only {alive} of the {voters} voters would answer after this change, and no write could commit; bring the others back first"
    )]
    NoMajority { alive: usize, voters: usize },
    #[error("another change is on its way; try again")]
    Busy,
    #[error("it was not confirmed within {} s; LOOK.CLUSTER shows whether it happened", CHANGE_TIMEOUT.as_secs())]
    Unknown,
    #[error("this cluster lets nobody join: set join-token in its nodes' configuration")]
    NoToken,
    #[error("the join token is wrong")]
    WrongToken,
    #[error(
        "ids below {next} have been given; take {next} or a higher one, for --node-id and for the certificate (DNS:node{next})"
    )]
    OldId { next: NodeId },
    #[error("its certificate is not for node{0}, the id that it asks for")]
    Certificate(NodeId),
    #[error(
        "epoch {stop} is past: this cluster's log no longer begins before it, and the newest checkpoint is of epoch {checkpoint}. --stop-at \
         {checkpoint} or later can be had; for {stop} ask with LOOK.AT, or restore a backup (look restore --at {stop})"
    )]
    Past { stop: Epoch, checkpoint: Epoch },
    /// The leader's own words.
    #[error("{0}")]
    Refused(String),
}

/// Who asks to be let in.
#[derive(Clone, Copy, Debug)]
pub struct Joiner<'a> {
    pub token: &'a str,
    /// Where its peers will reach it.
    pub addr: &'a str,
    /// The id that its certificate names. None: any.
    pub id: Option<NodeId>,
    /// An export's.
    pub stop_at: Option<Epoch>,
}

/// What a node that joined is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    pub node: NodeId,
    pub cluster: u64,
}

impl Raft {
    /// Changes the membership, through whoever leads.
    pub async fn change(&self, change: Change) -> Result<(), ChangeError> {
        let leader = self.leader().ok_or(ChangeError::NoLeader)?;
        if leader.0 == self.node.id {
            return self.node.change(change).await;
        }
        let (word, node) = change.words();
        let mut request = Builder::new(Kind::Change, 0, 16);
        request.u8(word).u64(node.0);
        self.node.relay(leader, request).await.map(|_| ())
    }

    /// Before a stop: the voter that has most takes over, so that nobody has to wait for an election.
    pub async fn hand_over(&self) {
        let node = &self.node;
        if !self.is_leader() {
            return;
        }
        let metrics = node.raft.metrics().borrow_watched().clone();
        let others = metrics.membership_config.membership().voter_ids().filter(|id| *id != node.id);
        let best = others.filter(|id| alive(&metrics, *id)).max_by_key(|id| matched(&metrics, *id));
        if let Some(best) = best
            && let Err(e) = node.transfer(NodeId(best)).await
        {
            tracing::warn!("stopping as leader: {e}");
        }
    }

    /// Whether one of its peers says that this node is no member any more.
    pub async fn was_removed(&self) -> bool {
        for turn in 0..self.roster().members.nodes.len() {
            if self.node.ask_standing(turn).await == Some(Verdict::Removed) {
                return true;
            }
        }
        false
    }

    /// Why this node must take part no more, if so.
    pub fn dismissal(&self) -> Option<String> {
        self.node.dismissed.borrow().clone()
    }

    /// Returns when this node must take part no more, with the reason.
    pub async fn dismissed(&self) -> String {
        let mut watch = self.node.dismissed.subscribe();
        match watch.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }
}

impl Change {
    fn words(self) -> (u8, NodeId) {
        match self {
            Change::Promote(node) => (1, node),
            Change::Demote(node) => (2, node),
            Change::Remove(node) => (3, node),
            Change::Transfer(node) => (4, node),
        }
    }

    pub fn parse(payload: &[u8]) -> Option<Change> {
        let mut reader = Reader(payload);
        let (word, node) = (reader.u8()?, NodeId(reader.u64()?));
        match word {
            1 => Some(Change::Promote(node)),
            2 => Some(Change::Demote(node)),
            3 => Some(Change::Remove(node)),
            4 => Some(Change::Transfer(node)),
            _ => None,
        }
    }
}

/// The newest entry that a peer is known to have, as openraft counts.
fn matched(metrics: &RaftMetrics<Types>, node: u64) -> Option<u64> {
    let replication = metrics.replication.as_ref()?;
    replication.get(&node)?.as_ref().map(|at| at.index)
}

/// Whether a peer answered of late. The leader's view; it always hears itself.
fn alive(metrics: &RaftMetrics<Types>, node: u64) -> bool {
    let heard = metrics.heartbeat.as_ref().and_then(|h| h.get(&node)).and_then(|at| *at);
    node == metrics.id || heard.is_some_and(|at| at.elapsed() < ALIVE)
}

/// A node that is to vote or lead must be there and must not be far behind.
fn fit(metrics: &RaftMetrics<Types>, node: NodeId) -> Result<(), ChangeError> {
    let last = metrics.last_log_index.map_or(0, |i| i + 1);
    let lag = last - matched(metrics, node.0).map_or(0, |i| i + 1).min(last);
    match () {
        () if lag > LAG_MAX => Err(ChangeError::Lags { node, lag }),
        () if !alive(metrics, node.0) => Err(ChangeError::Silent(node)),
        () => Ok(()),
    }
}

/// The membership after `change`, or why there is none.
fn changed(metrics: &RaftMetrics<Types>, mut members: Members, change: Change) -> Result<Members, ChangeError> {
    let (_, node) = change.words();
    if !members.nodes.contains_key(&node) {
        return Err(ChangeError::NotMember(node));
    }
    let (votes, export) = (members.is_voter(node), members.is_export(node));
    // A joint membership is one that another version of Look has left half-way
    let [voters] = members.voters.as_mut_slice() else { return Err(ChangeError::Busy) };
    match change {
        Change::Promote(_) if votes => return Err(ChangeError::Votes(node)),
        Change::Promote(_) if export => return Err(ChangeError::Export(node)),
        Change::Promote(_) => {
            fit(metrics, node)?;
            voters.insert(node);
        }
        Change::Demote(_) if !votes => return Err(ChangeError::NoVoter(node)),
        _ if node.0 == metrics.id => return Err(ChangeError::Leads(node)),
        _ => {
            voters.remove(&node);
        }
    }
    let answering = voters.iter().filter(|id| alive(metrics, id.0)).count();
    if votes != voters.contains(&node) && answering * 2 <= voters.len() {
        return Err(ChangeError::NoMajority { alive: answering, voters: voters.len() });
    }
    if matches!(change, Change::Remove(_)) {
        members.nodes.remove(&node);
    }
    Ok(members)
}

fn change_error(e: RaftError<Types, ClientWriteError<Types>>) -> ChangeError {
    match e {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => ChangeError::NoLeader,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(
            ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
        )) => ChangeError::Busy,
        RaftError::APIError(ClientWriteError::PreconditionFailed(_)) => ChangeError::Busy,
        other => ChangeError::Refused(other.to_string()),
    }
}

impl Node {
    /// Asks the leader. Its words come back as they are.
    async fn relay(&self, leader: NodeId, request: Builder) -> Result<Frame, ChangeError> {
        let links = self.links(leader.0).ok_or(ChangeError::NoLeader)?;
        let answer = links.reads.call(request, CHANGE_TIMEOUT + Duration::from_secs(1)).await;
        answer.map_err(|e| match e.kind() {
            io::ErrorKind::Other => ChangeError::Refused(e.to_string()),
            io::ErrorKind::TimedOut => ChangeError::Unknown,
            _ => ChangeError::NoLeader,
        })
    }

    /// As leader.
    pub async fn change(&self, change: Change) -> Result<(), ChangeError> {
        if let Change::Transfer(to) = change {
            return self.transfer(to).await;
        }
        let metrics = self.raft.metrics().borrow_watched().clone();
        let observed = metrics.membership_config.clone();
        let members = changed(&metrics, members_of(observed.membership()), change)?;
        let membership = membership_of(&members).ok_or(ChangeError::NoMajority { alive: 0, voters: 0 })?;
        let unless_changed = Precondition::LastMembershipLogId { last_membership_log_id: *observed.log_id() };
        let append = self.raft.append_membership(membership, EntryPayload::Blank, [unless_changed]);
        let done = tokio::time::timeout(CHANGE_TIMEOUT, append).await.map_err(|_| ChangeError::Unknown)?;
        done.map_err(change_error)?;
        tracing::info!("membership: {change:?} is done");
        Ok(())
    }

    /// As leader: a voter that is not far behind leads from now on. Returns when this node has seen it lead.
    async fn transfer(&self, to: NodeId) -> Result<(), ChangeError> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let members = members_of(metrics.membership_config.membership());
        match () {
            () if !members.nodes.contains_key(&to) => return Err(ChangeError::NotMember(to)),
            () if !members.is_voter(to) => return Err(ChangeError::NoVoter(to)),
            () if to.0 == self.id => return Ok(()),
            () => fit(&metrics, to)?,
        }
        self.raft.trigger().transfer_leader(to.0).await.map_err(|e| ChangeError::Refused(e.to_string()))?;
        let mut leadership = self.leadership.subscribe();
        let taken = leadership.wait_for(|l| l.leader.is_some_and(|id| id.0 != self.id));
        match tokio::time::timeout(READ_TIMEOUT, taken).await {
            Ok(Ok(l)) if l.leader == Some(to) => Ok(()),
            _ => Err(ChangeError::Refused(format!("node {to} did not take over; LOOK.CLUSTER shows who leads"))),
        }
    }

    /// A stranger asks to join as a learner. `passport`: what he showed, where peers speak TLS; a peer that passes his request on has
    /// looked at it.
    pub async fn admit(&self, payload: &[u8], passport: Option<&Passport>) -> Result<Joined, ChangeError> {
        let malformed = || ChangeError::Refused("malformed join request".into());
        let Joiner { token, addr, id, stop_at } = Joiner::parse(payload).ok_or_else(malformed)?;
        self.check_token(token.as_bytes())?;
        if let Some(passport) = passport {
            let id = id.unwrap_or(NodeId::ZERO);
            if !passport.is_of(id.0) {
                return Err(ChangeError::Certificate(id));
            }
        }
        let leader = self.leadership.borrow().leader.ok_or(ChangeError::NoLeader)?;
        if leader.0 != self.id {
            let mut request = Builder::new(Kind::Join, 0, payload.len());
            request.bytes(payload);
            let answer = self.relay(leader, request).await?;
            return parse_joined(&answer.payload).ok_or_else(malformed);
        }
        if let Some(stop) = stop_at {
            self.reaches_back_to(stop).await?;
        }
        self.add_learner(addr, id).await
    }

    /// As leader: whether a new node could be shown this epoch. It would get the whole log, or else the newest checkpoint.
    async fn reaches_back_to(&self, stop: Epoch) -> Result<(), ChangeError> {
        if self.store.log().state().purged.index == 0 {
            return Ok(());
        }
        let newest = self.queue.checkpoint().await.map_err(|e| ChangeError::Refused(e.to_string()))?;
        match newest.map(|checkpoint| checkpoint.epoch()).filter(|epoch| *epoch > stop) {
            Some(checkpoint) => Err(ChangeError::Past { stop, checkpoint }),
            None => Ok(()),
        }
    }

    fn check_token(&self, token: &[u8]) -> Result<(), ChangeError> {
        let ours = self.join_token.as_bytes();
        // Takes as long whichever byte is wrong
        let differ = ours.iter().zip(token).fold(0, |all, (a, b)| all | (a ^ b));
        match () {
            () if ours.is_empty() => Err(ChangeError::NoToken),
            () if ours.len() != token.len() || differ != 0 => Err(ChangeError::WrongToken),
            () => Ok(()),
        }
    }

    /// As leader: an id that nobody had before, the next one unless it must be another, for a node at `addr`.
    async fn add_learner(&self, addr: &str, wanted: Option<NodeId>) -> Result<Joined, ChangeError> {
        let _one = self.joining.lock().await;
        // The state must know every id that was ever given
        let point = self.ask_for_index().await.map_err(|_| ChangeError::NoLeader)?;
        self.wait_applied(point.index).await.map_err(|_| ChangeError::NoLeader)?;
        let members = members_of(self.raft.metrics().borrow_watched().membership_config.membership());
        let next = self.identity.progress.roster().next.max(members.highest().next());
        let id = wanted.unwrap_or(next);
        if id < next {
            return Err(ChangeError::OldId { next });
        }
        let node = |addr: &str| BasicNode { addr: addr.into() };
        let mut changes = vec![ChangeMembers::AddNodes(BTreeMap::from([(id.0, node(addr))]))];
        // It asked before and never learned its id, or it was wiped
        let stale = members.nodes.iter().find(|(id, at)| *at == addr && !members.is_voter(**id));
        changes.extend(stale.map(|(id, _)| ChangeMembers::RemoveNodes(BTreeSet::from([id.0]))));
        // A node that began alone has told nobody yet where its peers reach it
        if members.nodes.get(&NodeId(self.id)).is_some_and(String::is_empty) {
            let own = self.advertise.as_ref().map(|own| BTreeMap::from([(self.id, node(own))]));
            changes.extend(own.map(ChangeMembers::SetNodes));
        }
        let change = self.raft.change_membership(ChangeMembers::Batch(changes), true);
        let done = tokio::time::timeout(CHANGE_TIMEOUT, change).await.map_err(|_| ChangeError::Unknown)?;
        done.map_err(change_error)?;
        tracing::info!("node {id} at {addr} joined as a learner");
        Ok(Joined { node: id, cluster: self.identity.cluster })
    }
}

pub fn joined(id: u64, joined: Joined) -> Builder {
    let mut b = Builder::new(Kind::Join, id, 16);
    b.u64(joined.node.0).u64(joined.cluster);
    b
}

fn parse_joined(payload: &[u8]) -> Option<Joined> {
    let mut reader = Reader(payload);
    Some(Joined { node: NodeId(reader.u64()?), cluster: reader.u64()? })
}

impl Joiner<'_> {
    /// `token length u32, token | address length u32, address | id u64, 0: any | epoch to stop at u64, 0: none`
    fn request(&self) -> Builder {
        let Joiner { token, addr, id, stop_at } = self;
        let mut request = Builder::new(Kind::Join, 0, JOIN_BYTES_MAX);
        request.u32(token.len() as u32).bytes(token.as_bytes()).u32(addr.len() as u32).bytes(addr.as_bytes());
        request.u64(id.map_or(0, |id| id.0)).u64(stop_at.map_or(0, |epoch| epoch.0));
        request
    }

    fn parse(payload: &[u8]) -> Option<Joiner<'_>> {
        let mut reader = Reader(payload);
        let token = std::str::from_utf8(reader.bytes()?).ok()?;
        let addr = std::str::from_utf8(reader.bytes()?).ok().filter(|a| !a.is_empty())?;
        let (id, stop_at) = (reader.u64()?, reader.u64()?);
        let given = |word: u64| (word != 0).then_some(word);
        Some(Joiner { token, addr, id: given(id).map(NodeId), stop_at: given(stop_at).map(Epoch) })
    }
}

/// A connection to the node at `peer`, of which only the address is known. The token is for nodes of the cluster: where they
/// speak TLS, the certificate must be that of the id that the node says it has.
async fn reach(peer: &str, tls: Option<&PeerTls>) -> io::Result<Box<dyn Stream>> {
    let stream = TcpStream::connect(peer).await?;
    let (mut stream, passport): (Box<dyn Stream>, _) = match tls {
        None => (Box::new(stream), None),
        Some(tls) => {
            let stream = tls.connect_any(stream).await?;
            let passport = Passport::of(stream.get_ref().1);
            (Box::new(stream), Some(passport))
        }
    };
    let hello = greet(&mut stream).await?;
    match passport.is_none_or(|passport| passport.is_of(hello.from)) {
        true => Ok(stream),
        false => {
            Err(io::Error::other(format!("it says it is node {0}, but its certificate is not for node{0}", hello.from)))
        }
    }
}

async fn greet(stream: &mut Box<dyn Stream>) -> io::Result<Hello> {
    Hello::STRANGER.write(stream).await?;
    Hello::read(stream).await
}

/// Asks the node at `peer` to let another one into its cluster. Not yet a member, so before [`Raft::start`].
pub async fn join(peer: &str, joiner: &Joiner<'_>, tls: Option<&PeerTls>) -> io::Result<Joined> {
    let stream = tokio::time::timeout(REACH_TIMEOUT, reach(peer, tls)).await??;
    ask_to_join(stream, joiner).await
}

/// The same over a stream in clear, however it was made.
pub async fn join_over(mut stream: Box<dyn Stream>, joiner: &Joiner<'_>) -> io::Result<Joined> {
    tokio::time::timeout(REACH_TIMEOUT, greet(&mut stream)).await??;
    ask_to_join(stream, joiner).await
}

async fn ask_to_join(mut stream: Box<dyn Stream>, joiner: &Joiner<'_>) -> io::Result<Joined> {
    tokio::io::AsyncWriteExt::write_all(&mut stream, joiner.request().seal(1)?).await?;
    tokio::io::AsyncWriteExt::flush(&mut stream).await?;
    let answer = tokio::time::timeout(CHANGE_TIMEOUT * 2, frame::read(&mut stream, JOIN_BYTES_MAX)).await??;
    let answer = answer.ok_or(io::ErrorKind::UnexpectedEof)?;
    match answer.kind {
        Kind::Failed => Err(io::Error::other(String::from_utf8_lossy(&answer.payload).into_owned())),
        _ => parse_joined(&answer.payload).ok_or_else(super::link::malformed),
    }
}

/// Asks the other members, one after the other, whether this node still is one of them. A node that was removed while it could
/// not hear of it, or that came back without its data, learns it so, and stops.
pub async fn watch_standing(node: Arc<Node>) {
    let me = NodeId(node.id);
    for turn in 0.. {
        tokio::time::sleep(STANDING_EVERY).await;
        let verdict = match node.identity.verdict(node.id, node.identity.directory) {
            Verdict::Welcome if node.leadership.borrow().me => Verdict::Welcome,
            Verdict::Welcome => node.ask_standing(turn).await.unwrap_or(Verdict::Welcome),
            known => known,
        };
        if let Some(why) = verdict.refusal(me) {
            tracing::error!("{why}");
            node.dismissed.send_replace(Some(why));
            return;
        }
    }
}

impl Node {
    async fn ask_standing(&self, turn: usize) -> Option<Verdict> {
        let members = members_of(self.raft.server_metrics().borrow_watched().membership_config.membership());
        let others: Vec<_> = members.nodes.keys().filter(|id| id.0 != self.id).collect();
        let peer = others.get(turn % others.len().max(1))?;
        let answer = self.links(peer.0)?.reads.call(Builder::new(Kind::Standing, 0, 0), STANDING_EVERY).await.ok()?;
        Verdict::from_u8(*answer.payload.first()?)
    }
}
