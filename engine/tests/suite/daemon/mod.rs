//! The real binary as a black box: HTTP in front, a database of its own behind.

mod accounts;
mod commands;
mod connections;
mod contention;
mod contract;
mod crash;
mod database;
mod disk;
mod errors;
mod exhaustion;
mod failover;
mod idempotency;
mod input;
mod leave;
mod load;
mod lookout;
mod metrics;
mod pooler;
mod promoted;
mod random;
mod redis;
mod release;
mod replicas;
mod servers;
mod standby;
mod start;
mod tls;

use serde_json::Value;

use crate::support::daemon::Daemon;
use crate::support::{self, TestDatabase};

const ROLES: &str = include_str!("../../../../sql/roles.sql");

/// A database of its own with the roles of production.
async fn ledger() -> TestDatabase {
    let database = support::database().await;
    grant(&database.url).await;
    database
}

/// Gives the engine's role what it has in production.
async fn grant(url: &str) {
    let link = engine::store::link::Link::open(url).await.unwrap();
    link.client.batch_execute(ROLES).await.unwrap();
    link.close().await;
}

/// An engine on a ledger of its own, with account 0 and funded ones.
async fn engine(accounts: u32, amount: u32) -> (TestDatabase, Daemon) {
    let database = ledger().await;
    let daemon = Daemon::start(&database, &[]).await;
    daemon.open(accounts, amount).await;
    (database, daemon)
}

/// The transfers stored.
async fn stored(database: &TestDatabase) -> i64 {
    count(database, "SELECT count(*) FROM transfers").await
}

async fn count(database: &TestDatabase, query: &str) -> i64 {
    let link = database.connect().await;
    let count = link.client.query_one(query, &[]).await.unwrap().get(0);
    link.close().await;
    count
}

/// A text member of an answer.
#[track_caller]
fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap().to_owned()
}
