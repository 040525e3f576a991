//! What a server says about itself, asked again and again.
//!
//! Owns: the catalog questions, which differ between kinds of server.
//! Never: draws a conclusion (that is `lookout`, `choose` and `durability`).

use std::time::Duration;

use super::durability::{Replication, sync_required};
use crate::domain::DatabaseIdentity;
use crate::store::wire::{Connection, Row, WireError};

/// One answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Of the database cluster; a physical standby has its primary's.
    pub system_identifier: u64,
    /// Of the WAL it writes; none on a standby or a read-only server.
    pub writes_timeline: Option<u32>,
    /// Whether it replays another server's WAL.
    pub recovering: bool,
    /// Of the WAL it receives, if it does and the role may see it.
    pub receives_timeline: Option<u32>,
    /// Whether a receiver is at work, on a standby.
    pub receiving: bool,
    /// How far its WAL is flushed (primary) or replayed (standby), in bytes.
    pub lsn: u64,
    /// Of a primary.
    pub replication: Replication,
}

impl Facts {
    /// Which history it writes; none if it takes no writes.
    #[must_use]
    pub fn identity(&self) -> Option<DatabaseIdentity> {
        self.writes_timeline.map(|timeline| DatabaseIdentity {
            system_identifier: self.system_identifier,
            timeline,
        })
    }
}

/// What differs between databases that speak the PostgreSQL protocol. The
/// statements of the write path are plain SQL and the same for all.
pub(super) trait Catalog: std::fmt::Debug + Sync {
    /// One row, as text: what [`read`] reads.
    fn facts_sql(&self) -> &'static str;
}

/// PostgreSQL 15 or later, and services that keep its catalog.
#[derive(Debug)]
struct PostgreSql;

impl Catalog for PostgreSql {
    fn facts_sql(&self) -> &'static str {
        include_str!("../../../../sql/queries/watch_facts.sql")
    }
}

/// Amazon Aurora: the storage replicates, and other regions follow behind, which
/// only `aurora_global_db_status()` shows.
#[derive(Debug)]
struct Aurora;

impl Catalog for Aurora {
    fn facts_sql(&self) -> &'static str {
        include_str!("../../../../sql/queries/watch_facts_aurora.sql")
    }
}

/// Which kind of server answers there.
pub(super) async fn catalog(
    connection: &mut Connection,
) -> Result<&'static dyn Catalog, WireError> {
    let sql = include_str!("../../../../sql/queries/watch_kind.sql");
    let rows = connection.simple(sql).await?;
    let aurora = rows.first().map(|row| row.text(0)).transpose()?.flatten() == Some("t");
    Ok(if aurora { &Aurora } else { &PostgreSql })
}

/// Asks.
pub(super) async fn ask(
    connection: &mut Connection,
    catalog: &dyn Catalog,
) -> Result<Facts, WireError> {
    let rows = connection.simple(catalog.facts_sql()).await?;
    let row = rows.first().ok_or(WireError::Protocol("no facts"))?;
    read(row)
}

fn read(row: &Row) -> Result<Facts, WireError> {
    let recovering = flag(row, 0)?;
    let read_only = flag(row, 1)?;
    let timeline: Option<u32> = number(row, 3)?;
    Ok(Facts {
        // 64 unsigned bits, which SQL shows as a signed bigint.
        system_identifier: number::<i64>(row, 2)?
            .ok_or(WireError::Protocol("no system identifier"))?
            .cast_unsigned(),
        writes_timeline: timeline.filter(|_| !recovering && !read_only),
        recovering,
        receiving: flag(row, 4)?,
        receives_timeline: number(row, 5)?,
        lsn: number(row, 6)?.unwrap_or(0),
        replication: Replication {
            fsync: row.text(7)? == Some("on"),
            sync_required: sync_required(row.text(8)?.unwrap_or_default()),
            sync_following: number(row, 9)?,
            following: number(row, 10)?.unwrap_or(0),
            storage: flag(row, 12)?,
            lag: number(row, 11)?.map(Duration::from_millis),
        },
    })
}

fn flag(row: &Row, index: usize) -> Result<bool, WireError> {
    match row.text(index)? {
        Some("t" | "on") => Ok(true),
        Some("f" | "off") | None => Ok(false),
        Some(_) => Err(WireError::Protocol("a fact that is no truth value")),
    }
}

fn number<T: std::str::FromStr>(row: &Row, index: usize) -> Result<Option<T>, WireError> {
    row.text(index)?
        .map(str::parse)
        .transpose()
        .map_err(|_not_a_number| WireError::Protocol("a fact that is no number"))
}
