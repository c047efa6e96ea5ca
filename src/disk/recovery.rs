//! Reading a log back after any stop: what was durable is found again, or damage is named. Nothing is cut silently.

use super::highwater::{HighWater, Mark};
use super::log::LogState;
use super::record::{Group, Kind, Position, Record, SECTOR, Vote, corrupt, is_zero, zero_sectors};
use super::seal::Sealer;
use super::segment::{self, Head, Segment};
use super::{AlignedBuf, BLOCK, Disk, LogError};
use bytes::Bytes;
use std::collections::VecDeque;

/// Bytes that are wiped with one write.
const WIPE_BYTES: usize = 1 << 20;

/// Where an entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub segment: u64,
    pub offset: u32,
    pub len: u32,
}

/// What the segments hold.
pub struct Recovered {
    pub segments: VecDeque<Segment>,
    /// Places of entries `first..`, without a gap.
    pub places: VecDeque<Place>,
    pub first: u64,
    /// As in `Places`.
    pub behind_gap: u64,
    pub state: LogState,
    /// Where the next group goes: byte of the newest segment, its number, the chain before it.
    pub offset: u64,
    pub group: u64,
    pub chain: u64,
    /// Bytes after `offset` hold a write that never finished.
    pub torn: bool,
}

impl Recovered {
    /// A log with one empty segment.
    pub fn fresh(first: Segment) -> Recovered {
        let (group, chain) = (first.head.group, first.head.chain);
        let segments = VecDeque::from([first]);
        let state = LogState::default();
        Recovered {
            segments,
            places: VecDeque::new(),
            first: 1,
            behind_gap: 0,
            state,
            offset: BLOCK as u64,
            group,
            chain,
            torn: false,
        }
    }
}

/// Opens every segment; they must be there without a gap, up to the one that the mark names.
pub fn open_segments(disk: &dyn Disk, mark: &Mark) -> Result<VecDeque<Segment>, LogError> {
    let names = disk.list().map_err(LogError::io("list segments"))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|n| segment::number(n)).collect();
    numbers.sort_unstable();
    let newest = numbers.last().copied().unwrap_or(0);
    if newest < mark.segment {
        return Err(corrupt(&segment::name(mark.segment), 0, "the segment is missing"));
    }
    let mut segments = VecDeque::new();
    for (i, &number) in numbers.iter().enumerate() {
        if number != numbers[0] + i as u64 {
            return Err(corrupt(&segment::name(numbers[0] + i as u64), 0, "the segment is missing"));
        }
        let segment = Segment::open(disk, number)?;
        if segment.head.log != mark.log {
            return Err(corrupt(&segment::name(number), 0, "the segment belongs to another log"));
        }
        segments.push_back(segment);
    }
    Ok(segments)
}

/// Reads what is needed of `segments` (not empty): from the one that holds the oldest entry that is neither purged nor `covered` by a
/// checkpoint. What lies before it counts as purged from now on: a start's time depends on what it has to replay, not on what is kept.
pub fn recover(segments: VecDeque<Segment>, high: &HighWater, covered: u64) -> Result<Recovered, LogError> {
    let start = first_needed(&segments, covered);
    let head = segments[start].head;
    let purged = if start > 0 { head.purged.max(head.last) } else { head.purged };
    let mut state = LogState { last: head.last, purged, committed: head.committed, vote: head.vote };
    let first = head.last.index + 1;
    let Head { group, chain, behind_gap, .. } = head;
    let mut scan = Scan { group, chain, places: VecDeque::new(), first, behind_gap, state: &mut state, strict: None };
    let mut offset = BLOCK as u64;
    let mut torn = false;
    for (i, segment) in segments.iter().enumerate().skip(start) {
        (offset, torn) = scan.segment(segment, segments.get(i + 1).map(|s| &s.head), &high.mark())?;
    }
    let Scan { group, chain, places, first, behind_gap, .. } = scan;
    Ok(Recovered { segments, places, first, behind_gap, state, offset, group, chain, torn })
}

/// Reads one segment by itself, wherever it lies in the log: how many entries it holds, the state at its end, where its groups end,
/// and whether an unfinished write follows.
pub fn check(
    segment: &Segment,
    next: Option<&Head>,
    mark: &Mark,
    seal: Option<&Sealer>,
) -> Result<(u64, LogState, u64, bool), LogError> {
    let Head { group, chain, last, purged, committed, vote, behind_gap, .. } = segment.head;
    let mut state = LogState { last, purged, committed, vote };
    let mut scan = Scan {
        group,
        chain,
        places: VecDeque::new(),
        first: last.index + 1,
        behind_gap,
        state: &mut state,
        strict: Some(Strict { seal }),
    };
    let (end, torn) = scan.segment(segment, next, mark)?;
    Ok((scan.places.len() as u64, state, end, torn))
}

/// A segment is needed unless everything up to the beginning of the one after it is purged, or covered, by now.
fn first_needed(segments: &VecDeque<Segment>, covered: u64) -> usize {
    let gone = segments.back().map_or(0, |s| s.head.purged.index).max(covered);
    (1..segments.len()).rev().find(|&i| segments[i].head.last.index <= gone).unwrap_or(0)
}

struct Scan<'a> {
    group: u64,
    chain: u64,
    places: VecDeque<Place>,
    first: u64,
    behind_gap: u64,
    state: &'a mut LogState,
    /// Also what nothing depends on must be as it was written: the zeros between records and groups.
    strict: Option<Strict<'a>>,
}

struct Strict<'a> {
    /// Opens every entry of an encrypted log.
    seal: Option<&'a Sealer>,
}

impl Scan<'_> {
    /// Reads one segment. Returns where its groups end and whether an unfinished write follows.
    fn segment(&mut self, segment: &Segment, next: Option<&Head>, mark: &Mark) -> Result<(u64, bool), LogError> {
        let name = segment::name(segment.head.segment);
        if (segment.head.group, segment.head.chain) != (self.group, self.chain) {
            return Err(corrupt(&name, 0, "the segment does not continue the one before"));
        }
        let bytes = read_whole(segment)?;
        let mut at = BLOCK;
        while let Some(group) = bytes.get(at..).and_then(Group::parse) {
            if group.log != segment.head.log || group.number != self.group {
                break;
            }
            let Some((records, chain)) = group.records(&bytes.slice(at..)) else { break };
            if group.chain != self.chain {
                return Err(corrupt(&name, at as u64, "the group does not continue the one before"));
            }
            let end = at + group.padded() as usize;
            let gap = bytes.get(at + group.bytes as usize..end).unwrap_or_default();
            if self.strict.is_some() && (gap.iter().any(|byte| *byte != 0) || !gaps_are_zero(&bytes[at..], &records)) {
                return Err(corrupt(&name, at as u64, "bytes between records are damaged"));
            }
            for (record, offset) in records {
                if let Some(Strict { seal: Some(seal) }) = self.strict
                    && record.kind.is_entry()
                {
                    super::record::open(seal, segment.head.log, record.clone())?;
                }
                self.record(record, segment.head.segment, at as u64 + offset, &name)?;
            }
            self.chain = chain;
            self.group += 1;
            at = end;
            self.check_mark(segment, at as u64, mark, &name)?;
        }
        self.check_end(segment, &bytes, at, next, mark, &name)?;
        Ok((at as u64, next.is_none() && !bytes.get(at..).is_none_or(is_zero)))
    }

    fn check_mark(&self, segment: &Segment, at: u64, mark: &Mark, name: &str) -> Result<(), LogError> {
        let there = mark.segment == segment.head.segment && mark.offset == at;
        if there && (mark.group, mark.chain) != (self.group, self.chain) {
            return Err(corrupt(name, at, "the log is not the one that the high-water record saw"));
        }
        Ok(())
    }

    /// The groups of a segment end at `at`: is that all there ever was?
    fn check_end(
        &self,
        segment: &Segment,
        bytes: &Bytes,
        at: usize,
        next: Option<&Head>,
        mark: &Mark,
        name: &str,
    ) -> Result<(), LogError> {
        if let Some(next) = next {
            // The next segment was begun after everything in this one was durable
            if (next.group, next.chain) != (self.group, self.chain) {
                return Err(corrupt(name, at as u64, "a durable group is damaged"));
            }
            return Ok(());
        }
        if mark.segment == segment.head.segment && (at as u64) < mark.offset {
            return Err(corrupt(name, at as u64, "a durable group is damaged (before the high-water mark)"));
        }
        // One write is in flight at a time: an intact later group proves that this place was durable
        let later = (at..bytes.len())
            .step_by(BLOCK)
            .filter_map(|block| Group::parse(&bytes[block..]))
            .any(|g| g.log == segment.head.log && g.number > self.group);
        if later {
            return Err(corrupt(name, at as u64, "a durable group is damaged (intact ones follow)"));
        }
        self.check_last(segment, &bytes[at.min(bytes.len())..])
            .map_or(Ok(()), |what| Err(corrupt(name, at as u64, what)))
    }

    /// What is wrong at the place of the next group, `rest` and what follows: nothing if it was never written, or torn.
    fn check_last(&self, segment: &Segment, rest: &[u8]) -> Option<&'static str> {
        // Torn or never written: its first sector is not there
        if zero_sectors(&rest[..rest.len().min(SECTOR)]) > 0 || rest.is_empty() {
            return None;
        }
        let ours = |group: &Group| group.log == segment.head.log && group.number == self.group;
        let Some(group) = Group::parse(rest).filter(ours) else { return Some("the last group's head is damaged") };
        let sectors = usize::try_from(group.padded()).ok().and_then(|padded| rest.get(..padded));
        match sectors.map(zero_sectors) {
            Some(zeros) if zeros > group.zeros => None,
            _ => Some("the last group is damaged (all of it had been written)"),
        }
    }

    fn record(&mut self, record: Record, segment: u64, offset: u64, name: &str) -> Result<(), LogError> {
        let position = Position { term: record.term, index: record.index };
        match record.kind {
            Kind::Vote => {
                let committed = record.payload.first() == Some(&1);
                self.state.vote = Some(Vote { term: record.term, node: record.index, committed });
            }
            Kind::Committed => self.state.committed = position,
            Kind::Purge => {
                if purge(self.state, &mut self.places, &mut self.first, position) {
                    self.behind_gap = self.first;
                }
            }
            Kind::Truncate => truncate(self.state, &mut self.places, self.first, position),
            Kind::Blank | Kind::Batch | Kind::Membership => {
                if self.state.last.index + 1 != record.index && self.state.last.index != 0 {
                    return Err(corrupt(name, offset, "an entry is out of order"));
                }
                self.state.last = position;
                if self.places.is_empty() {
                    self.first = record.index;
                }
                let len = super::record::RECORD_BYTES + record.payload.len();
                self.places.push_back(Place { segment, offset: offset as u32, len: len as u32 });
            }
        }
        Ok(())
    }
}

/// Whether each record of a group is followed by zeros up to the next.
fn gaps_are_zero(group: &[u8], records: &[(Record, u64)]) -> bool {
    records.iter().all(|(record, offset)| {
        let end = *offset as usize + super::record::RECORD_BYTES + record.payload.len();
        group.get(end..end.next_multiple_of(8)).is_some_and(|gap| gap.iter().all(|byte| *byte == 0))
    })
}

/// The state after a purge up to `position`; when that is past the last entry (a checkpoint of a peer was taken over) the
/// log goes on after it, and there is a gap: true.
pub fn purge(state: &mut LogState, places: &mut VecDeque<Place>, first: &mut u64, position: Position) -> bool {
    state.purged = state.purged.max(position);
    let gap = position.index > state.last.index;
    if gap {
        state.last = position;
        places.clear();
        *first = position.index + 1;
    }
    gap
}

/// The state after all entries behind `position` became void.
pub fn truncate(state: &mut LogState, places: &mut VecDeque<Place>, first: u64, position: Position) {
    if position.index < state.last.index {
        state.last = position;
        places.truncate((position.index + 1).saturating_sub(first) as usize);
    }
}

/// Makes what follows the end of the log zeros again after a torn write: the next one could not be told from damage else.
pub fn wipe(segment: &Segment, end: u64) -> Result<(), LogError> {
    let mut zeros = AlignedBuf::with_capacity(WIPE_BYTES);
    zeros.extend(&vec![0; WIPE_BYTES]);
    let mut piece = vec![0; WIPE_BYTES];
    for at in (end..segment.len).step_by(WIPE_BYTES) {
        let len = (segment.len - at).min(WIPE_BYTES as u64) as usize;
        segment.file.read_at(&mut piece[..len], at).map_err(LogError::io("read segment"))?;
        if !is_zero(&piece[..len]) {
            segment.file.write_durable(&zeros.as_slice()[..len], at).map_err(LogError::io("wipe segment"))?;
        }
    }
    Ok(())
}

fn read_whole(segment: &Segment) -> Result<Bytes, LogError> {
    let mut bytes = vec![0; segment.len as usize];
    segment.file.read_at(&mut bytes, 0).map_err(LogError::io("read segment"))?;
    Ok(bytes.into())
}

/// All entries that a segment no longer indexed holds, later ones of the same index in place of earlier ones.
pub fn entries_of(segment: &Segment, found: &mut std::collections::BTreeMap<u64, Record>) -> Result<(), LogError> {
    let name = segment::name(segment.head.segment);
    let bytes = read_whole(segment)?;
    let (mut at, mut number, mut chain) = (BLOCK, segment.head.group, segment.head.chain);
    while let Some(group) = bytes.get(at..).and_then(Group::parse) {
        if group.log != segment.head.log || group.number != number {
            break;
        }
        let (records, after) =
            group.records(&bytes.slice(at..)).ok_or_else(|| corrupt(&name, at as u64, "a durable group is damaged"))?;
        if group.chain != chain {
            return Err(corrupt(&name, at as u64, "the group does not continue the one before"));
        }
        for (record, _) in records {
            match record.kind {
                Kind::Truncate => drop(found.split_off(&(record.index + 1))),
                kind if kind.is_entry() => drop(found.insert(record.index, record)),
                _ => {}
            }
        }
        (at, number, chain) = (at + group.padded() as usize, number + 1, after);
    }
    Ok(())
}
