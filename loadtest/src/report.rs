//! The summary of a run, as a table and as JSON.
//!
//! Owns: standard output, and the file of `--json`.
//! Never: computes a rate over answers that came after the run time.
//! Invariant: `version` of the document grows when a field changes its meaning.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::args::Config;
use crate::run::Outcome;
use crate::series::Series;
use crate::stats::{Latencies, Tally};

const DOCUMENT_VERSION: u32 = 1;

/// Prints to standard output.
pub(crate) fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints the table and writes the document, if one is wanted.
pub(crate) fn write(config: &Config, outcome: &Outcome) -> std::io::Result<()> {
    let document = Document::new(config, outcome);
    if let Some(path) = &config.json {
        let mut text = serde_json::to_string_pretty(&document)?;
        text.push('\n');
        std::fs::write(path, text)?;
    }
    print(&table(config, &document, &outcome.tally))
}

#[derive(Debug, Serialize)]
struct Document {
    version: u32,
    config: Settings,
    elapsed_seconds: f64,
    /// Answered requests within the run time, per second of it.
    rate: f64,
    success_rate: f64,
    transfer_rate: f64,
    requests: Requests,
    transfers: Transfers,
    statuses: BTreeMap<u16, u64>,
    codes: BTreeMap<String, u64>,
    errors: Errors,
    last_error: Option<String>,
    /// From the intended start (open model) or from sending (closed model).
    latency_us: Classes,
    /// From sending.
    service_us: Classes,
    /// Over time, from the start.
    series: Vec<Moment>,
}

#[derive(Debug, Serialize)]
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
            })
            .collect()
    }
}

#[derive(Debug, Serialize)]
struct Settings {
    host: String,
    model: &'static str,
    task: String,
    users: u32,
    threads: u32,
    rate: Option<u64>,
    run_time_seconds: f64,
    timeout_seconds: f64,
    accounts: String,
    amount: String,
    keys: String,
    /// As text: JSON numbers hold 53 bits in many readers.
    seed: String,
}

#[derive(Debug, Serialize)]
struct Requests {
    sent: u64,
    /// Due, but no connection was free before the end of the run.
    unsent: u64,
    answered: u64,
    answered_in_run_time: u64,
    replayed: u64,
}

#[derive(Debug, Serialize)]
struct Transfers {
    completed: u64,
    rejected: u64,
    failed: u64,
}

#[derive(Debug, Serialize)]
struct Errors {
    connect: u64,
    io: u64,
    timeout: u64,
    protocol: u64,
    reconnects: u64,
}

#[derive(Debug, Serialize)]
struct Classes {
    all: Spread,
    #[serde(rename = "2xx")]
    success: Spread,
    #[serde(rename = "503")]
    unavailable: Spread,
    other: Spread,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Spread {
    count: u64,
    mean: f64,
    p50: u64,
    p90: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

impl Spread {
    fn new(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            mean: histogram.mean(),
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        }
    }
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

impl Document {
    fn new(config: &Config, outcome: &Outcome) -> Self {
        let tally = &outcome.tally;
        let seconds = config.run_time.as_secs_f64();
        Self {
            version: DOCUMENT_VERSION,
            config: Settings::new(config),
            elapsed_seconds: outcome.elapsed.as_secs_f64(),
            rate: float(tally.window.responses) / seconds,
            success_rate: float(tally.window.successes) / seconds,
            transfer_rate: float(tally.window.transfers_completed) / seconds,
            requests: Requests {
                sent: tally.sent,
                unsent: tally.unsent,
                answered: tally.responses,
                answered_in_run_time: tally.window.responses,
                replayed: tally.replayed,
            },
            transfers: Transfers {
                completed: tally.transfers.completed,
                rejected: tally.transfers.rejected,
                failed: tally.transfers.failed,
            },
            statuses: tally.statuses.clone(),
            codes: tally.codes.clone(),
            errors: Errors {
                connect: tally.errors.connect,
                io: tally.errors.io,
                timeout: tally.errors.timeout,
                protocol: tally.errors.protocol,
                reconnects: tally.reconnects,
            },
            last_error: tally.last_error.clone(),
            latency_us: Classes::new(&tally.latency()),
            service_us: Classes::new(&tally.service()),
            series: Moment::all(&tally.series),
        }
    }
}

impl Settings {
    fn new(config: &Config) -> Self {
        Self {
            host: config.host.clone(),
            model: if config.rate.is_some() {
                "open"
            } else {
                "closed"
            },
            task: config.scenario.task_names().join(", "),
            users: config.users,
            threads: config.threads,
            rate: config.rate.map(std::num::NonZeroU64::get),
            run_time_seconds: config.run_time.as_secs_f64(),
            timeout_seconds: config.timeout.as_secs_f64(),
            accounts: config.scenario.each(|class| class.population),
            amount: config.scenario.each(|class| class.amount.clone()),
            keys: config.scenario.each(|class| class.keys.name()),
            seed: config.scenario.seed.to_string(),
        }
    }
}

/// Exact up to 2^53, which no counter of a run reaches.
fn float(count: u64) -> f64 {
    const HALF: f64 = 4_294_967_296.0;
    let high = u32::try_from(count >> 32).unwrap_or(u32::MAX);
    let low = u32::try_from(count & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    f64::from(high) * HALF + f64::from(low)
}

fn table(config: &Config, document: &Document, tally: &Tally) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        text.push_str(&format!("{name:<12} {value}\n"));
    };
    let model = match config.rate {
        Some(rate) => format!("open, {rate}/s over {} connections", config.users),
        None => format!("closed, {} connections", config.users),
    };
    row(
        "run",
        format!(
            "{} against {}, {model}, {:?}, seed {}",
            config.scenario.task_names().join(", "),
            config.host,
            config.run_time,
            config.scenario.seed
        ),
    );
    row(
        "requests",
        format!(
            "{} answered of {} sent, {:.0}/s ({:.0}/s 2xx)",
            tally.responses, tally.sent, document.rate, document.success_rate
        ),
    );
    if config.rate.is_some() {
        row(
            "unsent",
            format!("{} were due but no connection was free", tally.unsent),
        );
    }
    let transfers = &document.transfers;
    if transfers.completed + transfers.rejected + transfers.failed > 0 {
        row(
            "transfers",
            format!(
                "{} completed ({:.0}/s), {} rejected, {} failed",
                transfers.completed, document.transfer_rate, transfers.rejected, transfers.failed
            ),
        );
    }
    row("statuses", counts(&tally.statuses));
    row("codes", counts(&tally.codes));
    row("replayed", tally.replayed.to_string());
    row("errors", errors(tally));
    text.push_str(&latency_table(document));
    text
}

fn counts<K: std::fmt::Display>(counts: &BTreeMap<K, u64>) -> String {
    if counts.is_empty() {
        return "none".to_owned();
    }
    let parts: Vec<_> = counts
        .iter()
        .map(|(name, count)| format!("{name}: {count}"))
        .collect();
    parts.join(", ")
}

fn errors(tally: &Tally) -> String {
    let errors = tally.errors;
    if errors.total() == 0 {
        return format!("none, {} reconnects", tally.reconnects);
    }
    format!(
        "{} connect, {} io, {} timeout, {} protocol (last: {})",
        errors.connect,
        errors.io,
        errors.timeout,
        errors.protocol,
        tally.last_error.as_deref().unwrap_or("none")
    )
}

fn latency_table(document: &Document) -> String {
    let mut text = format!(
        "{:<12} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9}\n",
        "latency ms", "count", "p50", "p90", "p99", "p99.9", "max"
    );
    let mut row = |name: &str, spread: Spread| {
        if spread.count == 0 {
            return;
        }
        let ms = |micros: u64| format!("{:.3}", float(micros) / 1000.0);
        let written = writeln!(
            text,
            "{name:<12} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9}",
            spread.count,
            ms(spread.p50),
            ms(spread.p90),
            ms(spread.p99),
            ms(spread.p999),
            ms(spread.max)
        );
        // Writing to a String cannot fail.
        debug_assert!(written.is_ok());
    };
    row("2xx", document.latency_us.success);
    row("503", document.latency_us.unavailable);
    row("other", document.latency_us.other);
    if document.config.rate.is_some() {
        row("2xx sent", document.service_us.success);
        row("503 sent", document.service_us.unavailable);
    }
    text
}
