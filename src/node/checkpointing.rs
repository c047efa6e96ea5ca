//! When checkpoints are made, and how fast.

use super::backend::{Node, NodeBackend};
use super::datadir::REPAIR;
use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A checkpoint is due after so long if there is at least [`QUIET_BYTES`] of log behind the last one.
const QUIET: Duration = Duration::from_secs(30);
const QUIET_BYTES: u64 = 4 << 20;

/// With so much it is due as soon as the log has not grown for a while: nobody is disturbed then, and a restart has nothing to replay.
const REST: Duration = Duration::from_secs(2);
const REST_BYTES: u64 = 64 << 20;

/// No more log than this goes without a checkpoint: it bounds the replay of a restart.
const LOG_BYTES_MAX: u64 = 1 << 30;

/// A checkpoint's pages are written as fast as the log has grown since it began, and so many bytes each second besides, while clients
/// write; without bound as soon as the log rests, once it has grown by [`REST_BYTES`], and after [`PACED`].
const PAGES_PER_SECOND: u64 = 4 << 20;
const PACED: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// Since when the log has not grown, as far as was looked.
#[derive(Clone, Copy)]
struct Rest {
    bytes: u64,
    since: Instant,
}

impl Rest {
    fn begin(bytes: u64) -> Rest {
        Rest { bytes, since: Instant::now() }
    }

    /// It has so many bytes now: how long that has been so.
    fn look(&mut self, bytes: u64) -> Duration {
        if bytes != self.bytes {
            *self = Rest::begin(bytes);
        }
        self.since.elapsed()
    }
}

/// Of two cores a checkpoint at full speed takes one, beside clients whose writes need few bytes of log. Paced, it takes a share.
struct Pace<'a> {
    node: &'a Node,
    begun: Instant,
    /// Bytes of log then.
    log: u64,
    rest: Cell<Rest>,
}

impl Pace<'_> {
    fn begin(node: &Node) -> Pace<'_> {
        let log = log_bytes(node);
        Pace { node, begun: Instant::now(), log, rest: Cell::new(Rest::begin(log)) }
    }

    /// Waits until there may be so many bytes of pages, unless something waits for the end of the checkpoint.
    fn wait(&self, pages: u64, stopped: &dyn Fn() -> bool) {
        let urgent = || self.node.keeper.hurries() || stopped() || damage(self.node).is_some();
        while !self.may_write(pages) && !urgent() {
            std::thread::sleep(PAUSE);
        }
    }

    fn may_write(&self, pages: u64) -> bool {
        let bytes = log_bytes(self.node);
        let mut rest = self.rest.get();
        let rested = rest.look(bytes);
        self.rest.set(rest);
        rested > 5 * PAUSE || pages <= paced_pages(bytes - self.log, self.begun.elapsed())
    }
}

/// How many bytes of pages there may be when the log has grown by so much in that time.
fn paced_pages(grown: u64, passed: Duration) -> u64 {
    if grown >= REST_BYTES || passed >= PACED {
        return u64::MAX;
    }
    grown + PAGES_PER_SECOND * passed.as_millis() as u64 / 1000
}

/// Makes checkpoints, so that a restart has little to replay: after `checkpoint-bytes` of log (or four times what the last checkpoint
/// wrote, if that is more, so that pages cost a fraction of what the log costs), when the log rests, and when a while has passed.
pub fn checkpoint_loop(backend: &NodeBackend, stopped: &dyn Fn() -> bool) {
    let node = &backend.0;
    let mut last = Instant::now();
    let mut rest = Rest::begin(0);
    while !stopped() {
        std::thread::sleep(Duration::from_millis(200));
        if let Some(what) = damage(node) {
            return node
                .raft
                .damaged(format!("{what} in {}; this node serves no more. {REPAIR}", node.data_dir.display()));
        }
        node.backups.expire();
        let bytes = log_bytes(node);
        let since = bytes.saturating_sub(node.keeper.last_bytes.load(Ordering::Relaxed));
        let paced = (4 * node.keeper.last_page_bytes.load(Ordering::Relaxed)).min(LOG_BYTES_MAX);
        let much = node.checkpoint_bytes.load(Ordering::Relaxed).max(paced);
        let rested = rest.look(bytes);
        let rests = since >= REST_BYTES && rested >= REST;
        let waited = since >= QUIET_BYTES && last.elapsed() >= QUIET;
        if since < much && !rests && !waited {
            continue;
        }
        last = Instant::now();
        let pace = Pace::begin(node);
        let made = node.keeper.run_paced(&node.state, &|pages| pace.wait(pages, stopped));
        if let Err(e) = made.map(|made| backend.checkpointed(made)) {
            tracing::error!("cannot make a checkpoint: {e}; the log grows until one succeeds");
            std::thread::sleep(Duration::from_secs(5));
        }
    }
}

fn log_bytes(node: &Node) -> u64 {
    node.state.progress.log_bytes.load(Ordering::Relaxed)
}

/// What is damaged of this node's pages, as far as anybody has met it.
fn damage(node: &Node) -> Option<String> {
    let read = node.state.store().fault().map(ToString::to_string);
    read.or_else(|| node.keeper.damage().map(String::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_the_log_and_never_stand_still() {
        let second = Duration::from_secs(1);
        assert_eq!(paced_pages(0, second), PAGES_PER_SECOND);
        assert_eq!(paced_pages(100, Duration::ZERO), 100);
        assert_eq!(paced_pages(100, 3 * second), 100 + 3 * PAGES_PER_SECOND);
        assert_eq!((paced_pages(REST_BYTES, second), paced_pages(0, PACED)), (u64::MAX, u64::MAX));
    }
}
