//! Who breaks things: from one seed, one fault after the other and over one another, and each is undone again some time later.
//! Never more disks are lost than the cluster can spare: one at a time, until a new node votes in its place.

use crate::common::{Random, words};
use crate::nodes::Nodes;
use history::verdict::Work;
use std::collections::VecDeque;
use std::process::Child;
use std::time::{Duration, Instant};

/// Faults in force at once, besides a change of membership.
const ACTIVE_MAX: usize = 3;
/// A change of membership that is not through by then never will be.
const CHANGE_MAX: Duration = Duration::from_secs(180);
/// A failover that takes longer has failed.
const FAILOVER_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Of the leader, with nothing else amiss: how long it takes is measured.
    Failover,
    Kill,
    KillAll,
    Pause,
    Partition,
    OneWay,
    Loss,
    Slow,
    Clock,
    SyncError,
    Transfer,
    Demote,
    Join,
    Wipe,
    BitFlip,
}

impl Fault {
    pub const ALL: [Fault; 15] = [
        Fault::Failover,
        Fault::Kill,
        Fault::KillAll,
        Fault::Pause,
        Fault::Partition,
        Fault::OneWay,
        Fault::Loss,
        Fault::Slow,
        Fault::Clock,
        Fault::SyncError,
        Fault::Transfer,
        Fault::Demote,
        Fault::Join,
        Fault::Wipe,
        Fault::BitFlip,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Fault::Failover => "failover",
            Fault::Kill => "kill",
            Fault::KillAll => "kill-all",
            Fault::Pause => "pause",
            Fault::Partition => "partition",
            Fault::OneWay => "one-way",
            Fault::Loss => "loss",
            Fault::Slow => "slow",
            Fault::Clock => "clock",
            Fault::SyncError => "sync-error",
            Fault::Transfer => "transfer",
            Fault::Demote => "demote",
            Fault::Join => "join",
            Fault::Wipe => "wipe",
            Fault::BitFlip => "bit-flip",
        }
    }
}

enum Undo {
    Launch(Vec<usize>),
    Continue(usize),
    Heal,
    Hear(usize),
    Hasten(usize),
    SetClock(usize),
    Replace(usize, Child),
}

/// A change of membership on its way: what is still to be done, in order, each until it succeeds.
struct Change {
    place: usize,
    id: Option<u64>,
    todo: VecDeque<Step>,
    begun: Instant,
    /// The last refusal.
    why: String,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Demote,
    Remove,
    Join,
    Promote,
    Kill,
}

pub struct Breaker<'a> {
    pub nodes: &'a mut Nodes,
    pub random: Random,
    pub faults: Vec<Fault>,
    pub work: Work,
    pub violations: Vec<String>,
    /// From SIGKILL of a leader until another node has acknowledged a write that was sent after it.
    pub failovers: Vec<Duration>,
    active: Vec<(Instant, Undo)>,
    change: Option<Change>,
    probes: u64,
}

impl<'a> Breaker<'a> {
    pub fn new(nodes: &'a mut Nodes, random: Random, faults: &[Fault]) -> Self {
        Breaker {
            nodes,
            random,
            faults: faults.to_vec(),
            work: Work::default(),
            violations: Vec::new(),
            failovers: Vec::new(),
            active: Vec::new(),
            change: None,
            probes: 0,
        }
    }

    /// Breaks things for so long.
    pub fn run(&mut self, time: Duration) {
        let begin = Instant::now();
        while begin.elapsed() < time && self.violations.is_empty() {
            self.go_on();
            if self.active.len() < ACTIVE_MAX {
                let fault = *self.random.pick(&self.faults.clone());
                match self.inject(fault) {
                    Ok(true) => self.work.fault(fault.name()),
                    Ok(false) => {}
                    Err(why) => self.violations.push(format!("{}: {why}", fault.name())),
                }
            }
            self.sleep(20, 500);
        }
    }

    /// Undoes everything, and finishes what was begun.
    pub fn end(&mut self) {
        for (_, undo) in std::mem::take(&mut self.active) {
            self.undo(undo);
        }
        self.attempt("heal", |nodes| nodes.net.heal());
        while self.change.is_some() && self.violations.is_empty() {
            self.go_on();
            std::thread::sleep(Duration::from_millis(100));
        }
        self.go_on();
    }

    fn sleep(&mut self, low: i64, high: i64) {
        std::thread::sleep(Duration::from_millis(self.random.between(low, high) as u64));
    }

    fn attempt(&mut self, what: &str, done: impl FnOnce(&mut Nodes) -> Result<(), String>) {
        if let Err(why) = done(self.nodes) {
            self.violations.push(format!("{what}: {why}"));
        }
    }

    fn go_on(&mut self) {
        let now = Instant::now();
        while let Some(i) = self.active.iter().position(|(until, _)| *until <= now) {
            let (_, undo) = self.active.swap_remove(i);
            self.undo(undo);
        }
        for place in 0..self.nodes.net.places() {
            let Some(said) = self.nodes.ended(place) else { continue };
            // One that asks in vain to join gives up, and asks again; one that starts on a failing disk says so
            let joins = self.change.as_ref().is_some_and(|change| change.place == place);
            let fails = self.is_failing(place) && said.contains("Input/output error");
            if !joins && !fails {
                self.violations.push(format!("machine {} ended by itself:\n{said}", place + 1));
            }
        }
        self.go_on_with_change();
    }

    fn is_failing(&self, place: usize) -> bool {
        self.active.iter().any(|(_, undo)| matches!(undo, Undo::Replace(failing, _) if *failing == place))
    }

    fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Launch(places) => {
                places.into_iter().for_each(|place| self.attempt("start", |nodes| nodes.launch(place)))
            }
            Undo::Continue(place) => self.nodes.pause(place, false),
            Undo::Heal => self.attempt("heal", |nodes| nodes.net.unblock()),
            Undo::Hear(place) => self.attempt("hear", |nodes| nodes.net.lose(place, false)),
            Undo::Hasten(place) => self.attempt("hasten", |nodes| nodes.net.slow(place, false)),
            Undo::SetClock(place) => self.attempt("clock", |nodes| nodes.set_clock(place, 0)),
            Undo::Replace(place, mut strace) => {
                // Without a majority there is nothing to write
                if self.nodes.output(place).contains("Input/output error") {
                    self.work.fault("sync-error-said");
                }
                self.nodes.kill(place);
                let _ = strace.wait();
                self.attempt("start", |nodes| nodes.launch(place));
            }
        }
    }

    fn later(&mut self, low: i64, high: i64, undo: Undo) {
        let after = Duration::from_millis(self.random.between(low, high) as u64);
        self.active.push((Instant::now() + after, undo));
    }

    /// Places that nothing is being done to: awake, and not about to be changed or replaced.
    fn sound(&self) -> Vec<usize> {
        let meddled = |place: usize| {
            let with = |undo: &Undo| matches!(undo, Undo::Replace(p, _) | Undo::Continue(p) | Undo::SetClock(p) if *p == place);
            self.active.iter().any(|(_, undo)| with(undo)) || self.change.as_ref().is_some_and(|c| c.place == place)
        };
        self.nodes.awake().into_iter().filter(|place| !meddled(*place)).collect()
    }

    fn victim(&mut self) -> Option<usize> {
        let sound = self.sound();
        let leader = if self.random.chance(50) { self.nodes.leader().filter(|at| sound.contains(at)) } else { None };
        leader.or_else(|| (!sound.is_empty()).then(|| *self.random.pick(&sound)))
    }

    /// False: it makes no sense now.
    fn inject(&mut self, fault: Fault) -> Result<bool, String> {
        let Some(place) = self.victim() else { return Ok(false) };
        let members: Vec<usize> = (0..self.nodes.net.places()).filter(|at| self.nodes.id(*at).is_some()).collect();
        let others: Vec<usize> = members.into_iter().filter(|at| *at != place).collect();
        match fault {
            Fault::Failover => return Ok(self.calm().is_some_and(|leader| self.time_failover(leader))),
            Fault::Kill => {
                self.nodes.kill(place);
                self.later(0, 1500, Undo::Launch(vec![place]));
            }
            Fault::KillAll => {
                let all = self.sound();
                all.iter().for_each(|place| self.nodes.kill(*place));
                all.iter().for_each(|_| self.work.fault("kill"));
                self.later(0, 300, Undo::Launch(all));
            }
            Fault::Pause => {
                self.nodes.pause(place, true);
                self.later(100, 4000, Undo::Continue(place));
            }
            Fault::Partition => {
                self.nodes.net.block(others.iter().flat_map(|other| [(place, *other), (*other, place)]))?;
                self.later(300, 5000, Undo::Heal);
            }
            Fault::OneWay => {
                // It does not hear the others, or they do not hear it, or one of them
                let deaf = self.random.chance(50);
                let pair = |other| if deaf { (other, place) } else { (place, other) };
                let pairs: Vec<_> = others.iter().map(|other| pair(*other)).collect();
                let some = 1 + self.random.below(pairs.len().max(1));
                self.nodes.net.block(pairs.into_iter().take(some))?;
                self.later(300, 5000, Undo::Heal);
            }
            Fault::Loss => {
                self.nodes.net.lose(place, true)?;
                self.later(500, 5000, Undo::Hear(place));
            }
            Fault::Slow => {
                self.nodes.net.slow(place, true)?;
                self.later(500, 5000, Undo::Hasten(place));
            }
            Fault::Clock if self.nodes.can_set_clocks() => {
                let wrong = *self.random.pick(&[-86_400, -60, -1, 1, 60, 86_400]);
                self.nodes.set_clock(place, wrong)?;
                self.later(1500, 6000, Undo::SetClock(place));
            }
            Fault::SyncError if crate::net::has("strace") => {
                let strace = self.nodes.break_syncs(place)?;
                self.later(2500, 3500, Undo::Replace(place, strace));
            }
            Fault::Transfer => {
                let to = *self.random.pick(&others);
                let Some(id) = self.nodes.id(to) else { return Ok(false) };
                return Ok(self.nodes.ask(place, &format!("LOOK.CLUSTER TRANSFER {id}")).is_ok());
            }
            Fault::Demote | Fault::Join | Fault::Wipe | Fault::BitFlip => return self.change(fault, place),
            Fault::Clock | Fault::SyncError => return Ok(false),
        }
        Ok(true)
    }

    /// Waits until all faults are over and all nodes have caught up; who leads then. None: a change of membership goes on, or it takes too long.
    fn calm(&mut self) -> Option<usize> {
        let begin = Instant::now();
        while self.change.is_none() && begin.elapsed() < Duration::from_secs(20) && self.violations.is_empty() {
            self.go_on();
            let leader = self.nodes.leader().filter(|_| self.active.is_empty());
            if leader.is_some_and(|leader| self.settled(leader)) {
                return leader;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        None
    }

    /// Kills the leader; how long nobody could write.
    fn time_failover(&mut self, leader: usize) -> bool {
        let other = self.sound().into_iter().find(|other| *other != leader);
        let connection = other.and_then(|other| self.nodes.connect(other, FAILOVER_MAX).ok());
        let Some(mut connection) = connection else { return false };
        self.probes += 1;
        let request = words(&format!("SET probe {}", self.probes));
        let killed = Instant::now();
        self.nodes.kill(leader);
        match connection.call(&request) {
            Ok(reply) if !reply.is_error() => self.failovers.push(killed.elapsed()),
            other => {
                self.violations
                    .push(format!("no failover within {FAILOVER_MAX:?}: {other:?}\n{}", self.nodes.outputs()));
            }
        }
        self.later(0, 300, Undo::Launch(vec![leader]));
        true
    }

    /// Whether a leader's followers have all that it has.
    fn settled(&self, leader: usize) -> bool {
        let text = self.nodes.ask(leader, "LOOK.CLUSTER").map(|reply| reply.text()).unwrap_or_default();
        let lag = |line: &str| line.split_once("lag=")?.1.split(',').next()?.trim().parse::<u64>().ok();
        let lags: Vec<u64> = text.lines().filter_map(lag).collect();
        lags.len() >= self.nodes.awake().len() && lags.iter().all(|lag| *lag < 20)
    }

    /// Begins a change of membership, unless one is on its way.
    fn change(&mut self, fault: Fault, mut place: usize) -> Result<bool, String> {
        if self.change.is_some() {
            return Ok(false);
        }
        let todo: &[Step] = match fault {
            Fault::Demote => &[Step::Demote, Step::Promote],
            Fault::Join => {
                place = self.nodes.net.places() - 1;
                if self.nodes.id(place).is_some() {
                    return Ok(false);
                }
                self.nodes.wipe(place)?;
                &[Step::Join, Step::Promote, Step::Kill, Step::Remove]
            }
            _ => &[Step::Remove, Step::Join, Step::Promote],
        };
        let id = self.nodes.id(place);
        if fault == Fault::BitFlip && !self.flip(place)? {
            return Ok(true);
        }
        if matches!(fault, Fault::Wipe | Fault::BitFlip) {
            self.nodes.wipe(place)?;
        }
        let todo = todo.iter().copied().collect();
        self.change = Some(Change { place, id, todo, begun: Instant::now(), why: String::new() });
        Ok(true)
    }

    /// Flips a bit in the files of a killed node. True: it was found. A node whose data is damaged must say so, or be right.
    fn flip(&mut self, place: usize) -> Result<bool, String> {
        self.nodes.kill(place);
        let flipped = self.nodes.flip(place, &mut self.random)?;
        let verified = self.nodes.verify(place);
        self.nodes.launch(place)?;
        // What it serves meanwhile goes into the histories
        self.sleep(1000, 2500);
        let refused = self.nodes.ended(place);
        self.work.fault(match (&verified, &refused) {
            (Err(_), Some(_)) => "flip-refused",
            (Err(_), None) => "flip-named-by-verify",
            (Ok(_), None) => "flip-harmless",
            (Ok(_), Some(_)) => return Err(format!("verify is content, the node is not: {flipped}: {refused:?}")),
        });
        let said = refused.as_deref().unwrap_or_default();
        let names = ["damaged", "corrupt", "checksum", "broken", "missing", "does not say"];
        if refused.is_some() && !names.iter().any(|word| said.to_lowercase().contains(word)) {
            return Err(format!("after {flipped} it ends without naming the damage:\n{said}"));
        }
        Ok(verified.is_err())
    }

    fn go_on_with_change(&mut self) {
        let Some(mut change) = self.change.take() else { return };
        if change.begun.elapsed() > CHANGE_MAX {
            let outputs = self.nodes.outputs();
            let Change { place, id, todo, why, .. } = change;
            let place = place + 1;
            return self
                .violations
                .push(format!("change of machine {place}, node {id:?} hangs at {todo:?}: {why}\n{outputs}"));
        }
        while let Some(step) = change.todo.front().copied() {
            match self.step(&mut change, step) {
                Ok(()) => drop(change.todo.pop_front()),
                Err(why) => {
                    change.why = why;
                    self.change = Some(change);
                    return;
                }
            }
        }
        self.work.fault("changes-done");
    }

    fn step(&mut self, change: &mut Change, step: Step) -> Result<(), String> {
        let awake = self.nodes.awake();
        let asked = awake.into_iter().find(|at| *at != change.place).ok_or("nobody is awake")?;
        let order = |word: &str, done: &str| {
            let Some(id) = change.id else { return Ok(()) };
            let answer = self.nodes.ask(asked, &format!("LOOK.CLUSTER {word} {id}"));
            answer.map(drop).or_else(|why| if why.contains(done) { Ok(()) } else { Err(why) })
        };
        match step {
            Step::Demote => order("DEMOTE", "does not vote").or_else(|why| match why.contains("leads") {
                // Then there is nothing to take back either
                true => Ok(()),
                false => Err(why),
            }),
            Step::Promote => order("PROMOTE", "votes already"),
            Step::Remove => order("REMOVE", "is not a member"),
            Step::Join => {
                if self.nodes.pid(change.place).is_none() {
                    self.nodes.launch(change.place)?;
                }
                change.id = Some(self.nodes.learn_id(change.place).ok_or("it has not joined yet")?);
                Ok(())
            }
            Step::Kill => self.nodes.wipe(change.place),
        }
    }
}
