//! Transfers as asked for, as decided, and why one is refused.

use rust_decimal::Decimal;
use uuid::Uuid;

use super::{AccountId, Currency, CurrencyCode, DecimalAmount, InvalidAmount, TransferId};

/// The stored form of an idempotency key: fixed-size hashes, never the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Of scope (principal) and key text.
    pub hash: Uuid,
    /// Of the request as parsed; tells a retry from a reuse.
    pub fingerprint: Uuid,
}

/// Optional facts a transfer carries; they never influence the decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Free text to 255 characters.
    pub reference: Option<String>,
    /// Free text to 64 characters.
    pub category: Option<String>,
    /// A JSON object, as text, to 4 KiB.
    pub metadata: Option<String>,
}

/// One transfer as asked for: its form is valid, its merit is not yet known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferRequest {
    /// Pays.
    pub debit_account_id: AccountId,
    /// Receives; differs from the payer.
    pub credit_account_id: AccountId,
    /// Exact decimal; minor units once the currency is known.
    pub amount: DecimalAmount,
    /// If given, both accounts must have it.
    pub currency: Option<CurrencyCode>,
    /// The transfer this one takes back.
    pub reverses: Option<TransferId>,
    /// Deduplicates retries; none means no deduplication.
    pub key: Option<IdempotencyKey>,
    /// Boxed: most transfers have none, and queues hold many.
    pub details: Option<Box<Details>>,
}

/// A business refusal. The order is the precedence when several apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RejectReason {
    /// The accounts differ, or differ from the currency asked for.
    CurrencyMismatch,
    /// An account is closed.
    AccountClosed,
    /// An account is frozen.
    AccountFrozen,
    /// The original has a reversal.
    AlreadyReversed,
    /// A balance would pass what `BIGINT` holds.
    BalanceOverflow,
    /// The payer would fall below its limit.
    InsufficientFunds,
}

impl RejectReason {
    /// Every reason, for documents and metrics.
    pub const ALL: [Self; 6] = [
        Self::CurrencyMismatch,
        Self::AccountClosed,
        Self::AccountFrozen,
        Self::AlreadyReversed,
        Self::BalanceOverflow,
        Self::InsufficientFunds,
    ];

    /// The stored code.
    #[must_use]
    pub const fn code(self) -> i16 {
        match self {
            Self::CurrencyMismatch => 1,
            Self::AccountClosed => 2,
            Self::AccountFrozen => 3,
            Self::AlreadyReversed => 4,
            Self::BalanceOverflow => 5,
            Self::InsufficientFunds => 6,
        }
    }

    /// From the stored code.
    #[must_use]
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CurrencyMismatch => "currency_mismatch",
            Self::AccountClosed => "account_closed",
            Self::AccountFrozen => "account_frozen",
            Self::AlreadyReversed => "already_reversed",
            Self::BalanceOverflow => "balance_overflow",
            Self::InsufficientFunds => "insufficient_funds",
        }
    }
}

/// A committed transfer, as far as its answer needs it: a pure function of the
/// stored row, so that a replay reads like the first answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// `txn_id` on the wire.
    pub id: TransferId,
    /// Paid.
    pub debit_account_id: AccountId,
    /// Received.
    pub credit_account_id: AccountId,
    /// Minor units, positive.
    pub amount_minor: i64,
    /// Fraction digits of the currency.
    pub digits: u8,
}

/// A business refusal as answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Its row in `rejections`; none when the request had no key.
    pub id: Option<TransferId>,
    /// Why.
    pub reason: RejectReason,
    /// The account the reason speaks of.
    pub account_id: AccountId,
}

/// What became of one transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Committed now, or earlier under the same key.
    Completed {
        /// The stored row's facts.
        receipt: Receipt,
        /// Whether an earlier request under the same key did it.
        replayed: bool,
    },
    /// Refused for a business reason now, or earlier under the same key.
    Rejected {
        /// The stored row's facts.
        rejection: Rejection,
        /// Whether an earlier request under the same key met it.
        replayed: bool,
    },
    /// The key belongs to a different request. Nothing was written.
    KeyReused,
    /// No such account. Nothing was written, no key is kept.
    AccountNotFound(AccountId),
    /// The amount does not fit the accounts' currency. Nothing was written.
    InvalidAmount(InvalidAmount),
    /// The key is known but its row is past retention. Nothing was written.
    KeyExpired,
}

impl Outcome {
    /// Whether money moved (now or under an earlier use of the key).
    #[must_use]
    pub const fn is_completed(&self) -> bool {
        matches!(self, Self::Completed { .. })
    }
}

/// A transfer to be written: one row of `transfers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTransfer {
    /// Made under the locks of both accounts.
    pub id: TransferId,
    /// Pays.
    pub debit_account_id: AccountId,
    /// Receives.
    pub credit_account_id: AccountId,
    /// Minor units, positive.
    pub amount_minor: i64,
    /// Of both accounts.
    pub currency: Currency,
    /// The payer's balance after it.
    pub debit_balance: i64,
    /// The receiver's balance after it.
    pub credit_balance: i64,
    /// The payer's version after it.
    pub debit_version: i64,
    /// The receiver's version after it.
    pub credit_version: i64,
    /// The payer's previous transfer.
    pub debit_previous: Option<TransferId>,
    /// The receiver's previous transfer.
    pub credit_previous: Option<TransferId>,
    /// Shared by the transfers of one atomic call.
    pub group_id: Option<Uuid>,
    /// The transfer this one takes back.
    pub reverses: Option<TransferId>,
    /// Index of the request it answers (where `details` are).
    pub request_index: usize,
}

/// A refusal to be kept: one row of `rejections`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRejection {
    /// Of the v7 sequence that transfers use.
    pub id: TransferId,
    /// Why.
    pub reason: RejectReason,
    /// The account the reason speaks of.
    pub account_id: AccountId,
    /// As asked for.
    pub amount: Decimal,
    /// Index of the request it answers (where the rest is).
    pub request_index: usize,
}

/// A key to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewKey {
    /// Key and fingerprint.
    pub key: IdempotencyKey,
    /// The row it led to.
    pub txn_id: TransferId,
}
