//! openraft's network over [`Link`]s: what this node sends as leader or candidate.

use super::frame::{self, Builder, Kind};
use super::identity::Identity;
use super::link::{Link, parsed};
use super::machine::SnapshotData;
use super::types::{RaftVote, Reader, Types, membership_bytes};
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
use std::time::Duration;

/// A follower answers an append when its disk has it: a slow disk is not a lost message.
const APPEND_TIMEOUT: Duration = Duration::from_secs(3);
const PIECE_TIMEOUT: Duration = Duration::from_secs(20);
const INSTALL_TIMEOUT: Duration = Duration::from_secs(120);

/// Makes links to peers.
pub struct Peers(pub Arc<Identity>);

impl RaftNetworkFactory<Types> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        Peer(Link::new(node.addr.clone(), self.0.clone(), target))
    }
}

pub struct Peer(Link);

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
        let frame = self.0.call(frame::append_request(&rpc), timeout).await.map_err(rpc_error)?;
        parsed(frame::parse_append_response(&frame.payload)).map_err(rpc_error)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let frame = self.0.call(frame::vote_request(Kind::Vote, &rpc), option.hard_ttl()).await.map_err(rpc_error)?;
        parsed(frame::parse_vote_response(&frame.payload)).map_err(rpc_error)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let frame =
            self.0.call(frame::vote_request(Kind::PreVote, &rpc), option.hard_ttl()).await.map_err(rpc_error)?;
        parsed(frame::parse_vote_response(&frame.payload)).map_err(rpc_error)
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let timeout = option.hard_ttl().max(Duration::from_millis(500));
        let frame = self.0.call(frame::transfer_request(&request), timeout).await.map_err(rpc_error)?;
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

impl Peer {
    /// Begin, pieces one after the other, end: each answered before the next, on this link alone.
    async fn send_checkpoint(
        &self,
        vote: RaftVote,
        snapshot: Snapshot<super::types::Term, u64, BasicNode, SnapshotData>,
    ) -> io::Result<SnapshotResponse<Types>> {
        let SnapshotData::Ours(mut checkpoint) = snapshot.snapshot else {
            return Err(io::Error::other("a received checkpoint cannot be sent"));
        };
        let mut begin = Builder::new(Kind::SnapshotBegin, 0, 256);
        let membership = &snapshot.meta.last_membership;
        begin.vote(&vote).log_id(snapshot.meta.last_log_id.as_ref()).log_id(membership.log_id().as_ref());
        begin.bytes(&membership_bytes(membership.membership()));
        self.0.call(begin, PIECE_TIMEOUT).await?;
        loop {
            // Reading a page may wait for the disk
            let (back, piece) = tokio::task::spawn_blocking(move || {
                let piece = checkpoint.next();
                (checkpoint, piece)
            })
            .await?;
            checkpoint = back;
            let Some(piece) = piece.map_err(io::Error::other)? else { break };
            let mut b = Builder::new(Kind::SnapshotPiece, 0, piece.len());
            b.bytes(&piece);
            self.0.call(b, PIECE_TIMEOUT).await?;
        }
        let end = self.0.call(Builder::new(Kind::SnapshotEnd, 0, 0), INSTALL_TIMEOUT).await?;
        Ok(SnapshotResponse::new(parsed(Reader(&end.payload).vote())?))
    }
}
