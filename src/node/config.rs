//! # Configuration of one node
//!
//! Three sources, later ones win: defaults, a Redis-style file of `name value` lines (`--config`), the command line.
//! Names are Redis's where Redis has them.

use crate::base::limits;
use crate::base::{Epoch, NodeId};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub bind: Vec<String>,
    pub port: u16,
    /// Port for clients over TLS; 0 = none.
    pub tls_port: u16,
    pub tls_cert_file: PathBuf,
    pub tls_key_file: PathBuf,
    /// Who signs the certificates of clients and peers.
    pub tls_ca_cert_file: PathBuf,
    pub tls_auth_clients: AuthClients,
    /// `TLSv1.2`, `TLSv1.3`, or both.
    pub tls_protocols: Vec<String>,
    /// Peers show each other certificates, named after their ids.
    pub tls_cluster: bool,
    /// Port for metrics, health and the status page; 0 = none.
    pub admin_port: u16,
    pub admin_bind: IpAddr,
    pub unixsocket: Option<PathBuf>,
    /// Mode of the socket; 0 = for this user only.
    pub unixsocketperm: u32,
    pub dir: PathBuf,
    pub node_id: NodeId,
    /// Where peers reach this node; None = alone.
    pub peer_addr: Option<SocketAddr>,
    /// Voters of a new cluster, this node included. Empty = alone.
    pub initial_cluster: BTreeMap<NodeId, SocketAddr>,
    /// Keys of encryption at rest; None: what is written is plain.
    pub encryption_key_file: Option<PathBuf>,
    /// A peer port of the cluster that this node joins at its first start.
    pub join: Option<String>,
    /// What a node must show to join this one's cluster; empty: nobody joins.
    pub join_token: String,
    /// An export node: follows to this epoch, shows it, and takes no writes.
    pub stop_at: Option<Epoch>,
    pub requirepass: String,
    /// Users of a new cluster, and the file of `ACL SAVE` and `ACL LOAD`; empty: none.
    pub aclfile: String,
    pub protected_mode: bool,
    /// Who may use DEBUG: `no`, `local` or `yes`.
    pub enable_debug_command: String,
    pub maxclients: usize,
    /// Threads that serve connections.
    pub io_threads: usize,
    /// Kept hot: younger than this, milliseconds …
    pub window_ms: u64,
    /// … or among this many last epochs (whichever keeps more) …
    pub window_epochs: u64,
    /// … while replaced versions take no more than this many bytes.
    pub window_bytes: u64,
    /// Hold entries back so that one leaves each so many milliseconds; 0 = as soon as a slot is free.
    pub batch_interval_ms: u64,
    /// A checkpoint starts after so many bytes of log …
    pub checkpoint_bytes: u64,
    /// Entries kept behind a checkpoint, for followers that are a little late; others get the checkpoint.
    pub log_keep_entries: u64,
    /// Purged log kept for past reads, bytes.
    pub history_bytes: u64,
    /// A write whose bound (ops) exceeds this is refused before the log.
    pub max_write_cost: u64,
    /// `jit` or `interpreter`.
    pub engine: EngineChoice,
    /// The file the configuration came from, for CONFIG REWRITE.
    pub file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineChoice {
    Jit,
    Interpreter,
}

/// Whether clients on the TLS port show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthClients {
    Yes,
    No,
    /// They may; one that they show must be good.
    Optional,
}

impl std::fmt::Display for AuthClients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            AuthClients::Yes => "yes",
            AuthClients::No => "no",
            AuthClients::Optional => "optional",
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {0}: {1}; check the path given to --config")]
    Unreadable(PathBuf, std::io::Error),
    #[error("{0}, line {1}: {2}")]
    Line(PathBuf, usize, String),
    #[error("{0}")]
    Value(String),
}

/// One core is left to consensus, log and apply: a thread more than there are cores costs a hand-over at every turn.
fn default_io_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() - 1).clamp(1, 8)
}

impl Default for Config {
    fn default() -> Self {
        Config {
            bind: vec!["127.0.0.1".into()],
            port: 6379,
            tls_port: 0,
            tls_cert_file: PathBuf::new(),
            tls_key_file: PathBuf::new(),
            tls_ca_cert_file: PathBuf::new(),
            tls_auth_clients: AuthClients::Yes,
            tls_protocols: vec!["TLSv1.2".into(), "TLSv1.3".into()],
            tls_cluster: false,
            admin_port: 0,
            admin_bind: IpAddr::from([127, 0, 0, 1]),
            unixsocket: None,
            unixsocketperm: 0,
            dir: "look-data".into(),
            node_id: NodeId(1),
            peer_addr: None,
            initial_cluster: BTreeMap::new(),
            encryption_key_file: None,
            join: None,
            join_token: String::new(),
            stop_at: None,
            requirepass: String::new(),
            aclfile: String::new(),
            protected_mode: true,
            enable_debug_command: "no".into(),
            maxclients: limits::CLIENTS_MAX,
            io_threads: default_io_threads(),
            window_ms: 15_000,
            window_epochs: 1_000_000,
            window_bytes: 512 << 20,
            batch_interval_ms: 0,
            checkpoint_bytes: 256 << 20,
            log_keep_entries: 4096,
            history_bytes: 1 << 30,
            max_write_cost: 500_000_000,
            engine: EngineChoice::Jit,
            file: None,
        }
    }
}

impl Config {
    /// Reads `path` over the defaults.
    pub fn read_file(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|e| ConfigError::Unreadable(path.into(), e))?;
        let mut config = Config { file: Some(path.into()), ..Config::default() };
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            config
                .set(&name.to_ascii_lowercase(), value.trim().trim_matches('"'))
                .map_err(|e| ConfigError::Line(path.into(), number + 1, e.to_string()))?;
        }
        Ok(config)
    }

    /// Sets one parameter from its text.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        match name {
            "bind" => self.bind = value.split_whitespace().map(str::to_owned).collect(),
            "port" => self.port = number(name, value, 0, u16::MAX.into())? as u16,
            "tls-port" => self.tls_port = number(name, value, 0, u16::MAX.into())? as u16,
            "tls-cert-file" => self.tls_cert_file = value.into(),
            "tls-key-file" => self.tls_key_file = value.into(),
            "tls-ca-cert-file" => self.tls_ca_cert_file = value.into(),
            "tls-auth-clients" => self.tls_auth_clients = auth_clients(value)?,
            "tls-protocols" => self.tls_protocols = protocols(value)?,
            "tls-cluster" => self.tls_cluster = yes_no(name, value)?,
            "admin-port" => self.admin_port = number(name, value, 0, u16::MAX.into())? as u16,
            "admin-bind" => self.admin_bind = admin_bind(value)?,
            "unixsocket" => self.unixsocket = (!value.is_empty()).then(|| value.into()),
            "unixsocketperm" => self.unixsocketperm = mode(value)?,
            "dir" => self.dir = value.into(),
            "node-id" => self.node_id = NodeId(number(name, value, 1, u32::MAX.into())?),
            "peer-addr" => self.peer_addr = Some(address(value)?),
            "initial-cluster" => self.initial_cluster = cluster(value)?,
            "encryption-key-file" => self.encryption_key_file = (!value.is_empty()).then(|| value.into()),
            "join" => self.join = Some(value.into()),
            "stop-at" => self.stop_at = Some(Epoch(number(name, value, 1, u64::MAX)?)),
            "join-token" => self.join_token = value.into(),
            "requirepass" => self.requirepass = value.into(),
            "aclfile" => self.aclfile = value.into(),
            "protected-mode" => self.protected_mode = yes_no(name, value)?,
            "enable-debug-command" => match value {
                "no" | "local" | "yes" => self.enable_debug_command = value.into(),
                _ => return Err(ConfigError::Value(format!("{name} must be 'no', 'local' or 'yes', not '{value}'"))),
            },
            "maxclients" => self.maxclients = number(name, value, 1, u32::MAX.into())? as usize,
            "io-threads" => self.io_threads = number(name, value, 1, 128)? as usize,
            "window-ms" => self.window_ms = number(name, value, 0, u64::MAX)?,
            "window-epochs" => self.window_epochs = number(name, value, 0, u64::MAX)?,
            "window-bytes" => self.window_bytes = memory(name, value)?,
            "batch-interval" => self.batch_interval_ms = number(name, value, 0, 60_000)?,
            "log-keep-entries" => self.log_keep_entries = number(name, value, 0, u64::MAX)?,
            "checkpoint-bytes" => self.checkpoint_bytes = memory(name, value)?,
            "history-bytes" => self.history_bytes = memory(name, value)?,
            "max-write-cost" => self.max_write_cost = number(name, value, 1, u64::MAX)?,
            "engine" => {
                self.engine = match value {
                    "jit" => EngineChoice::Jit,
                    "interpreter" => EngineChoice::Interpreter,
                    _ => return Err(ConfigError::Value("engine must be 'jit' or 'interpreter'".into())),
                }
            }
            _ => {
                return Err(ConfigError::Value(format!(
                    "unknown configuration name '{name}'; see `look serve --help`"
                )));
            }
        }
        Ok(())
    }

    /// Checks what one parameter alone cannot show.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_tls()?;
        if self.stop_at.is_some() && self.join.is_none() {
            return Err(ConfigError::Value(
                "--stop-at needs --join: an export node follows a cluster to an epoch".into(),
            ));
        }
        if self.join.is_some() {
            let missing = match () {
                () if !self.initial_cluster.is_empty() => {
                    "--join and --initial-cluster exclude each other: a cluster is founded once"
                }
                () if self.peer_addr.is_none() => {
                    "--join needs --peer-addr, the address on which this node's peers reach it"
                }
                () if self.tls_cluster && self.node_id == NodeId(1) => {
                    "--join with tls-cluster needs --node-id, the id in this node's certificate (DNS:node4): one that the cluster \
                     has not given yet"
                }
                () if self.join_token.is_empty() => "--join needs --join-token, the join-token of the cluster's nodes",
                () => return Ok(()),
            };
            return Err(ConfigError::Value(missing.into()));
        }
        if !self.initial_cluster.is_empty() {
            if !self.initial_cluster.contains_key(&self.node_id) {
                return Err(ConfigError::Value(format!(
                    "--initial-cluster does not name this node (--node-id {}); add {}=HOST:PORT to it",
                    self.node_id, self.node_id
                )));
            }
            if self.peer_addr.is_none() {
                return Err(ConfigError::Value(
                    "--initial-cluster needs --peer-addr, the address on which this node's peers reach it".into(),
                ));
            }
        }
        Ok(())
    }
}

impl Config {
    /// Where metrics and the status page are to be had.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        (self.admin_port != 0).then_some(SocketAddr::new(self.admin_bind, self.admin_port))
    }

    /// Whether anything here speaks TLS.
    pub fn uses_tls(&self) -> bool {
        self.tls_port != 0 || self.tls_cluster
    }

    fn check_tls(&self) -> Result<(), ConfigError> {
        if !self.uses_tls() {
            return Ok(());
        }
        let wants = if self.tls_cluster { "tls-cluster" } else { "tls-port" };
        let missing = |name: &str, why: &str| Err(ConfigError::Value(format!("{wants} needs {name}, {why}")));
        if self.tls_cert_file.as_os_str().is_empty() {
            return missing("tls-cert-file", "the certificate of this node in PEM form");
        }
        if self.tls_key_file.as_os_str().is_empty() {
            return missing("tls-key-file", "the key of its certificate in PEM form");
        }
        let authorities = self.tls_cluster || self.tls_auth_clients != AuthClients::No;
        if authorities && self.tls_ca_cert_file.as_os_str().is_empty() {
            return missing(
                "tls-ca-cert-file",
                "who signs the certificates of the other side (or, for clients, tls-auth-clients no)",
            );
        }
        Ok(())
    }
}

fn number(name: &str, value: &str, min: u64, max: u64) -> Result<u64, ConfigError> {
    match value.parse::<u64>() {
        Ok(n) if (min..=max).contains(&n) => Ok(n),
        _ => Err(ConfigError::Value(format!("{name} must be a whole number between {min} and {max}, not '{value}'"))),
    }
}

fn yes_no(name: &str, value: &str) -> Result<bool, ConfigError> {
    match value {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(ConfigError::Value(format!("{name} must be 'yes' or 'no'"))),
    }
}

fn auth_clients(value: &str) -> Result<AuthClients, ConfigError> {
    match value {
        "yes" => Ok(AuthClients::Yes),
        "no" => Ok(AuthClients::No),
        "optional" => Ok(AuthClients::Optional),
        _ => Err(ConfigError::Value("tls-auth-clients must be 'yes', 'no' or 'optional'".into())),
    }
}

fn protocols(value: &str) -> Result<Vec<String>, ConfigError> {
    let words: Vec<String> = value.split_whitespace().map(str::to_owned).collect();
    match words.iter().find(|word| !["TLSv1.2", "TLSv1.3"].contains(&word.as_str())) {
        None if !words.is_empty() => Ok(words),
        _ => Err(ConfigError::Value(
            "tls-protocols takes TLSv1.2, TLSv1.3, or both; older ones are not to be had".into(),
        )),
    }
}

fn admin_bind(value: &str) -> Result<IpAddr, ConfigError> {
    value.parse().map_err(|_| ConfigError::Value(format!("admin-bind must be an IP address, not '{value}'")))
}

/// As `chmod` takes it.
fn mode(value: &str) -> Result<u32, ConfigError> {
    match u32::from_str_radix(value, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(ConfigError::Value(format!("unixsocketperm must be an octal mode such as 700, not '{value}'"))),
    }
}

/// A memory size with Redis's units.
pub fn memory(name: &str, value: &str) -> Result<u64, ConfigError> {
    limits::memory(value)
        .ok_or_else(|| ConfigError::Value(format!("{name} must be a memory size such as 512mb, not '{value}'")))
}

fn address(value: &str) -> Result<SocketAddr, ConfigError> {
    value.parse().map_err(|_| ConfigError::Value(format!("'{value}' is not ADDRESS:PORT")))
}

/// `1=A:P,2=A:P,3=A:P`
fn cluster(value: &str) -> Result<BTreeMap<NodeId, SocketAddr>, ConfigError> {
    let mut nodes = BTreeMap::new();
    for part in value.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (id, at) = part
            .split_once('=')
            .ok_or_else(|| ConfigError::Value(format!("'{part}' in initial-cluster is not ID=ADDRESS:PORT")))?;
        let id = NodeId(number("a node id in initial-cluster", id, 1, u32::MAX.into())?);
        if nodes.insert(id, address(at)?).is_some() {
            return Err(ConfigError::Value(format!("initial-cluster names node {id} twice")));
        }
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_sets_what_it_names_and_says_which_line_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("look.conf");
        std::fs::write(&path, "# comment\nport 7000\nwindow-bytes 2gb\n").unwrap();
        let c = Config::read_file(&path).unwrap();
        assert_eq!((c.port, c.window_bytes), (7000, 2 << 30));
        std::fs::write(&path, "port 7000\nprot 1\n").unwrap();
        let e = Config::read_file(&path).unwrap_err().to_string();
        assert!(e.contains("line 2") && e.contains("prot"), "{e}");
    }

    #[test]
    fn a_cluster_must_name_this_node_and_each_node_once() {
        let mut c = Config::default();
        c.set("initial-cluster", "2=127.0.0.1:1,3=127.0.0.1:2").unwrap();
        assert!(c.check().is_err());
        assert!(c.set("initial-cluster", "2=127.0.0.1:1,2=127.0.0.1:2").is_err());
        assert!(c.set("initial-cluster", "127.0.0.1:1").is_err());
    }
}
