//! # store: persistent data structures in an arena, one writer, many readers

pub mod arena;
