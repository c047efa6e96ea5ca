//! # pages: executable memory, written once
//!
//! Mapped writable, filled, then switched to readable and executable for the rest of its life: never both.

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use std::ptr::NonNull;

/// Code that can be called. Unmapped on drop, so whoever runs it must hold it.
#[derive(Debug)]
pub struct Pages {
    start: NonNull<u8>,
    /// Bytes of code; the mapping is at least as long.
    len: usize,
}

// SAFETY: after construction the memory is only read and executed, from any thread.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    /// Copies code into executable memory. Fails where the system forbids it.
    pub fn new(code: &[u8]) -> Result<Pages, rustix::io::Errno> {
        let len = code.len().max(1);
        // SAFETY: a new private mapping touches nothing that exists.
        let start = unsafe {
            mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        }?;
        let pages = Pages { start: NonNull::new(start.cast()).ok_or(rustix::io::Errno::NOMEM)?, len };
        // SAFETY: the mapping is `len` bytes, writable, and nobody else knows it; from here on `pages` unmaps it.
        unsafe {
            std::ptr::copy_nonoverlapping(code.as_ptr(), pages.start.as_ptr(), code.len());
            mprotect(start, len, MprotectFlags::READ | MprotectFlags::EXEC)?;
        }
        dynasmrt::cache_control::synchronize_icache(pages.bytes());
        Ok(pages)
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: mapped readable for `len` bytes as long as `self` lives, and never written again.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and borrowed by nobody. An error could only leak it.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}
