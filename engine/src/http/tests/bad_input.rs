//! Input that no well-meaning client sends: each gets a definite answer, does
//! nothing, and leaves the engine as it was.

use tokio::io::AsyncWriteExt;

use super::client::{Reply, Request, Served};
use crate::http::Settings;

const GOOD: &str = r#"{"from":0,"to":1,"amount":1}"#;
const TARGETS: [(&str, &str); 13] = [
    ("POST", "/transaction"),
    ("POST", "/transactions"),
    ("GET", "/transactions"),
    ("GET", "/transactions/00000000-0000-7000-8000-000000000000"),
    (
        "POST",
        "/transactions/00000000-0000-7000-8000-000000000000/reversal",
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

async fn with_accounts(settings: Settings) -> Served {
    let served = Served::with(settings).await;
    served.ledger.open_three();
    served
}

#[track_caller]
fn nothing_was_done(served: &Served) {
    assert_eq!(served.ledger.transfers_made(), 0);
}

#[tokio::test]
async fn a_body_that_is_not_the_json_asked_for_is_refused() {
    let served = with_accounts(Settings::default()).await;
    let deep = format!("{{\"from\":{}1{}}}", "[".repeat(8000), "]".repeat(8000));
    let metadata = format!(
        r#"{{"from":0,"to":1,"amount":1,"metadata":{{"a":{}{}}}}}"#,
        "[".repeat(40),
        "]".repeat(40)
    );
    for (body, code) in [
        ("", "invalid_json"),
        ("{", "invalid_json"),
        ("null", "invalid_json"),
        ("[]", "invalid_json"),
        (r#"{"from":0,"to":1,"amount":1}{}"#, "invalid_json"),
        (r#"{"from":0,"to":1,"amount":00}"#, "invalid_json"),
        (r#"{"from":0,"to":1,"amount":1,"amount":1}"#, "invalid_json"),
        (
            r#"{"from":0,"to":1,"amount":1,"metadata":{"a":{"b":1,"b":2}}}"#,
            "invalid_parameter",
        ),
        (
            r#"{"from":0,"to":1,"amount":1,"reference":"\u0000"}"#,
            "invalid_parameter",
        ),
        (r#"{"from":0,"to":1,"amount":1,"\ud800":1}"#, "invalid_json"),
        (r#"{"from":0,"to":1,"amount":1,"memo":1}"#, "unknown_field"),
        (r#"{"from":0.0,"to":1,"amount":1}"#, "invalid_account"),
        (r#"{"from":0,"to":1,"amount":1e400}"#, "invalid_amount"),
        (&deep, "invalid_account"),
        (&metadata, "invalid_parameter"),
    ] {
        served
            .post("/transaction", body)
            .await
            .expect_problem(400, code);
    }
    nothing_was_done(&served);
}

#[tokio::test]
async fn a_body_that_is_not_utf8_is_refused() {
    let served = with_accounts(Settings::default()).await;
    let body = b"{\"from\":0,\"to\":1,\"amount\":1,\"reference\":\"\xff\"}";
    let request = Request::new("POST", "/transaction").header("content-type", "application/json");
    let reply = served.call(request.body(body)).await;
    reply.expect_problem(400, "invalid_json");
    nothing_was_done(&served);
}

#[tokio::test]
async fn only_json_is_taken() {
    let served = with_accounts(Settings::default()).await;
    for kind in ["text/plain", "application/x-www-form-urlencoded"] {
        let request = Request::new("POST", "/transaction").header("content-type", kind);
        let reply = served.call(request.body(GOOD.as_bytes())).await;
        reply.expect_problem(415, "unsupported_media_type");
    }
    let untyped = Request::new("POST", "/transaction").body(GOOD.as_bytes());
    served
        .call(untyped)
        .await
        .expect_problem(415, "unsupported_media_type");
    nothing_was_done(&served);
}

#[tokio::test]
async fn a_key_of_the_wrong_form_is_refused() {
    let served = with_accounts(Settings::default()).await;
    for key in ["", "a b", "\"a", &"k".repeat(256)] {
        let reply = served.post_keyed("/transaction", key, GOOD).await;
        reply.expect_problem(400, "invalid_idempotency_key");
    }
    let twice = Request::new("POST", "/transaction").json(GOOD);
    let twice = twice
        .header("idempotency-key", "a")
        .header("Idempotency-Key", "a");
    served
        .call(twice)
        .await
        .expect_problem(400, "invalid_idempotency_key");
    nothing_was_done(&served);
    let longest = "k".repeat(255);
    assert_eq!(
        served
            .post_keyed("/transaction", &longest, GOOD)
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn a_body_at_its_limit_is_read_and_one_past_it_is_not() {
    let served = with_accounts(Settings::default()).await;
    for (target, limit, body) in [
        ("/transaction", 16 * 1024, GOOD.to_owned()),
        (
            "/transactions",
            8 * 1024 * 1024,
            format!(r#"{{"transfers":[{GOOD}]}}"#),
        ),
    ] {
        let padded = |length: usize| format!("{body}{}", " ".repeat(length - body.len()));
        assert_eq!(
            served.post(target, &padded(limit)).await.status,
            200,
            "{target}"
        );
        let past = padded(limit + 1);
        let reply = served.post(target, &past).await;
        reply.expect_problem(413, "body_too_large");
        assert_eq!(reply.header("connection"), Some("close"));
    }
}

#[tokio::test]
async fn a_body_of_unknown_length_has_the_same_limit() {
    let served = with_accounts(Settings::default()).await;
    let chunked = |length: usize| {
        let request = Request::new("POST", "/transaction")
            .header("content-type", "application/json")
            .header("transfer-encoding", "chunked");
        let mut bytes = request.bytes();
        let body = format!("{GOOD}{}", " ".repeat(length - GOOD.len()));
        for chunk in body.as_bytes().chunks(1000) {
            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        bytes
    };
    for (length, status) in [(16 * 1024, 200), (16 * 1024 + 1, 413)] {
        let mut client = served.connect().await;
        client.send(&chunked(length)).await;
        assert_eq!(client.reply().await.status, status, "{length}");
    }
}

/// Sends a body that does not fit while nobody may be reading it, as simple
/// clients do: they read only once all is sent.
async fn send_all_then_read(served: &Served, head: Request<'_>, bytes: usize) -> Reply {
    let mut client = served.connect().await;
    let head = head.header("content-length", &bytes.to_string());
    client.send(&head.bytes()).await;
    let chunk = vec![b' '; 1024 * 1024];
    for _ in 0..bytes / chunk.len() {
        client.send(&chunk).await;
    }
    client.stream.shutdown().await.unwrap();
    client.reply().await
}

#[tokio::test]
async fn a_hundred_mebibytes_get_413_at_every_route() {
    let served = Served::start().await;
    for (method, target) in TARGETS {
        let head = Request::new(method, target).header("content-type", "application/json");
        let reply = send_all_then_read(&served, head, 100 * 1024 * 1024).await;
        reply.expect_problem(413, "body_too_large");
    }
    let nowhere = Request::new("POST", "/nowhere");
    let reply = send_all_then_read(&served, nowhere, 100 * 1024 * 1024).await;
    reply.expect_problem(404, "not_found");
}

#[tokio::test]
async fn a_header_at_its_limit_passes_and_longer_ones_do_not() {
    let served = Served::start().await;
    // "/health", and the two fields with four bytes of separators each.
    let fixed = "/health".len() + "host".len() + "test".len() + 4 + "x".len() + 4;
    let with = |bytes: usize| Request::new("GET", "/health").header("x", &"v".repeat(bytes));
    let limit = 16 * 1024;
    assert_eq!(served.call(with(limit - fixed)).await.status, 200);
    // Ours, hyper's buffer, and a flood.
    for bytes in [limit - fixed + 1, 60 * 1024, 70 * 1024, 1024 * 1024] {
        let reply = served.call(with(bytes)).await;
        reply.expect_problem(431, "header_too_large");
        assert_eq!(reply.header("connection"), Some("close"));
    }
    let mut many = Request::new("GET", "/health");
    for index in 0..200 {
        many = many.header(&format!("x-{index}"), "v");
    }
    served
        .call(many)
        .await
        .expect_problem(431, "header_too_large");
    let long = Request::new("GET", &format!("/{}", "x".repeat(70_000)));
    served
        .call(long)
        .await
        .expect_problem(431, "header_too_large");
    assert_eq!(served.get("/health").await.status, 200);
}

#[tokio::test]
async fn what_is_not_http_gets_a_problem_document_too() {
    let served = Served::start().await;
    for bytes in [
        &b"GET / HTTP/1.1\r\nhost: test\r\nbad header\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /\r\nx\r\n\r\n",
        b"POST /transaction HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        b"POST /transaction HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
    ] {
        let mut client = served.connect().await;
        client.send(bytes).await;
        client
            .reply()
            .await
            .expect_problem(400, "invalid_parameter");
        assert!(client.is_closed().await);
    }
}

#[tokio::test]
async fn request_ids_are_echoed_if_they_are_fit_to_be_logged() {
    let served = Served::start().await;
    let with = |id: &str| Request::new("GET", "/health").header("X-Request-Id", id);
    let echoed = served.call(with("a-1")).await;
    assert_eq!(echoed.header("x-request-id"), Some("a-1"));
    let replaced = served.call(with(&"x".repeat(129))).await;
    assert_eq!(replaced.header("x-request-id").unwrap().len(), 16);
}
