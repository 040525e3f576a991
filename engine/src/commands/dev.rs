//! `engine dev`: private servers, and on them the engine, a command, or both.
//!
//! Owns: the order of starting and stopping, and what people are told.
//! Bound: the engine is awaited [`HEALTHY_WAIT`].
//! Invariant: however it ends short of SIGKILL, the servers are stopped first.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use engine::client::Client;
use engine::config::{DatabaseUrl, DevConfig, DevMode, RedisUrl, ServeConfig};
use engine::dev::{self, DevSettings, Login, Servers, demo};
use futures_util::stream;
use hyper::StatusCode;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::{Failure, child, complain, engine_room, prepare_schema, say};
use crate::signals::Signals;

const DATABASE: &str = "engine";
/// The engine serves with no more rights here than in production.
const ROLES: &str = include_str!("../../../sql/roles.sql");
const SERVING_ROLE: &str = "engine_app";
/// Connecting, warming up, and the cache's first TTL are well within.
const HEALTHY_WAIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// A chunk of demo accounts is one commit; the rest is slack for a slow disk.
const DEMO_CALL_WAIT: Duration = Duration::from_secs(30);
const ENVIRONMENT_FILE: &str = "env";

/// Runs `engine dev` to its end.
pub(super) async fn run(config: DevConfig) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen().map_err(Failure::Runtime)?;
    if config.mode == DevMode::StopLeftovers {
        let found = dev::stop_leftovers(&config.data_dir).await;
        say(&if found.map_err(Failure::Dev)? {
            "stopped the servers left behind"
        } else {
            "no servers were left behind"
        });
        return Ok(ExitCode::SUCCESS);
    }
    complain(&format_args!(
        "starting PostgreSQL{} in {}",
        if config.redis { " and Redis" } else { "" },
        config.data_dir.display()
    ));
    let settings = settings(&config);
    let started = tokio::select! {
        started = Servers::start(&settings) => Some(started),
        _ = signals.next() => None,
    };
    let Some(started) = started else {
        // Dropping the start asked whatever ran to stop; wait until it has.
        let stopped = dev::stop_leftovers(&config.data_dir).await;
        return stopped.map(|_| ExitCode::SUCCESS).map_err(Failure::Dev);
    };
    let servers = started.map_err(Failure::Dev)?;
    report(&config, &servers);
    let outcome = match config.mode {
        DevMode::ServersOnly | DevMode::StopLeftovers => {
            on_servers(&config, &servers, &mut signals).await
        }
        DevMode::Engine => with_engine(&config, &servers, &mut signals).await,
    };
    let stopped = servers.stop().await;
    let code = outcome?;
    stopped.map_err(Failure::Dev)?;
    Ok(code)
}

fn settings(config: &DevConfig) -> DevSettings {
    DevSettings {
        data_dir: config.data_dir.clone(),
        fresh: config.fresh,
        redis: config.redis,
        login: if config.trust_loopback {
            Login::Anyone
        } else {
            Login::Password
        },
        postgres_bin_dir: config.postgres_bin_dir.clone(),
        search_path: config.search_path.clone(),
        postgres_settings: config.postgres_settings.clone(),
        redis_settings: config.redis_settings.clone(),
    }
}

fn report(config: &DevConfig, servers: &Servers) {
    if servers.cleaned_up {
        complain(&"stopped the servers an earlier run left behind");
    }
    if servers.runtime_dir() != servers.data_dir() {
        complain(&format_args!(
            "{} cannot be entered by the user PostgreSQL runs as: the databases are in {}",
            servers.data_dir().display(),
            servers.runtime_dir().display()
        ));
    }
    if config.redis && servers.redis_url.is_none() {
        complain(&"Redis is not installed: balances are read from PostgreSQL");
    }
}

async fn on_servers(
    config: &DevConfig,
    servers: &Servers,
    signals: &mut Signals,
) -> Result<ExitCode, Failure> {
    let environment = environment(servers, "postgres", None);
    write_environment(servers, &environment)?;
    if config.command.is_empty() {
        for (name, value) in &environment {
            say(&format_args!("export {name}='{value}'"));
        }
        signals.next().await;
        return Ok(ExitCode::SUCCESS);
    }
    child::run(&config.command, &environment, signals).await
}

async fn with_engine(
    config: &DevConfig,
    servers: &Servers,
    signals: &mut Signals,
) -> Result<ExitCode, Failure> {
    servers
        .ensure_database(DATABASE)
        .await
        .map_err(Failure::Dev)?;
    let retention = config.tuning.admission.idempotency_retention;
    prepare_schema(&servers.database_url_of(DATABASE), retention).await?;
    servers
        .run_sql(DATABASE, ROLES)
        .await
        .map_err(Failure::Dev)?;
    let serve = serve_config(config, servers)?;
    let addresses = Addresses {
        api: loopback(serve.tuning.network.listen),
        admin: loopback(serve.tuning.network.admin_listen),
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let mut engine = tokio::spawn(async move {
        let stop = stream::once(async move {
            // Sent, or its sender is gone: both mean stop.
            stopped.await.ok();
        });
        engine_room::run(&serve, Box::pin(stop)).await
    });
    let work = work_on_engine(config, servers, addresses, signals);
    let outcome = tokio::select! {
        outcome = work => outcome,
        ended = &mut engine => {
            return Err(early_end(ended));
        }
    };
    drop(stop);
    let ended = join(engine).await;
    let code = outcome?;
    ended?;
    Ok(code)
}

async fn join(engine: JoinHandle<Result<(), Failure>>) -> Result<(), Failure> {
    engine.await.map_err(Failure::EnginePanicked)?
}

fn early_end(ended: Result<Result<(), Failure>, tokio::task::JoinError>) -> Failure {
    match ended {
        Ok(Ok(())) => Failure::EngineEnded,
        Ok(Err(failure)) => failure,
        Err(panicked) => Failure::EnginePanicked(panicked),
    }
}

async fn work_on_engine(
    config: &DevConfig,
    servers: &Servers,
    addresses: Addresses,
    signals: &mut Signals,
) -> Result<ExitCode, Failure> {
    let prepared = tokio::select! {
        prepared = prepare_engine(config, addresses.api) => Some(prepared),
        _ = signals.next() => None,
    };
    let Some(prepared) = prepared else {
        return Ok(ExitCode::SUCCESS);
    };
    let opened = prepared?;
    let environment = environment(servers, DATABASE, Some(addresses));
    write_environment(servers, &environment)?;
    if config.command.is_empty() {
        greet(config, servers, addresses, opened);
        signals.next().await;
        complain(&"stopping");
        return Ok(ExitCode::SUCCESS);
    }
    child::run(&config.command, &environment, signals).await
}

/// Waits for the engine, then opens the demo accounts. Returns how many are new.
async fn prepare_engine(config: &DevConfig, api: SocketAddr) -> Result<usize, Failure> {
    let begun = Instant::now();
    let health = Client::new(api, Duration::from_secs(2));
    while !matches!(health.get("/health").await, Ok((StatusCode::OK, _))) {
        if HEALTHY_WAIT < begun.elapsed() {
            return Err(Failure::NotReady {
                address: api,
                waited: HEALTHY_WAIT,
            });
        }
        sleep(POLL).await;
    }
    let client = Client::new(api, DEMO_CALL_WAIT);
    demo::open_accounts(&client, config.accounts)
        .await
        .map_err(Failure::Demo)
}

/// Where the engine is reached from this machine.
#[derive(Clone, Copy, Debug)]
struct Addresses {
    api: SocketAddr,
    admin: SocketAddr,
}

fn serve_config(config: &DevConfig, servers: &Servers) -> Result<ServeConfig, Failure> {
    let mut tuning = config.tuning.clone();
    for address in [&mut tuning.network.listen, &mut tuning.network.admin_listen] {
        if address.port() == 0 {
            *address = free_address(address.ip()).map_err(Failure::Runtime)?;
        }
    }
    // The socket: no password in a second place, and no TCP between neighbours.
    let Ok(database_url) = servers
        .unix_socket_database_url_of(SERVING_ROLE, DATABASE)
        .parse::<DatabaseUrl>();
    let redis_url = servers.redis_url.as_ref().map(|url| {
        let Ok(url) = url.parse::<RedisUrl>();
        url
    });
    Ok(ServeConfig {
        database_read_url: None,
        database_url,
        redis_url,
        redis_ca_file: None,
        migrate_database_url: None,
        tuning,
    })
}

fn free_address(ip: IpAddr) -> std::io::Result<SocketAddr> {
    TcpListener::bind((ip, 0))?.local_addr()
}

fn loopback(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port())
    } else {
        address
    }
}

fn environment(
    servers: &Servers,
    database: &str,
    addresses: Option<Addresses>,
) -> Vec<(&'static str, String)> {
    let mut all = vec![
        ("ENGINE_TEST_DATABASE_URL", servers.database_url.clone()),
        (
            "ENGINE_TEST_DATABASE_SOCKET_URL",
            servers.unix_socket_database_url.clone(),
        ),
        ("DATABASE_URL", servers.database_url_of(database)),
        (
            "DATABASE_SOCKET_URL",
            servers.unix_socket_database_url_of("postgres", database),
        ),
    ];
    if let Some(url) = &servers.redis_url {
        all.push(("ENGINE_TEST_REDIS_URL", url.clone()));
        all.push(("REDIS_URL", url.clone()));
    }
    if let Some(addresses) = addresses {
        all.push(("ENGINE_URL", format!("http://{}", addresses.api)));
        all.push(("ENGINE_ADMIN_URL", format!("http://{}", addresses.admin)));
    }
    all
}

/// For another terminal: `set -a; . .data/env`. Valid while this runs.
fn write_environment(
    servers: &Servers,
    environment: &[(&'static str, String)],
) -> Result<(), Failure> {
    let text: String = environment
        .iter()
        .map(|(name, value)| format!("{name}='{value}'\n"))
        .collect();
    servers
        .write_private(ENVIRONMENT_FILE, &text)
        .map_err(Failure::Dev)
}

fn greet(config: &DevConfig, servers: &Servers, addresses: Addresses, opened: usize) {
    let Addresses { api, admin } = addresses;
    let data = servers.data_dir().display();
    let accounts = config.accounts;
    let amount = demo::FUNDING_AMOUNT;
    say(&format_args!(
        "
The engine serves at http://{api} ({accounts} demo accounts, {opened} of them new,
each opened with {amount}.00 USD from account 0). Paste in another terminal:

  curl -s -w '\\n' http://{api}/transaction -H 'Content-Type: application/json' \\
    -H \"Idempotency-Key: $(date +%s%N)\" -d '{{\"from\":1,\"to\":2,\"amount\":12.50}}'
  curl -s -w '\\n' http://{api}/balance/2
  curl -s -w '\\n' 'http://{api}/transactions?account=2&limit=5'
  curl -s http://{admin}/metrics
  set -a; . '{data}/{ENVIRONMENT_FILE}'; set +a; psql \"$DATABASE_URL\"

Logs: {data}/postgres.log, {data}/redis.log. Ctrl-C stops everything; the data stays."
    ));
}
