//! What commits rest on, and what a standby is asked: shown, demanded, and refused
//! when there is less.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::failover::Pair;
use super::servers::{Private, verify_at};
use super::standby::{ask, signal_server, tell, until};
use super::text;
use crate::support::daemon::{Daemon, Request, eventually};

const PAY: &str = r#"{"from":0,"to":1,"amount":1}"#;

async fn replication(daemon: &Daemon) -> Value {
    daemon.readyz().await.1["replication"].clone()
}

/// Reads that the replica answered, and that the primary did in its place.
async fn reads(daemon: &Daemon) -> [f64; 2] {
    let page = daemon.metrics().await;
    ["replica", "primary"].map(|server| {
        let label = format!(r#"server="{server}""#);
        page.sum("engine_replica_reads_total", &label)
    })
}

async fn listed(daemon: &Daemon) -> usize {
    let list = daemon.get("/transactions?limit=1000").await;
    assert_eq!(list.status, 200, "{list:?}");
    list.json().as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_read_while_it_keeps_up_and_never_for_a_balance() {
    let pair = Pair::start().await;
    let arguments = [
        "--database-read-url",
        &pair.second,
        "--replica-lag-max",
        "1s",
    ];
    let daemon = Daemon::start_on(&pair.first, &arguments).await;
    daemon.open(2, 100).await;
    eventually("read from the replica", async || {
        listed(&daemon).await == 2 && reads(&daemon).await[0] > 0.0
    })
    .await;
    assert_eq!(
        daemon
            .get("/accounts")
            .await
            .json()
            .as_array()
            .unwrap()
            .len(),
        3
    );
    let page = daemon.metrics().await;
    assert!(page.sum("engine_replica_lag_seconds", "") < 1.0);

    // It stands still and the primary goes on: fresh until the bound, then not asked.
    tell(&pair.second, &["SELECT pg_wal_replay_pause()"]).await;
    until(
        &pair.second,
        "paused",
        "SELECT (pg_get_wal_replay_pause_state() = 'paused')::text",
    )
    .await;
    let paid = daemon.post("/transaction", PAY).await;
    assert_eq!(paid.status, 200, "{paid:?}");
    // At once, while lists may be a second old: a balance and a look-up are not.
    let balance = daemon.get("/balance/1").await.json();
    assert_eq!(balance["balance_minor"], "10100");
    let id = text(&paid.json(), "txn_id");
    assert_eq!(daemon.get(&format!("/transactions/{id}")).await.status, 200);
    // Reversed at once, though the replica has never heard of it.
    let reversal = daemon
        .post(&format!("/transactions/{id}/reversal"), "{}")
        .await;
    assert_eq!(reversal.status, 200, "{reversal:?}");
    eventually("read from the primary", async || listed(&daemon).await == 4).await;
    let before = reads(&daemon).await;
    assert_eq!(listed(&daemon).await, 4);
    let after = reads(&daemon).await;
    assert_eq!(
        after[0].to_bits(),
        before[0].to_bits(),
        "the replica was asked"
    );
    assert!(before[1] < after[1]);

    tell(&pair.second, &["SELECT pg_wal_replay_resume()"]).await;
    eventually("read from the replica again", async || {
        listed(&daemon).await == 4 && before[0] < reads(&daemon).await[0]
    })
    .await;
    // Gone for good: nobody notices but the primary.
    let known = reads(&daemon).await[1];
    pair.standby.kill().await;
    for _ in 0..3 {
        assert_eq!(listed(&daemon).await, 4);
    }
    eventually("read from the primary again", async || {
        listed(&daemon).await == 4 && known < reads(&daemon).await[1]
    })
    .await;
    assert_eq!(daemon.stop().await.code, Some(0));
    verify_at(&pair.first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_demanded_standby_nothing_is_committed() {
    let pair = Pair::start().await;
    pair.synchronous().await;
    let arguments = ["--durability", "sync-standby", "--request-deadline", "3s"];
    let daemon = Daemon::start_on(&pair.first, &arguments).await;
    daemon.open(2, 100).await;
    let state = replication(&daemon).await;
    assert!(text(&state, "detail").starts_with("synchronous"), "{state}");
    let page = daemon.metrics().await;
    for (family, labels) in [
        ("engine_database_replication_mode", r#"mode="synchronous""#),
        ("engine_database_standbys", ""),
        ("engine_database_sync_standbys", ""),
        ("engine_database_durable", ""),
    ] {
        assert_eq!(
            page.sum(family, labels).to_bits(),
            1_f64.to_bits(),
            "{family}"
        );
    }

    // The setting goes: COMMIT would wait for nobody.
    let set = async |names: &str| {
        let sql = format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'");
        tell(&pair.first, &[&sql, "SELECT pg_reload_conf()"]).await;
    };
    set("").await;
    eventually("short", async || {
        replication(&daemon).await["status"] == "failed"
    })
    .await;
    check_refused(&daemon, &pair.first, "synchronous_standby_names is empty").await;
    set("*").await;
    daemon.until_ready().await;
    assert_eq!(
        daemon.post_keyed("/transaction", "k", PAY).await.status,
        200
    );

    // The standby goes: COMMIT would wait for ever.
    pair.standby.kill().await;
    eventually("short", async || {
        replication(&daemon).await["status"] == "failed"
    })
    .await;
    check_refused(&daemon, &pair.first, "0 of 1 synchronous standbys follow").await;
    let durable = daemon.metrics().await.sum("engine_database_durable", "");
    assert_eq!(durable.to_bits(), 0_f64.to_bits());
    set("").await;
    assert_eq!(daemon.stop().await.code, Some(0));
    verify_at(&pair.first).await;
}

/// Refused before it is tried, and nothing written.
async fn check_refused(daemon: &Daemon, url: &str, why: &str) {
    let count = "SELECT count(*)::text FROM commits";
    let before = ask(url, count).await;
    let refused = daemon.post_keyed("/transaction", "k", PAY).await;
    refused.expect_problem(503, "database_unavailable", &[]);
    assert_eq!(ask(url, count).await, before);
    let state = replication(daemon).await;
    assert!(text(&state, "detail").contains(why), "{state}");
    assert_eq!(daemon.get("/health").await.status, 503);
    // Reads go on.
    assert_eq!(daemon.get("/balance/1").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_global_database_tells_how_far_its_other_regions_are_behind() {
    // A stand-in of that name, with the columns of Amazon's documentation.
    const STAND_IN: &str = "CREATE FUNCTION public.aurora_global_db_status(
            OUT aws_region text, OUT highest_lsn_written bigint, OUT durability_lag_in_msec bigint,
            OUT rpo_lag_in_msec bigint, OUT last_lag_calculation_time timestamptz,
            OUT feedback_epoch bigint, OUT feedback_xmin bigint)
        RETURNS SETOF record LANGUAGE sql AS $$
        VALUES ('us-east-1', 131031557::bigint, -1::bigint, -1::bigint, 'epoch'::timestamptz, 0::bigint, 0::bigint),
               ('eu-west-1', 131031554, 410, 1250, now(), 0, 12640) $$";
    let primary = Private::start(false, &[]).await;
    let url = primary.ledger().await;
    tell(&url, &[STAND_IN]).await;
    let daemon = Daemon::start_on(&url, &["--durability", "storage"]).await;
    daemon.open(1, 100).await;
    let state = replication(&daemon).await;
    let detail = text(&state, "detail");
    for part in [
        "storage on",
        "1 following",
        "1250 ms behind",
        "--durability storage",
    ] {
        assert!(detail.contains(part), "{part}: {detail}");
    }
    let page = daemon.metrics().await;
    let lag = page.sum("engine_database_replication_lag_seconds", "");
    assert_eq!(lag.to_bits(), 1.25_f64.to_bits());
    // It knows nothing of synchronous standbys: that demand is never met there.
    let demanding = Daemon::spawn(&url, &["--durability", "sync-standby"]).await;
    eventually("short", async || {
        replication(&demanding).await["status"] == "failed"
    })
    .await;
    assert_eq!(demanding.stop().await.code, Some(0));
    assert_eq!(daemon.stop().await.code, Some(0));
    primary.stop().await;
}

/// Longer than every limit of the engine's sessions.
const ALL_LIMITS: [&str; 10] = [
    "--lock-timeout",
    "200ms",
    "--statement-timeout",
    "500ms",
    "--idle-in-transaction-timeout",
    "500ms",
    "--database-failover-detect",
    "500ms",
    "--request-deadline",
    "1s",
];

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_wakes_up_after_a_failover_contradicts_nothing() {
    use super::load::{Load, Plan};
    use std::sync::Arc;

    let pair = Pair::start().await;
    pair.synchronous().await;
    let hosts = pair.hosts();
    let sleeper = Daemon::start_on(&hosts, &ALL_LIMITS).await;
    sleeper.open(4, 1_000).await;
    let load = Load::start(Arc::new(Plan::new(vec![sleeper.api], 4, 16)));
    load.until_acknowledged(100).await;
    sleeper.signal(Signal::STOP);
    // The world goes on without it: another primary, another engine, no money left.
    signal_server(pair.primary_pid(), Signal::STOP);
    pair.standby.promote().await;
    until(
        &pair.second,
        "promoted",
        "SELECT (NOT pg_is_in_recovery())::text",
    )
    .await;
    tell(
        &pair.second,
        &[
            "ALTER SYSTEM SET synchronous_standby_names = ''",
            "SELECT pg_reload_conf()",
        ],
    )
    .await;
    let daemon = Daemon::start_on(&hosts, &ALL_LIMITS).await;
    for account in 1..=4 {
        eventually("emptied", async || {
            let balance = daemon
                .get(&format!("/balance/{account}?consistent=true"))
                .await
                .json()["balance"]
                .clone();
            let body = format!(r#"{{"from":{account},"to":0,"amount":{balance}}}"#);
            daemon.post("/transaction", &body).await.status == 200
        })
        .await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    signal_server(pair.primary_pid(), Signal::CONT);
    sleeper.signal(Signal::CONT);
    // What it held in its hands was decided on balances that are gone.
    let known = load.acknowledged();
    load.until_acknowledged(known + 100).await;
    let report = load.stop().await;
    report
        .check_stored(&pair.second, &[&sleeper, &daemon])
        .await;
    let overdrawn = "SELECT (count(*) = 0)::text FROM accounts WHERE balance < min_balance";
    until(&pair.second, "sound", overdrawn).await;
    assert_eq!(sleeper.stop().await.code, Some(0));
    assert_eq!(daemon.stop().await.code, Some(0));
    verify_at(&pair.second).await;
}

/// Until COMMIT waits for a standby: the server acts on the setting a moment after
/// the reload, and until then waits for nobody.
async fn until_commits_wait(url: &str) {
    const CANCELLED: &str = "SELECT (count(pg_cancel_backend(pid)) > 0)::text
                              FROM pg_stat_activity
                              WHERE application_name = 'probe' AND wait_event = 'SyncRep'";
    eventually("commits that wait", async || {
        let there = url.to_owned();
        let probe = tokio::spawn(async move {
            let write = "SELECT pg_logical_emit_message(true, 'probe', '')";
            tell(&there, &["SET application_name = 'probe'", write]).await;
        });
        loop {
            if ask(url, CANCELLED).await.as_deref() == Some("true") {
                probe.await.unwrap();
                return true;
            }
            if probe.is_finished() {
                return false;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_wait_for_a_standby_is_no_acknowledgement() {
    const WAITS: &str = "SELECT (count(*) > 0)::text FROM pg_stat_activity
                          WHERE application_name = 'engine-commit' AND wait_event = 'SyncRep'";
    let primary = Private::start(false, &[]).await;
    let url = primary.ledger().await;
    let arguments = [
        "--request-deadline",
        "55s",
        // No limit of the server's ends the wait by itself.
        "--statement-timeout",
        "1s",
        "--lock-timeout",
        "200ms",
    ];
    let daemon = Daemon::start_on(&url, &arguments).await;
    daemon.open(1, 100).await;
    let set = async |names: &str| {
        let sql = format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'");
        let local = "SET synchronous_commit = local";
        tell(&url, &[local, &sql, "SELECT pg_reload_conf()"]).await;
    };
    set("nobody").await;
    until_commits_wait(&url).await;
    let api = daemon.api;
    let call = tokio::spawn(async move {
        let pay = Request::new("POST", "/transaction").json(PAY).key("k");
        crate::support::client::call(api, &pay).await
    });
    until(&url, "waiting for the standby", WAITS).await;
    let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity
                   WHERE application_name = 'engine-commit' AND wait_event = 'SyncRep'";
    // Again, if the engine had given that session up before the warning came.
    eventually("warned", async || {
        tell(&url, &["SET synchronous_commit = local", cancel]).await;
        let page = daemon.metrics().await;
        page.sum("engine_commit_retries_total", r#"cause="commit_warning""#) > 0.0
    })
    .await;
    // Everyone can see the transfer by now; the look-up finds it, and waits as well.
    until(&url, "waiting again", WAITS).await;
    let stored = "SELECT (count(*) = 1)::text FROM transfers WHERE amount = 100";
    until(&url, "stored on this server", stored).await;
    assert!(!call.is_finished(), "acknowledged without a standby");
    set("").await;
    let reply = call.await.unwrap();
    assert_eq!(reply.status, 200, "{reply:?}");
    until(&url, "once", stored).await;
    let page = daemon.metrics().await;
    assert!(page.sum("engine_outcomes_looked_up_total", r#"result="found""#) > 0.0);
    assert_eq!(daemon.stop().await.code, Some(0));
    verify_at(&url).await;
    primary.stop().await;
}
