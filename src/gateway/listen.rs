//! Listeners: who may come in, and how many.

use super::Shared;
use super::backend::Backend;
use super::clients::Clients;
use super::config::Config;
use super::conn::Connection;
use super::guard::Acl;
use super::observe::{Monitors, SlowLog, Totals};
use super::session::Session;
use super::tls;
use crate::base::Seldom;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_rustls::rustls::ServerConfig;

const MAX_CLIENTS: &[u8] = b"-ERR max number of clients reached\r\n";
const DENIED: &[u8] = b"-DENIED Look is running in protected mode because protected mode is enabled and no password is set for \
the default user. In this mode connections are only accepted from the loopback interface. If you want to connect from \
external computers, you may adopt one of the following solutions: 1) Just disable protected mode sending the command \
'CONFIG SET protected-mode no' from the loopback interface by connecting from the same host the server is running, however \
MAKE SURE the server is not publicly accessible from internet if you do so. Use CONFIG REWRITE to make this change permanent. \
2) Alternatively you can just disable the protected mode by editing the configuration file, and setting the protected mode \
option to 'no', and then restarting the server. 3) Setup an authentication password for the default user with 'requirepass'. \
NOTE: You only need to do one of the above things in order for the server to start accepting connections from the outside.\r\n";

/// Strangers can cause lines in the log: no more than one in this time.
const COMPLAINT_EVERY: Duration = Duration::from_secs(10);

/// How a gateway is started.
#[derive(Debug, Default)]
pub struct GatewayOptions {
    /// Addresses to listen on; port 0 takes any.
    pub listen: Vec<SocketAddr>,
    pub tls: Option<TlsListen>,
    pub unix_socket: Option<PathBuf>,
    /// Mode of the unix socket, set before anybody can connect (CVE-2023-45145).
    pub unix_mode: u32,
    /// The node's configuration, `name value`.
    pub parameters: Vec<(String, String)>,
}

/// Where TLS is spoken, and how.
#[derive(Debug)]
pub struct TlsListen {
    pub listen: Vec<SocketAddr>,
    pub config: Arc<ServerConfig>,
}

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    #[error("cannot listen on {0}: {1}")]
    Listen(String, io::Error),
    #[error("{0}")]
    Parameter(String),
    #[error("{0}; correct the file, or name no aclfile")]
    Acl(String),
}

/// A running gateway.
pub struct Gateway<B: Backend> {
    shared: Arc<Shared<B>>,
    addresses: Vec<SocketAddr>,
    tls_addresses: Vec<SocketAddr>,
    accepting: Mutex<Vec<JoinHandle<()>>>,
}

impl<B: Backend> Gateway<B> {
    /// Binds all listeners, then begins to accept. To be called within a tokio runtime.
    pub async fn start(options: GatewayOptions, backend: B) -> Result<Gateway<B>, GatewayError> {
        let config = Config::default();
        config.load(&options.parameters).map_err(GatewayError::Parameter)?;
        let (listeners, addresses) = bind(&options.listen).await?;
        let (tls_listeners, tls_addresses) = match &options.tls {
            None => Default::default(),
            Some(tls) => bind(&tls.listen).await?,
        };
        let unix = match &options.unix_socket {
            None => None,
            Some(path) => Some(
                bind_unix(path, options.unix_mode).map_err(|e| GatewayError::Listen(path.display().to_string(), e))?,
            ),
        };
        let requirepass = options.parameters.iter().rfind(|(name, _)| name == "requirepass");
        let requirepass = requirepass.map_or("", |(_, value)| value.as_str());
        let acl = Acl::new(requirepass, super::native::catalogue(&*backend.code()));
        let shared = Arc::new(Shared {
            backend,
            acl,
            clients: Clients::default(),
            config,
            totals: Totals::default(),
            slow_log: SlowLog::default(),
            latency: Default::default(),
            monitors: Monitors::default(),
            started: Instant::now(),
            followed: AtomicU64::new(0),
            following: Mutex::new(()),
            stop: Notify::new(),
        });
        shared.follow();
        super::native::acl::start(&shared, requirepass).await.map_err(GatewayError::Acl)?;
        let mut accepting: Vec<_> =
            listeners.into_iter().map(|l| tokio::spawn(accept_tcp(shared.clone(), l))).collect();
        if let Some(tls) = options.tls {
            let listeners = tls_listeners.into_iter();
            accepting.extend(listeners.map(|l| tokio::spawn(accept_tls(shared.clone(), l, tls.config.clone()))));
        }
        if let (Some(listener), Some(path)) = (unix, options.unix_socket) {
            accepting.push(tokio::spawn(accept_unix(shared.clone(), listener, path)));
        }
        Ok(Gateway { shared, addresses, tls_addresses, accepting: Mutex::new(accepting) })
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
    /// Where it listens for TLS.
    pub fn tls_addresses(&self) -> &[SocketAddr] {
        &self.tls_addresses
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

/// Listeners, and where they really are.
async fn bind(wanted: &[SocketAddr]) -> Result<(Vec<TcpListener>, Vec<SocketAddr>), GatewayError> {
    let mut listeners = Vec::new();
    for address in wanted {
        let listener = TcpListener::bind(address).await.map_err(|e| GatewayError::Listen(address.to_string(), e))?;
        listeners.push(listener);
    }
    let addresses = listeners.iter().filter_map(|l| l.local_addr().ok()).collect();
    Ok((listeners, addresses))
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
        let laddr = prepare(&shared, &stream);
        welcome(&shared, stream, peer.to_string(), laddr, is_open(&shared, peer.ip()));
    }
}

/// A client counts from its first byte on: handshakes are as many as `maxclients` allows. Whom there is no room for learns it
/// by the end of the connection, as with Redis: without a handshake there is no way to say it.
async fn accept_tls<B: Backend>(shared: Arc<Shared<B>>, listener: TcpListener, config: Arc<ServerConfig>) {
    let complaints = Arc::new(Seldom::new(COMPLAINT_EVERY));
    loop {
        let Some((stream, peer)) = accepted(listener.accept()).await else { continue };
        let laddr = prepare(&shared, &stream);
        let Ok(session) = admit(&shared, peer.to_string(), laddr, is_open(&shared, peer.ip())) else { continue };
        let (shared, config, complaints) = (shared.clone(), config.clone(), complaints.clone());
        tokio::spawn(async move {
            match tls::shake_hands(config, stream).await {
                Ok(stream) => Connection::new(shared, stream, session).serve().await,
                Err(error) => {
                    shared.clients.leave(session.client.id);
                    shared.totals.tls_failures.fetch_add(1, Relaxed);
                    if complaints.may_pass() {
                        tracing::warn!("TLS with {peer}: {error}");
                    }
                }
            }
        });
    }
}

/// Looks at the newest settings, sets the socket's options; tells its own address.
fn prepare<B: Backend>(shared: &Shared<B>, stream: &TcpStream) -> String {
    shared.follow();
    let _ = stream.set_nodelay(true);
    keep_alive(stream, shared.config.keepalive_s.load(Relaxed));
    stream.local_addr().map(|a| a.to_string()).unwrap_or_default()
}

/// Protected mode: without a password, only this machine may come in.
fn is_open<B: Backend>(shared: &Shared<B>, ip: IpAddr) -> bool {
    is_local(ip) || !shared.config.protected.load(Relaxed) || !shared.acl.users().default_user().user.nopass
}

async fn accept_unix<B: Backend>(shared: Arc<Shared<B>>, listener: UnixListener, path: PathBuf) {
    loop {
        let Some((stream, _)) = accepted(listener.accept()).await else { continue };
        shared.follow();
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
    match admit(shared, addr, laddr, open) {
        Ok(session) => {
            let mut connection = Connection::new(shared.clone(), stream, session);
            drop(tokio::spawn(async move { connection.serve().await }));
        }
        Err(why) => drop(tokio::spawn(turn_away(stream, why))),
    }
}

/// A session for a client, or what to tell it instead.
fn admit<B: Backend>(shared: &Shared<B>, addr: String, laddr: String, open: bool) -> Result<Session, &'static [u8]> {
    let max = (shared.config.maxclients.load(Relaxed), shared.config.clients_per_address.load(Relaxed));
    let client = match open {
        true => shared.clients.enter(addr, laddr, shared.backend.now_ms(), max).ok_or(MAX_CLIENTS),
        false => Err(DENIED),
    };
    let counter = if client.is_ok() { &shared.totals.connections } else { &shared.totals.rejected };
    counter.fetch_add(1, Relaxed);
    client.map(|client| Session::new(client, &shared.acl, shared.backend.stays_at()))
}

async fn turn_away(mut stream: impl AsyncWrite + Unpin, text: &'static [u8]) {
    let farewell = async {
        let _ = stream.write_all(text).await;
        let _ = stream.shutdown().await;
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), farewell).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CVE-2025-48367: the listener's loop goes on with what follows.
    #[tokio::test]
    async fn no_error_of_accept_ends_it() {
        let says = |error: i32| accepted::<()>(std::future::ready(Err(io::Error::from_raw_os_error(error))));
        let begin = Instant::now();
        for _ in 0..1000 {
            assert_eq!(says(rustix::io::Errno::CONNABORTED.raw_os_error()).await, None);
        }
        // A pause for each of them would take 50 seconds
        assert!(begin.elapsed() < Duration::from_secs(10), "the next client does not wait for those that left");
        // Without descriptors it would come back at once, again and again
        let begin = Instant::now();
        assert_eq!(says(rustix::io::Errno::MFILE.raw_os_error()).await, None);
        assert!(begin.elapsed() >= Duration::from_millis(50));
        assert_eq!(accepted(std::future::ready(Ok(7))).await, Some(7));
    }
}
