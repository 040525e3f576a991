//! The HTTP edge: from bytes to one checked question, from its answer to bytes.
//!
//! Owns: the public contract: routes, JSON, error codes, headers, limits of size
//! and time, connections.
//! Never: decides about money, speaks SQL, or waits without a bound.
//! Bound: `connections_max` connections, `bodies_bytes_max` bytes of bodies,
//! `answers_bytes_max` bytes of answers, `request_deadline` for a body to arrive,
//! `write_timeout` for an answer to leave; see [`Settings`].
//! Invariant: whatever passes this room has the right form; whatever is refused
//! here did nothing.
//!
//! A request goes `server` -> `edge` -> `handle` -> `wire` -> [`Ledger`] and back
//! through `wire` and `respond`.

mod activity;
mod answers;
mod body;
pub mod code;
mod door;
mod edge;
mod files;
mod handle;
mod headers;
mod json;
mod metadata;
pub mod openapi;
pub mod ports;
mod problem;
mod query;
mod request_id;
mod respond;
pub mod route;
mod server;
mod socket;
mod time;
mod version;
mod wire;

#[cfg(test)]
mod tests;

pub use code::ErrorCode;
pub use edge::{Edge, Settings};
pub use files::{Room, make_room};
pub use ports::{
    BalanceAnswer, Freshness, Ledger, Observer, RequestFacts, TransferFacts, TransferStatus,
};
pub use route::Route;
pub use server::{Stopping, serve, serve_stream};
