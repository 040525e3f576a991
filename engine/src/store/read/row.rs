//! Stored rows as Rust values, each checked as it is read.

use rust_decimal::Decimal;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;
use uuid::Uuid;

use crate::domain::currency::Currencies;
use crate::domain::{
    Account, AccountId, AccountStatus, AmountMinor, CommitId, Currency, CurrencyCode, CurrencyId,
    DecimalAmount, Details, RejectReason, TransferId,
};

use super::ReadError;
use crate::domain::Balance;

/// A row of `accounts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRow {
    /// What transfers need of it.
    pub account: Account,
    /// Free text to 255 characters.
    pub name: Option<String>,
    /// Free text to 255 characters.
    pub owner: Option<String>,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// Milliseconds since the Unix epoch.
    pub updated_at_ms: u64,
}

/// Which side of a transfer an account is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It pays.
    Debit,
    /// It receives.
    Credit,
}

impl Direction {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debit => "debit",
            Self::Credit => "credit",
        }
    }

    /// From the word on the wire.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "debit" => Some(Self::Debit),
            "credit" => Some(Self::Credit),
            _ => None,
        }
    }
}

/// One account's part in a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// Which side.
    pub direction: Direction,
    /// Which account.
    pub account_id: AccountId,
    /// Its balance after the transfer, minor units.
    pub balance: i64,
    /// Its version after the transfer.
    pub version: i64,
}

/// A row of `transfers`. It was created at `id.unix_ms()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferRow {
    /// `txn_id` on the wire.
    pub id: TransferId,
    /// The payer after it.
    pub debit: Side,
    /// The receiver after it.
    pub credit: Side,
    /// What moved.
    pub amount: AmountMinor,
    /// Of both accounts.
    pub currency: Currency,
    /// The batch that wrote it.
    pub commit_id: CommitId,
    /// Order within the batch, from 0.
    pub position: i32,
    /// Milliseconds since the Unix epoch, if given.
    pub effective_at_ms: Option<i64>,
    /// Shared by the transfers of one atomic call.
    pub group_id: Option<Uuid>,
    /// The transfer it takes back.
    pub reverses: Option<TransferId>,
    /// Optional facts.
    pub details: Details,
}

impl TransferRow {
    /// The part of that account; `None` if it has none.
    #[must_use]
    pub fn side_of(&self, account_id: AccountId) -> Option<Side> {
        [self.debit, self.credit]
            .into_iter()
            .find(|side| side.account_id == account_id)
    }
}

/// A row of `rejections`: a refusal kept because its request had a key. It was
/// created at `id.unix_ms()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectionRow {
    /// `txn_id` on the wire.
    pub id: TransferId,
    /// Would have paid.
    pub debit_account_id: AccountId,
    /// Would have received.
    pub credit_account_id: AccountId,
    /// As asked for; no minor units, since the accounts' currencies may differ.
    pub amount: DecimalAmount,
    /// Why.
    pub reason: RejectReason,
    /// The account the reason speaks of.
    pub account_id: AccountId,
    /// The batch that wrote it.
    pub commit_id: CommitId,
    /// The transfer it was to take back.
    pub reverses: Option<TransferId>,
    /// Optional facts.
    pub details: Details,
}

/// What an id names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Money moved.
    Completed(TransferRow),
    /// It was refused, and the refusal kept.
    Rejected(RejectionRow),
}

impl Record {
    /// Its id.
    #[must_use]
    pub const fn id(&self) -> TransferId {
        match self {
            Self::Completed(transfer) => transfer.id,
            Self::Rejected(rejection) => rejection.id,
        }
    }
}

/// A row being read: names the table in what it says of a bad column.
pub(super) struct Reading<'a> {
    table: &'static str,
    row: &'a Row,
    key: String,
}

impl<'a> Reading<'a> {
    pub(super) fn new(table: &'static str, row: &'a Row, key: impl ToString) -> Self {
        Self {
            table,
            row,
            key: key.to_string(),
        }
    }

    /// A column as it is; `Corrupt` if it has another type or is null.
    pub(super) fn get<T: FromSql<'a>>(&self, column: &'static str) -> Result<T, ReadError> {
        self.row
            .try_get(column)
            .map_err(|_source| self.corrupt(column))
    }

    pub(super) fn corrupt(&self, column: &'static str) -> ReadError {
        ReadError::corrupt(self.table, column, &self.key)
    }

    pub(super) fn account_id(&self, column: &'static str) -> Result<AccountId, ReadError> {
        AccountId::new(self.get(column)?).map_err(|_source| self.corrupt(column))
    }

    pub(super) fn transfer_id(
        &self,
        column: &'static str,
    ) -> Result<Option<TransferId>, ReadError> {
        Ok(self.get::<Option<Uuid>>(column)?.map(TransferId::from_uuid))
    }

    pub(super) fn unix_ms(&self, column: &'static str) -> Result<u64, ReadError> {
        u64::try_from(self.get::<i64>(column)?).map_err(|_source| self.corrupt(column))
    }

    /// The currency must be known: [`super::Reader`] loads all before.
    pub(super) fn currency(&self, currencies: &Currencies) -> Result<Currency, ReadError> {
        currencies
            .by_id(CurrencyId(self.get("currency_id")?))
            .ok_or_else(|| self.corrupt("currency_id"))
    }

    fn details(&self) -> Result<Details, ReadError> {
        Ok(Details {
            reference: self.get("reference")?,
            category: self.get("category")?,
            metadata: self.get("metadata")?,
        })
    }
}

pub(super) fn currency(row: &Row) -> Result<Currency, ReadError> {
    let id: i16 = row
        .try_get("id")
        .map_err(|_source| ReadError::corrupt("currencies", "id", "?"))?;
    let reading = Reading::new("currencies", row, id);
    Ok(Currency {
        id: CurrencyId(id),
        code: CurrencyCode::parse(reading.get("code")?).ok_or_else(|| reading.corrupt("code"))?,
        digits: u8::try_from(reading.get::<i16>("digits")?)
            .ok()
            .filter(|digits| *digits <= 4)
            .ok_or_else(|| reading.corrupt("digits"))?,
    })
}

pub(super) fn balance(
    row: &Row,
    account_id: AccountId,
    currencies: &Currencies,
) -> Result<Balance, ReadError> {
    let reading = Reading::new("accounts", row, account_id);
    Ok(Balance {
        account_id,
        balance: reading.get("balance")?,
        version: reading.get("version")?,
        currency: reading.currency(currencies)?,
    })
}

pub(super) fn account(row: &Row, currencies: &Currencies) -> Result<AccountRow, ReadError> {
    let reading = Reading::new("accounts", row, row.get::<_, i64>("id"));
    Ok(AccountRow {
        account: Account {
            id: reading.account_id("id")?,
            currency: reading.currency(currencies)?,
            balance: reading.get("balance")?,
            min_balance: reading.get("min_balance")?,
            debits_pending: reading.get("debits_pending")?,
            version: reading.get("version")?,
            head: reading.transfer_id("head_id")?,
            status: AccountStatus::from_code(reading.get("status")?)
                .ok_or_else(|| reading.corrupt("status"))?,
        },
        name: reading.get("name")?,
        owner: reading.get("owner")?,
        created_at_ms: reading.unix_ms("created_at_ms")?,
        updated_at_ms: reading.unix_ms("updated_at_ms")?,
    })
}

pub(super) fn transfer(row: &Row, currencies: &Currencies) -> Result<TransferRow, ReadError> {
    let id: Uuid = row
        .try_get("id")
        .map_err(|_source| ReadError::corrupt("transfers", "id", "?"))?;
    let reading = Reading::new("transfers", row, id);
    Ok(TransferRow {
        id: TransferId::from_uuid(id),
        debit: Side {
            direction: Direction::Debit,
            account_id: reading.account_id("debit_account_id")?,
            balance: reading.get("debit_balance")?,
            version: reading.get("debit_version")?,
        },
        credit: Side {
            direction: Direction::Credit,
            account_id: reading.account_id("credit_account_id")?,
            balance: reading.get("credit_balance")?,
            version: reading.get("credit_version")?,
        },
        amount: AmountMinor::new(reading.get("amount")?)
            .map_err(|_source| reading.corrupt("amount"))?,
        currency: reading.currency(currencies)?,
        commit_id: CommitId(reading.get("commit_id")?),
        position: reading.get("position")?,
        effective_at_ms: reading.get("effective_at_ms")?,
        group_id: reading.get("group_id")?,
        reverses: reading.transfer_id("reverses")?,
        details: reading.details()?,
    })
}

pub(super) fn rejection(row: &Row) -> Result<RejectionRow, ReadError> {
    let id: Uuid = row
        .try_get("id")
        .map_err(|_source| ReadError::corrupt("rejections", "id", "?"))?;
    let reading = Reading::new("rejections", row, id);
    let amount = Decimal::from_str_exact(reading.get("amount")?)
        .ok()
        .and_then(|amount| DecimalAmount::from_decimal(amount).ok())
        .ok_or_else(|| reading.corrupt("amount"))?;
    Ok(RejectionRow {
        id: TransferId::from_uuid(id),
        debit_account_id: reading.account_id("debit_account_id")?,
        credit_account_id: reading.account_id("credit_account_id")?,
        amount,
        reason: RejectReason::from_code(reading.get("reason")?)
            .ok_or_else(|| reading.corrupt("reason"))?,
        account_id: reading.account_id("account_id")?,
        commit_id: CommitId(reading.get("commit_id")?),
        reverses: reading.transfer_id("reverses")?,
        details: reading.details()?,
    })
}
