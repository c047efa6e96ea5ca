//! TLS as clients and peers meet it: who gets in, who does not, and what each is told.

mod common;

use common::certs::{Authority, Pair};
use common::server::{free_port, look_binary, skip};
use common::{Cluster, PATIENCE, Reply, Server, wait};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned, SupportedProtocolVersion,
    client::WebPkiServerVerifier, crypto::ring,
};

type Versions = [&'static SupportedProtocolVersion];
static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
static OLDER: [&SupportedProtocolVersion; 1] = [&TLS12];
static NEWER: [&SupportedProtocolVersion; 1] = [&TLS13];

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// What a client brings: whom it trusts, what it shows, which versions it speaks.
struct Client<'a> {
    trusts: &'a Authority,
    shows: Option<&'a Pair>,
    versions: &'static Versions,
}

impl<'a> Client<'a> {
    fn new(trusts: &'a Authority, shows: Option<&'a Pair>) -> Self {
        Client { trusts, shows, versions: &BOTH }
    }

    fn connect(&self, port: u16, name: &str) -> io::Result<Tls> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.trusts.file()).expect("a certificate")).expect("an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(self.versions)
            .expect("versions")
            .with_root_certificates(roots);
        let config = match self.shows {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let cert = CertificateDer::from_pem_file(&pair.cert).expect("a certificate");
                let key = PrivateKeyDer::from_pem_file(&pair.key).expect("a key");
                builder.with_client_auth_cert(vec![cert], key).expect("they fit")
            }
        };
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let tls = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(StreamOwned::new(tls, stream))
    }

    /// What the server answers to PING, or why it does not.
    fn ping(&self, port: u16, name: &str) -> Result<String, String> {
        let mut tls = self.connect(port, name).map_err(|e| e.to_string())?;
        let mut answer = [0; 7];
        let talk = tls.write_all(b"PING\r\n").and_then(|()| tls.read_exact(&mut answer));
        talk.map(|()| String::from_utf8_lossy(&answer).into_owned()).map_err(|e| e.to_string())
    }
}

fn set(pairs: &[(&str, String)]) -> Vec<String> {
    pairs.iter().flat_map(|(name, value)| ["--set".to_owned(), format!("{name}={value}")]).collect()
}

fn files(own: &Pair, authority: &Authority) -> Vec<String> {
    set(&[
        ("tls-cert-file", own.cert.display().to_string()),
        ("tls-key-file", own.key.display().to_string()),
        ("tls-ca-cert-file", authority.file().display().to_string()),
    ])
}

/// A node with a TLS port, its authority, and the port.
fn tls_server(dir: &std::path::Path, more: &[(&str, &str)]) -> (Server, Authority, u16) {
    let authority = Authority::new(dir, "cluster");
    let own = authority.sign(&["localhost"]);
    let port = free_port();
    let mut flags = files(&own, &authority);
    flags.extend(set(&[("tls-port", port.to_string())]));
    flags.extend(set(&more.iter().map(|(n, v)| (*n, v.to_string())).collect::<Vec<_>>()));
    (Server::look(dir, &flags).unwrap_or_else(|e| panic!("{e}")), authority, port)
}

#[test]
fn a_client_with_a_certificate_of_the_authority_is_served() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (server, authority, port) = tls_server(dir.path(), &[]);
    let pair = authority.sign(&["client"]);
    let client = Client::new(&authority, Some(&pair));
    assert_eq!(client.ping(port, "localhost").as_deref(), Ok("+PONG\r\n"));
    for version in [&OLDER, &NEWER] {
        assert_eq!(Client { versions: version, ..client }.ping(port, "localhost").as_deref(), Ok("+PONG\r\n"));
    }

    // Larger than any record and any socket buffer, both ways, and in a pipeline
    let mut tls = client.connect(port, "localhost").expect("TLS");
    let value = vec![b'x'; 8 << 20];
    let mut request = format!("*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n${}\r\n", value.len()).into_bytes();
    request.extend(&value);
    request.extend(b"\r\nGET big\r\nPING\r\n");
    tls.write_all(&request).expect("the server reads");
    let expected =
        [b"+OK\r\n".as_slice(), format!("${}\r\n", value.len()).as_bytes(), &value, b"\r\n+PONG\r\n"].concat();
    let mut got = vec![0; expected.len()];
    tls.read_exact(&mut got).expect("the server answers");
    assert!(got == expected, "the replies differ");

    // In clear on the plain port it is the same data
    assert_eq!(server.connect().line("STRLEN big").expect("a reply"), Reply::Int(value.len() as i64));
    assert_eq!(server.connect().line("CONFIG GET tls-port").expect("a reply").items()[1].text(), port.to_string());
}

#[test]
fn redis_cli_speaks_tls_with_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (_server, authority, port) = tls_server(dir.path(), &[]);
    let pair = authority.sign(&["client"]);
    let cli = Command::new("redis-cli")
        .args(["--tls", "-h", "localhost", "-p", &port.to_string(), "--cacert"])
        .arg(authority.file())
        .arg("--cert")
        .arg(&pair.cert)
        .arg("--key")
        .arg(&pair.key)
        .args(["SET", "greeting", "hello"])
        .output();
    match cli {
        Err(_) => skip("redis-cli is not installed (apt-get install redis-tools)"),
        Ok(output) => {
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "OK", "{errors}");
        }
    }
}

#[test]
fn strangers_do_not_get_in() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (server, authority, port) = tls_server(dir.path(), &[("tls-protocols", "TLSv1.3")]);
    let strangers = Authority::new(dir.path(), "strangers");
    let (good, foreign, expired) =
        (authority.sign(&["client"]), strangers.sign(&["client"]), authority.sign_expired(&["client"]));
    let refused = |client: Client<'_>, name: &str, because: &str| {
        let answer = client.ping(port, name);
        assert!(answer.as_ref().is_err_and(|e| e.contains(because)), "{answer:?}, not {because}");
    };
    // By the server
    refused(Client::new(&authority, None), "localhost", "CertificateRequired");
    refused(Client::new(&authority, Some(&foreign)), "localhost", "UnknownCA");
    refused(Client::new(&authority, Some(&expired)), "localhost", "CertificateExpired");
    refused(Client { versions: &OLDER, ..Client::new(&authority, Some(&good)) }, "localhost", "ProtocolVersion");
    // By the client
    refused(Client::new(&strangers, Some(&good)), "localhost", "UnknownIssuer");
    refused(Client::new(&authority, Some(&good)), "elsewhere", "not valid for name");
    // The one that may come in still can, and nobody who could not is left behind
    assert_eq!(Client::new(&authority, Some(&good)).ping(port, "localhost").as_deref(), Ok("+PONG\r\n"));
    let mut asks = server.connect();
    let mut clients = || asks.line("CLIENT LIST").expect("a reply").text().lines().count();
    wait("only the one that asks is left", || clients() == 1);
    wait("the operator is told", || server.output().contains("TLS with 127.0.0.1"));
}

#[test]
fn a_certificate_of_the_client_may_be_optional() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (_server, authority, port) = tls_server(dir.path(), &[("tls-auth-clients", "optional")]);
    let foreign = Authority::new(dir.path(), "strangers").sign(&["client"]);
    assert_eq!(Client::new(&authority, None).ping(port, "localhost").as_deref(), Ok("+PONG\r\n"));
    assert!(Client::new(&authority, Some(&foreign)).ping(port, "localhost").is_err(), "one that is shown must be good");
}

#[test]
fn who_comes_to_the_wrong_port_is_told() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (server, authority, port) = tls_server(dir.path(), &[("tls-auth-clients", "no")]);
    let mut clear = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    clear.write_all(b"*1\r\n$4\r\nPING\r\n").expect("it is read");
    let mut text = String::new();
    clear.read_to_string(&mut text).expect("an answer and the end");
    assert!(text.starts_with("-ERR this port speaks TLS only") && text.contains("redis-cli --tls"), "{text}");

    let mut tls = Client::new(&authority, None).connect(server.port, "localhost").expect("a connection");
    let _ = tls.conn.write_tls(&mut tls.sock);
    let mut text = String::new();
    tls.sock.read_to_string(&mut text).expect("an answer and the end");
    assert!(text.starts_with("-ERR Protocol error") && text.contains("tls-port"), "{text}");
}

#[test]
fn port_zero_beside_a_tls_port_is_no_plain_port() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let authority = Authority::new(dir.path(), "cluster");
    let own = authority.sign(&["localhost"]);
    let (port, socket) = (free_port(), dir.path().join("look.sock"));
    let mut flags = vec!["--dir".into(), dir.path().join("data").display().to_string()];
    flags.extend(files(&own, &authority));
    flags.extend(set(&[
        ("tls-port", port.to_string()),
        ("tls-auth-clients", "no".into()),
        ("unixsocket", socket.display().to_string()),
        ("unixsocketperm", "600".into()),
    ]));
    let mut server = Server::launch(&look_binary(), dir.path(), 0, &flags).expect("it starts");
    let client = Client::new(&authority, None);
    let until = Instant::now() + Duration::from_secs(30);
    let listens = format!("listens on 127.0.0.1:{port} (TLS) {}", socket.display());
    while client.ping(port, "localhost").as_deref() != Ok("+PONG\r\n") || !server.output().contains(&listens) {
        assert!(server.exited().is_none() && Instant::now() < until, "{}", server.output());
        std::thread::sleep(Duration::from_millis(20));
    }

    use std::os::unix::{fs::PermissionsExt, net::UnixStream};
    let mode = std::fs::metadata(&socket).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut unix = UnixStream::connect(&socket).expect("a connection");
    unix.write_all(b"PING\r\n").expect("it is read");
    let mut answer = [0; 7];
    unix.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"+PONG\r\n");
}

/// Refused at the start: a failure exit, and a message that names the culprit.
fn assert_refused(flags: &[String], names: &str) {
    let mut command = Command::new("timeout");
    let output = command.arg("20").arg(look_binary()).args(flags).output().expect("the binary runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{flags:?}:\n{text}");
    assert!(text.contains(names) && !text.contains("panicked"), "{flags:?} does not name {names:?}:\n{text}");
}

#[test]
fn what_is_wrong_with_the_files_is_said_at_the_start() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let authority = Authority::new(dir.path(), "cluster");
    let (one, two) = (authority.sign(&["node1"]), authority.sign(&["node2"]));
    let data = dir.path().join("data").display().to_string();
    let start = |more: &[Vec<String>]| {
        [vec!["--port".into(), "0".into(), "--dir".into(), data.clone()], more.concat()].concat()
    };
    let tls = set(&[("tls-port", free_port().to_string())]);
    assert_refused(&start(std::slice::from_ref(&tls)), "tls-cert-file");
    assert_refused(
        &start(&[tls.clone(), set(&[("tls-cert-file", "/nosuch.crt".into()), ("tls-key-file", "x".into())])]),
        "tls-ca-cert-file",
    );
    let missing = Pair { cert: "/nosuch.crt".into(), ..one.clone() };
    assert_refused(&start(&[tls.clone(), files(&missing, &authority)]), "tls-cert-file /nosuch.crt");
    let swapped = Pair { cert: one.key.clone(), key: one.cert.clone() };
    assert_refused(&start(&[tls.clone(), files(&swapped, &authority)]), "tls-cert-file");
    let mixed = Pair { key: two.key.clone(), ..one.clone() };
    assert_refused(&start(&[tls.clone(), files(&mixed, &authority)]), "do not fit together");
    assert_refused(&start(&[set(&[("tls-protocols", "TLSv1.1".into())])]), "tls-protocols");

    // Between peers: the name of another node, and a certificate that has ended
    let cluster = |pair: &Pair| {
        let at = format!("127.0.0.1:{}", free_port());
        let founding = ["--peer-addr".into(), at.clone(), "--initial-cluster".into(), format!("1={at}")].to_vec();
        start(&[founding, set(&[("tls-cluster", "yes".into())]), files(pair, &authority)])
    };
    assert_refused(&cluster(&two), "DNS:node1");
    assert_refused(&cluster(&authority.sign_expired(&["node1"])), "expired");
    assert_refused(&cluster(&Authority::new(dir.path(), "strangers").sign(&["node1"])), "UnknownIssuer");
}

/// `hello` of a peer, as `src/raft/frame.rs` draws it, and what comes back.
fn say_hello(tls: &mut Tls, from: u64, to: u64) -> io::Result<[u8; 48]> {
    let mut hello = b"LOOKPEER\x03\0\0\0\0\0\0\0".to_vec();
    [0, from, to, 0].iter().for_each(|word: &u64| hello.extend(word.to_le_bytes()));
    tls.write_all(&hello)?;
    let mut answer = [0; 48];
    tls.read_exact(&mut answer).map(|()| answer)
}

#[test]
fn peers_show_each_other_who_they_are() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let authority = Authority::new(dir.path(), "cluster");
    let pairs: Vec<Pair> = (1..=3).map(|id| authority.sign(&[&format!("node{id}"), "localhost"])).collect();
    let flags = |pair| [set(&[("tls-cluster", "yes".into())]), files(pair, &authority)].concat();
    let cluster = Cluster::start_with(dir.path(), pairs.iter().map(flags).collect()).unwrap_or_else(|e| panic!("{e}"));
    for id in 1..=3 {
        assert_eq!(cluster.node(id).connect().line(&format!("SET k{id} {id}")).expect("a reply").text(), "OK");
    }
    for id in 1..=3 {
        assert_eq!(cluster.node(id).connect().line("EXISTS k1 k2 k3").expect("a reply"), Reply::Int(3));
    }

    // Without a certificate, with a stranger's, with one that has ended, in clear: not even a hello comes back
    let peer = cluster.peer_port(1);
    let strangers = Authority::new(dir.path(), "strangers");
    for shows in [None, Some(strangers.sign(&["node3"])), Some(authority.sign_expired(&["node3"]))] {
        let mut tls = Client::new(&authority, shows.as_ref()).connect(peer, "node1").expect("a connection");
        let answer = say_hello(&mut tls, 3, 1);
        assert!(answer.is_err(), "{shows:?} was answered {answer:?}");
    }
    let mut clear = TcpStream::connect(("127.0.0.1", peer)).expect("a connection");
    clear.write_all(b"LOOKPEER").expect("it is read");
    let mut answer = Vec::new();
    let _ = clear.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"LOOKPEER"), "{answer:?}");

    // With node 3's certificate, as node 3, with the cluster's id from the first hello: the connection stays …
    let spoken = |from: u64, patience: Duration| {
        let mut tls = Client::new(&authority, Some(&pairs[2])).connect(peer, "node1").expect("a connection");
        let cluster = &say_hello(&mut tls, from, 1).expect("a hello")[16..24];
        let mut tls = Client::new(&authority, Some(&pairs[2])).connect(peer, "node1").expect("a connection");
        let mut hello = b"LOOKPEER\x03\0\0\0\0\0\0\0".to_vec();
        hello.extend(cluster);
        [from, 1, 0].iter().for_each(|word: &u64| hello.extend(word.to_le_bytes()));
        tls.write_all(&hello).expect("it is read");
        tls.read_exact(&mut [0; 48]).expect("a hello");
        tls.sock.set_read_timeout(Some(patience)).expect("a timeout");
        tls.read(&mut [0]).map_err(|e| e.kind())
    };
    let silence = Err(io::ErrorKind::WouldBlock);
    assert_eq!(spoken(3, Duration::from_millis(500)), silence, "node 3 may speak for itself");
    // … and as node 2 it is refused
    assert_ne!(spoken(2, PATIENCE), silence, "node 3 spoke for node 2");
    wait("the operator is told", || cluster.node(1).output().contains("refused a peer's connection"));
}

#[test]
fn a_node_joins_with_the_certificate_of_its_id() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let authority = Authority::new(dir.path(), "cluster");
    let flags = |pair: &Pair, authority| [set(&[("tls-cluster", "yes".into())]), files(pair, authority)].concat();
    let named = |id: &str, pair: &Pair| [vec!["--node-id".into(), id.into()], flags(pair, &authority)].concat();
    let (one, two) = (authority.sign(&["node1"]), authority.sign(&["node2"]));
    let mut cluster = Cluster::start_with(dir.path(), vec![flags(&one, &authority)]).unwrap_or_else(|e| panic!("{e}"));
    cluster.ask(1, "SET greeting hello").expect("a write");

    // It joins, takes writes, votes, and comes back
    let joined = cluster.join_with(named("2", &two)).expect("it starts");
    cluster.await_writable(joined, PATIENCE).unwrap_or_else(|e| panic!("{e}"));
    assert!(cluster.node(2).output().contains("as node 2, a learner"), "{}", cluster.node(2).output());
    assert_eq!(cluster.ask(2, "GET greeting").expect("a read").text(), "hello");
    cluster.kill9(2);
    cluster.launch(2).expect("it starts again");
    cluster.await_writable(2, PATIENCE).unwrap_or_else(|e| panic!("{e}"));

    // Who is not let in: an id that was given, no id, another cluster's certificate
    let mut refused = |flags: Vec<String>, why: &str| {
        let id = cluster.join_with(flags).expect("it starts");
        let node = cluster.nodes[id - 1].as_mut().expect("it was started");
        let status = node.await_exit(PATIENCE);
        assert!(status.is_some_and(|s| !s.success()) && node.output().contains(why), "{status:?}: {}", node.output());
        cluster.kill9(id);
    };
    refused(named("2", &two), "ids below 3 have been given");
    refused(named("3", &two), "DNS:node3");
    refused(flags(&two, &authority), "needs --node-id");
    let strangers = Authority::new(dir.path(), "strangers");
    let three = strangers.sign(&["node3"]);
    refused([vec!["--node-id".into(), "3".into()], flags(&three, &strangers)].concat(), "UnknownIssuer");

    // A client's certificate is of the same authority, and no node's
    let (client, server) = (authority.sign(&["client"]), cluster.peer_port(1));
    let joiner = look::raft::Joiner {
        token: common::JOIN_TOKEN,
        addr: "127.0.0.1:1",
        id: Some(look::base::NodeId(3)),
        stop_at: None,
    };
    let tls = peer_tls(&authority, &client);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let answer = runtime.block_on(look::raft::join(&format!("127.0.0.1:{server}"), &joiner, Some(&tls)));
    assert!(answer.as_ref().is_err_and(|e| e.to_string().contains("certificate is not for node3")), "{answer:?}");
}

#[test]
fn an_export_comes_over_tls_into_an_encrypted_directory() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let authority = Authority::new(dir.path(), "cluster");
    let keys = dir.path().join("look.keys");
    std::fs::write(&keys, format!("1 {}\n", "7".repeat(64))).expect("a key file");
    std::fs::set_permissions(&keys, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("its mode");
    let flags = |pair: &Pair| {
        let encrypted = ["--encryption-key-file".into(), keys.display().to_string()].to_vec();
        [set(&[("tls-cluster", "yes".into()), ("log-keep-entries", "4".into())]), files(pair, &authority), encrypted]
            .concat()
    };
    let (one, two) = (authority.sign(&["node1"]), authority.sign(&["node2"]));
    let mut cluster = Cluster::start_with(dir.path(), vec![flags(&one)]).unwrap_or_else(|e| panic!("{e}"));
    let ask = |cluster: &Cluster, id, line: &str| cluster.ask(id, line).unwrap_or_else(|e| panic!("{line}: {e}"));
    let write = |cluster: &Cluster| (0..30).for_each(|n| drop(ask(cluster, 1, &format!("SET key:{n} topsecretvalue"))));
    write(&cluster);
    ask(&cluster, 1, "SAVE");
    write(&cluster);
    ask(&cluster, 1, "SAVE");
    let (stop, digest) = (ask(&cluster, 1, "LOOK.EPOCH").int().expect("a number"), ask(&cluster, 1, "DEBUG DIGEST"));

    // Its state comes as a checkpoint, because the log begins later
    let export = [vec!["--node-id".into(), "2".into(), "--stop-at".into(), stop.to_string()], flags(&two)].concat();
    let id = cluster.join_with(export).expect("it starts");
    for _ in 0..2 {
        let node = cluster.nodes[id - 1].as_mut().expect("was started");
        node.await_ready(PATIENCE).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(ask(&cluster, id, "DEBUG DIGEST"), digest);
        assert_eq!(ask(&cluster, id, "LOOK.EPOCH").int(), Some(stop));
        cluster.kill9(id);
        write(&cluster);
        cluster.launch(id).expect("it starts again");
    }
    let found = std::process::Command::new("grep").args(["-rl", "topsecretvalue"]).arg(cluster.data_dir(id)).output();
    assert_eq!(String::from_utf8_lossy(&found.expect("grep").stdout), "", "in clear on disk");
}

/// What a peer with this certificate speaks, whatever the certificate's name.
fn peer_tls(authority: &Authority, own: &Pair) -> look::raft::PeerTls {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.file()).expect("a certificate")).expect("an authority");
    let roots = Arc::new(roots);
    let chain = vec![CertificateDer::from_pem_file(&own.cert).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(&own.key).expect("a key");
    let client = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(&BOTH).expect("versions");
    let client = client.with_root_certificates(roots.clone());
    let client = client.with_client_auth_cert(chain.clone(), key.clone_key()).expect("a pair");
    let server = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&BOTH).expect("versions");
    let server = server.with_no_client_auth().with_single_cert(chain, key).expect("a pair");
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build().expect("a verifier");
    look::raft::PeerTls::new(Arc::new(server), client, verifier)
}

#[test]
fn a_backup_is_taken_over_tls() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (server, authority, port) = tls_server(dir.path(), &[]);
    let client = authority.sign(&["client"]);
    server.connect().line("SET k v").expect("a write");
    let (to, port) = (dir.path().join("backup"), port.to_string());
    let backup = |more: &[&std::ffi::OsStr]| {
        let command = ["backup", "-h", "localhost", "-p", &port, "--to"].map(std::ffi::OsStr::new);
        let output = Command::new(look_binary()).args(command).arg(&to).args(more).output().expect("it runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    let file = authority.file();
    let strangers = Authority::new(dir.path(), "strangers").file();
    let trusting = ["--tls".as_ref(), "--cacert".as_ref(), file.as_os_str()];
    let own = ["--cert".as_ref(), client.cert.as_os_str(), "--key".as_ref(), client.key.as_os_str()];
    let (done, said) = backup(&[&trusting[..], &own].concat());
    assert!(done && said.contains("run 1") && said.contains("full"), "{said}");
    for (flags, why) in [
        (vec![], "speaks TLS only"),
        (trusting.to_vec(), "CertificateRequired"),
        ([&["--tls".as_ref(), "--cacert".as_ref(), strangers.as_os_str()], &own[..]].concat(), "UnknownIssuer"),
        (vec!["--tls".as_ref()], "--cacert"),
    ] {
        let (done, said) = backup(&flags);
        assert!(!done && said.contains(why), "{flags:?}: {said}");
    }
}
