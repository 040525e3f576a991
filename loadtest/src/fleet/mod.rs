//! One run over several machines: `serve-worker` and `run --workers`.
//!
//! Owns: the protocol between the machine that conducts a run and those that
//! make its load, on both sides.
//! Never: makes a request of the load or counts one; a [`Session`] on each
//! machine does, and what it counted is added up here.
//! Bound: [`WORKERS_MAX`](args) machines; a lease of seconds on each.
//! Invariant: all machines together send what one would: each thread of each
//! has its own place among all threads, so users, keys and arrivals are shared
//! out without gap or double; and no machine goes on without a conductor.

mod args;
mod clock;
mod conduct;
mod crew;
mod link;
mod outcome;
mod part;
mod plan;
mod serve;
mod shared;
mod shift;
mod token;
mod wire;

use std::num::NonZeroU64;
use std::time::Duration;

pub(crate) use self::args::{FleetArgs, ServePlan, ServeWorkerArgs};
use self::crew::Crew;
pub(crate) use self::part::WorkerPart;
pub(crate) use self::serve::serve;
pub(crate) use self::wire::check_journal;
use crate::args::Config;
use crate::live::Snapshot;
use crate::run::{Outcome, RunError};
use crate::session::{Refusal, Session, Wanted};

/// A run that was started, on this machine or on others.
#[derive(Debug)]
pub(crate) enum Running {
    Here(Box<Session>),
    There(Box<Crew>),
}

/// As [`Session`] has them.
impl Running {
    pub(crate) fn start(config: Config) -> Result<Self, RunError> {
        if config.fleet.workers.is_empty() {
            return Session::start(config).map(|session| Self::Here(Box::new(session)));
        }
        Ok(Self::There(Box::new(Crew::start(config))))
    }

    pub(crate) fn run_time(&self) -> Duration {
        match self {
            Self::Here(session) => session.run_time(),
            Self::There(crew) => crew.run_time(),
        }
    }

    pub(crate) fn snapshot(&mut self) -> Option<Snapshot> {
        match self {
            Self::Here(session) => session.snapshot(),
            Self::There(crew) => crew.snapshot(),
        }
    }

    pub(crate) fn wanted(&self) -> Wanted {
        match self {
            Self::Here(session) => session.wanted(),
            Self::There(crew) => crew.wanted(),
        }
    }

    pub(crate) fn set_users(
        &mut self,
        users: u64,
        per_second: Option<NonZeroU64>,
    ) -> Result<(), Refusal> {
        match self {
            Self::Here(session) => session.set_users(users, per_second),
            Self::There(crew) => crew.set_users(users, per_second),
        }
    }

    pub(crate) fn set_rate(&mut self, rate: u64) -> Result<(), Refusal> {
        match self {
            Self::Here(session) => session.set_rate(rate),
            Self::There(crew) => crew.set_rate(rate),
        }
    }

    pub(crate) fn stop(&self) {
        match self {
            Self::Here(session) => session.stop(),
            Self::There(crew) => crew.stop(),
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        match self {
            Self::Here(session) => session.is_stopping(),
            Self::There(crew) => crew.is_stopping(),
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        match self {
            Self::Here(session) => session.is_finished(),
            Self::There(crew) => crew.is_finished(),
        }
    }

    pub(crate) fn join(self) -> Result<Outcome, RunError> {
        match self {
            Self::Here(session) => session.join(),
            Self::There(crew) => crew.join(),
        }
    }

    pub(crate) fn want_so_far(&self) -> u64 {
        match self {
            Self::Here(session) => session.want_so_far(),
            Self::There(crew) => crew.want_so_far(),
        }
    }

    pub(crate) fn so_far(&self, request: u64) -> Option<Outcome> {
        match self {
            Self::Here(session) => session.so_far(request),
            Self::There(crew) => crew.so_far(request),
        }
    }
}
