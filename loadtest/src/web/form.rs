//! What the page may ask of a run.
//!
//! Owns: the fields of `POST /api/start` and `POST /api/load`, and how the first
//! change the command line.
//! Never: checks what the command line checks as well; it asks it.

use std::num::NonZeroU64;
use std::time::Duration;

use serde::Deserialize;

use super::problem::Problem;
use crate::args::Config;
use crate::fleet::Running;
use crate::scenario::{RATE_MAX, RUN_TIME_MAX, Scenario, USERS_MAX};
use crate::session::Refusal;

/// A field that is left out stays as the command line has it; 0 turns it off.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    users: Option<u32>,
    /// Users per second; 0 starts all at once.
    spawn_rate: Option<u64>,
    /// Requests per second; 0 is the closed model.
    rate: Option<u64>,
    /// 0 goes on until it is stopped.
    run_time_seconds: Option<f64>,
}

impl Start {
    /// The configuration of the next run: read again from the scenario file, if
    /// there is one, with a new seed unless it is given.
    pub(super) fn config(&self, base: &Config) -> Result<Config, Problem> {
        let mut args = base.given.load.clone();
        let says = [
            self.users.is_some(),
            self.rate.is_some(),
            self.spawn_rate.is_some(),
            self.run_time_seconds.is_some(),
        ];
        if says.contains(&true) {
            args.stages.clear();
        }
        if let Some(users) = self.users {
            args.users = Some(bounded("users", users, USERS_MAX)?);
        }
        match self.spawn_rate {
            Some(0) => args.spawn_rate = None,
            Some(rate) => args.spawn_rate = Some(bounded("spawn_rate", rate, RATE_MAX)?),
            None => {}
        }
        match self.rate {
            Some(0) => args.rate = None,
            Some(rate) => args.rate = Some(bounded("rate", rate, RATE_MAX)?),
            None => {}
        }
        match self.run_time_seconds {
            Some(0.0) => args.run_time = Some(RUN_TIME_MAX),
            Some(seconds) => {
                let time = Duration::try_from_secs_f64(seconds).ok();
                let time = time.filter(|time| !time.is_zero() && *time <= RUN_TIME_MAX);
                args.run_time = Some(time.ok_or_else(|| {
                    Problem::invalid("run_time_seconds: expected more than 0 and at most 86400")
                })?);
            }
            None => {}
        }
        let mut scenario = Scenario::new(&base.given.scenario, &args).map_err(Problem::invalid)?;
        if self.rate == Some(0) {
            scenario.load.arrivals = None;
        }
        let mut config = base.clone();
        config.given.load = args;
        if scenario.load.arrivals.is_some() {
            // Each thread sends its share of the arrivals on a connection of its own.
            config.threads = config.threads.min(scenario.load.users);
        }
        if let Some(journal) = &mut config.journal {
            journal.seed = scenario.seed;
            journal.accounts = scenario.accounts();
        }
        config.scenario = scenario;
        Ok(config)
    }
}

/// A change while the run goes on.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Load {
    pub(super) users: Option<u64>,
    /// How fast the users come or go; without it as the run began, 0 at once.
    spawn_rate: Option<u64>,
    pub(super) rate: Option<u64>,
}

impl Load {
    pub(super) fn apply(
        self,
        session: &mut Running,
        spawn_rate: Option<u64>,
    ) -> Result<(), Problem> {
        if self.users.is_none() && self.rate.is_none() {
            return Err(Problem::invalid("expected users, rate, or both"));
        }
        // A refusal leaves the load as it was: what can still be refused comes first.
        if self.rate.is_some() && session.wanted().rate.is_none() {
            return Err(Refusal::ClosedModel.into());
        }
        if let Some(users) = self.users {
            let per_second = self.spawn_rate.or(spawn_rate).and_then(NonZeroU64::new);
            session.set_users(users, per_second)?;
        }
        if let Some(rate) = self.rate {
            session.set_rate(rate)?;
        }
        Ok(())
    }
}

fn bounded<T: PartialOrd + From<u8> + std::fmt::Display>(
    field: &str,
    value: T,
    max: T,
) -> Result<T, Problem> {
    if value < T::from(1) || max < value {
        return Err(Problem::invalid(format!("{field}: expected 1 to {max}")));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Parsed, parse};

    fn base(flags: &str) -> Config {
        let line = format!("loadtest run --web 127.0.0.1:0 {flags}");
        let line = line.split_whitespace().map(std::ffi::OsString::from);
        let Parsed::Run(config) = parse(line) else {
            panic!("not a run: {flags}");
        };
        *config
    }

    fn next(flags: &str, form: &str) -> Result<Config, Problem> {
        let form: Start = serde_json::from_str(form).unwrap();
        form.config(&base(flags))
    }

    #[test]
    fn what_the_page_leaves_out_is_as_the_command_line_has_it() {
        let stages = "--stage duration=5s,rate=10..100 --users 7 --threads 9";
        let same = next(stages, "{}").unwrap();
        assert_eq!(same.rate().map(|rate| rate.get()), Some(100));
        assert_eq!(same.scenario.load.run_time, Duration::from_secs(5));
        assert_eq!(same.threads, 7, "each thread needs a connection");
        let other = next(stages, r#"{"users": 3, "run_time_seconds": 0.5}"#).unwrap();
        assert_eq!((other.scenario.load.users, other.rate()), (3, None));
        assert_eq!(other.scenario.load.run_time, Duration::from_millis(500));
        assert_eq!(other.threads, 9, "more users may come");
    }

    #[test]
    fn zero_turns_a_field_off() {
        let flags = "--rate 50 --spawn-rate 5 --run-time 3s";
        let all = r#"{"rate": 0, "spawn_rate": 0, "run_time_seconds": 0}"#;
        let load = next(flags, all).unwrap().scenario.load;
        assert_eq!(
            (load.arrivals.is_none(), load.run_time),
            (true, RUN_TIME_MAX)
        );
        assert_eq!(load.staff.level_at(Duration::ZERO), 64);
    }

    #[test]
    fn each_run_has_a_seed_of_its_own_unless_it_is_given() {
        let seeds = |flags: &str| {
            let base = base(flags);
            let seed = || Start::default().config(&base).unwrap().scenario.seed;
            (seed(), seed())
        };
        let (one, other) = seeds("");
        assert_ne!(one, other);
        assert_eq!(seeds("--seed 7"), (7, 7));
    }

    #[test]
    fn what_the_command_line_refuses_is_refused() {
        for (flags, form, part) in [
            ("", r#"{"users": 0}"#, "users"),
            ("", r#"{"run_time_seconds": 86401}"#, "86400"),
            ("", r#"{"spawn_rate": 10000001}"#, "spawn_rate"),
            ("--think 1s", r#"{"rate": 5}"#, "think"),
        ] {
            let problem = next(flags, form).unwrap_err();
            assert!(problem.detail().contains(part), "{form}: {problem:?}");
        }
    }
}
