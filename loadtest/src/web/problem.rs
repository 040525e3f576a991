//! A request that cannot be done, as the page and programs read it.
//!
//! Owns: the form of an error answer (RFC 9457).

use hyper::StatusCode;
use serde::Serialize;

use crate::session::Refusal;

#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(super) status: StatusCode,
    code: &'static str,
    detail: String,
}

#[derive(Serialize)]
struct Body<'a> {
    status: u16,
    code: &'a str,
    detail: &'a str,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
        }
    }

    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", detail)
    }

    pub(super) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "not_now", detail)
    }

    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    pub(super) fn body(&self) -> String {
        let body = Body {
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
        };
        // A struct of numbers and texts cannot fail to be written.
        serde_json::to_string(&body).unwrap_or_default()
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            Refusal::Users { .. } | Refusal::Rate | Refusal::ClosedModel | Refusal::Files(_) => {
                Self::invalid(detail)
            }
            Refusal::Over | Refusal::TooOften => Self::conflict(detail),
        }
    }
}
