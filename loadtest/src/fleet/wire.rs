//! What goes between the machine that conducts a run and a worker.
//!
//! Owns: the protocol: JSON over HTTP, its paths and its version.
//! Never: trusts a job: [`Job::config`] checks it as the command line is checked.
//! Invariant: [`PROTOCOL`] grows with every change here; both sides compare it,
//! and the program's version, before anything is prepared.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::args::{FleetArgs, Targets};
use crate::args::{Config, Given, Place, Progress, THREADS_MAX, authority, resolve};
use crate::headers::Headers;
use crate::journal::JournalPlan;
use crate::live::{Order, Sheet};
use crate::report::Output;
use crate::request::Target;
use crate::scenario::{LoadArgs, RUN_TIME_MAX, ScenarioArgs, ScenarioText};
use crate::tls::Trust;
use crate::web::WebArgs;

pub(super) const PROTOCOL: u32 = 1;
const RETRIES_MAX: u32 = 1_000;
const NAME_BYTES_MAX: usize = 100;

/// What must be the same on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Versions {
    pub(super) program: String,
    pub(super) protocol: u32,
}

impl Versions {
    pub(super) fn ours() -> Self {
        Self {
            program: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL,
        }
    }

    /// # Errors
    /// Which differ, and what to do.
    pub(super) fn check(&self) -> Result<(), String> {
        let ours = Self::ours();
        if *self == ours {
            return Ok(());
        }
        Err(format!(
            "it is loadtest {} with protocol {}, this is {} with protocol {}: use one version \
             everywhere",
            self.program, self.protocol, ours.program, ours.protocol
        ))
    }
}

/// `GET /v1/hello`. Other versions may add or miss fields after the first.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Hello {
    pub(super) versions: Versions,
    /// How many threads it would take by itself.
    #[serde(default)]
    pub(super) threads: u32,
}

/// `GET /v1/clock`: since the worker began, on its own clock.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Clock {
    pub(super) now: Duration,
}

/// `POST /v1/run`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Job {
    pub(super) versions: Versions,
    pub(super) host: String,
    /// The PEM of --cacert; none are the worker's own authorities.
    pub(super) authorities: Option<String>,
    /// Secrets among them.
    pub(super) headers: Headers,
    pub(super) scenario: ScenarioText,
    pub(super) threads: u32,
    pub(super) place: Place,
    pub(super) timeout: Duration,
    pub(super) retries: u32,
    /// A name in `--journal-dir`.
    pub(super) journal: Option<String>,
}

/// The answer: what later requests name.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Taken {
    pub(super) run: String,
    /// Where the journal is.
    pub(super) journal: Option<String>,
}

/// `POST /v1/run/ID/begin`: at that time of the worker's clock.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Begin {
    pub(super) at: Duration,
}

/// `POST /v1/run/ID/order`: the `number`-th since the start, so that one that is
/// sent again is not obeyed again.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Ordered {
    pub(super) number: usize,
    pub(super) order: Order,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Phase {
    /// Connections are opened.
    Connecting,
    /// It waits to be told when to begin.
    Ready,
    /// Until the last answer is in.
    Running,
    /// The report can be had.
    Finished,
    /// There is nothing to report.
    Failed,
}

/// `GET /v1/run/ID`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct State {
    pub(super) phase: Phase,
    /// When the last of its threads began, on its clock.
    pub(super) started: Option<Duration>,
    /// Why it failed, or ended by itself.
    pub(super) problem: Option<String>,
    pub(super) sheet: Option<Sheet>,
}

/// An answer that is no 2xx.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Problem {
    pub(super) code: String,
    pub(super) detail: String,
}

impl Job {
    /// What the worker runs.
    ///
    /// # Errors
    /// What is wrong with the job, or not allowed here.
    pub(super) fn config(
        self,
        targets: Targets,
        journal_dir: Option<&Path>,
    ) -> Result<Config, String> {
        let address = resolve(&self.host)?;
        if targets == Targets::Loopback && !address.ip().is_loopback() {
            return Err(format!(
                "{} is not this machine: start the worker with --allow-remote if you own it",
                self.host
            ));
        }
        let scenario = self.scenario.read()?;
        let place = self.place;
        let last = place.first.checked_add(self.threads);
        let placed = last.is_some_and(|last| last <= place.of.get());
        if !(1..=THREADS_MAX).contains(&self.threads) || !placed {
            return Err(format!(
                "threads: expected 1 to {THREADS_MAX} in their place"
            ));
        }
        if scenario.load.arrivals.is_some() && scenario.load.users < place.of.get() {
            return Err("users: expected one for each thread".to_owned());
        }
        if self.timeout.is_zero() || RUN_TIME_MAX < self.timeout || RETRIES_MAX < self.retries {
            return Err("timeout or retries: out of bounds".to_owned());
        }
        let journal = match (self.journal, journal_dir) {
            (None, _) => None,
            (Some(_), None) => {
                return Err("it has no place for a journal: start the worker with \
                     --journal-dir DIRECTORY, or the run without --journal"
                    .to_owned());
            }
            (Some(name), Some(directory)) => {
                check_name(&name)?;
                Some(JournalPlan {
                    path: directory.join(name),
                    host: self.host.clone(),
                    seed: scenario.seed,
                    accounts: scenario.accounts(),
                })
            }
        };
        let trust = match &self.authorities {
            Some(pem) => Trust::of_pem(pem)?,
            None => Trust::System,
        };
        Ok(Config {
            address,
            tls: trust.client(&self.host)?,
            target: Target {
                authority: authority(&self.host)?.to_owned(),
                headers: self.headers,
            },
            host: self.host,
            scenario,
            given: Given {
                scenario: ScenarioArgs::default(),
                load: LoadArgs::default(),
            },
            threads: self.threads,
            timeout: self.timeout,
            retries: self.retries,
            output: Output::default(),
            journal,
            progress: Progress::Hidden,
            web: WebArgs::default(),
            fleet: FleetArgs::default(),
            place: Some(place),
        })
    }
}

/// # Errors
/// If `--journal` is no name for each worker to use in its own directory.
pub(crate) fn check_journal(path: &Path) -> Result<(), String> {
    check_name(&path.to_string_lossy())
}

fn check_name(name: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty()
        || NAME_BYTES_MAX < name.len()
        || name.starts_with('.')
        || !name.bytes().all(plain)
    {
        return Err(format!(
            "--journal: with --workers a name of letters, digits, '.', '_' and '-' (at most \
             {NAME_BYTES_MAX}); each worker keeps it in its --journal-dir"
        ));
    }
    Ok(())
}
