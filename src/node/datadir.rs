//! # The data directory of one node
//!
//! Owns its identity file (`LOOK`) and its lock. A directory that is foreign, locked, of another node or of a newer format
//! is refused with what to do next; nothing in it is touched before it has been recognised.

use crate::base::NodeId;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Format of the directory as a whole; raised when an older version could not read it.
pub const DIRECTORY_FORMAT: u32 = 1;
const IDENTITY: &str = "LOOK";

#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("cannot use the data directory {0}: {1}; check the path, its owner and its permissions")]
    Io(PathBuf, io::Error),
    #[error("no space left to start in {0}; free some disk space, nothing was changed")]
    Full(PathBuf),
    #[error("{0} is not a Look data directory and is not empty; choose another --dir")]
    Foreign(PathBuf),
    #[error("the data in {0} belongs to node {1}, not to node {2}; start with --node-id {1} or choose another --dir")]
    OtherNode(PathBuf, NodeId, NodeId),
    #[error("the data in {0} belongs to another cluster ({1}); this configuration describes {2}")]
    OtherCluster(PathBuf, String, String),
    #[error("the data in {0} has format {1}; this version reads up to {DIRECTORY_FORMAT}: use a newer Look")]
    Newer(PathBuf, u32),
    #[error("{0} is in use by another process; stop it first, or choose another --dir")]
    Locked(PathBuf),
    #[error("{0} is no Look data directory: it has no file LOOK; check the path")]
    Absent(PathBuf),
    #[error("the identity file {0}/LOOK is damaged: {1}; restore it from a backup")]
    Damaged(PathBuf, String),
}

/// An opened, locked data directory; the lock lasts as long as the value.
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Opens or creates `path` for `node` of `cluster` (text that names the founding configuration).
    pub fn open(path: &Path, node: NodeId, cluster: &str) -> Result<DataDir, DataDirError> {
        let io = |e: io::Error| match e.kind() {
            io::ErrorKind::StorageFull => DataDirError::Full(path.into()),
            _ => DataDirError::Io(path.into(), e),
        };
        fs::create_dir_all(path).map_err(io)?;
        let identity = path.join(IDENTITY);
        let known = identity.try_exists().map_err(io)?;
        if !known && fs::read_dir(path).map_err(io)?.next().is_some() {
            return Err(DataDirError::Foreign(path.into()));
        }
        let lock = File::options().read(true).append(true).create(true).open(&identity).map_err(io)?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| DataDirError::Locked(path.into()))?;
        let text = fs::read_to_string(&identity).map_err(io)?;
        if text.is_empty() {
            // New, or stopped between creating and writing the file: nothing else was written before it.
            let text = sealed(format!("look-data-format {DIRECTORY_FORMAT}\nnode-id {node}\ncluster {cluster}\n"));
            (&lock).write_all(text.as_bytes()).and_then(|()| lock.sync_all()).map_err(io)?;
            File::open(path).and_then(|d| d.sync_all()).map_err(io)?;
        } else {
            check_identity(path, &text, node, cluster)?;
        }
        Ok(DataDir { path: path.into(), _lock: lock })
    }

    /// Opens a directory that nobody uses, to look at it: nothing is written. Tells node and cluster.
    pub fn inspect(path: &Path) -> Result<(DataDir, NodeId, String), DataDirError> {
        let io = |e: io::Error| DataDirError::Io(path.into(), e);
        let lock = File::open(path.join(IDENTITY)).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => DataDirError::Absent(path.into()),
            _ => io(e),
        })?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockShared)
            .map_err(|_| DataDirError::Locked(path.into()))?;
        let text = fs::read_to_string(path.join(IDENTITY)).map_err(|e| match e.kind() {
            io::ErrorKind::InvalidData => DataDirError::Damaged(path.into(), "not text".into()),
            _ => io(e),
        })?;
        let fields = Fields { path, text: &text };
        fields.check_format()?;
        let (node, cluster) = (NodeId(fields.number("node-id")?), fields.text("cluster")?.to_owned());
        Ok((DataDir { path: path.into(), _lock: lock }, node, cluster))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
    pub fn log_dir(&self) -> PathBuf {
        self.path.join("log")
    }
    pub fn pages_dir(&self) -> PathBuf {
        self.path.join("pages")
    }
}

/// The text with a last line that holds its checksum.
fn sealed(text: String) -> String {
    let sum = crate::disk::crc32c(text.as_bytes());
    format!("{text}crc32c {sum:08x}\n")
}

/// The lines of an identity file.
struct Fields<'a> {
    path: &'a Path,
    text: &'a str,
}

impl<'a> Fields<'a> {
    fn text(&self, name: &str) -> Result<&'a str, DataDirError> {
        let value = self.text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
        value.ok_or_else(|| DataDirError::Damaged(self.path.into(), format!("no line '{name}'")))
    }

    fn number(&self, name: &str) -> Result<u64, DataDirError> {
        let damaged = |_| DataDirError::Damaged(self.path.into(), format!("'{name}' is no number"));
        self.text(name)?.parse::<u64>().map_err(damaged)
    }

    fn check_format(&self) -> Result<(), DataDirError> {
        let format = self.number("look-data-format")?;
        if format > DIRECTORY_FORMAT.into() {
            return Err(DataDirError::Newer(self.path.into(), format as u32));
        }
        let body = self.text.rfind("crc32c ").map(|at| &self.text[..at]);
        match body.is_some_and(|body| sealed(body.to_owned()) == self.text) {
            true => Ok(()),
            false => Err(DataDirError::Damaged(self.path.into(), "its checksum does not match".into())),
        }
    }
}

fn check_identity(path: &Path, text: &str, node: NodeId, cluster: &str) -> Result<(), DataDirError> {
    let fields = Fields { path, text };
    fields.check_format()?;
    let owner = NodeId(fields.number("node-id")?);
    if owner != node {
        return Err(DataDirError::OtherNode(path.into(), owner, node));
    }
    let founded = fields.text("cluster")?;
    if founded != cluster {
        return Err(DataDirError::OtherCluster(path.into(), founded.into(), cluster.into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_opens_again_only_for_its_own_node_and_format() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        drop(DataDir::open(&path, NodeId(1), "alone").unwrap());
        let held = DataDir::open(&path, NodeId(1), "alone").unwrap();
        assert!(matches!(DataDir::open(&path, NodeId(1), "alone"), Err(DataDirError::Locked(_))));
        drop(held);
        assert!(matches!(DataDir::open(&path, NodeId(2), "alone"), Err(DataDirError::OtherNode(..))));
        assert!(matches!(DataDir::open(&path, NodeId(1), "1=a"), Err(DataDirError::OtherCluster(..))));
        fs::write(path.join(IDENTITY), "look-data-format 99\nnode-id 1\ncluster alone\n").unwrap();
        assert!(matches!(DataDir::open(&path, NodeId(1), "alone"), Err(DataDirError::Newer(_, 99))));
        fs::write(path.join(IDENTITY), "look-data-format 1\n").unwrap();
        assert!(matches!(DataDir::open(&path, NodeId(1), "alone"), Err(DataDirError::Damaged(..))));
    }

    #[test]
    fn every_bit_of_the_identity_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        drop(DataDir::open(&path, NodeId(1), "alone").unwrap());
        let good = fs::read(path.join(IDENTITY)).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(path.join(IDENTITY), bad).unwrap();
            assert!(DataDir::open(&path, NodeId(1), "alone").is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_foreign_directory_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("photo.jpg"), "x").unwrap();
        assert!(matches!(DataDir::open(dir.path(), NodeId(1), "alone"), Err(DataDirError::Foreign(_))));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
