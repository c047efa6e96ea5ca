//! # batch: from chunks to log entries (being built)

pub mod format;
