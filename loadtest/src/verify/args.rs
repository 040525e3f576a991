//! The flags of `loadtest verify`.
//!
//! Owns: their defaults and limits.
//! Invariant: a `Plan` can be verified as it is.

use std::path::PathBuf;

use clap::Args;

use crate::args::{Progress, resolve};
use crate::headers::{HeaderArgs, Headers};
use crate::tls::{TlsArgs, Trust};

const CONNECTIONS_MAX: u32 = 256;

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// What `loadtest run --journal` wrote. Verify when the run and the engine's
    /// request deadline are over: an answer still under way has no fate yet. Repeat it
    /// for the journals of all workers of one run.
    #[arg(long, value_name = "FILE", required = true)]
    journal: Vec<PathBuf>,
    /// The engine: http://HOST:PORT or https://HOST:PORT. Default: where the run sent its load.
    #[arg(long)]
    host: Option<String>,
    /// Ask the ledger itself, thousands of keys at a time, instead of the engine:
    /// postgres://USER:PASSWORD@HOST/DATABASE; a role that reads is enough. Also finds
    /// transfers that no key and no answer names. sslmode=verify-full and sslrootcert=FILE
    /// at its end ask for TLS, as libpq's.
    #[arg(
        long,
        value_name = "URL",
        env = "LOADTEST_DATABASE_URL",
        hide_env_values = true
    )]
    database_url: Option<String>,
    /// The principal that the engine knew the run as: keys belong to it.
    #[arg(long, default_value = "anonymous")]
    principal: String,
    /// Connections to the engine, one look-up in flight on each.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=i64::from(CONNECTIONS_MAX)))]
    connections: u32,
    /// Others moved money between these accounts during the run: transfers that
    /// nothing in the journal explains are shown, but fail nothing.
    #[arg(long)]
    shared: bool,
    /// Also write the report to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Do not print progress.
    #[arg(long)]
    quiet: bool,
    // Last: their help heading holds for every flag after them.
    #[command(flatten)]
    headers: HeaderArgs,
    #[command(flatten)]
    tls: TlsArgs,
}

/// Whether the run had its accounts for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    Alone,
    Shared,
}

/// What lets verification into the engine.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub(crate) headers: Headers,
    pub(crate) trust: Trust,
}

/// How to reach the ledger.
#[derive(Clone)]
pub(crate) struct DatabasePlan {
    pub(crate) database: pgtls::Database,
    pub(crate) principal: String,
}

impl std::fmt::Debug for DatabasePlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The configuration holds a password.
        f.debug_struct("DatabasePlan")
            .field("principal", &self.principal)
            .finish_non_exhaustive()
    }
}

/// A checked verification.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// At least one.
    pub(crate) journals: Vec<PathBuf>,
    pub(crate) host: Option<String>,
    pub(crate) access: Access,
    pub(crate) database: Option<DatabasePlan>,
    pub(crate) connections: u32,
    pub(crate) sharing: Sharing,
    pub(crate) json: Option<PathBuf>,
    pub(crate) progress: Progress,
}

/// # Errors
/// What is wrong with the arguments.
pub(crate) fn check(args: VerifyArgs) -> Result<Plan, String> {
    let access = Access {
        headers: Headers::new(&args.headers)?,
        trust: Trust::new(&args.tls)?,
    };
    if let Some(host) = &args.host {
        resolve(host)?;
    }
    let database = match &args.database_url {
        None => None,
        Some(url) => {
            // The error's text does not repeat the URL, which may hold a password.
            let database = url
                .parse()
                .map_err(|error| format!("--database-url {error}"))?;
            let principal = args.principal;
            Some(DatabasePlan {
                database,
                principal,
            })
        }
    };
    Ok(Plan {
        journals: args.journal,
        host: args.host,
        access,
        database,
        connections: args.connections,
        sharing: if args.shared {
            Sharing::Shared
        } else {
            Sharing::Alone
        },
        json: args.json,
        progress: if args.quiet {
            Progress::Hidden
        } else {
            Progress::Shown
        },
    })
}
