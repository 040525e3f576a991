//! From a file and flags to a checked scenario.
//!
//! Owns: the defaults, the order of precedence (flag, class, `[defaults]`,
//! built-in) and every rule between two fields.
//! Never: reads a file or a clock.
//! Invariant: flags and the equivalent file give equal scenarios.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher};
use std::ops::Range;

use toml::Spanned;

use super::accounts::{Accounts, Choice, Population};
use super::amount::Amount;
use super::file::{AmountField, Document, RawClass, RawTask, Settings, Source, Text};
use super::flags::{Keys, LoadArgs, ScenarioArgs};
use super::load::load;
use super::task::Task;
use super::think::Think;
use super::{Class, Scenario, WeightedTask};

const CLASSES_MAX: usize = 64;
const TASKS_MAX: usize = 64;
/// So that a sum over all of them fits 32 bits.
const WEIGHT_MAX: u32 = 1_000_000;
const NAME_BYTES_MAX: usize = 64;

/// Something that is wrong, and where.
pub(super) struct Wrong {
    /// In the file; none is a flag.
    at: Option<Range<usize>>,
    field: String,
    message: String,
}

impl Wrong {
    pub(super) fn of_flag(name: &str, message: &str) -> Self {
        Self {
            at: None,
            field: name.to_owned(),
            message: message.to_owned(),
        }
    }
}

pub(super) fn wrong(
    at: Range<usize>,
    field: impl Into<String>,
    message: impl Into<String>,
) -> Wrong {
    Wrong {
        at: Some(at),
        field: field.into(),
        message: message.into(),
    }
}

impl Scenario {
    /// The scenario of a file, if one is named, under the flags.
    ///
    /// # Errors
    /// What is wrong, with file, line and field, or the flag.
    pub(crate) fn new(args: &ScenarioArgs, load: &LoadArgs) -> Result<Self, String> {
        let source = args.scenario.as_deref().map(Source::read).transpose()?;
        Self::from_source(source.as_ref(), args, load)
    }

    pub(super) fn from_source(
        source: Option<&Source>,
        args: &ScenarioArgs,
        flags: &LoadArgs,
    ) -> Result<Self, String> {
        let mut document = source.map(Source::parse).transpose()?.unwrap_or_default();
        if let Some(task) = args.task {
            document.classes = vec![Spanned::new(0..0, RawClass::of(task))];
        } else if document.classes.is_empty() {
            document.classes = vec![Spanned::new(0..0, RawClass::of(Task::Transfer))];
        }
        build(&document, args, flags).map_err(|wrong| match (source, wrong.at) {
            (Some(source), Some(at)) => source.error(&at, &wrong.field, &wrong.message),
            (_, _) => format!("{}: {}", flag_of(&wrong.field), wrong.message),
        })
    }
}

/// `--accounts` of `classes[0].accounts`: without a file the flag of that name.
fn flag_of(field: &str) -> String {
    let leaf = field.rsplit_once('.').map_or(field, |(_, last)| last);
    format!("--{}", leaf.replace('_', "-"))
}

fn build(document: &Document, args: &ScenarioArgs, flags: &LoadArgs) -> Result<Scenario, Wrong> {
    let forced = Settings {
        accounts: args.accounts.map(Text),
        choice: args.choice.or(args.hot.map(Choice::hot)).map(Text),
        amount: args.amount.clone().map(AmountField),
        keys: args.keys.map(|keys| keys == Keys::On),
        think_time: args.think.map(Text),
    };
    if document.classes.len() > CLASSES_MAX {
        let at = document.classes[CLASSES_MAX].span();
        let message = format!("expected at most {CLASSES_MAX} classes");
        return Err(wrong(at, "classes", message));
    }
    let mut names = BTreeSet::new();
    let mut classes = Vec::new();
    for (index, raw) in document.classes.iter().enumerate() {
        let at = |field: &str| (raw.span(), format!("classes[{index}].{field}"));
        let settings = raw.get_ref().settings(&forced, &document.defaults);
        let class = class(raw.get_ref(), settings, document.classes.len()).map_err(
            |(field, message)| {
                let (at, field) = at(&field);
                wrong(at, field, message)
            },
        )?;
        for task in &class.tasks {
            if !names.insert(task.name.clone()) {
                let (at, field) = at("tasks");
                let message = format!("two tasks are called {:?}: give one a name", task.name);
                return Err(wrong(at, field, message));
            }
        }
        classes.push(class);
    }
    let load = load(document, flags)?;
    if load.arrivals.is_some() && args.think.is_some_and(|think| !think.is_zero()) {
        let message = "with a rate nobody thinks; the rate says when to send";
        return Err(Wrong::of_flag("think", message));
    }
    Ok(Scenario {
        seed: args.seed.or(document.seed).unwrap_or_else(fresh_seed),
        classes,
        load,
    })
}

/// A seed nobody used: the standard library keys its hash maps from the system.
pub(crate) fn fresh_seed() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

/// Field and message.
type ClassError = (String, String);

fn class(raw: &RawClass, settings: Settings, class_count: usize) -> Result<Class, ClassError> {
    let error = |field: &str, message: String| (field.to_owned(), message);
    check_name(&raw.name).map_err(|message| error("name", message))?;
    let tasks = tasks(raw, class_count)?;
    let accounts = settings.accounts.map_or(Accounts::DEFAULT, |text| text.0);
    let choice = settings.choice.map_or(Choice::Uniform, |text| text.0);
    let moves = tasks.iter().any(|task| task.task.transfers());
    if moves && accounts.count() < 2 {
        let message = format!("{accounts}: a transfer needs two accounts");
        return Err(error("accounts", message));
    }
    let population =
        Population::new(accounts, choice).map_err(|message| error("choice", message))?;
    let keys = match settings.keys {
        None | Some(true) => Keys::On,
        Some(false) => Keys::Off,
    };
    for (index, task) in tasks.iter().enumerate() {
        let needs = match task.task {
            Task::Lookup if !moves => "a transfer or batch:N in the same class to look up",
            Task::Repeat if !moves => "a transfer or batch:N in the same class to repeat",
            Task::Repeat if keys == Keys::Off => "keys: without them a repeat pays twice",
            Task::Transfer
            | Task::Batch(_)
            | Task::Balance
            | Task::History(_)
            | Task::Lookup
            | Task::Repeat
            | Task::Health => continue,
        };
        let message = format!("{} needs {needs}", task.task);
        return Err(error(&format!("tasks[{index}].task"), message));
    }
    Ok(Class {
        name: raw.name.clone(),
        weight: weight(raw.weight).map_err(|message| error("weight", message))?,
        tasks,
        think: settings
            .think_time
            .map_or_else(Think::default, |text| text.0),
        population,
        amount: settings
            .amount
            .map_or_else(|| Amount::Constant("1".to_owned()), |field| field.0),
        keys,
    })
}

fn tasks(raw: &RawClass, class_count: usize) -> Result<Vec<WeightedTask>, ClassError> {
    if raw.tasks.is_empty() || raw.tasks.len() > TASKS_MAX {
        let message = format!("expected 1 to {TASKS_MAX} tasks");
        return Err(("tasks".to_owned(), message));
    }
    let one = |(index, task): (usize, &RawTask)| {
        let error = |field: &str, message| (format!("tasks[{index}].{field}"), message);
        let name = match &task.name {
            Some(name) => {
                check_name(name).map_err(|message| error("name", message))?;
                name.clone()
            }
            None if class_count == 1 => task.task.0.to_string(),
            None => format!("{}/{}", raw.name, task.task.0),
        };
        Ok(WeightedTask {
            name,
            weight: weight(task.weight).map_err(|message| error("weight", message))?,
            task: task.task.0,
        })
    };
    raw.tasks.iter().enumerate().map(one).collect()
}

fn weight(given: Option<u32>) -> Result<u32, String> {
    let weight = given.unwrap_or(1);
    if (1..=WEIGHT_MAX).contains(&weight) {
        return Ok(weight);
    }
    Err(format!("expected 1 to {WEIGHT_MAX}"))
}

/// Names go into tables and CSV files.
fn check_name(name: &str) -> Result<(), String> {
    let clean = name.chars().all(|c| !c.is_control());
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !clean {
        return Err(format!(
            "expected 1 to {NAME_BYTES_MAX} bytes without control characters"
        ));
    }
    Ok(())
}
