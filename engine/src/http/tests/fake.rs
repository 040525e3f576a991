//! A ledger in memory: the real fold over maps, and switches for trouble.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use tokio::sync::Notify;
use uuid::Uuid;

use super::state::{State, USD};
use crate::admission::Refused;
use crate::domain::account::MinBalance;
use crate::domain::fold::{ChangeOutcome, Fold, GroupFailure};
use crate::domain::{AccountChange, AccountId, Outcome, TransferId, TransferRequest};
use crate::http::{BalanceAnswer, Freshness, Ledger};
use crate::store::read::{
    AccountRow, Balance, Fate, HistoryError, HistoryPage, HistoryQuery, NewAccount, OpenError,
    Opened, PageLimit, ReadError, Record, TimeoutAt,
};

/// What the next calls meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Trouble {
    #[default]
    None,
    /// Commands are refused, reads fail as they would for that reason.
    Refused(Refused),
    /// Opening accounts ends in doubt, and so does all else.
    NotDurable,
    /// The database refuses what each transfer holds.
    Unstorable,
    /// A change is applied, but its account cannot be read back.
    ReadsFail,
    /// No call returns.
    Hangs,
}

/// Cheap to clone; all clones are one ledger.
#[derive(Clone, Debug, Default)]
pub(super) struct FakeLedger {
    state: Arc<Mutex<State>>,
    /// Told when a call begins to hang, and when one is dropped.
    pub(super) hanging: Arc<Notify>,
    pub(super) dropped: Arc<Notify>,
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
        let usd = USD.code;
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
            Trouble::Unstorable => Err(Refused::Unstorable),
            Trouble::Hangs => self.hang().await,
        }
    }

    async fn asked(&self) -> Result<(), ReadError> {
        let trouble = self.state().trouble;
        match trouble {
            Trouble::None | Trouble::Unstorable => Ok(()),
            Trouble::Refused(Refused::QueueFull | Refused::Draining) => {
                Err(ReadError::PoolExhausted {
                    waited: std::time::Duration::ZERO,
                })
            }
            Trouble::Refused(Refused::DeadlineExceeded) => {
                Err(ReadError::Timeout(TimeoutAt::Operation))
            }
            Trouble::Refused(
                Refused::DatabaseUnavailable | Refused::OutcomeUnknown | Refused::Unstorable,
            )
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

impl Ledger for FakeLedger {
    fn has_room(&self, _: usize) -> bool {
        true
    }

    fn admits(&self, _: usize) -> Result<(), Refused> {
        Ok(())
    }

    async fn transfer(&self, request: TransferRequest, _: Instant) -> Result<Outcome, Refused> {
        self.commanded().await?;
        Ok(self.state().fold(&[request], false).unwrap()[0])
    }

    async fn transfers(
        &self,
        requests: Vec<TransferRequest>,
        _: Instant,
    ) -> Result<Vec<Result<Outcome, Refused>>, Refused> {
        // Known only after admission, so each transfer says so by itself.
        let trouble = self.state().trouble;
        if let (Trouble::NotDurable | Trouble::Unstorable, Err(refused)) =
            (trouble, self.commanded().await)
        {
            return Ok(vec![Err(refused); requests.len()]);
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
        let mut fold = Fold::new(state.known.clone(), &mut state.ids, super::state::NOW_MS);
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
        if self.state().trouble == Trouble::NotDurable {
            return Err(OpenError::OutcomeUnknown(ReadError::NotDurable));
        }
        self.asked().await?;
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
