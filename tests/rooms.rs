//! The source tree itself: rooms use only rooms below them, and what must stay in one place stays there.

use std::path::{Path, PathBuf};

/// Which rooms a room may use; `base` may be used by all. The order is the way of a command, top to bottom.
const ROOMS: &[(&str, &[&str])] = &[
    ("node", &["admin", "gateway", "batch", "raft", "history", "apply", "command", "lang", "store", "disk", "resp"]),
    ("admin", &["gateway"]),
    ("gateway", &["batch", "history", "command", "resp", "store"]),
    ("batch", &["raft"]),
    ("raft", &["apply", "disk"]),
    ("history", &["apply", "store", "disk"]),
    ("apply", &["command", "store"]),
    ("command", &["lang", "resp"]),
    ("lang", &["store", "resp"]),
    ("store", &["disk"]),
    ("disk", &[]),
    ("resp", &[]),
    ("base", &[]),
];

/// Modules that rooms may name although the room that holds them is not theirs to use, and why.
const WORDS: &[(&str, &[&str], &str)] = &[
    (
        "apply::pending",
        &["gateway", "batch"],
        "the slot that the gateway makes and apply fills: replies travel as values",
    ),
    ("apply::system::SystemState", &["gateway"], "the replicated settings, a value that apply publishes"),
    ("resp::ReplyBuf", &["apply"], "the buffer in that slot"),
    ("resp::Version", &["apply"], "its dialect"),
    ("lang::env", &["apply"], "what a call runs in: apply makes one and keeps it, `command` says which program runs"),
    ("command::costs", &["admin"], "what commands cost: plain numbers, which the gateway hands on"),
    ("command::Table", &["history"], "the code that a private replay runs"),
];

/// Words that may stand only below these paths.
const PLACES: &[(&str, &[&str])] = &[
    ("fjall", &["src/disk/"]),
    ("openraft", &["src/raft/"]),
    ("dynasm", &["src/lang/jit"]),
    ("dynasmrt", &["src/lang/jit"]),
    ("tokio", &["src/main.rs", "src/node", "src/admin/", "src/gateway/", "src/batch/", "src/raft/"]),
    ("axum", &["src/admin/"]),
    ("prometheus_client", &["src/admin/metrics.rs"]),
    (
        "tokio_rustls",
        &[
            "src/node/tls.rs",
            "src/node/backup/client.rs",
            "src/gateway/listen.rs",
            "src/gateway/tls.rs",
            "src/raft/tls.rs",
        ],
    ),
    (
        "unsafe",
        &[
            "src/disk/urgent.rs",
            "src/store/arena",
            "src/store/mutator.rs",
            "src/lang/jit",
            "src/lang/engine.rs",
            "src/lang/env.rs",
            "src/lang/interp.rs",
            "src/lang/random.rs",
            "src/lang/machine.rs",
            "src/lang/helpers/",
        ],
    ),
];

/// Words that must not stand below these rooms: what is replicated must not hang on chance, time or layout.
const DETERMINISTIC: &[&str] = &["src/command/", "src/lang/", "src/store/", "src/apply/"];
const CHANCE: &[&str] = &["SystemTime", "SystemClock", "Instant", "thread_rng", "RandomState", "available_parallelism"];

const LINES_MAX: usize = 900;

struct Source {
    path: String,
    /// Without comments, string contents and the test module.
    code: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    walk(&root.join("src"), &mut files);
    files.sort();
    files
        .iter()
        .map(|file| {
            let text = std::fs::read_to_string(file).expect("a source file is text");
            let path = file.strip_prefix(root).expect("below the root").display().to_string();
            Source { path, code: code_of(&text), text }
        })
        .filter(|s| !s.path.ends_with("tests.rs") && !s.path.contains("/tests/"))
        .collect()
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a source folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// What the compiler builds into the server: no comments, no strings, nothing from the test module on.
fn code_of(text: &str) -> String {
    let mut code = String::new();
    let mut after_cfg_test = false;
    for line in text.lines() {
        let line = without_strings(line);
        let line = line.split("//").next().unwrap_or_default();
        let word = line.trim();
        if after_cfg_test && word.starts_with("mod ") && word.ends_with('{') {
            break;
        }
        after_cfg_test = word.starts_with("#[cfg(") && word.contains("test");
        code.push_str(line);
        code.push('\n');
    }
    code
}

fn without_strings(line: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    let mut previous = ' ';
    for c in line.chars() {
        if c == '"' && previous != '\\' && previous != '\'' {
            inside = !inside;
        } else if !inside {
            out.push(c);
        }
        previous = if previous == '\\' { ' ' } else { c };
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `word` stands in `code` as a whole word.
fn has_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// Every `crate::a::b` in the code, as `a::b`; groups in braces are opened.
fn crate_paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (at, found) in code.match_indices("crate::") {
        if code[..at].ends_with(|c| is_word(c) || c == '$') {
            continue;
        }
        expand("", &code[at + found.len()..], &mut paths);
    }
    paths
}

/// Reads one path or group after `prefix`; returns what follows it.
fn expand<'a>(prefix: &str, rest: &'a str, paths: &mut Vec<String>) -> &'a str {
    let rest = rest.trim_start();
    if let Some(mut inner) = rest.strip_prefix('{') {
        loop {
            inner = inner.trim_start_matches([',', ' ', '\n']);
            match inner.chars().next() {
                None => return inner,
                Some('}') => return &inner[1..],
                Some(_) => inner = expand(prefix, inner, paths),
            }
        }
    }
    let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
    let (word, after) = rest.split_at(end);
    let path = if prefix.is_empty() { word.to_string() } else { format!("{prefix}::{word}") };
    match after.strip_prefix("::") {
        Some(next) if next.starts_with(|c: char| is_word(c) || c == '{') => expand(&path, next, paths),
        _ => {
            paths.push(path);
            // `as name`, `*` and the like end at the next comma or brace.
            after[after.find([',', '}', ';', '\n', '(', ' ']).unwrap_or(after.len())..]
                .trim_start_matches(|c| c != ',' && c != '}' && c != ';')
        }
    }
}

fn room_of(path: &str) -> Option<&'static str> {
    let inside = path.strip_prefix("src/")?;
    let name = inside.split(['/', '.']).next()?;
    ROOMS.iter().map(|(room, _)| *room).find(|room| *room == name)
}

#[test]
fn a_room_uses_only_rooms_below_it() {
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(room) = room_of(&source.path) else { continue };
        let below = ROOMS.iter().find(|(name, _)| *name == room).map_or(&[][..], |(_, below)| below);
        for path in crate_paths(&source.code) {
            let target = path.split("::").next().unwrap_or_default();
            let is_room = ROOMS.iter().any(|(name, _)| *name == target);
            let permitted = !is_room
                || target == room
                || target == "base"
                || below.contains(&target)
                || WORDS.iter().any(|(word, rooms, _)| path.starts_with(word) && rooms.contains(&room));
            if !permitted {
                wrong.push(format!("{}: {room} must not use crate::{path}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_folder_is_a_room() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in std::fs::read_dir(root).expect("src").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let known = ["lib.rs", "main.rs"].contains(&name.as_str()) || room_of(&format!("src/{name}")).is_some();
        assert!(known, "src/{name} is no room of the table");
    }
}

#[test]
fn words_stay_in_their_places() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (word, places) in PLACES {
            if has_word(&source.code, word) && !places.iter().any(|place| source.path.starts_with(place)) {
                wrong.push(format!("{}: `{word}` belongs to {places:?}", source.path));
            }
        }
        if DETERMINISTIC.iter().any(|room| source.path.starts_with(room)) {
            let found = CHANCE.iter().filter(|word| has_word(&source.code, word));
            wrong.extend(found.map(|word| format!("{}: `{word}` below `command`", source.path)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_say_what_they_own_and_stay_short() {
    let mut wrong = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{}: {lines} lines, more than {LINES_MAX}", source.path));
        }
        if !source.text.starts_with("//!") {
            wrong.push(format!("{}: does not begin with `//!`", source.path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_unwraps_without_a_reason() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (word, instead) in [
            (".unwrap()", "an error value, or an assertion that says why"),
            ("todo!(", "the code"),
            ("dbg!(", "nothing"),
        ] {
            if source.code.contains(word) {
                wrong.push(format!("{}: `{word}`; write {instead}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The checks themselves, on a tree that breaks each rule.
#[test]
fn the_checks_see_what_they_should() {
    let code = code_of(
        "//! head\nuse crate::{apply::pending::{Plan, Slot}, store as s};\n// crate::raft\nlet x = \"crate::disk\"; crate::batch::go();\n#[cfg(test)]\nmod tests {\n crate::gateway\n",
    );
    assert_eq!(crate_paths(&code), ["apply::pending::Plan", "apply::pending::Slot", "store", "batch::go"]);
    assert!(has_word("a unsafe {", "unsafe") && !has_word("unsafe_op", "unsafe") && !has_word("not_unsafe", "unsafe"));
    assert_eq!(room_of("src/disk/log.rs"), Some("disk"));
    assert_eq!(room_of("src/node.rs"), Some("node"));
    assert_eq!(room_of("src/lib.rs"), None);
}
