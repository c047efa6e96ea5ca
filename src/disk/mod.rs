//! # disk: bytes that survive
//!
//! Owns the [`Disk`] trait (the machine's own files, and files in memory with faults), the segments of the replicated
//! log, its high-water record, and the page store of checkpoints. Promises: what it reports durable survives power loss,
//! and damage is an error, never a shorter answer. Knows neither what an entry nor what a page means. Also starts the threads of a
//! write's way ([`urgent`]), for its own log and for the rooms above.

use std::io;

pub mod frames;
pub mod highwater;
pub mod log;
pub mod pages;
pub mod real;
pub mod record;
pub mod recovery;
pub mod seal;
pub mod segment;
pub mod sim;
pub mod urgent;
pub mod verify;
mod writer;

pub use log::{Append, Completion, Log, LogOptions, LogState, Payload, Turn, WriterByHand};
pub use real::RealDisk;
pub use record::{Kind, Position, Record, Vote};

/// Unit of alignment of every write of the log: the largest sector in use, and what `O_DIRECT` asks for.
pub const BLOCK: usize = 4096;

/// One directory of flat files. The seam at which crash tests put a disk of their own.
pub trait Disk: Send + Sync + 'static {
    /// Names of all files, in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Creates a file of `len` zero bytes (replacing any of that name). Contents are durable when it returns, its *name* only after [`Disk::sync_dir`].
    fn create(&self, name: &str, len: u64) -> io::Result<Box<dyn DiskFile>>;
    /// Durable only after [`Disk::sync_dir`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Durable only after [`Disk::sync_dir`].
    fn remove(&self, name: &str) -> io::Result<()>;
    fn sync_dir(&self) -> io::Result<()>;
}

/// An open file of a [`Disk`].
pub trait DiskFile: Send + Sync {
    fn len(&self) -> io::Result<u64>;
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Fills `buf` from `offset`; an error past the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Durable when it returns. `offset` and `buf.len()` are multiples of [`BLOCK`], `buf` lies at one.
    fn write_durable(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Makes everything written before durable.
    fn sync(&self) -> io::Result<()>;
}

/// Why the log cannot do what it was asked. `Clone`, because one failure answers every waiting writer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    #[error("log: {op}: {error}")]
    Io { op: &'static str, error: String, full: bool },
    /// Something that was durable is not there or not itself. The node must not vote or serve from this log.
    #[error("log is corrupt: {file} at byte {offset}: {what}")]
    Corrupt { file: String, offset: u64, what: &'static str },
    #[error("this log belongs to node {found}, not to node {expected}")]
    Foreign { found: u64, expected: u64 },
    #[error("log format {0} is not the one that this version of Look reads; start the version that wrote it")]
    Newer(u32),
    #[error("log entry {index} is {why}")]
    Sealed { index: u64, why: seal::SealError },
    /// The entries asked for are no longer kept.
    #[error("log entries before {oldest} are no longer kept")]
    Purged { oldest: u64 },
    #[error("log has no entry {0}")]
    Missing(u64),
    #[error("entry {got} does not follow entry {last}")]
    Gap { last: u64, got: u64 },
    /// An earlier write failed; nothing was accepted since.
    #[error("log stopped after a failure: {0}")]
    Stopped(String),
}

impl LogError {
    pub(crate) fn io(op: &'static str) -> impl Fn(io::Error) -> LogError {
        move |e| LogError::Io { op, error: e.to_string(), full: e.kind() == io::ErrorKind::StorageFull }
    }
}

impl From<LogError> for io::Error {
    fn from(e: LogError) -> io::Error {
        io::Error::other(e)
    }
}

/// The checksum of small files beside the log.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// A byte buffer whose contents begin at a multiple of [`BLOCK`], grown with `extend` and written in whole blocks.
pub struct AlignedBuf {
    bytes: Vec<u8>,
    start: usize,
}

impl Default for AlignedBuf {
    fn default() -> Self {
        AlignedBuf::with_capacity(256 * 1024)
    }
}

impl AlignedBuf {
    pub fn with_capacity(bytes: usize) -> Self {
        let mut buf = AlignedBuf { bytes: Vec::with_capacity(bytes + BLOCK), start: 0 };
        buf.clear();
        buf
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.start = self.bytes.as_ptr().align_offset(BLOCK);
        self.bytes.resize(self.start, 0);
    }

    /// Makes room for `more` bytes, moving the contents to an aligned place of a larger buffer if need be.
    pub fn reserve(&mut self, more: usize) {
        if self.bytes.capacity() - self.bytes.len() < more {
            let mut larger = AlignedBuf::with_capacity((self.len() + more).next_power_of_two());
            larger.bytes.extend_from_slice(&self.bytes[self.start..]);
            *self = larger;
        }
    }

    /// Appends; room must have been reserved, or the address (and with it the alignment) would change.
    pub fn extend(&mut self, bytes: &[u8]) {
        assert!(self.bytes.capacity() - self.bytes.len() >= bytes.len(), "room was reserved");
        self.bytes.extend_from_slice(bytes);
    }

    /// Zeros up to the next multiple of `unit`; room must have been reserved.
    pub fn pad(&mut self, unit: usize) {
        let len = self.len().next_multiple_of(unit);
        assert!(self.bytes.capacity() - self.start >= len, "room was reserved");
        self.bytes.resize(self.start + len, 0);
    }

    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }
}
