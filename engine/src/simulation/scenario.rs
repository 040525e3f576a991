//! What a seed makes of the world: how busy, how slow, how hostile.
//!
//! Faults are switched on and off by seed (swarm testing): a run in which
//! everything breaks at once rarely gets far enough to meet a subtle bug.

use std::collections::BTreeMap;
use std::time::Duration;

use super::EPOCH_MS;
use super::database::AccountRow;
use super::rng::Rng;

/// Something that breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Cut,
    CutAll,
    CrashPrimary,
    Failover,
    Partition,
    StandbyLoss,
    StandbyLag,
    DatabaseFreeze,
    DatabaseClock,
    EngineCrash,
    EngineFreeze,
    EngineRestart,
    EngineClock,
    RedisCrash,
    RedisWipe,
    RedisSnapshot,
    RedisSlow,
    RedisEvict,
}

const FAULTS: [Fault; 18] = [
    Fault::Cut,
    Fault::CutAll,
    Fault::CrashPrimary,
    Fault::Failover,
    Fault::Partition,
    Fault::StandbyLoss,
    Fault::StandbyLag,
    Fault::DatabaseFreeze,
    Fault::DatabaseClock,
    Fault::EngineCrash,
    Fault::EngineFreeze,
    Fault::EngineRestart,
    Fault::EngineClock,
    Fault::RedisCrash,
    Fault::RedisWipe,
    Fault::RedisSnapshot,
    Fault::RedisSlow,
    Fault::RedisEvict,
];

/// Chances are parts per million of each message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Network {
    /// A connection breaks before a message arrives.
    pub(super) cut_in: u64,
    /// It breaks in the middle of an answer.
    pub(super) cut_out: u64,
    /// A host refuses a connection.
    pub(super) refused: u64,
    pub(super) delay_ms_max: u64,
}

/// Chances are parts per million of each statement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Database {
    pub(super) errors: u64,
    pub(super) commit_rolls_back: u64,
    /// Chance that a commit's wait for the standby is cancelled.
    pub(super) waits_cancelled: u64,
    pub(super) statement_ms_max: u64,
    /// Chance and length of a long statement.
    pub(super) stall: (u64, u64),
    pub(super) flush_ms_max: u64,
    pub(super) replication_ms_max: u64,
}

/// One run's settings.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) engines: usize,
    pub(super) synchronous: bool,
    pub(super) accounts: i64,
    pub(super) clients: usize,
    pub(super) calls: u64,
    pub(super) think_ms_max: u64,
    pub(super) deadline_ms: u64,
    /// Parts per million of requests that the database cannot store.
    pub(super) poison: u64,
    pub(super) network: Network,
    pub(super) database: Database,
    pub(super) faults: Vec<Fault>,
    pub(super) fault_every_ms: u64,
    /// Key periods: number, start, end.
    pub(super) periods: Vec<(i32, i64, i64)>,
    pub(super) committers: usize,
    pub(super) parallel_transfers_min: usize,
    pub(super) batch_transfers_max: usize,
    pub(super) queue_depth_max: usize,
    pub(super) cache_ttl: Duration,
    pub(super) floor_accounts_max: usize,
}

const DAY_MS: i64 = 86_400_000;

impl Scenario {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let quiet = rng.happens(150_000);
        let rate = |rng: &mut Rng, most: u64| {
            if quiet || rng.happens(500_000) {
                0
            } else {
                rng.within(1..most)
            }
        };
        let enabled = |fault: &Fault| (*fault, rng.happens(350_000));
        let enabled: Vec<(Fault, bool)> = FAULTS.iter().map(enabled).collect();
        let faults = enabled.into_iter().filter(|(_, on)| *on && !quiet);
        let faults = faults.map(|(fault, _)| fault).collect();
        // Close to the start, so that a run crosses the boundary and its overlap.
        let boundary = EPOCH_MS + i64::try_from(rng.within(0..1_300_000)).unwrap_or(0) - 640_000;
        Self {
            engines: rng.pick(&[1, 1, 2]),
            synchronous: rng.happens(600_000),
            accounts: rng.pick(&[2, 3, 4, 6, 12]),
            clients: rng.pick(&[1, 3, 6, 12, 24]),
            calls: rng.within(6..40),
            think_ms_max: rng.pick(&[5, 40, 200, 800]),
            deadline_ms: rng.pick(&[200, 1_000, 5_000, 20_000]),
            poison: rate(rng, 60_000),
            network: Network {
                cut_in: rate(rng, 8_000),
                cut_out: rate(rng, 30_000),
                refused: rate(rng, 200_000),
                delay_ms_max: rng.pick(&[0, 1, 3, 20]),
            },
            database: Database {
                errors: rate(rng, 20_000),
                commit_rolls_back: rate(rng, 20_000),
                waits_cancelled: rate(rng, 200_000),
                statement_ms_max: rng.pick(&[0, 0, 1, 5]),
                stall: (rate(rng, 10_000), rng.pick(&[60, 400, 3_000, 6_000])),
                flush_ms_max: rng.pick(&[0, 1, 5, 30]),
                replication_ms_max: rng.pick(&[0, 2, 10, 60]),
            },
            faults,
            fault_every_ms: rng.pick(&[50, 200, 1_000]),
            periods: vec![
                (1, boundary - 40 * DAY_MS, boundary),
                (2, boundary, boundary + 40 * DAY_MS),
                (3, boundary + 40 * DAY_MS, boundary + 80 * DAY_MS),
            ],
            committers: rng.pick(&[1, 2, 2, 3]),
            parallel_transfers_min: rng.pick(&[1, 4, 128]),
            batch_transfers_max: rng.pick(&[1, 3, 8, 64]),
            queue_depth_max: rng.pick(&[12, 100, 1_000]),
            cache_ttl: Duration::from_millis(rng.pick(&[500, 2_000, 6_000])),
            floor_accounts_max: rng.pick(&[64, 192, 10_000]),
        }
    }

    /// Account 0 and 100 pay without limit; 100 and 101 are in yen.
    pub(super) fn initial_accounts(&self) -> BTreeMap<i64, AccountRow> {
        let row = |currency, min_balance| AccountRow {
            balance: 0,
            min_balance,
            version: 0,
            head: None,
            currency,
            status: 0,
        };
        let mut accounts = BTreeMap::from([
            (0, row(840, None)),
            (100, row(392, None)),
            (101, row(392, Some(0))),
        ]);
        for id in 1..=self.accounts {
            let limit = if id == 2 { -5_000 } else { 0 };
            accounts.insert(id, row(840, Some(limit)));
        }
        accounts
    }

    /// All that exist.
    pub(super) fn account_ids(&self) -> Vec<i64> {
        let dollars = 0..=self.accounts;
        dollars.chain([100, 101]).collect()
    }
}
