//! Every error code that this engine can give, by a real request each: its
//! status, its content type, and exactly its members.

use std::collections::BTreeSet;

use engine::http::ErrorCode;
use tokio_postgres::Client;

use super::ledger;
use crate::support::daemon::{Daemon, Reply, Request, call, eventually};
use crate::support::{TestDatabase, verify};

/// They come with authentication and rate limits.
const LATER: [ErrorCode; 3] = [
    ErrorCode::Unauthorized,
    ErrorCode::Forbidden,
    ErrorCode::RateLimited,
];

/// The contract's own words, apart from the code's table.
const STATUSES: &[(u16, &[&str])] = &[
    (
        400,
        &[
            "invalid_json",
            "invalid_amount",
            "invalid_account",
            "same_account",
            "unknown_field",
            "invalid_parameter",
            "invalid_cursor",
            "invalid_idempotency_key",
        ],
    ),
    (
        404,
        &["account_not_found", "transaction_not_found", "not_found"],
    ),
    (405, &["method_not_allowed"]),
    (
        409,
        &["account_exists", "account_not_empty", "already_reversed"],
    ),
    (413, &["body_too_large"]),
    (415, &["unsupported_media_type"]),
    (
        422,
        &[
            "insufficient_funds",
            "currency_mismatch",
            "account_frozen",
            "account_closed",
            "balance_overflow",
            "idempotency_key_reused",
        ],
    ),
    (431, &["header_too_large"]),
    (
        503,
        &["queue_full", "database_unavailable", "deadline_exceeded"],
    ),
    (504, &["outcome_unknown"]),
];

fn status_of(code: &str) -> u16 {
    let found = STATUSES.iter().find(|(_, codes)| codes.contains(&code));
    found
        .unwrap_or_else(|| panic!("{code} is not of the contract"))
        .0
}

/// The codes seen so far.
#[derive(Default)]
struct Seen(BTreeSet<String>);

impl Seen {
    #[track_caller]
    fn check(&mut self, reply: &Reply, code: &str, more: &[&str]) {
        let problem = reply.expect_problem(status_of(code), code, more);
        assert_eq!(problem["type"], format!("/docs#{code}"));
        let retry_after = reply.header("retry-after").is_some();
        assert_eq!(retry_after, reply.status == 503, "{reply:?}");
        assert_eq!(reply.header("allow").is_some(), reply.status == 405);
        self.0.insert(code.to_owned());
    }
}

/// A request, its code, and the members beside those of every problem.
type Case = (Request, &'static str, &'static [&'static str]);

fn post(target: &str, body: &str) -> Request {
    Request::new("POST", target).json(body)
}

fn pay(body: &str) -> Request {
    post("/transaction", body)
}

/// Requests whose body is wrong.
fn of_body() -> Vec<Case> {
    let get = |target: &str| Request::new("GET", target);
    vec![
        (pay("{"), "invalid_json", &[]),
        (
            pay(r#"{"from":1,"to":2,"amount":1,"amount":1}"#),
            "invalid_json",
            &["field"],
        ),
        (
            pay(r#"{"from":1,"to":2,"amount":0}"#),
            "invalid_amount",
            &["field"],
        ),
        (
            pay(r#"{"from":"a","to":2,"amount":1}"#),
            "invalid_account",
            &["field"],
        ),
        (
            pay(r#"{"from":9007199254740992,"to":2,"amount":1}"#),
            "invalid_account",
            &["field"],
        ),
        (get("/balance/x"), "invalid_account", &["field"]),
        (
            pay(r#"{"from":1,"to":1,"amount":1}"#),
            "same_account",
            &["field"],
        ),
        (
            pay(r#"{"from":1,"to":2,"amount":1,"memo":"x"}"#),
            "unknown_field",
            &["field"],
        ),
        (
            post(
                "/transactions",
                r#"{"transfers":[{"from":1,"to":2,"amount":1},{"from":1,"to":2,"amount":1,"memo":1}]}"#,
            ),
            "unknown_field",
            &["field", "index"],
        ),
    ]
}

/// Requests whose path, query, header or size is wrong.
fn of_envelope() -> Vec<Case> {
    let get = |target: &str| Request::new("GET", target);
    let good = r#"{"from":1,"to":2,"amount":1}"#;
    vec![
        (
            get("/transactions?limit=0"),
            "invalid_parameter",
            &["field"],
        ),
        (
            get("/transactions?limit=1001"),
            "invalid_parameter",
            &["field"],
        ),
        (get("/transactions/1"), "invalid_parameter", &["field"]),
        (get("/transactions?cursor=zz"), "invalid_cursor", &["field"]),
        (pay(good).key("a b"), "invalid_idempotency_key", &[]),
        (
            post("/transactions", r#"{"transfers":[]}"#).key("k"),
            "invalid_idempotency_key",
            &[],
        ),
        (get("/nowhere"), "not_found", &[]),
        (
            Request::new("PUT", "/transaction"),
            "method_not_allowed",
            &[],
        ),
        (
            pay(&format!("{good}{}", " ".repeat(16 * 1024))),
            "body_too_large",
            &[],
        ),
        (
            Request::new("POST", "/transaction")
                .header("content-type", "text/plain")
                .body(good.as_bytes()),
            "unsupported_media_type",
            &[],
        ),
        (
            get("/health").header("x", &"v".repeat(16 * 1024)),
            "header_too_large",
            &[],
        ),
    ]
}

/// Requests that the ledger refuses. Accounts 1 and 2 hold 10 dollars; 3 is
/// frozen, 4 closed, 5 in yen, 6 takes anything, 9 is absent.
fn of_business(reversed: &str) -> Vec<Case> {
    vec![
        (
            pay(r#"{"from":1,"to":2,"amount":0.001}"#),
            "invalid_amount",
            &["field"],
        ),
        (
            pay(r#"{"from":1,"to":9,"amount":1}"#),
            "account_not_found",
            &["account_id"],
        ),
        (
            Request::new("GET", "/balance/9"),
            "account_not_found",
            &["account_id"],
        ),
        (
            Request::new("GET", "/transactions?account=9"),
            "account_not_found",
            &["account_id"],
        ),
        (
            Request::new("GET", "/transactions/01900000-0000-7000-8000-000000000000"),
            "transaction_not_found",
            &["txn_id"],
        ),
        (
            post("/accounts", r#"{"account_id":1,"currency":"JPY"}"#),
            "account_exists",
            &["account_id"],
        ),
        (
            Request::new("PATCH", "/accounts/1").json(r#"{"status":"closed"}"#),
            "account_not_empty",
            &["account_id"],
        ),
        (
            post(&format!("/transactions/{reversed}/reversal"), "{}"),
            "already_reversed",
            &["account_id"],
        ),
    ]
}

/// Transfers that the fold refuses, of the same accounts.
fn of_fold() -> Vec<Case> {
    vec![
        (
            pay(r#"{"from":1,"to":2,"amount":10.01}"#),
            "insufficient_funds",
            &["account_id"],
        ),
        (
            pay(r#"{"from":1,"to":2,"amount":10.01}"#).key("broke"),
            "insufficient_funds",
            &["account_id", "txn_id"],
        ),
        (
            pay(r#"{"from":1,"to":5,"amount":1}"#),
            "currency_mismatch",
            &["account_id"],
        ),
        (
            pay(r#"{"from":1,"to":2,"amount":1,"currency":"EUR"}"#),
            "currency_mismatch",
            &["account_id"],
        ),
        (
            pay(r#"{"from":1,"to":3,"amount":1}"#),
            "account_frozen",
            &["account_id"],
        ),
        (
            pay(r#"{"from":1,"to":4,"amount":1}"#),
            "account_closed",
            &["account_id"],
        ),
        (
            pay(r#"{"from":0,"to":6,"amount":92233720368547758.07}"#),
            "balance_overflow",
            &["account_id"],
        ),
        (
            pay(r#"{"from":1,"to":2,"amount":10.02}"#).key("broke"),
            "idempotency_key_reused",
            &[],
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_code_has_its_status_type_and_members() {
    let database = ledger().await;
    let daemon = Daemon::start(&database, &["--queue-depth-max", "8192"]).await;
    daemon.open(2, 10).await;
    let open = r#"[{"account_id":3,"currency":"USD"},{"account_id":4,"currency":"USD"},
        {"account_id":5,"currency":"JPY"},{"account_id":6,"currency":"USD"}]"#;
    assert_eq!(daemon.post("/accounts", open).await.status, 201);
    for (id, status) in [(3, "frozen"), (4, "closed")] {
        let body = format!(r#"{{"status":"{status}"}}"#);
        let reply = daemon.patch(&format!("/accounts/{id}"), &body).await;
        assert_eq!(reply.status, 200);
    }
    let made = daemon
        .post("/transaction", r#"{"from":1,"to":2,"amount":1}"#)
        .await
        .json();
    let original = made["txn_id"].as_str().unwrap();
    let reversal = format!("/transactions/{original}/reversal");
    assert_eq!(daemon.post(&reversal, "{}").await.status, 200);

    let mut cases = of_body();
    cases.extend(of_envelope());
    cases.extend(of_business(original));
    cases.extend(of_fold());
    let mut seen = Seen::default();
    for (request, code, more) in cases {
        seen.check(&daemon.call(&request).await, code, more);
    }
    when_an_account_is_held(&database, &daemon, &mut seen).await;
    when_the_database_is_away(&database, &daemon, &mut seen).await;

    let expected: BTreeSet<_> = ErrorCode::ALL
        .into_iter()
        .filter(|code| !LATER.contains(code))
        .map(|code| code.as_str().to_owned())
        .collect();
    assert_eq!(seen.0, expected);
    verify(&database).await;
}

/// Locks account 1 as another writer would, until the client is told to end.
async fn hold(client: &Client) {
    client
        .batch_execute("BEGIN; SELECT * FROM accounts WHERE id = 1 FOR UPDATE")
        .await
        .unwrap();
}

async fn when_an_account_is_held(database: &TestDatabase, daemon: &Daemon, seen: &mut Seen) {
    let hurried = Daemon::start(database, &["--request-deadline", "2s"]).await;
    let holder = database.connect().await;
    hold(&holder.client).await;
    let one = pay(r#"{"from":1,"to":2,"amount":1}"#).key("held");
    // The first is being committed when its time is up; the second still waits
    // for it. Nothing of the second was done, of the first nobody knows.
    let in_flight = tokio::spawn({
        let (address, one) = (hurried.api, one.clone());
        async move { call(address, &one).await }
    });
    eventually("in flight", async || {
        hurried.metrics().await.sum("engine_batches_in_flight", "") > 0.0
    })
    .await;
    let behind = hurried.call(&pay(r#"{"from":1,"to":2,"amount":2}"#)).await;
    seen.check(&behind, "deadline_exceeded", &[]);
    seen.check(&in_flight.await.unwrap(), "outcome_unknown", &[]);

    // A batch call that takes every permit, held up by the same account.
    let item = r#"{"from":1,"to":2,"amount":0.01}"#;
    let all = format!(r#"{{"transfers":[{}]}}"#, vec![item; 8_192].join(","));
    let all = tokio::spawn({
        let (address, all) = (daemon.api, post("/transactions", &all));
        async move { call(address, &all).await }
    });
    eventually("full", async || {
        daemon.metrics().await.sum("engine_permits_in_use", "") == 8_192.0
    })
    .await;
    let refused = daemon.call(&pay(r#"{"from":0,"to":2,"amount":1}"#)).await;
    seen.check(&refused, "queue_full", &[]);

    holder.client.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(all.await.unwrap().status, 200);
    // Retried with its key, at whichever engine, what was unknown is known, and done once.
    eventually("known", async || daemon.call(&one).await.status == 200).await;
    let known = daemon.get("/transactions?idempotency_key=held").await;
    assert_eq!(known.json().as_array().unwrap().len(), 1);
    holder.close().await;
}

async fn when_the_database_is_away(database: &TestDatabase, daemon: &Daemon, seen: &mut Seen) {
    super::database::shut(database).await;
    eventually("noticed", async || {
        daemon.get("/health").await.status == 503
    })
    .await;
    let refused = daemon.call(&Request::new("GET", "/accounts/1")).await;
    seen.check(&refused, "database_unavailable", &[]);
    super::database::reopen(database).await;
    daemon.until_ready().await;
}
