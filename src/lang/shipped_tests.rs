//! The commands that come with the server, through the whole front end.

use super::check::render_all;
use super::helpers::table;
use super::module::{Module, compile_module};

fn shipped() -> Vec<(String, String)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/commands/redis");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "look") && !f.ends_with("prelude.look"));
    files.sort();
    files.iter().map(|f| (f.display().to_string(), std::fs::read_to_string(f).unwrap())).collect()
}

fn compiled() -> Vec<Module> {
    let compile = |(name, source): &(String, String)| match compile_module(source, name, table()) {
        Ok(module) => module,
        Err(errors) => panic!("{}", render_all(&errors, name, source, table())),
    };
    shipped().iter().map(compile).collect()
}

#[test]
fn every_shipped_command_compiles() {
    let mut refused = String::new();
    for (name, source) in shipped() {
        if let Err(errors) = compile_module(&source, &name, table()) {
            refused.push_str(&render_all(&errors, &name, &source, table()));
        }
    }
    assert!(refused.is_empty(), "{refused}");
}

#[test]
fn every_shipped_program_passes_the_verifier() {
    use super::verify::{HelperShape, verify};
    let shape = |h: &super::table::Helper| HelperShape {
        args: h.params.iter().map(|p| p.1.width()).sum::<usize>() as u8,
        results: h.result.width().max(1) as u8,
    };
    let shapes: Vec<HelperShape> = table().helpers.iter().map(shape).collect();
    let mut refused = String::new();
    for c in compiled().iter().flat_map(|m| &m.commands) {
        if let Err(e) = verify(&c.program, &shapes) {
            refused.push_str(&format!("{}: {e:?} of {:#?}\n", c.name, c.program.ops.iter().enumerate().collect::<Vec<_>>()));
        }
    }
    assert!(refused.is_empty(), "{refused}");
}

/// Prints everything; run with `--nocapture`.
#[test]
fn tmp_dump() {
    for c in compiled().iter().flat_map(|m| &m.commands) {
        println!("{} regs {} ops {} undo {} flags {:?} arity {} {}", c.name, c.program.regs, c.program.ops.len(), c.may_abort_after_write, c.flags, c.grammar.arity, c.cost_text());
        if c.name == "SET" || c.name == "GET" || c.name == "INCR" || c.name == "MSET" {
            for (i, op) in c.program.ops.iter().enumerate() { println!("   {i} {op:?}"); }
        }
    }
}
