//! The real binary as a child process.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::TestDatabase;
pub(crate) use super::client::{Broken, Reply, Request, Wire, call};

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
    engine_command_of(Command::new(ENGINE))
}

fn engine_command_of(mut command: Command) -> Command {
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
        Self::run(serve_command(database_url, arguments)).await
    }

    /// Ready, with that variable in its environment.
    pub(crate) async fn start_with_variable(
        database_url: &str,
        (name, value): (&str, &Path),
        arguments: &[&str],
    ) -> Self {
        let mut command = serve_command(database_url, arguments);
        command.env(name, value);
        let daemon = Self::run(command).await;
        daemon.until_ready().await;
        daemon
    }

    /// As [`Self::spawn`], allowed so many open files.
    pub(crate) async fn spawn_with_files(
        database_url: &str,
        files: u32,
        arguments: &[&str],
    ) -> Self {
        let served = serve_command(database_url, arguments);
        let mut command = engine_command_of(Command::new("sh"));
        let limit = format!("ulimit -n {files}; exec \"$0\" \"$@\"");
        command.arg("-c").arg(limit).arg(ENGINE);
        command.args(served.as_std().get_args());
        Self::run(command).await
    }

    async fn run(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
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

    pub(crate) fn pid(&self) -> Pid {
        let id = self.child.id().expect("it still runs");
        Pid::from_raw(i32::try_from(id).unwrap()).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
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
