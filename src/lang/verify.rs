//! # verify: the gate between untrusted IR and the engines
//!
//! One linear pass. What it lets through is well nested (at most [`NESTING_MAX`] deep), reads only registers that are
//! written on every path before, stays inside its argument slots, texts and the helper table, never writes a counter
//! inside its loop, and reads only results that the last helper call gave. [`Verified`] is the proof: engines accept
//! nothing else, and their memory safety rests on it.
//!
//! It does not recover types: a hostile program may pass any word to any helper, so helpers check the handles they are
//! given.

use super::ir::{NESTING_MAX, Op, Program, REGS_MAX, Reg};
use super::machine::RESULTS_MAX;

/// Most operations of one program; keeps every branch of the machine code within the reach of one instruction.
pub const OPS_MAX: usize = 8_192;

/// Words that a helper takes and gives back (its value included).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HelperShape {
    pub args: u8,
    pub results: u8,
}

/// A program that passed [`check`].
#[derive(Clone, PartialEq, Debug)]
pub struct Verified(Program);

impl Verified {
    pub fn program(&self) -> &Program {
        &self.0
    }
}

impl std::ops::Deref for Verified {
    type Target = Program;
    fn deref(&self) -> &Program {
        &self.0
    }
}

/// What is wrong, and at which operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("operation {at}: {fault}")]
pub struct VerifyError {
    pub at: usize,
    pub fault: Fault,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    #[error("more than {OPS_MAX} operations")]
    TooLong,
    #[error("{0} source lines for as many operations as the program has")]
    Lines(usize),
    #[error("nesting deeper than {NESTING_MAX}")]
    TooDeep,
    #[error("`{0}` outside of the block it belongs to")]
    Misplaced(&'static str),
    #[error("an operation stands between `switch` and its first case")]
    BeforeFirstCase,
    #[error("a block is not ended")]
    Unended,
    #[error("register r{0} is not below the program's register count")]
    NoSuchRegister(Reg),
    #[error("register r{0} may be read before it is written")]
    Unwritten(Reg),
    #[error("r{0} counts a loop around this write")]
    CounterWritten(Reg),
    #[error("argument slot {0} does not exist")]
    NoSuchSlot(u16),
    #[error("field {0} is outside of its element")]
    NoSuchField(u8),
    #[error("helper {0} does not exist")]
    NoSuchHelper(u16),
    #[error("helper {helper} takes {takes} words, not {given}")]
    Arity { helper: u16, takes: u8, given: u8 },
    #[error("the last helper call has no result {0} on every path")]
    NoSuchResult(u8),
    #[error("error text {0} does not exist")]
    NoSuchText(u16),
}

/// Verifies a program against the helper table and keeps it.
pub fn check(program: Program, helpers: &[HelperShape]) -> Result<Verified, VerifyError> {
    verify(&program, helpers)?;
    Ok(Verified(program))
}

/// Verifies a program against the helper table.
pub fn verify(program: &Program, helpers: &[HelperShape]) -> Result<(), VerifyError> {
    check_frame(program).map_err(|fault| VerifyError { at: 0, fault })?;
    let mut pass = Pass { program, helpers, now: State::start(), blocks: Vec::new() };
    for (at, op) in program.ops.iter().enumerate() {
        pass.step(op).map_err(|fault| VerifyError { at, fault })?;
    }
    match pass.blocks.is_empty() {
        true => Ok(()),
        false => Err(VerifyError { at: program.ops.len(), fault: Fault::Unended }),
    }
}

/// The parts that belong to no operation.
fn check_frame(program: &Program) -> Result<(), Fault> {
    if program.ops.len() > OPS_MAX {
        return Err(Fault::TooLong);
    }
    if program.lines.len() != program.ops.len() {
        return Err(Fault::Lines(program.lines.len()));
    }
    for text in [program.on_overflow, program.on_div_zero, program.on_nan].into_iter().flatten() {
        if text as usize >= program.texts.len() {
            return Err(Fault::NoSuchText(text));
        }
    }
    Ok(())
}

/// What is known at one point of the program, on every path that leads there.
#[derive(Clone, Copy)]
struct State {
    written: [u64; 4],
    /// Result words of the last helper call; 0 = no call.
    results: u8,
}

impl State {
    fn start() -> Self {
        State { written: [0; 4], results: 0 }
    }
    /// Of code that no path reaches everything is true.
    fn unreachable() -> Self {
        State { written: [u64::MAX; 4], results: u8::MAX }
    }
    fn has(&self, r: Reg) -> bool {
        self.written[r as usize / 64] >> (r % 64) & 1 != 0
    }
    fn write(&mut self, r: Reg) {
        self.written[r as usize / 64] |= 1 << (r % 64);
    }
    fn join(self, other: State) -> State {
        let mut written = self.written;
        for (mine, theirs) in written.iter_mut().zip(other.written) {
            *mine &= theirs;
        }
        State { written, results: self.results.min(other.results) }
    }
}

#[derive(Clone, Copy)]
enum Block {
    /// `out`: the state at the end of the first branch, once Else was seen.
    If {
        entry: State,
        out: Option<State>,
    },
    Switch {
        entry: State,
        out: State,
        phase: Phase,
    },
    Loop {
        entry: State,
        counter: Reg,
    },
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    BeforeCase,
    InCase,
    InDefault,
}

struct Pass<'a> {
    program: &'a Program,
    helpers: &'a [HelperShape],
    now: State,
    blocks: Vec<Block>,
}

impl Pass<'_> {
    fn step(&mut self, op: &Op) -> Result<(), Fault> {
        self.check_before_case(op)?;
        for r in op.reads() {
            self.read(r)?;
        }
        self.check_operands(op)?;
        if let Some(d) = op.written() {
            self.write(d)?;
        }
        self.follow(op)
    }

    fn check_before_case(&self, op: &Op) -> Result<(), Fault> {
        let before = matches!(self.blocks.last(), Some(Block::Switch { phase: Phase::BeforeCase, .. }));
        match before && !matches!(op, Op::Case { .. } | Op::Default | Op::End) {
            true => Err(Fault::BeforeFirstCase),
            false => Ok(()),
        }
    }

    fn in_file(&self, r: Reg) -> Result<(), Fault> {
        match r < self.program.regs && (r as usize) < REGS_MAX {
            true => Ok(()),
            false => Err(Fault::NoSuchRegister(r)),
        }
    }

    fn read(&self, r: Reg) -> Result<(), Fault> {
        self.in_file(r)?;
        match self.now.has(r) {
            true => Ok(()),
            false => Err(Fault::Unwritten(r)),
        }
    }

    fn write(&mut self, r: Reg) -> Result<(), Fault> {
        self.in_file(r)?;
        if self.blocks.iter().any(|block| matches!(block, Block::Loop { counter, .. } if *counter == r)) {
            return Err(Fault::CounterWritten(r));
        }
        self.now.write(r);
        Ok(())
    }

    fn slot(&self, slot: u16) -> Result<(), Fault> {
        match slot < self.program.arg_slots {
            true => Ok(()),
            false => Err(Fault::NoSuchSlot(slot)),
        }
    }

    fn check_operands(&mut self, op: &Op) -> Result<(), Fault> {
        match *op {
            Op::Arg { slot, .. } | Op::Count { slot, .. } => self.slot(slot),
            Op::Elem { slot, width, field, .. } => {
                self.slot(slot)?;
                if field < width { Ok(()) } else { Err(Fault::NoSuchField(field)) }
            }
            Op::Result { index, .. } => self.check_result(index),
            Op::Call { helper, n, .. } => self.check_call(helper, n),
            Op::Fail { text } if text as usize >= self.program.texts.len() => Err(Fault::NoSuchText(text)),
            _ => Ok(()),
        }
    }

    fn check_result(&self, index: u8) -> Result<(), Fault> {
        match index >= 1 && (index as usize) < RESULTS_MAX && index < self.now.results {
            true => Ok(()),
            false => Err(Fault::NoSuchResult(index)),
        }
    }

    fn check_call(&mut self, helper: u16, given: u8) -> Result<(), Fault> {
        let shape = self.helpers.get(helper as usize).ok_or(Fault::NoSuchHelper(helper))?;
        if shape.args != given || given > 4 {
            return Err(Fault::Arity { helper, takes: shape.args, given });
        }
        self.now.results = shape.results;
        Ok(())
    }

    /// Moves the state and the block stack over the operation.
    fn follow(&mut self, op: &Op) -> Result<(), Fault> {
        match *op {
            Op::If { .. } => self.open(Block::If { entry: self.now, out: None }),
            Op::Switch { .. } => {
                let entry = self.now;
                self.now = State::unreachable();
                self.open(Block::Switch { entry, out: State::unreachable(), phase: Phase::BeforeCase })
            }
            Op::Loop { counter, .. } => {
                // A back-edge brings whatever call the body made last.
                self.now.results = 0;
                self.open(Block::Loop { entry: self.now, counter })
            }
            Op::Else => self.turn_else(),
            Op::Case { .. } => self.next_case(Phase::InCase),
            Op::Default => self.next_case(Phase::InDefault),
            Op::Break => {
                if !self.blocks.iter().any(|block| matches!(block, Block::Loop { .. })) {
                    return Err(Fault::Misplaced("break"));
                }
                self.now = State::unreachable();
                Ok(())
            }
            Op::Fail { .. } | Op::Return => {
                self.now = State::unreachable();
                Ok(())
            }
            Op::End => self.close(),
            _ => Ok(()),
        }
    }

    fn open(&mut self, block: Block) -> Result<(), Fault> {
        if self.blocks.len() == NESTING_MAX {
            return Err(Fault::TooDeep);
        }
        self.blocks.push(block);
        Ok(())
    }

    fn turn_else(&mut self) -> Result<(), Fault> {
        let now = self.now;
        match self.blocks.last_mut() {
            Some(Block::If { entry, out: out @ None }) => {
                *out = Some(now);
                self.now = *entry;
                Ok(())
            }
            _ => Err(Fault::Misplaced("else")),
        }
    }

    fn next_case(&mut self, to: Phase) -> Result<(), Fault> {
        let now = self.now;
        match self.blocks.last_mut() {
            Some(Block::Switch { entry, out, phase }) if *phase != Phase::InDefault => {
                *out = out.join(now);
                *phase = to;
                self.now = *entry;
                Ok(())
            }
            _ => Err(Fault::Misplaced("case")),
        }
    }

    fn close(&mut self) -> Result<(), Fault> {
        self.now = match self.blocks.pop().ok_or(Fault::Misplaced("end"))? {
            Block::If { out: Some(out), .. } => out.join(self.now),
            Block::If { entry, out: None } => entry.join(self.now),
            Block::Switch { out, phase: Phase::InDefault, .. } => out.join(self.now),
            Block::Switch { entry, out, .. } => out.join(self.now).join(entry),
            Block::Loop { entry, .. } => entry,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lang::ir::IntOp;

    const HELPERS: &[HelperShape] = &[HelperShape { args: 1, results: 3 }, HelperShape { args: 0, results: 1 }];

    fn fault_of(ops: Vec<Op>) -> Option<Fault> {
        let lines = vec![1; ops.len()];
        let program = Program { ops, regs: 4, arg_slots: 2, lines, texts: vec!["ERR".into()], ..Program::default() };
        verify(&program, HELPERS).err().map(|error| error.fault)
    }
    fn set(d: Reg) -> Op {
        Op::Const { d, value: 1 }
    }
    fn add(d: Reg, a: Reg, b: Reg) -> Op {
        Op::Int { op: IntOp::Add, d, a, b }
    }
    fn call(helper: u16, n: u8) -> Op {
        Op::Call { d: 3, helper, n, args: [0; 4] }
    }

    #[test]
    fn a_register_written_on_one_branch_only_is_unwritten_after_the_join() {
        let one = vec![set(0), Op::If { c: 0 }, set(1), Op::End, add(2, 0, 1)];
        assert_eq!(fault_of(one), Some(Fault::Unwritten(1)));
        let both = vec![set(0), Op::If { c: 0 }, set(1), Op::Else, set(1), Op::End, add(2, 0, 1)];
        assert_eq!(fault_of(both), None);
        let other_leaves = vec![set(0), Op::If { c: 0 }, set(1), Op::Else, Op::Return, Op::End, add(2, 0, 1)];
        assert_eq!(fault_of(other_leaves), None);
    }

    #[test]
    fn a_switch_without_default_defines_nothing() {
        let cases = |last: Option<Op>| {
            let mut ops = vec![set(0), Op::Switch { s: 0 }, Op::Case { value: 1 }, set(1)];
            ops.extend(last);
            ops.extend([set(1), Op::End, add(2, 1, 1)]);
            ops
        };
        assert_eq!(fault_of(cases(None)), Some(Fault::Unwritten(1)));
        assert_eq!(fault_of(cases(Some(Op::Default))), None);
    }

    #[test]
    fn a_loop_body_defines_nothing_after_it_but_its_counter() {
        let body = vec![set(0), Op::Loop { counter: 1, bound: 0 }, set(2), Op::End, add(3, 1, 2)];
        assert_eq!(fault_of(body), Some(Fault::Unwritten(2)));
        let counter = vec![set(0), Op::Loop { counter: 1, bound: 0 }, Op::End, add(3, 1, 1)];
        assert_eq!(fault_of(counter), None);
    }

    #[test]
    fn a_loop_cannot_write_its_counter() {
        let ops = vec![set(0), Op::Loop { counter: 1, bound: 0 }, Op::Loop { counter: 2, bound: 0 }, set(1)];
        assert_eq!(fault_of(ops), Some(Fault::CounterWritten(1)));
        let nested = vec![set(0), Op::Loop { counter: 1, bound: 0 }, Op::Loop { counter: 1, bound: 0 }];
        assert_eq!(fault_of(nested), Some(Fault::CounterWritten(1)));
    }

    #[test]
    fn results_belong_to_the_last_call_on_every_path() {
        let read = Op::Result { d: 2, index: 2 };
        assert_eq!(fault_of(vec![set(0), call(0, 1), read]), None);
        assert_eq!(fault_of(vec![set(0), call(0, 1), call(1, 0), read]), Some(Fault::NoSuchResult(2)));
        let branch = vec![set(0), call(0, 1), Op::If { c: 0 }, call(1, 0), Op::End, read];
        assert_eq!(fault_of(branch), Some(Fault::NoSuchResult(2)));
        let around = vec![set(0), call(0, 1), Op::Loop { counter: 1, bound: 0 }, read, call(1, 0), Op::End];
        assert_eq!(fault_of(around), Some(Fault::NoSuchResult(2)));
        assert_eq!(fault_of(vec![set(0), call(0, 1), Op::Result { d: 2, index: 0 }]), Some(Fault::NoSuchResult(0)));
    }

    #[test]
    fn structure_errors_are_named() {
        let cases: [(Vec<Op>, Fault); 9] = [
            (vec![Op::Else], Fault::Misplaced("else")),
            (vec![Op::Break], Fault::Misplaced("break")),
            (vec![Op::End], Fault::Misplaced("end")),
            (vec![Op::Default], Fault::Misplaced("case")),
            (vec![set(0), Op::If { c: 0 }], Fault::Unended),
            (vec![set(0), Op::Switch { s: 0 }, set(1)], Fault::BeforeFirstCase),
            (vec![set(0), Op::Switch { s: 0 }, Op::Default, Op::Case { value: 0 }, Op::End], Fault::Misplaced("case")),
            (vec![Op::Arg { d: 0, slot: 2 }], Fault::NoSuchSlot(2)),
            (vec![Op::Fail { text: 1 }], Fault::NoSuchText(1)),
        ];
        for (ops, fault) in cases {
            assert_eq!(fault_of(ops), Some(fault));
        }
    }

    #[test]
    fn operands_outside_of_their_tables_are_refused() {
        assert_eq!(fault_of(vec![set(4)]), Some(Fault::NoSuchRegister(4)));
        assert_eq!(fault_of(vec![call(2, 0)]), Some(Fault::NoSuchHelper(2)));
        let short = vec![set(0), call(0, 0)];
        assert_eq!(fault_of(short), Some(Fault::Arity { helper: 0, takes: 1, given: 0 }));
        let elem = |width, field| vec![set(0), Op::Elem { d: 1, slot: 0, index: 0, width, field }];
        assert_eq!(fault_of(elem(2, 1)), None);
        assert_eq!(fault_of(elem(2, 2)), Some(Fault::NoSuchField(2)));
    }

    #[test]
    fn the_ninth_level_is_refused() {
        let nest = |levels| {
            let mut ops = vec![set(0)];
            ops.extend(std::iter::repeat_n(Op::If { c: 0 }, levels));
            ops.extend(std::iter::repeat_n(Op::End, levels));
            ops
        };
        assert_eq!(fault_of(nest(NESTING_MAX)), None);
        assert_eq!(fault_of(nest(NESTING_MAX + 1)), Some(Fault::TooDeep));
    }
}
