//! Clients that ask and never read.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::super::ledger;
use super::super::load::{Load, Plan};
use crate::support::TestDatabase;
use crate::support::daemon::{Daemon, Request, eventually};
use crate::support::verify;

/// The least there may be.
const BUDGET: &str = "16MiB";
const BUDGET_BYTES: f64 = 16.0 * 1024.0 * 1024.0;
/// Each is sent several megabytes before its kernel's buffers are full.
const NEVER_READING: usize = 4;
/// The part of one connection.
const SHARE_BYTES: f64 = BUDGET_BYTES / 8.0;
/// Of one connection, at the same time.
const STREAMS: usize = 60;
const LIST: &str = "/transactions?limit=1000";

/// An engine whose longest list is long, and how long.
async fn with_a_long_list(more: &[&str]) -> (TestDatabase, Daemon, f64) {
    let database = ledger().await;
    let mut settings = vec!["--answer-bytes-in-flight-max", BUDGET];
    settings.extend(more);
    let daemon = Daemon::start(&database, &settings).await;
    daemon.open(8, 100).await;
    let item = format!(
        r#"{{"from":0,"to":1,"amount":2,"reference":"{}"}}"#,
        "r".repeat(200)
    );
    let body = format!(r#"{{"transfers":[{}]}}"#, vec![item; 1000].join(","));
    assert_eq!(daemon.post("/transactions", &body).await.status, 200);
    let reply = daemon.get(LIST).await;
    let length = f64::from(u32::try_from(reply.body.len()).unwrap());
    assert!(200_000.0 < length, "{length}");
    (database, daemon, length)
}

async fn waiting(daemon: &Daemon) -> f64 {
    let page = daemon.metrics().await;
    page.sum("engine_answer_in_flight_bytes", "")
}

/// A connection whose kernel keeps little of what is not read.
async fn narrow(daemon: &Daemon) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(daemon.api).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_nobody_reads_hold_a_share_and_no_more() {
    let (database, daemon, length) = with_a_long_list(&[]).await;
    let stream = TcpStream::connect(daemon.api).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        // Heads come through, bodies do not.
        .initial_stream_window_size(0)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let driving = tokio::spawn(connection);
    // All at once: none finds room that another is about to fill.
    let mut asked = JoinSet::new();
    for _ in 0..STREAMS {
        let mut sender = sender.clone();
        asked.spawn(async move {
            sender.ready().await.unwrap();
            let request = hyper::Request::get(format!("http://engine{LIST}"));
            let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
            sender.send_request(request).await.unwrap()
        });
    }
    let mut unread = Vec::new();
    let (mut given, mut refused) = (0.0, 0_u32);
    while let Some(response) = asked.join_next().await {
        let response = response.unwrap();
        if response.status() == 200 {
            given += 1.0;
        } else {
            assert_eq!(response.status(), 503);
            assert!(response.headers().contains_key("retry-after"));
            refused += 1;
        }
        unread.push(response);
    }
    assert!(0.0 < given && 0 < refused, "{given} given, {refused} not");
    assert!(given * length <= SHARE_BYTES + length, "{given} lists");
    let held = waiting(&daemon).await;
    assert!(0.0 < held && held <= SHARE_BYTES + length, "{held}");
    // Others have the rest, and money moves here too.
    assert_eq!(daemon.get(LIST).await.status, 200);
    let pay = hyper::Request::get("http://engine/balance/1");
    let pay = pay.body(Empty::new()).unwrap();
    let small = sender.send_request(pay).await.unwrap();
    assert_eq!(small.status(), 200);
    // Given up: what they held is free again.
    drop(unread);
    drop(small.into_body());
    eventually("given back", async || waiting(&daemon).await < 1.0).await;
    drop(sender);
    driving.await.unwrap().unwrap();
    assert_eq!(daemon.stop().await.code, Some(0));
    verify(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_reads_is_closed_and_held_little_meanwhile() {
    let (database, daemon, length) = with_a_long_list(&["--write-timeout", "3s"]).await;
    let before = daemon.metrics().await;
    let before = before.sum("process_resident_memory_bytes", "");
    let load = Load::start(Arc::new(Plan::new(vec![daemon.api], 8, 8)));
    load.until_acknowledged(10).await;
    let ask = Request::new("GET", LIST).bytes();
    let many: Vec<u8> = ask.repeat(50);
    let mut clients = Vec::new();
    for _ in 0..NEVER_READING {
        let stream = narrow(&daemon).await;
        // As much as the sockets take; the rest of it never comes.
        let sent = stream.try_write(&many).unwrap();
        assert!(ask.len() < sent);
        clients.push((stream, false));
    }
    let (mut held_max, mut memory_max) = (0.0_f64, before);
    // Far below the idle timeout: it is the write timeout that ends them.
    eventually("closed", async || {
        let page = daemon.metrics().await;
        held_max = held_max.max(page.sum("engine_answer_in_flight_bytes", ""));
        memory_max = memory_max.max(page.sum("process_resident_memory_bytes", ""));
        for (stream, gone) in &mut clients {
            // Asking on does not help.
            let asked = stream.try_write(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
            *gone |= asked.is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock);
        }
        clients.iter().all(|(_, gone)| *gone)
    })
    .await;
    assert!(0.0 < held_max, "nothing was held");
    // One list each, and never more than the budget and what was at work then.
    let most = BUDGET_BYTES + 16.0 * length;
    assert!(held_max <= most, "{held_max} held, {most} allowed");
    let more = memory_max - before;
    assert!(more < 2.0 * BUDGET_BYTES, "{more} bytes more");
    let known = load.acknowledged();
    load.until_acknowledged(known + 200).await;
    eventually("given back", async || waiting(&daemon).await < 1.0).await;
    let report = load.stop().await;
    assert_eq!((report.torn, report.closed), (0, 0));
    report.check_waits(Duration::from_secs(11));
    report.check_stored(&database.url, &[&daemon]).await;
    assert_eq!(daemon.stop().await.code, Some(0));
    verify(&database).await;
}
