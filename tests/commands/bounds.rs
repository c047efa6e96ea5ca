//! Random commands on random states cost no more than their bounds say, and both engines count and answer alike.
//!
//! `LOOK_BOUNDS_SEED`, `LOOK_BOUNDS_SEQUENCES`: from which seed, and how many.

use crate::bench::Bench;
use crate::cli;
use crate::common::{Random, setting, show};
use crate::grammar::Grammar;
use look::lang::engine::Engine;
use look::lang::{compile_module, helpers};

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
        let heavy = random.chance(50);
        let mut grammar = Grammar { random, payloads: &payloads, far_seconds: 4_102_444_800, heavy };
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

/// Words and payloads of any length that the programs of `commands/examples` take, also their largest.
#[test]
fn programs_with_long_elements_stay_within_their_bounds() {
    let mut engines = [Bench::new(Engine::Interp), Bench::new(Engine::Jit)];
    let mut random = Random::new(setting("LOOK_BOUNDS_SEED", 1));
    let mut ran = 0;
    for _ in 0..1500 {
        let [queue, payload, word, other] = [128, 65_536, 64, 64].map(|longest| {
            let len = if random.chance(20) { longest } else { random.below(12).min(longest) };
            // few different ones, so that calls meet each other's rows; zeros take two bytes in a key
            vec![*random.pick(b"\x00a"); len]
        });
        let number = |random: &mut Random, below| random.below(below).to_string().into_bytes();
        let (id, most) = (number(&mut random, 20), [b"1".to_vec(), b"100".to_vec()][random.below(2)].clone());
        let request: Vec<Vec<u8>> = match random.below(11) {
            0 | 1 => vec![b"TQ.ADD".to_vec(), queue, payload, number(&mut random, 2000)],
            2 => vec![b"TQ.CLAIM".to_vec(), queue, word, b"1000".to_vec(), most],
            3 => vec![b"TQ.DONE".to_vec(), queue, id],
            4 => vec![b"TQ.WAITING".to_vec(), queue, most],
            5 | 6 => vec![b"FTS.INDEX".to_vec(), id, word, other],
            7 => vec![b"FTS.COMMON".to_vec(), b"1".to_vec()],
            8 => vec![b"FTS.ANY".to_vec()],
            9 => vec![b"FTS.AND".to_vec(), most, id, word, other],
            _ => vec![b"FTS.WORDS".to_vec(), [payload, word].concat()[..].to_vec()],
        };
        let replies = engines.each_mut().map(|bench| {
            bench.now += 100;
            (bench.run(&request), bench.spent)
        });
        assert!(replies[0] == replies[1], "{}", show(&request));
        ran += (replies[0].1.0 > 0) as usize;
    }
    assert!(ran > 1000, "INVALID: only {ran} commands ran");
}

/// An expression of bytes.
fn bytes_of(random: &mut Random, depth: usize) -> String {
    match random.below(if depth > 0 { 8 } else { 5 }) {
        0 => "x".into(),
        1 => "y".into(),
        2 => "a".into(),
        3 => "\"text\"".into(),
        4 => "(db.slot(k).str else \"\")".into(),
        5 => format!("{}.slice(0, 100)", bytes_of(random, depth - 1)),
        _ => format!("{}.concat({})", bytes_of(random, depth - 1), bytes_of(random, depth - 1)),
    }
}

/// Statements that move bytes between variables and a key.
fn moves(random: &mut Random, loops: bool) -> String {
    let one = |random: &mut Random| match random.below(if loops { 5 } else { 4 }) {
        0 => format!("x = {}", bytes_of(random, 1)),
        1 => format!("y = {}", bytes_of(random, 1)),
        2 => format!("db.slot(k).put(str({}), none)", bytes_of(random, 1)),
        3 => format!("total += {}.len", bytes_of(random, 2)),
        _ => format!("repeat {} {{ {} }}", 2 + random.below(3), moves(random, false)),
    };
    (0..1 + random.below(4)).map(|_| one(random)).collect::<Vec<_>>().join("; ")
}

/// Whatever is joined, kept and stored, in loops and outside of them: what the front end accepts stays within its bound.
#[test]
fn bytes_that_grow_stay_within_their_bounds_or_are_refused() {
    let mut random = Random::new(setting("LOOK_BOUNDS_SEED", 1));
    let mut programs = Vec::new();
    for n in 0..4000 {
        let body = moves(&mut random, true);
        let source = format!(
            "command GROW{n}(k: key, a: bytes) -> int {{ var x = a; var y = \"\"; var total = 0; {body}; reply total + x.len + y.len }}"
        );
        if let Ok(module) = compile_module(&source, "grow", helpers::table()) {
            programs.extend(module.commands);
        }
    }
    let names: Vec<String> = programs.iter().map(|program| program.name.clone()).collect();
    assert!((200..3800).contains(&names.len()), "INVALID: {} of 4000 are accepted", names.len());
    let mut bench = Bench::with(Engine::Interp, programs);
    for name in names {
        bench.run(&cli::words("DEL k"));
        for len in [0, 1, 300, 5000] {
            bench.run(&[name.clone().into_bytes(), b"k".to_vec(), vec![b'v'; len]]);
        }
    }
}
