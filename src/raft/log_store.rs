//! openraft's log storage over [`crate::disk::Log`], with the newest entries kept in memory.
//!
//! openraft reads every entry again to apply it and to send it; those reads never touch the disk unless a peer lags far
//! behind. Entries that are not yet durable are always in memory.

use super::here::Here;
use super::types::{RaftEntry, RaftLogId, RaftVote, Types, entry_of, log_id, payload_of, position, weight_of};
use crate::base::planted::planted;
use crate::disk::{Append, Completion, Log, LogError, Position, Vote};
use futures_util::Stream;
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::vote::leader_id_std;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

/// Memory for entries that are durable already. What goes round in it should fit the processor's cache: with 64 MiB a SET at
/// pipeline 64 took a tenth more of the processor.
const RECENT_BYTES_MAX: usize = 8 << 20;
/// Bytes of one read for a peer or for apply.
const READ_BYTES_MAX: usize = 4 << 20;

/// The log of this node; clones share it.
#[derive(Clone)]
pub struct LogStore(Arc<Store>);

struct Store {
    log: Log,
    recent: Mutex<Recent>,
    /// First entry of a log of which nothing was purged yet.
    begin: AtomicU64,
    /// This node's disk is all that an entry waits for.
    sole: AtomicBool,
    /// What the raft thread writes itself then.
    here: Here,
}

#[derive(Default)]
struct Recent {
    /// Newest entries without a gap, with their sizes.
    entries: VecDeque<(RaftEntry, usize)>,
    bytes: usize,
    /// Entries before this openraft index are durable.
    durable: u64,
    /// Grows with each truncation: completions from before it say nothing about entries after it.
    truncations: u64,
}

impl Recent {
    fn first(&self) -> Option<u64> {
        self.entries.front().map(|(e, _)| e.log_id.index)
    }

    fn push(&mut self, entry: RaftEntry, bytes: usize) {
        if self.entries.back().is_some_and(|(last, _)| last.log_id.index + 1 != entry.log_id.index) {
            self.entries.clear();
            self.bytes = 0;
        }
        self.bytes += bytes;
        self.entries.push_back((entry, bytes));
    }

    fn pop_front(&mut self) {
        if let Some((_, bytes)) = self.entries.pop_front() {
            self.bytes -= bytes;
        }
    }

    fn evict(&mut self) {
        while self.bytes > RECENT_BYTES_MAX && self.first().is_some_and(|i| i < self.durable) {
            self.pop_front();
        }
    }

    fn truncate_from(&mut self, index: u64) {
        while self.entries.back().is_some_and(|(e, _)| e.log_id.index >= index) {
            if let Some((_, bytes)) = self.entries.pop_back() {
                self.bytes -= bytes;
            }
        }
        self.durable = self.durable.min(index);
        self.truncations += 1;
    }
}

fn range_of(range: impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(s) => *s,
        Bound::Excluded(s) => s.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(e) => e.saturating_add(1),
        Bound::Excluded(e) => *e,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl LogStore {
    /// `here`: what the raft thread of a sole voter writes itself.
    pub fn new(log: Log, here: Here) -> Self {
        let begin = AtomicU64::new(log.first_indexed() - 1);
        LogStore(Arc::new(Store { log, recent: Mutex::default(), begin, sole: AtomicBool::new(false), here }))
    }

    pub fn log(&self) -> &Log {
        &self.0.log
    }

    /// Whether this node is the only voter.
    pub fn set_sole(&self, sole: bool) {
        self.0.sole.store(sole, Ordering::Relaxed);
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.0.recent.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Entries of `range` that the log holds, in order, all or up to about `bytes_max`.
    fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<RaftEntry>, LogError> {
        let state = self.0.log.state();
        let begin = match state.purged.index {
            0 => self.0.begin.load(Ordering::Acquire),
            purged => purged,
        };
        let range = range.start.max(begin)..range.end.min(state.last.index);
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let in_memory = {
            let recent = self.recent();
            match recent.first() {
                Some(first) if first <= range.start => return Ok(copy(&recent, first, range, bytes_max)),
                first => first.unwrap_or(range.end).min(range.end),
            }
        };
        let records = self.0.log.read(range.start + 1..in_memory + 1, bytes_max)?;
        let mut entries = records.into_iter().map(entry_of).collect::<Result<Vec<_>, _>>()?;
        if bytes_max == usize::MAX && entries.len() as u64 != in_memory - range.start {
            return Err(LogError::Missing(range.start + 1 + entries.len() as u64));
        }
        if entries.is_empty() {
            return Err(LogError::Missing(range.start + 1));
        }
        if bytes_max == usize::MAX && in_memory < range.end {
            let recent = self.recent();
            entries.extend(copy(&recent, recent.first().unwrap_or(range.end), in_memory..range.end, bytes_max));
        }
        Ok(entries)
    }

    /// Entries from the first of `range` on that are in memory, durable or not; `range` counts as the log does.
    pub fn in_memory(&self, range: Range<u64>, bytes_max: usize) -> Vec<RaftEntry> {
        let recent = self.recent();
        match recent.first() {
            Some(first) if first < range.start && !range.is_empty() => {
                copy(&recent, first, range.start - 1..range.end - 1, bytes_max)
            }
            _ => Vec::new(),
        }
    }

    /// Queues `vote` or a truncation and waits until it is durable.
    async fn durable(&self, queue: impl FnOnce(&Log, Completion) -> Result<(), LogError>) -> Result<(), io::Error> {
        let (tx, rx) = tokio::sync::oneshot::channel();
        queue(&self.0.log, Box::new(move |r| drop(tx.send(r))))?;
        rx.await.map_err(|_| io::Error::other("the log is closed"))??;
        Ok(())
    }
}

fn copy(recent: &Recent, first: u64, range: Range<u64>, bytes_max: usize) -> Vec<RaftEntry> {
    let skip = range.start.saturating_sub(first) as usize;
    let mut bytes = 0;
    let mut out = Vec::new();
    for (entry, len) in recent.entries.iter().skip(skip).take((range.end - range.start) as usize) {
        bytes += len;
        out.push(entry.clone());
        if bytes > bytes_max {
            break;
        }
    }
    out
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        Ok(self.read(range_of(range), usize::MAX)?)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<RaftEntry>, io::Error> {
        Ok(self.read(start..end, READ_BYTES_MAX)?)
    }

    /// In pieces: what is to be applied after a start may be larger than memory.
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = Result<RaftEntry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let state = (self.clone(), range_of(range), VecDeque::new());
        Box::pin(futures_util::stream::unfold(state, |(store, mut range, mut read)| async move {
            if read.is_empty() && !range.is_empty() {
                match store.read(range.clone(), READ_BYTES_MAX) {
                    Ok(entries) => read.extend(entries),
                    Err(e) => return Some((Err(e.into()), (store, 0..0, read))),
                }
            }
            let entry: RaftEntry = read.pop_front()?;
            range.start = entry.log_id.index + 1;
            Some((Ok(entry), (store, range, read)))
        }))
    }

    async fn read_vote(&mut self) -> Result<Option<RaftVote>, io::Error> {
        Ok(self.0.log.state().vote.map(|v| RaftVote {
            leader_id: leader_id_std::LeaderId { term: v.term, voted_for: v.node },
            committed: v.committed,
        }))
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let state = self.0.log.state();
        Ok(LogState { last_purged_log_id: log_id(state.purged), last_log_id: log_id(state.last) })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> Result<(), io::Error> {
        if planted("a vote is not synced") {
            return Ok(());
        }
        let vote = Vote { term: vote.leader_id.term, node: vote.leader_id.voted_for, committed: vote.committed };
        self.durable(|log, done| log.save_vote(vote, done)).await
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> Result<(), io::Error> {
        if let Some(id) = committed {
            self.0.log.note_committed(position(&id));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<RaftLogId>, io::Error> {
        let state = self.0.log.state();
        if planted("all that the log holds counts as committed") {
            return Ok(log_id(state.last));
        }
        Ok(log_id(state.committed.min(state.last)))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut appends = Vec::new();
        let (mut end, mut weight) = (0, 0);
        let empty = self.0.log.state().last.index == 0;
        let truncations = {
            let mut recent = self.recent();
            for entry in entries {
                let (kind, payload) = payload_of(&entry);
                if empty && end == 0 {
                    self.0.begin.store(entry.log_id.index, Ordering::Release);
                }
                end = entry.log_id.index + 1;
                weight += weight_of(&entry);
                appends.push(Append { kind, position: position(&entry.log_id), payload });
                let bytes = appends.last().map_or(0, |a| a.payload.encoded_len() + 128);
                recent.push(entry, bytes);
            }
            recent.truncations
        };
        if planted("an append is acknowledged before its sync") {
            callback.io_completed(Ok(()));
            return Ok(self.0.log.append(appends, Box::new(|_| {}))?);
        }
        // Weak: the writer's thread must not be the one that closes the log
        let store = Arc::downgrade(&self.0);
        let done: Completion = Box::new(move |result| {
            if let (Ok(()), Some(store)) = (&result, store.upgrade().map(LogStore)) {
                let mut recent = store.recent();
                if recent.truncations == truncations {
                    recent.durable = recent.durable.max(end);
                    recent.evict();
                }
            }
            callback.io_completed(result.map_err(io::Error::from));
        });
        if !self.0.sole.load(Ordering::Relaxed) || !self.0.here.may(weight) {
            return Ok(self.0.log.append(appends, done)?);
        }
        let begun = Instant::now();
        let appended = self.0.log.append_here(appends, done);
        self.0.here.took(begun.elapsed());
        Ok(appended?)
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> Result<(), io::Error> {
        self.recent().truncate_from(last.map_or(0, |id| id.index + 1));
        let last = last.map_or_else(Position::default, |id| position(&id));
        self.durable(|log, done| log.truncate_after(last, done)).await
    }

    async fn purge(&mut self, id: RaftLogId) -> Result<(), io::Error> {
        {
            let mut recent = self.recent();
            while recent.first().is_some_and(|first| first <= id.index) {
                recent.pop_front();
            }
        }
        let upto =
            Position { index: id.index + 1 + u64::from(planted("a purge goes past the checkpoint")), ..position(&id) };
        // Nobody waits: a purge that is lost is done again
        Ok(self.0.log.purge(upto, Box::new(|_| {}))?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::machine::Machine;
    use super::super::turns::ApplyThread;
    use super::*;
    use crate::apply::machine::{Applied, Body, Checkpoint, Committed, Receive, Roster, StateMachine};
    use crate::disk::LogOptions;
    use crate::disk::sim::SimDisk;
    use bytes::Bytes;
    use openraft::testing::log::{StoreBuilder, Suite};
    use std::any::Any;

    /// A state that is nothing but its position.
    #[derive(Clone, Default)]
    struct Nothing(Applied);

    impl StateMachine for Nothing {
        fn applied(&self) -> Applied {
            self.0.clone()
        }
        fn roster(&self) -> Arc<Roster> {
            Arc::default()
        }
        fn apply(&mut self, entries: Vec<Committed>) -> Result<(), String> {
            for entry in entries {
                self.0.last = entry.position;
                if let Body::Membership(bytes) = entry.body {
                    self.0.membership = Some((entry.position, bytes));
                }
            }
            Ok(())
        }
        fn checkpoint(&mut self) -> Option<Box<dyn Checkpoint>> {
            (self.0.last.index.0 > 0).then(|| Box::new(self.clone()) as Box<dyn Checkpoint>)
        }
        fn receive(&mut self, _: u64) -> Result<Box<dyn Receive>, String> {
            Ok(Box::new(Nothing::default()))
        }
        fn install(&mut self, meta: Applied, _: Box<dyn Receive>) -> Result<(), String> {
            self.0 = meta;
            Ok(())
        }
    }

    impl Checkpoint for Nothing {
        fn meta(&self) -> Applied {
            self.0.clone()
        }
        fn next(&mut self) -> Result<Option<Bytes>, String> {
            Ok(None)
        }
    }

    impl Receive for Nothing {
        fn piece(&mut self, _: Bytes) -> Result<(), String> {
            Ok(())
        }
        fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
            self
        }
    }

    struct Stores;

    impl StoreBuilder<Types, LogStore, Machine, ApplyThread> for Stores {
        async fn build(&self) -> Result<(ApplyThread, LogStore, Machine), openraft::StorageError<Types>> {
            let options = LogOptions { segment_bytes: 64 << 10, prepare_ahead: false, ..LogOptions::new(0, 9) };
            let log = Log::open(Arc::new(SimDisk::new(1)), options).expect("opens");
            let (apply, progress, applied) =
                ApplyThread::start(Box::new(Nothing::default()), Here::never()).expect("starts");
            let machine = apply.machine(progress, applied);
            Ok((apply, LogStore::new(log, Here::always()), machine))
        }
    }

    #[test]
    fn openrafts_suite_passes() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("starts");
        runtime.block_on(Suite::test_all(Stores)).expect("passes");
    }
}
