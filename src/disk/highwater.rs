//! The high-water record: a place up to which the log is known to be durable.
//!
//! Two blocks of 4 KiB in one file, written in turn, each durable on its own; the intact one with the higher count
//! holds. A torn tail of the log is legal only past this mark.
//!
//! What is promised: the mark follows the log within [`super::log::HIGHWATER_IDLE`] when writers pause, within
//! [`super::log::HIGHWATER_BUSY`] when they do not, and at each new segment. It costs no second sync on the way of a write.
//! Damage in any group but the very last is found without the mark, because groups are numbered and written one after the
//! other (an intact later group proves that an earlier one was durable); damage in the last one by its sectors (`record.rs`).
//! So the one loss that cannot be told from a torn write is that of a whole sector of the *last* group, which reads as if
//! it had never been written, in a node that died less than that long after writing it.

use super::record::{crc_without, u32_at, u64_at};
use super::{AlignedBuf, BLOCK, Disk, DiskFile, LogError};

pub const NAME: &str = "highwater";
const MAGIC: u32 = 0x3148_4b4c; // "LKH1"

/// Where the durable log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Mark {
    /// Random name of this log: groups of another log are never taken for ours.
    pub log: u64,
    pub node: u64,
    /// Grows with each write of a mark.
    pub count: u64,
    /// Segment and byte after the last durable group; segment 0: nothing yet.
    pub segment: u64,
    pub offset: u64,
    /// Number of the group to come there, and the chain before it.
    pub group: u64,
    pub chain: u64,
}

pub struct HighWater {
    file: Box<dyn DiskFile>,
    mark: Mark,
    block: AlignedBuf,
}

impl HighWater {
    /// Reads the record. `Ok(None)`: no mark was ever written whole.
    pub fn open(disk: &dyn Disk) -> Result<Option<HighWater>, LogError> {
        let file = disk.open(NAME).map_err(LogError::io("open high-water record"))?;
        let best = slots(&*file)?.into_iter().flatten().max_by_key(|mark| mark.count);
        Ok(best.map(|mark| HighWater { file, mark, block: AlignedBuf::with_capacity(BLOCK) }))
    }

    pub fn create(disk: &dyn Disk, log: u64, node: u64) -> Result<HighWater, LogError> {
        let file = disk.create(NAME, 2 * BLOCK as u64).map_err(LogError::io("create high-water record"))?;
        let mut high =
            HighWater { file, mark: Mark { log, node, ..Mark::default() }, block: AlignedBuf::with_capacity(BLOCK) };
        high.write(high.mark)?;
        high.write(high.mark)?;
        disk.sync_dir().map_err(LogError::io("sync directory"))?;
        Ok(high)
    }

    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// Makes `mark` durable (its `count` is set here).
    pub fn write(&mut self, mark: Mark) -> Result<(), LogError> {
        let mark = Mark { count: self.mark.count + 1, ..mark };
        self.block.clear();
        self.block.reserve(BLOCK);
        for word in [mark.log, mark.node, mark.count, mark.segment, mark.offset, mark.group, mark.chain] {
            if self.block.is_empty() {
                self.block.extend(&MAGIC.to_le_bytes());
                self.block.extend(&super::record::VERSION.to_le_bytes());
                self.block.extend(&[0; 8]);
            }
            self.block.extend(&word.to_le_bytes());
        }
        self.block.pad(BLOCK);
        let crc = crc_without(self.block.as_slice(), 8);
        self.block.as_mut_slice()[8..12].copy_from_slice(&crc.to_le_bytes());
        let slot = mark.count % 2 * BLOCK as u64;
        self.file.write_durable(self.block.as_slice(), slot).map_err(LogError::io("write high-water record"))?;
        self.mark = mark;
        Ok(())
    }
}

/// Both blocks of the record; `None`: not intact.
pub fn slots(file: &dyn DiskFile) -> Result<[Option<Mark>; 2], LogError> {
    let mut slots = [None; 2];
    for (at, slot) in (0..).step_by(BLOCK).zip(&mut slots) {
        let mut block = vec![0; BLOCK];
        if file.read_at(&mut block, at).is_ok() {
            *slot = parse(&block)?;
        }
    }
    Ok(slots)
}

fn parse(block: &[u8]) -> Result<Option<Mark>, LogError> {
    if u32_at(block, 0) != MAGIC || crc_without(block, 8) != u32_at(block, 8) {
        return Ok(None);
    }
    if u32_at(block, 4) != super::record::VERSION {
        return Err(LogError::Newer(u32_at(block, 4)));
    }
    let word = |i: usize| u64_at(block, 16 + i * 8);
    Ok(Some(Mark {
        log: word(0),
        node: word(1),
        count: word(2),
        segment: word(3),
        offset: word(4),
        group: word(5),
        chain: word(6),
    }))
}
