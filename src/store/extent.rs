//! What the elements of a collection measure: kept beside its length, so that bounds on the steps of a command that reads
//! elements are known before it reads one.

/// Whole 64-byte blocks of so many bytes: the unit of costs.
#[inline]
pub fn blocks(bytes: usize) -> u64 {
    bytes.div_ceil(64) as u64
}

const LONGEST_BITS: u32 = 25;
/// In blocks: 2 GiB, more than any string is long.
pub const LONGEST_MAX: u64 = (1 << LONGEST_BITS) - 1;
const TOTAL_MAX: u64 = u64::MAX >> LONGEST_BITS;

/// One word: blocks of all elements : 39 | of the longest that there was since the collection was last empty : 25.
///
/// Why both: reading one element of many is bounded by the longest, reading all of them by the sum, and neither is near the other where
/// lengths differ. Why the longest ever: the longest now cannot be kept in O(1); where it has gone, the sum still bounds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Extent(pub u64);

impl Extent {
    /// Blocks of all elements.
    pub fn total(self) -> u64 {
        self.0 >> LONGEST_BITS
    }
    /// No element has more blocks.
    pub fn longest(self) -> u64 {
        (self.0 & LONGEST_MAX).min(self.total())
    }
    /// An element of so many blocks comes.
    #[inline]
    pub fn grow(&mut self, blocks: u64) {
        let total = (self.total() + blocks).min(TOTAL_MAX);
        let longest = (self.0 & LONGEST_MAX).max(blocks.min(LONGEST_MAX));
        self.0 = total << LONGEST_BITS | longest;
    }
    /// One goes.
    #[inline]
    pub fn shrink(&mut self, blocks: u64) {
        match self.total().saturating_sub(blocks) {
            0 => self.0 = 0,
            total => self.0 = total << LONGEST_BITS | self.0 & LONGEST_MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_exact_and_the_longest_is_never_too_small() {
        let mut extent = Extent::default();
        extent.grow(3);
        extent.grow(50);
        extent.grow(0);
        assert_eq!((extent.total(), extent.longest()), (53, 50));
        extent.shrink(50);
        assert_eq!((extent.total(), extent.longest()), (3, 3), "what is left is no longer than all of it");
        extent.grow(40);
        assert_eq!(extent.longest(), 43, "the one of 50 is remembered, the sum is less");
        extent.shrink(3);
        extent.shrink(40);
        assert_eq!(extent, Extent::default());
        extent.grow(u64::MAX >> 1);
        assert_eq!((extent.total(), extent.longest()), (TOTAL_MAX, LONGEST_MAX));
    }
}
