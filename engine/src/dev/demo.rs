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
/// Accounts per call; well under the batch call's 8,192.
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

async fn is_funded(client: &Client, account: u32) -> Result<bool, DemoError> {
    let path = format!("/accounts/{account}");
    let (status, body) = client.get(&path).await.map_err(|source| DemoError::Call {
        path: path.clone(),
        source,
    })?;
    match (status, serde_json::from_slice::<AccountState>(&body)) {
        (StatusCode::OK, Ok(state)) => Ok(state.version > 0),
        (StatusCode::NOT_FOUND, _) => Ok(false),
        _ => Err(refused(&path, status, &body)),
    }
}

async fn open(client: &Client, ids: &[u32]) -> Result<(), DemoError> {
    // Null must be written out: no limit, so it can go negative.
    let funding = json!({
        "account_id": FUNDING_ACCOUNT, "currency": "USD", "min_balance": null,
        "name": "demo funding",
    });
    let demo = ids
        .iter()
        .map(|id| json!({ "account_id": id, "currency": "USD" }));
    let list: Vec<Value> = std::iter::once(funding).chain(demo).collect();
    let (status, body) = post(client, "/accounts", &Value::from(list)).await?;
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
