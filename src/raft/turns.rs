//! Who applies, and when.
//!
//! What the state machine is to do is queued in one bounded channel, so that a checkpoint taken over from a peer stands in order
//! with the entries around it. Whoever holds the machine's lock takes its turns: as a rule the apply thread. Where one thread serves all clients and runs Raft, too, it applies what is small itself ([`super::here`]):
//! waking another thread and being woken by it costs more.
//!
//! Nothing is left lying: whoever queued something and could not take the turn wakes the thread, and the thread waits for the lock.

use super::here::Here;
use super::machine::{Machine, Progress};
use crate::apply::machine::{Applied, Checkpoint, Committed, Receive, StateMachine};
use crate::base::Epoch;
use crate::disk::urgent;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Sets of entries between raft and apply.
const SETS_WAITING_MAX: usize = 8;
/// What can wait is done after so long a time without a turn elsewhere.
const PAUSE: Duration = Duration::from_millis(10);

pub(super) enum ToApply {
    Entries(Vec<Committed>),
    Checkpoint(oneshot::Sender<Option<Box<dyn Checkpoint>>>),
    Receive(u64, Epoch, oneshot::Sender<Result<Box<dyn Receive>, String>>),
    Install(Applied, Box<dyn Receive>, oneshot::Sender<Result<(), String>>),
    Stop,
}

fn stopped() -> io::Error {
    io::Error::other("apply has stopped")
}

/// The way to the state machine; clones share it.
#[derive(Clone)]
pub struct Queue {
    // Dropped first: a thread that the other wakes must find the channel closed
    sender: mpsc::Sender<ToApply>,
    /// None: a task takes the turns.
    shared: Option<Waking>,
}

impl Queue {
    /// `here`: the caller may take the turn itself, of this weight, unless something heavier waits before it.
    pub(super) async fn send(&self, command: ToApply, here: Option<usize>) -> Result<(), io::Error> {
        let here = here.filter(|_| self.sender.capacity() == self.sender.max_capacity());
        self.sender.send(command).await.map_err(|_| stopped())?;
        if let Some(Waking(shared)) = &self.shared
            && !here.is_some_and(|weight| shared.take_here(weight))
        {
            shared.wake();
        }
        Ok(())
    }

    pub async fn checkpoint(&self) -> Result<Option<Box<dyn Checkpoint>>, io::Error> {
        let (tx, rx) = oneshot::channel();
        self.send(ToApply::Checkpoint(tx), None).await?;
        rx.await.map_err(|_| stopped())
    }

    /// A checkpoint of `epoch` is to come.
    pub async fn receive(&self, source: u64, epoch: Epoch) -> Result<Box<dyn Receive>, io::Error> {
        let (tx, rx) = oneshot::channel();
        self.send(ToApply::Receive(source, epoch, tx), None).await?;
        rx.await.map_err(|_| stopped())?.map_err(io::Error::other)
    }

    /// Makes what was received the state.
    pub async fn install(&self, meta: Applied, received: Box<dyn Receive>) -> Result<(), io::Error> {
        let (tx, rx) = oneshot::channel();
        self.send(ToApply::Install(meta, received, tx), None).await?;
        rx.await.map_err(|_| stopped())?.map_err(io::Error::other)
    }
}

/// What the apply thread shares with those who take turns themselves.
struct Shared {
    /// None: it has ended.
    turns: Mutex<Option<Turns>>,
    thread: OnceLock<Thread>,
    here: Here,
    /// The thread waits for a pause, after turns that others took.
    roused: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Turns>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.thread.get().into_iter().for_each(Thread::unpark);
    }

    /// False: it is for the thread.
    fn take_here(&self, weight: usize) -> bool {
        if !self.here.may(weight) {
            return false;
        }
        let Ok(mut turns) = self.turns.try_lock() else { return false };
        let begun = Instant::now();
        drain(&mut turns);
        turns.iter_mut().for_each(|turns| turns.elsewhere = true);
        drop(turns);
        self.here.took(begun.elapsed());
        if !self.roused.swap(true, Ordering::SeqCst) {
            self.wake();
        }
        true
    }

    fn run(&self) {
        loop {
            let mut guard = self.lock();
            if !drain(&mut guard) {
                return;
            }
            let Some(turns) = guard.as_mut() else { return };
            if std::mem::take(&mut turns.elsewhere) {
                drop(guard);
                std::thread::park_timeout(PAUSE);
                continue;
            }
            if !turns.machine.idle() {
                continue;
            }
            drop(guard);
            self.roused.store(false, Ordering::SeqCst);
            std::thread::park();
        }
    }
}

/// Wakes the thread when it goes: perhaps nobody is left.
#[derive(Clone)]
struct Waking(Arc<Shared>);

impl Drop for Waking {
    fn drop(&mut self) {
        self.0.wake();
    }
}

/// The apply thread, seen from outside.
pub struct ApplyThread {
    queue: Queue,
    thread: Option<JoinHandle<()>>,
}

impl ApplyThread {
    /// `here`: what callers may apply themselves.
    pub fn start(machine: Box<dyn StateMachine>, here: Here) -> io::Result<(ApplyThread, Arc<Progress>, Applied)> {
        let applied = machine.applied();
        let (mut apply, turns, progress) = ApplyThread::by_hand(machine);
        let (turns, thread, roused) = (Mutex::new(Some(turns)), OnceLock::new(), AtomicBool::new(false));
        let shared = Arc::new(Shared { turns, thread, here, roused });
        let running = shared.clone();
        let spawned = urgent::spawn("look-apply", move || running.run())?;
        let _ = shared.thread.set(spawned.thread().clone());
        apply.thread = Some(spawned);
        apply.queue.shared = Some(Waking(shared));
        Ok((apply, progress, applied))
    }

    /// The same without a thread.
    pub fn by_hand(machine: Box<dyn StateMachine>) -> (ApplyThread, Turns, Arc<Progress>) {
        let progress = Arc::new(Progress::new(machine.applied().last, machine.roster()));
        let (sender, receiver) = mpsc::channel(SETS_WAITING_MAX);
        let turns = Turns { machine, receiver, progress: progress.clone(), elsewhere: false };
        (ApplyThread { queue: Queue { sender, shared: None }, thread: None }, turns, progress)
    }

    pub fn machine(&self, progress: Arc<Progress>, applied: Applied) -> Machine {
        Machine::new(self.queue.clone(), progress, applied)
    }

    pub fn queue(&self) -> Queue {
        self.queue.clone()
    }

    /// Ends the thread after what is queued. Blocks; not for async tasks.
    pub fn stop(&mut self) {
        let _ = self.queue.sender.blocking_send(ToApply::Stop);
        self.queue.shared.iter().for_each(|shared| shared.0.wake());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The state machine and what is queued for it.
pub struct Turns {
    machine: Box<dyn StateMachine>,
    receiver: mpsc::Receiver<ToApply>,
    progress: Arc<Progress>,
    /// A turn was taken by another than the thread, since the thread looked.
    elsewhere: bool,
}

/// Carries out what is queued. False: that was the end, and what comes now is refused.
fn drain(turns: &mut Option<Turns>) -> bool {
    let mut next = None;
    loop {
        let Some(open) = turns else { return false };
        let command = next.take().map_or_else(|| open.receiver.try_recv(), Ok);
        let left = match command {
            Ok(command) => open.turn(command),
            Err(mpsc::error::TryRecvError::Empty) => return true,
            Err(mpsc::error::TryRecvError::Disconnected) => None,
        };
        match left {
            Some(left) => next = left,
            None => *turns = None,
        }
    }
}

impl Turns {
    /// As a task, each turn after a time that `delay` chooses.
    pub async fn run_as_task(mut self, delay: impl Fn() -> Duration) {
        let mut next = None;
        loop {
            let Some(command) = (match next.take() {
                Some(command) => Some(command),
                None => self.receiver.recv().await,
            }) else {
                return;
            };
            tokio::time::sleep(delay()).await;
            match self.turn(command) {
                Some(left) => next = left,
                None => return,
            }
        }
    }

    /// Carries out a command, with what may go together with it, and gives back a command taken too early. None: the end.
    fn turn(&mut self, command: ToApply) -> Option<Option<ToApply>> {
        let mut next = None;
        match command {
            ToApply::Entries(mut entries) => {
                // Everything that waits is one set: one publication, one wake-up
                while let Ok(more) = self.receiver.try_recv() {
                    match more {
                        ToApply::Entries(more) => entries.extend(more),
                        other => {
                            next = Some(other);
                            break;
                        }
                    }
                }
                if let Err(why) = apply(&mut *self.machine, entries, &self.progress) {
                    self.progress.fail(why);
                    return None;
                }
            }
            ToApply::Checkpoint(reply) => drop(reply.send(self.machine.checkpoint())),
            ToApply::Receive(source, epoch, reply) => {
                let taken = self.machine.takes(epoch).and_then(|()| self.machine.receive(source));
                let _ = reply.send(taken);
            }
            ToApply::Install(meta, received, reply) => {
                let last = meta.last;
                let result = self.machine.install(meta, received);
                if result.is_ok() {
                    self.progress.advance(last, self.machine.roster());
                }
                let _ = reply.send(result);
            }
            ToApply::Stop => return None,
        }
        Some(next)
    }
}

fn apply(machine: &mut dyn StateMachine, entries: Vec<Committed>, progress: &Progress) -> Result<(), String> {
    let Some(last) = entries.last().map(|e| e.position) else { return Ok(()) };
    let begun = Instant::now();
    // A broken invariant in apply must stop this node's writes, not leave them hanging
    let applied = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| machine.apply(entries)));
    applied.unwrap_or_else(|_| Err("panic in apply".into()))?;
    progress.applies.record(begun.elapsed());
    progress.advance(last, machine.roster());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::machine::{Body, LogPosition, Roster};
    use crate::base::LogIndex;
    use std::sync::atomic::AtomicU32;

    /// Applies the next entry and no other.
    #[derive(Clone, Default)]
    struct Probe {
        last: Arc<AtomicU32>,
        /// So much is left to tidy up.
        left: Arc<AtomicU32>,
        /// Entries that the apply thread applied.
        by_thread: Arc<Mutex<Vec<u64>>>,
    }

    impl StateMachine for Probe {
        fn applied(&self) -> Applied {
            Applied::default()
        }
        fn roster(&self) -> Arc<Roster> {
            Arc::default()
        }
        fn apply(&mut self, entries: Vec<Committed>) -> Result<(), String> {
            for entry in entries {
                let before = self.last.fetch_add(1, Ordering::SeqCst) as u64;
                if entry.position.index.0 != before + 1 {
                    return Err(format!("{:?} after {before}", entry.position));
                }
                if std::thread::current().name() == Some("look-apply") {
                    self.by_thread.lock().unwrap().push(before + 1);
                }
            }
            Ok(())
        }
        fn idle(&mut self) -> bool {
            let left = self.left.load(Ordering::SeqCst);
            self.left.store(left.saturating_sub(1), Ordering::SeqCst);
            left <= 1
        }
        fn checkpoint(&mut self) -> Option<Box<dyn Checkpoint>> {
            None
        }
        fn receive(&mut self, _: u64) -> Result<Box<dyn Receive>, String> {
            Err("nothing to receive".into())
        }
        fn install(&mut self, _: Applied, _: Box<dyn Receive>) -> Result<(), String> {
            Err("nothing to install".into())
        }
    }

    fn start(probe: &Probe, here: Here) -> (ApplyThread, Arc<Progress>) {
        let (thread, progress, _) = ApplyThread::start(Box::new(probe.clone()), here).expect("starts");
        (thread, progress)
    }

    fn entry(index: u64) -> ToApply {
        let position = LogPosition { term: 1, index: LogIndex(index) };
        ToApply::Entries(vec![Committed { position, body: Body::Blank }])
    }

    fn wait(what: &str, mut done: impl FnMut() -> bool) {
        let until = Instant::now() + Duration::from_secs(60);
        while !done() {
            assert!(Instant::now() < until, "waited too long for {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn an_idle_machine_tidies_up_until_nothing_is_left() {
        let probe = Probe::default();
        let left = &probe.left;
        left.store(100, Ordering::SeqCst);
        let (mut thread, progress) = start(&probe, Here::never());
        wait("the last of it", || left.load(Ordering::SeqCst) == 0);
        left.store(1, Ordering::SeqCst);
        block_on(thread.queue.send(entry(1), Some(1))).expect("is taken");
        thread.stop();
        assert_eq!(progress.index(), LogIndex(1));
        assert!(block_on(thread.queue.send(entry(2), None)).is_err(), "it has ended");
    }

    #[test]
    fn what_may_be_applied_here_is_applied_when_the_call_returns() {
        let probe = Probe::default();
        let left = &probe.left;
        left.store(1, Ordering::SeqCst);
        let (mut thread, progress) = start(&probe, Here::up_to(10));
        wait("an idle thread", || left.load(Ordering::SeqCst) == 0);
        let mut here = 0;
        for index in 1..100 {
            left.store(5, Ordering::SeqCst);
            block_on(thread.queue.send(entry(index), Some(10))).expect("is taken");
            here += u32::from(progress.index() == LogIndex(index));
            // The thread tidies up now and then, and applies what comes meanwhile
            wait("the entry", || progress.index() == LogIndex(index));
        }
        assert!(here > 50, "only {here} of 99 were applied here");
        wait("what was left for a pause", || left.load(Ordering::SeqCst) == 0);
        block_on(thread.queue.send(entry(100), Some(11))).expect("is taken");
        wait("the thread, which applies what is more", || progress.index() == LogIndex(100));
        thread.stop();
    }

    #[test]
    fn turns_here_and_on_the_thread_keep_the_order_and_lose_nothing() {
        let probe = Probe::default();
        let (mut thread, progress) = start(&probe, Here::up_to(1));
        let queue = thread.queue();
        let asking = std::thread::spawn({
            let queue = queue.clone();
            move || (0..2000).for_each(|_| drop(block_on(queue.checkpoint()).expect("answers")))
        });
        for index in 1..=20_000 {
            block_on(queue.send(entry(index), (index % 3 > 0).then_some(1))).expect("is taken");
        }
        asking.join().expect("every question is answered");
        wait("all of it", || progress.index() == LogIndex(20_000));
        assert_eq!(probe.last.load(Ordering::SeqCst), 20_000);
        let by_thread = probe.by_thread.lock().unwrap();
        let heavy = by_thread.iter().filter(|index| *index % 3 == 0).count();
        assert_eq!(heavy, 20_000 / 3, "what is not for this thread is not applied along with what is");
        thread.stop();
    }

    #[test]
    fn a_machine_that_fails_here_refuses_what_comes() {
        let (mut thread, progress) = start(&Probe::default(), Here::up_to(1));
        block_on(thread.queue.send(entry(2), Some(1))).expect("is taken");
        assert!(progress.failure().is_some(), "the first entry is missing");
        assert!(block_on(thread.queue.checkpoint()).is_err());
        thread.stop();
    }

    #[test]
    fn a_thread_that_nobody_can_ask_any_more_ends() {
        let (mut thread, _) = start(&Probe::default(), Here::never());
        let running = thread.thread.take().expect("runs");
        drop(thread);
        running.join().expect("ends");
    }
}
