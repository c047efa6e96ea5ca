//! A disk in memory with faults: after a power cut only what was made durable is left, and of the write in flight a random
//! part of its sectors. Used by crash tests; shares no code with the real one.

use super::{Disk, DiskFile};
use crate::base::mix64;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

const SECTOR: usize = 512;

#[derive(Default)]
struct World {
    /// Contents by inode: every write of this disk is durable or lost.
    inodes: Vec<Vec<u8>>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
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
        self.names.values().map(|&i| self.inodes[i].len() as u64).sum()
    }

    /// A change of the directory.
    fn rename_step(&mut self, change: impl FnOnce(&mut BTreeMap<String, usize>)) -> io::Result<()> {
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
        self.0.lock().unwrap_or_else(|e| e.into_inner())
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

    /// A copy with a life of its own.
    pub fn fork(&self) -> SimDisk {
        let w = self.world();
        let (inodes, names, durable_names) = (w.inodes.clone(), w.names.clone(), w.durable_names.clone());
        SimDisk(Arc::new(Mutex::new(World { inodes, names, durable_names, random: w.random, ..World::default() })))
    }

    /// Turns one bit of a file at rest.
    pub fn flip(&self, name: &str, bit: u64) {
        let mut world = self.world();
        if let Some(&inode) = world.names.get(name) {
            world.inodes[inode][(bit / 8) as usize] ^= 1 << (bit % 8);
        }
    }

    /// Makes bytes of a file zeros, as if they had never been written.
    pub fn unwrite(&self, name: &str, from: usize, len: usize) {
        let mut world = self.world();
        if let Some(&inode) = world.names.get(name) {
            world.inodes[inode][from..from + len].fill(0);
        }
    }

    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let world = self.world();
        world.names.get(name).map(|&inode| world.inodes[inode].clone())
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
        let inode = *self.world().names.get(name).ok_or_else(|| not_found(name))?;
        Ok(Box::new(SimFile { disk: self.clone(), inode }))
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Box<dyn DiskFile>> {
        let inode = {
            let mut world = self.world();
            if world.capacity.is_some_and(|c| world.used() + len > c) {
                return Err(io::Error::new(io::ErrorKind::StorageFull, "disk full"));
            }
            world.inodes.push(vec![0; len as usize]);
            let inode = world.inodes.len() - 1;
            world.rename_step(|names| {
                names.insert(name.into(), inode);
            })?;
            inode
        };
        Ok(Box::new(SimFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.world();
        let inode = *world.names.get(from).ok_or_else(|| not_found(from))?;
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
    inode: usize,
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.world().inodes[self.inode].len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let world = self.disk.world();
        let from = world.inodes[self.inode].get(offset as usize..offset as usize + buf.len());
        buf.copy_from_slice(from.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn write_durable(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        let fate = world.step()?;
        for (i, sector) in buf.chunks(SECTOR).enumerate() {
            let at = offset as usize + i * SECTOR;
            if matches!(fate, Fate::Done) || world.coin() {
                let inode = self.inode;
                world.inodes[inode][at..at + sector.len()].copy_from_slice(sector);
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
