//! The conductor's connection to one worker.
//!
//! Owns: HTTP to it, and what is known of its clock.
//! Never: waits longer than it is told, or sends a request twice by itself.
//! Bound: one request at a time, `ANSWER_BYTES_MAX` of an answer.

use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::clock::{Offset, Reading};
use super::token::Token;
use super::wire::{Clock, Problem};

/// An hour of a hundred tasks stays far below.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Why there is no good answer.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// Nothing came, or nothing whole.
    Silent(String),
    /// It answered, and said no.
    Said(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(problem) | Self::Said(problem) => f.write_str(problem),
        }
    }
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) name: String,
    token: Option<Token>,
    /// None before the first request and after a fault.
    sender: Option<SendRequest<Full<Bytes>>>,
    /// The conductor's clock begins there.
    epoch: Instant,
    pub(super) offset: Option<Offset>,
}

impl Link {
    pub(super) fn new(name: String, token: Option<Token>, epoch: Instant) -> Self {
        Self {
            name,
            token,
            sender: None,
            epoch,
            offset: None,
        }
    }

    pub(super) async fn get<T: DeserializeOwned>(
        &mut self,
        path: &str,
        within: Duration,
    ) -> Result<T, Fault> {
        read(&self.ask(Method::GET, path, Bytes::new(), within).await?)
    }

    /// The answer as text.
    pub(super) async fn text(&mut self, path: &str, within: Duration) -> Result<String, Fault> {
        let bytes = self.ask(Method::GET, path, Bytes::new(), within).await?;
        String::from_utf8(bytes.into()).map_err(|error| Fault::Silent(error.to_string()))
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &impl Serialize,
        within: Duration,
    ) -> Result<T, Fault> {
        let body = serde_json::to_vec(body).map_err(|error| Fault::Said(error.to_string()))?;
        read(&self.ask(Method::POST, path, body.into(), within).await?)
    }

    /// Whatever comes of it.
    pub(super) async fn delete(&mut self, path: &str, within: Duration) {
        self.ask(Method::DELETE, path, Bytes::new(), within)
            .await
            .ok();
    }

    /// Reads its clock once more.
    pub(super) async fn read_clock(&mut self, within: Duration) -> Result<Offset, Fault> {
        let sent = self.epoch.elapsed();
        let clock: Clock = self.get("/v1/clock", within).await?;
        let offset = Offset::new(Reading {
            sent,
            theirs: clock.now,
            received: self.epoch.elapsed(),
        });
        let best = self.offset.map_or(offset, |best| best.or_better(offset));
        self.offset = Some(best);
        Ok(best)
    }

    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
        within: Duration,
    ) -> Result<Bytes, Fault> {
        let result = match tokio::time::timeout(within, self.exchange(method, path, body)).await {
            Ok(result) => result,
            Err(_elapsed) => Err(Fault::Silent(format!("no answer within {within:?}"))),
        };
        if let Err(Fault::Silent(_)) = &result {
            self.sender = None;
        }
        result
    }

    async fn exchange(&mut self, method: Method, path: &str, body: Bytes) -> Result<Bytes, Fault> {
        let mut sender = match self.sender.take() {
            Some(sender) if !sender.is_closed() => sender,
            Some(_) | None => self.connect().await?,
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.name)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, token.header());
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| Fault::Said(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(silent)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let body = body.collect().await.map_err(silent)?.to_bytes();
        self.sender = Some(sender);
        if status.is_success() {
            return Ok(body);
        }
        let problem = serde_json::from_slice(&body);
        Err(Fault::Said(problem.map_or_else(
            |_| format!("it answered {status}: is it a loadtest worker?"),
            |problem: Problem| problem.detail,
        )))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Fault> {
        let stream = tokio::net::TcpStream::connect(&self.name)
            .await
            .map_err(silent)?;
        stream.set_nodelay(true).map_err(silent)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(silent)?;
        // It ends with the sender, and with the runtime.
        tokio::spawn(connection);
        Ok(sender)
    }
}

fn silent(error: impl fmt::Display) -> Fault {
    Fault::Silent(error.to_string())
}

fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Fault> {
    serde_json::from_slice(body)
        .map_err(|error| Fault::Said(format!("its answer makes no sense: {error}")))
}
