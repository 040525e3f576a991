//! Opening accounts: the one write outside a batch. No money moves.

use std::collections::BTreeMap;
use std::fmt;

use crate::domain::account::MinBalance;
use crate::domain::currency::Currencies;
use crate::domain::{AccountId, CurrencyCode, InvalidAmount};

use super::row::{self, AccountRow};
use super::{Lease, ReadError, Reader, durable};

/// An account to be opened, empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAccount {
    /// Chosen by the caller.
    pub id: AccountId,
    /// Fixed for good.
    pub currency: CurrencyCode,
    /// Zero or below: the account starts with nothing.
    pub min_balance: MinBalance,
    /// Free text to 255 characters.
    pub name: Option<String>,
    /// Free text to 255 characters.
    pub owner: Option<String>,
}

/// What became of a list of accounts. Only the first two leave a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// All exist as asked for, at least one since now; in the list's order.
    Created(Vec<AccountRow>),
    /// All existed as asked for already; in the list's order. Their balance,
    /// version and status may have moved on.
    Identical(Vec<AccountRow>),
    /// That id exists (or stands twice in the list) with other terms.
    Conflict(AccountId),
    /// No such currency.
    UnknownCurrency {
        /// Which item.
        account_id: AccountId,
        /// What it asked for.
        currency: CurrencyCode,
    },
    /// The limit does not fit the currency.
    InvalidMinBalance {
        /// Which item.
        account_id: AccountId,
        /// Why.
        reason: InvalidAmount,
    },
    /// The limit is above zero, where every account starts.
    MinBalanceAboveZero(AccountId),
}

/// Why it is not known that accounts were opened.
#[derive(Debug)]
pub enum OpenError {
    /// Nothing was opened.
    NotOpened(ReadError),
    /// The link broke, or the server warned, at COMMIT. All of the list may
    /// have been opened, or none; asking again is safe and tells.
    OutcomeUnknown(ReadError),
}

impl From<ReadError> for OpenError {
    fn from(error: ReadError) -> Self {
        Self::NotOpened(error)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOpened(source) => write!(formatter, "no account was opened: {source}"),
            Self::OutcomeUnknown(source) => {
                write!(formatter, "accounts may have been opened: {source}")
            }
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotOpened(source) | Self::OutcomeUnknown(source) => Some(source),
        }
    }
}

/// What an account is asked to be, comparable with what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Terms {
    currency_id: i16,
    min_balance: Option<i64>,
    name: Option<String>,
    owner: Option<String>,
}

impl Terms {
    fn of(row: &AccountRow) -> Self {
        Self {
            currency_id: row.account.currency.id.0,
            min_balance: row.account.min_balance,
            name: row.name.clone(),
            owner: row.owner.clone(),
        }
    }
}

/// The arrays of `read_accounts_open.sql`, by ascending id.
#[derive(Default)]
struct Columns {
    ids: Vec<i64>,
    currency_ids: Vec<i16>,
    min_balances: Vec<Option<i64>>,
    names: Vec<Option<String>>,
    owners: Vec<Option<String>>,
}

impl Reader {
    /// Opens all of them or none. The caller bounds the list's length.
    ///
    /// # Errors
    /// [`OpenError`] says whether anything may have been opened.
    pub async fn open_accounts(&self, accounts: &[NewAccount]) -> Result<Opened, OpenError> {
        let sessions = &self.sessions;
        let prepared = sessions.bounded(self.open_uncommitted(accounts)).await?;
        let (opened, Some(mut lease)) = prepared else {
            return Ok(prepared.0);
        };
        sessions
            .bounded(async move { lease.commit().await })
            .await
            .map_err(OpenError::OutcomeUnknown)?;
        Ok(opened)
    }

    /// The answer, and the session whose transaction must commit before it is
    /// given; no session, and nothing written, for a refusal.
    async fn open_uncommitted(
        &self,
        accounts: &[NewAccount],
    ) -> Result<(Opened, Option<Lease>), OpenError> {
        let mut lease = self.sessions.lease().await?;
        let currencies = self.currencies_for(&mut lease, accounts).await?;
        let wanted = match wanted(accounts, &currencies) {
            Ok(wanted) => wanted,
            Err(refused) => return Ok((refused, None)),
        };
        let columns = columns(&wanted);
        lease.begin().await?;
        let created = lease
            .rows(
                include_str!("../../../../sql/queries/read_accounts_open.sql"),
                &[
                    &columns.ids,
                    &columns.currency_ids,
                    &columns.min_balances,
                    &columns.names,
                    &columns.owners,
                ],
            )
            .await?;
        let stored = self.stored(&mut lease, &columns.ids, &currencies).await?;
        for (id, terms) in &wanted {
            let row = stored
                .get(id)
                .ok_or_else(|| ReadError::corrupt("accounts", "id", id))?;
            if Terms::of(row) != *terms {
                lease.rollback().await?;
                // "Exists with other terms" is an answer too.
                durable(&mut lease).await?;
                return Ok((Opened::Conflict(*id), None));
            }
        }
        // In the same transaction: an answer of nothing but old rows also waits
        // until they are durable.
        durable(&mut lease).await?;
        let rows = accounts
            .iter()
            .filter_map(|account| stored.get(&account.id).cloned())
            .collect();
        let opened = if created.is_empty() {
            Opened::Identical(rows)
        } else {
            Opened::Created(rows)
        };
        Ok((opened, Some(lease)))
    }

    async fn currencies_for(
        &self,
        lease: &mut Lease,
        accounts: &[NewAccount],
    ) -> Result<std::sync::Arc<Currencies>, ReadError> {
        let known = self.known_currencies();
        if accounts
            .iter()
            .all(|account| known.by_code(account.currency).is_some())
        {
            return Ok(known);
        }
        self.load_currencies(lease).await
    }

    async fn stored(
        &self,
        lease: &mut Lease,
        ids: &Vec<i64>,
        currencies: &Currencies,
    ) -> Result<BTreeMap<AccountId, AccountRow>, ReadError> {
        lease
            .rows(
                include_str!("../../../../sql/queries/read_accounts_some.sql"),
                &[ids],
            )
            .await?
            .iter()
            .map(|found| row::account(found, currencies).map(|row| (row.account.id, row)))
            .collect()
    }
}

fn wanted(
    accounts: &[NewAccount],
    currencies: &Currencies,
) -> Result<BTreeMap<AccountId, Terms>, Opened> {
    let mut wanted = BTreeMap::new();
    for account in accounts {
        let account_id = account.id;
        let currency = currencies
            .by_code(account.currency)
            .ok_or(Opened::UnknownCurrency {
                account_id,
                currency: account.currency,
            })?;
        let min_balance = account
            .min_balance
            .to_minor(currency)
            .map_err(|reason| Opened::InvalidMinBalance { account_id, reason })?;
        if min_balance.is_some_and(|least| least > 0) {
            return Err(Opened::MinBalanceAboveZero(account_id));
        }
        let terms = Terms {
            currency_id: currency.id.0,
            min_balance,
            name: account.name.clone(),
            owner: account.owner.clone(),
        };
        // Twice in one list is a repeat like any other.
        if wanted
            .insert(account_id, terms.clone())
            .is_some_and(|earlier| earlier != terms)
        {
            return Err(Opened::Conflict(account_id));
        }
    }
    Ok(wanted)
}

/// Ascending by id, the order in which the statement inserts: two lists then
/// wait for each other in one direction only.
fn columns(wanted: &BTreeMap<AccountId, Terms>) -> Columns {
    let mut columns = Columns::default();
    for (id, terms) in wanted {
        columns.ids.push(id.get());
        columns.currency_ids.push(terms.currency_id);
        columns.min_balances.push(terms.min_balance);
        columns.names.push(terms.name.clone());
        columns.owners.push(terms.owner.clone());
    }
    columns
}
