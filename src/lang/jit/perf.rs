//! # perf: names for profilers
//!
//! `/tmp/perf-PID.map` in the form that `perf report` reads: start and length in hexadecimal, then the name. Off unless
//! asked for; each code epoch appends its own lines.

use super::CodeBuffer;
use std::io::Write;

/// Appends one line a command. The file is only ever opened as a regular file of ours: a link that somebody else planted
/// in the shared directory is refused.
pub fn write_perf_map<'a>(buffer: &CodeBuffer, names: impl IntoIterator<Item = &'a str>) -> std::io::Result<()> {
    use rustix::fs::{Mode, OFlags};
    let path = format!("/tmp/perf-{}.map", std::process::id());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = std::fs::File::from(rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))?);
    let mut lines = String::new();
    for (which, name) in names.into_iter().take(buffer.entries.len()).enumerate() {
        let code = buffer.code(which);
        lines.push_str(&format!("{:x} {:x} look::{name}\n", code.as_ptr() as usize, code.len()));
    }
    file.write_all(lines.as_bytes())
}
