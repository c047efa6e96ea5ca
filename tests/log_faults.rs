//! The log against power cuts, damage and failing disks: what was acknowledged is found again, or the damage is named.

use bytes::Bytes;
use look::disk::log::{Append, Log, LogOptions, LogState};
use look::disk::sim::SimDisk;
use look::disk::{Disk, Kind, LogError, Position, RealDisk, Turn, Vote};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

fn options() -> LogOptions {
    let (segment_bytes, history_bytes) = (32 << 10, 64 << 10);
    LogOptions { segment_bytes, history_bytes, prepare_ahead: false, ..LogOptions::new(7, 0xfeed_beef) }
}

fn open(disk: &SimDisk) -> Result<Log, LogError> {
    Log::open(Arc::new(disk.clone()), options())
}

fn payload(term: u64, index: u64) -> Bytes {
    let len = (index * 797 + term * 131) % 9000;
    (0..len).map(|i| (i * 7 + index + term) as u8).collect::<Vec<u8>>().into()
}

/// One call of the log.
#[derive(Clone, Copy, Debug)]
enum Step {
    Append(Position),
    Vote(Vote),
    Truncate(Position),
    Purge(Position),
}

/// A life of a log: appends, elections, conflicts, purges.
fn life(steps: u64) -> Vec<Step> {
    let mut out = Vec::new();
    let (mut term, mut last, mut purged) = (1, Position::default(), Position::default());
    for i in 0..steps {
        let step = match i % 17 {
            5 => {
                term += 1;
                Step::Vote(Vote { term, node: 7, committed: i % 2 == 0 })
            }
            11 if last.index > purged.index + 3 => {
                last = Position { term: last.term, index: last.index - 2 };
                term += 1;
                Step::Truncate(last)
            }
            15 if last.index > purged.index + 6 => {
                purged = Position { term: last.term, index: last.index - 4 };
                Step::Purge(purged)
            }
            _ => {
                last = Position { term, index: last.index + 1 };
                Step::Append(last)
            }
        };
        out.push(step);
    }
    out
}

type Ack = Receiver<Result<(), LogError>>;

fn start(log: &Log, step: Step) -> Result<Ack, LogError> {
    let (tx, rx) = channel();
    let done = Box::new(move |r| drop(tx.send(r)));
    match step {
        Step::Append(position) => {
            let payload = Arc::new(payload(position.term, position.index));
            let entry = [Append { kind: Kind::Batch, position, payload }];
            match position.index % 3 {
                0 => log.append_here(entry, done)?,
                _ => log.append(entry, done)?,
            }
        }
        Step::Vote(vote) => log.save_vote(vote, done)?,
        Step::Truncate(last) => log.truncate_after(last, done)?,
        Step::Purge(position) => log.purge(position, done)?,
    }
    Ok(rx)
}

/// Terms of entries by index (entry 1 first), and the rest of the state, after the first `n` steps.
fn model(steps: &[Step]) -> (Vec<u64>, Option<Vote>, u64) {
    let (mut terms, mut vote, mut purged) = (Vec::new(), None, 0);
    for step in steps {
        match *step {
            Step::Append(p) => terms.push(p.term),
            Step::Vote(v) => vote = Some(v),
            Step::Truncate(p) => terms.truncate(p.index as usize),
            Step::Purge(p) => purged = p.index,
        }
    }
    (terms, vote, purged)
}

/// Runs `steps`, two calls in flight, until the disk dies; tells how many were acknowledged.
fn run(disk: &SimDisk, steps: &[Step]) -> usize {
    let Ok(log) = open(disk) else { return 0 };
    let mut acknowledged = 0;
    for pair in steps.chunks(2) {
        let acks: Vec<_> = pair.iter().map_while(|s| start(&log, *s).ok()).collect();
        let ok = acks.iter().filter(|a| matches!(a.recv(), Ok(Ok(())))).count();
        acknowledged += ok;
        if ok < pair.len() {
            break;
        }
    }
    acknowledged
}

/// The log must look as after some number of steps, at least `acknowledged`.
fn check(log: &Log, steps: &[Step], acknowledged: usize, at_most: usize) {
    let state = log.state();
    let fits = (acknowledged..=at_most).any(|n| {
        let (terms, vote, purged) = model(&steps[..n]);
        state.vote == vote
            && state.purged.index == purged
            && state.last.index == terms.len() as u64
            && (purged + 1..=terms.len() as u64).all(|i| {
                let read = log.read(i..i + 1, usize::MAX).expect("a live entry reads");
                read.len() == 1 && read[0].term == terms[i as usize - 1] && read[0].payload == payload(read[0].term, i)
            })
    });
    assert!(fits, "{acknowledged} steps were acknowledged, but the log holds {state:?}");
}

#[test]
fn acknowledged_writes_survive_a_power_cut_at_every_write() {
    let steps = life(150);
    let whole = SimDisk::new(1);
    assert_eq!(run(&whole, &steps), steps.len());
    let ops = whole.ops();
    assert!(ops > 80, "the run wrote often enough to mean something: {ops}");
    let mut torn = 0;
    for op in 1..=ops {
        for seed in 0..3 {
            let disk = SimDisk::new(op * 31 + seed);
            disk.cut_at(op);
            let acknowledged = run(&disk, &steps);
            disk.restart();
            let log = open(&disk).unwrap_or_else(|e| panic!("cut at {op}, seed {seed}: {e}"));
            torn += log.was_torn() as u32;
            check(&log, &steps, acknowledged, steps.len().min(acknowledged + 2));
            drop(log);
            // and it goes on from there, also after a second stop
            let log = open(&disk).expect("opens again");
            let next = Position { term: 99, index: log.state().last.index + 1 };
            start(&log, Step::Append(next)).expect("accepts").recv().expect("answers").expect("durable");
            drop(log);
            assert_eq!(open(&disk).expect("opens a third time").state().last, next);
        }
    }
    assert!(torn > 10, "power cuts tore writes: {torn}");
}

/// What a log says: its state, and term, index and payload of its entries.
type Shown = (LogState, Vec<(u64, u64, Bytes)>);

fn snapshot(log: &Log) -> Shown {
    let state = log.state();
    let range = state.purged.index + 1..state.last.index + 1;
    let records = log.read(range, usize::MAX).expect("live entries read");
    (state, records.into_iter().map(|r| (r.term, r.index, r.payload)).collect())
}

#[test]
fn who_appends_here_writes_and_the_mark_follows_in_the_pause() {
    let disk = SimDisk::new(5);
    let log = open(&disk).expect("opens");
    let ops = disk.ops();
    for index in 1..=3 {
        let (tx, rx) = channel();
        let done = Box::new(move |r: Result<(), LogError>| {
            let _ = tx.send((r.is_ok(), std::thread::current().id()));
        });
        let (position, payload) = (Position { term: 1, index }, Arc::new(payload(1, index)));
        log.append_here([Append { kind: Kind::Batch, position, payload }], done).expect("written");
        assert_eq!(rx.try_recv(), Ok((true, std::thread::current().id())), "durable before it returns");
    }
    // Three writes; the mark is the log thread's, which had nothing else to wake for
    let begin = std::time::Instant::now();
    while disk.ops() < ops + 4 {
        assert!(begin.elapsed().as_secs() < 20, "no mark in the pause");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    drop(log);
    let log = open(&disk).expect("opens again");
    assert_eq!(log.read(1..4, usize::MAX).expect("reads").len(), 3);
}

#[test]
fn a_flipped_bit_is_found_or_harmless() {
    let steps = life(60);
    let disk = SimDisk::new(2);
    assert_eq!(run(&disk, &steps), steps.len());
    let before = snapshot(&open(&disk).expect("opens"));
    let files: Vec<String> = disk.list().expect("lists");
    let (mut found, mut harmless) = (0, 0);
    for file in files {
        let bits = disk.contents(&file).map_or(0, |c| c.len() as u64 * 8);
        for i in 0..400u64 {
            let bit = look::base::mix64(i) % bits;
            let copy = disk.fork();
            copy.flip(&file, bit);
            // Found at start, or at the latest when what is damaged is read
            match open(&copy) {
                Err(LogError::Corrupt { .. } | LogError::Newer(_)) => found += 1,
                Err(other) => panic!("{file} bit {bit}: {other}"),
                Ok(log) => {
                    assert_eq!(snapshot(&log), before, "{file} bit {bit} changed what the log says");
                    harmless += 1;
                }
            }
        }
    }
    assert!(found > 200 && harmless > 100, "found {found}, harmless {harmless}");
}

/// A peer's checkpoint took the place of entries that never came. Reads of the past would replay over the gap.
#[test]
fn what_lies_before_a_gap_is_not_offered() {
    let disk = SimDisk::new(11);
    let done = |log: &Log, step| start(log, step).expect("accepts").recv().expect("answers").expect("durable");
    let open = |disk: &SimDisk| Log::open(Arc::new(disk.clone()), LogOptions { history_bytes: 1 << 20, ..options() });
    let log = open(&disk).expect("opens");
    (1..=3).for_each(|index| done(&log, Step::Append(Position { term: 1, index })));
    assert_eq!(log.oldest(), 1);
    done(&log, Step::Purge(Position { term: 1, index: 100 }));
    done(&log, Step::Append(Position { term: 1, index: 101 }));
    assert_eq!(log.oldest(), 101);
    drop(log);
    let log = open(&disk).expect("opens");
    assert_eq!(log.oldest(), 101);
    // Also when the segment with the gap is still there, but no longer read at a start
    (102..=140).for_each(|index| done(&log, Step::Append(Position { term: 1, index })));
    done(&log, Step::Purge(Position { term: 1, index: 138 }));
    (141..=150).for_each(|index| done(&log, Step::Append(Position { term: 1, index })));
    assert_eq!(log.oldest(), 101);
    drop(log);
    let log = open(&disk).expect("opens");
    assert!(disk.contents("log-0000000000000001").is_some() && log.first_indexed() > 102, "INVALID: all is read");
    assert_eq!(log.oldest(), 101);
}

/// A start costs what it has to replay: segments behind the checkpoint are kept, and not read.
#[test]
fn a_start_does_not_read_what_a_checkpoint_covers() {
    let disk = SimDisk::new(13);
    let log = open(&disk).expect("opens");
    let append = |log: &Log, indices: std::ops::RangeInclusive<u64>| {
        for index in indices {
            let step = Step::Append(Position { term: 1, index });
            start(log, step).expect("accepts").recv().expect("answers").expect("durable");
        }
    };
    append(&log, 1..=60);
    drop(log);
    let covered = 40;
    let behind = |disk: &SimDisk, covered| {
        Log::open(Arc::new(disk.clone()), LogOptions { covered, history_bytes: 1 << 20, ..options() })
    };
    let log = behind(&disk, covered).expect("opens");
    let purged = log.state().purged;
    assert!(purged.index > 10 && purged.index <= covered && log.first_indexed() == purged.index + 1, "{purged:?}");
    assert_eq!((log.oldest(), log.state().last.index), (1, 60), "all of it is kept");
    for range in [1..purged.index + 1, purged.index + 1..61] {
        let found = log.read(range.clone(), usize::MAX).expect("reads");
        assert!(found.iter().map(|r| (r.index, r.payload.clone())).eq(range.map(|i| (i, payload(1, i)))));
    }
    drop(log);

    // What is damaged there is found by who reads it; behind it by the start, as ever
    let first = disk.fork();
    first.flip("log-0000000000000001", (4096 + 900) * 8);
    assert!(matches!(behind(&first, 0), Err(LogError::Corrupt { .. })));
    let log = behind(&first, covered).expect("opens");
    assert!(matches!(log.read(1..5, usize::MAX), Err(LogError::Corrupt { .. })));
    append(&log, 61..=70);
    drop(log);
    let newest = first.list().expect("lists").into_iter().filter(|name| name.starts_with("log-")).max().expect("some");
    let second = first.fork();
    second.flip(&newest, (4096 + 900) * 8);
    assert!(matches!(behind(&second, covered), Err(LogError::Corrupt { .. })));

    // A checkpoint that is newer than the log, of a peer: the newest segment is read
    let newer = behind(&first, 1000).expect("opens");
    assert_eq!((newer.state().last.index, newer.read(70..71, usize::MAX).expect("reads").len()), (70, 1));
}

#[test]
fn what_lies_before_a_gap_to_come_is_not_offered() {
    let disk = Arc::new(SimDisk::new(12));
    let (log, mut writer) = Log::open_by_hand(disk, options(), Box::new(|| {})).expect("opens");
    let mut turn = || assert!(matches!(writer.turn(std::time::Instant::now(), false), Turn::Asleep(_)));
    (1..=3).for_each(|index| drop(start(&log, Step::Append(Position { term: 1, index })).expect("accepts")));
    turn();
    drop(start(&log, Step::Append(Position { term: 1, index: 4 })).expect("accepts"));
    assert_eq!(log.oldest(), 1, "entry 4 comes to the disk, and is in memory until then");
    drop(start(&log, Step::Purge(Position { term: 1, index: 100 })).expect("accepts"));
    assert_eq!(log.oldest(), 101);
    turn();
    assert_eq!(log.oldest(), 101);
}

#[test]
fn a_lost_segment_is_corruption() {
    let disk = SimDisk::new(3);
    assert_eq!(run(&disk, &life(60)), 60);
    let segments: Vec<String> = disk.list().expect("lists").into_iter().filter(|n| n.starts_with("log-")).collect();
    assert!(segments.len() >= 2);
    let copy = disk.fork();
    copy.remove(segments.last().expect("some")).expect("removes");
    assert!(matches!(open(&copy), Err(LogError::Corrupt { .. })));
    let copy = disk.fork();
    copy.remove("highwater").expect("removes");
    assert!(matches!(open(&copy), Err(LogError::Corrupt { .. })));
}

#[test]
fn an_old_copy_of_the_newest_segment_is_corruption() {
    let disk = SimDisk::new(4);
    let steps = life(40);
    assert_eq!(run(&disk, &steps[..4]), 4);
    let old = disk.contents("log-0000000000000001").expect("first segment");
    let log = open(&disk).expect("opens");
    start(&log, Step::Append(Position { term: 5, index: log.state().last.index + 1 }))
        .expect("accepts")
        .recv()
        .expect("answers")
        .expect("durable");
    drop(log);
    let new = disk.contents("log-0000000000000001").expect("first segment");
    for (i, (a, b)) in old.iter().zip(&new).enumerate() {
        for bit in (0..8).filter(|bit| (a ^ b) >> bit & 1 == 1) {
            disk.flip("log-0000000000000001", i as u64 * 8 + bit);
        }
    }
    assert!(matches!(open(&disk), Err(LogError::Corrupt { .. })));
}

#[test]
fn after_a_failed_write_nothing_is_accepted_and_nothing_acknowledged_is_lost() {
    let steps = life(80);
    let whole = SimDisk::new(5);
    run(&whole, &steps);
    for op in (6..whole.ops()).step_by(3) {
        let disk = SimDisk::new(op);
        disk.fail_at(op);
        let Ok(log) = open(&disk) else { continue };
        let mut acknowledged = 0;
        let mut failed = false;
        for step in &steps {
            match start(&log, *step).map(|ack| ack.recv()) {
                Ok(Ok(Ok(()))) => {
                    assert!(!failed, "op {op}: acknowledged after a failure");
                    acknowledged += 1;
                }
                _ => failed = true,
            }
        }
        drop(log);
        disk.restart();
        let log = open(&disk).expect("opens after a failed write");
        check(&log, &steps, acknowledged, steps.len().min(acknowledged + 1));
    }
}

#[test]
fn what_a_killed_process_had_named_is_durable_before_it_is_used() {
    let steps = life(80);
    let whole = SimDisk::new(5);
    run(&whole, &steps);
    for op in 1..whole.ops() {
        for seed in 0..4 {
            let disk = SimDisk::new(op * 31 + seed);
            disk.fail_at(op);
            run(&disk, &steps);
            // The process ends, the machine lives: what was not synced is still seen
            disk.restart_faults();
            let log = open(&disk).unwrap_or_else(|e| panic!("failed at {op}: {e}"));
            let next = Position { term: 99, index: log.state().last.index + 1 };
            start(&log, Step::Append(next)).expect("accepts").recv().expect("answers").expect("durable");
            drop(log);
            disk.restart();
            let log = open(&disk).unwrap_or_else(|e| panic!("failed at {op}, then a power cut: {e}"));
            assert_eq!(log.state().last, next, "failed at {op}");
        }
    }
}

#[test]
fn a_full_disk_is_an_error_that_says_so() {
    let disk = SimDisk::new(6);
    disk.set_capacity(100 << 10);
    let log = open(&disk).expect("opens");
    let mut errors = Vec::new();
    for index in 1..200 {
        if let Ok(ack) = start(&log, Step::Append(Position { term: 1, index })) {
            errors.extend(ack.recv().expect("answers").err());
        }
    }
    assert!(matches!(errors[..], [LogError::Io { full: true, .. }]), "{errors:?}");
    let last = log.state().last.index;
    drop(log);
    let log = open(&disk).expect("opens again");
    assert!(log.state().last.index < last && log.state().last.index > 5);
}

#[test]
fn purged_entries_stay_readable_until_history_is_full() {
    let disk = SimDisk::new(8);
    let log = open(&disk).expect("opens");
    let append = |log: &Log, index| {
        start(log, Step::Append(Position { term: 1, index }))
            .expect("accepts")
            .recv()
            .expect("answers")
            .expect("durable")
    };
    (1..=7).for_each(|i| append(&log, i));
    start(&log, Step::Purge(Position { term: 1, index: 7 }))
        .expect("accepts")
        .recv()
        .expect("answers")
        .expect("durable");
    assert_eq!(log.read(2..5, usize::MAX).expect("purged entries read").len(), 3);
    drop(log);
    let log = open(&disk).expect("opens");
    let read = log.read(2..5, usize::MAX).expect("purged entries read after a restart");
    assert_eq!(read.iter().map(|r| r.index).collect::<Vec<_>>(), [2, 3, 4]);
    (8..=100).for_each(|i| append(&log, i));
    start(&log, Step::Purge(Position { term: 1, index: 100 }))
        .expect("accepts")
        .recv()
        .expect("answers")
        .expect("durable");
    let kept: usize = disk.list().expect("lists").iter().filter(|n| n.starts_with("log-")).count();
    assert!(kept <= 4, "{kept} segments of 32 KiB are kept for 64 KiB of history");
    let Err(LogError::Purged { oldest }) = log.read(2..5, usize::MAX) else { panic!("entry 2 is gone") };
    assert_eq!(log.read(oldest..oldest + 1, usize::MAX).expect("the oldest reads")[0].index, oldest);
}

#[test]
fn another_nodes_directory_is_refused() {
    let disk = SimDisk::new(9);
    drop(open(&disk).expect("opens"));
    let other = Log::open(Arc::new(disk.clone()), LogOptions { node: 8, ..options() });
    assert!(matches!(other.err(), Some(LogError::Foreign { found: 7, expected: 8 })));
}

#[test]
fn an_entry_larger_than_a_segment_gets_its_own() {
    let dir = tempfile::tempdir().expect("temp dir");
    let open = || Log::open(Arc::new(RealDisk::open(dir.path()).expect("opens")), options()).expect("opens");
    let log = open();
    let large = Bytes::from(vec![7u8; 100_000]);
    for index in 1..=3 {
        let (tx, rx) = channel();
        let (kind, position) = (Kind::Batch, Position { term: 1, index });
        let entry = Append { kind, position, payload: Arc::new(large.clone()) };
        log.append([entry], Box::new(move |r| drop(tx.send(r)))).expect("accepts");
        rx.recv().expect("answers").expect("durable");
    }
    drop(log);
    let read = open().read(1..4, usize::MAX).expect("reads");
    assert!(read.len() == 3 && read.iter().all(|r| r.payload == large));
}

const SEGMENT: &str = "log-0000000000000001";

/// A log whose node died right after its last write was acknowledged, before any high-water record covered it: the disk, where the
/// last group lies, and what the log says with and without it.
fn died_after_its_last_write(last: Bytes) -> (SimDisk, std::ops::Range<usize>, [Shown; 2]) {
    let disk = SimDisk::new(10);
    assert_eq!(run(&disk, &life(4)), 4);
    let end = |disk: &SimDisk| {
        let bytes = disk.contents(SEGMENT).expect("the first segment");
        bytes.iter().rposition(|b| *b != 0).map_or(0, |at| (at + 1).next_multiple_of(4096))
    };
    let (from, before) = (end(&disk), snapshot(&open(&disk).expect("opens")));
    let log = open(&disk).expect("opens");
    let mark = disk.contents("highwater").expect("the high-water record");
    // The next write is the last one: the power goes at the high-water record behind it
    disk.cut_at(disk.ops() + 2);
    let (tx, rx) = channel();
    let position = Position { term: 9, index: log.state().last.index + 1 };
    let entry = Append { kind: Kind::Batch, position, payload: Arc::new(last) };
    log.append([entry], Box::new(move |r| drop(tx.send(r)))).expect("accepts");
    rx.recv().expect("answers").expect("durable");
    drop(log);
    disk.restart();
    let half_written = disk.contents("highwater").expect("the high-water record");
    for slot in [0, 4096].into_iter().filter(|at| half_written[*at..at + 4096] != mark[*at..at + 4096]) {
        disk.unwrite("highwater", slot, 4096);
    }
    let to = end(&disk);
    let after = snapshot(&open(&disk.fork()).expect("opens"));
    assert_eq!(after.0.last, position);
    (disk, from..to, [before, after])
}

/// Some sectors of it are zeros by right, at its end and in the middle.
fn a_last_entry() -> Bytes {
    let mut bytes: Vec<u8> = (0..6000u32).map(|i| (i % 251) as u8 | 1).collect();
    bytes[1500..3700].fill(0);
    bytes.into()
}

#[test]
fn damage_to_the_last_group_is_found_before_any_mark_covers_it() {
    let (disk, group, [_, after]) = died_after_its_last_write(a_last_entry());
    let (mut found, mut harmless) = (0, 0);
    for byte in group.clone().step_by(3).chain(group.start..group.start + 128) {
        let copy = disk.fork();
        copy.flip(SEGMENT, byte as u64 * 8 + byte as u64 % 8);
        match open(&copy) {
            Err(LogError::Corrupt { .. } | LogError::Newer(_)) => found += 1,
            Err(other) => panic!("byte {byte}: {other}"),
            Ok(log) => {
                assert_eq!(snapshot(&log), after, "a flip of byte {byte} changed what the log says");
                harmless += 1;
            }
        }
    }
    assert!(found > 1500 && harmless > 100, "found {found}, harmless {harmless} (padding)");
    // Whole sectors of nonsense are no torn write, either
    for sector in group.step_by(512) {
        let copy = disk.fork();
        (0..512 * 8).step_by(3).for_each(|bit| copy.flip(SEGMENT, sector as u64 * 8 + bit));
        match open(&copy) {
            Err(LogError::Corrupt { .. }) => {}
            Ok(log) => assert_eq!(snapshot(&log), after, "nonsense at {sector} changed what the log says"),
            Err(other) => panic!("sector at {sector}: {other}"),
        }
    }
}

#[test]
fn a_write_torn_at_any_sector_is_dropped_and_the_log_goes_on() {
    let (disk, group, [before, after]) = died_after_its_last_write(a_last_entry());
    let sectors: Vec<usize> = group.clone().step_by(512).collect();
    let one = sectors.iter().map(|at| vec![*at]);
    let cut = (0..sectors.len()).map(|n| sectors[n..].to_vec());
    let late = (1..sectors.len()).map(|n| sectors[..n].to_vec());
    let some = (0..40).map(|seed| {
        let kept = |at: &&usize| look::base::mix64(seed ^ look::base::mix64(**at as u64)) & 1 == 0;
        sectors.iter().filter(kept).copied().collect()
    });
    let (mut dropped, mut whole) = (0, 0);
    for missing in one.chain(cut).chain(late).chain(some) {
        let copy = disk.fork();
        missing.iter().for_each(|at| copy.unwrite(SEGMENT, *at, 512));
        let log = open(&copy).unwrap_or_else(|e| panic!("without sectors at {missing:?}: {e}"));
        if log.state().last == after.0.last {
            assert_eq!(snapshot(&log), after, "without sectors at {missing:?}, which are zeros");
            whole += 1;
            continue;
        }
        dropped += 1;
        assert_eq!(snapshot(&log), before, "without sectors at {missing:?}");
        // What the torn write left behind is in nobody's way: the next one is torn, too
        copy.cut_at(copy.ops() + 2);
        let next = Position { term: 10, index: log.state().last.index + 1 };
        start(&log, Step::Append(next)).expect("accepts").recv().expect("answers").expect("durable");
        drop(log);
        copy.restart();
        copy.unwrite(SEGMENT, group.start + 512, 512);
        let log = open(&copy).unwrap_or_else(|e| panic!("torn again after {missing:?}: {e}"));
        assert_eq!(snapshot(&log), before);
    }
    assert!(dropped > 60 && whole >= 5, "dropped {dropped}, whole {whole}");
}
