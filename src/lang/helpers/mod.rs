//! # helpers: the operations that programs call
//!
//! Small, general operations over the store, bytes, numbers and replies; composite logic belongs in `.look`. This file
//! gathers the rows of the table; each family's file holds its rows and the functions behind them, and the files without
//! rows ([`bits`], [`glob`], [`lcs`], [`longdouble`], [`number`], [`rdb`]) are plain algorithms over byte slices.
//!
//! The edge: a helper receives a pointer to the machine's head and casts it to its [`Env`](super::env::Env). Every helper
//! catches its own panics, since unwinding through compiled frames would abort the process.

pub mod bits;
pub mod glob;
pub mod lcs;
pub mod longdouble;
pub mod number;
