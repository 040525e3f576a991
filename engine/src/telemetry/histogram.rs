//! Histograms of fixed size.
//!
//! Owns: the buckets of every histogram, and their part of the page.
//! Never: allocates or queues an observation.
//! Bound: one counter per bucket, whatever is observed and whether or not
//! anybody scrapes.
//! Invariant: on the page a series' `+Inf` bucket equals its count.
//!
//! Not the exporter crate's own: those keep each observation in a growing list
//! until a scrape or an upkeep call sorts it in, which is unbounded when that
//! thread is late, and slower. Measured 2026-11-21 on 2 cores, one thread of a
//! release build recording two million values into one series: the crate's 45 ns
//! each and 14 ns more in the upkeep; these 12 ns.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Histogram, HistogramFn};

/// One family: its name, help and series.
#[derive(Debug)]
pub(super) struct HistogramFamily {
    name: &'static str,
    help: &'static str,
    bounds: &'static [f64],
    series: Vec<Series>,
}

#[derive(Debug)]
struct Series {
    /// `route="balance",` or empty: what stands before `le` on the page.
    labels: String,
    buckets: Arc<Buckets>,
}

#[derive(Debug)]
struct Buckets {
    /// Inclusive upper bounds, ascending.
    bounds: &'static [f64],
    /// One more than bounds: the last counts what is above all of them.
    counts: Box<[AtomicU64]>,
    /// The bits of an `f64`.
    sum: AtomicU64,
}

impl HistogramFamily {
    pub(super) const fn new(
        name: &'static str,
        help: &'static str,
        bounds: &'static [f64],
    ) -> Self {
        Self {
            name,
            help,
            bounds,
            series: Vec::new(),
        }
    }

    /// Adds a series. Its label values are words of ours: nothing to escape.
    pub(super) fn series(&mut self, pairs: &[(&'static str, &'static str)]) -> Histogram {
        let buckets = Arc::new(Buckets {
            bounds: self.bounds,
            counts: (0..=self.bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0.0_f64.to_bits()),
        });
        let labels = pairs.iter().fold(String::new(), |labels, (name, word)| {
            format!("{labels}{name}=\"{word}\",")
        });
        self.series.push(Series {
            labels,
            buckets: Arc::clone(&buckets),
        });
        Histogram::from_arc(buckets)
    }

    /// Appends the family to a page.
    pub(super) fn write(&self, page: &mut String) {
        let (name, help) = (self.name, self.help);
        page.push_str(&format!("# HELP {name} {help}\n# TYPE {name} histogram\n"));
        for series in &self.series {
            series.write(name, page);
        }
        page.push('\n');
    }
}

impl Series {
    fn write(&self, name: &str, page: &mut String) {
        let labels = &self.labels;
        let mut count: u64 = 0;
        let mut line = |bound: &str, count: u64| {
            // Writing to a String cannot fail.
            let _infallible = writeln!(page, "{name}_bucket{{{labels}le=\"{bound}\"}} {count}");
        };
        for (index, bucket) in self.buckets.counts.iter().enumerate() {
            count = count.saturating_add(bucket.load(Ordering::Relaxed));
            match self.buckets.bounds.get(index) {
                Some(bound) => line(&bound.to_string(), count),
                None => line("+Inf", count),
            }
        }
        let sum = f64::from_bits(self.buckets.sum.load(Ordering::Relaxed));
        let braced = match labels.trim_end_matches(',') {
            "" => String::new(),
            labels => format!("{{{labels}}}"),
        };
        let _infallible = writeln!(
            page,
            "{name}_sum{braced} {sum}\n{name}_count{braced} {count}"
        );
    }
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        let index = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(index) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let add = |sum: u64| Some((f64::from_bits(sum) + value).to_bits());
        // `add` never declines, so this only ends when the sum is stored.
        let _stored = self
            .sum
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pairs: &[(&'static str, &'static str)], values: &[f64], expected: &str) {
        let mut family = HistogramFamily::new("engine_x_seconds", "Help.", &[0.5, 1.0]);
        let histogram = family.series(pairs);
        for value in values {
            histogram.record(*value);
        }
        let mut page = String::new();
        family.write(&mut page);
        let head = "# HELP engine_x_seconds Help.\n# TYPE engine_x_seconds histogram\n";
        assert_eq!(page, format!("{head}{expected}\n"));
    }

    #[test]
    fn an_empty_histogram_is_on_the_page() {
        check(
            &[],
            &[],
            "engine_x_seconds_bucket{le=\"0.5\"} 0\n\
             engine_x_seconds_bucket{le=\"1\"} 0\n\
             engine_x_seconds_bucket{le=\"+Inf\"} 0\n\
             engine_x_seconds_sum 0\n\
             engine_x_seconds_count 0\n",
        );
    }

    #[test]
    fn a_bound_belongs_to_its_own_bucket_and_buckets_add_up() {
        check(
            &[("a", "b"), ("c", "d")],
            &[0.0, 0.5, 0.500_1, 1.0, 1.25, f64::MAX, -f64::MAX],
            "engine_x_seconds_bucket{a=\"b\",c=\"d\",le=\"0.5\"} 3\n\
             engine_x_seconds_bucket{a=\"b\",c=\"d\",le=\"1\"} 5\n\
             engine_x_seconds_bucket{a=\"b\",c=\"d\",le=\"+Inf\"} 7\n\
             engine_x_seconds_sum{a=\"b\",c=\"d\"} 0\n\
             engine_x_seconds_count{a=\"b\",c=\"d\"} 7\n",
        );
    }

    #[test]
    fn the_sum_is_that_of_the_values() {
        check(
            &[],
            &[0.25, 0.5, 2.0],
            "engine_x_seconds_bucket{le=\"0.5\"} 2\n\
             engine_x_seconds_bucket{le=\"1\"} 2\n\
             engine_x_seconds_bucket{le=\"+Inf\"} 3\n\
             engine_x_seconds_sum 2.75\n\
             engine_x_seconds_count 3\n",
        );
    }

    #[test]
    fn no_observation_is_lost_between_threads() {
        let mut family = HistogramFamily::new("engine_x", "Help.", &[1.0]);
        let histogram = family.series(&[]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| histogram.record(1.0)));
            }
        });
        let mut page = String::new();
        family.write(&mut page);
        assert!(page.contains("engine_x_bucket{le=\"1\"} 40000\n"), "{page}");
        assert!(page.contains("engine_x_sum 40000\n"), "{page}");
    }
}
