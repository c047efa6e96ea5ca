//! Clients on the bridge: pipelines of calls and transactions to any node, retries under a token, and the history of what they saw.

use crate::common::registers::modelled;
use crate::common::{Connection, Random, Reply, words};
use history::models::{Calls, RegisterOp as Op, RegisterReply, Replies};
use history::{Called, History};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a client waits for a reply.
const PATIENCE: Duration = Duration::from_secs(8);
/// After a refusal; then a client goes to any node.
const REFUSED_PAUSE: Duration = Duration::from_millis(500);
/// Fresh keys so often: what has no reply stays pending on its key for ever.
const KEYS_FOR: Duration = Duration::from_secs(4);
/// So many in use at once. Operations touch keys of one such group only.
pub const KEYS: u32 = 24;

/// What clients of a round share.
#[derive(Clone)]
pub struct Shared {
    pub addresses: Arc<Vec<SocketAddr>>,
    pub begun: Instant,
    pub stop: Arc<AtomicBool>,
}

impl Shared {
    pub fn now(&self) -> u64 {
        self.begun.elapsed().as_nanos() as u64
    }

    /// The first of the keys in use now.
    fn first_key(&self) -> u32 {
        (self.begun.elapsed().as_millis() / KEYS_FOR.as_millis()) as u32 * KEYS
    }

    /// All keys that have been in use.
    pub fn keys(&self) -> std::ops::Range<u32> {
        0..self.first_key() + KEYS
    }
}

#[derive(Default)]
pub struct Seen {
    pub history: History<Calls, Replies>,
    pub violations: Vec<String>,
    pub transactions: u64,
    /// Tokens that were sent more than once.
    pub repeated: u64,
}

impl Seen {
    pub fn add(&mut self, other: Seen) {
        self.history.extend(other.history);
        self.violations.extend(other.violations);
        self.transactions += other.transactions;
        self.repeated += other.repeated;
    }
}

/// Called, its calls, and whether MULTI is around them.
type Asked = (Called, Calls, bool);
/// A reply, when it came, and whether it is of a write.
type Returned = (Called, Replies, u64, bool);

pub struct Client {
    pub number: u32,
    pub random: Random,
    pub shared: Shared,
    pub seen: Seen,
}

impl Client {
    /// Until told to stop. A connection that breaks is replaced by one to any node.
    pub fn run(mut self) -> Seen {
        while !self.shared.stop.load(Ordering::SeqCst) {
            if let Ok(mut connection) = self.connect() {
                let _ = self.talk(&mut connection);
            }
            std::thread::sleep(Duration::from_millis(self.random.below(50) as u64));
        }
        self.seen
    }

    fn connect(&mut self) -> io::Result<Connection> {
        let addresses = self.shared.addresses.clone();
        let connection = Connection::open(*self.random.pick(&addresses))?;
        connection.patience(PATIENCE)?;
        Ok(connection)
    }

    fn talk(&mut self, connection: &mut Connection) -> io::Result<()> {
        let mut newest = 0;
        while !self.shared.stop.load(Ordering::SeqCst) && !self.random.chance(1) {
            if self.random.chance(10) {
                self.insist()?;
                continue;
            }
            let (requests, asked) = self.pipeline();
            let mut bytes = Vec::new();
            requests.iter().for_each(|line| crate::common::resp::encode(&words(line), &mut bytes));
            connection.send_raw(&bytes)?;
            let mut returned: Vec<Returned> = Vec::new();
            let count = asked.len();
            for (called, calls, together) in asked {
                let replies = match together {
                    true => self.transaction(connection, &calls)?,
                    false => self.replies(&calls, &[connection.read()?]),
                };
                let writes = calls.iter().any(|(_, op)| *op != Op::Get);
                returned.extend(replies.map(|replies| (called, replies, self.shared.now(), writes)));
            }
            let last = connection.read();
            let epoch = last.as_ref().ok().and_then(Reply::int).map(|epoch| epoch as u64);
            if epoch.is_some_and(|epoch| epoch < newest) {
                self.violation(format!("a connection's epoch went back from {newest} to {epoch:?}"));
            }
            newest = epoch.unwrap_or(newest);
            let whole = returned.len() == count;
            self.done(returned, epoch.filter(|_| whole));
            last?;
            if !whole {
                // A node that refuses answers at once: to insist would only leave more that nobody knows the end of
                std::thread::sleep(REFUSED_PAUSE);
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(self.random.below(12) as u64));
        }
        Ok(())
    }

    fn replies(&mut self, calls: &Calls, replies: &[Reply]) -> Option<Replies> {
        let modelled: Option<Replies> = calls.iter().zip(replies).map(|((_, op), reply)| modelled(op, reply)).collect();
        match modelled {
            Some(all) if replies.len() == calls.len() => Some(all),
            _ => {
                replies.iter().for_each(|reply| self.refused(reply));
                None
            }
        }
    }

    fn transaction(&mut self, connection: &mut Connection, calls: &Calls) -> io::Result<Option<Replies>> {
        let begun = connection.read()?;
        let mut in_order = begun == Reply::Simple(b"OK".to_vec());
        for _ in calls {
            in_order &= connection.read()? == Reply::Simple(b"QUEUED".to_vec());
        }
        let reply = connection.read()?;
        if reply.is_error() {
            self.refused(&reply);
            return Ok(None);
        }
        let replies = self.replies(calls, reply.items());
        match replies.is_some() && in_order {
            true => self.seen.transactions += 1,
            false => self.violation(format!("EXEC of {calls:?} answers {reply:?}")),
        }
        Ok(replies)
    }

    /// The pipeline was one chunk: its writes have one epoch each, without a gap, the last of them `newest`. `None`: that is not known.
    fn done(&mut self, returned: Vec<Returned>, newest: Option<u64>) {
        let mut epoch = newest;
        for (called, replies, at, writes) in returned.into_iter().rev() {
            self.seen.history.ok(called, replies, epoch.filter(|_| writes), at);
            epoch = epoch.map(|epoch| epoch - u64::from(writes));
        }
    }

    /// One INCR under a token, to one node after the other until one of them answers.
    fn insist(&mut self) -> io::Result<()> {
        let key = self.shared.first_key() + self.random.below(KEYS as usize / 2) as u32 * 2;
        let token = format!("{}:{}", self.number, self.random.next());
        let called = self.seen.history.call(self.number, vec![(key, Op::Incr(1))], self.shared.now());
        let line = format!("LOOK.ONCE {token} INCR k:{key}");
        for attempt in 0.. {
            if self.shared.stop.load(Ordering::SeqCst) {
                break;
            }
            let sent = self.connect().and_then(|mut c| c.pipeline(&[words(&line), words("LOOK.LAST")]));
            match sent.as_deref() {
                Ok([Reply::Int(n), last]) => {
                    // Of a repetition the epoch is not known
                    let epoch = last.int().filter(|_| attempt == 0).map(|epoch| epoch as u64);
                    self.seen.history.ok(called, vec![RegisterReply::Int(*n)], epoch, self.shared.now());
                    self.seen.repeated += u64::from(attempt > 0);
                    break;
                }
                Ok([refusal, _]) => self.refused(refusal),
                _ => {}
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn violation(&mut self, what: String) {
        self.seen.violations.push(format!("client {}: {what}", self.number));
    }

    /// An error leaves the outcome open, but must be one that a client can understand.
    fn refused(&mut self, reply: &Reply) {
        let understood = ["CLUSTERDOWN", "LOADING", "EXECABORT", "MISCONF"];
        if !(reply.is_error() && understood.iter().any(|word| reply.text().starts_with(word))) {
            self.violation(format!("unexpected reply {reply:?}"));
        }
    }

    fn pipeline(&mut self) -> (Vec<String>, Vec<Asked>) {
        let (mut requests, mut asked) = (Vec::new(), Vec::new());
        let first = self.shared.first_key();
        for _ in 0..1 + self.random.below(3) {
            let together = self.random.chance(20);
            let count = if together { 2 + self.random.below(2) } else { 1 };
            let calls: Calls = (0..count).map(|_| self.call(first)).collect();
            requests.extend(together.then(|| "MULTI".to_string()));
            requests.extend(calls.iter().map(|(key, op)| op.request(*key)));
            requests.extend(together.then(|| "EXEC".to_string()));
            asked.push((self.seen.history.call(self.number, calls.clone(), self.shared.now()), calls, together));
        }
        // The epoch of the last write
        requests.push("LOOK.LAST".into());
        (requests, asked)
    }

    /// Even keys hold numbers, odd ones text.
    fn call(&mut self, first: u32) -> (u32, Op) {
        let key = first + self.random.below(KEYS as usize) as u32;
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

/// After the faults: a fresh write through a node, then what it says of every key, into the history. What it refuses is asked again
/// until `end`.
pub fn last_words(shared: &Shared, place: usize, connection: &mut Connection, end: Instant) -> Result<Seen, String> {
    let mut seen = Seen::default();
    let mut all = vec![(u32::MAX - place as u32, Op::Set("alive".into()))];
    all.extend(shared.keys().map(|key| (key, Op::Get)));
    while !all.is_empty() {
        let calls: Calls = all.drain(..all.len().min(100)).collect();
        let call = |call: &(u32, Op)| seen.history.call(1000 + place as u32, vec![call.clone()], shared.now());
        let called: Vec<Called> = calls.iter().map(call).collect();
        let requests: Vec<_> = calls.iter().map(|(key, op)| words(&op.request(*key))).collect();
        let replies = connection.pipeline(&requests).map_err(|e| format!("machine {}: {e}", place + 1))?;
        for ((called, call), reply) in called.into_iter().zip(calls).zip(&replies) {
            match modelled(&call.1, reply) {
                Some(reply) => seen.history.ok(called, vec![reply], None, shared.now()),
                None if Instant::now() < end => all.push(call),
                None => return Err(format!("machine {}: {reply:?}", place + 1)),
            }
        }
    }
    Ok(seen)
}
