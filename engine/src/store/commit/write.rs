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
use crate::domain::{Account, AccountId, CommitId, TransferId};
use crate::store::wire::WireError;
use crate::store::wire::encode::{self, Argument};

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

impl CommitSession {
    /// Queues the second round trip.
    pub(super) fn ask_write(&mut self, write: &Write<'_>) -> Result<(), WireError> {
        if !write.transfers.is_empty() {
            self.connection.execute("copy_transfers", &[])?;
            encode::copy(&mut self.connection.outgoing, |out| {
                copy_transfers(write, out)
            })?;
            self.ask_reversals(write)?;
        }
        if write.terms.is_empty() {
            self.ask_accounts(write)?;
        } else {
            self.ask_accounts_with_terms(write)?;
        }
        if !write.keys.is_empty() {
            self.ask_keys(write)?;
        }
        if !write.rejections.is_empty() {
            self.ask_rejections(write)?;
        }
        let count = |rows: usize| {
            i32::try_from(rows).map_err(|_many| WireError::Protocol("a batch beyond INTEGER"))
        };
        self.connection.execute(
            "number_row",
            &[
                &write.commit_id.0,
                &write.engine_id,
                &count(write.transfers.len())?,
                &count(write.rejections.len())?,
            ],
        )?;
        self.connection.execute("commit", &[])?;
        self.connection.sync();
        Ok(())
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
                &rows.count(),
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
                &rows.count(),
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

    /// Sorted, so that the index is entered from one side to the other; into both
    /// periods near a boundary (`periods` says why).
    fn ask_keys(&mut self, write: &Write<'_>) -> Result<(), WireError> {
        let mut keys: Vec<&NewKey> = write.keys.iter().collect();
        keys.sort_unstable_by_key(|key| key.key.hash);
        let periods = self.periods.of(write.database_ms);
        self.connection.execute("copy_keys", &[])?;
        encode::copy(&mut self.connection.outgoing, |out| {
            for period in periods {
                for key in &keys {
                    put_columns(4, out)?;
                    encode::put_uuid(key.key.hash, out);
                    encode::put_uuid(key.key.fingerprint, out);
                    encode::put_uuid(key.txn_id.uuid(), out);
                    encode::put_i32(period, out);
                }
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
        let detail = |text: fn(&crate::domain::Details) -> Option<&str>| -> Vec<Option<&str>> {
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
            rows.versions.push(account.version);
            rows.heads.push(account.head.map(TransferId::uuid));
            rows.statuses.push(account.status.code());
            rows.limits.push(account.min_balance);
        }
        Ok(rows)
    }

    fn count(&self) -> i64 {
        i64::try_from(self.ids.len()).unwrap_or(i64::MAX)
    }
}

fn put_columns(count: i16, out: &mut bytes::BytesMut) -> io::Result<()> {
    bytes::BufMut::put_i16(out, count);
    Ok(())
}

/// The rows of `commit_copy_transfers.sql`, columns in its order.
fn copy_transfers(write: &Write<'_>, out: &mut bytes::BytesMut) -> io::Result<()> {
    for (position, row) in (0_i32..).zip(write.transfers) {
        let details = write
            .requests
            .get(row.request_index)
            .and_then(|request| request.details.as_deref());
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
