//! Leaves of the B+tree: items packed into one node.
//!
//! ```text
//! header | count u16 | low u16 | removed u16 | unused u16 | slot (offset u16, length u16) x count → … free … ← items
//! ```
//! Items grow down from the node's end; `low` is the lowest byte in use, `removed` the bytes that removals left between
//! them. An item longer than [`INLINE_MAX`] is a blob: its slot's length is [`LONG`] and its offset names an aligned cell.

use super::branch::{Entries, Entry, Prefix};
use super::order;
use crate::store::arena::{Arena, Node, Ref};
use crate::store::mutator::Mutator;
use crate::store::{blob, kinds};
use smallvec::{SmallVec, smallvec};

/// Largest leaf, bytes, header included. Each changed leaf is copied once a sub-batch, so small; each branch entry above
/// it costs 32 bytes, so not tiny.
pub const LEAF_BYTES_MAX: usize = 1024;
/// Longest item that lies in the leaf itself, bytes.
pub const INLINE_MAX: usize = 256;

const COUNT: usize = 8;
const LOW: usize = 10;
const REMOVED: usize = 12;
const SLOTS: usize = 16;
const SLOT: usize = 4;
const LONG: u16 = u16::MAX;
/// A cell and the most that aligning it may waste.
const LONG_BYTES: usize = 15;

/// An item on its way into a leaf.
#[derive(Clone, Copy)]
enum Piece<'a> {
    Inline(&'a [u8]),
    Long(Ref),
}

impl Piece<'_> {
    fn bytes(&self) -> usize {
        SLOT + match self {
            Piece::Inline(bytes) => bytes.len(),
            Piece::Long(_) => LONG_BYTES,
        }
    }
}

fn piece<'a>(m: &mut Mutator, item: &'a [u8]) -> Piece<'a> {
    if item.len() <= INLINE_MAX { Piece::Inline(item) } else { Piece::Long(blob::put(m, &[item])) }
}

pub fn count(node: Node<'_>) -> usize {
    node.u16(COUNT) as usize
}

fn slot(node: Node<'_>, i: usize) -> (usize, u16) {
    (node.u16(SLOTS + i * SLOT) as usize, node.u16(SLOTS + i * SLOT + 2))
}

/// Item `i`, whole.
pub fn item<'a>(arena: &'a Arena, node: Node<'a>, i: usize) -> &'a [u8] {
    match slot(node, i) {
        (offset, LONG) => blob::get(arena.child(node.cell(offset))),
        (offset, len) => node.bytes(offset, len as usize),
    }
}

pub fn cells(node: Node<'_>, mut visit: impl FnMut(usize)) {
    for i in 0..count(node) {
        if let (offset, LONG) = slot(node, i) {
            visit(offset);
        }
    }
}

/// A leaf as its parent sees it.
pub fn entry(arena: &Arena, at: Ref, order: Option<super::Order>) -> Entry {
    let node = arena.node(at);
    let prefix: Prefix = order.map_or([0; 2], |order| order::prefix(order, item(arena, node, 0)));
    Entry { at, weight: count(node) as u64, prefix }
}

/// A leaf of one item.
pub fn single(m: &mut Mutator, new: &[u8]) -> Ref {
    let piece = piece(m, new);
    build(m, &[piece], SLOTS + piece.bytes())
}

/// Puts an item before position `i`. The result takes the leaf's place.
pub fn insert(m: &mut Mutator, at: Ref, i: usize, new: &[u8], order: Option<super::Order>) -> Entries {
    let piece = piece(m, new);
    let node = m.arena().node(at);
    let used = used(node);
    if used + piece.bytes() > LEAF_BYTES_MAX {
        return split(m, at, i, piece, order);
    }
    let at = if room(node) >= piece.bytes() { m.own(at) } else { repack(m, at, piece.bytes()) };
    place(m, at, i, piece);
    smallvec![entry(m.arena(), at, order)]
}

/// Takes item `i` out. No entry: the leaf is empty and gone.
pub fn remove(m: &mut Mutator, at: Ref, i: usize, order: Option<super::Order>) -> Entries {
    let count = count(m.arena().node(at));
    if count == 1 {
        drop_long(m, at, i);
        m.retire(at);
        return Entries::new();
    }
    let at = m.own(at);
    take(m, at, i);
    smallvec![entry(m.arena(), at, order)]
}

/// Replaces item `i`.
pub fn replace(m: &mut Mutator, at: Ref, i: usize, new: &[u8]) -> Entries {
    if count(m.arena().node(at)) == 1 {
        let fresh = single(m, new);
        remove(m, at, i, None);
        return smallvec![entry(m.arena(), fresh, None)];
    }
    let at = m.own(at);
    take(m, at, i);
    insert(m, at, i, new, None)
}

/// Joins two leaves if both fit well into one; they are gone then.
pub fn merge(m: &mut Mutator, left: Ref, right: Ref, order: Option<super::Order>) -> Option<Entry> {
    let (a, b) = (m.arena().node(left), m.arena().node(right));
    let bytes = used(a) + used(b) - SLOTS;
    if used(a).min(used(b)) > LEAF_BYTES_MAX / 4 || bytes > LEAF_BYTES_MAX * 3 / 4 {
        return None;
    }
    let mut scratch = Scratch::default();
    scratch.take(a, 0..count(a));
    scratch.take(b, 0..count(b));
    let at = scratch.build(m, 0..scratch.pieces.len(), bytes);
    m.retire(left);
    m.retire(right);
    Some(entry(m.arena(), at, order))
}

/// Bytes that the leaf's content needs.
fn used(node: Node<'_>) -> usize {
    SLOTS + SLOT * count(node) + node.capacity() - node.u16(LOW) as usize - node.u16(REMOVED) as usize
}

/// Contiguous bytes free for a slot and its item.
fn room(node: Node<'_>) -> usize {
    node.u16(LOW) as usize - SLOTS - SLOT * count(node)
}

/// The same items in a node with room for `more` bytes and, within the limit, half as much again.
fn repack(m: &mut Mutator, at: Ref, more: usize) -> Ref {
    let node = m.arena().node(at);
    let mut scratch = Scratch::default();
    scratch.take(node, 0..count(node));
    // Aligning cells anew may cost a few bytes beyond the limit.
    let need = scratch.need(0..scratch.pieces.len()) + more;
    let new = scratch.build(m, 0..scratch.pieces.len(), (need * 3 / 2).min(LEAF_BYTES_MAX).max(need));
    m.retire(at);
    new
}

fn split(m: &mut Mutator, at: Ref, i: usize, new: Piece<'_>, order: Option<super::Order>) -> Entries {
    let node = m.arena().node(at);
    let count = count(node);
    // Growth at an end leaves the full leaf as it is.
    if i == count || i == 0 {
        let fresh = build(m, &[new], LEAF_BYTES_MAX);
        let (fresh, old) = (entry(m.arena(), fresh, order), entry(m.arena(), at, order));
        return if i == 0 { smallvec![fresh, old] } else { smallvec![old, fresh] };
    }
    let mut scratch = Scratch::default();
    scratch.take(node, 0..i);
    scratch.add(new);
    scratch.take(node, i..count);
    let cut = scratch.middle();
    let left = scratch.build(m, 0..cut, LEAF_BYTES_MAX * 3 / 4);
    let right = scratch.build(m, cut..count + 1, LEAF_BYTES_MAX * 3 / 4);
    m.retire(at);
    smallvec![entry(m.arena(), left, order), entry(m.arena(), right, order)]
}

fn build(m: &mut Mutator, pieces: &[Piece<'_>], bytes: usize) -> Ref {
    let mut node = m.alloc_node(bytes.next_multiple_of(16), kinds::TREE_LEAF);
    node.set_u64(COUNT, 0);
    let capacity = node.capacity();
    node.set_u16(LOW, capacity as u16);
    let at = node.get();
    for (i, piece) in pieces.iter().enumerate() {
        place(m, at, i, *piece);
    }
    at
}

/// Writes a piece into an owned leaf that has room for it.
fn place(m: &mut Mutator, at: Ref, i: usize, piece: Piece<'_>) {
    let mut node = m.node_mut(at);
    let (count, low) = (count(*node), node.u16(LOW) as usize);
    let (offset, len) = match piece {
        Piece::Inline(bytes) => {
            let offset = low - bytes.len();
            node.bytes_mut(offset, bytes.len()).copy_from_slice(bytes);
            (offset, bytes.len() as u16)
        }
        Piece::Long(blob) => {
            let offset = (low - 8) & !7;
            node.set_child(offset, blob);
            (offset, LONG)
        }
    };
    assert!(SLOTS + SLOT * (count + 1) <= offset, "a leaf was asked to hold more than it has room for");
    let slot = SLOTS + i * SLOT;
    node.move_within(slot, slot + SLOT, (count - i) * SLOT);
    node.set_u16(slot, offset as u16);
    node.set_u16(slot + 2, len);
    node.set_u16(COUNT, count as u16 + 1);
    node.set_u16(LOW, offset as u16);
    // What aligning a cell skipped is lost until the next repacking, as are the bytes of removed items.
    let lost = low - offset - if len == LONG { 8 } else { len as usize };
    let removed = node.u16(REMOVED) as usize + lost;
    node.set_u16(REMOVED, removed as u16);
}

fn drop_long(m: &mut Mutator, at: Ref, i: usize) {
    let node = m.arena().node(at);
    if let (offset, LONG) = slot(node, i) {
        let blob = node.child(offset);
        m.retire_tree(blob);
    }
}

/// Removes slot `i` of an owned leaf.
fn take(m: &mut Mutator, at: Ref, i: usize) {
    drop_long(m, at, i);
    let mut node = m.node_mut(at);
    let (_, len) = slot(*node, i);
    let from = SLOTS + i * SLOT;
    let count = count(*node);
    node.move_within(from + SLOT, from, (count - i - 1) * SLOT);
    node.set_u16(COUNT, count as u16 - 1);
    let removed = node.u16(REMOVED) + if len == LONG { 8 } else { len };
    node.set_u16(REMOVED, removed);
}

/// Items between two leaves: a node cannot be read while another is made.
#[derive(Default)]
struct Scratch {
    bytes: SmallVec<[u8; 0x600]>,
    pieces: SmallVec<[Held; 0x100]>,
}

#[derive(Clone, Copy)]
enum Held {
    Inline(u16, u16),
    Long(Ref),
}

impl Scratch {
    fn add(&mut self, piece: Piece<'_>) {
        self.pieces.push(match piece {
            Piece::Inline(bytes) => {
                let from = self.bytes.len() as u16;
                self.bytes.extend_from_slice(bytes);
                Held::Inline(from, bytes.len() as u16)
            }
            Piece::Long(blob) => Held::Long(blob),
        });
    }

    fn take(&mut self, node: Node<'_>, which: std::ops::Range<usize>) {
        for i in which {
            self.add(match slot(node, i) {
                (offset, LONG) => Piece::Long(node.child(offset)),
                (offset, len) => Piece::Inline(node.bytes(offset, len as usize)),
            });
        }
    }

    fn piece(&self, i: usize) -> Piece<'_> {
        match self.pieces[i] {
            Held::Inline(from, len) => Piece::Inline(&self.bytes[from as usize..][..len as usize]),
            Held::Long(blob) => Piece::Long(blob),
        }
    }

    /// Where to cut so that both sides need about the same bytes; neither is empty.
    fn middle(&self) -> usize {
        let total: usize = (0..self.pieces.len()).map(|i| self.piece(i).bytes()).sum();
        let mut left = 0;
        let cut = (0..self.pieces.len()).find(|&i| {
            left += self.piece(i).bytes();
            left * 2 >= total
        });
        cut.map_or(1, |i| (i + 1).clamp(1, self.pieces.len() - 1))
    }

    fn need(&self, which: std::ops::Range<usize>) -> usize {
        SLOTS + which.map(|i| self.piece(i).bytes()).sum::<usize>()
    }

    fn build(&self, m: &mut Mutator, which: std::ops::Range<usize>, bytes: usize) -> Ref {
        let bytes = bytes.max(self.need(which.clone()));
        let pieces: SmallVec<[Piece<'_>; 0x100]> = which.map(|i| self.piece(i)).collect();
        build(m, &pieces, bytes)
    }
}
