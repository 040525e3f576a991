//! What the HTTP edge asks of the rest of the engine, as two traits.
//!
//! Owns: the questions and their answers' types, so that this room can be built
//! and tested against a ledger in memory. `app` plugs in the real one.
//! Never: knows how an answer comes about.

use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use uuid::Uuid;

use super::code::ErrorCode;
use super::route::Route;
use crate::admission::Refused;
use crate::domain::fold::{ChangeOutcome, GroupFailure};
use crate::domain::{AccountChange, AccountId, Outcome, TransferId, TransferRequest};
use crate::store::read::{
    AccountRow, Balance, Fate, HistoryError, HistoryPage, HistoryQuery, NewAccount, OpenError,
    Opened, PageLimit, ReadError, Record,
};

/// The engine behind the edge. Every future may be dropped at any await: the
/// client is gone, and nothing may leak by it.
pub trait Ledger: Send + Sync + 'static {
    /// Moves money once. Answers by `deadline` plus one second at the latest.
    fn transfer(
        &self,
        request: TransferRequest,
        deadline: Instant,
    ) -> impl Future<Output = Result<Outcome, Refused>> + Send;

    /// Moves money many times, each on its own; admits all or none (the outer
    /// error: nothing was admitted).
    fn transfers(
        &self,
        requests: Vec<TransferRequest>,
        deadline: Instant,
    ) -> impl Future<Output = Result<Vec<Result<Outcome, Refused>>, Refused>> + Send;

    /// Moves money many times, all or nothing.
    fn group(
        &self,
        requests: Vec<TransferRequest>,
        deadline: Instant,
    ) -> impl Future<Output = Result<Result<Vec<Outcome>, GroupFailure>, Refused>> + Send;

    /// Changes an account's terms.
    fn change_account(
        &self,
        change: AccountChange,
        deadline: Instant,
    ) -> impl Future<Output = Result<ChangeOutcome, Refused>> + Send;

    /// Whether so many transfers would be let in now. Only a look: nothing is
    /// refused by it, nor counted.
    fn has_room(&self, transfers: usize) -> bool;

    /// Whether so many transfers would be let in now: asked before a body is
    /// parsed, so that a saturated engine spends little on what it refuses.
    ///
    /// # Errors
    /// As the call itself would be refused.
    fn admits(&self, transfers: usize) -> Result<(), Refused>;

    /// Opens accounts, all or none. A repeat that agrees changes nothing.
    fn open_accounts(
        &self,
        accounts: Vec<NewAccount>,
    ) -> impl Future<Output = Result<Opened, OpenError>> + Send;

    /// A balance, or `None` without such an account.
    fn balance(
        &self,
        account_id: AccountId,
        freshness: Freshness,
    ) -> impl Future<Output = Result<Option<BalanceAnswer>, ReadError>> + Send;

    /// An account.
    fn account(
        &self,
        account_id: AccountId,
    ) -> impl Future<Output = Result<Option<AccountRow>, ReadError>> + Send;

    /// Accounts in ascending order of id, after the one given; fewer than
    /// `limit` are the last.
    fn accounts(
        &self,
        after: Option<AccountId>,
        limit: PageLimit,
    ) -> impl Future<Output = Result<Vec<AccountRow>, ReadError>> + Send;

    /// What that id names.
    fn transaction(
        &self,
        id: TransferId,
    ) -> impl Future<Output = Result<Option<Record>, ReadError>> + Send;

    /// Transfers or kept rejections, newest first.
    fn history(
        &self,
        query: HistoryQuery,
    ) -> impl Future<Output = Result<HistoryPage, HistoryError>> + Send;

    /// What a key led to, without executing anything. Durable before it is
    /// answered.
    fn fate(&self, key_hash: Uuid) -> impl Future<Output = Result<Option<Fate>, ReadError>> + Send;

    /// The verdict of `/readyz`.
    fn is_ready(&self) -> bool;
}

/// Whether a balance may come from the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// The cache may answer, and is filled.
    Cached,
    /// PostgreSQL answers; the cache is neither read nor filled.
    Consistent,
}

/// A balance as answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BalanceAnswer {
    /// As stored.
    pub balance: Balance,
    /// Whether the cache answered.
    pub cached: bool,
}

/// Who is told of what happened here. Called on the request path: it must only
/// count, or hand over to a bounded queue.
pub trait Observer: Send + Sync + 'static {
    /// A request was answered, or its client went away first.
    fn finished(&self, facts: &RequestFacts<'_>);

    /// Whether to be told of the transfers of a batch call one by one: it spares
    /// the walk over thousands of results.
    fn wants_transfers(&self) -> bool {
        false
    }

    /// One transfer of a batch call has its outcome.
    fn transfer_finished(&self, facts: &TransferFacts<'_>) {
        let _: &TransferFacts<'_> = facts;
    }

    /// The operating system gave no connection, such as for want of files.
    fn accept_failed(&self) {}

    /// A connection was closed because as many as may be were open.
    fn connection_refused(&self) {}

    /// Open connections changed.
    fn connections(&self, open: usize) {
        let _: usize = open;
    }
}

/// For tests and for serving without telemetry.
impl Observer for () {
    fn finished(&self, _: &RequestFacts<'_>) {}
}

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// As echoed; visible ASCII.
    pub request_id: &'a str,
    /// Its address.
    pub client: SocketAddr,
    /// As sent.
    pub method: &'a Method,
    /// None if there is no such route.
    pub route: Option<Route>,
    /// 499 if the client went away before the answer.
    pub status: StatusCode,
    /// Of a problem document.
    pub code: Option<ErrorCode>,
    /// Of a single transfer or its kept rejection.
    pub txn_id: Option<TransferId>,
    /// From the head of the request to its answer.
    pub duration: Duration,
    /// Answered from an earlier request with the same key.
    pub replayed: bool,
}

/// The `status` of one result of a batch call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferStatus {
    /// Money moved.
    Completed,
    /// Refused.
    Rejected,
    /// It got no outcome.
    Failed,
}

impl TransferStatus {
    /// As on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
        }
    }
}

/// How one transfer of a batch call ended.
#[derive(Clone, Copy, Debug)]
pub struct TransferFacts<'a> {
    /// As echoed; visible ASCII.
    pub request_id: &'a str,
    /// Place in the call, from 0.
    pub index: usize,
    /// As in the answer.
    pub status: TransferStatus,
    /// None: completed.
    pub code: Option<ErrorCode>,
    /// Of the transfer or its kept rejection.
    pub txn_id: Option<TransferId>,
    /// Answered from an earlier request with the same key.
    pub replayed: bool,
}
