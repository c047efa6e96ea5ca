//! Redis's commands as programs: each documentation example against both engines, and random sequences against the real Redis.

mod bench;
mod cli;

use bench::Bench;
use look::lang::engine::Engine;

/// Every example of every command, in a fresh store, on one engine.
fn examples_hold(engine: Engine) {
    let mut bad = Vec::new();
    let mut shown = 0;
    let mut bench = Bench::new(engine);
    for command in bench::all_commands() {
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
