//! When each request of an open-model run is due.
//!
//! Owns: the arrival times of one thread.
//! Never: reads a clock or waits; `worker` brings the time in.
//! Bound: arrivals before the end of the run.
//! Invariant: arrival `n` is due at `n / rate`, computed from zero each time, so
//! no error adds up and a slow target cannot move a later arrival.

use std::num::NonZeroU64;
use std::time::Duration;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Which share of the arrivals a thread sends: numbers `index`, `index + count`, ...
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) index: u64,
    pub(crate) count: NonZeroU64,
}

/// The arrivals of one thread, in order.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    rate: NonZeroU64,
    share: Share,
    end: Duration,
    /// The number, over all threads, of this thread's next arrival.
    next: u64,
}

impl Schedule {
    /// `rate` arrivals a second over all threads until `end`.
    pub(crate) fn new(rate: NonZeroU64, share: Share, end: Duration) -> Self {
        Self {
            rate,
            share,
            end,
            next: share.index,
        }
    }

    /// When the next arrival is due, whether that has passed or not.
    pub(crate) fn next_at(&self) -> Option<Duration> {
        let nanos = u128::from(self.next) * NANOS_PER_SECOND / u128::from(self.rate.get());
        let at = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        (at < self.end).then_some(at)
    }

    /// Takes the next arrival if it is due at `now`; gives its intended time.
    pub(crate) fn take_due(&mut self, now: Duration) -> Option<Duration> {
        let at = self.next_at().filter(|at| *at <= now)?;
        self.next = self.next.saturating_add(self.share.count.get());
        Some(at)
    }

    /// Arrivals of this thread that were not taken.
    pub(crate) fn remaining(&self) -> u64 {
        // The first arrival number that is due at `end` or later: ceil(end * rate).
        let due = (self.end.as_nanos() * u128::from(self.rate.get())).div_ceil(NANOS_PER_SECOND);
        let left = due.saturating_sub(u128::from(self.next));
        let mine = left.div_ceil(u128::from(self.share.count.get()));
        u64::try_from(mine).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{Class, Tally, Times};
    use std::collections::VecDeque;

    fn schedule(rate: u64, index: u64, count: u64, end: Duration) -> Schedule {
        let share = Share {
            index,
            count: NonZeroU64::new(count).unwrap(),
        };
        Schedule::new(NonZeroU64::new(rate).unwrap(), share, end)
    }

    fn drain(mut schedule: Schedule) -> Vec<Duration> {
        std::iter::from_fn(|| schedule.take_due(Duration::MAX)).collect()
    }

    #[test]
    fn a_rate_that_does_not_divide_a_second_does_not_drift() {
        let times = drain(schedule(7, 0, 1, Duration::from_secs(1000)));
        assert_eq!(times.len(), 7000);
        // Every seventh arrival falls on a whole second again.
        assert_eq!(times[6993], Duration::from_secs(999));
        assert_eq!(times[1], Duration::from_nanos(142_857_142));
    }

    #[test]
    fn threads_share_one_schedule_without_gap_or_double() {
        let end = Duration::from_millis(1500);
        let whole = drain(schedule(1000, 0, 1, end));
        let mut shared: Vec<_> = (0..3)
            .flat_map(|index| drain(schedule(1000, index, 3, end)))
            .collect();
        shared.sort();
        assert_eq!(shared, whole);
        assert_eq!(whole.len(), 1500);
    }

    #[test]
    fn remaining_counts_what_was_never_taken() {
        for (rate, count, millis) in [(1000, 1, 1500), (7, 3, 10_001), (3, 4, 100), (1, 1, 1)] {
            for index in 0..count {
                let mut left = schedule(rate, index, count, Duration::from_millis(millis));
                let all = drain(left.clone()).len();
                assert_eq!(
                    left.remaining(),
                    u64::try_from(all).unwrap(),
                    "rate={rate} {index}/{count}"
                );
                if left.take_due(Duration::MAX).is_some() {
                    assert_eq!(left.remaining() + 1, u64::try_from(all).unwrap());
                }
            }
        }
    }

    #[test]
    fn nothing_is_due_before_its_time() {
        let mut plan = schedule(10, 1, 2, Duration::from_secs(1));
        assert_eq!(plan.take_due(Duration::from_nanos(99_999_999)), None);
        let tenth = Duration::from_millis(100);
        assert_eq!(plan.take_due(tenth), Some(tenth));
        assert_eq!(plan.take_due(tenth), None);
    }

    /// One second of 1,000 requests a second over four connections to a target
    /// that takes 1 ms each, but answers nothing during `stall`.
    fn simulate(stall: std::ops::Range<u64>) -> Tally {
        let mut plan = schedule(1000, 0, 1, Duration::from_secs(1));
        let mut tally = Tally::new(["transfer".to_owned()]);
        let mut free_at: VecDeque<Duration> = VecDeque::from([Duration::ZERO; 4]);
        while let Some(due) = plan.next_at() {
            let now = due.max(free_at.pop_front().unwrap());
            let intended = plan.take_due(now).unwrap();
            let stalled = Duration::from_millis(stall.start)..Duration::from_millis(stall.end);
            let begins = if stalled.contains(&now) {
                stalled.end
            } else {
                now
            };
            let done = begins + Duration::from_millis(1);
            let times = Times {
                intended,
                sent: now,
                answered: done,
            };
            tally.time(0, Class::Success, times);
            free_at.push_back(done);
        }
        tally
    }

    #[test]
    fn a_stalled_target_shows_in_the_latency_of_every_request_it_delayed() {
        let steady = simulate(0..0);
        assert_eq!(steady.latency().all().max(), 1000);

        let stalled = simulate(200..700);
        let latency = stalled.latency().all();
        let service = stalled.service().all();
        assert!(latency.max() >= 500_000, "max={}", latency.max());
        // Half of the run's arrivals fell into the stall and none is forgiven,
        // although only the four in flight were slow as the target sees it.
        let slow = latency.len() - latency.count_between(0, 10_000);
        assert!((490..=700).contains(&slow), "slow={slow}");
        assert_eq!(service.len() - service.count_between(0, 10_000), 4);
    }
}
