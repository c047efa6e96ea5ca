//! The end of lowering: drop operations that nothing reads, then one pass over the structure for the cost, its table by line, and
//! whether a call can abort after its first write.

use super::super::ir::{IntOp, Op, Program, Reg};
use super::super::poly::{Cost, Poly};
use super::{Emitted, Lower, Note};
use std::collections::BTreeMap;

/// A lowered command.
pub struct Finished {
    pub program: Program,
    pub cost: Cost,
    /// Cost by source line, loops multiplied out.
    pub by_line: Vec<LineCost>,
    /// A trap or failure may follow a write: the call needs its undo journal.
    pub may_abort_after_write: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LineCost {
    pub line: u32,
    pub ops: Poly,
    pub locs: Poly,
}

impl Lower<'_> {
    pub(super) fn finish(mut self, mut program: Program) -> Finished {
        drop_unread(&mut self.ops);
        program.regs = self.regs.clamp(1, 255) as u8;
        program.literals = self.literals;
        program.texts = self.texts;
        program.lines = self.ops.iter().map(|e| e.line).collect();
        program.ops = self.ops.iter().map(|e| e.op).collect();
        let mut walk = Walk { ops: &self.ops, at: 0, by_line: BTreeMap::new() };
        let cost = walk.block();
        let by_line = walk.by_line.into_iter().map(|(line, c)| LineCost { line, ops: c.ops, locs: c.locs }).collect();
        Finished { program, cost, by_line, may_abort_after_write: may_abort_after_write(&self.ops) }
    }
}

/// Removes operations without effect whose register nothing reads, until none is left.
fn drop_unread(ops: &mut Vec<Emitted>) {
    loop {
        let mut read = [false; 256];
        ops.iter().for_each(|e| each_read(&e.op, &mut |r| read[r as usize] = true));
        let before = ops.len();
        // what a call leaves behind is read right after it
        let kept: Vec<bool> =
            (0..ops.len()).map(|i| !matches!(ops.get(i + 1).map(|e| &e.op), Some(Op::Result { .. }))).collect();
        let mut lone = kept.into_iter();
        ops.retain(|e| {
            let lone = lone.next().unwrap_or(false);
            let gives = match (&e.op, &e.note) {
                (Op::Call { d, .. }, Note::Call { pure: true, .. }) if lone => Some(*d),
                (op, _) => pure_result(op),
            };
            gives.is_none_or(|d| read[d as usize])
        });
        if ops.len() == before {
            return;
        }
    }
}

/// The register of an operation that only makes a value.
fn pure_result(op: &Op) -> Option<Reg> {
    match *op {
        Op::Const { d, .. }
        | Op::Mov { d, .. }
        | Op::Arg { d, .. }
        | Op::Elem { d, .. }
        | Op::Count { d, .. }
        | Op::Result { d, .. }
        | Op::Bits { d, .. }
        | Op::CmpInt { d, .. }
        | Op::CmpFloat { d, .. }
        | Op::Not { d, .. }
        | Op::IntToFloat { d, .. }
        | Op::Select { d, .. } => Some(d),
        _ => None,
    }
}

fn each_read(op: &Op, f: &mut impl FnMut(Reg)) {
    match *op {
        Op::Mov { s, .. } | Op::Not { s, .. } | Op::IntToFloat { s, .. } | Op::Sqrt { s, .. } | Op::Switch { s } => {
            f(s)
        }
        Op::Elem { index, .. } => f(index),
        Op::Int { a, b, .. }
        | Op::Float { a, b, .. }
        | Op::Bits { a, b, .. }
        | Op::CmpInt { a, b, .. }
        | Op::CmpFloat { a, b, .. } => {
            f(a);
            f(b);
        }
        Op::Select { c, a, b, .. } => {
            f(c);
            f(a);
            f(b);
        }
        Op::Call { n, args, .. } => args[..n as usize].iter().for_each(|r| f(*r)),
        Op::If { c } => f(c),
        Op::Loop { counter, bound } => {
            f(counter);
            f(bound);
        }
        _ => {}
    }
}

/// What one operation costs by itself; markers are free.
fn own_cost(op: &Op) -> u64 {
    !matches!(op, Op::Else | Op::Case { .. } | Op::Default | Op::End) as u64
}

struct Walk<'a> {
    ops: &'a [Emitted],
    at: usize,
    by_line: BTreeMap<u32, Cost>,
}

impl Walk<'_> {
    /// Up to the marker that ends the block, which stays.
    fn block(&mut self) -> Cost {
        let mut sum = Cost::default();
        while let Some(e) = self.ops.get(self.at) {
            if matches!(e.op, Op::Else | Op::Case { .. } | Op::Default | Op::End) {
                return sum;
            }
            self.at += 1;
            let mut cost = Cost { ops: Poly::constant(own_cost(&e.op)), locs: Poly::default() };
            if let Note::Call { ops, locs, .. } = &e.note {
                cost.ops.add(ops);
                cost.locs.add(locs);
            }
            let line = self.by_line.entry(e.line).or_default();
            line.ops.add(&cost.ops);
            line.locs.add(&cost.locs);
            match &e.op {
                Op::If { .. } | Op::Switch { .. } => {
                    let widest = self.branches();
                    cost.ops.add(&widest.ops);
                    cost.locs.add(&widest.locs);
                }
                Op::Loop { .. } => {
                    let all = self.repeated(e);
                    cost.ops.add(&all.ops);
                    cost.locs.add(&all.locs);
                }
                _ => {}
            }
            sum.ops.add(&cost.ops);
            sum.locs.add(&cost.locs);
        }
        sum
    }

    fn branches(&mut self) -> Cost {
        let mut widest = Cost::default();
        loop {
            match self.ops.get(self.at).map(|e| &e.op) {
                None => return widest,
                Some(Op::End) => {
                    self.at += 1;
                    return widest;
                }
                Some(Op::Else | Op::Case { .. } | Op::Default) => self.at += 1,
                Some(_) => {
                    let one = self.block();
                    widest.ops = widest.ops.max(&one.ops);
                    widest.locs = widest.locs.max(&one.locs);
                }
            }
        }
    }

    fn repeated(&mut self, e: &Emitted) -> Cost {
        let outer = std::mem::take(&mut self.by_line);
        let mut turn = self.block();
        self.at += 1;
        turn.ops.add(&Poly::constant(1));
        let inner = std::mem::replace(&mut self.by_line, outer);
        let Note::Loop { trips, number, wholes } = &e.note else { return turn };
        let whole = |kind: u8| wholes.iter().find(|w| w.0 == kind).map_or_else(|| trips.clone(), |w| w.1.clone());
        let times = |p: &Poly| p.repeated(trips, *number, &whole);
        for (line, c) in inner {
            let entry = self.by_line.entry(line).or_default();
            entry.ops.add(&times(&c.ops));
            entry.locs.add(&times(&c.locs));
        }
        self.by_line.entry(e.line).or_default().ops.add(trips);
        Cost { ops: times(&turn.ops), locs: times(&turn.locs) }
    }
}

/// Can anything end the call after something was written? Loops are walked twice: a write in one turn precedes a trap in the next.
fn may_abort_after_write(ops: &[Emitted]) -> bool {
    abort_walk(ops, &mut 0, &mut false)
}

/// `written` at the block's start goes in, at its end comes out.
fn abort_walk(ops: &[Emitted], at: &mut usize, written: &mut bool) -> bool {
    let mut aborts = false;
    while let Some(e) = ops.get(*at) {
        match &e.op {
            Op::Else | Op::Case { .. } | Op::Default | Op::End => return aborts,
            Op::If { .. } | Op::Switch { .. } => {
                *at += 1;
                let before = *written;
                while !matches!(ops.get(*at).map(|e| &e.op), None | Some(Op::End)) {
                    if matches!(ops[*at].op, Op::Else | Op::Case { .. } | Op::Default) {
                        *at += 1;
                    }
                    let mut here = before;
                    aborts |= abort_walk(ops, at, &mut here);
                    *written |= here;
                }
            }
            Op::Loop { .. } => {
                let start = *at + 1;
                for _ in 0..2 {
                    *at = start;
                    aborts |= abort_walk(ops, at, written);
                }
            }
            op => {
                let traps = match op {
                    _ if matches!(e.note, Note::Counts) => false,
                    Op::Int { op, .. } => !matches!(op, IntOp::Min | IntOp::Max),
                    Op::Float { .. } | Op::Sqrt { .. } | Op::Fail { .. } => true,
                    _ => false,
                };
                // an element at a loop's own counter is always there; one at a computed index is noted
                let (writes, fails) = match e.note {
                    Note::MayTrap => (false, true),
                    Note::Call { writes, fails, .. } => (writes, fails),
                    _ => (false, false),
                };
                aborts |= *written && (traps || fails);
                *written |= writes;
            }
        }
        *at += 1;
    }
    aborts
}
