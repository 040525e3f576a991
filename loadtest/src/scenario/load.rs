//! How much load, how long, and how it changes.
//!
//! Owns: users, rate, run time and stages of a checked scenario.
//! Never: keeps time; who runs the load does.
//! Bound: `STAGES_MAX` stages, `RUN_TIME_MAX` together.
//! Invariant: the stages of a run all set users or all set a rate.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

/// One address pair has about 28,000 client ports on a default Linux.
pub(crate) const USERS_MAX: u32 = 20_000;
pub(crate) const RATE_MAX: u64 = 10_000_000;
pub(crate) const RUN_TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
pub(super) const USERS_DEFAULT: u32 = 64;
pub(super) const RUN_TIME_DEFAULT: Duration = Duration::from_secs(10);
const STAGES_MAX: usize = 1_000;

/// A duration of more than zero and at most [`RUN_TIME_MAX`].
pub(crate) fn parse_run_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time.is_zero() || RUN_TIME_MAX < time {
        return Err("expected more than zero and at most 24h".to_owned());
    }
    Ok(time)
}

/// What a scenario asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    /// The most at any time; connections in the open model.
    pub(crate) users: u32,
    /// Users that begin each second; none begins all at once.
    pub(crate) spawn_rate: Option<NonZeroU32>,
    /// Requests per second; none is the closed model.
    pub(crate) rate: Option<NonZeroU64>,
    /// With stages their sum, unless a flag says another time: then they are cut
    /// off, or the last level is held.
    pub(crate) run_time: Duration,
    pub(crate) stages: Option<Stages>,
}

/// What the levels of stages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Model {
    /// Users.
    Closed,
    /// Requests per second.
    Open,
}

/// How a stage comes to its level from that of the stage before, at first zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Ramp {
    /// At once, and held.
    Step,
    /// Evenly over its whole duration.
    Linear,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stage {
    pub(crate) duration: Duration,
    pub(crate) level: u64,
    pub(crate) ramp: Ramp,
}

/// Stages in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stages {
    model: Model,
    stages: Vec<Stage>,
}

impl Stages {
    /// # Errors
    /// What is wrong with the stages together.
    pub(crate) fn new(model: Model, stages: Vec<Stage>) -> Result<Self, String> {
        if stages.len() > STAGES_MAX {
            return Err(format!("expected at most {STAGES_MAX} stages"));
        }
        if stages.iter().all(|stage| stage.level == 0) {
            return Err("expected a stage with more than zero users or rate".to_owned());
        }
        let stages = Self { model, stages };
        if RUN_TIME_MAX < stages.total() {
            return Err("expected stages of at most 24h together".to_owned());
        }
        Ok(stages)
    }

    pub(crate) const fn model(&self) -> Model {
        self.model
    }

    pub(crate) fn all(&self) -> &[Stage] {
        &self.stages
    }

    /// How long they take together.
    pub(crate) fn total(&self) -> Duration {
        self.stages.iter().map(|stage| stage.duration).sum()
    }

    /// The highest level.
    pub(crate) fn peak(&self) -> u64 {
        self.stages
            .iter()
            .map(|stage| stage.level)
            .max()
            .unwrap_or(0)
    }
}

impl fmt::Display for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.model() {
            Model::Closed => " users",
            Model::Open => "/s",
        };
        for (index, stage) in self.all().iter().enumerate() {
            let duration = humantime::format_duration(stage.duration);
            let comma = if index == 0 { "" } else { ", " };
            match stage.ramp {
                Ramp::Step => write!(f, "{comma}{}{unit} for {duration}", stage.level)?,
                Ramp::Linear => write!(f, "{comma}to {}{unit} over {duration}", stage.level)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(seconds: u64, level: u64, ramp: Ramp) -> Stage {
        Stage {
            duration: Duration::from_secs(seconds),
            level,
            ramp,
        }
    }

    #[test]
    fn stages_say_how_long_they_take_and_how_high_they_go() {
        let all = vec![stage(30, 500, Ramp::Linear), stage(60, 100, Ramp::Step)];
        let stages = Stages::new(Model::Open, all).unwrap();
        assert_eq!(stages.total(), Duration::from_secs(90));
        assert_eq!(stages.peak(), 500);
        assert_eq!(stages.to_string(), "to 500/s over 30s, 100/s for 1m");
    }

    #[test]
    fn stages_without_load_or_end_are_refused() {
        assert!(Stages::new(Model::Closed, Vec::new()).is_err());
        assert!(Stages::new(Model::Closed, vec![stage(1, 0, Ramp::Step)]).is_err());
        let day = stage(24 * 60 * 60, 1, Ramp::Step);
        assert!(Stages::new(Model::Closed, vec![day]).is_ok());
        let more = vec![day, stage(1, 0, Ramp::Linear)];
        assert!(Stages::new(Model::Closed, more).is_err());
        let many = vec![stage(1, 1, Ramp::Step); STAGES_MAX + 1];
        assert!(Stages::new(Model::Closed, many).is_err());
    }
}
