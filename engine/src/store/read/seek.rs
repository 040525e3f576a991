//! A short cut to where a walk into the past begins.
//!
//! Walking to last year on an account that moves all day would step over
//! everything since. Partitions that no longer change can be given two indexes,
//! (`debit_account_id`, `id`) and (`credit_account_id`, `id`), built in bulk and
//! never written to again; the walk then starts at a look-up in them. Nothing
//! depends on it: which partitions have them is asked of the catalog each time.

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::row::Reading;
use super::{Lease, ReadError};

/// Below this many transfers the walk is quicker than the look-ups.
const VERSION_MIN: i64 = 1_000;

/// What is asked for: the newest transfer of `account_id` below `high`, unless
/// it is below `low`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sought {
    pub(super) account_id: i64,
    /// How many transfers it has.
    pub(super) version: i64,
    pub(super) low: Uuid,
    pub(super) high: Uuid,
}

/// A partition of `transfers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Partition {
    /// Its least id.
    low: Uuid,
    /// The least id above it.
    high: Uuid,
    indexed: bool,
}

/// What lies below a run of indexed partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Below {
    Nothing,
    AnUnindexedPartition,
}

/// What is sought if that can be told quickly and matters, else `first` as it
/// was. `None`: there is none.
pub(super) async fn seek(
    lease: &mut Lease,
    sought: Sought,
    first: Uuid,
) -> Result<Option<Uuid>, ReadError> {
    if first < sought.high || sought.version < VERSION_MIN {
        return Ok(Some(first));
    }
    let sql = include_str!("../../../../sql/queries/read_history_partitions.sql");
    let rows = lease.rows(sql, &[]).await?;
    let partitions: Option<Vec<Partition>> =
        rows.iter().map(partition).collect::<Result<_, _>>()?;
    let Some(partitions) = partitions else {
        return Ok(Some(first));
    };
    let (run, below) = indexed_run(&partitions, sought.high);
    for partition in run {
        let high = partition.high.min(sought.high);
        // Only ids are written into the text, and those have no quotes.
        let sql = include_str!("../../../../sql/queries/read_history_seek.sql")
            .replace("{low}", &partition.low.to_string())
            .replace("{high}", &high.to_string());
        let parameters: super::TypedParameters<'_> = &[(&sought.account_id, Type::INT8)];
        if let Some(found) = lease.row_once(&sql, parameters).await? {
            let id = Reading::new("transfers", &found, sought.account_id).get("id")?;
            return Ok(Some(id));
        }
        if partition.low <= sought.low {
            return Ok(None);
        }
    }
    Ok(match below {
        Below::Nothing => None,
        Below::AnUnindexedPartition => Some(first),
    })
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

/// Newest first, the partitions that hold ids below `high`, as far down as they
/// are indexed. Ascending input.
fn indexed_run(partitions: &[Partition], high: Uuid) -> (Vec<&Partition>, Below) {
    let newest_first = || {
        partitions
            .iter()
            .rev()
            .skip_while(|partition| high <= partition.low)
    };
    let run: Vec<&Partition> = newest_first()
        .take_while(|partition| partition.indexed)
        .collect();
    let below = match newest_first().nth(run.len()) {
        None => Below::Nothing,
        Some(_) => Below::AnUnindexedPartition,
    };
    (run, below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(indexed: &[bool], high: u128, lows: &[u128], below: Below) {
        let partitions: Vec<Partition> = (0_u128..)
            .zip(indexed)
            .map(|(index, indexed)| Partition {
                low: Uuid::from_u128(index * 10),
                high: Uuid::from_u128(index * 10 + 10),
                indexed: *indexed,
            })
            .collect();
        let (run, found_below) = indexed_run(&partitions, Uuid::from_u128(high));
        let run: Vec<u128> = run
            .iter()
            .map(|partition| partition.low.as_u128())
            .collect();
        assert_eq!(
            (run.as_slice(), found_below),
            (lows, below),
            "{indexed:?} {high}"
        );
    }

    #[test]
    fn an_index_is_used_as_far_as_indexed_partitions_reach_unbroken() {
        let unindexed = Below::AnUnindexedPartition;
        check(&[true, true, true], 25, &[20, 10, 0], Below::Nothing);
        check(&[true, true, false], 25, &[], unindexed);
        check(&[true, true, false], 21, &[], unindexed);
        check(&[true, true, false], 20, &[10, 0], Below::Nothing);
        check(&[true, false, true], 25, &[20], unindexed);
        check(&[true, false, true], 5, &[0], Below::Nothing);
        check(&[true], 0, &[], Below::Nothing);
        check(&[], 5, &[], Below::Nothing);
    }
}
