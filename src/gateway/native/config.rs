//! CONFIG.

use super::{Context, Entry, SYNTAX, help};
use crate::gateway::Shared;
use crate::gateway::backend::Backend;
use crate::gateway::config::Accepted;
use crate::gateway::system;
use crate::resp::{ReplyBuf, Request};
use std::collections::BTreeMap;
use std::path::Path;

pub fn answer<B: Backend>(context: &Context<'_, B>, entry: &'static Entry, request: Request<'_>, out: &mut ReplyBuf) {
    let shared = context.shared;
    match entry.name {
        "config|get" => {
            let patterns: Vec<&[u8]> = request.iter().skip(2).collect();
            let found = shared.config.matching(&patterns);
            out.map(found.len());
            for (name, value) in found {
                out.bulk(name.as_bytes());
                out.bulk(value.as_bytes());
            }
        }
        "config|resetstat" => {
            shared.totals.reset();
            shared.backend.reset_stats();
            out.ok();
        }
        "config|rewrite" => match rewrite(&shared.backend.facts().config_file, shared.config.lines()) {
            Ok(()) => out.ok(),
            Err(error) => out.error(error),
        },
        _ => help(out, "CONFIG", HELP),
    }
}

/// What a CONFIG SET asks for, if all of it can be had.
pub fn accept<B: Backend>(shared: &Shared<B>, request: Request<'_>) -> Result<Accepted, Vec<u8>> {
    if !request.len().is_multiple_of(2) {
        return Err(SYNTAX.into());
    }
    let pairs: Vec<_> = (2..request.len()).step_by(2).map(|i| (request.arg(i), request.arg(i + 1))).collect();
    shared.config.accept(&pairs)
}

/// CONFIG SET: first what is the cluster's, by an epoch, then what is this node's.
pub async fn set<B: Backend>(context: &mut Context<'_, B>, request: Request<'_>, out: &mut ReplyBuf) {
    let accepted = match accept(context.shared, request) {
        Ok(accepted) => accepted,
        Err(error) => return out.error(error),
    };
    if !accepted.cluster.is_empty()
        && let Err(refused) = system::change(context, &accepted.cluster, None).await
    {
        return out.error(&*refused.0);
    }
    set_here(context.shared, accepted, out);
}

pub fn set_here<B: Backend>(shared: &Shared<B>, accepted: Accepted, out: &mut ReplyBuf) {
    match shared.config.set_here(accepted, |name, value| shared.backend.configure(name, value)) {
        Ok(()) => out.ok(),
        Err(error) => out.error(error),
    }
}

/// Replaces the values in the configuration file, keeps its comments and order, appends what it did not name.
fn rewrite(file: &str, lines: Vec<(&'static str, String)>) -> Result<(), String> {
    if file.is_empty() {
        return Err("ERR The server is running without a config file".into());
    }
    let failed = |e: std::io::Error| format!("ERR Rewriting config file: {e}");
    let old = std::fs::read_to_string(file).map_err(failed)?;
    let mut left: BTreeMap<&str, String> = lines.into_iter().collect();
    let mut new = String::new();
    for line in old.lines() {
        let name = line.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
        match left.remove_entry(name.as_str()) {
            Some((name, value)) => new += &setting(name, &value),
            None => new += &format!("{line}\n"),
        }
    }
    left.iter().for_each(|(name, value)| new += &setting(name, value));
    // Whole or not at all: written beside it, then moved over it.
    let beside = Path::new(file).with_extension("rewrite");
    std::fs::write(&beside, new).and_then(|()| std::fs::rename(&beside, file)).map_err(failed)
}

fn setting(name: &str, value: &str) -> String {
    if value.is_empty() { format!("{name} \"\"\n") } else { format!("{name} {value}\n") }
}

const HELP: &[&str] = &[
    "GET <pattern>",
    "    Return parameters matching the glob-like <pattern> and their values.",
    "SET <directive> <value>",
    "    Set the configuration <directive> to <value>.",
    "RESETSTAT",
    "    Reset statistics reported by the INFO command.",
    "REWRITE",
    "    Rewrite the configuration file.",
];
