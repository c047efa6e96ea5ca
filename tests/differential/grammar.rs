//! Random requests from templates. A template is a line of words:
//!
//! ```text
//! SET s v [EX rel|PX relms] [NX|XX] [GET]      [..|..] perhaps one of these, (..|..) one of these
//! MSET (k v)+                                  + one to three times, * up to 200 times
//! ```
//!
//! Upper-case words stand for themselves, lower-case words for a random argument of that kind (`argument`).
//! Keys are few and each prefers a type, so that commands meet each other's results and each other's types.

use crate::common::Random;

/// Keys by the type they mostly hold. The last of each has bytes that only a binary-safe server survives.
const STRINGS: &[&[u8]] = &[b"s0", b"s1", b"s\r\n\x00\xff"];
const FLOATS: &[&[u8]] = &[b"f0", b"f1"];
const LISTS: &[&[u8]] = &[b"l0", b"l0", b"l\x00\n"];
const HASHES: &[&[u8]] = &[b"h0", b"h0", b"h\r\n"];
const SETS: &[&[u8]] = &[b"t0", b"t0", b"t\xff\xfe"];
const ZSETS: &[&[u8]] = &[b"z0", b"z0", b"z\r\r\n"];
const ANY: &[&[u8]] = &[
    b"s0",
    b"s1",
    b"s\r\n\x00\xff",
    b"f0",
    b"l0",
    b"l\x00\n",
    b"h0",
    b"h\r\n",
    b"t0",
    b"t\xff\xfe",
    b"z0",
    b"z\r\r\n",
    b"none",
    b"",
    b"long:................................................................................................................................",
];

const VALUES: &[&[u8]] = &[
    b"",
    b"a",
    b"ohmytext",
    b"mynewtext",
    b"10",
    b"-5",
    b"0",
    b"3.14",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"9223372036854775808",
    b" 5",
    b"5 ",
    b"+5",
    b"-0",
    b"007",
    b"0x10",
    b"1e3",
    b"nan",
    b"inf",
    b"-inf",
    b"\x00\xff\x80\r\n",
    b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    b"\xff\xf0\x00",
    b"\x00\x00\x01",
    b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];
const MEMBERS: &[&[u8]] =
    &[b"a", b"b", b"c", b"d", b"aa", b"", b"1", b"2", b"-3", b"\xff", b"100000", b"\r\n\x00", b"-9223372036854775808"];
const INTEGERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "10",
    "100",
    "-100",
    "4611686018427387904",
    "9223372036854775807",
    "-9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "-9223372036854775809",
    "1.5",
    "abc",
    "",
    " 1",
    "1 ",
    "+1",
    "01",
    "1e2",
    "-0",
    "18446744073709551615",
    "18446744073709551616",
    "4294967296",
    "-2147483649",
    "00",
    "- 1",
    "0x1",
];
const INDEXES: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "-2",
    "3",
    "5",
    "-5",
    "100",
    "-100",
    "9223372036854775807",
    "-9223372036854775808",
    "x",
    "1.0",
    "-0",
    "-9223372036854775807",
    "9223372036854775808",
    "4294967296",
    "-4294967297",
];
const COUNTS: &[&str] = &["0", "1", "1", "2", "3", "10", "-1", "9223372036854775807", "-9223372036854775808", "x", ""];
const SCORES: &[&str] = &[
    "0",
    "1",
    "1",
    "2",
    "3",
    "-1",
    "1.5",
    "-2.5",
    "0.1",
    "3.3",
    "1e10",
    "1e-7",
    "123456789.125",
    "1e300",
    "inf",
    "-inf",
    "+inf",
    "nan",
    "-0",
    "x",
    "",
    "0x1p3",
    "9007199254740993",
    "12345678901234567890",
    "1e17",
    "1e21",
    "5e-324",
    "-5e-324",
    "1e308",
    "-1e308",
    "1.7976931348623157e308",
    "2.2250738585072014e-308",
    "1e309",
    "-1e400",
    "1e-400",
    "0e99999",
    "1e99999999999999999999",
    "0x1p-1074",
    "0x1p1024",
    "infinity",
    "-Infinity",
    "INF",
    "NaN",
    "-nan",
    "nan(1)",
    ".5",
    "5.",
    "-.5e1",
    ".",
    "1e",
    "1e+",
    "-0.0",
    " 1",
    "1 ",
    "+1",
    "--1",
    "1_0",
    "0.30000000000000004",
    "9007199254740992.5",
];
/// Sums of these are exact in decimal, in long double and in 17 digits alike.
const FLOAT_STEPS: &[&str] = &[
    "1",
    "0.1",
    "-0.5",
    "2.25",
    "3.75",
    "0.001",
    "-1",
    "5.0e3",
    "1.5e2",
    "x",
    "",
    "nan",
    "inf",
    "1e400",
    " 1",
    "-0",
    "1e17",
    "1e-17",
    "123456789012345678901234567890",
    "1e-5000",
    "1e4932",
    "-1e4932",
    "1e4933",
    "0x1p3",
    "0x1p-70",
    "1e-19",
    ".5",
    "5.",
    "1e",
    "-inf",
    "infinity",
    "+3",
];
const RANGES: &[&str] = &[
    "0", "1", "2", "3", "-1", "(1", "(0", "(2", "-inf", "+inf", "inf", "(1.5", "1.5", "x", "(x", "nan", "(", "1e400",
    "-1e400", "(inf", "(-inf", "(nan", " 1", "1 ", "( 1", "((1", "-0", "(-0", "0x1", "5e-324", "(5e-324", "1e-400",
    "+1", "infinity", "-(1", "",
];
const LEX: &[&str] = &[
    "-", "+", "[a", "(a", "[b", "(b", "[c", "[", "(", "[aa", "a", "", "--", "[\r\n", "(\r\n", "[\u{7f}", "+x", "-x",
    "(-", "[+",
];
const PATTERNS: &[&str] = &[
    "*", "s*", "?0", "[sl]0", "[^s]*", "[a-m]?", "h[0-1]", "\\*", "s[", "[]", "*[", "", "none", "**", "l\\0", "[z-a]1",
    "s\\",
];
const ENCODINGS: &[&str] = &[
    "u8", "i8", "u1", "i1", "u4", "i5", "u63", "u63", "i64", "i64", "i63", "i16", "u32", "u33", "u64", "i65", "u0",
    "i0", "x", "i", "8", "u08", "I8", "u-1", "i 8",
];
const BIT_INDEXES: &[&str] = &[
    "0",
    "1",
    "7",
    "8",
    "100",
    "#0",
    "#1",
    "#2",
    "-1",
    "x",
    "#-1",
    "1000",
    "4294967296",
    "#9223372036854775807",
    "9223372036854775807",
    "-9223372036854775808",
    "#4294967296",
    "#",
    "##1",
    "01",
    "+1",
    " 1",
];
const BIT_OFFSETS: &[&str] =
    &["0", "1", "7", "8", "9", "15", "63", "100", "3000", "-1", "4294967296", "9223372036854775807", "x", ""];
const DATABASES: &[&str] = &[
    "0",
    "0",
    "0",
    "1",
    "9",
    "15",
    "16",
    "-1",
    "x",
    "9223372036854775807",
    "-9223372036854775808",
    "01",
    "4294967296",
    "",
];
const TYPES: &[&str] = &["string", "list", "hash", "set", "zset", "stream", "STRING"];

/// Templates by family; a line written twice comes twice as often.
pub const FAMILIES: &[(usize, &str)] =
    &[(30, STRING), (14, BIT), (26, GENERIC), (9, LIST), (9, SET), (9, HASH), (15, ZSET), (8, SERVER)];

/// What comes on top in a heavy sequence: values of many pages, collections that split nodes.
const HEAVY: &str = "
    SET s v
    SET s v
    APPEND s v
    APPEND s v
    SETRANGE s so v
    SETRANGE s so v
    GETRANGE s n n
    GETRANGE s n n
    SETBIT s off bit
    GETBIT s off
    BITCOUNT s [n n [BYTE|BIT]]
    BITPOS s bit [n [n [BYTE|BIT]]]
    BITOP (AND|OR|XOR|NOT) s s
    BITOP (AND|OR|XOR) s s s
    BITFIELD s (GET enc bo|SET enc bo i|INCRBY enc bo i)+
    STRLEN s
    COPY s s REPLACE
    COPY k k REPLACE
    COPY k k DB (1|9) REPLACE
    RENAME k k
    DEL k
    MGET s+
    MSET (s v)+
    RPUSH l e+
    RPUSH l m*
    RPUSH l m*
    LPUSH l m*
    LRANGE l n n
    LRANGE l 0 -1
    LINDEX l n
    LPOP l (c|20|100)
    RPOP l (c|20|100)
    SADD t m*
    SADD t m*
    SREM t m*
    SMEMBERS t
    HSET h (m e)+
    HSET h (m m)*
    HSET h (m m)*
    HDEL h m*
    HGETALL h
    HGET h m
    HINCRBY h m i
    ZADD z (f m)*
    ZADD z [NX|XX] [GT|LT] [CH] (f m)*
    ZADD z (1 m)*
    ZREM z m*
    ZPOPMIN z (c|20|100)
    ZRANGE z n n [REV] [WITHSCORES]
    ZRANGE z zr zr BYSCORE [REV] [LIMIT n n] [WITHSCORES]
    ZRANK z m
    OBJECT ENCODING k
    EXPIRE k rel";

const STRING: &str = "
    APPEND s v
    APPEND s v
    DECR s
    DECRBY s i
    GET s
    GET s
    GET s
    GETDEL s
    GETEX s [EX rel|PX relms|EXAT at|PXAT atms|PERSIST|EX exp|PXAT exp]
    GETRANGE s n n
    GETRANGE s n n
    GETSET s v
    INCR s
    INCR s
    INCRBY s i
    INCRBYFLOAT g d
    INCRBYFLOAT g d
    INCRBYFLOAT k d
    SET g d
    LCS s s [LEN] [IDX] [MINMATCHLEN n] [WITHMATCHLEN]
    LCS s s
    MGET k+
    MGET (s|k)+
    MSET (s v)+
    MSET (k v)+ [k]
    MSETNX (s v)+
    MSETNX (k v)+ [k]
    PSETEX s relms v
    PSETEX s exp v
    SET s v [EX rel|PX relms|EXAT at|PXAT atms|KEEPTTL] [NX|XX] [GET]
    SET s v [EX rel|PX relms|EXAT at|PXAT atms|KEEPTTL] [NX|XX] [GET]
    SET s v
    SET s v
    SET k v
    SET s v [GET] [NX|XX] [KEEPTTL|EX exp|PX exp|EXAT exp|PXAT exp]
    SETEX s rel v
    SETEX s exp v
    SETNX s v
    SETRANGE s so v
    SETRANGE s so v
    STRLEN s
    SUBSTR s n n";

const BIT: &str = "
    SETBIT s off bit
    SETBIT s off bit
    GETBIT s off
    BITCOUNT s [n n [BYTE|BIT|x]]
    BITCOUNT s n n
    BITCOUNT s [n]
    BITPOS s bit [n [n [BYTE|BIT|x]]]
    BITPOS s bit
    BITOP (AND|OR|XOR|NOT|x) s s+
    BITOP (AND|OR|XOR) s k+
    BITOP NOT s s
    BITFIELD s (GET enc bo|SET enc bo i|INCRBY enc bo i|OVERFLOW (WRAP|SAT|FAIL|x))+
    BITFIELD s [OVERFLOW (WRAP|SAT|FAIL)] INCRBY enc bo i [GET enc bo]
    BITFIELD s
    BITFIELD_RO s (GET enc bo)+
    BITFIELD_RO s (GET enc bo|SET enc bo i)+";

const GENERIC: &str = "
    COPY k k [DB db] [REPLACE]
    COPY k k [REPLACE] [DB db]
    DEL k+
    UNLINK k+
    EXISTS k+
    EXPIRE k rel [NX|XX|GT|LT]
    EXPIRE k rel [NX|XX] [GT|LT]
    EXPIRE k exp [NX|XX|GT|LT|x]
    EXPIREAT k at [NX|XX|GT|LT]
    EXPIREAT k at
    EXPIREAT k (1|0|-1|1000000000|exp)
    PEXPIRE k relms [NX|XX|GT|LT]
    PEXPIREAT k atms [NX|XX|GT|LT]
    PEXPIREAT k exp [NX|XX|GT|LT]
    EXPIRETIME k
    PEXPIRETIME k
    TTL k
    TTL k
    PTTL k
    PERSIST k
    KEYS pat
    KEYS *
    DBSIZE
    RENAME k k
    RENAMENX k k
    RENAME s s
    TOUCH k+
    TYPE k
    TYPE k
    MOVE k db
    OBJECT ENCODING k
    OBJECT FREQ k
    OBJECT IDLETIME nokey
    OBJECT (HELP|x) [k]
    DUMP k
    RESTORE k (0|0|relms|-1|x) payload [REPLACE] [ABSTTL] [IDLETIME n|FREQ n]
    RESTORE k 0 payload REPLACE
    RESTORE k atms payload REPLACE ABSTTL
    SCAN (x|-1|0) (COUNT (0|x)|MATCH|TYPE)";

const LIST: &str = "
    LPUSH l e+
    RPUSH l e+
    RPUSH l m+
    RPUSH l m+
    LPOP l [c]
    RPOP l [c]
    LPOP k [c]
    LLEN l
    LLEN k
    LINDEX l n
    LRANGE l n n
    LRANGE l 0 -1";

const SET: &str = "
    SADD t m+
    SADD t m+
    SADD t (1|2|3|4|5)+
    SADD k m
    SREM t m+
    SISMEMBER t m
    SCARD t
    SCARD k
    SMEMBERS t
    SMEMBERS k";

const HASH: &str = "
    HSET h (m e)+
    HSET h (m e)+ [m]
    HSET k m e
    HGET h m
    HGET k m
    HDEL h m+
    HLEN h
    HGETALL h
    HINCRBY h m i
    HINCRBY h m (1|2|-3)";

const ZSET: &str = "
    ZADD z (f m)+
    ZADD z (f m)+
    ZADD z [NX|XX] [GT|LT] [CH] [INCR] (f m)+
    ZADD z [CH] [GT|LT] [NX|XX] [INCR] f m
    ZADD z INCR f m
    ZADD k f m
    ZADD z (0 m)+
    ZSCORE z m
    ZRANGE z n n [WITHSCORES]
    ZRANGE z n n [REV] [WITHSCORES]
    ZRANGE z 0 -1 WITHSCORES
    ZRANGE z zr zr BYSCORE [REV] [LIMIT n n] [WITHSCORES]
    ZRANGE z zr zr BYSCORE REV WITHSCORES
    ZRANGE z lex lex BYLEX [REV] [LIMIT n n]
    ZRANGE z n n [BYSCORE|BYLEX] [REV] [LIMIT n n] [WITHSCORES]
    ZRANK z m
    ZRANK k m
    ZREM z m+
    ZPOPMIN z [c]
    ZPOPMIN k";

const SERVER: &str = "
    PING [v]
    ECHO v
    SELECT db
    SELECT 0
    SELECT 0
    SWAPDB (0|1|9) (0|1|9|15)
    SWAPDB db db
    FLUSHDB [ASYNC|SYNC|x]
    FLUSHALL [ASYNC|SYNC|x]
    DBSIZE
    CLIENT GETNAME
    CLIENT SETNAME (m|x|name)
    CLIENT x
    CONFIG GET maxmemory-policy
    CONFIG (x|GET)
    COMMAND GETKEYS (SET s v|MSET s v s v|BITOP AND s s s|COPY s s|GET|x y|ZADD z f m|OBJECT ENCODING k)
    HELLO (2|3|4|x)
    NOSUCH v v
    DISCARD
    EXEC
    UNWATCH
    WATCH
    MEMORY USAGE nokey
    MEMORY x
    LOOK";

/// The data commands that the templates name.
pub fn commands() -> Vec<String> {
    let data = FAMILIES.iter().filter(|(_, lines)| *lines != SERVER).flat_map(|(_, lines)| lines.lines());
    let mut names: Vec<String> = data.filter_map(|l| l.split_ascii_whitespace().next()).map(String::from).collect();
    names.sort();
    names.dedup();
    names.retain(|name| !["OBJECT", "SCAN", "DBSIZE"].contains(&name.as_str()));
    names
}

/// Makes requests. Everything follows from the random generator.
pub struct Grammar<'a> {
    pub random: Random,
    /// RESTORE's payloads: made by the reference, some of them damaged.
    pub payloads: &'a [Vec<u8>],
    /// Deadlines lie this far past a fixed moment, so that no run of the test meets one.
    pub far_seconds: i64,
    /// Large values and large collections.
    pub heavy: bool,
}

impl Grammar<'_> {
    pub fn request(&mut self) -> Vec<Vec<u8>> {
        if self.heavy && self.random.chance(60) {
            return self.one_of(HEAVY);
        }
        let total: usize = FAMILIES.iter().map(|(weight, _)| weight).sum();
        let mut draw = self.random.below(total);
        let family = FAMILIES.iter().find(|(weight, _)| {
            let found = draw < *weight;
            draw = draw.saturating_sub(*weight);
            found
        });
        let mut args = self.one_of(family.map_or("PING", |(_, lines)| lines));
        self.spoil(&mut args);
        if args[0].eq_ignore_ascii_case(b"ZRANK") {
            args.truncate(3); // more are legal since 7.2
        }
        args
    }

    fn one_of(&mut self, family: &str) -> Vec<Vec<u8>> {
        let lines: Vec<&str> = family.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        let line = self.random.pick(&lines);
        // Its work is the product of two lengths.
        self.expand(if self.heavy && line.starts_with("LCS") { "LCS g g" } else { line })
    }

    /// One request of this template.
    pub fn expand(&mut self, template: &str) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let mut rest = template;
        self.words(&mut rest, &mut out, true);
        out
    }

    /// Words up to the end or to a `|` or closing bracket that belongs to a caller.
    fn words(&mut self, rest: &mut &str, out: &mut Vec<Vec<u8>>, live: bool) {
        loop {
            *rest = rest.trim_start();
            match rest.chars().next() {
                None | Some('|' | ']' | ')') => return,
                Some(_) => self.item(rest, out, live),
            }
        }
    }

    /// One word or bracket, repeated if a `+` follows.
    fn item(&mut self, rest: &mut &str, out: &mut Vec<Vec<u8>>, live: bool) {
        let start = *rest;
        self.once(rest, out, live);
        if let Some(after) = rest.strip_prefix(['+', '*']) {
            let more = if rest.starts_with('+') { 3 } else { 200 };
            for _ in 0..if live { self.random.below(more) } else { 0 } {
                let mut again = start;
                self.once(&mut again, out, live);
            }
            *rest = after;
        }
    }

    fn once(&mut self, rest: &mut &str, out: &mut Vec<Vec<u8>>, live: bool) {
        let open = rest.chars().next();
        if matches!(open, Some('(' | '[')) {
            let choices = alternatives(&rest[1..]);
            let taken =
                if open == Some('[') && self.random.chance(60) { usize::MAX } else { self.random.below(choices) };
            *rest = &rest[1..];
            for choice in 0..choices {
                self.words(rest, out, live && choice == taken);
                *rest = &rest[1..]; // the `|` or the closing bracket
            }
            return;
        }
        let end = rest.find([' ', '|', ']', ')', '+', '*']).filter(|at| *at > 0).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        *rest = after;
        if live {
            let argument = self.argument(word);
            out.push(argument);
        }
    }

    fn argument(&mut self, word: &str) -> Vec<u8> {
        match word {
            "s" => self.key(STRINGS),
            "f" => self.text(SCORES),
            "g" => self.key(FLOATS),
            "l" => self.key(LISTS),
            "h" => self.key(HASHES),
            "t" => self.key(SETS),
            "z" => self.key(ZSETS),
            "k" => self.random.pick(ANY).to_vec(),
            "v" => self.value(),
            "m" => self.member(),
            "e" => self.value(),
            "i" => self.integer(),
            "n" | "so" | "off" | "bo" if self.heavy && self.random.chance(50) => self.far(word),
            "n" => self.text(INDEXES),
            "c" => self.text(COUNTS),
            "d" => self.text(FLOAT_STEPS),
            "bit" => self.text(&["0", "1", "1", "0", "1", "2", "-1", "x"]),
            "off" => self.text(BIT_OFFSETS),
            "bo" => self.text(BIT_INDEXES),
            "so" => self.text(&["0", "1", "3", "5", "10", "100", "600", "-1", "536870912", "9223372036854775807", "x"]),
            "enc" => self.text(ENCODINGS),
            "zr" => self.text(RANGES),
            "lex" => self.text(LEX),
            "pat" => self.text(PATTERNS),
            "db" => self.text(DATABASES),
            "type" => self.text(TYPES),
            // Relative deadlines never repeat: GT and LT between two of them must not hang on a millisecond.
            "rel" => self.random.between(100_000, 1_000_000_000).to_string().into_bytes(),
            "relms" => self.random.between(100_000_000, 1_000_000_000_000).to_string().into_bytes(),
            "exp" => self.text(&[
                "0",
                "-1",
                "x",
                "",
                "9223372036854775807",
                "-9223372036854775808",
                "9223372036854776",
                "9223372036854775",
                "-9223372036854775",
                "-9223372036854776",
                "-9223372036854775807",
                "9223372036854775808",
                "1.5",
                " 9",
                "-0",
                "1e3",
            ]),
            "at" => (self.far_seconds + self.random.between(0, 5) * 100_000).to_string().into_bytes(),
            "atms" => ((self.far_seconds + self.random.between(0, 5) * 100_000) * 1000).to_string().into_bytes(),
            "payload" => self.random.pick(self.payloads).clone(),
            literal if self.random.chance(10) => literal.to_ascii_lowercase().into_bytes(),
            literal => literal.as_bytes().to_vec(),
        }
    }

    fn key(&mut self, preferred: &[&[u8]]) -> Vec<u8> {
        let from = if self.random.chance(90) { preferred } else { ANY };
        self.random.pick(from).to_vec()
    }

    fn value(&mut self) -> Vec<u8> {
        if self.heavy && self.random.chance(40) {
            return self.large(100_000);
        }
        match self.random.below(10) {
            0 => self.random.next().to_le_bytes().to_vec(),
            1 | 2 => self.random.between(-1000, 1000).to_string().into_bytes(),
            3 => vec![b'a' + self.random.below(3) as u8; self.random.below(200)],
            _ => self.random.pick(VALUES).to_vec(),
        }
    }

    fn member(&mut self) -> Vec<u8> {
        match self.random.below(100) {
            0..=1 if self.heavy => self.large(10_000),
            2..=79 if self.heavy => format!("member:{}", self.random.below(400)).into_bytes(),
            _ => self.random.pick(MEMBERS).to_vec(),
        }
    }

    /// Up to so many bytes, often of a length at which a page ends; one byte, a pattern, or noise.
    fn large(&mut self, longest: usize) -> Vec<u8> {
        let edge = *self.random.pick(&[1023, 1024, 4095, 4096, 4097, 8192, 16_384, 32_768, 65_535, 65_536, 65_537]);
        let len = if self.random.chance(50) { edge } else { self.random.below(longest) }.min(longest);
        match self.random.below(3) {
            0 => vec![*self.random.pick(b"\x00\xffa"); len],
            1 => (0..len).map(|i| (i / 7) as u8).collect(),
            _ => (0..len).map(|_| self.random.next() as u8).collect(),
        }
    }

    /// A place in a large value: an index, an offset of a byte or of a bit.
    fn far(&mut self, word: &str) -> Vec<u8> {
        let bits = i64::from(word == "off" || word == "bo");
        let place = self.random.between(0, 120_000 << (3 * bits));
        let back = word == "n" && self.random.chance(40);
        (if back { -place } else { place }).to_string().into_bytes()
    }

    fn integer(&mut self) -> Vec<u8> {
        if self.random.chance(60) { self.random.between(-20, 20).to_string().into_bytes() } else { self.text(INTEGERS) }
    }

    fn text(&mut self, from: &[&str]) -> Vec<u8> {
        self.random.pick(from).as_bytes().to_vec()
    }

    /// One request in twelve is damaged: wrong arity, wrong order, wrong words.
    fn spoil(&mut self, args: &mut Vec<Vec<u8>>) {
        if args.len() < 2 || !self.random.chance(8) {
            return;
        }
        let at = 1 + self.random.below(args.len() - 1);
        match self.random.below(5) {
            0 => drop(args.remove(at)),
            1 => args.truncate(at),
            2 => args.push(self.random.pick(MEMBERS).to_vec()),
            3 => args.insert(at, args[at].clone()),
            // A swap could make a deadline of some milliseconds, which one server meets and the other does not.
            _ if args
                .iter()
                .any(|a| matches!(a.to_ascii_uppercase().as_slice(), b"PX" | b"PSETEX" | b"PEXPIRE" | b"RESTORE")) => {}
            _ => {
                let other = 1 + self.random.below(args.len() - 1);
                args.swap(at, other);
            }
        }
    }
}

/// How many alternatives the bracket has that was just opened.
fn alternatives(inside: &str) -> usize {
    let mut depth = 0;
    let mut count = 1;
    for c in inside.chars() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' if depth == 0 => break,
            ')' | ']' => depth -= 1,
            '|' if depth == 0 => count += 1,
            _ => {}
        }
    }
    count
}
