//! Entries on their way to Redis.
//!
//! Owns: what callers read from the database (fills, awaited) and what was
//! committed to recently read accounts (write-behind, awaited by nobody).
//! Never: makes a committer wait for Redis or for a long lock.
//! Bound: `fills_max` fills and `behind_max` accounts; past them an entry is
//! dropped and counted. One operation puts every fill that waits and up to
//! [`BEHIND_BATCH_MAX`] others, so a fill waits for two operations at most.
//! Invariant: an entry goes only to the keys of the history it was read under.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use hashbrown::hash_map::Entry as Slot;
use tokio::sync::{Notify, oneshot};

use super::entry::Entry;
use super::gate::Gate;
use super::stats::Stats;
use super::store::Keyspace;
use crate::domain::AccountId;

/// Write-behind entries per call of the script: Redis serves nobody else
/// meanwhile, and 256 take it under a millisecond.
const BEHIND_BATCH_MAX: usize = 256;

/// An entry and the database history it belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Put {
    pub(super) entry: Entry,
    pub(super) history: u64,
}

#[derive(Debug)]
struct Job {
    put: Put,
    /// Told when Redis has it; none for write-behind.
    done: Option<oneshot::Sender<()>>,
}

#[derive(Debug, Default)]
struct Pending {
    fills: Vec<Job>,
    /// The newest balance per account: a hot account waits once.
    behind: HashMap<AccountId, Put>,
    lanes: usize,
}

#[derive(Debug)]
pub(super) struct Puts {
    fills_max: usize,
    behind_max: usize,
    ttl_ms: u64,
    stats: Arc<Stats>,
    /// What waits: pushed by readers and committers, taken whole by the lane.
    pending: Mutex<Pending>,
    wake: Notify,
}

impl Puts {
    pub(super) fn new(fills_max: usize, behind_max: usize, ttl_ms: u64, stats: Arc<Stats>) -> Self {
        Self {
            fills_max,
            behind_max,
            ttl_ms,
            stats,
            pending: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Puts what a caller read, and returns when Redis has it or has failed.
    pub(super) async fn fill(&self, put: Put) {
        let (done, stored) = oneshot::channel();
        {
            let mut pending = self.pending();
            if pending.lanes == 0 || pending.fills.len() >= self.fills_max {
                self.stats.fills_dropped.one();
                return;
            }
            pending.fills.push(Job {
                put,
                done: Some(done),
            });
        }
        self.wake.notify_one();
        if stored.await.is_err() {
            tracing::debug!(account_id = %put.entry.balance.account_id, "balance not cached");
        }
    }

    /// Takes a committed balance of a recently read account along; [`Self::flush`]
    /// must follow. Two short hash operations at most; allocates nothing once
    /// both of the lane's maps have grown.
    pub(super) fn behind(&self, put: Put) {
        let mut pending = self.pending();
        let full = pending.lanes == 0 || pending.behind.len() >= self.behind_max;
        match pending.behind.entry(put.entry.balance.account_id) {
            Slot::Occupied(mut slot) => {
                // Committers may report in either order; another history is newer.
                let waiting = slot.get();
                let older = put.history == waiting.history
                    && put.entry.balance.version < waiting.entry.balance.version;
                if !older {
                    slot.insert(put);
                }
            }
            Slot::Vacant(_) if full => self.stats.write_behind_dropped.one(),
            Slot::Vacant(slot) => {
                slot.insert(put);
            }
        }
    }

    /// Wakes the lane.
    pub(super) fn flush(&self) {
        self.wake.notify_one();
    }

    /// The lane. Ends when the gate closes.
    pub(super) async fn serve(&self, gate: &Gate, keyspace: impl Fn() -> Option<Arc<Keyspace>>) {
        let _lane = Lane::open(self);
        let mut jobs = Vec::new();
        let mut behind = HashMap::new();
        let mut backlog: Vec<Put> = Vec::new();
        while !gate.is_closing() {
            {
                // Swapped, not copied: a committer never waits for a long list.
                let mut pending = self.pending();
                mem::swap(&mut jobs, &mut pending.fills);
                if backlog.is_empty() {
                    mem::swap(&mut behind, &mut pending.behind);
                }
            }
            backlog.extend(behind.drain().map(|(_, put)| put));
            crate::plant::pin(&mut backlog, |put| put.entry.balance.account_id);
            let rest = backlog.len().saturating_sub(BEHIND_BATCH_MAX);
            jobs.extend(backlog.drain(rest..).map(|put| Job { put, done: None }));
            if jobs.is_empty() {
                tokio::select! {
                    biased;
                    () = self.wake.notified() => {}
                    () = gate.closed() => {}
                }
                continue;
            }
            if let Some(keyspace) = keyspace() {
                self.drop_strangers(&keyspace, &mut jobs);
                self.put(gate, &keyspace, &mut jobs).await;
            }
            if !jobs.is_empty() {
                // Redis is away: what waits would only fail as well.
                jobs.extend(backlog.drain(..).map(|put| Job { put, done: None }));
                self.drop_all(&mut jobs);
            }
        }
    }

    /// Puts them in one operation; leaves them all if it fails.
    async fn put(&self, gate: &Gate, keyspace: &Keyspace, jobs: &mut Vec<Job>) {
        if jobs.is_empty() {
            return;
        }
        let entries = jobs.iter().map(|job| job.put.entry);
        let put = gate.store().put_if_newer(keyspace, entries, self.ttl_ms);
        let Ok(stored) = gate.run(put).await else {
            return;
        };
        let offered = u64::try_from(jobs.len()).unwrap_or(u64::MAX);
        self.stats.puts.add(stored);
        self.stats
            .stale_puts_refused
            .add(offered.saturating_sub(stored));
        for done in jobs.drain(..).filter_map(|job| job.done) {
            // A caller that went away needs no answer.
            done.send(()).ok();
        }
    }

    /// What was read or committed before the database changed.
    fn drop_strangers(&self, keyspace: &Keyspace, jobs: &mut Vec<Job>) {
        jobs.retain(|job| {
            let kept = job.put.history == keyspace.history;
            if !kept {
                self.count_dropped(job);
            }
            kept
        });
    }

    fn drop_all(&self, jobs: &mut Vec<Job>) {
        for job in jobs.drain(..) {
            self.count_dropped(&job);
        }
    }

    fn count_dropped(&self, job: &Job) {
        match job.done {
            Some(_) => self.stats.fills_dropped.one(),
            None => self.stats.write_behind_dropped.one(),
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        // A push or a swap under the lock: a panic cannot leave it half done.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lane being served; when it ends, however it ends, nobody is left waiting.
struct Lane<'a>(&'a Puts);

impl<'a> Lane<'a> {
    fn open(puts: &'a Puts) -> Self {
        puts.pending().lanes += 1;
        Self(puts)
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        let mut pending = self.0.pending();
        pending.lanes -= 1;
        if pending.lanes == 0 {
            drop(mem::take(&mut pending.fills));
            pending.behind.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::Writer;
    use super::*;
    use crate::domain::{Balance, Currency};

    fn put(account: i64, version: i64, history: u64) -> Put {
        Put {
            entry: Entry {
                balance: Balance {
                    account_id: AccountId::new(account).unwrap(),
                    balance: 0,
                    version,
                    currency: Currency::for_test(840, *b"USD", 2),
                },
                as_of_unix_ms: 0,
                writer: Writer {
                    instance: 0,
                    epoch: 0,
                },
            },
            history,
        }
    }

    #[track_caller]
    fn check(puts: &Puts, expected: &[(i64, i64, u64)], dropped: u64) {
        let mut waiting: Vec<_> = puts
            .pending()
            .behind
            .values()
            .map(|put| {
                let balance = put.entry.balance;
                (balance.account_id.get(), balance.version, put.history)
            })
            .collect();
        waiting.sort_unstable();
        assert_eq!(waiting, expected);
        assert_eq!(puts.stats.snapshot().write_behind_dropped, dropped);
    }

    #[test]
    fn an_account_waits_once_with_its_newest_balance_and_the_bound_holds() {
        let puts = Puts::new(1, 2, 60_000, Arc::new(Stats::new()));
        puts.behind(put(1, 1, 1));
        check(&puts, &[], 1);
        let lane = Lane::open(&puts);
        for next in [put(1, 5, 1), put(1, 6, 1), put(1, 4, 1), put(2, 1, 1)] {
            puts.behind(next);
        }
        check(&puts, &[(1, 6, 1), (2, 1, 1)], 1);
        puts.behind(put(3, 1, 1));
        check(&puts, &[(1, 6, 1), (2, 1, 1)], 2);
        // Room is not needed for one that waits already, nor is a shorter
        // history's lower version older.
        puts.behind(put(1, 2, 2));
        check(&puts, &[(1, 2, 2), (2, 1, 1)], 2);
        drop(lane);
        check(&puts, &[], 2);
    }
}
