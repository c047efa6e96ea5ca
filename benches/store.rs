//! What does the store cost a call? One thread, 16-byte keys, 64-byte values, 1 M keys, hash computed by the caller (as the argument
//! parser does). SET in sub-batches of 1024 with the last 1 M epochs kept readable; GET on the newest version. Beside them a std `HashMap` of
//! boxed slices, which keeps no versions. Times are the thread's CPU time: machines are shared.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use look::base::{Epoch, KeyHasher, mix64};
use look::store::{Read, Store, Value, Writer};
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::atomic::Ordering;
use std::time::Duration;

const KEYS: u64 = 1_000_000;
const SUB_BATCH: usize = 1024;
const GROUP: usize = 32;

/// CPU time of this thread.
struct Instant(Duration);

impl Instant {
    fn now() -> Instant {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Instant(Duration::new(t.tv_sec as u64, t.tv_nsec as u32))
    }
    fn elapsed(&self) -> Duration {
        Instant::now().0.saturating_sub(self.0)
    }
}

fn key(n: u64) -> [u8; 16] {
    let mut key = *b"key:000000000000";
    let mut n = n;
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + (n % 10) as u8;
        n /= 10;
    }
    key
}

struct Bench {
    store: Store,
    writer: Writer,
    hasher: KeyHasher,
    epoch: u64,
    random: u64,
    calls: Vec<(u64, [u8; 16])>,
    ahead: Vec<(u8, u64)>,
}

impl Bench {
    fn new() -> Bench {
        let (store, writer) = look::store::create().expect("address space");
        store.settings().ms.store(0, Ordering::Relaxed);
        let mut bench = Bench {
            store,
            writer,
            hasher: KeyHasher::new(1),
            epoch: 0,
            random: 1,
            calls: Vec::new(),
            ahead: Vec::new(),
        };
        for n in 0..KEYS {
            bench.set(&key(n), bench.hasher.hash(&key(n)), &[7; 64]);
            if n % SUB_BATCH as u64 == 0 {
                bench.writer.publish();
            }
        }
        bench.writer.publish();
        bench
    }

    fn set(&mut self, key: &[u8], hash: u64, value: &[u8]) {
        self.epoch += 1;
        self.writer.set_epoch(Epoch(self.epoch));
        let mut slot = self.writer.find_slot(0, hash, key);
        self.writer.put(&mut slot, key, Value::Str(value), None);
    }

    /// The next sub-batch's keys and hashes: the parser's work, not measured.
    fn draw(&mut self, n: usize) {
        self.calls.clear();
        self.ahead.clear();
        for _ in 0..n {
            self.random += 1;
            let key = key(mix64(self.random) % KEYS);
            let hash = self.hasher.hash(&key);
            self.calls.push((hash, key));
            self.ahead.push((0, hash));
        }
    }

    fn sets(&mut self, count: u64, prefetch: bool, batch: usize) -> Duration {
        let (mut left, mut time) = (count as usize, Duration::ZERO);
        while left > 0 {
            let n = left.min(batch);
            self.draw(n);
            let (calls, ahead) = (std::mem::take(&mut self.calls), std::mem::take(&mut self.ahead));
            let start = Instant::now();
            for (calls, ahead) in calls.chunks(GROUP).zip(ahead.chunks(GROUP)) {
                if prefetch {
                    self.writer.prefetch(ahead);
                }
                for (hash, key) in calls {
                    self.set(key, *hash, &[*hash as u8; 64]);
                }
            }
            self.writer.publish();
            time += start.elapsed();
            (self.calls, self.ahead) = (calls, ahead);
            left -= n;
        }
        time
    }

    fn gets(&mut self, count: u64, prefetch: bool) -> Duration {
        let (mut left, mut time) = (count as usize, Duration::ZERO);
        while left > 0 {
            let n = left.min(SUB_BATCH);
            self.draw(n);
            let start = Instant::now();
            let version = self.store.newest().expect("a pin");
            for (calls, ahead) in self.calls.chunks(GROUP).zip(self.ahead.chunks(GROUP)) {
                if prefetch {
                    version.prefetch(ahead);
                }
                for (hash, key) in calls {
                    black_box(version.find(0, *hash, key).map(|e| e.value()));
                }
            }
            time += start.elapsed();
            left -= n;
        }
        time
    }
}

fn store(c: &mut Criterion) {
    let mut bench = Bench::new();
    let live = bench.store.usage();
    println!(
        "after load: {:.1} bytes a key live, {:?}",
        live.live_bytes.saturating_sub(live.dead_bytes) as f64 / KEYS as f64,
        live
    );
    let mut group = c.benchmark_group("store");
    group
        .throughput(Throughput::Elements(1))
        .sample_size(20)
        .warm_up_time(Duration::from_secs(3))
        .measurement_time(Duration::from_secs(5));
    group.bench_function("set, sub-batches of 1024, prefetch", |b| b.iter_custom(|n| bench.sets(n, true, SUB_BATCH)));
    group.bench_function("set, sub-batches of 1024", |b| b.iter_custom(|n| bench.sets(n, false, SUB_BATCH)));
    group.bench_function("set, sub-batches of 50, prefetch", |b| b.iter_custom(|n| bench.sets(n, true, 50)));
    group.bench_function("get, prefetch", |b| b.iter_custom(|n| bench.gets(n, true)));
    group.bench_function("get", |b| b.iter_custom(|n| bench.gets(n, false)));
    let usage = bench.store.usage();
    println!("after SETs: {usage:?}");
    drop(bench);
    group.bench_function("std HashMap of boxed slices, set", |b| {
        let mut map: HashMap<Box<[u8]>, Box<[u8]>, ahash::RandomState> = HashMap::default();
        map.extend((0..KEYS).map(|n| (Box::from(key(n).as_slice()), Box::from([7u8; 64].as_slice()))));
        let mut random = 1;
        b.iter_custom(|n| {
            let keys: Vec<_> = (0..n)
                .map(|_| {
                    random += 1;
                    key(mix64(random) % KEYS)
                })
                .collect();
            let start = Instant::now();
            for key in &keys {
                let value = [key[15]; 64].as_slice().into();
                match map.get_mut(key.as_slice()) {
                    Some(slot) => *slot = value,
                    None => drop(map.insert(key.as_slice().into(), value)),
                }
            }
            start.elapsed()
        })
    });
    group.finish();
}

criterion_group!(benches, store);
criterion_main!(benches);
