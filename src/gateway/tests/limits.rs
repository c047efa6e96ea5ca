//! Limits on what strangers and clients may make grow. Elsewhere: announced lengths and counts, inline requests in `resp::decode` and
//! `tests/attacks.rs`; the hard output limit, memory of hostile clients, `maxclients` in `super`; the storm of connections in `tests/attacks.rs`;
//! pattern steps in `base::glob`.

use super::*;
use std::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_longer_than_the_query_buffer_is_refused_before_it_came() {
    let (gateway, _) = start_with(&[("client-query-buffer-limit", "1mb")]).await;
    let mut peer = Peer::connect(&gateway).await;
    peer.send(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$2000000\r\nxxx").await;
    peer.expect("-ERR Protocol error: request exceeds client-query-buffer-limit\r\n").await;
    peer.is_closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queue_of_a_transaction_counts_as_query_buffer() {
    let (gateway, _) = start_with(&[("client-query-buffer-limit", "1mb")]).await;
    let mut peer = Peer::connect(&gateway).await;
    peer.says("MULTI", "+OK\r\n").await;
    let value = "x".repeat(60_000);
    let mut queued = 0;
    while peer.ask(&format!("SET a {value}")).await == "+QUEUED\r\n" {
        queued += 1;
        assert!(queued < 20, "more than the limit is queued");
    }
    peer.says("EXEC", "-EXECABORT Transaction discarded because of previous errors.\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_nothing_for_the_soft_limits_seconds_is_closed() {
    let (gateway, _) = start_with(&[("client-output-buffer-limit", "normal 0 1mb 1")]).await;
    let mut peer = Peer::connect(&gateway).await;
    peer.says("PING", "+PONG\r\n").await;
    let begin = Instant::now();
    peer.send("FILL 1000000\r\n".repeat(50).as_bytes()).await;
    while !gateway.shared().clients.is_empty() {
        assert!(begin.elapsed() < PATIENCE, "still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(begin.elapsed() >= Duration::from_millis(900), "{:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_clients_are_closed_when_a_timeout_is_set() {
    let (gateway, _) = start_with(&[("timeout", "1")]).await;
    let mut peer = Peer::connect(&gateway).await;
    let begin = Instant::now();
    peer.says("PING", "+PONG\r\n").await;
    peer.is_closed().await;
    assert!(begin.elapsed() >= Duration::from_millis(900), "{:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_has_five_seconds_however_busy_he_is() {
    let (gateway, _) = start_with(&[("requirepass", "secret")]).await;
    let mut friend = Peer::connect(&gateway).await;
    friend.says("AUTH secret", "+OK\r\n").await;
    // Whoever resets his connection has no more time than others
    let gateway = &gateway;
    let busy = ["PING\r\n", "RESET\r\n"].map(|request| async move {
        let (begin, mut peer) = (Instant::now(), Peer::connect(gateway).await);
        while peer.0.write_all(request.as_bytes()).await.is_ok() {
            assert!(begin.elapsed() < PATIENCE, "a busy stranger is never closed");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        begin.elapsed()
    });
    for lived in futures_util::future::join_all(busy).await {
        assert!(lived.as_secs() >= 4, "{lived:?}");
    }
    friend.says("PING", "+PONG\r\n").await;
    // Who was known becomes a stranger by it, from that moment on
    let begin = Instant::now();
    friend.says("RESET", "+RESET\r\n").await;
    friend.is_closed().await;
    assert!(begin.elapsed().as_secs() >= 4, "{:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_leave_before_they_are_accepted_do_no_harm() {
    let (gateway, _) = start_with(&[]).await;
    for _ in 0..200 {
        let leaving = TcpStream::connect(gateway.addresses()[0]).await.unwrap();
        rustix::net::sockopt::set_socket_linger(&leaving, Some(Duration::ZERO)).unwrap();
    }
    Peer::connect(&gateway).await.says("PING", "+PONG\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_has_its_share_of_connections() {
    let (gateway, _) = start_with(&[("maxclients-per-address", "2")]).await;
    let (mut a, mut b) = (Peer::connect(&gateway).await, Peer::connect(&gateway).await);
    a.says("PING", "+PONG\r\n").await;
    b.says("PING", "+PONG\r\n").await;
    let mut c = Peer::connect(&gateway).await;
    c.expect("-ERR max number of clients reached\r\n").await;
    a.says("CONFIG SET maxclients-per-address 0", "+OK\r\n").await;
    Peer::connect(&gateway).await.says("PING", "+PONG\r\n").await;
}

/// Needs an address that is not loopback; without one it says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_password_only_this_machine_may_come_in() {
    let probe =
        std::net::UdpSocket::bind("0.0.0.0:0").and_then(|s| s.connect("192.0.2.1:9").and_then(|()| s.local_addr()));
    let Some(own) = probe.ok().map(|a| a.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified()) else {
        return eprintln!("=== SKIPPED, NOTHING CHECKED: this machine has no address besides loopback");
    };
    let options = GatewayOptions { listen: vec!["0.0.0.0:0".parse().unwrap()], ..GatewayOptions::default() };
    let gateway = Gateway::start(options, Fake::new()).await.unwrap();
    let port = gateway.addresses()[0].port();
    let outside = || async { Peer(TcpStream::connect((own, port)).await.unwrap()) };
    outside().await.expect("-DENIED Look is running in protected mode").await;
    let mut inside = Peer(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    inside.says("CONFIG SET requirepass secret", "+OK\r\n").await;
    outside().await.says("PING", "-NOAUTH Authentication required.\r\n").await;
    inside.says("CONFIG SET requirepass \"\"", "+OK\r\n").await;
    outside().await.expect("-DENIED ").await;
    inside.says("CONFIG SET protected-mode no", "+OK\r\n").await;
    outside().await.says("PING", "+PONG\r\n").await;
}
