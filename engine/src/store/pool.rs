//! Connections for everything the engine asks the database outside a commit.
//!
//! Owns: a bounded pool of sessions, their settings, and what they warned of.
//! Never: used by a committer, which owns its connection; never hands on a
//! session that still has a statement or a transaction open.
//! Bound: `connections_max` sessions; every wait, connect and statement has a
//! time limit, and `operation_timeout` is above them all.
//! Invariant: a session is in the pool only if nothing is in flight on it.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool::managed::{
    Manager, Metrics, Object, Pool, PoolError, RecycleError, RecycleResult, TimeoutType, Timeouts,
};
use deadpool_postgres::ClientWrapper;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::error::Severity;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Connection, NoTls, Row};

use super::read::{ReadError, TimeoutAt};

/// How reads reach the database, and their limits.
#[derive(Clone, Debug)]
pub struct ReadSettings {
    /// Where. Session options are appended, and only a writable server is
    /// accepted: a standby would answer with the past.
    pub database: tokio_postgres::Config,
    /// Shown in `pg_stat_activity`. Default `engine-read`.
    pub application_name: String,
    /// Sessions at most. Default 8: reads are short, and each session costs the
    /// server some 10 MB; the committers need its processors more.
    pub connections_max: usize,
    /// Waiting for a free session. Default 2 s.
    pub connection_wait_max: Duration,
    /// Opening a session, sign-in included. Default 3 s.
    pub connect_timeout: Duration,
    /// One statement, cut off by the server. Default 5 s.
    pub statement_timeout: Duration,
    /// Waiting for a lock in the server. Default 2 s.
    pub lock_timeout: Duration,
    /// One call of [`super::read::Reader`], whatever hangs. Default 8 s, below
    /// the default request deadline of 10 s.
    pub operation_timeout: Duration,
    /// Rows of one account's chain that one page of history may step over.
    /// Default 20,000: 0.06 s when all of them are cached (EXPLAIN ANALYZE over
    /// the ledger of `suite/reads/plans.rs`, 2 cores, 2026-11-21), and within
    /// `statement_timeout` when each is a random read of 0.2 ms.
    pub walk_rows_max: u32,
}

impl ReadSettings {
    /// The defaults, for that database.
    #[must_use]
    pub fn new(database: tokio_postgres::Config) -> Self {
        Self {
            database,
            application_name: "engine-read".to_owned(),
            connections_max: 8,
            connection_wait_max: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(3),
            statement_timeout: Duration::from_secs(5),
            lock_timeout: Duration::from_secs(2),
            operation_timeout: Duration::from_secs(8),
            walk_rows_max: 20_000,
        }
    }

    /// The session settings, as a start-up option string.
    ///
    /// At start-up and not by `SET`: a pooler in transaction mode would lose a
    /// `SET`, but refuses unknown start-up options with an error.
    #[must_use]
    pub fn session_options(&self) -> String {
        // Plans are made once per session, perhaps while the tables are empty,
        // and must be right when they are not: every query here is answered by
        // an index, nothing else is ever wanted.
        format!(
            "-c statement_timeout={} -c lock_timeout={} \
             -c idle_in_transaction_session_timeout={} \
             -c plan_cache_mode=force_generic_plan -c enable_seqscan=off \
             -c enable_bitmapscan=off -c enable_hashjoin=off \
             -c enable_mergejoin=off -c jit=off",
            self.statement_timeout.as_millis(),
            self.lock_timeout.as_millis(),
            self.operation_timeout.as_millis(),
        )
    }

    fn session_config(&self) -> tokio_postgres::Config {
        let mut config = self.database.clone();
        let options = config
            .get_options()
            .map(|given| format!("{given} {}", self.session_options()))
            .unwrap_or_else(|| self.session_options());
        config
            .options(options)
            .application_name(&self.application_name)
            .connect_timeout(self.connect_timeout)
            .tcp_user_timeout(self.operation_timeout)
            .target_session_attrs(TargetSessionAttrs::ReadWrite);
        config
    }
}

/// How busy the pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolStatus {
    /// Sessions at most.
    pub size_max: usize,
    /// Sessions open, in use or not.
    pub size: usize,
    /// Of those, free.
    pub available: usize,
    /// Callers waiting for one.
    pub waiting: usize,
}

/// The pool. Cheap to clone.
#[derive(Clone)]
pub(super) struct Sessions {
    pool: Pool<SessionManager>,
    connection_wait_max: Duration,
    operation_timeout: Duration,
}

impl Sessions {
    /// Opens nothing yet: the database may be down.
    pub(super) fn new(settings: &ReadSettings) -> Self {
        let pool = Pool::builder(SessionManager {
            config: settings.session_config(),
        })
        // A pool of none would answer every call with a time-out.
        .max_size(settings.connections_max.max(1))
        .timeouts(Timeouts {
            wait: Some(settings.connection_wait_max),
            create: Some(settings.connect_timeout),
            recycle: Some(settings.connect_timeout),
        })
        .runtime(deadpool::Runtime::Tokio1)
        .build()
        .expect("building fails only for time-outs without a runtime, and one is given");
        Self {
            pool,
            connection_wait_max: settings.connection_wait_max,
            operation_timeout: settings.operation_timeout,
        }
    }

    pub(super) fn status(&self) -> PoolStatus {
        let status = self.pool.status();
        PoolStatus {
            size_max: status.max_size,
            size: status.size,
            available: status.available,
            waiting: status.waiting,
        }
    }

    /// Closes the pool: calls that wait, and later ones, are unavailable.
    pub(super) fn close(&self) {
        self.pool.close();
    }

    /// Takes a session, to be given back by dropping it.
    pub(super) async fn lease(&self) -> Result<Lease, ReadError> {
        let session = self.pool.get().await.map_err(|error| match error {
            PoolError::Timeout(TimeoutType::Wait) => ReadError::PoolExhausted {
                waited: self.connection_wait_max,
            },
            PoolError::Timeout(TimeoutType::Create | TimeoutType::Recycle) => {
                ReadError::Timeout(TimeoutAt::Connect)
            }
            PoolError::Backend(source) => ReadError::from_database(source),
            PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
                ReadError::Unavailable { source: None }
            }
        })?;
        Ok(Lease {
            session: Some(session),
            state: LeaseState::Idle,
        })
    }

    /// Cuts work off at `operation_timeout`: a server that is stopped, or a
    /// network that swallows packets, answers no `statement_timeout` either.
    /// The lease is dropped with the work, and its session with the lease.
    pub(super) async fn bounded<T, E: From<ReadError>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        tokio::time::timeout(self.operation_timeout, work)
            .await
            .unwrap_or_else(|_elapsed| Err(ReadError::Timeout(TimeoutAt::Operation).into()))
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The manager holds a password.
        formatter
            .debug_tuple("Sessions")
            .field(&self.status())
            .finish()
    }
}

/// Parameters of a statement.
pub(super) type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Parameters with their types, of a statement that is not prepared.
pub(super) type TypedParameters<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeaseState {
    Idle,
    /// A statement is in flight, or one failed.
    Busy,
    InTransaction,
}

/// A session in use. Dropped idle, it returns to the pool; dropped otherwise
/// (an error, a time-out, a caller that left) it is closed, so that nobody
/// waits behind a stranger's statement or inside its transaction.
pub(super) struct Lease {
    /// Taken only by `Drop`.
    session: Option<Object<SessionManager>>,
    state: LeaseState,
}

impl Lease {
    fn session(&self) -> &Session {
        self.session
            .as_ref()
            .expect("the session is taken out only when the lease is dropped")
    }

    async fn run<T>(
        &mut self,
        after: LeaseState,
        work: impl AsyncFnOnce(&ClientWrapper) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, ReadError> {
        self.state = LeaseState::Busy;
        let result = work(&self.session().client).await;
        if result.is_ok() {
            self.state = after;
        }
        result.map_err(ReadError::from_database)
    }

    /// Runs a prepared statement; outside a transaction it is one of its own.
    pub(super) async fn rows(
        &mut self,
        sql: &'static str,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, ReadError> {
        self.run(self.state, async |client| {
            let statement = client.prepare_cached(sql).await?;
            client.query(&statement, parameters).await
        })
        .await
    }

    /// As [`Self::rows`], for at most one row.
    pub(super) async fn row(
        &mut self,
        sql: &'static str,
        parameters: Parameters<'_>,
    ) -> Result<Option<Row>, ReadError> {
        Ok(self.rows(sql, parameters).await?.pop())
    }

    /// Runs a statement whose text is made for the occasion and not kept.
    pub(super) async fn row_once(
        &mut self,
        sql: &str,
        parameters: TypedParameters<'_>,
    ) -> Result<Option<Row>, ReadError> {
        self.run(self.state, async |client| {
            client.query_typed(sql, parameters).await
        })
        .await
        .map(|mut rows| rows.pop())
    }

    pub(super) async fn begin(&mut self) -> Result<(), ReadError> {
        self.run(LeaseState::InTransaction, async |client| {
            client
                .batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED")
                .await
        })
        .await
    }

    pub(super) async fn rollback(&mut self) -> Result<(), ReadError> {
        self.run(LeaseState::Idle, async |client| {
            client.batch_execute("ROLLBACK").await
        })
        .await
    }

    /// Commits. Every statement before it was seen to succeed, so that COMMIT
    /// cannot quietly answer ROLLBACK.
    ///
    /// An error leaves the outcome unknown.
    pub(super) async fn commit(&mut self) -> Result<(), ReadError> {
        self.unwarned(async |lease| {
            lease
                .run(LeaseState::Idle, async |client| {
                    client.batch_execute("COMMIT").await
                })
                .await
        })
        .await
    }

    /// Runs work that commits, and takes any warning as an error: a cancelled
    /// wait for a standby ends in a commit that only this server has.
    pub(super) async fn unwarned<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Self) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let warnings = Arc::clone(&self.session().warnings);
        let before = warnings.load(Ordering::Acquire);
        let result = work(self).await?;
        // The task that reads the socket counts a warning before it passes on
        // the answer that follows it.
        if warnings.load(Ordering::Acquire) == before {
            Ok(result)
        } else {
            Err(ReadError::NotDurable)
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.state != LeaseState::Idle
            && let Some(session) = self.session.take()
        {
            drop(Object::take(session));
        }
    }
}

/// One connection.
struct Session {
    client: ClientWrapper,
    /// Written by the task that reads the socket; lives as long as either end.
    warnings: Arc<AtomicU64>,
}

/// Makes sessions. deadpool-postgres' own manager throws notices away.
struct SessionManager {
    config: tokio_postgres::Config,
}

impl Manager for SessionManager {
    type Type = Session;
    type Error = tokio_postgres::Error;

    async fn create(&self) -> Result<Session, tokio_postgres::Error> {
        let (client, connection) = self.config.connect(NoTls).await?;
        let warnings = Arc::new(AtomicU64::new(0));
        // Ends with the client: ClientWrapper aborts it when dropped.
        let reader = tokio::spawn(read_socket(connection, Arc::clone(&warnings)));
        Ok(Session {
            client: ClientWrapper::new(client, reader),
            warnings,
        })
    }

    async fn recycle(
        &self,
        session: &mut Session,
        _metrics: &Metrics,
    ) -> RecycleResult<tokio_postgres::Error> {
        // No statement: it would be a round trip for every read. A session that
        // died unnoticed fails its next statement and is closed then.
        if session.client.is_closed() {
            return Err(RecycleError::message("the connection is closed"));
        }
        Ok(())
    }
}

async fn read_socket<S, T>(mut connection: Connection<S, T>, warnings: Arc<AtomicU64>)
where
    Connection<S, T>: Unpin,
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    loop {
        match std::future::poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notice(notice))) => {
                let harmless = matches!(
                    notice.parsed_severity(),
                    Some(Severity::Notice | Severity::Info | Severity::Log | Severity::Debug)
                );
                if !harmless {
                    warnings.fetch_add(1, Ordering::Release);
                }
            }
            Some(Ok(_notification)) => {}
            // Whoever has a statement in flight is told; nobody else needs to be.
            Some(Err(_)) | None => return,
        }
    }
}
