//! What may be asked of history, and what the answer looks like.

use std::fmt;

use uuid::Uuid;

use crate::domain::{AccountId, TransferId};

use super::ReadError;
use super::row::{Direction, Record};

/// Rows in one answer, `1..=1000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLimit(u16);

/// A page limit outside `1..=1000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidPageLimit;

impl PageLimit {
    /// The most.
    pub const MAX: Self = Self(1_000);

    /// # Errors
    /// [`InvalidPageLimit`] outside `1..=1000`.
    pub const fn new(rows: u16) -> Result<Self, InvalidPageLimit> {
        if rows == 0 || rows > Self::MAX.0 {
            return Err(InvalidPageLimit);
        }
        Ok(Self(rows))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    pub(super) fn rows(self) -> i64 {
        i64::from(self.0)
    }
}

impl Default for PageLimit {
    fn default() -> Self {
        Self(100)
    }
}

/// Which table is listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListedStatus {
    /// Transfers.
    #[default]
    Completed,
    /// Kept rejections.
    Rejected,
}

/// What to list. All conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryQuery {
    /// On either side.
    pub account: Option<AccountId>,
    /// `from=` on the wire.
    pub debit: Option<AccountId>,
    /// `to=` on the wire.
    pub credit: Option<AccountId>,
    /// The side that `account` is on; needs `account`.
    pub direction: Option<Direction>,
    /// Transfers or rejections.
    pub status: ListedStatus,
    /// Exactly that; needs an account on some side.
    pub category: Option<String>,
    /// Exactly that; needs an account on some side.
    pub reference: Option<String>,
    /// Created at or after, milliseconds since the Unix epoch.
    pub since_ms: Option<u64>,
    /// Created before, milliseconds since the Unix epoch.
    pub until_ms: Option<u64>,
    /// Rows at most.
    pub limit: PageLimit,
    /// `next` of the page before, of the same query.
    pub cursor: Option<TransferId>,
}

/// Some rows, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryPage {
    /// `limit` at most; possibly fewer or none although `next` is given.
    pub rows: Vec<Record>,
    /// The cursor of the next page; `None` at the end.
    pub next: Option<TransferId>,
}

/// Why there is no page.
#[derive(Debug)]
pub enum HistoryError {
    /// The cursor names no transfer of the accounts asked for.
    InvalidCursor,
    /// No such account.
    AccountNotFound(AccountId),
    /// `direction`, `category` or `reference` without the account they need:
    /// they are filters on one account's history.
    AccountNeeded,
    /// The database did not answer.
    Read(ReadError),
}

impl From<ReadError> for HistoryError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl fmt::Display for HistoryError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidCursor => formatter.write_str("the cursor is not of this list"),
            Self::AccountNotFound(id) => write!(formatter, "account {id} does not exist"),
            Self::AccountNeeded => formatter.write_str("this filter needs an account"),
            Self::Read(source) => source.fmt(formatter),
        }
    }
}

impl std::error::Error for HistoryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(source) => Some(source),
            Self::InvalidCursor | Self::AccountNotFound(_) | Self::AccountNeeded => None,
        }
    }
}

/// The ids that may be listed: `low <= id < high`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) low: Uuid,
    pub(super) high: Uuid,
}

/// The accounts asked for, `direction` resolved.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sides {
    pub(super) debit: Option<i64>,
    pub(super) credit: Option<i64>,
    pub(super) either: Option<i64>,
}

/// `None`: no id can be in it.
pub(super) fn span(query: &HistoryQuery) -> Option<Span> {
    // 48 bits of milliseconds, the time in an id, end in the year 10889.
    const UNIX_MS_MAX: u64 = (1 << 48) - 1;
    let first_of = |unix_ms| TransferId::first_of_ms(unix_ms).uuid();
    let low = match query.since_ms {
        None => Uuid::nil(),
        Some(since_ms) if UNIX_MS_MAX < since_ms => return None,
        Some(since_ms) => first_of(since_ms),
    };
    let high = match query.until_ms {
        Some(until_ms) if until_ms <= UNIX_MS_MAX => first_of(until_ms),
        Some(_) | None => Uuid::max(),
    };
    (low < high).then_some(Span { low, high })
}

/// `None`: no transfer can have these sides.
pub(super) fn sides(query: &HistoryQuery) -> Option<Sides> {
    let mut debit = query.debit;
    let mut credit = query.credit;
    let side = match query.direction {
        None => None,
        Some(Direction::Debit) => Some(&mut debit),
        Some(Direction::Credit) => Some(&mut credit),
    };
    if let (Some(side), Some(account)) = (side, query.account)
        && side.replace(account).is_some_and(|other| other != account)
    {
        return None;
    }
    if debit.is_some() && debit == credit {
        return None;
    }
    if let (Some(account), Some(debit), Some(credit)) = (query.account, debit, credit)
        && account != debit
        && account != credit
    {
        return None;
    }
    Some(Sides {
        debit: debit.map(AccountId::get),
        credit: credit.map(AccountId::get),
        either: query.account.map(AccountId::get),
    })
}
