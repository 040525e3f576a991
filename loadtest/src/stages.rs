//! A level over time: users, connections, or requests a second.
//!
//! Owns: the stages of a run and their arithmetic, in integers only.
//! Never: reads a clock; the time comes in.
//! Bound: [`STAGES_MAX`] stages and [`TOTAL_MAX`] in all.
//! Invariant: a change leaves what came before it as it was; a stage's level is
//! never negative and no product here exceeds 128
//! bits: 24 h in nanoseconds, squared, times 10^7 is 8 x 10^34.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) const STAGES_MAX: usize = 1_000;
pub(crate) const TOTAL_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Part of an arrival: a rate in requests a second over time in nanoseconds,
/// doubled, so that the area under a ramp has no half.
pub(crate) const PARTS_PER_ARRIVAL: i128 = 2_000_000_000;

/// A straight line from one level to another; equal levels are a plateau.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Stage {
    pub(crate) duration: Duration,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// What the level of a stage means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Requests a second: the open model.
    Rate,
    /// Users: the closed model.
    Users,
}

impl Stage {
    pub(crate) fn nanos(&self) -> i128 {
        i128::try_from(self.duration.as_nanos()).unwrap_or(i128::MAX)
    }

    fn slope(&self) -> i128 {
        i128::from(self.to) - i128::from(self.from)
    }

    /// Arrivals of the whole stage, in parts.
    pub(crate) fn parts(&self) -> i128 {
        (i128::from(self.from) + i128::from(self.to)) * self.nanos()
    }

    /// Arrivals up to `nanos`, in parts times the stage's length (a ramp's area
    /// has that denominator).
    pub(crate) fn scaled_parts_by(&self, nanos: i128) -> i128 {
        2 * i128::from(self.from) * self.nanos() * nanos + self.slope() * nanos * nanos
    }

    /// The last nanosecond until which no more than `parts` have arrived.
    pub(crate) fn last_within(&self, parts: i128) -> i128 {
        if self.slope() == 0 && self.from > 0 {
            return parts / (2 * i128::from(self.from));
        }
        let limit = parts * self.nanos();
        let (mut low, mut high) = (0, self.nanos());
        // A square root would need 140 bits; 47 halvings cover a day.
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.scaled_parts_by(middle) <= limit {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// A stage in its place: a change of the load cuts it short without bending it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    stage: Stage,
    lasts: Duration,
}

impl Part {
    pub(crate) const fn lasts(&self) -> Duration {
        self.lasts
    }

    /// Of the whole stage: the denominator of [`Part::scaled_parts_by`].
    pub(crate) fn nanos(&self) -> i128 {
        self.stage.nanos()
    }

    /// Arrivals until it ends; of a cut ramp less than a part is lost.
    pub(crate) fn parts(&self) -> i128 {
        if self.lasts == self.stage.duration {
            return self.stage.parts();
        }
        let lasts = i128::try_from(self.lasts.as_nanos()).unwrap_or(i128::MAX);
        self.scaled_parts_by(lasts) / self.nanos()
    }

    pub(crate) fn scaled_parts_by(&self, nanos: i128) -> i128 {
        self.stage.scaled_parts_by(nanos)
    }

    pub(crate) fn last_within(&self, parts: i128) -> i128 {
        self.stage.last_within(parts)
    }

    fn peak(&self) -> u64 {
        let end = if self.lasts == self.stage.duration {
            self.stage.to
        } else {
            self.level_at(self.lasts)
        };
        self.stage.from.max(end)
    }

    /// Rounded up: the first of a ramp's users starts at once.
    fn level_at(&self, into: Duration) -> u64 {
        let stage = &self.stage;
        let into = i128::try_from(into.as_nanos()).unwrap_or(i128::MAX);
        let scaled = i128::from(stage.from) * stage.nanos() + stage.slope() * into;
        let level = (scaled + stage.nanos() - 1) / stage.nanos();
        u64::try_from(level).unwrap_or(0)
    }
}

impl From<Stage> for Part {
    fn from(stage: Stage) -> Self {
        Self {
            stage,
            lasts: stage.duration,
        }
    }
}

/// The stages of a run, one after another; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stages(Arc<[Part]>);

/// Another level from a moment on, whatever the stages say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Change {
    pub(crate) at: Duration,
    pub(crate) level: u64,
    /// How fast the level gets there; at once without.
    pub(crate) per_second: Option<NonZeroU64>,
}

impl Change {
    /// A change that begins `lead` from now, so that every thread hears of it before.
    ///
    /// Gives nothing if a run of `run_time`, which began `elapsed` ago, sends no more by then.
    pub(crate) fn ahead(
        lead: Duration,
        elapsed: Option<Duration>,
        run_time: Duration,
        level: u64,
        per_second: Option<NonZeroU64>,
    ) -> Option<Self> {
        let at = elapsed? + lead;
        (at < run_time).then_some(Self {
            at,
            level,
            per_second,
        })
    }
}

impl Stages {
    /// # Errors
    /// What is wrong, in words for whoever wrote the stages.
    pub(crate) fn new(stages: Vec<Stage>, level_max: u64) -> Result<Self, String> {
        if stages.is_empty() || STAGES_MAX < stages.len() {
            return Err(format!("expected 1 to {STAGES_MAX} stages"));
        }
        if stages.iter().any(|stage| stage.duration.is_zero()) {
            return Err("a stage must last more than zero".to_owned());
        }
        if stages
            .iter()
            .any(|stage| level_max < stage.from.max(stage.to))
        {
            return Err(format!("a stage may not go above {level_max}"));
        }
        let stages = Self(stages.into_iter().map(Part::from).collect());
        if TOTAL_MAX < stages.total() {
            return Err("the stages may last 24h together".to_owned());
        }
        if stages.peak() == 0 {
            return Err("at least one stage must be above zero".to_owned());
        }
        Ok(stages)
    }

    /// One level all the time.
    pub(crate) fn constant(level: u64, duration: Duration) -> Self {
        Self(Arc::new([plateau(level, duration).into()]))
    }

    /// From nothing to `level` at `per_second`, and on at that level.
    pub(crate) fn grow(level: u64, per_second: u64) -> Self {
        let per_second = NonZeroU64::new(per_second).unwrap_or(NonZeroU64::MIN);
        Self(Arc::new([ramp(0, level, per_second).into()]))
    }

    /// The same until the change, and the new level from there to `end` and on.
    pub(crate) fn changed(&self, change: Change, end: Duration) -> Self {
        let Change { at, level, .. } = change;
        let mut parts = Vec::new();
        let mut begin = Duration::ZERO;
        for part in self.0.iter() {
            let lasts = part.lasts.min(at.saturating_sub(begin));
            if lasts.is_zero() {
                break;
            }
            parts.push(Part { lasts, ..*part });
            begin = begin.saturating_add(lasts);
        }
        let before = self.level_at(at);
        let mut push = |stage: Stage| {
            if !stage.duration.is_zero() {
                parts.push(stage.into());
            }
        };
        // The stages were over: the last level went on.
        push(plateau(before, at.saturating_sub(begin)));
        let mut begin = at;
        if let Some(per_second) = change.per_second
            && before != level
        {
            let ramp = ramp(before, level, per_second);
            begin = begin.saturating_add(ramp.duration);
            push(ramp);
        }
        let rest = end.saturating_sub(begin).max(Duration::from_nanos(1));
        push(plateau(level, rest));
        Self(parts.into())
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Part> {
        self.0.get(index)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Part> {
        self.0.iter()
    }

    /// What [`Stages::new`] takes, of stages that were never changed.
    pub(crate) fn stages(&self) -> Vec<Stage> {
        self.0.iter().map(|part| part.stage).collect()
    }

    pub(crate) fn total(&self) -> Duration {
        let add = |sum: Duration, part: &Part| sum.saturating_add(part.lasts);
        self.0.iter().fold(Duration::ZERO, add)
    }

    /// The highest level.
    pub(crate) fn peak(&self) -> u64 {
        let levels = self.0.iter().map(Part::peak);
        levels.max().unwrap_or(0)
    }

    /// Whether the level may still change after `at`.
    pub(crate) fn changes_after(&self, at: Duration) -> bool {
        let first = self.0.first().map_or(0, |part| part.stage.from);
        let level = |part: &Part| part.stage.from == first && part.stage.to == first;
        at < self.total() && !self.0.iter().all(level)
    }

    /// The level at a moment, rounded up: the first of a ramp's users starts at
    /// once. Past the end it stays as it was.
    pub(crate) fn level_at(&self, at: Duration) -> u64 {
        let mut begin = Duration::ZERO;
        for part in self.0.iter() {
            let into = at.saturating_sub(begin);
            if into < part.lasts {
                return part.level_at(into);
            }
            begin = begin.saturating_add(part.lasts);
        }
        self.0.last().map_or(0, |part| part.stage.to)
    }
}

fn plateau(level: u64, duration: Duration) -> Stage {
    Stage {
        duration,
        from: level,
        to: level,
    }
}

fn ramp(from: u64, to: u64, per_second: NonZeroU64) -> Stage {
    let nanos = u128::from(from.abs_diff(to)) * 1_000_000_000 / u128::from(per_second.get());
    let nanos = u64::try_from(nanos).unwrap_or(u64::MAX).max(1);
    Stage {
        duration: Duration::from_nanos(nanos),
        from,
        to,
    }
}

/// Reads `duration=30s,rate=5000`, `duration=10s,rate=0..5000` or the same with
/// `users`.
///
/// # Errors
/// What was expected, in words.
pub(crate) fn parse_stage(text: &str) -> Result<(Kind, Stage), String> {
    const SHAPE: &str =
        "expected duration=30s,rate=5000 (or rate=0..5000 for a ramp, or users= for users)";
    let (mut duration, mut level) = (None, None);
    for part in text.split(',') {
        let (name, value) = part.trim().split_once('=').ok_or(SHAPE)?;
        match name.trim() {
            "duration" if duration.is_none() => {
                let parsed = humantime::parse_duration(value);
                let problem = |_| format!("duration={value}: expected a time such as 30s or 2m");
                duration = Some(parsed.map_err(problem)?);
            }
            "rate" if level.is_none() => level = Some((Kind::Rate, parse_level(value)?)),
            "users" if level.is_none() => level = Some((Kind::Users, parse_level(value)?)),
            _ => return Err(SHAPE.to_owned()),
        }
    }
    let duration = duration.filter(|d| !d.is_zero()).ok_or(SHAPE)?;
    let (kind, (from, to)) = level.ok_or(SHAPE)?;
    Ok((kind, Stage { duration, from, to }))
}

fn parse_level(text: &str) -> Result<(u64, u64), String> {
    let number = |text: &str| {
        text.trim()
            .parse::<u64>()
            .map_err(|error| format!("{text}: {error}; expected 5000, or 0..5000 for a ramp"))
    };
    match text.split_once("..") {
        Some((from, to)) => Ok((number(from)?, number(to)?)),
        None => number(text).map(|level| (level, level)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stages(text: &[&str]) -> Stages {
        let parsed = text.iter().map(|text| parse_stage(text).unwrap().1);
        Stages::new(parsed.collect(), 1_000_000).unwrap()
    }

    #[test]
    fn a_stage_that_is_wrong_names_the_field() {
        let message = parse_stage("duration=x,rate=1").unwrap_err();
        assert!(message.starts_with("duration=x: "), "{message}");
        let message = parse_stage("duration=1s,rate=x").unwrap_err();
        assert!(message.starts_with("x: "), "{message}");
    }

    #[test]
    fn a_stage_reads_as_it_is_written() {
        let (kind, stage) = parse_stage("duration=1m, rate=0..5000").unwrap();
        assert_eq!((kind, stage.from, stage.to), (Kind::Rate, 0, 5000));
        assert_eq!(stage.duration, Duration::from_secs(60));
        let (kind, stage) = parse_stage("users=7,duration=1500ms").unwrap();
        assert_eq!((kind, stage.from, stage.to), (Kind::Users, 7, 7));
        for bad in [
            "",
            "duration=1s",
            "rate=5",
            "duration=1s,rate=5,users=5",
            "duration=1s,duration=1s,rate=1",
            "duration=0s,rate=1",
            "duration=1s,rate=-1",
            "duration=1s,rate=1..",
            "30s:5000",
        ] {
            assert!(parse_stage(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_level_follows_ramps_steps_and_falls() {
        let level = stages(&[
            "duration=10s,users=0..100",
            "duration=1s,users=20",
            "duration=10s,users=20..0",
        ]);
        let at = |millis| level.level_at(Duration::from_millis(millis));
        assert_eq!((at(0), at(1), at(100), at(101)), (0, 1, 1, 2));
        assert_eq!((at(9_999), at(10_000), at(10_999)), (100, 20, 20));
        assert_eq!((at(11_000), at(11_501), at(20_999)), (20, 19, 1));
        assert_eq!((at(21_000), at(99_000)), (0, 0));
        assert_eq!(level.peak(), 100);
        assert!(level.changes_after(Duration::from_secs(20)));
        assert!(!level.changes_after(Duration::from_secs(21)));
        assert!(!Stages::constant(5, Duration::from_secs(9)).changes_after(Duration::ZERO));
    }

    #[test]
    fn users_are_spawned_at_the_rate_that_was_asked_for() {
        let level = Stages::grow(256, 64);
        let mut started = Vec::new();
        for milli in 0..5_000 {
            let now = Duration::from_millis(milli);
            while u64::try_from(started.len()).unwrap() < level.level_at(now) {
                started.push(now);
            }
        }
        assert_eq!(started.len(), 256);
        for (user, at) in started.iter().enumerate() {
            // User n is due at n / 64 s; the simulated clock ticks once a millisecond.
            let due = Duration::from_nanos(1_000_000_000 / 64 * u64::try_from(user).unwrap());
            assert!(*at >= due, "user {user} at {at:?}");
            assert!(*at - due <= Duration::from_millis(1), "user {user}");
        }
    }

    fn change(millis: u64, level: u64, per_second: u64) -> Change {
        Change {
            at: Duration::from_millis(millis),
            level,
            per_second: NonZeroU64::new(per_second),
        }
    }

    #[test]
    fn a_change_holds_from_its_moment_and_leaves_the_past_alone() {
        let end = Duration::from_secs(60);
        let before = stages(&["duration=10s,users=0..100", "duration=1s,users=20"]);
        // On the ramp, in the plateau, and when no stage is left.
        for millis in [0, 5_005, 10_500, 11_000, 30_000] {
            let after = before.changed(change(millis, 7, 0), end);
            for at in (0..40_000).step_by(5).map(Duration::from_millis) {
                let expected = if at < Duration::from_millis(millis) {
                    before.level_at(at)
                } else {
                    7
                };
                assert_eq!(after.level_at(at), expected, "{millis} at {at:?}");
            }
            assert!(after.total() >= end);
            let earlier = Duration::from_millis(millis / 2);
            assert_eq!(after.changes_after(earlier), millis > 0);
        }
    }

    #[test]
    fn a_changed_number_of_users_is_reached_at_the_spawn_rate() {
        let end = Duration::from_secs(60);
        let up = Stages::constant(10, end).changed(change(1_000, 30, 10), end);
        let at = |stages: &Stages, millis| stages.level_at(Duration::from_millis(millis));
        assert_eq!(
            (at(&up, 1_000), at(&up, 1_001), at(&up, 2_000)),
            (10, 11, 20)
        );
        assert_eq!((at(&up, 3_000), at(&up, 99_000)), (30, 30));
        // Changed again on the way, downwards.
        let down = up.changed(change(2_000, 15, 5), end);
        assert_eq!((at(&down, 1_999), at(&down, 2_000)), (20, 20));
        assert_eq!((at(&down, 3_000), at(&down, 59_000)), (15, 15));
    }

    #[test]
    fn limits_are_checked_on_both_sides() {
        let of = |duration, level| Stage {
            duration,
            from: level,
            to: level,
        };
        let second = Duration::from_secs(1);
        assert!(Stages::new(vec![of(second, 10)], 10).is_ok());
        assert!(Stages::new(vec![of(second, 11)], 10).is_err());
        assert!(Stages::new(vec![of(second, 0)], 10).is_err());
        assert!(Stages::new(Vec::new(), 10).is_err());
        assert!(Stages::new(vec![of(TOTAL_MAX, 1)], 10).is_ok());
        assert!(Stages::new(vec![of(TOTAL_MAX, 1), of(second, 1)], 10).is_err());
        assert!(Stages::new(vec![of(second, 1); STAGES_MAX + 1], 10).is_err());
    }
}
