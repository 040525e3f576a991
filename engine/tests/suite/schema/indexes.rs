//! `engine maintain` indexes months that are over, and no others, and keeps the
//! statistics of the partitioned tables.

use std::time::Duration;

use engine::store::maintain::{self, Extent, MaintainReport, Settings};
use tokio_postgres::Client;

use super::partitions::{maintain, texts};
use crate::support::{self, TestDatabase, add_partition};

const BOTH: [&str; 2] = [
    "public.transfers_old (debit_account_id, id)",
    "public.transfers_old (credit_account_id, id)",
];

/// A database whose `transfers_old` ended 40 days ago. Rows in it: one.
async fn with_a_closed_month() -> TestDatabase {
    let database = support::database().await;
    let link = database.connect().await;
    add_partition(&link.client, "transfers", "transfers_old", 40..100).await;
    insert(&link.client, "now() - interval '50 days'").await;
    database
}

async fn insert(client: &Client, made_at: &str) {
    client
        .batch_execute(&format!(
            "INSERT INTO transfers (debit_account_id, credit_account_id, amount, debit_balance,
                    credit_balance, debit_version, credit_version, commit_id, position, currency_id, id)
             SELECT 1, 2, 1, 0, 0, 1, 1, 1, 0, 840,
                    (lpad(to_hex((extract(epoch FROM {made_at}) * 1000)::bigint), 12, '0') || '70008000' || repeat('0', 12))::uuid"
        ))
        .await
        .unwrap();
}

/// Every index by account there is, with its table and whether it is of use.
async fn by_account(client: &Client) -> Vec<String> {
    texts(
        client,
        "SELECT pg_get_indexdef(indexrelid) || CASE WHEN indisvalid THEN '' ELSE ' INVALID' END
           FROM pg_index x
           JOIN pg_inherits i ON i.inhrelid = x.indrelid AND i.inhparent = 'transfers'::regclass
          WHERE NOT indisprimary
          ORDER BY 1 DESC",
    )
    .await
}

fn definition(name: &str, columns: &str) -> String {
    format!("CREATE INDEX {name} ON public.transfers_old USING btree ({columns})")
}

/// What there is when all is done, under the names PostgreSQL gives.
fn both_definitions() -> [String; 2] {
    [
        definition(
            "transfers_old_debit_account_id_id_idx",
            "debit_account_id, id",
        ),
        definition(
            "transfers_old_credit_account_id_id_idx",
            "credit_account_id, id",
        ),
    ]
}

#[track_caller]
fn check_did(report: &MaintainReport, indexed: &[&str], unfinished: &[&str], unindexed: &[&str]) {
    assert_eq!(report.indexed, indexed, "{report}");
    assert_eq!(report.unfinished, unfinished, "{report}");
    let still: Vec<&str> = report
        .unindexed
        .iter()
        .map(|one| one.index.as_str())
        .collect();
    assert_eq!(still, unindexed, "{report}");
    assert!(!report.busy_elsewhere, "{report}");
}

#[tokio::test]
async fn months_that_are_over_are_indexed_once_and_others_never() {
    let database = with_a_closed_month().await;
    let link = database.connect().await;
    let report = maintain(&database).await;
    check_did(&report, &BOTH, &[], &[]);
    assert!(
        report
            .to_string()
            .contains("indexed public.transfers_old (debit_account_id, id)\n"),
        "{report}"
    );
    assert_eq!(by_account(&link.client).await, both_definitions());
    check_did(&maintain(&database).await, &[], &[], &[]);
    assert_eq!(by_account(&link.client).await, both_definitions());
}

#[tokio::test]
async fn the_newest_of_the_months_that_are_over_comes_first() {
    let database = with_a_closed_month().await;
    let link = database.connect().await;
    add_partition(&link.client, "transfers", "transfers_older", 101..150).await;
    let report = maintain(&database).await;
    let order: Vec<bool> = report
        .indexed
        .iter()
        .map(|index| index.contains("transfers_older"))
        .collect();
    assert_eq!(order, [false, false, true, true], "{report}");
}

#[tokio::test]
async fn only_what_is_missing_is_built() {
    let database = with_a_closed_month().await;
    let link = database.connect().await;
    link.client
        .batch_execute(
            "CREATE INDEX by_hand ON transfers_old (debit_account_id, id);
             -- None of these finds an account's newest transfer.
             CREATE INDEX a ON transfers_old (credit_account_id);
             CREATE INDEX b ON transfers_old (credit_account_id) INCLUDE (id);
             CREATE INDEX c ON transfers_old (credit_account_id, id) WHERE category IS NULL;
             CREATE INDEX d ON transfers_old USING brin (credit_account_id, id);
             CREATE INDEX e ON transfers_old (id, credit_account_id);",
        )
        .await
        .unwrap();
    check_did(&maintain(&database).await, &BOTH[1..], &[], &[]);
    check_did(&maintain(&database).await, &[], &[], &[]);
}

#[tokio::test]
async fn an_index_whose_build_was_cut_off_is_replaced() {
    let database = with_a_closed_month().await;
    let link = database.connect().await;
    // A snapshot older than the build, as a report would have; it never reads
    // the old month.
    let mut reader = database.connect().await;
    let reading = reader.client.transaction().await.unwrap();
    reading
        .batch_execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT FROM accounts")
        .await
        .unwrap();
    let impatient = Settings {
        index_wait: Duration::from_millis(200),
        ..Settings::default()
    };
    let report = maintain::run(&database.url, &impatient).await.unwrap();
    check_did(&report, &[], &[], &BOTH[..1]);
    let [first, second] = both_definitions();
    assert_eq!(
        by_account(&link.client).await,
        [format!("{first} INVALID")],
        "the build was cut off"
    );
    reading.commit().await.unwrap();
    let report = maintain(&database).await;
    check_did(
        &report,
        &BOTH,
        &["public.transfers_old_debit_account_id_id_idx"],
        &[],
    );
    assert_eq!(by_account(&link.client).await, [first, second]);
}

#[tokio::test]
async fn a_cut_off_build_beside_a_finished_one_is_dropped_too() {
    let database = with_a_closed_month().await;
    let link = database.connect().await;
    maintain(&database).await;
    link.client
        .batch_execute(
            "CREATE INDEX cut_off ON transfers_old (credit_account_id, id);
             UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'cut_off'::regclass;",
        )
        .await
        .unwrap();
    let report = maintain(&database).await;
    check_did(&report, &[], &["public.cut_off"], &[]);
    assert_eq!(by_account(&link.client).await, both_definitions());
}

#[tokio::test]
async fn one_run_builds_and_another_leaves_it_to_that_one() {
    let database = with_a_closed_month().await;
    let builder = database.connect().await;
    let wait = Duration::from_secs(10);
    assert!(builder.try_lock_indexes(wait).await.unwrap());
    let report = maintain(&database).await;
    assert!(report.busy_elsewhere, "{report}");
    assert!(report.to_string().contains("left indexes"), "{report}");
    assert_eq!(by_account(&builder.client).await, [""; 0]);
    // Partitions do not wait for an index, nor the schema: a long build must not
    // keep an engine from starting.
    let more = Settings {
        months_ahead: 13,
        ..Settings::default()
    };
    let report = maintain::run(&database.url, &more).await.unwrap();
    assert_eq!(report.created.len(), 2, "{report}");
    builder.close().await;
    let (first, second) = tokio::join!(maintain(&database), maintain(&database));
    let mut indexed = [first.indexed, second.indexed].concat();
    indexed.sort_by_key(|index| BOTH.iter().position(|wanted| wanted == index));
    assert_eq!(indexed, BOTH);
}

#[tokio::test]
async fn the_old_month_takes_a_late_transfer_while_it_is_indexed() {
    let database = with_a_closed_month().await;
    let mut late = database.connect().await;
    let commit = late.client.transaction().await.unwrap();
    commit.batch_execute("SELECT FROM accounts").await.unwrap();
    insert(commit.client(), "now() - interval '45 days'").await;
    let impatient = Settings {
        index_wait: Duration::from_millis(200),
        ..Settings::default()
    };
    let report = maintain::run(&database.url, &impatient).await.unwrap();
    check_did(&report, &[], &[], &BOTH[..1]);
    insert(commit.client(), "now() - interval '44 days'").await;
    commit.commit().await.unwrap();
    let report = maintain(&database).await;
    assert_eq!(report.indexed, BOTH, "{report}");
    // What was written meanwhile is in the index, too.
    late.client
        .batch_execute("SET enable_seqscan = off")
        .await
        .unwrap();
    let rows = "SELECT id::text FROM transfers_old WHERE debit_account_id = 1";
    let plan = texts(&late.client, &format!("EXPLAIN (COSTS OFF) {rows}")).await;
    assert!(
        plan.concat()
            .contains("transfers_old_debit_account_id_id_idx"),
        "{plan:?}"
    );
    assert_eq!(texts(&late.client, rows).await.len(), 3);
}

#[tokio::test]
async fn a_partition_that_somebody_else_owns_keeps_no_other_from_its_indexes() {
    let database = with_a_closed_month().await;
    let link = database.connect().await;
    // Newer, so that it comes first.
    add_partition(&link.client, "transfers", "transfers_others", 37..39).await;
    let owner = format!("{}_owner", database.name);
    link.client
        .batch_execute(&format!(
            "CREATE ROLE {owner};
             GRANT CREATE, USAGE ON SCHEMA public TO {owner};
             ALTER TABLE accounts OWNER TO {owner};
             ALTER TABLE key_periods OWNER TO {owner};
             ALTER TABLE transfers OWNER TO {owner};
             ALTER TABLE transfers_old OWNER TO {owner};
             ALTER TABLE rejections OWNER TO {owner};
             ALTER TABLE idempotency_keys OWNER TO {owner};"
        ))
        .await
        .unwrap();
    let report = maintain(&database).await;
    link.client
        .batch_execute(&format!(
            "REASSIGN OWNED BY {owner} TO CURRENT_USER; DROP OWNED BY {owner}; DROP ROLE {owner}"
        ))
        .await
        .unwrap();
    let others = [
        "public.transfers_others (debit_account_id, id)",
        "public.transfers_others (credit_account_id, id)",
    ];
    check_did(&report, &BOTH, &[], &others);
    assert!(report.to_string().contains("must be owner"), "{report}");
}

#[tokio::test]
async fn whoever_waits_for_an_engine_to_start_does_not_wait_for_indexes() {
    let database = with_a_closed_month().await;
    let settings = Settings {
        extent: Extent::Partitions,
        ..Settings::default()
    };
    let report = maintain::run(&database.url, &settings).await.unwrap();
    check_did(&report, &[], &[], &[]);
    let link = database.connect().await;
    assert_eq!(by_account(&link.client).await, [""; 0]);
}

#[tokio::test]
async fn a_whole_table_is_analysed_when_its_partitions_have_grown_by_a_tenth() {
    let database = support::database().await;
    let link = database.connect().await;
    let grow = |rows: i32| {
        let client = &link.client;
        async move {
            client
                .batch_execute(&format!(
                    "INSERT INTO idempotency_keys
                     SELECT gen_random_uuid(), md5('')::uuid, md5('')::uuid, 1 FROM generate_series(1, {rows});
                     ANALYZE idempotency_keys_p1"
                ))
                .await
                .unwrap();
        }
    };
    grow(1_000).await;
    let none: [&str; 0] = [];
    for (rows, analysed) in [
        (0, &["public.idempotency_keys"][..]),
        (0, &none),
        // 1,111 is not a tenth more than it was, counted from 1,111; 1,112 is.
        (111, &none),
        (1, &["public.idempotency_keys"]),
        (0, &none),
    ] {
        grow(rows).await;
        let report = maintain(&database).await;
        assert_eq!(report.analysed, analysed, "{rows} more: {report}");
    }
}
