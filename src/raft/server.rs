//! What this node answers to its peers. One task a connection; requests of one connection are answered in order.

use super::frame::{self, Builder, Frame, Hello, Kind};
use super::link::{Stream, blocking, failed, parsed};
use super::machine::SnapshotData;
use super::members::{self, Change, ChangeError};
use super::network::SAY_EVERY;
use super::tls::Passport;
use super::types::{RaftLogId, RaftStored, RaftVote, Reader, parse_membership};
use super::{Node, ReadError};
use crate::apply::machine::Receive;
use crate::base::batch::Chunk;
use crate::base::planted::planted;
use crate::base::{Epoch, LogIndex, NodeId, Seldom};
use bytes::Bytes;
use openraft::storage::{Snapshot, SnapshotMeta};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

/// Until a stranger has said who it is, the handshake of TLS with it.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Strangers can cause lines in the log: no more than one in this time.
const COMPLAINT_EVERY: Duration = Duration::from_secs(10);

/// Takes connections until the node stops. No error of one connection, and none of `accept`, ends it.
pub async fn serve(listener: TcpListener, node: Arc<Node>) {
    let complaints = Arc::new(Seldom::new(COMPLAINT_EVERY));
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let _ = stream.set_nodelay(true);
                let (node, complaints) = (node.clone(), complaints.clone());
                tokio::spawn(async move {
                    match meet(stream, node).await {
                        Err(e) if e.kind() == io::ErrorKind::InvalidData && complaints.may_pass() => {
                            tracing::warn!("refused a peer's connection from {from}: {e}");
                        }
                        Err(e) => tracing::debug!("peer connection from {from}: {e}"),
                        Ok(()) => {}
                    }
                });
            }
            // Out of descriptors, or a client that left at once: the next may do better
            Err(e) => {
                tracing::warn!("accepting peers: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn meet(stream: TcpStream, node: Arc<Node>) -> io::Result<()> {
    let Some(tls) = &node.identity.tls else { return connection(Box::new(stream), None, node).await };
    let stream = tokio::time::timeout(HELLO_TIMEOUT, tls.accept(stream)).await??;
    let passport = Passport::of(stream.get_ref().1);
    connection(Box::new(stream), Some(passport), node).await
}

pub async fn connection(mut stream: Box<dyn Stream>, passport: Option<Passport>, node: Arc<Node>) -> io::Result<()> {
    let hello = tokio::time::timeout(HELLO_TIMEOUT, Hello::read(&mut stream)).await?;
    // Sent in any case: the other side tells its operator whom it reached, and which version that speaks
    node.identity.hello(hello.as_ref().map_or(0, |hello| hello.from)).write(&mut stream).await?;
    let hello = hello?;
    if hello == Hello::STRANGER {
        return stranger(stream, passport, &node).await;
    }
    if hello.cluster != node.identity.cluster || hello.to != node.id || hello.from == node.id {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a stranger: {hello:?}")));
    }
    if passport.is_some_and(|passport| !passport.is_of(hello.from)) {
        let text = format!("it says it is node {0}, but its certificate is not for node{0}", hello.from);
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut session = Session { node, from: hello.from, directory: hello.directory, receiving: None };
    while let Some(request) = frame::read(&mut stream, frame::PAYLOAD_BYTES_MAX).await? {
        let id = request.id;
        let mut response = match session.answer(request).await {
            Ok(response) => response,
            Err(e) if e.kind() == io::ErrorKind::InvalidData => return Err(e),
            Err(e) => failed(id, &e.to_string()),
        };
        stream.write_all(response.seal(id)?).await?;
        stream.flush().await?;
    }
    Ok(())
}

/// Who is no member may ask to become one, with a token, once a connection.
async fn stranger(mut stream: Box<dyn Stream>, passport: Option<Passport>, node: &Node) -> io::Result<()> {
    let request = tokio::time::timeout(HELLO_TIMEOUT, frame::read(&mut stream, members::JOIN_BYTES_MAX)).await??;
    let Some(request) = request.filter(|r| r.kind == Kind::Join) else { return Err(super::link::malformed()) };
    let mut answer = match node.admit(&request.payload, passport.as_ref()).await {
        Ok(joined) => members::joined(request.id, joined),
        Err(e) => {
            // Guessing is to be slow
            tokio::time::sleep(Duration::from_millis(50)).await;
            failed(request.id, &e.to_string())
        }
    };
    stream.write_all(answer.seal(request.id)?).await?;
    stream.flush().await
}

struct Receiving {
    vote: RaftVote,
    last: Option<RaftLogId>,
    membership: RaftStored,
    pages: Box<dyn Receive>,
    bytes: usize,
    /// When the last line about it was written.
    said: Instant,
}

struct Session {
    node: Arc<Node>,
    from: u64,
    directory: u64,
    receiving: Option<Receiving>,
}

impl Session {
    async fn answer(&mut self, request: Frame) -> io::Result<Builder> {
        let (id, payload) = (request.id, request.payload);
        let raft = &self.node.raft;
        let verdict = self.node.identity.verdict(self.from, self.directory);
        if request.kind != Kind::Standing
            && let Some(why) = verdict.refusal(NodeId(self.from))
        {
            return Err(io::Error::other(why));
        }
        match request.kind {
            Kind::Standing => {
                let mut b = Builder::new(Kind::Standing, id, 1);
                b.u8(verdict as u8);
                Ok(b)
            }
            Kind::Append => {
                let rpc = parsed(frame::parse_append_request(&payload))?;
                self.may_speak(&rpc.vote)?;
                let response = raft.append_entries(rpc).await.map_err(io::Error::other)?;
                Ok(frame::append_response(id, &response))
            }
            Kind::Vote => {
                let rpc = parsed(frame::parse_vote_request(&payload))?;
                self.may_speak(&rpc.vote)?;
                let mut response = raft.vote(rpc).await.map_err(io::Error::other)?;
                response.vote_granted |= planted("everybody gets a vote");
                Ok(frame::vote_response(Kind::Vote, id, &response))
            }
            Kind::PreVote => {
                let rpc = parsed(frame::parse_vote_request(&payload))?;
                self.may_speak(&rpc.vote)?;
                let response = raft.pre_vote(rpc).await.map_err(io::Error::other)?;
                Ok(frame::vote_response(Kind::PreVote, id, &response))
            }
            Kind::Transfer => {
                let rpc = parsed(frame::parse_transfer_request(&payload))?;
                self.may_speak(rpc.from_leader())?;
                let response = raft.handle_transfer_leader(rpc).await.map_err(io::Error::other)?;
                Ok(frame::transfer_response(id, &response))
            }
            Kind::SnapshotBegin => self.begin(id, &payload).await,
            Kind::SnapshotOffer => self.offer(id, payload).await,
            Kind::SnapshotPiece => self.piece(id, payload).await,
            Kind::SnapshotEnd => self.end(id).await,
            Kind::Forward => self.forward(id, payload),
            Kind::ReadIndex => {
                // A node that no longer leads must not ask on: two nodes could wait for each other
                if !self.node.leadership.borrow().me {
                    return Err(io::Error::other("not the leader"));
                }
                let point = self.node.read_round().await.map_err(io::Error::other)?;
                let mut b = Builder::new(Kind::ReadIndex, id, 16);
                b.u64(point.index.0);
                self.node.sink.get().map(|sink| b.u64(sink.now_ms() as u64));
                Ok(b)
            }
            Kind::Join => {
                let joined = self.node.admit(&payload, None).await.map_err(io::Error::other)?;
                Ok(members::joined(id, joined))
            }
            Kind::Change => {
                if !self.node.leadership.borrow().me {
                    return Err(io::Error::other(ChangeError::NoLeader));
                }
                self.node.change(parsed(Change::parse(&payload))?).await.map_err(io::Error::other)?;
                Ok(Builder::new(Kind::Change, id, 0))
            }
            Kind::Digest => {
                let index = LogIndex(parsed(Reader(&payload).u64())?);
                let mut b = Builder::new(Kind::Digest, id, 8);
                self.node.digests.at(index).map(|digest| b.u64(digest));
                Ok(b)
            }
            Kind::Failed => Err(super::link::malformed()),
        }
    }

    /// A peer speaks for itself only.
    fn may_speak(&self, vote: &RaftVote) -> io::Result<()> {
        if vote.leader_id.voted_for == self.from { Ok(()) } else { Err(super::link::malformed()) }
    }

    async fn begin(&mut self, id: u64, payload: &Bytes) -> io::Result<Builder> {
        let mut r = Reader(payload);
        let (vote, last, at) = (parsed(r.vote())?, parsed(r.log_id())?, parsed(r.log_id())?);
        let (source, total, epoch) = (parsed(r.u64())?, parsed(r.u64())?, Epoch(parsed(r.u64())?));
        self.may_speak(&vote)?;
        // A node that takes part no more must not be sent the same again and again
        if let Some(why) = self.node.failure() {
            return Err(io::Error::other(why));
        }
        let membership = RaftStored::new(at, parsed(parse_membership(r.0))?);
        let pages = self.node.queue.receive(source, epoch).await?;
        let begun = pages.begun();
        let again = if begun.have == 0 { "" } else { " goes on where it was broken off" };
        tracing::info!("checkpoint of {total} pages from node {}{again}", self.from);
        self.receiving = Some(Receiving { vote, last, membership, pages, bytes: 0, said: Instant::now() });
        let mut b = Builder::new(Kind::SnapshotBegin, id, 16);
        b.u64(begun.have).u64(begun.seed);
        Ok(b)
    }

    async fn offer(&mut self, id: u64, payload: Bytes) -> io::Result<Builder> {
        let mut receiving = parsed(self.receiving.take())?;
        let compare = move || {
            let lacking = receiving.pages.lacks(&payload);
            (receiving, lacking)
        };
        let (receiving, lacking) = blocking(&*self.node.identity.host, compare).await?;
        self.receiving = Some(receiving);
        let mut b = Builder::new(Kind::SnapshotOffer, id, lacking.len());
        b.bytes(&lacking);
        Ok(b)
    }

    async fn piece(&mut self, id: u64, payload: Bytes) -> io::Result<Builder> {
        let mut receiving = parsed(self.receiving.take())?;
        receiving.bytes += payload.len();
        if receiving.said.elapsed() > SAY_EVERY {
            receiving.said = Instant::now();
            tracing::info!("checkpoint from node {}: {} MiB received", self.from, receiving.bytes >> 20);
        }
        let take = move || {
            let taken = receiving.pages.piece(payload);
            (receiving, taken)
        };
        let (receiving, taken) = blocking(&*self.node.identity.host, take).await?;
        taken.map_err(io::Error::other)?;
        self.receiving = Some(receiving);
        Ok(Builder::new(Kind::SnapshotPiece, id, 0))
    }

    async fn end(&mut self, id: u64) -> io::Result<Builder> {
        let receiving = parsed(self.receiving.take())?;
        tracing::info!("checkpoint from node {}: complete, {} bytes received", self.from, receiving.bytes);
        let Receiving { vote, last: last_log_id, membership: last_membership, pages, .. } = receiving;
        let meta = SnapshotMeta { last_log_id, last_membership };
        let snapshot = Snapshot { meta, snapshot: SnapshotData::Theirs(pages) };
        let response = self.node.raft.install_full_snapshot(vote, snapshot).await.map_err(io::Error::other)?;
        let mut b = Builder::new(Kind::SnapshotEnd, id, 32);
        b.vote(&response.vote);
        Ok(b)
    }

    /// `term u64 | chunks` from a gateway whose node follows; answered 1 when taken, 0 when this node does not lead that term.
    fn forward(&mut self, id: u64, payload: Bytes) -> io::Result<Builder> {
        let term = parsed(Reader(&payload).u64())?;
        let mut rest = payload.slice(8..);
        let mut chunks = Vec::new();
        while !rest.is_empty() {
            chunks.push(Chunk::parse(&mut rest).map_err(|_| super::link::malformed())?);
        }
        let taken = self.node.sink.get().is_some_and(|sink| sink.forwarded(NodeId(self.from), term, chunks));
        let mut b = Builder::new(Kind::Forward, id, 1);
        b.u8(taken as u8);
        Ok(b)
    }
}

impl From<ReadError> for io::Error {
    fn from(e: ReadError) -> io::Error {
        io::Error::other(e.to_string())
    }
}
