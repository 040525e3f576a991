//! Waking up in time.
//!
//! Owns: one timer file and the decision how often it may fire.
//! Never: decides what is due.
//! Bound: [`QUANTUM`]: nothing is sent later than that for the timer's sake.
//! Invariant: at rates with longer gaps than the quantum, each arrival has a
//! wake-up of its own at its exact time.
//!
//! epoll's own timeout counts milliseconds, too coarse for arrival times, and
//! its precise variant needs Linux 5.11. Setting a timer and sleeping for each
//! arrival costs several times the request itself at high rates, so a wake-up
//! at least a quantum after the last one sends all that became due.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, clock_gettime,
    timerfd_create, timerfd_settime,
};

pub(super) const QUANTUM: Duration = Duration::from_micros(200);

#[derive(Debug)]
pub(super) struct Pace {
    timer: OwnedFd,
    /// The start of the run on the timer's clock.
    epoch: Duration,
    armed: Option<Duration>,
    woken: Duration,
}

/// How to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Something is due already.
    Poll,
    /// The timer will fire.
    Timer,
}

impl Pace {
    pub(super) fn new() -> std::io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self {
            timer: timerfd_create(TimerfdClockId::Monotonic, flags)?,
            epoch: Duration::ZERO,
            armed: None,
            woken: Duration::ZERO,
        })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    /// The run began `elapsed` ago.
    pub(super) fn begin(&mut self, elapsed: Duration) {
        let now = clock_gettime(ClockId::Monotonic);
        let now = Duration::try_from(now).unwrap_or_default();
        self.epoch = now.saturating_sub(elapsed);
    }

    /// Makes sure of a wake-up at `at`, or soon after if the last was just now.
    pub(super) fn wake_at(&mut self, at: Duration, now: Duration) -> std::io::Result<Wait> {
        let at = at.max(self.woken + QUANTUM);
        if at <= now {
            self.woken = now;
            return Ok(Wait::Poll);
        }
        // A wake-up that comes too early only costs itself.
        if self.armed.is_none_or(|armed| at < armed) {
            self.arm(at)?;
        }
        Ok(Wait::Timer)
    }

    /// The timer went off.
    pub(super) fn fired(&mut self, now: Duration) {
        self.armed = None;
        self.woken = now;
    }

    fn arm(&mut self, at: Duration) -> std::io::Result<()> {
        let never = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let once = Itimerspec {
            it_interval: never,
            it_value: Timespec::try_from(self.epoch + at).unwrap_or(never),
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once)?;
        self.armed = Some(at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_far_arrival_is_exact_and_near_ones_share_a_wake_up() {
        let mut pace = Pace::new().unwrap();
        pace.begin(Duration::ZERO);
        let at = Duration::from_micros;
        assert_eq!(pace.wake_at(at(900), at(10)).unwrap(), Wait::Timer);
        assert_eq!(pace.armed, Some(at(900)));
        // Sooner things move it, later ones do not.
        pace.wake_at(at(950), at(20)).unwrap();
        assert_eq!(pace.armed, Some(at(900)));
        pace.wake_at(at(700), at(30)).unwrap();
        assert_eq!(pace.armed, Some(at(700)));
        pace.fired(at(701));
        // 50 us later would be the next: it waits for the quantum.
        assert_eq!(pace.wake_at(at(751), at(702)).unwrap(), Wait::Timer);
        assert_eq!(pace.armed, Some(at(901)));
        pace.fired(at(905));
        // Overdue by more than the quantum: no sleep at all, once.
        assert_eq!(pace.wake_at(at(906), at(1_200)).unwrap(), Wait::Poll);
        assert_eq!(pace.wake_at(at(907), at(1_201)).unwrap(), Wait::Timer);
        assert_eq!(pace.armed, Some(at(1_400)));
    }
}
