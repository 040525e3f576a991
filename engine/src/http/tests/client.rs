//! A client that sends bytes as they are, and a server to send them to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::super::{Edge, Settings, Stopping, serve};
use super::fake::FakeLedger;
use super::watch::Watch;
use crate::clock::Clock;

/// Longer than anything takes; a test that gets here hangs for ever otherwise.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A running edge.
pub(super) struct Served {
    pub(super) ledger: FakeLedger,
    pub(super) watch: Watch,
    pub(super) address: SocketAddr,
    pub(super) stop: watch::Sender<Stopping>,
    pub(super) serving: JoinHandle<()>,
}

impl Served {
    pub(super) async fn start() -> Self {
        Self::with(Settings::default()).await
    }

    pub(super) async fn with(settings: Settings) -> Self {
        let (ledger, watch) = (FakeLedger::default(), Watch::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopping) = watch::channel(Stopping::No);
        let edge = Edge::new(settings, ledger.clone(), watch.clone(), Clock::System, 7);
        let serving = tokio::spawn(serve(Arc::new(edge), listener, stopping));
        Self {
            ledger,
            watch,
            address,
            stop,
            serving,
        }
    }

    pub(super) async fn connect(&self) -> Client {
        Client {
            stream: TcpStream::connect(self.address).await.unwrap(),
            received: Vec::new(),
        }
    }

    /// One request on a connection of its own.
    pub(super) async fn call(&self, request: Request<'_>) -> Reply {
        let mut client = self.connect().await;
        client.send(&request.bytes()).await;
        client.reply().await
    }

    pub(super) async fn get(&self, target: &str) -> Reply {
        self.call(Request::new("GET", target)).await
    }

    pub(super) async fn post(&self, target: &str, body: &str) -> Reply {
        self.call(Request::new("POST", target).json(body)).await
    }

    pub(super) async fn post_keyed(&self, target: &str, key: &str, body: &str) -> Reply {
        let request = Request::new("POST", target).json(body);
        self.call(request.header("Idempotency-Key", key)).await
    }
}

/// A request to be written as it is.
#[derive(Clone, Debug)]
pub(super) struct Request<'a> {
    head: String,
    body: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    pub(super) fn new(method: &str, target: &str) -> Self {
        Self {
            head: format!("{method} {target} HTTP/1.1\r\nhost: test\r\n"),
            body: None,
        }
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.head.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    pub(super) fn json(self, body: &'a str) -> Self {
        self.header("content-type", "application/json")
            .body(body.as_bytes())
    }

    pub(super) fn body(mut self, body: &'a [u8]) -> Self {
        self.body = Some(body);
        self.header("content-length", &body.len().to_string())
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head.clone().into_bytes();
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(self.body.unwrap_or_default());
        bytes
    }
}

/// One connection.
pub(super) struct Client {
    pub(super) stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next answer, whole.
    pub(super) async fn reply(&mut self) -> Reply {
        tokio::time::timeout(PATIENCE, self.read_reply(true))
            .await
            .unwrap()
    }

    /// The next answer to a HEAD request: it announces a body and has none.
    pub(super) async fn reply_to_head(&mut self) -> Reply {
        tokio::time::timeout(PATIENCE, self.read_reply(false))
            .await
            .unwrap()
    }

    /// Whether the server closes without another byte.
    pub(super) async fn is_closed(&mut self) -> bool {
        assert_eq!(self.received, b"");
        let mut rest = [0; 1];
        let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut rest))
            .await
            .unwrap();
        matches!(read, Ok(0) | Err(_))
    }

    async fn read_reply(&mut self, with_body: bool) -> Reply {
        let head_length = loop {
            if let Some(end) = find(&self.received, b"\r\n\r\n") {
                break end + 4;
            }
            self.read_more().await;
        };
        let head = String::from_utf8(self.received.drain(..head_length).collect()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let headers: BTreeMap<_, _> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let length: usize = headers["content-length"].parse().unwrap();
        let length = if with_body { length } else { 0 };
        while self.received.len() < length {
            self.read_more().await;
        }
        Reply {
            status: status.parse().unwrap(),
            headers,
            body: String::from_utf8(self.received.drain(..length).collect()).unwrap(),
        }
    }

    async fn read_more(&mut self) {
        let read = self.stream.read_buf(&mut self.received).await.unwrap();
        let so_far = String::from_utf8_lossy(&self.received);
        assert_ne!(read, 0, "closed after {so_far:?}");
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: String,
}

impl Reply {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    #[track_caller]
    pub(super) fn expect(&self, status: u16, body: &str) {
        assert_eq!((self.status, self.body.as_str()), (status, body));
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert!(self.header("x-request-id").is_some());
    }

    /// That it is a problem document with that code and all that goes with one.
    #[track_caller]
    pub(super) fn expect_problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        let problem = self.json();
        assert_eq!(problem["code"], code, "{}", self.body);
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], format!("/docs#{code}"));
        assert!(!problem["title"].as_str().unwrap().is_empty());
        assert!(!problem["detail"].as_str().unwrap().is_empty());
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        assert!(self.header("x-request-id").is_some());
        assert_eq!(self.header("retry-after").is_some(), status == 503);
        problem
    }
}
