//! The simulation: a cluster in one thread. The real code from a client's bytes to the disk's, on virtual time, a virtual network
//! and disks in memory; every fault and every delay follows from one seed, so that a seed that fails fails again.
//!
//! `LOOK_SIM_SEEDS=n` seeds (default 4), from `LOOK_SIM_SEED` on. `LOOK_SIM_LIFE` says how their clusters live ([`plan::Life`]): `short`, ten
//! seconds full of faults, as in `cargo test`; `long`, a day in rounds of an hour with a fault every half minute or so; `dense`, as many
//! operations as there is time for. `LOOK_SIM_ROUNDS` and `LOOK_SIM_SECONDS` a round change how long. What clients saw is checked after
//! each round and let go of, so that memory stays bounded. Long runs want a release build:
//!
//! `LOOK_SIM_LIFE=long LOOK_SIM_SEED=100 LOOK_SIM_SEEDS=30 cargo test --release --test sim seeds_pass -- --nocapture`
//!
//! To look into one: `LOOK_SIM_ONE=seed LOOK_SIM_TRACE=look=debug,openraft=info cargo test --test sim one_seed -- --nocapture`.

#[path = "../common/mod.rs"]
mod common;

mod clients;
mod cluster;
mod faults;
mod net;
mod node;
mod operator;
mod outcome;
mod plan;
mod truth;

use common::setting;
use history::verdict::{Verdict, Work};
use look::command::builtin;
use look::lang::engine::Engine;
use outcome::Outcome;
use std::cell::Cell;
use std::sync::Arc;

thread_local! {
    static CHANCE: Cell<u64> = const { Cell::new(1) };
}

/// Chance itself: the standard library asks this function of the C library for the keys of its hash maps, and with them comes
/// all that is random in a node. Defined here it is the same in every run. (The library's declaration is weak for such uses.)
#[unsafe(no_mangle)]
extern "C" fn getrandom(to: *mut u8, len: usize, _flags: u32) -> isize {
    let state = CHANCE.try_with(|c| {
        let state = c.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        c.set(state);
        state
    });
    let state = state.unwrap_or(1);
    for i in 0..len {
        let byte = look::base::mix64(state ^ (i as u64) << 40) as u8;
        // SAFETY: the caller gives room for `len` bytes
        unsafe { to.add(i).write(byte) };
    }
    len as isize
}

/// One seed in this process, if one is asked for: see [`simulate`].
#[test]
fn one_seed() {
    let Ok(seed) = std::env::var("LOOK_SIM_ONE").unwrap_or_default().parse::<u64>() else { return };
    if let Ok(filter) = std::env::var("LOOK_SIM_TRACE") {
        tracing_subscriber::fmt().with_env_filter(filter).with_timer(net::SimulatedTime).with_ansi(false).init();
    }
    // A thread of its own: a hash map's keys follow from how many its thread made before, so that a trace would change the run
    let run = std::thread::spawn(move || {
        let table = Arc::new(builtin::table(Engine::Interp).expect("the embedded commands compile"));
        CHANCE.with(|c| c.set(look::base::mix64(seed ^ 0x51d3)));
        cluster::run(seed, plan::Life::from_env(), &table)
    });
    let outcome = run.join().expect("the simulation panicked");
    println!("\n{}", outcome.to_text());
}

/// Runs one seed in a process of its own: what comes of chance depends on everything that this process did before (tokio
/// counts its runtimes, hash maps their keys). An error is what a process said that ended otherwise.
fn simulate_with(seed: u64, settings: &[(&str, &str)]) -> Result<Outcome, String> {
    let this = std::env::current_exe().map_err(|e| e.to_string())?;
    let child = std::process::Command::new(this)
        .args(["--exact", "one_seed", "--nocapture", "--test-threads=1"])
        .env("LOOK_SIM_ONE", seed.to_string())
        .envs(settings.iter().copied())
        .output()
        .map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&child.stdout);
    Outcome::from_text(&text)
        .ok_or_else(|| format!("{}:\n{text}\n{}", child.status, String::from_utf8_lossy(&child.stderr)))
}

fn simulate(seed: u64) -> Outcome {
    simulate_with(seed, &[]).unwrap_or_else(|why| panic!("seed {seed} ended without an outcome: {why}"))
}

#[test]
fn a_seed_repeats_itself() {
    // In the second a checkpoint goes to a node while writes come
    let second = setting("LOOK_SIM_SEED", 6);
    for seed in [1, second] {
        assert_eq!(simulate(seed).to_text(), simulate(seed).to_text());
    }
}

#[test]
fn seeds_pass() {
    let (first, seeds) = (setting("LOOK_SIM_SEED", 3), setting("LOOK_SIM_SEEDS", 4));
    let (mut work, mut simulated, mut passed, mut others) = (Work::default(), 0, 0, Vec::new());
    let begin = std::time::Instant::now();
    for seed in first..first + seeds {
        let outcome = simulate(seed);
        println!("seed {seed}: {outcome}");
        if outcome.verdict != Verdict::Pass {
            others.push(format!("seed {seed}: {}", outcome.verdict));
            continue;
        }
        // What did not pass counts for nothing
        work.add(&outcome.work);
        simulated += outcome.simulated;
        passed += 1;
    }
    let (last, life, simulated) = (first + seeds - 1, plan::Life::from_env(), simulated / 1000);
    println!(
        "simulation: {life:?} life, seeds {first}..={last}, {passed} PASS: {simulated} s simulated; {work}; took {:?}",
        begin.elapsed()
    );
    assert!(others.is_empty(), "{}", others.join("\n"));
}

/// The lives that nobody waits for to end: a piece of each, for the checks of long histories must come to an end, and see.
#[test]
fn long_and_dense_lives_are_judged() {
    let piece = |life, seconds| {
        simulate_with(4, &[("LOOK_SIM_LIFE", life), ("LOOK_SIM_ROUNDS", "1"), ("LOOK_SIM_SECONDS", seconds)])
    };
    for (life, seconds) in [("long", "300"), ("dense", "3")] {
        let outcome = piece(life, seconds).expect("an outcome");
        assert_eq!(outcome.verdict, Verdict::Pass, "{life} life");
    }
    // In a pipeline that writes first no read is ever old: clients must not do only that
    assert!(!cfg!(debug_assertions) || shown("dense", 3, "a read asks nobody").is_some());
}

/// Bugs planted in the code, one at a time, and the life and the seed that find each.
const PLANTED: &[(&str, &str, u64)] = &[
    ("a follower leaves out a batch", "short", 3),
    ("a read asks nobody", "short", 4),
    ("a write is skipped", "short", 3),
    ("the ledger is not stored", "short", 3),
    ("a checkpoint says too much", "short", 3),
    ("a gateway's id is used again", "short", 3),
    ("a sequence is left out", "short", 3),
    ("a leader leads on in its term", "short", 3),
    ("a vote is not synced", "short", 3),
    ("an append is acknowledged before its sync", "short", 3),
    ("the ledger is forgotten at a start", "short", 3),
    ("the high-water mark runs ahead", "short", 3),
    ("a read overtakes writes", "short", 3),
    ("a purge goes past the checkpoint", "short", 5),
    ("an epoch is used again", "short", 3),
    ("who does not answer has the entries", "short", 3),
    ("a read does not wait for apply", "short", 3),
    ("all that the log holds counts as committed", "short", 5),
    ("a transaction is many epochs", "short", 3),
    ("a repeat is applied", "short", 9),
];

/// Planted as well; no seed is known now that finds them. Tried with `LOOK_SIM_SEARCH`.
const SOUGHT: &[&str] = &[
    "a leader asks no quorum",
    "a checksum is not checked",
    "a new leader reads before its first entry",
    "log time goes back",
    "everybody gets a vote",
    "a torn write stays",
    "a name is not synced",
];

/// How a run with a bug ended, if it shows the bug.
fn shown(life: &str, seed: u64, bug: &str) -> Option<String> {
    match simulate_with(seed, &[("LOOK_PLANT", bug), ("LOOK_SIM_LIFE", life), ("LOOK_SIM_ROUNDS", "1")]) {
        Ok(Outcome { verdict: Verdict::Fail(why), .. }) => Some(why),
        Ok(_) => None,
        Err(crash) => Some(crash.lines().find(|line| line.contains("panicked")).unwrap_or("the process ended").into()),
    }
}

/// `LOOK_SIM_PLANTED=n`: the first n bugs (default 1, `.ci/run sim` all); `LOOK_SIM_SEARCH=n`: looks for other seeds, up to n.
#[test]
fn planted_bugs_are_found() {
    let (bugs, search) = (setting("LOOK_SIM_PLANTED", 1) as usize, setting("LOOK_SIM_SEARCH", 0));
    if !cfg!(debug_assertions) {
        return println!("=== SKIPPED, NOTHING CHECKED: a build without debug assertions has no planted bugs ===");
    }
    let mut missed = Vec::new();
    println!("| planted bug | life | seed | found by |\n|---|---|---|---|");
    let mut look_for = |bug, known: Option<(&'static str, u64)>| {
        let others = (1..=search).flat_map(|seed| [("short", seed), ("dense", seed)]);
        let found =
            known.into_iter().chain(others).find_map(|(life, seed)| Some((life, seed, shown(life, seed, bug)?)));
        match found {
            Some((life, seed, why)) => {
                println!("| {bug} | {life} | {seed} | {:.100} |", why.lines().next().unwrap_or_default())
            }
            None => missed.push(bug),
        }
    };
    PLANTED.iter().take(bugs).for_each(|(bug, life, seed)| look_for(bug, Some((life, *seed))));
    SOUGHT.iter().filter(|_| search > 0).for_each(|bug| look_for(bug, None));
    assert!(missed.is_empty(), "not found: {missed:?}");
}
