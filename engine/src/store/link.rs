//! A connection of its own for a command that runs once.
//!
//! Owns: opening and closing the connection of `migrate`, `maintain` and
//! `verify`, and the lock under which the schema may change.
//! Never: pools, retries, or shows a URL (it may hold a password).
//! Bound: `CONNECT_TIMEOUT` to connect, the caller's wait to get the lock.
//! Invariant: at most one session per database holds the schema lock; it goes
//! with the session, so a killed command leaves nothing behind.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use pgtls::{Database, TlsError, UrlError};
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::error::SqlState;

use super::route::{Route, Target};

/// How long one host may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The advisory lock of whoever changes the schema or its partitions: the
/// letters "ledger" as a number, so that a person finds it in `pg_locks`.
const SCHEMA_LOCK: i64 = 0x6C65_6467_6572;

/// The advisory lock of whoever builds indexes on it: the letters "index".
const INDEX_LOCK: i64 = 0x69_6E64_6578;

const ASSUME_OWNER: &str = include_str!("../../../sql/queries/assume_owner.sql");

/// An open connection and the task that drives it.
#[derive(Debug)]
pub struct Link {
    /// To talk through.
    pub client: Client,
    driver: JoinHandle<()>,
}

impl Link {
    /// Connects to `url` (`postgres://...` or `host=... user=...`). Of several hosts
    /// the first that takes writes, else the first that answers.
    ///
    /// # Errors
    /// [`LinkError`] says which part of the URL to look at.
    pub async fn open(url: &str) -> Result<Self, LinkError> {
        let mut database: Database = url.parse().map_err(LinkError::InvalidUrl)?;
        let (targets, _) = Route::direct(database.clone()).targets().await;
        let asked_for = database.config.get_target_session_attrs();
        let mut failed = None;
        if 1 < targets.len() {
            let read_write = TargetSessionAttrs::ReadWrite;
            database.config.target_session_attrs(read_write);
            for target in &targets {
                match Self::connect(target, &database).await {
                    Ok(link) => return Ok(link),
                    Err(error) => failed = Some(error),
                }
            }
        }
        database.config.target_session_attrs(asked_for);
        for target in &targets {
            match Self::connect(target, &database).await {
                Ok(link) => return Ok(link),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or(LinkError::NoAddress))
    }

    /// Connects to the server that takes writes, as far as the lookout knows.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn to_primary(route: &Route) -> Result<Self, LinkError> {
        let (targets, _) = route.targets().await;
        let target = targets.first().ok_or(LinkError::NoAddress)?;
        Self::connect(target, route.database()).await
    }

    async fn connect(target: &Target, database: &Database) -> Result<Self, LinkError> {
        let mut config = target.narrow(database);
        config.connect_timeout(CONNECT_TIMEOUT);
        if config.get_application_name().is_none() {
            config.application_name("engine");
        }
        // The time to connect does not count the sign-in: a server that is stopped
        // accepts connections and says nothing.
        let connected = database.tls.connect(&config);
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connected).await;
        let connected = connected.map_err(|_elapsed| LinkError::Silent(CONNECT_TIMEOUT))?;
        let (client, connection) = connected.map_err(LinkError::of)?;
        let driver = tokio::spawn(async move {
            // A broken link fails the statement that waits on it, with the reason.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
        Ok(Self { client, driver })
    }

    /// Takes the schema lock, waiting at most `wait`; it is held until the link
    /// closes. Needs a direct connection: a pooler in transaction mode would
    /// leave the lock with a session that serves strangers.
    ///
    /// # Errors
    /// [`LockError::Held`] when another session kept it.
    pub async fn lock_schema(&self, wait: Duration) -> Result<(), LockError> {
        // Zero would mean "for ever".
        let wait_ms = wait.as_millis().clamp(1, 86_400_000);
        self.client
            .batch_execute(&format!(
                "SET lock_timeout = {wait_ms}; SET statement_timeout = 0"
            ))
            .await
            .map_err(LockError::Database)?;
        match self
            .client
            .execute("SELECT pg_advisory_lock($1)", &[&SCHEMA_LOCK])
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                Err(LockError::Held { wait })
            }
            Err(error) => Err(LockError::Database(error)),
        }
    }

    /// Gives the schema lock back while the link stays open.
    ///
    /// # Errors
    /// What the database said.
    pub async fn unlock_schema(&self) -> Result<(), tokio_postgres::Error> {
        self.client
            .execute("SELECT pg_advisory_unlock($1)", &[&SCHEMA_LOCK])
            .await
            .map(drop)
    }

    /// Takes the lock of whoever builds indexes, and gives each later lock `wait`
    /// from here on. False: another session builds. Never queues: a concurrent
    /// build would wait for whoever does, and that one for the build.
    ///
    /// # Errors
    /// What the database said.
    pub async fn try_lock_indexes(&self, wait: Duration) -> Result<bool, tokio_postgres::Error> {
        let wait_ms = wait.as_millis().clamp(1, 86_400_000);
        self.client
            .batch_execute(&format!("SET lock_timeout = {wait_ms}"))
            .await?;
        self.client
            .query_one("SELECT pg_try_advisory_lock($1)", &[&INDEX_LOCK])
            .await?
            .try_get(0)
    }

    /// Acts as the role that owns the ledger, so that what a superuser or another
    /// member makes belongs to it too. Does nothing where there is no ledger yet.
    ///
    /// # Errors
    /// 42501 when the role may not act as the owner.
    pub async fn assume_owner(&self) -> Result<(), tokio_postgres::Error> {
        self.client.execute(ASSUME_OWNER, &[]).await.map(drop)
    }

    /// Says goodbye and waits until it is said.
    pub async fn close(self) {
        drop(self.client);
        if let Err(error) = self.driver.await {
            tracing::debug!(%error, "connection driver stopped");
        }
    }
}

/// Why the schema lock was not had. Nothing was written.
#[derive(Debug)]
pub enum LockError {
    /// Another session changes the schema and did not end within the wait.
    Held {
        /// How long this one waited.
        wait: Duration,
    },
    /// The database refused, or the link broke.
    Database(tokio_postgres::Error),
}

/// Why there is no connection. Nothing was written.
#[derive(Debug)]
pub enum LinkError {
    /// The URL cannot be read, or not the authorities that it names.
    InvalidUrl(UrlError),
    /// The host's name leads nowhere, or no host is known to take writes.
    NoAddress,
    /// Somebody accepts connections there and says nothing.
    Silent(Duration),
    /// Nobody answers at that host and port.
    Unreachable(tokio_postgres::Error),
    /// Whoever answers does not speak TLS, or shows no good certificate.
    Tls(tokio_postgres::Error),
    /// User or password are refused.
    WrongPassword(tokio_postgres::Error),
    /// The server has no database of that name.
    NoSuchDatabase(tokio_postgres::Error),
    /// The server answered and refused for another reason.
    Refused(tokio_postgres::Error),
}

impl LinkError {
    /// By SQLSTATE: class 28 is about who asks, 3D000 about which database;
    /// without one, nobody spoke PostgreSQL at the other end.
    pub(crate) fn of(error: tokio_postgres::Error) -> Self {
        match error.code() {
            None if is_tls(&error) => Self::Tls(error),
            None => Self::Unreachable(error),
            Some(state) if state.code().starts_with("28") => Self::WrongPassword(error),
            Some(&SqlState::INVALID_CATALOG_NAME) => Self::NoSuchDatabase(error),
            Some(_) => Self::Refused(error),
        }
    }
}

/// Not a connection that broke: a server that stops says nothing about TLS.
fn is_tls(error: &tokio_postgres::Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref());
    source.is_some_and(|error| !matches!(error, TlsError::Io(_)))
}

impl fmt::Display for LinkError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, source) = match self {
            Self::NoAddress => {
                return formatter
                    .write_str("no host of the database URL has an address, or none takes writes");
            }
            Self::Silent(limit) => {
                return write!(
                    formatter,
                    "PostgreSQL says nothing for {limit:?}; check host and port of the database URL, and whether it hangs"
                );
            }
            Self::InvalidUrl(source) => return write!(formatter, "the database URL {source}"),
            Self::Tls(source) => ("no TLS to PostgreSQL", source),
            Self::Unreachable(source) => (
                "PostgreSQL cannot be reached; check host and port of the database URL",
                source,
            ),
            Self::WrongPassword(source) => (
                "PostgreSQL refuses the user or the password of the database URL",
                source,
            ),
            Self::NoSuchDatabase(source) => (
                "the database named in the database URL does not exist",
                source,
            ),
            Self::Refused(source) => ("PostgreSQL refuses the connection", source),
        };
        write!(formatter, "{text}: {}", Reason(source))
    }
}

impl Error for LinkError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::NoAddress | Self::Silent(_) => None,
            Self::InvalidUrl(source) => Some(source),
            Self::Tls(source)
            | Self::Unreachable(source)
            | Self::WrongPassword(source)
            | Self::NoSuchDatabase(source)
            | Self::Refused(source) => Some(source),
        }
    }
}

/// A database error in the server's own words: tokio-postgres shows only "db
/// error" and leaves the rest to its source.
#[derive(Debug)]
pub(crate) struct Reason<'a>(pub(crate) &'a tokio_postgres::Error);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.as_db_error(), self.0.source()) {
            (Some(db), _) => write!(formatter, "{} ({})", db.message(), db.code().code()),
            (None, Some(source)) => fmt::Display::fmt(source, formatter),
            (None, None) => fmt::Display::fmt(self.0, formatter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_link_that_cannot_be_opened_says_which_part_of_the_url_to_look_at() {
        assert!(matches!(
            Link::open("not a url").await,
            Err(LinkError::InvalidUrl(_))
        ));
        // Port 1 (tcpmux) has no listener on a machine anyone tests on.
        let error = Link::open("postgres://x:secret@127.0.0.1:1/x").await;
        let Err(error @ LinkError::Unreachable(_)) = error else {
            panic!("{error:?}");
        };
        assert!(error.to_string().contains("host and port"));
        assert!(!error.to_string().contains("secret"));
    }
}
