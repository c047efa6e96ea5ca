//! # jit: machine code for verified programs
//!
//! One pass, no optimiser: every virtual register has a frame slot, operations are written one after the other, and
//! everything that matters is behind a helper. Bodies are about forty operations; the cache misses of the helpers
//! dwarf what register allocation could win.
//!
//! Promises: only [`Verified`] programs reach the emitters; code reads and writes its own frame, the head, and
//! reads argument words inside `args_len`; it calls nothing but the helper table, at indices checked before; constants
//! chosen by a program do not stand in executable memory as they are; memory is writable or executable, never both;
//! a buffer never changes after it was made. Agreement with [`super::interp`] is tested on random programs.

// Both emitters are built everywhere, so that neither rots; each machine uses one.
#[cfg_attr(not(target_arch = "aarch64"), allow(dead_code))]
mod a64;
mod emit;
mod masm;
mod pages;
mod perf;
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
mod x64;

use super::machine::Head;
use super::verify::Verified;
use pages::Pages;

pub use perf::write_perf_map;

#[cfg(target_arch = "x86_64")]
type Native = x64::X64;
#[cfg(target_arch = "aarch64")]
type Native = a64::A64;

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JitError {
    #[error("a jump is out of reach: {0}")]
    Assemble(String),
    #[error("the system gives no executable memory: {0}")]
    Memory(rustix::io::Errno),
    #[error("no emitter for this architecture")]
    Architecture,
}

/// The machine code of all commands of one code epoch.
#[derive(Debug)]
pub struct CodeBuffer {
    pages: Pages,
    entries: Vec<usize>,
}

impl CodeBuffer {
    /// Compiles all programs into one immutable buffer.
    ///
    /// Its bytes differ from run to run (constants are hidden by a word that programs' authors cannot guess), its meaning
    /// does not.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    pub fn compile(programs: &[Verified]) -> Result<CodeBuffer, JitError> {
        let emitted = emit::emit::<Native>(programs, crate::base::unguessable())
            .map_err(|error| JitError::Assemble(error.to_string()))?;
        let pages = Pages::new(&emitted.code).map_err(JitError::Memory)?;
        Ok(CodeBuffer { pages, entries: emitted.entries })
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub fn compile(_programs: &[Verified]) -> Result<CodeBuffer, JitError> {
        Err(JitError::Architecture)
    }

    /// Runs program `which`; gives the status word, 0 or a trap's.
    ///
    /// # Safety
    /// As [`super::interp::run`].
    #[inline]
    pub unsafe fn run(&self, which: usize, head: *mut Head) -> u64 {
        let entry = &self.pages.bytes()[self.entries[which]] as *const u8;
        // SAFETY: `entry` is where the emitter began a function of this type, in executable memory that `self` keeps.
        let body: unsafe extern "C" fn(*mut Head) -> u64 = unsafe { std::mem::transmute(entry) };
        // SAFETY: the caller's promise about `head`.
        unsafe { body(head) }
    }

    /// The code of program `which`, as it stands in memory.
    pub fn code(&self, which: usize) -> &[u8] {
        let end = self.entries.get(which + 1).copied().unwrap_or(self.pages.bytes().len());
        &self.pages.bytes()[self.entries[which]..end]
    }

    /// Makes this thread see the buffer's instructions. To be called on the apply thread at each code switch: other
    /// cores' instruction streams are synchronised by nothing else on aarch64.
    pub fn prepare_thread(&self) {
        dynasmrt::cache_control::prepare_for_execution(self.pages.bytes());
    }
}
