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
        assert!(roots.is_power_of_two());
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
        let place = (number & (self.capacity - 1)) as usize;
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
        self.search(i64::MAX, by_epoch).newest
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
        let seen = self.search(number(epoch).saturating_add(1), by_epoch);
        if epoch > seen.newest.epoch {
            return Err(WindowError::Future { upper: seen.newest.epoch.next() });
        }
        seen.before.ok_or(WindowError::TooOld { since: seen.oldest.epoch })
    }

    /// The first kept root that shows `epoch`, which is of the batch that made it: batches without an epoch of their own may have
    /// come later. The root before it is kept too, unless it shows just this epoch. The caller has announced "everything".
    pub fn showing(&self, epoch: Epoch) -> Result<KeptRoot, WindowError> {
        let seen = self.search(number(epoch), by_epoch);
        match seen.from {
            None => Err(WindowError::Future { upper: seen.newest.epoch.next() }),
            Some(first) if seen.before.is_none() && first.epoch > epoch => {
                Err(WindowError::TooOld { since: first.epoch })
            }
            Some(first) => Ok(first),
        }
    }

    /// The newest epoch at log time `time` or before; None when the window does not reach back so far.
    pub fn epoch_at(&self, time: Millis) -> Option<Epoch> {
        self.search(time.saturating_add(1), |kept| kept.time).before.map(|kept| kept.epoch)
    }

    /// The oldest epoch whose state is kept.
    pub fn since(&self) -> Epoch {
        self.search(i64::MAX, by_epoch).oldest.epoch
    }

    /// The roots on both sides of `least`, in an order in which they were kept.
    fn search(&self, least: i64, order: impl Fn(&KeptRoot) -> i64) -> Seen {
        loop {
            let tail = self.tail.load(Ordering::SeqCst);
            let head = self.head.load(Ordering::Acquire);
            let (oldest, newest) = (self.kept(tail), self.kept(head - 1));
            let (first, last) = (order(&oldest) as f64, order(&newest) as f64);
            // Where it is if roots came at an even pace
            let ahead = ((least as f64 - first) / (last - first) * (head - 1 - tail) as f64) as u64;
            let guess = tail.saturating_add(ahead).min(head - 1);
            let from = first_from(tail, head, guess, |number| order(&self.kept(number)) < least);
            let before = (from > tail).then(|| self.kept(from - 1));
            let from = (from < head).then(|| self.kept(from));
            fence(Ordering::Acquire);
            // The writer may have let go of what was just read, and have turned the ring over it.
            if self.tail.load(Ordering::SeqCst) == tail {
                return Seen { before, from, oldest, newest };
            }
        }
    }
}

/// The first of `low..high` that is not below, where those below come first; `high` if all are. Looked for from `near` on, in
/// growing steps, then by halves.
fn first_from(mut low: u64, mut high: u64, mut near: u64, below: impl Fn(u64) -> bool) -> u64 {
    let mut step = 1;
    while low < high {
        if !(low..high).contains(&near) {
            near = low + (high - low) / 2;
        }
        if below(near) {
            low = near + 1;
            near += step;
        } else {
            high = near;
            near = near.saturating_sub(step);
        }
        step *= 2;
    }
    low
}

fn by_epoch(kept: &KeptRoot) -> i64 {
    number(kept.epoch)
}

fn number(epoch: Epoch) -> i64 {
    i64::try_from(epoch.0).unwrap_or(i64::MAX)
}

struct Seen {
    /// The last root below what was looked for, and the first that is not.
    before: Option<KeptRoot>,
    from: Option<KeptRoot>,
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
        for epoch in 71..=100 {
            assert_eq!(w.showing(Epoch(epoch)).unwrap().epoch.0, epoch.next_multiple_of(10));
        }
        assert_eq!(w.showing(Epoch(70)).unwrap().epoch, Epoch(70));
        assert_eq!(w.showing(Epoch(69)), Err(WindowError::TooOld { since: Epoch(70) }));
        assert_eq!(w.showing(Epoch(101)), Err(WindowError::Future { upper: Epoch(101) }));
        assert_eq!(w.showing(Epoch(u64::MAX)), Err(WindowError::Future { upper: Epoch(101) }));
        assert_eq!(w.epoch_at(399), Some(Epoch(70)));
        assert_eq!(w.epoch_at(9999), Some(Epoch(100)));
        assert_eq!(w.epoch_at(3), None);
    }

    #[test]
    fn a_root_is_found_wherever_the_guess_of_its_place_lies() {
        let sorted: Vec<u64> = (0..200).map(|n| (n / 3) * n).collect();
        for least in 0..14_000 {
            let right = sorted.partition_point(|&v| v < least) as u64;
            for guess in [0, 1, right, right + 9, 100, 199, 200, u64::MAX] {
                let probes = std::cell::Cell::new(0);
                let below = |n: u64| {
                    probes.set(probes.get() + 1);
                    sorted[n as usize] < least
                };
                assert_eq!(first_from(0, 200, guess, below), right, "{least} from {guess}");
                assert!(probes.get() <= 17, "{} probes for {least} from {guess}", probes.get());
            }
        }
    }

    #[test]
    fn of_roots_of_one_epoch_the_first_shows_it() {
        let w = Window::with_capacity(root(1, 5), 8);
        for (n, epoch, time) in [(2, 20, 7), (3, 20, 9), (4, 20, 11), (5, 31, 12)] {
            w.push(KeptRoot { epoch: Epoch(epoch), ..root(n, time) });
        }
        assert_eq!((w.showing(Epoch(20)).unwrap().time, w.at_or_before(Epoch(20)).unwrap().time), (7, 11));
        assert_eq!((w.showing(Epoch(21)).unwrap().time, w.at_or_before(Epoch(30)).unwrap().time), (12, 11));
        w.push(KeptRoot { epoch: Epoch(31), ..root(6, 30) });
        assert_eq!((w.showing(Epoch(31)).unwrap().time, w.newest().time), (12, 30));
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
