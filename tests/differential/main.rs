//! Differential test: random command sequences against Look and the real Redis, every reply compared byte for byte.
//!
//! ```text
//! LOOK_DIFF_SEED=n        first seed (printed with every failure)          LOOK_DIFF_SEQUENCES=n  how many
//! LOOK_DIFF_STEPS=n       steps of a sequence                              LOOK_TEST_SUBJECT=redis  judge the harness
//! ```

#[path = "../common/mod.rs"]
mod common;

mod agree;
mod directed;
mod dump;
mod grammar;
mod run;
mod shrink;

use common::{Random, Server, setting, show};
use grammar::Grammar;
use run::{Coverage, Sequence, Step};

const SEQUENCES: u64 = 3000;
const STEPS: u64 = 40;
/// A shrunk report each; then the run ends (`LOOK_DIFF_REPORTS`).
const REPORTS_MAX: u64 = 6;

fn sequence(seed: u64, payloads: &[Vec<u8>]) -> Sequence {
    let mut random = Random::new(seed);
    let resp3 = random.chance(50);
    let burst = *random.pick(&[1, 1, 4, 16]);
    let steps = setting("LOOK_DIFF_STEPS", STEPS) as usize;
    let mut grammar = Grammar { random, payloads, far_seconds: 4_102_444_800 };
    let steps = (0..1 + steps / 2 + grammar.random.below(steps)).map(|_| step(&mut grammar)).collect();
    Sequence { seed, resp3, burst, steps }
}

fn step(grammar: &mut Grammar<'_>) -> Step {
    let connection = usize::from(grammar.random.chance(10));
    match grammar.random.below(100) {
        0..=1 => Step::RandomKey,
        2..=3 => Step::FullScan { options: grammar.expand("[MATCH pat] [COUNT (1|2|5|100)] [TYPE type]") },
        4..=6 => {
            let count = grammar.random.chance(50).then(|| *grammar.random.pick(&[0, 1, 2, 3, 100, -1]));
            let key = grammar.random.pick(&[&b"t0"[..], b"t1", b"s0", b"none"]).to_vec();
            Step::Spop { key, count }
        }
        7..=11 => {
            let queued = (0..grammar.random.below(5)).map(|_| grammar.request()).collect();
            Step::Transaction {
                connection,
                queued,
                end: grammar.random.pick::<&str>(&["EXEC", "EXEC", "EXEC", "DISCARD"]),
            }
        }
        12..=13 => Step::Call { connection, args: grammar.expand("WATCH k+") },
        _ => Step::Call { connection, args: grammar.request() },
    }
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

#[test]
fn random_sequences_get_the_replies_of_redis() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(redis) = Server::redis(&dir.path().join("redis")) else { return };
    let mut look = Server::subject(&dir.path().join("look"));
    let payloads = dump::payloads(&redis);
    let first = setting("LOOK_DIFF_SEED", 1);
    let count = setting("LOOK_DIFF_SEQUENCES", SEQUENCES);
    eprintln!("differential: seeds {first}..{}", first + count);
    agree::SINCE_7_0.iter().for_each(|row| eprintln!("  permitted: {}: {}", row.command, row.what));
    let mut reports: Vec<(String, String)> = Vec::new();
    let mut coverage = Coverage::new();
    let (mut steps, mut diverged) = (0, 0);
    for seed in first..first + count {
        let sequence = sequence(seed, &payloads);
        steps += sequence.steps.len();
        let Some(why) = run::run(&sequence, &redis, &look, &mut coverage) else { continue };
        diverged += 1;
        if let Some(status) = look.exited() {
            reports.push((
                "crash".into(),
                format!("server stopped with {status}: {}\n{}", report(&sequence, &why), look.output()),
            ));
            break;
        }
        // One report for each kind of disagreement: shrinking the same one again tells nothing new.
        if reports.iter().any(|(kind, _)| *kind == why.kind()) {
            continue;
        }
        let (small, why) = shrink::shrink(sequence, why, &redis, &look);
        if !reports.iter().any(|(kind, _)| *kind == why.kind()) {
            reports.push((why.kind(), report(&small, &why)));
        }
        if reports.len() as u64 >= setting("LOOK_DIFF_REPORTS", REPORTS_MAX) {
            break;
        }
    }
    eprintln!("differential: {steps} steps, {diverged} sequences diverged");
    let texts: Vec<&str> = reports.iter().map(|(_, text)| text.as_str()).collect();
    assert!(reports.is_empty(), "replies differ from Redis; smallest sequences:\n\n{}", texts.join("\n"));
    if count >= 1000 {
        assert_covered(&coverage);
    }
}

/// A run with too little work in it is invalid: every command must have succeeded often, and failed.
fn assert_covered(coverage: &Coverage) {
    const NEVER_FAIL: &[&str] = &["PING", "TIME"];
    let thin: Vec<String> = grammar::commands()
        .into_iter()
        .filter(|name| !NEVER_FAIL.contains(&name.as_str()))
        .map(|name| (coverage.get(&name).copied().unwrap_or_default(), name))
        .filter(|((fine, errors), _)| *fine < 20 || *errors == 0)
        .map(|((fine, errors), name)| format!("{name}: {fine} successes, {errors} errors"))
        .collect();
    assert!(thin.is_empty(), "INVALID, too little work:\n{}", thin.join("\n"));
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
