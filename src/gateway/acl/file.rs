//! The file of `ACL SAVE` and `ACL LOAD`: a line a user, `user <name> <rules>`. All of it counts or nothing.

use super::catalogue::Catalogue;
use super::selector::has_space;
use super::user::{User, join_selectors};
use super::{DEFAULT, RuleError};
use std::collections::BTreeMap;

pub fn write<'a>(users: impl Iterator<Item = (&'a [u8], &'a User)>) -> Vec<u8> {
    users.flat_map(|(name, user)| [line(name, user), b"\n".to_vec()].concat()).collect()
}

/// `user alice on …`: also a line of `ACL LIST`.
pub fn line(name: &[u8], user: &User) -> Vec<u8> {
    [b"user ", name, b" ", user.describe().as_slice()].concat()
}

/// The users of a file with these contents; or all that is wrong with it, in Redis's words. `path` is for those.
pub fn read(text: &[u8], path: &str, catalogue: &Catalogue) -> Result<BTreeMap<Vec<u8>, User>, String> {
    let mut users = BTreeMap::new();
    let mut wrong = String::new();
    for (number, line) in text.split(|&b| b == b'\n').enumerate() {
        let line = line.trim_ascii();
        if !line.is_empty() {
            let at = format!("{path}:{}", number + 1);
            wrong += &read_line(line, &at, number + 1, catalogue, &mut users);
        }
    }
    if !wrong.is_empty() {
        return Err(wrong + "WARNING: ACL errors detected, no change to the previously active ACL rules was performed");
    }
    users.entry(DEFAULT.to_vec()).or_insert_with(User::everybody);
    Ok(users)
}

/// What is wrong with one line; nothing, and its user is among `users`.
fn read_line(
    line: &[u8],
    at: &str,
    number: usize,
    catalogue: &Catalogue,
    users: &mut BTreeMap<Vec<u8>, User>,
) -> String {
    let words: Vec<&[u8]> = line.split(|&b| b == b' ').collect();
    let [b"user", name, rules @ ..] = words.as_slice() else {
        return format!("{at} should start with user keyword followed by the username. ");
    };
    if has_space(name) {
        let name = String::from_utf8_lossy(name);
        return format!("'{at}: username '{name}' contains invalid characters. ");
    }
    if users.contains_key(*name) {
        let name = String::from_utf8_lossy(name);
        return format!("WARNING: Duplicate user '{name}' found on line {number}. ");
    }
    let mut user = User::nobody();
    let mut wrong = String::new();
    let Ok(rules) = join_selectors(rules) else {
        return format!("{at}: Unmatched parenthesis in selector definition.");
    };
    let mut first = true;
    for rule in &rules {
        match user.apply(rule.trim_ascii(), Some(catalogue)) {
            Ok(()) => {}
            Err(error @ RuleError::Unknown) => {
                let rule = String::from_utf8_lossy(rule);
                wrong += &format!("{at}: Error in applying operation '{rule}': {error}. ");
            }
            // After one of these, others may only follow from it.
            Err(error) if first => {
                wrong += &format!("{at}: {error}. ");
                first = false;
            }
            Err(_) => {}
        }
    }
    users.insert(name.to_vec(), user);
    wrong
}
