//! (being built)
pub mod backend;
