//! Who is connected: one record a connection, shared between its task and those who list or kill it.
//!
//! A connection's task writes its record once a chunk, never once a command.

use super::acl::users::Identity;
use crate::apply::pending::Cost;
use crate::base::Millis;
use crate::command::costs::Counter;
use futures_util::task::AtomicWaker;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::future::poll_fn;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Poll};
use tokio::sync::Notify;

/// A lock whose holder cannot have left anything half done: a panic elsewhere must not spread through it.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Of `ip:port`, the part that a person's connections share.
fn host(addr: &str) -> &str {
    addr.rsplit_once(':').map_or(addr, |(host, _)| host)
}

/// What others may know of a connection.
#[derive(Debug)]
pub struct Client {
    pub id: u64,
    /// `ip:port`, or `path:0` of a unix socket.
    pub addr: String,
    pub laddr: String,
    pub created_ms: Millis,
    pub last_ms: AtomicI64,
    pub db: AtomicU8,
    pub resp: AtomicU8,
    /// Commands queued by MULTI; -1 outside.
    pub multi: AtomicI64,
    pub query_bytes: AtomicUsize,
    pub query_free: AtomicUsize,
    pub output_bytes: AtomicUsize,
    pub commands: AtomicU64,
    pub monitor: AtomicBool,
    pub no_evict: AtomicBool,
    pub no_touch: AtomicBool,
    pub texts: Mutex<Texts>,
    /// What its calls have cost under its present name: calls, ops, locs, nanoseconds. Written by its own task only, once a chunk.
    used: [AtomicU64; 4],
    killed: AtomicBool,
    kill: AtomicWaker,
}

/// The parts of a [`Client`] that are text.
#[derive(Debug, Clone)]
pub struct Texts {
    pub user: Identity,
    pub name: String,
    pub lib_name: String,
    pub lib_ver: String,
    /// Full name of the last command.
    pub command: String,
}

impl Client {
    fn new(id: u64, addr: String, laddr: String, now: Millis) -> Self {
        Client {
            id,
            addr,
            laddr,
            created_ms: now,
            last_ms: now.into(),
            db: 0.into(),
            resp: 2.into(),
            multi: (-1).into(),
            query_bytes: 0.into(),
            query_free: 0.into(),
            output_bytes: 0.into(),
            commands: 0.into(),
            monitor: false.into(),
            no_evict: false.into(),
            no_touch: false.into(),
            texts: Mutex::new(Texts {
                user: Identity::default_user(),
                name: String::new(),
                lib_name: String::new(),
                lib_ver: String::new(),
                command: String::new(),
            }),
            used: Default::default(),
            killed: false.into(),
            kill: AtomicWaker::new(),
        }
    }

    /// Adds what a chunk cost.
    pub fn charge(&self, cost: &Cost) {
        for (used, more) in self.used.iter().zip([cost.calls, cost.ops, cost.locs, cost.nanos]) {
            // No other task writes: two plain moves, not a locked addition.
            used.store(used.load(Relaxed) + more, Relaxed);
        }
    }

    fn used(&self) -> Counter {
        let [calls, ops, locs, nanos] = self.used.each_ref().map(|used| used.load(Relaxed));
        Counter { calls, ops, locs, nanos, ..Counter::default() }
    }

    /// Asks the connection's task to end it.
    pub fn kill(&self) {
        self.killed.store(true, Release);
        self.kill.wake();
    }
    pub fn is_killed(&self) -> bool {
        self.killed.load(Acquire)
    }
    /// For the connection's task only. (A waker, not a list of waiters: it is polled twice a request.)
    pub async fn until_killed(&self) {
        let killed = |context: &mut TaskContext<'_>| {
            self.kill.register(context.waker());
            if self.is_killed() { Poll::Ready(()) } else { Poll::Pending }
        };
        poll_fn(killed).await;
    }

    /// The client's line in `CLIENT LIST`, as of 7.2; without the newline.
    pub fn line(&self, now: Millis) -> String {
        let texts = locked(&self.texts).clone();
        let mut flags = String::new();
        for (set, flag) in [
            (self.monitor.load(Relaxed), 'O'),
            (self.multi.load(Relaxed) >= 0, 'x'),
            (self.no_evict.load(Relaxed), 'e'),
            (self.no_touch.load(Relaxed), 'T'),
            (self.addr.ends_with(":0"), 'U'),
        ] {
            if set {
                flags.push(flag);
            }
        }
        if flags.is_empty() {
            flags.push('N');
        }
        let (query, free, output) =
            (self.query_bytes.load(Relaxed), self.query_free.load(Relaxed), self.output_bytes.load(Relaxed));
        let mut line = String::with_capacity(360);
        let _ = write!(
            line,
            "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={flags} db={} sub=0 psub=0 ssub=0 multi={} \
             qbuf={query} qbuf-free={free} argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem={output} tot-mem={} events=r \
             cmd={} user={} redir=-1 resp={} lib-name={} lib-ver={}",
            self.id,
            self.addr,
            self.laddr,
            self.id + 7,
            texts.name,
            (now - self.created_ms).max(0) / 1000,
            (now - self.last_ms.load(Relaxed)).max(0) / 1000,
            self.db.load(Relaxed),
            self.multi.load(Relaxed),
            query + free + output + 1024,
            if texts.command.is_empty() { "NULL" } else { &texts.command },
            String::from_utf8_lossy(&texts.user.name),
            self.resp.load(Relaxed),
            texts.lib_name,
            texts.lib_ver,
        );
        line
    }
}

/// What `CLIENT PAUSE` holds up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pause {
    Writes,
    All,
}

/// Names whose costs are remembered; those of later ones are one.
const NAMES_MAX: usize = 1000;
const OTHERS: &str = "(others)";

/// All connections of this gateway.
#[derive(Debug, Default)]
pub struct Clients {
    /// What clients have cost under names that they no longer have.
    left: Mutex<BTreeMap<String, Counter>>,
    by_id: Mutex<BTreeMap<u64, Arc<Client>>>,
    next: AtomicU64,
    /// Until when chunks are held up; 0: not at all.
    pause_until_ms: AtomicI64,
    pause_all: AtomicBool,
    unpause: Notify,
}

impl Clients {
    /// Enters a connection. None: `max` are here already, or `per_address` of its address (0: no limit of its own).
    pub fn enter(
        &self,
        addr: String,
        laddr: String,
        now: Millis,
        (max, per_address): (usize, usize),
    ) -> Option<Arc<Client>> {
        let mut by_id = locked(&self.by_id);
        let same = |client: &&Arc<Client>| host(&client.addr) == host(&addr);
        if by_id.len() >= max || (per_address > 0 && by_id.values().filter(same).count() >= per_address) {
            return None;
        }
        let id = self.next.fetch_add(1, Relaxed) + 1;
        let client = Arc::new(Client::new(id, addr, laddr, now));
        by_id.insert(id, client.clone());
        Some(client)
    }
    pub fn leave(&self, id: u64) {
        let left = locked(&self.by_id).remove(&id);
        left.iter().for_each(|client| self.close_account(client));
    }
    /// What this client has cost stays with its present name: it leaves, or takes another one.
    pub fn close_account(&self, client: &Client) {
        let name = locked(&client.texts).name.clone();
        let used = client.used();
        client.used.iter().for_each(|used| used.store(0, Relaxed));
        let mut all = locked(&self.left);
        let name = if all.len() < NAMES_MAX || all.contains_key(&name) { name } else { OTHERS.into() };
        all.entry(name).or_default().add(used);
    }
    /// What calls have cost, by client name; those without one have the empty name.
    pub fn usage(&self) -> BTreeMap<String, Counter> {
        let mut all = locked(&self.left).clone();
        for client in self.all() {
            let name = locked(&client.texts).name.clone();
            all.entry(name).or_default().add(client.used());
        }
        all.retain(|_, used| used.calls > 0);
        all
    }
    pub fn len(&self) -> usize {
        locked(&self.by_id).len()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Closes the connections of users who are not among these any more.
    pub fn keep(&self, is_there: impl Fn(&Identity) -> bool) {
        let gone = |client: &Arc<Client>| !is_there(&locked(&client.texts).user);
        self.all().iter().filter(|client| gone(client)).for_each(|client| client.kill());
    }
    /// In order of id.
    pub fn all(&self) -> Vec<Arc<Client>> {
        locked(&self.by_id).values().cloned().collect()
    }

    /// Those that nobody has killed: to others a client is gone at once, however long its task takes to hear of it.
    pub fn alive(&self) -> Vec<Arc<Client>> {
        let mut all = self.all();
        all.retain(|client| !client.is_killed());
        all
    }

    pub fn pause(&self, until: Millis, what: Pause) {
        // As in Redis: a later end wins, and ALL wins over WRITE.
        let running = self.pause_until_ms.load(Relaxed);
        self.pause_until_ms.store(until.max(running), Relaxed);
        self.pause_all.store(what == Pause::All || (running > 0 && self.pause_all.load(Relaxed)), Relaxed);
    }
    pub fn unpause(&self) {
        self.pause_until_ms.store(0, Relaxed);
        self.pause_all.store(false, Relaxed);
        self.unpause.notify_waiters();
    }
    /// Milliseconds that a chunk has still to wait.
    pub fn paused_for(&self, now: Millis, writes: bool) -> Option<u64> {
        let until = self.pause_until_ms.load(Relaxed);
        if until == 0 {
            return None;
        }
        if until <= now {
            self.unpause();
            return None;
        }
        (writes || self.pause_all.load(Relaxed)).then_some((until - now) as u64)
    }
    pub async fn until_unpaused(&self, ms: u64) {
        let _ = tokio::time::timeout(std::time::Duration::from_millis(ms), self.unpause.notified()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_past_the_maximum_is_refused_until_one_leaves() {
        let clients = Clients::default();
        let enter = || clients.enter("a:1".into(), "b:2".into(), 0, (2, 0));
        let first = enter().unwrap();
        assert_eq!(enter().unwrap().id, first.id + 1);
        assert!(enter().is_none());
        clients.leave(first.id);
        assert!(enter().is_some());
    }

    #[test]
    fn a_pause_of_writes_lets_reads_pass_and_ends_by_itself() {
        let clients = Clients::default();
        clients.pause(100, Pause::Writes);
        assert_eq!(clients.paused_for(40, false), None);
        assert_eq!(clients.paused_for(40, true), Some(60));
        clients.pause(50, Pause::All);
        assert_eq!(clients.paused_for(40, false), Some(60));
        assert_eq!(clients.paused_for(100, true), None);
        assert_eq!(clients.paused_for(40, true), None);
    }

    #[test]
    fn the_line_has_the_fields_of_redis_7_2() {
        let client = Client::new(3, "127.0.0.1:5".into(), "127.0.0.1:6379".into(), 0);
        locked(&client.texts).lib_ver = "1.0".into();
        let line = client.line(2500);
        let names: Vec<&str> = line.split(' ').map(|field| field.split('=').next().unwrap()).collect();
        let redis = "id addr laddr fd name age idle flags db sub psub ssub multi qbuf qbuf-free argv-mem multi-mem rbs rbp obl oll \
                     omem tot-mem events cmd user redir resp lib-name lib-ver";
        assert_eq!(names, redis.split_whitespace().collect::<Vec<_>>());
        assert!(line.contains("age=2 ") && line.contains("flags=N ") && line.contains("cmd=NULL "), "{line}");
    }
}
