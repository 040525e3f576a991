//! Problem documents (RFC 9457): every answer that is not a success.
//!
//! Owns: their members and words. A detail says what happened, what was not
//! done, and what to do next.
//! Never: shows a balance, a credential, or an internal error's text.
//! Invariant: a problem made from a stored row has no member that is not a pure
//! function of that row, so that a replay reads like the first answer.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use hyper::StatusCode;

use super::code::ErrorCode;
use super::ports::TransferStatus;
use super::wire::put;
use crate::admission::Refused;
use crate::domain::fold::GroupFailure;
use crate::domain::{AccountId, Outcome, RejectReason, Rejection, TransferId};

/// A problem, before it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) code: ErrorCode,
    pub(super) status: StatusCode,
    pub(super) detail: Cow<'static, str>,
    /// The field, header or parameter at fault.
    pub(super) field: Option<Cow<'static, str>>,
    /// Place in a batch call, from 0.
    pub(super) index: Option<usize>,
    pub(super) txn_id: Option<TransferId>,
    pub(super) account_id: Option<AccountId>,
    /// The connection must close: its next bytes are not a request.
    pub(super) closes: bool,
    /// Answered from an earlier request with the same key.
    pub(super) replayed: bool,
    /// The methods a route has.
    pub(super) allow: Option<&'static str>,
}

/// Boxed: it is rare, and results of the hot path stay small.
pub(super) type Fallible<T> = Result<T, Box<Problem>>;

impl Problem {
    pub(super) fn new(code: ErrorCode, detail: impl Into<Cow<'static, str>>) -> Box<Self> {
        Box::new(Self {
            code,
            status: code.status(),
            detail: detail.into(),
            field: None,
            index: None,
            txn_id: None,
            account_id: None,
            closes: false,
            replayed: false,
            allow: None,
        })
    }

    pub(super) fn field(
        code: ErrorCode,
        field: impl Into<Cow<'static, str>>,
        detail: impl Into<Cow<'static, str>>,
    ) -> Box<Self> {
        let mut problem = Self::new(code, detail);
        problem.field = Some(field.into());
        problem
    }

    pub(super) fn at(mut self: Box<Self>, index: usize) -> Box<Self> {
        self.index = Some(index);
        self
    }

    pub(super) fn closing(mut self: Box<Self>) -> Box<Self> {
        self.closes = true;
        self
    }

    /// What became of a transfer that did not complete.
    pub(super) fn of_outcome(outcome: &Outcome) -> Option<Box<Self>> {
        Some(match *outcome {
            Outcome::Completed { .. } => return None,
            Outcome::Rejected {
                rejection,
                replayed,
            } => {
                let mut problem = Self::of_rejection(&rejection);
                problem.replayed = replayed;
                problem
            }
            Outcome::KeyReused => Self::new(
                ErrorCode::IdempotencyKeyReused,
                "The Idempotency-Key was used before for a different request. Nothing was done. \
                 Send the original request again, or use a new key for this one.",
            ),
            Outcome::KeyExpired => Self::new(
                ErrorCode::IdempotencyKeyReused,
                "The Idempotency-Key was used before and the row it led to is past its retention. \
                 Nothing was done. Use a new key for a new transfer.",
            ),
            Outcome::AccountNotFound(account_id) => Self::no_account(account_id),
            Outcome::InvalidAmount(invalid) => Self::field(
                ErrorCode::InvalidAmount,
                "amount",
                format!(
                    "The amount cannot be moved between these accounts: {}. Nothing was done.",
                    invalid.advice()
                ),
            ),
        })
    }

    fn of_rejection(rejection: &Rejection) -> Box<Self> {
        let account_id = rejection.account_id;
        let detail = match rejection.reason {
            RejectReason::CurrencyMismatch => format!(
                "Account {account_id} has another currency than the transfer. No money moved. \
                 Transfer between accounts of one currency."
            ),
            RejectReason::AccountClosed => {
                format!("Account {account_id} is closed. No money moved. Use another account.")
            }
            RejectReason::AccountFrozen => format!(
                "Account {account_id} is frozen. No money moved. Open it, then send a new request."
            ),
            RejectReason::AlreadyReversed => "The transaction has a reversal already. No money \
                 moved. A transaction is reversed at most once."
                .to_owned(),
            RejectReason::BalanceOverflow => format!(
                "The transfer would take account {account_id} past what a balance can hold. \
                 No money moved. Move less, or use another account."
            ),
            RejectReason::InsufficientFunds => format!(
                "The transfer would take account {account_id} below its limit. No money moved. \
                 Fund the account or move less, with a new request."
            ),
        };
        let mut problem = Self::new(ErrorCode::of_rejection(rejection.reason), detail);
        problem.account_id = Some(account_id);
        problem.txn_id = rejection.id;
        problem
    }

    /// An atomic call that failed: always 422, with the code of its culprit.
    pub(super) fn of_group(failure: &GroupFailure) -> Box<Self> {
        let mut problem = Self::of_outcome(&failure.outcome).unwrap_or_else(|| {
            Self::new(
                ErrorCode::OutcomeUnknown,
                "The failed transfer was not named.",
            )
        });
        problem.status = StatusCode::UNPROCESSABLE_ENTITY;
        problem.txn_id = None;
        problem.replayed = false;
        problem.detail = format!(
            "Transfer {} failed, so none of the atomic call was applied and no key was kept. {}",
            failure.index, problem.detail
        )
        .into();
        problem.at(failure.index)
    }

    pub(super) fn no_account(account_id: AccountId) -> Box<Self> {
        let mut problem = Self::new(
            ErrorCode::AccountNotFound,
            format!(
                "There is no account {account_id}. Nothing was done. Open it with POST /accounts, \
                 or correct the id."
            ),
        );
        problem.account_id = Some(account_id);
        problem
    }

    pub(super) fn refused(refused: Refused) -> Box<Self> {
        let code = code_of_refused(refused);
        match refused {
            Refused::QueueFull => Self::new(
                code,
                "The engine has as many requests as it can hold. Nothing was done. Retry after \
                 the time in Retry-After, with the same Idempotency-Key.",
            ),
            Refused::DatabaseUnavailable => Self::new(
                code,
                "The database cannot be reached or takes no writes. Nothing was done. Retry after \
                 the time in Retry-After, with the same Idempotency-Key.",
            ),
            Refused::DeadlineExceeded => Self::new(
                code,
                "The deadline passed before the request's turn came. Nothing was done. Retry with \
                 the same Idempotency-Key.",
            ),
            Refused::OutcomeUnknown => Self::new(
                code,
                "The deadline passed while the request was being committed: it may or may not be \
                 applied. Retry with the same Idempotency-Key: it is applied once, whatever happened.",
            ),
            Refused::Unstorable => Self::new(
                code,
                "The database refuses to store what this request holds. Nothing was done. \
                 Correct the request; sending it again as it is will not help.",
            ),
            Refused::Draining => Self::new(
                code,
                "The engine is stopping and takes no new requests. Nothing was done. Retry with \
                 the same Idempotency-Key; another engine, or this one restarted, will answer.",
            )
            .closing(),
        }
    }

    /// The document.
    pub(super) fn body(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(256 + self.detail.len());
        // Relative to the engine itself: its own page explains the code.
        out.put_slice(b"{\"type\":\"/docs#");
        out.put_slice(self.code.as_str().as_bytes());
        out.put_slice(b"\",\"title\":");
        put::text(&mut out, self.code.title());
        out.put_slice(b",\"status\":");
        put::integer(&mut out, i64::from(self.status.as_u16()));
        out.put_slice(b",\"detail\":");
        put::text(&mut out, &self.detail);
        out.put_slice(b",\"code\":\"");
        out.put_slice(self.code.as_str().as_bytes());
        out.put_u8(b'"');
        if let Some(field) = &self.field {
            out.put_slice(b",\"field\":");
            put::text(&mut out, field);
        }
        if let Some(index) = self.index {
            out.put_slice(b",\"index\":");
            out.put_slice(itoa::Buffer::new().format(index).as_bytes());
        }
        if let Some(account_id) = self.account_id {
            out.put_slice(b",\"account_id\":");
            put::integer(&mut out, account_id.get());
        }
        if let Some(txn_id) = self.txn_id {
            out.put_slice(b",\"txn_id\":");
            put::id(&mut out, txn_id.uuid());
        }
        out.put_u8(b'}');
        out.freeze()
    }
}

/// The code of a request that got no outcome. A stopping engine has no room.
pub(super) const fn code_of_refused(refused: Refused) -> ErrorCode {
    match refused {
        Refused::QueueFull | Refused::Draining => ErrorCode::QueueFull,
        Refused::DatabaseUnavailable => ErrorCode::DatabaseUnavailable,
        Refused::DeadlineExceeded => ErrorCode::DeadlineExceeded,
        Refused::OutcomeUnknown => ErrorCode::OutcomeUnknown,
        Refused::Unstorable => ErrorCode::InvalidParameter,
    }
}

/// What the result of one transfer of a batch call is called then. A client
/// sends again what failed; what cannot be stored would be refused again.
pub(super) const fn status_of_refused(refused: Refused) -> TransferStatus {
    match refused {
        Refused::QueueFull
        | Refused::Draining
        | Refused::DatabaseUnavailable
        | Refused::DeadlineExceeded
        | Refused::OutcomeUnknown => TransferStatus::Failed,
        Refused::Unstorable => TransferStatus::Rejected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(problem: &Problem) -> serde_json::Value {
        serde_json::from_slice(&problem.body()).unwrap()
    }

    #[test]
    fn a_document_has_exactly_its_members() {
        let problem = Problem::field(ErrorCode::InvalidAmount, "amount", "say \"5\"").at(3);
        assert_eq!(
            std::str::from_utf8(&problem.body()).unwrap(),
            concat!(
                r#"{"type":"/docs#invalid_amount","title":"The amount cannot be moved","#,
                r#""status":400,"detail":"say \"5\"","code":"invalid_amount","#,
                r#""field":"amount","index":3}"#
            )
        );
    }

    #[test]
    fn a_kept_rejection_names_its_row_and_its_account() {
        let id = TransferId::from_uuid(uuid::Uuid::from_u128(9));
        let rejection = Rejection {
            id: Some(id),
            reason: RejectReason::InsufficientFunds,
            account_id: AccountId::new(7).unwrap(),
        };
        let outcome = |replayed| Outcome::Rejected {
            rejection,
            replayed,
        };
        let first = Problem::of_outcome(&outcome(false)).unwrap();
        let again = Problem::of_outcome(&outcome(true)).unwrap();
        assert_eq!(first.body(), again.body());
        assert!(!first.replayed && again.replayed);
        let json = json(&first);
        assert_eq!(json["txn_id"], id.to_string());
        assert_eq!(json["account_id"], 7);
        assert_eq!(json["status"], 422);
    }

    #[test]
    fn a_failed_group_is_422_whatever_its_culprit() {
        let failure = GroupFailure {
            index: 4,
            outcome: Outcome::AccountNotFound(AccountId::new(7).unwrap()),
        };
        let json = json(&Problem::of_group(&failure));
        assert_eq!(json["status"], 422);
        assert_eq!(json["code"], "account_not_found");
        assert_eq!(json["index"], 4);
    }
}
