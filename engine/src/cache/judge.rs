//! Whether a cached balance may be answered.
//!
//! Owns: the floors, the keys in use, and the order in which they are asked.
//! Never: reads the database.
//! Bound: that of its parts; one lock at a time, for tens of nanoseconds.
//! Invariant: the floor is asked after Redis has answered, and the wall clock
//! after the floor (why: see `floor`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::breaker::{Breaker, BreakerState};
use super::entry::{Entry, Lifetime, Writer};
use super::floor::{Floor, Limits, Loss, Origin, Verdict};
use super::gate::Gate;
use super::puts::{Put, Puts};
use super::reads::Reads;
use super::settings::Settings;
use super::stats::Stats;
use super::store::{Keyspace, Store};
use crate::clock::Clock;
use crate::domain::{AccountId, Balance, DatabaseIdentity};

/// 64 shards: of two committers and a few readers at work, two meet in one shard
/// about once in thirty times, for some 50 ns.
const SHARDS_LOG2: u32 = 6;

#[derive(Debug)]
pub(super) struct Cache {
    pub(super) clock: Clock,
    instance: u64,
    lifetime: Lifetime,
    stats: Arc<Stats>,
    pub(super) gate: Gate,
    pub(super) reads: Reads,
    pub(super) puts: Puts,
    /// Written when the database changes, read once per batch and commit.
    keyspace: RwLock<Option<Arc<Keyspace>>>,
    /// By account id; each locked for one look or one change.
    floors: Box<[Mutex<Floor>]>,
}

/// What the cache says of an account.
pub(super) enum LookUp {
    /// May be answered.
    Found(Balance),
    /// Not there or not to be believed; under what the truth may be put.
    Absent(Option<Origin>),
}

impl Cache {
    pub(super) fn new(
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

    pub(super) async fn look_up(&self, account_id: AccountId) -> LookUp {
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
                let version = entry.balance.version;
                let verdict = floor.judge(account_id, version, epoch, now);
                if verdict == Verdict::Believed {
                    floor.saw(account_id, version, now);
                }
                (verdict, entry)
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

    /// A balance read from the database is about to be answered.
    pub(super) fn saw(&self, balance: &Balance) {
        let now = self.clock.now();
        self.floor(balance.account_id)
            .saw(balance.account_id, balance.version, now);
    }

    pub(super) fn committed(
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

    pub(super) fn identity_changed(&self, identity: DatabaseIdentity) {
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

    pub(super) const fn put(&self, balance: Balance, as_of_unix_ms: u64, origin: Origin) -> Put {
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

    pub(super) fn keyspace(&self) -> Option<Arc<Keyspace>> {
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
