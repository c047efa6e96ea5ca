//! What does the counted B+tree cost per operation, how fast does a checkpoint write, and how soon does a restarted store
//! answer?
//!
//! `cargo bench --bench tree`. The last two run once each and print a line: a checkpoint of a fresh store has no second time.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use look::base::{KeyHasher, SubBatch, mix64};
use look::disk::pages::{FjallPages, PageStore, PagesOptions};
use look::store::checkpoint::{Meta, Retention};
use look::store::tree::{self, Order, Tree};
use look::store::{Arena, Mutator, Read, Value, page, recovery};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

const MEMBERS: u64 = 1_000_000;

fn item(i: u64) -> Vec<u8> {
    let mut item = Vec::new();
    tree::score_item((mix64(i) % 1_000_000) as f64, format!("member:{i:010}").as_bytes(), &mut item);
    item
}

/// A sorted set of a million members, random scores.
fn sorted_set() -> (Mutator, Tree) {
    let mut m = Mutator::new(Arc::new(Arena::new().unwrap()), SubBatch(0));
    let mut tree = Tree::EMPTY;
    for i in 0..MEMBERS {
        tree::insert(&mut m, &mut tree, Order::Score, &item(i));
    }
    (m, tree)
}

fn trees(c: &mut Criterion) {
    let (mut m, mut set) = sorted_set();
    let items: Vec<_> = (0..4096).map(|i| item(i * 241)).collect();
    let fresh: Vec<_> = (0..4096).map(|i| item(MEMBERS + i)).collect();
    let mut group = c.benchmark_group("sorted set of 1 M");
    group.throughput(criterion::Throughput::Elements(4096));
    group.bench_function("rank of a member", |b| {
        b.iter(|| {
            items
                .iter()
                .map(|item| tree::rank(m.arena(), &set, Order::Score, black_box(item)).unwrap_or(0))
                .sum::<u64>()
        })
    });
    group.bench_function("select by rank", |b| {
        b.iter(|| {
            (0..4096).map(|i| tree::get(m.arena(), &set, mix64(i) % MEMBERS).map_or(0, <[u8]>::len)).sum::<usize>()
        })
    });
    group.bench_function("insert and remove a member, owned nodes", |b| {
        b.iter(|| {
            let new = fresh.iter().filter(|item| tree::insert(&mut m, &mut set, Order::Score, item)).count();
            let gone = fresh.iter().filter(|item| tree::remove(&mut m, &mut set, Order::Score, item)).count();
            assert_eq!(new, gone);
        })
    });
    group.bench_function("read on, 4096 items", |b| {
        b.iter(|| {
            let mut cursor = tree::Cursor::at(m.arena(), &set, 500_000);
            (0..4096).map(|_| cursor.next(m.arena()).map_or(0, <[u8]>::len)).sum::<usize>()
        })
    });
    group.finish();
    c.bench_function("list: push back 64 bytes, 4096 times", |b| {
        let make = || Mutator::new(Arc::new(Arena::with_reserve(256 << 20).unwrap()), SubBatch(0));
        let push = |mut m: Mutator| {
            let mut list = Tree::EMPTY;
            (0..4096).for_each(|_| tree::push_back(&mut m, &mut list, black_box(&[7; 64])));
            (m, list)
        };
        b.iter_batched(make, push, BatchSize::PerIteration)
    });
}

fn checkpoints(_: &mut Criterion) {
    let keys: u64 = std::env::var("LOOK_BENCH_KEYS").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let dir = tempfile::tempdir().unwrap();
    let open = || -> Arc<dyn PageStore> { Arc::new(FjallPages::open(dir.path(), &PagesOptions::default()).unwrap()) };
    let hasher = KeyHasher::new(1);
    {
        let (store, mut writer) = look::store::create().unwrap();
        let checkpoints = recovery::open(open()).unwrap().checkpoints;
        let mut write = |from: u64, count: u64, step: u64| {
            for i in 0..count {
                let key = format!("key:{:012}", from + i * step);
                let mut slot = writer.find_slot(0, hasher.hash(key.as_bytes()), key.as_bytes());
                writer.put(&mut slot, key.as_bytes(), Value::Str(&[b'v'; 64]), None);
                if i % 1024 == 0 {
                    writer.publish();
                }
            }
            writer.publish();
        };
        let run = |what: &str| {
            let snapshot = store.snapshot().unwrap();
            let retention = Retention { records: 1, oldest_live: store.oldest_sub_batch() };
            let start = Instant::now();
            let done =
                checkpoints.run(snapshot.arena(), &snapshot.state(), Meta::default(), retention, &|_| ()).unwrap();
            let seconds = start.elapsed().as_secs_f64();
            println!(
                "checkpoint, {what}: {} nodes, {} pages, {:.1} MiB in {seconds:.2} s: {:.0} pages/s, {:.0} MiB/s",
                done.nodes,
                done.pages,
                done.page_bytes as f64 / 1048576.0,
                done.pages as f64 / seconds,
                done.page_bytes as f64 / 1048576.0 / seconds
            );
        };
        write(0, keys, 1);
        run("everything");
        write(7, 1000, keys / 1000);
        run("1000 keys changed");
        write(0, keys / 10, 7);
        run("a tenth of the keys changed");
    }
    let start = Instant::now();
    let pages = open();
    let opened = start.elapsed();
    let record = recovery::open(pages.clone()).unwrap().record.unwrap();
    let (store, _writer) = look::store::open(record.state, Box::new(page::Source(pages))).unwrap();
    let snapshot = store.snapshot().unwrap();
    let read = |i: u64| {
        let key = format!("key:{:012}", mix64(i) % keys);
        snapshot.find(0, hasher.hash(key.as_bytes()), key.as_bytes()).is_some()
    };
    assert!(read(0));
    println!("restart with {keys} keys: first read after {:.1?} (page store open after {opened:.1?})", start.elapsed());
    let start = Instant::now();
    assert!((1..=10_000).all(read));
    println!("10,000 random reads, pages on demand: {:.1?} each", start.elapsed() / 10_000);
}

criterion_group!(benches, trees, checkpoints);
criterion_main!(benches);
