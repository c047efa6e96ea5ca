//! The parameters of `CONFIG GET` and `CONFIG SET`: one table of names, kinds and defaults. The names are Redis's
//! where a meaning exists; parameters without a meaning here are absent, or read-only and true.
//!
//! Values live as text under a lock; those that the way of a command asks for live beside it as plain numbers.

use super::clients::locked;
use super::system::Change;
use crate::apply::system::SystemState;
use crate::base::{glob, limits};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// What a value must look like.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    YesNo,
    Number(i64, i64),
    /// Bytes, with units.
    Memory,
    OneOf(&'static [&'static str]),
    Text,
}

/// Who may change it when.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Set {
    Never,
    Here,
    /// Below the gateway: handed on.
    Node,
    /// It changes replies, so it is the cluster's: a change is an epoch, and every node follows it (below the gateway too).
    Cluster,
}

#[derive(Debug)]
struct Parameter(&'static str, Kind, &'static str, Set);

/// Before the names of cluster-wide parameters in the system state.
const CLUSTER_WIDE: &[u8] = b"config:";

use Kind::*;
const MAX: i64 = i64::MAX;

/// Sorted by name.
const PARAMETERS: &[Parameter] = &[
    Parameter("appendfsync", OneOf(&["always"]), "always", Set::Here),
    Parameter("appendonly", OneOf(&["yes"]), "yes", Set::Here),
    Parameter("batch-interval", Number(0, 60_000), "0", Set::Node),
    Parameter("bind", Text, "127.0.0.1", Set::Never),
    Parameter("checkpoint-bytes", Memory, "536870912", Set::Node),
    Parameter(
        "client-output-buffer-limit",
        Text,
        "normal 67108864 16777216 60 slave 0 0 0 pubsub 33554432 8388608 60",
        Set::Here,
    ),
    Parameter("client-query-buffer-limit", Memory, "1073741824", Set::Here),
    Parameter("cluster-enabled", YesNo, "no", Set::Never),
    Parameter("daemonize", YesNo, "no", Set::Never),
    Parameter("databases", Number(16, 16), "16", Set::Never),
    Parameter("dbfilename", Text, "", Set::Never),
    Parameter("dir", Text, "", Set::Never),
    Parameter("enable-debug-command", OneOf(&["no", "local", "yes"]), "no", Set::Never),
    Parameter("engine", OneOf(&["jit", "interpreter"]), "jit", Set::Node),
    Parameter("hash-max-listpack-entries", Number(0, MAX), "512", Set::Cluster),
    Parameter("hash-max-listpack-value", Number(0, MAX), "64", Set::Cluster),
    Parameter("history-bytes", Memory, "1073741824", Set::Node),
    Parameter("hz", Number(0, i32::MAX as i64), "10", Set::Here),
    Parameter("initial-cluster", Text, "", Set::Never),
    Parameter("io-threads", Number(1, 128), "1", Set::Never),
    Parameter("latency-monitor-threshold", Number(0, MAX), "0", Set::Here),
    Parameter("latency-tracking", YesNo, "yes", Set::Here),
    Parameter("list-max-listpack-size", Number(-5, MAX), "-2", Set::Cluster),
    Parameter("logfile", Text, "", Set::Never),
    Parameter("loglevel", OneOf(&["debug", "verbose", "notice", "warning", "nothing"]), "notice", Set::Here),
    Parameter("max-write-cost", Number(1, MAX), "500000000", Set::Cluster),
    Parameter("maxclients", Number(1, u32::MAX as i64), "10000", Set::Here),
    Parameter("maxmemory", Memory, "0", Set::Node),
    Parameter("maxmemory-policy", OneOf(&["noeviction"]), "noeviction", Set::Here),
    Parameter("node-id", Number(1, u32::MAX as i64), "1", Set::Never),
    Parameter("peer-addr", Text, "", Set::Never),
    Parameter("port", Number(0, 65_535), "6379", Set::Never),
    Parameter("protected-mode", YesNo, "yes", Set::Here),
    Parameter("proto-max-bulk-len", Memory, "536870912", Set::Cluster),
    Parameter("requirepass", Text, "", Set::Cluster),
    Parameter("save", OneOf(&[""]), "", Set::Here),
    Parameter("set-max-intset-entries", Number(0, MAX), "512", Set::Cluster),
    Parameter("set-max-listpack-entries", Number(0, MAX), "128", Set::Cluster),
    Parameter("set-max-listpack-value", Number(0, MAX), "64", Set::Cluster),
    Parameter("slowlog-log-slower-than", Number(-1, MAX), "10000", Set::Here),
    Parameter("slowlog-max-len", Number(0, 1_000_000), "128", Set::Here),
    Parameter("tcp-backlog", Number(0, i32::MAX as i64), "511", Set::Never),
    Parameter("tcp-keepalive", Number(0, i32::MAX as i64), "60", Set::Here),
    Parameter("timeout", Number(0, i32::MAX as i64), "0", Set::Here),
    Parameter("tls-auth-clients", OneOf(&["yes", "no", "optional"]), "yes", Set::Never),
    Parameter("tls-ca-cert-file", Text, "", Set::Never),
    Parameter("tls-cert-file", Text, "", Set::Never),
    Parameter("tls-cluster", YesNo, "no", Set::Never),
    Parameter("tls-key-file", Text, "", Set::Never),
    Parameter("tls-port", Number(0, 65_535), "0", Set::Never),
    Parameter("tls-protocols", Text, "TLSv1.2 TLSv1.3", Set::Never),
    Parameter("unixsocket", Text, "", Set::Never),
    Parameter("unixsocketperm", Text, "0", Set::Never),
    Parameter("window-bytes", Memory, "4294967296", Set::Node),
    Parameter("window-epochs", Number(0, MAX), "1000000", Set::Node),
    Parameter("window-ms", Number(0, MAX), "15000", Set::Node),
    Parameter("zset-max-listpack-entries", Number(0, MAX), "128", Set::Cluster),
    Parameter("zset-max-listpack-value", Number(0, MAX), "64", Set::Cluster),
];

/// Names of earlier Redis versions.
const ALIASES: &[(&str, &str)] = &[
    ("hash-max-ziplist-entries", "hash-max-listpack-entries"),
    ("hash-max-ziplist-value", "hash-max-listpack-value"),
    ("list-max-ziplist-size", "list-max-listpack-size"),
    ("zset-max-ziplist-entries", "zset-max-listpack-entries"),
    ("zset-max-ziplist-value", "zset-max-listpack-value"),
];

fn parameter(name: &str) -> Option<&'static Parameter> {
    let name = ALIASES.iter().find(|(old, _)| *old == name).map_or(name, |(_, new)| new);
    PARAMETERS.binary_search_by_key(&name, |p| p.0).ok().map(|i| &PARAMETERS[i])
}

/// What a CONFIG SET asks for, checked.
#[derive(Default)]
pub struct Accepted {
    here: Vec<(&'static Parameter, String)>,
    /// Changes of the system state.
    pub cluster: Vec<Change>,
}

/// The configuration of one node's gateway.
#[derive(Debug)]
pub struct Config {
    values: Mutex<BTreeMap<&'static str, String>>,
    pub maxclients: AtomicUsize,
    pub timeout_s: AtomicU64,
    pub keepalive_s: AtomicU64,
    pub bulk_bytes_max: AtomicUsize,
    pub request_bytes_max: AtomicUsize,
    /// Of client-output-buffer-limit, class normal: hard limit in bytes (0 = none), and the soft limit's seconds.
    pub output_bytes_max: AtomicUsize,
    pub output_stall_s: AtomicU64,
    pub slower_than_us: AtomicI64,
    pub slowlog_len: AtomicUsize,
    pub protected: AtomicBool,
    pub password_set: AtomicBool,
}

impl Default for Config {
    fn default() -> Self {
        let config = Config {
            values: Mutex::new(PARAMETERS.iter().map(|p| (p.0, p.2.to_owned())).collect()),
            maxclients: limits::CLIENTS_MAX.into(),
            timeout_s: 0.into(),
            keepalive_s: 60.into(),
            bulk_bytes_max: limits::BULK_BYTES_MAX.into(),
            request_bytes_max: (1 << 30).into(),
            output_bytes_max: limits::OUTPUT_BYTES_HARD.into(),
            output_stall_s: 60.into(),
            slower_than_us: 10_000.into(),
            slowlog_len: 128.into(),
            protected: true.into(),
            password_set: false.into(),
        };
        for p in PARAMETERS {
            config.take_effect(p.0, p.2);
        }
        config
    }
}

impl Config {
    /// What the node was started with; unknown names are no concern of the gateway.
    pub fn load(&self, values: &[(String, String)]) -> Result<(), String> {
        for (name, value) in values {
            if let Some(p) = parameter(name) {
                let value = if p.3 == Set::Never { value.clone() } else { checked(p, value.as_bytes())? };
                self.take_effect(p.0, &value);
                locked(&self.values).insert(p.0, value);
            }
        }
        Ok(())
    }

    pub fn get(&self, name: &str) -> String {
        parameter(name).and_then(|p| locked(&self.values).get(p.0).cloned()).unwrap_or_default()
    }

    /// All names (older ones too) and values that `patterns` match, in order of name.
    pub fn matching(&self, patterns: &[&[u8]]) -> Vec<(&'static str, String)> {
        let values = locked(&self.values);
        let names = PARAMETERS.iter().map(|p| (p.0, p.0)).chain(ALIASES.iter().copied());
        let hit =
            |name: &str| patterns.iter().any(|p| glob::matches(p.to_ascii_lowercase().as_slice(), name.as_bytes()));
        names
            .filter(|(name, _)| hit(name))
            .map(|(name, of)| (name, values.get(of).cloned().unwrap_or_default()))
            .collect()
    }

    /// Checks what CONFIG SET asks for: all of it, or an error that a client can be shown.
    pub fn accept(&self, pairs: &[(&[u8], &[u8])]) -> Result<Accepted, String> {
        let mut accepted = Accepted::default();
        let mut seen: Vec<&str> = Vec::new();
        for (name, value) in pairs {
            let text = String::from_utf8_lossy(name).to_ascii_lowercase();
            let p = parameter(&text).ok_or_else(|| {
                format!(
                    "ERR Unknown option or number of arguments for CONFIG SET - '{}'",
                    String::from_utf8_lossy(name)
                )
            })?;
            let failed = |why: String| format!("ERR CONFIG SET failed (possibly related to argument '{text}') - {why}");
            if p.3 == Set::Never {
                return Err(failed("can't set immutable config".into()));
            }
            if seen.contains(&p.0) {
                return Err(failed("duplicate parameter".into()));
            }
            seen.push(p.0);
            let value = checked(p, value).map_err(failed)?;
            match p.3 {
                Set::Cluster => {
                    accepted.cluster.push(([CLUSTER_WIDE, p.0.as_bytes()].concat(), Some(value.into_bytes())))
                }
                _ => accepted.here.push((p, value)),
            }
        }
        Ok(accepted)
    }

    /// Sets parameters of this node. `node` is told of those that concern it.
    pub fn set_here(&self, accepted: Accepted, node: impl Fn(&str, &str) -> Result<(), String>) -> Result<(), String> {
        for (p, value) in accepted.here {
            if p.3 == Set::Node {
                node(p.0, &value)
                    .map_err(|e| format!("ERR CONFIG SET failed (possibly related to argument '{}') - {e}", p.0))?;
            }
            self.take_effect(p.0, &value);
            locked(&self.values).insert(p.0, value);
        }
        Ok(())
    }

    /// Takes over the cluster-wide parameters; those that were never set keep what this node was started with.
    pub fn follow(&self, state: &SystemState, node: impl Fn(&str, &str) -> Result<(), String>) {
        for (name, value) in state.with_prefix(CLUSTER_WIDE) {
            let known = std::str::from_utf8(name).ok().and_then(parameter).filter(|p| p.3 == Set::Cluster);
            // One that only a newer version knows, or knows otherwise, is not for this node.
            let Some((p, Ok(value))) = known.map(|p| (p, checked(p, value))) else { continue };
            if locked(&self.values).get(p.0) == Some(&value) {
                continue;
            }
            if let Err(e) = node(p.0, &value) {
                tracing::error!("cannot follow the cluster's {name}: {e}", name = p.0);
                continue;
            }
            self.take_effect(p.0, &value);
            locked(&self.values).insert(p.0, value);
        }
    }

    /// This node's parameters that differ from the defaults, as lines of a configuration file. (The cluster's are in the log.)
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let values = locked(&self.values);
        let own = PARAMETERS.iter().filter(|p| p.3 != Set::Cluster);
        own.filter_map(|p| values.get(p.0).filter(|v| *v != p.2).map(|v| (p.0, v.clone()))).collect()
    }

    fn take_effect(&self, name: &str, value: &str) {
        let number = value.parse::<i64>().unwrap_or(0);
        match name {
            "maxclients" => self.maxclients.store(number as usize, Relaxed),
            "timeout" => self.timeout_s.store(number as u64, Relaxed),
            "tcp-keepalive" => self.keepalive_s.store(number as u64, Relaxed),
            "proto-max-bulk-len" => self.bulk_bytes_max.store(number as usize, Relaxed),
            "client-query-buffer-limit" => self.request_bytes_max.store((number as usize).min(1 << 30), Relaxed),
            "slowlog-log-slower-than" => self.slower_than_us.store(number, Relaxed),
            "slowlog-max-len" => self.slowlog_len.store(number as usize, Relaxed),
            "protected-mode" => self.protected.store(value == "yes", Relaxed),
            "requirepass" => self.password_set.store(!value.is_empty(), Relaxed),
            "client-output-buffer-limit" => {
                if let Some((hard, _, seconds)) = output_limit(value, "normal") {
                    self.output_bytes_max.store(if hard == 0 { usize::MAX } else { hard as usize }, Relaxed);
                    self.output_stall_s.store(if seconds == 0 { 60 } else { seconds }, Relaxed);
                }
            }
            _ => {}
        }
    }
}

/// `(hard bytes, soft bytes, soft seconds)` of a class.
fn output_limit(value: &str, class: &str) -> Option<(u64, u64, u64)> {
    let words: Vec<&str> = value.split_whitespace().collect();
    let group = words.chunks_exact(4).find(|g| g[0].eq_ignore_ascii_case(class))?;
    Some((limits::memory(group[1])?, limits::memory(group[2])?, group[3].parse().ok()?))
}

/// The value in the form `CONFIG GET` shows, or what is wrong with it in Redis's words.
fn checked(p: &Parameter, value: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(value).map_err(|_| "argument must be text".to_owned())?;
    match p.1 {
        YesNo => match text.to_ascii_lowercase().as_str() {
            yes_no @ ("yes" | "no") => Ok(yes_no.to_owned()),
            _ => Err("argument must be 'yes' or 'no'".into()),
        },
        Number(min, max) => {
            let number = text.parse::<i64>().map_err(|_| "argument couldn't be parsed into an integer".to_owned())?;
            if !(min..=max).contains(&number) {
                return Err(format!("argument must be between {min} and {max} inclusive"));
            }
            Ok(number.to_string())
        }
        Memory => {
            limits::memory(text).map(|n| n.to_string()).ok_or_else(|| "argument must be a memory value".to_owned())
        }
        OneOf(words) => {
            let lower = text.to_ascii_lowercase();
            if words.contains(&lower.as_str()) {
                Ok(lower)
            } else {
                Err(format!("argument(s) must be one of the following: {}", words.join(", ")))
            }
        }
        Text if p.0 == "client-output-buffer-limit" => {
            let classes = text.split_whitespace().step_by(4).collect::<Vec<_>>();
            if classes.is_empty() || classes.iter().any(|class| output_limit(text, class).is_none()) {
                return Err("Wrong number of arguments in buffer limit configuration.".into());
            }
            Ok(text.to_owned())
        }
        Text => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(config: &Config, pairs: &[(&str, &str)]) -> Result<(), String> {
        let pairs: Vec<_> = pairs.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        config.set_here(config.accept(&pairs)?, |_, _| Ok(()))
    }

    #[test]
    fn the_table_is_sorted_and_its_defaults_pass_their_own_checks() {
        assert!(PARAMETERS.is_sorted_by_key(|p| p.0));
        for p in PARAMETERS {
            assert_eq!(checked(p, p.2.as_bytes()).as_deref(), Ok(p.2), "{}", p.0);
        }
        assert!(ALIASES.iter().all(|(old, new)| parameter(new).is_some() && old != new));
    }

    #[test]
    fn setting_is_all_or_nothing() {
        let config = Config::default();
        let error = set(&config, &[("maxclients", "5"), ("hz", "x")]).unwrap_err();
        assert_eq!(
            error,
            "ERR CONFIG SET failed (possibly related to argument 'hz') - argument couldn't be parsed into an integer"
        );
        assert_eq!(config.get("maxclients"), "10000");
        set(&config, &[("maxclients", "5"), ("CLIENT-query-buffer-limit", "1mb")]).unwrap();
        assert_eq!(config.maxclients.load(Relaxed), 5);
        assert_eq!(config.get("client-query-buffer-limit"), "1048576");
        assert!(set(&config, &[("port", "1")]).unwrap_err().ends_with("can't set immutable config"));
        assert!(set(&config, &[("hz", "1"), ("hz", "2")]).unwrap_err().ends_with("duplicate parameter"));
        assert_eq!(
            set(&config, &[("nosuch", "1")]).unwrap_err(),
            "ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'"
        );
    }

    #[test]
    fn output_limits_are_read_per_class() {
        let config = Config::default();
        set(&config, &[("client-output-buffer-limit", "normal 1mb 0 0")]).unwrap();
        assert_eq!(config.output_bytes_max.load(Relaxed), 1 << 20);
        assert!(set(&config, &[("client-output-buffer-limit", "normal 1mb 0")]).is_err());
    }

    #[test]
    fn names_match_globs() {
        let config = Config::default();
        let names: Vec<_> = config.matching(&[b"zset-*entries", b"SAVE"]).into_iter().map(|(n, _)| n).collect();
        assert_eq!(names, ["save", "zset-max-listpack-entries", "zset-max-ziplist-entries"]);
    }
}
