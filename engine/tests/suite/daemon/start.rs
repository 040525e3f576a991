//! What keeps an engine from starting: an exit code for the supervisor and one
//! line for the person.

use engine::store::link::Link;

use super::ledger;
use super::servers::Private;
use crate::support::daemon::{Daemon, Ended, run_to_end, serve_command};
use crate::support::{TestDatabase, database, empty_database};

const CONFIGURATION: i32 = 64;
pub(super) const UNAVAILABLE: i32 = 69;

/// The last line says what is wrong, in these words; all others are log lines.
#[track_caller]
pub(super) fn check(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    let (last, before) = ended.log.split_last().expect("it says why");
    assert!(last.starts_with("error: "), "{ended:?}");
    for word in words {
        assert!(last.contains(word), "{word} is not in {last}");
    }
    let logged = |line: &String| serde_json::from_str::<serde_json::Value>(line).is_ok();
    assert!(before.iter().all(logged), "{before:?}");
    let told = format!("{ended:?}");
    assert!(!told.contains("s3cret"), "{told}");
}

pub(super) async fn start(url: &str, arguments: &[&str]) -> Ended {
    run_to_end(serve_command(url, arguments)).await
}

async fn alter(database: &TestDatabase, statement: &str) {
    let link = Link::open(&database.url).await.unwrap();
    link.client.batch_execute(statement).await.unwrap();
    link.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_not_this_engines_is_named_with_its_remedy() {
    let empty = empty_database().await;
    check(
        &start(&empty.url, &[]).await,
        UNAVAILABLE,
        &["engine migrate"],
    );

    let database = database().await;
    check(
        &start(&database.url_as("engine_app"), &[]).await,
        UNAVAILABLE,
        &["sql/roles.sql"],
    );
    let changes = [
        (
            "INSERT INTO refinery_schema_history (version, name, applied_on, checksum)
             VALUES (99, 'future', '2026-01-01T00:00:00Z', '1')",
            &["version 99", "newer engine"][..],
        ),
        (
            "DELETE FROM refinery_schema_history WHERE version > 1",
            &["version 1", "engine migrate"],
        ),
        (
            "UPDATE refinery_schema_history SET checksum = '1'",
            &["V1__ledger", "engine migrate"],
        ),
    ];
    for (change, words) in changes {
        alter(&database, change).await;
        check(&start(&database.url, &[]).await, UNAVAILABLE, words);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_reached_is_named_by_its_setting() {
    // Port 1 of loopback: nobody listens there.
    let url = "postgres://engine_app:s3cret@127.0.0.1:1/ledger";
    check(&start(url, &[]).await, UNAVAILABLE, &["--database-url"]);
    let private = Private::start(false, &[]).await;
    let url = private.ledger().await;
    let (_, rest) = url.split_once('@').unwrap();
    let wrong = format!("postgres://postgres:s3cret@{rest}");
    check(
        &start(&wrong, &[]).await,
        UNAVAILABLE,
        &["--database-url", "password"],
    );
    let nowhere = url.replace("/ledger", "/nowhere");
    check(
        &start(&nowhere, &[]).await,
        UNAVAILABLE,
        &["--database-url", "nowhere"],
    );
    private.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_setting_is_refused_before_anything_is_touched() {
    let good = "postgres://engine_app:s3cret@127.0.0.1:1/ledger";
    for (url, arguments, word) in [
        ("mysql://u:s3cret@h/d", &[][..], "--database-url"),
        ("postgres://127.0.0.1/ledger", &[], "--database-url"),
        (good, &["--redis-url", "http://:s3cret@h"], "--redis-url"),
        (good, &["--request-deadline", "5"], "--request-deadline"),
        (good, &["--request-deadline", "99ms"], "--request-deadline"),
        (
            good,
            &["--batch-transfers-max", "8191"],
            "--batch-transfers-max",
        ),
        (
            good,
            &["--batch-accounts-max", "16383"],
            "--batch-accounts-max",
        ),
        (good, &["--queue-depth-max", "8191"], "--queue-depth-max"),
        (
            good,
            &["--idempotency-retention", "23h"],
            "--idempotency-retention",
        ),
        (good, &["--cache-ttl", "999ms"], "--cache-ttl"),
        (good, &["--migrate"], "--migrate-database-url"),
        (good, &["--nonsense"], "--nonsense"),
    ] {
        let ended = start(url, arguments).await;
        assert_eq!(ended.code, Some(CONFIGURATION), "{word} {ended:?}");
        let told = ended.log.join("\n");
        assert!(told.starts_with("error: ") && told.contains(word), "{told}");
        assert!(!told.contains("s3cret"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_is_named_by_its_setting() {
    let database = ledger().await;
    let first = Daemon::start(&database, &[]).await;
    let (api, admin) = (first.api.to_string(), first.admin.to_string());
    for (setting, address) in [("--listen", &api), ("--admin-listen", &admin)] {
        // Each setting may be given once.
        let mut command = without(&serve_command(&database.url, &[]), setting);
        command.args([setting, address]);
        check(&run_to_end(command).await, UNAVAILABLE, &[setting, address]);
    }
    assert_eq!(first.stop().await.code, Some(0));
}

/// The command without one setting and its value.
fn without(command: &tokio::process::Command, setting: &str) -> tokio::process::Command {
    let arguments: Vec<_> = command
        .as_std()
        .get_args()
        .map(std::ffi::OsStr::to_os_string)
        .collect();
    let place = arguments.iter().position(|one| one == setting).unwrap();
    let mut shorter = crate::support::daemon::engine_command();
    shorter.args(&arguments[..place]);
    shorter.args(&arguments[place + 2..]);
    shorter
}
