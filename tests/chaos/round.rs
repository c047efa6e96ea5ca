//! One round: a new cluster, clients, faults from one seed, then peace, in which everything must be as if nothing had happened.

use crate::clients::{Client, KEYS, Seen, Shared, last_words};
use crate::common::Random;
use crate::faults::{Breaker, Fault};
use crate::net::Net;
use crate::nodes::Nodes;
use history::models::{Calls, Replies, check_registers};
use history::verdict::{AtLeast, Verdict, Work, judge};
use history::{Checked, Operation};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const CLIENTS: u32 = 6;
/// After the faults everything is as it should be within this time.
const PEACE: Duration = Duration::from_secs(120);

pub struct Round {
    pub seed: u64,
    pub founders: usize,
    pub time: Duration,
    pub faults: Vec<Fault>,
}

pub struct Outcome {
    pub verdict: Verdict,
    pub work: Work,
    pub failovers: Vec<Duration>,
    /// From the end of the faults until all nodes took writes again.
    pub recovery: Duration,
}

impl Round {
    /// Runs it on a network with one more place than nodes.
    pub fn run(&self, net: Net) -> Outcome {
        let dir = tempfile::tempdir().expect("a temporary directory");
        // Short logs and many checkpoints, so that late nodes need one now and then
        let flags = ["--set", "checkpoint-bytes=256kb", "--set", "log-keep-entries=200", "--set", "history-bytes=1mb"];
        let mut nodes = Nodes::new(net, dir.path(), self.founders, &flags);
        let mut outcome =
            Outcome { verdict: Verdict::Pass, work: Work::default(), failovers: Vec::new(), recovery: Duration::ZERO };
        if let Err(why) = nodes.start_all() {
            outcome.verdict = Verdict::Fail(why);
            return outcome;
        }
        let (seen, violations) = self.play(&mut nodes, &mut outcome);
        let counts = seen.history.counts();
        (outcome.work.operations, outcome.work.failed, outcome.work.unknown) = counts;
        let violations: Vec<String> = violations.into_iter().chain(seen.violations).collect();
        outcome.verdict = match violations.first() {
            Some(why) => Verdict::Fail(format!("{} violations, the first: {why}", violations.len())),
            None => judge(&outcome.work, &self.least(), &checks(seen.history.operations)),
        };
        if let Verdict::Fail(_) = outcome.verdict {
            self.keep(&nodes, &violations);
        }
        outcome
    }

    /// What is needed to understand a failure stays when the round's directory goes.
    fn keep(&self, nodes: &Nodes, violations: &[String]) {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-{}", self.seed));
        let machines =
            (0..nodes.net.places()).map(|place| (format!("machine{}", place + 1), nodes.whole_output(place)));
        let all = machines.chain([("violations".to_string(), violations.join("\n"))]);
        let kept = std::fs::create_dir_all(&dir)
            .and_then(|()| all.into_iter().try_for_each(|(name, text)| std::fs::write(dir.join(name), text)));
        println!("chaos: what the nodes said is in {} ({kept:?})", dir.display());
    }

    fn least(&self) -> AtLeast {
        AtLeast { operations: 10 * self.time.as_secs(), ..AtLeast::default() }
    }

    /// Faults under load, then peace; what clients saw, and what was wrong.
    fn play(&self, nodes: &mut Nodes, outcome: &mut Outcome) -> (Seen, Vec<String>) {
        let addresses = (0..self.founders).map(|place| nodes.address(place)).collect();
        let (begun, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let shared = Shared { addresses: Arc::new(addresses), begun, stop };
        let mut random = Random::new(self.seed);
        let client = |number| Client {
            number,
            random: Random::new(random.next()),
            shared: shared.clone(),
            seen: Seen::default(),
        };
        let clients: Vec<_> = (0..CLIENTS).map(client).collect();
        std::thread::scope(|scope| {
            let clients: Vec<_> = clients.into_iter().map(|client| scope.spawn(|| client.run())).collect();
            let mut breaker = Breaker::new(nodes, random.clone(), &self.faults);
            breaker.run(self.time);
            breaker.end();
            outcome.failovers = std::mem::take(&mut breaker.failovers);
            outcome.work = std::mem::take(&mut breaker.work);
            let mut violations = std::mem::take(&mut breaker.violations);
            let peace = Instant::now();
            if violations.is_empty() {
                violations.extend(back(nodes, self.founders).err());
            }
            outcome.recovery = peace.elapsed();
            shared.stop.store(true, Ordering::SeqCst);
            let mut seen = Seen::default();
            for client in clients {
                client.join().map_or_else(|_| violations.push("a client panicked".into()), |saw| seen.add(saw));
            }
            if violations.is_empty() {
                let ends = agreement(nodes, &shared, self.founders, &mut seen);
                violations.extend(ends.err());
            }
            violations.extend(complaints(nodes));
            (seen, violations)
        })
    }
}

/// Both checks of each group of keys: what has no reply must be guessed within its group only.
fn checks(operations: Vec<Operation<Calls, Replies>>) -> Vec<(&'static str, Checked)> {
    let mut groups: BTreeMap<u32, Vec<_>> = BTreeMap::new();
    for operation in operations {
        groups.entry(operation.op[0].0 / KEYS).or_default().push(operation);
    }
    groups.values().flat_map(|group| check_registers(group, &[])).collect()
}

/// One leader, and every node takes writes.
fn back(nodes: &Nodes, founders: usize) -> Result<(), String> {
    nodes.await_leader(PEACE)?;
    (0..founders).try_for_each(|place| nodes.await_writable(place, PEACE))
}

/// Every node gives the same answers: who leads, the newest epoch, the digest of all keys, and each register.
fn agreement(nodes: &Nodes, shared: &Shared, founders: usize, seen: &mut Seen) -> Result<(), String> {
    for place in 0..founders {
        let mut connection = nodes.connect(place, PEACE)?;
        seen.add(last_words(shared, place, &mut connection, Instant::now() + PEACE)?);
    }
    let begin = Instant::now();
    loop {
        let said = |line: &str, place| nodes.ask(place, line).map(|reply| reply.text());
        let leader =
            |place| said("LOOK.CLUSTER", place).map(|text| text.lines().next().unwrap_or_default().to_string());
        let facts = |place| Ok([leader(place)?, said("LOOK.EPOCH", place)?, said("DEBUG DIGEST", place)?]);
        let all: Result<Vec<[String; 3]>, String> = (0..founders).map(facts).collect();
        match all {
            Ok(all) if all.iter().all(|one| *one == all[0] && one[0] != "leader:0") => return Ok(()),
            other if begin.elapsed() > PEACE => return Err(format!("no agreement: {other:?}\n{}", nodes.outputs())),
            _ => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// What no node may ever say.
fn complaints(nodes: &Nodes) -> Vec<String> {
    let bad = |line: &&str| ["panicked", "DIVERGED", "overflow"].iter().any(|word| line.contains(word));
    let of = |place: usize| {
        let said = nodes.whole_output(place);
        said.lines().find(bad).map(|line| format!("machine {} says: {line}", place + 1))
    };
    (0..nodes.net.places()).filter_map(of).collect()
}
