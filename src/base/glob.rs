//! Glob patterns as KEYS, SCAN, CONFIG GET and ACL rules take them: `*`, `?`, `[a-z]`, `[^x]`, `\x`.
//!
//! Redis recurses at every `*` (exponential on `a*a*a*…b`); here only the last `*` is ever retried, which finds the same
//! matches in at most pattern × text steps, and a step cap bounds even that.

/// More steps than this and the text counts as not matching (Redis bounds its recursion depth the same way).
const STEPS_MAX: u64 = 1 << 28;

/// Does `text` match `pattern`, byte for byte as Redis's `stringmatchlen` decides it?
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    // Redis's loop never looks at the pattern of an empty text: `*` does not match it.
    if text.is_empty() {
        return pattern.is_empty();
    }
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    for _ in 0..STEPS_MAX {
        if t == text.len() {
            return pattern[p..].iter().all(|b| *b == b'*');
        }
        if pattern.get(p) == Some(&b'*') {
            while pattern.get(p) == Some(&b'*') {
                p += 1;
            }
            if p == pattern.len() {
                return true;
            }
            star = Some((p, t));
            continue;
        }
        match one(&pattern[p..], text[t]) {
            Some(used) => (p, t) = (p + used, t + 1),
            None => match star {
                Some((after, from)) => {
                    star = Some((after, from + 1));
                    (p, t) = (after, from + 1);
                }
                None => return false,
            },
        }
    }
    false
}

/// Matches one byte against the element at the front of `pattern`; the bytes that the element takes.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern.first()? {
        b'?' => Some(1),
        b'[' => class(pattern, byte),
        b'\\' if pattern.len() >= 2 => (pattern[1] == byte).then_some(2),
        literal => (literal == byte).then_some(1),
    }
}

/// `[…]`, also when it is never closed (Redis then takes the rest of the pattern as the class).
fn class(pattern: &[u8], byte: u8) -> Option<usize> {
    let mut at = 1;
    let not = pattern.get(at) == Some(&b'^');
    at += not as usize;
    let mut hit = false;
    while at < pattern.len() && pattern[at] != b']' {
        if pattern[at] == b'\\' && at + 1 < pattern.len() {
            at += 1;
            hit |= pattern[at] == byte;
        } else if at + 2 < pattern.len() && pattern[at + 1] == b'-' {
            let (low, high) = (pattern[at].min(pattern[at + 2]), pattern[at].max(pattern[at + 2]));
            hit |= (low..=high).contains(&byte);
            at += 2;
        } else {
            hit |= pattern[at] == byte;
        }
        at += 1;
    }
    (hit != not).then_some((at + 1).min(pattern.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        let table: [(&str, &str, bool); 22] = [
            ("*", "abc", true),
            ("*", "", false),
            ("", "", true),
            ("a*", "a", true),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[^e]llo", "hbllo", true),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hallo", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("[\\]]", "]", true),
            ("*a*b*c", "xxaxxbxxc", true),
            ("*a*b*c", "xxaxxbxx", false),
            ("a[bc", "ab", true),
            ("a**b", "ab", true),
            ("*ab", "aab", true),
            ("abc", "abcd", false),
            ("abc*", "ab", false),
            ("*[", "x[", false),
        ];
        for (pattern, text, want) in table {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), want, "{pattern} on {text}");
        }
    }

    #[test]
    fn many_stars_stay_polynomial() {
        let pattern = "a*".repeat(40) + "b";
        assert!(!matches(pattern.as_bytes(), &[b'a'; 4000]));
    }
}
