//! Routes of accounts, of the engine itself, and what is no route.

use serde_json::{Value, json};

use super::client::{Request, Served};
use super::routes::{PAY, funded};
use crate::http::{ErrorCode, Route};

#[tokio::test]
async fn a_balance_says_whether_the_cache_answered() {
    let served = funded().await;
    let expected = |cached: bool| {
        format!(
            r#"{{"account_id":1,"balance":100.00,"cached":{cached},"version":1,"currency":"USD","balance_minor":"10000"}}"#
        )
    };
    served
        .get("/balance/1?consistent=true")
        .await
        .expect(200, &expected(false));
    served.get("/balance/1").await.expect(200, &expected(false));
    served.get("/balance/1").await.expect(200, &expected(true));
    served
        .get("/balance/%31")
        .await
        .expect(200, &expected(true));
    served
        .get("/balance/1?consistent=true")
        .await
        .expect(200, &expected(false));
    let problem = served
        .get("/balance/9")
        .await
        .expect_problem(404, "account_not_found");
    assert_eq!(problem["account_id"], 9);
    served
        .get("/balance/x")
        .await
        .expect_problem(400, "invalid_account");
    served
        .get("/balance/%zz")
        .await
        .expect_problem(400, "invalid_parameter");
    served
        .get("/balance/1?x=1")
        .await
        .expect_problem(400, "invalid_parameter");
}

#[tokio::test]
async fn accounts_are_opened_once_and_listed_in_order() {
    let served = Served::start().await;
    let body = r#"{"account_id":7,"currency":"KWD","min_balance":-1.5,"name":"Till \"A\""}"#;
    let expected = concat!(
        r#"{"account_id":7,"currency":"KWD","balance":0.000,"balance_minor":"0","#,
        r#""min_balance":-1.500,"version":0,"status":"open","name":"Till \"A\"","owner":null,"#,
        r#""created_at":"2026-01-31T12:00:00.000Z","updated_at":"2026-01-31T12:00:00.000Z"}"#
    );
    served.post("/accounts", body).await.expect(201, expected);
    served.post("/accounts", body).await.expect(200, expected);
    served.get("/accounts/7").await.expect(200, expected);
    served
        .get("/accounts")
        .await
        .expect(200, &format!("[{expected}]"));
    let differs = r#"[{"account_id":8,"currency":"USD"},{"account_id":7,"currency":"USD"}]"#;
    let problem = served
        .post("/accounts", differs)
        .await
        .expect_problem(409, "account_exists");
    assert_eq!(problem["account_id"], 7);
    served
        .get("/accounts/8")
        .await
        .expect_problem(404, "account_not_found");
    let list = r#"[{"account_id":9,"currency":"USD","min_balance":null},{"account_id":8,"currency":"USD"}]"#;
    let opened = served.post("/accounts", list).await;
    assert_eq!(opened.status, 201);
    assert_eq!(opened.json()[0]["min_balance"], Value::Null);
    let page = served.get("/accounts?limit=2").await;
    let cursor = page.header("x-next-cursor").unwrap();
    assert_eq!(page.json()[1]["account_id"], 8);
    let rest = served
        .get(&format!("/accounts?limit=2&cursor={cursor}"))
        .await;
    assert_eq!(rest.json()[0]["account_id"], 9);
    assert_eq!(rest.header("link"), None);
    for (body, code) in [
        (r#"{"account_id":5,"currency":"XXX"}"#, "invalid_parameter"),
        (
            r#"{"account_id":5,"currency":"JPY","min_balance":-0.5}"#,
            "invalid_amount",
        ),
        (
            r#"{"account_id":5,"currency":"JPY","min_balance":1}"#,
            "invalid_amount",
        ),
    ] {
        let problem = served
            .post("/accounts", body)
            .await
            .expect_problem(400, code);
        assert_eq!(problem["account_id"], 5);
    }
}

#[tokio::test]
async fn an_account_is_changed_as_far_as_its_balance_allows() {
    let served = funded().await;
    let patch = async |id: &str, body: &str| {
        let target = format!("/accounts/{id}");
        served.call(Request::new("PATCH", &target).json(body)).await
    };
    let changed = patch("1", r#"{"status":"frozen","min_balance":"50","name":"n"}"#).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    let account = changed.json();
    assert_eq!(
        (&account["status"], &account["name"]),
        (&json!("frozen"), &json!("n"))
    );
    assert!(changed.body.contains(r#""min_balance":50.00"#));
    patch("1", r#"{"status":"closed"}"#)
        .await
        .expect_problem(409, "account_not_empty");
    let above = patch("1", r#"{"min_balance":100.01}"#).await;
    above.expect_problem(422, "insufficient_funds");
    patch("1", r#"{"min_balance":0.001}"#)
        .await
        .expect_problem(400, "invalid_amount");
    patch("9", r#"{"name":"n"}"#)
        .await
        .expect_problem(404, "account_not_found");
    patch("x", r#"{"name":"n"}"#)
        .await
        .expect_problem(400, "invalid_account");
    patch("1", r#"{"owner":"n"}"#)
        .await
        .expect_problem(400, "unknown_field");
}

#[tokio::test]
async fn health_and_documents_need_no_ledger() {
    let served = Served::start().await;
    served
        .get("/health")
        .await
        .expect(200, r#"{"status":"ready"}"#);
    served.ledger.not_ready();
    let unready = served.get("/health").await;
    unready.expect(503, r#"{"status":"unavailable"}"#);
    assert_eq!(unready.header("retry-after"), Some("1"));
    let document = served.get("/openapi.json").await;
    assert_eq!(document.json()["openapi"], "3.1.0");
    let page = served.get("/docs").await;
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(page.body.starts_with("<!doctype html>"));
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told_apart() {
    let served = Served::start().await;
    for (method, target) in [
        ("GET", "/"),
        ("GET", "/nothing"),
        ("POST", "/transaction/"),
        ("OPTIONS", "*"),
    ] {
        let reply = served.call(Request::new(method, target)).await;
        reply.expect_problem(404, "not_found");
    }
    for (method, target, allow) in [
        ("GET", "/transaction", "POST"),
        ("PUT", "/accounts/1", "GET, HEAD, PATCH"),
        ("DELETE", "/transactions/x", "GET, HEAD"),
        ("BREW", "/health", "GET, HEAD"),
    ] {
        let reply = served.call(Request::new(method, target)).await;
        reply.expect_problem(405, "method_not_allowed");
        assert_eq!(reply.header("allow"), Some(allow));
    }
}

#[tokio::test]
async fn head_is_get_without_its_body() {
    let served = Served::start().await;
    let mut client = served.connect().await;
    client.send(&Request::new("HEAD", "/health").bytes()).await;
    client.send(&Request::new("GET", "/health").bytes()).await;
    let head = client.reply_to_head().await;
    assert_eq!(head.header("content-length"), Some("18"));
    client.reply().await.expect(200, r#"{"status":"ready"}"#);
}

#[tokio::test]
async fn the_observer_is_told_of_every_answer() {
    let served = funded().await;
    let request = Request::new("POST", "/transaction").json(PAY);
    served.call(request.header("X-Request-Id", "mine")).await;
    served.get("/balance/9").await;
    served.get("/nothing").await;
    let seen = served.watch.seen();
    assert_eq!(seen.len(), 4);
    assert_eq!((seen[1].request_id.as_str(), seen[1].status), ("mine", 200));
    assert_eq!(
        (seen[1].route, seen[1].has_txn_id),
        (Some(Route::Transfer), true)
    );
    let found = (seen[2].route, seen[2].status, seen[2].code);
    assert_eq!(
        found,
        (Some(Route::Balance), 404, Some(ErrorCode::AccountNotFound))
    );
    assert_eq!(
        (seen[3].route, seen[3].code),
        (None, Some(ErrorCode::NotFound))
    );
}
