//! # The batch format
//!
//! What a Raft entry carries, what the log stores, what peers send and what apply reads: flat, 8-byte aligned, little endian,
//! versioned, readable in place. Nothing is encoded a second time on the way.
//!
//! ```text
//! entry   = BatchHeader (64 bytes), then chunks
//! chunk   = ChunkHeader (40 bytes): gateway u64 | sequence u64 | code version u64 | record bytes u32 | blob bytes u32 | calls u32 | crc-free 0 u32
//!           records (8-aligned), blob (padded to 8 with zeros)
//! record  = handler u24 | db u8 | words u32, then `words` × u64
//! ```
//!
//! A call's words are its argument slots: the fixed part that the command's grammar lays out, then the elements of its list
//! arguments. One parameter takes: int, float, bool, flag, enum 1 word; bytes 1 word ([`BytesWord`], offset relative to the
//! chunk's *blob*); key 2 words (bytes, hash); `T?` and unions 1 + the payload's; a list (`rest`) 1 word
//! ([`ListWord`]: where its elements start among the call's words, and how many there are).

use crate::base::{GatewayId, Millis};
use bytes::Bytes;
use std::fmt;
use zerocopy::IntoBytes;

pub use crate::base::words::{BytesWord, ListWord};

pub const FORMAT_VERSION: u32 = 1;
pub const BATCH_HEADER_BYTES: usize = 64;
pub const CHUNK_HEADER_BYTES: usize = 40;
/// Largest blob of a chunk: [`BytesWord`] has 30 bits for an offset.
pub const BLOB_BYTES_MAX: usize = 1 << 30;

/// Most words of one call: 1,048,576 arguments of at most three words.
pub const WORDS_MAX: usize = 1 << 22;

/// Handler numbers with a meaning of their own; all others are numbers of the code table.
pub mod handler {
    /// MULTI/EXEC: words = [calls n, watches m, then m × (db, key word, hash, epoch)]; the next n records are one epoch.
    pub const EXEC: u32 = 0xff_ffff;
    /// Beside the db of a watch: its key did not exist.
    pub const WATCH_ABSENT: u64 = 1 << 8;
    /// LOOK.ONCE: words = [token word, body digest, RESP version]; the next record (or EXEC group) runs at most once per token.
    pub const ONCE: u32 = 0xff_fffe;
    /// Replicated change outside any command (configuration, hash seed): words = [kind, argument word, …]
    pub const SYSTEM: u32 = 0xff_fffd;
    /// Kind of a SYSTEM record: words = [kind, seed]. The cluster's hash seed; the first one wins.
    pub const SYSTEM_HASH_SEED: u64 = 1;
    /// Kind of a SYSTEM record: words = [kind, epoch e, then n × (name word, value word or [`SYSTEM_REMOVE`])]. One epoch; sets named
    /// pieces of the system state unless one of them has changed after e ([`u64::MAX`]: whatever has changed). Replies OK, or nil.
    pub const SYSTEM_SET: u64 = 2;
    /// In the place of a value word: the piece goes away. (No value is so long.)
    pub const SYSTEM_REMOVE: u64 = u64::MAX;
    /// Kind of a SYSTEM record: words = [kind, node, directory]. The data directory that a node started with; the first one wins.
    pub const SYSTEM_NODE: u64 = 3;
}

/// The start of every entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct BatchHeader {
    /// The leader's wall clock when it closed the batch; made monotone by apply.
    pub time_ms: Millis,
    /// Seed of every random choice in this batch.
    pub seed: u64,
    pub chunks: u32,
}

/// One connection's calls from one read, in order.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    pub gateway: GatewayId,
    pub sequence: u64,
    pub code_version: u64,
    pub calls: u32,
    pub records: Bytes,
    pub blob: Bytes,
}

/// A small call takes about as long as copying and checking so many bytes.
const CALL_WEIGHT: usize = 256;

#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub header: BatchHeader,
    pub chunks: Vec<Chunk>,
}

/// One call, as it lies in a chunk.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub handler: u32,
    pub db: u8,
    /// Argument words; not necessarily aligned when the entry came from a peer, hence bytes.
    pub words: Words<'a>,
}

/// A run of argument words.
#[derive(Clone, Copy)]
pub struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Words(bytes)
    }
    pub fn len(self) -> usize {
        self.0.len() / 8
    }
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }
    /// The word at `i`, 0 past the end.
    #[inline]
    pub fn get(self, i: usize) -> u64 {
        self.0.get(i * 8..i * 8 + 8).map_or(0, |b| u64::from_le_bytes(b.try_into().unwrap_or_default()))
    }
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }
    pub fn iter(self) -> impl Iterator<Item = u64> + 'a {
        (0..self.len()).map(move |i| self.get(i))
    }
}

impl fmt::Debug for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Why bytes are not a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error("batch is cut short")]
    Short,
    #[error("batch format {0} is not known to this version; upgrade this node")]
    Version(u32),
    #[error("batch is damaged: {0}")]
    Damaged(&'static str),
}

fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(b.get(at..at + 4)?.try_into().ok()?))
}
fn u64_at(b: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(b.get(at..at + 8)?.try_into().ok()?))
}
fn padded(n: usize) -> usize {
    n.next_multiple_of(8)
}

impl Batch {
    /// How much there is to write and to apply, in bytes; each call counts for [`CALL_WEIGHT`] besides its own.
    pub fn weight(&self) -> usize {
        self.chunks.iter().map(|c| c.calls as usize * CALL_WEIGHT + c.records.len() + c.blob.len()).sum()
    }

    /// Bytes that [`Batch::write_to`] will produce.
    pub fn encoded_len(&self) -> usize {
        BATCH_HEADER_BYTES + self.chunks.iter().map(Chunk::encoded_len).sum::<usize>()
    }

    /// Hands the entry's bytes to `out`, piece by piece and in order; values are not copied here.
    pub fn write_to(&self, mut out: impl FnMut(&[u8])) {
        let mut head = [0u8; BATCH_HEADER_BYTES];
        head[0..4].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        head[4..8].copy_from_slice(&(self.chunks.len() as u32).to_le_bytes());
        head[8..16].copy_from_slice(&self.header.time_ms.to_le_bytes());
        head[16..24].copy_from_slice(&self.header.seed.to_le_bytes());
        out(&head);
        for chunk in &self.chunks {
            chunk.write_to(&mut out);
        }
    }

    pub fn to_bytes(&self) -> Bytes {
        let mut v = Vec::with_capacity(self.encoded_len());
        self.write_to(|piece| v.extend_from_slice(piece));
        v.into()
    }

    /// Reads an entry in place: chunks are slices of `bytes`. Checks every length and every record once.
    pub fn parse(bytes: Bytes) -> Result<Batch, FormatError> {
        let version = u32_at(&bytes, 0).ok_or(FormatError::Short)?;
        if version != FORMAT_VERSION {
            return Err(FormatError::Version(version));
        }
        if bytes.len() < BATCH_HEADER_BYTES {
            return Err(FormatError::Short);
        }
        let count = u32_at(&bytes, 4).ok_or(FormatError::Short)?;
        let header = BatchHeader {
            time_ms: u64_at(&bytes, 8).ok_or(FormatError::Short)? as i64,
            seed: u64_at(&bytes, 16).ok_or(FormatError::Short)?,
            chunks: count,
        };
        let mut rest = bytes.slice(BATCH_HEADER_BYTES..);
        let mut chunks = Vec::with_capacity((count as usize).min(rest.len() / CHUNK_HEADER_BYTES));
        for _ in 0..count {
            let chunk = Chunk::parse(&mut rest)?;
            chunks.push(chunk);
        }
        if !rest.is_empty() {
            return Err(FormatError::Damaged("bytes after the last chunk"));
        }
        Ok(Batch { header, chunks })
    }
}

impl Chunk {
    pub fn encoded_len(&self) -> usize {
        CHUNK_HEADER_BYTES + self.records.len() + padded(self.blob.len())
    }

    pub fn write_to(&self, mut out: impl FnMut(&[u8])) {
        let mut head = [0u8; CHUNK_HEADER_BYTES];
        head[0..8].copy_from_slice(&self.gateway.0.to_le_bytes());
        head[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        head[16..24].copy_from_slice(&self.code_version.to_le_bytes());
        head[24..28].copy_from_slice(&(self.records.len() as u32).to_le_bytes());
        head[28..32].copy_from_slice(&(self.blob.len() as u32).to_le_bytes());
        head[32..36].copy_from_slice(&self.calls.to_le_bytes());
        out(&head);
        out(&self.records);
        out(&self.blob);
        out(&[0u8; 8][..padded(self.blob.len()) - self.blob.len()]);
    }

    /// Takes one chunk off the front of `rest`.
    pub fn parse(rest: &mut Bytes) -> Result<Chunk, FormatError> {
        let field = |at| u64_at(rest, at).ok_or(FormatError::Short);
        let (gateway, sequence, code_version) = (GatewayId(field(0)?), field(8)?, field(16)?);
        let lens = field(24)?;
        let (record_bytes, blob_bytes) = (lens as u32 as usize, (lens >> 32) as usize);
        let calls = field(32)? as u32;
        let total = CHUNK_HEADER_BYTES + record_bytes + padded(blob_bytes);
        if record_bytes % 8 != 0 || blob_bytes > BLOB_BYTES_MAX {
            return Err(FormatError::Damaged("chunk lengths"));
        }
        if rest.len() < total {
            return Err(FormatError::Short);
        }
        let bytes = rest.split_to(total);
        let chunk = Chunk {
            gateway,
            sequence,
            code_version,
            calls,
            records: bytes.slice(CHUNK_HEADER_BYTES..CHUNK_HEADER_BYTES + record_bytes),
            blob: bytes.slice(CHUNK_HEADER_BYTES + record_bytes..CHUNK_HEADER_BYTES + record_bytes + blob_bytes),
        };
        let mut seen = 0;
        let mut at = 0;
        while at < record_bytes {
            let words = u32_at(&chunk.records, at + 4).ok_or(FormatError::Short)? as usize;
            at += 8 + words * 8;
            seen += 1;
        }
        if at != record_bytes || seen != calls {
            return Err(FormatError::Damaged("call records"));
        }
        Ok(chunk)
    }

    pub fn calls(&self) -> Calls<'_> {
        Calls { rest: &self.records }
    }
}

/// The calls of a chunk, in order.
#[derive(Clone)]
pub struct Calls<'a> {
    rest: &'a [u8],
}

impl<'a> Calls<'a> {
    /// Records as a [`ChunkBuilder`] lays them out.
    pub fn new(records: &'a [u8]) -> Self {
        Calls { rest: records }
    }
}

impl<'a> Iterator for Calls<'a> {
    type Item = Call<'a>;

    #[inline]
    fn next(&mut self) -> Option<Call<'a>> {
        let head = u64_at(self.rest, 0)?;
        let words = (head >> 32) as usize;
        let (record, rest) = self.rest.split_at_checked(8 + words * 8)?;
        self.rest = rest;
        Some(Call { handler: head as u32 & 0xff_ffff, db: (head >> 24) as u8, words: Words(&record[8..]) })
    }
}

/// What a builder, or a plan, keeps of each of its buffers from chunk to chunk.
pub const KEEP_BYTES: usize = 64 << 10;

/// Writes calls: the argument parser fills it, the gateway sends it off as a chunk (or runs it where it is).
#[derive(Default, Debug)]
pub struct ChunkBuilder {
    pub words: Vec<u64>,
    pub blob: Vec<u8>,
    pub calls: u32,
    open: usize,
}

/// Where a [`ChunkBuilder`] was.
#[derive(Clone, Copy, Debug)]
pub struct BuilderPlace {
    words: usize,
    blob: usize,
    calls: u32,
}

impl BuilderPlace {
    /// Index of its first word.
    pub fn word(self) -> usize {
        self.words
    }
}

impl ChunkBuilder {
    pub fn begin(&mut self, handler: u32, db: u8) {
        self.open = self.words.len();
        self.words.push(handler as u64 & 0xff_ffff | (db as u64) << 24);
    }
    /// Appends a word to the open call and tells its number among the call's words.
    #[inline]
    pub fn word(&mut self, word: u64) -> usize {
        self.words.push(word);
        self.words.len() - self.open - 2
    }
    /// Appends so many words that are zero.
    #[inline]
    pub fn zeros(&mut self, words: usize) {
        self.words.resize(self.words.len() + words, 0);
    }
    /// Changes a word of the open call.
    #[inline]
    pub fn set_word(&mut self, number: usize, word: u64) {
        let at = self.open + 1 + number;
        self.words[at] = word;
    }
    pub fn get_word(&self, number: usize) -> u64 {
        self.words[self.open + 1 + number]
    }
    /// The words of the open call so far; of the call that was closed last, before another is opened.
    pub fn open_call_words(&self) -> &[u64] {
        &self.words[self.open + 1..]
    }
    /// Words of the open call so far.
    pub fn open_words(&self) -> usize {
        self.words.len() - self.open - 1
    }
    /// Copies an argument into the blob.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) -> BytesWord {
        let at = self.blob.len();
        self.blob.extend_from_slice(bytes);
        BytesWord::argument(at as u32, bytes.len() as u32)
    }
    /// Closes the open call. False (and the call is taken back) when it has more words than a record can hold.
    #[must_use]
    pub fn end(&mut self) -> bool {
        let words = self.words.len() - self.open - 1;
        if words > WORDS_MAX || self.blob.len() > BLOB_BYTES_MAX {
            self.words.truncate(self.open);
            return false;
        }
        self.words[self.open] |= (words as u64) << 32;
        self.calls += 1;
        true
    }
    /// Takes the open call back (its arguments were wrong). Its blob bytes stay, unreferenced, unless `blob` says where it began.
    pub fn cancel(&mut self, blob: usize) {
        self.words.truncate(self.open);
        self.blob.truncate(blob);
    }
    /// Where the builder is now.
    pub fn place(&self) -> BuilderPlace {
        BuilderPlace { words: self.words.len(), blob: self.blob.len(), calls: self.calls }
    }
    /// Takes back every call since then.
    pub fn take_back(&mut self, to: BuilderPlace) {
        self.words.truncate(to.words);
        self.blob.truncate(to.blob);
        self.calls = to.calls;
    }
    /// The chunk, ready to travel, in one allocation unless it is large; the builder is empty afterwards.
    pub fn finish(&mut self, gateway: GatewayId, sequence: u64, code_version: u64) -> Chunk {
        let split = self.words.len() * 8;
        let moved = self.blob.len() > KEEP_BYTES;
        let mut bytes = Vec::with_capacity(split + if moved { 0 } else { self.blob.len() });
        self.words.iter_mut().for_each(|word| *word = word.to_le());
        bytes.extend_from_slice(self.words.as_bytes());
        if !moved {
            bytes.extend_from_slice(&self.blob);
        }
        let mut records = Bytes::from(bytes);
        let copied = records.split_off(split);
        let blob = if moved { std::mem::take(&mut self.blob).into() } else { copied };
        let chunk = Chunk { gateway, sequence, code_version, calls: self.calls, records, blob };
        self.clear();
        chunk
    }
    pub fn is_empty(&self) -> bool {
        self.calls == 0
    }
    /// Empties the builder and keeps small buffers for the next chunk.
    pub fn clear(&mut self) {
        self.calls = 0;
        self.words.clear();
        self.words.shrink_to(KEEP_BYTES / 8);
        self.blob.clear();
        self.blob.shrink_to(KEEP_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(sequence: u64) -> Chunk {
        let mut b = ChunkBuilder::default();
        for i in 0..3u64 {
            b.begin(7 + i as u32, i as u8);
            let key = b.bytes(b"key");
            b.word(key.0);
            b.word(i);
            assert!(b.end());
        }
        b.finish(GatewayId(9), sequence, 1)
    }

    #[test]
    fn a_batch_reads_back_as_written() {
        let batch = Batch { header: BatchHeader { time_ms: 5, seed: 6, chunks: 2 }, chunks: vec![chunk(1), chunk(2)] };
        let bytes = batch.to_bytes();
        assert_eq!(bytes.len(), batch.encoded_len());
        let back = Batch::parse(bytes).unwrap();
        assert_eq!(back.header, batch.header);
        let calls: Vec<_> = back.chunks[1].calls().map(|c| (c.handler, c.db, c.words.get(1))).collect();
        assert_eq!(calls, [(7, 0, 0), (8, 1, 1), (9, 2, 2)]);
        assert_eq!(&back.chunks[0].blob[..], b"keykeykey");
    }

    #[test]
    fn every_cut_and_every_flip_of_a_length_is_an_error_or_a_batch_never_a_panic() {
        let batch = Batch { header: BatchHeader { chunks: 2, ..Default::default() }, chunks: vec![chunk(1), chunk(2)] };
        let bytes = batch.to_bytes();
        for cut in 0..bytes.len() {
            assert!(Batch::parse(bytes.slice(..cut)).is_err(), "cut at {cut}");
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut v = bytes.to_vec();
                v[at] ^= 1 << bit;
                let v_len = v.len();
                if let Ok(b) = Batch::parse(v.into()) {
                    let words: usize =
                        b.chunks.iter().flat_map(Chunk::calls).map(|call| call.words.iter().count()).sum();
                    assert!(words <= v_len, "more words than bytes");
                }
            }
        }
    }

    #[test]
    fn a_cancelled_call_leaves_no_trace() {
        let mut b = ChunkBuilder::default();
        b.begin(1, 0);
        b.word(1);
        assert!(b.end());
        let blob = b.blob.len();
        b.begin(2, 0);
        let w = b.bytes(b"gone");
        b.word(w.0);
        b.cancel(blob);
        let c = b.finish(GatewayId(1), 1, 1);
        assert_eq!((c.calls().count(), c.blob.len()), (1, 0));
    }
}
