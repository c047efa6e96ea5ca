//! The mutator: the context in which nodes are made, copied and retired. The writer owns one; a private replay has an own.
//!
//! Copy-on-write without reference counts: a node carries the sub-batch that made it. Born in the current one it is
//! *owned* and changes in place; else it is copied and the old one goes to the dead list.
//!
//! The keyspace is different: its branches are *shared* by all versions (see `keyspace.rs`). Their cells change in place,
//! while readers read; a mark remembers what was in them, and what readers may have met is never freed at once.

use super::arena::{Arena, Heap, NodeMut, Ref};
use super::garbage::{DeadList, DeadMark};
use super::kinds;
use crate::base::{SubBatch, mix64};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Births of a private replay begin here, so that they never equal a published node's.
pub(super) const PRIVATE: SubBatch = SubBatch(1 << 39);

pub struct Mutator {
    arena: Arc<Arena>,
    heap: Heap,
    current: SubBatch,
    private: bool,
    dead: DeadList,
    /// While a mark is open: every node made since, and the owned ones among them that were retired.
    marked: bool,
    made: Vec<Ref>,
    unmade: Vec<Ref>,
    /// Shared cells that changed since the last root, and what was in them.
    changed: Vec<(Ref, u32, Ref)>,
    /// Grows with every change of structure: what was found before may have moved.
    changes: u64,
    digest: u64,
}

/// What [`Mutator::rollback`] returns to.
#[derive(Clone, Copy, Debug)]
pub struct MutatorMark {
    dead: DeadMark,
    digest: u64,
    changed: usize,
}

impl Mutator {
    /// The writer's mutator; `last` is the newest sub-batch that exists.
    pub fn new(arena: Arc<Arena>, last: SubBatch) -> Mutator {
        Mutator::with_heap(arena, Heap::default(), last.next(), false)
    }

    /// A mutator whose nodes vanish with it.
    pub fn private(arena: Arc<Arena>) -> Mutator {
        Mutator::with_heap(arena, Heap::private(), PRIVATE, true)
    }

    fn with_heap(arena: Arc<Arena>, heap: Heap, current: SubBatch, private: bool) -> Mutator {
        Mutator {
            arena,
            heap,
            current,
            private,
            dead: DeadList::default(),
            marked: false,
            made: Vec::new(),
            unmade: Vec::new(),
            changed: Vec::new(),
            changes: 0,
            digest: 0,
        }
    }

    pub fn arena(&self) -> &Arena {
        &self.arena
    }
    pub(super) fn shared_arena(&self) -> &Arc<Arena> {
        &self.arena
    }
    /// The sub-batch in which nodes are born now.
    pub fn current(&self) -> SubBatch {
        self.current
    }
    pub fn is_private(&self) -> bool {
        self.private
    }
    pub fn changes(&self) -> u64 {
        self.changes
    }
    pub fn live_bytes(&self) -> u64 {
        self.heap.live_bytes()
    }
    pub fn dead(&self) -> &DeadList {
        &self.dead
    }

    /// Resident form of a reference (null stays null).
    #[inline]
    pub fn load(&self, at: Ref) -> Ref {
        self.arena.load(at)
    }

    /// A new node; its body holds whatever was there before.
    #[inline]
    pub fn alloc_node(&mut self, bytes: usize, kind: u8) -> NodeMut<'_> {
        let node = self.heap.alloc(&self.arena, bytes, kind, self.current);
        if self.marked {
            self.made.push(node.get());
        }
        self.changes += 1;
        node
    }
    #[inline]
    pub fn alloc(&mut self, bytes: usize, kind: u8) -> Ref {
        self.alloc_node(bytes, kind).get()
    }

    #[inline]
    pub fn is_owned(&self, at: Ref) -> bool {
        self.arena.node(at).birth() == self.current
    }

    /// An owned node, for changing it.
    #[inline]
    pub fn node_mut(&mut self, at: Ref) -> NodeMut<'_> {
        assert!(self.is_owned(at), "only nodes of the current sub-batch may change");
        self.changes += 1;
        // SAFETY: born in the current sub-batch, which no published root shows; `&mut self` is the only mutator that makes births of it.
        unsafe { self.arena.node_mut(at) }
    }

    /// The node itself if it is owned, else a copy of it that takes its place.
    #[inline]
    pub fn own(&mut self, at: Ref) -> Ref {
        if self.is_owned(at) { at } else { self.copy(at) }
    }

    fn copy(&mut self, at: Ref) -> Ref {
        let bytes = self.arena.node(at).capacity();
        let new = self.copy_node(at, bytes);
        self.retire(at);
        new
    }

    /// An owned copy with room for `bytes` (header included); the old one is not retired.
    pub fn copy_node(&mut self, at: Ref, bytes: usize) -> Ref {
        let old = self.arena.node(at);
        let mut new = self.heap.alloc(&self.arena, bytes, old.kind(), self.current);
        new.copy_body(old, old.capacity().min(new.capacity()));
        let new = new.get();
        if self.marked {
            self.made.push(new);
        }
        self.changes += 1;
        new
    }

    /// A copy of a node and everything below, sharing nothing with it.
    pub fn copy_tree(&mut self, at: Ref) -> Ref {
        if at.is_null() {
            return at;
        }
        let at = self.arena.load(at);
        let arena = self.arena.clone();
        let node = arena.node(at);
        let new = self.copy_node(at, node.capacity());
        kinds::cells(node, |off| {
            let child = self.copy_tree(node.child(off));
            self.node_mut(new).set_child(off, child);
        });
        new
    }

    /// Frees a node that no root and no reader reaches.
    pub(super) fn free(&mut self, at: Ref) {
        self.heap.free(&self.arena, at);
    }

    /// This one node is no longer part of the newest version; its children live on elsewhere.
    #[inline]
    pub fn retire(&mut self, at: Ref) {
        if at.is_null() {
            return;
        }
        let at = self.arena.load(at);
        let node = self.arena.node(at);
        if node.birth() == self.current {
            if self.marked {
                self.unmade.push(at);
            } else {
                self.heap.free(&self.arena, at);
            }
        } else if !self.private {
            self.dead.push(at, node.capacity());
        }
        self.changes += 1;
    }

    /// As [`Mutator::retire`], for a node that readers may have met in a shared cell already, even if it is of this sub-batch.
    #[inline]
    pub(super) fn retire_shared(&mut self, at: Ref) {
        debug_assert!(!self.private);
        self.dead.push(at, self.arena.node(at).capacity());
        self.changes += 1;
    }

    /// Changes a cell of a shared branch. Readers of older versions find their way on from either child.
    #[inline]
    pub(super) fn store_shared(&mut self, branch: Ref, cell: usize, child: Ref) {
        debug_assert!(!self.private);
        let cell_at = self.arena.node(branch).cell(cell);
        self.changed.push((branch, cell as u32, Ref(cell_at.load(Ordering::Relaxed))));
        cell_at.store(child.0, Ordering::Release);
        self.changes += 1;
    }

    /// Says that something below a shared branch changes in this sub-batch. False: that was known.
    #[inline]
    pub(super) fn stamp_shared(&self, branch: Ref) -> bool {
        self.arena.node(branch).stamp(self.current)
    }

    /// A node and everything below is no longer part of the newest version. O(1).
    pub fn retire_tree(&mut self, at: Ref) {
        if !at.is_null() && !self.private {
            self.dead.push_tree(at);
        }
        self.changes += 1;
    }

    /// Adds one change to the effect digest: what changed, and to what.
    #[inline]
    pub fn fold(&mut self, what: u64, to: u64) {
        self.digest = mix64(self.digest.rotate_left(23) ^ what.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ to);
    }
    pub fn digest(&self) -> u64 {
        self.digest
    }
    pub fn set_digest(&mut self, digest: u64) {
        self.digest = digest;
    }

    /// Ends the current sub-batch: from here on its nodes are immutable.
    pub(super) fn next_sub_batch(&mut self) {
        debug_assert!(!self.marked);
        self.dead.close(self.current);
        self.current = self.current.next();
    }

    /// Opens a sub-batch whose effects can be taken back.
    pub(super) fn mark(&mut self) -> MutatorMark {
        assert!(!self.marked, "marks do not nest");
        self.next_sub_batch();
        self.marked = true;
        MutatorMark { dead: self.dead.mark(), digest: self.digest, changed: self.changed.len() }
    }

    pub(super) fn commit(&mut self) {
        self.marked = false;
        self.made.clear();
        while let Some(at) = self.unmade.pop() {
            self.heap.free(&self.arena, at);
        }
    }

    pub(super) fn rollback(&mut self, mark: MutatorMark) {
        self.marked = false;
        self.unmade.clear();
        self.restore_cells(mark.changed);
        self.dead.truncate(&self.arena, mark.dead);
        while let Some(at) = self.made.pop() {
            let node = self.arena.node(at);
            match node.kind() {
                // A reader may be passing through.
                kinds::ENTRY | kinds::BRANCH | kinds::BLOB if !self.private => self.dead.push(at, node.capacity()),
                _ => self.heap.free(&self.arena, at),
            }
        }
        self.digest = mark.digest;
        self.changes += 1;
    }

    /// Puts back what shared cells held when `changed` of them had changed.
    fn restore_cells(&mut self, changed: usize) {
        for (branch, cell, child) in self.changed.drain(changed..).rev() {
            self.arena.node(branch).cell(cell as usize).store(child.0, Ordering::Release);
        }
    }

    /// Everything since the last root is shown by a root now.
    pub(super) fn rooted(&mut self) {
        self.next_sub_batch();
        self.changed.clear();
    }

    /// Forgets everything since the last root, at `dead`, an open mark with it. Nodes made since then stay allocated: what left them half
    /// linked is a bug, and freeing along its traces could free twice.
    pub(super) fn forget(&mut self, dead: DeadMark, digest: u64) {
        self.marked = false;
        self.made.clear();
        self.unmade.clear();
        self.restore_cells(0);
        self.dead.truncate(&self.arena, dead);
        self.digest = digest;
        self.changes += 1;
        self.next_sub_batch();
    }

    /// Frees what no root from `oldest` on reaches, at most `budget` nodes.
    pub(super) fn collect(&mut self, oldest: SubBatch, budget: usize) -> bool {
        self.dead.collect(&self.arena, &mut self.heap, oldest, budget)
    }
}

impl Drop for Mutator {
    fn drop(&mut self) {
        if self.private {
            self.heap.release_all(&self.arena);
        }
    }
}
