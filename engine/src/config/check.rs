//! What no single flag can know: limits that must fit each other.
//!
//! Each rule names the settings it is about, the bound and the reason.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::tuning::{Admission, Database, Network, Tuning};
use super::value::{DatabaseUrl, RedisUrl};
use super::{ConfigError, ServeConfig};
use crate::store::periods::OVERLAP_MS;

/// Items of one batch call (`POST /transactions`).
pub const BATCH_CALL_TRANSFERS_MAX: u32 = 8_192;
/// Each transfer of a full batch call may name two accounts of its own.
pub const BATCH_CALL_ACCOUNTS_MAX: u32 = 2 * BATCH_CALL_TRANSFERS_MAX;
/// The largest body: one batch call.
pub const BATCH_BODY_BYTES_MAX: u64 = 8 << 20;
/// Eight times the results of the largest batch call, at some 256 bytes each.
const ANSWER_BYTES_MIN: u64 = 16 << 20;
/// Below a day a client that retries after a night would apply twice.
pub const IDEMPOTENCY_RETENTION_MIN: Duration = Duration::from_secs(24 * 3600);
/// Two engines see each other's keys across a period's boundary only while no
/// transaction lives as long as periods overlap. Half of it is kept for what the
/// time limits do not count: the round trips and the database's own pauses.
const TRANSACTION_LIFE_MAX: Duration = Duration::from_millis(OVERLAP_MS.unsigned_abs() / 2);
/// PostgreSQL's timeouts are milliseconds in a 32-bit integer.
const DATABASE_TIMEOUT_MAX: Duration = Duration::from_millis(2_147_483_647);
/// Stored with each key's scope; long enough for any name a person gives.
const PRINCIPAL_BYTES_MAX: usize = 255;

fn refuse<T>(setting: &'static str, reason: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Setting {
        setting,
        reason: reason.into(),
    })
}

fn at_least<T: PartialOrd + std::fmt::Display>(
    setting: &'static str,
    value: T,
    min: T,
    why: &str,
) -> Result<(), ConfigError> {
    if value < min {
        return refuse(
            setting,
            format!("is {value}, but must be at least {min}: {why}"),
        );
    }
    Ok(())
}

fn within(
    setting: &'static str,
    value: Duration,
    (min, max): (Duration, Duration),
) -> Result<(), ConfigError> {
    if value < min || max < value {
        return refuse(
            setting,
            format!(
                "is {}, but must be between {} and {}",
                humantime::format_duration(value),
                humantime::format_duration(min),
                humantime::format_duration(max)
            ),
        );
    }
    Ok(())
}

pub(super) fn database_url(setting: &'static str, url: &DatabaseUrl) -> Result<(), ConfigError> {
    match url.parsed() {
        Ok(_) => Ok(()),
        Err(reason) => refuse(setting, reason),
    }
}

/// With `--database-ca-file`, if given.
pub(super) fn with_ca_file(
    url: DatabaseUrl,
    ca_file: Option<&Path>,
) -> Result<DatabaseUrl, ConfigError> {
    match ca_file.map(|path| url.with_ca_file(path)) {
        None => Ok(url),
        Some(Ok(with)) => Ok(with),
        Some(Err(reason)) => refuse(
            "--database-ca-file",
            format!("does not fit a database URL, which {reason}"),
        ),
    }
}

pub(super) fn redis_url(setting: &'static str, url: &RedisUrl) -> Result<(), ConfigError> {
    match url.check() {
        Ok(()) => Ok(()),
        Err(reason) => refuse(setting, reason),
    }
}

pub(super) fn retention(value: Duration) -> Result<(), ConfigError> {
    if value < IDEMPOTENCY_RETENTION_MIN {
        return refuse(
            "--idempotency-retention",
            format!(
                "is {}, but must be at least 24h: a client that retries the next morning \
                 must not move the money twice",
                humantime::format_duration(value)
            ),
        );
    }
    Ok(())
}

pub(super) fn serve(config: &ServeConfig) -> Result<(), ConfigError> {
    database_url("--database-url", &config.database_url)?;
    if let Some(url) = &config.database_read_url {
        database_url("--database-read-url", url)?;
    }
    if let Some(url) = &config.redis_url {
        redis_url("--redis-url", url)?;
    }
    let is_encrypted = config
        .redis_url
        .as_ref()
        .is_some_and(RedisUrl::is_encrypted);
    if config.redis_ca_file.is_some() && config.redis_url.is_some() && !is_encrypted {
        return refuse(
            "--redis-ca-file",
            "says whom to believe, but --redis-url is not encrypted: use rediss:// there",
        );
    }
    if let Some(owner) = &config.migrate_database_url {
        database_url("--migrate-database-url", owner)?;
        let user = |url: &DatabaseUrl| {
            url.parsed()
                .ok()
                .and_then(|url| url.config.get_user().map(str::to_owned))
        };
        if user(owner) == user(&config.database_url) {
            return refuse(
                "--migrate-database-url",
                "names the same user as --database-url, but must be another role: one that owns \
                 the schema, while the serving role may only add transfers (sql/roles.sql)",
            );
        }
    }
    tuning(&config.tuning)
}

pub(super) fn tuning(tuning: &Tuning) -> Result<(), ConfigError> {
    limits(tuning)?;
    waits(tuning)?;
    let network = &tuning.network;
    if collide(network.listen, network.admin_listen) {
        return refuse(
            "--admin-listen",
            format!(
                "is {}, which --listen ({}) takes already; give it a port of its own",
                network.admin_listen, network.listen
            ),
        );
    }
    let principal = &network.anonymous_principal;
    if principal.is_empty()
        || PRINCIPAL_BYTES_MAX < principal.len()
        || !principal.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return refuse(
            "--anonymous-principal",
            format!("must be 1 to {PRINCIPAL_BYTES_MAX} visible ASCII characters without blanks"),
        );
    }
    Ok(())
}

fn limits(tuning: &Tuning) -> Result<(), ConfigError> {
    at_least(
        "--batch-transfers-max",
        tuning.batch.batch_transfers_max,
        BATCH_CALL_TRANSFERS_MAX,
        "one commit must hold one full batch call",
    )?;
    at_least(
        "--batch-accounts-max",
        tuning.batch.batch_accounts_max,
        BATCH_CALL_ACCOUNTS_MAX,
        "a full batch call of 8,192 transfers may name two accounts in each",
    )?;
    at_least(
        "--queue-depth-max",
        tuning.admission.queue_depth_max,
        BATCH_CALL_TRANSFERS_MAX,
        "a full batch call is admitted as a whole or not at all",
    )?;
    at_least(
        "--body-bytes-in-flight-max",
        tuning.admission.body_bytes_in_flight_max,
        BATCH_BODY_BYTES_MAX,
        "one batch call may have a body of 8 MiB",
    )?;
    at_least(
        "--answer-bytes-in-flight-max",
        tuning.admission.answer_bytes_in_flight_max,
        ANSWER_BYTES_MIN,
        "one connection may hold an eighth of it, the results of one batch call",
    )?;
    retention(tuning.admission.idempotency_retention)
}

/// How long a client may take.
fn client_waits(network: &Network) -> Result<(), ConfigError> {
    let bounds = (Duration::from_millis(100), Duration::from_secs(3600));
    within("--header-timeout", network.header_timeout, bounds)?;
    within("--idle-timeout", network.idle_timeout, bounds)?;
    within("--write-timeout", network.write_timeout, bounds)
}

/// What is accepted at the end of the delay has its whole deadline.
fn stop_waits(admission: &Admission) -> Result<(), ConfigError> {
    let (delay, grace) = (admission.shutdown_delay, admission.shutdown_grace);
    let (left, deadline) = (grace.saturating_sub(delay), admission.request_deadline);
    if delay.is_zero() || deadline <= left {
        return Ok(());
    }
    refuse(
        "--shutdown-delay",
        format!(
            "is {}, which leaves {} of --shutdown-grace to answer what may take {} \
             (--request-deadline): shorten it, or raise --shutdown-grace to {} or more",
            humantime::format_duration(delay),
            humantime::format_duration(left),
            humantime::format_duration(deadline),
            humantime::format_duration(delay.saturating_add(deadline)),
        ),
    )
}

fn waits(tuning: &Tuning) -> Result<(), ConfigError> {
    const MS: Duration = Duration::from_millis(1);
    const HOUR: Duration = Duration::from_secs(3600);
    let database = &tuning.database;
    let deadline = tuning.admission.request_deadline;
    within("--request-deadline", deadline, (100 * MS, HOUR))?;
    within(
        "--shutdown-grace",
        tuning.admission.shutdown_grace,
        (Duration::ZERO, HOUR),
    )?;
    stop_waits(&tuning.admission)?;
    client_waits(&tuning.network)?;
    let bounds = (MS, DATABASE_TIMEOUT_MAX);
    within("--lock-timeout", database.lock_timeout, bounds)?;
    within("--statement-timeout", database.statement_timeout, bounds)?;
    within(
        "--idle-in-transaction-timeout",
        database.idle_in_transaction_timeout,
        bounds,
    )?;
    transaction_life(database)?;
    within(
        "--database-connect-timeout",
        database.database_connect_timeout,
        (MS, HOUR),
    )?;
    within(
        "--database-failover-detect",
        database.database_failover_detect,
        (200 * MS, HOUR),
    )?;
    within(
        "--replica-lag-max",
        database.replica_lag_max,
        (500 * MS, HOUR),
    )?;
    within(
        "--cache-ttl",
        tuning.cache.cache_ttl,
        (Duration::from_secs(1), 24 * HOUR),
    )?;
    within("--cache-timeout", tuning.cache.cache_timeout, (MS, HOUR))?;
    if database.statement_timeout <= database.lock_timeout {
        return refuse(
            "--lock-timeout",
            "must be shorter than --statement-timeout: otherwise a wait for another engine \
             looks like a broken statement",
        );
    }
    if deadline <= tuning.cache.cache_timeout {
        return refuse(
            "--cache-timeout",
            "must be shorter than --request-deadline: otherwise a stalled Redis fails reads \
             that PostgreSQL could answer",
        );
    }
    Ok(())
}

fn transaction_life(database: &Database) -> Result<(), ConfigError> {
    let life = database
        .lock_timeout
        .saturating_add(database.statement_timeout)
        .saturating_add(database.idle_in_transaction_timeout);
    if life < TRANSACTION_LIFE_MAX {
        return Ok(());
    }
    refuse(
        "--statement-timeout",
        format!(
            "makes {} together with --lock-timeout and --idle-in-transaction-timeout, but they \
             must stay under {}: the periods of idempotency keys overlap for twice that, and \
             a transaction that outlives the overlap could be applied twice",
            humantime::format_duration(life),
            humantime::format_duration(TRANSACTION_LIFE_MAX)
        ),
    )
}

/// Whether two listeners would fight for one port. Port 0 is never the same.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let either_wildcard = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && (either_wildcard || a.ip() == b.ip())
}
