//! `sql/roles.sql`: the engine's role can do what a commit needs and no more.

use bytes::Bytes;
use engine::clock::Clock;
use engine::domain::TransferId;
use engine::store::link::Link;
use engine::store::{maintain, migrate, verify};
use futures_util::SinkExt;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::ledger;
use crate::support::{self, TestDatabase};

const ROLES: &str = include_str!("../../../../sql/roles.sql");

async fn with_roles() -> TestDatabase {
    let database = support::database().await;
    let link = database.connect().await;
    link.client.batch_execute(ROLES).await.unwrap();
    database
}

async fn connect_as(database: &TestDatabase, role: &str) -> Link {
    Link::open(&database.url_as(role)).await.unwrap()
}

async fn copy(client: &Client, statement: &str, lines: &str) -> u64 {
    let sink = client.copy_in(statement).await.unwrap();
    let mut sink = std::pin::pin!(sink);
    sink.send(Bytes::copy_from_slice(lines.as_bytes()))
        .await
        .unwrap();
    sink.finish().await.unwrap()
}

#[track_caller]
fn check_refused<T>(result: Result<T, tokio_postgres::Error>, statement: &str) {
    let code = result.err().and_then(|error| error.code().cloned());
    assert_eq!(
        code,
        Some(SqlState::INSUFFICIENT_PRIVILEGE),
        "statement={statement}"
    );
}

/// One transfer and one refusal with their keys, as a commit copies them; tells
/// the transfer's id.
async fn copy_rows(client: &Client) -> TransferId {
    let now_ms: i64 = client
        .query_one("SELECT (extract(epoch FROM now()) * 1000)::bigint", &[])
        .await
        .unwrap()
        .get(0);
    let id = TransferId::first_of_ms(now_ms.unsigned_abs());
    let transfer = format!("0\t1\t100\t-100\t100\t1\t1\t1\t0\t840\t{id}\n");
    let columns = "debit_account_id, credit_account_id, amount, debit_balance, credit_balance, \
                   debit_version, credit_version, commit_id, position, currency_id, id";
    let into = format!("COPY transfers ({columns}) FROM STDIN");
    assert_eq!(copy(client, &into, &transfer).await, 1);
    let refusal = id.to_string().replace("-0000-0000-", "-7000-8000-");
    let rejection = format!("0\t1\t1\t1\t5.5\t6\t{refusal}\n");
    let into = "COPY rejections (debit_account_id, credit_account_id, commit_id, account_id, \
                amount, reason, id) FROM STDIN";
    assert_eq!(copy(client, into, &rejection).await, 1);
    let key = format!("{id}\t{id}\t{id}\t1\n{refusal}\t{id}\t{refusal}\t1\n");
    let into = "COPY idempotency_keys (key, fingerprint, txn_id, period) FROM STDIN";
    assert_eq!(copy(client, into, &key).await, 2);
    id
}

#[tokio::test]
async fn the_engines_role_sees_which_standbys_follow() {
    let database = with_roles().await;
    let link = connect_as(&database, "engine_app").await;
    let sees = "SELECT pg_has_role('pg_read_all_stats', 'MEMBER')";
    let sees: bool = link.client.query_one(sees, &[]).await.unwrap().get(0);
    assert!(sees);
}

/// The statement shapes of a commit, in its order.
#[tokio::test]
async fn the_engines_role_can_commit() {
    let database = with_roles().await;
    let link = connect_as(&database, "engine_app").await;
    let client = &link.client;
    migrate::check_schema(client).await.unwrap();
    assert_eq!(maintain::partitions_ahead(client).await.unwrap().keys, 4);
    client
        .batch_execute(
            "INSERT INTO accounts (id, currency_id, min_balance, name, owner)
             VALUES (0, 840, NULL, 'funding', NULL), (1, 840, 0, 'a', 'b');
             BEGIN;
             SELECT id, balance, version, head_id FROM accounts
              WHERE id = ANY ('{0,1}') ORDER BY id FOR UPDATE;
             SELECT key, fingerprint, txn_id FROM idempotency_keys
              WHERE key = ANY ('{00000000-0000-0000-0000-000000000001}');
             SELECT period, starts_at, ends_at FROM key_periods;
             SELECT original_id FROM reversals;
             SELECT system_identifier FROM pg_control_system();
             SELECT timeline_id FROM pg_control_checkpoint();
             SELECT pg_is_in_recovery(), pg_current_wal_lsn();
             SELECT pg_logical_emit_message(true, 'engine', 'look-up');
             INSERT INTO commits (engine_id, transfer_count, rejection_count)
             VALUES ('00000000-0000-0000-0000-000000000009', 1, 1);
             INSERT INTO commits (id, engine_id, transfer_count, rejection_count)
             OVERRIDING SYSTEM VALUE
             VALUES (nextval('commits_id_seq'), '00000000-0000-0000-0000-000000000009', 0, 0)",
        )
        .await
        .unwrap();
    let id = copy_rows(client).await;
    client
        .execute(
            "INSERT INTO reversals SELECT * FROM unnest($1::uuid[], $2::uuid[])",
            &[&Vec::<uuid::Uuid>::new(), &Vec::<uuid::Uuid>::new()],
        )
        .await
        .unwrap();
    let changed = client
        .execute(
            "UPDATE accounts AS a SET balance = n.balance, version = n.version, head_id = n.head_id,
                    updated_at = now(), status = 0, min_balance = a.min_balance, name = a.name
               FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::uuid[])
                    AS n (id, balance, version, head_id)
              WHERE a.id = n.id",
            &[
                &vec![0_i64, 1],
                &vec![-100_i64, 100],
                &vec![1_i64, 1],
                &vec![id.uuid(), id.uuid()],
            ],
        )
        .await
        .unwrap();
    assert_eq!(changed, 2);
    client.batch_execute("COMMIT").await.unwrap();
    let read = verify::run(
        &database.url_as("engine_read"),
        &verify::Settings::default(),
        &Clock::System,
        |_| {},
    )
    .await
    .unwrap();
    assert!(read.first_broken().is_none(), "{read}");
    assert_eq!(read.transfers, 1);
}

#[tokio::test]
async fn the_engines_role_cannot_change_what_was_written() {
    let database = with_roles().await;
    let owner = database.connect().await;
    ledger::write(&owner.client).await;
    let link = connect_as(&database, "engine_app").await;
    for table in [
        "transfers",
        "rejections",
        "reversals",
        "idempotency_keys",
        "commits",
        "key_periods",
        "currencies",
        "refinery_schema_history",
    ] {
        let column = match table {
            "currencies" | "transfers" | "rejections" => "id = id",
            "commits" => "engine_id = engine_id",
            "reversals" => "reversal_id = reversal_id",
            "idempotency_keys" | "key_periods" => "period = period",
            _ => "version = version",
        };
        for statement in [
            format!("UPDATE {table} SET {column}"),
            format!("DELETE FROM {table}"),
            format!("TRUNCATE {table}"),
            format!("DROP TABLE {table}"),
        ] {
            check_refused(link.client.batch_execute(&statement).await, &statement);
        }
    }
    for statement in [
        "DELETE FROM accounts",
        "TRUNCATE accounts",
        "UPDATE accounts SET id = id",
        "UPDATE accounts SET currency_id = 978",
        "UPDATE accounts SET created_at = now()",
        "UPDATE accounts SET debits_pending = 1",
        "UPDATE accounts SET owner = 'me'",
        "INSERT INTO accounts (id, currency_id, balance) VALUES (99, 840, 1)",
        "INSERT INTO currencies VALUES (1, 'XXX', 2)",
        "INSERT INTO key_periods VALUES (99, now(), now() + interval '1 day')",
        "INSERT INTO refinery_schema_history VALUES (99)",
        "DELETE FROM idempotency_keys_p1",
        "SELECT setval('commits_id_seq', 1)",
        "CREATE TABLE mine ()",
        "CREATE TEMPORARY TABLE mine ()",
        "ALTER TABLE transfers DISABLE TRIGGER ALL",
    ] {
        check_refused(link.client.batch_execute(statement).await, statement);
    }
}

#[tokio::test]
async fn the_reading_role_only_reads() {
    let database = with_roles().await;
    let link = connect_as(&database, "engine_read").await;
    for view in ["postings", "accounts_decimal", "transfers_decimal"] {
        link.client
            .batch_execute(&format!("SELECT * FROM {view}"))
            .await
            .unwrap();
    }
    for statement in [
        "INSERT INTO accounts (id, currency_id) VALUES (1, 840)",
        "UPDATE accounts SET name = 'x'",
        "DELETE FROM transfers",
        "SELECT * FROM accounts FOR UPDATE",
        "SELECT nextval('commits_id_seq')",
    ] {
        check_refused(link.client.batch_execute(statement).await, statement);
    }
}

#[tokio::test]
async fn the_owning_role_maintains_and_new_partitions_need_no_grant() {
    let database = with_roles().await;
    let settings = maintain::Settings {
        key_periods_ahead: 6,
        ..maintain::Settings::default()
    };
    let refused = maintain::run(&database.url_as("engine_app"), &settings).await;
    assert!(
        matches!(refused, Err(maintain::MaintainError::Forbidden(_))),
        "{refused:?}"
    );
    let refused = migrate::run(
        &database.url_as("engine_app"),
        &migrate::Settings::default(),
    )
    .await;
    assert!(
        matches!(refused, Err(migrate::SchemaError::NotOwner(_))),
        "{refused:?}"
    );
    let report = maintain::run(&database.url_as("engine_owner"), &settings)
        .await
        .unwrap();
    assert_eq!(
        report.created,
        ["idempotency_keys_p6", "idempotency_keys_p7"]
    );
    // A superuser's run gives them to the owner as well.
    let settings = maintain::Settings {
        key_periods_ahead: 7,
        ..settings
    };
    maintain::run(&database.url, &settings).await.unwrap();
    let link = connect_as(&database, "engine_app").await;
    for period in [7, 8] {
        let rows = link
            .client
            .execute(
                "INSERT INTO idempotency_keys
                 SELECT id, id, id, $1 FROM (SELECT gen_random_uuid() AS id) AS new",
                &[&period],
            )
            .await
            .unwrap();
        assert_eq!(rows, 1);
        let owner: String = link
            .client
            .query_one(
                "SELECT pg_get_userbyid(relowner)::text FROM pg_class WHERE relname = $1",
                &[&format!("idempotency_keys_p{period}")],
            )
            .await
            .unwrap()
            .get(0);
        assert_eq!(owner, "engine_owner");
    }
}

#[tokio::test]
async fn roles_can_come_before_the_schema_and_again_after_it() {
    let database = support::empty_database().await;
    let link = database.connect().await;
    let early = link.client.batch_execute(ROLES).await.unwrap_err();
    let early = early.as_db_error().unwrap();
    assert_eq!(early.code(), &SqlState::RAISE_EXCEPTION);
    assert!(early.hint().unwrap().contains("engine migrate"));
    link.client.batch_execute("ROLLBACK").await.unwrap();
    let url = database.url_as("engine_owner");
    migrate::run(&url, &migrate::Settings::default())
        .await
        .unwrap();
    maintain::run(&url, &maintain::Settings::default())
        .await
        .unwrap();
    let engine = connect_as(&database, "engine_app").await;
    let error = migrate::check_schema(&engine.client).await.unwrap_err();
    assert!(matches!(error, migrate::SchemaError::Forbidden(_)));
    assert!(error.to_string().contains("sql/roles.sql"), "{error}");
    for _ in 0..2 {
        link.client.batch_execute(ROLES).await.unwrap();
    }
    migrate::check_schema(&engine.client).await.unwrap();
}
