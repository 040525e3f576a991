//! An engine with a ledger in memory, and with bad manners on request.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// How answers are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Honest,
    /// Of ten transfers, closes instead of answering one that it applied and one
    /// that it did not.
    LosesAnswers,
    /// The same, and takes every key for a new one.
    ForgetsKeys,
    /// Refuses every tenth transfer, but applies the first of them.
    LiesOnce,
    /// Lets in only who shows [`API_KEY`].
    Guarded,
}

pub(crate) const API_KEY: &str = "s3cret";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) id: String,
    pub(crate) key: Option<String>,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) amount: String,
}

#[derive(Debug, Default)]
struct Ledger {
    transfers: Vec<Transfer>,
    requests: u64,
    ids: u64,
    /// What the second page of accounts shows, one after another; the last stays.
    accounts: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    ledger: Arc<Mutex<Ledger>>,
}

/// A version 7 id of the year 2286, so later than any run of this test; the last
/// digit leaves room between two.
pub(crate) fn id_of(number: u64) -> String {
    format!("0914bc35-a000-7000-8000-{number:011x}0")
}

impl Fake {
    /// Serves until the test process ends.
    pub(crate) fn start(manner: Manner) -> Self {
        Self::behind(manner, Some)
    }

    /// The same, over what `accept` makes of a connection; None refuses it.
    pub(crate) fn behind<S: Read + Write + 'static>(
        manner: Manner,
        accept: impl Fn(TcpStream) -> Option<S> + Clone + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ledger = Arc::<Mutex<Ledger>>::default();
        let shared = Arc::clone(&ledger);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (ledger, accept) = (Arc::clone(&shared), accept.clone());
                std::thread::spawn(move || {
                    if let Some(stream) = accept(stream.unwrap()) {
                        serve(stream, manner, &ledger);
                    }
                });
            }
        });
        Self { address, ledger }
    }

    pub(crate) fn count(&self) -> u64 {
        u64::try_from(self.transfers().len()).unwrap()
    }

    pub(crate) fn transfers(&self) -> Vec<Transfer> {
        self.ledger.lock().unwrap().transfers.clone()
    }

    pub(crate) fn spoil<T>(&self, change: impl FnOnce(&mut Vec<Transfer>) -> T) -> T {
        change(&mut self.ledger.lock().unwrap().transfers)
    }

    pub(crate) fn set_accounts(&self, pages: &[&str]) {
        let pages = pages.iter().map(|&page| page.to_owned());
        self.ledger.lock().unwrap().accounts = pages.collect();
    }
}

/// None closes the connection.
type Answer = Option<(u16, &'static str, String)>;

fn serve(stream: impl Read + Write, manner: Manner, ledger: &Mutex<Ledger>) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader) {
        let Request {
            line,
            key,
            api_key,
            body,
        } = request;
        let (method, path) = line.split_once(' ').unwrap();
        let path = path.split(' ').next().unwrap();
        let refused = manner == Manner::Guarded && api_key.as_deref() != Some(API_KEY);
        let answer = match method {
            _ if refused => Some((401, "", r#"{"code":"unauthorized"}"#.to_owned())),
            "POST" => ledger.lock().unwrap().post(manner, path, key, &body),
            _ => Some(ledger.lock().unwrap().get(path)),
        };
        let Some((status, headers, body)) = answer else {
            return;
        };
        let length = body.len();
        let text =
            format!("HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\n\r\n{body}");
        let stream = reader.get_mut();
        if stream.write_all(text.as_bytes()).is_err() || stream.flush().is_err() {
            return;
        }
    }
}

struct Request {
    line: String,
    key: Option<String>,
    api_key: Option<String>,
    body: Value,
}

fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader
        .read_line(&mut line)
        .ok()
        .filter(|count| *count > 0)?;
    let (mut key, mut api_key, mut length) = (None, None, 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else {
            break;
        };
        match name {
            "Idempotency-Key" => key = Some(value.to_owned()),
            "X-Api-Key" => api_key = Some(value.to_owned()),
            "Content-Length" => length = value.parse().unwrap(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Some(Request {
        line: line.trim_end().to_owned(),
        key,
        api_key,
        body,
    })
}

impl Ledger {
    fn post(&mut self, manner: Manner, path: &str, key: Option<String>, body: &Value) -> Answer {
        self.requests += 1;
        let turn = self.requests % 10;
        let refusal = (503, "", r#"{"status":503,"code":"queue_full"}"#.to_owned());
        match (manner, turn) {
            (Manner::LosesAnswers | Manner::ForgetsKeys, 3) => return None,
            (Manner::LiesOnce, 3) => {
                if self.requests == 3 {
                    self.apply(manner, key, body);
                }
                return Some(refusal);
            }
            (
                Manner::Honest
                | Manner::LosesAnswers
                | Manner::ForgetsKeys
                | Manner::LiesOnce
                | Manner::Guarded,
                _,
            ) => {}
        }
        let body = if path == "/transactions" {
            let items = body["transfers"].as_array().unwrap();
            let results = items
                .iter()
                .map(|item| (item["idempotency_key"].as_str().map(str::to_owned), item))
                .map(|(key, item)| self.apply(manner, key, item));
            json!({ "results": results.collect::<Vec<_>>() })
        } else {
            self.apply(manner, key, body)
        };
        if matches!(manner, Manner::LosesAnswers | Manner::ForgetsKeys) && turn == 7 {
            return None;
        }
        let replayed = if body["replayed"] == true {
            "idempotency-replayed: true\r\n"
        } else {
            ""
        };
        Some((200, replayed, body.to_string()))
    }

    fn apply(&mut self, manner: Manner, key: Option<String>, item: &Value) -> Value {
        let known = |transfer: &&Transfer| key.is_some() && transfer.key == key;
        if manner != Manner::ForgetsKeys
            && let Some(earlier) = self.transfers.iter().find(known)
        {
            return json!({ "txn_id": earlier.id, "status": "completed", "replayed": true });
        }
        self.ids += 1;
        let id = id_of(self.ids);
        self.transfers.push(Transfer {
            id: id.clone(),
            key,
            from: item["from"].as_u64().unwrap(),
            to: item["to"].as_u64().unwrap(),
            amount: format!("{}.00", item["amount"]),
        });
        json!({ "txn_id": id, "status": "completed" })
    }

    fn get(&mut self, path: &str) -> (u16, &'static str, String) {
        let shown = |found: &Transfer| {
            let Transfer {
                id,
                from,
                to,
                amount,
                ..
            } = found;
            format!(
                r#"{{"id":"{id}","from":{from},"to":{to},"amount":{amount},"status":"completed"}}"#
            )
        };
        if let Some(key) = path.strip_prefix("/transactions?idempotency_key=") {
            let found = self
                .transfers
                .iter()
                .filter(|t| t.key.as_deref() == Some(key));
            let rows: Vec<_> = found.map(shown).collect();
            return (200, "", format!("[{}]", rows.join(",")));
        }
        if let Some(id) = path.strip_prefix("/transactions/") {
            let found = self.transfers.iter().find(|found| found.id == id);
            let missing = (404, "", r#"{"code":"transaction_not_found"}"#.to_owned());
            return found.map_or(missing, |found| (200, "", shown(found)));
        }
        if path.ends_with("&cursor=second") {
            let page = match self.accounts.len() {
                0 => String::new(),
                1 => self.accounts[0].clone(),
                _ => self.accounts.remove(0),
            };
            return (200, "", format!("[{page}]"));
        }
        let funding = r#"[{"account_id":0,"currency":"JPY","balance":0,"min_balance":null}]"#;
        (200, "X-Next-Cursor: second\r\n", funding.to_owned())
    }
}
