//! The contract as a document, for tools (`/openapi.json`) and people (`/docs`).
//!
//! Kept by hand, so that it says what a reader needs; the tests below hold it to
//! the router and the error codes.

use bytes::Bytes;

const DOCUMENT: &str = include_str!("openapi.json");
const PAGE: &str = include_str!("docs.html");

/// The OpenAPI document, as `engine openapi` prints it.
#[must_use]
pub const fn document_text() -> &'static str {
    DOCUMENT
}

pub(super) fn document() -> Bytes {
    Bytes::from_static(DOCUMENT.as_bytes())
}

/// One page that shows the document without a network.
pub(super) fn page() -> Bytes {
    Bytes::from_static(PAGE.as_bytes())
}
