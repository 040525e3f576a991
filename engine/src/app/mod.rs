//! The engine put together: which room is given what, who starts before whom,
//! and who stops before whom.
//!
//! Owns: the order of starting and stopping, and the wiring between rooms.
//! Never: decides anything a room decides.
//! Bound: a stop takes `shutdown_grace` at most.
//! Invariant: nothing is accepted before everything it needs is there, and
//! whatever was accepted is answered before what it needs is gone.

mod ledger;
mod observe;
mod probes;

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{Stream, StreamExt as _};
use pgtls::{Database, RootsError, UrlError};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;
use uuid::Uuid;

use crate::admin::{self, Heartbeat, Readiness};
use crate::admission::{Admission, AdmissionSettings};
use crate::batch::{BatchSettings, Committers, Policy};
use crate::cache::{Balances, CacheError};
use crate::clock::Clock;
use crate::config::{self, AccessLog, DatabaseUrl, LogFormat, ServeConfig};
use crate::entropy::Entropy;
use crate::http::{self, Stopping};
use crate::lock_queue::{BatchLimits, LockQueue};
use crate::store::commit::{
    CommitSession, CommitSettings, OpenError, demand_sync_standby, session_parameters,
};
use crate::store::link::{Link, LinkError};
use crate::store::migrate::{Fit, SchemaError, check_schema};
use crate::store::read::{ReadSettings, Reader};
use crate::store::route::{self, Lookout, LookoutSettings, Route};
use crate::store::wire::SessionSettings;
use crate::supervisor::Supervisor;
use crate::telemetry::{self, access_log, exporter, logs, metrics};

use ledger::EngineLedger;
use observe::{Batches, History, Requests};

/// Connections the kernel completes before we accept them: a reconnecting fleet.
const LISTEN_BACKLOG: u32 = 4_096;
/// Files that are neither a client's nor a session's: listeners, the runtimes' own,
/// logs, Redis, scrapes and health checks, clients being told that there is no room.
const OTHER_FILES: usize = 192;
/// Ready transfers that justify a second commit beside one in flight: fewer cost
/// more fixed work than they save waiting. On 2 cores (2026-11-21, `loadtest run`
/// at 1,024 connections, three rounds) 128 gave 36k/s, 512 gave 26 to 34k/s and 1
/// gave 35k/s, while at 64 connections 1 lost a tenth against both.
const PARALLEL_TRANSFERS_MIN: usize = 128;
/// First wait after a failed attempt.
const BACKOFF_MIN: Duration = Duration::from_millis(5);
/// The server ends a statement at `statement_timeout`; silence for this much
/// longer means that the server, or the way to it, is gone.
const SILENCE_MARGIN: Duration = Duration::from_secs(2);
/// A replica that has no session free by then is busier than the primary.
const REPLICA_WAIT_MAX: Duration = Duration::from_millis(250);
/// For the last lines of the access log.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// Why an engine did not start, or did not stop in order.
#[derive(Debug)]
pub enum AppError {
    /// A database URL, of the form that `config` accepted, or a file that it names,
    /// cannot be used.
    DatabaseUrl(String),
    /// An address cannot be listened on.
    Listen {
        /// Which setting names it.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The database cannot be reached.
    Link(LinkError),
    /// A pooler answers in the database's place.
    Pooler(OpenError),
    /// The schema is not this engine's.
    Schema(SchemaError),
    /// The Redis URL cannot be used.
    Cache(CacheError),
    /// The log, the access log or the admin thread cannot be started.
    Thread(std::io::Error),
    /// A task failed while serving, or did not end in time.
    Tasks(Vec<&'static str>),
}

impl AppError {
    /// Whether something outside the engine is amiss, rather than its settings.
    #[must_use]
    pub const fn is_unavailable(&self) -> bool {
        match self {
            Self::Link(_) | Self::Pooler(_) | Self::Listen { .. } => true,
            Self::Schema(_) => true,
            Self::DatabaseUrl(_) | Self::Cache(_) | Self::Thread(_) | Self::Tasks(_) => false,
        }
    }

    /// Whether a setting is at fault.
    #[must_use]
    pub const fn is_configuration(&self) -> bool {
        matches!(self, Self::DatabaseUrl(_) | Self::Cache(_))
    }
}

impl fmt::Display for AppError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DatabaseUrl(why) => write!(formatter, "--database-url {why}"),
            Self::Listen {
                setting,
                address,
                source,
            } => {
                write!(
                    formatter,
                    "{setting} {address}: {source}; choose another address or stop who has it"
                )
            }
            Self::Link(source) => write!(formatter, "--database-url: {source}"),
            Self::Pooler(source) => source.fmt(formatter),
            Self::Schema(source) => source.fmt(formatter),
            Self::Cache(source) => write!(formatter, "--redis-url: {source}"),
            Self::Thread(source) => write!(formatter, "start a thread: {source}"),
            Self::Tasks(names) => write!(formatter, "did not end in order: {}", names.join(", ")),
        }
    }
}

impl std::error::Error for AppError {}

/// Serves until `stop` asks to stop and everything accepted is answered. Asked
/// again, or with nobody left to ask, it cuts `shutdown_delay` short.
///
/// # Errors
/// [`AppError`]; before anything was accepted, or with every caller answered.
pub async fn serve(
    config: &ServeConfig,
    mut stop: impl Stream<Item = ()> + Unpin + Send,
) -> Result<(), AppError> {
    let engine = Engine::start(config).await?;
    let commits = commit(engine.committers.clone(), engine.supervisor.clone());
    let life = async {
        let mut shutdown = engine.supervisor.shutdown();
        tokio::select! {
            _ = stop.next() => tracing::info!("stopping: asked to"),
            () = shutdown.requested() => tracing::error!("stopping: a task failed"),
        }
        let admission = &config.tuning.admission;
        let hurry = async {
            tokio::select! {
                _ = stop.next() => tracing::info!("asked again, the shutdown delay is over"),
                () = shutdown.requested() => {}
                () = tokio::time::sleep(admission.shutdown_delay) => {}
            }
        };
        engine.stop(admission.shutdown_grace, hurry).await
    };
    tokio::select! {
        biased;
        never = commits => match never {},
        ended = life => ended,
    }
}

/// The committers' work; it has no end of its own, the engine's stop ends it.
///
/// On one thread it is part of the future that the runtime was given to run, which
/// it polls before any task: commits go on at full speed while thousands of
/// requests wait to be refused. On several they are tasks: that future is polled
/// outside the scheduler, where giving way to others has no effect.
async fn commit(committers: Committers, supervisor: Supervisor) -> Infallible {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        let tasks = committers.tasks();
        join_all(tasks.map(|task| supervisor.attend("committer", task))).await;
    } else {
        for task in committers.tasks() {
            supervisor.spawn("committer", task);
        }
    }
    std::future::pending().await
}

#[derive(Debug)]
struct Engine {
    supervisor: Supervisor,
    readiness: Arc<Readiness>,
    admission: Admission,
    committers: Committers,
    balances: Balances,
    reader: Reader,
    admin: admin::AdminHandle,
    requests: Arc<telemetry::Observer>,
    http: HttpTask,
}

impl Engine {
    async fn start(config: &ServeConfig) -> Result<Self, AppError> {
        let clock = Clock::System;
        let metrics = metrics::get();
        let supervisor = Supervisor::new();
        let readiness = Arc::new(Readiness::new(admin::ReadinessSettings::default()));
        let listener = listen("--listen", config.tuning.network.listen)?;
        let database = load(&config.database_url)?;
        let (primary, replica, outlook) = watch_database(config, database, &supervisor)?;
        check_database(config, &primary).await?;
        let reader = new_reader(config, primary.clone(), replica, clock.clone());
        let balances = start_cache(config, &supervisor)?;
        let history = Arc::new(History::new(balances.clone(), reader.clone()));
        let batches = Batches::new(
            metrics,
            balances.clone(),
            Arc::clone(&readiness),
            Arc::clone(&history),
        );
        let committers = new_committers(config, primary.clone(), Arc::new(batches));
        let admission = Admission::new(
            admission_settings(config),
            committers.clone(),
            clock.clone(),
        );
        let requests = Arc::new(observer(config, metrics, clock.clone())?);
        let ledger = EngineLedger::new(
            admission.clone(),
            balances.clone(),
            reader.clone(),
            Arc::clone(&readiness),
        );
        let edge = Arc::new(http::Edge::new(
            edge_settings(config),
            ledger,
            Requests::new(metrics, Arc::clone(&requests)),
            clock,
            random(),
        ));
        probes::watch_bodies(Arc::clone(&edge));
        probes::Probes {
            committers: committers.clone(),
            admission: admission.clone(),
            balances: balances.clone(),
            reader: reader.clone(),
            history,
            readiness: Arc::clone(&readiness),
            route: primary,
            outlook,
            durability: durability(config),
        }
        .start(&supervisor, metrics);
        let admin = start_admin(config, &readiness, &supervisor)?;
        let address = listener.local_addr().map_err(AppError::Thread)?;
        let http = start_http(&supervisor, edge, listener);
        tracing::info!(%address, admin = %admin.address(), "serving");
        Ok(Self {
            supervisor,
            readiness,
            admission,
            committers,
            balances,
            reader,
            admin,
            requests,
            http,
        })
    }

    /// Not ready, clients asked to leave until `left`, no new connections, requests
    /// in flight answered, queue empty, sessions closed, logs flushed: in that order.
    async fn stop(
        mut self,
        grace: Duration,
        left: impl Future<Output = ()>,
    ) -> Result<(), AppError> {
        let started = tokio::time::Instant::now();
        self.readiness.set_draining();
        self.http.stop.send_replace(Stopping::Leaving);
        left.await;
        self.http.stop.send_replace(Stopping::Closing);
        // An error means that its task is gone: nothing is left to wait for.
        let drained = tokio::time::timeout(grace.saturating_sub(started.elapsed()), async {
            self.http.ended.wait_for(|ended| *ended).await.map(drop)
        })
        .await;
        if drained.is_err() {
            tracing::warn!("shutdown grace is over, connections are cut");
        }
        self.admission.drain();
        self.committers.drain();
        self.balances.close();
        self.supervisor.stop();
        let left = grace.saturating_sub(started.elapsed()).max(FLUSH_MAX);
        let finished = self.supervisor.finish(left).await;
        self.reader.close();
        let (access_log, admin) = (self.requests.stop(FLUSH_MAX), self.admin.stop(FLUSH_MAX));
        tracing::info!(?access_log, ?admin, "stopped");
        if finished.failed || !finished.ended.is_empty() {
            return Err(AppError::Tasks(finished.ended));
        }
        Ok(())
    }
}

/// The listener's task.
#[derive(Debug)]
struct HttpTask {
    stop: watch::Sender<Stopping>,
    ended: watch::Receiver<bool>,
}

fn start_http(
    supervisor: &Supervisor,
    edge: Arc<http::Edge<EngineLedger, Requests>>,
    listener: TcpListener,
) -> HttpTask {
    let (stop, stopped) = watch::channel(Stopping::No);
    let (ends, ended) = watch::channel(false);
    supervisor.spawn("http", async move {
        http::serve(edge, listener, stopped).await;
        ends.send_replace(true);
    });
    HttpTask { stop, ended }
}

fn start_cache(config: &ServeConfig, supervisor: &Supervisor) -> Result<Balances, AppError> {
    let balances =
        Balances::new(&cache_settings(config), Clock::System, random()).map_err(AppError::Cache)?;
    for (name, task) in balances.tasks() {
        supervisor.spawn(name, task);
    }
    Ok(balances)
}

fn listen(setting: &'static str, address: SocketAddr) -> Result<TcpListener, AppError> {
    let open = || {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(LISTEN_BACKLOG)
    };
    open().map_err(|source| AppError::Listen {
        setting,
        address,
        source,
    })
}

/// From here on it is known which server takes writes, and which replica follows.
fn watch_database(
    config: &ServeConfig,
    database: Database,
    supervisor: &Supervisor,
) -> Result<(Route, Route, watch::Receiver<route::Outlook>), AppError> {
    let (lookout, primary, replica) = Lookout::new(lookout_settings(config, database)?);
    let outlook = lookout.outlook();
    supervisor.spawn_loop("lookout", lookout.run());
    Ok((primary, replica, outlook))
}

fn new_reader(config: &ServeConfig, primary: Route, replica: Route, clock: Clock) -> Reader {
    let reader = Reader::connect(&read_settings(config, primary), clock);
    if config.database_read_url.is_none() {
        return reader;
    }
    reader.with_replica(&replica_settings(config, replica))
}

/// Reachable, the password right, no pooler, the schema known.
async fn check_database(config: &ServeConfig, route: &Route) -> Result<(), AppError> {
    // Whichever takes writes; if none does, whoever answers can tell the rest.
    let limit = config.tuning.database.database_connect_timeout;
    drop(tokio::time::timeout(limit, route.some_target()).await);
    let link = match Link::to_primary(route).await {
        Ok(link) => link,
        Err(_) => Link::open(config.database_url.expose())
            .await
            .map_err(AppError::Link)?,
    };
    // Before the schema, for a pooler can make that look wrong. Only a pooler
    // keeps the engine from starting: what else a committer would meet may be
    // mended while the engine runs and answers what it can.
    let way = if route.leads_somewhere() {
        route.clone()
    } else {
        // A pooler may not even let the lookout in, and says why to who asks.
        Route::direct(route.database().clone())
    };
    let session = CommitSession::open(&batch_settings(config, way).commit).await;
    if let Err(error @ OpenError::Pooler(_)) = session {
        return Err(AppError::Pooler(error));
    }
    drop(session);
    let checked = check_schema(&link.client).await.map_err(AppError::Schema);
    link.close().await;
    match checked? {
        Fit::Own => {}
        Fit::OneNewer => tracing::warn!("the schema is one version newer, as in a rollback"),
    }
    Ok(())
}

fn start_admin(
    config: &ServeConfig,
    readiness: &Arc<Readiness>,
    supervisor: &Supervisor,
) -> Result<admin::AdminHandle, AppError> {
    let heartbeat = Arc::new(Heartbeat::new());
    let beating = Arc::clone(&heartbeat);
    supervisor.spawn_loop("heartbeat", async move { beating.run().await });
    let address = config.tuning.network.admin_listen;
    let listener = std::net::TcpListener::bind(address).map_err(|source| AppError::Listen {
        setting: "--admin-listen",
        address,
        source,
    })?;
    let sources = admin::Sources {
        exporter: exporter::global(),
        readiness: Arc::clone(readiness),
        heartbeat,
    };
    admin::start(listener, admin::Settings::default(), sources).map_err(AppError::Thread)
}

fn new_committers(config: &ServeConfig, route: Route, observer: Arc<Batches>) -> Committers {
    Committers::new(
        LockQueue::new(batch_limits(config)),
        batch_settings(config, route),
        observer,
        Clock::System,
    )
}

fn observer(
    config: &ServeConfig,
    metrics: &'static metrics::Metrics,
    clock: Clock,
) -> Result<telemetry::Observer, AppError> {
    let settings = access_log::Settings {
        mode: match config.tuning.network.access_log {
            AccessLog::Off => access_log::AccessLogMode::Off,
            AccessLog::Errors => access_log::AccessLogMode::Errors,
            AccessLog::All => access_log::AccessLogMode::All,
        },
        format: log_format(config),
        ..access_log::Settings::default()
    };
    let log = access_log::AccessLog::start(
        settings,
        clock.clone(),
        Box::new(std::io::stdout()),
        metrics.engine.access_log_lines.clone(),
        metrics.engine.access_log_dropped.clone(),
    )
    .map_err(AppError::Thread)?;
    Ok(telemetry::Observer::new(metrics, log, clock))
}

/// The process's log, as configured; keep the guard until the process ends.
///
/// # Errors
/// [`logs::LogError`], also when a log is there already.
pub fn start_log(config: &ServeConfig) -> Result<logs::LogGuard, logs::LogError> {
    let settings = logs::Settings {
        format: log_format(config),
        filter: config.tuning.log.log_level.as_str().to_owned(),
        ..logs::Settings::default()
    };
    logs::init(
        &settings,
        Clock::System,
        metrics::get().engine.log_dropped.clone(),
    )
}

fn admission_settings(config: &ServeConfig) -> AdmissionSettings {
    let depth = config.tuning.admission.queue_depth_max;
    AdmissionSettings {
        queue_depth_max: usize::try_from(depth).unwrap_or(usize::MAX),
    }
}

const fn log_format(config: &ServeConfig) -> access_log::LogFormat {
    match config.tuning.log.log_format {
        LogFormat::Text => access_log::LogFormat::Text,
        LogFormat::Json => access_log::LogFormat::Json,
    }
}

fn batch_limits(config: &ServeConfig) -> BatchLimits {
    let batch = &config.tuning.batch;
    BatchLimits {
        transfers_max: usize::try_from(batch.batch_transfers_max).unwrap_or(usize::MAX),
        accounts_max: usize::try_from(batch.batch_accounts_max).unwrap_or(usize::MAX),
    }
}

fn batch_settings(config: &ServeConfig, route: Route) -> BatchSettings {
    let (batch, limits) = (&config.tuning.batch, &config.tuning.database);
    let mut parameters = session_parameters(
        limits.lock_timeout,
        limits.statement_timeout,
        limits.idle_in_transaction_timeout,
    );
    if durability(config) == route::Durability::SyncStandby {
        parameters.push(demand_sync_standby());
    }
    BatchSettings {
        entropy: Entropy::System,
        policy: Policy {
            committers: usize::from(batch.committers),
            parallel_transfers_min: PARALLEL_TRANSFERS_MIN,
        },
        attempts_max: batch.commit_attempts_max,
        backoff_min: BACKOFF_MIN,
        commit: CommitSettings {
            session: SessionSettings {
                route,
                connect_timeout: limits.database_connect_timeout,
                round_trip_timeout: limits.statement_timeout.saturating_add(SILENCE_MARGIN),
                parameters,
            },
            idempotency_retention: config.tuning.admission.idempotency_retention,
            engine_id: Uuid::from_u64_pair(random(), random()),
        },
    }
}

/// With the authorities that it names.
fn load(url: &DatabaseUrl) -> Result<Database, AppError> {
    let address = url.parsed().map_err(AppError::DatabaseUrl)?;
    let unread = |error: RootsError| AppError::DatabaseUrl(UrlError::Roots(error).to_string());
    address.load().map_err(unread)
}

fn durability(config: &ServeConfig) -> route::Durability {
    match config.tuning.database.durability {
        config::Durability::Auto => route::Durability::Auto,
        config::Durability::SyncStandby => route::Durability::SyncStandby,
        config::Durability::Storage => route::Durability::Storage,
        config::Durability::Async => route::Durability::Async,
    }
}

fn lookout_settings(config: &ServeConfig, database: Database) -> Result<LookoutSettings, AppError> {
    let limits = &config.tuning.database;
    let replicas = config.database_read_url.as_ref();
    Ok(LookoutSettings {
        database,
        replicas: replicas.map(load).transpose()?,
        failover_detect: limits.database_failover_detect,
        connect_timeout: limits.database_connect_timeout,
        replica_lag_max: limits.replica_lag_max,
        durability: durability(config),
        resolver: route::Resolver::System,
    })
}

fn replica_settings(config: &ServeConfig, route: Route) -> ReadSettings {
    let settings = read_settings(config, route);
    ReadSettings {
        // A part of the deadline is left for the primary.
        connect_timeout: settings.connect_timeout.min(REPLICA_WAIT_MAX),
        connection_wait_max: settings.connection_wait_max.min(REPLICA_WAIT_MAX),
        statement_timeout: settings.statement_timeout / 2,
        operation_timeout: settings.operation_timeout / 2,
        ..settings
    }
}

fn read_settings(config: &ServeConfig, route: Route) -> ReadSettings {
    let limits = &config.tuning.database;
    let deadline = config.tuning.admission.request_deadline;
    let defaults = ReadSettings::through(route);
    ReadSettings {
        connections_max: usize::from(limits.database_pool_size),
        connect_timeout: limits.database_connect_timeout.min(deadline),
        connection_wait_max: defaults.connection_wait_max.min(deadline),
        statement_timeout: defaults.statement_timeout.min(deadline),
        operation_timeout: defaults.operation_timeout.min(deadline),
        ..defaults
    }
}

fn cache_settings(config: &ServeConfig) -> crate::cache::Settings {
    crate::cache::Settings {
        url: config.redis_url.as_ref().map(|url| url.expose().to_owned()),
        ca_file: config.redis_ca_file.clone(),
        ttl: config.tuning.cache.cache_ttl,
        timeout: config.tuning.cache.cache_timeout,
        ..crate::cache::Settings::default()
    }
}

fn edge_settings(config: &ServeConfig) -> http::Settings {
    let (network, admission) = (&config.tuning.network, &config.tuning.admission);
    let answers_bytes_max = admission.answer_bytes_in_flight_max;
    http::Settings {
        anonymous_principal: Arc::from(network.anonymous_principal.as_str()),
        request_deadline: admission.request_deadline,
        connections_max: connections_max(config),
        bodies_bytes_max: usize::try_from(admission.body_bytes_in_flight_max).unwrap_or(usize::MAX),
        answers_bytes_max: usize::try_from(answers_bytes_max).unwrap_or(usize::MAX),
        header_timeout: network.header_timeout,
        idle_timeout: network.idle_timeout,
        write_timeout: network.write_timeout,
        ..http::Settings::default()
    }
}

/// As configured, or as many as there are files for.
fn connections_max(config: &ServeConfig) -> usize {
    let wanted = usize::try_from(config.tuning.network.connections_max).unwrap_or(usize::MAX);
    // Twice: a session that is being replaced has a successor already.
    let sessions = usize::from(config.tuning.batch.committers)
        .saturating_add(2 * usize::from(config.tuning.database.database_pool_size));
    let reserved = OTHER_FILES.saturating_add(2 * sessions);
    let room = http::make_room(wanted, reserved);
    if room.connections_max < wanted {
        tracing::warn!(
            wanted,
            connections_max = room.connections_max,
            files_max = room.files_max,
            "the limit of open files allows fewer connections than --connections-max: raise it \
             (LimitNOFILE, ulimit -n)"
        );
    }
    room.connections_max
}

/// Tells engines apart; not a secret.
fn random() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    u64::from_le_bytes(bytes)
}
