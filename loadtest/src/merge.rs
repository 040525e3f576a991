//! `loadtest merge`: several generators, one report.
//!
//! Owns: which reports fit together.
//! Never: averages a quantile; histograms are added, count by count.
//! Invariant: the merged report is the one that a single generator with all
//! the connections would have written.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::generator::Generator;
use crate::report::{self, Output, Report, Settings, Verdict};

/// Clocks of machines differ by less if anything keeps them.
const SKEW_TOLD_AFTER: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, Args)]
pub(crate) struct MergeArgs {
    /// Reports of `loadtest run --json`, one of each generator.
    #[arg(required = true, num_args = 2.., value_name = "FILE")]
    reports: Vec<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Why two reports are not parts of one run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Its requests would be counted twice.
    SameRun { run_id: String },
    /// They did not do the same.
    Differs {
        what: &'static str,
        one: String,
        other: String,
    },
    /// They never ran at the same time, so their rates do not add up.
    Apart { by: Duration },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SameRun { run_id } => {
                write!(f, "run {run_id} is in it twice: name each report once")
            }
            Self::Differs { what, one, other } => write!(
                f,
                "{what} differs ({one}, {other}): only generators that did the same can be \
                 merged; `loadtest compare` sets two runs side by side"
            ),
            Self::Apart { by } => write!(
                f,
                "one began {by:.1?} after another, when that had ended: rates of different \
                 times do not add up; `loadtest compare` sets two runs side by side"
            ),
        }
    }
}

/// Reads, joins and delivers.
///
/// # Errors
/// Which report cannot be read or does not fit, and why.
pub(crate) fn run(args: &MergeArgs) -> Result<Verdict, String> {
    let mut paths = args.reports.iter();
    let first = paths.next().ok_or("no report to merge")?;
    let mut merged = report::load(first)?;
    for path in paths {
        let next = report::load(path)?;
        let skew = next
            .started_at
            .duration_since(merged.started_at)
            .unwrap_or_else(|earlier| earlier.duration());
        merged =
            join(&merged, &next).map_err(|refused| format!("{}: {refused}", path.display()))?;
        if skew > SKEW_TOLD_AFTER {
            eprintln!(
                "loadtest: {} began {skew:.1?} apart from the others: rates are per second of \
                 each generator's own run time",
                path.display()
            );
        }
    }
    let output = &args.output;
    let tasks = merged.tally.tasks.iter();
    let names: Vec<String> = tasks.map(|task| task.name.clone()).collect();
    crate::threshold::check_tasks(&output.require, &names)?;
    merged
        .deliver(output)
        .map_err(|error: report::WriteError| error.to_string())
}

/// Both at once.
///
/// # Errors
/// [`Refused`] if that would not be one run.
pub(crate) fn join(one: &Report, other: &Report) -> Result<Report, Refused> {
    if let Some(run_id) = other.run_ids.iter().find(|id| one.run_ids.contains(id)) {
        return Err(Refused::SameRun {
            run_id: run_id.clone(),
        });
    }
    let settings = join_settings(&one.settings, &other.settings)?;
    let tasks = |report: &Report| {
        let mut names: Vec<_> = report.tally.tasks.iter().map(|task| &task.name).collect();
        names.sort();
        format!("{names:?}")
    };
    same("the list of tasks", tasks(one), tasks(other))?;
    let started_at = one.started_at.min(other.started_at);
    let offset = |report: &Report| {
        let late = report.started_at.duration_since(started_at);
        late.unwrap_or(Duration::ZERO)
    };
    let by = offset(one).max(offset(other));
    if by >= settings.run_time() {
        return Err(Refused::Apart { by });
    }
    let placed = |report: &Report| {
        let mut tally = report.tally.clone();
        tally.series = tally.series.later(offset(report));
        tally
    };
    let mut tally = placed(one);
    tally.merge(&placed(other));
    Ok(Report {
        run_ids: one.run_ids.iter().chain(&other.run_ids).cloned().collect(),
        started_at,
        settings,
        elapsed: (offset(one) + one.elapsed).max(offset(other) + other.elapsed),
        tally,
        generator: busier(one.generator, other.generator),
        workers: one.workers.iter().chain(&other.workers).cloned().collect(),
    })
}

/// The one that was nearer to its limit, in each respect.
fn busier(one: Option<Generator>, other: Option<Generator>) -> Option<Generator> {
    match (one, other) {
        (Some(one), Some(other)) => Some(Generator {
            cpu_share: one.cpu_share.max(other.cpu_share),
            lag_p99_us: one.lag_p99_us.max(other.lag_p99_us),
        }),
        (one, other) => one.or(other),
    }
}

fn same(what: &'static str, one: String, other: String) -> Result<String, Refused> {
    if one == other {
        Ok(one)
    } else {
        Err(Refused::Differs { what, one, other })
    }
}

/// What adds up is added, what each may have of its own is listed, and what
/// makes a run another run must be the same.
fn join_settings(one: &Settings, other: &Settings) -> Result<Settings, Refused> {
    let listed = |one: &String, other: &String| {
        if one.split(", ").any(|part| part == other) {
            one.clone()
        } else {
            format!("{one}, {other}")
        }
    };
    same(
        "the model",
        format!("{:?}", one.model),
        format!("{:?}", other.model),
    )?;
    let seconds = |settings: &Settings| format!("{} s", settings.run_time_seconds);
    same("the run time", seconds(one), seconds(other))?;
    Ok(Settings {
        host: listed(&one.host, &other.host),
        model: one.model,
        task: same("the task", one.task.clone(), other.task.clone())?,
        users: one.users.saturating_add(other.users),
        threads: one.threads.saturating_add(other.threads),
        rate: match (one.rate, other.rate) {
            (Some(one), Some(other)) => Some(one.saturating_add(other)),
            (one, other) => one.or(other),
        },
        think: same("the think time", one.think.clone(), other.think.clone())?,
        retries: one.retries.max(other.retries),
        run_time_seconds: one.run_time_seconds,
        timeout_seconds: one.timeout_seconds.max(other.timeout_seconds),
        accounts: listed(&one.accounts, &other.accounts),
        amount: same("the amount", one.amount.clone(), other.amount.clone())?,
        keys: same("keys", one.keys.clone(), other.keys.clone())?,
        seed: listed(&one.seed, &other.seed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn the_merge_of_two_is_one_run_with_all_the_recordings() {
        let all = sample::recordings(5, 6_000);
        let (left, right) = all.split_at(2_500);
        let merged = join(
            &sample::of(sample::tally(left), "a", 5),
            &sample::of(sample::tally(right), "b", 3),
        )
        .unwrap();
        let mut single = sample::of(sample::tally(&all), "a", 8);
        single.run_ids.push("b".to_owned());
        single.settings.rate = Some(2_000);
        single.settings.threads = 2;
        // `sample` sets 8 users in each point; two generators have 16.
        let points = single.tally.series.points().len();
        for index in 0..u64::try_from(points).unwrap() {
            single.tally.series.at(Duration::from_secs(index)).users *= 2;
        }
        let (merged, single) = (merged.document(), single.document());
        for (name, value) in single.as_object().unwrap() {
            assert_eq!(&merged[name], value, "{name}");
        }
    }

    #[test]
    fn series_line_up_by_the_clock_on_the_wall() {
        let one = sample::report(1, 900);
        let mut other = sample::report(2, 900);
        other.started_at += Duration::from_secs(3);
        let expected: Vec<u64> = {
            let sent = |report: &Report, index: usize| {
                report
                    .tally
                    .series
                    .points()
                    .get(index)
                    .map_or(0, |point| point.sent)
            };
            (0..13)
                .map(|index| {
                    sent(&one, index) + index.checked_sub(3).map_or(0, |at| sent(&other, at))
                })
                .collect()
        };
        // The order of the files does not matter.
        for merged in [join(&one, &other).unwrap(), join(&other, &one).unwrap()] {
            let points = merged.tally.series.points();
            let sent: Vec<u64> = points[..13].iter().map(|point| point.sent).collect();
            assert_eq!(sent, expected);
            assert_eq!(merged.started_at, one.started_at);
            assert_eq!(merged.elapsed, Duration::from_secs(13));
        }
    }

    #[track_caller]
    fn check_refused(change: impl Fn(&mut Report), part: &str) {
        let mut other = sample::report(2, 10);
        assert!(join(&sample::report(1, 10), &other).is_ok());
        change(&mut other);
        let refused = join(&sample::report(1, 10), &other).unwrap_err();
        assert!(refused.to_string().contains(part), "{refused}");
    }

    #[test]
    fn what_is_not_one_run_is_refused() {
        let own = sample::report(1, 10).run_ids;
        check_refused(|other| other.run_ids.clone_from(&own), "twice");
        check_refused(
            |other| other.tally.tasks[1].name = "history".to_owned(),
            "list of tasks differs",
        );
        check_refused(
            |other| other.settings.run_time_seconds = 11.0,
            "run time differs (10 s, 11 s)",
        );
        check_refused(
            |other| other.settings.model = report::Model::Closed,
            "model differs",
        );
        check_refused(
            |other| other.started_at += Duration::from_secs(10),
            "do not add up",
        );
    }

    #[test]
    fn the_busier_generator_counts() {
        let with = |cpu_share, lag_p99_us| {
            Some(Generator {
                cpu_share,
                lag_p99_us,
            })
        };
        assert_eq!(busier(with(0.5, 9), with(0.7, 3)), with(0.7, 9));
        assert_eq!(busier(None, with(0.7, 3)), with(0.7, 3));
        assert_eq!(busier(None, None), None);
    }
}
