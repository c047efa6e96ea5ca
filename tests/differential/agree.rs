//! When do two replies agree? Byte for byte, save where Redis itself promises no order or answers with the time,
//! and where Redis 7.2, which Look follows, differs from the 7.0 that Debian ships. Both tables are here.

use crate::common::Reply;

/// Replies that Redis gives in no promised order.
const UNORDERED: &[&str] = &["KEYS", "SMEMBERS", "HGETALL", "SPOP"];
/// Replies that depend on the moment: they may differ by this many units.
const TIMES: &[(&str, i64)] =
    &[("TTL", 5), ("PTTL", 5000), ("EXPIRETIME", 5), ("PEXPIRETIME", 5000), ("OBJECT IDLETIME", 5), ("LASTSAVE", 3600)];
/// Replies of which only the shape is compared; each has a test of its own.
const SHAPES: &[&str] = &["DUMP", "RANDOMKEY", "TIME", "MEMORY USAGE", "OBJECT FREQ", "HELLO", "COMMAND "];

/// Where 7.2 and 7.0 differ, 7.2 wins. `accepts` sees the request, what 7.0 said and what Look said.
pub struct Difference {
    pub command: &'static str,
    pub what: &'static str,
    pub accepts: fn(args: &[Vec<u8>], redis: &Reply, look: &Reply) -> bool,
}

pub const SINCE_7_0: &[Difference] = &[
    Difference {
        command: "OBJECT ENCODING",
        what: "7.2 keeps a short list or set in a listpack; 7.0 says quicklist and hashtable",
        accepts: |_, redis, look| {
            match (redis.bytes(), look.bytes()) {
                (Some(b"quicklist" | b"hashtable"), Some(b"listpack")) => true,
                // A set of integers that once held something else.
                (Some(b"hashtable"), Some(b"intset")) => true,
                // Redis remembers how a string was made; Look goes by what it holds.
                (Some(a), Some(b)) => {
                    [&b"raw"[..], b"embstr"].contains(&a) && [&b"raw"[..], b"embstr", b"int"].contains(&b)
                }
                _ => false,
            }
        },
    },
    Difference {
        command: "OBJECT HELP",
        what: "help texts differ from version to version",
        accepts: |_, redis, look| redis.items().len() == look.items().len(),
    },
    Difference {
        command: "BITCOUNT",
        what: "7.2 checks the arguments even if the key does not exist (redis #11734)",
        accepts: |_, redis, look| *redis == Reply::Int(0) && look.is_error(),
    },
    Difference {
        command: "BITPOS",
        what: "7.2 checks the arguments even if the key does not exist (redis #11734)",
        accepts: |_, redis, look| matches!(redis, Reply::Int(0 | -1)) && look.is_error(),
    },
    Difference {
        command: "DBSIZE",
        what: "Look removes expired keys with the next batch; Redis counts them until it comes across them",
        accepts: |_, redis, look| matches!((redis, look), (Reply::Int(a), Reply::Int(b)) if b <= a),
    },
    Difference { command: "ZSCORE", what: SHORTEST, accepts: |_, redis, look| scores(redis, look) },
    Difference { command: "ZADD", what: SHORTEST, accepts: |_, redis, look| scores(redis, look) },
    Difference { command: "ZRANGE", what: SHORTEST, accepts: |_, redis, look| scores(redis, look) },
    Difference { command: "ZPOPMIN", what: SHORTEST, accepts: |_, redis, look| scores(redis, look) },
];

/// Commands of which Redis looks at the key, or at a later argument, before it has checked all arguments. Look checks all
/// of them before the log, from left to right, so that a fault costs no epoch. Of a request with several faults it may
/// therefore name another one; `directed` holds each single fault to Redis's text.
const ARGUMENTS_FIRST: &[&str] = &[
    "BITCOUNT",
    "BITFIELD",
    "BITFIELD_RO",
    "BITPOS",
    "COPY",
    "EXPIRE",
    "EXPIREAT",
    "GETEX",
    "LCS",
    "LINDEX",
    "PEXPIRE",
    "PEXPIREAT",
    "RESTORE",
    "SCAN",
    "ZADD",
    "ZRANGE",
];

/// Both found a fault, or only Look did because the key that Redis looked at first does not exist.
fn arguments_first(name: &str, redis: &Reply, look: &Reply) -> bool {
    ARGUMENTS_FIRST.contains(&name) && look.is_error() && (redis.is_error() || redis.is_nil())
}

/// By member among elements of different scores: Redis says that the answer is unspecified.
fn unspecified(name: &str, args: &[Vec<u8>], redis: &Reply, look: &Reply) -> bool {
    let by_lex = args.iter().any(|a| a.eq_ignore_ascii_case(b"BYLEX"));
    name == "ZRANGE" && by_lex && matches!((redis, look), (Reply::Array(_), Reply::Array(_)))
}

const SHORTEST: &str = "7.2 prints the shortest decimal that reads back as the same double; 7.0 prints 17 digits";

/// The name under which the tables know a request: `GET`, `OBJECT ENCODING`.
pub fn name(args: &[Vec<u8>]) -> String {
    let upper = |i: usize| args.get(i).map(|a| String::from_utf8_lossy(a).to_uppercase()).unwrap_or_default();
    match upper(0).as_str() {
        container @ ("OBJECT" | "CONFIG" | "CLIENT" | "MEMORY" | "COMMAND" | "DEBUG") => {
            format!("{container} {}", upper(1))
        }
        plain => plain.to_string(),
    }
}

pub fn compare(args: &[Vec<u8>], redis: &Reply, look: &Reply) -> bool {
    if redis == look {
        return true;
    }
    let name = name(args);
    if same_but_for_order_and_time(&name, redis, look)
        || arguments_first(&name, redis, look)
        || unspecified(&name, args, redis, look)
    {
        return true;
    }
    SINCE_7_0.iter().find(|row| row.command == name).is_some_and(|row| (row.accepts)(args, redis, look))
}

/// EXEC's reply holds the replies of the queued requests.
pub fn compare_exec(queued: &[Vec<Vec<u8>>], redis: &Reply, look: &Reply) -> bool {
    let (Reply::Array(a), Reply::Array(b)) = (redis, look) else {
        return redis == look;
    };
    if a.len() != b.len() || a.len() != queued.len() {
        return redis == look;
    }
    queued.iter().zip(a.iter().zip(b)).all(|(args, (a, b))| compare(args, a, b))
}

fn same_but_for_order_and_time(name: &str, redis: &Reply, look: &Reply) -> bool {
    if UNORDERED.contains(&name) {
        let pairs = name == "HGETALL";
        return sorted(redis, pairs) == sorted(look, pairs);
    }
    if let Some((_, tolerance)) = TIMES.iter().find(|(command, _)| *command == name) {
        return matches!((redis, look), (Reply::Int(a), Reply::Int(b)) if *a >= 0 && *b >= 0 && a.abs_diff(*b) <= *tolerance as u64);
    }
    if name == "SCAN" {
        // One step of a scan gives what it likes; the harness compares whole scans.
        return matches!(
            (redis.items(), look.items()),
            ([Reply::Bulk(_), Reply::Array(_)], [Reply::Bulk(_), Reply::Array(_)])
        );
    }
    SHAPES.contains(&name) && std::mem::discriminant(redis) == std::mem::discriminant(look)
}

/// The same reply in one order. RESP2 gives HGETALL as a flat list of pairs.
fn sorted(reply: &Reply, pairs: bool) -> Reply {
    match reply {
        Reply::Array(items) if pairs => {
            let mut all: Vec<Vec<Reply>> = items.chunks(2).map(<[Reply]>::to_vec).collect();
            all.sort();
            Reply::Array(all.concat())
        }
        Reply::Array(items) => Reply::Array(in_order(items)),
        Reply::Set(items) => Reply::Set(in_order(items)),
        Reply::Map(items) => {
            let mut all = items.clone();
            all.sort();
            Reply::Map(all)
        }
        other => other.clone(),
    }
}

fn in_order(items: &[Reply]) -> Vec<Reply> {
    let mut all = items.to_vec();
    all.sort();
    all
}

/// Equal, when each score is read as a double: 7.2 spells them otherwise than 7.0.
fn scores(redis: &Reply, look: &Reply) -> bool {
    fn same(a: &Reply, b: &Reply) -> bool {
        match (a, b) {
            _ if a == b => true,
            (Reply::Array(a), Reply::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
            (Reply::Bulk(x), Reply::Bulk(y)) | (Reply::Double(x), Reply::Double(y)) => {
                !x.is_empty() && !y.is_empty() && matches!((number(a), number(b)), (Some(a), Some(b)) if a == b)
            }
            _ => false,
        }
    }
    same(redis, look)
}

fn number(reply: &Reply) -> Option<f64> {
    match reply {
        Reply::Bulk(text) | Reply::Double(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}
