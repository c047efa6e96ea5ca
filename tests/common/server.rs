//! Servers under test, as child processes on loopback. `LOOK_TEST_SUBJECT=redis` puts the real Redis in Look's
//! place, so that a harness can be judged by itself: two equal servers must agree.

use super::resp::Connection;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The binary of this build, or `LOOK_BIN`.
pub fn look_binary() -> PathBuf {
    std::env::var_os("LOOK_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_look")), PathBuf::from)
}

/// True when the harness itself is being tested, with Redis as the subject.
pub fn subject_is_redis() -> bool {
    std::env::var("LOOK_TEST_SUBJECT").is_ok_and(|v| v == "redis")
}

/// The real Redis, if this machine has one.
pub fn redis_binary() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join("redis-server")).find(|file| file.is_file())
}

/// Says loudly that a test checked nothing.
pub fn skip(why: &str) {
    eprintln!("\n=== SKIPPED, NOTHING CHECKED: {why} ===\n");
}

/// A port that was free a moment ago. None of those that the kernel gives to outgoing connections, of which one might take it before its
/// server does; and never the same twice in a process.
pub fn free_port() -> u16 {
    const PORTS: std::ops::Range<u32> = 20_000..32_000;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(0x9e37_79b9) >> 8;
    let next = || {
        let port = PORTS.start + (begin + TAKEN.fetch_add(1, Relaxed)) % PORTS.len() as u32;
        u16::try_from(port).ok().filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
    };
    (0..PORTS.len()).find_map(|_| next()).expect("loopback has a free port")
}

pub struct Server {
    child: Child,
    pub port: u16,
    pub dir: PathBuf,
    log: PathBuf,
}

impl Server {
    /// What is being tested, durable, with its data in `dir`.
    pub fn subject(dir: &Path) -> Server {
        Server::try_subject(dir).unwrap_or_else(|why| panic!("{why}"))
    }

    pub fn try_subject(dir: &Path) -> Result<Server, String> {
        if subject_is_redis() {
            let binary = redis_binary().ok_or("LOOK_TEST_SUBJECT=redis, but there is no redis-server")?;
            return Server::start(&binary, dir, free_port(), &redis_flags(dir, true));
        }
        Server::look(dir, &[])
    }

    /// One Look node with these flags besides `--port` and `--dir`.
    pub fn look(dir: &Path, flags: &[String]) -> Result<Server, String> {
        Server::look_at(dir, free_port(), flags)
    }

    pub fn look_at(dir: &Path, port: u16, flags: &[String]) -> Result<Server, String> {
        let mut all = vec!["--dir".into(), dir.join("data").display().to_string()];
        all.extend(["--set".to_owned(), "enable-debug-command=yes".to_owned()]);
        all.extend_from_slice(flags);
        Server::start(&look_binary(), dir, port, &all)
    }

    /// Debian's Redis without persistence, or none with a loud word.
    pub fn redis(dir: &Path) -> Option<Server> {
        let Some(binary) = redis_binary() else {
            skip("redis-server is not installed (apt-get install redis-server)");
            return None;
        };
        let started = Server::start(&binary, dir, free_port(), &redis_flags(dir, false));
        Some(started.unwrap_or_else(|why| panic!("{why}")))
    }

    /// Starts without waiting for the first answer.
    pub fn launch(binary: &Path, dir: &Path, port: u16, flags: &[String]) -> Result<Server, String> {
        std::fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let log = dir.join(format!("server-{port}.log"));
        let output =
            File::options().create(true).append(true).open(&log).map_err(|e| format!("{}: {e}", log.display()))?;
        let errors = output.try_clone().map_err(|e| e.to_string())?;
        let child = Command::new(binary)
            .args(["--port", &port.to_string()])
            .args(flags)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|e| format!("cannot start {}: {e}", binary.display()))?;
        Ok(Server { child, port, dir: dir.to_owned(), log })
    }

    fn start(binary: &Path, dir: &Path, port: u16, flags: &[String]) -> Result<Server, String> {
        let mut server = Server::launch(binary, dir, port, flags)?;
        // On a machine that others keep busy a start may take its time
        server.await_ready(Duration::from_secs(120))?;
        Ok(server)
    }

    /// Waits until PING is answered with PONG (not with LOADING or without a leader).
    pub fn await_ready(&mut self, longest: Duration) -> Result<Duration, String> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.exited() {
                return Err(format!("server stopped with {status} before it answered; its output:\n{}", self.output()));
            }
            if self.answers().is_ok_and(|yes| yes) {
                return Ok(begin.elapsed());
            }
            if begin.elapsed() > longest {
                return Err(format!("server did not answer within {longest:?}; its output:\n{}", self.output()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn answers(&self) -> io::Result<bool> {
        let mut connection = Connection::open(self.address())?;
        connection.patience(Duration::from_secs(5))?;
        Ok(!connection.line("PING")?.is_error())
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    pub fn connect(&self) -> Connection {
        Connection::open(self.address()).unwrap_or_else(|e| panic!("connect to {}: {e}\n{}", self.port, self.output()))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and waits until the process is gone. The process is this test's own child.
    pub fn kill9(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Another signal by name (`TERM`, `STOP`, `CONT`).
    pub fn signal(&self, name: &str) {
        let _ = Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status();
    }

    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    pub fn await_exit(&mut self, longest: Duration) -> Option<ExitStatus> {
        let begin = Instant::now();
        while begin.elapsed() < longest {
            if let Some(status) = self.exited() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    /// A number that INFO tells.
    pub fn info(&self, name: &str) -> u64 {
        let text = self.connect().line("INFO everything").map(|r| r.text()).unwrap_or_default();
        let value = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("INFO has no number {name}:\n{text}"))
    }

    /// The end of what the server printed.
    pub fn output(&self) -> String {
        let all = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&all[all.len().saturating_sub(8 * 1024)..]).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill9();
    }
}

fn redis_flags(dir: &Path, durable: bool) -> Vec<String> {
    let dir = dir.display().to_string();
    let aof = if durable { ["yes", "always"] } else { ["no", "no"] };
    [
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--enable-debug-command",
        "yes",
        "--appendonly",
        aof[0],
        "--appendfsync",
        aof[1],
    ]
    .iter()
    .map(|s| s.to_string())
    .chain(["--dir".into(), dir])
    .collect()
}
