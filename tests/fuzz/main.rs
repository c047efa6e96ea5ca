//! The fuzz targets under a seeded driver: kept seeds, the sources and payloads that ship, and mutations of them. Short in `cargo test`;
//! `.ci/run fuzz` gives it minutes. A finding is written to `fuzz/findings/`; once mended it becomes a seed in `fuzz/seeds/`.
//!
//! `LOOK_FUZZ_MS`: milliseconds for each target (default 500). `LOOK_FUZZ_SEED`: another run of mutations (default 1).

#[path = "../common/random.rs"]
#[allow(dead_code)]
mod random;

#[path = "../../fuzz/properties.rs"]
mod properties;

use random::Random;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest input.
const INPUT_MAX: usize = 4096;
/// Inputs kept besides the seeds: those that mutations grew, newest first.
const KEPT_MAX: usize = 64;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// Files of `fuzz/seeds/TARGET`, in order; of the front end also the sources that ship.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let mut folders = vec![folder("seeds").join(target)];
    if target == "look_source" {
        let commands = Path::new(env!("CARGO_MANIFEST_DIR")).join("commands");
        folders.extend([commands.join("redis"), commands.join("examples")]);
    }
    let mut files: Vec<PathBuf> =
        folders.iter().filter_map(|f| f.read_dir().ok()).flatten().filter_map(|f| Some(f.ok()?.path())).collect();
    files.sort();
    let mut all: Vec<Vec<u8>> = files.iter().map(|f| std::fs::read(f).expect("a seed")).collect();
    if target == "look_source" {
        // a command at a time, so that a mutant's fate does not hang on the others
        let parts = all
            .iter()
            .flat_map(|s| String::from_utf8_lossy(s).split("\n\n").map(|p| p.as_bytes().to_vec()).collect::<Vec<_>>());
        all = parts.collect();
    }
    all
}

/// One small change, or a piece of another input.
fn mutate(input: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Random) {
    if input.is_empty() {
        input.push(random.next() as u8);
    }
    let at = random.below(input.len());
    let end = at + 1 + random.below((input.len() - at).min(32));
    match random.below(9) {
        0 => input[at] ^= 1 << random.below(8),
        1 => input[at] = *random.pick(&[0, 1, 0x7f, 0x80, 0xff, b'\r', b'\n', b'0', b'9', b'-', b'*', b'$']),
        2 => input[at] = random.next() as u8,
        3 => drop(input.drain(at..end)),
        4 => {
            let piece = input[at..end].to_vec();
            let to = random.below(input.len() + 1);
            input.splice(to..to, piece);
        }
        5 => input.truncate(at),
        6 if input.len() - at >= 4 => {
            let number = *random.pick(&[0u32, 1, 255, 65_536, 1 << 31, u32::MAX]);
            input[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        7 if !others.is_empty() => {
            let other = random.pick(others);
            let from = random.below(other.len() + 1);
            let piece = &other[from..(from + 1 + random.below(64)).min(other.len())];
            input.splice(at..end, piece.iter().copied());
        }
        _ => {
            let more = (0..1 + random.below(8)).map(|_| random.next() as u8);
            input.splice(at..at, more.collect::<Vec<_>>());
        }
    }
    input.truncate(INPUT_MAX);
}

fn name_of(target: &str, input: &[u8]) -> String {
    format!("{target}-{:016x}", xxhash_rust::xxh3::xxh3_64(input))
}

/// Whether the property holds; a finding is kept.
fn holds(target: &str, property: properties::Property, input: &[u8]) -> bool {
    let fine = catch_unwind(AssertUnwindSafe(|| property(input))).is_ok();
    if !fine {
        let path = folder("findings").join(name_of(target, input));
        std::fs::create_dir_all(folder("findings"))
            .and_then(|()| std::fs::write(&path, input))
            .expect("write a finding");
        eprintln!("FOUND by {target}: {}", path.display());
    }
    fine
}

fn fuzz(target: &str) {
    let &(_, property, each) = properties::TARGETS.iter().find(|t| t.0 == target).expect("a target");
    let seeds = seeds(target);
    assert!(!seeds.is_empty(), "no seeds for {target}");
    let mut findings = seeds.iter().filter(|s| !holds(target, property, s)).count();
    let seed = setting("LOOK_FUZZ_SEED", 1);
    let mut random = Random::new(seed);
    let end = Instant::now() + Duration::from_millis(setting("LOOK_FUZZ_MS", 500));
    let (mut executions, mut kept) = (each * seeds.len() as u64, Vec::<Vec<u8>>::new());
    while Instant::now() < end && findings < 5 {
        for _ in 0..64 {
            let from = if kept.is_empty() || random.chance(70) { random.pick(&seeds) } else { random.pick(&kept) };
            let mut input = from.clone();
            for _ in 0..1 + random.below(6) {
                mutate(&mut input, &seeds, &mut random);
            }
            findings += !holds(target, property, &input) as usize;
            executions += each;
            if random.chance(5) {
                kept.insert(0, input);
                kept.truncate(KEPT_MAX);
            }
        }
    }
    println!("fuzz {target}: {executions} executions from {} seeds, run {seed}: {findings} findings", seeds.len());
    assert_eq!(findings, 0, "{target}: the inputs are in fuzz/findings");
}

macro_rules! targets {
    ($($name:ident),*) => {
        $(#[test]
        fn $name() {
            fuzz(stringify!($name));
        })*

        #[test]
        fn every_target_is_run() {
            assert_eq!([$(stringify!($name)),*].to_vec(), properties::TARGETS.iter().map(|t| t.0).collect::<Vec<_>>());
        }
    };
}
targets!(resp, peer_frames, batch, page, look_source, look_verify, engines_agree, restore, acl_rules);

/// The driver sees what it should: a property that fails for some inputs near a seed is found.
#[test]
fn a_planted_fault_is_found() {
    let mut random = Random::new(1);
    let seeds = [b"*1\r\n$4\r\nPING\r\n".to_vec()];
    let found = (0..10_000).any(|_| {
        let mut input = seeds[0].clone();
        mutate(&mut input, &seeds, &mut random);
        input.windows(2).any(|w| w == b"$-")
    });
    assert!(found);
}
