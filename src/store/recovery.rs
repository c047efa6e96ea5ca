//! # Recovery: from the page store back to a version, and the transfer of a version to another node
//!
//! Opening reads root records only, so it takes no longer for a billion keys than for one; pages come when they are read.

use super::checkpoint::{CheckpointError, Checkpoints, RootRecord, View, reach, reach_since};
use super::page;
use crate::base::PageId;
use crate::disk::frames;
use crate::disk::pages::{PageStore, PagesError};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What was found in a page store.
pub struct Recovered {
    pub checkpoints: Arc<Checkpoints>,
    /// The newest intact record; none in an empty store.
    pub record: Option<RootRecord>,
    /// Newer records that are damaged, or whose root pages are. The version before them is whole, but may be older than the
    /// log's first entry: whoever opens must compare, and must say so.
    pub damaged: Vec<CheckpointError>,
}

/// Opens a page store: newest intact record first. A store with records of which none is intact is an error, not an empty one.
pub fn open(store: Arc<dyn PageStore>) -> Result<Recovered, CheckpointError> {
    let sequences = store.roots()?;
    let (mut kept, mut damaged) = (VecDeque::new(), Vec::new());
    for &sequence in sequences.iter().rev() {
        match intact(&*store, sequence) {
            Ok(record) => kept.push_front(record),
            // A record of a newer version of Look is not damage: its data must not be passed over.
            Err(error @ CheckpointError::Format { .. }) => return Err(error),
            Err(error @ CheckpointError::Pages(PagesError::Io(_))) => return Err(error),
            Err(error) if kept.is_empty() => damaged.push(error),
            // Older ones serve only past reads, which then begin later.
            Err(_) => break,
        }
    }
    if kept.is_empty()
        && let Some(error) = damaged.first()
    {
        return Err(error.clone());
    }
    let record = kept.back().cloned();
    let next_page = record.as_ref().map_or(1, |record| record.next_page);
    let next_page = sweep_unfinished(&*store, next_page)?;
    let newest = sequences.last().copied().unwrap_or(0);
    let checkpoints = Arc::new(Checkpoints::new(store, kept.into(), newest, next_page));
    Ok(Recovered { checkpoints, record, damaged })
}

/// The record, if it and the pages of its roots can be read.
fn intact(store: &dyn PageStore, sequence: u64) -> Result<RootRecord, CheckpointError> {
    let record = RootRecord::decode(sequence, &store.root(sequence)?)?;
    for page in record.roots().iter().filter_map(|root| root.page()) {
        let key = page::key(page);
        page::links(key, &store.read(key)?)?;
    }
    Ok(record)
}

/// Deletes pages that a run wrote without reaching its record. Tells the first page number above all of them.
fn sweep_unfinished(store: &dyn PageStore, next_page: u64) -> Result<u64, CheckpointError> {
    let left = store.ids_from(page::first_key(next_page))?;
    let next = left.last().map_or(next_page, |id| page::number(*id) + 1);
    if !left.is_empty() {
        tracing::info!(pages = left.len(), "removing pages of an unfinished checkpoint");
        store.delete(&left, &[])?;
    }
    Ok(next)
}

/// Largest piece of a transfer, bytes.
pub const PIECE_BYTES: usize = 1 << 20;
/// A frame's key when it carries the root record: the last frame.
pub const RECORD_KEY: u64 = u64::MAX;

/// A version as a stream of pieces: every page it reaches, then its root record.
///
/// Made of [`frames`], which run across pieces. Pages come in the order of their keys. The record comes last: without it the receiver has pages that nothing refers to.
pub struct Export {
    view: View,
    pages: VecDeque<PageId>,
    total: usize,
    buffer: Vec<u8>,
    sent: usize,
    record_sent: bool,
}

impl Export {
    /// Reads the internal pages to learn the names of all.
    pub fn new(view: View) -> Result<Export, CheckpointError> {
        Export::since(view, 0)
    }

    /// Leaves out the pages whose number is below `next_page`: a version that was the newest when that was the next page's number has
    /// them all, because pages refer to older ones only and a version has nothing from before the last one that the last one had not.
    pub fn since(view: View, next_page: u64) -> Result<Export, CheckpointError> {
        let mut pages = Vec::new();
        reach_since(&**view.store(), &view.record().roots(), next_page, |key, _| {
            pages.push(key);
            Ok(())
        })?;
        pages.sort_unstable();
        Ok(Export { view, total: pages.len(), pages: pages.into(), buffer: Vec::new(), sent: 0, record_sent: false })
    }

    pub fn record(&self) -> &RootRecord {
        self.view.record()
    }

    /// Leaves out the pages up to this key: the receiver has them from an older version of the same store, or from this one, and
    /// by the rule above it then lacks none of them.
    pub fn resume(&mut self, have: PageId) {
        while self.pages.front().is_some_and(|key| *key <= have) {
            self.pages.pop_front();
        }
    }

    /// Pages sent or left out, and pages in all.
    pub fn progress(&self) -> (usize, usize) {
        (self.total - self.pages.len(), self.total)
    }

    /// The next piece, of at most [`PIECE_BYTES`]; none at the end.
    pub fn next_piece(&mut self) -> Result<Option<Vec<u8>>, CheckpointError> {
        while self.buffer.len() - self.sent < PIECE_BYTES && !self.record_sent {
            self.buffer.drain(..std::mem::take(&mut self.sent));
            if let Some((key, bytes)) = self.next_frame()? {
                frames::put(&mut self.buffer, key, &bytes);
            }
        }
        let piece = &self.buffer[self.sent..];
        let piece = piece[..piece.len().min(PIECE_BYTES)].to_vec();
        self.sent += piece.len();
        Ok((!piece.is_empty()).then_some(piece))
    }

    /// The next frame's key and bytes; none at the end.
    pub fn next_frame(&mut self) -> Result<Option<(u64, Vec<u8>)>, CheckpointError> {
        if let Some(key) = self.pages.pop_front() {
            return Ok(Some((key.0, self.view.store().read(key)?)));
        }
        let last = !std::mem::replace(&mut self.record_sent, true);
        Ok(last.then(|| (RECORD_KEY, self.view.record().encode())))
    }
}

/// Received pages go to the store in so many bytes; a broken connection loses less than this.
const WRITE_BYTES: usize = 1 << 20;

/// Receives a version into an empty page store.
pub struct Import {
    store: Arc<dyn PageStore>,
    buffer: Vec<u8>,
    pages: Vec<(PageId, Vec<u8>)>,
    pages_bytes: usize,
    /// Every page up to this key is in the store.
    have: Arc<AtomicU64>,
    record: Option<RootRecord>,
}

impl Import {
    /// `store` holds nothing yet: the pages keep the ids they have where they come from.
    pub fn new(store: Arc<dyn PageStore>) -> Result<Import, CheckpointError> {
        if !store.roots()?.is_empty() || !store.ids_from(PageId(0))?.is_empty() {
            return Err(CheckpointError::Transfer("the receiving page store is not empty"));
        }
        Ok(Import::resume(store, Arc::default()))
    }

    /// Goes on where an earlier import into this store, which counted in `have`, was broken off.
    pub fn resume(store: Arc<dyn PageStore>, have: Arc<AtomicU64>) -> Import {
        Import { store, buffer: Vec::new(), pages: Vec::new(), pages_bytes: 0, have, record: None }
    }

    /// Every page up to this key is in the store.
    pub fn have(&self) -> PageId {
        PageId(self.have.load(Ordering::Acquire))
    }

    pub fn piece(&mut self, piece: &[u8]) -> Result<(), CheckpointError> {
        self.buffer.extend_from_slice(piece);
        let buffer = std::mem::take(&mut self.buffer);
        let mut rest = buffer.as_slice();
        while let Some((key, bytes, after)) = frames::take(rest).map_err(CheckpointError::Transfer)? {
            self.take(key, bytes)?;
            rest = after;
        }
        self.buffer = rest.to_vec();
        Ok(())
    }

    fn take(&mut self, key: u64, bytes: &[u8]) -> Result<(), CheckpointError> {
        if self.record.is_some() {
            return Err(CheckpointError::Transfer("a frame behind the root record"));
        }
        if key == RECORD_KEY {
            self.record = Some(RootRecord::decode(RootRecord::sequence_of(bytes), bytes)?);
            return Ok(());
        }
        self.pages_bytes += bytes.len();
        self.pages.push((PageId(key), bytes.to_vec()));
        if self.pages_bytes > WRITE_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), CheckpointError> {
        let pages = std::mem::take(&mut self.pages);
        self.store.write(&pages)?;
        self.pages_bytes = 0;
        if let Some((last, _)) = pages.last() {
            self.have.fetch_max(last.0, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Checks that the version is whole, and makes it durable. The store can be opened then.
    pub fn finish(mut self) -> Result<RootRecord, CheckpointError> {
        let record = self.record.take().ok_or(CheckpointError::Transfer("it ends before the root record"))?;
        if !self.buffer.is_empty() {
            return Err(CheckpointError::Transfer("it ends inside a frame"));
        }
        self.write()?;
        let store = self.store.clone();
        let there: std::collections::HashSet<PageId> = store.ids()?.into_iter().collect();
        reach(&*store, &record.roots(), |key, _| match there.contains(&key) {
            true => Ok(()),
            false => Err(CheckpointError::Transfer("a page is missing")),
        })?;
        store.commit_root(record.sequence, &record.encode())?;
        Ok(record)
    }
}
