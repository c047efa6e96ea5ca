//! What the threads of a node share: the store (a new one when a peer's checkpoint replaced the state), how far apply has come, and
//! the chunks that wait.

use crate::apply::{Own, Progress, Waiting};
use crate::base::KeyHasher;
use crate::store::Store;
use arc_swap::ArcSwap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

pub struct SharedState {
    store: ArcSwap<Store>,
    generation: AtomicU64,
    pub progress: Arc<Progress>,
    pub waiting: Arc<Waiting>,
    pub own: Arc<OnceLock<Own>>,
    /// Why this node takes no writes any more, if so.
    pub failure: OnceLock<String>,
}

impl SharedState {
    pub fn new(store: Store) -> SharedState {
        SharedState {
            store: ArcSwap::from_pointee(store),
            generation: AtomicU64::new(0),
            progress: Arc::default(),
            waiting: Arc::default(),
            own: Arc::default(),
            failure: OnceLock::new(),
        }
    }

    pub fn store(&self) -> Arc<Store> {
        self.store.load_full()
    }

    /// Changes whenever the store was replaced: readers then get a new one.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub fn replace(&self, store: Store) {
        self.store.store(Arc::new(store));
        self.generation.fetch_add(1, Ordering::AcqRel);
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
