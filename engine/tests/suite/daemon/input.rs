//! Input that no well-meaning client sends: a definite answer each, nothing done,
//! and the engine as it was.

use std::fmt::Write as _;

use super::{engine, stored};
use crate::support::daemon::{Broken, Daemon, Reply, Request, Wire};
use crate::support::{TestDatabase, verify};

const GOOD: &str = r#"{"from":1,"to":2,"amount":1}"#;
const ROUTES: [(&str, &str); 14] = [
    ("POST", "/transaction"),
    ("POST", "/process_transaction"),
    ("POST", "/transactions"),
    ("GET", "/transactions"),
    ("GET", "/transactions/01900000-0000-7000-8000-000000000000"),
    (
        "POST",
        "/transactions/01900000-0000-7000-8000-000000000000/reversal",
    ),
    ("GET", "/balance/1"),
    ("POST", "/accounts"),
    ("GET", "/accounts"),
    ("GET", "/accounts/1"),
    ("PATCH", "/accounts/1"),
    ("GET", "/health"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
];
/// Two accounts were funded; nothing else may ever be stored.
const FUNDED: i64 = 2;

async fn nothing_was_done(database: &TestDatabase, daemon: &Daemon) {
    assert_eq!(daemon.get("/health").await.status, 200);
    assert_eq!(stored(database).await, FUNDED);
    let good = daemon.post("/transaction", GOOD).await;
    assert_eq!(good.status, 200, "{}", good.body);
    verify(database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_bodies_are_refused() {
    let (database, daemon) = engine(2, 100).await;
    let deep = format!(
        r#"{{"from":1,"to":2,"amount":1,"metadata":{{"a":{}1{}}}}}"#,
        "[".repeat(7000),
        "]".repeat(7000)
    );
    let deepest = "[".repeat(16_000);
    for (body, code) in [
        ("", "invalid_json"),
        ("null", "invalid_json"),
        ("[]", "invalid_json"),
        (&deepest, "invalid_json"),
        (r#"{"from":1,"to":2,"amount":1}{}"#, "invalid_json"),
        (r#"{"from":1,"to":2,"amount":1,"amount":2}"#, "invalid_json"),
        (
            r#"{"from":1,"to":2,"amount":1,"amo\u0075nt":2}"#,
            "invalid_json",
        ),
        (
            r#"{"from":1,"to":2,"amount":1,"metadata":{"a":1,"a":1}}"#,
            "invalid_parameter",
        ),
        (
            r#"{"from":1,"to":2,"amount":1,"reference":"\u0000"}"#,
            "invalid_parameter",
        ),
        (
            r#"{"from":1,"to":2,"amount":1,"reference":"\ud800"}"#,
            "invalid_parameter",
        ),
        (&deep, "invalid_parameter"),
        (r#"{"from":1.5,"to":2,"amount":1}"#, "invalid_account"),
        (r#"{"from":-1,"to":2,"amount":1}"#, "invalid_account"),
        (r#"{"to":2,"amount":1}"#, "invalid_account"),
        (r#"{"from":1,"to":2}"#, "invalid_amount"),
    ] {
        let reply = daemon.post_keyed("/transaction", "k", body).await;
        let problem = reply.json();
        let shown = &body[..body.len().min(80)];
        assert_eq!(
            (reply.status, &problem["code"]),
            (400, &code.into()),
            "{shown} {problem}"
        );
    }
    let text = b"{\"from\":1,\"to\":2,\"amount\":1,\"reference\":\"\xff\"}";
    let request = Request::new("POST", "/transaction").header("content-type", "application/json");
    let reply = daemon.call(&request.body(text)).await;
    reply.expect_problem(400, "invalid_json", &[]);
    nothing_was_done(&database, &daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_half_way_does_nothing() {
    let (database, daemon) = engine(2, 100).await;
    let hurried = Daemon::start(&database, &["--request-deadline", "500ms"]).await;
    // It waits for the rest until the deadline.
    let head = "POST /transaction HTTP/1.1\r\nhost: e\r\ncontent-type: application/json\r\ncontent-length: 28\r\n\r\n";
    let mut wire = Wire::connect(hurried.api).await.unwrap();
    wire.send(head.as_bytes()).await.unwrap();
    wire.send(&GOOD.as_bytes()[..14]).await.unwrap();
    let reply = wire.reply().await.unwrap();
    reply.expect_problem(503, "deadline_exceeded", &[]);
    assert!(wire.is_closed().await);
    // Or the client goes away: half closed, or reset.
    let mut wire = Wire::connect(daemon.api).await.unwrap();
    wire.send(head.as_bytes()).await.unwrap();
    wire.send(&GOOD.as_bytes()[..14]).await.unwrap();
    tokio::io::AsyncWriteExt::shutdown(wire.stream.get_mut())
        .await
        .unwrap();
    match wire.reply().await {
        Ok(reply) => assert_eq!(reply.status, 400, "{reply:?}"),
        Err(Broken::Closed) => {}
        Err(torn @ Broken::Torn(_)) => panic!("{torn:?}"),
    }
    let mut wire = Wire::connect(daemon.api).await.unwrap();
    wire.send(head.as_bytes()).await.unwrap();
    drop(wire);
    nothing_was_done(&database, &daemon).await;
}

/// Sends all of it before it reads, as simple clients do.
async fn send_large(daemon: &Daemon, method: &str, target: &str, mebibytes: usize) -> Reply {
    let mut wire = Wire::connect(daemon.api).await.unwrap();
    let head = Request::new(method, target)
        .header("content-type", "application/json")
        .header("content-length", &(mebibytes << 20).to_string());
    wire.send(&head.bytes()).await.unwrap();
    let chunk = vec![b' '; 1 << 20];
    for _ in 0..mebibytes {
        wire.send(&chunk).await.unwrap();
    }
    wire.reply().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_mebibytes_get_413_at_every_route_and_no_memory() {
    let (database, daemon) = engine(2, 100).await;
    let before = daemon
        .metrics()
        .await
        .sum("process_resident_memory_bytes", "");
    for (method, target) in ROUTES {
        let reply = send_large(&daemon, method, target, 100).await;
        reply.expect_problem(413, "body_too_large", &[]);
        assert_eq!(reply.header("connection"), Some("close"));
    }
    let nowhere = send_large(&daemon, "POST", "/nowhere", 100).await;
    nowhere.expect_problem(404, "not_found", &[]);
    let after = daemon
        .metrics()
        .await
        .sum("process_resident_memory_bytes", "");
    assert!(after - before < f64::from(16 << 20), "{before} {after}");
    nothing_was_done(&database, &daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_headers_is_refused() {
    let (database, daemon) = engine(2, 100).await;
    let long = Request::new("GET", "/health").header("x", &"v".repeat(1 << 20));
    let target = Request::new("GET", &format!("/{}", "x".repeat(100_000)));
    let mut many = Request::new("GET", "/health");
    for index in 0..5_000 {
        many = many.header(&format!("x-{index}"), "v");
    }
    for request in [long, target, many] {
        let reply = daemon.call(&request).await;
        reply.expect_problem(431, "header_too_large", &[]);
    }
    // One that never ends, sent drop by drop, is cut off when it is too long.
    let mut wire = Wire::connect(daemon.api).await.unwrap();
    wire.send(b"GET /health HTTP/1.1\r\n").await.unwrap();
    let mut drops = String::new();
    for index in 0..10_000 {
        write!(drops, "x-{index}: v\r\n").unwrap();
    }
    // The engine may close before all is sent.
    wire.send(drops.as_bytes()).await.ok();
    let reply = wire.reply().await.unwrap();
    reply.expect_problem(431, "header_too_large", &[]);
    nothing_was_done(&database, &daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_routes_methods_and_protocols_are_told_apart() {
    let (database, daemon) = engine(2, 100).await;
    for target in [
        "/",
        "/nothing",
        "/transaction/",
        "/balance/",
        "/balance/1/2",
        "/metrics",
        "/readyz",
    ] {
        let reply = daemon.get(target).await;
        reply.expect_problem(404, "not_found", &[]);
    }
    for (method, target, allow) in [
        ("GET", "/transaction", "POST"),
        ("DELETE", "/accounts/1", "GET, HEAD, PATCH"),
        ("PUT", "/transactions", "GET, HEAD, POST"),
        ("BREW", "/health", "GET, HEAD"),
    ] {
        let reply = daemon.call(&Request::new(method, target)).await;
        reply.expect_problem(405, "method_not_allowed", &[]);
        assert_eq!(reply.header("allow"), Some(allow));
    }
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..],
        b"POST /transaction HTTP/1.1\r\nhost: e\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST /transaction HTTP/1.1\r\nhost: e\r\ncontent-length: -1\r\n\r\n",
    ] {
        let mut wire = Wire::connect(daemon.api).await.unwrap();
        wire.send(bytes).await.unwrap();
        assert_eq!(wire.reply().await.unwrap().status, 400);
        assert!(wire.is_closed().await);
    }
    nothing_was_done(&database, &daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_sent_together_are_answered_in_order() {
    let (database, daemon) = engine(2, 100).await;
    let mut wire = Wire::connect(daemon.api).await.unwrap();
    let mut together = Vec::new();
    for index in 0..20 {
        let body = format!(r#"{{"from":1,"to":2,"amount":0.0{}}}"#, 1 + index % 9);
        let id = format!("pipelined-{index}");
        let request = Request::new("POST", "/transaction").header("x-request-id", &id);
        together.extend(request.json(&body).bytes());
    }
    wire.send(&together).await.unwrap();
    for index in 0..20 {
        let reply = wire.reply().await.unwrap();
        assert_eq!(reply.status, 200);
        assert_eq!(
            reply.header("x-request-id"),
            Some(&*format!("pipelined-{index}"))
        );
    }
    assert_eq!(stored(&database).await, FUNDED + 20);
    verify(&database).await;
}
