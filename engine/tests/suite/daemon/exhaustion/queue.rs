//! As many transfers as may be are waiting already.

use std::fmt::Write as _;

use super::super::{ledger, stored};
use super::full;
use crate::support::daemon::{Daemon, Request, Wire, call, eventually};
use crate::support::verify;

/// The least there may be: one full batch call.
const DEPTH: u16 = 8_192;

fn batch() -> Request {
    let mut body = String::from(r#"{"transfers":["#);
    for index in 0..DEPTH {
        let comma = if index == 0 { "" } else { "," };
        let item = r#"{"from":1,"to":2,"amount":0.01,"idempotency_key":"waits"#;
        write!(body, r#"{comma}{item}-{index}"}}"#).unwrap();
    }
    body.push_str("]}");
    Request::new("POST", "/transactions").json(&body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_at_once_and_keeps_what_it_accepted() {
    let database = ledger().await;
    let daemon = Daemon::start(&database, &["--queue-depth-max", "8192"]).await;
    daemon.open(4, 1_000).await;
    let before = stored(&database).await;
    // Whoever has accepted them cannot commit them.
    let stranger = database.connect().await;
    let hold = "BEGIN; SELECT FROM accounts WHERE id = 1 FOR UPDATE";
    stranger.client.batch_execute(hold).await.unwrap();
    let mut accepted = Wire::connect(daemon.api).await.unwrap();
    accepted.send(&batch().bytes()).await.unwrap();
    eventually("full", async || {
        let page = daemon.metrics().await;
        f64::from(DEPTH) <= page.sum("engine_permits_in_use", "")
    })
    .await;
    // Accounts that nobody holds: only the queue is in the way.
    let pay = r#"{"from":3,"to":4,"amount":1}"#;
    let refused = Request::new("POST", "/transaction")
        .json(pay)
        .key("refused");
    for _ in 0..20 {
        full(&call(daemon.api, &refused).await);
    }
    let small = format!(r#"{{"transfers":[{pay}]}}"#);
    full(&daemon.post("/transactions", &small).await);
    // Reading needs no place in it.
    assert_eq!(daemon.get("/balance/3?consistent=true").await.status, 200);
    let page = daemon.metrics().await;
    let labels = r#"status="queue_full""#;
    let told = page.sum("engine_requests_total", r#"status="503""#);
    assert!(20.0 <= told, "{told} told, {labels}");
    let (used, most) = (
        page.sum("engine_permits_in_use", ""),
        page.sum("engine_permits_max", ""),
    );
    assert!(used <= most, "{used} of {most}");

    stranger.client.batch_execute("ROLLBACK").await.unwrap();
    stranger.close().await;
    let reply = accepted.reply().await.unwrap();
    assert_eq!(reply.status, 200);
    let results = reply.json();
    let results = results["results"].as_array().unwrap();
    assert_eq!(results.len(), usize::from(DEPTH));
    assert!(results.iter().all(|one| one["status"] == "completed"));
    // The key of what was refused is still new.
    let done = call(daemon.api, &refused).await;
    assert_eq!(
        (done.status, done.header("idempotency-replayed")),
        (200, None)
    );
    assert_eq!(stored(&database).await, before + i64::from(DEPTH) + 1);
    let page = daemon.metrics().await;
    assert!(page.sum("engine_permits_in_use", "") < 1.0);
    assert_eq!(daemon.stop().await.code, Some(0));
    verify(&database).await;
}
