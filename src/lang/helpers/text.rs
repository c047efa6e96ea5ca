//! Bytes and numbers: helpers that only compute.

use super::edge::{blocks, helpers};
use super::lcs::{lcs as longest_common, table_bytes};
use super::{bits, longdouble, number};
use crate::base::glob;
use crate::base::limits::BULK_BYTES_MAX;
use crate::lang::env::{Env, View};
use crate::lang::ir::Trap;
use crate::lang::table::Row;

pub const ROWS: &[Row] = &[
    Row::pure("bytes.len -> int", "2", "0", len).bound("64*blocks(self)"),
    Row::pure("bytes.at(i: int) -> int", "3", "0", at).bound("256"),
    Row::pure("bytes.slice(from: int, to: int) -> bytes", "6", "0", slice),
    Row::pure("bytes.eq(b: bytes) -> bool", "6 + blocks(self)", "0", eq),
    Row::pure("bytes.cmp(b: bytes) -> int", "6 + blocks(self)", "0", cmp),
    Row::pure("bytes.is_word(b: bytes) -> bool", "6 + blocks(self)", "0", is_word),
    Row::pure("bytes.concat(b: bytes) -> bytes", "10 + blocks(self) + blocks(b)", "0", concat).own().joins(),
    Row::pure("bytes.to_int() -> int?", "20", "0", to_int).bound("int(self)"),
    Row::pure("bytes.to_cursor() -> int?", "20", "0", to_cursor),
    Row::pure("cursor_text(c: int) -> bytes", "20", "0", cursor_text).bound("1").own(),
    Row::pure("bytes.to_float() -> float?", "60 + blocks(self)", "0", to_float),
    Row::pure("bytes.to_bound() -> float?", "60 + blocks(self)", "0", to_bound),
    Row::pure("int_text(i: int) -> bytes", "20", "0", int_text).bound("1").own(),
    Row::pure("bytes.add_decimal(b: bytes) -> bytes?", "400 + 1000*blocks(self) + 1000*blocks(b)", "0", add_decimal)
        .bound("80")
        .own(),
    Row::pure("bytes.is_decimal() -> bool", "200 + 1000*blocks(self)", "0", is_decimal),
    Row::pure("bytes.glob(text: bytes) -> bool", "20 + 64*blocks(self)*blocks(text)", "0", glob_matches),
    Row::pure("bytes.count_bits(from: int, to: int) -> int", "10 + 4*blocks(self)", "0", count_bits),
    Row::pure("bytes.find_bit(bit: int, from: int, to: int) -> int", "10 + 4*blocks(self)", "0", find_bit),
    Row::pure("bits_and(a: bytes, b: bytes) -> bytes", "10 + 2*blocks(a) + 2*blocks(b)", "0", bits_and).own(),
    Row::pure("bits_or(a: bytes, b: bytes) -> bytes", "10 + 2*blocks(a) + 2*blocks(b)", "0", bits_or).own(),
    Row::pure("bits_xor(a: bytes, b: bytes) -> bytes", "10 + 2*blocks(a) + 2*blocks(b)", "0", bits_xor).own(),
    Row::pure("bits_not(a: bytes) -> bytes", "10 + 2*blocks(a)", "0", bits_not).own(),
    Row::pure("compare_sum(a: int, b: int, low: int, high: int) -> int", "4", "0", compare_sum).bound("1"),
    Row::pure("wrap_sum(a: int, b: int, width: int, sign: bool) -> int", "4", "0", wrap_sum),
    Row::pure("lcs(a: bytes, b: bytes) -> Lcs", "60 + 4096*blocks(a)*blocks(b)", "0", lcs).fails(),
    Row::pure("Lcs.size -> int", "2", "0", lcs_size),
    Row::pure("Lcs.runs -> int", "2", "0", lcs_runs),
    Row::pure("Lcs.text -> bytes", "4", "0", lcs_text).own(),
    Row::pure("Lcs.next -> (int, int, int, int)?", "12", "0", lcs_next),
    Row::pure("random(n: int) -> int", "6", "0", random).bound("n"),
    Row::pure("batch.now -> time", "1", "0", now),
    Row::pure("batch.epoch -> int", "1", "0", epoch),
    Row::pure("wait()", "1", "0", wait).fails(),
];

helpers! {
    /// `bytes.len`
    fn len(env, s) {
        env.charge(2, 0);
        env.len_of(s)
    }
    /// `bytes.at`: -1 outside.
    fn at(env, s, i) {
        env.charge(3, 0);
        Ok(match env.view(s)? {
            View::Rope(..) => {
                let part = slice_word(env, s, i, i.wrapping_add(1))?;
                env.bytes(part)?.first().map_or(u64::MAX, |b| *b as u64)
            }
            View::Flat(_) => {
                let bytes = env.bytes(s)?;
                usize::try_from(i).ok().and_then(|i| bytes.get(i)).map_or(u64::MAX, |b| *b as u64)
            }
        })
    }
    /// `bytes.slice`: half open, clamped.
    fn slice(env, s, from, to) {
        env.charge(6, 0);
        slice_word(env, s, from, to)
    }
    /// `==` of bytes
    fn eq(env, a, b) {
        let (la, lb) = (env.len_of(a)?, env.len_of(b)?);
        if la != lb {
            env.charge(6, 0);
            return Ok(0);
        }
        env.charge(6 + blocks(la as usize), 0);
        Ok((env.bytes(a)? == env.bytes(b)?) as u64)
    }
    /// Order of bytes: -1, 0, 1.
    fn cmp(env, a, b) {
        let (a, b) = (env.bytes(a)?, env.bytes(b)?);
        env.charge(6 + blocks(a.len()), 0);
        Ok(a.cmp(b) as i64 as u64)
    }
    /// Equal but for the case of ASCII letters.
    fn is_word(env, a, b) {
        let (a, b) = (env.bytes(a)?, env.bytes(b)?);
        env.charge(6 + blocks(a.len()), 0);
        Ok(a.eq_ignore_ascii_case(b) as u64)
    }
    /// Both, one after the other.
    fn concat(env, a, b) {
        let (a, b) = (env.bytes(a)?, env.bytes(b)?);
        env.charge(10 + blocks(a.len()) + blocks(b.len()), 0);
        let out = env.scratch.take(a.len() + b.len());
        out[..a.len()].copy_from_slice(a);
        out[a.len()..].copy_from_slice(b);
        Ok(env.lend(out))
    }
    /// Canonical integers only.
    fn to_int(env, s) {
        env.charge(20, 0);
        let value = if env.len_of(s)? <= 20 { number::int(env.bytes(s)?) } else { None };
        env.give(value.map(|v| v as u64))
    }
    /// A cursor of SCAN.
    fn to_cursor(env, s) {
        env.charge(20, 0);
        let value = if env.len_of(s)? <= 64 { number::cursor(env.bytes(s)?) } else { None };
        env.give(value)
    }
    /// A cursor as SCAN replies it.
    fn cursor_text(env, c) {
        env.charge(20, 0);
        let mut out = Vec::with_capacity(20);
        number::write_unsigned(c, &mut out);
        Ok(env.keep(&out))
    }
    /// A float by Redis's rules.
    fn to_float(env, s) {
        let text = env.bytes(s)?;
        env.charge(60 + blocks(text.len()), 0);
        env.give(number::float(text).map(f64::to_bits))
    }
    /// A float as the end of a range of scores.
    fn to_bound(env, s) {
        let text = env.bytes(s)?;
        env.charge(60 + blocks(text.len()), 0);
        env.give(number::bound(text).map(f64::to_bits))
    }
    /// Decimal digits.
    fn int_text(env, i) {
        env.charge(20, 0);
        Ok(int_view(env, i as i64))
    }
    /// The sum of two decimal texts, as a long double would give it; none for NaN and infinity.
    fn add_decimal(env, a, b) {
        let (a, b) = (env.bytes(a)?, env.bytes(b)?);
        env.charge(400 + decimal_ops(a.len()) + decimal_ops(b.len()), 0);
        let sum = longdouble::parse(a).zip(longdouble::parse(b)).and_then(|(a, b)| longdouble::add(a, b));
        let word = sum.map(|sum| {
            let mut out = Vec::with_capacity(40);
            longdouble::write(sum, &mut out);
            env.keep(&out)
        });
        env.give(word)
    }
    /// Would `strtold` take it whole?
    fn is_decimal(env, s) {
        let text = env.bytes(s)?;
        env.charge(200 + decimal_ops(text.len()), 0);
        Ok(longdouble::parse(text).is_some() as u64)
    }
    /// The receiver is the pattern.
    fn glob_matches(env, pattern, text) {
        let (pattern, text) = (env.bytes(pattern)?, env.bytes(text)?);
        env.charge(20 + 64 * blocks(pattern.len()) * blocks(text.len()), 0);
        Ok(glob::matches(pattern, text) as u64)
    }
    /// Ones in a range of bits.
    fn count_bits(env, s, from, to) {
        let bytes = env.bytes(s)?;
        env.charge(10 + 4 * blocks(bytes.len()), 0);
        Ok(bits::count(bytes, bit_range(from, to)))
    }
    /// The first bit of a value in a range of bits, or -1.
    fn find_bit(env, s, bit, from, to) {
        let bytes = env.bytes(s)?;
        env.charge(10 + 4 * blocks(bytes.len()), 0);
        Ok(bits::find(bytes, bit != 0, bit_range(from, to)).unwrap_or(u64::MAX))
    }
    /// Bitwise and; the shorter string counts as followed by zeros.
    fn bits_and(env, a, b) { combine(env, a, b, |x, y| x & y) }
    /// Bitwise or.
    fn bits_or(env, a, b) { combine(env, a, b, |x, y| x | y) }
    /// Bitwise exclusive or.
    fn bits_xor(env, a, b) { combine(env, a, b, |x, y| x ^ y) }
    /// Every bit turned.
    fn bits_not(env, a) {
        let bytes = env.bytes(a)?;
        env.charge(10 + 2 * blocks(bytes.len()), 0);
        let out = env.scratch.take(bytes.len());
        for (o, b) in out.iter_mut().zip(bytes) {
            *o = !b;
        }
        Ok(env.lend(out))
    }
    /// Is `a + b` below, within or above `low ..= high`?
    fn compare_sum(env, a, b, low, high) {
        env.charge(4, 0);
        let sum = a as i64 as i128 + b as i64 as i128;
        let side = (sum > high as i64 as i128) as i64 - (sum < low as i64 as i128) as i64;
        Ok(side as u64)
    }
    /// `a + b` in a field of `width` bits, what does not fit cut off.
    fn wrap_sum(env, a, b, width, sign) {
        env.charge(4, 0);
        let width = field_width(width)?;
        let sum = a.wrapping_add(b);
        Ok(if sign != 0 { bits::signed(sum, width) as u64 } else { sum & (u64::MAX >> (64 - width)) })
    }
    /// The longest common subsequence.
    fn lcs(env, a, b) {
        let (a, b) = (env.bytes(a)?, env.bytes(b)?);
        if table_bytes(a.len(), b.len()) > BULK_BYTES_MAX as u64 {
            return env.fail("ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len");
        }
        env.charge(60 + 4096 * blocks(a.len()) * blocks(b.len()), 0);
        env.found.push(longest_common(a, b));
        Ok(env.found.len() as u64 - 1)
    }
    /// Bytes of the subsequence.
    fn lcs_size(env, l) {
        env.charge(2, 0);
        Ok(env.found.get(l as usize).ok_or(Trap::Index)?.text.len() as u64)
    }
    /// Runs that have not been shown.
    fn lcs_runs(env, l) {
        env.charge(2, 0);
        Ok(env.found.get(l as usize).ok_or(Trap::Index)?.runs.len() as u64)
    }
    /// The subsequence.
    fn lcs_text(env, l) {
        env.charge(4, 0);
        let text = std::mem::take(&mut env.found.get_mut(l as usize).ok_or(Trap::Index)?.text);
        let word = env.keep(&text);
        env.found[l as usize].text = text;
        Ok(word)
    }
    /// The next run, from the end: positions in both strings.
    fn lcs_next(env, l) {
        env.charge(12, 0);
        let Some(run) = env.found.get_mut(l as usize).ok_or(Trap::Index)?.runs.pop_front() else { return Ok(0) };
        for (i, at) in [run.a.0, run.a.1, run.b.0, run.b.1].into_iter().enumerate() {
            env.set_result(i + 1, at as u64);
        }
        Ok(1)
    }
    /// A number below `n`; 0 if there is none.
    fn random(env, n) {
        env.charge(6, 0);
        Ok(if n as i64 <= 0 { 0 } else { ((env.draw() as u128 * n as u128) >> 64) as u64 })
    }
    /// Log time.
    fn now(env) {
        env.charge(1, 0);
        Ok(env.now as u64)
    }
    /// The call's epoch.
    fn epoch(env) {
        env.charge(1, 0);
        Ok(env.epoch.0)
    }
    /// `wait`: ends the call until a key that it blocks on is written.
    fn wait(env) {
        env.charge(1, 0);
        Err(Trap::Wait)
    }
}

/// A word for a part of `s`; a part of a rope stays a rope.
pub(super) fn slice_word(env: &mut Env, s: u64, from: u64, to: u64) -> Result<u64, Trap> {
    let len = env.len_of(s)?;
    let from = (from as i64).clamp(0, len as i64) as u64;
    let to = (to as i64).clamp(from as i64, len as i64) as u64;
    Ok(match env.view(s)? {
        View::Flat(_) => {
            let bytes = env.bytes(s)?;
            env.lend(&bytes[from as usize..to as usize])
        }
        View::Rope(rope, start, _) => env.push_view(View::Rope(rope, start + from, start + to)),
    })
}

/// What reading a decimal text takes: the square of its length, and nothing when it is too long to be a number. As 80 blocks are
/// the longest, it stays below the 1000 operations for each block that the table states.
fn decimal_ops(len: usize) -> u64 {
    if len > longdouble::TEXT_MAX { 0 } else { 12 * blocks(len) * blocks(len) }
}

/// A word for the digits of an integer.
pub(super) fn int_view(env: &mut Env, value: i64) -> u64 {
    let mut text = [0u8; crate::resp::number::INT_TEXT_MAX];
    let start = crate::resp::number::int_text(&mut text, value);
    env.keep(&text[start..])
}

pub(super) fn field_width(width: u64) -> Result<u32, Trap> {
    if (1..=64).contains(&width) { Ok(width as u32) } else { Err(Trap::Index) }
}

fn bit_range(from: u64, to: u64) -> std::ops::Range<u64> {
    (from as i64).max(0) as u64..(to as i64).max(0) as u64
}

fn combine(env: &mut Env, a: u64, b: u64, op: impl Fn(u8, u8) -> u8) -> Result<u64, Trap> {
    let (a, b) = (env.bytes(a)?, env.bytes(b)?);
    env.charge(10 + 2 * blocks(a.len()) + 2 * blocks(b.len()), 0);
    let out = env.scratch.take(a.len().max(b.len()));
    bits::combine(a, b, out, op);
    Ok(env.lend(out))
}
