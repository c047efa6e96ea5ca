//! What chance does not reach: native commands, protocol errors, transactions between connections, time, and the
//! places where 7.2 differs from the 7.0 beside us.

use crate::agree;
use crate::common::server::subject_is_redis;
use crate::common::{Connection, Reply, Server, show, words};
use std::time::Duration;

fn pair() -> Option<(tempfile::TempDir, Server, Server)> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let redis = Server::redis(&dir.path().join("redis"))?;
    let look = Server::subject(&dir.path().join("look"));
    Some((dir, redis, look))
}

/// Plays lines on both; collects every disagreement instead of stopping at the first.
fn play(redis: &mut Connection, look: &mut Connection, requests: &[Vec<Vec<u8>>]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut queued = Vec::new();
    for args in requests {
        let a = redis.call(args).expect("redis answers");
        let b = match look.call(args) {
            Ok(reply) => reply,
            Err(e) => {
                wrong.push(format!("{}\n    look: {e}", show(args)));
                break;
            }
        };
        let agree = match agree::name(args).as_str() {
            "EXEC" => agree::compare_exec(&std::mem::take(&mut queued), &a, &b),
            _ => agree::compare(args, &a, &b),
        };
        if a == Reply::Simple(b"QUEUED".to_vec()) {
            queued.push(args.clone());
        }
        if !agree {
            wrong.push(format!("{}\n    redis: {a:?}\n    look:  {b:?}", show(args)));
        }
    }
    wrong
}

fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} replies differ:\n{}", wrong.len(), wrong.join("\n"));
}

const NATIVE: &str = "
    PING
    PING hello
    PING a b
    ECHO hi
    ECHO
    ping
    nosuch
    nosuch a b c
    get
    GET a b
    SET
    SET a
    SET a b c
    SET a b EX
    SET a b EX 0
    SET a b EX -1
    SET a b EX 10 PX 10
    SET a b NX XX
    SET a b PX 9223372036854775807
    SET a b EX 9223372036854775807
    SETEX a 0 v
    SETEX a 9223372036854775807 v
    PSETEX a 0 v
    GETEX a EX 0
    EXPIRE a 9223372036854775807
    EXPIRE a -9223372036854775808
    PEXPIREAT a 9223372036854775807
    INCRBY a notanumber
    DECRBY a -9223372036854775808
    SELECT 16
    SELECT -1
    SELECT x
    SELECT
    SELECT 1
    DBSIZE
    SET moved 1
    MOVE moved 1
    MOVE moved 0
    MOVE moved 99
    SELECT 0
    GET moved
    SWAPDB 0 1
    GET moved
    SWAPDB 0 99
    SWAPDB x 1
    SWAPDB 0
    FLUSHDB
    FLUSHDB ASYNC
    FLUSHDB now
    FLUSHALL SYNC
    FLUSHALL SYNC ASYNC
    AUTH
    AUTH x
    AUTH default x
    AUTH nobody x
    AUTH a b c
    HELLO x
    HELLO 1
    HELLO 4
    HELLO 2 AUTH
    HELLO 2 SETNAME
    HELLO 2 NOSUCH
    CLIENT
    CLIENT NOSUCH
    CLIENT GETNAME
    CLIENT SETNAME look
    CLIENT GETNAME
    CLIENT SETNAME bad\u{1}name
    CLIENT SETNAME
    CLIENT ID a
    CLIENT NO-EVICT ON
    CLIENT NO-EVICT maybe
    CLIENT REPLY maybe
    CLIENT KILL 127.0.0.1:1
    CLIENT KILL ID x
    CLIENT KILL ID 0
    CLIENT KILL ID 999999
    CLIENT KILL TYPE nosuch
    CLIENT PAUSE x
    CLIENT PAUSE 0 NOSUCH
    CLIENT UNPAUSE
    CLIENT LIST TYPE nosuch
    CLIENT LIST ID x
    CLIENT LIST NOSUCH
    CLIENT TRACKINGINFO
    CLIENT GETREDIR
    CONFIG
    CONFIG NOSUCH
    CONFIG GET
    CONFIG GET nosuchparameter
    CONFIG GET appendonlynosuch maxclientsnosuch
    CONFIG SET
    CONFIG SET maxmemory
    CONFIG SET nosuchparameter 1
    CONFIG RESETSTAT
    CONFIG RESETSTAT x
    COMMAND COUNT x
    COMMAND NOSUCH
    COMMAND INFO nosuch
    COMMAND GETKEYS
    COMMAND GETKEYS nosuch a
    COMMAND GETKEYS GET
    COMMAND GETKEYS GET a
    COMMAND GETKEYS PING
    COMMAND GETKEYS MSET a 1 b 2
    COMMAND GETKEYS SET a b
    COMMAND GETKEYS COPY a b
    COMMAND GETKEYS BITOP AND d a b
    COMMAND GETKEYS ZADD z 1 a
    COMMAND GETKEYS OBJECT ENCODING a
    COMMAND GETKEYS OBJECT NOSUCH a
    COMMAND GETKEYSANDFLAGS SET a b
    COMMAND GETKEYSANDFLAGS GET a
    COMMAND GETKEYSANDFLAGS MSET a 1 b 2
    COMMAND GETKEYSANDFLAGS COPY a b
    COMMAND GETKEYSANDFLAGS GETDEL a
    COMMAND GETKEYSANDFLAGS LPOP a
    COMMAND GETKEYSANDFLAGS PING
    COMMAND LIST FILTERBY
    COMMAND LIST FILTERBY NOSUCH x
    MEMORY
    MEMORY NOSUCH
    MEMORY USAGE nokey
    MEMORY USAGE nokey SAMPLES
    MEMORY USAGE nokey SAMPLES -1
    MEMORY PURGE
    SLOWLOG
    SLOWLOG NOSUCH
    SLOWLOG RESET
    SLOWLOG LEN x
    SLOWLOG GET x
    LATENCY
    LATENCY NOSUCH
    LATENCY RESET
    LATENCY LATEST
    LATENCY HISTORY nosuch
    TIME x
    WAIT
    WAIT x 0
    WAIT 0 x
    WAIT 0 -1
    WAIT 0 10
    BGSAVE x
    LASTSAVE x
    MONITOR x
    DEBUG
    DEBUG NOSUCH
    DEBUG SLEEP 0
    DEBUG SET-ACTIVE-EXPIRE 1
    DEBUG OBJECT nokey
    OBJECT
    OBJECT ENCODING
    OBJECT ENCODING nokey
    OBJECT FREQ nokey
    OBJECT IDLETIME nokey
    OBJECT REFCOUNT nokey
    SAVE x
    SHUTDOWN nosuch
    SHUTDOWN SAVE NOSAVE
    SHUTDOWN ABORT
    MULTI x
    EXEC
    DISCARD
    MULTI
    MULTI
    WATCH a
    SET a 1
    INCR a
    GET a
    EXEC
    MULTI
    SET a
    PING
    EXEC
    MULTI
    nosuch
    EXEC
    MULTI
    LPUSH a x
    INCR a
    EXEC
    MULTI
    DISCARD
    WATCH
    WATCH a
    SET a 5
    MULTI
    GET a
    EXEC
    WATCH a
    UNWATCH
    MULTI
    GET a
    SELECT 1
    SET a other
    SELECT 0
    GET a
    EXEC
    RESET x
    RESET
    CLIENT GETNAME
    QUITE
    SUBSCRIBE_ a
";

/// The requests of the tables here.
pub fn compared_lines() -> impl Iterator<Item = &'static str> {
    NATIVE.lines().chain(ONE_FAULT.lines())
}

#[test]
fn native_commands_answer_as_redis() {
    let Some((_dir, redis, look)) = pair() else { return };
    let requests: Vec<Vec<Vec<u8>>> = NATIVE.lines().map(words).filter(|w| !w.is_empty()).collect();
    let mut wrong = Vec::new();
    for hello in ["HELLO 2", "HELLO 3"] {
        let (mut a, mut b) = (redis.connect(), look.connect());
        for connection in [&mut a, &mut b] {
            connection.line("FLUSHALL").expect("FLUSHALL");
            connection.line(hello).expect("HELLO");
        }
        wrong.extend(play(&mut a, &mut b, &requests).into_iter().map(|w| format!("[{hello}] {w}")));
    }
    assert_none(&wrong);
}

/// Requests with one fault each, on keys that exist.
const ONE_FAULT: &str = "
    BITFIELD s GET u0 0
    BITFIELD s GET u64 0
    BITFIELD s GET i65 0
    BITFIELD s GET x 0
    BITFIELD s GET u8 -1
    BITFIELD s GET u8 x
    BITFIELD s GET u8 #x
    BITFIELD s SET u8 0 x
    BITFIELD n OVERFLOW SAT SET i16 0 -9223372036854775807 GET i16 0
    BITFIELD n OVERFLOW SAT SET i16 0 -9223372036854775808 GET i16 0
    BITFIELD n OVERFLOW SAT SET i64 0 -9223372036854775808 GET i64 0
    BITFIELD n OVERFLOW SAT SET i63 0 -9223372036854775808 GET i63 0
    BITFIELD n OVERFLOW SAT SET i16 0 -9223372036854743039 GET i16 0
    BITFIELD n OVERFLOW SAT SET i16 0 -9223372036854743040 GET i16 0
    BITFIELD n OVERFLOW SAT SET u16 0 -1 GET u16 0
    BITFIELD s INCRBY u8 0 x
    BITFIELD s OVERFLOW x
    BITFIELD s NOSUCH
    BITFIELD s GET u8
    BITFIELD_RO s SET u8 0 1
    BITFIELD_RO s GET x 0
    BITFIELD_RO s GET u8 x
    BITFIELD l GET u8 0
    BITCOUNT s 0
    BITCOUNT s a 1
    BITCOUNT s 0 b
    BITCOUNT s 0 1 x
    BITCOUNT s 0 1 BIT 2
    BITCOUNT l
    BITPOS s 2
    BITPOS s x
    BITPOS s 1 a
    BITPOS s 1 0 b
    BITPOS s 1 0 1 x
    BITPOS l 1
    BITOP NOT d s s
    BITOP NOSUCH d s
    BITOP AND d l
    SETBIT s x 1
    SETBIT s -1 1
    SETBIT s 4294967296 1
    SETBIT s 0 2
    SETBIT l 0 1
    GETBIT s -1
    GETBIT s x
    SETRANGE s -1 x
    SETRANGE s x x
    SETRANGE s 536870912 x
    GETRANGE s x 1
    GETRANGE s 0 x
    SCAN x
    SCAN 0 COUNT 0
    SCAN 0 COUNT x
    SCAN 0 NOSUCH x
    SCAN 0 MATCH
    RESTORE r x payload
    RESTORE r -1 payload
    RESTORE r 0 payload
    RESTORE r 0 payload NOSUCH
    RESTORE s 0 payload
    SET over 1 PXAT 4102444800000
    DBSIZE
    PEXPIREAT over 1
    DBSIZE
    COPY s d DB x
    COPY s d DB 99
    COPY s d NOSUCH
    COPY s s
    MOVE s x
    MOVE s 99
    MOVE s 0
    LINDEX l x
    LINDEX s 0
    LPOP l x
    LPOP l -1
    LPOP l 1 2
    RPOP l x
    RPOP s
    LRANGE l x 1
    LRANGE l 0 x
    SPOP t -1
    SPOP t x
    SPOP t 1 2
    SADD s a
    HSET h f
    HSET h f v g
    HSET s f v
    HINCRBY h f x
    HINCRBY h text 1
    HINCRBY h max 1
    ZADD z x m
    ZADD z nan m
    ZADD z 1
    ZADD z 1 m 2
    ZADD z NX XX 1 m
    ZADD z GT LT 1 m
    ZADD z NX GT 1 m
    ZADD z INCR 1 a 2 b
    ZADD s 1 m
    ZRANGE z a 1
    ZRANGE z 0 b
    ZRANGE z x 1 BYSCORE
    ZRANGE z 1 x BYSCORE
    ZRANGE z nan 1 BYSCORE
    ZRANGE z a [b BYLEX
    ZRANGE z [a b BYLEX
    ZRANGE z - + BYLEX WITHSCORES
    ZRANGE z 0 1 LIMIT 0 1
    ZRANGE z 0 1 BYSCORE LIMIT x 1
    ZRANGE z 0 1 BYSCORE LIMIT 0
    ZRANGE z 0 1 NOSUCH
    ZRANGE z 0 1 REV REV
    ZRANGE z 0 1 BYSCORE BYSCORE
    ZRANGE z 0 1 BYSCORE WITHSCORES WITHSCORES LIMIT 0 1 LIMIT 1 1
    ZRANGE s 0 1
    ZPOPMIN z -1
    ZPOPMIN z x
    ZPOPMIN z 1 2
    EXPIRE s x
    EXPIRE s 1 NOSUCH
    EXPIRE s 1 NX XX
    EXPIRE s 1 NX GT
    EXPIRE s 1 GT LT
    EXPIREAT s 9223372036854775807
    PEXPIRE s 9223372036854775807
    SET s v EX x
    SET s v EX 0
    SET s v PX -1
    SET s v EXAT 0
    SET s v EX
    SET s v EX 1 PX 1
    SET s v EX 1 KEEPTTL
    SET s v NX XX
    SET s v NOSUCH
    SET l v GET
    SETEX s 0 v
    SETEX s x v
    PSETEX s -1 v
    GETEX s EX x
    GETEX s EX 0
    GETEX s PERSIST EX 1
    GETEX s NOSUCH
    GETEX l
    GETSET l v
    GETDEL l
    LCS s s LEN IDX
    LCS s l
    LCS s s NOSUCH
    LCS s s MINMATCHLEN x
    INCR s
    INCRBY n x
    INCRBY max 1
    DECRBY n -9223372036854775808
    INCRBYFLOAT s 1
    INCRBYFLOAT n x
    INCRBYFLOAT n nan
    INCRBYFLOAT n inf
    APPEND l x
    STRLEN l
    MSET a
    MSET a 1 b
    MSETNX a 1 b
    RENAME nosuch x
    RENAMENX nosuch x
    OBJECT NOSUCH s
    OBJECT ENCODING
    KEYS
    RANDOMKEY x
    TYPE
    PERSIST s x
";

#[test]
fn one_fault_gets_the_error_of_redis() {
    let Some((_dir, redis, look)) = pair() else { return };
    let (mut a, mut b) = (redis.connect(), look.connect());
    let keys = "SET s text\nSET n 5\nSET max 9223372036854775807\nRPUSH l a\nSADD t a\nHSET h f 1 text x max 9223372036854775807\nZADD z 1 m";
    let mut wrong = Vec::new();
    for line in keys.lines().chain(ONE_FAULT.lines().map(str::trim).filter(|l| !l.is_empty())) {
        let (x, y) = (a.line(line).expect("redis"), b.line(line).expect("look"));
        if x != y {
            wrong.push(format!("{line}\n    redis: {x:?}\n    look:  {y:?}"));
        }
    }
    assert_none(&wrong);
}

/// Each case, then ECHO: the server must answer the same bytes and keep or close the connection alike.
const PROTOCOL: &[&[u8]] = &[
    b"PING\r\n",
    b"PING\n",
    b"\r\n\r\nPING\r\n",
    b"  PING  \r\n",
    b"SET a 'b c'\r\nGET a\r\n",
    b"SET a \"x\\x41\\n\\\"q\"\r\nGET a\r\n",
    b"SET a 'it\\'s'\r\nGET a\r\n",
    b"SET a \"b\r\n",
    b"SET a 'b'c\r\n",
    b"SET a \"b\"c\r\n",
    b"*0\r\n",
    b"*-1\r\n",
    b"*-10\r\n*0\r\nPING\r\n",
    b"*1\r\n$4\r\nPING\r\n",
    b"*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nping\r\n",
    b"QUIT\r\n",
    b"QUIT now\r\nPING\r\n",
    b"*x\r\n",
    b"*1x\r\n",
    b"*\r\n",
    b"*2147483648\r\n",
    b"*9223372036854775808\r\n",
    b"*1\r\n:5\r\n",
    b"*1\r\nPING\r\n",
    b"*1\r\n$x\r\n",
    b"*1\r\n$-1\r\n",
    b"*1\r\n$-2\r\n",
    b"*1\r\n$536870913\r\n",
    b"*1\r\n$2147483648\r\n",
    b"*1\r\n$9223372036854775808\r\n",
    b"*1\r\n$\r\n",
    b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n",
    b"*3\r\n$3\r\nSET\r\n$2\r\n\r\n\r\n$1\r\n\x00\r\n*2\r\n$3\r\nGET\r\n$2\r\n\r\n\r\n",
    b"*1\r\n$11\r\nNO\r\nSUCH\r\nX\r\n",
    b"*2\r\n$6\r\nNOSUCH\r\n$6\r\na\r\nb\x00c\r\n",
    b"*1\r\n$0\r\n\r\n",
];

#[test]
fn protocol_cases_get_the_bytes_of_redis() {
    let Some((_dir, redis, look)) = pair() else { return };
    let mut wrong = Vec::new();
    for case in PROTOCOL {
        let (a, b) = (exchange(&redis, case), exchange(&look, case));
        if a != b {
            wrong.push(format!("\"{}\"\n    redis: {a:?}\n    look:  {b:?}", case.escape_ascii()));
        }
    }
    assert_none(&wrong);
}

/// An inline request past its limit, and no end of line in sight.
#[test]
fn an_endless_line_is_refused_as_redis_does() {
    let Some((_dir, redis, look)) = pair() else { return };
    let run = |server: &Server| -> Reply {
        let mut connection = server.connect();
        let _ = connection.send_raw(&vec![b'A'; 70_000]);
        connection.read().expect("an error reply")
    };
    assert_eq!(run(&redis), run(&look));
}

/// Every reply up to the marker, or up to the end of the connection.
fn exchange(server: &Server, case: &[u8]) -> Vec<String> {
    const MARKER: &[u8] = b"*2\r\n$4\r\nECHO\r\n$10\r\nend-marker\r\n";
    let mut connection = server.connect();
    connection.patience(Duration::from_secs(5)).expect("a time limit");
    let _ = connection.send_raw(&[case, MARKER].concat());
    let mut replies = Vec::new();
    loop {
        match connection.read() {
            Ok(reply) => {
                let last = reply.bytes() == Some(b"end-marker");
                replies.push(format!("{reply:?}"));
                if last {
                    return replies;
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                replies.push(e.to_string());
                return replies;
            }
            // A reset and an orderly end say the same: the server hung up.
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                replies.push("no answer".into());
                return replies;
            }
            Err(_) => {
                replies.push("closed".into());
                return replies;
            }
        }
    }
}

#[test]
fn a_request_split_at_every_byte_is_the_same_request() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let look = Server::subject(dir.path());
    let bytes = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nv\r\nw\n\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\nPING\r\n";
    let mut connection = look.connect();
    for at in 1..bytes.len() {
        connection.send_raw(&bytes[..at]).expect("first part");
        std::thread::sleep(Duration::from_millis(1));
        connection.send_raw(&bytes[at..]).expect("second part");
        let replies: Vec<Reply> = (0..3).map(|_| connection.read().expect("a reply")).collect();
        let expected =
            [Reply::Simple(b"OK".to_vec()), Reply::Bulk(b"v\r\nw\n".to_vec()), Reply::Simple(b"PONG".to_vec())];
        assert_eq!(replies, expected, "split at {at}");
    }
}

#[test]
fn watch_sees_every_kind_of_change_by_others() {
    let Some((_dir, redis, look)) = pair() else { return };
    let changes = [
        "SET w 2",
        "DEL w",
        "APPEND w x",
        "EXPIRE w 1000",
        "PERSIST w",
        "RENAME w v",
        "RENAME other w",
        "FLUSHALL",
        "FLUSHDB",
        "SWAPDB 0 1",
        "MOVE w 1",
        "COPY other w REPLACE",
        "GET w",
        "SET v 1",
        "SETBIT w 1 1",
        "SETRANGE w 0 a",
        "GETEX w",
        "GETEX w EX 100",
        "SET w 1 NX",
        "EXPIREAT w 1",
        "TOUCH w",
        "INCR w",
        "GETDEL w",
        "MSET a 1 w 2",
        "MSETNX w 2 b 3",
        "BITOP NOT w other",
        "FLUSHDB ASYNC",
        "UNLINK w",
        "GETSET w 1",
    ];
    let mut asked = redis.connect();
    asked.line("SET dumped 5").expect("SET");
    let payload = asked.line("DUMP dumped").expect("DUMP").bytes().expect("a payload").to_vec();
    // One whose time is over takes the key away, and is no change where there was none
    let restores = ["RESTORE w 0 - REPLACE", "RESTORE w 1 - REPLACE ABSTTL"].map(|line| {
        let mut args = words(line);
        args[3].clone_from(&payload);
        args
    });
    let mut wrong = Vec::new();
    for change in changes.into_iter().map(words).chain(restores) {
        for exists in [true, false] {
            let run = |server: &Server| -> Reply {
                let (mut one, mut two) = (server.connect(), server.connect());
                one.line("FLUSHALL").expect("FLUSHALL");
                one.line("SET other 5").expect("SET");
                if exists {
                    one.line("SET w 1").expect("SET");
                }
                one.line("WATCH w").expect("WATCH");
                two.call(&change).expect("the change");
                one.line("MULTI").expect("MULTI");
                one.line("PING").expect("PING");
                one.line("EXEC").expect("EXEC")
            };
            let (a, b) = (run(&redis), run(&look));
            if a != b {
                wrong.push(format!("{} (w exists: {exists})\n    redis: {a:?}\n    look:  {b:?}", show(&change)));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn client_reply_modes_silence_the_same_replies() {
    let Some((_dir, redis, look)) = pair() else { return };
    let run = |server: &Server| -> Vec<Reply> {
        let mut c = server.connect();
        let lines = [
            "CLIENT REPLY SKIP",
            "SET a 1",
            "GET a",
            "CLIENT REPLY OFF",
            "GET a",
            "INCR a",
            "CLIENT REPLY SKIP",
            "GET a",
            "CLIENT REPLY ON",
            "GET a",
            "MULTI",
            "GET a",
            "EXEC",
        ];
        let requests: Vec<_> = lines.iter().map(|l| words(l)).collect();
        let mut bytes = Vec::new();
        requests.iter().for_each(|r| crate::common::resp::encode(r, &mut bytes));
        c.send_raw(&bytes).expect("send");
        (0..6).map(|_| c.read().expect("a reply")).collect()
    };
    assert_eq!(run(&redis), run(&look));
}

#[test]
fn a_key_is_gone_when_its_time_is_over() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let look = Server::subject(dir.path());
    let mut c = look.connect();
    for (make, key) in [("SET a 1 PX 700", "a"), ("PSETEX b 700 1", "b"), ("SET c 1", "c"), ("RPUSH d 1 2", "d")] {
        c.line(make).expect("a key is made");
        let begin = std::time::Instant::now();
        c.line(&format!("PEXPIRE {key} 700")).expect("PEXPIRE");
        let left = c.line(&format!("PTTL {key}")).expect("PTTL").int().expect("a number");
        assert!((0..=700).contains(&left) || begin.elapsed().as_millis() >= 700, "{key}: PTTL {left}");
    }
    std::thread::sleep(Duration::from_millis(720));
    for line in ["GET a", "EXISTS a b c d", "TYPE d", "TTL c", "KEYS *"] {
        let reply = c.line(line).expect("a reply");
        let empty = reply.is_nil()
            || [Reply::Int(0), Reply::Int(-2), Reply::Array(vec![]), Reply::Simple(b"none".to_vec())].contains(&reply);
        assert!(empty, "{line}: {reply:?}");
    }
    assert_eq!(c.line("SET a 2 NX GET").expect("SET"), Reply::NilBulk, "an expired key does not exist for a write");
    assert_eq!(c.line("LPUSH d x").expect("LPUSH"), Reply::Int(1));
}

/// The random sequences allow deadlines a tolerance; absolute ones are exact, in seconds and in milliseconds.
#[test]
fn absolute_deadlines_are_exact() {
    let Some((_dir, redis, look)) = pair() else { return };
    let (mut a, mut b) = (redis.connect(), look.connect());
    let lines = "SET k 1 EXAT 4102444800\nEXPIRETIME k\nPEXPIRETIME k\nPEXPIREAT k 4102444800999\nEXPIRETIME k\nPEXPIRETIME k\n\
        SET k 2 KEEPTTL\nPEXPIRETIME k\nGETEX k PXAT 4102444801500\nEXPIRETIME k\nCOPY k c\nPEXPIRETIME c\nRENAME c d\n\
        PEXPIRETIME d\nMOVE d 1\nSELECT 1\nPEXPIRETIME d\nSELECT 0\nAPPEND k x\nPEXPIRETIME k\nGETSET k y\nPEXPIRETIME k";
    for line in lines.lines() {
        assert_eq!(a.line(line).expect("redis"), b.line(line).expect("look"), "{line}");
    }
}

/// 7.2's behaviour where it differs from 7.0: pinned on Look alone.
#[test]
fn seven_two_wins_where_versions_differ() {
    if subject_is_redis() {
        return crate::common::server::skip("the subject is Redis 7.0");
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let look = Server::subject(dir.path());
    let mut c = look.connect();
    let cases: &[(&str, &str)] = &[
        ("BITCOUNT none 0", "-ERR syntax error"),
        ("BITCOUNT none 0 1 HELLO", "-ERR syntax error"),
        ("BITCOUNT none a b", "-ERR value is not an integer or out of range"),
        ("BITPOS none 0 x", "-ERR value is not an integer or out of range"),
        ("BITPOS none 1 0 1 HELLO", "-ERR syntax error"),
        ("ZADD z 0.1 a 1e21 b 3.3 c 100000000000000000000 d 1e-7 e", ":5"),
        ("ZSCORE z a", "\"0.1\""),
        ("ZSCORE z b", "\"1e+21\""),
        ("ZSCORE z c", "\"3.3\""),
        ("ZSCORE z d", "\"1e+20\""),
        ("ZSCORE z e", "\"1e-7\""),
        ("ZRANK z a WITHSCORE", "[:1, \"0.1\"]"),
        ("ZRANK z nobody WITHSCORE", "*-1"),
        ("ZRANK z a SCORES", "-ERR syntax error"),
        ("RPUSH l a b", ":2"),
        ("OBJECT ENCODING l", "\"listpack\""),
        ("SADD t a b", ":2"),
        ("OBJECT ENCODING t", "\"listpack\""),
        ("CLIENT NO-TOUCH ON", "+OK"),
        ("CLIENT SETINFO LIB-NAME test", "+OK"),
        ("CLIENT SETINFO LIB-VER 1.0", "+OK"),
        ("WAITAOF 1 0 10", "[:1, :0]"),
    ];
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(line, expected)| {
            let got = format!("{:?}", c.line(line).expect("a reply"));
            (got != *expected).then(|| format!("{line}\n    expected: {expected}\n    look:     {got}"))
        })
        .collect();
    assert_none(&wrong);
}

/// `COMMAND INFO`: name, arity, flags and key positions of every command that both know.
#[test]
fn command_metadata_is_that_of_redis() {
    const NAMES: &str = "append decr decrby get getdel getex getrange getset incr incrby incrbyfloat lcs mget mset msetnx psetex \
        set setex setnx setrange strlen substr setbit getbit bitcount bitpos bitop bitfield bitfield_ro copy del unlink exists \
        expire expireat pexpire pexpireat expiretime pexpiretime ttl pttl persist keys scan randomkey rename renamenx touch type \
        move dump restore lpush rpush lpop rpop llen lindex lrange sadd srem sismember scard smembers spop hset hget hdel hlen \
        hgetall hincrby zadd zscore zrange zrem zpopmin multi exec discard watch unwatch auth hello ping echo reset select swapdb \
        dbsize flushdb flushall info monitor time lastsave save bgsave wait shutdown";
    let Some((_dir, redis, look)) = pair() else { return };
    let (mut a, mut b) = (redis.connect(), look.connect());
    let mut wrong = Vec::new();
    for name in NAMES.split_ascii_whitespace() {
        let ask = |c: &mut Connection| -> Vec<Reply> {
            let reply = c.line(&format!("COMMAND INFO {name}")).expect("COMMAND INFO");
            let mut fields: Vec<Reply> = reply.items().first().map(|r| r.items().to_vec()).unwrap_or_default();
            fields.truncate(6);
            if let Some(Reply::Array(flags)) = fields.get_mut(2) {
                flags.sort();
            }
            fields
        };
        let (x, y) = (ask(&mut a), ask(&mut b));
        if x != y {
            wrong.push(format!("{name}\n    redis: {x:?}\n    look:  {y:?}"));
        }
    }
    assert_none(&wrong);
}
