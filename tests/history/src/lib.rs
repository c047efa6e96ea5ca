//! # Histories, and what they prove
//!
//! A history is what clients saw: operations with the times of call and return, and an outcome that is *ok*, *fail* or
//! *unknown*. An unknown operation (its connection broke before the reply) stays pending for ever: it may take effect at any
//! later time, or never. It is never taken for failed.
//!
//! Two checks, which share nothing but this page and [`Model`]:
//!
//! - [`linear`]: black box. Is there an order of the operations of one key that agrees with real time and gives these replies?
//! - [`witness`]: replies carry the epoch at which they took effect. Real-time order must agree with the order of epochs, and
//!   a replay in that order must give the same replies. Covers operations on several keys and transactions.
//!
//! [`verdict`] says PASS only of a run with enough work in it; else INVALID.

pub mod linear;
pub mod models;
pub mod verdict;
pub mod witness;

use std::fmt::Debug;
use std::hash::Hash;

/// Nanoseconds, or any other clock that all clients share. Calls and returns at the same instant count as concurrent.
pub type Time = u64;

/// What a client knows of its operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<R> {
    Ok(R),
    /// Certainly not applied.
    Fail,
    /// No reply came.
    Unknown,
}

/// The object that clients believe to use, one thread at a time.
pub trait Model {
    type State: Clone + Hash;
    type Op: Clone + Debug;
    type Reply: Clone + PartialEq + Debug;

    fn initial(&self) -> Self::State;
    /// Applies `op` and gives its reply.
    fn step(&self, state: &mut Self::State, op: &Self::Op) -> Self::Reply;
    /// Whether `op` can change the state. What cannot and has no reply says nothing.
    fn writes(&self, op: &Self::Op) -> bool;
    /// The parts of the state that `op` reads or changes, by number: what touches none in common has no effect on one another.
    fn touches(&self, _op: &Self::Op) -> Vec<u32> {
        vec![0]
    }
}

#[derive(Clone, Debug)]
pub struct Operation<O, R> {
    pub client: u32,
    pub op: O,
    pub called: Time,
    /// `Time::MAX` while no reply has come.
    pub returned: Time,
    pub outcome: Outcome<R>,
    /// The epoch at which it took effect (a write), or whose state it saw (a read), where the reply said so.
    pub epoch: Option<u64>,
}

impl<O, R> Operation<O, R> {
    /// A read that saw the state at `epoch`, whenever it was asked: real time says nothing of it.
    pub fn of_the_past(client: u32, op: O, epoch: u64, reply: R) -> Self {
        Operation { client, op, called: 0, returned: Time::MAX, outcome: Outcome::Ok(reply), epoch: Some(epoch) }
    }
}

/// A place in a history, for the return of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Called(usize);

/// What one client, or one thread that plays several, has seen. Several are put together with [`History::extend`].
#[derive(Clone, Debug)]
pub struct History<O, R> {
    pub operations: Vec<Operation<O, R>>,
}

impl<O, R> Default for History<O, R> {
    fn default() -> Self {
        History { operations: Vec::new() }
    }
}

impl<O, R> History<O, R> {
    /// Before the request is sent. Unknown until its end is told.
    pub fn call(&mut self, client: u32, op: O, now: Time) -> Called {
        self.operations.push(Operation {
            client,
            op,
            called: now,
            returned: Time::MAX,
            outcome: Outcome::Unknown,
            epoch: None,
        });
        Called(self.operations.len() - 1)
    }

    /// After the reply was read.
    pub fn ok(&mut self, call: Called, reply: R, epoch: Option<u64>, now: Time) {
        let operation = &mut self.operations[call.0];
        (operation.outcome, operation.epoch, operation.returned) = (Outcome::Ok(reply), epoch, now);
    }

    /// Only for a refusal that promises that nothing was done, or after the log was read to its end and does not hold it.
    pub fn fail(&mut self, call: Called, now: Time) {
        let operation = &mut self.operations[call.0];
        (operation.outcome, operation.returned) = (Outcome::Fail, now);
    }

    /// An unknown operation was found in the log afterwards: the witness check need not guess its place.
    pub fn found(&mut self, call: Called, epoch: u64) {
        self.operations[call.0].epoch = Some(epoch);
    }

    pub fn operation(&self, call: Called) -> &Operation<O, R> {
        &self.operations[call.0]
    }

    pub fn extend(&mut self, other: History<O, R>) {
        self.operations.extend(other.operations);
    }

    /// Numbers of ok, fail and unknown.
    pub fn counts(&self) -> (u64, u64, u64) {
        self.operations.iter().fold((0, 0, 0), |(ok, fail, unknown), o| match o.outcome {
            Outcome::Ok(_) => (ok + 1, fail, unknown),
            Outcome::Fail => (ok, fail + 1, unknown),
            Outcome::Unknown => (ok, fail, unknown + 1),
        })
    }
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// So many operations were checked.
    Ok(u64),
    /// No legal explanation exists; what, for a person to read.
    Violation(String),
    /// The search was given up. Never to be taken for a pass.
    GaveUp(String),
}

/// SplitMix64's finaliser.
pub(crate) fn mix64(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
