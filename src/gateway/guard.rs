//! The ACL in force at this gateway, and the questions that a limited connection's requests are asked. A connection whose user may
//! do everything passes by all of this.

use super::Shared;
use super::acl::catalogue::{Catalogue, CommandNumber};
use super::acl::log::{Log, Reason, Refusal};
use super::acl::rights::Denied;
use super::acl::selector::Access;
use super::acl::user::User;
use super::acl::users::Users;
use super::backend::{Backend, Code, CommandId, ParseError};
use super::clients::locked;
use super::native::Entry;
use super::session::Session;
use crate::apply::system::SystemState;
use crate::base::batch::ChunkBuilder;
use crate::command::args::with_argument;
use crate::resp::Request;
use arc_swap::ArcSwap;
use smallvec::SmallVec;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::{Arc, Mutex};

/// The users that this gateway follows, and whom it refused what.
pub struct Acl {
    /// `default` as this node was started (`requirepass`): he counts until the cluster sets one.
    own_default: User,
    users: ArcSwap<Users>,
    /// Grows when the users change: what a session compares once a chunk.
    generation: AtomicU64,
    log: Mutex<Log>,
}

impl Acl {
    /// An empty `requirepass` is none.
    pub fn new(requirepass: &str, catalogue: Catalogue) -> Acl {
        let own_default = User::everybody().with_password(requirepass.as_bytes());
        let users = Users::new(&SystemState::default(), &own_default, Arc::new(catalogue));
        Acl { own_default, users: ArcSwap::from_pointee(users), generation: AtomicU64::new(1), log: Mutex::default() }
    }

    pub fn users(&self) -> Arc<Users> {
        self.users.load_full()
    }
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Acquire)
    }

    /// Takes over the cluster's users, and the commands that their rules speak of. One caller at a time.
    pub fn follow<C: Code>(&self, state: &SystemState, code: &C) {
        let known = self.users.load().catalogue.clone();
        let catalogue =
            if known.code_version == code.version() { known } else { Arc::new(super::native::catalogue(code)) };
        self.users.store(Arc::new(Users::new(state, &self.own_default, catalogue)));
        self.generation.fetch_add(1, Release);
    }

    pub fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        locked(&self.log)
    }
}

impl<B: Backend> Shared<B> {
    /// Brings a session up to date with its user's rights. False: he is gone. Asked once a chunk.
    #[inline]
    pub fn keeps(&self, session: &mut Session, code: &B::Code) -> bool {
        if session.limited && session.user.catalogue.code_version != code.version() {
            self.take_over();
        }
        session.generation == self.acl.generation() || session.follow(&self.acl)
    }
}

/// Notes that somebody was refused.
pub fn note<B: Backend>(shared: &Shared<B>, session: &Session, reason: Reason, user: &[u8], object: &[u8]) {
    let now = shared.backend.now_ms();
    let refusal = Refusal {
        reason,
        multi: session.executing || session.multi.is_some(),
        object: object.to_vec(),
        user: user.to_vec(),
        client: session.client.line(now),
    };
    shared.acl.log().add(refusal, now, shared.config.acl_log_len.load(Relaxed));
}

/// Appends the call, as [`Code::parse`] does, if the connection's user may make it. The keys that he is asked for are those of the call that
/// was parsed: what its handler will get, not what the request looks like (CVE-2023-41053).
#[inline]
pub fn parse<B: Backend>(
    shared: &Shared<B>,
    session: &Session,
    code: &B::Code,
    id: CommandId,
    request: Request<'_>,
    into: &mut ChunkBuilder,
) -> Result<(), ParseError> {
    if session.limited {
        return parse_limited(shared, session, code, id, request, into);
    }
    code.parse(id, request, session.db, into)
}

#[cold]
fn parse_limited<B: Backend>(
    shared: &Shared<B>,
    session: &Session,
    code: &B::Code,
    id: CommandId,
    request: Request<'_>,
    into: &mut ChunkBuilder,
) -> Result<(), ParseError> {
    let name = code.name(id, request);
    permit(shared, session, name, request, &[])?;
    let before = into.place();
    code.parse(id, request, session.db, into)?;
    let mut keys: SmallVec<[(&[u8], Access); 4]> = SmallVec::new();
    code.call_keys(id, request, into, &mut |key, words| keys.push((key, Access::declared(words))));
    let permitted = permit(shared, session, name, request, &keys);
    drop(keys);
    if permitted.is_err() {
        into.take_back(before);
    }
    permitted
}

/// Whether the connection's user may use a command that the gateway answers.
#[inline]
pub fn native<B: Backend>(
    shared: &Shared<B>,
    session: &Session,
    entry: &Entry,
    request: Request<'_>,
) -> Result<(), ParseError> {
    if !session.limited {
        return Ok(());
    }
    let keys: SmallVec<[(&[u8], Access); 4]> =
        entry.key_places(request.len()).map(|at| (request.arg(at), Access::default())).collect();
    permit(shared, session, entry.name, request, &keys)
}

fn permit<B: Backend>(
    shared: &Shared<B>,
    session: &Session,
    name: &str,
    request: Request<'_>,
    keys: &[(&[u8], Access)],
) -> Result<(), ParseError> {
    let account = &session.user;
    let first_argument = (request.len() > 1).then(|| request.arg(1));
    // What the catalogue does not have nobody was permitted.
    let check = |number: CommandNumber| account.rights.check(number, first_argument, keys);
    let Err(denied) = account.catalogue.find(name.as_bytes()).map_or(Err(Denied::Command), check) else {
        return Ok(());
    };
    let (reason, object) = match denied {
        Denied::Command => (Reason::Command, name.as_bytes()),
        Denied::Key(at) => (Reason::Key, keys[at].0),
    };
    note(shared, session, reason, &account.id.name, object);
    Err(ParseError(text(session, denied, name).into()))
}

fn text(session: &Session, denied: Denied, name: &str) -> Vec<u8> {
    if session.executing {
        let reason = match denied {
            Denied::Command => "no permission to execute the command or subcommand",
            Denied::Key(_) => "no permission to touch the specified keys",
        };
        let text = "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This command is \
                    no longer allowed for the following reason: %s";
        return with_argument(text, reason.as_bytes());
    }
    match denied {
        Denied::Command => {
            let text = format!("NOPERM User %s has no permissions to run the '{name}' command");
            with_argument(&text, &session.user.id.name)
        }
        Denied::Key(_) => b"NOPERM No permissions to access a key".into(),
    }
}
