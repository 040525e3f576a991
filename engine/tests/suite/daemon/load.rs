//! Clients that post keyed transfers all the time, repeat what got no definite
//! answer, and remember all of it; and what must be true afterwards.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use engine::store::link::Link;
use tokio::task::JoinSet;

use crate::support::daemon::{Broken, Daemon, Reply, Request, Wire, eventually};

/// What the clients do.
#[derive(Debug)]
pub(super) struct Plan {
    /// Clients take turns; changed when an engine is restarted.
    engines: Mutex<Vec<SocketAddr>>,
    /// Accounts 1 to this; money goes round.
    accounts: usize,
    clients: usize,
}

impl Plan {
    pub(super) fn new(engines: Vec<SocketAddr>, accounts: usize, clients: usize) -> Self {
        Self {
            engines: Mutex::new(engines),
            accounts,
            clients,
        }
    }

    pub(super) fn use_engines(&self, engines: Vec<SocketAddr>) {
        *self.engines.lock().unwrap_or_else(PoisonError::into_inner) = engines;
    }

    fn engine(&self, client: usize) -> SocketAddr {
        let engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        engines[client % engines.len()]
    }
}

/// One request as its client saw it.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) request: Request,
    /// A definite answer, if one came.
    pub(super) reply: Option<Reply>,
}

#[derive(Debug, Default)]
struct Notes {
    records: Mutex<HashMap<String, Record>>,
    acknowledged: AtomicUsize,
    /// Connections that had answered before and ended within an answer, or were
    /// reset with a request on them.
    torn: AtomicUsize,
    /// Connections that ended in order with a request on them.
    closed: AtomicUsize,
    /// Answers 503 and 504.
    refused: AtomicUsize,
    slowest: Mutex<Duration>,
    over: AtomicBool,
}

/// Clients at work.
#[derive(Debug)]
pub(super) struct Load {
    notes: Arc<Notes>,
    clients: JoinSet<()>,
}

/// What they saw.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) records: HashMap<String, Record>,
    pub(super) torn: usize,
    pub(super) closed: usize,
    pub(super) refused: usize,
    slowest: Duration,
}

impl Load {
    pub(super) fn start(plan: Arc<Plan>) -> Self {
        let notes = Arc::new(Notes::default());
        let mut clients = JoinSet::new();
        for number in 0..plan.clients {
            let (plan, notes) = (Arc::clone(&plan), Arc::clone(&notes));
            clients.spawn(async move { client(number, &plan, &notes).await });
        }
        Self { notes, clients }
    }

    pub(super) fn acknowledged(&self) -> usize {
        self.notes.acknowledged.load(Ordering::Relaxed)
    }

    pub(super) async fn until_acknowledged(&self, count: usize) {
        eventually("acknowledged", async || count <= self.acknowledged()).await;
    }

    /// Every client finishes what it is at.
    pub(super) async fn stop(mut self) -> Report {
        self.notes.over.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
        let lock = |records: &Mutex<HashMap<String, Record>>| {
            records
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone()
        };
        Report {
            records: lock(&self.notes.records),
            torn: self.notes.torn.load(Ordering::Relaxed),
            closed: self.notes.closed.load(Ordering::Relaxed),
            refused: self.notes.refused.load(Ordering::Relaxed),
            slowest: *self
                .notes
                .slowest
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// A client's connection.
struct Open {
    wire: Wire,
    /// It has carried an answer, so an engine has accepted it.
    accepted: bool,
}

async fn client(number: usize, plan: &Plan, notes: &Notes) {
    let mut wire: Option<Open> = None;
    for round in 0_usize.. {
        let from = 1 + (number + round) % plan.accounts;
        let to = 1 + (number + round * 7 + 1) % plan.accounts;
        let to = if to == from { 0 } else { to };
        let key = format!("client-{number}-{round}");
        let body = format!(r#"{{"from":{from},"to":{to},"amount":0.01}}"#);
        let request = Request::new("POST", "/transaction").json(&body).key(&key);
        let mut record = Record {
            request,
            reply: None,
        };
        // Each request is tried until its answer is definite, or time is up.
        while record.reply.is_none() {
            record.reply = attempt(number, plan, notes, &mut wire, &record.request).await;
            if notes.over.load(Ordering::Relaxed) {
                break;
            }
        }
        if record.reply.is_some() {
            notes.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        notes
            .records
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, record);
        if notes.over.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// A definite answer, or nothing.
async fn attempt(
    number: usize,
    plan: &Plan,
    notes: &Notes,
    wire: &mut Option<Open>,
    request: &Request,
) -> Option<Reply> {
    if wire.is_none() {
        let connected = Wire::connect(plan.engine(number)).await;
        // Refused: nobody listens for the moment.
        *wire = connected.ok().map(|wire| Open {
            wire,
            accepted: false,
        });
    }
    let Some(open) = wire.as_mut() else {
        tokio::time::sleep(Duration::from_millis(10)).await;
        return None;
    };
    let begun = Instant::now();
    let answer = open.wire.call(request).await;
    let accepted = std::mem::replace(&mut open.accepted, true);
    let took = begun.elapsed();
    {
        let mut slowest = notes.slowest.lock().unwrap_or_else(PoisonError::into_inner);
        *slowest = took.max(*slowest);
    }
    match answer {
        Ok(reply) => {
            if reply.header("connection") == Some("close") {
                *wire = None;
            }
            if reply.status < 500 {
                return Some(reply);
            }
            assert!(matches!(reply.status, 503 | 504), "{reply:?}");
            notes.refused.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(broken) => {
            *wire = None;
            match broken {
                Broken::Closed => notes.closed.fetch_add(1, Ordering::Relaxed),
                // The kernel took the connection, but no engine did: it has just
                // stopped listening.
                Broken::Torn(_) if !accepted => 0,
                Broken::Torn(_) => notes.torn.fetch_add(1, Ordering::Relaxed),
            };
        }
    }
    None
}

impl Report {
    /// Promise 5: nobody waited longer.
    #[track_caller]
    pub(super) fn check_waits(&self, limit: Duration) {
        assert!(self.slowest <= limit, "someone waited {:?}", self.slowest);
    }

    /// Promises 2 and 3: every acknowledged transfer is stored as answered, every
    /// request asked again has one result, and nothing else is stored.
    pub(super) async fn check_stored(&self, database_url: &str, engines: &[&Daemon]) {
        let mut expected = HashMap::new();
        let mut wire: Vec<Wire> = Vec::new();
        for engine in engines {
            wire.push(Wire::connect(engine.api).await.unwrap());
        }
        for (index, (key, record)) in self.records.iter().enumerate() {
            let count = wire.len();
            let again = wire[index % count].call(&record.request).await.unwrap();
            match &record.reply {
                Some(reply) => {
                    assert_eq!((again.status, &again.body), (reply.status, &reply.body));
                    assert_eq!(again.header("idempotency-replayed"), Some("true"), "{key}");
                }
                None => assert!(again.status < 500, "{again:?}"),
            }
            let answer = again.json();
            if again.status == 200 {
                expected.insert(answer["txn_id"].as_str().unwrap().to_owned(), answer);
            }
        }
        let link = Link::open(database_url).await.unwrap();
        let rows = link
            .client
            .query(
                "SELECT id::text, debit_account_id, credit_account_id, amount FROM transfers
                  WHERE amount = 1",
                &[],
            )
            .await
            .unwrap();
        link.close().await;
        assert_eq!(rows.len(), expected.len());
        for row in rows {
            let id: &str = row.get(0);
            let answer = &expected[id];
            assert_eq!(answer["from"], row.get::<_, i64>(1), "{answer}");
            assert_eq!(answer["to"], row.get::<_, i64>(2), "{answer}");
            assert!(answer["amount"] == 0.01 && row.get::<_, i64>(3) == 1);
        }
    }
}
