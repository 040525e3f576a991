//! Balances, remembered in Redis.
//!
//! Owns: every word spoken to Redis, and the decision whether a cached balance
//! may be answered.
//! Never: decides a transfer, keeps a balance in this process, makes a committer
//! wait, or fails a read: whatever is wrong with Redis costs a read of the
//! database and nothing else.
//! Bound: a caller spends at most four operation timeouts here (two for the
//! read, two for the fill), and nothing while the breaker is open; the floor
//! holds `floor_accounts_max` versions (17 bytes each in tables at most half
//! empty: 27 MiB at the default), recent reads `read_accounts_max` ids.
//! Invariant (promise 6): a balance answered from Redis is never older than a
//! transfer this engine acknowledged before the question, and never superseded
//! for longer than `ttl`. The argument stands in `floor` and `entry`; no
//! protection is claimed against someone who forges entries with newer versions.
//!
//! Rooms: `entry` (the text), `floor` (what may be believed), `breaker` (whether
//! to ask), `store` (Redis), `gate` (the breaker around `store`), `reads` and
//! `puts` (callers gathered into batches).

mod breaker;
mod entry;
mod floor;
mod gate;
mod puts;
mod reads;
mod stats;
mod store;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;

pub use breaker::{BreakerSettings, BreakerState};
pub use stats::CacheStats;

use breaker::Breaker;
use entry::{Entry, Lifetime, Writer};
use floor::{Floor, Limits, Loss, Origin, Verdict};
use gate::Gate;
use puts::{Put, Puts};
use reads::Reads;
use stats::Stats;
use store::{Keyspace, Store};

use crate::clock::Clock;
use crate::domain::{AccountId, Balance, DatabaseIdentity};

/// Settings of this room.
#[derive(Clone)]
pub struct Settings {
    /// `redis://[user:password@]host:port[/db]`; none: no cache. A secret.
    pub url: Option<String>,
    /// How long a cached balance may be answered; across engines, the bound of
    /// staleness. Default 60 s.
    pub ttl: Duration,
    /// One operation of Redis. Default 50 ms: a read of the database takes 1 ms.
    pub timeout: Duration,
    /// One connection attempt. Default 1 s; nobody waits for it.
    pub connect_timeout: Duration,
    /// Callers waiting for one batch; also fills. Default 1,024, the most that
    /// one MGET is allowed to be.
    pub waiting_max: usize,
    /// Committed versions remembered for two ttl. Default 1,048,576; past it the
    /// oldest are forgotten early, which costs reads of the database.
    pub floor_accounts_max: usize,
    /// Accounts remembered as recently read, whose commits are put to Redis.
    /// Default 65,536; others are refreshed by expiry.
    pub read_accounts_max: usize,
    /// Accounts whose committed balance waits to be put. Default 16,384.
    pub write_behind_max: usize,
    /// When to stop asking Redis.
    pub breaker: BreakerSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: None,
            ttl: Duration::from_secs(60),
            timeout: Duration::from_millis(50),
            connect_timeout: Duration::from_secs(1),
            waiting_max: 1_024,
            floor_accounts_max: 1_048_576,
            read_accounts_max: 65_536,
            write_behind_max: 16_384,
            breaker: BreakerSettings::default(),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Settings")
            .field("url", &self.url.as_ref().map(|_| "(secret)"))
            .field("ttl", &self.ttl)
            .field("timeout", &self.timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("waiting_max", &self.waiting_max)
            .field("floor_accounts_max", &self.floor_accounts_max)
            .field("read_accounts_max", &self.read_accounts_max)
            .field("write_behind_max", &self.write_behind_max)
            .field("breaker", &self.breaker)
            .finish()
    }
}

/// Settings that cannot work. Nothing was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheError {
    /// The URL is not one of Redis; it is not repeated here, it holds a secret.
    InvalidUrl,
}

impl fmt::Display for CacheError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidUrl => formatter.write_str(
                "the Redis URL is not of the form redis://[user:password@]host:port[/db]",
            ),
        }
    }
}

impl std::error::Error for CacheError {}

/// Where the truth is: the primary database whose identity was last announced
/// with [`Balances::identity_changed`], and nothing behind it (no standby).
pub trait BalanceSource {
    /// Why it could not be read.
    type Error;

    /// The committed balance; `None` if there is no such account.
    fn balance(
        &self,
        account_id: AccountId,
    ) -> impl Future<Output = Result<Option<Balance>, Self::Error>> + Send;
}

/// How a balance is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadMode {
    /// From the cache if it may be; otherwise from the source, filling the cache.
    Cached,
    /// From the source; the cache is neither read nor filled.
    Consistent,
}

/// A balance and where it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BalanceAnswer {
    /// What the account holds.
    pub balance: Balance,
    /// Whether Redis said so.
    pub cached: bool,
}

/// A task of the room: its name, and what is to be spawned under it.
pub type Task = (&'static str, Pin<Box<dyn Future<Output = ()> + Send>>);

/// The cache's face. Cheap to clone; all clones are one cache.
#[derive(Clone, Debug)]
pub struct Balances {
    stats: Arc<Stats>,
    /// None without a Redis URL.
    cache: Option<Arc<Cache>>,
}

impl Balances {
    /// `instance` must differ between engine processes (take it from the
    /// operating system). Until its tasks run, every read goes to the source.
    ///
    /// # Errors
    /// [`CacheError`] if the URL cannot be used. A Redis that is away is no error.
    pub fn new(settings: &Settings, clock: Clock, instance: u64) -> Result<Self, CacheError> {
        let stats = Arc::new(Stats::new());
        let cache = match &settings.url {
            None => None,
            Some(url) => {
                let store = Store::new(url, settings.timeout, settings.connect_timeout);
                // The error's text may repeat the URL.
                let store = store.map_err(|_secret| CacheError::InvalidUrl)?;
                let cache = Cache::new(settings, store, clock, instance, Arc::clone(&stats));
                Some(Arc::new(cache))
            }
        };
        Ok(Self { stats, cache })
    }

    /// What is to be spawned, each under its name; they end after [`Self::close`].
    /// To be called once.
    #[must_use]
    pub fn tasks(&self) -> Vec<Task> {
        let Some(cache) = &self.cache else {
            return Vec::new();
        };
        let (keeper, reads, puts) = (Arc::clone(cache), Arc::clone(cache), Arc::clone(cache));
        vec![
            (
                "cache-keeper",
                Box::pin(async move { keeper.gate.keep().await }),
            ),
            (
                "cache-reads",
                Box::pin(async move { reads.reads.serve(&reads.gate, || reads.keyspace()).await }),
            ),
            (
                "cache-puts",
                Box::pin(async move { puts.puts.serve(&puts.gate, || puts.keyspace()).await }),
            ),
        ]
    }

    /// Ends the tasks; reads go to the source from then on.
    pub fn close(&self) {
        if let Some(cache) = &self.cache {
            cache.gate.close();
        }
    }

    /// Announces the database that connections lead to now; says nothing new
    /// when repeated. To be called at the start and at each reconnect, before the
    /// connection is used, and after pooled connections to another one were dropped.
    ///
    /// Keys change with it, so entries of another history are never met. Nothing
    /// is read from nor put to the cache for one ttl after a change.
    pub fn identity_changed(&self, identity: DatabaseIdentity) {
        if let Some(cache) = &self.cache {
            cache.identity_changed(identity);
        }
    }

    /// Says what a COMMIT left: one balance per account, its newest. To be called
    /// after COMMIT returned and before anyone is told.
    ///
    /// `identity` is that of the connection that committed, `as_of_unix_ms` a time
    /// not after COMMIT was sent (when the batch was folded will do).
    pub fn committed(
        &self,
        identity: DatabaseIdentity,
        as_of_unix_ms: u64,
        balances: impl IntoIterator<Item = Balance>,
    ) {
        if let Some(cache) = &self.cache {
            cache.committed(identity, as_of_unix_ms, balances);
        }
    }

    /// The account's balance; `None` if there is no such account.
    ///
    /// # Errors
    /// The source's; the cache has none.
    pub async fn get<S: BalanceSource>(
        &self,
        source: &S,
        account_id: AccountId,
        mode: ReadMode,
    ) -> Result<Option<BalanceAnswer>, S::Error> {
        let put_under = match (mode, &self.cache) {
            (ReadMode::Cached, Some(cache)) => match cache.look_up(account_id).await {
                LookUp::Found(balance) => {
                    return Ok(Some(BalanceAnswer {
                        balance,
                        cached: true,
                    }));
                }
                LookUp::Absent(origin) => origin.map(|origin| (cache, origin)),
            },
            (ReadMode::Consistent, _) | (ReadMode::Cached, None) => None,
        };
        let Some((cache, origin)) = put_under else {
            return Ok(source.balance(account_id).await?.map(uncached));
        };
        // Before the read: from this moment on nobody can have known better.
        let as_of_unix_ms = cache.clock.unix_ms();
        let Some(balance) = source.balance(account_id).await? else {
            return Ok(None);
        };
        // Before the answer, so that the caller's next read finds it.
        let put = cache.put(balance, as_of_unix_ms, origin);
        cache.puts.fill(put).await;
        Ok(Some(uncached(balance)))
    }

    /// Counters and the breaker's state.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        self.stats.snapshot()
    }

    /// The breaker's state as it changes; `Open` for ever without a Redis URL.
    #[must_use]
    pub fn breaker(&self) -> watch::Receiver<BreakerState> {
        self.stats.watch()
    }

    /// Whether a Redis is configured at all.
    #[must_use]
    pub const fn is_configured(&self) -> bool {
        self.cache.is_some()
    }
}

const fn uncached(balance: Balance) -> BalanceAnswer {
    BalanceAnswer {
        balance,
        cached: false,
    }
}

/// 64 shards: of two committers and a few readers at work, two meet in one shard
/// about once in thirty times, for some 50 ns.
const SHARDS_LOG2: u32 = 6;

#[derive(Debug)]
struct Cache {
    clock: Clock,
    instance: u64,
    lifetime: Lifetime,
    stats: Arc<Stats>,
    gate: Gate,
    reads: Reads,
    puts: Puts,
    /// Written when the database changes, read once per batch and commit.
    keyspace: RwLock<Option<Arc<Keyspace>>>,
    /// By account id; each locked for one look or one change.
    floors: Box<[Mutex<Floor>]>,
}

enum LookUp {
    Found(Balance),
    /// Not there or not to be believed; under what the truth may be put.
    Absent(Option<Origin>),
}

impl Cache {
    fn new(
        settings: &Settings,
        store: Store,
        clock: Clock,
        instance: u64,
        stats: Arc<Stats>,
    ) -> Self {
        let now = clock.now();
        let lifetime = Lifetime::new(settings.ttl);
        let limits = Limits {
            ttl: settings.ttl,
            accounts_max: settings.floor_accounts_max >> SHARDS_LOG2,
            reads_max: settings.read_accounts_max >> SHARDS_LOG2,
        };
        Self {
            gate: Gate::new(
                store,
                clock.clone(),
                Arc::clone(&stats),
                Breaker::new(settings.breaker, now),
            ),
            reads: Reads::new(settings.waiting_max),
            puts: Puts::new(
                settings.waiting_max,
                settings.write_behind_max,
                lifetime.ttl_ms(),
                Arc::clone(&stats),
            ),
            keyspace: RwLock::new(None),
            floors: (0..1_u32 << SHARDS_LOG2)
                .map(|_| Mutex::new(Floor::new(limits, now)))
                .collect(),
            clock,
            instance,
            lifetime,
            stats,
        }
    }

    async fn look_up(&self, account_id: AccountId) -> LookUp {
        if self.stats.state() != BreakerState::Closed {
            self.stats.bypasses.one();
            return LookUp::Absent(None);
        }
        let Ok(text) = self.reads.read(account_id).await else {
            self.stats.bypasses.one();
            return LookUp::Absent(None);
        };
        let entry = text.map(|text| Entry::read(&text, account_id));
        let now = self.clock.now();
        let (verdict, origin) = {
            let mut floor = self.floor(account_id);
            floor.note_read(account_id, now);
            let verdict = entry.flatten().map(|entry| {
                let own = entry.writer.instance == self.instance;
                let epoch = own.then_some(entry.writer.epoch);
                (
                    floor.judge(account_id, entry.balance.version, epoch, now),
                    entry,
                )
            });
            (verdict, floor.origin(now))
        };
        let missed = match verdict {
            None if entry.is_some() => &self.stats.unreadable_misses,
            None => &self.stats.misses,
            Some((Verdict::BelowFloor, _)) => &self.stats.floor_misses,
            Some((Verdict::Untrusted, _)) => &self.stats.untrusted_misses,
            // The clock is read after the floor: see there.
            Some((Verdict::Believed, entry))
                if self
                    .lifetime
                    .allows(entry.as_of_unix_ms, self.clock.unix_ms()) =>
            {
                self.stats.hits.one();
                return LookUp::Found(entry.balance);
            }
            Some((Verdict::Believed, _)) => &self.stats.expired_misses,
        };
        missed.one();
        LookUp::Absent(origin)
    }

    fn committed(
        &self,
        identity: DatabaseIdentity,
        as_of_unix_ms: u64,
        balances: impl IntoIterator<Item = Balance>,
    ) {
        let now = self.clock.now();
        let redis_answers = self.stats.state() == BreakerState::Closed;
        let history = self
            .keyspace()
            .filter(|keyspace| keyspace.identity == identity)
            .map(|keyspace| keyspace.history);
        let mut waiting = false;
        for balance in balances {
            let id = balance.account_id;
            // Whatever the history: a floor too high only costs a read.
            let raised = self.floor(id).raise(id, balance.version, now);
            if raised.lost {
                self.stats.floor_losses.one();
            }
            let Some(origin) = raised.put else { continue };
            if redis_answers && history == Some(origin.history) {
                self.puts.behind(self.put(balance, as_of_unix_ms, origin));
                waiting = true;
            } else {
                self.stats.write_behind_dropped.one();
            }
        }
        if waiting {
            self.puts.flush();
        }
    }

    fn identity_changed(&self, identity: DatabaseIdentity) {
        let mut keyspace = self
            .keyspace
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let (loss, history) = match keyspace.as_ref() {
            Some(known) if known.identity == identity => return,
            Some(known) => (Loss::OtherDatabase, known.history + 1),
            // The start: there was no other connection that could be read.
            None => (Loss::Forgotten, 1),
        };
        // The floors first: an entry found under the old keys is then judged by
        // a floor that believes nobody.
        let now = self.clock.now();
        for floor in &self.floors {
            lock(floor).lose(loss, history, now);
        }
        *keyspace = Some(Arc::new(Keyspace::new(identity, history)));
    }

    const fn put(&self, balance: Balance, as_of_unix_ms: u64, origin: Origin) -> Put {
        Put {
            entry: Entry {
                balance,
                as_of_unix_ms,
                writer: Writer {
                    instance: self.instance,
                    epoch: origin.epoch,
                },
            },
            history: origin.history,
        }
    }

    fn keyspace(&self) -> Option<Arc<Keyspace>> {
        self.keyspace
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn floor(&self, id: AccountId) -> MutexGuard<'_, Floor> {
        // Ids often follow one another; Fibonacci hashing spreads them.
        let hash = id.get().unsigned_abs().wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let index = usize::try_from(hash >> (u64::BITS - SHARDS_LOG2)).unwrap_or(0);
        lock(&self.floors[index])
    }
}

fn lock(floor: &Mutex<Floor>) -> MutexGuard<'_, Floor> {
    // Only running out of memory panics within, and that ends the process.
    floor.lock().unwrap_or_else(PoisonError::into_inner)
}
