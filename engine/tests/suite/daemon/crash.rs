//! Stopped, killed and restarted under load: what was acknowledged is there, and
//! a client that repeats itself ends with each request applied exactly once.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use super::ledger;
use super::load::{Load, Plan};
use super::servers::{Private, verify_at};
use crate::support::daemon::{Daemon, Request, Wire};
use crate::support::{TestDatabase, verify};

/// The default deadline and the second that may pass after it.
const BOUND: Duration = Duration::from_secs(11);

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_load_answers_everything_accepted() {
    let database = ledger().await;
    let daemon = Daemon::start(&database, &[]).await;
    daemon.open(16, 1_000).await;
    let plan = Arc::new(Plan::new(vec![daemon.api], 16, 64));
    let load = Load::start(Arc::clone(&plan));
    load.until_acknowledged(500).await;
    let ended = daemon.stop().await;
    assert_eq!(ended.code, Some(0), "{:?}", ended.log);
    assert!(
        ended
            .log
            .iter()
            .all(|line| !line.contains(r#""level":"ERROR""#)),
        "{:?}",
        ended.log
    );
    // Clients go on against another engine.
    let daemon = Daemon::start(&database, &[]).await;
    plan.use_engines(vec![daemon.api]);
    let known = load.acknowledged();
    load.until_acknowledged(known + 200).await;
    let report = load.stop().await;
    assert_eq!(report.torn, 0, "a request was cut off without an answer");
    report.check_waits(BOUND);
    report.check_stored(&database.url, &[&daemon]).await;
    verify(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_what_is_being_committed() {
    let database = ledger().await;
    let daemon = Daemon::start(&database, &[]).await;
    daemon.open(2, 100).await;
    let holder = database.connect().await;
    holder
        .client
        .batch_execute("BEGIN; SELECT * FROM accounts WHERE id = 1 FOR UPDATE")
        .await
        .unwrap();
    let mut wire = Wire::connect(daemon.api).await.unwrap();
    let mut idle = Wire::connect(daemon.api).await.unwrap();
    let pay = Request::new("POST", "/transaction").json(r#"{"from":1,"to":2,"amount":1}"#);
    wire.send(&pay.bytes()).await.unwrap();
    crate::support::daemon::eventually("in flight", async || {
        daemon.metrics().await.sum("engine_batches_in_flight", "") > 0.0
    })
    .await;
    daemon.signal(Signal::TERM);
    // An idle connection closes in order; readiness says what goes on.
    assert!(idle.is_closed().await);
    let (status, checks) = daemon.readyz().await;
    assert_eq!(
        (status, &checks["draining"]["status"]),
        (503, &"failed".into())
    );
    let refuses = async || Wire::connect(daemon.api).await.is_err();
    crate::support::daemon::eventually("deaf to new connections", refuses).await;
    holder.client.batch_execute("ROLLBACK").await.unwrap();
    holder.close().await;
    let reply = wire.reply().await.unwrap();
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(wire.is_closed().await);
    let ended = daemon.ended().await;
    assert_eq!(ended.code, Some(0), "{:?}", ended.log);
    verify(&database).await;
}

async fn kill_and_restart(database: &TestDatabase, engines: usize) {
    let mut daemons = Vec::new();
    for _ in 0..engines {
        daemons.push(Daemon::start(database, &[]).await);
    }
    daemons[0].open(6, 1_000).await;
    let addresses = |daemons: &[Daemon]| daemons.iter().map(|daemon| daemon.api).collect();
    let plan = Arc::new(Plan::new(addresses(&daemons), 6, 32));
    let load = Load::start(Arc::clone(&plan));
    for _ in 0..3 {
        let known = load.acknowledged();
        load.until_acknowledged(known + 150).await;
        daemons.remove(0).kill().await;
        daemons.push(Daemon::start(database, &[]).await);
        plan.use_engines(addresses(&daemons));
    }
    let known = load.acknowledged();
    load.until_acknowledged(known + 150).await;
    let report = load.stop().await;
    report.check_waits(BOUND);
    let daemons: Vec<_> = daemons.iter().collect();
    report.check_stored(&database.url, &daemons).await;
    verify(database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_killed_under_load_loses_nothing_and_doubles_nothing() {
    kill_and_restart(&ledger().await, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_engines_killed_under_load_is_no_matter_to_the_ledger() {
    kill_and_restart(&ledger().await, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_stopped_in_its_tracks_holds_nobody_for_long() {
    let database = ledger().await;
    let stalled = Daemon::start(&database, &["--idle-in-transaction-timeout", "1s"]).await;
    let daemon = Daemon::start(&database, &[]).await;
    daemon.open(4, 1_000).await;
    let plan = Arc::new(Plan::new(vec![stalled.api], 4, 16));
    let load = Load::start(Arc::clone(&plan));
    load.until_acknowledged(100).await;
    stalled.signal(Signal::STOP);
    // Whatever it holds, the other engine gets past it within the deadline.
    let mut wire = Wire::connect(daemon.api).await.unwrap();
    for account in 1..=4 {
        let body = format!(r#"{{"from":0,"to":{account},"amount":2}}"#);
        let pay = Request::new("POST", "/transaction").json(&body);
        let reply = wire.call(&pay).await.unwrap();
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    stalled.signal(Signal::CONT);
    let known = load.acknowledged();
    load.until_acknowledged(known + 100).await;
    let report = load.stop().await;
    report
        .check_stored(&database.url, &[&stalled, &daemon])
        .await;
    verify(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_under_load_loses_nothing_acknowledged() {
    let mut private = Private::start(false, &[]).await;
    let url = private.ledger().await;
    let daemon = Daemon::start_on(&url, &["--request-deadline", "3s"]).await;
    daemon.open(8, 1_000).await;
    let load = Load::start(Arc::new(Plan::new(vec![daemon.api], 8, 32)));
    for _ in 0..2 {
        let known = load.acknowledged();
        load.until_acknowledged(known + 200).await;
        private.servers.kill_postgres().await.unwrap();
        crate::support::daemon::eventually("unhealthy", async || {
            daemon.get("/health").await.status == 503
        })
        .await;
        private.servers.restart_postgres().await.unwrap();
        daemon.until_ready().await;
    }
    let known = load.acknowledged();
    load.until_acknowledged(known + 200).await;
    let report = load.stop().await;
    report.check_waits(Duration::from_secs(4));
    report.check_stored(&url, &[&daemon]).await;
    assert_eq!(daemon.stop().await.code, Some(0));
    verify_at(&url).await;
    private.stop().await;
}
