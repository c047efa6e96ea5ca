//! Any bytes as ACL rules, one a line: no rule panics, a refused rule changes nothing, and a user that rules made can be written down and
//! read back with the same permissions (CVE-2024-31227, CVE-2024-51741). The first byte says whether they come as one file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use look::gateway::acl::catalogue::Catalogue;
use look::gateway::acl::file;
use look::gateway::acl::rights::Rights;
use look::gateway::acl::selector::Access;
use look::gateway::acl::user::{User, join_selectors};
use look::gateway::backend::Description;
use std::sync::LazyLock;

const NAMES: [&str; 5] = ["get", "set", "config", "config|get", "select"];

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
    let command = |name: &str, category: &str| Description {
        name: name.into(),
        categories: vec![category.into()],
        ..Description::default()
    };
    let config = Description { subcommands: vec![command("config|get", "admin")], ..command("config", "slow") };
    Catalogue::new(&[command("get", "read"), command("set", "write"), config, command("select", "connection")])
});

fn same_permissions(a: &User, b: &User) {
    let (a, b) = (Rights::new(a, &CATALOGUE), Rights::new(b, &CATALOGUE));
    for name in NAMES {
        let number = CATALOGUE.find(name.as_bytes()).expect("is in the catalogue");
        let keys = [(&b"key"[..], Access::BOTH), (&b"a"[..], Access { read: true, write: false })];
        assert_eq!(a.check(number, Some(b"0"), &keys), b.check(number, Some(b"0"), &keys));
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    if kind & 1 == 1 {
        let Ok(users) = file::read(bytes, "users.acl", &CATALOGUE) else { return };
        let written = file::write(users.iter().map(|(name, user)| (name.as_slice(), user)));
        let again = file::read(&written, "users.acl", &CATALOGUE).expect("what was written can be read");
        assert!(users.keys().eq(again.keys()));
        users.values().zip(again.values()).for_each(|(a, b)| same_permissions(a, b));
        return;
    }
    let rules: Vec<&[u8]> = bytes.split(|&b| b == b'\n').collect();
    let Ok(rules) = join_selectors(&rules) else { return };
    let mut user = User::nobody();
    for rule in rules {
        let before = user.clone();
        if user.apply(&rule, Some(&CATALOGUE)).is_err() {
            assert_eq!(user, before);
        }
    }
    let line = user.describe();
    let again = User::from_line(&line).expect("what was described can be read");
    assert_eq!(again.describe(), line);
    same_permissions(&user, &again);
});
