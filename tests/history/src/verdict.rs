//! One line at the end of a run, and never PASS for a run that did nothing.

use crate::Checked;
use std::collections::BTreeMap;
use std::fmt;

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct Work {
    /// Operations with a reply.
    pub operations: u64,
    pub failed: u64,
    pub unknown: u64,
    /// Faults injected, by kind.
    pub faults: BTreeMap<&'static str, u64>,
}

/// What it must have done to prove anything.
#[derive(Clone, Debug, Default)]
pub struct AtLeast {
    pub operations: u64,
    /// By kind; a kind that is not named need not occur.
    pub faults: BTreeMap<&'static str, u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    /// Too little work, or a check that was given up.
    Invalid(String),
    Fail(String),
}

/// A violation counts whatever the amount of work; a pass needs enough of it.
pub fn judge(work: &Work, least: &AtLeast, checks: &[(&str, Checked)]) -> Verdict {
    for (name, checked) in checks {
        if let Checked::Violation(why) = checked {
            return Verdict::Fail(format!("{name}: {why}"));
        }
    }
    for (name, checked) in checks {
        if let Checked::GaveUp(why) = checked {
            return Verdict::Invalid(format!("{name} was given up: {why}"));
        }
    }
    if work.operations < least.operations {
        return Verdict::Invalid(format!("only {} operations, {} are asked for", work.operations, least.operations));
    }
    for (kind, least) in &least.faults {
        let count = work.faults.get(kind).copied().unwrap_or(0);
        if count < *least {
            return Verdict::Invalid(format!("only {count} faults of kind '{kind}', {least} are asked for"));
        }
    }
    if checks.iter().all(|(_, checked)| *checked == Checked::Ok(0)) {
        return Verdict::Invalid("no operation was checked".into());
    }
    Verdict::Pass
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Pass => write!(f, "PASS"),
            Verdict::Invalid(why) => write!(f, "INVALID: {why}"),
            Verdict::Fail(why) => write!(f, "FAIL: {why}"),
        }
    }
}

impl Work {
    pub fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    pub fn add(&mut self, other: &Work) {
        self.operations += other.operations;
        self.failed += other.failed;
        self.unknown += other.unknown;
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} operations ok, {} failed, {} unknown; faults:", self.operations, self.failed, self.unknown)?;
        for (kind, count) in &self.faults {
            write!(f, " {kind} {count}")?;
        }
        Ok(())
    }
}
