//! The replicated state as the log sees it: the apply loop, and whole states to and from peers.

use super::keeper::Keeper;
use super::state::SharedState;
use crate::apply::digests::Digests;
use crate::apply::machine::{Applied, Checkpoint, Committed, Receive, Roster, StateMachine};
use crate::apply::{Applier, Frontier};
use crate::base::Epoch;
use crate::command::Table;
use crate::store::{Store, Writer};
use std::sync::Arc;

pub struct NodeMachine {
    applier: Applier,
    state: Arc<SharedState>,
    keeper: Arc<Keeper>,
    table: Arc<Table>,
    /// An export's.
    stop_at: Option<Epoch>,
}

impl NodeMachine {
    pub fn new(
        store: Store,
        writer: Writer,
        frontier: Frontier,
        state: Arc<SharedState>,
        keeper: Arc<Keeper>,
        table: Arc<Table>,
        stop_at: Option<Epoch>,
    ) -> NodeMachine {
        let applier = applier(store, writer, frontier, &state, &table, stop_at);
        NodeMachine { applier, state, keeper, table, stop_at }
    }
}

fn applier(
    store: Store,
    writer: Writer,
    frontier: Frontier,
    state: &SharedState,
    table: &Arc<Table>,
    stop_at: Option<Epoch>,
) -> Applier {
    let (waiting, progress, own) = (state.waiting.clone(), state.progress.clone(), state.own.clone());
    let applier = Applier::new(store, writer, table.clone(), frontier, waiting, progress, own);
    applier.stopping_at(stop_at.unwrap_or(Epoch(u64::MAX)))
}

impl StateMachine for NodeMachine {
    fn applied(&self) -> Applied {
        self.applier.applied()
    }

    fn roster(&self) -> Arc<Roster> {
        self.applier.roster()
    }

    fn digests(&self) -> Arc<Digests> {
        self.state.progress.digests.clone()
    }

    fn apply(&mut self, entries: Vec<Committed>) -> Result<(), String> {
        self.applier.apply(entries).map_err(|e| {
            tracing::error!("this node can apply no more entries: {e}");
            e.to_string()
        })
    }

    fn idle(&mut self) -> bool {
        self.applier.idle()
    }

    fn checkpoint(&mut self) -> Option<Box<dyn Checkpoint>> {
        self.keeper.export()
    }

    /// An export cannot go back.
    fn takes(&mut self, epoch: Epoch) -> Result<(), String> {
        let Some(stop) = self.stop_at.filter(|stop| *stop < epoch) else { return Ok(()) };
        let why = format!(
            "the cluster let go of it while this node joined, and sends epoch {epoch}. --stop-at {epoch} or later can be had (with another \
             --dir); for {stop} ask a node with LOOK.AT, or restore a backup (look restore --at {stop})"
        );
        self.state.fail(why.clone());
        Err(why)
    }

    fn receive(&mut self, source: u64) -> Result<Box<dyn Receive>, String> {
        self.keeper.receive(source).map_err(|e| e.to_string())
    }

    fn install(&mut self, meta: Applied, received: Box<dyn Receive>) -> Result<(), String> {
        let (store, writer, frontier) = self.keeper.install(received).map_err(|e| e.to_string())?;
        if frontier.applied.last != meta.last {
            return Err(format!("the checkpoint shows entry {:?}, not {:?}", frontier.applied.last, meta.last));
        }
        tracing::info!("a peer's checkpoint replaced the state: epoch {}", frontier.epoch);
        self.state.replace(store.clone());
        self.applier = applier(store, writer, frontier, &self.state, &self.table, self.stop_at);
        self.applier.tell_own();
        Ok(())
    }
}
