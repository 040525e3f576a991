//! Each check passes on a right ledger and fails on a planted break.

use std::collections::BTreeSet;
use std::path::Path;

use engine::clock::Clock;
use engine::domain::TransferId;
use engine::store::verify::{self, CHECKS, Progress, VerifyReport};

use super::ledger;
use crate::support::{self, TestDatabase};

async fn verify(database: &TestDatabase, since: Option<TransferId>) -> VerifyReport {
    let settings = verify::Settings {
        since,
        ..verify::Settings::default()
    };
    verify::run(&database.url, &settings, &Clock::System, |_| {})
        .await
        .unwrap()
}

fn broken(report: &VerifyReport) -> BTreeSet<&'static str> {
    report
        .checks
        .iter()
        .filter(|result| result.broken.is_some())
        .map(|result| result.check)
        .collect()
}

/// Plants one break in a right ledger; exactly these checks must see it.
async fn check(plant: &str, expected: &[&'static str]) {
    let database = support::database().await;
    let link = database.connect().await;
    let start = ledger::write(&link.client).await;
    link.client
        .batch_execute(&plant.replace("$start$", &start.to_string()))
        .await
        .unwrap();
    let report = verify(&database, None).await;
    assert_eq!(
        broken(&report),
        expected.iter().copied().collect(),
        "plant={plant}\n{report}"
    );
}

#[tokio::test]
async fn a_right_ledger_passes_and_is_counted() {
    let database = support::database().await;
    let link = database.connect().await;
    let start = ledger::write(&link.client).await;
    let mut seen = Vec::new();
    let report = verify::run(
        &database.url,
        &verify::Settings::default(),
        &Clock::System,
        |progress| match progress {
            Progress::Started(index, check) => assert_eq!(CHECKS[index], check),
            Progress::Finished(result) => seen.push(result.check),
        },
    )
    .await
    .unwrap();
    assert_eq!(broken(&report), BTreeSet::new(), "{report}");
    assert_eq!(seen, CHECKS.iter().map(|it| it.name).collect::<Vec<_>>());
    assert_eq!(
        (report.accounts, report.transfers, report.commits),
        (6, 10, 9)
    );
    for n in [1, 5, 7, 10] {
        let since = ledger::id(&link.client, start, n).await;
        let report = verify(&database, Some(since)).await;
        assert_eq!(broken(&report), BTreeSet::new(), "since {n}\n{report}");
        assert_eq!(report.transfers, 11 - u64::try_from(n).unwrap());
    }
}

#[tokio::test]
async fn an_empty_database_passes() {
    let database = support::database().await;
    let report = verify(&database, None).await;
    assert_eq!(broken(&report), BTreeSet::new(), "{report}");
    assert!(report.to_string().ends_with("the ledger is sound"));
}

#[tokio::test]
async fn money_from_nowhere_is_found() {
    check(
        "UPDATE accounts SET balance = balance + 1 WHERE id = 2",
        &["ledger_unbalanced", "account_balance", "account_head"],
    )
    .await;
}

#[tokio::test]
async fn two_balances_wrong_by_opposite_amounts_are_found() {
    check(
        "UPDATE accounts SET balance = balance + CASE id WHEN 1 THEN 5 ELSE -5 END WHERE id IN (1, 2)",
        &["account_balance", "account_head"],
    )
    .await;
}

#[tokio::test]
async fn a_changed_amount_is_found() {
    check(
        "UPDATE transfers SET amount = amount + 1 WHERE id = test_id($start$, 4)",
        &["account_balance", "account_history"],
    )
    .await;
}

#[tokio::test]
async fn a_lost_transfer_is_found() {
    check(
        "DELETE FROM transfers WHERE id = test_id($start$, 4)",
        &[
            "account_balance",
            "account_history",
            "commit_rows",
            "key_without_answer",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_doubled_version_is_found() {
    check(
        "UPDATE transfers SET debit_version = debit_version - 1 WHERE id = test_id($start$, 6)",
        &["account_history"],
    )
    .await;
}

#[tokio::test]
async fn a_running_balance_that_does_not_follow_is_found() {
    check(
        "UPDATE transfers SET credit_balance = credit_balance + 1 WHERE id = test_id($start$, 4)",
        &["account_history"],
    )
    .await;
}

#[tokio::test]
async fn a_wrong_previous_transfer_is_found_on_either_side() {
    for side in ["debit", "credit"] {
        check(
            &format!(
                "UPDATE transfers SET {side}_previous_id = test_id($start$, 1) WHERE id = test_id($start$, 9)"
            ),
            &["account_history"],
        )
        .await;
    }
}

#[tokio::test]
async fn a_history_that_ends_in_the_void_is_found() {
    check(
        "UPDATE transfers SET debit_previous_id = NULL WHERE id = test_id($start$, 6)",
        &["account_history"],
    )
    .await;
}

#[tokio::test]
async fn a_head_that_is_not_the_newest_is_found() {
    check(
        "UPDATE accounts SET head_id = test_id($start$, 9) WHERE id = 1",
        &["account_head"],
    )
    .await;
    check(
        "UPDATE accounts SET head_id = test_id($start$, 999) WHERE id = 1",
        &["account_head"],
    )
    .await;
}

#[tokio::test]
async fn a_balance_under_its_minimum_is_found() {
    check(
        "ALTER TABLE accounts DROP CONSTRAINT accounts_min_balance;
         UPDATE accounts SET min_balance = balance + 1 WHERE id = 1",
        &["account_minimum"],
    )
    .await;
    check(
        "ALTER TABLE accounts DROP CONSTRAINT accounts_min_balance;
         UPDATE accounts SET debits_pending = balance + 1 WHERE id = 1",
        &["account_minimum"],
    )
    .await;
}

#[tokio::test]
async fn a_transfer_between_currencies_is_found() {
    check(
        "UPDATE transfers SET currency_id = 978 WHERE id = test_id($start$, 4)",
        &["transfer_currency"],
    )
    .await;
    // Both accounts of one transfer, in a currency that is not theirs.
    check(
        "UPDATE accounts SET currency_id = 978 WHERE currency_id = 392",
        &["transfer_currency"],
    )
    .await;
}

#[tokio::test]
async fn a_transfer_to_an_unknown_account_is_found() {
    check(
        "UPDATE transfers SET credit_account_id = 4 WHERE id = test_id($start$, 3)",
        &["account_balance", "account_head", "transfer_currency"],
    )
    .await;
}

#[tokio::test]
async fn a_commit_with_other_rows_than_it_says_is_found() {
    for plant in [
        "UPDATE commits SET transfer_count = transfer_count + 1 WHERE id = 2",
        "UPDATE commits SET transfer_count = 0 WHERE id = 2",
        "UPDATE commits SET rejection_count = 0 WHERE rejection_count = 1",
        "UPDATE commits SET rejection_count = 2 WHERE rejection_count = 1",
        "UPDATE transfers SET position = 3 WHERE id = test_id($start$, 10)",
        "UPDATE transfers SET position = 1 WHERE id = test_id($start$, 10)",
        "UPDATE transfers SET position = 1 WHERE id = test_id($start$, 4)",
        "DELETE FROM commits WHERE id = 3",
        "DELETE FROM commits WHERE rejection_count = 1",
        "SELECT test_commit(1, 0)",
    ] {
        check(plant, &["commit_rows"]).await;
    }
}

#[tokio::test]
async fn a_reversal_that_does_not_take_back_its_original_is_found() {
    for plant in [
        "DELETE FROM reversals",
        "UPDATE reversals SET reversal_id = test_id($start$, 8)",
        "UPDATE transfers SET reverses = NULL WHERE id = test_id($start$, 7)",
        "UPDATE transfers SET reverses = test_id($start$, 4) WHERE id = test_id($start$, 7);
         UPDATE reversals SET original_id = test_id($start$, 4)",
        "UPDATE transfers SET reverses = test_id($start$, 99) WHERE id = test_id($start$, 7);
         UPDATE reversals SET original_id = test_id($start$, 99)",
        // Itself: swapped sides, but not its own.
        "UPDATE transfers SET reverses = id WHERE id = test_id($start$, 7);
         UPDATE reversals SET original_id = reversal_id",
    ] {
        check(plant, &["reversals"]).await;
    }
}

#[tokio::test]
async fn a_reversal_of_another_amount_is_found() {
    check(
        "UPDATE transfers SET amount = 49 WHERE id = test_id($start$, 5)",
        &["account_balance", "account_history", "reversals"],
    )
    .await;
}

#[tokio::test]
async fn a_key_that_leads_nowhere_is_found() {
    check(
        "UPDATE idempotency_keys SET txn_id = test_id($start$, 99) WHERE txn_id = test_id($start$, 4)",
        &["key_without_answer"],
    )
    .await;
    check(
        "UPDATE rejections SET id = test_id($start$, 99)",
        &["key_without_answer"],
    )
    .await;
}

#[tokio::test]
async fn a_refusal_of_what_does_not_exist_is_found() {
    for change in [
        "debit_account_id = 4",
        "credit_account_id = 4",
        "account_id = 4",
        "reverses = test_id($start$, 99)",
    ] {
        check(
            &format!("UPDATE rejections SET {change}"),
            &["rejection_references"],
        )
        .await;
    }
    check("UPDATE rejections SET reverses = test_id($start$, 1)", &[]).await;
}

#[tokio::test]
async fn a_key_with_two_answers_is_found() {
    // Rightly copied into the next period first: nothing to find.
    let copied = "INSERT INTO idempotency_keys SELECT key, fingerprint, txn_id, period + 1 FROM idempotency_keys";
    check(copied, &[]).await;
    check(
        &format!("{copied}; UPDATE idempotency_keys SET fingerprint = md5('other')::uuid WHERE period = 2 AND txn_id = test_id($start$, 4)"),
        &["key_disagrees"],
    )
    .await;
    check(
        &format!("{copied}; UPDATE idempotency_keys SET txn_id = test_id($start$, 5) WHERE period = 2 AND txn_id = test_id($start$, 4)"),
        &["key_disagrees", "key_shared_answer"],
    )
    .await;
}

#[tokio::test]
async fn two_keys_with_one_answer_are_found() {
    check(
        "INSERT INTO idempotency_keys SELECT md5('another')::uuid, fingerprint, txn_id, period
           FROM idempotency_keys WHERE txn_id = test_id($start$, 4)",
        &["key_shared_answer"],
    )
    .await;
}

#[tokio::test]
async fn since_leaves_out_what_is_before_and_finds_what_is_after_and_at_the_edge() {
    let database = support::database().await;
    let link = database.connect().await;
    let start = ledger::write(&link.client).await;
    let since = ledger::id(&link.client, start, 5).await;
    let plant = async |statement: &str| {
        link.client
            .batch_execute(&statement.replace("$start$", &start.to_string()))
            .await
            .unwrap();
        let report = verify(&database, Some(since)).await;
        broken(&report).into_iter().collect::<Vec<_>>()
    };
    // Long before the window: not looked at.
    let old =
        "UPDATE transfers SET debit_balance = debit_balance + $d WHERE id = test_id($start$, 1)";
    assert_eq!(plant(&old.replace("$d", "1")).await, [""; 0]);
    plant(&old.replace("$d", "-1")).await;
    // The transfer before the window's first of account 2: the link between them.
    let edge =
        "UPDATE transfers SET credit_balance = credit_balance + $d WHERE id = test_id($start$, 4)";
    assert_eq!(plant(&edge.replace("$d", "1")).await, ["account_history"]);
    assert_eq!(plant(&edge.replace("$d", "-1")).await, [""; 0]);
    // The window's first of account 1: seen by the link to the one before.
    // And one further on, which its sum shows too.
    for (n, expected) in [
        (6, &["account_history"][..]),
        (10, &["account_balance", "account_history"]),
    ] {
        let inside =
            format!("UPDATE transfers SET amount = amount + $d WHERE id = test_id($start$, {n})");
        assert_eq!(plant(&inside.replace("$d", "1")).await, expected);
        assert_eq!(plant(&inside.replace("$d", "-1")).await, [""; 0]);
    }
}

#[tokio::test]
async fn a_check_tells_one_broken_row_and_how_many_there_are() {
    let database = support::database().await;
    let link = database.connect().await;
    ledger::write(&link.client).await;
    link.client
        .batch_execute("UPDATE accounts SET balance = balance + 1 WHERE id IN (0, 1)")
        .await
        .unwrap();
    let report = verify(&database, None).await;
    let first = report.first_broken().unwrap();
    assert_eq!(first.check, "ledger_unbalanced");
    assert_eq!(
        first.broken.as_deref(),
        Some(r#"{"currency":"USD","currency_id":840,"sum_of_balances":2}"#)
    );
    let balances = &report.checks[2];
    assert_eq!(
        (balances.check, balances.broken_count),
        ("account_balance", 2)
    );
    assert!(report.to_string().contains("BROKEN"));
}

#[test]
fn every_check_file_is_run_and_says_what_it_proves() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sql/checks");
    let files: BTreeSet<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let run: BTreeSet<String> = CHECKS.iter().map(|it| it.name.to_owned()).collect();
    assert_eq!(files, run);
    for check in CHECKS {
        assert!(check.proves().starts_with("Proves "), "{}", check.name);
    }
}
