//! The engine in a world that a seed decides: deterministic simulation.
//!
//! The real `admission`, `lock_queue`, `batch`, `domain`, `store::commit` with its
//! protocol, and `cache` run here; what is simulated is outside of them: time, the
//! order of tasks, PostgreSQL (below its wire protocol), Redis, clients and
//! faults. An [`oracle`] that knows everything checks the promises.
//!
//! Owns: one world per run and thread; the seed decides all of it.
//! Never: asks the operating system for time, randomness or a socket.
//! Bound: a run ends after a few simulated minutes, or fails.
//! Invariant: the same seed gives the same run, poll by poll (a test compares).
//!
//! Not simulated: HTTP, TLS, the read pool of `store::read`, parallel threads
//! (two tasks never run at once, so data races are not found here), and SQL
//! itself, whose meaning `database::statements` restates.

mod calm;
mod chaos;
mod client;
mod database;
mod engines;
mod executor;
mod net;
mod oracle;
mod redis;
mod rng;
mod scenario;
mod trace;

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::config::Host;

pub use crate::plant::Plant;
pub(crate) use net::ClientEnd;
pub(crate) use redis::RedisLink;

use database::{Cluster, Role};
use engines::Engines;
use oracle::Oracle;
use rng::Rng;
use scenario::Scenario;

/// Currencies: id, code, digits.
const CURRENCIES: [(i16, &str, u8); 2] = [(392, "JPY", 0), (840, "USD", 2)];
/// Wall time at the start, milliseconds since the Unix epoch.
const EPOCH_MS: i64 = 1_800_000_000_000;
/// A run that does not end is a failure as well.
const STEPS_MAX: u64 = 20_000_000;

/// Everything outside of the engines.
struct World {
    config: Scenario,
    rng: RefCell<Rng>,
    started: Instant,
    cluster: RefCell<Cluster>,
    redis: RefCell<redis::Redis>,
    engines: RefCell<Engines>,
    oracle: RefCell<Oracle>,
    /// The clients have what they wanted or have given up.
    idle: Cell<bool>,
    /// No faults any more.
    calm: Cell<bool>,
    over: Cell<bool>,
    failure: RefCell<Option<String>>,
}

thread_local! {
    static WORLD: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
}

fn world() -> Rc<World> {
    WORLD.with_borrow(|world| Rc::clone(world.as_ref().expect("a run is going on")))
}

/// Simulated milliseconds since the start.
fn now_ms() -> u64 {
    let elapsed = world().started.elapsed().as_millis();
    u64::try_from(elapsed).unwrap_or(u64::MAX)
}

/// A promise is broken; the first one counts.
fn fail(what: String) {
    let world = world();
    let at = now_ms();
    let mut failure = world.failure.borrow_mut();
    failure.get_or_insert(format!("at {at} ms: {what}"));
    world.over.set(true);
}

impl World {
    fn chance(&self, parts_per_million: u64) -> bool {
        parts_per_million > 0
            && !self.calm.get()
            && self.rng.borrow_mut().happens(parts_per_million)
    }

    fn ms(&self, range: std::ops::Range<u64>) -> Duration {
        self.rng.borrow_mut().ms(range)
    }

    fn index(&self, length: usize) -> usize {
        self.rng.borrow_mut().index(length)
    }

    fn within(&self, range: std::ops::Range<u64>) -> u64 {
        self.rng.borrow_mut().within(range)
    }

    fn pick<T: Copy>(&self, choices: &[T]) -> T {
        self.rng.borrow_mut().pick(choices)
    }

    /// Wall time by a clock that is ahead by so much.
    fn unix_ms(&self, ahead_ms: i64) -> i64 {
        let elapsed = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        EPOCH_MS + elapsed + ahead_ms
    }
}

/// Opens a connection to a simulated host; `None` outside of a run.
pub(crate) async fn dial(host: &Host, port: u16) -> Option<io::Result<ClientEnd>> {
    enum Dialed {
        Open(ClientEnd),
        Refused,
        Silence,
    }
    let dialed = {
        let world = WORLD.with_borrow(Clone::clone)?;
        let Host::Tcp(_) = host else { return None };
        let cluster = world.cluster.borrow();
        let index = usize::from(port) % 2;
        let host = &cluster.hosts[index];
        if host.unreachable {
            Dialed::Silence
        } else if !host.up || world.chance(world.config.network.refused) {
            Dialed::Refused
        } else {
            let (client, server) = net::pair();
            executor::spawn(host.group, database::serve(index, server));
            Dialed::Open(client)
        }
    };
    match dialed {
        Dialed::Open(client) => Some(Ok(client)),
        Dialed::Refused => Some(Err(io::ErrorKind::ConnectionRefused.into())),
        Dialed::Silence => std::future::pending().await,
    }
}

/// The simulated Redis; `None` outside of a run.
pub(crate) fn redis(timeout: Duration) -> Option<RedisLink> {
    WORLD.with_borrow(|world| world.is_some().then(|| RedisLink::new(timeout)))
}

/// How a run went.
#[derive(Clone, Debug)]
pub struct Report {
    /// What decided it.
    pub seed: u64,
    /// Polls of tasks.
    pub steps: u64,
    /// The hash of everything that happened.
    pub trace: u64,
    /// Simulated time.
    pub simulated: Duration,
    /// What was seen, by name.
    pub seen: std::collections::BTreeMap<&'static str, u64>,
    /// Which promise was broken.
    pub failure: Option<String>,
}

/// Runs one seed, with a bug planted or not.
#[must_use]
pub fn run(seed: u64, plant: Option<Plant>) -> Report {
    Plant::choose(plant);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without sockets needs nothing");
    let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(live(seed));
    }));
    let ran = executor::end();
    let world = WORLD.take();
    Plant::choose(None);
    let Some(world) = world else {
        return broken(seed, "the run did not begin");
    };
    let mut failure = world.failure.borrow_mut().take();
    if let Err(payload) = panicked {
        let text = crate::telemetry::panic_message(&*payload);
        failure.get_or_insert(format!("panic: {text}"));
    } else if ran.steps >= STEPS_MAX {
        failure.get_or_insert(format!("the run did not end within {STEPS_MAX} steps"));
    }
    let simulated = world.oracle.borrow().ended_ms;
    let seen = world.oracle.borrow().seen.clone();
    Report {
        seed,
        steps: ran.steps,
        trace: ran.trace,
        simulated: Duration::from_millis(simulated),
        seen,
        failure,
    }
}

fn broken(seed: u64, why: &str) -> Report {
    Report {
        seed,
        steps: 0,
        trace: 0,
        simulated: Duration::ZERO,
        seen: std::collections::BTreeMap::new(),
        failure: Some(why.to_owned()),
    }
}

async fn live(seed: u64) {
    let mut rng = Rng::new(seed);
    let config = Scenario::draw(&mut rng);
    let scheduler = Rng::new(rng.next());
    let world = Rc::new(World {
        cluster: RefCell::new(Cluster::new(config.initial_accounts(), config.synchronous)),
        redis: RefCell::new(redis::Redis::new()),
        engines: RefCell::new(Engines::new(config.engines)),
        oracle: RefCell::default(),
        rng: RefCell::new(rng),
        started: Instant::now(),
        idle: Cell::new(false),
        calm: Cell::new(false),
        over: Cell::new(false),
        failure: RefCell::new(None),
        config,
    });
    WORLD.set(Some(Rc::clone(&world)));
    executor::spawn(executor::Group::WORLD, life());
    let watch = Rc::clone(&world);
    let mut steps = 0_u64;
    let before = move |now_ms| {
        steps += 1;
        watch.engines.borrow().set_clocks(now_ms);
        if STEPS_MAX <= steps {
            watch.over.set(true);
        }
    };
    let over = || world.over.get();
    executor::run(scheduler, before, over).await;
    world.oracle.borrow_mut().ended_ms = now_ms();
}

/// From the first engine's start to the last check.
async fn life() {
    let world = world();
    for slot in 0..world.config.engines {
        engines::start(slot);
    }
    executor::spawn(executor::Group::WORLD, replication());
    let chaos = chaos::reign();
    let clients = client::all();
    join(chaos, clients).await;
    calm::check().await;
    world.over.set(true);
}

async fn join(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    tokio::join!(biased; one, other);
}

/// The standby's receiver.
async fn replication() {
    loop {
        let world = world();
        let pause = world.ms(0..world.config.database.replication_ms_max + 1);
        tokio::time::sleep(pause + Duration::from_millis(1)).await;
        let records = world.index(4) + 1;
        world.cluster.borrow_mut().replicate(records);
    }
}

/// A seeded clock or generator for an engine.
fn shared(value: u64) -> Arc<AtomicU64> {
    Arc::new(AtomicU64::new(value))
}

fn set(clock: &AtomicU64, unix_ms: i64) {
    clock.store(u64::try_from(unix_ms).unwrap_or(0), Ordering::Release);
}

fn is_writable(role: Role) -> bool {
    role == Role::Primary
}
