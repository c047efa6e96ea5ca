//! What every black-box test needs: servers as child processes, a raw RESP client, a seeded generator of
//! random numbers. Promises that no process and no directory outlives its test.
#![allow(dead_code, unused_imports)] // each test binary uses its own part

pub mod certs;
pub mod cluster;
pub mod ledger;
pub mod random;
pub mod registers;
pub mod resp;
pub mod server;

pub use cluster::{Cluster, JOIN_TOKEN};
pub use ledger::Ledger;
pub use random::Random;
pub use resp::{Connection, Reply};
pub use server::Server;

/// A request from words: `words("SET k v")`. Words never hold blanks; use a slice literal when they must.
pub fn words(line: &str) -> Vec<Vec<u8>> {
    line.split_ascii_whitespace().map(|w| w.as_bytes().to_vec()).collect()
}

/// A request as a person would type it; bytes outside printable ASCII appear as `\xNN`, of a long argument the beginning.
pub fn show(args: &[Vec<u8>]) -> String {
    const LONG: usize = 300;
    let one = |a: &Vec<u8>| match a.len() {
        0..=LONG => format!("\"{}\"", a.escape_ascii()),
        len => format!("\"{}…\"({len} bytes)", a[..32].escape_ascii()),
    };
    args.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// How long a test waits for what must come. It comes at once or never, but a machine that others keep busy takes its time.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// Waits until something is so.
pub fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// A number from the environment, for longer runs than CI's.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}
