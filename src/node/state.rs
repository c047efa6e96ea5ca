//! What the threads of a node share: the store (a new one when a peer's checkpoint replaced the state), how far apply has come, and
//! the chunks that wait.

use crate::apply::{Own, Progress, Waiting};
use crate::base::{Clock, KeyHasher, Millis};
use crate::store::Store;
use arc_swap::{ArcSwap, Guard};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

pub struct SharedState {
    store: ArcSwap<Store>,
    pub progress: Arc<Progress>,
    /// The leader's wall clock less this node's monotonic one, in ms, as this node last heard it; [`NOT_HEARD`].
    leader_lead: AtomicI64,
    pub waiting: Arc<Waiting>,
    pub own: Arc<OnceLock<Own>>,
    /// Why this node takes no writes any more, if so.
    pub failure: OnceLock<String>,
}

const NOT_HEARD: i64 = i64::MIN;

impl SharedState {
    /// What time reads are to take it for: log time, or later if the leader's clock is. Another node's own clock may be wrong; it
    /// counts only where the leader's was never heard, and no strong read runs there.
    pub fn now(&self, clock: &dyn Clock) -> Millis {
        let stamp = self.progress.now.load(Ordering::Acquire);
        match self.leader_lead.load(Ordering::Acquire) {
            NOT_HEARD => stamp.max(clock.now_ms()),
            lead => stamp.max(lead + monotonic_ms(clock)),
        }
    }

    /// Notes what the leader's clock says now.
    pub fn leader_says(&self, now: Millis, clock: &dyn Clock) {
        let lead = now - monotonic_ms(clock);
        if self.leader_lead.load(Ordering::Relaxed) != lead {
            self.leader_lead.store(lead, Ordering::Release);
        }
    }

    pub fn new(store: Store) -> SharedState {
        SharedState {
            store: ArcSwap::from_pointee(store),
            progress: Arc::default(),
            leader_lead: AtomicI64::new(NOT_HEARD),
            waiting: Arc::default(),
            own: Arc::default(),
            failure: OnceLock::new(),
        }
    }

    pub fn store(&self) -> Arc<Store> {
        self.store.load_full()
    }

    /// The same, for a moment.
    pub fn current(&self) -> Guard<Arc<Store>> {
        self.store.load()
    }

    pub fn replace(&self, store: Store) {
        self.store.store(Arc::new(store));
    }

    /// This node takes no more writes; nobody is to wait for those that are on their way.
    pub fn fail(&self, why: String) {
        let _ = self.failure.set(why);
        self.waiting.abandon();
    }

    /// Hash of keys under the cluster's seed (0 before the first batch is applied; nobody is served then).
    pub fn hasher(&self) -> KeyHasher {
        KeyHasher::new(self.progress.hash_seed().unwrap_or(0))
    }
}

fn monotonic_ms(clock: &dyn Clock) -> Millis {
    (clock.monotonic_us() / 1000) as Millis
}
