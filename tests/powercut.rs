//! Power loss: a file system on a loop device is shut down under the running server, as when the current goes
//! (`EXT4_IOC_SHUTDOWN` without a log flush: whatever was not synced is gone). Needs root and a loop device;
//! says so plainly where it can have neither.
//!
//! `LOOK_POWER_CYCLES=n` for longer runs.

mod common;

use common::server::skip;
use common::{Ledger, Random, Server, setting};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const CYCLES: u64 = 6;

/// An ext4 image behind a loop device; everything is undone when it is dropped.
struct Machine {
    dir: tempfile::TempDir,
    device: String,
    mounted: bool,
}

fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_string());
    }
    Err(format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

impl Machine {
    fn new() -> Result<Machine, String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let image = dir.path().join("disk.img");
        let file = File::create(&image).map_err(|e| e.to_string())?;
        file.set_len(4 << 30).map_err(|e| e.to_string())?;
        let image = image.display().to_string();
        run("mkfs.ext4", &["-q", "-F", &image])?;
        let device = run("losetup", &["-f", "--show", &image])?;
        let mut machine = Machine { dir, device, mounted: false };
        std::fs::create_dir(machine.mount()).map_err(|e| e.to_string())?;
        machine.power_on()?;
        Ok(machine)
    }

    fn mount(&self) -> PathBuf {
        self.dir.path().join("mount")
    }

    fn power_on(&mut self) -> Result<(), String> {
        // A long commit interval: the journal must not save by chance what nobody synced.
        run("mount", &["-t", "ext4", "-o", "commit=300", &self.device, &self.mount().display().to_string()])?;
        self.mounted = true;
        Ok(())
    }

    fn cut(&self) -> Result<(), String> {
        unsafe extern "C" {
            fn ioctl(fd: i32, request: u64, argument: *mut u32) -> i32;
        }
        const EXT4_IOC_SHUTDOWN: u64 = 0x8004_587d;
        let mut no_log_flush: u32 = 2;
        let root = File::open(self.mount()).map_err(|e| e.to_string())?;
        // SAFETY: the descriptor is open and the request reads one u32 through a valid pointer.
        let result = unsafe { ioctl(root.as_raw_fd(), EXT4_IOC_SHUTDOWN, &raw mut no_log_flush) };
        if result == 0 { Ok(()) } else { Err(format!("EXT4_IOC_SHUTDOWN: {}", std::io::Error::last_os_error())) }
    }

    /// Unmounts the dead file system and mounts it again, which replays its journal.
    fn restart(&mut self) -> Result<(), String> {
        self.power_off()?;
        self.power_on()
    }

    fn power_off(&mut self) -> Result<(), String> {
        run("umount", &[&self.mount().display().to_string()])?;
        self.mounted = false;
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.mounted {
            let _ = self.power_off();
        }
        let _ = run("losetup", &["-d", &self.device]);
    }
}

fn machine() -> Option<Machine> {
    match Machine::new() {
        Ok(machine) => Some(machine),
        Err(why) => {
            skip(&format!("no power-cut rig on this machine: {why}"));
            None
        }
    }
}

#[test]
fn acknowledged_writes_survive_power_cuts() {
    let Some(mut machine) = machine() else { return };
    let mut random = Random::new(1);
    let mut ledgers: Vec<Ledger> = (0..2).map(Ledger::new).collect();
    let mut acknowledged = 0;
    let cycles = setting("LOOK_POWER_CYCLES", CYCLES);
    let begin = std::time::Instant::now();
    for cycle in 0..=cycles {
        // The node's own directory appears in its first life: its entry in the parent must be durable as well.
        let dir = machine.mount().join("node");
        let mut server = Server::try_subject(&dir).unwrap_or_else(|why| panic!("cycle {cycle}: {why}"));
        for ledger in &mut ledgers {
            let verdict = ledger.check(&mut server.connect(), &mut random);
            verdict.unwrap_or_else(|why| panic!("after power cut {cycle}: {why}"));
        }
        if cycle == cycles {
            break;
        }
        let before: i64 = ledgers.iter().map(|l| l.acknowledged).sum();
        if cycle % 5 == 4 {
            // So that the cut may hit a checkpoint, and no start replays all that was ever written
            let _ = server.connect().line("BGSAVE");
        }
        write_through_a_cut(&machine, &mut server, &mut ledgers, &mut random)
            .unwrap_or_else(|why| panic!("cycle {cycle}: {why}"));
        acknowledged += ledgers.iter().map(|l| l.acknowledged).sum::<i64>() - before;
        drop(server);
        machine.restart().expect("the file system mounts again");
    }
    eprintln!("powercut: {cycles} cuts, {acknowledged} steps of 5 writes acknowledged, {:.0?}", begin.elapsed());
    assert!(acknowledged > cycles as i64 * 5, "INVALID: only {acknowledged} steps in {cycles} cuts");
}

fn write_through_a_cut(
    machine: &Machine,
    server: &mut Server,
    ledgers: &mut [Ledger],
    random: &mut Random,
) -> Result<(), String> {
    let powered = &AtomicBool::new(true);
    std::thread::scope(|scope| {
        let writers: Vec<_> = ledgers
            .iter_mut()
            .map(|ledger| {
                let mut connection = server.connect();
                let _ = connection.patience(Duration::from_secs(10));
                scope.spawn(move || ledger.write_while(&mut connection, 4, powered))
            })
            .collect();
        std::thread::sleep(Duration::from_millis(random.between(50, 400) as u64));
        powered.store(false, Ordering::SeqCst);
        let cut = machine.cut();
        std::thread::sleep(Duration::from_millis(50));
        server.kill9();
        let results: Result<Vec<()>, String> =
            writers.into_iter().map(|w| w.join().unwrap_or_else(|_| Err("a writer panicked".into()))).collect();
        cut.and(results.map(drop))
    })
}

/// Positive control: the same cut must lose what nobody synced, and keep what was synced. Else it proves nothing.
#[test]
fn the_rig_loses_what_was_not_synced() {
    let Some(mut machine) = machine() else { return };
    let write = |name: &str, sync: bool| {
        let mut file = File::create(machine.mount().join(name)).expect("a file");
        file.write_all(&[7; 100_000]).expect("a write");
        if sync {
            file.sync_all().expect("a sync");
            File::open(machine.mount()).and_then(|d| d.sync_all()).expect("a directory sync");
        }
    };
    write("synced", true);
    write("unsynced", false);
    machine.cut().expect("the cut");
    machine.restart().expect("the file system mounts again");
    let size = |name: &str| std::fs::metadata(machine.mount().join(name)).map_or(0, |m| m.len());
    assert_eq!(size("synced"), 100_000, "synced data must survive");
    assert_eq!(size("unsynced"), 0, "the rig does not lose unsynced data, so it proves nothing");
}
