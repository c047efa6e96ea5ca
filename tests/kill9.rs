//! `kill -9` at any moment loses no acknowledged write and applies none twice.
//!
//! `LOOK_KILL_CYCLES=n` for longer runs, `LOOK_KILL_SEED=n` for other moments.

mod common;

use common::server::{skip, subject_is_redis};
use common::{Connection, Ledger, Random, Server, setting};
use std::path::Path;
use std::time::Duration;

const CYCLES: u64 = 50;
const WRITERS: usize = 3;

type Start = dyn Fn(&Path) -> Result<Server, String>;

/// One life of the server: start, check what the last life left, write until killed.
struct Lives<'a> {
    dir: &'a Path,
    start: &'a Start,
    random: Random,
    ledgers: Vec<Ledger>,
    acknowledged: i64,
    unknown: i64,
    starts: Vec<Duration>,
}

impl<'a> Lives<'a> {
    fn new(dir: &'a Path, start: &'a Start, seed: u64) -> Self {
        let ledgers = (0..WRITERS).map(Ledger::new).collect();
        Lives { dir, start, random: Random::new(seed), ledgers, acknowledged: 0, unknown: 0, starts: Vec::new() }
    }

    fn begin(&mut self) -> Result<Server, String> {
        let begin = std::time::Instant::now();
        let server = (self.start)(self.dir)?;
        self.starts.push(begin.elapsed());
        let mut connection = server.connect();
        for ledger in &mut self.ledgers {
            ledger.check(&mut connection, &mut self.random)?;
        }
        Ok(server)
    }

    fn cycle(&mut self, checkpoint: bool) -> Result<(), String> {
        let mut server = self.begin()?;
        let before: Vec<i64> = self.ledgers.iter().map(|l| l.acknowledged).collect();
        let life = Duration::from_micros(self.random.between(2_000, 250_000) as u64);
        let depths: Vec<i64> = (0..WRITERS).map(|_| *self.random.pick(&[1, 1, 4, 32])).collect();
        let results: Vec<Result<(), String>> = std::thread::scope(|scope| {
            let writers: Vec<_> = self
                .ledgers
                .iter_mut()
                .zip(depths)
                .map(|(ledger, depth)| {
                    let mut connection = server.connect();
                    scope.spawn(move || ledger.write_until_broken(&mut connection, depth))
                })
                .collect();
            if checkpoint {
                let _ = server.connect().line("BGSAVE");
            }
            std::thread::sleep(life);
            server.kill9();
            writers.into_iter().map(|w| w.join().unwrap_or_else(|_| Err("a writer panicked".into()))).collect()
        });
        for (ledger, before) in self.ledgers.iter().zip(before) {
            self.acknowledged += ledger.acknowledged - before;
            self.unknown += ledger.sent - ledger.acknowledged;
        }
        results.into_iter().collect()
    }
}

#[test]
fn acknowledged_writes_survive_kill_9() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let seed = setting("LOOK_KILL_SEED", 1);
    let cycles = setting("LOOK_KILL_CYCLES", CYCLES);
    let mut lives = Lives::new(dir.path(), &Server::try_subject, seed);
    for cycle in 0..cycles {
        lives.cycle(cycle % 5 == 4).unwrap_or_else(|why| panic!("seed {seed}, cycle {cycle}: {why}"));
        if lives.random.chance(20) {
            kill_in_recovery(dir.path(), &mut lives.random);
        }
    }
    drop(lives.begin().unwrap_or_else(|why| panic!("seed {seed}, after the last cycle: {why}")));
    lives.starts.sort();
    let median = lives.starts[lives.starts.len() / 2];
    eprintln!(
        "kill9: seed {seed}, {cycles} kills, {} steps of 5 writes acknowledged, {} unknown, start {median:?} (median), {:?} (longest)",
        lives.acknowledged,
        lives.unknown,
        lives.starts[lives.starts.len() - 1]
    );
    assert!(lives.acknowledged > cycles as i64 * 10, "INVALID: only {} steps in {cycles} cycles", lives.acknowledged);
}

/// A crash while the server is still recovering from the last one.
fn kill_in_recovery(dir: &Path, random: &mut Random) {
    if subject_is_redis() {
        return;
    }
    let flags = ["--dir".to_string(), dir.join("data").display().to_string()];
    let mut server =
        Server::launch(&common::server::look_binary(), dir, common::server::free_port(), &flags).expect("a start");
    std::thread::sleep(Duration::from_micros(random.between(0, 60_000) as u64));
    server.kill9();
}

/// The check itself: a server without persistence must be found out.
#[test]
fn a_server_that_forgets_is_found() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    if common::server::redis_binary().is_none() {
        return skip("redis-server is not installed");
    }
    let forgetful = |dir: &Path| Server::redis(dir).ok_or_else(|| "no redis-server".to_string());
    let mut lives = Lives::new(dir.path(), &forgetful, 1);
    let verdicts: Vec<Result<(), String>> = (0..4).map(|_| lives.cycle(false)).collect();
    let lost = verdicts.iter().any(|v| v.as_ref().is_err_and(|why| why.contains("acknowledged write is lost")));
    assert!(lost, "the loss was not noticed: {verdicts:?}");
}

/// A client that lost its connection sends the same token again: each token counts once.
#[test]
fn a_token_counts_once_across_kill_9() {
    if subject_is_redis() {
        return skip("Redis has no LOOK.ONCE");
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut random = Random::new(setting("LOOK_KILL_SEED", 1));
    let (mut token, mut repeated, mut cycle) = (0i64, 0, 0);
    let cycles = setting("LOOK_KILL_CYCLES", CYCLES).min(25);
    // More of them where a disk is slow
    while cycle < cycles || (token <= 50 && cycle < 10 * cycles) {
        cycle += 1;
        let mut server = Server::subject(dir.path());
        let mut connection = server.connect();
        // Whatever became of the last token, once more makes it exactly one.
        for again in [token, token].into_iter().filter(|t| *t > 0) {
            let reply = once(&mut connection, again).unwrap_or_else(|e| panic!("cycle {cycle}: {e}"));
            assert_eq!(reply.int(), Some(again), "cycle {cycle}: token {again} sent again");
            repeated += 1;
        }
        let life = Duration::from_micros(random.between(2_000, 80_000) as u64);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                loop {
                    token += 1;
                    match once(&mut connection, token) {
                        Ok(reply) => assert_eq!(reply.int(), Some(token)),
                        Err(_) => return,
                    }
                }
            });
            std::thread::sleep(life);
            server.kill9();
        });
    }
    eprintln!("kill9: {token} tokens, {repeated} sent again");
    assert!(token > 50, "INVALID: only {token} tokens");
}

fn once(connection: &mut Connection, token: i64) -> std::io::Result<common::Reply> {
    connection.line(&format!("LOOK.ONCE token:{token} INCR once"))
}
