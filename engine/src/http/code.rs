//! Every error code of the contract, with its status and title.

use hyper::StatusCode;

use crate::domain::RejectReason;

/// The `code` member of a problem document; closed, documented, tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// Not JSON, not UTF-8, a duplicate key, or not the shape asked for.
    InvalidJson,
    /// Not a positive amount that can be held exactly.
    InvalidAmount,
    /// Not an account id.
    InvalidAccount,
    /// Payer and receiver are one account.
    SameAccount,
    /// A field that the contract does not know.
    UnknownField,
    /// A field, path or query parameter of the wrong form.
    InvalidParameter,
    /// A cursor that this engine did not make.
    InvalidCursor,
    /// An idempotency key of the wrong form, or where none may be.
    InvalidIdempotencyKey,
    /// Credentials are missing or wrong.
    Unauthorized,
    /// Known, but not allowed.
    Forbidden,
    /// No such account.
    AccountNotFound,
    /// No such transfer.
    TransactionNotFound,
    /// No such route.
    NotFound,
    /// The route has no such method.
    MethodNotAllowed,
    /// The account id is taken, with other terms.
    AccountExists,
    /// Only an empty account can be closed.
    AccountNotEmpty,
    /// The transfer has a reversal already.
    AlreadyReversed,
    /// More bytes than the route takes.
    BodyTooLarge,
    /// Not `application/json`.
    UnsupportedMediaType,
    /// The payer would fall below its limit.
    InsufficientFunds,
    /// The accounts differ, or differ from the currency asked for.
    CurrencyMismatch,
    /// An account is frozen.
    AccountFrozen,
    /// An account is closed.
    AccountClosed,
    /// A balance would pass what can be held.
    BalanceOverflow,
    /// The key belongs to another request.
    IdempotencyKeyReused,
    /// Too many requests of one client.
    RateLimited,
    /// More header bytes than are taken.
    HeaderTooLarge,
    /// No room at the moment.
    QueueFull,
    /// PostgreSQL cannot be reached or written.
    DatabaseUnavailable,
    /// Out of time, certainly not applied.
    DeadlineExceeded,
    /// Out of time, perhaps applied.
    OutcomeUnknown,
}

impl ErrorCode {
    /// Every code, for documents and metrics.
    pub const ALL: [Self; 31] = [
        Self::InvalidJson,
        Self::InvalidAmount,
        Self::InvalidAccount,
        Self::SameAccount,
        Self::UnknownField,
        Self::InvalidParameter,
        Self::InvalidCursor,
        Self::InvalidIdempotencyKey,
        Self::Unauthorized,
        Self::Forbidden,
        Self::AccountNotFound,
        Self::TransactionNotFound,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::AccountExists,
        Self::AccountNotEmpty,
        Self::AlreadyReversed,
        Self::BodyTooLarge,
        Self::UnsupportedMediaType,
        Self::InsufficientFunds,
        Self::CurrencyMismatch,
        Self::AccountFrozen,
        Self::AccountClosed,
        Self::BalanceOverflow,
        Self::IdempotencyKeyReused,
        Self::RateLimited,
        Self::HeaderTooLarge,
        Self::QueueFull,
        Self::DatabaseUnavailable,
        Self::DeadlineExceeded,
        Self::OutcomeUnknown,
    ];

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::InvalidAmount => "invalid_amount",
            Self::InvalidAccount => "invalid_account",
            Self::SameAccount => "same_account",
            Self::UnknownField => "unknown_field",
            Self::InvalidParameter => "invalid_parameter",
            Self::InvalidCursor => "invalid_cursor",
            Self::InvalidIdempotencyKey => "invalid_idempotency_key",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::AccountNotFound => "account_not_found",
            Self::TransactionNotFound => "transaction_not_found",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::AccountExists => "account_exists",
            Self::AccountNotEmpty => "account_not_empty",
            Self::AlreadyReversed => "already_reversed",
            Self::BodyTooLarge => "body_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::InsufficientFunds => "insufficient_funds",
            Self::CurrencyMismatch => "currency_mismatch",
            Self::AccountFrozen => "account_frozen",
            Self::AccountClosed => "account_closed",
            Self::BalanceOverflow => "balance_overflow",
            Self::IdempotencyKeyReused => "idempotency_key_reused",
            Self::RateLimited => "rate_limited",
            Self::HeaderTooLarge => "header_too_large",
            Self::QueueFull => "queue_full",
            Self::DatabaseUnavailable => "database_unavailable",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::OutcomeUnknown => "outcome_unknown",
        }
    }

    /// The HTTP status. One exception: a failed atomic call is always 422.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::InvalidJson
            | Self::InvalidAmount
            | Self::InvalidAccount
            | Self::SameAccount
            | Self::UnknownField
            | Self::InvalidParameter
            | Self::InvalidCursor
            | Self::InvalidIdempotencyKey => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::AccountNotFound | Self::TransactionNotFound | Self::NotFound => {
                StatusCode::NOT_FOUND
            }
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::AccountExists | Self::AccountNotEmpty | Self::AlreadyReversed => {
                StatusCode::CONFLICT
            }
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::InsufficientFunds
            | Self::CurrencyMismatch
            | Self::AccountFrozen
            | Self::AccountClosed
            | Self::BalanceOverflow
            | Self::IdempotencyKeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::HeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::QueueFull | Self::DatabaseUnavailable | Self::DeadlineExceeded => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::OutcomeUnknown => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The `title` member: the same for every problem of this code.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::InvalidJson => "The body is not the JSON asked for",
            Self::InvalidAmount => "The amount cannot be moved",
            Self::InvalidAccount => "Not an account id",
            Self::SameAccount => "Payer and receiver are the same account",
            Self::UnknownField => "Unknown field",
            Self::InvalidParameter => "A parameter has the wrong form",
            Self::InvalidCursor => "Not a cursor of this list",
            Self::InvalidIdempotencyKey => "The idempotency key cannot be used",
            Self::Unauthorized => "Authentication is needed",
            Self::Forbidden => "Not allowed",
            Self::AccountNotFound => "No such account",
            Self::TransactionNotFound => "No such transaction",
            Self::NotFound => "No such route",
            Self::MethodNotAllowed => "The route has no such method",
            Self::AccountExists => "The account exists with other terms",
            Self::AccountNotEmpty => "The account is not empty",
            Self::AlreadyReversed => "The transaction is reversed already",
            Self::BodyTooLarge => "The body is too large",
            Self::UnsupportedMediaType => "The body must be JSON",
            Self::InsufficientFunds => "Insufficient funds",
            Self::CurrencyMismatch => "The currencies do not match",
            Self::AccountFrozen => "The account is frozen",
            Self::AccountClosed => "The account is closed",
            Self::BalanceOverflow => "The balance would be too large to hold",
            Self::IdempotencyKeyReused => "The idempotency key belongs to another request",
            Self::RateLimited => "Too many requests",
            Self::HeaderTooLarge => "The header is too large",
            Self::QueueFull => "The engine is at its limit",
            Self::DatabaseUnavailable => "The database is unavailable",
            Self::DeadlineExceeded => "Out of time; nothing was applied",
            Self::OutcomeUnknown => "The outcome is not known yet",
        }
    }

    /// The code of a business refusal.
    #[must_use]
    pub const fn of_rejection(reason: RejectReason) -> Self {
        match reason {
            RejectReason::CurrencyMismatch => Self::CurrencyMismatch,
            RejectReason::AccountClosed => Self::AccountClosed,
            RejectReason::AccountFrozen => Self::AccountFrozen,
            RejectReason::AlreadyReversed => Self::AlreadyReversed,
            RejectReason::BalanceOverflow => Self::BalanceOverflow,
            RejectReason::InsufficientFunds => Self::InsufficientFunds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_words_and_every_rejection_has_its_own() {
        let mut words: Vec<_> = ErrorCode::ALL.map(ErrorCode::as_str).to_vec();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), ErrorCode::ALL.len());
        for reason in RejectReason::ALL {
            assert_eq!(ErrorCode::of_rejection(reason).as_str(), reason.as_str());
        }
    }
}
