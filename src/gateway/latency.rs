//! The latency monitor: calls that took at least `latency-monitor-threshold` milliseconds, as Redis's events `command` and
//! `fast-command`; the newest 160 samples of each, one a second.

use super::clients::locked;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

/// Samples kept of one event.
const SAMPLES_MAX: usize = 160;
/// Columns of a graph.
const COLUMNS: usize = 80;
const ROWS: usize = 4;
/// What a column is made of, low to high, and below its top.
const LEVELS: &[u8; 3] = b"_o#";

/// One event: `(second, milliseconds)`, oldest first, and the longest ever.
#[derive(Clone, Debug, Default)]
pub struct Event {
    pub samples: VecDeque<(i64, i64)>,
    pub max_ms: i64,
}

#[derive(Debug, Default)]
pub struct Latency(Mutex<BTreeMap<&'static str, Event>>);

impl Latency {
    /// Notes that a call took so long.
    pub fn note(&self, event: &'static str, second: i64, ms: i64) {
        let mut events = locked(&self.0);
        let event = events.entry(event).or_default();
        event.max_ms = event.max_ms.max(ms);
        match event.samples.back_mut() {
            Some((last, longest)) if *last == second => *longest = ms.max(*longest),
            _ => event.samples.push_back((second, ms)),
        }
        if event.samples.len() > SAMPLES_MAX {
            event.samples.pop_front();
        }
    }

    pub fn events(&self) -> BTreeMap<&'static str, Event> {
        locked(&self.0).clone()
    }

    /// Forgets these events, or all. Tells how many there were.
    pub fn reset(&self, names: &[&[u8]]) -> usize {
        let mut events = locked(&self.0);
        let before = events.len();
        let named = |event: &str| names.iter().any(|name| name.eq_ignore_ascii_case(event.as_bytes()));
        events.retain(|event, _| !names.is_empty() && !named(event));
        before - events.len()
    }
}

impl Event {
    /// The newest samples as columns of text, with their ages below.
    pub fn graph(&self, name: &str, now_s: i64) -> String {
        let shown: Vec<(i64, i64)> =
            self.samples.iter().skip(self.samples.len().saturating_sub(COLUMNS)).copied().collect();
        let (low, high) = (shown.iter().map(|s| s.1).min().unwrap_or(0), shown.iter().map(|s| s.1).max().unwrap_or(0));
        let mut text = format!("{name} - high {high} ms, low {low} ms (all time high {} ms)\n", self.max_ms);
        text += &format!("{}\n", "-".repeat(COLUMNS));
        let steps = (LEVELS.len() * ROWS) as i64;
        let step = |ms: i64| ((ms - low) * steps / (high - low).max(1)).min(steps - 1) as usize;
        for row in (0..ROWS).rev() {
            let column = |s: &(i64, i64)| match step(s.1).checked_sub(row * LEVELS.len()) {
                None => ' ',
                Some(level) => LEVELS.get(level).map_or('|', |&b| b as char),
            };
            text.extend(shown.iter().map(column));
            text.push('\n');
        }
        let ages: Vec<Vec<u8>> = shown.iter().map(|s| age(now_s - s.0).into_bytes()).collect();
        text += &format!("{}\n", " ".repeat(shown.len()));
        for line in 0..ages.iter().map(Vec::len).max().unwrap_or(0) {
            text.extend(ages.iter().map(|age| age.get(line).map_or(' ', |&b| b as char)));
            text.push('\n');
        }
        text
    }
}

/// `12s`, `3m`, `2h`, `5d`.
fn age(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..60 => format!("{s}s"),
        s @ 60..3600 => format!("{}m", s / 60),
        s @ 3600..86_400 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_one_sample_its_longest_and_a_graph_shows_the_newest() {
        let latency = Latency::default();
        for (second, ms) in [(100, 3), (100, 9), (100, 4), (101, 5), (102, 21)] {
            latency.note("command", second, ms);
        }
        let event = latency.events().remove("command").unwrap();
        assert_eq!(event.samples, [(100, 9), (101, 5), (102, 21)]);
        let graph = event.graph("command", 105);
        let lines: Vec<&str> = graph.lines().collect();
        assert_eq!(lines[0], "command - high 21 ms, low 5 ms (all time high 21 ms)");
        assert_eq!(lines[2..], ["  #", "  |", "_ |", "|_|", "   ", "543", "sss"]);
        assert_eq!(latency.reset(&[b"nosuch"]), 0);
        assert_eq!(latency.reset(&[b"COMMAND"]), 1);
        (0..1000).for_each(|second| latency.note("command", second, 1));
        assert_eq!(latency.events()["command"].samples.len(), SAMPLES_MAX);
    }
}
