//! # ACL: who may run what on which keys
//!
//! The model of Redis 7, without I/O: a [`user`] is made by rules, read left to right; each of his [`selector`]s permits commands that
//! the [`catalogue`] knows, and keys by pattern; compiled against the catalogue they are his [`rights`], which a connection keeps and
//! asks for every request. A user with all rights is never asked. [`file`] is the text form, [`log`] remembers refusals.

pub mod catalogue;
pub mod file;
pub mod log;
pub mod rights;
pub mod selector;
#[cfg(test)]
mod tests;
pub mod user;

/// The user of connections that have named no other.
pub const DEFAULT: &[u8] = b"default";

/// Why a rule is none, in Redis's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RuleError {
    #[error("Unknown command or category name in ACL")]
    Unknown,
    #[error("Syntax error")]
    Syntax,
    #[error(
        "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any effect. Try 'resetkeys' to \
         start with an empty list of patterns"
    )]
    PatternAfterAll,
    #[error(
        "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any effect. Try \
         'resetchannels' to start with an empty list of channels"
    )]
    ChannelAfterAll,
    #[error("The password you are trying to remove from the user does not exist")]
    NoSuchPassword,
    #[error("The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters")]
    BadHash,
    #[error("Allowing first-arg of a subcommand is not supported")]
    ArgumentOfSubcommand,
}
