//! Whether this engine should be sent requests, and why not.
//!
//! Owns: the last known state of every dependency, and the one verdict drawn
//! from them, which `/readyz` and `GET /health` share.
//! Never: asks a dependency; others report, this remembers.
//! Invariant: Redis never makes an engine unready; what is unknown does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::telemetry::label::{Label as _, PartitionedTable};
use crate::telemetry::metrics::{Metrics, flag};

/// What readiness demands.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Past it, ids and key periods would carry a wrong time: unready.
    pub clock_skew_max: Duration,
    /// Past it, a warning.
    pub clock_skew_warn: Duration,
    /// Fewer partitions ahead than this: a warning.
    pub partitions_ahead_min: u32,
}

impl Default for Settings {
    /// A synchronised clock is off by milliseconds: a second is odd, a minute
    /// is broken. Three partitions leave time to notice that maintenance stopped.
    fn default() -> Self {
        Self {
            clock_skew_max: Duration::from_secs(60),
            clock_skew_warn: Duration::from_secs(1),
            partitions_ahead_min: 3,
        }
    }
}

/// Whether PostgreSQL answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Database {
    /// Not asked yet.
    #[default]
    Unknown,
    /// It answers.
    Up,
    /// It does not.
    Down,
}

/// Whether the schema is one this engine knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Schema {
    /// Not asked yet.
    #[default]
    Unknown,
    /// The version this engine was built for.
    Current(u32),
    /// That of the release after it, which keeps this engine working.
    Ahead(u32),
    /// Older; `engine migrate` mends it.
    Behind(u32),
    /// From a further future, or changed by hand.
    Foreign(u32),
}

/// Whether PostgreSQL takes writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Writes {
    /// Not asked yet.
    #[default]
    Unknown,
    /// It does.
    Accepted,
    /// A standby, or read-only.
    Refused,
}

/// What commits rest on, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Replication {
    /// Not asked, or nobody to ask.
    #[default]
    Unknown,
    /// As much as is demanded.
    Enough(String),
    /// Less: nothing is committed.
    Short(String),
}

/// How far partitions are prepared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Partitions {
    /// Not asked yet.
    #[default]
    Unknown,
    /// This many after the present one.
    Ahead(u32),
    /// Not even the present one is there: no insert can succeed.
    Missing,
}

/// Whether Redis answers. It costs latency only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Redis {
    /// None is configured.
    #[default]
    NotConfigured,
    /// It answers.
    Up,
    /// It does not, or is left alone by the breaker.
    Down,
}

/// The verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send requests.
    Ready,
    /// Do not.
    Unready,
}

impl Verdict {
    /// The word in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Unready => "unready",
        }
    }
}

/// How one check stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Work goes on; somebody should know.
    Warning,
    /// Unready because of it.
    Failed,
}

impl Level {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

/// One line of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Which dependency.
    pub name: &'static str,
    /// How it stands.
    pub level: Level,
    /// In words, with the number or the command that matters.
    pub detail: String,
}

/// What others reported last.
#[derive(Debug)]
pub struct Readiness {
    settings: Settings,
    /// Written by the monitors of store and cache and by shutdown; read by the
    /// admin thread. Held for a copy, never across an await.
    state: Mutex<State>,
    /// The verdict on `state`, so that `GET /health` takes no lock.
    ready: AtomicBool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    database: Database,
    schema: Schema,
    writes: Writes,
    replication: Replication,
    /// The database's clock minus ours, in milliseconds.
    clock_skew_ms: Option<i64>,
    partitions: [Partitions; PartitionedTable::ALL.len()],
    redis: Redis,
    draining: bool,
}

impl Readiness {
    /// Unready until every dependency has been reported.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            state: Mutex::new(State::default()),
            ready: AtomicBool::new(false),
        }
    }

    /// Reports whether PostgreSQL answers.
    pub fn set_database(&self, database: Database) {
        self.update(|state| state.database = database);
    }

    /// Reports the schema.
    pub fn set_schema(&self, schema: Schema) {
        self.update(|state| state.schema = schema);
    }

    /// Reports whether PostgreSQL takes writes.
    pub fn set_writes(&self, writes: Writes) {
        self.update(|state| state.writes = writes);
    }

    /// Reports what commits rest on.
    pub fn set_replication(&self, replication: Replication) {
        self.update(|state| state.replication = replication);
    }

    /// Reports the database's clock minus ours, in milliseconds.
    pub fn set_clock_skew_ms(&self, skew_ms: i64) {
        self.update(|state| state.clock_skew_ms = Some(skew_ms));
    }

    /// Reports how far one table's partitions are prepared.
    pub fn set_partitions(&self, table: PartitionedTable, partitions: Partitions) {
        self.update(|state| state.partitions[table.index()] = partitions);
    }

    /// Reports whether Redis answers.
    pub fn set_redis(&self, redis: Redis) {
        self.update(|state| state.redis = redis);
    }

    /// Unready from now on: the engine is stopping.
    pub fn set_draining(&self) {
        self.update(|state| state.draining = true);
    }

    /// Whether to send requests here.
    pub fn verdict(&self) -> Verdict {
        if self.ready.load(Ordering::Acquire) {
            Verdict::Ready
        } else {
            Verdict::Unready
        }
    }

    /// Every dependency, in the order in which to mend them.
    pub fn checks(&self) -> Vec<Check> {
        let state = self.lock().clone();
        self.checks_of(&state)
    }

    /// Copies the state into metrics; asked at every scrape.
    pub fn publish(&self, metrics: &Metrics) {
        let state = self.lock().clone();
        let database = &metrics.database;
        database.up.set(flag(state.database == Database::Up));
        database
            .writable
            .set(flag(state.writes == Writes::Accepted));
        // Not a number where nothing is known: no alert's comparison holds then.
        let skew = state
            .clock_skew_ms
            .and_then(|ms| i32::try_from(ms).ok())
            .map_or(f64::NAN, |ms| f64::from(ms) / 1000.0);
        database.clock_skew.set(skew);
        for table in PartitionedTable::ALL {
            let ahead = match state.partitions[table.index()] {
                Partitions::Unknown => f64::NAN,
                Partitions::Ahead(count) => f64::from(count),
                Partitions::Missing => -1.0,
            };
            database.partitions_ahead.get(*table).set(ahead);
        }
        metrics.cache.up.set(flag(state.redis == Redis::Up));
        metrics
            .engine
            .ready
            .set(flag(self.verdict() == Verdict::Ready));
        metrics.engine.draining.set(flag(state.draining));
        let newer = flag(matches!(state.schema, Schema::Ahead(_)));
        metrics.engine.schema_newer.set(newer);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        let old = state.clone();
        change(&mut state);
        if *state == old {
            // Reports repeat; only news is worth the words below.
            return;
        }
        let before = self.checks_of(&old);
        let after = self.checks_of(&state);
        let ready = after.iter().all(|check| check.level != Level::Failed);
        // Stored under the lock, so that verdicts follow reports in their order.
        let was_ready = self.ready.swap(ready, Ordering::AcqRel);
        let draining = state.draining;
        drop(state);
        for (before, after) in before.iter().zip(&after) {
            if before.level != after.level {
                let (check, detail) = (after.name, after.detail.as_str());
                match after.level {
                    Level::Ok => tracing::info!(check, detail, "dependency is well"),
                    // Asked to: nothing odd about it.
                    Level::Warning | Level::Failed if draining => {
                        tracing::info!(check, detail, "dependency is not well");
                    }
                    Level::Warning | Level::Failed => {
                        tracing::warn!(check, detail, "dependency is not well");
                    }
                }
            }
        }
        match (was_ready, ready) {
            (false, true) => tracing::info!("ready"),
            (true, false) if draining => tracing::info!("not ready"),
            (true, false) => tracing::warn!("not ready"),
            (false, false) | (true, true) => {}
        }
    }

    fn checks_of(&self, state: &State) -> Vec<Check> {
        vec![
            check("database", database(state.database)),
            check("schema", schema(state.schema)),
            check("writable", writable(state.writes)),
            check("replication", replication(&state.replication)),
            check("clock_skew", self.clock_skew(state.clock_skew_ms)),
            check("partitions_ahead", self.partitions(&state.partitions)),
            check("redis", redis(state.redis)),
            check("draining", draining(state.draining)),
        ]
    }

    fn clock_skew(&self, skew_ms: Option<i64>) -> Finding {
        let Some(skew_ms) = skew_ms else {
            return failed("not known yet");
        };
        let skew = Duration::from_millis(skew_ms.unsigned_abs());
        let level = if self.settings.clock_skew_max < skew {
            Level::Failed
        } else if self.settings.clock_skew_warn < skew {
            Level::Warning
        } else {
            Level::Ok
        };
        (level, format!("database minus engine: {skew_ms} ms"))
    }

    fn partitions(&self, partitions: &[Partitions]) -> Finding {
        let mut fewest = u32::MAX;
        for (table, partitions) in PartitionedTable::ALL.iter().zip(partitions) {
            let table = table.as_str();
            match partitions {
                Partitions::Unknown => return failed("not known yet"),
                Partitions::Missing => {
                    return failed(format!(
                        "{table} has no partition for now; run engine maintain"
                    ));
                }
                Partitions::Ahead(count) => fewest = fewest.min(*count),
            }
        }
        if fewest < self.settings.partitions_ahead_min {
            let detail = format!("only {fewest} prepared; run engine maintain");
            return (Level::Warning, detail);
        }
        ok(format!("{fewest} prepared"))
    }
}

/// The body of `/readyz`.
pub(super) fn to_json(verdict: Verdict, checks: &[Check]) -> Value {
    let checks: serde_json::Map<String, Value> = checks
        .iter()
        .map(|check| {
            let value = json!({"status": check.level.as_str(), "detail": check.detail});
            (check.name.to_owned(), value)
        })
        .collect();
    json!({"status": verdict.as_str(), "checks": checks})
}

type Finding = (Level, String);

fn ok(detail: impl Into<String>) -> Finding {
    (Level::Ok, detail.into())
}

pub(super) fn failed(detail: impl Into<String>) -> Finding {
    (Level::Failed, detail.into())
}

pub(super) fn check(name: &'static str, (level, detail): Finding) -> Check {
    Check {
        name,
        level,
        detail,
    }
}

fn database(state: Database) -> Finding {
    match state {
        Database::Unknown => failed("not known yet"),
        Database::Up => ok("answers"),
        Database::Down => failed("does not answer"),
    }
}

fn schema(state: Schema) -> Finding {
    match state {
        Schema::Unknown => failed("not known yet"),
        Schema::Current(version) => ok(format!("version {version}")),
        Schema::Ahead(version) => (
            Level::Warning,
            format!("version {version} is of the next release, which this engine serves too"),
        ),
        Schema::Behind(version) => failed(format!("version {version} is old; run engine migrate")),
        Schema::Foreign(version) => failed(format!(
            "version {version} is not known to this engine; run a newer one"
        )),
    }
}

fn writable(state: Writes) -> Finding {
    match state {
        Writes::Unknown => failed("not known yet"),
        Writes::Accepted => ok("takes writes"),
        Writes::Refused => failed("read-only: a standby, or set so"),
    }
}

fn replication(state: &Replication) -> Finding {
    match state {
        Replication::Unknown => failed("not known yet"),
        Replication::Enough(detail) => ok(detail.clone()),
        Replication::Short(detail) => failed(detail.clone()),
    }
}

fn redis(state: Redis) -> Finding {
    match state {
        Redis::NotConfigured => ok("not configured"),
        Redis::Up => ok("answers"),
        Redis::Down => (
            Level::Warning,
            "does not answer; balances are read from PostgreSQL".to_owned(),
        ),
    }
}

fn draining(state: bool) -> Finding {
    if state {
        failed("the engine is stopping")
    } else {
        ok("no")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Readiness {
        let readiness = Readiness::new(Settings::default());
        readiness.set_database(Database::Up);
        readiness.set_schema(Schema::Current(2));
        readiness.set_writes(Writes::Accepted);
        readiness.set_replication(Replication::Enough("none".to_owned()));
        readiness.set_clock_skew_ms(0);
        for table in PartitionedTable::ALL {
            readiness.set_partitions(*table, Partitions::Ahead(3));
        }
        readiness
    }

    #[track_caller]
    fn check_after(change: impl FnOnce(&Readiness), name: &str, level: Level) {
        let readiness = well();
        assert_eq!(readiness.verdict(), Verdict::Ready);
        change(&readiness);
        for check in readiness.checks() {
            let expected = if check.name == name { level } else { Level::Ok };
            assert_eq!(check.level, expected, "{check:?}");
        }
        let unready = level == Level::Failed;
        assert_eq!(readiness.verdict() == Verdict::Unready, unready);
    }

    #[test]
    fn an_engine_is_unready_until_every_dependency_has_been_reported() {
        type Report = fn(&Readiness);
        let reports: [Report; 8] = [
            |readiness| readiness.set_replication(Replication::Enough("none".to_owned())),
            |readiness| readiness.set_database(Database::Up),
            |readiness| readiness.set_schema(Schema::Current(2)),
            |readiness| readiness.set_writes(Writes::Accepted),
            |readiness| readiness.set_clock_skew_ms(0),
            |readiness| {
                readiness.set_partitions(PartitionedTable::Transfers, Partitions::Ahead(3));
            },
            |readiness| {
                readiness.set_partitions(PartitionedTable::Rejections, Partitions::Ahead(3));
            },
            |readiness| {
                readiness.set_partitions(PartitionedTable::IdempotencyKeys, Partitions::Ahead(3));
            },
        ];
        for missing in 0..reports.len() {
            let readiness = Readiness::new(Settings::default());
            for (index, report) in reports.iter().enumerate() {
                if index != missing {
                    report(&readiness);
                }
            }
            assert_eq!(
                readiness.verdict(),
                Verdict::Unready,
                "without report {missing}"
            );
            reports[missing](&readiness);
            assert_eq!(readiness.verdict(), Verdict::Ready);
        }
    }

    #[test]
    fn each_dependency_that_fails_makes_it_unready_and_is_named() {
        check_after(
            |r| r.set_database(Database::Down),
            "database",
            Level::Failed,
        );
        check_after(|r| r.set_schema(Schema::Ahead(3)), "schema", Level::Warning);
        check_after(|r| r.set_schema(Schema::Behind(1)), "schema", Level::Failed);
        check_after(
            |r| r.set_schema(Schema::Foreign(9)),
            "schema",
            Level::Failed,
        );
        check_after(|r| r.set_writes(Writes::Refused), "writable", Level::Failed);
        check_after(Readiness::set_draining, "draining", Level::Failed);
        for table in PartitionedTable::ALL {
            check_after(
                |r| r.set_partitions(*table, Partitions::Missing),
                "partitions_ahead",
                Level::Failed,
            );
        }
    }

    #[test]
    fn redis_is_reported_and_never_makes_it_unready() {
        check_after(|r| r.set_redis(Redis::Down), "redis", Level::Warning);
        check_after(|r| r.set_redis(Redis::Up), "redis", Level::Ok);
        check_after(|r| r.set_redis(Redis::NotConfigured), "redis", Level::Ok);
    }

    #[test]
    fn clock_skew_warns_past_a_second_and_fails_past_a_minute_either_way() {
        for (skew_ms, level) in [
            (1_000, Level::Ok),
            (1_001, Level::Warning),
            (60_000, Level::Warning),
            (60_001, Level::Failed),
            (i64::MAX, Level::Failed),
        ] {
            check_after(|r| r.set_clock_skew_ms(skew_ms), "clock_skew", level);
            check_after(|r| r.set_clock_skew_ms(-skew_ms), "clock_skew", level);
        }
        check_after(
            |r| r.set_clock_skew_ms(i64::MIN),
            "clock_skew",
            Level::Failed,
        );
    }

    #[test]
    fn fewer_than_three_partitions_ahead_warn() {
        for (count, level) in [(0, Level::Warning), (2, Level::Warning), (3, Level::Ok)] {
            check_after(
                |r| r.set_partitions(PartitionedTable::Rejections, Partitions::Ahead(count)),
                "partitions_ahead",
                level,
            );
        }
    }

    #[test]
    fn it_becomes_ready_again_by_itself_but_never_after_draining() {
        let readiness = well();
        readiness.set_database(Database::Down);
        assert_eq!(readiness.verdict(), Verdict::Unready);
        readiness.set_database(Database::Up);
        assert_eq!(readiness.verdict(), Verdict::Ready);
        readiness.set_draining();
        readiness.set_database(Database::Up);
        assert_eq!(readiness.verdict(), Verdict::Unready);
    }

    #[test]
    fn metrics_say_what_was_reported_and_nothing_where_nothing_was() {
        let exporter = crate::telemetry::exporter::Exporter::new();
        Readiness::new(Settings::default()).publish(exporter.metrics());
        let page = exporter.render();
        assert!(page.contains("engine_database_clock_skew_seconds NaN\n"));
        assert!(page.contains("engine_partitions_ahead{table=\"transfers\"} NaN\n"));
        assert!(page.contains("engine_ready 0\n"));

        let readiness = well();
        readiness.set_clock_skew_ms(-250);
        readiness.set_partitions(PartitionedTable::Rejections, Partitions::Missing);
        readiness.set_redis(Redis::Up);
        readiness.publish(exporter.metrics());
        let page = exporter.render();
        for line in [
            "engine_database_up 1\n",
            "engine_database_writable 1\n",
            "engine_database_clock_skew_seconds -0.25\n",
            "engine_partitions_ahead{table=\"transfers\"} 3\n",
            "engine_partitions_ahead{table=\"rejections\"} -1\n",
            "engine_redis_up 1\n",
            "engine_ready 0\n",
            "engine_draining 0\n",
            "engine_schema_newer 0\n",
        ] {
            assert!(page.contains(line), "{line}");
        }
    }
}
