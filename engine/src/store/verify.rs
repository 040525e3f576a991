//! Is the ledger right? Every check of `sql/checks/`, in one snapshot.
//!
//! Owns: running the checks and telling the first broken row of each.
//! Never: writes, so it may run on a standby; mends what it finds.
//! Bound: one row per check reaches this process, however much is broken; the
//! database sorts and hashes within `work_mem_mib` per step and on disk beyond.
//! Invariant: all checks see one REPEATABLE READ snapshot, so commits going on
//! meanwhile cannot make a right ledger look broken.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{IsolationLevel, Transaction};
use uuid::Uuid;

use super::link::{Link, LinkError, Reason};
use super::migrate::{SchemaError, check_schema};
use crate::clock::Clock;
use crate::domain::TransferId;

const TOTALS: &str = include_str!("../../../sql/queries/verify_totals.sql");

/// A statement that returns no row unless the ledger is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its file's name, without the ending.
    pub name: &'static str,
    sql: &'static str,
}

impl Check {
    /// The first sentence of its header: what it proves.
    #[must_use]
    pub fn proves(&self) -> String {
        let header: Vec<&str> = self
            .sql
            .lines()
            .map_while(|line| line.strip_prefix("-- "))
            .take_while(|line| !line.starts_with("Parameters:"))
            .collect();
        header.join(" ")
    }
}

macro_rules! checks {
    ($($name:literal),* $(,)?) => {
        &[$(Check {
            name: $name,
            sql: include_str!(concat!("../../../sql/checks/", $name, ".sql")),
        }),*]
    };
}

/// All checks, the quick and grave ones first.
pub const CHECKS: &[Check] = checks![
    "ledger_unbalanced",
    "account_minimum",
    "account_balance",
    "account_head",
    "account_history",
    "transfer_currency",
    "reversals",
    "commit_rows",
    "rejection_references",
    "key_without_answer",
    "key_disagrees",
    "key_shared_answer",
];

/// What to check, and with how much memory.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Only what happened from this id on ([`TransferId::first_of_ms`] for a
    /// time); each check's header says what that leaves out. Default: all.
    pub since: Option<TransferId>,
    /// Memory for each sort or hash of the database, MiB. Default 64: a few such
    /// at once fit any server; more makes tens of millions of rows faster.
    pub work_mem_mib: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            since: None,
            work_mem_mib: 64,
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct CheckResult {
    /// The check's name.
    pub check: &'static str,
    /// How many rows are broken; 0 is sound.
    pub broken_count: u64,
    /// One of them (the first by its text), a JSON object.
    pub broken: Option<String>,
    /// How long it took.
    pub elapsed: Duration,
}

/// How far the checks have come.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// A check begins: its index in [`CHECKS`].
    Started(usize, Check),
    /// A check has ended.
    Finished(&'a CheckResult),
}

/// What the checks found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct VerifyReport {
    /// One per check, in the order of [`CHECKS`].
    pub checks: Vec<CheckResult>,
    /// Accounts in the database.
    pub accounts: u64,
    /// Transfers looked at.
    pub transfers: u64,
    /// Commits in the database.
    pub commits: u64,
}

impl VerifyReport {
    /// The first check that found something.
    #[must_use]
    pub fn first_broken(&self) -> Option<&CheckResult> {
        self.checks.iter().find(|check| check.broken.is_some())
    }
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for result in &self.checks {
            let seconds = result.elapsed.as_secs_f64();
            match &result.broken {
                None => writeln!(formatter, "ok      {} ({seconds:.1} s)", result.check)?,
                Some(row) => writeln!(
                    formatter,
                    "BROKEN  {} ({seconds:.1} s): {} rows, one is {row}",
                    result.check, result.broken_count
                )?,
            }
        }
        write!(
            formatter,
            "{} accounts, {} transfers, {} commits: {}",
            self.accounts,
            self.transfers,
            self.commits,
            if self.first_broken().is_none() {
                "the ledger is sound"
            } else {
                "THE LEDGER IS BROKEN"
            }
        )
    }
}

/// Runs every check, telling `progress` of each. A broken ledger is a result,
/// not an error.
///
/// # Errors
/// [`VerifyError`] when the checks could not be run to their end.
pub async fn run(
    url: &str,
    settings: &Settings,
    clock: &Clock,
    mut progress: impl FnMut(Progress<'_>),
) -> Result<VerifyReport, VerifyError> {
    let mut link = Link::open(url).await.map_err(VerifyError::Link)?;
    let transaction = link
        .client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await
        .map_err(VerifyError::of)?;
    // Timeouts meant for transfers would stop a scan of everything.
    transaction
        .batch_execute(&format!(
            "SET LOCAL statement_timeout = 0; \
             SET LOCAL idle_in_transaction_session_timeout = 0; \
             SET LOCAL work_mem = '{}MB'",
            settings.work_mem_mib.max(1)
        ))
        .await
        .map_err(VerifyError::of)?;
    check_schema(transaction.client())
        .await
        .map_err(VerifyError::Schema)?;
    let since = settings.since.map(TransferId::uuid);
    let mut checks = Vec::with_capacity(CHECKS.len());
    for (index, check) in CHECKS.iter().enumerate() {
        progress(Progress::Started(index, *check));
        let result = run_check(&transaction, *check, since, clock)
            .await
            .map_err(VerifyError::of)?;
        progress(Progress::Finished(&result));
        checks.push(result);
    }
    let totals = transaction
        .query_one(TOTALS, &[&since])
        .await
        .map_err(VerifyError::of)?;
    let total = |index| totals.try_get(index).map(i64::unsigned_abs);
    let report = VerifyReport {
        checks,
        accounts: total(0).map_err(VerifyError::of)?,
        transfers: total(1).map_err(VerifyError::of)?,
        commits: total(2).map_err(VerifyError::of)?,
    };
    transaction.rollback().await.map_err(VerifyError::of)?;
    link.close().await;
    Ok(report)
}

async fn run_check(
    transaction: &Transaction<'_>,
    check: Check,
    since: Option<Uuid>,
    clock: &Clock,
) -> Result<CheckResult, tokio_postgres::Error> {
    let started = clock.now();
    // An aggregate rather than LIMIT 1: a limit makes the planner bet on finding
    // a row soon, and in a sound ledger that bet is always lost.
    let row = transaction
        .query_one(
            &format!(
                "SELECT count(*), min(row_to_json(broken)::text COLLATE \"C\") FROM (\n{}\n) AS broken",
                check.sql
            ),
            &[&since],
        )
        .await?;
    Ok(CheckResult {
        check: check.name,
        broken_count: row.try_get(0).map(i64::unsigned_abs)?,
        broken: row.try_get(1)?,
        elapsed: clock.now().duration_since(started),
    })
}

/// Why the checks could not be run to their end. Nothing was written.
#[derive(Debug)]
pub enum VerifyError {
    /// No connection.
    Link(LinkError),
    /// The schema is not this engine's.
    Schema(SchemaError),
    /// The role may not read the ledger.
    Forbidden(tokio_postgres::Error),
    /// A standby had to apply what the snapshot still saw.
    StandbyConflict(tokio_postgres::Error),
    /// The database refused, or the link broke.
    Database(tokio_postgres::Error),
}

impl VerifyError {
    fn of(error: tokio_postgres::Error) -> Self {
        match error.code() {
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Self::Forbidden(error),
            // A read-only snapshot cannot conflict with writers; 40001 and 40P01
            // only come from recovery then.
            Some(&SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED) => {
                Self::StandbyConflict(error)
            }
            Some(_) | None => Self::Database(error),
        }
    }

    /// Whether the database, rather than what was asked of it, is amiss.
    #[must_use]
    pub const fn is_unavailable(&self) -> bool {
        match self {
            Self::Link(_) | Self::StandbyConflict(_) | Self::Database(_) => true,
            Self::Schema(source) => source.is_unavailable(),
            Self::Forbidden(_) => false,
        }
    }
}

impl fmt::Display for VerifyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(source) => source.fmt(formatter),
            Self::Schema(source) => source.fmt(formatter),
            Self::Forbidden(source) => write!(
                formatter,
                "the role may not read the ledger: {}; use a member of engine_read (`psql -f sql/roles.sql`)",
                Reason(source)
            ),
            Self::StandbyConflict(source) => write!(
                formatter,
                "the standby had to go on: {}; set hot_standby_feedback or raise max_standby_streaming_delay, or run on the primary",
                Reason(source)
            ),
            Self::Database(source) => write!(formatter, "verify: {}", Reason(source)),
        }
    }
}

impl Error for VerifyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Link(source) => Some(source),
            Self::Schema(source) => Some(source),
            Self::Forbidden(source) | Self::StandbyConflict(source) | Self::Database(source) => {
                Some(source)
            }
        }
    }
}
