//! Clients: pipelines of calls and transactions over real RESP, and the history of what they saw.

use crate::common::registers::modelled;
use crate::common::{Random, Reply};
use crate::net::{CLIENTS, End, HostId, Ms, Net};
use crate::truth::{self, Places};
use history::models::{Calls, RegisterOp as Op, Replies};
use history::{Called, History, Operation, Outcome};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

/// How long a client waits for a reply.
const PATIENCE: Duration = Duration::from_secs(10);
/// Reads of the past remembered.
const PAST_MAX: usize = 1000;

#[derive(Default)]
pub struct Recorded {
    pub history: History<Calls, Replies>,
    /// Reads of the past, of keys in the history.
    pub looked_back: Vec<Operation<Calls, Replies>>,
    /// Every call and every return is an instant of its own.
    clock: u64,
    pub violations: Vec<String>,
    pub stop: bool,
    /// Where nodes serve, and which.
    pub hosts: Vec<(HostId, u64)>,
    pub transactions: u64,
    /// Replies of connections checked for their order.
    pub echoes: u64,
    /// What the newest epochs said of keys, by epoch and key: it never changes.
    past: BTreeMap<(u64, u32), Reply>,
    /// The writes of marked pipelines, in order.
    marked: BTreeMap<u64, Vec<Called>>,
    marks: u64,
}

impl Recorded {
    /// The log, read to its end, tells where the writes of marked pipelines are, and must agree with what replies told.
    pub fn find(&mut self, places: &Places) {
        for (mark, writes) in std::mem::take(&mut self.marked) {
            // Part of it was refused: which, the log does not say
            if places.get(&mark).is_some_and(|place| place.epochs != writes.len() as u64) {
                continue;
            }
            let epochs: Vec<_> = match places.get(&mark) {
                Some(place) => (place.first..).take(writes.len()).map(Some).collect(),
                None => vec![None; writes.len()],
            };
            for (write, epoch) in writes.into_iter().zip(epochs) {
                self.found(write, epoch);
            }
        }
    }

    fn found(&mut self, write: Called, epoch: Option<u64>) {
        let told = self.history.operation(write);
        let replied = told.outcome != Outcome::Unknown;
        if (replied && epoch.is_none()) || (told.epoch.is_some() && told.epoch != epoch) {
            self.violations.push(format!("the log has at {epoch:?} what a client knows as {told:?}"));
        }
        match epoch {
            Some(epoch) => self.history.found(write, epoch),
            None => self.history.fail(write, self.clock),
        }
    }
}

/// What all clients of a run share.
#[derive(Clone, Default)]
pub struct Record(Arc<Mutex<Recorded>>);

impl Record {
    pub fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn call(&self, client: u32, calls: Calls) -> Called {
        let mut all = self.lock();
        all.clock += 1;
        let now = all.clock;
        all.history.call(client, calls, now)
    }

    fn next_mark(&self) -> u64 {
        let mut all = self.lock();
        all.marks += 1;
        all.marks
    }

    fn instant(&self) -> u64 {
        let mut all = self.lock();
        all.clock += 1;
        all.clock
    }
}

/// A connection of a client.
pub struct Connection(BufReader<End>);

impl Connection {
    pub async fn open(net: &Net, host: HostId) -> io::Result<Connection> {
        let opened = tokio::time::timeout(Duration::from_secs(2), net.connect(CLIENTS, host)).await;
        Ok(Connection(BufReader::new(opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?)))
    }

    pub async fn send(&mut self, requests: &str) -> io::Result<()> {
        let mut bytes = Vec::new();
        for line in requests.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            bytes.extend(format!("*{}\r\n", words.len()).bytes());
            words.iter().for_each(|w| bytes.extend(format!("${}\r\n{w}\r\n", w.len()).bytes()));
        }
        self.0.get_mut().write_all(&bytes).await
    }

    pub async fn reply(&mut self) -> io::Result<Reply> {
        let reply = tokio::time::timeout(PATIENCE, self.read()).await;
        reply.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    pub async fn ask(&mut self, request: &str) -> io::Result<Reply> {
        self.send(request).await?;
        self.reply().await
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_string())
    }

    async fn read(&mut self) -> io::Result<Reply> {
        let bad = || io::Error::from(io::ErrorKind::InvalidData);
        let line = self.line().await?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(bad)?;
        let number = || rest.parse::<i64>().map_err(|_| bad());
        Ok(match kind {
            "+" => Reply::Simple(rest.into()),
            "-" => Reply::Error(rest.into()),
            ":" => Reply::Int(number()?),
            "$" if rest == "-1" => Reply::NilBulk,
            "$" => {
                let mut bytes = vec![0; number()? as usize + 2];
                self.0.read_exact(&mut bytes).await?;
                bytes.truncate(bytes.len() - 2);
                Reply::Bulk(bytes)
            }
            "*" if rest == "-1" => Reply::NilArray,
            "*" => {
                let mut items = Vec::new();
                for _ in 0..number()? {
                    items.push(Box::pin(self.read()).await?);
                }
                Reply::Array(items)
            }
            _ => return Err(bad()),
        })
    }
}

enum Asked {
    Call(Called, Op),
    /// MULTI, its calls and EXEC.
    Transaction(Called, Calls),
    Echo(u64),
}

/// Requests that are sent at once.
#[derive(Default)]
struct Pipeline {
    text: String,
    asked: Vec<Asked>,
    /// What tells it from all others in the log, if it writes.
    mark: Option<u64>,
    writes: Vec<Called>,
}

fn writes(calls: &[(u32, Op)]) -> bool {
    calls.iter().any(|(_, op)| *op != Op::Get)
}

/// A reply, the instant at which it came, and whether it is of a write.
type Returned = (Called, Replies, u64, bool);

/// Which keys are in use: others every so often, for what has no reply stays pending on its key for ever.
#[derive(Clone)]
pub struct Keys {
    pub first: u32,
    pub count: u32,
    pub since: Ms,
    pub every: Ms,
}

impl Keys {
    pub fn in_use(&self, now: Ms) -> Range<u32> {
        // Even, so that even keys stay even
        let first = self.first + ((now - self.since) / self.every) as u32 * self.count.next_multiple_of(2);
        first..first + self.count
    }
}

pub struct Client {
    pub number: u32,
    pub net: Net,
    pub keys: Keys,
    /// In a pipeline, at most.
    pub calls: usize,
    /// Milliseconds between two pipelines, at most.
    pub think: Ms,
    /// Whether the first write of each pipeline tells it from all others.
    pub marks: bool,
    pub random: Random,
    pub record: Record,
}

impl Client {
    /// Until told to stop. A connection that breaks is replaced by one to any node.
    pub async fn run(mut self) {
        while !self.record.lock().stop {
            let host = self.random.pick(&self.record.lock().hosts).0;
            if let Ok(mut connection) = Connection::open(&self.net, host).await {
                let _ = self.talk(&mut connection).await;
            }
            tokio::time::sleep(Duration::from_millis(self.random.below(100) as u64)).await;
        }
    }

    async fn talk(&mut self, connection: &mut Connection) -> io::Result<()> {
        let mut newest = None;
        while !self.record.lock().stop && !self.random.chance(1) {
            let Pipeline { text, asked, .. } = self.pipeline();
            connection.send(&text).await?;
            let mut returned: Vec<Returned> = Vec::new();
            for one in asked {
                match one {
                    Asked::Echo(number) => match connection.reply().await? {
                        Reply::Bulk(text) if text == number.to_string().as_bytes() => self.record.lock().echoes += 1,
                        other => self.violation(format!("ECHO {number} is answered {other:?}")),
                    },
                    Asked::Call(called, op) => {
                        let reply = connection.reply().await?;
                        match modelled(&op, &reply) {
                            Some(reply) => returned.push((called, vec![reply], self.record.instant(), op != Op::Get)),
                            None => self.refused(&reply),
                        }
                    }
                    Asked::Transaction(called, calls) => {
                        returned.extend(self.transaction(connection, called, &calls).await?);
                    }
                }
            }
            let epoch = match connection.reply().await {
                Ok(Reply::Int(epoch)) => Some(epoch as u64),
                other => {
                    self.done(returned, None);
                    return other.map(|reply| self.refused(&reply));
                }
            };
            if epoch < newest {
                self.violation(format!("a connection's epoch went back from {newest:?} to {epoch:?}"));
            }
            newest = epoch;
            self.done(returned, epoch);
            if self.random.chance(20) {
                self.look_back(connection, epoch).await?;
            }
            tokio::time::sleep(Duration::from_millis(self.random.below(self.think as usize) as u64)).await;
        }
        Ok(())
    }

    /// Reads a key as one of the newest epochs had it, through whatever node this is.
    async fn look_back(&mut self, connection: &mut Connection, newest: Option<u64>) -> io::Result<()> {
        let (known_back, back) = (self.random.below(30), self.random.below(4) as u64);
        let known = self.record.lock().past.keys().rev().nth(known_back).copied();
        let now = newest.map(|epoch| (epoch.saturating_sub(back), self.key()));
        let Some((epoch, key)) = (if self.random.chance(50) { known.or(now) } else { now }) else { return Ok(()) };
        let reply = connection.ask(&format!("LOOK.AT {epoch} GET k:{key}")).await?;
        let Some(modelled) = modelled(&Op::Get, &reply) else {
            self.refused(&reply);
            return Ok(());
        };
        let mut all = self.record.lock();
        let first = all.past.entry((epoch, key)).or_insert_with(|| reply.clone()).clone();
        if all.past.len() > PAST_MAX {
            all.past.pop_first();
        }
        if key >= self.keys.first {
            all.looked_back.push(Operation::of_the_past(self.number, vec![(key, Op::Get)], epoch, vec![modelled]));
        }
        drop(all);
        if first != reply {
            self.violation(format!("epoch {epoch} had {first:?} at key {key}, and now {reply:?}"));
        }
        Ok(())
    }

    async fn transaction(
        &self,
        connection: &mut Connection,
        called: Called,
        calls: &Calls,
    ) -> io::Result<Option<Returned>> {
        let mut in_order = connection.reply().await? == Reply::Simple("OK".into());
        for _ in calls {
            in_order &= connection.reply().await? == Reply::Simple("QUEUED".into());
        }
        let reply = connection.reply().await?;
        let Reply::Array(items) = &reply else {
            self.refused(&reply);
            return Ok(None);
        };
        let replies: Option<Replies> = calls.iter().zip(items).map(|((_, op), item)| modelled(op, item)).collect();
        match replies {
            Some(replies) if in_order && items.len() == calls.len() => {
                self.record.lock().transactions += 1;
                Ok(Some((called, replies, self.record.instant(), writes(calls))))
            }
            _ => {
                self.violation(format!("EXEC of {calls:?} answers {reply:?}"));
                Ok(None)
            }
        }
    }

    /// The pipeline was one chunk: its writes have one epoch each, without a gap, the last of them `newest`.
    fn done(&self, returned: Vec<Returned>, newest: Option<u64>) {
        let mut epoch = newest;
        for (called, replies, at, writes) in returned.into_iter().rev() {
            self.record.lock().history.ok(called, replies, epoch.filter(|_| writes), at);
            epoch = epoch.map(|epoch| epoch - u64::from(writes));
        }
    }

    fn violation(&self, what: String) {
        self.record.lock().violations.push(format!("client {}: {what}", self.number));
    }

    /// An error leaves the outcome open, but must be one that a client can understand.
    fn refused(&self, reply: &Reply) {
        let understood = ["CLUSTERDOWN", "LOADING", "MISCONF", "EXECABORT", "EPOCHTOOOLD", "EPOCHFUTURE"];
        if !reply.is_error() || !understood.iter().any(|word| reply.text().starts_with(word)) {
            self.violation(format!("unexpected reply {reply:?}"));
        }
    }

    fn pipeline(&mut self) -> Pipeline {
        let mut pipeline = Pipeline::default();
        for _ in 0..1 + self.random.below(self.calls) {
            match self.random.below(10) {
                0 => {
                    let number = self.random.next() % 1_000_000;
                    pipeline.text += &format!("ECHO {number}\n");
                    pipeline.asked.push(Asked::Echo(number));
                }
                1 | 2 => {
                    let calls: Calls = (0..2 + self.random.below(2)).map(|_| self.call()).collect();
                    self.mark(&mut pipeline, &calls);
                    pipeline.text += "MULTI\n";
                    calls.iter().for_each(|(key, op)| pipeline.text += &(op.request(*key) + "\n"));
                    pipeline.text += "EXEC\n";
                    let called = self.called(&mut pipeline, &calls);
                    pipeline.asked.push(Asked::Transaction(called, calls));
                }
                _ => {
                    let (key, op) = self.call();
                    self.mark(&mut pipeline, &[(key, op.clone())]);
                    self.call_of(&mut pipeline, key, op);
                }
            }
        }
        if let Some(mark) = pipeline.mark {
            self.record.lock().marked.insert(mark, std::mem::take(&mut pipeline.writes));
        }
        // The epoch of the last write
        pipeline.text += "LOOK.LAST\n";
        pipeline
    }

    /// Before its first write: a write that is nowhere else. (Not earlier, for a read behind a write is never old.)
    fn mark(&mut self, pipeline: &mut Pipeline, next: &[(u32, Op)]) {
        if !self.marks || pipeline.mark.is_some() || !writes(next) {
            return;
        }
        let mark = self.record.next_mark();
        pipeline.mark = Some(mark);
        // An odd key: numbers are on the even ones
        let key = self.key() | 1;
        self.call_of(pipeline, key, Op::Set(truth::mark(mark).into()));
    }

    fn call_of(&self, pipeline: &mut Pipeline, key: u32, op: Op) {
        pipeline.text += &(op.request(key) + "\n");
        let called = self.called(pipeline, &[(key, op.clone())]);
        pipeline.asked.push(Asked::Call(called, op));
    }

    fn called(&self, pipeline: &mut Pipeline, calls: &[(u32, Op)]) -> Called {
        let called = self.record.call(self.number, calls.to_vec());
        pipeline.writes.extend(writes(calls).then_some(called));
        called
    }

    fn key(&mut self) -> u32 {
        let keys = self.keys.in_use(self.net.now());
        keys.start + self.random.below(keys.len()) as u32
    }

    /// Even keys hold numbers, odd ones text.
    fn call(&mut self) -> (u32, Op) {
        let key = self.key();
        let op = match (self.random.below(10), key % 2) {
            (0..=3, _) => Op::Get,
            (4, _) => Op::Del,
            (5 | 6, 0) => Op::Set((self.random.next() % 1000).to_string().into()),
            (_, 0) => Op::Incr(1 + self.random.below(9) as i64),
            (5, _) => Op::Set(format!("s{}", self.random.next() % 1000).into()),
            _ => Op::Append(format!(".{}", self.random.next() % 1000).into()),
        };
        (key, op)
    }
}

/// After the faults: a fresh write through a node, then what it says of every key, into the history.
pub async fn last_words(net: Net, host: HostId, keys: Range<u32>, record: Record) -> io::Result<()> {
    let mut connection = Connection::open(&net, host).await?;
    let mut all = vec![(u32::MAX - host as u32, Op::Set("alive".into()))];
    all.extend(keys.map(|key| (key, Op::Get)));
    let mut asked = Vec::new();
    for (key, op) in all {
        asked.push((record.call(1000 + host as u32, vec![(key, op.clone())]), op.clone()));
        connection.send(&op.request(key)).await?;
    }
    for (called, op) in asked {
        let reply = connection.reply().await?;
        let Some(modelled) = modelled(&op, &reply) else { return Err(io::Error::other(format!("{reply:?}"))) };
        let now = record.instant();
        record.lock().history.ok(called, vec![modelled], None, now);
    }
    Ok(())
}
