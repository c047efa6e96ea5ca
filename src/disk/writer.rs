//! The log's writer: whoever holds it may change its files. Mostly a thread of its own, sometimes who appends.

use super::highwater::{self, HighWater, Mark};
use super::log::{
    Completion, HIGHWATER_BUSY, HIGHWATER_IDLE, LogOptions, LogState, Op, Places, Queue, Shared, Turn, lock,
};
use super::record::{
    self, GROUP_BYTES, Group, Kind, Position, RECORD_BYTES, SECTOR, Vote, record_len, seal_record, zero_sectors,
};
use super::recovery::{self, Place, Recovered};
use super::seal::{Sealer, TRAILER_BYTES};
use super::segment::{self, Head, Segment};
use super::{AlignedBuf, BLOCK, Disk, LogError};
use crate::base::planted::planted;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

/// Most bytes of one group, unless a single entry is larger.
const GROUP_BYTES_MAX: usize = 8 << 20;

pub(super) struct Writer {
    disk: Arc<dyn Disk>,
    options: LogOptions,
    high: HighWater,
    segment: Segment,
    offset: u64,
    group: u64,
    /// Chain after the last group written, and after what is laid out.
    chain: u64,
    open_chain: u64,
    /// State after the last group written.
    state: LogState,
    buf: AlignedBuf,
    /// Entries, purges and truncations in `buf`, in order.
    pending: Vec<(Kind, Position, Place, Option<Vote>)>,
    records: u32,
    /// Time of this turn, and of the last high-water record.
    now: Instant,
    marked: Instant,
    /// Something is durable that the high-water record does not cover.
    dirty: bool,
    preparing: Option<JoinHandle<Result<String, LogError>>>,
    spare_count: u64,
}

impl Writer {
    pub fn open(disk: Arc<dyn Disk>, options: LogOptions) -> Result<(Writer, Places, bool), LogError> {
        let names = disk.list().map_err(LogError::io("list directory"))?;
        let any_segment = names.iter().any(|n| segment::number(n).is_some());
        let high = match names.iter().any(|n| n == highwater::NAME) {
            true => HighWater::open(&*disk)?,
            false => None,
        };
        if any_segment && high.is_none() {
            let what = "the high-water record is missing or damaged";
            return Err(LogError::Corrupt { file: highwater::NAME.into(), offset: 0, what });
        }
        let high = match high {
            Some(high) => high,
            None => HighWater::create(&*disk, options.fresh_name, options.node)?,
        };
        if high.mark().node != options.node {
            return Err(LogError::Foreign { found: high.mark().node, expected: options.node });
        }
        let spares: Vec<String> = names.into_iter().filter(|n| segment::is_spare(n)).collect();
        for spare in &spares {
            // Half-made, nobody knows how far: made anew when needed
            disk.remove(spare).map_err(LogError::io("remove spare segment"))?;
        }
        let segments = recovery::open_segments(&*disk, &high.mark())?;
        let recovered = if segments.is_empty() {
            Recovered::fresh(first_segment(&*disk, &options, high.mark().log)?)
        } else {
            recovery::recover(segments, &high, options.covered)?
        };
        let Some(segment) = recovered.segments.back().cloned() else {
            return Err(LogError::Stopped("no segment".into()));
        };
        // After a mere process crash the tail, and the names of files, may still be in the page cache only
        segment.file.sync().map_err(LogError::io("sync segment"))?;
        if !planted("a name is not synced") {
            disk.sync_dir().map_err(LogError::io("sync directory"))?;
        }
        if recovered.torn && !planted("a torn write stays") {
            recovery::wipe(&segment, recovered.offset)?;
        }
        let mut writer = Writer {
            disk,
            high,
            segment,
            offset: recovered.offset,
            group: recovered.group,
            chain: recovered.chain,
            open_chain: recovered.chain,
            state: recovered.state,
            buf: AlignedBuf::default(),
            pending: Vec::new(),
            records: 0,
            now: Instant::now(),
            marked: Instant::now(),
            dirty: true,
            preparing: None,
            spare_count: 0,
            options,
        };
        writer.mark()?;
        writer.prepare_next();
        let Recovered { segments, places, first, behind_gap, state, torn, .. } = recovered;
        Ok((writer, Places { segments, places, first, behind_gap, state }, torn))
    }

    /// Until the log is closed or a write fails.
    pub fn run(writer: &Mutex<Writer>, shared: &Shared) {
        loop {
            let pause = wait(shared);
            // The writer first: of two that took what was queued the first must write first
            let mut writer = lock(writer);
            let (ops, stop) = {
                let mut queue = lock(&shared.queue);
                if queue.failed.is_some() {
                    return;
                }
                (queue.take(), queue.stop)
            };
            writer.now = Instant::now();
            let written = writer.write_or_pause(ops, pause, stop, shared);
            if !written || (stop && lock(&shared.queue).ops.is_empty()) {
                return;
            }
        }
    }

    /// Queues what `change` brings and writes it on the caller's thread.
    pub fn write_here(
        &mut self,
        shared: &Shared,
        change: impl FnOnce(&mut Queue) -> Result<Option<Completion>, LogError>,
    ) -> Result<(), LogError> {
        let mut queue = lock(&shared.queue);
        queue.check()?;
        let at_once = change(&mut queue)?;
        // The thread sleeps without end while everything is marked
        let rouse = queue.asleep && !queue.unmarked;
        let ops = queue.take();
        drop(queue);
        if rouse {
            shared.wake.notify_one();
        }
        self.now = Instant::now();
        self.write_and_tell(ops, false, shared);
        if let Some(done) = at_once {
            done(Ok(()));
        }
        Ok(())
    }

    /// One turn of [`Writer::run`] that never waits.
    pub fn turn(&mut self, shared: &Shared, now: Instant, pause: bool) -> Turn {
        self.now = now;
        let ops = {
            let mut queue = lock(&shared.queue);
            if queue.failed.is_some() {
                return Turn::Failed;
            }
            let ops = if queue.ops.is_empty() && !pause { Vec::new() } else { queue.take() };
            queue.asleep = true;
            ops
        };
        let written = self.write_or_pause(ops, pause, false, shared);
        match written {
            true => Turn::Asleep(self.dirty || lock(&shared.queue).committed_waits),
            false => Turn::Failed,
        }
    }

    /// Writes `ops`; if nobody waits for them, brings the high-water record up to date instead. False: it failed.
    fn write_or_pause(&mut self, ops: Vec<Op>, pause: bool, stop: bool, shared: &Shared) -> bool {
        match pause && ops.iter().all(|op| op.done.is_none()) {
            true => self.use_pause(ops, shared),
            false => self.write_and_tell(ops, stop, shared),
        }
    }

    /// Writes `ops` and calls everyone who waits for them. False: it failed.
    fn write_and_tell(&mut self, ops: Vec<Op>, stop: bool, shared: &Shared) -> bool {
        let mut done = Vec::new();
        let result = self.write_all(ops, shared, &mut done).and_then(|()| self.mark_if_due(stop));
        if let Err(failure) = &result {
            tracing::error!("{failure}");
            // First, so that nothing is queued any more once a waiter knows
            fail(shared, failure.clone());
        }
        for completion in done {
            completion(result.clone());
        }
        result.is_ok()
    }

    /// Nobody waits for `ops`: brings the high-water record up to date, too. False: it failed.
    fn use_pause(&mut self, ops: Vec<Op>, shared: &Shared) -> bool {
        let written = self.write_all(ops, shared, &mut Vec::new()).and_then(|()| self.mark());
        if let Err(failure) = &written {
            tracing::error!("{failure}");
            fail(shared, failure.clone());
        }
        lock(&shared.queue).unmarked = false;
        written.is_ok()
    }

    /// Lays out and writes all of `ops`; their completions end in `done` (called by the caller, with the result).
    fn write_all(&mut self, ops: Vec<Op>, shared: &Shared, done: &mut Vec<Completion>) -> Result<(), LogError> {
        let mut result = Ok(());
        for op in ops {
            done.extend(op.done);
            if result.is_err() {
                continue;
            }
            let len = op.payload.as_ref().map_or(0, |p| p.encoded_len());
            let len = len + if self.sealed(op.kind, len).is_some() { TRAILER_BYTES } else { 0 };
            let full = self.records > 0 && self.buf.len() + record_len(len) > self.group_max();
            result = if full { self.write_group(shared) } else { Ok(()) };
            if result.is_ok() {
                result = self.lay_out(op.kind, op.position, op.payload.as_deref(), len);
            }
        }
        result.and_then(|()| self.write_group(shared))
    }

    fn group_max(&self) -> usize {
        GROUP_BYTES_MAX.min(self.options.segment_bytes as usize - BLOCK)
    }

    /// What encrypts a payload of `len` bytes; none for what holds no data.
    fn sealed(&self, kind: Kind, len: usize) -> Option<Arc<Sealer>> {
        self.options.seal.clone().filter(|_| kind.is_entry() && len > 0)
    }

    /// The random name of this log.
    pub fn log_name(&self) -> u64 {
        self.high.mark().log
    }

    fn lay_out(
        &mut self,
        kind: Kind,
        position: Position,
        payload: Option<&dyn super::Payload>,
        len: usize,
    ) -> Result<(), LogError> {
        if u32::try_from(len + RECORD_BYTES).is_err() {
            return Err(LogError::Io { op: "lay out entry", error: "entry of 4 GiB or more".into(), full: false });
        }
        if self.records == 0 {
            self.buf.clear();
            self.buf.reserve(GROUP_BYTES);
            self.buf.extend(&[0; GROUP_BYTES]);
        }
        let at = self.buf.len();
        self.buf.reserve(record_len(len) + BLOCK);
        self.buf.extend(&[0; RECORD_BYTES]);
        if let Some(payload) = payload {
            let buf = &mut self.buf;
            payload.write_to(&mut |piece| buf.extend(piece));
        }
        if let Some(seal) = self.sealed(kind, self.buf.len() - at - RECORD_BYTES) {
            let place = record::place(self.high.mark().log, kind, position.term, position.index);
            let trailer = seal.seal(&place, &mut self.buf.as_mut_slice()[at + RECORD_BYTES..]);
            let error = |why| LogError::Sealed { index: position.index, why };
            self.buf.extend(&trailer.map_err(error)?);
        }
        debug_assert_eq!(self.buf.len(), at + RECORD_BYTES + len, "a payload is as long as it says");
        let record = &mut self.buf.as_mut_slice()[at..];
        self.open_chain = seal_record(record, self.open_chain, kind, position.term, position.index);
        let committed = record.get(RECORD_BYTES) == Some(&1);
        let vote = (kind == Kind::Vote).then_some(Vote { term: position.term, node: position.index, committed });
        let place = Place { segment: 0, offset: at as u32, len: (self.buf.len() - at) as u32 };
        self.buf.pad(8);
        self.records += 1;
        self.pending.push((kind, position, place, vote));
        Ok(())
    }

    /// One durable write of what is laid out.
    fn write_group(&mut self, shared: &Shared) -> Result<(), LogError> {
        if self.records == 0 {
            return Ok(());
        }
        let bytes = self.buf.len() as u64;
        let padded = bytes.next_multiple_of(BLOCK as u64);
        if self.offset + padded > self.segment.len {
            self.rotate(padded, shared)?;
        }
        let (number, log, chain) = (self.group, self.segment.head.log, self.chain);
        self.buf.pad(BLOCK);
        let zeros = zero_sectors(&self.buf.as_slice()[SECTOR..]);
        let group = Group { number, log, chain, records: self.records, bytes, zeros };
        group.write(self.buf.as_mut_slice());
        let begun = Instant::now();
        if !(planted("a write is skipped") && self.group % 16 == 9) {
            self.segment.file.write_durable(self.buf.as_slice(), self.offset).map_err(LogError::io("write log"))?;
        }
        shared.syncs.record(begun.elapsed());
        self.take_in(shared);
        self.offset += padded;
        self.group += 1;
        self.chain = self.open_chain;
        self.records = 0;
        self.dirty = true;
        self.let_go(shared)
    }

    /// Tells readers what the group just written brought.
    fn take_in(&mut self, shared: &Shared) {
        let mut places = lock(&shared.places);
        let places = &mut *places;
        for (kind, position, place, vote) in self.pending.drain(..) {
            match kind {
                Kind::Vote => self.state.vote = vote,
                Kind::Committed => self.state.committed = position,
                Kind::Truncate => recovery::truncate(&mut self.state, &mut places.places, places.first, position),
                Kind::Purge => {
                    if recovery::purge(&mut self.state, &mut places.places, &mut places.first, position) {
                        places.behind_gap = places.first;
                    }
                }
                Kind::Blank | Kind::Batch | Kind::Membership => {
                    if places.places.is_empty() {
                        places.first = position.index;
                    }
                    self.state.last = position;
                    let offset = place.offset + self.offset as u32;
                    places.places.push_back(Place { segment: self.segment.head.segment, offset, ..place });
                }
            }
        }
        places.state = self.state;
    }

    /// Begins the next segment; everything in this one is durable.
    fn rotate(&mut self, group_bytes: u64, shared: &Shared) -> Result<(), LogError> {
        let len = self.options.segment_bytes.max(group_bytes + BLOCK as u64);
        let spare = if len == self.options.segment_bytes { self.spare()? } else { self.create_spare(len)? };
        let LogState { last, purged, committed, vote } = self.state;
        let (log, segment) = (self.segment.head.log, self.segment.head.segment + 1);
        let behind_gap = lock(&shared.places).behind_gap;
        let head =
            Head { log, segment, group: self.group, chain: self.chain, last, purged, committed, vote, behind_gap };
        self.segment = Segment::begin(&*self.disk, &spare, head)?;
        self.offset = BLOCK as u64;
        lock(&shared.places).segments.push_back(self.segment.clone());
        self.mark()?;
        self.prepare_next();
        Ok(())
    }

    /// Takes the oldest segments out of the log while more history is kept than asked for.
    fn let_go(&mut self, shared: &Shared) -> Result<(), LogError> {
        loop {
            let old = {
                let mut places = lock(&shared.places);
                let places = &mut *places;
                let purged =
                    |i: usize| places.segments.get(i + 1).is_some_and(|s| s.head.last.index <= self.state.purged.index);
                let kept: u64 =
                    (0..places.segments.len()).take_while(|&i| purged(i)).map(|i| places.segments[i].len).sum();
                if kept <= self.options.history_bytes {
                    return Ok(());
                }
                let Some(old) = places.segments.pop_front() else { return Ok(()) };
                while places.places.front().is_some_and(|p| p.segment == old.head.segment) {
                    places.places.pop_front();
                    places.first += 1;
                }
                old
            };
            self.disk.remove(&segment::name(old.head.segment)).map_err(LogError::io("remove segment"))?;
            self.disk.sync_dir().map_err(LogError::io("sync directory"))?;
        }
    }

    fn spare_name(&mut self) -> String {
        self.spare_count += 1;
        format!("spare-{}", self.spare_count)
    }

    fn create_spare(&mut self, len: u64) -> Result<String, LogError> {
        let name = self.spare_name();
        self.disk.create(&name, len).map_err(LogError::io("create segment"))?;
        Ok(name)
    }

    fn spare(&mut self) -> Result<String, LogError> {
        match self.preparing.take().map(JoinHandle::join) {
            Some(Ok(prepared)) => prepared,
            _ => self.create_spare(self.options.segment_bytes),
        }
    }

    /// Fills the next segment with zeros on a thread of its own, so that no writer waits for that.
    fn prepare_next(&mut self) {
        if !self.options.prepare_ahead || self.preparing.is_some() {
            return;
        }
        let (name, disk, len) = (self.spare_name(), self.disk.clone(), self.options.segment_bytes);
        let create = move || disk.create(&name, len).map(|_| name).map_err(LogError::io("create segment"));
        // Without a thread the segment is made when it is needed
        self.preparing = std::thread::Builder::new().name("look-log-next".into()).spawn(create).ok();
    }

    fn mark(&mut self) -> Result<(), LogError> {
        let old = self.high.mark();
        let ahead = u64::from(planted("the high-water mark runs ahead")) * BLOCK as u64;
        let (segment, offset) = (self.segment.head.segment, self.offset + ahead);
        self.high.write(Mark { segment, offset, group: self.group, chain: self.chain, ..old })?;
        self.marked = self.now;
        self.dirty = false;
        Ok(())
    }

    fn mark_if_due(&mut self, stop: bool) -> Result<(), LogError> {
        if self.dirty && (stop || self.now.duration_since(self.marked) >= HIGHWATER_BUSY) {
            self.mark()
        } else {
            Ok(())
        }
    }
}

fn first_segment(disk: &dyn Disk, options: &LogOptions, log: u64) -> Result<Segment, LogError> {
    let name = "spare-0";
    disk.create(name, options.segment_bytes).map_err(LogError::io("create segment"))?;
    Segment::begin(disk, name, Head { log, segment: 1, group: 1, ..Head::default() })
}

/// Waits for work. True: none came for a while, and what was written since the last pause is not marked.
fn wait(shared: &Shared) -> bool {
    let mut queue = lock(&shared.queue);
    while queue.ops.is_empty() && !queue.stop {
        queue.asleep = true;
        if !queue.unmarked && !queue.committed_waits {
            queue = shared.wake.wait(queue).unwrap_or_else(|e| e.into_inner());
            continue;
        }
        let turns = queue.turns;
        let (q, timeout) = shared.wake.wait_timeout(queue, HIGHWATER_IDLE).unwrap_or_else(|e| e.into_inner());
        queue = q;
        if timeout.timed_out() && queue.ops.is_empty() && queue.turns == turns {
            queue.asleep = false;
            return true;
        }
    }
    queue.asleep = false;
    false
}

/// Answers everyone who waits and everyone to come with the failure.
fn fail(shared: &Shared, failure: LogError) {
    let ops = {
        let mut queue = lock(&shared.queue);
        queue.failed = Some(failure.clone());
        std::mem::take(&mut queue.ops)
    };
    for done in ops.into_iter().filter_map(|op| op.done) {
        done(Err(failure.clone()));
    }
}
