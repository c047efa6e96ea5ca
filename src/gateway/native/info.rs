//! INFO: Redis 7.2's sections and field names, and a section `look`.

use super::Context;
use super::connection::REDIS_VERSION;
use super::latency::{command_stats, latency_stats};
use crate::gateway::backend::{Backend, NodeFacts};
use crate::gateway::observe::process_bytes;
use crate::resp::{ReplyBuf, Request};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// In the order of Redis. Those of the second list are only shown when they are asked for.
const DEFAULT: &[&str] = &[
    "server",
    "clients",
    "memory",
    "persistence",
    "stats",
    "replication",
    "cpu",
    "modules",
    "errorstats",
    "cluster",
    "keyspace",
    "look",
];
const ON_DEMAND: &[&str] = &["commandstats", "latencystats"];

pub fn answer<B: Backend>(context: &mut Context<'_, B>, request: Request<'_>, out: &mut ReplyBuf) {
    let mut wanted: Vec<&str> = Vec::new();
    for arg in request.iter().skip(1) {
        match arg.to_ascii_lowercase().as_slice() {
            b"default" => wanted.extend(DEFAULT),
            b"all" | b"everything" => wanted.extend(DEFAULT.iter().chain(ON_DEMAND)),
            name => wanted.extend(DEFAULT.iter().chain(ON_DEMAND).filter(|s| s.as_bytes() == name)),
        }
    }
    if request.len() == 1 {
        wanted.extend(DEFAULT);
    }
    let facts = context.shared.backend.facts();
    let mut text = String::new();
    for section in DEFAULT[..9].iter().chain(ON_DEMAND).chain(&DEFAULT[9..]).filter(|s| wanted.contains(s)) {
        if !text.is_empty() {
            text += "\r\n";
        }
        write_section(&mut text, section, context, &facts);
    }
    out.verbatim(b"txt", text.as_bytes());
}

/// `name:value` lines.
struct Lines<'a>(&'a mut String);

impl Lines<'_> {
    fn add(&mut self, name: &str, value: impl std::fmt::Display) {
        let _ = write!(self.0, "{name}:{value}\r\n");
    }
}

fn write_section<B: Backend>(text: &mut String, section: &str, context: &Context<'_, B>, facts: &NodeFacts) {
    let title = match section {
        "cpu" => "CPU".to_owned(),
        _ => section[..1].to_ascii_uppercase() + &section[1..],
    };
    let _ = write!(text, "# {title}\r\n");
    let mut lines = Lines(text);
    match section {
        "server" => server(&mut lines, context, facts),
        "clients" => clients(&mut lines, context),
        "memory" => memory(&mut lines, context, facts),
        "persistence" => persistence(&mut lines, facts),
        "stats" => stats(&mut lines, context, facts),
        "replication" => replication(&mut lines, facts),
        "cpu" => cpu(&mut lines),
        "commandstats" => command_stats(&context.shared.commands()).for_each(|(name, value)| lines.add(&name, value)),
        "latencystats" if context.shared.config.get("latency-tracking") == "yes" => {
            let percentiles = context.shared.config.get("latency-tracking-info-percentiles");
            let all = latency_stats(&context.shared.commands(), &percentiles);
            all.iter().for_each(|(name, value)| lines.add(name, value));
        }
        "errorstats" => {
            for (code, count) in context.shared.totals.errors() {
                lines.add(&format!("errorstat_{code}"), format_args!("count={count}"));
            }
        }
        "cluster" => lines.add("cluster_enabled", 0),
        "keyspace" => {
            for (db, keys, expires, ttl) in &facts.keyspace {
                lines.add(&format!("db{db}"), format_args!("keys={keys},expires={expires},avg_ttl={ttl}"));
            }
        }
        "look" => look(&mut lines, facts),
        _ => {}
    }
}

fn server<B: Backend>(lines: &mut Lines<'_>, context: &Context<'_, B>, facts: &NodeFacts) {
    let uptime = context.shared.started.elapsed().as_secs();
    let now = context.shared.backend.now_ms();
    lines.add("redis_version", REDIS_VERSION);
    lines.add("redis_git_sha1", "00000000");
    lines.add("redis_git_dirty", 0);
    lines.add("redis_build_id", "0000000000000000");
    lines.add("redis_mode", "standalone");
    lines.add("os", os());
    lines.add("arch_bits", usize::BITS);
    lines.add("monotonic_clock", "POSIX clock_gettime");
    lines.add("multiplexing_api", "epoll");
    lines.add("atomicvar_api", "c11-builtin");
    lines.add("gcc_version", "0.0.0");
    lines.add("process_id", std::process::id());
    lines.add("process_supervised", "no");
    lines.add("run_id", &facts.run_id);
    lines.add("tcp_port", context.shared.config.get("port"));
    lines.add("server_time_usec", now * 1000);
    lines.add("uptime_in_seconds", uptime);
    lines.add("uptime_in_days", uptime / 86_400);
    lines.add("hz", context.shared.config.get("hz"));
    lines.add("configured_hz", context.shared.config.get("hz"));
    lines.add("lru_clock", (now / 1000) & 0xff_ffff);
    lines.add("executable", std::env::current_exe().unwrap_or_default().display());
    lines.add("config_file", &facts.config_file);
    lines.add("io_threads_active", 0);
    lines.add(
        "listener0",
        format_args!("name=tcp,bind={},port={}", context.shared.config.get("bind"), context.shared.config.get("port")),
    );
}

fn os() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {} {}", release.trim(), std::env::consts::ARCH)
}

fn clients<B: Backend>(lines: &mut Lines<'_>, context: &Context<'_, B>) {
    let all = context.shared.clients.all();
    lines.add("connected_clients", all.len());
    lines.add("cluster_connections", 0);
    lines.add("maxclients", context.shared.config.maxclients.load(Relaxed));
    lines.add(
        "client_recent_max_input_buffer",
        all.iter().map(|c| c.query_bytes.load(Relaxed) + c.query_free.load(Relaxed)).max().unwrap_or(0),
    );
    lines.add("client_recent_max_output_buffer", all.iter().map(|c| c.output_bytes.load(Relaxed)).max().unwrap_or(0));
    lines.add("blocked_clients", 0);
    lines.add("tracking_clients", 0);
    lines.add("clients_in_timeout_table", 0);
    lines.add("total_blocking_keys", 0);
    lines.add("total_blocking_keys_on_nokey", 0);
}

/// Redis's `bytesToHuman`.
fn human(bytes: u64) -> String {
    let n = bytes as f64;
    match bytes {
        0..1024 => format!("{bytes}B"),
        1024..0x10_0000 => format!("{:.2}K", n / 1024.0),
        0x10_0000..0x4000_0000 => format!("{:.2}M", n / 1_048_576.0),
        _ => format!("{:.2}G", n / 1_073_741_824.0),
    }
}

fn memory<B: Backend>(lines: &mut Lines<'_>, context: &Context<'_, B>, facts: &NodeFacts) {
    let (rss, peak) = (process_bytes("VmRSS"), process_bytes("VmHWM"));
    let maxmemory = context.shared.config.get("maxmemory").parse().unwrap_or(0);
    let mut both = |name: &str, bytes: u64| {
        lines.add(name, bytes);
        lines.add(&format!("{name}_human"), human(bytes));
    };
    both("used_memory", facts.used_memory);
    both("used_memory_rss", rss);
    both("used_memory_peak", peak);
    both("maxmemory", maxmemory);
    lines.add("used_memory_overhead", facts.used_memory.saturating_sub(facts.dataset_bytes));
    lines.add("used_memory_startup", 0);
    lines.add("used_memory_dataset", facts.dataset_bytes);
    lines.add("maxmemory_policy", context.shared.config.get("maxmemory-policy"));
    lines.add("mem_fragmentation_ratio", format_args!("{:.2}", rss as f64 / facts.used_memory.max(1) as f64));
    lines.add("mem_allocator", "mimalloc");
    lines.add("active_defrag_running", 0);
    lines.add("lazyfree_pending_objects", 0);
}

fn persistence(lines: &mut Lines<'_>, facts: &NodeFacts) {
    let ok = if facts.last_checkpoint_ok { "ok" } else { "err" };
    lines.add("loading", 0);
    lines.add("async_loading", 0);
    lines.add("rdb_changes_since_last_save", facts.changes_since_checkpoint);
    lines.add("rdb_bgsave_in_progress", facts.checkpoint_in_progress as u8);
    lines.add("rdb_last_save_time", facts.last_checkpoint_s);
    lines.add("rdb_last_bgsave_status", ok);
    lines.add("rdb_last_bgsave_time_sec", -1);
    lines.add("rdb_current_bgsave_time_sec", -1);
    lines.add("aof_enabled", 1);
    lines.add("aof_rewrite_in_progress", 0);
    lines.add("aof_rewrite_scheduled", 0);
    lines.add("aof_last_bgrewrite_status", "ok");
    lines.add("aof_last_write_status", "ok");
}

fn stats<B: Backend>(lines: &mut Lines<'_>, context: &Context<'_, B>, facts: &NodeFacts) {
    let totals = &context.shared.totals;
    let mut add = |name: &str, counter: &AtomicU64| lines.add(name, counter.load(Relaxed));
    add("total_connections_received", &totals.connections);
    add("total_commands_processed", &totals.commands);
    add("total_net_input_bytes", &totals.bytes_in);
    add("total_net_output_bytes", &totals.bytes_out);
    add("rejected_connections", &totals.rejected);
    add("total_error_replies", &totals.error_replies);
    add("total_reads_processed", &totals.reads);
    add("total_writes_processed", &totals.writes);
    add("client_query_buffer_limit_disconnections", &totals.query_limit_disconnections);
    add("client_output_buffer_limit_disconnections", &totals.output_limit_disconnections);
    lines.add("instantaneous_ops_per_sec", 0);
    lines.add("expired_keys", facts.expired_keys);
    lines.add("evicted_keys", 0);
    lines.add("keyspace_hits", facts.keyspace_hits);
    lines.add("keyspace_misses", facts.keyspace_misses);
    lines.add("pubsub_channels", 0);
    lines.add("pubsub_patterns", 0);
    lines.add("latest_fork_usec", 0);
    lines.add("total_forks", 0);
    lines.add("slave_expires_tracked_keys", 0);
}

fn replication(lines: &mut Lines<'_>, facts: &NodeFacts) {
    // Every node takes writes, so each says what a client may rely upon.
    lines.add("role", "master");
    let others: Vec<_> = facts.peers.iter().filter(|(id, ..)| *id != facts.node_id).collect();
    lines.add("connected_slaves", others.iter().filter(|(.., online)| *online).count());
    for (i, (_, address, matched, lag, online)) in others.iter().enumerate() {
        let (ip, port) = address.rsplit_once(':').unwrap_or((address, "0"));
        let state = if *online { "online" } else { "offline" };
        lines.add(&format!("slave{i}"), format_args!("ip={ip},port={port},state={state},offset={matched},lag={lag}"));
    }
    lines.add("master_failover_state", "no-failover");
    lines.add("master_replid", &facts.run_id);
    lines.add("master_replid2", "0".repeat(40));
    lines.add("master_repl_offset", facts.log_last);
    lines.add("second_repl_offset", -1);
    lines.add("repl_backlog_active", 0);
}

fn cpu(lines: &mut Lines<'_>) {
    // Fields 14 and 15 of /proc/self/stat, in ticks of 10 ms.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |n: usize| after_name.split_whitespace().nth(n).and_then(|t| t.parse::<u64>().ok()).unwrap_or(0);
    let seconds = |ticks: u64| format!("{}.{:02}0000", ticks / 100, ticks % 100);
    lines.add("used_cpu_sys", seconds(ticks(12)));
    lines.add("used_cpu_user", seconds(ticks(11)));
    lines.add("used_cpu_sys_children", seconds(ticks(14)));
    lines.add("used_cpu_user_children", seconds(ticks(13)));
}

fn look(lines: &mut Lines<'_>, facts: &NodeFacts) {
    lines.add("look_version", env!("CARGO_PKG_VERSION"));
    lines.add("node_id", facts.node_id);
    lines.add("data_dir", &facts.data_dir);
    lines.add("epoch", facts.epoch);
    lines.add("since", facts.since);
    lines.add("window_roots", facts.window_roots);
    lines.add("window_bytes", facts.window_bytes);
    lines.add("leader", facts.leader.map_or_else(|| "none".to_owned(), |id| id.to_string()));
    lines.add("role", if facts.is_leader { "leader" } else { "follower" });
    lines.add("term", facts.term);
    lines.add("log_first", facts.log_first);
    lines.add("log_last", facts.log_last);
    lines.add("log_committed", facts.log_committed);
    lines.add("log_applied", facts.log_applied);
    lines.add("code_version", facts.code_version);
    lines.add("engine", if facts.jit { "jit" } else { "interpreter" });
    for (name, value) in &facts.extra {
        lines.add(name, value);
    }
}
