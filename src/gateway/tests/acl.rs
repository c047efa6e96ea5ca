//! Users and their rights over a real socket.

use super::*;

const OK: &str = "+OK\r\n";
const NO_KEY: &str = "-NOPERM No permissions to access a key\r\n";

fn no_command(user: &str, command: &str) -> String {
    format!("-NOPERM User {user} has no permissions to run the '{command}' command\r\n")
}

/// An administrator, and bob, who has these rules.
async fn bob(gateway: &Gateway<Fake>, rules: &str) -> (Peer, Peer) {
    let (mut admin, mut bob) = (Peer::connect(gateway).await, Peer::connect(gateway).await);
    admin.says(&format!("ACL SETUSER bob on >pw {rules}"), OK).await;
    bob.says("AUTH bob pw", OK).await;
    (admin, bob)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_may_what_his_rules_say_and_refusals_are_logged() {
    let (gateway, fake) = start().await;
    let (mut admin, mut bob) = bob(&gateway, "+get +set +ping ~a* %R~r*").await;
    bob.send(
        b"SET a1 x\r\nGET a1\r\nGET r1\r\nSET r1 x\r\nGET b\r\nINCR a1\r\nPING\r\nECHO x\r\nCLIENT ID\r\nGET a1\r\n",
    )
    .await;
    bob.expect(&format!("+OK\r\n$1\r\nx\r\n$-1\r\n{NO_KEY}{NO_KEY}{}+PONG\r\n", no_command("bob", "incr"))).await;
    bob.expect(&format!("{}{}$1\r\nx\r\n", no_command("bob", "echo"), no_command("bob", "client|id"))).await;
    assert_eq!(locked_keys(&fake), ["a1"]);
    let log = admin.ask("ACL LOG 1").await;
    assert!(
        log.contains("command") && log.contains("client|id") && log.contains("bob") && log.contains("toplevel"),
        "{log}"
    );
    assert!(log.contains(" user=bob "), "the connection's line: {log}");
    let log = admin.ask("ACL LOG").await;
    assert!(log.starts_with("*5\r\n"), "{log}");
    admin.says("ACL LOG RESET", OK).await;
    admin.says("ACL LOG", "*0\r\n").await;
}

fn locked_keys(fake: &Fake) -> Vec<String> {
    super::super::clients::locked(&fake.state).keys()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_holds_at_once_on_connections_that_are_there() {
    let (gateway, _) = start().await;
    let (mut admin, mut bob) = bob(&gateway, "+get ~*").await;
    bob.says("GET a", "$-1\r\n").await;
    admin.says("ACL SETUSER bob resetkeys ~b", OK).await;
    bob.says("GET a", NO_KEY).await;
    bob.says("GET b", "$-1\r\n").await;
    admin.says("ACL SETUSER bob +@all ~*", OK).await;
    bob.says("SET a 1", OK).await;
    admin.says("ACL SETUSER bob off", OK).await;
    bob.says("GET a", "$1\r\n1\r\n").await;
    bob.says("AUTH bob pw", "-WRONGPASS invalid username-password pair or user is disabled.\r\n").await;
    admin
        .says(
            "ACL SETUSER bob +nosuch",
            "-ERR Error in ACL SETUSER modifier '+nosuch': Unknown command or category name in ACL\r\n",
        )
        .await;
    admin.says("ACL SETUSER bob -set %~x", "-ERR Error in ACL SETUSER modifier '%~x': Adding a pattern").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_a_removed_user_are_closed_even_when_the_name_comes_again() {
    let (gateway, _) = start().await;
    let (mut admin, mut bob) = bob(&gateway, "+@all ~*").await;
    admin.says("ACL DELUSER nobody bob bob", ":1\r\n").await;
    bob.is_closed().await;
    admin.says("ACL SETUSER bob on >pw +@all ~*", OK).await;
    let mut again = Peer::connect(&gateway).await;
    again.says("AUTH bob pw", OK).await;
    again.says("ACL WHOAMI", "$3\r\nbob\r\n").await;
    admin.says("ACL DELUSER default", "-ERR The 'default' user cannot be removed\r\n").await;
    again.says("ACL DELUSER bob", ":1\r\n").await;
    again.is_closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_is_checked_when_queued_and_when_it_runs() {
    let (gateway, _) = start().await;
    let (mut admin, mut bob) = bob(&gateway, "+@all -incr ~a").await;
    bob.says("MULTI", OK).await;
    bob.says("INCR a", &no_command("bob", "incr")).await;
    bob.says("EXEC", "-EXECABORT Transaction discarded because of previous errors.\r\n").await;
    bob.says("MULTI", OK).await;
    bob.says("GET b", NO_KEY).await;
    bob.says("DISCARD", OK).await;
    bob.says("WATCH b", NO_KEY).await;
    bob.says("MULTI", OK).await;
    bob.says("SET a 1", "+QUEUED\r\n").await;
    bob.says("GET a", "+QUEUED\r\n").await;
    bob.says("PING", "+QUEUED\r\n").await;
    admin.says("ACL SETUSER bob -get -ping", OK).await;
    bob.send(b"EXEC\r\n").await;
    let changed = "-NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This command is no \
                   longer allowed for the following reason: no permission to execute the command or subcommand\r\n";
    bob.expect(&format!("*3\r\n+OK\r\n{changed}{changed}")).await;
    let log = admin.ask("ACL LOG 1").await;
    assert!(log.contains("$5\r\nmulti\r\n") && log.contains("$4\r\nping\r\n"), "{log}");
    admin.says("ACL SETUSER bob -exec", OK).await;
    bob.says("MULTI", OK).await;
    bob.says("SET a 1", "+QUEUED\r\n").await;
    bob.says(
        "EXEC",
        "-EXECABORT Transaction discarded because of: NOPERM User bob has no permissions to run the 'exec' command\r\n",
    )
    .await;
    bob.says("DISCARD", "-ERR DISCARD without MULTI\r\n").await;
    bob.says("MULTI", OK).await;
    bob.says("ACL SETUSER bob +@all", "-ERR Command not allowed inside a transaction\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_inside_another_is_checked_too_and_the_past_by_todays_rights() {
    let (gateway, _) = start().await;
    let (mut admin, mut bob) = bob(&gateway, "+@all ~*").await;
    bob.says("SET secret 1", OK).await;
    bob.says("LOOK.AT 1 GET secret", "$-1\r\n").await;
    bob.says("LOOK.READAT 2", OK).await;
    bob.says("GET secret", "$1\r\n1\r\n").await;
    admin.says("ACL SETUSER bob resetkeys ~a -incr", OK).await;
    bob.says("GET secret", NO_KEY).await;
    bob.says("LOOK.READAT OFF", OK).await;
    bob.says("LOOK.AT 2 GET secret", NO_KEY).await;
    bob.says("LOOK.ONCE t SET secret 2", NO_KEY).await;
    bob.says("LOOK.ONCE t INCR a", &no_command("bob", "incr")).await;
    bob.says("LOOK.ONCE t SET a 2", OK).await;
    admin.says("GET secret", "$1\r\n1\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_given_at_the_same_time_all_count() {
    let (gateway, _) = start().await;
    let mut admins = Vec::new();
    for _ in 0..8 {
        admins.push(Peer::connect(&gateway).await);
    }
    let all = admins.iter_mut().enumerate().map(|(i, admin)| async move {
        for j in 0..5 {
            admin.says(&format!("ACL SETUSER bob ~{i}-{j}"), OK).await;
        }
    });
    futures_util::future::join_all(all).await;
    let users = gateway.shared().acl.users();
    assert_eq!(users.get(b"bob").unwrap().user.root.describe_keys().len(), 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_one_is_shows_everywhere_and_reset_forgets_it() {
    let (gateway, _) = start().await;
    let (mut admin, mut bob) = bob(&gateway, "+@all ~* &c (+get ~x)").await;
    bob.says("ACL WHOAMI", "$3\r\nbob\r\n").await;
    assert!(admin.ask("CLIENT LIST").await.contains(" user=bob "));
    admin.says("ACL USERS", "*2\r\n$3\r\nbob\r\n$7\r\ndefault\r\n").await;
    let list = admin.ask("ACL LIST").await;
    let hash = "30c952fab122c3f9759f02a6d95c3758b246b4fee239957b2d4fee46e26170c4";
    assert!(
        list.contains(&format!(
            "user bob on sanitize-payload #{hash} ~* resetchannels &c +@all (~x resetchannels -@all +get)\r\n"
        )),
        "{list}"
    );
    let get = admin.ask("ACL GETUSER bob").await;
    assert!(get.starts_with("*12\r\n$5\r\nflags\r\n*2\r\n$2\r\non\r\n") && get.contains(hash), "{get}");
    admin.says("ACL GETUSER nobody", "$-1\r\n").await;
    admin.says("CLIENT KILL USER nobody", "-ERR No such user 'nobody'\r\n").await;
    bob.says("RESET", "+RESET\r\n").await;
    bob.says("ACL WHOAMI", "$7\r\ndefault\r\n").await;
    assert!(bob.ask("HELLO 3 AUTH bob pw").await.starts_with("%7\r\n"));
    assert!(bob.ask("HELLO 3 AUTH bob no").await.starts_with("-WRONGPASS "));
    let log = admin.ask("ACL LOG 1").await;
    assert!(log.contains("$4\r\nauth\r\n") && log.contains("$5\r\nHELLO\r\n"), "{log}");
    admin.says("CLIENT KILL USER bob", ":1\r\n").await;
    bob.is_closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_user_can_be_limited_and_locked() {
    let (gateway, _) = start().await;
    let (mut admin, mut old) = (Peer::connect(&gateway).await, Peer::connect(&gateway).await);
    admin.says("ACL SETUSER admin on >pw +@all ~*", OK).await;
    admin.says("AUTH admin pw", OK).await;
    old.says("GET a", "$-1\r\n").await;
    admin.says("ACL SETUSER default -get", OK).await;
    old.says("GET a", &no_command("default", "get")).await;
    admin.says("ACL SETUSER default off", OK).await;
    old.says("PING", "+PONG\r\n").await;
    let mut new = Peer::connect(&gateway).await;
    new.says("PING", "-NOAUTH Authentication required.\r\n").await;
    admin.says("ACL SETUSER default on", OK).await;
    new.says("PING", "+PONG\r\n").await;
    admin.says("CONFIG SET requirepass secret", OK).await;
    new.says("PING", "-NOAUTH Authentication required.\r\n").await;
    old.says("PING", "+PONG\r\n").await;
    new.says("AUTH secret", OK).await;
    new.says("GET a", &no_command("default", "get")).await;
    admin.says("CONFIG GET requirepass", "*2\r\n$11\r\nrequirepass\r\n$0\r\n\r\n").await;
    admin.says("CONFIG SET requirepass \"\"", OK).await;
    new.says("AUTH secret", "-ERR AUTH <password> called without any password configured for the default user").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_takes_time_also_in_a_transaction() {
    let (gateway, _) = start().await;
    let (_, mut bob) = bob(&gateway, "+multi +exec").await;
    let started = std::time::Instant::now();
    bob.send(b"MULTI\r\nAUTH bob a\r\nAUTH bob b\r\nAUTH bob c\r\nEXEC\r\n").await;
    bob.expect("+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n-WRONGPASS ").await;
    assert!(started.elapsed() >= Duration::from_millis(150), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_are_saved_to_and_loaded_from_the_file_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.acl");
    std::fs::write(&path, "user first on nopass ~* +@all\n").unwrap();
    let (gateway, _) = start_with(&[("aclfile", path.to_str().unwrap())]).await;
    let (mut admin, mut bob) = bob(&gateway, "+get ~a").await;
    admin.says("ACL USERS", "*3\r\n$3\r\nbob\r\n$7\r\ndefault\r\n$5\r\nfirst\r\n").await;
    admin.says("ACL SAVE", OK).await;
    let saved = std::fs::read_to_string(&path).unwrap();
    assert!(
        saved.starts_with("user bob on sanitize-payload #30c952") && saved.contains(" ~a resetchannels -@all +get\n"),
        "{saved}"
    );
    std::fs::write(&path, format!("{saved}user wrong %~x\n")).unwrap();
    admin
        .says("ACL LOAD", &format!("-ERR {}:4: Syntax error. WARNING: ACL errors detected, no change", path.display()))
        .await;
    let mut admin = Peer::connect(&gateway).await;
    std::fs::write(&path, saved.replace("user first", "user second").replace("~a ", "~b ")).unwrap();
    admin.says("ACL LOAD", OK).await;
    admin.says("ACL USERS", "*3\r\n$3\r\nbob\r\n$7\r\ndefault\r\n$6\r\nsecond\r\n").await;
    bob.says("GET a", NO_KEY).await;
    bob.says("GET b", "$-1\r\n").await;
    std::fs::remove_file(&path).unwrap();
    admin
        .says(
            "ACL LOAD",
            &format!("-ERR Error loading ACLs, opening file '{}': No such file or directory\r\n", path.display()),
        )
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_whose_acl_file_is_wrong_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.acl");
    let start = || {
        let parameters = vec![("aclfile".to_owned(), path.display().to_string())];
        let listen = vec!["127.0.0.1:0".parse().unwrap()];
        Gateway::start(GatewayOptions { listen, parameters, ..GatewayOptions::default() }, Fake::new())
    };
    let error = start().await.err().unwrap().to_string();
    assert!(error.contains("No such file"), "{error}");
    std::fs::write(&path, "user a +nosuch\n").unwrap();
    let error = start().await.err().unwrap().to_string();
    assert!(
        error.contains(":1: Error in applying operation '+nosuch'") && error.contains("correct the file"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_tells_what_would_be_refused() {
    let (gateway, _) = start().await;
    let (mut admin, _) = bob(&gateway, "+get +client|id ~a").await;
    for (line, reply) in [
        ("bob GET a", OK),
        ("bob GET b", "$52\r\nUser bob has no permissions to access the 'b' key\r\n"),
        ("bob INCR a", "$54\r\nUser bob has no permissions to run the 'incr' command\r\n"),
        ("bob CLIENT ID", OK),
        ("bob CLIENT LIST", "$61\r\nUser bob has no permissions to run the 'client|list' command\r\n"),
        ("bob GET", "-ERR wrong number of arguments for 'get' command\r\n"),
        ("bob nosuch x", "-ERR Command 'nosuch' not found\r\n"),
        ("ann GET x", "-ERR User 'ann' not found\r\n"),
    ] {
        let reply = match reply.split_once("\r\n") {
            Some((head, text)) if head.starts_with('$') => format!("${}\r\n{text}", text.len() - 2),
            _ => reply.to_owned(),
        };
        admin.says(&format!("ACL DRYRUN {line}"), &reply).await;
    }
}
