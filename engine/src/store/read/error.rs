//! Why a read has no answer.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use tokio_postgres::error::SqlState;

/// Why a question to the database was not answered. Nothing was changed.
#[derive(Debug)]
pub enum ReadError {
    /// No server to be reached, or it is stopping, starting or out of
    /// resources, or it closed the connection. Try again later.
    Unavailable {
        /// What it said; none if this engine closed its own pool.
        source: Option<tokio_postgres::Error>,
    },
    /// A time limit passed.
    Timeout(TimeoutAt),
    /// All sessions were in use for that long.
    PoolExhausted {
        /// The limit on waiting.
        waited: Duration,
    },
    /// The server takes no writes: a standby, or a former primary. Its rows
    /// may be old, so it is not asked.
    NotPrimary,
    /// The answer was read, but the commit that shows it to be durable ended
    /// with a warning: a standby may not have it.
    NotDurable,
    /// The server refused the statement: a missing table or privilege. The
    /// schema, the role or this engine's version needs a person.
    Refused(tokio_postgres::Error),
    /// A stored row contradicts the schema's rules. `engine verify` says more.
    Corrupt(Corruption),
}

/// Which limit passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutAt {
    /// Opening a connection.
    Connect,
    /// The server's limit for one statement.
    Statement,
    /// The server's limit for one lock.
    Lock,
    /// This engine's limit for the whole call.
    Operation,
}

/// Where a stored row is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// Table.
    pub table: &'static str,
    /// Column, or the pair that disagrees.
    pub column: &'static str,
    /// The row's key, as text.
    pub row: String,
}

impl ReadError {
    /// A word for metrics and logs.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "unavailable",
            Self::Timeout(_) => "timeout",
            Self::PoolExhausted { .. } => "pool_exhausted",
            Self::NotPrimary => "not_primary",
            Self::NotDurable => "not_durable",
            Self::Refused(_) => "refused",
            Self::Corrupt(_) => "corrupt",
        }
    }

    /// By SQLSTATE (PostgreSQL manual, appendix A), never by text.
    pub(in crate::store) fn from_database(error: tokio_postgres::Error) -> Self {
        // No SQLSTATE: the link broke or was never made.
        let Some(state) = error.code() else {
            return Self::Unavailable {
                source: Some(error),
            };
        };
        if *state == SqlState::QUERY_CANCELED {
            return Self::Timeout(TimeoutAt::Statement);
        }
        if *state == SqlState::LOCK_NOT_AVAILABLE {
            return Self::Timeout(TimeoutAt::Lock);
        }
        if *state == SqlState::READ_ONLY_SQL_TRANSACTION {
            return Self::NotPrimary;
        }
        match state.code().get(..2) {
            // Connection, resources, operator intervention, system error;
            // transaction rollback (a deadlock); sign-in and a missing
            // database, which the operator can mend while the engine runs.
            Some("08" | "53" | "57" | "58" | "40" | "28" | "3D") => Self::Unavailable {
                source: Some(error),
            },
            _ if *state == SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT => Self::Unavailable {
                source: Some(error),
            },
            _ => Self::Refused(error),
        }
    }

    pub(in crate::store) fn corrupt(
        table: &'static str,
        column: &'static str,
        row: impl fmt::Display,
    ) -> Self {
        Self::Corrupt(Corruption {
            table,
            column,
            row: row.to_string(),
        })
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable {
                source: Some(source),
            } => {
                write!(formatter, "the database is unavailable: {source}")?;
                // tokio-postgres says only "db error"; the reason is inside.
                match source.as_db_error() {
                    Some(inner) => write!(formatter, ": {inner}"),
                    None => Ok(()),
                }
            }
            Self::Unavailable { source: None } => {
                formatter.write_str("the database is unavailable: the pool is closed")
            }
            Self::Timeout(at) => write!(formatter, "time limit passed: {}", at.as_str()),
            Self::PoolExhausted { waited } => {
                write!(formatter, "no free read connection within {waited:?}")
            }
            Self::NotPrimary => formatter.write_str("the server takes no writes: not the primary"),
            Self::NotDurable => {
                formatter.write_str("the server warned that a commit may not be replicated")
            }
            Self::Refused(source) => match source.as_db_error() {
                Some(inner) => write!(formatter, "the database refused a statement: {inner}"),
                None => write!(formatter, "the database refused a statement: {source}"),
            },
            Self::Corrupt(Corruption { table, column, row }) => {
                write!(formatter, "{table}.{column} is wrong in row {row}")
            }
        }
    }
}

impl Error for ReadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unavailable {
                source: Some(source),
            }
            | Self::Refused(source) => Some(source),
            Self::Unavailable { source: None }
            | Self::Timeout(_)
            | Self::PoolExhausted { .. }
            | Self::NotPrimary
            | Self::NotDurable
            | Self::Corrupt(_) => None,
        }
    }
}

impl TimeoutAt {
    /// What was being waited for.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "opening a connection",
            Self::Statement => "running a statement",
            Self::Lock => "waiting for a lock",
            Self::Operation => "the whole read",
        }
    }
}
