//! A short cut to where a walk into the past begins.
//!
//! Walking to last year on an account that moves all day would step over
//! everything since. Partitions that no longer change can be given two indexes,
//! (`debit_account_id`, `id`) and (`credit_account_id`, `id`), built in bulk and
//! never written to again; the walk then starts at a look-up in them. Nothing
//! depends on it: which partitions have them is asked of the catalog each time.

use tokio_postgres::Row;
use uuid::Uuid;

use super::row::Reading;
use super::{Lease, ReadError};

/// Below this many transfers the walk is quicker than the two look-ups.
const VERSION_MIN: i64 = 1_000;

/// A partition of `transfers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Partition {
    low: Uuid,
    high: Uuid,
    indexed: bool,
}

/// Where to look by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reach {
    low: Uuid,
    /// No partition lies below.
    to_the_start: bool,
}

/// The account's newest transfer below `high`, if that can be told quickly and
/// matters; else `first` as it was. `None`: there is none at or above `low`.
pub(super) async fn seek(
    lease: &mut Lease,
    account_id: i64,
    version: i64,
    first: Uuid,
    low: Uuid,
    high: Uuid,
) -> Result<Option<Uuid>, ReadError> {
    if version < VERSION_MIN {
        return Ok(Some(first));
    }
    let rows = lease
        .rows(
            include_str!("../../../../sql/queries/read_history_partitions.sql"),
            &[],
        )
        .await?;
    let Some(partitions) = rows
        .iter()
        .map(partition)
        .collect::<Result<Option<Vec<_>>, _>>()?
    else {
        return Ok(Some(first));
    };
    let Some(reach) = reach(&partitions, high) else {
        return Ok(Some(first));
    };
    let from = reach.low.max(low);
    let found = lease
        .row(
            include_str!("../../../../sql/queries/read_history_seek.sql"),
            &[&account_id, &high, &from],
        )
        .await?;
    match found {
        Some(found) => Reading::new("transfers", &found, account_id)
            .get("id")
            .map(Some),
        None if reach.to_the_start || reach.low <= low => Ok(None),
        None => Ok(Some(first)),
    }
}

/// `None`: a default partition, which may hold any id.
fn partition(row: &Row) -> Result<Option<Partition>, ReadError> {
    let reading = Reading::new("pg_inherits", row, "transfers");
    if reading.get("is_default")? {
        return Ok(None);
    }
    Ok(Some(Partition {
        low: reading.get::<Option<Uuid>>("low")?.unwrap_or(Uuid::nil()),
        high: reading.get::<Option<Uuid>>("high")?.unwrap_or(Uuid::max()),
        indexed: reading.get("indexed")?,
    }))
}

/// How far below `high` an unbroken run of indexed partitions goes; `None` if
/// the first one is not indexed. Ascending input.
fn reach(partitions: &[Partition], high: Uuid) -> Option<Reach> {
    let below: Vec<&Partition> = partitions
        .iter()
        .filter(|partition| partition.low < high)
        .collect();
    let run = below
        .iter()
        .rev()
        .take_while(|partition| partition.indexed)
        .count();
    let lowest = below.iter().rev().take(run).next_back()?;
    Some(Reach {
        low: lowest.low,
        to_the_start: run == below.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    #[track_caller]
    fn check(indexed: &[bool], high: u128, expected: Option<(u128, bool)>) {
        let partitions: Vec<Partition> = (0_u128..)
            .zip(indexed)
            .map(|(index, indexed)| Partition {
                low: id(index * 10),
                high: id(index * 10 + 10),
                indexed: *indexed,
            })
            .collect();
        let expected = expected.map(|(low, to_the_start)| Reach {
            low: id(low),
            to_the_start,
        });
        assert_eq!(reach(&partitions, id(high)), expected, "{indexed:?} {high}");
    }

    #[test]
    fn an_index_is_used_as_far_as_indexed_partitions_reach_unbroken() {
        check(&[true, true, true], 25, Some((0, true)));
        check(&[true, true, false], 25, None);
        check(&[true, true, false], 20, Some((0, true)));
        check(&[true, false, true], 25, Some((20, false)));
        check(&[true, false, true], 5, Some((0, true)));
        check(&[false, true, true], 15, Some((10, false)));
        check(&[true], 0, None);
        check(&[], 5, None);
    }
}
