//! # command: the code table and the argument parser (being built)

pub mod args;
