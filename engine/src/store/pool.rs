//! Connections for everything the engine asks the database outside a commit.
//!
//! Owns: a bounded pool of sessions, their settings, and what they warned of.
//! Never: used by a committer, which owns its connection; never hands on a
//! session that still has a statement or a transaction open.
//! Bound: `connections_max` sessions; every wait, connect and statement has a
//! time limit, and `operation_timeout` is above them all.
//! Invariant: a session is in the pool only if nothing is in flight on it, and
//! leased from it only if it was not forgotten since.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool::managed::{
    Manager, Metrics, Object, Pool, PoolError, RecycleError, RecycleResult, TimeoutType, Timeouts,
};
use deadpool_postgres::ClientWrapper;
use pgtls::MaybeEncrypted;
use tokio_postgres::error::{Severity, SqlState};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Connection, Row, Socket};

use super::read::{ReadError, ReadSettings, TimeoutAt};
use super::route::{Lifeline, Route};

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
    route: Route,
    connection_wait_max: Duration,
    operation_timeout: Duration,
}

impl Sessions {
    /// Opens nothing yet: the database may be down.
    pub(super) fn new(settings: &ReadSettings) -> Self {
        let pool = Pool::builder(SessionManager {
            settings: settings.clone(),
            generation: AtomicU64::new(0),
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
            route: settings.route.clone(),
            connection_wait_max: settings.connection_wait_max,
            operation_timeout: settings.operation_timeout,
        }
    }

    /// Whether these sessions lead to a replica that is not too far behind.
    pub(super) fn is_fresh_replica(&self) -> bool {
        self.route.has_fresh_replica()
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

    /// Closes every session: the idle ones now, those in use instead of leasing
    /// them again. The next call opens one anew.
    pub(super) fn forget(&self) {
        // First: one that comes back between the two must be known as stale.
        self.pool
            .manager()
            .generation
            .fetch_add(1, Ordering::Release);
        drop(self.pool.retain(|_, _| false));
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
            // Waited for a server that takes writes, and none came.
            PoolError::Timeout(TimeoutType::Create) if !self.route.leads_somewhere() => {
                ReadError::Unavailable { source: None }
            }
            PoolError::Timeout(TimeoutType::Create | TimeoutType::Recycle) => {
                ReadError::Timeout(TimeoutAt::Connect)
            }
            PoolError::Backend(Unopened::Database(source)) => ReadError::from_database(source),
            PoolError::Backend(Unopened::Nowhere | Unopened::Left) => {
                ReadError::Unavailable { source: None }
            }
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
    /// A statement is in flight, or failed and left the session in doubt.
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
        let before = self.state;
        self.state = LeaseState::Busy;
        let mut lifeline = self.session().lifeline.clone();
        let result = tokio::select! {
            biased;
            () = lifeline.cut() => return Err(ReadError::Unavailable { source: None }),
            result = work(&self.session().client) => result,
        };
        self.state = match &result {
            Ok(_) => after,
            Err(error) if before == LeaseState::Idle && is_harmless(error) => LeaseState::Idle,
            Err(_) => LeaseState::Busy,
        };
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

/// Whether the session is as good as before: the server refused one statement
/// (a time-out, a lock) and remains. Closing these would answer an overload with
/// a storm of new connections.
fn is_harmless(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|refusal| {
        refusal.parsed_severity() == Some(Severity::Error)
            // A former primary: connect again, to whichever server is it now.
            && *refusal.code() != SqlState::READ_ONLY_SQL_TRANSACTION
    })
}

/// One connection.
struct Session {
    client: ClientWrapper,
    /// Written by the task that reads the socket; lives as long as either end.
    warnings: Arc<AtomicU64>,
    /// The manager's when it began to connect.
    generation: u64,
    /// Cut when its server is left.
    lifeline: Lifeline,
}

/// Why a session was not opened.
#[derive(Debug)]
enum Unopened {
    /// The server, or the way to it.
    Database(tokio_postgres::Error),
    /// No server is known.
    Nowhere,
    /// The server is the one no more.
    Left,
}

impl From<tokio_postgres::Error> for Unopened {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}

/// Makes sessions. deadpool-postgres' own manager throws notices away.
struct SessionManager {
    settings: ReadSettings,
    /// How often the sessions were forgotten.
    generation: AtomicU64,
}

impl SessionManager {
    /// At the first server that takes it.
    async fn connect(
        &self,
    ) -> Result<(Client, Connection<Socket, MaybeEncrypted<Socket>>, Lifeline), Unopened> {
        // Waits for one if there is none; the pool bounds it.
        let (targets, mut lifeline) = self.settings.route.some_target().await;
        let mut failed = Unopened::Nowhere;
        for target in targets {
            let config = self.settings.session_config(&target);
            let connected = tokio::select! {
                connected = self.settings.route.tls().connect(&config) => connected,
                () = lifeline.cut() => return Err(Unopened::Left),
            };
            match connected {
                Ok((client, connection)) => return Ok((client, connection, lifeline)),
                Err(error) => failed = Unopened::Database(error),
            }
        }
        Err(failed)
    }
}

impl Manager for SessionManager {
    type Type = Session;
    type Error = Unopened;

    async fn create(&self) -> Result<Session, Unopened> {
        // Before connecting: what leads to the server of then is stale as well.
        let generation = self.generation.load(Ordering::Acquire);
        let (client, connection, lifeline) = self.connect().await?;
        let warnings = Arc::new(AtomicU64::new(0));
        // Ends with the client: ClientWrapper aborts it when dropped.
        let reader = tokio::spawn(read_socket(connection, Arc::clone(&warnings)));
        // Opening accounts and telling a key's fate promise durability.
        client
            .batch_execute(include_str!("../../../sql/queries/session_durable.sql"))
            .await?;
        Ok(Session {
            client: ClientWrapper::new(client, reader),
            warnings,
            generation,
            lifeline,
        })
    }

    async fn recycle(&self, session: &mut Session, _metrics: &Metrics) -> RecycleResult<Unopened> {
        // No statement: it would be a round trip for every read. A session that
        // died unnoticed fails its next statement and is closed then.
        if session.client.is_closed() {
            return Err(RecycleError::message("the connection is closed"));
        }
        if session.lifeline.is_cut() {
            return Err(RecycleError::message("its server was left"));
        }
        if session.generation != self.generation.load(Ordering::Acquire) {
            return Err(RecycleError::message("the session was forgotten"));
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
