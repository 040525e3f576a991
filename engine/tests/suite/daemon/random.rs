//! A random day of a ledger: many clients over two engines do everything at
//! once. A failure prints the seed; `ENGINE_TEST_SEED` runs that day again.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use engine::store::link::Link;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::ledger;
use crate::support::daemon::{Daemon, Reply, Request, Wire};
use crate::support::{TestDatabase, verify};

const CLIENTS: u64 = 8;
const STEPS: u64 = 60;
/// Keys that all clients draw from, so that they collide.
const SHARED_KEYS: u64 = 60;
/// Accounts in dollars: 1 to 6 with limit 0, 7 and 8 with 50 dollars of credit;
/// 9 and 10 are frozen and thawed all day.
const DOLLARS: u64 = 10;
/// The same in yen, and the account that yen come from.
const YEN: [u64; 3] = [20, 21, 22];

/// A small generator (splitmix64): the same numbers for the same seed anywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Tells the seed if the test fails, wherever it does.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("run it again with ENGINE_TEST_SEED={}", self.0);
        }
    }
}

fn seed() -> Seed {
    let given = std::env::var_os("ENGINE_TEST_SEED");
    let given = given.map(|text| text.to_str().unwrap().parse().unwrap());
    let fresh = || {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).unwrap();
        u64::from_le_bytes(bytes)
    };
    Seed(given.unwrap_or_else(fresh))
}

/// One transfer as asked for.
#[derive(Clone, Debug)]
struct Asked {
    from: u64,
    to: u64,
    minor: u64,
    key: Option<String>,
}

impl Asked {
    /// Anything between any accounts; some of it cannot be.
    fn draw(random: &mut Random) -> Self {
        let yen = random.below(10) == 0;
        let mut account = || {
            if yen {
                YEN[usize::try_from(random.below(3)).unwrap()]
            } else {
                random.below(DOLLARS + 1)
            }
        };
        let (from, mut to) = (account(), account());
        if random.below(40) == 0 {
            // Another currency, or nobody's.
            to = if yen { 1 } else { 20 + random.below(9) };
        }
        if from == to {
            to = if yen {
                YEN[usize::from(from == 20)]
            } else {
                (from + 1) % DOLLARS
            };
        }
        Self {
            from,
            to,
            minor: 1 + random.below(4_000),
            key: None,
        }
    }

    /// What everyone asks under one shared key; rarely somebody asks another thing.
    fn shared(day: u64, random: &mut Random) -> Self {
        let number = random.below(SHARED_KEYS);
        let mut asked = Self::draw(&mut Random(
            day ^ number.wrapping_mul(0x1234_5678_9ABC_DEF1),
        ));
        asked.key = Some(format!("shared-{number}"));
        if random.below(10) == 0 {
            asked.minor += 1;
        }
        asked
    }

    fn amount(&self) -> String {
        if YEN.contains(&self.from) {
            self.minor.to_string()
        } else {
            format!("{}.{:02}", self.minor / 100, self.minor % 100)
        }
    }

    fn body(&self) -> String {
        let (from, to, amount) = (self.from, self.to, self.amount());
        format!(r#"{{"from":{from},"to":{to},"amount":"{amount}"}}"#)
    }

    fn item(&self) -> String {
        let body = self.body();
        match &self.key {
            Some(key) => body.replace('}', &format!(r#","idempotency_key":"{key}"}}"#)),
            None => body,
        }
    }
}

/// A stored row, as the engine said it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    from: u64,
    to: u64,
    minor: u64,
    reverses: Option<String>,
}

/// All that was acknowledged.
#[derive(Debug, Default)]
struct Told {
    completed: HashMap<String, Row>,
    rejected: HashMap<String, Row>,
    /// Per key and request, the one id it may ever lead to.
    by_key: HashMap<(String, String), String>,
}

impl Told {
    fn completed(&mut self, id: &Value, row: Row) {
        let id = id.as_str().unwrap().to_owned();
        let before = self.completed.insert(id.clone(), row.clone());
        assert!(before.is_none_or(|before| before == row), "{id} {row:?}");
    }

    fn rejected(&mut self, id: &Value, row: Row) {
        self.rejected.insert(id.as_str().unwrap().to_owned(), row);
    }

    fn keyed(&mut self, asked: &Asked, id: &Value) {
        let Some(key) = &asked.key else { return };
        let id = id.as_str().unwrap().to_owned();
        let place = (key.clone(), asked.body());
        let before = self.by_key.insert(place, id.clone());
        assert!(before.is_none_or(|before| before == id), "{asked:?} {id}");
    }

    /// One result, whichever call it came from.
    fn result(&mut self, asked: &Asked, reverses: Option<String>, answer: &Value) {
        let row = Row {
            from: asked.from,
            to: asked.to,
            minor: asked.minor,
            reverses,
        };
        let id = &answer["txn_id"];
        if answer["status"] == "completed" {
            self.keyed(asked, id);
            self.completed(id, row);
        } else if id.is_string() {
            self.keyed(asked, id);
            self.rejected(id, row);
        }
    }
}

struct Client {
    random: Random,
    day: u64,
    number: u64,
    step: u64,
    wires: Vec<Wire>,
    told: Arc<Mutex<Told>>,
}

impl Client {
    async fn call(&mut self, request: &Request) -> Reply {
        let engine = usize::try_from(self.random.below(2)).unwrap();
        let reply = self.wires[engine].call(request).await.unwrap();
        assert!(reply.status < 500, "{request:?} {reply:?}");
        reply
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw(&mut self) -> Asked {
        let mut asked = match self.random.below(3) {
            0 => Asked::shared(self.day, &mut self.random),
            _ => Asked::draw(&mut self.random),
        };
        if asked.key.is_none() && self.random.below(2) == 0 {
            let serial = self.random.next();
            asked.key = Some(format!("own-{}-{}-{serial}", self.number, self.step));
        }
        asked
    }

    async fn live(mut self) {
        for step in 0..STEPS {
            self.step = step;
            match self.random.below(12) {
                0..=4 => self.transfer().await,
                5 | 6 => self.batch().await,
                7 => self.group().await,
                8 | 9 => self.reversal().await,
                10 => self.change().await,
                _ => self.read().await,
            }
        }
    }

    async fn transfer(&mut self) {
        let asked = self.draw();
        let mut request = Request::new("POST", "/transaction").json(&asked.body());
        if let Some(key) = &asked.key {
            request = request.key(key);
        }
        let times = 1 + self.random.below(2);
        for _ in 0..times {
            let answer = self.call(&request).await.json();
            self.told().result(&asked, None, &answer);
            if asked.key.is_none() {
                break;
            }
        }
    }

    async fn batch(&mut self) {
        let count = 1 + self.random.below(20);
        let asked: Vec<_> = (0..count).map(|_| self.draw()).collect();
        let items: Vec<_> = asked.iter().map(Asked::item).collect();
        let body = format!(r#"{{"transfers":[{}]}}"#, items.join(","));
        let request = Request::new("POST", "/transactions").json(&body);
        let reply = self.call(&request).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let results = reply.json()["results"].as_array().unwrap().clone();
        assert_eq!(results.len(), asked.len());
        let mut told = self.told();
        for (asked, result) in asked.iter().zip(&results) {
            assert_ne!(result["status"], "failed", "{asked:?} {result}");
            told.result(asked, None, result);
        }
    }

    async fn group(&mut self) {
        // Round a ring, so that it often succeeds; keyed, so that it can replay.
        let count = 2 + self.random.below(4);
        let first = 1 + self.random.below(6);
        let minor = 1 + self.random.below(2_000);
        let asked: Vec<_> = (0..count)
            .map(|index| Asked {
                from: 1 + (first + index) % 6,
                to: 1 + (first + index + 1) % 6,
                minor,
                key: Some(format!("group-{}-{}-{index}", self.number, self.step)),
            })
            .collect();
        let items: Vec<_> = asked.iter().map(Asked::item).collect();
        let body = format!(r#"{{"atomic":true,"transfers":[{}]}}"#, items.join(","));
        let request = Request::new("POST", "/transactions").json(&body);
        let reply = self.call(&request).await;
        if reply.status == 200 {
            let results = reply.json()["results"].as_array().unwrap().clone();
            let mut told = self.told();
            for (asked, result) in asked.iter().zip(&results) {
                assert_eq!(result["status"], "completed", "{reply:?}");
                told.result(asked, None, result);
            }
        } else {
            assert_eq!(reply.status, 422, "{reply:?}");
            let index = reply.json()["index"].as_u64().unwrap();
            assert!(index < count, "{reply:?}");
        }
    }

    async fn reversal(&mut self) {
        let (id, row) = {
            let choice = usize::try_from(self.random.next() >> 1).unwrap();
            let told = self.told();
            let count = told.completed.len().max(1);
            let Some((id, row)) = told.completed.iter().nth(choice % count) else {
                return;
            };
            (id.clone(), row.clone())
        };
        let asked = Asked {
            from: row.to,
            to: row.from,
            minor: row.minor,
            key: Some(format!("reverse-{id}")),
        };
        let target = format!("/transactions/{id}/reversal");
        let request = Request::new("POST", &target)
            .json("{}")
            .key(&format!("reverse-{id}"));
        let answer = self.call(&request).await.json();
        self.told().result(&asked, Some(id), &answer);
    }

    async fn change(&mut self) {
        let (account, body) = match self.random.below(3) {
            0 => (9 + self.random.below(2), json!({"status": "frozen"})),
            1 => (9 + self.random.below(2), json!({"status": "open"})),
            _ => (
                7 + self.random.below(2),
                json!({"min_balance": if self.random.below(2) == 0 { -50 } else { -20 }}),
            ),
        };
        let request = Request::new("PATCH", &format!("/accounts/{account}"));
        let reply = self.call(&request.json(&body.to_string())).await;
        assert!(matches!(reply.status, 200 | 422), "{reply:?}");
    }

    async fn read(&mut self) {
        let account = self.random.below(DOLLARS + 1);
        for target in [
            format!("/balance/{account}"),
            format!("/transactions?account={account}&limit=10"),
            format!("/accounts/{account}"),
        ] {
            let reply = self.call(&Request::new("GET", &target)).await;
            assert_eq!(reply.status, 200, "{target} {reply:?}");
        }
    }
}

async fn open(daemon: &Daemon) {
    let mut list = vec![
        json!({"account_id": 0, "currency": "USD", "min_balance": null}),
        json!({"account_id": YEN[0], "currency": "JPY", "min_balance": null}),
        json!({"account_id": YEN[1], "currency": "JPY"}),
        json!({"account_id": YEN[2], "currency": "JPY"}),
    ];
    for id in 1..=DOLLARS {
        let limit = if id == 7 || id == 8 { -50 } else { 0 };
        list.push(json!({"account_id": id, "currency": "USD", "min_balance": limit}));
    }
    let opened = daemon
        .post("/accounts", &Value::from(list).to_string())
        .await;
    assert_eq!(opened.status, 201, "{}", opened.body);
}

/// Every row is what was acknowledged, and everything acknowledged is a row.
async fn compare(database: &TestDatabase, told: &Told) {
    let link = Link::open(&database.url).await.unwrap();
    for (told, query) in [
        (
            &told.completed,
            "SELECT id::text, debit_account_id, credit_account_id, amount, reverses::text FROM transfers",
        ),
        (
            &told.rejected,
            "SELECT r.id::text, r.debit_account_id, r.credit_account_id,
                    (r.amount * CASE WHEN r.debit_account_id BETWEEN 20 AND 22 THEN 1 ELSE 100 END)::bigint,
                    r.reverses::text
               FROM rejections r",
        ),
    ] {
        let rows = link.client.query(query, &[]).await.unwrap();
        assert_eq!(rows.len(), told.len(), "{query}");
        for row in rows {
            let id: &str = row.get(0);
            let number = |column: usize| u64::try_from(row.get::<_, i64>(column)).unwrap();
            let stored = Row {
                from: number(1),
                to: number(2),
                minor: number(3),
                reverses: row.get(4),
            };
            assert_eq!(told.get(id), Some(&stored), "{id}");
        }
    }
    // No account was ever below the lowest limit it had.
    let below = "SELECT count(*) FROM postings WHERE account_id NOT IN (0, 20)
                 AND balance < CASE WHEN account_id IN (7, 8) THEN -5000 ELSE 0 END";
    let below: i64 = link.client.query_one(below, &[]).await.unwrap().get(0);
    assert_eq!(below, 0);
    let reversed_twice =
        "SELECT count(*) - count(DISTINCT reverses) FROM transfers WHERE reverses IS NOT NULL";
    let twice: i64 = link
        .client
        .query_one(reversed_twice, &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(twice, 0);
    link.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_random_day_every_promise_holds() {
    let seed = seed();
    let database = ledger().await;
    let cache = crate::support::redis_url();
    let arguments = ["--redis-url", &cache, "--cache-ttl", "1s"];
    let engines = [
        Daemon::start(&database, &arguments).await,
        Daemon::start(&database, &arguments).await,
    ];
    open(&engines[0]).await;
    let addresses: Vec<SocketAddr> = engines.iter().map(|engine| engine.api).collect();
    let told = Arc::new(Mutex::new(Told::default()));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let mut wires = Vec::new();
        for address in &addresses {
            wires.push(Wire::connect(*address).await.unwrap());
        }
        let client = Client {
            random: Random(seed.0 ^ number.wrapping_mul(0xA076_1D64_78BD_642F)),
            day: seed.0,
            number,
            step: 0,
            wires,
            told: Arc::clone(&told),
        };
        clients.spawn(client.live());
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    let told = told.lock().unwrap_or_else(PoisonError::into_inner);
    let told = std::mem::take(&mut *{ told });
    assert!(
        100 < told.completed.len(),
        "too quiet a day: {}",
        told.completed.len()
    );
    assert!(!told.rejected.is_empty());
    compare(&database, &told).await;
    for engine in engines {
        let ended = engine.stop().await;
        assert_eq!(ended.code, Some(0), "{:?}", ended.log);
    }
    verify(&database).await;
}
