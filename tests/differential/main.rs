//! Differential test: random command sequences against Look and the real Redis, every reply compared byte for byte.
//!
//! ```text
//! LOOK_DIFF_SEED=n        first seed (printed with every failure)          LOOK_DIFF_SEQUENCES=n  how many
//! LOOK_DIFF_STEPS=n       steps of a sequence                              LOOK_DIFF_LANES=n      side by side
//! LOOK_TEST_SUBJECT=redis judge the harness
//! ```

#[path = "../common/mod.rs"]
mod common;

mod agree;
mod covered;
mod directed;
mod dump;
mod grammar;
mod run;
mod shrink;

use common::{Random, Server, setting, show};
use grammar::Grammar;
use run::{Coverage, Sequence, Step};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;

const SEQUENCES: u64 = 1200;
const STEPS: u64 = 40;
/// Of 100 sequences so many have values of up to 100 KB and collections of hundreds of elements.
const HEAVY_PERCENT: usize = 8;
/// Pairs of servers that work side by side: most of a sequence's time is waiting for the disk.
const LANES: u64 = 4;
/// A shrunk report each; then the run ends (`LOOK_DIFF_REPORTS`).
const REPORTS_MAX: u64 = 6;

fn sequence(seed: u64, payloads: &[Vec<u8>]) -> Sequence {
    let mut random = Random::new(seed);
    let resp3 = random.chance(50);
    let burst = *random.pick(&[1, 4, 4, 16]);
    let heavy = random.below(100) < HEAVY_PERCENT;
    let steps = setting("LOOK_DIFF_STEPS", STEPS) as usize;
    let mut grammar = Grammar { random, payloads, far_seconds: 4_102_444_800, heavy };
    let steps = (0..1 + steps / 2 + grammar.random.below(steps)).flat_map(|_| step(&mut grammar)).collect();
    Sequence { seed, resp3, burst, steps }
}

fn step(grammar: &mut Grammar<'_>) -> Vec<Step> {
    let connection = usize::from(grammar.random.chance(10));
    vec![match grammar.random.below(100) {
        0..=1 => Step::RandomKey,
        2..=3 => Step::FullScan { options: grammar.expand("[MATCH pat] [COUNT (1|2|5|100)] [TYPE type]") },
        4..=6 => {
            let count = grammar.random.chance(50).then(|| *grammar.random.pick(&[0, 1, 2, 3, 100, -1]));
            let key = grammar.random.pick(&[&b"t0"[..], b"t\xff\xfe", b"s0", b"none"]).to_vec();
            Step::Spop { key, count }
        }
        7..=10 => transaction(grammar, connection),
        11..=12 => {
            let watch = Step::Call { connection, args: grammar.expand("WATCH k+") };
            let other = Step::Call { connection: 1 - connection, args: grammar.request() };
            return vec![watch, other, transaction(grammar, connection)];
        }
        13 => Step::Call { connection, args: grammar.expand("WATCH k+") },
        14 => Step::Carry { key: grammar.expand("k").concat(), from_look: grammar.random.chance(50) },
        _ => Step::Call { connection, args: grammar.request() },
    }]
}

fn transaction(grammar: &mut Grammar<'_>, connection: usize) -> Step {
    let queued = (0..grammar.random.below(5)).map(|_| grammar.request()).collect();
    Step::Transaction { connection, queued, end: grammar.random.pick::<&str>(&["EXEC", "EXEC", "EXEC", "DISCARD"]) }
}

fn report(sequence: &Sequence, why: &run::Divergence) -> String {
    let mut text = format!("seed {} (RESP{}):\n", sequence.seed, if sequence.resp3 { 3 } else { 2 });
    for step in &sequence.steps {
        text += &match step {
            Step::Call { connection: 0, args } => format!("    {}\n", show(args)),
            Step::Call { args, .. } => format!("    [second connection] {}\n", show(args)),
            Step::Transaction { connection, queued, end } => {
                let inner: Vec<String> = queued.iter().map(|args| show(args)).collect();
                format!("    [connection {connection}] MULTI; {}; {end}\n", inner.join("; "))
            }
            other => format!("    {other:?}\n"),
        };
    }
    format!("{text}  {why}\n")
}

/// What all lanes have found so far.
#[derive(Default)]
struct Findings {
    coverage: Coverage,
    /// A shrunk report for each kind of disagreement.
    reports: BTreeMap<String, String>,
    steps: usize,
    diverged: u64,
}

impl Findings {
    fn full(&self) -> bool {
        self.reports.len() as u64 >= setting("LOOK_DIFF_REPORTS", REPORTS_MAX) || self.reports.contains_key("crash")
    }
}

#[test]
fn random_sequences_get_the_replies_of_redis() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(redis) = Server::redis(&dir.path().join("payloads")) else { return };
    let payloads = dump::payloads(&redis);
    drop(redis);
    let first = setting("LOOK_DIFF_SEED", 1);
    let count = setting("LOOK_DIFF_SEQUENCES", SEQUENCES);
    eprintln!("differential: seeds {first}..{}", first + count);
    agree::SINCE_7_0.iter().for_each(|row| eprintln!("  permitted: {}: {}", row.command, row.what));
    let seeds = Mutex::new(first..first + count);
    let findings = Mutex::new(Findings::default());
    std::thread::scope(|scope| {
        for lane in 0..setting("LOOK_DIFF_LANES", LANES) {
            let dir = dir.path().join(format!("lane{lane}"));
            let (seeds, findings, payloads) = (&seeds, &findings, &payloads);
            scope.spawn(move || run_lane(&dir, seeds, payloads, findings));
        }
    });
    let found = findings.into_inner().expect("no lane panicked");
    eprintln!("differential: {} steps, {} sequences diverged", found.steps, found.diverged);
    let texts: Vec<&str> = found.reports.values().map(String::as_str).collect();
    assert!(texts.is_empty(), "replies differ from Redis; smallest sequences:\n\n{}", texts.join("\n"));
    if count >= 1000 {
        covered::assert_covered(&found.coverage);
    }
}

/// Takes seeds and runs them on a pair of servers of its own, until there are no more or enough was found.
fn run_lane(dir: &Path, seeds: &Mutex<Range<u64>>, payloads: &[Vec<u8>], findings: &Mutex<Findings>) {
    let redis = Server::redis(&dir.join("redis")).expect("it started a moment ago");
    let mut look = Server::subject(&dir.join("look"));
    let mut coverage = Coverage::new();
    while !findings.lock().expect("no lane panicked").full() {
        let Some(seed) = seeds.lock().expect("no lane panicked").next() else { break };
        let sequence = sequence(seed, payloads);
        let outcome = run::run(&sequence, &redis, &look, &mut coverage);
        let seen = |kind: &str| findings.lock().expect("no lane panicked").reports.contains_key(kind);
        let report = match outcome {
            None => None,
            Some(why) => match look.exited() {
                Some(status) => {
                    let text = report(&sequence, &why) + &look.output();
                    Some(("crash".into(), format!("server stopped with {status}: {text}")))
                }
                // Shrinking the same kind of disagreement again tells nothing new.
                None if seen(&why.kind()) => Some((why.kind(), String::new())),
                None => {
                    let (small, why) = shrink::shrink(sequence.clone(), why, &redis, &look);
                    Some((why.kind(), report(&small, &why)))
                }
            },
        };
        let mut findings = findings.lock().expect("no lane panicked");
        findings.steps += sequence.steps.len();
        if let Some((kind, text)) = report {
            findings.diverged += 1;
            findings.reports.entry(kind).or_insert(text);
        }
    }
    let mut findings = findings.lock().expect("no lane panicked");
    for (name, (fine, errors)) in coverage {
        let seen = findings.coverage.entry(name).or_default();
        *seen = (seen.0 + fine, seen.1 + errors);
    }
}

/// The harness itself: a server that lies about one command must be found, and its report must be small.
#[test]
fn a_planted_lie_is_found_and_shrunk() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(redis) = Server::redis(&dir.path().join("honest")) else { return };
    let Some(liar) = Server::redis(&dir.path().join("liar")) else { return };
    // The lie: this one denies every APPEND.
    liar.connect().line("ACL SETUSER default -append").expect("the liar is set up");
    let payloads = dump::payloads(&redis);
    let found = (1..200).find_map(|seed| {
        let sequence = sequence(seed, &payloads);
        run::run(&sequence, &redis, &liar, &mut Coverage::new()).map(|why| (sequence, why))
    });
    let (sequence, why) = found.expect("200 sequences meet APPEND");
    let (small, why) = shrink::shrink(sequence, why, &redis, &liar);
    assert_eq!(why.command, "APPEND");
    assert!(small.steps.len() <= 3, "not shrunk: {}", report(&small, &why));
}
