//! One file of the log. It starts with a block that says where in the log's life it begins and repeats all state that
//! earlier segments may hold alone (vote, committed, purged, the newest gap), so that any run of newest segments is a log of its own.

use super::record::{Position, VERSION, Vote, corrupt, crc_without, u32_at, u64_at};
use super::{AlignedBuf, BLOCK, Disk, DiskFile, LogError};
use crate::base::planted::planted;
use std::sync::Arc;

const MAGIC: u32 = 0x3153_4b4c; // "LKS1"

/// State of the log where a segment begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Head {
    pub log: u64,
    /// Number of this segment, from 1.
    pub segment: u64,
    /// Number of its first group, and the chain before it.
    pub group: u64,
    pub chain: u64,
    pub last: Position,
    pub purged: Position,
    pub committed: Position,
    pub vote: Option<Vote>,
    /// As in `Places`; 0: there never was a gap.
    pub behind_gap: u64,
}

impl Head {
    fn write(&self, out: &mut AlignedBuf) {
        out.clear();
        out.reserve(BLOCK);
        out.extend(&MAGIC.to_le_bytes());
        out.extend(&VERSION.to_le_bytes());
        out.extend(&[0; 8]);
        let vote = self.vote.unwrap_or_default();
        let voted = self.vote.map_or(0, |v| 1 + v.committed as u64);
        let words = [
            self.log,
            self.segment,
            self.group,
            self.chain,
            self.last.term,
            self.last.index,
            self.purged.term,
            self.purged.index,
            self.committed.term,
            self.committed.index,
            voted,
            vote.term,
            vote.node,
            self.behind_gap,
        ];
        for word in words {
            out.extend(&word.to_le_bytes());
        }
        out.pad(BLOCK);
        let crc = crc_without(out.as_slice(), 8);
        out.as_mut_slice()[8..12].copy_from_slice(&crc.to_le_bytes());
    }

    fn parse(block: &[u8], name: &str) -> Result<Head, LogError> {
        if u32_at(block, 0) != MAGIC || crc_without(block, 8) != u32_at(block, 8) {
            return Err(corrupt(name, 0, "the segment's first block is damaged"));
        }
        if u32_at(block, 4) != VERSION {
            return Err(LogError::Newer(u32_at(block, 4)));
        }
        let word = |i: usize| u64_at(block, 16 + i * 8);
        let position = |i| Position { term: word(i), index: word(i + 1) };
        Ok(Head {
            log: word(0),
            segment: word(1),
            group: word(2),
            chain: word(3),
            last: position(4),
            purged: position(6),
            committed: position(8),
            vote: (word(10) > 0).then(|| Vote { term: word(11), node: word(12), committed: word(10) == 2 }),
            behind_gap: word(13),
        })
    }
}

/// An open segment.
#[derive(Clone)]
pub struct Segment {
    pub head: Head,
    pub file: Arc<dyn DiskFile>,
    pub len: u64,
}

pub fn name(segment: u64) -> String {
    format!("log-{segment:016x}")
}

/// The number in a segment's file name.
pub fn number(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix("log-").filter(|n| n.len() == 16)?, 16).ok()
}

pub fn is_spare(name: &str) -> bool {
    name.starts_with("spare-")
}

impl Segment {
    pub fn open(disk: &dyn Disk, segment: u64) -> Result<Segment, LogError> {
        let name = name(segment);
        let file: Arc<dyn DiskFile> = disk.open(&name).map_err(LogError::io("open segment"))?.into();
        let len = file.len().map_err(LogError::io("size of segment"))?;
        if len < BLOCK as u64 {
            return Err(corrupt(&name, len, "the segment is cut short"));
        }
        let mut block = vec![0; BLOCK];
        file.read_at(&mut block, 0).map_err(LogError::io("read segment"))?;
        let head = Head::parse(&block, &name)?;
        if head.segment != segment {
            return Err(corrupt(&name, 0, "the segment is another one"));
        }
        Ok(Segment { head, file, len })
    }

    /// Puts the prepared file `spare` to use. The head is durable before the file gets a segment's name, so a file with
    /// such a name and no head is damage, never a crash.
    pub fn begin(disk: &dyn Disk, spare: &str, head: Head) -> Result<Segment, LogError> {
        let file: Arc<dyn DiskFile> = disk.open(spare).map_err(LogError::io("open segment"))?.into();
        let len = file.len().map_err(LogError::io("size of segment"))?;
        let mut block = AlignedBuf::with_capacity(BLOCK);
        head.write(&mut block);
        file.write_durable(block.as_slice(), 0).map_err(LogError::io("begin segment"))?;
        disk.rename(spare, &name(head.segment)).map_err(LogError::io("name segment"))?;
        if !planted("a name is not synced") {
            disk.sync_dir().map_err(LogError::io("sync directory"))?;
        }
        Ok(Segment { head, file, len })
    }
}
