//! # batch: from chunks to log entries
//!
//! Owns the [`Batcher`]: adaptive group commit, back-pressure, forwarding to the leader, sending again after a change of
//! leader; what a batch waits for before it leaves ([`Gather`]). (The batch format is a word of `base`.)
//!
//! Promises: the chunks of a gateway reach the log in the order of their sequence numbers, without a gap as far as a leader
//! stays, and again from the first missing one when it does not.

pub mod batcher;
mod lull;

pub use crate::base::batch as format;
pub use batcher::{Batcher, BatcherConfig, Gather, Refused};
pub use lull::Lull;
