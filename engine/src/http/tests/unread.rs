//! Answers that their client reads slowly, or not at all.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Response;
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::client::{PATIENCE, Request, Served};
use super::fake::Trouble;
use crate::http::Settings;

const ITEM: &str = r#"{"from":0,"to":1,"amount":1}"#;
const LIST: &str = "http://test/transactions?limit=1000";

async fn with_a_long_list(settings: Settings) -> Served {
    let served = Served::with(settings).await;
    served.ledger.open_three();
    let body = format!(r#"{{"transfers":[{}]}}"#, vec![ITEM; 100].join(","));
    assert_eq!(served.post("/transactions", &body).await.status, 200);
    served
}

/// A client that lets so many bytes of each answer come before it reads.
async fn with_window(served: &Served, bytes: u32) -> SendRequest<Empty<Bytes>> {
    let stream = tokio::net::TcpStream::connect(served.address).await;
    let (sender, connection) = Builder::new(TokioExecutor::new())
        .initial_stream_window_size(bytes)
        .handshake(TokioIo::new(stream.unwrap()))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

async fn ask(
    sender: &mut SendRequest<Empty<Bytes>>,
    target: &str,
) -> hyper::Result<Response<Incoming>> {
    sender.ready().await?;
    let request = hyper::Request::get(target).body(Empty::new()).unwrap();
    sender.send_request(request).await
}

#[tokio::test]
async fn who_reads_slowly_but_reads_has_all_time() {
    let settings = Settings {
        header_timeout: Duration::from_millis(30),
        idle_timeout: Duration::from_millis(60),
        write_timeout: Duration::from_secs(2),
        ..Settings::default()
    };
    let served = with_a_long_list(settings).await;
    let mut sender = with_window(&served, 1024).await;
    let mut answer = ask(&mut sender, LIST).await.unwrap();
    let announced = answer.headers()["content-length"].clone();
    let mut read = 0;
    while let Some(frame) = answer.frame().await {
        read += frame.unwrap().into_data().unwrap().len();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(10_000 < read, "{read}");
    assert_eq!(announced, *read.to_string());
}

#[tokio::test]
async fn who_opens_no_window_is_closed_whatever_else_is_asked() {
    let settings = Settings {
        write_timeout: Duration::from_millis(60),
        ..Settings::default()
    };
    let served = with_a_long_list(settings).await;
    let mut sender = with_window(&served, 0).await;
    let unread = ask(&mut sender, LIST).await.unwrap();
    assert_eq!(unread.status(), 200);
    let asking_on = async {
        while ask(&mut sender, "http://test/health").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking_on).await.unwrap();
}

/// What moves money is answered, so it needs room for its answer before: there is
/// none while others at work may fill it.
#[tokio::test]
async fn batch_calls_at_work_count_before_they_have_an_answer() {
    let body = format!(r#"{{"transfers":[{}]}}"#, vec![ITEM; 100].join(","));
    let call = Request::new("POST", "/transactions").json(&body).bytes();
    let settings = Settings {
        // Three of them, at 256 bytes for each transfer.
        answers_bytes_max: 3 * 25_600,
        ..Settings::default()
    };
    let served = Served::with(settings).await;
    served.ledger.open_three();
    served.ledger.trouble(Trouble::Hangs);
    let mut at_work = Vec::new();
    for _ in 0..3 {
        let mut client = served.connect().await;
        client.send(&call).await;
        tokio::time::timeout(PATIENCE, served.ledger.hanging.notified())
            .await
            .unwrap();
        at_work.push(client);
    }
    let refused = served.post("/transactions", &body).await;
    refused.expect_problem(503, "queue_full");
    served.ledger.trouble(Trouble::None);
    assert_eq!(served.post("/transaction", ITEM).await.status, 200);
    drop(at_work.pop());
    served.ledger.dropped.notified().await;
    assert_eq!(served.post("/transactions", &body).await.status, 200);
    assert_eq!(served.ledger.transfers_made(), 101);
}
