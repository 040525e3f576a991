//! Why the schema is not this engine's, and what to do about it.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use refinery::error::Kind;
use tokio_postgres::error::SqlState;

use super::super::link::{LinkError, Reason};

/// Why the schema is not this engine's.
#[derive(Debug)]
pub enum SchemaError {
    /// No connection.
    Link(LinkError),
    /// Another session is changing the schema; nothing was written.
    Locked {
        /// How long this one waited.
        wait: Duration,
    },
    /// The database is empty, or not one of this engine's.
    NoSchema,
    /// Migrations are waiting to be applied.
    TooOld {
        /// The newest that was applied.
        applied: i32,
        /// The newest this engine has.
        known: i32,
    },
    /// An engine newer by more than one version migrated this database.
    Newer {
        /// The newest that was applied.
        applied: i32,
        /// The newest this engine has.
        known: i32,
    },
    /// A migration was applied in another wording than this engine has.
    Diverged {
        /// Its number.
        version: i32,
        /// Its name in the database.
        name: String,
    },
    /// A migration was left out although a later one was applied.
    Missing {
        /// Its number.
        version: i32,
        /// Its name.
        name: String,
    },
    /// The role may not read the history.
    Forbidden(tokio_postgres::Error),
    /// The role does not own the ledger.
    NotOwner(tokio_postgres::Error),
    /// A migration failed and was rolled back; those before it stay.
    Failed {
        /// What the migration library was doing.
        step: String,
        /// Applied by this run before the failure.
        applied: Vec<String>,
        /// What the migration library said.
        source: Box<refinery::Error>,
    },
    /// The database refused, or the link broke.
    Database(tokio_postgres::Error),
}

impl SchemaError {
    pub(super) fn of_history(error: tokio_postgres::Error) -> Self {
        match error.code() {
            Some(&SqlState::UNDEFINED_TABLE) => Self::NoSchema,
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Self::Forbidden(error),
            Some(_) | None => Self::Database(error),
        }
    }

    pub(super) fn of_owner(error: tokio_postgres::Error) -> Self {
        match error.code() {
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Self::NotOwner(error),
            Some(_) | None => Self::Database(error),
        }
    }

    pub(super) fn of_run(error: refinery::Error) -> Self {
        let applied = error.report().map_or_else(Vec::new, |report| {
            report
                .applied_migrations()
                .iter()
                .map(ToString::to_string)
                .collect()
        });
        let step = match error.kind() {
            Kind::Connection(step, _) => step.clone(),
            Kind::DivergentVersion(applied, _) => {
                return Self::Diverged {
                    version: applied.version(),
                    name: applied.name().to_owned(),
                };
            }
            Kind::MissingVersion(missing) => {
                return Self::Missing {
                    version: missing.version(),
                    name: missing.name().to_owned(),
                };
            }
            Kind::InvalidName
            | Kind::InvalidVersion
            | Kind::RepeatedVersion(_)
            | Kind::InvalidMigrationPath(..)
            | Kind::ConfigError(_)
            | Kind::InvalidMigrationFile(..) => "reading the embedded migrations".to_owned(),
        };
        Self::Failed {
            step,
            applied,
            source: Box::new(error),
        }
    }

    /// Whether the database, rather than its schema, is what is amiss.
    #[must_use]
    pub const fn is_unavailable(&self) -> bool {
        match self {
            Self::Link(_) | Self::Database(_) | Self::Locked { .. } => true,
            Self::NoSchema
            | Self::TooOld { .. }
            | Self::Newer { .. }
            | Self::Diverged { .. }
            | Self::Missing { .. }
            | Self::Forbidden(_)
            | Self::NotOwner(_)
            | Self::Failed { .. } => false,
        }
    }
}

/// The library shows only "db error"; the server's words are inside.
fn database_error(error: &refinery::Error) -> Option<&tokio_postgres::Error> {
    match error.kind() {
        Kind::Connection(_, source) => source.downcast_ref(),
        Kind::InvalidName
        | Kind::InvalidVersion
        | Kind::RepeatedVersion(_)
        | Kind::DivergentVersion(..)
        | Kind::InvalidMigrationPath(..)
        | Kind::ConfigError(_)
        | Kind::MissingVersion(_)
        | Kind::InvalidMigrationFile(..) => None,
    }
}

impl fmt::Display for SchemaError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(source) => source.fmt(formatter),
            Self::Locked { wait } => write!(
                formatter,
                "another session has been changing the schema for {} s; wait for it, then run `engine migrate` again",
                wait.as_secs()
            ),
            Self::NoSchema => formatter.write_str(
                "the database has no ledger yet; run `engine migrate` with the owning role's URL",
            ),
            Self::TooOld { applied, known } => write!(
                formatter,
                "the schema is at version {applied}, this engine needs {known}; run `engine migrate` with the owning role's URL"
            ),
            Self::Newer { applied, known } => write!(
                formatter,
                "the schema is at version {applied}, from a newer engine; this one knows up to {known} and serves one version more: install the newer engine and run its `engine serve` (migrations never go back)"
            ),
            Self::Diverged { version, name } => write!(
                formatter,
                "migration V{version}__{name} was applied in another wording than this engine has; run the `engine migrate` of the release that made this database, or check that the URL names the right one"
            ),
            Self::Missing { version, name } => write!(
                formatter,
                "migration V{version}__{name} was left out although a later one was applied; restore the line in refinery_schema_history or run `engine migrate` on a copy that has it"
            ),
            Self::Forbidden(source) => write!(
                formatter,
                "the role may not read refinery_schema_history: {}; run `psql -f sql/roles.sql` as a superuser",
                Reason(source)
            ),
            Self::NotOwner(source) => write!(
                formatter,
                "the role may not change the schema: {}; run `engine migrate` with the owning role's URL",
                Reason(source)
            ),
            Self::Failed { step, source, .. } => {
                write!(formatter, "{step}: ")?;
                match database_error(source) {
                    Some(source) => Reason(source).fmt(formatter)?,
                    None => source.fmt(formatter)?,
                }
                formatter.write_str(
                    "; nothing of it was kept: mend the cause and run `engine migrate` again",
                )
            }
            Self::Database(source) => write!(formatter, "read the schema: {}", Reason(source)),
        }
    }
}

impl Error for SchemaError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Link(source) => Some(source),
            Self::Forbidden(source) | Self::NotOwner(source) | Self::Database(source) => {
                Some(source)
            }
            Self::Failed { source, .. } => Some(&**source),
            Self::Locked { .. }
            | Self::NoSchema
            | Self::TooOld { .. }
            | Self::Newer { .. }
            | Self::Diverged { .. }
            | Self::Missing { .. } => None,
        }
    }
}
