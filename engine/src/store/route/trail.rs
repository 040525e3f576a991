//! How far a standby is behind, told without trusting two clocks.
//!
//! Owns: where the primary's WAL was when it was asked.
//! Never: compares clocks of machines, or guesses: what is not known to follow has
//! no moment.
//! Bound: [`SAMPLES_MAX`] positions, none older than the caller keeps.
//! Invariant: a standby that had a position had all that was committed before the
//! question that the position answered.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::facts::Facts;
use crate::domain::DatabaseIdentity;

/// Positions of the primary that are remembered, to tell how far a replica is behind.
const SAMPLES_MAX: usize = 4_096;

/// Where the primary's WAL was, and when at the latest; the newest last.
#[derive(Debug, Default)]
pub(super) struct Trail {
    samples: VecDeque<(Instant, u64)>,
}

impl Trail {
    /// Another primary, or another history: positions do not compare.
    pub(super) fn clear(&mut self) {
        self.samples.clear();
    }

    /// Whatever was committed before that moment is at or before that position.
    pub(super) fn add(&mut self, asked_at: Instant, lsn: u64, keep: Duration) {
        if self.samples.back().is_some_and(|(at, _)| asked_at <= *at) {
            return;
        }
        while self.samples.len() >= SAMPLES_MAX
            || self
                .samples
                .front()
                .is_some_and(|(at, _)| keep < at.elapsed())
        {
            self.samples.pop_front();
        }
        self.samples.push_back((asked_at, lsn));
    }

    /// A moment such that the server had everything committed before it. None: it
    /// is not known to follow this primary.
    pub(super) fn as_of(
        &self,
        primary: DatabaseIdentity,
        asked_at: Instant,
        facts: &Facts,
    ) -> Option<Instant> {
        if facts.system_identifier != primary.system_identifier {
            return None;
        }
        if !facts.recovering {
            // The primary itself, by another name.
            return (facts.identity() == Some(primary)).then_some(asked_at);
        }
        // Without a receiver it may be on a branch that the primary left.
        let follows = facts.receiving
            && facts
                .receives_timeline
                .is_none_or(|timeline| timeline == primary.timeline);
        let mut had = self
            .samples
            .iter()
            .rev()
            .filter(|(_, lsn)| *lsn <= facts.lsn);
        had.next().map(|(at, _)| *at).filter(|_| follows)
    }
}

#[cfg(test)]
mod tests {
    use super::super::durability::Replication;
    use super::*;

    const HISTORY: DatabaseIdentity = DatabaseIdentity {
        system_identifier: 7,
        timeline: 3,
    };
    const SECOND: Duration = Duration::from_secs(1);
    const KEEP: Duration = Duration::from_secs(3600);

    fn standby(lsn: u64) -> Facts {
        Facts {
            system_identifier: 7,
            writes_timeline: None,
            recovering: true,
            receives_timeline: Some(3),
            receiving: true,
            lsn,
            replication: Replication::default(),
        }
    }

    /// Asked at 1, 2 and 3 s for positions 100, 200 and 200: the second in which a
    /// server with these facts was up to date, of one asked after 9 s.
    #[track_caller]
    fn check(facts: Facts, expected: Option<u32>) {
        let zero = Instant::now();
        let mut trail = Trail::default();
        for (second, lsn) in [(1, 100), (2, 200), (3, 200)] {
            trail.add(zero + SECOND * second, lsn, KEEP);
        }
        let as_of = trail.as_of(HISTORY, zero + SECOND * 9, &facts);
        let expected = expected.map(|second| zero + SECOND * second);
        assert_eq!(as_of, expected, "{facts:?}");
    }

    #[test]
    fn a_standby_is_as_of_the_last_position_that_it_reached() {
        check(standby(99), None);
        check(standby(100), Some(1));
        check(standby(199), Some(1));
        check(standby(200), Some(3));
        check(standby(u64::MAX), Some(3));
    }

    #[test]
    fn who_does_not_follow_this_history_has_no_moment() {
        let other = Facts {
            system_identifier: 8,
            ..standby(200)
        };
        let branch = Facts {
            receives_timeline: Some(2),
            ..standby(200)
        };
        let deaf = Facts {
            receiving: false,
            ..standby(200)
        };
        let old_primary = Facts {
            recovering: false,
            writes_timeline: Some(2),
            ..standby(200)
        };
        for facts in [other, branch, deaf, old_primary] {
            check(facts, None);
        }
    }

    #[test]
    fn the_primary_by_another_name_is_as_of_now() {
        let itself = Facts {
            recovering: false,
            writes_timeline: Some(3),
            ..standby(200)
        };
        check(itself, Some(9));
    }

    #[test]
    fn an_answer_that_comes_late_adds_nothing_and_the_oldest_goes_first() {
        let zero = Instant::now();
        let mut trail = Trail::default();
        trail.add(zero + SECOND, 100, KEEP);
        trail.add(zero, 50, KEEP);
        assert_eq!(trail.as_of(HISTORY, zero + SECOND, &standby(50)), None);
        for _ in 0..SAMPLES_MAX {
            let (at, lsn) = *trail.samples.back().unwrap();
            trail.add(at + SECOND, lsn + 1, KEEP);
        }
        assert_eq!(trail.samples.len(), SAMPLES_MAX);
        assert_eq!(trail.samples.front().unwrap().1, 101);
    }
}
