//! The table of parameters: Redis 7.2's names where a meaning exists or a tool asks for them, and Look's own.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// What a value must look like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    YesNo,
    Number(i64, i64),
    /// Bytes, with units; at least so many.
    Memory(u64),
    /// Numbers between 0 and 100.
    Percentiles,
    OutputLimits,
    Text,
    /// There is no other value here than the default, which is what is true.
    Fixed,
}

/// Who may change it when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Set {
    /// Given at start.
    Never,
    Here,
    /// Below the gateway: handed on.
    Node,
    /// It changes replies, so it is the cluster's: a change is an epoch, and every node follows it (below the gateway too).
    Cluster,
    /// `requirepass`: the password of the default user, who is the cluster's. Only its hash is kept, so it is never shown.
    DefaultUser,
}

#[derive(Debug)]
pub(super) struct Parameter {
    pub name: &'static str,
    pub kind: Kind,
    pub default: &'static str,
    pub set: Set,
}

use Kind::*;
use Set::*;
const MAX: i64 = i64::MAX;
const INT: i64 = i32::MAX as i64;

type Row = (&'static str, Kind, &'static str, Set);

const SETTABLE: &[Row] = &[
    // Of the cluster.
    ("max-write-cost", Number(1, MAX), "500000000", Cluster),
    ("proto-max-bulk-len", Memory(1 << 20), "536870912", Cluster),
    ("requirepass", Text, "", DefaultUser),
    // Of this node.
    ("acllog-max-len", Number(0, 1_000_000), "128", Here),
    ("checkpoint-bytes", Memory(0), "268435456", Node),
    (
        "client-output-buffer-limit",
        OutputLimits,
        "normal 67108864 16777216 60 slave 0 0 0 pubsub 33554432 8388608 60",
        Here,
    ),
    ("client-query-buffer-limit", Memory(1 << 20), "67108864", Here),
    ("latency-monitor-threshold", Number(0, MAX), "0", Here),
    ("latency-tracking", YesNo, "yes", Here),
    ("latency-tracking-info-percentiles", Percentiles, "50 99 99.9", Here),
    ("maxclients", Number(1, u32::MAX as i64), "10000", Here),
    ("maxclients-per-address", Number(0, u32::MAX as i64), "0", Here),
    ("protected-mode", YesNo, "yes", Here),
    ("slowlog-log-slower-than", Number(-1, MAX), "10000", Here),
    ("slowlog-max-len", Number(0, 1_000_000), "128", Here),
    ("tcp-keepalive", Number(0, INT), "60", Here),
    ("timeout", Number(0, INT), "0", Here),
    ("window-bytes", Memory(0), "1073741824", Node),
    ("window-epochs", Number(0, MAX), "1000000", Node),
    ("window-ms", Number(0, MAX), "15000", Node),
    // Of this node, from its start on.
    ("admin-bind", Text, "127.0.0.1", Never),
    ("admin-port", Number(0, 65_535), "0", Never),
    ("batch-interval", Number(0, 60_000), "0", Never),
    ("bind", Text, "127.0.0.1", Never),
    ("dir", Text, "", Never),
    ("enable-debug-command", Text, "no", Never),
    ("engine", Text, "jit", Never),
    ("history-bytes", Memory(0), "1073741824", Never),
    ("initial-cluster", Text, "", Never),
    ("node-id", Number(1, u32::MAX as i64), "1", Never),
    ("peer-addr", Text, "", Never),
    ("port", Number(0, 65_535), "6379", Never),
    ("tls-auth-clients", Text, "yes", Never),
    ("tls-ca-cert-file", Text, "", Never),
    ("tls-cert-file", Text, "", Never),
    ("tls-cluster", YesNo, "no", Never),
    ("tls-key-file", Text, "", Never),
    ("aclfile", Text, "", Never),
    ("tls-port", Number(0, 65_535), "0", Never),
    ("tls-protocols", Text, "TLSv1.2 TLSv1.3", Never),
    ("unixsocket", Text, "", Never),
    ("unixsocketperm", Text, "0", Never),
];

/// What Redis lets one choose and Look does not, with what is true here.
#[rustfmt::skip]
const FIXED: &[(&str, &str)] = &[
    // One synced log is the persistence.
    ("appendonly", "yes"), ("appendfsync", "always"), ("no-appendfsync-on-rewrite", "no"), ("auto-aof-rewrite-percentage", "0"),
    ("auto-aof-rewrite-min-size", "0"), ("aof-load-truncated", "no"), ("aof-use-rdb-preamble", "no"), ("aof-timestamp-enabled", "no"),
    ("appendfilename", ""), ("appenddirname", ""), ("save", ""), ("dbfilename", ""), ("rdbcompression", "no"), ("rdbchecksum", "yes"),
    ("stop-writes-on-bgsave-error", "no"), ("sanitize-dump-payload", "yes"),
    // Nothing is evicted.
    ("maxmemory", "0"), ("maxmemory-policy", "noeviction"), ("maxmemory-samples", "5"), ("maxmemory-clients", "0"),
    ("maxmemory-eviction-tenacity", "10"), ("lfu-log-factor", "10"), ("lfu-decay-time", "1"), ("activedefrag", "no"),
    ("lazyfree-lazy-eviction", "no"), ("lazyfree-lazy-expire", "no"), ("lazyfree-lazy-server-del", "no"),
    ("lazyfree-lazy-user-del", "no"), ("lazyfree-lazy-user-flush", "no"), ("replica-lazy-flush", "no"),
    // The sizes by which OBJECT ENCODING names encodings: its cost must stay bounded.
    ("hash-max-listpack-entries", "512"), ("hash-max-listpack-value", "64"), ("list-max-listpack-size", "-2"), ("list-compress-depth", "0"),
    ("set-max-intset-entries", "512"), ("set-max-listpack-entries", "128"), ("set-max-listpack-value", "64"),
    ("zset-max-listpack-entries", "128"), ("zset-max-listpack-value", "64"), ("hll-sparse-max-bytes", "3000"),
    ("stream-node-max-bytes", "4096"), ("stream-node-max-entries", "100"),
    // Every node takes writes; one group of them holds all data.
    ("cluster-enabled", "no"), ("replicaof", ""), ("masterauth", ""), ("masteruser", ""), ("replica-read-only", "no"),
    ("replica-serve-stale-data", "no"), ("replica-priority", "100"), ("replica-announce-ip", ""), ("replica-announce-port", "0"),
    ("min-replicas-to-write", "0"), ("min-replicas-max-lag", "10"), ("repl-backlog-size", "0"), ("repl-timeout", "60"),
    ("repl-diskless-sync", "yes"), ("repl-diskless-load", "disabled"), ("repl-disable-tcp-nodelay", "no"),
    // The process.
    ("databases", "16"), ("daemonize", "no"), ("supervised", "no"), ("pidfile", ""), ("logfile", ""), ("loglevel", "notice"),
    ("syslog-enabled", "no"), ("always-show-logo", "no"), ("set-proc-title", "no"), ("crash-log-enabled", "no"), ("disable-thp", "no"),
    ("hz", "10"), ("dynamic-hz", "no"), ("io-threads", "1"), ("io-threads-do-reads", "no"), ("tcp-backlog", "511"),
    ("activerehashing", "no"), ("active-expire-effort", "1"), ("shutdown-timeout", "5"), ("oom-score-adj", "no"),
    ("enable-protected-configs", "no"), ("enable-module-command", "no"), ("locale-collate", ""),
    // No scripts, no pub/sub, no tracking.
    ("acl-pubsub-default", "resetchannels"), ("lua-time-limit", "0"), ("busy-reply-threshold", "0"), ("notify-keyspace-events", ""), ("tracking-table-max-keys", "0"),
];

/// Names of earlier Redis versions.
const ALIASES: &[(&str, &str)] = &[
    ("hash-max-ziplist-entries", "hash-max-listpack-entries"),
    ("hash-max-ziplist-value", "hash-max-listpack-value"),
    ("list-max-ziplist-size", "list-max-listpack-size"),
    ("min-slaves-max-lag", "min-replicas-max-lag"),
    ("min-slaves-to-write", "min-replicas-to-write"),
    ("slave-priority", "replica-priority"),
    ("slave-read-only", "replica-read-only"),
    ("slave-serve-stale-data", "replica-serve-stale-data"),
    ("slaveof", "replicaof"),
    ("zset-max-ziplist-entries", "zset-max-listpack-entries"),
    ("zset-max-ziplist-value", "zset-max-listpack-value"),
];

static ALL: LazyLock<BTreeMap<&'static str, Parameter>> = LazyLock::new(|| {
    let settable = SETTABLE.iter().map(|&(name, kind, default, set)| Parameter { name, kind, default, set });
    let fixed = FIXED.iter().map(|&(name, default)| Parameter { name, kind: Fixed, default, set: Here });
    settable.chain(fixed).map(|p| (p.name, p)).collect()
});

/// All of them, in order of name.
pub(super) fn all() -> impl Iterator<Item = &'static Parameter> {
    ALL.values()
}

/// By lower-case name, of any version.
pub(super) fn find(name: &str) -> Option<&'static Parameter> {
    let name = ALIASES.iter().find(|(old, _)| *old == name).map_or(name, |(_, new)| new);
    ALL.get(name)
}

/// Every name there is, with the present one.
pub(super) fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
    ALL.keys().map(|name| (*name, *name)).chain(ALIASES.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_there_twice_and_old_names_lead_to_new_ones() {
        assert_eq!(ALL.len(), SETTABLE.len() + FIXED.len());
        for (old, new) in ALIASES {
            assert!(!ALL.contains_key(old) && find(old).is_some_and(|p| p.name == *new), "{old}");
        }
    }
}
