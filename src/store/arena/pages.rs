//! Pages of the disk and the resident nodes that head them.
//!
//! A page is loaded at most once, whoever asks: two versions of a parent may both still say "on disk", and must come to
//! the same node, or the second copy would belong to nobody. A head that is freed leaves the table, and its page is
//! reported to the checkpoint: no version in memory needs it any more.

use super::{Arena, Flags, Heap, Node, Ref, lock};
use crate::base::{PageId, SubBatch};
use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};

/// Why a page could not be had. Remembered by the arena; the node must stop serving.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    #[error("page {0} is missing")]
    Missing(PageId),
    #[error("page {page} is damaged: {what}")]
    Damaged { page: PageId, what: &'static str },
    #[error("page {page} cannot be read: {error}")]
    Io { page: PageId, error: String },
}

/// What a read unwinds with when its page cannot be had (`resume_unwind`, so no panic message is printed): the arena's
/// `fault` says why. Reads have no error of their own for this, because nothing sensible can follow but stopping.
#[derive(Clone, Copy, Debug)]
pub struct PageFault;

/// Builds the nodes of a page.
pub trait PageSource: Send + Sync {
    /// Builds the page's nodes in `heap` and tells its head. Cells that lead out of the page are page references.
    fn load(&self, page: PageId, arena: &Arena, heap: &mut Heap) -> Result<Ref, PageError>;
}

/// The table of loaded pages.
#[derive(Default)]
pub struct Pages {
    source: OnceLock<Box<dyn PageSource>>,
    /// Held while a page is read; the table's own lock never is.
    loader: Mutex<Heap>,
    table: Mutex<Table>,
    fault: OnceLock<PageError>,
}

#[derive(Default)]
struct Table {
    head: HashMap<PageId, Ref>,
    /// Of each head, and the sub-batch up to which the page shows what is below it: branches of the keyspace change in place.
    page: HashMap<Ref, (PageId, SubBatch)>,
    /// Ids that heads had before they were written again: an older version in memory may still name them.
    earlier: HashMap<Ref, Vec<PageId>>,
    freed: Vec<PageId>,
}

impl Pages {
    /// Says where pages come from; the first call counts.
    pub fn set_source(&self, source: Box<dyn PageSource>) {
        let _ = self.source.set(source);
    }

    /// The first page error, if there was one. Sticky: the store is not whole any more.
    pub fn fault(&self) -> Option<&PageError> {
        self.fault.get()
    }

    /// Says that `head`, which the caller has pinned, is now on disk as `page`, as it was at the end of `as_of`.
    pub fn mark(&self, head: Node<'_>, page: PageId, as_of: SubBatch) {
        let mut table = lock(&self.table);
        table.head.insert(page, head.get());
        if let Some((earlier, _)) = table.page.insert(head.get(), (page, as_of)) {
            table.earlier.entry(head.get()).or_default().push(earlier);
        }
        head.set_flag(Flags::PAGE_HEAD);
    }

    /// The page that `head` heads, if nothing below it has changed since.
    pub fn page_of(&self, head: Node<'_>) -> Option<PageId> {
        let (page, as_of) = lock(&self.table).page.get(&head.get()).copied()?;
        (head.birth() <= as_of).then_some(page)
    }

    /// The resident head of `page`, if it is loaded.
    pub fn head_of(&self, page: PageId) -> Option<Ref> {
        lock(&self.table).head.get(&page).copied()
    }

    /// Pages that no version in memory needs any more, since the last call.
    pub fn take_freed(&self) -> Vec<PageId> {
        std::mem::take(&mut lock(&self.table).freed)
    }

    /// The writer frees a head.
    pub(in crate::store) fn forget_head(&self, head: Ref) {
        let mut table = lock(&self.table);
        if let Some((page, _)) = table.page.remove(&head) {
            table.head.remove(&page);
            table.freed.push(page);
            for page in table.earlier.remove(&head).unwrap_or_default() {
                table.head.remove(&page);
            }
        }
    }

    /// The writer drops a page reference: the resident head if it was ever loaded, else the page is reported at once.
    pub(in crate::store) fn drop_page(&self, page: PageId) -> Option<Ref> {
        let mut table = lock(&self.table);
        let head = table.head.get(&page).copied();
        if head.is_none() {
            table.freed.push(page);
        }
        head
    }

    pub(super) fn resident(&self, arena: &Arena, at: Ref) -> Ref {
        let Some(page) = at.page() else { return at };
        if let Some(head) = self.head_of(page) {
            return head;
        }
        let mut heap = lock(&self.loader);
        if let Some(head) = self.head_of(page) {
            return head;
        }
        let loaded = match self.source.get() {
            Some(source) => source.load(page, arena, &mut heap),
            None => Err(PageError::Missing(page)),
        };
        match loaded {
            Ok(head) => {
                self.mark(arena.node(head), page, SubBatch::ZERO);
                head
            }
            Err(error) => {
                drop(heap);
                let _ = self.fault.set(error);
                std::panic::resume_unwind(Box::new(PageFault))
            }
        }
    }
}
