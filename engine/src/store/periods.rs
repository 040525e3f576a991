//! Which period of `idempotency_keys` a key belongs to.
//!
//! Owns: the spans of time keys are kept in, and the rule at their boundaries.
//! Never: reads a clock: time is the database's, told by each transaction.
//! Invariant: of two transactions that insert the same key, one fails or sees
//! the other's row, boundaries included.
//!
//! A unique index reaches no further than its partition, so two engines could
//! insert one key on either side of a boundary. Therefore a key is inserted into
//! the period of the transaction's own start (the database's `now()`), and within
//! [`OVERLAP_MS`] of a boundary into the neighbour's too. Take two transactions
//! that overlap in time: their starts are less than a transaction's longest life
//! apart, which the session's time limits keep far below the overlap. Either both
//! starts are in one period, or a boundary lies between them and then at least
//! the one nearer to it is in both periods: some index sees both keys. Two that
//! do not overlap in time meet in the look-up, which covers every live period.

use std::time::Duration;

/// Longer than any transaction may live (statement and idle limits are seconds).
pub const OVERLAP_MS: i64 = 10 * 60 * 1000;

/// How far the engine's idea of the database's time may be off when it decides
/// which periods to look through; what `now()` says is then checked against it.
const LIVE_MARGIN_MS: i64 = 60 * 60 * 1000;

/// One span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// The partition's value.
    pub number: i32,
    /// First millisecond, Unix epoch.
    pub starts_ms: i64,
    /// First millisecond after it.
    pub ends_ms: i64,
}

/// The database's time is in no known period, or in one not looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeriodsMoved {
    /// The database's time, milliseconds since the Unix epoch.
    pub database_ms: i64,
}

/// All periods a session knows.
#[derive(Debug)]
pub struct Periods {
    all: Vec<Period>,
    retention_ms: i64,
}

impl Periods {
    /// None yet.
    #[must_use]
    pub fn new(retention: Duration) -> Self {
        let retention_ms = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX / 4);
        Self {
            all: Vec::new(),
            retention_ms,
        }
    }

    /// Replaces what is known.
    pub fn set(&mut self, periods: Vec<Period>) {
        self.all = periods;
    }

    /// The periods a key inserted within retention can be in, at about this time.
    #[must_use]
    pub fn live(&self, about_ms: i64) -> Vec<i32> {
        let oldest = about_ms
            .saturating_sub(self.retention_ms)
            .saturating_sub(LIVE_MARGIN_MS);
        let newest = about_ms
            .saturating_add(OVERLAP_MS)
            .saturating_add(LIVE_MARGIN_MS);
        self.all
            .iter()
            .filter(|period| oldest < period.ends_ms && period.starts_ms <= newest)
            .map(|period| period.number)
            .collect()
    }

    /// The periods a key of a transaction begun then is inserted into: one, or
    /// two near a boundary.
    pub fn of(&self, database_ms: i64) -> impl Iterator<Item = i32> + '_ {
        self.all
            .iter()
            .filter(move |period| {
                period.starts_ms.saturating_sub(OVERLAP_MS) <= database_ms
                    && database_ms < period.ends_ms.saturating_add(OVERLAP_MS)
            })
            .map(|period| period.number)
    }

    /// Whether a transaction begun then can be served with these looked through.
    ///
    /// # Errors
    /// [`PeriodsMoved`]: read the periods again, then start over.
    pub fn check(&self, database_ms: i64, looked_through: &[i32]) -> Result<(), PeriodsMoved> {
        let inside = self
            .all
            .iter()
            .any(|period| (period.starts_ms..period.ends_ms).contains(&database_ms));
        // Near the end of the last known period the neighbour must be known too.
        let ahead = database_ms.saturating_add(OVERLAP_MS);
        let neighbour = self
            .all
            .iter()
            .any(|period| (period.starts_ms..period.ends_ms).contains(&ahead));
        // A key within retention may be in any of these.
        let oldest = database_ms.saturating_sub(self.retention_ms);
        let searched = self
            .all
            .iter()
            .filter(|period| oldest < period.ends_ms && period.starts_ms <= database_ms)
            .all(|period| looked_through.contains(&period.number));
        if inside
            && neighbour
            && searched
            && self
                .of(database_ms)
                .all(|period| looked_through.contains(&period))
        {
            Ok(())
        } else {
            Err(PeriodsMoved { database_ms })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;

    fn periods() -> Periods {
        let mut periods = Periods::new(Duration::from_secs(2 * 86_400));
        periods.set(
            (0..6)
                .map(|number: i32| Period {
                    number,
                    starts_ms: i64::from(number) * DAY_MS,
                    ends_ms: (i64::from(number) + 1) * DAY_MS,
                })
                .collect(),
        );
        periods
    }

    #[track_caller]
    fn check(database_ms: i64, expected: &[i32]) {
        assert_eq!(
            periods().of(database_ms).collect::<Vec<_>>(),
            expected,
            "{database_ms}"
        );
    }

    #[test]
    fn a_key_is_in_its_period_and_near_a_boundary_in_the_neighbour_too() {
        check(2 * DAY_MS, &[1, 2]);
        check(2 * DAY_MS + OVERLAP_MS - 1, &[1, 2]);
        check(2 * DAY_MS + OVERLAP_MS, &[2]);
        check(3 * DAY_MS - OVERLAP_MS - 1, &[2]);
        check(3 * DAY_MS - OVERLAP_MS, &[2, 3]);
        check(3 * DAY_MS - 1, &[2, 3]);
    }

    #[test]
    fn transactions_that_overlap_in_time_share_a_period() {
        let periods = periods();
        let boundary = 3 * DAY_MS;
        let life_ms = OVERLAP_MS - 1;
        for first in ((boundary - 2 * life_ms)..(boundary + life_ms)).step_by(1_000) {
            for second in [first, first + life_ms / 2, first + life_ms] {
                let first_in: Vec<_> = periods.of(first).collect();
                assert!(
                    periods.of(second).any(|period| first_in.contains(&period)),
                    "{first} {second}"
                );
            }
        }
    }

    #[test]
    fn every_period_within_retention_is_looked_through() {
        assert_eq!(periods().live(4 * DAY_MS + DAY_MS / 2), [2, 3, 4]);
        assert_eq!(periods().live(5 * DAY_MS - 1), [2, 3, 4, 5]);
    }

    #[test]
    fn a_search_by_a_wrong_clock_is_noticed() {
        let periods = periods();
        let noon = 4 * DAY_MS + DAY_MS / 2;
        assert_eq!(periods.check(noon, &periods.live(noon)), Ok(()));
        // An engine whose clock is ahead leaves out what is still within retention.
        assert!(periods.check(noon, &periods.live(noon + DAY_MS)).is_err());
        assert!(periods.check(noon, &[3, 4]).is_err());
    }

    #[test]
    fn time_outside_what_was_looked_through_is_noticed() {
        let periods = periods();
        let live = periods.live(3 * DAY_MS + DAY_MS / 2);
        assert_eq!(periods.check(3 * DAY_MS + DAY_MS / 2, &live), Ok(()));
        assert!(periods.check(5 * DAY_MS + DAY_MS / 2, &live).is_err());
        // The last known period's end: the next one must exist first.
        let live = periods.live(6 * DAY_MS - 1);
        assert!(periods.check(6 * DAY_MS - 1, &live).is_err());
        assert!(Periods::new(Duration::ZERO).check(0, &[]).is_err());
    }
}
