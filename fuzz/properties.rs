//! What must hold of any bytes that strangers, peers, disks or users hand us. One function a target: it returns, or it found something.
//! Shared by the seeded driver (`tests/fuzz/`) and the coverage-guided targets (`fuzz_targets/`).

use bytes::Bytes;
use look::base::PageId;
use look::base::batch::Batch;
use look::gateway::acl::catalogue::Catalogue;
use look::gateway::acl::file;
use look::gateway::acl::rights::Rights;
use look::gateway::acl::selector::Access;
use look::gateway::acl::user::{User, join_selectors};
use look::gateway::backend::Description;
use look::lang::check::render_all;
use look::lang::encode::{decode, encode};
use look::lang::helpers::rdb;
use look::lang::interp::{self, Prepared};
use look::lang::jit::CodeBuffer;
use look::lang::random::{self, Bench, SHAPES};
use look::lang::verify::{HelperShape, Verified, check};
use look::lang::{compile_module, helpers};
use look::resp::Decoder;
use look::resp::decode::Progress;
use std::ops::Range;
use std::sync::LazyLock;

pub type Property = fn(&[u8]);

/// Name, property, and how many executions an input is.
pub const TARGETS: &[(&str, Property, u64)] = &[
    ("resp", resp, 1),
    ("peer_frames", peer_frames, 1),
    ("batch", batch, 1),
    ("page", page, 1),
    ("look_source", look_source, 1),
    ("look_verify", look_verify, 1),
    ("engines_agree", engines_agree, STATES),
    ("restore", restore, 1),
    ("acl_rules", acl_rules, 1),
];

/// Requests decode alike however the bytes arrive; a request never claims bytes that are not there.
pub fn resp(bytes: &[u8]) {
    let (step, input) = bytes.split_first().map_or((1, bytes), |(s, rest)| (*s as usize + 1, rest));
    assert_eq!(requests(input, usize::MAX), requests(input, step));
}

/// All requests of an input that arrives `step` bytes at a time, and how it ended.
fn requests(input: &[u8], step: usize) -> (Vec<Vec<Vec<u8>>>, Option<String>) {
    let mut decoder = Decoder::default();
    let (mut all, mut from, mut to) = (Vec::new(), 0, 0);
    while to < input.len() {
        to = to.saturating_add(step).min(input.len());
        loop {
            match decoder.next(&input[from..to]) {
                Err(error) => return (all, Some(error.to_string())),
                Ok(Progress::Incomplete(needed)) => {
                    assert!(needed > to - from, "waits for {needed} bytes and has {}", to - from);
                    break;
                }
                Ok(Progress::Complete(used)) => {
                    assert!(used > 0 && used <= to - from);
                    all.push(decoder.request(&input[from..to]).iter().map(<[u8]>::to_vec).collect());
                    from += used;
                }
            }
        }
    }
    (all, None)
}

/// Frames between nodes, damaged and, with a true checksum, forged.
pub fn peer_frames(bytes: &[u8]) {
    let Some((mode, rest)) = bytes.split_first() else { return };
    if mode & 1 == 0 {
        look::raft::probe_frames(rest);
        return;
    }
    let mut frame = vec![0; 24];
    frame.extend_from_slice(rest);
    frame[0..4].copy_from_slice(&(rest.len() as u32).to_le_bytes());
    frame[8] = if mode & 2 == 0 { 1 + mode / 4 % 16 } else { 255 };
    let crc = crc_fast::crc32_iscsi(&frame[8..]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    look::raft::probe_frames(&frame);
}

/// What parses as a batch is written again as it was read (but for padding), and its calls lie inside it.
pub fn batch(bytes: &[u8]) {
    let Ok(batch) = Batch::parse(Bytes::copy_from_slice(bytes)) else { return };
    assert_eq!(batch.encoded_len(), bytes.len());
    let again = Batch::parse(batch.to_bytes()).expect("it was one");
    assert_eq!(again.to_bytes(), batch.to_bytes());
    for chunk in &batch.chunks {
        let calls = chunk.calls().map(|call| call.words.iter().fold(call.words.len(), |n, _| n));
        assert_eq!(calls.count(), chunk.calls as usize);
    }
}

/// Pages from a disk or another node: refused, or whole down to the headers of their nodes.
pub fn page(bytes: &[u8]) {
    let Some((key, bytes)) = bytes.split_first_chunk::<8>() else { return };
    let key = PageId(u64::from_le_bytes(*key));
    let links = look::store::page::links(key, bytes);
    if let Ok(checked) = look::store::page::check(key, bytes) {
        assert_eq!(Some(checked), links.ok());
    }
}

/// Any text is refused with a drawing of the mistake, or gives programs that verify and whose cost clause may be declared.
pub fn look_source(bytes: &[u8]) {
    let source = String::from_utf8_lossy(bytes);
    match compile_module(&source, "fuzz", helpers::table()) {
        Err(errors) => {
            assert!(!errors.is_empty());
            render_all(&errors, "fuzz.look", &source, helpers::table());
            assert!(errors.iter().all(|e| !e.one_line(&source).contains('\n')));
        }
        Ok(module) => {
            let shapes = shapes();
            for c in &module.commands {
                if let Err(e) = check(c.program.clone(), &shapes) {
                    panic!("{}: {e}", c.name);
                }
                c.cost_text();
            }
        }
    }
}

fn shapes() -> Vec<HelperShape> {
    let shape = |h: &look::lang::table::Helper| HelperShape {
        args: h.params.iter().map(|p| p.1.width()).sum::<usize>() as u8,
        results: h.result.width().max(1) as u8,
    };
    helpers::table().helpers.iter().map(shape).collect()
}

/// Bytes from a log or a peer, raw or a damaged program: whatever decodes is canonical, and whatever verifies runs alike on both
/// engines.
pub fn look_verify(bytes: &[u8]) {
    let bytes = spoiled(bytes);
    let Ok(program) = decode(&bytes) else { return };
    assert_eq!(encode(&program), bytes);
    let Ok(program) = check(program, &SHAPES) else { return };
    // a Bench's head has six argument words and as many helpers as SHAPES
    if program.arg_slots <= 6 {
        run_both(&program, 1..2);
    }
}

/// The first byte says whether the rest is taken as it is, or made a program whose bytes are then damaged.
fn spoiled(bytes: &[u8]) -> Vec<u8> {
    match bytes {
        [kind, a, b, to, second, rest @ ..] if kind & 1 == 1 => {
            let mut bytes = encode(&random::program(rest));
            let at = u16::from_le_bytes([*a, *b]) as usize % bytes.len();
            bytes[at] = *to;
            if kind & 2 == 2 {
                let next = (at + 1) % bytes.len();
                bytes[next] = *second;
            }
            bytes
        }
        [_, rest @ ..] => rest.to_vec(),
        [] => Vec::new(),
    }
}

/// So many arguments and helpers' answers are tried on each program: to make and compile one takes as long as dozens of runs.
const STATES: u64 = 64;

/// Any bytes become a program that verifies; interpreter and machine code must leave the same trail.
pub fn engines_agree(bytes: &[u8]) {
    let (seed, bytes) = bytes.split_first().map_or((0, bytes), |(first, rest)| (*first as u64, rest));
    let program = check(random::program(bytes), &SHAPES).expect("made to verify");
    run_both(&program, seed * STATES..(seed + 1) * STATES);
}

/// On the state that each seed makes, both engines leave the same trail.
fn run_both(program: &Verified, seeds: Range<u64>) {
    let prepared = Prepared::new(program);
    let buffer = CodeBuffer::compile(std::slice::from_ref(program)).expect("executable memory");
    for seed in seeds {
        // SAFETY: a Bench's head satisfies programs verified against SHAPES with at most six argument words.
        let interpreted = Bench::new(seed).trail(|head| unsafe { interp::run(&prepared, head) });
        // SAFETY: as above.
        let compiled = Bench::new(seed).trail(|head| unsafe { buffer.run(0, head) });
        assert_eq!(compiled, interpreted, "state {seed}");
    }
}

/// Longest value that a payload of so many bytes may become: LZF packs 264 bytes into 3.
const EXPANDS: usize = 100;

/// RESTORE payloads, damaged and, with a true checksum, forged: refused, or a value in proportion to the payload.
pub fn restore(bytes: &[u8]) {
    let Some((mode, body)) = bytes.split_first() else { return };
    let mut payload = body.to_vec();
    if mode & 1 == 1 {
        payload.extend_from_slice(&[9, 0]);
        let sum = rdb::crc64(&payload);
        payload.extend_from_slice(&sum.to_le_bytes());
    }
    let Ok(value) = rdb::restore(&payload) else { return };
    use rdb::Restored;
    let (entries, total) = match &value {
        Restored::Str(s) => (1, s.len()),
        Restored::List(all) | Restored::Set(all) => (all.len(), all.iter().map(Vec::len).sum()),
        Restored::Hash(all) => (all.len(), all.iter().map(|(f, v)| f.len() + v.len()).sum()),
        Restored::Zset(all) => {
            assert!(all.iter().all(|(_, score)| !score.is_nan()), "a sorted set holds no NaN");
            (all.len(), all.iter().map(|(m, _)| m.len()).sum())
        }
    };
    assert!(entries <= payload.len() && total <= EXPANDS * payload.len(), "{entries} entries, {total} bytes");
}

/// What the rules of a fuzzed user can name.
static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
    let command = |name: &str, category: &str| Description {
        name: name.into(),
        categories: vec![category.into()],
        ..Description::default()
    };
    let config = Description { subcommands: vec![command("config|get", "admin")], ..command("config", "slow") };
    Catalogue::new(1, &[command("get", "read"), command("set", "write"), config, command("select", "connection")])
});

/// ACL rules, one a line, or, by the first byte, a whole file: no rule panics, a refused rule changes nothing, and users can be written
/// down and read back with the same permissions (CVE-2024-31227, CVE-2024-51741).
pub fn acl_rules(bytes: &[u8]) {
    match bytes.split_first() {
        Some((kind, text)) if kind & 1 == 1 => acl_file(text),
        Some((_, text)) => acl_user(text),
        None => {}
    }
}

fn acl_file(text: &[u8]) {
    let Ok(users) = file::read(text, "users.acl", &CATALOGUE) else { return };
    let written = file::write(users.iter().map(|(name, user)| (name.as_slice(), user)));
    let again = file::read(&written, "users.acl", &CATALOGUE).expect("what was written can be read");
    assert!(users.keys().eq(again.keys()));
    users.values().zip(again.values()).for_each(|(a, b)| same_permissions(a, b));
}

fn acl_user(text: &[u8]) {
    let rules: Vec<&[u8]> = text.split(|b| *b == b'\n').collect();
    let Ok(rules) = join_selectors(&rules) else { return };
    let mut user = User::nobody();
    for rule in rules {
        let before = user.clone();
        if user.apply(&rule, Some(&CATALOGUE)).is_err() {
            assert_eq!(user, before);
        }
    }
    let line = user.describe();
    let again = User::from_line(&line).expect("what was described can be read");
    assert_eq!(again.describe(), line);
    same_permissions(&user, &again);
}

fn same_permissions(a: &User, b: &User) {
    let (a, b) = (Rights::new(a, &CATALOGUE), Rights::new(b, &CATALOGUE));
    for name in ["get", "set", "config", "config|get", "select"] {
        let number = CATALOGUE.find(name.as_bytes()).expect("is in the catalogue");
        let keys = [(&b"key"[..], Access::BOTH), (&b"a"[..], Access { read: true, write: false })];
        assert_eq!(a.check(number, Some(b"0"), &keys), b.check(number, Some(b"0"), &keys));
    }
}
