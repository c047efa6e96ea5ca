//! What a thread does itself that could hand it to another.
//!
//! To wake a thread and to be woken by it costs as much as a small write to the disk or applying a few hundred small commands. So
//! a thread with little else to do is better off doing these itself; but what others wait for meanwhile must not wait long. Hence
//! a limit of weight, and a rest: what took long is not done here again for a time in proportion, so that a slow disk or dear commands
//! take no more than a small part of the thread's time, and each surprise happens once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What takes longer is followed by a rest of [`REST`] times as long.
const LONG: Duration = Duration::from_millis(5);
const REST: u32 = 10;

#[derive(Debug)]
pub struct Here {
    /// None: nothing, not even what weighs nothing.
    weight_max: Option<usize>,
    rests: bool,
    since: Instant,
    /// Microseconds after `since` at which the rest ends.
    rest_until: AtomicU64,
}

impl Here {
    pub fn never() -> Here {
        Here { weight_max: None, ..Here::up_to(0) }
    }

    /// Nobody waits for this thread meanwhile.
    pub fn always() -> Here {
        Here { rests: false, ..Here::up_to(usize::MAX) }
    }

    pub fn up_to(weight_max: usize) -> Here {
        Here { weight_max: Some(weight_max), rests: true, since: Instant::now(), rest_until: AtomicU64::new(0) }
    }

    /// Whether work of this weight may be done here now.
    pub fn may(&self, weight: usize) -> bool {
        self.weight_max.is_some_and(|max| weight <= max)
            && (!self.rests || self.now() >= self.rest_until.load(Ordering::Relaxed))
    }

    /// It was done here and took so long.
    pub fn took(&self, time: Duration) {
        if self.rests && time > LONG {
            self.rest_until.store(self.now() + (time * REST).as_micros() as u64, Ordering::Relaxed);
        }
    }

    fn now(&self) -> u64 {
        self.since.elapsed().as_micros() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_long_is_followed_by_a_rest() {
        let here = Here::up_to(100);
        assert!(here.may(100) && !here.may(101));
        here.took(LONG);
        assert!(here.may(1), "that was not long");
        here.took(LONG * 2);
        assert!(!here.may(1));
        assert!(here.rest_until.load(Ordering::Relaxed) >= (LONG * 2 * REST).as_micros() as u64);
        let long_ago = Here { since: Instant::now() - LONG * 3 * REST, ..here };
        assert!(long_ago.may(1), "the rest has ended");
    }

    #[test]
    fn a_thread_of_its_own_never_rests() {
        let here = Here::always();
        here.took(LONG * 2);
        assert!(here.may(usize::MAX - 1));
        assert!(!Here::never().may(1) && !Here::never().may(0));
    }
}
