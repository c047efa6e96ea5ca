//! The drill: load, verify, back up, go on writing, back up again, restore, and compare what is there by content.

mod common;

use common::{Connection, Random, Server};
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

#[test]
fn verify_finds_every_flipped_bit() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = stopped_directory(dir.path());
    let mut random = Random::new(common::setting("LOOK_FLIP_SEED", 1));
    let (mut flips, mut missed) = (0, Vec::new());
    for (path, good) in files(&data).into_iter().filter(|(path, _)| !holds_nothing(path)) {
        let end = good.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        for _ in 0..common::setting("LOOK_FLIPS", 4).min(end as u64) {
            let at = random.between(0, end as i64 - 1) as usize;
            let mut bad = good.clone();
            bad[at] ^= 1 << random.between(0, 7);
            fs::write(&path, &bad).expect("a flip");
            let (sound, said) = verify(&data);
            flips += 1;
            if sound {
                missed.push(format!("{} at {at} of {end}", path.display()));
            } else {
                assert!(said.contains("next: ") || said.starts_with("look: "), "it does not say what to do: {said}");
            }
        }
        fs::write(&path, &good).expect("the file as it was");
    }
    eprintln!("verify: {flips} flips, {} missed", missed.len());
    assert!(missed.is_empty(), "of {flips} flips: {missed:#?}");
    assert!(verify(&data).0);
}
