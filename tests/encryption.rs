//! Encryption at rest: nothing of what clients wrote is to be found on disk without the key, and nothing is lost by it.

mod common;

use common::server::{free_port, look_binary};
use common::{Connection, Random, Server};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const SECRETS: [&str; 2] = ["topsecretvalue", "secret-name"];

/// A key file that only its owner reads.
fn key_file(dir: &Path, name: &str, keys: &[(u32, char)]) -> String {
    let path = dir.join(name);
    let lines: String = keys.iter().map(|(id, digit)| format!("{id} {}\n", digit.to_string().repeat(64))).collect();
    fs::write(&path, lines).expect("a key file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
    path.display().to_string()
}

fn start(dir: &Path, keys: &str) -> Server {
    Server::look(dir, &["--encryption-key-file".into(), keys.into()]).expect("a start")
}

/// Short strings, long ones, collections and keys that all hold a secret.
fn load(connection: &mut Connection, from: u64, count: u64) {
    let line = |i: u64| {
        let long = if i.is_multiple_of(20) { "topsecretvalue".repeat(800) } else { String::new() };
        [
            format!("SET secret-name-{i} topsecretvalue-{i}{long}"),
            format!("HSET secret-name-hash topsecretvalue-{i} topsecretvalue"),
            format!("ZADD secret-name-zset {i} topsecretvalue-{i}"),
            format!("RPUSH secret-name-list topsecretvalue-{i}"),
        ]
    };
    let requests: Vec<_> = (from..from + count).flat_map(line).map(|line| common::words(&line)).collect();
    for reply in connection.pipeline(&requests).expect("replies") {
        assert!(!reply.is_error(), "{reply:?}");
    }
}

/// Of everything acknowledged: DEBUG tells what is applied, and after a start a read waits for that.
fn digest(server: &Server) -> String {
    let mut client = server.connect();
    client.line("DBSIZE").expect("an answer");
    client.line("DEBUG DIGEST").expect("an answer").text()
}

/// All files below a directory.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).expect("a directory").flatten() {
        match entry.path().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

/// The files in which any secret can be read. By grep, which is through with preallocated segments in no time.
fn told_by(root: &Path) -> Vec<PathBuf> {
    let mut grep = Command::new("grep");
    grep.args(["-r", "-l", "-a", "-F"]).args(SECRETS.iter().flat_map(|secret| ["-e", secret])).arg(root);
    let output = grep.output().expect("grep runs");
    assert!(output.status.code().is_some_and(|code| code < 2), "{output:?}");
    String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from).collect()
}

fn contents(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    files(root).into_iter().map(|path| (path.clone(), fs::read(path).expect("a file"))).collect()
}

/// Runs `look` and tells whether it was content, and what it said.
fn look(args: &[&str]) -> (bool, String) {
    let output = Command::new(look_binary()).args(args).output().expect("look runs");
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (output.status.success(), said.concat())
}

/// A start that must fail and change nothing; what it said.
fn refused(dir: &Path, more: &[&str]) -> String {
    let before = contents(&dir.join("data"));
    let (port, data) = (free_port().to_string(), dir.join("data").display().to_string());
    let (ok, said) = look(&[&["serve", "--port", &port, "--dir", &data], more].concat());
    assert!(!ok, "it started: {said}");
    assert!(contents(&dir.join("data")) == before, "it changed something: {said}");
    said
}

#[test]
fn nothing_on_disk_tells_what_was_written_and_nothing_is_lost() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let keys = key_file(dir.path(), "keys", &[(1, 'a')]);
    let data = dir.path().join("data");
    let mut expected = String::new();
    for life in 0..3 {
        let mut server = start(dir.path(), &keys);
        if life > 0 {
            assert_eq!(digest(&server), expected, "after kill -9, life {life}");
        }
        let mut connection = server.connect();
        load(&mut connection, life * 400, 200);
        assert!(!connection.line("SAVE").expect("an answer").is_error());
        load(&mut connection, life * 400 + 200, 200);
        let epoch = connection.line("LOOK.EPOCH").expect("an answer").int().expect("a number");
        let past = connection.line(&format!("LOOK.AT {} LLEN secret-name-list", epoch - 100)).expect("a past read");
        assert!(!past.is_error(), "{past:?}");
        expected = digest(&server);
        if life == 1 {
            let to = dir.path().join("backup").display().to_string();
            let (ok, said) = look(&["backup", "--to", &to, "-p", &server.port.to_string()]);
            assert!(ok, "{said}");
        }
        server.kill9();
        assert_eq!(told_by(&data), Vec::<PathBuf>::new(), "life {life}");
    }
    assert!(files(&data).len() > 8, "log, pages and their database are there");

    // The search itself: without a key it finds them
    let plain = tempfile::tempdir().expect("a temporary directory");
    let mut server = Server::look(plain.path(), &[]).expect("a start");
    load(&mut server.connect(), 0, 200);
    server.connect().line("SAVE").expect("an answer");
    server.kill9();
    let told = told_by(plain.path());
    let in_part = |part: &str| told.iter().any(|path| path.components().any(|c| c.as_os_str() == part));
    assert!(in_part("log") && in_part("pages"), "{told:?}");

    // The backup is as closed as the directory, and opens with the key
    let backup = dir.path().join("backup");
    assert_eq!(told_by(&backup), Vec::<PathBuf>::new());
    let (from, to) = (backup.display().to_string(), dir.path().join("again/data").display().to_string());
    fs::create_dir(dir.path().join("again")).expect("a directory");
    let (ok, said) = look(&["restore", "--from", &from, "--dir", &to]);
    assert!(!ok && said.contains("key 1") && said.contains("--encryption-key-file"), "{said}");
    assert!(look(&["verify", &from]).0 && look(&["verify", &from, "--encryption-key-file", &keys]).0);
    let newer = key_file(dir.path(), "newer", &[(2, 'b'), (1, 'a')]);
    let (ok, said) = look(&["restore", "--from", &from, "--dir", &to, "--encryption-key-file", &newer]);
    assert!(ok, "{said}");
    // Under the newest key alone: that is how an old one is retired
    let only = key_file(dir.path(), "only", &[(2, 'b')]);
    let server = start(&dir.path().join("again"), &only);
    let length = server.connect().line("LLEN secret-name-list").expect("an answer").int();
    assert_eq!(length, Some(800));
}

#[test]
fn a_wrong_or_missing_key_is_refused_before_anything_is_touched() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let keys = key_file(dir.path(), "keys", &[(1, 'a')]);
    let mut server = start(dir.path(), &keys);
    load(&mut server.connect(), 0, 50);
    let expected = digest(&server);
    server.kill9();
    let said = refused(dir.path(), &[]);
    assert!(said.contains("encrypted with key 1") && said.contains("--encryption-key-file"), "{said}");
    let wrong = key_file(dir.path(), "wrong", &[(1, 'b')]);
    let said = refused(dir.path(), &["--encryption-key-file", &wrong]);
    assert!(said.contains("is not the key"), "{said}");
    let other = key_file(dir.path(), "other", &[(2, 'a')]);
    let said = refused(dir.path(), &["--encryption-key-file", &other]);
    assert!(said.contains("key 1, which the key file does not hold"), "{said}");
    let open = key_file(dir.path(), "open", &[(1, 'a')]);
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).expect("its mode");
    let said = refused(dir.path(), &["--encryption-key-file", &open]);
    assert!(said.contains("chmod 600"), "{said}");

    // Rotation: the new key is used from now on, the old one still reads
    let both = key_file(dir.path(), "both", &[(2, 'c'), (1, 'a')]);
    let mut server = start(dir.path(), &both);
    assert_eq!(digest(&server), expected);
    load(&mut server.connect(), 50, 50);
    server.connect().line("SAVE").expect("an answer");
    let expected = digest(&server);
    server.kill9();
    let said = refused(dir.path(), &["--encryption-key-file", &keys]);
    assert!(said.contains("key 2"), "{said}");
    assert_eq!(digest(&start(dir.path(), &both)), expected);

    // A plain directory does not become half encrypted
    let plain = tempfile::tempdir().expect("a temporary directory");
    drop(Server::look(plain.path(), &[]).expect("a start"));
    let said = refused(plain.path(), &["--encryption-key-file", &keys]);
    assert!(said.contains("is not encrypted"), "{said}");
}

#[test]
fn every_flipped_bit_of_an_encrypted_directory_is_found() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let keys = key_file(dir.path(), "keys", &[(1, 'a')]);
    let data = dir.path().join("data");
    let mut server = start(dir.path(), &keys);
    load(&mut server.connect(), 0, 100);
    server.connect().line("SAVE").expect("an answer");
    load(&mut server.connect(), 100, 50);
    server.kill9();
    let verify = || look(&["verify", &data.display().to_string(), "--encryption-key-file", &keys]);
    let (sound, said) = verify();
    assert!(sound, "{said}");
    let mut random = Random::new(common::setting("LOOK_FLIP_SEED", 1));
    // The page database's own files are the business of tests/backup.rs; a spare segment holds nothing
    let ours = |path: &PathBuf| !["keyspaces", "spare"].iter().any(|part| path.display().to_string().contains(part));
    let mut flips = 0;
    for path in files(&data).into_iter().filter(ours) {
        let good = fs::read(&path).expect("a file");
        let end = good.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        for _ in 0..common::setting("LOOK_FLIPS", 2).min(end as u64) {
            let mut bad = good.clone();
            bad[random.between(0, end as i64 - 1) as usize] ^= 1 << random.between(0, 7);
            fs::write(&path, &bad).expect("a flip");
            assert!(!verify().0, "a flip in {} is not found", path.display());
            flips += 1;
        }
        fs::write(&path, &good).expect("the file as it was");
    }
    eprintln!("verify: {flips} flips in an encrypted directory, none missed");
    assert!(verify().0);
}
