//! # command: the code table
//!
//! Every command this node can run: the embedded programs of `commands/redis/*.look`, verified and compiled at start. Owns
//! lookup by name (once a command, on the gateway) and by handler number (once a call, in apply), the argument parser, and the
//! metadata behind `COMMAND`.

pub mod args;
