//! # command: the code table
//!
//! Every command this node can run: the embedded programs of `commands/redis/*.look`, verified and compiled at start. Owns
//! lookup by name (once a command, on the gateway) and by handler number (once a call, in apply), the argument parser ([`args`]) and the
//! embedded sources ([`builtin`]).
//!
//! Handler numbers are what the log carries. They are derived from the names, so that another build with more commands still reads
//! this log; [`LEVEL`] is raised when the words of an existing command change their meaning.

pub mod access;
pub mod args;
pub mod builtin;
pub mod costs;
pub mod show;

use crate::lang::engine::Code;
use crate::lang::grammar::Grammar;
use crate::lang::poly::Cost;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Index;

/// Version of the meaning of handler numbers and argument words in the log.
pub const LEVEL: u64 = 1;

/// A read whose bound is above this many operations (about a millisecond) goes to a thread that may take its time.
pub const LARGE_READ_OPS: u64 = 100_000;

/// One command.
#[derive(Clone, Debug)]
pub struct Command {
    /// Lower case; a subcommand's is `object|encoding`.
    pub name: String,
    /// What the log calls it.
    pub handler: u32,
    /// Its number among the handlers.
    pub program: usize,
    pub grammar: Grammar,
    /// The bound.
    pub cost: Cost,
    pub write: bool,
    pub may_abort_after_write: bool,
    /// No arguments make its bound large: it is not computed before a call.
    pub always_cheap: bool,
    /// Of a write: what is stored under its keys may make its bound large.
    pub weighs_stored: bool,
    /// No arguments and no values make it cost much: its flags say `fast`, as Redis's do.
    pub fast: bool,
    /// Of a read: up to this size of the values under its keys, its bound is at most [`LARGE_READ_OPS`]. None: more decides.
    pub large_from: Option<u64>,
    /// For `LOOK.EXPLAIN`: line of the source, and what it adds to the bound.
    pub lines: Vec<(u32, String)>,
    /// Which of a call's words is the hash of its key, if it has just one.
    pub hash_word: Option<usize>,
    pub docs: Docs,
}

impl Command {
    /// Calls `f` with the hash of every key of a call, whose words are `word`.
    pub fn for_each_hash(&self, word: impl Fn(usize) -> u64, f: &mut impl FnMut(u64)) {
        match self.hash_word {
            Some(number) => f(word(number)),
            None => args::for_each_key(&self.grammar, &word, &mut |_, _, hash| f(hash)),
        }
    }
}

/// What `COMMAND DOCS` and `COMMAND INFO` tell beyond the grammar.
#[derive(Clone, Debug, Default)]
pub struct Docs {
    pub summary: String,
    pub since: String,
    pub group: String,
    pub complexity: String,
    /// `write`, `denyoom`, `fast`, …
    pub flags: Vec<String>,
}

/// What a first word names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    Command(usize),
    /// Numbers of the subcommands, whose own words are the second part of their names.
    Container(Vec<usize>),
}

/// One version of the code table.
pub struct Table {
    version: u64,
    commands: Vec<Command>,
    /// First words in lower case and in alphabetical order; what is called a rank is an index here.
    names: Vec<(String, Named)>,
    /// Ranks by [`short`] words.
    short: HashMap<u128, u32, BuildHasherDefault<OfShort>>,
    code: Code,
    by_handler: HandlerIndex,
}

/// Longest name that is looked up; anything longer is unknown.
const NAME_BYTES_MAX: usize = 64;

/// A first word of up to 15 bytes as a number: in lower case, its length behind it. (Byte by byte this was a tenth of what the
/// clients' thread does for a pipelined SET.)
#[inline]
fn short(name: &[u8]) -> Option<u128> {
    let len = name.len();
    // Reads that overlap, each moved to where it belongs
    let at = |place: usize| u128::from(name[place]) << (8 * place);
    let bytes = match len {
        0 => 0,
        1..4 => at(0) | at(len / 2) | at(len - 1),
        4..8 => {
            let (first, last) = (u32::from_le_bytes(*name.first_chunk()?), u32::from_le_bytes(*name.last_chunk()?));
            u128::from(first) | u128::from(last) << (8 * (len - 4))
        }
        8..16 => {
            let (first, last) = (u64::from_le_bytes(*name.first_chunk()?), u64::from_le_bytes(*name.last_chunk()?));
            u128::from(first) | u128::from(last) << (8 * (len - 8))
        }
        _ => return None,
    };
    Some(lower_case(bytes) | (len as u128) << 120)
}

/// Sixteen bytes, the ASCII letters among them in lower case.
#[inline]
fn lower_case(bytes: u128) -> u128 {
    const EACH: u128 = u128::MAX / 0xff;
    let low_bits = bytes & (EACH * 0x7f);
    // The highest bit of each byte: at least 'A', more than 'Z'; no sum reaches the next byte
    let from_a = low_bits + EACH * u128::from(0x80 - b'A');
    let past_z = low_bits + EACH * u128::from(0x7f - b'Z');
    bytes | ((from_a ^ past_z) & !bytes & (EACH * 0x80)) >> 2
}

/// For [`short`] words, all of which are known beforehand: one multiplication.
#[derive(Default)]
struct OfShort(u64);

impl Hasher for OfShort {
    fn write_u128(&mut self, word: u128) {
        let mixed = u128::from(word as u64 ^ ((word >> 64) as u64).rotate_left(32)) * 0x9e37_79b9_7f4a_7c15;
        self.0 = mixed as u64 ^ (mixed >> 64) as u64;
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u128(u128::from(self.0) << 8 | u128::from(*byte)));
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

impl Table {
    pub fn new(commands: Vec<Command>, code: Code) -> Table {
        let mut names = BTreeMap::<String, Named>::new();
        for (number, command) in commands.iter().enumerate() {
            match command.name.split_once('|') {
                None => {
                    names.insert(command.name.clone(), Named::Command(number));
                }
                Some((container, _)) => {
                    match names.entry(container.to_owned()).or_insert(Named::Container(Vec::new())) {
                        Named::Container(all) => all.push(number),
                        Named::Command(_) => unreachable!("'{container}' is a command and a container"),
                    }
                }
            }
        }
        let names: Vec<(String, Named)> = names.into_iter().collect();
        let ranks = names.iter().zip(0..);
        let short = ranks.filter_map(|((name, _), rank)| Some((short(name.as_bytes())?, rank))).collect();
        let by_handler = HandlerIndex::new(&commands);
        Table { version: LEVEL, commands, names, short, code, by_handler }
    }

    pub fn version(&self) -> u64 {
        self.version
    }
    pub fn len(&self) -> usize {
        self.commands.len()
    }
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }
    /// The programs, ready to run.
    pub fn code(&self) -> &Code {
        &self.code
    }
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Command> {
        self.commands.iter()
    }
    /// All first words, by rank.
    pub fn names(&self) -> &[(String, Named)] {
        &self.names
    }

    /// The rank of a first word, in any case.
    #[inline]
    pub fn lookup(&self, name: &[u8]) -> Option<u32> {
        match short(name) {
            Some(short) => self.short.get(&short).copied(),
            None => self.lookup_long(name),
        }
    }

    #[cold]
    fn lookup_long(&self, name: &[u8]) -> Option<u32> {
        let lower = (name.len() <= NAME_BYTES_MAX).then(|| name.to_ascii_lowercase())?;
        let rank = self.names.binary_search_by(|(known, _)| known.as_bytes().cmp(&lower));
        rank.ok().map(|rank| rank as u32)
    }

    /// A container's subcommand, in any case.
    pub fn subcommand(&self, all: &[usize], word: &[u8]) -> Option<usize> {
        let second = |n: usize| self.commands[n].name.split_once('|').map_or("", |(_, second)| second);
        all.iter().copied().find(|&n| word.eq_ignore_ascii_case(second(n).as_bytes()))
    }

    #[inline]
    pub fn by_handler(&self, handler: u32) -> Option<usize> {
        self.by_handler.get(handler)
    }
}

impl Index<usize> for Table {
    type Output = Command;
    fn index(&self, number: usize) -> &Command {
        &self.commands[number]
    }
}

/// The handler number of a command's name: 24 bits; the highest values are reserved (`base::batch::handler`).
pub fn handler_number(name: &str) -> u32 {
    let hash = xxhash_rust::xxh3::xxh3_64(name.as_bytes()) as u32 & 0xff_ffff;
    if hash >= 0xff_ff00 { hash - 0x100 } else { hash }
}

/// Handler number → number in the table, by open addressing: one look in the usual case.
struct HandlerIndex {
    slots: Vec<(u32, u32)>,
    mask: usize,
}

impl HandlerIndex {
    const FREE: u32 = u32::MAX;

    fn new(commands: &[Command]) -> HandlerIndex {
        let size = (commands.len() * 4).next_power_of_two().max(16);
        let mut slots = vec![(Self::FREE, 0); size];
        for (number, command) in commands.iter().enumerate() {
            let mut at = command.handler as usize & (size - 1);
            while slots[at].0 != Self::FREE {
                assert_ne!(slots[at].0, command.handler, "handler number of '{}' is taken", command.name);
                at = (at + 1) & (size - 1);
            }
            slots[at] = (command.handler, number as u32);
        }
        HandlerIndex { slots, mask: size - 1 }
    }

    #[inline]
    fn get(&self, handler: u32) -> Option<usize> {
        let mut at = handler as usize & self.mask;
        loop {
            match self.slots[at] {
                (found, number) if found == handler => return Some(number as usize),
                (Self::FREE, _) => return None,
                _ => at = (at + 1) & self.mask,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_word_is_its_lower_case_and_its_length() {
        let plainly = |name: &[u8]| {
            let mut bytes = [0; 16];
            bytes[..name.len()].copy_from_slice(name);
            bytes.make_ascii_lowercase();
            bytes[15] = name.len() as u8;
            u128::from_le_bytes(bytes)
        };
        // Every byte at every place, in names of every length
        for byte in 0..=255u8 {
            for len in 0..16 {
                for place in 0..len.max(1) {
                    let mut name = b"aB[z@Z`{\x00\xff0-_.Q"[..len].to_vec();
                    name.iter_mut().skip(place).take(1).for_each(|there| *there = byte);
                    assert_eq!(short(&name), Some(plainly(&name)), "{name:?}");
                }
            }
        }
        assert_eq!(short(&[b'a'; 16]), None);
    }
}
