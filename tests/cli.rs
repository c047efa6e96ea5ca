//! The binary as an operator meets it: flags, signals, and bad input that gets a clear error and loses nothing.

mod common;

use common::server::{free_port, look_binary, skip, subject_is_redis};
use common::{Reply, Server};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

fn look(args: &[&str]) -> Output {
    // A start that should fail must not hang the test if it succeeds instead.
    let mut command = Command::new("timeout");
    command.arg("20").arg(look_binary()).args(args).output().expect("the binary runs")
}

/// Refused: a failure exit, a message that names the culprit, and no panic.
fn assert_refused(args: &[&str], names: &[&str]) {
    let output = look(args);
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let code = output.status.code();
    assert!(code.is_some_and(|c| c != 0 && c != 124 && c != 101), "{args:?} gave {code:?}:\n{text}");
    assert!(!text.contains("panicked"), "{args:?} panicked:\n{text}");
    for name in names {
        assert!(text.contains(name), "{args:?}: the message does not name {name:?}:\n{text}");
    }
}

#[test]
fn wrong_flags_are_refused_by_name() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().display().to_string();
    assert_refused(&["--nosuch"], &["--nosuch"]);
    assert_refused(&["--port", "70000", "--dir", &data], &["70000"]);
    assert_refused(&["--port", "x", "--dir", &data], &["x"]);
    assert_refused(&["--bind", "nowhere.", "--dir", &data], &["nowhere."]);
    assert_refused(&["--initial-cluster", "1=127.0.0.1", "--dir", &data], &["127.0.0.1"]);
    assert_refused(&["--initial-cluster", "one=127.0.0.1:1", "--dir", &data], &["one"]);
    assert_refused(&["--config", "/nosuch/look.conf"], &["/nosuch/look.conf"]);
}

#[test]
fn help_names_every_flag() {
    let output = look(&["--help"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success());
    for flag in ["--bind", "--port", "--dir", "--node-id", "--peer-addr", "--initial-cluster", "--config"] {
        assert!(text.contains(flag), "--help does not name {flag}:\n{text}");
    }
}

#[test]
fn a_port_in_use_is_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port().to_string();
    assert_refused(&["--port", &port, "--dir", &dir.path().join("data").display().to_string()], &[&port]);
}

#[test]
fn a_data_directory_that_is_not_ours_is_left_alone() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("file");
    std::fs::write(&file, "not a directory").expect("a file");
    let port = free_port().to_string();
    assert_refused(&["--port", &port, "--dir", &file.display().to_string()], &["file"]);
    assert_eq!(std::fs::read(&file).expect("still there"), b"not a directory");

    let foreign = dir.path().join("foreign");
    std::fs::create_dir(&foreign).expect("a directory");
    std::fs::write(foreign.join("thesis.txt"), "ten years of work").expect("a file");
    assert_refused(&["--port", &port, "--dir", &foreign.display().to_string()], &["foreign"]);
    let left: Vec<_> = std::fs::read_dir(&foreign).expect("a listing").flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["thesis.txt"]);
}

#[test]
fn a_second_server_on_the_same_data_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let first = Server::look(dir.path(), &[]).expect("the first starts");
    let data = dir.path().join("data").display().to_string();
    assert_refused(&["--port", &free_port().to_string(), "--dir", &data], &["data"]);
    assert_eq!(first.connect().line("PING").expect("the first still serves"), Reply::Simple(b"PONG".to_vec()));
}

#[test]
fn the_data_of_another_node_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut first = Server::look(dir.path(), &["--node-id".into(), "1".into()]).expect("node 1 starts");
    first.connect().line("SET k v").expect("a write");
    first.kill9();
    let data = dir.path().join("data").display().to_string();
    assert_refused(&["--port", &free_port().to_string(), "--dir", &data, "--node-id", "2"], &["1", "2"]);
    let again = Server::look(dir.path(), &["--node-id".into(), "1".into()]).expect("node 1 starts again");
    assert_eq!(again.connect().line("GET k").expect("a read"), Reply::Bulk(b"v".to_vec()));
}

fn assert_stops(stop: impl Fn(&Server), what: &str) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut server = Server::subject(dir.path());
    server.connect().line("SET k v").expect("a write");
    stop(&server);
    let status = server.await_exit(Duration::from_secs(20)).unwrap_or_else(|| panic!("{what} did not stop the server"));
    assert!(status.success(), "{what}: {status}\n{}", server.output());
    let again = Server::subject(dir.path());
    assert_eq!(again.connect().line("GET k").expect("a read"), Reply::Bulk(b"v".to_vec()), "after {what}");
}

#[test]
fn sigterm_stops_cleanly() {
    assert_stops(|server| server.signal("TERM"), "SIGTERM");
}

#[test]
fn sigint_stops_cleanly() {
    assert_stops(|server| server.signal("INT"), "SIGINT");
}

#[test]
fn shutdown_stops_cleanly() {
    let ask = |server: &Server| drop(server.connect().line("SHUTDOWN"));
    assert_stops(ask, "SHUTDOWN");
}

#[test]
fn a_start_tells_where_it_listens_and_where_its_data_is() {
    if subject_is_redis() {
        return skip("the subject is Redis");
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::look(dir.path(), &[]).expect("a start");
    // It serves a moment before it says so.
    common::wait("its word", || server.output().contains("ready"));
    let text = server.output();
    assert!(text.contains(&server.port.to_string()), "{text}");
    assert!(text.contains("data"), "{text}");
    assert!(text.lines().count() <= 12, "a few lines, not a flood:\n{text}");
}

#[test]
fn config_file_lines_are_flags() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let port = free_port();
    let config = dir.path().join("look.conf");
    let text = format!("# a comment\nbind 127.0.0.1\nport {port}\ndir {}\n", dir.path().join("data").display());
    std::fs::write(&config, text).expect("a file");
    let flags = ["--config".to_string(), config.display().to_string()];
    let server = Server::look_at(dir.path(), port, &flags).expect("a start");
    assert_eq!(server.connect().line("PING").expect("an answer"), Reply::Simple(b"PONG".to_vec()));
    std::fs::write(&config, "nosuchname 1\n").expect("a file");
    assert_refused(&["--config", &config.display().to_string()], &["nosuchname"]);
}

#[test]
fn check_prints_bounds_and_names_the_line_of_an_error() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("commands/redis");
    let mut files: Vec<String> = std::fs::read_dir(&source)
        .map(|d| d.flatten().map(|e| e.path().display().to_string()).collect())
        .unwrap_or_default();
    files.retain(|f| f.ends_with(".look"));
    files.sort();
    assert!(!files.is_empty(), "no sources in {}", source.display());
    let args: Vec<&str> = ["check"].into_iter().chain(files.iter().map(String::as_str)).collect();
    let output = look(&args);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("ops") && text.contains("locs"), "{text}");

    let dir = tempfile::tempdir().expect("a temporary directory");
    let bad = dir.path().join("bad.look");
    std::fs::write(&bad, "module bad @ 1\ncommand BAD(key: key) -> int\n{\n    reply nosuchname\n}\n").expect("a file");
    assert_refused(&["check", &bad.display().to_string()], &["bad.look", "nosuchname", "4"]);
}
