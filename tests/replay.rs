//! Reads in the past below the server: a log and checkpoints that have let go of some of it.

use look::apply::machine::{Body, Committed, LogPosition};
use look::apply::{Applier, Frontier, Progress};
use look::base::batch::{Batch, BatchHeader, ChunkBuilder};
use look::base::{Epoch, GatewayId, KeyHasher, LogIndex};
use look::command::{args, builtin};
use look::history::{History, LogReader, OldState, OldStates, Version};
use look::lang::engine::Engine;
use look::resp::{Arg, Request};
use look::store::{Read, Store, Value, Writer};
use std::sync::Arc;

/// A log that has let go of what lies before an entry.
struct Rest {
    entries: Vec<Committed>,
    since: LogIndex,
}

impl LogReader for Rest {
    fn read(&self, from: LogIndex, to: LogIndex) -> Result<Vec<Committed>, String> {
        if from < self.since {
            return Err(format!("entry {from} is gone"));
        }
        Ok(self.entries.iter().filter(|e| (from..=to).contains(&e.position.index)).cloned().collect())
    }
    fn since(&self) -> LogIndex {
        self.since
    }
}

/// The checkpoint that shows this epoch, with which this entry ended.
struct Saved(Store, Epoch, LogIndex);

impl OldStates for Saved {
    fn at_or_before(&self, epoch: Epoch) -> Result<Option<OldState>, String> {
        if epoch < self.1 {
            return Ok(None);
        }
        let shown = self.0.snapshot_at(self.1).map_err(|e| e.to_string())?;
        let now = shown.time();
        Ok(Some(OldState { writer: Writer::private(shown), epoch: self.1, now, index: self.2, kept: None }))
    }
    fn since(&self, log: LogIndex) -> Option<Epoch> {
        (self.2.next() >= log).then_some(self.1)
    }
}

/// Replay from the root between two entries begins with the first of them; from a checkpoint at the same place it does not need it.
#[test]
fn an_epoch_behind_a_purged_entry_is_read_from_the_checkpoint_that_shows_it() {
    let table = Arc::new(builtin::table(Engine::Interp).expect("a table"));
    let (hasher, key) = (KeyHasher::new(0), b"n");
    let (store, writer) = look::store::create().expect("a store");
    let progress = Arc::new(Progress::default());
    let frontier = Frontier::default();
    let mut applier =
        Applier::new(store.clone(), writer, table.clone(), frontier, Arc::default(), progress.clone(), Arc::default());
    // Two entries of three INCR each
    let incr = table.iter().find(|command| command.name == "incr").expect("a command");
    let entry = |index: u64| {
        let mut calls = ChunkBuilder::default();
        for _ in 0..3 {
            calls.begin(incr.handler, 0);
            let args = [Arg { at: 0, len: 1 }];
            args::parse(&incr.grammar, "incr", Request::new(key, &args), &hasher, &mut calls).expect("it is right");
            assert!(calls.end());
        }
        let chunks = vec![calls.finish(GatewayId::default(), index, table.version())];
        let batch = Batch { header: BatchHeader { time_ms: 1, seed: 1, chunks: 1 }, chunks };
        let position = LogPosition { term: 1, index: LogIndex(index) };
        Committed { position, body: Body::Batch(Arc::new(batch)) }
    };
    let entries: Vec<Committed> = (1..=2).map(entry).collect();
    entries.iter().for_each(|entry| applier.apply(vec![entry.clone()]).expect("applies"));
    assert_eq!(progress.frontier().epoch, Epoch(6));

    let log = Arc::new(Rest { entries, since: LogIndex(2) });
    let saved = Arc::new(Saved(store.clone(), Epoch(3), LogIndex(1)));
    let history = History::new(table, progress, log, saved);
    assert_eq!(history.since(&store), Epoch(3));
    let Version::Private(state, ..) = history.at(&store, Epoch(5), None).expect("epoch 5") else {
        panic!("INVALID: a kept root showed it");
    };
    let entry = state.find(0, hasher.hash(key), key).expect("a key");
    assert!(matches!(entry.value(), Value::Int(5)), "{:?}", entry.value());
}
