//! What calls cost: counted with plain additions where they run, moved to the node's totals once a chunk.
//!
//! Nobody looks at a clock per call: the time of a chunk is measured and shared out among its calls by their operations, which for a chunk
//! of one call (or of calls of one kind) is exact.

/// What calls of one command have cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    pub calls: u64,
    pub failed: u64,
    /// Refused before they ran: no calls.
    pub rejected: u64,
    pub ops: u64,
    pub locs: u64,
    pub nanos: u64,
}

impl Counter {
    pub fn add(&mut self, more: Counter) {
        self.calls += more.calls;
        self.failed += more.failed;
        self.rejected += more.rejected;
        self.ops += more.ops;
        self.locs += more.locs;
        self.nanos += more.nanos;
    }
}

/// Calls by latency: bucket `i` holds those below 2^i nanoseconds and not below half of that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram(pub [u64; 32]);

impl Histogram {
    /// Nothing was timed.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|n| *n == 0)
    }

    fn add(&mut self, nanos: u64, calls: u64) {
        let bucket = (u64::BITS - nanos.leading_zeros()) as usize;
        self.0[bucket.min(self.0.len() - 1)] += calls;
    }

    /// An upper bound of the latency, in nanoseconds, that this share (0 to 100) of the calls did not exceed.
    pub fn percentile(&self, percent: f64) -> u64 {
        let calls: u64 = self.0.iter().sum();
        let wanted = ((calls as f64 * percent / 100.0).ceil() as u64).max(1);
        let mut seen = 0;
        let at = self.0.iter().position(|n| {
            seen += n;
            seen >= wanted
        });
        1 << at.unwrap_or(0)
    }
}

/// All that is remembered of one command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    pub counter: Counter,
    pub latency: Histogram,
}

impl Total {
    pub fn add(&mut self, more: &Total) {
        self.counter.add(more.counter);
        self.latency.0.iter_mut().zip(more.latency.0).for_each(|(a, b)| *a += b);
    }

    /// One call that took so long.
    pub fn of_call(nanos: u64, failed: bool) -> Total {
        let counter = Counter { calls: 1, failed: failed.into(), nanos, ..Counter::default() };
        let mut latency = Histogram::default();
        latency.add(nanos, 1);
        Total { counter, latency }
    }
}

/// What is remembered of all commands, by their numbers in the code table.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    pub commands: Vec<Total>,
    /// Lookups of keys by reads.
    pub hits: u64,
    pub misses: u64,
}

impl Totals {
    pub fn add(&mut self, more: &Totals) {
        let len = self.commands.len().max(more.commands.len());
        self.commands.resize(len, Total::default());
        for (total, more) in self.commands.iter_mut().zip(&more.commands) {
            total.add(more);
        }
        self.hits += more.hits;
        self.misses += more.misses;
    }
}

/// The call of a chunk that took the most operations.
#[derive(Clone, Debug, Default)]
pub struct Costliest {
    pub command: usize,
    pub ops: u64,
    pub words: Vec<u64>,
    /// A read beside the log: its words point into the plan's blob.
    pub rider: bool,
}

/// Costs of one runner's calls since they were last drained.
#[derive(Clone, Debug, Default)]
pub struct Costs {
    /// Commands of the table.
    commands: usize,
    /// Of those that were called: few between two drains, mostly one.
    counters: Vec<(usize, Counter)>,
    pub costliest: Costliest,
    pub hits: u64,
    pub misses: u64,
}

impl Costs {
    pub fn new(commands: usize) -> Costs {
        Costs { commands, ..Costs::default() }
    }

    #[inline]
    pub fn count(&mut self, command: usize, failed: bool, ops: u64, locs: u64, words: &[u64], rider: bool) {
        // Calls of one command mostly follow each other
        let counter = match self.counters.last_mut() {
            Some((last, counter)) if *last == command => counter,
            _ => self.counter(command),
        };
        counter.calls += 1;
        counter.failed += u64::from(failed);
        counter.ops += ops;
        counter.locs += locs;
        if ops > self.costliest.ops {
            let mut kept = std::mem::take(&mut self.costliest.words);
            kept.clear();
            kept.extend_from_slice(words);
            self.costliest = Costliest { command, ops, words: kept, rider };
        }
    }

    fn counter(&mut self, command: usize) -> &mut Counter {
        let at = self.counters.iter().position(|(known, _)| *known == command).unwrap_or_else(|| {
            self.counters.push((command, Counter::default()));
            self.counters.len() - 1
        });
        &mut self.counters[at].1
    }

    /// Moves everything into `totals`, and `nanos` shared out by operations. Tells the sum, and how much of the time the costliest
    /// call took, in nanoseconds; what it was is forgotten at the next drain.
    pub fn drain(&mut self, nanos: u64, totals: &mut Totals) -> (Counter, u64) {
        if totals.commands.len() < self.commands {
            totals.commands.resize(self.commands, Total::default());
        }
        let ops: u64 = self.counters.iter().map(|(_, counter)| counter.ops).sum::<u64>().max(1);
        let share = |part: u64| (nanos as u128 * part as u128 / ops as u128) as u64;
        let mut sum = Counter::default();
        for (command, mut counter) in self.counters.drain(..) {
            counter.nanos = share(counter.ops);
            sum.add(counter);
            let total = &mut totals.commands[command];
            total.counter.add(counter);
            total.latency.add(counter.nanos / counter.calls.max(1), counter.calls);
        }
        totals.hits += std::mem::take(&mut self.hits);
        totals.misses += std::mem::take(&mut self.misses);
        (sum, share(std::mem::take(&mut self.costliest.ops)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_shared_out_by_operations_and_nothing_is_counted_twice() {
        let (mut costs, mut totals) = (Costs::new(3), Totals::default());
        costs.count(2, false, 30, 1, &[7], false);
        costs.count(0, true, 10, 1, &[8], true);
        costs.count(2, false, 0, 1, &[9], false);
        let (sum, longest) = costs.drain(4000, &mut totals);
        assert_eq!((sum.calls, sum.failed, sum.ops, sum.nanos, longest), (3, 1, 40, 4000, 3000));
        assert_eq!((totals.commands.len(), totals.commands[2].counter.calls), (3, 2));
        assert_eq!((costs.costliest.command, costs.costliest.words.as_slice()), (2, &[7][..]));
        assert_eq!(totals.commands[2].counter.nanos, 3000);
        assert_eq!(totals.commands[2].latency.percentile(50.0), 2048);
        assert_eq!(costs.drain(9, &mut totals).0, Counter::default());
        assert_eq!(totals.commands[0].counter.calls, 1);
    }
}
