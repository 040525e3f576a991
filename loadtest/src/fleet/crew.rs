//! A run that goes on on other machines, as a [`Session`] is one on this.
//!
//! Owns: the thread that conducts it, and what load was asked for.
//! Never: waits for a worker: who asks gets what is known now.
//! Bound: one thread; see [`Session`] for what may be asked.
//! Invariant: a crew that is dropped is told to stop.
//!
//! [`Session`]: crate::session::Session

use std::num::NonZeroU64;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::conduct::conduct;
use super::outcome::{Ending, outcome};
use super::shared::Shared;
use crate::args::Config;
use crate::live::{Order, Snapshot, Watcher};
use crate::run::{Ended, Outcome, RunError};
use crate::scenario::{RATE_MAX, USERS_MAX};
use crate::session::{Refusal, Wanted};
use crate::stages::{Change, Stages};

/// From an order to its moment: the workers hear of it over the network.
const LEAD: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct Crew {
    config: Arc<Config>,
    shared: Arc<Shared>,
    /// None once it was joined.
    conductor: Option<JoinHandle<Result<Vec<Ending>, RunError>>>,
    watcher: Watcher,
    /// As the workers have them, once they have heard of the last order.
    staff: Stages,
    arrivals: Option<Stages>,
}

impl Crew {
    /// Begins to gather the workers; whether they can be reached is told by
    /// [`Crew::join`].
    pub(super) fn start(config: Config) -> Self {
        let config = Arc::new(config);
        let shared = Arc::new(Shared::new());
        let conductor = {
            let (config, shared) = (Arc::clone(&config), Arc::clone(&shared));
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .map_err(RunError::Io)?;
                runtime.block_on(conduct(&config, &shared))
            })
        };
        Self {
            shared,
            conductor: Some(conductor),
            watcher: Watcher::new(),
            staff: config.scenario.load.staff.clone(),
            arrivals: config.scenario.load.arrivals.clone(),
            config,
        }
    }

    pub(super) fn run_time(&self) -> Duration {
        self.config.scenario.load.run_time
    }

    pub(super) fn snapshot(&mut self) -> Option<Snapshot> {
        let at = self.shared.elapsed()?;
        Some(self.watcher.snapshot(self.shared.sum(), at))
    }

    /// What the stages or the last change say for now.
    pub(super) fn wanted(&self) -> Wanted {
        let at = self.shared.elapsed().unwrap_or_default();
        Wanted {
            users: self.staff.level_at(at),
            rate: self.arrivals.as_ref().map(|rate| rate.level_at(at)),
        }
    }

    pub(super) fn set_users(
        &mut self,
        users: u64,
        per_second: Option<NonZeroU64>,
    ) -> Result<(), Refusal> {
        let least = match self.arrivals {
            Some(_) => u64::from(self.shared.threads().max(1)),
            None => 1,
        };
        if users < least || u64::from(USERS_MAX) < users {
            return Err(Refusal::Users { least });
        }
        let change = self.change(users, per_second)?;
        self.give(Order::Users(change))?;
        self.staff = self.staff.changed(change, self.run_time());
        Ok(())
    }

    pub(super) fn set_rate(&mut self, rate: u64) -> Result<(), Refusal> {
        if !(1..=RATE_MAX).contains(&rate) {
            return Err(Refusal::Rate);
        }
        let arrivals = self.arrivals.clone().ok_or(Refusal::ClosedModel)?;
        let change = self.change(rate, None)?;
        self.give(Order::Rate(change))?;
        self.arrivals = Some(arrivals.changed(change, self.run_time()));
        Ok(())
    }

    fn change(&self, level: u64, per_second: Option<NonZeroU64>) -> Result<Change, Refusal> {
        let elapsed = self.shared.elapsed().filter(|_| !self.shared.is_stopped());
        Change::ahead(LEAD, elapsed, self.run_time(), level, per_second).ok_or(Refusal::Over)
    }

    fn give(&self, order: Order) -> Result<(), Refusal> {
        if self.shared.give(order) {
            Ok(())
        } else {
            Err(Refusal::TooOften)
        }
    }

    pub(super) fn stop(&self) {
        self.shared.stop();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.shared.is_stopped()
            || self
                .shared
                .elapsed()
                .is_some_and(|at| self.run_time() <= at)
    }

    pub(super) fn is_finished(&self) -> bool {
        self.conductor.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the end of the run.
    ///
    /// # Errors
    /// [`RunError`] if there is nothing to report.
    pub(super) fn join(mut self) -> Result<Outcome, RunError> {
        let endings = match self.conductor.take().map(JoinHandle::join) {
            Some(Ok(result)) => result?,
            Some(Err(_)) | None => return Err(RunError::Panicked),
        };
        let lost = endings.iter().any(|ending| ending.part.lost.is_some());
        let mut outcome = outcome(endings, Ended::InTime, self.most()).ok_or_else(|| {
            RunError::Fleet("no worker is left: there is nothing to report".to_owned())
        })?;
        if lost {
            outcome.ended = Ended::Deserted;
        } else if outcome.sending < self.run_time() {
            outcome.ended = Ended::Stopped;
        }
        Ok(outcome)
    }

    pub(super) fn want_so_far(&self) -> u64 {
        self.shared.want_copies()
    }

    pub(super) fn so_far(&self, request: u64) -> Option<Outcome> {
        let workers = self.config.fleet.workers.len();
        let copies = self.shared.copies(request, workers)?;
        outcome(copies, Ended::NotYet, self.most())
    }

    fn most(&self) -> Wanted {
        Wanted {
            users: self.staff.peak(),
            rate: self.arrivals.as_ref().map(Stages::peak),
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.shared.stop();
    }
}
