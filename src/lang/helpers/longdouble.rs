//! INCRBYFLOAT's arithmetic: the sum of two decimal texts as an x87 `long double` would give it, printed as Redis prints it
//! (`%.17Lf`, trailing zeros dropped), in integers only and so alike on every machine.
//!
//! Why not `f64`, or exact decimals: Redis on x86-64 rounds to 64 bits of mantissa at every step, and clients compare texts.

use super::number::{is_infinity, split_sign};

/// Redis reads a `long double` into a buffer of 5 KiB: whatever it prints it can read again.
pub const TEXT_MAX: usize = 5 * 1024 - 1;
/// Decimal exponents outside this range overflow or vanish in a `long double`.
const DECIMAL_EXPONENT_MAX: i64 = 4932;
const DECIMAL_EXPONENT_MIN: i64 = -4951;
/// A finite `long double` is below 2 to this power.
const BINARY_EXPONENT_MAX: i64 = 16384;
/// A smaller one vanishes.
const BINARY_EXPONENT_MIN: i64 = -16444;

/// `±mantissa × 2^exponent`; the mantissa has its top bit set, or is 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LongDouble {
    Finite { negative: bool, mantissa: u64, exponent: i64 },
    Infinite { negative: bool },
}

/// Reads a whole text; none when `strtold` would leave a rest, overflow, vanish or give NaN.
pub fn parse(text: &[u8]) -> Option<LongDouble> {
    if text.len() > TEXT_MAX {
        return None;
    }
    let (sign, magnitude) = split_sign(std::str::from_utf8(text).ok()?);
    let negative = sign < 0.0;
    if is_infinity(magnitude) {
        return Some(LongDouble::Infinite { negative });
    }
    if let Some(hex) = magnitude.strip_prefix("0x").or_else(|| magnitude.strip_prefix("0X")) {
        return hexadecimal(hex, negative);
    }
    let (digits, exponent) = decimal(magnitude)?;
    if digits.is_zero() {
        return Some(LongDouble::Finite { negative, mantissa: 0, exponent: 0 });
    }
    let (mantissa, exponent) = if exponent >= 0 {
        round(digits.times_power_of_ten(exponent as u32), 0, false)
    } else {
        quotient(digits, Big::from(1).times_power_of_ten(exponent.unsigned_abs() as u32))
    };
    (exponent + 64 <= BINARY_EXPONENT_MAX).then_some(LongDouble::Finite { negative, mantissa, exponent })
}

/// `1f.8p3`: hexadecimal digits with an optional binary exponent.
fn hexadecimal(text: &str, negative: bool) -> Option<LongDouble> {
    let (digits, power) = match text.split_once(['p', 'P']) {
        Some((digits, power)) => (digits, decimal_exponent(power)?),
        None => (text, 0),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && part.is_empty() {
        return None;
    }
    let mut value = Big::from(0);
    for c in whole.chars().chain(part.chars()) {
        value.multiply_add(16, c.to_digit(16)?);
    }
    if value.is_zero() {
        return Some(LongDouble::Finite { negative, mantissa: 0, exponent: 0 });
    }
    let (mantissa, exponent) = round(value, power - 4 * part.len() as i64, false);
    let fits = (BINARY_EXPONENT_MIN..=BINARY_EXPONENT_MAX).contains(&(exponent + 64));
    fits.then_some(LongDouble::Finite { negative, mantissa, exponent })
}

/// The digits of a decimal text as one integer, and the power of ten to scale it by.
fn decimal(text: &str) -> Option<(Big, i64)> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, decimal_exponent(exponent)?),
        None => (text, 0),
    };
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = Big::from(0);
    let (mut group, mut scale) = (0, 1);
    for b in whole.bytes().chain(part.bytes()) {
        if !b.is_ascii_digit() {
            return None;
        }
        (group, scale) = (group * 10 + (b - b'0') as u32, scale * 10);
        if scale == 1_000_000_000 {
            digits.multiply_add(scale, group);
            (group, scale) = (0, 1);
        }
    }
    digits.multiply_add(scale, group);
    if whole.is_empty() && part.is_empty() {
        return None;
    }
    if digits.is_zero() {
        return Some((digits, 0));
    }
    let zeros_in_front = whole.bytes().chain(part.bytes()).take_while(|b| *b == b'0').count();
    let top = exponent.saturating_add(whole.len() as i64 - zeros_in_front as i64);
    let fits = (DECIMAL_EXPONENT_MIN..=DECIMAL_EXPONENT_MAX + 1).contains(&top);
    fits.then_some((digits, exponent - part.len() as i64))
}

/// The number after `e`; far values are cut, they only need to stay far.
pub(super) fn decimal_exponent(text: &str) -> Option<i64> {
    let (sign, digits) = split_sign(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value = digits.parse::<i64>().unwrap_or(i64::MAX).min(1_000_000);
    Some(if sign < 0.0 { -value } else { value })
}

/// `a / b` rounded to 64 bits.
fn quotient(a: Big, b: Big) -> (u64, i64) {
    // Scale so that the quotient has 66 or 67 bits: 64 of mantissa, the rest and the remainder decide the rounding.
    let scale = 66 + b.bits() as i64 - a.bits() as i64;
    let (mut rest, mut divisor) = (a, b);
    if scale >= 0 {
        rest.shift_left(scale as u32)
    } else {
        divisor.shift_left(scale.unsigned_abs() as u32)
    }
    let mut digits = Big::from(0);
    let mut step = divisor.clone();
    step.shift_left(67);
    for _ in 0..=67 {
        digits.shift_left(1);
        if step.at_most(&rest) {
            rest.subtract(&step);
            digits.add(&Big::from(1));
        }
        step.shift_right_one();
    }
    round(digits, -scale, !rest.is_zero())
}

/// Rounds `value × 2^exponent` to a 64-bit mantissa, half to even; `sticky` says that something below was cut off.
fn round(value: Big, exponent: i64, sticky: bool) -> (u64, i64) {
    let bits = value.bits() as i64;
    let cut = bits - 64;
    if cut <= 0 {
        let mut value = value;
        value.shift_left(cut.unsigned_abs() as u32);
        return (value.low_u64(), exponent + cut);
    }
    let (mantissa, half, rest) = value.split(cut as u32);
    let up = half && (rest || sticky || mantissa & 1 == 1);
    match mantissa.checked_add(up as u64) {
        Some(mantissa) => (mantissa, exponent + cut),
        None => (1 << 63, exponent + cut + 1),
    }
}

/// The sum, rounded once; none for NaN and infinity.
pub fn add(a: LongDouble, b: LongDouble) -> Option<LongDouble> {
    use LongDouble::Finite;
    let (Finite { negative: na, mantissa: ma, exponent: ea }, Finite { negative: nb, mantissa: mb, exponent: eb }) =
        (a, b)
    else {
        return None;
    };
    if ma == 0 || mb == 0 {
        return Some(if ma == 0 { b } else { a });
    }
    let low = ea.min(eb);
    let (mut x, mut y) = (Big::from(ma), Big::from(mb));
    x.shift_left((ea - low) as u32);
    y.shift_left((eb - low) as u32);
    let negative = if na == nb {
        x.add(&y);
        na
    } else if y.at_most(&x) {
        x.subtract(&y);
        na
    } else {
        y.subtract(&x);
        x = y;
        nb
    };
    if x.is_zero() {
        return Some(Finite { negative: false, mantissa: 0, exponent: 0 });
    }
    let (mantissa, exponent) = round(x, low, false);
    (exponent + 64 <= BINARY_EXPONENT_MAX).then_some(Finite { negative, mantissa, exponent })
}

/// Seventeen digits after the point, then no trailing zeros: `LD_STR_HUMAN`.
pub fn write(value: LongDouble, out: &mut Vec<u8>) {
    let LongDouble::Finite { negative, mantissa, exponent } = value else { return };
    let mut scaled = Big::from(mantissa).times_power_of_ten(17);
    if exponent >= 0 {
        scaled.shift_left(exponent as u32);
    } else {
        scaled = scaled.rounded_shift_right(exponent.unsigned_abs().min(1 << 20) as u32);
    }
    let mut digits = scaled.decimal();
    while digits.len() < 18 {
        digits.insert(0, b'0');
    }
    let part = digits.split_off(digits.len() - 17);
    let kept = part.iter().rposition(|b| *b != b'0').map_or(0, |last| last + 1);
    if negative && (digits != b"0" || kept > 0) {
        out.push(b'-');
    }
    out.extend_from_slice(&digits);
    if kept > 0 {
        out.push(b'.');
        out.extend_from_slice(&part[..kept]);
    }
}

/// A natural number, little-endian limbs without leading zero limbs.
#[derive(Clone, Debug, PartialEq)]
struct Big(Vec<u32>);

impl From<u64> for Big {
    fn from(value: u64) -> Big {
        let mut big = Big(vec![value as u32, (value >> 32) as u32]);
        big.trim();
        big
    }
}

impl Big {
    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }
    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }
    fn bits(&self) -> u32 {
        self.0.last().map_or(0, |top| self.0.len() as u32 * 32 - top.leading_zeros())
    }
    fn bit(&self, at: u32) -> bool {
        self.0.get(at as usize / 32).is_some_and(|limb| limb >> (at % 32) & 1 == 1)
    }
    fn low_u64(&self) -> u64 {
        self.0.first().copied().unwrap_or(0) as u64 | (self.0.get(1).copied().unwrap_or(0) as u64) << 32
    }
    fn multiply_add(&mut self, factor: u32, addend: u32) {
        let mut carry = addend as u64;
        for limb in &mut self.0 {
            carry += *limb as u64 * factor as u64;
            *limb = carry as u32;
            carry >>= 32;
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
    }
    fn times_power_of_ten(mut self, power: u32) -> Big {
        for _ in 0..power / 9 {
            self.multiply_add(1_000_000_000, 0);
        }
        self.multiply_add(10u32.pow(power % 9), 0);
        self
    }
    fn shift_left(&mut self, by: u32) {
        if self.is_zero() {
            return;
        }
        let small = by % 32;
        if small > 0 {
            let mut carry = 0;
            for limb in &mut self.0 {
                let out = *limb >> (32 - small);
                *limb = *limb << small | carry;
                carry = out;
            }
            self.0.push(carry);
            self.trim();
        }
        self.0.splice(0..0, std::iter::repeat_n(0, by as usize / 32));
    }
    fn shift_right_one(&mut self) {
        let mut carry = 0;
        for limb in self.0.iter_mut().rev() {
            let out = *limb << 31;
            *limb = *limb >> 1 | carry;
            carry = out;
        }
        self.trim();
    }
    fn add(&mut self, other: &Big) {
        let mut carry = 0u64;
        for i in 0..self.0.len().max(other.0.len()) {
            if i == self.0.len() {
                self.0.push(0);
            }
            carry += self.0[i] as u64 + other.0.get(i).copied().unwrap_or(0) as u64;
            self.0[i] = carry as u32;
            carry >>= 32;
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
    }
    /// `other` is at most `self`.
    fn subtract(&mut self, other: &Big) {
        let mut borrow = 0i64;
        for i in 0..self.0.len() {
            let mut limb = self.0[i] as i64 - other.0.get(i).copied().unwrap_or(0) as i64 + borrow;
            borrow = if limb < 0 { -1 } else { 0 };
            if limb < 0 {
                limb += 1 << 32;
            }
            self.0[i] = limb as u32;
        }
        self.trim();
    }
    fn at_most(&self, other: &Big) -> bool {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.iter().rev().cmp(other.0.iter().rev())).is_le()
    }
    /// Cuts the lowest `cut` bits off (what is above must fit 64 bits): what is above, the highest bit cut, any other bit cut.
    fn split(&self, cut: u32) -> (u64, bool, bool) {
        let mut above = 0u64;
        for i in (0..64).rev() {
            above = above << 1 | self.bit(cut + i) as u64;
        }
        (above, self.bit(cut - 1), self.any_below(cut - 1))
    }
    fn any_below(&self, bits: u32) -> bool {
        let whole = (bits / 32) as usize;
        let low = |limb: &u32| limb & ((1u64 << (bits % 32)) - 1) as u32 != 0;
        self.0.iter().take(whole).any(|limb| *limb != 0) || self.0.get(whole).is_some_and(low)
    }
    fn rounded_shift_right(&self, by: u32) -> Big {
        let half = self.bit(by - 1);
        let rest = self.any_below(by - 1);
        let mut high = Big(self.0.get(by as usize / 32..).unwrap_or(&[]).to_vec());
        for _ in 0..by % 32 {
            high.shift_right_one();
        }
        if half && (rest || high.bit(0)) {
            high.add(&Big::from(1));
        }
        high
    }
    fn decimal(mut self) -> Vec<u8> {
        let mut groups = Vec::new();
        while !self.is_zero() {
            let mut rest = 0u64;
            for limb in self.0.iter_mut().rev() {
                rest = rest << 32 | *limb as u64;
                *limb = (rest / 1_000_000_000) as u32;
                rest %= 1_000_000_000;
            }
            self.trim();
            groups.push(rest as u32);
        }
        let mut out = groups.pop().unwrap_or(0).to_string().into_bytes();
        for group in groups.iter().rev() {
            out.extend_from_slice(format!("{group:09}").as_bytes());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(a: &str, b: &str) -> Option<String> {
        let total = add(parse(a.as_bytes())?, parse(b.as_bytes())?)?;
        let mut out = Vec::new();
        write(total, &mut out);
        String::from_utf8(out).ok()
    }

    /// The answers of Redis 7.0.15 on x86-64 to `SET k a`, `INCRBYFLOAT k b`.
    #[test]
    fn sums_read_as_in_redis() {
        let table = [
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("3.0", "1.000000000000000005", "4.00000000000000001"),
            ("1", "-1", "0"),
            ("-1.5", "1", "-0.5"),
            ("0", "-1e-30", "0"),
            ("1e20", "0.1", "100000000000000000000"),
            ("123456789.123456789", "0.000000001", "123456789.12345678999554366"),
            ("0.1", "0.2", "0.3"),
            ("0x10", "3.75", "19.75"),
            ("-0x1.8p1", "0X.8", "-2.5"),
        ];
        for (a, b, want) in table {
            assert_eq!(sum(a, b).as_deref(), Some(want), "{a} + {b}");
        }
    }

    #[test]
    fn what_was_written_reads_back_however_long() {
        for (text, digits) in [("1e400", 401), ("-1e4931", 4933), ("12345678901234567890123", 23)] {
            let mut out = Vec::new();
            write(parse(text.as_bytes()).unwrap(), &mut out);
            assert_eq!(out.len(), digits, "{text}");
            assert_eq!(parse(&out), parse(text.as_bytes()), "{text}");
        }
        assert_eq!(parse(&[b'1'; TEXT_MAX + 1]), None);
    }

    #[test]
    fn what_is_no_finite_number_is_refused() {
        for bad in ["", "nan", "1e5000", "1e-5000", " 1", "1 ", "1e", "e5", ".", "0x"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(sum("inf", "1"), None);
        assert_eq!(sum("1e4932", "1e4932"), None);
    }

    #[test]
    fn a_double_keeps_its_value() {
        for value in [0.1f64, 1.0, 1e300, 123.456, 2f64.powi(-40)] {
            let LongDouble::Finite { mantissa, exponent, .. } = parse(format!("{value:e}").as_bytes()).unwrap() else {
                panic!()
            };
            let back = mantissa as f64 * 2f64.powi(exponent as i32);
            assert_eq!(back, value);
        }
    }
}
