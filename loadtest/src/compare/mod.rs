//! `loadtest compare`: two runs side by side, with a verdict.
//!
//! Owns: what counts as better, worse, or no difference.
//! Never: calls a difference that chance or `--noise` could explain.
//! Invariant: a gate (`--fail-if-worse`) that cannot judge does not pass.

mod noise;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use self::noise::{Difference, Measure, ROUNDS, Side, differences};
use crate::report::{self, Report, Settings, Verdict};

/// Below that nearly every redrawing looks like the run itself.
const INTERVALS_MIN: usize = 8;
/// A quantile needs some answers beyond it.
const ANSWERS_BEYOND_MIN: u64 = 10;

#[derive(Clone, Debug, Args)]
pub(crate) struct CompareArgs {
    /// The report to compare with (of `loadtest run --json`).
    before: PathBuf,
    /// The report to judge.
    after: PathBuf,
    /// Also write the comparison to this file as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Percent that two runs of the same thing differ by on these machines:
    /// a smaller difference is never called one.
    #[arg(long, value_name = "PERCENT", default_value = "2", value_parser = parse_percent)]
    noise: f64,
    /// Exit with 1 if anything is worse, beyond noise, by more than this (for
    /// failures: percent of all requests); also if the runs are too short to tell.
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
    fail_if_worse: Option<f64>,
}

fn parse_percent(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches('%').trim_end().parse::<f64>();
    number
        .ok()
        .filter(|percent| percent.is_finite() && *percent >= 0.0)
        .ok_or_else(|| "expected a percentage such as 5".to_owned())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Judgement {
    Better,
    Worse,
    NoDifference,
    TooShort,
}

impl Judgement {
    const fn words(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "WORSE",
            Self::NoDifference => "no difference beyond noise",
            Self::TooShort => "too short to tell",
        }
    }
}

/// One line of the comparison. A percentage of nothing is null.
#[derive(Clone, Copy, Debug, Serialize)]
struct Row {
    metric: &'static str,
    unit: &'static str,
    before: f64,
    after: f64,
    change_percent: f64,
    /// 99 of 100 redrawn changes lie between these.
    low_percent: f64,
    high_percent: f64,
    verdict: Judgement,
}

#[derive(Clone, Debug, Serialize)]
struct Comparison {
    version: u32,
    noise_percent: f64,
    intervals: [usize; 2],
    /// Settings that are not the same in both.
    differing: Vec<String>,
    metrics: Vec<Row>,
}

/// Reads both, prints, and judges.
///
/// # Errors
/// Which report cannot be read, or which file not be written.
pub(crate) fn run(args: &CompareArgs) -> Result<Verdict, String> {
    let (before, after) = (report::load(&args.before)?, report::load(&args.after)?);
    let comparison = compare(&before, &after, args.noise);
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&comparison).map_err(|error| error.to_string())?;
        std::fs::write(path, text + "\n")
            .map_err(|error| format!("write the comparison to {}: {error}", path.display()))?;
    }
    report::print(&comparison.text())
        .map_err(|error| format!("write to standard output: {error}"))?;
    Ok(match args.fail_if_worse {
        Some(bound) if !comparison.passes(bound) => Verdict::Failed,
        Some(_) | None => Verdict::Passed,
    })
}

const METRICS: [(&str, &str, Measure); 6] = [
    ("2xx rate", "/s", Measure::Rate),
    ("failures", "%", Measure::Failures),
    ("p50", "ms", Measure::Quantile(0.5)),
    ("p95", "ms", Measure::Quantile(0.95)),
    ("p99", "ms", Measure::Quantile(0.99)),
    ("p99.9", "ms", Measure::Quantile(0.999)),
];

fn compare(before: &Report, after: &Report, noise: f64) -> Comparison {
    let side = |report: &Report| {
        let seconds = report.settings.run_time().as_secs();
        Side::new(&report.tally.series, seconds)
    };
    let (old, new) = (side(before), side(after));
    let measures = METRICS.map(|(_, _, measure)| measure);
    let enough = old.blocks().min(new.blocks()) >= INTERVALS_MIN;
    let answers = old.answers().min(new.answers());
    let found = if old.blocks().min(new.blocks()) == 0 {
        Vec::new()
    } else {
        differences(&old, &new, &measures)
    };
    let row = |((metric, unit, measure), difference): (
        &(&'static str, &'static str, Measure),
        Difference,
    )| {
        let told = enough && reaches(*measure, answers);
        let micros = matches!(measure, Measure::Quantile(_));
        let shown = |value: f64| if micros { value / 1_000.0 } else { value };
        Row {
            metric,
            unit,
            before: shown(difference.before),
            after: shown(difference.after),
            change_percent: measure.change(difference.before, difference.after),
            low_percent: difference.low,
            high_percent: difference.high,
            verdict: match told {
                true => judge(*measure, &difference, noise),
                false => Judgement::TooShort,
            },
        }
    };
    Comparison {
        version: 1,
        noise_percent: noise,
        intervals: [old.blocks(), new.blocks()],
        differing: differing(&before.settings, &after.settings),
        metrics: METRICS.iter().zip(found).map(row).collect(),
    }
}

fn reaches(measure: Measure, answers: u64) -> bool {
    match measure {
        Measure::Rate | Measure::Failures => true,
        Measure::Quantile(share) => {
            report::float(answers) * (1.0 - share) >= report::float(ANSWERS_BEYOND_MIN) - 1e-6
        }
    }
}

fn judge(measure: Measure, difference: &Difference, noise: f64) -> Judgement {
    let change = measure.change(difference.before, difference.after);
    // A failure in a thousand matters where 2 % of a rate does not: percent of
    // failures are absolute, so the floor is a hundredth.
    let floor = match measure {
        Measure::Failures => noise / 100.0,
        Measure::Rate | Measure::Quantile(_) => noise,
    };
    let more = difference.low > 0.0 && change > floor;
    let less = difference.high < 0.0 && change < -floor;
    match (measure, more, less) {
        (Measure::Rate, true, _) => Judgement::Better,
        (Measure::Rate, _, true) => Judgement::Worse,
        (Measure::Failures | Measure::Quantile(_), true, _) => Judgement::Worse,
        (Measure::Failures | Measure::Quantile(_), _, true) => Judgement::Better,
        (_, false, false) => Judgement::NoDifference,
    }
}

/// What was not the same in both, except what never is.
fn differing(before: &Settings, after: &Settings) -> Vec<String> {
    let pairs = before.rows().into_iter().zip(after.rows());
    pairs
        .filter(|((name, old), (_, new))| *name != "seed" && old != new)
        .map(|((name, old), (_, new))| format!("{name}: {old}, then {new}"))
        .collect()
}

impl Comparison {
    fn passes(&self, bound: f64) -> bool {
        let fine = |row: &Row| match row.verdict {
            Judgement::Better | Judgement::NoDifference => true,
            Judgement::Worse => row.change_percent.abs() <= bound,
            // Too few answers for a far quantile is no fault of the run; too few
            // intervals leaves the rate open too.
            Judgement::TooShort => row.metric != "2xx rate",
        };
        !self.metrics.is_empty() && self.metrics.iter().all(fine)
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for difference in &self.differing {
            text += &format!("not the same  {difference}\n");
        }
        text += &format!(
            "{:<10} {:>12} {:>12} {:>9}  {:<20} verdict\n",
            "", "before", "after", "change", "99 % interval"
        );
        for row in &self.metrics {
            let value = |value: f64| match row.unit {
                "/s" => format!("{value:.0}/s"),
                "%" => format!("{value:.3} %"),
                _ => format!("{value:.3} ms"),
            };
            let spread = format!("{:+.1} to {:+.1} %", row.low_percent, row.high_percent);
            text += &format!(
                "{:<10} {:>12} {:>12} {:>9}  {spread:<20} {}\n",
                row.metric,
                value(row.before),
                value(row.after),
                format!("{:+.1} %", row.change_percent),
                row.verdict.words()
            );
        }
        let [old, new] = self.intervals;
        text += &format!(
            "From {old} and {new} intervals, redrawn {ROUNDS} times; below {} % nothing is called \
             a difference.\n",
            self.noise_percent
        );
        if old.min(new) < INTERVALS_MIN {
            text += &format!(
                "Too short to tell: each run needs at least {INTERVALS_MIN} full seconds; run it \
                 longer.\n"
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn verdicts(comparison: &Comparison) -> Vec<Judgement> {
        comparison.metrics.iter().map(|row| row.verdict).collect()
    }

    #[test]
    fn two_runs_of_the_same_recordings_differ_in_nothing() {
        let found = compare(&sample::report(1, 20_000), &sample::report(2, 20_000), 2.0);
        assert_eq!(verdicts(&found), [Judgement::NoDifference; 6]);
        assert!(found.passes(0.0));
        assert!(found.differing.is_empty());
    }

    #[test]
    fn fewer_answers_are_worse_and_the_gate_says_so() {
        let found = compare(&sample::report(1, 20_000), &sample::report(2, 15_000), 2.0);
        assert_eq!(found.metrics[0].verdict, Judgement::Worse);
        assert_eq!(found.metrics[2].verdict, Judgement::NoDifference);
        assert!(!found.passes(5.0));
        assert!(found.passes(50.0), "a quarter is less than a half");
        let back = compare(&sample::report(2, 15_000), &sample::report(1, 20_000), 2.0);
        assert_eq!(back.metrics[0].verdict, Judgement::Better);
        assert!(back.passes(0.0));
        // Whoever says that their machines differ by half sees no difference.
        let deaf = compare(&sample::report(1, 20_000), &sample::report(2, 15_000), 50.0);
        assert_eq!(deaf.metrics[0].verdict, Judgement::NoDifference);
    }

    #[test]
    fn a_run_too_short_to_judge_passes_no_gate() {
        let mut short = sample::report(2, 20_000);
        short.settings.run_time_seconds = 7.9;
        let found = compare(&sample::report(1, 20_000), &short, 2.0);
        assert_eq!(verdicts(&found), [Judgement::TooShort; 6]);
        assert!(!found.passes(1_000.0));
        assert!(found.text().contains("at least 8 full seconds"));
        assert_eq!(found.differing, ["run time: 10 s, then 7.9 s"]);
        short.settings.run_time_seconds = 0.5;
        assert!(!compare(&short, &short, 2.0).passes(1_000.0));
        // 8 seconds, but not ten answers beyond p99.9.
        let few = compare(&sample::report(1, 5_000), &sample::report(2, 5_000), 2.0);
        assert_eq!(few.metrics[5].verdict, Judgement::TooShort);
        assert_eq!(few.metrics[4].verdict, Judgement::NoDifference);
        assert!(few.passes(0.0));
    }

    #[test]
    fn up_is_good_for_rates_and_bad_for_the_rest() {
        let up = Difference {
            before: 100.0,
            after: 110.0,
            low: 5.0,
            high: 15.0,
        };
        let down = Difference {
            before: 110.0,
            after: 100.0,
            low: -15.0,
            high: -5.0,
        };
        let quantile = Measure::Quantile(0.5);
        assert_eq!(judge(Measure::Rate, &up, 2.0), Judgement::Better);
        assert_eq!(judge(Measure::Rate, &down, 2.0), Judgement::Worse);
        assert_eq!(judge(quantile, &up, 2.0), Judgement::Worse);
        assert_eq!(judge(quantile, &down, 2.0), Judgement::Better);
        assert_eq!(judge(quantile, &up, 10.0), Judgement::NoDifference);
        let unsure = Difference { low: -0.1, ..up };
        assert_eq!(judge(quantile, &unsure, 2.0), Judgement::NoDifference);
    }
}
