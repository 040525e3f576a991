//! Indexes by account on the months that are over.
//!
//! Owns: the indexes (`debit_account_id`, `id`) and (`credit_account_id`, `id`)
//! of closed partitions of `transfers`, which let a reader start at last year
//! instead of walking there (`store::read`). Built in bulk on rows that no longer
//! change, they cost the write path nothing; kept while the month was written,
//! they would cost it a third of its speed.
//! Never: touches a month that may still be written, or takes a lock that a commit
//! or a reader waits for (CREATE and DROP INDEX CONCURRENTLY).
//! Bound: `index_wait` per lock and per wait for older transactions; one build at
//! a time per database.
//! Invariant: an unfinished index is never taken for one; a later run replaces it.
//!
//! A concurrent build waits for every transaction that is older, and a session
//! that queues for an advisory lock is one. So whoever builds must not hold a
//! lock that others queue for: see [`super::upkeep`].

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row};

use super::super::link::Reason;
use super::catalog::{Parent, State, Tables};
use super::{MaintainError, MaintainReport, Unindexed, plan};

const ACCOUNT_INDEXES: &str = include_str!("../../../../sql/queries/maintain_account_indexes.sql");

/// A transfer is found by either of its accounts.
const ACCOUNT_COLUMNS: [&str; 2] = ["debit_account_id", "credit_account_id"];

/// An index by account on one partition.
#[derive(Debug)]
struct AccountIndex {
    /// Quoted and qualified.
    table_name: String,
    /// Quoted and qualified.
    name: String,
    account_column: String,
    is_valid: bool,
}

/// Builds what is missing on months that are over, the newest first: a reader
/// uses them from the present backwards as far as they reach unbroken.
pub(super) async fn build(
    client: &Client,
    report: &mut MaintainReport,
) -> Result<(), MaintainError> {
    let closed = closed_months(client).await.map_err(MaintainError::of)?;
    let existing = account_indexes(client).await.map_err(MaintainError::of)?;
    for table in &closed {
        for column in ACCOUNT_COLUMNS {
            let wanted = format!("{table} ({column}, id)");
            let same = || {
                existing
                    .iter()
                    .filter(|index| index.table_name == *table && index.account_column == column)
            };
            let done = async {
                for leftover in same().filter(|index| !index.is_valid) {
                    drop_index(client, &leftover.name).await?;
                    report.unfinished.push(leftover.name.clone());
                }
                if same().any(|index| index.is_valid) {
                    return Ok(());
                }
                create_index(client, &wanted).await?;
                report.indexed.push(wanted.clone());
                Ok(())
            };
            let Err(error) = done.await else { continue };
            let hindrance = hindrance(&error).ok_or_else(|| MaintainError::of(error))?;
            report.unindexed.push(Unindexed {
                index: wanted,
                reason: hindrance.reason,
            });
            match hindrance.reach {
                Reach::Table => {}
                Reach::All => return Ok(()),
            }
        }
    }
    Ok(())
}

/// Newest first, quoted and qualified.
async fn closed_months(client: &Client) -> Result<Vec<String>, tokio_postgres::Error> {
    let tables = Tables::read(client).await?;
    let mut closed: Vec<String> = tables
        .of(Parent::Transfers)
        .filter(|partition| partition.state == State::Attached)
        .filter(|partition| {
            let span = partition.span;
            span.is_some_and(|span| plan::month_is_over(span, tables.now_ms))
        })
        .map(|partition| partition.name.clone())
        .collect();
    closed.reverse();
    Ok(closed)
}

async fn account_indexes(client: &Client) -> Result<Vec<AccountIndex>, tokio_postgres::Error> {
    let rows = client.query(ACCOUNT_INDEXES, &[]).await?;
    rows.iter().map(account_index).collect()
}

fn account_index(row: &Row) -> Result<AccountIndex, tokio_postgres::Error> {
    Ok(AccountIndex {
        table_name: row.try_get("table_name")?,
        name: row.try_get("index_name")?,
        account_column: row.try_get("account_column")?,
        is_valid: row.try_get("is_valid")?,
    })
}

/// PostgreSQL chooses the name: free, and no longer than it may be.
async fn create_index(client: &Client, wanted: &str) -> Result<(), tokio_postgres::Error> {
    client
        .batch_execute(&format!("CREATE INDEX CONCURRENTLY ON {wanted}"))
        .await
}

/// A killed build's index. One that somebody builds this moment looks the same,
/// but its table is locked against this until it ends.
async fn drop_index(client: &Client, name: &str) -> Result<(), tokio_postgres::Error> {
    client
        .batch_execute(&format!("DROP INDEX CONCURRENTLY IF EXISTS {name}"))
        .await
}

/// What keeps an index from being built, and how much else.
#[derive(Debug)]
struct Hindrance {
    reason: String,
    reach: Reach,
}

#[derive(Clone, Copy, Debug)]
enum Reach {
    /// A partition that somebody else made and owns.
    Table,
    /// A transaction that is older than one build is older than all.
    All,
}

/// `None`: the run cannot go on.
fn hindrance(error: &tokio_postgres::Error) -> Option<Hindrance> {
    let (words, reach) = match error.code() {
        Some(&SqlState::LOCK_NOT_AVAILABLE | &SqlState::T_R_DEADLOCK_DETECTED) => {
            ("a transaction is in the way: ", Reach::All)
        }
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => ("", Reach::Table),
        Some(_) | None => return None,
    };
    Some(Hindrance {
        reason: format!("{words}{}", Reason(error)),
        reach,
    })
}
