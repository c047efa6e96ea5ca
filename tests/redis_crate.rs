//! The `redis` crate, RESP2 and RESP3: the server must look like Redis to the Rust client that most programs use.

mod common;

use common::Server;
use redis::{Commands, ErrorKind, RedisResult};
use std::collections::{HashMap, HashSet};

fn open(server: &Server, protocol: &str) -> redis::Connection {
    let address = format!("redis://127.0.0.1:{}/?protocol={protocol}", server.port);
    redis::Client::open(address).and_then(|client| client.get_connection()).expect("the crate connects")
}

fn smoke(server: &Server, protocol: &str) -> RedisResult<()> {
    let mut r = open(server, protocol);
    redis::cmd("FLUSHALL").exec(&mut r)?;
    let bytes = vec![0u8, 255, 13, 10];
    r.set::<_, _, ()>("k", &bytes)?;
    assert_eq!(r.get::<_, Vec<u8>>("k")?, bytes);
    assert_eq!(r.get::<_, Option<String>>("none")?, None);
    assert!(!r.set_nx::<_, _, bool>("k", 1)?);
    assert_eq!(r.incr::<_, _, i64>("n", 42)?, 42);
    r.set_ex::<_, _, ()>("t", "x", 100)?;
    assert!((1..=100).contains(&r.ttl::<_, i64>("t")?));

    let (a, b): (i64, i64) = redis::pipe().atomic().incr("n", 1).incr("n", 1).query(&mut r)?;
    assert_eq!((a, b), (43, 44));
    let mut pipe = redis::pipe();
    for i in 0..500 {
        pipe.set(format!("p:{i}"), i).ignore();
    }
    pipe.exec(&mut r)?;
    let seen: HashSet<String> = r.scan_match::<_, String>("p:*")?.collect::<RedisResult<_>>()?;
    assert_eq!(seen.len(), 500);

    redis::cmd("HSET").arg("h").arg(&[("f", 1), ("g", 2)]).exec(&mut r)?;
    assert_eq!(r.hgetall::<_, HashMap<String, i64>>("h")?, HashMap::from([("f".to_string(), 1), ("g".to_string(), 2)]));
    r.zadd::<_, _, _, ()>("z", "half", 0.5)?;
    assert_eq!(r.zrange_withscores::<_, Vec<(String, f64)>>("z", 0, -1)?, [("half".to_string(), 0.5)]);
    r.sadd::<_, _, ()>("s", &["x", "y"])?;
    assert_eq!(r.smembers::<_, HashSet<String>>("s")?.len(), 2);
    r.rpush::<_, _, ()>("l", &["a", "b"])?;
    assert_eq!(r.lrange::<_, Vec<String>>("l", 0, -1)?, ["a", "b"]);

    let error = r.lpush::<_, _, i64>("k", "x").expect_err("a string is no list");
    assert_eq!(error.code(), Some("WRONGTYPE"), "{error}");
    assert_ne!(error.kind(), ErrorKind::Io);
    Ok(())
}

#[test]
fn the_redis_crate_works_unchanged() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::subject(dir.path());
    for protocol in ["resp2", "resp3"] {
        smoke(&server, protocol).unwrap_or_else(|e| panic!("{protocol}: {e}"));
    }
}
