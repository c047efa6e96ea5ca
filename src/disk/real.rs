//! The machine's own files: `O_DIRECT | O_DSYNC` where the file system can, `fdatasync` where it cannot.

use super::{AlignedBuf, BLOCK, Disk, DiskFile};
use rustix::fs::OFlags;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Zeros are written in pieces of this size: a write of the log waits for one at most.
const FILL_BYTES: usize = 256 << 10;

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
        let (writes, direct) =
            match (self.access == Access::Direct).then(|| open_with(path, OFlags::DIRECT | OFlags::DSYNC)) {
                Some(Ok(file)) => (file, true),
                // tmpfs and some others refuse O_DIRECT; a durable write is then a write and an fdatasync
                Some(Err(e)) if e.kind() != io::ErrorKind::InvalidInput => return Err(e),
                _ => (buffered()?, false),
            };
        Ok(RealFile { reads, writes, direct })
    }
}

fn open_with(path: &Path, flags: OFlags) -> io::Result<File> {
    OpenOptions::new().write(true).custom_flags(flags.bits() as i32).open(path)
}

/// Writes `len` zeros. Real ones, not a hole: a hole would cost block allocation and a journal commit at each first write.
fn fill(file: &File, len: u64) -> io::Result<()> {
    let mut zeros = AlignedBuf::with_capacity(FILL_BYTES);
    zeros.extend(&vec![0; FILL_BYTES]);
    let mut at = 0;
    while at < len {
        let n = (len - at).min(FILL_BYTES as u64) as usize;
        file.write_all_at(&zeros.as_slice()[..n], at)?;
        at += n as u64;
    }
    Ok(())
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
        let made = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
        // Past the page cache where that is possible: no copy, and no burst of writes behind the log's back
        let whole_blocks = len.is_multiple_of(BLOCK as u64);
        let direct = (self.access == Access::Direct && whole_blocks).then(|| open_with(&path, OFlags::DIRECT));
        let direct = direct.and_then(Result::ok);
        fill(direct.as_ref().unwrap_or(&made), len)?;
        made.sync_all()?;
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
