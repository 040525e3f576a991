//! The flags that say what is sent.
//!
//! Owns: `--scenario` and every flag that overrides a field of the file.
//! Never: checks one value against another; `build` does, for file and flags alike.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::accounts::{Accounts, Choice, Share};
use super::amount::Amount;
use super::task::Task;

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
#[command(next_help_heading = "What is sent")]
pub(crate) struct ScenarioArgs {
    /// A TOML file with user classes, weighted tasks and stages; `loadtest init`
    /// writes an example that explains each field. The flags below, --users,
    /// --rate and --run-time override what the file says.
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
    /// Makes the same requests again, keys included: on the same engine that is
    /// a replay. Without it every run has a seed of its own.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
}
