//! How items compare, and the item layouts of sorted sets and of the expiry index.

use super::branch::Prefix;
use std::cmp::Ordering;

/// The order of a searchable tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// By bytes.
    Bytes,
    /// A sorted set: items are a score (8 bytes, little-endian bits of the float) and a member; by score, -0 equal to 0,
    /// then by the member's bytes, as Redis.
    Score,
}

fn sortable(score: f64) -> u64 {
    // Adding 0 turns -0 into 0. Negative floats sort by inverted bits, positive ones above them.
    let bits = (score + 0.0).to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

/// Up to 8 bytes as a number that compares as they do.
fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    let len = bytes.len().min(8);
    word[..len].copy_from_slice(&bytes[..len]);
    u64::from_be_bytes(word)
}

/// The first 16 bytes of an item's order: smaller prefix, smaller item; equal prefixes say nothing.
pub fn prefix(order: Order, item: &[u8]) -> Prefix {
    match order {
        Order::Bytes => [word(item), word(item.get(8..).unwrap_or(&[]))],
        Order::Score => {
            let (score, member) = split_score(item);
            [sortable(score), word(member)]
        }
    }
}

pub fn compare(order: Order, a: &[u8], b: &[u8]) -> Ordering {
    match order {
        Order::Bytes => a.cmp(b),
        Order::Score => {
            let ((a_score, a), (b_score, b)) = (split_score(a), split_score(b));
            sortable(a_score).cmp(&sortable(b_score)).then_with(|| a.cmp(b))
        }
    }
}

/// Writes the sorted-set item of a score and a member into `item`.
pub fn score_item(score: f64, member: &[u8], item: &mut Vec<u8>) {
    item.clear();
    item.extend_from_slice(&score.to_bits().to_le_bytes());
    item.extend_from_slice(member);
}

/// Score and member of a sorted-set item.
pub fn split_score(item: &[u8]) -> (f64, &[u8]) {
    let (score, member) = item.split_first_chunk::<8>().expect("sorted-set items begin with a score");
    (f64::from_bits(u64::from_le_bytes(*score)), member)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_order_as_numbers_with_both_zeros_equal() {
        let scores = [
            f64::NEG_INFINITY,
            f64::MIN,
            -1.5,
            -f64::MIN_POSITIVE,
            0.0,
            f64::MIN_POSITIVE,
            1.0,
            f64::MAX,
            f64::INFINITY,
        ];
        assert!(scores.is_sorted_by(|a, b| sortable(*a) < sortable(*b)));
        assert_eq!(sortable(-0.0), sortable(0.0));
    }
}
