//! # Pages: subtrees of the store as bytes
//!
//! Owns the layout of a page and of a page id, the packing of resident nodes into pages, and their way back. A page holds
//! up to 255 *parts*: subtrees whose heads are siblings, children of one node. Why not one subtree a page: a trie's subtrees
//! grow by a factor of 64 from one level to the next, so that a page of one would hold anything between 500 bytes and 32 KiB.
//!
//! ```text
//! id    = number : 46 | leaf : 1 | parts : 8 | part : 8        leaf: no reference leads out of the page
//! page  = "LKPG" | version u16 | parts u16 | links u32 | 0 u32 | (offset u32, bytes u32) x parts | link u64 x links | part ...
//! part  = node ...                                             head first, children behind their parents
//! node  = kind u8, 0 u24, bytes u32 | body as in memory | padding to 16
//! cell  = 0 null | distance from this node to the child, a multiple of 16 | page id << 1 | 1
//! ```
//!
//! An id names one part; the page's key in the page store is the id with part 0, and grows with the number. Links are the
//! keys of the pages that this one refers to: what a sweep or a transfer of all pages follows, without knowing kinds.
//! Distances, not offsets, so that a subtree moves between pages as plain bytes.

use super::arena::{Arena, Heap, Node, NodeMut, PageError, PageSource, Ref};
use super::entry::{self, Entry, Seen};
use super::kinds;
use super::trie::{self, BITMAP, CELLS};
use crate::base::{PageId, SubBatch};
use crate::disk::pages::{PageStore, PagesError, Put};
use ahash::AHashMap;
use smallvec::SmallVec;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Version of everything below a root record; another one is not read.
pub const FORMAT: u16 = 2;
/// Pages are closed when the next part would carry them beyond this, bytes.
const TARGET: usize = 16 << 10;
/// A subtree beyond this is cut: its head's children go to pages of their own.
const SPLIT: usize = 24 << 10;
/// Smaller children stay with their parent, bytes: each head on disk costs a reference and a table entry.
const CUT_MIN: usize = 256;
const PARTS_MAX: usize = 255;

/// The page store appends checksum and seal to a page: with room for them it is not moved.
const SEAL_ROOM: usize = 64;

const MAGIC: &[u8; 4] = b"LKPG";
const PAGE_HEADER: usize = 16;
const NODE_HEADER: usize = 8;
const UNIT: usize = 16;

fn id(number: u64, leaf: bool, parts: usize, part: usize) -> PageId {
    debug_assert!(number < 1 << 46 && part < parts && parts <= PARTS_MAX);
    PageId(number << 17 | (leaf as u64) << 16 | (parts as u64) << 8 | part as u64)
}

/// The page's key in the page store.
pub fn key(id: PageId) -> PageId {
    PageId(id.0 & !0xff)
}

/// The page's number; grows with every page ever written.
pub fn number(id: PageId) -> u64 {
    id.0 >> 17
}

/// The least key of a page of that number.
pub fn first_key(number: u64) -> PageId {
    PageId(number << 17)
}

/// Whether no reference leads out of the page.
pub fn is_leaf(id: PageId) -> bool {
    id.0 >> 16 & 1 == 1
}

fn parts(id: PageId) -> usize {
    (id.0 >> 8 & 0xff) as usize
}

fn part(id: PageId) -> usize {
    (id.0 & 0xff) as usize
}

/// A page's bytes, checked for shape.
struct Page<'a> {
    bytes: &'a [u8],
    parts: usize,
    links: usize,
}

/// Reads little-endian numbers at places whose existence was checked.
fn u32_at(bytes: &[u8], at: usize) -> usize {
    bytes[at..at + 4].iter().rev().fold(0, |all, &byte| all << 8 | byte as usize)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |all, &byte| all << 8 | byte as u64)
}

impl<'a> Page<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Page<'a>, &'static str> {
        if bytes.len() < PAGE_HEADER || &bytes[..4] != MAGIC {
            return Err("not a page");
        }
        if u32_at(bytes, 4) as u16 != FORMAT {
            return Err("a page of another format");
        }
        let (parts, links) = (u32_at(bytes, 4) >> 16, u32_at(bytes, 8));
        let page = Page { bytes, parts, links };
        let tables = links.checked_mul(8).and_then(|links| links.checked_add(PAGE_HEADER + parts * 8));
        match tables {
            Some(end) if end <= bytes.len() => Ok(page),
            _ => Err("tables longer than the page"),
        }
    }

    fn links(&self) -> impl Iterator<Item = PageId> + use<'a> {
        let (bytes, from) = (self.bytes, PAGE_HEADER + self.parts * 8);
        (0..self.links).map(move |i| PageId(u64_at(bytes, from + i * 8)))
    }

    fn part(&self, i: usize) -> Option<&'a [u8]> {
        let at = (i < self.parts).then_some(PAGE_HEADER + i * 8)?;
        let (offset, len) = (u32_at(self.bytes, at), u32_at(self.bytes, at + 4));
        self.bytes.get(offset..offset.checked_add(len)?)
    }
}

/// The keys of the pages that a page refers to.
pub fn links(key: PageId, bytes: &[u8]) -> Result<Vec<PageId>, PagesError> {
    Page::parse(bytes).map(|page| page.links().collect()).map_err(|_| PagesError::Damaged(key))
}

/// Where the parts of a page begin, and how long each is; so much of it is needed.
pub(super) fn parts_in(key: PageId, bytes: &[u8]) -> Result<(usize, Vec<usize>), PagesError> {
    let page = Page::parse(bytes).map_err(|_| PagesError::Damaged(key))?;
    let begin = (PAGE_HEADER + page.parts * 8 + page.links * 8).next_multiple_of(UNIT);
    Ok((begin, (0..page.parts).map(|i| u32_at(bytes, PAGE_HEADER + i * 8 + 4)).collect()))
}

/// Whether a page is one, down to the headers of its nodes. Tells the keys of the pages that it refers to.
pub fn check(key: PageId, bytes: &[u8]) -> Result<Vec<PageId>, PagesError> {
    let whole = |part: &[u8]| {
        let mut at = 0;
        while at < part.len() {
            at += node_header(part, at)?.1.next_multiple_of(UNIT);
        }
        Ok::<(), &'static str>(())
    };
    let page = Page::parse(bytes).map_err(|_| PagesError::Damaged(key))?;
    let parts_are_whole = (0..page.parts).all(|i| page.part(i).is_some_and(|part| whole(part).is_ok()));
    match page.parts == parts(key) && parts_are_whole {
        true => Ok(page.links().collect()),
        false => Err(PagesError::Damaged(key)),
    }
}

/// Loads pages on demand from a page store.
pub struct Source(pub Arc<dyn PageStore>);

impl PageSource for Source {
    fn load(&self, page: PageId, arena: &Arena, heap: &mut Heap) -> Result<Ref, PageError> {
        let bytes = self.0.read(key(page)).map_err(|error| match error {
            PagesError::Missing(_) => PageError::Missing(page),
            PagesError::Damaged(_) => PageError::Damaged { page, what: "checksum does not match" },
            other => PageError::Io { page, error: other.to_string() },
        })?;
        let damaged = |what| PageError::Damaged { page, what };
        let part = Page::parse(&bytes).map_err(damaged)?.part(part(page)).ok_or(damaged("no such part"))?;
        build(part, arena, heap).map_err(damaged)
    }
}

/// Builds the nodes of a part and tells its head. They count as older than everything: the writer copies them.
fn build(part: &[u8], arena: &Arena, heap: &mut Heap) -> Result<Ref, &'static str> {
    let mut nodes: Vec<(usize, NodeMut<'_>)> = Vec::new();
    let mut at = 0;
    while at < part.len() {
        let (kind, size) = node_header(part, at)?;
        let mut node = heap.alloc(arena, size, kind, SubBatch::ZERO);
        // A large node's length was set with it, and stands in the same place in the page.
        let body = if node.is_large() { UNIT } else { NODE_HEADER };
        node.bytes_mut(body, size - body).copy_from_slice(&part[at + body..at + size]);
        nodes.push((at, node));
        at += size.next_multiple_of(UNIT);
    }
    let heads: Vec<(usize, Ref)> = nodes.iter().map(|(at, node)| (*at, node.get())).collect();
    for (at, node) in &mut nodes {
        connect(*at, node, &heads)?;
    }
    heads.first().map(|head| head.1).ok_or("an empty part")
}

fn node_header(part: &[u8], at: usize) -> Result<(u8, usize), &'static str> {
    let header = part.get(at..at + NODE_HEADER).ok_or("a node is cut off")?;
    let (kind, size) = (header[0], u32_at(header, 4));
    if size < UNIT || at + size > part.len() {
        return Err("a node longer than its part");
    }
    Ok((kind, size))
}

/// Turns the distances in a node's cells into references.
fn connect(at: usize, node: &mut NodeMut<'_>, heads: &[(usize, Ref)]) -> Result<(), &'static str> {
    let mut offsets: SmallVec<[usize; 64]> = SmallVec::new();
    kinds::cells(**node, |offset| offsets.push(offset));
    for offset in offsets {
        let cell = node.child(offset);
        if cell.is_resident() {
            let child = heads.binary_search_by_key(&(at + cell.0 as usize), |head| head.0);
            node.set_child(offset, heads[child.map_err(|_| "a reference into nowhere")?].1);
        }
    }
    Ok(())
}

/// Packs what is not yet on disk under some roots into pages.
///
/// The nodes lie in `bytes` as they will in their pages, parents first. When the subtree of a node has become too long, its
/// children, which lie behind it, are cut off into pages, and the node alone goes on as part of its parent's subtree. The
/// buffer holds at most 64 unfinished siblings a level: some MiB, however large the store is.
pub(super) struct Packer<'a, 'p> {
    arena: &'a Arena,
    /// The version that is packed.
    seen: Seen,
    put: &'a mut Put<'p>,
    /// The first page number that is still fresh.
    next: &'a mut u64,
    bytes: Vec<u8>,
    /// Keys of the pages referred to by what lies in `bytes`, in stack order as the subtrees are.
    links: Vec<PageId>,
    done: Packed,
}

/// What was packed.
#[derive(Default)]
pub(super) struct Packed {
    /// Where the roots are now; null stays null.
    pub roots: Vec<Ref>,
    /// Heads of parts, to be marked once they are durable; met again while packing, they are not written twice.
    pub heads: AHashMap<Ref, PageId>,
    pub pages: u64,
    pub page_bytes: u64,
    pub nodes: u64,
}

/// Where a child's subtree lies in the buffers, and which cell of its parent leads to it.
#[derive(Clone, Copy)]
struct Span {
    cell: usize,
    child: Ref,
    bytes: (usize, usize),
    links: (usize, usize),
}

impl Span {
    fn len(&self) -> usize {
        self.bytes.1 - self.bytes.0
    }
}

type Spans = SmallVec<[Span; 64]>;

/// A child that heads a part on disk already.
struct OnDisk {
    cell: usize,
    child: Ref,
    id: PageId,
}

impl<'a, 'p> Packer<'a, 'p> {
    /// Page numbers from `next` on are fresh; it moves on with each that is used.
    pub fn new(arena: &'a Arena, put: &'a mut Put<'p>, next: &'a mut u64, seen: Seen) -> Packer<'a, 'p> {
        Packer { arena, seen, put, next, bytes: Vec::new(), links: Vec::new(), done: Packed::default() }
    }

    /// Writes everything under `roots`.
    pub fn pack(mut self, roots: &[Ref]) -> Result<Packed, PagesError> {
        // The roots are the children of a node that is written nowhere.
        let shown = |root: Ref| self.shown(root).unwrap_or(Ref::NULL);
        let cells: SmallVec<[(usize, Ref); 64]> =
            roots.iter().enumerate().map(|(i, root)| (i * 8, shown(*root))).collect();
        self.bytes.resize(roots.len() * 8, 0);
        let spans = self.children(0, &cells)?;
        self.cut(0, 0, spans, true)?;
        self.done.roots = (0..roots.len()).map(|i| Ref(u64_at(&self.bytes, i * 8))).collect();
        Ok(self.done)
    }

    /// Appends the subtree of a node.
    fn subtree(&mut self, node: Node<'_>) -> Result<(), PagesError> {
        let (start, links) = (self.bytes.len(), self.links.len());
        let cells = self.append(node);
        if cells.is_empty() {
            return Ok(()); // as most nodes: they are entries
        }
        let spans = self.children(start, &cells)?;
        if self.bytes.len() - start > SPLIT {
            self.cut(start, links, spans, false)?;
        }
        Ok(())
    }

    /// What this version shows in a cell: of a key its own version, if it has one.
    fn shown(&self, child: Ref) -> Option<Ref> {
        if !child.is_resident() {
            return Some(child);
        }
        let node = self.arena.node(child);
        match node.kind() {
            kinds::ENTRY => Entry::new(self.arena, node).at(self.seen).map(Entry::get),
            _ => Some(child),
        }
    }

    /// Appends a node with empty cells; tells what belongs in them.
    fn append(&mut self, node: Node<'_>) -> SmallVec<[(usize, Ref); 64]> {
        self.done.nodes += 1;
        if node.kind() == kinds::BRANCH {
            return self.append_branch(node);
        }
        let mut cells = SmallVec::new();
        kinds::cells(node, |offset| cells.push((offset, node.child(offset))));
        let (start, size) = (self.begin_node(node.kind(), node.capacity()), node.capacity());
        if cells.is_empty() {
            self.bytes.extend_from_slice(node.bytes(NODE_HEADER, size - NODE_HEADER));
        } else {
            // Word by word: a reader may be replacing a cell meanwhile.
            for offset in (NODE_HEADER..size).step_by(8) {
                self.bytes.extend_from_slice(&node.cell(offset).load(Ordering::Relaxed).to_le_bytes());
            }
            cells.iter().for_each(|&(offset, _)| self.set_cell(start + offset, 0));
        }
        if node.kind() == kinds::ENTRY {
            entry::forget_past(&mut self.bytes[start..]);
        }
        self.bytes.resize(start + size.next_multiple_of(UNIT), 0);
        cells
    }

    /// A branch, with the children that this version shows.
    fn append_branch(&mut self, node: Node<'_>) -> SmallVec<[(usize, Ref); 64]> {
        let (all, mut bitmap) = (node.u64(BITMAP), 0u64);
        let mut cells = SmallVec::new();
        for n in 0..all.count_ones() as usize {
            // Children lie anywhere: all at once costs about as much waiting as one. Two lines, as most entries have.
            let child = node.child(CELLS + 8 * n);
            self.arena.prefetch(child, 0);
            self.arena.prefetch(child, 64);
        }
        for n in 0..all.count_ones() as usize {
            let child = node.child(CELLS + 8 * n);
            if !child.is_null()
                && let Some(child) = self.shown(child)
            {
                cells.push((CELLS + 8 * cells.len(), child));
                bitmap |= 1 << trie::nth_digit(all, n);
            }
        }
        let size = (CELLS + 8 * cells.len()).next_multiple_of(UNIT);
        let start = self.begin_node(kinds::BRANCH, size);
        self.bytes.extend_from_slice(&bitmap.to_le_bytes());
        self.bytes.resize(start + size, 0);
        cells
    }

    /// Appends a node's header; tells where.
    fn begin_node(&mut self, kind: u8, size: usize) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&(kind as u32).to_le_bytes());
        self.bytes.extend_from_slice(&(size as u32).to_le_bytes());
        start
    }

    /// Fills the cells of the node at `start`: references to what is on disk, distances to subtrees, which are appended.
    fn children(&mut self, start: usize, cells: &[(usize, Ref)]) -> Result<Spans, PagesError> {
        let mut young: SmallVec<[(usize, Ref); 64]> = SmallVec::new();
        let mut on_disk: SmallVec<[OnDisk; 16]> = SmallVec::new();
        for &(cell, child) in cells {
            match self.page_of(child) {
                Some(id) => on_disk.push(OnDisk { cell, child, id }),
                None if child.is_null() => {}
                None => young.push((cell, child)),
            }
        }
        self.take_back(&mut on_disk, &mut young);
        for known in &on_disk {
            self.refer(start + known.cell, known.id);
        }
        let mut spans = Spans::new();
        for &(cell, child) in &young {
            let (bytes, links) = (self.bytes.len(), self.links.len());
            // Written meanwhile through another parent, as shared subtrees are.
            if let Some(&id) = self.done.heads.get(&child) {
                self.refer(start + cell, id);
                continue;
            }
            self.set_cell(start + cell, (bytes - start) as u64);
            self.subtree(self.arena.node(child))?;
            spans.push(Span { cell, child, bytes: (bytes, self.bytes.len()), links: (links, self.links.len()) });
        }
        Ok(spans)
    }

    /// A page that has lost some of its parts is dissolved: those still here are written again with their new siblings, and the
    /// page has no reader left. Only when all of them are resident: others are not worth reading, and a cell in memory must
    /// not name a page that no root record reaches.
    fn take_back(&self, on_disk: &mut SmallVec<[OnDisk; 16]>, young: &mut SmallVec<[(usize, Ref); 64]>) {
        if young.is_empty() {
            return;
        }
        let whole = |id: PageId| {
            let mut here = on_disk.iter().filter(|other| key(other.id) == key(id)).peekable();
            let resident = here.clone().all(|other| other.child.is_resident());
            !resident || here.by_ref().count() == parts(id)
        };
        let lost: SmallVec<[bool; 16]> = on_disk.iter().map(|known| !whole(known.id)).collect();
        let mut lost = lost.iter();
        on_disk.retain(|known| {
            let keep = !lost.next().copied().unwrap_or(false);
            if !keep {
                young.push((known.cell, known.child));
            }
            keep
        });
        young.sort_unstable_by_key(|(cell, _)| *cell);
    }

    fn page_of(&self, child: Ref) -> Option<PageId> {
        if !child.is_resident() {
            return child.page();
        }
        let node = self.arena.node(child);
        if node.is_page_head() { self.arena.pages().page_of(node) } else { None }
    }

    fn set_cell(&mut self, at: usize, cell: u64) {
        self.bytes[at..at + 8].copy_from_slice(&cell.to_le_bytes());
    }

    fn refer(&mut self, at: usize, id: PageId) {
        self.set_cell(at, Ref::to_page(id).0);
        self.links.push(key(id));
    }

    /// Moves the children of the node at `start` to pages of their own: the larger ones, or `all`.
    fn cut(&mut self, start: usize, links: usize, spans: Spans, all: bool) -> Result<(), PagesError> {
        let rest: usize = spans.iter().map(Span::len).filter(|len| *len < CUT_MIN).sum();
        let own = spans.first().map_or(self.bytes.len(), |first| first.bytes.0) - start;
        let least = if all || own + rest > SPLIT { 0 } else { CUT_MIN };
        let own_links = spans.first().map_or(self.links.len(), |first| first.links.0);
        let mut referred: SmallVec<[PageId; 64]> = self.links[links..own_links].iter().copied().collect();
        let mut group = Spans::new();
        let mut size = 0;
        for span in spans.iter().filter(|span| span.len() >= least) {
            if !group.is_empty() && (size + span.len() > TARGET || group.len() == PARTS_MAX) {
                referred.push(self.close(start, &group)?);
                group.clear();
                size = 0;
            }
            group.push(*span);
            size += span.len();
        }
        if !group.is_empty() {
            referred.push(self.close(start, &group)?);
        }
        self.close_ranks(start, own, spans.iter().filter(|span| span.len() < least), &mut referred);
        self.links.truncate(links);
        self.links.extend(referred);
        Ok(())
    }

    /// Moves the subtrees that stay up to their parent.
    fn close_ranks<'s>(
        &mut self,
        start: usize,
        own: usize,
        stay: impl Iterator<Item = &'s Span>,
        referred: &mut SmallVec<[PageId; 64]>,
    ) {
        let mut end = start + own;
        for span in stay {
            self.bytes.copy_within(span.bytes.0..span.bytes.1, end);
            self.set_cell(start + span.cell, (end - start) as u64);
            end += span.len();
            referred.extend(self.links[span.links.0..span.links.1].iter().copied());
        }
        self.bytes.truncate(end);
    }

    /// Makes a page of sibling subtrees, refers to them from the node at `start`, and tells the page's key.
    fn close(&mut self, start: usize, group: &[Span]) -> Result<PageId, PagesError> {
        let mut links: Vec<PageId> =
            group.iter().flat_map(|span| &self.links[span.links.0..span.links.1]).copied().collect();
        links.sort_unstable();
        links.dedup();
        let number = *self.next;
        *self.next += 1;
        let page = self.page(group, &links);
        let page_id = |part| id(number, links.is_empty(), group.len(), part);
        for (i, span) in group.iter().enumerate() {
            self.set_cell(start + span.cell, Ref::to_page(page_id(i)).0);
            self.done.heads.insert(span.child, page_id(i));
        }
        let key = page_id(0);
        self.done.pages += 1;
        self.done.page_bytes += page.len() as u64;
        (self.put)(key, page)?;
        Ok(key)
    }

    fn page(&self, group: &[Span], links: &[PageId]) -> Vec<u8> {
        let tables = (PAGE_HEADER + group.len() * 8 + links.len() * 8).next_multiple_of(UNIT);
        let parts: usize = group.iter().map(Span::len).sum();
        let mut page = Vec::with_capacity(tables + parts + SEAL_ROOM);
        page.extend_from_slice(MAGIC);
        page.extend_from_slice(&FORMAT.to_le_bytes());
        page.extend_from_slice(&(group.len() as u16).to_le_bytes());
        page.extend_from_slice(&(links.len() as u32).to_le_bytes());
        page.extend_from_slice(&[0; 4]);
        let mut offset = tables;
        for span in group {
            page.extend_from_slice(&(offset as u32).to_le_bytes());
            page.extend_from_slice(&(span.len() as u32).to_le_bytes());
            offset += span.len();
        }
        links.iter().for_each(|link| page.extend_from_slice(&link.0.to_le_bytes()));
        page.resize(tables, 0);
        group.iter().for_each(|span| page.extend_from_slice(&self.bytes[span.bytes.0..span.bytes.1]));
        page
    }
}
