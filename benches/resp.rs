//! What does it cost to decode a pipelined SET, to make a record of the log of it, and to encode the replies of everyday commands?
//! Bound: 25 ns to decode a SET (one thread).

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use look::base::KeyHasher;
use look::base::batch::ChunkBuilder;
use look::command::builtin;
use look::gateway::backend::Code;
use look::lang::engine::Engine;
use look::node::code::NodeCode;
use look::resp::decode::Progress;
use look::resp::{Decoder, ReplyBuf, Version};
use std::hint::black_box;
use std::sync::Arc;

const PIPELINE: usize = 64;

fn pipeline() -> Vec<u8> {
    (0..PIPELINE)
        .flat_map(|i| {
            format!("*3\r\n$3\r\nSET\r\n$16\r\nkey:{:012}\r\n$64\r\n{}\r\n", i * 7919, "x".repeat(64)).into_bytes()
        })
        .collect()
}

fn decode(c: &mut Criterion) {
    let input = pipeline();
    let mut decoder = Decoder::default();
    let mut group = c.benchmark_group("resp");
    group.throughput(Throughput::Elements(PIPELINE as u64));
    group.bench_function("decode 64 pipelined SET", |b| {
        b.iter(|| {
            let (mut at, mut seen) = (0, 0);
            while let Ok(Progress::Complete(len)) = decoder.next(&input[at..]) {
                let request = decoder.request(&input[at..]);
                seen += black_box(request.arg(2)).len() + request.len();
                at += len;
            }
            assert_eq!(seen, PIPELINE * 67);
        });
    });
    let code = NodeCode::new(Arc::new(builtin::table(Engine::Jit).unwrap()), KeyHasher::new(7), Arc::default());
    let mut records = ChunkBuilder::default();
    group.bench_function("decode, look up and parse 64 pipelined SET", |b| {
        b.iter(|| {
            let mut at = 0;
            while let Ok(Progress::Complete(len)) = decoder.next(&input[at..]) {
                let request = decoder.request(&input[at..]);
                let route = code.lookup(request.arg(0)).unwrap();
                code.parse(route.id, request, 0, &mut records).unwrap();
                at += len;
            }
            assert_eq!(records.calls, PIPELINE as u32);
            records.clear();
        });
    });
    group.bench_function("encode 64 bulks of 64 bytes", |b| {
        b.iter_batched_ref(
            || ReplyBuf::with_bytes(Version::Resp2, Vec::with_capacity(PIPELINE * 72)),
            |out| (0..PIPELINE).for_each(|_| out.bulk(black_box(&[b'x'; 64]))),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("encode 64 OK", |b| {
        b.iter_batched_ref(
            || ReplyBuf::with_bytes(Version::Resp2, Vec::with_capacity(PIPELINE * 72)),
            |out| (0..PIPELINE).for_each(|_| black_box(&mut *out).ok()),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
