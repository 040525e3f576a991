//! History: lists of transfers and of kept rejections, newest first.
//!
//! `transfers` has no index per account, which would cost the write path a
//! third of its speed. Each row names the previous transfer of each of its
//! accounts, so an account's history is walked by primary key from its newest
//! transfer back. Filters apply to the rows stepped on, and a page steps over
//! `walk_rows_max` rows at most: it may then hold fewer rows than asked for, or
//! none, while `next` says that there is more to walk.
//!
//! A cursor is the id of the last row stepped on. It names a row and no
//! position in a list, so rows committed meanwhile neither repeat nor hide one.

use std::fmt;

use tokio_postgres::Row;
use uuid::Uuid;

use crate::domain::{AccountId, TransferId};

use super::row::{self, Direction, Reading, Record};
use super::seek::{Sought, seek};
use super::{Lease, ReadError, Reader};

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
struct Span {
    low: Uuid,
    high: Uuid,
}

/// The accounts asked for, `direction` resolved.
#[derive(Clone, Copy, Debug)]
struct Sides {
    debit: Option<i64>,
    credit: Option<i64>,
    either: Option<i64>,
}

/// Where a walk begins.
#[derive(Clone, Copy, Debug)]
struct Start {
    account_id: i64,
    version: i64,
    first: Option<Uuid>,
}

impl Reader {
    /// One page of history.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub async fn history(&self, query: &HistoryQuery) -> Result<HistoryPage, HistoryError> {
        let unscoped = query.account.is_none() && query.debit.is_none() && query.credit.is_none();
        let filtered = query.category.is_some() || query.reference.is_some();
        if (unscoped && filtered) || (query.account.is_none() && query.direction.is_some()) {
            return Err(HistoryError::AccountNeeded);
        }
        let (Some(span), Some(sides)) = (span(query), sides(query)) else {
            return Ok(HistoryPage::default());
        };
        self.sessions
            .bounded(async {
                let mut lease = self.sessions.lease().await?;
                match (unscoped, query.status) {
                    (true, status) => self.all(&mut lease, query, status, span).await,
                    (false, ListedStatus::Completed) => {
                        self.walk(&mut lease, query, sides, span).await
                    }
                    (false, ListedStatus::Rejected) => {
                        self.rejections(&mut lease, query, sides, span).await
                    }
                }
            })
            .await
    }

    async fn all(
        &self,
        lease: &mut Lease,
        query: &HistoryQuery,
        status: ListedStatus,
        span: Span,
    ) -> Result<HistoryPage, HistoryError> {
        let sql = match status {
            ListedStatus::Completed => {
                include_str!("../../../../sql/queries/read_history_all.sql")
            }
            ListedStatus::Rejected => {
                include_str!("../../../../sql/queries/read_rejections_all.sql")
            }
        };
        let high = below(span.high, query.cursor);
        // One more than asked for tells whether there is a next page.
        let rows = lease
            .rows(sql, &[&high, &span.low, &(query.limit.rows() + 1)])
            .await?;
        let mut records = self.records(lease, query, &rows).await?;
        let more = usize::from(query.limit.get()) < records.len();
        records.truncate(usize::from(query.limit.get()));
        let next = records.last().map(Record::id).filter(|_| more);
        Ok(HistoryPage {
            rows: records,
            next,
        })
    }

    async fn walk(
        &self,
        lease: &mut Lease,
        query: &HistoryQuery,
        sides: Sides,
        span: Span,
    ) -> Result<HistoryPage, HistoryError> {
        let start = start(lease, query).await?;
        let Some(first) = start.first.filter(|first| span.low <= *first) else {
            return Ok(HistoryPage::default());
        };
        let sought = Sought {
            account_id: start.account_id,
            version: start.version,
            low: span.low,
            high: span.high,
        };
        let Some(first) = seek(lease, sought, first)
            .await?
            .filter(|first| span.low <= *first)
        else {
            return Ok(HistoryPage::default());
        };
        let steps_max = i32::try_from(self.walk_rows_max).unwrap_or(i32::MAX);
        let hits_max = i32::from(query.limit.get());
        let rows = lease
            .rows(
                include_str!("../../../../sql/queries/read_history_walk.sql"),
                &[
                    &start.account_id,
                    &first,
                    &steps_max,
                    &hits_max,
                    &span.low,
                    &span.high,
                    &sides.debit,
                    &sides.credit,
                    &sides.either,
                    &query.category,
                    &query.reference,
                ],
            )
            .await?;
        let Some(last) = rows.last() else {
            return Err(ReadError::corrupt("transfers", "id", first).into());
        };
        let last = Reading::new("transfers", last, start.account_id);
        let walked: Uuid = last.get("walked_id")?;
        let full = last.get::<i32>("step")? == steps_max || last.get::<i32>("hits")? == hits_max;
        let next = match last.get::<Option<Uuid>>("previous_id")? {
            Some(previous) if span.low <= previous => {
                if !full {
                    // The chain goes on, the walk did not: no such row, or not
                    // of this account.
                    return Err(ReadError::corrupt("transfers", "previous_id", walked).into());
                }
                Some(TransferId::from_uuid(walked))
            }
            Some(_) | None => None,
        };
        Ok(HistoryPage {
            rows: self.records(lease, query, &rows).await?,
            next,
        })
    }

    async fn rejections(
        &self,
        lease: &mut Lease,
        query: &HistoryQuery,
        sides: Sides,
        span: Span,
    ) -> Result<HistoryPage, HistoryError> {
        require_accounts(lease, query).await?;
        // One known side finds every row; the other one is then a filter.
        let (debit_index, credit_index) = match sides {
            Sides {
                debit: Some(debit), ..
            } => (Some(debit), None),
            Sides {
                credit: Some(credit),
                ..
            } => (None, Some(credit)),
            Sides { either, .. } => (either, either),
        };
        let rows_max = i64::from(self.walk_rows_max);
        let hits_max = query.limit.rows();
        let rows = lease
            .rows(
                include_str!("../../../../sql/queries/read_rejections_of.sql"),
                &[
                    &debit_index,
                    &credit_index,
                    &below(span.high, query.cursor),
                    &span.low,
                    &rows_max,
                    &hits_max,
                    &sides.debit,
                    &sides.credit,
                    &sides.either,
                    &query.category,
                    &query.reference,
                ],
            )
            .await?;
        let next = match rows.last() {
            None => None,
            Some(last) => {
                let last = Reading::new("rejections", last, "");
                let full =
                    last.get::<i64>("step")? == rows_max || last.get::<i64>("hits")? == hits_max;
                full.then_some(TransferId::from_uuid(last.get("walked_id")?))
            }
        };
        Ok(HistoryPage {
            rows: self.records(lease, query, &rows).await?,
            next,
        })
    }

    /// The rows that are hits (all of them where there is no such column).
    async fn records(
        &self,
        lease: &mut Lease,
        query: &HistoryQuery,
        rows: &[Row],
    ) -> Result<Vec<Record>, ReadError> {
        let hits: Vec<&Row> = rows
            .iter()
            .filter(|found| found.try_get("hit").unwrap_or(true))
            .collect();
        match query.status {
            ListedStatus::Completed => {
                let currencies = self.currencies_of(lease, hits.iter().copied()).await?;
                hits.into_iter()
                    .map(|found| row::transfer(found, &currencies).map(Record::Completed))
                    .collect()
            }
            ListedStatus::Rejected => hits
                .into_iter()
                .map(|found| row::rejection(found).map(Record::Rejected))
                .collect(),
        }
    }
}

/// `None`: no id can be in it.
fn span(query: &HistoryQuery) -> Option<Span> {
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
fn sides(query: &HistoryQuery) -> Option<Sides> {
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

fn below(high: Uuid, cursor: Option<TransferId>) -> Uuid {
    cursor.map_or(high, |cursor| high.min(cursor.uuid()))
}

/// The accounts named, each once.
fn named(query: &HistoryQuery) -> Vec<i64> {
    let mut named: Vec<i64> = [query.account, query.debit, query.credit]
        .into_iter()
        .flatten()
        .map(AccountId::get)
        .collect();
    named.sort_unstable();
    named.dedup();
    named
}

/// One row for each account named.
async fn require_accounts(
    lease: &mut Lease,
    query: &HistoryQuery,
) -> Result<Vec<Row>, HistoryError> {
    let named = named(query);
    let cursor = query.cursor.map(TransferId::uuid);
    let rows = lease
        .rows(
            include_str!("../../../../sql/queries/read_history_start.sql"),
            &[&named, &cursor],
        )
        .await?;
    for id in [query.account, query.debit, query.credit]
        .into_iter()
        .flatten()
    {
        if !rows.iter().any(|found| {
            found
                .try_get("id")
                .is_ok_and(|found: i64| found == id.get())
        }) {
            return Err(HistoryError::AccountNotFound(id));
        }
    }
    Ok(rows)
}

/// The account with the fewest transfers among those named, and its newest one,
/// or the one before the cursor's. Which account has the fewest can change from
/// page to page; a row of both serves as the cursor of either chain, a row of
/// one only on that one's.
async fn start(lease: &mut Lease, query: &HistoryQuery) -> Result<Start, HistoryError> {
    let rows = require_accounts(lease, query).await?;
    // By ascending version.
    for found in &rows {
        let reading = Reading::new("accounts", found, "");
        let account_id: i64 = reading.get("id")?;
        let first = if query.cursor.is_none() {
            reading.get("head_id")?
        } else if reading.get::<Option<i64>>("debit_account_id")? == Some(account_id) {
            reading.get("debit_previous_id")?
        } else if reading.get::<Option<i64>>("credit_account_id")? == Some(account_id) {
            reading.get("credit_previous_id")?
        } else {
            continue;
        };
        return Ok(Start {
            account_id,
            version: reading.get("version")?,
            first,
        });
    }
    Err(HistoryError::InvalidCursor)
}
