//! Runs one sequence of steps against both servers and finds the first reply on which they differ.

use crate::agree;
use crate::common::{Connection, Reply, Server, show, words};
use crate::dump;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// A longer request or reply is not shown whole: the seed brings it back.
const BRIEF_MAX: usize = 2000;

#[derive(Clone, Debug)]
pub enum Step {
    /// One request on one of two connections.
    Call { connection: usize, args: Vec<Vec<u8>> },
    /// MULTI, these, and EXEC or DISCARD: kept together when a sequence is shrunk.
    Transaction { connection: usize, queued: Vec<Vec<Vec<u8>>>, end: &'static str },
    /// Walks a whole SCAN on each server; the sets of keys must be equal.
    FullScan { options: Vec<Vec<u8>> },
    /// SPOP takes what it likes: the reference is made to lose the same members.
    Spop { key: Vec<u8>, count: Option<i64> },
    /// One server's DUMP of a key, RESTOREd on both; then the value must be equal on both.
    Carry { key: Vec<u8>, from_look: bool },
    /// RANDOMKEY may name any key, but only one that exists.
    RandomKey,
}

#[derive(Clone, Debug)]
pub struct Sequence {
    pub seed: u64,
    pub resp3: bool,
    /// At most so many requests travel in one write.
    pub burst: usize,
    pub steps: Vec<Step>,
}

pub struct Divergence {
    pub step: String,
    pub command: String,
    pub redis: String,
    pub look: String,
}

impl Divergence {
    /// What makes two disagreements the same one: the command and how each reply begins.
    pub fn kind(&self) -> String {
        let begin = |reply: &str| reply.chars().take(if reply.starts_with('-') { 40 } else { 1 }).collect::<String>();
        format!("{}: {} / {}", self.command, begin(&self.redis), begin(&self.look))
    }
}

impl std::fmt::Display for Divergence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "at {}\n      redis: {}\n      look:  {}", self.step, self.redis, self.look)
    }
}

/// By command: replies that were no error, and errors. A run that met no success of a command proves nothing about it.
pub type Coverage = BTreeMap<String, (u64, u64)>;

/// Both servers, a fresh pair of connections to each.
struct Pair<'a> {
    coverage: &'a mut Coverage,
    redis: [Connection; 2],
    look: [Connection; 2],
    /// Requests that each connection's MULTI has queued.
    queued: [Option<Vec<Vec<Vec<u8>>>>; 2],
    /// Something happened that Look takes for a change of watched keys and Redis does not: a database was cleared (README, "Where Look
    /// differs"), or bits were set to what they were.
    cautious: bool,
    /// Look refused a transaction out of caution: the data differs from here on.
    parted: bool,
}

type Outcome = Result<(), Box<Divergence>>;

/// `None`: the servers agreed, in every reply and in the data that they hold at the end.
pub fn run(sequence: &Sequence, redis: &Server, look: &Server, coverage: &mut Coverage) -> Option<Divergence> {
    let played = Pair::open(sequence, redis, look, coverage).and_then(|mut pair| pair.play(sequence));
    played.err().map(|found| *found)
}

fn differs(step: String, command: String, redis: String, look: String) -> Box<Divergence> {
    let brief = |text: String| match text.len() {
        0..=BRIEF_MAX => text,
        len => format!("{} … {} characters", text.chars().take(BRIEF_MAX / 2).collect::<String>(), len),
    };
    Box::new(Divergence { step: brief(step), command, redis: brief(redis), look: brief(look) })
}

fn broken(side: &str, e: &io::Error) -> Box<Divergence> {
    differs(format!("connection to {side}"), "connection".into(), String::new(), e.to_string())
}

impl<'a> Pair<'a> {
    fn open(
        sequence: &Sequence,
        redis: &Server,
        look: &Server,
        coverage: &'a mut Coverage,
    ) -> Result<Self, Box<Divergence>> {
        let connect = |server: &Server, side: &str| -> Result<[Connection; 2], Box<Divergence>> {
            let mut pair = [0, 1].map(|_| Connection::open(server.address()));
            for connection in &mut pair {
                let connection = connection.as_mut().map_err(|e| broken(side, e))?;
                let hello = if sequence.resp3 { "HELLO 3" } else { "HELLO 2" };
                for line in ["FLUSHALL", hello] {
                    let reply = connection.line(line).map_err(|e| broken(side, &e))?;
                    if reply.is_error() {
                        return Err(differs(line.into(), line.into(), "ok".into(), format!("{side}: {reply:?}")));
                    }
                }
            }
            let [a, b] = pair;
            Ok([a.map_err(|e| broken(side, &e))?, b.map_err(|e| broken(side, &e))?])
        };
        Ok(Pair {
            coverage,
            redis: connect(redis, "redis")?,
            look: connect(look, "look")?,
            queued: [None, None],
            cautious: false,
            parted: false,
        })
    }

    fn play(&mut self, sequence: &Sequence) -> Outcome {
        let mut waiting: Vec<Vec<Vec<u8>>> = Vec::new();
        let mut on = 0;
        for step in &sequence.steps {
            if self.parted {
                return Ok(());
            }
            let (connection, requests) = match step {
                Step::Call { connection, args } => (*connection, vec![args.clone()]),
                Step::Transaction { connection, queued, end } => (*connection, transaction(queued, end)),
                other => {
                    self.exchange(on, &std::mem::take(&mut waiting))?;
                    self.special(other)?;
                    continue;
                }
            };
            if connection != on || waiting.len() + requests.len() > sequence.burst {
                self.exchange(on, &std::mem::take(&mut waiting))?;
                on = connection;
            }
            waiting.extend(requests);
        }
        self.exchange(on, &waiting)?;
        if self.parted { Ok(()) } else { self.same_data() }
    }

    /// Sends requests to both in one write each, and compares every reply.
    fn exchange(&mut self, on: usize, requests: &[Vec<Vec<u8>>]) -> Outcome {
        if requests.is_empty() {
            return Ok(());
        }
        let look = self.look[on].pipeline(requests).map_err(|e| {
            let last = requests.iter().map(|r| show(r)).collect::<Vec<_>>().join("; ");
            differs(last, "connection".into(), String::new(), e.to_string())
        })?;
        let redis = self.redis[on].pipeline(requests).map_err(|e| broken("redis", &e))?;
        for (args, (redis, look)) in requests.iter().zip(redis.iter().zip(&look)) {
            if self.parted {
                break;
            }
            if !self.agree(on, args, redis, look) {
                return Err(differs(show(args), agree::name(args), format!("{redis:?}"), format!("{look:?}")));
            }
        }
        Ok(())
    }

    fn agree(&mut self, on: usize, args: &[Vec<u8>], redis: &Reply, look: &Reply) -> bool {
        let queued = &mut self.queued[on];
        let seen = self.coverage.entry(agree::name(args)).or_default();
        *(if redis.is_error() { &mut seen.1 } else { &mut seen.0 }) += 1;
        self.cautious |= ["FLUSHALL", "FLUSHDB", "SWAPDB", "BITFIELD", "SETBIT"].contains(&agree::name(args).as_str());
        match agree::name(args).as_str() {
            "MULTI" if !redis.is_error() => *queued = Some(Vec::new()),
            "DISCARD" | "RESET" if !redis.is_error() => *queued = None,
            "EXEC" if self.cautious && matches!(redis, Reply::Array(_)) && look.is_nil() => {
                self.parted = true;
                return true;
            }
            "EXEC" => return agree::compare_exec(&queued.take().unwrap_or_default(), redis, look),
            _ if *redis == Reply::Simple(b"QUEUED".to_vec()) => {
                if let Some(queue) = queued {
                    queue.push(args.to_vec());
                }
            }
            _ => {}
        }
        agree::compare(args, redis, look)
    }

    fn special(&mut self, step: &Step) -> Outcome {
        match step {
            Step::FullScan { options } => self.full_scan(options),
            Step::Spop { key, count } => self.spop(key, *count),
            Step::RandomKey => self.random_key(),
            Step::Carry { key, from_look } => self.carry(key, *from_look),
            Step::Call { .. } | Step::Transaction { .. } => unreachable!("plain steps are exchanged"),
        }
    }

    fn ask(&mut self, args: &[Vec<u8>]) -> Result<(Reply, Reply), Box<Divergence>> {
        let look = self.look[0].call(args).map_err(|e| broken("look", &e))?;
        let redis = self.redis[0].call(args).map_err(|e| broken("redis", &e))?;
        Ok((redis, look))
    }

    fn full_scan(&mut self, options: &[Vec<u8>]) -> Outcome {
        let redis = scan(&mut self.redis[0], options).map_err(|e| broken("redis", &e))?;
        let look = scan(&mut self.look[0], options).map_err(|e| broken("look", &e))?;
        if redis == look {
            return Ok(());
        }
        Err(differs(format!("full SCAN {}", show(options)), "SCAN".into(), format!("{redis:?}"), format!("{look:?}")))
    }

    fn carry(&mut self, key: &[u8], from_look: bool) -> Outcome {
        let (redis, look) = self.ask(&[b"DUMP".to_vec(), key.to_vec()])?;
        let Some(payload) = if from_look { &look } else { &redis }.bytes() else {
            return Ok(()); // in a transaction, or no such key
        };
        let restore = [&b"RESTORE"[..], b"carried", b"0", &dump::as_version_10(payload), b"REPLACE"];
        self.exchange(0, &[restore.map(<[u8]>::to_vec).to_vec()])?;
        self.same_value(b"carried")
    }

    fn random_key(&mut self) -> Outcome {
        let (redis, look) = self.ask(&words("RANDOMKEY"))?;
        let exists = match look.bytes() {
            Some(key) if !redis.is_error() => {
                let reply = self.redis[0].call(&[b"EXISTS".to_vec(), key.to_vec()]).map_err(|e| broken("redis", &e))?;
                reply == Reply::Int(1)
            }
            _ => redis == look,
        };
        if exists {
            Ok(())
        } else {
            Err(differs("RANDOMKEY".into(), "RANDOMKEY".into(), format!("{redis:?}"), format!("{look:?}")))
        }
    }

    fn spop(&mut self, key: &[u8], count: Option<i64>) -> Outcome {
        let text = |name: &str| name.as_bytes().to_vec();
        let mut args = vec![text("SPOP"), key.to_vec()];
        args.extend(count.map(|n| n.to_string().into_bytes()));
        let members = self.redis[0].call(&[text("SMEMBERS"), key.to_vec()]).map_err(|e| broken("redis", &e))?;
        let look = self.look[0].call(&args).map_err(|e| broken("look", &e))?;
        let fail = |redis: &Reply, look: &Reply| {
            Err(differs(show(&args), "SPOP".into(), format!("{redis:?}"), format!("{look:?}")))
        };
        let taken: Vec<Vec<u8>> = match (&look, count) {
            (Reply::Bulk(member), None) => vec![member.clone()],
            (Reply::Array(all) | Reply::Set(all), Some(_)) => {
                all.iter().filter_map(|m| m.bytes().map(<[u8]>::to_vec)).collect()
            }
            _ => {
                let redis = self.redis[0].call(&args).map_err(|e| broken("redis", &e))?;
                return if redis == look { Ok(()) } else { fail(&redis, &look) };
            }
        };
        let distinct: BTreeSet<&Vec<u8>> = taken.iter().collect();
        let due = count.map_or(1, |n| n.clamp(0, i64::MAX) as usize).min(members.items().len());
        if distinct.len() != taken.len() || taken.len() != due {
            return fail(&members, &look);
        }
        if !taken.is_empty() {
            let remove: Vec<Vec<u8>> = [text("SREM"), key.to_vec()].into_iter().chain(taken.iter().cloned()).collect();
            let removed = self.redis[0].call(&remove).map_err(|e| broken("redis", &e))?;
            if removed != Reply::Int(taken.len() as i64) {
                return fail(&members, &look);
            }
        }
        Ok(())
    }

    /// The whole data must be equal at the end: a wrong write is found even if no later read met it.
    fn same_data(&mut self) -> Outcome {
        for request in ["RESET", "HELLO 2"] {
            self.ask(&words(request))?;
        }
        self.queued = [None, None];
        for db in ["0", "1", "9", "15"] {
            self.exchange(0, &[words(&format!("SELECT {db}")), words("KEYS *")])?;
            let keys = self.redis[0].line("KEYS *").map_err(|e| broken("redis", &e))?;
            for key in keys.items().iter().filter_map(Reply::bytes) {
                self.same_value(key)?;
            }
        }
        Ok(())
    }

    fn same_value(&mut self, key: &[u8]) -> Outcome {
        let request = |line: &str| -> Vec<Vec<u8>> {
            words(line).into_iter().map(|w| if w == b"KEY" { key.to_vec() } else { w }).collect()
        };
        let kind = self.redis[0].call(&request("TYPE KEY")).map_err(|e| broken("redis", &e))?;
        let read = match kind.text().as_str() {
            "list" => "LRANGE KEY 0 -1",
            "set" => "SMEMBERS KEY",
            "hash" => "HGETALL KEY",
            "zset" => "ZRANGE KEY 0 -1 WITHSCORES",
            _ => "GET KEY",
        };
        self.exchange(0, &[request("TYPE KEY"), request(read), request("PEXPIRETIME KEY")])
    }
}

fn transaction(queued: &[Vec<Vec<u8>>], end: &str) -> Vec<Vec<Vec<u8>>> {
    let mut requests = vec![words("MULTI")];
    requests.extend(queued.iter().cloned());
    requests.push(words(end));
    requests
}

fn scan(connection: &mut Connection, options: &[Vec<u8>]) -> io::Result<Result<BTreeSet<Vec<u8>>, String>> {
    let mut seen = BTreeSet::new();
    let mut cursor = b"0".to_vec();
    for _ in 0..10_000 {
        let mut args = vec![b"SCAN".to_vec(), cursor];
        args.extend_from_slice(options);
        let reply = connection.call(&args)?;
        let [next, keys] = reply.items() else {
            return Ok(Err(reply.text()));
        };
        seen.extend(keys.items().iter().filter_map(|k| k.bytes().map(<[u8]>::to_vec)));
        cursor = next.bytes().unwrap_or(b"0").to_vec();
        if cursor == b"0" {
            return Ok(Ok(seen));
        }
    }
    Ok(Err("SCAN did not end within 10,000 calls".into()))
}
