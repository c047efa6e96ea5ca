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
    #[error(
        "the data in {0} is of node {1}, which its cluster has dismissed; choose an empty --dir and --join to come back as a new node"
    )]
    Dismissed(PathBuf, NodeId),
    #[error("the identity file {0}/LOOK is damaged: {1}; restore it from a backup")]
    Damaged(PathBuf, String),
}

/// Whose data a directory holds, as its identity file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub node: NodeId,
    /// The founding configuration, or [`JOINED`].
    pub cluster: String,
    /// The cluster's name among peers. A directory of an older version does not say: it follows from the founding configuration.
    pub cluster_id: Option<u64>,
    /// Random name of this directory. 0: an older version made it.
    pub directory: u64,
}

/// Stands where founders have their configuration.
pub const JOINED: &str = "joined";

impl Owner {
    pub fn joined(&self) -> bool {
        self.cluster == JOINED
    }

    fn to_text(&self) -> String {
        let Owner { node, cluster, cluster_id, directory } = self;
        let id = cluster_id.map(|id| format!("cluster-id {id}\n")).unwrap_or_default();
        format!("look-data-format {DIRECTORY_FORMAT}\nnode-id {node}\ncluster {cluster}\n{id}directory {directory}\n")
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
        let text = fs::read_to_string(&identity).map_err(&io)?;
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
        self.append("removed yes\n")
    }

    fn append(&self, text: &str) -> Result<(), DataDirError> {
        let io = io_error(&self.path);
        (&self.lock).write_all(text.as_bytes()).and_then(|()| self.lock.sync_all()).map_err(&io)?;
        File::open(&self.path).and_then(|d| d.sync_all()).map_err(&io)
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

    /// A line that older versions do not write.
    fn newer_number(&self, name: &str) -> Result<Option<u64>, DataDirError> {
        self.text(name).is_ok().then(|| self.number(name)).transpose()
    }

    fn check_format(&self) -> Result<(), DataDirError> {
        let format = self.number("look-data-format")?;
        match format > DIRECTORY_FORMAT.into() {
            true => Err(DataDirError::Newer(self.path.into(), format as u32)),
            false => Ok(()),
        }
    }
}

fn owner_of(path: &Path, text: &str) -> Result<Owner, DataDirError> {
    let fields = Fields { path, text };
    fields.check_format()?;
    let node = NodeId(fields.number("node-id")?);
    if fields.text("removed").is_ok() {
        return Err(DataDirError::Dismissed(path.into(), node));
    }
    Ok(Owner {
        node,
        cluster: fields.text("cluster")?.into(),
        cluster_id: fields.newer_number("cluster-id")?,
        directory: fields.newer_number("directory")?.unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(node: u64, cluster: &str) -> Owner {
        Owner { node: NodeId(node), cluster: cluster.into(), cluster_id: Some(77), directory: 99 }
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
    fn a_directory_of_an_older_version_opens_and_a_dismissed_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(IDENTITY), "look-data-format 1\nnode-id 3\ncluster alone\n").unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let old = Owner { cluster_id: None, directory: 0, ..owner(3, "alone") };
        assert_eq!(data.owner(), Some(&old));
        data.dismiss().unwrap();
        drop(data);
        assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::Dismissed(_, NodeId(3)))));
    }

    #[test]
    fn a_foreign_directory_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("photo.jpg"), "x").unwrap();
        assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::Foreign(_))));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
