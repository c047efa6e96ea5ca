//! What do the engines cost? Compile time of a SET-like body, its run on trivial helpers with either engine, and one
//! helper call. Answers: is the interpreter within twice the machine code, does compiling at append time matter?

use criterion::{Criterion, criterion_group, criterion_main};
use look::lang::engine::{Code, Engine};
use look::lang::ir::{IntOp, Op, Program, Rel};
use look::lang::machine::{Head, HelperFn, Outcome, RESULTS_MAX};
use look::lang::verify::{HelperShape, Verified, check};
use std::hint::black_box;

const SHAPES: [HelperShape; 4] = [
    HelperShape { args: 2, results: 1 },
    HelperShape { args: 1, results: 2 },
    HelperShape { args: 4, results: 1 },
    HelperShape { args: 1, results: 1 },
];

/// Stands for a helper that finds its data in cache: a few instructions on the environment.
unsafe extern "C" fn light(head: *mut Head, a: u64, b: u64, _c: u64, _d: u64) -> Outcome {
    // SAFETY: the bench passes a valid head.
    unsafe {
        (*head).ops += 20;
        (*head).locs += 1;
        (*head).results[1] = b;
    }
    Outcome::value(black_box(a) & 1)
}

/// Stands for the slot lookup of a hot key: a dependent walk of about 20 ns.
unsafe extern "C" fn lookup(head: *mut Head, a: u64, b: u64, c: u64, d: u64) -> Outcome {
    let mut hash = a;
    for _ in 0..16 {
        hash = black_box(hash ^ hash >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    }
    // SAFETY: as `light`.
    unsafe { light(head, hash, b, c, d) }
}

const LIGHT: [HelperFn; 4] = [light, light, light, light];
const HOT: [HelperFn; 4] = [lookup, light, lookup, light];

fn verified(ops: Vec<Op>) -> Verified {
    let lines = vec![0; ops.len()];
    let program = Program { ops, regs: 16, arg_slots: 8, lines, texts: vec!["ERR".into()], ..Program::default() };
    check(program, &SHAPES).expect("the bench's program verifies")
}

fn call(d: u8, helper: u16, args: &[u8]) -> Op {
    let mut words = [0; 4];
    words[..args.len()].copy_from_slice(args);
    Op::Call { d, helper, n: args.len() as u8, args: words }
}

/// SET with its options as the front end lowers it: four helper calls, a switch, three conditions.
fn set_like() -> Verified {
    let eq = |d, a, b| Op::CmpInt { rel: Rel::Eq, d, a, b };
    verified(vec![
        Op::Arg { d: 0, slot: 0 },
        Op::Arg { d: 1, slot: 1 },
        Op::Arg { d: 2, slot: 2 },
        call(3, 0, &[0, 1]),
        call(4, 1, &[3]),
        Op::Result { d: 5, index: 1 },
        Op::Arg { d: 6, slot: 3 },
        Op::If { c: 6 },
        Op::Fail { text: 0 },
        Op::End,
        Op::Arg { d: 7, slot: 4 },
        Op::Const { d: 8, value: 0 },
        Op::Const { d: 9, value: 0 },
        Op::Switch { s: 7 },
        Op::Case { value: 1 },
        Op::Arg { d: 10, slot: 5 },
        Op::Const { d: 11, value: 1000 },
        Op::Int { op: IntOp::Mul, d: 10, a: 10, b: 11 },
        Op::Mov { d: 9, s: 10 },
        Op::Const { d: 8, value: 1 },
        Op::Case { value: 2 },
        Op::Arg { d: 9, slot: 5 },
        Op::Const { d: 8, value: 1 },
        Op::End,
        Op::Arg { d: 10, slot: 6 },
        Op::Const { d: 11, value: 1 },
        eq(12, 10, 11),
        Op::Const { d: 11, value: 0 },
        eq(13, 4, 11),
        Op::Not { d: 13, s: 13 },
        Op::Select { d: 12, c: 12, a: 13, b: 11 },
        Op::Not { d: 12, s: 12 },
        call(13, 3, &[12]),
        Op::If { c: 12 },
        call(13, 2, &[3, 2, 8, 9]),
        Op::End,
    ])
}

/// A hundred calls and nothing else.
fn calls() -> Verified {
    let mut ops = vec![Op::Const { d: 0, value: 1 }];
    ops.extend((0..100).map(|_| call(1, 1, &[0])));
    verified(ops)
}

fn head(args: &[u64], helpers: &[HelperFn]) -> Head {
    Head {
        args: args.as_ptr(),
        args_len: args.len() as u64,
        ops: 0,
        locs: 0,
        fuel: 1 << 20,
        fail_text: 0,
        results: [0; RESULTS_MAX],
        helpers: helpers.as_ptr(),
        helpers_len: helpers.len() as u64,
    }
}

fn run(c: &mut Criterion) {
    let args = [7, 9, 1, 0, 0, 60, 0, 0];
    for (name, program, helpers) in
        [("set/light", set_like(), &LIGHT), ("set/hot", set_like(), &HOT), ("calls100", calls(), &LIGHT)]
    {
        for engine in [Engine::Jit, Engine::Interp] {
            let code = Code::build(engine, std::slice::from_ref(&program));
            assert_eq!(code.engine(), engine);
            let mut head = head(&args, helpers);
            c.bench_function(&format!("{name}/{engine:?}"), |b| {
                b.iter(|| {
                    head.fuel = 1 << 20;
                    // SAFETY: the head has 8 words, 4 helpers that touch nothing else, and lives across the call.
                    unsafe { code.run(0, &mut head) }
                })
            });
        }
    }
}

fn prepare(c: &mut Criterion) {
    let one = [set_like()];
    let many: Vec<Verified> = (0..200).map(|_| set_like()).collect();
    for engine in [Engine::Jit, Engine::Interp] {
        c.bench_function(&format!("prepare 1/{engine:?}"), |b| b.iter(|| Code::build(engine, &one)));
        c.bench_function(&format!("prepare 200/{engine:?}"), |b| b.iter(|| Code::build(engine, &many)));
    }
    let program = set_like().program().clone();
    c.bench_function("verify", |b| b.iter(|| look::lang::verify::verify(&program, &SHAPES)));
}

criterion_group!(benches, run, prepare);
criterion_main!(benches);
