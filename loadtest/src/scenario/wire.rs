//! A checked scenario on its way to another machine.
//!
//! Owns: its spelling: a scenario file for the classes, numbers for the load.
//! Never: trusts what arrives; it is read and checked like a file.
//! Invariant: what was written is read back equal.

use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::amount::Amount;
use super::file::Source;
use super::flags::{Keys, LoadArgs, ScenarioArgs};
use super::load::{Load, RATE_MAX, RUN_TIME_MAX, USERS_MAX};
use super::{Class, Scenario};
use crate::stages::{Stage, Stages};

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScenarioText {
    /// Apart: TOML's integers are signed.
    seed: u64,
    /// `[[classes]]` as a scenario file has them, with every field said.
    classes: String,
    users: u32,
    staff: Vec<Stage>,
    arrivals: Option<Vec<Stage>>,
    run_time: Duration,
}

impl ScenarioText {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let load = &scenario.load;
        Self {
            seed: scenario.seed,
            classes: scenario.classes.iter().map(text).collect(),
            users: load.users,
            staff: load.staff.stages(),
            arrivals: load.arrivals.as_ref().map(Stages::stages),
            run_time: load.run_time,
        }
    }

    /// # Errors
    /// What is wrong with it.
    pub(crate) fn read(self) -> Result<Scenario, String> {
        let args = ScenarioArgs {
            seed: Some(self.seed),
            ..ScenarioArgs::default()
        };
        let source = Source::of("scenario", &self.classes);
        let mut scenario = Scenario::from_source(Some(&source), &args, &LoadArgs::default())?;
        if !(1..=USERS_MAX).contains(&self.users) {
            return Err(format!("users: expected 1 to {USERS_MAX}"));
        }
        if self.run_time.is_zero() || RUN_TIME_MAX < self.run_time {
            return Err("run time: expected more than zero and at most 24h".to_owned());
        }
        scenario.load = Load {
            users: self.users,
            staff: Stages::new(self.staff, u64::from(USERS_MAX))?,
            arrivals: self
                .arrivals
                .map(|stages| Stages::new(stages, RATE_MAX))
                .transpose()?,
            run_time: self.run_time,
        };
        Ok(scenario)
    }
}

fn text(class: &Class) -> String {
    let amount = match &class.amount {
        Amount::Constant(_) | Amount::Range(_) => quoted(&class.amount.to_string()),
        Amount::List(texts) => {
            let texts: Vec<_> = texts.iter().map(|text| quoted(text)).collect();
            format!("[{}]", texts.join(", "))
        }
    };
    let mut text = format!(
        "[[classes]]\nname = {}\nweight = {}\naccounts = {}\nchoice = {}\namount = {amount}\n\
         keys = {}\nthink_time = {}\n",
        quoted(&class.name),
        class.weight,
        quoted(&class.population.accounts().to_string()),
        quoted(&class.population.choice().to_string()),
        class.keys == Keys::On,
        quoted(&class.think.to_string()),
    );
    for task in &class.tasks {
        // Writing to a string cannot fail.
        write!(
            text,
            "[[classes.tasks]]\ntask = {}\nname = {}\nweight = {}\n",
            quoted(&task.task.to_string()),
            quoted(&task.name),
            task.weight
        )
        .ok();
    }
    text
}

/// Names hold no control characters, so JSON's strings are TOML's as well.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::scenario;

    #[track_caller]
    fn check(file: &str) {
        let scenario = scenario(file, &ScenarioArgs::default()).unwrap();
        let text = serde_json::to_string(&ScenarioText::new(&scenario)).unwrap();
        let read: ScenarioText = serde_json::from_str(&text).unwrap();
        assert_eq!(read.read().unwrap(), scenario, "{text}");
    }

    #[test]
    fn every_scenario_arrives_as_it_was_sent() {
        check("");
        check("seed = 9223372036854775807\nusers = 7\nspawn_rate = 3\nrate = 11\nrun_time = '90s'");
        check(crate::scenario::init::EXAMPLE);
        check(
            "[[stages]]\nduration = '1500ms'\nrate = 10\n\
             [[stages]]\nduration = '2s'\nrate = 500\nramp = 'linear'\n\
             [[classes]]\nname = 'a \"b\" \\ \u{e9}'\nweight = 3\nchoice = 'zipf:1.1'\n\
             amount = ['1.50']\nthink_time = '1ns..=1h'\n\
             tasks = [{ task = 'batch:7', name = 'x', weight = 2 }, { task = 'lookup' }]\n\
             [[classes]]\nname = 'c'\naccounts = '5..=9'\nchoice = 'hot:0.000001:2'\n\
             amount = '0.010..=2'\nkeys = false\ntasks = [{ task = 'transfer' }, { task = 'history:3' }]\n",
        );
        check(
            "[[stages]]\nduration = '1s'\nusers = 0\n[[stages]]\nduration = '1s'\nusers = 9\nramp = 'linear'",
        );
    }

    #[test]
    fn what_arrives_is_checked_like_a_file() {
        let good = ScenarioText::new(&scenario("", &ScenarioArgs::default()).unwrap());
        let check = |change: fn(&mut ScenarioText), part: &str| {
            let mut text = good.clone();
            change(&mut text);
            let problem = text.read().unwrap_err();
            assert!(problem.contains(part), "{problem}");
        };
        check(|text| text.users = 20_001, "users");
        check(|text| text.run_time = Duration::ZERO, "run time");
        check(|text| text.staff.clear(), "stages");
        check(|text| text.staff[0].to = 20_001, "above");
        check(|text| text.arrivals = Some(Vec::new()), "stages");
        check(
            |text| text.classes = text.classes.replace("1..=1000", "5..=5"),
            "two accounts",
        );
        check(|text| text.classes.push_str("other = 1"), "other");
    }
}
