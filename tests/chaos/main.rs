//! Real faults on real processes: each node in a network namespace of its own, clients on the bridge between them.
//!
//! `LOOK_CHAOS_SEED=n` for other faults, `LOOK_CHAOS_SECONDS=n` in all (default 15), `LOOK_CHAOS_ROUND=n` seconds a seed (default 60),
//! `LOOK_CHAOS_FAULTS=kill,pause,...` for only these. Needs root, `ip` and `nft`; says so loudly where it has them not.

#[path = "../common/mod.rs"]
mod common;

mod clients;
mod directed;
mod faults;
mod net;
mod nodes;
mod round;

use common::server::{skip, subject_is_redis};
use common::setting;
use faults::Fault;
use history::verdict::{Verdict, Work};
use net::Net;
use round::Round;
use std::time::{Duration, Instant};

/// A network, or a loud word why nothing is checked.
fn network(places: usize) -> Option<Net> {
    if subject_is_redis() {
        skip("Redis has no cluster of this kind");
        return None;
    }
    Net::new(places).map_err(|why| skip(&format!("no real faults on this machine: {why}"))).ok()
}

fn chosen() -> Vec<Fault> {
    let named = std::env::var("LOOK_CHAOS_FAULTS").unwrap_or_default();
    let chosen: Vec<Fault> = Fault::ALL.into_iter().filter(|f| named.split(',').any(|n| n == f.name())).collect();
    if chosen.is_empty() { Fault::ALL.to_vec() } else { chosen }
}

fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// So many rounds may be INVALID before one has passed.
const POOR_MAX: u32 = 3;

#[test]
fn histories_under_faults_are_linearizable() {
    let (first, whole) = (setting("LOOK_CHAOS_SEED", 1), Duration::from_secs(setting("LOOK_CHAOS_SECONDS", 15)));
    let round = Duration::from_secs(setting("LOOK_CHAOS_ROUND", 60)).min(whole);
    let (mut work, mut failovers, mut wrong) = (Work::default(), Vec::new(), Vec::new());
    let (mut passed, mut poor) = (0, 0);
    let (begin, mut seed) = (Instant::now(), first);
    // A round that is INVALID says nothing: another seed takes its place
    while begin.elapsed() < whole || (passed == 0 && poor < POOR_MAX && wrong.is_empty()) {
        // Every fourth seed has five nodes
        let founders = if seed % 4 == 0 { 5 } else { 3 };
        let Some(net) = network(founders + 1) else { return };
        let outcome = Round { seed, founders, time: round, faults: chosen() }.run(net);
        println!(
            "chaos: seed {seed}, {founders} nodes: {}; all well {:.1?} after the faults; {}",
            outcome.work, outcome.recovery, outcome.verdict
        );
        work.add(&outcome.work);
        failovers.extend(outcome.failovers);
        match outcome.verdict {
            Verdict::Pass => passed += 1,
            Verdict::Invalid(_) => poor += 1,
            Verdict::Fail(why) => wrong.push(format!("seed {seed}: {why}")),
        }
        seed += 1;
    }
    failovers.sort();
    println!("chaos: seeds {first}..={}, {:.0?}; {work}", seed - 1, begin.elapsed());
    println!(
        "chaos: {} failovers timed: p50 {:.2?}, p99 {:.2?}, longest {:.2?}",
        failovers.len(),
        quantile(&failovers, 50),
        quantile(&failovers, 99),
        quantile(&failovers, 100)
    );
    println!("chaos: {passed} rounds PASS, {poor} INVALID, {} FAIL", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(passed > 0, "INVALID: {poor} rounds, and none could be judged");
    assert!(poor < POOR_MAX.max(passed), "INVALID: {poor} rounds could not be judged, {passed} passed");
}
