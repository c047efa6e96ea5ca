//! # The embedded commands
//!
//! Redis's own commands, a source file per family, compiled from their text at every start: the same way that installed programs
//! take, so that there is no second one.

use super::{Command, Docs, LARGE_READ_OPS, LEVEL, Table, handler_number};
use crate::lang::diag::Diagnostic;
use crate::lang::engine::{Code, Engine};
use crate::lang::grammar::KeyEnd;
use crate::lang::helpers;
use crate::lang::poly::{Atom, Atoms, Place, Poly};
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
        fast: always_cheap(&command) || command.flags.iter().any(|flag| flag == "fast"),
        weighs_stored: weighs_stored(&command),
        large_from: large_from(&command),
        hash_word: match &command.keys[..] {
            [key] if key.last == KeyEnd::Same => Some(key.param as usize + 1),
            _ => None,
        },
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
/// write: that is judged apart, where it weighs.
fn always_cheap(command: &lang::Command) -> bool {
    let judged = |atoms: &[Atom]| !(command.is_write() && atoms.iter().any(Atom::is_of_state));
    command.cost.ops.terms().iter().filter(|(atoms, _)| judged(atoms)).all(|(atoms, n)| {
        *n < 10_000
            && match atoms.as_slice() {
                [] => true,
                [atom] => matches!(atom, Atom::Blocks(_) | Atom::Depth(_)),
                _ => false,
            }
    })
}

/// A write whose bound grows faster with what is stored than by one string that it reads once: a step for 64 bytes, 8 million at most.
fn weighs_stored(command: &lang::Command) -> bool {
    let light = |(atoms, n): &(Atoms, u64)| match atoms.as_slice() {
        [Atom::Len(Place::Key(_))] => *n == 1,
        atoms => !atoms.iter().any(Atom::has_len),
    };
    command.is_write() && !command.cost.ops.terms().iter().all(light)
}

/// The size of the values under a read's keys up to which its bound is at most [`LARGE_READ_OPS`]; None when more than that decides.
fn large_from(command: &lang::Command) -> Option<u64> {
    let (fixed, per_entry) = line(&command.cost.ops).filter(|_| !command.is_write())?;
    Some(LARGE_READ_OPS.checked_sub(fixed)? / per_entry.max(1))
}

/// A bound as (constant, factor of the size of the value under a key); lengths of arguments and depths count 1, as in
/// [`always_cheap`].
fn line(bound: &Poly) -> Option<(u64, u64)> {
    bound.terms().iter().try_fold((0u64, 0u64), |(fixed, slope), (atoms, n)| {
        let (a, b) = match atoms.as_slice() {
            [] => (1, 0),
            [atom] => line_of(atom)?,
            _ => return None,
        };
        Some((fixed.saturating_add(n.saturating_mul(a)), slope.saturating_add(n.saturating_mul(b))))
    })
}

fn line_of(atom: &Atom) -> Option<(u64, u64)> {
    match atom {
        Atom::Blocks(_) | Atom::Depth(_) => Some((1, 0)),
        Atom::Len(Place::Key(_)) | Atom::Total(Place::Key(_)) | Atom::Longest(Place::Key(_)) => Some((0, 1)),
        // either bounds it: the one that grows less
        Atom::Least(two) => two.iter().filter_map(line).min_by_key(|(fixed, slope)| (*slope, *fixed)),
        Atom::Signed(_, two) | Atom::Chosen(_, _, two) => {
            let (a, b) = (line(&two[0])?, line(&two[1])?);
            Some((a.0.max(b.0), a.1.max(b.1)))
        }
        _ => None,
    }
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

    #[test]
    fn a_read_of_one_value_is_judged_by_the_size_that_its_own_lookup_finds() {
        let (commands, _) = modules();
        let of = |name: &str| large_from(commands.iter().find(|c| c.name == name).unwrap());
        for name in ["GET", "GETRANGE", "HGETALL", "SMEMBERS", "LRANGE", "ZRANGE", "ZSCORE"] {
            assert!(of(name).is_some_and(|n| n >= 1000), "{name}: {:?}", of(name));
        }
        for name in ["MGET", "KEYS", "SCAN", "SET"] {
            assert_eq!(of(name), None, "{name}: more than one value decides");
        }
    }

    /// Whoever is among these looks a key up before the log as well: the commands of every second's thousands are not.
    #[test]
    fn what_is_stored_is_looked_at_before_the_log_only_where_it_weighs() {
        let (commands, _) = modules();
        let weighing = commands.iter().filter(|c| weighs_stored(c)).map(|c| c.name.as_str());
        let expected = ["BITOP", "COPY", "INCRBYFLOAT", "LPOP", "RPOP", "SPOP", "ZPOPMIN"];
        assert_eq!(weighing.collect::<std::collections::BTreeSet<_>>(), expected.into());
    }
}
