//! What can be set about the cache.
//!
//! Owns: the settings, their defaults and reasons.
//! Never: shows the URL, which may hold a password.
//! Bound: none of its own.
//! Invariant: the defaults work together; a setting alone may be changed.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::breaker::BreakerSettings;

/// Settings of this room.
#[derive(Clone)]
pub struct Settings {
    /// `redis://[user:password@]host:port[/db]`, `rediss://` for TLS; none: no cache. A secret.
    pub url: Option<String>,
    /// PEM of the authorities that may vouch for a `rediss://` server; none: those
    /// that this machine trusts.
    pub ca_file: Option<PathBuf>,
    /// How long a cached balance may be answered; across engines, the bound of
    /// staleness. Default 60 s.
    pub ttl: Duration,
    /// One operation of Redis. Default 50 ms: a read of the database takes 1 ms.
    pub timeout: Duration,
    /// One connection attempt. Default 1 s; nobody waits for it.
    pub connect_timeout: Duration,
    /// Callers waiting for one batch; also fills. Default 1,024, the most that
    /// one MGET is allowed to be.
    pub waiting_max: usize,
    /// Committed (and, into half of it, answered) versions remembered for two
    /// ttl. Default 1,048,576; past it the
    /// oldest are forgotten early, which costs reads of the database.
    pub floor_accounts_max: usize,
    /// Accounts remembered as recently read, whose commits are put to Redis.
    /// Default 65,536; others are refreshed by expiry.
    pub read_accounts_max: usize,
    /// Accounts whose committed balance waits to be put. Default 16,384.
    pub write_behind_max: usize,
    /// When to stop asking Redis.
    pub breaker: BreakerSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: None,
            ca_file: None,
            ttl: Duration::from_secs(60),
            timeout: Duration::from_millis(50),
            connect_timeout: Duration::from_secs(1),
            waiting_max: 1_024,
            floor_accounts_max: 1_048_576,
            read_accounts_max: 65_536,
            write_behind_max: 16_384,
            breaker: BreakerSettings::default(),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Settings")
            .field("url", &self.url.as_ref().map(|_| "(secret)"))
            .field("ca_file", &self.ca_file)
            .field("ttl", &self.ttl)
            .field("timeout", &self.timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("waiting_max", &self.waiting_max)
            .field("floor_accounts_max", &self.floor_accounts_max)
            .field("read_accounts_max", &self.read_accounts_max)
            .field("write_behind_max", &self.write_behind_max)
            .field("breaker", &self.breaker)
            .finish()
    }
}

/// Settings that cannot work. Nothing was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheError {
    /// The URL is not one of Redis; it is not repeated here, it holds a secret.
    InvalidUrl,
    /// The file of authorities cannot be used, and why.
    CaFile(PathBuf, String),
    /// This machine trusts nobody, and no file was named.
    Roots(String),
}

impl fmt::Display for CacheError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidUrl => formatter.write_str(
                "the Redis URL is not of the form redis://[user:password@]host:port[/db]",
            ),
            Self::CaFile(path, why) => {
                write!(
                    formatter,
                    "the file of authorities {}: {why}",
                    path.display()
                )
            }
            Self::Roots(why) => write!(
                formatter,
                "no authorities to check Redis' certificate by: {why}; for Redis alone, --redis-ca-file"
            ),
        }
    }
}

impl std::error::Error for CacheError {}
