//! A user's permissions against one catalogue, ready to be asked for every request.

use super::catalogue::{Catalogue, CommandNumber};
use super::selector::{Access, KeyPattern, Selector};
use super::user::User;
use crate::base::glob;

/// Why a request is refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Denied {
    Command,
    /// The key at this place among the request's keys.
    Key(usize),
}

#[derive(Debug)]
pub struct Rights {
    /// There is nothing to ask: the way of nearly all.
    pub everything: bool,
    selectors: Vec<Permissions>,
}

/// What one selector permits.
#[derive(Debug)]
struct Permissions {
    /// A bit for each command of the catalogue.
    commands: Vec<u64>,
    /// First arguments with which a command is permitted that otherwise is not.
    first_arguments: Vec<(CommandNumber, Vec<u8>)>,
    /// None: every key.
    keys: Option<Vec<KeyPattern>>,
}

impl Rights {
    pub fn new(user: &User, catalogue: &Catalogue) -> Rights {
        let root = &user.root;
        let everything = Selector { channels: None, ..root.clone() } == Selector::everything();
        let selectors = std::iter::once(root).chain(&user.selectors);
        Rights { everything, selectors: selectors.map(|s| Permissions::new(s, catalogue)).collect() }
    }

    /// Whether any selector permits the command, whatever its keys.
    pub fn permits_command(&self, command: CommandNumber, first_argument: Option<&[u8]>) -> bool {
        self.everything || self.selectors.iter().any(|s| s.has_command(command, first_argument))
    }

    /// Whether one selector permits the command and all its keys. Of several reasons the one is told that came furthest.
    pub fn check(
        &self,
        command: CommandNumber,
        first_argument: Option<&[u8]>,
        keys: &[(&[u8], Access)],
    ) -> Result<(), Denied> {
        if self.everything {
            return Ok(());
        }
        let mut reason = Denied::Command;
        for selector in &self.selectors {
            match selector.check(command, first_argument, keys) {
                Ok(()) => return Ok(()),
                Err(denied) => reason = reason.max(denied),
            }
        }
        Err(reason)
    }
}

impl Permissions {
    fn new(selector: &Selector, catalogue: &Catalogue) -> Permissions {
        let words = catalogue.len().div_ceil(64);
        let mut permissions = Permissions {
            commands: vec![if selector.all_commands { u64::MAX } else { 0 }; words],
            first_arguments: Vec::new(),
            keys: selector.keys.clone(),
        };
        for rule in &selector.commands {
            permissions.apply(rule.allow, &rule.name, catalogue);
        }
        catalogue.no_auth().for_each(|number| permissions.set(number, true, catalogue));
        permissions
    }

    fn apply(&mut self, allow: bool, name: &[u8], catalogue: &Catalogue) {
        if let [b'@', category @ ..] = name {
            let Some(category) = Catalogue::category(category) else { return };
            return catalogue.of_category(category).for_each(|number| self.set(number, allow, catalogue));
        }
        if let Some(number) = catalogue.find(name) {
            return self.set(number, allow, catalogue);
        }
        // A command and its first argument; or one that this build does not have, which nobody can run.
        let Some(bar) = name.iter().rposition(|&b| b == b'|').filter(|_| allow) else { return };
        if let Some(number) = catalogue.find(&name[..bar]) {
            self.first_arguments.push((number, name[bar + 1..].to_vec()));
        }
    }

    /// A command with all its subcommands.
    fn set(&mut self, number: CommandNumber, allow: bool, catalogue: &Catalogue) {
        self.first_arguments.retain(|(of, _)| *of != number);
        for number in std::iter::once(&number).chain(catalogue.subcommands(number)) {
            let (word, bit) = (number.0 as usize / 64, 1 << (number.0 % 64));
            if allow { self.commands[word] |= bit } else { self.commands[word] &= !bit }
        }
    }

    fn has_command(&self, number: CommandNumber, first_argument: Option<&[u8]>) -> bool {
        let word = self.commands.get(number.0 as usize / 64).copied().unwrap_or(0);
        let with = |argument: &[u8]| {
            self.first_arguments.iter().any(|(of, known)| *of == number && argument.eq_ignore_ascii_case(known))
        };
        word >> (number.0 % 64) & 1 == 1 || first_argument.is_some_and(with)
    }

    fn check(
        &self,
        number: CommandNumber,
        first_argument: Option<&[u8]>,
        keys: &[(&[u8], Access)],
    ) -> Result<(), Denied> {
        if !self.has_command(number, first_argument) {
            return Err(Denied::Command);
        }
        let Some(patterns) = &self.keys else { return Ok(()) };
        let permits = |(key, access): &(&[u8], Access)| {
            patterns.iter().any(|p| p.access.covers(*access) && glob::matches(&p.pattern, key))
        };
        match keys.iter().position(|key| !permits(key)) {
            Some(at) => Err(Denied::Key(at)),
            None => Ok(()),
        }
    }
}
