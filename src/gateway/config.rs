//! The values of `CONFIG GET` and `CONFIG SET`, by the table in [`parameters`].
//!
//! Values live as text under a lock; those that the way of a command asks for live beside it as plain numbers.

mod parameters;

use super::clients::locked;
use super::descriptors;
use super::system::Change;
use crate::apply::system::SystemState;
use crate::base::{glob, limits};
use parameters::{Kind, Parameter, Set, all, find, names};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Before the names of cluster-wide parameters in the system state.
const CLUSTER_WIDE: &[u8] = b"config:";

/// What a CONFIG SET asks for, checked.
#[derive(Default)]
pub struct Accepted {
    here: Vec<(&'static Parameter, String)>,
    /// Changes of the system state.
    pub cluster: Vec<Change>,
    /// The default user's new password; empty: none.
    pub requirepass: Option<String>,
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
    /// `latency-monitor-threshold`; 0: off.
    pub latency_ms: AtomicI64,
    pub slowlog_len: AtomicUsize,
    pub protected: AtomicBool,
    pub acl_log_len: AtomicUsize,
    /// 0: no limit of its own.
    pub clients_per_address: AtomicUsize,
}

impl Default for Config {
    fn default() -> Self {
        let config = Config {
            values: Mutex::new(all().map(|p| (p.name, p.default.to_owned())).collect()),
            maxclients: limits::CLIENTS_MAX.into(),
            timeout_s: 0.into(),
            keepalive_s: 60.into(),
            bulk_bytes_max: limits::BULK_BYTES_MAX.into(),
            request_bytes_max: limits::QUERY_BYTES_MAX.into(),
            output_bytes_max: limits::OUTPUT_BYTES_HARD.into(),
            output_stall_s: 60.into(),
            slower_than_us: 10_000.into(),
            latency_ms: 0.into(),
            slowlog_len: 128.into(),
            protected: true.into(),
            acl_log_len: 128.into(),
            clients_per_address: 0.into(),
        };
        for p in all() {
            config.take_effect(p.name, p.default);
        }
        config
    }
}

impl Config {
    /// What the node was started with; unknown names are no concern of the gateway.
    pub fn load(&self, values: &[(String, String)]) -> Result<(), String> {
        for (name, value) in values {
            if let Some(p) = find(name).filter(|p| p.set != Set::DefaultUser) {
                let value = if p.set == Set::Never { value.clone() } else { checked(p, value.as_bytes())? };
                self.take_effect(p.name, &value);
                locked(&self.values).insert(p.name, value);
            }
        }
        let clients = self.maxclients.load(Relaxed);
        let room = descriptors::room_for(clients);
        if room < clients {
            tracing::warn!("maxclients is {room} instead of {clients}: raise the limit of open files (ulimit -n)");
            self.take_effect("maxclients", &room.to_string());
            locked(&self.values).insert("maxclients", room.to_string());
        }
        Ok(())
    }

    pub fn get(&self, name: &str) -> String {
        find(name).and_then(|p| locked(&self.values).get(p.name).cloned()).unwrap_or_default()
    }

    /// All names (older ones too) and values that `patterns` match, in order of name.
    pub fn matching(&self, patterns: &[&[u8]]) -> Vec<(&'static str, String)> {
        let values = locked(&self.values);
        let hit =
            |name: &str| patterns.iter().any(|p| glob::matches(p.to_ascii_lowercase().as_slice(), name.as_bytes()));
        names()
            .filter(|(name, _)| hit(name))
            .map(|(name, of)| (name, values.get(of).cloned().unwrap_or_default()))
            .collect()
    }

    /// Checks what CONFIG SET asks for: all of it, or an error that a client can be shown.
    pub fn accept(&self, pairs: &[(&[u8], &[u8])]) -> Result<Accepted, Vec<u8>> {
        let mut accepted = Accepted::default();
        let mut seen: Vec<&str> = Vec::new();
        for (name, value) in pairs {
            let lower = name.to_ascii_lowercase();
            let p = std::str::from_utf8(&lower).ok().and_then(find).ok_or_else(|| {
                [b"ERR Unknown option or number of arguments for CONFIG SET - '", *name, b"'"].concat()
            })?;
            let failed = |why: String| failed(name, &why);
            if p.set == Set::Never {
                return Err(failed("can't set immutable config".into()));
            }
            if seen.contains(&p.name) {
                return Err(failed("duplicate parameter".into()));
            }
            seen.push(p.name);
            let value = checked(p, value).map_err(failed)?;
            if p.name == "maxclients" {
                has_descriptors(&value).map_err(failed)?;
            }
            match p.set {
                Set::Cluster => {
                    accepted.cluster.push(([CLUSTER_WIDE, p.name.as_bytes()].concat(), Some(value.into_bytes())))
                }
                Set::DefaultUser => accepted.requirepass = Some(value),
                _ => accepted.here.push((p, value)),
            }
        }
        Ok(accepted)
    }

    /// Sets parameters of this node. `node` is told of those that concern it.
    pub fn set_here(&self, accepted: Accepted, node: impl Fn(&str, &str) -> Result<(), String>) -> Result<(), Vec<u8>> {
        for (p, value) in accepted.here {
            if p.set == Set::Node {
                node(p.name, &value).map_err(|why| failed(p.name.as_bytes(), &why))?;
            }
            self.take_effect(p.name, &value);
            locked(&self.values).insert(p.name, value);
        }
        Ok(())
    }

    /// Takes over the cluster-wide parameters; those that were never set keep what this node was started with.
    pub fn follow(&self, state: &SystemState, node: impl Fn(&str, &str) -> Result<(), String>) {
        for (name, value) in state.with_prefix(CLUSTER_WIDE) {
            let known = std::str::from_utf8(name).ok().and_then(find).filter(|p| p.set == Set::Cluster);
            // One that only a newer version knows, or knows otherwise, is not for this node.
            let Some((p, Ok(value))) = known.map(|p| (p, checked(p, value))) else { continue };
            if locked(&self.values).get(p.name) == Some(&value) {
                continue;
            }
            if let Err(e) = node(p.name, &value) {
                tracing::error!("cannot follow the cluster's {name}: {e}", name = p.name);
                continue;
            }
            self.take_effect(p.name, &value);
            locked(&self.values).insert(p.name, value);
        }
    }

    /// This node's parameters that differ from the defaults, as lines of a configuration file. (The cluster's are in the log.)
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let values = locked(&self.values);
        let own = all().filter(|p| !matches!(p.set, Set::Cluster | Set::DefaultUser));
        own.filter_map(|p| values.get(p.name).filter(|v| *v != p.default).map(|v| (p.name, v.clone()))).collect()
    }

    /// A call is worth a look when it took so many microseconds; negative: none is.
    pub fn slow_us(&self) -> i64 {
        match (self.slower_than_us.load(Relaxed), self.latency_ms.load(Relaxed).saturating_mul(1000)) {
            (slow, 0) => slow,
            (..0, monitored) => monitored,
            (slow, monitored) => slow.min(monitored),
        }
    }

    fn take_effect(&self, name: &str, value: &str) {
        let number = value.parse::<i64>().unwrap_or(0);
        match name {
            "maxclients" => self.maxclients.store(number as usize, Relaxed),
            "maxclients-per-address" => self.clients_per_address.store(number as usize, Relaxed),
            "timeout" => self.timeout_s.store(number as u64, Relaxed),
            "tcp-keepalive" => self.keepalive_s.store(number as u64, Relaxed),
            "proto-max-bulk-len" => self.bulk_bytes_max.store(number as usize, Relaxed),
            "client-query-buffer-limit" => self.request_bytes_max.store((number as usize).min(1 << 30), Relaxed),
            "slowlog-log-slower-than" => self.slower_than_us.store(number, Relaxed),
            "latency-monitor-threshold" => self.latency_ms.store(number, Relaxed),
            "slowlog-max-len" => self.slowlog_len.store(number as usize, Relaxed),
            "protected-mode" => self.protected.store(value == "yes", Relaxed),
            "acllog-max-len" => self.acl_log_len.store(number as usize, Relaxed),
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

/// Redis's text, if so many clients are more than this process may have.
fn has_descriptors(clients: &str) -> Result<(), String> {
    let clients = clients.parse().unwrap_or(0);
    match descriptors::room_for(clients) {
        room if room < clients => {
            Err(format!("The operating system is not able to handle the specified number of clients, try with {room}"))
        }
        _ => Ok(()),
    }
}

/// `(hard bytes, soft bytes, soft seconds)` of a class.
fn output_limit(value: &str, class: &str) -> Option<(u64, u64, u64)> {
    let words: Vec<&str> = value.split_whitespace().collect();
    let group = words.chunks_exact(4).find(|g| g[0].eq_ignore_ascii_case(class))?;
    Some((limits::memory(group[1])?, limits::memory(group[2])?, group[3].parse().ok()?))
}

/// Redis's text.
fn failed(name: &[u8], why: &str) -> Vec<u8> {
    [b"ERR CONFIG SET failed (possibly related to argument '", name, b"') - ", why.as_bytes()].concat()
}

/// The value in the form `CONFIG GET` shows, or what is wrong with it in Redis's words.
fn checked(p: &Parameter, value: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(value).map_err(|_| "argument must be text".to_owned())?;
    let between = |min: i64, max: i64| format!("argument must be between {min} and {max} inclusive");
    match p.kind {
        Kind::YesNo => match text.to_ascii_lowercase().as_str() {
            yes_no @ ("yes" | "no") => Ok(yes_no.to_owned()),
            _ => Err("argument must be 'yes' or 'no'".into()),
        },
        Kind::Number(min, max) => {
            let number = text.parse::<i64>().map_err(|_| "argument couldn't be parsed into an integer".to_owned())?;
            if !(min..=max).contains(&number) {
                return Err(between(min, max));
            }
            Ok(number.to_string())
        }
        Kind::Memory(min) => match limits::memory(text) {
            Some(bytes) if bytes >= min => Ok(bytes.to_string()),
            Some(_) => Err(between(min as i64, i64::MAX)),
            None => Err("argument must be a memory value".into()),
        },
        Kind::Percentiles => {
            let all: Option<Vec<f64>> = text.split_whitespace().map(|word| word.parse().ok()).collect();
            match all {
                None => Err(format!("Invalid {} parameters", p.name)),
                Some(all) if all.iter().any(|n| !(0.0..=100.0).contains(n)) => {
                    Err(format!("{} parameters should sit between [0.0,100.0]", p.name))
                }
                Some(all) => Ok(all.iter().map(f64::to_string).collect::<Vec<_>>().join(" ")),
            }
        }
        Kind::OutputLimits => {
            let words = text.split_whitespace().count();
            let mut classes = text.split_whitespace().step_by(4);
            if words == 0 || words % 4 != 0 {
                return Err("Wrong number of arguments in buffer limit configuration.".into());
            }
            if classes.clone().any(|class| !CLASSES.iter().any(|known| class.eq_ignore_ascii_case(known))) {
                return Err("Invalid client class specified in buffer limit configuration.".into());
            }
            if classes.any(|class| output_limit(text, class).is_none()) {
                return Err("Error in hard, soft or soft_seconds setting in buffer limit configuration.".into());
            }
            Ok(text.to_owned())
        }
        Kind::Fixed if text.eq_ignore_ascii_case(p.default) => Ok(p.default.to_owned()),
        Kind::Fixed => Err(format!("Look has no other value than '{}'", p.default)),
        Kind::Text => Ok(text.to_owned()),
    }
}

const CLASSES: [&str; 4] = ["normal", "slave", "replica", "pubsub"];

#[cfg(test)]
mod tests {
    use super::*;

    fn set(config: &Config, pairs: &[(&str, &str)]) -> Result<(), String> {
        let pairs: Vec<_> = pairs.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        let set = config.accept(&pairs).and_then(|accepted| config.set_here(accepted, |_, _| Ok(())));
        set.map_err(|text| String::from_utf8_lossy(&text).into_owned())
    }

    #[test]
    fn defaults_pass_their_own_checks() {
        for p in all() {
            assert_eq!(checked(p, p.default.as_bytes()).as_deref(), Ok(p.default), "{}", p.name);
        }
    }

    #[test]
    fn setting_is_all_or_nothing() {
        let config = Config::default();
        let error = set(&config, &[("maxclients", "5"), ("timeout", "x")]).unwrap_err();
        assert_eq!(
            error,
            "ERR CONFIG SET failed (possibly related to argument 'timeout') - argument couldn't be parsed into an integer"
        );
        assert_eq!(config.get("maxclients"), "10000");
        set(&config, &[("maxclients", "5"), ("CLIENT-query-buffer-limit", "1mb")]).unwrap();
        assert_eq!(config.maxclients.load(Relaxed), 5);
        assert_eq!(config.get("client-query-buffer-limit"), "1048576");
        assert!(set(&config, &[("port", "1")]).unwrap_err().ends_with("can't set immutable config"));
        assert!(set(&config, &[("timeout", "1"), ("timeout", "2")]).unwrap_err().ends_with("duplicate parameter"));
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
        for (wrong, why) in [
            ("normal 1mb 0", "Wrong number of arguments in buffer limit configuration."),
            ("foo 1 1 1", "Invalid client class specified in buffer limit configuration."),
            ("normal x 1 1", "Error in hard, soft or soft_seconds setting in buffer limit configuration."),
        ] {
            assert!(set(&config, &[("client-output-buffer-limit", wrong)]).unwrap_err().ends_with(why));
        }
    }

    #[test]
    fn names_match_globs() {
        let config = Config::default();
        let names: Vec<_> = config.matching(&[b"zset-*entries", b"SAVE"]).into_iter().map(|(n, _)| n).collect();
        assert_eq!(names, ["save", "zset-max-listpack-entries", "zset-max-ziplist-entries"]);
    }

    #[test]
    fn what_cannot_be_chosen_takes_its_one_value_and_says_so() {
        let config = Config::default();
        set(&config, &[("appendonly", "YES"), ("save", "")]).unwrap();
        assert!(set(&config, &[("appendonly", "no")]).unwrap_err().ends_with("- Look has no other value than 'yes'"));
    }
}
