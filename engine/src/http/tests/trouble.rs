//! What is said when the rooms behind the edge cannot answer.

use super::client::{Reply, Request, Served};
use super::fake::Trouble;
use crate::admission::Refused;
use crate::http::{ErrorCode, TransferStatus};

const PAY: &str = r#"{"from":0,"to":1,"amount":1}"#;
const BATCH: &str = r#"{"transfers":[{"from":0,"to":1,"amount":1}]}"#;
const ATOMIC: &str = r#"{"transfers":[{"from":0,"to":1,"amount":1}],"atomic":true}"#;
const OPEN: &str = r#"{"account_id":5,"currency":"USD"}"#;
const READS: [&str; 6] = [
    "/balance/1",
    "/accounts",
    "/accounts/1",
    "/transactions",
    "/transactions?idempotency_key=k",
    "/transactions/00000000-0000-7000-8000-000000000000",
];

async fn with_trouble(trouble: Trouble) -> Served {
    let served = Served::start().await;
    served.ledger.open_three();
    served.ledger.trouble(trouble);
    served
}

async fn patched(served: &Served) -> Reply {
    let request = Request::new("PATCH", "/accounts/1").json(r#"{"name":"n"}"#);
    served.call(request).await
}

async fn commands(served: &Served) -> [Reply; 4] {
    [
        served.post("/transaction", PAY).await,
        served.post("/transactions", BATCH).await,
        served.post("/transactions", ATOMIC).await,
        patched(served).await,
    ]
}

#[tokio::test]
async fn each_refusal_of_a_command_has_its_code() {
    for (refused, status, code) in [
        (Refused::QueueFull, 503, "queue_full"),
        (Refused::DatabaseUnavailable, 503, "database_unavailable"),
        (Refused::DeadlineExceeded, 503, "deadline_exceeded"),
        (Refused::OutcomeUnknown, 504, "outcome_unknown"),
        (Refused::Draining, 503, "queue_full"),
    ] {
        let served = with_trouble(Trouble::Refused(refused)).await;
        for reply in commands(&served).await {
            reply.expect_problem(status, code);
            let closes = reply.header("connection") == Some("close");
            assert_eq!(closes, refused == Refused::Draining, "{code}");
        }
        assert_eq!(served.ledger.transfers_made(), 0);
    }
}

#[tokio::test]
async fn each_failure_of_a_read_has_its_code() {
    for (refused, code) in [
        (Refused::QueueFull, "queue_full"),
        (Refused::DatabaseUnavailable, "database_unavailable"),
        (Refused::DeadlineExceeded, "deadline_exceeded"),
    ] {
        let served = with_trouble(Trouble::Refused(refused)).await;
        for target in READS {
            served.get(target).await.expect_problem(503, code);
        }
        served
            .post("/accounts", OPEN)
            .await
            .expect_problem(503, code);
    }
}

#[tokio::test]
async fn doubt_is_said_and_never_called_a_failure() {
    let served = with_trouble(Trouble::NotDurable).await;
    served
        .post("/accounts", OPEN)
        .await
        .expect_problem(504, "outcome_unknown");
    served
        .post("/transaction", PAY)
        .await
        .expect_problem(504, "outcome_unknown");
    let each = served.post("/transactions", BATCH).await;
    each.expect(
        200,
        r#"{"results":[{"status":"failed","code":"outcome_unknown"}]}"#,
    );
    for target in READS {
        served
            .get(target)
            .await
            .expect_problem(503, "database_unavailable");
    }
}

#[tokio::test]
async fn what_cannot_be_stored_is_rejected_and_not_failed() {
    // A client sends again what failed, and this would be refused for ever.
    let served = with_trouble(Trouble::Unstorable).await;
    served
        .post("/transaction", PAY)
        .await
        .expect_problem(400, "invalid_parameter");
    let each = served.post("/transactions", BATCH).await;
    each.expect(
        200,
        r#"{"results":[{"status":"rejected","code":"invalid_parameter"}]}"#,
    );
    assert_eq!(
        served.watch.transfers(),
        [(
            0,
            TransferStatus::Rejected,
            Some(ErrorCode::InvalidParameter)
        )]
    );
}

#[tokio::test]
async fn a_change_that_cannot_be_read_back_is_not_called_undone() {
    let served = with_trouble(Trouble::ReadsFail).await;
    let problem = patched(&served)
        .await
        .expect_problem(504, "outcome_unknown");
    assert!(problem["detail"].as_str().unwrap().contains("was changed"));
}

#[tokio::test]
async fn a_reversal_needs_its_original_first() {
    let served = with_trouble(Trouble::ReadsFail).await;
    let target = "/transactions/00000000-0000-7000-8000-000000000000/reversal";
    let reply = served.post(target, "{}").await;
    reply.expect_problem(503, "database_unavailable");
}
