//! From requests to a chunk: each request becomes a record of the log, a rider, or an answer that is ready; the plan
//! remembers their order.

use super::Shared;
use super::backend::{Backend, Code, ParseError, Reads, Route};
use super::guard;
use super::multi::Queue;
use super::native::{self, Context, Entry, Hot};
use super::observe::Tally;
use super::session::{Replies, Session};
use super::system;
use crate::apply::pending::{Plan, Step, Watch};
use crate::base::batch::{BuilderPlace, ChunkBuilder, handler};
use crate::base::limits;
use crate::command::LARGE_READ_OPS;
use crate::command::costs::Counter;
use crate::resp::number::parse_int;
use crate::resp::{ReplyBuf, Request, Version};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Commands of one chunk: more go into the next, so that a batch stays small enough to be fair.
const COMMANDS_MAX: u32 = 16 * 1024;
/// Bytes of one chunk's arguments, unless a single command has more.
const BYTES_MAX: usize = 16 << 20;

pub const NO_AUTH: &str = "NOAUTH Authentication required.";
const NOT_IN_MULTI: &str = "ERR Command not allowed inside a transaction";
/// Redis's prefix for a node that takes no writes.
pub const EXPORT_WRITES: &str =
    "READONLY this node is an export: it stays at its epoch; write to a node of the cluster";
const READS_PAST: &str = "ERR this connection reads the past; LOOK.READAT OFF allows writes again";

/// Why a session that reads the past cannot write.
fn reads_past(session: &Session) -> &'static str {
    if session.stays_at.is_some() { EXPORT_WRITES } else { READS_PAST }
}

/// What one connection's read became.
#[derive(Debug, Default)]
pub struct Chunk {
    pub records: ChunkBuilder,
    pub plan: Plan,
    pub commands: u32,
    pub reads: u32,
    pub writes: u32,
    /// What the gateway answered and refused by itself.
    pub tallies: SmallVec<[Tally; 2]>,
    /// The dialect of its replies.
    pub version: Version,
    /// It holds a large read, which goes alone.
    pub ended: bool,
    /// The chunk is one EXEC with watches and a SELECT or HELLO: if it fails, these hold again.
    pub before: Option<(u8, Version)>,
}

impl Chunk {
    pub fn is_empty(&self) -> bool {
        self.plan.is_empty()
    }
    pub fn is_full(&self) -> bool {
        self.commands >= COMMANDS_MAX
            || self.records.blob.len() + self.plan.riders.blob.len() + self.plan.literals.len() > BYTES_MAX
            || self.ended
            || self.before.is_some()
    }
    /// Forgets the chunk, keeps its small buffers.
    pub fn clear(&mut self) {
        let (mut records, mut plan) = (std::mem::take(&mut self.records), std::mem::take(&mut self.plan));
        records.clear();
        plan.clear();
        *self = Chunk { records, plan, ..Chunk::default() };
    }
}

/// What became of a request.
pub enum Taken {
    /// It is in the chunk.
    Done,
    /// It has to wait for everything before it, and is then answered by itself.
    Wait(&'static Entry),
    /// It needs a chunk of its own: dispatch this one, then offer it again.
    Split,
    /// No RESP client says this: close.
    Hostile,
}

/// Puts requests into a chunk.
pub struct Filler<'a, B: Backend> {
    pub shared: &'a Shared<B>,
    pub session: &'a mut Session,
    pub code: &'a Arc<B::Code>,
    pub reads: &'a mut B::Reads,
    pub chunk: &'a mut Chunk,
    /// Somebody monitors.
    pub monitored: bool,
}

impl<B: Backend> Filler<'_, B> {
    /// The chunk is to be answered before more is looked at: a stranger's soon.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.chunk.is_full()
            || (!self.session.trusted && self.chunk.plan.literals.len() > limits::UNAUTHENTICATED_OUTPUT_BYTES_MAX)
    }

    #[inline]
    pub fn take(&mut self, request: Request<'_>) -> Taken {
        self.chunk.commands += 1;
        if self.session.is_plain() && !self.monitored {
            return match self.code.lookup(request.arg(0)) {
                Some(route) => self.call(route, request),
                None => self.native(request),
            };
        }
        self.special(request)
    }

    /// A command of the code table.
    #[inline]
    fn call(&mut self, route: Route, request: Request<'_>) -> Taken {
        let before = self.chunk.plan.riders.place();
        if !self.append(route, request) || route.write || route.fast || self.session.read_at.is_some() {
            return Taken::Done;
        }
        if self.reads.bound(self.code, &self.chunk.plan.riders, before) > LARGE_READ_OPS {
            // Alone: with writes around it, it would run where writes are applied, and everybody's would wait for it
            self.chunk.ended = true;
            if self.chunk.commands > 1 {
                self.chunk.plan.take_back_rider(before);
                self.chunk.reads -= 1;
                return Taken::Split;
            }
        }
        Taken::Done
    }

    /// False: it was answered with what is wrong about it.
    #[inline]
    fn append(&mut self, route: Route, request: Request<'_>) -> bool {
        let parsed = self.parse(route, request);
        if let Err(ParseError(text)) = &parsed {
            self.wrong(route, request, text);
        }
        parsed.is_ok()
    }

    #[cold]
    fn wrong(&mut self, route: Route, request: Request<'_>, text: &[u8]) {
        let fate = if is_early(route, request, text) { REJECTED } else { FAILED };
        self.tally(self.name(request), fate);
        self.error(text);
    }

    /// What a request's command is called in statistics.
    fn name(&self, request: Request<'_>) -> Cow<'static, str> {
        match self.code.lookup(request.arg(0)) {
            Some(route) => self.code.name(route.id, request).to_owned().into(),
            None => native::lookup(request.arg(0))
                .map_or("".into(), |entry| entry.resolve(request).map_or(entry.name, |leaf| leaf.name).into()),
        }
    }

    fn tally(&mut self, name: Cow<'static, str>, fate: Counter) {
        let tallies = &mut self.chunk.tallies;
        match tallies.iter_mut().find(|tally| tally.name == name) {
            Some(tally) => tally.counter.add(fate),
            None => tallies.push(Tally { name, counter: fate }),
        }
    }

    /// A request that does not run.
    fn reject(&mut self, request: Request<'_>, text: impl AsRef<[u8]>) {
        self.tally(self.name(request), REJECTED);
        self.error(text);
    }

    #[inline]
    fn parse(&mut self, route: Route, request: Request<'_>) -> Result<(), ParseError> {
        let chunk = &mut *self.chunk;
        if route.write {
            if self.session.read_at.is_some() {
                return Err(ParseError(reads_past(self.session).as_bytes().into()));
            }
            let before = chunk.records.place();
            guard::parse(self.shared, self.session, &**self.code, route.id, request, &mut chunk.records)?;
            self.admit(route, before)?;
            let chunk = &mut *self.chunk;
            chunk.plan.records(1);
            chunk.writes += 1;
        } else {
            guard::parse(self.shared, self.session, &**self.code, route.id, request, &mut chunk.plan.riders)?;
            chunk.plan.rider();
            chunk.reads += 1;
        }
        Ok(())
    }

    /// Takes a write that was just parsed back if it may be too large. What a transaction has was judged together.
    #[inline]
    fn admit(&mut self, route: Route, before: BuilderPlace) -> Result<(), ParseError> {
        if !route.weighs_stored || self.session.executing {
            return Ok(());
        }
        let admitted = self.reads.admit(self.code, &self.chunk.records, before);
        if admitted.is_err() {
            self.chunk.records.take_back(before);
        }
        admitted
    }

    /// A command that the code table does not know.
    fn native(&mut self, request: Request<'_>) -> Taken {
        let name = request.arg(0);
        let Some(entry) = native::lookup(name) else {
            if name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:") {
                return Taken::Hostile;
            }
            self.error(unknown(request));
            return Taken::Done;
        };
        let leaf = match entry.resolve(request) {
            Ok(leaf) => leaf,
            Err(text) if entry.hot == Hot::Exec => return self.abort(&text),
            Err(text) => {
                self.reject(request, &*text);
                return Taken::Done;
            }
        };
        if let Err(ParseError(text)) = guard::native(self.shared, self.session, leaf, request) {
            if leaf.hot == Hot::Exec {
                return self.abort(&text);
            }
            self.reject(request, &*text);
            return Taken::Done;
        }
        match leaf.hot {
            Hot::Not if leaf.name == "look.once" => return self.once(request),
            Hot::Not => return Taken::Wait(leaf),
            Hot::Exec => return self.exec(),
            _ => self.hot(leaf, request),
        }
        Taken::Done
    }

    /// A command that is answered in place.
    fn hot(&mut self, leaf: &'static Entry, request: Request<'_>) {
        let answered = match leaf.hot {
            Hot::Ping => self.answer(|out, _| native::ping(request, out)),
            Hot::Echo => self.answer(|out, _| out.bulk(request.arg(1))),
            Hot::Select => self.answer(|out, session| select(request, session, out)),
            Hot::Multi => self.multi(),
            Hot::Discard => self.discard(),
            // Among the elements of EXEC, too, which has forgotten all watches already.
            Hot::Unwatch => self.answer(|out, session| {
                session.watches.clear();
                out.ok();
            }),
            Hot::Not | Hot::Exec => return,
        };
        self.tally(leaf.name.into(), answered);
    }

    /// A connection in a state of its own: monitored, a stranger, muted, in a transaction, in the past.
    #[cold]
    fn special(&mut self, request: Request<'_>) -> Taken {
        let entry = native::lookup(request.arg(0));
        let db = self.session.db;
        let taken = self.take_special(entry, request);
        let hidden =
            |e: &Entry| e.has("skip_monitor") || e.has("no_monitor") || matches!(e.name, "auth" | "hello" | "monitor");
        // One that is split off comes again
        if self.monitored && !matches!(taken, Taken::Split) && !entry.is_some_and(hidden) {
            let micros = self.shared.backend.now_ms() * 1000;
            self.shared.monitors.tell(micros, db, &self.session.client.addr, request.iter());
        }
        taken
    }

    fn take_special(&mut self, entry: Option<&Entry>, request: Request<'_>) -> Taken {
        if !self.session.trusted && !entry.is_some_and(|e| matches!(e.name, "auth" | "hello" | "quit" | "reset")) {
            if [&b"post"[..], b"host:"].iter().any(|name| request.arg(0).eq_ignore_ascii_case(name)) {
                return Taken::Hostile;
            }
            self.reject(request, NO_AUTH);
            return Taken::Done;
        }
        let mute = self.session.replies != Replies::On;
        if mute {
            self.chunk.plan.steps.push(Step::Mute(true));
        }
        let taken = if self.session.multi.is_some() { self.queue(request) } else { self.route(request) };
        if mute {
            self.chunk.plan.steps.push(Step::Mute(false));
            if self.session.replies == Replies::SkipNext && matches!(taken, Taken::Done) {
                self.session.replies = Replies::On;
            }
        }
        taken
    }

    fn route(&mut self, request: Request<'_>) -> Taken {
        match self.code.lookup(request.arg(0)) {
            Some(route) => self.call(route, request),
            None => self.native(request),
        }
    }

    /// An answer that is ready; tells whether it was an error.
    fn answer(&mut self, write: impl FnOnce(&mut ReplyBuf, &mut Session)) -> Counter {
        let literals = std::mem::take(&mut self.chunk.plan.literals);
        let before = literals.len();
        let mut out = ReplyBuf::with_bytes(self.session.version, literals);
        write(&mut out, self.session);
        let fate = if out.errors() > 0 { FAILED } else { ANSWERED };
        if out.errors() > 0 {
            self.shared.totals.errors_sent(&out.take_errors());
        }
        let bytes = out.len() - before;
        self.chunk.plan.literals = out.into_bytes();
        self.chunk.plan.literal_bytes(bytes);
        fate
    }

    pub fn error(&mut self, text: impl AsRef<[u8]>) -> Counter {
        self.answer(|out, _| out.error(text))
    }

    /// `LOOK.ONCE token command …`: a `ONCE` record, then the command's own.
    fn once(&mut self, request: Request<'_>) -> Taken {
        let inner = request.skip(2);
        let Some(route) = self.code.lookup(inner.arg(0)) else {
            let text = if native::lookup(inner.arg(0)).is_some() {
                b"ERR LOOK.ONCE takes a command that writes".to_vec()
            } else {
                unknown(inner)
            };
            self.reject(request, &*text);
            return Taken::Done;
        };
        if !route.write {
            // A read may be repeated as often as one likes.
            return self.call(route, inner);
        }
        if self.session.read_at.is_some() {
            self.reject(inner, reads_past(self.session));
            return Taken::Done;
        }
        let db = self.session.db;
        let records = &mut self.chunk.records;
        let before = records.place();
        records.begin(handler::ONCE, db);
        let token = records.bytes(request.arg(1));
        records.word(token.0);
        records.word(digest(db, inner));
        let parsed = if records.end() {
            let call = records.place();
            guard::parse(self.shared, self.session, &**self.code, route.id, inner, records)
                .and_then(|()| self.admit(route, call))
        } else {
            Err(ParseError(b"ERR request is too large".into()))
        };
        match parsed {
            Ok(()) => {
                self.chunk.plan.records(1);
                self.chunk.writes += 1;
            }
            Err(ParseError(text)) => {
                self.chunk.records.take_back(before);
                self.wrong(route, inner, &text);
            }
        }
        Taken::Done
    }

    fn multi(&mut self) -> Counter {
        if self.session.multi.is_some() {
            return self.error("ERR MULTI calls can not be nested");
        }
        self.session.multi = Some(Queue::default());
        self.answer(|out, _| out.ok())
    }

    fn discard(&mut self) -> Counter {
        if self.session.multi.take().is_none() {
            return self.error("ERR DISCARD without MULTI");
        }
        self.answer(|out, session| {
            session.watches.clear();
            out.ok();
        })
    }

    /// Between MULTI and EXEC.
    fn queue(&mut self, request: Request<'_>) -> Taken {
        let refused = match self.code.lookup(request.arg(0)) {
            Some(route) => {
                let refused = self.refusal(route, request);
                self.queued(|queue| queue.writes |= route.write);
                refused
            }
            None => match native::lookup(request.arg(0)) {
                None => Some(unknown(request)),
                Some(entry) => match entry.resolve(request) {
                    Err(text) if entry.hot == Hot::Exec => return self.abort(&text),
                    Err(text) => Some(text),
                    Ok(leaf) if matches!(leaf.hot, Hot::Exec | Hot::Discard | Hot::Multi) => {
                        return self.native(request);
                    }
                    Ok(leaf) if matches!(leaf.name, "quit" | "reset") => return Taken::Wait(leaf),
                    Ok(leaf) if leaf.name == "watch" => {
                        self.reject(request, "ERR WATCH inside MULTI is not allowed");
                        return Taken::Done;
                    }
                    Ok(leaf) if leaf.has("no_multi") || !native::fits_multi(leaf) => Some(NOT_IN_MULTI.into()),
                    Ok(leaf) => {
                        self.queued(|queue| {
                            queue.selects |= leaf.hot == Hot::Select || leaf.name == "hello";
                            queue.writes |= leaf.name == "config|set";
                        });
                        let permitted = guard::native(self.shared, self.session, leaf, request);
                        permitted.err().map(|ParseError(text)| text.into_owned())
                    }
                },
            },
        };
        let bytes_max = self.shared.config.request_bytes_max.load(Relaxed);
        let refused = refused.or_else(|| {
            let fits = self.session.multi.as_mut().is_some_and(|queue| queue.push(request, bytes_max));
            (!fits).then(|| b"ERR transaction exceeds client-query-buffer-limit".to_vec())
        });
        match refused {
            Some(text) => {
                self.queued(|queue| queue.dirty = true);
                self.reject(request, &*text);
            }
            None => {
                self.answer(|out, _| out.simple(b"QUEUED"));
            }
        }
        Taken::Done
    }

    /// An EXEC that is itself wrong ends the transaction.
    fn abort(&mut self, text: &[u8]) -> Taken {
        self.session.multi = None;
        self.session.watches.clear();
        let why = text.strip_prefix(b"ERR ").unwrap_or(text);
        self.tally("exec".into(), REJECTED);
        self.error([b"EXECABORT Transaction discarded because of: ", why].concat());
        Taken::Done
    }

    fn queued(&mut self, change: impl FnOnce(&mut Queue)) {
        if let Some(queue) = &mut self.session.multi {
            change(queue);
        }
    }

    /// Why a command of the code table cannot be queued. Like Redis, only what needs no look at the arguments'
    /// meaning is refused here; the rest is an error among EXEC's elements.
    fn refusal(&self, route: Route, request: Request<'_>) -> Option<Vec<u8>> {
        let mut scratch = ChunkBuilder::default();
        let ParseError(text) =
            guard::parse(self.shared, self.session, &**self.code, route.id, request, &mut scratch).err()?;
        is_early(route, request, &text).then(|| text.into_owned())
    }

    fn exec(&mut self) -> Taken {
        let Some(queue) = &self.session.multi else {
            let fate = self.error("ERR EXEC without MULTI");
            self.tally("exec".into(), fate);
            return Taken::Done;
        };
        let guarded = queue.selects && !self.session.watches.is_empty();
        if guarded && self.chunk.commands > 1 {
            return Taken::Split;
        }
        let Some(queue) = self.session.multi.take() else { return Taken::Done };
        let bound = if queue.dirty || self.session.read_at.is_some() { 0 } else { self.bound(&queue) };
        let max = self.code.max_write_cost();
        if queue.writes && bound > max {
            // Its reads too run where writes are applied, and everybody's would wait for it
            let why = format!("its commands may take {bound} operations together, max-write-cost is {max}");
            return self.abort(why.as_bytes());
        }
        if !queue.writes && bound > LARGE_READ_OPS {
            // Alone, as a large read outside of a transaction
            self.chunk.ended = true;
            if self.chunk.commands > 1 {
                self.session.multi = Some(queue);
                return Taken::Split;
            }
        }
        let watches = std::mem::take(&mut self.session.watches);
        if queue.dirty {
            let fate = self.error("EXECABORT Transaction discarded because of previous errors.");
            self.tally("exec".into(), fate);
            return Taken::Done;
        }
        self.tally("exec".into(), ANSWERED);
        if guarded {
            self.chunk.before = Some((self.session.db, self.session.version));
        }
        self.transaction(&queue, watches);
        Taken::Done
    }

    /// Most operations of all that is queued. What is wrong costs nothing.
    fn bound(&mut self, queue: &Queue) -> u64 {
        let db = self.session.db;
        let mut sum = 0u64;
        let mut scratch = ChunkBuilder::default();
        for request in queue.requests() {
            let Some(route) = self.code.lookup(request.arg(0)) else {
                if request.arg(0).eq_ignore_ascii_case(b"select") {
                    select(request, self.session, &mut ReplyBuf::null());
                }
                continue;
            };
            let before = scratch.place();
            if guard::parse(self.shared, self.session, &**self.code, route.id, request, &mut scratch).is_ok() {
                sum = sum.saturating_add(self.reads.bound(self.code, &scratch, before));
            }
            scratch.take_back(before);
        }
        self.session.db = db;
        sum
    }

    fn transaction(&mut self, queue: &Queue, watches: Vec<Watch>) {
        let watch_count = watches.len() as u32;
        let start = self.chunk.records.words.len();
        // What decides whether a database or dialect was chosen goes through the log even if it writes nothing: its end is waited for
        let decides = self.chunk.before.is_some();
        let logged = (queue.writes || decides) && self.session.read_at.is_none() && self.begin_exec(&watches);
        self.chunk.plan.seal();
        let at = self.chunk.plan.steps.len();
        self.chunk.plan.steps.push(Step::Mute(false));
        self.chunk.plan.seal();
        let before = self.chunk.writes;
        self.session.executing = true;
        for request in queue.requests() {
            self.element(request);
        }
        self.session.executing = false;
        let records = self.chunk.writes - before;
        let logged = if logged && records == 0 && !decides {
            // Every write was wrong: nothing of it is to cost an epoch.
            self.chunk.records.words.truncate(start);
            self.chunk.records.calls -= 1;
            false
        } else {
            if logged {
                self.chunk.records.words[start + 1] = records as u64;
            }
            logged
        };
        if !logged {
            self.chunk.plan.watches.extend(watches);
        }
        let steps = (self.chunk.plan.steps.len() - at - 1) as u32;
        let watches = if logged { 0 } else { watch_count };
        self.chunk.plan.steps[at] = Step::Exec { elements: queue.len() as u32, steps, watches, logged };
        self.chunk.plan.seal();
    }

    /// Writes the `EXEC` record; the number of its records is filled in later.
    fn begin_exec(&mut self, watches: &[Watch]) -> bool {
        let records = &mut self.chunk.records;
        records.begin(handler::EXEC, self.session.db);
        records.word(0);
        records.word(watches.len() as u64);
        for watch in watches {
            let key = records.bytes(&watch.key);
            records.word(watch.db as u64 | if watch.absent { handler::WATCH_ABSENT } else { 0 });
            records.word(key.0);
            records.word(watch.hash);
            records.word(watch.epoch.0);
        }
        records.end()
    }

    /// CONFIG SET in a transaction: the cluster's parameters are part of its epoch, this node's are set at once.
    fn config_set(&mut self, request: Request<'_>) -> Counter {
        let shared = self.shared;
        let accepted = match native::config::accept(shared, request) {
            Ok(accepted) => accepted,
            Err(text) => return self.error(text),
        };
        let changes = native::config::changes(&accepted, &shared.acl.users());
        if changes.is_empty() {
            return self.answer(|out, _| native::config::set_here(shared, accepted, out));
        }
        if self.session.read_at.is_some() {
            return self.error(reads_past(self.session));
        }
        if let Err(refused) = system::record(&mut self.chunk.records, &changes, None) {
            return self.error(&*refused.0);
        }
        self.chunk.plan.records(1);
        self.chunk.writes += 1;
        native::config::set_here(shared, accepted, &mut ReplyBuf::null());
        ANSWERED
    }

    /// One queued request of a transaction.
    fn element(&mut self, request: Request<'_>) {
        if let Some(route) = self.code.lookup(request.arg(0)) {
            self.append(route, request);
            return;
        }
        let Some(Ok(leaf)) = native::lookup(request.arg(0)).map(|entry| entry.resolve(request)) else {
            self.error(unknown(request));
            return;
        };
        if let Err(ParseError(text)) = guard::native(self.shared, self.session, leaf, request) {
            return self.reject(request, &*text);
        }
        if leaf.hot != Hot::Not {
            return self.hot(leaf, request);
        }
        let fate = if leaf.name == "config|set" { self.config_set(request) } else { self.cold(leaf, request) };
        self.tally(leaf.name.into(), fate);
    }

    /// A command of a transaction that the gateway answers, but not in place outside of one.
    fn cold(&mut self, leaf: &'static Entry, request: Request<'_>) -> Counter {
        let (shared, code) = (self.shared, self.code);
        let before = self.session.version;
        let fate = self.answer(|out, session| {
            let mut context = Context { shared, session, code };
            native::answer(&mut context, leaf, request, out);
        });
        if self.session.version != before {
            self.chunk.plan.steps.push(Step::Dialect(self.session.version));
        }
        fate
    }
}

/// One call, for statistics.
const ANSWERED: Counter = Counter { calls: 1, failed: 0, rejected: 0, ops: 0, locs: 0, nanos: 0 };
const FAILED: Counter = Counter { failed: 1, ..ANSWERED };
const REJECTED: Counter = Counter { calls: 0, rejected: 1, ..ANSWERED };

/// Is this the text of a fault that Redis finds before it runs a command: not in what the arguments say?
fn is_early(route: Route, request: Request<'_>, text: &[u8]) -> bool {
    let count = request.len() as i32;
    let by_table = (route.arity > 0 && count != route.arity) || count < -route.arity;
    // A subcommand's name has a bar; its arity is in no route.
    let by_arity = text.starts_with(b"ERR wrong number of arguments for") && (by_table || text.contains(&b'|'));
    by_arity
        || text.starts_with(b"ERR unknown subcommand")
        || text.starts_with(b"NOPERM ")
        || [READS_PAST, EXPORT_WRITES].iter().any(|past| text == past.as_bytes())
}

fn select(request: Request<'_>, session: &mut Session, out: &mut ReplyBuf) {
    match parse_int(request.arg(1)) {
        None => out.error("ERR value is not an integer or out of range"),
        Some(db) if (0..limits::DATABASES as i64).contains(&db) => {
            session.db = db as u8;
            out.ok();
        }
        Some(db) if i32::try_from(db).is_err() => {
            out.error("ERR value is out of range, value must between -2147483648 and 2147483647");
        }
        Some(_) => out.error("ERR DB index is out of range"),
    }
}

/// Identity of what a token stands for: database and arguments.
fn digest(db: u8, request: Request<'_>) -> u64 {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    hash.update(&[db]);
    for (i, arg) in request.iter().enumerate() {
        hash.update(&(arg.len() as u64).to_le_bytes());
        // The name of a command is the same in any case.
        if i == 0 { hash.update(&arg.to_ascii_lowercase()) } else { hash.update(arg) }
    }
    hash.digest()
}

/// Redis's text, cut where Redis cuts it.
pub fn unknown(request: Request<'_>) -> Vec<u8> {
    fn cut(text: &[u8], len: usize) -> &[u8] {
        let text = text.split(|&b| b == 0).next().unwrap_or_default();
        &text[..text.len().min(len)]
    }
    let mut args = Vec::new();
    for arg in request.iter().skip(1) {
        if args.len() >= 128 {
            break;
        }
        let room = 128 - args.len();
        args.push(b'\'');
        args.extend_from_slice(cut(arg, room));
        args.extend_from_slice(b"' ");
    }
    let name = cut(request.arg(0), 128);
    [b"ERR unknown command '".as_slice(), name, b"', with args beginning with: ", &args].concat()
}
