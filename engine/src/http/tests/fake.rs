//! A ledger in memory: the real fold over maps, and switches for trouble.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use tokio::sync::Notify;
use uuid::Uuid;

use super::super::ports::{BalanceAnswer, Freshness, Ledger, Observer, RequestFacts};
use super::super::{ErrorCode, Route, TransferFacts};
use crate::admission::Refused;
use crate::domain::account::MinBalance;
use crate::domain::fold::{ChangeOutcome, Fold, GroupFailure, Known, KnownKey};
use crate::domain::id::TransferIds;
use crate::domain::{
    Account, AccountChange, AccountId, AccountStatus, AmountMinor, CommitId, Currency,
    DecimalAmount, Outcome, TransferId, TransferRequest,
};
use crate::store::read::{
    AccountRow, Balance, Direction, Fate, HistoryError, HistoryPage, HistoryQuery, ListedStatus,
    NewAccount, OpenError, Opened, PageLimit, ReadError, Record, RejectionRow, Side, TimeoutAt,
    TransferRow,
};

/// 2026-01-31T12:00:00Z: every id of the fake is made then.
pub(super) const NOW_MS: u64 = 1_769_860_800_000;

const CURRENCIES: [Currency; 3] = [
    Currency::for_test(840, *b"USD", 2),
    Currency::for_test(392, *b"JPY", 0),
    Currency::for_test(414, *b"KWD", 3),
];

/// What the next calls meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Trouble {
    #[default]
    None,
    /// Commands are refused, reads fail as they would for that reason.
    Refused(Refused),
    /// Opening accounts ends in doubt, and so does all else.
    NotDurable,
    /// A change is applied, but its account cannot be read back.
    ReadsFail,
    /// No call returns.
    Hangs,
}

#[derive(Debug)]
struct State {
    accounts: Vec<AccountRow>,
    records: Vec<Record>,
    known: Known,
    ids: TransferIds,
    cached: Vec<AccountId>,
    trouble: Trouble,
    not_ready: bool,
}

/// Cheap to clone; all clones are one ledger.
#[derive(Clone, Debug)]
pub(super) struct FakeLedger {
    state: Arc<Mutex<State>>,
    /// Told when a call begins to hang, and when one is dropped.
    pub(super) hanging: Arc<Notify>,
    pub(super) dropped: Arc<Notify>,
}

impl Default for FakeLedger {
    fn default() -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                accounts: Vec::new(),
                records: Vec::new(),
                known: Known::default(),
                ids: TransferIds::new(7),
                cached: Vec::new(),
                trouble: Trouble::None,
                not_ready: false,
            })),
            hanging: Arc::default(),
            dropped: Arc::default(),
        }
    }
}

struct TellDropped(Arc<Notify>);

impl Drop for TellDropped {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl FakeLedger {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn trouble(&self, trouble: Trouble) {
        self.state().trouble = trouble;
    }

    pub(super) fn not_ready(&self) {
        self.state().not_ready = true;
    }

    /// Opens accounts 0 (no limit), 1 and 2 in USD.
    pub(super) fn open_three(&self) {
        let usd = CURRENCIES[0].code;
        let account = |id, min_balance| NewAccount {
            id: AccountId::new(id).unwrap(),
            currency: usd,
            min_balance,
            name: None,
            owner: None,
        };
        let zero = MinBalance::AtLeast(rust_decimal::Decimal::ZERO);
        let accounts = [
            account(0, MinBalance::Unlimited),
            account(1, zero),
            account(2, zero),
        ];
        self.state().open(accounts.to_vec());
    }

    pub(super) fn transfers_made(&self) -> usize {
        self.state().records.len()
    }

    async fn commanded(&self) -> Result<(), Refused> {
        let trouble = self.state().trouble;
        match trouble {
            Trouble::None | Trouble::ReadsFail => Ok(()),
            Trouble::Refused(refused) => Err(refused),
            Trouble::NotDurable => Err(Refused::OutcomeUnknown),
            Trouble::Hangs => self.hang().await,
        }
    }

    async fn asked(&self) -> Result<(), ReadError> {
        let trouble = self.state().trouble;
        match trouble {
            Trouble::None => Ok(()),
            Trouble::Refused(Refused::QueueFull | Refused::Draining) => {
                Err(ReadError::PoolExhausted {
                    waited: std::time::Duration::ZERO,
                })
            }
            Trouble::Refused(Refused::DeadlineExceeded) => {
                Err(ReadError::Timeout(TimeoutAt::Operation))
            }
            Trouble::Refused(Refused::DatabaseUnavailable | Refused::OutcomeUnknown)
            | Trouble::ReadsFail => Err(ReadError::Unavailable { source: None }),
            Trouble::NotDurable => Err(ReadError::NotDurable),
            Trouble::Hangs => self.hang().await,
        }
    }

    async fn hang<T>(&self) -> T {
        let _tell = TellDropped(Arc::clone(&self.dropped));
        self.hanging.notify_one();
        std::future::pending().await
    }
}

impl State {
    fn fold(
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
            let request = &requests[row.request_index];
            let side = |direction, account_id, balance, version| Side {
                direction,
                account_id,
                balance,
                version,
            };
            self.known.reversed.extend(row.reverses);
            self.records.push(Record::Completed(TransferRow {
                id: row.id,
                debit: side(
                    Direction::Debit,
                    row.debit_account_id,
                    row.debit_balance,
                    row.debit_version,
                ),
                credit: side(
                    Direction::Credit,
                    row.credit_account_id,
                    row.credit_balance,
                    row.credit_version,
                ),
                amount: AmountMinor::new(row.amount_minor).unwrap(),
                currency: row.currency,
                commit_id: CommitId(1),
                position: 0,
                effective_at_ms: None,
                group_id: row.group_id,
                reverses: row.reverses,
                details: request.details.as_deref().cloned().unwrap_or_default(),
            }));
        }
        for row in &fold.rejections {
            let request = &requests[row.request_index];
            self.records.push(Record::Rejected(RejectionRow {
                id: row.id,
                debit_account_id: request.debit_account_id,
                credit_account_id: request.credit_account_id,
                amount: DecimalAmount::from_decimal(row.amount).unwrap(),
                reason: row.reason,
                account_id: row.account_id,
                commit_id: CommitId(1),
                reverses: request.reverses,
                details: request.details.as_deref().cloned().unwrap_or_default(),
            }));
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

    fn row(&self, id: AccountId) -> Option<AccountRow> {
        let row = self.accounts.iter().find(|row| row.account.id == id)?;
        let account = self.known.accounts[&id];
        Some(AccountRow {
            account,
            ..row.clone()
        })
    }

    fn open(&mut self, accounts: Vec<NewAccount>) -> Opened {
        let mut rows = Vec::new();
        let mut created = false;
        for new in &accounts {
            let currency = CURRENCIES
                .into_iter()
                .find(|known| known.code == new.currency);
            let Some(currency) = currency else {
                return Opened::UnknownCurrency {
                    account_id: new.id,
                    currency: new.currency,
                };
            };
            let min_balance = match new.min_balance.to_minor(currency) {
                Ok(minor) => minor,
                Err(reason) => {
                    return Opened::InvalidMinBalance {
                        account_id: new.id,
                        reason,
                    };
                }
            };
            if min_balance.is_some_and(|limit| 0 < limit) {
                return Opened::MinBalanceAboveZero(new.id);
            }
            let old = self.row(new.id);
            created |= old.is_none();
            let differs = |old: &AccountRow| {
                old.account.currency != currency
                    || old.account.min_balance != min_balance
                    || (&old.name, &old.owner) != (&new.name, &new.owner)
            };
            if old.as_ref().is_some_and(differs) {
                return Opened::Conflict(new.id);
            }
            rows.push(old.unwrap_or_else(|| AccountRow {
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
            }));
        }
        for row in &rows {
            if self
                .known
                .accounts
                .insert(row.account.id, row.account)
                .is_none()
            {
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

    fn history(&self, query: &HistoryQuery) -> HistoryPage {
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

impl Ledger for FakeLedger {
    async fn transfer(&self, request: TransferRequest, _: Instant) -> Result<Outcome, Refused> {
        self.commanded().await?;
        Ok(self.state().fold(&[request], false).unwrap()[0])
    }

    async fn transfers(
        &self,
        requests: Vec<TransferRequest>,
        _: Instant,
    ) -> Result<Vec<Result<Outcome, Refused>>, Refused> {
        // In doubt only after admission, so each transfer says so by itself.
        if self.state().trouble == Trouble::NotDurable {
            return Ok(requests
                .iter()
                .map(|_| Err(Refused::OutcomeUnknown))
                .collect());
        }
        self.commanded().await?;
        let outcomes = self.state().fold(&requests, false).unwrap();
        Ok(outcomes.into_iter().map(Ok).collect())
    }

    async fn group(
        &self,
        requests: Vec<TransferRequest>,
        _: Instant,
    ) -> Result<Result<Vec<Outcome>, GroupFailure>, Refused> {
        self.commanded().await?;
        Ok(self.state().fold(&requests, true))
    }

    async fn change_account(
        &self,
        change: AccountChange,
        _: Instant,
    ) -> Result<ChangeOutcome, Refused> {
        self.commanded().await?;
        let mut state = self.state();
        let state = &mut *state;
        let mut fold = Fold::new(state.known.clone(), &mut state.ids, NOW_MS);
        let outcome = fold.change(&change);
        state.known.accounts = fold.accounts().clone();
        let id = change.account_id;
        if let (ChangeOutcome::Changed, Some(name)) = (outcome, change.name) {
            let row = state.accounts.iter_mut().find(|row| row.account.id == id);
            row.unwrap().name = name;
        }
        Ok(outcome)
    }

    async fn open_accounts(&self, accounts: Vec<NewAccount>) -> Result<Opened, OpenError> {
        self.asked().await.map_err(|error| match error {
            ReadError::NotDurable => OpenError::OutcomeUnknown(error),
            other => OpenError::NotOpened(other),
        })?;
        Ok(self.state().open(accounts))
    }

    async fn balance(
        &self,
        id: AccountId,
        freshness: Freshness,
    ) -> Result<Option<BalanceAnswer>, ReadError> {
        self.asked().await?;
        let mut state = self.state();
        let cached = freshness == Freshness::Cached && state.cached.contains(&id);
        if freshness == Freshness::Cached {
            state.cached.push(id);
        }
        let account = state.known.accounts.get(&id);
        Ok(account.map(|account| BalanceAnswer {
            balance: Balance {
                account_id: id,
                balance: account.balance,
                version: account.version,
                currency: account.currency,
            },
            cached,
        }))
    }

    async fn account(&self, id: AccountId) -> Result<Option<AccountRow>, ReadError> {
        self.asked().await?;
        Ok(self.state().row(id))
    }

    async fn accounts(
        &self,
        after: Option<AccountId>,
        limit: PageLimit,
    ) -> Result<Vec<AccountRow>, ReadError> {
        self.asked().await?;
        let state = self.state();
        let ids = state.accounts.iter().map(|row| row.account.id);
        let page = ids.filter(|id| after.is_none_or(|after| after < *id));
        let page = page.take(usize::from(limit.get()));
        Ok(page.filter_map(|id| state.row(id)).collect())
    }

    async fn transaction(&self, id: TransferId) -> Result<Option<Record>, ReadError> {
        self.asked().await?;
        let state = self.state();
        Ok(state
            .records
            .iter()
            .find(|record| record.id() == id)
            .cloned())
    }

    async fn history(&self, query: HistoryQuery) -> Result<HistoryPage, HistoryError> {
        self.asked().await?;
        let state = self.state();
        if let Some(id) = query.account
            && !state.known.accounts.contains_key(&id)
        {
            return Err(HistoryError::AccountNotFound(id));
        }
        let cursor_exists = |cursor| state.records.iter().any(|record| record.id() == cursor);
        if query.cursor.is_some_and(|cursor| !cursor_exists(cursor)) {
            return Err(HistoryError::InvalidCursor);
        }
        Ok(state.history(&query))
    }

    async fn fate(&self, key_hash: Uuid) -> Result<Option<Fate>, ReadError> {
        self.asked().await?;
        let state = self.state();
        Ok(state.known.keys.get(&key_hash).and_then(|known| {
            let txn_id = match known.outcome {
                Outcome::Completed { receipt, .. } => receipt.id,
                Outcome::Rejected { rejection, .. } => rejection.id?,
                Outcome::KeyReused
                | Outcome::AccountNotFound(_)
                | Outcome::InvalidAmount(_)
                | Outcome::KeyExpired => return None,
            };
            Some(Fate {
                fingerprint: known.fingerprint,
                txn_id,
                record: state
                    .records
                    .iter()
                    .find(|record| record.id() == txn_id)
                    .cloned(),
            })
        }))
    }

    fn is_ready(&self) -> bool {
        !self.state().not_ready
    }
}

/// A request as observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) request_id: String,
    pub(super) route: Option<Route>,
    pub(super) status: u16,
    pub(super) code: Option<ErrorCode>,
    pub(super) has_txn_id: bool,
    pub(super) replayed: bool,
}

/// Remembers what it is told.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    seen: Arc<Mutex<Vec<Seen>>>,
    transfers: Arc<Mutex<Vec<(usize, Option<ErrorCode>)>>>,
    pub(super) news: Arc<Notify>,
}

impl Watch {
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) fn transfers(&self) -> Vec<(usize, Option<ErrorCode>)> {
        self.transfers.lock().unwrap().clone()
    }
}

impl Observer for Watch {
    fn finished(&self, facts: &RequestFacts<'_>) {
        assert!(facts.client.is_loopback());
        self.seen.lock().unwrap().push(Seen {
            request_id: facts.request_id.to_owned(),
            route: facts.route,
            status: facts.status.as_u16(),
            code: facts.code,
            has_txn_id: facts.txn_id.is_some(),
            replayed: facts.replayed,
        });
        self.news.notify_one();
    }

    fn transfer_finished(&self, facts: &TransferFacts<'_>) {
        self.transfers
            .lock()
            .unwrap()
            .push((facts.index, facts.code));
    }
}
