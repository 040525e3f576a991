//! The one run at a time that a worker lends itself to.
//!
//! Owns: the session, whoever conducts it, and the lease.
//! Never: goes on sending when the conductor has not been heard of for [`LEASE`].
//! Bound: one run; its report is kept for [`REPORT_KEPT`].
//! Invariant: only who was given a run's name can steer it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::args::ServePlan;
use super::wire::{Begin, Hello, Job, Ordered, Phase, State, Taken, Versions};
use crate::args::Config;
use crate::report::{Form, Report};
use crate::run::{Gate, Outcome, RunError};
use crate::scenario::fresh_seed;
use crate::session::Session;

/// A conductor asks several times a second.
pub(super) const LEASE: Duration = Duration::from_secs(5);
/// For a conductor that takes its time with a long report.
const REPORT_KEPT: Duration = Duration::from_secs(60);
/// For the conductor to fetch the report of a worker that was told to end.
const QUIT_GRACE: Duration = Duration::from_secs(5);

/// Why a request is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Another run goes on.
    Busy,
    /// No run has that name any more.
    Gone,
    /// Not in this phase.
    NotNow(String),
    Invalid(String),
}

#[derive(Debug)]
pub(super) struct Shift {
    plan: ServePlan,
    /// The worker's clock begins there.
    epoch: Instant,
    /// Locked by the server and by the thread that looks after the run, shortly.
    run: Mutex<Option<Run>>,
}

#[derive(Debug)]
struct Run {
    name: String,
    config: Config,
    work: Work,
    heard: Instant,
    /// When it must have begun, on the worker's clock.
    begin: Option<Duration>,
    /// Orders taken.
    orders: usize,
    /// Why it ends before its time.
    cut: Option<String>,
    started: Option<Duration>,
}

#[derive(Debug)]
enum Work {
    Going(Box<Session>),
    /// Its threads have ended and are waited for.
    Ending,
    Done(String),
    Failed(String),
}

/// What became of a run that is over for this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Nothing was sent.
    Unbegun,
    Begun,
}

impl Shift {
    pub(super) fn new(plan: ServePlan) -> Self {
        Self {
            plan,
            epoch: Instant::now(),
            run: Mutex::new(None),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Run>> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hello() -> Hello {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2);
        Hello {
            versions: Versions::ours(),
            threads: u32::try_from(cores.max(1)).unwrap_or(1),
        }
    }

    pub(super) fn clock(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Whether there is a run that nobody wants any more and that is being ended.
    pub(super) fn is_letting_go(&self) -> bool {
        self.lock().as_ref().is_some_and(|run| run.name.is_empty())
    }

    /// Checks the job and begins to open its connections.
    pub(super) fn take(&self, job: Job) -> Result<Taken, Refused> {
        let mut run = self.lock();
        if run.is_some() {
            return Err(Refused::Busy);
        }
        job.versions.check().map_err(Refused::Invalid)?;
        let directory = self.plan.journal_dir.as_deref();
        let config = job
            .config(self.plan.targets, directory)
            .map_err(Refused::Invalid)?;
        let session = Session::prepare(config.clone(), Gate::Closed)
            .map_err(|error| Refused::Invalid(error.to_string()))?;
        eprintln!(
            "loadtest: a run against {} was taken: {} threads, up to {} of {} users",
            config.host,
            config.threads,
            config.users_of(u64::from(config.scenario.load.users)),
            config.scenario.load.users
        );
        // Nobody guesses it, so nobody steers a run that is not theirs by mistake.
        let name = format!("{:016x}", fresh_seed());
        let journal = config.journal.as_ref();
        let taken = Taken {
            run: name.clone(),
            journal: journal.map(|journal| journal.path.display().to_string()),
        };
        *run = Some(Run {
            name,
            config,
            work: Work::Going(Box::new(session)),
            heard: Instant::now(),
            begin: None,
            orders: 0,
            cut: None,
            started: None,
        });
        Ok(taken)
    }

    /// Does something with the run of that name; its lease begins again.
    fn with<T>(
        &self,
        name: &str,
        act: impl FnOnce(&mut Run) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let mut run = self.lock();
        let run = run.as_mut().filter(|run| run.name == name);
        let run = run.ok_or(Refused::Gone)?;
        run.heard = Instant::now();
        act(run)
    }

    pub(super) fn begin(&self, name: &str, begin: Begin) -> Result<(), Refused> {
        let moment = self.epoch.checked_add(begin.at);
        self.with(name, |run| {
            let Work::Going(session) = &run.work else {
                return Err(Refused::NotNow("the run has ended".to_owned()));
            };
            let moment = moment.filter(|moment| Instant::now() < *moment);
            let moment = moment.ok_or_else(|| {
                Refused::NotNow("the moment to begin has passed: the network is slow".to_owned())
            })?;
            session.begin(moment);
            run.begin = Some(begin.at);
            Ok(())
        })
    }

    pub(super) fn order(&self, name: &str, ordered: Ordered) -> Result<(), Refused> {
        self.with(name, |run| {
            let Work::Going(session) = &mut run.work else {
                return Err(Refused::NotNow("the run has ended".to_owned()));
            };
            if ordered.number < run.orders {
                return Ok(());
            }
            run.orders = ordered.number + 1;
            session
                .obey(ordered.order)
                .map_err(|refusal| Refused::Invalid(refusal.to_string()))
        })
    }

    pub(super) fn stop(&self, name: &str) -> Result<(), Refused> {
        self.with(name, |run| {
            run.stop();
            Ok(())
        })
    }

    pub(super) fn state(&self, name: &str) -> Result<State, Refused> {
        let epoch = self.epoch;
        self.with(name, |run| Ok(run.state(epoch)))
    }

    /// The document of a run that has ended.
    pub(super) fn report(&self, name: &str) -> Result<String, Refused> {
        self.with(name, |run| match &run.work {
            Work::Done(text) => Ok(text.clone()),
            Work::Going(_) | Work::Ending => {
                Err(Refused::NotNow("the run has not ended".to_owned()))
            }
            Work::Failed(problem) => Err(Refused::NotNow(problem.clone())),
        })
    }

    /// Asks for the document of a run that goes on.
    pub(super) fn want_so_far(&self, name: &str) -> Result<u64, Refused> {
        self.with(name, |run| match &run.work {
            Work::Going(session) => Ok(session.want_so_far()),
            Work::Ending | Work::Done(_) | Work::Failed(_) => {
                Err(Refused::NotNow("the run has ended".to_owned()))
            }
        })
    }

    /// That document, once all threads gave their counts.
    pub(super) fn so_far(&self, name: &str, request: u64) -> Result<Option<String>, Refused> {
        self.with(name, |run| match &run.work {
            Work::Going(session) => {
                let outcome = session.so_far(request);
                outcome
                    .map(|outcome| document(&run.config, outcome))
                    .transpose()
                    .map_err(Refused::NotNow)
            }
            Work::Ending | Work::Done(_) | Work::Failed(_) => {
                Err(Refused::NotNow("the run has ended".to_owned()))
            }
        })
    }

    /// The conductor has what it wanted, or wants no more: the worker is free
    /// when the threads have ended.
    pub(super) fn release(&self, name: &str) -> Result<(), Refused> {
        self.with(name, |run| {
            run.stop();
            run.name.clear();
            Ok(())
        })
    }

    /// Why the run is to end with this worker, whoever conducts it.
    pub(super) fn quit(&self, why: &str) {
        if let Some(run) = self.lock().as_mut() {
            if run.cut.is_none() && run.is_going() {
                run.cut = Some(why.to_owned());
            }
            run.stop();
        }
    }

    pub(super) fn is_free(&self) -> bool {
        self.lock().is_none()
    }

    /// Looks after the run; tells when it is over and forgotten.
    pub(super) fn tick(&self, quitting: bool) -> Option<Over> {
        let ended = {
            let mut slot = self.lock();
            let run = slot.as_mut()?;
            run.expire();
            run.take_ended()
        };
        // Waits for the journal's disk, so nobody else waits for it.
        let joined = ended.map(|session| session.join());
        let mut slot = self.lock();
        let run = slot.as_mut()?;
        if let Some(joined) = joined {
            run.conclude(joined);
        }
        let kept = if quitting { QUIT_GRACE } else { REPORT_KEPT };
        let wanted = !run.name.is_empty() && run.heard.elapsed() < kept;
        if run.is_going() || wanted {
            return None;
        }
        let over = match run.started {
            Some(_) => Over::Begun,
            None => Over::Unbegun,
        };
        *slot = None;
        Some(over)
    }
}

impl Run {
    fn is_going(&self) -> bool {
        match self.work {
            Work::Going(_) | Work::Ending => true,
            Work::Done(_) | Work::Failed(_) => false,
        }
    }

    fn stop(&mut self) {
        if let Work::Going(session) = &self.work {
            session.stop();
        }
    }

    /// Ends a run that nobody conducts any more.
    fn expire(&mut self) {
        if self.is_going() && !self.name.is_empty() && LEASE < self.heard.elapsed() {
            eprintln!(
                "loadtest: whoever conducts the run has not been heard of for {LEASE:?}: it is \
                 stopped here"
            );
            self.stop();
            // It cannot come back to this run.
            self.name.clear();
        }
    }

    fn take_ended(&mut self) -> Option<Box<Session>> {
        let Work::Going(session) = &self.work else {
            return None;
        };
        if !session.is_finished() {
            return None;
        }
        match std::mem::replace(&mut self.work, Work::Ending) {
            Work::Going(session) => Some(session),
            Work::Ending | Work::Done(_) | Work::Failed(_) => None,
        }
    }

    fn conclude(&mut self, joined: Result<Outcome, RunError>) {
        let outcome = match joined {
            Ok(outcome) => outcome,
            Err(error) => {
                eprintln!("loadtest: {error}");
                self.work = Work::Failed(error.to_string());
                return;
            }
        };
        eprintln!(
            "loadtest: the run has ended: {} answered of {} sent",
            outcome.tally.responses, outcome.tally.sent
        );
        self.work = match document(&self.config, outcome) {
            Ok(text) => Work::Done(text),
            Err(problem) => Work::Failed(problem),
        };
    }

    fn state(&mut self, epoch: Instant) -> State {
        let mut sheet = None;
        let phase = match &self.work {
            Work::Going(session) => {
                if let Some(started) = session.started() {
                    let began = started + session.late();
                    self.started = Some(began.saturating_duration_since(epoch));
                    sheet = Some(session.sheet());
                }
                match self.begin {
                    Some(_) => Phase::Running,
                    None if session.is_ready() => Phase::Ready,
                    None => Phase::Connecting,
                }
            }
            Work::Ending => match self.begin {
                Some(_) => Phase::Running,
                None => Phase::Connecting,
            },
            Work::Done(_) => Phase::Finished,
            Work::Failed(_) => Phase::Failed,
        };
        let failed = match &self.work {
            Work::Failed(problem) => Some(problem.clone()),
            Work::Going(_) | Work::Ending | Work::Done(_) => None,
        };
        State {
            phase,
            started: self.started,
            problem: failed.or_else(|| self.cut.clone()),
            sheet,
        }
    }
}

fn document(config: &Config, outcome: Outcome) -> Result<String, String> {
    Report::new(config, outcome)
        .render(Form::Json, &[])
        .map_err(|error| format!("write the report: {error}"))
}
