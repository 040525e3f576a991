//! The engines under test: real rooms, put together as `app` does it.
//!
//! Owns: which engine answers at which address (a slot), its clock, its tasks.
//! Invariant: an engine's tasks are one group, so that it crashes and stops as
//! one process does.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::executor::{self, Group};
use super::{EPOCH_MS, now_ms, set, shared, world};
use crate::admission::{Admission, AdmissionSettings};
use crate::batch::{BatchObserver, BatchSettings, Committers, Policy, retry::Cause};
use crate::cache::{BalanceSource, Balances, Settings};
use crate::clock::Clock;
use crate::domain::{
    Account, AccountId, Balance, Currency, CurrencyCode, CurrencyId, DatabaseIdentity,
};
use crate::entropy::Entropy;
use crate::lock_queue::{BatchLimits, CloseReason, LockQueue};
use crate::store::commit::{CommitSettings, session_parameters};
use crate::store::route::Route;
use crate::store::wire::SessionSettings;

/// How often an engine asks its readers for the history they see.
const PROBE_EVERY: Duration = Duration::from_secs(1);
const ENGINE_GROUPS: u64 = 1 << 20;

/// What answers at an address.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    pub(super) group: Group,
    pub(super) admission: Admission,
    pub(super) committers: Committers,
    pub(super) balances: Balances,
    pub(super) source: Source,
    pub(super) clock: Clock,
    /// Committers whose task has not ended.
    pub(super) running: Arc<AtomicU64>,
    told: Arc<Told>,
}

impl Engine {
    /// The history it believes the database to have.
    pub(super) fn identity(&self) -> Option<DatabaseIdentity> {
        *self.told.known()
    }
}

#[derive(Debug)]
struct Slot {
    engine: Option<Engine>,
    /// The process that was started here last.
    last: Group,
    wall: Arc<AtomicU64>,
    ahead_ms: i64,
    frozen_ms: u64,
}

/// All addresses.
#[derive(Debug)]
pub(super) struct Engines {
    slots: Vec<Slot>,
    started: u64,
}

impl Engines {
    pub(super) fn new(slots: usize) -> Self {
        let slot = || Slot {
            engine: None,
            last: Group::WORLD,
            wall: shared(0),
            ahead_ms: 0,
            frozen_ms: 0,
        };
        Self {
            slots: (0..slots).map(|_| slot()).collect(),
            started: 0,
        }
    }

    pub(super) fn get(&self, slot: usize) -> Option<Engine> {
        self.slots[slot].engine.clone()
    }

    pub(super) fn take(&mut self, slot: usize) -> Option<Engine> {
        self.slots[slot].engine.take()
    }

    pub(super) fn jump(&mut self, slot: usize, ahead_ms: i64) {
        self.slots[slot].ahead_ms = ahead_ms;
    }

    /// How long the slot's processes were stopped, in all.
    pub(super) fn frozen_ms(&self, slot: usize) -> u64 {
        self.slots[slot].frozen_ms
    }

    pub(super) fn froze(&mut self, slot: usize, ms: u64) {
        self.slots[slot].frozen_ms += ms;
    }

    pub(super) fn set_clocks(&self, now_ms: u64) {
        let now_ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
        for slot in &self.slots {
            set(&slot.wall, EPOCH_MS + now_ms + slot.ahead_ms);
        }
    }
}

/// Starts an engine at an address.
pub(super) fn start(slot: usize) {
    let world = world();
    let (number, wall) = {
        let mut engines = world.engines.borrow_mut();
        engines.started += 1;
        (engines.started, Arc::clone(&engines.slots[slot].wall))
    };
    let group = Group(ENGINE_GROUPS + number);
    let clock = Clock::Manual(wall);
    let cache = Settings {
        // Never dialled: the world's Redis answers in its place.
        url: Some("redis://simulated".into()),
        ttl: world.config.cache_ttl,
        floor_accounts_max: world.config.floor_accounts_max,
        ..Settings::default()
    };
    let instance = world.within(1..u64::MAX);
    let balances = Balances::new(&cache, clock.clone(), instance).expect("the URL is well formed");
    for (_, task) in balances.tasks() {
        executor::spawn(group, task);
    }
    let source = Source::default();
    let told = Arc::new(Told {
        balances: balances.clone(),
        source: source.clone(),
        known: Mutex::new(None),
    });
    let committers = committers(number, clock.clone(), Arc::clone(&told));
    let running = shared(0);
    for task in committers.tasks() {
        running.fetch_add(1, Ordering::Relaxed);
        let running = Arc::clone(&running);
        executor::spawn(group, async move {
            task.await;
            running.fetch_sub(1, Ordering::Relaxed);
        });
    }
    let settings = AdmissionSettings {
        queue_depth_max: world.config.queue_depth_max,
    };
    let probe = (Arc::clone(&told), source.clone());
    executor::spawn(group, async move { watch_database(probe.0, probe.1).await });
    let engine = Engine {
        group,
        admission: Admission::new(settings, committers.clone(), clock.clone()),
        committers,
        balances,
        source,
        clock,
        running,
        told,
    };
    let mut engines = world.engines.borrow_mut();
    let predecessor = std::mem::replace(&mut engines.slots[slot].last, group);
    world.oracle.borrow_mut().succeed(predecessor, group);
    engines.slots[slot].engine = Some(engine);
}

fn committers(number: u64, clock: Clock, told: Arc<Told>) -> Committers {
    let world = world();
    // With addresses, so that no name service of the outer world is asked.
    let url = format!(
        "user=engine-{number} dbname=ledger sslmode=disable host=a,b port=5430,5431 \
         hostaddr=10.0.0.1,10.0.0.2"
    );
    let config = &world.config;
    let settings = BatchSettings {
        policy: Policy {
            committers: config.committers,
            parallel_transfers_min: config.parallel_transfers_min,
        },
        attempts_max: 5,
        backoff_min: Duration::from_millis(5),
        entropy: Entropy::Seeded(shared(world.within(1..u64::MAX))),
        commit: CommitSettings {
            session: SessionSettings {
                route: Route::direct(url.parse().expect("the URL is well formed")),
                connect_timeout: Duration::from_secs(2),
                round_trip_timeout: Duration::from_secs(7),
                parameters: session_parameters(
                    Duration::from_secs(2),
                    Duration::from_secs(5),
                    Duration::from_secs(5),
                ),
            },
            idempotency_retention: Duration::from_secs(30 * 86_400),
            engine_id: uuid::Uuid::from_u128(u128::from(number)),
        },
    };
    let limits = BatchLimits {
        transfers_max: config.batch_transfers_max,
        accounts_max: config.batch_transfers_max * 2,
    };
    Committers::new(LockQueue::new(limits), settings, told, clock)
}

/// Readers follow a promoted standby by themselves; the cache must hear of it.
async fn watch_database(told: Arc<Told>, source: Source) {
    loop {
        if let Some(identity) = source.identity().await {
            told.history_is(identity);
        }
        tokio::time::sleep(PROBE_EVERY).await;
    }
}

/// Told of everything that batches do: what `app::observe` does for the cache.
#[derive(Debug)]
struct Told {
    balances: Balances,
    source: Source,
    known: Mutex<Option<DatabaseIdentity>>,
}

impl Told {
    fn known(&self) -> std::sync::MutexGuard<'_, Option<DatabaseIdentity>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn history_is(&self, identity: DatabaseIdentity) {
        let mut known = self.known();
        if known.is_some_and(|known| known != identity) {
            self.source.forget_sessions();
        }
        *known = Some(identity);
        self.balances.identity_changed(identity);
    }
}

impl BatchObserver for Told {
    fn taken(&self, _: CloseReason, _: usize, _: usize, _: &mut dyn Iterator<Item = Duration>) {
        seen("batches");
    }

    fn committed(&self, identity: DatabaseIdentity, as_of_unix_ms: u64, accounts: &[Account]) {
        let balances = accounts.iter().map(|account| Balance {
            account_id: account.id,
            balance: account.balance,
            version: account.version,
            currency: account.currency,
        });
        self.balances.committed(identity, as_of_unix_ms, balances);
    }

    fn timed(&self, _: Duration, _: Duration, _: Duration, _: u32) {
        seen("commits");
    }

    fn failed(&self, cause: Cause, unknown: bool) {
        seen(cause.as_str());
        if unknown {
            seen("unknown outcomes");
        }
    }

    fn bisected(&self) {
        seen("bisected");
    }

    fn looked_up(&self, found: bool) {
        seen(if found {
            "looked up: found"
        } else {
            "looked up: absent"
        });
    }

    fn connected(&self, identity: DatabaseIdentity) {
        self.history_is(identity);
    }

    fn disconnected(&self, _: &str) {}
}

pub(super) fn seen(what: &'static str) {
    *world().oracle.borrow_mut().seen.entry(what).or_default() += 1;
}

/// What the cache reads when it does not know: pooled sessions with the database,
/// which stay with the host they were opened to.
#[derive(Clone, Debug, Default)]
pub(super) struct Source {
    pinned: Arc<Mutex<Option<usize>>>,
    forgotten: Arc<AtomicBool>,
}

/// The database could not be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unreadable;

impl Source {
    fn forget_sessions(&self) {
        *self.pinned() = None;
        self.forgotten.store(true, Ordering::Relaxed);
    }

    fn pinned(&self) -> std::sync::MutexGuard<'_, Option<usize>> {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host that its sessions lead to, if any is to be had.
    pub(super) fn host(&self) -> Option<usize> {
        let world = world();
        let cluster = world.cluster.borrow();
        let writable = |host: &usize| {
            let host = &cluster.hosts[*host];
            host.up && super::is_writable(host.role) && !executor::is_frozen(host.group)
        };
        let mut pinned = self.pinned();
        let kept = pinned.filter(writable);
        let reachable = |host: &usize| writable(host) && !cluster.hosts[*host].unreachable;
        *pinned = kept.or_else(|| (0..2).find(reachable));
        *pinned
    }

    fn pause() -> Duration {
        let world = world();
        world.ms(0..world.config.network.delay_ms_max + 2)
    }

    async fn identity(&self) -> Option<DatabaseIdentity> {
        tokio::time::sleep(Self::pause()).await;
        let host = self.host()?;
        let timeline = world().cluster.borrow().hosts[host].timeline;
        tokio::time::sleep(Self::pause()).await;
        Some(DatabaseIdentity {
            system_identifier: 7_000_000_000_000_000_001,
            timeline,
        })
    }

    fn read(&self, id: AccountId) -> Result<Option<Balance>, Unreadable> {
        let host = self.host().ok_or(Unreadable)?;
        let world = world();
        let cluster = world.cluster.borrow();
        let row = cluster.hosts[host].tables.accounts.get(&id.get());
        Ok(row.map(|row| Balance {
            account_id: id,
            balance: row.balance,
            version: row.version,
            currency: currency(row.currency),
        }))
    }
}

impl BalanceSource for Source {
    type Error = Unreadable;

    async fn balance(&self, account_id: AccountId) -> Result<Option<Balance>, Unreadable> {
        tokio::time::sleep(Self::pause()).await;
        let read = self.read(account_id);
        tokio::time::sleep(Self::pause()).await;
        read
    }
}

pub(super) fn currency(id: i16) -> Currency {
    let known = super::CURRENCIES.iter().find(|(known, _, _)| *known == id);
    let (_, code, digits) = known.copied().unwrap_or(super::CURRENCIES[0]);
    Currency {
        id: CurrencyId(id),
        code: CurrencyCode::parse(code).expect("three capitals"),
        digits,
    }
}

/// Stops an engine as SIGTERM does; whoever is in gets an answer. True if it
/// ended in time.
pub(super) async fn drain(engine: &Engine, limit: Duration) -> bool {
    engine.admission.drain();
    // Permits are out until the last caller has gone.
    let ends = now_ms() + u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    while engine.admission.permits().0 > 0 && now_ms() < ends {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    engine.committers.drain();
    engine.balances.close();
    while engine.running.load(Ordering::Relaxed) > 0 && now_ms() < ends {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    engine.running.load(Ordering::Relaxed) == 0
}
