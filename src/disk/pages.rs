//! # disk::pages: where checkpoints keep their pages and root records
//!
//! Owns the page database (fjall) and its high-water file. Promises:
//!
//! - a page or root record comes back as it was written, or as a typed error: each carries a crc32c over its own key and
//!   its bytes, so that a flipped bit and a page in the wrong place are both seen;
//! - a root record is durable only after every page written before it; when [`PageStore::commit_root`] has returned, both are;
//! - a root record that was once durable and is gone is an error ([`PagesError::RootLost`]): the high-water file beside the
//!   database names the newest committed sequence.
//!
//! Knows no page's meaning. Only the checkpoint thread and page loads touch it, because fjall may stall for 40-400 ms.
//!
//! ```text
//! (encrypted, where `bytes` stands: sealed bytes, `disk/seal.rs`)
//! page value  = bytes, crc32c over (id as 8 bytes big-endian, bytes) as 4 bytes little-endian
//! root value  = bytes, crc32c over (sequence as 8 bytes big-endian, bytes)
//! high-water  = "LOOKHIGH", version u32, sequence u64, crc32c u32 (all before it)
//! ```
//!
//! Every version of a page has a fresh number as its key, big-endian, so fjall's own trees see only appends at their end,
//! exact reads and deletions: write amplification 2.05 with values kept apart from keys.

use super::seal::{self, SealError, Sealer};
use crate::base::PageId;
use fjall::{AbstractTree, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub mod generations;
pub mod memory;
pub mod scratch;

pub use generations::{Generations, PageStores};
pub use memory::{MemoryGenerations, MemoryPages};

/// What the page store can say went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PagesError {
    #[error("page store: {0}")]
    Io(String),
    #[error("the page database is damaged: {0}")]
    Database(String),
    #[error("{0} is not what was written: checksum does not match")]
    File(PathBuf),
    #[error("page {0} is missing")]
    Missing(PageId),
    #[error("page {0} is damaged: checksum does not match")]
    Damaged(PageId),
    #[error("page {0} is {1}")]
    Sealed(PageId, SealError),
    #[error("root record {0} is {1}")]
    RootSealed(u64, SealError),
    #[error("root record {0} is damaged: checksum does not match")]
    RootDamaged(u64),
    #[error("root record {0} was never written or is gone")]
    RootMissing(u64),
    #[error("the newest root record is {newest}, but {high} was durable once: checkpoints were lost")]
    RootLost { newest: u64, high: u64 },
    #[error("{path} is damaged: {what}")]
    Lineage { path: PathBuf, what: &'static str },
    #[error("{path} does not say which page store counts: {what}")]
    Current { path: PathBuf, what: &'static str },
    #[error("{path} is not a high-water file of this format: {what}")]
    HighWater { path: PathBuf, what: &'static str },
}

impl PagesError {
    /// What was written is not there or not itself: no second try will help, as it may after an error of the machine.
    pub fn is_damage(&self) -> bool {
        !matches!(self, PagesError::Io(_))
    }
}

impl From<fjall::Error> for PagesError {
    fn from(error: fjall::Error) -> Self {
        let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |cause| cause.source());
        let io = causes.filter_map(|cause| cause.downcast_ref::<std::io::Error>()).last().map(std::io::Error::kind);
        match (&error, io) {
            (_, Some(ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::NotFound)) => {}
            (_, Some(_)) | (fjall::Error::Poisoned | fjall::Error::Locked, _) => {
                return PagesError::Io(error.to_string());
            }
            _ => {}
        }
        PagesError::Database(error.to_string())
    }
}

impl From<std::io::Error> for PagesError {
    fn from(error: std::io::Error) -> Self {
        PagesError::Io(error.to_string())
    }
}

/// Pages under fresh ids, root records under growing sequence numbers. All methods may block on the disk.
pub trait PageStore: Send + Sync {
    /// Names the history of page numbers: in stores of one lineage a number names one page at most.
    fn lineage(&self) -> u64;
    /// The bytes of a page, verified.
    fn read(&self, id: PageId) -> Result<Vec<u8>, PagesError>;
    /// Adds pages. They are durable with the next [`commit_root`](Self::commit_root), and until then may be lost singly.
    fn write(&self, pages: &[(PageId, Vec<u8>)]) -> Result<(), PagesError>;
    /// The same at half the cost for many: `make` puts pages, each under a greater id than the one before. If it fails, they are
    /// there or not, singly.
    fn write_sorted(&self, make: &mut dyn FnMut(&mut Put<'_>) -> Result<(), PagesError>) -> Result<(), PagesError>;
    /// Makes all pages written so far durable, then this root record.
    fn commit_root(&self, sequence: u64, record: &[u8]) -> Result<(), PagesError>;
    /// Removes pages and root records. Need not be durable: what comes back after a crash is swept again.
    fn delete(&self, pages: &[PageId], roots: &[u64]) -> Result<(), PagesError>;
    /// The sequence numbers of the root records, ascending.
    fn roots(&self) -> Result<Vec<u64>, PagesError>;
    /// The bytes of a root record, verified.
    fn root(&self, sequence: u64) -> Result<Vec<u8>, PagesError>;
    /// The ids of all pages, ascending. Reads every key: for sweeps, not for starts.
    fn ids(&self) -> Result<Vec<PageId>, PagesError>;
    /// The ids of all pages from `first` on: what a checkpoint that never committed has left behind.
    fn ids_from(&self, first: PageId) -> Result<Vec<PageId>, PagesError>;
    /// What is damaged in the store's files besides pages and root records. Reads whole files.
    fn damaged_files(&self) -> Result<Vec<PagesError>, PagesError> {
        Ok(Vec::new())
    }
}

/// Takes a page on its way into a store.
pub type Put<'a> = dyn FnMut(PageId, Vec<u8>) -> Result<(), PagesError> + 'a;

fn crc(key: u64, bytes: &[u8]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(&key.to_be_bytes());
    digest.update(bytes);
    digest.finalize() as u32
}

fn checked(key: u64, mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = crc(key, &bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

/// The bytes above a checksum, or `None` if it is not theirs.
fn unchecked(key: u64, value: &[u8]) -> Option<&[u8]> {
    let (bytes, sum) = value.split_last_chunk::<4>()?;
    (crc(key, bytes) == u32::from_le_bytes(*sum)).then_some(bytes)
}

/// What fjall replays at a start is bounded by these; its defaults (512 and 64 MiB) cost seconds.
const JOURNAL_BYTES: u64 = 128 << 20;
const MEMTABLE_BYTES: u64 = 16 << 20;

/// How the page database may use the machine.
#[derive(Clone, Debug)]
pub struct PagesOptions {
    /// fjall's cache for blocks and page values.
    pub cache_bytes: u64,
    /// fjall's background threads.
    pub worker_threads: usize,
    /// Pages and root records are encrypted.
    pub seal: Option<Arc<Sealer>>,
}

impl Default for PagesOptions {
    fn default() -> Self {
        PagesOptions { cache_bytes: 64 << 20, worker_threads: 2, seal: None }
    }
}

/// What is encrypted, for whom it is authenticated.
const PAGE: &[u8; 8] = b"page    ";
const ROOT: &[u8; 8] = b"root    ";

/// The page store on a real disk.
pub struct FjallPages {
    db: Database,
    pages: Keyspace,
    roots: Keyspace,
    high: PathBuf,
    lineage: u64,
    cipher: Option<Arc<Sealer>>,
    /// Held open to sync the directory after the high-water file was renamed into place.
    directory: File,
}

impl FjallPages {
    /// Opens or creates the page store in `path` (a directory of its own). Takes no time that grows with the number of pages.
    pub fn open(path: &Path, options: &PagesOptions) -> Result<FjallPages, PagesError> {
        // fjall asserts on some damaged files
        let opened = std::panic::catch_unwind(|| FjallPages::open_now(path, options));
        opened.unwrap_or_else(|_| Err(PagesError::Database("it stops while it opens".into())))
    }

    fn open_now(path: &Path, options: &PagesOptions) -> Result<FjallPages, PagesError> {
        std::fs::create_dir_all(path)?;
        let db = Database::builder(path.join("fjall"))
            .cache_size(options.cache_bytes)
            .worker_threads(options.worker_threads)
            .manual_journal_persist(true)
            .max_journaling_size(JOURNAL_BYTES)
            .open()?;
        let apart = || {
            KeyspaceCreateOptions::default()
                .manual_journal_persist(true)
                .max_memtable_size(MEMTABLE_BYTES)
                .expect_point_read_hits(true)
                .with_kv_separation(Some(KvSeparationOptions::default().separation_threshold(512)))
        };
        let pages = db.keyspace("pages", apart)?;
        let roots = db.keyspace("roots", || KeyspaceCreateOptions::default().manual_journal_persist(true))?;
        let (high, directory) = (path.join("high-water"), File::open(path)?);
        // A process that died may have named a high-water record, and not have synced the name
        directory.sync_all()?;
        let lineage = generations::lineage(path, &directory)?;
        let cipher = options.seal.clone();
        let store = FjallPages { db, pages, roots, high, lineage, cipher, directory };
        store.check_high_water()?;
        Ok(store)
    }

    fn check_high_water(&self) -> Result<(), PagesError> {
        let high = self.read_high_water()?;
        let newest = self.roots()?.last().copied().unwrap_or(0);
        if newest < high {
            return Err(PagesError::RootLost { newest, high });
        }
        Ok(())
    }

    fn read_high_water(&self) -> Result<u64, PagesError> {
        let bytes = match std::fs::read(&self.high) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        parse_high_water(&bytes).map_err(|what| PagesError::HighWater { path: self.high.clone(), what })
    }

    fn write_high_water(&self, sequence: u64) -> Result<(), PagesError> {
        let fresh = self.high.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(&high_water(sequence))?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.high)?;
        self.directory.sync_all()?;
        Ok(())
    }

    /// The value under which a page or root record is stored.
    fn value(&self, kind: &[u8; 8], key: u64, bytes: Vec<u8>) -> Result<Vec<u8>, SealError> {
        let bytes = match &self.cipher {
            Some(cipher) => cipher.seal_vec(&seal::place(kind, [key, 0, 0]), bytes)?,
            None => bytes,
        };
        Ok(checked(key, bytes))
    }

    fn page_value(&self, id: PageId, page: Vec<u8>) -> Result<Vec<u8>, PagesError> {
        self.value(PAGE, id.0, page).map_err(|why| PagesError::Sealed(id, why))
    }

    fn decrypt(&self, kind: &[u8; 8], key: u64, bytes: Vec<u8>) -> Result<Vec<u8>, SealError> {
        match &self.cipher {
            Some(cipher) => cipher.open(&seal::place(kind, [key, 0, 0]), bytes),
            None => Ok(bytes),
        }
    }

    /// Bytes that the page database takes on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.db.disk_space().unwrap_or(0)
    }
}

const HIGH_MAGIC: &[u8; 8] = b"LOOKHIGH";
const HIGH_VERSION: u32 = 1;
const HIGH_BYTES: usize = 24;

fn high_water(sequence: u64) -> Vec<u8> {
    let mut bytes = HIGH_MAGIC.to_vec();
    bytes.extend_from_slice(&HIGH_VERSION.to_le_bytes());
    bytes.extend_from_slice(&sequence.to_le_bytes());
    let sum = crc(0, &bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

fn parse_high_water(bytes: &[u8]) -> Result<u64, &'static str> {
    if bytes.len() != HIGH_BYTES || &bytes[..8] != HIGH_MAGIC {
        return Err("wrong length or first bytes");
    }
    let body = unchecked(0, bytes).ok_or("checksum does not match")?;
    let word = |from: usize| body[from..].iter().rev().fold(0u64, |all, &byte| all << 8 | byte as u64);
    if word(8) as u32 != HIGH_VERSION {
        return Err("another version");
    }
    Ok(word(12))
}

fn key_of(key: &[u8]) -> Result<u64, PagesError> {
    <[u8; 8]>::try_from(key)
        .map(u64::from_be_bytes)
        .map_err(|_| PagesError::Database("a key is not 8 bytes long".into()))
}

fn keys(iter: fjall::Iter) -> Result<Vec<u64>, PagesError> {
    iter.map(|guard| key_of(&guard.key()?)).collect()
}

impl PageStore for FjallPages {
    fn lineage(&self) -> u64 {
        self.lineage
    }

    fn read(&self, id: PageId) -> Result<Vec<u8>, PagesError> {
        let value = self.pages.get(id.0.to_be_bytes())?.ok_or(PagesError::Missing(id))?;
        let bytes = unchecked(id.0, &value).ok_or(PagesError::Damaged(id))?.to_vec();
        self.decrypt(PAGE, id.0, bytes).map_err(|why| PagesError::Sealed(id, why))
    }

    fn write(&self, pages: &[(PageId, Vec<u8>)]) -> Result<(), PagesError> {
        let mut batch = self.db.batch();
        for (id, bytes) in pages {
            batch.insert(&self.pages, id.0.to_be_bytes(), self.page_value(*id, bytes.clone())?);
        }
        Ok(batch.commit()?)
    }

    /// fjall's way in for sorted values: straight into its files, past journal and memtable. They are synced when it returns.
    fn write_sorted(&self, make: &mut dyn FnMut(&mut Put<'_>) -> Result<(), PagesError>) -> Result<(), PagesError> {
        let mut files = self.pages.start_ingestion()?;
        make(&mut |id, page| Ok(files.write(id.0.to_be_bytes(), self.page_value(id, page)?)?))?;
        Ok(files.finish()?)
    }

    fn commit_root(&self, sequence: u64, record: &[u8]) -> Result<(), PagesError> {
        self.db.persist(PersistMode::SyncAll)?;
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncAll));
        let record =
            self.value(ROOT, sequence, record.to_vec()).map_err(|why| PagesError::RootSealed(sequence, why))?;
        batch.insert(&self.roots, sequence.to_be_bytes(), record);
        batch.commit()?;
        self.write_high_water(sequence)
    }

    fn delete(&self, pages: &[PageId], roots: &[u64]) -> Result<(), PagesError> {
        // Roots first and alone: a root record must never outlive a page it reaches.
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncAll));
        for sequence in roots {
            batch.remove(&self.roots, sequence.to_be_bytes());
        }
        batch.commit()?;
        for some in pages.chunks(4096) {
            let mut batch = self.db.batch();
            for id in some {
                batch.remove(&self.pages, id.0.to_be_bytes());
            }
            batch.commit()?;
        }
        Ok(())
    }

    /// fjall keeps a checksum of each table, but looks only at those of the blocks in it; what a table says of its blobs has none.
    fn damaged_files(&self) -> Result<Vec<PagesError>, PagesError> {
        let mut damaged = Vec::new();
        for keyspace in [&self.pages, &self.roots] {
            for table in keyspace.tree.current_version().iter_tables() {
                let bytes = std::fs::read(table.path.as_path())?;
                if xxhash_rust::xxh3::xxh3_128(&bytes) != table.checksum().into_u128() {
                    damaged.push(PagesError::File(table.path.to_path_buf()));
                }
            }
        }
        Ok(damaged)
    }

    fn roots(&self) -> Result<Vec<u64>, PagesError> {
        keys(self.roots.iter())
    }

    fn root(&self, sequence: u64) -> Result<Vec<u8>, PagesError> {
        let value = self.roots.get(sequence.to_be_bytes())?.ok_or(PagesError::RootMissing(sequence))?;
        let bytes = unchecked(sequence, &value).ok_or(PagesError::RootDamaged(sequence))?.to_vec();
        self.decrypt(ROOT, sequence, bytes).map_err(|why| PagesError::RootSealed(sequence, why))
    }

    fn ids(&self) -> Result<Vec<PageId>, PagesError> {
        self.ids_from(PageId(0))
    }

    fn ids_from(&self, first: PageId) -> Result<Vec<PageId>, PagesError> {
        Ok(keys(self.pages.range(first.0.to_be_bytes()..))?.into_iter().map(PageId).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> Result<FjallPages, PagesError> {
        FjallPages::open(path, &PagesOptions { cache_bytes: 1 << 20, worker_threads: 1, seal: None })
    }

    #[test]
    fn committed_pages_and_roots_survive_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let pages: Vec<_> = (1..50).map(|i| (PageId(i), vec![i as u8; 1000 * i as usize])).collect();
        {
            let store = open(dir.path()).unwrap();
            store.write(&pages).unwrap();
            store.commit_root(7, b"root seven").unwrap();
        }
        let store = open(dir.path()).unwrap();
        for (id, bytes) in &pages {
            assert_eq!(&store.read(*id).unwrap(), bytes);
        }
        assert_eq!(store.roots().unwrap(), [7]);
        assert_eq!(store.root(7).unwrap(), b"root seven");
        assert_eq!(store.ids_from(PageId(45)).unwrap().len(), 5);
        store.delete(&[PageId(3)], &[]).unwrap();
        assert_eq!(store.read(PageId(3)), Err(PagesError::Missing(PageId(3))));
        assert_eq!(store.root(8), Err(PagesError::RootMissing(8)));
    }

    #[test]
    fn every_byte_of_a_table_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).unwrap();
        let page = |i: u64| (PageId(i), vec![i as u8; 700]);
        store.write_sorted(&mut |put| (1..50).map(page).try_for_each(|(id, bytes)| put(id, bytes))).unwrap();
        let path = store.pages.tree.current_version().iter_tables().next().expect("a table").path.to_path_buf();
        let good = std::fs::read(&path).unwrap();
        assert_eq!(store.damaged_files(), Ok(Vec::new()));
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            assert_eq!(store.damaged_files(), Ok(vec![PagesError::File(path.clone())]), "byte {at}");
        }
        std::fs::write(&path, &good).unwrap();
        assert_eq!(store.damaged_files(), Ok(Vec::new()));
    }

    #[test]
    fn sorted_pages_survive_reopening_and_can_be_deleted_then() {
        let dir = tempfile::tempdir().unwrap();
        {
            let store = open(dir.path()).unwrap();
            store.write(&[(PageId(1), vec![1; 600])]).unwrap();
            let page = |i: u64| (PageId(i), vec![i as u8; 400 * i as usize]);
            store.write_sorted(&mut |put| (2..50).map(page).try_for_each(|(id, bytes)| put(id, bytes))).unwrap();
            store.commit_root(1, b"one").unwrap();
            let failed = store.write_sorted(&mut |put| {
                put(PageId(50), vec![0; 600])?;
                Err(PagesError::Io("no more".into()))
            });
            assert_eq!(failed, Err(PagesError::Io("no more".into())));
        }
        {
            let store = open(dir.path()).unwrap();
            assert_eq!(store.ids().unwrap().len(), 49);
            assert_eq!(store.read(PageId(49)).unwrap(), vec![49; 400 * 49]);
            store.delete(&[PageId(1), PageId(2), PageId(49)], &[]).unwrap();
            store.commit_root(2, b"two").unwrap();
            assert_eq!(store.read(PageId(49)), Err(PagesError::Missing(PageId(49))));
        }
        let store = open(dir.path()).unwrap();
        assert_eq!(store.ids().unwrap(), (3..49).map(PageId).collect::<Vec<_>>());
        assert_eq!(store.read(PageId(3)).unwrap(), vec![3; 1200]);
    }

    #[test]
    fn a_durable_root_that_is_gone_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        {
            let store = open(dir.path()).unwrap();
            store.commit_root(1, b"one").unwrap();
            store.write_high_water(2).unwrap();
        }
        assert_eq!(open(dir.path()).err(), Some(PagesError::RootLost { newest: 1, high: 2 }));
    }

    #[test]
    fn every_bit_of_the_high_water_file_counts() {
        let good = high_water(0x1234_5678_9abc);
        assert_eq!(parse_high_water(&good), Ok(0x1234_5678_9abc));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(parse_high_water(&bad).is_err(), "bit {bit}");
        }
        assert!(parse_high_water(&good[..23]).is_err());
    }

    #[test]
    fn a_checksum_holds_for_its_own_key_only() {
        let value = checked(9, b"page".to_vec());
        assert_eq!(unchecked(9, &value), Some(&b"page"[..]));
        assert_eq!(unchecked(8, &value), None);
        assert_eq!(unchecked(9, b"ab"), None);
    }
}
