//! Redis's glob patterns (`stringmatchlen`), iterative: a star remembers one place to come back to, so that no
//! pattern costs more than pattern times text (CVE-2022-36021, CVE-2024-31228).

/// Whether `pattern` matches all of `text`: `*`, `?`, `[a-z]`, `[^a]`, `\x`.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    loop {
        if p < pattern.len() && pattern[p] == b'*' {
            back = Some((p + 1, t));
            p += 1;
            continue;
        }
        if t == text.len() {
            return p == pattern.len();
        }
        if p < pattern.len()
            && let Some(next) = one(pattern, p, text[t])
        {
            (p, t) = (next, t + 1);
            continue;
        }
        let Some((star, from)) = back else { return false };
        back = Some((star, from + 1));
        (p, t) = (star, from + 1);
    }
}

/// Where the pattern goes on when the element at `p` matches `b`.
fn one(pattern: &[u8], p: usize, b: u8) -> Option<usize> {
    match pattern[p] {
        b'?' => Some(p + 1),
        b'[' => class(pattern, p + 1, b),
        b'\\' if p + 1 < pattern.len() => (pattern[p + 1] == b).then_some(p + 2),
        literal => (literal == b).then_some(p + 1),
    }
}

fn class(pattern: &[u8], from: usize, b: u8) -> Option<usize> {
    let mut p = from;
    let negated = pattern.get(p) == Some(&b'^');
    p += negated as usize;
    let mut hit = false;
    loop {
        match pattern[p.min(pattern.len())..] {
            // Unclosed: as in Redis, the pattern ends here.
            [] => return (hit != negated).then_some(p),
            [b']', ..] => return (hit != negated).then_some(p + 1),
            [b'\\', escaped, ..] => {
                hit |= escaped == b;
                p += 2;
            }
            [low, b'-', high, ..] => {
                hit |= (low.min(high)..=low.max(high)).contains(&b);
                p += 3;
            }
            [single, ..] => {
                hit |= single == b;
                p += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text, want) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("h?llo", "hello", true),
            ("h*llo", "heeeello", true),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hbllo", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("[ab", "a", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), want, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_cost_no_more_than_pattern_times_text() {
        let pattern = "a*".repeat(2000) + "b";
        assert!(!matches(pattern.as_bytes(), "a".repeat(20_000).as_bytes()));
    }
}
