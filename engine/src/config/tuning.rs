//! The flags that `serve` and `dev` share: addresses, limits, waits, logs.
//!
//! Owns: the name, default, unit and reason of each limit of the engine.
//! Invariant: a [`Tuning`] that left [`super::parse`] passed [`super::check`].

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::value;

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line, for Loki and the like.
    Json,
}

/// From which severity on lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// A person must look.
    Error,
    /// Work went on despite something odd.
    Warn,
    /// Changes of state.
    Info,
    /// Per batch and per connection.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The name `tracing` filters use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Which requests get a line in the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AccessLog {
    /// None.
    Off,
    /// Those answered with 4xx or 5xx.
    Errors,
    /// Each.
    All,
}

/// What an acknowledged transfer must be safe on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Durability {
    /// Whatever the server gives.
    Auto,
    /// A synchronous standby.
    SyncStandby,
    /// Replicated storage.
    Storage,
    /// The server's own disk.
    Async,
}

/// How the process reports on itself.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(next_help_heading = "Logs")]
pub struct LogArgs {
    /// Log lines for people (text) or one JSON object per line for Loki and the like (json)
    #[arg(
        long,
        env = "ENGINE_LOG_FORMAT",
        default_value = "text",
        value_name = "FORMAT"
    )]
    pub log_format: LogFormat,

    /// The least severity that is written
    #[arg(
        long,
        env = "ENGINE_LOG_LEVEL",
        default_value = "info",
        value_name = "LEVEL"
    )]
    pub log_level: LogLevel,
}

/// Addresses, limits and waits of a serving engine.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Logs.
    #[command(flatten)]
    pub log: LogArgs,

    /// Listeners, threads and connections.
    #[command(flatten)]
    pub network: Network,

    /// How much is admitted and how long it may take.
    #[command(flatten)]
    pub admission: Admission,

    /// How transfers become commits.
    #[command(flatten)]
    pub batch: Batch,

    /// How the database is used.
    #[command(flatten)]
    pub database: Database,

    /// How balances are cached.
    #[command(flatten)]
    pub cache: Cache,
}

/// Listeners, threads and connections.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(next_help_heading = "Network")]
pub struct Network {
    /// Address of the HTTP API; port 0 takes a free one
    #[arg(
        long,
        env = "ENGINE_LISTEN",
        default_value = "127.0.0.1:5000",
        value_name = "ADDRESS"
    )]
    pub listen: SocketAddr,

    /// Address of /metrics, /livez and /readyz, kept from clients; port 0 takes a free one
    ///
    /// It has a thread of its own, so it answers while the API is fully loaded.
    #[arg(
        long,
        env = "ENGINE_ADMIN_LISTEN",
        default_value = "127.0.0.1:9464",
        value_name = "ADDRESS"
    )]
    pub admin_listen: SocketAddr,

    /// One line per request: none, only those answered 4xx or 5xx, or all
    ///
    /// Written off the hot path through a bounded buffer; lines it cannot keep are dropped
    /// and counted, so a slow disk never slows a transfer.
    #[arg(
        long,
        env = "ENGINE_ACCESS_LOG",
        default_value = "off",
        value_name = "WHICH"
    )]
    pub access_log: AccessLog,

    /// Threads that serve connections and commit; 0 takes one for every two cores
    ///
    /// The other half is left to PostgreSQL, Redis and the network; where those are on other
    /// machines, give it all cores.
    #[arg(long, env = "ENGINE_IO_THREADS", default_value_t = 0, value_name = "N",
          value_parser = clap::value_parser!(u16).range(0..=1024))]
    pub io_threads: u16,

    /// Client connections open at once; past it new ones are closed
    ///
    /// One that has been used costs some 25 KiB and a file descriptor: the default leaves room
    /// for 10,000 idle clients beside the busy ones. Lowered, with a warning, to what the hard
    /// limit of open files allows beside the engine's own.
    #[arg(long, env = "ENGINE_CONNECTIONS_MAX", default_value_t = 16_384, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub connections_max: u32,

    /// Time for a request's header to arrive once it has begun, however it trickles
    #[arg(long, env = "ENGINE_HEADER_TIMEOUT", default_value = "10s",
          value_name = "TIME", value_parser = value::duration)]
    pub header_timeout: Duration,

    /// Time a connection may be open without a request
    ///
    /// Above the 60 s of common load balancers, so that they close first.
    #[arg(long, env = "ENGINE_IDLE_TIMEOUT", default_value = "75s",
          value_name = "TIME", value_parser = value::duration)]
    pub idle_timeout: Duration,

    /// Time a client may read nothing of an answer that waits for it, before it is closed
    ///
    /// Whoever reads slowly but reads has all time. Over HTTP/2 reading means 4 KiB of a list or
    /// of batch results in that time: PINGs and other answers do not count.
    #[arg(long, env = "ENGINE_WRITE_TIMEOUT", default_value = "30s",
          value_name = "TIME", value_parser = value::duration)]
    pub write_timeout: Duration,

    /// Principal that owns the idempotency keys of requests without authentication
    ///
    /// Keep it: another name is another scope, in which no earlier key is known.
    #[arg(
        long,
        env = "ENGINE_ANONYMOUS_PRINCIPAL",
        default_value = "anonymous",
        value_name = "NAME"
    )]
    pub anonymous_principal: String,
}

/// How much is admitted and how long it may take.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(next_help_heading = "Admission and deadlines")]
pub struct Admission {
    /// Time from a request's arrival to its answer; past it 503 (not applied) or 504 (unknown)
    ///
    /// Shorter than the 30 s and 60 s at which clients and load balancers hang up themselves.
    #[arg(long, env = "ENGINE_REQUEST_DEADLINE", default_value = "10s",
          value_name = "TIME", value_parser = value::duration)]
    pub request_deadline: Duration,

    /// Time to go on serving after SIGTERM, unready, while balancers and clients leave
    ///
    /// /readyz is 503 at once and each answer carries `Connection: close` (GOAWAY on HTTP/2);
    /// then the listener closes. Behind a balancer give it the time in which that notices an
    /// unready engine, such as 10s; a second signal ends it. Counts against --shutdown-grace, of
    /// which it leaves at least --request-deadline.
    #[arg(long, env = "ENGINE_SHUTDOWN_DELAY", default_value = "0s",
          value_name = "TIME", value_parser = value::duration)]
    pub shutdown_delay: Duration,

    /// Time a stop may take to answer what was accepted, before the process ends
    ///
    /// Kubernetes kills after 30 s by itself: give it a little more than this.
    #[arg(long, env = "ENGINE_SHUTDOWN_GRACE", default_value = "30s",
          value_name = "TIME", value_parser = value::duration)]
    pub shutdown_grace: Duration,

    /// Transfers admitted at once, waiting and in flight; past it 503 `queue_full`
    ///
    /// At 30,000 transfers a second about one second of work: more would only wait. Must hold
    /// one full batch call of 8,192.
    #[arg(long, env = "ENGINE_QUEUE_DEPTH_MAX", default_value_t = 32_768, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    pub queue_depth_max: u32,

    /// Bytes of all request bodies in memory at once; past it 503 `queue_full`
    ///
    /// Eight bodies of the largest size: with it memory stays bounded whatever is sent.
    #[arg(long, env = "ENGINE_BODY_BYTES_IN_FLIGHT_MAX", default_value = "64MiB",
          value_name = "BYTES", value_parser = value::byte_size)]
    pub body_bytes_in_flight_max: u64,

    /// Bytes of lists and batch results that clients have not read; past it 503 `queue_full`
    ///
    /// Some 200 of the longest. One connection may hold an eighth and its last answer, so that a
    /// client that asks and never reads is in nobody's way. A batch call at work counts by some
    /// 256 bytes for each transfer, a list once it is known.
    #[arg(long, env = "ENGINE_ANSWER_BYTES_IN_FLIGHT_MAX", default_value = "64MiB",
          value_name = "BYTES", value_parser = value::byte_size)]
    pub answer_bytes_in_flight_max: u64,

    /// How long an Idempotency-Key is remembered, 24h or more
    ///
    /// Longer than any client retries; the keys of a day cost about 100 bytes each.
    #[arg(long, env = "ENGINE_IDEMPOTENCY_RETENTION", default_value = "30d",
          value_name = "TIME", value_parser = value::duration)]
    pub idempotency_retention: Duration,
}

/// How transfers become commits.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(next_help_heading = "Batches")]
pub struct Batch {
    /// Transfers in one commit; at least one full batch call, 8,192
    #[arg(long, env = "ENGINE_BATCH_TRANSFERS_MAX", default_value_t = 8_192, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=131_072))]
    pub batch_transfers_max: u32,

    /// Distinct accounts locked by one commit; two for each transfer of a full batch call, 16,384
    #[arg(long, env = "ENGINE_BATCH_ACCOUNTS_MAX", default_value_t = 16_384, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=262_144))]
    pub batch_accounts_max: u32,

    /// Commits in flight at once, each with a connection of its own
    ///
    /// Few and large ones win: with more, each commit carries less and waits as long.
    #[arg(long, env = "ENGINE_COMMITTERS", default_value_t = 2, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=64))]
    pub committers: u16,

    /// Times one batch is tried after conflicts before its callers get 503
    #[arg(long, env = "ENGINE_COMMIT_ATTEMPTS_MAX", default_value_t = 5, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=100))]
    pub commit_attempts_max: u32,
}

/// How the database is used.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(next_help_heading = "Database")]
pub struct Database {
    /// Time a commit waits for a row lock that another engine holds, before it tries again
    ///
    /// Under half the request deadline, so that one blocked try still leaves time for another.
    #[arg(long, env = "ENGINE_LOCK_TIMEOUT", default_value = "3s",
          value_name = "TIME", value_parser = value::duration)]
    pub lock_timeout: Duration,

    /// Time one statement may take; longer than --lock-timeout, which explains more
    ///
    /// Together with --lock-timeout and --idle-in-transaction-timeout under 5 minutes: no
    /// transaction may outlive the overlap of two periods of idempotency keys.
    #[arg(long, env = "ENGINE_STATEMENT_TIMEOUT", default_value = "8s",
          value_name = "TIME", value_parser = value::duration)]
    pub statement_timeout: Duration,

    /// Time a transaction may idle before PostgreSQL ends it
    ///
    /// A stopped engine (SIGSTOP, a paused machine) holds its accounts no longer than this.
    #[arg(long, env = "ENGINE_IDLE_IN_TRANSACTION_TIMEOUT", default_value = "5s",
          value_name = "TIME", value_parser = value::duration)]
    pub idle_in_transaction_timeout: Duration,

    /// Time for one attempt to connect, TCP and login together
    #[arg(long, env = "ENGINE_DATABASE_CONNECT_TIMEOUT", default_value = "3s",
          value_name = "TIME", value_parser = value::duration)]
    pub database_connect_timeout: Duration,

    /// A primary that says nothing for so long is given up: its sessions are cut, others tried
    ///
    /// A server that says it is a standby, a link that breaks, and a promoted standby are noticed
    /// within a fifth of a second, whatever this is.
    #[arg(long, env = "ENGINE_DATABASE_FAILOVER_DETECT", default_value = "3s",
          value_name = "TIME", value_parser = value::duration)]
    pub database_failover_detect: Duration,

    /// A replica of --database-read-url further behind than this is not asked
    #[arg(long, env = "ENGINE_REPLICA_LAG_MAX", default_value = "1s",
          value_name = "TIME", value_parser = value::duration)]
    pub replica_lag_max: Duration,

    /// What an acknowledged transfer must be safe on; with less in force nothing is committed
    ///
    /// auto: whatever the server gives, shown on /readyz. sync-standby: a synchronous standby.
    /// storage: replicated storage, which PostgreSQL cannot see (RDS Multi-AZ, Aurora). async:
    /// the server's own disk; a failover may lose the newest. Unmet: 503 `database_unavailable`.
    #[arg(
        long,
        env = "ENGINE_DURABILITY",
        default_value = "auto",
        value_name = "LEVEL"
    )]
    pub durability: Durability,

    /// Connections for reads; the committers have their own
    ///
    /// Reads are short: eight saturate a few cores, and PostgreSQL allows 100 in all.
    #[arg(long, env = "ENGINE_DATABASE_POOL_SIZE", default_value_t = 8, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub database_pool_size: u16,
}

/// How balances are cached.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(next_help_heading = "Cache")]
pub struct Cache {
    /// Life of a cached balance: the most by which another engine's answer can be stale
    #[arg(long, env = "ENGINE_CACHE_TTL", default_value = "60s",
          value_name = "TIME", value_parser = value::duration)]
    pub cache_ttl: Duration,

    /// Time Redis may take for one answer before PostgreSQL is read instead
    #[arg(long, env = "ENGINE_CACHE_TIMEOUT", default_value = "50ms",
          value_name = "TIME", value_parser = value::duration)]
    pub cache_timeout: Duration,
}
