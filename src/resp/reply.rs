//! The reply encoder: values in, RESP2 or RESP3 bytes out, appended to one buffer a chunk.
//!
//! The protocol's version is a property of the buffer, so that a handler says what it means (a map, a double,
//! nil) and the buffer says it in the client's dialect. A *null* buffer writes nothing: nodes that are not the
//! chunk's gateway run the same handlers without paying for replies.

use super::number::{self, INT_TEXT_MAX};

/// The client's dialect.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Version {
    #[default]
    Resp2,
    Resp3,
}

/// Where replies are written. Methods append exactly one value, except the headers ([`ReplyBuf::array`], …),
/// which the given number of values must follow.
#[derive(Debug, Default)]
pub struct ReplyBuf {
    bytes: Vec<u8>,
    version: Version,
    null: bool,
    errors: u32,
    /// Codes of errors not yet taken by [`ReplyBuf::take_errors`].
    codes: Vec<String>,
}

/// An aggregate whose count was not known when it began; see [`ReplyBuf::open`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Mark(usize);

/// Error codes that are kept of one buffer.
const CODES_MAX: usize = 1024;

/// Room for the header of an aggregate of unknown count: a type byte, ten digits, CR LF.
const GAP: usize = 13;

impl Mark {
    /// The mark as a plain number, for those who can only keep words.
    pub fn to_word(self) -> u64 {
        self.0 as u64
    }
    /// The mark that [`Mark::to_word`] gave.
    pub fn from_word(word: u64) -> Mark {
        Mark(word as usize)
    }
}

impl ReplyBuf {
    pub fn new(version: Version) -> Self {
        ReplyBuf { version, ..ReplyBuf::default() }
    }
    /// On top of `bytes` that were written before (a recycled, or a half-filled buffer).
    pub fn with_bytes(version: Version, bytes: Vec<u8>) -> Self {
        ReplyBuf { bytes, version, ..ReplyBuf::default() }
    }
    /// A sink that swallows everything.
    pub fn null() -> Self {
        ReplyBuf { null: true, ..ReplyBuf::default() }
    }
    pub fn is_null(&self) -> bool {
        self.null
    }
    /// Turns the sink on or off: `CLIENT REPLY OFF` swallows what comes.
    pub fn set_null(&mut self, null: bool) {
        self.null = null;
    }
    pub fn version(&self) -> Version {
        self.version
    }
    pub fn set_version(&mut self, version: Version) {
        self.version = version;
    }
    #[inline]
    fn resp3(&self) -> bool {
        self.version == Version::Resp3
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
    /// Takes what was written and leaves an empty buffer of the same dialect.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.errors = 0;
    }
    /// Bytes so far. A call that fails rolls its half-written reply back to the length at its start.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
    /// Forgets everything after `len`.
    pub fn rollback(&mut self, len: usize) {
        self.bytes.truncate(len);
    }
    pub fn reserve(&mut self, bytes: usize) {
        if !self.null {
            self.bytes.reserve(bytes);
        }
    }
    /// Error replies written so far (also those rolled back): for statistics.
    pub fn errors(&self) -> u32 {
        self.errors
    }
    /// The codes (`ERR`, `WRONGTYPE`) of the errors written since the last time; of many, the first ones.
    pub fn take_errors(&mut self) -> Vec<String> {
        std::mem::take(&mut self.codes)
    }
    /// Appends bytes that are RESP already (a stored reply).
    pub fn raw(&mut self, bytes: &[u8]) {
        if !self.null {
            self.bytes.extend_from_slice(bytes);
        }
    }

    #[inline]
    pub fn ok(&mut self) {
        self.raw(b"+OK\r\n");
    }

    /// `+text`: CR and LF become spaces.
    pub fn simple(&mut self, text: &[u8]) {
        self.line(b'+', text);
    }

    /// `-text`: the text begins with its code (`ERR …`, `WRONGTYPE …`). CR and LF become spaces, so that no text
    /// that a user brought in can begin a reply of its own (CVE-2025-67733); at the end they are cut off.
    pub fn error(&mut self, text: impl AsRef<[u8]>) {
        self.errors += 1;
        let text = text.as_ref();
        if self.codes.len() < CODES_MAX && !self.null {
            let code = text.split(|&b| b == b' ').next().unwrap_or_default();
            self.codes.push(String::from_utf8_lossy(&code[..code.len().min(64)]).into_owned());
        }
        let end = text.iter().rposition(|&b| b != b'\r' && b != b'\n').map_or(0, |last| last + 1);
        self.line(b'-', &text[..end]);
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        if self.null {
            return;
        }
        self.bytes.reserve(text.len() + 3);
        self.bytes.push(kind);
        self.bytes.extend(text.iter().map(|&b| if b == b'\r' || b == b'\n' { b' ' } else { b }));
        self.bytes.extend_from_slice(b"\r\n");
    }

    #[inline]
    pub fn int(&mut self, value: i64) {
        self.header(b':', value);
    }

    #[inline]
    pub fn bulk(&mut self, value: &[u8]) {
        if self.null {
            return;
        }
        self.bytes.reserve(value.len() + INT_TEXT_MAX + 5);
        self.header(b'$', value.len() as i64);
        self.bytes.extend_from_slice(value);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// A bulk string made of pieces (ropes) that are `len` bytes together: write exactly `len` with [`ReplyBuf::raw`],
    /// then call [`ReplyBuf::bulk_end`].
    pub fn bulk_begin(&mut self, len: usize) {
        self.reserve(len + INT_TEXT_MAX + 5);
        self.header(b'$', len as i64);
    }
    pub fn bulk_end(&mut self) {
        self.raw(b"\r\n");
    }

    /// The decimal text of an integer, as a bulk string (a string value that is stored as an integer).
    pub fn bulk_int(&mut self, value: i64) {
        let mut text = [0u8; INT_TEXT_MAX];
        let at = number::int_text(&mut text, value);
        self.bulk(&text[at..]);
    }

    /// No value: RESP2's null bulk, RESP3's null.
    #[inline]
    pub fn nil(&mut self) {
        let nil: &[u8] = if self.resp3() { b"_\r\n" } else { b"$-1\r\n" };
        self.raw(nil);
    }
    /// No list: RESP2's null array, RESP3's null.
    pub fn nil_array(&mut self) {
        let nil: &[u8] = if self.resp3() { b"_\r\n" } else { b"*-1\r\n" };
        self.raw(nil);
    }

    /// RESP3 `#t`/`#f`, RESP2 1/0.
    pub fn bool(&mut self, value: bool) {
        let text: &[u8] = match (self.resp3(), value) {
            (true, true) => b"#t\r\n",
            (true, false) => b"#f\r\n",
            (false, true) => b":1\r\n",
            (false, false) => b":0\r\n",
        };
        self.raw(text);
    }

    /// RESP3 `,x`, RESP2 a bulk string; the digits of [`number::write_double`].
    pub fn double(&mut self, value: f64) {
        if self.null {
            return;
        }
        if self.resp3() {
            self.bytes.push(b',');
            number::write_double(&mut self.bytes, value);
            self.bytes.extend_from_slice(b"\r\n");
        } else {
            let mut text = Vec::with_capacity(32);
            number::write_double(&mut text, value);
            self.bulk(&text);
        }
    }

    /// RESP3 `(digits`, RESP2 a bulk string.
    pub fn big_number(&mut self, digits: &[u8]) {
        if self.resp3() { self.line(b'(', digits) } else { self.bulk(digits) }
    }

    /// RESP3 `=len` with a format of three letters (`txt`, `mkd`), RESP2 a bulk string.
    pub fn verbatim(&mut self, format: &[u8; 3], text: &[u8]) {
        if !self.resp3() {
            return self.bulk(text);
        }
        self.header(b'=', text.len() as i64 + 4);
        self.raw(format);
        self.raw(b":");
        self.raw(text);
        self.raw(b"\r\n");
    }

    /// Header of an array: `count` values follow.
    #[inline]
    pub fn array(&mut self, count: usize) {
        self.header(b'*', count as i64);
    }
    /// Header of a map: `pairs` times a key and a value follow. RESP2: an array of twice as many.
    pub fn map(&mut self, pairs: usize) {
        if self.resp3() { self.header(b'%', pairs as i64) } else { self.header(b'*', pairs as i64 * 2) }
    }
    /// Header of a set: `count` values follow. RESP2: an array.
    pub fn set(&mut self, count: usize) {
        self.header(if self.resp3() { b'~' } else { b'*' }, count as i64);
    }
    /// Header of an out-of-band message. RESP2: an array.
    pub fn push(&mut self, count: usize) {
        self.header(if self.resp3() { b'>' } else { b'*' }, count as i64);
    }
    /// Header of a list of pairs: RESP3 an array of arrays of two, RESP2 flat. Each pair begins with [`ReplyBuf::pair`].
    pub fn pairs(&mut self, pairs: usize) {
        self.array(if self.resp3() { pairs } else { pairs * 2 });
    }
    /// Begins one pair of [`ReplyBuf::pairs`].
    pub fn pair(&mut self) {
        if self.resp3() {
            self.array(2);
        }
    }

    /// Begins an aggregate whose count is not known yet. Leaves a gap for its header; [`ReplyBuf::close`] fills it.
    pub fn open(&mut self) -> Mark {
        let mark = Mark(self.bytes.len());
        self.raw(&[0; GAP]);
        mark
    }
    /// Closes an array of `count` values; inner aggregates first.
    pub fn close(&mut self, mark: Mark, count: usize) {
        self.close_as(mark, b'*', count);
    }
    /// Closes a set of `count` values.
    pub fn close_set(&mut self, mark: Mark, count: usize) {
        let kind = if self.resp3() { b'~' } else { b'*' };
        self.close_as(mark, kind, count);
    }
    /// Closes a map of `pairs` keys and values.
    pub fn close_map(&mut self, mark: Mark, pairs: usize) {
        let (kind, count) = if self.resp3() { (b'%', pairs) } else { (b'*', pairs * 2) };
        self.close_as(mark, kind, count);
    }

    fn close_as(&mut self, Mark(at): Mark, kind: u8, count: usize) {
        if self.null {
            return;
        }
        let mut text = [0u8; INT_TEXT_MAX];
        let from = number::int_text(&mut text, count as i64);
        let digits = &text[from..];
        assert!(
            digits.len() + 3 <= GAP && at + GAP <= self.bytes.len(),
            "an aggregate is closed once, by its own mark"
        );
        let end = at + 3 + digits.len();
        self.bytes[at] = kind;
        self.bytes[at + 1..end - 2].copy_from_slice(digits);
        self.bytes[end - 2..end].copy_from_slice(b"\r\n");
        // One move of what followed, at memory speed: aggregates of unknown count are rare and mostly small.
        let total = self.bytes.len();
        self.bytes.copy_within(at + GAP.., end);
        self.bytes.truncate(total - (at + GAP - end));
    }

    #[inline]
    fn header(&mut self, kind: u8, value: i64) {
        if self.null {
            return;
        }
        if (0..10).contains(&value) {
            self.bytes.extend_from_slice(&[kind, b'0' + value as u8, b'\r', b'\n']);
            return;
        }
        let mut line = [0u8; INT_TEXT_MAX + 3];
        let mut text = [0u8; INT_TEXT_MAX];
        let at = number::int_text(&mut text, value);
        let digits = INT_TEXT_MAX - at;
        line[0] = kind;
        line[1..=digits].copy_from_slice(&text[at..]);
        line[digits + 1] = b'\r';
        line[digits + 2] = b'\n';
        self.bytes.extend_from_slice(&line[..digits + 3]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(write: impl Fn(&mut ReplyBuf)) -> (String, String) {
        let text = |version| {
            let mut out = ReplyBuf::new(version);
            write(&mut out);
            String::from_utf8(out.into_bytes()).unwrap()
        };
        (text(Version::Resp2), text(Version::Resp3))
    }

    fn same(write: impl Fn(&mut ReplyBuf)) -> String {
        let (two, three) = both(write);
        assert_eq!(two, three);
        two
    }

    #[test]
    fn values_are_written_in_the_dialect_of_the_buffer() {
        assert_eq!(same(|r| r.ok()), "+OK\r\n");
        assert_eq!(same(|r| r.int(-12)), ":-12\r\n");
        assert_eq!(same(|r| r.int(i64::MIN)), ":-9223372036854775808\r\n");
        assert_eq!(same(|r| r.bulk(b"")), "$0\r\n\r\n");
        assert_eq!(same(|r| r.bulk(b"hello world")), "$11\r\nhello world\r\n");
        assert_eq!(same(|r| r.bulk_int(1234)), "$4\r\n1234\r\n");
        assert_eq!(both(|r| r.nil()), ("$-1\r\n".into(), "_\r\n".into()));
        assert_eq!(both(|r| r.nil_array()), ("*-1\r\n".into(), "_\r\n".into()));
        assert_eq!(both(|r| r.bool(true)), (":1\r\n".into(), "#t\r\n".into()));
        assert_eq!(both(|r| r.double(2.5)), ("$3\r\n2.5\r\n".into(), ",2.5\r\n".into()));
        assert_eq!(both(|r| r.map(2)), ("*4\r\n".into(), "%2\r\n".into()));
        assert_eq!(both(|r| r.set(12)), ("*12\r\n".into(), "~12\r\n".into()));
        assert_eq!(both(|r| r.big_number(b"123")), ("$3\r\n123\r\n".into(), "(123\r\n".into()));
        assert_eq!(both(|r| r.verbatim(b"txt", b"hi")), ("$2\r\nhi\r\n".into(), "=6\r\ntxt:hi\r\n".into()));
        let pairs = |r: &mut ReplyBuf| {
            r.pairs(1);
            r.pair();
            r.bulk(b"a");
            r.double(1.0);
        };
        assert_eq!(both(pairs), ("*2\r\n$1\r\na\r\n$1\r\n1\r\n".into(), "*1\r\n*2\r\n$1\r\na\r\n,1\r\n".into()));
    }

    #[test]
    fn no_text_can_begin_a_reply_of_its_own() {
        assert_eq!(same(|r| r.error("ERR a\r\n+OK\r\n")), "-ERR a  +OK\r\n");
        assert_eq!(same(|r| r.simple(b"a\nb")), "+a b\r\n");
        assert_eq!(same(|r| r.error("\r\n")), "-\r\n");
    }

    #[test]
    fn aggregates_of_unknown_count_equal_those_of_known_count() {
        for count in [0usize, 1, 9, 10, 99, 100, 12345] {
            let known = same(|r| {
                r.array(1);
                r.array(count);
                (0..count).for_each(|i| r.int(i as i64));
                r.ok();
            });
            let unknown = same(|r| {
                let outer = r.open();
                let inner = r.open();
                (0..count).for_each(|i| r.int(i as i64));
                r.close(inner, count);
                r.close(outer, 1);
                r.ok();
            });
            assert_eq!(known, unknown);
        }
    }

    #[test]
    fn a_null_buffer_stays_empty() {
        let mut out = ReplyBuf::null();
        let mark = out.open();
        out.bulk(b"x");
        out.double(1.5);
        out.verbatim(b"txt", b"x");
        out.error("ERR x");
        out.close(mark, 3);
        assert!(out.is_empty());
        assert_eq!(out.errors(), 1);
    }

    #[test]
    fn rollback_takes_a_half_written_reply_back() {
        let mut out = ReplyBuf::default();
        out.ok();
        let start = out.len();
        out.array(3);
        out.bulk(b"one");
        out.rollback(start);
        out.error("ERR no");
        assert_eq!(out.as_bytes(), b"+OK\r\n-ERR no\r\n");
    }
}
