//! Runs that were read and found whole: where each page and entry of them lies.

use super::{BackupError, ENTRY_KEY, Manifest, Run, io_error};
use crate::apply::machine::{Body, Committed, LogPosition};
use crate::base::batch::Batch;
use crate::base::{LogIndex, PageId};
use crate::disk::frames;
use crate::disk::pages::{PageStore, PagesError, Put};
use crate::disk::seal::Sealer;
use crate::history::LogReader;
use crate::node::verify::{Report, progress, tell_pages};
use crate::store::RootRecord;
use crate::store::transfer::RECORD_KEY;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes read at once.
const READ_BYTES: usize = 4 << 20;
const AFTER: &str = "restore from another copy of this backup, or an epoch before this run; then take a full backup into a new directory";

/// Where a frame's bytes lie: key of the frame, file, offset, length, whether they are encrypted.
#[derive(Clone, Copy)]
struct Place {
    key: u64,
    file: usize,
    offset: u64,
    len: usize,
    sealed: bool,
}

/// Pages and entries of some runs, by key. Reads only.
#[derive(Default)]
pub struct Set {
    seal: Option<Arc<Sealer>>,
    files: Vec<(PathBuf, File)>,
    pages: BTreeMap<PageId, Place>,
    entries: BTreeMap<u64, Place>,
    records: BTreeMap<u64, Place>,
}

impl Set {
    /// `seal` opens what encrypted runs hold.
    pub fn new(seal: Option<Arc<Sealer>>) -> Set {
        Set { seal, ..Set::default() }
    }

    /// Adds a run whose file is, to the byte, what was written. Of pages and entries, as asked.
    pub fn add(&mut self, dir: &Path, run: &Run, pages: bool, entries: bool) -> Result<(), BackupError> {
        let path = run.file(dir);
        let damaged = |what: String| BackupError::Damaged(path.clone(), what);
        let mut file = File::open(&path).map_err(io_error(&path))?;
        let number = self.files.len();
        let (mut check, mut buffer, mut at) = (xxhash_rust::xxh3::Xxh3::new(), Vec::new(), 0u64);
        let mut found = Vec::new();
        loop {
            let before = buffer.len();
            (&mut file).take(READ_BYTES as u64).read_to_end(&mut buffer).map_err(io_error(&path))?;
            check.update(&buffer[before..]);
            let ended = buffer.len() == before;
            let mut rest = buffer.as_slice();
            while let Some((key, bytes, after)) =
                frames::take(rest).map_err(|what| damaged(format!("at byte {at}: {what}")))?
            {
                let header = (rest.len() - after.len() - bytes.len()) as u64;
                let (offset, len, sealed) = (at + header, bytes.len(), run.key != 0);
                found.push((key, Place { key, file: number, offset, len, sealed }));
                at += (rest.len() - after.len()) as u64;
                rest = after;
            }
            if ended {
                break;
            }
            buffer.drain(..buffer.len() - rest.len());
        }
        if at != run.bytes || check.digest() != run.check || !buffer.is_empty() {
            return Err(damaged(format!(
                "{at} whole bytes of {} are there, or their checksum does not match",
                run.bytes
            )));
        }
        self.files.push((path, file));
        for (key, place) in found {
            match key {
                RECORD_KEY if pages => drop(self.records.insert(run.sequence, place)),
                key if key & ENTRY_KEY != 0 && key != RECORD_KEY && entries => {
                    self.entries.insert(key & !ENTRY_KEY, place);
                }
                key if key & ENTRY_KEY == 0 && pages => drop(self.pages.insert(PageId(key), place)),
                _ => {}
            }
        }
        Ok(())
    }

    fn bytes(&self, place: Place) -> Result<Vec<u8>, PagesError> {
        let mut bytes = vec![0; place.len];
        let (path, file) = self.files.get(place.file).ok_or_else(|| PagesError::Io("no such file".into()))?;
        file.read_exact_at(&mut bytes, place.offset).map_err(|e| PagesError::Io(format!("{}: {e}", path.display())))?;
        let in_file =
            |error: &dyn Display| PagesError::Io(format!("{} at byte {}: {error}", path.display(), place.offset));
        match (&self.seal, place.sealed) {
            (_, false) => Ok(bytes),
            (Some(seal), true) => seal.open(&super::place(place.key), bytes).map_err(|e| in_file(&e)),
            (None, true) => Err(in_file(&"encrypted; give --encryption-key-file")),
        }
    }
}

impl LogReader for Set {
    fn read(&self, from: LogIndex, to: LogIndex) -> Result<Vec<Committed>, String> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        for (&index, &place) in self.entries.range(from.0..=to.0) {
            if index != from.0 + found.len() as u64 || bytes > READ_BYTES {
                break;
            }
            bytes += place.len;
            let entry = decode(index, self.bytes(place).map_err(|e| e.to_string())?);
            found.push(entry.ok_or_else(|| format!("entry {index} is not one"))?);
        }
        Ok(found)
    }

    fn since(&self) -> LogIndex {
        LogIndex(self.entries.first_key_value().map_or(0, |(index, _)| *index))
    }
}

fn decode(index: u64, bytes: Vec<u8>) -> Option<Committed> {
    let bytes = Bytes::from(bytes);
    let term = u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?);
    let payload = bytes.slice(16..);
    let body = match bytes[0] {
        0 => Body::Blank,
        1 => Body::Batch(Batch::parse(payload).ok()?.into()),
        2 => Body::Membership(payload),
        _ => return None,
    };
    Some(Committed { position: LogPosition { term, index: LogIndex(index) }, body })
}

fn read_only<T>() -> Result<T, PagesError> {
    Err(PagesError::Io("a backup is only read".into()))
}

impl PageStore for Set {
    fn lineage(&self) -> u64 {
        0
    }
    fn read(&self, id: PageId) -> Result<Vec<u8>, PagesError> {
        self.bytes(*self.pages.get(&id).ok_or(PagesError::Missing(id))?)
    }
    fn write(&self, _: &[(PageId, Vec<u8>)]) -> Result<(), PagesError> {
        read_only()
    }
    fn write_sorted(&self, _: &mut dyn FnMut(&mut Put<'_>) -> Result<(), PagesError>) -> Result<(), PagesError> {
        read_only()
    }
    fn commit_root(&self, _: u64, _: &[u8]) -> Result<(), PagesError> {
        read_only()
    }
    fn delete(&self, _: &[PageId], _: &[u64]) -> Result<(), PagesError> {
        read_only()
    }
    fn roots(&self) -> Result<Vec<u64>, PagesError> {
        Ok(self.records.keys().copied().collect())
    }
    fn root(&self, sequence: u64) -> Result<Vec<u8>, PagesError> {
        self.bytes(*self.records.get(&sequence).ok_or(PagesError::RootMissing(sequence))?)
    }
    fn ids(&self) -> Result<Vec<PageId>, PagesError> {
        Ok(self.pages.keys().copied().collect())
    }
    fn ids_from(&self, first: PageId) -> Result<Vec<PageId>, PagesError> {
        Ok(self.pages.range(first..).map(|(id, _)| *id).collect())
    }
}

/// The runs whose pages make up the version of `runs[at]`.
pub fn pages_of(runs: &[Run], at: usize) -> &[Run] {
    let from = (0..=at).rev().find(|&i| runs[i].pages_from == 0).unwrap_or(0);
    &runs[from..=at]
}

/// The runs around `runs[at]` whose entries follow each other without a gap.
pub fn entries_of(runs: &[Run], at: usize) -> &[Run] {
    let from = (1..=at).rev().find(|&i| runs[i].follows == 0).unwrap_or(0);
    let to = (at + 1..runs.len()).find(|&i| runs[i].follows == 0).unwrap_or(runs.len());
    &runs[from..to]
}

/// What can be restored, in words.
pub fn ranges(runs: &[Run]) -> String {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < runs.len() {
        let chain = entries_of(runs, at);
        ranges.push(format!("epochs {} to {}", chain[0].epoch, chain[chain.len() - 1].last_epoch));
        at += chain.len();
    }
    if ranges.is_empty() { "nothing".into() } else { ranges.join(", ") }
}

/// `look verify` of a backup: every run's bytes, every page, every page's way from the root records, and that no entry is missing.
pub fn check(dir: &Path, seal: Option<Arc<Sealer>>, report: &mut Report) -> Result<(), BackupError> {
    let manifest = Manifest::read(dir)?;
    let runs = &manifest.runs;
    report.line("backup", format_args!("{}: {} runs; {} can be restored", dir.display(), runs.len(), ranges(runs)));
    let mut tell = progress("runs");
    for (i, run) in runs.iter().enumerate() {
        tell(i, runs.len());
        let mut alone = Set::new(seal.clone());
        match alone.add(dir, run, true, true) {
            Ok(()) if run.key != 0 && seal.is_none() => {
                let what = "whole, but encrypted: give --encryption-key-file to check its pages too";
                report.line("", format_args!("run {}: {what}", run.number));
            }
            Ok(()) => check_run(&alone, run, report),
            Err(error) => report.damage(error, AFTER),
        }
    }
    let mut at = 0;
    while at < runs.len() {
        // Runs up to the next full one share their pages
        let end = (at + 1..runs.len()).find(|&i| runs[i].pages_from == 0).unwrap_or(runs.len());
        let mut set = Set::new(seal.clone());
        // Damaged runs have been told above; what they leave missing is told below
        let _ = runs[at..end].iter().try_for_each(|run| set.add(dir, run, true, false));
        if runs[at..end].iter().any(|run| run.key != 0) && seal.is_none() {
            at = end;
            continue;
        }
        match crate::store::verify::check(&set, &mut progress("pages")) {
            Ok(checked) => tell_pages(&checked, report),
            Err(error) => report.damage(error, AFTER),
        }
        at = end;
    }
    Ok(())
}

/// What a run says it holds must be there.
fn check_run(set: &Set, run: &Run, report: &mut Report) {
    let what = format!("run {}", run.number);
    let missing = (run.first..=run.last).find(|index| !set.entries.contains_key(index));
    if let Some(index) = missing {
        report.damage(format!("{what}: log entry {index} is missing"), AFTER);
    }
    match set.root(run.sequence).ok().and_then(|bytes| RootRecord::decode(run.sequence, &bytes).ok()) {
        Some(record) if record.check() == run.record => {}
        _ => report.damage(format!("{what}: its root record is missing or another one"), AFTER),
    }
}
