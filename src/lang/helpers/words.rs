//! The words of a text: what `for w in text.words(max: 64) limit n` walks.
//!
//! A word is a run of ASCII letters, digits and bytes above 127 (so that words in UTF-8 hold together whatever their script), with ASCII
//! letters in lower case. A longer one is cut.

use super::edge::{blocks, helpers};
use super::walk::Walk;
use crate::lang::ir::Trap;
use crate::lang::table::Row;

/// The most bytes of a word: one block, so that a turn of the loop has a bound of its own.
const WORD_MAX: i64 = 64;

pub const ROWS: &[Row] = &[
    // Looking for all words is paid for at the beginning: a turn may pass any number of blanks.
    Row::pure("bytes.words(max: int) -> WordIter", "20 + 32*blocks(self)", "0", words),
    Row::pure("WordIter.next -> bytes?", "16", "0", next_word).bound("1").own(),
];

fn belongs(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || *byte > 127
}

helpers! {
    /// The words of a text, of at most `max` bytes each (and never more than 64).
    fn words(env, text, max) {
        let bytes = env.stable_bytes(text)?;
        env.charge(20 + 32 * blocks(bytes.len()), 0);
        let text = env.lend(bytes);
        env.start_walk(Walk::Words { text, at: 0, max: (max as i64).clamp(1, WORD_MAX) as usize })
    }
    /// `WordIter.next`
    fn next_word(env, walk) {
        env.charge(16, 0);
        let Some(&mut Walk::Words { text, at, max }) = env.walks.get_mut(walk as usize) else { return Err(Trap::Index) };
        let rest = &env.bytes(text)?[at..];
        let Some(blanks) = rest.iter().position(belongs) else { return Ok(0) };
        let rest = &rest[blanks..];
        let len = rest.iter().position(|b| !belongs(b)).unwrap_or(rest.len());
        env.walks[walk as usize] = Walk::Words { text, at: at + blanks + len, max };
        let word = env.scratch.take(len.min(max));
        word.copy_from_slice(&rest[..len.min(max)]);
        word.make_ascii_lowercase();
        let word = env.lend(word);
        env.give(Some(word))
    }
}
