//! What differs between databases that speak the PostgreSQL protocol.

use super::ReadError;
use super::row::Reading;
use crate::domain::DatabaseIdentity;

/// A kind of server. The statements of the write path are plain SQL and the
/// same for all; only the catalog questions here are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// PostgreSQL 15 or later, and services that keep its control functions.
    #[default]
    PostgreSql,
}

impl Dialect {
    /// The statement that [`Self::identity`] reads.
    pub(super) const fn identity_sql(self) -> &'static str {
        match self {
            Self::PostgreSql => include_str!("../../../../sql/queries/read_identity.sql"),
        }
    }

    /// Reads the row of [`Self::identity_sql`].
    pub(super) fn identity(self, row: &tokio_postgres::Row) -> Result<DatabaseIdentity, ReadError> {
        match self {
            Self::PostgreSql => {
                let reading = Reading::new("pg_control_system", row, "");
                let Some(timeline_hex) = reading.get::<Option<&str>>("timeline_hex")? else {
                    return Err(ReadError::NotPrimary);
                };
                Ok(DatabaseIdentity {
                    // 64 unsigned bits, which SQL shows as a signed bigint.
                    system_identifier: reading.get::<i64>("system_identifier")?.cast_unsigned(),
                    timeline: u32::from_str_radix(timeline_hex, 16)
                        .map_err(|_source| reading.corrupt("timeline_hex"))?,
                })
            }
        }
    }
}
