//! An export node: a learner that follows its cluster to one epoch, leaves it, and shows that epoch from then on.
//!
//! Apply stops at the epoch, in the midst of a batch if it lies there. A checkpoint of it is durable before the node leaves, so that
//! a restart needs nobody; leaving frees the cluster from sending it what it will never apply. A cluster never promotes it:
//! its address in the membership says what it is.

use super::backend::NodeBackend;
use super::{NodeError, PATIENCE};
use crate::base::Epoch;
use crate::gateway::backend::Backend;
use crate::raft::{Change, ChangeError, Raft};
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(50);
const LEAVE_AGAIN: Duration = Duration::from_secs(1);

/// Returns when the node shows `epoch`, durably. Leaves the cluster behind its caller's back, however long that takes.
pub fn follow(backend: &NodeBackend, epoch: Epoch) -> Result<(), NodeError> {
    let mut say_at = Instant::now() + PATIENCE;
    while backend.epoch() < epoch {
        if let Some(why) = backend.0.state.failure.get() {
            return Err(NodeError::Export(epoch, why.clone()));
        }
        if Instant::now() > say_at {
            eprintln!("look: at epoch {} of {epoch}", backend.epoch());
            say_at += PATIENCE;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    backend.checkpoint_now()?;
    eprintln!("look: shows epoch {epoch}, stays there and takes no writes");
    backend.0.raft.spawn(leave(backend.0.raft.clone()));
    Ok(())
}

async fn leave(raft: Raft) {
    let me = raft.node_id();
    loop {
        match raft.change(Change::Remove(me)).await {
            Ok(()) | Err(ChangeError::NotMember(_)) => return,
            // A node that left is told so by nobody: it knows no leader
            Err(why) => tracing::debug!("leaving the cluster: {why}"),
        }
        tokio::time::sleep(LEAVE_AGAIN).await;
    }
}
