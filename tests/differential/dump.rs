//! DUMP and RESTORE: the bytes of a payload are not comparable (7.2 writes version 11, 7.0 version 10), what they
//! restore to is.

use crate::common::{Reply, Server, words};

/// One key of each type and encoding that the random sequences meet.
const MAKE: &[&str] = &[
    "SET p:text hello",
    "SET p:int 12345",
    "SET p:neg -129",
    "SET p:big 4294967296",
    "SETRANGE p:long 4000 x",
    "SETRANGE p:lzf 300 aaaaaaaaaaaa",
    "RPUSH p:list a b c 1 2 3",
    "SADD p:intset 1 2 3 100000 -5",
    "SADD p:set a b c",
    "HSET p:hash a 1 b 2 c text",
    "ZADD p:zset 1 a 2.5 b -inf c",
    "SETRANGE p:rope 70000 x",
    "HSET p:wide a 1 b 2",
    "ZADD p:ends inf a -inf b -0.5 c 1.7976931348623157e308 d",
];

/// Payloads that the reference made, and damaged ones.
pub fn payloads(redis: &Server) -> Vec<Vec<u8>> {
    let mut connection = redis.connect();
    let mut all: Vec<Vec<u8>> = MAKE
        .iter()
        .filter_map(|line| {
            connection.line(line).expect("redis makes a key");
            let key = words(line)[1].clone();
            let payload = connection.call(&[b"DUMP".to_vec(), key]).expect("redis dumps it");
            payload.bytes().map(<[u8]>::to_vec)
        })
        .collect();
    connection.line("FLUSHALL").expect("redis forgets them");
    let whole = all[0].clone();
    let mut flipped = whole.clone();
    flipped[2] ^= 1;
    let mut newer = whole[..whole.len() - 10].to_vec();
    newer.extend_from_slice(&[0xff, 0x7f]);
    seal(&mut newer);
    all.extend([Vec::new(), b"x".to_vec(), whole[..whole.len() - 1].to_vec(), flipped, newer]);
    all
}

/// Redis's CRC-64 (Jones), reflected, over everything before it.
fn seal(payload: &mut Vec<u8>) {
    let crc = payload.iter().fold(0u64, |crc, byte| {
        (0..8).fold(crc ^ u64::from(*byte), |c, _| if c & 1 == 1 { (c >> 1) ^ 0x95ac_9329_ac4b_c9b5 } else { c >> 1 })
    });
    payload.extend_from_slice(&crc.to_le_bytes());
}

/// The same payload under the version that 7.0 writes, so that it agrees to read it.
pub fn as_version_10(payload: &[u8]) -> Vec<u8> {
    let mut old = payload[..payload.len() - 10].to_vec();
    old.extend_from_slice(&10u16.to_le_bytes());
    seal(&mut old);
    old
}

fn read_back(server: &Server, key: &str) -> Vec<Reply> {
    let mut c = server.connect();
    let kind = c.line(&format!("TYPE {key}")).expect("TYPE");
    let read = match kind.text().as_str() {
        "list" => format!("LRANGE {key} 0 -1"),
        "set" => format!("SMEMBERS {key}"),
        "hash" => format!("HGETALL {key}"),
        "zset" => format!("ZRANGE {key} 0 -1 WITHSCORES"),
        _ => format!("GET {key}"),
    };
    let value = c.line(&read).expect("read");
    let mut items = match value {
        Reply::Array(items) if kind.text() == "set" || kind.text() == "hash" => items,
        other => return vec![kind, other],
    };
    items.sort();
    items.insert(0, kind);
    items
}

/// RESTORE with a deadline that is over makes no key, and with REPLACE removes the one that was there.
#[test]
fn a_payload_whose_time_is_over_restores_to_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let look = Server::subject(&dir.path().join("look"));
    let mut c = look.connect();
    let asked = |c: &mut crate::common::Connection, line: &str| c.line(line).expect("a reply");
    asked(&mut c, "SET k v");
    let payload = asked(&mut c, "DUMP k").bytes().expect("a payload").to_vec();
    for key in ["k", "new"] {
        let words = [&b"RESTORE"[..], key.as_bytes(), b"359222226296", &payload, b"REPLACE", b"ABSTTL"];
        let reply = c.call(&words.map(<[u8]>::to_vec)).expect("a reply");
        assert_eq!(reply, Reply::Simple(b"OK".to_vec()), "{key}");
        assert_eq!(asked(&mut c, "DBSIZE"), Reply::Int(0), "{key}");
    }
}

/// A payload moves a value in both directions.
#[test]
fn payloads_restore_across_servers() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(redis) = Server::redis(&dir.path().join("redis")) else { return };
    let look = Server::subject(&dir.path().join("look"));
    for (from, to, direction) in [(&redis, &look, "redis to look"), (&look, &redis, "look to redis")] {
        let (mut source, mut target) = (from.connect(), to.connect());
        source.line("FLUSHALL").expect("FLUSHALL");
        target.line("FLUSHALL").expect("FLUSHALL");
        for line in MAKE {
            source.line(line).expect("a key is made");
            let key = words(line)[1].clone();
            let name = String::from_utf8_lossy(&key).into_owned();
            let dumped = source.call(&[b"DUMP".to_vec(), key.clone()]).expect("DUMP");
            let payload = dumped.bytes().unwrap_or_else(|| panic!("{direction}, {name}: DUMP said {dumped:?}"));
            assert!(payload.len() > 10, "{direction}, {name}: payload {payload:?}");
            let request = [b"RESTORE".to_vec(), key, b"0".to_vec(), as_version_10(payload)];
            let restored = target.call(&request).expect("RESTORE");
            assert_eq!(restored, Reply::Simple(b"OK".to_vec()), "{direction}, {name}");
            assert_eq!(read_back(from, &name), read_back(to, &name), "{direction}, {name}");
        }
    }
}
