//! The command line: every subcommand and its own flags.
//!
//! The flags that `serve` and `dev` share are in [`super::tuning`]. Each flag's
//! help says what it does, its unit, and why the default is what it is; clap
//! adds the default and the environment variable.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand};

use super::tuning::Tuning;
use super::value::{self, DatabaseUrl, RedisUrl};

const OVERVIEW: &str = "\
Moves money between accounts: one transfer per HTTP call, thousands per PostgreSQL commit,
each call answered only once its transfer is durable.";

const EXAMPLES: &str = "\
Examples:
  engine dev                             try it: a private PostgreSQL, Redis and demo accounts
  engine migrate --database-url postgres://owner@db/ledger
  engine serve --database-url postgres://engine@db/ledger --redis-url redis://cache/0
  engine verify --database-url postgres://engine@standby/ledger
  engine serve --database-url 'postgres://engine@db.example/ledger?sslmode=verify-full' \
      --database-ca-file global-bundle.pem --redis-url rediss://cache.example/0

Each flag of serve is also an environment variable: --request-deadline is ENGINE_REQUEST_DEADLINE.
The flag wins over the variable; an empty variable counts as not set.
Passwords belong into the variables: other users of a machine can read command lines.

Exit codes: 0 clean stop, 64 bad configuration, 69 a dependency is unavailable, 1 anything else.";

#[derive(Debug, Parser)]
#[command(name = "engine", version, about = OVERVIEW, after_help = EXAMPLES, max_term_width = 100)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: CommandArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum CommandArgs {
    /// Serve the HTTP API on a migrated database (production)
    ///
    /// Refuses to start on a schema it does not know, and says which command mends it.
    Serve(Box<ServeArgs>),
    /// Serve on a private PostgreSQL and Redis with demo accounts (to try and to test)
    ///
    /// Both are started from the installed programs on free ports of this machine, with the
    /// data directory as their only place; both stop with this command. Works as root: the
    /// servers then run as the user postgres or nobody.
    Dev(Box<DevArgs>),
    /// Bring the database to this version's schema and make its partitions
    ///
    /// Forward only, each migration in one transaction under an advisory lock: several may run
    /// at once, and one that is killed has done nothing.
    Migrate(MigrateArgs),
    /// Make partitions ahead, drop expired idempotency keys, index past months; run it daily
    ///
    /// Says what it did; blocks no transfer. Indexes by account are built on months that are
    /// over, so that a list with `until` in one starts there. The engine warns by log and metric when fewer than three partitions
    /// remain ahead.
    Maintain(MaintainArgs),
    /// Check every invariant of the ledger in one snapshot; exit 1 at a broken row
    ///
    /// Runs each query of sql/checks/ and names the first broken row; may run on a standby.
    Verify(VerifyArgs),
    /// Print the OpenAPI description of the HTTP API
    Openapi,
    /// Ask a running engine whether it is healthy; exit 0 or 1
    ///
    /// The container's health check.
    Health(HealthArgs),
}

const SERVE_EXAMPLES: &str = "\
Examples:
  engine serve --database-url postgres://engine:secret@db/ledger --redis-url redis://cache/0
  ENGINE_DATABASE_URL=postgres://engine:secret@db/ledger engine serve --listen 0.0.0.0:5000
  engine serve --migrate --migrate-database-url postgres://owner:secret@db/ledger ...

SIGTERM or Ctrl-C: /readyz turns 503, clients are asked to leave for --shutdown-delay, what was
accepted is answered, then it stops. A second signal ends the delay.";

/// Flags of `engine serve`.
#[derive(Debug, Args)]
#[command(after_help = SERVE_EXAMPLES)]
pub(super) struct ServeArgs {
    /// PostgreSQL of the ledger, as the least-privileged role of sql/roles.sql
    ///
    /// Several hosts may be given (host1:port,host2:port): the engine uses the one that takes
    /// writes and follows when another does, without a restart. Names are resolved again at each
    /// attempt.
    ///
    /// sslmode= at its end says how much TLS, as in libpq: disable; prefer (the default: if the
    /// server speaks it and both can agree); require (always, but whoever answers is believed,
    /// unless a file of authorities is given); verify-ca (an authority of the file must vouch for
    /// the server);
    /// verify-full (and for this very host name: for every network that is not your own).
    /// sslrootcert=FILE names the authorities, PEM; without it verify-full believes those that
    /// this machine trusts, and verify-ca is refused. A Unix socket has no TLS.
    #[arg(
        long,
        env = "ENGINE_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub(super) database_url: DatabaseUrl,

    /// PostgreSQL replicas to read history, transfers and account lists from
    ///
    /// Asked only while not further behind than --replica-lag-max; balances and every decision
    /// stay with the primary. Same role and database as --database-url.
    #[arg(
        long,
        env = "ENGINE_DATABASE_READ_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub(super) database_read_url: Option<DatabaseUrl>,

    /// PEM file of the authorities that may vouch for PostgreSQL's certificate
    ///
    /// The same as sslrootcert=FILE in each database URL that names none; needs
    /// sslmode=require, verify-ca or verify-full there. Amazon RDS: its global-bundle.pem.
    /// Read once, at start.
    #[arg(long, env = "ENGINE_DATABASE_CA_FILE", value_name = "FILE")]
    pub(super) database_ca_file: Option<PathBuf>,

    /// Redis for balances; without it every balance is read from PostgreSQL
    ///
    /// Redis decides nothing: when it is slow, gone or wiped, reads only take longer.
    /// rediss://[user:password@]host:port/0 speaks TLS and checks certificate and host name.
    #[arg(
        long,
        env = "ENGINE_REDIS_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub(super) redis_url: Option<RedisUrl>,

    /// PEM file of the authorities that may vouch for Redis' certificate (rediss://)
    ///
    /// Default: those that this machine trusts. Read once, at start.
    #[arg(long, env = "ENGINE_REDIS_CA_FILE", value_name = "FILE")]
    pub(super) redis_ca_file: Option<PathBuf>,

    /// Migrate the schema before serving, as the role of --migrate-database-url
    ///
    /// Safe when several engines start at once. Off: a role that may change the schema
    /// need not be known to a serving engine.
    #[arg(long, env = "ENGINE_MIGRATE", value_parser = BoolishValueParser::new())]
    pub(super) migrate: bool,

    /// PostgreSQL of the ledger as its owner; used for --migrate only, then forgotten
    #[arg(
        long,
        env = "ENGINE_MIGRATE_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub(super) migrate_database_url: Option<DatabaseUrl>,

    #[command(flatten)]
    pub(super) tuning: Tuning,
}

const DEV_EXAMPLES: &str = "\
Examples:
  engine dev                                   serve until Ctrl-C; data stays in .data
  engine dev --fresh --accounts 10000          throw the data away first
  engine dev -- ops/lib/demo                   serve, run a command against it, stop
  engine dev --servers-only -- cargo test      only PostgreSQL and Redis, for a command

A COMMAND sees ENGINE_TEST_DATABASE_URL and ENGINE_TEST_REDIS_URL (also as DATABASE_URL,
REDIS_URL), ENGINE_TEST_DATABASE_SOCKET_URL (the same server through its Unix socket), and
unless --servers-only ENGINE_URL and ENGINE_ADMIN_URL; engine dev exits with its exit code.";

/// Flags of `engine dev`.
#[derive(Debug, Args)]
#[command(after_help = DEV_EXAMPLES)]
pub(super) struct DevArgs {
    /// Where the servers keep their data, logs and passwords; kept between runs
    #[arg(
        long,
        env = "ENGINE_DATA_DIR",
        default_value = ".data",
        value_name = "DIR"
    )]
    pub(super) data_dir: PathBuf,

    /// Demo accounts to open, 1 to N, each funded from account 0 by a transfer
    #[arg(long, env = "ENGINE_ACCOUNTS", default_value_t = 1_000, value_name = "N",
          value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(super) accounts: u32,

    /// Throw the data directory's databases away first
    #[arg(long)]
    pub(super) fresh: bool,

    /// Start only PostgreSQL and Redis, no engine
    #[arg(long)]
    pub(super) servers_only: bool,

    /// Stop servers that a killed `engine dev` left behind in the data directory, and exit
    #[arg(long, conflicts_with_all = ["fresh", "servers_only", "command"])]
    pub(super) stop: bool,

    /// Do without Redis even if it is installed
    #[arg(long, env = "ENGINE_NO_REDIS", value_parser = BoolishValueParser::new())]
    pub(super) no_redis: bool,

    /// Let every user of this machine into the servers without a password, as any role
    ///
    /// For tests, which log in as roles they have just made, on data nobody minds losing.
    #[arg(long)]
    pub(super) trust_loopback: bool,

    /// Folder of the PostgreSQL programs (initdb, postgres), version 15 or later
    ///
    /// Otherwise the newest under /usr/lib/postgresql, then PATH; a data directory keeps
    /// the version it was made with.
    #[arg(long, env = "ENGINE_POSTGRES_BIN_DIR", value_name = "DIR")]
    pub(super) postgres_bin_dir: Option<PathBuf>,

    /// A PostgreSQL setting, as in -c; may be repeated
    #[arg(short = 'c', long = "postgres-setting", value_name = "NAME=VALUE", value_parser = setting)]
    pub(super) postgres_settings: Vec<(String, String)>,

    /// A Redis setting, as in redis.conf; may be repeated
    #[arg(long = "redis-setting", value_name = "NAME=VALUE", value_parser = setting)]
    pub(super) redis_settings: Vec<(String, String)>,

    #[command(flatten)]
    pub(super) tuning: Tuning,

    /// A command to run against the servers; they stop when it ends
    #[arg(last = true, value_name = "COMMAND")]
    pub(super) command: Vec<OsString>,
}

/// Flags of `engine migrate`.
#[derive(Debug, Args)]
pub(super) struct MigrateArgs {
    /// PostgreSQL of the ledger, as the role that owns the schema
    #[arg(
        long,
        env = "ENGINE_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub(super) database_url: DatabaseUrl,

    /// PEM file of the authorities that may vouch for PostgreSQL's certificate
    ///
    /// The same as sslrootcert=FILE in each database URL that names none; needs
    /// sslmode=require, verify-ca or verify-full there. Amazon RDS: its global-bundle.pem.
    /// Read once, at start.
    #[arg(long, env = "ENGINE_DATABASE_CA_FILE", value_name = "FILE")]
    pub(super) database_ca_file: Option<PathBuf>,

    /// How long an Idempotency-Key is remembered; the same value as the engines', 24h or more
    #[arg(long, env = "ENGINE_IDEMPOTENCY_RETENTION", default_value = "30d",
          value_name = "TIME", value_parser = value::duration)]
    pub(super) idempotency_retention: Duration,
}

/// Flags of `engine maintain`.
#[derive(Debug, Args)]
pub(super) struct MaintainArgs {
    /// PostgreSQL of the ledger, as the role that owns the schema
    #[arg(
        long,
        env = "ENGINE_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub(super) database_url: DatabaseUrl,

    /// PEM file of the authorities that may vouch for PostgreSQL's certificate
    ///
    /// The same as sslrootcert=FILE in each database URL that names none; needs
    /// sslmode=require, verify-ca or verify-full there. Amazon RDS: its global-bundle.pem.
    /// Read once, at start.
    #[arg(long, env = "ENGINE_DATABASE_CA_FILE", value_name = "FILE")]
    pub(super) database_ca_file: Option<PathBuf>,

    /// How long an Idempotency-Key is remembered; the same value as the engines', 24h or more
    #[arg(long, env = "ENGINE_IDEMPOTENCY_RETENTION", default_value = "30d",
          value_name = "TIME", value_parser = value::duration)]
    pub(super) idempotency_retention: Duration,
}

const VERIFY_EXAMPLES: &str = "\
Examples:
  engine verify --database-url postgres://engine@standby/ledger
  engine verify --since 2026-01-31T00:00:00Z --json";

/// Flags of `engine verify`.
#[derive(Debug, Args)]
#[command(after_help = VERIFY_EXAMPLES)]
pub(super) struct VerifyArgs {
    /// PostgreSQL of the ledger; reading is enough
    #[arg(
        long,
        env = "ENGINE_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub(super) database_url: DatabaseUrl,

    /// PEM file of the authorities that may vouch for PostgreSQL's certificate
    ///
    /// The same as sslrootcert=FILE in each database URL that names none; needs
    /// sslmode=require, verify-ca or verify-full there. Amazon RDS: its global-bundle.pem.
    /// Read once, at start.
    #[arg(long, env = "ENGINE_DATABASE_CA_FILE", value_name = "FILE")]
    pub(super) database_ca_file: Option<PathBuf>,

    /// Check only what was made from this moment on (RFC 3339), to finish sooner
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_rfc3339_weak)]
    pub(super) since: Option<std::time::SystemTime>,

    /// Print the outcome as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Flags of `engine health`.
#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// The engine's listener; a wildcard such as 0.0.0.0 is asked through loopback
    #[arg(
        long,
        env = "ENGINE_LISTEN",
        default_value = "127.0.0.1:5000",
        value_name = "ADDRESS"
    )]
    pub(super) listen: SocketAddr,

    /// How long to wait for the answer
    #[arg(long = "health-timeout", env = "ENGINE_HEALTH_TIMEOUT", default_value = "3s",
          value_name = "TIME", value_parser = value::duration)]
    pub(super) timeout: Duration,
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.to_owned()))
        }
        Some(_) | None => Err("write it as name=value".to_owned()),
    }
}
