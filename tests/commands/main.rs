//! Redis's commands as programs: each documentation example against both engines, and random sequences against the real Redis.

mod bench;
mod cli;

use bench::Bench;
use look::lang::engine::Engine;
use look::lang::env::Ended;

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
