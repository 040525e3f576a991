//! The graphs of the page: over time, and how the answers spread.
//!
//! Owns: which numbers each graph shows.
//! Never: draws an interval that the run only partly filled.

use hdrhistogram::Histogram;

use super::chart::{self, Graph, Line};
use super::{GRAPH_POINTS_MAX, Report, float, time};
use crate::series::Point;

/// Requests, latencies and users over time.
pub(super) fn over_time(report: &Report) -> String {
    let series = report.tally.series.coarsened(GRAPH_POINTS_MAX);
    let interval = std::time::Duration::from_secs(series.interval_seconds());
    let full = report.elapsed.min(report.settings.run_time()).as_secs() / interval.as_secs().max(1);
    let full = usize::try_from(full).unwrap_or(usize::MAX);
    let points = &series.points()[..full.min(series.points().len())];
    if points.len() < 2 {
        return "<p>Too short for graphs over time.</p>\n".to_owned();
    }
    let seconds = interval.as_secs_f64();
    let mut graphs = vec![requests(points, seconds), latencies(points, seconds)];
    // A number that never changes is in the settings.
    if points.iter().any(|point| point.users != points[0].users) {
        graphs.push(users(points, seconds));
    }
    format!(
        "<section class=\"graphs\">\n{}</section>\n",
        graphs.concat()
    )
}

fn line(
    name: &'static str,
    class: &'static str,
    points: &[Point],
    value: impl Fn(&Point) -> Option<f64>,
) -> Line {
    Line {
        name,
        class,
        values: points.iter().map(value).collect(),
    }
}

fn requests(points: &[Point], seconds: f64) -> String {
    let lines = [
        line("2xx", "good", points, |point| {
            Some(float(point.succeeded) / seconds)
        }),
        line("failures", "bad", points, |point| {
            Some(float(point.failed) / seconds)
        }),
    ];
    Graph {
        title: "Requests per second",
        unit: "/s",
        interval: seconds,
        lines: &lines,
    }
    .draw()
}

fn latencies(points: &[Point], seconds: f64) -> String {
    let quantile = |share: f64| {
        move |point: &Point| {
            let latency = &point.latency;
            (!latency.is_empty()).then(|| float(latency.value_at_quantile(share)) / 1_000.0)
        }
    };
    let lines = [
        line("p99", "high", points, quantile(0.99)),
        line("p95", "middle", points, quantile(0.95)),
        line("p50", "low", points, quantile(0.5)),
    ];
    Graph {
        title: "Response time",
        unit: "ms",
        interval: seconds,
        lines: &lines,
    }
    .draw()
}

fn users(points: &[Point], seconds: f64) -> String {
    let lines = [line("users", "low", points, |point| {
        Some(float(point.users))
    })];
    Graph {
        title: "Users",
        unit: "",
        interval: seconds,
        lines: &lines,
    }
    .draw()
}

/// Bars on a logarithmic axis: the slow tail is orders of magnitude away.
const BARS_PER_DECADE: f64 = 10.0;

/// How many answers took how long.
pub(super) fn distribution(report: &Report) -> String {
    let success = report.tally.latency().success;
    if success.is_empty() {
        return String::new();
    }
    let bars = bars(&success);
    let (Some((first, _)), Some((last, _))) = (bars.first(), bars.last()) else {
        return String::new();
    };
    // Logarithms of both ends.
    let low = first / BARS_PER_DECADE;
    let high = (last + 1.0) / BARS_PER_DECADE;
    let share = |log: f64| (log - low) / (high - low);
    let largest = bars.iter().map(|(_, height)| *height).fold(0.0, f64::max);
    let step = chart::step(largest);
    let mut top = step;
    // The upper quarter is for the words beside the marks.
    while top * 0.75 < largest {
        top += step;
    }
    let mut body = chart::grid(top, step);
    for (index, height) in &bars {
        body += &bar(share, *index, height / top, *height);
    }
    body += &time_axis(low, high);
    for (row, (name, quantile)) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)]
        .into_iter()
        .enumerate()
    {
        let micros = float(success.value_at_quantile(quantile));
        body += &mark(
            share(micros.log10()),
            row,
            &format!("{name} {}", time(micros)),
        );
    }
    let legend = "<span class=\"unit\">% of 2xx answers, by response time</span>";
    format!(
        "<section class=\"graphs\">\n{}</section>\n",
        chart::figure("Distribution of response times", legend, &body)
    )
}

/// Index of each bar (its left edge is 10^(index / bars per decade) microseconds)
/// and its height in percent, from the first with an answer to the last.
fn bars(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let mut bars = Vec::new();
    let (mut index, mut sum) = (0.0, 0);
    for step in histogram.iter_recorded() {
        let log = float(step.value_iterated_to()).log10() * BARS_PER_DECADE;
        while log >= index + 1.0 {
            bars.push((index, sum));
            (index, sum) = (index + 1.0, 0);
        }
        sum += step.count_at_value();
    }
    bars.push((index, sum));
    let empty = bars.iter().take_while(|(_, count)| *count == 0).count();
    let percent = |count| 100.0 * float(count) / float(histogram.len());
    bars[empty..]
        .iter()
        .map(|(index, count)| (*index, percent(*count)))
        .collect()
}

fn bar(share: impl Fn(f64) -> f64, index: f64, height: f64, percent: f64) -> String {
    let edge = |index: f64| share(index / BARS_PER_DECADE);
    let (left, right) = (chart::across(edge(index)), chart::across(edge(index + 1.0)));
    let micros = |index: f64| 10_f64.powf(index / BARS_PER_DECADE);
    format!(
        "<rect class=\"bar\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\">\
         <title>{} to {}: {percent:.2} %</title></rect>\n",
        left + 0.5,
        chart::up(height),
        (right - left - 1.0).max(0.5),
        chart::up(0.0) - chart::up(height),
        time(micros(index)),
        time(micros(index + 1.0)),
    )
}

/// Ticks at 1, 2 and 5 of each decade, or at decades alone if they are many.
fn time_axis(low: f64, high: f64) -> String {
    let steps: &[f64] = if high - low > 3.0 {
        &[1.0]
    } else {
        &[1.0, 2.0, 5.0]
    };
    let mut text = String::new();
    let mut decade = 1.0;
    while decade < 1e12 {
        for step in steps {
            let log = (decade * step).log10();
            if (low..=high).contains(&log) {
                let micros = decade * step;
                let words = match micros {
                    ..1_000.0 => format!("{micros:.0} µs"),
                    ..1_000_000.0 => format!("{:.0} ms", micros / 1_000.0),
                    _ => format!("{:.0} s", micros / 1_000_000.0),
                };
                text += &chart::tick((log - low) / (high - low), &words);
            }
        }
        decade *= 10.0;
    }
    text
}

/// A line upright with words beside it; each in a row of its own.
fn mark(share: f64, row: usize, words: &str) -> String {
    let x = chart::across(share);
    let y = 22.0 + 15.0 * f64::from(u8::try_from(row).unwrap_or(u8::MAX));
    let (anchor, text_x) = if share > 0.8 {
        ("end", x - 5.0)
    } else {
        ("start", x + 5.0)
    };
    format!(
        "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
         <text class=\"label {anchor}\" x=\"{text_x:.1}\" y=\"{y:.1}\">{words}</text>\n",
        chart::up(1.0),
        chart::up(0.0)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_hold_every_answer_between_the_least_and_the_largest() {
        let mut histogram = Histogram::new_with_bounds(1, 60_000_000, 3).unwrap();
        for micros in [95, 100, 100, 101_000] {
            histogram.record(micros).unwrap();
        }
        let bars = bars(&histogram);
        let heights: Vec<f64> = bars
            .iter()
            .map(|(_, height)| *height)
            .filter(|height| *height > 0.0)
            .collect();
        assert_eq!(heights, [25.0, 50.0, 25.0]);
        assert_eq!(bars.first(), Some(&(19.0, 25.0)));
        assert_eq!(bars.last(), Some(&(50.0, 25.0)));
    }

    #[test]
    fn only_full_intervals_are_drawn() {
        let mut report = super::super::super::sample::report(1, 2_000);
        let drawn = |report: &Report| over_time(report).matches("<rect").count();
        // Two graphs, ten seconds each; a third once users come or go.
        assert_eq!(drawn(&report), 20);
        report.tally.series.at(std::time::Duration::ZERO).users = 1;
        assert_eq!(drawn(&report), 30);
        report.settings.run_time_seconds = 9.5;
        assert_eq!(drawn(&report), 27);
        report.tally.series = crate::series::Series::new();
        assert!(over_time(&report).contains("Too short"));
    }
}
