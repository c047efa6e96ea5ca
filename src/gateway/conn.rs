//! One connection, one task: read, make a chunk, hand it on or run it, write replies in order.
//!
//! Writing is the back-pressure: while a client does not take its replies, nothing more is read from it, and the
//! chunks it has in flight are bounded in number and in the bytes of their replies.

use super::Shared;
use super::backend::{Backend, Place, Ran, Reads};
use super::chunk::{Chunk, Filler, Taken};
use super::multi::Queue;
use super::native::{self, Context, Entry};
use super::session::{Replies, Session};
use crate::apply::pending::{Completion, Cost, Outcome, Pending, Plan, Step};
use crate::base::{Epoch, limits};
use crate::resp::decode::Progress;
use crate::resp::{Arg, Decoder, Limits, ReplyBuf, Request, Version};
use bytes::{Buf, BytesMut};
use std::collections::VecDeque;
use std::future::pending;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{broadcast, oneshot};

/// Chunks with writes that one connection may have unfinished.
const IN_FLIGHT_MAX: usize = 8;
/// Room for one read; a connection that fills it gets more.
const READ_BYTES: usize = 16 * 1024;
const READ_BYTES_BUSY: usize = 256 * 1024;
/// Replies of reads are written out when they are this long.
const FLUSH_BYTES: usize = 1 << 20;
/// A buffer that has grown past this is given back when it is empty.
const BUFFER_KEEP: usize = 1 << 20;
const WRONG_PASSWORD_DELAY: Duration = Duration::from_millis(50);
/// Strangers have to authenticate in this time.
const STRANGER: Duration = Duration::from_secs(5);

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// By the client, by QUIT, by a protocol error that was answered.
    Closed,
    Killed,
    /// A write is unfinished and the node stops: its outcome is unknown, so nothing may be said.
    Stopping,
}

/// Why filling a chunk stopped.
enum Stop {
    NeedMore,
    Full,
    Wait(&'static Entry, usize),
    Broken(String),
    Hostile,
}

pub struct Connection<B: Backend, S> {
    shared: Arc<Shared<B>>,
    stream: S,
    session: Session,
    input: BytesMut,
    read_bytes: usize,
    decoder: Decoder,
    chunk: Chunk,
    in_flight: VecDeque<oneshot::Receiver<Completion>>,
    /// None only while a pool thread reads with it.
    reads: Option<B::Reads>,
    out: ReplyBuf,
    monitor: Option<broadcast::Receiver<Vec<u8>>>,
}

impl<B: Backend, S: AsyncRead + AsyncWrite + Unpin + Send> Connection<B, S> {
    pub fn new(shared: Arc<Shared<B>>, stream: S, session: Session) -> Self {
        let reads = Some(shared.backend.reads());
        Connection {
            shared,
            stream,
            session,
            input: BytesMut::new(),
            read_bytes: READ_BYTES,
            decoder: Decoder::default(),
            chunk: Chunk::default(),
            in_flight: VecDeque::new(),
            reads,
            out: ReplyBuf::default(),
            monitor: None,
        }
    }

    /// Serves the client until it leaves or has to. Borrows: the future of a method that takes a connection holds it twice.
    pub async fn serve(&mut self) {
        let end = self.run().await;
        if end != End::Stopping {
            let _ = tokio::time::timeout(Duration::from_secs(1), self.stream.shutdown()).await;
        }
        if self.monitor.is_some() {
            self.shared.monitors.leave();
        }
        self.shared.clients.leave(self.session.client.id);
    }

    async fn run(&mut self) -> End {
        loop {
            if let Err(end) = self.turn().await {
                return end;
            }
            if self.session.closing {
                return End::Closed;
            }
            if self.session.client.is_killed() {
                return End::Killed;
            }
        }
    }

    /// One chunk: from the bytes that are here to its replies, or to the batcher.
    async fn turn(&mut self) -> Result<(), End> {
        self.shared.follow();
        let code = self.shared.backend.code();
        if !self.shared.keeps(&mut self.session, &code) {
            return Err(End::Killed);
        }
        let stop = self.fill(&code);
        if !self.chunk.is_empty() {
            self.dispatch(&code).await?;
        }
        match stop {
            Stop::Full => Ok(()),
            Stop::NeedMore => self.wait().await,
            Stop::Wait(entry, len) => {
                self.drain().await?;
                self.native(&code, entry, len).await
            }
            Stop::Broken(text) => {
                self.drain().await?;
                self.out.set_version(self.session.version);
                self.out.error(text);
                self.flush().await?;
                Err(End::Closed)
            }
            Stop::Hostile => Err(End::Closed),
        }
    }

    /// Decodes what is here into the chunk.
    fn fill(&mut self, code: &Arc<B::Code>) -> Stop {
        self.limit_decoder();
        let monitored = self.shared.monitors.watching();
        self.chunk.version = self.session.version;
        let mut at = 0;
        // A pool thread has it only while the connection waits for that
        let Some(reads) = &mut self.reads else { return Stop::Hostile };
        let (shared, session, chunk) = (&self.shared, &mut self.session, &mut self.chunk);
        let mut filler = Filler { shared, session, code, reads, chunk, monitored };
        let mut last = None;
        let stop = loop {
            if filler.is_full() {
                break Stop::Full;
            }
            let input = &self.input[at..];
            let len = match self.decoder.next(input) {
                Ok(Progress::Complete(len)) => len,
                Ok(Progress::Incomplete(_)) => break Stop::NeedMore,
                Err(error) => break Stop::Broken(error.to_string()),
            };
            let request = self.decoder.request(input);
            if request.is_empty() {
                at += len;
                continue;
            }
            match filler.take(request) {
                Taken::Done => {
                    last = request.args().first().map(|name| (at..at + len, *name));
                    at += len;
                }
                Taken::Wait(entry) => break Stop::Wait(entry, len),
                Taken::Split => break Stop::Full,
                Taken::Hostile => break Stop::Hostile,
            }
        };
        if let Some((request, name)) = last {
            self.note_last(request, name);
        }
        self.input.advance(at);
        stop
    }

    /// Once a chunk, for `CLIENT LIST` and the slow log: its last request and that one's first argument.
    fn note_last(&mut self, request: Range<usize>, name: Arg) {
        let client = &self.session.client;
        client.commands.fetch_add(self.chunk.commands as u64, Relaxed);
        let request = &self.input[request];
        let mut again = Decoder::default();
        let name = match request.first() {
            Some(b'*') => Request::new(request, std::slice::from_ref(&name)).arg(0),
            // The words of an inline one lay elsewhere
            _ => match again.next(request) {
                Ok(Progress::Complete(_)) => again.request(request).arg(0),
                _ => return,
            },
        };
        let mut texts = super::clients::locked(&client.texts);
        texts.command.clear();
        texts.command.extend(name[..name.len().min(64)].iter().map(|b| b.to_ascii_lowercase() as char));
    }

    fn limit_decoder(&mut self) {
        let config = &self.shared.config;
        let queued = self.session.multi.as_ref().map_or(0, Queue::bytes);
        let request_bytes_max = config.request_bytes_max.load(Relaxed).saturating_sub(queued);
        self.decoder.limits = Limits {
            bulk_bytes_max: config.bulk_bytes_max.load(Relaxed),
            // Never so little that EXEC and DISCARD cannot come.
            request_bytes_max: request_bytes_max.max(limits::INLINE_BYTES_MAX),
            trusted: self.session.trusted,
        };
    }

    /// Runs the chunk, or sends it on its way.
    async fn dispatch(&mut self, code: &Arc<B::Code>) -> Result<(), End> {
        let totals = &self.shared.totals;
        totals.commands.fetch_add(self.chunk.commands as u64, Relaxed);
        totals.reads.fetch_add(self.chunk.reads as u64, Relaxed);
        totals.writes.fetch_add(self.chunk.writes as u64, Relaxed);
        totals.count(&self.chunk.tallies);
        slow_down(&mut self.session).await;
        let writes = !self.chunk.records.is_empty();
        self.pass_pause(writes).await;
        let before = self.chunk.before.take();
        if writes {
            self.submit(code).await?;
        } else {
            self.drain().await?;
            match self.session.read_at {
                Some(epoch) => self.read_past(code, epoch).await?,
                None => self.read(code).await?,
            }
        }
        self.chunk.clear();
        if let Some(before) = before {
            self.undo(before).await?;
        }
        Ok(())
    }

    async fn pass_pause(&mut self, writes: bool) {
        while let Some(ms) = self.shared.clients.paused_for(self.shared.backend.now_ms(), writes) {
            if self.session.client.is_killed() {
                return;
            }
            self.shared.clients.until_unpaused(ms.min(1000)).await;
        }
    }

    async fn submit(&mut self, code: &Arc<B::Code>) -> Result<(), End> {
        use super::backend::Code;
        while self.in_flight.len() >= IN_FLIGHT_MAX {
            self.settle().await?;
        }
        let (sender, receiver) = oneshot::channel();
        // Empty: what was in it has been sent.
        let mut reply = std::mem::take(&mut self.out);
        reply.set_version(self.chunk.version);
        reply.set_null(false);
        let pending = Pending {
            plan: std::mem::take(&mut self.chunk.plan),
            reply,
            reply_bytes_max: self.shared.config.output_bytes_max.load(Relaxed),
            slow_us: self.shared.config.slow_us(),
            cost: Cost::default(),
            done: Box::new(move |completion| {
                // The connection may be gone.
                let _ = sender.send(completion);
            }),
        };
        self.shared.backend.submit(&mut self.chunk.records, code.version(), pending).await;
        self.in_flight.push_back(receiver);
        Ok(())
    }

    /// Waits for the oldest unfinished chunk and writes its replies.
    async fn settle(&mut self) -> Result<(), End> {
        let Some(oldest) = self.in_flight.pop_front() else { return Ok(()) };
        match oldest.await {
            Ok(completion) => self.complete(completion).await,
            Err(_) => Err(End::Stopping),
        }
    }

    /// Waits for all of them.
    async fn drain(&mut self) -> Result<(), End> {
        while !self.in_flight.is_empty() {
            self.settle().await?;
        }
        Ok(())
    }

    async fn complete(&mut self, completion: Completion) -> Result<(), End> {
        let Completion { reply, mut plan, epoch, outcome, cost } = completion;
        self.account(cost);
        self.session.last_epoch = self.session.last_epoch.max(epoch);
        self.out = reply;
        match outcome {
            Outcome::Applied => {}
            Outcome::Refused(text) => refuse(&plan, Place::default(), &text, &mut self.out),
            Outcome::CodeChanged => {
                refuse(&plan, Place::default(), "TRYAGAIN the commands have changed; send again", &mut self.out)
            }
            Outcome::TooLong => {
                self.shared.totals.output_limit_disconnections.fetch_add(1, Relaxed);
                return Err(End::Killed);
            }
        }
        plan.clear();
        if self.chunk.plan.is_empty() {
            self.chunk.plan = plan;
        }
        self.flush().await
    }

    /// A failed EXEC has not selected the database, nor the dialect, that its queue named.
    async fn undo(&mut self, before: (u8, Version)) -> Result<(), End> {
        while self.in_flight.len() > 1 {
            self.settle().await?;
        }
        let Some(oldest) = self.in_flight.pop_front() else { return Ok(()) };
        let completion = oldest.await.map_err(|_| End::Stopping)?;
        if completion.outcome != Outcome::Applied || matches!(completion.reply.as_bytes(), b"*-1\r\n" | b"_\r\n") {
            (self.session.db, self.session.version) = before;
        }
        self.complete(completion).await
    }

    /// A chunk of reads, against the newest root.
    async fn read(&mut self, code: &Arc<B::Code>) -> Result<(), End> {
        self.out.clear();
        self.out.set_version(self.chunk.version);
        if self.chunk.reads > 0 {
            let fence = self.shared.backend.fence(self.session.consistency, self.session.last_epoch).await;
            if let Err(refused) = fence {
                refuse(&self.chunk.plan, Place::default(), &refused.0, &mut self.out);
                return self.flush().await;
            }
        }
        let mut place = Place::default();
        loop {
            // No reads, no await between taking and giving back but in `read_patiently`, which does both.
            let Some(reads) = &mut self.reads else { return Err(End::Closed) };
            match reads.run(code, &self.chunk.plan, &mut place, FLUSH_BYTES, false, &mut self.out) {
                Ran::All => {
                    let cost = reads.settle(&self.chunk.plan, self.shared.config.slow_us());
                    self.account(cost);
                    return self.flush().await;
                }
                Ran::Full => self.flush().await?,
                Ran::Large => {
                    self.flush().await?;
                    place = self.read_patiently(code, place).await?;
                }
            }
        }
    }

    /// Charges the client for a chunk, and remembers its costliest call if that was slow.
    fn account(&mut self, cost: Cost) {
        self.session.client.charge(&cost);
        let Some(slow) = cost.slow else { return };
        self.note_latency(slow.micros, slow.fast);
        let threshold = self.shared.config.slower_than_us.load(Relaxed);
        if threshold >= 0 && slow.micros >= threshold {
            let args: Vec<&[u8]> = slow.args.iter().map(Vec::as_slice).collect();
            native::slow(&self.shared, &self.session, slow.micros, &args);
        }
    }

    /// For LATENCY: a call took so long.
    fn note_latency(&self, micros: i64, fast: bool) {
        let threshold = self.shared.config.latency_ms.load(Relaxed);
        if threshold > 0 && micros / 1000 >= threshold {
            let event = if fast { "fast-command" } else { "command" };
            self.shared.latency.note(event, self.shared.backend.now_ms() / 1000, micros / 1000);
        }
    }

    /// For INFO's `errorstats`: the error replies that are about to be sent.
    fn note_errors(&mut self) {
        let errors = self.out.take_errors();
        if !errors.is_empty() {
            self.shared.totals.errors_sent(&errors);
        }
    }

    /// Goes on with the plan on a thread that may take its time; nobody else waits for it.
    async fn read_patiently(&mut self, code: &Arc<B::Code>, mut place: Place) -> Result<Place, End> {
        let Some(mut reads) = self.reads.take() else { return Err(End::Closed) };
        let plan = std::mem::take(&mut self.chunk.plan);
        let mut out = ReplyBuf::new(self.out.version());
        out.set_null(self.out.is_null());
        let code = code.clone();
        let run = move || {
            reads.run(&code, &plan, &mut place, FLUSH_BYTES, true, &mut out);
            (reads, plan, place, out)
        };
        let (reads, plan, place, out) = tokio::task::spawn_blocking(run).await.map_err(|_| End::Closed)?;
        self.reads = Some(reads);
        self.chunk.plan = plan;
        self.out = out;
        self.flush().await?;
        Ok(place)
    }

    /// A chunk of reads on a past epoch.
    async fn read_past(&mut self, code: &Arc<B::Code>, epoch: Epoch) -> Result<(), End> {
        let plan = std::mem::take(&mut self.chunk.plan);
        let out = ReplyBuf::new(self.chunk.version);
        match self.shared.backend.read_at(epoch, code.clone(), plan, out).await {
            Ok((out, plan)) => {
                self.out = out;
                self.chunk.plan = plan;
            }
            Err((error, plan)) => {
                self.out.set_version(self.chunk.version);
                refuse(&plan, Place::default(), &error.to_string(), &mut self.out);
                self.chunk.plan = plan;
            }
        }
        self.flush().await
    }

    /// A command that the gateway answers by itself, with everything before it finished. It begins the input.
    async fn native(&mut self, code: &Arc<B::Code>, entry: &'static Entry, len: usize) -> Result<(), End> {
        self.out.clear();
        self.out.set_version(self.session.version);
        let muted = self.session.replies;
        entry.name.clone_into(&mut super::clients::locked(&self.session.client.texts).command);
        let started = Instant::now();
        let request = self.decoder.request(&self.input);
        let mut context = Context { shared: &self.shared, session: &mut self.session, code };
        native::wait(&mut context, entry, request, &mut self.out).await;
        slow_down(&mut self.session).await;
        let took = started.elapsed();
        let micros = took.as_micros() as i64;
        self.shared.totals.call(entry.name, took.as_nanos() as u64, self.out.errors() > 0);
        let slower = self.shared.config.slower_than_us.load(Relaxed);
        if slower >= 0 && micros >= slower {
            let hidden = matches!(entry.name, "auth" | "hello");
            let args: Vec<&[u8]> = request.iter().take(if hidden { 1 } else { usize::MAX }).collect();
            native::slow(&self.shared, &self.session, micros, &args);
        }
        self.note_latency(micros, entry.has("fast"));
        self.note_errors();
        self.shared.totals.commands.fetch_add(1, Relaxed);
        match (muted, self.session.replies) {
            (Replies::Off, Replies::Off | Replies::SkipNext) | (_, Replies::Off) => self.out.clear(),
            (Replies::SkipNext, Replies::SkipNext) if entry.name != "client|reply" => {
                self.session.replies = Replies::On;
                self.out.clear();
            }
            (_, Replies::SkipNext) => self.out.clear(),
            _ => {}
        }
        self.input.advance(len);
        self.chunk.clear();
        if self.session.monitor && self.monitor.is_none() {
            self.monitor = Some(self.shared.monitors.join());
        }
        if !self.session.monitor && self.monitor.take().is_some() {
            self.shared.monitors.leave();
        }
        self.flush().await
    }

    /// Waits for more input, and writes the replies that come meanwhile.
    async fn wait(&mut self) -> Result<(), End> {
        self.session.publish();
        self.decoder.shrink();
        self.make_room();
        let client = &self.session.client;
        client.query_bytes.store(self.input.len(), Relaxed);
        client.query_free.store(self.input.capacity() - self.input.len(), Relaxed);
        let idle = match (self.session.trusted, self.shared.config.timeout_s.load(Relaxed)) {
            // However busy he is meanwhile.
            (false, _) => Some(STRANGER.saturating_sub(self.session.since.elapsed())),
            (true, 0) => None,
            (true, seconds) => Some(Duration::from_secs(seconds)),
        };
        // What is answered meanwhile brings no input
        while let Some(completion) = self.wait_once(idle).await? {
            self.complete(completion).await?;
        }
        Ok(())
    }

    /// An unfinished chunk is answered; None: there may be more input.
    async fn wait_once(&mut self, idle: Option<Duration>) -> Result<Option<Completion>, End> {
        let full = self.in_flight.len() >= IN_FLIGHT_MAX;
        let client = &self.session.client;
        tokio::select! {
            biased;
            () = std::future::ready(()), if idle == Some(Duration::ZERO) => Err(End::Closed),
            completion = oldest(self.in_flight.front_mut()) => {
                self.in_flight.pop_front();
                completion.map(Some).map_err(|_| End::Stopping)
            }
            read = self.stream.read_buf(&mut self.input), if !full => {
                let bytes = read.unwrap_or(0);
                if bytes == 0 {
                    return Err(End::Closed);
                }
                self.read_bytes = if bytes >= self.read_bytes { READ_BYTES_BUSY } else { self.read_bytes };
                client.last_ms.store(self.shared.backend.now_ms(), Relaxed);
                self.shared.totals.bytes_in.fetch_add(bytes as u64, Relaxed);
                Ok(None)
            }
            line = feed(self.monitor.as_mut()) => {
                self.out.clear();
                self.out.raw(&line);
                self.flush().await.map(|()| None)
            }
            () = client.until_killed() => {
                // What has been sent to the log will happen: its sender is to learn of it, if that is soon.
                let _ = tokio::time::timeout(Duration::from_secs(5), self.drain()).await;
                Err(End::Killed)
            }
            () = after(idle), if self.in_flight.is_empty() && self.monitor.is_none() => Err(End::Closed),
        }
    }

    /// Room to read into: the buffer doubles while a large request arrives, whatever length it announced. An empty one begins anew,
    /// where the processor's cache still has it.
    fn make_room(&mut self) {
        if self.input.is_empty() && self.input.capacity() > BUFFER_KEEP {
            self.input = BytesMut::new();
            self.read_bytes = READ_BYTES;
        }
        let bytes = if self.session.trusted { self.read_bytes } else { limits::UNAUTHENTICATED_BULK_BYTES_MAX };
        if self.input.is_empty() || self.input.capacity() - self.input.len() < bytes / 4 {
            self.input.reserve(bytes.max(self.input.len().min(64 << 20)));
        }
    }

    /// Writes out what is in `out`. A client that takes nothing for long is closed.
    async fn flush(&mut self) -> Result<(), End> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.note_errors();
        let bytes = self.out.as_bytes();
        self.shared.totals.bytes_out.fetch_add(bytes.len() as u64, Relaxed);
        let stall = match self.session.trusted {
            true => Duration::from_secs(self.shared.config.output_stall_s.load(Relaxed)),
            false => STRANGER,
        };
        let client = &self.session.client;
        let mut rest = bytes;
        while !rest.is_empty() {
            tokio::select! {
                biased;
                wrote = write(&mut self.stream, rest) => match wrote {
                    Ok(0) | Err(_) => return Err(End::Closed),
                    Ok(n) => rest = &rest[n..],
                },
                () = client.until_killed() => return Err(End::Killed),
                () = after(Some(stall)) => {
                    self.shared.totals.output_limit_disconnections.fetch_add(1, Relaxed);
                    return Err(End::Killed);
                }
            }
            client.output_bytes.store(rest.len(), Relaxed);
        }
        if self.out.len() > BUFFER_KEEP {
            self.out = ReplyBuf::new(self.session.version);
        }
        self.out.clear();
        Ok(())
    }
}

/// Guessing passwords takes time, also within MULTI.
#[inline]
async fn slow_down(session: &mut Session) {
    if session.wrong_passwords > 0 {
        let guesses = std::mem::take(&mut session.wrong_passwords);
        tokio::time::sleep(WRONG_PASSWORD_DELAY * guesses).await;
    }
}

/// Writes some of it, as `AsyncWrite::write` does; TLS may hold on to the end of what it took, and must not.
async fn write<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> std::io::Result<usize> {
    let taken = stream.write(bytes).await?;
    if taken == bytes.len() {
        stream.flush().await?;
    }
    Ok(taken)
}

/// Returns after so long, or never. (Asks for the time when it is first polled: mostly it is not.)
async fn after(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => pending().await,
    }
}

/// The oldest unfinished chunk's completion; never, when there is none.
async fn oldest(receiver: Option<&mut oneshot::Receiver<Completion>>) -> Result<Completion, oneshot::error::RecvError> {
    match receiver {
        Some(receiver) => receiver.await,
        None => pending().await,
    }
}

/// The next line of the monitors' feed; lines that were missed stay missed.
async fn feed(receiver: Option<&mut broadcast::Receiver<Vec<u8>>>) -> Vec<u8> {
    let Some(receiver) = receiver else { return pending().await };
    loop {
        match receiver.recv().await {
            Ok(line) => return line,
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return pending().await,
        }
    }
}

/// Answers a plan that was not run from `place` on: an error for each call, the ready answers as they are.
pub fn refuse(plan: &Plan, place: Place, text: &str, out: &mut ReplyBuf) {
    let (mut literal, mut skip, mut done) = (place.literal, 0, place.done);
    for step in plan.steps.iter().skip(place.step) {
        let inside = skip > 0;
        let answered = std::mem::take(&mut done);
        skip = if inside { skip - 1 } else { 0 };
        match *step {
            Step::Literal(bytes) => {
                let end = literal + bytes as usize;
                if !inside {
                    out.raw(&plan.literals[literal..end]);
                }
                literal = end;
            }
            Step::Records(count) | Step::Riders(count) if !inside => (answered..count).for_each(|_| out.error(text)),
            Step::Exec { steps, .. } => {
                out.error(text);
                skip = steps;
            }
            Step::Mute(mute) => out.set_null(mute),
            Step::Dialect(version) if !inside => out.set_version(version),
            Step::Dialect(_) => {}
            Step::Records(_) | Step::Riders(_) => {}
        }
    }
    out.set_null(false);
}
