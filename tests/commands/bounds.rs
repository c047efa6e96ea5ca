//! Random commands on random states cost no more than their bounds say, and both engines count and answer alike.
//!
//! Steps of commands on collections whose elements are longer than a block are left out (places are not): no root says how many bytes
//! its elements have, so that bounds count each as one block.
//!
//! `LOOK_BOUNDS_SEED`, `LOOK_BOUNDS_SEQUENCES`: from which seed, and how many.

use crate::bench::Bench;
use crate::cli;
use crate::common::{Random, setting, show};
use crate::grammar::Grammar;
use look::lang::engine::Engine;

const SEQUENCES: u64 = 40;
const STEPS: usize = 60;
/// One key of each type, of one entry and of many, to be dumped.
const MAKE: &[&str] = &[
    "SET k text",
    "SETRANGE k 9000 x",
    "RPUSH k a b 1",
    "SADD k 1 2 3",
    "SADD k a b",
    "HSET k a 1",
    "ZADD k 1 a inf b",
];

fn payloads(bench: &mut Bench) -> Vec<Vec<u8>> {
    let payload = |line: &&str| {
        bench.run(&cli::words("FLUSHALL"));
        bench.run(&cli::words(line));
        let reply = bench.run(&cli::words("DUMP k"));
        let header = reply.iter().position(|b| *b == b'\n').map_or(0, |at| at + 1);
        reply[header..reply.len() - 2].to_vec()
    };
    let mut all: Vec<Vec<u8>> = MAKE.iter().map(payload).collect();
    all.push(b"no payload".to_vec());
    all
}

/// Says at a failure which sequence it was.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}", self.0);
        }
    }
}

#[test]
fn no_call_costs_more_than_its_bound_and_engines_agree() {
    let mut engines = [Bench::new(Engine::Interp), Bench::new(Engine::Jit)];
    let payloads = payloads(&mut engines[0]);
    let first = setting("LOOK_BOUNDS_SEED", 1);
    let mut ran = 0;
    for seed in first..first + setting("LOOK_BOUNDS_SEQUENCES", SEQUENCES) {
        let _seed = Seed(seed);
        let mut random = Random::new(seed);
        let (heavy, long_elements) = (random.chance(50), random.chance(30));
        engines.iter_mut().for_each(|bench| bench.long_elements = long_elements);
        let mut grammar = Grammar { random, payloads: &payloads, far_seconds: 4_102_444_800, heavy, long_elements };
        engines.iter_mut().for_each(|bench| drop(bench.run(&cli::words("FLUSHALL"))));
        for _ in 0..STEPS {
            let request = grammar.request();
            if !engines[0].knows(&request) {
                continue;
            }
            ran += 1;
            let [interpreted, compiled] = engines.each_mut().map(|bench| {
                let reply = bench.run(&request);
                (reply, bench.spent)
            });
            assert!(interpreted == compiled, "{}: {interpreted:?}, {compiled:?}", show(&request));
        }
    }
    assert!(ran > 20 * (STEPS as u64), "INVALID: only {ran} commands ran");
}
