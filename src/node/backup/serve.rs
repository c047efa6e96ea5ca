//! A node's side of a backup: what `LOOK.BACKUP BEGIN | NEXT | END` answers.

use super::{ENTRY_KEY, Run};
use crate::apply::machine::{Body, Committed};
use crate::base::LogIndex;
use crate::disk::frames;
use crate::node::backend::NodeBackend;
use crate::store::transfer::Export;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Backups under way at once: each keeps a checkpoint's pages from being removed.
const OPEN_MAX: usize = 2;
/// One that nobody asks for so long is given up.
const IDLE_MAX: Duration = Duration::from_secs(120);
/// Bytes of one answer, about.
const PIECE_BYTES: usize = 1 << 20;

/// The backups under way.
#[derive(Default)]
pub struct Backups(Mutex<Vec<Open>>);

struct Open {
    id: u64,
    used: Instant,
    stream: Arc<Mutex<Stream>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Backups {
    /// Answers one request. Blocks.
    pub fn answer(&self, node: &NodeBackend, words: &[Vec<u8>]) -> Result<Vec<u8>, String> {
        let text = |i: usize| words.get(i).and_then(|word| std::str::from_utf8(word).ok()).unwrap_or_default();
        let id = || text(1).parse::<u64>().map_err(|_| "LOOK.BACKUP takes the number that BEGIN gave".to_owned());
        match text(0).to_ascii_uppercase().as_str() {
            "BEGIN" => {
                let base = (words.len() > 1).then(|| Run::parse(text(1)).ok_or("the last run is not to be understood"));
                self.begin(node, base.transpose()?)
            }
            "NEXT" => self.next(node, id()?),
            "END" => {
                let id = id()?;
                lock(&self.0).retain(|open| open.id != id);
                Ok(Vec::new())
            }
            _ => Err("LOOK.BACKUP is spoken by `look backup`; see `look backup --help`".into()),
        }
    }

    /// Lets go of backups whose other end is gone.
    pub fn expire(&self) {
        lock(&self.0).retain(|open| open.used.elapsed() < IDLE_MAX);
    }

    fn begin(&self, node: &NodeBackend, base: Option<Run>) -> Result<Vec<u8>, String> {
        self.expire();
        if lock(&self.0).len() >= OPEN_MAX {
            return Err(format!("{OPEN_MAX} backups are under way; try again when one has ended"));
        }
        let (run, stream) = Stream::open(node, base)?;
        let id = crate::base::random();
        lock(&self.0).push(Open { id, used: Instant::now(), stream: Arc::new(Mutex::new(stream)) });
        Ok(format!("{id} {}", run.to_text()).into_bytes())
    }

    fn next(&self, node: &NodeBackend, id: u64) -> Result<Vec<u8>, String> {
        let stream = {
            let mut all = lock(&self.0);
            let open = all.iter_mut().find(|open| open.id == id).ok_or("no such backup is under way; begin again")?;
            open.used = Instant::now();
            open.stream.clone()
        };
        let mut stream = lock(&stream);
        stream.next(node)
    }
}

/// What is still to be sent of one backup. Entries first: the log lets go of them, the pages are pinned.
struct Stream {
    entries: RangeInclusive<u64>,
    export: Export,
}

impl Stream {
    /// Pins a checkpoint made now, and says what will be sent. The run is consistent at the state applied when this returns.
    fn open(node: &NodeBackend, base: Option<Run>) -> Result<(Run, Stream), String> {
        node.checkpoint_now().map_err(|e| e.to_string())?;
        let inner = &node.0;
        let (view, made) = inner.keeper.view_newest().ok_or("this node has no checkpoint yet")?;
        let frontier = inner.state.progress.frontier();
        let record = view.record();
        let shown = crate::node::keeper::frontier_of(record).map_err(|e| e.to_string())?.applied.last.index.0;
        let mut run = Run {
            cluster: inner.state.progress.hash_seed().unwrap_or(0),
            node: inner.raft.node_id().0,
            lineage: view.store().lineage(),
            sequence: record.sequence,
            record: record.check(),
            next_page: record.next_page,
            epoch: record.epoch().0,
            applied: shown,
            first: shown + 1,
            last: frontier.applied.last.index.0,
            last_epoch: frontier.epoch.0,
            time: frontier.now as u64,
            key: inner.seal.as_ref().map_or(0, |seal| seal.keys().newest().into()),
            ..Run::default()
        };
        if let Some(base) = base.filter(|base| base.cluster == run.cluster) {
            if base.lineage == run.lineage && base.sequence <= run.sequence && made.made(base.sequence, base.record) {
                run.pages_from = base.next_page;
            }
            if follows(node, &base, run.last) {
                (run.follows, run.first) = (1, base.last + 1);
            }
        }
        (run.anchor, run.anchor_check) = newest_batch(node, run.last).unwrap_or_default();
        let export = Export::since(view, run.pages_from).map_err(|e| e.to_string())?;
        Ok((run, Stream { entries: run.first..=run.last, export }))
    }

    /// The next piece; nothing at the end.
    fn next(&mut self, node: &NodeBackend) -> Result<Vec<u8>, String> {
        let mut piece = Vec::new();
        while piece.len() < PIECE_BYTES {
            if !self.entries.is_empty() {
                self.put_entries(node, &mut piece)?;
            } else if let Some((key, bytes)) = self.export.next_frame().map_err(|e| e.to_string())? {
                put(node, &mut piece, key, bytes)?;
            } else {
                break;
            }
        }
        Ok(piece)
    }

    fn put_entries(&mut self, node: &NodeBackend, piece: &mut Vec<u8>) -> Result<(), String> {
        for entry in read(node, self.entries.clone(), PIECE_BYTES)? {
            let index = entry.position.index.0;
            put(node, piece, ENTRY_KEY | index, encode(&entry))?;
            self.entries = index + 1..=*self.entries.end();
        }
        Ok(())
    }
}

/// Appends a frame, encrypted if this node's data is: a backup tells no more than the disk it was made from.
fn put(node: &NodeBackend, piece: &mut Vec<u8>, key: u64, bytes: Vec<u8>) -> Result<(), String> {
    let bytes = match &node.0.seal {
        Some(seal) => seal.seal_vec(&super::place(key), bytes).map_err(|e| e.to_string())?,
        None => bytes,
    };
    frames::put(piece, key, &bytes);
    Ok(())
}

/// Whether this node's log goes on where `base` ended.
fn follows(node: &NodeBackend, base: &Run, last: u64) -> bool {
    let kept = node.0.raft.history_since().0.max(1);
    let anchored = base.anchor >= kept && base.anchor <= last && base.last <= last;
    let same = |entry: &Committed| xxhash_rust::xxh3::xxh3_64(&encode(entry)) == base.anchor_check;
    anchored && read(node, base.anchor..=base.anchor, 1).is_ok_and(|found| found.first().is_some_and(same))
}

/// The newest batch among the entries up to `last`, and its checksum; none where the log does not reach back to one.
fn newest_batch(node: &NodeBackend, last: u64) -> Option<(u64, u64)> {
    let kept = node.0.raft.history_since().0.max(1);
    (kept..=last).rev().find_map(|index| {
        let found = read(node, index..=index, 1).ok()?;
        let entry = found.first().filter(|entry| matches!(entry.body, Body::Batch(_)))?;
        Some((index, xxhash_rust::xxh3::xxh3_64(&encode(entry))))
    })
}

/// Entries of a range from its start on, at least one. What a quorum has may be on this node's own disk a moment later only.
fn read(node: &NodeBackend, range: RangeInclusive<u64>, bytes: usize) -> Result<Vec<Committed>, String> {
    for _ in 0..100 {
        let found = node.0.raft.history(LogIndex(*range.start())..LogIndex(range.end() + 1), bytes);
        match found.map_err(|e| e.to_string())? {
            entries if entries.is_empty() => std::thread::sleep(Duration::from_millis(20)),
            entries => return Ok(entries),
        }
    }
    Err(format!("entry {} is not in the log of this node", range.start()))
}

/// An entry as a frame's bytes.
fn encode(entry: &Committed) -> Vec<u8> {
    let (kind, payload) = match &entry.body {
        Body::Blank => (0, Vec::new()),
        Body::Batch(batch) => {
            let mut bytes = Vec::with_capacity(batch.encoded_len());
            batch.write_to(&mut |piece: &[u8]| bytes.extend_from_slice(piece));
            (1, bytes)
        }
        Body::Membership(bytes) => (2, bytes.to_vec()),
    };
    let mut out = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    out.extend_from_slice(&entry.position.term.to_le_bytes());
    out.extend_from_slice(&payload);
    out
}
