//! What every call answers when all is well, to the byte.

use serde_json::json;

use super::{engine, ledger, stored, text};
use crate::support::daemon::{Daemon, Request};
use crate::support::{self, verify};

/// Ids and times are the engine's own; the answer around them is the contract's.
#[track_caller]
fn check_form(id: &str, created_at: &str) {
    let id: uuid::Uuid = id.parse().unwrap();
    assert_eq!(id.get_version_num(), 7);
    let (seconds, nanos) = id.get_timestamp().unwrap().to_unix();
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(seconds, nanos);
    assert_eq!(
        humantime::format_rfc3339_millis(time).to_string(),
        created_at
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_four_calls_answer_to_the_byte() {
    let database = ledger().await;
    let cache = support::redis_url();
    // Time enough for Redis on a busy machine: whether it answers is not the point.
    let arguments = ["--cache-ttl", "4s", "--cache-timeout", "2s"];
    let arguments = [&["--redis-url", &cache], &arguments[..]].concat();
    let daemon = Daemon::start(&database, &arguments).await;
    daemon.open(2, 0).await;
    let mut rows = Vec::new();
    for (path, body, amount) in [
        (
            "/transaction",
            r#"{"from":0,"to":1,"amount":500}"#,
            "500.00",
        ),
        (
            "/process_transaction",
            r#" { "to" : 2 , "amount" : "1e2", "from" : 0, "currency":"USD" } "#,
            "100.00",
        ),
    ] {
        let reply = daemon.post(path, body).await;
        let receipt = reply.json();
        let (id, at) = (text(&receipt, "txn_id"), text(&receipt, "created_at"));
        check_form(&id, &at);
        let to = &receipt["to"];
        reply.expect(
            200,
            &format!(
                r#"{{"txn_id":"{id}","status":"completed","from":0,"to":{to},"amount":{amount},"created_at":"{at}"}}"#
            ),
        );
        assert!(reply.header("x-request-id").is_some());
        assert_eq!(reply.header("idempotency-replayed"), None);
        rows.insert(
            0,
            format!(
                r#"{{"id":"{id}","from":0,"to":{to},"amount":{amount},"status":"completed","currency":"USD","created_at":"{at}"}}"#
            ),
        );
    }
    daemon
        .get("/transactions")
        .await
        .expect(200, &format!("[{}]", rows.join(",")));
    let balance = |cached: bool| {
        format!(
            r#"{{"account_id":1,"balance":500.00,"cached":{cached},"version":1,"currency":"USD","balance_minor":"50000"}}"#
        )
    };
    // For one TTL after its start an engine believes PostgreSQL only.
    support::daemon::eventually("served by the cache", async || {
        daemon.get("/balance/2").await.json()["cached"] == true
    })
    .await;
    daemon.get("/balance/1").await.expect(200, &balance(false));
    daemon.get("/balance/1").await.expect(200, &balance(true));
    let consistent = daemon.get("/balance/1?consistent=true").await;
    consistent.expect(200, &balance(false));
    // Read your own writes: never the cached value from before.
    let more = daemon
        .post("/transaction", r#"{"from":0,"to":1,"amount":0.01}"#)
        .await;
    assert_eq!(more.status, 200);
    let after = daemon.get("/balance/1").await;
    assert!(after.body.contains(r#""balance":500.01"#), "{}", after.body);
    assert_eq!(after.json()["version"], 2);
    let ended = daemon.stop().await;
    assert_eq!(ended.code, Some(0), "{:?}", ended.log);
    verify(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balance_that_was_not_asked_for_is_not_put_by_a_consistent_read() {
    let database = ledger().await;
    let cache = support::redis_url();
    let daemon = Daemon::start(&database, &["--redis-url", &cache, "--cache-ttl", "1s"]).await;
    daemon.open(2, 0).await;
    support::daemon::eventually("served by the cache", async || {
        daemon.get("/balance/2").await.json()["cached"] == true
    })
    .await;
    for _ in 0..2 {
        let read = daemon.get("/balance/1?consistent=true").await;
        assert_eq!(read.json()["cached"], false);
    }
    // It neither read the cache nor filled it.
    assert_eq!(daemon.get("/balance/1").await.json()["cached"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_a_result_for_each_in_order() {
    let (database, daemon) = engine(2, 100).await;
    let body = r#"{"transfers":[
        {"from":1,"to":2,"amount":1,"idempotency_key":"a"},
        {"from":1,"to":2,"amount":"1.00","idempotency_key":"a"},
        {"from":1,"to":2,"amount":2,"idempotency_key":"a"},
        {"from":2,"to":1,"amount":500},
        {"from":2,"to":1,"amount":500,"idempotency_key":"b"},
        {"from":1,"to":9,"amount":1},
        {"from":1,"to":2,"amount":0.001},
        {"from":1,"to":2,"amount":99}]}"#;
    let reply = daemon.post("/transactions", body).await;
    let results = reply.json();
    let id = |index: usize| text(&results["results"][index], "txn_id");
    let (a, b, last) = (id(0), id(4), id(7));
    reply.expect(
        200,
        &[
            r#"{"results":[{"txn_id":"#,
            &format!(r#""{a}","status":"completed"}},"#),
            &format!(r#"{{"txn_id":"{a}","status":"completed","replayed":true}},"#),
            r#"{"status":"rejected","code":"idempotency_key_reused"},"#,
            r#"{"status":"rejected","code":"insufficient_funds"},"#,
            &format!(r#"{{"txn_id":"{b}","status":"rejected","code":"insufficient_funds"}},"#),
            r#"{"status":"rejected","code":"account_not_found"},"#,
            r#"{"status":"rejected","code":"invalid_amount"},"#,
            &format!(r#"{{"txn_id":"{last}","status":"completed"}}]}}"#),
        ]
        .concat(),
    );
    // The whole call again: what had a key is replayed, what had none is new.
    let again = daemon.post("/transactions", body).await.json();
    let again = &again["results"];
    assert_eq!(
        again[0],
        json!({"txn_id": a, "status": "completed", "replayed": true})
    );
    assert_eq!(
        again[4],
        json!({"txn_id": b, "status": "rejected", "code": "insufficient_funds", "replayed": true})
    );
    assert_eq!(
        again[7],
        json!({"status": "rejected", "code": "insufficient_funds"})
    );
    assert_eq!(stored(&database).await, 2 + 2);
    let rejected = daemon.get("/transactions?status=rejected").await.json();
    assert_eq!(rejected.as_array().unwrap().len(), 1, "{rejected}");
    assert_eq!(rejected[0]["id"], b);
    verify(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_atomic_batch_is_applied_whole_or_not_at_all() {
    let (database, daemon) = engine(2, 100).await;
    let good = r#"{"transfers":[{"from":1,"to":2,"amount":100},{"from":2,"to":1,"amount":200}],"atomic":true}"#;
    assert_eq!(daemon.post("/transactions", good).await.status, 200);
    let listed = daemon.get("/transactions?limit=2").await.json();
    assert!(listed[0]["group_id"].is_string());
    assert_eq!(listed[0]["group_id"], listed[1]["group_id"]);
    for (bad, code, more) in [
        (
            r#"{"from":2,"to":1,"amount":500,"idempotency_key":"y"}"#,
            "insufficient_funds",
            &["index", "account_id"][..],
        ),
        (
            r#"{"from":2,"to":9,"amount":1}"#,
            "account_not_found",
            &["index", "account_id"],
        ),
        (
            r#"{"from":1,"to":2,"amount":0.001}"#,
            "invalid_amount",
            &["index", "field"],
        ),
    ] {
        let body = format!(
            r#"{{"atomic":true,"transfers":[{{"from":1,"to":2,"amount":1,"idempotency_key":"x"}},{bad},{{"from":1,"to":2,"amount":1}}]}}"#
        );
        let problem = daemon.post("/transactions", &body).await;
        let problem = problem.expect_problem(422, code, more);
        assert_eq!(problem["index"], 1);
    }
    // Nothing was applied and no key is kept: the same key is free for another request.
    assert_eq!(stored(&database).await, 4);
    let kept = daemon.get("/transactions?idempotency_key=x").await;
    kept.expect(200, "[]");
    let other = daemon
        .post_keyed("/transaction", "x", r#"{"from":1,"to":2,"amount":7}"#)
        .await;
    assert_eq!(other.status, 200, "{}", other.body);
    verify(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_batch_call_is_one_commit() {
    let (database, daemon) = engine(2, 0).await;
    let one = r#"{"from":0,"to":1,"amount":0.01}"#;
    for (count, status) in [(8_192, 200), (8_193, 400)] {
        let body = format!(
            r#"{{"transfers":[{}],"atomic":true}}"#,
            vec![one; count].join(",")
        );
        let reply = daemon.post("/transactions", &body).await;
        assert_eq!(reply.status, status, "{count}");
    }
    let empty = daemon.post("/transactions", r#"{"transfers":[]}"#).await;
    empty.expect_problem(400, "invalid_parameter", &["field"]);
    assert_eq!(stored(&database).await, 8_192);
    let balance = daemon.get("/balance/1?consistent=true").await.json();
    assert_eq!(balance["balance_minor"], "8192");
    assert_eq!(balance["version"], 8_192);
    verify(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_is_taken_back_at_most_once() {
    let (database, daemon) = engine(2, 100).await;
    let pay = daemon
        .post("/transaction", r#"{"from":1,"to":2,"amount":30}"#)
        .await;
    let id = text(&pay.json(), "txn_id");
    let target = format!("/transactions/{id}/reversal");
    let first = daemon
        .post_keyed(&target, "k", r#"{"reference":"oops"}"#)
        .await;
    let receipt = first.json();
    let (reversal, at) = (text(&receipt, "txn_id"), text(&receipt, "created_at"));
    first.expect(
        200,
        &format!(
            r#"{{"txn_id":"{reversal}","status":"completed","from":2,"to":1,"amount":30.00,"created_at":"{at}"}}"#
        ),
    );
    let again = daemon
        .post_keyed(&target, "k", r#"{"reference":"oops"}"#)
        .await;
    assert_eq!(again.body, first.body);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    let second = daemon.call(&Request::new("POST", &target)).await;
    second.expect_problem(409, "already_reversed", &["account_id"]);
    let kept = daemon.post_keyed(&target, "other", "{}").await;
    let kept = kept.expect_problem(409, "already_reversed", &["account_id", "txn_id"]);
    let shown = daemon
        .get(&format!("/transactions/{}", text(&kept, "txn_id")))
        .await;
    assert_eq!(shown.json()["status"], "rejected");
    let shown = daemon.get(&format!("/transactions/{reversal}")).await;
    shown.expect(
        200,
        &format!(
            r#"{{"id":"{reversal}","from":2,"to":1,"amount":30.00,"status":"completed","currency":"USD","created_at":"{at}","from_balance":100.00,"from_version":3,"to_balance":100.00,"to_version":3,"reverses":"{id}","reference":"oops"}}"#
        ),
    );
    assert_eq!(stored(&database).await, 4);
    verify(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_describes_and_reports_itself() {
    let (_database, daemon) = engine(1, 0).await;
    daemon
        .get("/health")
        .await
        .expect(200, r#"{"status":"ready"}"#);
    let document = daemon.get("/openapi.json").await.json();
    assert!(document["paths"]["/transaction"]["post"].is_object());
    let page = daemon.get("/docs").await;
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let echoed = daemon
        .call(&Request::new("GET", "/health").header("x-request-id", "mine-1"))
        .await;
    assert_eq!(echoed.header("x-request-id"), Some("mine-1"));
}
