//! Which partitions to make and which to drop: arithmetic only.
//!
//! Owns: the decisions of `engine maintain`, as pure functions of what is there.
//! Never: awaits, does I/O or reads a clock.
//! Bound: `PERIODS_MAX` periods made in one run.
//! Invariant: periods follow each other without a gap, and a bound once made
//! never moves.

/// A day, far above any clock's error: what may separate the time in an id (an
/// engine's clock) from the time of its key (the database's).
const CLOCK_SLACK_MS: i64 = DAY_MS;
const DAY_MS: i64 = 86_400_000;
/// "A month" where it only has to be long enough.
const MONTH_MS: i64 = 31 * DAY_MS;
/// More than any setting asks for; stops a loop that a wrong width would feed.
const PERIODS_MAX: usize = 1_000;

/// Milliseconds since the Unix epoch, the end excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) starts_ms: i64,
    pub(super) ends_ms: i64,
}

impl Span {
    const fn contains(self, other: Self) -> bool {
        self.starts_ms <= other.starts_ms && other.ends_ms <= self.ends_ms
    }

    const fn overlaps(self, other: Self) -> bool {
        self.starts_ms < other.ends_ms && other.starts_ms < self.ends_ms
    }
}

/// What to do about a span that should have a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coverage {
    /// Has one.
    Covered,
    /// Needs one.
    Free,
    /// Someone else's partition begins or ends inside it.
    Blocked,
}

/// Whether the existing partitions cover `wanted`.
pub(super) fn coverage(existing: &[Span], wanted: Span) -> Coverage {
    if existing.iter().any(|span| span.contains(wanted)) {
        Coverage::Covered
    } else if existing.iter().any(|span| span.overlaps(wanted)) {
        Coverage::Blocked
    } else {
        Coverage::Free
    }
}

/// The newest key period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LastPeriod {
    pub(super) period: i32,
    pub(super) ends_ms: i64,
}

/// What the next periods depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeriodPlan {
    pub(super) now_ms: i64,
    /// UTC midnight before it: where the first period of a new database starts.
    pub(super) day_ms: i64,
    pub(super) width_ms: i64,
    /// Periods that shall start after now.
    pub(super) ahead: usize,
}

/// The periods to add so that `ahead` of them start after now.
pub(super) fn periods_to_add(
    plan: PeriodPlan,
    last: Option<LastPeriod>,
    ahead_now: usize,
) -> Vec<(i32, Span)> {
    let mut starts_ms = last.map_or(plan.day_ms, |last| last.ends_ms);
    let mut period = last.map_or(1, |last| last.period.saturating_add(1));
    let mut ahead = ahead_now;
    let mut periods = Vec::new();
    while ahead < plan.ahead && periods.len() < PERIODS_MAX {
        // After a long pause one period spans it: keys live longer than they
        // need to, and no row of periods is made only to be dropped.
        let ends_ms = starts_ms
            .saturating_add(plan.width_ms)
            .max(plan.day_ms.saturating_add(plan.width_ms));
        periods.push((period, Span { starts_ms, ends_ms }));
        if starts_ms > plan.now_ms {
            ahead += 1;
        }
        starts_ms = ends_ms;
        period = period.saturating_add(1);
    }
    periods
}

/// Whether every key of a period has been held for the retention.
pub(super) const fn period_expired(period: Span, now_ms: i64, retention_ms: i64) -> bool {
    period.ends_ms < now_ms.saturating_sub(retention_ms)
}

/// Whether a month of rejections can go: it is older than retention and a
/// month, and no period is left whose keys could point into it.
pub(super) fn rejections_expired(
    month: Span,
    periods: &[Span],
    now_ms: i64,
    retention_ms: i64,
) -> bool {
    let age_limit_ms = now_ms.saturating_sub(retention_ms).saturating_sub(MONTH_MS);
    month.ends_ms < age_limit_ms
        && !periods
            .iter()
            .any(|period| period.starts_ms <= month.ends_ms.saturating_add(CLOCK_SLACK_MS))
}

/// Whether no engine writes into a month any more, however wrong its clock.
pub(super) const fn month_is_over(month: Span, now_ms: i64) -> bool {
    month.ends_ms < now_ms.saturating_sub(CLOCK_SLACK_MS)
}

/// How many spans follow the one of now without a gap; none if now has none.
pub(super) fn ahead(spans: &[Span], now_ms: i64) -> usize {
    let holds_now = |span: &&Span| span.starts_ms <= now_ms && now_ms < span.ends_ms;
    let Some(mut last) = spans.iter().find(holds_now) else {
        return 0;
    };
    let mut count = 0;
    // Spans of one table never overlap, so each step goes to a later one.
    while let Some(next) = spans.iter().find(|span| span.starts_ms == last.ends_ms) {
        last = next;
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTH_MS: i64 = 15 * DAY_MS;
    const RETENTION_MS: i64 = 30 * DAY_MS;

    fn span(starts_ms: i64, ends_ms: i64) -> Span {
        Span { starts_ms, ends_ms }
    }

    fn plan(now_ms: i64) -> PeriodPlan {
        PeriodPlan {
            now_ms,
            day_ms: now_ms - now_ms % DAY_MS,
            width_ms: WIDTH_MS,
            ahead: 3,
        }
    }

    #[test]
    fn a_month_is_made_only_where_nothing_is() {
        let existing = [span(0, 10), span(20, 30)];
        assert_eq!(coverage(&existing, span(0, 10)), Coverage::Covered);
        assert_eq!(coverage(&existing, span(2, 8)), Coverage::Covered);
        assert_eq!(coverage(&existing, span(10, 20)), Coverage::Free);
        assert_eq!(coverage(&existing, span(9, 20)), Coverage::Blocked);
        assert_eq!(coverage(&existing, span(10, 21)), Coverage::Blocked);
        assert_eq!(coverage(&existing, span(0, 30)), Coverage::Blocked);
        assert_eq!(coverage(&[], span(0, 30)), Coverage::Free);
    }

    #[test]
    fn the_first_period_starts_at_midnight_and_the_others_follow() {
        let now_ms = 100 * DAY_MS + 5;
        let periods = periods_to_add(plan(now_ms), None, 0);
        assert_eq!(
            periods,
            [
                (1, span(100 * DAY_MS, 115 * DAY_MS)),
                (2, span(115 * DAY_MS, 130 * DAY_MS)),
                (3, span(130 * DAY_MS, 145 * DAY_MS)),
                (4, span(145 * DAY_MS, 160 * DAY_MS)),
            ]
        );
    }

    #[test]
    fn periods_are_added_only_up_to_the_number_ahead() {
        let last = Some(LastPeriod {
            period: 9,
            ends_ms: 160 * DAY_MS,
        });
        let now_ms = 100 * DAY_MS;
        assert_eq!(periods_to_add(plan(now_ms), last, 3), []);
        assert_eq!(
            periods_to_add(plan(now_ms), last, 2),
            [(10, span(160 * DAY_MS, 175 * DAY_MS))]
        );
    }

    #[test]
    fn a_month_is_over_a_day_after_its_end() {
        let month = span(0, 31 * DAY_MS);
        assert!(!month_is_over(month, 31 * DAY_MS));
        assert!(!month_is_over(month, 32 * DAY_MS));
        assert!(month_is_over(month, 32 * DAY_MS + 1));
        // Left open by hand: never over.
        assert!(!month_is_over(span(0, i64::MAX), i64::MAX));
    }

    #[test]
    fn a_long_pause_is_spanned_by_one_period_without_a_gap() {
        let last = Some(LastPeriod {
            period: 4,
            ends_ms: 10 * DAY_MS,
        });
        let periods = periods_to_add(plan(500 * DAY_MS + 1), last, 0);
        assert_eq!(periods.len(), 4);
        assert_eq!(periods[0], (5, span(10 * DAY_MS, 515 * DAY_MS)));
        assert_eq!(periods[1].1.starts_ms, 515 * DAY_MS);
    }

    #[test]
    fn a_period_shorter_than_a_day_still_reaches_past_now() {
        let mut plan = plan(100 * DAY_MS + DAY_MS * 3 / 4);
        plan.width_ms = DAY_MS / 2;
        let periods = periods_to_add(plan, None, 0);
        for pair in periods.windows(2) {
            assert_eq!(pair[0].1.ends_ms, pair[1].1.starts_ms);
        }
        let spans: Vec<Span> = periods.iter().map(|(_, span)| *span).collect();
        assert_eq!(ahead(&spans, plan.now_ms), 3);
    }

    #[test]
    fn a_period_is_kept_for_the_retention_after_its_end() {
        let period = span(0, WIDTH_MS);
        for (now_ms, expired) in [
            (WIDTH_MS + RETENTION_MS, false),
            (WIDTH_MS + RETENTION_MS + 1, true),
        ] {
            assert_eq!(period_expired(period, now_ms, RETENTION_MS), expired);
        }
    }

    #[test]
    fn rejections_outlive_every_key_that_could_point_at_them() {
        let month = span(0, MONTH_MS);
        let age = MONTH_MS + RETENTION_MS + MONTH_MS;
        let key_after = span(MONTH_MS + CLOCK_SLACK_MS + 1, age);
        let key_at_slack = span(MONTH_MS + CLOCK_SLACK_MS, age);
        for (periods, now_ms, expired) in [
            (&[key_after][..], age, false),
            (&[key_after], age + 1, true),
            (&[key_at_slack], age + 1, false),
            (&[], age + 1, true),
        ] {
            assert_eq!(
                rejections_expired(month, periods, now_ms, RETENTION_MS),
                expired,
                "now_ms={now_ms} periods={periods:?}"
            );
        }
    }

    #[test]
    fn only_an_unbroken_row_of_partitions_counts_as_ahead() {
        let spans = [span(10, 20), span(0, 10), span(20, 30), span(40, 50)];
        for (now_ms, count) in [(0, 2), (9, 2), (10, 1), (29, 0), (35, 0), (40, 0)] {
            assert_eq!(ahead(&spans, now_ms), count, "now_ms={now_ms}");
        }
    }
}
