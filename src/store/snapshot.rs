//! Readers: pinned versions, and the store as readers share it. A version is pinned for as long as it is read and no longer, so that the
//! writer, who looks at all pins, finds few however many clients there are.

use super::arena::{Arena, PageError, Ref};
use super::entry::Seen;
use super::pins::{Pins, Published};
use super::read::Read;
use super::root::{DbState, RootState, RootView};
use super::window::{KeptRoot, Window, WindowError, WindowSettings};
use crate::base::{Epoch, Millis, SubBatch};
use std::cell::Cell;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most snapshots at once.
pub const PINS_MAX: usize = 4096;

/// What the writer and readers share.
pub struct Shared {
    pub(super) arena: Arc<Arena>,
    pub(super) published: Published,
    pub(super) pins: Pins,
    pub(super) window: Window,
    pub(super) live_bytes: AtomicU64,
    pub(super) dead_bytes: AtomicU64,
    pub(super) dead_entries: AtomicU64,
}

/// The store as everybody but the writer sees it.
#[derive(Clone)]
pub struct Store(pub(super) Arc<Shared>);

/// Memory, as INFO shows it. Bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// What the arena holds of the machine's memory.
    pub arena_bytes: u64,
    /// Nodes of any kept version.
    pub live_bytes: u64,
    /// Nodes that only older versions reach.
    pub dead_bytes: u64,
    pub dead_nodes: u64,
    /// Kept roots.
    pub roots: u64,
}

impl Store {
    pub(super) fn new(arena: Arc<Arena>, first: KeptRoot) -> Store {
        Store(Arc::new(Shared {
            arena,
            published: Published::new(first.root.0, first.sub_batch.0),
            pins: Pins::new(PINS_MAX),
            window: Window::new(first),
            live_bytes: AtomicU64::new(0),
            dead_bytes: AtomicU64::new(0),
            dead_entries: AtomicU64::new(0),
        }))
    }

    pub fn arena(&self) -> &Arc<Arena> {
        &self.0.arena
    }
    /// The newest version, pinned for as long as the value lives.
    #[inline]
    pub fn newest(&self) -> Result<Snapshot<'_>, WindowError> {
        Pinned::newest(&*self.0)
    }
    /// The same, to be handed to another thread or kept for long.
    pub fn snapshot(&self) -> Result<OwnedSnapshot, WindowError> {
        Pinned::newest(self.0.clone())
    }
    /// The newest kept version whose epoch is at most `epoch`; calls after it up to `epoch` are the reader's to replay.
    pub fn snapshot_at(&self, epoch: Epoch) -> Result<OwnedSnapshot, WindowError> {
        Pinned::past(self.0.clone(), |window| window.at_or_before(epoch))
    }
    /// The first kept version that shows `epoch`; of the calls after it up to that version, the reader sees too much.
    pub fn snapshot_showing(&self, epoch: Epoch) -> Result<OwnedSnapshot, WindowError> {
        Pinned::past(self.0.clone(), |window| window.showing(epoch))
    }
    /// The oldest epoch that memory can show.
    pub fn since(&self) -> Epoch {
        self.0.window.since()
    }
    /// The newest epoch.
    pub fn epoch(&self) -> Epoch {
        self.0.window.newest().epoch
    }
    /// Newest published sub-batch: changes with every publication.
    pub fn published(&self) -> SubBatch {
        SubBatch(self.0.published.sub_batch())
    }
    /// The oldest sub-batch that a kept or pinned version shows: what such a version may still load stays on disk.
    pub fn oldest_sub_batch(&self) -> SubBatch {
        SubBatch(self.0.pins.oldest(self.0.window.oldest().sub_batch.0))
    }
    /// The newest epoch at log time `time` or before; None when that is before the window.
    pub fn epoch_at(&self, time: Millis) -> Option<Epoch> {
        self.0.window.epoch_at(time)
    }
    pub fn settings(&self) -> &WindowSettings {
        &self.0.window.settings
    }
    pub fn fault(&self) -> Option<&PageError> {
        self.0.arena.pages().fault()
    }
    pub fn usage(&self) -> Usage {
        Usage {
            arena_bytes: self.0.arena.bytes_out(),
            live_bytes: self.0.live_bytes.load(Ordering::Relaxed),
            dead_bytes: self.0.dead_bytes.load(Ordering::Relaxed),
            dead_nodes: self.0.dead_entries.load(Ordering::Relaxed),
            roots: self.0.window.len(),
        }
    }
}

thread_local! {
    /// The pin slot that this thread had last.
    static NEAR: Cell<usize> = const { Cell::new(0) };
}

/// A pinned version; nothing that it reaches is freed while it lives.
pub struct Pinned<S: Deref<Target = Shared>> {
    shared: S,
    slot: usize,
    root: Ref,
}

/// Pinned for a moment.
pub type Snapshot<'a> = Pinned<&'a Shared>;
/// Pinned for long, or by several threads.
pub type OwnedSnapshot = Pinned<Arc<Shared>>;

impl<S: Deref<Target = Shared>> Pinned<S> {
    #[inline]
    fn newest(shared: S) -> Result<Self, WindowError> {
        let pinned = shared.pins.pin_newest(NEAR.get(), &shared.published);
        let (slot, root) = pinned.ok_or(WindowError::TooManyReaders)?;
        NEAR.set(slot);
        Ok(Pinned { shared, slot, root: Ref(root) })
    }

    fn past(shared: S, find: impl FnOnce(&Window) -> Result<KeptRoot, WindowError>) -> Result<Self, WindowError> {
        let slot = shared.pins.pin_everything(NEAR.get()).ok_or(WindowError::TooManyReaders)?;
        NEAR.set(slot);
        // From here on the slot is given back whatever comes
        let mut pinned = Pinned { shared, slot, root: Ref::NULL };
        let kept = find(&pinned.shared.window)?;
        pinned.shared.pins.pin_at(slot, kept.sub_batch.0);
        pinned.root = kept.root;
        Ok(pinned)
    }

    #[inline]
    fn view(&self) -> RootView<'_> {
        RootView(self.shared.arena.node(self.root))
    }
    /// Bytes of the root's own node.
    pub fn root_bytes(&self) -> u64 {
        self.view().0.capacity() as u64
    }
    /// The sub-batch that ended with this version.
    pub fn sub_batch(&self) -> SubBatch {
        self.view().0.birth()
    }
}

impl<S: Deref<Target = Shared>> Drop for Pinned<S> {
    #[inline]
    fn drop(&mut self) {
        self.shared.pins.unpin(self.slot);
    }
}

impl OwnedSnapshot {
    pub(super) fn arena_arc(&self) -> Arc<Arena> {
        self.shared.arena.clone()
    }
}

impl<S: Deref<Target = Shared>> Read for Pinned<S> {
    #[inline]
    fn arena(&self) -> &Arena {
        &self.shared.arena
    }
    #[inline]
    fn db(&self, db: u8) -> DbState {
        self.view().db(db)
    }
    fn deletions(&self) -> Ref {
        self.view().deletions()
    }
    #[inline]
    fn seen(&self) -> Seen {
        Seen(self.sub_batch())
    }
    fn epoch(&self) -> Epoch {
        self.view().epoch()
    }
    fn time(&self) -> Millis {
        self.view().time()
    }
    fn digest(&self) -> u64 {
        self.view().digest()
    }
    fn state(&self) -> RootState {
        self.view().state()
    }
}
