//! What a run gave, in every form a reader may want it.
//!
//! Owns: standard output, and the files of `--json`, `--csv` and `--html`.
//! Never: computes a rate over answers that came after the run time.
//! Invariant: every form is made from one [`Report`], so they never disagree.

mod csv;
mod document;
pub(crate) mod histogram;
mod html;
#[cfg(test)]
pub(crate) mod sample;
mod settings;
mod text;

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;

pub(crate) use self::document::{load, parse};
pub(crate) use self::settings::{Model, Settings};
use crate::args::Config;
use crate::fleet::WorkerPart;
use crate::generator::Generator;
use crate::run::Outcome;
use crate::stats::Tally;
use crate::threshold::{self, Checked, GRAMMAR, Threshold};

/// Where a report goes, and what it must reach.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Output {
    /// Also write the report to this file as JSON, for merge and compare.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Also write Locust's PREFIX_stats.csv, PREFIX_stats_history.csv and
    /// PREFIX_failures.csv.
    #[arg(long, value_name = "PREFIX")]
    pub(crate) csv: Option<PathBuf>,
    /// Also write a page with graphs that needs no other file.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// A threshold, for example 'p99<10ms', 'errors<0.1%' or 'rate>20000/s'; any
    /// broken one makes the exit code 1. May be repeated.
    #[arg(long, value_name = "EXPR", long_help = require_help())]
    pub(crate) require: Vec<Threshold>,
}

fn require_help() -> String {
    format!("A threshold; any broken one makes the exit code 1. May be repeated.\n\n{GRAMMAR}")
}

/// So that no rate is divided by zero.
const SPAN_MIN: Duration = Duration::from_millis(1);

/// Whether the process may say that all went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed,
}

/// A form of the report, as it is downloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Html,
    Json,
    Stats,
    History,
    Failures,
}

impl Form {
    const ALL: [Self; 5] = [
        Self::Html,
        Self::Json,
        Self::Stats,
        Self::History,
        Self::Failures,
    ];

    pub(crate) fn of_file(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|form| form.file() == name)
    }

    pub(crate) const fn file(self) -> &'static str {
        match self {
            Self::Html => "loadtest.html",
            Self::Json => "loadtest.json",
            Self::Stats => "loadtest_stats.csv",
            Self::History => "loadtest_stats_history.csv",
            Self::Failures => "loadtest_failures.csv",
        }
    }

    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Html => "text/html; charset=utf-8",
            Self::Json => "application/json",
            Self::Stats | Self::History | Self::Failures => "text/csv; charset=utf-8",
        }
    }
}

/// A run, or several that were merged.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// One for each run in it.
    pub(crate) run_ids: Vec<String>,
    pub(crate) started_at: SystemTime,
    pub(crate) settings: Settings,
    /// Until the last answer, so at least the run time.
    pub(crate) elapsed: Duration,
    pub(crate) tally: Tally,
    pub(crate) generator: Option<Generator>,
    /// The machines that shared the run; none if one generator made it.
    pub(crate) workers: Vec<WorkerPart>,
}

impl Report {
    /// Of a run that ended just now.
    pub(crate) fn new(config: &Config, outcome: Outcome) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "the wall clock lines up generators; nothing is measured with it"
        )]
        let now = SystemTime::now();
        let mut settings = Settings::new(config, outcome.sending);
        // Both may have been changed while it ran.
        settings.users = u32::try_from(outcome.most.users).unwrap_or(u32::MAX);
        settings.rate = outcome.most.rate;
        if !outcome.workers.is_empty() {
            settings.threads = outcome.workers.iter().map(|worker| worker.threads).sum();
        }
        Self {
            run_ids: vec![fresh_run_id()],
            started_at: now.checked_sub(outcome.elapsed).unwrap_or(now),
            settings,
            elapsed: outcome.elapsed,
            tally: outcome.tally,
            generator: Some(outcome.generator),
            workers: outcome.workers,
        }
    }

    /// A count in the run time as a rate.
    pub(crate) fn per_second(&self, count: u64) -> f64 {
        float(count) / self.settings.run_time_seconds
    }

    /// When each point of the series began and ended, since the start; the last
    /// one ends with the run.
    fn spans(&self) -> impl Iterator<Item = Range<Duration>> {
        let interval = Duration::from_secs(self.tally.series.interval_seconds());
        let points = 0..u32::try_from(self.tally.series.points().len()).unwrap_or(u32::MAX);
        points.map(move |index| {
            let start = interval * index;
            let end = (start + interval).min(self.elapsed);
            // An answer at the very end may fall into a point that just began.
            start..end.max(start + SPAN_MIN)
        })
    }

    /// Writes every form that is wanted and prints the summary.
    ///
    /// # Errors
    /// [`WriteError`] names the file that could not be written.
    pub(crate) fn deliver(&self, output: &Output) -> Result<Verdict, WriteError> {
        let thresholds = threshold::check(&output.require, self);
        if let Some(path) = &output.json {
            let text = document::render(self, &thresholds).map_err(std::io::Error::from);
            write(path, &text.map_err(|error| WriteError::new(path, error))?)?;
        }
        if let Some(prefix) = &output.csv {
            for (path, text) in csv::files(self, prefix) {
                write(&path, &text)?;
            }
        }
        if let Some(path) = &output.html {
            write(path, &html::page(self, &thresholds))?;
        }
        print(&text::summary(self, &thresholds))
            .map_err(|error| WriteError::new(Path::new("standard output"), error))?;
        Ok(self.verdict(&thresholds))
    }

    /// One form as it would be written.
    ///
    /// # Errors
    /// If the document cannot be made.
    pub(crate) fn render(
        &self,
        form: Form,
        thresholds: &[Threshold],
    ) -> Result<String, serde_json::Error> {
        let thresholds = threshold::check(thresholds, self);
        let [stats, history, failures] = csv::files(self, Path::new(""));
        Ok(match form {
            Form::Html => html::page(self, &thresholds),
            Form::Json => document::render(self, &thresholds)?,
            Form::Stats => stats.1,
            Form::History => history.1,
            Form::Failures => failures.1,
        })
    }

    /// The document of `--json`, as it is written without thresholds.
    #[cfg(test)]
    pub(crate) fn document(&self) -> serde_json::Value {
        let text = document::render(self, &[]).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Whether something worked and nothing broke. With retries, what broke and
    /// was then answered is what the run was meant to live through.
    fn succeeded(&self) -> bool {
        if self.settings.retries == 0 {
            return self.tally.succeeded();
        }
        let tasks = &self.tally.tasks;
        tasks.iter().any(|task| !task.latency.success.is_empty())
            && tasks.iter().all(|task| task.unanswered == 0)
            && self.tally.errors.protocol == 0
    }

    pub(crate) fn verdict(&self, thresholds: &[Checked]) -> Verdict {
        let complete = self.workers.iter().all(|worker| worker.lost.is_none());
        if complete && self.succeeded() && thresholds.iter().all(|checked| checked.held) {
            Verdict::Passed
        } else {
            Verdict::Failed
        }
    }
}

/// 64 bits from the system, through the keys of the standard library's hash maps.
fn fresh_run_id() -> String {
    let bits = std::hash::RandomState::new().build_hasher().finish();
    format!("{bits:016x}")
}

/// A form that could not be written.
#[derive(Debug)]
pub(crate) struct WriteError {
    path: PathBuf,
    source: std::io::Error,
}

impl WriteError {
    fn new(path: &Path, source: std::io::Error) -> Self {
        Self {
            path: path.to_owned(),
            source,
        }
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "write the report to {}: {}",
            self.path.display(),
            self.source
        )
    }
}

impl std::error::Error for WriteError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

fn write(path: &Path, text: &str) -> Result<(), WriteError> {
    std::fs::write(path, text).map_err(|error| WriteError::new(path, error))
}

/// Prints to standard output.
pub(crate) fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Exact up to 2^53, which no counter of a run reaches.
pub(crate) fn float(count: u64) -> f64 {
    const HALF: f64 = 4_294_967_296.0;
    let high = u32::try_from(count >> 32).unwrap_or(u32::MAX);
    let low = u32::try_from(count & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    f64::from(high) * HALF + f64::from(low)
}
