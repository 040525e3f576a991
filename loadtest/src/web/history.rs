//! A run over time, as the page draws it.
//!
//! Owns: one point per interval since the start of the run.
//! Bound: [`POINTS_MAX`] points; a longer run has longer intervals.
//! Invariant: within an epoch points are only added, so a reader that knows the
//! first so many may ask for the rest.

use serde::Serialize;

use crate::live::Snapshot;

/// An hour by the second; more than a chart has columns.
const POINTS_MAX: usize = 3_600;

/// Seconds since the start, users, requests/s, failures/s, p50, p95 and p99 in
/// microseconds: short, because there are many.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Point(f64, u64, f64, f64, u64, u64, u64);

#[derive(Debug)]
pub(super) struct History {
    epoch: u64,
    every_seconds: f64,
    next_at: f64,
    points: Vec<Point>,
}

/// What a reader does not know yet.
#[derive(Debug, Serialize)]
pub(super) struct Part {
    epoch: u64,
    /// The place of the first of them.
    from: usize,
    points: Vec<Point>,
}

impl History {
    pub(super) const fn new() -> Self {
        Self {
            epoch: 0,
            every_seconds: 1.0,
            // Before that no rate is worth drawing.
            next_at: 1.0,
            points: Vec::new(),
        }
    }

    /// Another run begins.
    pub(super) fn clear(&mut self) {
        *self = Self {
            epoch: self.epoch + 1,
            ..Self::new()
        };
    }

    /// Adds a snapshot if it is time for one.
    pub(super) fn add(&mut self, now: &Snapshot) {
        if now.at_seconds < self.next_at {
            return;
        }
        if self.points.len() == POINTS_MAX {
            let mut place = 0_usize;
            self.points.retain(|_| {
                place += 1;
                !place.is_multiple_of(2)
            });
            self.every_seconds *= 2.0;
            self.epoch += 1;
        }
        self.next_at = now.at_seconds + self.every_seconds;
        self.push(now);
    }

    /// The last of a run, which may be shorter than an interval.
    pub(super) fn end(&mut self, now: &Snapshot) {
        if self.points.is_empty() {
            self.push(now);
        }
    }

    fn push(&mut self, now: &Snapshot) {
        self.points.push(Point(
            (now.at_seconds * 1_000.0).round() / 1_000.0,
            now.users,
            (now.requests_per_second * 100.0).round() / 100.0,
            (now.failures_per_second * 100.0).round() / 100.0,
            now.p50_us,
            now.p95_us,
            now.p99_us,
        ));
    }

    /// The points after the first `known` of that epoch; all if it is over.
    pub(super) fn after(&self, epoch: u64, known: usize) -> Part {
        let from = if epoch == self.epoch {
            known.min(self.points.len())
        } else {
            0
        };
        Part {
            epoch: self.epoch,
            from,
            points: self.points[from..].to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Snapshot {
        Snapshot {
            at_seconds: seconds,
            ..Snapshot::default()
        }
    }

    #[test]
    fn points_come_once_a_second_and_are_told_once() {
        let mut history = History::new();
        for tenth in 0..35_u32 {
            history.add(&at(f64::from(tenth) / 10.0));
        }
        let all = history.after(0, 0);
        assert_eq!((all.from, all.points.len()), (0, 3));
        let rest = history.after(all.epoch, 2);
        assert_eq!((rest.from, rest.points.len()), (2, 1));
        assert_eq!(history.after(all.epoch, 99).points.len(), 0);
        history.clear();
        history.add(&at(0.3));
        history.end(&at(0.4));
        let next = history.after(all.epoch, 4);
        assert_eq!((next.from, next.points.len()), (0, 1));
        assert_ne!(next.epoch, all.epoch);
    }

    #[test]
    fn a_long_run_has_longer_intervals_and_the_reader_starts_over() {
        let mut history = History::new();
        for second in 0..20_000_u32 {
            history.add(&at(f64::from(second)));
        }
        let all = history.after(0, 3_000);
        assert_eq!((all.from, all.epoch), (0, 3));
        assert!(POINTS_MAX / 2 < all.points.len() && all.points.len() <= POINTS_MAX);
        assert!(all.points.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(all.points[0].0 < 1.5);
    }
}
