//! Routes that only read.

use hyper::StatusCode;

use super::super::code::ErrorCode;
use super::super::ports::{Ledger, Observer};
use super::super::problem::{Fallible, Problem};
use super::super::query::{self, HistoryQuestion};
use super::super::respond::{Answer, NextPage};
use super::super::wire::answer::{self, View};
use super::transfers::{no_transaction, path_transaction};
use super::{Call, path_account, unanswered};
use crate::domain::fingerprint;
use crate::store::read::{Fate, HistoryError, HistoryQuery};

/// `GET /balance/{id}`.
pub(super) async fn balance<L: Ledger, O: Observer>(
    call: &Call<'_, L, O>,
    id: &str,
) -> Fallible<Answer> {
    let id = path_account(id)?;
    let freshness = query::balance(call.parts.uri.query())?;
    let found = call.edge.ledger.balance(id, freshness).await;
    let found = found.map_err(|error| unanswered(&error, call.request_id))?;
    let found = found.ok_or_else(|| Problem::no_account(id))?;
    Ok(Answer::json(StatusCode::OK, answer::balance(&found)))
}

/// `GET /accounts/{id}`.
pub(super) async fn account<L: Ledger, O: Observer>(
    call: &Call<'_, L, O>,
    id: &str,
) -> Fallible<Answer> {
    let id = path_account(id)?;
    query::none(call.parts.uri.query())?;
    let found = call.edge.ledger.account(id).await;
    let found = found.map_err(|error| unanswered(&error, call.request_id))?;
    let found = found.ok_or_else(|| Problem::no_account(id))?;
    Ok(Answer::json(StatusCode::OK, answer::account(&found)))
}

/// `GET /accounts`.
pub(super) async fn accounts<L: Ledger, O: Observer>(call: &Call<'_, L, O>) -> Fallible<Answer> {
    let (after, limit) = query::accounts(call.parts.uri.query())?;
    let rows = call.edge.ledger.accounts(after, limit).await;
    let rows = rows.map_err(|error| unanswered(&error, call.request_id))?;
    let mut listed = call.listed(answer::accounts(&rows))?;
    // A full page may be the last; the next one is then empty.
    if rows.len() == usize::from(limit.get())
        && let Some(last) = rows.last()
    {
        listed.next = Some(next_page(call, query::account_cursor(last.account.id)));
    }
    Ok(listed)
}

/// `GET /transactions/{txn_id}`.
pub(super) async fn transaction<L: Ledger, O: Observer>(
    call: &Call<'_, L, O>,
    id: &str,
) -> Fallible<Answer> {
    let id = path_transaction(id)?;
    query::none(call.parts.uri.query())?;
    let found = call.edge.ledger.transaction(id).await;
    let found = found.map_err(|error| unanswered(&error, call.request_id))?;
    let found = found.ok_or_else(|| no_transaction(id))?;
    let mut shown = Answer::json(StatusCode::OK, answer::record(&found));
    shown.txn_id = Some(id);
    Ok(shown)
}

/// `GET /transactions`.
pub(super) async fn history<L: Ledger, O: Observer>(call: &Call<'_, L, O>) -> Fallible<Answer> {
    match query::history(call.parts.uri.query())? {
        HistoryQuestion::List(query) => list(call, *query).await,
        HistoryQuestion::Fate(key) => fate(call, &key).await,
    }
}

async fn list<L: Ledger, O: Observer>(
    call: &Call<'_, L, O>,
    query: HistoryQuery,
) -> Fallible<Answer> {
    let view = query.account.map_or(View::Row, View::SideOf);
    let page = call.edge.ledger.history(query).await;
    let page = page.map_err(|error| match error {
        HistoryError::InvalidCursor => query::bad_cursor(),
        HistoryError::AccountNotFound(account_id) => Problem::no_account(account_id),
        HistoryError::AccountNeeded => Problem::new(
            ErrorCode::InvalidParameter,
            "category and reference filter within an account: give account= too.",
        ),
        HistoryError::Read(error) => unanswered(&error, call.request_id),
    })?;
    let mut listed = call.listed(answer::history(&page.rows, view))?;
    listed.next = page
        .next
        .map(|last| next_page(call, query::transfer_cursor(last)));
    Ok(listed)
}

async fn fate<L: Ledger, O: Observer>(call: &Call<'_, L, O>, key: &str) -> Fallible<Answer> {
    let principal = &call.edge.settings.anonymous_principal;
    let hash = fingerprint::key_hash(principal, key);
    let found = call.edge.ledger.fate(hash).await;
    let found = found.map_err(|error| unanswered(&error, call.request_id))?;
    let body = match &found {
        None => answer::history(&[], View::Row),
        Some(Fate {
            record: Some(record),
            ..
        }) => answer::history(std::slice::from_ref(record), View::Row),
        Some(Fate {
            record: None,
            txn_id,
            ..
        }) => answer::expired(*txn_id),
    };
    Ok(Answer::json(StatusCode::OK, body))
}

fn next_page<L, O>(call: &Call<'_, L, O>, cursor: String) -> Box<NextPage> {
    let uri = &call.parts.uri;
    Box::new(NextPage {
        link: query::next_page(uri.path(), uri.query(), &cursor),
        cursor,
    })
}
