//! Live reads: on the connection's own thread, against the newest published root.

use super::code::NodeCode;
use super::state::SharedState;
use crate::apply::pending::{Cost, Plan, Step};
use crate::apply::runner::{Runner, damaged, unchanged};
use crate::base::batch::{BuilderPlace, ChunkBuilder};
use crate::base::words::{BytesWord, ListWord};
use crate::base::{Clock, KeyHasher, Stopwatch, mix64};
use crate::command::args::for_each_key;
use crate::command::{Command, LARGE_READ_OPS, Table};
use crate::gateway::backend::{Code, ParseError, Place, Ran, Reads};
use crate::gateway::refuse;
use crate::history::KeyRead;
use crate::lang::env::Ended;
use crate::lang::grammar::Grammar;
use crate::lang::helpers::number;
use crate::lang::poly::{Anything, Nothing, Place as Where, Stored};
use crate::resp::ReplyBuf;
use crate::store::{Read, SYSTEM_DB, Value};
use smallvec::SmallVec;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

pub struct NodeReads {
    state: Arc<SharedState>,
    runner: Runner,
    clock: Arc<dyn Clock>,
    /// Where its costs are added.
    shard: u64,
    /// Time of the calls whose costs are not settled.
    nanos: u64,
}

/// Keys whose ways are brought near together, before their calls run.
const AHEAD: usize = 32;

/// One call of a plan, in place.
struct Rider<'a> {
    handler: u32,
    db: u8,
    words: &'a [u64],
}

/// The call that begins at word `at`, and where the next one does.
fn rider(words: &[u64], at: usize) -> Option<(Rider<'_>, usize)> {
    let head = *words.get(at)?;
    let end = at + 1 + (head >> 32) as usize;
    Some((Rider { handler: head as u32 & 0xff_ffff, db: (head >> 24) as u8, words: words.get(at + 1..end)? }, end))
}

impl NodeReads {
    pub fn new(state: Arc<SharedState>, table: Arc<Table>, clock: Arc<dyn Clock>, number: u64, seed: u64) -> NodeReads {
        let progress = &state.progress;
        let mut runner = Runner::new(table, state.hasher(), progress.frontier().epoch, 0);
        runner.set_seed(mix64(seed));
        NodeReads { state, runner, clock, shard: number, nanos: 0 }
    }
}

impl Reads for NodeReads {
    type Code = NodeCode;

    fn run(
        &mut self,
        code: &NodeCode,
        plan: &Plan,
        place: &mut Place,
        reply_bytes: usize,
        patient: bool,
        out: &mut ReplyBuf,
    ) -> Ran {
        let store = self.state.current();
        let snapshot = match store.newest() {
            Ok(snapshot) => snapshot,
            Err(e) => {
                refuse(plan, *place, &e.to_string(), out);
                return Ran::All;
            }
        };
        self.runner.now = self.state.now(&*self.clock);
        let mut stopwatch = Stopwatch::start();
        self.runner.epoch = snapshot.epoch();
        let ran = run_plan(&mut self.runner, &code.table, &snapshot, plan, place, reply_bytes, patient, out);
        drop(snapshot);
        self.nanos += stopwatch.lap();
        ran
    }

    fn bound(&mut self, code: &NodeCode, calls: &ChunkBuilder, at: BuilderPlace) -> u64 {
        let Some((call, _)) = rider(&calls.words, at.word()) else { return 0 };
        match code.table.by_handler(call.handler).map(|n| &code.table[n]) {
            Some(command) if command.write && !command.weighs_stored => command.cost.ops.eval(call.words, &Nothing),
            // What cannot be looked at now is refused when it is read
            _ => self
                .state
                .current()
                .newest()
                .map_or(0, |newest| whole(&newest, || bound(&code.table, &newest, &call, &calls.blob)).unwrap_or(0)),
        }
    }

    fn admit(&mut self, code: &NodeCode, calls: &ChunkBuilder, at: BuilderPlace) -> Result<(), ParseError> {
        let Some((call, _)) = rider(&calls.words, at.word()) else { return Ok(()) };
        let Some(command) = code.table.by_handler(call.handler).map(|n| &code.table[n]) else { return Ok(()) };
        if command.cost.ops.eval(call.words, &Anything) <= code.max_write_cost() {
            return Ok(());
        }
        let refused = |why: String| ParseError(why.into_bytes().into());
        let store = self.state.current();
        let state = &store.newest().map_err(|e| refused(e.to_string()))?;
        let stored = Sizes { state, db: call.db, blob: &calls.blob, grammar: &command.grammar, collections: &[] };
        whole(state, || code.check_bound(command, call.words, &stored)).unwrap_or_else(|why| Err(refused(why)))
    }

    fn settle(&mut self, plan: &Plan, slow_us: i64) -> Cost {
        let nanos = std::mem::take(&mut self.nanos);
        let (sum, longest) = self.state.progress.settle(&mut self.runner, self.shard, nanos);
        let slow = self.runner.slow(longest, slow_us, &[], &plan.riders.blob);
        Cost { calls: sum.calls, ops: sum.ops, locs: sum.locs, nanos: sum.nanos, slow }
    }
}

impl Drop for NodeReads {
    fn drop(&mut self) {
        self.state.progress.settle(&mut self.runner, self.shard, self.nanos);
    }
}

/// Answers the steps of a plan of reads from `place` on; with an error, where a page that they need cannot be had.
#[allow(clippy::too_many_arguments)]
pub fn run_plan<R: Read>(
    runner: &mut Runner,
    table: &Table,
    state: &R,
    plan: &Plan,
    place: &mut Place,
    reply_bytes: usize,
    patient: bool,
    out: &mut ReplyBuf,
) -> Ran {
    let ran = whole(state, || run_steps(runner, table, state, plan, place, reply_bytes, patient, out));
    ran.unwrap_or_else(|why| {
        refuse(plan, *place, &why, out);
        Ran::All
    })
}

/// What `read` finds in `state`; or why not, if a page of it cannot be had.
fn whole<R: Read, T>(state: &R, read: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(read)).map_err(|cause| match state.arena().pages().fault() {
        Some(fault) => damaged(fault),
        None => resume_unwind(cause),
    })
}

#[allow(clippy::too_many_arguments)]
fn run_steps<R: Read>(
    runner: &mut Runner,
    table: &Table,
    state: &R,
    plan: &Plan,
    place: &mut Place,
    reply_bytes: usize,
    patient: bool,
    out: &mut ReplyBuf,
) -> Ran {
    // Steps of a transaction that are still to come: it is never interrupted.
    let mut inside = 0u32;
    while let Some(step) = plan.steps.get(place.step) {
        match *step {
            Step::Riders(count) => {
                while place.done < count {
                    if place.done.is_multiple_of(AHEAD as u32) {
                        fetch(table, state, &plan.riders.words, place.word, (count - place.done) as usize);
                    }
                    if inside == 0 && out.len() > reply_bytes {
                        return Ran::Full;
                    }
                    let Some((call, next)) = rider(&plan.riders.words, place.word) else { break };
                    let blob = &plan.riders.blob;
                    let may_leave = !patient && inside == 0;
                    let at_once = if may_leave { patience(table, state, &call, blob) } else { Some(u64::MAX) };
                    let Some(at_once) = at_once else { return Ran::Large };
                    if runner.read_words(state, call.handler, call.db, call.words, blob, at_once, out) == Ended::Large {
                        if is_large(table, state, &call, blob) {
                            return Ran::Large;
                        }
                        runner.read_words(state, call.handler, call.db, call.words, blob, u64::MAX, out);
                    }
                    place.word = next;
                    place.done += 1;
                }
            }
            Step::Literal(bytes) => {
                let end = place.literal + bytes as usize;
                out.raw(plan.literals.get(place.literal..end).unwrap_or_default());
                place.literal = end;
            }
            Step::Mute(on) => out.set_null(on),
            Step::Dialect(version) => out.set_version(version),
            Step::Exec { steps, .. } if !patient && transaction_is_large(table, state, plan, place, steps) => {
                return Ran::Large;
            }
            Step::Exec { elements, steps, watches, .. } => {
                let these = place.watch..place.watch + watches as usize;
                place.watch = these.end;
                if unchanged(state, plan.watches.get(these).unwrap_or_default()) {
                    out.array(elements as usize);
                    inside = steps + 1;
                } else {
                    out.nil_array();
                    pass_over(plan, place, steps);
                }
            }
            // A plan with records goes through the log.
            Step::Records(_) => {}
        }
        inside = inside.saturating_sub(1);
        place.step += 1;
        place.done = 0;
    }
    Ran::All
}

/// Asks for the keys of the next calls, so that their cache misses overlap.
fn fetch<R: Read>(table: &Table, state: &R, words: &[u64], mut at: usize, calls: usize) {
    let mut keys: SmallVec<[(u8, u64); 2 * AHEAD]> = SmallVec::new();
    for _ in 0..calls.min(AHEAD) {
        let Some((call, next)) = rider(words, at) else { break };
        if let Some(command) = table.by_handler(call.handler) {
            let word = |i: usize| call.words.get(i).copied().unwrap_or_default();
            table[command].for_each_hash(word, &mut |hash| keys.push((call.db, hash)));
        }
        at = next;
    }
    if keys.len() > 1 {
        state.prefetch(&keys);
    }
}

/// Moves past the steps of a transaction that is not run.
fn pass_over(plan: &Plan, place: &mut Place, steps: u32) {
    for step in plan.steps.iter().skip(place.step + 1).take(steps as usize) {
        place.step += 1;
        match *step {
            Step::Riders(count) => {
                for _ in 0..count {
                    place.word = rider(&plan.riders.words, place.word).map_or(place.word, |(_, next)| next);
                }
            }
            Step::Literal(bytes) => place.literal += bytes as usize,
            _ => {}
        }
    }
}

/// The largest value that a call may meet and run on. None: its bound is large already. Where the value under the key is all
/// that makes a call large, the call's own lookup finds that out, and the key is looked up once.
fn patience<R: Read>(table: &Table, state: &R, call: &Rider<'_>, blob: &[u8]) -> Option<u64> {
    match table.by_handler(call.handler).map(|n| &table[n]) {
        Some(Command { always_cheap: false, large_from: Some(extent), .. }) => Some(*extent),
        Some(Command { always_cheap: false, large_from: None, .. }) if is_large(table, state, call, blob) => None,
        _ => Some(u64::MAX),
    }
}

fn is_large<R: Read>(table: &Table, state: &R, call: &Rider<'_>, blob: &[u8]) -> bool {
    bound(table, state, call, blob) > LARGE_READ_OPS
}

/// Most operations of a read, as things are in `state`.
fn bound<R: Read>(table: &Table, state: &R, call: &Rider<'_>, blob: &[u8]) -> u64 {
    let Some(command) = table.by_handler(call.handler).map(|n| &table[n]) else { return 0 };
    let stored = Sizes { state, db: call.db, blob, grammar: &command.grammar, collections: &[] };
    command.cost.ops.eval(call.words, &stored)
}

/// Are the reads of a transaction, which begin at word `at` and are in the next `steps`, large together?
fn transaction_is_large<R: Read>(table: &Table, state: &R, plan: &Plan, place: &Place, steps: u32) -> bool {
    let mut at = place.word;
    let mut sum = 0u64;
    for step in plan.steps.iter().skip(place.step + 1).take(steps as usize) {
        let Step::Riders(count) = *step else { continue };
        for _ in 0..count {
            let Some((call, next)) = rider(&plan.riders.words, at) else { break };
            sum = sum.saturating_add(bound(table, state, &call, &plan.riders.blob));
            at = next;
        }
    }
    sum > LARGE_READ_OPS
}

/// Sizes of what a call's keys hold, for its bound.
pub struct Sizes<'a, R> {
    pub state: &'a R,
    pub db: u8,
    pub blob: &'a [u8],
    pub grammar: &'a Grammar,
    /// Keys of the program's collections in the system database, by number.
    pub collections: &'a [String],
}

impl<R: Read> Sizes<'_, R> {
    /// The value under the key in these words.
    fn of_key(&self, words: &[u64], slot: usize) -> Option<Value<'_>> {
        let word = BytesWord(*words.get(slot)?);
        let key = self.blob.get(word.offset()..word.offset() + word.len())?;
        Some(self.state.find(self.db, *words.get(slot + 1)?, key)?.value())
    }

    fn of_collection(&self, number: u16) -> Option<Value<'_>> {
        let key = self.collections.get(number as usize)?.as_bytes();
        Some(self.state.find(SYSTEM_DB, KeyHasher::new(0).hash(key), key)?.value())
    }

    /// Takes a measure of every value at a place other than the database, and puts them together.
    fn fold(&self, place: Where, words: &[u64], of: impl Fn(Value<'_>) -> u64, both: fn(u64, u64) -> u64) -> u64 {
        match place {
            Where::Db => 0,
            Where::Collection(n) => self.of_collection(n).map_or(0, of),
            Where::Key(slot) => self.of_key(words, slot as usize).map_or(0, of),
            Where::Keys(slot) => {
                let list = ListWord(words.get(slot as usize).copied().unwrap_or(0));
                let at = |i| list.first_word() + i * self.grammar.element_words(slot);
                (0..list.count()).filter_map(|i| self.of_key(words, at(i)).map(&of)).fold(0, both)
            }
        }
    }
}

impl<R: Read> Stored for Sizes<'_, R> {
    fn number(&self, slot: u16, words: &[u64]) -> Option<i64> {
        let word = BytesWord(*words.get(slot as usize)?);
        number::int(self.blob.get(word.offset()..word.offset() + word.len())?)
    }
    fn len(&self, place: Where, words: &[u64]) -> u64 {
        match place {
            Where::Db => self.state.db_len(self.db),
            place => self.fold(place, words, |value| value.size(), u64::saturating_add),
        }
    }
    fn total(&self, place: Where, words: &[u64]) -> u64 {
        match place {
            Where::Db => self.state.db(self.db).keys.extent.total(),
            place => self.fold(place, words, |value| value.extent().total(), u64::saturating_add),
        }
    }
    fn longest(&self, place: Where, words: &[u64]) -> u64 {
        match place {
            Where::Db => self.state.db(self.db).keys.extent.longest(),
            place => self.fold(place, words, |value| value.extent().longest(), u64::max),
        }
    }
}

/// The keys that a plan's reads depend on; None when one of them may look anywhere.
pub fn keys_of_plan<'a>(table: &Table, plan: &'a Plan) -> Option<Vec<KeyRead<'a>>> {
    let mut keys = Vec::new();
    let mut at = 0;
    while let Some((call, next)) = rider(&plan.riders.words, at) {
        at = next;
        let command: &Command = &table[table.by_handler(call.handler)?];
        let before = keys.len();
        for_each_key(&command.grammar, &|i| call.words.get(i).copied().unwrap_or(0), &mut |_, word, hash| {
            let key = plan.riders.blob.get(word.offset()..word.offset() + word.len()).unwrap_or_default();
            keys.push(KeyRead { db: call.db, hash, key });
        });
        if keys.len() == before {
            return None;
        }
    }
    keys.extend(plan.watches.iter().map(|w| KeyRead { db: w.db, hash: w.hash, key: &w.key }));
    Some(keys)
}
