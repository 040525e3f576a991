//! What each statement of the commit path does.
//!
//! READ COMMITTED: a statement sees what was committed when it began, except
//! that a locking read waits for whoever holds the row and then reads it anew.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::BytesMut;
use tokio::time::Instant;
use uuid::Uuid;

use super::cluster::{Cluster, Role, TxnId};
use super::session::{Session, changed_before, deadlock_check};
use super::tables::{AccountRow, KeyRow, Record, RejectionRow, TransferRow};
use super::wire::{self, Field, Said, Value};
use crate::plant::{Plant, planted};
use crate::simulation::{fail, now_ms, world};

/// The category of a transfer that the database refuses to store.
pub(in crate::simulation) const POISON: &str = "poison";

impl Session {
    /// A text statement.
    pub(super) async fn simple(&mut self, mut body: BytesMut) -> Result<(), Said> {
        let sql = wire::text(&mut body);
        let rows = if sql.contains("pg_is_in_recovery()") {
            vec![self.facts()]
        } else if sql.contains("nextval") {
            let next = |_| {
                vec![Value::Text(
                    self.alter(|cluster, _| cluster.next_commit_id().to_string()),
                )]
            };
            (0..256).map(next).collect()
        } else if sql.contains("FROM currencies") {
            super::super::CURRENCIES
                .map(|(id, code, digits)| {
                    [id.to_string(), code.to_owned(), digits.to_string()]
                        .map(Value::Text)
                        .to_vec()
                })
                .to_vec()
        } else if sql.contains("key_periods") {
            let world = world();
            let periods = world.config.periods.iter();
            periods
                .map(|(number, starts, ends)| {
                    [i64::from(*number), *starts, *ends]
                        .map(|number| Value::Text(number.to_string()))
                        .to_vec()
                })
                .collect()
        } else if sql.contains("pg_terminate_backend") {
            self.evict()
        } else if sql == "ROLLBACK" {
            self.roll_back();
            Vec::new()
        } else if sql.contains("set_config") {
            Vec::new()
        } else {
            fail(format!("the simulated database does not know: {sql}"));
            Vec::new()
        };
        for row in rows {
            wire::row(&row, &mut self.out);
        }
        wire::complete("SELECT", &mut self.out);
        wire::ready(if self.txn.is_some() { b'T' } else { b'I' }, &mut self.out);
        self.answer().await;
        Ok(())
    }

    fn facts(&self) -> Vec<Value> {
        let world = world();
        let cluster = world.cluster.borrow();
        let host = &cluster.hosts[self.host];
        let recovering = host.role == Role::Standby;
        vec![
            Value::Text(if recovering { "t" } else { "f" }.into()),
            Value::Text(if recovering { "on" } else { "off" }.into()),
            Value::Text(self.pid.to_string()),
            Value::Text(world.unix_ms(host.clock_ahead_ms).to_string()),
            Value::Text("7000000000000000001".into()),
            Value::or_null(
                (!recovering).then(|| host.timeline.to_string()),
                Value::Text,
            ),
        ]
    }

    /// `commit_evict_stalled.sql`.
    fn evict(&self) -> Vec<Vec<Value>> {
        let world = world();
        let cluster = world.cluster.borrow();
        let limit = u64::try_from(self.limits.idle_in_transaction.as_millis()).unwrap_or(0);
        let mut ended = Vec::new();
        for (pid, row) in &cluster.hosts[self.host].sessions {
            let stalled = row
                .idle_since_ms
                .is_some_and(|since| since + limit < now_ms());
            if *pid != self.pid && stalled {
                row.terminate.notify_one();
                ended.push(vec![Value::Text("t".into())]);
            }
        }
        ended
    }

    /// A prepared statement other than BEGIN, COMMIT and COPY.
    pub(super) async fn statement(&mut self, name: &str, arguments: &[Field]) -> Result<(), Said> {
        // Outside of a transaction a look-up is one of its own.
        let Some(txn) = self.txn.or(name.starts_with("find_").then_some(0)) else {
            return Err(Said::error("25P01"));
        };
        match name {
            "lock" => self.lock_accounts(txn, &arguments[0]).await?,
            "keys" => self.find_keys(&arguments[0]),
            "reversed" => self.find_reversed(&arguments[0]),
            "find_transfers" => self.find_transfers(&arguments[0]),
            "find_rejections" => self.find_rejections(&arguments[0]),
            "small" => self.small(txn, arguments).await?,
            "accounts" => self.update(txn, arguments, None)?,
            "accounts_with_terms" => {
                let terms = (&arguments[5], &arguments[6]);
                self.update(txn, arguments, Some(terms))?;
            }
            "number_row" => self.insert_commit(txn, arguments),
            "rejections" => self.insert_rejections(txn, arguments),
            "reversals" => self.insert_reversals(txn, arguments).await?,
            other => fail(format!("the simulated database has no statement {other}")),
        }
        wire::complete("SELECT 1", &mut self.out);
        Ok(())
    }

    /// A COPY that is complete.
    pub(super) async fn copy(&mut self, name: &str, rows: Vec<Vec<Field>>) -> Result<(), Said> {
        let Some(txn) = self.txn else {
            return Err(Said::error("25P01"));
        };
        if name == "copy_keys" {
            let keys = rows.iter().map(|row| KeyRow {
                key: row[0].uuid(),
                fingerprint: row[1].uuid(),
                txn_id: row[2].uuid(),
                period: row[3].i32(),
            });
            self.insert_keys(txn, keys.collect()).await?;
        } else {
            for row in &rows {
                self.insert_transfer(txn, transfer_of(row), row[16].text())?;
            }
        }
        wire::complete("COPY", &mut self.out);
        Ok(())
    }

    async fn lock_accounts(&mut self, txn: TxnId, ids: &Field) -> Result<(), Said> {
        let ids = ids.array();
        let for_update = self
            .prepared
            .get("lock")
            .is_some_and(|sql| sql.contains("FOR UPDATE"))
            && !planted(Plant::RowLockSkipped);
        for id in ids.iter().map(Field::i64) {
            let exists =
                self.see(|cluster, host| cluster.hosts[host].tables.accounts.contains_key(&id));
            if !exists {
                continue;
            }
            if for_update {
                self.lock_row(txn, id).await?;
            }
            let (row, now_ms) = self.see(|cluster, host| {
                let host = &cluster.hosts[host];
                let now_ms = host.txns.get(&txn).map_or(0, |txn| txn.now_ms);
                (host.tables.accounts[&id], now_ms)
            });
            let values = [
                Value::I64(id),
                Value::I64(row.balance),
                Value::or_null(row.min_balance, Value::I64),
                Value::I64(0),
                Value::I64(row.version),
                Value::I16(row.currency),
                Value::I16(row.status),
                Value::or_null(row.head, Value::Uuid),
                Value::Time(now_ms),
            ];
            wire::row(&values, &mut self.out);
        }
        Ok(())
    }

    async fn lock_row(&mut self, txn: TxnId, id: i64) -> Result<(), Said> {
        let since = Instant::now();
        let mut reported = false;
        loop {
            let tried = self.alter(|cluster, host| {
                let host = &mut cluster.hosts[host];
                let lock = host.locks.entry(id).or_default();
                let first = lock.waiters.front().is_none_or(|first| *first == txn);
                if lock.holder == Some(txn) || (lock.holder.is_none() && first) {
                    lock.holder = Some(txn);
                    lock.waiters.retain(|waiter| *waiter != txn);
                    return Ok(());
                }
                if !lock.waiters.contains(&txn) {
                    lock.waiters.push_back(txn);
                }
                Err(lock.holder.or(lock.waiters.front().copied()).unwrap_or(txn))
            });
            let Err(holder) = tried else {
                self.waits_for(txn, None);
                return Ok(());
            };
            if !reported {
                reported = true;
                self.must_not_wait_for(txn, holder, id);
            }
            self.wait_for(txn, holder, since).await?;
        }
    }

    /// The lock queue's promise: batches of one engine never meet in PostgreSQL,
    /// unless the engine has lost one of the sessions and cannot know.
    fn must_not_wait_for(&self, txn: TxnId, holder: TxnId, id: i64) {
        let world = world();
        let cluster = world.cluster.borrow();
        let host = &cluster.hosts[self.host];
        let alive = |txn: &TxnId| {
            let pid = host.txns.get(txn)?.pid;
            let row = host.sessions.get(&pid)?;
            (!row.cutter.is_over()).then_some(&row.engine)
        };
        if let (Some(own), Some(other)) = (alive(&txn), alive(&holder))
            && own == other
        {
            fail(format!(
                "lock queue: two batches of engine {own} wait for each other at account {id}"
            ));
        }
    }

    fn waits_for(&self, txn: TxnId, holder: Option<TxnId>) {
        let world = world();
        let mut cluster = world.cluster.borrow_mut();
        if let Some(txn) = cluster.hosts[self.host].txns.get_mut(&txn) {
            txn.waits_for = holder;
        }
    }

    /// Waits for another transaction to end, within the limits.
    async fn wait_for(&self, txn: TxnId, holder: TxnId, since: Instant) -> Result<(), Said> {
        self.waits_for(txn, Some(holder));
        let changed = {
            let world = world();
            let cluster = world.cluster.borrow();
            Rc::clone(&cluster.changed)
        };
        let look = deadlock_check(since);
        let lock_ends = since + self.limits.lock;
        let now = Instant::now();
        let mut wakes = lock_ends.min(self.statement_ends);
        if now < look {
            wakes = wakes.min(look);
        }
        if !changed_before(changed, wakes).await {
            let now = Instant::now();
            let said = if self.statement_ends <= now {
                Some("57014")
            } else if lock_ends <= now {
                Some("55P03")
            } else if self.in_a_circle(txn) {
                Some("40P01")
            } else {
                None
            };
            if let Some(said) = said {
                self.waits_for(txn, None);
                self.with(|cluster, host| {
                    for lock in cluster.hosts[host].locks.values_mut() {
                        lock.waiters.retain(|waiter| *waiter != txn);
                    }
                });
                return Err(Said::error(said));
            }
        }
        Ok(())
    }

    fn in_a_circle(&self, txn: TxnId) -> bool {
        let world = world();
        let cluster = world.cluster.borrow();
        let txns = &cluster.hosts[self.host].txns;
        let mut at = txn;
        for _ in 0..txns.len() {
            match txns.get(&at).and_then(|txn| txn.waits_for) {
                Some(next) if next == txn => return true,
                Some(next) => at = next,
                None => return false,
            }
        }
        false
    }

    fn find_keys(&mut self, keys: &Field) {
        let sql = self.prepared.get("keys").cloned().unwrap_or_default();
        let periods: Vec<i32> = sql
            .split("period = ")
            .skip(1)
            .filter_map(|rest| rest.split_whitespace().next()?.parse().ok())
            .collect();
        let keys = keys.array();
        let rows: Vec<KeyRow> = self.see(|cluster, host| {
            let stored = &cluster.hosts[host].tables.keys;
            let both = periods
                .iter()
                .flat_map(|period| keys.iter().map(move |key| (*period, key.uuid())));
            both.filter_map(|place| stored.get(&place).copied())
                .collect()
        });
        for row in rows {
            let values = [row.key, row.fingerprint, row.txn_id].map(Value::Uuid);
            wire::row(&values, &mut self.out);
        }
    }

    fn find_reversed(&mut self, ids: &Field) {
        for id in ids.array().iter().map(Field::uuid) {
            if self.see(|cluster, host| cluster.hosts[host].tables.reversals.contains_key(&id)) {
                wire::row(&[Value::Uuid(id)], &mut self.out);
            }
        }
    }

    fn find_transfers(&mut self, ids: &Field) {
        for id in ids.array().iter().map(Field::uuid) {
            let found =
                self.see(|cluster, host| cluster.hosts[host].tables.transfers.get(&id).cloned());
            if let Some(row) = found {
                let values = [
                    Value::Uuid(id),
                    Value::I64(row.debit),
                    Value::I64(row.credit),
                    Value::I64(row.amount),
                    Value::I16(row.currency),
                ];
                wire::row(&values, &mut self.out);
            }
        }
    }

    fn find_rejections(&mut self, ids: &Field) {
        for id in ids.array().iter().map(Field::uuid) {
            let found =
                self.see(|cluster, host| cluster.hosts[host].tables.rejections.get(&id).copied());
            if let Some(row) = found {
                let values = [
                    Value::Uuid(id),
                    Value::I16(row.reason),
                    Value::I64(row.account),
                ];
                wire::row(&values, &mut self.out);
            }
        }
    }

    async fn small(&mut self, txn: TxnId, arguments: &[Field]) -> Result<(), Said> {
        let columns: Vec<Vec<Field>> = arguments[4..20].iter().map(Field::array).collect();
        let count = usize::try_from(arguments[2].i32()).unwrap_or(0);
        for n in (0..count).take_while(|n| *n < columns[0].len()) {
            let at = |column: usize| &columns[column][n];
            let row = TransferRow {
                id: at(0).uuid(),
                debit: at(1).i64(),
                credit: at(2).i64(),
                amount: at(3).i64(),
                debit_balance: at(4).i64(),
                credit_balance: at(5).i64(),
                debit_version: at(6).i64(),
                credit_version: at(7).i64(),
                currency: at(8).i16(),
                debit_previous: at(9).uuid_or_null(),
                credit_previous: at(10).uuid_or_null(),
                group: at(11).uuid_or_null(),
                reverses: at(12).uuid_or_null(),
                reference: at(13).text(),
            };
            self.insert_transfer(txn, row, at(14).text())?;
        }
        let keys: Vec<Vec<Field>> = arguments[21..25].iter().map(Field::array).collect();
        let count = usize::try_from(arguments[20].i32()).unwrap_or(0);
        let keys = (0..count).map(|n| KeyRow {
            key: keys[0][n].uuid(),
            fingerprint: keys[1][n].uuid(),
            txn_id: keys[2][n].uuid(),
            period: keys[3][n].i32(),
        });
        self.insert_keys(txn, keys.collect()).await?;
        self.insert_commit(txn, &arguments[..4]);
        let accounts = [26, 27, 28, 29, 25].map(|at| arguments[at].clone());
        self.update(txn, &accounts, None)
    }

    fn insert_transfer(
        &self,
        txn: TxnId,
        row: TransferRow,
        category: Option<String>,
    ) -> Result<(), Said> {
        if category.as_deref() == Some(POISON) {
            return Err(Said::error("22P02"));
        }
        if row.amount <= 0 {
            return Err(Said::constraint("23514", "transfers_amount"));
        }
        if row.debit == row.credit {
            return Err(Said::constraint("23514", "transfers_sides"));
        }
        self.see(|cluster, host| {
            let host = &cluster.hosts[host];
            let twice = host.tables.transfers.contains_key(&row.id)
                || host
                    .txns
                    .values()
                    .any(|txn| txn.writes.transfers.iter().any(|other| other.id == row.id));
            if twice {
                return Err(Said::constraint("23505", "transfers_pkey"));
            }
            Ok(())
        })?;
        self.write(txn, |writes| writes.transfers.push(Rc::new(row)));
        Ok(())
    }

    /// A unique index: whoever meets a key that is being inserted waits to learn
    /// whether it will stay.
    async fn insert_keys(&mut self, txn: TxnId, rows: Vec<KeyRow>) -> Result<(), Said> {
        for row in rows {
            self.wait_unique(
                txn,
                format!("idempotency_keys_{}_pkey", row.period),
                |cluster, host| {
                    cluster.hosts[host]
                        .tables
                        .keys
                        .contains_key(&(row.period, row.key))
                },
                |writes| {
                    writes
                        .keys
                        .iter()
                        .any(|key| (key.period, key.key) == (row.period, row.key))
                },
            )
            .await?;
            self.write(txn, |writes| writes.keys.push(row));
        }
        Ok(())
    }

    async fn insert_reversals(&mut self, txn: TxnId, arguments: &[Field]) -> Result<(), Said> {
        let (originals, reversals) = (arguments[0].array(), arguments[1].array());
        for (original, reversal) in originals.iter().zip(&reversals) {
            let (original, reversal) = (original.uuid(), reversal.uuid());
            self.wait_unique(
                txn,
                "reversals_pkey".into(),
                |cluster, host| cluster.hosts[host].tables.reversals.contains_key(&original),
                |writes| writes.reversals.iter().any(|(other, _)| *other == original),
            )
            .await?;
            self.write(txn, |writes| writes.reversals.push((original, reversal)));
        }
        Ok(())
    }

    async fn wait_unique(
        &self,
        txn: TxnId,
        constraint: String,
        stored: impl Fn(&Cluster, usize) -> bool,
        written: impl Fn(&Record) -> bool,
    ) -> Result<(), Said> {
        let since = Instant::now();
        loop {
            let holder: Option<TxnId> = self.see(|cluster, host| {
                if stored(cluster, host) {
                    return Some(txn);
                }
                let host = &cluster.hosts[host];
                let logged = |other: &super::cluster::Txn| {
                    other
                        .lsn
                        .and_then(|lsn| host.log.get(lsn))
                        .is_some_and(|record| written(record))
                };
                host.txns
                    .iter()
                    .find(|(_, other)| written(&other.writes) || logged(other))
                    .map(|(id, _)| *id)
            });
            match holder {
                None => {
                    self.waits_for(txn, None);
                    return Ok(());
                }
                Some(holder) if holder == txn => {
                    return Err(Said::constraint("23505", constraint));
                }
                Some(holder) => self.wait_for(txn, holder, since).await?,
            }
        }
    }

    fn insert_commit(&self, txn: TxnId, arguments: &[Field]) {
        let row = (arguments[0].i64(), arguments[2].i32(), arguments[3].i32());
        self.write(txn, |writes| writes.commits.push(row));
    }

    fn insert_rejections(&self, txn: TxnId, arguments: &[Field]) {
        let (ids, accounts, reasons) = (
            arguments[1].array(),
            arguments[4].array(),
            arguments[6].array(),
        );
        for ((id, account), reason) in ids.iter().zip(&accounts).zip(&reasons) {
            let row = RejectionRow {
                reason: reason.i16(),
                account: account.i64(),
            };
            let id: Uuid = id.uuid();
            self.write(txn, |writes| writes.rejections.push((id, row)));
        }
    }

    /// The UPDATE of accounts; arguments are ids, balances, versions, heads, count.
    fn update(
        &self,
        txn: TxnId,
        arguments: &[Field],
        terms: Option<(&Field, &Field)>,
    ) -> Result<(), Said> {
        let [ids, balances, versions, heads] = [0, 1, 2, 3].map(|at| arguments[at].array());
        let terms = terms.map(|(statuses, limits)| (statuses.array(), limits.array()));
        let mut rows: BTreeMap<i64, AccountRow> = BTreeMap::new();
        for (n, id) in ids.iter().map(Field::i64).enumerate() {
            let before =
                self.see(|cluster, host| cluster.hosts[host].tables.accounts.get(&id).copied());
            // The count will be wrong: division by zero, on purpose.
            let Some(before) = before else {
                return Err(Said::error("22012"));
            };
            let (status, min_balance) = match &terms {
                Some((statuses, limits)) => (statuses[n].i16(), limits[n].i64_or_null()),
                None => (before.status, before.min_balance),
            };
            let row = AccountRow {
                balance: balances[n].i64(),
                version: versions[n].i64(),
                head: heads[n].uuid_or_null(),
                status,
                min_balance,
                ..before
            };
            if row.min_balance.is_some_and(|limit| row.balance < limit) {
                return Err(Said::constraint("23514", "accounts_min_balance"));
            }
            if row.status == 2 && row.balance != 0 {
                return Err(Said::constraint("23514", "accounts_closed_empty"));
            }
            if (row.version == 0) != row.head.is_none() {
                return Err(Said::constraint("23514", "accounts_head"));
            }
            rows.insert(id, row);
        }
        self.write(txn, |writes| writes.accounts.extend(rows));
        Ok(())
    }

    fn write(&self, txn: TxnId, act: impl FnOnce(&mut Record)) {
        self.alter(|cluster, host| {
            if let Some(txn) = cluster.hosts[host].txns.get_mut(&txn) {
                act(&mut txn.writes);
            }
        });
    }
}

/// A row of `commit_copy_transfers.sql`, columns in its order.
fn transfer_of(row: &[Field]) -> TransferRow {
    TransferRow {
        id: row[0].uuid(),
        debit: row[1].i64(),
        credit: row[2].i64(),
        amount: row[3].i64(),
        debit_balance: row[4].i64(),
        credit_balance: row[5].i64(),
        debit_version: row[6].i64(),
        credit_version: row[7].i64(),
        currency: row[10].i16(),
        debit_previous: row[11].uuid_or_null(),
        credit_previous: row[12].uuid_or_null(),
        group: row[13].uuid_or_null(),
        reverses: row[14].uuid_or_null(),
        reference: row[15].text(),
    }
}
