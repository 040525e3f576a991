//! The rows, and what must hold of them after every commit.
//!
//! Owns: the tables as one host shows them to a new snapshot, the history of each
//! balance, and the records of the write-ahead log.
//! Invariant: [`Tables::apply`] refuses a record that does not follow from what
//! is there: money out of nothing, a gap in a version, a key used twice.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use uuid::Uuid;

/// A row of `accounts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::simulation) struct AccountRow {
    pub(in crate::simulation) balance: i64,
    pub(in crate::simulation) min_balance: Option<i64>,
    pub(in crate::simulation) version: i64,
    pub(in crate::simulation) head: Option<Uuid>,
    pub(in crate::simulation) currency: i16,
    pub(in crate::simulation) status: i16,
}

/// A row of `transfers`.
#[derive(Clone, Debug)]
pub(in crate::simulation) struct TransferRow {
    pub(in crate::simulation) id: Uuid,
    pub(in crate::simulation) debit: i64,
    pub(in crate::simulation) credit: i64,
    pub(in crate::simulation) amount: i64,
    pub(in crate::simulation) debit_balance: i64,
    pub(in crate::simulation) credit_balance: i64,
    pub(in crate::simulation) debit_version: i64,
    pub(in crate::simulation) credit_version: i64,
    pub(in crate::simulation) currency: i16,
    pub(in crate::simulation) debit_previous: Option<Uuid>,
    pub(in crate::simulation) credit_previous: Option<Uuid>,
    pub(in crate::simulation) group: Option<Uuid>,
    pub(in crate::simulation) reverses: Option<Uuid>,
    pub(in crate::simulation) reference: Option<String>,
}

/// A row of `rejections`.
#[derive(Clone, Copy, Debug)]
pub(in crate::simulation) struct RejectionRow {
    pub(in crate::simulation) reason: i16,
    pub(in crate::simulation) account: i64,
}

/// A row of `idempotency_keys`.
#[derive(Clone, Copy, Debug)]
pub(in crate::simulation) struct KeyRow {
    pub(in crate::simulation) period: i32,
    pub(in crate::simulation) key: Uuid,
    pub(in crate::simulation) fingerprint: Uuid,
    pub(in crate::simulation) txn_id: Uuid,
}

/// What one transaction wrote.
#[derive(Clone, Debug, Default)]
pub(in crate::simulation) struct Record {
    pub(in crate::simulation) accounts: BTreeMap<i64, AccountRow>,
    pub(in crate::simulation) transfers: Vec<Rc<TransferRow>>,
    pub(in crate::simulation) rejections: Vec<(Uuid, RejectionRow)>,
    pub(in crate::simulation) keys: Vec<KeyRow>,
    pub(in crate::simulation) reversals: Vec<(Uuid, Uuid)>,
    pub(in crate::simulation) commits: Vec<(i64, i32, i32)>,
}

impl Record {
    pub(super) fn is_empty(&self) -> bool {
        self.accounts.is_empty()
            && self.transfers.is_empty()
            && self.rejections.is_empty()
            && self.keys.is_empty()
            && self.reversals.is_empty()
            && self.commits.is_empty()
    }

    /// Of everything that an answer may name.
    pub(super) fn ids(&self) -> impl Iterator<Item = Uuid> + '_ {
        let rejections = self.rejections.iter().map(|(id, _)| *id);
        self.transfers.iter().map(|row| row.id).chain(rejections)
    }
}

/// A version of an account, with when it became visible.
#[derive(Clone, Copy, Debug)]
pub(in crate::simulation) struct Version {
    pub(in crate::simulation) balance: i64,
    pub(in crate::simulation) visible_ms: u64,
}

/// Everything that is committed and visible on one host.
#[derive(Clone, Debug, Default)]
pub(in crate::simulation) struct Tables {
    pub(in crate::simulation) accounts: BTreeMap<i64, AccountRow>,
    pub(in crate::simulation) transfers: BTreeMap<Uuid, Rc<TransferRow>>,
    pub(in crate::simulation) rejections: BTreeMap<Uuid, RejectionRow>,
    pub(in crate::simulation) keys: BTreeMap<(i32, Uuid), KeyRow>,
    pub(in crate::simulation) reversals: BTreeMap<Uuid, Uuid>,
    commits: BTreeSet<i64>,
    groups: BTreeSet<Uuid>,
    /// Per account, by version.
    pub(in crate::simulation) history: BTreeMap<i64, Vec<Version>>,
}

impl Tables {
    pub(in crate::simulation) fn new(accounts: BTreeMap<i64, AccountRow>) -> Self {
        let first = |row: &AccountRow| Version {
            balance: row.balance,
            visible_ms: 0,
        };
        Self {
            history: accounts
                .iter()
                .map(|(id, row)| (*id, vec![first(row)]))
                .collect(),
            accounts,
            ..Self::default()
        }
    }

    /// Makes a record visible, or says which promise it breaks.
    pub(super) fn apply(&mut self, record: &Record, now_ms: u64) -> Result<(), String> {
        self.together(record)?;
        let mut expected: BTreeMap<i64, AccountRow> = BTreeMap::new();
        for transfer in &record.transfers {
            self.follow(transfer, &mut expected, now_ms)?;
        }
        for (id, row) in &record.accounts {
            let before = self.accounts.get(id).ok_or("an account out of nothing")?;
            let expected = expected.remove(id).unwrap_or(*before);
            let as_written = (row.balance, row.version, row.head);
            if as_written != (expected.balance, expected.version, expected.head) {
                return Err(format!(
                    "conservation: account {id} was written as {row:?}, its transfers make {expected:?}"
                ));
            }
            if row.min_balance.is_some_and(|limit| row.balance < limit) {
                return Err(format!("overdraft: account {id} is {row:?}"));
            }
            self.accounts.insert(*id, *row);
        }
        if let Some((id, _)) = expected.first_key_value() {
            return Err(format!(
                "conservation: account {id} was not written with its transfers"
            ));
        }
        for key in &record.keys {
            if self.keys.insert((key.period, key.key), *key).is_some() {
                return Err(format!("exactly once: key {} was stored twice", key.key));
            }
        }
        for (original, reversal) in &record.reversals {
            if self.reversals.insert(*original, *reversal).is_some() {
                return Err(format!("exactly once: {original} was reversed twice"));
            }
        }
        for (id, row) in &record.rejections {
            self.rejections.insert(*id, *row);
        }
        for (id, transfers, rejections) in &record.commits {
            let counted = (record.transfers.len(), record.rejections.len());
            let said = (usize::try_from(*transfers), usize::try_from(*rejections));
            if !self.commits.insert(*id) || said != (Ok(counted.0), Ok(counted.1)) {
                return Err(format!("commit {id} says {said:?}, it holds {counted:?}"));
            }
        }
        Ok(())
    }

    /// A group is in one record; a reversal is noted with its transfer.
    fn together(&mut self, record: &Record) -> Result<(), String> {
        let groups = record.transfers.iter().filter_map(|row| row.group);
        for group in groups.collect::<BTreeSet<Uuid>>() {
            if !self.groups.insert(group) {
                return Err(format!("atomic: group {group} is in two commits"));
            }
        }
        for row in &record.transfers {
            let noted = |original: Uuid| record.reversals.contains(&(original, row.id));
            if row.reverses.is_some_and(|original| !noted(original)) {
                return Err(format!("exactly once: reversal {} is not noted", row.id));
            }
        }
        Ok(())
    }

    fn follow(
        &mut self,
        transfer: &Rc<TransferRow>,
        expected: &mut BTreeMap<i64, AccountRow>,
        now_ms: u64,
    ) -> Result<(), String> {
        for (id, change, balance, version, previous) in [
            (
                transfer.debit,
                -transfer.amount,
                transfer.debit_balance,
                transfer.debit_version,
                transfer.debit_previous,
            ),
            (
                transfer.credit,
                transfer.amount,
                transfer.credit_balance,
                transfer.credit_version,
                transfer.credit_previous,
            ),
        ] {
            let stored = self.accounts.get(&id);
            let row = match expected.get(&id) {
                Some(row) => *row,
                None => *stored.ok_or("a transfer of an account out of nothing")?,
            };
            let follows = row.balance + change == balance
                && row.version + 1 == version
                && row.head == previous
                && row.currency == transfer.currency
                && row.head < Some(transfer.id);
            if !follows {
                return Err(format!(
                    "versions: {transfer:?} does not follow account {id} as it was, {row:?}"
                ));
            }
            let after = AccountRow {
                balance,
                version,
                head: Some(transfer.id),
                ..row
            };
            expected.insert(id, after);
            let visible_ms = now_ms;
            self.history.entry(id).or_default().push(Version {
                balance,
                visible_ms,
            });
        }
        let before = self.transfers.insert(transfer.id, Rc::clone(transfer));
        if before.is_some() {
            return Err(format!("exactly once: {} was stored twice", transfer.id));
        }
        Ok(())
    }

    /// Conservation over everything, by currency.
    pub(in crate::simulation) fn balance_sums(&self) -> BTreeMap<i16, i64> {
        let mut sums = BTreeMap::new();
        for row in self.accounts.values() {
            *sums.entry(row.currency).or_default() += row.balance;
        }
        sums
    }
}
