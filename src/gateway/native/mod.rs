//! Commands that need no log: answered by the gateway from its own state and facts about the node.
//!
//! A family a file. Each is told the request, whose arity and subcommand the table has checked, and appends one reply.

mod command;
pub mod config;
mod connection;
mod entries;
mod info;
mod look;
mod server;
mod table;

pub use table::{Entry, Hot, lookup};

use super::Shared;
use super::backend::Backend;
use super::session::Session;
use crate::resp::{ReplyBuf, Request};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

pub const SYNTAX: &str = "ERR syntax error";
pub const NOT_INT: &str = "ERR value is not an integer or out of range";

/// What a native command may look at and change.
pub struct Context<'a, B: Backend> {
    pub shared: &'a Shared<B>,
    pub session: &'a mut Session,
    pub code: &'a Arc<B::Code>,
}

/// Commands that may have to wait for something.
pub async fn wait<B: Backend>(
    context: &mut Context<'_, B>,
    entry: &'static Entry,
    request: Request<'_>,
    out: &mut ReplyBuf,
) {
    match entry.name {
        "watch" => connection::watch(context, request, out).await,
        "auth" | "hello" => {
            answer(context, entry, request, out);
            if out.as_bytes().starts_with(b"-WRONGPASS") {
                // Guessing is to be slow.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
        "config|set" => config::set(context, request, out).await,
        "wait" => server::wait(context, request, out).await,
        "waitaof" => server::waitaof(context, request, out).await,
        "save" => server::save(context, out).await,
        "debug" => server::debug(context, request, out).await,
        "look.backup" => look::backup(context, request, out).await,
        "look.at" => look::at(context, request, out).await,
        "look.epoch" => look::epoch(context, request, out).await,
        "look.readat" => look::read_at(context, request, out).await,
        "look.cluster|promote" | "look.cluster|demote" | "look.cluster|remove" | "look.cluster|transfer" => {
            look::change_member(context, entry, request, out).await;
        }
        _ => answer(context, entry, request, out),
    }
}

/// A transaction may hold it: it can be answered at once.
pub fn fits_multi(entry: &Entry) -> bool {
    !matches!(
        entry.name,
        "watch"
            | "save"
            | "bgsave"
            | "monitor"
            | "look.at"
            | "look.backup"
            | "look.once"
            | "look.readat"
            | "shutdown"
            | "client|reply"
    ) && !entry.name.starts_with("look.cluster|")
}

/// Commands that can be answered at once.
pub fn answer<B: Backend>(
    context: &mut Context<'_, B>,
    entry: &'static Entry,
    request: Request<'_>,
    out: &mut ReplyBuf,
) {
    match entry.name.split_once('|').map_or(entry.name, |(family, _)| family) {
        "auth" | "hello" | "quit" | "reset" | "client" => connection::answer(context, entry, request, out),
        "command" => command::answer(context, entry, request, out),
        "config" => config::answer(context, entry, request, out),
        "info" => info::answer(context, request, out),
        family if family.starts_with("look.") => look::answer(context, entry, request, out),
        _ => server::answer(context, entry, request, out),
    }
}

pub fn ping(request: Request<'_>, out: &mut ReplyBuf) {
    match request.len() {
        1 => out.simple(b"PONG"),
        2 => out.bulk(request.arg(1)),
        _ => out.error("ERR wrong number of arguments for 'ping' command"),
    }
}

/// Enters a command into the slow log.
pub fn slow<B: Backend>(shared: &Shared<B>, session: &Session, micros: i64, request: Request<'_>) {
    let name = super::clients::locked(&session.client.texts).name.clone();
    let max = shared.config.slowlog_len.load(Relaxed);
    let hidden = lookup(request.arg(0)).is_some_and(|entry| matches!(entry.name, "auth" | "hello"));
    let shown = if hidden { 1 } else { request.len() };
    let args: Vec<&[u8]> = request.iter().take(shown).collect();
    shared.slow_log.add(shared.backend.now_ms(), micros, args.into_iter(), &session.client.addr, &name, max);
}

/// An argument as text, for errors and comparisons.
fn text(arg: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(arg)
}

fn is(arg: &[u8], word: &str) -> bool {
    arg.eq_ignore_ascii_case(word.as_bytes())
}

/// The lines of `… HELP`, as Redis frames them.
fn help(out: &mut ReplyBuf, command: &str, lines: &[&str]) {
    out.array(lines.len() + 3);
    out.simple(format!("{command} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:").as_bytes());
    for line in lines.iter().chain(&["HELP", "    Prints this help."]) {
        out.simple(line.as_bytes());
    }
}
