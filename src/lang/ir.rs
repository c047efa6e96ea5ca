//! # IR: what a program is once it has been checked
//!
//! Structured register bytecode: neither SSA nor a stack machine. One linear pass each verifies it, costs it,
//! interprets it and emits machine code. Registers are untyped 64-bit words here; the verifier recovers
//! their types from the operations and the helper table.
//!
//! Structure: `If c … [Else …] End`, `Switch s, n` + `n` × (`Case k … `) [`Default …`] `End`,
//! `Loop r, bound … End` (`bound` is read once; `r` counts 0, 1, … and only the loop writes it), `Break` leaves the
//! innermost loop, `Return` ends the call. Nesting is at most [`NESTING_MAX`].
//!
//! ## Words in registers
//! | type | word |
//! |---|---|
//! | int, time, ms | i64 |
//! | float | bits of an f64, never NaN |
//! | bool | 0 or 1 |
//! | enum, union tag | 0 = absent/first, 1, 2, … in order of declaration |
//! | bytes | a [`BytesWord`] |
//! | slot, collection, iterator, list | an index that a helper gave out |
//! | `T?` and unions | two registers: tag (0 = none), then the payload's |
//! | tuple | its fields' registers, one after the other |

pub use crate::base::words::{BytesWord, ListWord};

/// A virtual register; each has its own slot in the frame.
pub type Reg = u8;
/// Most registers of a program.
pub const REGS_MAX: usize = 255;
/// Deepest nesting of If, Switch and Loop.
pub const NESTING_MAX: usize = 8;

/// One operation. `d` is written, everything else read.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Op {
    /// d = constant (also float bits, bool, enum case, literal word)
    Const {
        d: Reg,
        value: u64,
    },
    Mov {
        d: Reg,
        s: Reg,
    },
    /// d = word `slot` of the call's argument slots (fixed part)
    Arg {
        d: Reg,
        slot: u16,
    },
    /// d = field `field` of element `index` of the list argument whose word is in slot `slot` (`width` words an element).
    /// An index outside the list traps with `Trap::Index`.
    Elem {
        d: Reg,
        slot: u16,
        index: Reg,
        width: u8,
        field: u8,
    },
    /// d = number of elements of the list argument in slot `slot`
    Count {
        d: Reg,
        slot: u16,
    },
    /// d = extra result `index` of the last helper call (value = result 0 is the call's own d)
    Result {
        d: Reg,
        index: u8,
    },
    /// Integer arithmetic; overflow traps with `Trap::Overflow`, x/0 and x%0 with `Trap::DivZero`. Division truncates; MIN % -1 is 0.
    Int {
        op: IntOp,
        d: Reg,
        a: Reg,
        b: Reg,
    },
    /// Float arithmetic; a NaN result traps with `Trap::NotANumber`. min(a, b) is a if a < b else b; max likewise.
    Float {
        op: FloatOp,
        d: Reg,
        a: Reg,
        b: Reg,
    },
    /// Bitwise; shifts take the count modulo 64 and never trap.
    Bits {
        op: BitOp,
        d: Reg,
        a: Reg,
        b: Reg,
    },
    /// d = 1 if a `rel` b else 0
    CmpInt {
        rel: Rel,
        d: Reg,
        a: Reg,
        b: Reg,
    },
    CmpFloat {
        rel: Rel,
        d: Reg,
        a: Reg,
        b: Reg,
    },
    /// d = !s (0/1)
    Not {
        d: Reg,
        s: Reg,
    },
    /// d = s as float
    IntToFloat {
        d: Reg,
        s: Reg,
    },
    /// d = the square root of float s; of a negative number it traps with `Trap::NotANumber`.
    Sqrt {
        d: Reg,
        s: Reg,
    },
    /// d = a if c != 0 else b
    Select {
        d: Reg,
        c: Reg,
        a: Reg,
        b: Reg,
    },
    /// Calls helper `helper` of the table with the first `n` of `args`; d = its value. A non-zero status ends the call.
    Call {
        d: Reg,
        helper: u16,
        n: u8,
        args: [Reg; 4],
    },
    If {
        c: Reg,
    },
    Else,
    /// Cases follow; the first word equal wins; none equal runs Default, or nothing.
    Switch {
        s: Reg,
    },
    Case {
        value: u64,
    },
    Default,
    /// Runs its body `bound` times at the most; a negative bound is 0. The bound is read before the counter is set to 0;
    /// after the last trip the counter equals the bound, after `Break` the number of the broken trip.
    Loop {
        counter: Reg,
        bound: Reg,
    },
    Break,
    /// Ends If, Switch or Loop.
    End,
    /// Ends the call with the program's error text `text`, and no effects.
    Fail {
        text: u16,
    },
    Return,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IntOp {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
    Min,
    Max,
}
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FloatOp {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
}
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BitOp {
    And,
    Or,
    Xor,
    Shl,
    Shr,
    ShrUnsigned,
}
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rel {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// Why a call ended without effects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Trap {
    Overflow = 1,
    DivZero = 2,
    NotANumber = 3,
    Index = 4,
    /// The fuel net under every loop: reaching it is a defect of the verifier.
    Fuel = 5,
    /// A helper caught a panic.
    Panic = 6,
    /// `fail` / `require`: the text is in the machine's `fail_text`.
    Fail = 7,
    /// A helper ended the call with an error of its own (WRONGTYPE, …); it has written the text to the environment.
    Error = 8,
    /// The program asked to wait (blocking commands).
    Wait = 9,
    /// A lookup met a value larger than the call may look at here.
    Large = 10,
}

impl Trap {
    /// The trap that a helper's or engine's status word names; 0 is none. A word that names nothing is a helper's
    /// defect and counts as its panic.
    pub fn from_status(status: u64) -> Option<Trap> {
        Some(match status {
            0 => return None,
            1 => Trap::Overflow,
            2 => Trap::DivZero,
            3 => Trap::NotANumber,
            4 => Trap::Index,
            5 => Trap::Fuel,
            7 => Trap::Fail,
            8 => Trap::Error,
            9 => Trap::Wait,
            10 => Trap::Large,
            _ => Trap::Panic,
        })
    }
}

impl Op {
    /// What the operation adds to `ops` when it runs. Markers are free; a loop's back-edge costs 1 a trip besides its body.
    pub fn cost(&self) -> u32 {
        match self {
            Op::Else | Op::Case { .. } | Op::Default | Op::End => 0,
            _ => 1,
        }
    }

    /// The register that the operation writes.
    pub fn written(&self) -> Option<Reg> {
        match *self {
            Op::Const { d, .. }
            | Op::Mov { d, .. }
            | Op::Arg { d, .. }
            | Op::Elem { d, .. }
            | Op::Count { d, .. }
            | Op::Result { d, .. }
            | Op::Int { d, .. }
            | Op::Float { d, .. }
            | Op::Bits { d, .. }
            | Op::CmpInt { d, .. }
            | Op::CmpFloat { d, .. }
            | Op::Not { d, .. }
            | Op::IntToFloat { d, .. }
            | Op::Sqrt { d, .. }
            | Op::Select { d, .. }
            | Op::Call { d, .. } => Some(d),
            Op::Loop { counter, .. } => Some(counter),
            _ => None,
        }
    }

    /// The registers that the operation reads, at most four.
    pub fn reads(&self) -> smallvec::SmallVec<[Reg; 4]> {
        use smallvec::smallvec;
        match *self {
            Op::Mov { s, .. }
            | Op::Not { s, .. }
            | Op::IntToFloat { s, .. }
            | Op::Sqrt { s, .. }
            | Op::Switch { s } => smallvec![s],
            Op::Elem { index, .. } => smallvec![index],
            Op::Int { a, b, .. }
            | Op::Float { a, b, .. }
            | Op::Bits { a, b, .. }
            | Op::CmpInt { a, b, .. }
            | Op::CmpFloat { a, b, .. } => smallvec![a, b],
            Op::Select { c, a, b, .. } => smallvec![c, a, b],
            Op::Call { n, args, .. } => args.iter().copied().take(n as usize).collect(),
            Op::If { c } => smallvec![c],
            Op::Loop { bound, .. } => smallvec![bound],
            _ => smallvec![],
        }
    }
}

/// A verified, costed program: one command's body. Its canonical bytes (`ir::encode`) are its identity.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Program {
    pub ops: Vec<Op>,
    /// Registers used: r0 .. r(regs-1)
    pub regs: u8,
    /// Words in the fixed part of the argument slots
    pub arg_slots: u16,
    /// Byte literals that the body names
    pub literals: Vec<Vec<u8>>,
    /// Error texts of `Fail`, and of the traps Overflow, DivZero and NotANumber (`errors` block), full RESP error lines without `-`
    pub texts: Vec<String>,
    pub on_overflow: Option<u16>,
    pub on_div_zero: Option<u16>,
    pub on_nan: Option<u16>,
    /// Source line of each op (same length as `ops`), for `LOOK.EXPLAIN` and diagnostics
    pub lines: Vec<u32>,
}
