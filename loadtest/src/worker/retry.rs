//! Whether and when a request is sent again.
//!
//! Owns: the decision, the back-off and its jitter.
//! Never: touches a connection or changes the bytes of a request.
//! Bound: `retries_max` repeats of one request, [`DELAY_MAX`] of back-off.
//! Invariant: only a request whose every transfer carries a key is repeated.

use std::time::Duration;

use crate::request::Repeat;
use crate::rng::Rng;
use crate::slot::{Flight, Setback};

const DELAY_FIRST: Duration = Duration::from_millis(50);
const DELAY_MAX: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Retry {
    retries_max: u32,
    rng: Rng,
}

impl Retry {
    pub(super) const fn new(retries_max: u32, rng: Rng) -> Self {
        Self { retries_max, rng }
    }

    /// When to send again, if at all, after `setback` at `now`; never once
    /// sending ends at `end`.
    pub(super) fn again_at(
        &mut self,
        flight: &Flight,
        setback: &Setback,
        retry_after: Option<Duration>,
        (now, end): (Duration, Duration),
    ) -> Option<Duration> {
        let wanted = flight.next.repeat == Repeat::Safe
            && flight.attempt < self.retries_max
            && setback.is_in_doubt();
        if !wanted {
            return None;
        }
        let due = now + self.delay(flight.attempt, retry_after);
        (due < end).then_some(due)
    }

    /// At least what the server asked for; otherwise twice as long each time.
    /// Half of it is random, so that a crowd does not come back at once.
    fn delay(&mut self, attempt: u32, retry_after: Option<Duration>) -> Duration {
        let backoff = DELAY_FIRST
            .saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX))
            .min(DELAY_MAX);
        let half = backoff / 2;
        let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        retry_after.unwrap_or(half) + Duration::from_nanos(self.rng.below(nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Next, Span};
    use crate::response::KeepBody;
    use crate::stats::{Class, Times};

    const END: Duration = Duration::from_secs(100);

    fn flight(attempt: u32, repeat: Repeat) -> Flight {
        let next = Next {
            task: 0,
            transfers: 1,
            span: Span::default(),
            repeat,
            think: Duration::ZERO,
            keep: KeepBody::Problems,
        };
        Flight {
            intended: Duration::ZERO,
            attempt,
            user: 0,
            next,
        }
    }

    fn answer(status: u16) -> Setback {
        let times = Times {
            intended: Duration::ZERO,
            sent: Duration::ZERO,
            answered: Duration::ZERO,
        };
        Setback::Answer {
            status,
            class: Class::of(status),
            times,
        }
    }

    fn retry() -> Retry {
        Retry::new(5, Rng::new(1, 1))
    }

    #[test]
    fn what_is_in_doubt_is_sent_again_and_a_verdict_is_not() {
        let ask = |repeat, setback: &Setback| {
            let again = retry().again_at(&flight(0, repeat), setback, None, (Duration::ZERO, END));
            again.is_some()
        };
        assert!(ask(Repeat::Safe, &Setback::NoAnswer));
        assert!(!ask(Repeat::Unsafe, &Setback::NoAnswer));
        for (status, expected) in [
            (503, true),
            (504, true),
            (500, false),
            (200, false),
            (422, false),
            (429, false),
        ] {
            assert_eq!(ask(Repeat::Safe, &answer(status)), expected, "{status}");
            assert!(!ask(Repeat::Unsafe, &answer(status)), "{status}");
        }
    }

    #[test]
    fn repeats_are_bounded_by_their_number_and_by_the_end_of_the_run() {
        let mut retry = retry();
        let mut at = |attempt, now| {
            retry.again_at(
                &flight(attempt, Repeat::Safe),
                &Setback::NoAnswer,
                None,
                (now, END),
            )
        };
        assert!(at(4, Duration::ZERO).is_some());
        assert!(at(5, Duration::ZERO).is_none());
        assert!(at(0, END - Duration::from_millis(51)).is_some());
        assert!(at(0, END - Duration::from_millis(25)).is_none());
    }

    #[test]
    fn the_delay_doubles_up_to_a_bound_is_jittered_and_obeys_the_server() {
        let mut retry = retry();
        for attempt in 0..40 {
            let backoff = Duration::from_millis((50_u64 << attempt.min(10)).min(5_000));
            let delays: Vec<_> = (0..50).map(|_| retry.delay(attempt, None)).collect();
            assert!(
                delays
                    .iter()
                    .all(|delay| (backoff / 2..backoff).contains(delay))
            );
            assert!(delays.iter().any(|delay| *delay != delays[0]), "no jitter");
            let asked = retry.delay(attempt, Some(Duration::from_secs(7)));
            assert!((Duration::from_secs(7)..=Duration::from_millis(9_500)).contains(&asked));
        }
    }
}
