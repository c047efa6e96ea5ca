//! Threads that everybody waits for: each step of a write's way is short, and the next cannot begin before it.
//!
//! Linux lets whoever runs go on until its slice ends (a millisecond or a few) before a thread that wakes gets the processor. Where
//! others keep the processors busy, a batch would wait that long at each of its hand-overs. Since 6.12 a thread may ask for a slice
//! of its own, and with a shorter one it runs as soon as it wakes. It gets no more of the processor by that, only sooner; on a machine
//! that has nothing else to do it makes little difference. Older kernels, and sandboxes that forbid the call, leave everything as it was.
//!
//! Here because this is the lowest room that has such a thread.

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

/// The shortest that Linux grants.
const SLICE: Duration = Duration::from_micros(100);

/// Starts such a thread.
pub fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.into()).spawn(move || {
        if let Err(e) = ask_for_short_slices() {
            tracing::debug!("this thread keeps its slice: {e}");
        }
        run()
    })
}

/// For the calling thread; its policy and its nice value stay as they are.
#[cfg(target_os = "linux")]
fn ask_for_short_slices() -> io::Result<()> {
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: 0,
        sched_flags: libc::SCHED_FLAG_KEEP_POLICY as u64,
        sched_nice: rustix::process::getpriority_process(None)?,
        sched_priority: 0,
        sched_runtime: SLICE.as_nanos() as u64,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel reads `size` bytes of a structure that lives until it returns, and changes nothing but how this thread is scheduled.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
fn ask_for_short_slices() -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// This thread's slice in nanoseconds, where the kernel tells it.
    fn slice() -> Option<u64> {
        let about = std::fs::read_to_string("/proc/thread-self/sched").ok()?;
        about.lines().find(|line| line.starts_with("se.slice"))?.split(':').nth(1)?.trim().parse().ok()
    }

    #[test]
    fn the_slice_is_short_and_the_nice_value_stays() {
        let (tell, told) = mpsc::channel();
        let niced = std::thread::spawn(move || {
            let nice = rustix::process::nice(3).unwrap();
            let thread = spawn("urgent", move || {
                tell.send((slice(), rustix::process::getpriority_process(None).unwrap(), nice)).unwrap()
            });
            thread.unwrap().join().unwrap();
        });
        niced.join().unwrap();
        let (after, nice, inherited) = told.recv().unwrap();
        assert_eq!(nice, inherited);
        match after {
            Some(slice) => assert_eq!(slice, SLICE.as_nanos() as u64),
            None => println!("=== SKIPPED, NOTHING CHECKED: this kernel does not tell slices"),
        }
    }
}
