//! Drawing: axes, lines and bars as SVG text.
//!
//! Owns: the geometry of a graph.
//! Never: knows what the numbers mean.
//! Invariant: every graph has a title that a screen reader reads.

use super::escape;

pub(super) const WIDTH: f64 = 760.0;
pub(super) const HEIGHT: f64 = 240.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 26.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 30.0;

/// One line of a graph. The class gives its colour.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) class: &'static str,
    /// None where nothing was measured: the line is broken there.
    pub(super) values: Vec<Option<f64>>,
}

/// What a graph shows beside its lines.
#[derive(Debug)]
pub(super) struct Graph<'a> {
    pub(super) title: &'a str,
    /// Of the upright axis.
    pub(super) unit: &'a str,
    /// Seconds between two values.
    pub(super) interval: f64,
    pub(super) lines: &'a [Line],
}

/// A place on the sheet.
pub(super) fn across(share: f64) -> f64 {
    LEFT + share * (WIDTH - LEFT - RIGHT)
}

pub(super) fn up(share: f64) -> f64 {
    HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
}

impl Graph<'_> {
    pub(super) fn draw(&self) -> String {
        let all = self.lines.iter().flat_map(|line| &line.values);
        let largest = all.flatten().copied().fold(0.0, f64::max);
        let step = step(largest);
        let mut top = step;
        while top < largest {
            top += step;
        }
        let count = self.lines.iter().map(|line| line.values.len()).max();
        let count = u32::try_from(count.unwrap_or(0)).unwrap_or(u32::MAX);
        let span = f64::from(count.max(1)) * self.interval;
        let mut body = grid(top, step);
        body += &seconds_axis(span);
        for line in self.lines {
            body += &format!("<path class=\"line {}\" d=\"{}\"/>\n", line.class, {
                path(&line.values, span / self.interval, top)
            });
        }
        body += &self.hover(count, span);
        figure(self.title, &self.legend(), &body)
    }

    fn legend(&self) -> String {
        let entry = |line: &Line| {
            let Line { name, class, .. } = line;
            format!("<span class=\"key {class}\">{name}</span> ")
        };
        let entries: Vec<String> = self.lines.iter().map(entry).collect();
        format!(
            "{}<span class=\"unit\">{}</span>",
            entries.concat(),
            self.unit
        )
    }

    /// Unseen columns whose titles a pointer shows.
    fn hover(&self, count: u32, span: f64) -> String {
        let column = |index: u32| {
            let start = f64::from(index) * self.interval;
            let mut words = format!("{start:.0} s");
            for line in self.lines {
                let values = usize::try_from(index)
                    .ok()
                    .and_then(|at| line.values.get(at));
                if let Some(Some(value)) = values {
                    let value = number(*value, if *value < 10.0 { 0.01 } else { 1.0 });
                    words += &format!(", {} {value} {}", line.name, self.unit);
                }
            }
            format!(
                "<rect class=\"hover\" x=\"{:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\">\
                 <title>{}</title></rect>\n",
                across(start / span),
                across(self.interval / span) - LEFT,
                HEIGHT - TOP - BOTTOM,
                escape(&words)
            )
        };
        (0..count).map(column).collect::<Vec<_>>().concat()
    }
}

/// A titled picture with words above it.
pub(super) fn figure(title: &str, legend: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<figure>\n<figcaption><h2>{title}</h2><p>{legend}</p></figcaption>\n\
         <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n\
         <title>{title}</title>\n{body}</svg>\n</figure>\n"
    )
}

/// Lines across with their numbers on the left, from 0 to `top`.
pub(super) fn grid(top: f64, step: f64) -> String {
    let mut text = String::new();
    let mut value = 0.0;
    // Half a step over: sums of fractions may end just beside the top.
    while value < top + step / 2.0 {
        let y = up(value / top);
        text += &format!(
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"tick end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
            WIDTH - RIGHT,
            LEFT - 8.0,
            y + 4.0,
            number(value, step)
        );
        value += step;
    }
    text
}

/// A number under the graph.
pub(super) fn tick(share: f64, words: &str) -> String {
    let x = across(share);
    format!(
        "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
         <text class=\"tick middle\" x=\"{x:.1}\" y=\"{:.1}\">{words}</text>\n",
        up(0.0),
        up(0.0) + 5.0,
        HEIGHT - 8.0
    )
}

fn seconds_axis(span: f64) -> String {
    const STEPS: [u32; 14] = [
        1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200, 21_600,
    ];
    let few = |step: &u32| span / f64::from(*step) <= 10.0;
    let step = STEPS.into_iter().find(few).unwrap_or(21_600);
    let mut text = String::new();
    let mut at = 0;
    while f64::from(at) <= span {
        let words = match step {
            0..60 => format!("{at} s"),
            60..3_600 => format!("{} min", at / 60),
            _ => format!("{} h", at / 3_600),
        };
        text += &tick(f64::from(at) / span, &words);
        at += step;
    }
    text
}

/// A step of 1, 2 or 5 that cuts `largest` into two to five.
pub(super) fn step(largest: f64) -> f64 {
    let mut unit = 0.000_001;
    loop {
        for step in [unit, 2.0 * unit, 5.0 * unit] {
            if largest <= 5.0 * step {
                return step;
            }
        }
        unit *= 10.0;
    }
}

/// As many decimals as the step has, thousands apart.
fn number(value: f64, step: f64) -> String {
    if step >= 1.0 {
        return super::rate(value);
    }
    let mut decimals = 1;
    let mut rest = step * 10.0;
    while rest < 0.999 {
        rest *= 10.0;
        decimals += 1;
    }
    format!("{value:.decimals$}")
}

/// Values stand in the middle of their interval.
fn path(values: &[Option<f64>], count: f64, top: f64) -> String {
    let mut text = String::new();
    let mut verb = 'M';
    for (index, value) in (0_u32..).zip(values) {
        let Some(value) = value else {
            verb = 'M';
            continue;
        };
        let x = across((f64::from(index) + 0.5) / count);
        text += &format!("{verb}{x:.1} {:.1}", up(value / top));
        if verb == 'M' {
            // A dot where the neighbours are missing: line caps are round.
            text += "h0";
        }
        verb = 'L';
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_cut_an_axis_into_few_round_parts() {
        for (largest, expected) in [(0.9, 0.2), (5.0, 1.0), (5.1, 2.0), (23_000.0, 5_000.0)] {
            assert!(
                (step(largest) - expected).abs() < expected / 1e6,
                "{largest}"
            );
        }
        assert_eq!(number(12_000.0, 5_000.0), "12,000");
        assert_eq!(number(0.4, 0.2), "0.4");
        assert_eq!(number(0.05, 0.05), "0.05");
    }

    #[test]
    fn a_gap_breaks_the_line_and_zero_is_at_the_foot() {
        let text = path(&[Some(0.0), None, Some(2.0), Some(1.0)], 4.0, 2.0);
        assert_eq!(text.matches('M').count(), 2);
        assert_eq!(text.matches('L').count(), 1);
        assert!(text.contains(&format!(" {:.1}", up(0.0))), "{text}");
    }
}
