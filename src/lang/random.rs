//! # random: programs and a machine to compare engines with
//!
//! [`program`] turns any bytes into a program that verifies; [`Bench`] runs it on helpers that write down every call and
//! answer from a hash of what they saw. Two engines that differ anywhere differ in the [`Trail`]. For tests and fuzzers;
//! the server does not use it.

use super::ir::{BitOp, FloatOp, IntOp, ListWord, Op, Program, Reg, Rel};
use super::machine::{Head, HelperFn, Outcome, RESULTS_MAX};
use super::verify::HelperShape;
use crate::base::mix64;

/// Registers 0..5 hold ints, 5..8 floats, 8..10 bools; loops of depth k count in 10 + k.
const REGS: u8 = 16;
const DEPTH_MAX: u8 = 6;
const ARG_SLOTS: u16 = 6;
const TEXTS: u16 = 3;
const OPS_MAX: usize = 120;

/// The helper table: helper k takes k % 5 words and gives 1 + k results.
pub const SHAPES: [HelperShape; 8] = {
    let mut shapes = [HelperShape { args: 0, results: 0 }; 8];
    let mut k = 0;
    while k < shapes.len() {
        shapes[k] = HelperShape { args: k as u8 % 5, results: 1 + k as u8 };
        k += 1;
    }
    shapes
};

/// Choices read from bytes; zeros when they run out.
struct Choices<'a> {
    bytes: &'a [u8],
}

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        match self.bytes.split_first() {
            Some((&first, rest)) => {
                self.bytes = rest;
                first
            }
            None => 0,
        }
    }
    fn below(&mut self, n: usize) -> usize {
        self.byte() as usize % n
    }
    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

const INTS: [i64; 12] = [0, 1, -1, 2, -2, 7, 63, 65_536, i64::MAX, i64::MIN, i64::MIN + 1, 0x1234_5678_9abc_def0];
const FLOATS: [f64; 10] =
    [0.0, -0.0, 1.0, -1.5, 1e308, -1e308, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, 0.1];
const RELS: [Rel; 6] = [Rel::Eq, Rel::Ne, Rel::Lt, Rel::Le, Rel::Gt, Rel::Ge];

/// A program that verifies against [`SHAPES`], from any bytes.
pub fn program(bytes: &[u8]) -> Program {
    let mut author = Author { choices: Choices { bytes }, ops: Vec::new(), loops: 0, last_results: 0 };
    author.prelude();
    author.block(0);
    author.probe();
    let lines = (0..author.ops.len() as u32).collect();
    let texts = (0..TEXTS).map(|n| format!("ERR {n}")).collect();
    Program { ops: author.ops, regs: REGS, arg_slots: ARG_SLOTS, texts, lines, ..Program::default() }
}

struct Author<'a> {
    choices: Choices<'a>,
    ops: Vec<Op>,
    loops: u8,
    /// Result words of the last call in this straight line.
    last_results: u8,
}

impl Author<'_> {
    /// Writes every register once, so that any may be read later.
    fn prelude(&mut self) {
        for d in 0..REGS {
            let value = match d {
                5..8 => self.choices.one_of(&FLOATS).to_bits(),
                8..10 => self.choices.below(2) as u64,
                _ => self.choices.one_of(&INTS) as u64,
            };
            self.ops.push(Op::Const { d, value });
        }
    }

    /// Shows all registers to the trail.
    fn probe(&mut self) {
        for first in (0..REGS).step_by(4) {
            self.ops.push(Op::Call { d: 0, helper: 4, n: 4, args: [first, first + 1, first + 2, first + 3] });
        }
    }

    fn block(&mut self, depth: u8) {
        for _ in 0..1 + self.choices.below(8) {
            if self.ops.len() > OPS_MAX {
                return;
            }
            match self.choices.below(16) {
                0 | 1 if depth < DEPTH_MAX => self.branch(depth),
                2 if depth < DEPTH_MAX => self.switch(depth),
                3 | 4 if depth < DEPTH_MAX && self.loops < 3 => self.cycle(depth),
                5 => self.leave(),
                _ => self.straight(),
            }
        }
    }

    fn inner(&mut self, depth: u8) {
        self.last_results = 0;
        self.block(depth + 1);
        self.last_results = 0;
    }

    fn branch(&mut self, depth: u8) {
        let c = self.any();
        self.ops.push(Op::If { c });
        if self.choices.below(8) > 0 {
            self.inner(depth);
        }
        if self.choices.below(2) == 1 {
            self.ops.push(Op::Else);
            self.inner(depth);
        }
        self.ops.push(Op::End);
        self.last_results = 0;
    }

    fn switch(&mut self, depth: u8) {
        let s = self.any();
        self.ops.push(Op::Switch { s });
        for _ in 0..self.choices.below(4) {
            let value = self.choices.one_of(&INTS) as u64;
            self.ops.push(Op::Case { value });
            self.inner(depth);
        }
        if self.choices.below(2) == 1 {
            self.ops.push(Op::Default);
            self.inner(depth);
        }
        self.ops.push(Op::End);
        self.last_results = 0;
    }

    fn cycle(&mut self, depth: u8) {
        let counter = 10 + self.loops;
        // Mostly a small bound, so that fuel does not end everything.
        let bound = self.int();
        if self.choices.below(8) > 0 {
            let value = self.choices.below(6) as u64;
            self.ops.push(Op::Const { d: bound, value });
        }
        self.ops.push(Op::Loop { counter, bound });
        self.loops += 1;
        if self.choices.below(8) > 0 {
            self.inner(depth);
        }
        self.loops -= 1;
        self.ops.push(Op::End);
        self.last_results = 0;
    }

    /// A way out, rarely unconditional.
    fn leave(&mut self) {
        let out = match self.choices.below(4) {
            0 => Op::Return,
            1 => Op::Fail { text: self.choices.below(TEXTS as usize) as u16 },
            _ if self.loops > 0 => Op::Break,
            _ => return,
        };
        let c = self.any();
        self.ops.extend([Op::If { c }, out, Op::End]);
        self.last_results = 0;
    }

    /// Sometimes a register of the wrong type: the verifier is untyped, so engines must agree on those too.
    fn of(&mut self, first: u8, count: usize) -> Reg {
        if self.choices.below(24) == 1 { self.any() } else { first + self.choices.below(count) as u8 }
    }
    fn any(&mut self) -> Reg {
        self.choices.below(REGS as usize) as u8
    }
    fn int(&mut self) -> Reg {
        self.choices.below(5) as u8
    }

    fn straight(&mut self) {
        let d = self.int();
        let (df, db) = (5 + self.choices.below(3) as u8, 8 + self.choices.below(2) as u8);
        let (a, b) = (self.of(0, 5), self.of(0, 5));
        let (fa, fb) = (self.of(5, 3), self.of(5, 3));
        let slot = self.choices.below(ARG_SLOTS as usize) as u16;
        let op = match self.choices.below(19) {
            0 => Op::Const { d, value: self.choices.one_of(&INTS) as u64 },
            1 => Op::Const { d: df, value: self.choices.one_of(&FLOATS).to_bits() },
            2 => Op::Mov { d, s: a },
            3 => Op::Arg { d, slot },
            4 => {
                let width = 1 + self.choices.below(3) as u8;
                Op::Elem { d, slot: 4 + slot % 2, index: a, width, field: self.choices.below(width as usize) as u8 }
            }
            5 => Op::Count { d, slot },
            6 if self.last_results > 1 => {
                let most = (self.last_results as usize).min(RESULTS_MAX);
                Op::Result { d, index: 1 + self.choices.below(most - 1) as u8 }
            }
            7 | 8 => {
                use IntOp::*;
                Op::Int { op: self.choices.one_of(&[Add, Sub, Mul, Div, Rem, Min, Max]), d, a, b }
            }
            9 => {
                use FloatOp::*;
                Op::Float { op: self.choices.one_of(&[Add, Sub, Mul, Div, Min, Max]), d: df, a: fa, b: fb }
            }
            10 => {
                use BitOp::*;
                Op::Bits { op: self.choices.one_of(&[And, Or, Xor, Shl, Shr, ShrUnsigned]), d, a, b }
            }
            11 => Op::CmpInt { rel: self.choices.one_of(&RELS), d: db, a, b },
            12 => Op::CmpFloat { rel: self.choices.one_of(&RELS), d: db, a: fa, b: fb },
            13 => Op::Not { d: db, s: self.any() },
            14 => Op::IntToFloat { d: df, s: a },
            15 => Op::Select { d, c: self.any(), a, b },
            16 => Op::Sqrt { d: df, s: fa },
            _ => self.call(d),
        };
        self.ops.push(op);
    }

    fn call(&mut self, d: Reg) -> Op {
        let helper = self.choices.below(SHAPES.len()) as u16;
        let HelperShape { args: n, results } = SHAPES[helper as usize];
        self.last_results = results;
        let mut args = [0; 4];
        args.iter_mut().take(n as usize).for_each(|arg| *arg = self.any());
        Op::Call { d, helper, n, args }
    }
}

/// Everything about a run that anybody could see.
#[derive(Clone, PartialEq, Debug)]
pub struct Trail {
    pub status: u64,
    pub calls: Vec<(u16, [u64; 4])>,
    pub ops: u64,
    pub locs: u64,
    pub fuel: u64,
    pub fail_text: u64,
}

/// An environment whose helpers record.
#[repr(C)]
pub struct Bench {
    head: Head,
    args: Vec<u64>,
    table: Vec<HelperFn>,
    calls: Vec<(u16, [u64; 4])>,
    /// Hash of the calls so far; answers come from it.
    seen: u64,
}

impl Bench {
    /// `seed` chooses the arguments and the helpers' answers.
    pub fn new(seed: u64) -> Box<Bench> {
        let mut bench = Box::new(Bench {
            head: Head {
                args: std::ptr::null(),
                args_len: 0,
                ops: 0,
                locs: 0,
                fuel: 200,
                fail_text: 0,
                results: [0; RESULTS_MAX],
                helpers: std::ptr::null(),
                helpers_len: 0,
            },
            args: arguments(seed),
            table: TABLE.to_vec(),
            calls: Vec::new(),
            seen: seed,
        });
        bench.head.args = bench.args.as_ptr();
        bench.head.args_len = bench.args.len() as u64;
        bench.head.helpers = bench.table.as_ptr();
        bench.head.helpers_len = bench.table.len() as u64;
        bench
    }

    /// Runs once with the engine that `run` stands for, which gets a head that satisfies every engine's demands for
    /// programs of [`program`], and gives a status word.
    pub fn trail(mut self: Box<Self>, run: impl FnOnce(*mut Head) -> u64) -> Trail {
        let bench: *mut Bench = &mut *self;
        let status = run(bench.cast());
        let Head { ops, locs, fuel, fail_text, .. } = self.head;
        Trail { status, calls: std::mem::take(&mut self.calls), ops, locs, fuel, fail_text }
    }

    fn answer(&mut self, helper: u16, words: [u64; 4]) -> Outcome {
        self.calls.push((helper, words));
        for word in words {
            self.seen = mix64(self.seen ^ word);
        }
        self.seen = mix64(self.seen ^ helper as u64);
        self.head.ops += self.seen & 7;
        self.head.locs += 1;
        for index in 1..SHAPES[helper as usize].results as usize {
            self.head.results[index] = mix64(self.seen + index as u64) % 5;
        }
        match self.seen >> 58 {
            0 => Outcome { value: 9, status: 1 + (self.seen >> 3) % 9 },
            1..16 => Outcome::value(self.seen),
            _ => Outcome::value(self.seen >> 8 & 3),
        }
    }
}

/// Four plain words, a list inside the arguments, a list that reaches past them.
fn arguments(seed: u64) -> Vec<u64> {
    let mut args: Vec<u64> = (0..4).map(|n| INTS[mix64(seed + n) as usize % INTS.len()] as u64).collect();
    args.push(ListWord::new(6, 4).0);
    args.push(ListWord::new(12, 1 << 30).0);
    args.extend((0..14).map(|n| mix64(seed ^ n) % 9));
    args
}

unsafe extern "C" fn record<const K: u16>(head: *mut Head, a: u64, b: u64, c: u64, d: u64) -> Outcome {
    // SAFETY: `Bench::trail` gives engines the head of a Bench, its first field, and nobody else uses it meanwhile.
    let bench = unsafe { &mut *head.cast::<Bench>() };
    bench.answer(K, [a, b, c, d])
}

const TABLE: [HelperFn; 8] =
    [record::<0>, record::<1>, record::<2>, record::<3>, record::<4>, record::<5>, record::<6>, record::<7>];

#[cfg(test)]
mod tests {
    use super::super::engine::{Code, Engine};
    use super::super::ir::Trap;
    use super::super::jit::CodeBuffer;
    use super::super::verify::{Verified, check};
    use super::super::{encode, interp};
    use super::*;
    use proptest::prelude::*;

    fn verified(program: Program) -> Verified {
        match check(program.clone(), &SHAPES) {
            Ok(verified) => verified,
            Err(error) => panic!("{error}\n{:#?}", program.ops),
        }
    }

    fn interpret(program: &Verified, seed: u64) -> Trail {
        let prepared = interp::Prepared::new(program);
        // SAFETY: a Bench's head satisfies programs verified against SHAPES.
        Bench::new(seed).trail(|head| unsafe { interp::run(&prepared, head) })
    }

    fn compile(program: &Verified, seed: u64) -> Trail {
        let buffer = CodeBuffer::compile(std::slice::from_ref(program)).expect("tests have executable memory");
        // SAFETY: as `interpret`.
        Bench::new(seed).trail(|head| unsafe { buffer.run(0, head) })
    }

    fn both(ops: Vec<Op>) -> Trail {
        let lines = vec![0; ops.len()];
        let texts = vec!["a".into(), "b".into()];
        let program = verified(Program { ops, regs: 8, arg_slots: 6, texts, lines, ..Program::default() });
        let trail = interpret(&program, 1);
        assert_eq!(compile(&program, 1), trail);
        trail
    }

    fn constant(d: Reg, value: i64) -> Op {
        Op::Const { d, value: value as u64 }
    }
    fn show(r: Reg) -> Op {
        Op::Call { d: 7, helper: 1, n: 1, args: [r, 0, 0, 0] }
    }
    fn shown(trail: &Trail) -> Vec<i64> {
        trail.calls.iter().map(|call| call.1[0] as i64).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]
        #[test]
        fn engines_agree_on_random_programs(bytes in proptest::collection::vec(any::<u8>(), 0..600), seed in 0u64..1 << 32) {
            let program = verified(program(&bytes));
            prop_assert_eq!(compile(&program, seed), interpret(&program, seed));
        }

        #[test]
        fn random_programs_survive_their_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let program = program(&bytes);
            prop_assert_eq!(encode::decode(&encode::encode(&program)), Ok(program));
        }
    }

    #[test]
    fn random_programs_reach_every_operation_and_trap() {
        let mut operations = std::collections::BTreeSet::new();
        let mut statuses = std::collections::BTreeSet::new();
        let mut word = 1u64;
        for seed in 0..3000 {
            let bytes: Vec<u8> = (0..600)
                .map(|_| {
                    word = mix64(word.wrapping_add(0x9e37_79b9_7f4a_7c15));
                    word as u8
                })
                .collect();
            let program = verified(program(&bytes));
            operations.extend(
                program.ops.iter().map(|op| encode::encode(&Program { ops: vec![*op], ..Program::default() })[25]),
            );
            statuses.insert(interpret(&program, seed).status);
        }
        assert_eq!(operations.into_iter().collect::<Vec<_>>(), (0..26).collect::<Vec<u8>>());
        assert_eq!(statuses.into_iter().collect::<Vec<_>>(), (0..10).collect::<Vec<u64>>());
    }

    /// Replicas on different machines must agree; the number was made on x86-64; `compat/aarch64/run` holds aarch64 to it.
    #[test]
    fn trails_are_equal_on_every_machine() {
        let mut digest = 0;
        for seed in 0..2000u64 {
            let bytes: Vec<u8> = (0..400).map(|n| mix64(mix64(seed).wrapping_add(n)) as u8).collect();
            let program = verified(program(&bytes));
            let trail = compile(&program, seed);
            assert_eq!(trail, interpret(&program, seed));
            let text = format!("{trail:?}");
            digest = mix64(digest ^ xxhash_rust::xxh3::xxh3_64(text.as_bytes()));
        }
        assert_eq!(digest, 2_408_551_460_401_917_854);
    }

    #[test]
    fn integer_arithmetic_traps_at_its_edges() {
        let run = |op, a, b| {
            let trail = both(vec![constant(0, a), constant(1, b), Op::Int { op, d: 2, a: 0, b: 1 }, show(2)]);
            match trail.status {
                0 => Ok(shown(&trail)[0]),
                status => Err(Trap::from_status(status).expect("not 0")),
            }
        };
        use IntOp::*;
        assert_eq!(run(Add, i64::MAX, 1), Err(Trap::Overflow));
        assert_eq!(run(Sub, i64::MIN, 1), Err(Trap::Overflow));
        assert_eq!(run(Mul, i64::MIN, -1), Err(Trap::Overflow));
        assert_eq!(run(Mul, 1 << 32, 1 << 31), Err(Trap::Overflow));
        assert_eq!(run(Mul, 1 << 32, -(1 << 31)), Ok(i64::MIN));
        assert_eq!(run(Div, i64::MIN, -1), Err(Trap::Overflow));
        assert_eq!(run(Div, 7, -1), Ok(-7));
        assert_eq!(run(Div, -7, 2), Ok(-3));
        assert_eq!(run(Rem, i64::MIN, -1), Ok(0));
        assert_eq!(run(Rem, -7, 4), Ok(-3));
        assert_eq!(run(Div, 1, 0), Err(Trap::DivZero));
        assert_eq!(run(Rem, 1, 0), Err(Trap::DivZero));
        assert_eq!(run(Min, -1, 1), Ok(-1));
        assert_eq!(run(Max, -1, 1), Ok(1));
    }

    #[test]
    fn a_nan_never_leaves_float_arithmetic() {
        let run = |op, a: f64, b: f64| {
            let ops = vec![constant(0, a.to_bits() as i64), constant(1, b.to_bits() as i64)];
            let trail = both([ops, vec![Op::Float { op, d: 2, a: 0, b: 1 }, show(2)]].concat());
            (trail.status == 0).then(|| f64::from_bits(shown(&trail)[0] as u64))
        };
        let infinity = f64::INFINITY;
        assert_eq!(run(FloatOp::Sub, infinity, infinity), None);
        assert_eq!(run(FloatOp::Mul, infinity, 0.0), None);
        assert_eq!(run(FloatOp::Div, 0.0, 0.0), None);
        assert_eq!(run(FloatOp::Div, 1.0, 0.0), Some(infinity));
        assert_eq!(run(FloatOp::Min, 0.0, -0.0).map(f64::to_bits), Some((-0.0f64).to_bits()));
        assert_eq!(run(FloatOp::Max, 0.0, -0.0).map(f64::to_bits), Some((-0.0f64).to_bits()));
        assert_eq!(run(FloatOp::Add, 0.1, 0.2), Some(0.1 + 0.2));
    }

    #[test]
    fn a_square_root_is_exact_and_of_a_negative_number_none() {
        let run = |x: f64| {
            let trail = both(vec![constant(0, x.to_bits() as i64), Op::Sqrt { d: 2, s: 0 }, show(2)]);
            match Trap::from_status(trail.status) {
                None => Ok(f64::from_bits(shown(&trail)[0] as u64).to_bits()),
                Some(trap) => Err(trap),
            }
        };
        for (x, root) in [(9.0, 3.0), (2.0, std::f64::consts::SQRT_2), (-0.0, -0.0), (f64::INFINITY, f64::INFINITY)] {
            assert_eq!(run(x), Ok(f64::to_bits(root)), "{x}");
        }
        for x in [-1.0, f64::NEG_INFINITY, f64::NAN, -f64::MIN_POSITIVE] {
            assert_eq!(run(x), Err(Trap::NotANumber), "{x}");
        }
    }

    #[test]
    fn a_loop_reads_its_bound_once_and_leaves_its_counter_at_it() {
        let body = vec![constant(0, 3), Op::Loop { counter: 1, bound: 0 }, show(1), constant(0, 99), Op::End, show(1)];
        let trail = both(body);
        assert_eq!(shown(&trail), [0, 1, 2, 3]);
        assert_eq!(trail.fuel, 198, "one unit a back-edge");
        let negative = vec![constant(0, -5), Op::Loop { counter: 1, bound: 0 }, show(1), Op::End, show(1)];
        assert_eq!(shown(&both(negative)), [0]);
        let same = vec![constant(0, 2), Op::Loop { counter: 0, bound: 0 }, show(0), Op::End, show(0)];
        assert_eq!(shown(&both(same)), [0, 1, 2]);
    }

    #[test]
    fn break_leaves_only_the_innermost_loop() {
        let nested = vec![
            constant(0, 2),
            Op::Loop { counter: 1, bound: 0 },
            Op::Loop { counter: 2, bound: 0 },
            show(1),
            Op::Switch { s: 0 },
            Op::Case { value: 2 },
            Op::Break,
            Op::End,
            Op::End,
            Op::End,
        ];
        assert_eq!(shown(&both(nested)), [0, 1]);
    }

    #[test]
    fn endless_loops_end_with_their_fuel() {
        let trail = both(vec![constant(0, i64::MAX), Op::Loop { counter: 1, bound: 0 }, Op::End]);
        assert_eq!((trail.status, trail.fuel, trail.ops), (Trap::Fuel as u64, 0, 2 + 201));
    }

    #[test]
    fn operations_are_charged_by_the_run() {
        // const, if | mov, mov | const: the branch not taken costs nothing, a trap in mid-run costs the run.
        let branch = |c| {
            let inside = Op::Mov { d: 1, s: 0 };
            both(vec![constant(0, c), Op::If { c: 0 }, inside, inside, Op::End, constant(2, 0)]).ops
        };
        assert_eq!((branch(0), branch(1)), (3, 5));
        let divide = Op::Int { op: IntOp::Div, d: 1, a: 0, b: 0 };
        assert_eq!(both(vec![constant(0, 0), divide, constant(1, 0), constant(1, 0)]).ops, 4);
        // 2 before, a trip of 1 + 1, thrice.
        let cycle = vec![constant(0, 3), Op::Loop { counter: 1, bound: 0 }, constant(2, 0), Op::End];
        assert_eq!(both(cycle).ops, 2 + 3 * 2);
    }

    #[test]
    fn the_first_equal_case_wins() {
        let choose = |s: i64| {
            let case = |value: i64| Op::Case { value: value as u64 };
            let ops = vec![constant(0, s), Op::Switch { s: 0 }];
            let cases = vec![case(1), show(0), case(i64::MIN), show(0), show(0), case(1), Op::Fail { text: 1 }];
            let rest = vec![Op::Default, Op::Fail { text: 0 }, Op::End];
            both([ops, cases, rest].concat())
        };
        assert_eq!((choose(1).status, choose(1).calls.len()), (0, 1));
        assert_eq!(choose(i64::MIN).calls.len(), 2);
        assert_eq!((choose(3).status, choose(3).fail_text), (Trap::Fail as u64, 0));
    }

    #[test]
    fn a_list_element_outside_its_list_or_the_arguments_traps() {
        let get = |slot, index| {
            both(vec![constant(0, index), Op::Elem { d: 1, slot, index: 0, width: 2, field: 1 }, show(1)]).status
        };
        assert_eq!(get(4, 3), 0);
        assert_eq!(get(4, 4), Trap::Index as u64);
        assert_eq!(get(4, -1), Trap::Index as u64);
        assert_eq!(get(5, 3), 0);
        assert_eq!(get(5, 4), Trap::Index as u64);
        assert_eq!(get(5, (1 << 30) - 1), Trap::Index as u64);
    }

    #[test]
    fn a_head_that_is_too_small_runs_nothing() {
        let ops = vec![constant(0, 1), show(0)];
        let program = verified(Program { lines: vec![0; 2], ops, regs: 8, arg_slots: 6, ..Program::default() });
        for engine in [Engine::Jit, Engine::Interp] {
            let code = Code::build(engine, std::slice::from_ref(&program));
            assert_eq!(code.engine(), engine);
            let run = |args_len, helpers_len| {
                let mut bench = Bench::new(1);
                bench.head.args_len = args_len;
                bench.head.helpers_len = helpers_len;
                bench.head.results = [7; RESULTS_MAX];
                // SAFETY: both lengths are at most the true ones.
                let ended = unsafe { code.run(0, (&mut *bench as *mut Bench).cast()) };
                assert_eq!(bench.head.results, [0; RESULTS_MAX], "leftovers of the last call");
                (ended, bench.calls.len())
            };
            assert_eq!(run(6, 2), (Ok(()), 1));
            assert_eq!(run(5, 2), (Err(Trap::Index), 0));
            assert_eq!(run(6, 1), (Err(Trap::Index), 0));
        }
    }

    #[test]
    fn chosen_constants_do_not_stand_in_executable_memory() {
        let gadget = 0xc3c3_0f05_90c3_5f58u64;
        let ops = vec![
            Op::Const { d: 0, value: gadget },
            Op::Switch { s: 0 },
            Op::Case { value: gadget },
            Op::End,
            Op::Fail { text: 0 },
        ];
        let program = Program { lines: vec![0; 5], ops, regs: 1, texts: vec!["x".into()], ..Program::default() };
        let buffer = CodeBuffer::compile(&[verified(program)]).expect("tests have executable memory");
        for part in gadget.to_le_bytes().windows(4) {
            assert!(!buffer.code(0).windows(4).any(|window| window == part));
        }
    }

    #[test]
    fn many_programs_share_a_buffer() {
        let programs: Vec<Verified> = (0..50u8).map(|n| verified(program(&[n; 300]))).collect();
        let buffer = CodeBuffer::compile(&programs).expect("tests have executable memory");
        for (which, program) in programs.iter().enumerate() {
            // SAFETY: as `interpret`.
            let trail = Bench::new(5).trail(|head| unsafe { buffer.run(which, head) });
            assert_eq!(trail, interpret(program, 5));
        }
    }
}
