//! Black-box linearizability of one object: the algorithm of Wing and Gong with Lowe's memo of visited configurations.
//!
//! Depth first: take any pending operation that was called before the earliest outstanding return, apply it to the model,
//! go on; step back where an operation with a known reply must return and nothing explains it. A configuration (set of
//! operations done, state) is never entered twice. Objects that do not touch each other are checked one by one
//! ([`check_keys`]), which is what makes millions of operations possible.
//!
//! Operations without a reply are tried only where those with one do not suffice, and need never be taken.

use crate::{Checked, Model, Operation, Outcome, Time, mix64};
use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// Configurations looked at for one object before the search is given up.
pub const CONFIGURATIONS_MAX: usize = 20_000_000;

/// Checks the operations of every key by itself.
pub fn check_keys<M: Model, K: Ord + std::fmt::Debug>(
    model: &M,
    operations: impl IntoIterator<Item = (K, Operation<M::Op, M::Reply>)>,
) -> Checked {
    let mut keys: BTreeMap<K, Vec<Operation<M::Op, M::Reply>>> = BTreeMap::new();
    for (key, operation) in operations {
        keys.entry(key).or_default().push(operation);
    }
    let mut total = 0;
    let mut gave_up = None;
    for (key, operations) in &keys {
        match check(model, operations) {
            Checked::Ok(count) => total += count,
            Checked::Violation(why) => return Checked::Violation(format!("key {key:?}: {why}")),
            Checked::GaveUp(why) => gave_up = Some(format!("key {key:?}: {why}")),
        }
    }
    gave_up.map_or(Checked::Ok(total), Checked::GaveUp)
}

/// Checks the operations of one object.
pub fn check<M: Model>(model: &M, operations: &[Operation<M::Op, M::Reply>]) -> Checked {
    Search::new(model, operations).run()
}

/// Whole-number words are mixed already: a memo key is its own hash.
#[derive(Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let word = chunk.iter().rev().fold(chunk.len() as u64, |word, byte| word << 8 | u64::from(*byte));
            self.write_u64(word);
        }
    }
    fn write_u64(&mut self, word: u64) {
        self.0 = mix64(self.0.rotate_left(5) ^ word.wrapping_add(0x9e37_79b9_7f4a_7c15));
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

fn hash_of(state: &impl Hash) -> u64 {
    let mut hasher = Mixed::default();
    state.hash(&mut hasher);
    hasher.finish()
}

/// Calls and returns of operations with a reply, in order of time, as a list from which an operation is taken out
/// when it is done, and put back when the search steps back.
struct Events {
    /// Operation; a return when the flag is set. Place 0 is the list's end and beginning.
    events: Vec<(usize, bool)>,
    next: Vec<u32>,
    previous: Vec<u32>,
    /// Places of an operation's call and return.
    places: Vec<(u32, u32)>,
}

impl Events {
    fn new<O, R>(known: &[&Operation<O, R>]) -> Events {
        let mut order: Vec<(Time, bool, usize)> = Vec::with_capacity(known.len() * 2);
        for (i, operation) in known.iter().enumerate() {
            order.push((operation.called, false, i));
            order.push((operation.returned, true, i));
        }
        // At one instant calls stand before returns: such operations are concurrent
        order.sort_unstable();
        let mut places = vec![(0, 0); known.len()];
        let mut events = vec![(usize::MAX, true)];
        for (_, returns, i) in order {
            let place = events.len() as u32;
            if returns {
                places[i].1 = place
            } else {
                places[i].0 = place
            }
            events.push((i, returns));
        }
        let len = events.len() as u32;
        let next = (1..=len).map(|i| i % len).collect();
        let previous = (0..len).map(|i| (i + len - 1) % len).collect();
        Events { events, next, previous, places }
    }

    fn unlink(&mut self, place: u32) {
        let (before, after) = (self.previous[place as usize], self.next[place as usize]);
        (self.next[before as usize], self.previous[after as usize]) = (after, before);
    }

    fn relink(&mut self, place: u32) {
        let (before, after) = (self.previous[place as usize], self.next[place as usize]);
        (self.next[before as usize], self.previous[after as usize]) = (place, place);
    }

    fn take(&mut self, operation: usize) {
        let (call, returns) = self.places[operation];
        self.unlink(call);
        self.unlink(returns);
    }

    fn put_back(&mut self, operation: usize) {
        let (call, returns) = self.places[operation];
        self.relink(returns);
        self.relink(call);
    }
}

/// Where the search looks for the next operation to take.
#[derive(Clone, Copy)]
enum Cursor {
    Known(u32),
    Unknown(usize),
}

struct Search<'a, M: Model> {
    model: &'a M,
    known: Vec<&'a Operation<M::Op, M::Reply>>,
    /// Writes without a reply, by time of call.
    unknown: Vec<&'a Operation<M::Op, M::Reply>>,
    taken: Vec<bool>,
    events: Events,
    state: M::State,
    /// Zobrist hash of the set of operations done. With the state's hash 128 bits name a configuration.
    done: u64,
    seen: HashSet<(u64, u64), BuildHasherDefault<Mixed>>,
    stack: Vec<(Cursor, M::State)>,
}

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M, operations: &'a [Operation<M::Op, M::Reply>]) -> Self {
        let known: Vec<_> = operations.iter().filter(|o| matches!(o.outcome, Outcome::Ok(_))).collect();
        let mut unknown: Vec<_> =
            operations.iter().filter(|o| o.outcome == Outcome::Unknown && model.writes(&o.op)).collect();
        unknown.sort_by_key(|o| o.called);
        let (taken, events) = (vec![false; unknown.len()], Events::new(&known));
        let (state, seen) = (model.initial(), HashSet::default());
        Search { model, known, unknown, taken, events, state, done: 0, seen, stack: Vec::new() }
    }

    fn run(mut self) -> Checked {
        let mut cursor = Cursor::Known(self.events.next[0]);
        let (mut left, mut deepest, mut stuck) = (self.known.len(), usize::MAX, 0);
        while left > 0 {
            if self.seen.len() > CONFIGURATIONS_MAX {
                return Checked::GaveUp(format!("{} operations, {} unknown", self.known.len(), self.unknown.len()));
            }
            match self.candidate(cursor) {
                Some(at) => match self.take(at) {
                    true => {
                        left -= usize::from(matches!(at, Cursor::Known(_)));
                        cursor = Cursor::Known(self.events.next[0]);
                    }
                    false => cursor = self.after(at),
                },
                None => {
                    if left < deepest {
                        (deepest, stuck) = (left, self.first_return());
                    }
                    let Some((at, state)) = self.stack.pop() else {
                        return Checked::Violation(self.explain(stuck, deepest));
                    };
                    self.state = state;
                    self.step_back(at);
                    left += usize::from(matches!(at, Cursor::Known(_)));
                    cursor = self.after(at);
                }
            }
        }
        Checked::Ok(self.known.len() as u64)
    }

    /// The operation at `cursor` or the next one that may be taken now.
    fn candidate(&self, cursor: Cursor) -> Option<Cursor> {
        let from = match cursor {
            Cursor::Known(place) if !self.events.events[place as usize].1 => return Some(cursor),
            Cursor::Known(_) => 0,
            Cursor::Unknown(from) => from,
        };
        let until = self.known[self.first_return()].returned;
        let free = |i: &usize| !self.taken[*i];
        let found = (from..self.unknown.len()).take_while(|i| self.unknown[*i].called <= until).find(free);
        found.map(Cursor::Unknown)
    }

    fn after(&self, cursor: Cursor) -> Cursor {
        match cursor {
            Cursor::Known(place) => Cursor::Known(self.events.next[place as usize]),
            Cursor::Unknown(i) => Cursor::Unknown(i + 1),
        }
    }

    /// The operation that returns first of those not yet done.
    fn first_return(&self) -> usize {
        let mut place = self.events.next[0];
        while !self.events.events[place as usize].1 {
            place = self.events.next[place as usize];
        }
        self.events.events[place as usize].0
    }

    /// Applies an operation, unless its reply is another or the configuration is known.
    fn take(&mut self, at: Cursor) -> bool {
        let (operation, number) = match at {
            Cursor::Known(place) => {
                let i = self.events.events[place as usize].0;
                (self.known[i], i as u64)
            }
            Cursor::Unknown(i) => (self.unknown[i], u64::MAX - i as u64),
        };
        let mut state = self.state.clone();
        let reply = self.model.step(&mut state, &operation.op);
        if matches!(&operation.outcome, Outcome::Ok(expected) if *expected != reply) {
            return false;
        }
        let done = self.done ^ mix64(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d);
        if !self.seen.insert((done, hash_of(&state))) {
            return false;
        }
        self.done = done;
        self.stack.push((at, std::mem::replace(&mut self.state, state)));
        match at {
            Cursor::Known(place) => self.events.take(self.events.events[place as usize].0),
            Cursor::Unknown(i) => self.taken[i] = true,
        }
        true
    }

    fn step_back(&mut self, at: Cursor) {
        let number = match at {
            Cursor::Known(place) => {
                let i = self.events.events[place as usize].0;
                self.events.put_back(i);
                i as u64
            }
            Cursor::Unknown(i) => {
                self.taken[i] = false;
                u64::MAX - i as u64
            }
        };
        self.done ^= mix64(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d);
    }

    /// The operation that nothing explains, and those around it.
    fn explain(&self, stuck: usize, left: usize) -> String {
        let operation = self.known[stuck];
        let mut text = format!(
            "no order of {} operations gives their replies; {left} stay over, and nothing explains\n  {operation:?}\namong",
            self.known.len()
        );
        let near = |o: &&&Operation<_, _>| o.called <= operation.returned && o.returned >= operation.called;
        self.known.iter().filter(near).take(10).for_each(|o| text.push_str(&format!("\n  {o:?}")));
        let mut before: Vec<_> = self.known.iter().filter(|o| o.returned < operation.called).collect();
        before.sort_by_key(|o| std::cmp::Reverse(o.returned));
        before.iter().take(5).for_each(|o| text.push_str(&format!("\n  before: {o:?}")));
        text
    }
}
