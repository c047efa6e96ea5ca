//! Numbers as Redis reads and writes them: canonical integers, cursors, floats.

/// An i64 in its one canonical spelling (`-1`, `0`, `17`; not `+1`, `01`, `-0` or ` 1`). Redis's `string2ll`.
pub use crate::resp::number::parse_int as int;

use super::longdouble::decimal_exponent;

/// A SCAN cursor: what `strtoul` takes whole (a sign, leading zeros), but no blanks and nothing past 2^64 - 1.
pub fn cursor(text: &[u8]) -> Option<u64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = std::str::from_utf8(digits).ok()?.parse::<u64>().ok()?;
    Some(if negative { value.wrapping_neg() } else { value })
}

/// Writes `value` at the end of `out`, in decimal.
pub fn write_int(value: i64, out: &mut Vec<u8>) {
    crate::resp::number::write_int(out, value);
}

pub fn write_unsigned(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// A float as `strtod` reads a whole argument, by Redis's rules: no blank in front, infinities by name, no NaN, and neither
/// overflow nor underflow to zero.
pub fn float(text: &[u8]) -> Option<f64> {
    let (sign, magnitude) = split_sign(std::str::from_utf8(text).ok()?);
    let value = strtod(magnitude)?;
    let overflowed = value.is_infinite() && !is_infinity(magnitude);
    let vanished = value == 0.0 && has_digit_but_zero(magnitude);
    (!overflowed && !vanished).then_some(sign * value)
}

/// One end of a range of scores, as ZRANGE reads it: as [`float`], but nothing at all is 0, blanks may come first, a NUL ends the
/// text, and what is too large is infinite and what is too small is 0.
pub fn bound(text: &[u8]) -> Option<f64> {
    let text = text.split(|b| *b == 0).next().unwrap_or_default();
    if text.is_empty() {
        return Some(0.0);
    }
    let word = std::str::from_utf8(text).ok()?.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let (sign, magnitude) = split_sign(word);
    strtod(magnitude).map(|v| sign * v)
}

/// A number without a sign; what is too large is infinite, what is too small is 0.
fn strtod(magnitude: &str) -> Option<f64> {
    if is_infinity(magnitude) {
        return Some(f64::INFINITY);
    }
    match without_hex_prefix(magnitude) {
        Some(hex) => hex_float(hex),
        None if magnitude.starts_with(|c: char| c.is_ascii_digit() || c == '.') => magnitude.parse().ok(),
        None => None,
    }
}

pub(super) fn split_sign(word: &str) -> (f64, &str) {
    match word.as_bytes().first() {
        Some(b'-') => (-1.0, &word[1..]),
        Some(b'+') => (1.0, &word[1..]),
        _ => (1.0, word),
    }
}

pub(super) fn is_infinity(magnitude: &str) -> bool {
    magnitude.eq_ignore_ascii_case("inf") || magnitude.eq_ignore_ascii_case("infinity")
}

fn without_hex_prefix(magnitude: &str) -> Option<&str> {
    magnitude.strip_prefix("0x").or_else(|| magnitude.strip_prefix("0X"))
}

/// Is the mantissa of this number other than zero?
fn has_digit_but_zero(magnitude: &str) -> bool {
    let mantissa = match without_hex_prefix(magnitude) {
        Some(hex) => hex.split(['p', 'P']).next(),
        None => magnitude.split(['e', 'E']).next(),
    };
    mantissa.is_some_and(|digits| digits.contains(|c: char| c.is_ascii_hexdigit() && c != '0'))
}

/// `1f.8p3`: hexadecimal digits with an optional binary exponent, rounded once to the nearest double.
fn hex_float(text: &str) -> Option<f64> {
    let (digits, power) = match text.split_once(['p', 'P']) {
        Some((digits, power)) => (digits, decimal_exponent(power)?),
        None => (text, 0),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && part.is_empty() {
        return None;
    }
    // The first 60 bits and more are kept; a last bit that is set stands for all that was dropped.
    let (mut mantissa, mut exponent) = (0u64, power - 4 * part.len() as i64);
    for c in whole.chars().chain(part.chars()) {
        let digit = u64::from(c.to_digit(16)?);
        if mantissa >> 60 == 0 {
            mantissa = mantissa << 4 | digit;
        } else {
            mantissa |= u64::from(digit != 0);
            exponent += 4;
        }
    }
    Some(scaled(mantissa, exponent))
}

/// `mantissa × 2^exponent`, to the nearest double, ties to even.
fn scaled(mantissa: u64, exponent: i64) -> f64 {
    const LOWEST: i64 = -1074; // the exponent of the smallest double
    let bits = i64::from(64 - mantissa.leading_zeros());
    let dropped = (bits - 53).max(LOWEST - exponent).max(0);
    if dropped > bits {
        return 0.0;
    }
    let (kept, rest) = (mantissa.checked_shr(dropped as u32).unwrap_or(0), u128::from(mantissa) % (1 << dropped));
    let half = (1u128 << dropped) / 2;
    let up = dropped > 0 && (rest > half || rest == half && kept % 2 == 1);
    let (kept, power) = ((kept + u64::from(up)) as f64, (exponent + dropped).clamp(-2000, 2000) as i32);
    // In two steps: a single factor might itself be no double.
    kept * 2f64.powi(power / 2) * 2f64.powi(power - power / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_integers_are_integers() {
        for good in ["0", "-1", "9223372036854775807", "-9223372036854775808", "10"] {
            assert_eq!(int(good.as_bytes()), good.parse().ok(), "{good}");
        }
        for bad in [
            "",
            "-",
            "+1",
            "01",
            "-0",
            " 1",
            "1 ",
            "1.0",
            "9223372036854775808",
            "-9223372036854775809",
            "99999999999999999999",
        ] {
            assert_eq!(int(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn written_integers_read_back() {
        for value in [0, 1, -1, 10, i64::MAX, i64::MIN, -999] {
            let mut out = Vec::new();
            write_int(value, &mut out);
            assert_eq!(int(&out), Some(value));
        }
    }

    #[test]
    fn floats_follow_strtod_with_redis_rules() {
        let good = [("1.5", 1.5), (".5", 0.5), ("5.", 5.0), ("-1e3", -1000.0), ("+2", 2.0), ("inf", f64::INFINITY)];
        for (text, value) in
            good.into_iter().chain([("-Infinity", f64::NEG_INFINITY), ("0x10", 16.0), ("0e5", 0.0), ("0x0p9", 0.0)])
        {
            assert_eq!(float(text.as_bytes()), Some(value), "{text}");
        }
        for bad in ["", "nan", " 1", "1 ", "1e", "abc", "1e400", "1e-400", "--1", "0x", "1_0", "0x1p1024", "0x1p-1075"]
        {
            assert_eq!(float(bad.as_bytes()), None, "{bad}");
        }
    }

    /// Expected values from glibc's `strtod`.
    #[test]
    fn hexadecimal_floats_are_rounded_once() {
        let cases = [
            ("0x1p-1074", 1),
            ("0x1.8p-1075", 1),
            ("0x1.4p-1073", 2),
            ("0x1.cp-1073", 4),
            ("0x1p1023", 0x7fe0_0000_0000_0000),
            ("0x1.fffffffffffff7p1023", 0x7fef_ffff_ffff_ffff),
            ("0x20000000000001", 0x4340_0000_0000_0000),
            ("0x200000000000010000000001", 0x45c0_0000_0000_0001),
            ("0x20000000000003", 0x4340_0000_0000_0002),
            ("0xa.8p0", 0x4025_0000_0000_0000),
        ];
        for (text, bits) in cases {
            assert_eq!(float(text.as_bytes()).map(f64::to_bits), Some(bits), "{text}");
        }
        assert_eq!(bound(b"-0x1p99999999999999999999"), Some(f64::NEG_INFINITY));
        assert_eq!(bound(b"0x1p-1075"), Some(0.0));
    }

    #[test]
    fn ends_of_ranges_are_read_more_generously() {
        let good = [("", 0.0), ("\0x", 0.0), (" \t5", 5.0), ("-1.5", -1.5), ("5\0x", 5.0), ("0x10", 16.0)];
        for (text, value) in
            good.into_iter().chain([("1e400", f64::INFINITY), ("-1e-400", 0.0), ("-inf", -f64::INFINITY)])
        {
            assert_eq!(bound(text.as_bytes()), Some(value), "{text:?}");
        }
        for bad in [" ", "nan", "-nan", "1 ", "1e", "abc", "--1", "+-1", "-", "(1"] {
            assert_eq!(bound(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn cursors_are_unsigned() {
        assert_eq!(cursor(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(cursor(b"18446744073709551616"), None);
        assert_eq!(cursor(b"x"), None);
        assert_eq!(cursor(b""), None);
    }
}
