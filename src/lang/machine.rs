//! # The machine: what compiled code, the interpreter and helpers share
//!
//! Compiled code touches only its frame and this head; everything else is behind a helper, which receives a pointer to
//! the head and knows that it is the first field of its own environment (`#[repr(C)]`).

/// What a helper gives back. In registers: rax:rdx on x86-64 (System V), x0:x1 on aarch64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Outcome {
    pub value: u64,
    /// 0 = go on; else a [`super::ir::Trap`] that ends the call.
    pub status: u64,
}

impl Outcome {
    pub fn value(value: u64) -> Self {
        Outcome { value, status: 0 }
    }
    pub fn trap(trap: super::ir::Trap) -> Self {
        Outcome { value: 0, status: trap as u64 }
    }
}

/// A helper: never unwinds (it catches), never keeps the pointer.
///
/// # Safety
/// `head` must be the first field of the environment the helper was declared for, uniquely borrowed for the call.
pub type HelperFn = unsafe extern "C" fn(head: *mut Head, a: u64, b: u64, c: u64, d: u64) -> Outcome;

/// Most extra results of one helper call.
pub const RESULTS_MAX: usize = 8;

/// The part of the environment that compiled code may read and write.
#[derive(Debug)]
#[repr(C)]
pub struct Head {
    /// The call's argument words: the fixed slots, then the elements of list arguments.
    pub args: *const u64,
    /// How many words `args` has; `Elem` is checked against it.
    pub args_len: u64,
    /// Operations executed (each IR op 1, charged per straight-line run at its start; helpers add their own).
    pub ops: u64,
    /// Places touched, counted by helpers.
    pub locs: u64,
    /// Loop iterations left; taken at back-edges. A net under the static bound, not the bound.
    pub fuel: u64,
    /// Text number of the `Fail` that ended the call.
    pub fail_text: u64,
    /// Extra results of the last helper call: `Op::Result { index }` reads `results[index]`.
    pub results: [u64; RESULTS_MAX],
    /// Addresses of helpers, indexed by helper number (position-independent code calls through it).
    pub helpers: *const HelperFn,
    pub helpers_len: u64,
}
