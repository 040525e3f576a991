//! One key, one result: across repeats, engines, restarts and refusals.

use serde_json::Value;
use tokio::task::JoinSet;

use super::{count, engine, ledger, stored};
use crate::support::daemon::{Daemon, Reply, Request, call};
use crate::support::verify;

const PAY: &str = r#"{"from":1,"to":2,"amount":5,"reference":"r","metadata":{"a":1,"b":2}}"#;

#[track_caller]
fn is_replay(again: &Reply, first: &Reply) {
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    assert_eq!(again.header("content-type"), first.header("content-type"));
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_is_compared_by_value_and_done_once() {
    let (database, daemon) = engine(2, 100).await;
    let first = daemon.post_keyed("/transaction", "k", PAY).await;
    assert_eq!(first.status, 200, "{}", first.body);
    assert_eq!(first.header("idempotency-replayed"), None);
    for (path, key, same) in [
        ("/transaction", "k", PAY),
        ("/process_transaction", "\"k\"", PAY),
        (
            "/transaction",
            "k",
            r#"{"metadata":{"b":2,"a":1},"reference":"r","amount":"5.00","to":2,"from":1}"#,
        ),
    ] {
        is_replay(&daemon.post_keyed(path, key, same).await, &first);
    }
    for other in [
        r#"{"from":1,"to":2,"amount":5.01,"reference":"r","metadata":{"a":1,"b":2}}"#,
        r#"{"from":2,"to":1,"amount":5,"reference":"r","metadata":{"a":1,"b":2}}"#,
        r#"{"from":1,"to":2,"amount":5,"metadata":{"a":1,"b":2}}"#,
        r#"{"from":1,"to":2,"amount":5,"reference":"r","metadata":{"a":1,"b":2.0}}"#,
        r#"{"from":1,"to":2,"amount":5,"reference":"r","category":"c","metadata":{"a":1,"b":2}}"#,
        r#"{"from":1,"to":2,"amount":5,"reference":"r","currency":"USD","metadata":{"a":1,"b":2}}"#,
    ] {
        let reused = daemon.post_keyed("/transaction", "k", other).await;
        reused.expect_problem(422, "idempotency_key_reused", &[]);
    }
    // A key of 255 is one, a key of 256 is not.
    let longest = "k".repeat(255);
    let kept = daemon.post_keyed("/transaction", &longest, PAY).await;
    is_replay(
        &daemon.post_keyed("/transaction", &longest, PAY).await,
        &kept,
    );
    let longer = daemon
        .post_keyed("/transaction", &"k".repeat(256), PAY)
        .await;
    longer.expect_problem(400, "invalid_idempotency_key", &[]);
    // Without a key nothing is compared.
    assert_ne!(
        daemon.post("/transaction", PAY).await.body,
        daemon.post("/transaction", PAY).await.body
    );
    assert_eq!(stored(&database).await, 2 + 2 + 2);
    verify(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_answered_again_as_it_was_even_when_it_would_succeed_now() {
    let (database, daemon) = engine(2, 1).await;
    let unkeyed = daemon.post("/transaction", PAY).await;
    unkeyed.expect_problem(422, "insufficient_funds", &["account_id"]);
    assert_eq!(count(&database, "SELECT count(*) FROM rejections").await, 0);
    let first = daemon.post_keyed("/transaction", "k", PAY).await;
    let problem = first.expect_problem(422, "insufficient_funds", &["account_id", "txn_id"]);
    assert!(!problem["detail"].as_str().unwrap().contains("1.00"));
    let fund = r#"{"from":0,"to":1,"amount":100}"#;
    assert_eq!(daemon.post("/transaction", fund).await.status, 200);
    is_replay(&daemon.post_keyed("/transaction", "k", PAY).await, &first);
    let fresh = daemon.post_keyed("/transaction", "k2", PAY).await;
    assert_eq!(fresh.status, 200);
    // The fate of a request, without executing it.
    let id = problem["txn_id"].as_str().unwrap();
    let shown = daemon.get(&format!("/transactions/{id}")).await;
    let fate = daemon.get("/transactions?idempotency_key=k").await;
    fate.expect(200, &format!("[{}]", shown.body));
    assert_eq!(shown.json()["code"], "insufficient_funds");
    let done = daemon.get("/transactions?idempotency_key=k2").await.json();
    assert_eq!(done[0]["id"], fresh.json()["txn_id"]);
    let unknown = daemon.get("/transactions?idempotency_key=k3").await;
    unknown.expect(200, "[]");
    // Nothing is kept of a request that named no account, or was malformed.
    for body in [
        r#"{"from":1,"to":99,"amount":5}"#,
        r#"{"from":1,"to":2,"amount":0.001}"#,
        r#"{"from":1,"to":1,"amount":5}"#,
    ] {
        assert_ne!(
            daemon.post_keyed("/transaction", "free", body).await.status,
            200
        );
    }
    let free = daemon.post_keyed("/transaction", "free", PAY).await;
    assert_eq!(free.status, 200, "{}", free.body);
    verify(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_at_once_is_done_on_whichever_engine() {
    let database = ledger().await;
    let first = Daemon::start(&database, &[]).await;
    let second = Daemon::start(&database, &[]).await;
    first.open(8, 100).await;
    let mut calls = JoinSet::new();
    for round in 0..8 {
        for client in 0..8 {
            let address = [first.api, second.api][client % 2];
            // Half on the same accounts, half on disjoint ones: the fingerprint
            // decides, whatever is locked.
            let from = if round < 4 { 1 } else { 1 + client };
            let body = format!(r#"{{"from":{from},"to":0,"amount":1}}"#);
            let request = Request::new("POST", "/transaction")
                .json(&body)
                .key(&format!("round-{round}"));
            calls.spawn(async move { (round, call(address, &request).await) });
        }
    }
    let mut answers: Vec<Vec<Reply>> = vec![Vec::new(); 8];
    while let Some(answer) = calls.join_next().await {
        let (round, reply): (usize, Reply) = answer.unwrap();
        answers[round].push(reply);
    }
    for (round, replies) in answers.iter().enumerate() {
        let done: Vec<_> = replies.iter().filter(|reply| reply.status == 200).collect();
        let fresh = done
            .iter()
            .filter(|reply| reply.header("idempotency-replayed").is_none());
        if round < 4 {
            assert_eq!(done.len(), 8, "{replies:?}");
            assert!(done.iter().all(|reply| reply.body == done[0].body));
        } else {
            assert_eq!(done.len(), 1, "{replies:?}");
            for reply in replies.iter().filter(|reply| reply.status != 200) {
                reply.expect_problem(422, "idempotency_key_reused", &[]);
            }
        }
        // Callers that joined one in flight share its answer.
        assert!((1..=8).contains(&fresh.count()));
    }
    assert_eq!(stored(&database).await, 8 + 8);
    verify(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_outlive_a_restart_and_belong_to_their_principal() {
    let (database, daemon) = engine(2, 100).await;
    let first = daemon.post_keyed("/transaction", "k", PAY).await;
    let broke = r#"{"from":1,"to":2,"amount":1000}"#;
    let refused = daemon.post_keyed("/transaction", "broke", broke).await;
    assert_eq!(daemon.stop().await.code, Some(0));
    let daemon = Daemon::start(&database, &[]).await;
    is_replay(&daemon.post_keyed("/transaction", "k", PAY).await, &first);
    let again = daemon.post_keyed("/transaction", "broke", broke).await;
    is_replay(&again, &refused);
    assert_eq!(daemon.stop().await.code, Some(0));
    let other = Daemon::start(&database, &["--anonymous-principal", "someone"]).await;
    let fresh = other.post_keyed("/transaction", "k", PAY).await;
    assert_eq!(fresh.header("idempotency-replayed"), None);
    let (fresh, first): (Value, Value) = (fresh.json(), first.json());
    assert_ne!(fresh["txn_id"], first["txn_id"]);
    verify(&database).await;
}
