//! The ledger itself, asked in SQL.
//!
//! Owns: one connection, which can only read, and the ledger's table layout as
//! far as `verify` needs it.
//! Never: writes, or opens more than one connection.
//! Bound: one statement at a time, of at most a chunk's keys.
//! Invariant: look-ups go by primary key whatever the statistics say.

use std::collections::{HashMap, HashSet};

use tokio_postgres::Client;
use uuid::Uuid;

use super::args::DatabasePlan;
use super::ledger::{AskError, Books, FoundBy, Ledger, Question, Row, RowBooks, RowKind, Window};
use crate::journal::Amount;

/// Joined rather than `= ANY`: each id is looked for in its partition alone.
const FIND_KEYS: &str = "SELECT DISTINCT k.key, k.txn_id
  FROM unnest($1::uuid[]) AS asked (key) JOIN idempotency_keys k ON k.key = asked.key";
const FIND_TRANSFERS: &str =
    "SELECT t.id, t.debit_account_id, t.credit_account_id, t.amount, c.digits
  FROM unnest($1::uuid[]) AS asked (id) JOIN transfers t ON t.id = asked.id
  JOIN currencies c ON c.id = t.currency_id";
const FIND_REJECTIONS: &str = "SELECT r.id, r.debit_account_id, r.credit_account_id, r.amount::text
  FROM unnest($1::uuid[]) AS asked (id) JOIN rejections r ON r.id = asked.id";
/// Transfers that no key leads to, of the run's time and accounts.
const COUNT_KEYLESS: &str = "SELECT count(*) FROM transfers t
 WHERE t.id BETWEEN $1 AND $2
   AND t.debit_account_id BETWEEN $3 AND $4 AND t.credit_account_id BETWEEN $3 AND $4
   AND NOT EXISTS (SELECT FROM idempotency_keys k WHERE k.txn_id = t.id)";

// The engine's own proofs; $1 is their lower bound on ids.
const UNBALANCED: &str = include_str!("../../../sql/checks/ledger_unbalanced.sql");
const BELOW_MINIMUM: &str = include_str!("../../../sql/checks/account_minimum.sql");
const NO_SUM: &str = include_str!("../../../sql/checks/account_balance.sql");
const SHARED_ANSWER: &str = include_str!("../../../sql/checks/key_shared_answer.sql");

/// Statistics of tables that grew a moment ago must not turn thousands of
/// look-ups into a scan.
const LOOK_UP_SETTINGS: &str = "SET default_transaction_read_only = on; SET jit = off;
SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off";
const BOOKS_SETTINGS: &str = "RESET enable_seqscan; RESET enable_hashjoin; RESET enable_mergejoin";

#[derive(Debug)]
pub(super) struct Database {
    runtime: tokio::runtime::Runtime,
    client: Client,
    principal: String,
}

impl Database {
    pub(super) fn connect(plan: &DatabasePlan) -> Result<Self, AskError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(AskError::Io)?;
        let client = runtime.block_on(async {
            let (client, connection) = plan.database.connect().await?;
            // Ends with the client; its error is met again by the next statement.
            tokio::spawn(async { drop(connection.await) });
            client.batch_execute(LOOK_UP_SETTINGS).await?;
            let row = client.query_one("SELECT pg_is_in_recovery()", &[]).await?;
            if row.try_get(0)? {
                // What it has not replayed yet would be called missing.
                return Err(AskError::Usage(
                    "--database-url: this server is a standby, which may be behind; name the primary"
                        .to_owned(),
                ));
            }
            Ok(client)
        })?;
        Ok(Self {
            runtime,
            client,
            principal: plan.principal.clone(),
        })
    }

    /// What each key's hash leads to.
    async fn find_keys(&self, hashes: &[Uuid]) -> Result<HashMap<Uuid, Vec<Uuid>>, AskError> {
        let mut found = HashMap::<Uuid, Vec<Uuid>>::new();
        for row in self.client.query(FIND_KEYS, &[&hashes]).await? {
            found
                .entry(row.try_get(0)?)
                .or_default()
                .push(row.try_get(1)?);
        }
        Ok(found)
    }

    async fn find_rows(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, Row>, AskError> {
        let mut found = HashMap::new();
        for row in self.client.query(FIND_TRANSFERS, &[&ids]).await? {
            let (minor, digits) = (row.try_get(3)?, row.try_get(4)?);
            let amount = Amount::of_minor(minor, digits);
            insert(&mut found, &row, RowKind::Transfer, amount)?;
        }
        let missing: Vec<_> = ids.iter().filter(|id| !found.contains_key(*id)).collect();
        if missing.is_empty() {
            return Ok(found);
        }
        for row in self.client.query(FIND_REJECTIONS, &[&missing]).await? {
            let amount = Amount::parse(row.try_get(3)?);
            insert(&mut found, &row, RowKind::Rejection, amount)?;
        }
        Ok(found)
    }

    async fn count(&self, check: &str, since: Option<Uuid>) -> Result<u64, AskError> {
        let statement = format!("SELECT count(*) FROM (\n{check}\n) AS broken");
        let row = self.client.query_one(&statement, &[&since]).await?;
        Ok(u64::try_from(row.try_get::<_, i64>(0)?).unwrap_or(0))
    }

    async fn count_keyless(&self, window: &Window) -> Result<u64, AskError> {
        let Some((low, high)) = window.ids else {
            return Ok(0);
        };
        let account = |id: u64| i64::try_from(id).unwrap_or(i64::MAX);
        let (first, last) = (
            account(window.accounts_first),
            account(window.accounts_last),
        );
        let row = self
            .client
            .query_one(COUNT_KEYLESS, &[&low, &high, &first, &last])
            .await?;
        Ok(u64::try_from(row.try_get::<_, i64>(0)?).unwrap_or(0))
    }

    async fn read_books(&self, window: &Window) -> Result<Books, AskError> {
        self.client.batch_execute(BOOKS_SETTINGS).await?;
        let since = window.ids.map(|(low, _)| low);
        let unbalanced = format!(
            "SELECT coalesce(currency, currency_id::text), sum_of_balances::text FROM (\n{}\n) AS broken",
            UNBALANCED
        );
        let rows = self.client.query(&unbalanced, &[&None::<Uuid>]).await?;
        let pair = |row: &tokio_postgres::Row| Ok((row.try_get(0)?, row.try_get(1)?));
        let unbalanced = rows.iter().map(pair);
        Ok(Books {
            unbalanced: unbalanced.collect::<Result<_, tokio_postgres::Error>>()?,
            overdrafts: self.count(BELOW_MINIMUM, None).await?,
            rows: Some(RowBooks {
                balances_wrong: self.count(NO_SUM, None).await?,
                answers_shared: self.count(SHARED_ANSWER, since).await?,
                keyless: self.count_keyless(window).await?,
            }),
        })
    }
}

impl Ledger for Database {
    fn look_up(&mut self, questions: &[Question]) -> Result<Vec<Vec<Row>>, AskError> {
        let hash = |question: &Question| {
            let key = question.key.as_deref();
            key.map(|key| key_hash(&self.principal, key))
        };
        let hashes: Vec<Option<Uuid>> = questions.iter().map(hash).collect();
        let asked: HashSet<Uuid> = hashes.iter().flatten().copied().collect();
        let asked: Vec<Uuid> = asked.into_iter().collect();
        self.runtime.block_on(async {
            let keys = self.find_keys(&asked).await?;
            // The ids of each question, without repetition.
            let ids = questions.iter().zip(&hashes).map(|(question, hash)| {
                let by_key = hash.and_then(|hash| keys.get(&hash));
                let by_key = by_key.into_iter().flatten();
                let mut ids: Vec<_> = by_key.map(|id| (*id, FoundBy::Key)).collect();
                let named = question
                    .id
                    .filter(|id| ids.iter().all(|(key, _)| key != id));
                ids.extend(named.map(|id| (id, FoundBy::Id)));
                ids
            });
            let ids: Vec<Vec<(Uuid, FoundBy)>> = ids.collect();
            let wanted: HashSet<Uuid> = ids.iter().flatten().map(|(id, _)| *id).collect();
            let wanted: Vec<Uuid> = wanted.into_iter().collect();
            let rows = self.find_rows(&wanted).await?;
            let row = |(id, found_by): &(Uuid, FoundBy)| {
                let found_by = *found_by;
                rows.get(id).map(|row| Row { found_by, ..*row })
            };
            Ok(ids
                .iter()
                .map(|ids| ids.iter().filter_map(row).collect())
                .collect())
        })
    }

    fn books(&mut self, window: &Window) -> Result<Books, AskError> {
        self.runtime.block_on(self.read_books(window))
    }
}

fn insert(
    found: &mut HashMap<Uuid, Row>,
    row: &tokio_postgres::Row,
    kind: RowKind,
    amount: Option<Amount>,
) -> Result<(), AskError> {
    let id: Uuid = row.try_get(0)?;
    let account = |column| -> Result<u64, AskError> {
        Ok(u64::try_from(row.try_get::<_, i64>(column)?).unwrap_or(u64::MAX))
    };
    let amount = amount.ok_or_else(|| AskError::Unreadable {
        request: format!("transaction {id}"),
        problem: "its amount is no amount".to_owned(),
    })?;
    let row = Row {
        id,
        kind,
        found_by: FoundBy::Id,
        from: account(1)?,
        to: account(2)?,
        amount,
    };
    found.insert(id, row);
    Ok(())
}

/// How the ledger keeps a key: the first half of BLAKE3 of version, principal and
/// key, each preceded by its length. The engine promises never to change it
/// (`engine/src/domain/fingerprint.rs`, the golden values below).
fn key_hash(principal: &str, key: &str) -> Uuid {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[1]);
    for part in [principal, key] {
        let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
        hasher.update(&length.to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let mut half = [0; 16];
    half.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    Uuid::from_bytes(half)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_hashed_as_the_engine_does() {
        for (principal, key, hash) in [
            ("anonymous", "k", "91e28f82-8558-5f5e-0152-fb6a1d726a7e"),
            (
                "anonymous",
                "order-1",
                "93c681d9-5cb6-9308-fdbd-cfef3d220998",
            ),
            ("team-a", "order-1", "ebdeea08-6625-d5c7-2855-80d758af07de"),
        ] {
            assert_eq!(key_hash(principal, key).to_string(), hash);
        }
    }
}
