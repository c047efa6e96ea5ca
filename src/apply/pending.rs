//! What a chunk's gateway wants back: a plan of answers that apply (for chunks with writes) or the connection's own
//! thread (for chunks that only read) fills in, step by step, into one reply buffer.
//!
//! The log carries the chunk's records only. Reads among them (*riders*) and answers that need no state (errors,
//! `PING`) stay on the gateway's node, here; the steps say how the three kinds interleave.

use crate::base::Epoch;
use crate::base::batch::{BuilderPlace, ChunkBuilder, KEEP_BYTES};
use crate::base::planted::planted;
use crate::resp::{ReplyBuf, Version};
use std::borrow::Cow;

/// One answer, or a run of answers of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The next so many calls of the logged chunk answer, one epoch each. A `ONCE` record and the record behind it are
    /// one call here.
    Records(u32),
    /// The next so many calls of [`Plan::riders`] answer, at this place among the records.
    Riders(u32),
    /// The next so many bytes of [`Plan::literals`] are the answer (of one or more commands).
    Literal(u32),
    /// A transaction. If a watched key has changed, the answer is a null array and the `steps` that follow are passed over
    /// (their riders and literals too). Otherwise: the header of an array of `elements`, then `steps` more steps answer
    /// the elements. With records among them it is an `EXEC` record in the log (which carries the watches itself), and all
    /// its steps are one epoch. Without, it only reads: the next `watches` of [`Plan::watches`] are checked against
    /// the root it reads, and all its steps read that root.
    Exec { elements: u32, steps: u32, watches: u32, logged: bool },
    /// From here on answers are swallowed, or not (`CLIENT REPLY`).
    Mute(bool),
    /// From here on answers are in this dialect (`HELLO` in a transaction).
    Dialect(Version),
}

/// A key that must not have changed after `epoch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    pub db: u8,
    pub key: Vec<u8>,
    pub hash: u64,
    pub epoch: Epoch,
    /// The key did not exist then: only its coming into being is a change.
    pub absent: bool,
}

/// How one chunk is answered. Riders, literals and watches are consumed in order.
#[derive(Debug, Default)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// Parsed reads; their bytes words point into its own blob.
    pub riders: ChunkBuilder,
    pub literals: Vec<u8>,
    pub watches: Vec<Watch>,
    /// Runs do not grow over this number of steps: a transaction ends there.
    sealed: usize,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Empties the plan and keeps small buffers for the next chunk.
    pub fn clear(&mut self) {
        self.steps.clear();
        self.sealed = 0;
        self.watches.clear();
        self.literals.clear();
        self.literals.shrink_to(KEEP_BYTES);
        self.riders.clear();
    }

    pub fn records(&mut self, count: u32) {
        match self.steps.get_mut(self.sealed..).and_then(<[Step]>::last_mut) {
            Some(Step::Records(n)) => *n += count,
            _ => self.steps.push(Step::Records(count)),
        }
    }

    pub fn rider(&mut self) {
        match self.steps.get_mut(self.sealed..).and_then(<[Step]>::last_mut) {
            Some(Step::Riders(n)) => *n += 1,
            _ if planted("a read overtakes writes") => self.steps.insert(self.sealed, Step::Riders(1)),
            _ => self.steps.push(Step::Riders(1)),
        }
    }

    /// Takes back the last rider, which began at `at`.
    pub fn take_back_rider(&mut self, at: BuilderPlace) {
        self.riders.take_back(at);
        match self.steps.last_mut() {
            Some(Step::Riders(n)) if *n > 1 => *n -= 1,
            Some(Step::Riders(_)) => drop(self.steps.pop()),
            _ => {}
        }
    }

    /// What comes next is a step of its own, even if it is of the same kind as the last.
    pub fn seal(&mut self) {
        self.sealed = self.steps.len();
    }

    /// Appends an encoded answer.
    pub fn literal(&mut self, reply: &[u8]) {
        self.literals.extend_from_slice(reply);
        self.literal_bytes(reply.len());
    }

    /// The last `bytes` of [`Plan::literals`] are an answer.
    pub fn literal_bytes(&mut self, bytes: usize) {
        match self.steps.get_mut(self.sealed..).and_then(<[Step]>::last_mut) {
            Some(Step::Literal(n)) if (*n as usize + bytes) < u32::MAX as usize => *n += bytes as u32,
            _ => self.steps.push(Step::Literal(bytes as u32)),
        }
    }
}

/// What the calls of a chunk cost on its gateway's node.
#[derive(Debug, Default)]
pub struct Cost {
    pub calls: u64,
    pub ops: u64,
    pub locs: u64,
    pub nanos: u64,
    pub slow: Option<Box<Slow>>,
}

/// A slow call.
#[derive(Debug)]
pub struct Slow {
    pub micros: i64,
    /// As a request, its name first.
    pub args: Vec<Vec<u8>>,
    /// Its command is said to be fast.
    pub fast: bool,
}

/// A chunk that its gateway waits for. Registered with its sequence before the chunk can be applied.
pub struct Pending {
    pub plan: Plan,
    /// Empty, in the client's dialect; apply writes the answers here.
    pub reply: ReplyBuf,
    /// Once `reply` is longer, riders are no longer run and the outcome is [`Outcome::TooLong`] (records still are:
    /// the log has decided them).
    pub reply_bytes_max: usize,
    /// The costliest call is reported when it took so many microseconds; negative: never.
    pub slow_us: i64,
    /// What the chunk cost; apply fills it in.
    pub cost: Cost,
    /// Takes the filled reply; called once. Dropped uncalled: the node stops.
    pub done: Box<dyn FnOnce(Completion) + Send>,
}

impl Pending {
    /// Hands the reply over; nobody may be listening any more.
    pub fn finish(self, epoch: Epoch, outcome: Outcome) {
        (self.done)(Completion { reply: self.reply, plan: self.plan, epoch, outcome, cost: self.cost });
    }
}

/// A chunk that has run, its root published.
pub struct Answered {
    pub pending: Pending,
    pub epoch: Epoch,
    pub outcome: Outcome,
}

impl Answered {
    pub fn finish(self) {
        self.pending.finish(self.epoch, self.outcome);
    }
}

/// How a chunk ended on its gateway's node. When `done` is dropped uncalled the outcome is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Applied,
    /// The code table changed between parsing and applying; nothing was run, on any node.
    CodeChanged,
    /// The reply outgrew the client's limit: the connection is to be closed.
    TooLong,
    /// The chunk was not taken (this node cannot write now): nothing was run. A whole error line without `-`.
    Refused(Cow<'static, str>),
}

/// What apply hands back.
#[derive(Debug)]
pub struct Completion {
    pub reply: ReplyBuf,
    /// The plan's buffers, to be used again.
    pub plan: Plan,
    /// The newest epoch that this chunk wrote; 0 when it wrote none.
    pub epoch: Epoch,
    pub outcome: Outcome,
    pub cost: Cost,
}
