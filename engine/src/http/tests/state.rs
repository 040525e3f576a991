//! What the ledger in memory holds, and what the real fold does to it.

use super::fake::Trouble;
use crate::domain::fold::{Fold, GroupFailure, Known, KnownKey};
use crate::domain::id::TransferIds;
use crate::domain::transfer::{NewRejection, NewTransfer};
use crate::domain::{
    Account, AccountId, AccountStatus, AmountMinor, CommitId, Currency, DecimalAmount, Outcome,
    TransferRequest,
};
use crate::store::read::{
    AccountRow, Direction, HistoryPage, HistoryQuery, ListedStatus, NewAccount, Opened, Record,
    RejectionRow, Side, TransferRow,
};

/// 2026-01-31T12:00:00Z: every id of the fake is made then.
pub(super) const NOW_MS: u64 = 1_769_860_800_000;

pub(super) const USD: Currency = Currency::for_test(840, *b"USD", 2);
const JPY: Currency = Currency::for_test(392, *b"JPY", 0);
const KWD: Currency = Currency::for_test(414, *b"KWD", 3);

#[derive(Debug)]
pub(super) struct State {
    pub(super) accounts: Vec<AccountRow>,
    pub(super) records: Vec<Record>,
    pub(super) known: Known,
    pub(super) ids: TransferIds,
    pub(super) cached: Vec<AccountId>,
    pub(super) trouble: Trouble,
    pub(super) not_ready: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            accounts: Vec::new(),
            records: Vec::new(),
            known: Known::default(),
            ids: TransferIds::new(7),
            cached: Vec::new(),
            trouble: Trouble::None,
            not_ready: false,
        }
    }
}

impl State {
    pub(super) fn fold(
        &mut self,
        requests: &[TransferRequest],
        atomic: bool,
    ) -> Result<Vec<Outcome>, GroupFailure> {
        let mut fold = Fold::new(self.known.clone(), &mut self.ids, NOW_MS);
        let outcomes = if atomic {
            fold.group(requests.iter(), 0)?
        } else {
            let each = requests.iter().enumerate();
            each.map(|(index, request)| fold.transfer(request, index))
                .collect()
        };
        self.known.accounts = fold.accounts().clone();
        for row in &fold.transfers {
            self.known.reversed.extend(row.reverses);
            let request = &requests[row.request_index];
            self.records
                .push(Record::Completed(transfer_row(row, request)));
        }
        for row in &fold.rejections {
            let request = &requests[row.request_index];
            self.records
                .push(Record::Rejected(rejection_row(row, request)));
        }
        for (request, outcome) in requests.iter().zip(&outcomes) {
            let kept = fold.keys.iter().find(|new| Some(new.key) == request.key);
            if let Some(new) = kept {
                let known = KnownKey {
                    fingerprint: new.key.fingerprint,
                    outcome: *outcome,
                };
                self.known.keys.entry(new.key.hash).or_insert(known);
            }
        }
        Ok(outcomes)
    }

    pub(super) fn row(&self, id: AccountId) -> Option<AccountRow> {
        let row = self.accounts.iter().find(|row| row.account.id == id)?;
        let account = self.known.accounts[&id];
        Some(AccountRow {
            account,
            ..row.clone()
        })
    }

    pub(super) fn open(&mut self, accounts: Vec<NewAccount>) -> Opened {
        let mut rows = Vec::new();
        let mut created = false;
        for new in &accounts {
            let fresh = match fresh_row(new) {
                Ok(row) => row,
                Err(refusal) => return refusal,
            };
            let terms = |row: &AccountRow| {
                let account = row.account;
                let texts = (row.name.clone(), row.owner.clone());
                (account.currency, account.min_balance, texts)
            };
            match self.row(new.id) {
                Some(old) if terms(&old) != terms(&fresh) => return Opened::Conflict(new.id),
                Some(old) => rows.push(old),
                None => {
                    created = true;
                    rows.push(fresh);
                }
            }
        }
        for row in &rows {
            let id = row.account.id;
            if self.known.accounts.insert(id, row.account).is_none() {
                self.accounts.push(row.clone());
            }
        }
        self.accounts.sort_by_key(|row| row.account.id);
        if created {
            Opened::Created(rows)
        } else {
            Opened::Identical(rows)
        }
    }

    pub(super) fn history(&self, query: &HistoryQuery) -> HistoryPage {
        let limit = usize::from(query.limit.get());
        let parties = |record: &Record| match record {
            Record::Completed(row) => (row.debit.account_id, row.credit.account_id),
            Record::Rejected(row) => (row.debit_account_id, row.credit_account_id),
        };
        let listed = |record: &&Record| {
            let (debit, credit) = parties(record);
            matches!(record, Record::Completed(_)) == (query.status == ListedStatus::Completed)
                && query.account.is_none_or(|id| id == debit || id == credit)
                && query.debit.is_none_or(|id| id == debit)
                && query.credit.is_none_or(|id| id == credit)
                && query.cursor.is_none_or(|cursor| record.id() < cursor)
        };
        let mut rows: Vec<_> = self.records.iter().rev().filter(listed).cloned().collect();
        let more = limit < rows.len();
        rows.truncate(limit);
        let next = rows.last().map(Record::id).filter(|_| more);
        HistoryPage { rows, next }
    }
}

fn fresh_row(new: &NewAccount) -> Result<AccountRow, Opened> {
    let known = [USD, JPY, KWD].into_iter();
    let currency = known.into_iter().find(|known| known.code == new.currency);
    let currency = currency.ok_or(Opened::UnknownCurrency {
        account_id: new.id,
        currency: new.currency,
    })?;
    let limit = new.min_balance.to_minor(currency);
    let min_balance = limit.map_err(|reason| Opened::InvalidMinBalance {
        account_id: new.id,
        reason,
    })?;
    if min_balance.is_some_and(|limit| 0 < limit) {
        return Err(Opened::MinBalanceAboveZero(new.id));
    }
    Ok(AccountRow {
        account: Account {
            id: new.id,
            currency,
            balance: 0,
            min_balance,
            debits_pending: 0,
            version: 0,
            head: None,
            status: AccountStatus::Open,
        },
        name: new.name.clone(),
        owner: new.owner.clone(),
        created_at_ms: NOW_MS,
        updated_at_ms: NOW_MS,
    })
}

fn transfer_row(row: &NewTransfer, request: &TransferRequest) -> TransferRow {
    TransferRow {
        id: row.id,
        debit: Side {
            direction: Direction::Debit,
            account_id: row.debit_account_id,
            balance: row.debit_balance,
            version: row.debit_version,
        },
        credit: Side {
            direction: Direction::Credit,
            account_id: row.credit_account_id,
            balance: row.credit_balance,
            version: row.credit_version,
        },
        amount: AmountMinor::new(row.amount_minor).unwrap(),
        currency: row.currency,
        commit_id: CommitId(1),
        position: 0,
        effective_at_ms: None,
        group_id: row.group_id,
        reverses: row.reverses,
        details: request.details.as_deref().cloned().unwrap_or_default(),
    }
}

fn rejection_row(row: &NewRejection, request: &TransferRequest) -> RejectionRow {
    RejectionRow {
        id: row.id,
        debit_account_id: request.debit_account_id,
        credit_account_id: request.credit_account_id,
        amount: DecimalAmount::from_decimal(row.amount).unwrap(),
        reason: row.reason,
        account_id: row.account_id,
        commit_id: CommitId(1),
        reverses: request.reverses,
        details: request.details.as_deref().cloned().unwrap_or_default(),
    }
}
