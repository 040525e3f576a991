//! When each request of an open-model run is due.
//!
//! Owns: the arrival times of one thread.
//! Never: reads a clock or waits; `worker` brings the time in.
//! Bound: arrivals before the end of the last stage.
//! Invariant: arrival `n` is due in the last nanosecond in which the integral of
//! the rate has not passed `n`. It is computed from zero in integers each time,
//! so no error adds up and a slow target cannot move a later arrival. A change of
//! the rate goes on from the integral it finds: no burst, no gap, and the threads
//! still agree on who sends what.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::stages::{Change, PARTS_PER_ARRIVAL, Stages};

/// Which share of the users a thread has, and sends the arrivals of: numbers
/// `index`, `index + count`, ...
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) index: u64,
    pub(crate) count: NonZeroU64,
}

impl Share {
    /// How many of the first `total` numbers are this share's.
    pub(crate) fn of(self, total: u64) -> u64 {
        total.saturating_sub(self.index).div_ceil(self.count.get())
    }
}

/// One arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    /// Over all threads, from zero.
    pub(crate) number: u64,
    /// Whose it is, among this thread's users.
    pub(crate) user: u64,
    pub(crate) at: Duration,
}

/// The arrivals of one thread, in order.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    rate: Stages,
    share: Share,
    /// Over all threads; they take turns.
    users: NonZeroU64,
    /// The number, over all threads, of this thread's next arrival.
    next: u64,
    next_at: Option<Duration>,
    /// The stage of the next arrival, where it begins, and what came before it.
    stage: usize,
    begin: Duration,
    parts_before: i128,
}

impl Schedule {
    /// Arrivals at `rate` (requests a second) over all threads. Arrival `n` is of
    /// user `n` modulo `users`, and of the thread whose user that is: so the same
    /// requests are made at the same times, however many threads there are.
    pub(crate) fn new(rate: Stages, share: Share, users: NonZeroU64) -> Self {
        let has_users = share.index < users.get();
        let mut schedule = Self {
            rate,
            share,
            users,
            next: if has_users { share.index } else { u64::MAX },
            next_at: None,
            stage: 0,
            begin: Duration::ZERO,
            parts_before: 0,
        };
        schedule.find_next();
        schedule
    }

    /// Another rate from a moment on, best one that is still to come: what was
    /// taken after it at the old rate cannot be given back.
    pub(crate) fn change(&mut self, change: Change, end: Duration) {
        self.rate = self.rate.changed(change, end);
        self.stage = 0;
        self.begin = Duration::ZERO;
        self.parts_before = 0;
        self.find_next();
    }

    /// When the next arrival is due, whether that has passed or not.
    pub(crate) const fn next_at(&self) -> Option<Duration> {
        self.next_at
    }

    /// Takes the next arrival if it is due at `now`.
    pub(crate) fn take_due(&mut self, now: Duration) -> Option<Due> {
        let at = self.next_at.filter(|at| *at <= now)?;
        let number = self.next;
        let place = number % self.users;
        let count = self.share.count.get();
        let next = if place + count < self.users.get() {
            number.checked_add(count)
        } else {
            // Its first user has the next turn of all users.
            (number - place).checked_add(self.users.get() + self.share.index)
        };
        self.next = next.unwrap_or(u64::MAX);
        self.find_next();
        Some(Due {
            number,
            user: place / count,
            at,
        })
    }

    /// How many of the first so many arrivals are this thread's.
    fn own(&self, arrivals: u64) -> u64 {
        let turns = arrivals / self.users;
        turns * self.share.of(self.users.get()) + self.share.of(arrivals % self.users)
    }

    /// Arrivals of this thread due before `until` that were not taken.
    pub(crate) fn remaining(&self, until: Duration) -> u64 {
        let taken = self.own(self.next);
        self.own(self.arrivals_by(until)).saturating_sub(taken)
    }

    fn find_next(&mut self) {
        let target = i128::from(self.next) * PARTS_PER_ARRIVAL;
        while let Some(part) = self.rate.get(self.stage) {
            if target < self.parts_before + part.parts() {
                let nanos = part.last_within(target - self.parts_before);
                let into = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
                self.next_at = Some(self.begin.saturating_add(into));
                return;
            }
            self.parts_before += part.parts();
            self.begin = self.begin.saturating_add(part.lasts());
            self.stage += 1;
        }
        self.next_at = None;
    }

    /// Arrivals over all threads that are due before `until`: the integral of
    /// the rate, rounded up.
    fn arrivals_by(&self, until: Duration) -> u64 {
        let (mut begin, mut parts) = (Duration::ZERO, 0);
        for part in self.rate.iter() {
            let into = until.saturating_sub(begin);
            if into < part.lasts() {
                let into = i128::try_from(into.as_nanos()).unwrap_or(i128::MAX);
                let scaled = parts * part.nanos() + part.scaled_parts_by(into);
                return whole(scaled, PARTS_PER_ARRIVAL * part.nanos());
            }
            parts += part.parts();
            begin = begin.saturating_add(part.lasts());
        }
        whole(parts, PARTS_PER_ARRIVAL)
    }
}

/// Rounded up; neither is negative.
fn whole(parts: i128, per_arrival: i128) -> u64 {
    u64::try_from((parts + per_arrival - 1) / per_arrival).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::parse_stage;
    use crate::stats::{Class, Tally, Times};
    use std::collections::VecDeque;

    fn schedule(rate: u64, index: u64, count: u64, end: Duration) -> Schedule {
        each_a_user(Stages::constant(rate, end), share(index, count))
    }

    /// As many users as threads.
    fn each_a_user(rate: Stages, share: Share) -> Schedule {
        Schedule::new(rate, share, share.count)
    }

    fn share(index: u64, count: u64) -> Share {
        Share {
            index,
            count: NonZeroU64::new(count).unwrap(),
        }
    }

    fn drain(mut schedule: Schedule) -> Vec<Duration> {
        std::iter::from_fn(|| schedule.take_due(Duration::MAX))
            .map(|due| due.at)
            .collect()
    }

    fn staged(text: &[&str]) -> Stages {
        let parsed = text.iter().map(|text| parse_stage(text).unwrap().1);
        Stages::new(parsed.collect(), 10_000_000).unwrap()
    }

    /// Ramp, plateau, spike, pause, fall: every shape at once.
    fn shapes() -> Stages {
        staged(&[
            "duration=1500ms,rate=0..997",
            "duration=700ms,rate=1000",
            "duration=100ms,rate=9001",
            "duration=333ms,rate=0",
            "duration=2s,rate=501..3",
        ])
    }

    #[test]
    fn on_a_ramp_arrival_n_is_due_where_the_integral_reaches_n() {
        // 0 to 1,000/s over a second: n = 500 t^2, so t = sqrt(n / 500).
        let times = drain(each_a_user(
            staged(&["duration=1s,rate=0..1000"]),
            share(0, 1),
        ));
        assert_eq!(times.len(), 500);
        assert_eq!(times[125], Duration::from_millis(500));
        assert_eq!(times[20], Duration::from_millis(200));
        for (number, at) in times.iter().enumerate() {
            let number = f64::from(u32::try_from(number).unwrap());
            let exact = (number / 500.0).sqrt();
            assert!(
                (at.as_secs_f64() - exact).abs() < 2e-9,
                "{number} at {at:?}"
            );
        }
    }

    #[test]
    fn a_pause_sends_nothing_and_the_count_is_the_integral() {
        let times = drain(each_a_user(shapes(), share(0, 1)));
        let begin = Duration::from_millis(2_300);
        let pause = begin..begin + Duration::from_millis(333);
        // 747.75 on the ramp, 700 on the plateau, 900.1 in the spike, 504 falling.
        assert_eq!(times.len(), 2852);
        assert!(
            times.iter().all(|at| !pause.contains(at)),
            "none in the pause"
        );
        assert!(times.is_sorted());
        let early = times.iter().filter(|at| **at < Duration::from_millis(750));
        assert_eq!(early.count(), 187);
    }

    #[test]
    fn a_day_of_ramps_ends_on_its_last_arrival() {
        let day = staged(&["duration=12h,rate=10000000..1", "duration=12h,rate=7"]);
        let mut late = each_a_user(day, share(0, 1));
        let end = Duration::from_secs(24 * 60 * 60);
        // 12 h at an average of 5,000,000.5/s, and 12 h at 7/s.
        assert_eq!(late.remaining(end), 216_000_021_600 + 302_400);
        late.next = 216_000_021_600;
        late.find_next();
        assert_eq!(late.next_at(), Some(end / 2));
        late.next += 302_399;
        late.find_next();
        assert_eq!(
            late.next_at(),
            Some(end - Duration::from_nanos(142_857_143))
        );
        late.next += 1;
        late.find_next();
        assert_eq!(late.next_at(), None);
    }

    #[test]
    fn threads_share_stages_without_gap_or_double() {
        let whole = drain(each_a_user(shapes(), share(0, 1)));
        let mut numbers = Vec::new();
        for index in 0..7 {
            let mut part = each_a_user(shapes(), share(index, 7));
            while let Some(due) = part.take_due(Duration::MAX) {
                numbers.push((due.number, due.at));
            }
        }
        numbers.sort_unstable();
        let expected: Vec<_> = (0..).zip(whole).collect();
        assert_eq!(numbers, expected);
    }

    /// A clock that jumps by `step` and a target that takes at most `burst` at
    /// a time: what is not sent is counted, and nothing else.
    #[test]
    fn whatever_the_clock_does_each_arrival_is_sent_once_or_counted() {
        for (step, burst) in [(1, 1), (7, 3), (50, 1), (400, 1_000)] {
            let mut plan = each_a_user(shapes(), share(2, 3));
            let total = plan.remaining(Duration::MAX);
            let (mut now, mut sent) = (Duration::ZERO, 0);
            let end = Duration::from_millis(4_633);
            while now < end {
                for _ in 0..burst {
                    let Some(due) = plan.take_due(now) else { break };
                    assert!(due.at <= now, "early: {due:?} at {now:?}");
                    assert_eq!(due.number, 2 + 3 * sent);
                    sent += 1;
                }
                // What is due and was not sent is the backlog, at any moment.
                let mut copy = plan.clone();
                let behind = std::iter::from_fn(|| {
                    copy.take_due(now.saturating_sub(Duration::from_nanos(1)))
                });
                assert_eq!(plan.remaining(now), u64::try_from(behind.count()).unwrap());
                now += Duration::from_millis(step);
            }
            assert_eq!(sent + plan.remaining(end), total, "step={step}");
        }
    }

    fn change(at: Duration, level: u64) -> Change {
        Change {
            at,
            level,
            per_second: None,
        }
    }

    /// Takes all arrivals on a simulated clock; each change is told a little
    /// before its time, when arrivals were taken already.
    fn drive(mut plan: Schedule, changes: &[Change], end: Duration) -> Vec<Duration> {
        let lead = Duration::from_millis(100);
        let mut changes = changes.iter().peekable();
        let (mut now, mut times) = (Duration::ZERO, Vec::new());
        while now <= end {
            while let Some(change) = changes.next_if(|change| change.at <= now + lead) {
                plan.change(*change, end);
            }
            while let Some(due) = plan.take_due(now) {
                times.push(due.at);
            }
            now += Duration::from_micros(700);
        }
        assert_eq!(plan.remaining(end), 0);
        times
    }

    #[test]
    fn a_changed_rate_goes_on_from_its_moment_without_burst_or_gap() {
        let end = Duration::from_secs(3);
        // Half an arrival is open when the rate changes: at a tenth of the rate it
        // takes the other half ten times as long.
        let at = Duration::from_micros(500_500);
        let times = drive(schedule(1000, 0, 1, end), &[change(at, 100)], end);
        let next = times.partition_point(|time| *time < at);
        assert_eq!(times[next - 1], Duration::from_millis(500));
        assert_eq!(times[next], Duration::from_micros(505_500));
        assert_eq!(times[next + 1], Duration::from_micros(515_500));
        assert_eq!(times.len(), 501 + 250);
        let up = drive(schedule(100, 0, 1, end), &[change(at, 1000)], end);
        let next = up.partition_point(|time| *time < at);
        let gaps: Vec<_> = up[next - 1..].windows(2).map(|w| w[1] - w[0]).collect();
        assert!(gaps.iter().all(|gap| *gap <= Duration::from_millis(10)));
        assert!(gaps[1..].iter().all(|gap| *gap == Duration::from_millis(1)));
    }

    #[test]
    fn threads_that_hear_of_changes_still_share_one_schedule() {
        let end = Duration::from_secs(6);
        // On the ramp, in the pause, and after the last stage.
        let changes = [
            change(Duration::from_nanos(777_777_777), 313),
            change(Duration::from_millis(2_400), 2_000),
            change(Duration::from_millis(4_700), 11),
        ];
        let all = drive(each_a_user(shapes(), share(0, 1)), &changes, end);
        let mut shared: Vec<_> = (0..3)
            .flat_map(|index| drive(each_a_user(shapes(), share(index, 3)), &changes, end))
            .collect();
        shared.sort();
        assert_eq!(shared, all);
        // 201.05 on the ramp, then 507.75, 4,600 and 14.3: the integral, rounded up.
        assert_eq!(all.len(), 5_324);
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
    fn whose_arrival_it_is_does_not_depend_on_the_threads() {
        let users = NonZeroU64::new(7).unwrap();
        let mut expected = None;
        for count in [1, 2, 3, 5, 7] {
            let mut all = Vec::new();
            for index in 0..count {
                let own = share(index, count);
                let mut plan = Schedule::new(shapes(), own, users);
                let total = plan.remaining(Duration::MAX);
                let taken = all.len();
                while let Some(due) = plan.take_due(Duration::MAX) {
                    all.push((due.number, due.user * count + index, due.at));
                    let left = total - u64::try_from(all.len() - taken).unwrap();
                    assert_eq!(plan.remaining(Duration::MAX), left);
                }
            }
            all.sort_unstable();
            assert!(all.iter().all(|(number, user, _)| number % 7 == *user));
            assert_eq!(expected.get_or_insert_with(|| all.clone()), &all, "{count}");
        }
        let idle = Schedule::new(shapes(), share(7, 8), users);
        assert_eq!((idle.next_at(), idle.remaining(Duration::MAX)), (None, 0));
    }

    #[test]
    fn remaining_counts_what_was_never_taken() {
        for (rate, count, millis) in [(1000, 1, 1500), (7, 3, 10_001), (3, 4, 100), (1, 1, 1)] {
            for index in 0..count {
                let mut left = schedule(rate, index, count, Duration::from_millis(millis));
                let all = drain(left.clone()).len();
                assert_eq!(
                    left.remaining(Duration::MAX),
                    u64::try_from(all).unwrap(),
                    "rate={rate} {index}/{count}"
                );
                if left.take_due(Duration::MAX).is_some() {
                    assert_eq!(
                        left.remaining(Duration::MAX) + 1,
                        u64::try_from(all).unwrap()
                    );
                }
            }
        }
    }

    #[test]
    fn nothing_is_due_before_its_time() {
        let mut plan = schedule(10, 1, 2, Duration::from_secs(1));
        assert_eq!(plan.take_due(Duration::from_nanos(99_999_999)), None);
        let tenth = Duration::from_millis(100);
        assert_eq!(plan.take_due(tenth).map(|due| due.at), Some(tenth));
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
            let intended = plan.take_due(now).unwrap().at;
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
