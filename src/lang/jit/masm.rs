//! # Masm: what one architecture must be able to write
//!
//! A slot is a word of the frame; registers come first, hidden loop bounds after them. Nothing lives in a machine
//! register from one operation to the next except the pinned pointers (head, arguments, helper table, stack), so
//! operations can be written one by one and helpers may clobber what the C convention allows.

use super::super::ir::{BitOp, FloatOp, IntOp, Reg, Rel};
use dynasmrt::{DynamicLabel, DynasmError};

/// A word of the frame.
pub type Slot = u16;

/// The cold exits that all programs of a buffer share; each leaves with its status.
#[derive(Clone, Copy)]
pub struct Exits {
    pub overflow: DynamicLabel,
    pub div_zero: DynamicLabel,
    pub nan: DynamicLabel,
    pub index: DynamicLabel,
    pub fuel: DynamicLabel,
    pub fail: DynamicLabel,
    /// Leaves with the status that a helper gave back.
    pub helper: DynamicLabel,
}

pub trait Masm {
    /// An empty buffer. `blind` hides constants that a program chose: see [`hidden`].
    fn new(blind: u64) -> Self;
    /// Bytes written so far.
    fn offset(&self) -> usize;
    fn label(&mut self) -> DynamicLabel;
    fn bind(&mut self, label: DynamicLabel);
    fn jump(&mut self, to: DynamicLabel);

    /// Opens a program with `slots` frame words; the code begins on a 16-byte border, whose offset is returned.
    fn prologue(&mut self, slots: usize) -> usize;
    /// Leaves with `status`.
    fn leave(&mut self, status: u64);
    /// Writes the part of every exit that is the same, once a buffer.
    fn exits(&mut self, exits: &Exits);

    /// head.ops += ops
    fn charge(&mut self, ops: u32);
    fn constant(&mut self, d: Reg, value: u64);
    fn mov(&mut self, d: Reg, s: Reg);
    fn arg(&mut self, d: Reg, slot: u16);
    fn elem(&mut self, d: Reg, slot: u16, index: Reg, shape: (u8, u8), exits: &Exits);
    fn count(&mut self, d: Reg, slot: u16);
    fn result(&mut self, d: Reg, index: u8);
    fn int(&mut self, op: IntOp, d: Reg, a: Reg, b: Reg, exits: &Exits);
    fn float(&mut self, op: FloatOp, d: Reg, a: Reg, b: Reg, exits: &Exits);
    fn bits(&mut self, op: BitOp, d: Reg, a: Reg, b: Reg);
    fn compare_int(&mut self, rel: Rel, d: Reg, a: Reg, b: Reg);
    fn compare_float(&mut self, rel: Rel, d: Reg, a: Reg, b: Reg);
    fn not(&mut self, d: Reg, s: Reg);
    fn int_to_float(&mut self, d: Reg, s: Reg);
    fn sqrt(&mut self, d: Reg, s: Reg, exits: &Exits);
    fn select(&mut self, d: Reg, c: Reg, a: Reg, b: Reg);
    /// Calls through the head's table; a non-zero status goes to `exits.helper`.
    fn call(&mut self, d: Reg, helper: u16, args: &[Reg], exits: &Exits);

    fn jump_if_zero(&mut self, c: Reg, to: DynamicLabel);
    fn jump_if_equal(&mut self, s: Reg, value: u64, to: DynamicLabel);
    /// limit = max(bound, 0), counter = 0; jumps to `exit` if there is no trip.
    fn enter_loop(&mut self, counter: Reg, bound: Reg, limit: Slot, exit: DynamicLabel);
    /// counter += 1; if below the limit takes fuel and jumps to `top`.
    fn back_edge(&mut self, counter: Reg, limit: Slot, top: DynamicLabel, exits: &Exits);
    /// head.fail_text = text, then leaves with the Fail status.
    fn fail(&mut self, text: u16, exits: &Exits);

    /// The code, every jump resolved.
    fn finish(self) -> Result<Vec<u8>, DynasmError>;
}

/// Must this constant be hidden? A program's author chooses constants; eight or four chosen bytes inside executable
/// memory are a gadget, two are not worth having.
pub fn hidden(value: u64) -> bool {
    !(-0x1_0000..0x1_0000).contains(&(value as i64))
}
