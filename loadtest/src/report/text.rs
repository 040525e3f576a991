//! The summary on standard output.
//!
//! Owns: the table a person reads when a run has ended.
//! Invariant: every threshold is listed, held or broken.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::{Model, Report, float};
use crate::fleet::WorkerPart;
use crate::generator::Generator;
use crate::stats::{Latencies, Tally, TaskTally};
use crate::threshold::Checked;

pub(super) fn summary(report: &Report, thresholds: &[Checked]) -> String {
    let mut text = rows(report);
    text.push_str(&latencies(report));
    if report.tally.tasks.len() > 1 {
        text.push_str(&tasks(&report.tally.tasks));
    }
    for checked in thresholds {
        let verdict = if checked.held { "held" } else { "BROKEN" };
        let Checked {
            require, measured, ..
        } = checked;
        text.push_str(&row(
            "require",
            &format!("{verdict}: {require}, measured {measured}"),
        ));
    }
    text
}

fn row(name: &str, value: &str) -> String {
    format!("{name:<12} {value}\n")
}

fn rows(report: &Report) -> String {
    let (tally, settings) = (&report.tally, &report.settings);
    let model = match (settings.model, settings.rate) {
        (Model::Open, Some(rate)) => {
            format!("open, up to {rate}/s over {} connections", settings.users)
        }
        (Model::Open, None) => format!("open, {} connections", settings.users),
        (Model::Closed, _) => format!("closed, {} connections", settings.users),
    };
    let mut text = row(
        "run",
        &format!(
            "{} against {}, {model}, {:?}, seed {}",
            settings.task,
            settings.host,
            settings.run_time(),
            settings.seed
        ),
    );
    text += &row(
        "requests",
        &format!(
            "{} answered of {} sent, {:.0}/s ({:.0}/s 2xx)",
            tally.responses,
            tally.sent,
            report.per_second(tally.window.responses),
            report.per_second(tally.window.successes)
        ),
    );
    if settings.model == Model::Open {
        let unsent = format!("{} were due but no connection was free", tally.unsent);
        text += &row("unsent", &unsent);
    }
    let transfers = tally.transfers;
    if transfers.completed + transfers.rejected + transfers.failed > 0 {
        text += &row(
            "transfers",
            &format!(
                "{} completed ({:.0}/s), {} rejected, {} failed",
                transfers.completed,
                report.per_second(tally.window.transfers_completed),
                transfers.rejected,
                transfers.failed
            ),
        );
    }
    text += &row("statuses", &counts(&tally.statuses));
    text += &row("codes", &counts(&tally.codes));
    text += &row("replayed", &tally.replayed.to_string());
    if settings.retries > 0 {
        let again: u64 = tally.tasks.iter().map(|task| task.retried).sum();
        text += &row("retried", &format!("{again} sent again with the same key"));
    }
    text += &row("errors", &errors(tally));
    if let Some(generator) = report.generator {
        text += &row("generator", &busy(generator, &report.workers));
    }
    text += &workers(&report.workers);
    text
}

/// What each machine did of the run.
fn workers(parts: &[WorkerPart]) -> String {
    if parts.is_empty() {
        return String::new();
    }
    let mut text = row("workers", &together(parts));
    for part in parts {
        text += &row("", &format!("{}: {}", part.name, share(part)));
    }
    text
}

/// How many there were, and how far apart they began.
pub(super) fn together(parts: &[WorkerPart]) -> String {
    match WorkerPart::apart(parts) {
        Some((apart, error)) => format!(
            "{}, began within {} ms of each other (clocks read to {} ms)",
            parts.len(),
            ms(apart),
            ms(error)
        ),
        None => parts.len().to_string(),
    }
}

/// What one of them did.
pub(super) fn share(part: &WorkerPart) -> String {
    let mut text = format!(
        "{} answered of {} sent, {} threads",
        part.answered, part.sent, part.threads
    );
    if let Some(generator) = part.generator {
        text += &format!(", {}", usage(generator));
    }
    if let Some(journal) = &part.journal {
        text += &format!(", journal {journal}");
    }
    if let Some(lost) = &part.lost {
        text += &format!("; {lost}");
    }
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

fn busy(generator: Generator, workers: &[WorkerPart]) -> String {
    let used = usage(generator);
    let busy = WorkerPart::bottlenecks(workers);
    if !busy.is_empty() {
        let busy = busy.join(", ");
        return format!(
            "{used}: THE GENERATOR WAS THE BOTTLENECK on {busy}, give it more --threads, cores or \
             machines"
        );
    }
    if generator.was_the_bottleneck() {
        format!(
            "{used}: THE GENERATOR WAS THE BOTTLENECK, give it more --threads, cores or machines"
        )
    } else {
        used
    }
}

pub(super) fn usage(generator: Generator) -> String {
    format!(
        "{:.0}% of its CPU, requests up to {:.3} ms late (p99)",
        generator.cpu_share * 100.0,
        float(generator.lag_p99_us) / 1_000.0
    )
}

fn ms(micros: u64) -> String {
    format!("{:.3}", float(micros) / 1_000.0)
}

/// What each class took. In the open model the two clocks stand side by side:
/// their distance is what the requests waited for a connection.
fn latencies(report: &Report) -> String {
    let (latency, service) = (report.tally.latency(), report.tally.service());
    let classes = |of: &Latencies| {
        let Latencies {
            success,
            unavailable,
            other,
        } = of.clone();
        [("2xx", success), ("503", unavailable), ("other", other)]
    };
    let mut text = match report.settings.model {
        Model::Closed => String::new(),
        Model::Open => format!(
            "{:<24}{:<50}   from sending\n",
            "", " response: from when it was due"
        ),
    };
    let heads = ["p50", "p90", "p99", "p99.9", "max"].map(|head| format!("{head:>9} "));
    text += &format!("{:<12} {:>10} {}", "latency ms", "count", heads.concat());
    if report.settings.model == Model::Open {
        text += &format!(" |{}", heads.concat());
    }
    end(&mut text);
    for ((name, response), (_, service)) in classes(&latency).iter().zip(&classes(&service)) {
        if response.is_empty() {
            continue;
        }
        text += &format!("{name:<12} {:>10} {}", response.len(), quantiles(response));
        if report.settings.model == Model::Open {
            text += &format!(" |{}", quantiles(service));
        }
        end(&mut text);
    }
    text
}

fn end(line: &mut String) {
    line.truncate(line.trim_end().len());
    line.push('\n');
}

fn quantiles(histogram: &Histogram<u64>) -> String {
    [0.5, 0.9, 0.99, 0.999, 1.0]
        .map(|quantile| format!("{:>9} ", ms(histogram.value_at_quantile(quantile))))
        .concat()
}

fn tasks(tasks: &[TaskTally]) -> String {
    let width = tasks.iter().map(|task| task.name.len()).max().unwrap_or(0);
    let width = width.max(12);
    let mut text = format!(
        "{:<width$} {:>10} {:>8} {:>9} {:>9} {:>9}  {:>9} {:>9} {:>9} {:>9} {:>9}\n",
        "task",
        "sent",
        "retried",
        "no answer",
        "503",
        "other",
        "2xx p50",
        "p90",
        "p99",
        "p99.9",
        "max ms"
    );
    for task in tasks {
        text += &format!(
            "{:<width$} {:>10} {:>8} {:>9} {:>9} {:>9}  {}",
            task.name,
            task.sent,
            task.retried,
            task.unanswered,
            task.latency.unavailable.len(),
            task.latency.other.len(),
            quantiles(&task.latency.success)
        );
        end(&mut text);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn an_open_run_shows_both_clocks_every_task_and_every_threshold() {
        let mut report = sample::even();
        let checked = |require: &str, held| Checked {
            require: require.to_owned(),
            measured: "7".to_owned(),
            held,
        };
        let all = [checked("p99<1ms", false), checked("errors<9", true)];
        let text = summary(&report, &all);
        for part in [
            "unsent       10 were due",
            "from sending",
            "\nbalance ",
            "\n503 ",
            "BROKEN: p99<1ms, measured 7",
            "held: errors<9",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(!text.contains("generator"), "{text}");
        report.settings.model = Model::Closed;
        assert!(!summary(&report, &[]).contains("from sending"));
    }

    #[test]
    fn a_busy_generator_is_said_loudly() {
        let mut report = sample::even();
        for (cpu_share, lag_p99_us, loud) in [
            (0.89, 9_999, false),
            (0.9, 0, true),
            (0.1, LAG_AT_BOUND, true),
        ] {
            report.generator = Some(Generator {
                cpu_share,
                lag_p99_us,
            });
            let text = summary(&report, &[]);
            assert_eq!(text.contains("WAS THE BOTTLENECK"), loud, "{text}");
        }
    }

    #[test]
    fn each_worker_is_shown_and_the_busy_and_the_lost_are_named() {
        let mut report = sample::even();
        let part = |name: &str, cpu_share, lost: Option<&str>| WorkerPart {
            name: name.to_owned(),
            threads: 3,
            sent: 10,
            answered: 9,
            started_after_us: Some(1_250),
            clock_error_us: Some(40),
            generator: Some(Generator {
                cpu_share,
                lag_p99_us: 7,
            }),
            journal: None,
            lost: lost.map(str::to_owned),
        };
        report.workers = vec![
            part("a:1", 0.2, None),
            part("b:2", 0.95, Some("lost: gone")),
        ];
        report.generator = report.workers[1].generator;
        let text = summary(&report, &[]);
        for part in [
            "BOTTLENECK on b:2,",
            "workers      2, began within 1.250 ms of each other (clocks read to 0.040 ms)",
            " a:1: 9 answered of 10 sent, 3 threads, 20% of its CPU",
            "; lost: gone",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert_eq!(report.verdict(&[]), super::super::Verdict::Failed);
    }

    const LAG_AT_BOUND: u64 = crate::generator::LAG_US_MAX;
}
