//! What a connection is between two commands.

use super::backend::Consistency;
use super::clients::Client;
use super::multi::Queue;
use crate::apply::pending::Watch;
use crate::base::Epoch;
use crate::resp::Version;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

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
    /// Has authenticated, or came when no password was set.
    pub trusted: bool,
    pub multi: Option<Queue>,
    pub watches: Vec<Watch>,
    /// `LOOK.READAT`
    pub read_at: Option<Epoch>,
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
    pub fn new(client: Arc<Client>, trusted: bool) -> Self {
        Session {
            client,
            db: 0,
            version: Version::Resp2,
            trusted,
            multi: None,
            watches: Vec::new(),
            read_at: None,
            consistency: Consistency::Strong,
            replies: Replies::On,
            last_epoch: Epoch::ZERO,
            monitor: false,
            closing: false,
        }
    }

    /// Nothing stands between a command and its execution: the way of nearly all.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.trusted && self.multi.is_none() && self.replies == Replies::On && self.read_at.is_none()
    }

    /// `RESET`
    pub fn reset(&mut self, trusted: bool) {
        *self = Session { last_epoch: self.last_epoch, ..Session::new(self.client.clone(), trusted) };
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
