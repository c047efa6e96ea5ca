//! The dead list: nodes that newer roots no longer reach, in the order in which they died.
//!
//! A node that died in sub-batch `d` is reached only by roots older than `d`. It is freed when none of those is kept by
//! the window or pinned by a reader. Whole subtrees (a dropped collection, a flushed database) are one entry, and are
//! walked then, a bounded number of nodes at a time.

use super::arena::{Arena, Heap, Ref};
use super::kinds;
use crate::base::SubBatch;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;

const CHUNK: usize = 8192;
/// Headers are asked for this many entries before they are needed.
const AHEAD: usize = 12;
/// Bit of an entry: the whole subtree died. References leave it free.
const TREE: u64 = 2;

#[derive(Default)]
pub struct DeadList {
    chunks: VecDeque<Vec<Ref>>,
    spare: Vec<Vec<Ref>>,
    /// Entries taken from the first chunk.
    taken: usize,
    pushed: u64,
    popped: u64,
    /// Sub-batch of death, and how many entries had been pushed at its end.
    segments: VecDeque<(SubBatch, u64)>,
    /// Roots of subtrees that may be freed, not yet walked.
    doomed: Vec<Ref>,
    bytes: u64,
}

/// A point of the dead list to which it can be cut back.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeadMark {
    pushed: u64,
}

impl DeadList {
    /// A single node of `bytes` died.
    #[inline]
    pub fn push(&mut self, at: Ref, bytes: usize) {
        self.bytes += bytes as u64;
        self.push_entry(at);
    }

    /// A subtree died, resident or not.
    pub fn push_tree(&mut self, at: Ref) {
        self.push_entry(if at.is_resident() { Ref(at.0 | TREE) } else { at });
    }

    #[inline]
    fn push_entry(&mut self, entry: Ref) {
        match self.chunks.back_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(entry),
            _ => self.push_chunk(entry),
        }
        self.pushed += 1;
    }

    #[cold]
    fn push_chunk(&mut self, entry: Ref) {
        let mut chunk = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(CHUNK));
        chunk.push(entry);
        self.chunks.push_back(chunk);
    }

    /// Ends sub-batch `died`: what was pushed since the last call died in it.
    pub fn close(&mut self, died: SubBatch) {
        if self.segments.back().map_or(self.popped, |s| s.1) != self.pushed {
            self.segments.push_back((died, self.pushed));
        }
    }

    /// Bytes of single nodes that wait here.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
    /// Entries that came here since `mark`.
    pub fn since(&self, mark: DeadMark) -> u64 {
        self.pushed - mark.pushed
    }
    /// Entries that wait here.
    pub fn entries(&self) -> u64 {
        self.pushed - self.popped + self.doomed.len() as u64
    }

    pub fn mark(&self) -> DeadMark {
        DeadMark { pushed: self.pushed }
    }

    /// Forgets deaths since `mark`: they did not happen.
    pub fn truncate(&mut self, arena: &Arena, mark: DeadMark) {
        while self.pushed > mark.pushed {
            match self.chunks.back_mut().and_then(Vec::pop) {
                Some(entry) => {
                    self.pushed -= 1;
                    if entry.is_resident() && entry.0 & TREE == 0 {
                        self.bytes = self.bytes.saturating_sub(arena.node(entry).capacity() as u64);
                    }
                }
                None => self.drop_last_chunk(),
            }
        }
        while self.segments.back().is_some_and(|s| s.1 > mark.pushed) {
            self.segments.pop_back();
        }
    }

    fn drop_last_chunk(&mut self) {
        self.spare.extend(self.chunks.pop_back());
    }

    /// Frees nodes that no root from sub-batch `oldest` on reaches; at most `budget` of them. True when nothing is left to free now.
    pub fn collect(&mut self, arena: &Arena, heap: &mut Heap, oldest: SubBatch, mut budget: usize) -> bool {
        loop {
            while let Some(at) = self.doomed.pop() {
                if budget == 0 {
                    self.doomed.push(at);
                    return false;
                }
                budget -= 1;
                self.free_tree_node(arena, heap, at);
            }
            let Some(&(died, end)) = self.segments.front() else { return true };
            if died > oldest {
                return true;
            }
            while self.popped < end {
                if budget == 0 {
                    return false;
                }
                budget -= 1;
                let entry = self.pop(arena);
                if entry.page().is_some() || entry.0 & TREE != 0 {
                    self.doomed.push(if entry.page().is_some() { entry } else { Ref(entry.0 & !TREE) });
                    break;
                }
                self.bytes = self.bytes.saturating_sub(arena.node(entry).capacity() as u64);
                free_node(arena, heap, entry);
            }
            if self.popped == end {
                self.segments.pop_front();
            }
        }
    }

    fn pop(&mut self, arena: &Arena) -> Ref {
        let Some(chunk) = self.chunks.front() else { unreachable!("segments count entries that exist") };
        let entry = chunk[self.taken];
        if let Some(&later) = chunk.get(self.taken + AHEAD) {
            arena.prefetch(later, 0);
        }
        self.taken += 1;
        self.popped += 1;
        if self.taken == chunk.len() && (chunk.len() == CHUNK || self.chunks.len() > 1 || self.pushed == self.popped) {
            self.taken = 0;
            if let Some(mut chunk) = self.chunks.pop_front() {
                chunk.clear();
                if self.spare.len() < 64 {
                    self.spare.push(chunk);
                }
            }
        }
        entry
    }

    /// Frees one node of a doomed subtree; its children are doomed instead.
    fn free_tree_node(&mut self, arena: &Arena, heap: &mut Heap, at: Ref) {
        let at = match at.page() {
            None => at,
            Some(page) => match arena.pages().drop_page(page) {
                Some(head) => head,
                None => return,
            },
        };
        let node = arena.node(at);
        kinds::cells(node, |off| {
            let child = Ref(node.cell(off).load(Ordering::Acquire));
            if !child.is_null() {
                arena.prefetch(child, 0);
                self.doomed.push(child);
            }
        });
        free_node(arena, heap, at);
    }
}

fn free_node(arena: &Arena, heap: &mut Heap, at: Ref) {
    if arena.node(at).is_page_head() {
        arena.pages().forget_head(at);
    }
    heap.free(arena, at);
}
