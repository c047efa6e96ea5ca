//! What the gateway counts and remembers about itself: totals for INFO, the slow log, and the feed of MONITOR.

use super::clients::locked;
use crate::base::Millis;
use crate::command::costs::{Counter, Total};
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use tokio::sync::broadcast;

/// Totals since the start or `CONFIG RESETSTAT`. Added to once a chunk.
#[derive(Debug, Default)]
pub struct Totals {
    pub connections: AtomicU64,
    pub rejected: AtomicU64,
    /// Handshakes on the TLS port that came to nothing.
    pub tls_failures: AtomicU64,
    pub commands: AtomicU64,
    pub reads: AtomicU64,
    pub writes: AtomicU64,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    pub error_replies: AtomicU64,
    pub query_limit_disconnections: AtomicU64,
    pub output_limit_disconnections: AtomicU64,
    /// Errors that the gateway itself answered, by code.
    errors: Mutex<BTreeMap<String, u64>>,
    /// Calls that the gateway answered or refused by itself, by command.
    calls: Mutex<BTreeMap<String, Total>>,
}

/// What became of calls of one command that went no further than the gateway: kept by a chunk, one entry a command.
#[derive(Clone, Debug)]
pub struct Tally {
    pub name: Cow<'static, str>,
    pub counter: Counter,
}

impl Totals {
    pub fn reset(&self) {
        for counter in [
            &self.connections,
            &self.rejected,
            &self.tls_failures,
            &self.commands,
            &self.reads,
            &self.writes,
            &self.bytes_in,
            &self.bytes_out,
            &self.error_replies,
            &self.query_limit_disconnections,
            &self.output_limit_disconnections,
        ] {
            counter.store(0, Relaxed);
        }
        locked(&self.errors).clear();
        locked(&self.calls).clear();
    }

    /// Adds a chunk's tallies.
    pub fn count(&self, tallies: &[Tally]) {
        if tallies.is_empty() {
            return;
        }
        let mut calls = locked(&self.calls);
        for tally in tallies {
            calls.entry(tally.name.to_string()).or_default().counter.add(tally.counter);
        }
    }

    /// Adds one call that the gateway ran by itself.
    pub fn call(&self, name: &str, nanos: u64, failed: bool) {
        locked(&self.calls).entry(name.to_owned()).or_default().add(&Total::of_call(nanos, failed));
    }

    /// These, and what the gateway answered or refused by itself, in order of name.
    pub fn with_calls(&self, ran: Vec<(String, Total)>) -> Vec<(String, Total)> {
        let mut all = locked(&self.calls).clone();
        for (name, total) in ran {
            all.entry(name).or_default().add(&total);
        }
        all.into_iter().collect()
    }

    /// Counts error replies by their codes. At most 128 codes are kept: texts may come from users.
    pub fn errors_sent(&self, codes: &[String]) {
        self.error_replies.fetch_add(codes.len() as u64, Relaxed);
        let mut errors = locked(&self.errors);
        for code in codes {
            if errors.len() < 128 || errors.contains_key(code) {
                *errors.entry(code.clone()).or_default() += 1;
            }
        }
    }

    pub fn errors(&self) -> BTreeMap<String, u64> {
        locked(&self.errors).clone()
    }
}

/// A line of /proc/self/status, such as `VmRSS`, in bytes.
pub fn process_bytes(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    let kilobytes = line.trim_start_matches(':').trim().trim_end_matches(" kB");
    kilobytes.parse::<u64>().unwrap_or(0) * 1024
}

/// One slow command.
#[derive(Clone, Debug)]
pub struct Slow {
    pub id: i64,
    pub time_s: i64,
    pub micros: i64,
    pub args: Vec<Vec<u8>>,
    pub addr: String,
    pub name: String,
}

/// The newest slow commands.
#[derive(Debug, Default)]
pub struct SlowLog {
    entries: Mutex<VecDeque<Slow>>,
    next: AtomicU64,
}

/// Arguments of an entry, and bytes of an argument, that are kept (Redis's limits).
const SLOW_ARGS_MAX: usize = 32;
const SLOW_ARG_BYTES_MAX: usize = 128;

impl SlowLog {
    pub fn add<'a>(
        &self,
        now: Millis,
        micros: i64,
        args: impl ExactSizeIterator<Item = &'a [u8]>,
        addr: &str,
        name: &str,
        max: usize,
    ) {
        let count = args.len();
        let kept = if count > SLOW_ARGS_MAX { SLOW_ARGS_MAX - 1 } else { count };
        let mut texts: Vec<Vec<u8>> = args.take(kept).map(shortened).collect();
        if count > kept {
            texts.push(format!("... ({} more arguments)", count - kept).into_bytes());
        }
        let id = self.next.fetch_add(1, Relaxed) as i64;
        let slow = Slow { id, time_s: now / 1000, micros, args: texts, addr: addr.into(), name: name.into() };
        let mut entries = locked(&self.entries);
        entries.push_front(slow);
        entries.truncate(max);
    }
    pub fn newest(&self, count: usize) -> Vec<Slow> {
        locked(&self.entries).iter().take(count).cloned().collect()
    }
    pub fn len(&self) -> usize {
        locked(&self.entries).len()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    pub fn reset(&self) {
        locked(&self.entries).clear();
    }
}

fn shortened(arg: &[u8]) -> Vec<u8> {
    if arg.len() <= SLOW_ARG_BYTES_MAX {
        return arg.to_vec();
    }
    let mut text = arg[..SLOW_ARG_BYTES_MAX].to_vec();
    text.extend_from_slice(format!("... ({} more bytes)", arg.len() - SLOW_ARG_BYTES_MAX).as_bytes());
    text
}

/// The feed of MONITOR. A monitor that cannot follow loses lines rather than slow anybody down.
#[derive(Debug)]
pub struct Monitors {
    feed: broadcast::Sender<Vec<u8>>,
    count: AtomicUsize,
}

impl Default for Monitors {
    fn default() -> Self {
        Monitors { feed: broadcast::channel(1024).0, count: 0.into() }
    }
}

impl Monitors {
    #[inline]
    pub fn watching(&self) -> bool {
        self.count.load(Relaxed) > 0
    }
    pub fn join(&self) -> broadcast::Receiver<Vec<u8>> {
        self.count.fetch_add(1, Relaxed);
        self.feed.subscribe()
    }
    pub fn leave(&self) {
        self.count.fetch_sub(1, Relaxed);
    }
    /// Tells the monitors of one command.
    pub fn tell<'a>(&self, micros: i64, db: u8, addr: &str, args: impl Iterator<Item = &'a [u8]>) {
        let mut line = format!("+{}.{:06} [{db} {addr}]", micros / 1_000_000, micros % 1_000_000).into_bytes();
        for arg in args {
            line.push(b' ');
            quote(&mut line, arg);
        }
        line.extend_from_slice(b"\r\n");
        let _ = self.feed.send(line);
    }
}

/// Redis's `sdscatrepr`.
pub fn quote(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for &b in text {
        match b {
            b'\\' | b'"' => out.extend_from_slice(&[b'\\', b]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x07 => out.extend_from_slice(b"\\a"),
            0x08 => out.extend_from_slice(b"\\b"),
            b' '..=b'~' => out.push(b),
            _ => out.extend_from_slice(format!("\\x{b:02x}").as_bytes()),
        }
    }
    out.push(b'"');
}
