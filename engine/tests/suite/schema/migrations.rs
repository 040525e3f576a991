//! Migrations: once each, by whoever comes first, and never against another history.

use std::time::Duration;

use engine::store::link::{Link, LinkError};
use engine::store::migrate::{self, SchemaError, Settings};

use crate::support::{self, TestDatabase};

/// Changes the history, then asks both the starting engine and `engine migrate`.
async fn check(change: &str, is_expected: fn(&SchemaError) -> bool, advice: &str) {
    let database = support::database().await;
    let link = database.connect().await;
    link.client.batch_execute(change).await.unwrap();
    let error = migrate::check_schema(&link.client).await.unwrap_err();
    assert!(is_expected(&error), "change={change} error={error:?}");
    assert!(error.to_string().contains(advice), "{error}");
    let error = migrate::run(&database.url, &Settings::default())
        .await
        .unwrap_err();
    assert!(is_expected(&error), "change={change} error={error:?}");
    assert!(!error.is_unavailable());
}

async fn count(database: &TestDatabase, query: &str) -> i64 {
    let link = database.connect().await;
    link.client.query_one(query, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn engines_starting_at_once_apply_each_migration_once() {
    let database = support::empty_database().await;
    let settings = Settings::default();
    let run = || migrate::run(&database.url, &settings);
    let (first, second, third) = tokio::try_join!(run(), run(), run()).unwrap();
    let mut applied = [first.applied, second.applied, third.applied].concat();
    applied.sort();
    assert_eq!(applied, ["V1__ledger", "V2__currencies"]);
    assert_eq!(first.version, migrate::version());
    let again = run().await.unwrap();
    assert_eq!(again.applied, [""; 0]);
    assert_eq!(
        count(&database, "SELECT count(*) FROM refinery_schema_history").await,
        2
    );
}

#[tokio::test]
async fn an_empty_database_is_told_to_migrate() {
    let database = support::empty_database().await;
    let link = database.connect().await;
    let error = migrate::check_schema(&link.client).await.unwrap_err();
    assert!(matches!(error, SchemaError::NoSchema), "{error:?}");
    assert!(error.to_string().contains("`engine migrate`"), "{error}");
}

#[tokio::test]
async fn a_migration_applied_in_another_wording_stops_the_engine() {
    check(
        "UPDATE refinery_schema_history SET checksum = '1' WHERE version = 1",
        |error| matches!(error, SchemaError::Diverged { version: 1, name } if name == "ledger"),
        "V1__ledger",
    )
    .await;
    check(
        "UPDATE refinery_schema_history SET name = 'other' WHERE version = 2",
        |error| matches!(error, SchemaError::Diverged { version: 2, .. }),
        "V2__other",
    )
    .await;
}

#[tokio::test]
async fn a_schema_from_the_future_stops_the_engine() {
    check(
        "INSERT INTO refinery_schema_history
         SELECT 99, 'future', applied_on, '1' FROM refinery_schema_history WHERE version = 1",
        |error| matches!(error, SchemaError::Newer { applied: 99, known } if *known == migrate::version()),
        "newer engine",
    )
    .await;
}

#[tokio::test]
async fn a_migration_left_out_stops_the_engine() {
    check(
        "DELETE FROM refinery_schema_history WHERE version = 1",
        |error| matches!(error, SchemaError::Missing { version: 1, .. }),
        "V1__ledger",
    )
    .await;
}

#[tokio::test]
async fn a_schema_that_is_behind_is_brought_up_by_migrate() {
    let database = support::database().await;
    let link = database.connect().await;
    link.client
        .batch_execute(
            "DELETE FROM refinery_schema_history WHERE version = 2; DELETE FROM currencies",
        )
        .await
        .unwrap();
    let error = migrate::check_schema(&link.client).await.unwrap_err();
    assert!(
        matches!(error, SchemaError::TooOld { applied: 1, known } if known == migrate::version()),
        "{error:?}"
    );
    assert!(error.to_string().contains("`engine migrate`"), "{error}");
    let report = migrate::run(&database.url, &Settings::default())
        .await
        .unwrap();
    assert_eq!(report.applied, ["V2__currencies"]);
    migrate::check_schema(&link.client).await.unwrap();
}

#[tokio::test]
async fn a_migration_that_fails_leaves_nothing_and_says_why() {
    let database = support::empty_database().await;
    let link = database.connect().await;
    link.client
        .batch_execute("CREATE TABLE rejections ()")
        .await
        .unwrap();
    let error = migrate::run(&database.url, &Settings::default())
        .await
        .unwrap_err();
    assert!(matches!(error, SchemaError::Failed { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("V1__ledger") && text.contains("\"rejections\" already exists"),
        "{text}"
    );
    assert_eq!(
        count(
            &database,
            "SELECT count(*) FROM pg_class WHERE relname = 'currencies'"
        )
        .await,
        0
    );
    assert_eq!(
        count(&database, "SELECT count(*) FROM refinery_schema_history").await,
        0
    );
}

#[tokio::test]
async fn a_run_does_not_wait_for_ever_for_another() {
    let database = support::empty_database().await;
    let other = database.connect().await;
    other.lock_schema(Duration::from_secs(1)).await.unwrap();
    let settings = Settings {
        lock_wait: Duration::from_millis(50),
    };
    let error = migrate::run(&database.url, &settings).await.unwrap_err();
    assert!(matches!(error, SchemaError::Locked { .. }), "{error:?}");
    assert!(error.is_unavailable());
    other.close().await;
    migrate::run(&database.url, &Settings::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_wrong_url_says_what_is_wrong_with_it() {
    let database = support::database().await;
    let error = Link::open(&database.url_as("nobody_of_that_name")).await;
    assert!(
        matches!(error, Err(LinkError::WrongPassword(_))),
        "{error:?}"
    );
    let error = Link::open(&database.url.replace(&database.name, "no_such_database")).await;
    assert!(
        matches!(error, Err(LinkError::NoSuchDatabase(_))),
        "{error:?}"
    );
}
