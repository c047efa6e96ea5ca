//! The checkers of histories, themselves checked: what is legal passes, and each kind of wrong history is found.

mod common;

use common::Random;
use history::models::{Calls, Keys, Register, RegisterOp as Op, RegisterReply as Reply, Replies, check_registers};
use history::verdict::{AtLeast, Verdict, Work, judge};
use history::{Checked, History, Model, Operation, Outcome, Time, linear, witness};

type Seen = Operation<Op, Reply>;

fn ok(op: Op, called: Time, returned: Time, reply: Reply) -> Seen {
    Operation { client: 0, op, called, returned, outcome: Outcome::Ok(reply), epoch: None }
}

fn unknown(op: Op, called: Time) -> Seen {
    Operation { client: 0, op, called, returned: Time::MAX, outcome: Outcome::Unknown, epoch: None }
}

fn set(value: &str) -> Op {
    Op::Set(value.into())
}

fn text(value: &str) -> Reply {
    Reply::Text(value.into())
}

fn passes(operations: &[Seen]) -> bool {
    match linear::check(&Register, operations) {
        Checked::Ok(_) => true,
        Checked::Violation(_) => false,
        Checked::GaveUp(why) => panic!("gave up: {why}"),
    }
}

#[test]
fn concurrent_operations_may_be_in_any_order() {
    assert!(passes(&[ok(set("a"), 0, 10, Reply::Ok), ok(Op::Get, 1, 2, text("a")), ok(Op::Get, 3, 4, text("a"))]));
    assert!(passes(&[ok(set("a"), 0, 10, Reply::Ok), ok(Op::Get, 1, 2, Reply::Nil), ok(Op::Get, 3, 4, text("a"))]));
    assert!(passes(&[ok(Op::Incr(1), 0, 10, Reply::Int(2)), ok(Op::Incr(1), 1, 9, Reply::Int(1))]));
    // Called at the instant of the return: concurrent
    assert!(passes(&[ok(set("a"), 0, 5, Reply::Ok), ok(Op::Get, 5, 6, Reply::Nil)]));
}

#[test]
fn a_stale_read_is_found() {
    assert!(!passes(&[ok(set("a"), 0, 1, Reply::Ok), ok(Op::Get, 2, 3, Reply::Nil)]));
    assert!(!passes(&[ok(set("a"), 0, 10, Reply::Ok), ok(Op::Get, 1, 2, text("a")), ok(Op::Get, 3, 4, Reply::Nil)]));
}

#[test]
fn a_lost_a_doubled_and_an_invented_write_are_found() {
    assert!(!passes(&[ok(Op::Incr(1), 0, 5, Reply::Int(1)), ok(Op::Incr(1), 1, 4, Reply::Int(1))]));
    assert!(!passes(&[ok(Op::Incr(1), 0, 1, Reply::Int(1)), ok(Op::Get, 2, 3, text("2"))]));
    assert!(!passes(&[ok(Op::Append("x".into()), 0, 1, Reply::Int(1)), ok(Op::Get, 2, 3, text("xx"))]));
    assert!(!passes(&[ok(Op::Get, 0, 1, text("nobody wrote this"))]));
}

#[test]
fn an_unknown_write_may_happen_late_or_never_but_once() {
    let lost = unknown(Op::Incr(5), 0);
    assert!(passes(&[lost.clone(), ok(Op::Get, 10, 11, Reply::Nil), ok(Op::Get, 12, 13, text("5"))]));
    assert!(passes(&[lost.clone(), ok(Op::Get, 10, 11, Reply::Nil)]));
    assert!(!passes(&[lost.clone(), ok(Op::Get, 10, 11, text("5")), ok(Op::Get, 12, 13, text("10"))]));
    assert!(!passes(&[lost, ok(Op::Get, 10, 11, text("5")), ok(Op::Get, 12, 13, Reply::Nil)]));
    // Not before its call
    assert!(!passes(&[ok(Op::Get, 0, 1, text("5")), unknown(Op::Incr(5), 2)]));
}

#[test]
fn a_failed_write_that_took_effect_is_found() {
    let mut history = History::default();
    let call = history.call(1, set("a"), 0);
    history.fail(call, 1);
    let call = history.call(1, Op::Get, 2);
    history.ok(call, text("a"), None, 3);
    assert!(!passes(&history.operations));
    assert_eq!(history.counts(), (1, 1, 0));
}

#[test]
fn the_key_at_fault_is_named() {
    let operations = [(1, ok(set("a"), 0, 1, Reply::Ok)), (2, ok(Op::Get, 2, 3, text("a")))];
    let Checked::Violation(why) = linear::check_keys(&Register, operations) else { panic!("not found") };
    assert!(why.starts_with("key 2: "), "{why}");
}

/// Registers whose operations take effect at a random instant between call and return; some replies never come.
fn simulated(random: &mut Random, operations: usize, keys: usize) -> Vec<Operation<Calls, Replies>> {
    let mut states = vec![None; keys];
    let mut epoch = 0;
    let mut one = |i: usize| {
        let (key, effect) = (random.below(keys), 100 * i as Time + 1_000);
        let called = effect - random.below(500) as Time;
        let op = match random.below(10) {
            0 | 1 => set(&random.below(1000).to_string()),
            2 | 3 => Op::Incr(random.below(9) as i64),
            4 => Op::Append("1".into()),
            5 => Op::Del,
            _ => Op::Get,
        };
        let calls = vec![(key as u32, op)];
        let no_reply = random.below(2000) == 0;
        if no_reply && random.chance(50) {
            return lost(called, calls, None);
        }
        let op = &calls[0].1;
        let reply = Register.step(&mut states[key], op);
        epoch += u64::from(Register.writes(op));
        if no_reply {
            return lost(called, calls, Some(epoch));
        }
        at(epoch, called, effect + random.below(500) as Time, calls, vec![reply])
    };
    (0..operations).map(&mut one).collect()
}

#[test]
fn many_operations_are_checked_in_about_a_second() {
    let operations = common::setting("LOOK_HISTORY_OPERATIONS", 1_000_000);
    let history = simulated(&mut Random::new(7), operations as usize, 100);
    let begin = std::time::Instant::now();
    let checked = check_registers(&history, &[]);
    let took = begin.elapsed();
    for (name, checked) in checked {
        let Checked::Ok(count) = checked else { panic!("{name}: {checked:?}") };
        assert!(count > operations * 99 / 100, "{name}: only {count} were checked");
    }
    eprintln!("checkers: {operations} operations on 100 keys, both checks in {took:?}");
}

/// An operation with a reply and its epoch.
fn at(epoch: u64, called: Time, returned: Time, calls: Calls, replies: Replies) -> Operation<Calls, Replies> {
    let outcome = Outcome::Ok(replies);
    Operation { client: 0, op: calls, called, returned, outcome, epoch: Some(epoch) }
}

fn lost(called: Time, calls: Calls, epoch: Option<u64>) -> Operation<Calls, Replies> {
    Operation { client: 0, op: calls, called, returned: Time::MAX, outcome: Outcome::Unknown, epoch }
}

/// What is wrong with the history, if anything.
fn wrong(operations: &[Operation<Calls, Replies>]) -> Option<String> {
    match witness::check(&Keys(Register), operations) {
        Checked::Ok(_) => None,
        Checked::Violation(why) => Some(why),
        Checked::GaveUp(why) => panic!("gave up: {why}"),
    }
}

fn incr(key: u32) -> Calls {
    vec![(key, Op::Incr(1))]
}

fn get(key: u32) -> Calls {
    vec![(key, Op::Get)]
}

#[test]
fn a_story_in_order_of_epochs_passes() {
    let both = vec![(1, Op::Incr(1)), (2, Op::Incr(1))];
    let story = [
        at(4, 0, 9, both, vec![Reply::Int(1), Reply::Int(1)]),
        at(5, 1, 3, incr(1), vec![Reply::Int(2)]),
        at(5, 4, 6, vec![(1, Op::Get), (2, Op::Get)], vec![text("2"), text("1")]),
        at(4, 1, 2, get(1), vec![text("1")]),
    ];
    assert_eq!(wrong(&story), None);
}

#[test]
fn epochs_against_real_time_are_found() {
    let story = [at(2, 0, 1, incr(1), vec![Reply::Int(2)]), at(1, 2, 3, incr(1), vec![Reply::Int(1)])];
    assert!(wrong(&story).is_some_and(|why| why.starts_with("epochs disagree with real time")));
    let stale = [at(1, 0, 1, incr(1), vec![Reply::Int(1)]), at(0, 2, 3, get(1), vec![Reply::Nil])];
    assert!(wrong(&stale).is_some_and(|why| why.starts_with("epochs disagree with real time")));
    // A write without a reply that was found before what had returned when it was called
    let found = [at(3, 0, 1, incr(1), vec![Reply::Int(2)]), lost(2, incr(1), Some(2))];
    assert!(wrong(&found).is_some_and(|why| why.starts_with("epochs disagree with real time")));
}

#[test]
fn one_epoch_for_two_writes_is_found() {
    let story = [at(1, 0, 9, incr(1), vec![Reply::Int(1)]), at(1, 0, 9, incr(2), vec![Reply::Int(1)])];
    assert!(wrong(&story).is_some_and(|why| why.starts_with("two writes at one epoch")));
}

#[test]
fn a_torn_transaction_and_a_doubled_write_are_found() {
    let both = vec![(1, Op::Incr(1)), (2, Op::Incr(1))];
    let torn = [
        at(1, 0, 1, both, vec![Reply::Int(1), Reply::Int(1)]),
        at(1, 2, 3, vec![(1, Op::Get), (2, Op::Get)], vec![text("1"), Reply::Nil]),
    ];
    assert!(wrong(&torn).is_some_and(|why| why.starts_with("a replay")));
    let doubled = [at(1, 0, 1, incr(1), vec![Reply::Int(1)]), at(3, 2, 3, incr(1), vec![Reply::Int(3)])];
    assert!(wrong(&doubled).is_some_and(|why| why.starts_with("a replay")));
}

#[test]
fn a_lost_write_explains_one_left_out_epoch() {
    let story = [
        at(1, 0, 1, incr(1), vec![Reply::Int(1)]),
        lost(2, incr(1), None),
        lost(2, incr(2), None),
        at(4, 9, 10, incr(1), vec![Reply::Int(3)]),
    ];
    assert_eq!(wrong(&story), None);
    let no_gap =
        [at(1, 0, 1, incr(1), vec![Reply::Int(1)]), lost(2, incr(1), None), at(2, 9, 10, incr(1), vec![Reply::Int(3)])];
    assert!(wrong(&no_gap).is_some());
    let called_too_late =
        [at(1, 0, 1, incr(1), vec![Reply::Int(1)]), at(3, 2, 3, incr(1), vec![Reply::Int(3)]), lost(4, incr(1), None)];
    assert!(wrong(&called_too_late).is_some());
}

#[test]
fn a_read_of_the_past_sees_its_epoch_whenever_it_is_asked() {
    let both = vec![(1, Op::Incr(1)), (2, Op::Incr(1))];
    let past = |epoch, reply| Operation::of_the_past(0, get(1), epoch, vec![reply]);
    let transaction = at(2, 0, 1, both, vec![Reply::Int(1), Reply::Int(1)]);
    assert_eq!(wrong(&[transaction.clone(), past(1, Reply::Nil), past(2, text("1"))]), None);
    let half = wrong(&[transaction, past(1, text("1"))]);
    assert!(half.is_some_and(|why| why.starts_with("a replay")));
}

/// Calls on a few keys in the order of their epochs; one write in six has no reply.
fn with_lost_writes(seed: u64) -> Vec<Operation<Calls, Replies>> {
    let mut random = Random::new(seed);
    let (model, mut epoch) = (Keys(Register), 0);
    let mut state = model.initial();
    let mut one = |now: Time| {
        let call = |random: &mut Random| match (random.below(6) as u32, random.below(4)) {
            (key, 0) => (key, Op::Get),
            (key, 1) => (key, set(if random.chance(50) { "1" } else { "2" })),
            (key, _) => (key, Op::Incr(1 + random.below(2) as i64)),
        };
        let calls: Calls = (0..1 + random.below(2)).map(|_| call(&mut random)).collect();
        let replies = model.step(&mut state, &calls);
        let writes = model.writes(&calls);
        epoch += u64::from(writes);
        match writes && random.chance(17) {
            true => lost(now, calls, None),
            false => at(epoch, now, now + 1, calls, replies),
        }
    };
    (0..300).map(|i| one(i * 2)).collect()
}

#[test]
fn many_lost_writes_are_explained_and_do_not_hide_a_wrong_reply() {
    for seed in 1..=20 {
        let mut story = with_lost_writes(seed);
        assert_eq!(wrong(&story), None, "seed {seed}");
        // A number that nothing can have made, early: who looks for an explanation has little to try
        let early = story.iter_mut().find(|o| o.epoch > Some(5)).expect("some have a reply");
        early.outcome = Outcome::Ok(vec![Reply::Int(-7); early.op.len()]);
        assert!(wrong(&story).is_some(), "seed {seed}");
    }
}

#[test]
fn a_run_that_did_little_is_invalid_and_a_violation_is_not_hidden_by_it() {
    let mut work = Work { operations: 10, ..Work::default() };
    work.fault("kill");
    let least = AtLeast { operations: 10, faults: [("kill", 1)].into() };
    let sound = [("linear", Checked::Ok(10))];
    assert_eq!(judge(&work, &least, &sound), Verdict::Pass);
    let more = AtLeast { operations: 11, ..least.clone() };
    assert!(matches!(judge(&work, &more, &sound), Verdict::Invalid(_)));
    let kinds = AtLeast { faults: [("kill", 1), ("partition", 1)].into(), ..least.clone() };
    assert!(matches!(judge(&work, &kinds, &sound), Verdict::Invalid(_)));
    assert!(matches!(judge(&work, &least, &[("linear", Checked::GaveUp("long".into()))]), Verdict::Invalid(_)));
    assert!(matches!(judge(&work, &least, &[("linear", Checked::Ok(0))]), Verdict::Invalid(_)));
    assert!(matches!(judge(&work, &more, &[("linear", Checked::Violation("x".into()))]), Verdict::Fail(_)));
}
