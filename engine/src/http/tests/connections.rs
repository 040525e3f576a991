//! Connections: kept, shared, stalled, left, refused, drained.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::{PATIENCE, Request, Served};
use super::fake::Trouble;
use crate::http::{Settings, Stopping};

const PAY: &str = r#"{"from":0,"to":1,"amount":1}"#;

async fn with_accounts(settings: Settings) -> Served {
    let served = Served::with(settings).await;
    served.ledger.open_three();
    served
}

#[tokio::test]
async fn a_connection_is_kept_and_pipelined_requests_are_answered_in_order() {
    let served = with_accounts(Settings::default()).await;
    let mut client = served.connect().await;
    let mut requests = Vec::new();
    for index in 0..50 {
        let pay = Request::new("POST", "/transaction").json(PAY);
        requests.extend(pay.header("X-Request-Id", &format!("pay-{index}")).bytes());
        let health = Request::new("GET", "/health");
        requests.extend(
            health
                .header("X-Request-Id", &format!("health-{index}"))
                .bytes(),
        );
    }
    client.send(&requests).await;
    for index in 0..50 {
        for kind in ["pay", "health"] {
            let reply = client.reply().await;
            let id = format!("{kind}-{index}");
            assert_eq!(
                (reply.status, reply.header("x-request-id")),
                (200, Some(&*id))
            );
        }
    }
    assert_eq!(served.ledger.transfers_made(), 50);
}

#[tokio::test]
async fn http2_without_tls_is_spoken_too() {
    let served = with_accounts(Settings::default()).await;
    let stream = tokio::net::TcpStream::connect(served.address)
        .await
        .unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let driving = tokio::spawn(connection);
    let mut send = |request: hyper::http::request::Builder, body: Vec<u8>| {
        sender.send_request(request.body(Full::new(bytes::Bytes::from(body))).unwrap())
    };
    let pay = hyper::Request::post("http://test/transaction");
    let pay = pay.header("content-type", "application/json");
    assert_eq!(send(pay, PAY.into()).await.unwrap().status(), 200);
    let large = hyper::Request::post("http://test/transaction");
    let large = large.header("content-type", "application/json");
    let refused = send(large, vec![b' '; 20_000]).await.unwrap();
    assert_eq!(refused.status(), 413);
    let flood = hyper::Request::get("http://test/health").header("x", "v".repeat(20_000));
    let refused = send(flood, Vec::new()).await.unwrap();
    assert_eq!(refused.status(), 431);
    let body = refused.into_body().collect().await.unwrap().to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["code"], "header_too_large");
    drop(sender);
    driving.await.unwrap().unwrap();
}

#[tokio::test]
async fn half_a_body_that_stalls_is_answered_at_the_deadline() {
    let settings = Settings {
        request_deadline: Duration::from_millis(50),
        ..Settings::default()
    };
    let served = with_accounts(settings).await;
    let mut client = served.connect().await;
    let whole = Request::new("POST", "/transaction").json(PAY).bytes();
    client.send(&whole[..whole.len() - 5]).await;
    let reply = client.reply().await;
    reply.expect_problem(503, "deadline_exceeded");
    assert_eq!(reply.header("connection"), Some("close"));
    assert_eq!(served.ledger.transfers_made(), 0);
}

#[tokio::test]
async fn half_a_body_that_breaks_off_does_nothing() {
    let served = with_accounts(Settings::default()).await;
    let mut client = served.connect().await;
    let whole = Request::new("POST", "/transaction").json(PAY).bytes();
    client.send(&whole[..whole.len() - 5]).await;
    drop(client);
    served.watch.news.notified().await;
    assert_eq!(served.ledger.transfers_made(), 0);
}

#[tokio::test]
async fn half_a_header_and_a_silent_connection_are_closed() {
    let settings = Settings {
        header_timeout: Duration::from_millis(30),
        idle_timeout: Duration::from_millis(60),
        ..Settings::default()
    };
    let served = Served::with(settings).await;
    for bytes in [&b""[..], b"G", b"GET /health HTTP/1.1\r\nhost"] {
        let mut client = served.connect().await;
        client.send(bytes).await;
        assert!(client.is_closed().await, "{bytes:?}");
    }
    let mut client = served.connect().await;
    client.send(&Request::new("GET", "/health").bytes()).await;
    assert_eq!(client.reply().await.status, 200);
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_client_that_vanishes_drops_its_request() {
    let served = with_accounts(Settings::default()).await;
    served.ledger.trouble(Trouble::Hangs);
    let mut client = served.connect().await;
    client
        .send(&Request::new("POST", "/transaction").json(PAY).bytes())
        .await;
    served.ledger.hanging.notified().await;
    drop(client);
    tokio::time::timeout(PATIENCE, served.ledger.dropped.notified())
        .await
        .unwrap();
    served.watch.news.notified().await;
    assert_eq!(served.watch.seen()[0].status, 499);
}

#[tokio::test]
async fn bodies_beyond_the_budget_are_refused_and_their_room_comes_back() {
    let settings = Settings {
        bodies_bytes_max: 2000,
        ..Settings::default()
    };
    let served = with_accounts(settings).await;
    let padded = |bytes: usize| format!("{PAY}{}", " ".repeat(bytes - PAY.len()));
    let (most, more) = (padded(2000), padded(2001));
    let request = Request::new("POST", "/transaction").json(&most).bytes();
    let (first, last) = request.split_at(request.len() - 1);
    let mut slow = served.connect().await;
    slow.send(first).await;
    // Once this one is refused for want of room, the slow one has it all.
    loop {
        let reply = served.post("/transaction", PAY).await;
        if reply.status == 503 {
            reply.expect_problem(503, "queue_full");
            break;
        }
    }
    slow.send(last).await;
    assert_eq!(slow.reply().await.status, 200);
    assert_eq!(served.post("/transaction", &most).await.status, 200);
    served
        .post("/transaction", &more)
        .await
        .expect_problem(503, "queue_full");
}

#[tokio::test]
async fn announced_bodies_that_do_not_come_keep_nobody_out() {
    let served = with_accounts(Settings::default()).await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        let request = Request::new("POST", "/transactions")
            .header("content-type", "application/json")
            .header("content-length", "8388608")
            .header("expect", "100-continue");
        let mut client = served.connect().await;
        client.send(&request.bytes()).await;
        // Said once the body is waited for.
        let mut go_on = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
        client.stream.read_exact(&mut go_on).await.unwrap();
        assert!(go_on.starts_with(b"HTTP/1.1 100 "));
        silent.push(client);
    }
    assert_eq!(served.post("/transaction", PAY).await.status, 200);
    let batch = format!(r#"{{"transfers":[{PAY}]}}"#);
    assert_eq!(served.post("/transactions", &batch).await.status, 200);
    // And the room is theirs once they do send.
    let mut first = silent.swap_remove(0);
    first.send(batch.as_bytes()).await;
    first.send(&vec![b' '; 8_388_608 - batch.len()]).await;
    assert_eq!(first.reply().await.status, 200);
    assert_eq!(served.ledger.transfers_made(), 3);
}

#[tokio::test]
async fn a_connection_beyond_the_limit_is_told_so() {
    let settings = Settings {
        connections_max: 1,
        ..Settings::default()
    };
    let served = Served::with(settings).await;
    let mut first = served.connect().await;
    first.send(&Request::new("GET", "/health").bytes()).await;
    assert_eq!(first.reply().await.status, 200);
    let mut second = served.connect().await;
    second.send(&Request::new("GET", "/health").bytes()).await;
    second.reply().await.expect_problem(503, "queue_full");
    second.stream.shutdown().await.unwrap();
    assert!(second.is_closed().await);
    drop(first);
    // The place comes back once the server has seen the first one go.
    loop {
        let mut next = served.connect().await;
        next.send(&Request::new("GET", "/health").bytes()).await;
        if next.reply().await.status == 200 {
            break;
        }
    }
}

#[tokio::test]
async fn stopping_answers_what_was_asked_and_closes_the_rest() {
    let served = with_accounts(Settings::default()).await;
    let mut idle = served.connect().await;
    idle.send(&Request::new("GET", "/health").bytes()).await;
    assert_eq!(idle.reply().await.status, 200);
    let mut busy = served.connect().await;
    let request = Request::new("POST", "/transaction").header("expect", "100-continue");
    let request = request.json(PAY).bytes();
    let (first, last) = request.split_at(request.len() - 1);
    busy.send(first).await;
    // So its request has begun.
    let mut go_on = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
    busy.stream.read_exact(&mut go_on).await.unwrap();
    assert!(go_on.starts_with(b"HTTP/1.1 100 "));
    served.stop.send(Stopping::Closing).unwrap();
    assert!(idle.is_closed().await);
    busy.send(last).await;
    let reply = busy.reply().await;
    assert_eq!(
        (reply.status, reply.header("connection")),
        (200, Some("close"))
    );
    assert!(busy.is_closed().await);
    tokio::time::timeout(PATIENCE, served.serving)
        .await
        .unwrap()
        .unwrap();
    assert!(
        tokio::net::TcpStream::connect(served.address)
            .await
            .is_err()
    );
}

/// What a client sent before it could see the close is answered: over a connection
/// that was idle when the stop came, and over one that nobody had accepted yet.
#[tokio::test]
async fn what_is_on_its_way_when_the_listener_closes_is_answered() {
    let served = with_accounts(Settings::default()).await;
    let health = Request::new("GET", "/health").bytes();
    let mut idle = served.connect().await;
    idle.send(&health).await;
    assert_eq!(idle.reply().await.header("connection"), None);
    let mut new = served.connect().await;
    served.stop.send(Stopping::Closing).unwrap();
    let mut newer = served.connect().await;
    for client in [&mut idle, &mut new, &mut newer] {
        client.send(&health).await;
        let reply = client.reply().await;
        assert_eq!(
            (reply.status, reply.header("connection")),
            (200, Some("close"))
        );
        assert!(client.is_closed().await);
    }
}

/// Until the listener closes all is served, and each answer asks to leave.
#[tokio::test]
async fn an_engine_that_leaves_serves_on_and_asks_its_clients_to_go() {
    let served = with_accounts(Settings::default()).await;
    let health = Request::new("GET", "/health").bytes();
    let mut before = served.connect().await;
    served.stop.send(Stopping::Leaving).unwrap();
    // Longer than any time after which an idle connection would be closed.
    tokio::time::sleep(2 * Settings::default().leave_time).await;
    let mut after = served.connect().await;
    for client in [&mut before, &mut after] {
        client.send(&health).await;
        let reply = client.reply().await;
        assert_eq!(
            (reply.status, reply.header("connection")),
            (200, Some("close"))
        );
        assert!(client.is_closed().await);
    }
    // HTTP/2 says it with GOAWAY, after the first request of a new connection.
    let stream = tokio::net::TcpStream::connect(served.address)
        .await
        .unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let driving = tokio::spawn(connection);
    let ask = hyper::Request::get("http://test/health");
    let ask = ask.body(Full::new(bytes::Bytes::new())).unwrap();
    assert_eq!(sender.send_request(ask).await.unwrap().status(), 200);
    let ended = tokio::time::timeout(PATIENCE, driving).await.unwrap();
    ended.unwrap().unwrap();
    assert!(!served.serving.is_finished());
    served.stop.send(Stopping::Closing).unwrap();
    tokio::time::timeout(PATIENCE, served.serving)
        .await
        .unwrap()
        .unwrap();
}

/// GOAWAY is sent with a PING, whose answer ends the conversation.
#[tokio::test]
async fn a_peer_that_is_gone_does_not_hold_the_stop() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const EMPTY_SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let day = Duration::from_secs(24 * 3600);
    let settings = Settings {
        header_timeout: day,
        idle_timeout: day,
        write_timeout: day,
        linger: Duration::from_millis(50),
        ..Settings::default()
    };
    let served = with_accounts(settings).await;
    let mut gone = served.connect().await;
    gone.send(PREFACE).await;
    gone.send(EMPTY_SETTINGS).await;
    // Spoken to, so its conversation has begun.
    gone.stream.read_exact(&mut [0; 9]).await.unwrap();
    served.stop.send(Stopping::Closing).unwrap();
    tokio::time::timeout(PATIENCE, served.serving)
        .await
        .unwrap()
        .unwrap();
}
