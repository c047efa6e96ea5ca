//! A disk in memory with faults: after a power cut only what was made durable is left, and of the write in flight a random
//! part of its sectors. Used by crash tests; shares no code with the real one.

use super::{Disk, DiskFile};
use crate::base::mix64;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

const SECTOR: usize = 512;

/// What a file holds, as long as a name or somebody who opened it holds the file: every write of this disk is durable or lost.
type Inode = Arc<Mutex<Vec<u8>>>;
type Names = BTreeMap<String, Inode>;

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(|e| e.into_inner())
}

#[derive(Default)]
struct World {
    names: Names,
    durable_names: Names,
    /// Changes of the disk so far.
    ops: u64,
    cut_at: Option<u64>,
    fail_at: Option<u64>,
    capacity: Option<u64>,
    dead: bool,
    random: u64,
}

/// Clones share the disk.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<World>>);

fn power_is_off() -> io::Error {
    io::Error::other("power is off")
}

/// What becomes of one change.
enum Fate {
    Done,
    Cut,
    Fails,
}

impl World {
    fn step(&mut self) -> io::Result<Fate> {
        if self.dead {
            return Err(power_is_off());
        }
        self.ops += 1;
        if self.cut_at == Some(self.ops) {
            self.dead = true;
            return Ok(Fate::Cut);
        }
        Ok(if self.fail_at == Some(self.ops) { Fate::Fails } else { Fate::Done })
    }

    fn coin(&mut self) -> bool {
        self.random = mix64(self.random.wrapping_add(0x9e37_79b9_7f4a_7c15));
        self.random & 1 == 0
    }

    fn used(&self) -> u64 {
        self.names.values().map(|inode| lock(inode).len() as u64).sum()
    }

    /// A change of the directory.
    fn rename_step(&mut self, change: impl FnOnce(&mut Names)) -> io::Result<()> {
        match self.step()? {
            Fate::Done => change(&mut self.names),
            Fate::Fails => return Err(io::Error::other("injected")),
            Fate::Cut => {
                if self.coin() {
                    change(&mut self.names);
                }
                return Err(power_is_off());
            }
        }
        Ok(())
    }
}

impl SimDisk {
    pub fn new(seed: u64) -> SimDisk {
        let disk = SimDisk::default();
        disk.world().random = seed;
        disk
    }

    fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.0)
    }

    /// Changes (writes, creations, renames, syncs of the directory) so far.
    pub fn ops(&self) -> u64 {
        self.world().ops
    }
    /// The power goes at change number `op`, in the middle of it.
    pub fn cut_at(&self, op: u64) {
        self.world().cut_at = Some(op);
    }
    /// Change number `op` reports an I/O error.
    pub fn fail_at(&self, op: u64) {
        self.world().fail_at = Some(op);
    }
    /// Files may hold this many bytes together.
    pub fn set_capacity(&self, bytes: u64) {
        self.world().capacity = Some(bytes);
    }

    /// The power goes now, if it has not gone, and comes back: names not synced may be lost, together.
    pub fn restart(&self) {
        let mut world = self.world();
        if world.coin() {
            world.names = world.durable_names.clone();
        } else {
            world.durable_names = world.names.clone();
        }
        (world.dead, world.cut_at, world.fail_at) = (false, None, None);
    }

    /// No fault to come is planned any more.
    pub fn restart_faults(&self) {
        let mut world = self.world();
        (world.cut_at, world.fail_at, world.capacity) = (None, None, None);
    }

    /// A copy with a life of its own.
    pub fn fork(&self) -> SimDisk {
        let w = self.world();
        let mut copies = BTreeMap::new();
        let mut copy = |(name, inode): (&String, &Inode)| {
            let fresh = || Arc::new(Mutex::new(lock(inode).clone()));
            (name.clone(), copies.entry(Arc::as_ptr(inode)).or_insert_with(fresh).clone())
        };
        let (names, durable_names) =
            (w.names.iter().map(&mut copy).collect(), w.durable_names.iter().map(copy).collect());
        SimDisk(Arc::new(Mutex::new(World { names, durable_names, random: w.random, ..World::default() })))
    }

    /// Turns one bit of a file at rest.
    pub fn flip(&self, name: &str, bit: u64) {
        if let Some(inode) = self.world().names.get(name) {
            lock(inode)[(bit / 8) as usize] ^= 1 << (bit % 8);
        }
    }

    /// Makes bytes of a file zeros, as if they had never been written.
    pub fn unwrite(&self, name: &str, from: usize, len: usize) {
        if let Some(inode) = self.world().names.get(name) {
            lock(inode)[from..from + len].fill(0);
        }
    }

    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        self.world().names.get(name).map(|inode| lock(inode).clone())
    }
}

fn not_found(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, name.to_string())
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.world().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let inode = self.world().names.get(name).ok_or_else(|| not_found(name))?.clone();
        Ok(Box::new(SimFile { disk: self.clone(), inode }))
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Box<dyn DiskFile>> {
        let mut world = self.world();
        if world.capacity.is_some_and(|c| world.used() + len > c) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "disk full"));
        }
        let inode = Inode::new(Mutex::new(vec![0; len as usize]));
        world.rename_step(|names| {
            names.insert(name.into(), inode.clone());
        })?;
        Ok(Box::new(SimFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.world();
        let inode = world.names.get(from).ok_or_else(|| not_found(from))?.clone();
        world.rename_step(|names| {
            names.remove(from);
            names.insert(to.into(), inode);
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.world().rename_step(|names| {
            names.remove(name);
        })
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut world = self.world();
        match world.step()? {
            Fate::Done => world.durable_names = world.names.clone(),
            Fate::Fails => return Err(io::Error::other("injected")),
            Fate::Cut => return Err(power_is_off()),
        }
        Ok(())
    }
}

struct SimFile {
    disk: SimDisk,
    inode: Inode,
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.inode).len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let inode = lock(&self.inode);
        let from = inode.get(offset as usize..offset as usize + buf.len());
        buf.copy_from_slice(from.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn write_durable(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        let fate = world.step()?;
        let mut inode = lock(&self.inode);
        for (i, sector) in buf.chunks(SECTOR).enumerate() {
            let at = offset as usize + i * SECTOR;
            if matches!(fate, Fate::Done) || world.coin() {
                inode[at..at + sector.len()].copy_from_slice(sector);
            }
        }
        match fate {
            Fate::Done => Ok(()),
            Fate::Cut => Err(power_is_off()),
            Fate::Fails => Err(io::Error::other("injected")),
        }
    }

    fn sync(&self) -> io::Result<()> {
        if self.disk.world().dead { Err(power_is_off()) } else { Ok(()) }
    }
}
