//! A database that is away, stuck, busy or another one than before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use engine::clock::Clock;
use engine::store::read::{HistoryError, HistoryQuery, ReadError, Reader, TimeoutAt};
use uuid::Uuid;

use super::ledger::{account, now_ms};
use super::{proxy, reader, settings};
use crate::support;

#[tokio::test]
async fn a_database_that_is_away_is_unavailable_and_no_error_at_the_start() {
    // Port 1 (tcpmux) has no listener on a machine anyone tests on.
    let away = reader("postgres://x:secret@127.0.0.1:1/x");
    let error = away.balance(account(1)).await.unwrap_err();
    assert!(
        matches!(error, ReadError::Unavailable { source: Some(_) }),
        "{error:?}"
    );
    assert!(!format!("{error} {away:?}").contains("secret"));
    let error = away.history(&HistoryQuery::default()).await.unwrap_err();
    assert!(
        matches!(error, HistoryError::Read(ReadError::Unavailable { .. })),
        "{error:?}"
    );
    let error = away.fate(Uuid::nil()).await.unwrap_err();
    assert_eq!(error.kind(), "unavailable");

    // There, but not this database.
    let nameless = reader(&format!("{}_missing", support::database().await.url));
    let error = nameless.ping().await.unwrap_err();
    assert!(
        matches!(error, ReadError::Unavailable { source: Some(_) }),
        "{error:?}"
    );

    let closed = reader("postgres://x@127.0.0.1:1/x");
    closed.close();
    let error = closed.ping().await.unwrap_err();
    assert!(
        matches!(error, ReadError::Unavailable { source: None }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_server_that_falls_silent_costs_one_time_limit_and_the_session() {
    let database = support::database().await;
    let (url, switches) = proxy::start(&database.url).await;
    let mut settings = settings(&url);
    // Long enough for a busy machine to open a session in.
    settings.operation_timeout = Duration::from_secs(2);
    let reader = Reader::connect(&settings, Clock::System);
    reader.ping().await.unwrap();
    assert_eq!((reader.status().size, reader.status().available), (1, 1));
    switches.swallow.store(true, Ordering::Release);
    let error = reader.ping().await.unwrap_err();
    assert!(
        matches!(error, ReadError::Timeout(TimeoutAt::Operation)),
        "{error:?}"
    );
    assert_eq!(
        reader.status().size,
        0,
        "nobody waits behind a stranger's statement"
    );
    // Nor does a new session come to be.
    settings.operation_timeout = Duration::from_secs(60);
    settings.connect_timeout = Duration::from_secs(2);
    let patient = Reader::connect(&settings, Clock::System);
    let error = patient.ping().await.unwrap_err();
    assert!(
        matches!(error, ReadError::Timeout(TimeoutAt::Connect)),
        "{error:?}"
    );
    switches.swallow.store(false, Ordering::Release);
    reader.ping().await.unwrap();
    patient.ping().await.unwrap();
}

#[tokio::test]
async fn a_full_pool_and_a_held_lock_are_told_apart() {
    let database = support::database().await;
    let link = database.connect().await;
    let mut settings = settings(&database.url);
    settings.connections_max = 1;
    settings.connection_wait_max = Duration::from_millis(50);
    settings.lock_timeout = Duration::from_secs(2);
    let reader = Reader::connect(&settings, Clock::System);
    reader.balance(account(1)).await.unwrap();
    link.client
        .batch_execute("BEGIN; LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    // Polled in this order: the first has the session when the second asks.
    let (first, second) = tokio::join!(
        biased;
        reader.balance(account(1)),
        reader.balance(account(1)),
    );
    assert!(
        matches!(first, Err(ReadError::Timeout(TimeoutAt::Lock))),
        "{first:?}"
    );
    assert!(
        matches!(second, Err(ReadError::PoolExhausted { waited }) if waited == Duration::from_millis(50)),
        "{second:?}"
    );
    settings.lock_timeout = Duration::from_secs(60);
    settings.statement_timeout = Duration::from_millis(100);
    let impatient = Reader::connect(&settings, Clock::System);
    let error = impatient.balance(account(1)).await.unwrap_err();
    assert!(
        matches!(error, ReadError::Timeout(TimeoutAt::Statement)),
        "{error:?}"
    );
    link.client.batch_execute("ROLLBACK").await.unwrap();
    // Refused statements cost no connection.
    assert_eq!((reader.status().size, impatient.status().size), (1, 1));
    assert_eq!(reader.balance(account(1)).await.unwrap(), None);
    assert_eq!(reader.status().size_max, 1);
}

#[tokio::test]
async fn a_missing_table_is_refused_and_a_read_only_server_is_no_primary() {
    let database = support::empty_database().await;
    let empty = reader(&database.url);
    let error = empty.balance(account(1)).await.unwrap_err();
    assert!(matches!(error, ReadError::Refused(_)), "{error:?}");
    assert!(error.to_string().contains("accounts"), "{error}");

    let database = support::database().await;
    let link = database.connect().await;
    let before = reader(&database.url);
    before.ping().await.unwrap();
    link.client
        .batch_execute(&format!(
            "ALTER DATABASE {} SET default_transaction_read_only = on",
            database.name
        ))
        .await
        .unwrap();
    // A server that takes no writes gets no new session.
    let after = reader(&database.url);
    let error = after.ping().await.unwrap_err();
    assert!(matches!(error, ReadError::Unavailable { .. }), "{error:?}");
    before.ping().await.unwrap();
}

#[tokio::test]
async fn a_session_that_the_server_ended_is_replaced() {
    let database = support::database().await;
    let link = database.connect().await;
    let reader = reader(&database.url);
    reader.ping().await.unwrap();
    link.client
        .batch_execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
              WHERE application_name = 'engine-read' AND datname = current_database()",
        )
        .await
        .unwrap();
    // At most the one call that meets the dead session fails.
    if let Err(error) = reader.ping().await {
        assert!(matches!(error, ReadError::Unavailable { .. }), "{error:?}");
    }
    reader.ping().await.unwrap();
}

#[tokio::test]
async fn a_session_in_use_when_forgotten_is_not_leased_again() {
    let database = support::database().await;
    let link = database.connect().await;
    // Sessions of the reader's, other than that one.
    let sessions = async |other_than: i32| {
        link.client
            .query(
                "SELECT pid FROM pg_stat_activity
                  WHERE application_name = 'engine-read' AND datname = current_database()
                    AND pid <> $1",
                &[&other_than],
            )
            .await
            .unwrap()
    };
    let reader = reader(&database.url);
    reader.balance(account(1)).await.unwrap();
    let old: i32 = sessions(0).await[0].get(0);
    // Leased as often as asked for while nothing was forgotten.
    reader.balance(account(1)).await.unwrap();
    assert!(sessions(old).await.is_empty());

    link.client
        .batch_execute("BEGIN; LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let in_use = tokio::spawn({
        let reader = reader.clone();
        async move { reader.balance(account(1)).await }
    });
    loop {
        let row = link
            .client
            .query_one(
                "SELECT count(*) FROM pg_locks WHERE pid = $1 AND NOT granted",
                &[&old],
            )
            .await
            .unwrap();
        if row.get::<_, i64>(0) == 1 {
            break;
        }
    }
    reader.forget_sessions();
    link.client.batch_execute("ROLLBACK").await.unwrap();
    // What was asked before is answered.
    assert_eq!(in_use.await.unwrap().unwrap(), None);
    assert_eq!(reader.status().size, 1, "it came back");
    reader.ping().await.unwrap();
    assert_eq!(sessions(old).await.len(), 1);
    assert_eq!(reader.status().size, 1);
}

#[tokio::test]
async fn the_identity_is_the_servers_and_needs_no_privilege() {
    let database = support::database().await;
    let link = database.connect().await;
    let role = format!("{}_plain", database.name);
    link.client
        .batch_execute(&format!("CREATE ROLE {role} LOGIN"))
        .await
        .unwrap();
    let plain = reader(&database.url_as(&role));
    let identity = plain.identity().await;
    let durable = plain.fate(Uuid::nil()).await;
    plain.close();
    link.client
        .batch_execute(&format!("DROP ROLE {role}"))
        .await
        .unwrap();
    let identity = identity.unwrap();
    let row = link
        .client
        .query_one(
            "SELECT system_identifier::numeric::text, timeline_id
               FROM pg_control_system(), pg_control_checkpoint()",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(
        identity.system_identifier.to_string(),
        row.get::<_, &str>(0)
    );
    assert_eq!(Ok(identity.timeline), u32::try_from(row.get::<_, i32>(1)));
    assert_eq!(reader(&database.url).identity().await.unwrap(), identity);
    // Tables it may not read: refused, not unavailable.
    assert!(matches!(durable, Err(ReadError::Refused(_))), "{durable:?}");
}

#[tokio::test]
async fn the_clock_skew_is_how_far_the_database_is_ahead() {
    const HOUR_MS: u64 = 3_600_000;
    let database = support::database().await;
    let link = database.connect().await;
    let late = Arc::new(AtomicU64::new(now_ms(&link.client).await - HOUR_MS));
    let reader = Reader::connect(&settings(&database.url), Clock::Manual(late));
    let skew = reader.clock_skew().await.unwrap();
    // The manual clock stands still, so only time that passed here adds to it.
    assert!((3_600_000..7_200_000).contains(&skew), "{skew}");
}
