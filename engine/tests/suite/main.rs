//! The daemon and its rooms against a real PostgreSQL and Redis.
//!
//! Run through `ops/test`, which starts both privately and names them in
//! `ENGINE_TEST_DATABASE_URL` (a superuser on the `postgres` database; every
//! test makes a database of its own) and `ENGINE_TEST_REDIS_URL`.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails there; clippy knows only functions marked #[test]"
)]

mod cache;
mod commit;
mod daemon;
mod dev;
mod reads;
mod schema;
mod support;
mod telemetry;
mod traps;
