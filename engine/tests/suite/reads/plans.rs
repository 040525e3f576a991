//! Every statement finds its rows by index, on empty tables, and still does in
//! the same session, with the plan it made then, when the tables are large.

use engine::store::link::Link;
use engine::store::read::PageLimit;
use tokio_postgres::Config;

use super::settings;
use crate::support::{self, TestDatabase};

struct Query {
    name: &'static str,
    sql: &'static str,
    arguments: &'static str,
    /// Pages touched at most on the large tables: the proof that the work does
    /// not grow with them.
    pages_max: u64,
    /// Whether the plan may hold a sort.
    sorts: bool,
}

macro_rules! query {
    ($name:literal, $arguments:literal, $pages_max:literal, sorts: $sorts:literal) => {
        Query {
            name: $name,
            sql: include_str!(concat!("../../../../sql/queries/", $name, ".sql")),
            arguments: $arguments,
            pages_max: $pages_max,
            sorts: $sorts,
        }
    };
}

const ALL_IDS: &str =
    "'ffffffff-ffff-ffff-ffff-ffffffffffff', '00000000-0000-0000-0000-000000000000'";

const QUERIES: [Query; 12] = [
    query!("read_balance", "5", 10, sorts: false),
    query!("read_account", "5", 10, sorts: false),
    query!("read_accounts_page", "5, 100", 200, sorts: false),
    query!("read_accounts_some", "'{1,5,9}'", 40, sorts: true),
    query!("read_transfer", "'$newest'", 20, sorts: false),
    query!("read_rejection", "'$newest'", 20, sorts: false),
    query!("read_key", "'00000000-0000-0000-0000-000000000005'", 40, sorts: true),
    query!("read_history_all", "$all_ids, 100", 200, sorts: false),
    query!("read_history_start", "'{1,2}', '$newest'", 60, sorts: true),
    query!(
        "read_history_walk",
        "1, '$newest', 20000, 100, '00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff', NULL, NULL, NULL, NULL, NULL",
        2_000,
        sorts: true
    ),
    query!("read_rejections_all", "$all_ids, 100", 200, sorts: false),
    query!(
        "read_rejections_of",
        "1, 1, $all_ids, 100, 100, NULL, NULL, NULL, NULL, NULL",
        2_000,
        sorts: true
    ),
];

/// A session with the settings the reader gives its own.
async fn session(database: &TestDatabase) -> tokio_postgres::Client {
    let mut config: Config = database.url.parse().unwrap();
    config.options(settings(&database.url).session_options());
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn explain(client: &tokio_postgres::Client, query: &Query, newest: &str) -> String {
    let arguments = query
        .arguments
        .replace("$newest", newest)
        .replace("$all_ids", ALL_IDS);
    let statement = format!(
        "EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, SUMMARY OFF) EXECUTE {} ({arguments})",
        query.name
    );
    let rows = client.simple_query(&statement).await.unwrap();
    rows.iter()
        .filter_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
            tokio_postgres::SimpleQueryMessage::CommandComplete(_)
            | tokio_postgres::SimpleQueryMessage::RowDescription(_)
            | _ => None,
        })
        .collect::<Vec<_>>()
        .join("\n")
}

fn check(query: &Query, plan: &str, when: &str) {
    let context = format!("{} {when}:\n{plan}", query.name);
    assert!(!plan.contains("Seq Scan"), "{context}");
    assert!(!plan.contains("Bitmap"), "{context}");
    assert!(
        !plan.contains("Hash Join") && !plan.contains("Merge Join"),
        "{context}"
    );
    assert!(query.sorts || !plan.contains("Sort"), "{context}");
    // The first line of buffers is the whole statement's; those after
    // "Planning:" are the catalog's.
    let pages: u64 = plan
        .lines()
        .take_while(|line| *line != "Planning:")
        .find(|line| line.trim_start().starts_with("Buffers:"))
        .map_or(0, |line| {
            line.split([' ', '='])
                .filter_map(|word| word.parse::<u64>().ok())
                .sum()
        });
    assert!(pages <= query.pages_max, "{pages} pages: {context}");
}

/// 200,000 transfers between 1,000 accounts over two months, as a chain of 1
/// and 2, which every tenth transfer is between; 20,000 rejections of theirs;
/// 100,000 keys.
async fn fill(link: &Link) {
    link.client
        .batch_execute(
            "CREATE FUNCTION pg_temp.id(n bigint) RETURNS uuid LANGUAGE sql AS $$
                 SELECT (lpad(to_hex(floor(extract(epoch FROM now()) * 1000)::bigint + n * 26000), 12, '0')
                         || '70008000' || lpad(to_hex(n), 12, '0'))::uuid $$;
             INSERT INTO accounts (id, currency_id, version, head_id)
             SELECT n, 840, CASE WHEN n IN (1, 2) THEN 20000 ELSE 0 END,
                    CASE WHEN n IN (1, 2) THEN pg_temp.id(200000) END
               FROM generate_series(1, 1000) n;
             INSERT INTO transfers (debit_account_id, credit_account_id, amount, debit_balance,
                    credit_balance, debit_version, credit_version, commit_id, position, currency_id,
                    id, debit_previous_id, credit_previous_id)
             SELECT CASE WHEN n % 10 = 0 THEN 1 ELSE 3 + n % 400 END,
                    CASE WHEN n % 10 = 0 THEN 2 ELSE 500 + n % 400 END,
                    1, 0, 0, n, n, 1, 0, 840, pg_temp.id(n),
                    CASE WHEN n % 10 = 0 AND n > 10 THEN pg_temp.id(n - 10) END,
                    CASE WHEN n % 10 = 0 AND n > 10 THEN pg_temp.id(n - 10) END
               FROM generate_series(1, 200000) n;
             INSERT INTO rejections (debit_account_id, credit_account_id, commit_id, account_id,
                    amount, reason, id)
             SELECT 1 + n % 7, 10 + n % 90, 1, 1, 1, 6, pg_temp.id(n)
               FROM generate_series(1, 20000) n;
             INSERT INTO idempotency_keys (key, fingerprint, txn_id, period)
             SELECT lpad(to_hex(n), 32, '0')::uuid, pg_temp.id(n), pg_temp.id(n),
                    (SELECT period FROM key_periods ORDER BY period LIMIT 1)
               FROM generate_series(1, 100000) n;",
        )
        .await
        .unwrap();
}

async fn newest(link: &Link) -> String {
    let rows = link
        .client
        .query(
            "SELECT id::text FROM transfers ORDER BY id DESC LIMIT 1",
            &[],
        )
        .await
        .unwrap();
    rows.first().map_or_else(
        || "00000000-0000-7000-8000-000000000000".to_owned(),
        |row| row.get(0),
    )
}

#[tokio::test]
async fn every_statement_uses_an_index_on_empty_tables_and_on_large_ones() {
    let database = support::database().await;
    let link = database.connect().await;
    let long_lived = session(&database).await;
    for query in &QUERIES {
        let prepare = format!("PREPARE {} AS {}", query.name, query.sql);
        long_lived.batch_execute(&prepare).await.unwrap();
        let plan = explain(&long_lived, query, &newest(&link).await).await;
        check(query, &plan, "empty");
    }
    fill(&link).await;
    let newest = newest(&link).await;
    for query in &QUERIES {
        let plan = explain(&long_lived, query, &newest).await;
        check(query, &plan, "large, planned when empty");
    }
    link.client.batch_execute("ANALYZE").await.unwrap();
    let fresh = session(&database).await;
    for query in &QUERIES {
        let prepare = format!("PREPARE {} AS {}", query.name, query.sql);
        fresh.batch_execute(&prepare).await.unwrap();
        let plan = explain(&fresh, query, &newest).await;
        check(query, &plan, "large, planned when large");
    }
    // The lists are what they are said to be: an Append in order of the
    // partitions, those not needed never executed.
    let all = QUERIES
        .iter()
        .find(|query| query.name == "read_history_all")
        .unwrap();
    let plan = explain(&fresh, all, &newest).await;
    assert!(
        plan.contains("Append") && !plan.contains("Merge Append"),
        "{plan}"
    );
    assert!(plan.contains("never executed"), "{plan}");
    assert_eq!(PageLimit::default().get(), 100);
}

#[tokio::test]
async fn a_walk_steps_over_as_many_rows_as_it_may_and_no_more() {
    let database = support::database().await;
    let link = database.connect().await;
    fill(&link).await;
    let mut settings = settings(&database.url);
    settings.walk_rows_max = 15_000;
    let reader = engine::store::read::Reader::connect(&settings, engine::clock::Clock::System);
    let mut query = engine::store::read::HistoryQuery {
        account: Some(super::ledger::account(1)),
        category: Some("none has it".to_owned()),
        ..engine::store::read::HistoryQuery::default()
    };
    let page = reader.history(&query).await.unwrap();
    assert_eq!(page.rows, []);
    // 20,000 in all, the 15,000th newest is the last one stepped on.
    let expected: uuid::Uuid = link
        .client
        .query_one(
            "SELECT id FROM transfers WHERE debit_account_id = 1 ORDER BY id DESC OFFSET 14999 LIMIT 1",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(
        page.next.map(engine::domain::TransferId::uuid),
        Some(expected)
    );
    query.cursor = page.next;
    let page = reader.history(&query).await.unwrap();
    assert_eq!((page.rows, page.next), (vec![], None));
}

#[tokio::test]
async fn the_short_cut_reads_a_few_pages_of_the_indexed_partition() {
    let database = support::database().await;
    let link = database.connect().await;
    fill(&link).await;
    let row = link
        .client
        .query_one(
            "SELECT tableoid::regclass::text, id::text FROM transfers ORDER BY id OFFSET 5000 LIMIT 1",
            &[],
        )
        .await
        .unwrap();
    let (partition, id): (String, String) = (row.get(0), row.get(1));
    link.client
        .batch_execute(&format!(
            "CREATE INDEX ON {partition} (debit_account_id, id);
             CREATE INDEX ON {partition} (credit_account_id, id);"
        ))
        .await
        .unwrap();
    let sql = include_str!("../../../../sql/queries/read_history_seek.sql")
        .replace("{high}", &id)
        .replace("{low}", "00000000-0000-0000-0000-000000000000");
    let client = session(&database).await;
    client
        .batch_execute(&format!("PREPARE read_history_seek (bigint) AS {sql}"))
        .await
        .unwrap();
    let query = Query {
        name: "read_history_seek",
        sql: "",
        // 2 never pays: the index must tell that, too.
        arguments: "2",
        pages_max: 10,
        sorts: true,
    };
    for when in ["new", "analysed"] {
        let plan = explain(&client, &query, &id).await;
        check(&query, &plan, when);
        link.client.batch_execute("ANALYZE").await.unwrap();
    }
}
