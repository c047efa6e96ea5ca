//! What a connection is between two commands.

use super::acl::users::Account;
use super::backend::Consistency;
use super::clients::Client;
use super::guard::Acl;
use super::multi::Queue;
use crate::apply::pending::Watch;
use crate::base::Epoch;
use crate::resp::Version;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// `CLIENT REPLY`
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Replies {
    #[default]
    On,
    Off,
    /// The next command is not answered.
    SkipNext,
}

/// A connection's state.
pub struct Session {
    pub client: Arc<Client>,
    pub db: u8,
    pub version: Version,
    pub user: Arc<Account>,
    /// His rights have limits: every request is checked.
    pub limited: bool,
    /// May speak: has authenticated, or needs not.
    pub trusted: bool,
    /// Stays trusted when the default user gets a password.
    authenticated: bool,
    /// Since when it may have been a stranger: what his time is counted from.
    pub since: Instant,
    /// Of the users that `user` and `trusted` were taken from.
    pub generation: u64,
    /// Passwords that were wrong and have not been waited for yet.
    pub wrong_passwords: u32,
    pub multi: Option<Queue>,
    /// The elements of a transaction are being looked at.
    pub executing: bool,
    pub watches: Vec<Watch>,
    /// `LOOK.READAT`
    pub read_at: Option<Epoch>,
    /// Of an export: the epoch that is read unless an older one is asked for.
    pub stays_at: Option<Epoch>,
    pub consistency: Consistency,
    pub replies: Replies,
    /// The newest epoch that this connection wrote.
    pub last_epoch: Epoch,
    /// Is to join the monitors.
    pub monitor: bool,
    /// Ends after what is unfinished has been answered.
    pub closing: bool,
}

impl Session {
    pub fn new(client: Arc<Client>, acl: &Acl, stays_at: Option<Epoch>) -> Self {
        let generation = acl.generation();
        let user = acl.users().default_user().clone();
        let open = user.user.is_open();
        super::clients::locked(&client.texts).user = user.id.clone();
        Session {
            client,
            db: 0,
            version: Version::Resp2,
            limited: !user.rights.everything,
            user,
            trusted: open,
            authenticated: open,
            since: Instant::now(),
            generation,
            wrong_passwords: 0,
            multi: None,
            executing: false,
            watches: Vec::new(),
            read_at: stays_at,
            stays_at,
            consistency: Consistency::Strong,
            replies: Replies::On,
            last_epoch: Epoch::ZERO,
            monitor: false,
            closing: false,
        }
    }

    /// Becomes somebody who has shown who he is.
    pub fn log_in(&mut self, account: Arc<Account>) {
        super::clients::locked(&self.client.texts).user = account.id.clone();
        self.limited = !account.rights.everything;
        self.user = account;
        (self.authenticated, self.trusted) = (true, true);
    }

    /// Takes over what has become of its user. False: he is gone.
    #[cold]
    pub fn follow(&mut self, acl: &Acl) -> bool {
        // Before the users: what changes meanwhile is seen the next time.
        self.generation = acl.generation();
        let users = acl.users();
        if !users.has(&self.user.id) {
            return false;
        }
        let Some(account) = users.get(&self.user.id.name) else { return false };
        self.limited = !account.rights.everything;
        self.user = account.clone();
        self.trusted = self.authenticated || users.default_user().user.is_open();
        true
    }

    /// Nothing stands between a command and its execution: the way of nearly all.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.trusted && !self.limited && self.multi.is_none() && self.replies == Replies::On && self.read_at.is_none()
    }

    /// `RESET`
    pub fn reset(&mut self, acl: &Acl) {
        // A stranger gets no more time by it.
        let since = if self.trusted { Instant::now() } else { self.since };
        *self = Session { last_epoch: self.last_epoch, since, ..Session::new(self.client.clone(), acl, self.stays_at) };
        self.client.no_evict.store(false, Relaxed);
        self.client.no_touch.store(false, Relaxed);
        super::clients::locked(&self.client.texts).name.clear();
    }

    /// Writes what others may see of it into the client's record.
    pub fn publish(&self) {
        self.client.db.store(self.db, Relaxed);
        self.client.resp.store(if self.version == Version::Resp3 { 3 } else { 2 }, Relaxed);
        self.client.multi.store(self.multi.as_ref().map_or(-1, |q| q.len() as i64), Relaxed);
    }
}
