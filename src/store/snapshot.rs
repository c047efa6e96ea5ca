//! Readers: pinned versions, and the store as readers share it.

use super::arena::{Arena, PageError, Ref};
use super::entry::Seen;
use super::pins::{Pins, Published};
use super::read::Read;
use super::root::{DbState, RootState, RootView};
use super::window::{KeptRoot, Window, WindowError, WindowSettings};
use crate::base::{Epoch, Millis, SubBatch};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most snapshots at once, idle readers included.
pub const PINS_MAX: usize = 4096;

pub(super) struct Shared {
    pub arena: Arc<Arena>,
    pub published: Published,
    pub pins: Pins,
    pub window: Window,
    pub live_bytes: AtomicU64,
    pub dead_bytes: AtomicU64,
    pub dead_entries: AtomicU64,
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
    /// A pin slot for a thread or task that reads again and again.
    pub fn reader(&self) -> Result<Reader, WindowError> {
        let slot = self.0.pins.claim().ok_or(WindowError::TooManyReaders)?;
        Ok(Reader { shared: self.0.clone(), slot })
    }
    /// The newest version, pinned for as long as the value lives.
    pub fn snapshot(&self) -> Result<OwnedSnapshot, WindowError> {
        let reader = self.reader()?;
        let root = Ref(reader.shared.pins.pin_newest(reader.slot, &reader.shared.published));
        Ok(OwnedSnapshot { reader, root })
    }
    /// The newest kept version whose epoch is at most `epoch`; calls after it up to `epoch` are the reader's to replay.
    pub fn snapshot_at(&self, epoch: Epoch) -> Result<OwnedSnapshot, WindowError> {
        let reader = self.reader()?;
        let root = reader.shared.pin_past(reader.slot, |window| window.at_or_before(epoch))?;
        Ok(OwnedSnapshot { reader, root })
    }
    /// The first kept version that shows `epoch`; of the calls after it up to that version, the reader sees too much.
    pub fn snapshot_showing(&self, epoch: Epoch) -> Result<OwnedSnapshot, WindowError> {
        let reader = self.reader()?;
        let root = reader.shared.pin_past(reader.slot, |window| window.showing(epoch))?;
        Ok(OwnedSnapshot { reader, root })
    }
    /// The oldest epoch that memory can show.
    pub fn since(&self) -> Epoch {
        self.0.window.since()
    }
    /// The first epoch that has not happened yet.
    pub fn upper(&self) -> Epoch {
        self.0.window.newest().epoch.next()
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

impl Shared {
    fn pin_past(
        &self,
        slot: usize,
        find: impl FnOnce(&Window) -> Result<KeptRoot, WindowError>,
    ) -> Result<Ref, WindowError> {
        self.pins.pin_everything(slot);
        match find(&self.window) {
            Ok(kept) => {
                self.pins.pin_at(slot, kept.sub_batch.0);
                Ok(kept.root)
            }
            Err(e) => {
                self.pins.unpin(slot);
                Err(e)
            }
        }
    }
}

/// One pin slot. Not shared between threads; a snapshot borrows it.
pub struct Reader {
    shared: Arc<Shared>,
    slot: usize,
}

impl Reader {
    /// Pins the newest version.
    #[inline]
    pub fn newest(&mut self) -> Snapshot<'_> {
        let root = Ref(self.shared.pins.pin_newest(self.slot, &self.shared.published));
        Snapshot { shared: &self.shared, slot: self.slot, root }
    }
    /// Pins the newest kept version whose epoch is at most `epoch`.
    pub fn at_or_before(&mut self, epoch: Epoch) -> Result<Snapshot<'_>, WindowError> {
        let root = self.shared.pin_past(self.slot, |window| window.at_or_before(epoch))?;
        Ok(Snapshot { shared: &self.shared, slot: self.slot, root })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.pins.release(self.slot);
    }
}

/// A pinned version; nothing that it reaches is freed while it lives.
pub struct Snapshot<'a> {
    shared: &'a Shared,
    slot: usize,
    root: Ref,
}

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        self.shared.pins.unpin(self.slot);
    }
}

/// A pinned version with a slot of its own, to be handed to another thread or kept for long.
pub struct OwnedSnapshot {
    reader: Reader,
    root: Ref,
}

impl OwnedSnapshot {
    pub(super) fn arena_arc(&self) -> Arc<Arena> {
        self.reader.shared.arena.clone()
    }
}

macro_rules! read_root {
    ($type:ty, $shared:ident => $get:expr) => {
        impl $type {
            #[inline]
            fn view(&self) -> RootView<'_> {
                let $shared = self;
                RootView($get.arena.node(self.root))
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
        impl Read for $type {
            #[inline]
            fn arena(&self) -> &Arena {
                let $shared = self;
                &$get.arena
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
    };
}

read_root!(Snapshot<'_>, s => s.shared);
read_root!(OwnedSnapshot, s => s.reader.shared);
