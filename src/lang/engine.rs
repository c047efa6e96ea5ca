//! # engine: one call, two engines
//!
//! [`Code`] is all commands of one code epoch, ready to run. Machine code where the system lets us have executable
//! memory, else the interpreter: the same results, a few times the time.

use super::interp::{self, Prepared};
use super::ir::{Program, Trap};
use super::jit::{CodeBuffer, JitError};
use super::machine::{Head, RESULTS_MAX};
use super::verify::Verified;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Engine {
    Jit,
    Interp,
}

/// All commands of one code epoch.
pub struct Code {
    programs: Vec<Program>,
    bodies: Bodies,
    needs: Vec<Needs>,
    refused: Option<JitError>,
}

enum Bodies {
    Jit(CodeBuffer),
    Interp(Vec<Prepared>),
}

/// What a program expects of the head it runs on.
#[derive(Clone, Copy)]
struct Needs {
    args: u64,
    helpers: u64,
}

impl Code {
    /// Makes the programs ready. If machine code cannot be had, the interpreter serves: see [`Code::refused`].
    pub fn build(engine: Engine, programs: &[Verified]) -> Code {
        let needs = programs.iter().map(needs).collect();
        let (bodies, refused) = match engine {
            Engine::Jit => match CodeBuffer::compile(programs) {
                Ok(buffer) => (Bodies::Jit(buffer), None),
                Err(error) => (interpreted(programs), Some(error)),
            },
            Engine::Interp => (interpreted(programs), None),
        };
        Code { programs: programs.iter().map(|p| p.program().clone()).collect(), bodies, needs, refused }
    }

    /// The program behind `which`: its literals and texts.
    #[inline]
    pub fn program(&self, which: usize) -> &Program {
        &self.programs[which]
    }

    /// The engine that really serves.
    pub fn engine(&self) -> Engine {
        match self.bodies {
            Bodies::Jit(_) => Engine::Jit,
            Bodies::Interp(_) => Engine::Interp,
        }
    }

    /// Why machine code was asked for and could not be had.
    pub fn refused(&self) -> Option<&JitError> {
        self.refused.as_ref()
    }

    pub fn len(&self) -> usize {
        self.needs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.needs.is_empty()
    }

    /// The machine code, for perf maps and disassembly.
    pub fn buffer(&self) -> Option<&CodeBuffer> {
        match &self.bodies {
            Bodies::Jit(buffer) => Some(buffer),
            Bodies::Interp(_) => None,
        }
    }

    /// Runs program `which`. A head with too few argument words or helpers traps with [`Trap::Index`] and runs nothing.
    ///
    /// # Safety
    /// `head` is valid and uniquely borrowed for the call; its `args` holds `args_len` words; its `helpers` points to
    /// `helpers_len` helpers, in the order that the program was verified against, made for the environment that `head`
    /// is the first field of.
    #[inline]
    pub unsafe fn run(&self, which: usize, head: *mut Head) -> Result<(), Trap> {
        let needs = self.needs[which];
        // SAFETY: `head` is valid by the caller's promise.
        let short = unsafe {
            // What an earlier call left behind must not reach this one: it differs between replicas.
            (*head).results = [0; RESULTS_MAX];
            (*head).args_len < needs.args || (*head).helpers_len < needs.helpers
        };
        if short {
            return Err(Trap::Index);
        }
        // SAFETY: the caller's promise, and the head has what the program needs.
        let status = unsafe {
            match &self.bodies {
                Bodies::Jit(buffer) => buffer.run(which, head),
                Bodies::Interp(prepared) => interp::run(&prepared[which], head),
            }
        };
        match Trap::from_status(status) {
            None => Ok(()),
            Some(trap) => Err(trap),
        }
    }
}

fn interpreted(programs: &[Verified]) -> Bodies {
    Bodies::Interp(programs.iter().map(Prepared::new).collect())
}

fn needs(program: &Verified) -> Needs {
    let helpers = program.ops.iter().filter_map(|op| match op {
        super::ir::Op::Call { helper, .. } => Some(*helper as u64 + 1),
        _ => None,
    });
    Needs { args: program.arg_slots as u64, helpers: helpers.max().unwrap_or(0) }
}
