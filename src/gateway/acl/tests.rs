//! Rules in, permissions out. What the real Redis makes of the same rules is in `tests/acl_differential.rs`.

use super::catalogue::Catalogue;
use super::log::{Log, Reason, Refusal};
use super::rights::{Denied, Rights};
use super::selector::Access;
use super::user::User;
use super::{RuleError, file};
use crate::gateway::backend::Description;
use proptest::prelude::*;

const READ: Access = Access { read: true, write: false };
const WRITE: Access = Access { read: false, write: true };
const LOOK: Access = Access { read: false, write: false };

fn command(name: &str, categories: &[&str]) -> Description {
    let flags = if name == "auth" { vec!["no_auth".into()] } else { vec![] };
    let categories = categories.iter().map(|c| (*c).to_owned()).collect();
    Description { name: name.into(), categories, flags, ..Description::default() }
}

fn catalogue() -> Catalogue {
    let config = Description {
        subcommands: vec![
            command("config|get", &["admin", "dangerous"]),
            command("config|set", &["admin", "dangerous"]),
        ],
        ..command("config", &["slow"])
    };
    Catalogue::new(&[
        command("auth", &["fast", "connection"]),
        config,
        command("get", &["read", "string", "fast"]),
        command("select", &["connection", "fast"]),
        command("set", &["write", "string", "slow"]),
    ])
}

fn user(rules: &str) -> User {
    let mut user = User::nobody();
    for rule in rules.split_whitespace() {
        user.apply(rule.as_bytes(), Some(&catalogue())).unwrap_or_else(|e| panic!("{rule}: {e}"));
    }
    user
}

fn refused(rules: &str) -> RuleError {
    let mut user = User::nobody();
    let refused = rules.split_whitespace().find_map(|rule| user.apply(rule.as_bytes(), Some(&catalogue())).err());
    refused.unwrap_or_else(|| panic!("{rules} is taken"))
}

/// Asks for a command line; the second is what it does with each of the keys after it.
fn ask(rules: &str, line: &str, keys: &[(&str, Access)]) -> Result<(), Denied> {
    let catalogue = catalogue();
    let mut words = line.split(' ');
    let number = catalogue.find(words.next().unwrap().as_bytes()).unwrap();
    let keys: Vec<_> = keys.iter().map(|(key, access)| (key.as_bytes(), *access)).collect();
    Rights::new(&user(rules), &catalogue).check(number, words.next().map(str::as_bytes), &keys)
}

#[test]
fn rules_count_from_left_to_right() {
    assert_eq!(ask("+get -get", "get", &[]), Err(Denied::Command));
    assert_eq!(ask("-get +get", "get", &[]), Ok(()));
    assert_eq!(ask("+@all -@string", "get", &[]), Err(Denied::Command));
    assert_eq!(ask("-@string +@all", "get", &[]), Ok(()));
    assert_eq!(ask("+@string -set", "set", &[]), Err(Denied::Command));
    assert_eq!(ask("+@string -set", "get", &[]), Ok(()));
}

#[test]
fn a_command_brings_its_subcommands_and_a_rule_may_name_one() {
    assert_eq!(ask("+config", "config|set", &[]), Ok(()));
    assert_eq!(ask("+config|get", "config|set", &[]), Err(Denied::Command));
    assert_eq!(ask("+config -config|set", "config|set", &[]), Err(Denied::Command));
    assert_eq!(ask("+config -config|set", "config|get", &[]), Ok(()));
    assert_eq!(ask("+@slow", "config|get", &[]), Ok(()), "the container's category brings all of it");
    assert_eq!(ask("+@all -@admin", "config|get", &[]), Err(Denied::Command));
}

#[test]
fn a_first_argument_can_be_permitted_alone() {
    assert_eq!(ask("+select|0", "select 0", &[]), Ok(()));
    assert_eq!(ask("+select|0", "select 1", &[]), Err(Denied::Command));
    assert_eq!(ask("+select|0 -select", "select 0", &[]), Err(Denied::Command));
    assert_eq!(ask("+select|0 -@fast", "select 0", &[]), Err(Denied::Command));
    assert_eq!(refused("-select|0"), RuleError::Unknown);
    assert_eq!(refused("+config|get|x"), RuleError::ArgumentOfSubcommand);
    assert_eq!(refused("+config|nosuch"), RuleError::Unknown);
    assert_eq!(refused("+select|"), RuleError::Syntax);
}

#[test]
fn keys_are_matched_by_what_is_done_with_them() {
    let all = "+@all ~a* %R~r* %W~w*";
    assert_eq!(ask(all, "get", &[("a1", READ), ("r1", READ)]), Ok(()));
    assert_eq!(ask(all, "get", &[("a1", READ), ("w1", READ)]), Err(Denied::Key(1)));
    assert_eq!(ask(all, "set", &[("w1", WRITE)]), Ok(()));
    assert_eq!(ask(all, "set", &[("r1", WRITE)]), Err(Denied::Key(0)));
    assert_eq!(ask(all, "set", &[("w1", Access::BOTH)]), Err(Denied::Key(0)));
    // Whether a key is there may be asked with either permission, but with some.
    assert_eq!(ask(all, "get", &[("w1", LOOK)]), Ok(()));
    assert_eq!(ask(all, "get", &[("x", LOOK)]), Err(Denied::Key(0)));
    assert_eq!(ask("+@all %R~x %W~x", "set", &[("x", Access::BOTH)]), Ok(()), "the same pattern twice joins");
}

/// CVE-2024-31227, CVE-2024-51741
#[test]
fn a_percent_without_a_permission_is_refused() {
    for rule in ["%~a", "%", "%~", "%X~a", "%RX~a", "%RR~a", "%WW~a", "%a~b"] {
        assert_eq!(refused(rule), RuleError::Syntax, "{rule}");
        assert_eq!(user("on").apply(format!("({rule})").as_bytes(), None), Err(RuleError::Syntax), "({rule})");
    }
    assert_eq!(user("%rw~a").root.describe_keys(), [b"~a"]);
}

#[test]
fn one_selector_must_permit_all_of_a_request() {
    let rules = |rules: &[&str]| {
        let mut user = User::nobody();
        rules.iter().for_each(|rule| user.apply(rule.as_bytes(), Some(&catalogue())).unwrap());
        user
    };
    let rights = Rights::new(&rules(&["+get", "~a", "(+set ~b)", "(+get ~c*)"]), &catalogue());
    let check = |name: &str, key: &str| {
        rights.check(catalogue().find(name.as_bytes()).unwrap(), None, &[(key.as_bytes(), Access::BOTH)])
    };
    assert_eq!(check("get", "a"), Ok(()));
    assert_eq!(check("set", "b"), Ok(()));
    assert_eq!(check("get", "c1"), Ok(()));
    assert_eq!(check("set", "a"), Err(Denied::Key(0)), "the reason of the selector that has the command");
    assert_eq!(check("config", "a"), Err(Denied::Command));
    let user = rules(&["(+set ~b)", "clearselectors"]);
    assert!(user.selectors.is_empty());
}

#[test]
fn new_users_may_nothing_but_what_strangers_may() {
    let new = User::nobody();
    assert_eq!(new.describe(), b"off sanitize-payload resetchannels -@all");
    assert!(!new.admits(b"") && !new.is_open());
    assert_eq!(ask("", "auth", &[]), Ok(()));
    assert_eq!(ask("-@all", "auth", &[]), Ok(()));
    assert_eq!(ask("", "get", &[]), Err(Denied::Command));
    assert!(Rights::new(&User::everybody(), &catalogue()).everything);
    assert_eq!(User::everybody().describe(), b"on nopass sanitize-payload ~* &* +@all");
    assert_eq!(user("on nopass >p allkeys allchannels +@all (+get) reset"), new);
}

#[test]
fn passwords_are_hashed_added_and_removed() {
    let secret = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    let user = user("on >secret >other");
    assert!(user.admits(b"secret") && user.admits(b"other") && !user.admits(b"wrong") && !user.admits(b""));
    assert!(String::from_utf8(user.describe()).unwrap().contains(&format!(" #{secret} ")));
    let with = |rule: &str| {
        let mut user = user.clone();
        user.apply(rule.as_bytes(), None).map(|()| user)
    };
    assert!(!with(&format!("!{secret}")).unwrap().admits(b"secret"));
    assert!(!with("<secret").unwrap().admits(b"secret"));
    assert!(!with("off").unwrap().admits(b"secret"));
    assert!(with("nopass").unwrap().admits(b"anything"));
    assert!(!with("resetpass").unwrap().admits(b"secret"));
    assert_eq!(with("<nosuch"), Err(RuleError::NoSuchPassword));
    for wrong in ["#abc", &format!("#{}", secret.to_uppercase()), &format!("!{secret}0")] {
        assert_eq!(with(wrong), Err(RuleError::BadHash), "{wrong}");
    }
}

#[test]
fn later_rules_remove_what_they_make_pointless() {
    for (rules, described) in [
        ("+get +set -get", "-@all +set -get"),
        ("+config|get +config|set -config", "-@all -config"),
        ("+@string -get +@string", "-@all -get +@string"),
        ("+GET +@Read", "-@all +get +@read"),
        ("+get +@all -set", "+@all -set"),
        ("+select|0 +select|1 +select|0", "-@all +select|1 +select|0"),
    ] {
        assert_eq!(String::from_utf8(user(rules).root.describe_commands().join(&b' ')).unwrap(), described, "{rules}");
    }
}

#[test]
fn patterns_after_all_are_refused() {
    assert_eq!(refused("allkeys ~a"), RuleError::PatternAfterAll);
    assert_eq!(refused("~* %R~a"), RuleError::PatternAfterAll);
    assert_eq!(refused("allchannels &a"), RuleError::ChannelAfterAll);
    assert_eq!(user("allkeys resetkeys ~a").root.describe_keys(), [b"~a"]);
    assert_eq!(refused("+nosuch"), RuleError::Unknown);
    assert_eq!(refused("+@nosuch"), RuleError::Unknown);
    assert_eq!(refused("nosuch"), RuleError::Syntax);
}

#[test]
fn a_file_counts_whole_or_not_at_all() {
    let read = |text: &str| file::read(text.as_bytes(), "f", &catalogue());
    let users = read("user bob on >p ~b* +get (+set ~c)\n\n  user ann off\r\n").unwrap();
    assert_eq!(
        users.keys().map(|k| String::from_utf8_lossy(k).into_owned()).collect::<Vec<_>>(),
        ["ann", "bob", "default"]
    );
    assert_eq!(users[b"default".as_slice()], User::everybody());
    let written = file::write(users.iter().map(|(name, user)| (name.as_slice(), user)));
    assert_eq!(file::read(&written, "f", &catalogue()).unwrap(), users);
    let end = "WARNING: ACL errors detected, no change to the previously active ACL rules was performed";
    for (text, wrong) in [
        ("user a +nosuch", "f:1: Error in applying operation '+nosuch': Unknown command or category name in ACL. "),
        ("user a\nuser a", "WARNING: Duplicate user 'a' found on line 2. "),
        ("# comment", "f:1 should start with user keyword followed by the username. "),
        ("user a (+get", "f:1: Unmatched parenthesis in selector definition."),
        ("user a %~x bad", "f:1: Syntax error. "),
    ] {
        assert_eq!(read(text).unwrap_err(), format!("{wrong}{end}"), "{text}");
    }
}

#[test]
fn refusals_within_a_minute_are_counted_together() {
    let refusal = |object: &str| Refusal {
        reason: Reason::Key,
        multi: false,
        object: object.into(),
        user: "bob".into(),
        client: String::new(),
    };
    let mut log = Log::default();
    log.add(refusal("a"), 0, 3);
    log.add(refusal("b"), 10, 3);
    log.add(refusal("a"), 20, 3);
    let shown = |log: &Log| log.newest(9).map(|e| (e.id, e.count, e.created_ms, e.updated_ms)).collect::<Vec<_>>();
    assert_eq!(shown(&log), [(0, 2, 0, 20), (1, 1, 10, 10)]);
    log.add(refusal("b"), 70_011, 3);
    log.add(refusal(&"c".repeat(5000)), 70_011, 3);
    assert_eq!(shown(&log), [(3, 1, 70_011, 70_011), (2, 1, 70_011, 70_011), (0, 2, 0, 20)], "the oldest has left");
    assert!(log.newest(1).all(|e| e.refusal.object.len() == 1024));
    log.reset();
    assert_eq!(log.newest(9).len(), 0);
}

/// Rules made of the pieces that mean something, and of anything.
fn rule() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "on",
        "off",
        "nopass",
        "reset",
        "clearselectors",
        "~",
        "%",
        "R",
        "W",
        "~*",
        "&",
        "*",
        "+",
        "-",
        "@",
        "all",
        "get",
        "config",
        "|",
        "set",
        "select",
        "(",
        ")",
        " ",
        "\"",
        "'",
        "\\",
        ">p",
        "<p",
        "#",
        "x",
        "@read",
        "resetkeys",
        "&*",
    ]);
    let pieces = prop::collection::vec(piece.prop_map(|p| p.as_bytes().to_vec()), 0..8).prop_map(|p| p.concat());
    prop_oneof![4 => pieces, 1 => prop::collection::vec(any::<u8>(), 0..12)]
}

proptest! {
    #[test]
    fn every_user_can_be_written_down_and_read_back(rules in prop::collection::vec(rule(), 0..12)) {
        let catalogue = catalogue();
        let mut user = User::nobody();
        for rule in &rules {
            let before = user.clone();
            if user.apply(rule, Some(&catalogue)).is_err() {
                prop_assert_eq!(&user, &before, "a refused rule has changed something");
            }
        }
        let line = user.describe();
        let again = User::from_line(&line).map_err(|e| TestCaseError::fail(format!("{e}: {line:?}")))?;
        prop_assert_eq!(again.describe(), line);
        let (old, new) = (Rights::new(&user, &catalogue), Rights::new(&again, &catalogue));
        for name in ["get", "set", "config|set", "select"] {
            let number = catalogue.find(name.as_bytes()).unwrap();
            for key in ["x", "xR", ""] {
                let keys = [(key.as_bytes(), READ)];
                // `%RW~*` is written as `~*`, which is every key: the empty one too.
                if !key.is_empty() {
                    prop_assert_eq!(old.check(number, Some(b"x"), &keys), new.check(number, Some(b"x"), &keys));
                }
            }
        }
    }
}
