//! Bugs that the simulation plants, one at a time, to see that it finds them (`tests/sim`). A release build has none: there
//! [`planted`] is `false` when it is compiled.

/// Whether this bug is in this process: `LOOK_PLANT=<name>`.
#[inline(always)]
pub fn planted(bug: &str) -> bool {
    cfg!(debug_assertions) && chosen(bug)
}

fn chosen(bug: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("LOOK_PLANT").ok()).as_deref() == Some(bug)
}
