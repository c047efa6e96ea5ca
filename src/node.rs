//! # node: the wiring of one node
//!
//! Order of start and stop; holds no logic of its own.

pub mod code;
pub mod config;
pub mod datadir;
pub mod keeper;
pub mod machine;
pub mod reads;
pub mod state;

use std::path::PathBuf;
use std::process::ExitCode;

/// Why a node could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("{0}")]
    Start(String),
}

/// Runs a node until it is told to stop.
pub fn serve(config: config::Config) -> Result<(), NodeError> {
    let _ = config;
    Err(NodeError::Start("not wired".into()))
}

/// `look check FILE...`
pub fn check_files(files: &[PathBuf]) -> ExitCode {
    let _ = files;
    ExitCode::FAILURE
}
