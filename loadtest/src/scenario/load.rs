//! How much load, how long, and how it changes.
//!
//! Owns: users, rate and run time of a checked scenario, and how flags and file
//! come together in them.
//! Never: keeps time; who runs the load does.
//! Bound: `USERS_MAX`, `RATE_MAX`, `RUN_TIME_MAX`.
//! Invariant: users are staffed and requests arrive for the whole run time.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

use super::build::{Wrong, wrong};
use super::file::{Document, RawStage};
use super::flags::LoadArgs;
use crate::stages::{Kind, Stage, Stages};

/// One address pair has about 28,000 client ports on a default Linux.
pub(crate) const USERS_MAX: u32 = 20_000;
pub(crate) const RATE_MAX: u64 = 10_000_000;
pub(crate) const RUN_TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
const USERS_DEFAULT: u32 = 64;
const RUN_TIME_DEFAULT: Duration = Duration::from_secs(10);

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
    /// The most users, or connections in the open model, at any time.
    pub(crate) users: u32,
    /// How many there are over time.
    pub(crate) staff: Stages,
    /// Requests per second over time; none is the closed model.
    pub(crate) arrivals: Option<Stages>,
    pub(crate) run_time: Duration,
}

/// How a stage of a file comes to its level from that of the stage before, at
/// first zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Ramp {
    /// At once, and held.
    Step,
    /// Evenly over its whole duration.
    Linear,
}

/// A flag takes the place of the field of its name; a flag that says what the
/// load is (`--users` of a closed model, `--rate`, `--stage`) that of all stages.
pub(super) fn load(document: &Document, args: &LoadArgs) -> Result<Load, Wrong> {
    let users = bounded(document.users.as_ref(), "users", u64::from(USERS_MAX))?;
    let users = users.and_then(|users| u32::try_from(users).ok());
    let spawn_rate = bounded(document.spawn_rate.as_ref(), "spawn_rate", RATE_MAX)?;
    let rate = bounded(document.rate.as_ref(), "rate", RATE_MAX)?;
    let stages = match of_flags(args)? {
        Some(stages) => Some(stages),
        None => of_file(document)?.filter(|(kind, _)| match kind {
            Kind::Users => args.users.is_none() && args.rate.is_none(),
            Kind::Rate => args.rate.is_none(),
        }),
    };
    let run_time = document.run_time.as_ref().map(|time| time.get_ref().0.0);
    let run_time = args.run_time.or(run_time).or(args.run_time_unsaid);
    if stages.is_some() && args.run_time.is_some() {
        return Err(Wrong::of_flag("run_time", "the stages say that already"));
    }
    let (of_users, arrivals) = match stages {
        Some((Kind::Users, stages)) => (Some(stages), None),
        Some((Kind::Rate, stages)) => (None, Some(stages)),
        None => (None, None),
    };
    if let Some(staff) = of_users {
        if args.spawn_rate.or(spawn_rate).is_some() {
            let at = document.spawn_rate.as_ref().map_or(0..0, Spanned::span);
            let message = "the stages say already how users come and go: leave it out";
            return Err(wrong(at, "spawn_rate", message));
        }
        return Ok(Load {
            users: u32::try_from(staff.peak()).unwrap_or(USERS_MAX),
            run_time: staff.total(),
            staff,
            arrivals: None,
        });
    }
    let run_time = arrivals
        .as_ref()
        .map_or(run_time.unwrap_or(RUN_TIME_DEFAULT), Stages::total);
    let rate = args.rate.or(rate);
    let arrivals = arrivals.or_else(|| Some(Stages::constant(rate?, run_time)));
    let users = args.users.or(users).unwrap_or(USERS_DEFAULT);
    let staff = match args.spawn_rate.or(spawn_rate) {
        Some(per_second) => Stages::grow(u64::from(users), per_second),
        None => Stages::constant(u64::from(users), run_time),
    };
    Ok(Load {
        users,
        staff,
        arrivals,
        run_time,
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

fn level_max(kind: Kind) -> u64 {
    match kind {
        Kind::Users => u64::from(USERS_MAX),
        Kind::Rate => RATE_MAX,
    }
}

/// The stages of `--stage`.
fn of_flags(args: &LoadArgs) -> Result<Option<(Kind, Stages)>, Wrong> {
    let Some((kind, _)) = args.stages.first().copied() else {
        return Ok(None);
    };
    if args.stages.iter().any(|(other, _)| *other != kind) {
        let message = "give rate= in all of them, or users= in all of them";
        return Err(Wrong::of_flag("stage", message));
    }
    let contradicts = match kind {
        Kind::Users if args.users.is_some() => Some("users"),
        Kind::Users if args.spawn_rate.is_some() => Some("spawn_rate"),
        Kind::Users | Kind::Rate if args.rate.is_some() => Some("rate"),
        Kind::Users | Kind::Rate => None,
    };
    if let Some(name) = contradicts {
        return Err(Wrong::of_flag(
            name,
            "the stages say that already: leave it out",
        ));
    }
    let stages = args.stages.iter().map(|(_, stage)| *stage).collect();
    Stages::new(stages, level_max(kind))
        .map(|stages| Some((kind, stages)))
        .map_err(|message| Wrong::of_flag("stage", &message))
}

/// The stages of a file.
fn of_file(document: &Document) -> Result<Option<(Kind, Stages)>, Wrong> {
    let Some(first) = document.stages.first() else {
        return Ok(None);
    };
    let alone: [(&str, Option<Range<usize>>); 2] = [
        ("rate", document.rate.as_ref().map(Spanned::span)),
        ("run_time", document.run_time.as_ref().map(Spanned::span)),
    ];
    for (field, at) in alone {
        if let Some(at) = at {
            let message = "the stages say that already: leave one out";
            return Err(wrong(at, field, message));
        }
    }
    let kind = match first.get_ref().users {
        Some(_) => Kind::Users,
        None => Kind::Rate,
    };
    let mut all = Vec::new();
    let mut before = 0;
    for (index, raw) in document.stages.iter().enumerate() {
        let stage = raw.get_ref();
        let to = level(stage, kind)
            .map_err(|message| wrong(raw.span(), format!("stages[{index}]"), message))?;
        all.push(Stage {
            duration: stage.duration.0.0,
            from: match stage.ramp.unwrap_or(Ramp::Step) {
                Ramp::Step => to,
                Ramp::Linear => before,
            },
            to,
        });
        before = to;
    }
    Stages::new(all, level_max(kind))
        .map(|stages| Some((kind, stages)))
        .map_err(|message| wrong(first.span(), "stages", message))
}

fn level(stage: &RawStage, kind: Kind) -> Result<u64, String> {
    let level = match (kind, stage.users, stage.rate) {
        (Kind::Users, Some(users), None) => u64::from(users),
        (Kind::Rate, None, Some(rate)) => rate,
        (_, None, None) => return Err("expected users or rate".to_owned()),
        (_, Some(_), Some(_)) => return Err("expected users or rate, not both".to_owned()),
        (Kind::Users, None, Some(_)) | (Kind::Rate, Some(_), None) => {
            return Err("expected users in every stage, or rate in every stage".to_owned());
        }
    };
    if level > level_max(kind) {
        return Err(format!("expected at most {}", level_max(kind)));
    }
    Ok(level)
}
