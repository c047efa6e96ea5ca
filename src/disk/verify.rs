//! Looks at a log without opening it: every segment, group and record, the chain, both copies of the high-water record.
//! Unlike recovery it goes on behind the first damage and reads the segments that no start needs any more. Never writes.

use super::highwater::{self, Mark};
use super::log::LogState;
use super::recovery;
use super::seal::Sealer;
use super::segment::{self, Segment};
use super::{Disk, LogError};

/// What a log holds.
#[derive(Debug, Default)]
pub struct LogChecked {
    pub segments: u64,
    pub entries: u64,
    pub bytes: u64,
    /// The oldest entry that is kept, and the state behind the last one.
    pub first: u64,
    pub state: LogState,
    /// Node and name of the log, from the high-water record.
    pub mark: Option<Mark>,
    /// The last write never finished; nobody had been told of it.
    pub torn: bool,
    pub damage: Vec<LogError>,
}

/// Checks the log in `disk`, in an encrypted one also that every entry opens; `progress` is told how many segments of how many are done.
pub fn check(
    disk: &dyn Disk,
    seal: Option<&Sealer>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<LogChecked, LogError> {
    let names = disk.list().map_err(LogError::io("list the log's directory"))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment::number(name)).collect();
    numbers.sort_unstable();
    let mut checked = LogChecked { segments: numbers.len() as u64, ..LogChecked::default() };
    let mark = check_mark(disk, &mut checked);
    let newest = numbers.last().copied().unwrap_or(0);
    if newest < mark.segment {
        checked.damage.push(missing(mark.segment));
    }
    let mut next: Option<Segment> = None;
    // From the newest on: whether a segment ends as it should is known from the head of the one behind it
    for (done, &number) in numbers.iter().rev().enumerate() {
        progress(done, numbers.len());
        let behind = next.take().filter(|next| next.head.segment == number + 1);
        if behind.is_none() && number < newest && !numbers.contains(&(number + 1)) {
            checked.damage.push(missing(number + 1));
        }
        match check_segment(disk, seal, number, behind.as_ref(), &mark, &mut checked) {
            Ok(segment) => next = Some(segment),
            Err(error) => checked.damage.push(error),
        }
    }
    progress(numbers.len(), numbers.len());
    checked.first = next.map_or(0, |oldest| oldest.head.last.index + 1);
    checked.damage.reverse();
    Ok(checked)
}

/// The newest intact copy; without one nothing is known of where the log ends.
fn check_mark(disk: &dyn Disk, checked: &mut LogChecked) -> Mark {
    let damaged = |slot: u64, what| record_damage(slot * super::BLOCK as u64, what);
    match disk.open(highwater::NAME).map_err(LogError::io("open high-water record")).and_then(|f| highwater::slots(&*f))
    {
        Ok(slots) => {
            for (slot, _) in (0..).zip(&slots).filter(|(_, mark)| mark.is_none()) {
                checked.damage.push(damaged(slot, "one of the two copies of the high-water record is damaged"));
            }
            checked.mark = slots.into_iter().flatten().max_by_key(|mark| mark.count);
        }
        Err(error) => checked.damage.push(error),
    }
    checked.mark.unwrap_or_default()
}

fn record_damage(offset: u64, what: &'static str) -> LogError {
    LogError::Corrupt { file: highwater::NAME.into(), offset, what }
}

fn missing(number: u64) -> LogError {
    LogError::Corrupt { file: segment::name(number), offset: 0, what: "the segment is missing" }
}

fn check_segment(
    disk: &dyn Disk,
    seal: Option<&Sealer>,
    number: u64,
    next: Option<&Segment>,
    mark: &Mark,
    checked: &mut LogChecked,
) -> Result<Segment, LogError> {
    let segment = Segment::open(disk, number)?;
    checked.bytes += segment.len;
    if mark.log != 0 && segment.head.log != mark.log {
        let what = "the segment belongs to another log";
        return Err(LogError::Corrupt { file: segment::name(number), offset: 0, what });
    }
    match recovery::check(&segment, next.map(|next| &next.head), mark, seal) {
        Ok((entries, state, _, torn)) => {
            checked.entries += entries;
            if next.is_none() && state.last >= checked.state.last {
                (checked.state, checked.torn) = (state, torn);
            }
        }
        // The head is intact: the segment before this one can still be judged by it
        Err(error) => checked.damage.push(error),
    }
    Ok(segment)
}
