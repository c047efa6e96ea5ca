//! # Arena: where nodes live
//!
//! Owns one large reserved address range and gives out parts of it. The lower half is cut into slabs of 2 MiB, which
//! [`Heap`]s cut into nodes; the upper half holds *large* nodes, contiguous bytes beyond [`NODE_BYTES_MAX`]. Several arenas
//! live side by side in one process.
//!
//! A slab is asked of the machine as one huge page or in small ones. What every operation walks lies in huge ones, for the
//! sake of address translation. Entries lie in small ones: while the window fills each SET writes fresh memory, and a virtual
//! machine's host may take 6 ms to find a huge page, in one piece (`redis-benchmark -t set -r 1000000 -d 64 -P 64` on an
//! empty store: with huge pages everywhere 11 % fewer a second, paired medians). Once the store grows no more they are merged (`slabs.rs`).
//!
//! What it promises: a [`Ref`] that was given out stays mapped until the arena is dropped, so that following a stale
//! one reads garbage but never faults. What it relies upon: whoever follows a `Ref` holds a root that reaches it (a
//! pinned snapshot, or the writer itself), and nobody changes a node after its root was published, but for child cells, which
//! are atomic: one goes from "on disk" to the resident node of the same page, and the writer changes those of shared branches
//! (`keyspace.rs`) and their births.
//!
//! All `unsafe` of the store is in this folder.

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use slabs::Slabs;
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

mod heap;
mod node;
mod pages;
mod slabs;

pub use heap::{CLASSES, Heap, class_of, class_units};
pub use node::{Flags, Node, NodeMut, Ref};
pub use pages::{PageError, PageFault, PageSource, Pages};

/// Allocation granule, bytes.
pub const UNIT: usize = 16;
/// What heaps take from the arena at a time, bytes.
pub const SLAB_BYTES: usize = 2 << 20;
/// Bytes of the header that every node starts with.
pub const HEADER_BYTES: usize = 8;
/// Largest ordinary node, header included, bytes.
pub const NODE_BYTES_MAX: usize = 64 << 10;
/// Granule of large nodes, bytes: what the machine maps.
const LARGE_GRANULE: usize = 4096;
/// Address space asked for first, bytes; halved until the machine agrees.
const RESERVE_BYTES: usize = 1 << 40;
const RESERVE_BYTES_MIN: usize = 64 << 20;

/// Why an arena could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArenaError {
    #[error("cannot reserve address space for the store: {0}")]
    Reserve(rustix::io::Errno),
}

/// The reserved range and who has which part of it.
pub struct Arena {
    base: NonNull<u8>,
    slabs: Slabs,
    large: Mutex<LargeSpace>,
    /// Bytes of slabs and large nodes that are given out.
    bytes_out: AtomicU64,
    pages: Pages,
    /// Last: what is dropped before may have threads that touch it.
    _mapping: Mapping,
}

/// Address space of this process.
struct Mapping {
    at: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the raw pointers name the mapping, which lives as long as the arena; access to what they name follows the
// publication rule at the head of this file, and all bookkeeping is behind mutexes and atomics.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

/// Free runs of the upper half: start → bytes, neighbours merged.
#[derive(Default)]
struct LargeSpace {
    free: BTreeMap<u64, u64>,
}

/// A broken holder of one of these locks left nothing half-done: each critical section only moves numbers.
fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mapping {
    fn new(bytes: usize) -> rustix::io::Result<Mapping> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE);
        // SAFETY: a fresh private anonymous mapping at an address the kernel chooses aliases nothing.
        let at = unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, protection, flags) }?;
        Ok(Mapping { at: NonNull::new(at.cast()).ok_or(rustix::io::Errno::NOMEM)?, bytes })
    }
}

impl Arena {
    pub fn new() -> Result<Arena, ArenaError> {
        Self::with_reserve(RESERVE_BYTES)
    }

    /// An arena that never grows past `bytes` (tests; machines that count reserved address space).
    pub fn with_reserve(bytes: usize) -> Result<Arena, ArenaError> {
        let mut bytes = bytes.next_power_of_two().max(RESERVE_BYTES_MIN);
        let mapping = loop {
            match Mapping::new(bytes + SLAB_BYTES) {
                Ok(mapping) => break mapping,
                Err(_) if bytes > RESERVE_BYTES_MIN => bytes /= 2,
                Err(e) => return Err(ArenaError::Reserve(e)),
            }
        };
        let skip = mapping.at.align_offset(SLAB_BYTES);
        // SAFETY: `skip` is below SLAB_BYTES, which the mapping has in addition to `bytes`.
        let base = unsafe { mapping.at.add(skip) };
        let half = bytes / 2;
        let mut large = LargeSpace::default();
        large.free.insert(half as u64, half as u64);
        Ok(Arena {
            base,
            slabs: Slabs::new(base.as_ptr(), (half / SLAB_BYTES) as u32),
            large: Mutex::new(large),
            bytes_out: AtomicU64::new(0),
            pages: Pages::default(),
            _mapping: mapping,
        })
    }

    /// Bytes that heaps and large nodes hold, free nodes inside slabs included.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Ordering::Relaxed)
    }

    /// Pages of the disk that are loaded here, and their source.
    pub fn pages(&self) -> &Pages {
        &self.pages
    }

    /// The resident node `at`. The caller holds a root that reaches it.
    #[inline]
    pub fn node(&self, at: Ref) -> Node<'_> {
        debug_assert!(at.is_resident(), "{at:?} is not resident");
        // SAFETY: resident refs are offsets that `Heap::alloc` gave out, inside the mapping.
        let ptr = unsafe { self.base.add(at.0 as usize) };
        // SAFETY: `ptr` is the start of a node of this arena; the caller keeps it alive (see the head of this file).
        unsafe { Node::at(ptr, at) }
    }

    /// The node a cell names, loaded from its page first if it is still on disk.
    #[inline]
    pub fn child(&self, cell: &AtomicU64) -> Node<'_> {
        let at = Ref(cell.load(Ordering::Acquire));
        if at.is_resident() { self.node(at) } else { self.node(self.page_in(cell, at)) }
    }

    /// As [`Arena::child`], of a cell that may be empty.
    #[inline]
    pub fn child_if_any(&self, cell: &AtomicU64) -> Option<Node<'_>> {
        let at = Ref(cell.load(Ordering::Acquire));
        if at.is_resident() {
            return Some(self.node(at));
        }
        (!at.is_null()).then(|| self.node(self.page_in(cell, at)))
    }

    /// The resident form of any reference but null.
    #[inline]
    pub fn load(&self, at: Ref) -> Ref {
        if at.is_resident() || at.is_null() { at } else { self.pages.resident(self, at) }
    }

    #[cold]
    fn page_in(&self, cell: &AtomicU64, at: Ref) -> Ref {
        let resident = self.pages.resident(self, at);
        // Fails only when another reader stored the same resident reference a moment ago.
        let _ = cell.compare_exchange(at.0, resident.0, Ordering::AcqRel, Ordering::Acquire);
        resident
    }

    /// Asks the processor to bring the first line of a node near. Any value may be given.
    #[inline]
    pub fn prefetch(&self, at: Ref, byte: usize) {
        if at.is_resident() {
            self.prefetch_address(self.base.as_ptr().wrapping_add(at.0 as usize + byte));
        }
    }

    #[inline]
    fn prefetch_address(&self, address: *const u8) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch is a hint; it never faults.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = address;
    }

    /// The uniquely owned node `at`, for changing it.
    ///
    /// # Safety
    /// No published root reaches `at`, and the caller's heap context is the only one that changes it.
    #[inline]
    pub(super) unsafe fn node_mut(&self, at: Ref) -> NodeMut<'_> {
        debug_assert!(at.is_resident());
        // SAFETY: as in `node`; uniqueness is the caller's promise.
        unsafe { NodeMut::at(self.base.add(at.0 as usize), at) }
    }

    /// A slab; of a huge page if the machine has one.
    fn take_slab(&self, huge: bool) -> u32 {
        self.bytes_out.fetch_add(SLAB_BYTES as u64, Ordering::Relaxed);
        self.slabs.take(huge)
    }

    fn return_slabs(&self, slabs: &mut Vec<u32>) {
        self.bytes_out.fetch_sub((slabs.len() * SLAB_BYTES) as u64, Ordering::Relaxed);
        self.slabs.give_back(slabs);
    }

    /// A run of the upper half, first fit; `bytes` is rounded up to the granule.
    fn take_large(&self, bytes: usize) -> Ref {
        let need = bytes.next_multiple_of(LARGE_GRANULE) as u64;
        let mut space = lock(&self.large);
        let found = space.free.iter().find(|&(_, &len)| len >= need).map(|(&at, &len)| (at, len));
        let (at, len) = found.expect("the store's address space for large values is used up");
        space.free.remove(&at);
        if len > need {
            space.free.insert(at + need, len - need);
        }
        self.bytes_out.fetch_add(need, Ordering::Relaxed);
        Ref(at)
    }

    /// Gives a large node's memory back to the machine.
    fn return_large(&self, at: Ref, bytes: usize) {
        let len = bytes.next_multiple_of(LARGE_GRANULE) as u64;
        // SAFETY: the run is inside the mapping and nobody reaches it any more; it reads as zeros from here on.
        let _ = unsafe { madvise(self.base.add(at.0 as usize).as_ptr().cast(), len as usize, Advice::LinuxDontNeed) };
        self.bytes_out.fetch_sub(len, Ordering::Relaxed);
        let mut space = lock(&self.large);
        let (mut start, mut run) = (at.0, len);
        if let Some((&before, &n)) = space.free.range(..start).next_back()
            && before + n == start
        {
            space.free.remove(&before);
            (start, run) = (before, n + run);
        }
        if let Some(n) = space.free.remove(&(at.0 + len)) {
            run += n;
        }
        space.free.insert(start, run);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and every borrow of a node borrows the arena.
        let _ = unsafe { munmap(self.at.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{PageId, SubBatch};
    use std::sync::Arc;

    fn small() -> Arena {
        Arena::with_reserve(256 << 20).unwrap()
    }

    #[test]
    fn node_of_any_size_keeps_its_bytes_apart_from_its_neighbours() {
        let arena = small();
        let mut heap = Heap::default();
        let sizes = [8usize, 9, 16, 17, 100, 512, 513, 4096, 65_536, 65_537, 300_000];
        let refs: Vec<Ref> = (0..3)
            .flat_map(|_| sizes)
            .enumerate()
            .map(|(i, n)| {
                let mut node = heap.alloc(&arena, n, 6, SubBatch(1));
                if n > 16 {
                    node.bytes_mut(16, n - 16).fill(i as u8);
                }
                node.get()
            })
            .collect();
        for (i, at) in refs.iter().enumerate() {
            let n = sizes[i % sizes.len()];
            let node = arena.node(*at);
            assert!(node.is_large() || node.capacity() >= n);
            if n > 16 {
                assert!(node.bytes(16, n - 16).iter().all(|&b| b == i as u8));
            }
        }
    }

    #[test]
    fn freed_node_is_given_out_again() {
        let arena = small();
        let mut heap = Heap::default();
        let first = heap.alloc(&arena, 100, 6, SubBatch(1)).get();
        heap.free(&arena, first);
        assert_eq!(heap.alloc(&arena, 97, 6, SubBatch(2)).get(), first);
        assert_eq!(heap.live_bytes(), 112);
    }

    #[test]
    fn large_runs_merge_when_freed() {
        let arena = small();
        let mut heap = Heap::default();
        let refs: Vec<Ref> = (0..4).map(|_| heap.alloc(&arena, 20 << 20, 6, SubBatch(1)).get()).collect();
        for at in [refs[1], refs[3], refs[0], refs[2]] {
            heap.free(&arena, at);
        }
        assert_eq!(arena.bytes_out(), 0);
        heap.alloc(&arena, 100 << 20, 6, SubBatch(1));
    }

    #[test]
    fn private_heap_gives_everything_back() {
        let arena = small();
        let mut heap = Heap::private();
        for _ in 0..100_000 {
            heap.alloc(&arena, 100, 6, SubBatch(1));
        }
        heap.alloc(&arena, 1 << 20, 6, SubBatch(1));
        assert!(arena.bytes_out() > 10 << 20);
        heap.release_all(&arena);
        assert_eq!(arena.bytes_out(), 0);
    }

    struct OnePage;
    impl PageSource for OnePage {
        fn load(&self, page: PageId, arena: &Arena, heap: &mut Heap) -> Result<Ref, PageError> {
            if page.0 != 7 {
                return Err(PageError::Missing(page));
            }
            let mut node = heap.alloc(arena, 32, 6, SubBatch(0));
            node.set_u64(8, 4711);
            Ok(node.get())
        }
    }

    #[test]
    fn page_is_loaded_once_whoever_asks() {
        let arena = Arc::new(small());
        arena.pages().set_source(Box::new(OnePage));
        let (a, b) = (AtomicU64::new(Ref::to_page(PageId(7)).0), AtomicU64::new(Ref::to_page(PageId(7)).0));
        let first = arena.child(&a).get();
        assert_eq!(arena.child(&b).get(), first);
        assert_eq!(arena.node(first).u64(8), 4711);
        assert_eq!(a.load(Ordering::Relaxed), first.0);
        assert_eq!(arena.pages().page_of(arena.node(first)), Some(PageId(7)));
    }

    #[test]
    fn unreadable_page_is_remembered_as_a_fault() {
        let arena = Arc::new(small());
        arena.pages().set_source(Box::new(OnePage));
        let cell = AtomicU64::new(Ref::to_page(PageId(8)).0);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| arena.child(&cell).get()));
        assert!(caught.is_err_and(|e| e.is::<PageFault>()));
        assert_eq!(arena.pages().fault(), Some(&PageError::Missing(PageId(8))));
    }
}
