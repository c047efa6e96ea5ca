//! # Rope: a long string as a radix tree of chunks
//!
//! Redis strings grow at the end and change in the middle, but never shift: chunk `n` holds bytes `n * CHUNK_BYTES ..` for
//! ever, and an absent chunk is zeros. APPEND and SETRANGE copy one chunk and one branch a level, whatever the length.
//!
//! ```text
//! branch = header | cell × 64          chunk = header | bytes × 4088
//! ```

use super::arena::{Arena, Node, Ref};
use super::kinds;
use super::map::value_hash;
use super::mutator::Mutator;

/// Bytes of a chunk: a node of 4 KiB without its header.
pub const CHUNK_BYTES: usize = 4096 - 8;
const FAN_OUT: u64 = 64;
const CELLS: usize = 8;
const BRANCH_BYTES: usize = CELLS + 8 * FAN_OUT as usize;
static ZEROS: [u8; CHUNK_BYTES] = [0; CHUNK_BYTES];

/// A long string as its owner keeps it. Bytes of the last chunk past `len` are zeros.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rope {
    pub root: Ref,
    pub len: u64,
}

/// Levels of branches above the chunks of a string of `len` bytes.
fn height(len: u64) -> u32 {
    let mut chunks = len.div_ceil(CHUNK_BYTES as u64);
    let mut levels = 0;
    while chunks > 1 {
        chunks = chunks.div_ceil(FAN_OUT);
        levels += 1;
    }
    levels
}

pub fn cells(_: Node<'_>, mut visit: impl FnMut(usize)) {
    for i in 0..FAN_OUT as usize {
        visit(CELLS + 8 * i);
    }
}

/// The bytes from `offset` to the end of their chunk; empty at the end of the rope.
pub fn chunk_at(arena: &Arena, rope: Rope, offset: u64) -> &[u8] {
    if offset >= rope.len {
        return &[];
    }
    let (n, from) = (offset / CHUNK_BYTES as u64, (offset % CHUNK_BYTES as u64) as usize);
    let to = CHUNK_BYTES.min((rope.len - n * CHUNK_BYTES as u64) as usize);
    if rope.root.is_null() {
        return &ZEROS[from..to];
    }
    let mut node = arena.node(arena.load(rope.root));
    for level in (0..height(rope.len)).rev() {
        let cell = node.cell(CELLS + 8 * (n / FAN_OUT.pow(level) % FAN_OUT) as usize);
        if Ref(cell.load(std::sync::atomic::Ordering::Relaxed)).is_null() {
            return &ZEROS[from..to];
        }
        node = arena.child(cell);
    }
    &node.bytes(8, CHUNK_BYTES)[from..to]
}

/// Shows `len` bytes from `offset`, piece by piece and in order; less where the rope ends.
pub fn read<'a>(arena: &'a Arena, rope: Rope, offset: u64, len: u64, mut show: impl FnMut(&'a [u8])) {
    let end = offset.saturating_add(len).min(rope.len);
    let mut at = offset;
    while at < end {
        let piece = chunk_at(arena, rope, at);
        let piece = &piece[..piece.len().min((end - at) as usize)];
        show(piece);
        at += piece.len() as u64;
    }
}

/// Writes `data` at `offset`; the rope grows as needed, and a gap becomes zeros.
pub fn write(m: &mut Mutator, rope: &mut Rope, offset: u64, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    m.fold(offset, value_hash(data));
    let len = rope.len.max(offset + data.len() as u64);
    let (old, new) = (height(rope.len), height(len));
    if !rope.root.is_null() {
        for _ in old..new {
            let mut top = branch(m);
            std::mem::swap(&mut top, &mut rope.root);
            m.node_mut(rope.root).set_child(CELLS, top);
        }
    }
    rope.len = len;
    rope.root = write_below(m, rope.root, new, 0, offset, data);
}

/// An empty branch.
fn branch(m: &mut Mutator) -> Ref {
    let mut node = m.alloc_node(BRANCH_BYTES, kinds::ROPE_BRANCH);
    node.bytes_mut(CELLS, BRANCH_BYTES - CELLS).fill(0);
    node.get()
}

fn chunk(m: &mut Mutator) -> Ref {
    let mut node = m.alloc_node(8 + CHUNK_BYTES, kinds::ROPE_CHUNK);
    node.bytes_mut(8, CHUNK_BYTES).fill(0);
    node.get()
}

/// Writes the part of `data` (which belongs at `offset`) that falls under `node`, whose first byte is `first`.
fn write_below(m: &mut Mutator, node: Ref, level: u32, first: u64, offset: u64, data: &[u8]) -> Ref {
    let span = CHUNK_BYTES as u64 * FAN_OUT.pow(level);
    let from = offset.max(first);
    let to = (offset + data.len() as u64).min(first + span);
    let node = match (node.is_null(), level) {
        (true, 0) => chunk(m),
        (true, _) => branch(m),
        (false, _) => {
            let resident = m.load(node);
            m.own(resident)
        }
    };
    if level == 0 {
        let part = &data[(from - offset) as usize..(to - offset) as usize];
        m.node_mut(node).bytes_mut(8 + (from - first) as usize, part.len()).copy_from_slice(part);
        return node;
    }
    let step = span / FAN_OUT;
    for i in (from - first) / step..(to - first).div_ceil(step) {
        let cell = CELLS + 8 * i as usize;
        let child = m.arena().node(node).child(cell);
        let written = write_below(m, child, level - 1, first + i * step, offset, data);
        if written != child {
            m.node_mut(node).set_child(cell, written);
        }
    }
    node
}

/// A new rope of the same bytes, sharing nothing.
pub fn copy(m: &mut Mutator, rope: Rope) -> Rope {
    let arena = m.shared_arena().clone();
    let mut new = Rope::default();
    let mut at = 0;
    read(&arena, rope, 0, rope.len, |piece| {
        write(m, &mut new, at, piece);
        at += piece.len() as u64;
    });
    new
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn bytes(m: &Mutator, rope: Rope) -> Vec<u8> {
        let mut v = Vec::new();
        read(m.arena(), rope, 0, rope.len, |p| v.extend_from_slice(p));
        v
    }

    proptest! {
        #[test]
        fn rope_is_a_vector_that_grows_with_zeros(ops in prop::collection::vec((0u64..700_000, 1usize..20_000, any::<u8>(), any::<bool>()), 1..20)) {
            let mut m = Mutator::private(Arc::new(Arena::with_reserve(512 << 20).unwrap()));
            let (mut rope, mut model) = (Rope::default(), Vec::new());
            let mut old = Vec::new();
            for (offset, len, byte, append) in ops {
                old.push((rope, model.clone()));
                m.next_sub_batch();
                let offset = if append { model.len() as u64 } else { offset };
                let data: Vec<u8> = (0..len).map(|i| byte.wrapping_add(i as u8)).collect();
                write(&mut m, &mut rope, offset, &data);
                let end = offset as usize + len;
                if model.len() < end { model.resize(end, 0); }
                model[offset as usize..end].copy_from_slice(&data);
            }
            prop_assert_eq!(bytes(&m, rope), model);
            for (rope, model) in old { prop_assert_eq!(bytes(&m, rope), model); }
        }
    }

    #[test]
    fn far_write_makes_no_chunks_in_the_gap() {
        let arena = Arc::new(Arena::with_reserve(64 << 20).unwrap());
        let mut m = Mutator::private(arena.clone());
        let mut rope = Rope::default();
        write(&mut m, &mut rope, (512 << 20) - 1, b"x");
        assert_eq!(rope.len, 512 << 20);
        assert!(m.live_bytes() < 8192);
        assert_eq!(chunk_at(&arena, rope, 12345).iter().max(), Some(&0));
        assert_eq!(chunk_at(&arena, rope, rope.len - 1), b"x");
    }
}
