//! The closed sets of words that metrics are labelled with.
//!
//! Owns: every label value, and [`By`], which indexes a metric by them.
//! Never: takes a label from a request; a client must not be able to make series.
//! Bound: the number of series is fixed when the program is compiled.
//! Invariant: `ALL[index(label)] == label`.

use std::marker::PhantomData;

use crate::domain::RejectReason;

/// A closed set of label values.
pub trait Label: Copy + 'static {
    /// Every value, in index order.
    const ALL: &'static [Self];

    /// The position in [`Label::ALL`].
    fn index(self) -> usize;

    /// The word on the metrics page and in the access log.
    fn as_str(self) -> &'static str;
}

/// One metric per label value: a look-up is an array access, so recording
/// neither hashes nor allocates.
#[derive(Debug)]
pub struct By<L, T> {
    items: Box<[T]>,
    label: PhantomData<fn(L)>,
}

impl<L: Label, T> By<L, T> {
    pub(super) fn new(make: impl FnMut(L) -> T) -> Self {
        Self {
            items: L::ALL.iter().copied().map(make).collect(),
            label: PhantomData,
        }
    }

    /// The metric of that label value.
    pub fn get(&self, label: L) -> &T {
        &self.items[label.index()]
    }
}

macro_rules! labels {
    ($($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident => $word:literal,)+ })+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            #[expect(clippy::as_conversions, reason = "the discriminant of a fieldless enum is its position")]
            fn index(self) -> usize {
                self as usize
            }

            fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    )+};
}

labels! {
    /// What was called; never the path as sent, which a client chooses.
    Route {
        /// `POST /transaction` and its alias.
        Transaction => "transaction",
        /// `POST /transactions`.
        TransactionsBatch => "transactions_batch",
        /// `GET /transactions`.
        TransactionsList => "transactions_list",
        /// `GET /transactions/{txn_id}`.
        TransactionGet => "transaction_get",
        /// `POST /transactions/{id}/reversal`.
        Reversal => "reversal",
        /// `GET /balance/{account_id}`.
        Balance => "balance",
        /// `POST /accounts`.
        AccountsOpen => "accounts_open",
        /// `GET /accounts/{id}`.
        AccountGet => "account_get",
        /// `GET /accounts`.
        AccountsList => "accounts_list",
        /// `PATCH /accounts/{id}`.
        AccountPatch => "account_patch",
        /// `GET /health`.
        Health => "health",
        /// `GET /openapi.json`.
        OpenApi => "openapi",
        /// `GET /docs`.
        Docs => "docs",
        /// Anything else, and requests that could not be read.
        NotFound => "not_found",
    }

    /// The method of a request.
    Method {
        /// `GET`.
        Get => "GET",
        /// `HEAD`.
        Head => "HEAD",
        /// `POST`.
        Post => "POST",
        /// `PATCH`.
        Patch => "PATCH",
        /// `PUT`.
        Put => "PUT",
        /// `DELETE`.
        Delete => "DELETE",
        /// `OPTIONS`.
        Options => "OPTIONS",
        /// A method of the client's own invention is not written down.
        Other => "OTHER",
    }

    /// The status codes the contract knows.
    Status {
        /// OK.
        S200 => "200",
        /// Created.
        S201 => "201",
        /// Bad request.
        S400 => "400",
        /// Unauthorized.
        S401 => "401",
        /// Forbidden.
        S403 => "403",
        /// Not found.
        S404 => "404",
        /// Method not allowed.
        S405 => "405",
        /// Request timeout: the client stopped half way.
        S408 => "408",
        /// Conflict.
        S409 => "409",
        /// Body too large.
        S413 => "413",
        /// Unsupported media type.
        S415 => "415",
        /// Business refusal.
        S422 => "422",
        /// Rate limited.
        S429 => "429",
        /// Headers too large.
        S431 => "431",
        /// A fault of ours.
        S500 => "500",
        /// Not now.
        S503 => "503",
        /// Outcome unknown.
        S504 => "504",
        /// A status that the contract does not know.
        Other => "other",
    }

    /// The classes that durations are kept by: exact codes would multiply the
    /// page by six and are already counted in `engine_requests_total`.
    StatusClass {
        /// 200 to 299.
        Success => "2xx",
        /// 400 to 499.
        ClientError => "4xx",
        /// Everything else: the engine sends no 1xx and no 3xx.
        ServerError => "5xx",
    }

    /// Why a transfer was turned away with certainty, its merit undecided:
    /// nothing was written and no key is kept.
    Refusal {
        /// The form is wrong (any 400 but an amount).
        InvalidRequest => "invalid_request",
        /// The amount is wrong, alone or for the accounts' currency.
        InvalidAmount => "invalid_amount",
        /// No such account.
        AccountNotFound => "account_not_found",
        /// No such original to reverse.
        TransactionNotFound => "transaction_not_found",
        /// The key belongs to a different request.
        KeyReused => "idempotency_key_reused",
        /// The key's answer is past retention.
        KeyExpired => "idempotency_key_expired",
        /// Another transfer of its atomic call failed.
        GroupAborted => "group_aborted",
        /// No permit was left.
        QueueFull => "queue_full",
        /// Its principal sent too many.
        RateLimited => "rate_limited",
        /// Not authenticated or not allowed.
        Forbidden => "forbidden",
        /// Its deadline came before its batch closed.
        DeadlineExceeded => "deadline_exceeded",
        /// The database was known to be away.
        DatabaseUnavailable => "database_unavailable",
        /// The engine was stopping.
        Draining => "draining",
    }

    /// Why a transfer that had reached a commit got no answer of its own.
    Failure {
        /// It may or may not be applied; the deadline came first.
        OutcomeUnknown => "outcome_unknown",
        /// Rolled back, and the retries are used up.
        DatabaseUnavailable => "database_unavailable",
        /// The database refused its data (the culprit of a bisected batch).
        DataError => "data_error",
        /// A fault of ours.
        Internal => "internal",
    }

    /// What a repeated key was answered with.
    Replay {
        /// The stored transfer.
        Completed => "completed",
        /// The stored rejection.
        Rejected => "rejected",
    }

    /// Why a batch closed.
    CloseReason {
        /// A committer was idle and took what was there.
        Idle => "idle",
        /// `batch_transfers_max` was reached.
        TransfersFull => "transfers_full",
        /// `batch_accounts_max` was reached.
        AccountsFull => "accounts_full",
    }

    /// A part of a commit.
    CommitPhase {
        /// Row locks and key look-up.
        Lock => "lock",
        /// The fold, in memory.
        Fold => "fold",
        /// Writing the rows and COMMIT.
        Write => "write",
        /// All of it, retries included.
        Total => "total",
    }

    /// How one attempt at a commit ended.
    CommitResult {
        /// COMMIT answered COMMIT, without a warning.
        Committed => "committed",
        /// Nothing was written.
        RolledBack => "rolled_back",
        /// COMMIT was sent and no clear answer came.
        Unknown => "unknown",
    }

    /// Why a batch was committed again, by SQLSTATE class.
    CommitRetryCause {
        /// 40001.
        SerializationFailure => "serialization_failure",
        /// 40P01.
        Deadlock => "deadlock",
        /// 55P03.
        LockTimeout => "lock_timeout",
        /// 23505 on a key: another engine had it.
        KeyConflict => "key_conflict",
        /// 08xxx, or the link broke.
        ConnectionLost => "connection_lost",
        /// 57P01 to 57P03.
        Shutdown => "shutdown",
        /// 25006: the host is a standby now.
        ReadOnly => "read_only",
        /// 53xxx: disk, memory or connections are used up.
        Resources => "resources",
        /// 57014 or 25P03: a statement or idle timeout.
        Timeout => "timeout",
        /// Class 22, 23 except keys, 54: the batch is bisected.
        DataError => "data_error",
        /// The periods of idempotency keys moved on.
        PeriodsMoved => "periods_moved",
        /// COMMIT answered with a warning (a cancelled wait for a standby).
        CommitWarning => "commit_warning",
        /// COMMIT answered ROLLBACK.
        CommitRolledBack => "commit_rolled_back",
        /// A state outside the table.
        Other => "other",
    }

    /// What resolving an unknown outcome found for one transfer.
    Resolved {
        /// It had been committed.
        Found => "found",
        /// It had not; it was committed then.
        Absent => "absent",
    }

    /// How a balance was read.
    CacheRead {
        /// The cache had it.
        Hit => "hit",
        /// The cache did not have it.
        Miss => "miss",
        /// The cache had it, older than what this engine committed.
        FloorMiss => "floor_miss",
        /// The cache was not asked: breaker open, floor lost, or consistent read.
        Skipped => "skipped",
    }

    /// What became of a put.
    CachePut {
        /// It is in the cache.
        Stored => "stored",
        /// The cache held the same or a newer version.
        Stale => "stale",
        /// The queue of puts was full.
        Dropped => "dropped",
    }

    /// How the cache failed.
    CacheError {
        /// An error answer or a broken link.
        Error => "error",
        /// No answer in time.
        Timeout => "timeout",
    }

    /// The state of the cache's circuit breaker.
    BreakerState {
        /// The cache is used.
        Closed => "closed",
        /// One call tries whether it is back.
        HalfOpen => "half_open",
        /// The cache is left alone.
        Open => "open",
    }

    /// What a pooled connection does.
    PoolConnection {
        /// Waits in the pool.
        Idle => "idle",
        /// Serves a read.
        InUse => "in_use",
    }

    /// What commits rest on.
    ReplicationMode {
        /// COMMIT waits for standbys.
        Synchronous => "synchronous",
        /// The storage replicates.
        Storage => "storage",
        /// Standbys follow behind.
        Asynchronous => "asynchronous",
        /// Nobody follows.
        None => "none",
        /// Not even the server's disk.
        FsyncOff => "fsync_off",
    }

    /// Who answered a read that a replica may answer.
    ReadServer {
        /// The replica.
        Replica => "replica",
        /// The primary: the replica was late, gone, or knew nothing of it.
        Primary => "primary",
    }

    /// The partitioned tables.
    PartitionedTable {
        /// `transfers`.
        Transfers => "transfers",
        /// `rejections`.
        Rejections => "rejections",
        /// `idempotency_keys`.
        IdempotencyKeys => "idempotency_keys",
    }
}

impl Status {
    /// The label of a status code.
    #[must_use]
    pub const fn from_code(code: u16) -> Self {
        match code {
            200 => Self::S200,
            201 => Self::S201,
            400 => Self::S400,
            401 => Self::S401,
            403 => Self::S403,
            404 => Self::S404,
            405 => Self::S405,
            408 => Self::S408,
            409 => Self::S409,
            413 => Self::S413,
            415 => Self::S415,
            422 => Self::S422,
            429 => Self::S429,
            431 => Self::S431,
            500 => Self::S500,
            503 => Self::S503,
            504 => Self::S504,
            _ => Self::Other,
        }
    }
}

impl StatusClass {
    /// The class of a status code.
    #[must_use]
    pub const fn from_code(code: u16) -> Self {
        match code {
            200..=299 => Self::Success,
            400..=499 => Self::ClientError,
            _ => Self::ServerError,
        }
    }
}

impl Method {
    /// The label of a method name; `Other` if it is not one of ours.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        Self::ALL
            .iter()
            .copied()
            .find(|method| method.as_str() == name)
            .unwrap_or(Self::Other)
    }
}

impl Label for RejectReason {
    const ALL: &'static [Self] = &Self::ALL;

    fn index(self) -> usize {
        match self {
            Self::CurrencyMismatch => 0,
            Self::AccountClosed => 1,
            Self::AccountFrozen => 2,
            Self::AlreadyReversed => 3,
            Self::BalanceOverflow => 4,
            Self::InsufficientFunds => 5,
        }
    }

    fn as_str(self) -> &'static str {
        self.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check<L: Label + PartialEq + std::fmt::Debug>() {
        let mut words = std::collections::BTreeSet::new();
        for (index, label) in L::ALL.iter().enumerate() {
            assert_eq!(label.index(), index, "{label:?}");
            assert!(words.insert(label.as_str()), "{label:?} repeats a word");
        }
        let by = By::new(|label: L| label.index());
        for label in L::ALL {
            assert_eq!(*by.get(*label), label.index());
        }
    }

    #[test]
    fn every_label_is_found_at_its_index_and_has_a_word_of_its_own() {
        check::<Route>();
        check::<Method>();
        check::<Status>();
        check::<StatusClass>();
        check::<RejectReason>();
        check::<Refusal>();
        check::<Failure>();
        check::<Replay>();
        check::<CloseReason>();
        check::<CommitPhase>();
        check::<CommitResult>();
        check::<CommitRetryCause>();
        check::<Resolved>();
        check::<CacheRead>();
        check::<CachePut>();
        check::<CacheError>();
        check::<BreakerState>();
        check::<PoolConnection>();
        check::<ReplicationMode>();
        check::<ReadServer>();
        check::<PartitionedTable>();
    }

    #[test]
    fn a_status_code_keeps_its_own_label_and_an_unknown_one_is_other() {
        for status in Status::ALL {
            match status.as_str().parse::<u16>() {
                Ok(code) => assert_eq!(Status::from_code(code), *status),
                Err(_) => assert_eq!(*status, Status::Other),
            }
        }
        for code in [0, 100, 199, 202, 418, 502, 599, u16::MAX] {
            assert_eq!(Status::from_code(code), Status::Other, "code={code}");
        }
    }

    #[test]
    fn a_status_class_takes_both_ends_of_its_hundred() {
        for (code, class) in [
            (199, StatusClass::ServerError),
            (200, StatusClass::Success),
            (299, StatusClass::Success),
            (300, StatusClass::ServerError),
            (399, StatusClass::ServerError),
            (400, StatusClass::ClientError),
            (499, StatusClass::ClientError),
            (500, StatusClass::ServerError),
        ] {
            assert_eq!(StatusClass::from_code(code), class, "code={code}");
        }
    }

    #[test]
    fn a_method_of_the_clients_own_is_not_written_down() {
        assert_eq!(Method::from_name("PATCH"), Method::Patch);
        for name in ["patch", "", "BREW\nGET"] {
            assert_eq!(Method::from_name(name), Method::Other, "{name:?}");
        }
    }
}
