//! The words of the log on disk: group, record, and the state that every segment starts with.
//!
//! ```text
//! segment = header block (4 KiB, `segment.rs`), then groups, each at a multiple of 4 KiB
//! group   = magic u32 | version u32 | crc32c u32 | records u32 | bytes u64 | number u64 | log u64 | chain u64 | zeros u32 | 0 (12 bytes)
//!           records, zeros up to 4 KiB
//! record  = magic u32 | version u8 | kind u8 | 0 u16 | crc32c u32 | length u32 | term u64 | index u64 | chain u64
//!           payload, zeros up to 8
//! ```
//!
//! A group is what one write made durable: it counts whole or not at all. Group numbers grow by one over the life of a
//! log. `chain` covers the chain before, the record's words and its payload: equal chains mean equal logs.
//!
//! A torn write and a damaged one are told apart by sectors, also in the very last group, which no high-water mark covers
//! yet: a segment is zeros before it is written, a disk writes a sector whole or not at all, and `zeros` counts the sectors
//! of the group that are zeros by right. A broken group with more of them than that is torn; one that has all its sectors
//! was durable, and is damaged.
//!
//! Why not recycle segments: their old contents would stand where a torn write must leave zeros. A segment costs one more
//! write in the background instead, ahead of its use.

use super::seal::{self, Sealer};
use super::{BLOCK, LogError};
use crate::base::mix64;
use crate::base::planted::planted;
use bytes::Bytes;

pub const VERSION: u32 = 2;
/// What a disk writes whole or not at all.
pub const SECTOR: usize = 512;
pub const GROUP_BYTES: usize = 64;
pub const RECORD_BYTES: usize = 40;
const GROUP_MAGIC: u32 = 0x3147_4b4c; // "LKG1"
const RECORD_MAGIC: u32 = 0x3152_4b4c; // "LKR1"

/// What a record is. Numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Entries of the replicated log: nothing, a batch, a membership.
    Blank = 1,
    Batch = 2,
    Membership = 3,
    /// `term` and voted-for node in `index`; payload one byte: committed or not.
    Vote = 16,
    /// Entries up to here are known to be committed.
    Committed = 17,
    /// Entries after `index` are void: a new leader had others there.
    Truncate = 18,
    /// Entries up to here are in a checkpoint; kept on disk for reads of the past as far as there is room.
    Purge = 19,
}

impl Kind {
    fn from_u8(b: u8) -> Option<Kind> {
        use Kind::*;
        [Blank, Batch, Membership, Vote, Committed, Truncate, Purge].into_iter().find(|k| *k as u8 == b)
    }
    pub fn is_entry(self) -> bool {
        matches!(self, Kind::Blank | Kind::Batch | Kind::Membership)
    }
}

/// Term and index of an entry; `index` from 1. The default means "none".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    pub term: u64,
    pub index: u64,
}

/// For whom this node voted, and whether that node was seen to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Vote {
    pub term: u64,
    pub node: u64,
    pub committed: bool,
}

/// A record as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub kind: Kind,
    pub term: u64,
    pub index: u64,
    pub payload: Bytes,
}

pub(crate) fn u32_at(b: &[u8], at: usize) -> u32 {
    b.get(at..at + 4).map_or(0, |b| u32::from_le_bytes(b.try_into().unwrap_or_default()))
}
pub(crate) fn u64_at(b: &[u8], at: usize) -> u64 {
    b.get(at..at + 8).map_or(0, |b| u64::from_le_bytes(b.try_into().unwrap_or_default()))
}

/// crc32c of `bytes` as if the four bytes at `at` were zero.
pub(crate) fn crc_without(bytes: &[u8], at: usize) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(&bytes[..at]);
    digest.update(&[0; 4]);
    digest.update(&bytes[at + 4..]);
    digest.finalize() as u32
}

/// Bytes of a record with a payload of `len` bytes.
pub fn record_len(len: usize) -> usize {
    RECORD_BYTES + len.next_multiple_of(8)
}

fn chain_after(chain: u64, kind: Kind, term: u64, index: u64, payload: &[u8]) -> u64 {
    let words = mix64(index ^ mix64(term ^ mix64(kind as u64 | (payload.len() as u64) << 8)));
    xxhash_rust::xxh3::xxh3_64_with_seed(payload, mix64(chain ^ words))
}

/// Completes the record whose header space and payload lie in `record` (padding excluded). Returns the new chain.
pub fn seal_record(record: &mut [u8], chain: u64, kind: Kind, term: u64, index: u64) -> u64 {
    let chain = chain_after(chain, kind, term, index, &record[RECORD_BYTES..]);
    let len = (record.len() - RECORD_BYTES) as u32;
    record[0..4].copy_from_slice(&RECORD_MAGIC.to_le_bytes());
    record[4] = VERSION as u8;
    record[5] = kind as u8;
    record[6..12].fill(0);
    record[12..16].copy_from_slice(&len.to_le_bytes());
    record[16..24].copy_from_slice(&term.to_le_bytes());
    record[24..32].copy_from_slice(&index.to_le_bytes());
    record[32..40].copy_from_slice(&chain.to_le_bytes());
    let crc = crc_without(record, 8);
    record[8..12].copy_from_slice(&crc.to_le_bytes());
    chain
}

/// Where an entry's payload belongs, for its encryption.
pub fn place(log: u64, kind: Kind, term: u64, index: u64) -> [u8; 32] {
    let name = [b'l', b'o', b'g', b' ', kind as u8, 0, 0, 0];
    seal::place(&name, [log, term, index])
}

/// An entry of an encrypted log, decrypted. Entries without a payload have nothing to hide.
pub fn open(seal: &Sealer, log: u64, record: Record) -> Result<Record, LogError> {
    if record.payload.is_empty() {
        return Ok(record);
    }
    let place = place(log, record.kind, record.term, record.index);
    let opened = seal.open(&place, record.payload.to_vec());
    let payload = opened.map_err(|e| LogError::Sealed { index: record.index, why: e })?;
    Ok(Record { payload: payload.into(), ..record })
}

/// The record at the front of `bytes`, its chain, and how many bytes it takes. `None`: not a whole, intact record.
pub fn parse_record(bytes: &Bytes) -> Option<(Record, u64, usize)> {
    if bytes.len() < RECORD_BYTES || u32_at(bytes, 0) != RECORD_MAGIC || bytes[4] != VERSION as u8 {
        return None;
    }
    let kind = Kind::from_u8(bytes[5])?;
    let len = u32_at(bytes, 12) as usize;
    let whole = bytes.get(..RECORD_BYTES.checked_add(len)?)?;
    if crc_without(whole, 8) != u32_at(bytes, 8) && !planted("a checksum is not checked") {
        return None;
    }
    let record = Record {
        kind,
        term: u64_at(bytes, 16),
        index: u64_at(bytes, 24),
        payload: bytes.slice(RECORD_BYTES..RECORD_BYTES + len),
    };
    Some((record, u64_at(bytes, 32), record_len(len)))
}

/// The head of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    pub number: u64,
    pub log: u64,
    /// Chain before its first record.
    pub chain: u64,
    pub records: u32,
    /// Head and records, without the padding.
    pub bytes: u64,
    /// Sectors of it, padding included, that hold nothing but zeros.
    pub zeros: u32,
}

/// Sectors that hold nothing but zeros.
pub fn zero_sectors(bytes: &[u8]) -> u32 {
    bytes.chunks(SECTOR).filter(|sector| is_zero(sector)).count() as u32
}

/// Whether `bytes` is zeros all through.
pub fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; BLOCK] = [0; BLOCK];
    bytes.chunks(BLOCK).all(|piece| *piece == ZEROS[..piece.len()])
}

impl Group {
    pub fn write(&self, out: &mut [u8]) {
        let head = &mut out[..GROUP_BYTES];
        head.fill(0);
        head[0..4].copy_from_slice(&GROUP_MAGIC.to_le_bytes());
        head[4..8].copy_from_slice(&VERSION.to_le_bytes());
        head[12..16].copy_from_slice(&self.records.to_le_bytes());
        head[16..24].copy_from_slice(&self.bytes.to_le_bytes());
        head[24..32].copy_from_slice(&self.number.to_le_bytes());
        head[32..40].copy_from_slice(&self.log.to_le_bytes());
        head[40..48].copy_from_slice(&self.chain.to_le_bytes());
        head[48..52].copy_from_slice(&self.zeros.to_le_bytes());
        let crc = crc_without(head, 8);
        head[8..12].copy_from_slice(&crc.to_le_bytes());
    }

    /// An intact head at the front of `bytes`, whatever follows it.
    pub fn parse(bytes: &[u8]) -> Option<Group> {
        let head = bytes.get(..GROUP_BYTES)?;
        if u32_at(head, 0) != GROUP_MAGIC || u32_at(head, 4) != VERSION || crc_without(head, 8) != u32_at(head, 8) {
            return None;
        }
        Some(Group {
            records: u32_at(head, 12),
            bytes: u64_at(head, 16),
            number: u64_at(head, 24),
            log: u64_at(head, 32),
            chain: u64_at(head, 40),
            zeros: u32_at(head, 48),
        })
    }

    /// Bytes that the group takes in the segment.
    pub fn padded(&self) -> u64 {
        self.bytes.next_multiple_of(BLOCK as u64)
    }

    /// All records of the group with their offsets from its start, and the chain after them; `None` unless all are intact and chained.
    pub fn records(&self, bytes: &Bytes) -> Option<(Vec<(Record, u64)>, u64)> {
        let end = usize::try_from(self.bytes).ok().filter(|end| *end <= bytes.len() && *end >= GROUP_BYTES)?;
        let mut at = GROUP_BYTES;
        let mut chain = self.chain;
        let mut records = Vec::new();
        for _ in 0..self.records {
            let (record, after, len) = parse_record(&bytes.slice(at..end))?;
            let chained = chain_after(chain, record.kind, record.term, record.index, &record.payload) == after;
            if !chained && !planted("a checksum is not checked") {
                return None;
            }
            records.push((record, at as u64));
            chain = after;
            at = at.checked_add(len)?;
            if at > end {
                return None;
            }
        }
        (at == end).then_some((records, chain))
    }
}

pub(crate) fn corrupt(file: &str, offset: u64, what: &'static str) -> LogError {
    LogError::Corrupt { file: file.to_string(), offset, what }
}
