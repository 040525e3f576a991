//! The edge over real sockets, with a ledger in memory.
//!
//! The fold is the real one; only storage and concurrency are missing.

mod account_routes;
mod bad_input;
mod client;
mod connections;
mod fake;
mod routes;
mod state;
mod trouble;
mod unread;
mod watch;
