//! Routes that open and change accounts.

use hyper::StatusCode;
use hyper::body::Incoming;

use super::super::answers::Room;
use super::super::code::ErrorCode;
use super::super::ports::{Ledger, Observer};
use super::super::problem::{Fallible, Problem};
use super::super::respond::Answer;
use super::super::wire::account::{self, Shape};
use super::super::wire::answer;
use super::{Call, RESULT_BYTES, parsed, path_account, unanswered, unread};
use crate::admission::Refused;
use crate::domain::AccountId;
use crate::domain::fold::ChangeOutcome;
use crate::store::read::{AccountRow, OpenError, Opened};

/// `POST /accounts`.
pub(super) async fn open<L: Ledger, O: Observer>(
    call: &Call<'_, L, O>,
    incoming: Incoming,
) -> Fallible<Answer> {
    let body = call.batch_body(incoming).await?;
    let texts = body.len();
    let (accounts, shape) = parsed(&call.edge.parsing, body, account::open).await?;
    let results = accounts.len().saturating_mul(RESULT_BYTES);
    let room = call.room(results.saturating_add(texts))?;
    let opened = call.edge.ledger.open_accounts(accounts).await;
    let opened = opened.map_err(|error| match error {
        OpenError::NotOpened(error) => unanswered(&error, call.request_id),
        OpenError::OutcomeUnknown(error) => {
            tracing::warn!(request_id = call.request_id, %error, "accounts may be open");
            Problem::new(
                ErrorCode::OutcomeUnknown,
                "The link to the database broke while the accounts were being opened: all of \
                 them are open, or none. Send the same request again: it is safe and tells.",
            )
        }
    })?;
    match opened {
        Opened::Created(rows) => Ok(listed(StatusCode::CREATED, shape, &rows, room)),
        Opened::Identical(rows) => Ok(listed(StatusCode::OK, shape, &rows, room)),
        Opened::Conflict(account_id) => Err(about(
            account_id,
            Problem::new(
                ErrorCode::AccountExists,
                format!(
                    "Account {account_id} exists with another currency, limit, name or owner. No \
                     account was opened. Choose another id, or change it with PATCH."
                ),
            ),
        )),
        Opened::UnknownCurrency {
            account_id,
            currency,
        } => Err(about(
            account_id,
            Problem::field(
                ErrorCode::InvalidParameter,
                "currency",
                format!("There is no currency {currency} here. No account was opened."),
            ),
        )),
        Opened::InvalidMinBalance { account_id, reason } => Err(about(
            account_id,
            bad_limit(&format!("{}. No account was opened", reason.advice())),
        )),
        Opened::MinBalanceAboveZero(account_id) => Err(about(
            account_id,
            bad_limit("every account starts at zero, which is below it. No account was opened"),
        )),
    }
}

fn listed(status: StatusCode, shape: Shape, rows: &[AccountRow], room: Room) -> Answer {
    let body = match (shape, rows) {
        (Shape::One, [row]) => answer::account(row),
        (Shape::One | Shape::List, rows) => answer::accounts(rows),
    };
    Answer::json(status, room.hold(body))
}

fn about(account_id: AccountId, mut problem: Box<Problem>) -> Box<Problem> {
    problem.account_id = Some(account_id);
    problem
}

fn bad_limit(why: &str) -> Box<Problem> {
    Problem::field(
        ErrorCode::InvalidAmount,
        "min_balance",
        format!("The limit cannot be used: {why}."),
    )
}

/// `PATCH /accounts/{id}`.
pub(super) async fn change<L: Ledger, O: Observer>(
    call: &Call<'_, L, O>,
    incoming: Incoming,
    id: &str,
) -> Fallible<Answer> {
    let id = path_account(id).map_err(|problem| unread(problem, &incoming))?;
    let body = call.single_body(incoming).await?;
    let change = account::change(body.text(), id)?;
    drop(body);
    let outcome = call.edge.ledger.change_account(change, call.deadline).await;
    match outcome.map_err(Problem::refused)? {
        ChangeOutcome::Changed => {}
        ChangeOutcome::AccountNotFound => return Err(Problem::no_account(id)),
        ChangeOutcome::AccountNotEmpty => {
            return Err(about(
                id,
                Problem::new(
                    ErrorCode::AccountNotEmpty,
                    "Only an account with a balance of zero can be closed. Nothing was changed. \
                     Move its balance to another account first.",
                ),
            ));
        }
        ChangeOutcome::BelowMinBalance => {
            return Err(about(
                id,
                Problem::new(
                    ErrorCode::InsufficientFunds,
                    "The account is below the limit asked for. Nothing was changed. Fund the \
                     account first, or ask for a lower limit.",
                ),
            ));
        }
        ChangeOutcome::InvalidAmount(invalid) => {
            let why = format!("{}. Nothing was changed", invalid.advice());
            return Err(about(id, bad_limit(&why)));
        }
    }
    match call.edge.ledger.account(id).await {
        Ok(Some(row)) => Ok(Answer::json(StatusCode::OK, answer::account(&row))),
        Ok(None) => Err(Problem::no_account(id)),
        Err(error) => {
            // Telling why the read failed; the change itself is durable.
            drop(unanswered(&error, call.request_id));
            let mut problem = Problem::refused(Refused::OutcomeUnknown);
            problem.detail = "The account was changed, but could not be read back. Send the same \
                              request again, or read the account."
                .into();
            Err(about(id, problem))
        }
    }
}
