//! The engine's core on a database of its own: no HTTP, no cache.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use engine::admission::{Admission, AdmissionSettings};
use engine::batch::{BatchObserver, BatchSettings, Committers, Policy, retry::Cause};
use engine::clock::Clock;
use engine::domain::DatabaseIdentity;
use engine::domain::{Account, AccountId, DecimalAmount, IdempotencyKey, TransferRequest};
use engine::entropy::Entropy;
use engine::lock_queue::{BatchLimits, CloseReason, LockQueue};
use engine::store::commit::CommitSettings;
use engine::store::route::Route;
use engine::store::wire::SessionSettings;
use tokio::task::JoinSet;
use uuid::Uuid;

/// What a core was seen to do.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) failed: Vec<Cause>,
    pub(crate) looked_up: Vec<bool>,
    pub(crate) batches: usize,
    pub(crate) identities: Vec<DatabaseIdentity>,
}

#[derive(Debug, Default)]
pub(crate) struct Watch(pub(crate) Mutex<Seen>);

impl BatchObserver for Watch {
    fn taken(&self, _: CloseReason, _: usize, _: usize, _: &mut dyn Iterator<Item = Duration>) {
        self.0.lock().unwrap().batches += 1;
    }
    fn committed(&self, _: DatabaseIdentity, _: u64, _: &[Account]) {}
    fn timed(&self, _: Duration, _: Duration, _: Duration, _: u32) {}
    fn bisected(&self) {}
    fn failed(&self, cause: Cause, _: bool) {
        self.0.lock().unwrap().failed.push(cause);
    }
    fn looked_up(&self, found: bool) {
        self.0.lock().unwrap().looked_up.push(found);
    }
    fn connected(&self, identity: DatabaseIdentity) {
        self.0.lock().unwrap().identities.push(identity);
    }
    fn disconnected(&self, _: &str) {}
}

/// Knobs of a core.
#[derive(Clone, Debug)]
pub(crate) struct CoreSettings {
    pub(crate) committers: usize,
    pub(crate) parallel_transfers_min: usize,
    pub(crate) transfers_max: usize,
    pub(crate) queue_depth_max: usize,
    pub(crate) attempts_max: u32,
    pub(crate) round_trip_timeout: Duration,
    pub(crate) parameters: Vec<(String, String)>,
}

impl Default for CoreSettings {
    fn default() -> Self {
        Self {
            committers: 2,
            parallel_transfers_min: 1,
            transfers_max: 8_192,
            queue_depth_max: 32_768,
            attempts_max: 5,
            round_trip_timeout: Duration::from_secs(10),
            parameters: engine::store::commit::session_parameters(
                Duration::from_secs(2),
                Duration::from_secs(5),
                Duration::from_secs(5),
            ),
        }
    }
}

/// A running core.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) admission: Admission,
    pub(crate) committers: Committers,
    pub(crate) watch: Arc<Watch>,
    tasks: JoinSet<()>,
}

impl Core {
    pub(crate) fn start(url: &str, settings: &CoreSettings) -> Self {
        let watch = Arc::new(Watch::default());
        let committers = Committers::new(
            LockQueue::new(BatchLimits {
                transfers_max: settings.transfers_max,
                accounts_max: settings.transfers_max * 2,
            }),
            BatchSettings {
                entropy: Entropy::System,
                policy: Policy {
                    committers: settings.committers,
                    parallel_transfers_min: settings.parallel_transfers_min,
                },
                attempts_max: settings.attempts_max,
                backoff_min: Duration::from_millis(2),
                commit: CommitSettings {
                    session: SessionSettings {
                        route: Route::direct(url.parse().unwrap()),
                        connect_timeout: Duration::from_secs(5),
                        round_trip_timeout: settings.round_trip_timeout,
                        parameters: settings.parameters.clone(),
                    },
                    idempotency_retention: Duration::from_secs(30 * 86_400),
                    engine_id: Uuid::from_u128(1),
                },
            },
            watch.clone(),
            Clock::System,
        );
        let mut tasks = JoinSet::new();
        for task in committers.tasks() {
            tasks.spawn(task);
        }
        let settings = AdmissionSettings {
            queue_depth_max: settings.queue_depth_max,
        };
        let admission = Admission::new(settings, committers.clone(), Clock::System);
        Self {
            admission,
            committers,
            watch,
            tasks,
        }
    }

    /// Answers everything, then stops.
    pub(crate) async fn stop(mut self) {
        self.admission.drain();
        self.committers.drain();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
}

pub(crate) fn account(id: i64) -> AccountId {
    AccountId::new(id).unwrap()
}

pub(crate) fn transfer(debit: i64, credit: i64, amount: &str) -> TransferRequest {
    TransferRequest {
        debit_account_id: account(debit),
        credit_account_id: account(credit),
        amount: DecimalAmount::parse(amount).unwrap(),
        currency: None,
        reverses: None,
        key: None,
        details: None,
    }
}

/// With a key; the request's own values serve as its fingerprint.
pub(crate) fn keyed(key: u128, request: TransferRequest) -> TransferRequest {
    let fingerprint = u128::try_from(request.debit_account_id.get()).unwrap() << 64
        | u128::try_from(request.credit_account_id.get()).unwrap() << 32
        | u128::try_from(request.amount.decimal().mantissa()).unwrap();
    let key = IdempotencyKey {
        hash: Uuid::from_u128(key),
        fingerprint: Uuid::from_u128(fingerprint),
    };
    TransferRequest {
        key: Some(key),
        ..request
    }
}

pub(crate) fn in_seconds(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

/// Account 0 pays without limit; 1..=count hold `funds` cents each, put there by
/// transfers from account 0.
pub(crate) async fn fund(url: &str, core: &Core, count: i64, funds: &str) {
    let link = engine::store::link::Link::open(url).await.unwrap();
    link.client
        .batch_execute(&format!(
            "INSERT INTO accounts (id, currency_id) SELECT i, 840 FROM generate_series(1, {count}) AS i;
             INSERT INTO accounts (id, currency_id, min_balance) VALUES (0, 840, NULL);
             UPDATE accounts SET min_balance = 0 WHERE id > 0"
        ))
        .await
        .unwrap();
    for ids in (1..=count).collect::<Vec<_>>().chunks(8_192) {
        let requests = ids.iter().map(|id| transfer(0, *id, funds)).collect();
        for outcome in core
            .admission
            .transfers(requests, in_seconds(60))
            .await
            .unwrap()
        {
            assert!(outcome.unwrap().is_completed());
        }
    }
}
