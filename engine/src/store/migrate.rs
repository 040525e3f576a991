//! Which schema the database has, and how it gets this engine's.
//!
//! Owns: the embedded migrations of `sql/migrations` and their history table.
//! Never: goes backward, edits what was applied, or makes a partition (see
//! [`super::maintain`]).
//! Bound: `lock_wait` for the schema lock; each migration bounds its own locks.
//! Promise: a migration keeps the engine of the version before working, so that
//! both serve side by side while a release is delivered or taken back
//! (`sql/README.md`). An engine therefore accepts a schema one version newer than
//! its own, and nothing else that it does not know word for word.
//! Invariant: migrations run one after the other under one session lock, each in
//! one transaction with its line of history, so that engines starting at once
//! apply each exactly once and a crash leaves whole migrations only.

mod error;

use std::fmt;
use std::time::Duration;

use refinery::{Migration, Runner};
use tokio_postgres::Client;

use super::link::{Link, LockError};
pub use error::SchemaError;

mod embedded {
    refinery::embed_migrations!("../sql/migrations");
}

/// The history, named by the migration library.
const READ_APPLIED: &str = include_str!("../../../sql/queries/schema_history.sql");

/// How migrations run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long to wait for another engine's run. Default 60 s: far above what
    /// an ordinary migration takes.
    pub lock_wait: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lock_wait: Duration::from_secs(60),
        }
    }
}

/// What a run did.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MigrationReport {
    /// Applied by this run, in order, as `V1__ledger`; empty if there was nothing to do.
    pub applied: Vec<String>,
    /// The schema's version now.
    pub version: i32,
}

impl fmt::Display for MigrationReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in &self.applied {
            writeln!(formatter, "applied {name}")?;
        }
        write!(formatter, "schema is at version {}", self.version)
    }
}

/// The schema this engine was built for.
#[must_use]
pub fn version() -> i32 {
    newest(embedded::migrations::runner().get_migrations())
}

/// Applies what is missing. `url` must name the owning role and lead to
/// PostgreSQL directly.
///
/// # Errors
/// [`SchemaError`]; migrations applied before the error stay.
pub async fn run(url: &str, settings: &Settings) -> Result<MigrationReport, SchemaError> {
    run_with(url, settings, &embedded::migrations::runner()).await
}

async fn run_with(
    url: &str,
    settings: &Settings,
    runner: &Runner,
) -> Result<MigrationReport, SchemaError> {
    let mut link = Link::open(url).await.map_err(SchemaError::Link)?;
    link.lock_schema(settings.lock_wait)
        .await
        .map_err(|error| match error {
            LockError::Held { wait } => SchemaError::Locked { wait },
            LockError::Database(source) => SchemaError::Database(source),
        })?;
    link.assume_owner().await.map_err(SchemaError::of_owner)?;
    // Read only now: whoever held the lock may have done the work.
    match check(&link.client, runner.get_migrations()).await {
        Ok(Fit::Own) | Err(SchemaError::NoSchema | SchemaError::TooOld { .. }) => {}
        // A release taken back: nothing to apply, and nothing in the way.
        Ok(Fit::OneNewer) => {
            link.close().await;
            return Ok(MigrationReport {
                applied: Vec::new(),
                version: newest(runner.get_migrations()).saturating_add(1),
            });
        }
        Err(error) => return Err(error),
    }
    let report = runner
        .run_async(&mut link.client)
        .await
        .map_err(SchemaError::of_run)?;
    link.close().await;
    Ok(MigrationReport {
        applied: report
            .applied_migrations()
            .iter()
            .map(ToString::to_string)
            .collect(),
        version: newest(runner.get_migrations()),
    })
}

/// How a schema that this engine can serve stands to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// The one it was built for.
    Own,
    /// That of the release after it, whose migration keeps this engine working.
    OneNewer,
}

/// Whether the database has a schema that this engine can serve.
/// Reads one small table; the role needs `SELECT` on it and nothing else.
///
/// # Errors
/// [`SchemaError`], whose text names the command that mends it.
pub async fn check_schema(client: &Client) -> Result<Fit, SchemaError> {
    check(client, embedded::migrations::runner().get_migrations()).await
}

async fn check(client: &Client, known: &[Migration]) -> Result<Fit, SchemaError> {
    let rows = client
        .query(READ_APPLIED, &[])
        .await
        .map_err(SchemaError::of_history)?;
    let mut applied = Vec::with_capacity(rows.len());
    for row in rows {
        applied.push(Applied {
            version: row.try_get(0).map_err(SchemaError::Database)?,
            name: row.try_get(1).map_err(SchemaError::Database)?,
            checksum: row.try_get(2).map_err(SchemaError::Database)?,
        });
    }
    let known: Vec<Applied> = known.iter().map(Applied::of).collect();
    compare(&applied, &known)
}

/// A line of history, or what the line of an embedded migration will be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Applied {
    version: i32,
    name: String,
    checksum: String,
}

impl Applied {
    fn of(migration: &Migration) -> Self {
        Self {
            version: migration.version(),
            name: migration.name().to_owned(),
            checksum: migration.checksum().to_string(),
        }
    }
}

/// The most alarming difference first: a schema from the future or another
/// history must not be touched; one that is merely behind can be mended.
fn compare(applied: &[Applied], known: &[Applied]) -> Result<Fit, SchemaError> {
    let version = applied.iter().map(|line| line.version).max();
    let needed = known.iter().map(|line| line.version).max().unwrap_or(0);
    let Some(version) = version else {
        return Err(SchemaError::NoSchema);
    };
    for line in applied {
        match known.iter().find(|other| other.version == line.version) {
            Some(other) if other == line => {}
            // What stands before it is still compared.
            None if Some(line.version) == needed.checked_add(1) && line.version == version => {}
            None if line.version > needed => {
                return Err(SchemaError::Newer {
                    applied: version,
                    known: needed,
                });
            }
            Some(_) | None => {
                return Err(SchemaError::Diverged {
                    version: line.version,
                    name: line.name.clone(),
                });
            }
        }
    }
    let absent = |line: &&Applied| !applied.contains(line);
    match known.iter().filter(absent).min_by_key(|line| line.version) {
        None if needed < version => Ok(Fit::OneNewer),
        None => Ok(Fit::Own),
        Some(line) if line.version < version => Err(SchemaError::Missing {
            version: line.version,
            name: line.name.clone(),
        }),
        Some(_) => Err(SchemaError::TooOld {
            applied: version,
            known: needed,
        }),
    }
}

fn newest(migrations: &[Migration]) -> i32 {
    migrations
        .iter()
        .map(Migration::version)
        .max()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(versions: &[i32]) -> Vec<Applied> {
        let line = |version: &i32| Applied {
            version: *version,
            name: "name".to_owned(),
            checksum: "checksum".to_owned(),
        };
        versions.iter().map(line).collect()
    }

    #[track_caller]
    fn check(applied: &[i32], expected: Result<Fit, fn(&SchemaError) -> bool>) {
        match (compare(&history(applied), &history(&[1, 2])), expected) {
            (Ok(fit), Ok(expected)) => assert_eq!(fit, expected, "applied={applied:?}"),
            (Err(error), Err(is_expected)) => {
                assert!(is_expected(&error), "applied={applied:?}: {error:?}");
            }
            (fit, _) => panic!("applied={applied:?}: {fit:?}"),
        }
    }

    #[test]
    fn one_version_newer_is_served_and_nothing_else_unknown() {
        check(&[1, 2], Ok(Fit::Own));
        check(&[1, 2, 3], Ok(Fit::OneNewer));
        let newer: fn(&SchemaError) -> bool = |e| matches!(e, SchemaError::Newer { .. });
        check(&[1, 2, 4], Err(newer));
        check(&[1, 2, 3, 4], Err(newer));
        check(&[1], Err(|e| matches!(e, SchemaError::TooOld { .. })));
        check(&[], Err(|e| matches!(e, SchemaError::NoSchema)));
        let missing: fn(&SchemaError) -> bool = |e| matches!(e, SchemaError::Missing { .. });
        check(&[2, 3], Err(missing));
        check(&[1, 3], Err(missing));
        check(
            &[0, 1, 2],
            Err(|e| matches!(e, SchemaError::Diverged { .. })),
        );
    }

    #[test]
    fn a_changed_line_is_refused_below_a_newer_one_too() {
        let mut applied = history(&[1, 2, 3]);
        applied[1].checksum = "other".to_owned();
        let compared = compare(&applied, &history(&[1, 2]));
        assert!(
            matches!(compared, Err(SchemaError::Diverged { version: 2, .. })),
            "{compared:?}"
        );
    }
}
