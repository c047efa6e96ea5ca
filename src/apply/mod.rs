//! (being built)
pub mod pending;
