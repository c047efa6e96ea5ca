//! Looks at a page store: every root record, every page, and whether each record's pages are all there. Never writes.

use super::checkpoint::{CheckpointError, RootRecord};
use super::page;
use crate::base::PageId;
use crate::disk::pages::{PageStore, PagesError};
use std::collections::{HashMap, HashSet};

/// What a page store holds.
#[derive(Debug, Default)]
pub struct PagesChecked {
    /// The intact root records, ascending.
    pub records: Vec<RootRecord>,
    pub pages: u64,
    pub bytes: u64,
    /// Pages that no record reaches any more; a later checkpoint removes them.
    pub unreachable: u64,
    pub damage: Vec<CheckpointError>,
}

/// Reads everything; `progress` is told how many pages of how many are read.
pub fn check(store: &dyn PageStore, progress: &mut dyn FnMut(usize, usize)) -> Result<PagesChecked, CheckpointError> {
    let mut checked = PagesChecked::default();
    for sequence in store.roots()? {
        match store.root(sequence).map_err(CheckpointError::from).and_then(|bytes| RootRecord::decode(sequence, &bytes))
        {
            Ok(record) => checked.records.push(record),
            Err(error) => checked.damage.push(error),
        }
    }
    let ids = store.ids()?;
    // Of leaf pages only that they are there; None: damaged, and said so
    let mut links: HashMap<PageId, Option<Vec<PageId>>> = HashMap::with_capacity(ids.len());
    for (done, &id) in ids.iter().enumerate() {
        progress(done, ids.len());
        match store.read(id).and_then(|bytes| Ok((page::check(id, &bytes)?, bytes.len()))) {
            Ok((to, len)) => {
                checked.bytes += len as u64;
                links.insert(id, Some(to));
            }
            Err(error) => {
                checked.damage.push(error.into());
                links.insert(id, None);
            }
        }
    }
    progress(ids.len(), ids.len());
    checked.damage.extend(store.damaged_files()?.into_iter().map(CheckpointError::from));
    checked.pages = ids.len() as u64;
    let reached = reach(&links, &mut checked);
    checked.unreachable = ids.iter().filter(|id| !reached.contains(id)).count() as u64;
    Ok(checked)
}

/// Every page that a record leads to; each that is not there is damage.
fn reach(links: &HashMap<PageId, Option<Vec<PageId>>>, checked: &mut PagesChecked) -> HashSet<PageId> {
    let mut reached = HashSet::new();
    let roots = checked.records.iter().flat_map(|record| record.roots());
    let mut open: Vec<PageId> = roots.filter_map(|root| root.page()).map(page::key).collect();
    while let Some(key) = open.pop() {
        if !reached.insert(key) {
            continue;
        }
        match links.get(&key) {
            Some(to) => open.extend(to.iter().flatten()),
            None => checked.damage.push(PagesError::Missing(key).into()),
        }
    }
    reached
}
