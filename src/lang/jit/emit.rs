//! # emit: one pass over a verified program, for any architecture

use super::super::flow::{Place, places};
use super::super::ir::{NESTING_MAX, Op};
use super::super::verify::Verified;
use super::masm::{Exits, Masm, Slot};
use dynasmrt::DynamicLabel;

/// Code of several programs, and where each begins.
pub struct Emitted {
    pub code: Vec<u8>,
    pub entries: Vec<usize>,
}

/// Emits all programs into one buffer.
pub fn emit<M: Masm>(programs: &[Verified], blind: u64) -> Result<Emitted, dynasmrt::DynasmError> {
    let mut masm = M::new(blind);
    let mut entries = Vec::with_capacity(programs.len());
    for program in programs {
        let exits = Exits {
            overflow: masm.label(),
            div_zero: masm.label(),
            nan: masm.label(),
            index: masm.label(),
            fuel: masm.label(),
            fail: masm.label(),
            helper: masm.label(),
        };
        entries.push(masm.prologue(program.regs as usize + NESTING_MAX));
        Body { masm: &mut masm, program, places: places(program), labels: Vec::new(), exits: &exits }.emit();
        // Each program has its own copy, so that conditional branches reach it.
        masm.exits(&exits);
    }
    Ok(Emitted { code: masm.finish()?, entries })
}

struct Body<'a, M> {
    masm: &'a mut M,
    program: &'a Verified,
    places: Vec<Place>,
    /// Of each operation, the label before its charge, if something jumps there.
    labels: Vec<Option<DynamicLabel>>,
    exits: &'a Exits,
}

impl<M: Masm> Body<'_, M> {
    fn emit(mut self) {
        let ops = &self.program.ops;
        self.labels = vec![None; ops.len() + 1];
        for (at, op) in ops.iter().enumerate() {
            self.bind(at);
            if self.places[at].charge > 0 {
                self.masm.charge(self.places[at].charge);
            }
            self.op(at, op);
        }
        self.bind(ops.len());
        self.masm.leave(0);
    }

    /// The label of an operation, made when first asked for. Only loop tops are asked for after they were passed; those
    /// are made when the loop is entered.
    fn label(&mut self, at: usize) -> DynamicLabel {
        match self.labels[at] {
            Some(label) => label,
            None => {
                let label = self.masm.label();
                self.labels[at] = Some(label);
                label
            }
        }
    }

    fn bind(&mut self, at: usize) {
        if let Some(label) = self.labels[at] {
            self.masm.bind(label);
        }
    }

    fn limit(&self, place: &Place) -> Slot {
        self.program.regs as Slot + place.loop_depth as Slot
    }

    fn op(&mut self, at: usize, op: &Op) {
        let target = self.places[at].target;
        match *op {
            Op::If { c } => {
                let to = self.label(target + 1);
                self.masm.jump_if_zero(c, to);
            }
            Op::Else | Op::Case { .. } | Op::Default => {
                let end = self.label(target);
                self.masm.jump(end);
            }
            Op::Break => {
                let to = self.label(target + 1);
                self.masm.jump(to);
            }
            Op::Switch { s } => {
                for (value, case) in self.places[at].cases.clone() {
                    let to = self.label(case + 1);
                    self.masm.jump_if_equal(s, value, to);
                }
                let to = self.label(target + 1);
                self.masm.jump(to);
            }
            Op::Loop { counter, bound } => {
                let exit = self.label(target + 1);
                let limit = self.limit(&self.places[at]);
                self.masm.enter_loop(counter, bound, limit, exit);
                self.label(at + 1);
            }
            Op::End => {
                if let Op::Loop { counter, .. } = self.program.ops[target] {
                    let top = self.label(target + 1);
                    let limit = self.limit(&self.places[at]);
                    self.masm.back_edge(counter, limit, top, self.exits);
                }
            }
            Op::Fail { text } => self.masm.fail(text, self.exits),
            Op::Return => self.masm.leave(0),
            _ => self.straight(op),
        }
    }

    fn straight(&mut self, op: &Op) {
        let exits = self.exits;
        let masm = &mut *self.masm;
        match *op {
            Op::Const { d, value } => masm.constant(d, value),
            Op::Mov { d, s } => masm.mov(d, s),
            Op::Arg { d, slot } => masm.arg(d, slot),
            Op::Elem { d, slot, index, width, field } => masm.elem(d, slot, index, (width, field), exits),
            Op::Count { d, slot } => masm.count(d, slot),
            Op::Result { d, index } => masm.result(d, index),
            Op::Int { op, d, a, b } => masm.int(op, d, a, b, exits),
            Op::Float { op, d, a, b } => masm.float(op, d, a, b, exits),
            Op::Bits { op, d, a, b } => masm.bits(op, d, a, b),
            Op::CmpInt { rel, d, a, b } => masm.compare_int(rel, d, a, b),
            Op::CmpFloat { rel, d, a, b } => masm.compare_float(rel, d, a, b),
            Op::Not { d, s } => masm.not(d, s),
            Op::IntToFloat { d, s } => masm.int_to_float(d, s),
            Op::Sqrt { d, s } => masm.sqrt(d, s, exits),
            Op::Select { d, c, a, b } => masm.select(d, c, a, b),
            Op::Call { d, helper, n, args } => masm.call(d, helper, &args[..n as usize], exits),
            Op::If { .. }
            | Op::Else
            | Op::Switch { .. }
            | Op::Case { .. }
            | Op::Default
            | Op::Loop { .. }
            | Op::Break
            | Op::End
            | Op::Fail { .. }
            | Op::Return => unreachable!("steering operations are emitted by `op`"),
        }
    }
}
