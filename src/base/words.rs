//! The words in which arguments travel: made by the argument parser, carried by batches, read by programs.

/// How a `bytes` value is named by one word. Bits 63..62 say which space:
/// `0` argument: bits 61..32 offset into the chunk's blob, bits 31..0 length;
/// `1` view: bits 31..0 index into the call's view table (made by helpers);
/// `2` literal: bits 31..0 index into the program's literals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct BytesWord(pub u64);

impl BytesWord {
    pub fn argument(offset: u32, len: u32) -> Self {
        debug_assert!(offset <= 1 << 30);
        BytesWord((offset as u64) << 32 | len as u64)
    }
    pub fn view(index: u32) -> Self {
        BytesWord(1 << 62 | index as u64)
    }
    pub fn literal(index: u32) -> Self {
        BytesWord(2 << 62 | index as u64)
    }
    pub fn space(self) -> u8 {
        (self.0 >> 62) as u8
    }
    /// Offset of an argument.
    pub fn offset(self) -> usize {
        (self.0 >> 32) as usize & 0x3fff_ffff
    }
    /// Length of an argument.
    pub fn len(self) -> usize {
        self.0 as u32 as usize
    }
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
    /// Index of a view or literal.
    pub fn index(self) -> usize {
        self.0 as u32 as usize
    }
}

/// A list argument: bits 63..32 the number of its first word among the call's words, bits 31..0 its elements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct ListWord(pub u64);

impl ListWord {
    pub fn new(first_word: u32, count: u32) -> Self {
        ListWord((first_word as u64) << 32 | count as u64)
    }
    pub fn first_word(self) -> usize {
        (self.0 >> 32) as usize
    }
    pub fn count(self) -> usize {
        self.0 as u32 as usize
    }
}
