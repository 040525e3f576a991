//! The one run at a time that the page is about.
//!
//! Owns: the session that goes on, the report of the last one, and the phase.
//! Never: waits for a run: who asks gets what is known now.
//! Bound: one session, one history, one report.
//! Invariant: a run is started only when none goes on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::form::{Load, Start};
use super::history::{History, Part};
use super::problem::Problem;
use crate::args::Config;
use crate::fleet::Running;
use crate::live::Snapshot;
use crate::report::{Model, Report, Settings, Verdict};
use crate::run::{Ended, Outcome, RunError};
use crate::scenario::RUN_TIME_MAX;
use crate::session::Wanted;
use crate::threshold::{self, Checked, Threshold};

/// Where the page is, in the words it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Phase {
    /// No run yet.
    Ready,
    /// Connections are opened.
    Starting,
    Running,
    /// The last answers are waited for.
    Stopping,
    Finished,
    /// There is nothing to report.
    Failed,
}

/// What `GET /api/state` gives.
#[derive(Debug, Serialize)]
pub(super) struct State {
    phase: Phase,
    /// How many were started.
    run: u32,
    /// Why there is no report, or where it could not be written.
    problem: Option<String>,
    plan: Plan,
    wanted: Wanted,
    snapshot: Option<Snapshot>,
    history: Part,
    result: Option<RunResult>,
}

/// What the next run, or the one that goes on, is.
#[derive(Debug, Serialize)]
struct Plan {
    host: String,
    tasks: Vec<String>,
    model: Model,
    users: u64,
    spawn_rate: Option<u64>,
    rate: Option<u64>,
    /// None goes on until it is stopped.
    run_time_seconds: Option<f64>,
    /// Whether users or rate follow stages.
    staged: bool,
    settings: Vec<(&'static str, String)>,
}

#[derive(Clone, Debug, Serialize)]
struct RunResult {
    passed: bool,
    stopped: bool,
    bottleneck: bool,
    thresholds: Vec<Checked>,
}

/// A run that has ended, for whoever delivers its report.
#[derive(Debug)]
pub(super) struct Over {
    pub(super) config: Config,
    pub(super) outcome: Result<Outcome, RunError>,
}

/// Which report was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    run: u32,
    request: u64,
}

#[derive(Debug)]
pub(super) struct Desk {
    /// Locked by the page's thread and by the one that waits for runs, shortly.
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// As the command line has it.
    base: Config,
    /// Of the run that goes on, or of the last one.
    config: Config,
    phase: Phase,
    run: u32,
    session: Option<Running>,
    snapshot: Option<Snapshot>,
    wanted: Wanted,
    /// What was last asked for: the next run begins with it unless told otherwise.
    asked: Wanted,
    history: History,
    report: Option<Arc<Report>>,
    result: Option<RunResult>,
    problem: Option<String>,
}

impl Desk {
    pub(super) fn new(base: Config) -> Self {
        let asked = load_of(&base);
        Self {
            inner: Mutex::new(Inner {
                config: base.clone(),
                base,
                phase: Phase::Ready,
                run: 0,
                session: None,
                snapshot: None,
                wanted: Wanted::default(),
                asked,
                history: History::new(),
                report: None,
                result: None,
                problem: None,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn start(&self, form: &Start) -> Result<(), Problem> {
        let mut inner = self.lock();
        if inner.is_busy() {
            return Err(Problem::conflict("a run goes on; stop it first"));
        }
        let mut config = form.config(&inner.base)?;
        if let Some(journal) = &mut config.journal
            && inner.run > 0
        {
            // A journal is of one run: the second's has its number in the name.
            let mut path = std::mem::take(&mut journal.path).into_os_string();
            path.push(format!(".{}", inner.run + 1));
            journal.path = path.into();
        }
        let session =
            Running::start(config.clone()).map_err(|error| Problem::invalid(error.to_string()))?;
        inner.run += 1;
        inner.phase = Phase::Starting;
        inner.wanted = session.wanted();
        inner.asked = load_of(&config);
        inner.session = Some(session);
        inner.config = config;
        inner.snapshot = None;
        inner.history.clear();
        inner.report = None;
        inner.result = None;
        inner.problem = None;
        Ok(())
    }

    pub(super) fn stop(&self) -> Result<(), Problem> {
        let mut inner = self.lock();
        let session = inner.session.as_ref();
        session
            .ok_or_else(|| Problem::conflict("no run goes on"))?
            .stop();
        inner.phase = Phase::Stopping;
        Ok(())
    }

    pub(super) fn change(&self, load: Load) -> Result<(), Problem> {
        let mut inner = self.lock();
        let spawn_rate = inner.config.given.load.spawn_rate;
        let session = inner.session.as_mut();
        let session = session.ok_or_else(|| Problem::conflict("no run goes on"))?;
        load.apply(session, spawn_rate)?;
        inner.asked.users = load.users.unwrap_or(inner.asked.users);
        inner.asked.rate = load.rate.or(inner.asked.rate);
        Ok(())
    }

    /// Looks after the run; gives it once it has ended.
    pub(super) fn tick(&self) -> Option<Over> {
        let mut inner = self.lock();
        let session = inner.session.as_mut()?;
        let finished = session.is_finished();
        let snapshot = session.snapshot();
        let wanted = session.wanted();
        inner.phase = match &snapshot {
            _ if session_is_stopping(&inner) => Phase::Stopping,
            Some(_) => Phase::Running,
            None => Phase::Starting,
        };
        inner.wanted = wanted;
        if let Some(snapshot) = snapshot {
            inner.history.add(&snapshot);
            if finished {
                inner.history.end(&snapshot);
            }
            inner.snapshot = Some(snapshot);
        }
        if !finished {
            return None;
        }
        inner.phase = Phase::Stopping;
        let session = inner.session.take()?;
        Some(Over {
            config: inner.config.clone(),
            outcome: session.join(),
        })
    }

    /// What came of the run.
    pub(super) fn finish(&self, report: Option<(Report, Ended)>, problem: Option<String>) {
        let mut inner = self.lock();
        inner.problem = problem;
        let Some((report, ended)) = report else {
            inner.phase = Phase::Failed;
            return;
        };
        let thresholds = threshold::check(&inner.config.output.require, &report);
        inner.phase = Phase::Finished;
        inner.result = Some(RunResult {
            passed: report.verdict(&thresholds) == Verdict::Passed,
            stopped: ended == Ended::Stopped,
            bottleneck: report.generator.is_some_and(|g| g.was_the_bottleneck()),
            thresholds,
        });
        inner.report = Some(Arc::new(report));
    }

    pub(super) fn is_busy(&self) -> bool {
        self.lock().is_busy()
    }

    pub(super) fn thresholds(&self) -> Vec<Threshold> {
        self.lock().base.output.require.clone()
    }

    pub(super) fn state(&self, epoch: u64, known: usize) -> State {
        let inner = self.lock();
        State {
            phase: inner.phase,
            run: inner.run,
            problem: inner.problem.clone(),
            plan: Plan::new(&inner.config, inner.asked),
            wanted: inner.wanted,
            snapshot: inner.snapshot.clone(),
            history: inner.history.after(epoch, known),
            result: inner.result.clone(),
        }
    }

    /// Asks for a report of the run that goes on, or of the last one.
    pub(super) fn ask_report(&self) -> Result<Ticket, Problem> {
        let inner = self.lock();
        let request = match (&inner.session, &inner.report) {
            (Some(session), _) => session.want_so_far(),
            (None, Some(_)) => 0,
            (None, None) => return Err(Problem::conflict("there is no report yet; start a run")),
        };
        Ok(Ticket {
            run: inner.run,
            request,
        })
    }

    /// The report, once it is there; it may be of the whole run by then.
    pub(super) fn report(&self, ticket: Ticket) -> Option<Arc<Report>> {
        let inner = self.lock();
        if inner.run != ticket.run {
            return None;
        }
        match &inner.session {
            Some(session) => {
                let outcome = session.so_far(ticket.request)?;
                Some(Arc::new(Report::new(&inner.config, outcome)))
            }
            None => inner.report.clone(),
        }
    }
}

/// The most users and the highest rate of the plan.
fn load_of(config: &Config) -> Wanted {
    Wanted {
        users: u64::from(config.scenario.load.users),
        rate: config.rate().map(std::num::NonZeroU64::get),
    }
}

/// Stages last as long as the run; users who only start one by one do not.
fn is_staged(config: &Config) -> bool {
    let load = &config.scenario.load;
    match &load.arrivals {
        Some(arrivals) => arrivals.changes_after(Duration::ZERO),
        None => load.staff.changes_after(Duration::ZERO) && load.staff.total() == load.run_time,
    }
}

fn session_is_stopping(inner: &Inner) -> bool {
    inner.session.as_ref().is_some_and(Running::is_stopping)
}

impl Inner {
    /// Also while a report is made of the run.
    fn is_busy(&self) -> bool {
        match self.phase {
            Phase::Starting | Phase::Running | Phase::Stopping => true,
            Phase::Ready | Phase::Finished | Phase::Failed => false,
        }
    }
}

impl Plan {
    fn new(config: &Config, asked: Wanted) -> Self {
        let load = &config.scenario.load;
        let settings = Settings::new(config, load.run_time);
        let until_stopped = RUN_TIME_MAX <= load.run_time;
        let workers = &config.fleet.workers;
        let mut rows = settings.rows();
        rows.retain(|(name, _)| match *name {
            "run time" => !until_stopped,
            // Each worker has its own.
            "threads" => workers.is_empty(),
            _ => true,
        });
        if !workers.is_empty() {
            rows.push(("workers", workers.join(", ")));
        }
        Self {
            host: config.host.clone(),
            tasks: config.scenario.task_names(),
            model: settings.model,
            users: asked.users,
            spawn_rate: config.given.load.spawn_rate,
            rate: asked.rate,
            run_time_seconds: (!until_stopped).then_some(load.run_time.as_secs_f64()),
            staged: is_staged(config),
            settings: rows,
        }
    }
}

/// How long a download waits for the threads' counts.
pub(super) const REPORT_WAIT: Duration = Duration::from_secs(5);
