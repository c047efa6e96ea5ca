//! `look restore`: a fresh data directory, of a new cluster, that shows one epoch of a backup.

use super::set::{Set, entries_of, pages_of, ranges};
use super::{BackupError, Manifest, Run, io_error};
use crate::apply::ledger::hash_seed;
use crate::apply::machine::{Applied, LogPosition};
use crate::apply::nodes;
use crate::apply::positions::Place;
use crate::apply::runner::Runner;
use crate::base::{Epoch, KeyHasher, LogIndex, PageId, SubBatch};
use crate::command::builtin;
use crate::disk::pages::generations::{Generations, PageStores};
use crate::disk::pages::{PageStore, PagesOptions};
use crate::disk::seal::{Keys, Sealer};
use crate::history::replay;
use crate::lang::engine::Engine;
use crate::node::config::Config;
use crate::node::datadir::DataDir;
use crate::node::encryption;
use crate::node::keeper::{frontier_of, meta_of};
use crate::store::{self, Retention, RootRecord, page, recovery};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of pages written to the page store at once.
const WRITE_BYTES: usize = 4 << 20;

/// The directory to make: its node and the founders of its cluster are those of the configuration.
pub struct Target<'a> {
    pub config: &'a Config,
    /// None: the newest epoch that the backup holds.
    pub at: Option<u64>,
}

fn sealer(path: &Path) -> Result<Arc<Sealer>, BackupError> {
    Keys::read(path).and_then(Sealer::new).map(Arc::new).map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> BackupError {
    BackupError::Restore(error.to_string())
}

/// Restores from `from`; tells what was done. The target appears whole or not at all: it is made beside its place.
pub fn restore(from: &Path, target: &Target<'_>) -> Result<String, BackupError> {
    let dir = &target.config.dir;
    if dir.exists() && fs::read_dir(dir).map_err(io_error(dir))?.next().is_some() {
        return Err(BackupError::Target(dir.clone()));
    }
    let manifest = Manifest::read(from)?;
    let at = target.at.or(manifest.runs.last().map(|run| run.last_epoch)).unwrap_or(0);
    let none = || BackupError::NoEpoch(at, from.into(), ranges(&manifest.runs));
    let (chosen, chain) = choose(&manifest.runs, at).ok_or_else(none)?;
    let seal = target.config.encryption_key_file.as_deref().map(sealer).transpose()?;
    let set = open_set(seal, from, pages_of(&manifest.runs, chosen), chain, at)?;
    let beside = beside(dir)?;
    if beside.exists() {
        fs::remove_dir_all(&beside).map_err(io_error(&beside))?;
    }
    let done = make(&beside, target.config, set, &manifest.runs[chosen], Epoch(at))?;
    fs::rename(&beside, dir).map_err(io_error(dir))?;
    let parent = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(parent).and_then(|d| d.sync_all()).map_err(io_error(parent))?;
    Ok(format!("{}: {done}; start it with --dir {}", dir.display(), dir.display()))
}

/// Where the directory is made: on the same file system, under a name that no start takes.
fn beside(dir: &Path) -> Result<PathBuf, BackupError> {
    let name = dir
        .file_name()
        .ok_or_else(|| BackupError::Restore(format!("{} has no name; choose another --dir", dir.display())))?;
    Ok(dir.with_file_name(format!("{}.restoring", name.to_string_lossy())))
}

/// The newest run whose checkpoint is not behind the epoch and whose entries reach it.
fn choose(runs: &[Run], at: u64) -> Option<(usize, &[Run])> {
    let reaches = |i: &usize| {
        let chain = entries_of(runs, *i);
        runs[*i].epoch <= at && chain.last().is_some_and(|last| last.last_epoch >= at)
    };
    let chosen = (0..runs.len()).rev().find(reaches)?;
    Some((chosen, entries_of(runs, chosen)))
}

/// All runs that are needed, each read to its end and found whole, before anything is written.
fn open_set(seal: Option<Arc<Sealer>>, from: &Path, pages: &[Run], chain: &[Run], at: u64) -> Result<Set, BackupError> {
    let encrypted = pages.iter().chain(chain).find(|run| run.key != 0);
    if let Some(run) = encrypted.filter(|_| seal.is_none()) {
        let what = format!("run {} is encrypted with key {}; give --encryption-key-file", run.number, run.key);
        return Err(BackupError::Restore(what));
    }
    let mut set = Set::new(seal);
    for run in pages {
        set.add(from, run, true, false)?;
    }
    // Entries up to the first run that reaches the epoch
    let needed = chain.iter().position(|run| run.last_epoch >= at).map_or(chain.len(), |last| last + 1);
    for run in &chain[..needed] {
        set.add(from, run, false, true)?;
    }
    Ok(set)
}

fn make(dir: &Path, config: &Config, set: Set, run: &Run, at: Epoch) -> Result<String, BackupError> {
    let mut data = DataDir::open(dir).map_err(failed)?;
    let seal = encryption::open(data.path(), config.encryption_key_file.as_deref()).map_err(failed)?;
    data.claim(crate::node::founder(config)).map_err(failed)?;
    let options = PagesOptions { seal, ..PagesOptions::default() };
    let generations = Generations::new(&data.pages_dir(), options).map_err(failed)?;
    let pages = generations.open().map_err(failed)?;
    let record = RootRecord::decode(run.sequence, &set.root(run.sequence).map_err(failed)?).map_err(failed)?;
    copy(&set, &record, &*pages)?;
    let frontier = frontier_of(&record).map_err(failed)?;
    let checkpoints = recovery::open(pages.clone()).map_err(failed)?.checkpoints;
    let (store, mut writer) = store::open(record.state, Box::new(page::Source(pages.clone()))).map_err(failed)?;
    let table = Arc::new(builtin::table(Engine::Jit).map_err(failed)?);
    let last = frontier.applied.last.index;
    let place = Place { epoch: frontier.epoch, index: last, chunks: usize::MAX };
    let hasher = KeyHasher::new(hash_seed(&writer).unwrap_or(0));
    let mut runner = Runner::new(table, hasher, frontier.epoch, frontier.now);
    runner.careful = true;
    let index = replay(&set, LogIndex(u64::MAX >> 1), &mut writer, &mut runner, place, at).map_err(failed)?;
    // The directories of the new cluster's nodes are new ones
    nodes::forget_directories(&mut writer);
    writer.publish();
    let snapshot = store.snapshot().map_err(failed)?;
    // A new cluster: its log goes on behind the entry that the epoch lies in, in terms of its own
    let initial = crate::node::founders(config);
    let position = LogPosition { term: 0, index };
    let membership = Some((position, crate::raft::founding(&initial).map_err(failed)?));
    let meta = meta_of(&Applied { last: position, membership });
    let retention = Retention { records: 1, oldest_live: SubBatch(u64::MAX) };
    use crate::store::Read;
    checkpoints.run(snapshot.arena(), &snapshot.state(), meta, retention, &|_| ()).map_err(failed)?;
    // The old cluster's record goes: the new log does not follow it
    pages.delete(&[], &[record.sequence]).map_err(failed)?;
    drop(data);
    Ok(format!("epoch {at}, from the checkpoint at epoch {} and {} log entries", record.epoch(), index.0 - last.0))
}

/// Copies the pages that a record reaches, then the record.
fn copy(set: &Set, record: &RootRecord, pages: &dyn PageStore) -> Result<(), BackupError> {
    let (mut ready, mut bytes): (Vec<(PageId, Vec<u8>)>, usize) = (Vec::new(), 0);
    for id in record.pages(set).map_err(failed)? {
        let page = set.read(id).map_err(failed)?;
        bytes += page.len();
        ready.push((id, page));
        if bytes > WRITE_BYTES {
            pages.write(&std::mem::take(&mut ready)).map_err(failed)?;
            bytes = 0;
        }
    }
    pages.write(&ready).map_err(failed)?;
    pages.commit_root(record.sequence, &record.encode()).map_err(failed)
}
