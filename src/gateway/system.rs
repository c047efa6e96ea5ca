//! Changes of the replicated system state (`apply::system`), and how this gateway follows it.
//!
//! A change is one epoch of the log; it is acknowledged when this node has applied it, and every other node follows
//! when it applies it. What a name means:
//!
//! | name | value |
//! |---|---|
//! | `config:<parameter>` | of a cluster-wide parameter ([`super::config`]): its value, as `CONFIG GET` shows it |
//! | `user:<name>` | of a user ([`super::acl::users`]): when he was created, and his rules |

use super::Shared;
use super::backend::{Backend, Code, Refused};
use super::clients::locked;
use super::native::Context;
use crate::apply::pending::{Cost, Outcome, Pending, Plan};
use crate::base::Epoch;
use crate::base::batch::{ChunkBuilder, handler};
use crate::resp::ReplyBuf;
use std::sync::atomic::Ordering::{Acquire, Release};
use tokio::sync::oneshot;

/// A piece of the system state: its name, and its new value (None: it goes away).
pub type Change = (Vec<u8>, Option<Vec<u8>>);

/// Longest value of a piece: every node holds all of them in memory.
const VALUE_BYTES_MAX: usize = 1 << 20;

/// Appends one record that makes `changes`, all or none, unless some piece has changed after `as_of`. Replies OK, or nil.
pub fn record(records: &mut ChunkBuilder, changes: &[Change], as_of: Option<Epoch>) -> Result<(), Refused> {
    if changes.iter().any(|(_, value)| value.as_ref().is_some_and(|v| v.len() > VALUE_BYTES_MAX)) {
        return Err(Refused(format!("ERR a setting may have at most {VALUE_BYTES_MAX} bytes").into()));
    }
    let blob = records.blob.len();
    records.begin(handler::SYSTEM, 0);
    records.word(handler::SYSTEM_SET);
    records.word(as_of.map_or(u64::MAX, |epoch| epoch.0));
    for (name, value) in changes {
        let name = records.bytes(name);
        records.word(name.0);
        let value = value.as_ref().map_or(handler::SYSTEM_REMOVE, |value| records.bytes(value).0);
        records.word(value);
    }
    if records.end() {
        return Ok(());
    }
    records.blob.truncate(blob);
    Err(Refused("ERR too many settings in one command".into()))
}

/// Makes `changes` as one epoch and returns when this node follows them. False: some piece has changed after `as_of`, and nothing was
/// done. The connection has no chunk in flight meanwhile.
pub async fn change<B: Backend>(
    context: &mut Context<'_, B>,
    changes: &[Change],
    as_of: Option<Epoch>,
) -> Result<bool, Refused> {
    let client = &context.session.client;
    let (done, epoch) = tokio::select! {
        done = submit(context.shared, changes, as_of) => done?,
        () = client.until_killed() => {
            return Err(Refused("ERR this connection was killed; the outcome is unknown".into()));
        }
    };
    context.session.last_epoch = context.session.last_epoch.max(epoch);
    Ok(done)
}

/// The same without a connection; tells the epoch too.
pub async fn submit<B: Backend>(
    shared: &Shared<B>,
    changes: &[Change],
    as_of: Option<Epoch>,
) -> Result<(bool, Epoch), Refused> {
    loop {
        let mut records = ChunkBuilder::default();
        record(&mut records, changes, as_of)?;
        let (sender, receiver) = oneshot::channel();
        let done = Box::new(move |completion| {
            // The connection may be gone.
            let _ = sender.send(completion);
        });
        let mut plan = Plan::default();
        plan.records(1);
        let pending = Pending {
            plan,
            reply: ReplyBuf::default(),
            reply_bytes_max: usize::MAX,
            slow_us: -1,
            cost: Cost::default(),
            done,
        };
        shared.backend.submit(&mut records, shared.backend.code().version(), pending).await;
        let Ok(completion) = receiver.await else {
            return Err(Refused("ERR this node stops; the outcome is unknown".into()));
        };
        match completion.outcome {
            Outcome::CodeChanged => {}
            Outcome::Refused(text) => return Err(Refused(text)),
            Outcome::Applied | Outcome::TooLong => {
                shared.follow();
                return Ok((completion.reply.as_bytes().starts_with(b"+"), completion.epoch));
            }
        }
    }
}

impl<B: Backend> Shared<B> {
    /// Takes the newest system state over, if it has changed. Asked once a chunk, so a client that has the reply of a change finds
    /// it in force on every connection of this node.
    #[inline]
    pub fn follow(&self) {
        if self.backend.system_version().0 != self.followed.load(Acquire) {
            self.take_over();
        }
    }

    #[cold]
    pub(super) fn take_over(&self) {
        // The newest state is read under the lock: an older one never replaces it.
        let _one_at_a_time = locked(&self.following);
        let state = self.backend.system();
        self.config.follow(&state, |name, value| self.backend.configure(name, value));
        self.acl.follow(&state, &*self.backend.code());
        self.clients.keep(|user| self.acl.users().has(user));
        self.followed.store(state.version.0, Release);
    }
}
