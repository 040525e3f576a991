//! How a snapshot looks: a table with sparklines, or a line.
//!
//! Owns: the text.
//! Never: writes it anywhere.
//! Bound: [`HISTORY_MAX`] past values of each graph; lines of 76 columns.

use std::collections::VecDeque;
use std::time::Duration;

use super::Snapshot;

/// At four snapshots a second, the last twelve seconds.
const HISTORY_MAX: usize = 48;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The graphs of a run so far.
#[derive(Debug)]
pub(super) struct View {
    rates: VecDeque<f64>,
    failures: VecDeque<f64>,
    p99s_us: VecDeque<f64>,
}

impl View {
    pub(super) const fn new() -> Self {
        Self {
            rates: VecDeque::new(),
            failures: VecDeque::new(),
            p99s_us: VecDeque::new(),
        }
    }

    pub(super) fn add(&mut self, snapshot: &Snapshot) {
        let p99 = f64::from(u32::try_from(snapshot.p99_us).unwrap_or(u32::MAX));
        for (values, value) in [
            (&mut self.rates, snapshot.requests_per_second),
            (&mut self.failures, snapshot.failures_per_second),
            (&mut self.p99s_us, p99),
        ] {
            if values.len() == HISTORY_MAX {
                values.pop_front();
            }
            values.push_back(value);
        }
    }

    pub(super) fn table(&self, run_time: Duration, now: &Snapshot) -> String {
        let of = run_time.as_secs_f64();
        let left = if now.at_seconds < of {
            format!("{:.0} s of {of:.0} s", now.at_seconds)
        } else {
            "waiting for the last answers".to_owned()
        };
        let rows = [
            ("", left),
            ("users", now.users.to_string()),
            (
                "requests/s",
                format!("{:<12.0}{}", now.requests_per_second, spark(&self.rates)),
            ),
            (
                "failures/s",
                format!("{:<12.1}{}", now.failures_per_second, spark(&self.failures)),
            ),
            ("p50 ms", ms(now.p50_us)),
            ("p95 ms", ms(now.p95_us)),
            (
                "p99 ms",
                format!("{:<12}{}", ms(now.p99_us), spark(&self.p99s_us)),
            ),
            (
                "so far",
                format!(
                    "{} sent, {} succeeded, {} failed",
                    now.sent, now.succeeded, now.failed
                ),
            ),
            (
                "",
                format!("{} sent again, {} due but unsent", now.retried, now.unsent),
            ),
            ("", "Ctrl-C stops and reports".to_owned()),
        ];
        let lines: Vec<_> = rows
            .iter()
            .map(|(name, value)| format!("{name:>12}  {value}"))
            .collect();
        lines.join("\n")
    }
}

/// For a log or a pipe.
pub(super) fn line(now: &Snapshot) -> String {
    let mut line = format!(
        "{:>4.0}s {:>8.0}/s  {} answered 2xx, {} failed, p50 {} p99 {} ms",
        now.at_seconds,
        now.requests_per_second,
        now.succeeded,
        now.failed,
        ms(now.p50_us),
        ms(now.p99_us)
    );
    if now.retried > 0 {
        line.push_str(&format!(", {} sent again", now.retried));
    }
    if now.unsent > 0 {
        line.push_str(&format!(", {} due but unsent", now.unsent));
    }
    line
}

fn ms(micros: u64) -> String {
    format!("{}.{:03}", micros / 1_000, micros % 1_000)
}

/// Bars from zero to the highest value.
fn spark(values: &VecDeque<f64>) -> String {
    let highest = values.iter().copied().fold(0.0, f64::max);
    let bar = |value: &f64| {
        let eighths = BARS.iter().enumerate().rev().find(|(index, _)| {
            let step = f64::from(u8::try_from(*index).unwrap_or(0));
            highest > 0.0 && step <= value / highest * 7.0
        });
        eighths.map_or(BARS[0], |(_, bar)| *bar)
    };
    values.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(rate: f64) -> Snapshot {
        Snapshot {
            at_seconds: 3.2,
            users: 256,
            requests_per_second: rate,
            failures_per_second: 0.5,
            p50_us: 900,
            p95_us: 2_000,
            p99_us: 12_345,
            sent: 1_000,
            succeeded: 990,
            failed: 3,
            retried: 2,
            unsent: 4,
            ..Snapshot::default()
        }
    }

    #[test]
    fn a_table_tells_everything_and_fits() {
        let mut view = View::new();
        for step in 0..100_u32 {
            view.add(&snapshot(f64::from(step)));
        }
        let table = view.table(Duration::from_secs(10), &snapshot(5_000.0));
        for part in [
            "3 s of 10 s",
            "256",
            "5000",
            "12.345",
            "2 sent again",
            "4 due but unsent",
        ] {
            assert!(table.contains(part), "{part} in {table}");
        }
        assert!(
            table.lines().all(|line| line.chars().count() <= 76),
            "{table}"
        );
        let late = view.table(Duration::from_secs(3), &snapshot(0.0));
        assert!(late.contains("waiting"), "{late}");
    }

    #[test]
    fn a_sparkline_grows_from_the_lowest_bar_to_the_highest() {
        let values = VecDeque::from([0.0, 1.0, 3.5, 7.0]);
        assert_eq!(spark(&values), "▁▂▄█");
        assert_eq!(spark(&VecDeque::from([0.0, 0.0])), "▁▁");
        assert_eq!(spark(&VecDeque::new()), "");
    }

    #[test]
    fn a_line_tells_of_repeats_and_backlog_only_if_there_are_any() {
        let text = line(&snapshot(5_000.0));
        assert!(
            text.contains("5000/s") && text.contains("2 sent again"),
            "{text}"
        );
        let calm = Snapshot {
            retried: 0,
            unsent: 0,
            ..snapshot(1.0)
        };
        assert!(line(&calm).ends_with("p99 12.345 ms"), "{}", line(&calm));
    }
}
