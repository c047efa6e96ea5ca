//! A node made of one map, for the gateway's tests: GET, SET, INCR, DEL, FILL n (a reply of n bytes), LARGE (a read that
//! wants patience). Writes are applied on a thread of their own, so that chunks are really in flight.

use crate::apply::pending::{Cost, Outcome, Pending, Plan, Step, Watch};
use crate::apply::system::SystemState;
use crate::base::batch::{BuilderPlace, ChunkBuilder, handler};
use crate::base::words::BytesWord;
use crate::base::{Clock, Epoch, Millis, SystemClock};
use crate::command::LARGE_READ_OPS;
use crate::gateway::backend::*;
use crate::gateway::clients::locked;
use crate::resp::number::parse_int;
use crate::resp::{ReplyBuf, Request};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

const NAMES: [(&str, i32, bool); 6] =
    [("get", 2, false), ("set", 3, true), ("incr", 2, true), ("del", 2, true), ("fill", 2, false), ("large", 1, false)];

#[derive(Default, Clone)]
pub struct State {
    map: BTreeMap<(u8, Vec<u8>), (Vec<u8>, Epoch)>,
    changed: BTreeMap<(u8, Vec<u8>), Epoch>,
    once: HashMap<Vec<u8>, (u64, Vec<u8>)>,
    epoch: Epoch,
    system: SystemState,
}

impl State {
    /// Of all databases, in order.
    pub fn keys(&self) -> Vec<String> {
        self.map.keys().map(|(_, key)| String::from_utf8_lossy(key).into_owned()).collect()
    }
}

#[derive(Clone)]
pub struct Fake {
    pub state: Arc<Mutex<State>>,
    past: Arc<Mutex<Vec<State>>>,
    to_apply: mpsc::Sender<(ChunkBuilder, Pending)>,
    pub refuse: Arc<AtomicBool>,
    pub fences: Arc<AtomicU64>,
    pub chunks: Arc<AtomicU64>,
    pub shutdowns: Arc<AtomicU64>,
}

impl Fake {
    pub fn new() -> Fake {
        let (to_apply, chunks) = mpsc::channel::<(ChunkBuilder, Pending)>();
        let state = Arc::new(Mutex::new(State::default()));
        let past = Arc::new(Mutex::new(vec![State::default()]));
        let (shared, history) = (state.clone(), past.clone());
        std::thread::spawn(move || {
            for (records, pending) in chunks {
                // Long enough for the next chunk to be read meanwhile.
                std::thread::sleep(Duration::from_micros(200));
                apply(&shared, &history, &records, pending);
            }
        });
        let (refuse, fences, chunks, shutdowns) = Default::default();
        Fake { state, past, to_apply, refuse, fences, chunks, shutdowns }
    }
}

/// Reads the records of a builder one after the other.
struct Calls<'a> {
    builder: &'a ChunkBuilder,
    at: usize,
}

impl<'a> Calls<'a> {
    fn next(&mut self) -> (u32, u8, &'a [u64]) {
        let head = self.builder.words[self.at];
        let words = &self.builder.words[self.at + 1..][..(head >> 32) as usize];
        self.at += 1 + words.len();
        (head as u32 & 0xff_ffff, (head >> 24) as u8, words)
    }
    fn bytes(&self, word: u64) -> &'a [u8] {
        let word = BytesWord(word);
        &self.builder.blob[word.offset()..word.offset() + word.len()]
    }
}

fn run(state: &mut State, calls: &mut Calls<'_>, stamp: Option<Epoch>, out: &mut ReplyBuf) {
    let (id, db, words) = calls.next();
    if id == handler::ONCE {
        let token = calls.bytes(words[0]).to_vec();
        let digest = words[1];
        let mut fresh = ReplyBuf::new(out.version());
        let mut trial = state.clone();
        run(&mut trial, calls, stamp, &mut fresh);
        match state.once.get(&token) {
            Some((known, reply)) if *known == digest => out.raw(reply),
            Some(_) => out.error("ERR token was used for another command"),
            None => {
                out.raw(fresh.as_bytes());
                trial.once.insert(token, (digest, fresh.into_bytes()));
                *state = trial;
            }
        }
        return;
    }
    if id == handler::SYSTEM {
        state.epoch = stamp.unwrap_or(state.epoch.next());
        if state.system.version.0 > words[1] {
            return out.nil();
        }
        for change in words[2..].chunks_exact(2) {
            let value = (change[1] != handler::SYSTEM_REMOVE).then(|| calls.bytes(change[1]).to_vec());
            state.system.set(calls.bytes(change[0]).to_vec(), value);
        }
        state.system.version = state.epoch;
        return out.ok();
    }
    let key = words.first().map(|w| (db, calls.bytes(*w).to_vec())).unwrap_or_default();
    let epoch = if NAMES[id as usize].2 { stamp.unwrap_or(state.epoch.next()) } else { state.epoch };
    state.epoch = epoch;
    match id {
        0 => match state.map.get(&key) {
            Some((value, _)) => out.bulk(value),
            None => out.nil(),
        },
        1 => {
            state.map.insert(key.clone(), (calls.bytes(words[1]).to_vec(), epoch));
            state.changed.insert(key, epoch);
            out.ok();
        }
        2 => match parse_int(state.map.get(&key).map_or(b"0", |(v, _)| v)).and_then(|n| n.checked_add(1)) {
            Some(next) => {
                state.map.insert(key.clone(), (next.to_string().into_bytes(), epoch));
                state.changed.insert(key, epoch);
                out.int(next);
            }
            None => out.error("ERR value is not an integer or out of range"),
        },
        3 => {
            let was = state.map.remove(&key).is_some();
            state.changed.insert(key, epoch);
            out.int(was.into());
        }
        4 => out.bulk(&vec![b'x'; parse_int(&key.1).unwrap_or(0) as usize]),
        _ => out.simple(b"LARGE"),
    }
}

fn apply(shared: &Mutex<State>, past: &Mutex<Vec<State>>, records: &ChunkBuilder, mut pending: Pending) {
    let mut state = locked(shared);
    let mut records = Calls { builder: records, at: 0 };
    let plan = std::mem::take(&mut pending.plan);
    let mut riders = Calls { builder: &plan.riders, at: 0 };
    let (mut literal, mut skip, mut stamp, mut inside) = (0, 0u32, None, 0u32);
    let mut epoch = Epoch::ZERO;
    let out = &mut pending.reply;
    for step in &plan.steps {
        if inside == 0 {
            stamp = None;
        }
        let within = inside > 0;
        inside = inside.saturating_sub(1);
        let mut nowhere = ReplyBuf::null();
        let skipped = skip > 0;
        skip = skip.saturating_sub(1);
        match *step {
            Step::Records(count) => {
                for _ in 0..count {
                    if skipped {
                        records.next();
                        continue;
                    }
                    run(&mut state, &mut records, stamp, out);
                    epoch = state.epoch;
                    let copy = state.clone();
                    locked(past).push(copy);
                }
            }
            Step::Riders(count) => (0..count).for_each(|_| {
                let out = if skipped { &mut nowhere } else { &mut *out };
                if is_large(&plan.riders, riders.at) && !within {
                    out.error("a large read where writes are applied");
                }
                run(&mut state, &mut riders, None, out);
            }),
            Step::Literal(bytes) => {
                if !skipped {
                    out.raw(&plan.literals[literal..literal + bytes as usize]);
                }
                literal += bytes as usize;
            }
            Step::Exec { elements, steps, logged: true, .. } => {
                let (id, _, words) = records.next();
                assert_eq!(id, handler::EXEC);
                let changed = words[2..].chunks_exact(4).any(|w| {
                    let key = (w[0] as u8, records.bytes(w[1]).to_vec());
                    state.changed.get(&key).is_some_and(|e| e.0 > w[3])
                });
                if changed {
                    out.nil_array();
                    skip = steps;
                } else {
                    out.array(elements as usize);
                    stamp = Some(state.epoch.next());
                    inside = steps;
                }
            }
            Step::Exec { elements, .. } => out.array(elements as usize),
            Step::Mute(mute) => out.set_null(mute),
            Step::Dialect(version) => out.set_version(version),
        }
    }
    assert_eq!(
        (records.at, riders.at, literal),
        (records.builder.words.len(), plan.riders.words.len(), plan.literals.len())
    );
    drop(state);
    let outcome = if pending.reply.len() > pending.reply_bytes_max { Outcome::TooLong } else { Outcome::Applied };
    pending.plan = plan;
    pending.finish(epoch, outcome);
}

pub struct FakeCode;

impl Code for FakeCode {
    fn version(&self) -> u64 {
        1
    }
    fn lookup(&self, name: &[u8]) -> Option<Route> {
        let i = NAMES.iter().position(|(n, ..)| name.eq_ignore_ascii_case(n.as_bytes()))?;
        Some(Route {
            id: CommandId(i as u32),
            write: NAMES[i].2,
            arity: NAMES[i].1,
            fast: NAMES[i].0 != "large",
            weighs_stored: false,
        })
    }
    fn parse(&self, id: CommandId, request: Request<'_>, db: u8, into: &mut ChunkBuilder) -> Result<(), ParseError> {
        let (name, arity, _) = NAMES[id.0 as usize];
        if request.len() as i32 != arity {
            return Err(ParseError(format!("ERR wrong number of arguments for '{name}' command").into_bytes().into()));
        }
        if name == "fill" && parse_int(request.arg(1)).is_none() {
            return Err(ParseError(b"ERR value is not an integer or out of range".into()));
        }
        into.begin(id.0, db);
        for arg in request.iter().skip(1) {
            let word = into.bytes(arg);
            into.word(word.0);
        }
        assert!(into.end());
        Ok(())
    }
    fn commands(&self) -> Vec<CommandId> {
        (0..NAMES.len() as u32).map(CommandId).collect()
    }
    fn describe(&self, id: CommandId) -> Description {
        let (name, arity, _) = NAMES[id.0 as usize];
        Description { name: name.into(), arity, ..Description::default() }
    }
    fn name(&self, id: CommandId, _: Request<'_>) -> &str {
        NAMES[id.0 as usize].0
    }
    fn call_keys<'a>(
        &self,
        id: CommandId,
        _: Request<'_>,
        call: &'a ChunkBuilder,
        visit: &mut dyn FnMut(&'a [u8], &'static [&'static str]),
    ) {
        const ACCESS: [&[&str]; 6] = [&["access"], &["update"], &["access", "update"], &["delete"], &[], &[]];
        if id.0 < 4 {
            let word = BytesWord(call.open_call_words()[0]);
            visit(&call.blob[word.offset()..word.offset() + word.len()], ACCESS[id.0 as usize]);
        }
    }
    fn keys(&self, _: CommandId, request: Request<'_>) -> Option<Vec<KeyAt>> {
        (request.len() > 1).then(|| vec![KeyAt { position: 1, flags: vec!["RW"] }])
    }
    /// Three large reads are too many for a transaction that writes.
    fn max_write_cost(&self) -> u64 {
        3 * LARGE_READ_OPS
    }
}

pub struct FakeReads(Fake);

impl Reads for FakeReads {
    type Code = FakeCode;
    fn run(
        &mut self,
        _: &FakeCode,
        plan: &Plan,
        place: &mut Place,
        bytes: usize,
        patient: bool,
        out: &mut ReplyBuf,
    ) -> Ran {
        let mut state = locked(&self.0.state).clone();
        walk(&mut state, plan, place, bytes, patient, out)
    }
    fn bound(&mut self, _: &FakeCode, calls: &ChunkBuilder, at: BuilderPlace) -> u64 {
        if is_large(calls, at.word()) { LARGE_READ_OPS + 1 } else { 100 }
    }
    fn admit(&mut self, _: &FakeCode, _: &ChunkBuilder, _: BuilderPlace) -> Result<(), ParseError> {
        Ok(())
    }
    fn settle(&mut self, _: &Plan, _: i64) -> Cost {
        Cost::default()
    }
}

fn is_large(calls: &ChunkBuilder, at: usize) -> bool {
    calls.words[at] as u32 & 0xff_ffff == 5
}

fn walk(state: &mut State, plan: &Plan, place: &mut Place, bytes: usize, patient: bool, out: &mut ReplyBuf) -> Ran {
    let mut skip = 0;
    let mut inside = 0u32;
    while let Some(step) = plan.steps.get(place.step) {
        let skipped = skip > 0;
        skip -= skipped as u32;
        match *step {
            Step::Riders(count) => {
                while place.done < count {
                    let mut calls = Calls { builder: &plan.riders, at: place.word };
                    if is_large(&plan.riders, place.word) && !patient && inside == 0 {
                        return Ran::Large;
                    }
                    let mut nowhere = ReplyBuf::null();
                    run(state, &mut calls, None, if skipped { &mut nowhere } else { &mut *out });
                    place.word = calls.at;
                    place.done += 1;
                    if out.len() > bytes && inside == 0 {
                        return Ran::Full;
                    }
                }
            }
            Step::Literal(len) => {
                if !skipped {
                    out.raw(&plan.literals[place.literal..place.literal + len as usize]);
                }
                place.literal += len as usize;
            }
            Step::Exec { elements, steps, watches, logged } => {
                assert!(!logged);
                let checked = &plan.watches[place.watch..][..watches as usize];
                place.watch += watches as usize;
                if unchanged(state, checked) {
                    out.array(elements as usize);
                    inside = steps + 1;
                } else {
                    out.nil_array();
                    skip = steps;
                }
            }
            Step::Mute(mute) => out.set_null(mute),
            Step::Dialect(version) => out.set_version(version),
            Step::Records(_) => panic!("a plan of reads has no records"),
        }
        inside = inside.saturating_sub(1);
        place.done = 0;
        place.step += 1;
    }
    Ran::All
}

fn unchanged(state: &State, watches: &[Watch]) -> bool {
    watches.iter().all(|w| state.changed.get(&(w.db, w.key.clone())).is_none_or(|e| *e <= w.epoch))
}

impl Backend for Fake {
    type Code = FakeCode;
    type Reads = FakeReads;

    fn code(&self) -> Arc<FakeCode> {
        Arc::new(FakeCode)
    }
    fn reads(&self) -> FakeReads {
        FakeReads(self.clone())
    }
    fn watch(&self, db: u8, key: &[u8]) -> Watch {
        Watch { db, key: key.to_vec(), hash: key.len() as u64, epoch: self.epoch(), absent: false }
    }
    fn epoch(&self) -> Epoch {
        locked(&self.state).epoch
    }
    fn now_ms(&self) -> Millis {
        SystemClock::default().now_ms()
    }
    fn system(&self) -> Arc<SystemState> {
        Arc::new(locked(&self.state).system.clone())
    }
    fn system_version(&self) -> Epoch {
        locked(&self.state).system.version
    }
    async fn submit(&self, records: &mut ChunkBuilder, _: u64, pending: Pending) {
        self.chunks.fetch_add(1, Relaxed);
        if self.refuse.load(Relaxed) {
            return pending.finish(Epoch::ZERO, Outcome::Refused("NOQUORUM no leader".into()));
        }
        self.to_apply.send((std::mem::take(records), pending)).unwrap();
    }
    async fn fence(&self, _: Consistency, _: Epoch) -> Result<(), Refused> {
        self.fences.fetch_add(1, Relaxed);
        Ok(())
    }
    async fn read_at(
        &self,
        at: Epoch,
        _: Arc<FakeCode>,
        plan: Plan,
        mut reply: ReplyBuf,
    ) -> Result<(ReplyBuf, Plan), (PastError, Plan)> {
        let found = locked(&self.past).iter().rev().find(|s| s.epoch == at).cloned();
        match found {
            Some(mut state) => {
                walk(&mut state, &plan, &mut Place::default(), usize::MAX, true, &mut reply);
                Ok((reply, plan))
            }
            None => Err((PastError::Future(self.epoch().next()), plan)),
        }
    }
    fn epoch_at(&self, _: Millis) -> Result<Epoch, PastError> {
        Ok(self.epoch())
    }
    fn since(&self) -> Epoch {
        Epoch::ZERO
    }
    fn facts(&self) -> NodeFacts {
        NodeFacts { run_id: "0".repeat(40), epoch: self.epoch(), keyspace: vec![(0, 1, 0, 0)], ..NodeFacts::default() }
    }
    fn timings(&self) -> Timings {
        Timings::default()
    }
    fn cluster(&self) -> String {
        "leader:1\n".into()
    }
    async fn change_member(&self, _: MemberChange, node: u64) -> Result<(), Refused> {
        if node == 1 { Ok(()) } else { Err(Refused("ERR node 2 is not a member".into())) }
    }
    fn explain(&self, _: &FakeCode, _: CommandId, _: Request<'_>, _: u8, out: &mut ReplyBuf) {
        out.ok();
    }
    fn memory_usage(&self, db: u8, key: &[u8], _: i64) -> Option<u64> {
        locked(&self.state).map.get(&(db, key.to_vec())).map(|(v, _)| v.len() as u64)
    }
    fn debug_object(&self, _: u8, _: &[u8]) -> Option<String> {
        None
    }
    async fn debug(&self, _: Request<'_>, _: &mut ReplyBuf) -> bool {
        false
    }
    fn configure(&self, _: &str, _: &str) -> Result<(), String> {
        Ok(())
    }
    fn reset_stats(&self) {}
    async fn backup(&self, words: Vec<Vec<u8>>) -> Result<Vec<u8>, String> {
        Ok(words.concat())
    }
    async fn checkpoint(&self) -> Result<(), String> {
        Ok(())
    }
    fn replicas_with(&self, _: Epoch) -> usize {
        0
    }
    fn shutdown(&self, _: bool) {
        self.shutdowns.fetch_add(1, Relaxed);
    }
}
