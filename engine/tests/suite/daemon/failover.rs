//! The primary dies, hangs, is demoted and comes back; its standby is promoted. The
//! engine moves by itself, and nothing acknowledged is lost or doubled.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::load::{Load, Plan};
use super::servers::{Private, verify_at};
use super::standby::{Standby, ask, signal_server, tell, until};
use crate::support::daemon::{Daemon, Request, eventually};

const DEADLINE: Duration = Duration::from_secs(4);
const ARGUMENTS: [&str; 4] = [
    "--request-deadline",
    "4s",
    "--database-failover-detect",
    "1s",
];

/// A primary, its synchronous standby, and their URLs.
pub(super) struct Pair {
    pub(super) primary: Private,
    pub(super) standby: Standby,
    pub(super) first: String,
    pub(super) second: String,
}

impl Pair {
    pub(super) async fn start() -> Self {
        let primary = Private::start(false, &[]).await;
        let first = primary.ledger().await;
        let standby = Standby::start(&primary).await;
        let second = standby.url(&first);
        until(&second, "a standby", "SELECT pg_is_in_recovery()::text").await;
        Self {
            primary,
            standby,
            first,
            second,
        }
    }

    /// From here on COMMIT waits for the standby.
    pub(super) async fn synchronous(&self) {
        tell(
            &self.first,
            &[
                "ALTER SYSTEM SET synchronous_standby_names = '*'",
                "SELECT pg_reload_conf()",
            ],
        )
        .await;
        let count =
            "SELECT (count(*) = 1)::text FROM pg_stat_replication WHERE sync_state = 'sync'";
        until(&self.first, "synchronous", count).await;
    }

    pub(super) fn hosts(&self) -> String {
        self.standby.both(&self.first)
    }

    pub(super) fn primary_pid(&self) -> u32 {
        self.primary.servers.postgres_pid().unwrap()
    }
}

/// Promotes; how long until the first transfer was acknowledged.
async fn promote(pair: &Pair, load: &Load) -> Duration {
    let known = load.acknowledged();
    let begun = Instant::now();
    pair.standby.promote().await;
    load.until_acknowledged(known + 1).await;
    begun.elapsed()
}

async fn until_unready(daemon: &Daemon) {
    eventually("unhealthy", async || {
        daemon.get("/health").await.status == 503
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_primary_is_followed_by_its_promoted_standby() {
    let mut pair = Pair::start().await;
    pair.synchronous().await;
    let daemon = Daemon::start_on(&pair.hosts(), &ARGUMENTS).await;
    daemon.open(8, 1_000).await;
    let load = Load::start(Arc::new(Plan::new(vec![daemon.api], 8, 16)));
    load.until_acknowledged(200).await;
    pair.primary.servers.kill_postgres().await.unwrap();
    until_unready(&daemon).await;
    let took = promote(&pair, &load).await;
    eprintln!("killed: {took:?} from promotion to the first acknowledgement");
    daemon.until_ready().await;
    let known = load.acknowledged();
    load.until_acknowledged(known + 200).await;
    let report = load.stop().await;
    report.check_waits(DEADLINE + Duration::from_secs(1));
    report.check_stored(&pair.second, &[&daemon]).await;
    assert_eq!(daemon.stop().await.code, Some(0));
    verify_at(&pair.second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_primary_that_wakes_up_again_is_left_alone() {
    let pair = Pair::start().await;
    pair.synchronous().await;
    let daemon = Daemon::start_on(&pair.hosts(), &ARGUMENTS).await;
    daemon.open(8, 1_000).await;
    let load = Load::start(Arc::new(Plan::new(vec![daemon.api], 8, 16)));
    load.until_acknowledged(200).await;
    signal_server(pair.primary_pid(), Signal::STOP);
    // No link broke: silence alone tells.
    until_unready(&daemon).await;
    let begun = Instant::now();
    let read = daemon.get("/transactions?limit=1").await;
    assert!(matches!(read.status, 200 | 503), "{read:?}");
    assert!(begun.elapsed() < DEADLINE + Duration::from_secs(1));
    let took = promote(&pair, &load).await;
    eprintln!("hung: {took:?} from promotion to the first acknowledgement");
    signal_server(pair.primary_pid(), Signal::CONT);
    let known = load.acknowledged();
    load.until_acknowledged(known + 200).await;
    // One that starts now, with the old primary first in its URL, knows better too.
    let second = Daemon::start_on(&pair.hosts(), &ARGUMENTS).await;
    let pay = r#"{"from":0,"to":1,"amount":3}"#;
    assert_eq!(second.post("/transaction", pay).await.status, 200);
    let report = load.stop().await;
    report.check_waits(DEADLINE + Duration::from_secs(1));
    report.check_stored(&pair.second, &[&daemon, &second]).await;
    let three = "SELECT (count(*) = 1)::text FROM transfers WHERE amount = 300";
    until(&pair.second, "on the new primary", three).await;
    assert_eq!(daemon.stop().await.code, Some(0));
    verify_at(&pair.second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demoted_primary_is_noticed_and_taken_back() {
    let primary = Private::start(false, &[]).await;
    let url = primary.ledger().await;
    let daemon = Daemon::start_on(&url, &ARGUMENTS).await;
    daemon.open(2, 100).await;
    let set = async |value: &str| {
        let sql = format!("ALTER SYSTEM SET default_transaction_read_only = {value}");
        let clear = "SET default_transaction_read_only = off";
        tell(&url, &[clear, &sql, "SELECT pg_reload_conf()"]).await;
    };
    set("on").await;
    until_unready(&daemon).await;
    let checks = daemon.readyz().await.1;
    assert_eq!(checks["writable"]["status"], "failed", "{checks}");
    let begun = Instant::now();
    let refused = daemon
        .post_keyed("/transaction", "k", r#"{"from":1,"to":2,"amount":1}"#)
        .await;
    refused.expect_problem(503, "database_unavailable", &[]);
    assert!(begun.elapsed() < DEADLINE + Duration::from_secs(1));
    let live = crate::support::client::call(daemon.admin, &Request::new("GET", "/livez")).await;
    assert_eq!(live.status, 200);
    set("off").await;
    daemon.until_ready().await;
    let done = daemon
        .post_keyed("/transaction", "k", r#"{"from":1,"to":2,"amount":1}"#)
        .await;
    assert_eq!(
        (done.status, done.header("idempotency-replayed")),
        (200, None)
    );
    let count = ask(
        &url,
        "SELECT count(*)::text FROM transfers WHERE amount = 100",
    )
    .await;
    assert_eq!(count.as_deref(), Some("1"));
    assert_eq!(daemon.stop().await.code, Some(0));
    verify_at(&url).await;
}
