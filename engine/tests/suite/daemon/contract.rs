//! What every call answers when all is well, to the byte.

use serde_json::{Value, json};

use super::{engine, ledger, stored};
use crate::support::daemon::{Daemon, Request};
use crate::support::{self, verify};

/// Ids and times are the engine's own; the answer around them is the contract's.
#[track_caller]
fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap().to_owned()
}

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
    let daemon = Daemon::start(&database, &["--redis-url", &cache, "--cache-ttl", "2s"]).await;
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
async fn accounts_are_opened_changed_and_closed() {
    let database = ledger().await;
    let daemon = Daemon::start(&database, &[]).await;
    let body =
        r#"{"account_id":7,"currency":"KWD","min_balance":-1.5,"name":"Till \"A\"","owner":"o"}"#;
    let reply = daemon.post("/accounts", body).await;
    let at = text(&reply.json(), "created_at");
    let expected = |balance: &str, version: u32| {
        let minor = balance.replace('.', "");
        let minor = minor.trim_start_matches('0');
        let minor = if minor.is_empty() { "0" } else { minor };
        format!(
            r#"{{"account_id":7,"currency":"KWD","balance":{balance},"balance_minor":"{minor}","min_balance":-1.500,"version":{version},"status":"open","name":"Till \"A\"","owner":"o","created_at":"{at}","updated_at":"{at}"}}"#
        )
    };
    reply.expect(201, &expected("0.000", 0));
    daemon
        .post("/accounts", body)
        .await
        .expect(200, &expected("0.000", 0));
    daemon
        .get("/accounts/7")
        .await
        .expect(200, &expected("0.000", 0));
    daemon
        .get("/accounts")
        .await
        .expect(200, &format!("[{}]", expected("0.000", 0)));
    let differs = r#"[{"account_id":8,"currency":"USD"},{"account_id":7,"currency":"USD"}]"#;
    let problem = daemon.post("/accounts", differs).await;
    problem.expect_problem(409, "account_exists", &["account_id"]);
    let absent = daemon.get("/accounts/8").await;
    absent.expect_problem(404, "account_not_found", &["account_id"]);
    let list = r#"[{"account_id":9,"currency":"JPY","min_balance":null},{"account_id":8,"currency":"JPY"}]"#;
    assert_eq!(daemon.post("/accounts", list).await.status, 201);
    // Digits of the currency, everywhere.
    let yen = daemon
        .post("/transaction", r#"{"from":9,"to":8,"amount":1234}"#)
        .await;
    assert!(yen.body.contains(r#""amount":1234,"#), "{}", yen.body);
    let balance = daemon.get("/balance/9?consistent=true").await;
    balance.expect(
        200,
        r#"{"account_id":9,"balance":-1234,"cached":false,"version":1,"currency":"JPY","balance_minor":"-1234"}"#,
    );
    let page = daemon.get("/accounts?limit=2").await;
    let cursor = page.header("x-next-cursor").unwrap();
    let next = format!("/accounts?limit=2&cursor={cursor}");
    assert_eq!(
        page.header("link"),
        Some(&*format!(r#"<{next}>; rel="next""#))
    );
    let rest = daemon.get(&next).await;
    assert_eq!(rest.json()[0]["account_id"], 9);
    assert_eq!(
        (rest.header("link"), rest.header("x-next-cursor")),
        (None, None)
    );
    change_and_close(&daemon).await;
    verify(&database).await;
}

async fn change_and_close(daemon: &Daemon) {
    let frozen = daemon
        .patch("/accounts/8", r#"{"status":"frozen","name":"n"}"#)
        .await;
    assert_eq!(frozen.status, 200, "{}", frozen.body);
    assert_eq!(frozen.json()["status"], "frozen");
    assert_eq!(frozen.json()["name"], "n");
    let back = r#"{"from":8,"to":9,"amount":1234}"#;
    let refused = daemon.post("/transaction", back).await;
    refused.expect_problem(422, "account_frozen", &["account_id"]);
    let closing = r#"{"status":"closed"}"#;
    let full = daemon.patch("/accounts/8", closing).await;
    full.expect_problem(409, "account_not_empty", &["account_id"]);
    let opened = daemon.patch("/accounts/8", r#"{"status":"open"}"#).await;
    assert_eq!(opened.status, 200);
    assert_eq!(daemon.post("/transaction", back).await.status, 200);
    let closed = daemon.patch("/accounts/8", closing).await;
    assert_eq!(closed.json()["status"], "closed");
    let late = r#"{"from":9,"to":8,"amount":1}"#;
    let refused = daemon.post("/transaction", late).await;
    refused.expect_problem(422, "account_closed", &["account_id"]);
    let limit = daemon.patch("/accounts/9", r#"{"min_balance":0}"#).await;
    assert_eq!(limit.json()["min_balance"], 0);
    let refused = daemon
        .post("/transaction", r#"{"from":9,"to":7,"amount":1}"#)
        .await;
    refused.expect_problem(422, "currency_mismatch", &["account_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_paged_by_link_newest_first() {
    let (database, daemon) = engine(2, 0).await;
    let mut made = Vec::new();
    for amount in 1..=5 {
        let body = format!(
            r#"{{"from":0,"to":1,"amount":{amount},"reference":"r{amount}","category":"c"}}"#
        );
        made.insert(
            0,
            text(&daemon.post("/transaction", &body).await.json(), "txn_id"),
        );
    }
    let other = daemon
        .post("/transaction", r#"{"from":0,"to":2,"amount":1}"#)
        .await;
    assert_eq!(other.status, 200);
    for filter in ["account=1", "to=1", "from=0&to=1", "account=1&category=c"] {
        let mut target = format!("/transactions?{filter}&limit=2");
        let mut seen = Vec::new();
        loop {
            let page = daemon.get(&target).await;
            assert_eq!(page.status, 200, "{}", page.body);
            let rows = page.json();
            seen.extend(rows.as_array().unwrap().iter().map(|row| text(row, "id")));
            let Some(link) = page.header("link") else {
                break;
            };
            let (next, relation) = link.split_once(';').unwrap();
            assert_eq!(relation, r#" rel="next""#);
            target = next.trim_matches(['<', '>']).to_owned();
            assert!(target.contains(page.header("x-next-cursor").unwrap()));
        }
        assert_eq!(seen, made, "{filter}");
    }
    let first = daemon
        .get("/transactions?account=1&reference=r3")
        .await
        .json();
    assert_eq!(first.as_array().unwrap().len(), 1);
    assert_eq!(first[0]["direction"], "credit");
    assert_eq!(
        (&first[0]["balance"], &first[0]["version"]),
        (&json!(6.0), &json!(3))
    );
    let whole = daemon
        .get(&format!("/transactions/{}", made[2]))
        .await
        .json();
    assert_eq!(whole["to_balance"], json!(6.0));
    assert_eq!(whole["from_version"], json!(3));
    verify(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn amounts_are_exact_from_the_socket_to_the_table() {
    let (database, daemon) = engine(1, 0).await;
    let open = r#"[{"account_id":10,"currency":"USD"},{"account_id":20,"currency":"JPY","min_balance":null},
        {"account_id":21,"currency":"JPY"},{"account_id":30,"currency":"KWD","min_balance":null},{"account_id":31,"currency":"KWD"}]"#;
    assert_eq!(daemon.post("/accounts", open).await.status, 201);
    let mut minor = 0_i64;
    for (amount, adds) in [
        ("0.1", 10),
        ("0.2", 20),
        ("1e2", 10_000),
        ("\"5\"", 500),
        ("\"1.50\"", 150),
        ("1.500", 150),
        ("123456789012345", 12_345_678_901_234_500),
        ("12345678901234.56", 1_234_567_890_123_456),
        ("0.01", 1),
    ] {
        let body = format!(r#"{{"from":0,"to":1,"amount":{amount}}}"#);
        let reply = daemon.post("/transaction", &body).await;
        assert_eq!(reply.status, 200, "{amount} {}", reply.body);
        minor += adds;
        let balance = daemon.get("/balance/1?consistent=true").await.json();
        assert_eq!(balance["balance_minor"], minor.to_string(), "{amount}");
    }
    let largest = r#"{"from":0,"to":10,"amount":"92233720368547758.07"}"#;
    // The funding account is at -13,580,246,791,357,... already: past BIGINT there.
    let overflow = daemon.post("/transaction", largest).await;
    overflow.expect_problem(422, "balance_overflow", &["account_id"]);
    for (from, to, amount) in [
        (0, 1, "-0"),
        (0, 1, "0"),
        (0, 1, "-1"),
        (0, 1, "1E400"),
        (0, 1, "1e-400"),
        (0, 1, "0.001"),
        (0, 1, "92233720368547758.08"),
        (0, 1, "\"+5\""),
        (0, 1, "\"00\""),
        (0, 1, "\"NaN\""),
        (0, 1, "\"\""),
        (0, 1, "null"),
        (20, 21, "0.5"),
        (30, 31, "0.0001"),
    ] {
        let body = format!(r#"{{"from":{from},"to":{to},"amount":{amount}}}"#);
        let reply = daemon.post("/transaction", &body).await;
        reply.expect_problem(400, "invalid_amount", &["field"]);
    }
    for amount in ["00", "+5", "NaN", ".5", "5."] {
        let body = format!(r#"{{"from":0,"to":1,"amount":{amount}}}"#);
        let reply = daemon.post("/transaction", &body).await;
        assert_eq!(reply.json()["code"], "invalid_json", "{amount}");
    }
    let dinar = daemon
        .post("/transaction", r#"{"from":30,"to":31,"amount":1.234}"#)
        .await;
    assert!(dinar.body.contains(r#""amount":1.234,"#), "{}", dinar.body);
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
