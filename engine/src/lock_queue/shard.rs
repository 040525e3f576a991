//! One shard: the lanes of the accounts that hash to it.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::{BatchId, Claim};
use crate::domain::AccountId;

// A transfer takes 2 shards, so two random transfers share one with
// probability 1 - (126 / 128)^2, about 3%; at 64 shards it would be 6%.
pub(super) const SHARD_COUNT: usize = 128;
const SHARD_BITS: u32 = SHARD_COUNT.ilog2();

/// Fibonacci hashing: consecutive ids, the usual kind, spread over all shards.
pub(super) fn shard_of(account: AccountId) -> usize {
    let mixed = account
        .get()
        .unsigned_abs()
        .wrapping_mul(0x9E37_79B9_7F4A_7C15);
    usize::try_from(mixed >> (u64::BITS - SHARD_BITS)).unwrap_or(0)
}

/// One account: who holds it and who waits, in arrival order.
#[derive(Debug)]
pub(super) struct Lane<T> {
    pub(super) owner: BatchId,
    pub(super) waiting: VecDeque<T>,
}

/// Lanes exist only while held or waited for, so memory follows the load.
#[derive(Debug)]
pub(super) struct Shard<T> {
    lanes: HashMap<AccountId, Lane<T>>,
}

impl<T> Default for Shard<T> {
    fn default() -> Self {
        Self {
            lanes: HashMap::new(),
        }
    }
}

impl<T: Claim> Shard<T> {
    pub(super) fn lane(&mut self, account: AccountId) -> &mut Lane<T> {
        self.lanes.entry(account).or_insert_with(|| Lane {
            owner: BatchId::NOBODY,
            waiting: VecDeque::new(),
        })
    }

    /// Takes the account from that batch; whoever waits first for it, if any.
    pub(super) fn free(&mut self, account: AccountId, from: BatchId) -> Option<T> {
        let lane = self.lanes.get_mut(&account)?;
        if lane.owner != from {
            return None;
        }
        lane.owner = BatchId::NOBODY;
        let first = lane.waiting.front().cloned();
        if first.is_none() {
            self.lanes.remove(&account);
        }
        first
    }

    /// Who waits first for the account.
    pub(super) fn front(&self, account: AccountId) -> Option<&T> {
        self.lanes.get(&account)?.waiting.front()
    }

    #[cfg(test)]
    pub(super) fn lane_count(&self) -> usize {
        self.lanes.len()
    }
}
