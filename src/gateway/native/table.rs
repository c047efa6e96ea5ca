//! The table of commands that the gateway answers: what `COMMAND` tells of them, and how one is found.

use super::entries::ENTRIES;
use crate::command::args::{arity_error, unknown_subcommand};
use crate::gateway::backend::{Argument, Description, KeySpec};
use crate::resp::Request;

/// Commands that are answered at their place in a chunk. All others wait for the connection's unfinished chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hot {
    Not,
    Ping,
    Echo,
    Select,
    Multi,
    Exec,
    Discard,
    Unwatch,
}

/// A native command or subcommand.
#[derive(Debug)]
pub struct Entry {
    pub name: &'static str,
    pub hot: Hot,
    pub arity: i32,
    pub flags: &'static [&'static str],
    pub keys: (i32, i32, i32),
    pub categories: &'static [&'static str],
    pub tips: &'static [&'static str],
    pub summary: &'static str,
    pub since: &'static str,
    pub group: &'static str,
    pub complexity: &'static str,
    pub arguments: &'static [Arg],
    pub subcommands: &'static [Entry],
}

pub const ENTRY: Entry = Entry {
    name: "",
    hot: Hot::Not,
    arity: 0,
    flags: &[],
    keys: (0, 0, 0),
    categories: &[],
    tips: &[],
    summary: "",
    since: "",
    group: "",
    complexity: "",
    arguments: &[],
    subcommands: &[],
};

/// An argument, for `COMMAND DOCS`.
#[derive(Debug)]
pub struct Arg {
    pub name: &'static str,
    pub kind: &'static str,
    pub token: Option<&'static str>,
    pub key_spec: Option<u32>,
    pub optional: bool,
    pub multiple: bool,
    pub arguments: &'static [Arg],
}

pub const ARG: Arg =
    Arg { name: "", kind: "", token: None, key_spec: None, optional: false, multiple: false, arguments: &[] };

/// By name, in any case.
pub fn lookup(name: &[u8]) -> Option<&'static Entry> {
    let mut lower = [0u8; 24];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    ENTRIES.binary_search_by(|entry| entry.name.as_bytes().cmp(lower)).ok().map(|i| &ENTRIES[i])
}

impl Entry {
    /// The entry of the subcommand that `request` names, or this one; checked for arity. The error is a whole error line.
    pub fn resolve(&'static self, request: Request<'_>) -> Result<&'static Entry, Vec<u8>> {
        let leaf = if self.subcommands.is_empty() || request.len() < 2 {
            self
        } else {
            let word = request.arg(1);
            self.subcommands
                .iter()
                .find(|sub| sub.word().as_bytes().eq_ignore_ascii_case(word))
                .ok_or_else(|| unknown_subcommand(word, self.name))?
        };
        let count = request.len() as i32;
        if (leaf.arity > 0 && count != leaf.arity) || count < -leaf.arity {
            return Err(arity_error(leaf.name));
        }
        Ok(leaf)
    }

    pub fn has(&self, flag: &str) -> bool {
        self.flags.contains(&flag)
    }

    /// The last word of the name.
    fn word(&self) -> &'static str {
        self.name.rsplit('|').next().unwrap_or_default()
    }

    pub fn describe(&self) -> Description {
        let texts = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        let (first, last, step) = self.keys;
        // In a specification a positive last key counts from the first.
        let relative = if last < 0 { last } else { last - first };
        let spec = || KeySpec { flags: vec!["RO".into()], begin: first, last: relative, step, limit: 0 };
        Description {
            name: self.name.into(),
            arity: self.arity,
            flags: texts(self.flags),
            first_key: first,
            last_key: last,
            key_step: step,
            categories: texts(self.categories),
            tips: texts(self.tips),
            key_specs: (first > 0).then(spec).into_iter().collect(),
            subcommands: self.subcommands.iter().map(Entry::describe).collect(),
            summary: self.summary.into(),
            since: self.since.into(),
            group: self.group.into(),
            complexity: self.complexity.into(),
            arguments: self.arguments.iter().map(Arg::describe).collect(),
        }
    }
}

impl Arg {
    fn describe(&self) -> Argument {
        Argument {
            name: self.name.into(),
            kind: self.kind.into(),
            key_spec: self.key_spec,
            token: self.token.map(str::to_owned),
            optional: self.optional,
            multiple: self.multiple,
            arguments: self.arguments.iter().map(Arg::describe).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_every_name_is_found_in_any_case() {
        assert!(ENTRIES.is_sorted_by_key(|e| e.name));
        for entry in ENTRIES {
            assert_eq!(lookup(entry.name.to_ascii_uppercase().as_bytes()).map(|e| e.name), Some(entry.name));
        }
        assert!(lookup(b"nosuch").is_none() && lookup(&[b'a'; 100]).is_none() && lookup(b"").is_none());
    }
}
