//! # Handlers: verified programs, ready to be called
//!
//! Pairs each program with the engine's code for it, so that a call cannot run code against another program's literals and
//! texts.

use super::engine::{Code, Engine};
use super::env::{Aborted, Env, Input, State};
use super::ir::Program;
use super::verify::Verified;
use crate::resp::ReplyBuf;

pub struct Handlers {
    programs: Vec<Program>,
    code: Code,
}

impl Handlers {
    pub fn build(engine: Engine, programs: Vec<Verified>) -> Handlers {
        let code = Code::build(engine, &programs);
        Handlers { programs: programs.into_iter().map(Verified::into_program).collect(), code }
    }

    pub fn code(&self) -> &Code {
        &self.code
    }

    pub fn program(&self, which: usize) -> &Program {
        &self.programs[which]
    }

    /// Runs one call; appends exactly one value to `reply`. When it is `Err`, the caller undoes what was written.
    pub fn call(
        &self,
        which: usize,
        env: &mut Env,
        input: Input<'_>,
        state: State<'_, '_>,
        reply: &mut ReplyBuf,
    ) -> Result<(), Aborted> {
        env.call(&self.programs[which], input, state, reply, |head| {
            // SAFETY: the head is the environment's, lent for this call; the program was verified against the helper table
            // that the environment was made with.
            unsafe { self.code.run(which, head) }
        })
    }
}
