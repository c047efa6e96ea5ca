//! Who has which slab, and memory that is there before it is asked for.
//!
//! While the window fills, SETs write fresh memory, and the first touch of each page waits for the kernel to find one and to
//! clear it: a fifth of a SET's processor time, all of it in apply. So a thread touches the next slabs beforehand, beside
//! whatever else runs (`redis-benchmark -t set -r 1000000 -d 64 -P 64`: 9 % more a second, paired medians). It starts when a store has
//! grown past a few slabs and keeps [`AHEAD`] of them ready; who finds none ready touches its own.

use super::{SLAB_BYTES, lock};
use rustix::mm::{Advice, madvise};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Slabs kept ready: of small pages, and of huge ones.
const AHEAD: [usize; 2] = [2, 1];
/// Smaller stores touch their own.
const SLABS_BEFORE: u32 = 4;
/// So many small pages are touched in one piece: others who change the map of the memory have to wait for the end of it, some tens
/// of microseconds.
const PIECE_BYTES: usize = 64 << 10;

/// The slabs of an arena, numbered from 1 (offset 0 is the null reference).
pub(super) struct Slabs {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    /// Address of slab 0.
    base: usize,
    pool: Mutex<Pool>,
    wanted: Condvar,
}

struct Pool {
    next: u32,
    end: u32,
    returned: Vec<u32>,
    /// Touched by the thread: of small pages, and of huge ones.
    ready: [Vec<u32>; 2],
    closed: bool,
}

impl Slabs {
    /// Of the mapping at `base`, which outlives this.
    pub(super) fn new(base: *mut u8, end: u32) -> Slabs {
        let pool = Pool { next: 1, end, returned: Vec::new(), ready: Default::default(), closed: false };
        let shared = Shared { base: base as usize, pool: Mutex::new(pool), wanted: Condvar::new() };
        Slabs { shared: Arc::new(shared), thread: Mutex::new(None) }
    }

    /// A slab; of a huge page if the machine has one.
    pub(super) fn take(&self, huge: bool) -> u32 {
        let mut pool = lock(&self.shared.pool);
        // What comes back has its memory, and would never be used again if fresh slabs went first
        let returned = pool.returned.pop();
        let prepared = if returned.is_none() { pool.ready[huge as usize].pop() } else { None };
        let slab = returned.or(prepared).or_else(|| pool.fresh());
        drop(pool);
        // Until the thread runs fresh slabs go out in the order of their numbers, each once
        if returned.is_none() && slab == Some(SLABS_BEFORE) {
            self.start();
        } else if prepared.is_some() {
            self.shared.wanted.notify_one();
        }
        let slab = slab.expect("the store's address space is used up");
        if huge && prepared.is_none() {
            self.shared.make_huge(slab);
        }
        slab
    }

    pub(super) fn give_back(&self, slabs: &mut Vec<u32>) {
        lock(&self.shared.pool).returned.append(slabs);
    }

    fn start(&self) {
        let shared = self.shared.clone();
        // Without a thread everybody touches his own
        *lock(&self.thread) = std::thread::Builder::new().name("look-memory".into()).spawn(move || shared.run()).ok();
    }
}

impl Drop for Slabs {
    fn drop(&mut self) {
        lock(&self.shared.pool).closed = true;
        self.shared.wanted.notify_one();
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

impl Pool {
    fn fresh(&mut self) -> Option<u32> {
        let slab = self.next;
        (slab < self.end).then(|| self.next += 1).map(|()| slab)
    }
}

impl Shared {
    fn address(&self, slab: u32) -> *mut u8 {
        (self.base + slab as usize * SLAB_BYTES) as *mut u8
    }

    /// Advice; that it is refused changes speed only.
    fn make_huge(&self, slab: u32) {
        // SAFETY: the slab is inside the mapping.
        let _ = unsafe { madvise(self.address(slab).cast(), SLAB_BYTES, Advice::LinuxHugepage) };
    }

    fn run(&self) {
        while let Some((slab, huge)) = self.wait() {
            let touched = self.touch(slab, huge);
            lock(&self.pool).ready[huge as usize].push(slab);
            if let Err(e) = touched {
                // Linux before 5.14, or no memory to be had; a first touch will tell
                return tracing::debug!("no memory is touched ahead: {e}");
            }
        }
    }

    /// A slab to be touched. None: the arena goes, or is used up.
    fn wait(&self) -> Option<(u32, bool)> {
        let mut pool = lock(&self.pool);
        loop {
            if pool.closed {
                return None;
            }
            let lacking =
                [false, true].into_iter().find(|&huge| pool.ready[huge as usize].len() < AHEAD[huge as usize]);
            if let Some(huge) = lacking {
                return pool.fresh().map(|slab| (slab, huge));
            }
            pool = self.wanted.wait(pool).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn touch(&self, slab: u32, huge: bool) -> rustix::io::Result<()> {
        if huge {
            self.make_huge(slab);
        }
        let piece = if huge { SLAB_BYTES } else { PIECE_BYTES };
        (0..SLAB_BYTES).step_by(piece).try_for_each(|from| {
            let at = self.address(slab).wrapping_add(from);
            // SAFETY: the slab is inside the mapping, which the arena keeps until this thread has ended; what its pages hold stays.
            unsafe { madvise(at.cast(), piece, Advice::LinuxPopulateWrite) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Arena;
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn slabs_are_touched_ahead_and_none_is_given_out_twice() {
        let arena = Arena::with_reserve(256 << 20).unwrap();
        let slabs = &arena.slabs;
        let mut seen = HashSet::new();
        (1..SLABS_BEFORE).for_each(|_| assert!(seen.insert(slabs.take(false))));
        assert!(lock(&slabs.thread).is_none(), "a small store has no such thread");
        let ready = || lock(&slabs.shared.pool).ready.clone();
        for taken in SLABS_BEFORE..50 {
            assert!(seen.insert(slabs.take(taken % 5 == 0)), "{seen:?}");
            if taken % 7 == 0 {
                wait_until_ready(slabs);
                assert!(ready().iter().flatten().all(|&slab| is_touched(&slabs.shared, slab)), "of {seen:?}");
            }
        }
        let mut back: Vec<u32> = seen.drain().collect();
        slabs.give_back(&mut back);
        // To the end of the address space but for what the thread may have taken
        (6..256 / 2 / 2).for_each(|_| assert!(seen.insert(slabs.take(false))));
    }

    fn wait_until_ready(slabs: &Slabs) {
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while lock(&slabs.shared.pool).ready.each_ref().map(Vec::len) != AHEAD {
            assert!(std::time::Instant::now() < until, "nothing is prepared");
            std::thread::yield_now();
        }
    }

    /// Whether the kernel has memory for all of it.
    fn is_touched(shared: &Shared, slab: u32) -> bool {
        let mut pages = vec![0u8; SLAB_BYTES / 4096];
        // SAFETY: the slab is mapped, and there is a byte for each of its pages.
        let result = unsafe { libc::mincore(shared.address(slab).cast(), SLAB_BYTES, pages.as_mut_ptr()) };
        assert_eq!(result, 0);
        pages.iter().all(|page| page & 1 == 1)
    }

    #[test]
    fn what_was_given_back_is_taken_before_anything_fresh() {
        let arena = Arena::with_reserve(256 << 20).unwrap();
        let slabs = &arena.slabs;
        for round in 0..20 {
            let mut taken: Vec<u32> = (0..10).map(|n| slabs.take(n % 3 == 0)).collect();
            slabs.give_back(&mut taken);
            wait_until_ready(slabs);
            // The ten, and what the thread keeps ready
            let most = 1 + 10 + AHEAD.iter().sum::<usize>() as u32;
            assert!(lock(&slabs.shared.pool).next <= most, "round {round}: {}", lock(&slabs.shared.pool).next);
        }
    }

    #[test]
    fn an_arena_goes_while_its_memory_is_prepared() {
        for taken in 0..20 {
            let arena = Arena::with_reserve(256 << 20).unwrap();
            (0..taken).for_each(|_| assert!(arena.slabs.take(false) > 0));
        }
    }
}
