//! What the HTTP edge asks, answered by the rooms.

use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use crate::admin::{Readiness, Verdict};
use crate::admission::{Admission, Refused};
use crate::cache::{BalanceSource, Balances, ReadMode};
use crate::domain::fold::{ChangeOutcome, GroupFailure};
use crate::domain::{AccountChange, AccountId, Balance, Outcome, TransferId, TransferRequest};
use crate::http::{BalanceAnswer, Freshness, Ledger};
use crate::store::read::{
    AccountRow, Fate, HistoryError, HistoryPage, HistoryQuery, NewAccount, OpenError, Opened,
    PageLimit, ReadError, Reader, Record,
};
use crate::telemetry::label::{Failure, Refusal};
use crate::telemetry::metrics;

/// The engine behind the edge.
#[derive(Debug)]
pub(super) struct EngineLedger {
    admission: Admission,
    balances: Balances,
    source: Source,
    readiness: Arc<Readiness>,
}

/// PostgreSQL as the cache's source of truth.
#[derive(Clone, Debug)]
struct Source(Reader);

impl BalanceSource for Source {
    type Error = ReadError;

    async fn balance(&self, account_id: AccountId) -> Result<Option<Balance>, ReadError> {
        self.0.balance(account_id).await
    }
}

impl EngineLedger {
    pub(super) fn new(
        admission: Admission,
        balances: Balances,
        reader: Reader,
        readiness: Arc<Readiness>,
    ) -> Self {
        Self {
            admission,
            balances,
            source: Source(reader),
            readiness,
        }
    }
}

/// Counts one transfer's end.
fn count(outcome: &Result<Outcome, Refused>) {
    let transfers = &metrics::get().transfers;
    match outcome {
        Ok(outcome) => transfers.decided(outcome),
        Err(refused) => count_refused(*refused, 1),
    }
}

fn count_refused(refused: Refused, transfers: usize) {
    let counters = &metrics::get().transfers;
    let count = u64::try_from(transfers).unwrap_or(u64::MAX);
    let refusal = match refused {
        Refused::OutcomeUnknown => {
            counters
                .failed
                .get(Failure::OutcomeUnknown)
                .increment(count);
            return;
        }
        Refused::Unstorable => {
            counters.failed.get(Failure::DataError).increment(count);
            return;
        }
        Refused::QueueFull => Refusal::QueueFull,
        Refused::DatabaseUnavailable => Refusal::DatabaseUnavailable,
        Refused::DeadlineExceeded => Refusal::DeadlineExceeded,
        Refused::Draining => Refusal::Draining,
    };
    counters.refused.get(refusal).increment(count);
}

impl Ledger for EngineLedger {
    async fn transfer(
        &self,
        request: TransferRequest,
        deadline: Instant,
    ) -> Result<Outcome, Refused> {
        let outcome = self.admission.transfer(request, deadline).await;
        count(&outcome);
        outcome
    }

    async fn transfers(
        &self,
        requests: Vec<TransferRequest>,
        deadline: Instant,
    ) -> Result<Vec<Result<Outcome, Refused>>, Refused> {
        let transfers = requests.len();
        let outcomes = self.admission.transfers(requests, deadline).await;
        match &outcomes {
            Ok(outcomes) => outcomes.iter().for_each(count),
            Err(refused) => count_refused(*refused, transfers),
        }
        outcomes
    }

    async fn group(
        &self,
        requests: Vec<TransferRequest>,
        deadline: Instant,
    ) -> Result<Result<Vec<Outcome>, GroupFailure>, Refused> {
        let transfers = requests.len();
        let outcomes = self.admission.group(requests, deadline).await;
        let counters = &metrics::get().transfers;
        match &outcomes {
            Ok(Ok(outcomes)) => outcomes
                .iter()
                .for_each(|outcome| counters.decided(outcome)),
            Ok(Err(_)) => {
                let count = u64::try_from(transfers).unwrap_or(u64::MAX);
                counters.refused.get(Refusal::GroupAborted).increment(count);
            }
            Err(refused) => count_refused(*refused, transfers),
        }
        outcomes
    }

    async fn change_account(
        &self,
        change: AccountChange,
        deadline: Instant,
    ) -> Result<ChangeOutcome, Refused> {
        self.admission.change_account(change, deadline).await
    }

    fn has_room(&self, transfers: usize) -> bool {
        self.admission.probe(transfers).is_ok()
    }

    fn admits(&self, transfers: usize) -> Result<(), Refused> {
        let admits = self.admission.probe(transfers);
        if let Err(refused) = admits {
            count_refused(refused, transfers);
        }
        admits
    }

    async fn open_accounts(&self, accounts: Vec<NewAccount>) -> Result<Opened, OpenError> {
        self.source.0.open_accounts(&accounts).await
    }

    async fn balance(
        &self,
        account_id: AccountId,
        freshness: Freshness,
    ) -> Result<Option<BalanceAnswer>, ReadError> {
        let mode = match freshness {
            Freshness::Cached => ReadMode::Cached,
            Freshness::Consistent => ReadMode::Consistent,
        };
        let answer = self.balances.get(&self.source, account_id, mode).await?;
        Ok(answer.map(|answer| BalanceAnswer {
            balance: answer.balance,
            cached: answer.cached,
        }))
    }

    async fn account(&self, account_id: AccountId) -> Result<Option<AccountRow>, ReadError> {
        self.source.0.account(account_id).await
    }

    async fn accounts(
        &self,
        after: Option<AccountId>,
        limit: PageLimit,
    ) -> Result<Vec<AccountRow>, ReadError> {
        self.source.0.accounts(after, limit).await
    }

    async fn transaction(&self, id: TransferId) -> Result<Option<Record>, ReadError> {
        self.source.0.transfer(id).await
    }

    async fn history(&self, query: HistoryQuery) -> Result<HistoryPage, HistoryError> {
        self.source.0.history(&query).await
    }

    async fn fate(&self, key_hash: Uuid) -> Result<Option<Fate>, ReadError> {
        self.source.0.fate(key_hash).await
    }

    fn is_ready(&self) -> bool {
        self.readiness.verdict() == Verdict::Ready
    }
}
