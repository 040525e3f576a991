//! Partitions ahead of time, the end of expired keys, indexes by account on months
//! that are over, and statistics.
//!
//! Owns: the partitions of `transfers`, `rejections` and `idempotency_keys`, the
//! rows of `key_periods`, and the indexes of closed months ([`indexes`]).
//! Never: drops a transfer, moves a bound once made, or takes a lock that a
//! commit waits for: partitions are made beside the table and attached (SHARE
//! UPDATE EXCLUSIVE), and detached CONCURRENTLY before they are dropped.
//! Bound: `lock_wait` per lock; what cannot be locked in time is postponed.
//! Invariant: periods follow each other without a gap; a key is held at least
//! the retention, and the refusal it points at outlives it.
//!
//! # Why two engines at a boundary cannot both insert one key
//!
//! The primary key of `idempotency_keys` is (key, period), as PostgreSQL asks of
//! a partitioned table, so one key could stand in two periods. Therefore a commit
//! takes `now()` of its own transaction from the database and writes each key
//! into the period that holds it and, within [`KEY_PERIOD_OVERLAP`] of a
//! boundary, into the neighbour as well. Look-ups probe every period.
//!
//! Say two transactions bring the same key, began at t1 <= t2, and neither sees
//! the other. If one period holds both times, they collide there. Else a
//! boundary B lies between, t1 < B <= t2. The second did not see the first, so
//! the first was still open at t2, and since no transaction lives as long as the
//! overlap, B - t1 <= t2 - t1 < overlap: the first wrote its key into the period
//! after B too, where the second collides with it. The engine's session timeouts
//! keep every transaction shorter than the overlap.

mod catalog;
mod error;
mod indexes;
mod plan;
mod report;
mod statistics;

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row};

use super::link::{Link, LockError};
use crate::domain::TransferId;
use catalog::{Parent, Partition, State, Tables};
pub use error::MaintainError;
use plan::{Coverage, LastPeriod, PeriodPlan, Span};
pub use report::{MaintainReport, PartitionsAhead, Unindexed};

/// How near to a period's boundary a key is written on both sides of it. Longer
/// than any transaction of the engine may live.
pub const KEY_PERIOD_OVERLAP: Duration = Duration::from_secs(600);

/// Fewer partitions ahead than this deserve a warning.
pub const PARTITIONS_AHEAD_MIN: usize = 3;

/// A key must survive a client's retries over a day's outage.
const RETENTION_MIN: Duration = Duration::from_secs(24 * 3_600);

/// Says that a table is being dropped, should the command die half way.
const DROP_MARK: &str = "engine maintain: expired, being dropped";

const MONTHS: &str = include_str!("../../../sql/queries/maintain_months.sql");
const CLOCK: &str = include_str!("../../../sql/queries/maintain_clock.sql");
const ADD_PERIOD: &str = include_str!("../../../sql/queries/maintain_add_period.sql");
const DROP_PERIODS: &str = include_str!("../../../sql/queries/maintain_drop_periods.sql");

/// What a partition needs and cannot inherit. Rows are only ever added: pages
/// fill completely, and vacuum freezes them soon after they were written (its
/// insert threshold, not its update threshold, starts it), so that no later
/// vacuum has to read them again and index-only scans find them all visible.
const APPEND_ONLY: &str = "fillfactor = 100, \
    autovacuum_vacuum_insert_threshold = 100000, \
    autovacuum_vacuum_insert_scale_factor = 0.02, \
    autovacuum_freeze_min_age = 0, \
    autovacuum_analyze_scale_factor = 0.05";

/// How far ahead, and for how long.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Months of transfers and rejections to prepare after the current one.
    /// Default 12: a forgotten job has a year to be noticed.
    pub months_ahead: u16,
    /// Key periods to prepare after the current one. Default 4, that is 60 days
    /// at the default retention; at least 3, or the engine would warn for ever.
    pub key_periods_ahead: u16,
    /// How long a key is held at least. Default 30 days, at least 24 hours. A
    /// period is half as wide: keys live 1 to 1.5 times the retention, and at
    /// most four periods hold keys.
    pub retention: Duration,
    /// How long to wait for each lock. Default 10 s.
    pub lock_wait: Duration,
    /// How much to do. Default: everything.
    pub extent: Extent,
    /// How long an index may wait for each lock and for transactions older than
    /// itself, which block nobody meanwhile. Default 10 min: longer than a report
    /// takes, and a run that is started daily ends long before the next.
    pub index_wait: Duration,
}

/// How much a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Partitions, then indexes of closed months and statistics.
    Everything,
    /// What transfers cannot do without, quickly: someone waits for an engine to
    /// start.
    Partitions,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            months_ahead: 12,
            key_periods_ahead: 4,
            retention: Duration::from_secs(30 * 24 * 3_600),
            lock_wait: Duration::from_secs(10),
            extent: Extent::Everything,
            index_wait: Duration::from_secs(600),
        }
    }
}

/// Reads how far ahead the tables are prepared, by the database's clock. Needs
/// `SELECT` on `key_periods` only.
///
/// # Errors
/// What the database said.
pub async fn partitions_ahead(client: &Client) -> Result<PartitionsAhead, tokio_postgres::Error> {
    Ok(Tables::read(client).await?.ahead())
}

/// Makes what is missing, drops what has expired, indexes what is over. `url` must name the owning
/// role and lead to PostgreSQL directly; safe while engines commit.
///
/// # Errors
/// [`MaintainError`]; what was done before it stays, and a further run goes on.
pub async fn run(url: &str, settings: &Settings) -> Result<MaintainReport, MaintainError> {
    if settings.retention < RETENTION_MIN {
        return Err(MaintainError::RetentionTooShort(settings.retention));
    }
    if usize::from(settings.key_periods_ahead) < PARTITIONS_AHEAD_MIN {
        return Err(MaintainError::TooFewAhead(settings.key_periods_ahead));
    }
    let mut link = Link::open(url).await.map_err(MaintainError::Link)?;
    link.lock_schema(settings.lock_wait)
        .await
        .map_err(|error| match error {
            LockError::Held { wait } => MaintainError::Locked { wait },
            LockError::Database(source) => MaintainError::Database(source),
        })?;
    link.assume_owner().await.map_err(MaintainError::of)?;
    let mut report = MaintainReport::default();
    create_months(&mut link.client, settings, &mut report).await?;
    create_periods(&mut link.client, settings, &mut report).await?;
    drop_expired(&mut link.client, settings, &mut report).await?;
    report.ahead = partitions_ahead(&link.client)
        .await
        .map_err(MaintainError::of)?;
    link.unlock_schema().await.map_err(MaintainError::of)?;
    match settings.extent {
        Extent::Everything => upkeep(&link, settings, &mut report).await?,
        Extent::Partitions => {}
    }
    link.close().await;
    Ok(report)
}

/// Indexes and statistics: what may take long and can be done without.
///
/// After the schema lock was given back, so that no engine waits to start for it,
/// and under a lock of its own that is tried and never waited for: a concurrent
/// build waits for older transactions, and a session that queues for a lock is one.
async fn upkeep(
    link: &Link,
    settings: &Settings,
    report: &mut MaintainReport,
) -> Result<(), MaintainError> {
    let locked = link.try_lock_indexes(settings.index_wait).await;
    if !locked.map_err(MaintainError::of)? {
        report.busy_elsewhere = true;
        return Ok(());
    }
    indexes::build(&link.client, report).await?;
    statistics::refresh(&link.client, report)
        .await
        .map_err(MaintainError::of)
}

async fn create_months(
    client: &mut Client,
    settings: &Settings,
    report: &mut MaintainReport,
) -> Result<(), MaintainError> {
    let months = client
        .query(MONTHS, &[&i32::from(settings.months_ahead)])
        .await
        .map_err(MaintainError::of)?;
    let tables = Tables::read(client).await.map_err(MaintainError::of)?;
    for parent in [Parent::Transfers, Parent::Rejections] {
        let existing = tables.spans(parent);
        for month in &months {
            let (suffix, span) = month_of(month).map_err(MaintainError::of)?;
            let name = format!("{}_{suffix}", parent.as_str());
            match plan::coverage(&existing, span) {
                Coverage::Covered => {}
                Coverage::Blocked => return Err(MaintainError::Overlap { name }),
                Coverage::Free => {
                    let bound = format!(
                        "FROM ('{}') TO ('{}')",
                        first_id(span.starts_ms),
                        first_id(span.ends_ms)
                    );
                    let transaction = client.transaction().await.map_err(MaintainError::of)?;
                    transaction
                        .batch_execute(&create_partition(parent, &name, &bound))
                        .await
                        .map_err(MaintainError::of)?;
                    transaction.commit().await.map_err(MaintainError::of)?;
                    report.created.push(name);
                }
            }
        }
    }
    Ok(())
}

async fn create_periods(
    client: &mut Client,
    settings: &Settings,
    report: &mut MaintainReport,
) -> Result<(), MaintainError> {
    let row = client
        .query_one(CLOCK, &[])
        .await
        .map_err(MaintainError::of)?;
    let (plan, last) = period_plan(&row, settings).map_err(MaintainError::of)?;
    let ahead = Tables::read(client)
        .await
        .map_err(MaintainError::of)?
        .after_now(Parent::Keys);
    for (period, span) in plan::periods_to_add(plan, last, ahead) {
        let name = format!("{}_p{period}", Parent::Keys.as_str());
        let transaction = client.transaction().await.map_err(MaintainError::of)?;
        transaction
            .execute(ADD_PERIOD, &[&period, &span.starts_ms, &span.ends_ms])
            .await
            .map_err(MaintainError::of)?;
        transaction
            .batch_execute(&create_partition(
                Parent::Keys,
                &name,
                &format!("IN ({period})"),
            ))
            .await
            .map_err(MaintainError::of)?;
        transaction.commit().await.map_err(MaintainError::of)?;
        report.created.push(name);
    }
    Ok(())
}

async fn drop_expired(
    client: &mut Client,
    settings: &Settings,
    report: &mut MaintainReport,
) -> Result<(), MaintainError> {
    let retention_ms = millis(settings.retention);
    // Keys first: while a period is there, the rejections it points at stay.
    for parent in [Parent::Keys, Parent::Rejections] {
        let tables = Tables::read(client).await.map_err(MaintainError::of)?;
        let periods = tables.spans(Parent::Keys);
        let expired = tables.of(parent).filter(|partition| match partition.state {
            State::DetachBegun | State::Detached => true,
            State::Attached => partition.span.is_some_and(|span| match parent {
                Parent::Keys => plan::period_expired(span, tables.now_ms, retention_ms),
                Parent::Rejections => {
                    plan::rejections_expired(span, &periods, tables.now_ms, retention_ms)
                }
                Parent::Transfers => false,
            }),
        });
        for partition in expired {
            let dropped = drop_partition(client, partition, tables.now_ms - retention_ms).await;
            match dropped {
                Ok(()) => report.dropped.push(partition.name.clone()),
                Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                    report.postponed.push(partition.name.clone());
                    // Only one partition of a table can be between detach and drop.
                    break;
                }
                Err(error) => return Err(MaintainError::of(error)),
            }
        }
    }
    Ok(())
}

/// Marks, detaches and drops, from whichever step an earlier run came to.
async fn drop_partition(
    client: &mut Client,
    partition: &Partition,
    expired_before_ms: i64,
) -> Result<(), tokio_postgres::Error> {
    let Partition {
        parent_name, name, ..
    } = partition;
    match partition.state {
        State::Attached => {
            client
                .batch_execute(&format!("COMMENT ON TABLE {name} IS '{DROP_MARK}'"))
                .await?;
            client
                .batch_execute(&format!(
                    "ALTER TABLE {parent_name} DETACH PARTITION {name} CONCURRENTLY"
                ))
                .await?;
        }
        State::DetachBegun => {
            client
                .batch_execute(&format!(
                    "ALTER TABLE {parent_name} DETACH PARTITION {name} FINALIZE"
                ))
                .await?;
        }
        State::Detached => {}
    }
    let transaction = client.transaction().await?;
    transaction
        .batch_execute(&format!("DROP TABLE {name}"))
        .await?;
    if partition.parent == Parent::Keys {
        transaction
            .execute(DROP_PERIODS, &[&expired_before_ms])
            .await?;
    }
    transaction.commit().await
}

/// `CREATE TABLE ... PARTITION OF` would lock the parent against every commit;
/// a table made like it and then attached does not.
fn create_partition(parent: Parent, name: &str, bound: &str) -> String {
    let parent = parent.as_str();
    format!(
        "CREATE TABLE {name} (LIKE {parent} INCLUDING ALL) WITH ({APPEND_ONLY}); \
         ALTER TABLE {parent} ATTACH PARTITION {name} FOR VALUES {bound}"
    )
}

fn first_id(unix_ms: i64) -> TransferId {
    TransferId::first_of_ms(u64::try_from(unix_ms).unwrap_or(0))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn month_of(row: &Row) -> Result<(String, Span), tokio_postgres::Error> {
    Ok((
        row.try_get(0)?,
        Span {
            starts_ms: row.try_get(1)?,
            ends_ms: row.try_get(2)?,
        },
    ))
}

fn period_plan(
    row: &Row,
    settings: &Settings,
) -> Result<(PeriodPlan, Option<LastPeriod>), tokio_postgres::Error> {
    let plan = PeriodPlan {
        now_ms: row.try_get(0)?,
        day_ms: row.try_get(1)?,
        width_ms: millis(settings.retention / 2),
        ahead: usize::from(settings.key_periods_ahead),
    };
    let period: Option<i32> = row.try_get(2)?;
    let ends_ms: Option<i64> = row.try_get(3)?;
    let last = period
        .zip(ends_ms)
        .map(|(period, ends_ms)| LastPeriod { period, ends_ms });
    Ok((plan, last))
}
