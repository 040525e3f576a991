//! What the conductor of a run and whoever watches and steers it share.
//!
//! Owns: the workers' last sheets, and the orders that they take.
//! Never: does I/O; a lock is held for a copy.
//! Bound: a sheet and a copy of each worker, [`ORDERS_MAX`] orders.
//! Invariant: orders are given to every worker in the order they came.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::outcome::Ending;
use crate::live::{ORDERS_MAX, Order, Sheet};
use crate::stats::Tally;

#[derive(Debug)]
pub(super) struct Shared {
    /// The conductor's clock begins there.
    pub(super) epoch: Instant,
    inner: Mutex<Inner>,
    /// Told when there is something to pass on.
    wake: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    stopped: bool,
    /// When all begin, once they were told.
    begin: Option<Instant>,
    /// Of all workers.
    threads: u32,
    orders: Vec<Order>,
    sheets: BTreeMap<usize, Sheet>,
    copies_wanted: u64,
    copies: BTreeMap<usize, (u64, Ending)>,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            epoch: Instant::now(),
            inner: Mutex::default(),
            wake: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// May be said again and again.
    pub(super) fn stop(&self) {
        if !std::mem::replace(&mut self.lock().stopped, true) {
            self.wake.notify_waiters();
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// Until there is something to pass on, at most so long.
    pub(super) async fn pause(&self, at_most: Duration) {
        tokio::time::timeout(at_most, self.wake.notified())
            .await
            .ok();
    }

    pub(super) fn begin(&self, at: Instant, threads: u32) {
        let mut inner = self.lock();
        inner.begin = Some(at);
        inner.threads = threads;
    }

    /// Since the start; none before it.
    pub(super) fn elapsed(&self) -> Option<Duration> {
        let begin = self.lock().begin?;
        Instant::now().checked_duration_since(begin)
    }

    pub(super) fn threads(&self) -> u32 {
        self.lock().threads
    }

    /// Whether there was room for it.
    #[must_use]
    pub(super) fn give(&self, order: Order) -> bool {
        let mut inner = self.lock();
        if ORDERS_MAX <= inner.orders.len() {
            return false;
        }
        inner.orders.push(order);
        drop(inner);
        self.wake.notify_waiters();
        true
    }

    /// The orders after the first so many, with their numbers.
    pub(super) fn orders_after(&self, told: usize) -> Vec<(usize, Order)> {
        let inner = self.lock();
        let numbered = inner.orders.iter().copied().enumerate();
        numbered.skip(told).collect()
    }

    pub(super) fn put_sheet(&self, worker: usize, sheet: Sheet) {
        self.lock().sheets.insert(worker, sheet);
    }

    /// All workers' sheets in one.
    pub(super) fn sum(&self) -> Sheet {
        let mut sum = Sheet::new(&Tally::new([]));
        self.lock().sheets.values().for_each(|sheet| sum.add(sheet));
        sum
    }

    /// Asks every worker for a report until now; gives the request's number.
    pub(super) fn want_copies(&self) -> u64 {
        let mut inner = self.lock();
        inner.copies_wanted += 1;
        let request = inner.copies_wanted;
        drop(inner);
        self.wake.notify_waiters();
        request
    }

    /// The request that a worker which answered `given` has not answered.
    pub(super) fn copy_wanted(&self, given: u64) -> Option<u64> {
        let wanted = self.lock().copies_wanted;
        (given < wanted).then_some(wanted)
    }

    pub(super) fn put_copy(&self, worker: usize, request: u64, copy: Ending) {
        self.lock().copies.insert(worker, (request, copy));
    }

    /// Every worker's answer to that request or a later one; none before the last
    /// has answered.
    pub(super) fn copies(&self, request: u64, workers: usize) -> Option<Vec<Ending>> {
        let inner = self.lock();
        let new = inner.copies.values().filter(|(given, _)| request <= *given);
        let copies: Vec<_> = new.map(|(_, copy)| copy.clone()).collect();
        (copies.len() == workers).then_some(copies)
    }
}
