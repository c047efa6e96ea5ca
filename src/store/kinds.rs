//! Kinds of nodes, and where each keeps its children. Freeing and the checkpoint know nodes only through this file.

use super::arena::Node;
use super::{blob, entry, map, rope, slots, tree, trie};

pub const BRANCH: u8 = 1;
pub const BUCKET: u8 = 2;
pub const ENTRY: u8 = 3;
pub const ROPE_BRANCH: u8 = 4;
pub const ROPE_CHUNK: u8 = 5;
pub const BLOB: u8 = 6;
pub const ROOT: u8 = 7;
pub const SLOTS: u8 = 8;
pub const SLOT_LEAF: u8 = 9;
pub const TREE_LEAF: u8 = 16;
pub const TREE_BRANCH: u8 = 17;
pub const TREE_BRANCH_ORDERED: u8 = 18;

/// Calls `visit` with the byte offset of every child cell of a node. A cell may be null.
pub fn cells(node: Node<'_>, visit: impl FnMut(usize)) {
    match node.kind() {
        BRANCH => trie::cells(node, visit),
        BUCKET => map::bucket_cells(node, visit),
        ENTRY => entry::cells(node, visit),
        ROPE_BRANCH => rope::cells(node, visit),
        SLOTS => slots::cells(node, visit),
        ROPE_CHUNK | BLOB | SLOT_LEAF => blob::cells(node, visit),
        TREE_LEAF | TREE_BRANCH | TREE_BRANCH_ORDERED => tree::cells(node, visit),
        ROOT => {}
        kind => unreachable!("a node of unknown kind {kind}"),
    }
}
