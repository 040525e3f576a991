//! What each route does, once its request is known to be for it.
//!
//! Owns: the way from a request to its answer: header, body, form, question,
//! answer. The hot route runs inline; the others are boxed, so that the future
//! of every request stays as small as the hot one.
//! Never: writes bytes of JSON itself, or touches a connection.

mod accounts;
mod reads;
mod transfers;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Body as _, Incoming};
use hyper::http::request::Parts;
use hyper::{HeaderMap, StatusCode, Uri};
use tokio::sync::Semaphore;

use super::activity::Activity;
use super::answers::{self, Room};
use super::body::{self, BATCH_BYTES_MAX, Body, SINGLE_BYTES_MAX};
use super::code::ErrorCode;
use super::edge::Edge;
use super::headers;
use super::openapi;
use super::ports::{Ledger, Observer};
use super::problem::{Fallible, Problem};
use super::query;
use super::respond::{Answer, Kind};
use super::route::{self, Found, Route};
use super::wire::answer;
use crate::admission::Refused;
use crate::domain::AccountId;
use crate::store::read::{Corruption, ReadError};

/// Bodies beyond this (some 600 plain transfers) are parsed on the blocking
/// pool: no other connection shall wait a millisecond for them.
const PARSE_INLINE_BYTES_MAX: usize = 64 * 1024;

/// About what the answer says of one transfer or account, without the texts that
/// were sent with it.
const RESULT_BYTES: usize = 256;

/// Past the deadline, for answers that are already on their way.
const BACKSTOP: Duration = Duration::from_millis(500);

/// One request, its body not read yet.
pub(super) struct Call<'a, L, O> {
    pub(super) edge: &'a Edge<L, O>,
    /// Of its connection: there its large answers count.
    pub(super) activity: &'a Arc<Activity>,
    pub(super) parts: Parts,
    pub(super) deadline: Instant,
    /// As echoed.
    pub(super) request_id: &'a str,
}

/// Finds the route and answers.
pub(super) async fn answer<L: Ledger, O: Observer>(
    call: &mut Call<'_, L, O>,
    incoming: Incoming,
    route: &mut Option<Route>,
) -> Fallible<Answer> {
    headers::check_size(&call.parts, call.edge.settings.header_bytes_max)?;
    match route::find(&call.parts.method, call.parts.uri.path()) {
        Found::Route(Route::Transfer, _) => {
            *route = Some(Route::Transfer);
            transfers::one(call, incoming).await
        }
        Found::Route(found, parameter) => {
            *route = Some(found);
            if found.answers_at_length() {
                // Before anything is read; what moves money takes its room later.
                let (edge, own) = (call.edge, &call.activity.unread);
                answers::check_room(&edge.answers, own, edge.settings.answers_bytes_max)
                    .map_err(|problem| unread(problem, &incoming))?;
            }
            let work = Box::pin(cold(call, incoming, found, parameter));
            // Queue and database keep the deadline themselves; this is for what
            // they do one after the other. Nobody waits a second past it.
            let latest = tokio::time::Instant::from_std(call.deadline + BACKSTOP);
            let answered = tokio::time::timeout_at(latest, work).await;
            answered.unwrap_or_else(|_elapsed| Err(Problem::refused(found.too_late()).closing()))
        }
        Found::MethodNotAllowed(allow) => {
            let mut problem = Problem::new(
                ErrorCode::MethodNotAllowed,
                format!("This path takes {allow} only. Nothing was done."),
            );
            problem.allow = Some(allow);
            Err(unread(problem, &incoming))
        }
        Found::Nothing => Err(unread(
            Problem::new(
                ErrorCode::NotFound,
                "There is no such path. Nothing was done. The routes are listed at /docs.",
            ),
            &incoming,
        )),
    }
}

/// A body that nobody reads cannot be followed by another request.
fn unread(problem: Box<Problem>, incoming: &Incoming) -> Box<Problem> {
    if incoming.is_end_stream() {
        problem
    } else {
        problem.closing()
    }
}

async fn cold<L: Ledger, O: Observer>(
    call: &Call<'_, L, O>,
    incoming: Incoming,
    route: Route,
    parameter: Option<&str>,
) -> Fallible<Answer> {
    let id = route::percent_decoded(parameter.unwrap_or_default()).ok_or_else(|| {
        Problem::new(
            ErrorCode::InvalidParameter,
            "The path has broken percent-encoding, or encodes what is not UTF-8. Correct it.",
        )
    })?;
    match route {
        Route::Transfers => transfers::many(call, incoming).await,
        Route::Reversal => transfers::reversal(call, incoming, &id).await,
        Route::OpenAccounts => accounts::open(call, incoming).await,
        Route::ChangeAccount => accounts::change(call, incoming, &id).await,
        // Transfer: answered inline.
        Route::Transfer
        | Route::History
        | Route::Transaction
        | Route::Balance
        | Route::Accounts
        | Route::Account
        | Route::Health
        | Route::OpenApi
        | Route::Docs => {
            body::check_announced(&incoming, SINGLE_BYTES_MAX)?;
            read(call, route, &id).await
        }
    }
}

async fn read<L: Ledger, O: Observer>(
    call: &Call<'_, L, O>,
    route: Route,
    id: &str,
) -> Fallible<Answer> {
    match route {
        Route::History => reads::history(call).await,
        Route::Transaction => reads::transaction(call, id).await,
        Route::Balance => reads::balance(call, id).await,
        Route::Accounts => reads::accounts(call).await,
        Route::Account => reads::account(call, id).await,
        Route::Health => {
            query::none(call.parts.uri.query())?;
            let ready = call.edge.ledger.is_ready();
            let status = if ready {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            Ok(Answer::json(status, answer::health(ready)))
        }
        Route::OpenApi => {
            query::none(call.parts.uri.query())?;
            Ok(Answer::json(StatusCode::OK, openapi::document()))
        }
        Route::Docs => {
            query::none(call.parts.uri.query())?;
            let mut page = Answer::json(StatusCode::OK, openapi::page());
            page.kind = Kind::Html;
            Ok(page)
        }
        Route::Transfer
        | Route::Transfers
        | Route::Reversal
        | Route::OpenAccounts
        | Route::ChangeAccount => Err(Problem::new(ErrorCode::NotFound, "Not a read.")),
    }
}

impl<L: Ledger, O: Observer> Call<'_, L, O> {
    /// The body of a route that takes JSON.
    async fn body(&self, incoming: Incoming, bytes_max: usize) -> Fallible<Body> {
        query::none(self.parts.uri.query()).map_err(|problem| unread(problem, &incoming))?;
        headers::check_json(&self.parts).map_err(|problem| unread(problem, &incoming))?;
        body::read(incoming, bytes_max, &self.edge.budget, self.deadline).await
    }

    /// Lets go of path and headers. They are slices of what the connection read,
    /// and as long as one of them lives it reads on into new memory.
    fn forget_head(&mut self) {
        self.parts.headers = HeaderMap::new();
        self.parts.uri = Uri::default();
    }

    /// Room for an answer of so many bytes.
    fn room(&self, bytes: usize) -> Fallible<Room> {
        let bytes_max = self.edge.settings.answers_bytes_max;
        Room::take(bytes, &self.edge.answers, self.activity, bytes_max)
    }

    /// A list, whose length is known now. Nothing was done for it but reading.
    fn listed(&self, body: Bytes) -> Fallible<Answer> {
        let room = self.room(body.len())?;
        Ok(Answer::json(StatusCode::OK, room.hold(body)))
    }

    async fn single_body(&self, incoming: Incoming) -> Fallible<Body> {
        self.body(incoming, SINGLE_BYTES_MAX).await
    }

    async fn batch_body(&self, incoming: Incoming) -> Fallible<Body> {
        self.body(incoming, BATCH_BYTES_MAX).await
    }

    fn key(&self, incoming: &Incoming) -> Fallible<Option<Cow<'_, str>>> {
        headers::idempotency_key(&self.parts).map_err(|problem| unread(problem, incoming))
    }
}

/// Parses a body where it costs nobody else time.
async fn parsed<T: Send + 'static>(
    parsing: &Arc<Semaphore>,
    body: Body,
    parse: impl FnOnce(&str) -> Fallible<T> + Send + 'static,
) -> Fallible<T> {
    if body.len() <= PARSE_INLINE_BYTES_MAX {
        return parse(body.text());
    }
    // Only a runtime that is going down does not run it: nothing was done.
    let stopped = || Problem::refused(Refused::Draining);
    let permit = Arc::clone(parsing).acquire_owned().await;
    let permit = permit.map_err(|_closed| stopped())?;
    let parsing = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        parse(body.text())
    });
    parsing.await.unwrap_or_else(|_| Err(stopped()))
}

/// An account id in a path.
fn path_account(id: &str) -> Fallible<AccountId> {
    super::wire::field::account_id("account_id", Some(id))
}

/// Why a read has no answer. Logged here if a person must look.
fn unanswered(error: &ReadError, request_id: &str) -> Box<Problem> {
    match error {
        ReadError::Timeout(_) => Problem::refused(Refused::DeadlineExceeded),
        ReadError::PoolExhausted { .. } => Problem::refused(Refused::QueueFull),
        ReadError::Unavailable { .. } | ReadError::NotPrimary | ReadError::NotDurable => {
            Problem::refused(Refused::DatabaseUnavailable)
        }
        ReadError::Refused(_)
        | ReadError::Corrupt(Corruption {
            table: _,
            column: _,
            row: _,
        }) => {
            tracing::error!(request_id, %error, "a read has no answer");
            Problem::refused(Refused::DatabaseUnavailable)
        }
    }
}
