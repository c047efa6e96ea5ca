//! The seam below the gateway: what it needs from the code table, the batcher, the store and the node.
//!
//! Statically dispatched, and called per chunk; only [`Code::lookup`] and [`Code::parse`] are called per command.
//! The node implements it for real, the gateway's tests with a small map.

use crate::apply::pending::{Cost, Pending, Plan, Watch};
use crate::apply::system::SystemState;
use crate::base::batch::{BuilderPlace, ChunkBuilder};
use crate::base::histogram::Distribution;
use crate::base::{Epoch, Millis};
use crate::command::costs::Total;
use crate::resp::{ReplyBuf, Request};
use std::future::Future;
use std::sync::Arc;

/// A command of the code table: an index, valid for the version of the table that gave it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommandId(pub u32);

/// What the gateway must know to route a command.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    pub id: CommandId,
    /// Changes state: goes through the log. Otherwise it is a read.
    pub write: bool,
    /// As `COMMAND INFO` tells it: exact when positive, at least when negative, the name counts.
    pub arity: i32,
    /// Never costs much: such a read may ride with writes unasked.
    pub fast: bool,
    /// What is stored under its keys may make a write large: [`Reads::admit`] is asked.
    pub weighs_stored: bool,
}

/// Why a command's arguments do not fit its grammar: a whole error line without `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError(pub std::borrow::Cow<'static, [u8]>);

/// One version of the code table.
pub trait Code: Send + Sync + 'static {
    fn version(&self) -> u64;
    /// By name, in any case.
    fn lookup(&self, name: &[u8]) -> Option<Route>;
    /// Appends the call to `into`. `request` begins with the command's name; subcommands and arity are checked here too.
    /// On error `into` is as before.
    fn parse(&self, id: CommandId, request: Request<'_>, db: u8, into: &mut ChunkBuilder) -> Result<(), ParseError>;
    /// All commands, for `COMMAND`; in any order, top level only.
    fn commands(&self) -> Vec<CommandId>;
    fn describe(&self, id: CommandId) -> Description;
    /// The full name of the command that `request` means (`object|encoding`); the container's, when it names no subcommand.
    fn name(&self, id: CommandId, request: Request<'_>) -> &str;
    /// The keys of a call that `parse` has just made of `request`, as its handler gets them, and how it accesses them (as in [`KeyAt`]).
    fn call_keys<'a>(
        &self,
        id: CommandId,
        request: Request<'_>,
        call: &'a ChunkBuilder,
        visit: &mut dyn FnMut(&'a [u8], &'static [&'static str]),
    );
    /// Positions of the keys in `request` and how they are accessed, for `COMMAND GETKEYS`. None: no key arguments;
    /// empty: too few or too many arguments.
    fn keys(&self, id: CommandId, request: Request<'_>) -> Option<Vec<KeyAt>>;
    /// `max-write-cost`: most operations of a write, and of a transaction that writes.
    fn max_write_cost(&self) -> u64;
}

/// Where a key is, and the flags `COMMAND GETKEYSANDFLAGS` prints (`RW`, `access`, …).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyAt {
    pub position: usize,
    pub flags: Vec<&'static str>,
}

/// A command as `COMMAND INFO` and `COMMAND DOCS` tell it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Description {
    /// Lower case; a subcommand's is `client|id`.
    pub name: String,
    pub arity: i32,
    /// `write`, `denyoom`, `fast`, …
    pub flags: Vec<String>,
    pub first_key: i32,
    pub last_key: i32,
    pub key_step: i32,
    /// Without `@`.
    pub categories: Vec<String>,
    pub tips: Vec<String>,
    pub key_specs: Vec<KeySpec>,
    pub subcommands: Vec<Description>,
    pub summary: String,
    pub since: String,
    pub group: String,
    pub complexity: String,
    pub arguments: Vec<Argument>,
}

/// One key specification (`begin_search` by index, `find_keys` by range).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeySpec {
    /// `RW`, `access`, `update`, …
    pub flags: Vec<String>,
    pub begin: i32,
    pub last: i32,
    pub step: i32,
    pub limit: i32,
}

/// An argument as `COMMAND DOCS` tells it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Argument {
    pub name: String,
    /// `key`, `string`, `integer`, `double`, `pattern`, `unix-time`, `pure-token`, `oneof`, `block`
    pub kind: String,
    /// Number of its key specification; only for keys.
    pub key_spec: Option<u32>,
    pub token: Option<String>,
    pub optional: bool,
    pub multiple: bool,
    pub arguments: Vec<Argument>,
}

/// A change of the cluster's membership that an operator asks for, by the node it is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberChange {
    Promote,
    Demote,
    Remove,
    Transfer,
}

/// What a read may miss.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Consistency {
    /// Nothing that was acknowledged anywhere before the read began.
    #[default]
    Strong,
    /// Nothing that this connection wrote.
    Session,
    /// Anything recent.
    Eventual,
}

/// Why a read cannot be answered: a whole error line without `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub std::borrow::Cow<'static, str>);

/// Why an epoch cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PastError {
    #[error("EPOCHTOOOLD since={0}")]
    TooOld(Epoch),
    #[error("EPOCHFUTURE upper={0}")]
    Future(Epoch),
    #[error("ERR {0}")]
    Unreadable(String),
}

/// How far a plan of reads has been run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The step that is next, and how many of its calls are done.
    pub step: usize,
    pub done: u32,
    /// Words of the riders and bytes of the literals used up, watches checked.
    pub word: usize,
    pub literal: usize,
    pub watch: usize,
}

/// Why [`Reads::run`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ran {
    /// Every step is answered.
    All,
    /// The reply is longer than `reply_bytes`: send it and go on. Never inside a transaction.
    Full,
    /// The next call's bound is large: go on with `patient`, on a thread that may take its time.
    Large,
}

/// A connection's right to read: its pin slot, its frame, its scratch.
pub trait Reads: Send + 'static {
    type Code: Code;
    /// Runs `plan` (riders, literals, read-only transactions) from `place` on, against the newest published root, which stays
    /// pinned until the return. Never returns [`Ran::Large`] when `patient`.
    fn run(
        &mut self,
        code: &Self::Code,
        plan: &Plan,
        place: &mut Place,
        reply_bytes: usize,
        patient: bool,
        out: &mut ReplyBuf,
    ) -> Ran;
    /// Refuses the write at `at` if it may take more than `max-write-cost`, as things are now: what is on its way through the log is not
    /// known yet.
    fn admit(&mut self, code: &Self::Code, calls: &ChunkBuilder, at: BuilderPlace) -> Result<(), ParseError>;
    /// Most operations of the call at `at`, as things are now.
    fn bound(&mut self, code: &Self::Code, calls: &ChunkBuilder, at: BuilderPlace) -> u64;
    /// What the calls since the last time cost: asked once a plan. A call that took `slow_us` microseconds or more is named; negative: none is.
    fn settle(&mut self, plan: &Plan, slow_us: i64) -> Cost;
}

/// Facts about the node for INFO, MEMORY and others; plain numbers at one moment.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    pub node_id: u64,
    /// 40 hexadecimal digits.
    pub run_id: String,
    pub data_dir: String,
    pub config_file: String,
    /// `(database, keys, keys with expiry, average TTL in ms)` of those that are not empty.
    pub keyspace: Vec<(u8, u64, u64, u64)>,
    pub used_memory: u64,
    pub dataset_bytes: u64,
    pub expired_keys: u64,
    pub keyspace_hits: u64,
    pub keyspace_misses: u64,
    pub epoch: Epoch,
    pub since: Epoch,
    pub window_roots: u64,
    pub window_bytes: u64,
    pub leader: Option<u64>,
    pub is_leader: bool,
    pub term: u64,
    /// The oldest entry of the log that a peer can be sent, and the newest.
    pub log_first: u64,
    pub log_last: u64,
    pub log_committed: u64,
    pub log_applied: u64,
    /// `(node, address, matched log index, lag in entries, online)`
    pub peers: Vec<(u64, String, u64, u64, bool)>,
    /// Seconds since 1970.
    pub last_checkpoint_s: i64,
    pub checkpoint_in_progress: bool,
    pub last_checkpoint_ok: bool,
    pub changes_since_checkpoint: u64,
    pub jit: bool,
    pub code_version: u64,
    /// What the calls of each command of the code table have cost, by name: [`Shared::commands`](super::Shared::commands) adds what the
    /// gateway knows.
    pub command_costs: Vec<(String, Total)>,
    /// Why this node takes no writes until it is started again, if so.
    pub failure: Option<String>,
    /// More lines for INFO's `look` section.
    pub extra: Vec<(String, String)>,
}

/// What the way of a write takes, since the start of the node.
#[derive(Clone, Debug, Default)]
pub struct Timings {
    pub batches: u64,
    pub epochs: u64,
    /// From the first write of a batch until the batch leaves this node.
    pub batch_wait: Distribution,
    /// From a leader's proposal of a batch until a quorum has it on disk.
    pub commit: Distribution,
    /// A durable write of the log.
    pub sync: Distribution,
    /// A set of entries.
    pub apply: Distribution,
}

impl Timings {
    /// What came after `earlier`.
    pub fn since(&self, earlier: &Timings) -> Timings {
        Timings {
            batches: self.batches - earlier.batches,
            epochs: self.epochs - earlier.epochs,
            batch_wait: self.batch_wait.since(&earlier.batch_wait),
            commit: self.commit.since(&earlier.commit),
            sync: self.sync.since(&earlier.sync),
            apply: self.apply.since(&earlier.apply),
        }
    }
}

/// The node below the gateway. Cloning is cheap.
pub trait Backend: Clone + Send + Sync + 'static {
    type Code: Code;
    type Reads: Reads<Code = Self::Code>;

    /// The newest published code table; asked once a chunk.
    fn code(&self) -> Arc<Self::Code>;
    /// For a new connection.
    fn reads(&self) -> Self::Reads;
    /// The key as the newest root shows it.
    fn watch(&self, db: u8, key: &[u8]) -> Watch;
    /// The newest epoch published on this node.
    fn epoch(&self) -> Epoch;
    fn now_ms(&self) -> Millis;
    /// The replicated settings, as of the newest root; never older than a reply of this node.
    fn system(&self) -> Arc<SystemState>;
    /// Their version; asked once a chunk.
    fn system_version(&self) -> Epoch;

    /// Hands a chunk with writes to the batcher; waits while it is full. Chunks of one connection are submitted in order,
    /// one after the other; `records` is empty afterwards. A chunk that cannot be taken is finished with `Outcome::Refused`.
    fn submit(
        &self,
        records: &mut ChunkBuilder,
        code_version: u64,
        pending: Pending,
    ) -> impl Future<Output = ()> + Send;
    /// Returns when a read on this node's newest root keeps the promise. `last` is the connection's last written epoch.
    fn fence(&self, consistency: Consistency, last: Epoch) -> impl Future<Output = Result<(), Refused>> + Send;
    /// Runs a plan of reads at a past epoch, on a thread that may take its time.
    fn read_at(
        &self,
        at: Epoch,
        code: Arc<Self::Code>,
        plan: Plan,
        reply: ReplyBuf,
    ) -> impl Future<Output = Result<(ReplyBuf, Plan), (PastError, Plan)>> + Send;
    /// An export's epoch: every read is of it, and nothing is written.
    fn stays_at(&self) -> Option<Epoch> {
        None
    }
    /// The newest epoch at that time, as far as history reaches.
    fn epoch_at(&self, time: Millis) -> Result<Epoch, PastError>;
    /// Oldest epoch that can be read.
    fn since(&self) -> Epoch;

    fn facts(&self) -> NodeFacts;
    fn timings(&self) -> Timings;
    /// `LOOK.CLUSTER`'s text: `leader:<id>`, then a line a node.
    fn cluster(&self) -> String;
    /// `LOOK.CLUSTER PROMOTE | DEMOTE | REMOVE | TRANSFER`; returns when it has happened.
    fn change_member(&self, change: MemberChange, node: u64) -> impl Future<Output = Result<(), Refused>> + Send;
    /// `LOOK.EXPLAIN`: the bound, its values for these arguments as things are now, the table by line. Appends one reply.
    fn explain(&self, code: &Self::Code, id: CommandId, request: Request<'_>, db: u8, out: &mut ReplyBuf);
    /// `MEMORY USAGE`
    fn memory_usage(&self, db: u8, key: &[u8], samples: i64) -> Option<u64>;
    /// `DEBUG OBJECT`'s line.
    fn debug_object(&self, db: u8, key: &[u8]) -> Option<String>;
    /// Other `DEBUG` words (`SET-ACTIVE-EXPIRE`, `DIGEST`, …). False: not known.
    fn debug(&self, request: Request<'_>, out: &mut ReplyBuf) -> impl Future<Output = bool> + Send;

    /// A parameter whose meaning is below the gateway was set (here, or cluster-wide); the value has passed the table's check.
    fn configure(&self, name: &str, value: &str) -> Result<(), String>;
    /// Forgets the counters that INFO shows.
    fn reset_stats(&self);
    /// `LOOK.BACKUP`, whose words mean nothing here: what the backup's other end asks, and what it is told.
    fn backup(&self, words: Vec<Vec<u8>>) -> impl Future<Output = Result<Vec<u8>, String>> + Send;
    /// Makes a checkpoint; returns when it is durable.
    fn checkpoint(&self) -> impl Future<Output = Result<(), String>> + Send;
    /// How many other nodes hold everything up to `epoch` on disk.
    fn replicas_with(&self, epoch: Epoch) -> usize;
    /// Asks the node to stop, cleanly; returns at once.
    fn shutdown(&self, checkpoint: bool);
}
