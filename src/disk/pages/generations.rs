//! Generations of the page store: a version received from another node replaces the whole store at once.
//!
//! ```text
//! DIR/pages-1, DIR/pages-2, ...    page stores; one of them counts
//! DIR/CURRENT                      its number, as text, with a checksum: "3 1a2b3c4d\n"
//! DIR/pages-1/lineage              a random name of this store's page numbers, in the same form
//! ```
//! Pages keep the ids of the node they come from, and would collide with those that are here. So they go into a directory
//! of their own, which counts from the moment in which `CURRENT` is renamed into place.

use super::scratch::Scratch;
use super::{FjallPages, PageStore, PagesError, PagesOptions, crc};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a node's page stores are: one counts, and a received one can take its place. Memory has its own
/// ([`super::memory::MemoryGenerations`]).
pub trait PageStores: Send + Sync {
    /// Opens the page store that counts, and removes what others left behind. Creates the first if there is none.
    fn open(&self) -> Result<Arc<dyn PageStore>, PagesError>;
    /// An empty page store beside the one that counts.
    fn fresh(&self) -> Result<Fresh, PagesError>;
    /// Makes a generation count from now on, also after a crash. The one before goes at the next opening.
    fn adopt(&self, fresh: Fresh) -> Result<Arc<dyn PageStore>, PagesError>;
}

/// The directory that holds all generations. One process at a time uses it.
pub struct Generations {
    directory: PathBuf,
    options: PagesOptions,
}

/// A generation that does not count yet.
#[derive(Clone)]
pub struct Fresh {
    pub pages: Arc<dyn PageStore>,
    pub(super) number: u64,
}

impl Generations {
    pub fn new(directory: &Path, options: PagesOptions) -> Result<Generations, PagesError> {
        fs::create_dir_all(directory)?;
        // A process that died may have named what counts now, and not have synced the name
        File::open(directory)?.sync_all()?;
        Ok(Generations { directory: directory.to_path_buf(), options })
    }

    /// The page store in `directory` that counts, to look at: nothing in it is changed. `scratch` holds copies of its small files.
    pub fn inspect(directory: &Path, options: PagesOptions, scratch: &Path) -> Result<Scratch, PagesError> {
        let all = Generations { directory: directory.to_path_buf(), options };
        Scratch::open(&all.path(all.current()?), &all.options, scratch)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("pages-{number}"))
    }

    /// Numbers of the generations that exist, ascending.
    fn numbers(&self) -> Result<Vec<u64>, PagesError> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            numbers.extend(name.to_str().and_then(|name| name.strip_prefix("pages-")?.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn current(&self) -> Result<u64, PagesError> {
        let path = self.directory.join("CURRENT");
        let damaged = |what| PagesError::Current { path: path.clone(), what };
        match fs::read_to_string(&path) {
            Ok(text) => parse(&text).ok_or(damaged("checksum does not match")),
            Err(error) if error.kind() == ErrorKind::InvalidData => Err(damaged("not text")),
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            // A first start that was interrupted leaves the first generation without the file; nothing else may.
            Err(_) => match self.numbers()?.as_slice() {
                [] | [1] => Ok(1),
                _ => Err(damaged("missing, but there are page stores")),
            },
        }
    }

    fn point_at(&self, number: u64) -> Result<(), PagesError> {
        write_durably(&self.directory.join("CURRENT"), &File::open(&self.directory)?, &text(number))
    }
}

impl PageStores for Generations {
    fn open(&self) -> Result<Arc<dyn PageStore>, PagesError> {
        let current = self.current()?;
        for number in self.numbers()?.into_iter().filter(|number| *number != current) {
            fs::remove_dir_all(self.path(number))?;
        }
        let pages = FjallPages::open(&self.path(current), &self.options)?;
        self.point_at(current)?;
        Ok(Arc::new(pages))
    }

    /// What earlier transfers left unfinished goes; what this process replaced stays until the next opening, because versions in
    /// memory may still read it.
    fn fresh(&self) -> Result<Fresh, PagesError> {
        let (current, numbers) = (self.current()?, self.numbers()?);
        for number in numbers.iter().filter(|number| **number > current) {
            fs::remove_dir_all(self.path(*number))?;
        }
        let number = numbers.last().map_or(1, |last| last + 1);
        Ok(Fresh { pages: Arc::new(FjallPages::open(&self.path(number), &self.options)?), number })
    }

    fn adopt(&self, fresh: Fresh) -> Result<Arc<dyn PageStore>, PagesError> {
        self.point_at(fresh.number)?;
        Ok(fresh.pages)
    }
}

/// The random name of the store in `path`, given when it is first opened.
pub(super) fn lineage(path: &Path, directory: &File) -> Result<u64, PagesError> {
    let file = path.join("lineage");
    let damaged = |what| PagesError::Lineage { path: file.clone(), what };
    match fs::read_to_string(&file) {
        Ok(read) => parse(&read).ok_or(damaged("checksum does not match")),
        Err(error) if error.kind() == ErrorKind::InvalidData => Err(damaged("not text")),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        Err(_) => {
            let name = crate::base::random();
            write_durably(&file, directory, &text(name))?;
            Ok(name)
        }
    }
}

/// Replaces a small file, whole or not at all.
fn write_durably(path: &Path, directory: &File, text: &str) -> Result<(), PagesError> {
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    Ok(directory.sync_all()?)
}

fn text(number: u64) -> String {
    format!("{number} {:08x}\n", crc(number, b"generation"))
}

fn parse(read: &str) -> Option<u64> {
    let number = read.split(' ').next()?.parse().ok()?;
    (text(number) == read).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::PageId;

    fn generations(path: &Path) -> Generations {
        Generations::new(path, PagesOptions { cache_bytes: 1 << 20, worker_threads: 1, seal: None }).unwrap()
    }

    #[test]
    fn a_received_store_counts_only_once_it_is_adopted() {
        let dir = tempfile::tempdir().unwrap();
        let all = generations(dir.path());
        all.open().unwrap().commit_root(1, b"old").unwrap();
        let fresh = all.fresh().unwrap();
        fresh.pages.write(&[(PageId(9), vec![1])]).unwrap();
        fresh.pages.commit_root(7, b"new").unwrap();
        drop(fresh);
        assert_eq!(all.open().unwrap().roots().unwrap(), [1]);
        let fresh = all.fresh().unwrap();
        assert!(fresh.pages.roots().unwrap().is_empty(), "what an interrupted transfer left is gone");
        fresh.pages.commit_root(7, b"new").unwrap();
        drop(all.adopt(fresh).unwrap());
        assert_eq!(all.open().unwrap().roots().unwrap(), [7]);
        assert_eq!(all.numbers().unwrap(), [2]);
    }

    #[test]
    fn a_damaged_or_lost_pointer_is_an_error_and_not_an_empty_store() {
        let dir = tempfile::tempdir().unwrap();
        let all = generations(dir.path());
        drop(all.open().unwrap());
        let fresh = all.fresh().unwrap();
        drop(all.adopt(fresh).unwrap());
        let path = dir.path().join("CURRENT");
        let good = fs::read(&path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, bad).unwrap();
            assert!(matches!(all.open().err(), Some(PagesError::Current { .. })), "bit {bit}");
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(all.open().err(), Some(PagesError::Current { .. })));
    }
}
