//! Decimal forms of numbers, byte for byte as Redis 7.2 prints them (`ll2string`, `d2string`).

/// Longest text of [`write_int`]: `-9223372036854775808`.
pub const INT_TEXT_MAX: usize = 20;

const PAIRS: &[u8; 200] = b"0001020304050607080910111213141516171819\
2021222324252627282930313233343536373839\
4041424344454647484950515253545556575859\
6061626364656667686970717273747576777879\
8081828384858687888990919293949596979899";

/// Appends `value` in decimal.
#[inline]
pub fn write_int(out: &mut Vec<u8>, value: i64) {
    if (0..10).contains(&value) {
        out.push(b'0' + value as u8);
        return;
    }
    let mut text = [0u8; INT_TEXT_MAX];
    let at = int_text(&mut text, value);
    out.extend_from_slice(&text[at..]);
}

/// Writes `value` right-aligned into `text` and tells where it begins.
#[inline]
pub fn int_text(text: &mut [u8; INT_TEXT_MAX], value: i64) -> usize {
    let mut rest = value.unsigned_abs();
    let mut at = INT_TEXT_MAX;
    while rest >= 100 {
        let pair = (rest % 100) as usize * 2;
        rest /= 100;
        at -= 2;
        text[at..at + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
    }
    if rest >= 10 {
        at -= 2;
        text[at..at + 2].copy_from_slice(&PAIRS[rest as usize * 2..rest as usize * 2 + 2]);
    } else {
        at -= 1;
        text[at] = b'0' + rest as u8;
    }
    if value < 0 {
        at -= 1;
        text[at] = b'-';
    }
    at
}

/// Reads a decimal integer as Redis does (`string2ll`): no spaces, no plus, no leading zeros, no `-0`, no overflow.
#[inline]
pub fn parse_int(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut value: u64 = 0;
    for &digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        // 19 digits are below 10^19 < 2^64: no overflow here.
        value = value * 10 + digit as u64;
    }
    match negative {
        false => i64::try_from(value).ok(),
        true if value <= 1 << 63 => Some((value as i64).wrapping_neg()),
        true => None,
    }
}

/// Appends a double as Redis 7.2 replies with it: integers up to 2^62 plainly (`double2ll`), else the shortest digits that
/// read back the same, in the layout of its `fpconv_dtoa`. (7.0 printed `%.17g`: 3.1 was 3.1000000000000001.)
pub fn write_double(out: &mut Vec<u8>, value: f64) {
    const PLAIN_MAX: f64 = (1u64 << 62) as f64;
    if value.is_nan() {
        out.extend_from_slice(b"nan");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"inf" } else { b"-inf" });
    } else if value == 0.0 {
        out.extend_from_slice(if value.is_sign_negative() { b"-0" } else { b"0" });
    } else if value.trunc() == value && value.abs() <= PLAIN_MAX {
        write_int(out, value as i64);
    } else {
        write_shortest(out, value);
    }
}

/// Digits and decimal exponent (`value = digits * 10^exponent`) of the shortest text that reads back as `value`.
fn shortest(value: f64, digits: &mut [u8; 24]) -> (usize, i32) {
    let mut buffer = ryu::Buffer::new();
    let text = buffer.format_finite(value.abs());
    let (mantissa, exponent) = match text.split_once('e') {
        Some((m, e)) => (m, e.parse::<i32>().unwrap_or(0)),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    let mut count = 0;
    for b in whole.bytes().chain(fraction.bytes()) {
        if count > 0 || b != b'0' {
            digits[count] = b;
            count += 1;
        }
    }
    let mut exponent = exponent - fraction.len() as i32;
    while count > 1 && digits[count - 1] == b'0' {
        count -= 1;
        exponent += 1;
    }
    (count, exponent)
}

fn write_shortest(out: &mut Vec<u8>, value: f64) {
    let mut buffer = [0u8; 24];
    let (count, k) = shortest(value, &mut buffer);
    let digits = &buffer[..count];
    let scientific = k + count as i32 - 1;
    if value < 0.0 {
        out.push(b'-');
    }
    if k >= 0 && scientific < count as i32 + 7 {
        out.extend_from_slice(digits);
        out.extend(std::iter::repeat_n(b'0', k as usize));
    } else if k < 0 && (k > -7 || scientific.abs() < 4) {
        let offset = count as i32 + k;
        if offset <= 0 {
            out.extend_from_slice(b"0.");
            out.extend(std::iter::repeat_n(b'0', -offset as usize));
            out.extend_from_slice(digits);
        } else {
            let (whole, fraction) = digits.split_at(offset as usize);
            out.extend_from_slice(whole);
            out.push(b'.');
            out.extend_from_slice(fraction);
        }
    } else {
        out.push(digits[0]);
        if count > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[1..]);
        }
        out.extend_from_slice(if scientific < 0 { b"e-" } else { b"e+" });
        write_int(out, scientific.abs() as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int(value: i64) -> String {
        let mut out = Vec::new();
        write_int(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    fn double(value: f64) -> String {
        let mut out = Vec::new();
        write_double(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn integers_print_as_std_prints_them() {
        for value in [0, 1, 9, 10, 99, 100, 101, 999, 12345, -1, -10, -99, -100, i64::MAX, i64::MIN] {
            assert_eq!(int(value), value.to_string());
        }
        for shift in 0..63 {
            for near in [-1i64, 0, 1] {
                let value = (1i64 << shift) + near;
                assert_eq!(int(value), value.to_string());
                assert_eq!(parse_int(value.to_string().as_bytes()), Some(value));
            }
        }
    }

    #[test]
    fn integer_texts_that_redis_refuses_are_refused() {
        for text in ["", "-", "+1", "01", "-0", "00", " 1", "1 ", "1x", "9223372036854775808", "-9223372036854775809"] {
            assert_eq!(parse_int(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse_int(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(parse_int(b"9223372036854775807"), Some(i64::MAX));
    }

    #[test]
    fn doubles_print_as_redis_7_2_prints_them() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (3.0, "3"),
            (3.1, "3.1"),
            (-2.5, "-2.5"),
            (0.001, "0.001"),
            (0.0001, "0.0001"),
            (1.0e-7, "1e-7"),
            (1.25e-7, "1.25e-7"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
            (1e20, "1e+20"),
            (1152921504606846976.0, "1152921504606846976"),
            (1e19, "1e+19"),
            (1e100, "1e+100"),
            (1.5e300, "1.5e+300"),
            (4503599627370495.0, "4503599627370495"),
            (9007199254740993.0, "9007199254740992"),
            (123456.789, "123456.789"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
            (f64::MAX, "1.7976931348623157e+308"),
        ] {
            assert_eq!(double(value), text);
        }
    }

    proptest::proptest! {
        #[test]
        fn doubles_read_back_the_same(bits: u64) {
            let value = f64::from_bits(bits);
            proptest::prop_assume!(value.is_finite());
            proptest::prop_assert_eq!(double(value).parse::<f64>().unwrap().to_bits(), bits);
        }
        #[test]
        fn integers_read_back_the_same(value: i64) {
            proptest::prop_assert_eq!(parse_int(int(value).as_bytes()), Some(value));
        }
    }
}
