//! # store: persistent data structures in an arena, one writer, many readers
//!
//! Owns the nodes of every version that is in memory, the keyspace and its value types, publication, the window, and
//! what goes to disk at a checkpoint. Uses `base` and `disk`. Knows no command, no clock, no network.
//!
//! | file | owns |
//! |---|---|
//! | [`arena`] | memory: references, nodes, heaps, pages that are loaded (all `unsafe`) |
//! | [`mutator`] | copy-on-write: births, retirement, marks |
//! | [`garbage`] | the dead list: when and how nodes are freed |
//! | [`trie`], [`map`] | the hash trie: branches; maps of small buckets |
//! | [`keyspace`] | the trie of keys: shared branches, leaves that are chains of versions |
//! | [`entry`], [`rope`], [`blob`] | a version of a key with its value; long strings; long keys and fields |
//! | [`extent`] | what the elements of a collection measure |
//! | [`root`], [`slots`] | a version's top; last deletions |
//! | [`read`], [`snapshot`], [`writer`] | reading any version; pinning one; making new ones |
//! | [`pins`], [`window`] | publish, pin, and the versions kept |
//! | [`tree`] | counted B+trees: lists, the order of sorted sets |
//! | [`page`], [`checkpoint`], [`recovery`] | versions on disk: layout, writing and deleting, opening |
//! | [`transfer`] | a version on its way to another node |
//! | [`verify`] | whether a page store is whole |
//! | [`kinds`] | where each kind of node keeps its children |
//!
//! Promises: a version, once published, shows the same for as long as anybody can reach it. The same calls give the same content and
//! digest on every node. No heap allocation per call in steady state.

pub mod arena;
pub mod blob;
pub mod checkpoint;
pub mod entry;
pub mod extent;
pub mod garbage;
pub mod keyspace;
pub mod kinds;
pub mod map;
pub mod mutator;
pub mod page;
pub mod pins;
mod prefetch;
pub mod read;
pub mod recovery;
pub mod root;
pub mod rope;
pub mod slots;
pub mod snapshot;
pub mod transfer;
pub mod tree;
pub mod trie;
pub mod verify;
pub mod window;
pub mod writer;

pub use arena::{Arena, ArenaError, PageError, PageFault, PageSource, Ref};
pub use checkpoint::{CheckpointError, Checkpointed, Checkpoints, Meta, Retention, RootRecord};
pub use entry::{Coll, Entry, Value, ValueKind};
pub use extent::{Extent, blocks};
pub use map::MapRoot;
pub use mutator::Mutator;
pub use read::{Keys, Read};
pub use root::{DBS, DbState, RootState, SYSTEM_DB};
pub use rope::Rope;
pub use snapshot::{OwnedSnapshot, Snapshot, Store, Usage};
pub use window::{WindowError, WindowSettings};
pub use writer::{Expired, Slot, Writer, create, open, restore};
