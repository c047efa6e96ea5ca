//! The last minutes, a sample a second: so that a page just opened has charts, and quantiles are of now and not of ever.

use crate::base::histogram::Distribution;
use crate::gateway::Shared;
use crate::gateway::backend::{Backend, Timings};
use crate::gateway::observe::process_bytes;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

pub const EVERY: Duration = Duration::from_secs(1);
/// Five minutes.
const SAMPLES_MAX: usize = 300;
/// [`History::recent`] is about so many seconds.
const RECENT: usize = 10;

/// p50, p99 and p99.9.
pub const SHARES: [f64; 3] = [0.5, 0.99, 0.999];

/// One second. Rates are per second, quantiles those of [`SHARES`] in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// Milliseconds since 1970.
    pub time: i64,
    pub epochs: f64,
    pub batches: f64,
    pub commands: f64,
    pub reads: f64,
    pub writes: f64,
    pub wait: [f64; 3],
    pub commit: [f64; 3],
    pub sync: [f64; 3],
    pub apply: [f64; 3],
    pub clients: usize,
    pub resident_bytes: u64,
    pub window_bytes: u64,
    /// Entries that the node furthest behind lacks; known to the leader.
    pub lag: Option<u64>,
}

/// Counters at one moment.
struct Reading {
    at: Instant,
    epoch: u64,
    batches: u64,
    commands: u64,
    reads: u64,
    writes: u64,
}

impl Reading {
    fn take<B: Backend>(shared: &Shared<B>, timings: &Timings) -> Reading {
        let totals = &shared.totals;
        Reading {
            at: Instant::now(),
            epoch: shared.backend.epoch().0,
            batches: timings.batches,
            commands: totals.commands.load(Relaxed),
            reads: totals.reads.load(Relaxed),
            writes: totals.writes.load(Relaxed),
        }
    }
}

pub struct History {
    samples: VecDeque<Sample>,
    /// The newest last; never empty.
    timings: VecDeque<Timings>,
    last: Reading,
}

impl History {
    pub fn new<B: Backend>(shared: &Shared<B>) -> History {
        let timings = shared.backend.timings();
        let last = Reading::take(shared, &timings);
        History { samples: VecDeque::new(), timings: VecDeque::from([timings]), last }
    }

    pub fn sample<B: Backend>(&mut self, shared: &Shared<B>) {
        let timings = shared.backend.timings();
        let now = Reading::take(shared, &timings);
        let seconds = now.at.duration_since(self.last.at).as_secs_f64();
        if seconds < 0.1 {
            return;
        }
        let before = self.timings.back().cloned().unwrap_or_default();
        let second = timings.since(&before);
        let facts = shared.backend.facts();
        // `CONFIG RESETSTAT` makes totals smaller
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        let last = &self.last;
        self.samples.push_back(Sample {
            time: shared.backend.now_ms(),
            epochs: rate(now.epoch, last.epoch),
            batches: rate(now.batches, last.batches),
            commands: rate(now.commands, last.commands),
            reads: rate(now.reads, last.reads),
            writes: rate(now.writes, last.writes),
            wait: milliseconds(&second.batch_wait),
            commit: milliseconds(&second.commit),
            sync: milliseconds(&second.sync),
            apply: milliseconds(&second.apply),
            clients: shared.clients.len(),
            resident_bytes: process_bytes("VmRSS"),
            window_bytes: facts.window_bytes,
            lag: facts.peers.iter().filter(|peer| peer.4).map(|peer| peer.3).max(),
        });
        self.last = now;
        self.timings.push_back(timings);
        if self.samples.len() > SAMPLES_MAX {
            self.samples.pop_front();
        }
        if self.timings.len() > RECENT + 1 {
            self.timings.pop_front();
        }
    }

    /// What took how long in the last ten seconds.
    pub fn recent(&self) -> Timings {
        match (self.timings.front(), self.timings.back()) {
            (Some(first), Some(last)) => last.since(first),
            _ => Timings::default(),
        }
    }

    pub fn after(&self, time: i64) -> Vec<Sample> {
        self.samples.iter().filter(|sample| sample.time > time).cloned().collect()
    }
}

fn milliseconds(of: &Distribution) -> [f64; 3] {
    SHARES.map(|share| of.quantile(share).as_secs_f64() * 1e3)
}
