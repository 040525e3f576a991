//! The real binary as a child process, and a client that sends bytes as they are.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::TestDatabase;

pub(crate) const ENGINE: &str = env!("CARGO_BIN_EXE_engine");
/// Far above what any step takes, on a busy machine too; only a hang reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// Small on purpose: many engines share the server's 100 connections.
const POOL_SIZE: &str = "4";
/// The program's environment decides nothing here but where programs are.
const KEPT_ENVIRONMENT: &str = "PATH";

/// Lines a child wrote so far; a reader task adds to them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    pub(crate) fn all(&self) -> Vec<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn push(&self, line: String) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line);
    }

    fn read_from(
        &self,
        stream: impl tokio::io::AsyncRead + Unpin + Send + 'static,
    ) -> JoinHandle<()> {
        let lines = self.clone();
        tokio::spawn(async move {
            let mut reader = BufReader::new(stream).lines();
            while let Ok(Some(line)) = reader.next_line().await {
                lines.push(line);
            }
        })
    }
}

/// A running `engine serve`; killed when dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    readers: Vec<JoinHandle<()>>,
    /// The HTTP API.
    pub(crate) api: SocketAddr,
    /// Metrics and readiness.
    pub(crate) admin: SocketAddr,
    /// Standard error: the log.
    pub(crate) log: Lines,
    /// Standard output: the access log.
    pub(crate) out: Lines,
}

/// How a child ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) log: Vec<String>,
    pub(crate) out: Vec<String>,
}

/// `engine serve` on free ports with more arguments, not started.
pub(crate) fn serve_command(database_url: &str, arguments: &[&str]) -> Command {
    let mut command = engine_command();
    command
        .args(["serve", "--database-url", database_url])
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .args(["--log-format", "json", "--database-pool-size", POOL_SIZE])
        .args(arguments);
    command
}

/// The binary with an environment of its own.
pub(crate) fn engine_command() -> Command {
    let mut command = Command::new(ENGINE);
    command.env_clear();
    if let Some(path) = std::env::var_os(KEPT_ENVIRONMENT) {
        command.env(KEPT_ENVIRONMENT, path);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs a command that must end by itself.
pub(crate) async fn run_to_end(mut command: Command) -> Ended {
    let child = command.spawn().unwrap();
    let output = timeout(PATIENCE, child.wait_with_output())
        .await
        .expect("it must end by itself")
        .unwrap();
    let lines = |bytes: &[u8]| {
        String::from_utf8_lossy(bytes)
            .lines()
            .map(str::to_owned)
            .collect()
    };
    Ended {
        code: output.status.code(),
        log: lines(&output.stderr),
        out: lines(&output.stdout),
    }
}

impl Daemon {
    /// Serves `database` as the least-privileged role, without a cache, and is
    /// ready.
    pub(crate) async fn start(database: &TestDatabase, arguments: &[&str]) -> Self {
        Self::start_on(&database.url_as("engine_app"), arguments).await
    }

    /// The same on any database.
    pub(crate) async fn start_on(database_url: &str, arguments: &[&str]) -> Self {
        let daemon = Self::spawn(database_url, arguments).await;
        daemon.until_ready().await;
        daemon
    }

    /// Serving, perhaps not ready yet.
    pub(crate) async fn spawn(database_url: &str, arguments: &[&str]) -> Self {
        let mut child = serve_command(database_url, arguments).spawn().unwrap();
        let (log, out) = (Lines::default(), Lines::default());
        let readers = vec![
            log.read_from(child.stderr.take().unwrap()),
            out.read_from(child.stdout.take().unwrap()),
        ];
        let begun = Instant::now();
        let (api, admin) = loop {
            if let Some(found) = log.all().iter().find_map(|line| addresses(line)) {
                break found;
            }
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?} {:?}", log.all());
            assert!(begun.elapsed() < PATIENCE, "{:?}", log.all());
            tokio::time::sleep(POLL).await;
        };
        Self {
            child,
            readers,
            api,
            admin,
            log,
            out,
        }
    }

    pub(crate) async fn until_ready(&self) {
        eventually("ready", async || self.readyz().await.0 == 200).await;
    }

    /// Status and checks of `/readyz`.
    pub(crate) async fn readyz(&self) -> (u16, Value) {
        let reply = call(self.admin, &Request::new("GET", "/readyz")).await;
        (reply.status, reply.json()["checks"].clone())
    }

    pub(crate) async fn metrics(&self) -> Metrics {
        let reply = call(self.admin, &Request::new("GET", "/metrics")).await;
        assert_eq!(reply.status, 200);
        Metrics(reply.body)
    }

    pub(crate) async fn call(&self, request: &Request) -> Reply {
        call(self.api, request).await
    }

    pub(crate) async fn get(&self, target: &str) -> Reply {
        self.call(&Request::new("GET", target)).await
    }

    pub(crate) async fn post(&self, target: &str, body: &str) -> Reply {
        self.call(&Request::new("POST", target).json(body)).await
    }

    pub(crate) async fn post_keyed(&self, target: &str, key: &str, body: &str) -> Reply {
        self.call(&Request::new("POST", target).json(body).key(key))
            .await
    }

    pub(crate) async fn patch(&self, target: &str, body: &str) -> Reply {
        self.call(&Request::new("PATCH", target).json(body)).await
    }

    /// Account 0 without a limit and accounts 1 to `accounts`, each with
    /// `amount` dollars if that is not zero.
    pub(crate) async fn open(&self, accounts: u32, amount: u32) {
        let mut list = vec![r#"{"account_id":0,"currency":"USD","min_balance":null}"#.to_owned()];
        list.extend((1..=accounts).map(|id| format!(r#"{{"account_id":{id},"currency":"USD"}}"#)));
        let opened = self
            .post("/accounts", &format!("[{}]", list.join(",")))
            .await;
        assert_eq!(opened.status, 201, "{}", opened.body);
        if amount == 0 {
            return;
        }
        let fund: Vec<_> = (1..=accounts)
            .map(|id| format!(r#"{{"from":0,"to":{id},"amount":{amount}}}"#))
            .collect();
        let body = format!(r#"{{"atomic":true,"transfers":[{}]}}"#, fund.join(","));
        let funded = self.post("/transactions", &body).await;
        assert_eq!(funded.status, 200, "{}", funded.body);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = self.child.id().expect("it still runs");
        let pid = Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// SIGKILL, and gone.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// SIGTERM, and how it ended.
    pub(crate) async fn stop(self) -> Ended {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// Waits for its end, which something else brings about.
    pub(crate) async fn ended(mut self) -> Ended {
        let status = timeout(PATIENCE, self.child.wait())
            .await
            .expect("it must end")
            .unwrap();
        for reader in self.readers.drain(..) {
            reader.await.unwrap();
        }
        Ended {
            code: status.code(),
            log: self.log.all(),
            out: self.out.all(),
        }
    }
}

fn addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: Value = serde_json::from_str(line).ok()?;
    if line["message"] != "serving" {
        return None;
    }
    let address = |name: &str| line[name].as_str()?.parse().ok();
    Some((address("address")?, address("admin")?))
}

/// Asks again and again, within [`PATIENCE`].
#[track_caller]
pub(crate) fn eventually(
    what: &str,
    mut holds: impl AsyncFnMut() -> bool,
) -> impl Future<Output = ()> {
    let place = std::panic::Location::caller();
    async move {
        let begun = Instant::now();
        while !holds().await {
            assert!(begun.elapsed() < PATIENCE, "never {what} ({place})");
            tokio::time::sleep(POLL).await;
        }
    }
}

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

/// A page of `/metrics`.
#[derive(Clone, Debug)]
pub(crate) struct Metrics(pub(crate) String);

impl Metrics {
    /// The sum of a family's series, or of those whose labels contain `labels`.
    #[track_caller]
    pub(crate) fn sum(&self, family: &str, labels: &str) -> f64 {
        let mut found = None;
        for line in self.0.lines() {
            let (series, value) = line.rsplit_once(' ').unwrap_or_default();
            let (name, pairs) = series.split_once('{').unwrap_or((series, ""));
            if name == family && pairs.contains(labels) {
                *found.get_or_insert(0.0) += value.parse::<f64>().unwrap();
            }
        }
        found.unwrap_or_else(|| panic!("no {family} with {labels}"))
    }
}
