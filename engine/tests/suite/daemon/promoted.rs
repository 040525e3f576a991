//! A standby promoted before it had everything: the cache and the sessions of an
//! engine are warm with a history that never was.

use super::servers::{Private, verify_at};
use super::standby::{Standby, ask, tell, until};
use crate::support::daemon::{Daemon, eventually};
use crate::support::redis_url;

/// Acknowledged by the primary, never heard of by the standby.
const LOST: &str = r#"{"from":0,"to":1,"amount":777}"#;

/// The cache answers for an account.
async fn warm(daemon: &Daemon, account: u32) {
    eventually("served by the cache", async || {
        daemon.get(&format!("/balance/{account}")).await.json()["cached"] == true
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_history_is_believed_and_the_lost_one_forgotten() {
    let mut primary = Private::start(false, &[]).await;
    let url = primary.ledger().await;
    let standby = Standby::start(&primary).await;
    let second = standby.url(&url);
    until(&second, "a standby", "SELECT pg_is_in_recovery()::text").await;

    // Both hosts in one URL: the engine finds the one that takes writes.
    let hosts = standby.both(&url);
    let cache = redis_url();
    let daemon = Daemon::start_on(&hosts, &["--redis-url", &cache, "--cache-ttl", "5s"]).await;
    daemon.open(2, 100).await;
    warm(&daemon, 1).await;
    let written = ask(&url, "SELECT pg_current_wal_lsn()::text")
        .await
        .unwrap();
    let replayed = format!("SELECT ('{written}' <= pg_last_wal_replay_lsn())::text");
    until(&second, "up to date", &replayed).await;

    // The standby hears no more; the primary goes on, and the cache with it.
    tell(
        &second,
        &[
            "ALTER SYSTEM SET primary_conninfo = ''",
            "SELECT pg_reload_conf()",
        ],
    )
    .await;
    until(
        &second,
        "on its own",
        "SELECT (count(*) = 0)::text FROM pg_stat_wal_receiver",
    )
    .await;
    assert_eq!(
        daemon.post_keyed("/transaction", "lost", LOST).await.status,
        200
    );
    warm(&daemon, 1).await;
    let seen = daemon.get("/balance/1").await.json();
    assert_eq!(
        (&seen["balance_minor"], &seen["version"]),
        (&"87700".into(), &2.into())
    );

    primary.servers.kill_postgres().await.unwrap();
    eventually("unhealthy", async || {
        daemon.get("/health").await.status == 503
    })
    .await;
    tell(&second, &["SELECT pg_promote()"]).await;
    daemon.until_ready().await;
    eventually("told of the new history", async || {
        let log = daemon.log.all();
        log.iter().any(|line| line.contains("another history"))
    })
    .await;
    check_forgotten(&daemon).await;
    assert_eq!(daemon.stop().await.code, Some(0));
    verify_at(&second).await;
    standby.kill().await;
    primary.stop().await;
}

async fn check_forgotten(daemon: &Daemon) {
    // Never the lost value again: not from sessions, not from the cache, not
    // within the TTL that its entry still lives.
    let told = std::time::Instant::now();
    while told.elapsed() < std::time::Duration::from_secs(6) {
        for target in ["/balance/1", "/balance/1?consistent=true"] {
            let read = daemon.get(target).await;
            assert_eq!(read.status, 200, "{read:?}");
            let read = read.json();
            assert_eq!(
                (&read["balance_minor"], &read["version"]),
                (&"10000".into(), &1.into())
            );
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let fate = daemon.get("/transactions?idempotency_key=lost").await;
    fate.expect(200, "[]");
    // The same version with another balance is the new history's.
    let other = r#"{"from":0,"to":1,"amount":5}"#;
    assert_eq!(daemon.post("/transaction", other).await.status, 200);
    for _ in 0..2 {
        let read = daemon.get("/balance/1").await.json();
        assert_eq!(
            (&read["balance_minor"], &read["version"]),
            (&"10500".into(), &2.into())
        );
    }
    warm(daemon, 1).await;
    assert_eq!(
        daemon.get("/balance/1").await.json()["balance_minor"],
        "10500"
    );
    // What was lost can be done again under its key, once.
    let again = daemon.post_keyed("/transaction", "lost", LOST).await;
    assert_eq!(
        (again.status, again.header("idempotency-replayed")),
        (200, None)
    );
}
