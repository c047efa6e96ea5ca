//! # Transfer of a version to another node
//!
//! A version is a stream of pieces: every page it reaches, in the order of their keys, then its root record. The record comes last:
//! without it the receiver has pages that nothing refers to.
//!
//! A node that comes back has most of it already, in pages of its own. Their numbers say nothing, because every node counts
//! its own; what is in them does. So the sender first offers a run of pages: it names the parts of those that refer to no other page, each
//! by a hash of its bytes. The receiver says which it lacks, and of the others only the names are sent. Parts and not pages, because which
//! siblings share a page hangs on when a node made its checkpoints, but a subtree that nobody changed has the same bytes everywhere.
//!
//! ```text
//! piece     = frame ...                                  (`disk/frames.rs`; frames run across pieces)
//! frame     = page's key | page
//!           | page's key + 1 | lean page                 some of its parts are with the receiver
//!           | RECORD_KEY | root record                   the last
//! lean page = the page up to its first part | (0 u8, the part's bytes | 1 u8, its name) x parts
//! offer     = name x parts of the run's leaf pages       name = XXH3-128 under a seed that the receiver drew
//! wanted    = a bit for each, lowest first: 1 where the part is lacking
//! ```
//! Why a seed: nobody who writes values can make two of them that share a name.

use super::checkpoint::{CheckpointError, RootRecord, View, reach, reach_since};
use super::page;
use crate::base::PageId;
use crate::disk::frames;
use crate::disk::pages::PageStore;
use ahash::AHashMap;
use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Largest piece of a transfer, bytes; also what is offered at once.
pub const PIECE_BYTES: usize = 1 << 20;
/// A frame's key when it carries the root record: the last frame.
pub const RECORD_KEY: u64 = u64::MAX;
/// Added to the key of a lean page; pages' keys leave the bits free.
const LEAN: u64 = 1;
const NAME_BYTES: usize = 16;

/// A version as a stream of pieces.
pub struct Export {
    view: View,
    /// Those not yet read, ascending.
    pages: VecDeque<PageId>,
    total: usize,
    /// The receiver has parts of its own, by names under this seed.
    seed: Option<u64>,
    /// Pages that were offered, and of their parts whether the receiver lacks them.
    run: VecDeque<(PageId, Vec<u8>)>,
    wanted: VecDeque<bool>,
    buffer: Vec<u8>,
    sent: usize,
    record_sent: bool,
    tally: Tally,
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Pages of which at least one part was sent.
    pub pages: usize,
    /// Bytes of parts that were not sent, because the receiver has them.
    pub spared: u64,
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
        Ok(Export {
            view,
            total: pages.len(),
            pages: pages.into(),
            seed: None,
            run: VecDeque::new(),
            wanted: VecDeque::new(),
            buffer: Vec::new(),
            sent: 0,
            record_sent: false,
            tally: Tally::default(),
        })
    }

    pub fn record(&self) -> &RootRecord {
        self.view.record()
    }

    /// Leaves out the pages up to this key, of an earlier transfer of the same pages; by the rule above none below it is lacking. Others are
    /// offered first, if there is a seed.
    pub fn resume(&mut self, have: PageId, seed: Option<u64>) {
        self.seed = seed;
        while self.pages.front().is_some_and(|key| *key <= have) {
            self.pages.pop_front();
        }
    }

    /// Pages sent or left out, and pages in all.
    pub fn progress(&self) -> (usize, usize) {
        (self.total - self.pages.len() - self.run.len(), self.total)
    }

    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// The names of what comes next, to be asked about before the next piece. None: there is nothing to ask.
    pub fn offer(&mut self) -> Result<Option<Vec<u8>>, CheckpointError> {
        let Some(seed) = self.seed.filter(|_| self.run.is_empty() && self.sent == self.buffer.len()) else {
            return Ok(None);
        };
        let (mut names, mut bytes) = (Vec::new(), 0);
        while bytes < PIECE_BYTES
            && let Some(key) = self.pages.pop_front()
        {
            let page = self.view.store().read(key)?;
            if page::is_leaf(key) {
                parts(key, &page)?.for_each(|part| names.extend_from_slice(&name(part, seed)));
            }
            bytes += page.len();
            self.run.push_back((key, page));
        }
        Ok((!names.is_empty()).then_some(names))
    }

    /// What the receiver says to an offer. What it does not mention is sent.
    pub fn wanted(&mut self, bits: &[u8]) {
        self.wanted = (0..bits.len() * 8).map(|i| bits[i / 8] >> (i % 8) & 1 == 1).collect();
    }

    /// The next piece, of at most [`PIECE_BYTES`]; none at the end.
    pub fn next_piece(&mut self) -> Result<Option<Vec<u8>>, CheckpointError> {
        while self.buffer.len() - self.sent < PIECE_BYTES && !self.record_sent {
            self.buffer.drain(..std::mem::take(&mut self.sent));
            if let Some((key, bytes)) = self.next_frame()? {
                frames::put(&mut self.buffer, key, &bytes);
            }
            if self.seed.is_some() && self.run.is_empty() {
                break;
            }
        }
        let piece = &self.buffer[self.sent..];
        let piece = piece[..piece.len().min(PIECE_BYTES)].to_vec();
        self.sent += piece.len();
        Ok((!piece.is_empty()).then_some(piece))
    }

    /// The next frame's key and bytes; none at the end.
    pub fn next_frame(&mut self) -> Result<Option<(u64, Vec<u8>)>, CheckpointError> {
        if let Some((key, page)) = self.run.pop_front() {
            return self.offered(key, page).map(Some);
        }
        if let Some(key) = self.pages.pop_front() {
            self.tally.pages += 1;
            return Ok(Some((key.0, self.view.store().read(key)?)));
        }
        let last = !std::mem::replace(&mut self.record_sent, true);
        Ok(last.then(|| (RECORD_KEY, self.view.record().encode())))
    }

    /// The frame of a page of which the receiver may have parts.
    fn offered(&mut self, key: PageId, page: Vec<u8>) -> Result<(u64, Vec<u8>), CheckpointError> {
        let seed = self.seed.unwrap_or_default();
        let of_parts = if page::is_leaf(key) { parts(key, &page)?.count() } else { 0 };
        let wanted: Vec<bool> = (0..of_parts).map(|_| self.wanted.pop_front().unwrap_or(true)).collect();
        self.tally.pages += (of_parts == 0 || wanted.contains(&true)) as usize;
        if wanted.iter().all(|wanted| *wanted) {
            return Ok((key.0, page));
        }
        let mut lean = page[..page::parts_in(key, &page)?.0].to_vec();
        for (part, wanted) in parts(key, &page)?.zip(wanted) {
            lean.push(!wanted as u8);
            match wanted {
                true => lean.extend_from_slice(part),
                false => lean.extend_from_slice(&name(part, seed)),
            }
            self.tally.spared += if wanted { 0 } else { part.len() as u64 };
        }
        Ok((key.0 | LEAN, lean))
    }
}

fn name(part: &[u8], seed: u64) -> [u8; NAME_BYTES] {
    xxh3_128_with_seed(part, seed).to_le_bytes()
}

/// The parts of a page, in order.
fn parts(key: PageId, page: &[u8]) -> Result<impl Iterator<Item = &[u8]>, CheckpointError> {
    let (begin, lengths) = page::parts_in(key, page)?;
    let mut rest = page.get(begin..).unwrap_or_default();
    if lengths.iter().sum::<usize>() != rest.len() {
        return Err(CheckpointError::Transfer("a page's parts do not fill it"));
    }
    Ok(lengths.into_iter().map(move |len| rest.split_off(..len).unwrap_or_default()))
}

/// Parts that a node has in pages of its own.
pub struct OwnParts {
    view: View,
    seed: u64,
    /// Made when it is first asked for: every leaf page is read.
    places: OnceLock<AHashMap<[u8; NAME_BYTES], PageId>>,
}

/// Most parts that are remembered: some 200 MiB.
const OWN_PARTS_MAX: usize = 4 << 20;

impl OwnParts {
    pub fn new(view: View, seed: u64) -> OwnParts {
        OwnParts { view, seed, places: OnceLock::new() }
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// What cannot be read is not here: it will be sent.
    fn places(&self) -> &AHashMap<[u8; NAME_BYTES], PageId> {
        self.places.get_or_init(|| {
            let mut places = AHashMap::new();
            let _ = reach(&**self.view.store(), &self.view.record().roots(), |key, _| {
                let page = if page::is_leaf(key) { self.view.store().read(key).ok() } else { None };
                for (i, part) in page.iter().flat_map(|page| parts(key, page)).flatten().enumerate() {
                    if places.len() < OWN_PARTS_MAX {
                        places.insert(name(part, self.seed), PageId(key.0 | i as u64));
                    }
                }
                Ok(())
            });
            places
        })
    }

    /// The answer to an offer.
    fn lacks(&self, offer: &[u8]) -> Vec<u8> {
        let mut bits = vec![0; offer.len().div_ceil(8 * NAME_BYTES)];
        for (i, name) in offer.as_chunks::<NAME_BYTES>().0.iter().enumerate() {
            bits[i / 8] |= (!self.places().contains_key(name) as u8) << (i % 8);
        }
        bits
    }

    fn append(&self, name: &[u8; NAME_BYTES], to: &mut Vec<u8>) -> Result<(), CheckpointError> {
        let place =
            *self.places().get(name).ok_or(CheckpointError::Transfer("a part that is not here was not sent"))?;
        let key = page::key(place);
        let page = self.view.store().read(key)?;
        parts(key, &page)?.nth((place.0 - key.0) as usize).into_iter().for_each(|part| to.extend_from_slice(part));
        Ok(())
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
    own: Option<Arc<OwnParts>>,
    record: Option<RootRecord>,
}

impl Import {
    /// `store` holds nothing yet: the pages keep the ids they have where they come from.
    pub fn new(store: Arc<dyn PageStore>) -> Result<Import, CheckpointError> {
        if !store.roots()?.is_empty() || !store.ids_from(PageId(0))?.is_empty() {
            return Err(CheckpointError::Transfer("the receiving page store is not empty"));
        }
        Ok(Import::resume(store, Arc::default(), None))
    }

    /// Goes on where an earlier import into this store, which counted in `have`, was broken off.
    pub fn resume(store: Arc<dyn PageStore>, have: Arc<AtomicU64>, own: Option<Arc<OwnParts>>) -> Import {
        Import { store, buffer: Vec::new(), pages: Vec::new(), pages_bytes: 0, have, own, record: None }
    }

    /// Every page up to this key is in the store.
    pub fn have(&self) -> PageId {
        PageId(self.have.load(Ordering::Acquire))
    }

    /// The seed under which offers are understood.
    pub fn seed(&self) -> Option<u64> {
        self.own.as_ref().map(|own| own.seed())
    }

    /// The answer to an offer. The first takes as long as reading all pages that are here.
    pub fn lacks(&self, offer: &[u8]) -> Vec<u8> {
        self.own.as_ref().map(|own| own.lacks(offer)).unwrap_or_default()
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
        let id = page::key(PageId(key));
        let page = match key - id.0 {
            0 => bytes.to_vec(),
            LEAN => self.filled(id, bytes)?,
            _ => return Err(CheckpointError::Transfer("a frame of an unknown kind")),
        };
        self.pages_bytes += page.len();
        self.pages.push((id, page));
        if self.pages_bytes > WRITE_BYTES { self.write() } else { Ok(()) }
    }

    /// A lean page with its parts in place.
    fn filled(&self, key: PageId, lean: &[u8]) -> Result<Vec<u8>, CheckpointError> {
        let cut_off = CheckpointError::Transfer("a lean page is cut off");
        let own = self.own.as_ref().ok_or(CheckpointError::Transfer("parts are named that nobody offered"))?;
        let (begin, lengths) = page::parts_in(key, lean)?;
        let (head, mut rest) = lean.split_at_checked(begin).ok_or(cut_off.clone())?;
        let mut page = head.to_vec();
        for len in lengths {
            let (kind, after) = rest.split_first().ok_or(cut_off.clone())?;
            let here = *kind == 1;
            let (bytes, after) = after.split_at_checked(if here { NAME_BYTES } else { len }).ok_or(cut_off.clone())?;
            let end = page.len() + len;
            match bytes.first_chunk() {
                Some(name) if here => own.append(name, &mut page)?,
                _ => page.extend_from_slice(bytes),
            }
            if page.len() != end {
                return Err(CheckpointError::Transfer("a part has another length here"));
            }
            rest = after;
        }
        Ok(page)
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
        let there: HashSet<PageId> = store.ids()?.into_iter().collect();
        reach(&*store, &record.roots(), |key, _| match there.contains(&key) {
            true => Ok(()),
            false => Err(CheckpointError::Transfer("a page is missing")),
        })?;
        store.commit_root(record.sequence, &record.encode())?;
        Ok(record)
    }
}
