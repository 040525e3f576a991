//! Expired partitions go, neither early nor under a reader's feet.

use std::time::Duration;

use engine::store::maintain::{self, Settings};
use tokio_postgres::Client;

use super::partitions::{add_rejections_partition, maintain, partitions, texts};
use crate::support;

/// Moves all periods into the past. Not a multiple of their width, so that no
/// moved bound meets one that is still to be moved.
async fn age_periods(client: &Client, days: i32) {
    assert_ne!(days % 15, 0);
    client
        .execute(
            "UPDATE key_periods SET starts_at = starts_at - make_interval(days => $1),
                                    ends_at = ends_at - make_interval(days => $1)",
            &[&days],
        )
        .await
        .unwrap();
}

#[tokio::test]
async fn expired_periods_go_and_new_ones_follow_the_last() {
    let database = support::database().await;
    let link = database.connect().await;
    let client = &link.client;
    client
        .batch_execute(
            "INSERT INTO idempotency_keys
             SELECT md5(period::text)::uuid, md5('')::uuid, md5('')::uuid, period FROM key_periods",
        )
        .await
        .unwrap();
    // Periods end 15, 30, 45, 60, 75 days after today's midnight; 61 days later
    // the first is 46 to 47 days past its end, the second 31 to 32, the third 16.
    age_periods(client, 61).await;
    let report = maintain(&database).await;
    assert_eq!(
        report.dropped,
        ["public.idempotency_keys_p1", "public.idempotency_keys_p2"],
        "{report}"
    );
    assert_eq!(
        texts(
            client,
            "SELECT period::text FROM key_periods ORDER BY period"
        )
        .await,
        ["3", "4", "5", "6", "7", "8", "9"],
    );
    assert_eq!(
        texts(
            client,
            "SELECT period::text FROM idempotency_keys ORDER BY period"
        )
        .await,
        ["3", "4", "5"]
    );
    let unbroken: bool = client
        .query_one(
            "SELECT bool_and(gap = interval '0')
               FROM (SELECT starts_at - lag(ends_at) OVER (ORDER BY period) AS gap FROM key_periods) AS periods
              WHERE gap IS NOT NULL",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert!(unbroken);
    assert_eq!(
        texts(client, "SELECT relname::text FROM pg_class WHERE relname LIKE 'idempotency_keys_p_' AND relkind = 'r' ORDER BY 1").await.len(),
        7,
        "the dropped are gone from the disk"
    );
}

#[tokio::test]
async fn a_period_is_kept_until_the_retention_is_over() {
    let database = support::database().await;
    let link = database.connect().await;
    for (ends_at, dropped) in [
        ("now() - interval '30 days' + interval '1 hour'", 0),
        ("now() - interval '30 days' - interval '1 second'", 1),
    ] {
        link.client
            .batch_execute(&format!(
                "UPDATE key_periods SET starts_at = now() - interval '90 days', ends_at = {ends_at} WHERE period = 1"
            ))
            .await
            .unwrap();
        let report = maintain(&database).await;
        assert_eq!(report.dropped.len(), dropped, "{ends_at}: {report}");
    }
}

#[tokio::test]
async fn refusals_outlive_the_keys_that_point_at_them() {
    let database = support::database().await;
    let link = database.connect().await;
    add_rejections_partition(&link.client, "rejections_old", 100, 70).await;
    add_rejections_partition(&link.client, "rejections_younger", 70, 60).await;
    // A period that began before the old month ended is still there.
    link.client
        .batch_execute(
            "UPDATE key_periods SET starts_at = now() - interval '80 days', ends_at = now() - interval '20 days'
              WHERE period = 1",
        )
        .await
        .unwrap();
    assert_eq!(maintain(&database).await.dropped, [""; 0]);
    link.client
        .batch_execute(
            "UPDATE key_periods SET starts_at = now() - interval '50 days' WHERE period = 1",
        )
        .await
        .unwrap();
    assert_eq!(maintain(&database).await.dropped, ["public.rejections_old"]);
}

#[tokio::test]
async fn transfers_are_never_dropped() {
    let database = support::database().await;
    let link = database.connect().await;
    link.client
        .batch_execute(
            "CREATE TABLE transfers_1970 PARTITION OF transfers FOR VALUES
               FROM ('00000000-0000-0000-0000-000000000000') TO ('00000000-0001-0000-0000-000000000000')",
        )
        .await
        .unwrap();
    assert_eq!(maintain(&database).await.dropped, [""; 0]);
    assert!(
        partitions(&link.client, "transfers")
            .await
            .contains(&"transfers_1970".to_owned())
    );
}

#[tokio::test]
async fn what_is_still_being_read_is_dropped_by_a_later_run() {
    let database = support::database().await;
    let link = database.connect().await;
    age_periods(&link.client, 61).await;
    let mut reader = database.connect().await;
    let reading = reader.client.transaction().await.unwrap();
    reading
        .batch_execute("SELECT * FROM idempotency_keys")
        .await
        .unwrap();
    let settings = Settings {
        lock_wait: Duration::from_millis(200),
        ..Settings::default()
    };
    let report = maintain::run(&database.url, &settings).await.unwrap();
    assert_eq!(report.dropped, [""; 0], "{report}");
    assert_eq!(report.postponed, ["public.idempotency_keys_p1"]);
    // Meanwhile keys are looked up and written.
    link.client
        .batch_execute(
            "SELECT * FROM idempotency_keys;
             INSERT INTO idempotency_keys SELECT md5('')::uuid, md5('')::uuid, md5('')::uuid, 5",
        )
        .await
        .unwrap();
    reading.commit().await.unwrap();
    let report = maintain(&database).await;
    assert_eq!(
        report.dropped,
        ["public.idempotency_keys_p1", "public.idempotency_keys_p2"],
        "{report}"
    );
    assert_eq!(
        texts(
            &link.client,
            "SELECT period::text FROM key_periods WHERE period <= 2"
        )
        .await,
        [""; 0]
    );
}

#[tokio::test]
async fn a_run_killed_between_detach_and_drop_is_finished_and_strangers_tables_stay() {
    let database = support::database().await;
    let link = database.connect().await;
    age_periods(&link.client, 61).await;
    link.client
        .batch_execute(
            "ALTER TABLE idempotency_keys DETACH PARTITION idempotency_keys_p1;
             COMMENT ON TABLE idempotency_keys_p1 IS 'engine maintain: expired, being dropped';
             CREATE TABLE rejections_kept_by_hand (LIKE rejections)",
        )
        .await
        .unwrap();
    let report = maintain(&database).await;
    assert_eq!(
        report.dropped,
        ["public.idempotency_keys_p1", "public.idempotency_keys_p2"],
        "{report}"
    );
    link.client
        .batch_execute("SELECT FROM rejections_kept_by_hand")
        .await
        .unwrap();
}
