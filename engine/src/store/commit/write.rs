//! What the second round trip writes, statement by statement.
//!
//! Owns: the rows of each table a batch touches, in the order of its columns.
//! Never: waits for an answer; `commit` sends, reads and judges.

use std::io;

use hashbrown::HashMap;
use uuid::Uuid;

use super::CommitSession;
use crate::domain::fold::NewTerms;
use crate::domain::transfer::{NewKey, NewRejection, NewTransfer, TransferRequest};
use crate::domain::{Account, AccountId, CommitId, Details, TransferId};
use crate::plant::{Plant, planted};
use crate::store::wire::WireError;
use crate::store::wire::encode::{self, Argument};

/// Up to here one statement is cheaper than a COPY and its exchange of messages:
/// at 1 and 8 rows it saved 15 and 5 % of PostgreSQL's time, at 32 nothing
/// (`loadtest run` at 1, 16 and 64 connections, 2026-11-21).
const SMALL_TRANSFERS_MAX: usize = 16;

/// What a batch writes.
#[derive(Debug)]
pub struct Write<'a> {
    /// From [`Locked`].
    pub commit_id: CommitId,
    /// Which engine.
    pub engine_id: Uuid,
    /// From [`Locked`].
    pub database_ms: i64,
    /// In order: the index is the position.
    pub transfers: &'a [NewTransfer],
    /// Refusals to keep.
    pub rejections: &'a [NewRejection],
    /// Keys to keep.
    pub keys: &'a [NewKey],
    /// Terms to change.
    pub terms: &'a [NewTerms],
    /// Accounts as they stand after it.
    pub accounts: &'a HashMap<AccountId, Account>,
    /// What `request_index` of the rows points into.
    pub requests: &'a [&'a TransferRequest],
}

impl Write<'_> {
    /// What a transfer's request said besides accounts and amount.
    fn details(&self, row: &NewTransfer) -> Option<&Details> {
        self.requests.get(row.request_index)?.details.as_deref()
    }
}

impl CommitSession {
    /// Queues the second round trip.
    pub(super) fn ask_write(&mut self, write: &Write<'_>) -> Result<(), WireError> {
        let small = (1..=SMALL_TRANSFERS_MAX).contains(&write.transfers.len());
        if small && write.terms.is_empty() {
            self.ask_small(write)?;
        } else {
            self.ask_each_table(write)?;
        }
        self.ask_reversals(write)?;
        if !write.rejections.is_empty() {
            self.ask_rejections(write)?;
        }
        self.connection.execute("commit", &[])?;
        self.connection.sync();
        Ok(())
    }

    fn ask_each_table(&mut self, write: &Write<'_>) -> Result<(), WireError> {
        if !write.transfers.is_empty() {
            self.connection.execute("copy_transfers", &[])?;
            encode::copy(&mut self.connection.outgoing, |out| {
                copy_transfers(write, out)
            })?;
        }
        if write.terms.is_empty() {
            self.ask_accounts(write)?;
        } else {
            self.ask_accounts_with_terms(write)?;
        }
        if !write.keys.is_empty() {
            self.ask_keys(write)?;
        }
        let nothing = write.transfers.is_empty() && write.keys.is_empty() && write.terms.is_empty();
        if nothing && planted(Plant::ReplayUnconfirmed) {
            return Ok(());
        }
        self.connection.execute(
            "number_row",
            &[
                &write.commit_id.0,
                &write.engine_id,
                &count(write.transfers.len())?,
                &count(write.rejections.len())?,
            ],
        )
    }

    /// Transfers, keys, accounts and the `commits` row, in one statement.
    fn ask_small(&mut self, write: &Write<'_>) -> Result<(), WireError> {
        let accounts = AccountRows::of(write)?;
        let number = |value: fn(&NewTransfer) -> i64| -> Vec<i64> {
            write.transfers.iter().map(value).collect()
        };
        let id = |value: fn(&NewTransfer) -> Option<Uuid>| -> Vec<Option<Uuid>> {
            write.transfers.iter().map(value).collect()
        };
        let currencies: Vec<i16> = write
            .transfers
            .iter()
            .map(|row| row.currency.id.0)
            .collect();
        let detail = |text: fn(&Details) -> Option<&str>| -> Vec<Option<&str>> {
            let rows = write.transfers.iter();
            rows.map(|row| write.details(row).and_then(text)).collect()
        };
        let keys = self.key_rows(write);
        let key_id = |value: fn(&NewKey) -> Uuid| -> Vec<Uuid> {
            keys.iter().map(|(key, _)| value(key)).collect()
        };
        let periods: Vec<i32> = keys.iter().map(|(_, period)| *period).collect();
        self.connection.execute(
            "small",
            &[
                &write.commit_id.0,
                &write.engine_id,
                &count(write.transfers.len())?,
                &count(write.rejections.len())?,
                &id(|row| Some(row.id.uuid())),
                &number(|row| row.debit_account_id.get()),
                &number(|row| row.credit_account_id.get()),
                &number(|row| row.amount_minor),
                &number(|row| row.debit_balance),
                &number(|row| row.credit_balance),
                &number(|row| row.debit_version),
                &number(|row| row.credit_version),
                &currencies,
                &id(|row| row.debit_previous.map(TransferId::uuid)),
                &id(|row| row.credit_previous.map(TransferId::uuid)),
                &id(|row| row.group_id),
                &id(|row| row.reverses.map(TransferId::uuid)),
                &detail(|details| details.reference.as_deref()),
                &detail(|details| details.category.as_deref()),
                &detail(|details| details.metadata.as_deref()),
                &count(keys.len())?,
                &key_id(|key| key.key.hash),
                &key_id(|key| key.key.fingerprint),
                &key_id(|key| key.txn_id.uuid()),
                &periods,
                &accounts.count()?,
                &accounts.ids,
                &accounts.balances,
                &accounts.versions,
                &accounts.heads,
            ],
        )
    }

    /// Sorted, so that the index is entered from one side to the other; into both
    /// periods near a boundary (`periods` says why).
    fn key_rows<'a>(&self, write: &Write<'a>) -> Vec<(&'a NewKey, i32)> {
        let kept = write.keys.iter();
        let mut keys: Vec<&NewKey> = kept.filter(|_| !planted(Plant::KeyNotStored)).collect();
        keys.sort_unstable_by_key(|key| key.key.hash);
        let periods = self.periods.of(write.database_ms);
        periods
            .into_iter()
            .flat_map(|period| keys.iter().map(move |key| (*key, period)))
            .collect()
    }

    /// Each account once, as its last transfer of the batch left it.
    fn ask_accounts(&mut self, write: &Write<'_>) -> Result<(), WireError> {
        let rows = AccountRows::of(write)?;
        if rows.ids.is_empty() {
            return Ok(());
        }
        self.connection.execute(
            "accounts",
            &[
                &rows.ids,
                &rows.balances,
                &rows.versions,
                &rows.heads,
                &rows.count()?,
            ],
        )
    }

    /// The same with terms, in one statement: a limit lifted before an overdraft
    /// and an account closed after its last payment both pass the checks only if
    /// balance and terms change together.
    fn ask_accounts_with_terms(&mut self, write: &Write<'_>) -> Result<(), WireError> {
        let rows = AccountRows::of(write)?;
        let names: HashMap<i64, Option<&str>> = write
            .terms
            .iter()
            .filter_map(|terms| {
                let name = terms.name.as_ref()?;
                Some((terms.account_id.get(), name.as_deref()))
            })
            .collect();
        let renamed: Vec<i16> = rows
            .ids
            .iter()
            .map(|id| i16::from(names.contains_key(id)))
            .collect();
        let names: Vec<Option<&str>> = rows
            .ids
            .iter()
            .map(|id| names.get(id).copied().flatten())
            .collect();
        self.connection.execute(
            "accounts_with_terms",
            &[
                &rows.ids,
                &rows.balances,
                &rows.versions,
                &rows.heads,
                &rows.count()?,
                &rows.statuses,
                &rows.limits,
                &names,
                &renamed,
            ],
        )
    }

    fn ask_reversals(&mut self, write: &Write<'_>) -> Result<(), WireError> {
        let (originals, reversals): (Vec<Uuid>, Vec<Uuid>) = write
            .transfers
            .iter()
            .filter_map(|transfer| Some((transfer.reverses?.uuid(), transfer.id.uuid())))
            .unzip();
        if originals.is_empty() {
            return Ok(());
        }
        self.connection
            .execute("reversals", &[&originals, &reversals])
    }

    fn ask_keys(&mut self, write: &Write<'_>) -> Result<(), WireError> {
        let keys = self.key_rows(write);
        self.connection.execute("copy_keys", &[])?;
        encode::copy(&mut self.connection.outgoing, |out| {
            for (key, period) in keys {
                put_columns(4, out)?;
                encode::put_uuid(key.key.hash, out);
                encode::put_uuid(key.key.fingerprint, out);
                encode::put_uuid(key.txn_id.uuid(), out);
                encode::put_i32(period, out);
            }
            Ok(())
        })?;
        Ok(())
    }

    fn ask_rejections(&mut self, write: &Write<'_>) -> Result<(), WireError> {
        let rows: Vec<(&NewRejection, &TransferRequest)> = write
            .rejections
            .iter()
            .filter_map(|row| Some((row, *write.requests.get(row.request_index)?)))
            .collect();
        let amounts: Vec<String> = rows.iter().map(|(row, _)| row.amount.to_string()).collect();
        let column = |value: fn(&(&NewRejection, &TransferRequest)) -> i64| -> Vec<i64> {
            rows.iter().map(value).collect()
        };
        let detail = |text: fn(&Details) -> Option<&str>| -> Vec<Option<&str>> {
            rows.iter()
                .map(|(_, request)| request.details.as_deref().and_then(text))
                .collect()
        };
        let arguments: &[&dyn Argument] = &[
            &write.commit_id.0,
            &rows
                .iter()
                .map(|(row, _)| row.id.uuid())
                .collect::<Vec<Uuid>>(),
            &column(|(_, request)| request.debit_account_id.get()),
            &column(|(_, request)| request.credit_account_id.get()),
            &column(|(row, _)| row.account_id.get()),
            &amounts.iter().map(String::as_str).collect::<Vec<&str>>(),
            &rows
                .iter()
                .map(|(row, _)| row.reason.code())
                .collect::<Vec<i16>>(),
            &rows
                .iter()
                .map(|(_, request)| request.reverses.map(TransferId::uuid))
                .collect::<Vec<Option<Uuid>>>(),
            &detail(|details| details.reference.as_deref()),
            &detail(|details| details.category.as_deref()),
            &detail(|details| details.metadata.as_deref()),
        ];
        self.connection.execute("rejections", arguments)
    }
}

/// The accounts a batch changes, ascending, column by column.
#[derive(Debug, Default)]
struct AccountRows {
    ids: Vec<i64>,
    balances: Vec<i64>,
    versions: Vec<i64>,
    heads: Vec<Option<Uuid>>,
    statuses: Vec<i16>,
    limits: Vec<Option<i64>>,
}

impl AccountRows {
    fn of(write: &Write<'_>) -> Result<Self, WireError> {
        let sides = write
            .transfers
            .iter()
            .flat_map(|transfer| [transfer.debit_account_id, transfer.credit_account_id]);
        let terms = write.terms.iter().map(|terms| terms.account_id);
        let mut ids: Vec<AccountId> = sides.chain(terms).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut rows = Self::default();
        for id in ids {
            let account = write.accounts.get(&id).ok_or(WireError::Protocol(
                "a transfer of an account that was not locked",
            ))?;
            rows.ids.push(id.get());
            rows.balances.push(account.balance);
            rows.versions
                .push(account.version + i64::from(planted(Plant::VersionGap)));
            rows.heads.push(account.head.map(TransferId::uuid));
            rows.statuses.push(account.status.code());
            rows.limits.push(account.min_balance);
        }
        Ok(rows)
    }

    fn count(&self) -> Result<i32, WireError> {
        count(self.ids.len())
    }
}

fn count(rows: usize) -> Result<i32, WireError> {
    i32::try_from(rows).map_err(|_many| WireError::Protocol("a batch beyond INTEGER"))
}

fn put_columns(count: i16, out: &mut bytes::BytesMut) -> io::Result<()> {
    bytes::BufMut::put_i16(out, count);
    Ok(())
}

/// The rows of `commit_copy_transfers.sql`, columns in its order.
fn copy_transfers(write: &Write<'_>, out: &mut bytes::BytesMut) -> io::Result<()> {
    for (position, row) in (0_i32..).zip(write.transfers) {
        let details = write.details(row);
        put_columns(18, out)?;
        encode::put_uuid(row.id.uuid(), out);
        encode::put_i64(row.debit_account_id.get(), out);
        encode::put_i64(row.credit_account_id.get(), out);
        encode::put_i64(row.amount_minor, out);
        encode::put_i64(row.debit_balance, out);
        encode::put_i64(row.credit_balance, out);
        encode::put_i64(row.debit_version, out);
        encode::put_i64(row.credit_version, out);
        encode::put_i64(write.commit_id.0, out);
        encode::put_i32(position, out);
        encode::put_i16(row.currency.id.0, out);
        encode::put_uuid_or_null(row.debit_previous.map(TransferId::uuid), out);
        encode::put_uuid_or_null(row.credit_previous.map(TransferId::uuid), out);
        encode::put_uuid_or_null(row.group_id, out);
        encode::put_uuid_or_null(row.reverses.map(TransferId::uuid), out);
        encode::put_text_or_null(
            details.and_then(|details| details.reference.as_deref()),
            out,
        )?;
        encode::put_text_or_null(details.and_then(|details| details.category.as_deref()), out)?;
        encode::put_jsonb_or_null(details.and_then(|details| details.metadata.as_deref()), out)?;
    }
    Ok(())
}
