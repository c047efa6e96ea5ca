//! One run: nodes, clients, faults and time, all from one seed.

use crate::clients::{Client, Connection, Record, last_words};
use crate::common::Random;
use crate::net::{Ms, Net, Power, Weather};
use crate::node::{Node, Settings};
use crate::outcome::Outcome;
use crate::truth::Truth;
use history::models::check_registers;
use history::verdict::{AtLeast, Work, judge};
use look::command::Table;
use look::disk::Disk;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;

/// Nothing is looked at more often than this.
const QUANTUM: Ms = 1;
/// After the faults, everything must be well again within this.
const LIVENESS: Ms = 60_000;

/// What a seed decides before anything happens.
struct Plan {
    settings: Settings,
    weather: Weather,
    clients: u32,
    keys: u32,
    faulty: Ms,
    /// Time between two faults, at most.
    pace: Ms,
    faults: Vec<&'static str>,
}

const MEMBERSHIP: &str = "membership";
pub const FAULTS: [&str; 14] = [
    "kill",
    "power",
    "torn write",
    "fsync error",
    "disk full",
    "bit flip",
    "slow disk",
    "partition",
    "one-way",
    "loss",
    "pause",
    "clock jump",
    "kill all",
    MEMBERSHIP,
];

impl Plan {
    fn new(seed: u64, random: &mut Random, faulty: Ms) -> Plan {
        let often = random.chance(35);
        let settings = Settings {
            nodes: if random.chance(75) { 3 } else { 5 },
            checkpoint_entries: if often { 4 } else { *random.pick(&[20, 100, 1000]) },
            checkpoint_look: if often { 20 } else { 200 },
            keep_entries: if often { 0 } else { *random.pick(&[0, 10, 4096]) },
            segment_bytes: *random.pick(&[64 << 10, 256 << 10, 1 << 20]),
            history_bytes: *random.pick(&[0, 128 << 10]),
            log_ms: *random.pick(&[0, 1, 5]),
            apply_ms: *random.pick(&[0, 0, 2, 20]),
        };
        let weather = Weather { delay_min: 0, delay_max: *random.pick(&[1, 5, 40]), loss_percent: 0 };
        // Not all kinds in every run: rare combinations come up only among few
        let mut faults: Vec<_> =
            FAULTS.iter().copied().filter(|kind| *kind != MEMBERSHIP && random.chance(60)).collect();
        if seed % 8 == 1 {
            // Fewer voters can lose fewer disks: not both in one run
            faults.retain(|kind| *kind != "bit flip");
            faults.push(MEMBERSHIP);
        }
        let (clients, keys) = (2 + random.below(5) as u32, 2 + random.below(8) as u32);
        Plan { settings, weather, clients, keys, faulty, pace: *random.pick(&[300, 1000, 3000]), faults }
    }
}

struct Run {
    random: Random,
    plan: Plan,
    net: Net,
    nodes: Vec<Node>,
    truth: Truth,
    record: Record,
    /// The clients' machine.
    world: Runtime,
    world_began: tokio::time::Instant,
    now: Ms,
    work: Work,
    checkpoints: Arc<AtomicU64>,
    /// What is to be undone, and when.
    repairs: Vec<(Ms, Repair)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repair {
    Start(usize),
    Resume(usize, Ms),
    Links,
    Weather,
    Disk(usize),
    /// The power goes as soon as the torn write has happened, or now.
    Power(usize, Ms),
}

/// Runs the seed for about `faulty` milliseconds of faults.
pub fn run(seed: u64, faulty: Ms, table: &Arc<Table>) -> Outcome {
    let mut random = Random::new(seed);
    let plan = Plan::new(seed, &mut random, faulty);
    let net = Net::new(random.next(), plan.weather.clone());
    let (truth, record) = (Truth::default(), Record::default());
    let world = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let world = world.expect("a runtime");
    let world_began = world.block_on(async { tokio::time::Instant::now() });
    let checkpoints = Arc::new(AtomicU64::new(0));
    let node =
        |id| Node::new(id, net.clone(), table.clone(), truth.clone(), plan.settings.clone(), checkpoints.clone());
    let nodes = (1..=plan.settings.nodes).map(node).collect();
    let (work, repairs) = (Work::default(), Vec::new());
    let mut run =
        Run { random, plan, net, nodes, truth, record, world, world_began, now: 0, work, checkpoints, repairs };
    run.all()
}

impl Run {
    fn all(&mut self) -> Outcome {
        self.nodes.iter_mut().for_each(Node::start);
        for number in 0..self.plan.clients {
            let client = Client {
                number,
                net: self.net.clone(),
                nodes: self.plan.settings.nodes,
                keys: self.plan.keys,
                random: Random::new(self.random.next()),
                record: self.record.clone(),
            };
            self.world.spawn(client.run());
        }
        self.pass(3_000);
        while self.now < 3_000 + self.plan.faulty && self.truth.violations().is_empty() {
            let pause = 10 + self.random.below(self.plan.pace as usize) as Ms;
            self.pass(pause);
            self.fault();
        }
        let liveness = self.heal().and_then(|()| self.end());
        self.outcome(liveness)
    }

    /// Lets time go by.
    fn pass(&mut self, ms: Ms) {
        let until = self.now + ms;
        while self.now < until {
            self.step();
        }
    }

    fn step(&mut self) {
        self.now += QUANTUM;
        self.net.advance(self.now);
        self.repair();
        for i in 0..self.nodes.len() {
            self.nodes[i].run(QUANTUM);
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
        let (log, status) = (raft.log_state(), raft.status());
        self.truth.leadership(id, status.leadership, log.last.index);
        let checkpoint = parts.checkpoint.load(Ordering::Relaxed);
        // A peer's checkpoint counts as committed from the moment that it is whole; the log's end moves behind it when the state
        // has been replaced. Entries that come meanwhile wait for that (openraft holds its later commands back)
        let last = match parts.receiving.load(Ordering::Relaxed) {
            true => log.last.index.max(status.last.0),
            false => log.last.index,
        };
        let order = [log.purged.index, checkpoint, status.applied.0, status.committed.0, last];
        self.truth.order(id, now, order);
        if raft.failure().is_some() {
            // It takes no part any more: an operator would start it again
            self.net.note(id << 8);
            self.nodes[i].kill();
            self.repairs.push((now + 300, Repair::Start(i)));
        }
    }

    fn up(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|i| self.nodes[*i].process.is_some() && !self.nodes[*i].paused).collect()
    }

    /// How many may lose their disks.
    fn spare(&self) -> usize {
        (self.nodes.len() - 1) / 2
    }

    fn fault(&mut self) {
        let up = self.up();
        if self.plan.faults.is_empty() || up.is_empty() {
            return;
        }
        let kind = *self.random.pick(&self.plan.faults);
        let i = *self.random.pick(&up);
        let long = 50 + self.random.below(4000) as Ms;
        let end = self.now + long;
        self.net.note(kind.len() as u64 ^ (i as u64) << 8 ^ long << 16);
        match kind {
            "kill" => {
                self.nodes[i].kill();
                self.repairs.push((end, Repair::Start(i)));
            }
            "kill all" => {
                for i in up {
                    self.nodes[i].kill();
                    self.repairs.push((self.now + 10 + self.random.below(2000) as Ms, Repair::Start(i)));
                }
            }
            "power" => {
                self.nodes[i].cut_power();
                self.repairs.push((end, Repair::Start(i)));
            }
            "torn write" => {
                let disk = &self.nodes[i].disk;
                disk.cut_at(disk.ops() + 1 + self.random.below(4) as u64);
                self.repairs.push((self.now + 200, Repair::Power(i, long)));
            }
            "fsync error" => {
                let disk = &self.nodes[i].disk;
                disk.fail_at(disk.ops() + 1 + self.random.below(4) as u64);
            }
            "disk full" => {
                self.nodes[i].disk.set_capacity(1);
                self.repairs.push((end, Repair::Disk(i)));
            }
            "bit flip" => {
                if !self.flip(i) {
                    return;
                }
                self.repairs.push((end, Repair::Start(i)));
            }
            "slow disk" => {
                self.nodes[i].disk_slow.store(1 + self.random.next() % 600, Ordering::Relaxed);
                self.repairs.push((end, Repair::Disk(i)));
            }
            "partition" | "one-way" => self.partition(kind == "one-way", end),
            "loss" => {
                let loss_percent = 5 + self.random.below(40);
                self.net.set_weather(Weather { loss_percent, ..self.plan.weather.clone() });
                self.repairs.push((end, Repair::Weather));
            }
            "pause" => {
                self.nodes[i].paused = true;
                self.repairs.push((end, Repair::Resume(i, self.now)));
            }
            MEMBERSHIP => self.change_membership(i),
            _ => {
                let off = self.random.between(-100_000, 100_000);
                self.nodes[i].clock_off.store(off, Ordering::Relaxed);
            }
        }
        self.work.fault(kind);
    }

    /// Asks a node for a change as an operator would. Whether it is made is Look's to decide.
    fn change_membership(&mut self, i: usize) {
        let change = *self.random.pick(&["TRANSFER", "TRANSFER", "DEMOTE", "PROMOTE", "PROMOTE"]);
        let of = 1 + self.random.below(self.nodes.len());
        let (net, node) = (self.net.clone(), self.nodes[i].id);
        self.world.spawn(async move {
            if let Ok(mut connection) = Connection::open(&net, node).await {
                let answer = connection.ask(&format!("LOOK.CLUSTER {change} {of}")).await;
                tracing::info!("{change} {of}: {answer:?}");
            }
        });
    }

    /// A random set of nodes on one side.
    fn partition(&mut self, one_way: bool, end: Ms) {
        let nodes = self.nodes.len() as u64;
        let apart = 1 + self.random.next() % ((1 << nodes) - 2);
        let side = |n: u64| apart >> (n - 1) & 1;
        for (a, b) in (1..=nodes).flat_map(|a| (1..=nodes).map(move |b| (a, b))) {
            if side(a) != side(b) && (!one_way || side(a) == 1) {
                self.net.cut(a, b);
            }
        }
        self.repairs.push((end, Repair::Links));
    }

    /// Turns a bit of the durable log of a stopped node, as long as others have what it loses. Only where more was written
    /// behind it: damage to the last write of all cannot be told from a torn one (`disk::highwater` says so).
    fn flip(&mut self, i: usize) -> bool {
        let spare = self.spare();
        if self.nodes.iter().filter(|n| n.lost).count() >= spare {
            return false;
        }
        let mut names: Vec<String> = self.nodes[i].disk.list().unwrap_or_default();
        names.retain(|name| name.starts_with("log-"));
        let Some(name) = names.last().cloned() else { return false };
        let contents = self.nodes[i].disk.contents(&name).unwrap_or_default();
        let used = contents.iter().rposition(|b| *b != 0).unwrap_or(0);
        if used < 64 << 10 {
            return false;
        }
        self.nodes[i].kill();
        self.nodes[i].lost = true;
        let bit = self.random.below(used / 2 * 8) as u64;
        self.nodes[i].disk.flip(&name, bit);
        true
    }

    fn repair(&mut self) {
        let now = self.now;
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.repairs).into_iter().partition(|(at, _)| *at <= now);
        self.repairs = later;
        for (_, repair) in due {
            self.undo(repair);
        }
    }

    fn undo(&mut self, repair: Repair) {
        match repair {
            Repair::Start(i) => {
                if self.nodes[i].process.is_none() {
                    self.nodes[i].start();
                }
            }
            Repair::Resume(i, since) => {
                if self.nodes[i].paused {
                    self.nodes[i].resume(self.now - since);
                }
            }
            Repair::Links => self.net.heal(),
            Repair::Weather => self.net.set_weather(self.plan.weather.clone()),
            Repair::Disk(i) => {
                self.nodes[i].disk.set_capacity(u64::MAX);
                self.nodes[i].disk_slow.store(0, Ordering::Relaxed);
            }
            Repair::Power(i, long) => {
                self.nodes[i].cut_power();
                self.repairs.push((self.now + long, Repair::Start(i)));
            }
        }
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
        let mut leaders = 0;
        let mut applied = Vec::new();
        for node in self.nodes.iter().filter(|n| !(n.lost && n.process.is_none())) {
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
    fn end(&mut self) -> Result<(), String> {
        self.record.lock().stop = true;
        self.pass(12_000);
        for i in self.up() {
            let id = self.nodes[i].id;
            let (net, record, keys) = (self.net.clone(), self.record.clone(), self.plan.keys);
            let said = Arc::new(std::sync::Mutex::new(None));
            let to = said.clone();
            self.world.spawn(async move {
                let words = last_words(net, id, keys, record).await;
                *to.lock().expect("one thread") = Some(words.map_err(|e| e.to_string()));
            });
            let until = self.now + 15_000;
            while said.lock().expect("one thread").is_none() && self.now < until {
                self.pass(10);
            }
            let said = said.lock().expect("one thread").take();
            match said {
                Some(Ok(())) => {}
                other => {
                    return Err(format!("node {id} does not serve after the faults: {other:?}; {}", self.describe()));
                }
            }
        }
        self.pass(2_000);
        let newest = self.truth.newest();
        for i in self.up() {
            let applied = self.nodes[i].parts().and_then(|p| p.raft.get()).map_or(0, |r| r.applied().0);
            if applied != newest {
                return Err(format!("node {} stays at entry {applied} of {newest}", self.nodes[i].id));
            }
        }
        Ok(())
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

    fn outcome(&mut self, liveness: Result<(), String>) -> Outcome {
        let mut record = self.record.lock();
        let mut violations = self.truth.violations();
        violations.append(&mut record.violations);
        let (ok, failed, unknown) = record.history.counts();
        (self.work.operations, self.work.failed, self.work.unknown) = (ok, failed, unknown);
        let mut checks: Vec<_> = check_registers(&record.history.operations).into_iter().collect();
        if let Some(first) = violations.first() {
            let all = violations.len();
            checks.insert(0, ("invariants", history::Checked::Violation(format!("{first} ({all} in all)"))));
        } else if let Err(why) = liveness {
            checks.push(("liveness", history::Checked::Violation(why)));
        }
        let least = AtLeast { operations: 50, ..AtLeast::default() };
        let verdict = judge(&self.work, &least, &checks);
        Outcome {
            verdict,
            work: self.work.clone(),
            simulated: self.now,
            trace: self.net.trace(),
            elections: self.truth.leaders() as u64,
            transactions: record.transactions,
            checkpoints: self.checkpoints.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Streams must not speak to a network that is going
        for node in &mut self.nodes {
            self.net.set_power(node.id, Power::Off);
            node.process = None;
        }
    }
}
