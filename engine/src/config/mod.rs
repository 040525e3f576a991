//! What the process was asked to do, and with which limits.
//!
//! Owns: the command line, the environment, defaults, and their cross-checks.
//! Never: does I/O, or lets a password into `Debug`, `Display` or an error.
//! Bound: every limit of the engine has its name, unit, default and reason here.
//! Invariant: a configuration that [`parse`] returned passed every check.

mod args;
mod check;
#[cfg(test)]
mod tests;
mod tuning;
mod value;

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{CommandFactory, FromArgMatches};

pub use check::{
    BATCH_BODY_BYTES_MAX, BATCH_CALL_ACCOUNTS_MAX, BATCH_CALL_TRANSFERS_MAX,
    IDEMPOTENCY_RETENTION_MIN,
};
pub use tuning::{
    AccessLog, Admission, Batch, Cache, Database, Durability, LogArgs, LogFormat, LogLevel,
    Network, Tuning,
};
pub use value::{DatabaseUrl, RedisUrl};

use args::{Cli, CommandArgs, DevArgs, ServeArgs};

/// One subcommand with all it needs.
#[derive(Debug)]
pub enum Command {
    /// Serve the HTTP API.
    Serve(Box<ServeConfig>),
    /// Serve on private servers with demo accounts.
    Dev(Box<DevConfig>),
    /// Bring the schema up to date.
    Migrate(MigrateConfig),
    /// Make and drop partitions.
    Maintain(MaintainConfig),
    /// Check the ledger.
    Verify(VerifyConfig),
    /// Print the API's description.
    Openapi,
    /// Ask a running engine how it is.
    Health(HealthConfig),
}

/// `engine serve`.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// The ledger, as the serving role.
    pub database_url: DatabaseUrl,
    /// Replicas of it for lists and look-ups.
    pub database_read_url: Option<DatabaseUrl>,
    /// The cache; `None`: every balance is read from PostgreSQL.
    pub redis_url: Option<RedisUrl>,
    /// Who may vouch for the cache; `None`: whom this machine trusts.
    pub redis_ca_file: Option<PathBuf>,
    /// The ledger as its owner: set exactly when the schema is to be migrated
    /// before serving.
    pub migrate_database_url: Option<DatabaseUrl>,
    /// Addresses, limits, waits and logs.
    pub tuning: Tuning,
}

/// `engine dev`.
#[derive(Clone, Debug)]
pub struct DevConfig {
    /// Where the servers keep everything.
    pub data_dir: PathBuf,
    /// Demo accounts to open.
    pub accounts: u32,
    /// What to do.
    pub mode: DevMode,
    /// Whether earlier data is thrown away first.
    pub fresh: bool,
    /// Whether Redis is started if it is installed.
    pub redis: bool,
    /// Whether local users need no password.
    pub trust_loopback: bool,
    /// PostgreSQL's programs, if not to be searched for.
    pub postgres_bin_dir: Option<PathBuf>,
    /// `PATH`, where programs are searched.
    pub search_path: OsString,
    /// Extra PostgreSQL settings, name and value.
    pub postgres_settings: Vec<(String, String)>,
    /// Extra Redis settings, name and value.
    pub redis_settings: Vec<(String, String)>,
    /// Addresses, limits, waits and logs of the engine.
    pub tuning: Tuning,
    /// Program and arguments to run against the servers; empty: until Ctrl-C.
    pub command: Vec<OsString>,
}

/// What `engine dev` starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DevMode {
    /// PostgreSQL, Redis and the engine.
    Engine,
    /// PostgreSQL and Redis.
    ServersOnly,
    /// Nothing: stop what a killed run left behind.
    StopLeftovers,
}

/// `engine migrate`.
#[derive(Clone, Debug)]
pub struct MigrateConfig {
    /// The ledger, as its owner.
    pub database_url: DatabaseUrl,
    /// How long keys are remembered: the width of their partitions.
    pub idempotency_retention: Duration,
}

/// `engine maintain`.
#[derive(Clone, Debug)]
pub struct MaintainConfig {
    /// The ledger, as its owner.
    pub database_url: DatabaseUrl,
    /// How long keys are remembered.
    pub idempotency_retention: Duration,
}

/// `engine verify`.
#[derive(Clone, Debug)]
pub struct VerifyConfig {
    /// The ledger; may be a standby.
    pub database_url: DatabaseUrl,
    /// Check only what was made from here on.
    pub since: Option<SystemTime>,
    /// Whether to print JSON.
    pub json: bool,
}

/// `engine health`.
#[derive(Clone, Copy, Debug)]
pub struct HealthConfig {
    /// Where to ask; never a wildcard.
    pub address: SocketAddr,
    /// How long to wait.
    pub timeout: Duration,
}

/// Why there is nothing to run.
#[derive(Debug)]
pub enum ConfigError {
    /// `--help` or `--version`: the text, for standard output. Not a failure.
    Help(String),
    /// The command line cannot be read; the text names the argument.
    Usage(String),
    /// A value cannot be used.
    Setting {
        /// The flag, as written.
        setting: &'static str,
        /// What is wrong with it, without the value if that may be secret.
        reason: String,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Help(text) | Self::Usage(text) => f.write_str(text.trim_end()),
            Self::Setting { setting, reason } => write!(f, "error: {setting} {reason}"),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Reads a command line (program name first) over the process's environment.
///
/// # Errors
/// [`ConfigError`] names the setting; its text never holds a password.
pub fn parse<I, T>(arguments: I) -> Result<Command, ConfigError>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let matches = command_line()
        .try_get_matches_from(arguments)
        .map_err(from_clap)?;
    let cli = Cli::from_arg_matches(&matches).map_err(from_clap)?;
    resolve(cli.command)
}

/// An empty variable counts as not set: compose files and manifests write
/// `ENGINE_REDIS_URL=` for "none", and clap would take it as a value.
fn command_line() -> clap::Command {
    Cli::command().mut_subcommands(|subcommand| {
        subcommand.mut_args(|arg| {
            let empty = arg
                .get_env()
                .and_then(std::env::var_os)
                .is_some_and(|value| value.is_empty());
            if empty { arg.env(None::<&str>) } else { arg }
        })
    })
}

fn from_clap(error: clap::Error) -> ConfigError {
    let text = error.render().to_string();
    // The streams clap chose: standard output is for what was asked for.
    if error.use_stderr() {
        ConfigError::Usage(text)
    } else {
        ConfigError::Help(text)
    }
}

fn resolve(command: CommandArgs) -> Result<Command, ConfigError> {
    match command {
        CommandArgs::Serve(args) => serve(*args).map(|config| Command::Serve(Box::new(config))),
        CommandArgs::Dev(args) => dev(*args).map(|config| Command::Dev(Box::new(config))),
        CommandArgs::Migrate(args) => {
            let database_url = ledger_url(args.database_url, args.database_ca_file.as_deref())?;
            check::retention(args.idempotency_retention)?;
            Ok(Command::Migrate(MigrateConfig {
                database_url,
                idempotency_retention: args.idempotency_retention,
            }))
        }
        CommandArgs::Maintain(args) => {
            let database_url = ledger_url(args.database_url, args.database_ca_file.as_deref())?;
            check::retention(args.idempotency_retention)?;
            Ok(Command::Maintain(MaintainConfig {
                database_url,
                idempotency_retention: args.idempotency_retention,
            }))
        }
        CommandArgs::Verify(args) => {
            let database_url = ledger_url(args.database_url, args.database_ca_file.as_deref())?;
            Ok(Command::Verify(VerifyConfig {
                database_url,
                since: args.since,
                json: args.json,
            }))
        }
        CommandArgs::Openapi => Ok(Command::Openapi),
        CommandArgs::Health(args) => Ok(Command::Health(HealthConfig {
            address: reachable(args.listen),
            timeout: args.timeout,
        })),
    }
}

fn ledger_url(url: DatabaseUrl, ca_file: Option<&Path>) -> Result<DatabaseUrl, ConfigError> {
    check::database_url("--database-url", &url)?;
    check::with_ca_file(url, ca_file)
}

fn serve(args: ServeArgs) -> Result<ServeConfig, ConfigError> {
    let migrate_database_url = match (args.migrate, args.migrate_database_url) {
        (true, None) => {
            return Err(ConfigError::Setting {
                setting: "--migrate",
                reason: "needs --migrate-database-url: the serving role may not change the schema"
                    .to_owned(),
            });
        }
        (true, Some(url)) => Some(url),
        (false, _) => None,
    };
    let ca_file = args.database_ca_file.as_deref();
    let with_ca_file =
        |url: Option<DatabaseUrl>| url.map(|url| check::with_ca_file(url, ca_file)).transpose();
    let config = ServeConfig {
        database_url: ledger_url(args.database_url, ca_file)?,
        database_read_url: with_ca_file(args.database_read_url)?,
        redis_url: args.redis_url,
        redis_ca_file: args.redis_ca_file,
        migrate_database_url: with_ca_file(migrate_database_url)?,
        tuning: args.tuning,
    };
    check::serve(&config)?;
    Ok(config)
}

fn dev(args: DevArgs) -> Result<DevConfig, ConfigError> {
    check::tuning(&args.tuning)?;
    let mode = if args.stop {
        DevMode::StopLeftovers
    } else if args.servers_only {
        DevMode::ServersOnly
    } else {
        DevMode::Engine
    };
    Ok(DevConfig {
        data_dir: args.data_dir,
        accounts: args.accounts,
        mode,
        fresh: args.fresh,
        redis: !args.no_redis,
        trust_loopback: args.trust_loopback,
        postgres_bin_dir: args.postgres_bin_dir,
        search_path: std::env::var_os("PATH").unwrap_or_default(),
        postgres_settings: args.postgres_settings,
        redis_settings: args.redis_settings,
        tuning: args.tuning,
        command: args.command,
    })
}

/// A listener on a wildcard is reached through loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, listen.port())
}
