//! A page store in memory that loses what was not synced, fails when told to, and lets bits flip. For tests.
//!
//! Stricter than fjall: of the writes since the last sync *any* subset may survive a crash, not only a prefix.

use super::generations::{Fresh, PageStores};
use super::{PageStore, PagesError, Put, checked, unchecked};
use crate::base::{PageId, mix64};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Clone)]
enum Change {
    Page(PageId, Vec<u8>),
    NoPage(PageId),
    Root(u64, Vec<u8>),
    NoRoot(u64),
}

#[derive(Clone, Default)]
struct Content {
    pages: BTreeMap<PageId, Vec<u8>>,
    roots: BTreeMap<u64, Vec<u8>>,
}

impl Content {
    fn change(&mut self, change: &Change) {
        match change.clone() {
            Change::Page(id, value) => drop(self.pages.insert(id, value)),
            Change::NoPage(id) => drop(self.pages.remove(&id)),
            Change::Root(sequence, value) => drop(self.roots.insert(sequence, value)),
            Change::NoRoot(sequence) => drop(self.roots.remove(&sequence)),
        }
    }
}

#[derive(Default)]
struct State {
    durable: Content,
    seen: Content,
    /// Since the last sync, in order.
    unsynced: Vec<Change>,
    steps: u64,
    fail_at: Option<u64>,
}

impl State {
    /// Counts one step that touches the disk; from the chosen step on every one fails.
    fn step(&mut self) -> Result<(), PagesError> {
        self.steps += 1;
        match self.fail_at {
            Some(at) if self.steps > at => Err(PagesError::Io("injected failure".into())),
            _ => Ok(()),
        }
    }

    fn change(&mut self, change: Change) {
        self.seen.change(&change);
        self.unsynced.push(change);
    }

    fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            self.durable.change(&change);
        }
    }
}

/// See the module. Shared by reference: a crash keeps the object and drops what was volatile.
#[derive(Default)]
pub struct MemoryPages(Mutex<State>);

impl MemoryPages {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Steps taken so far: the crash points of a run.
    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    /// Every step after the first `steps` from the start fails; `None` heals.
    pub fn fail_after(&self, steps: Option<u64>) {
        self.state().fail_at = steps;
    }

    /// Power loss: of the changes since the last sync a subset survives, drawn from `seed`.
    pub fn crash(&self, seed: u64) {
        let mut state = self.state();
        for (i, change) in std::mem::take(&mut state.unsynced).iter().enumerate() {
            if mix64(seed ^ mix64(i as u64 + 1)) & 1 == 1 {
                state.durable.change(change);
            }
        }
        state.seen = state.durable.clone();
        state.fail_at = None;
    }

    /// Flips one bit of a page, its checksum included. False: there is no such page or bit.
    pub fn flip_page(&self, id: PageId, bit: usize) -> bool {
        flip(self.state().seen.pages.get_mut(&id), bit)
    }

    /// Flips one bit of a root record, its checksum included.
    pub fn flip_root(&self, sequence: u64, bit: usize) -> bool {
        flip(self.state().seen.roots.get_mut(&sequence), bit)
    }

    /// Bytes of all pages.
    pub fn page_bytes(&self) -> usize {
        self.state().seen.pages.values().map(Vec::len).sum()
    }
}

fn flip(value: Option<&mut Vec<u8>>, bit: usize) -> bool {
    match value.and_then(|value| value.get_mut(bit / 8)) {
        Some(byte) => {
            *byte ^= 1 << (bit % 8);
            true
        }
        None => false,
    }
}

/// Generations of page stores in memory; clones share them.
#[derive(Clone, Default)]
pub struct MemoryGenerations(Arc<Mutex<Stores>>);

#[derive(Default)]
struct Stores {
    stores: BTreeMap<u64, Arc<MemoryPages>>,
    current: u64,
}

impl MemoryGenerations {
    fn stores(&self) -> MutexGuard<'_, Stores> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that exist, the one that counts first.
    pub fn all(&self) -> Vec<Arc<MemoryPages>> {
        let stores = self.stores();
        let current = stores.stores.get(&stores.current).cloned();
        let others = stores.stores.iter().filter(|(number, _)| **number != stores.current);
        current.into_iter().chain(others.map(|(_, pages)| pages.clone())).collect()
    }

    /// Power loss, of all stores together.
    pub fn crash(&self, seed: u64) {
        self.all().iter().for_each(|pages| pages.crash(seed));
    }
}

impl PageStores for MemoryGenerations {
    fn open(&self) -> Result<Arc<dyn PageStore>, PagesError> {
        let mut stores = self.stores();
        let current = stores.current.max(1);
        stores.current = current;
        stores.stores.retain(|number, _| *number == current);
        Ok(stores.stores.entry(current).or_default().clone())
    }

    fn fresh(&self) -> Result<Fresh, PagesError> {
        let mut stores = self.stores();
        let current = stores.current;
        stores.stores.retain(|number, _| *number <= current);
        let number = stores.stores.last_key_value().map_or(1, |(last, _)| last + 1);
        let pages = stores.stores.entry(number).or_default().clone();
        Ok(Fresh { pages, number })
    }

    fn adopt(&self, fresh: Fresh) -> Result<Arc<dyn PageStore>, PagesError> {
        self.stores().current = fresh.number;
        Ok(fresh.pages)
    }
}

impl PageStore for MemoryPages {
    fn lineage(&self) -> u64 {
        0
    }

    fn read(&self, id: PageId) -> Result<Vec<u8>, PagesError> {
        let state = self.state();
        let value = state.seen.pages.get(&id).ok_or(PagesError::Missing(id))?;
        unchecked(id.0, value).map(<[u8]>::to_vec).ok_or(PagesError::Damaged(id))
    }

    fn write(&self, pages: &[(PageId, Vec<u8>)]) -> Result<(), PagesError> {
        let mut state = self.state();
        state.step()?;
        for (id, bytes) in pages {
            state.change(Change::Page(*id, checked(id.0, bytes.clone())));
        }
        Ok(())
    }

    fn write_sorted(&self, make: &mut dyn FnMut(&mut Put<'_>) -> Result<(), PagesError>) -> Result<(), PagesError> {
        make(&mut |id, page| self.write(&[(id, page)]))
    }

    fn commit_root(&self, sequence: u64, record: &[u8]) -> Result<(), PagesError> {
        let mut state = self.state();
        state.step()?;
        state.sync();
        state.step()?;
        state.change(Change::Root(sequence, checked(sequence, record.to_vec())));
        state.step()?;
        state.sync();
        Ok(())
    }

    fn delete(&self, pages: &[PageId], roots: &[u64]) -> Result<(), PagesError> {
        let mut state = self.state();
        state.step()?;
        for sequence in roots {
            state.change(Change::NoRoot(*sequence));
        }
        state.step()?;
        state.sync();
        for id in pages {
            state.change(Change::NoPage(*id));
        }
        Ok(())
    }

    fn roots(&self) -> Result<Vec<u64>, PagesError> {
        Ok(self.state().seen.roots.keys().copied().collect())
    }

    fn root(&self, sequence: u64) -> Result<Vec<u8>, PagesError> {
        let state = self.state();
        let value = state.seen.roots.get(&sequence).ok_or(PagesError::RootMissing(sequence))?;
        unchecked(sequence, value).map(<[u8]>::to_vec).ok_or(PagesError::RootDamaged(sequence))
    }

    fn ids(&self) -> Result<Vec<PageId>, PagesError> {
        Ok(self.state().seen.pages.keys().copied().collect())
    }

    fn ids_from(&self, first: PageId) -> Result<Vec<PageId>, PagesError> {
        Ok(self.state().seen.pages.range(first..).map(|(id, _)| *id).collect())
    }
}
