//! The document of `--json`: a run as data, to the last count.
//!
//! Owns: the names of its fields, which `report.schema.json` explains.
//! Never: is needed to print; everything else is made from a [`Report`].
//! Bound: `DOCUMENT_BYTES_MAX` bytes are read.
//! Invariant: a report that was written and read again is the same report;
//! `version` grows when a field goes or changes its meaning.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::histogram::{decode, encode};
use super::{Report, Settings};
use crate::fleet::WorkerPart;
use crate::generator::Generator;
use crate::series::{self, Point, Series};
use crate::stats::{self, Errors, Latencies, Tally, TaskTally, Transfers, Window};
use crate::threshold::Checked;

const DOCUMENT_VERSION: u32 = 2;
/// An hour of a hundred tasks stays far below.
const DOCUMENT_BYTES_MAX: u64 = 256 << 20;

/// What every version begins with.
#[derive(Debug, Deserialize)]
struct Head {
    version: u32,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Document {
    version: u32,
    run_ids: Vec<String>,
    started_at: String,
    config: Settings,
    elapsed_seconds: f64,
    /// Answered requests within the run time, per second of it.
    rate: f64,
    success_rate: f64,
    transfer_rate: f64,
    requests: RequestCounts,
    transfers: TransferCounts,
    statuses: BTreeMap<u16, u64>,
    codes: BTreeMap<String, u64>,
    errors: ErrorCounts,
    last_error: Option<String>,
    generator: Option<Generator>,
    /// The machines that shared the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    workers: Vec<WorkerPart>,
    thresholds: Vec<Checked>,
    /// From the intended start (open model) or from sending (closed model).
    latency_us: Classes,
    /// From sending.
    service_us: Classes,
    tasks: Vec<Task>,
    interval_seconds: u64,
    /// Over time, from the start.
    series: Vec<Moment>,
}

#[derive(Debug, Deserialize, Serialize)]
struct RequestCounts {
    sent: u64,
    /// Due, but no connection was free before the end of the run.
    unsent: u64,
    answered: u64,
    answered_in_run_time: u64,
    succeeded_in_run_time: u64,
    replayed: u64,
    /// Sent again with the same key; `sent` and `answered` count each attempt.
    retried: u64,
}

#[derive(Debug, Deserialize, Serialize)]
struct TransferCounts {
    completed: u64,
    completed_in_run_time: u64,
    rejected: u64,
    failed: u64,
}

#[derive(Debug, Deserialize, Serialize)]
struct ErrorCounts {
    connect: u64,
    io: u64,
    timeout: u64,
    protocol: u64,
    reconnects: u64,
}

#[derive(Debug, Deserialize, Serialize)]
struct Classes {
    all: Spread,
    #[serde(rename = "2xx")]
    success: Spread,
    #[serde(rename = "503")]
    unavailable: Spread,
    other: Spread,
}

impl Classes {
    fn new(latencies: &Latencies) -> Self {
        Self {
            all: Spread::new(&latencies.all()),
            success: Spread::new(&latencies.success),
            unavailable: Spread::new(&latencies.unavailable),
            other: Spread::new(&latencies.other),
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Spread {
    count: u64,
    mean: f64,
    min: u64,
    p50: u64,
    p90: u64,
    p95: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

impl Spread {
    fn new(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            mean: histogram.mean(),
            min: histogram.min(),
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p95: histogram.value_at_quantile(0.95),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        }
    }
}

#[derive(Debug, Deserialize, Serialize)]
struct Task {
    name: String,
    sent: u64,
    retried: u64,
    unanswered: u64,
    latency_us: Classes,
    service_us: Classes,
    histograms: TaskHistograms,
}

#[derive(Debug, Deserialize, Serialize)]
struct TaskHistograms {
    latency: ClassHistograms,
    service: ClassHistograms,
}

#[derive(Debug, Deserialize, Serialize)]
struct ClassHistograms {
    #[serde(rename = "2xx")]
    success: String,
    #[serde(rename = "503")]
    unavailable: String,
    other: String,
}

impl ClassHistograms {
    fn new(latencies: &Latencies) -> Self {
        Self {
            success: encode(&latencies.success),
            unavailable: encode(&latencies.unavailable),
            other: encode(&latencies.other),
        }
    }

    fn read(&self, of: &str) -> Result<Latencies, String> {
        let one = |name: &str, text: &str| {
            decode(text, stats::DIGITS).map_err(|error| format!("{of} {name}: {error}"))
        };
        Ok(Latencies {
            success: one("2xx", &self.success)?,
            unavailable: one("503", &self.unavailable)?,
            other: one("other", &self.other)?,
        })
    }
}

impl Task {
    fn new(task: &TaskTally) -> Self {
        Self {
            name: task.name.clone(),
            sent: task.sent,
            retried: task.retried,
            unanswered: task.unanswered,
            latency_us: Classes::new(&task.latency),
            service_us: Classes::new(&task.service),
            histograms: TaskHistograms {
                latency: ClassHistograms::new(&task.latency),
                service: ClassHistograms::new(&task.service),
            },
        }
    }

    fn read(self) -> Result<TaskTally, String> {
        let of = |kind: &str| format!("task {} {kind}", self.name);
        Ok(TaskTally {
            sent: self.sent,
            retried: self.retried,
            unanswered: self.unanswered,
            latency: self.histograms.latency.read(&of("latency"))?,
            service: self.histograms.service.read(&of("service"))?,
            name: self.name,
        })
    }
}

#[derive(Debug, Deserialize, Serialize)]
struct Moment {
    at_seconds: u64,
    users: u64,
    sent: u64,
    succeeded: u64,
    failed: u64,
    retried: u64,
    p50_us: u64,
    p95_us: u64,
    p99_us: u64,
    histogram: String,
}

impl Moment {
    fn all(series: &Series) -> Vec<Self> {
        let interval = series.interval_seconds();
        (0_u64..)
            .zip(series.points())
            .map(|(index, point)| Self {
                at_seconds: index * interval,
                users: point.users,
                sent: point.sent,
                succeeded: point.succeeded,
                failed: point.failed,
                retried: point.retried,
                p50_us: point.latency.value_at_quantile(0.5),
                p95_us: point.latency.value_at_quantile(0.95),
                p99_us: point.latency.value_at_quantile(0.99),
                histogram: encode(&point.latency),
            })
            .collect()
    }

    fn read(self) -> Result<Point, String> {
        Ok(Point {
            users: self.users,
            sent: self.sent,
            succeeded: self.succeeded,
            failed: self.failed,
            retried: self.retried,
            latency: decode(&self.histogram, series::DIGITS)
                .map_err(|error| format!("series at {} s: {error}", self.at_seconds))?,
        })
    }
}

impl Document {
    pub(super) fn new(report: &Report, thresholds: &[Checked]) -> Self {
        let tally = &report.tally;
        Self {
            version: DOCUMENT_VERSION,
            run_ids: report.run_ids.clone(),
            started_at: humantime::format_rfc3339_millis(report.started_at).to_string(),
            config: report.settings.clone(),
            elapsed_seconds: report.elapsed.as_secs_f64(),
            rate: report.per_second(tally.window.responses),
            success_rate: report.per_second(tally.window.successes),
            transfer_rate: report.per_second(tally.window.transfers_completed),
            requests: RequestCounts {
                sent: tally.sent,
                unsent: tally.unsent,
                answered: tally.responses,
                answered_in_run_time: tally.window.responses,
                succeeded_in_run_time: tally.window.successes,
                replayed: tally.replayed,
                retried: tally.tasks.iter().map(|task| task.retried).sum(),
            },
            transfers: TransferCounts {
                completed: tally.transfers.completed,
                completed_in_run_time: tally.window.transfers_completed,
                rejected: tally.transfers.rejected,
                failed: tally.transfers.failed,
            },
            statuses: tally.statuses.clone(),
            codes: tally.codes.clone(),
            errors: ErrorCounts {
                connect: tally.errors.connect,
                io: tally.errors.io,
                timeout: tally.errors.timeout,
                protocol: tally.errors.protocol,
                reconnects: tally.reconnects,
            },
            last_error: tally.last_error.clone(),
            generator: report.generator,
            workers: report.workers.clone(),
            thresholds: thresholds.to_vec(),
            latency_us: Classes::new(&tally.latency()),
            service_us: Classes::new(&tally.service()),
            tasks: tally.tasks.iter().map(Task::new).collect(),
            interval_seconds: tally.series.interval_seconds(),
            series: Moment::all(&tally.series),
        }
    }

    fn read(self) -> Result<Report, String> {
        let started_at = humantime::parse_rfc3339(&self.started_at)
            .map_err(|error| format!("started_at: {error}"))?;
        let elapsed = Duration::try_from_secs_f64(self.elapsed_seconds)
            .map_err(|error| format!("elapsed_seconds: {error}"))?;
        self.config.check()?;
        let points = self.series.into_iter().map(Moment::read);
        let series = Series::from_points(self.interval_seconds, points.collect::<Result<_, _>>()?)
            .ok_or("series: too many points, or an interval that is no power of two")?;
        let tally = Tally {
            sent: self.requests.sent,
            unsent: self.requests.unsent,
            responses: self.requests.answered,
            replayed: self.requests.replayed,
            reconnects: self.errors.reconnects,
            window: Window {
                responses: self.requests.answered_in_run_time,
                successes: self.requests.succeeded_in_run_time,
                transfers_completed: self.transfers.completed_in_run_time,
            },
            transfers: Transfers {
                completed: self.transfers.completed,
                rejected: self.transfers.rejected,
                failed: self.transfers.failed,
            },
            statuses: self.statuses,
            codes: self.codes,
            errors: Errors {
                connect: self.errors.connect,
                io: self.errors.io,
                timeout: self.errors.timeout,
                protocol: self.errors.protocol,
            },
            tasks: self
                .tasks
                .into_iter()
                .map(Task::read)
                .collect::<Result<_, _>>()?,
            series,
            last_error: self.last_error,
        };
        Ok(Report {
            run_ids: self.run_ids,
            started_at,
            settings: self.config,
            elapsed,
            tally,
            generator: self.generator,
            workers: self.workers,
        })
    }
}

/// Reads what `--json` wrote.
///
/// # Errors
/// Which file is not such a document, and why.
pub(crate) fn load(path: &Path) -> Result<Report, String> {
    let named = |problem: String| format!("{}: {problem}", path.display());
    let bytes = std::fs::metadata(path)
        .map_err(|error| named(error.to_string()))?
        .len();
    if bytes > DOCUMENT_BYTES_MAX {
        return Err(named(format!("larger than {DOCUMENT_BYTES_MAX} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| named(error.to_string()))?;
    parse(&text).map_err(named)
}

/// Reads the text of such a document.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse(text: &str) -> Result<Report, String> {
    let not_ours = |error: serde_json::Error| format!("not a report of `loadtest run`: {error}");
    let head: Head = serde_json::from_str(text).map_err(not_ours)?;
    if head.version != DOCUMENT_VERSION {
        return Err(format!(
            "version {} of the report, expected {DOCUMENT_VERSION}: run it again with this loadtest",
            head.version
        ));
    }
    let document: Document = serde_json::from_str(text).map_err(not_ours)?;
    document.read()
}

/// The document as text.
pub(super) fn render(report: &Report, thresholds: &[Checked]) -> serde_json::Result<String> {
    let mut text = serde_json::to_string_pretty(&Document::new(report, thresholds))?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::{float, sample};
    use super::*;

    #[test]
    fn a_report_survives_writing_and_reading() {
        let report = sample::report(1, 5_000);
        let text = render(&report, &[]).unwrap();
        let again = parse(&text).unwrap();
        assert_eq!(render(&again, &[]).unwrap(), text);
        for (read, written) in again.tally.tasks.iter().zip(&report.tally.tasks) {
            assert_eq!(read.latency.success, written.latency.success);
            assert_eq!(read.service.unavailable, written.service.unavailable);
        }
        let points = again.tally.series.points();
        assert!(points.len() > 1);
        for (read, written) in points.iter().zip(report.tally.series.points()) {
            assert_eq!(read.latency, written.latency);
        }
        assert_eq!(again.tally.window, report.tally.window);
    }

    #[track_caller]
    fn check_refused(change: impl Fn(&mut serde_json::Value), part: &str) {
        let text = render(&sample::report(1, 10), &[]).unwrap();
        let mut document = serde_json::from_str(&text).unwrap();
        change(&mut document);
        let problem = parse(&document.to_string()).unwrap_err();
        assert!(problem.contains(part), "{problem}");
    }

    #[test]
    fn what_is_no_report_is_refused_with_the_reason() {
        check_refused(|document| document["version"] = 1.into(), "version 1");
        check_refused(|document| document["tasks"] = 1.into(), "not a report");
        check_refused(|document| document["interval_seconds"] = 3.into(), "series");
        check_refused(|document| document["started_at"] = "now".into(), "started");
        let wrong = |document: &mut serde_json::Value| {
            document["tasks"][0]["histograms"]["latency"]["503"] = "AAAA".into();
        };
        check_refused(wrong, "task transfer latency 503");
        assert!(parse("[]").unwrap_err().contains("not a report"));
    }

    #[test]
    fn rates_are_per_second_of_the_run_time() {
        let report = sample::report(1, 100);
        let document = Document::new(&report, &[]);
        let expected = float(report.tally.window.responses) / 10.0;
        assert!((document.rate - expected).abs() < 1e-9);
    }
}
