//! # lang: the Look language
//!
//! Syntax, types, bounds, IR, interpreter, JIT and helpers. Knows neither users nor connections.
//!
//! The way of a source text: `lex` → `parse` (syntax tree, [`ast`]) → [`lower`] (types, effects, bounds, life of views, IR in one
//! walk) → [`module::Module`]. What the body may call is the helper [`table`]; what the header says is the [`grammar`].

pub mod ast;
pub mod check;
pub mod diag;
pub mod encode;
pub mod engine;
pub mod env;
pub mod flow;
pub mod format;
pub mod grammar;
pub mod helpers;
pub mod interp;
pub mod ir;
pub mod jit;
mod lex;
mod lower;
pub mod machine;
pub mod module;
mod parse;
mod parse_expr;
pub mod poly;
pub mod random;
pub mod table;
pub mod types;

pub use check::{Checked, check_files};
pub use lower::{Effects, LineCost};
pub use module::{Blocks, Command, Example, Module, compile_module};
pub mod verify;

#[cfg(test)]
mod rejections;
#[cfg(test)]
mod rejections_of_programs;
#[cfg(test)]
mod shipped_tests;
