//! ACL: shows and changes users. A change is an epoch: it holds on every node.

use super::{Context, Entry, NOT_INT, help, is};
use crate::base::batch::ChunkBuilder;
use crate::command::args::with_argument;
use crate::gateway::Shared;
use crate::gateway::acl::catalogue::{CATEGORIES, Catalogue};
use crate::gateway::acl::log;
use crate::gateway::acl::rights::Denied;
use crate::gateway::acl::selector::{Access, Selector, has_space};
use crate::gateway::acl::user::{User, hex, join_selectors};
use crate::gateway::acl::users::{Account, Users, are_set};
use crate::gateway::acl::{DEFAULT, file};
use crate::gateway::backend::{Backend, Code, ParseError};
use crate::gateway::system;
use crate::resp::number::parse_int;
use crate::resp::{ReplyBuf, Request};
use std::io;
use std::path::Path;

/// Longest name of a user: every node holds all of them in memory.
const NAME_BYTES_MAX: usize = 1024;
const GENPASS_BITS_MAX: i64 = 4096;
const NO_FILE: &str = "ERR This Redis instance is not configured to use an ACL file. You may want to specify users via the ACL SETUSER \
                       command and then issue a CONFIG REWRITE (assuming you have a Redis configuration file set) in order to store \
                       users in the Redis configuration.";

pub fn answer<B: Backend>(
    context: &mut Context<'_, B>,
    entry: &'static Entry,
    request: Request<'_>,
    out: &mut ReplyBuf,
) {
    let users = context.shared.acl.users();
    match entry.name {
        "acl|whoami" => out.bulk(&context.session.user.id.name),
        "acl|users" => {
            out.array(users.iter().len());
            users.iter().for_each(|account| out.bulk(&account.id.name));
        }
        "acl|list" => {
            out.array(users.iter().len());
            users.iter().for_each(|account| out.bulk(&file::line(&account.id.name, &account.user)));
        }
        "acl|getuser" => match users.get(request.arg(2)) {
            Some(account) => get_user(&account.user, out),
            None => out.nil(),
        },
        "acl|cat" => cat(&users.catalogue, request, out),
        "acl|genpass" => generate_password(request, out),
        "acl|log" => show_log(context, request, out),
        "acl|dryrun" => dry_run(context, &users, request, out),
        "acl|save" => save(context, &users, out),
        _ => help(out, "ACL", HELP),
    }
}

/// `ACL SETUSER name rule …`: all rules or none. What somebody else does to the users meanwhile is not lost.
pub async fn set_user<B: Backend>(context: &mut Context<'_, B>, request: Request<'_>, out: &mut ReplyBuf) {
    let name = request.arg(2);
    if has_space(name) {
        return out.error("ERR Usernames can't contain spaces or null characters");
    }
    if name.len() > NAME_BYTES_MAX {
        return out.error(format!("ERR Usernames can have at most {NAME_BYTES_MAX} bytes"));
    }
    let rules: Vec<&[u8]> = request.iter().skip(3).collect();
    let rules = match join_selectors(&rules) {
        Ok(rules) => rules,
        Err(at) => {
            return out.error(with_argument("ERR Unmatched parenthesis in acl selector starting at '%s'.", rules[at]));
        }
    };
    loop {
        let users = context.shared.acl.users();
        let mut user = users.get(name).map_or_else(User::nobody, |account| account.user.clone());
        for rule in &rules {
            if let Err(error) = user.apply(rule, Some(&users.catalogue)) {
                return out.error(with_argument(&format!("ERR Error in ACL SETUSER modifier '%s': {error}"), rule));
            }
        }
        match system::change(context, &[users.set(name, &user)], Some(users.version)).await {
            Ok(true) => return out.ok(),
            Ok(false) => {}
            Err(refused) => return out.error(&*refused.0),
        }
    }
}

/// `ACL DELUSER name …`: their connections are closed.
pub async fn delete_users<B: Backend>(context: &mut Context<'_, B>, request: Request<'_>, out: &mut ReplyBuf) {
    let mut names: Vec<&[u8]> = request.iter().skip(2).collect();
    if names.contains(&DEFAULT) {
        return out.error("ERR The 'default' user cannot be removed");
    }
    names.sort_unstable();
    names.dedup();
    loop {
        let users = context.shared.acl.users();
        let there = names.iter().filter(|name| users.get(name).is_some());
        let changes: Vec<_> = there.map(|name| Users::remove(name)).collect();
        if changes.is_empty() {
            return out.int(0);
        }
        match system::change(context, &changes, Some(users.version)).await {
            Ok(true) => return out.int(changes.len() as i64),
            Ok(false) => {}
            Err(refused) => return out.error(&*refused.0),
        }
    }
}

/// `ACL LOAD`: the users of this node's file become the cluster's, all of them or none.
pub async fn load<B: Backend>(context: &mut Context<'_, B>, out: &mut ReplyBuf) {
    let path = context.shared.config.get("aclfile");
    if path.is_empty() {
        return out.error(NO_FILE);
    }
    loop {
        let users = context.shared.acl.users();
        let changes = match changes_of_file(&path, &users) {
            Ok(changes) => changes,
            Err(error) => return out.error(format!("ERR {error}")),
        };
        match system::change(context, &changes, Some(users.version)).await {
            Ok(true) => return out.ok(),
            Ok(false) => {}
            Err(refused) => return out.error(&*refused.0),
        }
    }
}

/// Before the first connection. A cluster that has no users yet takes those of this node's file.
pub async fn start<B: Backend>(shared: &Shared<B>, requirepass: &str) -> Result<(), String> {
    let path = shared.config.get("aclfile");
    while !path.is_empty() && !are_set(&shared.backend.system()) {
        let users = shared.acl.users();
        let changes = changes_of_file(&path, &users)?;
        system::submit(shared, &changes, Some(users.version)).await.map_err(|refused| refused.0.into_owned())?;
    }
    let users = shared.acl.users();
    let default = users.default_user();
    if !requirepass.is_empty() && (default.user.nopass || !default.user.admits(requirepass.as_bytes())) {
        tracing::warn!(
            "requirepass of this node's configuration is not the cluster's password; CONFIG SET requirepass changes that"
        );
    }
    Ok(())
}

/// What makes the users of the cluster those of the file.
pub fn changes_of_file(path: &str, users: &Users) -> Result<Vec<system::Change>, String> {
    let text = std::fs::read(path).map_err(|e| format!("Error loading ACLs, opening file '{path}': {}", reason(&e)))?;
    let loaded = file::read(&text, path, &users.catalogue)?;
    let gone = users.iter().filter(|account| !loaded.contains_key(&account.id.name));
    let removed = gone.map(|account| Users::remove(&account.id.name));
    Ok(removed.chain(loaded.iter().map(|(name, user)| users.set(name, user))).collect())
}

/// The system's text without Rust's number behind it.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

fn save<B: Backend>(context: &Context<'_, B>, users: &Users, out: &mut ReplyBuf) {
    let path = context.shared.config.get("aclfile");
    if path.is_empty() {
        return out.error(NO_FILE);
    }
    let text = file::write(users.iter().map(|account| (account.id.name.as_slice(), &account.user)));
    match replace_file(Path::new(&path), &text) {
        Ok(()) => out.ok(),
        Err(error) => {
            tracing::warn!(%error, path, "cannot write the ACL file");
            out.error(
                "ERR There was an error trying to save the ACLs. Please check the server logs for more information",
            );
        }
    }
}

/// Whole or not at all: written beside it, then moved over it. Nobody else may read the hashes.
fn replace_file(path: &Path, text: &[u8]) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let beside = path.with_extension(format!("tmp-{}", std::process::id()));
    let mut new = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    let written = new.write_all(text).and_then(|()| new.sync_all()).and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
}

fn get_user(user: &User, out: &mut ReplyBuf) {
    out.map(6);
    out.bulk(b"flags");
    let flags = user.flags();
    out.set(flags.len());
    flags.iter().for_each(|flag| out.bulk(flag.as_bytes()));
    out.bulk(b"passwords");
    out.array(user.passwords.len());
    user.passwords.iter().for_each(|password| out.bulk(hex(password).as_bytes()));
    describe(&user.root, out);
    out.bulk(b"selectors");
    out.array(user.selectors.len());
    for selector in &user.selectors {
        out.map(3);
        describe(selector, out);
    }
}

/// Three pairs.
fn describe(selector: &Selector, out: &mut ReplyBuf) {
    for (name, words) in [
        ("commands", selector.describe_commands()),
        ("keys", selector.describe_keys()),
        ("channels", selector.describe_channels()),
    ] {
        out.bulk(name.as_bytes());
        out.bulk(&words.join(&b' '));
    }
}

fn cat(catalogue: &Catalogue, request: Request<'_>, out: &mut ReplyBuf) {
    match (request.len(), Catalogue::category(request.arg(2))) {
        (2, _) => {
            out.array(CATEGORIES.len());
            CATEGORIES.iter().for_each(|category| out.bulk(category.as_bytes()));
        }
        (3, Some(category)) => {
            let names: Vec<&str> = catalogue.of_category(category).map(|number| catalogue.name(number)).collect();
            out.array(names.len());
            names.iter().for_each(|name| out.bulk(name.as_bytes()));
        }
        (3, None) => {
            let shown = &request.arg(2)[..request.arg(2).len().min(128)];
            out.error(with_argument("ERR Unknown category '%s'", shown));
        }
        _ => wrong_count(request, out),
    }
}

/// Redis's text for a subcommand with too many arguments.
fn wrong_count(request: Request<'_>, out: &mut ReplyBuf) {
    let word = request.arg(1);
    let shown = &word[..word.len().min(128)];
    out.error(with_argument("ERR unknown subcommand or wrong number of arguments for '%s'. Try ACL HELP.", shown));
}

fn generate_password(request: Request<'_>, out: &mut ReplyBuf) {
    let bits = match (request.len(), parse_int(request.arg(2))) {
        (2, _) => 256,
        (3, Some(bits)) => bits,
        (3, None) => return out.error(NOT_INT),
        _ => return wrong_count(request, out),
    };
    if !(1..=GENPASS_BITS_MAX).contains(&bits) {
        return out.error(format!(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to {GENPASS_BITS_MAX}"
        ));
    }
    let digits = (bits as usize).div_ceil(4);
    let mut bytes = vec![0; digits.div_ceil(2)];
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(n) => filled += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return out.error(format!("ERR no random numbers from the system: {error}")),
        }
    }
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    out.bulk(&hex.as_bytes()[..digits]);
}

fn show_log<B: Backend>(context: &Context<'_, B>, request: Request<'_>, out: &mut ReplyBuf) {
    let count = match (request.len(), parse_int(request.arg(2))) {
        (2, _) => 10,
        (3, _) if is(request.arg(2), "RESET") => {
            context.shared.acl.log().reset();
            return out.ok();
        }
        (3, Some(count)) => count.max(0) as usize,
        (3, None) => return out.error(NOT_INT),
        _ => return wrong_count(request, out),
    };
    let now = context.shared.backend.now_ms();
    let log = context.shared.acl.log();
    let entries = log.newest(count);
    out.array(entries.len());
    for log::Entry { id, count, created_ms, updated_ms, refusal } in entries {
        out.map(10);
        out.bulk(b"count");
        out.int(*count as i64);
        for (name, value) in [
            ("reason", refusal.reason.name().as_bytes()),
            ("context", if refusal.multi { b"multi" } else { b"toplevel" }),
            ("object", &refusal.object),
            ("username", &refusal.user),
        ] {
            out.bulk(name.as_bytes());
            out.bulk(value);
        }
        out.bulk(b"age-seconds");
        out.double((now - updated_ms).max(0) as f64 / 1000.0);
        out.bulk(b"client-info");
        out.bulk(refusal.client.as_bytes());
        for (name, value) in
            [("entry-id", *id as i64), ("timestamp-created", *created_ms), ("timestamp-last-updated", *updated_ms)]
        {
            out.bulk(name.as_bytes());
            out.int(value);
        }
    }
}

/// `ACL DRYRUN user command …`: whether he may, without doing it.
fn dry_run<B: Backend>(context: &Context<'_, B>, users: &Users, request: Request<'_>, out: &mut ReplyBuf) {
    let Some(account) = users.get(request.arg(2)) else {
        return out.error(with_argument("ERR User '%s' not found", request.arg(2)));
    };
    let inner = request.skip(3);
    let asked = match asked(context, inner) {
        Ok(asked) => asked,
        Err(error) => return out.error(error),
    };
    match verdict(account, &asked, inner) {
        Ok(()) => out.ok(),
        Err(why) => out.bulk(&why),
    }
}

/// What a request asks for.
struct Asked {
    /// In full.
    command: String,
    keys: Vec<(Vec<u8>, Access)>,
}

fn asked<B: Backend>(context: &Context<'_, B>, inner: Request<'_>) -> Result<Asked, Vec<u8>> {
    let unknown = || with_argument("ERR Command '%s' not found", inner.arg(0));
    let Some(route) = context.code.lookup(inner.arg(0)) else {
        let entry = super::lookup(inner.arg(0)).ok_or_else(unknown)?;
        let leaf = entry.resolve(inner).map_err(|e| if e.starts_with(b"ERR unknown") { unknown() } else { e })?;
        let keys = leaf.key_places(inner.len()).map(|at| (inner.arg(at).to_vec(), Access::default())).collect();
        return Ok(Asked { command: leaf.name.into(), keys });
    };
    let mut call = ChunkBuilder::default();
    let mut keys = Vec::new();
    match context.code.parse(route.id, inner, context.session.db, &mut call) {
        Ok(()) => context.code.call_keys(route.id, inner, &call, &mut |key, words| {
            keys.push((key.to_vec(), Access::declared(words)));
        }),
        Err(ParseError(error)) if error.starts_with(b"ERR unknown subcommand") => return Err(unknown()),
        Err(ParseError(error)) if error.starts_with(b"ERR wrong number of arguments") => {
            return Err(error.into_owned());
        }
        // What else is wrong with the arguments is not asked here.
        Err(_) => {
            let places = context.code.keys(route.id, inner).unwrap_or_default();
            keys.extend(places.iter().map(|k| (inner.arg(k.position).to_vec(), Access::declared(&k.flags))));
        }
    }
    Ok(Asked { command: context.code.name(route.id, inner).to_owned(), keys })
}

fn verdict(account: &Account, asked: &Asked, inner: Request<'_>) -> Result<(), Vec<u8>> {
    let first_argument = (inner.len() > 1).then(|| inner.arg(1));
    let number = account.catalogue.find(asked.command.as_bytes());
    let keys: Vec<_> = asked.keys.iter().map(|(key, access)| (key.as_slice(), *access)).collect();
    let checked = number.map_or(Err(Denied::Command), |n| account.rights.check(n, first_argument, &keys));
    let user = with_argument("User %s has no permissions to ", &account.id.name);
    checked.map_err(|denied| match denied {
        Denied::Command => [user, format!("run the '{}' command", asked.command).into_bytes()].concat(),
        Denied::Key(at) => [user, with_argument("access the '%s' key", keys[at].0)].concat(),
    })
}

const HELP: &[&str] = &[
    "CAT [<category>]",
    "    List all commands that belong to <category>, or all command categories",
    "    when no category is specified.",
    "DELUSER <username> [<username> ...]",
    "    Delete a list of users.",
    "DRYRUN <username> <command> [<arg> ...]",
    "    Returns whether the user can execute the given command without executing the command.",
    "GETUSER <username>",
    "    Get the user's details.",
    "GENPASS [<bits>]",
    "    Generate a secure 256-bit user password. The optional `bits` argument can",
    "    be used to specify a different size.",
    "LIST",
    "    Show users details in config file format.",
    "LOAD",
    "    Reload users from the ACL file.",
    "LOG [<count> | RESET]",
    "    Show the ACL log entries.",
    "SAVE",
    "    Save the current config to the ACL file.",
    "SETUSER <username> <attribute> [<attribute> ...]",
    "    Create or modify a user with the specified attributes.",
    "USERS",
    "    List all the registered usernames.",
    "WHOAMI",
    "    Return the current connection username.",
];
