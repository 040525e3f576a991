//! Why maintaining stopped.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::super::link::{LinkError, Reason};
use super::PARTITIONS_AHEAD_MIN;

/// Why `engine maintain` stopped. What it had done stays; a further run goes on.
#[derive(Debug)]
pub enum MaintainError {
    /// The retention asked for is under 24 hours.
    RetentionTooShort(Duration),
    /// Fewer key periods ahead were asked for than may remain without a warning.
    TooFewAhead(u16),
    /// No connection.
    Link(LinkError),
    /// Another session is changing the schema.
    Locked {
        /// How long this one waited.
        wait: Duration,
    },
    /// Someone's partition begins or ends inside a month that needs one.
    Overlap {
        /// The partition that cannot be made.
        name: String,
    },
    /// The role does not own the tables.
    Forbidden(tokio_postgres::Error),
    /// The tables are not there.
    NoSchema(tokio_postgres::Error),
    /// The database refused, or the link broke.
    Database(tokio_postgres::Error),
}

impl MaintainError {
    pub(super) fn of(error: tokio_postgres::Error) -> Self {
        match error.code() {
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Self::Forbidden(error),
            Some(&SqlState::UNDEFINED_TABLE) => Self::NoSchema(error),
            Some(_) | None => Self::Database(error),
        }
    }

    /// Whether the database, rather than what was asked of it, is amiss.
    #[must_use]
    pub const fn is_unavailable(&self) -> bool {
        match self {
            Self::Link(_) | Self::Locked { .. } | Self::Database(_) => true,
            Self::RetentionTooShort(_)
            | Self::TooFewAhead(_)
            | Self::Overlap { .. }
            | Self::Forbidden(_)
            | Self::NoSchema(_) => false,
        }
    }
}

impl fmt::Display for MaintainError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RetentionTooShort(retention) => write!(
                formatter,
                "the idempotency retention is {} s; it must be at least 24 hours",
                retention.as_secs()
            ),
            Self::TooFewAhead(ahead) => write!(
                formatter,
                "{ahead} key periods ahead are too few; keep at least {PARTITIONS_AHEAD_MIN}"
            ),
            Self::Link(source) => source.fmt(formatter),
            Self::Locked { wait } => write!(
                formatter,
                "another session has been changing the schema for {} s; wait for it, then run `engine maintain` again",
                wait.as_secs()
            ),
            Self::Overlap { name } => write!(
                formatter,
                "{name} cannot be made: an existing partition holds a part of its month; detach that one or give it whole months"
            ),
            Self::Forbidden(source) => write!(
                formatter,
                "the role may not change partitions: {}; use the owning role's URL",
                Reason(source)
            ),
            Self::NoSchema(source) => write!(
                formatter,
                "the database has no ledger: {}; run `engine migrate`",
                Reason(source)
            ),
            Self::Database(source) => write!(formatter, "maintain: {}", Reason(source)),
        }
    }
}

impl Error for MaintainError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Link(source) => Some(source),
            Self::Forbidden(source) | Self::NoSchema(source) | Self::Database(source) => {
                Some(source)
            }
            Self::RetentionTooShort(_)
            | Self::TooFewAhead(_)
            | Self::Locked { .. }
            | Self::Overlap { .. } => None,
        }
    }
}
