//! One set of permissions: commands, keys and channels. A user has a root selector and any number more; a request is
//! permitted when one of them permits all of it.

use super::RuleError;
use super::catalogue::Catalogue;

/// What a command does with a key, or what a pattern lets it do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Access {
    pub read: bool,
    pub write: bool,
}

impl Access {
    pub const BOTH: Access = Access { read: true, write: true };

    /// From the words of a key's declaration (`RW`, `access`, `update`, …). A command that only asks whether a key is there neither
    /// reads nor writes it: any pattern that matches will do.
    pub fn declared(words: &[&str]) -> Access {
        let has = |word: &str| words.contains(&word);
        Access { read: has("access"), write: has("insert") || has("update") || has("delete") }
    }
    /// Everything that `other` may.
    pub fn covers(self, other: Access) -> bool {
        self.read >= other.read && self.write >= other.write
    }
}

/// `~pattern`, `%R~pattern`, `%W~pattern`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyPattern {
    pub access: Access,
    pub pattern: Vec<u8>,
}

impl KeyPattern {
    fn describe(&self) -> Vec<u8> {
        let prefix: &[u8] = match self.access {
            Access { read: true, write: false } => b"%R~",
            Access { read: false, write: true } => b"%W~",
            _ => b"~",
        };
        [prefix, &self.pattern].concat()
    }
}

/// `+get`, `-@dangerous`, `+config|get`, or with a first argument `+select|0`; the name in lower case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommandRule {
    pub allow: bool,
    pub name: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Selector {
    /// None: every key.
    pub keys: Option<Vec<KeyPattern>>,
    /// None: every channel. Nothing asks for it: there are no channels here.
    pub channels: Option<Vec<Vec<u8>>>,
    /// What the rules below begin with: every command, those of later builds too, or none.
    pub all_commands: bool,
    /// In the order in which they were given; a rule that a later one makes pointless is gone.
    pub commands: Vec<CommandRule>,
}

impl Selector {
    pub fn nothing() -> Selector {
        Selector { keys: Some(Vec::new()), channels: Some(Vec::new()), all_commands: false, commands: Vec::new() }
    }
    pub fn everything() -> Selector {
        Selector { keys: None, channels: None, all_commands: true, commands: Vec::new() }
    }

    /// Changes the selector by one rule. Without a catalogue names are not checked.
    pub fn apply(&mut self, rule: &[u8], catalogue: Option<&Catalogue>) -> Result<(), RuleError> {
        let is = |word: &str| rule.eq_ignore_ascii_case(word.as_bytes());
        match rule {
            _ if is("allkeys") || is("~*") => self.keys = None,
            _ if is("resetkeys") => self.keys = Some(Vec::new()),
            _ if is("allchannels") || is("&*") => self.channels = None,
            _ if is("resetchannels") => self.channels = Some(Vec::new()),
            _ if is("allcommands") || is("+@all") => self.start_with(true),
            _ if is("nocommands") || is("-@all") => self.start_with(false),
            [b'~', pattern @ ..] => self.add_pattern(Access::BOTH, pattern)?,
            [b'%', rest @ ..] => self.add_limited_pattern(rest)?,
            [b'&', channel @ ..] => self.add_channel(channel)?,
            [b'+', name @ ..] => self.add_command(true, name, catalogue)?,
            [b'-', name @ ..] => self.add_command(false, name, catalogue)?,
            _ => return Err(RuleError::Syntax),
        }
        Ok(())
    }

    fn start_with(&mut self, all: bool) {
        self.all_commands = all;
        self.commands.clear();
    }

    /// `R~…`, `W~…`, `RW~…`; neither is an error (CVE-2024-31227, CVE-2024-51741).
    fn add_limited_pattern(&mut self, rest: &[u8]) -> Result<(), RuleError> {
        if self.keys.is_none() {
            return Err(RuleError::PatternAfterAll);
        }
        let (letters, pattern) = match rest.iter().position(|&b| b == b'~') {
            Some(at) => (&rest[..at], &rest[at + 1..]),
            None => (rest, &[][..]),
        };
        let mut access = Access::default();
        for letter in letters {
            match letter.to_ascii_uppercase() {
                b'R' if !access.read => access.read = true,
                b'W' if !access.write => access.write = true,
                _ => return Err(RuleError::Syntax),
            }
        }
        if access == Access::default() {
            return Err(RuleError::Syntax);
        }
        self.add_pattern(access, pattern)
    }

    fn add_pattern(&mut self, access: Access, pattern: &[u8]) -> Result<(), RuleError> {
        let Some(keys) = &mut self.keys else { return Err(RuleError::PatternAfterAll) };
        if has_space(pattern) {
            return Err(RuleError::Syntax);
        }
        match keys.iter_mut().find(|k| k.pattern == pattern) {
            Some(known) => {
                known.access.read |= access.read;
                known.access.write |= access.write;
            }
            None => keys.push(KeyPattern { access, pattern: pattern.to_vec() }),
        }
        Ok(())
    }

    fn add_channel(&mut self, channel: &[u8]) -> Result<(), RuleError> {
        let Some(channels) = &mut self.channels else { return Err(RuleError::ChannelAfterAll) };
        if has_space(channel) {
            return Err(RuleError::Syntax);
        }
        if !channels.iter().any(|c| c == channel) {
            channels.push(channel.to_vec());
        }
        Ok(())
    }

    fn add_command(&mut self, allow: bool, name: &[u8], catalogue: Option<&Catalogue>) -> Result<(), RuleError> {
        if let Some(catalogue) = catalogue {
            check_name(allow, name, catalogue)?;
        }
        // A first argument can hold anything; here it must be a word, so that the user can be written down.
        if has_space(name) {
            return Err(RuleError::Syntax);
        }
        let name = name.to_ascii_lowercase();
        self.commands.retain(|old| !supersedes(&name, &old.name));
        self.commands.push(CommandRule { allow, name });
        Ok(())
    }

    /// `~a %R~b`, or `~*`
    pub fn describe_keys(&self) -> Vec<Vec<u8>> {
        match &self.keys {
            None => vec![b"~*".to_vec()],
            Some(patterns) => patterns.iter().map(KeyPattern::describe).collect(),
        }
    }
    /// `&a &b`, or `&*`
    pub fn describe_channels(&self) -> Vec<Vec<u8>> {
        match &self.channels {
            None => vec![b"&*".to_vec()],
            Some(channels) => channels.iter().map(|c| [b"&", c.as_slice()].concat()).collect(),
        }
    }
    /// `-@all +get -@dangerous`
    pub fn describe_commands(&self) -> Vec<Vec<u8>> {
        let first = if self.all_commands { "+@all" } else { "-@all" };
        let sign = |rule: &CommandRule| if rule.allow { b"+" } else { b"-" };
        let rules = self.commands.iter().map(|rule| [sign(rule), rule.name.as_slice()].concat());
        std::iter::once(first.into()).chain(rules).collect()
    }
    /// Rules that make this selector of a new one.
    pub fn describe(&self) -> Vec<Vec<u8>> {
        let reset = self.channels.is_some().then(|| b"resetchannels".to_vec());
        let keys = self.describe_keys().into_iter().chain(reset);
        keys.chain(self.describe_channels()).chain(self.describe_commands()).collect()
    }
}

/// Whether a new rule leaves nothing of an old one: the same name, or a part of the new one's command.
fn supersedes(new: &[u8], old: &[u8]) -> bool {
    old.strip_prefix(new).is_some_and(|rest| matches!(rest, [] | [b'|', ..]))
}

fn check_name(allow: bool, name: &[u8], catalogue: &Catalogue) -> Result<(), RuleError> {
    if let [b'@', category @ ..] = name {
        return Catalogue::category(category).map(|_| ()).ok_or(RuleError::Unknown);
    }
    let bar = name.iter().rposition(|&b| b == b'|').filter(|_| allow);
    let Some(bar) = bar else { return catalogue.find(name).map(|_| ()).ok_or(RuleError::Unknown) };
    let (command, argument) = (&name[..bar], &name[bar + 1..]);
    let number = catalogue.find(command).ok_or(RuleError::Unknown)?;
    if command.contains(&b'|') {
        return Err(RuleError::ArgumentOfSubcommand);
    }
    if argument.is_empty() {
        return Err(RuleError::Syntax);
    }
    // A command without subcommands takes any first argument.
    let known = catalogue.subcommands(number).is_empty() || catalogue.find(name).is_some();
    known.then_some(()).ok_or(RuleError::Unknown)
}

/// Names and patterns have none, so that rules can be written in one line.
pub fn has_space(text: &[u8]) -> bool {
    text.iter().any(|b| matches!(b, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r' | 0))
}
