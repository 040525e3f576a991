//! `until` in a month that is over starts there, by the indexes that `engine
//! maintain` built, and reads the page that the walk would have come to.

use engine::clock::Clock;
use engine::domain::{Details, TransferId};
use engine::store::maintain::{self, Settings};
use engine::store::read::{HistoryQuery, Reader};
use tokio_postgres::Client;

use super::history::{limit, list, model};
use super::ledger::{Ledger, account, details, now_ms};
use super::settings;
use crate::support::{self, TestDatabase, add_partition};

const DAY_MS: u64 = 86_400_000;
const MINUTE_MS: u64 = 60_000;
/// Enough on each account that a short cut is worth a look.
const ROWS: u64 = 1_100;

/// 1,100 transfers 90 days ago, between 0 and 1 and between 1 and 2, and 1,100 of
/// today on each of 0, 1 and 3. Account 3 has none of old.
async fn old_and_new(client: &Client) -> (Ledger, u64) {
    add_partition(client, "transfers", "transfers_old", 40..100).await;
    let mut ledger = Ledger::new(client, 4).await;
    let now = now_ms(client).await;
    let old = now - 90 * DAY_MS;
    for n in 0..ROWS {
        let (debit, credit) = [(0, 1), (1, 0), (2, 1)][usize::try_from(n % 3).unwrap()];
        let category = (n % 2 == 0).then_some("food");
        ledger.transfer(old + n * MINUTE_MS, debit, credit, details(None, category));
    }
    for n in 0..ROWS {
        ledger.transfer(now + n, 0, 1, Details::default());
        ledger.transfer(now + n, 3, 0, Details::default());
    }
    ledger.write(client).await;
    (ledger, old)
}

fn reader(database: &TestDatabase, walk_rows_max: u32) -> Reader {
    let mut settings = settings(&database.url);
    settings.walk_rows_max = walk_rows_max;
    Reader::connect(&settings, Clock::System)
}

#[tokio::test]
async fn a_page_of_last_year_is_the_same_with_and_without_the_indexes() {
    let database = support::database().await;
    let link = database.connect().await;
    let (ledger, old) = old_and_new(&link.client).await;
    // Far fewer steps than there are newer transfers: only a short cut gets there.
    let short = reader(&database, 50);
    let long = reader(&database, 20_000);
    let middle = old + ROWS / 2 * MINUTE_MS;
    let base = HistoryQuery {
        limit: limit(40),
        ..HistoryQuery::default()
    };
    let queries = [
        (Some(0), Some(middle), None),
        (Some(1), Some(middle), None),
        (Some(1), Some(middle + 1), Some("food")),
        // Above the rows, in the month; and 35 days ago, between it and the oldest
        // partition that a run on any day of a month makes.
        (Some(0), Some(old + ROWS * MINUTE_MS), None),
        (Some(0), Some(old + 55 * DAY_MS), None),
    ]
    .map(|(id, until_ms, category)| HistoryQuery {
        account: id.map(account),
        until_ms,
        category: category.map(str::to_owned),
        ..base.clone()
    });

    let mut walked = Vec::new();
    for query in &queries {
        let page = short.history(query).await.unwrap();
        assert_eq!(page.rows, [], "stuck among newer ones: {query:?}");
        assert!(page.next.is_some(), "{query:?}");
        walked.push(long.history(query).await.unwrap());
    }
    let report = maintain::run(&database.url, &Settings::default())
        .await
        .unwrap();
    assert_eq!(report.indexed.len(), 2, "{report}");
    for (query, walked) in queries.iter().zip(walked) {
        let context = format!("{query:?}");
        let expected = model(&ledger, query);
        assert!(40 < expected.len(), "{context}");
        assert_eq!(walked.rows, expected[..40], "{context}");
        let page = short.history(query).await.unwrap();
        assert!(!page.rows.is_empty(), "{context}");
        assert_eq!(page.rows, expected[..page.rows.len()], "{context}");
        assert_eq!(long.history(query).await.unwrap(), walked, "{context}");
        for reader in [&short, &long] {
            assert_eq!(list(reader, query, &context).await, expected, "{context}");
        }
    }
}

#[tokio::test]
async fn an_account_that_was_not_there_yet_is_told_at_once() {
    let database = support::database().await;
    let link = database.connect().await;
    let (_, old) = old_and_new(&link.client).await;
    let reader = reader(&database, 50);
    let query = HistoryQuery {
        account: Some(account(3)),
        until_ms: Some(old + DAY_MS),
        ..HistoryQuery::default()
    };
    let stuck = reader.history(&query).await.unwrap();
    assert!(stuck.next.is_some());
    maintain::run(&database.url, &Settings::default())
        .await
        .unwrap();
    let page = reader.history(&query).await.unwrap();
    assert_eq!((page.rows, page.next.map(TransferId::uuid)), (vec![], None));
}
