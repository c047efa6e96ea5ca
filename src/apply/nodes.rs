//! What the replicated state knows of the cluster's nodes beside the membership itself, and what outlives it: the id that the
//! next node gets, and the data directory that each node brought along.

use super::machine::{Applied, Roster};
use super::system;
use crate::base::NodeId;
use crate::base::members::Members;
use crate::store::{Read, Writer};

const NEXT_NODE: &[u8] = b"next-node";
const DIRECTORY: &[u8] = b"node-directory:";

fn word<R: Read>(state: &R, key: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(system::get(state, key)?.try_into().ok()?))
}

fn directory_key(node: NodeId) -> Vec<u8> {
    [DIRECTORY, &node.0.to_be_bytes()].concat()
}

/// Raises the next node's id above everything in `members`: an id is never given twice, whoever leaves.
pub(super) fn note_members(writer: &mut Writer, members: &Members) {
    let next = members.highest().next();
    if word(writer, NEXT_NODE).is_none_or(|known| known < next.0) {
        system::put(writer, NEXT_NODE, &next.0.to_le_bytes(), None);
    }
}

/// Remembers the data directory of a node; the first one wins, so that a wiped node cannot come back under its old id.
pub(super) fn set_directory(writer: &mut Writer, node: NodeId, directory: u64) {
    let key = directory_key(node);
    if word(writer, &key).is_none() {
        system::put(writer, &key, &directory.to_le_bytes(), None);
    }
}

/// For a new cluster that begins with an old one's state.
pub fn forget_directories(writer: &mut Writer) {
    let mut known = Vec::new();
    system::names(writer, DIRECTORY, |id| known.push([DIRECTORY, id].concat()));
    known.iter().for_each(|key| system::remove(writer, key));
}

/// What the state that shows `applied` knows.
pub(super) fn roster<R: Read>(state: &R, applied: &Applied) -> Roster {
    let members = applied.membership.as_ref().and_then(|(_, bytes)| Members::parse(bytes)).unwrap_or_default();
    let next = word(state, NEXT_NODE).map_or(members.highest().next(), NodeId);
    let directory = |id: &NodeId| Some((*id, word(state, &directory_key(*id))?));
    let directories = members.nodes.keys().filter_map(directory).collect();
    Roster { members, next, directories }
}
