//! A node's part in the cluster without threads: everything that [`Raft::start`] gives a thread runs as a task of the runtime in
//! which it is called. The simulation's way: on a runtime of one thread with virtual time nothing happens by chance.

use super::here::Here;
use super::link::{Host, Stream};
use super::log_store::LogStore;
use super::turns::ApplyThread;
use super::{Parts, Raft, RaftConfig, StartError, server};
use crate::apply::machine::StateMachine;
use crate::disk::log::HIGHWATER_IDLE;
use crate::disk::{Disk, Log, LogState, Turn, WriterByHand};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

/// What the loops that are threads elsewhere run on.
pub struct Tasks {
    pub host: Arc<dyn Host>,
    /// How long the next write of the log takes, and the next set of entries in apply.
    pub log_delay: Box<dyn Fn() -> Duration + Send + Sync>,
    pub apply_delay: Box<dyn Fn() -> Duration + Send + Sync>,
}

impl Raft {
    /// As [`Raft::start`]. Listens nowhere: connections of peers are given to [`Raft::serve_peer`].
    pub async fn start_as_tasks(
        config: RaftConfig,
        disk: Arc<dyn Disk>,
        machine: Box<dyn StateMachine>,
        tasks: Tasks,
    ) -> Result<Raft, StartError> {
        let Tasks { host, log_delay, apply_delay } = tasks;
        let work = Arc::new(Notify::new());
        let wake = work.clone();
        let (log, writer) = Log::open_by_hand(disk, config.log.clone(), Box::new(move || wake.notify_one()))?;
        tokio::spawn(write(writer, work, log_delay));
        let store = LogStore::new(log, Here::never());
        let (applied, digests) = (machine.applied(), machine.digests());
        super::check_state_reaches_log(&store, &applied)?;
        let (apply, turns, progress) = ApplyThread::by_hand(machine);
        tokio::spawn(turns.run_as_task(apply_delay));
        let (machine, queue) = (apply.machine(progress.clone(), applied), apply.queue());
        let handle = tokio::runtime::Handle::current();
        let node = Parts { config, store, progress, digests, queue, machine, handle, host }.start().await?;
        Ok(Raft { node, threads: Arc::new(Mutex::new(None)) })
    }

    /// What the log holds, counting what is queued.
    pub fn log_state(&self) -> LogState {
        self.node.store.log().state()
    }

    /// Answers a peer that connected, until it leaves.
    pub fn serve_peer(&self, stream: Box<dyn Stream>) {
        let node = self.node.clone();
        self.node.runtime.spawn(async move {
            if let Err(e) = server::connection(stream, None, node).await {
                tracing::debug!("peer connection: {e}");
            }
        });
    }
}

/// The log's writer: what waits together is written together, each time after a delay.
async fn write(mut writer: WriterByHand, work: Arc<Notify>, delay: Box<dyn Fn() -> Duration + Send + Sync>) {
    let mut dirty = true;
    loop {
        let woken = tokio::time::timeout(HIGHWATER_IDLE, work.notified());
        let pause = match dirty {
            true => woken.await.is_err(),
            false => {
                work.notified().await;
                false
            }
        };
        tokio::time::sleep(delay()).await;
        match writer.turn(tokio::time::Instant::now().into_std(), pause) {
            Turn::Asleep(more) => dirty = more,
            Turn::Failed => return,
        }
    }
}
