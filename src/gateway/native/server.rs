//! MEMORY, MONITOR, TIME, LASTSAVE, SAVE, BGSAVE, WAIT, WAITAOF, SHUTDOWN, DEBUG.

use super::{Context, Entry, NOT_INT, SYNTAX, help, is};
use crate::base::Epoch;
use crate::command::args::with_argument;
use crate::gateway::backend::{Backend, Consistency, NodeFacts};
use crate::resp::number::parse_int;
use crate::resp::{ReplyBuf, Request};
use std::time::{Duration, Instant};

pub fn answer<B: Backend>(
    context: &mut Context<'_, B>,
    entry: &'static Entry,
    request: Request<'_>,
    out: &mut ReplyBuf,
) {
    let backend = &context.shared.backend;
    match entry.name {
        "time" => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            out.array(2);
            out.bulk_int(now.as_secs() as i64);
            out.bulk_int(now.subsec_micros().into());
        }
        "lastsave" => out.int(backend.facts().last_checkpoint_s),
        "monitor" => {
            context.session.monitor = true;
            context.session.client.monitor.store(true, std::sync::atomic::Ordering::Relaxed);
            out.ok();
        }
        "bgsave" => bgsave(context, request, out),
        "shutdown" => shutdown(context, request, out),
        // Within MULTI nothing can be waited for.
        "wait" => out.int(backend.replicas_with(context.session.last_epoch) as i64),
        "waitaof" => durable(backend.replicas_with(context.session.last_epoch), out),
        "memory|usage" => memory_usage(context, request, out),
        "memory|stats" => memory_stats(&backend.facts(), context.shared.clients.len(), out),
        "memory|doctor" => out.verbatim(b"txt", MEMORY_DOCTOR.as_bytes()),
        "memory|malloc-stats" => out.verbatim(b"txt", b"Stats not supported for the current allocator"),
        "memory|purge" => out.ok(),
        "memory|help" => help(out, "MEMORY", MEMORY_HELP),
        _ => out.error(SYNTAX),
    }
}

fn memory_usage<B: Backend>(context: &Context<'_, B>, request: Request<'_>, out: &mut ReplyBuf) {
    let mut samples = 5;
    let mut i = 3;
    while i < request.len() {
        if !is(request.arg(i), "SAMPLES") || i + 1 >= request.len() {
            return out.error(SYNTAX);
        }
        samples = match parse_int(request.arg(i + 1)) {
            None => return out.error(NOT_INT),
            Some(n) if n < 0 => return out.error(SYNTAX),
            Some(n) => n,
        };
        i += 2;
    }
    match context.shared.backend.memory_usage(context.session.db, request.arg(2), samples) {
        Some(bytes) => out.int(bytes as i64),
        None => out.nil(),
    }
}

fn memory_stats(facts: &NodeFacts, clients: usize, out: &mut ReplyBuf) {
    let keys: u64 = facts.keyspace.iter().map(|(_, keys, ..)| keys).sum();
    let used = facts.used_memory as i64;
    let overhead = used - facts.dataset_bytes as i64;
    let numbers = [
        ("peak.allocated", used),
        ("total.allocated", used),
        ("startup.allocated", 0),
        ("clients.normal", clients as i64 * 20_000),
        ("overhead.total", overhead),
        ("keys.count", keys as i64),
        ("keys.bytes-per-key", if keys == 0 { 0 } else { used / keys as i64 }),
        ("dataset.bytes", facts.dataset_bytes as i64),
        ("window.bytes", facts.window_bytes as i64),
        ("window.roots", facts.window_roots as i64),
    ];
    out.map(numbers.len());
    for (name, value) in numbers {
        out.bulk(name.as_bytes());
        out.int(value);
    }
}

fn shutdown<B: Backend>(context: &mut Context<'_, B>, request: Request<'_>, out: &mut ReplyBuf) {
    let (mut save, mut no_save, mut abort) = (false, false, false);
    for word in request.iter().skip(1) {
        match word {
            word if is(word, "NOSAVE") => no_save = true,
            word if is(word, "SAVE") => save = true,
            word if is(word, "NOW") || is(word, "FORCE") => {}
            word if is(word, "ABORT") => abort = true,
            _ => return out.error(SYNTAX),
        }
    }
    if save && no_save {
        return out.error(SYNTAX);
    }
    if abort {
        return out.error(if request.len() == 2 { "ERR No shutdown in progress." } else { SYNTAX });
    }
    context.session.closing = true;
    context.shared.backend.shutdown(!no_save);
    context.shared.stop.notify_one();
}

/// Waits until at least `wanted` other nodes hold `epoch`, or for `ms` milliseconds (0: for ever). Tells how many do.
async fn replicas<B: Backend>(backend: &B, epoch: Epoch, wanted: usize, ms: i64) -> usize {
    let until = (ms > 0).then(|| Instant::now() + Duration::from_millis(ms as u64));
    loop {
        let have = backend.replicas_with(epoch);
        if have >= wanted || until.is_some_and(|until| Instant::now() >= until) {
            return have;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn timeout(arg: &[u8]) -> Result<i64, &'static str> {
    match parse_int(arg) {
        None => Err("ERR timeout is not an integer or out of range"),
        Some(ms) if ms < 0 => Err("ERR timeout is negative"),
        Some(ms) => Ok(ms),
    }
}

pub async fn wait<B: Backend>(context: &mut Context<'_, B>, request: Request<'_>, out: &mut ReplyBuf) {
    let Some(wanted) = parse_int(request.arg(1)) else { return out.error(NOT_INT) };
    let ms = match timeout(request.arg(2)) {
        Ok(ms) => ms,
        Err(error) => return out.error(error),
    };
    let (backend, client) = (&context.shared.backend, &context.session.client);
    let have = tokio::select! {
        have = replicas(backend, context.session.last_epoch, wanted.max(0) as usize, ms) => have,
        () = client.until_killed() => 0,
    };
    out.int(have as i64);
}

/// Own log: always synced before the reply.
fn durable(replicas: usize, out: &mut ReplyBuf) {
    out.array(2);
    out.int(1);
    out.int(replicas as i64);
}

pub async fn waitaof<B: Backend>(context: &mut Context<'_, B>, request: Request<'_>, out: &mut ReplyBuf) {
    match parse_int(request.arg(1)) {
        Some(0 | 1) => {}
        _ => return out.error("ERR value is out of range, must be between 0 and 1"),
    }
    let wanted = match parse_int(request.arg(2)) {
        Some(n) if n >= 0 => n as usize,
        _ => return out.error("ERR value is out of range, must be positive"),
    };
    let ms = match timeout(request.arg(3)) {
        Ok(ms) => ms,
        Err(error) => return out.error(error),
    };
    let (backend, client) = (&context.shared.backend, &context.session.client);
    let have = tokio::select! {
        have = replicas(backend, context.session.last_epoch, wanted, ms) => have,
        () = client.until_killed() => 0,
    };
    durable(have, out);
}

pub async fn save<B: Backend>(context: &mut Context<'_, B>, out: &mut ReplyBuf) {
    match context.shared.backend.checkpoint().await {
        Ok(()) => out.ok(),
        Err(error) => out.error(format!("ERR {error}")),
    }
}

fn bgsave<B: Backend>(context: &mut Context<'_, B>, request: Request<'_>, out: &mut ReplyBuf) {
    if request.len() > 2 || (request.len() == 2 && !is(request.arg(1), "SCHEDULE")) {
        return out.error(SYNTAX);
    }
    let backend = context.shared.backend.clone();
    tokio::spawn(async move {
        if let Err(error) = backend.checkpoint().await {
            tracing::warn!(%error, "background checkpoint failed");
        }
    });
    out.simple(b"Background saving started");
}

/// `enable-debug-command`: for nobody, for clients on this machine, for all.
fn may_debug<B: Backend>(context: &Context<'_, B>) -> bool {
    let addr = &context.session.client.addr;
    let local = || {
        addr.ends_with(":0") || addr.parse::<std::net::SocketAddr>().is_ok_and(|a| a.ip().to_canonical().is_loopback())
    };
    match context.shared.config.get("enable-debug-command").as_str() {
        "yes" => true,
        "local" => local(),
        _ => false,
    }
}

pub async fn debug<B: Backend>(context: &mut Context<'_, B>, request: Request<'_>, out: &mut ReplyBuf) {
    if !may_debug(context) {
        return out.error(
            "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can run it from a local \
             connection, otherwise you need to set this option in the configuration file, and then restart the server.",
        );
    }
    let backend = &context.shared.backend;
    match (request.len(), request.arg(1)) {
        (3, word) if is(word, "SLEEP") => {
            let seconds = std::str::from_utf8(request.arg(2)).ok().and_then(|s| s.parse::<f64>().ok()).unwrap_or(0.0);
            let pause = Duration::try_from_secs_f64(seconds.clamp(0.0, 86_400.0)).unwrap_or_default();
            let client = context.session.client.clone();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = client.until_killed() => {}
            }
            out.ok();
        }
        (3, word) if is(word, "OBJECT") => {
            // The answer is about what this connection may see.
            if let Err(refused) = backend.fence(Consistency::Strong, context.session.last_epoch).await {
                return out.error(&*refused.0);
            }
            match backend.debug_object(context.session.db, request.arg(2)) {
                Some(line) => out.simple(line.as_bytes()),
                None => out.error("ERR no such key"),
            }
        }
        _ => {
            if !backend.debug(request, out).await {
                let word = &request.arg(1)[..request.arg(1).len().min(128)];
                let text = "ERR unknown subcommand or wrong number of arguments for '%s'. Try DEBUG HELP.";
                out.error(with_argument(text, word));
            }
        }
    }
}

const MEMORY_DOCTOR: &str =
    "Hi Sam, I can't find any memory issue in your instance. I can only account for what occurs on this base.\n";
const MEMORY_HELP: &[&str] = &[
    "DOCTOR",
    "    Return memory problems reports.",
    "MALLOC-STATS",
    "    Return internal statistics report from the memory allocator.",
    "PURGE",
    "    Attempt to purge dirty pages for reclamation by the allocator.",
    "STATS",
    "    Return information about the memory usage of the server.",
    "USAGE <key> [SAMPLES <count>]",
    "    Return memory in bytes used by <key> and its value. Nested values are",
    "    sampled up to <count> times (default: 5, 0 means sample all).",
];
