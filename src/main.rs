//! The `look` program: arguments in, exit code out; everything else is the library.

use clap::{Args, Parser, Subcommand};
use look::node::{self, backup, config::Config, config::ConfigError};
use std::path::PathBuf;
use std::process::ExitCode;

// Per-chunk buffers are allocated on one thread and freed on another, which the system's allocator does slowly.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A durable, replicated, time-travelling server for Redis clients.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node (the default)
    Serve(Serve),
    /// Verify .look files and print every command's bound
    Check {
        /// Files to verify
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Write .look files in their canonical form, declared costs as they are inferred
    Fmt {
        /// Write nothing: tell which files are not in that form, and fail if there are any
        #[arg(long)]
        check: bool,
        /// Files to format
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Check every checksum of a backup or of a stopped node's data directory; never writes to it
    Verify {
        /// Data directory or backup
        dir: PathBuf,
        /// Keys, if it is encrypted
        #[arg(long, value_name = "FILE")]
        encryption_key_file: Option<PathBuf>,
    },
    /// Add a copy of a running node to a backup directory: everything the first time, then what changed
    #[command(disable_help_flag = true)]
    Backup(Backup),
    /// Make the data directory of a new cluster from a backup
    Restore(Restore),
}

#[derive(Args)]
struct Backup {
    /// Backup directory; made if it is not there
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Any node of the cluster
    #[arg(short = 'h', value_name = "HOST", default_value = "127.0.0.1")]
    host: String,
    /// Its port for clients
    #[arg(short = 'p', value_name = "PORT", default_value_t = 6379)]
    port: u16,
    /// User to authenticate as
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Password; better in the environment, where other users do not see it
    #[arg(short = 'a', value_name = "PASSWORD", env = "REDISCLI_AUTH", hide_env_values = true)]
    password: Option<String>,
    /// Speak TLS
    #[arg(long, requires = "cacert")]
    tls: bool,
    /// Who signed the node's certificate
    #[arg(long, value_name = "FILE", requires = "tls")]
    cacert: Option<PathBuf>,
    /// Certificate to show, unless the node has tls-auth-clients no
    #[arg(long, value_name = "FILE", requires_all = ["tls", "key"])]
    cert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

impl Backup {
    fn run(self) -> Result<String, String> {
        let Backup { to, host, port, user, password, cacert, cert, key, .. } = self;
        let tls = cacert.map(|cacert| node::tls::ClientFiles { cacert, own: cert.zip(key) });
        backup::backup(&to, &backup::Server { host, port, user, password, tls }).map_err(|e| e.to_string())
    }
}

#[derive(Args)]
struct Restore {
    /// Backup directory
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// Data directory to make; empty or not there yet
    #[arg(long, value_name = "DIR")]
    dir: String,
    /// Epoch to show [default: the newest in the backup]
    #[arg(long, value_name = "EPOCH")]
    at: Option<u64>,
    /// Number of the node that will use it [default: 1]
    #[arg(long, value_name = "N")]
    node_id: Option<String>,
    /// Voters of the new cluster, "1=A:P,2=A:P,3=A:P"; restore the same for each of them
    #[arg(long, value_name = "NODES")]
    initial_cluster: Option<String>,
    /// Keys: of an encrypted backup, and to encrypt what is made with the newest
    #[arg(long, value_name = "FILE")]
    encryption_key_file: Option<String>,
}

impl Restore {
    fn run(self) -> Result<String, String> {
        let mut config = Config::default();
        let flags = [
            ("dir", Some(self.dir)),
            ("node-id", self.node_id),
            ("initial-cluster", self.initial_cluster),
            ("encryption-key-file", self.encryption_key_file),
        ];
        for (name, value) in flags {
            value.map_or(Ok(()), |value| config.set(name, &value)).map_err(|e| e.to_string())?;
        }
        backup::restore(&self.from, &backup::Target { config: &config, at: self.at }).map_err(|e| e.to_string())
    }
}

#[derive(Args, Default)]
struct Serve {
    /// Addresses to listen on for clients
    #[arg(long, value_name = "ADDRESS", num_args = 1..)]
    bind: Vec<String>,
    /// Port for clients [default: 6379]
    #[arg(long)]
    port: Option<String>,
    /// Data directory [default: ./look-data]
    #[arg(long, value_name = "DIR")]
    dir: Option<String>,
    /// Number of this node in its cluster [default: 1]
    #[arg(long, value_name = "N")]
    node_id: Option<String>,
    /// Address and port on which this node's peers reach it
    #[arg(long, value_name = "ADDRESS:PORT")]
    peer_addr: Option<String>,
    /// Voters of a new cluster: "1=A:P,2=A:P,3=A:P"
    #[arg(long, value_name = "NODES")]
    initial_cluster: Option<String>,
    /// Encrypt what is written with the newest of these keys
    #[arg(long, value_name = "FILE")]
    encryption_key_file: Option<String>,
    /// Join the cluster of the node at this peer address as a learner
    #[arg(long, value_name = "ADDRESS:PORT")]
    join: Option<String>,
    /// With --join: catch up to exactly this epoch and stay there, for analysis
    #[arg(long, value_name = "EPOCH")]
    stop_at: Option<String>,
    /// Secret that the nodes of a cluster share, so that others may join
    #[arg(long, value_name = "TOKEN")]
    join_token: Option<String>,
    /// Port for metrics, health and the status page, on this machine only [default: none]
    #[arg(long, value_name = "PORT")]
    admin_port: Option<String>,
    /// Configuration file of `name value` lines; flags override it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Any other parameter of the configuration, as `--set name=value`
    #[arg(long = "set", value_name = "NAME=VALUE")]
    set: Vec<String>,
}

impl Serve {
    fn into_config(self) -> Result<Config, ConfigError> {
        let mut config = match &self.config {
            Some(path) => Config::read_file(path)?,
            None => Config::default(),
        };
        let bind = (!self.bind.is_empty()).then(|| self.bind.join(" "));
        let flags = [
            ("bind", bind),
            ("port", self.port),
            ("dir", self.dir),
            ("admin-port", self.admin_port),
            ("node-id", self.node_id),
            ("peer-addr", self.peer_addr),
            ("initial-cluster", self.initial_cluster),
            ("encryption-key-file", self.encryption_key_file),
            ("join", self.join),
            ("join-token", self.join_token),
            ("stop-at", self.stop_at),
        ];
        for (name, value) in flags {
            if let Some(value) = value {
                config.set(name, &value)?;
            }
        }
        for pair in &self.set {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| ConfigError::Value(format!("--set takes NAME=VALUE, not '{pair}'")))?;
            config.set(name, value)?;
        }
        config.check()?;
        Ok(config)
    }
}

/// What was done to standard output, or why it was not to standard error.
fn told(result: Result<String, String>) -> ExitCode {
    match result {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("look: {message}");
            ExitCode::FAILURE
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Some(Command::Check { files }) => return node::check_files(&files),
        Some(Command::Fmt { check, files }) => return node::format_files(&files, check),
        Some(Command::Verify { dir, encryption_key_file: keys }) => return node::verify::run(&dir, keys.as_deref()),
        Some(Command::Backup(backup)) => return told(backup.run()),
        Some(Command::Restore(restore)) => return told(restore.run()),
        Some(Command::Serve(serve)) => serve.into_config(),
        None => cli.serve.into_config(),
    };
    match result.map_err(|e| e.to_string()).and_then(|config| node::serve(config).map_err(|e| e.to_string())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => told(Err(message)),
    }
}
