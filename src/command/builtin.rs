//! # The embedded commands
//!
//! Redis's own commands, a source file per family, compiled from their text at every start: the same way that installed programs
//! take, so that there is no second one.

use super::{Command, Docs, LEVEL, Table, handler_number};
use crate::lang::diag::Diagnostic;
use crate::lang::engine::{Code, Engine};
use crate::lang::grammar::KeyEnd;
use crate::lang::helpers;
use crate::lang::poly::Atom;
use crate::lang::table::Helper;
use crate::lang::types::Type;
use crate::lang::verify::{HelperShape, Verified, check};
use crate::lang::{self, compile_module};

macro_rules! sources {
    ($($name:literal),*) => {
        /// File name and text of every embedded module.
        pub const SOURCES: &[(&str, &str)] =
            &[$((concat!("commands/redis/", $name, ".look"), include_str!(concat!("../../commands/redis/", $name, ".look")))),*];
    };
}
sources!("string", "bitmap", "generic", "list", "set", "hash", "zset", "server");

/// Why the embedded commands do not compile: a defect of this build.
#[derive(Debug, thiserror::Error)]
pub enum BuiltinError {
    #[error("{0}")]
    Source(String),
    #[error("the program of '{0}' is refused by the verifier: {1}")]
    Program(String, String),
}

/// All embedded modules, compiled; with the rendered diagnostics of those that do not.
pub fn modules() -> (Vec<lang::Command>, Vec<String>) {
    let (mut commands, mut wrong) = (Vec::new(), Vec::new());
    for (file, source) in SOURCES {
        match compile_module(source, file, helpers::table()) {
            Ok(module) => commands.extend(module.commands),
            Err(diagnostics) => wrong.extend(diagnostics.iter().map(|d: &Diagnostic| d.render(file, source))),
        }
    }
    (commands, wrong)
}

/// The code table of this build.
pub fn table(engine: Engine) -> Result<Table, BuiltinError> {
    let (compiled, wrong) = modules();
    if !wrong.is_empty() {
        return Err(BuiltinError::Source(wrong.join("\n")));
    }
    let width = |t: &Type| t.width() as u8;
    let shape =
        |h: &Helper| HelperShape { args: h.params.iter().map(|p| width(&p.1)).sum(), results: width(&h.result) };
    let shapes: Vec<HelperShape> = helpers::table().helpers.iter().map(shape).collect();
    let (mut commands, mut programs) = (Vec::new(), Vec::<Verified>::new());
    for command in compiled {
        let program = check(command.program.clone(), &shapes)
            .map_err(|e| BuiltinError::Program(command.name.clone(), e.to_string()))?;
        commands.push(entry(command, programs.len()));
        programs.push(program);
    }
    debug_assert_eq!(LEVEL, 1);
    Ok(Table::new(commands, Code::build(engine, &programs)))
}

fn entry(command: lang::Command, program: usize) -> Command {
    let name = command.name.to_lowercase().replace(' ', "|");
    let handler = handler_number(&name);
    let write = command.is_write();
    let lines = command.cost_by_line.iter().map(|line| {
        let name_of = |slot: u16| command.grammar.name_at(slot);
        (line.line, format!("{} ops, {} locs", line.ops.text(&name_of), line.locs.text(&name_of)))
    });
    Command {
        lines: lines.collect(),
        always_cheap: always_cheap(&command),
        first_hash_word: command.keys.first().filter(|k| k.last == KeyEnd::Same).map(|k| k.param as usize + 1),
        handler,
        program,
        write,
        may_abort_after_write: command.may_abort_after_write,
        cost: command.cost,
        grammar: command.grammar,
        docs: Docs {
            summary: command.summary,
            since: command.since,
            group: command.group,
            complexity: command.complexity,
            flags: command.flags,
        },
        name,
    }
}

/// Nothing but the length of byte strings and depths makes it cost more, and no product of those. What is stored does not count for a
/// write: its bound is judged before the log, by its arguments alone.
fn always_cheap(command: &lang::Command) -> bool {
    let of_state = |atom: &Atom| matches!(atom, Atom::Len(_));
    let judged = |atoms: &[Atom]| !(command.is_write() && atoms.iter().any(of_state));
    command.cost.ops.terms().iter().filter(|(atoms, _)| judged(atoms)).all(|(atoms, n)| {
        *n < 10_000
            && match atoms.as_slice() {
                [] => true,
                [atom] => matches!(atom, Atom::Blocks(_) | Atom::Depth(_)),
                _ => false,
            }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_command_compiles() {
        let (commands, wrong) = modules();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(commands.len() > 80, "{}", commands.len());
        table(Engine::Jit).map(|_| ()).unwrap();
    }
}
