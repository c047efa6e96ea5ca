//! # apply: the loop that changes the store (being built)

pub mod machine;
pub mod pending;
pub mod positions;
