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
