//! # batch: from chunks to log entries (being built)

pub use crate::base::batch as format;
