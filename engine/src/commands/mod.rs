//! What each subcommand does: maps its configuration onto the rooms and their
//! results onto text and exit codes.
//!
//! Owns: the runtime, standard output, the exit codes.
//! Never: decides anything about money.
//! Invariant: what was asked for goes to standard output, everything else to
//! standard error; a failure ends with one line that says what to do.

mod child;
mod dev;
mod engine_room;
mod failure;

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use engine::client::Client;
use engine::clock::Clock;
use engine::config::{
    DevConfig, HealthConfig, MaintainConfig, MigrateConfig, ServeConfig, VerifyConfig,
};
use engine::domain::TransferId;
use engine::store::maintain::Extent;
use engine::store::{maintain, migrate, verify};
use hyper::StatusCode;
use tokio::runtime::{Builder, Runtime};

use crate::signals::Signals;
pub(crate) use failure::Failure;

/// Writes to standard output. A reader that left (`engine ... | head`) is no
/// failure of ours.
pub(crate) fn say(text: &dyn Display) {
    writeln!(std::io::stdout(), "{}", text.to_string().trim_end()).ok();
}

/// Writes to standard error.
pub(crate) fn complain(text: &dyn Display) {
    writeln!(std::io::stderr(), "{text}").ok();
}

/// Tasks polled between two looks at the sockets, and on one thread at the
/// committers: fewer than tokio's 61, so that a commit that can go on soon does.
const EVENT_INTERVAL: u32 = 24;

/// `engine serve`.
pub(crate) fn serve(config: &ServeConfig) -> Result<ExitCode, Failure> {
    raise_open_files();
    runtime(config.tuning.network.io_threads)?.block_on(async {
        let signals = Signals::listen().map_err(Failure::Runtime)?;
        if let Some(owner) = &config.migrate_database_url {
            let retention = config.tuning.admission.idempotency_retention;
            complain(&prepare_schema(owner.expose(), retention).await?);
        }
        engine_room::run(config, signals.all()).await
    })?;
    Ok(ExitCode::SUCCESS)
}

/// `engine dev`.
pub(crate) fn dev(config: DevConfig) -> Result<ExitCode, Failure> {
    raise_open_files();
    runtime(config.tuning.network.io_threads)?.block_on(dev::run(config))
}

/// `engine migrate`.
pub(crate) fn migrate(config: &MigrateConfig) -> Result<ExitCode, Failure> {
    let url = config.database_url.expose();
    let prepared = prepare_schema(url, config.idempotency_retention);
    say(&runtime(1)?.block_on(prepared)?);
    Ok(ExitCode::SUCCESS)
}

/// A migrated schema without partitions cannot take a transfer, so both belong
/// together. Returns what was done, for people.
async fn prepare_schema(url: &str, retention: Duration) -> Result<String, Failure> {
    let migrated = migrate::run(url, &migrate::Settings::default())
        .await
        .map_err(Failure::Schema)?;
    let settings = maintain::Settings {
        retention,
        // Minutes on a large ledger, and nothing that serving waits for.
        extent: Extent::Partitions,
        ..maintain::Settings::default()
    };
    let maintained = maintain::run(url, &settings)
        .await
        .map_err(Failure::Maintain)?;
    Ok(format!("{migrated}\n{maintained}"))
}

/// `engine maintain`.
pub(crate) fn maintain(config: &MaintainConfig) -> Result<ExitCode, Failure> {
    let settings = maintain::Settings {
        retention: config.idempotency_retention,
        ..maintain::Settings::default()
    };
    let report = runtime(1)?
        .block_on(maintain::run(config.database_url.expose(), &settings))
        .map_err(Failure::Maintain)?;
    say(&report);
    Ok(ExitCode::SUCCESS)
}

/// `engine verify`.
pub(crate) fn verify(config: &VerifyConfig) -> Result<ExitCode, Failure> {
    let settings = verify::Settings {
        since: config.since.map(|time| {
            let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            TransferId::first_of_ms(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
        }),
        ..verify::Settings::default()
    };
    // Checks of a large ledger take minutes: someone who watches sees progress.
    let watched = std::io::stderr().is_terminal();
    let progress = |progress: verify::Progress<'_>| match progress {
        verify::Progress::Started(index, check) if watched => complain(&format_args!(
            "{}/{} {}",
            index + 1,
            verify::CHECKS.len(),
            check.name
        )),
        verify::Progress::Started(..) | verify::Progress::Finished(_) => {}
    };
    let url = config.database_url.expose();
    let report = runtime(1)?
        .block_on(verify::run(url, &settings, &Clock::System, progress))
        .map_err(Failure::Verify)?;
    if config.json {
        say(&serde_json::to_string_pretty(&report).map_err(Failure::Json)?);
    } else {
        say(&report);
    }
    match report.first_broken() {
        None => Ok(ExitCode::SUCCESS),
        Some(broken) => Err(Failure::LedgerBroken {
            check: broken.check,
            row: broken.broken.clone().unwrap_or_default(),
        }),
    }
}

/// `engine openapi`.
pub(crate) fn openapi() -> Result<ExitCode, Failure> {
    say(&engine_room::openapi());
    Ok(ExitCode::SUCCESS)
}

/// `engine health`.
pub(crate) fn health(config: HealthConfig) -> Result<ExitCode, Failure> {
    let client = Client::new(config.address, config.timeout);
    let asked = runtime(1)?.block_on(client.get("/health"));
    let failure = match asked {
        Ok((StatusCode::OK, _)) => {
            say(&"ok");
            return Ok(ExitCode::SUCCESS);
        }
        Ok((status, body)) => format!(
            "{status} {}",
            String::from_utf8_lossy(&body[..body.len().min(200)])
        ),
        Err(error) => error.to_string(),
    };
    Err(Failure::Unhealthy {
        address: config.address,
        reason: failure,
    })
}

/// `threads` that serve connections, 0 for one for every two cores.
fn runtime(threads: u16) -> Result<Runtime, Failure> {
    let threads = match threads {
        // The other half is PostgreSQL's, Redis' and the network's. With all of 2
        // cores the engine took 28k/s from 256 connections, with one 34k/s
        // (`loadtest run`, PostgreSQL on the same machine, 2026-11-21).
        0 => std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2)),
        threads => usize::from(threads),
    };
    let mut builder = if threads == 1 {
        Builder::new_current_thread()
    } else {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(threads);
        builder
    };
    builder.event_interval(EVENT_INTERVAL).enable_all();
    builder.build().map_err(Failure::Runtime)
}

/// Each connection is an open file, and the usual soft limit of 1,024 is for
/// programs that use select(2). The hard limit is the operator's and stays.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Refused (some sandboxes): the engine serves as many as it may.
    setrlimit(Resource::Nofile, raised).ok();
}
