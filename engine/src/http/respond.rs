//! Answers, on their way into a response.

use bytes::Bytes;
use hyper::header::{ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::header::{LINK, RETRY_AFTER};
use hyper::{Method, Response, StatusCode, Version};

use super::code::ErrorCode;
use super::problem::Problem;
use super::request_id::X_REQUEST_ID;
use crate::domain::TransferId;

const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const X_NEXT_CURSOR: HeaderName = HeaderName::from_static("x-next-cursor");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Json,
    Problem,
    Html,
}

/// An answer without its connection's concerns.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) kind: Kind,
    pub(super) body: Bytes,
    pub(super) code: Option<ErrorCode>,
    pub(super) txn_id: Option<TransferId>,
    pub(super) replayed: bool,
    pub(super) closes: bool,
    pub(super) allow: Option<&'static str>,
    pub(super) next: Option<Box<NextPage>>,
}

/// Where a list goes on.
#[derive(Debug)]
pub(super) struct NextPage {
    pub(super) link: String,
    pub(super) cursor: String,
}

impl Answer {
    pub(super) fn json(status: StatusCode, body: Bytes) -> Self {
        Self {
            status,
            kind: Kind::Json,
            body,
            code: None,
            txn_id: None,
            replayed: false,
            closes: false,
            allow: None,
            next: None,
        }
    }
}

impl From<Box<Problem>> for Answer {
    fn from(problem: Box<Problem>) -> Self {
        Self {
            status: problem.status,
            kind: Kind::Problem,
            body: problem.body(),
            code: Some(problem.code),
            txn_id: problem.txn_id,
            replayed: problem.replayed,
            closes: problem.closes,
            allow: problem.allow,
            next: None,
        }
    }
}

/// What the request decides about the form of its answer.
#[derive(Debug)]
pub(super) struct Occasion<'a> {
    pub(super) method: &'a Method,
    pub(super) version: Version,
    pub(super) request_id: HeaderValue,
    pub(super) retry_after: &'a HeaderValue,
}

/// The response to that request.
pub(super) fn response(answer: Answer, occasion: Occasion<'_>) -> Response<Bytes> {
    let length = answer.body.len();
    let head_only = *occasion.method == Method::HEAD;
    let body = if head_only { Bytes::new() } else { answer.body };
    let mut response = Response::new(body);
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    let kind = match answer.kind {
        Kind::Json => JSON,
        Kind::Problem => PROBLEM_JSON,
        Kind::Html => HTML,
    };
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(X_REQUEST_ID, occasion.request_id);
    if head_only {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    if answer.replayed {
        headers.insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    if answer.status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, occasion.retry_after.clone());
    }
    if let Some(allow) = answer.allow {
        headers.insert(ALLOW, HeaderValue::from_static(allow));
    }
    // HTTP/2 has streams to end instead of connections.
    if answer.closes && occasion.version < Version::HTTP_2 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(next) = answer.next {
        // A path, a query as sent in a URI, and hex: all fit for a header.
        if let (Ok(link), Ok(cursor)) = (next.link.try_into(), next.cursor.try_into()) {
            headers.insert(LINK, link);
            headers.insert(X_NEXT_CURSOR, cursor);
        }
    }
    response
}
