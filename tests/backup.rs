//! The drill: load, verify, back up, go on writing, back up again, restore, and compare what is there by content.

mod common;

use common::{Connection, Random, Reply, Server};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn look(args: &[&str]) -> Output {
    Command::new(common::server::look_binary()).args(args).output().expect("look runs")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

/// `look verify`: whether it found everything sound, and what it said.
fn verify(path: &Path) -> (bool, String) {
    let output = look(&["verify", &show(path)]);
    (output.status.success(), text(&output))
}

/// Files of the page database in which nothing of ours lies, of which it keeps more than it reads: older lists of its tables, and
/// beside the number of the newest list a checksum that it does not look at. A flip there changes no page, and verify reads every page.
fn holds_nothing(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    path.components().any(|part| part.as_os_str() == "keyspaces") && (name == "current" || name.starts_with('v'))
}

/// Every file below a directory with its bytes.
fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).expect("a directory").flatten() {
            match entry.path().is_dir() {
                true => open.push(entry.path()),
                false => drop(found.insert(entry.path(), fs::read(entry.path()).expect("a file"))),
            }
        }
    }
    found
}

/// Keys of every type, from `from` on, some with a deadline far away.
fn load(connection: &mut Connection, from: u64, count: u64) {
    for i in from..from + count {
        let lines = [
            format!("SET secret-key-{i} topsecretvalue-{i}-{}", "x".repeat((i % 50) as usize)),
            format!("HSET hash-{} field-{i} topsecretvalue-{i}", i % 7),
            format!("ZADD zset-{} {i} topsecretvalue-{i}", i % 5),
            format!("RPUSH list-{} topsecretvalue-{i}", i % 3),
            format!("SADD set-{} topsecretvalue-{i}", i % 4),
            format!("EXPIRE secret-key-{i} {}", if i % 3 == 0 { 100_000 + i } else { 0xfff_ffff }),
        ];
        let requests: Vec<_> = lines.iter().map(|line| common::words(line)).collect();
        for reply in connection.pipeline(&requests).expect("replies") {
            assert!(!reply.is_error(), "{reply:?}");
        }
    }
}

/// A stopped node's directory with a checkpoint and log behind it.
fn stopped_directory(dir: &Path) -> PathBuf {
    let mut server = Server::look(dir, &[]).expect("a start");
    let mut connection = server.connect();
    load(&mut connection, 0, 300);
    assert!(!connection.line("SAVE").expect("an answer").is_error());
    load(&mut connection, 300, 50);
    server.kill9();
    dir.join("data")
}

#[test]
fn verify_finds_a_sound_directory_sound_and_changes_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = stopped_directory(dir.path());
    let before = files(&data);
    let (sound, said) = verify(&data);
    assert!(sound, "{said}");
    assert!(said.contains("1 checkpoints") && said.contains("OK"), "{said}");
    assert!(files(&data) == before, "verify changed the directory");
    let server = Server::look(dir.path(), &[]).expect("a start");
    let (sound, said) = verify(&data);
    assert!(!sound && said.contains("in use"), "a running node's directory is refused: {said}");
    drop(server);
}

/// Flips bits in every file below `root`, one at a time: each must be found, and what is said must say what to do.
fn flip_and_verify(what: &str, root: &Path) {
    let mut random = Random::new(common::setting("LOOK_FLIP_SEED", 1));
    let (mut flips, mut missed) = (0, Vec::new());
    for (path, good) in files(root).into_iter().filter(|(path, _)| !holds_nothing(path)) {
        let end = good.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        for _ in 0..common::setting("LOOK_FLIPS", 4).min(end as u64) {
            let at = random.between(0, end as i64 - 1) as usize;
            let mut bad = good.clone();
            bad[at] ^= 1 << random.between(0, 7);
            fs::write(&path, &bad).expect("a flip");
            let (sound, said) = verify(root);
            flips += 1;
            if sound {
                missed.push(format!("{} at {at} of {end}", path.display()));
            } else {
                assert!(said.contains("next: ") || said.starts_with("look: "), "it does not say what to do: {said}");
            }
        }
        fs::write(&path, &good).expect("the file as it was");
    }
    eprintln!("verify: {flips} flips in {what}, {} missed", missed.len());
    assert!(missed.is_empty(), "of {flips} flips: {missed:#?}");
    assert!(verify(root).0);
}

#[test]
fn verify_finds_every_flipped_bit() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    flip_and_verify("a node's directory", &stopped_directory(dir.path()));
}

#[test]
fn verify_finds_every_flipped_bit_of_a_backup() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::look(dir.path(), &[]).expect("a start");
    let to = dir.path().join("backups");
    for run in 0..2 {
        load(&mut server.connect(), run * 100, 100);
        backup(&server, &to).expect("a backup");
    }
    drop(server);
    flip_and_verify("a backup", &to);
}

/// `look backup` of a running node: what it said.
fn backup(server: &Server, to: &Path) -> Result<String, String> {
    let output = look(&["backup", "--to", &show(to), "-p", &server.port.to_string()]);
    if output.status.success() { Ok(text(&output)) } else { Err(text(&output)) }
}

fn restore(from: &Path, to: &Path, more: &[&str]) -> Result<String, String> {
    let output = look(&[&["restore", "--from", &show(from), "--dir", &show(&to.join("data"))], more].concat());
    if output.status.success() { Ok(text(&output)) } else { Err(text(&output)) }
}

/// Epoch and content digest of a server on which nobody writes.
fn state(connection: &mut Connection) -> (i64, String) {
    let ask = |connection: &mut Connection| connection.line("LOOK.EPOCH").expect("an answer").int();
    // A node that has just started stands for election first
    let begin = std::time::Instant::now();
    let epoch = loop {
        match ask(connection) {
            Some(epoch) => break epoch,
            None => assert!(begin.elapsed().as_secs() < 20, "no leader"),
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    };
    (epoch, connection.line("DEBUG DIGEST").expect("an answer").text())
}

/// Starts a restored directory: its epoch and content digest.
fn restored(dir: &Path) -> (i64, String) {
    let server = Server::look(dir, &[]).expect("a restored directory starts");
    state(&mut server.connect())
}

#[test]
fn a_backup_restores_every_epoch_that_it_covers() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let to = dir.path().join("backup");
    let server = Server::look(dir.path(), &[]).expect("a start");
    let mut connection = server.connect();
    let bulk: Vec<_> = (0..5000).map(|i| common::words(&format!("SET bulk-{i} {}", "b".repeat(400)))).collect();
    connection.pipeline(&bulk).expect("replies");
    load(&mut connection, 0, 100);
    let first = state(&mut connection);
    let said = backup(&server, &to).expect("a full backup");
    assert!(said.contains("full") && said.contains(&format!("epoch {}", first.0)), "{said}");
    let full_bytes = fs::metadata(to.join("run-1")).expect("the run").len();

    // States between two backups, with a checkpoint of the node's own among them
    let mut states = vec![first];
    for round in 0..4 {
        load(&mut connection, 100 + round * 10, 10);
        connection.line(&format!("DEL secret-key-{round} hash-{round}")).expect("an answer");
        states.push(state(&mut connection));
        if round == 1 {
            connection.line("SAVE").expect("a checkpoint");
        }
    }
    let said = backup(&server, &to).expect("an incremental backup");
    assert!(said.contains("incremental") && said.contains("every epoch since the run before"), "{said}");
    let more_bytes = fs::metadata(to.join("run-2")).expect("the run").len();
    assert!(more_bytes < full_bytes, "{more_bytes} bytes after {full_bytes}: not incremental");

    // While others write
    let stop = std::sync::atomic::AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let (mut connection, mut n) = (server.connect(), 0);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                n = connection.line("INCR written").expect("a write").int().expect("a number");
            }
            n
        });
        let said = backup(&server, &to).expect("an incremental backup");
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(said.contains("incremental") && said.contains("every epoch since the run before"), "{said}");
        writer.join().expect("the writer ends")
    });
    assert!(written > 0, "nothing was written meanwhile");
    let (sound, said) = verify(&to);
    assert!(sound && said.contains("3 runs"), "{said}");

    for (i, (epoch, digest)) in states.iter().enumerate() {
        let fresh = dir.path().join(format!("restored-{i}"));
        fs::create_dir(&fresh).expect("a directory");
        restore(&to, &fresh, &["--at", &epoch.to_string()]).expect("a restore");
        assert_eq!(restored(&fresh), (*epoch, digest.clone()), "epoch {epoch}");
        assert!(verify(&fresh.join("data")).0);
    }

    // The newest, which goes on as a cluster of its own: writes, past reads, restarts, backups
    let fresh = dir.path().join("restored");
    fs::create_dir(&fresh).expect("a directory");
    let said = restore(&to, &fresh, &[]).expect("a restore");
    let mut server = Server::look(&fresh, &[]).expect("a start");
    let mut connection = server.connect();
    let (epoch, before) = state(&mut connection);
    assert!(said.contains(&format!("epoch {epoch}")), "{said}");
    let counted = connection.line("GET written").expect("an answer");
    assert_eq!(connection.line("SET written 0").expect("a write"), Reply::Simple(b"OK".to_vec()));
    assert_eq!(connection.line(&format!("LOOK.AT {epoch} GET written")).expect("a past read"), counted);
    let early = connection.line(&format!("LOOK.AT {} GET written", epoch - 1)).expect("an answer");
    assert!(early.is_error(), "the old cluster's log is not there: {early:?}");
    let after = state(&mut connection);
    assert_ne!(after.1, before);
    server.kill9();
    assert_eq!(restored(&fresh), after);
}

#[test]
fn a_restore_refuses_what_it_cannot_do_right() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let to = dir.path().join("backup");
    let server = Server::look(dir.path(), &[]).expect("a start");
    let mut connection = server.connect();
    load(&mut connection, 0, 100);
    backup(&server, &to).expect("a full backup");
    let first = state(&mut connection);
    load(&mut connection, 100, 100);
    backup(&server, &to).expect("an incremental backup");

    let why = restore(&to, dir.path(), &[]).expect_err("a directory in use");
    assert!(why.contains("not empty"), "{why}");
    let fresh = dir.path().join("fresh");
    fs::create_dir(&fresh).expect("a directory");
    let why = restore(&to, &fresh, &["--at", "1000000"]).expect_err("an epoch to come");
    assert!(why.contains("epoch 1000000 is in no backup") && why.contains("epochs"), "{why}");
    let why = backup(&server, dir.path()).expect_err("a directory of others");
    assert!(why.contains("neither empty nor a backup"), "{why}");

    // Every byte counts: verify finds the flip, restore refuses and leaves nothing behind
    let mut random = Random::new(common::setting("LOOK_FLIP_SEED", 1));
    for (path, good) in files(&to).into_iter().filter(|(_, bytes)| !bytes.is_empty()) {
        for _ in 0..common::setting("LOOK_FLIPS", 4) {
            let mut bad = good.clone();
            bad[random.between(0, good.len() as i64 - 1) as usize] ^= 1 << random.between(0, 7);
            fs::write(&path, &bad).expect("a flip");
            let (sound, said) = verify(&to);
            assert!(!sound, "a flip in {} is not found: {said}", path.display());
            let why = restore(&to, &fresh, &[]).expect_err("a damaged backup");
            assert!(why.contains("damaged") || why.contains("newer"), "{why}");
            assert!(!fresh.join("data").exists());
        }
        fs::write(&path, &good[..good.len() - 1]).expect("a file cut short");
        assert!(!verify(&to).0 && restore(&to, &fresh, &[]).is_err());
        fs::write(&path, &good).expect("the file as it was");
    }

    // A backup that was interrupted leaves the runs before it
    fs::write(to.join("run-3"), b"half a run").expect("a leftover");
    fs::write(to.join("BACKUP.new"), b"half a manifest").expect("a leftover");
    assert!(verify(&to).0);
    restore(&to, &fresh, &["--at", &first.0.to_string()]).expect("the first run is whole");
    assert_eq!(restored(&fresh), first);
    let said = backup(&server, &to).expect("the next backup");
    assert!(said.contains("run 3") && verify(&to).0, "{said}");
}
