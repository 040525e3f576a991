//! A client thread of a run, and what a run gives.
//!
//! Owns: what each thread does, where they meet, and how a run may end.
//! Never: sends before every thread has opened the connections it starts with.
//! Bound: `--threads` threads.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::args::Config;
use crate::fleet::WorkerPart;
use crate::generator::{Effort, Generator};
use crate::journal::{self, Journal, Recorder};
use crate::live::Board;
use crate::request::{Numbers, Plans, Requests};
use crate::schedule::{Schedule, Share};
use crate::session::Wanted;
use crate::stats::Tally;
use crate::worker::{Orders, Worker};

/// Files besides the users' connections: those of the web page, reports, epoll.
const FILES_RESERVE: u64 = 192;

/// For the target to accept one connection.
const ACCEPT_TIME: Duration = Duration::from_micros(100);

/// What a run gives.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    /// Until the last answer, so at least the time of sending.
    pub(crate) elapsed: Duration,
    /// How long requests were sent: the run time, or less if it was stopped.
    pub(crate) sending: Duration,
    pub(crate) ended: Ended,
    /// The most users and the highest rate that were asked for at any time.
    pub(crate) most: Wanted,
    pub(crate) generator: Generator,
    /// The machines that shared the run; none if it ran here alone.
    pub(crate) workers: Vec<WorkerPart>,
}

/// Why sending ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    InTime,
    /// It was told to stop.
    Stopped,
    /// A machine of several that shared it was lost.
    Deserted,
    /// This is a report of a run that goes on.
    NotYet,
}

/// Why a run could not begin or go on.
#[derive(Debug)]
pub(crate) enum RunError {
    /// Not one connection could be opened.
    Unreachable {
        host: String,
        cause: String,
    },
    /// The process may not open that many files.
    FileLimit {
        needed: u64,
        allowed: u64,
    },
    Io(std::io::Error),
    /// The journal could not be made or written, in words.
    Journal(String),
    /// It was stopped before it was told to begin.
    NotBegun,
    /// What other machines said, or did not.
    Fleet(String),
    Panicked,
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { host, cause } => write!(f, "cannot reach {host}: {cause}"),
            Self::FileLimit { needed, allowed } => write!(
                f,
                "so many users need {needed} open files, the limit is {allowed} (ulimit -n)"
            ),
            Self::Io(error) => write!(f, "client thread: {error}"),
            Self::Journal(problem) | Self::Fleet(problem) => f.write_str(problem),
            Self::NotBegun => f.write_str("stopped before it began"),
            Self::Panicked => f.write_str("a client thread panicked"),
        }
    }
}

impl std::error::Error for RunError {}

/// The journal of a run that wants one.
///
/// # Errors
/// [`RunError::Journal`] if its file cannot be made.
pub(crate) fn open_journal(config: &Config) -> Result<Option<Journal>, RunError> {
    let open = |plan| Journal::create(plan, config.threads).map_err(|error| (plan, error));
    let journal = config.journal.as_ref().map(open).transpose();
    journal.map_err(|(plan, error)| RunError::Journal(journal::explain(&plan.path, &error)))
}

/// A journal of a run that sent nothing is no evidence, and would be in the way
/// of the next attempt.
pub(crate) fn discard_journal(config: &Config, error: &RunError) {
    if let (Some(plan), RunError::Unreachable { .. } | RunError::NotBegun) =
        (&config.journal, error)
    {
        // If it cannot be removed, the next run says that it exists.
        drop(std::fs::remove_file(&plan.path));
    }
}

/// Waits for the disk; says if the load had to.
///
/// # Errors
/// [`RunError::Journal`] if not all of it was written.
pub(crate) fn close_journal(config: &Config, journal: Option<Journal>) -> Result<(), RunError> {
    let (Some(plan), Some(journal)) = (&config.journal, journal) else {
        return Ok(());
    };
    let written = journal
        .close()
        .map_err(|error| RunError::Journal(journal::explain(&plan.path, &error)))?;
    if !written.waited.is_zero() {
        eprintln!(
            "loadtest: the disk of --journal was behind: client threads waited {:?} for it",
            written.waited
        );
    }
    Ok(())
}

/// Where the threads meet before the first request.
#[derive(Debug)]
pub(crate) struct Meeting {
    barrier: Barrier,
    /// Set by whoever starts or stops the run; all threads wait for it.
    gate: Mutex<Gate>,
    opened: Condvar,
    started: OnceLock<Instant>,
    /// Threads that have their connections and wait for it.
    waiting: AtomicU32,
    /// How long after its moment the last of them began.
    late_us_max: AtomicU64,
    /// How many connections are open, with the last reason for a failure.
    reached: Mutex<(usize, Option<String>)>,
}

/// When threads that have met may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// As soon as the last is there.
    Open,
    /// When they are told.
    Closed,
    At(Instant),
    Never,
}

impl Meeting {
    pub(crate) fn new(threads: u32, gate: Gate) -> Self {
        Self {
            barrier: Barrier::new(usize::try_from(threads).unwrap_or(1)),
            gate: Mutex::new(gate),
            opened: Condvar::new(),
            started: OnceLock::new(),
            waiting: AtomicU32::new(0),
            late_us_max: AtomicU64::new(0),
            reached: Mutex::new((0, None)),
        }
    }

    /// Lets the threads begin at that moment, or never; only the first word counts.
    pub(crate) fn tell(&self, gate: Gate) {
        let mut now = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        if *now == Gate::Closed {
            *now = gate;
            self.opened.notify_all();
        }
    }

    /// The threads that wait to begin.
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// How long after its moment the last thread began.
    pub(crate) fn late(&self) -> Duration {
        Duration::from_micros(self.late_us_max.load(Ordering::Relaxed))
    }

    /// The same start for every thread, when it has come; none if it never will.
    fn begin(&self) -> Option<Instant> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let gate = *self
            .opened
            .wait_while(gate, |gate| *gate == Gate::Closed)
            .unwrap_or_else(PoisonError::into_inner);
        match gate {
            Gate::Open => Some(*self.started.get_or_init(Instant::now)),
            Gate::At(start) => {
                std::thread::sleep(start.saturating_duration_since(Instant::now()));
                let late = crate::stats::micros(start.elapsed());
                self.late_us_max.fetch_max(late, Ordering::Relaxed);
                Some(*self.started.get_or_init(|| start))
            }
            Gate::Closed | Gate::Never => None,
        }
    }

    /// The one start of all threads, once they have met.
    pub(crate) fn started(&self) -> Option<&Instant> {
        self.started.get()
    }
}

/// One client thread from its first connection to its last answer.
///
/// # Errors
/// [`RunError`] if the thread has nothing to report.
pub(crate) fn run_thread(
    config: &Config,
    index: u32,
    (board, recorder): (Arc<Board>, Recorder),
    meeting: &Meeting,
) -> Result<(Tally, Effort), RunError> {
    let place = config.place();
    let numbers = Numbers {
        first: place.first + index,
        step: place.of.get(),
    };
    let plans = match config.journal {
        Some(_) => Plans::Told,
        None => Plans::Untold,
    };
    let requests = Requests::new(&config.scenario, &config.target, numbers, plans);
    let worker = Worker::connect(orders(config, index), (requests, recorder), board);
    if let Ok(worker) = &worker
        && let Ok(mut reached) = meeting.reached.lock()
    {
        reached.0 += worker.connected();
        if let Some(error) = worker.last_error() {
            reached.1 = Some(error.to_owned());
        }
    }
    // The kernel completes connections before the target accepts them: its first
    // answers shall not wait for that.
    let first = config.scenario.load.staff.level_at(Duration::ZERO);
    std::thread::sleep(ACCEPT_TIME.saturating_mul(u32::try_from(first).unwrap_or(u32::MAX)));
    // Every thread comes here, whatever happened: the others wait for it.
    meeting.barrier.wait();
    let worker = worker.map_err(|error| {
        // The others shall not wait to be told what nobody can do any more.
        meeting.tell(Gate::Never);
        RunError::Io(error)
    })?;
    if let Ok(reached) = meeting.reached.lock()
        && reached.0 == 0
    {
        return Err(RunError::Unreachable {
            host: config.host.clone(),
            cause: reached.1.clone().unwrap_or_default(),
        });
    }
    let start = meeting.begin().ok_or(RunError::NotBegun)?;
    worker.run(start).map_err(RunError::Io)
}

fn orders(config: &Config, index: u32) -> Orders {
    let place = config.place();
    let share = Share {
        index: u64::from(place.first + index),
        count: NonZeroU64::from(place.of),
    };
    let load = &config.scenario.load;
    let users = share.of(u64::from(load.users));
    // `scenario` gives at least one user.
    let users_all = NonZeroU64::new(load.users.into()).unwrap_or(NonZeroU64::MIN);
    Orders {
        address: config.address,
        tls: config.tls.clone(),
        users: u32::try_from(users).unwrap_or(load.users),
        staff: load.staff.clone(),
        thread: index,
        share,
        run_time: load.run_time,
        timeout: config.timeout,
        retries_max: config.retries,
        seed: config.scenario.seed,
        tasks: config.scenario.task_names(),
        schedule: load
            .arrivals
            .clone()
            .map(|arrivals| Schedule::new(arrivals, share, users_all)),
    }
}

/// Raises the soft limit of open files for so many users, if the hard limit allows.
///
/// # Errors
/// [`RunError::FileLimit`] if it does not.
pub(crate) fn raise_file_limit(users: u64) -> Result<(), RunError> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let needed = users.saturating_add(FILES_RESERVE);
    let limit = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= needed);
    if enough(limit.current) {
        return Ok(());
    }
    if !enough(limit.maximum) {
        return Err(RunError::FileLimit {
            needed,
            allowed: limit.maximum.unwrap_or(u64::MAX),
        });
    }
    let raised = Rlimit {
        current: Some(needed),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).map_err(|error| RunError::Io(error.into()))
}
