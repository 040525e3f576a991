//! Whether the generator itself was the bottleneck.
//!
//! Owns: the CPU time of the client threads and the lag of what they sent.
//! Never: judges the target.
//! Invariant: lag counts only while a connection was free: a slow target takes
//! the connections away and cannot add to it.

use std::time::Duration;

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// A client thread this busy has no time left for more.
const CPU_SHARE_MAX: f64 = 0.9;
const LAG_P99_US_MAX: u64 = 1_000;
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
        let micros = u64::try_from(lag.as_micros()).unwrap_or(u64::MAX);
        self.lag_us.saturating_record(micros.max(1));
    }
}

fn thread_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// The generator's own part in a run's figures.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Generator {
    /// Why the target may be better than it looks; empty if it is not so.
    pub(crate) bottlenecks: Vec<String>,
    pub(crate) cpu_seconds: f64,
    /// Of one core, by the busiest client thread while it sent.
    pub(crate) cpu_share_max: f64,
    /// From when a request was due and a connection free, to when it was sent.
    pub(crate) lag_us: Lag,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Lag {
    pub(crate) count: u64,
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) max: u64,
}

impl Generator {
    pub(crate) fn new(efforts: &[Effort]) -> Self {
        let mut lag = Effort::new().lag_us;
        let (mut cpu_seconds, mut cpu_share_max) = (0.0_f64, 0.0_f64);
        for effort in efforts {
            lag.add(&effort.lag_us)
                .expect("it grows by itself, so the range always fits");
            let cpu = effort.cpu.unwrap_or_default().as_secs_f64();
            cpu_seconds += cpu;
            if !effort.wall.is_zero() {
                cpu_share_max = cpu_share_max.max(cpu / effort.wall.as_secs_f64());
            }
        }
        let lag_us = Lag {
            count: lag.len(),
            p50: lag.value_at_quantile(0.5),
            p99: lag.value_at_quantile(0.99),
            max: lag.max(),
        };
        Self {
            bottlenecks: bottlenecks(cpu_share_max, lag_us),
            cpu_seconds,
            cpu_share_max,
            lag_us,
        }
    }
}

fn bottlenecks(cpu_share_max: f64, lag: Lag) -> Vec<String> {
    let mut found = Vec::new();
    if cpu_share_max >= CPU_SHARE_MAX {
        found.push(format!(
            "a client thread used {:.0} % of a core: give it more --threads, or another machine",
            cpu_share_max * 100.0
        ));
    }
    if lag.p99 > LAG_P99_US_MAX {
        found.push(format!(
            "1 % of the requests left {} us or more after they were due although a connection \
             was free: the client threads did not get the CPU in time",
            lag.p99
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lag(p99: u64) -> Lag {
        Lag {
            p99,
            ..Lag::default()
        }
    }

    #[test]
    fn a_full_core_and_a_late_schedule_are_each_said() {
        assert!(bottlenecks(0.89, lag(1_000)).is_empty());
        assert!(bottlenecks(0.91, lag(0))[0].contains("91 %"));
        assert!(bottlenecks(0.1, lag(1_001))[0].contains("1001 us"));
        assert_eq!(bottlenecks(1.0, lag(5_000)).len(), 2);
    }

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
        assert!(generator.cpu_share_max >= 1.0, "{generator:?}");
        assert!(generator.cpu_seconds >= 0.005);
        assert_eq!(generator.bottlenecks.len(), 2);
        assert_eq!(generator.lag_us.count, 1);
    }
}
