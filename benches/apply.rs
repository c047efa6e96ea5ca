//! How fast is the apply loop, and what does a read of the past cost beside a live one?
//!
//! `cargo bench --bench apply`. SET of 64-byte values on a million random 16-byte keys, in batches of 1,024 calls (16 chunks of 64), through
//! programs, epochs, window and publication, with the default window full, so that old versions leave as new ones come; once with
//! machine code, once interpreted. Then GET of random keys at the newest epoch and at random epochs of the window.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use look::apply::machine::{Body, Committed, LogPosition};
use look::apply::runner::Runner;
use look::apply::{Applier, Frontier, Progress, Waiting};
use look::base::batch::{Batch, BatchHeader, ChunkBuilder};
use look::base::{Epoch, GatewayId, KeyHasher, LogIndex, mix64};
use look::command::{Table, builtin};
use look::history::{History, KeyRead, LogReader, OldState, OldStates, Version};
use look::lang::engine::Engine;
use look::resp::{ReplyBuf, Version as Resp};
use look::store::{self, Read, Store};
use std::hint::black_box;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

const KEYS: u64 = 1_000_000;
const CALLS: u64 = 1024;
const CHUNK: u64 = 64;
/// Batches that fill the window: 6 million SETs, more than `window-bytes` holds.
const FILL: u64 = 6000;

fn key(i: u64) -> Vec<u8> {
    format!("key:{:012}", i % KEYS).into_bytes()
}

struct Log(Mutex<Vec<Arc<Batch>>>);

impl LogReader for Log {
    fn read(&self, from: LogIndex, to: LogIndex) -> Result<Vec<Committed>, String> {
        let all = self.0.lock().map_err(|e| e.to_string())?;
        let range = from.0..=to.0.min(from.0 + 3).min(all.len() as u64);
        Ok(range.map(|i| committed(i, all[i as usize - 1].clone())).collect())
    }
    fn since(&self) -> LogIndex {
        LogIndex(2)
    }
}

struct NoCheckpoints;

impl OldStates for NoCheckpoints {
    fn at_or_before(&self, _: Epoch) -> Result<Option<OldState>, String> {
        Ok(None)
    }
    fn since(&self, _: LogIndex) -> Option<Epoch> {
        None
    }
}

fn committed(index: u64, batch: Arc<Batch>) -> Committed {
    Committed { position: LogPosition { term: 1, index: LogIndex(index) }, body: Body::Batch(batch) }
}

struct Bench {
    table: Arc<Table>,
    hasher: KeyHasher,
    store: Store,
    applier: Applier,
    progress: Arc<Progress>,
    log: Arc<Log>,
    index: u64,
    sequence: u64,
    random: u64,
}

impl Bench {
    fn new(engine: Engine) -> Bench {
        let table = Arc::new(builtin::table(engine).expect("the embedded commands compile"));
        let (store, writer) = store::create().expect("an arena");
        let progress = Arc::new(Progress::default());
        let applier = Applier::new(
            store.clone(),
            writer,
            table.clone(),
            Frontier::default(),
            Arc::new(Waiting::default()),
            progress.clone(),
            Arc::new(OnceLock::new()),
        );
        let log = Arc::new(Log(Mutex::new(Vec::new())));
        let mut bench =
            Bench { table, hasher: KeyHasher::new(0), store, applier, progress, log, index: 0, sequence: 0, random: 1 };
        for from in (0..KEYS).step_by(CALLS as usize) {
            let batch = bench.batch(|n| from + n);
            bench.apply_logged(batch);
        }
        bench
    }

    fn batch(&mut self, key_of: impl Fn(u64) -> u64) -> Arc<Batch> {
        let set = self.table.by_handler(look::command::handler_number("set")).expect("SET");
        let words = self.table[set].grammar.fixed_words as usize;
        let mut chunks = Vec::new();
        for chunk in 0..CALLS / CHUNK {
            let mut builder = ChunkBuilder::default();
            for call in 0..CHUNK {
                let key = key(key_of(chunk * CHUNK + call));
                builder.begin(self.table[set].handler, 0);
                let (name, value) = (builder.bytes(&key), builder.bytes(&[b'x'; 64]));
                builder.word(name.0);
                builder.word(self.hasher.hash(&key));
                builder.word(value.0);
                for _ in 3..words {
                    builder.word(0);
                }
                assert!(builder.end());
            }
            self.sequence += 1;
            chunks.push(builder.finish(GatewayId(1), self.sequence, self.table.version()));
        }
        let time_ms = 1_000_000 + self.sequence as i64 / 16;
        Arc::new(Batch { header: BatchHeader { time_ms, seed: 1, chunks: chunks.len() as u32 }, chunks })
    }

    fn random_batch(&mut self) -> Arc<Batch> {
        let base = mix64(self.random);
        self.random += 1;
        self.batch(|n| mix64(base ^ n))
    }

    fn apply(&mut self, batch: Arc<Batch>) {
        self.index += 1;
        self.applier.apply(vec![committed(self.index, batch)]).expect("applies");
    }

    /// The same, and reads of the past can replay it.
    fn apply_logged(&mut self, batch: Arc<Batch>) {
        self.log.0.lock().expect("one thread").push(batch.clone());
        self.apply(batch);
    }
}

fn sets(c: &mut Criterion) {
    let mut group = c.benchmark_group("apply 1,024 SETs, 1 M keys, window kept");
    group.throughput(Throughput::Elements(CALLS)).sample_size(20);
    for (name, engine) in [("machine code", Engine::Jit), ("interpreter", Engine::Interp)] {
        let mut bench = Bench::new(engine);
        // Until its memory is its own: the first touch of a page costs several times what a SET does
        for _ in 0..FILL {
            let batch = bench.random_batch();
            bench.apply(batch);
        }
        group.bench_function(name, |b| {
            b.iter_custom(|n| {
                let batches: Vec<_> = (0..n).map(|_| bench.random_batch()).collect();
                let start = Instant::now();
                batches.into_iter().for_each(|batch| bench.apply(batch));
                start.elapsed()
            })
        });
    }
}

fn gets(c: &mut Criterion) {
    let mut bench = Bench::new(Engine::Jit);
    for _ in 0..900 {
        let batch = bench.random_batch();
        bench.apply_logged(batch);
    }
    let get = bench.table.by_handler(look::command::handler_number("get")).expect("GET");
    let handler = bench.table[get].handler;
    let (newest, since) = (bench.progress.frontier().epoch.0, bench.store.since().0);
    let history = History::new(bench.table.clone(), bench.progress.clone(), bench.log.clone(), Arc::new(NoCheckpoints));
    let mut group = c.benchmark_group("GET of random keys");
    let mut reply = ReplyBuf::new(Resp::Resp2);
    let mut live = Runner::new(bench.table.clone(), bench.hasher, Epoch(newest), 2_000_000);
    let mut n = 0u64;
    let mut ask = || {
        n += 1;
        let key = key(mix64(n));
        let words = [look::base::words::BytesWord::argument(0, key.len() as u32).0, bench.hasher.hash(&key)];
        (n, key, words)
    };
    let mut get_live = |key: &[u8], words: &[u64]| {
        reply.clear();
        live.read_words(&bench.store.newest().expect("a pin"), handler, 0, words, key, u64::MAX, &mut reply);
        black_box(reply.len())
    };
    let mut runner_of_past = Runner::new(bench.table.clone(), bench.hasher, Epoch(newest), 2_000_000);
    let mut past_reply = ReplyBuf::new(Resp::Resp2);
    let mut get_past = |n: u64, key: &[u8], words: &[u64]| {
        let at = Epoch(since + 1 + mix64(n ^ 77) % (newest - since - 1));
        let keys = [KeyRead { db: 0, hash: words[1], key }];
        past_reply.clear();
        match history.at(&bench.store, at, Some(&keys)).expect("in the window") {
            Version::Kept(snapshot, _) => {
                runner_of_past.read_words(&snapshot, handler, 0, words, key, u64::MAX, &mut past_reply)
            }
            Version::Private(writer, mut runner, _) => {
                assert_eq!(writer.epoch(), at);
                runner.read_words(&writer, handler, 0, words, key, u64::MAX, &mut past_reply)
            }
        };
        black_box(past_reply.len())
    };
    group.bench_function("live", |b| {
        b.iter(|| {
            let (_, key, words) = ask();
            get_live(&key, &words)
        })
    });
    group.bench_function("past", |b| {
        b.iter(|| {
            let (n, key, words) = ask();
            get_past(n, &key, &words)
        })
    });
    // The goal is told of medians, and a few of the past replay much
    let mut took = [Vec::new(), Vec::new()];
    for turn in 0..200_000 {
        let (n, key, words) = ask();
        let begun = Instant::now();
        if turn % 2 == 0 {
            get_live(&key, &words)
        } else {
            get_past(n, &key, &words)
        };
        took[turn % 2].push(begun.elapsed());
    }
    took.iter_mut().for_each(|times| times.sort_unstable());
    let [live, past] = took.map(|times| (times[times.len() / 2], times[times.len() * 99 / 100]));
    let ratio = past.0.as_secs_f64() / live.0.as_secs_f64();
    println!(
        "one by one, in turn: live p50 {:?} p99 {:?}, past p50 {:?} p99 {:?}: {ratio:.2}x at p50",
        live.0, live.1, past.0, past.1
    );
}

criterion_group!(benches, sets, gets);
criterion_main!(benches);
