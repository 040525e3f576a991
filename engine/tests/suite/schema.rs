//! The schema: migrations, partitions, checks, roles, and its description.

mod checks;
mod expiry;
mod indexes;
mod ledger;
mod migrations;
mod partitions;
mod readme;
mod roles;

use engine::store::migrate;
use tokio_postgres::error::SqlState;

use crate::support;

#[tokio::test]
async fn a_fresh_database_has_this_engines_schema() {
    let database = support::database().await;
    let link = database.connect().await;
    migrate::check_schema(&link.client).await.unwrap();
}

/// An index on a changing column, or pages without room, would end this. Each row
/// is updated once, which the room on its page allows even when nothing can be
/// pruned meanwhile (a snapshot anywhere may hold that up).
#[tokio::test]
async fn balances_move_without_touching_an_index() {
    let database = support::database().await;
    let link = database.connect().await;
    link.client
        .batch_execute(
            "INSERT INTO accounts (id, currency_id, min_balance)
             SELECT id, 840, NULL FROM generate_series(1, 1000) AS id",
        )
        .await
        .unwrap();
    for half in [0, 1] {
        let rows = link
            .client
            .execute(
                "UPDATE accounts SET balance = balance + 1, version = version + 1,
                        head_id = gen_random_uuid(), updated_at = now()
                  WHERE id % 2 = $1::integer",
                &[&half],
            )
            .await
            .unwrap();
        assert_eq!(rows, 500);
    }
    link.client
        .batch_execute("SELECT pg_stat_force_next_flush()")
        .await
        .unwrap();
    let row = link
        .client
        .query_one(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'accounts'",
            &[],
        )
        .await
        .unwrap();
    let (updates, heap_only): (i64, i64) = (row.get(0), row.get(1));
    assert_eq!((updates, heap_only), (1_000, 1_000));
}

/// Statements the schema must refuse after the small ledger was written, each with
/// the code and the constraint that refuse it.
async fn check_refused(statements: &[(&str, &SqlState, Option<&str>)]) {
    let database = support::database().await;
    let link = database.connect().await;
    ledger::write(&link.client).await;
    for (statement, code, constraint) in statements {
        let error = link.client.batch_execute(statement).await.unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(
            (error.code(), error.constraint()),
            (*code, *constraint),
            "{statement}: {error}"
        );
    }
}

#[tokio::test]
async fn the_schema_itself_refuses_accounts_that_cannot_be() {
    let check = &SqlState::CHECK_VIOLATION;
    let unique = &SqlState::UNIQUE_VIOLATION;
    check_refused(&[
        (
            "UPDATE accounts SET balance = min_balance - 1 WHERE id = 3",
            check,
            Some("accounts_min_balance"),
        ),
        (
            "UPDATE accounts SET debits_pending = balance + 1 WHERE id = 1",
            check,
            Some("accounts_min_balance"),
        ),
        (
            "UPDATE accounts SET status = 2 WHERE id = 1",
            check,
            Some("accounts_closed_empty"),
        ),
        (
            "UPDATE accounts SET head_id = NULL WHERE id = 1",
            check,
            Some("accounts_head"),
        ),
        (
            "INSERT INTO accounts (id, currency_id) VALUES (-1, 840)",
            check,
            Some("accounts_id_check"),
        ),
        (
            "INSERT INTO accounts (id, currency_id) VALUES (9007199254740992, 840)",
            check,
            Some("accounts_id_check"),
        ),
        (
            "INSERT INTO accounts (id, currency_id) VALUES (1, 840)",
            unique,
            Some("accounts_pkey"),
        ),
        (
            "INSERT INTO accounts (id, currency_id) VALUES (99, 1)",
            &SqlState::FOREIGN_KEY_VIOLATION,
            Some("accounts_currency_id_fkey"),
        ),
    ])
    .await;
}

#[tokio::test]
async fn the_schema_itself_refuses_rows_that_cannot_be() {
    let check = &SqlState::CHECK_VIOLATION;
    let unique = &SqlState::UNIQUE_VIOLATION;
    check_refused(&[
        (
            "UPDATE transfers SET amount = 0",
            check,
            Some("transfers_amount"),
        ),
        (
            "UPDATE transfers SET credit_account_id = debit_account_id",
            check,
            Some("transfers_sides"),
        ),
        (
            "INSERT INTO reversals SELECT original_id, gen_random_uuid() FROM reversals",
            unique,
            Some("reversals_pkey"),
        ),
        (
            "INSERT INTO idempotency_keys SELECT * FROM idempotency_keys",
            unique,
            Some("idempotency_keys_p1_pkey"),
        ),
        // No partition for an id of 1970, nor for a period that was not made.
        (
            "INSERT INTO transfers SELECT debit_account_id, credit_account_id, amount, debit_balance,
                    credit_balance, debit_version, credit_version, commit_id, effective_at, position,
                    currency_id, test_id(0, position) FROM transfers LIMIT 1",
            check,
            None,
        ),
        (
            "INSERT INTO idempotency_keys SELECT key, fingerprint, txn_id, 99 FROM idempotency_keys LIMIT 1",
            check,
            None,
        ),
    ])
    .await;
}

#[tokio::test]
async fn views_show_money_in_the_currencys_digits_and_both_sides() {
    let database = support::database().await;
    let link = database.connect().await;
    let start = ledger::write(&link.client).await;
    let texts = async |query: &str| -> Vec<String> {
        let rows = link.client.query(query, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    assert_eq!(
        texts("SELECT concat_ws(' ', id, currency, balance) FROM accounts_decimal WHERE id IN (0, 10) ORDER BY id").await,
        ["0 USD -13.00", "10 JPY -77"]
    );
    assert_eq!(
        texts("SELECT concat_ws(' ', debit_account_id, amount, currency) FROM transfers_decimal ORDER BY id LIMIT 3").await,
        ["0 10.00 USD", "0 5.00 USD", "10 77 JPY"]
    );
    assert_eq!(
        texts("SELECT concat_ws(' ', account_id, amount, balance, version, direction) FROM postings WHERE account_id = 1 ORDER BY version").await,
        ["1 1000 1000 1 credit", "1 -300 700 2 debit", "1 -200 500 3 debit", "1 -10 490 4 debit", "1 10 500 5 credit", "1 5 505 6 credit"]
    );
    // Made by the ledger in one millisecond: the time of every id.
    assert_eq!(
        texts("SELECT DISTINCT (extract(epoch FROM created_at) * 1000)::bigint::text FROM transfers_decimal").await,
        [start.to_string()]
    );
    assert_eq!(
        texts("SELECT code || digits FROM currencies WHERE code IN ('JPY', 'USD', 'KWD', 'CLF') ORDER BY code").await,
        ["CLF4", "JPY0", "KWD3", "USD2"]
    );
}
