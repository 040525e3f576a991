//! The public JSON: requests in, answers out.
//!
//! Owns: the words of the wire (`from`, `to`, `txn_id`), each field's form, and
//! the bytes of every answer.
//! Never: knows about connections, headers or status codes.
//! Invariant: an answer is a pure function of the stored row it shows.

pub(super) mod account;
pub(super) mod answer;
pub(super) mod field;
pub(super) mod put;
pub(super) mod transfer;
