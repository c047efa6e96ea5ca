//! The window: kept roots, oldest first, in a ring that readers search without a lock.
//!
//! A root is kept while it is needed to read an epoch that is younger than `window-ms` or among the last `window-epochs`,
//! unless the nodes that only old roots reach exceed `window-bytes`. The newest root is always kept.
//!
//! Reader and writer: the reader announces "everything" (`pins.rs`), reads `tail`, searches, and looks at `tail` again. The writer
//! moves `tail` past a root before it asks for the oldest pin. So a root that a reader found is either pinned or still kept.

use crate::base::{Epoch, Millis, SubBatch};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering, fence};

use super::arena::Ref;

/// Most roots kept at once: as many as the default window has epochs.
const ROOTS_MAX: usize = 1 << 20;
const SEGMENT: usize = 4096;

/// Live settings of the window.
#[derive(Debug)]
pub struct WindowSettings {
    /// Milliseconds of log time.
    pub ms: AtomicI64,
    pub epochs: AtomicU64,
    /// Bytes of dead nodes held for the window's sake.
    pub bytes: AtomicU64,
}

impl Default for WindowSettings {
    fn default() -> Self {
        WindowSettings { ms: AtomicI64::new(15_000), epochs: AtomicU64::new(1_000_000), bytes: AtomicU64::new(2 << 30) }
    }
}

/// Why an epoch cannot be read from memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// Older than the window; `since` is its first epoch.
    #[error("EPOCHTOOOLD since={since}")]
    TooOld { since: Epoch },
    /// Not happened yet; `upper` is the next epoch that will.
    #[error("EPOCHFUTURE upper={upper}")]
    Future { upper: Epoch },
    /// Every pin slot is taken.
    #[error("ERR too many concurrent snapshots")]
    TooManyReaders,
}

/// A kept root: the state after `epoch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptRoot {
    pub root: Ref,
    pub sub_batch: SubBatch,
    pub epoch: Epoch,
    pub time: Millis,
}

#[derive(Default)]
struct Cell {
    root: AtomicU64,
    sub_batch: AtomicU64,
    epoch: AtomicU64,
    time: AtomicI64,
}

pub struct Window {
    /// Made when first used: most stores never keep so many roots.
    segments: Box<[OnceLock<Box<[Cell]>>]>,
    /// Number of the oldest kept root, and of the next one to be kept.
    tail: AtomicU64,
    head: AtomicU64,
    capacity: u64,
    pub settings: WindowSettings,
}

impl Window {
    pub fn new(first: KeptRoot) -> Window {
        Window::with_capacity(first, ROOTS_MAX)
    }

    fn with_capacity(first: KeptRoot, roots: usize) -> Window {
        let window = Window {
            segments: (0..roots.div_ceil(SEGMENT)).map(|_| OnceLock::new()).collect(),
            capacity: roots as u64,
            tail: AtomicU64::new(0),
            head: AtomicU64::new(0),
            settings: WindowSettings::default(),
        };
        window.push(first);
        window
    }

    fn cell(&self, number: u64) -> &Cell {
        let place = (number % self.capacity) as usize;
        let segment = self.segments[place / SEGMENT].get_or_init(|| (0..SEGMENT).map(|_| Cell::default()).collect());
        &segment[place % SEGMENT]
    }

    fn kept(&self, number: u64) -> KeptRoot {
        let cell = self.cell(number);
        KeptRoot {
            root: Ref(cell.root.load(Ordering::Relaxed)),
            sub_batch: SubBatch(cell.sub_batch.load(Ordering::Relaxed)),
            epoch: Epoch(cell.epoch.load(Ordering::Relaxed)),
            time: cell.time.load(Ordering::Relaxed),
        }
    }

    /// Roots kept now.
    pub fn len(&self) -> u64 {
        self.head.load(Ordering::Acquire) - self.tail.load(Ordering::Acquire)
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    pub fn is_full(&self) -> bool {
        self.len() >= self.capacity
    }
    /// The newest kept root.
    pub fn newest(&self) -> KeptRoot {
        self.search(|_| true).newest
    }
    /// The oldest kept root. The writer's call.
    pub fn oldest(&self) -> KeptRoot {
        self.kept(self.tail.load(Ordering::Acquire))
    }

    /// The writer keeps one root more. There must be room: see [`Window::release_one`].
    pub fn push(&self, kept: KeptRoot) {
        let head = self.head.load(Ordering::Relaxed);
        assert!(head - self.tail.load(Ordering::Relaxed) < self.capacity, "the window's ring is full");
        let cell = self.cell(head);
        cell.root.store(kept.root.0, Ordering::Relaxed);
        cell.sub_batch.store(kept.sub_batch.0, Ordering::Relaxed);
        cell.epoch.store(kept.epoch.0, Ordering::Relaxed);
        cell.time.store(kept.time, Ordering::Relaxed);
        self.head.store(head + 1, Ordering::Release);
    }

    /// The writer lets the oldest root go if the settings want it no longer (or the ring is full), the newest never.
    pub fn release_one(&self, dead_bytes: u64) -> Option<KeptRoot> {
        let (tail, head) = (self.tail.load(Ordering::Relaxed), self.head.load(Ordering::Relaxed));
        if head - tail < 2 {
            return None;
        }
        let (oldest, next, newest) = (self.kept(tail), self.kept(tail + 1), self.kept(head - 1));
        let full = head - tail >= self.capacity;
        let over = dead_bytes > self.settings.bytes.load(Ordering::Relaxed);
        let old = next.time <= newest.time.saturating_sub(self.settings.ms.load(Ordering::Relaxed))
            && newest.epoch.0 - next.epoch.0 >= self.settings.epochs.load(Ordering::Relaxed);
        (full || over || old).then(|| {
            self.tail.store(tail + 1, Ordering::SeqCst);
            oldest
        })
    }

    /// The newest kept root whose epoch is at most `epoch`. The caller has announced "everything".
    pub fn at_or_before(&self, epoch: Epoch) -> Result<KeptRoot, WindowError> {
        let seen = self.search(|kept| kept.epoch <= epoch);
        if epoch > seen.newest.epoch {
            return Err(WindowError::Future { upper: seen.newest.epoch.next() });
        }
        seen.found.ok_or(WindowError::TooOld { since: seen.oldest.epoch })
    }

    /// The newest epoch at log time `time` or before; None when the window does not reach back so far.
    pub fn epoch_at(&self, time: Millis) -> Option<Epoch> {
        self.search(|kept| kept.time <= time).found.map(|kept| kept.epoch)
    }

    /// The oldest epoch whose state is kept.
    pub fn since(&self) -> Epoch {
        self.search(|_| true).oldest.epoch
    }

    /// The newest root for which `holds`, which holds for all older ones if for any.
    fn search(&self, holds: impl Fn(&KeptRoot) -> bool) -> Seen {
        loop {
            let tail = self.tail.load(Ordering::SeqCst);
            let head = self.head.load(Ordering::Acquire);
            let (mut low, mut high) = (tail, head);
            while low < high {
                let mid = low + (high - low) / 2;
                if holds(&self.kept(mid)) { low = mid + 1 } else { high = mid }
            }
            let found = (low > tail).then(|| self.kept(low - 1));
            let (oldest, newest) = (self.kept(tail), self.kept(head - 1));
            fence(Ordering::Acquire);
            // The writer may have let go of what was just read, and have turned the ring over it.
            if self.tail.load(Ordering::SeqCst) == tail {
                return Seen { found, oldest, newest };
            }
        }
    }
}

struct Seen {
    found: Option<KeptRoot>,
    oldest: KeptRoot,
    newest: KeptRoot,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(n: u64, ms: i64) -> KeptRoot {
        KeptRoot { root: Ref(n * 16), sub_batch: SubBatch(n), epoch: Epoch(n * 10), time: ms }
    }

    #[test]
    fn root_is_kept_while_young_or_among_the_last_epochs() {
        let w = Window::with_capacity(root(0, 0), 64);
        w.settings.ms.store(100, Ordering::Relaxed);
        w.settings.epochs.store(30, Ordering::Relaxed);
        for n in 1..=10 {
            w.push(root(n, n as i64 * 50));
        }
        let mut gone = 0;
        while w.release_one(0).is_some() {
            gone += 1;
        }
        // Newest: epoch 100 at 500 ms. Root 7 (epoch 70, 350 ms) is the last that both limits let go of needing its predecessor.
        assert_eq!(gone, 7);
        assert_eq!(w.at_or_before(Epoch(69)), Err(WindowError::TooOld { since: Epoch(70) }));
        assert_eq!(w.at_or_before(Epoch(79)).unwrap().epoch, Epoch(70));
        assert_eq!(w.at_or_before(Epoch(100)).unwrap().epoch, Epoch(100));
        assert_eq!(w.at_or_before(Epoch(101)), Err(WindowError::Future { upper: Epoch(101) }));
        assert_eq!(w.epoch_at(399), Some(Epoch(70)));
        assert_eq!(w.epoch_at(9999), Some(Epoch(100)));
        assert_eq!(w.epoch_at(3), None);
    }

    #[test]
    fn byte_cap_and_full_ring_release_all_but_the_newest() {
        let w = Window::with_capacity(root(0, 0), 4);
        for n in 1..20 {
            while w.len() == 4 {
                assert!(w.release_one(0).is_some());
            }
            w.push(root(n, 0));
        }
        assert_eq!(w.len(), 4);
        while w.release_one(u64::MAX).is_some() {}
        assert_eq!(w.oldest(), root(19, 0));
    }
}
