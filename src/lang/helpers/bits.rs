//! Bits of byte strings, numbered as Redis numbers them: bit 0 is the highest bit of byte 0.

use std::ops::Range;

/// The bit at `at`; 0 past the end.
pub fn get(bytes: &[u8], at: u64) -> u64 {
    bytes.get((at / 8) as usize).map_or(0, |b| (b >> (7 - at % 8) & 1) as u64)
}

/// Ones in a half-open range of bits, clamped to the string.
pub fn count(bytes: &[u8], range: Range<u64>) -> u64 {
    let end = range.end.min(bytes.len() as u64 * 8);
    let start = range.start;
    if start >= end {
        return 0;
    }
    let (first, last) = ((start / 8) as usize, ((end - 1) / 8) as usize);
    let head = 0xffu8 >> (start % 8);
    let tail = 0xffu8 << (7 - (end - 1) % 8);
    if first == last {
        return (bytes[first] & head & tail).count_ones() as u64;
    }
    let middle = &bytes[first + 1..last];
    let words = middle.chunks_exact(8);
    let rest: u64 = words.remainder().iter().map(|b| b.count_ones() as u64).sum();
    let whole: u64 = words.map(|w| u64::from_le_bytes(w.try_into().unwrap_or_default()).count_ones() as u64).sum();
    (bytes[first] & head).count_ones() as u64 + whole + rest + (bytes[last] & tail).count_ones() as u64
}

/// The first bit equal to `bit` in a half-open range of bits, clamped to the string.
pub fn find(bytes: &[u8], bit: bool, range: Range<u64>) -> Option<u64> {
    let end = range.end.min(bytes.len() as u64 * 8);
    let skip = if bit { 0u8 } else { 0xff };
    let mut at = range.start;
    while at < end {
        if at.is_multiple_of(8) && at + 8 <= end {
            let from = (at / 8) as usize;
            let whole = &bytes[from..(end / 8) as usize];
            let run = whole.iter().position(|b| *b != skip).unwrap_or(whole.len());
            if run > 0 {
                at += run as u64 * 8;
                continue;
            }
        }
        if (get(bytes, at) == 1) == bit {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// `width` bits (1..=64) from `at`, as an unsigned number; bits past the end are 0.
pub fn field(bytes: &[u8], at: u64, width: u32) -> u64 {
    let first = (at / 8) as usize;
    let mut window = 0u128;
    for i in 0..9 {
        window = window << 8 | bytes.get(first + i).copied().unwrap_or(0) as u128;
    }
    let shift = 72 - (at % 8) as u32 - width;
    (window >> shift) as u64 & mask(width)
}

/// Sign-extends the low `width` bits.
pub fn signed(value: u64, width: u32) -> i64 {
    ((value << (64 - width)) as i64) >> (64 - width)
}

/// How many bytes hold the bits `at .. at + width`, and where the first of them is.
pub fn cover(at: u64, width: u32) -> Range<usize> {
    (at / 8) as usize..(at + width as u64).div_ceil(8) as usize
}

/// Writes the low `width` bits of `value` at bit `at` of `bytes`, which must hold them all.
pub fn set_field(bytes: &mut [u8], at: u64, width: u32, value: u64) {
    let span = cover(at, width);
    let len = span.len();
    let mut window = 0u128;
    for b in &bytes[span.clone()] {
        window = window << 8 | *b as u128;
    }
    let shift = len as u32 * 8 - (at % 8) as u32 - width;
    let hole = (mask(width) as u128) << shift;
    window = window & !hole | ((value & mask(width)) as u128) << shift;
    for b in bytes[span].iter_mut().rev() {
        *b = window as u8;
        window >>= 8;
    }
}

fn mask(width: u32) -> u64 {
    if width >= 64 { u64::MAX } else { (1 << width) - 1 }
}

/// Combines two strings byte by byte into `out`, the shorter padded with zeros.
pub fn combine(a: &[u8], b: &[u8], out: &mut [u8], op: impl Fn(u8, u8) -> u8) {
    let both = a.len().min(b.len());
    for ((o, x), y) in out.iter_mut().zip(&a[..both]).zip(&b[..both]) {
        *o = op(*x, *y);
    }
    for (o, x) in out[both..].iter_mut().zip(&a[both..]) {
        *o = op(*x, 0);
    }
    for (o, y) in out[both..].iter_mut().zip(&b[both..]) {
        *o = op(0, *y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bit_by_bit(bytes: &[u8]) -> Vec<bool> {
        (0..bytes.len() as u64 * 8).map(|i| get(bytes, i) == 1).collect()
    }

    proptest! {
        #[test]
        fn count_and_find_agree_with_looking_at_every_bit(bytes in proptest::collection::vec(any::<u8>(), 0..40), a in 0u64..330, b in 0u64..330, bit: bool) {
            let all = bit_by_bit(&bytes);
            let end = (b as usize).min(all.len());
            let part = all.get(a as usize..end).unwrap_or(&[]);
            prop_assert_eq!(count(&bytes, a..b), part.iter().filter(|x| **x).count() as u64);
            prop_assert_eq!(find(&bytes, bit, a..b), part.iter().position(|x| *x == bit).map(|i| i as u64 + a));
        }

        #[test]
        fn a_field_reads_back_and_touches_no_other_bit(mut bytes in proptest::collection::vec(any::<u8>(), 20..21), at in 0u64..96, width in 1u32..65, value: u64) {
            let before = bit_by_bit(&bytes);
            set_field(&mut bytes, at, width, value);
            prop_assert_eq!(field(&bytes, at, width), value & mask(width));
            let after = bit_by_bit(&bytes);
            let changed = |i: usize| before[i] != after[i] && !(at..at + width as u64).contains(&(i as u64));
            prop_assert!(!(0..before.len()).any(changed));
        }
    }

    #[test]
    fn runs_of_one_value_are_skipped_but_not_past_the_range() {
        assert_eq!(find(&[0, 0, 0, 1], true, 0..32), Some(31));
        assert_eq!(find(&[0, 0, 0, 1], true, 0..31), None);
        assert_eq!(find(&[0xff; 4], false, 0..32), None);
    }

    #[test]
    fn the_sign_is_the_highest_bit_of_the_field() {
        assert_eq!(signed(0xff, 8), -1);
        assert_eq!(signed(0x7f, 8), 127);
        assert_eq!(signed(u64::MAX, 64), -1);
    }
}
