//! The page of `--html`: one file that a manager can read.
//!
//! Owns: the order of the page and its words.
//! Never: names another file or address that a browser would fetch.
//! Bound: `GRAPH_POINTS_MAX` points per graph, so a long run stays a small page.
//! Invariant: text from outside (hosts, task names, codes) is escaped.

mod chart;
mod graphs;

use super::{Report, float, text};
use crate::fleet::WorkerPart;
use crate::stats::{Tally, TaskTally};
use crate::threshold::Checked;

const STYLE: &str = include_str!("page.css");
const GRAPH_POINTS_MAX: usize = 300;

pub(super) fn page(report: &Report, thresholds: &[Checked]) -> String {
    let began = humantime::format_rfc3339_seconds(report.started_at).to_string();
    let began = began.replace('T', " ").replace('Z', " UTC");
    let settings = &report.settings;
    let title = format!("Load test of {}", settings.host);
    let sections = [
        verdict(report, thresholds),
        headline(report),
        graphs::over_time(report),
        graphs::distribution(report),
        threshold_table(thresholds),
        task_table(&report.tally.tasks),
        failure_table(&report.tally),
        setting_table(report),
    ];
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <header><h1>{title}</h1>\n<p>{task}, {users} users, {time} s, began {began}</p></header>\n\
         {sections}</main>\n</body>\n</html>\n",
        title = escape(&title),
        task = escape(&settings.task),
        users = commas(u64::from(settings.users)),
        time = settings.run_time_seconds,
        sections = sections.concat(),
    )
}

fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// `1234567` as `1,234,567`.
fn commas(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A whole number of something per second.
fn rate(per_second: f64) -> String {
    let digits = format!("{per_second:.0}");
    digits.parse().map_or(digits, commas)
}

/// Three figures and the unit a person would take.
fn time(micros: f64) -> String {
    let (value, unit) = if micros >= 1_000_000.0 {
        (micros / 1_000_000.0, "s")
    } else if micros >= 1_000.0 {
        (micros / 1_000.0, "ms")
    } else {
        return format!("{micros:.0} µs");
    };
    let decimals = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.decimals$} {unit}")
}

fn percent(part: u64, whole: u64) -> String {
    if part == 0 || whole == 0 {
        return "0 %".to_owned();
    }
    let share = 100.0 * float(part) / float(whole);
    if share < 0.01 {
        "below 0.01 %".to_owned()
    } else {
        format!("{share:.2} %")
    }
}

fn failed_and_ended(tally: &Tally) -> (u64, u64) {
    let failed = tally.tasks.iter().map(TaskTally::failed).sum();
    let ended = tally.tasks.iter().map(TaskTally::ended).sum();
    (failed, ended)
}

/// What to know before any number.
fn verdict(report: &Report, thresholds: &[Checked]) -> String {
    let broken = thresholds.iter().filter(|checked| !checked.held).count();
    let mut text = String::new();
    if broken > 0 {
        text += &format!(
            "<p class=\"notice bad\"><strong>Not reached:</strong> {broken} of {} requirements \
             broken.</p>\n",
            thresholds.len()
        );
    } else if !thresholds.is_empty() {
        text += &format!(
            "<p class=\"notice good\"><strong>Reached:</strong> all requirements held ({}).</p>\n",
            thresholds.len()
        );
    }
    if let Some(generator) = report.generator
        && generator.was_the_bottleneck()
    {
        let busy = WorkerPart::bottlenecks(&report.workers).join(", ");
        let on = if busy.is_empty() { "" } else { " on " };
        text += &format!(
            "<p class=\"notice bad\"><strong>Read with care:</strong> the generator itself was the \
             bottleneck{on}{} ({}).</p>\n",
            escape(&busy),
            escape(&text::usage(generator))
        );
    }
    for part in &report.workers {
        if let Some(lost) = &part.lost {
            text += &format!(
                "<p class=\"notice bad\"><strong>Not whole:</strong> worker {}: {}.</p>\n",
                escape(&part.name),
                escape(lost)
            );
        }
    }
    let tally = &report.tally;
    if tally.unsent > 0 {
        text += &format!(
            "<p class=\"notice bad\"><strong>Not sent:</strong> {} requests ({}) were due, but no \
             connection was free.</p>\n",
            commas(tally.unsent),
            percent(tally.unsent, tally.unsent + tally.sent)
        );
    }
    text
}

fn headline(report: &Report) -> String {
    let tally = &report.tally;
    let (failed, ended) = failed_and_ended(tally);
    let success = tally.latency().success;
    let quantile = |share| match success.is_empty() {
        true => "-".to_owned(),
        false => time(float(success.value_at_quantile(share))),
    };
    let mut tiles = vec![(
        "Requests, 2xx",
        format!("{}/s", rate(report.per_second(tally.window.successes))),
        format!("{} answered", commas(tally.responses)),
    )];
    if tally.transfers.completed > 0 {
        tiles.push((
            "Transfers",
            format!(
                "{}/s",
                rate(report.per_second(tally.window.transfers_completed))
            ),
            format!("{} in all", commas(tally.transfers.completed)),
        ));
    }
    tiles.push((
        "Failed",
        percent(failed, ended),
        format!("{} of {}", commas(failed), commas(ended)),
    ));
    tiles.push(("Median", quantile(0.5), "half faster".to_owned()));
    tiles.push(("p99", quantile(0.99), "99 of 100 faster".to_owned()));
    tiles.push(("Slowest", quantile(1.0), "of all 2xx answers".to_owned()));
    let tiles: Vec<String> = tiles
        .into_iter()
        .map(|(name, value, note)| {
            format!("<div><dt>{name}</dt><dd>{value}<small>{note}</small></dd></div>\n")
        })
        .collect();
    format!(
        "<section aria-label=\"Headline numbers\">\n<dl class=\"tiles\">\n{}</dl>\n</section>\n",
        tiles.concat()
    )
}

/// A section with one table; numbers stand right, the first column is a name.
fn table(title: &str, heads: &[&str], rows: &[Vec<String>]) -> String {
    let heads: Vec<String> = heads
        .iter()
        .map(|head| format!("<th scope=\"col\">{head}</th>"))
        .collect();
    let row = |cells: &Vec<String>| {
        let cells: Vec<String> = cells
            .iter()
            .enumerate()
            .map(|(index, cell)| match index {
                0 => format!("<th scope=\"row\">{}</th>", escape(cell)),
                _ => format!("<td>{}</td>", escape(cell)),
            })
            .collect();
        format!("<tr>{}</tr>\n", cells.concat())
    };
    let rows: Vec<String> = rows.iter().map(row).collect();
    format!(
        "<section>\n<h2>{title}</h2>\n<div class=\"wide\"><table>\n<thead><tr>{}</tr></thead>\n\
         <tbody>\n{}</tbody>\n</table></div>\n</section>\n",
        heads.concat(),
        rows.concat()
    )
}

fn threshold_table(thresholds: &[Checked]) -> String {
    if thresholds.is_empty() {
        return String::new();
    }
    let row = |checked: &Checked| {
        let verdict = if checked.held { "held" } else { "broken" };
        vec![
            checked.require.clone(),
            checked.measured.clone(),
            verdict.to_owned(),
        ]
    };
    let rows: Vec<_> = thresholds.iter().map(row).collect();
    table("Requirements", &["Required", "Measured", "Verdict"], &rows)
        .replace("<table>", "<table class=\"names\">")
        .replace("<td>broken</td>", "<td class=\"broken\">broken</td>")
}

fn task_table(tasks: &[TaskTally]) -> String {
    let row = |task: &TaskTally| {
        let success = &task.latency.success;
        let mut cells = vec![
            task.name.clone(),
            commas(task.sent),
            commas(task.retried),
            commas(task.failed()),
            percent(task.failed(), task.ended()),
        ];
        for share in [0.5, 0.95, 0.99, 0.999, 1.0] {
            cells.push(match success.is_empty() {
                true => "-".to_owned(),
                false => time(float(success.value_at_quantile(share))),
            });
        }
        cells
    };
    let rows: Vec<_> = tasks.iter().map(row).collect();
    let heads = [
        "Task", "Sent", "Retried", "Failed", "Share", "p50", "p95", "p99", "p99.9", "Max",
    ];
    table("Tasks", &heads, &rows)
}

/// A code says why, a status only that; both are shown, so the sum is not.
fn failure_table(tally: &Tally) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |kind: &str, name: &str, count: u64| {
        if count > 0 {
            rows.push(vec![name.to_owned(), kind.to_owned(), commas(count)]);
        }
    };
    for (status, count) in &tally.statuses {
        if !(200..300).contains(status) {
            row("HTTP status", &status.to_string(), *count);
        }
    }
    for (code, count) in &tally.codes {
        row("problem code", code, *count);
    }
    let errors = tally.errors;
    row("no answer", "connection broke", errors.io);
    row("no answer", "timeout", errors.timeout);
    row("no answer", "not HTTP", errors.protocol);
    row("not sent", "connection refused", errors.connect);
    if rows.is_empty() {
        return "<section>\n<h2>Failures</h2>\n<p>None.</p>\n</section>\n".to_owned();
    }
    table("Failures", &["What", "Kind", "Count"], &rows)
        .replace("<table>", "<table class=\"names\">")
}

fn setting_table(report: &Report) -> String {
    let mut rows: Vec<Vec<String>> = report
        .settings
        .rows()
        .into_iter()
        .map(|(name, value)| vec![name.to_owned(), value])
        .collect();
    if let Some(generator) = report.generator {
        rows.push(vec!["generator".to_owned(), text::usage(generator)]);
    }
    if !report.workers.is_empty() {
        rows.push(vec!["workers".to_owned(), text::together(&report.workers)]);
    }
    for part in &report.workers {
        rows.push(vec![format!("worker {}", part.name), text::share(part)]);
    }
    rows.push(vec!["runs".to_owned(), report.run_ids.join(", ")]);
    table("Settings", &["Name", "Value"], &rows).replace("<table>", "<table class=\"names\">")
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn the_page_needs_nothing_else_and_says_what_was_measured() {
        let checked = Checked {
            require: "p99<10ms".to_owned(),
            measured: "12.000ms".to_owned(),
            held: false,
        };
        let page = page(&sample::even(), &[checked]);
        for part in [
            "1 of 1 requirements",
            "10 requests (0.66 %) were due",
            "<th scope=\"row\">balance</th>",
            "queue_full",
            "timeout",
            "150/s",
            "prefers-color-scheme: dark",
            "role=\"img\"",
        ] {
            assert!(page.contains(part), "{part}");
        }
        for fetched in ["src=", "url(", "@import", "<link", "<script", "href="] {
            assert!(!page.contains(fetched), "{fetched}");
        }
    }

    #[test]
    fn names_from_outside_cannot_become_markup() {
        let mut report = sample::even();
        report.tally.tasks[0].name = "<script>&\"'".to_owned();
        report.tally.codes.insert("<b>".to_owned(), 1);
        report.settings.host = "<i>".to_owned();
        let page = page(&report, &[]);
        for bad in ["<script", "<b>", "<i>"] {
            assert!(!page.contains(bad), "{bad}");
        }
        assert!(page.contains("&lt;script&gt;&amp;&quot;&#39;"));
    }

    #[test]
    fn a_run_of_nothing_is_still_a_page() {
        let empty = Tally::new(["transfer".to_owned()]);
        let page = page(&sample::of(empty, "none", 1), &[]);
        assert!(page.ends_with("</html>\n"));
        assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
    }

    #[test]
    fn numbers_are_written_for_people() {
        let counts = [0, 999, 1_000, 1_234_567].map(commas);
        assert_eq!(counts, ["0", "999", "1,000", "1,234,567"]);
        let times = [999.0, 1_000.0, 12_340.0, 123_400.0, 2_000_000.0].map(time);
        assert_eq!(times, ["999 µs", "1.00 ms", "12.3 ms", "123 ms", "2.00 s"]);
        assert_eq!(percent(1, 1_000_000), "below 0.01 %");
        assert_eq!(percent(0, 0), "0 %");
    }
}
