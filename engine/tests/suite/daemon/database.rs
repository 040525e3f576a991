//! PostgreSQL taken away under an engine, and given back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::store::link::Link;

use super::load::{Load, Plan};
use super::{count, engine, ledger, stored};
use crate::support::daemon::{Daemon, Request, eventually};
use crate::support::proxy::{Fault, Proxy};
use crate::support::{TestDatabase, admin_url, verify};

async fn as_admin(statement: &str) {
    let link = Link::open(&admin_url()).await.unwrap();
    link.client.batch_execute(statement).await.unwrap();
    link.close().await;
}

/// Ends every session of the database and lets nobody in.
pub(super) async fn shut(database: &TestDatabase) {
    let name = &database.name;
    as_admin(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await;
    end_sessions(database).await;
}

pub(super) async fn end_sessions(database: &TestDatabase) {
    let name = &database.name;
    as_admin(&format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    ))
    .await;
}

pub(super) async fn reopen(database: &TestDatabase) {
    let name = &database.name;
    as_admin(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_and_comes_back_costs_time_only() {
    let deadline = Duration::from_secs(2);
    let database = ledger().await;
    let daemon = Daemon::start(&database, &["--request-deadline", "2s"]).await;
    daemon.open(8, 100).await;
    let plan = Plan::new(vec![daemon.api], 8, 16);
    let load = Load::start(Arc::new(plan));
    load.until_acknowledged(100).await;
    shut(&database).await;
    eventually("unhealthy", async || {
        daemon.get("/health").await.status == 503
    })
    .await;
    eventually("said to be away", async || {
        daemon.readyz().await.1["database"]["status"] == "failed"
    })
    .await;
    // Reads and writes alike: a definite answer, in time.
    for request in [
        Request::new("GET", "/balance/1"),
        Request::new("GET", "/accounts"),
        Request::new("GET", "/transactions"),
        Request::new("GET", "/transactions?idempotency_key=x"),
        Request::new("POST", "/accounts").json(r#"{"account_id":99,"currency":"USD"}"#),
        Request::new("PATCH", "/accounts/1").json(r#"{"name":"n"}"#),
        Request::new("POST", "/transaction").json(r#"{"from":1,"to":2,"amount":1}"#),
    ] {
        let begun = Instant::now();
        let reply = daemon.call(&request).await;
        let code = reply.json()["code"].clone();
        assert!(
            code == "database_unavailable" || code == "deadline_exceeded",
            "{request:?} {reply:?}"
        );
        reply.expect_problem(503, code.as_str().unwrap(), &[]);
        assert!(begun.elapsed() < deadline + Duration::from_secs(1));
    }
    reopen(&database).await;
    daemon.until_ready().await;
    let known = load.acknowledged();
    load.until_acknowledged(known + 100).await;
    // Sessions ended in the middle of commits, again and again.
    for _ in 0..3 {
        end_sessions(&database).await;
        let known = load.acknowledged();
        load.until_acknowledged(known + 50).await;
    }
    let report = load.stop().await;
    report.check_waits(deadline + Duration::from_secs(1));
    report.check_stored(&database.url, &[&daemon]).await;
    let ended = daemon.stop().await;
    assert_eq!(ended.code, Some(0), "{:?}", ended.log);
    verify(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_locked_by_a_stranger_holds_up_its_own_callers_only() {
    let (database, daemon) = engine(4, 100).await;
    let hurried = Daemon::start(&database, &["--request-deadline", "1s"]).await;
    let holder = database.connect().await;
    holder
        .client
        .batch_execute("BEGIN; SELECT * FROM accounts WHERE id = 1 FOR UPDATE")
        .await
        .unwrap();
    let begun = Instant::now();
    let held = hurried
        .post_keyed("/transaction", "k", r#"{"from":1,"to":2,"amount":1}"#)
        .await;
    assert!(begun.elapsed() < Duration::from_secs(2));
    held.expect_problem(504, "outcome_unknown", &[]);
    let other = hurried
        .post("/transaction", r#"{"from":3,"to":4,"amount":1}"#)
        .await;
    assert_eq!(other.status, 200, "{}", other.body);
    holder.client.batch_execute("ROLLBACK").await.unwrap();
    holder.close().await;
    let again = daemon
        .post_keyed("/transaction", "k", r#"{"from":1,"to":2,"amount":1}"#)
        .await;
    assert_eq!(again.status, 200, "{}", again.body);
    let keyed = "SELECT count(*) FROM transfers WHERE debit_account_id = 1";
    assert_eq!(count(&database, keyed).await, 1);
    verify(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_around_a_commit_its_answer_is_true() {
    let database = ledger().await;
    let proxy = Proxy::start(&database.url).await;
    let daemon = Daemon::start_on(&proxy.url(&database), &[]).await;
    daemon.open(2, 100).await;
    let faults = [
        Fault::CutBefore,
        Fault::CutAfter,
        Fault::Warn,
        Fault::RollBack,
    ];
    let mut expected = stored(&database).await;
    for (number, fault) in faults.into_iter().enumerate() {
        proxy.arm(fault.clone());
        let key = format!("k{number}");
        let pay = r#"{"from":1,"to":2,"amount":1}"#;
        let first = daemon.post_keyed("/transaction", &key, pay).await;
        assert!(proxy.has_struck(), "{fault:?}");
        assert_eq!(
            first.status,
            200,
            "{fault:?} {first:?} {:?}",
            daemon.log.all()
        );
        expected += 1;
        assert_eq!(stored(&database).await, expected, "{fault:?}");
        let again = daemon.post_keyed("/transaction", &key, pay).await;
        assert_eq!(again.body, first.body, "{fault:?}");
        assert_eq!(stored(&database).await, expected, "{fault:?}");
    }
    assert_eq!(daemon.stop().await.code, Some(0));
    verify(&database).await;
}
