//! What must be asked for: is everything there, and how full is it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::admin::{Database, Partitions, Readiness, Redis, Schema, Writes};
use crate::admission::Admission;
use crate::batch::Committers;
use crate::cache::{Balances, BreakerState};
use crate::config::DatabaseUrl;
use crate::http::{Edge, Ledger, Observer};
use crate::store::link::Link;
use crate::store::maintain::{PartitionsAhead, partitions_ahead};
use crate::store::migrate::{SchemaError, check_schema, version};
use crate::store::read::Reader;
use crate::supervisor::Supervisor;
use crate::telemetry::exporter;
use crate::telemetry::label::{
    self, CacheError, CachePut, CacheRead, PartitionedTable, PoolConnection,
};
use crate::telemetry::metrics::{Metrics, flag, number};

use super::observe::History;

/// How often PostgreSQL is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(1);
/// How often what changes slowly is looked at: schema, partitions, clocks.
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
    pub(super) database_url: DatabaseUrl,
}

/// At each scrape: how much of the budget for bodies is taken.
pub(super) fn watch_bodies<L: Ledger, O: Observer>(edge: Arc<Edge<L, O>>) {
    exporter::global().add_probe(Box::new(move |metrics| {
        let (used, max) = edge.body_bytes();
        metrics.requests.body_bytes.set(number(used));
        metrics.requests.body_bytes_max.set(number(max));
    }));
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

    async fn watch_database(&self, metrics: &'static Metrics) {
        loop {
            // Asked for its history, not only whether it is there: readers follow a
            // promoted standby by themselves, and the cache must hear of it even
            // while nobody commits.
            let identity = self.reader.identity().await.ok();
            let up = identity.is_some();
            if let Some(identity) = identity {
                self.history.is(identity);
            }
            let writable = self.committers.is_connected();
            self.readiness
                .set_database(if up { Database::Up } else { Database::Down });
            self.readiness.set_writes(if writable {
                Writes::Accepted
            } else {
                Writes::Refused
            });
            metrics.database.up.set(flag(up));
            metrics.database.writable.set(flag(writable));
            sleep(PING_EVERY).await;
        }
    }

    async fn watch_schema(&self, metrics: &'static Metrics) {
        loop {
            let looked = self.look_at_schema(metrics).await.is_some();
            sleep(if looked { SLOW_EVERY } else { SLOW_RETRY }).await;
        }
    }

    /// `None` if the database could not be asked.
    async fn look_at_schema(&self, metrics: &'static Metrics) -> Option<()> {
        let link = Link::open(self.database_url.expose()).await.ok()?;
        let schema = match check_schema(&link.client).await {
            Ok(()) => Some(Schema::Current(u32::try_from(version()).unwrap_or(0))),
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
        };
        let ahead = partitions_ahead(&link.client).await.ok();
        link.close().await;
        self.readiness.set_schema(schema?);
        self.set_partitions(ahead?, metrics);
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
