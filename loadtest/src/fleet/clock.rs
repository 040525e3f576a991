//! What another machine's clock says, from round trips.
//!
//! Owns: the offset between two clocks and how well it is known.
//! Never: reads a clock.
//! Invariant: the true offset is within `error` of the estimate, if both clocks
//! run at one speed: the answer was made between the question and its arrival,
//! so half of the round trip bounds the mistake (as in NTP, RFC 5905).

use std::time::Duration;

/// One round trip.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) sent: Duration,
    /// Theirs, somewhere between.
    pub(super) theirs: Duration,
    pub(super) received: Duration,
}

/// Theirs less ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offset {
    nanos: i128,
    pub(super) error: Duration,
}

impl Offset {
    pub(super) fn new(reading: Reading) -> Self {
        let trip = reading.received.saturating_sub(reading.sent);
        Self {
            nanos: nanos(reading.theirs) - nanos(reading.sent + trip / 2),
            error: trip / 2,
        }
    }

    /// Of two, the one that is known better.
    pub(super) fn or_better(self, other: Self) -> Self {
        if other.error < self.error {
            other
        } else {
            self
        }
    }

    pub(super) fn theirs(self, ours: Duration) -> Duration {
        duration(nanos(ours) + self.nanos)
    }

    pub(super) fn ours(self, theirs: Duration) -> Duration {
        duration(nanos(theirs) - self.nanos)
    }
}

fn nanos(time: Duration) -> i128 {
    i128::try_from(time.as_nanos()).unwrap_or(i128::MAX)
}

fn duration(nanos: i128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn whatever_the_ways_take_the_offset_is_known_to_its_error() {
        let mut rng = Rng::new(7, 0);
        let mut best: Option<Offset> = None;
        for _ in 0..500 {
            let ahead = Duration::from_secs(1_000);
            let sent = Duration::from_micros(rng.below(1_000_000));
            let there = Duration::from_micros(rng.below(5_000));
            let back = Duration::from_micros(rng.below(5_000));
            let theirs = sent + there + ahead;
            let received = sent + there + back;
            let offset = Offset::new(Reading {
                sent,
                theirs,
                received,
            });
            let found = offset.theirs(Duration::ZERO);
            let wrong = found.abs_diff(ahead);
            assert!(wrong <= offset.error, "{wrong:?} of {:?}", offset.error);
            assert_eq!(offset.ours(offset.theirs(MS(3))), MS(3));
            best = Some(best.map_or(offset, |best| best.or_better(offset)));
        }
        let best = best.unwrap();
        assert!(best.error < MS(1), "{best:?}");
        assert!(
            best.theirs(Duration::ZERO)
                .abs_diff(Duration::from_secs(1_000))
                <= best.error
        );
    }

    #[test]
    fn a_clock_that_is_behind_has_a_negative_offset() {
        let offset = Offset::new(Reading {
            sent: MS(5_000),
            theirs: MS(1_001),
            received: MS(5_002),
        });
        assert_eq!(offset.error, MS(1));
        assert_eq!(offset.theirs(MS(6_000)), MS(2_000));
        assert_eq!(offset.ours(MS(2_000)), MS(6_000));
        assert_eq!(offset.theirs(MS(1)), Duration::ZERO, "before it was on");
    }
}
