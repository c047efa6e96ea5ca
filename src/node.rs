//! # node: the wiring of one node
//!
//! Order of start and stop; holds no logic of its own.

pub mod config;
pub mod datadir;
