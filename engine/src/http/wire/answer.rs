//! The bytes of every successful answer.

use bytes::{BufMut, Bytes, BytesMut};

use super::super::code::ErrorCode;
use super::super::ports::BalanceAnswer;
use super::super::problem::{Problem, code_of_refused, status_of_refused};
use super::put;
use crate::admission::Refused;
use crate::domain::{AccountId, Details, Outcome, Receipt, TransferId};
use crate::store::read::{AccountRow, Direction, Record, RejectionRow, Side, TransferRow};

/// The longest receipt: two ids of 16 digits, an amount of 19 and a point.
const RECEIPT_BYTES_MAX: usize = 186;

/// `POST /transaction`, completed.
pub(in crate::http) fn receipt(receipt: &Receipt) -> Bytes {
    let mut out = BytesMut::with_capacity(RECEIPT_BYTES_MAX);
    out.put_slice(b"{\"txn_id\":");
    put::id(&mut out, receipt.id.uuid());
    out.put_slice(b",\"status\":\"completed\",\"from\":");
    put::integer(&mut out, receipt.debit_account_id.get());
    out.put_slice(b",\"to\":");
    put::integer(&mut out, receipt.credit_account_id.get());
    out.put_slice(b",\"amount\":");
    put::decimal(&mut out, receipt.amount_minor, receipt.digits);
    out.put_slice(b",\"created_at\":");
    put::timestamp(&mut out, receipt.id.unix_ms());
    out.put_u8(b'}');
    out.freeze()
}

/// `POST /transactions`: one result per transfer, in request order.
pub(in crate::http) fn results(
    results: impl ExactSizeIterator<Item = Result<Outcome, Refused>>,
) -> Bytes {
    let mut out = BytesMut::with_capacity(16 + results.len().saturating_mul(80));
    out.put_slice(b"{\"results\":[");
    for (index, result) in results.enumerate() {
        if index != 0 {
            out.put_u8(b',');
        }
        match result {
            Ok(outcome) => put_outcome(&mut out, &outcome),
            Err(refused) => put_refused(&mut out, refused),
        }
    }
    out.put_slice(b"]}");
    out.freeze()
}

fn put_outcome(out: &mut BytesMut, outcome: &Outcome) {
    let txn_id = |out: &mut BytesMut, id: TransferId| {
        out.put_slice(b"\"txn_id\":");
        put::id(out, id.uuid());
        out.put_u8(b',');
    };
    out.put_u8(b'{');
    let replayed = match *outcome {
        Outcome::Completed { receipt, replayed } => {
            txn_id(out, receipt.id);
            out.put_slice(b"\"status\":\"completed\"");
            replayed
        }
        Outcome::Rejected {
            rejection,
            replayed,
        } => {
            if let Some(id) = rejection.id {
                txn_id(out, id);
            }
            put_rejected(out, ErrorCode::of_rejection(rejection.reason));
            replayed
        }
        Outcome::KeyReused
        | Outcome::KeyExpired
        | Outcome::AccountNotFound(_)
        | Outcome::InvalidAmount(_) => {
            let problem = Problem::of_outcome(outcome);
            // Every outcome but a completed one has a problem.
            put_rejected(
                out,
                problem.map_or(ErrorCode::InvalidJson, |found| found.code),
            );
            false
        }
    };
    if replayed {
        out.put_slice(b",\"replayed\":true");
    }
    out.put_u8(b'}');
}

fn put_rejected(out: &mut BytesMut, code: ErrorCode) {
    out.put_slice(b"\"status\":\"rejected\",\"code\":\"");
    out.put_slice(code.as_str().as_bytes());
    out.put_u8(b'"');
}

fn put_refused(out: &mut BytesMut, refused: Refused) {
    out.put_slice(b"{\"status\":\"");
    out.put_slice(status_of_refused(refused).as_str().as_bytes());
    out.put_slice(b"\",\"code\":\"");
    out.put_slice(code_of_refused(refused).as_str().as_bytes());
    out.put_slice(b"\"}");
}

/// `GET /balance/{id}`.
pub(in crate::http) fn balance(answer: &BalanceAnswer) -> Bytes {
    let balance = &answer.balance;
    let mut out = BytesMut::with_capacity(192);
    out.put_slice(b"{\"account_id\":");
    put::integer(&mut out, balance.account_id.get());
    out.put_slice(b",\"balance\":");
    put::decimal(&mut out, balance.balance, balance.currency.digits);
    out.put_slice(b",\"cached\":");
    out.put_slice(if answer.cached { b"true" } else { b"false" });
    out.put_slice(b",\"version\":");
    put::integer(&mut out, balance.version);
    out.put_slice(b",\"currency\":\"");
    out.put_slice(balance.currency.code.as_str().as_bytes());
    // As a string too: a reader that holds numbers as doubles loses digits.
    out.put_slice(b"\",\"balance_minor\":\"");
    put::integer(&mut out, balance.balance);
    out.put_slice(b"\"}");
    out.freeze()
}

/// One account.
pub(in crate::http) fn account(row: &AccountRow) -> Bytes {
    let mut out = BytesMut::with_capacity(384);
    put_account(&mut out, row);
    out.freeze()
}

/// A bare list of accounts.
pub(in crate::http) fn accounts(rows: &[AccountRow]) -> Bytes {
    let mut out = BytesMut::with_capacity(16 + rows.len().saturating_mul(320));
    put_list(&mut out, rows, put_account);
    out.freeze()
}

fn put_account(out: &mut BytesMut, row: &AccountRow) {
    let account = &row.account;
    let digits = account.currency.digits;
    out.put_slice(b"{\"account_id\":");
    put::integer(out, account.id.get());
    out.put_slice(b",\"currency\":\"");
    out.put_slice(account.currency.code.as_str().as_bytes());
    out.put_slice(b"\",\"balance\":");
    put::decimal(out, account.balance, digits);
    out.put_slice(b",\"balance_minor\":\"");
    put::integer(out, account.balance);
    out.put_slice(b"\",\"min_balance\":");
    match account.min_balance {
        Some(limit) => put::decimal(out, limit, digits),
        None => out.put_slice(b"null"),
    }
    out.put_slice(b",\"version\":");
    put::integer(out, account.version);
    out.put_slice(b",\"status\":\"");
    out.put_slice(account.status.as_str().as_bytes());
    out.put_slice(b"\",\"name\":");
    put::optional_text(out, row.name.as_deref());
    out.put_slice(b",\"owner\":");
    put::optional_text(out, row.owner.as_deref());
    out.put_slice(b",\"created_at\":");
    put::timestamp(out, row.created_at_ms);
    out.put_slice(b",\"updated_at\":");
    put::timestamp(out, row.updated_at_ms);
    out.put_u8(b'}');
}

/// How much of a transfer is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum View {
    /// In a list of all accounts.
    Row,
    /// In the list of that account: with its side.
    SideOf(AccountId),
    /// Alone: with both sides.
    Whole,
}

/// One transfer or kept rejection, with both sides.
pub(in crate::http) fn record(record: &Record) -> Bytes {
    let mut out = BytesMut::with_capacity(512);
    put_record(&mut out, record, View::Whole);
    out.freeze()
}

/// A bare list of transfers or kept rejections.
pub(in crate::http) fn history(records: &[Record], view: View) -> Bytes {
    let mut out = BytesMut::with_capacity(16 + records.len().saturating_mul(320));
    put_list(&mut out, records, |out, row| put_record(out, row, view));
    out.freeze()
}

fn put_record(out: &mut BytesMut, record: &Record, view: View) {
    match record {
        Record::Completed(transfer) => put_transfer(out, transfer, view),
        Record::Rejected(rejection) => put_rejection(out, rejection, view),
    }
}

fn put_transfer(out: &mut BytesMut, row: &TransferRow, view: View) {
    let digits = row.currency.digits;
    put_parties(out, row.id, row.debit.account_id, row.credit.account_id);
    put::decimal(out, row.amount.get(), digits);
    out.put_slice(b",\"status\":\"completed\",\"currency\":\"");
    out.put_slice(row.currency.code.as_str().as_bytes());
    out.put_slice(b"\",\"created_at\":");
    put::timestamp(out, row.id.unix_ms());
    match view {
        View::Row => {}
        View::SideOf(account_id) => {
            let side = if row.debit.account_id == account_id {
                &row.debit
            } else {
                &row.credit
            };
            put_direction(out, side.direction);
            put_side(out, side, digits, b",\"balance\":", b",\"version\":");
        }
        View::Whole => {
            put_side(
                out,
                &row.debit,
                digits,
                b",\"from_balance\":",
                b",\"from_version\":",
            );
            put_side(
                out,
                &row.credit,
                digits,
                b",\"to_balance\":",
                b",\"to_version\":",
            );
        }
    }
    if let Some(group_id) = row.group_id {
        out.put_slice(b",\"group_id\":");
        put::id(out, group_id);
    }
    if let Some(effective_at) = row.effective_at_ms {
        out.put_slice(b",\"effective_at\":");
        put::timestamp(out, u64::try_from(effective_at).unwrap_or(0));
    }
    put_rest(out, row.reverses, &row.details);
}

fn put_rejection(out: &mut BytesMut, row: &RejectionRow, view: View) {
    put_parties(out, row.id, row.debit_account_id, row.credit_account_id);
    // No currency has its digits to give: it is shown as asked for.
    out.put_slice(row.amount.decimal().to_string().as_bytes());
    out.put_slice(b",\"status\":\"rejected\",\"code\":\"");
    out.put_slice(ErrorCode::of_rejection(row.reason).as_str().as_bytes());
    out.put_slice(b"\",\"account_id\":");
    put::integer(out, row.account_id.get());
    out.put_slice(b",\"created_at\":");
    put::timestamp(out, row.id.unix_ms());
    if let View::SideOf(account_id) = view {
        put_direction(
            out,
            if row.debit_account_id == account_id {
                Direction::Debit
            } else {
                Direction::Credit
            },
        );
    }
    put_rest(out, row.reverses, &row.details);
}

fn put_parties(out: &mut BytesMut, id: TransferId, from: AccountId, to: AccountId) {
    out.put_slice(b"{\"id\":");
    put::id(out, id.uuid());
    out.put_slice(b",\"from\":");
    put::integer(out, from.get());
    out.put_slice(b",\"to\":");
    put::integer(out, to.get());
    out.put_slice(b",\"amount\":");
}

fn put_direction(out: &mut BytesMut, direction: Direction) {
    out.put_slice(b",\"direction\":\"");
    out.put_slice(direction.as_str().as_bytes());
    out.put_u8(b'"');
}

fn put_side(out: &mut BytesMut, side: &Side, digits: u8, balance: &[u8], version: &[u8]) {
    out.put_slice(balance);
    put::decimal(out, side.balance, digits);
    out.put_slice(version);
    put::integer(out, side.version);
}

fn put_rest(out: &mut BytesMut, reverses: Option<TransferId>, details: &Details) {
    if let Some(original) = reverses {
        out.put_slice(b",\"reverses\":");
        put::id(out, original.uuid());
    }
    if let Some(reference) = &details.reference {
        out.put_slice(b",\"reference\":");
        put::text(out, reference);
    }
    if let Some(category) = &details.category {
        out.put_slice(b",\"category\":");
        put::text(out, category);
    }
    if let Some(metadata) = &details.metadata {
        // Stored as `jsonb`, so it is JSON text already.
        out.put_slice(b",\"metadata\":");
        out.put_slice(metadata.as_bytes());
    }
    out.put_u8(b'}');
}

fn put_list<T>(out: &mut BytesMut, rows: &[T], put: impl Fn(&mut BytesMut, &T)) {
    out.put_u8(b'[');
    for (index, row) in rows.iter().enumerate() {
        if index != 0 {
            out.put_u8(b',');
        }
        put(out, row);
    }
    out.put_u8(b']');
}

/// A list of the one row that a key led to, of which only its id is kept.
pub(in crate::http) fn expired(txn_id: TransferId) -> Bytes {
    let mut out = BytesMut::with_capacity(80);
    out.put_slice(b"[{\"id\":");
    put::id(&mut out, txn_id.uuid());
    out.put_slice(b",\"status\":\"expired\"}]");
    out.freeze()
}

/// `GET /health`.
pub(in crate::http) fn health(ready: bool) -> Bytes {
    Bytes::from_static(if ready {
        b"{\"status\":\"ready\"}"
    } else {
        b"{\"status\":\"unavailable\"}"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_receipt_fits_its_buffer_exactly() {
        let longest = Receipt {
            id: TransferId::from_uuid(uuid::Uuid::max()),
            debit_account_id: AccountId::MAX,
            credit_account_id: AccountId::MAX,
            amount_minor: i64::MAX,
            digits: 2,
        };
        assert_eq!(receipt(&longest).len(), RECEIPT_BYTES_MAX);
    }
}
