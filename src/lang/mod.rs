//! # lang: the Look language (being built)
//!
//! Syntax, types, bounds, IR, interpreter, JIT and helpers. Knows neither users nor connections.

pub mod grammar;
pub mod helpers;
pub mod ir;
pub mod machine;
