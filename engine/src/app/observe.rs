//! What happens, told to metrics, logs, readiness and the cache.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::admin::{Database, Readiness, Writes};
use crate::batch::BatchObserver;
use crate::batch::retry::Cause;
use crate::cache::Balances;
use crate::domain::{Account, Balance, DatabaseIdentity};
use crate::http;
use crate::lock_queue;
use crate::store::read::Reader;
use crate::telemetry::Observer;
use crate::telemetry::access_log::RequestId;
use crate::telemetry::label::{
    CloseReason, CommitPhase, CommitResult, CommitRetryCause, Method, Resolved, Route,
};
use crate::telemetry::metrics::{self, Metrics};
use crate::telemetry::{RequestFacts, TransferFacts, TransferStatus};

/// Which history the database has, and who must know when it has another.
///
/// Told by whoever reconnects first: a committer, or the probe that asks for
/// the readers, whose sessions follow a promoted standby while the committers
/// have nothing to commit and still hold a dead link.
#[derive(Debug)]
pub(super) struct History {
    balances: Balances,
    reader: Reader,
    /// The history last connected to, to notice a change.
    known: Mutex<Option<DatabaseIdentity>>,
}

impl History {
    pub(super) fn new(balances: Balances, reader: Reader) -> Self {
        Self {
            balances,
            reader,
            known: Mutex::new(None),
        }
    }

    /// A session said that the database has this history.
    pub(super) fn is(&self, identity: DatabaseIdentity) {
        // Held to the end, so that two who differ are heard one after the other.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_some_and(|known| known != identity) {
            // Sessions of another history must not answer reads any more,
            // nor fill the cache under the new one's keys.
            tracing::warn!(?identity, "the database has another history now");
            self.reader.forget_sessions();
        }
        *known = Some(identity);
        self.balances.identity_changed(identity);
    }
}

/// Listens to the committers.
#[derive(Debug)]
pub(super) struct Batches {
    metrics: &'static Metrics,
    balances: Balances,
    readiness: Arc<Readiness>,
    history: Arc<History>,
}

impl Batches {
    pub(super) const fn new(
        metrics: &'static Metrics,
        balances: Balances,
        readiness: Arc<Readiness>,
        history: Arc<History>,
    ) -> Self {
        Self {
            metrics,
            balances,
            readiness,
            history,
        }
    }
}

impl BatchObserver for Batches {
    fn taken(
        &self,
        reason: lock_queue::CloseReason,
        transfers: usize,
        accounts: usize,
        waited: &mut dyn Iterator<Item = Duration>,
    ) {
        let reason = match reason {
            lock_queue::CloseReason::Idle => CloseReason::Idle,
            lock_queue::CloseReason::TransfersFull => CloseReason::TransfersFull,
            lock_queue::CloseReason::AccountsFull => CloseReason::AccountsFull,
        };
        self.metrics.batch.closed.get(reason).increment(1);
        self.metrics
            .batch
            .transfers
            .record(metrics::number(transfers));
        self.metrics
            .batch
            .accounts
            .record(metrics::number(accounts));
        for waited in waited {
            self.metrics.admission.queue_wait.record(waited);
        }
    }

    fn committed(&self, identity: DatabaseIdentity, as_of_unix_ms: u64, accounts: &[Account]) {
        let balances = accounts.iter().map(|account| Balance {
            account_id: account.id,
            balance: account.balance,
            version: account.version,
            currency: account.currency,
        });
        self.balances.committed(identity, as_of_unix_ms, balances);
    }

    fn timed(&self, lock: Duration, fold: Duration, write: Duration, round_trips: u32) {
        let duration = &self.metrics.commit.duration;
        duration.get(CommitPhase::Lock).record(lock);
        duration.get(CommitPhase::Fold).record(fold);
        duration.get(CommitPhase::Write).record(write);
        duration.get(CommitPhase::Total).record(lock + fold + write);
        self.metrics
            .commit
            .round_trips
            .record(f64::from(round_trips));
        self.metrics
            .commit
            .attempts
            .get(CommitResult::Committed)
            .increment(1);
    }

    fn failed(&self, cause: Cause, unknown: bool) {
        let result = if unknown {
            CommitResult::Unknown
        } else {
            CommitResult::RolledBack
        };
        self.metrics.commit.attempts.get(result).increment(1);
        let cause = match cause {
            Cause::SerializationFailure => CommitRetryCause::SerializationFailure,
            Cause::Deadlock => CommitRetryCause::Deadlock,
            Cause::LockTimeout => CommitRetryCause::LockTimeout,
            Cause::KeyConflict => CommitRetryCause::KeyConflict,
            Cause::Timeout => CommitRetryCause::Timeout,
            Cause::Shutdown => CommitRetryCause::Shutdown,
            Cause::ReadOnly => CommitRetryCause::ReadOnly,
            Cause::Resources => CommitRetryCause::Resources,
            Cause::ConnectionLost => CommitRetryCause::ConnectionLost,
            Cause::PeriodsMoved => CommitRetryCause::PeriodsMoved,
            Cause::CommitRolledBack => CommitRetryCause::CommitRolledBack,
            Cause::CommitWarning => CommitRetryCause::CommitWarning,
            Cause::DataError => CommitRetryCause::DataError,
            Cause::Other => CommitRetryCause::Other,
        };
        self.metrics.commit.retries.get(cause).increment(1);
    }

    fn bisected(&self) {
        self.metrics.batch.bisected.increment(1);
    }

    fn looked_up(&self, found: bool) {
        let resolved = if found {
            Resolved::Found
        } else {
            Resolved::Absent
        };
        self.metrics.commit.resolved.get(resolved).increment(1);
    }

    fn connected(&self, identity: DatabaseIdentity) {
        self.history.is(identity);
        self.readiness.set_database(Database::Up);
        self.readiness.set_writes(Writes::Accepted);
    }

    fn disconnected(&self, why: &str) {
        tracing::warn!(why, "a committer has no session");
    }
}

/// Listens to the HTTP edge.
#[derive(Debug)]
pub(super) struct Requests {
    metrics: &'static Metrics,
    observer: Arc<Observer>,
}

impl Requests {
    pub(super) const fn new(metrics: &'static Metrics, observer: Arc<Observer>) -> Self {
        Self { metrics, observer }
    }
}

impl http::Observer for Requests {
    fn finished(&self, facts: &http::RequestFacts<'_>) {
        let (route, method) = labels(facts.route);
        self.observer.finished(&RequestFacts {
            request_id: RequestId::new(facts.request_id),
            client: facts.client,
            route,
            method,
            status: facts.status.as_u16(),
            code: facts.code.map(http::ErrorCode::as_str),
            txn_id: facts.txn_id,
            duration: facts.duration,
            replayed: facts.replayed,
        });
    }

    fn wants_transfers(&self) -> bool {
        self.observer.logs_transfers()
    }

    fn transfer_finished(&self, facts: &http::TransferFacts<'_>) {
        self.observer.transfer(&TransferFacts {
            request_id: RequestId::new(facts.request_id),
            index: u32::try_from(facts.index).unwrap_or(u32::MAX),
            status: match facts.status {
                http::TransferStatus::Completed => TransferStatus::Completed,
                http::TransferStatus::Rejected => TransferStatus::Rejected,
                http::TransferStatus::Failed => TransferStatus::Failed,
            },
            code: facts.code.map(http::ErrorCode::as_str),
            txn_id: facts.txn_id,
            replayed: facts.replayed,
        });
    }

    fn accept_failed(&self) {
        self.metrics.requests.accept_failures.increment(1);
    }

    fn connection_refused(&self) {
        self.metrics.requests.connections_refused.increment(1);
    }

    fn connections(&self, open: usize) {
        self.metrics.requests.connections.set(metrics::number(open));
    }
}

const fn labels(route: Option<http::Route>) -> (Route, Method) {
    match route {
        Some(http::Route::Transfer) => (Route::Transaction, Method::Post),
        Some(http::Route::Transfers) => (Route::TransactionsBatch, Method::Post),
        Some(http::Route::History) => (Route::TransactionsList, Method::Get),
        Some(http::Route::Transaction) => (Route::TransactionGet, Method::Get),
        Some(http::Route::Reversal) => (Route::Reversal, Method::Post),
        Some(http::Route::Balance) => (Route::Balance, Method::Get),
        Some(http::Route::OpenAccounts) => (Route::AccountsOpen, Method::Post),
        Some(http::Route::Accounts) => (Route::AccountsList, Method::Get),
        Some(http::Route::Account) => (Route::AccountGet, Method::Get),
        Some(http::Route::ChangeAccount) => (Route::AccountPatch, Method::Patch),
        Some(http::Route::Health) => (Route::Health, Method::Get),
        Some(http::Route::OpenApi) => (Route::OpenApi, Method::Get),
        Some(http::Route::Docs) => (Route::Docs, Method::Get),
        None => (Route::NotFound, Method::Other),
    }
}
