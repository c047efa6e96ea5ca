//! Memory of one call: bytes that helpers make and that must stay where they are until the call ends.

/// Kept from call to call, so that ordinary calls never allocate.
const KEPT_BYTES: usize = 64 * 1024;

/// A bump allocator of blocks that never move.
#[derive(Default)]
pub struct Scratch {
    blocks: Vec<Box<[u8]>>,
    /// Bytes used of the last block.
    used: usize,
}

impl Scratch {
    /// `len` bytes of any content (zeros or leavings of earlier calls), valid until [`Scratch::clear`].
    ///
    /// The lifetime is the caller's claim: nothing taken may be used after the call ends.
    pub fn take<'e>(&mut self, len: usize) -> &'e mut [u8] {
        if self.blocks.last().is_none_or(|b| b.len() - self.used < len) {
            self.blocks.push(vec![0; len.max(KEPT_BYTES)].into_boxed_slice());
            self.used = 0;
        }
        let block = self.blocks.last_mut().map_or(&mut [][..], |b| b);
        let piece = &mut block[self.used..self.used + len];
        self.used += len;
        // SAFETY: the block is boxed and lives, unmoved, until `clear`; no byte of it is handed out twice before that.
        unsafe { &mut *std::ptr::from_mut(piece) }
    }

    /// Ends a call. The first block stays, larger ones are given back.
    pub fn clear(&mut self) {
        self.used = 0;
        if self.blocks.len() > 1 || self.blocks.first().is_some_and(|b| b.len() > KEPT_BYTES) {
            self.blocks.retain(|b| b.len() == KEPT_BYTES);
            self.blocks.truncate(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_keep_their_place_while_more_are_taken() {
        let mut scratch = Scratch::default();
        let first = scratch.take(10);
        first.fill(7);
        for n in [1, 100_000, 0, 70_000] {
            scratch.take(n).fill(1);
        }
        assert_eq!(first, [7; 10]);
        scratch.clear();
        assert_eq!(scratch.blocks.len(), 1);
    }
}
