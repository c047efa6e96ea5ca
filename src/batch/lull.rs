//! When a small batch should leave: in a lull of the gateway's work.
//!
//! An entry costs the same however many chunks are in it, and clients that wait for their replies go in step: the replies of
//! one batch bring the requests of the next. So a small batch waits until the replies of the one before have gone out and
//! the gateway's thread has run out of work, as Redis syncs once for all that a turn of its loop found. A client alone waits
//! for nothing: the thread sleeps as soon as his chunk is handed over.
//!
//! On two cores, medians (`redis-benchmark -t set -r 1000000 -d 64`): 50 clients at pipeline 1 make batches of 40 instead of
//! 20 for 24.7 instead of 28.7 us of CPU an operation, eight clients 7 instead of 4 for 60 instead of 90 us. (Of many
//! threads there is hardly a moment in which all sleep: only for a gateway of one. Where that one runs the batcher, too, it
//! takes turns instead, [`super::Gather::Turns`].)

use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU8};
use std::time::Duration;
use tokio::sync::Notify;

/// Longest wait; the runtime's timer may add one more.
const WAIT_MAX: Duration = Duration::from_millis(1);

/// The replies of the batch before: sent, or never asked for; on their way through log and apply; at the gateway.
const OUT: u8 = 0;
const AWAY: u8 = 1;
const BACK: u8 = 2;

/// Shared by the gateway's thread, the batcher and apply.
#[derive(Debug)]
pub struct Lull {
    /// The gateway's thread has work.
    busy: AtomicBool,
    replies: AtomicU8,
    waited_for: AtomicBool,
    begins: Notify,
}

impl Default for Lull {
    fn default() -> Lull {
        let (busy, replies) = (AtomicBool::new(true), AtomicU8::new(OUT));
        Lull { busy, replies, waited_for: AtomicBool::new(false), begins: Notify::const_new() }
    }
}

impl Lull {
    /// The gateway's thread goes to sleep.
    pub fn thread_parks(&self) {
        self.busy.store(false, SeqCst);
        let _ = self.replies.compare_exchange(BACK, OUT, SeqCst, SeqCst);
        if self.is_now() && self.waited_for.swap(false, SeqCst) {
            self.begins.notify_one();
        }
    }

    /// The gateway's thread has been woken.
    pub fn thread_wakes(&self) {
        self.busy.store(true, SeqCst);
    }

    /// A batch with chunks of this gateway leaves.
    pub(super) fn sent(&self) {
        self.replies.store(AWAY, SeqCst);
    }

    /// All that left is applied: its replies are at the gateway, or will be in a moment.
    pub(super) fn applied(&self) {
        let _ = self.replies.compare_exchange(AWAY, BACK, SeqCst, SeqCst);
    }

    /// Returns in a lull, or after [`WAIT_MAX`].
    pub(super) async fn wait(&self) {
        let lull = async {
            while !self.is_now() {
                self.waited_for.store(true, SeqCst);
                if !self.is_now() {
                    self.begins.notified().await;
                }
            }
        };
        let _ = tokio::time::timeout(WAIT_MAX, lull).await;
    }

    fn is_now(&self) -> bool {
        !self.busy.load(SeqCst) && self.replies.load(SeqCst) == OUT
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::time::Instant;

    /// Whether a wait that begins now ends before anything else happens.
    async fn is_waited_for(lull: &Arc<Lull>) -> Option<tokio::task::JoinHandle<()>> {
        let other = lull.clone();
        let waiter = tokio::spawn(async move { other.wait().await });
        tokio::task::yield_now().await;
        (!waiter.is_finished()).then_some(waiter)
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_waits_for_replies_and_for_the_thread() {
        let lull = Arc::new(Lull::default());
        let begin = Instant::now();
        let waiter = is_waited_for(&lull).await.expect("the thread works");
        lull.thread_parks();
        waiter.await.expect("a lull");
        assert!(is_waited_for(&lull).await.is_none(), "a client alone waits for nothing");

        lull.thread_wakes();
        lull.sent();
        lull.thread_parks();
        let waiter = is_waited_for(&lull).await.expect("replies are away");
        lull.applied();
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished(), "replies have come and are not sent");
        lull.thread_wakes();
        lull.thread_parks();
        waiter.await.expect("a lull");
        assert_eq!(begin.elapsed(), Duration::ZERO, "no wait ended by its time");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_the_limit() {
        let (lull, begin) = (Arc::new(Lull::default()), Instant::now());
        lull.wait().await;
        lull.sent();
        lull.wait().await;
        assert!((2 * WAIT_MAX..4 * WAIT_MAX).contains(&begin.elapsed()), "{:?}", begin.elapsed());
    }
}
