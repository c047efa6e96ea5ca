//! # gateway: a node's client side
//!
//! Owns listeners, connections, sessions, chunks, the MULTI queue and the commands that need no log (`native`).
//! Promises: replies in the order of requests; nothing that a client sends grows without a bound; per command no
//! allocation, lock, shared atomic or system call, which all happen once a chunk. Everything below is behind
//! [`backend::Backend`].
//!
//! Reading order: [`conn`] (one task a connection) → [`chunk`] (bytes to a plan of answers) → [`backend`]. [`system`] is the way of replicated settings.

pub mod acl;
pub mod backend;
mod chunk;
pub mod clients;
pub mod config;
mod conn;
mod descriptors;
mod guard;
mod latency;
mod listen;
mod multi;
mod native;
pub mod observe;
mod session;
pub mod system;
#[cfg(test)]
mod tests;
mod tls;

pub use chunk::EXPORT_WRITES;
pub use conn::refuse;
pub use listen::{Gateway, GatewayError, GatewayOptions, TlsListen};

use crate::command::costs::Total;
use backend::Backend;
use clients::Clients;
use config::Config;
use guard::Acl;
use latency::Latency;
use observe::{Monitors, SlowLog, Totals};
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Instant;
use tokio::sync::Notify;

/// What all connections of a gateway share.
pub struct Shared<B: Backend> {
    pub backend: B,
    pub clients: Clients,
    pub config: Config,
    pub acl: Acl,
    pub totals: Totals,
    pub slow_log: SlowLog,
    pub latency: Latency,
    pub monitors: Monitors,
    pub started: Instant,
    /// Version of the system state that is in force here ([`system`]).
    followed: AtomicU64,
    following: Mutex<()>,
    /// Notified by `SHUTDOWN`; the node waits for it beside its signals.
    pub stop: Notify,
}

impl<B: Backend> Shared<B> {
    /// What each command has cost here since the start or `CONFIG RESETSTAT`, in order of name. The one source of INFO, LATENCY HISTOGRAM,
    /// LOOK.USAGE, the metrics and the status page.
    pub fn commands(&self) -> Vec<(String, Total)> {
        self.totals.with_calls(self.backend.facts().command_costs)
    }
}
