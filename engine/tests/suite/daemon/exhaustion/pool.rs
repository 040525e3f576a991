//! No connection to PostgreSQL is left: all of the engine's own are taken, or all
//! that the server gives.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use engine::store::link::Link;
use tokio::task::JoinSet;

use super::super::ledger;
use super::super::servers::{Private, verify_at};
use super::full;
use crate::support::daemon::{Daemon, Request, call, eventually};
use crate::support::verify;

/// Lists that wait for a lock: several for each connection of the pool.
const STUCK: u32 = 64;
/// A read gives up after so long, whether it waits for a connection or for a lock.
const READ_WAIT: Duration = Duration::from_secs(2);

/// Whether one of several requests, sent at moments spread over the time that a read
/// waits, is refused for want of a connection.
async fn asks_in_vain(api: SocketAddr, target: &'static str) -> bool {
    let mut asked = JoinSet::new();
    for _ in 0..8 {
        asked.spawn(async move { call(api, &Request::new("GET", target)).await });
        tokio::time::sleep(READ_WAIT / 8).await;
    }
    let mut refused = false;
    while let Some(reply) = asked.join_next().await {
        let reply = reply.unwrap();
        if reply.status == 503 {
            full(&reply);
            refused = true;
        }
    }
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pool_refuses_reads_and_moves_money() {
    let database = ledger().await;
    let deadline = ["--request-deadline", "20s"];
    let daemon = Daemon::start(&database, &deadline).await;
    daemon.open(4, 100).await;
    // Only lists of rejections read it, and no commit writes it here.
    let stranger = database.connect().await;
    let hold = "BEGIN; LOCK TABLE rejections IN ACCESS EXCLUSIVE MODE";
    stranger.client.batch_execute(hold).await.unwrap();
    // A read that waits for a lock is given up after a while; these ask again.
    let over = Arc::new(AtomicBool::new(false));
    let mut stuck = JoinSet::new();
    for _ in 0..STUCK {
        // Not in step: what frees connections and what gives up waiting take the same 2 s.
        tokio::time::sleep(READ_WAIT / STUCK).await;
        let (api, over) = (daemon.api, Arc::clone(&over));
        stuck.spawn(async move {
            let list = Request::new("GET", "/transactions?status=rejected");
            let mut reply = call(api, &list).await;
            while !over.load(Ordering::Relaxed) {
                assert_eq!(reply.status, 503, "{reply:?}");
                reply = call(api, &list).await;
            }
        });
    }
    eventually("taken", async || {
        let page = daemon.metrics().await;
        page.sum("engine_pool_connections", r#"state="in_use""#) >= 4.0
    })
    .await;
    for target in ["/balance/1?consistent=true", "/transactions?account=1"] {
        eventually("refused", async || asks_in_vain(daemon.api, target).await).await;
    }
    let pay = r#"{"from":1,"to":2,"amount":1}"#;
    for number in 0..10 {
        let key = format!("moves-{number}");
        let moved = daemon.post_keyed("/transaction", &key, pay).await;
        assert_eq!(moved.status, 200, "{moved:?}");
    }
    over.store(true, Ordering::Relaxed);
    stranger.client.batch_execute("ROLLBACK").await.unwrap();
    stranger.close().await;
    while let Some(ended) = stuck.join_next().await {
        ended.unwrap();
    }
    eventually("read again", async || {
        daemon.get("/balance/1?consistent=true").await.status == 200
    })
    .await;
    let balance = daemon.get("/balance/1?consistent=true").await.json();
    assert_eq!(balance["balance_minor"], "9000");
    assert_eq!(daemon.stop().await.code, Some(0));
    verify(&database).await;
}

/// Takes every connection that the server gives to this role.
async fn take_all(url: &str) -> Vec<Link> {
    let mut taken = Vec::new();
    while let Ok(link) = Link::open(url).await {
        taken.push(link);
    }
    taken
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_free_connection_costs_reads_only() {
    let deadline = Duration::from_secs(3);
    let private = Private::start(false, &[("max_connections", "24")]).await;
    let url = private.ledger().await;
    let owner = Link::open(&url).await.unwrap();
    // A role without the superuser's reserve, as the engine has in production.
    let ordinary = "CREATE ROLE guest LOGIN PASSWORD 'guest'; \
                    GRANT CONNECT ON DATABASE ledger TO guest; \
                    ALTER ROLE engine_app PASSWORD 'app'";
    owner.client.batch_execute(ordinary).await.unwrap();
    let as_role = |name: &str, password: &str| {
        let (_, place) = url.rsplit_once('@').unwrap();
        format!("postgres://{name}:{password}@{place}")
    };
    let daemon =
        Daemon::start_on(&as_role("engine_app", "app"), &["--request-deadline", "3s"]).await;
    daemon.open(4, 100).await;
    let pay = r#"{"from":1,"to":2,"amount":1}"#;
    assert_eq!(daemon.post("/transaction", pay).await.status, 200);
    let taken = take_all(&as_role("guest", "guest")).await;
    assert!(!taken.is_empty());
    // The sessions that read are ended, and their places taken too.
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE application_name = 'engine-read'";
    let ended: i64 = owner.client.query_one(end, &[]).await.unwrap().get(0);
    assert!(ended > 0, "the readers have another name now");
    let mut more = Vec::new();
    eventually("no place is left", async || {
        more.extend(take_all(&as_role("guest", "guest")).await);
        daemon.get("/balance/1?consistent=true").await.status == 503
    })
    .await;
    for target in ["/balance/1?consistent=true", "/transactions?account=1"] {
        let begun = Instant::now();
        let reply = daemon.get(target).await;
        assert!(begun.elapsed() < deadline + Duration::from_secs(1));
        assert_eq!(reply.status, 503, "{reply:?}");
        let code = reply.json()["code"].clone();
        assert!(
            code == "database_unavailable" || code == "queue_full",
            "{reply:?}"
        );
        assert!(reply.header("retry-after").is_some());
    }
    // The committers hold theirs.
    for number in 0..10 {
        let key = format!("moves-{number}");
        let moved = daemon.post_keyed("/transaction", &key, pay).await;
        assert_eq!(moved.status, 200, "{moved:?}");
    }
    drop((taken, more));
    eventually("read again", async || {
        daemon.get("/balance/1?consistent=true").await.status == 200
    })
    .await;
    let balance = daemon.get("/balance/1?consistent=true").await.json();
    assert_eq!(balance["balance_minor"], "8900");
    owner.close().await;
    assert_eq!(daemon.stop().await.code, Some(0));
    verify_at(&url).await;
    private.stop().await;
}
