//! Whether the generator itself was the bottleneck.
//!
//! Owns: the CPU time of the client threads and the lag of what they sent.
//! Never: judges the target.
//! Invariant: lag counts only while a connection was free: a slow target takes
//! the connections away and cannot add to it.

use std::time::Duration;

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::stats::{merge_into, micros};

/// From here on answers wait for the generator, not for the target.
const CPU_SHARE_FULL: f64 = 0.9;
pub(crate) const LAG_US_MAX: u64 = 10_000;
const LAG_RANGE_US: u64 = 60_000_000;

/// What one client thread spent.
#[derive(Clone, Debug)]
pub(crate) struct Effort {
    cpu_before: Duration,
    cpu: Option<Duration>,
    wall: Duration,
    lag_us: Histogram<u64>,
}

impl Effort {
    pub(crate) fn new() -> Self {
        let mut lag_us = Histogram::new_with_bounds(1, LAG_RANGE_US, 3)
            .expect("1, 60,000,000 and 3 digits are valid bounds");
        lag_us.auto(true);
        Self {
            cpu_before: Duration::ZERO,
            cpu: None,
            wall: Duration::ZERO,
            lag_us,
        }
    }

    /// Sending begins, on the calling thread.
    pub(crate) fn begin(&mut self) {
        self.cpu_before = thread_cpu();
    }

    /// Sending has ended after `wall`; only the first call counts.
    pub(crate) fn end(&mut self, wall: Duration) {
        if self.cpu.is_none() {
            self.cpu = Some(thread_cpu().saturating_sub(self.cpu_before));
            self.wall = wall;
        }
    }

    /// Something was sent this long after it was due and a connection was free.
    pub(crate) fn lag(&mut self, lag: Duration) {
        self.lag_us.saturating_record(micros(lag).max(1));
    }
}

fn thread_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// How busy the generator itself was: its own limit must not pass for the target's.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct Generator {
    /// Of one core, by the busiest client thread while it sent, 0 to 1.
    pub(crate) cpu_share: f64,
    /// How late requests left although a connection was free (open model).
    pub(crate) lag_p99_us: u64,
}

impl Generator {
    pub(crate) fn new(efforts: &[Effort]) -> Self {
        let mut lag = Effort::new().lag_us;
        let mut cpu_share = 0.0_f64;
        for effort in efforts {
            merge_into(&mut lag, &effort.lag_us);
            let cpu = effort.cpu.unwrap_or_default().as_secs_f64();
            if !effort.wall.is_zero() {
                cpu_share = cpu_share.max(cpu / effort.wall.as_secs_f64());
            }
        }
        Self {
            cpu_share,
            lag_p99_us: lag.value_at_quantile(0.99),
        }
    }

    pub(crate) fn was_the_bottleneck(self) -> bool {
        self.cpu_share >= CPU_SHARE_FULL || self.lag_p99_us >= LAG_US_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_counts_as_cpu_time_and_the_busiest_thread_decides() {
        let mut busy = Effort::new();
        busy.begin();
        let mut sum = 0_u64;
        while thread_cpu().saturating_sub(busy.cpu_before) < Duration::from_millis(5) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        busy.end(Duration::from_millis(5));
        busy.end(Duration::from_secs(99));
        busy.lag(Duration::from_millis(3));
        let mut lazy = Effort::new();
        lazy.begin();
        lazy.end(Duration::from_secs(5));
        let generator = Generator::new(&[lazy, busy]);
        assert!(generator.cpu_share >= 1.0, "{generator:?}");
        assert!((2_990..=3_010).contains(&generator.lag_p99_us));
        assert!(generator.was_the_bottleneck());
    }
}
