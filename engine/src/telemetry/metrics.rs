//! Every number the engine publishes.
//!
//! Owns: the handles of all metrics, registered once, before the first request.
//! Never: hashes a label or allocates when recording; never takes a label from
//! a request.
//! Bound: the set of series is fixed at compile time (see [`super::label`]).
//! Invariant: a transfer is counted in `engine_transfers_total` when it is
//! decided, once; a replay is counted apart, since nothing was decided.
//!
//! Two ways in. What happens is pushed: `metrics.batch.closed.get(reason).increment(1)`.
//! What merely is (depths, pools, the cache's own counters) is pulled at scrape
//! time by a [`super::exporter::Probe`], which sets gauges with [`number`] and
//! counters with `absolute`.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Unit};

use super::label::{
    BreakerState, By, CacheError, CachePut, CacheRead, CloseReason, CommitPhase, CommitResult,
    CommitRetryCause, Failure, Label, PartitionedTable, PoolConnection, ReadServer, Refusal,
    Replay, ReplicationMode, Resolved, Route, Status, StatusClass,
};
use super::register::Registrar;
use crate::domain::{Outcome, RejectReason};

/// 50 us (a cached read) to 10 s (the default request deadline), about three
/// to a decade: a p99 is then known within a factor of 2.5.
const DURATION_BUCKETS: [f64; 17] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0,
];

/// Powers of two to 8,192, the largest batch call; accounts reach twice that.
const SIZE_BUCKETS: [f64; 15] = [
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0,
    16384.0,
];

/// Two are the aim; more come from retries.
const ROUND_TRIP_BUCKETS: [f64; 8] = [1.0, 2.0, 3.0, 4.0, 5.0, 8.0, 16.0, 32.0];

/// All metrics, by room.
#[derive(Debug)]
pub struct Metrics {
    /// The HTTP edge.
    pub requests: Requests,
    /// What became of transfers.
    pub transfers: Transfers,
    /// Waiting and permits.
    pub admission: Admission,
    /// Batches.
    pub batch: Batch,
    /// Commits.
    pub commit: Commit,
    /// Redis.
    pub cache: Cache,
    /// The connections that serve reads.
    pub pool: Pool,
    /// PostgreSQL as seen from here.
    pub database: Database,
    /// The daemon itself.
    pub engine: Engine,
}

/// Metrics of the HTTP edge.
#[derive(Debug)]
pub struct Requests {
    total: By<Route, By<Status, Counter>>,
    duration: By<Route, By<StatusClass, Histogram>>,
    /// Open client connections.
    pub connections: Gauge,
    /// How many there may be.
    pub connections_max: Gauge,
    /// Connections closed because there were too many.
    pub connections_refused: Counter,
    /// Times the operating system gave no connection.
    pub accept_failures: Counter,
    /// Bytes of answers not read yet.
    pub answer_bytes: Gauge,
    /// The budget of those bytes.
    pub answer_bytes_max: Gauge,
    /// Bytes of all bodies in flight.
    pub body_bytes: Gauge,
    /// The budget of those bytes.
    pub body_bytes_max: Gauge,
}

/// Metrics of what became of transfers.
#[derive(Debug)]
pub struct Transfers {
    /// Committed.
    pub completed: Counter,
    /// Refused for a business reason.
    pub rejected: By<RejectReason, Counter>,
    /// Turned away with certainty.
    pub refused: By<Refusal, Counter>,
    /// No answer of its own.
    pub failed: By<Failure, Counter>,
    /// Repeats of a known key.
    pub replays: By<Replay, Counter>,
    /// A key used for two different requests.
    pub key_conflicts: Counter,
}

/// Metrics of waiting and permits.
#[derive(Debug)]
pub struct Admission {
    /// From admission until the batch closed.
    pub queue_wait: Histogram,
    /// Transfers waiting for an account or a committer.
    pub queue_depth: Gauge,
    /// Its limit.
    pub queue_depth_max: Gauge,
    /// Permits held.
    pub permits: Gauge,
    /// Permits there are.
    pub permits_max: Gauge,
}

/// Metrics of batches.
#[derive(Debug)]
pub struct Batch {
    /// Transfers per batch.
    pub transfers: Histogram,
    /// Distinct accounts per batch.
    pub accounts: Histogram,
    /// Why each closed.
    pub closed: By<CloseReason, Counter>,
    /// Batches split to find the culprit of a data error.
    pub bisected: Counter,
    /// Batches being committed.
    pub in_flight: Gauge,
}

/// Metrics of commits.
#[derive(Debug)]
pub struct Commit {
    /// By phase.
    pub duration: By<CommitPhase, Histogram>,
    /// Waits for the database per batch, retries included.
    pub round_trips: Histogram,
    /// How attempts ended.
    pub attempts: By<CommitResult, Counter>,
    /// Batches committed again.
    pub retries: By<CommitRetryCause, Counter>,
    /// Transfers looked up after an unknown outcome.
    pub resolved: By<Resolved, Counter>,
}

/// Metrics of the cache.
#[derive(Debug)]
pub struct Cache {
    /// Balance reads.
    pub reads: By<CacheRead, Counter>,
    /// Puts.
    pub puts: By<CachePut, Counter>,
    /// Failures of Redis.
    pub errors: By<CacheError, Counter>,
    /// 1 at the present state, 0 at the others.
    pub breaker: By<BreakerState, Gauge>,
    /// 1 while Redis answers.
    pub up: Gauge,
}

/// Metrics of the read pool.
#[derive(Debug)]
pub struct Pool {
    /// Connections by what they do.
    pub connections: By<PoolConnection, Gauge>,
    /// Connections at most.
    pub connections_max: Gauge,
    /// Reads waiting for one.
    pub waiting: Gauge,
    /// Reads that a replica may answer, by who did; only with `--database-read-url`.
    pub reads: By<ReadServer, Counter>,
}

/// Metrics of PostgreSQL as seen from here.
#[derive(Debug)]
pub struct Database {
    /// 1 while it answers.
    pub up: Gauge,
    /// 1 while it takes writes.
    pub writable: Gauge,
    /// Its clock minus ours.
    pub clock_skew: Gauge,
    /// Times another server became the primary.
    pub failovers: Counter,
    /// The timeline it writes.
    pub timeline: Gauge,
    /// 1 at what its commits rest on, 0 elsewhere.
    pub replication_mode: By<ReplicationMode, Gauge>,
    /// How far the last that follows is behind.
    pub replication_lag: Gauge,
    /// Those that follow.
    pub standbys: Gauge,
    /// Of those, the synchronous ones.
    pub sync_standbys: Gauge,
    /// 1 while `--durability` is met.
    pub durable: Gauge,
    /// How far the replica for reads is behind.
    pub replica_lag: Gauge,
    /// Partitions after the present one.
    pub partitions_ahead: By<PartitionedTable, Gauge>,
}

/// Metrics of the daemon itself.
#[derive(Debug)]
pub struct Engine {
    /// Since start.
    pub uptime: Gauge,
    /// 1 while `/readyz` says ready.
    pub ready: Gauge,
    /// 1 from the stop signal on.
    pub draining: Gauge,
    /// 1 while the schema is the next release's.
    pub schema_newer: Gauge,
    /// Access-log lines written.
    pub access_log_lines: Counter,
    /// Access-log lines given up because the writer was behind.
    pub access_log_dropped: Counter,
    /// Log lines given up because standard error was behind.
    pub log_dropped: Counter,
    /// Supervised tasks that panicked.
    pub task_panics: Counter,
    /// Admin connections closed because there were too many.
    pub admin_refused: Counter,
}

/// The handles; the real recorder stands behind them from the first call on.
#[must_use]
pub fn get() -> &'static Metrics {
    super::exporter::global().metrics()
}

/// A count as a gauge takes it. Exact to 2^53, far above any limit here.
#[must_use]
pub fn number(count: usize) -> f64 {
    // Two exact halves instead of a cast, which clippy cannot tell from a lossy one.
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    let high = u32::try_from(count >> 32).unwrap_or(u32::MAX);
    let low = u32::try_from(count & 0xFFFF_FFFF).unwrap_or(u32::MAX);
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

/// 1 or 0.
#[must_use]
pub fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

impl Metrics {
    pub(super) fn register(registrar: &mut Registrar<'_>) -> Self {
        Self {
            requests: Requests::register(registrar),
            transfers: Transfers::register(registrar),
            admission: Admission::register(registrar),
            batch: Batch::register(registrar),
            commit: Commit::register(registrar),
            cache: Cache::register(registrar),
            pool: Pool::register(registrar),
            database: Database::register(registrar),
            engine: Engine::register(registrar),
        }
    }
}

impl Requests {
    fn register(registrar: &mut Registrar<'_>) -> Self {
        let total = registrar.counter_family(
            "engine_requests_total",
            "Requests answered, by route and status code.",
        );
        let duration = registrar.histogram_family(
            "engine_request_duration_seconds",
            &DURATION_BUCKETS,
            "Time from the head of a request read to its answer handed over, by route and status class.",
        );
        Self {
            total: By::new(|route: Route| {
                By::new(|status: Status| {
                    total(&[("route", route.as_str()), ("status", status.as_str())])
                })
            }),
            duration: By::new(|route: Route| {
                By::new(|status: StatusClass| {
                    duration.series(&[("route", route.as_str()), ("status", status.as_str())])
                })
            }),
            connections: registrar.gauge(
                "engine_connections",
                Unit::Count,
                "Client connections open on the main listener.",
            ),
            connections_max: registrar.gauge(
                "engine_connections_max",
                Unit::Count,
                "Client connections that may be open: as configured, or as files allow.",
            ),
            connections_refused: registrar.counter(
                "engine_connections_refused_total",
                "Client connections closed because there were too many.",
            ),
            accept_failures: registrar.counter(
                "engine_accept_failures_total",
                "Times that no connection could be accepted, such as for want of files.",
            ),
            answer_bytes: registrar.gauge(
                "engine_answer_in_flight_bytes",
                Unit::Bytes,
                "Bytes of lists and batch results that clients have not read yet.",
            ),
            answer_bytes_max: registrar.gauge(
                "engine_answer_in_flight_max_bytes",
                Unit::Bytes,
                "Budget for bytes of answers that clients have not read yet.",
            ),
            body_bytes: registrar.gauge(
                "engine_body_in_flight_bytes",
                Unit::Bytes,
                "Bytes of request bodies held in memory.",
            ),
            body_bytes_max: registrar.gauge(
                "engine_body_in_flight_max_bytes",
                Unit::Bytes,
                "Budget for bytes of request bodies held in memory.",
            ),
        }
    }

    /// Counts one answered request.
    pub fn finished(&self, route: Route, status: u16, duration: Duration) {
        self.total
            .get(route)
            .get(Status::from_code(status))
            .increment(1);
        self.duration
            .get(route)
            .get(StatusClass::from_code(status))
            .record(duration);
    }
}

impl Transfers {
    fn register(registrar: &mut Registrar<'_>) -> Self {
        let total = registrar.counter_family(
            "engine_transfers_total",
            "Transfers decided: completed, rejected (business), refused (nothing written) or failed.",
        );
        let pair = |outcome, reason| [("outcome", outcome), ("reason", reason)];
        Self {
            completed: total(&pair("completed", "none")),
            rejected: By::new(|reason: RejectReason| total(&pair("rejected", reason.as_str()))),
            refused: By::new(|reason: Refusal| total(&pair("refused", reason.as_str()))),
            failed: By::new(|reason: Failure| total(&pair("failed", reason.as_str()))),
            replays: registrar.counter_by(
                "engine_idempotent_replays_total",
                "Requests answered by the result of an earlier one under the same key.",
                "result",
            ),
            key_conflicts: registrar.counter(
                "engine_idempotency_conflicts_total",
                "Requests that used the key of a different request.",
            ),
        }
    }

    /// Counts what the fold decided: once per transfer, whoever waits for it.
    pub fn decided(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Completed {
                replayed: false, ..
            } => self.completed.increment(1),
            Outcome::Completed { replayed: true, .. } => {
                self.replays.get(Replay::Completed).increment(1);
            }
            Outcome::Rejected {
                rejection,
                replayed: false,
            } => self.rejected.get(rejection.reason).increment(1),
            Outcome::Rejected { replayed: true, .. } => {
                self.replays.get(Replay::Rejected).increment(1);
            }
            Outcome::KeyReused => {
                self.key_conflicts.increment(1);
                self.refused(Refusal::KeyReused);
            }
            Outcome::AccountNotFound(_) => self.refused(Refusal::AccountNotFound),
            Outcome::InvalidAmount(_) => self.refused(Refusal::InvalidAmount),
            Outcome::KeyExpired => self.refused(Refusal::KeyExpired),
        }
    }

    /// Counts a transfer that was turned away.
    pub fn refused(&self, refusal: Refusal) {
        self.refused.get(refusal).increment(1);
    }

    /// Counts a transfer that got no answer of its own.
    pub fn failed(&self, failure: Failure) {
        self.failed.get(failure).increment(1);
    }
}

impl Admission {
    fn register(registrar: &mut Registrar<'_>) -> Self {
        Self {
            queue_wait: registrar.histogram(
                "engine_queue_wait_seconds",
                &DURATION_BUCKETS,
                "Time a transfer waited from admission until its batch closed.",
            ),
            queue_depth: registrar.gauge(
                "engine_queue_depth",
                Unit::Count,
                "Transfers waiting for an account or a committer.",
            ),
            queue_depth_max: registrar.gauge(
                "engine_queue_depth_max",
                Unit::Count,
                "Transfers that may wait at most.",
            ),
            permits: registrar.gauge(
                "engine_permits_in_use",
                Unit::Count,
                "Admission permits held by transfers in the engine.",
            ),
            permits_max: registrar.gauge(
                "engine_permits_max",
                Unit::Count,
                "Admission permits there are.",
            ),
        }
    }
}

impl Batch {
    fn register(registrar: &mut Registrar<'_>) -> Self {
        Self {
            transfers: registrar.histogram(
                "engine_batch_transfers",
                &SIZE_BUCKETS,
                "Transfers per batch.",
            ),
            accounts: registrar.histogram(
                "engine_batch_accounts",
                &SIZE_BUCKETS,
                "Distinct accounts locked per batch.",
            ),
            closed: registrar.counter_by(
                "engine_batches_closed_total",
                "Batches closed, by why they took no more transfers.",
                "reason",
            ),
            bisected: registrar.counter(
                "engine_batches_bisected_total",
                "Batches split because the database refused the data of one transfer.",
            ),
            in_flight: registrar.gauge(
                "engine_batches_in_flight",
                Unit::Count,
                "Batches being committed.",
            ),
        }
    }
}

impl Commit {
    fn register(registrar: &mut Registrar<'_>) -> Self {
        let duration = registrar.histogram_family(
            "engine_commit_duration_seconds",
            &DURATION_BUCKETS,
            "Time to commit one batch, by phase; total includes retries.",
        );
        Self {
            duration: By::new(|phase: CommitPhase| duration.series(&[("phase", phase.as_str())])),
            round_trips: registrar.histogram(
                "engine_commit_round_trips",
                &ROUND_TRIP_BUCKETS,
                "Waits for the database per batch, retries included.",
            ),
            attempts: registrar.counter_by(
                "engine_commit_attempts_total",
                "Attempts to commit a batch, by how they ended.",
                "result",
            ),
            retries: registrar.counter_by(
                "engine_commit_retries_total",
                "Batches committed again, by why.",
                "cause",
            ),
            resolved: registrar.counter_by(
                "engine_outcomes_looked_up_total",
                "Batches looked up after an unknown outcome, by whether they had been committed.",
                "result",
            ),
        }
    }
}

impl Cache {
    fn register(registrar: &mut Registrar<'_>) -> Self {
        Self {
            reads: registrar.counter_by(
                "engine_cache_reads_total",
                "Balance reads, by what the cache had.",
                "result",
            ),
            puts: registrar.counter_by(
                "engine_cache_puts_total",
                "Balances offered to the cache, by what became of them.",
                "result",
            ),
            errors: registrar.counter_by(
                "engine_cache_errors_total",
                "Calls to Redis that failed or took too long.",
                "kind",
            ),
            breaker: registrar.gauge_by(
                "engine_cache_breaker_state",
                "1 at the present state of the cache's circuit breaker.",
                "state",
            ),
            up: registrar.gauge("engine_redis_up", Unit::Count, "1 while Redis answers."),
        }
    }

    /// Sets the breaker's state: 1 there, 0 elsewhere.
    pub fn breaker_is(&self, present: BreakerState) {
        for state in BreakerState::ALL {
            self.breaker.get(*state).set(flag(*state == present));
        }
    }
}

impl Pool {
    fn register(registrar: &mut Registrar<'_>) -> Self {
        Self {
            connections: registrar.gauge_by(
                "engine_pool_connections",
                "Connections of the read pool, by what they do.",
                "state",
            ),
            connections_max: registrar.gauge(
                "engine_pool_connections_max",
                Unit::Count,
                "Connections the read pool may open.",
            ),
            waiting: registrar.gauge(
                "engine_pool_waiting",
                Unit::Count,
                "Reads waiting for a connection.",
            ),
            reads: registrar.counter_by(
                "engine_replica_reads_total",
                "Reads that a replica may answer, by who did.",
                "server",
            ),
        }
    }
}

impl Database {
    fn register(registrar: &mut Registrar<'_>) -> Self {
        Self {
            up: registrar.gauge(
                "engine_database_up",
                Unit::Count,
                "1 while PostgreSQL answers.",
            ),
            writable: registrar.gauge(
                "engine_database_writable",
                Unit::Count,
                "1 while PostgreSQL takes writes.",
            ),
            clock_skew: registrar.gauge(
                "engine_database_clock_skew_seconds",
                Unit::Seconds,
                "PostgreSQL's clock minus the engine's.",
            ),
            failovers: registrar.counter(
                "engine_database_failovers_total",
                "Times another server, or the same with another history, became the primary.",
            ),
            timeline: registrar.gauge(
                "engine_database_timeline",
                Unit::Count,
                "Timeline of the WAL that the primary writes.",
            ),
            replication_mode: registrar.gauge_by(
                "engine_database_replication_mode",
                "1 at what commits rest on, 0 elsewhere.",
                "mode",
            ),
            replication_lag: registrar.gauge(
                "engine_database_replication_lag_seconds",
                Unit::Seconds,
                "How far the last standby or region that follows is behind; NaN if none tells.",
            ),
            standbys: registrar.gauge(
                "engine_database_standbys",
                Unit::Count,
                "Standbys or regions that follow the primary.",
            ),
            sync_standbys: registrar.gauge(
                "engine_database_sync_standbys",
                Unit::Count,
                "Synchronous standbys that follow; NaN if the role may not see them.",
            ),
            durable: registrar.gauge(
                "engine_database_durable",
                Unit::Count,
                "1 while --durability is met; nothing is committed otherwise.",
            ),
            replica_lag: registrar.gauge(
                "engine_replica_lag_seconds",
                Unit::Seconds,
                "How far the replica for reads is behind, to within a fifth of a second.",
            ),
            partitions_ahead: registrar.gauge_by(
                "engine_partitions_ahead",
                "Partitions prepared after the present one, -1 if that is missing; engine maintain makes more.",
                "table",
            ),
        }
    }
}

impl Engine {
    fn register(registrar: &mut Registrar<'_>) -> Self {
        Self {
            uptime: registrar.gauge(
                "engine_uptime_seconds",
                Unit::Seconds,
                "Time since the engine started.",
            ),
            ready: registrar.gauge("engine_ready", Unit::Count, "1 while /readyz answers 200."),
            draining: registrar.gauge("engine_draining", Unit::Count, "1 from the stop signal on."),
            schema_newer: registrar.gauge(
                "engine_schema_newer",
                Unit::Count,
                "1 while the schema is one version newer than this engine, which serves it too.",
            ),
            access_log_lines: registrar
                .counter("engine_access_log_lines_total", "Access-log lines written."),
            access_log_dropped: registrar.counter(
                "engine_access_log_dropped_total",
                "Access-log lines given up because the writer was behind or failed.",
            ),
            log_dropped: registrar.counter(
                "engine_log_dropped_total",
                "Log lines given up because standard error was behind or failed.",
            ),
            task_panics: registrar.counter(
                "engine_task_panics_total",
                "Supervised tasks that panicked.",
            ),
            admin_refused: registrar.counter(
                "engine_admin_connections_refused_total",
                "Admin connections closed because there were too many.",
            ),
        }
    }
}
