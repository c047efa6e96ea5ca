//! COMMAND: the code table and the natives, described as Redis 7.2 describes its own.

use super::entries::ENTRIES;
use super::{Context, Entry, SYNTAX, help, is, table};
use crate::base::glob;
use crate::gateway::backend::{Argument, Backend, Code, Description, KeyAt, KeySpec};
use crate::resp::{ReplyBuf, Request};

pub fn answer<B: Backend>(
    context: &mut Context<'_, B>,
    entry: &'static Entry,
    request: Request<'_>,
    out: &mut ReplyBuf,
) {
    match entry.name {
        "command" => {
            let all = all(&**context.code);
            out.array(all.len());
            all.iter().for_each(|d| info(d, out));
        }
        "command|count" => out.int(all(&**context.code).len() as i64),
        "command|list" => list(context, request, out),
        "command|info" if request.len() == 2 => {
            let all = all(&**context.code);
            out.array(all.len());
            all.iter().for_each(|d| info(d, out));
        }
        "command|info" => {
            out.array(request.len() - 2);
            for name in request.iter().skip(2) {
                match describe(context, name) {
                    Some(description) => info(&description, out),
                    None => out.nil(),
                }
            }
        }
        "command|docs" => {
            let described = if request.len() == 2 {
                all(&**context.code)
            } else {
                request.iter().skip(2).filter_map(|name| describe(context, name)).collect()
            };
            out.map(described.len());
            described.iter().for_each(|d| docs(d, out));
        }
        "command|getkeys" => match keys(context, request) {
            Ok(keys) => {
                out.array(keys.len());
                keys.iter().for_each(|key| out.bulk(request.arg(key.position + 2)));
            }
            Err(error) => out.error(error),
        },
        "command|getkeysandflags" => match keys(context, request) {
            Ok(keys) => {
                out.array(keys.len());
                for key in keys {
                    out.array(2);
                    out.bulk(request.arg(key.position + 2));
                    words(&key.flags, out);
                }
            }
            Err(error) => out.error(error),
        },
        _ => help(out, "COMMAND", HELP),
    }
}

/// Every command, in order of name.
pub fn all<C: Code>(code: &C) -> Vec<Description> {
    let mut all: Vec<_> = code.commands().into_iter().map(|id| code.describe(id)).collect();
    all.extend(ENTRIES.iter().map(Entry::describe));
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all.dedup_by(|a, b| a.name == b.name);
    all
}

/// By name; `client|id` names a subcommand.
fn describe<B: Backend>(context: &Context<'_, B>, name: &[u8]) -> Option<Description> {
    let mut parts = name.split(|&b| b == b'|');
    let top = parts.next()?;
    let description = match context.code.lookup(top) {
        Some(route) => context.code.describe(route.id),
        None => table::lookup(top)?.describe(),
    };
    let Some(_) = parts.next() else { return Some(description) };
    description.subcommands.into_iter().find(|sub| is(name, &sub.name))
}

fn words<S: AsRef<str>>(words: &[S], out: &mut ReplyBuf) {
    out.set(words.len());
    words.iter().for_each(|word| out.simple(word.as_ref().as_bytes()));
}

/// One element of `COMMAND INFO`.
fn info(d: &Description, out: &mut ReplyBuf) {
    out.array(10);
    out.bulk(d.name.as_bytes());
    out.int(d.arity.into());
    words(&d.flags, out);
    out.int(d.first_key.into());
    out.int(d.last_key.into());
    out.int(d.key_step.into());
    let categories: Vec<String> = d.categories.iter().map(|c| format!("@{c}")).collect();
    words(&categories, out);
    out.set(d.tips.len());
    d.tips.iter().for_each(|tip| out.bulk(tip.as_bytes()));
    out.set(d.key_specs.len());
    d.key_specs.iter().for_each(|spec| key_spec(spec, out));
    if d.subcommands.is_empty() {
        out.set(0)
    } else {
        out.array(d.subcommands.len())
    }
    d.subcommands.iter().for_each(|sub| info(sub, out));
}

fn key_spec(spec: &KeySpec, out: &mut ReplyBuf) {
    out.map(3);
    out.bulk(b"flags");
    words(&spec.flags, out);
    out.bulk(b"begin_search");
    out.map(2);
    out.bulk(b"type");
    out.bulk(b"index");
    out.bulk(b"spec");
    out.map(1);
    out.bulk(b"index");
    out.int(spec.begin.into());
    out.bulk(b"find_keys");
    out.map(2);
    out.bulk(b"type");
    out.bulk(b"range");
    out.bulk(b"spec");
    out.map(3);
    for (name, value) in [("lastkey", spec.last), ("keystep", spec.step), ("limit", spec.limit)] {
        out.bulk(name.as_bytes());
        out.int(value.into());
    }
}

/// One pair of `COMMAND DOCS`.
fn docs(d: &Description, out: &mut ReplyBuf) {
    out.bulk(d.name.as_bytes());
    let texts = [("summary", &d.summary), ("since", &d.since), ("group", &d.group), ("complexity", &d.complexity)];
    let present = texts.iter().filter(|(_, value)| !value.is_empty()).count();
    out.map(present + !d.arguments.is_empty() as usize + !d.subcommands.is_empty() as usize);
    for (name, value) in texts.iter().filter(|(_, value)| !value.is_empty()) {
        out.bulk(name.as_bytes());
        out.bulk(value.as_bytes());
    }
    if !d.arguments.is_empty() {
        out.bulk(b"arguments");
        arguments(&d.arguments, out);
    }
    if !d.subcommands.is_empty() {
        out.bulk(b"subcommands");
        out.map(d.subcommands.len());
        d.subcommands.iter().for_each(|sub| docs(sub, out));
    }
}

fn arguments(list: &[Argument], out: &mut ReplyBuf) {
    out.array(list.len());
    for argument in list {
        let plain = !matches!(argument.kind.as_str(), "oneof" | "block");
        let flags: Vec<&str> = [(argument.optional, "optional"), (argument.multiple, "multiple")]
            .iter()
            .filter_map(|(set, flag)| set.then_some(*flag))
            .collect();
        out.map(
            2 + plain as usize
                + argument.key_spec.is_some() as usize
                + argument.token.is_some() as usize
                + !flags.is_empty() as usize
                + !argument.arguments.is_empty() as usize,
        );
        let mut pair = |name: &str, value: &str| {
            out.bulk(name.as_bytes());
            out.bulk(value.as_bytes());
        };
        pair("name", &argument.name);
        pair("type", &argument.kind);
        if plain {
            pair("display_text", &argument.name);
        }
        if let Some(number) = argument.key_spec {
            out.bulk(b"key_spec_index");
            out.int(number.into());
        }
        if let Some(token) = &argument.token {
            out.bulk(b"token");
            out.bulk(token.as_bytes());
        }
        if !flags.is_empty() {
            out.bulk(b"flags");
            words(&flags, out);
        }
        if !argument.arguments.is_empty() {
            out.bulk(b"arguments");
            arguments(&argument.arguments, out);
        }
    }
}

fn list<B: Backend>(context: &Context<'_, B>, request: Request<'_>, out: &mut ReplyBuf) {
    let all = all(&**context.code);
    let names: Vec<&str> = if request.len() == 2 {
        all.iter().map(|d| d.name.as_str()).collect()
    } else if request.len() == 5 && is(request.arg(2), "FILTERBY") {
        let (by, value) = (request.arg(3), request.arg(4));
        let every = all.iter().flat_map(|d| std::iter::once(d).chain(&d.subcommands));
        if is(by, "MODULE") {
            Vec::new()
        } else if is(by, "ACLCAT") {
            every.filter(|d| d.categories.iter().any(|c| is(value, c))).map(|d| d.name.as_str()).collect()
        } else if is(by, "PATTERN") {
            let pattern = value.to_ascii_lowercase();
            every.filter(|d| glob::matches(&pattern, d.name.as_bytes())).map(|d| d.name.as_str()).collect()
        } else {
            return out.error(SYNTAX);
        }
    } else {
        return out.error(SYNTAX);
    };
    out.array(names.len());
    names.iter().for_each(|name| out.bulk(name.as_bytes()));
}

/// Positions, relative to the command that the request asks about.
fn keys<B: Backend>(context: &Context<'_, B>, request: Request<'_>) -> Result<Vec<KeyAt>, &'static str> {
    const UNKNOWN: &str = "ERR Invalid command specified";
    const ARITY: &str = "ERR Invalid number of arguments specified for command";
    const NO_KEYS: &str = "ERR The command has no key arguments";
    let inner = request.skip(2);
    if let Some(route) = context.code.lookup(inner.arg(0)) {
        let count = inner.len() as i32;
        if (route.arity > 0 && count != route.arity) || count < -route.arity {
            return Err(ARITY);
        }
        let nameless = !context.code.name(route.id, inner).contains('|');
        if nameless && !context.code.describe(route.id).subcommands.is_empty() {
            return Err(UNKNOWN);
        }
        let keys = context.code.keys(route.id, inner).ok_or(NO_KEYS)?;
        return if keys.is_empty() { Err(ARITY) } else { Ok(keys) };
    }
    let entry = table::lookup(inner.arg(0)).ok_or(UNKNOWN)?;
    let leaf = entry.resolve(inner).map_err(|e| if e.starts_with(b"ERR unknown") { UNKNOWN } else { ARITY })?;
    match leaf.keys {
        (0, ..) => Err(NO_KEYS),
        (first, ..) => {
            Ok((first as usize..inner.len()).map(|position| KeyAt { position, flags: vec!["RO"] }).collect())
        }
    }
}

const HELP: &[&str] = &[
    "(no subcommand)",
    "    Return details about all Redis commands.",
    "COUNT",
    "    Return the total number of commands in this Redis server.",
    "LIST",
    "    Return a list of all commands in this Redis server.",
    "INFO [<command-name> ...]",
    "    Return details about multiple Redis commands.",
    "    If no command names are given, documentation details for all",
    "    commands are returned.",
    "DOCS [<command-name> ...]",
    "    Return documentation details about multiple Redis commands.",
    "    If no command names are given, documentation details for all",
    "    commands are returned.",
    "GETKEYS <full-command>",
    "    Return the keys from a full Redis command.",
    "GETKEYSANDFLAGS <full-command>",
    "    Return the keys and the access flags from a full Redis command.",
];
