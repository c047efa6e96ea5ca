//! Virtual time and the network on it: streams between hosts, each byte under way for a time that the seed decides.
//!
//! A stream behaves as TCP does: bytes come in order or not at all. Loss and cut links delay them (they are sent again); a link
//! that stays cut for long breaks the stream; a process that is killed ends its streams, a host without power says nothing, and what
//! reaches a stream that nobody holds any more is answered with a reset.

use crate::common::Random;
use look::base::mix64;
use look::raft::{Host, Later, Stream};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// Milliseconds since the simulation began.
pub type Ms = u64;
/// A node's number; 0 stands for all clients.
pub type HostId = u64;
pub const CLIENTS: HostId = 0;

thread_local! {
    static NOW: Cell<Ms> = const { Cell::new(0) };
}

/// Lines of a trace begin with it.
pub struct SimulatedTime;

impl tracing_subscriber::fmt::time::FormatTime for SimulatedTime {
    fn format_time(&self, w: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        write!(w, "{:>6} ms", NOW.get())
    }
}

/// After this the bytes of a lost segment are sent again.
const SEND_AGAIN: Ms = 200;
/// A stream whose bytes do not get through for so long breaks.
const PATIENCE: Ms = 8_000;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Power {
    On,
    /// The process is gone, the system answers for it.
    NoProcess,
    Off,
}

enum Segment {
    Bytes(Vec<u8>),
    Fin,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    No,
    Fin,
    Reset,
}

/// One direction of a stream.
struct Lane {
    under_way: VecDeque<(Ms, Segment)>,
    newest_due: Ms,
    /// Since when its oldest bytes do not get through.
    stuck_since: Option<Ms>,
    inbox: VecDeque<u8>,
    ended: Ended,
    reader: Option<Waker>,
    /// Nobody will read.
    abandoned: bool,
}

impl Lane {
    fn new() -> Lane {
        Lane {
            under_way: VecDeque::new(),
            newest_due: 0,
            stuck_since: None,
            inbox: VecDeque::new(),
            ended: Ended::No,
            reader: None,
            abandoned: false,
        }
    }

    fn end(&mut self, how: Ended) {
        self.ended = how;
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }
}

struct Connection {
    hosts: [HostId; 2],
    /// `lanes[side]` carries what `side` writes.
    lanes: [Lane; 2],
    opened: Option<oneshot::Sender<io::Result<()>>>,
}

enum Event {
    Syn(u64, u32),
    Answer(u64, bool),
    Due(u64, usize),
}

/// Faults of all links.
#[derive(Clone, Debug, Default)]
pub struct Weather {
    pub delay_min: Ms,
    pub delay_max: Ms,
    pub loss_percent: usize,
}

struct State {
    now: Ms,
    random: Random,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    events: BTreeMap<(Ms, u64), Event>,
    next_event: u64,
    arrived: BTreeMap<HostId, VecDeque<u64>>,
    power: BTreeMap<HostId, Power>,
    cut: BTreeSet<(HostId, HostId)>,
    weather: Weather,
    /// Digest of everything that was delivered, in order.
    trace: u64,
}

/// Clones share the network.
#[derive(Clone)]
pub struct Net(Arc<Mutex<State>>);

impl Net {
    pub fn new(seed: u64, weather: Weather) -> Net {
        Net(Arc::new(Mutex::new(State {
            now: 0,
            random: Random::new(seed),
            connections: BTreeMap::new(),
            next_connection: 1,
            events: BTreeMap::new(),
            next_event: 0,
            arrived: BTreeMap::new(),
            power: BTreeMap::new(),
            cut: BTreeSet::new(),
            weather,
            trace: seed,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn now(&self) -> Ms {
        self.state().now
    }
    pub fn trace(&self) -> u64 {
        self.state().trace
    }
    /// Adds to the trace what happened outside the network.
    pub fn note(&self, what: u64) {
        let mut state = self.state();
        state.trace = mix64(state.trace.rotate_left(9) ^ mix64(what ^ state.now << 20));
    }
    pub fn set_weather(&self, weather: Weather) {
        self.state().weather = weather;
    }
    /// What a process without power over its sockets leaves behind goes: streams that it had not accepted yet.
    pub fn set_power(&self, host: HostId, power: Power) {
        let mut state = self.state();
        state.power.insert(host, power);
        if power != Power::On {
            for id in state.arrived.remove(&host).unwrap_or_default() {
                state.forget(id);
            }
        }
    }
    pub fn cut(&self, from: HostId, to: HostId) {
        self.state().cut.insert((from, to));
    }
    pub fn heal(&self) {
        self.state().cut.clear();
    }

    /// Lets everything happen that is due at `now`.
    pub fn advance(&self, now: Ms) {
        self.state().now = now;
        NOW.set(now);
        loop {
            let mut state = self.state();
            let Some(entry) = state.events.first_entry().filter(|e| e.key().0 <= now) else { return };
            let event = entry.remove();
            state.happen(event);
        }
    }

    /// Streams opened towards `host` since the last call, and where they come from.
    pub fn arrivals(&self, host: HostId, wanted: impl Fn(HostId) -> bool) -> Vec<(HostId, End)> {
        let mut state = self.state();
        let State { arrived, connections, .. } = &mut *state;
        let mut ends = Vec::new();
        let Some(waiting) = arrived.get_mut(&host) else { return ends };
        waiting.retain(|&id| {
            let Some(from) = connections.get(&id).map(|c| c.hosts[0]) else { return false };
            let now = wanted(from);
            if now {
                ends.push((from, End { net: self.clone(), id, side: 1 }));
            }
            !now
        });
        ends
    }

    pub async fn connect(&self, from: HostId, to: HostId) -> io::Result<End> {
        let (tx, rx) = oneshot::channel();
        let end = {
            let mut state = self.state();
            let id = state.next_connection;
            state.next_connection += 1;
            let connection = Connection { hosts: [from, to], lanes: [Lane::new(), Lane::new()], opened: Some(tx) };
            state.connections.insert(id, connection);
            let at = state.now + state.delay(from, to);
            state.plan(at, Event::Syn(id, 0));
            End { net: self.clone(), id, side: 0 }
        };
        rx.await.unwrap_or_else(|_| Err(io::ErrorKind::ConnectionReset.into()))?;
        Ok(end)
    }
}

impl State {
    fn plan(&mut self, at: Ms, event: Event) {
        self.next_event += 1;
        self.events.insert((at, self.next_event), event);
    }

    fn delay(&mut self, from: HostId, to: HostId) -> Ms {
        if from == CLIENTS || to == CLIENTS {
            return self.random.below(2) as Ms;
        }
        let Weather { delay_min, delay_max, .. } = self.weather;
        let span = (delay_max - delay_min + 1) as usize;
        // Most are near the minimum, some much later
        let late = if self.random.chance(90) { span.div_ceil(4) } else { span };
        delay_min + self.random.below(late) as Ms
    }

    fn power(&self, host: HostId) -> Power {
        self.power.get(&host).copied().unwrap_or(Power::On)
    }

    /// Whether what leaves `from` now does not get to `to`.
    fn lost(&mut self, from: HostId, to: HostId) -> bool {
        let lossy = from != CLIENTS && to != CLIENTS && self.weather.loss_percent > 0;
        self.cut.contains(&(from, to)) || (lossy && self.random.chance(self.weather.loss_percent))
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Syn(id, tries) => self.syn(id, tries),
            Event::Answer(id, accepted) => {
                let result = if accepted { Ok(()) } else { Err(io::ErrorKind::ConnectionRefused.into()) };
                if let Some(opened) = self.connections.get_mut(&id).and_then(|c| c.opened.take()) {
                    let _ = opened.send(result);
                }
            }
            Event::Due(id, side) => self.deliver(id, side),
        }
    }

    fn syn(&mut self, id: u64, tries: u32) {
        let Some([from, to]) = self.connections.get(&id).map(|c| c.hosts) else { return };
        if self.lost(from, to) || self.lost(to, from) {
            if tries < 5 {
                let at = self.now + 1000;
                self.plan(at, Event::Syn(id, tries + 1));
            }
            return;
        }
        let power = self.power(to);
        if power == Power::Off {
            return;
        }
        if power == Power::On {
            self.arrived.entry(to).or_default().push_back(id);
        }
        let at = self.now + self.delay(to, from);
        self.plan(at, Event::Answer(id, power == Power::On));
    }

    /// A stream that nobody accepted, or that nobody waits for any more.
    fn forget(&mut self, id: u64) {
        if let Some(mut connection) = self.connections.remove(&id) {
            connection.lanes.iter_mut().for_each(Lane::wake);
        }
    }

    fn deliver(&mut self, id: u64, side: usize) {
        loop {
            let now = self.now;
            let Some(hosts) = self.connections.get(&id).map(|c| c.hosts) else { return };
            let (from, to) = (hosts[side], hosts[1 - side]);
            let due = self.connections.get(&id).and_then(|c| c.lanes[side].under_way.front()).map(|(due, _)| *due);
            if due.is_none_or(|due| due > now) {
                return;
            }
            let lost = self.lost(from, to);
            let power = self.power(to);
            let Some(connection) = self.connections.get_mut(&id) else { return };
            let lane = &mut connection.lanes[side];
            if lost || power == Power::Off {
                let since = *lane.stuck_since.get_or_insert(now);
                if now - since > PATIENCE {
                    lane.under_way.clear();
                    connection.lanes.iter_mut().for_each(|lane| lane.end(Ended::Reset));
                    return;
                }
                if let Some(front) = lane.under_way.front_mut() {
                    front.0 = now + SEND_AGAIN;
                }
                self.plan(now + SEND_AGAIN, Event::Due(id, side));
                return;
            }
            lane.stuck_since = None;
            let Some((_, segment)) = lane.under_way.pop_front() else { return };
            if lane.abandoned {
                // Nobody holds that end: its system says so
                connection.lanes[1 - side].end(Ended::Reset);
                continue;
            }
            match segment {
                Segment::Bytes(bytes) => {
                    lane.inbox.extend(&bytes);
                    lane.wake();
                    let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes);
                    self.trace = mix64(self.trace.rotate_left(7) ^ mix64(sum ^ id << 33 ^ now << 8 ^ side as u64));
                }
                Segment::Fin => lane.end(Ended::Fin),
            }
        }
    }

    fn send(&mut self, id: u64, side: usize, segment: Segment) {
        let Some(hosts) = self.connections.get(&id).map(|c| c.hosts) else { return };
        let delay = self.delay(hosts[side], hosts[1 - side]);
        let now = self.now;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let lane = &mut connection.lanes[side];
        let at = (now + delay).max(lane.newest_due);
        lane.newest_due = at;
        lane.under_way.push_back((at, segment));
        self.plan(at, Event::Due(id, side));
    }
}

impl Host for HostNet {
    fn connect<'a>(&'a self, addr: &'a str) -> Later<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let to = host_of(addr).ok_or(io::ErrorKind::AddrNotAvailable)?;
            Ok(Box::new(self.net.connect(self.host, to).await?) as Box<dyn Stream>)
        })
    }

    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> Later<'static, io::Result<()>> {
        Box::pin(async {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            work();
            Ok(())
        })
    }
}

/// The network as one host sees it.
pub struct HostNet {
    pub net: Net,
    pub host: HostId,
}

pub fn address_of(host: HostId) -> String {
    format!("10.0.0.{host}:7000")
}

fn host_of(addr: &str) -> Option<HostId> {
    addr.strip_prefix("10.0.0.")?.strip_suffix(":7000")?.parse().ok()
}

/// One end of a stream.
pub struct End {
    net: Net,
    id: u64,
    side: usize,
}

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.net.state();
        let Some(connection) = state.connections.get_mut(&self.id) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let lane = &mut connection.lanes[1 - self.side];
        if !lane.inbox.is_empty() {
            let n = lane.inbox.len().min(buf.remaining());
            let (front, back) = lane.inbox.as_slices();
            let of_front = n.min(front.len());
            buf.put_slice(&front[..of_front]);
            buf.put_slice(&back[..n - of_front]);
            lane.inbox.drain(..n);
            return Poll::Ready(Ok(()));
        }
        match lane.ended {
            Ended::Fin => Poll::Ready(Ok(())),
            Ended::Reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Ended::No => {
                lane.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.net.state();
        let ended = state.connections.get(&self.id).is_none_or(|c| c.lanes[1 - self.side].ended == Ended::Reset);
        if ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        state.send(self.id, self.side, Segment::Bytes(buf.to_vec()));
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut state = self.net.state();
        let (id, side) = (self.id, self.side);
        let Some(connection) = state.connections.get_mut(&id) else { return };
        connection.lanes[1 - side].abandoned = true;
        let host = connection.hosts[side];
        if connection.opened.is_some() {
            state.forget(self.id);
        } else if connection.lanes.iter().all(|lane| lane.abandoned) {
            state.connections.remove(&id);
        } else if state.power(host) != Power::Off {
            state.send(id, side, Segment::Fin);
        }
    }
}
