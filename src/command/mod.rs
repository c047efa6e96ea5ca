//! # command: the code table (being built)

pub mod args;
