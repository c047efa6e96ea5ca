//! How long things took: written by the one thread that does them, copied by whoever wants to know.
//!
//! ```text
//! bucket = 8 * (exponent - 8) + the three bits below the highest      (nanoseconds; a bucket is 1/8 of an octave wide)
//! ```
//!
//! From 256 ns to 137 s, so that a quantile is at most 12.5 % too high. Writing is two loads and two stores without a barrier.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Everything shorter than 2^8 ns counts as that …
const EXPONENT_MIN: u32 = 8;
/// … and everything from 2^37 ns on as a little less than that.
const EXPONENT_MAX: u32 = 37;
const PARTS: usize = 8;
const BUCKETS: usize = (EXPONENT_MAX - EXPONENT_MIN) as usize * PARTS;

/// Written by one thread at a time; a second one would only lose counts.
#[derive(Debug)]
pub struct Histogram {
    counts: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: [const { AtomicU64::new(0) }; BUCKETS], sum_ns: AtomicU64::new(0) }
    }
}

impl Histogram {
    pub fn record(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let add = |to: &AtomicU64, n: u64| to.store(to.load(Relaxed).wrapping_add(n), Relaxed);
        add(&self.counts[bucket(ns)], 1);
        add(&self.sum_ns, ns);
    }

    pub fn copy(&self) -> Distribution {
        Distribution {
            counts: self.counts.iter().map(|count| count.load(Relaxed)).collect(),
            sum: Duration::from_nanos(self.sum_ns.load(Relaxed)),
        }
    }
}

fn bucket(ns: u64) -> usize {
    let ns = ns.clamp(1 << EXPONENT_MIN, (1 << EXPONENT_MAX) - 1);
    let exponent = ns.ilog2();
    let part = (ns >> (exponent - PARTS.ilog2())) as usize % PARTS;
    (exponent - EXPONENT_MIN) as usize * PARTS + part
}

/// The first duration past a bucket.
fn end_of(bucket: usize) -> Duration {
    let (octave, part) = (bucket / PARTS, bucket % PARTS);
    let base = 1u64 << (EXPONENT_MIN as usize + octave);
    Duration::from_nanos(base + base / PARTS as u64 * (part as u64 + 1))
}

/// What a [`Histogram`] held at one moment.
#[derive(Clone, Debug, Default)]
pub struct Distribution {
    counts: Vec<u64>,
    pub sum: Duration,
}

impl Distribution {
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// What came after `earlier`, a copy of the same histogram.
    pub fn since(&self, earlier: &Distribution) -> Distribution {
        let before = earlier.counts.iter().copied().chain(std::iter::repeat(0));
        Distribution {
            counts: self.counts.iter().zip(before).map(|(now, before)| now.saturating_sub(before)).collect(),
            sum: self.sum.saturating_sub(earlier.sum),
        }
    }

    /// Not exceeded by this share of all; zero when there are none.
    pub fn quantile(&self, share: f64) -> Duration {
        let wanted = (self.count() as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let reached = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        reached.map_or(Duration::ZERO, end_of)
    }

    /// `(end, count)` of each octave, not cumulative: what Prometheus makes its own quantiles from.
    pub fn octaves(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let sums = self.counts.chunks(PARTS).map(|parts| parts.iter().sum());
        sums.enumerate().map(|(octave, sum)| (end_of(octave * PARTS + PARTS - 1), sum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_end_of_its_bucket_and_at_most_an_eighth_too_high() {
        let histogram = Histogram::default();
        for us in 1..=1000 {
            histogram.record(Duration::from_micros(us));
        }
        let all = histogram.copy();
        assert_eq!((all.count(), all.sum), (1000, Duration::from_micros(500_500)));
        for (share, exact) in [(0.5, 500), (0.99, 990), (0.999, 999), (1.0, 1000)] {
            let (got, exact) = (all.quantile(share), Duration::from_micros(exact));
            assert!(got > exact && got <= exact * 9 / 8, "{share}: {got:?} for {exact:?}");
        }
        assert_eq!(all.octaves().map(|(_, count)| count).sum::<u64>(), 1000);
        assert_eq!(Distribution::default().quantile(0.5), Duration::ZERO);
    }

    #[test]
    fn every_duration_has_the_bucket_that_ends_after_it() {
        for shift in 0..64 {
            for ns in [1u64 << shift, (1u64 << shift) + 1, u64::MAX >> shift] {
                let bucket = bucket(ns);
                let kept = ns.clamp(1 << EXPONENT_MIN, (1 << EXPONENT_MAX) - 1);
                assert!(Duration::from_nanos(kept) < end_of(bucket), "{ns}");
                assert!(bucket == 0 || Duration::from_nanos(kept) >= end_of(bucket - 1), "{ns}");
            }
        }
    }

    #[test]
    fn what_came_since_is_the_difference() {
        let histogram = Histogram::default();
        histogram.record(Duration::from_millis(1));
        let before = histogram.copy();
        histogram.record(Duration::from_secs(1));
        let after = histogram.copy().since(&before);
        assert_eq!((after.count(), after.sum), (1, Duration::from_secs(1)));
        assert!(after.quantile(0.5) > Duration::from_secs(1));
    }
}
