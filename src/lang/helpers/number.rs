//! Numbers as Redis reads and writes them: canonical integers, cursors, floats.

/// An i64 in its one canonical spelling (`-1`, `0`, `17`; not `+1`, `01`, `-0` or ` 1`). Redis's `string2ll`.
pub use crate::resp::number::parse_int as int;

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
    let word = std::str::from_utf8(text).ok()?;
    let (sign, magnitude) = split_sign(word);
    if is_infinity(magnitude) {
        return Some(sign * f64::INFINITY);
    }
    if let Some(hex) = magnitude.strip_prefix("0x").or_else(|| magnitude.strip_prefix("0X")) {
        return hex_float(hex).map(|v| sign * v);
    }
    if !magnitude.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let value: f64 = magnitude.parse().ok()?;
    let vanished = value == 0.0 && mantissa_of(magnitude).contains(|c: char| ('1'..='9').contains(&c));
    (value.is_finite() && !vanished).then_some(sign * value)
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
    float(magnitude.as_bytes()).filter(|_| !magnitude.starts_with(['+', '-'])).map(|v| sign * v).or_else(|| {
        let decimal = magnitude.starts_with(|c: char| c.is_ascii_digit() || c == '.');
        magnitude.parse::<f64>().ok().filter(|_| decimal).map(|v| sign * v)
    })
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

fn mantissa_of(magnitude: &str) -> &str {
    magnitude.split(['e', 'E']).next().unwrap_or("")
}

/// `1f.8p3`: hexadecimal digits with an optional binary exponent.
fn hex_float(text: &str) -> Option<f64> {
    let (digits, exponent) = match text.split_once(['p', 'P']) {
        Some((digits, exponent)) => (digits, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && part.is_empty() {
        return None;
    }
    let mut value = 0.0f64;
    for c in whole.chars().chain(part.chars()) {
        value = value * 16.0 + c.to_digit(16)? as f64;
    }
    let value = value * 2f64.powi(exponent.saturating_sub(4 * part.len() as i32));
    value.is_finite().then_some(value)
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
        for (text, value) in good.into_iter().chain([("-Infinity", f64::NEG_INFINITY), ("0x10", 16.0), ("0e5", 0.0)]) {
            assert_eq!(float(text.as_bytes()), Some(value), "{text}");
        }
        for bad in ["", "nan", " 1", "1 ", "1e", "abc", "1e400", "1e-400", "--1", "0x", "1_0"] {
            assert_eq!(float(bad.as_bytes()), None, "{bad}");
        }
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
