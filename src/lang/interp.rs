//! # interp: the reference engine
//!
//! Says what a program means; machine code must agree with it on every helper call, trap, `ops`, `locs` and `fuel`. It
//! also serves: where executable memory is forbidden, and on one node of each test cluster.
//!
//! A program is prepared once: blocks become jumps to instruction numbers, an instruction is 16 bytes, and the frame is
//! the smallest power of two that holds the registers, so that masking a register number needs no bounds check.

use super::flow::{Place, places};
use super::ir::{BitOp, FloatOp, IntOp, ListWord, NESTING_MAX, Op, Reg, Rel, Trap};
use super::machine::{Head, RESULTS_MAX};
use super::verify::Verified;

/// A number in the frame: a register, or a hidden slot after the registers that keeps a loop's bound.
type Place16 = u16;

/// One instruction. Targets are instruction numbers; `charge` is what the run at the target costs.
#[derive(Clone, Copy, Debug)]
enum Insn {
    Const {
        d: Place16,
        value: u64,
    },
    Mov {
        d: Place16,
        s: Place16,
    },
    Arg {
        d: Place16,
        slot: u16,
    },
    Elem {
        d: Place16,
        slot: u16,
        index: Place16,
        width: u8,
        field: u8,
    },
    Count {
        d: Place16,
        slot: u16,
    },
    Result {
        d: Place16,
        index: u8,
    },
    Int {
        op: IntOp,
        d: Place16,
        a: Place16,
        b: Place16,
    },
    Float {
        op: FloatOp,
        d: Place16,
        a: Place16,
        b: Place16,
    },
    Bits {
        op: BitOp,
        d: Place16,
        a: Place16,
        b: Place16,
    },
    CmpInt {
        rel: Rel,
        d: Place16,
        a: Place16,
        b: Place16,
    },
    CmpFloat {
        rel: Rel,
        d: Place16,
        a: Place16,
        b: Place16,
    },
    Not {
        d: Place16,
        s: Place16,
    },
    IntToFloat {
        d: Place16,
        s: Place16,
    },
    Sqrt {
        d: Place16,
        s: Place16,
    },
    Select {
        d: Place16,
        c: Place16,
        a: Place16,
        b: Place16,
    },
    /// Calls with fewer than four words come in with zeros for the rest (`n` tells).
    Call {
        d: Place16,
        helper: u16,
        n: u8,
        args: [Reg; 4],
    },
    Charge {
        ops: u32,
    },
    Jump {
        to: u32,
    },
    /// Goes on and charges `charge` if `c`, else jumps.
    If {
        c: Place16,
        to: u32,
        charge: u32,
    },
    /// Jumps if `s` equals the value.
    Case {
        s: Place16,
        to: u32,
        value: u64,
    },
    Loop {
        counter: Place16,
        bound: Place16,
        limit: Place16,
        exit: u32,
        charge: u32,
    },
    Back {
        counter: Place16,
        limit: Place16,
        top: u32,
        charge: u32,
    },
    Fail {
        text: u16,
    },
    Return,
}

const _: () = assert!(size_of::<Insn>() == 16);

/// A program in the form that [`run`] walks.
#[derive(Debug)]
pub struct Prepared {
    insns: Vec<Insn>,
    /// Registers and hidden slots.
    frame: usize,
}

impl Prepared {
    pub fn new(program: &Verified) -> Prepared {
        let frame = program.regs as usize + NESTING_MAX;
        let mut flat = Flat { regs: program.regs, insns: Vec::new(), starts: Vec::new() };
        let places = places(program);
        for (at, (op, place)) in program.ops.iter().zip(&places).enumerate() {
            flat.push(&program.ops, &places, at, op, place);
        }
        flat.starts.push(flat.insns.len() as u32);
        flat.insns.push(Insn::Return);
        flat.resolve();
        Prepared { insns: flat.insns, frame }
    }
}

/// Flattening in progress. Until [`Flat::resolve`], targets are numbers of operations.
struct Flat {
    regs: u8,
    insns: Vec<Insn>,
    /// Where each operation's instructions begin.
    starts: Vec<u32>,
}

impl Flat {
    fn limit(&self, place: &Place) -> Place16 {
        self.regs as u16 + place.loop_depth as u16
    }

    fn push(&mut self, ops: &[Op], places: &[Place], at: usize, op: &Op, place: &Place) {
        // Runs after If and Loop are charged by those themselves.
        let paid = at > 0 && matches!(ops[at - 1], Op::If { .. } | Op::Loop { .. });
        self.starts.push(self.insns.len() as u32);
        if place.charge > 0 && !paid {
            self.insns.push(Insn::Charge { ops: place.charge });
        }
        let next_charge = places.get(at + 1).map_or(0, |next| next.charge);
        let target = place.target as u32;
        match *op {
            Op::If { c } => self.insns.push(Insn::If { c: c.into(), to: target + 1, charge: next_charge }),
            Op::Else | Op::Case { .. } | Op::Default => self.insns.push(Insn::Jump { to: target }),
            Op::Break => self.insns.push(Insn::Jump { to: target + 1 }),
            Op::Switch { s } => {
                for &(value, case) in &place.cases {
                    self.insns.push(Insn::Case { s: s.into(), to: case as u32 + 1, value });
                }
                self.insns.push(Insn::Jump { to: target + 1 });
            }
            Op::Loop { counter, bound } => self.insns.push(Insn::Loop {
                counter: counter.into(),
                bound: bound.into(),
                limit: self.limit(place),
                exit: target + 1,
                charge: next_charge,
            }),
            Op::End => self.push_end(ops, places, place),
            _ => self.insns.push(straight(op)),
        }
    }

    fn push_end(&mut self, ops: &[Op], places: &[Place], place: &Place) {
        if let Op::Loop { counter, .. } = ops[place.target] {
            let top = place.target as u32 + 1;
            self.insns.push(Insn::Back {
                counter: counter.into(),
                limit: self.limit(place),
                top,
                charge: places[top as usize].charge,
            });
        }
    }

    fn resolve(&mut self) {
        for insn in &mut self.insns {
            match insn {
                Insn::Jump { to }
                | Insn::If { to, .. }
                | Insn::Case { to, .. }
                | Insn::Loop { exit: to, .. }
                | Insn::Back { top: to, .. } => *to = self.starts[*to as usize],
                _ => {}
            }
        }
    }
}

/// The instruction of an operation that does not steer.
fn straight(op: &Op) -> Insn {
    let w = |r: Reg| r as Place16;
    match *op {
        Op::Const { d, value } => Insn::Const { d: w(d), value },
        Op::Mov { d, s } => Insn::Mov { d: w(d), s: w(s) },
        Op::Arg { d, slot } => Insn::Arg { d: w(d), slot },
        Op::Elem { d, slot, index, width, field } => Insn::Elem { d: w(d), slot, index: w(index), width, field },
        Op::Count { d, slot } => Insn::Count { d: w(d), slot },
        Op::Result { d, index } => Insn::Result { d: w(d), index },
        Op::Int { op, d, a, b } => Insn::Int { op, d: w(d), a: w(a), b: w(b) },
        Op::Float { op, d, a, b } => Insn::Float { op, d: w(d), a: w(a), b: w(b) },
        Op::Bits { op, d, a, b } => Insn::Bits { op, d: w(d), a: w(a), b: w(b) },
        Op::CmpInt { rel, d, a, b } => Insn::CmpInt { rel, d: w(d), a: w(a), b: w(b) },
        Op::CmpFloat { rel, d, a, b } => Insn::CmpFloat { rel, d: w(d), a: w(a), b: w(b) },
        Op::Not { d, s } => Insn::Not { d: w(d), s: w(s) },
        Op::IntToFloat { d, s } => Insn::IntToFloat { d: w(d), s: w(s) },
        Op::Sqrt { d, s } => Insn::Sqrt { d: w(d), s: w(s) },
        Op::Select { d, c, a, b } => Insn::Select { d: w(d), c: w(c), a: w(a), b: w(b) },
        Op::Call { d, helper, n, args } => Insn::Call { d: w(d), helper, n, args },
        Op::Fail { text } => Insn::Fail { text },
        Op::Return => Insn::Return,
        Op::If { .. }
        | Op::Else
        | Op::Switch { .. }
        | Op::Case { .. }
        | Op::Default
        | Op::Loop { .. }
        | Op::Break
        | Op::End => unreachable!("steering operations are flattened by their block"),
    }
}

/// Runs a program to its end or trap; the status word is 0 or a [`Trap`]'s (or what a helper gave back).
///
/// # Safety
/// `head` is valid and uniquely borrowed for the call, its `args` holds `args_len` words and at least the program's
/// `arg_slots`, its `helpers` is the table that the program was verified against, made for this environment.
pub unsafe fn run(program: &Prepared, head: *mut Head) -> u64 {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        match program.frame {
            0..=32 => walk::<32>(&program.insns, head),
            33..=64 => walk::<64>(&program.insns, head),
            65..=128 => walk::<128>(&program.insns, head),
            _ => walk::<512>(&program.insns, head),
        }
    }
}

/// # Safety
/// As [`run`]; `N` is a power of two and at least the program's frame.
unsafe fn walk<const N: usize>(insns: &[Insn], head: *mut Head) -> u64 {
    let mut frame = [0u64; N];
    macro_rules! r {
        ($place:expr) => {
            frame[$place as usize & (N - 1)]
        };
    }
    // SAFETY: `head` is valid by the caller's promise; helpers receive it as the same pointer, never a reference.
    let (args, args_len, helpers) = unsafe { ((*head).args, (*head).args_len, (*head).helpers) };
    let mut pc = 0usize;
    loop {
        let insn = &insns[pc];
        pc += 1;
        match *insn {
            Insn::Const { d, value } => r!(d) = value,
            Insn::Mov { d, s } => r!(d) = r!(s),
            // SAFETY: the verifier checked slot < arg_slots, the caller promised arg_slots <= args_len.
            Insn::Arg { d, slot } => r!(d) = unsafe { *args.add(slot as usize) },
            Insn::Elem { d, slot, index, width, field } => {
                // SAFETY: as Arg.
                let list = ListWord(unsafe { *args.add(slot as usize) });
                let word =
                    list.first_word() as u64 + (r!(index) & u32::MAX as u64).wrapping_mul(width as u64) + field as u64;
                if r!(index) >= list.count() as u64 || word >= args_len {
                    return Trap::Index as u64;
                }
                // SAFETY: word < args_len was just checked.
                r!(d) = unsafe { *args.add(word as usize) };
            }
            Insn::Count { d, slot } => {
                // SAFETY: as Arg.
                r!(d) = ListWord(unsafe { *args.add(slot as usize) }).count() as u64;
            }
            // SAFETY: `head` is valid; the index is masked to the array.
            Insn::Result { d, index } => r!(d) = unsafe { (*head).results[index as usize % RESULTS_MAX] },
            Insn::Int { op, d, a, b } => match int(op, r!(a) as i64, r!(b) as i64) {
                Ok(value) => r!(d) = value as u64,
                Err(trap) => return trap as u64,
            },
            Insn::Float { op, d, a, b } => {
                let value = float(op, f64::from_bits(r!(a)), f64::from_bits(r!(b)));
                if value.is_nan() {
                    return Trap::NotANumber as u64;
                }
                r!(d) = value.to_bits();
            }
            Insn::Bits { op, d, a, b } => r!(d) = bits(op, r!(a), r!(b)),
            Insn::CmpInt { rel, d, a, b } => r!(d) = compare(rel, &(r!(a) as i64), &(r!(b) as i64)) as u64,
            Insn::CmpFloat { rel, d, a, b } => {
                r!(d) = compare(rel, &f64::from_bits(r!(a)), &f64::from_bits(r!(b))) as u64
            }
            Insn::Not { d, s } => r!(d) = (r!(s) == 0) as u64,
            Insn::IntToFloat { d, s } => r!(d) = (r!(s) as i64 as f64).to_bits(),
            Insn::Sqrt { d, s } => {
                let value = f64::from_bits(r!(s)).sqrt();
                if value.is_nan() {
                    return Trap::NotANumber as u64;
                }
                r!(d) = value.to_bits();
            }
            Insn::Select { d, c, a, b } => r!(d) = if r!(c) != 0 { r!(a) } else { r!(b) },
            Insn::Call { d, helper, n, args: [a, b, c, e] } => {
                let word = |at: u8, r: Reg| if at < n { frame[r as usize & (N - 1)] } else { 0 };
                let words = [word(0, a), word(1, b), word(2, c), word(3, e)];
                // SAFETY: the verifier checked the number against the table that `helpers` points to, and `head` is the
                // head of the environment that the table was made for, both by the caller's promise.
                let outcome = unsafe { (*helpers.add(helper as usize))(head, words[0], words[1], words[2], words[3]) };
                if outcome.status != 0 {
                    return outcome.status;
                }
                r!(d) = outcome.value;
            }
            // SAFETY: `head` is valid.
            Insn::Charge { ops } => unsafe { charge(head, ops) },
            Insn::Jump { to } => pc = to as usize,
            Insn::If { c, to, charge: ops } => {
                if r!(c) == 0 {
                    pc = to as usize;
                } else {
                    // SAFETY: `head` is valid.
                    unsafe { charge(head, ops) }
                }
            }
            Insn::Case { s, to, value } => {
                if r!(s) == value {
                    pc = to as usize;
                }
            }
            Insn::Loop { counter, bound, limit, exit, charge: ops } => {
                let trips = (r!(bound) as i64).max(0);
                r!(limit) = trips as u64;
                r!(counter) = 0;
                if trips == 0 {
                    pc = exit as usize;
                } else {
                    // SAFETY: `head` is valid.
                    unsafe { charge(head, ops) }
                }
            }
            Insn::Back { counter, limit, top, charge: ops } => {
                // Cannot wrap: the counter is below an i64.
                let next = r!(counter) + 1;
                r!(counter) = next;
                if next < r!(limit) {
                    // SAFETY: `head` is valid.
                    unsafe {
                        if (*head).fuel == 0 {
                            return Trap::Fuel as u64;
                        }
                        (*head).fuel -= 1;
                        charge(head, ops);
                    }
                    pc = top as usize;
                }
            }
            Insn::Fail { text } => {
                // SAFETY: `head` is valid.
                unsafe { (*head).fail_text = text as u64 };
                return Trap::Fail as u64;
            }
            Insn::Return => return 0,
        }
    }
}

/// # Safety
/// `head` is valid.
#[inline(always)]
unsafe fn charge(head: *mut Head, ops: u32) {
    // SAFETY: the caller's promise. Wrapping: machine code adds without a check, and 2^64 is out of reach.
    unsafe { (*head).ops = (*head).ops.wrapping_add(ops as u64) }
}

#[inline(always)]
fn int(op: IntOp, a: i64, b: i64) -> Result<i64, Trap> {
    match op {
        IntOp::Add => a.checked_add(b).ok_or(Trap::Overflow),
        IntOp::Sub => a.checked_sub(b).ok_or(Trap::Overflow),
        IntOp::Mul => a.checked_mul(b).ok_or(Trap::Overflow),
        IntOp::Div if b == 0 => Err(Trap::DivZero),
        IntOp::Rem if b == 0 => Err(Trap::DivZero),
        IntOp::Div => a.checked_div(b).ok_or(Trap::Overflow),
        IntOp::Rem => Ok(a.wrapping_rem(b)),
        IntOp::Min => Ok(a.min(b)),
        IntOp::Max => Ok(a.max(b)),
    }
}

#[inline(always)]
fn float(op: FloatOp, a: f64, b: f64) -> f64 {
    match op {
        FloatOp::Add => a + b,
        FloatOp::Sub => a - b,
        FloatOp::Mul => a * b,
        FloatOp::Div => a / b,
        FloatOp::Min => {
            if a < b {
                a
            } else {
                b
            }
        }
        FloatOp::Max => {
            if a > b {
                a
            } else {
                b
            }
        }
    }
}

#[inline(always)]
fn bits(op: BitOp, a: u64, b: u64) -> u64 {
    match op {
        BitOp::And => a & b,
        BitOp::Or => a | b,
        BitOp::Xor => a ^ b,
        BitOp::Shl => a.wrapping_shl(b as u32),
        BitOp::Shr => (a as i64).wrapping_shr(b as u32) as u64,
        BitOp::ShrUnsigned => a.wrapping_shr(b as u32),
    }
}

#[inline(always)]
fn compare<T: PartialOrd>(rel: Rel, a: &T, b: &T) -> bool {
    match rel {
        Rel::Eq => a == b,
        Rel::Ne => a != b,
        Rel::Lt => a < b,
        Rel::Le => a <= b,
        Rel::Gt => a > b,
        Rel::Ge => a >= b,
    }
}
