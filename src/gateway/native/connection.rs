//! AUTH, HELLO, QUIT, RESET, WATCH and CLIENT.

use super::{Context, Entry, NOT_INT, SYNTAX, help, is, text};
use crate::command::args::with_argument;
use crate::gateway::acl::DEFAULT;
use crate::gateway::acl::log::Reason;
use crate::gateway::backend::{Backend, Consistency};
use crate::gateway::clients::{Client, Pause, locked};
use crate::gateway::guard;
use crate::gateway::session::Replies;
use crate::resp::number::parse_int;
use crate::resp::{ReplyBuf, Request, Version};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

const WRONG_PASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";
const NO_PASSWORD: &str = "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
                           configuration is correct?";
const HELLO_FIRST: &str = "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH \
                           <user> <pass> option can be used to authenticate the client and select the RESP protocol version at \
                           the same time";
const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";
/// The Redis whose behaviour this is.
pub const REDIS_VERSION: &str = "7.2.4";

pub fn answer<B: Backend>(
    context: &mut Context<'_, B>,
    entry: &'static Entry,
    request: Request<'_>,
    out: &mut ReplyBuf,
) {
    match entry.name {
        "auth" => auth(context, request, out),
        "hello" => hello(context, request, out),
        "quit" => {
            context.session.closing = true;
            out.ok();
        }
        "reset" => {
            context.shared.clients.close_account(&context.session.client);
            context.session.reset(&context.shared.acl);
            out.set_version(Version::Resp2);
            out.simple(b"RESET");
        }
        _ => client(context, entry, request, out),
    }
}

/// Remembers the keys' epochs. The epoch is one that no earlier acknowledged write exceeds.
pub async fn watch<B: Backend>(context: &mut Context<'_, B>, request: Request<'_>, out: &mut ReplyBuf) {
    let backend = &context.shared.backend;
    if let Err(refused) = backend.fence(Consistency::Strong, context.session.last_epoch).await {
        return out.error(&*refused.0);
    }
    let db = context.session.db;
    for key in request.iter().skip(1) {
        // A key that is watched already keeps the older epoch.
        if !context.session.watches.iter().any(|w| w.db == db && w.key == key) {
            context.session.watches.push(backend.watch(db, key));
        }
    }
    out.ok();
}

/// Makes the connection this user's. False, and the refusal is in the log: name or password is wrong, or he is disabled.
fn log_in<B: Backend>(context: &mut Context<'_, B>, user: &[u8], password: &[u8], command: &[u8]) -> bool {
    if let Some(account) = context.shared.acl.users().authenticate(user, password) {
        context.session.log_in(account.clone());
        return true;
    }
    context.session.wrong_passwords += 1;
    guard::note(context.shared, context.session, Reason::Auth, user, command);
    false
}

fn auth<B: Backend>(context: &mut Context<'_, B>, request: Request<'_>, out: &mut ReplyBuf) {
    let (user, password) = match request.len() {
        2 if context.shared.acl.users().default_user().user.nopass => return out.error(NO_PASSWORD),
        2 => (DEFAULT, request.arg(1)),
        3 => (request.arg(1), request.arg(2)),
        _ => return out.error(SYNTAX),
    };
    if log_in(context, user, password, request.arg(0)) { out.ok() } else { out.error(WRONG_PASS) }
}

fn hello<B: Backend>(context: &mut Context<'_, B>, request: Request<'_>, out: &mut ReplyBuf) {
    let version = match (request.len(), parse_int(request.arg(1))) {
        (1, _) => None,
        (_, None) => return out.error("ERR Protocol version is not an integer or out of range"),
        (_, Some(2)) => Some(Version::Resp2),
        (_, Some(3)) => Some(Version::Resp3),
        (_, Some(_)) => return out.error("NOPROTO unsupported protocol version"),
    };
    let (mut i, mut login, mut name) = (2, None, None);
    while i < request.len() {
        let left = request.len() - i - 1;
        if is(request.arg(i), "AUTH") && left >= 2 {
            login = Some((request.arg(i + 1), request.arg(i + 2)));
            i += 3;
        } else if is(request.arg(i), "SETNAME") && left >= 1 {
            if !is_name(request.arg(i + 1)) {
                return out.error(BAD_NAME);
            }
            name = Some(request.arg(i + 1));
            i += 2;
        } else {
            return out.error(with_argument("ERR Syntax error in HELLO option '%s'", request.arg(i)));
        }
    }
    if let Some((user, password)) = login
        && !log_in(context, user, password, request.arg(0))
    {
        return out.error(WRONG_PASS);
    }
    if !context.session.trusted {
        return out.error(HELLO_FIRST);
    }
    if let Some(name) = name {
        context.shared.clients.close_account(&context.session.client);
        locked(&context.session.client.texts).name = text(name).into_owned();
    }
    if let Some(version) = version {
        context.session.version = version;
        out.set_version(version);
    }
    out.map(7);
    out.bulk(b"server");
    out.bulk(b"redis");
    out.bulk(b"version");
    out.bulk(REDIS_VERSION.as_bytes());
    out.bulk(b"proto");
    out.int(if context.session.version == Version::Resp3 { 3 } else { 2 });
    out.bulk(b"id");
    out.int(context.session.client.id as i64);
    out.bulk(b"mode");
    out.bulk(b"standalone");
    out.bulk(b"role");
    out.bulk(b"master");
    out.bulk(b"modules");
    out.array(0);
}

/// Printable and without spaces.
fn is_name(name: &[u8]) -> bool {
    name.iter().all(|b| (b'!'..=b'~').contains(b))
}

fn client<B: Backend>(context: &mut Context<'_, B>, entry: &'static Entry, request: Request<'_>, out: &mut ReplyBuf) {
    let own = context.session.client.clone();
    match entry.name {
        "client|id" => out.int(own.id as i64),
        "client|getname" => {
            let name = locked(&own.texts).name.clone();
            if name.is_empty() { out.nil() } else { out.bulk(name.as_bytes()) }
        }
        "client|setname" => {
            if !is_name(request.arg(2)) {
                return out.error(BAD_NAME);
            }
            context.shared.clients.close_account(&own);
            locked(&own.texts).name = text(request.arg(2)).into_owned();
            out.ok();
        }
        "client|setinfo" => set_info(&own, request, out),
        "client|info" => {
            context.session.publish();
            out.verbatim(b"txt", (own.line(context.shared.backend.now_ms()) + "\n").as_bytes());
        }
        "client|list" => list(context, request, out),
        "client|kill" => kill(context, request, out),
        "client|no-evict" => on_off(request, out, |on| own.no_evict.store(on, Relaxed)),
        "client|no-touch" => on_off(request, out, |on| own.no_touch.store(on, Relaxed)),
        "client|reply" => {
            let replies = match request.arg(2) {
                word if is(word, "ON") => Replies::On,
                word if is(word, "OFF") => Replies::Off,
                word if is(word, "SKIP") && context.session.replies == Replies::Off => Replies::Off,
                word if is(word, "SKIP") => Replies::SkipNext,
                _ => return out.error(SYNTAX),
            };
            context.session.replies = replies;
            out.ok();
        }
        "client|pause" => pause(context, request, out),
        "client|unpause" => {
            context.shared.clients.unpause();
            out.ok();
        }
        "client|getredir" => out.int(-1),
        "client|trackinginfo" => {
            out.map(3);
            out.bulk(b"flags");
            out.set(1);
            out.bulk(b"off");
            out.bulk(b"redirect");
            out.int(-1);
            out.bulk(b"prefixes");
            out.array(0);
        }
        _ => help(out, "CLIENT", HELP),
    }
}

fn set_info(client: &Client, request: Request<'_>, out: &mut ReplyBuf) {
    let (attribute, value) = (request.arg(2), request.arg(3));
    let mut texts = locked(&client.texts);
    let (field, name) = if is(attribute, "LIB-NAME") {
        (&mut texts.lib_name, "lib-name")
    } else if is(attribute, "LIB-VER") {
        (&mut texts.lib_ver, "lib-ver")
    } else {
        return out.error(with_argument("ERR Unrecognized option '%s'", attribute));
    };
    if !is_name(value) {
        return out.error(format!("ERR {name} cannot contain spaces, newlines or special characters."));
    }
    *field = text(value).into_owned();
    out.ok();
}

fn on_off(request: Request<'_>, out: &mut ReplyBuf, set: impl FnOnce(bool)) {
    let on = is(request.arg(2), "ON");
    if !on && !is(request.arg(2), "OFF") {
        return out.error(SYNTAX);
    }
    set(on);
    out.ok();
}

/// Client types that Redis knows; here all are normal.
fn is_type(word: &[u8]) -> Option<bool> {
    let known = ["normal", "slave", "replica", "master", "pubsub"].iter().any(|t| is(word, t));
    known.then(|| is(word, "normal"))
}

fn list<B: Backend>(context: &mut Context<'_, B>, request: Request<'_>, out: &mut ReplyBuf) {
    context.session.publish();
    let mut clients = context.shared.clients.alive();
    if request.len() == 4 && is(request.arg(2), "TYPE") {
        match is_type(request.arg(3)) {
            None => return out.error(with_argument("ERR Unknown client type '%s'", request.arg(3))),
            Some(true) => {}
            Some(false) => clients.clear(),
        }
    } else if request.len() > 3 && is(request.arg(2), "ID") {
        let ids: Option<Vec<i64>> = request.iter().skip(3).map(|id| parse_int(id).filter(|id| *id > 0)).collect();
        let Some(ids) = ids else { return out.error("ERR Invalid client ID") };
        let by_id = |id: &i64| clients.iter().find(|c| c.id as i64 == *id).cloned();
        clients = ids.iter().filter_map(by_id).collect();
    } else if request.len() != 2 {
        return out.error(SYNTAX);
    }
    let now = context.shared.backend.now_ms();
    let lines: String = clients.iter().map(|c| c.line(now) + "\n").collect();
    out.verbatim(b"txt", lines.as_bytes());
}

/// Which clients `CLIENT KILL` means.
#[derive(Default)]
struct Filter<'a> {
    id: Option<i64>,
    addr: Option<&'a [u8]>,
    laddr: Option<&'a [u8]>,
    user: Option<&'a [u8]>,
    nobody: bool,
    skip_me: bool,
}

fn kill<B: Backend>(context: &mut Context<'_, B>, request: Request<'_>, out: &mut ReplyBuf) {
    if request.len() == 3 {
        let filter = Filter { addr: Some(request.arg(2)), ..Filter::default() };
        return if kill_all(context, &filter) > 0 { out.ok() } else { out.error("ERR No such client") };
    }
    if !request.len().is_multiple_of(2) {
        return out.error(SYNTAX);
    }
    let mut filter = Filter { skip_me: true, ..Filter::default() };
    for i in (2..request.len()).step_by(2) {
        let (word, value) = (request.arg(i), request.arg(i + 1));
        if is(word, "ID") {
            match parse_int(value) {
                Some(id) if id > 0 => filter.id = Some(id),
                _ => return out.error("ERR client-id should be greater than 0"),
            }
        } else if is(word, "TYPE") {
            match is_type(value) {
                Some(normal) => filter.nobody |= !normal,
                None => return out.error(with_argument("ERR Unknown client type '%s'", value)),
            }
        } else if is(word, "ADDR") {
            filter.addr = Some(value);
        } else if is(word, "LADDR") {
            filter.laddr = Some(value);
        } else if is(word, "USER") {
            if context.shared.acl.users().get(value).is_none() {
                return out.error(with_argument("ERR No such user '%s'", value));
            }
            filter.user = Some(value);
        } else if is(word, "SKIPME") && (is(value, "yes") || is(value, "no")) {
            filter.skip_me = is(value, "yes");
        } else {
            return out.error(SYNTAX);
        }
    }
    let killed = kill_all(context, &filter);
    out.int(killed);
}

fn kill_all<B: Backend>(context: &mut Context<'_, B>, filter: &Filter<'_>) -> i64 {
    let own = context.session.client.id;
    let meant = |c: &Arc<Client>| {
        !filter.nobody
            && filter.id.is_none_or(|id| id == c.id as i64)
            && filter.addr.is_none_or(|addr| addr == c.addr.as_bytes())
            && filter.laddr.is_none_or(|laddr| laddr == c.laddr.as_bytes())
            && filter.user.is_none_or(|user| user == locked(&c.texts).user.name)
            && !(filter.skip_me && c.id == own)
    };
    let mut killed = 0;
    for client in context.shared.clients.alive().iter().filter(|c| meant(c)) {
        killed += 1;
        if client.id == own {
            // Its own reply still goes out.
            context.session.closing = true;
        } else {
            client.kill();
        }
    }
    killed
}

fn pause<B: Backend>(context: &mut Context<'_, B>, request: Request<'_>, out: &mut ReplyBuf) {
    let what = match (request.len(), request.arg(3)) {
        (3, _) => Pause::All,
        (4, word) if is(word, "ALL") => Pause::All,
        (4, word) if is(word, "WRITE") => Pause::Writes,
        (4, _) => return out.error("ERR CLIENT PAUSE mode must be WRITE or ALL"),
        _ => return out.error("ERR unknown subcommand or wrong number of arguments for 'PAUSE'. Try CLIENT HELP."),
    };
    let ms = match parse_int(request.arg(2)) {
        None => return out.error("ERR timeout is not an integer or out of range"),
        Some(ms) if ms < 0 => return out.error("ERR timeout is negative"),
        Some(ms) => ms,
    };
    let Some(until) = context.shared.backend.now_ms().checked_add(ms) else { return out.error(NOT_INT) };
    context.shared.clients.pause(until, what);
    out.ok();
}

const HELP: &[&str] = &[
    "GETREDIR",
    "    Return the client ID we are redirecting to when tracking is enabled.",
    "GETNAME",
    "    Return the name of the current connection.",
    "ID",
    "    Return the ID of the current connection.",
    "INFO",
    "    Return information about the current client connection.",
    "KILL <ip:port>",
    "    Kill connection made from <ip:port>.",
    "KILL <option> <value> [<option> <value> [...]]",
    "    Kill connections. Options are:",
    "    * ADDR (<ip:port>|<unixsocket>:0)",
    "      Kill connections made from the specified address",
    "    * LADDR (<ip:port>|<unixsocket>:0)",
    "      Kill connections made to specified local address",
    "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
    "      Kill connections by type.",
    "    * USER <username>",
    "      Kill connections authenticated by <username>.",
    "    * SKIPME (YES|NO)",
    "      Skip killing current connection (default: yes).",
    "LIST [options ...]",
    "    Return information about client connections. Options:",
    "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
    "      Return clients of specified type.",
    "UNPAUSE",
    "    Stop the current client pause, resuming traffic.",
    "PAUSE <timeout> [WRITE|ALL]",
    "    Suspend all, or just write, clients for <timeout> milliseconds.",
    "REPLY (ON|OFF|SKIP)",
    "    Control the replies sent to the current connection.",
    "SETNAME <name>",
    "    Assign the name <name> to the current connection.",
    "SETINFO <option> <value>",
    "    Set client meta attr. Options are:",
    "    * LIB-NAME: the client lib name.",
    "    * LIB-VER: the client lib version.",
    "TRACKINGINFO",
    "    Report tracking status for the current connection.",
    "NO-EVICT (ON|OFF)",
    "    Protect current client connection from eviction.",
    "NO-TOUCH (ON|OFF)",
    "    Will not touch LRU/LFU stats when this mode is on.",
];
