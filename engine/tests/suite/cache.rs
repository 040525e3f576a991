//! The balance cache against a real Redis: it may be slow, gone, wiped, wrong or
//! old, and still no answer is.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod faults;
mod history;

use std::collections::HashMap;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::cache::{
    BalanceAnswer, BalanceSource, Balances, BreakerSettings, BreakerState, CacheError, ReadMode,
    Settings,
};
use engine::clock::Clock;
use engine::domain::{AccountId, Balance, Currency, CurrencyCode, CurrencyId, DatabaseIdentity};
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, Client, Value};
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinSet;

const TTL_MS: u64 = 60_000;
const NOW_MS: u64 = 1_800_000_000_000;

/// The database, as far as the cache knows it.
#[derive(Debug, Default)]
struct Ledger {
    balances: Mutex<HashMap<AccountId, Balance>>,
    reads: AtomicU64,
}

impl Ledger {
    fn with(versions: &[(i64, i64)]) -> Self {
        let ledger = Self::default();
        for (account, version) in versions {
            ledger.set(balance(*account, *version));
        }
        ledger
    }

    fn set(&self, balance: Balance) {
        let mut balances = self.balances.lock().unwrap();
        balances.insert(balance.account_id, balance);
    }

    fn reads(&self) -> u64 {
        self.reads.load(Ordering::SeqCst)
    }
}

impl BalanceSource for Ledger {
    type Error = std::convert::Infallible;

    async fn balance(&self, account_id: AccountId) -> Result<Option<Balance>, Self::Error> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        Ok(self.balances.lock().unwrap().get(&account_id).copied())
    }
}

fn id(account: i64) -> AccountId {
    AccountId::new(account).unwrap()
}

/// Each version has a balance of its own, so that a mixed-up pair shows.
fn balance(account: i64, version: i64) -> Balance {
    Balance {
        account_id: id(account),
        balance: version * 10 - 5,
        version,
        currency: Currency {
            id: CurrencyId(840),
            code: CurrencyCode::parse("USD").unwrap(),
            digits: 2,
        },
    }
}

fn random() -> u64 {
    getrandom::u64().unwrap()
}

/// Nobody else's keys.
fn random_identity() -> DatabaseIdentity {
    DatabaseIdentity {
        system_identifier: random(),
        timeline: 1,
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the suite's servers are named so"
)]
fn shared_url() -> String {
    std::env::var("ENGINE_TEST_REDIS_URL").expect("ENGINE_TEST_REDIS_URL")
}

/// A Redis of this test's own, stopped with it.
struct Server {
    child: Child,
    port: u16,
    arguments: Vec<String>,
    directory: tempfile::TempDir,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let directory = tempfile::tempdir().unwrap();
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let child = Self::spawn(port, &arguments, &directory);
        Self {
            child,
            port,
            arguments,
            directory,
        }
    }

    fn spawn(port: u16, arguments: &[String], directory: &tempfile::TempDir) -> Child {
        Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(directory.path())
            .args(arguments)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed")
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn restart(&mut self) {
        self.child = Self::spawn(self.port, &self.arguments, &self.directory);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// One engine's cache, with its tasks running.
struct Engine {
    balances: Balances,
    tasks: JoinSet<()>,
    unix_ms: Arc<AtomicU64>,
    identity: DatabaseIdentity,
}

impl Engine {
    /// Waits until Redis is in use.
    async fn start(settings: &Settings, identity: DatabaseIdentity) -> Self {
        let engine = Self::begin(settings, identity);
        engine.becomes(BreakerState::Closed).await;
        engine
    }

    fn begin(settings: &Settings, identity: DatabaseIdentity) -> Self {
        let unix_ms = Arc::new(AtomicU64::new(NOW_MS));
        let clock = Clock::Manual(Arc::clone(&unix_ms));
        let balances = Balances::new(settings, clock, random()).unwrap();
        balances.identity_changed(identity);
        let mut tasks = JoinSet::new();
        for (_, task) in balances.tasks() {
            tasks.spawn(task);
        }
        Self {
            balances,
            tasks,
            unix_ms,
            identity,
        }
    }

    async fn becomes(&self, state: BreakerState) {
        let mut breaker = self.balances.breaker();
        let reached = breaker.wait_for(|now| *now == state);
        tokio::time::timeout(Duration::from_secs(20), reached)
            .await
            .unwrap_or_else(|_| panic!("never {state:?}: {:?}", self.balances.stats()))
            .unwrap();
    }

    async fn get(&self, source: &Ledger, account: i64) -> (i64, bool) {
        let answer = self.balances.get(source, id(account), ReadMode::Cached);
        let BalanceAnswer {
            balance: read,
            cached,
        } = answer.await.unwrap().expect("the account exists");
        assert_eq!(read, balance(account, read.version));
        (read.version, cached)
    }

    /// The order of a committer: COMMIT, cache, then the caller learns.
    fn commit(&self, ledger: &Ledger, account: i64, version: i64) {
        let as_of = self.unix_ms.load(Ordering::SeqCst);
        ledger.set(balance(account, version));
        self.balances
            .committed(self.identity, as_of, [balance(account, version)]);
    }

    fn pass(&self, ms: u64) {
        self.unix_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

fn settings(url: &str) -> Settings {
    Settings {
        url: Some(url.to_owned()),
        ttl: Duration::from_millis(TTL_MS),
        // Generous: a busy test machine must not look like a stalled Redis.
        timeout: Duration::from_secs(5),
        breaker: BreakerSettings {
            backoff_max: Duration::from_millis(200),
            ..BreakerSettings::default()
        },
        ..Settings::default()
    }
}

async fn connect(url: &str) -> MultiplexedConnection {
    let client = Client::open(url).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

fn key(identity: DatabaseIdentity, account: i64) -> String {
    let DatabaseIdentity {
        system_identifier,
        timeline,
    } = identity;
    format!("engine:{system_identifier}:{timeline}:balance:{account}")
}

async fn stored_version(redis: &mut MultiplexedConnection, key: &str) -> Option<i64> {
    let text: Option<String> = redis.get(key).await.unwrap();
    text.map(|text| text.split(' ').next().unwrap().parse().unwrap())
}

/// Asks again until it holds; the test runner's patience is the limit.
async fn until_stored(redis: &mut MultiplexedConnection, key: &str, version: i64) {
    let seen = async {
        while stored_version(redis, key).await != Some(version) {
            tokio::task::yield_now().await;
        }
    };
    let patience = Duration::from_secs(20);
    assert!(
        tokio::time::timeout(patience, seen).await.is_ok(),
        "{key} never had version {version}"
    );
}

/// As [`connect`], to a server that may still be starting.
async fn connect_patiently(url: &str) -> MultiplexedConnection {
    let client = Client::open(url).unwrap();
    let patience = Duration::from_secs(20);
    let connected = async {
        loop {
            match client.get_multiplexed_async_connection().await {
                Ok(connection) => return connection,
                Err(_refused) => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(patience, connected)
        .await
        .expect("the server starts")
}
