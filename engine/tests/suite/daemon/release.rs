//! A release that brings a migration, delivered and taken back: the engine of the
//! version before serves on beside it.

use engine::store::migrate;
use serde_json::Value;

use super::start::{UNAVAILABLE, check, start};
use super::{ledger, stored};
use crate::support::TestDatabase;
use crate::support::daemon::{Daemon, engine_command, eventually, run_to_end};

/// What an expanding migration may do, and its line in the history.
fn next_release() -> String {
    format!(
        "ALTER TABLE transfers ADD COLUMN note text;
         ALTER TABLE accounts ADD COLUMN tier smallint NOT NULL DEFAULT 0;
         CREATE TABLE notes (id bigint PRIMARY KEY);
         INSERT INTO refinery_schema_history (version, name, applied_on, checksum)
         VALUES ({}, 'next', '2026-01-01T00:00:00Z', '1')",
        migrate::version() + 1
    )
}

async fn alter(database: &TestDatabase, statement: &str) {
    let link = database.connect().await;
    link.client.batch_execute(statement).await.unwrap();
    link.close().await;
}

async fn pay(daemon: &Daemon) {
    let paid = daemon
        .post("/transaction", r#"{"from":0,"to":1,"amount":1}"#)
        .await;
    assert_eq!(paid.status, 200, "{paid:?}");
}

async fn schema_is(daemon: &Daemon, expected: u16, level: &str) {
    eventually(level, async || {
        let (status, checks) = daemon.readyz().await;
        status == expected && checks["schema"]["status"] == level
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_engine_serves_on_under_the_next_releases_schema() {
    let database = ledger().await;
    let daemon = Daemon::start(&database, &[]).await;
    daemon.open(1, 0).await;
    pay(&daemon).await;
    assert_eq!(daemon.metrics().await.sum("engine_schema_newer", ""), 0.0);
    alter(&database, &next_release()).await;
    schema_is(&daemon, 200, "warning").await;
    pay(&daemon).await;
    assert_eq!(stored(&database).await, 2);
    assert_eq!(daemon.metrics().await.sum("engine_schema_newer", ""), 1.0);
    let told = daemon.log.all().into_iter().any(|line| {
        let line: Value = serde_json::from_str(&line).unwrap();
        line["level"] == "WARN" && line["check"] == "schema"
    });
    assert!(told, "{:?}", daemon.log.all());
    // One more, and nobody promised anything.
    let after_next = "UPDATE refinery_schema_history SET version = version + 1
         WHERE version = (SELECT max(version) FROM refinery_schema_history)";
    alter(&database, after_next).await;
    schema_is(&daemon, 503, "failed").await;
    assert_eq!(daemon.metrics().await.sum("engine_schema_newer", ""), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_engine_is_unready_on_a_schema_changed_by_hand_or_older() {
    let changes = [
        "UPDATE refinery_schema_history SET checksum = '1' WHERE version = 1",
        "DELETE FROM refinery_schema_history WHERE version > 1",
    ];
    for change in changes {
        let database = ledger().await;
        let daemon = Daemon::start(&database, &[]).await;
        alter(&database, change).await;
        schema_is(&daemon, 503, "failed").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_of_the_release_before_comes_back() {
    let database = ledger().await;
    alter(&database, &next_release()).await;
    let migrate = |name: &str| {
        let mut command = engine_command();
        command.args([name, "--database-url", &database.url]);
        run_to_end(command)
    };
    let migrated = migrate("migrate").await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    let daemon = Daemon::start(&database, &[]).await;
    schema_is(&daemon, 200, "warning").await;
    daemon.open(1, 0).await;
    pay(&daemon).await;
    let verified = migrate("verify").await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    drop(daemon);
    // Its own history must be there all the same.
    let change = "UPDATE refinery_schema_history SET checksum = '1' WHERE version = 1";
    alter(&database, change).await;
    let refused = start(&database.url_as("engine_app"), &[]).await;
    check(&refused, UNAVAILABLE, &["V1__ledger", "engine migrate"]);
}
