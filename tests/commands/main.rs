//! Redis's commands as programs, on both engines: each documentation example, and random commands against their bounds.

mod bench;
mod bounds;
mod cli;
#[path = "../common/mod.rs"]
mod common;
#[path = "../differential/grammar.rs"]
#[allow(dead_code)]
mod grammar;

use bench::Bench;
use look::lang::engine::Engine;
use look::lang::env::Ended;
use look::lang::module::compile_module;

/// Every example of every command, in a fresh store, on one engine.
fn examples_hold(engine: Engine) {
    let mut bad = Vec::new();
    let mut shown = 0;
    let mut bench = Bench::new(engine);
    for (command, own_store) in bench::commands_of("redis")
        .iter()
        .map(|c| (c, false))
        .chain(bench::commands_of("examples").iter().map(|c| (c, true)))
    {
        // a program's collections are not of the keyspace, and nothing flushes them
        if own_store {
            bench = Bench::new(engine);
        }
        bench.run(&[b"FLUSHALL".to_vec()]);
        for example in &command.examples {
            shown += 1;
            let reply = bench.run(&cli::words(&example.command));
            let got = cli::print(&reply).0;
            if got != example.reply {
                bad.push(format!(
                    "{}: > {}\n  want {:?}\n  got  {got:?}",
                    command.name, example.command, example.reply
                ));
            }
        }
    }
    assert!(shown > 100, "{shown} examples");
    assert!(bad.is_empty(), "{} of {shown} examples differ:\n{}", bad.len(), bad.join("\n"));
}

#[test]
fn examples_hold_when_interpreted() {
    examples_hold(Engine::Interp);
}

#[test]
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn examples_hold_when_compiled() {
    examples_hold(Engine::Jit);
}

/// What the type of a function's parameter or result promises holds in the function and after it; else the call has no effects.
#[test]
fn limits_of_parameters_and_results_hold_at_the_call() {
    let source = "
        fn half(n: int 0..=10) -> int 1.. { n / 2 }
        fn short(w: bytes<=3) -> bytes { w }
        command HALF(key: key, n: int) -> int { let slot = db.slot(key); slot.put(int(n), none); reply half(n) }
        read command SHORT(w: bytes) -> bytes { reply short(w) }";
    let module = compile_module(source, "limits", look::lang::helpers::table()).unwrap_or_else(|e| panic!("{e:?}"));
    for engine in [Engine::Jit, Engine::Interp] {
        let mut bench = Bench::with(engine, module.commands.clone());
        let mut says = |line: &str, reply: &str| {
            assert_eq!(String::from_utf8_lossy(&bench.run(&cli::words(line))), reply, "{line} under {engine:?}");
        };
        let out = "-ERR value is out of the range of its field\r\n";
        says("HALF k 9", ":4\r\n");
        for n in ["11", "-1", "1", "9223372036854775807"] {
            says(&format!("HALF k {n}"), out);
            says("GET k", "$1\r\n9\r\n");
        }
        says("SHORT abc", "$3\r\nabc\r\n");
        says("SHORT abcd", "-ERR value is too long for its field\r\n");
    }
}

/// Every entry once, the same on both engines, within the bound; and no more turns than the limit says.
#[test]
fn loops_over_maps_and_sets_see_every_entry_once() {
    let source = "
        collection stock : map<(shelf: bytes<=8, id: int), int>
        collection marks : set<bytes<=300>
        command PUT(shelf: bytes<=8, id: int, count: int) -> ok { stock.put((shelf, id), count); reply ok }
        command DROP(shelf: bytes<=8, id: int) -> bool { reply stock.remove((shelf, id)) }
        command MARK(word: bytes<=300) -> bool { reply marks.insert(word) }
        read command TOTAL(most: int 0..=1000) -> (int, int, bool) {
            var sum = 0
            var entries = 0
            var whole = true
            for ((_, id), count) in stock limit most { entries += 1; sum += count * id } exhausted { whole = false }
            reply (entries, sum, whole) }
        read command MARKS() -> (int, int) {
            var bytes = 0
            var entries = 0
            for w in marks limit 1000 { entries += 1; bytes += w.len }
            reply (entries, bytes) }";
    let module = compile_module(source, "loops", look::lang::helpers::table()).unwrap_or_else(|e| panic!("{e:?}"));
    let mut random = common::Random::new(7);
    let mut benches = [Engine::Jit, Engine::Interp].map(|engine| Bench::with(engine, module.commands.clone()));
    let (mut stock, mut marks) = (std::collections::BTreeMap::new(), std::collections::BTreeSet::new());
    for round in 0..400 {
        let (shelf, id) = ("s".repeat(random.below(8)), random.below(40));
        let word = "m".repeat(random.below(300));
        let line = match random.below(4) {
            0 => {
                stock.remove(&(shelf.clone(), id));
                format!("DROP \"{shelf}\" {id}")
            }
            1 => {
                marks.insert(word.clone());
                format!("MARK \"{word}\"")
            }
            _ => {
                stock.insert((shelf.clone(), id), round);
                format!("PUT \"{shelf}\" {id} {round}")
            }
        };
        for bench in &mut benches {
            bench.run(&cli::words(&line));
            let sum: usize = stock.iter().map(|((_, id), count)| id * count).sum();
            let all = stock.len();
            let total = String::from_utf8_lossy(&bench.run(&cli::words("TOTAL 1000"))).into_owned();
            assert_eq!(total, format!("*3\r\n:{all}\r\n:{sum}\r\n:1\r\n"), "{line}");
            let few = String::from_utf8_lossy(&bench.run(&cli::words("TOTAL 3"))).into_owned();
            assert!(few.starts_with(&format!("*3\r\n:{}\r\n", all.min(3))), "{few}");
            let (count, bytes) = (marks.len(), marks.iter().map(String::len).sum::<usize>());
            let seen = String::from_utf8_lossy(&bench.run(&cli::words("MARKS"))).into_owned();
            assert_eq!(seen, format!("*2\r\n:{count}\r\n:{bytes}\r\n"));
        }
        assert_eq!(benches[0].spent, benches[1].spent, "{line}");
    }
    assert!(stock.len() > 100, "INVALID: {} entries", stock.len());
}

/// The way of a large read: its own lookup finds the size out, and nothing is answered on the connection's thread.
#[test]
fn a_read_that_meets_a_value_beyond_its_patience_answers_nothing() {
    for engine in [Engine::Jit, Engine::Interp] {
        let mut bench = Bench::new(engine);
        bench.run(&cli::words("SET k 123456789012345678901234567890123456789012345678901234567890123456789"));
        let get = cli::words("GET k");
        assert_eq!(bench.read(&get, 1), (Ended::Large, Vec::new()));
        let (ended, reply) = bench.read(&get, 2);
        assert_eq!((ended, reply.len()), (Ended::Done, 76));
        assert_eq!(bench.read(&cli::words("GET absent"), 0).0, Ended::Done);
    }
}
