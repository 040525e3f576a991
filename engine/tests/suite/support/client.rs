//! An HTTP client that sends bytes as they are and tells how a connection ended.

use std::fmt::Write as _;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::daemon::PATIENCE;

/// A request to be.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    head: String,
    body: Vec<u8>,
    has_length: bool,
}

impl Request {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        Self {
            head: format!("{method} {target} HTTP/1.1\r\nhost: engine\r\n"),
            body: Vec::new(),
            has_length: false,
        }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        write!(self.head, "{name}: {value}\r\n").unwrap();
        self
    }

    pub(crate) fn key(self, key: &str) -> Self {
        self.header("idempotency-key", key)
    }

    pub(crate) fn json(self, body: &str) -> Self {
        self.header("content-type", "application/json")
            .body(body.as_bytes())
    }

    pub(crate) fn body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self.has_length = true;
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head.clone().into_bytes();
        if self.has_length {
            bytes.extend_from_slice(format!("content-length: {}\r\n", self.body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body is exactly this.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16, body: &str) {
        assert_eq!((self.status, self.body.as_str()), (status, body));
        assert_eq!(self.header("content-type"), Some("application/json"));
    }

    /// A problem document with exactly the members every one has and `more`.
    #[track_caller]
    pub(crate) fn expect_problem(&self, status: u16, code: &str, more: &[&str]) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        assert!(self.header("x-request-id").is_some());
        let problem = self.json();
        assert_eq!(problem["code"], code, "{self:?}");
        assert_eq!(problem["status"], status, "{self:?}");
        let mut members: Vec<_> = problem.as_object().unwrap().keys().collect();
        let mut expected = vec!["type", "title", "status", "detail", "code"];
        expected.extend(more);
        members.sort_unstable();
        expected.sort_unstable();
        assert_eq!(members, expected, "{self:?}");
        problem
    }
}

/// Why a connection gave no answer.
#[derive(Debug)]
pub(crate) enum Broken {
    /// Closed in order, before any byte of an answer.
    Closed,
    /// Closed within an answer, or reset.
    Torn(String),
}

/// One connection, kept alive.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) stream: BufReader<TcpStream>,
}

impl Wire {
    pub(crate) async fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Sends bytes as they are.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes).await
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn call(&mut self, request: &Request) -> Result<Reply, Broken> {
        // An engine that closed meanwhile may have answered already.
        let sent = self.send(&request.bytes()).await;
        match (self.reply().await, sent) {
            (Err(Broken::Closed), Err(error)) => Err(Broken::Torn(error.to_string())),
            (reply, _) => reply,
        }
    }

    /// Reads one answer.
    pub(crate) async fn reply(&mut self) -> Result<Reply, Broken> {
        timeout(PATIENCE, self.read_reply())
            .await
            .expect("an answer comes in bounded time")
    }

    async fn read_reply(&mut self) -> Result<Reply, Broken> {
        let torn = |error: std::io::Error| Broken::Torn(error.to_string());
        let mut line = String::new();
        if self.stream.read_line(&mut line).await.map_err(torn)? == 0 {
            return Err(Broken::Closed);
        }
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.ok_or_else(|| Broken::Torn(line.clone()))?;
        let mut headers = Vec::new();
        loop {
            line.clear();
            if self.stream.read_line(&mut line).await.map_err(torn)? == 0 {
                return Err(Broken::Torn("within the header".to_owned()));
            }
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut reply = Reply {
            status,
            headers,
            body: String::new(),
        };
        let length = reply.header("content-length").map_or(Ok(0), str::parse);
        let mut body = vec![0; length.unwrap()];
        self.stream.read_exact(&mut body).await.map_err(torn)?;
        reply.body = String::from_utf8(body).unwrap();
        Ok(reply)
    }

    /// Whether the engine has closed in order, after all it had to say.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        let read = timeout(PATIENCE, self.stream.read(&mut byte)).await;
        matches!(read, Ok(Ok(0)))
    }
}

/// One request on a connection of its own.
pub(crate) async fn call(address: SocketAddr, request: &Request) -> Reply {
    let mut wire = Wire::connect(address).await.unwrap();
    wire.call(request).await.unwrap()
}
