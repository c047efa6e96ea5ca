//! The request decoder: one buffer in, argument ranges out. Nothing is copied but inline requests, whose quoting
//! must be undone, and nothing is allocated by an announced length: a promise of 512 MiB costs its sender 512 MiB
//! of sending before it costs us.
//!
//! Incremental: of a request that is not complete yet, no byte is looked at twice. What is accepted, and the texts
//! of what is not, are those of Redis 7.2's `processMultibulkBuffer` and `processInlineBuffer`; like them it skips
//! the two bytes after an argument without looking at them.

use super::number::parse_int;
use crate::base::limits;

/// Longest line that announces a count or a length (Redis's `PROTO_INLINE_MAX_SIZE`).
const LINE_BYTES_MAX: usize = limits::INLINE_BYTES_MAX;

/// Longest inline request. Redis looks at its limit only between reads of 16 KiB, so that a line may be that much longer.
const INLINE_BYTES_MAX: usize = limits::INLINE_BYTES_MAX + 16 * 1024;

/// The first byte that a TLS client sends. No command begins with it.
const TLS_HANDSHAKE: u8 = 0x16;

/// What a request may be at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one argument (`proto-max-bulk-len`).
    pub bulk_bytes_max: usize,
    /// Bytes of one request (`client-query-buffer-limit`).
    pub request_bytes_max: usize,
    /// The client has authenticated, or need not: strangers may send ten arguments of 16 KiB.
    pub trusted: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { bulk_bytes_max: limits::BULK_BYTES_MAX, request_bytes_max: limits::QUERY_BYTES_MAX, trusted: true }
    }
}

/// Why the bytes are not a request. The connection is answered with the text and closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    #[error("ERR Protocol error: too big mbulk count string")]
    CountLine,
    #[error("ERR Protocol error: invalid multibulk length")]
    Count,
    #[error("ERR Protocol error: unauthenticated multibulk length")]
    CountUntrusted,
    #[error("ERR Protocol error: too big bulk count string")]
    LengthLine,
    #[error("ERR Protocol error: expected '$', got '{}'", *.0 as char)]
    Dollar(u8),
    #[error("ERR Protocol error: invalid bulk length")]
    Length,
    #[error("ERR Protocol error: unauthenticated bulk length")]
    LengthUntrusted,
    #[error("ERR Protocol error: too big inline request")]
    Inline,
    #[error("ERR Protocol error: unbalanced quotes in request")]
    Quotes,
    #[error("ERR Protocol error: request exceeds client-query-buffer-limit")]
    RequestBytes,
    /// The first byte of a TLS handshake.
    #[error("ERR Protocol error: this looks like TLS, and this port is not; use the server's tls-port")]
    Tls,
    /// Not printable: another binary protocol.
    #[error("ERR Protocol error: expected '*' or an inline command")]
    Binary,
}

/// One argument of a request: where it lies in the request's source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arg {
    pub at: u32,
    pub len: u32,
}

/// How far the request at the front of the input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing known; `at` bytes hold no end of line.
    Start,
    /// Multibulk: so many arguments are awaited.
    Arguments(u32),
    /// Multibulk: so many arguments are awaited, and the next one's length is known.
    Body(u32, u32),
    /// The last answer was a whole request: the next call begins a new one.
    Done,
}

/// What [`Decoder::next`] found at the front of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A request of so many bytes, at [`Decoder::request`]. No arguments: an empty one, to be passed over.
    Complete(usize),
    /// The input ends inside a request that has at least so many bytes.
    Incomplete(usize),
}

/// Decodes the requests of one connection.
#[derive(Debug)]
pub struct Decoder {
    pub limits: Limits,
    ranges: Vec<Arg>,
    /// Arguments of an inline request, unquoted.
    unquoted: Vec<u8>,
    inline: bool,
    state: State,
    at: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder::new(Limits::default())
    }
}

enum Line {
    /// The number, and where the next line begins.
    Number(i64, usize),
    NotANumber,
    Incomplete,
}

impl Decoder {
    pub fn new(limits: Limits) -> Self {
        Decoder { limits, ranges: Vec::new(), unquoted: Vec::new(), inline: false, state: State::Start, at: 0 }
    }

    /// Looks at `input`, which begins where the last complete request ended: after [`Progress::Incomplete`] it must
    /// hold the same bytes and more.
    #[inline]
    pub fn next(&mut self, input: &[u8]) -> Result<Progress, ProtocolError> {
        if self.state == State::Done {
            self.state = State::Start;
            self.at = 0;
            self.ranges.clear();
        }
        loop {
            let more = match self.state {
                State::Start => match input.first() {
                    None => false,
                    Some(b'*') => self.count(input)?,
                    Some(_) => return self.inline(input),
                },
                State::Arguments(0) | State::Done => return Ok(self.complete(self.at)),
                State::Arguments(left) => self.length(input, left)?,
                State::Body(left, len) => self.body(input, left, len as usize),
            };
            if !more {
                return self.incomplete(input);
            }
        }
    }

    /// The arguments of the request that [`Decoder::next`] completed; `input` is the same as there.
    #[inline]
    pub fn request<'a>(&'a self, input: &'a [u8]) -> Request<'a> {
        Request { source: if self.inline { &self.unquoted } else { input }, ranges: &self.ranges }
    }

    /// Gives memory that a large request needed back to the system.
    pub fn shrink(&mut self) {
        const KEEP: usize = 1024;
        if self.state == State::Done && self.ranges.capacity() > KEEP {
            self.ranges = Vec::new();
        }
        if self.unquoted.capacity() > 16 * KEEP {
            self.unquoted = Vec::new();
        }
    }

    fn complete(&mut self, consumed: usize) -> Progress {
        self.state = State::Done;
        Progress::Complete(consumed)
    }

    fn incomplete(&self, input: &[u8]) -> Result<Progress, ProtocolError> {
        let needed = match self.state {
            State::Body(_, len) => self.at + len as usize + 2,
            _ => input.len() + 1,
        };
        if needed > self.limits.request_bytes_max {
            Err(ProtocolError::RequestBytes)
        } else {
            Ok(Progress::Incomplete(needed))
        }
    }

    /// `*3\r\n`
    #[inline]
    fn count(&mut self, input: &[u8]) -> Result<bool, ProtocolError> {
        let (count, next) = match number_line(input, 1) {
            Line::Number(count, next) => (count, next),
            Line::NotANumber => return Err(ProtocolError::Count),
            Line::Incomplete if input.len() > LINE_BYTES_MAX => return Err(ProtocolError::CountLine),
            Line::Incomplete => return Ok(false),
        };
        if count > limits::MULTIBULK_COUNT_MAX as i64 {
            return Err(ProtocolError::Count);
        }
        if count > limits::UNAUTHENTICATED_ARGS_MAX as i64 && !self.limits.trusted {
            return Err(ProtocolError::CountUntrusted);
        }
        self.inline = false;
        self.state = State::Arguments(count.max(0) as u32);
        self.at = next;
        Ok(true)
    }

    /// `$3\r\n`
    #[inline]
    fn length(&mut self, input: &[u8], left: u32) -> Result<bool, ProtocolError> {
        let Some(&first) = input.get(self.at) else { return Ok(false) };
        let line = number_line(input, self.at + 1);
        if let Line::Incomplete = line {
            return if input.len() - self.at > LINE_BYTES_MAX { Err(ProtocolError::LengthLine) } else { Ok(false) };
        }
        if first != b'$' {
            return Err(ProtocolError::Dollar(first));
        }
        let Line::Number(len, next) = line else { return Err(ProtocolError::Length) };
        if len < 0 || len as usize > self.limits.bulk_bytes_max {
            return Err(ProtocolError::Length);
        }
        if len as usize > limits::UNAUTHENTICATED_BULK_BYTES_MAX && !self.limits.trusted {
            return Err(ProtocolError::LengthUntrusted);
        }
        self.at = next;
        self.state = State::Body(left, len as u32);
        Ok(true)
    }

    #[inline]
    fn body(&mut self, input: &[u8], left: u32, len: usize) -> bool {
        if input.len() < self.at + len + 2 || self.at + len > u32::MAX as usize {
            return false;
        }
        self.ranges.push(Arg { at: self.at as u32, len: len as u32 });
        self.at += len + 2;
        self.state = State::Arguments(left - 1);
        true
    }

    #[cold]
    fn inline(&mut self, input: &[u8]) -> Result<Progress, ProtocolError> {
        let first = input[0];
        if first == TLS_HANDSHAKE {
            return Err(ProtocolError::Tls);
        }
        if !first.is_ascii_graphic() && !is_space(first) && first != 0 {
            return Err(ProtocolError::Binary);
        }
        // As for C, a NUL hides the end of line behind it: such a line never ends.
        let stop = input[self.at..].iter().position(|&b| b == b'\n' || b == 0).map_or(input.len(), |n| self.at + n);
        self.at = stop;
        let endless = input.len() > limits::INLINE_BYTES_MAX && input.get(stop) != Some(&b'\n');
        if stop > INLINE_BYTES_MAX || endless {
            return Err(ProtocolError::Inline);
        }
        if input.get(stop) != Some(&b'\n') {
            return self.incomplete(input);
        }
        let end = stop;
        self.inline = true;
        self.unquoted.clear();
        self.ranges.clear();
        self.split_quoted(&input[..end]).ok_or(ProtocolError::Quotes)?;
        Ok(self.complete(end + 1))
    }

    /// Redis's `sdssplitargs`: words, "…" with escapes, '…' with \' only; a closing quote ends its argument.
    fn split_quoted(&mut self, line: &[u8]) -> Option<()> {
        let mut rest = line;
        loop {
            rest = rest.trim_ascii_start();
            while let [0x0b, tail @ ..] = rest {
                rest = tail.trim_ascii_start();
            }
            if rest.is_empty() {
                return Some(());
            }
            let start = self.unquoted.len();
            rest = self.unquote(rest)?;
            self.ranges.push(Arg { at: start as u32, len: (self.unquoted.len() - start) as u32 });
        }
    }

    /// Appends one argument and gives what follows it; None when a quote is not closed or not followed by a space.
    fn unquote<'a>(&mut self, mut rest: &'a [u8]) -> Option<&'a [u8]> {
        let out = &mut self.unquoted;
        loop {
            rest = match rest {
                [] => return Some(rest),
                [b, tail @ ..] if is_word_end(*b) => return Some(tail),
                [b'"', tail @ ..] => return closed(double_quoted(tail, out)?),
                [b'\'', tail @ ..] => return closed(single_quoted(tail, out)?),
                [b, tail @ ..] => {
                    out.push(*b);
                    tail
                }
            }
        }
    }
}

/// The words of a line with quotes, as an inline request has them; None when a quote is not closed.
pub fn split_words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut decoder = Decoder::default();
    decoder.split_quoted(line)?;
    Some(Request { source: &decoder.unquoted, ranges: &decoder.ranges }.iter().map(<[u8]>::to_vec).collect())
}

fn is_space(b: u8) -> bool {
    b.is_ascii_whitespace() || b == 0x0b
}

fn is_word_end(b: u8) -> bool {
    matches!(b, b' ' | b'\n' | b'\r' | b'\t')
}

/// What follows a closing quote: nothing, or a space.
fn closed(rest: &[u8]) -> Option<&[u8]> {
    match rest {
        [] => Some(rest),
        [b, tail @ ..] if is_space(*b) => Some(tail),
        _ => None,
    }
}

fn double_quoted<'a>(mut rest: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [] => return None,
            [b'"', tail @ ..] => return Some(tail),
            [b'\\', b'x', high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(hex(*high) << 4 | hex(*low));
                tail
            }
            [b'\\', b, tail @ ..] => {
                out.push(match b {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                tail
            }
            [b, tail @ ..] => {
                out.push(*b);
                tail
            }
        }
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [] => return None,
            [b'\'', tail @ ..] => return Some(tail),
            [b'\\', b'\'', tail @ ..] => {
                out.push(b'\'');
                tail
            }
            [b, tail @ ..] => {
                out.push(*b);
                tail
            }
        }
    }
}

fn hex(digit: u8) -> u8 {
    (digit as char).to_digit(16).unwrap_or(0) as u8
}

/// The number on the line that begins at `from`, after its type byte. The line ends with CR and any byte.
#[inline(always)]
fn number_line(input: &[u8], from: usize) -> Line {
    // One and two digits are nearly all there is.
    match input.get(from..) {
        Some(&[a @ b'0'..=b'9', b'\r', _, ..]) => Line::Number((a - b'0') as i64, from + 3),
        Some(&[a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', _, ..]) => {
            Line::Number((a - b'0') as i64 * 10 + (b - b'0') as i64, from + 4)
        }
        rest => long_number_line(rest.unwrap_or_default(), from),
    }
}

fn long_number_line(rest: &[u8], from: usize) -> Line {
    let window = &rest[..rest.len().min(LINE_BYTES_MAX + 1)];
    let Some(end) = window.iter().position(|&b| b == b'\r') else { return Line::Incomplete };
    if end + 1 >= rest.len() {
        return Line::Incomplete;
    }
    match parse_int(&rest[..end]) {
        Some(number) => Line::Number(number, from + end + 2),
        None => Line::NotANumber,
    }
}

/// The arguments of one request, in place.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    source: &'a [u8],
    ranges: &'a [Arg],
}

impl<'a> Request<'a> {
    pub fn new(source: &'a [u8], args: &'a [Arg]) -> Self {
        Request { source, ranges: args }
    }
    #[inline]
    pub fn len(self) -> usize {
        self.ranges.len()
    }
    pub fn is_empty(self) -> bool {
        self.ranges.is_empty()
    }
    /// The bytes that the arguments point into: the connection's buffer, or the unquoted line.
    pub fn source(self) -> &'a [u8] {
        self.source
    }
    pub fn args(self) -> &'a [Arg] {
        self.ranges
    }
    /// The argument at `i`; empty past the end.
    #[inline]
    pub fn arg(self, i: usize) -> &'a [u8] {
        self.ranges.get(i).map_or(&[], |r| &self.source[r.at as usize..r.at as usize + r.len as usize])
    }
    pub fn iter(self) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + 'a {
        self.ranges.iter().map(move |r| &self.source[r.at as usize..r.at as usize + r.len as usize])
    }
    /// The request without its first `n` arguments (`LOOK.AT 5 GET k` holds `GET k`).
    pub fn skip(self, n: usize) -> Request<'a> {
        Request { source: self.source, ranges: self.ranges.get(n..).unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All requests of `input`, or the error after them.
    fn decode(input: &[u8], limits: Limits) -> (Vec<Vec<Vec<u8>>>, Option<String>) {
        let mut decoder = Decoder::new(limits);
        let (mut at, mut out) = (0, Vec::new());
        loop {
            match decoder.next(&input[at..]) {
                Ok(Progress::Complete(len)) => {
                    let request = decoder.request(&input[at..]);
                    out.push(request.iter().map(<[u8]>::to_vec).collect());
                    at += len;
                }
                Ok(Progress::Incomplete(_)) => return (out, None),
                Err(e) => return (out, Some(e.to_string())),
            }
        }
    }

    /// The same, the bytes arriving in two parts.
    fn decode_split(input: &[u8], at: usize) -> (Vec<Vec<Vec<u8>>>, Option<String>) {
        let mut decoder = Decoder::default();
        let (mut start, mut out) = (0, Vec::new());
        for end in [at, input.len()] {
            loop {
                match decoder.next(&input[start..end]) {
                    Ok(Progress::Complete(len)) => {
                        out.push(decoder.request(&input[start..end]).iter().map(<[u8]>::to_vec).collect());
                        start += len;
                    }
                    Ok(Progress::Incomplete(_)) => break,
                    Err(e) => return (out, Some(e.to_string())),
                }
            }
        }
        (out, None)
    }

    fn words(input: &[u8]) -> Vec<Vec<Vec<u8>>> {
        let (requests, error) = decode(input, Limits::default());
        assert_eq!(error, None);
        requests
    }

    fn error(input: &[u8]) -> String {
        decode(input, Limits::default()).1.unwrap_or_default()
    }

    #[test]
    fn multibulk_requests_follow_each_other() {
        let got = words(b"*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$0\r\n\r\n*0\r\n*-1\r\n*1\r\n$12\r\nabcdefghijkl\r\n");
        assert_eq!(
            got,
            [vec![b"PING".to_vec()], vec![b"GET".to_vec(), vec![]], vec![], vec![], vec![b"abcdefghijkl".to_vec()]]
        );
    }

    #[test]
    fn inline_requests_are_split_as_redis_splits_them() {
        for (line, want) in [
            ("PING\r\n", vec!["PING"]),
            ("PING\n", vec!["PING"]),
            ("\r\n", vec![]),
            ("  set  k   v \r\n", vec!["set", "k", "v"]),
            ("set k \"a b\\n\\x41\\\"\"\r\n", vec!["set", "k", "a b\nA\""]),
            ("set k 'a\\'b\\n'\r\n", vec!["set", "k", "a'b\\n"]),
            ("set k pre\"fix ed\"\r\n", vec!["set", "k", "prefix ed"]),
            ("set k \"\" ''\r\n", vec!["set", "k", "", ""]),
            ("set \"\\xzz\"\r\n", vec!["set", "xzz"]),
        ] {
            assert_eq!(
                words(line.as_bytes())[0],
                want.iter().map(|w| w.as_bytes().to_vec()).collect::<Vec<_>>(),
                "{line:?}"
            );
        }
    }

    #[test]
    fn malformed_requests_are_answered_with_redis_texts() {
        let long_line = [b"*".as_slice(), &vec![b'1'; LINE_BYTES_MAX + 1]].concat();
        let long_length = [b"*1\r\n$".as_slice(), &vec![b'1'; LINE_BYTES_MAX + 1]].concat();
        for (input, text) in [
            (b"*x\r\n".as_slice(), "invalid multibulk length"),
            (b"*1048577\r\n", "invalid multibulk length"),
            (b"*9223372036854775808\r\n", "invalid multibulk length"),
            (b"*+1\r\n", "invalid multibulk length"),
            (b"*\r\n", "invalid multibulk length"),
            (b"*1\r\nPING\r\n", "expected '$', got 'P'"),
            (b"*1\r\n*1\r\n", "expected '$', got '*'"),
            (b"*1\r\n$-1\r\n", "invalid bulk length"),
            (b"*1\r\n$-2\r\n", "invalid bulk length"),
            (b"*1\r\n$2147483648\r\n", "invalid bulk length"),
            (b"*1\r\n$9223372036854775808\r\n", "invalid bulk length"),
            (b"*1\r\n$536870913\r\n", "invalid bulk length"),
            (b"*1\r\n$x\r\n", "invalid bulk length"),
            (b"*1\r\n$\r\n", "invalid bulk length"),
            (b"set k \"a\r\n", "unbalanced quotes in request"),
            (b"set k \"a\"b\r\n", "unbalanced quotes in request"),
            (b"set k 'a\r\n", "unbalanced quotes in request"),
            (&vec![b'a'; INLINE_BYTES_MAX + 1], "too big inline request"),
            (&long_line, "too big mbulk count string"),
            (&long_length, "too big bulk count string"),
            (b"\x16\x03\x01", "this looks like TLS, and this port is not; use the server's tls-port"),
            (b"\x01\x03\x01", "expected '*' or an inline command"),
        ] {
            assert_eq!(error(input), format!("ERR Protocol error: {text}"), "{:?}", String::from_utf8_lossy(input));
        }
    }

    /// Redis finds the end of an inline request with `strchr`.
    #[test]
    fn an_inline_request_with_a_nul_waits_until_it_is_too_long() {
        assert_eq!(decode(b"GET\0x\r\nPING\r\n", Limits::default()), (vec![], None));
        let long = [b"GET\0x\r\n".as_slice(), &vec![b'a'; INLINE_BYTES_MAX]].concat();
        assert_eq!(error(&long), "ERR Protocol error: too big inline request");
    }

    #[test]
    fn strangers_may_send_little() {
        let limits = Limits { trusted: false, ..Limits::default() };
        let text = |input: &[u8]| decode(input, limits).1;
        assert_eq!(text(b"*10\r\n$16384\r\n"), None);
        assert_eq!(text(b"*11\r\n").as_deref(), Some("ERR Protocol error: unauthenticated multibulk length"));
        assert_eq!(text(b"*1\r\n$16385\r\n").as_deref(), Some("ERR Protocol error: unauthenticated bulk length"));
    }

    #[test]
    fn a_request_past_the_limit_is_refused_when_it_is_announced() {
        let limits = Limits { request_bytes_max: 1000, ..Limits::default() };
        assert_eq!(decode(b"*1\r\n$900\r\n", limits).1, None);
        assert_eq!(
            decode(b"*1\r\n$1000\r\n", limits).1.as_deref(),
            Some(ProtocolError::RequestBytes.to_string().as_str())
        );
    }

    #[test]
    fn announced_lengths_allocate_nothing() {
        let limits = Limits { request_bytes_max: 1 << 30, ..Limits::default() };
        let mut decoder = Decoder { limits, ..Decoder::default() };
        assert_eq!(decoder.next(b"*1048576\r\n$536870912\r\n"), Ok(Progress::Incomplete(22 + 536870912 + 2)));
        assert_eq!(decoder.ranges.capacity(), 0);
    }

    #[test]
    fn a_pipeline_split_at_every_byte_decodes_the_same() {
        let input = b"*3\r\n$3\r\nSET\r\n$10\r\nkey:000001\r\n$5\r\nvalue\r\nPING  'a b'\r\n\r\n*0\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n$x\r\n";
        let whole = decode(input, Limits::default());
        assert_eq!(whole.0.len(), 5);
        assert!(whole.1.is_some());
        for at in 0..=input.len() {
            assert_eq!(decode_split(input, at), whole, "split at {at}");
        }
    }

    proptest! {
        #[test]
        fn what_a_client_encodes_is_decoded(requests in proptest::collection::vec(
            proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..6), 1..6), cut: proptest::sample::Index) {
            let mut input = Vec::new();
            for request in &requests {
                input.extend_from_slice(format!("*{}\r\n", request.len()).as_bytes());
                for arg in request {
                    input.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
                    input.extend_from_slice(arg);
                    input.extend_from_slice(b"\r\n");
                }
            }
            let (got, error) = decode_split(&input, cut.index(input.len() + 1));
            prop_assert_eq!(error, None);
            prop_assert_eq!(got, requests);
        }

        #[test]
        fn no_bytes_make_it_panic(input in proptest::collection::vec(
            prop_oneof![Just(b'*'), Just(b'$'), Just(b'\r'), Just(b'\n'), Just(b'1'), Just(b'"'), any::<u8>()], 0..64), cut: proptest::sample::Index) {
            let whole = decode(&input, Limits::default());
            prop_assert_eq!(decode_split(&input, cut.index(input.len() + 1)), whole);
        }
    }
}
