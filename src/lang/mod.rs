//! # lang: the Look language (being built)
//!
//! Syntax, types, bounds, IR, interpreter, JIT and helpers. Knows neither users nor connections.

pub mod ast;
pub mod diag;
pub mod encode;
pub mod engine;
pub mod env;
pub mod flow;
pub mod grammar;
pub mod helpers;
pub mod interp;
pub mod ir;
pub mod jit;
mod lex;
pub mod machine;
mod parse;
mod parse_expr;
pub mod poly;
pub mod random;
pub mod table;
pub mod types;
pub mod verify;
