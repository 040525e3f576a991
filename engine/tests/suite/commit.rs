//! The core against a real PostgreSQL: what is answered is what is stored.

use engine::domain::{Outcome, RejectReason};

use crate::support::core::{Core, CoreSettings, account, fund, in_seconds, keyed, transfer};
use crate::support::{database, verify};

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_is_stored_once_with_its_key_and_balances() {
    let database = database().await;
    let core = Core::start(&database.url, &CoreSettings::default());
    fund(&database.url, &core, 2, "10.00").await;
    let request = keyed(7, transfer(1, 2, "2.50"));
    let first = core
        .admission
        .transfer(request.clone(), in_seconds(10))
        .await
        .unwrap();
    let again = core
        .admission
        .transfer(request, in_seconds(10))
        .await
        .unwrap();
    let (
        Outcome::Completed {
            receipt,
            replayed: false,
        },
        Outcome::Completed {
            receipt: same,
            replayed: true,
        },
    ) = (first, again)
    else {
        panic!("{first:?} {again:?}");
    };
    assert_eq!(receipt, same);
    let reused = core
        .admission
        .transfer(keyed(7, transfer(1, 2, "2.51")), in_seconds(10))
        .await;
    assert_eq!(reused, Ok(Outcome::KeyReused));
    core.stop().await;
    let link = database.connect().await;
    let rows = link
        .client
        .query(
            "SELECT balance, version FROM accounts WHERE id IN (1, 2) ORDER BY id",
            &[],
        )
        .await
        .unwrap();
    let balances: Vec<(i64, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(balances, [(750, 2), (1_250, 2)]);
    verify(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_kept_only_with_a_key_and_answered_again() {
    let database = database().await;
    let core = Core::start(&database.url, &CoreSettings::default());
    fund(&database.url, &core, 2, "1.00").await;
    let outcome = core
        .admission
        .transfer(keyed(1, transfer(1, 2, "5")), in_seconds(10))
        .await
        .unwrap();
    let Outcome::Rejected {
        rejection,
        replayed: false,
    } = outcome
    else {
        panic!("{outcome:?}")
    };
    assert_eq!(
        (rejection.reason, rejection.account_id),
        (RejectReason::InsufficientFunds, account(1))
    );
    assert!(rejection.id.is_some());
    // Money has come in since; the key's answer stays.
    core.admission
        .transfer(transfer(0, 1, "50"), in_seconds(10))
        .await
        .unwrap();
    let again = core
        .admission
        .transfer(keyed(1, transfer(1, 2, "5")), in_seconds(10))
        .await
        .unwrap();
    assert_eq!(
        again,
        Outcome::Rejected {
            rejection,
            replayed: true
        }
    );
    let unkeyed = core
        .admission
        .transfer(transfer(2, 1, "5"), in_seconds(10))
        .await
        .unwrap();
    assert!(matches!(unkeyed, Outcome::Rejected { rejection, .. } if rejection.id.is_none()));
    let missing = core
        .admission
        .transfer(keyed(2, transfer(1, 99, "1")), in_seconds(10))
        .await
        .unwrap();
    assert_eq!(missing, Outcome::AccountNotFound(account(99)));
    core.stop().await;
    let link = database.connect().await;
    let count = |table: &'static str| {
        let client = &link.client;
        async move {
            client
                .query_one(&format!("SELECT count(*) FROM {table}"), &[])
                .await
                .unwrap()
                .get::<_, i64>(0)
        }
    };
    assert_eq!(count("rejections").await, 1);
    assert_eq!(count("idempotency_keys").await, 1);
    verify(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_happens_together_or_not_at_all() {
    let database = database().await;
    let core = Core::start(&database.url, &CoreSettings::default());
    fund(&database.url, &core, 3, "10.00").await;
    let good = vec![
        transfer(1, 2, "10"),
        keyed(5, transfer(2, 3, "20")),
        transfer(3, 1, "30"),
    ];
    let outcomes = core
        .admission
        .group(good, in_seconds(10))
        .await
        .unwrap()
        .unwrap();
    assert!(outcomes.iter().all(Outcome::is_completed));
    let bad = vec![keyed(6, transfer(1, 2, "1")), transfer(3, 2, "0.01")];
    let failure = core
        .admission
        .group(bad, in_seconds(10))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(failure.index, 1);
    let after = core
        .admission
        .transfer(keyed(6, transfer(1, 2, "2")), in_seconds(10))
        .await
        .unwrap();
    assert!(
        after.is_completed(),
        "the failed group kept no key: {after:?}"
    );
    core.stop().await;
    verify(&database).await;
}

/// Both directions of one round trip exceed the sockets' buffers: whoever only
/// writes until all is written waits for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_batch_of_distinct_accounts_and_keys_passes() {
    let database = database().await;
    let core = Core::start(&database.url, &CoreSettings::default());
    fund(&database.url, &core, 16_384, "1.00").await;
    for round in 0..2 {
        let requests = (1..=8_192_u32)
            .map(|index| {
                let debit = i64::from(index);
                keyed(u128::from(index), transfer(debit, debit + 8_192, "0.50"))
            })
            .collect();
        let outcomes = core
            .admission
            .transfers(requests, in_seconds(60))
            .await
            .unwrap();
        for outcome in outcomes {
            let outcome = outcome.unwrap();
            assert!(
                matches!(outcome, Outcome::Completed { replayed, .. } if replayed == (round == 1)),
                "{round} {outcome:?}"
            );
        }
    }
    core.stop().await;
    verify(&database).await;
}
