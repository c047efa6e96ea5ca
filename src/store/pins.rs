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
/// Announced while looking for a root of the past: nothing at all may be freed meanwhile.
const EVERYTHING: u64 = 0;

/// Its own cache line (two: processors prefetch in pairs).
#[repr(align(128))]
struct Padded(AtomicU64);

/// One announcement a pinned root.
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

    /// Takes a slot, the first free one from `near` on, and announces a sub-batch in it; none when all are taken.
    #[inline]
    fn announce(&self, near: usize, sub_batch: u64) -> Option<usize> {
        let free = |&i: &usize| {
            let slot = &self.slots[i].0;
            // Acquire: whoever had the slot before is done with what it read, and the writer learns that from this announcement's end
            slot.load(Ordering::Relaxed) == FREE
                && slot.compare_exchange(FREE, sub_batch, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        let near = near.min(self.slots.len());
        let slot = (near..self.slots.len()).chain(0..near).find(free)?;
        if self.high.load(Ordering::Relaxed) <= slot {
            self.high.fetch_max(slot + 1, Ordering::SeqCst);
        }
        fence(Ordering::SeqCst);
        Some(slot)
    }

    /// Pins the newest root: the slot, to be given back by `unpin`, and the root's word. It stays whole until then. Slots are
    /// looked for from `near` on: a thread that gives the one it had last keeps to itself.
    #[inline]
    pub fn pin_newest(&self, near: usize, published: &Published) -> Option<(usize, u64)> {
        let slot = self.announce(near, published.sub_batch())?;
        Some((slot, published.root()))
    }

    /// Stops all freeing while a root of the past is looked for; follow it by `pin_at` or `unpin` soon.
    pub fn pin_everything(&self, near: usize) -> Option<usize> {
        self.announce(near, EVERYTHING)
    }

    /// Pins the root of `sub_batch`, found under `pin_everything`.
    pub fn pin_at(&self, slot: usize, sub_batch: u64) {
        self.slots[slot].0.store(sub_batch, Ordering::Release);
    }

    #[inline]
    pub fn unpin(&self, slot: usize) {
        self.slots[slot].0.store(FREE, Ordering::Release);
    }

    /// The writer's side: the oldest sub-batch that a reader may be reading, or `limit` if that is older. Whatever was published,
    /// or taken out of the window, before this call is seen by readers that it does not see.
    pub fn oldest(&self, limit: u64) -> u64 {
        fence(Ordering::SeqCst);
        let high = self.high.load(Ordering::SeqCst);
        self.slots[..high].iter().map(|s| s.0.load(Ordering::Acquire)).fold(limit, u64::min)
    }
}
