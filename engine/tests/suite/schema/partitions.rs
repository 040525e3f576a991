//! Partitions are made ahead, and never under a commit's feet.

use std::time::Duration;

use engine::store::maintain::{self, MaintainError, MaintainReport, Settings};
use engine::store::migrate;
use tokio_postgres::Client;

use super::ledger;
use crate::support::{self, TestDatabase};

const DAY: Duration = Duration::from_secs(24 * 3_600);

pub(super) async fn maintain(database: &TestDatabase) -> MaintainReport {
    maintain::run(&database.url, &Settings::default())
        .await
        .unwrap()
}

pub(super) async fn texts(client: &Client, query: &str) -> Vec<String> {
    let rows = client.query(query, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

pub(super) async fn partitions(client: &Client, parent: &str) -> Vec<String> {
    texts(
        client,
        &format!(
            "SELECT inhrelid::regclass::text FROM pg_inherits
              WHERE inhparent = '{parent}'::regclass AND NOT inhdetachpending ORDER BY inhrelid"
        ),
    )
    .await
}

pub(super) async fn add_rejections_partition(
    client: &Client,
    name: &str,
    from_days: i32,
    to_days: i32,
) {
    support::add_partition(client, "rejections", name, to_days..from_days).await;
}

#[tokio::test]
async fn a_new_database_gets_a_year_of_months_and_its_key_periods() {
    let database = support::empty_database().await;
    migrate::run(&database.url, &migrate::Settings::default())
        .await
        .unwrap();
    let report = maintain(&database).await;
    assert_eq!(
        (
            report.ahead.transfers,
            report.ahead.rejections,
            report.ahead.keys
        ),
        (12, 12, 4)
    );
    let link = database.connect().await;
    let client = &link.client;
    assert_eq!(
        partitions(client, "idempotency_keys").await,
        (1..=5)
            .map(|period| format!("idempotency_keys_p{period}"))
            .collect::<Vec<_>>()
    );
    let periods = client
        .query_one(
            "SELECT min(starts_at) = date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC',
                    bool_and(ends_at - starts_at = interval '15 days'),
                    bool_and(gap IS NULL OR gap = interval '0')
               FROM (SELECT *, starts_at - lag(ends_at) OVER (ORDER BY period) AS gap
                       FROM key_periods) AS periods",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(
        (periods.get(0), periods.get(1), periods.get(2)),
        (true, true, true)
    );
    // Every day of the coming year has its place: an id of any time is taken.
    let missing: i64 = client
        .query_one(
            "SELECT count(*) FROM generate_series(now() - interval '1 hour', now() + interval '12 months', interval '1 day') AS at
              WHERE NOT EXISTS (
                    SELECT FROM pg_inherits i
                      JOIN pg_class c ON c.oid = i.inhrelid
                     WHERE i.inhparent = 'transfers'::regclass
                       AND c.relname = 'transfers_' || to_char(at AT TIME ZONE 'UTC', 'YYYY_MM'))",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(missing, 0);
    ledger::write(client).await;
    let homes = texts(
        client,
        "SELECT DISTINCT tableoid::regclass::text FROM transfers",
    )
    .await;
    let month = texts(
        client,
        "SELECT to_char(now() AT TIME ZONE 'UTC', '\"transfers_\"YYYY_MM')",
    )
    .await;
    assert_eq!(homes, month);
}

#[tokio::test]
async fn a_second_run_does_nothing() {
    let database = support::database().await;
    let report = maintain(&database).await;
    assert_eq!(
        (
            report.created.len(),
            report.dropped.len(),
            report.postponed.len()
        ),
        (0, 0, 0),
        "{report}"
    );
    assert!(!report.ahead.is_low());
}

#[tokio::test]
async fn runs_at_once_make_each_partition_once() {
    let database = support::empty_database().await;
    migrate::run(&database.url, &migrate::Settings::default())
        .await
        .unwrap();
    let (first, second) = tokio::join!(maintain(&database), maintain(&database));
    let mut created = [first.created, second.created].concat();
    let count = created.len();
    created.sort();
    created.dedup();
    assert_eq!(created.len(), count);
    let link = database.connect().await;
    let made = texts(&link.client, "SELECT inhrelid::regclass::text FROM pg_inherits i JOIN pg_class c ON c.oid = inhrelid AND c.relkind = 'r'").await;
    assert_eq!(made.len(), count);
}

#[tokio::test]
async fn partitions_have_what_they_cannot_inherit_and_all_indexes() {
    let database = support::database().await;
    let link = database.connect().await;
    let bare = texts(
        &link.client,
        "SELECT c.relname::text
           FROM pg_inherits i
           JOIN pg_class c ON c.oid = i.inhrelid AND c.relkind = 'r'
          WHERE NOT c.reloptions @> ARRAY['fillfactor=100', 'autovacuum_vacuum_insert_scale_factor=0.02']
             OR (SELECT count(*) FROM pg_index x JOIN pg_inherits p ON p.inhrelid = x.indexrelid
                  WHERE x.indrelid = c.oid AND x.indisvalid)
                <> (SELECT count(*) FROM pg_index x WHERE x.indrelid = i.inhparent)
             OR (SELECT count(*) FROM pg_constraint k WHERE k.conrelid = c.oid)
                <> (SELECT count(*) FROM pg_constraint k WHERE k.conrelid = i.inhparent)",
    )
    .await;
    assert_eq!(bare, [""; 0]);
}

#[tokio::test]
async fn partitions_are_made_beside_an_open_commit() {
    let database = support::database().await;
    let mut link = database.connect().await;
    ledger::write(&link.client).await;
    let commit = link.client.transaction().await.unwrap();
    commit
        .batch_execute(
            "SELECT test_more(test_commit(1, 0), 0, test_id((extract(epoch FROM now()) * 1000)::bigint + 1, 1), 0, 1, 5, NULL)",
        )
        .await
        .unwrap();
    let settings = Settings {
        months_ahead: 14,
        key_periods_ahead: 6,
        lock_wait: Duration::from_secs(5),
        ..Settings::default()
    };
    // Would end in a lock timeout if any of it needed more than commits allow.
    let report = maintain::run(&database.url, &settings).await.unwrap();
    assert_eq!(report.created.len(), 2 + 2 + 2, "{report}");
    commit.commit().await.unwrap();
}

#[tokio::test]
async fn a_partition_made_by_hand_across_a_month_is_told() {
    let database = support::empty_database().await;
    migrate::run(&database.url, &migrate::Settings::default())
        .await
        .unwrap();
    let link = database.connect().await;
    add_rejections_partition(&link.client, "rejections_by_hand", 400, -3).await;
    let error = maintain::run(&database.url, &Settings::default())
        .await
        .unwrap_err();
    assert!(matches!(error, MaintainError::Overlap { .. }), "{error:?}");
}

#[tokio::test]
async fn settings_that_would_lose_keys_are_refused() {
    let database = support::database().await;
    let with = |retention, key_periods_ahead| Settings {
        retention,
        key_periods_ahead,
        ..Settings::default()
    };
    let error = maintain::run(&database.url, &with(DAY - Duration::from_millis(1), 4)).await;
    assert!(matches!(error, Err(MaintainError::RetentionTooShort(_))));
    let error = maintain::run(&database.url, &with(DAY, 2)).await;
    assert!(matches!(error, Err(MaintainError::TooFewAhead(2))));
    maintain::run(&database.url, &with(DAY, 3)).await.unwrap();
}

#[tokio::test]
async fn a_database_without_a_ledger_is_told() {
    let database = support::empty_database().await;
    let error = maintain::run(&database.url, &Settings::default())
        .await
        .unwrap_err();
    assert!(matches!(error, MaintainError::NoSchema(_)), "{error:?}");
    assert!(error.to_string().contains("engine migrate"));
}

#[tokio::test]
async fn too_few_partitions_ahead_are_noticed() {
    let database = support::database().await;
    let link = database.connect().await;
    for (months_left, low) in [(3, false), (2, true)] {
        let late = texts(
            &link.client,
            &format!(
                "SELECT inhrelid::regclass::text FROM pg_inherits i
                   JOIN pg_class c ON c.oid = i.inhrelid
                  WHERE inhparent = 'transfers'::regclass
                    AND relname > to_char((now() AT TIME ZONE 'UTC') + interval '{months_left} months', '\"transfers_\"YYYY_MM')"
            ),
        )
        .await;
        for name in late {
            link.client
                .batch_execute(&format!("DROP TABLE {name}"))
                .await
                .unwrap();
        }
        let ahead = maintain::partitions_ahead(&link.client).await.unwrap();
        assert_eq!((ahead.transfers, ahead.is_low()), (months_left, low));
        assert_eq!((ahead.rejections, ahead.keys), (12, 4));
    }
}
