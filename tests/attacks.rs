//! Attacks that worked on servers of this kind, tried on a running one. A test carries the number of the flaw; after each the server still
//! answers and has not grown.
//!
//! To come, with the commands that they need:
//!
//! | CVE | class | waits for |
//! |---|---|---|
//! | 2022-24735, 24736, 2024-46981, 2025-49844 | code that runs as somebody else, or is dropped while it runs | programs installed on a running cluster |
//! | 2022-31144, 35951, 2025-62507 (its command) | XAUTOCLAIM, XACKDEL | streams |
//! | 2022-35977 (SORT half) | SORT LIMIT | SORT |
//! | 2023-22458, 25155 | HRANDFIELD, SRANDMEMBER, ZRANDMEMBER with -2^63 | those commands |
//! | 2023-28856 (its command) | HINCRBYFLOAT of what is no number | that command |
//! | 2025-32023 | PFCOUNT of a crafted HyperLogLog | HyperLogLog |
//! | 2026-23479 (its commands) | a client closed in BLPOP | blocking commands |
//!
//! Elsewhere: 2021-32762 and 2026-21863 (peers) is the fuzz target `peer_frames`; 2023-41056 (page split and merge) is `tests/store_model.rs`;
//! 2025-46817, 46818, 46819 (interpreter against machine code) is the fuzz target `engines_agree`; the rules of 2024-31227 are fuzzed by
//! `acl_rules`. Limits on buffers, time and addresses are in `src/gateway/tests/limits.rs`.

mod common;

use common::resp::{Connection, Reply, encode};
use common::server::{look_binary, skip};
use common::{Cluster, PATIENCE, Random, Server, wait, words};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};
use tempfile::TempDir;

struct Target {
    server: Server,
    dir: TempDir,
}

impl Target {
    fn start(flags: &[&str]) -> Target {
        let dir = tempfile::tempdir().expect("a directory");
        let flags: Vec<String> = flags.iter().map(|f| (*f).to_owned()).collect();
        let server = Server::look(dir.path(), &flags).expect("look starts");
        Target { server, dir }
    }

    fn ask(&self, lines: &[&str]) -> Vec<String> {
        let mut connection = self.server.connect();
        let mut ask = |line: &&str| match connection.line(line).unwrap_or_else(|e| panic!("{line}: {e}")) {
            Reply::Int(number) => number.to_string(),
            reply => reply.text(),
        };
        lines.iter().map(&mut ask).collect()
    }

    /// One whose clients must authenticate.
    fn locked() -> Target {
        let target = Target::start(&[]);
        assert_eq!(target.ask(&["CONFIG SET requirepass secret"]), ["OK"]);
        target
    }

    /// A locked one still serves those who know the password.
    fn knows_friends(&self) {
        let mut friend = self.server.connect();
        for (line, reply) in [("AUTH secret", "OK"), ("SET k v", "OK"), ("GET k", "v")] {
            assert_eq!(friend.line(line).expect("a reply").text(), reply);
        }
    }

    /// What comes back to somebody who sends this and no more, until the server closes the connection.
    fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.server.address()).expect("a connection");
        // It may have hung up already.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.set_read_timeout(Some(PATIENCE));
        let (mut all, mut block) = (Vec::new(), [0; 4096]);
        while let Ok(n @ 1..) = stream.read(&mut block) {
            all.extend_from_slice(&block[..n]);
        }
        all
    }

    fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.server.pid())).unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok()).expect("the server runs")
    }

    fn stays_well(mut self) {
        assert!(self.server.exited().is_none(), "{}", self.server.output());
        assert_eq!(self.ask(&["PING"]), ["PONG"]);
        assert!(!self.server.output().contains("panicked"), "{}", self.server.output());
    }
}

fn request(args: &[&[u8]]) -> Vec<Vec<u8>> {
    args.iter().map(|a| a.to_vec()).collect()
}

#[test]
fn cve_2021_21309_and_41099_announced_lengths_overflow_nothing() {
    let target = Target::start(&[]);
    for length in
        ["2147483648", "9223372036854775807", "9223372036854775808", "18446744073709551615", "-2", "536870913"]
    {
        let answer = target.raw(format!("*2\r\n$3\r\nGET\r\n${length}\r\nabc").as_bytes());
        assert_eq!(String::from_utf8_lossy(&answer), "-ERR Protocol error: invalid bulk length\r\n", "${length}");
    }
    for count in ["1048577", "2147483647", "9223372036854775807", "9223372036854775808"] {
        let answer = target.raw(format!("*{count}\r\n").as_bytes());
        assert_eq!(String::from_utf8_lossy(&answer), "-ERR Protocol error: invalid multibulk length\r\n", "*{count}");
    }
    assert_eq!(target.raw(b"*-1\r\n*-9223372036854775808\r\nPING\r\n"), b"+PONG\r\n");
    target.stays_well();
}

#[test]
fn cve_2021_29477_and_32625_lcs_of_the_longest() {
    let target = Target::start(&[]);
    let mut connection = target.server.connect();
    for (key, byte, len) in [("a", b'x', 65_535), ("b", b'y', 65_535), ("c", b'x', 1 << 20)] {
        connection.call(&request(&[b"SET", key.as_bytes(), &vec![byte; len]])).expect("a reply");
    }
    for line in
        ["LCS a b LEN", "LCS a b IDX MINMATCHLEN 9223372036854775807", "LCS c c LEN", "LCS c a IDX WITHMATCHLEN"]
    {
        connection.line(line).expect("an answer or an error, not the end");
    }
    target.stays_well();
}

#[test]
fn cve_2021_29478_and_32687_encodings_change_at_their_limits() {
    let target = Target::start(&[]);
    let mut connection = target.server.connect();
    for n in 0..514 {
        connection.line(&format!("SADD s {n}")).expect("a reply");
    }
    for line in ["SADD s -9223372036854775808 9223372036854775807 text", "COPY s t", "SREM s text"] {
        assert!(!connection.line(line).expect("a reply").is_error(), "{line}");
    }
    let Reply::Bulk(dump) = connection.line("DUMP t").expect("a reply") else { panic!("no dump") };
    assert_eq!(connection.call(&request(&[b"RESTORE", b"u", b"0", &dump])).expect("a reply").text(), "OK");
    assert_eq!(target.ask(&["SCARD s", "SCARD t", "SCARD u"]), ["516", "517", "517"]);
    target.stays_well();
}

#[test]
fn cve_2021_32627_and_32628_large_entries_of_small_collections() {
    let target = Target::start(&[]);
    let mut connection = target.server.connect();
    for len in [63, 64, 65, 8191, 8192, 65_535, 65_536, 1 << 22] {
        let big = vec![b'v'; len];
        for command in [&[&b"HSET"[..], b"h", b"f"][..], &[b"RPUSH", b"l"], &[b"SADD", b"s"], &[b"ZADD", b"z", b"1"]] {
            let reply = connection.call(&request(&[command, &[&big]].concat())).expect("a reply");
            assert!(!reply.is_error(), "{reply:?} with {len} bytes");
        }
        assert_eq!(connection.line("HGET h f").expect("a reply"), Reply::Bulk(big));
    }
    assert_eq!(target.ask(&["LLEN l", "SCARD s", "ZRANK z nosuch"])[..2], ["8", "8"]);
    target.stays_well();
}

/// A program deeper than the compiler's stack is an error, not an overflow.
#[test]
fn cve_2021_32626_a_program_nested_too_deep_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    for depth in [10, 100_000] {
        let file = dir.path().join("deep.look");
        let text = format!("read command DEEP(key: key) {{ reply {}1{} }}\n", "(".repeat(depth), ")".repeat(depth));
        std::fs::write(&file, text).expect("a file");
        let checked =
            std::process::Command::new(look_binary()).arg("check").arg(&file).output().expect("the binary runs");
        assert!(checked.status.code().is_some_and(|code| code < 2), "depth {depth}: {:?}", checked.status);
        assert!(depth < 1000 || !checked.status.success(), "depth {depth} is taken");
    }
}

#[test]
fn cve_2021_32672_a_frame_cut_at_every_byte_says_nothing() {
    let target = Target::start(&[]);
    let whole = b"*3\r\n$3\r\nSET\r\n$5\r\nkey\r\n\r\n$5\r\nvalue\r\n";
    for cut in 1..whole.len() {
        let mut stream = TcpStream::connect(target.server.address()).expect("a connection");
        stream.write_all(&whole[..cut]).expect("it is taken");
        stream.shutdown(std::net::Shutdown::Write).expect("the end");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the end");
        assert!(answer.is_empty(), "cut at {cut}: {}", answer.escape_ascii());
    }
    assert_eq!(target.ask(&["DBSIZE"]), ["0"]);
    target.stays_well();
}

#[test]
fn cve_2021_32675_strangers_with_huge_requests_cost_nothing() {
    let target = Target::locked();
    let before = target.resident_kib();
    let mut strangers = Vec::new();
    for i in 0..1000 {
        let mut stream = TcpStream::connect(target.server.address()).expect("a connection");
        let announced = [&b"*1048576\r\n"[..], b"*2\r\n$536870912\r\n", b"*10\r\n$16384\r\nabc"][i % 3];
        let _ = stream.write_all(announced);
        strangers.push(stream);
    }
    // The first and the last of them: by then the others were heard, too
    for at in [0, 999] {
        let mut answer = String::new();
        let _ = strangers[at].read_to_string(&mut answer);
        assert_eq!(answer, "-ERR Protocol error: unauthenticated multibulk length\r\n");
    }
    let grown = target.resident_kib().saturating_sub(before);
    assert!(grown < 100 * 1024, "1,000 strangers cost {grown} KiB");
    drop(strangers);
    target.knows_friends();
}

#[test]
fn cve_2021_32761_bit_offsets_do_not_wrap() {
    let target = Target::start(&[]);
    let offset = "ERR bit offset is not an integer or out of range";
    for at in ["4294967296", "4294967295999", "9223372036854775807", "18446744073709551615", "-1"] {
        assert_eq!(target.ask(&[&format!("SETBIT k {at} 1"), &format!("GETBIT k {at}")]), [offset, offset], "{at}");
        let field = target.ask(&[&format!("BITFIELD k SET u63 {at} 1"), &format!("BITFIELD k GET u8 #{at}")]);
        assert!(field.iter().all(|reply| reply.starts_with("ERR ")), "{at}: {field:?}");
    }
    target.ask(&[
        "SET k v",
        "BITCOUNT k -9223372036854775808 9223372036854775807 BIT",
        "BITPOS k 1 9223372036854775807 -1 BIT",
    ]);
    assert_eq!(target.ask(&["GET k"]), ["v"]);
    target.stays_well();
}

#[test]
fn cve_2022_35977_setrange_past_the_end_of_numbers() {
    let target = Target::start(&[]);
    for at in ["9223372036854775807", "9223372036854775800", "536870912", "4294967296"] {
        let reply = target.ask(&[&format!("SETRANGE k {at} x")]);
        assert_eq!(reply, ["ERR string exceeds maximum allowed size (proto-max-bulk-len)"], "{at}");
    }
    assert_eq!(target.ask(&["SETRANGE k -1 x", "EXISTS k"]), ["ERR offset is out of range", "0"]);
    target.stays_well();
}

/// `look backup` believes no server.
#[test]
fn cve_2021_32762_a_hostile_server_costs_its_client_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    for answer in [
        "$9223372036854775807\r\n",
        "$1073741824\r\nabc",
        "$-2\r\n",
        "*1000000000\r\n*1000000000\r\n",
        "\r\n",
        "$5\r\nab",
        "\0",
        "+1 full 18446744073709551615 18446744073709551615 0 0 0 0 0 0\r\n",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port().to_string();
        let hostile = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the client comes");
            let _ = stream.read(&mut [0; 256]);
            let _ = stream.write_all(answer.as_bytes());
        });
        // Address space for the program, not for what is announced.
        let command = format!("ulimit -v 4000000; exec '{}' backup --to to -p {port}", look_binary().display());
        let run = std::process::Command::new("sh").args(["-c", &command]).current_dir(dir.path()).output();
        let run = run.expect("the client runs");
        hostile.join().expect("it answered");
        assert_eq!(run.status.code(), Some(1), "{answer:?}: {}", String::from_utf8_lossy(&run.stderr));
    }
}

#[test]
fn cve_2022_36021_a_pattern_of_stars_takes_no_time() {
    let target = Target::start(&[]);
    let mut connection = target.server.connect();
    connection.call(&request(&[b"SET", "a".repeat(10_000).as_bytes(), b"v"])).expect("a reply");
    let pattern = "a*".repeat(5_000) + "b";
    let started = Instant::now();
    connection.call(&request(&[b"KEYS", pattern.as_bytes()])).expect("a reply");
    connection.call(&request(&[b"SCAN", b"0", b"MATCH", pattern.as_bytes()])).expect("a reply");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    target.stays_well();
}

#[test]
fn cve_2023_28425_the_same_key_twice_in_every_command_that_takes_several() {
    let target = Target::start(&[]);
    let lines = [
        "MSETNX k 1 k 2",
        "GET k",
        "MSET k 3 k 4",
        "MGET k k",
        "EXISTS k k",
        "TOUCH k k",
        "BITOP AND k k k",
        "RENAME k k",
        "RENAMENX k k",
        "COPY k k",
        "LCS k k",
        "DEL k k",
        "UNLINK k k",
        "SADD s x x",
        "SREM s x x",
        "HSET h f 1 f 2",
        "HDEL h f f",
        "ZADD z 1 m 2 m",
        "ZREM z m m",
        "WATCH k k",
        "DBSIZE",
    ];
    let replies = target.ask(&lines);
    assert_eq!((replies[0].as_str(), replies[1].as_str()), ("1", "2"));
    assert_eq!(replies[replies.len() - 1], "0", "{replies:?}");
    target.stays_well();
}

#[test]
fn cve_2023_28856_numbers_that_are_none_are_not_stored() {
    let target = Target::start(&[]);
    let long = "1".repeat(5000);
    for number in ["nan", "inf", "-inf", "1e5000", "0x1p99999", &long, "+", "", "1 "] {
        let mut connection = target.server.connect();
        let reply = connection.call(&request(&[b"INCRBYFLOAT", b"k", number.as_bytes()])).expect("a reply");
        assert!(reply.is_error(), "{number:?} gives {reply:?}");
        let reply = connection.call(&request(&[b"HINCRBY", b"h", b"f", number.as_bytes()])).expect("a reply");
        assert!(reply.is_error(), "{number:?} gives {reply:?}");
    }
    assert_eq!(target.ask(&["EXISTS k h", "ZADD z nan m", "ZADD z inf m", "ZADD z INCR -inf m"])[0], "0");
    target.stays_well();
}

#[test]
fn cve_2023_36824_keys_of_any_request_are_found_or_refused() {
    let target = Target::start(&[]);
    let mut connection = target.server.connect();
    let Reply::Array(names) = connection.line("COMMAND LIST").expect("a reply") else { panic!("no list") };
    let mut random = Random::new(1);
    for name in names.iter().map(Reply::text) {
        for count in 0..6 {
            let mut asked = words("COMMAND GETKEYSANDFLAGS");
            asked.extend(name.split('|').map(|part| part.as_bytes().to_vec()));
            asked.extend(
                (0..count)
                    .map(|_| random.pick(&["a", "-1", "9223372036854775807", "GET", "STORE", ""]).as_bytes().to_vec()),
            );
            connection.call(&asked).unwrap_or_else(|e| panic!("{}: {e}", common::show(&asked)));
        }
    }
    target.stays_well();
}

/// Every command that declares keys, with all sorts of arguments, on a key that its user may not touch: none of them answers, and what
/// is there stays as it is.
#[test]
fn cve_2023_41053_no_command_answers_about_a_key_that_its_user_may_not_touch() {
    let target = Target::start(&[]);
    let mut admin = target.server.connect();
    let fill = ["SET str 1", "RPUSH list 1 v", "HSET hash v 1 1 1", "SADD set v 1", "ZADD zset 1 v"];
    let keys = ["str", "list", "hash", "set", "zset", "absent"];
    fill.iter().for_each(|line| assert!(!admin.line(line).expect("a reply").is_error(), "{line}"));
    assert_eq!(admin.line("ACL SETUSER bob on >pw +@all ~mine*").expect("a reply").text(), "OK");
    let before = admin.line("DEBUG DIGEST").expect("a reply");
    let mut bob = target.server.connect();
    assert_eq!(bob.line("AUTH bob pw").expect("a reply").text(), "OK");
    let shapes: Vec<Vec<&str>> = (1..=4).flat_map(|len| arrangements(&["K", "v", "1"], len)).collect();
    let (mut refused, mut never_refused) = (0, Vec::new());
    for command in commands_with_keys(&mut admin) {
        let mut reached = ONE_BY_ONE.iter().any(|line| line.to_lowercase().starts_with(&command.replace('|', " ")));
        for (shape, key) in shapes.iter().filter(|shape| shape.contains(&"K")).zip(keys.iter().cycle()) {
            let name = command.split('|').map(|word| word.as_bytes().to_vec());
            let args = shape.iter().map(|word| if *word == "K" { key } else { word }.as_bytes().to_vec());
            let request: Vec<Vec<u8>> = name.chain(args).collect();
            let reply = bob.call(&request).expect("a reply");
            assert!(reply.is_error(), "{} answers {reply:?}", common::show(&request));
            reached |= reply.text() == NO_KEY;
            refused += usize::from(reply.text() == NO_KEY);
        }
        if !reached {
            never_refused.push(command);
        }
    }
    assert!(never_refused.is_empty(), "give them lines in ONE_BY_ONE: {never_refused:?}");
    assert!(refused > 1000, "INVALID: {refused} refusals");
    assert_eq!(admin.line("DEBUG DIGEST").expect("a reply"), before);
    target.stays_well();
}

/// Names of the commands whose first key has a fixed place, a bar before a subcommand.
fn commands_with_keys(connection: &mut Connection) -> Vec<String> {
    fn gather(infos: &[Reply], names: &mut Vec<String>) {
        for info in infos {
            let fields = info.items();
            if fields[3].int() > Some(0) {
                names.push(fields[0].text());
            }
            gather(fields.get(9).map_or(&[], Reply::items), names);
        }
    }
    let mut names = Vec::new();
    gather(connection.line("COMMAND").expect("a reply").items(), &mut names);
    assert!(names.len() > 60, "INVALID: {names:?}");
    names
}

/// All words of so many letters.
fn arrangements<'a>(letters: &[&'a str], len: usize) -> Vec<Vec<&'a str>> {
    let shorter = if len == 0 { return vec![Vec::new()] } else { arrangements(letters, len - 1) };
    shorter.iter().flat_map(|word| letters.iter().map(move |letter| [&word[..], &[*letter]].concat())).collect()
}

const NO_KEY: &str = "NOPERM No permissions to access a key";

/// Each key of each line is in turn one that its user may not touch.
const ONE_BY_ONE: &[&str] = &[
    "GET K",
    "SET K v",
    "SET K v GET",
    "SETEX K 9 v",
    "GETEX K",
    "GETDEL K",
    "APPEND K v",
    "MGET K K",
    "MSET K v K v",
    "MSETNX K v K v",
    "LCS K K",
    "STRLEN K",
    "GETRANGE K 0 1",
    "SETRANGE K 0 x",
    "INCR K",
    "INCRBYFLOAT K 1",
    "SETBIT K 1 1",
    "GETBIT K 1",
    "BITCOUNT K",
    "BITPOS K 1",
    "BITOP AND K K K",
    "BITFIELD K GET u8 0",
    "BITFIELD_RO K GET u8 0",
    "COPY K K",
    "DEL K K",
    "UNLINK K K",
    "EXISTS K K",
    "EXPIRE K 9",
    "TTL K",
    "PERSIST K",
    "RENAME K K",
    "RENAMENX K K",
    "TOUCH K K",
    "TYPE K",
    "MOVE K 1",
    "DUMP K",
    "OBJECT ENCODING K",
    "RESTORE K 0 x",
    "LPUSH K v",
    "RPOP K",
    "LLEN K",
    "LINDEX K 0",
    "LRANGE K 0 1",
    "SADD K v",
    "SREM K v",
    "SISMEMBER K v",
    "SMEMBERS K",
    "SPOP K",
    "HSET K f v",
    "HGET K f",
    "HDEL K f",
    "HGETALL K",
    "HINCRBY K f 1",
    "ZADD K 1 m",
    "ZSCORE K m",
    "ZRANGE K 0 1",
    "ZRANK K m",
    "ZREM K m",
    "ZPOPMIN K",
    "WATCH K K",
    "MEMORY USAGE K",
    "LOOK.AT 0 GET K",
    "LOOK.ONCE token SET K v",
];

#[test]
fn cve_2023_41053_each_key_of_a_command_is_checked() {
    let target = Target::start(&[]);
    assert_eq!(target.ask(&["ACL SETUSER bob on >pw +@all ~mine*"]), ["OK"]);
    let mut bob = target.server.connect();
    assert_eq!(bob.line("AUTH bob pw").expect("a reply").text(), "OK");
    let mut checked = 0;
    for line in ONE_BY_ONE {
        let places: Vec<usize> =
            line.split(' ').enumerate().filter(|(_, word)| *word == "K").map(|(at, _)| at).collect();
        for forbidden in &places {
            let request: Vec<Vec<u8>> = line
                .split(' ')
                .enumerate()
                .map(|(at, word)| match word {
                    "K" if at == *forbidden => b"theirs".to_vec(),
                    "K" => b"mine".to_vec(),
                    word => word.as_bytes().to_vec(),
                })
                .collect();
            let reply = bob.call(&request).expect("a reply");
            assert_eq!(reply.text(), NO_KEY, "{}", common::show(&request));
            checked += 1;
        }
    }
    assert!(checked > 70, "INVALID: {checked} requests");
    assert_eq!(target.ask(&["EXISTS theirs"]), ["0"]);
    target.stays_well();
}

#[test]
fn cve_2023_45145_the_unix_socket_has_its_mode_before_anybody_can_come() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("look.sock");
    let flag = format!("unixsocket={}", path.display());
    let target = Target::start(&["--set", &flag]);
    let mode = std::fs::metadata(&path).expect("a socket").permissions().mode() & 0o777;
    assert_eq!(mode, 0o700, "{mode:o}");
    assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 1, "the name before the move is gone");
    target.stays_well();
}

#[test]
fn cve_2024_31227_and_51741_malformed_rules_are_refused() {
    let target = Target::start(&[]);
    let mut random = Random::new(1);
    let mut connection = target.server.connect();
    for rule in [
        "%~x", "%", "%%", "(%~x)", "(%)", "()", "(", ")", "((", "(\"", "(%R)", "~", "&", "+", "-", "@", "+@", ">", "#",
        "!", "<",
    ] {
        connection.call(&request(&[b"ACL", b"SETUSER", b"x", rule.as_bytes()])).expect("a reply");
    }
    for _ in 0..2000 {
        let bytes: Vec<u8> = (0..random.below(9)).map(|_| *random.pick(b"%~RW()&+-@|*\"'\\ x\0\xff>#")).collect();
        connection.call(&request(&[b"ACL", b"SETUSER", b"x", &bytes])).expect("a reply");
    }
    connection.line("ACL LIST").expect("the user can be shown");
    connection.line("ACL DRYRUN x GET k").expect("and asked about");
    target.stays_well();
}

/// The server's threads have stacks of 256 KiB: nothing recurses by a client's word.
#[test]
fn cve_2024_31228_a_pattern_of_a_megabyte_on_a_small_stack() {
    let target = limited("ulimit -s 2048; export RUST_MIN_STACK=262144");
    let mut connection = target.server.connect();
    connection.call(&request(&[b"SET", &vec![b'a'; 1000], b"v"])).expect("a reply");
    for piece in ["*a", "[^b]*", "?*"] {
        let pattern = piece.repeat((1 << 20) / piece.len());
        connection.call(&request(&[b"KEYS", pattern.as_bytes()])).expect("a reply");
        connection.call(&request(&[b"CONFIG", b"GET", pattern.as_bytes()])).expect("a reply");
        let allowed = format!("~{pattern}");
        let rules: [&[u8]; 7] = [b"ACL", b"SETUSER", b"x", b"reset", b"+get", b"(~y)", allowed.as_bytes()];
        connection.call(&request(&rules)).expect("a reply");
        connection.call(&request(&[b"ACL", b"DRYRUN", b"x", b"GET", &vec![b'a'; 1000]])).expect("a reply");
    }
    target.stays_well();
}

/// A server under limits of the shell.
fn limited(limits: &str) -> Target {
    let dir = tempfile::tempdir().expect("a directory");
    let script = dir.path().join("start");
    std::fs::write(&script, format!("#!/bin/sh\n{limits}\nexec '{}' \"$@\"\n", look_binary().display()))
        .expect("a script");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).expect("it can run");
    let flags = ["--dir".to_owned(), dir.path().join("data").display().to_string()];
    let mut server = Server::launch(&script, dir.path(), common::server::free_port(), &flags).expect("it starts");
    server.await_ready(PATIENCE).expect("look starts");
    Target { server, dir }
}

#[test]
fn cve_2024_31449_every_number_at_its_ends() {
    let target = Target::start(&[]);
    target.ask(&["SET k abc", "RPUSH l a b", "ZADD z 1 a", "HSET h f 1", "SADD s a"]);
    let ends =
        ["-9223372036854775808", "-9223372036854775807", "-1", "0", "9223372036854775806", "9223372036854775807"];
    let shapes = [
        "GETRANGE k A B",
        "SUBSTR k A B",
        "LRANGE l A B",
        "ZRANGE z A B",
        "ZRANGE z A B REV",
        "ZRANGE z -inf +inf BYSCORE LIMIT A B",
        "BITCOUNT k A B",
        "BITPOS k 1 A B",
        "BITPOS k 0 A B BIT",
        "LINDEX l A",
        "INCRBY n A",
        "DECRBY n B",
        "HINCRBY h f A",
        "EXPIRE k A",
        "PEXPIRE k B",
        "EXPIREAT k A",
        "SET t v PX B",
        "GETEX k EX A",
        "SCAN A COUNT B",
        "LPOP e A",
        "RPOP e B",
        "SPOP e A",
        "ZPOPMIN e B",
        "RESTORE r A x",
        "BITFIELD b INCRBY i64 0 A INCRBY i64 0 B",
        "BITFIELD b OVERFLOW SAT INCRBY i8 0 A",
        "SETRANGE q A x",
        "SELECT A",
        "SWAPDB A B",
        "LOOK.AT A GET k",
        "WAIT A 1",
        "CLIENT KILL ID A",
        "SLOWLOG GET B",
        "DEBUG SLEEP nan",
        "ACL GENPASS A",
        "ACL LOG B",
        "OBJECT FREQ k",
        "MEMORY USAGE k SAMPLES A",
    ];
    let mut connection = target.server.connect();
    for shape in shapes {
        for a in ends {
            for b in ends {
                let line = shape.replace('A', "\u{1}").replace('B', "\u{2}");
                let line: Vec<String> = line
                    .split(' ')
                    .map(|word| match word {
                        "\u{1}" => a.to_owned(),
                        "\u{2}" => b.to_owned(),
                        word => word.replace('\u{1}', "A").replace('\u{2}', "B"),
                    })
                    .collect();
                connection.line(&line.join(" ")).unwrap_or_else(|e| panic!("{line:?}: {e}"));
            }
        }
    }
    target.stays_well();
}

/// A stranger sends for ever and reads nothing.
#[test]
fn cve_2025_21605_a_stranger_who_never_reads_gets_no_memory() {
    let target = Target::locked();
    let before = target.resident_kib();
    let mut stranger = TcpStream::connect(target.server.address()).expect("a connection");
    stranger.set_write_timeout(Some(Duration::from_millis(300))).expect("a limit");
    let block = b"NOSUCH\r\n".repeat(8 * 1024);
    let mut sent = 0;
    while sent < 256 << 20 && stranger.write_all(&block).is_ok() {
        sent += block.len();
    }
    let grown = target.resident_kib().saturating_sub(before);
    assert!(grown < 8 * 1024, "{sent} bytes sent, {grown} KiB grown");
    target.knows_friends();
}

#[test]
fn cve_2025_48367_no_more_descriptors_and_then_service_again() {
    let target = Target::start(&[]);
    let mut friend = target.server.connect();
    assert_eq!(friend.line("SET k v").expect("a reply").text(), "OK");
    // As if something had used them up: there is room for 20 more.
    let open = std::fs::read_dir(format!("/proc/{}/fd", target.server.pid())).expect("the server runs").count() as u64;
    let pid = rustix::process::Pid::from_raw(target.server.pid() as i32);
    let few = Rlimit { current: Some(open + 20), maximum: Some(open + 20) };
    rustix::process::prlimit(pid, Resource::Nofile, few).expect("a child may be limited");
    let open_one = || TcpStream::connect_timeout(&target.server.address(), Duration::from_secs(1)).ok();
    let storm: Vec<TcpStream> = (0..100).filter_map(|_| open_one()).collect();
    wait("the end of descriptors", || target.server.output().contains("Too many open files"));
    assert_eq!(friend.line("INCR n").expect("those who are in are served").int(), Some(1));
    drop(storm);
    let served = || -> std::io::Result<Reply> {
        let mut connection = Connection::open(target.server.address())?;
        connection.patience(Duration::from_secs(5))?;
        connection.line("INCR n")
    };
    wait("service after the storm", || served().is_ok_and(|reply| !reply.is_error()));
    target.stays_well();
}

/// Clients never take the descriptors that the log and the pages need.
#[test]
fn descriptors_are_kept_for_the_log() {
    let target = limited("ulimit -n 300");
    assert_eq!(target.ask(&["CONFIG GET maxclients"]), ["[\"maxclients\", \"75\"]"]);
    let refused = "ERR CONFIG SET failed (possibly related to argument 'maxclients') - The operating system is not able to \
                   handle the specified number of clients, try with 75";
    assert_eq!(target.ask(&["CONFIG SET maxclients 76"]), [refused]);
    let mut clients: Vec<TcpStream> =
        (0..100).filter_map(|_| TcpStream::connect(target.server.address()).ok()).collect();
    let mut answer = String::new();
    clients[99].read_to_string(&mut answer).expect("an answer and the end");
    assert_eq!(answer, "-ERR max number of clients reached\r\n");
    drop(clients);
    wait("service after the storm", || target.server.connect().line("SET k v").is_ok_and(|reply| !reply.is_error()));
    target.stays_well();
}

/// A version is pinned while it is read, not while somebody is connected who once read.
#[test]
fn more_clients_read_than_there_are_pins() {
    const CLIENTS: usize = 4300;
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.current.map(|now| now.max(CLIENTS as u64 + 500)), ..limit };
    if setrlimit(Resource::Nofile, wanted).is_err() {
        return skip("this process may not have so many descriptors");
    }
    let target = Target::start(&[]);
    let mut clients: Vec<Connection> = (0..CLIENTS).map(|_| target.server.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        assert!(client.line("GET k").expect("a reply").is_nil(), "client {number}");
    }
    assert_eq!(clients[0].line("SET k v").expect("a reply").text(), "OK");
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.line("GET k").expect("a reply").text(), "v", "client {number}");
    }
    assert!(clients[CLIENTS - 1].line("LOOK.AT 0 GET k").expect("a reply").is_nil());
    target.stays_well();
}

#[test]
fn cve_2025_62507_argument_counts_around_every_inline_capacity() {
    let target = Target::start(&[]);
    let mut connection = target.server.connect();
    let capacities = [4, 8, 16, 32, 64, 128, 256, 1024];
    let counts = capacities.iter().flat_map(|n| n - 1..n + 2);
    for count in counts {
        for name in
            ["DEL", "MGET", "EXISTS", "SADD s", "RPUSH l", "HDEL h", "NOSUCH", "ACL SETUSER x", "CLIENT LIST ID"]
        {
            let mut args = words(name);
            args.extend((0..count).map(|n: u32| n.to_string().into_bytes()));
            connection.call(&args).unwrap_or_else(|e| panic!("{name} with {count}: {e}"));
        }
        connection.line("DEL s l").expect("a reply");
    }
    target.stays_well();
}

/// A line reply has one end, whatever is told in it: the oracle of these tests refuses every other.
#[test]
fn cve_2025_67733_no_text_of_a_client_ends_a_reply() {
    let target = Target::start(&[]);
    let evil: &[u8] = b"x\r\n+OK\r\n:1\n\r\0\r\n$5\r\nabcde\r\n";
    let mut connection = target.server.connect();
    for args in [
        &[evil][..],
        &[b"SET", b"k", b"v", evil],
        &[b"OBJECT", evil],
        &[b"CLIENT", evil],
        &[b"CONFIG", b"SET", evil, evil],
        &[b"CLIENT", b"KILL", b"USER", evil],
        &[b"HELLO", b"3", evil],
        &[b"CLIENT", b"SETNAME", evil],
        &[b"CLIENT", b"SETINFO", evil, evil],
        &[b"ACL", b"SETUSER", evil],
        &[b"ACL", b"SETUSER", b"x", evil],
        &[b"ACL", b"SETUSER", b"x", b"(", evil],
        &[b"ACL", b"CAT", evil],
        &[b"ACL", b"DRYRUN", evil, evil],
        &[b"ACL", b"DRYRUN", b"default", evil],
        &[b"AUTH", evil, evil],
        &[b"COMMAND", evil],
        &[b"COMMAND", b"GETKEYS", evil],
        &[b"DEBUG", evil],
        &[b"LOOK.AT", evil, b"GET", b"k"],
        &[b"LOOK.ONCE", evil, evil],
        &[b"LATENCY", b"GRAPH", evil],
        &[b"SET", evil, evil],
        &[b"INCR", evil],
    ] {
        connection.call(&request(args)).unwrap_or_else(|e| panic!("{}: {e}", common::show(&request(args))));
        assert_eq!(connection.line("ECHO sync").expect("a reply").text(), "sync", "{}", common::show(&request(args)));
    }
    target.stays_well();
}

/// An empty request leaves nothing behind for the next.
#[test]
fn cve_2026_27623_empty_requests_between_others() {
    let target = Target::start(&[]);
    let answer = target.raw(b"*0\r\n*-1\r\n\r\n\r\n*1\r\n$4\r\nPING\r\n*0\r\nPING\r\n*2\r\n$4\r\nECHO\r\n$0\r\n\r\n*0\r\n*1\r\n$4\r\nPING\r\n");
    assert_eq!(String::from_utf8_lossy(&answer), "+PONG\r\n+PONG\r\n$0\r\n\r\n+PONG\r\n");
    target.stays_well();
}

/// Clients that leave while their commands are held, and come back.
#[test]
fn cve_2026_23479_a_client_leaves_while_it_waits() {
    let target = Target::start(&[]);
    let mut admin = target.server.connect();
    for round in 0..3 {
        assert_eq!(admin.line("CLIENT PAUSE 100000 ALL").expect("a reply").text(), "OK");
        let mut waiting: Vec<Connection> = (0..50).map(|_| target.server.connect()).collect();
        for client in &mut waiting {
            client.send_raw(b"INCR n\r\nMULTI\r\nINCR n\r\nGET n\r\nEXEC\r\n").expect("it is sent");
        }
        std::thread::sleep(Duration::from_millis(50));
        if round == 1 {
            admin.line("CLIENT KILL TYPE normal SKIPME yes").expect("a reply");
        }
        drop(waiting);
        assert_eq!(admin.line("CLIENT UNPAUSE").expect("a reply").text(), "OK");
        assert_eq!(admin.line("PING").expect("a reply").text(), "PONG");
    }
    let n: i64 = target.ask(&["INCR n"])[0].parse().expect("a number");
    assert!((1..=301).contains(&n), "{n}");
    target.stays_well();
}

/// The leader changes between MULTI and EXEC, and while EXEC is under way, also with clients who leave then: all of a transaction
/// happens or nothing.
#[test]
fn cve_2026_23631_the_leader_changes_within_a_transaction() {
    let dir = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::start(dir.path(), 3).expect("three nodes");
    let mut done = 0;
    for round in 0..6 {
        let leader = cluster.leader().expect("a leader");
        let (asked, next) = (1 + round % 3, 1 + leader % 3);
        let (mut client, mut leaver) = (cluster.node(asked).connect(), cluster.node(asked).connect());
        for line in ["MULTI", "INCR a", "INCR b"] {
            assert!(!client.line(line).expect("a reply").is_error(), "{line}");
            assert!(!leaver.line(line).expect("a reply").is_error(), "{line}");
        }
        if round % 2 == 0 {
            // A node that has just followed another leader may not know him yet
            wait("a transfer", || cluster.ask(next, &format!("LOOK.CLUSTER TRANSFER {next}")).is_ok());
        } else {
            let mut mover = cluster.node(next).connect();
            mover.send(&words(&format!("LOOK.CLUSTER TRANSFER {next}"))).expect("it is sent");
        }
        leaver.send(&words("EXEC")).expect("it is sent");
        drop(leaver);
        done += usize::from(!client.line("EXEC").expect("a reply").is_error());
    }
    assert_eq!(done, 6, "EXEC failed on a node that stayed up");
    let counts = cluster.ask(1, "MGET a b").expect("a reply");
    assert_eq!(counts.items()[0], counts.items()[1]);
    assert!(counts.items()[0].int() >= Some(6), "{counts:?}");
}

#[test]
fn cve_2026_25243_damaged_payloads_are_refused() {
    let target = Target::start(&[]);
    target.ask(&["SET k value", "RPUSH l a b c", "SADD s 1 2 3", "HSET h f v g w", "ZADD z 1 a 2 b"]);
    let mut connection = target.server.connect();
    let mut random = Random::new(1);
    let mut tried = 0;
    for key in ["k", "l", "s", "h", "z"] {
        let Reply::Bulk(dump) = connection.line(&format!("DUMP {key}")).expect("a reply") else { panic!("no dump") };
        for _ in 0..200 {
            let mut damaged = dump.clone();
            let at = random.below(damaged.len());
            damaged[at] ^= 1 << random.below(8);
            damaged.truncate(damaged.len() - if random.chance(20) { random.below(damaged.len()) } else { 0 });
            let reply = connection.call(&request(&[b"RESTORE", b"r", b"0", &damaged, b"REPLACE"])).expect("a reply");
            assert_eq!(reply.text(), "ERR DUMP payload version or checksum are wrong", "{}", damaged.escape_ascii());
            tried += 1;
        }
    }
    assert_eq!(tried, 1000);
    target.stays_well();
}

/// What one request may be, by the first bytes of it.
#[test]
fn requests_have_limits() {
    let target = Target::locked();
    let hello = "*1\r\n$4\r\nPING\r\n";
    let count = "-ERR Protocol error: unauthenticated multibulk length\r\n";
    let bulk = "-ERR Protocol error: unauthenticated bulk length\r\n";
    for (bytes, answer) in
        [("*11\r\n", count), ("*10\r\n$16385\r\n", bulk), (hello, "-NOAUTH Authentication required.\r\n")]
    {
        assert_eq!(String::from_utf8_lossy(&target.raw(bytes.as_bytes())), answer, "{bytes:?} of a stranger");
    }
    let quotes = "-ERR Protocol error: unbalanced quotes in request\r\n".to_owned();
    let inline = "-ERR Protocol error: too big inline request\r\n".to_owned();
    let buffer = "-ERR Protocol error: request exceeds client-query-buffer-limit\r\n".to_owned();
    for (bytes, answer) in [
        ("SET a \"b\r\n".to_owned(), quotes),
        ("x".repeat(100_000), inline),
        ("*2\r\n$4\r\nECHO\r\n$67108864\r\n".to_owned(), buffer),
    ] {
        let answers = target.raw(format!("AUTH secret\r\n{bytes}").as_bytes());
        assert_eq!(String::from_utf8_lossy(&answers), format!("+OK\r\n{answer}"));
    }
    target.knows_friends();
}

/// Browsers and others who were sent here by somebody else: none of what they bring is run.
#[test]
fn other_protocols_are_hung_up_on() {
    let target = Target::start(&[]);
    for hostile in
        ["POST / HTTP/1.1\r\nHost: x\r\n\r\nSET a 1\r\n", "Host: x\r\nSET a 1\r\n", "PING\r\npost / x\r\nSET a 1\r\n"]
    {
        let answer = String::from_utf8_lossy(&target.raw(hostile.as_bytes())).into_owned();
        assert!(answer.is_empty() || answer == "+PONG\r\n", "{answer}");
    }
    let mut everything = Vec::new();
    encode(&words("EXISTS a"), &mut everything);
    assert_eq!(target.raw(&everything), b":0\r\n");
    let _ = &target.dir;
    target.stays_well();
}
