//! The balance cache against a real Redis: it may be slow, gone, wiped, wrong or
//! old, and still no answer is.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

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

#[tokio::test]
async fn the_first_read_fills_so_that_the_second_is_cached() {
    let engine = Engine::start(&settings(&shared_url()), random_identity()).await;
    let ledger = Ledger::with(&[(1, 7)]);
    assert_eq!(engine.get(&ledger, 1).await, (7, false));
    assert_eq!(engine.get(&ledger, 1).await, (7, true));
    assert_eq!(ledger.reads(), 1);
    let none = engine.balances.get(&ledger, id(2), ReadMode::Cached).await;
    assert_eq!(none, Ok(None));
    let stats = engine.balances.stats();
    assert_eq!((stats.hits, stats.misses, stats.puts), (1, 2, 1));
}

#[tokio::test]
async fn a_consistent_read_neither_reads_nor_fills() {
    let identity = random_identity();
    let url = shared_url();
    let engine = Engine::start(&settings(&url), identity).await;
    let mut redis = connect(&url).await;
    let ledger = Ledger::with(&[(1, 7)]);
    let answer = engine
        .balances
        .get(&ledger, id(1), ReadMode::Consistent)
        .await;
    assert!(!answer.unwrap().unwrap().cached);
    assert_eq!(stored_version(&mut redis, &key(identity, 1)).await, None);
    engine.get(&ledger, 1).await;
    let answer = engine
        .balances
        .get(&ledger, id(1), ReadMode::Consistent)
        .await;
    assert!(!answer.unwrap().unwrap().cached);
    assert_eq!(ledger.reads(), 3);
}

#[tokio::test]
async fn an_older_version_neither_replaces_a_newer_nor_prolongs_its_life() {
    let identity = random_identity();
    let url = shared_url();
    let mut redis = connect(&url).await;
    let key = key(identity, 1);
    let ahead = Engine::start(&settings(&url), identity).await;
    ahead.get(&Ledger::with(&[(1, 10)]), 1).await;
    let remaining: i64 = redis.pttl(&key).await.unwrap();
    assert!(0 < remaining && remaining <= i64::try_from(TTL_MS).unwrap());
    let shortened: bool = redis.pexpire(&key, 30_000).await.unwrap();
    assert!(shortened);
    // Read before the commit, put after it. 9 is a longer way from 10 by text.
    let behind = Engine::start(&settings(&url), identity).await;
    behind.pass(5);
    assert_eq!(behind.get(&Ledger::with(&[(1, 9)]), 1).await, (9, false));
    let stats = behind.balances.stats();
    assert_eq!((stats.puts, stats.stale_puts_refused), (0, 1));
    assert_eq!(stored_version(&mut redis, &key).await, Some(10));
    let remaining: i64 = redis.pttl(&key).await.unwrap();
    assert!(remaining <= 30_000, "{remaining}");
    // Beyond what a double counts exactly.
    for (version, stored) in [
        (9_007_199_254_740_993, 9_007_199_254_740_993),
        (9_007_199_254_740_992, 9_007_199_254_740_993),
    ] {
        // This source's balance is not version * 10 - 5: that would overflow.
        let mut planted = balance(1, 1);
        planted.version = version;
        let ledger = Ledger::default();
        ledger.set(planted);
        let other = Engine::start(&settings(&url), identity).await;
        other
            .balances
            .get(&ledger, id(1), ReadMode::Cached)
            .await
            .unwrap();
        assert_eq!(stored_version(&mut redis, &key).await, Some(stored));
    }
}

#[tokio::test]
async fn an_entry_is_answered_for_the_ttl_even_if_redis_keeps_it_for_ever() {
    let identity = random_identity();
    let url = shared_url();
    let engine = Engine::start(&settings(&url), identity).await;
    let mut redis = connect(&url).await;
    let ledger = Ledger::with(&[(1, 7)]);
    engine.get(&ledger, 1).await;
    let kept: bool = redis.persist(key(identity, 1)).await.unwrap();
    assert!(kept);
    // A second less than the ttl: what engines' clocks may differ by.
    engine.pass(TTL_MS - 1_001);
    assert_eq!(engine.get(&ledger, 1).await, (7, true));
    engine.pass(1);
    assert_eq!(engine.get(&ledger, 1).await, (7, false));
    assert_eq!(engine.balances.stats().expired_misses, 1);
    assert_eq!(engine.get(&ledger, 1).await, (7, true));
    let remaining: i64 = redis.pttl(key(identity, 1)).await.unwrap();
    assert!(0 < remaining, "read again at the same version: a new life");
}

#[tokio::test]
async fn what_is_not_an_entry_of_the_account_is_replaced() {
    let identity = random_identity();
    let url = shared_url();
    let engine = Engine::start(&settings(&url), identity).await;
    let mut redis = connect(&url).await;
    let ledger = Ledger::with(&[(1, 7), (2, 8)]);
    engine.get(&ledger, 2).await;
    let other_account: String = redis.get(key(identity, 2)).await.unwrap();
    let key = key(identity, 1);
    let texts = [
        "",
        "OK",
        "99999999999999999999 1 1 1 840 2 USD 1 1",
        "9223372036854775807 1 1 1 840 2 USD 1",
        &other_account,
    ];
    for text in texts {
        let _: Value = redis.set(&key, text).await.unwrap();
        assert_eq!(engine.get(&ledger, 1).await, (7, false), "{text}");
        assert_eq!(engine.get(&ledger, 1).await, (7, true), "{text}");
    }
    let _: Value = redis.del(&key).await.unwrap();
    let _: Value = redis.lpush(&key, 1).await.unwrap();
    assert_eq!(engine.get(&ledger, 1).await, (7, false));
    assert_eq!(engine.get(&ledger, 1).await, (7, true));
}

#[tokio::test]
async fn commits_to_recently_read_accounts_reach_other_engines() {
    let identity = random_identity();
    let url = shared_url();
    let mut redis = connect(&url).await;
    let engine = Engine::start(&settings(&url), identity).await;
    let ledger = Ledger::with(&[(1, 1), (2, 1)]);
    engine.get(&ledger, 1).await;
    engine.commit(&ledger, 2, 2);
    engine.commit(&ledger, 1, 2);
    until_stored(&mut redis, &key(identity, 1), 2).await;
    assert_eq!(engine.get(&ledger, 1).await, (2, true));
    // An account that nobody reads costs Redis nothing.
    assert_eq!(stored_version(&mut redis, &key(identity, 2)).await, None);
}

#[tokio::test]
async fn a_new_engine_believes_only_what_it_stored_itself() {
    let identity = random_identity();
    let url = shared_url();
    let before = Engine::start(&settings(&url), identity).await;
    let ledger = Ledger::with(&[(1, 1)]);
    before.get(&ledger, 1).await;
    // Its last commit never reached Redis: it was killed.
    ledger.set(balance(1, 2));
    let after = Engine::start(&settings(&url), identity).await;
    assert_eq!(after.get(&ledger, 1).await, (2, false));
    assert_eq!(after.balances.stats().untrusted_misses, 1);
    assert_eq!(after.get(&ledger, 1).await, (2, true));
}

#[tokio::test]
async fn an_old_snapshot_of_redis_shows_no_old_balance() {
    let identity = random_identity();
    let url = shared_url();
    let mut redis = connect(&url).await;
    let engine = Engine::start(&settings(&url), identity).await;
    let ledger = Ledger::with(&[(1, 1)]);
    engine.get(&ledger, 1).await;
    let old: String = redis.get(key(identity, 1)).await.unwrap();
    engine.commit(&ledger, 1, 2);
    until_stored(&mut redis, &key(identity, 1), 2).await;
    let _: Value = redis.set(key(identity, 1), &old).await.unwrap();
    assert_eq!(engine.get(&ledger, 1).await, (2, false));
    assert_eq!(engine.balances.stats().floor_misses, 1);
    assert_eq!(engine.get(&ledger, 1).await, (2, true));
}

#[tokio::test]
async fn an_old_entry_is_not_believed_after_the_floor_forgot_its_account() {
    let identity = random_identity();
    let url = shared_url();
    let mut redis = connect(&url).await;
    let settings = Settings {
        floor_accounts_max: 0,
        ..settings(&url)
    };
    let engine = Engine::start(&settings, identity).await;
    let ledger = Ledger::with(&[(1, 1)]);
    engine.get(&ledger, 1).await;
    let old: String = redis.get(key(identity, 1)).await.unwrap();
    engine.commit(&ledger, 1, 2);
    until_stored(&mut redis, &key(identity, 1), 2).await;
    engine.pass(1);
    // One version per generation and shard is kept even so; pass it everywhere.
    for account in 2..2_000 {
        engine.commit(&ledger, account, 1);
    }
    assert!(64 < engine.balances.stats().floor_losses);
    let _: Value = redis.set(key(identity, 1), &old).await.unwrap();
    assert_eq!(engine.get(&ledger, 1).await, (2, false));
    assert_eq!(engine.balances.stats().untrusted_misses, 1);
    assert_eq!(engine.get(&ledger, 1).await, (2, true));
}

/// Writers commit, an adversary puts old entries back, readers check that what
/// was acknowledged before they asked is what they see, or newer.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_is_older_than_what_was_acknowledged_before_it() {
    const ACCOUNTS: i64 = 4;
    const COMMITS: i64 = 3_000;
    let identity = random_identity();
    let url = shared_url();
    let engine = Arc::new(Engine::start(&settings(&url), identity).await);
    let ledger = Arc::new(Ledger::default());
    let acknowledged: Arc<Vec<AtomicI64>> =
        Arc::new((0..ACCOUNTS).map(|_| AtomicI64::new(0)).collect());
    for account in 0..ACCOUNTS {
        ledger.set(balance(account, 0));
    }
    let mut work = JoinSet::new();
    for account in 0..ACCOUNTS {
        let index = usize::try_from(account).unwrap();
        let (engine, ledger) = (Arc::clone(&engine), Arc::clone(&ledger));
        let acknowledged = Arc::clone(&acknowledged);
        work.spawn(async move {
            for version in 1..=COMMITS {
                engine.commit(&ledger, account, version);
                acknowledged[index].store(version, Ordering::SeqCst);
                tokio::task::yield_now().await;
            }
        });
    }
    for reader in 0..8_i64 {
        let account = reader % ACCOUNTS;
        let index = usize::try_from(account).unwrap();
        let (engine, ledger) = (Arc::clone(&engine), Arc::clone(&ledger));
        let acknowledged = Arc::clone(&acknowledged);
        work.spawn(async move {
            let mut last = 0;
            while last < COMMITS {
                let least = acknowledged[index].load(Ordering::SeqCst).max(last);
                let (version, _) = engine.get(&ledger, account).await;
                assert!(least <= version, "account {account}: {version} < {least}");
                last = version;
            }
        });
    }
    let mut redis = connect(&url).await;
    let adversary = tokio::spawn(async move {
        let mut kept: HashMap<i64, String> = HashMap::new();
        for account in (0..ACCOUNTS).cycle() {
            let key = key(identity, account);
            let text: Option<String> = redis.get(&key).await.unwrap();
            if let Some(old) = kept.remove(&account) {
                let _: Value = redis.set(&key, old).await.unwrap();
            }
            kept.extend(text.map(|text| (account, text)));
        }
    });
    while let Some(done) = work.join_next().await {
        done.unwrap();
    }
    adversary.abort();
    let stats = engine.balances.stats();
    assert!(stats.hits > 0 && stats.floor_misses > 0, "{stats:?}");
}

#[tokio::test]
async fn a_killed_redis_costs_no_answer_and_is_used_again_when_back() {
    let mut server = Server::start(&[]);
    let engine = Engine::start(&settings(&server.url()), random_identity()).await;
    let ledger = Ledger::with(&[(1, 1)]);
    engine.get(&ledger, 1).await;
    assert_eq!(engine.get(&ledger, 1).await, (1, true));
    server.kill();
    for version in 2..100 {
        engine.commit(&ledger, 1, version);
        assert_eq!(engine.get(&ledger, 1).await, (version, false));
    }
    engine.becomes(BreakerState::Open).await;
    assert!(engine.balances.stats().errors > 0);
    server.restart();
    engine.becomes(BreakerState::Closed).await;
    assert_eq!(engine.get(&ledger, 1).await, (99, false));
    assert_eq!(engine.get(&ledger, 1).await, (99, true));
}

#[tokio::test]
async fn a_stalled_redis_opens_the_breaker_and_recovery_closes_it() {
    let server = Server::start(&[]);
    let settings = Settings {
        timeout: Duration::from_millis(50),
        connect_timeout: Duration::from_millis(50),
        ..settings(&server.url())
    };
    let engine = Engine::start(&settings, random_identity()).await;
    let ledger = Ledger::with(&[(1, 1)]);
    server.signal(Signal::STOP);
    let mut version = 1;
    while engine.balances.stats().breaker == BreakerState::Closed {
        version += 1;
        engine.commit(&ledger, 1, version);
        assert_eq!(engine.get(&ledger, 1).await, (version, false));
    }
    let stats = engine.balances.stats();
    assert!(stats.timeouts >= 3, "{stats:?}");
    // While it is open nobody waits: Redis is not asked at all.
    assert_eq!(engine.get(&ledger, 1).await, (version, false));
    assert!(engine.balances.stats().bypasses > stats.bypasses);
    server.signal(Signal::CONT);
    engine.becomes(BreakerState::Closed).await;
    // What was put on the old connection may arrive late; it shadows nothing.
    assert_eq!(engine.get(&ledger, 1).await.0, version);
    assert_eq!(engine.get(&ledger, 1).await, (version, true));
}

#[tokio::test]
async fn an_idle_engine_notices_that_redis_died() {
    let mut server = Server::start(&[]);
    let engine = Engine::start(&settings(&server.url()), random_identity()).await;
    server.kill();
    engine.becomes(BreakerState::Open).await;
}

#[tokio::test]
async fn a_wiped_redis_is_filled_again() {
    let server = Server::start(&[]);
    let engine = Engine::start(&settings(&server.url()), random_identity()).await;
    let ledger = Ledger::with(&[(1, 1)]);
    engine.get(&ledger, 1).await;
    let mut redis = connect(&server.url()).await;
    let errors = engine.balances.stats().errors;
    let _: Value = redis::cmd("FLUSHALL")
        .query_async(&mut redis)
        .await
        .unwrap();
    // The script is gone as well, as after a restart.
    let _: Value = redis::cmd("SCRIPT")
        .arg("FLUSH")
        .query_async(&mut redis)
        .await
        .unwrap();
    assert_eq!(engine.get(&ledger, 1).await, (1, false));
    assert_eq!(engine.get(&ledger, 1).await, (1, true));
    assert_eq!(engine.balances.stats().errors, errors);
}

#[tokio::test]
async fn a_redis_that_refuses_writes_costs_no_answer() {
    // Full: every write that needs memory is refused.
    let server = Server::start(&["--maxmemory", "1", "--maxmemory-policy", "noeviction"]);
    let engine = Engine::start(&settings(&server.url()), random_identity()).await;
    // A server still starting counts as an error as well.
    let errors = engine.balances.stats().errors;
    let ledger = Ledger::with(&[(1, 1)]);
    assert_eq!(engine.get(&ledger, 1).await, (1, false));
    assert_eq!(engine.get(&ledger, 1).await, (1, false));
    assert_eq!(engine.balances.stats().errors, errors + 2);
    assert_eq!(engine.balances.stats().puts, 0);
}

#[tokio::test]
async fn a_wrong_password_costs_no_answer_and_the_right_one_works() {
    let server = Server::start(&["--requirepass", "right"]);
    let ledger = Ledger::with(&[(1, 1)]);
    let with = |password: &str| settings(&format!("redis://:{password}@127.0.0.1:{}", server.port));
    let right = Engine::start(&with("right"), random_identity()).await;
    let wrong = Engine::begin(&with("wrong"), random_identity());
    wrong.becomes(BreakerState::HalfOpen).await;
    wrong.becomes(BreakerState::Open).await;
    for _ in 0..3 {
        assert_eq!(wrong.get(&ledger, 1).await, (1, false));
    }
    assert!(wrong.balances.stats().errors > 0);
    right.get(&ledger, 1).await;
    assert_eq!(right.get(&ledger, 1).await, (1, true));
}

#[tokio::test]
async fn an_engine_starts_without_redis_and_uses_it_when_it_comes() {
    let mut server = Server::start(&[]);
    server.kill();
    let engine = Engine::begin(&settings(&server.url()), random_identity());
    let ledger = Ledger::with(&[(1, 1)]);
    assert_eq!(engine.get(&ledger, 1).await, (1, false));
    server.restart();
    engine.becomes(BreakerState::Closed).await;
    engine.get(&ledger, 1).await;
    assert_eq!(engine.get(&ledger, 1).await, (1, true));
}

#[tokio::test]
async fn a_promoted_database_with_a_shorter_history_is_never_shadowed() {
    let old = random_identity();
    let new = DatabaseIdentity { timeline: 2, ..old };
    let url = shared_url();
    let mut redis = connect(&url).await;
    let engine = Engine::start(&settings(&url), old).await;
    let longer = Ledger::with(&[(1, 10)]);
    engine.get(&longer, 1).await;
    assert_eq!(engine.get(&longer, 1).await, (10, true));

    let shorter = Ledger::with(&[(1, 3)]);
    engine.balances.identity_changed(new);
    for _ in 0..3 {
        assert_eq!(engine.get(&shorter, 1).await, (3, false));
    }
    // A committer that has not met the new database yet, and a pooled connection
    // to the old one: neither reaches the new keys.
    engine.balances.committed(old, NOW_MS, [balance(1, 11)]);
    assert_eq!(engine.get(&longer, 1).await, (10, false));
    assert_eq!(stored_version(&mut redis, &key(new, 1)).await, None);
    assert_eq!(stored_version(&mut redis, &key(old, 1)).await, Some(10));
    assert_eq!(engine.get(&shorter, 1).await, (3, false));

    let started_later = Engine::start(&settings(&url), new).await;
    assert_eq!(started_later.get(&shorter, 1).await, (3, false));
    assert_eq!(started_later.get(&shorter, 1).await, (3, true));
    assert_eq!(engine.get(&shorter, 1).await, (3, false));
}

/// A database that is replaced while a read of it is under way.
struct Replaced<'a> {
    balances: &'a Balances,
    to: DatabaseIdentity,
    ledger: Ledger,
}

impl BalanceSource for Replaced<'_> {
    type Error = std::convert::Infallible;

    async fn balance(&self, account_id: AccountId) -> Result<Option<Balance>, Self::Error> {
        let read = self.ledger.balance(account_id).await;
        self.balances.identity_changed(self.to);
        read
    }
}

#[tokio::test]
async fn a_read_that_began_on_another_database_fills_nothing() {
    let old = random_identity();
    let new = DatabaseIdentity { timeline: 2, ..old };
    let url = shared_url();
    let mut redis = connect(&url).await;
    let engine = Engine::start(&settings(&url), old).await;
    let source = Replaced {
        balances: &engine.balances,
        to: new,
        ledger: Ledger::with(&[(1, 10)]),
    };
    let answer = engine.balances.get(&source, id(1), ReadMode::Cached).await;
    assert_eq!(answer.unwrap().unwrap().balance.version, 10);
    assert_eq!(engine.balances.stats().fills_dropped, 1);
    assert_eq!(stored_version(&mut redis, &key(old, 1)).await, None);
    assert_eq!(stored_version(&mut redis, &key(new, 1)).await, None);
}

#[tokio::test]
async fn past_the_bound_of_waiting_reads_the_database_is_asked() {
    let ledger = Ledger::with(&[(1, 1)]);
    for (waiting_max, cached) in [(1, true), (0, false)] {
        let settings = Settings {
            waiting_max,
            ..settings(&shared_url())
        };
        let engine = Engine::start(&settings, random_identity()).await;
        engine.get(&ledger, 1).await;
        assert_eq!(engine.get(&ledger, 1).await, (1, cached));
    }
}

#[tokio::test]
async fn without_a_redis_every_read_is_of_the_database() {
    let engine = Engine::begin(&Settings::default(), random_identity());
    let ledger = Ledger::with(&[(1, 1)]);
    engine.commit(&ledger, 1, 2);
    assert!(!engine.balances.is_configured());
    assert!(engine.tasks.is_empty());
    for _ in 0..2 {
        assert_eq!(engine.get(&ledger, 1).await, (2, false));
    }
}

#[tokio::test]
async fn closing_ends_the_tasks_and_reads_go_on() {
    let mut engine = Engine::start(&settings(&shared_url()), random_identity()).await;
    let ledger = Ledger::with(&[(1, 1)]);
    engine.get(&ledger, 1).await;
    engine.balances.close();
    while let Some(ended) = engine.tasks.join_next().await {
        ended.unwrap();
    }
    engine.commit(&ledger, 1, 2);
    assert_eq!(engine.get(&ledger, 1).await, (2, false));
}

#[test]
fn a_url_that_cannot_be_used_is_refused_without_repeating_it() {
    let settings = settings("http://:hunter2@example.com");
    let error = Balances::new(&settings, Clock::System, 1).unwrap_err();
    assert_eq!(error, CacheError::InvalidUrl);
    assert!(!format!("{error} {error:?} {settings:?}").contains("hunter2"));
}
