//! A run that was started: looked at, steered, stopped, and what it gives.
//!
//! Owns: the client threads of one run.
//! Never: shows anything, or lends a thread: what goes in and out is data, so
//! that the same could be asked of another machine.
//! Bound: [`USERS_MAX`] users, `ORDERS_MAX` changes of the load.
//! Invariant: a session that is dropped stops its threads.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::args::Config;
use crate::generator::{Effort, Generator};
use crate::journal::{Journal, Recorder};
use crate::live::{Board, ORDERS_MAX, Order, Sheet, Snapshot, Watcher};
use crate::run::{
    Ended, Gate, Meeting, Outcome, RunError, close_journal, discard_journal, open_journal,
    raise_file_limit, run_thread,
};
use crate::scenario::{RATE_MAX, USERS_MAX};
use crate::stages::{Change, Stages};
use crate::stats::Tally;

/// From an order to its moment: every thread looks for orders more often.
const LEAD: Duration = Duration::from_millis(100);

/// How much load is wanted at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Wanted {
    /// Users, or connections of the open model.
    pub(crate) users: u64,
    /// Requests a second; none is the closed model.
    pub(crate) rate: Option<u64>,
}

/// Why the load stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Users { least: u64 },
    Rate,
    ClosedModel,
    Over,
    TooOften,
    Files(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Users { least } => write!(f, "users: expected {least} to {USERS_MAX}"),
            Self::Rate => write!(f, "rate: expected 1 to {RATE_MAX} requests a second"),
            Self::ClosedModel => f.write_str(
                "rate: this run has users who wait for their answers (closed model); start a run \
                 with a rate to change it",
            ),
            Self::Over => f.write_str("the run is not sending; start a run first"),
            Self::TooOften => write!(
                f,
                "the load of this run was changed {ORDERS_MAX} times; start a new run"
            ),
            Self::Files(problem) => f.write_str(problem),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Session {
    config: Arc<Config>,
    board: Arc<Board>,
    meeting: Arc<Meeting>,
    threads: Vec<JoinHandle<Result<(Tally, Effort), RunError>>>,
    journal: Option<Journal>,
    watcher: Watcher,
    /// As the threads have them, once they have heard of the last order.
    staff: Stages,
    arrivals: Option<Stages>,
}

impl Session {
    /// Starts the client threads; whether the target can be reached is told by
    /// [`Session::join`].
    ///
    /// # Errors
    /// [`RunError`] if so many users cannot have connections, or the journal no file.
    pub(crate) fn start(config: Config) -> Result<Self, RunError> {
        Self::prepare(config, Gate::Open)
    }

    /// The same, and with a closed gate the threads wait to be told when to send.
    ///
    /// # Errors
    /// As [`Session::start`].
    pub(crate) fn prepare(config: Config, gate: Gate) -> Result<Self, RunError> {
        raise_file_limit(config.users_of(u64::from(config.scenario.load.users)))?;
        let config = Arc::new(config);
        let mut session = Self {
            board: Arc::new(Board::new(config.threads)),
            meeting: Arc::new(Meeting::new(config.threads, gate)),
            threads: Vec::new(),
            journal: open_journal(&config)?,
            watcher: Watcher::new(),
            staff: config.scenario.load.staff.clone(),
            arrivals: config.scenario.load.arrivals.clone(),
            config,
        };
        for index in 0..session.config.threads {
            let config = Arc::clone(&session.config);
            let board = Arc::clone(&session.board);
            let meeting = Arc::clone(&session.meeting);
            let journal = session.journal.as_ref();
            let recorder = journal.map_or_else(Recorder::off, |journal| journal.recorder(index));
            let run = move || run_thread(&config, index, (board, recorder), &meeting);
            session.threads.push(std::thread::spawn(run));
        }
        Ok(session)
    }

    /// Since the first request could be sent; none while connections are opened.
    pub(crate) fn elapsed(&self) -> Option<Duration> {
        self.meeting.started().map(|start| start.elapsed())
    }

    /// Whether every thread has its connections and waits for [`Session::begin`].
    pub(crate) fn is_ready(&self) -> bool {
        self.meeting.waiting() == self.config.threads
    }

    /// Lets a prepared run begin at that moment.
    pub(crate) fn begin(&self, at: Instant) {
        self.meeting.tell(Gate::At(at));
    }

    pub(crate) fn started(&self) -> Option<Instant> {
        self.meeting.started().copied()
    }

    /// How long after its moment the last thread began.
    pub(crate) fn late(&self) -> Duration {
        self.meeting.late()
    }

    /// What all threads published last.
    pub(crate) fn sheet(&self) -> Sheet {
        self.board.sum()
    }

    /// Passes on a change that was decided for all machines.
    ///
    /// # Errors
    /// [`Refusal`]; then nothing has changed.
    pub(crate) fn obey(&mut self, order: Order) -> Result<(), Refusal> {
        let end = self.config.scenario.load.run_time;
        match order {
            Order::Users(change) => {
                let share = self.config.users_of(change.level);
                raise_file_limit(share).map_err(|error| Refusal::Files(error.to_string()))?;
                self.give(order)?;
                self.staff = self.staff.changed(change, end);
            }
            Order::Rate(change) => {
                let arrivals = self.arrivals.as_ref().ok_or(Refusal::ClosedModel)?;
                let arrivals = arrivals.changed(change, end);
                self.give(order)?;
                self.arrivals = Some(arrivals);
            }
        }
        Ok(())
    }

    pub(crate) fn run_time(&self) -> Duration {
        self.config.scenario.load.run_time
    }

    pub(crate) fn snapshot(&mut self) -> Option<Snapshot> {
        let at = self.elapsed()?;
        Some(self.watcher.snapshot(self.board.sum(), at))
    }

    /// What the stages or the last change say for now.
    pub(crate) fn wanted(&self) -> Wanted {
        let at = self.elapsed().unwrap_or_default();
        let rate = self.arrivals.as_ref().map(|rate| rate.level_at(at));
        Wanted {
            users: self.staff.level_at(at),
            rate,
        }
    }

    /// Changes the number of users, or of connections in the open model, within
    /// a tenth of a second, or at the spawn rate.
    ///
    /// # Errors
    /// [`Refusal`]; then nothing has changed.
    pub(crate) fn set_users(
        &mut self,
        users: u64,
        per_second: Option<NonZeroU64>,
    ) -> Result<(), Refusal> {
        // Each thread sends its share of the arrivals, so each needs a connection.
        let least = match self.arrivals {
            Some(_) => u64::from(self.config.threads),
            None => 1,
        };
        if users < least || u64::from(USERS_MAX) < users {
            return Err(Refusal::Users { least });
        }
        let change = self.change(users, per_second)?;
        self.obey(Order::Users(change))
    }

    /// Changes the rate of the open model.
    ///
    /// # Errors
    /// [`Refusal`]; then nothing has changed.
    pub(crate) fn set_rate(&mut self, rate: u64) -> Result<(), Refusal> {
        if !(1..=RATE_MAX).contains(&rate) {
            return Err(Refusal::Rate);
        }
        if self.arrivals.is_none() {
            return Err(Refusal::ClosedModel);
        }
        let change = self.change(rate, None)?;
        self.obey(Order::Rate(change))
    }

    fn change(&self, level: u64, per_second: Option<NonZeroU64>) -> Result<Change, Refusal> {
        let elapsed = self.elapsed().filter(|_| !self.board.is_stopped());
        Change::ahead(LEAD, elapsed, self.run_time(), level, per_second).ok_or(Refusal::Over)
    }

    fn give(&self, order: Order) -> Result<(), Refusal> {
        if self.board.give(order) {
            Ok(())
        } else {
            Err(Refusal::TooOften)
        }
    }

    /// Ends sending; answers that are owed are still waited for.
    pub(crate) fn stop(&self) {
        self.board.stop();
        self.meeting.tell(Gate::Never);
    }

    /// Whether no more is sent: the run time is over, or it was stopped.
    pub(crate) fn is_stopping(&self) -> bool {
        self.board.is_stopped()
            || self
                .elapsed()
                .is_some_and(|at| self.config.scenario.load.run_time <= at)
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits for the end of the run.
    ///
    /// # Errors
    /// [`RunError`] if there is nothing to report.
    pub(crate) fn join(mut self) -> Result<Outcome, RunError> {
        let results: Vec<_> = std::mem::take(&mut self.threads)
            .into_iter()
            .map(|thread| thread.join().unwrap_or(Err(RunError::Panicked)))
            .collect();
        let elapsed = self.elapsed().unwrap_or_default();
        close_journal(&self.config, self.journal.take())?;
        let parts = results.into_iter().collect::<Result<Vec<_>, _>>();
        let parts = parts.inspect_err(|error| discard_journal(&self.config, error))?;
        let stopped_at = self.board.interrupted_at();
        let sending = stopped_at.unwrap_or(self.config.scenario.load.run_time);
        let ended = match stopped_at {
            Some(_) => Ended::Stopped,
            None => Ended::InTime,
        };
        Ok(self.outcome(parts, elapsed, sending, ended))
    }

    /// Asks for what was counted until now; [`Session::so_far`] has it soon.
    pub(crate) fn want_so_far(&self) -> u64 {
        self.board.want_copies()
    }

    /// The answer to that request, once all threads gave it.
    pub(crate) fn so_far(&self, request: u64) -> Option<Outcome> {
        let copies = self.board.copies(request)?;
        let at = copies.iter().map(|copy| copy.at).max().unwrap_or_default();
        let parts = copies.into_iter().map(|copy| (copy.tally, copy.effort));
        let sending = at.min(self.config.scenario.load.run_time);
        Some(self.outcome(parts.collect(), at, sending, Ended::NotYet))
    }

    fn outcome(
        &self,
        parts: Vec<(Tally, Effort)>,
        elapsed: Duration,
        sending: Duration,
        ended: Ended,
    ) -> Outcome {
        let mut tally = Tally::new(self.config.scenario.task_names());
        parts.iter().for_each(|(part, _)| tally.merge(part));
        let efforts: Vec<_> = parts.into_iter().map(|(_, effort)| effort).collect();
        Outcome {
            tally,
            elapsed,
            sending,
            ended,
            most: Wanted {
                users: self.staff.peak(),
                rate: self.arrivals.as_ref().map(Stages::peak),
            },
            generator: Generator::new(&efforts),
            workers: Vec::new(),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener};
    use std::time::Instant;

    use super::*;
    use crate::args::{Parsed, parse};

    /// Answers each piece that comes, in time for no request to be split.
    fn target() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while stream.read(&mut buffer).is_ok_and(|count| count > 0) {
                        std::thread::sleep(Duration::from_millis(2));
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
                        if stream.write_all(answer).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    fn start(flags: &str) -> Session {
        let host = format!("http://{}", target());
        let flags = format!("loadtest run --task health --host {host} {flags}");
        let flags = flags.split_whitespace().map(std::ffi::OsString::from);
        let Parsed::Run(config) = parse(flags) else {
            panic!("not a run");
        };
        Session::start(*config).unwrap()
    }

    #[track_caller]
    fn until(session: &mut Session, so: impl Fn(&Snapshot) -> bool) {
        let begun = Instant::now();
        loop {
            let snapshot = session.snapshot();
            if snapshot.as_ref().is_some_and(&so) {
                return;
            }
            let hangs = Duration::from_secs(60) < begun.elapsed();
            assert!(!hangs, "never came: {snapshot:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn users_come_and_go_when_no_stage_is_left_and_every_request_is_counted() {
        let mut session = start("--users 4 --spawn-rate 1000 --threads 2 --run-time 1h");
        until(&mut session, |now| now.users == 4);
        for users in [50, 1, 9] {
            session.set_users(users, None).unwrap();
            until(&mut session, |now| now.users == users);
            assert_eq!(session.wanted(), Wanted { users, rate: None });
        }
        assert_eq!(session.set_rate(5), Err(Refusal::ClosedModel));
        let refused = session.set_users(u64::from(USERS_MAX) + 1, None);
        assert_eq!(refused, Err(Refusal::Users { least: 1 }));
        session.stop();
        assert_eq!(session.set_users(5, None), Err(Refusal::Over));
        let outcome = session.join().unwrap();
        assert_eq!(outcome.ended, Ended::Stopped);
        assert_eq!(outcome.most.users, 50);
        assert_eq!(outcome.tally.sent, outcome.tally.responses);
        assert_eq!(outcome.tally.errors.total(), 0);
        // A user who left was answered first, and is no lost connection.
        assert_eq!(outcome.tally.reconnects, 0);
    }

    #[test]
    fn a_rate_is_changed_and_the_counts_so_far_are_the_same_run() {
        let mut session = start("--users 8 --threads 2 --rate 1 --run-time 1h");
        until(&mut session, |now| now.users == 8);
        session.set_rate(500).unwrap();
        until(&mut session, |now| now.sent > 100);
        let request = session.want_so_far();
        let begun = Instant::now();
        let so_far = loop {
            if let Some(outcome) = session.so_far(request) {
                break outcome;
            }
            assert!(begun.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(so_far.ended, Ended::NotYet);
        assert!(so_far.tally.sent > 100);
        assert_eq!(session.set_users(1, None), Err(Refusal::Users { least: 2 }));
        session.stop();
        let outcome = session.join().unwrap();
        assert!(so_far.tally.sent <= outcome.tally.sent);
        assert_eq!(outcome.most.rate, Some(500));
        // At one a second it would have taken minutes.
        assert!(outcome.sending < Duration::from_secs(60));
    }
}
