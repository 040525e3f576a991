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

use tokio_postgres::Row;
use uuid::Uuid;

use crate::domain::{AccountId, TransferId};

use super::query::{
    HistoryError, HistoryPage, HistoryQuery, ListedStatus, Sides, Span, sides, span,
};
use super::row::{self, Reading, Record};
use super::seek::{Sought, seek};
use super::{Lease, ReadError, Reader, Server, Sessions};

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
        // An account or a cursor that the replica does not know is an error there.
        if let Some(replica) = self.fresh_replica()
            && let Ok(page) = self.page_at(replica, query, sides, span).await
        {
            self.count_read(Server::Replica);
            return Ok(page);
        }
        self.count_read(Server::Primary);
        self.page_at(&self.sessions, query, sides, span).await
    }

    async fn page_at(
        &self,
        sessions: &Sessions,
        query: &HistoryQuery,
        sides: Sides,
        span: Span,
    ) -> Result<HistoryPage, HistoryError> {
        let unscoped = query.account.is_none() && query.debit.is_none() && query.credit.is_none();
        sessions
            .bounded(async {
                let mut lease = sessions.lease().await?;
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
