//! The examples in the `.look` files' doc comments are true: for the interpreter and for machine code, on one node and
//! on three, and for the real Redis where the command is Redis's.
//!
//! ```text
//! /// > APPEND mykey "Hello"       a request as redis-cli takes it
//! /// (integer) 5                  the reply as redis-cli prints it
//! ```
//!
//! All examples of one doc comment are one conversation on an empty database.

mod common;

use common::server::{skip, subject_is_redis};
use common::{Cluster, Connection, Reply, Server};
use std::path::{Path, PathBuf};

/// The examples' clock does not stand still: these may have run down a little.
const TIMES: &[&str] = &["TTL", "PTTL"];
/// Redis promises no order for these.
const UNORDERED: &[&str] = &["SMEMBERS", "HGETALL", "KEYS", "SPOP"];

struct Example {
    place: String,
    request: Vec<Vec<u8>>,
    line: String,
    reply: Vec<String>,
}

/// One conversation a doc comment.
fn conversations(folder: &str) -> Vec<Vec<Example>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder).map(|d| d.flatten().map(|e| e.path()).collect()).unwrap_or_default();
    files.retain(|f| f.extension().is_some_and(|e| e == "look"));
    files.sort();
    files.iter().flat_map(|file| conversations_of(file)).collect()
}

fn conversations_of(file: &Path) -> Vec<Vec<Example>> {
    let text = std::fs::read_to_string(file).expect("a source file is text");
    let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let mut all = vec![Vec::<Example>::new()];
    for (number, line) in text.lines().enumerate() {
        let Some(comment) = line.trim_start().strip_prefix("///") else {
            all.push(Vec::new());
            continue;
        };
        let comment = comment.strip_prefix(' ').unwrap_or(comment).trim_end();
        let Some(current) = all.last_mut() else { continue };
        if let Some(line) = comment.strip_prefix("> ") {
            let place = format!("{name}:{}", number + 1);
            current.push(Example { place, request: split(line), line: line.to_string(), reply: Vec::new() });
        } else if let (Some(example), false) = (current.last_mut(), comment.is_empty()) {
            example.reply.push(comment.to_string());
        }
    }
    all.retain(|examples| !examples.is_empty());
    all
}

/// Words as redis-cli reads them: quotes, and `\xNN`, `\n` and the like within double quotes.
fn split(line: &str) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut rest = line.trim_start().as_bytes();
    while !rest.is_empty() {
        let mut word = Vec::new();
        let quote = match rest[0] {
            q @ (b'"' | b'\'') => Some(q),
            _ => None,
        };
        rest = &rest[usize::from(quote.is_some())..];
        while let Some((&c, after)) = rest.split_first() {
            rest = after;
            match (c, quote) {
                (b' ', None) => break,
                (c, Some(q)) if c == q => break,
                (b'\\', Some(b'"')) => word.push(escape(&mut rest)),
                _ => word.push(c),
            }
        }
        words.push(word);
        rest = rest.trim_ascii_start();
    }
    words
}

/// What follows a backslash.
fn escape(rest: &mut &[u8]) -> u8 {
    let Some((&c, after)) = rest.split_first() else { return b'\\' };
    *rest = after;
    match c {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'a' => 7,
        b'b' => 8,
        b'x' if after.len() >= 2 => {
            let digits = std::str::from_utf8(&after[..2]).ok().and_then(|d| u8::from_str_radix(d, 16).ok());
            *rest = &after[2..];
            digits.unwrap_or_else(|| panic!("bad \\x in an example"))
        }
        other => other,
    }
}

/// A reply as redis-cli prints it to a terminal.
fn print(reply: &Reply) -> Vec<String> {
    match reply {
        Reply::Int(i) => vec![format!("(integer) {i}")],
        Reply::Simple(text) => vec![String::from_utf8_lossy(text).into_owned()],
        Reply::Error(text) => vec![format!("(error) {}", String::from_utf8_lossy(text))],
        Reply::Bulk(bytes) => vec![quote(bytes)],
        Reply::Array(items) if items.is_empty() => vec!["(empty array)".into()],
        Reply::Array(items) => {
            let width = items.len().to_string().len();
            let mut lines = Vec::new();
            for (at, item) in items.iter().enumerate() {
                let number = format!("{:>width$}) ", at + 1);
                for (row, line) in print(item).into_iter().enumerate() {
                    let lead = if row == 0 { number.clone() } else { " ".repeat(number.len()) };
                    lines.push(lead + &line);
                }
            }
            lines
        }
        nil if nil.is_nil() => vec!["(nil)".into()],
        other => vec![format!("{other:?}")],
    }
}

fn quote(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for &b in bytes {
        match b {
            b'\n' => out += "\\n",
            b'\r' => out += "\\r",
            b'\t' => out += "\\t",
            7 => out += "\\a",
            8 => out += "\\b",
            b'"' | b'\\' => out.extend(['\\', b as char]),
            b' '..=b'~' => out.push(b as char),
            _ => out += &format!("\\x{b:02x}"),
        }
    }
    out + "\""
}

/// Plays every conversation; returns what was not as written. `connections` take turns, so that on a cluster each
/// request goes to another node than the one before.
fn play(conversations: &[Vec<Example>], connections: &mut [Connection]) -> Vec<String> {
    let mut wrong = Vec::new();
    for conversation in conversations {
        if let Err(e) = connections[0].line("FLUSHALL") {
            wrong.push(format!("FLUSHALL: {e}"));
            break;
        }
        for (turn, example) in conversation.iter().enumerate() {
            let count = connections.len();
            let got = match connections[turn % count].call(&example.request) {
                Ok(reply) => print(&reply),
                Err(e) => vec![format!("no reply: {e}")],
            };
            if !same(example, &got) {
                let (expected, got) = (example.reply.join("\n      "), got.join("\n      "));
                wrong.push(format!(
                    "{}: > {}\n    written:\n      {expected}\n    got:\n      {got}",
                    example.place, example.line
                ));
            }
        }
    }
    wrong
}

fn same(example: &Example, got: &[String]) -> bool {
    let unordered = UNORDERED.iter().any(|name| example.request[0].eq_ignore_ascii_case(name.as_bytes()));
    let seconds = |lines: &[String]| -> Option<f64> { lines.first()?.strip_prefix("(integer) ")?.parse().ok() };
    if TIMES.iter().any(|name| example.request[0].eq_ignore_ascii_case(name.as_bytes())) {
        return match (seconds(&example.reply), seconds(got)) {
            (Some(written), Some(now)) if written > 0.0 => now > 0.0 && now <= written && now >= written * 0.5,
            (written, now) => written == now,
        };
    }
    // Without the leading number, items can be put into one order; pairs of HGETALL lie side by side in examples.
    let normal = |lines: &[String]| -> Vec<String> {
        let mut lines: Vec<String> = lines.iter().map(|l| l.trim_end().to_string()).collect();
        if unordered {
            lines = lines.iter().map(|l| l.split_once(") ").map_or(l.clone(), |(_, item)| item.to_string())).collect();
            lines.sort();
        }
        lines
    };
    normal(&example.reply) == normal(got)
}

fn assert_true(wrong: &[String], count: usize, what: &str) {
    assert!(wrong.is_empty(), "{what}: {} of {count} examples are not true:\n{}", wrong.len(), wrong.join("\n"));
    eprintln!("examples: {count} true on {what}");
}

fn on_one_node(engine: &str) {
    let all = conversations("commands/redis");
    let count = all.iter().map(Vec::len).sum();
    assert!(count > 150, "INVALID: only {count} examples");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let flags = ["--set".to_string(), format!("engine={engine}")];
    let server = Server::look(dir.path(), &flags).unwrap_or_else(|why| panic!("{why}"));
    assert_true(&play(&all, &mut [server.connect()]), count, engine);
}

#[test]
fn examples_are_true_under_the_interpreter() {
    if !subject_is_redis() {
        on_one_node("interpreter");
    }
}

#[test]
fn examples_are_true_under_machine_code() {
    if !subject_is_redis() {
        on_one_node("jit");
    }
}

#[test]
fn examples_are_true_on_three_nodes() {
    if subject_is_redis() {
        return skip("Redis has no cluster of this kind");
    }
    let all = conversations("commands/redis");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let cluster = Cluster::start(dir.path(), 3).unwrap_or_else(|why| panic!("{why}"));
    let mut connections: Vec<Connection> = cluster.up().iter().map(|id| cluster.node(*id).connect()).collect();
    assert_true(&play(&all, &mut connections), all.iter().map(Vec::len).sum(), "three nodes");
}

#[test]
fn examples_are_true_of_redis() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(redis) = Server::redis(dir.path()) else { return };
    let mut all = conversations("commands/redis");
    // What only 7.2 knows cannot be asked of Debian's 7.0; the differential test lists these places.
    all.iter_mut().for_each(|conversation| {
        conversation.retain(|e| !e.line.contains("WITHSCORE ") && !e.line.ends_with("WITHSCORE"))
    });
    assert_true(&play(&all, &mut [redis.connect()]), all.iter().map(Vec::len).sum(), "Redis");
}

#[test]
fn requests_and_replies_are_read_and_printed_as_redis_cli_does() {
    assert_eq!(split(r#"SET k "a b\x41\n" 'q"'"#), [&b"SET"[..], b"k", b"a bA\n", b"q\""]);
    let reply = Reply::Array(vec![Reply::Int(1), Reply::Array(vec![Reply::Bulk(b"a\"\x00".to_vec()), Reply::NilBulk])]);
    assert_eq!(print(&reply), ["1) (integer) 1", "2) 1) \"a\\\"\\x00\"", "   2) (nil)"]);
}
