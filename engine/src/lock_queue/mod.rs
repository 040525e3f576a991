//! Who may touch an account next.
//!
//! Owns: which batch holds each account, and the waiting order per account.
//! Never: awaits, does I/O, reads a clock or a balance.
//! Bound: none of its own; every entry holds an admission permit.
//! Invariant: two batches never hold one account, and if A came before B on an
//! account they share, A is in an earlier batch or earlier in the same one.
//!
//! The holder of an account is a *batch*, not a transfer. A transfer joins the
//! open batch if each of its accounts is free or held by that batch and nobody
//! waits for it; else it waits in the line of each of its accounts. So a hot
//! account moves a whole batch of transfers per commit, and batches in flight
//! never wait for each other inside PostgreSQL.
//!
//! Accounts hash to shards. Locks are taken in one order: shards ascending, then
//! the open batch; none is held across anything but this bookkeeping.

mod shard;

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam::utils::CachePadded;
use hashbrown::HashSet;
use smallvec::SmallVec;

use self::shard::{Lane, SHARD_COUNT, Shard, shard_of};
use crate::domain::AccountId;

/// Something that needs accounts for itself.
pub trait Claim: Clone {
    /// Distinct accounts.
    fn accounts(&self) -> &[AccountId];
    /// How many transfers it stands for.
    fn transfers(&self) -> usize;
    /// Tells entries apart, equal ones too; never that of another living entry.
    fn identity(&self) -> (usize, usize);
}

/// Identifies a batch while it holds accounts. Zero is nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId(u64);

impl BatchId {
    const NOBODY: Self = Self(0);
}

/// How large a batch may grow.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Transfers; at least one full batch call.
    pub transfers_max: usize,
    /// Accounts, counted with repetition (an upper bound, kept cheaply).
    pub accounts_max: usize,
}

/// Why a batch stopped growing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// A committer was free.
    Idle,
    /// `transfers_max`.
    TransfersFull,
    /// `accounts_max`.
    AccountsFull,
}

/// What became of a pushed entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// It is in the open batch: a committer has something to do.
    Joined,
    /// It waits behind others on an account.
    Waiting,
}

/// A closed batch: its accounts stay held until [`LockQueue::release`].
#[derive(Debug)]
pub struct Batch<T> {
    /// For `release`.
    pub id: BatchId,
    /// In arrival order.
    pub members: Vec<T>,
    /// Why it closed.
    pub reason: CloseReason,
    /// Transfers the members stand for.
    pub transfers: usize,
}

#[derive(Debug)]
struct Open<T> {
    id: BatchId,
    members: Vec<T>,
    transfers: usize,
    accounts: usize,
    /// Full batches that no committer has taken yet, oldest first.
    sealed: VecDeque<Batch<T>>,
}

impl<T> Open<T> {
    fn close(&mut self, reason: CloseReason) -> Batch<T> {
        let closed = Batch {
            id: self.id,
            members: std::mem::take(&mut self.members),
            reason,
            transfers: self.transfers,
        };
        // 2^64 batches do not end: at a million a second they last 584,000 years.
        self.id = BatchId(self.id.0.saturating_add(1));
        self.transfers = 0;
        self.accounts = 0;
        closed
    }
}

/// The sharded account-lock queue.
#[derive(Debug)]
pub struct LockQueue<T> {
    shards: Box<[CachePadded<Mutex<Shard<T>>>]>,
    open: CachePadded<Mutex<Open<T>>>,
    limits: BatchLimits,
}

impl<T: Claim> LockQueue<T> {
    /// An empty queue.
    #[must_use]
    pub fn new(limits: BatchLimits) -> Self {
        Self {
            shards: (0..SHARD_COUNT)
                .map(|_| CachePadded::new(Mutex::new(Shard::default())))
                .collect(),
            open: CachePadded::new(Mutex::new(Open {
                id: BatchId(1),
                members: Vec::new(),
                transfers: 0,
                accounts: 0,
                sealed: VecDeque::new(),
            })),
            limits,
        }
    }

    /// Adds an entry behind everything that came before it on its accounts.
    pub fn push(&self, entry: T) -> Placed {
        let mut shards = self.lock_shards(entry.accounts());
        if shards.nobody_waits(&entry) && self.try_join(&mut shards, &entry) {
            return Placed::Joined;
        }
        for account in entry.accounts() {
            shards.lane(*account).waiting.push_back(entry.clone());
        }
        Placed::Waiting
    }

    /// Closes and hands out the oldest batch, if there is anything to do.
    pub fn take(&self) -> Option<Batch<T>> {
        let mut open = lock(&self.open);
        if let Some(sealed) = open.sealed.pop_front() {
            return Some(sealed);
        }
        if open.members.is_empty() {
            None
        } else {
            Some(open.close(CloseReason::Idle))
        }
    }

    /// Transfers that a committer could take now.
    pub fn ready(&self) -> usize {
        let open = lock(&self.open);
        open.sealed.iter().fold(open.transfers, |sum, batch| {
            sum.saturating_add(batch.transfers)
        })
    }

    /// Frees a batch's accounts (all of its members', each named at least once)
    /// and lets those who waited join the open batch, in their order.
    ///
    /// Returns whether anyone joined: then a committer has something to do.
    pub fn release(&self, id: BatchId, accounts: impl IntoIterator<Item = AccountId>) -> bool {
        let mut candidates = Candidates::default();
        for account in accounts {
            let mut shard = lock(&self.shards[shard_of(account)]);
            candidates.extend(shard.free(account, id));
        }
        let mut joined = false;
        while let Some(candidate) = candidates.pop() {
            joined |= self.promote(&candidate, &mut candidates);
        }
        joined
    }

    /// Lets one entry join if it is first in every line it stands in.
    fn promote(&self, entry: &T, candidates: &mut Candidates<T>) -> bool {
        let mut shards = self.lock_shards(entry.accounts());
        if !shards.is_first(entry) || !self.try_join(&mut shards, entry) {
            return false;
        }
        for account in entry.accounts() {
            let lane = shards.lane(*account);
            lane.waiting.pop_front();
            candidates.extend(lane.waiting.front().cloned());
        }
        true
    }

    /// Puts the entry into the open batch if its accounts are free for it.
    fn try_join(&self, shards: &mut Shards<'_, T>, entry: &T) -> bool {
        let mut open = lock(&self.open);
        // Before making room: a batch is not to be sealed for one who cannot join.
        if !shards.all_free(entry, open.id) {
            return false;
        }
        if self.make_room(&mut open, entry) && !shards.all_free(entry, open.id) {
            return false;
        }
        shards.hold(entry, open.id);
        join(&mut open, entry.clone());
        true
    }

    /// Seals the open batch if the entry does not fit. An entry larger than the
    /// limits joins an empty batch all the same: admission bounds it. Whether it
    /// was sealed: the open batch is another one then.
    fn make_room(&self, open: &mut Open<T>, entry: &T) -> bool {
        if open.members.is_empty() {
            return false;
        }
        let reason = if self.limits.transfers_max < open.transfers.saturating_add(entry.transfers())
        {
            CloseReason::TransfersFull
        } else if self.limits.accounts_max < open.accounts.saturating_add(entry.accounts().len()) {
            CloseReason::AccountsFull
        } else {
            return false;
        };
        let sealed = open.close(reason);
        open.sealed.push_back(sealed);
        true
    }

    /// Locks the shards of these accounts, ascending.
    fn lock_shards(&self, accounts: &[AccountId]) -> Shards<'_, T> {
        let mut indexes: SmallVec<[usize; 2]> =
            accounts.iter().map(|account| shard_of(*account)).collect();
        indexes.sort_unstable();
        indexes.dedup();
        Shards {
            held: indexes
                .into_iter()
                .map(|index| (index, lock(&self.shards[index])))
                .collect(),
        }
    }
}

fn join<T: Claim>(open: &mut Open<T>, entry: T) {
    open.transfers = open.transfers.saturating_add(entry.transfers());
    open.accounts = open.accounts.saturating_add(entry.accounts().len());
    open.members.push(entry);
}

/// Every mutation below completes before its guard drops, so a panic elsewhere
/// in the process leaves nothing half done behind the lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The locked shards of one entry.
struct Shards<'a, T> {
    held: SmallVec<[(usize, MutexGuard<'a, Shard<T>>); 2]>,
}

impl<T: Claim> Shards<'_, T> {
    fn lane(&mut self, account: AccountId) -> &mut Lane<T> {
        self.shard(account).lane(account)
    }

    fn shard(&mut self, account: AccountId) -> &mut Shard<T> {
        let wanted = shard_of(account);
        // At most two for a transfer; a large group pays a binary search.
        let at = self
            .held
            .binary_search_by_key(&wanted, |(index, _)| *index)
            .unwrap_or_default();
        &mut self.held[at].1
    }

    fn all_free(&mut self, entry: &T, open: BatchId) -> bool {
        entry.accounts().iter().all(|account| {
            let owner = self.lane(*account).owner;
            owner == BatchId::NOBODY || owner == open
        })
    }

    fn hold(&mut self, entry: &T, batch: BatchId) {
        for account in entry.accounts() {
            self.lane(*account).owner = batch;
        }
    }

    fn nobody_waits(&mut self, entry: &T) -> bool {
        entry
            .accounts()
            .iter()
            .all(|account| self.shard(*account).front(*account).is_none())
    }

    fn is_first(&mut self, entry: &T) -> bool {
        let identity = entry.identity();
        entry.accounts().iter().all(|account| {
            self.shard(*account)
                .front(*account)
                .is_some_and(|front| front.identity() == identity)
        })
    }
}

/// Who may have come first in a line, each once: a group that waits in thousands
/// of lines is looked at once for all that are freed together.
#[derive(Debug)]
struct Candidates<T> {
    queue: VecDeque<T>,
    queued: HashSet<(usize, usize)>,
}

impl<T> Default for Candidates<T> {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            queued: HashSet::new(),
        }
    }
}

impl<T: Claim> Candidates<T> {
    fn extend(&mut self, entry: Option<T>) {
        if let Some(entry) = entry
            && self.queued.insert(entry.identity())
        {
            self.queue.push_back(entry);
        }
    }

    fn pop(&mut self) -> Option<T> {
        let entry = self.queue.pop_front()?;
        self.queued.remove(&entry.identity());
        Some(entry)
    }
}

#[cfg(test)]
mod tests;
