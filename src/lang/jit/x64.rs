//! # x64: the emitter for x86-64, System V convention
//!
//! ```text
//! rbx  head            [rsp + 8 * slot]  frame
//! r12  helper table    rax rcx rdx rsi rdi r8 xmm0 xmm1  scratch within one operation
//! r13  argument words  rbp  frame pointer, so that profilers can walk the stack
//! ```

use super::super::ir::{BitOp, FloatOp, IntOp, Reg, Rel, Trap};
use super::super::machine::Head;
use super::masm::{Exits, Masm, Slot, hidden};
use dynasmrt::x64::X64Relocation;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmError, DynasmLabelApi, VecAssembler, dynasm};
use std::mem::offset_of;

const ARGS: i32 = offset_of!(Head, args) as i32;
const ARGS_LEN: i32 = offset_of!(Head, args_len) as i32;
const OPS: i32 = offset_of!(Head, ops) as i32;
const FUEL: i32 = offset_of!(Head, fuel) as i32;
const FAIL_TEXT: i32 = offset_of!(Head, fail_text) as i32;
const RESULTS: i32 = offset_of!(Head, results) as i32;
const HELPERS: i32 = offset_of!(Head, helpers) as i32;

pub struct X64 {
    asm: VecAssembler<X64Relocation>,
    blind: u64,
}

macro_rules! asm {
    ($self:ident $($t:tt)*) => {
        dynasm!($self.asm ; .arch x64 $($t)*)
    };
}

/// Where a slot is, from rsp.
fn at(slot: impl Into<Slot>) -> i32 {
    slot.into() as i32 * 8
}

impl X64 {
    /// rax = value, which does not stand in the code; clobbers rcx.
    fn load_hidden(&mut self, value: u64) {
        asm!(self
            ; mov rax, QWORD (value ^ self.blind) as i64
            ; mov rcx, QWORD self.blind as i64
            ; xor rax, rcx);
    }

    fn divide(&mut self, op: IntOp, d: Reg, a: Reg, b: Reg, exits: &Exits) {
        let plain = self.label();
        let done = self.label();
        asm!(self
            ; mov rcx, [rsp + at(b)]
            ; mov rax, [rsp + at(a)]
            ; test rcx, rcx
            ; jz =>exits.div_zero
            ; cmp rcx, -1
            ; jne =>plain);
        // The machine faults on MIN / -1; by -1 both are known without dividing.
        match op {
            IntOp::Div => asm!(self ; neg rax ; jo =>exits.overflow),
            _ => asm!(self ; xor eax, eax),
        }
        asm!(self
            ; jmp =>done
            ; =>plain
            ; cqo
            ; idiv rcx);
        if op == IntOp::Rem {
            asm!(self ; mov rax, rdx);
        }
        asm!(self
            ; =>done
            ; mov [rsp + at(d)], rax);
    }

    /// d = al, as a bool.
    fn put_flag(&mut self, d: Reg) {
        asm!(self ; movzx eax, al ; mov [rsp + at(d)], rax);
    }
}

impl Masm for X64 {
    fn new(blind: u64) -> Self {
        X64 { asm: VecAssembler::new(0), blind }
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
        asm!(self ; jmp =>to);
    }

    fn prologue(&mut self, slots: usize) -> usize {
        asm!(self ; .align 16);
        let entry = self.offset();
        // Return address, rbp and three pushes are 40 bytes; 8 more keep calls 16-byte aligned.
        let frame = (slots * 8).next_multiple_of(16) as i32 + 8;
        asm!(self
            ; push rbp
            ; mov rbp, rsp
            ; push rbx
            ; push r12
            ; push r13
            ; sub rsp, frame
            ; mov rbx, rdi
            ; mov r12, [rdi + HELPERS]
            ; mov r13, [rdi + ARGS]);
        entry
    }

    fn leave(&mut self, status: u64) {
        match status {
            0 => asm!(self ; xor eax, eax),
            _ => asm!(self ; mov eax, status as i32),
        }
        asm!(self
            ; lea rsp, [rbp - 24]
            ; pop r13
            ; pop r12
            ; pop rbx
            ; pop rbp
            ; ret);
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
            asm!(self ; =>label ; mov edx, trap as u64 as i32 ; jmp =>out);
        }
        asm!(self
            ; =>exits.helper
            ; =>out
            ; mov rax, rdx
            ; lea rsp, [rbp - 24]
            ; pop r13
            ; pop r12
            ; pop rbx
            ; pop rbp
            ; ret);
    }

    fn charge(&mut self, ops: u32) {
        asm!(self ; add QWORD [rbx + OPS], ops as i32);
    }

    fn constant(&mut self, d: Reg, value: u64) {
        if hidden(value) {
            self.load_hidden(value);
            asm!(self ; mov [rsp + at(d)], rax);
        } else {
            asm!(self ; mov QWORD [rsp + at(d)], value as i32);
        }
    }

    fn mov(&mut self, d: Reg, s: Reg) {
        asm!(self ; mov rax, [rsp + at(s)] ; mov [rsp + at(d)], rax);
    }

    fn arg(&mut self, d: Reg, slot: u16) {
        asm!(self ; mov rax, [r13 + at(slot)] ; mov [rsp + at(d)], rax);
    }

    fn elem(&mut self, d: Reg, slot: u16, index: Reg, (width, field): (u8, u8), exits: &Exits) {
        asm!(self
            ; mov rax, [r13 + at(slot)]
            ; mov ecx, eax
            ; mov rdx, [rsp + at(index)]
            ; cmp rdx, rcx
            ; jae =>exits.index
            ; shr rax, 32
            ; imul rdx, rdx, width as i32
            ; lea rax, [rax + rdx + field as i32]
            ; cmp rax, [rbx + ARGS_LEN]
            ; jae =>exits.index
            ; mov rax, [r13 + rax * 8]
            ; mov [rsp + at(d)], rax);
    }

    fn count(&mut self, d: Reg, slot: u16) {
        asm!(self ; mov eax, [r13 + at(slot)] ; mov [rsp + at(d)], rax);
    }

    fn result(&mut self, d: Reg, index: u8) {
        asm!(self ; mov rax, [rbx + RESULTS + at(index)] ; mov [rsp + at(d)], rax);
    }

    fn int(&mut self, op: IntOp, d: Reg, a: Reg, b: Reg, exits: &Exits) {
        if let IntOp::Div | IntOp::Rem = op {
            return self.divide(op, d, a, b, exits);
        }
        asm!(self ; mov rax, [rsp + at(a)]);
        match op {
            IntOp::Add => asm!(self ; add rax, [rsp + at(b)] ; jo =>exits.overflow),
            IntOp::Sub => asm!(self ; sub rax, [rsp + at(b)] ; jo =>exits.overflow),
            IntOp::Mul => asm!(self ; imul rax, [rsp + at(b)] ; jo =>exits.overflow),
            IntOp::Min => asm!(self ; mov rcx, [rsp + at(b)] ; cmp rcx, rax ; cmovl rax, rcx),
            IntOp::Max => asm!(self ; mov rcx, [rsp + at(b)] ; cmp rcx, rax ; cmovg rax, rcx),
            IntOp::Div | IntOp::Rem => unreachable!("divided above"),
        }
        asm!(self ; mov [rsp + at(d)], rax);
    }

    fn float(&mut self, op: FloatOp, d: Reg, a: Reg, b: Reg, exits: &Exits) {
        asm!(self ; movsd xmm0, [rsp + at(a)]);
        // minsd and maxsd give the second operand unless the first is strictly smaller or greater.
        match op {
            FloatOp::Add => asm!(self ; addsd xmm0, [rsp + at(b)]),
            FloatOp::Sub => asm!(self ; subsd xmm0, [rsp + at(b)]),
            FloatOp::Mul => asm!(self ; mulsd xmm0, [rsp + at(b)]),
            FloatOp::Div => asm!(self ; divsd xmm0, [rsp + at(b)]),
            FloatOp::Min => asm!(self ; minsd xmm0, [rsp + at(b)]),
            FloatOp::Max => asm!(self ; maxsd xmm0, [rsp + at(b)]),
        }
        asm!(self
            ; ucomisd xmm0, xmm0
            ; jp =>exits.nan
            ; movsd [rsp + at(d)], xmm0);
    }

    fn bits(&mut self, op: BitOp, d: Reg, a: Reg, b: Reg) {
        asm!(self ; mov rcx, [rsp + at(b)] ; mov rax, [rsp + at(a)]);
        match op {
            BitOp::And => asm!(self ; and rax, rcx),
            BitOp::Or => asm!(self ; or rax, rcx),
            BitOp::Xor => asm!(self ; xor rax, rcx),
            BitOp::Shl => asm!(self ; shl rax, cl),
            BitOp::Shr => asm!(self ; sar rax, cl),
            BitOp::ShrUnsigned => asm!(self ; shr rax, cl),
        }
        asm!(self ; mov [rsp + at(d)], rax);
    }

    fn compare_int(&mut self, rel: Rel, d: Reg, a: Reg, b: Reg) {
        asm!(self ; mov rax, [rsp + at(a)] ; cmp rax, [rsp + at(b)]);
        match rel {
            Rel::Eq => asm!(self ; sete al),
            Rel::Ne => asm!(self ; setne al),
            Rel::Lt => asm!(self ; setl al),
            Rel::Le => asm!(self ; setle al),
            Rel::Gt => asm!(self ; setg al),
            Rel::Ge => asm!(self ; setge al),
        }
        self.put_flag(d);
    }

    fn compare_float(&mut self, rel: Rel, d: Reg, a: Reg, b: Reg) {
        // "above" is false when unordered; "less" swaps the operands to use it.
        let (first, second) = if let Rel::Lt | Rel::Le = rel { (b, a) } else { (a, b) };
        asm!(self ; movsd xmm0, [rsp + at(first)] ; ucomisd xmm0, [rsp + at(second)]);
        match rel {
            Rel::Eq => asm!(self ; setnp cl ; sete al ; and al, cl),
            Rel::Ne => asm!(self ; setp cl ; setne al ; or al, cl),
            Rel::Lt | Rel::Gt => asm!(self ; seta al),
            Rel::Le | Rel::Ge => asm!(self ; setae al),
        }
        self.put_flag(d);
    }

    fn not(&mut self, d: Reg, s: Reg) {
        asm!(self ; cmp QWORD [rsp + at(s)], 0 ; sete al);
        self.put_flag(d);
    }

    fn int_to_float(&mut self, d: Reg, s: Reg) {
        asm!(self
            ; xorps xmm0, xmm0
            ; cvtsi2sd xmm0, QWORD [rsp + at(s)]
            ; movsd [rsp + at(d)], xmm0);
    }

    fn sqrt(&mut self, d: Reg, s: Reg, exits: &Exits) {
        asm!(self
            ; sqrtsd xmm0, [rsp + at(s)]
            ; ucomisd xmm0, xmm0
            ; jp =>exits.nan
            ; movsd [rsp + at(d)], xmm0);
    }

    fn select(&mut self, d: Reg, c: Reg, a: Reg, b: Reg) {
        asm!(self
            ; mov rax, [rsp + at(a)]
            ; cmp QWORD [rsp + at(c)], 0
            ; cmovz rax, [rsp + at(b)]
            ; mov [rsp + at(d)], rax);
    }

    fn call(&mut self, d: Reg, helper: u16, args: &[Reg], exits: &Exits) {
        asm!(self ; mov rdi, rbx);
        let word = |at: usize| args.get(at).copied();
        match word(0) {
            Some(r) => asm!(self ; mov rsi, [rsp + at(r)]),
            None => asm!(self ; xor esi, esi),
        }
        match word(1) {
            Some(r) => asm!(self ; mov rdx, [rsp + at(r)]),
            None => asm!(self ; xor edx, edx),
        }
        match word(2) {
            Some(r) => asm!(self ; mov rcx, [rsp + at(r)]),
            None => asm!(self ; xor ecx, ecx),
        }
        match word(3) {
            Some(r) => asm!(self ; mov r8, [rsp + at(r)]),
            None => asm!(self ; xor r8d, r8d),
        }
        asm!(self
            ; call QWORD [r12 + at(helper)]
            ; test rdx, rdx
            ; jnz =>exits.helper
            ; mov [rsp + at(d)], rax);
    }

    fn jump_if_zero(&mut self, c: Reg, to: DynamicLabel) {
        asm!(self ; cmp QWORD [rsp + at(c)], 0 ; jz =>to);
    }

    fn jump_if_equal(&mut self, s: Reg, value: u64, to: DynamicLabel) {
        if hidden(value) {
            self.load_hidden(value);
            asm!(self ; cmp rax, [rsp + at(s)]);
        } else {
            asm!(self ; cmp QWORD [rsp + at(s)], value as i32);
        }
        asm!(self ; je =>to);
    }

    fn enter_loop(&mut self, counter: Reg, bound: Reg, limit: Slot, exit: DynamicLabel) {
        // The limit is written only when positive: without a trip nobody reads it.
        asm!(self
            ; mov rax, [rsp + at(bound)]
            ; mov QWORD [rsp + at(counter)], 0
            ; test rax, rax
            ; jle =>exit
            ; mov [rsp + at(limit)], rax);
    }

    fn back_edge(&mut self, counter: Reg, limit: Slot, top: DynamicLabel, exits: &Exits) {
        let done = self.label();
        asm!(self
            ; mov rax, [rsp + at(counter)]
            ; inc rax
            ; mov [rsp + at(counter)], rax
            ; cmp rax, [rsp + at(limit)]
            ; jge =>done
            ; sub QWORD [rbx + FUEL], 1
            ; jnc =>top
            ; mov QWORD [rbx + FUEL], 0
            ; jmp =>exits.fuel
            ; =>done);
    }

    fn fail(&mut self, text: u16, exits: &Exits) {
        asm!(self ; mov QWORD [rbx + FAIL_TEXT], text as i32 ; jmp =>exits.fail);
    }

    fn finish(mut self) -> Result<Vec<u8>, DynasmError> {
        self.asm.take()
    }
}
