//! Locust's files, for whatever already reads them.
//!
//! Owns: `PREFIX_stats.csv`, `PREFIX_stats_history.csv`, `PREFIX_failures.csv`.
//! Never: writes a column Locust does not have, or leaves one out.
//! Invariant: the failures add up to `Failure Count`, and the last row of the
//! history to the aggregate.
//!
//! Names, order and CRLF are those of Locust's `stats.py` (`StatsCSV`). Times are
//! milliseconds with decimals, where Locust rounds its percentiles to whole
//! ones. Content sizes are not counted here: 0.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::{Counter, Histogram};

use super::{Report, float};
use crate::series::Point;
use crate::stats::{Tally, TaskTally};

const QUANTILES: [(&str, f64); 11] = [
    ("50%", 0.5),
    ("66%", 0.66),
    ("75%", 0.75),
    ("80%", 0.8),
    ("90%", 0.9),
    ("95%", 0.95),
    ("98%", 0.98),
    ("99%", 0.99),
    ("99.9%", 0.999),
    ("99.99%", 0.9999),
    ("100%", 1.0),
];
const AGGREGATED: &str = "Aggregated";

/// Each file with its text.
pub(super) fn files(report: &Report, prefix: &Path) -> [(PathBuf, String); 3] {
    let path = |end: &str| {
        let mut name = prefix.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    [
        (path("_stats.csv"), stats(report)),
        (path("_stats_history.csv"), history(report)),
        (path("_failures.csv"), failures(&report.tally)),
    ]
}

fn line(cells: &[String]) -> String {
    let quoted: Vec<String> = cells.iter().map(|cell| quote(cell)).collect();
    quoted.join(",") + "\r\n"
}

/// RFC 4180.
fn quote(cell: &str) -> String {
    if cell.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

fn head(before: &[&str], after: &[&str]) -> String {
    let quantiles = QUANTILES.iter().map(|(name, _)| *name);
    let all = before.iter().copied().chain(quantiles);
    let cells: Vec<String> = all
        .chain(after.iter().copied())
        .map(str::to_owned)
        .collect();
    line(&cells)
}

/// Microseconds as milliseconds, without needless zeros.
fn ms(micros: f64) -> String {
    let text = format!("{:.3}", micros / 1_000.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn quantiles<C: Counter>(histogram: &Histogram<C>) -> Vec<String> {
    let value = |(_, quantile): &(&str, f64)| {
        if histogram.is_empty() {
            return "N/A".to_owned();
        }
        ms(float(histogram.value_at_quantile(*quantile)))
    };
    QUANTILES.iter().map(value).collect()
}

/// Median, average, least, largest and the content size.
fn middle<C: Counter>(histogram: &Histogram<C>) -> [String; 5] {
    [
        ms(float(histogram.value_at_quantile(0.5))),
        ms(histogram.mean()),
        ms(float(histogram.min())),
        ms(float(histogram.max())),
        "0".to_owned(),
    ]
}

/// What Locust calls the type: the method, where the task's name (CLASS/TASK:N)
/// tells it.
fn method(task: &str) -> &'static str {
    let (_, task) = task.rsplit_once('/').unwrap_or(("", task));
    match task.split(':').next() {
        Some("transfer" | "batch" | "repeat") => "POST",
        Some("balance" | "health" | "history" | "lookup") => "GET",
        Some(_) | None => "HTTP",
    }
}

fn stats(report: &Report) -> String {
    let mut text = head(
        &[
            "Type",
            "Name",
            "Request Count",
            "Failure Count",
            "Median Response Time",
            "Average Response Time",
            "Min Response Time",
            "Max Response Time",
            "Average Content Size",
            "Requests/s",
            "Failures/s",
        ],
        &[],
    );
    let seconds = report.elapsed.as_secs_f64();
    let mut row = |kind: &str, name: &str, ended: u64, failed: u64, all: &Histogram<u64>| {
        let mut cells = vec![kind.to_owned(), name.to_owned()];
        cells.extend([ended.to_string(), failed.to_string()]);
        cells.extend(middle(all));
        cells.extend([ended, failed].map(|count| format!("{:.6}", float(count) / seconds)));
        cells.extend(quantiles(all));
        text += &line(&cells);
    };
    let tasks = &report.tally.tasks;
    for task in tasks {
        let all = task.latency.all();
        row(
            method(&task.name),
            &task.name,
            task.ended(),
            task.failed(),
            &all,
        );
    }
    let ended = tasks.iter().map(TaskTally::ended).sum();
    let failed = tasks.iter().map(TaskTally::failed).sum();
    let all = report.tally.latency().all();
    row("", AGGREGATED, ended, failed, &all);
    text
}

fn history(report: &Report) -> String {
    let mut text = head(
        &[
            "Timestamp",
            "User Count",
            "Type",
            "Name",
            "Requests/s",
            "Failures/s",
        ],
        &[
            "Total Request Count",
            "Total Failure Count",
            "Total Median Response Time",
            "Total Average Response Time",
            "Total Min Response Time",
            "Total Max Response Time",
            "Total Average Content Size",
        ],
    );
    let mut total = Point::default();
    let points = report.tally.series.points();
    for (point, span) in points.iter().zip(report.spans()) {
        total.then(point);
        let stamp = (report.started_at + span.end).duration_since(UNIX_EPOCH);
        let seconds = (span.end - span.start).as_secs_f64();
        let per_second = |count: u64| format!("{:.6}", float(count) / seconds);
        let mut cells = vec![
            stamp.unwrap_or(Duration::ZERO).as_secs().to_string(),
            point.users.to_string(),
            String::new(),
            AGGREGATED.to_owned(),
            per_second(point.succeeded + point.failed),
            per_second(point.failed),
        ];
        cells.extend(quantiles(&point.latency));
        cells.push((total.succeeded + total.failed).to_string());
        cells.push(total.failed.to_string());
        cells.extend(middle(&total.latency));
        text += &line(&cells);
    }
    text
}

/// Causes are counted over all tasks. If one task alone has such failures they
/// are all its own; else its row says no more than is known of it.
fn failures(tally: &Tally) -> String {
    let mut text = line(&["Method", "Name", "Error", "Occurrences"].map(str::to_owned));
    let mut row = |task: &TaskTally, error: &str, count: u64| {
        if count > 0 {
            let cells = [method(&task.name), &task.name, error].map(str::to_owned);
            let mut cells = cells.to_vec();
            cells.push(count.to_string());
            text += &line(&cells);
        }
    };
    let others = other_statuses(tally);
    let causes = BTreeMap::from([
        ("connection broke", tally.errors.io),
        ("not HTTP", tally.errors.protocol),
        ("timeout", tally.errors.timeout),
    ]);
    for task in &tally.tasks {
        row(task, "503", task.latency.unavailable.len());
        let other = task.latency.other.len();
        if other == others.values().sum::<u64>() {
            others
                .iter()
                .for_each(|(status, count)| row(task, status, *count));
        } else {
            row(task, "other status", other);
        }
        if task.unanswered == causes.values().sum::<u64>() {
            causes
                .iter()
                .for_each(|(cause, count)| row(task, cause, *count));
        } else {
            row(task, "no answer", task.unanswered);
        }
    }
    text
}

/// Answers that are neither 2xx nor 503.
fn other_statuses(tally: &Tally) -> BTreeMap<String, u64> {
    let other = |status: u16| status != 503 && !(200..300).contains(&status);
    let statuses = tally.statuses.iter();
    statuses
        .filter(|(status, _)| other(**status))
        .map(|(status, count)| (status.to_string(), *count))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    /// Rows by column name, of a text without quotes.
    fn rows(text: &str) -> Vec<BTreeMap<String, String>> {
        let mut lines = text.split_terminator("\r\n");
        let names: Vec<&str> = lines.next().unwrap().split(',').collect();
        lines
            .map(|line| {
                let cells: Vec<&str> = line.split(',').collect();
                assert_eq!(cells.len(), names.len(), "{line}");
                let pairs = names.iter().zip(cells);
                pairs
                    .map(|(name, cell)| ((*name).to_owned(), cell.to_owned()))
                    .collect()
            })
            .collect()
    }

    const LOCUST_STATS: &str = "Type,Name,Request Count,Failure Count,Median Response Time,Average Response Time,Min Response Time,Max Response Time,Average Content Size,Requests/s,Failures/s,50%,66%,75%,80%,90%,95%,98%,99%,99.9%,99.99%,100%\r\n";
    const LOCUST_HISTORY: &str = "Timestamp,User Count,Type,Name,Requests/s,Failures/s,50%,66%,75%,80%,90%,95%,98%,99%,99.9%,99.99%,100%,Total Request Count,Total Failure Count,Total Median Response Time,Total Average Response Time,Total Min Response Time,Total Max Response Time,Total Average Content Size\r\n";

    #[test]
    fn columns_are_exactly_those_of_locust() {
        let report = sample::even();
        assert!(stats(&report).starts_with(LOCUST_STATS));
        assert!(history(&report).starts_with(LOCUST_HISTORY));
        assert!(failures(&report.tally).starts_with("Method,Name,Error,Occurrences\r\n"));
    }

    #[test]
    fn each_task_has_a_row_and_the_aggregate_is_the_last() {
        let rows = rows(&stats(&sample::even()));
        let cell = |row: usize, name: &str| rows[row][name].as_str();
        assert_eq!(rows.len(), 3);
        assert_eq!((cell(0, "Type"), cell(0, "Name")), ("POST", "transfer"));
        assert_eq!((cell(1, "Type"), cell(1, "Name")), ("GET", "balance"));
        assert_eq!((cell(2, "Type"), cell(2, "Name")), ("", "Aggregated"));
        assert_eq!(cell(0, "Request Count"), "1003");
        assert_eq!(cell(0, "Failure Count"), "3");
        assert_eq!(cell(1, "50%"), "2");
        assert_eq!(cell(2, "Request Count"), "1503");
        assert_eq!(cell(2, "Requests/s"), "150.300000");
        assert_eq!(cell(2, "100%"), cell(2, "Max Response Time"));
    }

    #[test]
    fn failures_add_up_and_the_history_ends_at_the_aggregate() {
        for report in [sample::even(), sample::report(3, 4_000)] {
            let total = rows(&stats(&report)).pop().unwrap();
            let failures = rows(&failures(&report.tally));
            let sum: u64 = failures
                .iter()
                .map(|row| row["Occurrences"].parse::<u64>().unwrap())
                .sum();
            assert_eq!(sum.to_string(), total["Failure Count"]);
            let last = rows(&history(&report)).pop().unwrap();
            assert_eq!(last["Total Request Count"], total["Request Count"]);
            assert_eq!(last["Total Failure Count"], total["Failure Count"]);
            assert_eq!(last["User Count"], "8");
        }
        let one = failures(&sample::even().tally);
        assert!(one.contains("POST,transfer,404,1\r\n"), "{one}");
        assert!(one.contains("POST,transfer,timeout,1\r\n"), "{one}");
        let several = failures(&sample::report(3, 4_000).tally);
        assert!(several.contains("GET,balance,other status,"), "{several}");
    }

    #[test]
    fn a_second_without_answers_and_an_odd_name_are_still_csv() {
        let mut report = sample::even();
        report.tally.tasks[0].name = "a \"hot\", task".to_owned();
        let text = stats(&report);
        assert!(text.contains("\r\nHTTP,\"a \"\"hot\"\", task\",1003,"));
        let rows = rows(&history(&report));
        assert_eq!(rows[0]["50%"], "N/A");
        // The run begins at 0.25 s of its second.
        assert_eq!(rows[0]["Timestamp"], "1700000001");
        assert_eq!(rows[1]["Timestamp"], "1700000002");
    }
}
