//! ACL against the real Redis: the same rules, questions and errors; and in a cluster, where a change is everybody's.
//!
//! Debian's Redis is 7.0, and what 7.2 says otherwise is put into its words first ([`as_of_7_2`]).

mod common;

use common::resp::{Connection, Reply};
use common::server::skip;
use common::{Cluster, PATIENCE, Random, Server, setting, wait, words};

/// What both servers have.
const COMMANDS: [&str; 16] = [
    "get a",
    "set a 1",
    "set b 1 GET",
    "mget a b",
    "rename a b",
    "copy b a",
    "exists a",
    "strlen b",
    "del a b",
    "hset b f v",
    "config get x",
    "config set hz 10",
    "select 0",
    "select 1",
    "flushall",
    "ping",
];
const RULES: [&str; 62] = [
    "on",
    "off",
    "nopass",
    "resetpass",
    ">one",
    ">two",
    "<one",
    "<two",
    "#abc",
    "!abc",
    "reset",
    "allkeys",
    "resetkeys",
    "~*",
    "~a",
    "~b*",
    "%R~a",
    "%W~b",
    "%RW~a",
    "%~a",
    "%X~a",
    "%R",
    "%",
    "~",
    "&*",
    "&ch",
    "allchannels",
    "resetchannels",
    "+@all",
    "-@all",
    "allcommands",
    "nocommands",
    "+get",
    "-get",
    "+SET",
    "+mget",
    "+rename",
    "-rename",
    "+config",
    "+config|get",
    "-config|set",
    "+config|nosuch",
    "+nosuch",
    "-nosuch",
    "+@string",
    "-@string",
    "+@read",
    "+@Write",
    "-@dangerous",
    "+@keyspace",
    "+@nosuch",
    "+select|0",
    "+select|1",
    "-select|0",
    "+select|",
    "+config|get|x",
    "+@fast",
    "-@slow",
    "(+get ~a)",
    "(%R~a +@read)",
    "(on)",
    "clearselectors",
];

/// A reply of Redis 7.0 as 7.2 gives it.
fn as_of_7_2(reply: Reply, user: &str) -> Reply {
    let text = |bytes: Vec<u8>| {
        let text = String::from_utf8_lossy(&bytes).replace("This user has", &format!("User {user} has"));
        let text = text.replace("NOPERM this user has", &format!("NOPERM User {user} has"));
        let key = "NOPERM User someone has no permissions to access one of the keys used as arguments";
        text.replace(key, "NOPERM No permissions to access a key").into_bytes()
    };
    match reply {
        Reply::Error(bytes) => Reply::Error(text(bytes)),
        Reply::Bulk(bytes) => Reply::Bulk(text(bytes)),
        Reply::Array(items) => Reply::Array(items.into_iter().map(|item| as_of_7_2(item, user)).collect()),
        other => other,
    }
}

struct Pair {
    look: Connection,
    redis: Connection,
}

impl Pair {
    fn ask(&mut self, request: &[Vec<u8>], history: &[String]) -> Reply {
        let (look, redis) =
            (self.look.call(request).expect("look answers"), self.redis.call(request).expect("redis answers"));
        let redis = as_of_7_2(redis, "someone");
        assert_eq!(look, redis, "{} after {history:#?}", common::show(request));
        look
    }
    fn line(&mut self, line: &str, history: &[String]) -> Reply {
        self.ask(&words(line), history)
    }
}

/// The line of the user under test. 7.0 finds words of its own for the rules about commands; what those permit is asked by itself.
fn list(connection: &mut Connection) -> String {
    let Reply::Array(users) = connection.line("ACL LIST").expect("a list") else { panic!("no list") };
    let someone = users.into_iter().find(|u| matches!(u, Reply::Bulk(line) if line.starts_with(b"user someone ")));
    let line = someone.unwrap_or(Reply::NilBulk).text();
    line.split(' ').filter(|word| !word.starts_with(['+', '-'])).collect::<Vec<_>>().join(" ")
}

fn pair(look: &Server, redis: &Server) -> Pair {
    Pair { look: look.connect(), redis: redis.connect() }
}

#[test]
fn rules_permissions_and_errors_are_redis_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(redis) = Server::redis(&dir.path().join("redis")) else { return skip("ACL against Redis") };
    let look = Server::look(&dir.path().join("look"), &[]).expect("look starts");
    let seed = setting("LOOK_ACL_SEED", 1);
    for round in 0..setting("LOOK_ACL_ROUNDS", 150) {
        let mut random = Random::new(seed + round);
        let mut pair = pair(&look, &redis);
        let mut history = vec![format!("seed {}", seed + round)];
        pair.line("ACL DELUSER someone", &history);
        // The default of 7.2, which 7.0 shows only when it is said.
        pair.line("ACL SETUSER someone sanitize-payload", &history);
        for _ in 0..random.between(1, 6) {
            let rules: Vec<&str> = (0..random.between(1, 3)).map(|_| *random.pick(&RULES)).collect();
            let mut request = words("ACL SETUSER someone");
            request.extend(rules.iter().map(|rule| rule.as_bytes().to_vec()));
            history.push(rules.join(" "));
            pair.ask(&request, &history);
            assert_eq!(list(&mut pair.look), list(&mut pair.redis), "{history:#?}");
        }
        for command in COMMANDS {
            pair.line(&format!("ACL DRYRUN someone {command}"), &history);
        }
        pair.line("ACL SETUSER someone on >pw", &history);
        pair.line("AUTH someone pw", &history);
        for command in COMMANDS {
            // The data may differ, the verdict must not.
            let request = words(command);
            let (ours, theirs) =
                (pair.look.call(&request).expect("a reply"), pair.redis.call(&request).expect("a reply"));
            let (ours, theirs) = (format!("{ours:?}"), format!("{:?}", as_of_7_2(theirs, "someone")));
            assert_eq!(
                ours.starts_with("-NOPERM"),
                theirs.starts_with("-NOPERM"),
                "{command}: {ours} {theirs} {history:#?}"
            );
            assert!(!ours.starts_with("-NOPERM") || ours == theirs, "{command}: {ours} {theirs} {history:#?}");
        }
    }
}

#[test]
fn what_acl_says_is_what_redis_says() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(redis) = Server::redis(&dir.path().join("redis")) else { return skip("ACL against Redis") };
    let look = Server::look(&dir.path().join("look"), &[]).expect("look starts");
    let mut pair = pair(&look, &redis);
    for line in [
        "ACL",
        "ACL NOSUCH",
        "ACL WHOAMI",
        "ACL WHOAMI x",
        "ACL USERS",
        "ACL GETUSER nobody",
        "ACL CAT nosuch",
        "ACL CAT a b",
        "ACL GENPASS 0",
        "ACL GENPASS 5000",
        "ACL GENPASS x",
        "ACL GENPASS 1 2",
        "ACL LOG x",
        "ACL LOG -1",
        "ACL LOG 1 2",
        "ACL DELUSER",
        "ACL DELUSER default",
        "ACL DELUSER nobody",
        "ACL SAVE",
        "ACL LOAD",
        "ACL HELP",
        "ACL SETUSER",
        "ACL SETUSER someone (+get",
        "ACL SETUSER someone on (+PING (+SELECT (+DEL",
        "ACL SETUSER someone on sanitize-payload (+get ~a) (+set ~b )",
        "ACL GETUSER someone",
        "ACL DRYRUN nobody get a",
        "ACL DRYRUN someone nosuch",
        "ACL DRYRUN someone get",
        "ACL DRYRUN someone config nosuch",
        "ACL DRYRUN someone get a",
        "ACL DRYRUN someone get b",
        "AUTH x",
        "AUTH nobody x",
        "AUTH a b c",
        "HELLO 2 AUTH nobody x",
        "CLIENT KILL USER nobody",
    ] {
        let reply = pair.line(line, &[]);
        if line == "ACL GETUSER someone" {
            assert!(format!("{reply:?}").contains("selectors"), "{reply:?}");
        }
    }
    // Of a category's commands, those that both have.
    for category in [
        "keyspace",
        "read",
        "write",
        "string",
        "hash",
        "list",
        "set",
        "sortedset",
        "bitmap",
        "fast",
        "slow",
        "admin",
        "dangerous",
        "connection",
        "transaction",
    ] {
        let ask = |connection: &mut Connection, what: &str| {
            let Reply::Array(names) = connection.line(what).expect("a reply") else { panic!("{what}: no list") };
            names.iter().map(Reply::text).collect::<std::collections::BTreeSet<_>>()
        };
        let ours = ask(&mut pair.look, &format!("ACL CAT {category}"));
        let theirs = ask(&mut pair.redis, &format!("ACL CAT {category}"));
        let both: std::collections::BTreeSet<_> =
            ask(&mut pair.look, "COMMAND LIST").intersection(&ask(&mut pair.redis, "COMMAND LIST")).cloned().collect();
        let common = |set: &std::collections::BTreeSet<String>| {
            set.iter().filter(|name| both.contains(name.split('|').next().unwrap_or(name))).cloned().collect::<Vec<_>>()
        };
        let (ours, theirs) = (common(&ours), common(&theirs));
        // Subcommands that only one of them has say nothing.
        let differ: Vec<_> =
            ours.iter().filter(|n| !theirs.contains(n)).chain(theirs.iter().filter(|n| !ours.contains(n))).collect();
        let differ: Vec<_> = differ.into_iter().filter(|n| !n.contains('|')).collect();
        assert!(differ.is_empty(), "@{category}: {differ:?}");
    }
}

#[test]
fn a_user_is_everybodys_and_outlives_the_nodes() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut cluster = Cluster::start(dir.path(), 3).expect("a cluster");
    let mut one = cluster.node(1).connect();
    let ok = |reply: std::io::Result<Reply>| assert_eq!(reply.expect("a reply").text(), "OK");
    ok(one.line("ACL SETUSER bob on >pw ~b* +get +set"));
    let mut two = cluster.node(2).connect();
    // Another node knows him when it has applied the epoch.
    wait("node 2 hears of bob", || !two.line("AUTH bob pw").expect("a reply").is_error());
    ok(two.line("SET b 1"));
    assert_eq!(two.line("GET a").expect("a reply").text(), "NOPERM No permissions to access a key");
    cluster.kill9(3);
    cluster.launch(3).expect("a restart");
    cluster.await_writable(3, PATIENCE).expect("node 3 is back");
    let mut three = cluster.node(3).connect();
    ok(three.line("AUTH bob pw"));
    assert_eq!(three.line("GET b").expect("a reply").text(), "1");
    ok(one.line("SET other x"));
    assert_eq!(one.line("ACL DELUSER bob").expect("a reply"), Reply::Int(1));
    wait("bob reads no more on node 2", || two.line("GET b").is_err());
}
