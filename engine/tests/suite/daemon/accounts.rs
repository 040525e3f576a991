//! Accounts, their history and their money, to the byte.

use serde_json::json;

use super::{engine, ledger, text};
use crate::support::daemon::Daemon;
use crate::support::verify;

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
