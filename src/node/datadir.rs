//! # The data directory of one node
//!
//! Owns its identity file (`LOOK`) and its lock. A directory that is foreign, locked, of another node or of a newer format
//! is refused with what to do next; nothing in it is touched before it has been recognised.

use crate::base::{Epoch, NodeId};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Format of the directory as a whole; raised when an older version could not read it.
pub const DIRECTORY_FORMAT: u32 = 1;
const IDENTITY: &str = "LOOK";
/// Lines that are added to it.
const REMOVED: &str = "removed";
const LEFT: &str = "left";

/// What to do about damage in a data directory.
pub const REPAIR: &str = "Restore a backup (look restore); or, in a cluster, LOOK.CLUSTER REMOVE this node on another one and start it with \
    an empty --dir and --join";

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
    #[error(
        "the data in {0} is of node {1}, which its cluster has dismissed; choose an empty --dir and --join to come back as a new node"
    )]
    Dismissed(PathBuf, NodeId),
    #[error("{0} is no Look data directory: it has no file LOOK; check the path")]
    Absent(PathBuf),
    #[error("the identity file {0}/LOOK is damaged: {1}. {REPAIR}")]
    Damaged(PathBuf, String),
}

/// Whose data a directory holds, as its identity file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub node: NodeId,
    /// The founding configuration, or [`JOINED`].
    pub cluster: String,
    /// The cluster's name among peers.
    pub cluster_id: u64,
    /// Random name of this directory.
    pub directory: u64,
}

/// Stands where founders have their configuration.
pub const JOINED: &str = "joined";
const STOPS_AT: &str = ", stops at epoch ";

impl Owner {
    pub fn joined(&self) -> bool {
        self.cluster.starts_with(JOINED)
    }

    /// What stands for the cluster of a node that joined one.
    pub fn joining(stop_at: Option<Epoch>) -> String {
        stop_at.map_or_else(|| JOINED.into(), |epoch| format!("{JOINED}{STOPS_AT}{epoch}"))
    }

    /// Of an export: its epoch.
    pub fn stop_at(&self) -> Option<Epoch> {
        self.cluster.strip_prefix(JOINED)?.strip_prefix(STOPS_AT)?.parse().ok().map(Epoch)
    }

    fn to_text(&self) -> String {
        let Owner { node, cluster, cluster_id, directory } = self;
        sealed(format!(
            "look-data-format {DIRECTORY_FORMAT}\nnode-id {node}\ncluster {cluster}\ncluster-id {cluster_id}\ndirectory {directory}\n"
        ))
    }

    /// `cluster`: the founding configuration that this start describes.
    pub fn check(&self, path: &Path, node: NodeId, cluster: &str) -> Result<(), DataDirError> {
        match () {
            () if self.node != node => Err(DataDirError::OtherNode(path.into(), self.node, node)),
            () if self.cluster != cluster => {
                Err(DataDirError::OtherCluster(path.into(), self.cluster.clone(), cluster.into()))
            }
            () => Ok(()),
        }
    }
}

/// An opened, locked data directory; the lock lasts as long as the value.
pub struct DataDir {
    path: PathBuf,
    lock: File,
    owner: Option<Owner>,
}

impl DataDir {
    /// Opens or creates `path`. A new one has no owner until [`DataDir::claim`].
    pub fn open(path: &Path) -> Result<DataDir, DataDirError> {
        let io = io_error(path);
        fs::create_dir_all(path).map_err(&io)?;
        let identity = path.join(IDENTITY);
        let known = identity.try_exists().map_err(&io)?;
        if !known && fs::read_dir(path).map_err(&io)?.next().is_some() {
            return Err(DataDirError::Foreign(path.into()));
        }
        let lock = File::options().read(true).append(true).create(true).open(&identity).map_err(&io)?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| DataDirError::Locked(path.into()))?;
        // What a process that died here named and did not sync
        File::open(path).and_then(|d| d.sync_all()).map_err(&io)?;
        let text = text_of(path)?;
        // Empty: new, or stopped between creating and writing the file; nothing else was written before it
        let owner = (!text.is_empty()).then(|| owner_of(path, &text)).transpose()?;
        Ok(DataDir { path: path.into(), lock, owner })
    }

    pub fn owner(&self) -> Option<&Owner> {
        self.owner.as_ref()
    }

    /// Gives a new directory its owner.
    pub fn claim(&mut self, owner: Owner) -> Result<Owner, DataDirError> {
        self.append(&owner.to_text())?;
        self.owner = Some(owner.clone());
        Ok(owner)
    }

    /// The cluster has dismissed this node: the directory never serves again.
    pub fn dismiss(&self) -> Result<(), DataDirError> {
        self.mark(REMOVED)
    }

    /// An export is no member of its cluster any more.
    pub fn leave(&self) -> Result<(), DataDirError> {
        self.mark(LEFT)
    }

    /// Whether [`DataDir::leave`] was called, in this process or an earlier one.
    pub fn left(&self) -> Result<bool, DataDirError> {
        let text = text_of(&self.path)?;
        Ok(Fields { path: &self.path, text: &text }.text(LEFT).is_ok())
    }

    fn mark(&self, word: &str) -> Result<(), DataDirError> {
        // A seal covers everything before it, the older seal too
        let text = text_of(&self.path)?;
        let whole = sealed(format!("{text}{word} yes\n"));
        self.append(&whole[text.len()..])
    }

    fn append(&self, text: &str) -> Result<(), DataDirError> {
        let io = io_error(&self.path);
        (&self.lock).write_all(text.as_bytes()).and_then(|()| self.lock.sync_all()).map_err(&io)?;
        File::open(&self.path).and_then(|d| d.sync_all()).map_err(&io)
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
        let text = text_of(path)?;
        let fields = Fields { path, text: &text };
        fields.check_format()?;
        let (node, cluster) = (NodeId(fields.number("node-id")?), fields.text("cluster")?.to_owned());
        Ok((DataDir { path: path.into(), lock, owner: None }, node, cluster))
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

fn io_error(path: &Path) -> impl Fn(io::Error) -> DataDirError {
    move |e| match e.kind() {
        io::ErrorKind::StorageFull => DataDirError::Full(path.into()),
        _ => DataDirError::Io(path.into(), e),
    }
}

/// What an identity file says.
fn text_of(path: &Path) -> Result<String, DataDirError> {
    fs::read_to_string(path.join(IDENTITY)).map_err(|e| match e.kind() {
        io::ErrorKind::InvalidData => DataDirError::Damaged(path.into(), "not text".into()),
        _ => io_error(path)(e),
    })
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

fn owner_of(path: &Path, text: &str) -> Result<Owner, DataDirError> {
    let fields = Fields { path, text };
    fields.check_format()?;
    let node = NodeId(fields.number("node-id")?);
    if fields.text(REMOVED).is_ok() {
        return Err(DataDirError::Dismissed(path.into(), node));
    }
    let (cluster_id, directory) = (fields.number("cluster-id")?, fields.number("directory")?);
    Ok(Owner { node, cluster: fields.text("cluster")?.into(), cluster_id, directory })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(node: u64, cluster: &str) -> Owner {
        Owner { node: NodeId(node), cluster: cluster.into(), cluster_id: 77, directory: 99 }
    }

    #[test]
    fn a_directory_opens_again_only_for_its_own_node_and_format() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        let mut held = DataDir::open(&path).unwrap();
        assert_eq!(held.owner(), None);
        held.claim(owner(1, "alone")).unwrap();
        assert!(matches!(DataDir::open(&path), Err(DataDirError::Locked(_))));
        drop(held);
        let known = DataDir::open(&path).unwrap().owner().cloned().unwrap();
        assert_eq!(known, owner(1, "alone"));
        known.check(&path, NodeId(1), "alone").unwrap();
        assert!(matches!(known.check(&path, NodeId(2), "alone"), Err(DataDirError::OtherNode(..))));
        assert!(matches!(known.check(&path, NodeId(1), "1=a"), Err(DataDirError::OtherCluster(..))));
        fs::write(path.join(IDENTITY), "look-data-format 99\nnode-id 1\ncluster alone\n").unwrap();
        assert!(matches!(DataDir::open(&path), Err(DataDirError::Newer(_, 99))));
        fs::write(path.join(IDENTITY), "look-data-format 1\n").unwrap();
        assert!(matches!(DataDir::open(&path), Err(DataDirError::Damaged(..))));
    }

    #[test]
    fn a_dismissed_directory_opens_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let mut data = DataDir::open(dir.path()).unwrap();
        data.claim(owner(3, "alone")).unwrap();
        data.dismiss().unwrap();
        drop(data);
        assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::Dismissed(_, NodeId(3)))));
    }

    #[test]
    fn every_bit_of_the_identity_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        DataDir::open(&path).unwrap().claim(owner(1, "alone")).unwrap();
        let good = fs::read(path.join(IDENTITY)).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(path.join(IDENTITY), bad).unwrap();
            assert!(DataDir::open(&path).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_foreign_directory_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("photo.jpg"), "x").unwrap();
        assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::Foreign(_))));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
