//! The one way to Redis: through the breaker, on a connection it keeps.
//!
//! Owns: the breaker, when to connect, the end of the room's tasks.
//! Never: makes a caller wait for a connection.
//! Bound: one probe at a time, paced by the breaker; a ping each second shows a
//! dead Redis although nobody reads.
//! Invariant: every admitted operation is reported under the ticket it began with.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::breaker::{Breaker, BreakerState, Probe, Ticket};
use super::stats::Stats;
use super::store::{Store, StoreError};
use crate::clock::Clock;

/// How long a dead Redis may go unseen while nobody reads.
const PING_EVERY: Duration = Duration::from_secs(1);

/// Redis was not asked, or did not answer: the database must.
#[derive(Debug)]
pub(super) struct Away;

#[derive(Debug)]
pub(super) struct Gate {
    store: Store,
    clock: Clock,
    stats: Arc<Stats>,
    /// Locked for a few instructions around each operation of a batch.
    breaker: Mutex<Breaker>,
    /// Woken when the breaker opens.
    opened: Notify,
    /// Whether it was logged why there is no connection; one at a time tries.
    told_away: AtomicBool,
    closing: watch::Sender<bool>,
}

impl Gate {
    pub(super) fn new(store: Store, clock: Clock, stats: Arc<Stats>, breaker: Breaker) -> Self {
        Self {
            store,
            clock,
            stats,
            breaker: Mutex::new(breaker),
            opened: Notify::new(),
            told_away: AtomicBool::new(false),
            closing: watch::Sender::new(false),
        }
    }

    pub(super) const fn store(&self) -> &Store {
        &self.store
    }

    /// Runs an operation if the breaker is closed, and reports how it went.
    pub(super) async fn run<T>(
        &self,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Away> {
        let Some(ticket) = self.breaker().admit() else {
            return Err(Away);
        };
        let outcome = operation.await;
        self.report(ticket, outcome)
    }

    /// Ends every task of the room.
    pub(super) fn close(&self) {
        self.closing.send_replace(true);
    }

    pub(super) fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// Returns when [`Self::close`] was called.
    pub(super) async fn closed(&self) {
        let mut closing = self.closing.subscribe();
        // The sender lives as long as self: waiting cannot fail before it is told.
        if closing.wait_for(|closing| *closing).await.is_err() {
            tracing::debug!("the cache's owner is gone");
        }
    }

    /// Connects, connects again when the breaker says so, and pings.
    pub(super) async fn keep(&self) {
        tokio::select! {
            biased;
            () = self.closed() => {}
            () = self.keep_connected() => {}
        }
        self.store.disconnect();
    }

    async fn keep_connected(&self) {
        loop {
            let probe = self.breaker().probe(self.clock.now());
            match probe {
                Probe::Go(ticket) => {
                    self.stats.show(BreakerState::HalfOpen);
                    let connected = self.store.connect().await;
                    // Its failure is logged and counted by the report.
                    if self.report(ticket, connected).is_ok() {
                        self.told_away.store(false, Ordering::Relaxed);
                        tracing::info!("cache connected");
                    }
                }
                Probe::Wait(backoff) => tokio::time::sleep(backoff).await,
                Probe::NotNeeded => {
                    tokio::select! {
                        biased;
                        () = self.opened.notified() => {}
                        () = tokio::time::sleep(PING_EVERY) => {
                            // As above.
                            drop(self.run(self.store.ping()).await);
                        }
                    }
                }
            }
        }
    }

    fn report<T>(&self, ticket: Ticket, outcome: Result<T, StoreError>) -> Result<T, Away> {
        match outcome {
            Ok(answer) => {
                let mut breaker = self.breaker();
                breaker.succeeded(ticket);
                // Shown under the lock, so that states appear in their order.
                if self.stats.state() != breaker.state() {
                    self.stats.show(breaker.state());
                }
                Ok(answer)
            }
            Err(error) => {
                self.count(&error);
                let change = {
                    let mut breaker = self.breaker();
                    breaker.failed(ticket, error.failure(), self.clock.now());
                    let state = breaker.state();
                    if state == BreakerState::Open {
                        self.store.disconnect();
                    }
                    (self.stats.show(state), state)
                };
                if change == (BreakerState::Closed, BreakerState::Open) {
                    self.opened.notify_one();
                    tracing::warn!(%error, "cache away; balances are read from the database");
                } else if change == (BreakerState::HalfOpen, BreakerState::Open)
                    && !self.told_away.swap(true, Ordering::Relaxed)
                {
                    // What broke the last connection says little about why there is
                    // no new one: a wrong password, say, or a certificate.
                    tracing::warn!(%error, "cache cannot be connected; balances are read from the database");
                } else {
                    tracing::debug!(%error, "cache operation failed");
                }
                Err(Away)
            }
        }
    }

    fn count(&self, error: &StoreError) {
        if error.is_timeout() {
            self.stats.timeouts.one();
        } else {
            self.stats.errors.one();
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        // Its methods do not panic between two assignments.
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
