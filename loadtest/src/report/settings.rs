//! What a run was asked to do, as its report tells it.
//!
//! Owns: the names of the settings in the document.
//! Invariant: settings of one version 1 document keep their names and meaning.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::SPAN_MIN;
use crate::args::Config;

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Model {
    /// At their time, whatever the answers take.
    Open,
    /// As soon as the user before was answered.
    Closed,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct Settings {
    pub(crate) host: String,
    pub(crate) model: Model,
    pub(crate) task: String,
    pub(crate) users: u32,
    pub(crate) threads: u32,
    /// The highest, if it changes over time.
    pub(crate) rate: Option<u64>,
    /// Between a user's requests, as `--think` takes it; several classes may differ.
    pub(crate) think: String,
    pub(crate) retries: u32,
    pub(crate) run_time_seconds: f64,
    pub(crate) timeout_seconds: f64,
    pub(crate) accounts: String,
    pub(crate) amount: String,
    pub(crate) keys: String,
    /// As text: JSON numbers hold 53 bits in many readers.
    pub(crate) seed: String,
}

impl Settings {
    /// Of a run that sent for this long: its run time, or less if it was stopped.
    pub(crate) fn new(config: &Config, sending: Duration) -> Self {
        Self {
            host: config.host.clone(),
            model: if config.rate().is_some() {
                Model::Open
            } else {
                Model::Closed
            },
            task: config.scenario.task_names().join(", "),
            users: config.scenario.load.users,
            threads: config.threads,
            rate: config.rate().map(std::num::NonZeroU64::get),
            think: config.scenario.each(|class| class.think),
            retries: config.retries,
            run_time_seconds: sending.max(SPAN_MIN).as_secs_f64(),
            timeout_seconds: config.timeout.as_secs_f64(),
            accounts: config.scenario.each(|class| class.population),
            amount: config.scenario.each(|class| class.amount.clone()),
            keys: config.scenario.each(|class| class.keys.name()),
            seed: config.scenario.seed.to_string(),
        }
    }

    /// Refuses what rates cannot be computed with.
    pub(super) fn check(&self) -> Result<(), String> {
        match Duration::try_from_secs_f64(self.run_time_seconds) {
            Ok(time) if !time.is_zero() => Ok(()),
            Ok(_) | Err(_) => Err(format!(
                "config.run_time_seconds: {} is no time to run",
                self.run_time_seconds
            )),
        }
    }

    pub(crate) fn run_time(&self) -> Duration {
        Duration::try_from_secs_f64(self.run_time_seconds).unwrap_or(Duration::ZERO)
    }

    /// Names and values, in the order they are shown.
    pub(crate) fn rows(&self) -> Vec<(&'static str, String)> {
        let model = match self.model {
            Model::Open => "open",
            Model::Closed => "closed",
        };
        vec![
            ("host", self.host.clone()),
            ("model", model.to_owned()),
            ("task", self.task.clone()),
            ("users", self.users.to_string()),
            ("threads", self.threads.to_string()),
            (
                "rate",
                self.rate.map_or("-".to_owned(), |rate| format!("{rate}/s")),
            ),
            ("think time", self.think.clone()),
            ("retries", self.retries.to_string()),
            ("run time", format!("{} s", self.run_time_seconds)),
            ("timeout", format!("{} s", self.timeout_seconds)),
            ("accounts", self.accounts.clone()),
            ("amount", self.amount.clone()),
            ("keys", self.keys.clone()),
            ("seed", self.seed.clone()),
        ]
    }
}
