//! One run: nodes, clients, faults and time, all from one seed.

use crate::clients::{Client, Keys, Record, last_words};
use crate::common::Random;
use crate::faults::Repair;
use crate::net::{HostId, Ms, Net, Power};
use crate::node::Node;
use crate::operator::Replacement;
use crate::outcome::Outcome;
use crate::plan::{Life, Plan};
use crate::truth::Truth;
use history::models::check_registers;
use history::verdict::{AtLeast, Verdict, Work, judge};
use look::command::Table;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// A client that waits for a reply has given up after this.
const FAREWELL: Ms = 12_000;
/// After the faults, everything must be well again within this.
const LIVENESS: Ms = 60_000;

pub struct Run {
    pub random: Random,
    pub plan: Plan,
    pub net: Net,
    pub nodes: Vec<Node>,
    pub truth: Truth,
    pub record: Record,
    keys: Keys,
    /// The clients' and the operator's machine.
    pub world: Runtime,
    world_began: tokio::time::Instant,
    pub now: Ms,
    pub work: Work,
    pub checkpoints: Arc<AtomicU64>,
    table: Arc<Table>,
    /// What is to be undone, and when.
    pub repairs: Vec<(Ms, Repair)>,
    pub replacement: Option<Replacement>,
}

pub fn run(seed: u64, life: Life, table: &Arc<Table>) -> Outcome {
    let mut random = Random::new(seed);
    let plan = Plan::new(seed, &mut random, life);
    let net = Net::new(random.next(), plan.weather.clone());
    let (truth, record) = (Truth::default(), Record::default());
    let world = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let world = world.expect("a runtime");
    let world_began = world.block_on(async { tokio::time::Instant::now() });
    let keys = Keys { first: 0, count: plan.keys, since: 0, every: plan.keys_for };
    let (work, repairs, table) = (Work::default(), Vec::new(), table.clone());
    let founders = 1..=plan.settings.nodes;
    let mut run = Run {
        random,
        plan,
        net,
        nodes: Vec::new(),
        truth,
        record,
        keys,
        world,
        world_began,
        now: 0,
        work,
        checkpoints: Arc::default(),
        table,
        repairs,
        replacement: None,
    };
    founders.for_each(|id| run.add_node(id));
    run.all()
}

impl Run {
    /// A new machine, and a node on it.
    pub fn add_node(&mut self, id: u64) {
        let host = self.next_host();
        let (net, table, truth) = (self.net.clone(), self.table.clone(), self.truth.clone());
        let mut node = Node::new(id, host, net, table, truth, self.plan.settings.clone(), self.checkpoints.clone());
        node.start();
        self.nodes.push(node);
        self.record.lock().hosts.push((host, id));
    }

    pub fn next_host(&self) -> HostId {
        self.nodes.len() as u64 + 1
    }

    fn all(&mut self) -> Outcome {
        let mut rounds = 0..self.plan.rounds;
        let verdict = rounds.find_map(|_| Some(self.round()).filter(|verdict| *verdict != Verdict::Pass));
        Outcome {
            verdict: verdict.unwrap_or(Verdict::Pass),
            work: self.work.clone(),
            simulated: self.now,
            trace: self.net.trace(),
            elections: self.truth.leaders() as u64,
            transactions: self.record.lock().transactions,
            checkpoints: self.checkpoints.load(Ordering::Relaxed),
        }
    }

    /// Faults, then none, then what all of it was; the next round knows nothing of this one's keys.
    fn round(&mut self) -> Verdict {
        self.keys = Keys { first: self.keys.in_use(self.now).end, since: self.now, ..self.keys.clone() };
        let clients = self.clients();
        self.pass(3_000);
        let end = self.now + self.plan.faulty;
        while self.now < end && self.truth.violations().is_empty() {
            let pause = 10 + self.random.below(self.plan.pace as usize) as Ms;
            self.pass(pause);
            self.fault();
        }
        let liveness = self.heal().and_then(|()| self.end(clients));
        self.judge(liveness)
    }

    fn clients(&mut self) -> Vec<JoinHandle<()>> {
        self.record.lock().stop = false;
        let client = |number| Client {
            number,
            net: self.net.clone(),
            keys: self.keys.clone(),
            calls: self.plan.calls,
            think: self.plan.think,
            marks: self.plan.marks,
            random: Random::new(self.random.next()),
            record: self.record.clone(),
        };
        (0..self.plan.clients).map(client).map(|client| self.world.spawn(client.run())).collect()
    }

    /// Lets time go by.
    fn pass(&mut self, ms: Ms) {
        self.pass_until(ms, |_| false);
    }

    /// As long as it takes, `ms` at most.
    fn pass_until(&mut self, ms: Ms, enough: impl Fn(&Run) -> bool) {
        let until = self.now + ms;
        while self.now < until && !enough(self) {
            self.step();
        }
    }

    fn step(&mut self) {
        self.now += self.plan.step;
        self.net.advance(self.now);
        self.repair();
        self.follow_replacement();
        for i in 0..self.nodes.len() {
            self.nodes[i].run(self.plan.step);
            self.look(i);
        }
        let until = self.world_began + Duration::from_millis(self.now);
        self.world.block_on(async { tokio::time::sleep_until(until).await });
    }

    /// Checks one node from outside, and notices processes that gave up.
    fn look(&mut self, i: usize) {
        let node = &self.nodes[i];
        let Some(parts) = node.parts() else { return };
        let (id, now) = (node.id, self.now);
        if let Some(why) = parts.failed.get() {
            self.net.note(id);
            let corrupt = why.contains("corrupt") || why.contains("damaged");
            if !corrupt && !why.contains("power is off") && !why.contains("injected") && !why.contains("disk full") {
                self.truth.violation(format!("node {id} does not start: {why}"));
            }
            if corrupt && !node.lost {
                self.truth.violation(format!("node {id} finds damage where none was done: {why}"));
            }
            self.nodes[i].kill();
            if !corrupt {
                self.repairs.push((now + 500, Repair::Start(i)));
            }
            return;
        }
        let Some(raft) = parts.raft.get() else { return };
        let log = raft.log_state();
        self.truth.leadership(id, raft.leadership(), log.last.index);
        let checkpoint = parts.checkpoint.load(Ordering::Relaxed);
        // A peer's checkpoint counts as committed from the moment that it is whole; the log's end moves behind it when the state
        // has been replaced. Entries that come meanwhile wait for that (openraft holds its later commands back)
        let last = match parts.receiving.load(Ordering::Relaxed) {
            true => log.last.index.max(raft.status().last.0),
            false => log.last.index,
        };
        let order = [log.purged.index, checkpoint, raft.applied().0, raft.committed().0, last];
        // Behind a failed write openraft ends, with entries in mind that the log refused
        let Some(why) = raft.failure() else { return self.truth.order(id, now, order) };
        if why.contains("was removed from its cluster") {
            return self.dismissed(i);
        }
        // It takes no part any more: an operator would start it again
        self.net.note(id << 8);
        self.nodes[i].kill();
        self.repairs.push((now + 300, Repair::Start(i)));
    }

    pub fn up(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|i| self.nodes[*i].process.is_some() && !self.nodes[*i].paused).collect()
    }

    /// Undoes all faults, and waits until one node leads and all that run have applied the same.
    fn heal(&mut self) -> Result<(), String> {
        for (_, repair) in std::mem::take(&mut self.repairs) {
            self.undo(repair);
        }
        self.repairs.clear();
        self.net.heal();
        self.net.set_weather(self.plan.weather.clone());
        for i in 0..self.nodes.len() {
            self.undo(Repair::Disk(i));
            self.nodes[i].disk.restart_faults();
            self.undo(Repair::Start(i));
        }
        let end = self.now + LIVENESS;
        while self.now < end {
            self.pass(100);
            if self.is_well() {
                return Ok(());
            }
        }
        Err(format!("no progress {LIVENESS} ms after the last fault: {}", self.describe()))
    }

    fn is_well(&self) -> bool {
        if self.replacement.is_some() || self.nodes.iter().any(|n| n.removed && !n.gone) {
            return false;
        }
        let mut leaders = 0;
        let mut applied = Vec::new();
        for node in self.nodes.iter().filter(|n| !(n.gone || n.lost && n.process.is_none())) {
            let Some((parts, raft)) = node.parts().and_then(|p| Some((p, p.raft.get()?))) else { return false };
            if parts.backend.get().is_none() {
                return false;
            }
            leaders += usize::from(raft.is_leader());
            applied.push(raft.applied().0);
        }
        let newest = self.truth.newest();
        // Clients go on writing: within a few entries is equal
        leaders == 1 && applied.iter().all(|a| a + 50 >= newest)
    }

    /// Stops the clients, lets every node speak, and compares.
    fn end(&mut self, clients: Vec<JoinHandle<()>>) -> Result<(), String> {
        self.record.lock().stop = true;
        self.pass_until(FAREWELL, |_| clients.iter().all(JoinHandle::is_finished));
        clients.iter().for_each(JoinHandle::abort);
        let keys = self.keys.first..self.keys.in_use(self.now).end;
        for i in self.up() {
            let (id, host) = (self.nodes[i].id, self.nodes[i].host);
            let words = self.world.spawn(last_words(self.net.clone(), host, keys.clone(), self.record.clone()));
            self.pass_until(15_000, |_| words.is_finished());
            let said = match words.is_finished() {
                true => self
                    .world
                    .block_on(words)
                    .map_err(|e| e.to_string())
                    .and_then(|said| said.map_err(|e| e.to_string())),
                false => Err("no word".into()),
            };
            said.map_err(|e| format!("node {id} does not serve after the faults: {e}; {}", self.describe()))?;
        }
        self.pass_until(2_000, |run| run.behind().is_none());
        if let Some(why) = self.behind() {
            return Err(why);
        }
        self.forget();
        Ok(())
    }

    /// A node that has not applied all.
    fn behind(&self) -> Option<String> {
        let newest = self.truth.newest();
        self.up().into_iter().find_map(|i| {
            let applied = self.nodes[i].parts().and_then(|p| p.raft.get()).map_or(0, |r| r.applied().0);
            (applied != newest).then(|| format!("node {} stays at entry {applied} of {newest}", self.nodes[i].id))
        })
    }

    /// Nobody starts from before its newest checkpoint.
    fn forget(&self) {
        let checkpoint = |node: &Node| node.parts().map_or(0, |parts| parts.checkpoint.load(Ordering::Relaxed));
        let living = self.nodes.iter().filter(|node| !node.lost && !node.gone);
        self.truth.forget_before(living.map(checkpoint).min().unwrap_or(0).min(self.truth.newest()));
    }

    fn describe(&self) -> String {
        let one = |node: &Node| {
            let Some(parts) = node.parts() else { return format!("node {} is down (lost: {})", node.id, node.lost) };
            let status = parts.raft.get().map(|r| r.status());
            let status = status.map(|s| (s.role, s.leadership, s.last.0, s.committed.0, s.applied.0, s.failure));
            format!("node {}: served {}, {status:?}", node.id, parts.backend.get().is_some())
        };
        self.nodes.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    /// Checks what clients saw in this round, and lets go of it.
    fn judge(&mut self, liveness: Result<(), String>) -> Verdict {
        let mut record = self.record.lock();
        record.find(&self.truth.take_places());
        let mut violations = self.truth.violations();
        violations.append(&mut record.violations);
        let (history, of_the_past) = (std::mem::take(&mut record.history), std::mem::take(&mut record.looked_back));
        let (ok, failed, unknown) = history.counts();
        let work = Work { operations: ok, failed, unknown, ..Work::default() };
        self.work.add(&work);
        let mut checks: Vec<_> = check_registers(&history.operations, &of_the_past).into_iter().collect();
        if let Some(first) = violations.first() {
            let all = violations.len();
            checks.insert(0, ("invariants", history::Checked::Violation(format!("{first} ({all} in all)"))));
        } else if let Err(why) = liveness {
            checks.push(("liveness", history::Checked::Violation(why)));
        }
        judge(&work, &AtLeast { operations: 50, ..AtLeast::default() }, &checks)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Streams must not speak to a network that is going
        for node in &mut self.nodes {
            self.net.set_power(node.host, Power::Off);
            node.process = None;
        }
    }
}
