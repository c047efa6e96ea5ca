//! How a run ended, as it goes from the process that ran it to the one that asked.

use crate::net::Ms;
use history::verdict::{Verdict, Work};
use std::fmt;

#[derive(Clone, Debug)]
pub struct Outcome {
    pub verdict: Verdict,
    pub work: Work,
    pub simulated: Ms,
    /// Digest of everything that happened, in order.
    pub trace: u64,
    pub elections: u64,
    pub transactions: u64,
    pub checkpoints: u64,
}

const MARK: &str = "outcome ";

impl Outcome {
    /// One line of words; the verdict's text is last.
    pub fn to_text(&self) -> String {
        let Work { operations, failed, unknown, faults } = &self.work;
        let faults: Vec<String> = faults.iter().map(|(kind, n)| format!("{}={n}", kind.replace(' ', "_"))).collect();
        format!(
            "{MARK}{} {} {} {} {} {operations} {failed} {unknown} {} {}",
            self.simulated,
            self.trace,
            self.elections,
            self.transactions,
            self.checkpoints,
            if faults.is_empty() { "-".into() } else { faults.join(",") },
            self.verdict.to_string().replace('\n', "\u{1}"),
        )
    }

    pub fn from_text(output: &str) -> Option<Outcome> {
        let line = output.lines().find_map(|line| line.strip_prefix(MARK))?;
        let mut words = line.splitn(10, ' ');
        let mut number = || words.next()?.parse::<u64>().ok();
        let [simulated, trace, elections, transactions, checkpoints] =
            [number()?, number()?, number()?, number()?, number()?];
        let (operations, failed, unknown) = (number()?, number()?, number()?);
        let mut work = Work { operations, failed, unknown, ..Work::default() };
        for fault in words.next()?.split(',') {
            if let Some((kind, count)) = fault.split_once('=') {
                let kind = crate::plan::FAULTS.into_iter().find(|k| k.replace(' ', "_") == kind)?;
                work.faults.insert(kind, count.parse().ok()?);
            }
        }
        let text = words.next()?.replace('\u{1}', "\n");
        let verdict = match text.split_once(": ") {
            Some(("INVALID", why)) => Verdict::Invalid(why.into()),
            Some(("FAIL", why)) => Verdict::Fail(why.into()),
            _ => Verdict::Pass,
        };
        Some(Outcome { verdict, work, simulated, trace, elections, transactions, checkpoints })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, elections) = (self.simulated / 1000, self.elections);
        let (transactions, checkpoints) = (self.transactions, self.checkpoints);
        write!(f, "{seconds} s, {elections} leaders, {transactions} transactions, {checkpoints} checkpoints, ")?;
        write!(f, "{}; {}", self.work, self.verdict)
    }
}
