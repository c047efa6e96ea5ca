//! The gateway over a real socket and a fake node: bytes in, bytes out.

mod acl;
mod fake;
mod limits;

use super::backend::Backend;
use super::{Gateway, GatewayOptions};
use fake::Fake;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

struct Peer(TcpStream);

/// What must come comes at once or never, but a machine that others keep busy takes its time.
const PATIENCE: Duration = Duration::from_secs(30);

async fn start_with(parameters: &[(&str, &str)]) -> (Gateway<Fake>, Fake) {
    let fake = Fake::new();
    let options = GatewayOptions {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        parameters: parameters.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        ..GatewayOptions::default()
    };
    (Gateway::start(options, fake.clone()).await.unwrap(), fake)
}

async fn start() -> (Gateway<Fake>, Fake) {
    start_with(&[]).await
}

impl Peer {
    async fn connect(gateway: &Gateway<Fake>) -> Peer {
        Peer(TcpStream::connect(gateway.addresses()[0]).await.unwrap())
    }
    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }
    /// Exactly `text` comes next.
    async fn expect(&mut self, text: &str) {
        let mut got = vec![0; text.len()];
        let read = tokio::time::timeout(PATIENCE, self.0.read_exact(&mut got)).await;
        match read {
            Ok(Ok(_)) => assert_eq!(String::from_utf8_lossy(&got), text),
            other => panic!("expected {text:?}, got {other:?} and {:?}", String::from_utf8_lossy(&got)),
        }
    }
    async fn says(&mut self, line: &str, reply: &str) {
        self.send(format!("{line}\r\n").as_bytes()).await;
        self.expect(reply).await;
    }
    /// One reply that fits one read.
    async fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes()).await;
        let mut got = vec![0; 1 << 20];
        let n = tokio::time::timeout(PATIENCE, self.0.read(&mut got)).await.unwrap().unwrap();
        String::from_utf8_lossy(&got[..n]).into_owned()
    }
    /// By the other side.
    async fn is_closed(&mut self) {
        let mut rest = Vec::new();
        let end = tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.expect("still open");
        assert!(end.is_err() || rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_see_the_writes_before_them_in_one_pipeline() {
    let (gateway, fake) = start().await;
    let mut peer = Peer::connect(&gateway).await;
    peer.send(b"GET a\r\nSET a 1\r\nGET a\r\nPING\r\nINCR a\r\nGET a\r\nnosuch x\r\nSET a\r\n").await;
    peer.expect("$-1\r\n+OK\r\n$1\r\n1\r\n+PONG\r\n:2\r\n$1\r\n2\r\n").await;
    peer.expect("-ERR unknown command 'nosuch', with args beginning with: 'x' \r\n").await;
    peer.expect("-ERR wrong number of arguments for 'set' command\r\n").await;
    assert_eq!(fake.chunks.load(Relaxed), 1);
    assert_eq!(fake.fences.load(Relaxed), 0, "riders need no fence");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_keep_the_order_of_requests_across_chunks_in_flight() {
    let (gateway, fake) = start().await;
    let mut peer = Peer::connect(&gateway).await;
    let (mut read, mut write) = peer.0.split();
    let send = async {
        for i in 1..=500 {
            write.write_all(b"INCR n\r\nGET n\r\nPING\r\n").await.unwrap();
            // What follows is in other chunks
            while fake.chunks.load(Relaxed) == 0 {
                tokio::task::yield_now().await;
            }
            if i % 7 == 0 {
                tokio::task::yield_now().await;
                write.write_all(b"GET n\r\n").await.unwrap();
            }
        }
    };
    let expected: String = (1..=500)
        .map(|i| {
            let get = format!("${}\r\n{i}\r\n", i.to_string().len());
            format!(":{i}\r\n{get}+PONG\r\n{}", if i % 7 == 0 { get.as_str() } else { "" })
        })
        .collect();
    let receive = async {
        let mut got = vec![0; expected.len()];
        read.read_exact(&mut got).await.unwrap();
        assert_eq!(String::from_utf8(got).unwrap(), expected);
    };
    tokio::time::timeout(PATIENCE, async { tokio::join!(send, receive) }).await.unwrap();
    assert!(fake.chunks.load(Relaxed) > 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_split_at_every_byte_is_answered_the_same() {
    let (gateway, _) = start().await;
    let input = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\nv\r\nw\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\nPING\r\n";
    for at in 1..input.len() {
        let mut peer = Peer::connect(&gateway).await;
        peer.send(&input[..at]).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        peer.send(&input[at..]).await;
        peer.expect("+OK\r\n$4\r\nv\r\nw\r\n+PONG\r\n").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_is_one_epoch_and_its_reads_are_inside() {
    let (gateway, _) = start().await;
    let mut peer = Peer::connect(&gateway).await;
    peer.send(b"MULTI\r\nSET a 1\r\nGET a\r\nINCR a\r\nPING x\r\nSELECT 1\r\nGET a\r\nFILL x\r\nEXEC\r\nLOOK.LAST\r\n")
        .await;
    peer.expect("+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n").await;
    peer.expect(
        "*7\r\n+OK\r\n$1\r\n1\r\n:2\r\n$1\r\nx\r\n+OK\r\n$-1\r\n-ERR value is not an integer or out of range\r\n:1\r\n",
    )
    .await;
    peer.says("SELECT 0", "+OK\r\n").await;
    peer.send(b"MULTI\r\nGET a\r\nPING\r\nEXEC\r\nGET a\r\nLOOK.LAST\r\n").await;
    peer.expect("+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n$1\r\n2\r\n+PONG\r\n$1\r\n2\r\n:1\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watched_key_that_changed_aborts_the_transaction() {
    let (gateway, _) = start().await;
    let (mut a, mut b) = (Peer::connect(&gateway).await, Peer::connect(&gateway).await);
    for queued in ["SET c 1", "GET a"] {
        a.says("WATCH a b", "+OK\r\n").await;
        b.says("SET a x", "+OK\r\n").await;
        a.send(format!("MULTI\r\n{queued}\r\nPING\r\nEXEC\r\nGET c\r\n").as_bytes()).await;
        a.expect("+OK\r\n+QUEUED\r\n+QUEUED\r\n*-1\r\n$-1\r\n").await;
    }
    a.says("WATCH a", "+OK\r\n").await;
    a.send(b"MULTI\r\nSET c 1\r\nEXEC\r\nGET c\r\n").await;
    a.expect("+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n$1\r\n1\r\n").await;
    a.says("WATCH a", "+OK\r\n").await;
    b.says("SET a y", "+OK\r\n").await;
    a.says("UNWATCH", "+OK\r\n").await;
    a.send(b"MULTI\r\nSET c 2\r\nEXEC\r\n").await;
    a.expect("+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_failed_has_not_selected_a_database() {
    let (gateway, _) = start().await;
    let (mut a, mut b) = (Peer::connect(&gateway).await, Peer::connect(&gateway).await);
    a.says("WATCH a", "+OK\r\n").await;
    b.says("SET a x", "+OK\r\n").await;
    a.send(b"PING\r\nMULTI\r\nSELECT 1\r\nSET a y\r\nEXEC\r\nGET a\r\n").await;
    a.expect("+PONG\r\n+OK\r\n+QUEUED\r\n+QUEUED\r\n*-1\r\n$1\r\nx\r\n").await;
    a.says("WATCH a", "+OK\r\n").await;
    a.send(b"MULTI\r\nSELECT 1\r\nSET a y\r\nEXEC\r\nGET a\r\n").await;
    a.expect("+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n+OK\r\n$1\r\ny\r\n").await;
    // Nor one that writes nothing
    a.says("SELECT 0", "+OK\r\n").await;
    a.says("WATCH a", "+OK\r\n").await;
    b.says("SET a z", "+OK\r\n").await;
    a.send(b"MULTI\r\nSELECT 1\r\nHELLO 3\r\nEXEC\r\nGET a\r\nGET none\r\n").await;
    a.expect("+OK\r\n+QUEUED\r\n+QUEUED\r\n*-1\r\n$1\r\nz\r\n$-1\r\n").await;
    a.says("WATCH a", "+OK\r\n").await;
    a.send(b"MULTI\r\nSELECT 1\r\nEXEC\r\nGET a\r\n").await;
    a.expect("+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n$1\r\ny\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queued_hello_changes_the_dialect_at_its_place_and_only_if_it_runs() {
    let (gateway, _) = start().await;
    let mut peer = Peer::connect(&gateway).await;
    peer.send(b"GET a\r\nMULTI\r\nSET b 1\r\nGET a\r\nHELLO 3\r\nGET a\r\nEXEC\r\nGET a\r\n").await;
    let hello = "%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.2.4\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:1\r\n\
                 $4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n";
    peer.expect(&format!(
        "$-1\r\n+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*4\r\n+OK\r\n$-1\r\n{hello}_\r\n_\r\n"
    ))
    .await;
    let mut other = Peer::connect(&gateway).await;
    peer.says("WATCH c", "+OK\r\n").await;
    other.says("SET c 1", "+OK\r\n").await;
    peer.send(b"MULTI\r\nHELLO 2\r\nSET b 1\r\nEXEC\r\nGET a\r\n").await;
    peer.expect("+OK\r\n+QUEUED\r\n+QUEUED\r\n_\r\n_\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_while_queueing_abort_exec() {
    let (gateway, _) = start().await;
    let mut peer = Peer::connect(&gateway).await;
    for (wrong, text) in [
        ("nosuch", "-ERR unknown command 'nosuch', with args beginning with: \r\n"),
        ("GET", "-ERR wrong number of arguments for 'get' command\r\n"),
        ("CLIENT NOSUCH", "-ERR unknown subcommand 'NOSUCH'. Try CLIENT HELP.\r\n"),
        ("SAVE", "-ERR Command not allowed inside a transaction\r\n"),
    ] {
        peer.says("MULTI", "+OK\r\n").await;
        peer.says(wrong, text).await;
        peer.says("SET a 1", "+QUEUED\r\n").await;
        peer.says("EXEC", "-EXECABORT Transaction discarded because of previous errors.\r\n").await;
    }
    peer.says("MULTI", "+OK\r\n").await;
    peer.says(
        "EXEC x",
        "-EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command\r\n",
    )
    .await;
    peer.says("EXEC", "-ERR EXEC without MULTI\r\n").await;
    peer.says("DISCARD", "-ERR DISCARD without MULTI\r\n").await;
    peer.says("MULTI", "+OK\r\n").await;
    peer.says("MULTI", "-ERR MULTI calls can not be nested\r\n").await;
    peer.says("WATCH a", "-ERR WATCH inside MULTI is not allowed\r\n").await;
    peer.says("DISCARD", "+OK\r\n").await;
    peer.says("GET a", "$-1\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_runs_its_command_once() {
    let (gateway, _) = start().await;
    let mut peer = Peer::connect(&gateway).await;
    peer.says("LOOK.ONCE t1 INCR a", ":1\r\n").await;
    peer.says("LOOK.ONCE t1 incr a", ":1\r\n").await;
    peer.says("LOOK.ONCE t1 INCR b", "-ERR token was used for another command\r\n").await;
    peer.says("LOOK.ONCE t2 INCR a", ":2\r\n").await;
    peer.says("LOOK.ONCE t3 INCR", "-ERR wrong number of arguments for 'incr' command\r\n").await;
    peer.send(b"SET b 5\r\nLOOK.ONCE t4 INCR\r\nINCR b\r\n").await;
    peer.expect("+OK\r\n-ERR wrong number of arguments for 'incr' command\r\n:6\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_past_is_read_and_not_written() {
    let (gateway, _) = start().await;
    let mut peer = Peer::connect(&gateway).await;
    peer.send(b"SET a 1\r\nSET a 2\r\nLOOK.AT 1 GET a\r\nLOOK.EPOCH\r\nLOOK.READAT 1\r\nGET a\r\nSET a 3\r\nLOOK.READAT off\r\nGET a\r\n").await;
    peer.expect("+OK\r\n+OK\r\n$1\r\n1\r\n:2\r\n+OK\r\n$1\r\n1\r\n").await;
    peer.expect("-ERR this connection reads the past; LOOK.READAT OFF allows writes again\r\n+OK\r\n$1\r\n2\r\n").await;
    peer.says("LOOK.AT 9 GET a", "-EPOCHFUTURE upper=3\r\n").await;
    peer.says("LOOK.READAT 9", "-EPOCHFUTURE upper=3\r\n").await;
    peer.says("LOOK.AT 1 SET a 1", "-ERR LOOK.AT takes a command that reads; the past does not change\r\n").await;
    peer.says("LOOK.READAT x", "-ERR epoch must be a number, t:<milliseconds since 1970>, -<n>s or -<n>ms\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn muted_commands_run_and_say_nothing() {
    let (gateway, _) = start().await;
    let mut peer = Peer::connect(&gateway).await;
    peer.send(b"CLIENT REPLY SKIP\r\nINCR a\r\nINCR a\r\nCLIENT REPLY OFF\r\nINCR a\r\nPING\r\nnosuch\r\nCLIENT ID\r\nCLIENT REPLY ON\r\nGET a\r\n").await;
    peer.expect(":2\r\n+OK\r\n$1\r\n3\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_may_only_authenticate() {
    let (gateway, _) = start_with(&[("requirepass", "secret")]).await;
    let mut peer = Peer::connect(&gateway).await;
    peer.says("GET a", "-NOAUTH Authentication required.\r\n").await;
    peer.says("PING", "-NOAUTH Authentication required.\r\n").await;
    assert!(peer.ask("HELLO 3").await.starts_with("-NOAUTH HELLO must be called"));
    peer.says("AUTH wrong", "-WRONGPASS invalid username-password pair or user is disabled.\r\n").await;
    peer.says("AUTH nobody secret", "-WRONGPASS invalid username-password pair or user is disabled.\r\n").await;
    peer.send(b"*11\r\n").await;
    peer.expect("-ERR Protocol error: unauthenticated multibulk length\r\n").await;
    peer.is_closed().await;
    let mut peer = Peer::connect(&gateway).await;
    peer.send(b"AUTH default secret\r\nGET a\r\n").await;
    peer.expect("+OK\r\n$-1\r\n").await;
    peer.says("RESET", "+RESET\r\n").await;
    peer.says("GET a", "-NOAUTH Authentication required.\r\n").await;
    assert!(peer.ask("HELLO 3 AUTH default secret SETNAME me").await.starts_with("%7\r\n$6\r\nserver\r\n"));
    peer.says("CLIENT GETNAME", "$2\r\nme\r\n").await;
    peer.says("GET a", "_\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_replies_is_set_by_an_epoch_and_the_rest_is_not() {
    let (gateway, fake) = start().await;
    let mut peer = Peer::connect(&gateway).await;
    peer.says("CONFIG SET maxclients 50 requirepass one", "+OK\r\n").await;
    peer.says("LOOK.LAST", ":1\r\n").await;
    // The password is the default user's, and only its hash is kept.
    assert_eq!(fake.system().get(b"config:requirepass"), None);
    assert!(
        fake.system().get(b"user:default").is_some_and(|user| user.starts_with(b"0 on sanitize-payload #7692c3ad"))
    );
    assert_eq!(fake.system().get(b"config:maxclients"), None);
    Peer::connect(&gateway).await.says("GET a", "-NOAUTH Authentication required.\r\n").await;
    peer.says("CONFIG SET tcp-keepalive 5", "+OK\r\n").await;
    peer.says("LOOK.LAST", ":1\r\n").await;
    peer.send(
        b"MULTI\r\nSET a 1\r\nCONFIG SET requirepass two timeout 50\r\nCONFIG SET nosuch 1\r\nEXEC\r\nLOOK.LAST\r\n",
    )
    .await;
    let no = "-ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'\r\n";
    peer.expect(&format!("+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n+OK\r\n+OK\r\n{no}:2\r\n")).await;
    peer.says("AUTH one", "-WRONGPASS invalid username-password pair or user is disabled.\r\n").await;
    peer.says("AUTH two", "+OK\r\n").await;
    fake.refuse.store(true, Relaxed);
    peer.says("CONFIG SET requirepass three timeout 7", "-NOQUORUM no leader\r\n").await;
    peer.says("CONFIG GET timeout", "*2\r\n$7\r\ntimeout\r\n$2\r\n50\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_protocols_are_hung_up_on() {
    let (gateway, fake) = start().await;
    for hostile in [&b"POST / HTTP/1.1\r\nHost: x\r\n\r\nSET a 1\r\n"[..], b"Host: x\r\nSET a 1\r\n"] {
        let mut peer = Peer::connect(&gateway).await;
        peer.send(hostile).await;
        peer.is_closed().await;
    }
    let mut peer = Peer::connect(&gateway).await;
    peer.send(b"SET a 1\r\n*1\r\n$x\r\nSET a 2\r\n").await;
    peer.expect("+OK\r\n-ERR Protocol error: invalid bulk length\r\n").await;
    peer.is_closed().await;
    assert_eq!(fake.chunks.load(Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_listed_paused_and_killed() {
    let (gateway, _) = start_with(&[("maxclients", "2")]).await;
    let (mut a, mut b) = (Peer::connect(&gateway).await, Peer::connect(&gateway).await);
    a.says("CLIENT SETNAME first", "+OK\r\n").await;
    b.says("CLIENT ID", ":2\r\n").await;
    let mut c = Peer::connect(&gateway).await;
    c.expect("-ERR max number of clients reached\r\n").await;
    c.is_closed().await;
    let list = a.ask("CLIENT LIST").await;
    assert!(
        list.contains(" name=first ") && list.contains(" cmd=client|id ") && list.contains(" cmd=client|list "),
        "{list}"
    );
    // The last request of what came together counts, in either form
    for (sent, command) in [
        (&b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n*2\r\n$3\r\ngEt\r\n$2\r\nno\r\n"[..], "get"),
        (b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n  \"deL\" a\r\n", "del"),
    ] {
        b.send(sent).await;
        b.expect(if command == "get" { "+OK\r\n$-1\r\n" } else { "$1\r\n1\r\n:1\r\n" }).await;
        let list = a.ask("CLIENT LIST").await;
        assert!(list.contains(&format!(" cmd={command} ")), "{list}");
    }
    a.says("CLIENT PAUSE 60000 WRITE", "+OK\r\n").await;
    b.says("GET a", "$-1\r\n").await;
    b.send(b"SET a 1\r\n").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    a.says("GET a", "$-1\r\n").await;
    a.says("CLIENT UNPAUSE", "+OK\r\n").await;
    b.expect("+OK\r\n").await;
    a.says("CLIENT KILL ID 2", ":1\r\n").await;
    b.is_closed().await;
    a.says("CLIENT KILL ID 2", ":0\r\n").await;
    a.says("CLIENT KILL 1.2.3.4:5", "-ERR No such client\r\n").await;
}

/// A connection ends when its task comes to it: until then it was counted as killed again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_client_is_gone_before_its_task_has_ended() {
    let (gateway, _) = start().await;
    let busy = gateway.shared().clients.enter("1.2.3.4:5".into(), "b:2".into(), 0, (10, 10)).unwrap();
    let mut peer = Peer::connect(&gateway).await;
    assert!(peer.ask("CLIENT LIST").await.contains("addr=1.2.3.4:5 "));
    peer.says(&format!("CLIENT KILL ID {}", busy.id), ":1\r\n").await;
    peer.says(&format!("CLIENT KILL ID {}", busy.id), ":0\r\n").await;
    peer.says("CLIENT KILL 1.2.3.4:5", "-ERR No such client\r\n").await;
    assert!(!peer.ask("CLIENT LIST").await.contains("addr=1.2.3.4:5 "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_answered_and_refused_here_are_counted() {
    let (gateway, _) = start().await;
    let mut peer = Peer::connect(&gateway).await;
    let lines = "PING\nPING a b\nPING x\nSELECT x\nMULTI\nMULTI\nGET\nPING\nEXEC\nEXEC\nMULTI\nPING\nEXEC\nCLIENT ID\nCLIENT NOSUCH\nGET\nNOSUCH";
    for line in lines.lines() {
        peer.ask(line).await;
    }
    peer.says("ECHO end", "$3\r\nend\r\n").await;
    let text = peer.ask("INFO commandstats").await;
    for (name, calls, rejected, failed) in [
        ("ping", 4, 0, 1),
        ("select", 1, 0, 1),
        ("multi", 3, 0, 1),
        ("exec", 3, 0, 2),
        ("client|id", 1, 0, 0),
        ("client", 0, 1, 0),
        ("get", 0, 2, 0),
        ("echo", 1, 0, 0),
    ] {
        let line = text.lines().find(|line| line.starts_with(&format!("cmdstat_{name}:"))).unwrap_or("none");
        let shown = (line.contains(&format!(":calls={calls},")), line.split_once(",rejected_calls="));
        assert!(shown.0, "{name}: {calls} calls in {line:?}");
        assert_eq!(shown.1.map(|s| s.1), Some(&*format!("{rejected},failed_calls={failed}")), "{name}: {line:?}");
    }
    assert!(!text.contains("nosuch"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_chunk_answers_each_of_its_commands() {
    let (gateway, fake) = start().await;
    fake.refuse.store(true, Relaxed);
    let mut peer = Peer::connect(&gateway).await;
    peer.send(b"SET a 1\r\nPING\r\nGET a\r\nMULTI\r\nSET a 1\r\nGET a\r\nEXEC\r\nnosuch\r\n").await;
    let no = "-NOQUORUM no leader\r\n";
    peer.expect(&format!("{no}+PONG\r\n{no}+OK\r\n+QUEUED\r\n+QUEUED\r\n{no}-ERR unknown command 'nosuch'")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_holds_up_only_itself() {
    let (gateway, _) = start().await;
    let mut slow = Peer::connect(&gateway).await;
    // 2,000 replies of a megabyte: were they kept, they would be 2 GB.
    slow.send("FILL 1000000\r\n".repeat(2000).as_bytes()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let buffered: usize = gateway.shared().totals.bytes_out.load(Relaxed) as usize;
    assert!(buffered < 64 << 20, "{buffered} bytes were made for a client that reads none");
    let mut other = Peer::connect(&gateway).await;
    other.says("PING", "+PONG\r\n").await;
    other.says("CLIENT KILL ID 1", ":1\r\n").await;
    let gone = async {
        while gateway.shared().clients.len() > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("a killed client stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn riders_past_the_output_limit_close_the_connection() {
    let (gateway, _) = start_with(&[("client-output-buffer-limit", "normal 1mb 0 0")]).await;
    let mut peer = Peer::connect(&gateway).await;
    peer.send(b"SET a 1\r\nFILL 2000000\r\n").await;
    peer.is_closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_reads_wait_elsewhere_and_keep_their_place() {
    let (gateway, _) = start().await;
    let mut peer = Peer::connect(&gateway).await;
    peer.send(b"PING\r\nLARGE\r\nGET a\r\nLARGE\r\nMULTI\r\nLARGE\r\nEXEC\r\nPING\r\n").await;
    peer.expect("+PONG\r\n+LARGE\r\n$-1\r\n+LARGE\r\n+OK\r\n+QUEUED\r\n*1\r\n+LARGE\r\n+PONG\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_reads_do_not_ride_with_writes() {
    let (gateway, _) = start().await;
    let mut peer = Peer::connect(&gateway).await;
    peer.send(b"LARGE\r\nSET a 1\r\nLARGE\r\nGET a\r\nLARGE\r\nSET a 2\r\nGET a\r\n").await;
    peer.expect("+LARGE\r\n+OK\r\n+LARGE\r\n$1\r\n1\r\n+LARGE\r\n+OK\r\n$1\r\n2\r\n").await;
    // Muted ones too, and EXEC with what its connection must not have sent before
    peer.send(b"CLIENT REPLY SKIP\r\nLARGE\r\nSET a 3\r\nCLIENT REPLY OFF\r\nLARGE\r\nGET a\r\nLARGE\r\nCLIENT REPLY ON\r\nGET a\r\n")
        .await;
    peer.expect("+OK\r\n+OK\r\n$1\r\n3\r\n").await;
    peer.send(b"WATCH a\r\nCLIENT REPLY OFF\r\nSET b 1\r\nMULTI\r\nSELECT 1\r\nEXEC\r\nCLIENT REPLY ON\r\n").await;
    peer.expect("+OK\r\n+OK\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_is_refused_whole_if_all_its_commands_together_are_too_large() {
    let (gateway, _) = start().await;
    let mut peer = Peer::connect(&gateway).await;
    peer.send(b"SET a 1\r\nMULTI\r\nSET a 2\r\nSELECT 1\r\nLARGE\r\nLARGE\r\nLARGE\r\nEXEC\r\nGET a\r\n").await;
    peer.expect(
        "+OK\r\n+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n\
         -EXECABORT Transaction discarded because of: its commands may take 300103 operations together, max-write-cost is 300000\r\n\
         $1\r\n1\r\n",
    )
    .await;
    // Two of them may; and any number if nothing is written, alone and elsewhere
    peer.send(b"MULTI\r\nLARGE\r\nINCR a\r\nLARGE\r\nEXEC\r\n").await;
    peer.expect("+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n+LARGE\r\n:2\r\n+LARGE\r\n").await;
    peer.send(b"SET a 3\r\nMULTI\r\nLARGE\r\nLARGE\r\nLARGE\r\nLARGE\r\nEXEC\r\nGET a\r\n").await;
    peer.expect("+OK\r\n+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*4\r\n+LARGE\r\n+LARGE\r\n+LARGE\r\n+LARGE\r\n$1\r\n3\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn monitors_are_fed_and_do_not_see_passwords() {
    let (gateway, _) = start().await;
    let (mut monitor, mut peer) = (Peer::connect(&gateway).await, Peer::connect(&gateway).await);
    monitor.says("MONITOR", "+OK\r\n").await;
    peer.says("AUTH default secret", "+OK\r\n").await;
    peer.says("SET a \"b\\n\"", "+OK\r\n").await;
    let mut line = vec![0; 200];
    let n = tokio::time::timeout(PATIENCE, monitor.0.read(&mut line)).await.unwrap().unwrap();
    let line = String::from_utf8_lossy(&line[..n]).into_owned();
    assert!(
        line.starts_with('+') && line.ends_with("] \"SET\" \"a\" \"b\\n\"\r\n") && line.contains(" [0 127.0.0.1:"),
        "{line}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_lets_chunks_in_flight_answer() {
    let (gateway, fake) = start().await;
    let mut peer = Peer::connect(&gateway).await;
    peer.says("PING", "+PONG\r\n").await;
    peer.send(b"SET a 1\r\n").await;
    while fake.chunks.load(Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    gateway.shutdown(Duration::from_secs(5)).await;
    peer.expect("+OK\r\n").await;
    peer.is_closed().await;
    assert!(gateway.shared().clients.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_is_told_to_the_node_and_not_answered() {
    let (gateway, fake) = start().await;
    let mut peer = Peer::connect(&gateway).await;
    peer.says("SHUTDOWN ABORT", "-ERR No shutdown in progress.\r\n").await;
    peer.send(b"SHUTDOWN NOSAVE\r\n").await;
    tokio::time::timeout(PATIENCE, gateway.stop_requested()).await.unwrap();
    peer.is_closed().await;
    assert_eq!(fake.shutdowns.load(Relaxed), 1);
}

/// Announced lengths and half requests of a thousand clients cost what they sent, not what they announced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_bounded_with_hostile_clients() {
    let (gateway, _) = start().await;
    let before = resident_bytes();
    let mut peers = Vec::new();
    for i in 0..400 {
        let mut peer = Peer::connect(&gateway).await;
        let announced: &[u8] = match i % 3 {
            0 => b"*1048576\r\n$536870912\r\nx",
            1 => b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n0123456789",
            _ => b"*1048576\r\n$0\r\n\r\n$0\r\n\r\n",
        };
        peer.send(announced).await;
        peers.push(peer);
    }
    let mut last = Peer::connect(&gateway).await;
    last.says("PING", "+PONG\r\n").await;
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 100 << 20, "400 clients cost {grown} bytes");
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}
