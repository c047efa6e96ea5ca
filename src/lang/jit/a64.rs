//! # a64: the emitter for aarch64, AAPCS64 convention
//!
//! ```text
//! x19  head            [sp + 8 * slot]  frame
//! x20  helper table    x0 .. x15 d0 d1  scratch within one operation
//! x21  argument words  x29  frame pointer, so that profilers can walk the stack
//! ```

// dynasm converts register numbers whatever their type.
#![allow(clippy::useless_conversion)]

use super::super::ir::{BitOp, FloatOp, IntOp, Reg, Rel, Trap};
use super::super::machine::Head;
use super::masm::{Exits, Masm, Slot, hidden};
use dynasmrt::aarch64::Aarch64Relocation;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmError, DynasmLabelApi, VecAssembler, dynasm};
use std::mem::offset_of;

const ARGS: u32 = offset_of!(Head, args) as u32;
const ARGS_LEN: u32 = offset_of!(Head, args_len) as u32;
const OPS: u32 = offset_of!(Head, ops) as u32;
const FUEL: u32 = offset_of!(Head, fuel) as u32;
const FAIL_TEXT: u32 = offset_of!(Head, fail_text) as u32;
const RESULTS: u32 = offset_of!(Head, results) as u32;
const HELPERS: u32 = offset_of!(Head, helpers) as u32;

/// What a load with an unsigned immediate reaches, in words.
const REACH: u32 = 4095;

pub struct A64 {
    asm: VecAssembler<Aarch64Relocation>,
    blind: u64,
}

macro_rules! asm {
    ($self:ident $($t:tt)*) => {
        dynasm!($self.asm ; .arch aarch64 $($t)*)
    };
}

/// Where a slot is, from sp.
fn at(slot: impl Into<Slot>) -> u32 {
    slot.into() as u32 * 8
}

impl A64 {
    /// x(n) = value, in as many moves as it needs.
    fn load_plain(&mut self, n: u8, value: u64) {
        asm!(self ; movz X(n), (value & 0xffff) as u32);
        if value >> 16 & 0xffff != 0 {
            asm!(self ; movk X(n), (value >> 16 & 0xffff) as u32, lsl #16);
        }
        if value >> 32 & 0xffff != 0 {
            asm!(self ; movk X(n), (value >> 32 & 0xffff) as u32, lsl #32);
        }
        if value >> 48 != 0 {
            asm!(self ; movk X(n), (value >> 48) as u32, lsl #48);
        }
    }

    /// x0 = value; clobbers x1 if the value must be hidden.
    fn load_x0(&mut self, value: u64) {
        if hidden(value) {
            self.load_plain(0, value ^ self.blind);
            self.load_plain(1, self.blind);
            asm!(self ; eor x0, x0, x1);
        } else {
            self.load_plain(0, value);
        }
    }

    /// x(n) = word `index` of the table that x(base) points to.
    fn load_word(&mut self, n: u8, base: u8, index: u16) {
        if index as u32 <= REACH {
            asm!(self ; ldr X(n), [X(base), at(index)]);
        } else {
            self.load_plain(15, index as u64);
            asm!(self ; ldr X(n), [X(base), x15, lsl #3]);
        }
    }

    fn load_pair(&mut self, a: Reg, b: Reg) {
        asm!(self ; ldr x0, [sp, at(a)] ; ldr x1, [sp, at(b)]);
    }

    fn put_x0(&mut self, d: Reg) {
        asm!(self ; str x0, [sp, at(d)]);
    }

    fn epilogue(&mut self) {
        asm!(self
            ; sub sp, x29, #32
            ; ldp x19, x20, [sp]
            ; ldr x21, [sp, #16]
            ; add sp, sp, #32
            ; ldp x29, x30, [sp], #16
            ; ret);
    }

    fn divide(&mut self, op: IntOp, exits: &Exits) {
        asm!(self ; cbz x1, =>exits.div_zero);
        match op {
            IntOp::Div => {
                // sdiv wraps MIN / -1 to MIN: the one quotient of a negative by -1 that stays negative.
                let fine = self.label();
                asm!(self
                    ; cmn x1, #1
                    ; b.ne =>fine
                    ; negs x2, x0
                    ; b.vs =>exits.overflow
                    ; =>fine
                    ; sdiv x0, x0, x1);
            }
            _ => asm!(self ; sdiv x2, x0, x1 ; msub x0, x2, x1, x0),
        }
    }
}

impl Masm for A64 {
    fn new(blind: u64) -> Self {
        A64 { asm: VecAssembler::new(0), blind }
    }

    fn offset(&self) -> usize {
        self.asm.offset().0
    }

    fn label(&mut self) -> DynamicLabel {
        self.asm.new_dynamic_label()
    }

    fn bind(&mut self, label: DynamicLabel) {
        asm!(self ; =>label);
    }

    fn jump(&mut self, to: DynamicLabel) {
        asm!(self ; b =>to);
    }

    fn prologue(&mut self, slots: usize) -> usize {
        while !self.offset().is_multiple_of(16) {
            asm!(self ; nop);
        }
        let entry = self.offset();
        let frame = (slots * 8).next_multiple_of(16) as u32;
        asm!(self
            ; stp x29, x30, [sp, #-16]!
            ; mov x29, sp
            ; sub sp, sp, #32
            ; stp x19, x20, [sp]
            ; str x21, [sp, #16]
            ; sub sp, sp, frame
            ; mov x19, x0
            ; ldr x20, [x0, HELPERS]
            ; ldr x21, [x0, ARGS]);
        entry
    }

    fn leave(&mut self, status: u64) {
        self.load_plain(0, status);
        self.epilogue();
    }

    fn exits(&mut self, exits: &Exits) {
        let out = self.label();
        let traps = [
            (exits.overflow, Trap::Overflow),
            (exits.div_zero, Trap::DivZero),
            (exits.nan, Trap::NotANumber),
            (exits.index, Trap::Index),
            (exits.fuel, Trap::Fuel),
            (exits.fail, Trap::Fail),
        ];
        for (label, trap) in traps {
            asm!(self ; =>label ; movz x1, trap as u64 as u32 ; b =>out);
        }
        asm!(self ; =>exits.helper ; =>out ; mov x0, x1);
        self.epilogue();
    }

    fn charge(&mut self, ops: u32) {
        asm!(self ; ldr x0, [x19, OPS]);
        if ops < 4096 {
            asm!(self ; add x0, x0, ops);
        } else {
            self.load_plain(1, ops as u64);
            asm!(self ; add x0, x0, x1);
        }
        asm!(self ; str x0, [x19, OPS]);
    }

    fn constant(&mut self, d: Reg, value: u64) {
        if value == 0 {
            asm!(self ; str xzr, [sp, at(d)]);
        } else {
            self.load_x0(value);
            self.put_x0(d);
        }
    }

    fn mov(&mut self, d: Reg, s: Reg) {
        asm!(self ; ldr x0, [sp, at(s)]);
        self.put_x0(d);
    }

    fn arg(&mut self, d: Reg, slot: u16) {
        self.load_word(0, 21, slot);
        self.put_x0(d);
    }

    fn elem(&mut self, d: Reg, slot: u16, index: Reg, (width, field): (u8, u8), exits: &Exits) {
        self.load_word(0, 21, slot);
        asm!(self
            ; mov w1, w0
            ; ldr x2, [sp, at(index)]
            ; cmp x2, x1
            ; b.hs =>exits.index
            ; lsr x0, x0, #32
            ; movz x3, width as u32
            ; madd x0, x2, x3, x0
            ; add x0, x0, field as u32
            ; ldr x1, [x19, ARGS_LEN]
            ; cmp x0, x1
            ; b.hs =>exits.index
            ; ldr x0, [x21, x0, lsl #3]);
        self.put_x0(d);
    }

    fn count(&mut self, d: Reg, slot: u16) {
        self.load_word(0, 21, slot);
        asm!(self ; mov w0, w0);
        self.put_x0(d);
    }

    fn result(&mut self, d: Reg, index: u8) {
        asm!(self ; ldr x0, [x19, RESULTS + at(index)]);
        self.put_x0(d);
    }

    fn int(&mut self, op: IntOp, d: Reg, a: Reg, b: Reg, exits: &Exits) {
        self.load_pair(a, b);
        match op {
            IntOp::Add => asm!(self ; adds x0, x0, x1 ; b.vs =>exits.overflow),
            IntOp::Sub => asm!(self ; subs x0, x0, x1 ; b.vs =>exits.overflow),
            // The product fits if its high word is the sign of its low word.
            IntOp::Mul => asm!(self
                ; smulh x2, x0, x1
                ; mul x0, x0, x1
                ; cmp x2, x0, asr #63
                ; b.ne =>exits.overflow),
            IntOp::Min => asm!(self ; cmp x0, x1 ; csel x0, x0, x1, lt),
            IntOp::Max => asm!(self ; cmp x0, x1 ; csel x0, x0, x1, gt),
            IntOp::Div | IntOp::Rem => self.divide(op, exits),
        }
        self.put_x0(d);
    }

    fn float(&mut self, op: FloatOp, d: Reg, a: Reg, b: Reg, exits: &Exits) {
        asm!(self ; ldr d0, [sp, at(a)] ; ldr d1, [sp, at(b)]);
        // "mi" after fcmp is less and ordered, "gt" greater and ordered.
        match op {
            FloatOp::Add => asm!(self ; fadd d0, d0, d1),
            FloatOp::Sub => asm!(self ; fsub d0, d0, d1),
            FloatOp::Mul => asm!(self ; fmul d0, d0, d1),
            FloatOp::Div => asm!(self ; fdiv d0, d0, d1),
            FloatOp::Min => asm!(self ; fcmp d0, d1 ; fcsel d0, d0, d1, mi),
            FloatOp::Max => asm!(self ; fcmp d0, d1 ; fcsel d0, d0, d1, gt),
        }
        asm!(self
            ; fcmp d0, d0
            ; b.vs =>exits.nan
            ; str d0, [sp, at(d)]);
    }

    fn bits(&mut self, op: BitOp, d: Reg, a: Reg, b: Reg) {
        self.load_pair(a, b);
        match op {
            BitOp::And => asm!(self ; and x0, x0, x1),
            BitOp::Or => asm!(self ; orr x0, x0, x1),
            BitOp::Xor => asm!(self ; eor x0, x0, x1),
            BitOp::Shl => asm!(self ; lsl x0, x0, x1),
            BitOp::Shr => asm!(self ; asr x0, x0, x1),
            BitOp::ShrUnsigned => asm!(self ; lsr x0, x0, x1),
        }
        self.put_x0(d);
    }

    fn compare_int(&mut self, rel: Rel, d: Reg, a: Reg, b: Reg) {
        self.load_pair(a, b);
        asm!(self ; cmp x0, x1);
        match rel {
            Rel::Eq => asm!(self ; cset x0, eq),
            Rel::Ne => asm!(self ; cset x0, ne),
            Rel::Lt => asm!(self ; cset x0, lt),
            Rel::Le => asm!(self ; cset x0, le),
            Rel::Gt => asm!(self ; cset x0, gt),
            Rel::Ge => asm!(self ; cset x0, ge),
        }
        self.put_x0(d);
    }

    fn compare_float(&mut self, rel: Rel, d: Reg, a: Reg, b: Reg) {
        asm!(self ; ldr d0, [sp, at(a)] ; ldr d1, [sp, at(b)] ; fcmp d0, d1);
        match rel {
            Rel::Eq => asm!(self ; cset x0, eq),
            Rel::Ne => asm!(self ; cset x0, ne),
            Rel::Lt => asm!(self ; cset x0, mi),
            Rel::Le => asm!(self ; cset x0, ls),
            Rel::Gt => asm!(self ; cset x0, gt),
            Rel::Ge => asm!(self ; cset x0, ge),
        }
        self.put_x0(d);
    }

    fn not(&mut self, d: Reg, s: Reg) {
        asm!(self ; ldr x0, [sp, at(s)] ; cmp x0, #0 ; cset x0, eq);
        self.put_x0(d);
    }

    fn int_to_float(&mut self, d: Reg, s: Reg) {
        asm!(self ; ldr x0, [sp, at(s)] ; scvtf d0, x0 ; str d0, [sp, at(d)]);
    }

    fn sqrt(&mut self, d: Reg, s: Reg, exits: &Exits) {
        asm!(self
            ; ldr d0, [sp, at(s)]
            ; fsqrt d0, d0
            ; fcmp d0, d0
            ; b.vs =>exits.nan
            ; str d0, [sp, at(d)]);
    }

    fn select(&mut self, d: Reg, c: Reg, a: Reg, b: Reg) {
        self.load_pair(a, b);
        asm!(self ; ldr x2, [sp, at(c)] ; cmp x2, #0 ; csel x0, x0, x1, ne);
        self.put_x0(d);
    }

    fn call(&mut self, d: Reg, helper: u16, args: &[Reg], exits: &Exits) {
        asm!(self ; mov x0, x19);
        for n in 0..4u8 {
            match args.get(n as usize) {
                Some(&r) => asm!(self ; ldr X(n + 1), [sp, at(r)]),
                None => asm!(self ; mov X(n + 1), xzr),
            }
        }
        self.load_word(16, 20, helper);
        asm!(self ; blr x16 ; cbnz x1, =>exits.helper);
        self.put_x0(d);
    }

    fn jump_if_zero(&mut self, c: Reg, to: DynamicLabel) {
        asm!(self ; ldr x0, [sp, at(c)] ; cbz x0, =>to);
    }

    fn jump_if_equal(&mut self, s: Reg, value: u64, to: DynamicLabel) {
        self.load_x0(value);
        asm!(self ; ldr x1, [sp, at(s)] ; cmp x0, x1 ; b.eq =>to);
    }

    fn enter_loop(&mut self, counter: Reg, bound: Reg, limit: Slot, exit: DynamicLabel) {
        // The limit is written only when positive: without a trip nobody reads it.
        asm!(self
            ; ldr x0, [sp, at(bound)]
            ; str xzr, [sp, at(counter)]
            ; cmp x0, #0
            ; b.le =>exit
            ; str x0, [sp, at(limit)]);
    }

    fn back_edge(&mut self, counter: Reg, limit: Slot, top: DynamicLabel, exits: &Exits) {
        let done = self.label();
        asm!(self
            ; ldr x0, [sp, at(counter)]
            ; add x0, x0, #1
            ; str x0, [sp, at(counter)]
            ; ldr x1, [sp, at(limit)]
            ; cmp x0, x1
            ; b.ge =>done
            ; ldr x0, [x19, FUEL]
            ; cbz x0, =>exits.fuel
            ; sub x0, x0, #1
            ; str x0, [x19, FUEL]
            ; b =>top
            ; =>done);
    }

    fn fail(&mut self, text: u16, exits: &Exits) {
        self.load_plain(0, text as u64);
        asm!(self ; str x0, [x19, FAIL_TEXT] ; b =>exits.fail);
    }

    fn finish(mut self) -> Result<Vec<u8>, DynasmError> {
        self.asm.take()
    }
}
