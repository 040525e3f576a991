//! A run over time: what happened in each second of it.
//!
//! Owns: one point per interval, from which graphs and histories are made.
//! Bound: [`POINTS_MAX`] points; a longer run has longer intervals.
//! Invariant: the points of two threads or machines line up and merge exactly,
//! also when one of them has longer intervals.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::stats::merge_into;

/// An hour by the second.
pub(crate) const POINTS_MAX: usize = 3_600;
/// Longer than any run needs.
const INTERVAL_MAX: u64 = 1 << 20;
/// Two digits are enough to draw.
pub(crate) const DIGITS: u8 = 2;
const LATENCY_US_MAX: u64 = 60_000_000;

/// What happened in one interval.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    /// Users that were running at the end of it, or connections in the open model.
    pub(crate) users: u64,
    /// Requests sent, repeats included.
    pub(crate) sent: u64,
    /// Answers of 2xx.
    pub(crate) succeeded: u64,
    /// Other answers, and requests without one.
    pub(crate) failed: u64,
    /// Requests sent again with the same key.
    pub(crate) retried: u64,
    /// Of every answer, from the intended start, in microseconds.
    pub(crate) latency: Histogram<u32>,
}

impl Default for Point {
    fn default() -> Self {
        let mut latency = Histogram::new_with_bounds(1, LATENCY_US_MAX, DIGITS)
            .expect("1, 60,000,000 and 2 digits are valid bounds");
        latency.auto(true);
        Self {
            users: 0,
            sent: 0,
            succeeded: 0,
            failed: 0,
            retried: 0,
            latency,
        }
    }
}

impl Point {
    /// Adds an interval that came at the same time.
    fn beside(&mut self, other: &Self) {
        self.users += other.users;
        self.add(other);
    }

    /// Adds the interval that came next.
    pub(crate) fn then(&mut self, next: &Self) {
        self.users = self.users.max(next.users);
        self.add(next);
    }

    fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.retried += other.retried;
        merge_into(&mut self.latency, &other.latency);
    }
}

/// All points of a run.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    interval_seconds: u64,
    points: Vec<Point>,
}

impl Series {
    /// Nothing yet, in intervals of a second.
    pub(crate) fn new() -> Self {
        Self {
            interval_seconds: 1,
            points: Vec::new(),
        }
    }

    /// How long one point is.
    pub(crate) const fn interval_seconds(&self) -> u64 {
        self.interval_seconds
    }

    pub(crate) fn points(&self) -> &[Point] {
        &self.points
    }

    /// The point of a moment since the start.
    pub(crate) fn at(&mut self, since_start: Duration) -> &mut Point {
        let mut index = self.index(since_start);
        while index >= POINTS_MAX {
            self.halve();
            index = self.index(since_start);
        }
        while self.points.len() <= index {
            self.points.push(Point::default());
        }
        &mut self.points[index]
    }

    /// Points that were counted elsewhere; none if they cannot be a series.
    pub(crate) fn from_points(interval_seconds: u64, points: Vec<Point>) -> Option<Self> {
        // Halving can only reach powers of two, so nothing else would ever line up.
        let reachable = interval_seconds.is_power_of_two() && interval_seconds <= INTERVAL_MAX;
        (reachable && points.len() <= POINTS_MAX).then_some(Self {
            interval_seconds,
            points,
        })
    }

    /// The same, begun that much later: to the nearest interval.
    pub(crate) fn later(&self, by: Duration) -> Self {
        let interval = Duration::from_secs(self.interval_seconds);
        let mut moved = Self {
            interval_seconds: self.interval_seconds,
            points: Vec::new(),
        };
        let offset = (by + interval / 2).as_secs() / self.interval_seconds;
        for (index, point) in (offset..).zip(&self.points) {
            let at = Duration::from_secs(index * self.interval_seconds);
            moved.at(at).beside(point);
        }
        moved
    }

    /// The same in at most that many points.
    pub(crate) fn coarsened(&self, points_max: usize) -> Self {
        let mut coarse = self.clone();
        while coarse.points.len() > points_max.max(1) {
            coarse.halve();
        }
        coarse
    }

    fn index(&self, since_start: Duration) -> usize {
        usize::try_from(since_start.as_secs() / self.interval_seconds).unwrap_or(usize::MAX)
    }

    fn halve(&mut self) {
        self.interval_seconds *= 2;
        self.points = self
            .points
            .chunks(2)
            .map(|pair| {
                let mut joined = pair[0].clone();
                if let Some(next) = pair.get(1) {
                    joined.then(next);
                }
                joined
            })
            .collect();
    }

    /// Adds what another thread or machine saw at the same time.
    pub(crate) fn merge(&mut self, other: &Self) {
        let mut other = other.clone();
        while self.interval_seconds < other.interval_seconds {
            self.halve();
        }
        while other.interval_seconds < self.interval_seconds {
            other.halve();
        }
        for (index, point) in other.points.iter().enumerate() {
            if let Some(mine) = self.points.get_mut(index) {
                mine.beside(point);
            } else {
                self.points.push(point.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Series {
        let mut series = Series::new();
        for second in 0..count {
            let point = series.at(Duration::from_secs(second));
            point.sent += 1;
            point.users = 3;
        }
        series
    }

    #[test]
    fn a_long_run_keeps_every_count_in_fewer_points() {
        let series = seconds(10_000);
        assert_eq!(series.interval_seconds(), 4);
        assert_eq!(series.points().len(), 2_500);
        assert!(series.points().iter().all(|point| point.sent == 4));
        assert!(series.points().iter().all(|point| point.users == 3));
    }

    #[test]
    fn a_later_start_moves_every_count_and_loses_none() {
        let moved = seconds(3).later(Duration::from_millis(1_600));
        let sent: Vec<u64> = moved.points().iter().map(|point| point.sent).collect();
        assert_eq!(sent, [0, 0, 1, 1, 1]);
        // Past the bound the intervals grow instead.
        let moved = seconds(3_600).later(Duration::from_secs(2));
        assert_eq!(moved.interval_seconds(), 2);
        let sent: u64 = moved.points().iter().map(|point| point.sent).sum();
        assert_eq!((moved.points().len(), sent), (1_801, 3_600));
    }

    #[test]
    fn only_what_halving_reaches_is_a_series() {
        assert!(Series::from_points(4, vec![Point::default(); 3]).is_some());
        assert!(Series::from_points(1, vec![Point::default(); POINTS_MAX]).is_some());
        for (interval, count) in [(0, 1), (3, 1), (INTERVAL_MAX * 2, 1), (1, POINTS_MAX + 1)] {
            let points = vec![Point::default(); count];
            assert!(Series::from_points(interval, points).is_none());
        }
        assert_eq!(seconds(9).coarsened(3).points().len(), 3);
        assert_eq!(seconds(9).coarsened(9).interval_seconds(), 1);
    }

    #[test]
    fn threads_add_up_whatever_their_intervals() {
        let mut short = seconds(5);
        short
            .at(Duration::from_secs(2))
            .latency
            .record(700)
            .unwrap();
        let mut long = seconds(5_000);
        long.merge(&short);
        assert_eq!(long.interval_seconds(), 2);
        let sent: Vec<u64> = long.points()[..4].iter().map(|point| point.sent).collect();
        assert_eq!(sent, [4, 4, 3, 2]);
        assert_eq!(long.points()[0].users, 6);
        assert_eq!(long.points()[1].latency.len(), 1);
        short.merge(&seconds(5_000));
        assert_eq!(short.points().len(), long.points().len());
    }
}
