//! Routes of transfers: what they answer when all is well, and their refusals.

use serde_json::{Value, json};

use super::client::{Request, Served};
use crate::http::{ErrorCode, TransferStatus};

pub(super) const PAY: &str = r#"{"from":0,"to":1,"amount":100}"#;

pub(super) async fn funded() -> Served {
    let served = Served::start().await;
    served.ledger.open_three();
    assert_eq!(served.post("/transaction", PAY).await.status, 200);
    served
}

fn txn_id(body: &Value) -> String {
    body["txn_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_transfer_answers_with_its_receipt_under_both_names() {
    let served = Served::start().await;
    served.ledger.open_three();
    for path in ["/transaction", "/process_transaction"] {
        let reply = served.post(path, PAY).await;
        let id = txn_id(&reply.json());
        let expected = format!(
            r#"{{"txn_id":"{id}","status":"completed","from":0,"to":1,"amount":100.00,"created_at":"2026-01-31T12:00:00.000Z"}}"#
        );
        reply.expect(200, &expected);
        assert_eq!(reply.header("idempotency-replayed"), None);
    }
    assert_eq!(served.ledger.transfers_made(), 2);
}

#[tokio::test]
async fn a_key_makes_one_transfer_of_many_requests() {
    let served = Served::start().await;
    served.ledger.open_three();
    let first = served.post_keyed("/transaction", "k", PAY).await;
    let same = r#"{"amount":"100.00","to":1,"from":0}"#;
    let again = served.post_keyed("/transaction", "\"k\"", same).await;
    assert_eq!((again.status, &again.body), (200, &first.body));
    assert_eq!(first.header("idempotency-replayed"), None);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    let other = r#"{"from":0,"to":2,"amount":100}"#;
    let reused = served.post_keyed("/transaction", "k", other).await;
    reused.expect_problem(422, "idempotency_key_reused");
    assert_eq!(served.ledger.transfers_made(), 1);
}

#[tokio::test]
async fn a_kept_rejection_is_answered_again_as_it_was() {
    let served = Served::start().await;
    served.ledger.open_three();
    let overdraw = r#"{"from":1,"to":2,"amount":5}"#;
    let unkeyed = served.post("/transaction", overdraw).await;
    let problem = unkeyed.expect_problem(422, "insufficient_funds");
    assert_eq!(
        (&problem["account_id"], problem.get("txn_id")),
        (&json!(1), None)
    );
    let first = served.post_keyed("/transaction", "k", overdraw).await;
    assert_eq!(
        first.expect_problem(422, "insufficient_funds")["account_id"],
        1
    );
    // Money comes in between: the answer stays.
    served.post("/transaction", PAY).await;
    let again = served.post_keyed("/transaction", "k", overdraw).await;
    assert_eq!(again.body, first.body);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    let id = txn_id(&first.json());
    let shown = served.get(&format!("/transactions/{id}")).await;
    let expected = format!(
        r#"{{"id":"{id}","from":1,"to":2,"amount":5,"status":"rejected","code":"insufficient_funds","account_id":1,"created_at":"2026-01-31T12:00:00.000Z"}}"#
    );
    shown.expect(200, &expected);
    let listed = served.get("/transactions?status=rejected").await;
    listed.expect(200, &format!("[{expected}]"));
    let fate = served.get("/transactions?idempotency_key=k").await;
    fate.expect(200, &format!("[{expected}]"));
    served
        .get("/transactions?idempotency_key=other")
        .await
        .expect(200, "[]");
    let reversal = format!("/transactions/{id}/reversal");
    let reversed = served.call(Request::new("POST", &reversal)).await;
    reversed.expect_problem(404, "transaction_not_found");
}

#[tokio::test]
async fn every_business_refusal_has_its_code_and_status() {
    let served = funded().await;
    let open = r#"[{"account_id":3,"currency":"JPY"},{"account_id":4,"currency":"USD"},
                   {"account_id":5,"currency":"USD"},{"account_id":6,"currency":"USD","min_balance":null}]"#;
    assert_eq!(served.post("/accounts", open).await.status, 201);
    for (id, status) in [(4, "frozen"), (5, "closed")] {
        let body = format!(r#"{{"status":"{status}"}}"#);
        let request = Request::new("PATCH", &format!("/accounts/{id}"))
            .json(&body)
            .bytes();
        let mut client = served.connect().await;
        client.send(&request).await;
        assert_eq!(client.reply().await.status, 200);
    }
    let largest = r#"{"from":0,"to":6,"amount":92233720368547758.07}"#;
    served
        .post("/transaction", largest)
        .await
        .expect_problem(422, "balance_overflow");
    for (body, status, code) in [
        (r#"{"from":1,"to":3,"amount":1}"#, 422, "currency_mismatch"),
        (
            r#"{"from":1,"to":2,"amount":1,"currency":"EUR"}"#,
            422,
            "currency_mismatch",
        ),
        (r#"{"from":1,"to":4,"amount":1}"#, 422, "account_frozen"),
        (r#"{"from":1,"to":5,"amount":1}"#, 422, "account_closed"),
        (
            r#"{"from":1,"to":2,"amount":100.01}"#,
            422,
            "insufficient_funds",
        ),
        (r#"{"from":1,"to":9,"amount":1}"#, 404, "account_not_found"),
        (r#"{"from":9,"to":1,"amount":1}"#, 404, "account_not_found"),
        (r#"{"from":1,"to":2,"amount":0.001}"#, 400, "invalid_amount"),
        (r#"{"from":3,"to":1,"amount":0.5}"#, 400, "invalid_amount"),
    ] {
        let problem = served
            .post("/transaction", body)
            .await
            .expect_problem(status, code);
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            !detail.contains("100.00") && !detail.contains("10000"),
            "{detail}"
        );
    }
    assert_eq!(served.ledger.transfers_made(), 1);
}

#[tokio::test]
async fn a_batch_has_a_result_for_each_in_order() {
    let served = funded().await;
    let body = r#"{"transfers":[
        {"from":1,"to":2,"amount":1,"idempotency_key":"a"},
        {"from":1,"to":2,"amount":1,"idempotency_key":"a"},
        {"from":1,"to":2,"amount":2,"idempotency_key":"a"},
        {"from":2,"to":1,"amount":500},
        {"from":2,"to":1,"amount":500,"idempotency_key":"b"},
        {"from":1,"to":9,"amount":1},
        {"from":1,"to":2,"amount":0.001}]}"#;
    let reply = served.post("/transactions", body).await;
    let results = reply.json();
    let id = |index: usize| txn_id(&results["results"][index]);
    let (one, five) = (id(0), id(4));
    reply.expect(
        200,
        &format!(
            concat!(
                r#"{{"results":[{{"txn_id":"{one}","status":"completed"}},"#,
                r#"{{"txn_id":"{one}","status":"completed","replayed":true}},"#,
                r#"{{"status":"rejected","code":"idempotency_key_reused"}},"#,
                r#"{{"status":"rejected","code":"insufficient_funds"}},"#,
                r#"{{"txn_id":"{five}","status":"rejected","code":"insufficient_funds"}},"#,
                r#"{{"status":"rejected","code":"account_not_found"}},"#,
                r#"{{"status":"rejected","code":"invalid_amount"}}]}}"#
            ),
            one = one,
            five = five
        ),
    );
    let told = served.watch.transfers();
    assert_eq!(told.len(), 7);
    let rejected = Some(ErrorCode::InsufficientFunds);
    assert_eq!(told[3], (3, TransferStatus::Rejected, rejected));
}

#[tokio::test]
async fn an_atomic_batch_is_applied_whole_or_not_at_all() {
    let served = funded().await;
    let good = r#"{"transfers":[{"from":1,"to":2,"amount":1},{"from":2,"to":1,"amount":1}],"atomic":true}"#;
    let reply = served.post("/transactions", good).await;
    assert_eq!(reply.json()["results"].as_array().unwrap().len(), 2);
    let listed = served.get("/transactions?limit=2").await.json();
    assert!(listed[0]["group_id"].is_string());
    assert_eq!(listed[0]["group_id"], listed[1]["group_id"]);
    for (second, code) in [
        (
            r#"{"from":2,"to":1,"amount":500,"idempotency_key":"y"}"#,
            "insufficient_funds",
        ),
        (r#"{"from":2,"to":9,"amount":1}"#, "account_not_found"),
        (r#"{"from":2,"to":1,"amount":0.001}"#, "invalid_amount"),
    ] {
        let body = format!(
            r#"{{"atomic":true,"transfers":[{{"from":1,"to":2,"amount":1,"idempotency_key":"x"}},{second}]}}"#
        );
        let problem = served
            .post("/transactions", &body)
            .await
            .expect_problem(422, code);
        assert_eq!(
            (&problem["index"], problem.get("txn_id")),
            (&json!(1), None)
        );
    }
    assert_eq!(served.ledger.transfers_made(), 3);
    served
        .get("/transactions?idempotency_key=x")
        .await
        .expect(200, "[]");
}

#[tokio::test]
async fn a_form_error_in_a_batch_names_its_index_and_nothing_is_done() {
    let served = funded().await;
    let body = r#"{"transfers":[{"from":1,"to":2,"amount":1},{"from":1,"to":1,"amount":1}]}"#;
    let problem = served
        .post("/transactions", body)
        .await
        .expect_problem(400, "same_account");
    assert_eq!(
        (&problem["index"], &problem["field"]),
        (&json!(1), &json!("to"))
    );
    let keyed = served
        .post_keyed("/transactions", "k", r#"{"transfers":[]}"#)
        .await;
    keyed.expect_problem(400, "invalid_idempotency_key");
    assert_eq!(served.ledger.transfers_made(), 1);
}

#[tokio::test]
async fn history_is_paged_by_cursor_newest_first() {
    let served = Served::start().await;
    served.ledger.open_three();
    let mut made = Vec::new();
    for amount in 1..=5 {
        let body = format!(r#"{{"from":0,"to":1,"amount":{amount},"reference":"r{amount}"}}"#);
        made.push(txn_id(&served.post("/transaction", &body).await.json()));
    }
    made.reverse();
    let mut seen = Vec::new();
    let mut target = "/transactions?from=0&limit=2".to_owned();
    loop {
        let page = served.get(&target).await;
        assert_eq!(page.status, 200, "{}", page.body);
        let rows = page.json();
        let ids = rows
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["id"].as_str().unwrap().to_owned());
        seen.extend(ids);
        let Some(link) = page.header("link") else {
            assert_eq!(page.header("x-next-cursor"), None);
            break;
        };
        let cursor = page.header("x-next-cursor").unwrap();
        target = format!("/transactions?from=0&limit=2&cursor={cursor}");
        assert_eq!(link, format!("<{target}>; rel=\"next\""));
    }
    assert_eq!(seen, made);
    let first = &made[0];
    let row = served.get("/transactions?limit=1").await;
    row.expect(
        200,
        &format!(
            r#"[{{"id":"{first}","from":0,"to":1,"amount":5.00,"status":"completed","currency":"USD","created_at":"2026-01-31T12:00:00.000Z","reference":"r5"}}]"#
        ),
    );
    let side = served.get("/transactions?limit=1&account=0").await;
    side.expect(
        200,
        &format!(
            r#"[{{"id":"{first}","from":0,"to":1,"amount":5.00,"status":"completed","currency":"USD","created_at":"2026-01-31T12:00:00.000Z","direction":"debit","balance":-15.00,"version":5,"reference":"r5"}}]"#
        ),
    );
    let whole = served.get(&format!("/transactions/{first}")).await;
    whole.expect(
        200,
        &format!(
            r#"{{"id":"{first}","from":0,"to":1,"amount":5.00,"status":"completed","currency":"USD","created_at":"2026-01-31T12:00:00.000Z","from_balance":-15.00,"from_version":5,"to_balance":15.00,"to_version":5,"reference":"r5"}}"#
        ),
    );
    let unknown = served.get("/transactions?account=9").await;
    unknown.expect_problem(404, "account_not_found");
    let cursor = format!("/transactions?cursor=t{}", "0".repeat(32));
    served
        .get(&cursor)
        .await
        .expect_problem(400, "invalid_cursor");
}

#[tokio::test]
async fn details_are_kept_and_shown() {
    let served = funded().await;
    let body =
        r#"{"from":1,"to":2,"amount":1,"category":"rent","metadata":{ "b":[1.50,"ü"], "a":{} }}"#;
    let id = txn_id(&served.post("/transaction", body).await.json());
    let shown = served.get(&format!("/transactions/{id}")).await.json();
    assert_eq!(shown["category"], "rent");
    assert_eq!(shown["metadata"], json!({"a": {}, "b": [1.50, "ü"]}));
}

#[tokio::test]
async fn a_transfer_is_taken_back_at_most_once() {
    let served = funded().await;
    let pay = served
        .post("/transaction", r#"{"from":1,"to":2,"amount":30}"#)
        .await;
    let id = txn_id(&pay.json());
    let target = format!("/transactions/{id}/reversal");
    let first = served
        .post_keyed(&target, "k", r#"{"reference":"oops"}"#)
        .await;
    assert_eq!(first.status, 200, "{}", first.body);
    let receipt = first.json();
    assert_eq!((&receipt["from"], &receipt["to"]), (&json!(2), &json!(1)));
    let again = served
        .post_keyed(&target, "k", r#"{"reference":"oops"}"#)
        .await;
    assert_eq!(
        (&again.body, again.header("idempotency-replayed")),
        (&first.body, Some("true"))
    );
    // No body and no key is fine too; but it is reversed already.
    let second = served.call(Request::new("POST", &target)).await;
    second.expect_problem(409, "already_reversed");
    let kept = served.post_keyed(&target, "other", "{}").await;
    assert!(kept.expect_problem(409, "already_reversed")["txn_id"].is_string());
    let shown = served
        .get(&format!("/transactions/{}", txn_id(&receipt)))
        .await
        .json();
    assert_eq!(
        (&shown["reverses"], &shown["reference"]),
        (&json!(id), &json!("oops"))
    );
    let unknown = "/transactions/00000000-0000-7000-8000-000000000000/reversal";
    served
        .post(unknown, "{}")
        .await
        .expect_problem(404, "transaction_not_found");
    served
        .get(&unknown.replace("/reversal", ""))
        .await
        .expect_problem(404, "transaction_not_found");
    served
        .post("/transactions/1/reversal", "{}")
        .await
        .expect_problem(400, "invalid_parameter");
    served
        .get("/transactions/1")
        .await
        .expect_problem(400, "invalid_parameter");
    let amount = served.post(&target, r#"{"amount":1}"#).await;
    amount.expect_problem(400, "unknown_field");
}
