//! Who has which slab, memory that is there before it is asked for, and pages that become huge when there is time.
//!
//! While the window fills, SETs write fresh memory, and the first touch of each page waits for the kernel to find one and to
//! clear it: a fifth of a SET's processor time, all of it in apply. So a thread touches the next slabs beforehand, beside
//! whatever else runs (`redis-benchmark -t set -r 1000000 -d 64 -P 64`: 9 % more a second, paired medians). It starts when a store has
//! grown past a few slabs and keeps [`AHEAD`] of them ready; who finds none ready touches its own.
//!
//! Small pages are the quicker ones to touch, huge ones the quicker ones to walk: with entries all over 500 MB each lookup waits for
//! the walk of a page table. So once the store grows no more the thread merges the small pages of each slab to a huge one, one slab at
//! a time and with rests, for whoever needs the slab meanwhile waits (the same after 4 M SETs and 45 s: 15 % more a second, paired medians).

use super::{SLAB_BYTES, lock};
use rustix::mm::{Advice, madvise};
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Slabs kept ready: of small pages, and of huge ones.
const AHEAD: [usize; 2] = [2, 1];
/// Smaller stores touch their own.
const SLABS_BEFORE: u32 = 4;
/// So many small pages are touched in one piece: others who change the map of the memory have to wait for the end of it, some tens
/// of microseconds.
const PIECE_BYTES: usize = 64 << 10;
/// The store has stopped growing when no fresh slab was taken for so long.
const QUIET: Duration = Duration::from_secs(1);
/// From one merge to the next: a merge takes up to 9 ms of a processor, and GETs at pipeline 1 lost 6 % to ten a second.
const REST: Duration = Duration::from_millis(400);
/// MADV_COLLAPSE of Linux 6.1.
const COLLAPSE: libc::c_int = 25;

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
    /// Slabs of small pages that were given out and not merged yet. None: this machine merges none.
    small: Option<Vec<u32>>,
    closed: bool,
}

/// What the thread does next.
enum Task {
    Touch { slab: u32, huge: bool },
    Merge(u32),
}

impl Slabs {
    /// Of the mapping at `base`, which outlives this.
    pub(super) fn new(base: *mut u8, end: u32) -> Slabs {
        let (returned, ready, small) = (Vec::new(), Default::default(), Some(Vec::new()));
        let pool = Pool { next: 1, end, returned, ready, small, closed: false };
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
        if !huge
            && returned.is_none()
            && let Some(small) = &mut pool.small
        {
            small.extend(slab);
        }
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
        let mut merged_at = 0;
        while let Some(task) = self.wait(&mut merged_at) {
            match task {
                Task::Touch { slab, huge } => {
                    let touched = self.touch(slab, huge);
                    lock(&self.pool).ready[huge as usize].push(slab);
                    if let Err(e) = touched {
                        // Linux before 5.14, or no memory to be had; a first touch will tell
                        return tracing::debug!("no memory is touched ahead: {e}");
                    }
                }
                Task::Merge(slab) => {
                    if let Err(e) = self.merge(slab) {
                        tracing::debug!("small pages stay: {e}");
                        // An older Linux, or one without huge pages. Any other reason is this slab's
                        lock(&self.pool).small.take_if(|_| e.raw_os_error() == Some(libc::EINVAL));
                    }
                }
            }
        }
    }

    /// The next task. None: the arena goes, or is used up. `merged_at`: how far the store had grown at the last merge.
    fn wait(&self, merged_at: &mut u32) -> Option<Task> {
        let mut pool = lock(&self.pool);
        loop {
            if pool.closed {
                return None;
            }
            let lacking =
                [false, true].into_iter().find(|&huge| pool.ready[huge as usize].len() < AHEAD[huge as usize]);
            if let Some(huge) = lacking {
                return pool.fresh().map(|slab| Task::Touch { slab, huge });
            }
            if pool.small.as_ref().is_none_or(Vec::is_empty) {
                pool = self.wanted.wait(pool).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let grown = pool.next;
            let pause = if grown == *merged_at { REST } else { QUIET };
            let (after, timeout) = self.wanted.wait_timeout(pool, pause).unwrap_or_else(PoisonError::into_inner);
            pool = after;
            if timeout.timed_out()
                && pool.next == grown
                && let Some(slab) = pool.small.as_mut().and_then(Vec::pop)
            {
                *merged_at = grown;
                return Some(Task::Merge(slab));
            }
        }
    }

    fn merge(&self, slab: u32) -> io::Result<()> {
        // SAFETY: the slab is inside the mapping, which the arena keeps until this thread has ended; what its pages hold stays.
        match unsafe { libc::madvise(self.address(slab).cast(), SLAB_BYTES, COLLAPSE) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
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
    fn what_was_small_is_merged_when_the_store_grows_no_more() {
        let arena = Arena::with_reserve(256 << 20).unwrap();
        let slabs = &arena.slabs;
        let taken: Vec<u32> = (0..10).map(|_| slabs.take(false)).collect();
        // SAFETY: nobody else knows the slabs.
        let bytes = |slab| unsafe { std::slice::from_raw_parts_mut(slabs.shared.address(slab), SLAB_BYTES) };
        for &slab in &taken {
            bytes(slab).fill(slab as u8);
        }
        let begun = std::time::Instant::now();
        while lock(&slabs.shared.pool).small.as_ref().is_some_and(|small| !small.is_empty()) {
            assert!(begun.elapsed() < Duration::from_secs(60), "nothing is merged");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(begun.elapsed() >= QUIET, "it waits until the store is quiet");
        for &slab in &taken {
            assert!(bytes(slab).iter().all(|&byte| byte == slab as u8), "what slab {slab} held stays");
        }
        let huge = huge_bytes(slabs.shared.base, 256 << 20) / SLAB_BYTES;
        // The last one may be on its way, and the kernel may have no huge page to give, or none just then
        let refused = taken.iter().filter(|&&slab| slabs.shared.merge(slab).is_err()).count();
        assert!(huge + refused >= 5, "{huge} slabs are huge, {refused} are refused");
    }

    /// Bytes of huge pages between `base` and so many bytes behind it.
    fn huge_bytes(base: usize, len: usize) -> usize {
        // The kernel shows neighbouring mappings of one kind as one; this makes it another kind
        // SAFETY: what the pages hold stays.
        unsafe { madvise(base as *mut _, len, Advice::LinuxDontDump) }.unwrap();
        let mut within = false;
        let mut sum = 0;
        for line in std::fs::read_to_string("/proc/self/smaps").unwrap().lines() {
            let mut words = line.split_whitespace();
            let first = words.next().unwrap_or_default();
            if let Some((from, _)) = first.split_once('-') {
                within = usize::from_str_radix(from, 16).is_ok_and(|from| (base..base + len).contains(&from));
            } else if within && first == "AnonHugePages:" {
                sum += words.next().and_then(|kb| kb.parse::<usize>().ok()).unwrap_or(0) << 10;
            }
        }
        sum
    }

    #[test]
    fn an_arena_goes_while_its_memory_is_prepared() {
        for taken in 0..20 {
            let arena = Arena::with_reserve(256 << 20).unwrap();
            (0..taken).for_each(|_| assert!(arena.slabs.take(false) > 0));
        }
    }
}
