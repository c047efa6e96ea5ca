//! Listeners: who may come in, and how many.

use super::Shared;
use super::backend::Backend;
use super::clients::Clients;
use super::config::Config;
use super::conn::Connection;
use super::observe::{Monitors, SlowLog, Totals};
use super::session::Session;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

const MAX_CLIENTS: &[u8] = b"-ERR max number of clients reached\r\n";
const DENIED: &[u8] = b"-DENIED Look is running in protected mode because protected mode is enabled and no password is set for \
the default user. In this mode connections are only accepted from the loopback interface. If you want to connect from \
external computers, you may adopt one of the following solutions: 1) Just disable protected mode sending the command \
'CONFIG SET protected-mode no' from the loopback interface by connecting from the same host the server is running, however \
MAKE SURE the server is not publicly accessible from internet if you do so. Use CONFIG REWRITE to make this change permanent. \
2) Alternatively you can just disable the protected mode by editing the configuration file, and setting the protected mode \
option to 'no', and then restarting the server. 3) Setup an authentication password for the default user with 'requirepass'. \
NOTE: You only need to do one of the above things in order for the server to start accepting connections from the outside.\r\n";

/// How a gateway is started.
#[derive(Debug, Default)]
pub struct GatewayOptions {
    /// Addresses to listen on; port 0 takes any.
    pub listen: Vec<SocketAddr>,
    pub unix_socket: Option<PathBuf>,
    /// Mode of the unix socket, set before anybody can connect (CVE-2023-45145).
    pub unix_mode: u32,
    /// The node's configuration, `name value`.
    pub parameters: Vec<(String, String)>,
}

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    #[error("cannot listen on {0}: {1}")]
    Listen(String, io::Error),
    #[error("{0}")]
    Parameter(String),
}

/// A running gateway.
pub struct Gateway<B: Backend> {
    shared: Arc<Shared<B>>,
    addresses: Vec<SocketAddr>,
    accepting: Mutex<Vec<JoinHandle<()>>>,
}

impl<B: Backend> Gateway<B> {
    /// Binds all listeners, then begins to accept. To be called within a tokio runtime.
    pub async fn start(options: GatewayOptions, backend: B) -> Result<Gateway<B>, GatewayError> {
        let config = Config::default();
        config.load(&options.parameters).map_err(GatewayError::Parameter)?;
        let mut listeners = Vec::new();
        for address in &options.listen {
            let listener =
                TcpListener::bind(address).await.map_err(|e| GatewayError::Listen(address.to_string(), e))?;
            listeners.push(listener);
        }
        let unix = match &options.unix_socket {
            None => None,
            Some(path) => Some(
                bind_unix(path, options.unix_mode).map_err(|e| GatewayError::Listen(path.display().to_string(), e))?,
            ),
        };
        let addresses = listeners.iter().filter_map(|l| l.local_addr().ok()).collect();
        let shared = Arc::new(Shared {
            backend,
            clients: Clients::default(),
            config,
            totals: Totals::default(),
            slow_log: SlowLog::default(),
            monitors: Monitors::default(),
            started: Instant::now(),
            stop: Notify::new(),
        });
        let mut accepting: Vec<_> =
            listeners.into_iter().map(|l| tokio::spawn(accept_tcp(shared.clone(), l))).collect();
        if let (Some(listener), Some(path)) = (unix, options.unix_socket) {
            accepting.push(tokio::spawn(accept_unix(shared.clone(), listener, path)));
        }
        Ok(Gateway { shared, addresses, accepting: Mutex::new(accepting) })
    }

    /// Serves a client that came another way than through a listener.
    pub fn serve<S>(&self, stream: S, addr: &str)
    where
        S: tokio::io::AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        welcome(&self.shared, stream, addr.into(), addr.into(), true);
    }

    /// Where it listens: with the real ports.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
    pub fn shared(&self) -> &Arc<Shared<B>> {
        &self.shared
    }
    /// Returns when a client has sent SHUTDOWN.
    pub async fn stop_requested(&self) {
        self.shared.stop.notified().await;
    }
    /// Stops accepting, lets connections finish what they have begun for at most `grace`, then closes them.
    pub async fn shutdown(&self, grace: Duration) {
        super::clients::locked(&self.accepting).drain(..).for_each(|task| task.abort());
        self.shared.clients.all().iter().for_each(|client| client.kill());
        let until = Instant::now() + grace;
        while !self.shared.clients.is_empty() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn bind_unix(path: &PathBuf, mode: u32) -> io::Result<UnixListener> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    if std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    // Bound under a name that nobody knows, given its mode, and only then moved to the name that clients use.
    let hidden = path.with_extension(format!("new-{}", std::process::id()));
    let _ = std::fs::remove_file(&hidden);
    let listener = UnixListener::bind(&hidden)?;
    let mode = if mode == 0 { 0o700 } else { mode };
    std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(mode))?;
    std::fs::rename(&hidden, path)?;
    Ok(listener)
}

/// Goes on whatever a single accept says: out of descriptors, or a client that left (CVE-2025-48367).
async fn accepted<T>(accept: impl Future<Output = io::Result<T>>) -> Option<T> {
    match accept.await {
        Ok(stream) => Some(stream),
        Err(error) => {
            if error.kind() != io::ErrorKind::ConnectionAborted {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            None
        }
    }
}

async fn accept_tcp<B: Backend>(shared: Arc<Shared<B>>, listener: TcpListener) {
    loop {
        let Some((stream, peer)) = accepted(listener.accept()).await else { continue };
        let laddr = stream.local_addr().map(|a| a.to_string()).unwrap_or_default();
        let _ = stream.set_nodelay(true);
        keep_alive(&stream, shared.config.keepalive_s.load(Relaxed));
        let open =
            is_local(peer.ip()) || !shared.config.protected.load(Relaxed) || shared.config.password_set.load(Relaxed);
        welcome(&shared, stream, peer.to_string(), laddr, open);
    }
}

async fn accept_unix<B: Backend>(shared: Arc<Shared<B>>, listener: UnixListener, path: PathBuf) {
    loop {
        let Some((stream, _)) = accepted(listener.accept()).await else { continue };
        let name = format!("{}:0", path.display());
        welcome(&shared, stream, name.clone(), name, true);
    }
}

fn is_local(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

fn keep_alive(stream: &TcpStream, seconds: u64) {
    use rustix::net::sockopt;
    if seconds == 0 {
        return;
    }
    // A connection without keep-alive is still a connection.
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, Duration::from_secs(seconds));
    let _ = sockopt::set_tcp_keepintvl(stream, Duration::from_secs((seconds / 3).max(1)));
    let _ = sockopt::set_tcp_keepcnt(stream, 3);
}

/// Lets a connection in, or tells it why not.
fn welcome<B: Backend, S>(shared: &Arc<Shared<B>>, stream: S, addr: String, laddr: String, open: bool)
where
    S: tokio::io::AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if !open {
        shared.totals.rejected.fetch_add(1, Relaxed);
        tokio::spawn(turn_away(stream, DENIED));
        return;
    }
    let max = shared.config.maxclients.load(Relaxed);
    let Some(client) = shared.clients.enter(addr, laddr, shared.backend.now_ms(), max) else {
        shared.totals.rejected.fetch_add(1, Relaxed);
        tokio::spawn(turn_away(stream, MAX_CLIENTS));
        return;
    };
    shared.totals.connections.fetch_add(1, Relaxed);
    let trusted = !shared.config.password_set.load(Relaxed);
    let session = Session::new(client, trusted);
    tokio::spawn(Connection::new(shared.clone(), stream, session).serve());
}

async fn turn_away(mut stream: impl AsyncWrite + Unpin, text: &'static [u8]) {
    let farewell = async {
        let _ = stream.write_all(text).await;
        let _ = stream.shutdown().await;
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), farewell).await;
}
