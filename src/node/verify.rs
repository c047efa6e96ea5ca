//! # `look verify DIR`: is everything that was durable still there, and itself?
//!
//! Reads every checksum of a data directory that no process uses, or of a backup, and never writes to it. Names what is damaged and what to do next.

use super::backup;
use super::datadir::DataDir;
use super::encryption;
use super::keeper::frontier_of;
use crate::disk::RealDisk;
use crate::disk::pages::PagesOptions;
use crate::disk::pages::generations::Generations;
use crate::disk::seal::{Keys, Sealer};
use crate::disk::verify::{self as log, LogChecked};
use crate::store::RootRecord;
use crate::store::verify::{self as pages, PagesChecked};
use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

const AFTER_LOG: &str = "in a cluster start this node with an empty directory, so that it catches up from its peers; a node alone: \
                         restore the newest backup into a new directory (look restore)";
const AFTER_PAGES: &str = "while the log still holds everything behind an older checkpoint nothing is lost, but only a new directory is \
                           sound: in a cluster start this node empty, a node alone: restore the newest backup (look restore)";
const AFTER_MARK: &str = "the other copy holds; the next start writes both again";

/// What was found. Lines about sound parts go to standard output as they come, damage too.
#[derive(Default)]
pub struct Report {
    damaged: u64,
}

impl Report {
    pub fn line(&self, part: &str, text: impl Display) {
        println!("{part:<12}{text}");
    }

    pub fn damage(&mut self, what: impl Display, next: &str) {
        self.damaged += 1;
        println!("DAMAGED     {what}");
        println!("            next: {next}");
    }

    /// The verdict, and the exit code that says the same.
    pub fn end(self) -> ExitCode {
        match self.damaged {
            0 => {
                println!("OK: everything is there and is itself");
                ExitCode::SUCCESS
            }
            n => {
                println!("NOT OK: {n} damaged");
                ExitCode::FAILURE
            }
        }
    }
}

/// Tells on standard error how far a long check is, at every tenth.
pub fn progress(what: &'static str) -> impl FnMut(usize, usize) {
    let mut told = 0;
    move |done, all| {
        let tenth = done * 10 / all.max(1);
        if tenth > told {
            told = tenth;
            eprintln!("{what}: {done} of {all}");
        }
    }
}

pub fn bytes(n: u64) -> String {
    match n {
        0..10_000 => format!("{n} bytes"),
        10_000..10_000_000 => format!("{} kB", n / 1000),
        _ => format!("{} MB", n / 1_000_000),
    }
}

/// Checks `dir`. The exit code: 0 sound, 1 damaged or not to be read.
pub fn run(dir: &Path, key_file: Option<&Path>) -> ExitCode {
    let mut report = Report::default();
    let read = match dir.join("BACKUP").exists() {
        true => check_backup(dir, key_file, &mut report),
        false => data_directory(dir, key_file, &mut report),
    };
    match read {
        Ok(()) => report.end(),
        Err(error) => {
            eprintln!("look: {error}");
            ExitCode::FAILURE
        }
    }
}

fn check_backup(dir: &Path, key_file: Option<&Path>, report: &mut Report) -> Result<(), String> {
    let seal = key_file.map(|file| Keys::read(file).and_then(Sealer::new).map(Arc::new));
    let seal = seal.transpose().map_err(|e| e.to_string())?;
    backup::check(dir, seal, report).map_err(|e| e.to_string())
}

fn data_directory(dir: &Path, key_file: Option<&Path>, report: &mut Report) -> Result<(), String> {
    let (data, node, cluster) = DataDir::inspect(dir).map_err(|e| e.to_string())?;
    let seal = encryption::inspect(dir, key_file).map_err(|e| e.to_string())?;
    report.line("directory", format_args!("{}: node {node}, cluster {cluster}", dir.display()));
    let log = check_log(&data, seal.as_deref(), report);
    let pages = check_pages(&data, seal.clone(), report);
    if let (Some(log), Some(pages)) = (&log, &pages) {
        check_gap(log, pages.records.last(), report);
    }
    Ok(())
}

fn check_log(data: &DataDir, seal: Option<&Sealer>, report: &mut Report) -> Option<LogChecked> {
    let checked = match log::check(&RealDisk::read_only(data.log_dir()), seal, &mut progress("log segments")) {
        Ok(checked) => checked,
        Err(error) => {
            report.damage(error, AFTER_LOG);
            return None;
        }
    };
    let (state, size) = (&checked.state, bytes(checked.bytes));
    report.line(
        "log",
        format_args!("{} entries from {} on in {} segments, {size}", checked.entries, checked.first, checked.segments),
    );
    let torn = if checked.torn { "; behind it a write that never finished, of which nobody was told" } else { "" };
    report.line("", format_args!("ends with entry {} of term {}{torn}", state.last.index, state.last.term));
    for error in &checked.damage {
        let mark_holds = checked.mark.is_some() && error.to_string().contains("one of the two copies");
        report.damage(error, if mark_holds { AFTER_MARK } else { AFTER_LOG });
    }
    Some(checked)
}

fn check_pages(data: &DataDir, seal: Option<Arc<Sealer>>, report: &mut Report) -> Option<PagesChecked> {
    if !data.pages_dir().exists() {
        report.line("pages", "none yet");
        return None;
    }
    let options = PagesOptions { seal, worker_threads: 1, ..PagesOptions::default() };
    let checked = Generations::inspect(&data.pages_dir(), options, &std::env::temp_dir()).map_err(Into::into).and_then(
        |scratch| {
            let pages = scratch.pages().map(|store| pages::check(store, &mut progress("pages")));
            pages.unwrap_or_else(|| Ok(PagesChecked::default()))
        },
    );
    match checked {
        Ok(checked) => {
            tell_pages(&checked, report);
            Some(checked)
        }
        Err(error) => {
            report.damage(error, AFTER_PAGES);
            None
        }
    }
}

/// What a page store holds, and what of it is damaged.
pub fn tell_pages(checked: &PagesChecked, report: &mut Report) {
    let size = bytes(checked.bytes);
    report.line(
        "pages",
        format_args!("{} pages, {size}; {} reached by no checkpoint", checked.pages, checked.unreachable),
    );
    let epochs = checked.records.first().zip(checked.records.last());
    let range = epochs.map(|(a, b)| format!(", epochs {} to {}", a.epoch(), b.epoch())).unwrap_or_default();
    report.line("", format_args!("{} checkpoints{range}", checked.records.len()));
    for error in &checked.damage {
        report.damage(error, AFTER_PAGES);
    }
}

/// The log must begin no later than behind the newest checkpoint.
fn check_gap(log: &LogChecked, newest: Option<&RootRecord>, report: &mut Report) {
    let purged = log.state.purged.index;
    let shown = match newest.map(frontier_of) {
        Some(Ok(frontier)) => frontier.applied.last.index.0,
        Some(Err(error)) => return report.damage(error, AFTER_PAGES),
        None => 0,
    };
    if shown < purged {
        let what = format!("the newest intact checkpoint shows entry {shown}, but the log was purged up to {purged}");
        report.damage(what, AFTER_LOG);
    }
}
