//! What a run must reach: `--require 'p99<10ms'`.
//!
//! Owns: the spelling of a threshold, and whether a report holds it.
//! Never: rounds in the run's favour; it compares before it prints.
//! Invariant: what was not measured (no answer at all) is broken, never held.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::report::{Report, float};
use crate::stats::TaskTally;

/// Shown by `--help`, and whenever an expression cannot be read.
pub(crate) const GRAMMAR: &str = "\
[TASK:]METRIC OP VALUE, where OP is <, <=, > or >= and METRIC is one of
  p50 p90 p95 p99 p999 max mean  2xx answers from when they were due; us, ms or s
  errors                         other answers and none at all; % or a count
  rate                           2xx answers in the run time; /s
  transfers                      completed in the run time; /s
  unsent                         due but without a free connection; % or a count
for example 'p99<10ms', 'errors<0.1%', 'rate>20000/s', 'balance:p50<=800us'";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Metric {
    /// A share of all, 0 to 1.
    Quantile(f64),
    Max,
    Mean,
    Errors,
    Rate,
    Transfers,
    Unsent,
}

impl Metric {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "p50" => Self::Quantile(0.5),
            "p90" => Self::Quantile(0.9),
            "p95" => Self::Quantile(0.95),
            "p99" => Self::Quantile(0.99),
            "p999" => Self::Quantile(0.999),
            "max" => Self::Max,
            "mean" => Self::Mean,
            "errors" => Self::Errors,
            "rate" => Self::Rate,
            "transfers" => Self::Transfers,
            "unsent" => Self::Unsent,
            _ => return None,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Below,
    AtMost,
    Above,
    AtLeast,
}

/// Two characters before one, so that `<=` is not read as `<`.
const RELATIONS: [(&str, Relation); 4] = [
    ("<=", Relation::AtMost),
    (">=", Relation::AtLeast),
    ("<", Relation::Below),
    (">", Relation::Above),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Micros,
    Millis,
    Seconds,
    Percent,
    PerSecond,
    Count,
}

/// Longest first where one ends with another.
const UNITS: [(&str, Unit); 5] = [
    ("us", Unit::Micros),
    ("ms", Unit::Millis),
    ("/s", Unit::PerSecond),
    ("s", Unit::Seconds),
    ("%", Unit::Percent),
];

/// One `--require`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Threshold {
    text: String,
    task: Option<String>,
    metric: Metric,
    relation: Relation,
    limit: f64,
    unit: Unit,
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let problem = |what: String| format!("{what}; expected {GRAMMAR}");
        let (left, relation, right) = RELATIONS
            .iter()
            .find_map(|(sign, relation)| {
                let (left, right) = text.split_once(sign)?;
                Some((left.trim(), *relation, right.trim()))
            })
            .ok_or_else(|| problem("no <, <=, > or >=".to_owned()))?;
        // Tasks such as batch:100 have a colon of their own.
        let (task, name) = match left.rsplit_once(':') {
            Some((task, name)) => (Some(task.trim().to_owned()), name.trim()),
            None => (None, left),
        };
        let metric =
            Metric::parse(name).ok_or_else(|| problem(format!("no metric is called {name:?}")))?;
        let (number, unit) = UNITS
            .iter()
            .find_map(|(suffix, unit)| Some((right.strip_suffix(suffix)?.trim_end(), *unit)))
            .unwrap_or((right, Unit::Count));
        let limit = number
            .parse::<f64>()
            .ok()
            .filter(|limit| limit.is_finite() && *limit >= 0.0)
            .ok_or_else(|| problem(format!("{right:?} is no value")))?;
        let units: &[Unit] = match metric {
            Metric::Quantile(_) | Metric::Max | Metric::Mean => {
                &[Unit::Micros, Unit::Millis, Unit::Seconds]
            }
            Metric::Errors | Metric::Unsent => &[Unit::Percent, Unit::Count],
            Metric::Rate | Metric::Transfers => &[Unit::PerSecond],
        };
        if !units.contains(&unit) {
            return Err(problem(format!("{right:?} has not the unit of {name}")));
        }
        if let (Some(_), Metric::Transfers | Metric::Unsent) = (&task, metric) {
            return Err(problem(format!("{name} is not counted by task")));
        }
        Ok(Self {
            text: text.trim().to_owned(),
            task,
            metric,
            relation,
            limit,
            unit,
        })
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// How a threshold came out.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Checked {
    pub(crate) require: String,
    /// In the unit of the threshold, or why there is no value.
    pub(crate) measured: String,
    pub(crate) held: bool,
}

/// Refuses a threshold on a task that the run does not have.
///
/// # Errors
/// Which one, and what there is.
pub(crate) fn check_tasks(thresholds: &[Threshold], tasks: &[String]) -> Result<(), String> {
    for threshold in thresholds {
        if let Some(task) = &threshold.task
            && !tasks.contains(task)
        {
            return Err(format!(
                "--require '{threshold}': no task is called {task}; there is {}",
                tasks.join(", ")
            ));
        }
    }
    Ok(())
}

/// Compares every threshold with what was measured.
pub(crate) fn check(thresholds: &[Threshold], report: &Report) -> Vec<Checked> {
    thresholds.iter().map(|each| each.check(report)).collect()
}

impl Threshold {
    fn check(&self, report: &Report) -> Checked {
        let (measured, held) = match self.measure(report) {
            Ok(value) => (self.show(value), self.holds(value)),
            Err(reason) => (reason, false),
        };
        Checked {
            require: self.text.clone(),
            measured,
            held,
        }
    }

    fn holds(&self, value: f64) -> bool {
        match self.relation {
            Relation::Below => value < self.limit,
            Relation::AtMost => value <= self.limit,
            Relation::Above => value > self.limit,
            Relation::AtLeast => value >= self.limit,
        }
    }

    fn show(&self, value: f64) -> String {
        match self.unit {
            Unit::Micros => format!("{value:.0}us"),
            Unit::Millis => format!("{value:.3}ms"),
            Unit::Seconds => format!("{value:.6}s"),
            Unit::Percent => format!("{value:.4}%"),
            Unit::PerSecond => format!("{value:.1}/s"),
            Unit::Count => format!("{value:.0}"),
        }
    }

    /// The value in the unit of the limit.
    fn measure(&self, report: &Report) -> Result<f64, String> {
        let tasks: Vec<&TaskTally> = report
            .tally
            .tasks
            .iter()
            .filter(|tally| self.task.as_ref().is_none_or(|task| *task == tally.name))
            .collect();
        if tasks.is_empty() {
            return Err("no such task".to_owned());
        }
        let tally = &report.tally;
        match self.metric {
            Metric::Quantile(_) | Metric::Max | Metric::Mean => self.latency(report),
            Metric::Errors => {
                let failed = tasks.iter().map(|task| task.failed()).sum();
                let ended = tasks.iter().map(|task| task.ended()).sum();
                self.share(failed, ended)
            }
            // By task nothing is counted apart for the run time.
            Metric::Rate => Ok(match &self.task {
                None => report.per_second(tally.window.successes),
                Some(_) => {
                    let succeeded = tasks.iter().map(|task| task.latency.success.len()).sum();
                    float(succeeded) / report.elapsed.as_secs_f64()
                }
            }),
            Metric::Transfers => Ok(report.per_second(tally.window.transfers_completed)),
            Metric::Unsent => self.share(tally.unsent, tally.unsent + tally.sent),
        }
    }

    fn share(&self, part: u64, whole: u64) -> Result<f64, String> {
        if self.unit == Unit::Count {
            return Ok(float(part));
        }
        if whole == 0 {
            return Err("no request was sent".to_owned());
        }
        Ok(100.0 * float(part) / float(whole))
    }

    fn latency(&self, report: &Report) -> Result<f64, String> {
        let histogram = match &self.task {
            None => report.tally.latency().success,
            Some(name) => {
                let mut tasks = report.tally.tasks.iter();
                let task = tasks.find(|task| task.name == *name);
                task.ok_or("no such task")?.latency.success.clone()
            }
        };
        if histogram.is_empty() {
            return Err("no 2xx answer".to_owned());
        }
        let micros = match self.metric {
            Metric::Quantile(share) => float(histogram.value_at_quantile(share)),
            Metric::Mean => histogram.mean(),
            Metric::Max | Metric::Errors | Metric::Rate | Metric::Transfers | Metric::Unsent => {
                float(histogram.max())
            }
        };
        Ok(match self.unit {
            Unit::Seconds => micros / 1_000_000.0,
            Unit::Millis => micros / 1_000.0,
            Unit::Micros | Unit::Percent | Unit::PerSecond | Unit::Count => micros,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[track_caller]
    fn check_one(text: &str, held: bool, measured: &str) {
        let threshold: Threshold = text.parse().unwrap();
        let checked = threshold.check(&sample::even());
        assert_eq!((checked.held, checked.measured.as_str()), (held, measured));
    }

    // `sample::even`: 10 s, 1,000 transfers of 1 to 1,000 ms and one each of a
    // 503, a 404 and no answer; 500 balances of 2 ms.
    #[test]
    fn each_metric_is_compared_in_its_unit() {
        check_one("max<1.1s", true, "1.000447s");
        check_one("p50 <= 2ms", false, "250.111ms");
        check_one("balance:p999<2.1ms", true, "2.000ms");
        check_one("transfer:p50>400000us", true, "500223us");
        check_one("errors<0.2%", true, "0.1996%");
        check_one("errors<=3", true, "3");
        check_one("errors<3", false, "3");
        check_one("balance:errors<=0", true, "0");
        check_one("rate>=150/s", true, "150.0/s");
        check_one("rate>150/s", false, "150.0/s");
        check_one("balance:rate>40/s", true, "50.0/s");
        check_one("transfers>99/s", true, "100.0/s");
        check_one("unsent<=0", false, "10");
        check_one("unsent<1%", true, "0.6609%");
        check_one("other:p99<1s", false, "no such task");
    }

    #[test]
    fn what_was_never_answered_is_broken() {
        let mut report = sample::even();
        report.tally = crate::stats::Tally::new(["transfer".to_owned()]);
        for text in ["p99<1s", "p99>1s", "errors<1%", "unsent<1%", "rate>0/s"] {
            let threshold: Threshold = text.parse().unwrap();
            assert!(!threshold.check(&report).held, "{text}");
        }
    }

    #[test]
    fn a_wrong_expression_says_what_is_wrong_and_what_is_right() {
        for (text, part) in [
            ("p99", "no <"),
            ("p98<1ms", "\"p98\""),
            ("p99<1", "unit of p99"),
            ("p99<1/s", "unit of p99"),
            ("p99<ms", "no value"),
            ("p99<-1ms", "no value"),
            ("p99<infs", "no value"),
            ("p99==1ms", "no <"),
            ("errors<1ms", "unit of errors"),
            ("rate>100", "unit of rate"),
            ("transfer:transfers>1/s", "not counted by task"),
            ("", "no <"),
        ] {
            let problem = text.parse::<Threshold>().unwrap_err();
            assert!(problem.contains(part), "{text}: {problem}");
            assert!(problem.contains("'p99<10ms'"), "{text}: {problem}");
        }
    }

    #[test]
    fn a_colon_in_a_task_is_no_end_of_it() {
        let threshold: Threshold = "batch:100:p99<1s".parse().unwrap();
        assert_eq!(threshold.task.as_deref(), Some("batch:100"));
        assert!(check_tasks(std::slice::from_ref(&threshold), &["batch:100".to_owned()]).is_ok());
        let problem = check_tasks(&[threshold], &["transfer".to_owned()]).unwrap_err();
        assert!(problem.contains("there is transfer"), "{problem}");
    }
}
