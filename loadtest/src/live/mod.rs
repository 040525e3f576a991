//! A run while it goes on: who watches it, and how it is stopped.
//!
//! Owns: the board on which client threads put their counts, the snapshot made
//! of it, and standard error during a run.
//! Never: slows the client threads: each locks its own sheet four times a second.
//! Bound: one sheet per thread; [`RATE_OVER`] of past totals.
//! Invariant: a stopped run ends for all threads at the same moment.

mod view;

use std::collections::{BTreeMap, VecDeque};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::args::{Config, Progress};
use crate::report::float;
use crate::series::Point;
use crate::stats::{Tally, add_counts, merge_into};

/// How often a thread puts its counts on the board.
pub(crate) const PUBLISH_EVERY: Duration = Duration::from_millis(250);
const POLL_EVERY: Duration = Duration::from_millis(20);
const PRINT_EVERY: Duration = Duration::from_secs(1);
/// Rates are over the last seconds: short enough to follow, long enough to read.
const RATE_OVER: Duration = Duration::from_secs(2);

/// The counts of one thread since the start of the run.
#[derive(Clone, Debug)]
pub(crate) struct Sheet {
    /// Connections that are up.
    pub(crate) users: u64,
    /// Due by now, but no connection was free yet.
    pub(crate) unsent: u64,
    sent: u64,
    retried: u64,
    succeeded: u64,
    failed: u64,
    statuses: BTreeMap<u16, u64>,
    codes: BTreeMap<String, u64>,
    /// Of the last one to two seconds, in microseconds.
    recent: Histogram<u32>,
}

impl Sheet {
    pub(crate) fn new(tally: &Tally) -> Self {
        let points = tally.series.points();
        let sum = |count: fn(&Point) -> u64| points.iter().map(count).sum();
        let mut recent = Point::default().latency;
        for point in points.iter().rev().take(2) {
            merge_into(&mut recent, &point.latency);
        }
        Self {
            users: 0,
            unsent: 0,
            sent: tally.sent,
            retried: sum(|point| point.retried),
            succeeded: sum(|point| point.succeeded),
            failed: sum(|point| point.failed),
            statuses: tally.statuses.clone(),
            codes: tally.codes.clone(),
            recent,
        }
    }
}

/// Where client threads and whoever watches the run meet.
#[derive(Debug)]
pub(crate) struct Board {
    /// A signal handler sets it too.
    stop: Arc<AtomicBool>,
    stopped_at: OnceLock<Duration>,
    /// Each written by its thread and read by the watcher, for the whole run.
    sheets: Vec<Mutex<Sheet>>,
}

impl Board {
    pub(crate) fn new(threads: u32) -> Self {
        let empty = Sheet::new(&Tally::new([]));
        Self {
            stop: Arc::default(),
            stopped_at: OnceLock::new(),
            sheets: (0..threads).map(|_| Mutex::new(empty.clone())).collect(),
        }
    }

    /// Ctrl-C and SIGTERM stop the run; a second one ends the process at once.
    pub(crate) fn stop_on_signals(&self) -> std::io::Result<()> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        for signal in [SIGINT, SIGTERM] {
            let flag = || Arc::clone(&self.stop);
            let code = i32::from(crate::EXIT_INTERRUPTED);
            signal_hook::flag::register_conditional_shutdown(signal, code, flag())?;
            signal_hook::flag::register(signal, flag())?;
        }
        Ok(())
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// When sending ended, which the first thread that asks decides.
    pub(crate) fn stopped_at(&self, now: Duration) -> Duration {
        *self.stopped_at.get_or_init(|| now)
    }

    /// When sending ended, if it ended before its time.
    pub(crate) fn interrupted_at(&self) -> Option<Duration> {
        self.stopped_at.get().copied()
    }

    pub(crate) fn publish(&self, thread: u64, sheet: Sheet) {
        let own = usize::try_from(thread).ok();
        if let Some(own) = own.and_then(|index| self.sheets.get(index)) {
            *own.lock().unwrap_or_else(PoisonError::into_inner) = sheet;
        }
    }
}

/// A run as it is just now, over all threads.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Snapshot {
    pub(crate) at_seconds: f64,
    pub(crate) users: u64,
    /// Requests sent, repeats included, in the last seconds.
    pub(crate) requests_per_second: f64,
    /// Requests that ended without a 2xx, in the last seconds.
    pub(crate) failures_per_second: f64,
    /// Of the last one to two seconds, from the intended start.
    pub(crate) p50_us: u64,
    pub(crate) p95_us: u64,
    pub(crate) p99_us: u64,
    /// The rest counts from the start of the run.
    pub(crate) sent: u64,
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    pub(crate) retried: u64,
    pub(crate) unsent: u64,
    pub(crate) statuses: BTreeMap<u16, u64>,
    pub(crate) codes: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, Debug)]
struct Past {
    at: Duration,
    sent: u64,
    failed: u64,
}

/// Makes snapshots of a board; it remembers enough to know rates.
#[derive(Debug)]
pub(crate) struct Watcher<'a> {
    board: &'a Board,
    past: VecDeque<Past>,
}

impl<'a> Watcher<'a> {
    pub(crate) fn new(board: &'a Board) -> Self {
        let past = VecDeque::from([Past {
            at: Duration::ZERO,
            sent: 0,
            failed: 0,
        }]);
        Self { board, past }
    }

    /// What the threads published last, `at` so long after the start.
    pub(crate) fn snapshot(&mut self, at: Duration) -> Snapshot {
        let mut sum = Sheet::new(&Tally::new([]));
        for sheet in &self.board.sheets {
            let sheet = sheet.lock().unwrap_or_else(PoisonError::into_inner);
            sum.add(&sheet);
        }
        let now = Past {
            at,
            sent: sum.sent,
            failed: sum.failed,
        };
        self.past.push_back(now);
        while self
            .past
            .get(1)
            .is_some_and(|next| RATE_OVER <= at.saturating_sub(next.at))
        {
            self.past.pop_front();
        }
        let then = self.past.front().copied().unwrap_or(now);
        let over = at.saturating_sub(then.at);
        Snapshot {
            at_seconds: at.as_secs_f64(),
            users: sum.users,
            requests_per_second: per_second(now.sent.saturating_sub(then.sent), over),
            failures_per_second: per_second(now.failed.saturating_sub(then.failed), over),
            p50_us: sum.recent.value_at_quantile(0.5),
            p95_us: sum.recent.value_at_quantile(0.95),
            p99_us: sum.recent.value_at_quantile(0.99),
            sent: sum.sent,
            succeeded: sum.succeeded,
            failed: sum.failed,
            retried: sum.retried,
            unsent: sum.unsent,
            statuses: sum.statuses,
            codes: sum.codes,
        }
    }
}

impl Sheet {
    fn add(&mut self, other: &Self) {
        self.users += other.users;
        self.unsent += other.unsent;
        self.sent += other.sent;
        self.retried += other.retried;
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        add_counts(&mut self.statuses, &other.statuses);
        add_counts(&mut self.codes, &other.codes);
        merge_into(&mut self.recent, &other.recent);
    }
}

fn per_second(count: u64, over: Duration) -> f64 {
    if over.is_zero() {
        return 0.0;
    }
    float(count) / over.as_secs_f64()
}

/// Shows progress until `finished`: a table on a terminal, plain lines elsewhere.
pub(crate) fn watch(
    config: &Config,
    board: &Board,
    started: &OnceLock<Instant>,
    finished: impl Fn() -> bool,
) {
    let mut watcher = Watcher::new(board);
    let mut screen = match config.progress {
        Progress::Shown if std::io::stderr().is_terminal() => Screen::table(),
        Progress::Shown => Screen::Lines,
        Progress::Hidden => Screen::Nothing,
    };
    let mut shown_at = Duration::ZERO;
    while !finished() {
        std::thread::sleep(POLL_EVERY);
        let Some(start) = started.get() else {
            continue;
        };
        let elapsed = start.elapsed();
        let Some(every) = screen.every() else {
            continue;
        };
        if every <= elapsed.saturating_sub(shown_at) {
            shown_at = elapsed;
            let snapshot = watcher.snapshot(elapsed);
            screen.show(config, &snapshot);
        }
    }
    screen.clear();
}

#[derive(Debug)]
enum Screen {
    Table { bar: ProgressBar, view: view::View },
    Lines,
    Nothing,
}

impl Screen {
    fn table() -> Self {
        let Ok(style) = ProgressStyle::with_template("{msg}") else {
            return Self::Lines;
        };
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(style);
        let view = view::View::new();
        Self::Table { bar, view }
    }

    const fn every(&self) -> Option<Duration> {
        match self {
            Self::Table { .. } => Some(PUBLISH_EVERY),
            Self::Lines => Some(PRINT_EVERY),
            Self::Nothing => None,
        }
    }

    fn show(&mut self, config: &Config, snapshot: &Snapshot) {
        match self {
            Self::Table { bar, view } => {
                view.add(snapshot);
                bar.set_message(view.table(config.scenario.load.run_time, snapshot));
            }
            Self::Lines => eprintln!("{}", view::line(snapshot)),
            Self::Nothing => {}
        }
    }

    fn clear(&self) {
        match self {
            Self::Table { bar, .. } => bar.finish_and_clear(),
            Self::Lines | Self::Nothing => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{Class, Times};

    fn tally(second: u64, successes: u64) -> Tally {
        let mut tally = Tally::new(["transfer".to_owned()]);
        let at = Duration::from_secs(second);
        for _ in 0..successes {
            tally.send(0, at);
            let times = Times {
                intended: at,
                sent: at,
                answered: at + Duration::from_millis(2),
            };
            tally.time(0, Class::Success, times);
        }
        tally.send_again(0, at);
        tally.give_up(0, at);
        tally
    }

    #[test]
    fn a_snapshot_adds_the_threads_and_knows_the_rate_of_the_last_seconds() {
        let board = Board::new(2);
        let mut watcher = Watcher::new(&board);
        board.publish(0, Sheet::new(&tally(0, 100)));
        let first = watcher.snapshot(Duration::from_secs(1));
        assert!((first.requests_per_second - 101.0).abs() < 1e-9);
        let sheet = Sheet {
            users: 7,
            unsent: 3,
            ..Sheet::new(&tally(1, 299))
        };
        board.publish(1, sheet);
        for second in 2..=4 {
            watcher.snapshot(Duration::from_secs(second));
        }
        let last = watcher.snapshot(Duration::from_secs(5));
        assert_eq!((last.sent, last.succeeded, last.failed), (401, 399, 2));
        assert_eq!((last.users, last.unsent, last.retried), (7, 3, 2));
        assert!((1_900..=2_100).contains(&last.p99_us), "{}", last.p99_us);
        assert!(last.requests_per_second < 1e-9, "nothing for two seconds");
        let json = serde_json::to_value(&last).unwrap();
        assert_eq!(json["failed"], 2);
    }

    #[test]
    fn all_threads_stop_at_the_moment_of_the_first() {
        let board = Board::new(1);
        assert_eq!((board.is_stopped(), board.interrupted_at()), (false, None));
        board.stop.store(true, Ordering::Relaxed);
        let first = Duration::from_millis(70);
        assert_eq!(board.stopped_at(first), first);
        assert_eq!(board.stopped_at(Duration::from_millis(90)), first);
        assert_eq!(board.interrupted_at(), Some(first));
    }
}
