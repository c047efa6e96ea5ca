//! # The runner: calls against a writer, one epoch each
//!
//! Shared by the live loop and by private replay (`history`), so that the past is made by the code that made the present. It
//! owns what a run of calls needs: the environment of programs, the epoch counter and log time. It publishes nothing.

use super::pending::{Plan, Slow, Step, Watch};
use super::{ledger, nodes, system};
use crate::base::batch::{Batch, Call, Calls, Chunk, Words, handler};
use crate::base::members::Members;
use crate::base::planted::planted;
use crate::base::words::BytesWord;
use crate::base::{Epoch, KeyHasher, LogIndex, Millis, NodeId};
use crate::command::Table;
use crate::command::costs::{Costs, Counter, Totals};
use crate::command::show;
use crate::lang::env::{Call as ProgramCall, Ended, Env, random_source};
use crate::resp::{ReplyBuf, Version};
use crate::store::{PageError, Read, Writer};
use std::sync::Arc;

/// Removals of expired keys before a batch, at most: bounded work, the rest waits for the next batch.
const EXPIRED_PER_BATCH: usize = 256;

/// Why calls cannot be run; the node stops writing.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("entry {0} needs code version {1}, this node has {2}; start the version of Look that wrote it")]
    CodeVersion(LogIndex, u64, u64),
    #[error("entry {0} calls handler {1}, which this node does not know; start the version of Look that wrote it")]
    UnknownHandler(LogIndex, u32),
    #[error(
        "entry {0} holds a system record of kind {1}, which this node does not know; start the version of Look that wrote it"
    )]
    UnknownSystem(LogIndex, u64),
    /// The state is half changed: go back to a whole one and run its calls again with [`Runner::careful`].
    #[error("command '{1}' in entry {0} panicked half-way through its writes")]
    Panicked(LogIndex, String),
    #[error("a page of the state cannot be read: {0}")]
    Page(String),
}

/// What a read answers that needs a page which cannot be had.
pub fn damaged(fault: &PageError) -> String {
    format!("DAMAGED {fault}; this node serves no more, and says in its output what to do")
}

/// Keys that a batch will look up: fetched ahead, many at a time.
#[derive(Default)]
pub struct Keys {
    pub all: Vec<(u8, u64)>,
    /// By chunk.
    pub ends: Vec<usize>,
}

pub struct Runner {
    pub env: Env,
    pub table: Arc<Table>,
    /// The newest epoch made.
    pub epoch: Epoch,
    /// Log time: the leader's stamp, made monotone.
    pub now: Millis,
    /// Undo for every call, also for those that cannot fail after a write: a panic then fails its call and nothing else.
    pub careful: bool,
    /// Place of the current call: chunk << 32 | calls run in it. Part of its random seed.
    call: u64,
    /// Riders that ran. They have seeds of their own: other nodes do not run them, so they must not move `call`.
    riders: u64,
    index: LogIndex,
    seed: u64,
    words: Vec<u64>,
    name: Vec<u8>,
    /// A record said something about the nodes.
    pub roster_changed: bool,
    pub costs: Costs,
    /// Names of the system state's pieces that were changed and not yet published.
    pub system_changed: Vec<Vec<u8>>,
}

impl Runner {
    pub fn new(table: Arc<Table>, hasher: KeyHasher, epoch: Epoch, now: Millis) -> Runner {
        let costs = Costs::new(table.len());
        let env = Env::new(hasher);
        Runner {
            env,
            table,
            epoch,
            now,
            careful: false,
            call: 0,
            riders: 0,
            index: LogIndex(0),
            seed: 0,
            words: Vec::new(),
            name: Vec::new(),
            roster_changed: false,
            costs,
            system_changed: Vec::new(),
        }
    }

    /// A change of membership: one epoch. The log's first entry founds the cluster and changes nothing.
    pub fn membership(&mut self, writer: &mut Writer, index: LogIndex, members: &Members) {
        if index > LogIndex(1) {
            self.epoch = self.epoch.next();
        }
        writer.set_epoch(self.epoch);
        nodes::note_members(writer, members);
        self.roster_changed = true;
    }

    /// Begins a batch: sets log time and removes keys whose time has come, as far as the bound allows.
    pub fn begin_batch(&mut self, writer: &mut Writer, index: LogIndex, batch: &Batch) -> u64 {
        self.now =
            if planted("log time goes back") { batch.header.time_ms } else { self.now.max(batch.header.time_ms) };
        (self.index, self.seed, self.call) = (index, batch.header.seed, 0);
        writer.set_epoch(self.epoch);
        writer.set_time(self.now);
        let mut removed = 0;
        for _ in 0..EXPIRED_PER_BATCH {
            let Some(expired) = writer.next_expired(self.now) else { break };
            removed += u64::from(writer.remove_expired(expired, &mut self.name));
        }
        removed
    }

    /// The keys of a batch's calls, in order, and where each chunk's end.
    pub fn collect_keys(&self, batch: &Batch, keys: &mut Keys) {
        keys.all.clear();
        keys.ends.clear();
        for chunk in &batch.chunks {
            for call in chunk.calls() {
                let Some(command) = self.table.by_handler(call.handler).map(|c| &self.table[c]) else { continue };
                command.for_each_hash(|i| call.words.get(i), &mut |hash| keys.all.push((call.db, hash)));
            }
            keys.ends.push(keys.all.len());
        }
    }

    /// Goes on in a batch whose beginning `writer` shows already.
    pub fn resume_batch(&mut self, index: LogIndex, batch: &Batch) {
        self.now = self.now.max(batch.header.time_ms);
        (self.index, self.seed) = (index, batch.header.seed);
    }

    /// Checks that this node can run a chunk. `number` is its place in the batch: random choices depend on places, not on what else ran.
    pub fn begin_chunk(&mut self, number: usize, chunk: &Chunk) -> Result<(), RunError> {
        self.call = (number as u64) << 32;
        let have = self.table.version();
        if chunk.code_version == have {
            Ok(())
        } else {
            Err(RunError::CodeVersion(self.index, chunk.code_version, have))
        }
    }

    /// Runs all calls of a chunk whose gateway is elsewhere (or gone): replies go nowhere.
    pub fn run_silently(&mut self, writer: &mut Writer, chunk: &Chunk) -> Result<(), RunError> {
        self.run_until(writer, chunk, Epoch(u64::MAX))
    }

    /// The same, up to and including `last`.
    pub fn run_until(&mut self, writer: &mut Writer, chunk: &Chunk, last: Epoch) -> Result<(), RunError> {
        let mut calls = chunk.calls();
        let mut nowhere = ReplyBuf::null();
        while self.epoch < last {
            let Some(call) = calls.next() else { break };
            self.unit(writer, chunk, call, &mut calls, &mut nowhere)?;
        }
        Ok(())
    }

    /// Runs a chunk and answers it by its plan. The result says whether the reply outgrew `reply_bytes_max`.
    pub fn run_answering(
        &mut self,
        writer: &mut Writer,
        chunk: &Chunk,
        plan: &Plan,
        reply: &mut ReplyBuf,
        reply_bytes_max: usize,
    ) -> Result<bool, RunError> {
        let (muted, version) = (reply.is_null(), reply.version());
        let rider_bytes: Vec<u8> = plan.riders.words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let mut state = Answering {
            calls: chunk.calls(),
            riders: Calls::new(&rider_bytes),
            literals: &plan.literals,
            watches: &plan.watches,
            reply_bytes_max,
            too_long: false,
        };
        let mut steps = plan.steps.iter();
        let mut ran = Ok(());
        while ran.is_ok()
            && let Some(step) = steps.next()
        {
            ran = self.step(writer, chunk, plan, step, &mut steps, &mut state, reply);
        }
        reply.set_null(muted);
        if ran.is_err() {
            reply.set_version(version);
        }
        ran.map(|()| state.too_long)
    }

    #[allow(clippy::too_many_arguments)]
    fn step<'a>(
        &mut self,
        writer: &mut Writer,
        chunk: &'a Chunk,
        plan: &'a Plan,
        step: &Step,
        steps: &mut std::slice::Iter<'_, Step>,
        state: &mut Answering<'a>,
        reply: &mut ReplyBuf,
    ) -> Result<(), RunError> {
        match *step {
            Step::Records(count) => {
                for _ in 0..count {
                    let Some(call) = state.calls.next() else { break };
                    self.unit(writer, chunk, call, &mut state.calls, reply)?;
                }
            }
            Step::Riders(count) => {
                for call in state.riders.by_ref().take(count as usize) {
                    state.too_long |= reply.len() > state.reply_bytes_max;
                    if !state.too_long {
                        self.rider(writer, &call, &plan.riders.blob, reply);
                    }
                }
            }
            Step::Literal(bytes) => {
                let (piece, rest) = state.literals.split_at(bytes as usize);
                state.literals = rest;
                reply.raw(piece);
            }
            Step::Mute(on) => reply.set_null(on),
            Step::Dialect(version) => reply.set_version(version),
            Step::Exec { elements, steps: inner, watches, logged } => {
                let go = if logged {
                    state.calls.next().is_none_or(|exec| watches_hold(writer, &exec, &chunk.blob))
                } else {
                    let (these, rest) = state.watches.split_at(watches as usize);
                    state.watches = rest;
                    unchanged(writer, these)
                };
                if go {
                    reply.array(elements as usize);
                    let before = self.epoch;
                    for _ in 0..inner {
                        let Some(step) = steps.next() else { break };
                        self.exec_step(writer, chunk, plan, step, state, reply, before)?;
                    }
                } else {
                    reply.nil_array();
                    for step in steps.by_ref().take(inner as usize) {
                        state.pass_over(step);
                    }
                }
            }
        }
        Ok(())
    }

    /// A step inside EXEC: all its records are one epoch.
    #[allow(clippy::too_many_arguments)]
    fn exec_step<'a>(
        &mut self,
        writer: &mut Writer,
        chunk: &'a Chunk,
        plan: &'a Plan,
        step: &Step,
        state: &mut Answering<'a>,
        reply: &mut ReplyBuf,
        before: Epoch,
    ) -> Result<(), RunError> {
        if let Step::Records(count) = *step {
            for call in state.calls.by_ref().take(count as usize) {
                self.epoch = if planted("a transaction is many epochs") { self.epoch.next() } else { before.next() };
                self.element(writer, &call, &chunk.blob, reply)?;
            }
            return Ok(());
        }
        self.step(writer, chunk, plan, step, &mut [].iter(), state, reply)
    }

    /// One epoch's worth: a call, or a transaction or `ONCE` with what belongs to it.
    fn unit(
        &mut self,
        writer: &mut Writer,
        chunk: &Chunk,
        call: Call<'_>,
        calls: &mut Calls<'_>,
        reply: &mut ReplyBuf,
    ) -> Result<(), RunError> {
        match call.handler {
            handler::ONCE => self.once(writer, chunk, call, calls, reply),
            handler::EXEC => {
                let records = call.words.get(0) as usize;
                let go = watches_hold(writer, &call, &chunk.blob);
                let before = self.epoch;
                if go {
                    reply.array(records);
                } else {
                    reply.nil_array();
                }
                for call in calls.by_ref().take(records) {
                    if go {
                        self.epoch =
                            if planted("a transaction is many epochs") { self.epoch.next() } else { before.next() };
                        self.element(writer, &call, &chunk.blob, reply)?;
                    }
                }
                Ok(())
            }
            handler::SYSTEM if call.words.get(0) == handler::SYSTEM_HASH_SEED => {
                ledger::set_hash_seed(writer, call.words.get(1));
                Ok(())
            }
            handler::SYSTEM if call.words.get(0) == handler::SYSTEM_NODE => {
                nodes::set_directory(writer, NodeId(call.words.get(1)), call.words.get(2));
                self.roster_changed = true;
                Ok(())
            }
            handler::SYSTEM => {
                self.epoch = self.epoch.next();
                self.element(writer, &call, &chunk.blob, reply)
            }
            _ => {
                if !(planted("an epoch is used again") && self.index.0 % 16 == 7) {
                    self.epoch = self.epoch.next();
                }
                self.call(writer, &call, &chunk.blob, reply)
            }
        }
    }

    /// Runs what may stand in a transaction: a command, or a change of the system state. The epoch is the caller's.
    fn element(
        &mut self,
        writer: &mut Writer,
        call: &Call<'_>,
        blob: &[u8],
        reply: &mut ReplyBuf,
    ) -> Result<(), RunError> {
        if call.handler != handler::SYSTEM {
            return self.call(writer, call, blob, reply);
        }
        writer.set_epoch(self.epoch);
        match call.words.get(0) {
            handler::SYSTEM_SET if system::set(writer, self.epoch, call, blob, &mut self.system_changed) => reply.ok(),
            handler::SYSTEM_SET => reply.nil(),
            kind => return Err(RunError::UnknownSystem(self.index, kind)),
        }
        Ok(())
    }

    /// Runs what follows an `ONCE` record unless its token has a reply already.
    fn once(
        &mut self,
        writer: &mut Writer,
        chunk: &Chunk,
        once: Call<'_>,
        calls: &mut Calls<'_>,
        reply: &mut ReplyBuf,
    ) -> Result<(), RunError> {
        let token = BytesWord(once.words.get(0));
        let token = chunk.blob.get(token.offset()..token.offset() + token.len()).unwrap_or_default();
        let body = once.words.get(1);
        let Some(next) = calls.next() else { return Ok(()) };
        match ledger::token(writer, token, self.now) {
            Some(stored) => {
                if stored.body == body {
                    reply.raw(&stored.reply);
                } else {
                    reply.error("ERR this token was used with another command; a token names one command for ever");
                }
                let records = if next.handler == handler::EXEC { next.words.get(0) as usize } else { 0 };
                calls.by_ref().take(records).for_each(drop);
                Ok(())
            }
            None => {
                // Every node must store the same bytes, so the dialect comes with the record, not from the reply buffer.
                let version = if once.words.get(2) == 3 { Version::Resp3 } else { Version::Resp2 };
                let mut first = ReplyBuf::new(version);
                self.unit(writer, chunk, next, calls, &mut first)?;
                reply.raw(first.as_bytes());
                ledger::store_token(writer, token, body, first.as_bytes(), self.now);
                Ok(())
            }
        }
    }

    /// Runs one call that may write, under the current epoch.
    pub fn call(
        &mut self,
        writer: &mut Writer,
        call: &Call<'_>,
        blob: &[u8],
        reply: &mut ReplyBuf,
    ) -> Result<(), RunError> {
        let Some(command) = self.table.by_handler(call.handler) else {
            return Err(RunError::UnknownHandler(self.index, call.handler));
        };
        self.call += 1;
        writer.set_epoch(self.epoch);
        let undo = self.careful || self.table[command].may_abort_after_write;
        if undo {
            writer.mark();
        }
        let words = self.take_words(call.words);
        let program_call = self.program_call(command, call.db, &words, blob);
        let ended = self.env.write(self.table.code(), &program_call, writer, reply);
        self.costs.count(command, ended != Ended::Done, self.env.ops(), self.env.locs(), &words, false);
        self.words = words;
        // Only this node cannot read its page: were the call to fail here, the state would be another one than elsewhere
        if ended == Ended::Panicked
            && let Some(fault) = writer.arena().pages().fault()
        {
            return Err(RunError::Page(fault.to_string()));
        }
        match ended {
            Ended::Done if undo => writer.commit(),
            _ if undo => writer.rollback(),
            Ended::Panicked => return Err(RunError::Panicked(self.index, self.table[command].name.clone())),
            _ => {}
        }
        Ok(())
    }

    /// Runs one rider at its place, at `self.now`.
    fn rider<R: Read>(&mut self, state: &R, call: &Call<'_>, blob: &[u8], reply: &mut ReplyBuf) {
        self.riders += 1;
        let place = std::mem::replace(&mut self.call, 1 << 63 | self.riders);
        let words = self.take_words(call.words);
        self.read_words(state, call.handler, call.db, &words, blob, u64::MAX, reply);
        self.words = words;
        self.call = place;
    }

    /// The same, for words that are aligned already. `patience`: see [`ProgramCall::patience`].
    #[allow(clippy::too_many_arguments)]
    pub fn read_words<R: Read>(
        &mut self,
        state: &R,
        handler: u32,
        db: u8,
        words: &[u64],
        blob: &[u8],
        patience: u64,
        reply: &mut ReplyBuf,
    ) -> Ended {
        let Some(command) = self.table.by_handler(handler) else {
            reply.error("ERR this command is not known to this node");
            return Ended::Failed;
        };
        self.call += 1;
        let call = ProgramCall { patience, ..self.program_call(command, db, words, blob) };
        let start = reply.len();
        let ended = self.env.read(self.table.code(), &call, state, reply);
        if ended == Ended::Panicked
            && let Some(fault) = state.arena().pages().fault()
        {
            reply.rollback(start);
            reply.error(damaged(fault));
        }
        if ended != Ended::Large {
            self.costs.count(command, ended != Ended::Done, self.env.ops(), self.env.locs(), words, true);
        }
        ended
    }

    fn program_call<'a>(&self, command: usize, db: u8, words: &'a [u64], blob: &'a [u8]) -> ProgramCall<'a> {
        ProgramCall {
            program: self.table[command].program,
            db,
            words,
            blob,
            now: self.now,
            epoch: self.epoch,
            seed: random_source(self.seed, self.index.0, self.call),
            patience: u64::MAX,
        }
    }

    /// For reads that no batch gives a seed.
    pub fn set_seed(&mut self, seed: u64) {
        self.seed = seed;
    }

    /// Argument words, aligned for the machine code.
    fn take_words(&mut self, words: Words<'_>) -> Vec<u64> {
        let mut aligned = std::mem::take(&mut self.words);
        aligned.clear();
        aligned.extend(words.iter());
        aligned
    }

    /// Moves what the calls since the last time cost into `totals`; they took `nanos` together.
    pub fn settle_costs(&mut self, nanos: u64, totals: &mut Totals) -> (Counter, u64) {
        self.costs.hits += std::mem::take(&mut self.env.hits);
        self.costs.misses += std::mem::take(&mut self.env.misses);
        self.costs.drain(nanos, totals)
    }

    /// The costliest of the calls that were settled last, which took `nanos`, if that is slow. Its arguments lie in `records` or `riders`.
    pub fn slow(&self, nanos: u64, slow_us: i64, records: &[u8], riders: &[u8]) -> Option<Box<Slow>> {
        let micros = (nanos / 1000) as i64;
        if slow_us < 0 || nanos == 0 || micros < slow_us {
            return None;
        }
        let call = &self.costs.costliest;
        let command = &self.table[call.command];
        let args = show::request(command, &call.words, if call.rider { riders } else { records });
        Some(Box::new(Slow { micros, args, fast: command.docs.flags.iter().any(|f| f == "fast") }))
    }
}

/// How far the answering of one chunk has come.
struct Answering<'a> {
    calls: Calls<'a>,
    riders: Calls<'a>,
    literals: &'a [u8],
    watches: &'a [Watch],
    reply_bytes_max: usize,
    too_long: bool,
}

impl Answering<'_> {
    /// Consumes what a step would have answered.
    fn pass_over(&mut self, step: &Step) {
        match *step {
            Step::Records(n) => self.calls.by_ref().take(n as usize).for_each(drop),
            Step::Riders(n) => self.riders.by_ref().take(n as usize).for_each(drop),
            Step::Literal(n) => self.literals = &self.literals[n as usize..],
            Step::Exec { .. } | Step::Mute(_) | Step::Dialect(_) => {}
        }
    }
}

/// None of an EXEC record's watched keys has changed after its epoch.
fn watches_hold(writer: &Writer, exec: &Call<'_>, blob: &[u8]) -> bool {
    (0..exec.words.get(1) as usize).all(|i| {
        let word = |n| exec.words.get(2 + i * 4 + n);
        let key = BytesWord(word(1));
        let key = blob.get(key.offset()..key.offset() + key.len()).unwrap_or_default();
        !writer.changed_since(word(0) as u8, word(2), key, Epoch(word(3)), word(0) & handler::WATCH_ABSENT != 0)
    })
}

/// None of these keys has changed after its epoch.
pub fn unchanged<R: Read>(state: &R, watches: &[Watch]) -> bool {
    watches.iter().all(|w| !state.changed_since(w.db, w.hash, &w.key, w.epoch, w.absent))
}
