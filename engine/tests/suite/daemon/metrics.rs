//! Every number that is published moves when what it counts happens, and the
//! access log says one line for each request and none of its secrets.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::Command;

use super::ledger;
use super::servers::Private;
use crate::support::TestDatabase;
use crate::support::daemon::{Daemon, Metrics, Request, Wire, call, eventually};
use crate::support::proxy::{Fault, Proxy};

/// What this run cannot bring about, and why.
const STILL: [&str; 11] = [
    // No file is left: shown by `exhaustion::files`.
    "engine_accept_failures_total",
    // It and the next need a reader that does not read: shown by `suite::telemetry`.
    "engine_access_log_dropped_total",
    // A client that does not read: shown by `exhaustion::unread`.
    "engine_answer_in_flight_bytes",
    // More clients than may be: shown by `exhaustion::files`.
    "engine_connections_refused_total",
    // It and the next two need a standby that follows: shown by `failover` and `replicas`.
    "engine_database_failovers_total",
    "engine_database_standbys",
    "engine_database_sync_standbys",
    "engine_log_dropped_total",
    // A replica to read from: shown by `replicas`.
    "engine_replica_reads_total",
    // A release with a migration: shown by `release`.
    "engine_schema_newer",
    // A panic is a defect; the engine stops on it.
    "engine_task_panics_total",
];
/// One clock serves both here: zero, or a millisecond of asking.
const CLOCK_SKEW: &str = "engine_database_clock_skew_seconds";

/// Families with a series that was not zero on a page seen so far.
#[derive(Debug, Default)]
struct Moved {
    all: BTreeSet<String>,
    moved: BTreeSet<String>,
}

impl Moved {
    fn look(&mut self, page: &Metrics) {
        for line in page.0.lines() {
            if let Some(family) = line.strip_prefix("# TYPE engine_") {
                let name = family.split(' ').next().unwrap();
                self.all.insert(format!("engine_{name}"));
                continue;
            }
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            if line.starts_with("engine_") && value.parse::<f64>().unwrap() != 0.0 {
                let name = series.split('{').next().unwrap();
                let name = ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|suffix| name.strip_suffix(suffix))
                    .unwrap_or(name);
                self.moved.insert(name.to_owned());
            }
        }
    }

    fn still(&self) -> Vec<&str> {
        let still = self.all.difference(&self.moved);
        still.map(String::as_str).collect()
    }
}

/// Everything a client may ask for, well and badly.
async fn ask_everything(daemon: &Daemon) {
    let secret = r#"{"from":1,"to":2,"amount":1,"reference":"s3cret-body"}"#;
    for _ in 0..2 {
        let paid = daemon
            .post_keyed("/transaction", "s3cret-key", secret)
            .await;
        assert_eq!(paid.status, 200, "{}", paid.body);
    }
    let id = daemon.post("/transaction", secret).await.json()["txn_id"]
        .as_str()
        .unwrap()
        .to_owned();
    for (request, status) in [
        (
            post("/transaction", r#"{"from":1,"to":2,"amount":2}"#).key("s3cret-key"),
            422,
        ),
        (
            post("/transaction", r#"{"from":1,"to":2,"amount":9999}"#).key("poor"),
            422,
        ),
        (
            post("/transaction", r#"{"from":1,"to":2,"amount":9999}"#).key("poor"),
            422,
        ),
        (
            post("/transaction", r#"{"from":1,"to":99,"amount":1}"#),
            404,
        ),
        (post("/transaction", "s3cret"), 400),
        (
            post(
                "/transactions",
                r#"{"transfers":[{"from":1,"to":2,"amount":1,"idempotency_key":"s3cret-item"},{"from":1,"to":2,"amount":9999},{"from":1,"to":2,"amount":1}]}"#,
            ),
            200,
        ),
        (
            post(
                "/transactions",
                r#"{"atomic":true,"transfers":[{"from":1,"to":2,"amount":9999}]}"#,
            ),
            422,
        ),
        (post(&format!("/transactions/{id}/reversal"), "{}"), 200),
        (
            Request::new("GET", "/transactions?idempotency_key=s3cret-key"),
            200,
        ),
        (Request::new("GET", &format!("/transactions/{id}")), 200),
        (Request::new("GET", "/balance/1"), 200),
        (Request::new("GET", "/balance/1?consistent=true"), 200),
        (Request::new("GET", "/accounts?limit=1"), 200),
        (Request::new("GET", "/accounts/1"), 200),
        (
            Request::new("PATCH", "/accounts/1").json(r#"{"name":"s3cret-name"}"#),
            200,
        ),
        (Request::new("GET", "/health"), 200),
        (Request::new("GET", "/openapi.json"), 200),
        (Request::new("GET", "/docs"), 200),
        (Request::new("GET", "/s3cret-path"), 404),
    ] {
        let reply = daemon.call(&request).await;
        assert_eq!(reply.status, status, "{request:?} {reply:?}");
    }
}

fn post(target: &str, body: &str) -> Request {
    Request::new("POST", target).json(body)
}

async fn sql(database: &TestDatabase, statement: &str) {
    let link = database.connect().await;
    link.client.batch_execute(statement).await.unwrap();
    link.close().await;
}

/// A commit whose answer is lost, and one row that the database refuses.
async fn upset_the_database(database: &TestDatabase, proxy: &Proxy, daemon: &Daemon) {
    proxy.arm(Fault::CutAfter);
    let pay = r#"{"from":0,"to":1,"amount":1}"#;
    assert_eq!(
        daemon.post_keyed("/transaction", "cut", pay).await.status,
        200
    );
    assert!(proxy.has_struck());
    sql(
        database,
        "ALTER TABLE transfers ADD CONSTRAINT poison CHECK (reference IS DISTINCT FROM 'poison')",
    )
    .await;
    let body = r#"{"transfers":[{"from":0,"to":1,"amount":1},{"from":0,"to":2,"amount":1,"reference":"poison"},{"from":0,"to":3,"amount":1}]}"#;
    let results = daemon.post("/transactions", body).await.json();
    let status = |index: usize| results["results"][index]["status"].clone();
    assert_eq!(
        (status(0), status(2)),
        ("completed".into(), "completed".into())
    );
    let poisoned = serde_json::json!({"status": "rejected", "code": "invalid_parameter"});
    assert_eq!(results["results"][1], poisoned);
}

/// The page on which a gauge is above zero.
async fn until(daemon: &Daemon, family: &str) -> Metrics {
    let mut page = daemon.metrics().await;
    eventually(family, async || {
        page = daemon.metrics().await;
        page.sum(family, "") > 0.0
    })
    .await;
    page
}

/// Gauges that only show while something waits.
async fn make_it_wait(database: &TestDatabase, daemon: &Daemon, moved: &mut Moved) {
    let holder = database.connect().await;
    holder
        .client
        .batch_execute("BEGIN; LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    // Asked again and again: on a busy machine one round may be over, out of
    // time, before the last gauge was looked at.
    let over = Arc::new(AtomicBool::new(false));
    let ask = |request: Request| {
        let (address, over) = (daemon.api, Arc::clone(&over));
        tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                call(address, &request).await;
            }
        })
    };
    let pay = post("/transaction", r#"{"from":0,"to":1,"amount":1}"#);
    // One is being committed before the others come, so that they wait.
    let mut waiting = vec![ask(pay.clone())];
    until(daemon, "engine_batches_in_flight").await;
    for index in 0..8 {
        waiting.push(ask(Request::new("GET", &format!("/accounts/{index}"))));
        waiting.push(ask(pay.clone()));
    }
    for family in [
        "engine_batches_in_flight",
        "engine_queue_depth",
        "engine_permits_in_use",
        "engine_pool_waiting",
    ] {
        moved.look(&until(daemon, family).await);
    }
    over.store(true, Ordering::Relaxed);
    holder.client.batch_execute("ROLLBACK").await.unwrap();
    holder.close().await;
    for client in waiting {
        client.await.unwrap();
    }
    let mut half = Wire::connect(daemon.api).await.unwrap();
    let pay = pay.bytes();
    half.send(&pay[..pay.len() - 1]).await.unwrap();
    moved.look(&until(daemon, "engine_body_in_flight_bytes").await);
    half.send(&pay[pay.len() - 1..]).await.unwrap();
    assert_eq!(half.reply().await.unwrap().status, 200);
}

/// More operators than there is room for.
async fn crowd_the_admin(daemon: &Daemon) {
    let mut crowd = Vec::new();
    for _ in 0..80 {
        crowd.push(TcpStream::connect(daemon.admin).await.unwrap());
    }
    drop(crowd);
    eventually("refused", async || {
        let Ok(mut wire) = Wire::connect(daemon.admin).await else {
            return false;
        };
        let page = wire.call(&Request::new("GET", "/metrics")).await;
        page.is_ok_and(|page| {
            Metrics(page.body).sum("engine_admin_connections_refused_total", "") > 0.0
        })
    })
    .await;
}

async fn promtool(page: &Metrics) {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("promtool is not installed: the page's form was not checked");
        return;
    };
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(page.0.as_bytes()).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.is_empty(), "{told}");
}

#[track_caller]
fn check_access_log(lines: &[String], page: &Metrics) {
    let mut requests = 0.0;
    let mut of_batches = 0;
    let mut ids = BTreeSet::new();
    for line in lines {
        assert!(!line.contains("s3cret"), "{line}");
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(
            line["timestamp"].is_string() && line["request_id"].is_string(),
            "{line}"
        );
        match line["kind"].as_str().unwrap() {
            "request" => {
                requests += 1.0;
                assert!(
                    line["duration_us"].is_u64() && line["client"].is_string(),
                    "{line}"
                );
                let status = line["status"].as_u64().unwrap();
                assert_eq!(line["code"].is_string(), 400 <= status, "{line}");
                if line["route"] == "transaction" && status == 200 {
                    assert!(line["txn_id"].is_string(), "{line}");
                }
                assert!(ids.insert(line["request_id"].to_string()), "{line}");
            }
            "transfer" => {
                of_batches += 1;
                assert!(
                    line["index"].is_u64() && line["status"].is_string(),
                    "{line}"
                );
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(requests, page.sum("engine_requests_total", ""));
    // Four accounts funded, three and three of the batch calls; a group that
    // failed has no transfer to tell of.
    assert_eq!(of_batches, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_run_that_touches_everything_every_number_has_moved() {
    let database = ledger().await;
    let mut private = Private::start(true, &[]).await;
    let proxy = Proxy::start(&database.url).await;
    let redis = private.servers.redis_url.clone().unwrap();
    let daemon = Daemon::start_on(
        &proxy.url(&database),
        &[
            "--redis-url",
            &redis,
            "--cache-ttl",
            "1s",
            "--access-log",
            "all",
        ],
    )
    .await;
    let mut moved = Moved::default();
    daemon.open(4, 100).await;
    eventually("served by the cache", async || {
        daemon.get("/balance/2").await.json()["cached"] == true
    })
    .await;
    ask_everything(&daemon).await;
    moved.look(&daemon.metrics().await);
    make_it_wait(&database, &daemon, &mut moved).await;
    upset_the_database(&database, &proxy, &daemon).await;
    crowd_the_admin(&daemon).await;
    private.servers.kill_redis().await.unwrap();
    eventually("an error of Redis", async || {
        assert_eq!(daemon.get("/balance/2").await.status, 200);
        daemon.metrics().await.sum("engine_cache_errors_total", "") > 0.0
    })
    .await;
    moved.look(&daemon.metrics().await);

    // Draining shows while something is still being answered.
    let holder = database.connect().await;
    let hold = "BEGIN; SELECT * FROM accounts WHERE id = 1 FOR UPDATE";
    holder.client.batch_execute(hold).await.unwrap();
    let mut last = Wire::connect(daemon.api).await.unwrap();
    let pay = post("/transaction", r#"{"from":0,"to":1,"amount":1}"#);
    last.send(&pay.bytes()).await.unwrap();
    eventually("in flight", async || {
        daemon.metrics().await.sum("engine_batches_in_flight", "") > 0.0
    })
    .await;
    daemon.signal(Signal::TERM);
    eventually("draining", async || {
        daemon.metrics().await.sum("engine_draining", "") > 0.0
    })
    .await;
    let page = daemon.metrics().await;
    moved.look(&page);
    promtool(&page).await;
    holder.client.batch_execute("ROLLBACK").await.unwrap();
    holder.close().await;
    assert_eq!(last.reply().await.unwrap().status, 200);
    let ended = daemon.ended().await;
    assert_eq!(ended.code, Some(0), "{:?}", ended.log);

    let mut still = moved.still();
    still.retain(|family| *family != CLOCK_SKEW);
    assert_eq!(still, STILL);
    for line in &ended.log {
        assert!(!line.contains("s3cret"), "{line}");
    }
    // The last request was answered after the last page was read.
    let but_last = &ended.out[..ended.out.len() - 1];
    check_access_log(but_last, &page);
    private.stop().await;
}
