//! What must be asked for: is everything there, and how full is it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::admin::{Database, Partitions, Readiness, Redis, Replication, Schema, Writes};
use crate::admission::Admission;
use crate::batch::Committers;
use crate::cache::{Balances, BreakerState};
use crate::http::{Edge, Ledger, Observer};
use crate::store::link::Link;
use crate::store::maintain::{PartitionsAhead, partitions_ahead};
use crate::store::migrate::{Fit, SchemaError, check_schema, version};
use crate::store::read::Reader;
use crate::store::route::{Durability, Facts, Mode, Outlook, Route};
use crate::supervisor::Supervisor;
use crate::telemetry::exporter;
use crate::telemetry::label::{
    self, CacheError, CachePut, CacheRead, Label as _, PartitionedTable, PoolConnection,
    ReadServer, ReplicationMode,
};
use crate::telemetry::metrics::{Metrics, flag, number};

use super::observe::History;

/// How often PostgreSQL is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(1);
/// How often the schema is looked at: a release that migrates is watched by people.
const SCHEMA_EVERY: Duration = Duration::from_secs(10);
/// How often what changes slowly is looked at: partitions, clocks.
const SLOW_EVERY: Duration = Duration::from_secs(60);
/// The same after a failure, or before the first success.
const SLOW_RETRY: Duration = Duration::from_secs(2);

/// Everything that is asked.
#[derive(Clone, Debug)]
pub(super) struct Probes {
    pub(super) committers: Committers,
    pub(super) admission: Admission,
    pub(super) balances: Balances,
    pub(super) reader: Reader,
    pub(super) history: Arc<History>,
    pub(super) readiness: Arc<Readiness>,
    pub(super) route: Route,
    pub(super) outlook: watch::Receiver<Outlook>,
    pub(super) durability: Durability,
}

/// At each scrape: how much of the budgets for bodies and answers is taken.
pub(super) fn watch_bodies<L: Ledger, O: Observer>(edge: Arc<Edge<L, O>>) {
    exporter::global().add_probe(Box::new(move |metrics| {
        let (used, max) = edge.body_bytes();
        metrics.requests.body_bytes.set(number(used));
        metrics.requests.body_bytes_max.set(number(max));
        let (used, max) = edge.answer_bytes();
        metrics.requests.answer_bytes.set(number(used));
        metrics.requests.answer_bytes_max.set(number(max));
        let connections = &metrics.requests.connections_max;
        connections.set(number(edge.connections_max()));
    }));
}

/// What the lookout saw, as numbers; not a number where nothing is known.
fn publish_outlook(seen: &Outlook, metrics: &Metrics) {
    let database = &metrics.database;
    let facts = seen.primary.as_ref().map(|(_, facts)| facts);
    for mode in ReplicationMode::ALL {
        let is_it = facts.is_some_and(|facts| label_of(facts.replication.mode()) == *mode);
        database.replication_mode.get(*mode).set(flag(is_it));
    }
    let seconds = |duration: Option<Duration>| duration.map_or(f64::NAN, |d| d.as_secs_f64());
    let count = |count: Option<u32>| count.map_or(f64::NAN, f64::from);
    let replication = facts.map(|facts| facts.replication);
    database
        .replication_lag
        .set(seconds(replication.and_then(|replication| replication.lag)));
    database
        .standbys
        .set(count(replication.map(|replication| replication.following)));
    database.sync_standbys.set(count(
        replication.and_then(|replication| replication.sync_following),
    ));
    database
        .timeline
        .set(count(facts.and_then(|facts| facts.writes_timeline)));
    database
        .durable
        .set(flag(facts.is_some() && seen.shortfall.is_none()));
    database.replica_lag.set(seconds(seen.replica_lag));
}

const fn label_of(mode: Mode) -> ReplicationMode {
    match mode {
        Mode::Synchronous => ReplicationMode::Synchronous,
        Mode::Storage => ReplicationMode::Storage,
        Mode::Asynchronous => ReplicationMode::Asynchronous,
        Mode::Alone => ReplicationMode::None,
        Mode::Unsafe => ReplicationMode::FsyncOff,
    }
}

impl Probes {
    pub(super) fn start(self, supervisor: &Supervisor, metrics: &'static Metrics) {
        let (ping, slow, redis) = (self.clone(), self.clone(), self.clone());
        supervisor.spawn_loop("probe-database", async move {
            ping.watch_database(metrics).await
        });
        supervisor.spawn_loop(
            "probe-schema",
            async move { slow.watch_schema(metrics).await },
        );
        supervisor.spawn_loop(
            "probe-redis",
            async move { redis.watch_redis(metrics).await },
        );
        let tasks = supervisor.clone();
        exporter::global().add_probe(Box::new(move |metrics| {
            metrics.engine.task_panics.absolute(tasks.panics());
            self.publish(metrics);
        }));
    }

    /// Tells what the lookout concludes, at every change and once a second: the
    /// cache must hear of another history even while nobody commits.
    async fn watch_database(&self, metrics: &'static Metrics) {
        let mut outlook = self.outlook.clone();
        let mut epoch = None;
        loop {
            let seen = outlook.borrow_and_update().clone();
            let facts = seen.primary.as_ref().map(|(_, facts)| facts);
            if let Some(identity) = facts.and_then(Facts::identity) {
                self.history.is(identity);
            }
            let up = facts.is_some() && !seen.doubtful;
            let writable = up && self.committers.is_connected();
            self.readiness
                .set_database(if up { Database::Up } else { Database::Down });
            self.readiness.set_writes(if writable {
                Writes::Accepted
            } else {
                Writes::Refused
            });
            self.readiness.set_replication(self.replication(&seen));
            metrics.database.up.set(flag(up));
            metrics.database.writable.set(flag(writable));
            publish_outlook(&seen, metrics);
            let moved = epoch
                .replace(seen.epoch)
                .is_some_and(|was| was != seen.epoch);
            if moved && up {
                metrics.database.failovers.increment(1);
            }
            // A lost lookout is a lost engine: the supervisor stops it.
            drop(timeout(PING_EVERY, outlook.changed()).await);
            // Its news come many times a second; committers follow within one turn.
            sleep(PING_EVERY / 20).await;
        }
    }

    /// What the guarantees rest on, in words.
    fn replication(&self, seen: &Outlook) -> Replication {
        let Some((target, facts)) = &seen.primary else {
            return if seen.trouble.is_empty() {
                Replication::Unknown
            } else {
                Replication::Short(format!("no server takes writes: {}", seen.trouble))
            };
        };
        if let Some(shortfall) = &seen.shortfall {
            return Replication::Short(format!(
                "--durability {} is not met, nothing is committed: {shortfall}",
                self.durability
            ));
        }
        let replication = &facts.replication;
        let mut detail = format!(
            "{} on {target}, timeline {}, {} following",
            replication.mode().as_str(),
            facts.writes_timeline.unwrap_or_default(),
            replication.following
        );
        if let Some(lag) = replication.lag {
            detail.push_str(&format!(", {} ms behind", lag.as_millis()));
        }
        detail.push_str(&format!("; --durability {}", self.durability));
        Replication::Enough(detail)
    }

    async fn watch_schema(&self, metrics: &'static Metrics) {
        let mut slow_at = Instant::now();
        loop {
            let looked = self.look_slowly(&mut slow_at, metrics).await.is_some();
            let pause = if looked { SCHEMA_EVERY } else { SLOW_RETRY };
            sleep(pause).await;
        }
    }

    /// `None` if the database could not be asked.
    async fn look_slowly(&self, slow_at: &mut Instant, metrics: &'static Metrics) -> Option<()> {
        let link = Link::to_primary(&self.route).await.ok()?;
        let schema = self.look_at_schema(&link).await;
        let is_due = *slow_at <= Instant::now();
        let ahead = match is_due {
            true => partitions_ahead(&link.client).await.ok(),
            false => None,
        };
        link.close().await;
        self.readiness.set_schema(schema?);
        if is_due {
            self.set_partitions(ahead?, metrics);
            self.look_at_clock(metrics).await?;
            *slow_at = Instant::now() + SLOW_EVERY;
        }
        Some(())
    }

    /// `None` if the database could not be asked.
    async fn look_at_schema(&self, link: &Link) -> Option<Schema> {
        let own = u32::try_from(version()).unwrap_or(0);
        match check_schema(&link.client).await {
            Ok(Fit::Own) => Some(Schema::Current(own)),
            Ok(Fit::OneNewer) => Some(Schema::Ahead(own.saturating_add(1))),
            Err(SchemaError::TooOld { applied, .. }) => {
                Some(Schema::Behind(u32::try_from(applied).unwrap_or(0)))
            }
            Err(SchemaError::NoSchema) => Some(Schema::Behind(0)),
            Err(SchemaError::Newer { applied, .. }) => {
                Some(Schema::Foreign(u32::try_from(applied).unwrap_or(0)))
            }
            Err(SchemaError::Diverged { version, .. } | SchemaError::Missing { version, .. }) => {
                Some(Schema::Foreign(u32::try_from(version).unwrap_or(0)))
            }
            Err(
                SchemaError::Link(_)
                | SchemaError::Locked { .. }
                | SchemaError::Forbidden(_)
                | SchemaError::NotOwner(_)
                | SchemaError::Failed { .. }
                | SchemaError::Database(_),
            ) => None,
        }
    }

    /// `None` if the database could not be asked.
    async fn look_at_clock(&self, metrics: &'static Metrics) -> Option<()> {
        let skew_ms = self.reader.clock_skew().await.ok()?;
        self.readiness.set_clock_skew_ms(skew_ms);
        // A gauge of seconds; a skew that f64 cannot hold exactly is beyond repair anyway.
        let skew_ms = i32::try_from(skew_ms).unwrap_or(i32::MAX);
        metrics
            .database
            .clock_skew
            .set(f64::from(skew_ms) / 1_000.0);
        Some(())
    }

    fn set_partitions(&self, ahead: PartitionsAhead, metrics: &'static Metrics) {
        for (table, count) in [
            (PartitionedTable::Transfers, ahead.transfers),
            (PartitionedTable::Rejections, ahead.rejections),
            (PartitionedTable::IdempotencyKeys, ahead.keys),
        ] {
            let partitions = Partitions::Ahead(u32::try_from(count).unwrap_or(u32::MAX));
            self.readiness.set_partitions(table, partitions);
            metrics
                .database
                .partitions_ahead
                .get(table)
                .set(number(count));
        }
        if ahead.is_low() {
            tracing::warn!(?ahead, "few partitions remain; run `engine maintain`");
        }
    }

    async fn watch_redis(&self, metrics: &'static Metrics) {
        if !self.balances.is_configured() {
            return std::future::pending().await;
        }
        let mut breaker = self.balances.breaker();
        // Open until the first attempt to connect has begun, half-open until it
        // has ended: no word on Redis yet.
        let mut tried = false;
        let mut first = true;
        loop {
            let state = *breaker.borrow_and_update();
            let up = state == BreakerState::Closed;
            tried = tried || up || (!first && state == BreakerState::Open);
            first = false;
            if tried {
                self.readiness
                    .set_redis(if up { Redis::Up } else { Redis::Down });
            }
            metrics.cache.up.set(flag(up));
            if breaker.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// At each scrape: what others count, and how full things are.
    fn publish(&self, metrics: &Metrics) {
        let (used, max) = self.admission.permits();
        metrics.admission.permits.set(number(used));
        metrics.admission.permits_max.set(number(max));
        metrics
            .admission
            .queue_depth
            .set(number(self.committers.waiting()));
        metrics.admission.queue_depth_max.set(number(max));
        metrics
            .batch
            .in_flight
            .set(number(self.committers.in_flight()));
        let pool = self.reader.status();
        metrics
            .pool
            .connections
            .get(PoolConnection::Idle)
            .set(number(pool.available));
        let in_use = pool.size.saturating_sub(pool.available);
        metrics
            .pool
            .connections
            .get(PoolConnection::InUse)
            .set(number(in_use));
        metrics.pool.connections_max.set(number(pool.size_max));
        metrics.pool.waiting.set(number(pool.waiting));
        let (by_replica, by_primary) = self.reader.replica_reads();
        let reads = &metrics.pool.reads;
        reads.get(ReadServer::Replica).absolute(by_replica);
        reads.get(ReadServer::Primary).absolute(by_primary);
        self.publish_cache(metrics);
    }

    fn publish_cache(&self, metrics: &Metrics) {
        let stats = self.balances.stats();
        let cache = &metrics.cache;
        cache.reads.get(CacheRead::Hit).absolute(stats.hits);
        let misses = [
            stats.misses,
            stats.expired_misses,
            stats.untrusted_misses,
            stats.unreadable_misses,
        ];
        cache
            .reads
            .get(CacheRead::Miss)
            .absolute(misses.iter().sum());
        cache
            .reads
            .get(CacheRead::FloorMiss)
            .absolute(stats.floor_misses);
        cache.reads.get(CacheRead::Skipped).absolute(stats.bypasses);
        cache.puts.get(CachePut::Stored).absolute(stats.puts);
        cache
            .puts
            .get(CachePut::Stale)
            .absolute(stats.stale_puts_refused);
        let dropped = stats
            .write_behind_dropped
            .saturating_add(stats.fills_dropped);
        cache.puts.get(CachePut::Dropped).absolute(dropped);
        cache.errors.get(CacheError::Error).absolute(stats.errors);
        cache
            .errors
            .get(CacheError::Timeout)
            .absolute(stats.timeouts);
        cache.breaker_is(match stats.breaker {
            BreakerState::Closed => label::BreakerState::Closed,
            BreakerState::HalfOpen => label::BreakerState::HalfOpen,
            BreakerState::Open => label::BreakerState::Open,
        });
    }
}
