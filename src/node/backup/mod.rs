//! # Backups: copies of a running node that stay consistent, grow by what changed, and can be restored at an epoch
//!
//! A backup directory holds *runs*, one for each `look backup`. A run is what one node streamed: the entries of the log since the
//! run before (so that every epoch in between can be restored), the pages that no earlier run has, and a checkpoint's root record.
//!
//! ```text
//! DIR/BACKUP    manifest: a line of `name=value` a run, and a checksum; replaced whole when a run is complete
//! DIR/run-N     frames (`disk/frames.rs`): entries, pages, root record
//! key of a frame = page key | 1 << 63 + log index | u64::MAX (root record)
//! bytes of a frame: as they are, or sealed (`disk/seal.rs`) by a node that encrypts its data
//! entry          = kind u8 | 0 (7 bytes) | term u64 | payload
//! ```
//!
//! Promises: a crash at any moment of a run leaves the runs before it usable, because only the manifest makes a run count; a run is
//! consistent at one epoch; nothing is restored from a run of which a byte is not as it was written.
//!
//! Why page numbers tell what an earlier run has: pages are copy-on-write under fresh numbers and refer to older ones only, so a version
//! holds nothing from before the earlier run's version that this one had not held. That is so within one page store, which `lineage`
//! names, and as long as its records are those that the earlier run saw; otherwise the run is full. And why entries are known to follow:
//! `anchor` is an entry of the earlier run with its checksum (a batch, which holds random bits); the node must have the very same one.

mod client;
mod restore;
mod serve;
mod set;

pub use client::{Server, backup};
pub use restore::{Target, restore};
pub use serve::Backups;
pub use set::check;

use crate::disk::crc32c;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const MANIFEST: &str = "BACKUP";
const FORMAT: u64 = 1;
/// Set in the keys of log entries; page keys do not reach so far.
const ENTRY_KEY: u64 = 1 << 63;

/// What can go wrong on either side of a backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    #[error("{0} is no backup: it has no file {MANIFEST}; check the path")]
    Absent(PathBuf),
    #[error("{0} is damaged ({1}); use another copy of this backup")]
    Damaged(PathBuf, String),
    #[error("{0} has format {1}; this version reads up to {FORMAT}: use a newer Look")]
    Newer(PathBuf, u64),
    #[error("{0} holds backups of another cluster; choose another --to")]
    OtherCluster(PathBuf),
    #[error("another backup to {0} is running; wait for it")]
    Locked(PathBuf),
    #[error("{0} is neither empty nor a backup; choose another --to")]
    Foreign(PathBuf),
    #[error("cannot speak with {0}: {1}; check -h, -p and -a, and that the node runs")]
    Server(String, io::Error),
    #[error("{0} refuses: {1}")]
    Refused(String, String),
    #[error("epoch {0} is in no backup of {1}; it can restore {2}")]
    NoEpoch(u64, PathBuf, String),
    #[error("{0} is not empty; choose another --dir")]
    Target(PathBuf),
    #[error("{0}")]
    Restore(String),
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> BackupError {
    move |error| BackupError::Io(path.into(), error)
}

/// One run. All numbers, so that the manifest and the wire share one form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    pub number: u64,
    /// Length and XXH3 of its file.
    pub bytes: u64,
    pub check: u64,
    /// Random name of the cluster: its hash seed.
    pub cluster: u64,
    pub node: u64,
    pub lineage: u64,
    /// Of the root record: sequence, checksum, next page number, epoch, last entry that it shows.
    pub sequence: u64,
    pub record: u64,
    pub next_page: u64,
    pub epoch: u64,
    pub applied: u64,
    /// It holds the pages from this number on; 0: all.
    pub pages_from: u64,
    /// Its entries; none when `first` is behind `last`. They follow those of the run before if `follows` is 1.
    pub first: u64,
    pub last: u64,
    pub follows: u64,
    pub anchor: u64,
    pub anchor_check: u64,
    /// The epoch at which it is consistent: that of entry `last`. Log time of the same, milliseconds.
    pub last_epoch: u64,
    pub time: u64,
    /// The key with which its frames are encrypted; 0: they are plain.
    pub key: u64,
}

const NAMES: [&str; 20] = [
    "run",
    "bytes",
    "check",
    "cluster",
    "node",
    "lineage",
    "sequence",
    "record",
    "next-page",
    "epoch",
    "applied",
    "pages-from",
    "first",
    "last",
    "follows",
    "anchor",
    "anchor-check",
    "last-epoch",
    "time",
    "key",
];

impl Run {
    fn words(&mut self) -> [&mut u64; NAMES.len()] {
        [
            &mut self.number,
            &mut self.bytes,
            &mut self.check,
            &mut self.cluster,
            &mut self.node,
            &mut self.lineage,
            &mut self.sequence,
            &mut self.record,
            &mut self.next_page,
            &mut self.epoch,
            &mut self.applied,
            &mut self.pages_from,
            &mut self.first,
            &mut self.last,
            &mut self.follows,
            &mut self.anchor,
            &mut self.anchor_check,
            &mut self.last_epoch,
            &mut self.time,
            &mut self.key,
        ]
    }

    fn to_text(mut self) -> String {
        let words = NAMES.iter().zip(self.words()).map(|(name, word)| format!("{name}={word}"));
        words.collect::<Vec<_>>().join(" ")
    }

    fn parse(text: &str) -> Option<Run> {
        let mut run = Run::default();
        let mut fields = text.split(' ');
        for (name, word) in NAMES.iter().zip(run.words()) {
            *word = fields.next()?.strip_prefix(name)?.strip_prefix('=')?.parse().ok()?;
        }
        fields.next().is_none().then_some(run)
    }

    fn file(&self, dir: &Path) -> PathBuf {
        dir.join(format!("run-{}", self.number))
    }
}

/// The runs of a backup directory, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    pub runs: Vec<Run>,
}

impl Manifest {
    pub fn read(dir: &Path) -> Result<Manifest, BackupError> {
        let path = dir.join(MANIFEST);
        let text = fs::read(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => BackupError::Absent(dir.into()),
            _ => BackupError::Io(path.clone(), e),
        })?;
        let damaged = || BackupError::Damaged(path.clone(), "its checksum does not match".into());
        let text = String::from_utf8(text).map_err(|_| damaged())?;
        let body = text.rfind("crc32c ").and_then(|at| text.get(..at)).ok_or_else(damaged)?;
        if sealed(body) != text {
            return Err(damaged());
        }
        let mut lines = body.lines();
        match lines.next().and_then(|l| l.strip_prefix("look-backup-format ")?.parse::<u64>().ok()) {
            Some(FORMAT) => {}
            Some(newer) => return Err(BackupError::Newer(dir.into(), newer)),
            None => return Err(damaged()),
        }
        Ok(Manifest { runs: lines.map(Run::parse).collect::<Option<_>>().ok_or_else(damaged)? })
    }

    /// Replaces the manifest, whole or not at all.
    fn write(&self, dir: &Path) -> Result<(), BackupError> {
        let runs: String = self.runs.iter().map(|run| run.to_text() + "\n").collect();
        let (path, fresh) = (dir.join(MANIFEST), dir.join("BACKUP.new"));
        let write = || {
            let mut file = File::create(&fresh)?;
            file.write_all(sealed(&format!("look-backup-format {FORMAT}\n{runs}")).as_bytes())?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            File::open(dir)?.sync_all()
        };
        write().map_err(io_error(&path))
    }
}

/// Where a frame's bytes belong, for their encryption.
fn place(key: u64) -> [u8; 32] {
    crate::disk::seal::place(b"backup  ", [key, 0, 0])
}

/// The text with its checksum as the last line.
fn sealed(body: &str) -> String {
    format!("{body}crc32c {:08x}\n", crc32c(body.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_comes_back_and_every_bit_of_it_counts() {
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = Manifest::default();
        for number in 1..4 {
            let mut run = Run { number, ..Run::default() };
            run.words().into_iter().skip(1).for_each(|word| *word = crate::base::random());
            manifest.runs.push(run);
        }
        manifest.write(dir.path()).unwrap();
        assert_eq!(Manifest::read(dir.path()).unwrap(), manifest);
        let good = fs::read(dir.path().join(MANIFEST)).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(dir.path().join(MANIFEST), bad).unwrap();
            assert!(Manifest::read(dir.path()).is_err(), "bit {bit}");
        }
    }
}
