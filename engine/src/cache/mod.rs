//! Balances, remembered in Redis.
//!
//! Owns: every word spoken to Redis, and the decision whether a cached balance
//! may be answered.
//! Never: decides a transfer, keeps a balance in this process, makes a committer
//! wait, or fails a read: whatever is wrong with Redis costs a read of the
//! database and nothing else.
//! Bound: a caller spends at most four operation timeouts here (two for the
//! read, two for the fill), and nothing while the breaker is open; the floor
//! holds `floor_accounts_max` versions (17 bytes each in tables two thirds full:
//! 27 MiB at the default), recent reads `read_accounts_max` ids (1 MiB).
//! Invariant (promise 6): a balance answered from Redis is never older than a
//! transfer this engine acknowledged before the question, and never superseded
//! for longer than `ttl`; nor older than one this engine answered lately, as far
//! as the floor has room. The argument stands in `floor` and `entry`; no
//! protection is claimed against someone who forges entries with newer versions.
//!
//! Rooms: `entry` (the text), `floor` (what may be believed), `breaker` (whether
//! to ask), `store` (Redis), `gate` (the breaker around `store`), `reads` and
//! `puts` (callers gathered into batches), `judge` (all of them for one account).

mod breaker;
mod entry;
mod floor;
mod gate;
mod judge;
mod puts;
mod reads;
mod settings;
mod stats;
mod store;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;

pub use breaker::{BreakerSettings, BreakerState};
pub use settings::{CacheError, Settings};
pub use stats::CacheStats;

use judge::{Cache, LookUp};
use stats::Stats;
use store::Store;

use crate::clock::Clock;
use crate::domain::{AccountId, Balance, DatabaseIdentity};

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
    /// [`CacheError`] if the URL or the file of authorities cannot be used. A Redis that is away is no error.
    pub fn new(settings: &Settings, clock: Clock, instance: u64) -> Result<Self, CacheError> {
        let stats = Arc::new(Stats::new());
        let cache = match &settings.url {
            None => None,
            Some(url) => {
                let store = Store::new(url, settings)?;
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
    /// Accounts that the batch locked and left unchanged belong to it as well: a
    /// replayed answer may speak of a transfer that another engine committed, and
    /// must not be followed by an older balance either.
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
        let Some(cache) = &self.cache else {
            return Ok(source.balance(account_id).await?.map(uncached));
        };
        let origin = match mode {
            ReadMode::Cached => match cache.look_up(account_id).await {
                LookUp::Found(balance) => {
                    return Ok(Some(BalanceAnswer {
                        balance,
                        cached: true,
                    }));
                }
                LookUp::Absent(origin) => origin,
            },
            ReadMode::Consistent => None,
        };
        // Before the read: from this moment on nobody can have known better.
        let as_of_unix_ms = cache.clock.unix_ms();
        let Some(balance) = source.balance(account_id).await? else {
            return Ok(None);
        };
        cache.saw(&balance);
        if let Some(origin) = origin {
            // Before the answer, so that the caller's next read finds it.
            let put = cache.put(balance, as_of_unix_ms, origin);
            cache.puts.fill(put).await;
        }
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
