//! Reads of many callers, asked together.
//!
//! Owns: the callers waiting for an entry.
//! Never: waits longer than two operations for one caller.
//! Bound: `waiting_max` callers; past it a caller asks the database at once.
//! Invariant: every caller gets the text under its own key or learns that there
//! is none to be had; no caller waits without a lane that will serve it.
//!
//! A lane takes all who wait and asks for them with one MGET, while the next
//! gather: the busier the engine, the larger the batch, and no timer is needed.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::gate::{Away, Gate};
use super::store::{Keyspace, Text};
use crate::domain::AccountId;

#[derive(Debug)]
struct Waiter {
    id: AccountId,
    reply: oneshot::Sender<Text>,
}

#[derive(Debug, Default)]
struct Waiting {
    waiters: Vec<Waiter>,
    lanes: usize,
}

#[derive(Debug)]
pub(super) struct Reads {
    waiting_max: usize,
    /// Who waits: pushed by callers, taken whole by a lane.
    waiting: Mutex<Waiting>,
    wake: Notify,
}

impl Reads {
    pub(super) fn new(waiting_max: usize) -> Self {
        Self {
            waiting_max,
            waiting: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// The text under the account's key.
    pub(super) async fn read(&self, id: AccountId) -> Result<Text, Away> {
        let (reply, text) = oneshot::channel();
        let first = {
            let mut waiting = self.waiting();
            if waiting.lanes == 0 || waiting.waiters.len() >= self.waiting_max {
                return Err(Away);
            }
            waiting.waiters.push(Waiter { id, reply });
            waiting.waiters.len() == 1
        };
        // Those who come later are taken along by whoever serves the first.
        if first {
            self.wake.notify_one();
        }
        match text.await {
            Ok(text) => Ok(text),
            Err(_dropped) => Err(Away),
        }
    }

    /// One lane; several may run at once. Ends when the gate closes.
    pub(super) async fn serve(&self, gate: &Gate, keyspace: impl Fn() -> Option<Arc<Keyspace>>) {
        let _lane = Lane::open(self);
        let mut batch = Vec::new();
        while !gate.is_closing() {
            mem::swap(&mut batch, &mut self.waiting().waiters);
            if batch.is_empty() {
                tokio::select! {
                    biased;
                    () = self.wake.notified() => {}
                    () = gate.closed() => {}
                }
                continue;
            }
            let Some(keyspace) = keyspace() else {
                batch.clear();
                continue;
            };
            let ids = batch.iter().map(|waiter| waiter.id);
            match gate.run(gate.store().read(&keyspace, ids)).await {
                Ok(texts) => {
                    for (waiter, text) in batch.drain(..).zip(texts) {
                        // A caller that went away needs no answer.
                        waiter.reply.send(text).ok();
                    }
                }
                Err(Away) => {
                    batch.clear();
                    // Those who gathered have waited for a failure already.
                    drop(mem::take(&mut self.waiting().waiters));
                }
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // A push or a swap under the lock: a panic cannot leave it half done.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lane being served; when the last one ends, however it ends, nobody is left
/// waiting.
struct Lane<'a>(&'a Reads);

impl<'a> Lane<'a> {
    fn open(reads: &'a Reads) -> Self {
        reads.waiting().lanes += 1;
        Self(reads)
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting();
        waiting.lanes -= 1;
        if waiting.lanes == 0 {
            drop(mem::take(&mut waiting.waiters));
        }
    }
}
