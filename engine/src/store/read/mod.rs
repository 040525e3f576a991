//! Everything the engine reads outside a commit, and the opening of accounts.
//!
//! Owns: balances, accounts, transfers, rejections and history as stored; the
//! fate of a key; the identity of the database.
//! Never: moves money, decides whether a transfer may happen (the fold does,
//! under the row locks), or answers a balance or a key's fate from a standby.
//! Bound: see [`super::pool`]; a page of history is 1,000 rows at most and
//! steps over `walk_rows_max`.
//! Invariant: an error says that nothing was changed, except
//! [`OpenError::OutcomeUnknown`], which says so.

mod dialect;
mod error;
mod history;
mod open;
mod query;
mod row;
mod seek;
mod settings;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use uuid::Uuid;

use crate::clock::Clock;
use crate::domain::currency::Currencies;
use crate::domain::{AccountId, CurrencyId, TransferId};

use super::pool::{Lease, PoolStatus, Sessions, TypedParameters};

pub use crate::domain::{Balance, DatabaseIdentity};
pub use dialect::Dialect;
pub use error::{Corruption, ReadError, TimeoutAt};
pub use open::{NewAccount, OpenError, Opened};
pub use query::{
    HistoryError, HistoryPage, HistoryQuery, InvalidPageLimit, ListedStatus, PageLimit,
};
pub use row::{AccountRow, Direction, Record, RejectionRow, Side, TransferRow};
pub use settings::ReadSettings;

/// Answers questions from the primary, and what may be a little old from a replica
/// if there is one. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {
    sessions: Sessions,
    replica: Option<Sessions>,
    /// Reads that went to the replica, and that could have but did not.
    replica_reads: Arc<[AtomicU64; 2]>,
    clock: Clock,
    dialect: Dialect,
    walk_rows_max: u32,
    /// Empty until first needed; replaced as a whole when a row names a
    /// currency that a migration added since. Lives as long as the reader.
    currencies: Arc<RwLock<Arc<Currencies>>>,
}

/// Who answered.
#[derive(Clone, Copy, Debug)]
enum Server {
    Replica,
    Primary,
}

/// What a key led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate {
    /// Of the request that used the key.
    pub fingerprint: Uuid,
    /// The row that answered it.
    pub txn_id: TransferId,
    /// That row; `None` if it is past its retention.
    pub record: Option<Record>,
}

impl Reader {
    /// Connects when first asked, so a database that is down is no error here.
    #[must_use]
    pub fn connect(settings: &ReadSettings, clock: Clock) -> Self {
        Self {
            sessions: Sessions::new(settings),
            replica: None,
            replica_reads: Arc::default(),
            clock,
            dialect: Dialect::default(),
            walk_rows_max: settings.walk_rows_max.max(1),
            currencies: Arc::default(),
        }
    }

    /// The same with a replica, for lists and look-ups; their time there is short,
    /// so that enough is left to ask the primary instead.
    #[must_use]
    pub fn with_replica(mut self, settings: &ReadSettings) -> Self {
        self.replica = Some(Sessions::new(settings));
        self
    }

    /// Reads answered by the replica, and by the primary because the replica was
    /// late, gone, or knew nothing of what was asked.
    #[must_use]
    pub fn replica_reads(&self) -> (u64, u64) {
        let [replica, primary] = &*self.replica_reads;
        (
            replica.load(Ordering::Relaxed),
            primary.load(Ordering::Relaxed),
        )
    }

    /// The replica, if it may be asked now.
    fn fresh_replica(&self) -> Option<&Sessions> {
        self.replica
            .as_ref()
            .filter(|replica| replica.is_fresh_replica())
    }

    /// Counts who answered what a replica may answer.
    fn count_read(&self, server: Server) {
        let [replica, primary] = &*self.replica_reads;
        match server {
            Server::Replica => replica.fetch_add(1, Ordering::Relaxed),
            Server::Primary if self.replica.is_some() => primary.fetch_add(1, Ordering::Relaxed),
            Server::Primary => 0,
        };
    }

    /// Closes every session, those in use once they are given back: they may
    /// lead to a server that is the primary no more.
    pub fn forget_sessions(&self) {
        self.sessions.forget();
    }

    /// How busy the pool is.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        self.sessions.status()
    }

    /// Closes the pool; later calls are [`ReadError::Unavailable`].
    pub fn close(&self) {
        self.sessions.close();
        if let Some(replica) = &self.replica {
            replica.close();
        }
    }

    /// Whether a primary answers.
    ///
    /// # Errors
    /// [`ReadError`], [`ReadError::NotPrimary`] among them.
    pub async fn ping(&self) -> Result<(), ReadError> {
        let row = self
            .one_row(include_str!("../../../../sql/queries/read_ping.sql"))
            .await?;
        if row::Reading::new("pg_is_in_recovery", &row, "").get("in_recovery")? {
            return Err(ReadError::NotPrimary);
        }
        Ok(())
    }

    /// Every currency, read now.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn currencies(&self) -> Result<Currencies, ReadError> {
        self.sessions
            .bounded(async {
                let mut lease = self.sessions.lease().await?;
                let currencies = self.load_currencies(&mut lease).await?;
                Ok((*currencies).clone())
            })
            .await
    }

    /// Which history the database has. To be asked again at every reconnect.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn identity(&self) -> Result<DatabaseIdentity, ReadError> {
        let row = self.one_row(self.dialect.identity_sql()).await?;
        self.dialect.identity(&row)
    }

    /// How far the database's clock is ahead of ours, in milliseconds, to
    /// within half the time the question took.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn clock_skew(&self) -> Result<i64, ReadError> {
        self.sessions
            .bounded(async {
                let sql = include_str!("../../../../sql/queries/read_clock.sql");
                let mut lease = self.sessions.lease().await?;
                // Asked twice: the first answer may include preparing it.
                lease.row(sql, &[]).await?;
                let before = self.clock.unix_ms();
                let row = lease.row(sql, &[]).await?;
                let after = self.clock.unix_ms();
                let row = row.ok_or_else(|| ReadError::corrupt("clock_timestamp", "", ""))?;
                let theirs: i64 = row::Reading::new("clock_timestamp", &row, "").get("unix_ms")?;
                let ours = i64::try_from(before.midpoint(after)).unwrap_or(i64::MAX);
                Ok(theirs.saturating_sub(ours))
            })
            .await
    }

    /// One account's balance, as last committed.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn balance(&self, id: AccountId) -> Result<Option<Balance>, ReadError> {
        self.sessions
            .bounded(async {
                let mut lease = self.sessions.lease().await?;
                let sql = include_str!("../../../../sql/queries/read_balance.sql");
                let Some(found) = lease.row(sql, &[&id.get()]).await? else {
                    return Ok(None);
                };
                let currencies = self.currencies_of(&mut lease, [&found]).await?;
                row::balance(&found, id, &currencies).map(Some)
            })
            .await
    }

    /// One account.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn account(&self, id: AccountId) -> Result<Option<AccountRow>, ReadError> {
        self.sessions
            .bounded(async {
                let mut lease = self.sessions.lease().await?;
                let sql = include_str!("../../../../sql/queries/read_account.sql");
                let Some(found) = lease.row(sql, &[&id.get()]).await? else {
                    return Ok(None);
                };
                let currencies = self.currencies_of(&mut lease, [&found]).await?;
                row::account(&found, &currencies).map(Some)
            })
            .await
    }

    /// Accounts by ascending id, those after `after`; fewer than `limit` are
    /// the last.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn accounts(
        &self,
        after: Option<AccountId>,
        limit: PageLimit,
    ) -> Result<Vec<AccountRow>, ReadError> {
        if let Some(replica) = self.fresh_replica()
            && let Ok(rows) = self.accounts_at(replica, after, limit).await
        {
            self.count_read(Server::Replica);
            return Ok(rows);
        }
        self.count_read(Server::Primary);
        self.accounts_at(&self.sessions, after, limit).await
    }

    async fn accounts_at(
        &self,
        sessions: &Sessions,
        after: Option<AccountId>,
        limit: PageLimit,
    ) -> Result<Vec<AccountRow>, ReadError> {
        sessions
            .bounded(async {
                let mut lease = sessions.lease().await?;
                let sql = include_str!("../../../../sql/queries/read_accounts_page.sql");
                let after = after.map_or(-1, AccountId::get);
                let rows = lease.rows(sql, &[&after, &limit.rows()]).await?;
                let currencies = self.currencies_of(&mut lease, &rows).await?;
                rows.iter()
                    .map(|found| row::account(found, &currencies))
                    .collect()
            })
            .await
    }

    /// What that id names: a transfer or a kept rejection. Rows never change, so a
    /// replica that has one is as good as the primary; that it has none says nothing.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn transfer(&self, id: TransferId) -> Result<Option<Record>, ReadError> {
        if let Some(replica) = self.fresh_replica()
            && let Ok(Some(record)) = self.transfer_at(replica, id).await
        {
            self.count_read(Server::Replica);
            return Ok(Some(record));
        }
        self.count_read(Server::Primary);
        self.transfer_at(&self.sessions, id).await
    }

    async fn transfer_at(
        &self,
        sessions: &Sessions,
        id: TransferId,
    ) -> Result<Option<Record>, ReadError> {
        sessions
            .bounded(async {
                let mut lease = sessions.lease().await?;
                self.record(&mut lease, id).await
            })
            .await
    }

    /// What became of the request with that key (the hash of scope and key).
    ///
    /// `None` is no promise: a request in flight may still commit. What is
    /// found is durable: after the look-up the same session writes WAL, commits
    /// synchronously and must not be warned.
    ///
    /// # Errors
    /// [`ReadError`], [`ReadError::NotDurable`] among them.
    pub async fn fate(&self, key_hash: Uuid) -> Result<Option<Fate>, ReadError> {
        self.sessions
            .bounded(async {
                let mut lease = self.sessions.lease().await?;
                let sql = include_str!("../../../../sql/queries/read_key.sql");
                let fate = match lease.row(sql, &[&key_hash]).await? {
                    None => None,
                    Some(found) => {
                        let reading = row::Reading::new("idempotency_keys", &found, key_hash);
                        let txn_id = TransferId::from_uuid(reading.get("txn_id")?);
                        Some(Fate {
                            fingerprint: reading.get("fingerprint")?,
                            txn_id,
                            // A later snapshot than the key's: the row committed
                            // with the key, so it shows at least as much.
                            record: self.record(&mut lease, txn_id).await?,
                        })
                    }
                };
                // Also when nothing was found: a former primary, cut off from
                // its standbys, must not say so.
                durable(&mut lease).await?;
                Ok(fate)
            })
            .await
    }

    async fn record(&self, lease: &mut Lease, id: TransferId) -> Result<Option<Record>, ReadError> {
        let sql = include_str!("../../../../sql/queries/read_transfer.sql");
        if let Some(found) = lease.row(sql, &[&id.uuid()]).await? {
            let currencies = self.currencies_of(lease, [&found]).await?;
            return row::transfer(&found, &currencies)
                .map(Record::Completed)
                .map(Some);
        }
        let sql = include_str!("../../../../sql/queries/read_rejection.sql");
        let found = lease.row(sql, &[&id.uuid()]).await?;
        found
            .map(|found| row::rejection(&found).map(Record::Rejected))
            .transpose()
    }

    async fn one_row(&self, sql: &'static str) -> Result<tokio_postgres::Row, ReadError> {
        self.sessions
            .bounded(async {
                let mut lease = self.sessions.lease().await?;
                lease
                    .row(sql, &[])
                    .await?
                    .ok_or_else(|| ReadError::corrupt("answer", "rows", "none"))
            })
            .await
    }

    /// Currencies that include all of those rows' (null ones aside).
    async fn currencies_of(
        &self,
        lease: &mut Lease,
        rows: impl IntoIterator<Item = &tokio_postgres::Row>,
    ) -> Result<Arc<Currencies>, ReadError> {
        let known = self.known_currencies();
        let all_known = rows.into_iter().all(|row| {
            row.try_get::<_, Option<i16>>("currency_id")
                .is_ok_and(|id| id.is_none_or(|id| known.by_id(CurrencyId(id)).is_some()))
        });
        if all_known {
            return Ok(known);
        }
        self.load_currencies(lease).await
    }

    fn known_currencies(&self) -> Arc<Currencies> {
        // The lock only guards the swap of one pointer: a panic elsewhere
        // cannot have left it half done.
        Arc::clone(
            &self
                .currencies
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    async fn load_currencies(&self, lease: &mut Lease) -> Result<Arc<Currencies>, ReadError> {
        let sql = include_str!("../../../../sql/queries/read_currencies.sql");
        let rows = lease.rows(sql, &[]).await?;
        let currencies = rows
            .iter()
            .map(row::currency)
            .collect::<Result<Vec<_>, _>>()?;
        let currencies = Arc::new(Currencies::new(currencies));
        *self
            .currencies
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::clone(&currencies);
        Ok(currencies)
    }
}

/// Makes what that session has read durable, or fails.
async fn durable(lease: &mut Lease) -> Result<(), ReadError> {
    lease
        .unwarned(async |lease| {
            lease
                .row(
                    include_str!("../../../../sql/queries/read_durable.sql"),
                    &[],
                )
                .await
        })
        .await
        .map(drop)
}
