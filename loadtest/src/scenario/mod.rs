//! What is sent, by whom, and how much of it.
//!
//! Owns: the scenario of a run, from a file, from flags, or from both.
//! Never: makes a request or keeps time.
//! Bound: 64 classes of 64 tasks; `load` bounds users, rates and stages.
//! Invariant: a [`Scenario`] can be run as it is.

mod accounts;
mod amount;
mod build;
mod file;
mod flags;
mod init;
mod load;
mod task;
#[cfg(test)]
mod tests;
mod think;
mod wire;

pub(crate) use accounts::{Accounts, Population};
pub(crate) use amount::Amount;
pub(crate) use build::fresh_seed;
pub(crate) use flags::{Keys, LoadArgs, ScenarioArgs};
pub(crate) use init::{InitArgs, write_example};
pub(crate) use load::{Load, RATE_MAX, RUN_TIME_MAX, USERS_MAX, parse_run_time};
pub(crate) use task::{BATCH_MAX, Task};
pub(crate) use think::Think;
pub(crate) use wire::ScenarioText;

/// A checked scenario.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) classes: Vec<Class>,
    pub(crate) load: Load,
}

/// Users that are alike.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Class {
    pub(crate) name: String,
    /// Its share of the users, relative to the other classes.
    pub(crate) weight: u32,
    pub(crate) tasks: Vec<WeightedTask>,
    pub(crate) think: Think,
    pub(crate) population: Population,
    pub(crate) amount: Amount,
    pub(crate) keys: Keys,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WeightedTask {
    /// Unique in the scenario: reports count by it.
    pub(crate) name: String,
    /// How often it is chosen, relative to the other tasks of its class.
    pub(crate) weight: u32,
    pub(crate) task: Task,
}

impl Scenario {
    /// The names of all tasks, in the order of their indices in reports.
    pub(crate) fn task_names(&self) -> Vec<String> {
        let tasks = self.classes.iter().flat_map(|class| &class.tasks);
        tasks.map(|task| task.name.clone()).collect()
    }

    /// The lowest and the highest account of any class.
    pub(crate) fn accounts(&self) -> Accounts {
        let of_class = |class: &Class| class.population.accounts();
        let all = self.classes.iter().map(of_class);
        all.reduce(Accounts::spanning).unwrap_or(Accounts::DEFAULT)
    }

    /// What the classes have in a place, each once, in words.
    pub(crate) fn each<T: ToString>(&self, what: impl Fn(&Class) -> T) -> String {
        let mut texts: Vec<String> = Vec::new();
        for class in &self.classes {
            let text = what(class).to_string();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        texts.join(", ")
    }
}

/// The scenario of a file with this text.
#[cfg(test)]
pub(crate) fn scenario(text: &str, args: &ScenarioArgs) -> Result<Scenario, String> {
    let source = file::Source::of("test.toml", text);
    Scenario::from_source(Some(&source), args, &LoadArgs::default())
}
