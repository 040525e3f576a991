//! What the planner knows of the partitioned tables as a whole.
//!
//! Owns: their statistics. Autovacuum keeps those of each partition and never
//! those of the whole, and joins of the whole are planned by them: without,
//! `engine verify` looks up every key by index, one by one, where one scan and a
//! hash would do, and runs other checks on one core instead of all.
//! Never: needed by the engine's own statements, which name their index.
//! Bound: a sample of 30,000 pages per partition (PostgreSQL's default), and only
//! when the rows have grown or shrunk by a tenth since.

use tokio_postgres::Client;

use super::MaintainReport;

const STALE: &str = include_str!("../../../../sql/queries/maintain_stale_statistics.sql");

/// Takes new ones where they are missing or of a much smaller table. Locks out
/// neither commits nor readers (SHARE UPDATE EXCLUSIVE).
pub(super) async fn refresh(
    client: &Client,
    report: &mut MaintainReport,
) -> Result<(), tokio_postgres::Error> {
    for row in client.query(STALE, &[]).await? {
        let name: String = row.try_get("table_name")?;
        client.batch_execute(&format!("ANALYZE {name}")).await?;
        report.analysed.push(name);
    }
    Ok(())
}
