//! Look's own commands: epochs, past reads, consistency, bounds, usage, cluster.

use super::{Context, Entry, SYNTAX, is};
use crate::apply::pending::Plan;
use crate::base::{Epoch, Millis};
use crate::command::costs::Counter;
use crate::gateway::backend::{Backend, Code, Consistency, MemberChange, PastError};
use crate::gateway::chunk::unknown;
use crate::gateway::guard;
use crate::resp::number::parse_int;
use crate::resp::{ReplyBuf, Request};

pub fn answer<B: Backend>(
    context: &mut Context<'_, B>,
    entry: &'static Entry,
    request: Request<'_>,
    out: &mut ReplyBuf,
) {
    let backend = &context.shared.backend;
    match entry.name {
        // Only within MULTI; elsewhere `epoch` answers, after a fence.
        "look.epoch" => out.int(backend.epoch().0 as i64),
        "look.since" => out.int(backend.since().0 as i64),
        "look.last" => out.int(context.session.last_epoch.0 as i64),
        "look.consistency" => consistency(context, request, out),
        "look.explain" => match context.code.lookup(request.arg(1)) {
            Some(route) => backend.explain(context.code, route.id, request.skip(1), context.session.db, out),
            None if super::lookup(request.arg(1)).is_some() => {
                out.error("ERR this command is answered by the gateway; it runs no program");
            }
            None => out.error(unknown(request.skip(1))),
        },
        "look.usage" => usage(context, out),
        "look.cluster|help" => super::help(out, "LOOK.CLUSTER", CLUSTER_HELP),
        "look.cluster" => out.verbatim(b"txt", backend.cluster().as_bytes()),
        _ => out.error(SYNTAX),
    }
}

/// What calls have cost this node: a line a command, then a line a client name.
fn usage<B: Backend>(context: &Context<'_, B>, out: &mut ReplyBuf) {
    let commands = context.shared.commands();
    let clients = context.shared.clients.usage();
    let line = |name: &str, c: &Counter| {
        let usec = c.nanos / 1000;
        format!("{name}: calls={},failed={},ops={},locs={},usec={usec}", c.calls, c.failed, c.ops, c.locs)
    };
    out.array(commands.len() + clients.len());
    commands.iter().for_each(|(name, total)| out.bulk(line(name, &total.counter).as_bytes()));
    for (name, used) in clients {
        let usec = used.nanos / 1000;
        let Counter { calls, ops, locs, .. } = used;
        out.bulk(format!("client {name}: calls={calls},ops={ops},locs={locs},usec={usec}").as_bytes());
    }
}

const CLUSTER_HELP: &[&str] = &[
    "(no subcommand)",
    "    Tell who leads and how far each node is.",
    "PROMOTE <node>",
    "    Let a learner vote. It must be there, and not far behind.",
    "DEMOTE <node>",
    "    Make a voter a learner.",
    "REMOVE <node>",
    "    Dismiss a node for ever; it stops. Its id is not given again.",
    "TRANSFER <node>",
    "    Let another voter lead.",
];

/// `LOOK.CLUSTER PROMOTE | DEMOTE | REMOVE | TRANSFER <node>`
pub async fn change_member<B: Backend>(
    context: &mut Context<'_, B>,
    entry: &'static Entry,
    request: Request<'_>,
    out: &mut ReplyBuf,
) {
    let change = match entry.name {
        "look.cluster|promote" => MemberChange::Promote,
        "look.cluster|demote" => MemberChange::Demote,
        "look.cluster|remove" => MemberChange::Remove,
        _ => MemberChange::Transfer,
    };
    let Some(node) = parse_int(request.arg(2)).filter(|id| *id > 0) else {
        return out.error("ERR a node is named by its number, as LOOK.CLUSTER shows it");
    };
    match context.shared.backend.change_member(change, node as u64).await {
        Ok(()) => out.ok(),
        Err(refused) => out.error(&*refused.0),
    }
}

fn consistency<B: Backend>(context: &mut Context<'_, B>, request: Request<'_>, out: &mut ReplyBuf) {
    const NAMES: [(&str, Consistency); 3] =
        [("strong", Consistency::Strong), ("session", Consistency::Session), ("eventual", Consistency::Eventual)];
    match request.len() {
        1 => {
            let current = NAMES.iter().find(|(_, c)| *c == context.session.consistency);
            out.bulk(current.map_or("strong", |(name, _)| name).as_bytes());
        }
        2 => match NAMES.iter().find(|(name, _)| is(request.arg(1), name)) {
            Some((_, consistency)) => {
                context.session.consistency = *consistency;
                out.ok();
            }
            None => out.error("ERR consistency must be strong, session or eventual"),
        },
        _ => out.error(SYNTAX),
    }
}

/// Why an epoch that a client named is none.
enum EpochError {
    Syntax,
    Past(PastError),
}

impl EpochError {
    fn answer(&self, out: &mut ReplyBuf) {
        match self {
            EpochError::Syntax => out.error("ERR epoch must be a number, t:<milliseconds since 1970>, -<n>s or -<n>ms"),
            EpochError::Past(error) => out.error(error.to_string()),
        }
    }
}

/// `1234`, `t:1700000000000`, `-5s`, `-500ms`
fn epoch_of<B: Backend>(context: &Context<'_, B>, word: &[u8]) -> Result<Epoch, EpochError> {
    let backend = &context.shared.backend;
    let number = |digits: &[u8]| parse_int(digits).filter(|n| *n >= 0).ok_or(EpochError::Syntax);
    let at = |time: Millis| backend.epoch_at(time).map_err(EpochError::Past);
    match word {
        [b't', b':', digits @ ..] => at(number(digits)?),
        [b'-', digits @ .., b'm', b's'] => at(backend.now_ms().saturating_sub(number(digits)?)),
        [b'-', digits @ .., b's'] => at(backend.now_ms().saturating_sub(number(digits)?.saturating_mul(1000))),
        digits => Ok(Epoch(number(digits)? as u64)),
    }
}

/// The newest epoch, or the newest at a time. Strong: no epoch that was acknowledged before is missed.
pub async fn epoch<B: Backend>(context: &mut Context<'_, B>, request: Request<'_>, out: &mut ReplyBuf) {
    if request.len() > 2 {
        return out.error(SYNTAX);
    }
    if let Err(refused) = context.shared.backend.fence(context.session.consistency, context.session.last_epoch).await {
        return out.error(&*refused.0);
    }
    if request.len() == 1 {
        return out.int(context.shared.backend.epoch().0 as i64);
    }
    // A plain number is a time here.
    let epoch = match parse_int(request.arg(1)).filter(|ms| *ms >= 0) {
        Some(ms) => context.shared.backend.epoch_at(ms).map_err(EpochError::Past),
        None => epoch_of(context, request.arg(1)),
    };
    match epoch {
        Ok(epoch) => out.int(epoch.0 as i64),
        Err(error) => error.answer(out),
    }
}

/// `LOOK.BACKUP <word …>`: spoken by `look backup` with the node's keeper of backups.
pub async fn backup<B: Backend>(context: &mut Context<'_, B>, request: Request<'_>, out: &mut ReplyBuf) {
    let words = request.iter().skip(1).map(<[u8]>::to_vec).collect();
    match context.shared.backend.backup(words).await {
        Ok(bytes) => out.bulk(&bytes),
        Err(error) => out.error(format!("ERR {error}")),
    }
}

/// `LOOK.AT <epoch> <read command …>`
pub async fn at<B: Backend>(context: &mut Context<'_, B>, request: Request<'_>, out: &mut ReplyBuf) {
    let inner = request.skip(2);
    let Some(route) = context.code.lookup(inner.arg(0)) else {
        return out.error(match super::lookup(inner.arg(0)) {
            Some(_) => b"ERR LOOK.AT takes a command that reads data".to_vec(),
            None => unknown(inner),
        });
    };
    if route.write {
        return out.error("ERR LOOK.AT takes a command that reads; the past does not change");
    }
    let backend = &context.shared.backend;
    if let Err(refused) = backend.fence(context.session.consistency, context.session.last_epoch).await {
        return out.error(&*refused.0);
    }
    let epoch = match epoch_of(context, request.arg(1)) {
        Ok(epoch) => epoch,
        Err(error) => return error.answer(out),
    };
    let mut plan = Plan::default();
    // The rights are today's, whatever they were then.
    let parsed = guard::parse(context.shared, context.session, &**context.code, route.id, inner, &mut plan.riders);
    if let Err(error) = parsed {
        return out.error(&*error.0);
    }
    plan.rider();
    match backend.read_at(epoch, context.code.clone(), plan, ReplyBuf::new(out.version())).await {
        Ok((reply, _)) => out.raw(reply.as_bytes()),
        Err((error, _)) => out.error(error.to_string()),
    }
}

/// `LOOK.READAT <epoch> | OFF`
pub async fn read_at<B: Backend>(context: &mut Context<'_, B>, request: Request<'_>, out: &mut ReplyBuf) {
    if is(request.arg(1), "OFF") {
        context.session.read_at = context.session.stays_at;
        return out.ok();
    }
    let backend = &context.shared.backend;
    if let Err(refused) = backend.fence(context.session.consistency, context.session.last_epoch).await {
        return out.error(&*refused.0);
    }
    let epoch = match epoch_of(context, request.arg(1)) {
        Ok(epoch) => epoch,
        Err(error) => return error.answer(out),
    };
    let (since, newest) = (backend.since(), backend.epoch());
    if epoch < since {
        return out.error(PastError::TooOld(since).to_string());
    }
    if epoch > newest {
        return out.error(PastError::Future(newest.next()).to_string());
    }
    context.session.read_at = Some(epoch);
    out.ok();
}
