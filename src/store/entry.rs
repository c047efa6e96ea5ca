//! # Entry: one version of one key of the keyspace, with its value
//!
//! ```text
//! header | hash u64 | version u64 | meta u64 | past (if PAST) | far (if FAR) | due i64 (if DUE) | value words | key bytes (or blob cell, if KEY_OUT) | string bytes
//! meta       = kind u8 | flags u8 | key bytes u16 | string bytes u32
//! past       = earlier version : 40 | its number : 24          far = milestone u64 | its birth u64
//! value words: Int: i64.  Str: none.  Rope: root cell, len.  List, Set, Hash: root cell, len, extent.  Zset, Stream: those, root cell
//! ```
//!
//! The trie leads to a key's newest version, each version to the one before it. A reader takes the first that was born in
//! its sub-batch or before ([`Entry::at`]); where a key was removed it finds a *tombstone* (GONE). `past` is followed only
//! to versions that the reader's pin keeps alive: the version before one that is too young for the reader died younger
//! still. It may dangle otherwise, is no child cell, and does not go to disk. Every 256th version is a milestone, so that
//! a counter's way back of a million versions is some thousand steps; the first 256 know of none and save its room.

use super::arena::{Arena, Node, NodeMut, Ref};
use super::blob;
use super::extent::{Extent, blocks};
use super::map::{MapRoot, value_hash};
use super::mutator::PRIVATE;
use super::rope::Rope;
use super::tree::Tree;
use crate::base::{Epoch, Millis, SubBatch};

/// Longest string inside an entry; beyond it is a rope. Bytes.
pub const STR_INLINE_MAX: usize = 4096;
/// Longest key inside an entry; beyond it is a blob. Bytes.
pub const KEY_INLINE_MAX: usize = 1024;
const HASH: usize = 8;
const VERSION: usize = 16;
const META: usize = 24;
const BODY: usize = 32;
const DUE: u8 = 1;
const KEY_OUT: u8 = 2;
const PAST: u8 = 4;
const GONE: u8 = 8;
const FAR: u8 = 16;
/// Versions from one milestone to the next.
const MILESTONE: u64 = 256;
/// Bits of a reference to a resident node; the arena is no larger.
const REF_BITS: u32 = 40;

/// Where a value begins, behind what the flags announce.
#[inline]
fn value_offset(flags: u8) -> usize {
    let room = |flag, bytes| if flags & flag != 0 { bytes } else { 0 };
    BODY + room(PAST, 8) + room(FAR, 16) + room(DUE, 8)
}

/// The way from a version to the ones before it.
#[derive(Clone, Copy, Default)]
pub(super) struct Past {
    /// The version before this one; null: there is none that anybody needs.
    earlier: Ref,
    /// That version's number, counted from when the key came; wraps.
    number: u64,
    milestone: Ref,
    milestone_birth: SubBatch,
}

impl Past {
    /// For the version that follows `old` in sub-batch `current`. A version of the same sub-batch is passed over: no root shows it.
    #[inline]
    pub fn after(old: Entry<'_>, current: SubBatch) -> Past {
        let past = old.past();
        if old.birth() == current {
            return past;
        }
        let (earlier, number) = (old.node.get(), (past.number + 1) & ((1 << (64 - REF_BITS)) - 1));
        match number % MILESTONE {
            0 => Past { earlier, number, milestone: earlier, milestone_birth: old.birth() },
            _ => Past { earlier, number, ..past },
        }
    }

    fn word(self) -> u64 {
        self.earlier.0 | self.number << REF_BITS
    }
}

/// What a value is, without looking at it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ValueKind {
    Int = 0,
    Str = 1,
    Rope = 2,
    List = 3,
    Set = 4,
    Hash = 5,
    Zset = 6,
    Stream = 7,
}

/// A collection as its entry keeps it: how many elements, what they measure, and the roots of its trees.
/// Set, Hash: `roots[0]` is a map. Zset: `roots[0]` is the map member → score, `roots[1]` the tree by rank, which the extent is of.
/// List: `roots[0]` is a tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Coll {
    pub len: u64,
    pub extent: Extent,
    pub roots: [Ref; 2],
}

impl Coll {
    pub fn map(&self) -> MapRoot {
        MapRoot { root: self.roots[0], len: self.len, extent: self.extent }
    }
    pub fn set_map(&mut self, map: MapRoot) {
        self.roots[0] = map.root;
        (self.len, self.extent) = (map.len, map.extent);
    }
    /// The tree at `roots[at]`.
    pub fn tree(&self, at: usize) -> Tree {
        Tree { root: self.roots[at], len: self.len, extent: self.extent }
    }
    /// Of a sorted set after its map: the extent is the tree's.
    pub fn set_tree(&mut self, at: usize, tree: Tree) {
        self.roots[at] = tree.root;
        (self.len, self.extent) = (tree.len, tree.extent);
    }
}

/// A value: read in place, or to be stored (a long `Str` is stored as a rope).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value<'a> {
    Int(i64),
    Str(&'a [u8]),
    Rope(Rope),
    List(Coll),
    Set(Coll),
    Hash(Coll),
    Zset(Coll),
    Stream(Coll),
}

impl<'a> Value<'a> {
    pub fn kind(&self) -> ValueKind {
        match self {
            Value::Int(_) => ValueKind::Int,
            Value::Str(_) => ValueKind::Str,
            Value::Rope(_) => ValueKind::Rope,
            Value::List(_) => ValueKind::List,
            Value::Set(_) => ValueKind::Set,
            Value::Hash(_) => ValueKind::Hash,
            Value::Zset(_) => ValueKind::Zset,
            Value::Stream(_) => ValueKind::Stream,
        }
    }
    /// How large it is, as bounds count: entries of a collection, 64-byte blocks of a string.
    #[inline]
    pub fn size(&self) -> u64 {
        match *self {
            Value::Int(_) => 1,
            Value::Str(s) => blocks(s.len()),
            Value::Rope(rope) => rope.len.div_ceil(64),
            Value::List(c) | Value::Set(c) | Value::Hash(c) | Value::Zset(c) | Value::Stream(c) => c.len,
        }
    }
    /// What the elements of a collection measure; nothing for a string.
    #[inline]
    pub fn extent(&self) -> Extent {
        self.coll().map_or_else(Extent::default, |c| c.extent)
    }
    /// The collection, of whatever kind.
    pub fn coll(&self) -> Option<Coll> {
        match *self {
            Value::List(c) | Value::Set(c) | Value::Hash(c) | Value::Zset(c) | Value::Stream(c) => Some(c),
            _ => None,
        }
    }
    /// A collection of `kind`; None for the kinds of strings.
    pub fn of(kind: ValueKind, coll: Coll) -> Option<Value<'a>> {
        Some(match kind {
            ValueKind::List => Value::List(coll),
            ValueKind::Set => Value::Set(coll),
            ValueKind::Hash => Value::Hash(coll),
            ValueKind::Zset => Value::Zset(coll),
            ValueKind::Stream => Value::Stream(coll),
            ValueKind::Int | ValueKind::Str | ValueKind::Rope => return None,
        })
    }
    /// Value words: at most a root, a length, an extent, a root.
    fn words(&self) -> ([u64; 4], usize) {
        match *self {
            Value::Int(n) => ([n as u64, 0, 0, 0], 1),
            Value::Str(_) => ([0; 4], 0),
            Value::Rope(r) => ([r.root.0, r.len, 0, 0], 2),
            Value::List(c) | Value::Set(c) | Value::Hash(c) => ([c.roots[0].0, c.len, c.extent.0, 0], 3),
            Value::Zset(c) | Value::Stream(c) => ([c.roots[0].0, c.len, c.extent.0, c.roots[1].0], 4),
        }
    }
    /// For the effect digest: strings by content, trees by length (each change inside them was folded when it was made).
    pub(super) fn digest(&self) -> u64 {
        match *self {
            Value::Int(n) => n as u64 ^ 0x5851_f42d_4c95_7f2d,
            Value::Str(s) => value_hash(s),
            Value::Rope(r) => r.len ^ 2 << 56,
            _ => self.coll().map_or(0, |c| c.len) ^ (self.kind() as u64) << 56,
        }
    }
}

fn kind_of(byte: u8) -> ValueKind {
    match byte {
        0 => ValueKind::Int,
        1 => ValueKind::Str,
        2 => ValueKind::Rope,
        3 => ValueKind::List,
        4 => ValueKind::Set,
        5 => ValueKind::Hash,
        6 => ValueKind::Zset,
        7 => ValueKind::Stream,
        other => unreachable!("an entry of unknown kind {other}"),
    }
}

fn words_of(kind: ValueKind) -> usize {
    match kind {
        ValueKind::Str => 0,
        ValueKind::Int => 1,
        ValueKind::Rope => 2,
        ValueKind::List | ValueKind::Set | ValueKind::Hash => 3,
        ValueKind::Zset | ValueKind::Stream => 4,
    }
}

/// What a version of everything shows: what was born up to a sub-batch, and what a private replay has made itself.
#[derive(Clone, Copy, Debug)]
pub struct Seen(pub SubBatch);

impl Seen {
    #[inline]
    pub(super) fn shows(self, birth: SubBatch) -> bool {
        birth <= self.0 || birth >= PRIVATE
    }
}

/// An entry, read in place.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    node: Node<'a>,
    arena: &'a Arena,
}

impl<'a> Entry<'a> {
    #[inline]
    pub(super) fn new(arena: &'a Arena, node: Node<'a>) -> Entry<'a> {
        Entry { node, arena }
    }
    #[inline]
    fn flags(self) -> u8 {
        self.node.u8(META + 1)
    }
    #[inline]
    fn value_at(self) -> usize {
        value_offset(self.flags())
    }
    /// The sub-batch that made this version.
    #[inline]
    pub(super) fn birth(self) -> SubBatch {
        self.node.birth()
    }
    #[inline]
    pub(super) fn get(self) -> Ref {
        self.node.get()
    }
    /// Not a value: the key was removed here.
    #[inline]
    pub(super) fn is_gone(self) -> bool {
        self.flags() & GONE != 0
    }
    #[inline]
    fn past(self) -> Past {
        let flags = self.flags();
        if flags & PAST == 0 {
            return Past::default();
        }
        let word = self.node.u64(BODY);
        let (milestone, birth) = match flags & FAR {
            0 => (0, 0),
            _ => (self.node.u64(BODY + 8), self.node.u64(BODY + 16)),
        };
        Past {
            earlier: Ref(word & ((1 << REF_BITS) - 1)),
            number: word >> REF_BITS,
            milestone: Ref(milestone),
            milestone_birth: SubBatch(birth),
        }
    }
    /// The version that a reader who sees `seen` finds here, if the key was there then.
    #[inline]
    pub(super) fn at(mut self, seen: Seen) -> Option<Entry<'a>> {
        while !seen.shows(self.birth()) {
            let past = self.past();
            let next = if seen.shows(past.milestone_birth) { past.earlier } else { past.milestone };
            if next.is_null() {
                return None;
            }
            self.node = self.arena.node(next);
        }
        (!self.is_gone()).then_some(self)
    }
    #[inline]
    fn key_at(self) -> usize {
        self.value_at() + 8 * words_of(self.kind())
    }
    #[inline]
    pub fn hash(self) -> u64 {
        self.node.u64(HASH)
    }
    /// The epoch that last changed this key.
    #[inline]
    pub fn version(self) -> Epoch {
        Epoch(self.node.u64(VERSION))
    }
    /// When it expires.
    #[inline]
    pub fn due(self) -> Option<Millis> {
        (self.flags() & DUE != 0).then(|| self.node.u64(self.value_at() - 8) as i64)
    }
    #[inline]
    pub fn kind(self) -> ValueKind {
        kind_of(self.node.u8(META))
    }
    #[inline]
    pub fn key(self) -> &'a [u8] {
        match self.flags() & KEY_OUT {
            0 => self.node.bytes(self.key_at(), self.node.u16(META + 2) as usize),
            _ => blob::get(self.arena.child(self.node.cell(self.key_at()))),
        }
    }
    #[inline]
    pub(super) fn is(self, hash: u64, key: &[u8]) -> bool {
        self.hash() == hash && self.key() == key
    }
    pub(super) fn key_blob(self) -> Ref {
        if self.flags() & KEY_OUT != 0 { self.node.child(self.key_at()) } else { Ref::NULL }
    }
    /// The value; roots of trees are loaded.
    #[inline]
    pub fn value(self) -> Value<'a> {
        let at = self.value_at();
        match self.kind() {
            ValueKind::Int => Value::Int(self.node.u64(at) as i64),
            ValueKind::Str => {
                let key = if self.flags() & KEY_OUT != 0 { 8 } else { self.node.u16(META + 2) as usize };
                Value::Str(self.node.bytes(at + key, self.node.u32(META + 4) as usize))
            }
            ValueKind::Rope => Value::Rope(Rope { root: self.root(at), len: self.node.u64(at + 8) }),
            ValueKind::List => Value::List(self.coll(at, false)),
            ValueKind::Set => Value::Set(self.coll(at, false)),
            ValueKind::Hash => Value::Hash(self.coll(at, false)),
            ValueKind::Zset => Value::Zset(self.coll(at, true)),
            ValueKind::Stream => Value::Stream(self.coll(at, true)),
        }
    }
    fn coll(self, at: usize, two: bool) -> Coll {
        let roots = [self.root(at), if two { self.root(at + 24) } else { Ref::NULL }];
        Coll { len: self.node.u64(at + 8), extent: Extent(self.node.u64(at + 16)), roots }
    }
    fn root(self, at: usize) -> Ref {
        let stored = self.node.child(at);
        if stored.is_null() || stored.is_resident() { stored } else { self.arena.child(self.node.cell(at)).get() }
    }
    /// Roots of the trees below, as stored: on disk they stay there.
    pub(super) fn roots_as_stored(self) -> [Ref; 2] {
        let mut roots = [Ref::NULL; 2];
        let mut n = 0;
        value_cells(self.kind(), self.value_at(), |off| {
            roots[n] = self.node.child(off);
            n += 1;
        });
        roots
    }
    /// Bytes of the entry's own node.
    pub fn bytes(self) -> usize {
        self.node.capacity()
    }
}

fn value_cells(kind: ValueKind, at: usize, mut visit: impl FnMut(usize)) {
    match words_of(kind) {
        2 | 3 => visit(at),
        4 => {
            visit(at);
            visit(at + 24);
        }
        _ => {}
    }
}

pub(super) fn cells(node: Node<'_>, mut visit: impl FnMut(usize)) {
    let flags = node.u8(META + 1);
    let kind = kind_of(node.u8(META));
    let at = value_offset(flags);
    value_cells(kind, at, &mut visit);
    if flags & KEY_OUT != 0 {
        visit(at + 8 * words_of(kind));
    }
}

/// Makes the bytes of an entry's node forget its past: what goes to disk is one version.
pub(super) fn forget_past(node: &mut [u8]) {
    let end = value_offset(node[META + 1] & (PAST | FAR));
    node[BODY..end].fill(0);
}

/// What an entry is to hold. `key_blob` is the key's blob when it is too long to lie inside.
pub(super) struct Draft<'a> {
    pub hash: u64,
    pub version: Epoch,
    pub key: &'a [u8],
    pub key_blob: Ref,
    pub value: Value<'a>,
    pub due: Option<Millis>,
    /// What came before; none for a key that was not there.
    pub past: Option<Past>,
    /// A tombstone: `value` is an empty string.
    pub gone: bool,
}

impl Draft<'_> {
    fn flags(&self) -> u8 {
        let flag = |on: bool, flag| if on { flag } else { 0 };
        flag(self.due.is_some(), DUE)
            | flag(!self.key_blob.is_null(), KEY_OUT)
            | flag(self.past.is_some(), PAST)
            | flag(self.past.is_some_and(|past| !past.milestone.is_null()), FAR)
            | flag(self.gone, GONE)
    }

    /// Bytes of the node that it needs.
    #[inline]
    pub fn bytes(&self) -> usize {
        let key = if self.key_blob.is_null() { self.key.len() } else { 8 };
        let string = if let Value::Str(s) = self.value { s.len() } else { 0 };
        value_offset(self.flags()) + 8 * self.value.words().1 + key + string
    }

    #[inline]
    pub fn fill(&self, node: &mut NodeMut<'_>) {
        let flags = self.flags();
        let mut at = value_offset(flags);
        if let Some(past) = self.past {
            node.set_u64(BODY, past.word());
            if flags & FAR != 0 {
                node.set_u64(BODY + 8, past.milestone.0);
                node.set_u64(BODY + 16, past.milestone_birth.0);
            }
        }
        if let Some(due) = self.due {
            node.set_u64(at - 8, due as u64);
        }
        let (words, n) = self.value.words();
        for word in &words[..n] {
            node.set_u64(at, *word);
            at += 8;
        }
        let mut key_len = self.key.len();
        if self.key_blob.is_null() {
            node.bytes_mut(at, key_len).copy_from_slice(self.key);
            at += key_len;
        } else {
            key_len = 0;
            node.set_child(at, self.key_blob);
            at += 8;
        }
        let mut string = 0;
        if let Value::Str(s) = self.value {
            node.bytes_mut(at, s.len()).copy_from_slice(s);
            string = s.len();
        }
        node.set_u64(HASH, self.hash);
        node.set_u64(VERSION, self.version.0);
        node.set_u64(
            META,
            self.value.kind() as u64 | (flags as u64) << 8 | (key_len as u64) << 16 | (string as u64) << 32,
        );
    }
}
