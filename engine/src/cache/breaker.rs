//! Whether Redis is worth asking.
//!
//! Owns: the count of failures in a row, the back-off, the single probe.
//! Never: does I/O, awaits, or reads a clock (time is an argument).
//! Bound: one probe at a time; the back-off doubles from `backoff_min` to
//! `backoff_max` and starts again once Redis has answered.
//! Invariant: only what was begun in the present state changes it, so a late
//! answer from before can neither close an open breaker nor open a closed one.

use std::time::{Duration, Instant};

/// When to stop asking and when to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Failures in a row that open it. Default 3: one may be chance; with two
    /// reads and one put in flight, a stalled Redis is known within about one
    /// operation timeout.
    pub failures_max: u32,
    /// First wait before a probe. Default 100 ms, about a restart of Redis.
    pub backoff_min: Duration,
    /// Longest wait before a probe. Default 5 s: what recovery may cost.
    pub backoff_max: Duration,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            failures_max: 3,
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
        }
    }
}

/// The breaker's state, as shown to operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Redis is asked.
    Closed,
    /// One probe is under way; nobody else asks.
    HalfOpen,
    /// Nobody asks until the back-off ends.
    Open,
}

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// One operation: an error reply or no reply in time.
    Operation,
    /// The connection: nothing that follows on it can succeed.
    Link,
}

/// Permission for one operation; its outcome is reported with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    generation: u64,
}

/// What the prober does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// Closed, or a probe is under way.
    NotNeeded,
    /// Not before then.
    Wait(Duration),
    /// Now.
    Go(Ticket),
}

#[derive(Debug)]
enum State {
    Closed { failures: u32 },
    HalfOpen { backoff: Duration },
    Open { until: Instant, backoff: Duration },
}

#[derive(Debug)]
pub(super) struct Breaker {
    settings: BreakerSettings,
    state: State,
    /// Counts changes of state: older tickets are void.
    generation: u64,
}

impl Breaker {
    /// Open, with a probe due at once: nothing is connected yet.
    pub(super) const fn new(settings: BreakerSettings, now: Instant) -> Self {
        Self {
            settings,
            state: State::Open {
                until: now,
                backoff: settings.backoff_min,
            },
            generation: 0,
        }
    }

    pub(super) const fn state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
            State::Open { .. } => BreakerState::Open,
        }
    }

    /// For an operation; `None` unless closed.
    pub(super) const fn admit(&self) -> Option<Ticket> {
        match self.state {
            State::Closed { .. } => Some(Ticket {
                generation: self.generation,
            }),
            State::HalfOpen { .. } | State::Open { .. } => None,
        }
    }

    /// For the prober. `Go` makes it half-open until the ticket is reported.
    pub(super) fn probe(&mut self, now: Instant) -> Probe {
        match self.state {
            State::Closed { .. } | State::HalfOpen { .. } => Probe::NotNeeded,
            State::Open { until, .. } if now < until => Probe::Wait(until.duration_since(now)),
            State::Open { backoff, .. } => {
                self.become_state(State::HalfOpen { backoff });
                Probe::Go(Ticket {
                    generation: self.generation,
                })
            }
        }
    }

    pub(super) fn succeeded(&mut self, ticket: Ticket) {
        if ticket.generation != self.generation {
            return;
        }
        match &mut self.state {
            State::Closed { failures } => *failures = 0,
            State::HalfOpen { .. } => self.become_state(State::Closed { failures: 0 }),
            // No ticket is given while open.
            State::Open { .. } => {}
        }
    }

    pub(super) fn failed(&mut self, ticket: Ticket, failure: Failure, now: Instant) {
        if ticket.generation != self.generation {
            return;
        }
        match &mut self.state {
            State::Closed { failures } => {
                *failures = failures.saturating_add(1);
                if failure == Failure::Link || *failures >= self.settings.failures_max {
                    self.open(self.settings.backoff_min, now);
                }
            }
            State::HalfOpen { backoff } => {
                let backoff = backoff.saturating_mul(2).min(self.settings.backoff_max);
                self.open(backoff, now);
            }
            // No ticket is given while open.
            State::Open { .. } => {}
        }
    }

    fn open(&mut self, backoff: Duration, now: Instant) {
        self.become_state(State::Open {
            until: now + backoff,
            backoff,
        });
    }

    fn become_state(&mut self, state: State) {
        self.state = state;
        self.generation += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SETTINGS: BreakerSettings = BreakerSettings {
        failures_max: 3,
        backoff_min: Duration::from_millis(100),
        backoff_max: Duration::from_millis(350),
    };

    fn closed(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(SETTINGS, now);
        let ticket = go(&mut breaker, now);
        breaker.succeeded(ticket);
        assert_eq!(breaker.state(), BreakerState::Closed);
        breaker
    }

    #[track_caller]
    fn go(breaker: &mut Breaker, now: Instant) -> Ticket {
        match breaker.probe(now) {
            Probe::Go(ticket) => ticket,
            other @ (Probe::NotNeeded | Probe::Wait(_)) => panic!("no probe: {other:?}"),
        }
    }

    fn fail(breaker: &mut Breaker, now: Instant) {
        let ticket = breaker.admit().expect("closed");
        breaker.failed(ticket, Failure::Operation, now);
    }

    #[test]
    fn it_opens_at_the_last_failure_in_a_row_and_not_before() {
        let now = Instant::now();
        let mut breaker = closed(now);
        fail(&mut breaker, now);
        fail(&mut breaker, now);
        breaker.succeeded(breaker.admit().unwrap());
        fail(&mut breaker, now);
        fail(&mut breaker, now);
        assert_eq!(breaker.state(), BreakerState::Closed);
        fail(&mut breaker, now);
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_eq!(breaker.admit(), None);
    }

    #[test]
    fn a_lost_connection_opens_it_at_once() {
        let now = Instant::now();
        let mut breaker = closed(now);
        let ticket = breaker.admit().unwrap();
        breaker.failed(ticket, Failure::Link, now);
        assert_eq!(breaker.state(), BreakerState::Open);
    }

    #[test]
    fn probes_are_single_and_ever_rarer_up_to_the_cap() {
        let mut now = Instant::now();
        let mut breaker = closed(now);
        let ticket = breaker.admit().unwrap();
        breaker.failed(ticket, Failure::Link, now);
        for backoff_ms in [100, 200, 350, 350] {
            let backoff = Duration::from_millis(backoff_ms);
            assert_eq!(breaker.probe(now), Probe::Wait(backoff));
            let almost = now + backoff - Duration::from_nanos(1);
            assert_eq!(breaker.probe(almost), Probe::Wait(Duration::from_nanos(1)));
            now += backoff;
            let ticket = go(&mut breaker, now);
            assert_eq!(breaker.probe(now), Probe::NotNeeded);
            assert_eq!(breaker.admit(), None);
            breaker.failed(ticket, Failure::Operation, now);
        }
        now += Duration::from_millis(350);
        let ticket = go(&mut breaker, now);
        breaker.succeeded(ticket);
        assert_eq!(breaker.state(), BreakerState::Closed);
        // Once closed, the back-off starts again at its least.
        let ticket = breaker.admit().unwrap();
        breaker.failed(ticket, Failure::Link, now);
        assert_eq!(breaker.probe(now), Probe::Wait(SETTINGS.backoff_min));
    }

    #[test]
    fn a_late_report_changes_nothing() {
        let now = Instant::now();
        let mut breaker = closed(now);
        let early = breaker.admit().unwrap();
        breaker.failed(early, Failure::Link, now);
        breaker.succeeded(early);
        assert_eq!(breaker.state(), BreakerState::Open);
        let probe = go(&mut breaker, now + SETTINGS.backoff_min);
        breaker.failed(early, Failure::Link, now);
        breaker.succeeded(early);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        breaker.succeeded(probe);
        breaker.failed(early, Failure::Link, now);
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Pass(u64),
        Begin,
        Probe,
        Report { index: usize, ok: bool, link: bool },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step =
            prop_oneof![
                (0_u64..400).prop_map(Step::Pass),
                Just(Step::Begin),
                Just(Step::Probe),
                (0_usize..8, any::<bool>(), any::<bool>())
                    .prop_map(|(index, ok, link)| Step::Report { index, ok, link }),
            ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        /// Whatever happens: nothing is admitted unless closed, at most one probe
        /// of the present state is out, and Redis is tried again within the cap.
        #[test]
        fn any_history_keeps_one_probe_and_recovers(steps in steps()) {
            let mut now = Instant::now();
            let mut breaker = Breaker::new(SETTINGS, now);
            let mut tickets: Vec<Ticket> = Vec::new();
            for step in steps {
                match step {
                    Step::Pass(ms) => now += Duration::from_millis(ms),
                    Step::Begin => {
                        let admitted = breaker.admit();
                        prop_assert_eq!(admitted.is_some(), breaker.state() == BreakerState::Closed);
                        tickets.extend(admitted);
                    }
                    Step::Probe => {
                        let before = breaker.state();
                        match breaker.probe(now) {
                            Probe::Go(ticket) => {
                                prop_assert_eq!(before, BreakerState::Open);
                                tickets.push(ticket);
                            }
                            Probe::Wait(wait) => prop_assert!(wait <= SETTINGS.backoff_max),
                            Probe::NotNeeded => prop_assert_ne!(before, BreakerState::Open),
                        }
                    }
                    Step::Report { index, ok, link } => {
                        if index < tickets.len() {
                            let ticket = tickets.swap_remove(index);
                            let failure = if link { Failure::Link } else { Failure::Operation };
                            if ok { breaker.succeeded(ticket) } else { breaker.failed(ticket, failure, now) }
                        }
                    }
                }
                if breaker.state() == BreakerState::HalfOpen {
                    let out = tickets.iter().filter(|ticket| ticket.generation == breaker.generation);
                    prop_assert_eq!(out.count(), 1);
                }
            }
            for ticket in tickets {
                breaker.failed(ticket, Failure::Operation, now);
            }
            if breaker.state() == BreakerState::Open {
                let ticket = go(&mut breaker, now + SETTINGS.backoff_max);
                breaker.succeeded(ticket);
            }
            prop_assert_eq!(breaker.state(), BreakerState::Closed);
        }
    }
}
