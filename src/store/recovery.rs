//! # Recovery: from the page store back to a version
//!
//! Opening reads root records only, so it takes no longer for a billion keys than for one; pages come when they are read.

use super::checkpoint::{CheckpointError, Checkpoints, RootRecord};
use super::page;
use crate::disk::pages::{PageStore, PagesError};
use std::collections::VecDeque;
use std::sync::Arc;

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
