//! The rooms that machine code needs, taken from the server's own files.

#[path = "../../../src/base/mod.rs"]
pub mod base;

pub mod lang;
