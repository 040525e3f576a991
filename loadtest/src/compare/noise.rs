//! How much a difference could be chance.
//!
//! Owns: the bootstrap over the intervals of both runs.
//! Never: reads a clock or entropy; the same reports give the same verdict.
//! Bound: [`BLOCKS_MAX`] blocks a side and [`ROUNDS`] rounds.
//!
//! Each round draws blocks of either run with replacement, as many as there
//! were, and takes the difference of the two (Efron and Tibshirani, "An
//! Introduction to the Bootstrap", 1993, percentile intervals). Quantiles are
//! taken from the added histograms of the drawn blocks, not averaged.

use crate::report::float;
use crate::rng::Rng;
use crate::series::{Point, Series};

/// Longer runs are cut into longer blocks, so that neighbours, which are alike,
/// are drawn together.
const BLOCKS_MAX: usize = 120;
pub(super) const ROUNDS: usize = 1_000;
/// Of [`ROUNDS`] rounds, sorted: 99 of 100 lie between these two.
const LOW: usize = ROUNDS / 200;
const HIGH: usize = ROUNDS - 1 - LOW;
const SEED: u64 = 0x6C6F_6164_7465_7374;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Measure {
    /// 2xx per second.
    Rate,
    /// Percent of what ended.
    Failures,
    /// Microseconds of every answer.
    Quantile(f64),
}

/// A value in each run, and what 99 of 100 redrawn differences stay within.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Difference {
    pub(super) before: f64,
    pub(super) after: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Measure {
    /// Percent of change; for failures, which are percent already, their distance.
    pub(super) fn change(self, before: f64, after: f64) -> f64 {
        match self {
            Self::Failures => after - before,
            Self::Rate | Self::Quantile(_) if before > 0.0 => 100.0 * (after - before) / before,
            Self::Rate | Self::Quantile(_) if after > 0.0 => f64::INFINITY,
            Self::Rate | Self::Quantile(_) => 0.0,
        }
    }
}

/// The blocks of one run.
#[derive(Debug)]
pub(super) struct Side {
    seconds: f64,
    blocks: Vec<Block>,
    /// Ascending; blocks count by place in it.
    micros: Vec<u64>,
}

#[derive(Debug)]
struct Block {
    succeeded: u64,
    failed: u64,
    /// Place in `micros`, and how many.
    counts: Vec<(usize, u64)>,
}

impl Side {
    /// The intervals that the run filled; what came after it is no load.
    pub(super) fn new(series: &Series, run_seconds: u64) -> Self {
        let series = series.coarsened(BLOCKS_MAX);
        let interval = series.interval_seconds();
        let full = usize::try_from(run_seconds / interval).unwrap_or(usize::MAX);
        let points = &series.points()[..full.min(series.points().len())];
        let recorded = |point: &Point| {
            let steps = point.latency.iter_recorded();
            steps
                .map(|step| (step.value_iterated_to(), u64::from(step.count_at_value())))
                .collect::<Vec<_>>()
        };
        let all: Vec<_> = points.iter().map(recorded).collect();
        let mut micros: Vec<u64> = all.iter().flatten().map(|(value, _)| *value).collect();
        micros.sort_unstable();
        micros.dedup();
        let place = |value: &u64| micros.binary_search(value).unwrap_or_else(|at| at);
        let blocks = points
            .iter()
            .zip(&all)
            .map(|(point, recorded)| Block {
                succeeded: point.succeeded,
                failed: point.failed,
                counts: recorded
                    .iter()
                    .map(|(value, count)| (place(value), *count))
                    .collect(),
            })
            .collect();
        Self {
            seconds: float(interval),
            blocks,
            micros,
        }
    }

    pub(super) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// How many answers there were.
    pub(super) fn answers(&self) -> u64 {
        let counts = self.blocks.iter().flat_map(|block| &block.counts);
        counts.map(|(_, count)| count).sum()
    }

    fn drawn(&self, rng: &mut Rng) -> Vec<&Block> {
        let bound = u64::try_from(self.blocks.len()).unwrap_or(u64::MAX);
        let draw = |_| usize::try_from(rng.below(bound)).unwrap_or(0);
        let drawn: Vec<usize> = (0..self.blocks.len()).map(draw).collect();
        drawn.iter().map(|index| &self.blocks[*index]).collect()
    }

    /// Each measure over these blocks.
    fn values(&self, blocks: &[&Block], measures: &[Measure]) -> Vec<f64> {
        let succeeded: u64 = blocks.iter().map(|block| block.succeeded).sum();
        let failed: u64 = blocks.iter().map(|block| block.failed).sum();
        let seconds = self.seconds * float(u64::try_from(blocks.len()).unwrap_or(u64::MAX));
        let mut counts = vec![0; self.micros.len()];
        for (place, count) in blocks.iter().flat_map(|block| &block.counts) {
            counts[*place] += count;
        }
        let total: u64 = counts.iter().sum();
        let quantile = |share: f64| {
            let wanted = (share * float(total)).max(1.0);
            let mut seen = 0;
            let reached = counts.iter().position(|count| {
                seen += count;
                float(seen) >= wanted
            });
            reached.map_or(0.0, |place| float(self.micros[place]))
        };
        let value = |measure: &Measure| match measure {
            Measure::Rate => float(succeeded) / seconds.max(1.0),
            Measure::Failures => 100.0 * float(failed) / float(succeeded + failed).max(1.0),
            Measure::Quantile(share) => quantile(*share),
        };
        measures.iter().map(value).collect()
    }
}

/// Each measure in both runs, with the spread of its change.
pub(super) fn differences(before: &Side, after: &Side, measures: &[Measure]) -> Vec<Difference> {
    let mut rng = Rng::new(SEED, 0);
    let mut changes = vec![Vec::with_capacity(ROUNDS); measures.len()];
    for _ in 0..ROUNDS {
        let old = before.values(&before.drawn(&mut rng), measures);
        let new = after.values(&after.drawn(&mut rng), measures);
        for (index, measure) in measures.iter().enumerate() {
            changes[index].push(measure.change(old[index], new[index]));
        }
    }
    let all = |side: &Side| side.values(&side.blocks.iter().collect::<Vec<_>>(), measures);
    let (old, new) = (all(before), all(after));
    let spread = |(index, mut changes): (usize, Vec<f64>)| {
        changes.sort_by(f64::total_cmp);
        Difference {
            before: old[index],
            after: new[index],
            low: changes[LOW],
            high: changes[HIGH],
        }
    };
    changes.into_iter().enumerate().map(spread).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// `rate` answers in each of 20 seconds, of about `micros` each.
    fn side(seed: u64, rate: u64, micros: u64) -> Side {
        let mut rng = Rng::new(seed, 1);
        let mut series = Series::new();
        for second in 0..20 {
            let point = series.at(Duration::from_secs(second));
            for _ in 0..rate + rng.below(rate / 10) {
                point.succeeded += 1;
                let value = micros + rng.below(micros / 5);
                point.latency.record(value).unwrap();
            }
        }
        Side::new(&series, 20)
    }

    const ALL: [Measure; 3] = [Measure::Rate, Measure::Failures, Measure::Quantile(0.99)];

    #[test]
    fn two_runs_of_one_kind_do_not_differ() {
        for seed in 0..8 {
            let found = differences(&side(seed, 200, 900), &side(seed + 100, 200, 900), &ALL);
            for difference in found {
                assert!(
                    difference.low <= 0.5 && -0.5 <= difference.high,
                    "{seed}: {difference:?}"
                );
            }
        }
    }

    #[test]
    fn a_real_difference_is_outside_chance_on_its_side() {
        let found = differences(&side(1, 200, 900), &side(2, 260, 1_100), &ALL);
        assert!((20.0..40.0).contains(&found[0].low), "{found:?}");
        assert_eq!((found[1].low, found[1].high), (0.0, 0.0));
        assert!((15.0..25.0).contains(&found[2].low), "{found:?}");
        assert!(found[2].low <= found[2].high);
        let again = differences(&side(1, 200, 900), &side(2, 260, 1_100), &ALL);
        assert_eq!(found, again);
    }

    #[test]
    fn quantiles_are_those_of_the_added_histograms() {
        let mut series = Series::new();
        for micros in 1..=100 {
            let point = series.at(Duration::from_secs(micros % 10));
            point.latency.record(micros).unwrap();
        }
        let side = Side::new(&series, 10);
        assert_eq!((side.blocks(), side.answers()), (10, 100));
        let all: Vec<&Block> = side.blocks.iter().collect();
        let shares = [Measure::Quantile(0.5), Measure::Quantile(1.0)];
        assert_eq!(side.values(&all, &shares), [50.0, 100.0]);
        // Ten seconds were filled, of which nine and a half were the run.
        assert_eq!(Side::new(&series, 9).blocks(), 9);
    }

    #[test]
    fn a_change_from_nothing_is_no_number_to_divide_by() {
        assert_eq!(Measure::Failures.change(0.0, 0.5), 0.5);
        assert_eq!(Measure::Rate.change(200.0, 150.0), -25.0);
        assert_eq!(Measure::Rate.change(0.0, 0.0), 0.0);
        assert_eq!(Measure::Rate.change(0.0, 1.0), f64::INFINITY);
    }
}
