//! A few HTTP calls to an engine, for `engine health` and `engine dev`.
//!
//! Never: keeps a connection, or retries.
//! Bound: each call ends within the time given; an answer is at most 16 MiB.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

const ANSWER_BYTES_MAX: usize = 16 << 20;

/// One engine.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    address: SocketAddr,
    timeout: Duration,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody listens.
    Connect(std::io::Error),
    /// Not HTTP, or the connection broke.
    Http(hyper::Error),
    /// The request cannot be written as HTTP.
    Request(hyper::http::Error),
    /// The answer broke off or is too long.
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// No answer in time.
    Timeout(Duration),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(source) => write!(f, "connect: {source}"),
            Self::Http(source) => write!(f, "speak HTTP: {source}"),
            Self::Request(source) => write!(f, "write the request: {source}"),
            Self::Body(source) => write!(f, "read the answer: {source}"),
            Self::Timeout(limit) => {
                write!(f, "no answer within {}", humantime::format_duration(*limit))
            }
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connect(source) => Some(source),
            Self::Http(source) => Some(source),
            Self::Request(source) => Some(source),
            Self::Body(source) => Some(&**source),
            Self::Timeout(_) => None,
        }
    }
}

impl Client {
    /// Calls the engine at `address`; each call may take `timeout`.
    #[must_use]
    pub const fn new(address: SocketAddr, timeout: Duration) -> Self {
        Self { address, timeout }
    }

    /// # Errors
    /// [`ClientError`]; any status is an answer.
    pub async fn get(&self, path: &str) -> Result<(StatusCode, Bytes), ClientError> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    /// # Errors
    /// [`ClientError`]; any status is an answer.
    pub async fn post_json(
        &self,
        path: &str,
        body: String,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        self.call(Method::POST, path, Bytes::from(body)).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        tokio::time::timeout(self.timeout, self.exchange(method, path, body))
            .await
            .unwrap_or(Err(ClientError::Timeout(self.timeout)))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = TcpStream::connect(self.address)
            .await
            .map_err(ClientError::Connect)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(ClientError::Http)?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.address.to_string())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(ClientError::Request)?;
        let answer = async move {
            let response = sender
                .send_request(request)
                .await
                .map_err(ClientError::Http)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
                .collect()
                .await
                .map_err(ClientError::Body)?;
            Ok((status, body.to_bytes()))
        };
        // The connection is driven beside the call and ends with it; its own
        // error, if any, is also the call's.
        let (answer, _closed) = tokio::join!(answer, connection);
        answer
    }
}
