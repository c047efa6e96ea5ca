//! # The replicated log on disk
//!
//! One writer thread takes everything that waits, lays it out as one *group* (`record.rs`) in an aligned buffer and
//! makes it durable with one write; whoever waited is then called back. Entries, votes, truncations and purges share this
//! one order, which Raft asks for. A caller whom that does not keep from better things may write on its own thread
//! ([`Log::append_here`]): that saves two hand-overs between threads, which cost as much as a small write.
//!
//! Promises: a completion with `Ok` means durable. After the first failed write nothing is accepted any more: after a
//! failed sync nobody can know what the disk holds. A torn tail is dropped at the next start only where `highwater.rs`
//! allows it; everything else that does not fit is [`LogError::Corrupt`].

use super::record::{self, Kind, Position, Record, Vote, parse_record};
use super::recovery::{self, Place};
use super::seal::Sealer;
use super::segment::{self, Segment};
use super::writer::Writer;
use super::{Disk, LogError, urgent};
use crate::base::histogram::{Distribution, Histogram};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How soon after the last write of a pause the high-water record follows.
pub const HIGHWATER_IDLE: Duration = Duration::from_millis(20);
/// How often it is written while writers never pause.
pub const HIGHWATER_BUSY: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub struct LogOptions {
    pub node: u64,
    /// Length of a segment. A larger entry gets a segment of its own.
    pub segment_bytes: u64,
    /// Purged segments are kept for reads of the past up to this many bytes.
    pub history_bytes: u64,
    /// Entries up to this one are in a checkpoint: the start does not read segments that hold nothing behind it.
    pub covered: u64,
    /// Random name of a new log.
    pub fresh_name: u64,
    /// Prepare the next segment on a thread of its own (tests of crashes say no).
    pub prepare_ahead: bool,
    /// Entries are encrypted.
    pub seal: Option<Arc<Sealer>>,
}

impl LogOptions {
    pub fn new(node: u64, fresh_name: u64) -> Self {
        LogOptions {
            node,
            segment_bytes: 64 << 20,
            history_bytes: 1 << 30,
            covered: 0,
            fresh_name,
            prepare_ahead: true,
            seal: None,
        }
    }
}

/// Bytes that are laid out only when they are written, piece by piece: an entry's values are never gathered first.
pub trait Payload: Send + Sync {
    fn encoded_len(&self) -> usize;
    fn write_to(&self, out: &mut dyn FnMut(&[u8]));
}

impl Payload for Bytes {
    fn encoded_len(&self) -> usize {
        self.len()
    }
    fn write_to(&self, out: &mut dyn FnMut(&[u8])) {
        out(self)
    }
}

/// Called once, on the thread that wrote: must not block, nor ask the log to write here.
pub type Completion = Box<dyn FnOnce(Result<(), LogError>) + Send>;

/// Tells whoever runs the writer by hand that there is work.
pub type Wake = Box<dyn Fn() + Send + Sync>;

/// What the log says, counting what is queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LogState {
    pub last: Position,
    pub purged: Position,
    pub committed: Position,
    pub vote: Option<Vote>,
}

/// An entry to append.
pub struct Append {
    pub kind: Kind,
    pub position: Position,
    pub payload: Arc<dyn Payload>,
}

pub(super) struct Op {
    pub kind: Kind,
    pub position: Position,
    pub payload: Option<Arc<dyn Payload>>,
    pub done: Option<Completion>,
}

#[derive(Default)]
pub(super) struct Queue {
    pub ops: Vec<Op>,
    pub state: LogState,
    /// `state.committed` is newer than the newest such record; it rides with the next write.
    pub committed_waits: bool,
    pub asleep: bool,
    /// Something was written that the high-water record may not cover: the thread waits for a pause.
    pub unmarked: bool,
    /// How often something was taken to be written.
    pub turns: u64,
    pub stop: bool,
    pub failed: Option<LogError>,
}

impl Queue {
    /// Gives back `done` if there is nothing to wait for.
    fn append(
        &mut self,
        entries: impl IntoIterator<Item = Append>,
        done: Completion,
    ) -> Result<Option<Completion>, LogError> {
        let mut done = Some(done);
        for Append { kind, position, payload } in entries {
            let last = self.state.last.index;
            // A log that never had an entry may begin anywhere
            if position.index != last + 1 && last != 0 {
                return Err(LogError::Gap { last, got: position.index });
            }
            self.state.last = position;
            self.ops.push(Op { kind, position, payload: Some(payload), done: None });
        }
        if let Some(op) = self.ops.last_mut().filter(|op| op.done.is_none()) {
            op.done = done.take()
        }
        Ok(done)
    }

    /// An error if a write failed before.
    pub fn check(&self) -> Result<(), LogError> {
        self.failed.as_ref().map_or(Ok(()), |failure| Err(LogError::Stopped(failure.to_string())))
    }

    /// Everything queued, and behind it the committed index when it is newer than on disk.
    pub fn take(&mut self) -> Vec<Op> {
        let mut ops = std::mem::take(&mut self.ops);
        if std::mem::take(&mut self.committed_waits) {
            let position = self.state.committed;
            ops.push(Op { kind: Kind::Committed, position, payload: None, done: None });
        }
        self.turns += 1;
        self.unmarked = true;
        ops
    }
}

/// Where durable entries lie. Changed by the writer only.
pub(super) struct Places {
    pub segments: VecDeque<Segment>,
    pub places: VecDeque<Place>,
    pub first: u64,
    /// The first entry behind the newest gap: what lies before it leads nowhere. 0: there never was one.
    pub behind_gap: u64,
    pub state: LogState,
}

pub(super) struct Shared {
    pub queue: Mutex<Queue>,
    pub wake: Condvar,
    /// Called besides, where no thread waits.
    pub call: Option<Wake>,
    pub places: Mutex<Places>,
    /// How long durable writes took; the writer's.
    pub syncs: Histogram,
}

/// A poisoned lock means a panic in a few lines that do not panic; what they guard is whole all the same.
pub(super) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(|e| e.into_inner())
}

/// The log. Closing (dropping) it writes what is queued.
pub struct Log {
    shared: Arc<Shared>,
    /// Whoever holds it writes. None: a [`WriterByHand`] has it.
    writer: Option<Arc<Mutex<Writer>>>,
    thread: Option<JoinHandle<()>>,
    torn: bool,
    seal: Option<Arc<Sealer>>,
    /// Its random name.
    name: u64,
}

impl Log {
    /// Opens the log in `disk`, or begins one if there is none.
    pub fn open(disk: Arc<dyn Disk>, options: LogOptions) -> Result<Log, LogError> {
        let (mut log, writer) = Log::open_without_thread(disk, options, None)?;
        let (shared, writer) = (log.shared.clone(), Arc::new(Mutex::new(writer)));
        log.writer = Some(writer.clone());
        let thread = urgent::spawn("look-log", move || Writer::run(&writer, &shared));
        log.thread = Some(thread.map_err(LogError::io("start log thread"))?);
        Ok(log)
    }

    /// The same without a thread: whoever holds the [`WriterByHand`] takes its turns, and is told by `wake` when there is work.
    /// The simulation's way.
    pub fn open_by_hand(disk: Arc<dyn Disk>, options: LogOptions, wake: Wake) -> Result<(Log, WriterByHand), LogError> {
        let (log, writer) = Log::open_without_thread(disk, options, Some(wake))?;
        let shared = log.shared.clone();
        Ok((log, WriterByHand { writer, shared }))
    }

    fn open_without_thread(
        disk: Arc<dyn Disk>,
        options: LogOptions,
        call: Option<Wake>,
    ) -> Result<(Log, Writer), LogError> {
        let seal = options.seal.clone();
        let (writer, places, torn) = Writer::open(disk, options)?;
        let name = writer.log_name();
        let queue = Queue { state: places.state, asleep: call.is_some(), ..Queue::default() };
        let (queue, wake, places) = (Mutex::new(queue), Condvar::new(), Mutex::new(places));
        let shared = Arc::new(Shared { queue, wake, call, places, syncs: Histogram::default() });
        Ok((Log { shared, writer: None, thread: None, torn, seal, name }, writer))
    }

    /// How long durable writes took since the log was opened.
    pub fn sync_times(&self) -> Distribution {
        self.shared.syncs.copy()
    }

    /// Whether the last stop tore a write that nobody had been told of.
    pub fn was_torn(&self) -> bool {
        self.torn
    }

    pub fn state(&self) -> LogState {
        lock(&self.shared.queue).state
    }

    /// The failure after which nothing is accepted, if any.
    pub fn failure(&self) -> Option<LogError> {
        lock(&self.shared.queue).failed.clone()
    }

    /// Queues entries, which must follow the last one. `done` is called when all are durable.
    pub fn append(&self, entries: impl IntoIterator<Item = Append>, done: Completion) -> Result<(), LogError> {
        self.submit(|queue| queue.append(entries, done))
    }

    /// The same, and writes what is queued on the caller's thread, unless the writer's is at it or there is none.
    pub fn append_here(&self, entries: impl IntoIterator<Item = Append>, done: Completion) -> Result<(), LogError> {
        match self.writer.as_ref().map(|writer| writer.try_lock()) {
            Some(Ok(mut writer)) => writer.write_here(&self.shared, |queue| queue.append(entries, done)),
            _ => self.append(entries, done),
        }
    }

    pub fn save_vote(&self, vote: Vote, done: Completion) -> Result<(), LogError> {
        self.submit(|queue| {
            queue.state.vote = Some(vote);
            let payload = Arc::new(Bytes::from(vec![vote.committed as u8]));
            let position = Position { term: vote.term, index: vote.node };
            queue.ops.push(Op { kind: Kind::Vote, position, payload: Some(payload), done: Some(done) });
            Ok(None)
        })
    }

    /// Remembers that entries up to `position` are committed; durable with the next write or pause, and nobody waits for it.
    pub fn note_committed(&self, position: Position) {
        let mut queue = lock(&self.shared.queue);
        if position > queue.state.committed {
            queue.state.committed = position;
            queue.committed_waits = true;
        }
    }

    /// Makes all entries after `last` void.
    pub fn truncate_after(&self, last: Position, done: Completion) -> Result<(), LogError> {
        self.submit(|queue| {
            if last.index < queue.state.last.index {
                queue.state.last = last;
            }
            queue.ops.push(Op { kind: Kind::Truncate, position: last, payload: None, done: Some(done) });
            Ok(None)
        })
    }

    /// Entries up to `position` are in a checkpoint. They stay readable as far as `history_bytes` reaches.
    pub fn purge(&self, position: Position, done: Completion) -> Result<(), LogError> {
        self.submit(|queue| {
            queue.state.purged = queue.state.purged.max(position);
            queue.state.last = queue.state.last.max(position);
            queue.ops.push(Op { kind: Kind::Purge, position, payload: None, done: Some(done) });
            Ok(None)
        })
    }

    /// Runs `change` on the queue and wakes the writer if it sleeps. What `change` gives back is completed at once.
    fn submit(&self, change: impl FnOnce(&mut Queue) -> Result<Option<Completion>, LogError>) -> Result<(), LogError> {
        let mut queue = lock(&self.shared.queue);
        queue.check()?;
        let at_once = change(&mut queue)?;
        let wake = std::mem::take(&mut queue.asleep);
        drop(queue);
        if wake {
            self.shared.wake.notify_one();
            self.shared.call.iter().for_each(|wake| wake());
        }
        if let Some(done) = at_once {
            done(Ok(()));
        }
        Ok(())
    }

    /// Waits until everything queued so far is durable.
    pub fn flush(&self) -> Result<(), LogError> {
        let (tx, rx) = std::sync::mpsc::channel();
        let state = self.state();
        let done: Completion = Box::new(move |r| drop(tx.send(r)));
        match state.vote {
            Some(vote) => self.save_vote(vote, done)?,
            None => self.truncate_after(state.last, done)?,
        }
        rx.recv().map_err(|_| LogError::Stopped("closed".into()))?
    }

    /// The first entry that can be read without searching whole segments.
    pub fn first_indexed(&self) -> u64 {
        lock(&self.shared.places).first
    }

    /// The oldest entry that [`Log::read`] surely still finds.
    pub fn oldest(&self) -> u64 {
        let purged = self.state().purged.index;
        let places = lock(&self.shared.places);
        let kept = places.segments.front().map_or(places.first, |s| (s.head.last.index + 1).min(places.first));
        // A purge that is queued behind entries that are not durable, or that never came
        let behind_purge = if purged > places.state.last.index { purged + 1 } else { 0 };
        kept.max(places.behind_gap).max(behind_purge)
    }

    /// Durable entries of `range`, in order: all of them, or those up to about `bytes_max` (at least one). Purged ones are
    /// found as far as they are kept; entries that are queued but not yet durable are not here.
    pub fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<Record>, LogError> {
        let first = lock(&self.shared.places).first;
        let mut records = Vec::new();
        let mut bytes = 0;
        if range.start < first {
            for record in self.read_archived(range.start..range.end.min(first))? {
                bytes += record.payload.len();
                records.push(record);
                if bytes > bytes_max {
                    return Ok(records);
                }
            }
        }
        for index in range.start.max(first)..range.end {
            let Some(record) = self.read_one(index)? else { break };
            bytes += record.payload.len();
            records.push(record);
            if bytes > bytes_max {
                break;
            }
        }
        Ok(records)
    }

    fn find(&self, index: u64) -> Option<(Place, Segment)> {
        let places = lock(&self.shared.places);
        let place = *places.places.get(index.checked_sub(places.first)? as usize)?;
        let front = places.segments.front()?.head.segment;
        Some((place, places.segments.get((place.segment - front) as usize)?.clone()))
    }

    fn read_one(&self, index: u64) -> Result<Option<Record>, LogError> {
        let Some((place, segment)) = self.find(index) else { return Ok(None) };
        let mut bytes = vec![0; place.len as usize];
        segment.file.read_at(&mut bytes, place.offset as u64).map_err(LogError::io("read entry"))?;
        match parse_record(&bytes.into()) {
            Some((record, _, _)) if record.kind.is_entry() && record.index == index => {
                self.open_record(record).map(Some)
            }
            // The segment may have been let go of between the look-up and the read
            _ if self.find(index).is_none_or(|(now, _)| now != place) => {
                Err(LogError::Purged { oldest: self.oldest() })
            }
            _ => {
                let file = segment::name(place.segment);
                Err(LogError::Corrupt { file, offset: place.offset as u64, what: "an entry is damaged" })
            }
        }
    }

    /// An entry as it was appended.
    fn open_record(&self, record: Record) -> Result<Record, LogError> {
        match &self.seal {
            Some(seal) => record::open(seal, self.name, record),
            None => Ok(record),
        }
    }

    /// Entries older than those indexed at start: their segments are read whole.
    fn read_archived(&self, range: Range<u64>) -> Result<Vec<Record>, LogError> {
        let segments: Vec<Segment> = lock(&self.shared.places).segments.iter().cloned().collect();
        let from = segments.iter().rposition(|s| s.head.last.index < range.start);
        let from = from.ok_or_else(|| LogError::Purged { oldest: self.oldest() })?;
        let mut found = BTreeMap::new();
        for segment in &segments[from..] {
            if segment.head.last.index >= range.end && !found.is_empty() {
                break;
            }
            recovery::entries_of(segment, &mut found)?;
        }
        let records = range.clone().map_while(|i| found.remove(&i)).map(|record| self.open_record(record));
        let records: Vec<Record> = records.collect::<Result<_, _>>()?;
        if records.is_empty() { Err(LogError::Missing(range.start)) } else { Ok(records) }
    }
}

/// The writer without its thread.
pub struct WriterByHand {
    writer: Writer,
    shared: Arc<Shared>,
}

/// How a turn of the writer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing is queued: to be called again when woken, and with `pause` after [`HIGHWATER_IDLE`] if the flag is set.
    Asleep(bool),
    /// A write failed: nothing is written any more.
    Failed,
}

impl WriterByHand {
    /// Writes what is queued, at the time `now`. `pause`: nothing was queued for a while.
    pub fn turn(&mut self, now: Instant, pause: bool) -> Turn {
        self.writer.turn(&self.shared, now, pause)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        lock(&self.shared.queue).stop = true;
        self.shared.wake.notify_one();
        // The last owner may be a completion on the writer's own thread: it ends by itself then
        let own = std::thread::current().id();
        if let Some(thread) = self.thread.take().filter(|t| t.thread().id() != own) {
            // A panic of the writer has already been reported by its completions' absence
            let _ = thread.join();
        }
    }
}
