//! Redis locked, killed, back, wiped and lying: reads take longer, that is all.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::load::{Load, Plan};
use super::servers::{Private, verify_at};
use crate::support::daemon::{Daemon, eventually};

async fn until_redis(daemon: &Daemon, status: &str) {
    eventually("noticed", async || {
        daemon.readyz().await.1["redis"]["status"] == status
    })
    .await;
}

async fn until_cached(daemon: &Daemon) {
    eventually("served by the cache", async || {
        let read = daemon.get("/balance/3").await;
        assert_eq!(read.status, 200, "{}", read.body);
        read.json()["cached"] == true
    })
    .await;
}

async fn connect(url: &str) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(url).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

async fn flush(url: &str) {
    let mut connection = connect(url).await;
    let flush = redis::cmd("FLUSHALL");
    flush.query_async::<()>(&mut connection).await.unwrap();
}

/// Everything stored at this moment.
async fn remember(url: &str) -> Vec<(String, Vec<u8>)> {
    let mut connection = connect(url).await;
    let keys = redis::cmd("KEYS").arg("*").to_owned();
    let keys: Vec<String> = keys.query_async(&mut connection).await.unwrap();
    let mut entries = Vec::new();
    for key in keys {
        let get = redis::cmd("GET").arg(&key).to_owned();
        // It may have expired in between.
        let entry: Option<Vec<u8>> = get.query_async(&mut connection).await.unwrap();
        entries.extend(entry.map(|entry| (key, entry)));
    }
    entries
}

/// Puts an older moment back, as a restored snapshot would.
async fn plant(url: &str, entries: &[(String, Vec<u8>)]) {
    let mut connection = connect(url).await;
    for (key, entry) in entries {
        let set = redis::cmd("SET")
            .arg(key)
            .arg(entry)
            .arg("PX")
            .arg(60_000)
            .to_owned();
        set.query_async::<()>(&mut connection).await.unwrap();
    }
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_asks_for_another_password_only_costs_time() {
    let private = Private::start(true, &[]).await;
    let url = private.ledger().await;
    let redis = private.servers.redis_url.clone().unwrap();
    let wrong = redis.replace("default:", "default:s3cret");
    let daemon = Daemon::start_on(&url, &["--redis-url", &wrong, "--cache-ttl", "1s"]).await;
    until_redis(&daemon, "warning").await;
    daemon.open(3, 10).await;
    for _ in 0..3 {
        let read = daemon.get("/balance/1").await;
        assert_eq!((read.status, &read.json()["cached"]), (200, &false.into()));
    }
    assert_eq!(daemon.readyz().await.0, 200);
    assert_eq!(daemon.get("/health").await.status, 200);
    let ended = daemon.stop().await;
    assert_eq!(ended.code, Some(0), "{:?}", ended.log);
    let told = ended.log.join("\n");
    assert!(!told.contains("s3cret"), "{told}");

    // With the right one it is used.
    let daemon = Daemon::start_on(&url, &["--redis-url", &redis, "--cache-ttl", "1s"]).await;
    until_redis(&daemon, "ok").await;
    until_cached(&daemon).await;
    drop(daemon);
    private.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_goes_and_comes_back_never_shows_an_old_balance() {
    let mut private = Private::start(true, &[]).await;
    let url = private.ledger().await;
    let redis = private.servers.redis_url.clone().unwrap();
    let daemon = Daemon::start_on(&url, &["--redis-url", &redis, "--cache-ttl", "1s"]).await;
    daemon.open(8, 100).await;
    until_cached(&daemon).await;
    let plan = Plan::new(vec![daemon.api], 2, 4);
    let load = Load::start(Arc::new(plan));
    load.until_acknowledged(50).await;
    let mut reader = Reader::new(&daemon);
    reader.look(50).await;
    private.servers.kill_redis().await.unwrap();
    reader.look(50).await;
    until_redis(&daemon, "warning").await;
    assert_eq!(daemon.readyz().await.0, 200);
    reader.look(50).await;
    private.servers.restart_redis().await.unwrap();
    until_redis(&daemon, "ok").await;
    until_cached(&daemon).await;
    reader.look(50).await;
    flush(&redis).await;
    reader.look(50).await;
    let old = remember(&redis).await;
    assert!(!old.is_empty());
    for _ in 0..10 {
        reader.look(5).await;
        plant(&redis, &old).await;
        reader.look(1).await;
    }
    let stalled = private.servers.redis_pid().unwrap();
    signal(stalled, Signal::STOP);
    reader.look(20).await;
    signal(stalled, Signal::CONT);
    until_redis(&daemon, "ok").await;
    reader.look(20).await;
    let report = load.stop().await;
    // No transfer felt any of it.
    assert_eq!((report.refused, report.torn, report.closed), (0, 0, 0));
    report.check_waits(Duration::from_secs(5));
    assert!(report.records.values().all(|record| {
        record
            .reply
            .as_ref()
            .is_none_or(|reply| reply.status == 200)
    }));
    assert!(reader.cached > 0, "the cache never answered");
    an_old_value_is_not_believed(&daemon, &redis).await;
    let ended = daemon.stop().await;
    assert_eq!(ended.code, Some(0), "{:?}", ended.log);
    verify_at(&url).await;
    private.stop().await;
}

/// With nothing else going on, so that nothing newer is put in its place.
async fn an_old_value_is_not_believed(daemon: &Daemon, redis: &str) {
    warm_up(daemon).await;
    let old = remember(redis).await;
    let pay = r#"{"from":0,"to":1,"amount":3}"#;
    let before = daemon.get("/balance/1?consistent=true").await.json();
    assert_eq!(daemon.post("/transaction", pay).await.status, 200);
    let acknowledged = before["version"].as_u64().unwrap() + 1;
    // The new balance is put after the answer, perhaps after what is planted.
    for _ in 0..20 {
        plant(redis, &old).await;
        let read = daemon.get("/balance/1").await.json();
        assert_eq!(read["version"], acknowledged, "{read}");
    }
}

/// Account 1 is in the cache.
async fn warm_up(daemon: &Daemon) {
    eventually("served by the cache", async || {
        daemon.get("/balance/1").await.json()["cached"] == true
    })
    .await;
}

/// Looks at account 1 while money moves through it.
struct Reader<'a> {
    daemon: &'a Daemon,
    version: u64,
    cached: u32,
}

impl<'a> Reader<'a> {
    fn new(daemon: &'a Daemon) -> Self {
        Self {
            daemon,
            version: 0,
            cached: 0,
        }
    }

    /// Each transfer acknowledged before a look is seen by it, and no look sees
    /// less than the one before.
    async fn look(&mut self, times: u32) {
        for _ in 0..times {
            let pay = r#"{"from":0,"to":1,"amount":0.02}"#;
            let paid = self.daemon.post("/transaction", pay).await;
            assert_eq!(paid.status, 200, "{}", paid.body);
            let id = paid.json()["txn_id"].as_str().unwrap().to_owned();
            let row = self.daemon.get(&format!("/transactions/{id}")).await.json();
            let acknowledged = row["to_version"].as_u64().unwrap();
            for _ in 0..2 {
                let read = self.daemon.get("/balance/1").await;
                assert_eq!(read.status, 200, "{}", read.body);
                let read = read.json();
                let version = read["version"].as_u64().unwrap();
                assert!(acknowledged <= version, "{acknowledged} {read}");
                assert!(self.version <= version, "{} {read}", self.version);
                self.version = version;
                self.cached += u32::from(read["cached"] == true);
            }
        }
    }
}
