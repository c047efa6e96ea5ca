//! One connection to a peer, over TLS if the cluster has it, made when needed and made again when it broke; many requests
//! may be on their way.

use super::frame::{self, Builder, Frame, Hello, Kind};
use super::identity::Identity;
use crate::base::members::dialed;
use crate::base::{NodeId, Seldom};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::Instant;

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// After a failed attempt, the next waits this long at least, doubling up to the maximum.
const BACK_OFF_MIN: Duration = Duration::from_millis(20);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);
const COMPLAINT_EVERY: Duration = Duration::from_secs(10);
/// A connection that owes an answer and has been silent for so long is given up at the next call that waits in vain. TCP itself would
/// try again ever more seldom, and stay mute for as long after a partition as that had lasted.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// What a link runs over: TCP, or TLS over it.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The machine around this room: how bytes reach a peer, and where work goes that may wait for a disk. The simulation
/// brings its own.
pub trait Host: Send + Sync + 'static {
    fn connect<'a>(&'a self, addr: &'a str) -> Later<'a, io::Result<Box<dyn Stream>>>;
    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> Later<'static, io::Result<()>>;
}

pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// TCP, and tokio's threads for blocking work.
pub struct Machine;

impl Host for Machine {
    fn connect<'a>(&'a self, addr: &'a str) -> Later<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }

    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> Later<'static, io::Result<()>> {
        Box::pin(async { Ok(tokio::task::spawn_blocking(work).await?) })
    }
}

/// Runs `work` where it may wait for a disk.
pub async fn blocking<T: Send + 'static>(host: &dyn Host, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (tx, rx) = oneshot::channel();
    host.blocking(Box::new(move || drop(tx.send(work())))).await?;
    rx.await.map_err(io::Error::other)
}

/// Who waits for what on a connection.
#[derive(Default)]
struct Calls {
    /// Since when, and who, by request.
    waiting: BTreeMap<u64, (Instant, oneshot::Sender<io::Result<Frame>>)>,
    heard: Option<Instant>,
}

type Waiting = Arc<Mutex<Calls>>;

struct Connection {
    write: WriteHalf<Box<dyn Stream>>,
    waiting: Waiting,
    reader: tokio::task::JoinHandle<()>,
    /// A frame was begun and not ended: the stream cannot be used any more.
    broken: bool,
}

impl Connection {
    fn is_silent(&self) -> bool {
        let calls = lock(&self.waiting);
        let oldest = calls.waiting.values().next().map(|(since, _)| *since);
        oldest.is_some_and(|since| calls.heard.unwrap_or(since).max(since).elapsed() > SILENCE_MAX)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

#[derive(Default)]
struct State {
    connection: Option<Connection>,
    back_off: Duration,
    not_before: Option<Instant>,
}

/// A link to one peer; clones share it.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    addr: String,
    identity: Arc<Identity>,
    to: u64,
    complaints: Seldom,
    next_id: AtomicU64,
    state: tokio::sync::Mutex<State>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(|e| e.into_inner())
}

impl Link {
    pub fn new(addr: String, identity: Arc<Identity>, to: u64) -> Link {
        let addr = dialed(&addr).to_owned();
        let complaints = Seldom::new(COMPLAINT_EVERY);
        Link(Arc::new(Inner { addr, identity, to, complaints, next_id: AtomicU64::new(1), state: Default::default() }))
    }

    /// Sends a request and waits for its response. Requests go out in the order in which calls were first polled.
    pub async fn call(&self, request: Builder, timeout: Duration) -> io::Result<Frame> {
        match tokio::time::timeout(timeout, self.call_now(request)).await {
            Ok(result) => result,
            Err(_) => {
                // Locked: somebody else is writing to it
                if let Ok(mut state) = self.0.state.try_lock() {
                    state.connection.take_if(|connection| connection.is_silent());
                }
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }

    async fn call_now(&self, mut request: Builder) -> io::Result<Frame> {
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        let bytes = request.seal(id)?;
        let response = {
            let mut state = self.0.state.lock().await;
            if state.connection.as_ref().is_none_or(|c| c.broken || c.reader.is_finished()) {
                state.connection = None;
                self.connect(&mut state).await?;
            }
            let Some(connection) = &mut state.connection else { return Err(io::ErrorKind::NotConnected.into()) };
            let (tx, rx) = oneshot::channel();
            lock(&connection.waiting).waiting.insert(id, (Instant::now(), tx));
            connection.broken = true;
            connection.write.write_all(bytes).await?;
            connection.write.flush().await?;
            connection.broken = false;
            rx
        };
        let frame = response.await.map_err(|_| io::Error::from(io::ErrorKind::ConnectionReset))??;
        match frame.kind {
            Kind::Failed => Err(io::Error::other(String::from_utf8_lossy(&frame.payload).into_owned())),
            _ => Ok(frame),
        }
    }

    async fn connect(&self, state: &mut State) -> io::Result<()> {
        if state.not_before.is_some_and(|t| t > Instant::now()) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, self.shake_hands()).await;
        match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(connection) => *state = State { connection: Some(connection), ..State::default() },
            Err(e) => {
                // Reached, but not the node that was meant, or it will have nothing to do with this one
                if e.kind() == io::ErrorKind::InvalidData && self.0.complaints.may_pass() {
                    tracing::warn!("node {} at {}: {e}", self.0.to, self.0.addr);
                }
                state.back_off = (state.back_off * 2).clamp(BACK_OFF_MIN, BACK_OFF_MAX);
                state.not_before = Some(Instant::now() + state.back_off);
                return Err(e);
            }
        }
        Ok(())
    }

    async fn shake_hands(&self) -> io::Result<Connection> {
        let Inner { identity, to, addr, .. } = &*self.0;
        let stream = identity.host.connect(addr).await?;
        let hello = identity.hello(*to);
        let mut stream: Box<dyn Stream> = match &identity.tls {
            None => stream,
            Some(tls) => Box::new(tls.connect(stream, *to).await?),
        };
        hello.write(&mut stream).await?;
        let answer = Hello::read(&mut stream).await?;
        let refuse = |why| Err(io::Error::new(io::ErrorKind::InvalidData, why));
        if answer != (Hello { from: hello.to, to: hello.from, directory: answer.directory, ..hello }) {
            return refuse(format!("{addr} is another node: {answer:?}"));
        }
        if let Some(why) = identity.verdict(*to, answer.directory).refusal(NodeId(*to)) {
            return refuse(why);
        }
        let (read, write) = tokio::io::split(stream);
        let waiting = Waiting::default();
        let reader = tokio::spawn(responses(read, waiting.clone()));
        Ok(Connection { write, waiting, reader, broken: false })
    }
}

/// Gives responses to whom they are for, until the connection ends.
async fn responses(mut read: ReadHalf<Box<dyn Stream>>, waiting: Waiting) {
    while let Ok(Some(frame)) = frame::read(&mut read, frame::PAYLOAD_BYTES_MAX).await {
        let waiter = {
            let mut calls = lock(&waiting);
            calls.heard = Some(Instant::now());
            calls.waiting.remove(&frame.id)
        };
        if let Some((_, waiter)) = waiter {
            // A caller that gave up is gone
            let _ = waiter.send(Ok(frame));
        }
    }
    lock(&waiting).waiting.clear();
}

/// The text of a refusal.
pub fn failed(id: u64, why: &str) -> Builder {
    let mut b = Builder::new(Kind::Failed, id, why.len());
    b.bytes(why.as_bytes());
    b
}

/// A payload that its kind does not allow.
pub fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed message")
}

pub fn parsed<T>(value: Option<T>) -> io::Result<T> {
    value.ok_or_else(malformed)
}
