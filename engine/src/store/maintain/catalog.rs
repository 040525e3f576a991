//! The partitions that are there, as the catalog tells.
//!
//! Owns: reading them. Never: changes anything.
//! Bound: one query of one row per partition.

use tokio_postgres::{Client, Row};

use super::plan::{self, Span};
use super::{DROP_MARK, PartitionsAhead};

const PARTITIONS: &str = include_str!("../../../../sql/queries/maintain_partitions.sql");

/// A partitioned table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parent {
    Transfers,
    Rejections,
    Keys,
}

impl Parent {
    const ALL: [Self; 3] = [Self::Transfers, Self::Rejections, Self::Keys];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Transfers => "transfers",
            Self::Rejections => "rejections",
            Self::Keys => "idempotency_keys",
        }
    }
}

/// How far the dropping of a partition has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Attached,
    DetachBegun,
    Detached,
}

/// A partition, or a table that was one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Partition {
    pub(super) parent: Parent,
    /// Quoted and qualified.
    pub(super) parent_name: String,
    /// Quoted and qualified.
    pub(super) name: String,
    pub(super) state: State,
    /// None when detached.
    pub(super) span: Option<Span>,
}

/// All of them, at one time.
#[derive(Debug)]
pub(super) struct Tables {
    partitions: Vec<Partition>,
    /// The database's clock.
    pub(super) now_ms: i64,
}

impl Tables {
    pub(super) async fn read(client: &Client) -> Result<Self, tokio_postgres::Error> {
        let rows = client.query(PARTITIONS, &[&DROP_MARK]).await?;
        let mut partitions = Vec::with_capacity(rows.len());
        // Without a partition there is nothing that now could lie in.
        let mut now_ms = 0;
        for row in &rows {
            now_ms = row.try_get("now_ms")?;
            partitions.extend(partition_of(row)?);
        }
        Ok(Self { partitions, now_ms })
    }

    pub(super) fn of(&self, parent: Parent) -> impl Iterator<Item = &Partition> {
        self.partitions
            .iter()
            .filter(move |partition| partition.parent == parent)
    }

    /// Of the attached partitions, oldest first.
    pub(super) fn spans(&self, parent: Parent) -> Vec<Span> {
        self.of(parent)
            .filter(|partition| partition.state == State::Attached)
            .filter_map(|partition| partition.span)
            .collect()
    }

    /// How many start after now, whether or not they follow without a gap.
    pub(super) fn after_now(&self, parent: Parent) -> usize {
        self.spans(parent)
            .iter()
            .filter(|span| span.starts_ms > self.now_ms)
            .count()
    }

    pub(super) fn ahead(&self) -> PartitionsAhead {
        let ahead = |parent| plan::ahead(&self.spans(parent), self.now_ms);
        PartitionsAhead {
            transfers: ahead(Parent::Transfers),
            rejections: ahead(Parent::Rejections),
            keys: ahead(Parent::Keys),
        }
    }
}

/// None for a table of a name that is not ours, which the query does not return.
fn partition_of(row: &Row) -> Result<Option<Partition>, tokio_postgres::Error> {
    let parent: &str = row.try_get("parent")?;
    let state: i16 = row.try_get("state")?;
    let starts_ms: Option<i64> = row.try_get("lower_ms")?;
    let ends_ms: Option<i64> = row.try_get("upper_ms")?;
    let Some(parent) = Parent::ALL.into_iter().find(|it| it.as_str() == parent) else {
        return Ok(None);
    };
    let state = match state {
        0 => State::Attached,
        1 => State::DetachBegun,
        _ => State::Detached,
    };
    // An end left open by hand (MINVALUE, MAXVALUE) reaches as far as time does.
    let span = (state != State::Detached).then(|| Span {
        starts_ms: starts_ms.unwrap_or(0),
        ends_ms: ends_ms.unwrap_or(i64::MAX),
    });
    Ok(Some(Partition {
        parent,
        parent_name: row.try_get("parent_name")?,
        name: row.try_get("name")?,
        state,
        span,
    }))
}
