//! The witness check: the server itself says at which epoch each operation took effect; is that a legal story?
//!
//! - No two writes have the same epoch.
//! - Real time agrees: what was called after another had returned has a later epoch (a read: not an earlier one).
//! - A replay in the order of epochs (a read after the write of its epoch) gives every reply that clients got.
//!
//! A write without a reply, or with one that does not tell its epoch, may be at any epoch that no other write has, at or after its call, or nowhere; if
//! [`Operation::epoch`] tells where it was found, there. The search for the others steps back at most a bounded number of times.

use crate::{Checked, Model, Operation, Outcome};
use std::collections::{BTreeMap, BTreeSet};

/// Places tried for writes without a reply before the check is given up.
const GUESSES_MAX: usize = 1_000_000;

/// Checks a history whose replies carry epochs. Reads without an epoch are left to the other check.
pub fn check<'a, M: Model>(
    model: &M,
    operations: impl IntoIterator<Item = &'a Operation<M::Op, M::Reply>> + Clone,
) -> Checked
where
    M::Op: 'a,
    M::Reply: 'a,
{
    let replied = |o: &&Operation<_, _>| matches!(o.outcome, Outcome::Ok(_)) && o.epoch.is_some();
    let known: Vec<_> = operations.clone().into_iter().filter(replied).collect();
    let (found, lost): (Vec<_>, Vec<_>) = operations
        .into_iter()
        .filter(|o| !replied(o) && o.outcome != Outcome::Fail && model.writes(&o.op))
        .partition(|o| o.epoch.is_some());
    let mut line: Vec<_> = known.iter().chain(&found).copied().collect();
    if let Some(why) = real_time(model, &line) {
        return Checked::Violation(why);
    }
    // Reads come after the write of their epoch
    line.sort_by_key(|o| (o.epoch, !model.writes(&o.op)));
    let mut before: Option<&Operation<M::Op, M::Reply>> = None;
    for write in line.iter().filter(|o| model.writes(&o.op)) {
        if let Some(other) = before.filter(|o| o.epoch == write.epoch) {
            return Checked::Violation(format!("two writes at one epoch:\n  {other:?}\n  {write:?}"));
        }
        before = Some(write);
    }
    let replay = |sparing| Replay::new(model, &line, &lost, sparing).run();
    replay(true).or_else(|_| replay(false)).map_or_else(|unexplained| unexplained, |()| Checked::Ok(known.len() as u64))
}

/// A sweep over time: the newest epoch that had returned before each call.
fn real_time<M: Model>(model: &M, known: &[&Operation<M::Op, M::Reply>]) -> Option<String> {
    let mut calls = known.to_vec();
    calls.sort_by_key(|o| o.called);
    let mut returns = known.to_vec();
    returns.sort_by_key(|o| o.returned);
    let mut returns = returns.into_iter().peekable();
    let mut newest: Option<&Operation<M::Op, M::Reply>> = None;
    for later in calls {
        while let Some(earlier) = returns.next_if(|o| o.returned < later.called) {
            if newest.is_none_or(|n| earlier.epoch > n.epoch) {
                newest = Some(earlier);
            }
        }
        let Some(earlier) = newest else { continue };
        let same = later.epoch == earlier.epoch && !model.writes(&later.op);
        if later.epoch < earlier.epoch || (later.epoch == earlier.epoch && !same) {
            return Some(format!("epochs disagree with real time:\n  first {earlier:?}\n  then  {later:?}"));
        }
    }
    None
}

struct Replay<'a, M: Model> {
    model: &'a M,
    line: &'a [&'a Operation<M::Op, M::Reply>],
    lost: &'a [&'a Operation<M::Op, M::Reply>],
    guesses: usize,
    /// By place where the line leaves out epochs: what the operations from there to the next such place touch. A lost write is
    /// tried only right before something that it touches: there it explains as much as anywhere before. None: everywhere, for
    /// only one fits into each epoch.
    before: Option<BTreeMap<usize, BTreeSet<u32>>>,
}

/// How far a replay has come: all up to epoch `previous`, which is all of the line before place `at` and the lost writes in `used`.
#[derive(Clone)]
struct Point<S> {
    at: usize,
    previous: u64,
    state: S,
    used: BTreeSet<usize>,
}

/// A point to which the replay can go back, the lost writes not yet tried there, the one with which it went on, and what stayed
/// unexplained each time.
struct Choice<S> {
    point: Point<S>,
    untried: Vec<usize>,
    guess: Option<usize>,
    unexplained: BTreeSet<u32>,
}

impl<'a, M: Model> Replay<'a, M> {
    fn new(
        model: &'a M,
        line: &'a [&'a Operation<M::Op, M::Reply>],
        lost: &'a [&'a Operation<M::Op, M::Reply>],
        sparing: bool,
    ) -> Self {
        let mut replay = Replay { model, line, lost, guesses: 0, before: None };
        if sparing {
            let (mut before, mut previous) = (BTreeMap::new(), 0);
            for (at, operation) in line.iter().enumerate() {
                let epoch = operation.epoch.unwrap_or(0);
                if epoch > previous + u64::from(model.writes(&operation.op)) {
                    before.insert(at, BTreeSet::new());
                }
                if let Some(mut last) = before.last_entry() {
                    last.get_mut().extend(model.touches(&operation.op));
                }
                previous = previous.max(epoch);
            }
            replay.before = Some(before);
        }
        replay
    }

    fn run(mut self) -> Result<(), Checked> {
        let earliest_returns = self.earliest_returns();
        let mut choices: Vec<Choice<M::State>> = Vec::new();
        let mut now = Point { at: 0, previous: 0, state: self.model.initial(), used: BTreeSet::new() };
        let mut deepest = (0, String::new());
        while let Some(operation) = self.line.get(now.at) {
            choices.extend(self.choice(&now, earliest_returns[now.at]));
            let reply = self.model.step(&mut now.state, &operation.op);
            if !matches!(&operation.outcome, Outcome::Ok(expected) if *expected != reply) {
                now.previous = now.previous.max(operation.epoch.unwrap_or(0));
                now.at += 1;
                continue;
            }
            if deepest.1.is_empty() || now.at > deepest.0 {
                deepest = (now.at, self.explain(now.at, &reply));
            }
            let unexplained = self.model.touches(&operation.op).into_iter().collect();
            now = self.step_back(&mut choices, unexplained)?.ok_or_else(|| Checked::Violation(deepest.1.clone()))?;
        }
        Ok(())
    }

    /// Where the line leaves out epochs, any lost write that was called in time may be at one of them.
    fn choice(&self, now: &Point<M::State>, earliest_return: u64) -> Option<Choice<M::State>> {
        let operation = self.line[now.at];
        let taken = now.previous + u64::from(self.model.writes(&operation.op));
        if operation.epoch.unwrap_or(0) <= taken {
            return None;
        }
        let near = self.before.as_ref().map(|before| before.get(&now.at));
        let helps = |i: usize| {
            let touches = |near: &BTreeSet<u32>| self.model.touches(&self.lost[i].op).iter().any(|part| near.contains(part));
            near.is_none_or(|near| near.is_some_and(touches))
        };
        let may = |i: &usize| !now.used.contains(i) && self.lost[*i].called <= earliest_return && helps(*i);
        let untried: Vec<usize> = (0..self.lost.len()).filter(may).collect();
        (!untried.is_empty()).then(|| Choice {
            point: now.clone(),
            untried,
            guess: None,
            unexplained: BTreeSet::new(),
        })
    }

    /// The newest point at which something untried may help, after trying it. None: there is none. What may help touches what
    /// was unexplained at any try since, or what a guess did that touched it. (Conflict-directed backjumping, Prosser 1993.)
    fn step_back(
        &mut self,
        choices: &mut Vec<Choice<M::State>>,
        mut unexplained: BTreeSet<u32>,
    ) -> Result<Option<Point<M::State>>, Checked> {
        let (model, lost) = (self.model, self.lost);
        let touched = |i: usize| model.touches(&lost[i].op);
        while let Some(choice) = choices.last_mut() {
            let Choice { point, untried, guess, unexplained: here } = choice;
            here.append(&mut unexplained);
            if let Some(before) = guess.take().map(touched)
                && before.iter().any(|part| here.contains(part))
            {
                here.extend(before);
            }
            let Some(at) = untried.iter().rposition(|i| touched(*i).iter().any(|part| here.contains(part))) else {
                unexplained = std::mem::take(here);
                choices.pop();
                continue;
            };
            self.guesses += 1;
            if self.guesses > GUESSES_MAX {
                return Err(Checked::GaveUp(format!("{} writes without a reply", lost.len())));
            }
            let this = untried.remove(at);
            let mut point = point.clone();
            let reply = model.step(&mut point.state, &lost[this].op);
            if matches!(&lost[this].outcome, Outcome::Ok(expected) if *expected != reply) {
                // With something else before it it might have fitted
                here.extend(touched(this));
                continue;
            }
            *guess = Some(this);
            point.used.insert(this);
            point.previous += 1;
            return Ok(Some(point));
        }
        Ok(None)
    }

    /// For each place of the line: the earliest return at or after it. What was called later cannot be before it.
    fn earliest_returns(&self) -> Vec<u64> {
        let mut earliest = u64::MAX;
        let mut all: Vec<u64> = self
            .line
            .iter()
            .rev()
            .map(|o| {
                earliest = earliest.min(o.returned);
                earliest
            })
            .collect();
        all.reverse();
        all
    }

    fn explain(&self, at: usize, reply: &M::Reply) -> String {
        let mut text = format!("a replay in order of epochs gives {reply:?}, but a client got\n  {:?}", self.line[at]);
        self.line[at.saturating_sub(5)..at].iter().for_each(|o| text.push_str(&format!("\n  before: {o:?}")));
        text
    }
}
