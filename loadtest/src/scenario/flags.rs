//! The flags that say what is sent, and how much of it.
//!
//! Owns: `--scenario` and every flag that overrides a field of the file.
//! Never: checks one value against another; `build` does, for file and flags alike.

use std::path::PathBuf;

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::accounts::{Accounts, Choice, Share};
use super::amount::Amount;
use super::load::{RATE_MAX, USERS_MAX, parse_run_time};
use super::task::Task;
use super::think::Think;
use crate::stages::{Kind, Stage, parse_stage};

/// Whether transfers carry an Idempotency-Key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Keys {
    On,
    Off,
}

impl Keys {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "How much load")]
pub(crate) struct LoadArgs {
    /// Keep-alive connections, each with at most one request in flight [default: 64,
    /// or what the stages need].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(USERS_MAX)))]
    pub(crate) users: Option<u32>,
    /// Users (connections) started per second, evenly; without it all start at once.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    pub(crate) spawn_rate: Option<u64>,
    /// Requests per second, sent at constant intervals whatever the answers take
    /// (open model). Without it each user sends as soon as it was answered.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    pub(crate) rate: Option<u64>,
    /// How long requests are sent, for example 10s or 2m [default: 10s, or as long
    /// as the stages; with --web until Stop].
    #[arg(long, value_parser = parse_run_time)]
    pub(crate) run_time: Option<Duration>,
    /// A part of the run, one after another: duration=30s,rate=5000 holds a rate,
    /// duration=10s,rate=0..5000 is a ramp; users= instead of rate= changes the users
    /// of the closed model. Repeat it for steps, spikes and soaks.
    #[arg(long = "stage", value_name = "STAGE", value_parser = parse_stage)]
    pub(crate) stages: Vec<(Kind, Stage)>,
    /// The run time if neither flag nor file says one, in place of the default.
    #[arg(skip)]
    pub(crate) run_time_unsaid: Option<Duration>,
}

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "What is sent")]
pub(crate) struct ScenarioArgs {
    /// A TOML file with user classes, weighted tasks and stages; `loadtest init`
    /// writes an example that explains each field. The flags below and those of
    /// the load override what the file says.
    #[arg(long, value_name = "FILE")]
    pub(crate) scenario: Option<PathBuf>,
    /// Account ids, both ends included [default: 1..=1000].
    #[arg(long, value_name = "FIRST..=LAST")]
    pub(crate) accounts: Option<Accounts>,
    /// uniform, zipf:EXPONENT, hot:SHARE:ACCOUNTS (that share of the transfers
    /// credits one of the first so many accounts) or ring [default: uniform].
    #[arg(long)]
    pub(crate) choice: Option<Choice>,
    /// Share of transfers that credit the first account, 0 to 1: the same as
    /// --choice hot:SHARE:1.
    #[arg(long, value_name = "SHARE", conflicts_with = "choice")]
    pub(crate) hot: Option<Share>,
    /// Amount of each transfer as decimal text: 1.50, a range such as
    /// 0.01..=9.99, or several separated by commas [default: 1].
    #[arg(long)]
    pub(crate) amount: Option<Amount>,
    /// Whether each transfer carries an Idempotency-Key of its own [default: on].
    #[arg(long, value_enum)]
    pub(crate) keys: Option<Keys>,
    /// One class of users with this one task: transfer, batch:N (N transfers per
    /// call), balance, history, history:ROWS or health [default: transfer].
    #[arg(long)]
    pub(crate) task: Option<Task>,
    /// How long a user pauses after an answer: 100ms, or 100ms..=300ms for a new
    /// pause each time. Closed model only [default: 0s].
    #[arg(long)]
    pub(crate) think: Option<Think>,
    /// Makes the same requests again, keys included: on the same engine that is
    /// a replay. Without it every run has a seed of its own.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
}
