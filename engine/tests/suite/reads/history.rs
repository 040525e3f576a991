//! Paging: every row exactly once, newest first, whatever is filtered.

use engine::clock::Clock;
use engine::domain::{Details, TransferId};
use engine::store::read::{
    Direction, HistoryError, HistoryPage, HistoryQuery, ListedStatus, PageLimit, ReadError, Reader,
    Record,
};
use engine::store::route::Route;
use tokio_postgres::Client;

use super::ledger::{Ledger, Random, account, details, now_ms};
use super::{reader, settings};
use crate::support;

const DAY_MS: u64 = 86_400_000;

pub(super) fn limit(rows: u16) -> PageLimit {
    PageLimit::new(rows).unwrap()
}

/// All pages, one after the other.
pub(super) async fn list(reader: &Reader, query: &HistoryQuery, context: &str) -> Vec<Record> {
    let mut query = query.clone();
    let mut listed: Vec<Record> = Vec::new();
    loop {
        let page = reader
            .history(&query)
            .await
            .unwrap_or_else(|error| panic!("{context}: {error:?}"));
        assert!(
            page.rows.len() <= usize::from(query.limit.get()),
            "{context}"
        );
        listed.extend(page.rows);
        assert!(
            page.next.is_none() || page.next != query.cursor,
            "{context}: the cursor stands still"
        );
        query.cursor = page.next;
        if query.cursor.is_none() {
            return listed;
        }
    }
}

/// What the list must be, by looking at every row.
pub(super) fn model(ledger: &Ledger, query: &HistoryQuery) -> Vec<Record> {
    let matches = |id: TransferId, debit: i64, credit: i64, details: &Details| {
        let account = query.account.map(|id| id.get());
        query.since_ms.is_none_or(|since| since <= id.unix_ms())
            && query.until_ms.is_none_or(|until| id.unix_ms() < until)
            && account.is_none_or(|id| id == debit || id == credit)
            && query.debit.is_none_or(|id| id.get() == debit)
            && query.credit.is_none_or(|id| id.get() == credit)
            && query.direction.is_none_or(|direction| match direction {
                Direction::Debit => account == Some(debit),
                Direction::Credit => account == Some(credit),
            })
            && (query.category.is_none() || query.category == details.category)
            && (query.reference.is_none() || query.reference == details.reference)
    };
    let mut rows: Vec<Record> = match query.status {
        ListedStatus::Completed => ledger
            .transfers
            .iter()
            .filter(|row| {
                let (debit, credit) = (row.debit.account_id.get(), row.credit.account_id.get());
                matches(row.id, debit, credit, &row.details)
            })
            .cloned()
            .map(Record::Completed)
            .collect(),
        ListedStatus::Rejected => ledger
            .rejections
            .iter()
            .filter(|row| {
                let (debit, credit) = (row.debit_account_id.get(), row.credit_account_id.get());
                matches(row.id, debit, credit, &row.details)
            })
            .cloned()
            .map(Record::Rejected)
            .collect(),
    };
    rows.reverse();
    rows
}

/// 300 rows over three months among five accounts, one of them busy.
async fn random_ledger(client: &Client, random: &mut Random) -> Ledger {
    let mut ledger = Ledger::new(client, 6).await;
    let base = now_ms(client).await;
    let mut unix_ms = base;
    for _ in 0..300 {
        // Several in one millisecond, some days apart.
        unix_ms += random.one_of(&[0, 0, 1, 5_000, DAY_MS]);
        let debit = random.one_of(&[0, 0, 1, 2, 3, 4]);
        let credit = (debit + 1 + i64::try_from(random.below(4)).unwrap()) % 5;
        let details = details(
            random.one_of(&[None, Some("r1"), Some("r2")]),
            random.one_of(&[None, Some("food")]),
        );
        if random.below(4) == 0 {
            ledger.reject(unix_ms, debit, credit, details);
        } else {
            ledger.transfer(unix_ms, debit, credit, details);
        }
    }
    ledger.write(client).await;
    ledger
}

fn random_query(ledger: &Ledger, random: &mut Random) -> HistoryQuery {
    let some_account = |random: &mut Random| {
        // 5 has no history.
        random
            .one_of(&[None, None, Some(0), Some(1), Some(2), Some(5)])
            .map(account)
    };
    let some_ms = |random: &mut Random| {
        let index = random.below(u64::try_from(ledger.transfers.len()).unwrap());
        let at = ledger.transfers[usize::try_from(index).unwrap()]
            .id
            .unix_ms();
        random.one_of(&[None, None, Some(at), Some(at + 1), Some(0), Some(u64::MAX)])
    };
    let mut query = HistoryQuery {
        account: some_account(random),
        debit: some_account(random),
        credit: some_account(random),
        direction: None,
        status: random.one_of(&[ListedStatus::Completed, ListedStatus::Rejected]),
        category: None,
        reference: None,
        since_ms: some_ms(random),
        until_ms: some_ms(random),
        limit: limit(random.one_of(&[1, 2, 7, 100, 1_000])),
        cursor: None,
    };
    if query.account.is_some() {
        query.direction = random.one_of(&[None, Some(Direction::Debit), Some(Direction::Credit)]);
    }
    if query.account.is_some() || query.debit.is_some() || query.credit.is_some() {
        query.category = random.one_of(&[None, Some("food".to_owned())]);
        query.reference = random.one_of(&[None, Some("r1".to_owned())]);
    }
    query
}

#[tokio::test]
async fn pages_hold_every_row_exactly_once_newest_first_with_balances() {
    let database = support::database().await;
    let link = database.connect().await;
    let seed = 0x5EED;
    let mut random = Random::new(seed);
    let ledger = random_ledger(&link.client, &mut random).await;
    for walk_rows_max in [1, 2, 13, 20_000] {
        let mut settings = settings(&database.url);
        settings.walk_rows_max = walk_rows_max;
        let reader = Reader::connect(&settings, Clock::System);
        for turn in 0..80 {
            let query = random_query(&ledger, &mut random);
            let context = format!("seed={seed} walk={walk_rows_max} turn={turn} {query:?}");
            let listed = list(&reader, &query, &context).await;
            assert_eq!(listed, model(&ledger, &query), "{context}");
        }
    }
}

#[tokio::test]
async fn rows_committed_between_pages_neither_repeat_nor_hide_a_row() {
    let database = support::database().await;
    let link = database.connect().await;
    let base = now_ms(&link.client).await;
    let mut ledger = Ledger::new(&link.client, 3).await;
    for n in 0..20 {
        ledger.transfer(base + n, 0, 1, Details::default());
    }
    ledger.write(&link.client).await;
    let reader = reader(&database.url);
    // Between these two, 0 has the shorter chain after the first page, 1 before.
    let mut query = HistoryQuery {
        debit: Some(account(0)),
        credit: Some(account(1)),
        limit: limit(6),
        ..HistoryQuery::default()
    };
    let expected = model(&ledger, &query);
    let mut listed = Vec::new();
    let mut turn = 0;
    loop {
        let page = reader.history(&query).await.unwrap();
        listed.extend(page.rows);
        let Some(next) = page.next else { break };
        query.cursor = Some(next);
        // Each turn, another one of the two gets longer, and newer rows match.
        ledger.transfer(base + 100 + turn, 0, 1, Details::default());
        for n in 0..4 {
            let busy = i64::from(turn % 2 == 0);
            ledger.transfer(base + 100 + turn + n, 2, busy, Details::default());
        }
        ledger.write(&link.client).await;
        turn += 1;
    }
    assert!(turn >= 3, "turns={turn}");
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn a_cursor_of_one_of_two_accounts_goes_on_along_that_one() {
    let database = support::database().await;
    let link = database.connect().await;
    let base = now_ms(&link.client).await;
    let mut ledger = Ledger::new(&link.client, 4).await;
    ledger.transfer(base, 0, 1, Details::default());
    for n in 1..9 {
        // 0's own; 1 has even more.
        ledger.transfer(base + n, 0, 2, Details::default());
        ledger.transfer(base + n, 3, 1, Details::default());
        ledger.transfer(base + n, 3, 1, Details::default());
    }
    ledger.write(&link.client).await;
    let mut settings = settings(&database.url);
    settings.walk_rows_max = 3;
    let reader = Reader::connect(&settings, Clock::System);
    let mut query = HistoryQuery {
        debit: Some(account(0)),
        credit: Some(account(1)),
        ..HistoryQuery::default()
    };
    let page = reader.history(&query).await.unwrap();
    // Short, and honest about it.
    assert_eq!(page.rows, []);
    query.cursor = page.next;
    assert!(query.cursor.is_some());
    // Now 0 is the longer one, but the cursor is a row of 0 alone.
    for n in 20..40 {
        ledger.transfer(base + n, 0, 2, Details::default());
    }
    ledger.write(&link.client).await;
    assert!(ledger.version(1) < ledger.version(0));
    let rest = list(&reader, &query, "").await;
    assert_eq!(rest.len(), 1);
    assert_eq!(rest[0].id(), ledger.transfers[0].id);
}

#[tokio::test]
async fn a_cursor_of_another_list_is_refused() {
    let database = support::database().await;
    let link = database.connect().await;
    let base = now_ms(&link.client).await;
    let mut ledger = Ledger::new(&link.client, 5).await;
    ledger.transfer(base, 0, 1, Details::default());
    ledger.transfer(base, 2, 3, Details::default());
    ledger.reject(base, 0, 1, Details::default());
    ledger.write(&link.client).await;
    let reader = reader(&database.url);
    let ask = |account_id, cursor| {
        let query = HistoryQuery {
            account: Some(account(account_id)),
            cursor: Some(cursor),
            ..HistoryQuery::default()
        };
        let reader = reader.clone();
        async move { reader.history(&query).await }
    };
    let of_others = ledger.transfers[1].id;
    let of_a_rejection = ledger.rejections[0].id;
    let of_nothing = TransferId::first_of_ms(base);
    for cursor in [of_others, of_a_rejection, of_nothing] {
        let answer = ask(0, cursor).await;
        assert!(
            matches!(answer, Err(HistoryError::InvalidCursor)),
            "{cursor}: {answer:?}"
        );
    }
    // An account without history has no cursor either.
    let answer = ask(4, ledger.transfers[0].id).await;
    assert!(
        matches!(answer, Err(HistoryError::InvalidCursor)),
        "{answer:?}"
    );
    // The oldest row is a good cursor: nothing comes after it.
    let answer = ask(0, ledger.transfers[0].id).await.unwrap();
    assert_eq!(answer, HistoryPage::default());
    let answer = ask(9, ledger.transfers[0].id).await;
    assert!(
        matches!(answer, Err(HistoryError::AccountNotFound(id)) if id == account(9)),
        "{answer:?}"
    );
}

#[tokio::test]
async fn filters_on_an_account_need_one() {
    let reader = reader("postgres://x@127.0.0.1:1/x");
    for query in [
        HistoryQuery {
            category: Some("food".to_owned()),
            ..HistoryQuery::default()
        },
        HistoryQuery {
            reference: Some("r1".to_owned()),
            ..HistoryQuery::default()
        },
        HistoryQuery {
            debit: Some(account(1)),
            direction: Some(Direction::Debit),
            ..HistoryQuery::default()
        },
    ] {
        let answer = reader.history(&query).await;
        assert!(
            matches!(answer, Err(HistoryError::AccountNeeded)),
            "{query:?}"
        );
    }
}

#[tokio::test]
async fn since_is_inclusive_and_until_is_exclusive() {
    let database = support::database().await;
    let link = database.connect().await;
    let base = now_ms(&link.client).await;
    let mut ledger = Ledger::new(&link.client, 2).await;
    for n in 0..5 {
        ledger.transfer(base + n, 0, 1, Details::default());
    }
    ledger.write(&link.client).await;
    let reader = reader(&database.url);
    for account_id in [None, Some(account(0))] {
        let query = HistoryQuery {
            account: account_id,
            since_ms: Some(base + 1),
            until_ms: Some(base + 3),
            ..HistoryQuery::default()
        };
        let times: Vec<u64> = list(&reader, &query, "")
            .await
            .iter()
            .map(|row| row.id().unix_ms() - base)
            .collect();
        assert_eq!(times, [2, 1]);
    }
}

#[tokio::test]
async fn a_page_ends_exactly_where_the_list_does() {
    let database = support::database().await;
    let link = database.connect().await;
    let base = now_ms(&link.client).await;
    let mut ledger = Ledger::new(&link.client, 2).await;
    for n in 0..3 {
        ledger.transfer(base + n, 0, 1, Details::default());
    }
    ledger.write(&link.client).await;
    let reader = reader(&database.url);
    for (rows, more) in [(2, true), (3, false), (4, false)] {
        for account_id in [None, Some(account(1))] {
            let query = HistoryQuery {
                account: account_id,
                limit: limit(rows),
                ..HistoryQuery::default()
            };
            let page = reader.history(&query).await.unwrap();
            assert_eq!(page.next.is_some(), more, "limit={rows} {account_id:?}");
        }
    }
    assert!(PageLimit::new(0).is_err());
    assert!(PageLimit::new(1_001).is_err());
    assert_eq!(PageLimit::new(1_000), Ok(PageLimit::MAX));
}

#[tokio::test]
async fn a_broken_chain_is_told_and_not_taken_for_the_end() {
    for breakage in [
        // A row is gone.
        "DELETE FROM transfers WHERE position = 2",
        // A link leads to a stranger's row.
        "UPDATE transfers SET debit_previous_id = (SELECT id FROM transfers WHERE position = 5) WHERE position = 3",
        // The newest one is gone.
        "DELETE FROM transfers WHERE position = 4",
    ] {
        let database = support::database().await;
        let link = database.connect().await;
        let base = now_ms(&link.client).await;
        let mut ledger = Ledger::new(&link.client, 4).await;
        for n in 0..5 {
            ledger.transfer(base + n, 0, 1, Details::default());
        }
        ledger.transfer(base, 2, 3, Details::default());
        ledger.write(&link.client).await;
        link.client.batch_execute(breakage).await.unwrap();
        let query = HistoryQuery {
            account: Some(account(0)),
            ..HistoryQuery::default()
        };
        let answer = reader(&database.url).history(&query).await;
        assert!(
            matches!(&answer, Err(HistoryError::Read(ReadError::Corrupt(at))) if at.table == "transfers"),
            "{breakage}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn the_distant_past_is_sought_where_partitions_have_the_indexes() {
    let database = support::database().await;
    let link = database.connect().await;
    let client = &link.client;
    let base = now_ms(client).await;
    let mut ledger = Ledger::new(client, 3).await;
    // A quiet account among a busy one, then two months of business.
    for n in 0..50 {
        ledger.transfer(base + n, 0, 1, Details::default());
        ledger.transfer(base + n, 2, 0, Details::default());
    }
    for n in 0..1_500 {
        ledger.transfer(base + 62 * DAY_MS + n, 0, 2, Details::default());
    }
    ledger.write(client).await;
    let mut settings = settings(&database.url);
    settings.walk_rows_max = 1_000;
    let reader = Reader::connect(&settings, Clock::System);
    let query = HistoryQuery {
        account: Some(account(0)),
        until_ms: Some(base + 20),
        limit: limit(10),
        ..HistoryQuery::default()
    };
    let expected = model(&ledger, &query);
    // Without indexes the first page only gets part of the way.
    let page = reader.history(&query).await.unwrap();
    assert_eq!(page.rows, []);
    assert!(page.next.is_some());
    assert_eq!(list(&reader, &query, "walked").await, expected);
    // With them on the partition of the oldest rows, it starts there.
    let partition: String = client
        .query_one(
            "SELECT tableoid::regclass::text FROM transfers ORDER BY id LIMIT 1",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    client
        .batch_execute(&format!(
            "CREATE INDEX ON {partition} (debit_account_id, id);
             CREATE INDEX ON {partition} (credit_account_id, id);"
        ))
        .await
        .unwrap();
    let page = reader.history(&query).await.unwrap();
    assert_eq!(page.rows, expected[..10]);
    assert_eq!(list(&reader, &query, "sought").await, expected);
    // The engine's own role may do all of this, too.
    let roles = include_str!("../../../../sql/roles.sql");
    client.batch_execute(roles).await.unwrap();
    settings.route = Route::direct(database.url_as("engine_app").parse().unwrap());
    let reader = Reader::connect(&settings, Clock::System);
    assert_eq!(list(&reader, &query, "engine_app").await, expected);
    // Nothing that old: told at once.
    let older = HistoryQuery {
        until_ms: Some(base),
        ..query
    };
    assert_eq!(
        reader.history(&older).await.unwrap(),
        HistoryPage::default()
    );
}
