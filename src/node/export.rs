//! An export node: a learner that follows its cluster to one epoch, leaves it, and shows that epoch from then on.
//!
//! Apply stops at the epoch, in the midst of a batch if it lies there. A checkpoint of it is durable before the node leaves, so that
//! a restart needs nobody; leaving frees the cluster from sending it what it will never apply, and is noted in the directory. A
//! cluster never promotes it: its address in the membership says what it is.

use super::backend::NodeBackend;
use super::datadir::DataDir;
use super::{NodeError, PATIENCE};
use crate::base::Epoch;
use crate::gateway::backend::Backend;
use crate::raft::{Change, ChangeError, Raft};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Between two tries to leave: the first pause, doubled up to the last.
const LEAVE_AGAIN: Duration = Duration::from_secs(1);
const LEAVE_AGAIN_MAX: Duration = Duration::from_secs(60);
/// How long a node that ends tries to leave.
const LEAVE_LONGEST: Duration = Duration::from_secs(5);

/// Returns when the node shows `epoch`, durably. Leaves the cluster behind its caller's back, however long that takes.
pub fn follow(backend: &NodeBackend, epoch: Epoch, data: Arc<DataDir>) -> Result<(), NodeError> {
    let mut say_at = Instant::now() + PATIENCE;
    while backend.epoch() < epoch {
        if let Some(why) = backend.0.state.failure.get() {
            return Err(give_up(&backend.0.raft, epoch, why));
        }
        if Instant::now() > say_at {
            eprintln!("look: at epoch {} of {epoch}", backend.epoch());
            say_at += PATIENCE;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    backend.checkpoint_now()?;
    eprintln!("look: shows epoch {epoch}, stays there and takes no writes");
    if !data.left()? {
        let raft = backend.0.raft.clone();
        backend.0.raft.spawn(async move {
            leave(raft).await;
            match data.leave() {
                Ok(()) => tracing::info!("left the cluster"),
                Err(e) => tracing::warn!("left the cluster, and cannot note it: {e}"),
            }
        });
    }
    Ok(())
}

/// Of an export that will never show `epoch`: it leaves the cluster. The error says why, for its caller to end with.
pub fn give_up(raft: &Raft, epoch: Epoch, why: &str) -> NodeError {
    let (done, left) = mpsc::channel();
    let leaving = raft.clone();
    raft.spawn(async move {
        leave(leaving).await;
        let _ = done.send(());
    });
    let rest = match left.recv_timeout(LEAVE_LONGEST) {
        Ok(()) => String::new(),
        Err(_) => format!("; it could not leave the cluster: LOOK.CLUSTER REMOVE {}", raft.node_id()),
    };
    NodeError::Export(epoch, format!("{why}{rest}"))
}

/// Until this node is no member any more.
async fn leave(raft: Raft) {
    let me = raft.node_id();
    let mut pause = LEAVE_AGAIN;
    loop {
        match raft.change(Change::Remove(me)).await {
            Ok(()) | Err(ChangeError::NotMember(_)) => return,
            Err(why) => tracing::debug!("leaving the cluster: {why}"),
        }
        // If an answer was lost: a node that left is told so by nobody unless it asks
        if raft.was_removed().await {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LEAVE_AGAIN_MAX);
    }
}
