//! One of three nodes comes back with a flipped bit in its directory. It must say what is damaged and what to do, or be right; and after
//! what it said to do, the cluster is whole again.
//!
//! `LOOK_REPAIR_FLIPS=n` for more than one of each kind of file, `LOOK_REPAIR_SEED=n` for others.

mod common;

use common::server::{skip, subject_is_redis};
use common::{Cluster, Random, Server, setting};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A kind of files, by their paths in a data directory.
type Kind = (&'static str, fn(&str) -> bool);

const KINDS: [Kind; 5] = [
    ("identity", |path| path == "LOOK"),
    ("log", |path| path.starts_with("log/") && !path.ends_with("highwater")),
    ("high-water mark", |path| path.ends_with("highwater") || path.ends_with("high-water")),
    ("pages", |path| path.contains("/blobs/")),
    ("checkpoints and their index", |path| {
        path.starts_with("pages/") && !path.contains("/blobs/") && !path.ends_with("high-water")
    }),
];

/// What came of a flip.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// It was in nothing that counts.
    Whole,
    /// The node ended at its start.
    Ended,
    /// The node found it while it served, and answered no more.
    Stopped,
}

fn files(root: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root).expect("a directory").flatten() {
        match entry.path() {
            path if path.is_dir() => files(&path, found),
            path => found.push(path),
        }
    }
}

/// Flips a bit where something is written, in a file of this kind; says where.
fn flip(dir: &Path, kind: fn(&str) -> bool, random: &mut Random) -> String {
    let mut found = Vec::new();
    files(dir, &mut found);
    let name = |path: &Path| path.strip_prefix(dir).expect("is below").display().to_string();
    found.retain(|path| kind(&name(path)));
    found.sort();
    loop {
        let path = found.swap_remove(random.below(found.len()));
        let mut bytes = fs::read(&path).expect("a file");
        let Some(end) = bytes.iter().rposition(|byte| *byte != 0) else { continue };
        let (at, bit) = (random.below(end + 1), random.below(8));
        bytes[at] ^= 1 << bit;
        fs::write(&path, bytes).expect("a flip");
        return format!("bit {bit} of byte {at} of {}", name(&path));
    }
}

/// Epoch and digest as a node shows them.
fn state(cluster: &Cluster, id: usize) -> Result<(String, String), String> {
    Ok((cluster.ask(id, "LOOK.EPOCH")?.text(), cluster.ask(id, "DEBUG DIGEST")?.text()))
}

/// Starts a node and waits for its verdict on its own data.
fn come_back(cluster: &mut Cluster, id: usize) -> Outcome {
    cluster.launch(id).expect("starts");
    let begin = Instant::now();
    loop {
        let node = cluster.nodes[id - 1].as_mut().expect("was started");
        if node.exited().is_some() {
            return Outcome::Ended;
        }
        match node.await_ready(Duration::ZERO).and_then(|_| state(cluster, id)) {
            Ok(shown) if shown == state(cluster, 1).expect("the others answer") => return Outcome::Whole,
            Ok((epoch, digest)) => {
                let truth = state(cluster, 1).expect("the others answer");
                assert!(
                    epoch != truth.0 || digest == truth.1,
                    "another content at epoch {epoch}\n{}",
                    cluster.output()
                );
            }
            Err(why) if why.contains("DAMAGED") => return Outcome::Stopped,
            Err(_) => {}
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "neither whole nor damaged:\n{}", cluster.output());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Orders may find the cluster busy with another one.
fn insist(cluster: &Cluster, line: &str) {
    let begin = Instant::now();
    while let Err(why) = cluster.ask(1, line) {
        assert!(begin.elapsed() < Duration::from_secs(60), "{line}: {why}\n{}", cluster.output());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// What a damaged node says to do: its id goes, a new node comes in its place.
fn replace(cluster: &mut Cluster, id: usize) -> usize {
    cluster.kill9(id);
    insist(cluster, &format!("LOOK.CLUSTER REMOVE {id}"));
    fs::remove_dir_all(cluster.data_dir(id)).expect("is removed");
    let new = cluster.join().expect("starts");
    cluster.await_writable(new, Duration::from_secs(60)).unwrap_or_else(|why| panic!("{why}"));
    insist(cluster, &format!("LOOK.CLUSTER PROMOTE {new}"));
    new
}

fn write(cluster: &Cluster, round: u64, random: &mut Random) {
    let value = |random: &mut Random| (0..4).map(|_| format!("{:016x}", random.next())).collect::<String>();
    let one = |random: &mut Random| match random.below(4) {
        0 => format!("ZADD scores {} member:{}", random.below(1000), random.below(300)),
        1 => format!("HSET hash:{} field:{} {}", random.below(4), random.below(100), value(random)),
        2 => format!("RPUSH list:{} {round}:{}", random.below(4), value(random)),
        _ => format!("SET key:{} {}", random.below(2000), value(random)),
    };
    let all: Vec<_> = (0..400).map(|_| common::words(&one(random))).collect();
    let replies = cluster.node(1).connect().pipeline(&all).expect("writes");
    assert!(replies.iter().all(|reply| !reply.is_error()));
}

#[test]
fn a_node_with_a_flipped_bit_says_so_and_is_replaced() {
    if subject_is_redis() {
        return skip("Redis has no cluster of this kind");
    }
    let mut random = Random::new(setting("LOOK_REPAIR_SEED", 1));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut cluster = Cluster::start(dir.path(), 3).unwrap_or_else(|why| panic!("{why}"));
    let (flips, mut victim, mut outcomes) = (setting("LOOK_REPAIR_FLIPS", KINDS.len() as u64), 3, Vec::new());
    for round in 0..flips {
        write(&cluster, round, &mut random);
        cluster.ask(victim, "SAVE").expect("is saved");
        write(&cluster, round, &mut random);
        insist(&cluster, "LOOK.CLUSTER TRANSFER 1");
        cluster.kill9(victim);
        let (kind, holds) = KINDS[round as usize % KINDS.len()];
        let flipped = flip(&cluster.data_dir(victim), holds, &mut random);
        let outcome = come_back(&mut cluster, victim);
        println!("repair: {kind}: {flipped}: {outcome:?}");
        if outcome != Outcome::Whole {
            let said = cluster.node(victim).output();
            for word in ["damaged", "REMOVE", cluster.data_dir(victim).to_str().expect("text")] {
                assert!(said.contains(word), "{flipped}: no '{word}' in what it says:\n{said}");
            }
            victim = replace(&mut cluster, victim);
        }
        cluster
            .await_equal("DEBUG DIGEST", &cluster.ask(1, "DEBUG DIGEST").expect("answers"), Duration::from_secs(60))
            .unwrap_or_else(|why| panic!("after {flipped}: {why}"));
        outcomes.push(outcome);
    }
    let count = |wanted| outcomes.iter().filter(|outcome| **outcome == wanted).count();
    let (ended, stopped, whole) = (count(Outcome::Ended), count(Outcome::Stopped), count(Outcome::Whole));
    println!(
        "repair: {flips} flips: {ended} nodes ended at their start, {stopped} while they served, {whole} had nothing damaged; all whole again"
    );
    assert!(ended + stopped > 0, "INVALID: no flip did any harm");
}

/// The read that meets the damage says so itself, among others of its pipeline too, and nobody's connection is lost.
#[test]
fn a_read_of_a_damaged_page_is_answered() {
    if subject_is_redis() {
        return skip("Redis has no pages");
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut server = Server::look(dir.path(), &[]).expect("a node");
    let value = |n: usize| format!("{n:0200}");
    let gets: Vec<_> = (0..4000).map(|n| common::words(&format!("GET key:{n}"))).collect();
    let sets: Vec<_> = (0..4000).map(|n| common::words(&format!("SET key:{n} {}", value(n)))).collect();
    server.connect().pipeline(&sets).expect("writes");
    assert_eq!(server.connect().line("SAVE").expect("is saved").text(), "OK");
    server.kill9();
    let mut found = Vec::new();
    files(dir.path(), &mut found);
    found.retain(|path| path.to_string_lossy().contains("/blobs/"));
    for path in found {
        let mut bytes = fs::read(&path).expect("a file");
        // The pages that refer to others are the last
        let leaves = bytes.len() / 2;
        (0..leaves).step_by(2048).for_each(|at| bytes[at] ^= 1);
        fs::write(&path, bytes).expect("flips");
    }
    let server = Server::look(dir.path(), &[]).expect("a node that has met none of it");
    let mut connection = server.connect();
    let mut damaged = 0;
    for (n, batch) in gets.chunks(8).enumerate() {
        let replies = connection.pipeline(batch).unwrap_or_else(|e| panic!("{e}: {}", server.output()));
        for (reply, n) in replies.iter().zip(8 * n..) {
            damaged += usize::from(reply.is_error());
            assert!(reply.text() == value(n) || reply.text().starts_with("DAMAGED "), "key:{n}: {reply:?}");
        }
    }
    assert!(damaged > 0, "INVALID: no flip did any harm");
}
