//! The admin port as Prometheus, an orchestrator and a person with a browser meet it.

mod common;

use common::server::{free_port, skip};
use common::{Cluster, PATIENCE, Server, wait};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Status code, head and body.
fn ask(port: u16, host: &str, path: &str) -> (u16, String, String) {
    // It opens a moment after the port of clients
    let until = Instant::now() + PATIENCE;
    let mut stream = loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => break stream,
            Err(e) => assert!(Instant::now() < until, "the admin port: {e}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").expect("it is read");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a code");
    (code, head.to_ascii_lowercase(), body.to_owned())
}

fn get(port: u16, path: &str) -> (u16, String, String) {
    ask(port, "localhost", path)
}

/// The value of a line of `/metrics`.
fn metric(port: u16, name: &str) -> f64 {
    let (code, _, text) = get(port, "/metrics");
    assert_eq!(code, 200);
    let value =
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.split(' ').next()?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in\n{text}"))
}

fn server(dir: &std::path::Path) -> (Server, u16) {
    let port = free_port();
    let server = Server::look(dir, &["--admin-port".into(), port.to_string()]).unwrap_or_else(|e| panic!("{e}"));
    (server, port)
}

#[test]
fn metrics_count_what_was_done() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (server, port) = server(dir.path());
    let before = metric(port, "look_epochs_total");
    let mut client = server.connect();
    for n in 0..50 {
        assert_eq!(client.line(&format!("SET k{n} v")).expect("a reply").text(), "OK");
    }
    client.line("GET k1").expect("a reply");
    client.line("NOSUCH").expect("a reply");
    client.line("ECHO hi").expect("a reply");
    assert_eq!(metric(port, "look_epochs_total") - before, 50.0);
    assert_eq!(metric(port, "look_command_calls_total{command=\"set\"}"), 50.0);
    assert_eq!(metric(port, "look_command_calls_total{command=\"echo\"}"), 1.0);
    assert!(metric(port, "look_command_steps_total{command=\"set\"}") >= 50.0);
    assert_eq!(metric(port, "look_keys{db=\"0\"}"), 50.0);
    assert!(metric(port, "look_batches_total") >= 1.0);
    for times in ["batch_wait", "commit", "log_sync", "apply"] {
        let count = metric(port, &format!("look_{times}_seconds_count"));
        assert!(count >= 1.0, "{times}: {count}");
        assert_eq!(metric(port, &format!("look_{times}_seconds_bucket{{le=\"+Inf\"}}")), count);
        let sum = metric(port, &format!("look_{times}_seconds_sum"));
        assert!(sum > 0.0 && sum < 60.0, "{times}: {sum}");
        let [low, high] =
            ["0.5", "0.999"].map(|q| metric(port, &format!("look_{times}_recent_seconds{{quantile=\"{q}\"}}")));
        assert!(low <= high, "{times}: {low} {high}");
    }
    assert!(metric(port, "look_memory_bytes{of=\"resident\"}") > 1e6);
    assert_eq!((metric(port, "look_leader"), metric(port, "look_clients")), (1.0, 1.0));
    assert!(metric(port, "look_writes_total") >= 50.0 && metric(port, "look_error_replies_total") >= 1.0);
    let (_, head, text) = get(port, "/metrics");
    assert!(head.contains("application/openmetrics-text") && text.ends_with("# EOF\n"), "{head}");
}

#[test]
fn only_local_names_are_answered_and_nothing_from_elsewhere_is_loaded() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (_server, port) = server(dir.path());
    assert_eq!(ask(port, "evil.example", "/status.json").0, 403);
    assert_eq!(ask(port, &format!("127.0.0.1:{port}"), "/status.json").0, 200);
    assert_eq!((get(port, "/nosuch").0, get(port, "/healthz").0, get(port, "/readyz").0), (404, 200, 200));
    let (code, head, page) = get(port, "/");
    assert!(code == 200 && head.contains("content-security-policy: default-src 'self'"), "{head}");
    for part in ["page.css", "page.js", "uplot.min.css", "uplot.min.js", "uplot.LICENSE", "icon.svg"] {
        assert!(page.contains(part) && get(port, &format!("/{part}")).0 == 200, "{part}");
    }
    assert!(!page.contains("http://") && !page.contains("https://"), "the page names another host");
}

#[test]
fn a_node_without_a_quorum_is_alive_and_not_ready() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let ports = [free_port(), free_port(), free_port()];
    let flags = ports.iter().map(|port| vec!["--admin-port".into(), port.to_string()]).collect();
    let mut cluster = Cluster::start_with(dir.path(), flags).unwrap_or_else(|e| panic!("{e}"));
    let leader = cluster.leader().unwrap_or_else(|e| panic!("{e}"));
    for port in ports {
        wait("it is ready", || get(port, "/readyz").0 == 200);
    }
    let (_, _, status) = get(ports[leader - 1], "/status.json");
    assert!((1..=3).all(|id| status.contains(&format!("{{\"id\":{id},"))), "{status}");
    let other = leader % 3 + 1;
    assert!(metric(ports[leader - 1], &format!("look_node_lag_entries{{node=\"{other}\"}}")) < 100.0);
    (1..=3).filter(|id| *id != leader).for_each(|id| cluster.kill9(id));
    wait("it is not ready", || get(ports[leader - 1], "/readyz").0 == 503);
    assert_eq!(get(ports[leader - 1], "/healthz").0, 200);
}

/// What the page is after its scripts have run.
#[test]
fn a_browser_shows_the_status_page() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (server, port) = server(dir.path());
    let mut client = server.connect();
    client.line("CONFIG SET slowlog-log-slower-than 0").expect("a reply");
    client.line("CLIENT SETNAME <b>markup</b>").expect("a reply");
    for n in 0..20 {
        client.line(&format!("SET k{n} v")).expect("a reply");
    }
    std::thread::sleep(Duration::from_millis(2500));
    // --no-sandbox: Chromium has none when it runs as root, as in a container
    let browser = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", dir.path().join("browser").display()))
        .arg(format!("http://127.0.0.1:{port}/"))
        .stderr(Stdio::piped())
        .output();
    let Ok(output) = browser else {
        return skip("chromium is not installed (apt-get install chromium)");
    };
    let page = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    let row = "<td class=\"code\">set</td>";
    for part in ["<title>Look node 1: leader</title>", ">ready<", row, "&lt;b&gt;markup", "<canvas", "epochs/s"] {
        assert!(page.contains(part), "no {part} in\n{page}\n{complaints}");
    }
    assert!(!page.contains("<b>markup"), "what a client sent became markup");
    assert!(!complaints.contains("CONSOLE"), "{complaints}");
}
