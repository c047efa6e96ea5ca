//! The edge between compiled code and helpers: one macro that makes an `extern "C"` function of a Rust body.

use crate::lang::env::Env;
use crate::lang::ir::Trap;
use crate::lang::machine::{Head, Outcome};
pub(super) use crate::store::blocks;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a helper's body. A panic ends the call with [`Trap::Panic`], on every node alike.
///
/// # Safety
/// `head` is the first field of an [`Env`] that nothing else borrows for as long as the helper runs.
#[inline]
pub(super) unsafe fn enter(head: *mut Head, body: impl FnOnce(&mut Env) -> Result<u64, Trap>) -> Outcome {
    // SAFETY: `Env` is `repr(C)` with the head first, so the pointers are the same; the caller promises the rest.
    let env = unsafe { &mut *head.cast::<Env>() };
    match catch_unwind(AssertUnwindSafe(|| body(env))) {
        Ok(Ok(value)) => Outcome::value(value),
        Ok(Err(trap)) => Outcome::trap(trap),
        Err(_) => Outcome::trap(Trap::Panic),
    }
}

/// `fn name(env, a, b) { body }`: a helper of up to four argument words whose body gives `Result<u64, Trap>`.
macro_rules! helpers {
    ($($(#[$doc:meta])* fn $name:ident($env:ident $(, $arg:ident)*) $body:block)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// As [`HelperFn`](crate::lang::machine::HelperFn) demands.
        pub unsafe extern "C" fn $name(
            head: *mut crate::lang::machine::Head, a: u64, b: u64, c: u64, d: u64,
        ) -> crate::lang::machine::Outcome {
            let [$($arg,)* ..] = [a, b, c, d];
            // SAFETY: handed on to the caller.
            unsafe { crate::lang::helpers::edge::enter(head, |$env| $body) }
        }
    )*};
}
pub(super) use helpers;

/// The nominal depth of a collection of `len` entries.
#[inline]
pub(super) fn depth(len: u64) -> u64 {
    let mut levels = 1;
    let mut reach = 1u64;
    while reach < len {
        reach = reach.saturating_mul(64);
        levels += 1;
    }
    levels
}

/// Words of a `T?`: (tag, payload) of an optional deadline or the like.
#[inline]
pub(super) fn optional(tag: u64, payload: u64) -> Option<i64> {
    (tag != 0).then_some(payload as i64)
}

impl Env {
    /// Gives a `T?` of one payload word back.
    #[inline]
    pub(super) fn give(&mut self, value: Option<u64>) -> Result<u64, Trap> {
        self.set_result(1, value.unwrap_or(0));
        Ok(value.is_some() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_one_and_the_logarithm_rounded_up() {
        for (len, want) in [(0, 1), (1, 1), (2, 2), (64, 2), (65, 3), (4096, 3), (4097, 4), (u64::MAX, 12)] {
            assert_eq!(depth(len), want, "{len}");
        }
    }
}
