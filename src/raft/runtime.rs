//! tokio, with two differences: a sleep of a microsecond yields instead, and chance (the election timeouts)
//! comes from the standard library's random state, which the simulation can set.
//!
//! openraft gathers completions of the log for one microsecond; tokio rounds every sleep up to a whole millisecond, which
//! would add that to each write that lands in such a pause.

use openraft::async_runtime::{AsyncRuntime, Instant};
use openraft::impls::TokioRuntime;
use openraft::{OptionalSend, TokioInstant};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

#[derive(Debug)]
pub struct Runtime(TokioRuntime);

type Tokio = TokioRuntime;

/// A sleep, or one turn of the scheduler.
pub enum Sleep {
    Turn(bool),
    Timer(Pin<Box<tokio::time::Sleep>>),
}

impl Sleep {
    fn of(duration: Duration) -> Sleep {
        // Not more: openraft's ticks sleep until a time, and who wakes before it sleeps again at once, over and over
        if duration <= Duration::from_micros(1) {
            return Sleep::Turn(false);
        }
        Sleep::Timer(Box::pin(tokio::time::sleep(duration)))
    }
}

impl Future for Sleep {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *self {
            Sleep::Turn(true) => Poll::Ready(()),
            Sleep::Turn(turned) => {
                *turned = true;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Sleep::Timer(timer) => timer.as_mut().poll(cx),
        }
    }
}

impl AsyncRuntime for Runtime {
    type JoinError = <Tokio as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <Tokio as AsyncRuntime>::JoinHandle<T>;
    type Sleep = Sleep;
    type Instant = TokioInstant;
    type TimeoutError = <Tokio as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <Tokio as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = SmallRng;
    type Mpsc = <Tokio as AsyncRuntime>::Mpsc;
    type Watch = <Tokio as AsyncRuntime>::Watch;
    type Oneshot = <Tokio as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <Tokio as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        Tokio::spawn(future)
    }
    fn sleep(duration: Duration) -> Sleep {
        Sleep::of(duration)
    }
    fn sleep_until(deadline: TokioInstant) -> Sleep {
        Sleep::of(deadline - TokioInstant::now())
    }
    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        Tokio::timeout(duration, future)
    }
    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: TokioInstant, future: F) -> Self::Timeout<R, F> {
        Tokio::timeout_at(deadline, future)
    }
    fn is_panic(join_error: &Self::JoinError) -> bool {
        Tokio::is_panic(join_error)
    }
    fn thread_rng() -> Self::ThreadLocalRng {
        SmallRng::seed_from_u64(crate::base::unguessable())
    }
    fn new(threads: usize) -> Self {
        Runtime(Tokio::new(threads))
    }
    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}
