//! Frames between peers, and the messages in them.
//!
//! ```text
//! hello  = "LOOKPEER" | version u32 | 0 u32 | cluster u64 | from u64 | to u64 | directory u64    (both ways; 48 bytes)
//! frame  = length u32 | crc32c u32 | kind u8 | 0 (7 bytes) | id u64 | payload          (24 bytes of head)
//! ```
//!
//! A stranger that wants to join knows neither cluster nor ids: all its words are 0. `crc32c` covers kind, id and payload. A response has its request's id and kind; kind [`Kind::Failed`] answers any. The length
//! is checked before anything is allocated, and memory follows the bytes that really arrive, not the announced length.

use super::types::{
    RaftEntry, RaftLogId, RaftVote, Reader, Types, entry_of, log_id, parse_membership, payload_of, position,
};
use crate::base::batch::Chunk;
use crate::disk::{Kind as RecordKind, Position, Record};
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::vote::leader_id_std;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Of all that peers say to each other: another one with every change of a frame, also of those in `store::transfer`.
pub const VERSION: u32 = 3;
const HELLO_MAGIC: &[u8; 8] = b"LOOKPEER";
const HELLO_BYTES: usize = 48;
const HEAD_BYTES: usize = 24;
/// Longest payload: the largest batch and what an append request says about it.
pub const PAYLOAD_BYTES_MAX: usize = (1 << 30) + (64 << 20);
/// A read grows its buffer by at most this.
const STEP_BYTES: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Append = 1,
    Vote = 2,
    PreVote = 3,
    SnapshotBegin = 4,
    SnapshotPiece = 5,
    SnapshotEnd = 6,
    Forward = 7,
    ReadIndex = 8,
    Join = 9,
    Change = 10,
    Standing = 11,
    Transfer = 12,
    /// Names of what pieces to come may hold; answered with a bit for each.
    SnapshotOffer = 13,
    /// `index u64`, answered with the digest of the state after that entry, or nothing.
    Digest = 32,
    Failed = 255,
}

impl Kind {
    fn from_u8(b: u8) -> Option<Kind> {
        use Kind::*;
        let raft = [Append, Vote, PreVote, SnapshotBegin, SnapshotOffer, SnapshotPiece, SnapshotEnd, Transfer];
        let all = raft.into_iter().chain([Forward, ReadIndex, Join, Change, Standing, Digest, Failed]);
        { all }.find(|k| *k as u8 == b)
    }
}

#[derive(Debug)]
pub struct Frame {
    pub kind: Kind,
    pub id: u64,
    pub payload: Bytes,
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Who speaks with whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    pub cluster: u64,
    pub from: u64,
    pub to: u64,
    /// The data directory of `from`; 0: not told.
    pub directory: u64,
}

impl Hello {
    pub const STRANGER: Hello = Hello { cluster: 0, from: 0, to: 0, directory: 0 };

    pub async fn write(&self, out: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let mut b = Vec::with_capacity(HELLO_BYTES);
        b.extend(HELLO_MAGIC);
        b.extend(VERSION.to_le_bytes());
        b.extend([0; 4]);
        [self.cluster, self.from, self.to, self.directory].iter().for_each(|w| b.extend(w.to_le_bytes()));
        out.write_all(&b).await?;
        out.flush().await
    }

    pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Hello> {
        let mut b = [0; HELLO_BYTES];
        from.read_exact(&mut b).await?;
        let mut r = Reader(&b);
        if r.take(8) != Some(HELLO_MAGIC) {
            return Err(bad("not a peer"));
        }
        let version = r.u32().unwrap_or(0);
        if version != VERSION {
            let text = format!(
                "it speaks version {version} of the peers' protocol, this node version {VERSION}: run the same release of look on both"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        r.u32();
        let mut word = || r.u64().ok_or_else(|| bad("short hello"));
        Ok(Hello { cluster: word()?, from: word()?, to: word()?, directory: word()? })
    }
}

/// A frame's bytes, to be filled with its payload and sealed.
pub struct Builder(Vec<u8>);

impl Builder {
    pub fn new(kind: Kind, id: u64, capacity: usize) -> Builder {
        let mut b = Vec::with_capacity(HEAD_BYTES + capacity);
        b.extend([0; 8]);
        b.push(kind as u8);
        b.extend([0; 7]);
        b.extend(id.to_le_bytes());
        Builder(b)
    }
    pub fn u8(&mut self, v: u8) -> &mut Self {
        self.0.push(v);
        self
    }
    pub fn u32(&mut self, v: u32) -> &mut Self {
        self.0.extend(v.to_le_bytes());
        self
    }
    pub fn u64(&mut self, v: u64) -> &mut Self {
        self.0.extend(v.to_le_bytes());
        self
    }
    pub fn bytes(&mut self, v: &[u8]) -> &mut Self {
        self.0.extend(v);
        self
    }
    /// The id is known last, when the frame gets its place on a connection.
    pub fn seal(&mut self, id: u64) -> io::Result<&[u8]> {
        let len = self.0.len() - HEAD_BYTES;
        if len > PAYLOAD_BYTES_MAX {
            return Err(bad("frame too long to send"));
        }
        self.0[16..24].copy_from_slice(&id.to_le_bytes());
        let crc = crc_fast::crc32_iscsi(&self.0[8..]);
        self.0[0..4].copy_from_slice(&(len as u32).to_le_bytes());
        self.0[4..8].copy_from_slice(&crc.to_le_bytes());
        Ok(&self.0)
    }

    pub fn vote(&mut self, v: &RaftVote) -> &mut Self {
        self.u64(v.leader_id.term).u64(v.leader_id.voted_for).u8(v.committed as u8)
    }
    pub fn log_id(&mut self, id: Option<&RaftLogId>) -> &mut Self {
        let p = id.map(position).unwrap_or_default();
        self.u64(p.term).u64(p.index)
    }
}

/// Reads one frame with a payload of at most `bytes_max`; `None` at a clean end.
pub async fn read(from: &mut (impl AsyncRead + Unpin), bytes_max: usize) -> io::Result<Option<Frame>> {
    let mut head = [0; HEAD_BYTES];
    match from.read_exact(&mut head).await {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let mut r = Reader(&head);
    let (len, crc) = (r.u32().unwrap_or(0) as usize, r.u32().unwrap_or(0));
    let kind = Kind::from_u8(head[8]).ok_or_else(|| bad("unknown kind of frame"))?;
    if len > bytes_max {
        return Err(bad("frame too long"));
    }
    let mut payload = BytesMut::new();
    while payload.len() < len {
        let step = (len - payload.len()).min(STEP_BYTES.max(payload.len()));
        payload.reserve(step);
        let mut limited = (&mut *from).take(step as u64);
        if limited.read_buf(&mut payload).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(&head[8..]);
    digest.update(&payload);
    if digest.finalize() as u32 != crc {
        return Err(bad("frame damaged on the way"));
    }
    let id = Reader(&head[16..]).u64().unwrap_or(0);
    Ok(Some(Frame { kind, id, payload: payload.freeze() }))
}

impl Reader<'_> {
    pub fn vote(&mut self) -> Option<RaftVote> {
        let (term, voted_for) = (self.u64()?, self.u64()?);
        Some(RaftVote { leader_id: leader_id_std::LeaderId { term, voted_for }, committed: self.u8()? == 1 })
    }
    /// The outer `None`: cut short.
    pub fn log_id(&mut self) -> Option<Option<RaftLogId>> {
        let (term, index) = (self.u64()?, self.u64()?);
        Some(log_id(Position { term, index }))
    }
}

/// Reads frames and the messages in them as a connection would, and forgets them: what fuzzers call.
pub fn probe(bytes: &[u8]) {
    let _ = Hello::read(&mut &*bytes).now_or_never();
    let mut rest = bytes;
    while let Some(Ok(Some(frame))) = read(&mut rest, PAYLOAD_BYTES_MAX).now_or_never() {
        match frame.kind {
            Kind::Append => {
                parse_append_request(&frame.payload);
                parse_append_response(&frame.payload);
            }
            Kind::Vote | Kind::PreVote => {
                parse_vote_request(&frame.payload);
                parse_vote_response(&frame.payload);
            }
            Kind::Transfer => {
                parse_transfer_request(&frame.payload);
                parse_transfer_response(&frame.payload);
            }
            Kind::SnapshotBegin => {
                let mut r = Reader(&frame.payload);
                if let (Some(_), Some(_), Some(_)) = (r.vote(), r.log_id(), r.log_id()) {
                    parse_membership(r.0);
                }
            }
            Kind::Forward => {
                let mut rest = frame.payload.slice(frame.payload.len().min(8)..);
                while !rest.is_empty() && Chunk::parse(&mut rest).is_ok() {}
            }
            _ => {}
        }
    }
}

pub fn append_request(r: &AppendEntriesRequest<Types>) -> Builder {
    let payloads: Vec<_> = r.entries.iter().map(payload_of).collect();
    let bytes = payloads.iter().map(|(_, p)| p.encoded_len() + 32).sum::<usize>();
    let mut b = Builder::new(Kind::Append, 0, bytes + 128);
    b.vote(&r.vote).log_id(r.prev_log_id.as_ref()).log_id(r.leader_commit.as_ref()).u32(r.entries.len() as u32);
    for (entry, (kind, payload)) in r.entries.iter().zip(payloads) {
        b.u8(kind as u8).log_id(Some(&entry.log_id)).u32(payload.encoded_len() as u32);
        payload.write_to(&mut |piece| {
            b.bytes(piece);
        });
    }
    b
}

pub fn parse_append_request(payload: &Bytes) -> Option<AppendEntriesRequest<Types>> {
    let mut r = Reader(payload);
    let (vote, prev_log_id, leader_commit) = (r.vote()?, r.log_id()?, r.log_id()?);
    let count = r.u32()?;
    let mut entries = Vec::new();
    for _ in 0..count {
        entries.push(parse_entry(&mut r, payload)?);
    }
    r.0.is_empty().then_some(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
}

fn parse_entry(r: &mut Reader<'_>, payload: &Bytes) -> Option<RaftEntry> {
    let kind = [RecordKind::Blank, RecordKind::Batch, RecordKind::Membership].into_iter();
    let byte = r.u8()?;
    let kind = { kind }.find(|k| *k as u8 == byte)?;
    let (term, index, len) = (r.u64()?, r.u64()?, r.u32()? as usize);
    let body = payload.slice_ref(r.take(len)?);
    entry_of(Record { kind, term, index, payload: body }).ok()
}

pub fn append_response(id: u64, r: &AppendEntriesResponse<Types>) -> Builder {
    let mut b = Builder::new(Kind::Append, id, 32);
    match r {
        AppendEntriesResponse::Success => b.u8(0),
        AppendEntriesResponse::PartialSuccess(at) => b.u8(1).log_id(at.as_ref()),
        AppendEntriesResponse::Conflict => b.u8(2),
        AppendEntriesResponse::HigherVote(vote) => b.u8(3).vote(vote),
    };
    b
}

pub fn parse_append_response(payload: &[u8]) -> Option<AppendEntriesResponse<Types>> {
    let mut r = Reader(payload);
    Some(match r.u8()? {
        0 => AppendEntriesResponse::Success,
        1 => AppendEntriesResponse::PartialSuccess(r.log_id()?),
        2 => AppendEntriesResponse::Conflict,
        3 => AppendEntriesResponse::HigherVote(r.vote()?),
        _ => return None,
    })
}

pub fn transfer_request(r: &TransferLeaderRequest<Types>) -> Builder {
    let mut b = Builder::new(Kind::Transfer, 0, 64);
    b.vote(r.from_leader()).u64(*r.to_node_id()).log_id(r.last_log_id());
    b
}

pub fn parse_transfer_request(payload: &[u8]) -> Option<TransferLeaderRequest<Types>> {
    let mut r = Reader(payload);
    Some(TransferLeaderRequest::new(r.vote()?, r.u64()?, r.log_id()?))
}

pub fn transfer_response(id: u64, r: &TransferLeaderResponse<Types>) -> Builder {
    let mut b = Builder::new(Kind::Transfer, id, 64);
    match r {
        Ok(()) => b.u8(0),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => b.u8(1).vote(expected).vote(actual),
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            b.u8(2).log_id(expected.as_ref()).log_id(actual.as_ref())
        }
    };
    b
}

pub fn parse_transfer_response(payload: &[u8]) -> Option<TransferLeaderResponse<Types>> {
    let mut r = Reader(payload);
    Some(match r.u8()? {
        0 => Ok(()),
        1 => Err(TransferLeaderError::VoteChanged { expected: r.vote()?, actual: r.vote()? }),
        2 => Err(TransferLeaderError::LogNotFlushed { expected: r.log_id()?, actual: r.log_id()? }),
        _ => return None,
    })
}

pub fn vote_request(kind: Kind, r: &VoteRequest<Types>) -> Builder {
    let mut b = Builder::new(kind, 0, 64);
    b.vote(&r.vote).log_id(r.last_log_id.as_ref()).u8(r.leadership_transfer as u8);
    b
}

pub fn parse_vote_request(payload: &[u8]) -> Option<VoteRequest<Types>> {
    let mut r = Reader(payload);
    let mut request = VoteRequest::new(r.vote()?, r.log_id()?);
    request.leadership_transfer = r.u8()? == 1;
    Some(request)
}

pub fn vote_response(kind: Kind, id: u64, r: &VoteResponse<Types>) -> Builder {
    let mut b = Builder::new(kind, id, 64);
    b.vote(&r.vote).log_id(r.last_log_id.as_ref()).u8(r.vote_granted as u8);
    b
}

pub fn parse_vote_response(payload: &[u8]) -> Option<VoteResponse<Types>> {
    let mut r = Reader(payload);
    let (vote, last, granted) = (r.vote()?, r.log_id()?, r.u8()? == 1);
    Some(VoteResponse::new(vote, last, granted))
}
