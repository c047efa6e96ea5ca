//! A user: whether he may come in, with which passwords, and what rules make of him.

use super::RuleError;
use super::catalogue::Catalogue;
use super::selector::Selector;
use crate::resp::decode::split_words;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// SHA-256 of a password; passwords themselves are kept nowhere.
pub type PasswordHash = [u8; 32];

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    pub enabled: bool,
    /// Any password is right.
    pub nopass: bool,
    /// Of `RESTORE`; told and kept as in Redis, but every payload is checked here.
    pub skip_sanitize: bool,
    pub passwords: Vec<PasswordHash>,
    pub root: Selector,
    /// `( … )`
    pub selectors: Vec<Selector>,
}

impl User {
    /// May not come in, may do nothing.
    pub fn nobody() -> User {
        User {
            enabled: false,
            nopass: false,
            skip_sanitize: false,
            passwords: Vec::new(),
            root: Selector::nothing(),
            selectors: Vec::new(),
        }
    }

    /// `default`, as long as nobody has changed him: everybody, with all rights.
    pub fn everybody() -> User {
        User { enabled: true, nopass: true, root: Selector::everything(), ..User::nobody() }
    }

    /// Connections are his without a password.
    pub fn is_open(&self) -> bool {
        self.enabled && self.nopass
    }

    /// Whether this password lets one in as this user. The time that it takes does not tell which part of which password was right.
    pub fn admits(&self, password: &[u8]) -> bool {
        let given = hash(password);
        let right = self.passwords.iter().fold(Choice::from(0), |any, known| any | known.ct_eq(&given));
        self.enabled && (self.nopass || right.into())
    }

    /// Changes the user by one rule. Without a catalogue names of commands are not checked: rules that once were right stay so.
    pub fn apply(&mut self, rule: &[u8], catalogue: Option<&Catalogue>) -> Result<(), RuleError> {
        let is = |word: &str| rule.eq_ignore_ascii_case(word.as_bytes());
        match rule {
            [] => {}
            _ if is("on") => self.enabled = true,
            _ if is("off") => self.enabled = false,
            _ if is("skip-sanitize-payload") => self.skip_sanitize = true,
            _ if is("sanitize-payload") => self.skip_sanitize = false,
            _ if is("nopass") => {
                self.nopass = true;
                self.passwords.clear();
            }
            _ if is("resetpass") => {
                self.nopass = false;
                self.passwords.clear();
            }
            [b'>', password @ ..] => self.add_password(hash(password)),
            [b'#', hex @ ..] => self.add_password(parse_hash(hex)?),
            [b'<', password @ ..] => self.remove_password(hash(password))?,
            [b'!', hex @ ..] => self.remove_password(parse_hash(hex)?)?,
            [b'(', inner @ .., b')'] => self.selectors.push(selector(inner, catalogue)?),
            _ if is("clearselectors") => self.selectors.clear(),
            _ if is("reset") => *self = User::nobody(),
            _ => self.root.apply(rule, catalogue)?,
        }
        Ok(())
    }

    fn add_password(&mut self, hash: PasswordHash) {
        self.nopass = false;
        if !self.passwords.contains(&hash) {
            self.passwords.push(hash);
        }
    }

    fn remove_password(&mut self, hash: PasswordHash) -> Result<(), RuleError> {
        let at = self.passwords.iter().position(|p| *p == hash).ok_or(RuleError::NoSuchPassword)?;
        self.passwords.remove(at);
        Ok(())
    }

    /// `on`, `nopass`, …: what `ACL GETUSER` calls flags.
    pub fn flags(&self) -> Vec<&'static str> {
        let mut flags = vec![if self.enabled { "on" } else { "off" }];
        flags.extend(self.nopass.then_some("nopass"));
        flags.push(if self.skip_sanitize { "skip-sanitize-payload" } else { "sanitize-payload" });
        flags
    }

    /// One line of rules that makes this user of a new one: what `ACL LIST` shows, files hold and the log carries.
    pub fn describe(&self) -> Vec<u8> {
        let mut words: Vec<Vec<u8>> = self.flags().into_iter().map(Into::into).collect();
        words.extend(self.passwords.iter().map(|p| format!("#{}", hex(p)).into_bytes()));
        words.extend(self.root.describe());
        words.extend(self.selectors.iter().map(describe_selector));
        words.join(&b' ')
    }

    /// The user of such a line.
    pub fn from_line(line: &[u8]) -> Result<User, RuleError> {
        let mut user = User::nobody();
        let rules: Vec<&[u8]> = line.split(|&b| b == b' ').collect();
        for rule in join_selectors(&rules).map_err(|_| RuleError::Syntax)? {
            user.apply(&rule, None)?;
        }
        Ok(user)
    }
}

pub fn hash(password: &[u8]) -> PasswordHash {
    Sha256::digest(password).into()
}

pub fn hex(hash: &PasswordHash) -> String {
    hash.iter().map(|b| format!("{b:02x}")).collect()
}

fn parse_hash(hex: &[u8]) -> Result<PasswordHash, RuleError> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let mut hash = PasswordHash::default();
    if hex.len() != 2 * hash.len() {
        return Err(RuleError::BadHash);
    }
    for (byte, pair) in hash.iter_mut().zip(hex.chunks_exact(2)) {
        let (high, low) = digit(pair[0]).zip(digit(pair[1])).ok_or(RuleError::BadHash)?;
        *byte = high << 4 | low;
    }
    Ok(hash)
}

/// The rules between parentheses are split like an inline request: quotes hold together what has none outside.
fn selector(inner: &[u8], catalogue: Option<&Catalogue>) -> Result<Selector, RuleError> {
    let mut selector = Selector::nothing();
    for rule in split_words(inner).ok_or(RuleError::Syntax)? {
        selector.apply(&rule, catalogue)?;
    }
    Ok(selector)
}

fn describe_selector(selector: &Selector) -> Vec<u8> {
    let rules: Vec<Vec<u8>> = selector.describe().into_iter().map(quoted).collect();
    [b"(", rules.join(&b' ').as_slice(), b")"].concat()
}

/// A rule inside parentheses, so that what reads it back sees neither quotes nor an end in it.
fn quoted(rule: Vec<u8>) -> Vec<u8> {
    if !rule.iter().any(|b| matches!(b, b'"' | b'\'')) && !rule.ends_with(b")") {
        return rule;
    }
    let escaped = rule.iter().flat_map(|&b| if matches!(b, b'"' | b'\\') { vec![b'\\', b] } else { vec![b] });
    std::iter::once(b'"').chain(escaped).chain(std::iter::once(b'"')).collect()
}

/// Joins the words of a selector that was given as several: from one that begins with `(` to one that ends with `)`. The error is
/// the place of a parenthesis that nothing closes.
pub fn join_selectors(rules: &[&[u8]]) -> Result<Vec<Vec<u8>>, usize> {
    let mut joined = Vec::with_capacity(rules.len());
    let mut open: Option<(usize, Vec<u8>)> = None;
    for (at, rule) in rules.iter().enumerate() {
        if rule.starts_with(b"(") && !rule.ends_with(b")") {
            // As in Redis a second opening forgets the first.
            open = Some((at, rule.to_vec()));
            continue;
        }
        let Some((_, selector)) = &mut open else {
            joined.push(rule.to_vec());
            continue;
        };
        selector.push(b' ');
        selector.extend_from_slice(rule);
        if rule.ends_with(b")") {
            joined.extend(open.take().map(|(_, selector)| selector));
        }
    }
    match open {
        Some((at, _)) => Err(at),
        None => Ok(joined),
    }
}
