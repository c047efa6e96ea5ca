//! The longest common subsequence of two strings, and the ranges in which it matches, as LCS … IDX lists them.

use std::collections::VecDeque;

/// One run of equal bytes: inclusive positions in both strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    pub a: (u32, u32),
    pub b: (u32, u32),
}

/// The subsequence and its runs, the last run first.
#[derive(Debug, Default)]
pub struct Lcs {
    pub text: Vec<u8>,
    pub runs: VecDeque<Match>,
}

/// Bytes of the table that [`lcs`] fills for strings of these lengths.
pub fn table_bytes(a: usize, b: usize) -> u64 {
    (a as u64 + 1).saturating_mul(b as u64 + 1).saturating_mul(4)
}

/// The textbook table, walked back with Redis's tie rule (`>` goes up, else left), so that equal lengths give equal answers.
pub fn lcs(a: &[u8], b: &[u8]) -> Lcs {
    let width = b.len() + 1;
    let mut table = vec![0u32; (a.len() + 1) * width];
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            table[i * width + j] = if a[i - 1] == b[j - 1] {
                table[(i - 1) * width + j - 1] + 1
            } else {
                table[(i - 1) * width + j].max(table[i * width + j - 1])
            };
        }
    }
    walk_back(a, b, &table)
}

fn walk_back(a: &[u8], b: &[u8], table: &[u32]) -> Lcs {
    let width = b.len() + 1;
    let (mut i, mut j) = (a.len(), b.len());
    let mut found = Lcs::default();
    let mut run: Option<Match> = None;
    while i > 0 && j > 0 {
        if a[i - 1] == b[j - 1] {
            found.text.push(a[i - 1]);
            (i, j) = (i - 1, j - 1);
            let (x, y) = (i as u32, j as u32);
            run = Some(run.map_or(Match { a: (x, x), b: (y, y) }, |m| Match { a: (x, m.a.1), b: (y, m.b.1) }));
        } else {
            if table[(i - 1) * width + j] > table[i * width + j - 1] {
                i -= 1
            } else {
                j -= 1
            }
            found.runs.extend(run.take());
        }
    }
    found.runs.extend(run);
    found.text.reverse();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_redis_documentation() {
        let found = lcs(b"ohmytext", b"mynewtext");
        assert_eq!(found.text, b"mytext");
        assert_eq!(found.runs, [Match { a: (4, 7), b: (5, 8) }, Match { a: (2, 3), b: (0, 1) }]);
    }

    #[test]
    fn strings_without_a_common_byte_have_no_match() {
        let found = lcs(b"abc", b"xyz");
        assert!(found.text.is_empty() && found.runs.is_empty());
    }
}
