//! From a file and flags to a checked scenario.
//!
//! Owns: the defaults, the order of precedence (flag, class, `[defaults]`,
//! built-in) and every rule between two fields.
//! Never: reads a file or a clock.
//! Invariant: flags and the equivalent file give equal scenarios.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher};
use std::num::{NonZeroU32, NonZeroU64};
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

use super::accounts::{Accounts, Choice, Population};
use super::amount::Amount;
use super::file::{AmountField, Document, RawClass, RawStage, RawTask, Settings, Source, Text};
use super::flags::{Keys, ScenarioArgs};
use super::load::{
    Load, Model, RATE_MAX, RUN_TIME_DEFAULT, Ramp, Stage, Stages, USERS_DEFAULT, USERS_MAX,
};
use super::task::Task;
use super::think::Think;
use super::{Class, Scenario, WeightedTask};

const CLASSES_MAX: usize = 64;
const TASKS_MAX: usize = 64;
/// So that a sum over all of them fits 32 bits.
const WEIGHT_MAX: u32 = 1_000_000;
const NAME_BYTES_MAX: usize = 64;

/// The flags of the load model, where they were given.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LoadFlags {
    pub(crate) users: Option<u32>,
    pub(crate) rate: Option<u64>,
    pub(crate) run_time: Option<Duration>,
}

/// Something that is wrong, and where.
struct Wrong {
    at: Range<usize>,
    field: String,
    message: String,
}

fn wrong(at: Range<usize>, field: impl Into<String>, message: impl Into<String>) -> Wrong {
    Wrong {
        at,
        field: field.into(),
        message: message.into(),
    }
}

impl Scenario {
    /// The scenario of a file, if one is named, under the flags.
    ///
    /// # Errors
    /// What is wrong, with file, line and field, or the flag.
    pub(crate) fn new(args: &ScenarioArgs, load: LoadFlags) -> Result<Self, String> {
        let source = args.scenario.as_deref().map(Source::read).transpose()?;
        Self::from_source(source.as_ref(), args, load)
    }

    pub(super) fn from_source(
        source: Option<&Source>,
        args: &ScenarioArgs,
        flags: LoadFlags,
    ) -> Result<Self, String> {
        let mut document = source.map(Source::parse).transpose()?.unwrap_or_default();
        if let Some(task) = args.task {
            document.classes = vec![Spanned::new(0..0, RawClass::of(task))];
        } else if document.classes.is_empty() {
            document.classes = vec![Spanned::new(0..0, RawClass::of(Task::Transfer))];
        }
        build(&document, args, flags).map_err(|wrong| match source {
            Some(source) => source.error(&wrong.at, &wrong.field, &wrong.message),
            None => format!("--{}: {}", leaf(&wrong.field), wrong.message),
        })
    }
}

/// `accounts` of `classes[0].accounts`: without a file the flag of that name.
fn leaf(field: &str) -> &str {
    field.rsplit_once('.').map_or(field, |(_, last)| last)
}

fn build(document: &Document, args: &ScenarioArgs, flags: LoadFlags) -> Result<Scenario, Wrong> {
    let forced = Settings {
        accounts: args.accounts.map(Text),
        choice: args.choice.or(args.hot.map(Choice::hot)).map(Text),
        amount: args.amount.clone().map(AmountField),
        keys: args.keys.map(|keys| keys == Keys::On),
        think_time: None,
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
    Ok(Scenario {
        seed: args.seed.or(document.seed).unwrap_or_else(fresh_seed),
        classes,
        load: load(document, flags)?,
    })
}

/// A seed nobody used: the standard library keys its hash maps from the system.
fn fresh_seed() -> u64 {
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

fn load(document: &Document, flags: LoadFlags) -> Result<Load, Wrong> {
    let users = bounded(document.users.as_ref(), "users", u64::from(USERS_MAX))?;
    let users = users.and_then(|users| u32::try_from(users).ok());
    let spawn_rate = bounded(document.spawn_rate.as_ref(), "spawn_rate", RATE_MAX)?;
    let rate = bounded(document.rate.as_ref(), "rate", RATE_MAX)?;
    let stages = stages(document)?.filter(|stages| match stages.model() {
        // A flag for a constant load takes the place of stages.
        Model::Closed => flags.users.is_none() && flags.rate.is_none(),
        Model::Open => flags.rate.is_none(),
    });
    let of_stages = stages.as_ref().and_then(|stages| match stages.model() {
        Model::Closed => u32::try_from(stages.peak()).ok(),
        Model::Open => None,
    });
    let total = stages.as_ref().map(Stages::total);
    let run_time = document.run_time.as_ref().map(|time| time.get_ref().0.0);
    Ok(Load {
        users: flags.users.or(of_stages).or(users).unwrap_or(USERS_DEFAULT),
        spawn_rate: spawn_rate
            .and_then(|rate| u32::try_from(rate).ok())
            .and_then(NonZeroU32::new),
        rate: flags.rate.or(rate).and_then(NonZeroU64::new),
        run_time: flags
            .run_time
            .or(total)
            .or(run_time)
            .unwrap_or(RUN_TIME_DEFAULT),
        stages,
    })
}

fn bounded<T: Copy + Into<u64>>(
    given: Option<&Spanned<T>>,
    field: &str,
    max: u64,
) -> Result<Option<u64>, Wrong> {
    let Some(given) = given else {
        return Ok(None);
    };
    let value = (*given.get_ref()).into();
    if (1..=max).contains(&value) {
        return Ok(Some(value));
    }
    Err(wrong(given.span(), field, format!("expected 1 to {max}")))
}

fn stages(document: &Document) -> Result<Option<Stages>, Wrong> {
    let Some(first) = document.stages.first() else {
        return Ok(None);
    };
    let alone = [
        ("rate", document.rate.as_ref().map(Spanned::span)),
        ("run_time", document.run_time.as_ref().map(Spanned::span)),
    ];
    for (field, at) in alone {
        if let Some(at) = at {
            return Err(wrong(
                at,
                field,
                "the stages say that already: leave one out",
            ));
        }
    }
    let model = match first.get_ref().users {
        Some(_) => Model::Closed,
        None => Model::Open,
    };
    let mut all = Vec::new();
    for (index, raw) in document.stages.iter().enumerate() {
        let level = level(raw.get_ref(), model)
            .map_err(|message| wrong(raw.span(), format!("stages[{index}]"), message))?;
        all.push(Stage {
            duration: raw.get_ref().duration.0.0,
            level,
            ramp: raw.get_ref().ramp.unwrap_or(Ramp::Step),
        });
    }
    let stages = Stages::new(model, all);
    stages
        .map(Some)
        .map_err(|message| wrong(first.span(), "stages", message))
}

fn level(stage: &RawStage, model: Model) -> Result<u64, String> {
    let (level, max) = match (model, stage.users, stage.rate) {
        (Model::Closed, Some(users), None) => (u64::from(users), u64::from(USERS_MAX)),
        (Model::Open, None, Some(rate)) => (rate, RATE_MAX),
        (_, None, None) => return Err("expected users or rate".to_owned()),
        (_, Some(_), Some(_)) => return Err("expected users or rate, not both".to_owned()),
        (Model::Closed, None, Some(_)) | (Model::Open, Some(_), None) => {
            return Err("expected users in every stage, or rate in every stage".to_owned());
        }
    };
    if level > max {
        return Err(format!("expected at most {max}"));
    }
    Ok(level)
}
