//! Demo accounts, opened and funded as a client would: over HTTP.
//!
//! Never: writes to the database; money enters only through transfers from the
//! funding account, which may go negative.
//! Invariant: doing it again changes nothing. Each chunk of accounts is funded
//! atomically in ascending order, so a chunk whose last account has received
//! money is complete.

use std::fmt;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{Client, ClientError};

/// The account all demo money comes from.
pub const FUNDING_ACCOUNT: u32 = 0;
/// What each demo account gets, in dollars: enough for hours of small transfers.
pub const FUNDING_AMOUNT: u32 = 10_000;
/// Accounts per call; the engine takes 1,000, transfers 8,192.
const CHUNK: u32 = 1_000;

/// Why the demo accounts are not there.
#[derive(Debug)]
pub enum DemoError {
    /// The engine did not answer.
    Call {
        /// The route.
        path: String,
        /// Why.
        source: ClientError,
    },
    /// The engine refused.
    Refused {
        /// The route.
        path: String,
        /// Its status.
        status: StatusCode,
        /// What it said.
        body: String,
    },
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call { path, source } => write!(f, "open demo accounts: {path}: {source}"),
            Self::Refused { path, status, body } => {
                write!(f, "open demo accounts: {path}: {status}: {body}")
            }
        }
    }
}

impl std::error::Error for DemoError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Call { source, .. } => Some(source),
            Self::Refused { .. } => None,
        }
    }
}

#[derive(Deserialize)]
struct AccountState {
    version: u64,
}

#[derive(Deserialize)]
struct BatchAnswer {
    results: Vec<BatchResult>,
}

#[derive(Deserialize)]
struct BatchResult {
    status: String,
}

/// Opens accounts 1 to `accounts` in USD and funds each once. Returns how many
/// were new.
///
/// # Errors
/// [`DemoError`] names the call.
pub async fn open_accounts(client: &Client, accounts: u32) -> Result<usize, DemoError> {
    let mut opened = 0;
    let mut first = 1;
    while first <= accounts {
        let last = accounts.min(first.saturating_add(CHUNK - 1));
        let missing = missing(client, first, last).await?;
        if !missing.is_empty() {
            open(client, &missing).await?;
            fund(client, &missing).await?;
            opened += missing.len();
        }
        first = last + 1;
    }
    Ok(opened)
}

/// Which of a chunk have no money yet. Asks for each only when the chunk was
/// begun with fewer accounts than are wanted now.
async fn missing(client: &Client, first: u32, last: u32) -> Result<Vec<u32>, DemoError> {
    if is_funded(client, last).await? {
        return Ok(Vec::new());
    }
    if !is_funded(client, first).await? {
        return Ok((first..=last).collect());
    }
    let mut missing = Vec::new();
    for id in first..=last {
        if !is_funded(client, id).await? {
            missing.push(id);
        }
    }
    Ok(missing)
}

/// Whether an account has received money; an account that is not there has not.
async fn is_funded(client: &Client, account: u32) -> Result<bool, DemoError> {
    Ok(version(client, account)
        .await?
        .is_some_and(|version| version > 0))
}

/// How many postings an account has; `None` if it is not there.
async fn version(client: &Client, account: u32) -> Result<Option<u64>, DemoError> {
    let path = format!("/accounts/{account}");
    let (status, body) = client.get(&path).await.map_err(|source| DemoError::Call {
        path: path.clone(),
        source,
    })?;
    match (status, serde_json::from_slice::<AccountState>(&body)) {
        (StatusCode::OK, Ok(state)) => Ok(Some(state.version)),
        (StatusCode::NOT_FOUND, _) => Ok(None),
        _ => Err(refused(&path, status, &body)),
    }
}

async fn open(client: &Client, ids: &[u32]) -> Result<(), DemoError> {
    if version(client, FUNDING_ACCOUNT).await?.is_none() {
        // Null must be written out: no limit, so it can go negative.
        let funding = json!({
            "account_id": FUNDING_ACCOUNT, "currency": "USD", "min_balance": null,
            "name": "demo funding",
        });
        post_accounts(client, &funding).await?;
    }
    let demo = ids
        .iter()
        .map(|id| json!({ "account_id": id, "currency": "USD" }));
    post_accounts(client, &demo.collect()).await
}

async fn post_accounts(client: &Client, accounts: &Value) -> Result<(), DemoError> {
    let (status, body) = post(client, "/accounts", accounts).await?;
    if status.is_success() {
        Ok(())
    } else {
        Err(refused("/accounts", status, &body))
    }
}

async fn fund(client: &Client, ids: &[u32]) -> Result<(), DemoError> {
    // Keyed, so that a run killed between the commit and the answer funds once.
    let transfers: Vec<Value> = ids
        .iter()
        .map(|id| {
            json!({
                "from": FUNDING_ACCOUNT, "to": id, "amount": FUNDING_AMOUNT,
                "reference": "demo funding", "idempotency_key": format!("demo-funding-{id}"),
            })
        })
        .collect();
    let request = json!({ "transfers": transfers, "atomic": true });
    let (status, body) = post(client, "/transactions", &request).await?;
    let complete = serde_json::from_slice::<BatchAnswer>(&body)
        .is_ok_and(|answer| answer.results.iter().all(|one| one.status == "completed"));
    if status == StatusCode::OK && complete {
        Ok(())
    } else {
        Err(refused("/transactions", status, &body))
    }
}

async fn post(
    client: &Client,
    path: &str,
    body: &Value,
) -> Result<(StatusCode, bytes::Bytes), DemoError> {
    client
        .post_json(path, body.to_string())
        .await
        .map_err(|source| DemoError::Call {
            path: path.to_owned(),
            source,
        })
}

fn refused(path: &str, status: StatusCode, body: &[u8]) -> DemoError {
    const SHOWN_CHARS: usize = 500;
    DemoError::Refused {
        path: path.to_owned(),
        status,
        body: String::from_utf8_lossy(body)
            .chars()
            .take(SHOWN_CHARS)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;
    use std::net::SocketAddr;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper::{Method, Request, Response};
    use hyper_util::rt::TokioIo;
    use tokio::net::TcpListener;

    use super::*;

    /// Accounts and how many postings each has.
    type Ledger = Arc<Mutex<BTreeMap<u64, u64>>>;

    /// Just enough of an engine: accounts open once, transfers need both sides.
    fn answer(ledger: &Ledger, method: &Method, path: &str, body: &Value) -> (u16, Value) {
        let mut accounts = ledger.lock().unwrap();
        if let Some(id) = path.strip_prefix("/accounts/") {
            return match accounts.get(&id.parse().unwrap()) {
                Some(version) => (200, json!({ "version": version })),
                None => (404, Value::Null),
            };
        }
        assert_eq!(method, Method::POST);
        match path {
            "/accounts" => {
                let list = body.as_array().cloned().unwrap_or(vec![body.clone()]);
                assert!(list.len() <= 1000, "the engine takes 1,000 at once");
                for account in &list {
                    let id = account["account_id"].as_u64().unwrap();
                    assert_eq!(account.get("min_balance").is_some(), id == 0);
                    if accounts.insert(id, 0).is_some() {
                        return (409, Value::Null);
                    }
                }
                (201, Value::Null)
            }
            "/transactions" => {
                let transfers = body["transfers"].as_array().unwrap();
                for transfer in transfers {
                    for side in ["from", "to"] {
                        let id = transfer[side].as_u64().unwrap();
                        *accounts.get_mut(&id).unwrap() += 1;
                    }
                }
                let results = vec![json!({ "status": "completed" }); transfers.len()];
                (200, json!({ "results": results }))
            }
            other => panic!("unexpected call {other}"),
        }
    }

    async fn serve(ledger: Ledger) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let ledger = Arc::clone(&ledger);
                let service = service_fn(move |request: Request<Incoming>| {
                    let ledger = Arc::clone(&ledger);
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                        let (status, answer) =
                            answer(&ledger, &parts.method, parts.uri.path(), &body);
                        let mut response =
                            Response::new(Full::new(Bytes::from(answer.to_string())));
                        *response.status_mut() = StatusCode::from_u16(status).unwrap();
                        Ok::<_, Infallible>(response)
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        address
    }

    #[tokio::test]
    async fn every_account_is_opened_and_funded_once_however_often_it_is_asked_for() {
        let ledger = Ledger::default();
        let address = serve(Arc::clone(&ledger)).await;
        let client = Client::new(address, Duration::from_secs(60));
        for (accounts, expected) in [
            (0, 0),
            (1, 1),
            (1, 0),
            // Grows inside a chunk, to its end, and past it.
            (700, 699),
            (1000, 300),
            (1000, 0),
            (2001, 1001),
            (2001, 0),
            (5, 0),
        ] {
            let opened = open_accounts(&client, accounts).await.unwrap();
            assert_eq!(opened, expected, "accounts={accounts}");
        }
        let ledger = ledger.lock().unwrap();
        assert_eq!(ledger.len(), 2002);
        assert_eq!(ledger[&0], 2001);
        assert!((1..=2001).all(|id| ledger[&id] == 1));
    }

    #[tokio::test]
    async fn a_refusal_names_the_call_and_what_was_said() {
        let ledger = Ledger::default();
        // Account 1 is there but empty, account 2 is in its way.
        ledger.lock().unwrap().extend([(0, 1), (1, 0), (2, 0)]);
        let client = Client::new(serve(ledger).await, Duration::from_secs(60));
        let error = open_accounts(&client, 2).await.unwrap_err();
        assert!(error.to_string().contains("/accounts: 409"), "{error}");
    }
}
