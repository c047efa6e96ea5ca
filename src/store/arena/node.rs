//! A node: a header and a body whose layout its kind's file defines. A `Ref` names one.
//!
//! ```text
//! header u64 = birth sub-batch : 40 | units of 16 bytes : 13 | kind : 7 | flags : 4        units 0 = large, u64 at 8 = its payload's length
//! Ref    u64 = 0 null | byte offset in the arena, low 4 bits 0 | page id << 1 | 1
//! ```

use super::{HEADER_BYTES, UNIT};
use crate::base::{PageId, SubBatch};
use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// Names a node: nothing, a resident node, or a page that is still on disk. One word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Ref(pub u64);

impl Ref {
    pub const NULL: Ref = Ref(0);

    #[inline]
    pub fn is_null(self) -> bool {
        self.0 == 0
    }
    #[inline]
    pub fn is_resident(self) -> bool {
        self.0 & 1 == 0 && self.0 != 0
    }
    #[inline]
    pub fn page(self) -> Option<PageId> {
        (self.0 & 1 == 1).then_some(PageId(self.0 >> 1))
    }
    pub fn to_page(page: PageId) -> Ref {
        Ref(page.0 << 1 | 1)
    }
}

impl fmt::Debug for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.page() {
            Some(page) => write!(f, "Ref({page:?})"),
            None => write!(f, "Ref({:#x})", self.0),
        }
    }
}

const BIRTH_BITS: u32 = 40;
const UNITS_BITS: u32 = 13;
const KIND_BITS: u32 = 7;
const BIRTH_MASK: u64 = (1 << BIRTH_BITS) - 1;
const FLAGS_SHIFT: u32 = BIRTH_BITS + UNITS_BITS + KIND_BITS;

/// Flags of a header.
pub struct Flags;

impl Flags {
    /// This node heads a page on disk; the table in [`super::Pages`] says which.
    pub const PAGE_HEAD: u64 = 1 << FLAGS_SHIFT;
}

pub(super) fn header(birth: SubBatch, units: usize, kind: u8) -> u64 {
    debug_assert!(birth.0 <= BIRTH_MASK && units < 1 << UNITS_BITS && (kind as u64) < 1 << KIND_BITS);
    birth.0 | (units as u64) << BIRTH_BITS | (kind as u64) << (BIRTH_BITS + UNITS_BITS)
}

/// A node that may be read. Copies are cheap; the borrow is the arena's.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    ptr: NonNull<u8>,
    at: Ref,
    arena: PhantomData<&'a u8>,
}

impl<'a> Node<'a> {
    /// # Safety
    /// `ptr` is the start of a node that stays alive and, cells apart, unchanged for `'a`; `at` is its reference.
    #[inline]
    pub(super) unsafe fn at(ptr: NonNull<u8>, at: Ref) -> Node<'a> {
        Node { ptr, at, arena: PhantomData }
    }

    #[inline]
    pub fn get(self) -> Ref {
        self.at
    }

    #[inline]
    fn header_cell(self) -> &'a AtomicU64 {
        // SAFETY: the header is an aligned word that is only ever accessed atomically once the node is shared.
        unsafe { AtomicU64::from_ptr(self.ptr.as_ptr().cast()) }
    }
    #[inline]
    pub fn header(self) -> u64 {
        self.header_cell().load(Ordering::Relaxed)
    }
    #[inline]
    pub fn birth(self) -> SubBatch {
        SubBatch(self.header() & BIRTH_MASK)
    }
    #[inline]
    pub fn kind(self) -> u8 {
        (self.header() >> (BIRTH_BITS + UNITS_BITS)) as u8 & 0x7f
    }
    #[inline]
    pub fn units(self) -> usize {
        (self.header() >> BIRTH_BITS) as usize & ((1 << UNITS_BITS) - 1)
    }
    #[inline]
    pub fn is_large(self) -> bool {
        self.units() == 0
    }
    /// Bytes of the node, header included (its size class; for a large node, header and payload).
    #[inline]
    pub fn capacity(self) -> usize {
        match self.units() {
            0 => (HEADER_BYTES + 8 + self.large_len()).next_multiple_of(8),
            units => units * UNIT,
        }
    }
    pub(super) fn large_len(self) -> usize {
        // SAFETY: a large node has at least two words.
        unsafe { self.ptr.add(HEADER_BYTES).cast::<u64>().read() as usize }
    }
    #[inline]
    pub fn is_page_head(self) -> bool {
        self.header() & Flags::PAGE_HEAD != 0
    }
    pub(super) fn set_flag(self, flag: u64) {
        self.header_cell().fetch_or(flag, Ordering::AcqRel);
    }

    /// Moves the birth of a node that is changed in place up to `birth`. False: it is there. Others may be setting flags meanwhile.
    #[inline]
    pub(in crate::store) fn stamp(self, birth: SubBatch) -> bool {
        let stamped = self.birth() == birth;
        if !stamped {
            let with = |header: u64| Some(header & !BIRTH_MASK | birth.0);
            let _ = self.header_cell().fetch_update(Ordering::AcqRel, Ordering::Relaxed, with);
        }
        !stamped
    }

    #[inline]
    fn check(self, off: usize, len: usize) {
        debug_assert!(off + len <= self.capacity(), "{off}+{len} outside of a node of {} bytes", self.capacity());
    }
    /// The little-endian word at byte `off`, which is a multiple of 8.
    #[inline]
    pub fn u64(self, off: usize) -> u64 {
        self.check(off, 8);
        debug_assert!(off.is_multiple_of(8));
        // SAFETY: inside the node (kinds define their offsets; debug builds check), aligned, not changed while shared.
        unsafe { self.ptr.add(off).cast::<u64>().read() }
    }
    #[inline]
    pub fn u32(self, off: usize) -> u32 {
        self.check(off, 4);
        // SAFETY: as in `u64`, unaligned.
        unsafe { self.ptr.add(off).cast::<u32>().read_unaligned() }
    }
    #[inline]
    pub fn u16(self, off: usize) -> u16 {
        self.check(off, 2);
        // SAFETY: as in `u32`.
        unsafe { self.ptr.add(off).cast::<u16>().read_unaligned() }
    }
    #[inline]
    pub fn u8(self, off: usize) -> u8 {
        self.check(off, 1);
        // SAFETY: as in `u32`.
        unsafe { self.ptr.add(off).read() }
    }
    /// `len` bytes from `off`; they must not cover a child cell.
    #[inline]
    pub fn bytes(self, off: usize, len: usize) -> &'a [u8] {
        self.check(off, len);
        // SAFETY: inside the node, initialised by whoever built it, not changed while shared.
        unsafe { std::slice::from_raw_parts(self.ptr.add(off).as_ptr(), len) }
    }
    /// `n` words from byte `off`, which is a multiple of 8; they must not cover a child cell.
    #[inline]
    pub fn words(self, off: usize, n: usize) -> &'a [u64] {
        self.check(off, n * 8);
        debug_assert!(off.is_multiple_of(8));
        // SAFETY: as in `bytes`, aligned.
        unsafe { std::slice::from_raw_parts(self.ptr.add(off).as_ptr().cast(), n) }
    }
    /// The child cell at byte `off`.
    #[inline]
    pub fn cell(self, off: usize) -> &'a AtomicU64 {
        self.check(off, 8);
        debug_assert!(off.is_multiple_of(8));
        // SAFETY: inside the node and aligned; a cell of a shared node is accessed only atomically.
        unsafe { AtomicU64::from_ptr(self.ptr.add(off).as_ptr().cast()) }
    }
    /// The child at byte `off`, as stored: null, resident or on disk.
    #[inline]
    pub fn child(self, off: usize) -> Ref {
        Ref(self.cell(off).load(Ordering::Acquire))
    }
}

/// A node that no published root reaches: it may be changed.
pub struct NodeMut<'a>(Node<'a>);

impl<'a> std::ops::Deref for NodeMut<'a> {
    type Target = Node<'a>;
    #[inline]
    fn deref(&self) -> &Node<'a> {
        &self.0
    }
}

impl<'a> NodeMut<'a> {
    /// # Safety
    /// As [`Node::at`], and nobody else accesses the node for `'a`.
    #[inline]
    pub(super) unsafe fn at(ptr: NonNull<u8>, at: Ref) -> NodeMut<'a> {
        // SAFETY: the caller's promise includes `Node::at`'s.
        NodeMut(unsafe { Node::at(ptr, at) })
    }
    #[inline]
    pub fn get(&self) -> Ref {
        self.0.at
    }
    #[inline]
    pub(super) fn set_header(&mut self, header: u64) {
        // SAFETY: uniquely owned, aligned.
        unsafe { self.0.ptr.cast::<u64>().write(header) }
    }
    /// A large node's payload length; until it is set its capacity is not known.
    pub(super) fn set_large_len(&mut self, len: u64) {
        // SAFETY: a large node has at least two words; uniquely owned.
        unsafe { self.0.ptr.add(HEADER_BYTES).cast::<u64>().write(len) }
    }
    #[inline]
    pub fn set_u64(&mut self, off: usize, v: u64) {
        self.0.check(off, 8);
        debug_assert!(off.is_multiple_of(8) && off >= HEADER_BYTES);
        // SAFETY: inside the node, aligned, uniquely owned.
        unsafe { self.0.ptr.add(off).cast::<u64>().write(v) }
    }
    #[inline]
    pub fn set_u32(&mut self, off: usize, v: u32) {
        self.0.check(off, 4);
        debug_assert!(off >= HEADER_BYTES);
        // SAFETY: inside the node, uniquely owned.
        unsafe { self.0.ptr.add(off).cast::<u32>().write_unaligned(v) }
    }
    #[inline]
    pub fn set_u16(&mut self, off: usize, v: u16) {
        self.0.check(off, 2);
        debug_assert!(off >= HEADER_BYTES);
        // SAFETY: inside the node, uniquely owned.
        unsafe { self.0.ptr.add(off).cast::<u16>().write_unaligned(v) }
    }
    #[inline]
    pub fn set_u8(&mut self, off: usize, v: u8) {
        self.0.check(off, 1);
        debug_assert!(off >= HEADER_BYTES);
        // SAFETY: inside the node, uniquely owned.
        unsafe { self.0.ptr.add(off).write(v) }
    }
    #[inline]
    pub fn set_child(&mut self, off: usize, child: Ref) {
        self.set_u64(off, child.0)
    }
    /// `len` bytes from `off`, for filling. They may be uninitialised in the sense that they hold whatever was there
    /// before, never in the sense of the compiler: the mapping reads as zeros until written.
    #[inline]
    pub fn bytes_mut(&mut self, off: usize, len: usize) -> &mut [u8] {
        self.0.check(off, len);
        debug_assert!(off >= HEADER_BYTES);
        // SAFETY: inside the node, uniquely owned, mapped memory always holds some byte.
        unsafe { std::slice::from_raw_parts_mut(self.0.ptr.add(off).as_ptr(), len) }
    }
    /// Copies the body (all but the header) of a node, word by word: readers may be storing the resident form of a child into the
    /// original meanwhile, and either form is right.
    #[inline]
    pub fn copy_body(&mut self, from: Node<'_>, bytes: usize) {
        let mut off = HEADER_BYTES;
        while off < bytes {
            self.set_u64(off, from.cell(off).load(Ordering::Relaxed));
            off += 8;
        }
        // A child's reference that a reader stored a moment ago leads to nodes that it built: see them whole.
        std::sync::atomic::fence(Ordering::Acquire);
    }
    /// Moves `len` bytes inside the node; the ranges may overlap.
    pub fn move_within(&mut self, from: usize, to: usize, len: usize) {
        self.0.check(from, len);
        self.0.check(to, len);
        // SAFETY: both ranges are inside the node, which is uniquely owned.
        unsafe { std::ptr::copy(self.0.ptr.add(from).as_ptr(), self.0.ptr.add(to).as_ptr(), len) }
    }
}
