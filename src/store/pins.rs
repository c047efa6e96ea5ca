//! Publish and pin: how readers keep what they read from being freed, without a lock on either side.
//!
//! The writer *publishes* a root, fences, looks at all pins, and frees what only roots older than every pin and than the
//! window reach. A reader *announces* a sub-batch, fences, and only then takes a root at or after it. Of the two fences one
//! comes first: either the writer sees the announcement, or the reader sees the newer root. (Hazard pointers' argument,
//! Michael 2004, with sub-batch numbers for pointers.)
//!
//! This file uses nothing else of the store, so that loom can model it (`tests/loom`).

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

/// A slot nobody has.
const FREE: u64 = u64::MAX;
/// A slot somebody has, who reads nothing now.
const IDLE: u64 = u64::MAX - 1;
/// Announced while looking for a root of the past: nothing at all may be freed meanwhile.
const EVERYTHING: u64 = 0;

/// Its own cache line (two: processors prefetch in pairs).
#[repr(align(128))]
struct Padded(AtomicU64);

/// One announcement a reader.
pub struct Pins {
    slots: Box<[Padded]>,
    /// Slots from here on were never taken.
    high: AtomicUsize,
}

/// The newest root. `sub_batch` follows `root`: it may lag, never lead.
pub struct Published {
    root: AtomicU64,
    sub_batch: AtomicU64,
}

impl Published {
    pub fn new(root: u64, sub_batch: u64) -> Published {
        Published { root: AtomicU64::new(root), sub_batch: AtomicU64::new(sub_batch) }
    }
    /// The writer's side; follow it by [`Pins::oldest`] before anything is freed.
    pub fn publish(&self, root: u64, sub_batch: u64) {
        self.root.store(root, Ordering::Release);
        self.sub_batch.store(sub_batch, Ordering::Release);
    }
    /// The newest root's word. Only a pinned reader may follow it.
    pub fn root(&self) -> u64 {
        self.root.load(Ordering::Acquire)
    }
    pub fn sub_batch(&self) -> u64 {
        self.sub_batch.load(Ordering::Acquire)
    }
}

impl Pins {
    pub fn new(slots: usize) -> Pins {
        Pins { slots: (0..slots).map(|_| Padded(AtomicU64::new(FREE))).collect(), high: AtomicUsize::new(0) }
    }

    /// Takes a slot; none when all are taken.
    pub fn claim(&self) -> Option<usize> {
        for (i, slot) in self.slots.iter().enumerate() {
            if slot.0.load(Ordering::Relaxed) == FREE
                && slot.0.compare_exchange(FREE, IDLE, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            {
                self.high.fetch_max(i + 1, Ordering::SeqCst);
                return Some(i);
            }
        }
        None
    }

    pub fn release(&self, slot: usize) {
        self.slots[slot].0.store(FREE, Ordering::Release);
    }

    /// Pins the newest root and gives its word. It stays whole until `unpin`.
    #[inline]
    pub fn pin_newest(&self, slot: usize, published: &Published) -> u64 {
        self.slots[slot].0.store(published.sub_batch(), Ordering::Relaxed);
        fence(Ordering::SeqCst);
        published.root()
    }

    /// Stops all freeing while a root of the past is looked for; follow it by `pin_at` or `unpin` soon.
    pub fn pin_everything(&self, slot: usize) {
        self.slots[slot].0.store(EVERYTHING, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Pins the root of `sub_batch`, found under `pin_everything`.
    pub fn pin_at(&self, slot: usize, sub_batch: u64) {
        self.slots[slot].0.store(sub_batch, Ordering::Release);
    }

    #[inline]
    pub fn unpin(&self, slot: usize) {
        self.slots[slot].0.store(IDLE, Ordering::Release);
    }

    /// The writer's side: the oldest sub-batch that a reader may be reading, or `limit` if that is older. Whatever was published,
    /// or taken out of the window, before this call is seen by readers that it does not see.
    pub fn oldest(&self, limit: u64) -> u64 {
        fence(Ordering::SeqCst);
        let high = self.high.load(Ordering::SeqCst);
        self.slots[..high].iter().map(|s| s.0.load(Ordering::Acquire)).fold(limit, u64::min)
    }
}
