//! What do a durable entry and a proposal cost?
//!
//! `cargo bench --bench log`: entries a second of 64 writers of small entries and the median of single 64 KiB entries, both
//! on the real disk, plain and encrypted; then proposals through batcher, raft and a state machine that does nothing, one node, and the time from
//! submit to applied: for one chunk at a time, for 50 submitters with one chunk each, and for a window of 4,096.

use bytes::Bytes;
use look::apply::machine::{Applied, Body, Checkpoint, Committed, Receive, Roster, StateMachine};
use look::base::batch::{Chunk, ChunkBuilder};
use look::base::{NodeId, SystemClock};
use look::batch::{Batcher, BatcherConfig};
use look::disk::seal::{Keys, Sealer};
use look::disk::{Append, Kind, Log, LogOptions, Position, RealDisk};
use look::raft::{Raft, RaftConfig};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

fn main() {
    let dir = tempfile::Builder::new().prefix("look-bench").tempdir_in("target").expect("a directory on disk");
    let open = |name: &str| Arc::new(RealDisk::open(dir.path().join(name)).expect("opens"));
    small_entries(Log::open(open("small"), LogOptions::new(1, 1)).expect("opens"));
    large_entries(Log::open(open("large"), LogOptions::new(1, 1)).expect("opens"));
    println!("encrypted:");
    let seal = Some(Arc::new(sealer(dir.path())));
    let encrypted = || LogOptions { seal: seal.clone(), ..LogOptions::new(1, 1) };
    small_entries(Log::open(open("small-encrypted"), encrypted()).expect("opens"));
    large_entries(Log::open(open("large-encrypted"), encrypted()).expect("opens"));
    proposals(open("node"));
}

fn sealer(dir: &Path) -> Sealer {
    let file = dir.join("keys");
    std::fs::write(&file, format!("1 {}", "a".repeat(64))).expect("a key file");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    Sealer::new(Keys::read(&file).expect("a key")).expect("a sealer")
}

/// Raft appends in order from one task, so 64 writers are a window of 64 entries on their way.
fn small_entries(log: Log) {
    let permits = Arc::new((Mutex::new(64u32), Condvar::new()));
    let (began, mut index) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(3) {
        let mut free = permits.0.lock().unwrap();
        while *free == 0 {
            free = permits.1.wait(free).unwrap();
        }
        *free -= 1;
        drop(free);
        index += 1;
        let back = permits.clone();
        let payload = Arc::new(Bytes::from_static(&[7; 100]));
        let entry = Append { kind: Kind::Batch, position: Position { term: 1, index }, payload };
        log.append(
            [entry],
            Box::new(move |r| {
                r.expect("durable");
                *back.0.lock().unwrap() += 1;
                back.1.notify_one();
            }),
        )
        .expect("accepts");
    }
    println!("64 writers, 100 bytes: {:.0} entries/s", index as f64 / began.elapsed().as_secs_f64());
}

fn large_entries(log: Log) {
    let payload = Arc::new(Bytes::from(vec![7u8; 64 << 10]));
    let mut times: Vec<Duration> = (1..=2000)
        .map(|index| {
            let (tx, rx) = std::sync::mpsc::channel();
            let began = Instant::now();
            let entry = Append { kind: Kind::Batch, position: Position { term: 1, index }, payload: payload.clone() };
            log.append([entry], Box::new(move |r| drop(tx.send(r)))).expect("accepts");
            rx.recv().expect("answers").expect("durable");
            began.elapsed()
        })
        .collect();
    times.sort();
    println!("one writer, 64 KiB: p50 {:?}, p99 {:?}", times[1000], times[1980]);
}

#[derive(Clone, Default)]
struct Nothing {
    last: Applied,
    roster: Arc<Roster>,
    applied: Arc<AtomicU64>,
    batches: Arc<AtomicU64>,
    batcher: Arc<OnceLock<Batcher>>,
    wake: Arc<(Mutex<u64>, Condvar)>,
}

impl StateMachine for Nothing {
    fn applied(&self) -> Applied {
        self.last.clone()
    }
    fn roster(&self) -> Arc<Roster> {
        self.roster.clone()
    }
    fn apply(&mut self, entries: Vec<Committed>) -> Result<(), String> {
        let mut last = 0;
        for entry in entries {
            if let Body::Batch(batch) = entry.body {
                last = batch.chunks.last().map_or(last, |c| c.sequence);
                self.batches.fetch_add(1, Ordering::Relaxed);
            }
        }
        if let Some(batcher) = self.batcher.get().filter(|_| last > 0) {
            batcher.on_applied(last);
            self.applied.store(last, Ordering::Release);
            *self.wake.0.lock().unwrap() = last;
            self.wake.1.notify_all();
        }
        Ok(())
    }
    fn checkpoint(&mut self) -> Option<Box<dyn Checkpoint>> {
        None
    }
    fn receive(&mut self, _: u64) -> Result<Box<dyn Receive>, String> {
        Err("none".into())
    }
    fn install(&mut self, _: Applied, _: Box<dyn Receive>) -> Result<(), String> {
        Err("none".into())
    }
}

fn chunk() -> Chunk {
    let mut b = ChunkBuilder::default();
    b.begin(7, 0);
    let word = b.bytes(&[7; 64]);
    b.word(word.0);
    assert!(b.end());
    let records: Vec<u8> = b.words.iter().flat_map(|w| w.to_le_bytes()).collect();
    Chunk { calls: b.calls, records: records.into(), blob: b.blob.into(), ..Chunk::default() }
}

fn proposals(disk: Arc<RealDisk>) {
    let machine = Nothing::default();
    let config = RaftConfig::alone(NodeId(1), LogOptions::new(1, 1));
    let raft = Raft::start(config, disk, Box::new(machine.clone())).expect("starts");
    let batcher = Batcher::start(raft.clone(), Arc::new(SystemClock::default()), 1, BatcherConfig::default());
    let _ = machine.batcher.set(batcher.clone());
    for window in [1u64, 50, 4096] {
        let (began, batches) = (Instant::now(), machine.batches.load(Ordering::Relaxed));
        let (mut sent, mut done) = (0, 0);
        let first = batcher.submit(chunk()).expect("takes") - 1;
        sent += 1;
        while began.elapsed() < Duration::from_secs(3) {
            while sent - done < window {
                batcher.submit(chunk()).expect("takes");
                sent += 1;
            }
            let mut last = machine.wake.0.lock().unwrap();
            while *last <= first + done {
                last = machine.wake.1.wait(last).unwrap();
            }
            done = *last - first;
        }
        let (time, batches) = (began.elapsed(), machine.batches.load(Ordering::Relaxed) - batches);
        println!(
            "{window} chunks on their way: {:.0} chunks/s, {:.0} batches/s, {:?} a round",
            done as f64 / time.as_secs_f64(),
            batches as f64 / time.as_secs_f64(),
            time / (done / window).max(1) as u32
        );
        while machine.applied.load(Ordering::Acquire) < first + sent {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    raft.shutdown();
}
