//! Routes that move money.

use hyper::StatusCode;
use hyper::body::{Body as _, Incoming};
use uuid::Uuid;

use super::super::body::Body;
use super::super::code::ErrorCode;
use super::super::headers;
use super::super::ports::{Ledger, Observer, TransferFacts, TransferStatus};
use super::super::problem::{Fallible, Problem, code_of_refused, status_of_refused};
use super::super::respond::Answer;
use super::super::wire::answer;
use super::super::wire::transfer::{self, BATCH_TRANSFERS_MAX, Mode, Original, Sender};
use super::{Call, RESULT_BYTES, parsed, unanswered, unread};
use crate::admission::Refused;
use crate::domain::{DecimalAmount, Outcome, TransferId, TransferRequest};
use crate::store::read::Record;

/// `POST /transaction`.
pub(super) async fn one<L: Ledger, O: Observer>(
    call: &mut Call<'_, L, O>,
    incoming: Incoming,
) -> Fallible<Answer> {
    let key = call.key(&incoming)?;
    let body = call.single_body(incoming).await?;
    // Before the work of parsing and hashing: a saturated engine must spend
    // little on what it refuses.
    call.edge.ledger.admits(1).map_err(Problem::refused)?;
    let request = transfer::single(
        body.text(),
        Sender {
            principal: &call.edge.settings.anonymous_principal,
            key: key.as_deref(),
        },
    )?;
    // What is waited for now holds no bytes of the budget, nor of the connection.
    drop(body);
    drop(key);
    call.forget_head();
    moved(call, request).await
}

async fn moved<L: Ledger, O: Observer>(
    call: &Call<'_, L, O>,
    request: TransferRequest,
) -> Fallible<Answer> {
    let outcome = call.edge.ledger.transfer(request, call.deadline).await;
    match outcome.map_err(Problem::refused)? {
        Outcome::Completed { receipt, replayed } => {
            let mut completed = Answer::json(StatusCode::OK, answer::receipt(&receipt));
            completed.txn_id = Some(receipt.id);
            completed.replayed = replayed;
            Ok(completed)
        }
        other @ (Outcome::Rejected { .. }
        | Outcome::KeyReused
        | Outcome::KeyExpired
        | Outcome::AccountNotFound(_)
        | Outcome::InvalidAmount(_)) => {
            // A completed outcome has no problem; all others have.
            let unknown = || Problem::refused(Refused::OutcomeUnknown);
            Err(Problem::of_outcome(&other).unwrap_or_else(unknown))
        }
    }
}

/// One result of a batch call, for observers.
fn facts<'a>(
    request_id: &'a str,
    index: usize,
    result: &Result<Outcome, Refused>,
) -> TransferFacts<'a> {
    let rejected = |code| (TransferStatus::Rejected, Some(code), None, false);
    let (status, code, txn_id, replayed) = match result {
        Ok(Outcome::Completed { receipt, replayed }) => {
            (TransferStatus::Completed, None, Some(receipt.id), *replayed)
        }
        Ok(Outcome::Rejected {
            rejection,
            replayed,
        }) => {
            let code = ErrorCode::of_rejection(rejection.reason);
            (
                TransferStatus::Rejected,
                Some(code),
                rejection.id,
                *replayed,
            )
        }
        Ok(Outcome::KeyReused | Outcome::KeyExpired) => rejected(ErrorCode::IdempotencyKeyReused),
        Ok(Outcome::AccountNotFound(_)) => rejected(ErrorCode::AccountNotFound),
        Ok(Outcome::InvalidAmount(_)) => rejected(ErrorCode::InvalidAmount),
        Err(refused) => {
            let code = code_of_refused(*refused);
            (status_of_refused(*refused), Some(code), None, false)
        }
    };
    TransferFacts {
        request_id,
        index,
        status,
        code,
        txn_id,
        replayed,
    }
}

/// `POST /transactions`.
pub(super) async fn many<L: Ledger, O: Observer>(
    call: &Call<'_, L, O>,
    incoming: Incoming,
) -> Fallible<Answer> {
    headers::no_idempotency_key(&call.parts).map_err(|problem| unread(problem, &incoming))?;
    let body = call.batch_body(incoming).await?;
    // What has no room is not parsed; with room for the largest call there is
    // nothing to count.
    if !call.edge.ledger.has_room(BATCH_TRANSFERS_MAX)
        && let Some(transfers) = transfer::batch_size(body.text())
    {
        let room = call.edge.ledger.admits(transfers);
        room.map_err(Problem::refused)?;
    }
    let principal = call.edge.settings.anonymous_principal.clone();
    let (requests, mode) = parsed(&call.edge.parsing, body, move |text| {
        transfer::batch(text, &principal)
    })
    .await?;
    // What is done must be answered, whoever reads it.
    let room = call.room(requests.len().saturating_mul(RESULT_BYTES))?;
    let ledger = &call.edge.ledger;
    let results = match mode {
        Mode::Separate => ledger.transfers(requests, call.deadline).await,
        Mode::Atomic => match ledger.group(requests, call.deadline).await {
            Ok(Ok(outcomes)) => Ok(outcomes.into_iter().map(Ok).collect()),
            Ok(Err(failure)) => {
                return Err(Problem::of_group(&failure));
            }
            Err(refused) => Err(refused),
        },
    };
    let results = results.map_err(Problem::refused)?;
    if call.edge.observer.wants_transfers() {
        for (index, result) in results.iter().enumerate() {
            let facts = facts(call.request_id, index, result);
            call.edge.observer.transfer_finished(&facts);
        }
    }
    let body = answer::results(results.into_iter());
    Ok(Answer::json(StatusCode::OK, room.hold(body)))
}

/// `POST /transactions/{txn_id}/reversal`.
pub(super) async fn reversal<L: Ledger, O: Observer>(
    call: &Call<'_, L, O>,
    incoming: Incoming,
    id: &str,
) -> Fallible<Answer> {
    let key = call.key(&incoming)?;
    let id = path_transaction(id).map_err(|problem| unread(problem, &incoming))?;
    // No body at all is as good as an empty object, and needs no type.
    let body = if incoming.is_end_stream() {
        super::query::none(call.parts.uri.query())?;
        None
    } else {
        Some(call.single_body(incoming).await?)
    };
    let text = body.as_ref().map_or("{}", Body::text);
    let details = transfer::reversal_details(text)?;
    drop(body);
    let found = call.edge.ledger.transaction(id).await;
    let found = found.map_err(|error| unanswered(&error, call.request_id))?;
    let original = match found {
        Some(Record::Completed(row)) => row,
        // A refused transfer moved nothing that could be taken back.
        Some(Record::Rejected(_)) | None => return Err(no_transaction(id)),
    };
    let original = Original {
        id,
        debit_account_id: original.debit.account_id,
        credit_account_id: original.credit.account_id,
        amount: DecimalAmount::from_minor(original.amount, original.currency),
        currency: original.currency.code,
    };
    let sender = Sender {
        principal: &call.edge.settings.anonymous_principal,
        key: key.as_deref(),
    };
    moved(call, transfer::reversal(&original, details, sender)).await
}

/// A transaction id in a path: a UUID in its usual form.
pub(super) fn path_transaction(id: &str) -> Fallible<TransferId> {
    Some(id)
        .filter(|id| id.len() == 36)
        .and_then(|id| Uuid::try_parse(id).ok())
        .map(TransferId::from_uuid)
        .ok_or_else(|| {
            Problem::field(
                ErrorCode::InvalidParameter,
                "txn_id",
                "A transaction id is a UUID with hyphens. Nothing was done. Correct the path.",
            )
        })
}

pub(super) fn no_transaction(id: TransferId) -> Box<Problem> {
    let mut problem = Problem::new(
        ErrorCode::TransactionNotFound,
        "There is no completed transaction with this id. Nothing was done. Correct the id, or \
         list transactions with GET /transactions.",
    );
    problem.txn_id = Some(id);
    problem
}
