//! A heap: size classes over slabs, for one owner (the writer, the page loader, or a private replay).
//!
//! Free nodes are kept on stacks *beside* the nodes: giving out a node then does not wait for a cold line to say which
//! is next. A node may be freed into another heap than it came from.

use super::node::header;
use super::{Arena, HEADER_BYTES, NODE_BYTES_MAX, NodeMut, Ref, SLAB_BYTES, UNIT};
use crate::base::SubBatch;
use crate::store::kinds::ENTRY;

/// Up to this many units every size is a class of its own; above, eight classes to a doubling (at most 1/8 is wasted).
const EXACT_UNITS: usize = 64;
const EXACT_BITS: usize = 6;
pub const CLASSES: usize = EXACT_UNITS + 8 * (12 - EXACT_BITS);

/// The class that serves nodes of `units`.
#[inline]
pub fn class_of(units: usize) -> usize {
    debug_assert!((1..=NODE_BYTES_MAX / UNIT).contains(&units));
    if units <= EXACT_UNITS {
        return units - 1;
    }
    let e = (units - 1).ilog2() as usize;
    EXACT_UNITS + (e - EXACT_BITS) * 8 + (((units - 1) >> (e - 3)) & 7)
}

/// Units of a node of `class`.
#[inline]
pub fn class_units(class: usize) -> usize {
    if class < EXACT_UNITS {
        return class + 1;
    }
    let (e, k) = ((class - EXACT_UNITS) / 8 + EXACT_BITS, (class - EXACT_UNITS) % 8);
    (8 + k + 1) << (e - 3)
}

/// Cuts slabs into nodes. It does not know its arena: every call names it, and it must be the same one.
pub struct Heap {
    /// Where nodes are cut from: a slab of small pages, and one of huge pages.
    bumps: [Bump; 2],
    free: [Vec<Ref>; CLASSES],
    slabs: Vec<u32>,
    /// Large nodes given out, for `release_all`; only a private heap needs to know them.
    large: Vec<Ref>,
    private: bool,
    live_bytes: u64,
}

#[derive(Default)]
struct Bump {
    at: u64,
    end: u64,
}

impl Bump {
    fn left(&self) -> u64 {
        self.end - self.at
    }
}

impl Default for Heap {
    fn default() -> Self {
        Heap {
            bumps: [Bump::default(), Bump::default()],
            free: [const { Vec::new() }; CLASSES],
            slabs: Vec::new(),
            large: Vec::new(),
            private: false,
            live_bytes: 0,
        }
    }
}

impl Heap {
    /// A heap that can give everything back at once: [`Heap::release_all`].
    pub fn private() -> Heap {
        Heap { private: true, ..Heap::default() }
    }

    /// A node of at least `bytes` (header included). Its header is set; its body holds whatever was there before.
    /// Beyond [`NODE_BYTES_MAX`] it is a large node, whose word at 8 is the payload's length, `bytes - 16`.
    #[inline]
    pub fn alloc<'a>(&mut self, arena: &'a Arena, bytes: usize, kind: u8, birth: SubBatch) -> NodeMut<'a> {
        if bytes > NODE_BYTES_MAX {
            return self.alloc_large(arena, bytes, kind, birth);
        }
        let class = class_of(bytes.div_ceil(UNIT).max(1));
        let units = class_units(class);
        let at = match self.free[class].pop() {
            Some(at) => at,
            None => self.cut(arena, units, kind != ENTRY),
        };
        self.live_bytes += (units * UNIT) as u64;
        // SAFETY: `at` was on a free stack or is fresh: nobody else knows it.
        let mut node = unsafe { arena.node_mut(at) };
        node.set_header(header(birth, units, kind));
        node
    }

    #[cold]
    fn alloc_large<'a>(&mut self, arena: &'a Arena, bytes: usize, kind: u8, birth: SubBatch) -> NodeMut<'a> {
        let at = arena.take_large(bytes);
        if self.private {
            self.large.push(at);
        }
        self.live_bytes += bytes as u64;
        // SAFETY: the run is fresh: nobody else knows it.
        let mut node = unsafe { arena.node_mut(at) };
        node.set_header(header(birth, 0, kind));
        node.set_large_len((bytes - HEADER_BYTES - 8) as u64);
        node
    }

    #[inline]
    fn cut(&mut self, arena: &Arena, units: usize, huge: bool) -> Ref {
        let bytes = (units * UNIT) as u64;
        if self.bumps[huge as usize].left() < bytes {
            self.next_slab(arena, huge);
        }
        let bump = &mut self.bumps[huge as usize];
        let at = Ref(bump.at);
        bump.at += bytes;
        at
    }

    #[cold]
    fn next_slab(&mut self, arena: &Arena, huge: bool) {
        // What is left of the old slab becomes free nodes, largest first.
        let bump = &mut self.bumps[huge as usize];
        while bump.left() > 0 {
            let left = (bump.left() as usize / UNIT).min(NODE_BYTES_MAX / UNIT);
            let mut class = class_of(left);
            if class_units(class) > left {
                class -= 1;
            }
            self.free[class].push(Ref(bump.at));
            bump.at += (class_units(class) * UNIT) as u64;
        }
        let slab = arena.take_slab(huge);
        self.slabs.push(slab);
        bump.at = slab as u64 * SLAB_BYTES as u64;
        bump.end = bump.at + SLAB_BYTES as u64;
    }

    /// Takes a node back. No root reaches it any more.
    #[inline]
    pub fn free(&mut self, arena: &Arena, at: Ref) {
        let node = arena.node(at);
        let units = node.units();
        if units == 0 {
            return self.free_large(arena, at);
        }
        self.live_bytes = self.live_bytes.saturating_sub((units * UNIT) as u64);
        self.free[class_of(units)].push(at);
    }

    #[cold]
    fn free_large(&mut self, arena: &Arena, at: Ref) {
        let bytes = arena.node(at).capacity();
        self.live_bytes = self.live_bytes.saturating_sub(bytes as u64);
        if self.private
            && let Some(i) = self.large.iter().rposition(|&l| l == at)
        {
            self.large.swap_remove(i);
        }
        arena.return_large(at, bytes);
    }

    /// Bytes of the nodes given out and not taken back (approximate when nodes wander between heaps).
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Returns all slabs and large nodes to the arena, whatever still lies in them: the end of a private replay.
    pub fn release_all(&mut self, arena: &Arena) {
        for at in std::mem::take(&mut self.large) {
            arena.return_large(at, arena.node(at).capacity());
        }
        debug_assert!(self.private);
        arena.return_slabs(&mut self.slabs);
        *self = Heap::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_fits_and_wastes_at_most_an_eighth() {
        for units in 1..=NODE_BYTES_MAX / UNIT {
            let size = class_units(class_of(units));
            assert!(size >= units && (size - units) * 8 <= units.max(8), "{units} in {size}");
            assert_eq!(class_of(size), class_of(units));
        }
        assert_eq!(class_of(NODE_BYTES_MAX / UNIT), CLASSES - 1);
    }
}
