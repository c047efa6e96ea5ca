//! # flow: what both engines must agree on about control
//!
//! Of a verified program: where each block turns and ends, which cases a switch has, which hidden slot keeps a loop's
//! bound, and what each straight-line run charges. One definition, so that `ops` cannot differ between engines.
//!
//! A run starts at the program's start, after If, Loop, a marker (Else, Case, Default, End) and a jump (Break, Return,
//! Fail); it ends after If, Switch, Loop and jumps, and before markers. It is charged whole when it is entered, also
//! when a trap ends it half-way: the static bound covers the whole path anyway.

use super::ir::Op;
use super::verify::Verified;

/// The role of one operation in the control flow.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Place {
    /// Operations of the run that starts here; 0 if none starts here. Charged before the operation.
    pub charge: u32,
    /// If: its Else or, without one, its End. Switch: its Default or End. Else, Case, Default, Loop: the block's End.
    /// Break: the End of its loop. End: the operation that opened the block.
    pub target: usize,
    /// Of Switch: its cases, in order: (value, position).
    pub cases: Vec<(u64, usize)>,
    /// Of Loop and its End: how many loops are around it; numbers the hidden slot that keeps the bound.
    pub loop_depth: usize,
}

/// The places of all operations, in order.
pub fn places(program: &Verified) -> Vec<Place> {
    let mut places = targets(program);
    charge_runs(program, &mut places);
    places
}

fn targets(program: &Verified) -> Vec<Place> {
    let ops = &program.ops;
    let mut places = vec![Place::default(); ops.len()];
    let mut open: Vec<usize> = Vec::new();
    let mut breaks: Vec<(usize, usize)> = Vec::new();
    for (at, op) in ops.iter().enumerate() {
        match op {
            Op::If { .. } | Op::Switch { .. } | Op::Loop { .. } => {
                places[at].loop_depth = open.iter().filter(|&&at| matches!(ops[at], Op::Loop { .. })).count();
                places[at].target = usize::MAX;
                open.push(at);
            }
            Op::Else => places[top(&open)].target = at,
            Op::Default => places[top(&open)].target = at,
            Op::Case { value } => places[top(&open)].cases.push((*value, at)),
            Op::Break => {
                let around = open.iter().rposition(|&at| matches!(ops[at], Op::Loop { .. }));
                breaks.push((at, open[around.expect("verified: break is inside a loop")]));
            }
            Op::End => close(ops, &mut places, &mut open, at),
            _ => {}
        }
    }
    for (at, loop_at) in breaks {
        places[at].target = places[loop_at].target;
    }
    places
}

fn top(open: &[usize]) -> usize {
    *open.last().expect("verified: markers are inside a block")
}

/// Fills in what only the End knows: the targets of the opener and of its markers.
fn close(ops: &[Op], places: &mut [Place], open: &mut Vec<usize>, end: usize) {
    let opener = top(open);
    open.pop();
    let turn = places[opener].target;
    match ops[opener] {
        Op::If { .. } | Op::Switch { .. } if turn != usize::MAX => places[turn].target = end,
        _ => places[opener].target = end,
    }
    for case in places[opener].cases.clone() {
        places[case.1].target = end;
    }
    places[end].target = opener;
    places[end].loop_depth = places[opener].loop_depth;
}

fn charge_runs(program: &Verified, places: &mut [Place]) {
    let ops = &program.ops;
    let mut start = 0;
    let mut sum = 0;
    for (at, op) in ops.iter().enumerate() {
        let marker = op.cost() == 0;
        if marker {
            places[start].charge += sum;
        } else {
            sum += op.cost();
        }
        let ends = matches!(
            op,
            Op::If { .. } | Op::Switch { .. } | Op::Loop { .. } | Op::Break | Op::Return | Op::Fail { .. }
        );
        if ends {
            places[start].charge += sum;
        }
        if marker || ends {
            sum = 0;
            start = at + 1;
        }
        if matches!(op, Op::Loop { .. }) {
            // The back-edge, paid by the trip that it ends.
            places[start].charge += 1;
        }
    }
    if start < ops.len() {
        places[start].charge += sum;
    }
}
