//! A node that is so late that the log has let go of what it lacks gets a checkpoint; a broken link does not begin it again.
//!
//! `LOOK_TRANSFER_MB=n` for a larger one.

mod common;

use common::server::{skip, subject_is_redis};
use common::{Cluster, Connection, PATIENCE, setting, wait};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// The way to one node's peer port: counts what goes there, and breaks when it is told to.
struct Way {
    port: u16,
    bytes: Arc<AtomicU64>,
    /// All connections break once so many bytes have passed; 0: never.
    break_at: Arc<AtomicU64>,
    broke: Arc<AtomicBool>,
}

impl Way {
    fn to(port: u16) -> Way {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let way = Way {
            port: listener.local_addr().expect("bound").port(),
            bytes: Arc::default(),
            break_at: Arc::default(),
            broke: Arc::default(),
        };
        let (bytes, break_at, broke) = (way.bytes.clone(), way.break_at.clone(), way.broke.clone());
        std::thread::spawn(move || {
            for from in listener.incoming().flatten() {
                let Ok(to) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let _ = (from.set_nodelay(true), to.set_nodelay(true));
                let (bytes, break_at, broke) = (bytes.clone(), break_at.clone(), broke.clone());
                let (back_from, back_to) = (to.try_clone().expect("clones"), from.try_clone().expect("clones"));
                std::thread::spawn(move || carry(back_from, back_to, |_| true));
                std::thread::spawn(move || {
                    carry(from, to, |n| {
                        let passed = bytes.fetch_add(n, Ordering::SeqCst) + n;
                        let limit = break_at.load(Ordering::SeqCst);
                        let breaks = limit > 0 && passed > limit && !broke.swap(true, Ordering::SeqCst);
                        !breaks
                    });
                });
            }
        });
        way
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, mut goes_on: impl FnMut(u64) -> bool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n) = from.read(&mut buffer) {
        if n == 0 || !goes_on(n as u64) || to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = to.shutdown(std::net::Shutdown::Both);
}

/// Writes `mb` megabytes of values that do not compress, a megabyte an entry.
fn fill(cluster: &Cluster, id: usize, mb: u64) {
    let mut random = common::Random::new(7);
    let mut connection = cluster.node(id).connect();
    for n in 0..mb {
        let set = |i: u64| {
            let value: Vec<u8> = (0..1024).flat_map(|_| random.next().to_le_bytes()).collect();
            vec![b"SET".to_vec(), format!("key:{n}:{i}").into_bytes(), value]
        };
        let requests: Vec<_> = (0..128).map(set).collect();
        let replies = connection.pipeline(&requests).expect("writes");
        assert!(replies.iter().all(|r| !r.is_error()));
    }
}

/// Sets `keys` keys of some hundred bytes, beginning with number `from`; the values are of `version`.
fn set_keys(cluster: &Cluster, id: usize, from: u64, keys: u64, version: u64) {
    let mut connection = cluster.node(id).connect();
    let set = |i: u64| {
        let mut random = common::Random::new(i ^ version << 32);
        let value: Vec<u8> = (0..12).flat_map(|_| random.next().to_le_bytes()).collect();
        vec![b"SET".to_vec(), format!("small:{i}").into_bytes(), value]
    };
    for begin in (from..from + keys).step_by(500) {
        let requests: Vec<_> = (begin..(begin + 500).min(from + keys)).map(set).collect();
        let replies = connection.pipeline(&requests).expect("writes");
        assert!(replies.iter().all(|r| !r.is_error()));
    }
}

fn await_equal_states(cluster: &Cluster) {
    let digest = cluster.ask(1, "DEBUG DIGEST").expect("answers");
    cluster.await_equal("DEBUG DIGEST", &digest, PATIENCE).unwrap_or_else(|why| panic!("{why}"));
}

/// The number at the end of the newest line of a node's output that holds `words`.
fn number_after(output: &str, words: &str) -> Option<u64> {
    let line = output.lines().rev().find(|l| l.contains(words))?;
    line.split_ascii_whitespace().next_back()?.parse().ok()
}

/// The number before `words` in the newest line of a node's output that holds them.
fn number_before(output: &str, words: &str) -> Option<u64> {
    let (before, _) = output.rsplit_once(words)?;
    before.split_ascii_whitespace().next_back()?.parse().ok()
}

/// What a node's checkpoints wrote, by its output.
fn bytes_written(output: &str) -> u64 {
    let number = |line: &str| line.split_once(" pages, ")?.1.split_once(" bytes written")?.0.parse::<u64>().ok();
    output.lines().filter_map(number).sum()
}

/// Three nodes of which node 1 leads and node 3 is down, so late that only a checkpoint helps.
fn late_node(dir: &Path, mb: u64, way: impl Fn(usize, u16) -> Option<u16>) -> Cluster {
    let flags = vec![["--set", "log-keep-entries=4"].map(String::from).to_vec(); 3];
    let mut cluster = Cluster::start_reached(dir, flags, way).unwrap_or_else(|why| panic!("{why}"));
    let ask = |cluster: &Cluster, id, line: &str| drop(cluster.ask(id, line).unwrap_or_else(|why| panic!("{why}")));
    ask(&cluster, 1, "LOOK.CLUSTER TRANSFER 1");
    let lacks = cluster.node(1).info("log_last");
    cluster.kill9(3);
    fill(&cluster, 1, mb);
    ask(&cluster, 1, "SAVE");
    ask(&cluster, 2, "SAVE");
    // Entries behind the checkpoint, so that the log lets go of those before it
    (0..20).for_each(|n| ask(&cluster, 1, &format!("SET more {n}")));
    ask(&cluster, 1, "SAVE");
    wait("the log lets go", || cluster.node(1).info("log_first") > lacks);
    cluster
}

#[test]
fn a_late_node_gets_a_checkpoint_and_a_broken_link_does_not_begin_it_again() {
    if subject_is_redis() {
        return skip("Redis has no cluster of this kind");
    }
    let mb = setting("LOOK_TRANSFER_MB", 24);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let way = OnceLock::new();
    let mut cluster = late_node(dir.path(), mb, |id, port| (id == 3).then(|| way.get_or_init(|| Way::to(port)).port));
    let way = way.get().expect("the third node's");

    let before = way.bytes.load(Ordering::SeqCst);
    way.break_at.store(before + (mb << 20) / 2, Ordering::SeqCst);
    let begin = Instant::now();
    cluster.launch(3).expect("starts");
    cluster.await_writable(3, PATIENCE).unwrap_or_else(|why| panic!("{why}"));
    let took = begin.elapsed();
    let sent = way.bytes.load(Ordering::SeqCst) - before;
    let (sender, receiver) = (cluster.node(1).output(), cluster.node(3).output());
    assert!(way.broke.load(Ordering::SeqCst), "INVALID: the link did not break\n{sender}");
    let there = number_after(&sender, "of which it has");
    eprintln!(
        "transfer: {mb} MiB of values; {sent} bytes went to the late node in {took:?}, the link broken once; it went on from page {there:?}"
    );
    assert!(there.is_some_and(|pages| pages > 0), "it began again:\n{sender}");
    assert!(receiver.contains("goes on where it was broken off"), "{receiver}");
    assert!(receiver.contains("complete,") && sender.contains("installed,"), "{sender}\n{receiver}");
    // Beside the pages: what was in flight or not yet written when the link broke, frames' heads, entries behind the checkpoint
    let pages = bytes_written(&sender);
    assert!(sent < pages + pages / 50 + (3 << 20), "{sent} bytes for {pages} bytes of pages: sent twice");
    await_equal_states(&cluster);
}

/// Each node packs its pages at other moments; still a node that comes back is sent little more than what changed.
#[test]
fn a_node_that_comes_back_gets_only_what_it_lacks() {
    if subject_is_redis() {
        return skip("Redis has no cluster of this kind");
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let flags = vec![["--set", "log-keep-entries=4"].map(String::from).to_vec(); 3];
    let way = OnceLock::new();
    let mut cluster =
        Cluster::start_reached(dir.path(), flags, |id, port| (id == 3).then(|| way.get_or_init(|| Way::to(port)).port))
            .unwrap_or_else(|why| panic!("{why}"));
    let way = way.get().expect("the third node's");
    let ask = |cluster: &Cluster, id, line: &str| drop(cluster.ask(id, line).unwrap_or_else(|why| panic!("{why}")));
    ask(&cluster, 1, "LOOK.CLUSTER TRANSFER 1");
    let keys = 4000 * setting("LOOK_TRANSFER_MB", 8);
    for part in 0..6 {
        set_keys(&cluster, 1, part * keys / 6, keys / 6, 0);
        ask(&cluster, 1 + part as usize % 3, "SAVE");
    }
    fill(&cluster, 1, 2);
    (1..=3).for_each(|id| ask(&cluster, id, "SAVE"));
    await_equal_states(&cluster);
    let lacks = cluster.node(1).info("log_last");
    cluster.kill9(3);
    // A key of a thousand, and then entries enough for the log to let go of those before the checkpoint
    set_keys(&cluster, 1, 0, keys / 1000, 1);
    for id in [1, 2, 1] {
        (0..20).for_each(|n| ask(&cluster, 1, &format!("SET more {n}")));
        ask(&cluster, id, "SAVE");
    }
    wait("the log lets go", || cluster.node(1).info("log_first") > lacks);
    let before = way.bytes.load(Ordering::SeqCst);
    cluster.launch(3).expect("starts");
    cluster.await_writable(3, PATIENCE).unwrap_or_else(|why| panic!("{why}"));
    await_equal_states(&cluster);
    let bytes = way.bytes.load(Ordering::SeqCst) - before;
    let sender = cluster.node(1).output();
    assert!(sender.contains("installed,"), "INVALID: the log still reached it\n{sender}");
    let [all, sent, spared] = ["pages, of which", "pages sent", "bytes of others"]
        .map(|words| number_before(&sender, words).expect("is said"));
    eprintln!("transfer: {bytes} bytes went to the node that came back: {sent} of {all} pages; it had {spared} bytes");
    assert!(sent * 3 < all && bytes * 3 < spared, "{sender}");
}

/// Writes on one connection until it is told to stop.
fn write(address: SocketAddr, stop: &AtomicBool, done: &AtomicU64) {
    let mut connection = Connection::open(address).expect("connects");
    let requests = vec![common::words("INCR counter"); 16];
    while !stop.load(Ordering::SeqCst) {
        let replies = connection.pipeline(&requests).expect("writes");
        assert!(replies.iter().all(|r| !r.is_error()), "{replies:?}");
        done.fetch_add(16, Ordering::SeqCst);
    }
}

/// The figure is printed; what is asserted leaves room for the noise of a busy machine.
#[test]
fn a_transfer_leaves_room_for_writes() {
    if subject_is_redis() {
        return skip("Redis has no cluster of this kind");
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut cluster = late_node(dir.path(), setting("LOOK_TRANSFER_MB", 8), |_, _| None);
    let (stop, done, address) = (&AtomicBool::new(false), &AtomicU64::new(0), cluster.node(1).address());
    let rate = |until: &dyn Fn(Duration) -> bool| {
        let (begin, before) = (Instant::now(), done.load(Ordering::SeqCst));
        while !until(begin.elapsed()) {
            std::thread::sleep(Duration::from_millis(20));
        }
        ((done.load(Ordering::SeqCst) - before) as f64 / begin.elapsed().as_secs_f64(), begin.elapsed())
    };
    std::thread::scope(|scope| {
        (0..4).for_each(|_| drop(scope.spawn(move || write(address, stop, done))));
        rate(&|t| t > Duration::from_millis(500));
        let (alone, _) = rate(&|t| t > Duration::from_secs(3));
        cluster.launch(3).expect("starts");
        let says = |words: &str| cluster.node(1).output().contains(words);
        rate(&|t| says("checkpoint for node 3:") || t > Duration::from_secs(10));
        let (during, took) = rate(&|t| says("installed,") || t > Duration::from_secs(60));
        let whole = says("installed,");
        stop.store(true, Ordering::SeqCst);
        assert!(whole, "not finished in {took:?}:\n{}", cluster.output());
        let left = during / alone;
        eprintln!(
            "transfer: {alone:.0} writes/s alone, {during:.0} during {took:.1?} of transfer: {:.0} %",
            left * 100.0
        );
        assert!(left > 0.6, "writes fell from {alone:.0} to {during:.0} a second");
    });
    let counter = cluster.ask(1, "GET counter").expect("reads");
    cluster.await_equal("GET counter", &counter, Duration::from_secs(30)).unwrap_or_else(|why| panic!("{why}"));
}
