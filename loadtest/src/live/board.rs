//! Where client threads and whoever watches and steers the run meet.
//!
//! Owns: the sheets on which threads put their counts, and the orders they take.
//! Never: slows the client threads: each locks its own sheet four times a second,
//! and hears of orders by reading two flags.
//! Bound: one sheet per thread, [`ORDERS_MAX`] orders.
//! Invariant: orders are obeyed in the order they came; a stopped run ends for
//! all threads at the same moment.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::generator::Effort;
use crate::report::histogram;
use crate::series::{self, Point};
use crate::stages::Change;
use crate::stats::{self, Errors, Tally, TaskTally, add_counts, merge_into};

/// How often a thread puts its counts on the board.
pub(crate) const PUBLISH_EVERY: Duration = Duration::from_millis(250);
/// Every thread goes through them when the load changes.
pub(crate) const ORDERS_MAX: usize = 1_000;

/// A change of the load while the run goes on. Its time is a little ahead, so that
/// all threads know of it before it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Order {
    /// Users, or connections of the open model.
    Users(Change),
    /// Requests a second of the open model.
    Rate(Change),
}

/// The counts of one thread since the start of the run.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Sheet {
    /// Connections that are up.
    pub(crate) users: u64,
    /// Due by now, but no connection was free yet.
    pub(crate) unsent: u64,
    pub(crate) sent: u64,
    pub(super) retried: u64,
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    pub(super) statuses: BTreeMap<u16, u64>,
    pub(super) codes: BTreeMap<String, u64>,
    pub(super) errors: Errors,
    pub(super) last_error: Option<String>,
    pub(super) tasks: Vec<TaskSheet>,
    /// Of the last one to two seconds, in microseconds.
    #[serde(
        serialize_with = "histogram::write",
        deserialize_with = "histogram::read::<_, _, { series::DIGITS }>"
    )]
    pub(super) recent: Histogram<u32>,
}

/// The same of one task.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct TaskSheet {
    pub(super) name: String,
    pub(super) ended: u64,
    pub(super) failed: u64,
    #[serde(
        serialize_with = "histogram::write",
        deserialize_with = "histogram::read::<_, _, { stats::DIGITS }>"
    )]
    pub(super) latency: Histogram<u64>,
}

impl TaskSheet {
    fn new(task: &TaskTally) -> Self {
        Self {
            name: task.name.clone(),
            ended: task.ended(),
            failed: task.failed(),
            latency: task.latency.all(),
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.ended += other.ended;
        self.failed += other.failed;
        merge_into(&mut self.latency, &other.latency);
    }
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
            errors: tally.errors,
            last_error: tally.last_error.clone(),
            tasks: tally.tasks.iter().map(TaskSheet::new).collect(),
            recent,
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.users += other.users;
        self.unsent += other.unsent;
        self.sent += other.sent;
        self.retried += other.retried;
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        add_counts(&mut self.statuses, &other.statuses);
        add_counts(&mut self.codes, &other.codes);
        self.errors.add(&other.errors);
        if other.last_error.is_some() {
            self.last_error.clone_from(&other.last_error);
        }
        for task in &other.tasks {
            match self.tasks.iter_mut().find(|mine| mine.name == task.name) {
                Some(mine) => mine.add(task),
                None => self.tasks.push(task.clone()),
            }
        }
        merge_into(&mut self.recent, &other.recent);
    }
}

/// What a thread counted until `at`, to make a report of.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    pub(crate) request: u64,
    pub(crate) at: Duration,
    pub(crate) tally: Tally,
    pub(crate) effort: Effort,
}

#[derive(Debug)]
pub(crate) struct Board {
    stop: AtomicBool,
    stopped_at: OnceLock<Duration>,
    /// Given by whoever steers the run, taken by every thread.
    orders: Mutex<Vec<Order>>,
    /// Grows after `orders`: threads look at this alone.
    orders_given: AtomicUsize,
    /// The number of the last request for copies; a thread that has not answered
    /// it yet does so when it publishes.
    copies_wanted: AtomicU64,
    copies: Vec<Mutex<Option<Counted>>>,
    /// Each written by its thread and read by the watcher, for the whole run.
    sheets: Vec<Mutex<Sheet>>,
}

impl Board {
    pub(crate) fn new(threads: u32) -> Self {
        let empty = Sheet::new(&Tally::new([]));
        Self {
            stop: AtomicBool::new(false),
            stopped_at: OnceLock::new(),
            orders: Mutex::default(),
            orders_given: AtomicUsize::new(0),
            copies_wanted: AtomicU64::new(0),
            copies: (0..threads).map(|_| Mutex::default()).collect(),
            sheets: (0..threads).map(|_| Mutex::new(empty.clone())).collect(),
        }
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
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

    /// Whether there was room for it.
    #[must_use]
    pub(crate) fn give(&self, order: Order) -> bool {
        let mut orders = lock(&self.orders);
        if ORDERS_MAX <= orders.len() {
            return false;
        }
        orders.push(order);
        self.orders_given.store(orders.len(), Ordering::Release);
        true
    }

    /// The orders after the first `obeyed`; nothing is locked if there is none.
    pub(crate) fn orders_after(&self, obeyed: usize) -> Vec<Order> {
        if self.orders_given.load(Ordering::Acquire) <= obeyed {
            return Vec::new();
        }
        lock(&self.orders)[obeyed..].to_vec()
    }

    pub(crate) fn publish(&self, thread: u32, sheet: Sheet) {
        let own = usize::try_from(thread).ok();
        if let Some(own) = own.and_then(|index| self.sheets.get(index)) {
            *lock(own) = sheet;
        }
    }

    /// All threads' sheets in one.
    pub(crate) fn sum(&self) -> Sheet {
        let mut sum = Sheet::new(&Tally::new([]));
        self.sheets.iter().for_each(|sheet| sum.add(&lock(sheet)));
        sum
    }

    /// Asks every thread for a copy of its counts; gives the request's number.
    pub(crate) fn want_copies(&self) -> u64 {
        self.copies_wanted.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The request that a thread which answered `given` has not answered.
    pub(crate) fn copy_wanted(&self, given: u64) -> Option<u64> {
        let wanted = self.copies_wanted.load(Ordering::Relaxed);
        (given < wanted).then_some(wanted)
    }

    pub(crate) fn give_copy(&self, thread: u32, copy: Counted) {
        let own = usize::try_from(thread).ok();
        if let Some(own) = own.and_then(|index| self.copies.get(index)) {
            *lock(own) = Some(copy);
        }
    }

    /// Every thread's answer to that request or a later one; none before the last
    /// has answered.
    pub(crate) fn copies(&self, request: u64) -> Option<Vec<Counted>> {
        let copies = self.copies.iter().map(|copy| lock(copy).clone());
        copies
            .map(|copy| copy.filter(|copy| request <= copy.request))
            .collect()
    }
}

/// No thread leaves anything half done under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_threads_stop_at_the_moment_of_the_first() {
        let board = Board::new(1);
        assert_eq!((board.is_stopped(), board.interrupted_at()), (false, None));
        board.stop();
        assert!(board.is_stopped());
        let first = Duration::from_millis(70);
        assert_eq!(board.stopped_at(first), first);
        assert_eq!(board.stopped_at(Duration::from_millis(90)), first);
        assert_eq!(board.interrupted_at(), Some(first));
    }

    #[test]
    fn orders_are_taken_once_in_their_order_and_are_bounded() {
        let board = Board::new(1);
        let order = |level| {
            Order::Rate(Change {
                at: Duration::from_secs(1),
                level,
                per_second: None,
            })
        };
        assert!(board.orders_after(0).is_empty());
        assert!(board.give(order(1)) && board.give(order(2)));
        assert_eq!(board.orders_after(0), [order(1), order(2)]);
        assert_eq!(board.orders_after(1), [order(2)]);
        assert!(board.orders_after(2).is_empty());
        for level in 2..ORDERS_MAX {
            assert!(board.give(order(u64::try_from(level).unwrap())));
        }
        assert!(!board.give(order(9)));
    }

    #[test]
    fn copies_are_complete_only_when_the_last_thread_answered() {
        let board = Board::new(2);
        assert_eq!(board.copy_wanted(0), None);
        let request = board.want_copies();
        assert_eq!(board.copy_wanted(0), Some(request));
        let copy = |request| Counted {
            request,
            at: Duration::ZERO,
            tally: Tally::new([]),
            effort: Effort::new(),
        };
        board.give_copy(0, copy(request));
        assert!(board.copies(request).is_none());
        board.give_copy(1, copy(request - 1));
        assert!(board.copies(request).is_none());
        board.give_copy(1, copy(request));
        assert_eq!(board.copies(request).map(|copies| copies.len()), Some(2));
    }
}
