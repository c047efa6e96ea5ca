//! # base: words shared by every room
//!
//! Owns the ids, counts and limits that rooms exchange, the clock trait and the key hash. Promises
//! nothing beyond `std`; knows no room.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub mod batch;
pub mod glob;
pub mod histogram;
pub mod limits;
pub mod members;
pub mod planted;
pub mod words;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(pub u64);
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, concat!(stringify!($name), "({})"), self.0) }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{}", self.0) }
        }
        impl $name {
            pub const ZERO: $name = $name(0);
            pub fn next(self) -> $name { $name(self.0 + 1) }
        }
    };
}

id!(
    /// The number of one atomic mutation: gapless, totally ordered, the same on every node. 0 is the empty store.
    Epoch
);
id!(
    /// Position of an entry in the replicated log. The first entry is 1 (0 = nothing).
    LogIndex
);
id!(
    /// A node of the cluster; never reused.
    NodeId
);
id!(
    /// A page in the page store; fresh for every version of a page, never reused. 0 = none.
    PageId
);
id!(
    /// One start of one gateway (new for each start of a node). Chunks are numbered within it.
    GatewayId
);
id!(
    /// Number of a sub-batch: the unit of copy-on-write ownership. Grows by one at each kept root.
    SubBatch
);

/// Random bits from the operating system, for names and seeds. Not for the rooms where everything is deterministic.
pub fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let seed = || std::hash::RandomState::new().build_hasher().finish();
    mix64(seed() ^ mix64(seed()))
}

/// Wall-clock milliseconds since 1970-01-01 UTC.
pub type Millis = i64;

/// The clock a node reads. Nothing from `command` down may hold one.
pub trait Clock: Send + Sync {
    /// Wall-clock milliseconds since the Unix epoch; may jump.
    fn now_ms(&self) -> Millis;
    /// Monotonic microseconds since an arbitrary start.
    fn monotonic_us(&self) -> u64;
}

/// Measures for statistics. Nothing that is replicated may depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    pub fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }
    /// Nanoseconds since the start or the last lap.
    pub fn lap(&mut self) -> u64 {
        let before = std::mem::replace(&mut self.0, Instant::now());
        self.0.duration_since(before).as_nanos() as u64
    }
}

/// The machine's own clock.
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now_ms(&self) -> Millis {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as Millis)
    }
    fn monotonic_us(&self) -> u64 {
        self.0.elapsed().as_micros() as u64
    }
}

/// A clock that tests set by hand.
#[derive(Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    pub fn at(ms: Millis) -> Self {
        ManualClock(AtomicI64::new(ms))
    }
    pub fn advance(&self, ms: Millis) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> Millis {
        self.0.load(Ordering::SeqCst)
    }
    fn monotonic_us(&self) -> u64 {
        self.now_ms() as u64 * 1000
    }
}

/// Lets one caller pass in a while: for lines in the log that strangers can cause.
#[derive(Debug)]
pub struct Seldom {
    started: Instant,
    every_ms: u64,
    /// Milliseconds after `started` before which nobody passes.
    closed_until: AtomicU64,
}

impl Seldom {
    pub fn new(every: Duration) -> Seldom {
        Seldom { started: Instant::now(), every_ms: every.as_millis() as u64, closed_until: AtomicU64::new(0) }
    }

    pub fn may_pass(&self) -> bool {
        let now = self.started.elapsed().as_millis() as u64;
        let pass = |until| (now >= until).then_some(now + self.every_ms);
        self.closed_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pass).is_ok()
    }
}

/// Hashes keys. The seed is chosen once per cluster, in its first log entry, and kept in the replicated
/// state: it is persisted through the shape of the tries, and is secret to strangers, so that nobody can
/// prepare colliding keys. rapidhash: stable output for a fixed seed (ahash promises none).
#[derive(Clone, Copy)]
pub struct KeyHasher(rapidhash::v3::RapidSecrets);

impl KeyHasher {
    pub fn new(seed: u64) -> Self {
        KeyHasher(rapidhash::v3::RapidSecrets::seed_cpp(seed))
    }

    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        rapidhash::v3::rapidhash_v3_seeded(key, &self.0)
    }
}

/// A bit mixer with full avalanche (SplitMix64's finaliser), for digests and counter-mode random numbers.
#[inline]
pub fn mix64(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A word that nobody outside can guess, for what never becomes state (machine code hides constants with it).
pub fn unguessable() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
