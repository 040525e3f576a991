//! What goes wrong, and when it is mended again.
//!
//! One fault of the database's hosts at a time, as the durability that is asked
//! for survives one; everything else may overlap.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::engines::{self, seen};
use super::executor::{self, Group};
use super::net::Break;
use super::scenario::Fault;
use super::{now_ms, world};

/// Faults for as long as the clients are at work.
pub(super) async fn reign() {
    let faults = world().config.faults.clone();
    let busy = Rc::new(Cell::new(false));
    let until = now_ms() + world().within(2_000..40_000);
    while !faults.is_empty() && now_ms() < until && !world().idle.get() {
        let pause = {
            let world = world();
            world.ms(1..2 * world.config.fault_every_ms)
        };
        tokio::time::sleep(pause).await;
        let fault = world().pick(&faults);
        let busy = Rc::clone(&busy);
        executor::spawn(Group::WORLD, async move { strike(fault, busy).await });
    }
    // What was struck last is mended before anybody judges.
    while busy.get() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn strike(fault: Fault, busy: Rc<Cell<bool>>) {
    let of_hosts = matches!(
        fault,
        Fault::CrashPrimary
            | Fault::Failover
            | Fault::Partition
            | Fault::StandbyLoss
            | Fault::StandbyLag
            | Fault::DatabaseFreeze
    );
    if of_hosts && busy.replace(true) {
        return;
    }
    match fault {
        Fault::Cut => cut(),
        Fault::CutAll => cut_all(),
        Fault::CrashPrimary => crash_primary().await,
        Fault::Failover => fail_over(Demise::Crash).await,
        Fault::Partition => fail_over(Demise::Partition).await,
        Fault::StandbyLoss => lose_standby().await,
        Fault::StandbyLag => lag_standby().await,
        Fault::DatabaseFreeze => freeze_database().await,
        Fault::DatabaseClock => {
            let world = world();
            let host = world.index(2);
            let ahead = jump(20_000);
            world.cluster.borrow_mut().hosts[host].clock_ahead_ms = ahead;
        }
        Fault::EngineCrash => crash_engine().await,
        Fault::EngineFreeze => freeze_engine().await,
        Fault::EngineRestart => restart_engine().await,
        Fault::EngineClock => {
            let world = world();
            let slot = world.index(world.config.engines);
            let ahead = jump(100_000);
            world.engines.borrow_mut().jump(slot, ahead);
        }
        Fault::RedisCrash => crash_redis().await,
        Fault::RedisWipe => world().redis.borrow_mut().wipe(),
        Fault::RedisSnapshot => restore_redis().await,
        Fault::RedisSlow => slow_redis().await,
        Fault::RedisEvict => {
            let world = world();
            let at = world.index(1_000);
            world.redis.borrow_mut().evict(at);
        }
    }
    if of_hosts {
        busy.set(false);
    }
}

/// A clock that is off by up to so much, either way.
fn jump(ms_max: u64) -> i64 {
    let ahead = i64::try_from(world().within(0..2 * ms_max)).unwrap_or(0);
    ahead - i64::try_from(ms_max).unwrap_or(0)
}

async fn pause(ms: std::ops::Range<u64>) {
    let pause = world().ms(ms);
    tokio::time::sleep(pause).await;
}

fn a_break() -> Break {
    world().pick(&[Break::End, Break::Reset, Break::BlackHole])
}

fn cut() {
    let world = world();
    let connections = {
        let cluster = world.cluster.borrow();
        cluster.connections(cluster.primary)
    };
    if !connections.is_empty() {
        seen("fault: cut");
        connections[world.index(connections.len())].cut(a_break());
    }
}

fn cut_all() {
    seen("fault: cut all");
    let world = world();
    let cluster = world.cluster.borrow();
    cluster.cut_all(cluster.primary, a_break());
}

fn crash(host: usize) {
    let group = world().cluster.borrow_mut().crash(host);
    executor::kill(group);
}

async fn crash_primary() {
    seen("fault: primary crash");
    let host = world().cluster.borrow().primary;
    crash(host);
    pause(100..4_000).await;
    world().cluster.borrow_mut().restart(host);
}

/// What becomes of the old primary.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Demise {
    Crash,
    /// It lives on, and some still talk to it.
    Partition,
}

async fn fail_over(demise: Demise) {
    if !world().cluster.borrow().may_promote() {
        return;
    }
    let old = world().cluster.borrow().primary;
    // Now and then the standby is behind when it happens.
    if world().within(0..3) == 0 {
        world().cluster.borrow_mut().lagging = true;
        pause(50..2_000).await;
    }
    match demise {
        Demise::Crash => {
            seen("fault: failover");
            crash(old);
            pause(50..3_000).await;
        }
        Demise::Partition => {
            seen("fault: partition");
            let world = world();
            let mut cluster = world.cluster.borrow_mut();
            cluster.hosts[old].unreachable = true;
            for connection in cluster.connections(old) {
                if world.within(0..2) == 0 {
                    connection.cut(a_break());
                }
            }
            // Cut off from its standby, too.
            cluster.lagging = true;
        }
    }
    if demise == Demise::Partition {
        pause(0..2_000).await;
    }
    {
        let world = world();
        let mut cluster = world.cluster.borrow_mut();
        cluster.lagging = false;
        cluster.promote();
        world.oracle.borrow_mut().failed_over_ms = Some(now_ms());
    }
    pause(500..12_000).await;
    rejoin();
}

fn rejoin() {
    let group = world().cluster.borrow_mut().rejoin();
    executor::kill(group);
}

async fn lose_standby() {
    seen("fault: standby loss");
    let host = {
        let world = world();
        let mut cluster = world.cluster.borrow_mut();
        let standby = cluster.standby();
        cluster.hosts[standby].up = false;
        standby
    };
    pause(500..4_000).await;
    world().cluster.borrow_mut().give_up_standby();
    pause(100..4_000).await;
    catch_up(host).await;
}

async fn catch_up(host: usize) {
    world().cluster.borrow_mut().hosts[host].up = true;
    for _ in 0..1_000 {
        {
            let world = world();
            let mut cluster = world.cluster.borrow_mut();
            cluster.replicate(usize::MAX / 2);
            cluster.trust_standby();
            if !cluster.synchronous || cluster.waits_for_standby {
                return;
            }
        }
        pause(1..20).await;
    }
}

async fn lag_standby() {
    seen("fault: standby lag");
    world().cluster.borrow_mut().lagging = true;
    pause(100..8_000).await;
    world().cluster.borrow_mut().lagging = false;
}

async fn freeze_database() {
    seen("fault: database stopped");
    let group = {
        let world = world();
        let cluster = world.cluster.borrow();
        cluster.hosts[cluster.primary].group
    };
    executor::freeze(group);
    pause(100..9_000).await;
    executor::thaw(group);
}

async fn crash_engine() {
    let slot = {
        let world = world();
        world.index(world.config.engines)
    };
    let Some(engine) = world().engines.borrow_mut().take(slot) else {
        return;
    };
    seen("fault: engine crash");
    executor::kill(engine.group);
    drop(engine);
    pause(0..1_500).await;
    engines::start(slot);
}

async fn freeze_engine() {
    let slot = {
        let world = world();
        world.index(world.config.engines)
    };
    let Some(engine) = world().engines.borrow().get(slot) else {
        return;
    };
    if executor::is_frozen(engine.group) {
        return;
    }
    seen("fault: engine stopped");
    executor::freeze(engine.group);
    let ms = world().within(100..12_000);
    // Counted before: whoever is answered meanwhile was held up for less.
    world().engines.borrow_mut().froze(slot, ms);
    tokio::time::sleep(Duration::from_millis(ms)).await;
    executor::thaw(engine.group);
}

/// As SIGTERM, with another engine at once in its place.
async fn restart_engine() {
    let slot = {
        let world = world();
        world.index(world.config.engines)
    };
    let Some(engine) = world().engines.borrow_mut().take(slot) else {
        return;
    };
    seen("fault: engine restart");
    engines::start(slot);
    engines::drain(&engine, Duration::from_secs(30)).await;
    executor::kill(engine.group);
}

async fn crash_redis() {
    seen("fault: redis crash");
    let group = world().redis.borrow_mut().crash();
    executor::kill(group);
    pause(50..3_000).await;
    let world = world();
    let mut redis = world.redis.borrow_mut();
    redis.wipe();
    redis.up = true;
}

async fn restore_redis() {
    world().redis.borrow_mut().save();
    pause(100..6_000).await;
    seen("fault: redis restored");
    let group = world().redis.borrow_mut().crash();
    executor::kill(group);
    pause(10..500).await;
    world().redis.borrow_mut().restore();
}

async fn slow_redis() {
    seen("fault: redis slow");
    world().redis.borrow_mut().slow_ms = 120;
    pause(100..3_000).await;
    world().redis.borrow_mut().slow_ms = 0;
}
