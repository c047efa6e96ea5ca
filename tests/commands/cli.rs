//! The conversation form of documentation examples: command lines as `redis-cli` splits them, replies as it prints them.

/// Splits a command line: blanks part words, `"…"` knows escapes, `'…'` takes all as it is.
pub fn words(line: &str) -> Vec<Vec<u8>> {
    let bytes = line.as_bytes();
    let mut words = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b' ' {
            at += 1;
            continue;
        }
        let mut word = Vec::new();
        match bytes[at] {
            b'"' => at = quoted(bytes, at + 1, &mut word),
            b'\'' => {
                let end = at + 1 + bytes[at + 1..].iter().position(|b| *b == b'\'').expect("a closing quote");
                word.extend_from_slice(&bytes[at + 1..end]);
                at = end + 1;
            }
            _ => {
                let end = bytes[at..].iter().position(|b| *b == b' ').map_or(bytes.len(), |n| at + n);
                word.extend_from_slice(&bytes[at..end]);
                at = end;
            }
        }
        words.push(word);
    }
    words
}

fn quoted(bytes: &[u8], mut at: usize, word: &mut Vec<u8>) -> usize {
    while bytes[at] != b'"' {
        if bytes[at] != b'\\' {
            word.push(bytes[at]);
            at += 1;
            continue;
        }
        at += 2;
        match bytes[at - 1] {
            b'n' => word.push(b'\n'),
            b'r' => word.push(b'\r'),
            b't' => word.push(b'\t'),
            b'x' => {
                let hex = std::str::from_utf8(&bytes[at..at + 2]).expect("hex digits");
                word.push(u8::from_str_radix(hex, 16).expect("hex digits"));
                at += 2;
            }
            other => word.push(other),
        }
    }
    at + 1
}

/// Prints one RESP2 reply, line by line; what follows it.
pub fn print(reply: &[u8]) -> (Vec<String>, &[u8]) {
    let end = reply.windows(2).position(|w| w == b"\r\n").expect("a line");
    let line = String::from_utf8_lossy(&reply[1..end]).into_owned();
    let rest = &reply[end + 2..];
    match reply[0] {
        b'+' => (vec![line], rest),
        b'-' => (vec![format!("(error) {line}")], rest),
        b':' => (vec![format!("(integer) {line}")], rest),
        b'$' | b'*' if line == "-1" => (vec!["(nil)".into()], rest),
        b'$' => {
            let len: usize = line.parse().expect("a length");
            (vec![literal(&rest[..len])], &rest[len + 2..])
        }
        b'*' => array(line.parse().expect("a count"), rest),
        other => panic!("reply type {:?}", other as char),
    }
}

fn array(count: usize, mut rest: &[u8]) -> (Vec<String>, &[u8]) {
    if count == 0 {
        return (vec!["(empty array)".into()], rest);
    }
    let width = count.to_string().len();
    let mut lines = Vec::new();
    for i in 1..=count {
        let (item, after) = print(rest);
        rest = after;
        for (n, line) in item.into_iter().enumerate() {
            lines.push(if n == 0 { format!("{i:>width$}) {line}") } else { format!("{:width$}  {line}", "") });
        }
    }
    (lines, rest)
}

fn literal(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for b in bytes {
        match b {
            b'"' | b'\\' => out.extend(['\\', *b as char]),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            0x20..=0x7e => out.push(*b as char),
            _ => out.push_str(&format!("\\x{b:02x}")),
        }
    }
    out.push('"');
    out
}
