//! Blobs: bytes of any length in one contiguous node of their own (long keys, fields, members, elements). Never changed.
//!
//! ```text
//! header | length u64 | bytes
//! ```

use super::arena::{Node, Ref};
use super::kinds;
use super::mutator::Mutator;

const BYTES: usize = 16;

/// A blob of the pieces, one after the other.
pub fn put(m: &mut Mutator, pieces: &[&[u8]]) -> Ref {
    let len = pieces.iter().map(|p| p.len()).sum::<usize>();
    let mut node = m.alloc_node(BYTES + len, kinds::BLOB);
    node.set_u64(8, len as u64);
    let mut at = BYTES;
    for piece in pieces {
        node.bytes_mut(at, piece.len()).copy_from_slice(piece);
        at += piece.len();
    }
    node.get()
}

#[inline]
pub fn get(node: Node<'_>) -> &[u8] {
    node.bytes(BYTES, node.u64(8) as usize)
}

/// A blob has no children.
pub fn cells(_: Node<'_>, _: impl FnMut(usize)) {}
