//! A ledger of its own for one test, filled with what the fake engine applied.

use std::collections::BTreeMap;

use tokio_postgres::NoTls;
use uuid::Uuid;

use super::fake::{Transfer, id_of};

const SCHEMA: [&str; 2] = [
    include_str!("../../../sql/migrations/V1__ledger.sql"),
    include_str!("../../../sql/migrations/V2__currencies.sql"),
];
/// One partition each: which one does not matter here.
const PARTITIONS: &str = "CREATE TABLE transfers_all PARTITION OF transfers DEFAULT;
CREATE TABLE rejections_all PARTITION OF rejections DEFAULT;
CREATE TABLE keys_all PARTITION OF idempotency_keys DEFAULT;";

#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) url: String,
    admin_url: String,
    name: String,
}

impl Database {
    /// None if there is no server for tests.
    pub(crate) fn create() -> Option<Self> {
        let admin_url = std::env::var_os("ENGINE_TEST_DATABASE_URL")?;
        let admin_url = admin_url.into_string().unwrap();
        let name = format!("loadtest_{}", std::process::id());
        // The path of the URL is the database.
        let (base, query) = admin_url.split_once('?').unwrap_or((&admin_url, ""));
        let (server, _) = base.rsplit_once('/').unwrap();
        let url = format!("{server}/{name}?{query}");
        let database = Self {
            url,
            admin_url: admin_url.clone(),
            name,
        };
        execute(&admin_url, &format!("CREATE DATABASE {}", database.name));
        for part in SCHEMA {
            execute(&database.url, &format!("BEGIN;{part};COMMIT"));
        }
        execute(&database.url, PARTITIONS);
        Some(database)
    }

    /// Stores these transfers with both accounts' balances and versions.
    pub(crate) fn fill(&self, transfers: &[Transfer]) {
        let mut accounts = BTreeMap::<u64, (i64, u64, &str)>::new();
        let mut rows = Vec::new();
        let mut keys = Vec::new();
        for (
            position,
            Transfer {
                id,
                key,
                from,
                to,
                amount,
            },
        ) in transfers.iter().enumerate()
        {
            let minor: i64 = amount.replace('.', "").parse().unwrap();
            let mut post = |account: u64, by: i64| {
                let entry = accounts.entry(account).or_insert((0, 0, id));
                *entry = (entry.0 + by, entry.1 + 1, id);
                (entry.0, entry.1)
            };
            let ((debit, dv), (credit, cv)) = (post(*from, -minor), post(*to, minor));
            rows.push(format!(
                "({from},{to},{minor},{debit},{credit},{dv},{cv},1,{position},840,'{id}')"
            ));
            let key = key_hash(key.as_deref().unwrap());
            keys.push(format!("('{key}','{key}','{id}',1)"));
        }
        let accounts = accounts.iter().map(|(id, (balance, version, head))| {
            format!("({id},{balance},NULL,{version},840,'{head}')")
        });
        let accounts = accounts.collect::<Vec<_>>().join(",");
        execute(
            &self.url,
            &format!(
                "INSERT INTO accounts (id,balance,min_balance,version,currency_id,head_id) VALUES {accounts};
                 INSERT INTO transfers (debit_account_id,credit_account_id,amount,debit_balance,credit_balance,
                     debit_version,credit_version,commit_id,position,currency_id,id) VALUES {};
                 INSERT INTO idempotency_keys (key,fingerprint,txn_id,period) VALUES {}",
                rows.join(","),
                keys.join(",")
            ),
        );
    }

    /// The second transfer again under another id, as if it had been done twice.
    pub(crate) fn copy_a_transfer(&self) {
        execute(&self.url, &copy(2));
    }

    pub(crate) fn alter_a_transfer(&self) {
        let id = id_of(3);
        execute(
            &self.url,
            &format!("UPDATE transfers SET amount = amount + 1 WHERE id = '{id}'"),
        );
    }

    /// The fourth transfer again, with its key: as two engines might do it that both
    /// stood at a boundary of key periods.
    pub(crate) fn double_a_key(&self) {
        let (id, twin) = (id_of(4), twin_of(4));
        execute(
            &self.url,
            &format!(
                "{}; INSERT INTO idempotency_keys (key, fingerprint, txn_id, period)
                     SELECT key, fingerprint, '{twin}', 2 FROM idempotency_keys WHERE txn_id = '{id}'",
                copy(4)
            ),
        );
    }

    pub(crate) fn lose_a_transfer(&self) {
        let id = id_of(5);
        execute(
            &self.url,
            &format!("DELETE FROM transfers WHERE id = '{id}'"),
        );
    }

    pub(crate) fn overdraw(&self) {
        execute(
            &self.url,
            "ALTER TABLE accounts DROP CONSTRAINT accounts_min_balance;
             INSERT INTO accounts (id, balance, min_balance, currency_id) VALUES (5000, -7, 0, 840)",
        );
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let name = &self.name;
        execute(
            &self.admin_url,
            &format!("DROP DATABASE {name} WITH (FORCE)"),
        );
    }
}

/// An id between that of the numbered transfer and the next.
fn twin_of(number: u64) -> String {
    let id = id_of(number);
    format!("{}f", &id[..id.len() - 1])
}

fn copy(number: u64) -> String {
    let (id, twin) = (id_of(number), twin_of(number));
    format!(
        "INSERT INTO transfers (debit_account_id, credit_account_id, amount, debit_balance, credit_balance,
             debit_version, credit_version, commit_id, position, currency_id, id)
         SELECT debit_account_id, credit_account_id, amount, debit_balance, credit_balance,
             debit_version, credit_version, commit_id, position, currency_id, '{twin}'
           FROM transfers WHERE id = '{id}'"
    )
}

/// As the engine keeps a key of the principal `anonymous`.
fn key_hash(key: &str) -> Uuid {
    let mut layout = vec![1];
    for part in ["anonymous", key] {
        layout.extend_from_slice(&u64::try_from(part.len()).unwrap().to_le_bytes());
        layout.extend_from_slice(part.as_bytes());
    }
    Uuid::from_slice(&blake3::hash(&layout).as_bytes()[..16]).unwrap()
}

fn execute(url: &str, sql: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(async { drop(connection.await) });
        client.batch_execute(sql).await.unwrap();
    });
}
