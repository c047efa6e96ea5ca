//! Is there any command that nobody compares with Redis?

use crate::common::Server;
use crate::run::Coverage;
use crate::{directed, grammar};

/// Compared by steps of their own, or woven into every sequence.
const STEPS: &[&str] = &["SPOP", "RANDOMKEY", "SCAN", "MULTI", "EXEC", "DISCARD", "WATCH", "RESET", "HELLO"];
/// Their replies are of this server and this moment alone; the tests that hold them to their meaning.
const ELSEWHERE: &[(&str, &str)] = &[
    ("ACL", "tests/acl.rs"),
    ("INFO", "tests/settings.rs"),
    ("QUIT", "directed::PROTOCOL, which has it in bytes"),
    ("WAITAOF", "directed::seven_two_wins_where_versions_differ: 7.0 has none"),
];

/// A run with too little work in it is invalid: every command must have succeeded often, and failed.
pub fn assert_covered(coverage: &Coverage) {
    const NEVER_FAIL: &[&str] = &["PING", "TIME"];
    let thin: Vec<String> = grammar::commands()
        .into_iter()
        .filter(|name| !NEVER_FAIL.contains(&name.as_str()))
        .map(|name| (coverage.get(&name).copied().unwrap_or_default(), name))
        .filter(|((fine, errors), _)| *fine < 20 || *errors == 0)
        .map(|((fine, errors), name)| format!("{name}: {fine} successes, {errors} errors"))
        .collect();
    assert!(thin.is_empty(), "INVALID, too little work:\n{}", thin.join("\n"));
}

#[test]
fn every_command_is_compared_with_redis_or_named_here() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let look = Server::subject(dir.path());
    let names = look.connect().line("COMMAND LIST").expect("COMMAND LIST");
    let compared: Vec<String> = grammar::FAMILIES
        .iter()
        .flat_map(|(_, lines)| lines.lines())
        .chain(directed::compared_lines())
        .filter_map(|line| line.split_ascii_whitespace().next())
        .map(str::to_uppercase)
        .collect();
    let known = |name: &str| {
        compared.iter().any(|c| c == name) || STEPS.contains(&name) || ELSEWHERE.iter().any(|(there, _)| *there == name)
    };
    let mut missing: Vec<String> = names.items().iter().map(|name| name.text().to_uppercase()).collect();
    assert!(missing.len() > 100, "{names:?}");
    missing.retain(|name| !name.starts_with("LOOK.") && !known(name));
    assert!(missing.is_empty(), "nobody compares {missing:?}");
}
