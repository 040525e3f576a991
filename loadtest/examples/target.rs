//! A trivial server, to measure load generators against.
//!
//! Owns: fixed answers to `POST /transaction`, `GET /balance/N` and `GET /health`, in
//! the engine's form; anything else is 404.
//! Never: stores, checks or logs anything; it is not an engine.
//! Bound: one thread, so that it takes one core; its limit of open files is its
//! limit of connections.
//! Invariant: prints its address as one line, and ends when its standard input does.
//!
//! `ops/bench loadtest` starts it. By hand, until Enter: `cargo run --release -p loadtest
//! --example target`.
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, server::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpSocket;
use tokio::sync::oneshot;

/// As many as the system allows (`net.core.somaxconn`): of 10,000 connections that come
/// at once, one that finds no room waits a second.
const BACKLOG: u32 = 16_384;
/// As long as the engine's answer to a transfer.
const TRANSFER: &[u8] = br#"{"txn_id":"019aa8a1-0000-7000-8000-000000000001","status":"completed","from":1,"to":2,"amount":1.00,"created_at":"2026-11-21T12:00:00.000Z"}"#;
const BALANCE: &[u8] = br#"{"account_id":1,"balance":10000.00,"cached":true,"version":1,"currency":"USD","balance_minor":"1000000"}"#;
const HEALTH: &[u8] = br#"{"status":"ready"}"#;
const NOT_FOUND: &[u8] = br#"{"title":"not found","status":404,"code":"not_found"}"#;

fn main() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(serve())
}

async fn serve() -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let listener = socket.listen(BACKLOG)?;
    let mut out = std::io::stdout();
    writeln!(out, "http://{}", listener.local_addr()?)?;
    out.flush()?;
    let mut closed = watch_input();
    loop {
        let stream = tokio::select! {
            // The sender is dropped, or sends: both are the end.
            _ = &mut closed => return Ok(()),
            accepted = listener.accept() => accepted?.0,
        };
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let service = service_fn(answer);
            // A client that leaves is no concern of ours: the next sample goes on.
            http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await
                .ok();
        });
    }
}

/// Told when standard input ends: whoever started this holds its other end, so
/// the server cannot outlive it, however that one dies.
fn watch_input() -> oneshot::Receiver<()> {
    let (ended, closed) = oneshot::channel();
    std::thread::spawn(move || {
        let mut input = std::io::stdin();
        let mut buffer = [0; 64];
        while input.read(&mut buffer).is_ok_and(|count| count > 0) {}
        ended.send(()).ok();
    });
    closed
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path();
    let (status, body) = if request.method() == Method::POST && path == "/transaction" {
        (StatusCode::OK, TRANSFER)
    } else if request.method() == Method::GET && path.starts_with("/balance/") {
        (StatusCode::OK, BALANCE)
    } else if request.method() == Method::GET && path == "/health" {
        (StatusCode::OK, HEALTH)
    } else {
        (StatusCode::NOT_FOUND, NOT_FOUND)
    };
    // Reads the body, as any server of transfers must.
    request.into_body().collect().await.ok();
    let mut response = Response::new(Full::new(Bytes::from_static(body)));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    Ok(response)
}
