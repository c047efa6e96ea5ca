//! openraft's network over [`Link`]s: what this node sends as leader or candidate.

use super::frame::{self, Builder, Kind};
use super::identity::Identity;
use super::link::{Link, blocking, parsed};
use super::machine::SnapshotData;
use super::types::{RaftVote, Reader, Types, membership_bytes};
use crate::apply::machine::{Begun, Checkpoint, Sent};
use crate::base::planted::planted;
use bytes::Bytes;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::impls::BasicNode;
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, storage::Snapshot};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// A follower answers an append when its disk has it: a slow disk is not a lost message.
const APPEND_TIMEOUT: Duration = Duration::from_secs(3);
const PIECE_TIMEOUT: Duration = Duration::from_secs(20);
const INSTALL_TIMEOUT: Duration = Duration::from_secs(120);
/// How often a transfer says how far it is.
pub const SAY_EVERY: Duration = Duration::from_secs(5);
/// So many times as long as it worked, a transfer rests while writes come; but never longer than the maximum.
const REST: u32 = 9;
const REST_MAX: Duration = Duration::from_secs(2);

/// Makes links to peers.
pub struct Peers(pub Arc<Identity>);

impl RaftNetworkFactory<Types> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        let identity = self.0.clone();
        Peer { to: target, link: Link::new(node.addr.clone(), identity.clone(), target), identity }
    }
}

pub struct Peer {
    to: u64,
    link: Link,
    identity: Arc<Identity>,
}

fn rpc_error(e: io::Error) -> RPCError<Types> {
    match e.kind() {
        // These will not be better at once
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotConnected | io::ErrorKind::TimedOut => {
            Unreachable::new(&e).into()
        }
        _ => NetworkError::new(&e).into(),
    }
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let timeout =
            if rpc.entries.is_empty() { option.hard_ttl().max(Duration::from_millis(500)) } else { APPEND_TIMEOUT };
        let answer = self.link.call(frame::append_request(&rpc), timeout).await;
        if answer.is_err() && planted("who does not answer has the entries") {
            return Ok(AppendEntriesResponse::Success);
        }
        let frame = answer.map_err(rpc_error)?;
        parsed(frame::parse_append_response(&frame.payload)).map_err(rpc_error)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let frame =
            self.link.call(frame::vote_request(Kind::Vote, &rpc), option.hard_ttl()).await.map_err(rpc_error)?;
        parsed(frame::parse_vote_response(&frame.payload)).map_err(rpc_error)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let frame =
            self.link.call(frame::vote_request(Kind::PreVote, &rpc), option.hard_ttl()).await.map_err(rpc_error)?;
        parsed(frame::parse_vote_response(&frame.payload)).map_err(rpc_error)
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let timeout = option.hard_ttl().max(Duration::from_millis(500));
        let frame = self.link.call(frame::transfer_request(&request), timeout).await.map_err(rpc_error)?;
        parsed(frame::parse_transfer_response(&frame.payload)).map_err(rpc_error)
    }

    async fn full_snapshot(
        &mut self,
        vote: RaftVote,
        snapshot: Snapshot<super::types::Term, u64, BasicNode, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        tokio::select! {
            closed = cancel => Err(closed.into()),
            sent = self.send_checkpoint(vote, snapshot) => sent.map_err(|e| rpc_error(e).into()),
        }
    }
}

/// What is to be sent next; none at the end.
fn next_step(checkpoint: &mut dyn Checkpoint) -> Result<Option<(Kind, Bytes)>, String> {
    match checkpoint.offer()? {
        Some(offer) => Ok(Some((Kind::SnapshotOffer, offer))),
        None => Ok(checkpoint.next()?.map(|piece| (Kind::SnapshotPiece, piece))),
    }
}

/// Counts a transfer for as long as it lives.
struct Underway(Arc<Identity>);

impl Underway {
    fn new(identity: &Arc<Identity>) -> Underway {
        identity.transfers.fetch_add(1, Ordering::AcqRel);
        Underway(identity.clone())
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.transfers.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Peer {
    /// Begin, pieces one after the other, end: each answered before the next, on this link alone. The receiver says what it has.
    async fn send_checkpoint(
        &self,
        vote: RaftVote,
        snapshot: Snapshot<super::types::Term, u64, BasicNode, SnapshotData>,
    ) -> io::Result<SnapshotResponse<Types>> {
        let SnapshotData::Ours(mut checkpoint) = snapshot.snapshot else {
            return Err(io::Error::other("a received checkpoint cannot be sent"));
        };
        let _underway = Underway::new(&self.identity);
        let mut begin = Builder::new(Kind::SnapshotBegin, 0, 256);
        let membership = &snapshot.meta.last_membership;
        begin.vote(&vote).log_id(snapshot.meta.last_log_id.as_ref()).log_id(membership.log_id().as_ref());
        begin.u64(checkpoint.source()).u64(checkpoint.sent().total as u64).u64(checkpoint.epoch().0);
        begin.bytes(&membership_bytes(membership.membership()));
        let begun = self.link.call(begin, PIECE_TIMEOUT).await?;
        let mut r = Reader(&begun.payload);
        checkpoint.resume(Begun { have: parsed(r.u64())?, seed: parsed(r.u64())? });
        let Sent { done, total, .. } = checkpoint.sent();
        tracing::info!("checkpoint for node {}: {total} pages, of which it has {done}", self.to);
        let checkpoint = self.send_pieces(checkpoint).await?;
        let end = self.link.call(Builder::new(Kind::SnapshotEnd, 0, 0), INSTALL_TIMEOUT).await?;
        let Sent { pages, spared, .. } = checkpoint.sent();
        tracing::info!(
            "checkpoint for node {}: installed, {pages} pages sent; {spared} bytes of others it had",
            self.to
        );
        Ok(SnapshotResponse::new(parsed(Reader(&end.payload).vote())?))
    }

    /// While writes come, a transfer works a tenth of the time: they are slowed by no more than that.
    async fn send_pieces(&self, mut checkpoint: Box<dyn Checkpoint>) -> io::Result<Box<dyn Checkpoint>> {
        let mut said = Instant::now();
        let mut applied = self.identity.progress.index();
        loop {
            let begun = Instant::now();
            // Reading a page may wait for the disk
            let read = move || {
                let step = next_step(&mut *checkpoint);
                (checkpoint, step)
            };
            let (back, step) = blocking(&*self.identity.host, read).await?;
            checkpoint = back;
            let Some((kind, bytes)) = step.map_err(io::Error::other)? else { return Ok(checkpoint) };
            let mut b = Builder::new(kind, 0, bytes.len());
            b.bytes(&bytes);
            // The first offer makes the receiver read all that it has
            let patience = if kind == Kind::SnapshotOffer { INSTALL_TIMEOUT } else { PIECE_TIMEOUT };
            let answer = self.link.call(b, patience).await?;
            if kind == Kind::SnapshotOffer {
                checkpoint.wanted(&answer.payload);
            }
            if said.elapsed() > SAY_EVERY {
                said = Instant::now();
                let Sent { done, total, .. } = checkpoint.sent();
                tracing::info!("checkpoint for node {}: {done} of {total} pages", self.to);
            }
            let now = self.identity.progress.index();
            if std::mem::replace(&mut applied, now) != now {
                tokio::time::sleep((begun.elapsed() * REST).min(REST_MAX)).await;
            }
        }
    }
}
