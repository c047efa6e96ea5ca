//! A page store opened without changing a byte of it.
//!
//! fjall has no way to open for reading only: it replays, truncates and rotates its journals. So the store is opened in a scratch
//! directory that holds copies of its small files (journals, manifests; bounded by the journals' size) and links to the large ones
//! (tables and blobs), which fjall writes once, under numbers of their own, and only ever reads and unlinks.

use super::{FjallPages, PagesError, PagesOptions};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Names of the directories in which fjall keeps files that never change.
const IMMUTABLE: [&str; 2] = ["tables", "blobs"];

/// An opened copy; the scratch directory goes with it.
pub struct Scratch {
    pages: Option<FjallPages>,
    directory: PathBuf,
}

impl Scratch {
    /// Opens the page store in `path`, with what has to be copied in a fresh directory below `scratch`.
    pub fn open(path: &Path, options: &PagesOptions, scratch: &Path) -> Result<Scratch, PagesError> {
        let directory = scratch.join(format!("look-verify-{}", std::process::id()));
        fs::create_dir(&directory)?;
        let mut opened = Scratch { pages: None, directory };
        mirror(path, &opened.directory, false)?;
        opened.pages = Some(FjallPages::open(&opened.directory, options)?);
        Ok(opened)
    }

    pub fn pages(&self) -> Option<&FjallPages> {
        self.pages.as_ref()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.pages = None;
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            tracing::warn!("cannot remove {}: {error}", self.directory.display());
        }
    }
}

fn mirror(from: &Path, to: &Path, immutable: bool) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            let links = IMMUTABLE.iter().any(|name| entry.file_name() == *name);
            mirror(&entry.path(), &target, links)?;
        } else if immutable {
            std::os::unix::fs::symlink(fs::canonicalize(entry.path())?, target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
