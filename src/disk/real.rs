//! The machine's own files: `O_DIRECT | O_DSYNC` where the file system can, `fdatasync` where it cannot.

use super::{BLOCK, Disk, DiskFile};
use rustix::fs::OFlags;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A directory of the machine's file system.
pub struct RealDisk {
    dir: PathBuf,
    access: Access,
}

#[derive(Clone, Copy, PartialEq)]
enum Access {
    Direct,
    Buffered,
    ReadOnly,
}

impl RealDisk {
    /// Opens `dir`, creating it (and its parents) if it is not there.
    pub fn open(dir: impl AsRef<Path>) -> io::Result<RealDisk> {
        let dir = dir.as_ref().to_path_buf();
        if !dir.is_dir() {
            fs::create_dir_all(&dir)?;
            if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(RealDisk { dir, access: Access::Direct })
    }

    /// The same directory without `O_DIRECT`: every durable write is a write and an `fdatasync`.
    pub fn buffered(dir: impl AsRef<Path>) -> io::Result<RealDisk> {
        Ok(RealDisk { access: Access::Buffered, ..RealDisk::open(dir)? })
    }

    /// A directory to look at: nothing in it can be changed.
    pub fn read_only(dir: impl AsRef<Path>) -> RealDisk {
        RealDisk { dir: dir.as_ref().to_path_buf(), access: Access::ReadOnly }
    }

    fn writable(&self) -> io::Result<()> {
        match self.access {
            Access::ReadOnly => Err(io::Error::new(io::ErrorKind::PermissionDenied, "opened for reading only")),
            _ => Ok(()),
        }
    }

    fn open_at(&self, path: &Path) -> io::Result<RealFile> {
        let reads = File::open(path)?;
        if self.access == Access::ReadOnly {
            // The second handle cannot write either
            return Ok(RealFile { writes: File::open(path)?, reads, direct: false });
        }
        let buffered = || OpenOptions::new().write(true).open(path);
        let (writes, direct) = match (self.access == Access::Direct).then(|| open_direct(path)) {
            Some(Ok(file)) => (file, true),
            // tmpfs and some others refuse O_DIRECT; a durable write is then a write and an fdatasync
            Some(Err(e)) if e.kind() != io::ErrorKind::InvalidInput => return Err(e),
            _ => (buffered()?, false),
        };
        Ok(RealFile { reads, writes, direct })
    }
}

fn open_direct(path: &Path) -> io::Result<File> {
    let flags = (OFlags::DIRECT | OFlags::DSYNC).bits() as i32;
    OpenOptions::new().write(true).custom_flags(flags).open(path)
}

impl Disk for RealDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.dir)?.map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(self.open_at(&self.dir.join(name))?))
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Box<dyn DiskFile>> {
        self.writable()?;
        let path = self.dir.join(name);
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
        // Real zeros, not a hole: a hole would cost block allocation and a journal commit at each first write
        let chunk = vec![0u8; 1 << 20];
        let mut at = 0;
        while at < len {
            let n = (len - at).min(chunk.len() as u64) as usize;
            file.write_all_at(&chunk[..n], at)?;
            at += n as u64;
        }
        file.sync_all()?;
        Ok(Box::new(self.open_at(&path)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.writable()?;
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.writable()?;
        fs::remove_file(self.dir.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

struct RealFile {
    reads: File,
    writes: File,
    direct: bool,
}

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.reads.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.reads.read_exact_at(buf, offset)
    }

    fn write_durable(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        debug_assert!(offset.is_multiple_of(BLOCK as u64) && buf.len().is_multiple_of(BLOCK));
        self.writes.write_all_at(buf, offset)?;
        // O_DSYNC made it durable; without it the sync is ours
        if self.direct { Ok(()) } else { self.writes.sync_data() }
    }

    fn sync(&self) -> io::Result<()> {
        self.writes.sync_data()
    }
}
