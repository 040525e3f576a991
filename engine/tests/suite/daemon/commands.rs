//! The other commands beside a running engine.

use serde_json::Value;

use super::{engine, stored};
use crate::support::TestDatabase;
use crate::support::daemon::{Ended, engine_command, run_to_end};

async fn run(arguments: &[&str]) -> Ended {
    let mut command = engine_command();
    command.args(arguments);
    run_to_end(command).await
}

async fn tamper(database: &TestDatabase, statement: &str) {
    let link = database.connect().await;
    link.client.batch_execute(statement).await.unwrap();
    link.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_passes_a_sound_ledger_and_names_the_row_that_breaks_it() {
    let (database, daemon) = engine(2, 100).await;
    // As a role that only reads.
    let url = database.url_as("engine_read");
    let sound = run(&["verify", "--database-url", &url]).await;
    assert_eq!(sound.code, Some(0), "{sound:?}");
    tamper(
        &database,
        "UPDATE accounts SET balance = balance + 1 WHERE id = 2",
    )
    .await;
    let broken = run(&["verify", "--database-url", &url]).await;
    assert_eq!(broken.code, Some(1), "{broken:?}");
    let told = broken.log.last().unwrap();
    assert!(told.contains("is broken"), "{told}");
    let report = run(&["verify", "--json", "--database-url", &url]).await;
    let report: Value = serde_json::from_str(&report.out.join("\n")).unwrap();
    assert!(report["checks"].is_array(), "{report}");
    assert_eq!(stored(&database).await, 2);
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_openapi_agree_with_the_engine() {
    let (_database, daemon) = engine(1, 0).await;
    let address = daemon.api.to_string();
    let well = run(&["health", "--listen", &address]).await;
    assert_eq!(well.code, Some(0), "{well:?}");
    let printed: Value = serde_json::from_str(&run(&["openapi"]).await.out.join("\n")).unwrap();
    assert_eq!(printed, daemon.get("/openapi.json").await.json());
    assert_eq!(daemon.stop().await.code, Some(0));
    let gone = run(&["health", "--listen", &address]).await;
    assert_eq!(gone.code, Some(1), "{gone:?}");
    assert!(gone.log.last().unwrap().contains(&address), "{gone:?}");
}
