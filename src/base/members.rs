//! # Membership: who belongs to the cluster, as the log and the checkpoints hold it
//!
//! ```text
//! configs u32, each: count u32, ids u64 ... | nodes u32, each: id u64, length u32, address      (little endian)
//! ```
//! More than one config: a joint membership, in which every config must agree.

use super::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// Begins the address of an export: a learner that will stop at an epoch and so can never vote.
pub const EXPORT: &str = "export@";

/// The address to dial, of any member.
pub fn dialed(addr: &str) -> &str {
    addr.strip_prefix(EXPORT).unwrap_or(addr)
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    pub voters: Vec<BTreeSet<NodeId>>,
    /// Voters and learners, and where their peers reach them.
    pub nodes: BTreeMap<NodeId, String>,
}

impl Members {
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.iter().any(|config| config.contains(&node))
    }

    pub fn is_export(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|addr| addr.starts_with(EXPORT))
    }

    /// The highest id in it.
    pub fn highest(&self) -> NodeId {
        self.nodes.keys().next_back().copied().unwrap_or(NodeId::ZERO)
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend((self.voters.len() as u32).to_le_bytes());
        for config in &self.voters {
            out.extend((config.len() as u32).to_le_bytes());
            config.iter().for_each(|id| out.extend(id.0.to_le_bytes()));
        }
        out.extend((self.nodes.len() as u32).to_le_bytes());
        for (id, addr) in &self.nodes {
            out.extend(id.0.to_le_bytes());
            out.extend((addr.len() as u32).to_le_bytes());
            out.extend(addr.as_bytes());
        }
        out
    }

    pub fn parse(bytes: &[u8]) -> Option<Members> {
        let mut reader = Reader(bytes);
        let mut members = Members::default();
        for _ in 0..reader.u32()? {
            let mut config = BTreeSet::new();
            for _ in 0..reader.u32()? {
                config.insert(NodeId(reader.u64()?));
            }
            members.voters.push(config);
        }
        for _ in 0..reader.u32()? {
            let id = NodeId(reader.u64()?);
            let addr = reader.bytes()?;
            members.nodes.insert(id, std::str::from_utf8(addr).ok()?.to_string());
        }
        reader.0.is_empty().then_some(members)
    }
}

/// Takes little-endian words off a slice.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }
    pub fn u8(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }
    pub fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }
    pub fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
    /// `length u32, bytes`
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()? as usize;
        self.take(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_membership_reads_back_as_written_and_no_cut_of_it_does() {
        let voters = [1, 2, 3].map(NodeId).into();
        let nodes = (1..=4).map(|id| (NodeId(id), format!("10.0.0.{id}:7000"))).collect();
        let members = Members { voters: vec![voters], nodes };
        let bytes = members.to_bytes();
        assert_eq!(Members::parse(&bytes), Some(members.clone()));
        assert_eq!((members.highest(), members.is_voter(NodeId(4))), (NodeId(4), false));
        assert!((0..bytes.len()).all(|cut| Members::parse(&bytes[..cut]).is_none()));
    }
}
