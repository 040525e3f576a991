//! Balances, accounts, their opening, and the fate of a key.

use engine::clock::Clock;
use engine::domain::account::MinBalance;
use engine::domain::currency::CurrencyCode;
use engine::domain::{AccountStatus, Details, InvalidAmount, TransferId};
use engine::store::read::{
    Fate, HistoryPage, HistoryQuery, ListedStatus, NewAccount, OpenError, Opened, PageLimit,
    ReadError, Reader, Record,
};
use rust_decimal::Decimal;
use uuid::Uuid;

use super::ledger::{Ledger, account, details, now_ms, usd};
use super::{proxy, reader};
use crate::support;

fn new_account(id: i64) -> NewAccount {
    NewAccount {
        id: account(id),
        currency: CurrencyCode::parse("USD").unwrap(),
        min_balance: MinBalance::AtLeast(Decimal::ZERO),
        name: None,
        owner: None,
    }
}

fn at_least(text: &str) -> MinBalance {
    MinBalance::AtLeast(text.parse().unwrap())
}

async fn ids(reader: &Reader) -> Vec<i64> {
    reader
        .accounts(None, PageLimit::MAX)
        .await
        .unwrap()
        .iter()
        .map(|row| row.account.id.get())
        .collect()
}

#[tokio::test]
async fn balances_and_accounts_are_read_as_stored() {
    let database = support::database().await;
    let link = database.connect().await;
    let base = now_ms(&link.client).await;
    let mut ledger = Ledger::new(&link.client, 3).await;
    ledger.transfer(base, 0, 1, Details::default());
    ledger.transfer(base, 0, 1, Details::default());
    ledger.write(&link.client).await;
    link.client
        .batch_execute(
            "UPDATE accounts SET name = 'n', owner = 'o', status = 1, min_balance = -5,
                 debits_pending = 3, created_at = 'epoch', updated_at = to_timestamp(1.5)
              WHERE id = 1",
        )
        .await
        .unwrap();
    let reader = reader(&database.url);
    let newest = &ledger.transfers[1];
    let balance = reader.balance(account(1)).await.unwrap().unwrap();
    assert_eq!(balance.account_id, account(1));
    assert_eq!(balance.balance, newest.credit.balance);
    assert_eq!(balance.version, 2);
    assert_eq!(balance.currency, usd());
    assert_eq!(reader.balance(account(3)).await.unwrap(), None);
    let row = reader.account(account(1)).await.unwrap().unwrap();
    assert_eq!(row.account.balance, newest.credit.balance);
    assert_eq!(row.account.head, Some(newest.id));
    assert_eq!(row.account.status, AccountStatus::Frozen);
    assert_eq!(row.account.min_balance, Some(-5));
    assert_eq!(row.account.debits_pending, 3);
    assert_eq!(
        (row.name.as_deref(), row.owner.as_deref()),
        (Some("n"), Some("o"))
    );
    assert_eq!((row.created_at_ms, row.updated_at_ms), (0, 1_500));
    assert_eq!(reader.account(account(3)).await.unwrap(), None);
    assert_eq!(
        reader
            .accounts(Some(account(0)), PageLimit::new(1).unwrap())
            .await
            .unwrap(),
        [row]
    );
    assert_eq!(ids(&reader).await, [0, 1, 2]);
    assert_eq!(
        reader
            .accounts(Some(account(2)), PageLimit::MAX)
            .await
            .unwrap(),
        []
    );
}

#[tokio::test]
async fn a_currency_added_after_the_start_is_known_when_a_row_names_it() {
    let database = support::database().await;
    let link = database.connect().await;
    let reader = reader(&database.url);
    let currencies = reader.currencies().await.unwrap();
    assert_eq!(currencies.by_code(usd().code), Some(usd()));
    link.client
        .batch_execute(
            "INSERT INTO currencies VALUES (1, 'XTS', 3);
             INSERT INTO accounts (id, currency_id) VALUES (7, 1)",
        )
        .await
        .unwrap();
    let balance = reader.balance(account(7)).await.unwrap().unwrap();
    assert_eq!(balance.currency.digits, 3);
}

#[tokio::test]
async fn a_list_of_accounts_is_opened_whole_and_its_repeat_is_identical() {
    let database = support::database().await;
    let reader = reader(&database.url);
    // Not in order, one of them twice.
    let mut list = vec![new_account(9), new_account(2), new_account(9)];
    list[1].min_balance = MinBalance::Unlimited;
    list[1].name = Some("till".to_owned());
    list[1].owner = Some("shop".to_owned());
    list[0].min_balance = at_least("-12.5");
    list[2].min_balance = at_least("-12.50");
    let Opened::Created(rows) = reader.open_accounts(&list).await.unwrap() else {
        panic!("not created");
    };
    let seen: Vec<_> = rows
        .iter()
        .map(|row| (row.account.id.get(), row.account.min_balance))
        .collect();
    assert_eq!(seen, [(9, Some(-1_250)), (2, None), (9, Some(-1_250))]);
    assert_eq!(rows[1].name.as_deref(), Some("till"));
    assert_eq!(rows[1].owner.as_deref(), Some("shop"));
    assert_eq!(rows[1].account.balance, 0);
    assert_eq!(rows[1].account.version, 0);
    assert_eq!(rows[1].account.status, AccountStatus::Open);
    assert_eq!(
        reader.open_accounts(&list).await.unwrap(),
        Opened::Identical(rows.clone())
    );
    // Old and new together: created.
    list[2] = new_account(3);
    let opened = reader.open_accounts(&list).await.unwrap();
    assert!(
        matches!(&opened, Opened::Created(mixed) if mixed[..2] == rows[..2]),
        "{opened:?}"
    );
    assert_eq!(
        reader.open_accounts(&[]).await.unwrap(),
        Opened::Identical(vec![])
    );
}

#[tokio::test]
async fn the_engines_role_may_do_all_that_the_reader_does() {
    let database = support::database().await;
    let link = database.connect().await;
    let roles = include_str!("../../../../sql/roles.sql");
    link.client.batch_execute(roles).await.unwrap();
    let reader = reader(&database.url_as("engine_app"));
    let opened = reader.open_accounts(&[new_account(1)]).await.unwrap();
    assert!(matches!(opened, Opened::Created(_)), "{opened:?}");
    let opened = reader.open_accounts(&[new_account(1)]).await.unwrap();
    assert!(matches!(opened, Opened::Identical(_)), "{opened:?}");
    reader.ping().await.unwrap();
    reader.identity().await.unwrap();
    reader.clock_skew().await.unwrap();
    assert_eq!(reader.fate(Uuid::nil()).await.unwrap(), None);
    let id = TransferId::from_uuid(Uuid::nil());
    assert_eq!(reader.transfer(id).await.unwrap(), None);
    for status in [ListedStatus::Completed, ListedStatus::Rejected] {
        for account_id in [None, Some(account(1))] {
            let query = HistoryQuery {
                account: account_id,
                status,
                ..HistoryQuery::default()
            };
            let page = reader.history(&query).await.unwrap();
            assert_eq!(page, HistoryPage::default());
        }
    }
}

#[tokio::test]
async fn one_different_account_leaves_the_whole_list_unopened() {
    let database = support::database().await;
    let reader = reader(&database.url);
    reader.open_accounts(&[new_account(5)]).await.unwrap();
    let different: [fn(&mut NewAccount); 4] = [
        |account| account.currency = CurrencyCode::parse("EUR").unwrap(),
        |account| account.min_balance = MinBalance::Unlimited,
        |account| account.name = Some(String::new()),
        |account| account.owner = Some("o".to_owned()),
    ];
    for change in different {
        let mut list = vec![new_account(1), new_account(5), new_account(6)];
        change(&mut list[1]);
        let opened = reader.open_accounts(&list).await.unwrap();
        assert_eq!(opened, Opened::Conflict(account(5)));
        // The same within one list.
        let mut list = vec![new_account(7), new_account(8), new_account(7)];
        change(&mut list[2]);
        let opened = reader.open_accounts(&list).await.unwrap();
        assert_eq!(opened, Opened::Conflict(account(7)));
    }
    assert_eq!(ids(&reader).await, [5]);
    // The sessions came back clean.
    assert_eq!(reader.status().size, reader.status().available);
}

#[tokio::test]
async fn terms_that_cannot_be_are_refused_by_name() {
    let database = support::database().await;
    let reader = reader(&database.url);
    let check = async |change: fn(&mut NewAccount), expected: Opened| {
        let mut list = [new_account(1), new_account(2)];
        change(&mut list[1]);
        assert_eq!(reader.open_accounts(&list).await.unwrap(), expected);
        assert_eq!(ids(&reader).await, Vec::<i64>::new());
    };
    let account_id = account(2);
    let currency = CurrencyCode::parse("XXX").unwrap();
    check(
        |account| account.currency = CurrencyCode::parse("XXX").unwrap(),
        Opened::UnknownCurrency {
            account_id,
            currency,
        },
    )
    .await;
    check(
        |account| account.min_balance = at_least("-0.001"),
        Opened::InvalidMinBalance {
            account_id,
            reason: InvalidAmount::TooPrecise,
        },
    )
    .await;
    check(
        |account| account.min_balance = at_least("-92233720368547758.09"),
        Opened::InvalidMinBalance {
            account_id,
            reason: InvalidAmount::TooLarge,
        },
    )
    .await;
    check(
        |account| account.min_balance = at_least("0.01"),
        Opened::MinBalanceAboveZero(account_id),
    )
    .await;
    let mut least = new_account(3);
    least.min_balance = at_least("-92233720368547758.08");
    let opened = reader.open_accounts(&[least]).await.unwrap();
    assert!(matches!(opened, Opened::Created(_)), "{opened:?}");
}

#[tokio::test]
async fn of_two_who_open_at_once_one_creates() {
    let database = support::database().await;
    let reader = reader(&database.url);
    for round in 0..20 {
        let first: Vec<_> = (0..30).map(|n| new_account(round * 100 + n)).collect();
        // The same ids the other way round, with other terms every second time.
        let mut second: Vec<_> = first.iter().rev().cloned().collect();
        if round % 2 == 1 {
            second[7].name = Some("other".to_owned());
        }
        let (one, two) = tokio::join!(reader.open_accounts(&first), reader.open_accounts(&second));
        let answers = [one.unwrap(), two.unwrap()];
        let created = answers
            .iter()
            .filter(|opened| matches!(opened, Opened::Created(_)))
            .count();
        assert_eq!(created, 1, "{answers:?}");
        let repeated = answers.iter().any(|opened| match opened {
            Opened::Identical(_) => round % 2 == 0,
            Opened::Conflict(_) => round % 2 == 1,
            Opened::Created(_)
            | Opened::UnknownCurrency { .. }
            | Opened::InvalidMinBalance { .. }
            | Opened::MinBalanceAboveZero(_) => false,
        });
        assert!(repeated, "{answers:?}");
    }
}

#[tokio::test]
async fn an_opening_whose_commit_is_warned_of_or_lost_is_unknown_and_can_be_repeated() {
    let database = support::database().await;
    let (url, switches) = proxy::start(&database.url).await;
    let reader = reader(&url);
    let list = [new_account(1)];
    // The first call also prepares; let it be undisturbed.
    reader.open_accounts(&[new_account(0)]).await.unwrap();
    switches
        .warn
        .store(true, std::sync::atomic::Ordering::Release);
    let answer = reader.open_accounts(&list).await;
    // The message before COMMIT already met the warning: nothing was opened.
    assert!(
        matches!(answer, Err(OpenError::NotOpened(ReadError::NotDurable))),
        "{answer:?}"
    );
    assert_eq!(reader.status().size, 0, "a doubtful session is not kept");
    switches
        .warn
        .store(false, std::sync::atomic::Ordering::Release);
    assert_eq!(ids(&reader).await, [0]);
    switches
        .warn_commit
        .store(true, std::sync::atomic::Ordering::Release);
    let answer = reader.open_accounts(&list).await;
    assert!(
        matches!(
            answer,
            Err(OpenError::OutcomeUnknown(ReadError::NotDurable))
        ),
        "{answer:?}"
    );
    let answer = reader.open_accounts(&[new_account(1)]).await;
    assert!(
        matches!(
            answer,
            Err(OpenError::OutcomeUnknown(ReadError::NotDurable))
        ),
        "a repeat waits for a commit too: {answer:?}"
    );
    switches
        .warn_commit
        .store(false, std::sync::atomic::Ordering::Release);
    let answer = reader.open_accounts(&list).await.unwrap();
    assert!(matches!(answer, Opened::Identical(_)), "{answer:?}");
    switches
        .cut_commit
        .store(true, std::sync::atomic::Ordering::Release);
    let answer = reader.open_accounts(&[new_account(2)]).await;
    assert!(
        matches!(
            answer,
            Err(OpenError::OutcomeUnknown(ReadError::Unavailable { .. }))
        ),
        "{answer:?}"
    );
    switches
        .cut_commit
        .store(false, std::sync::atomic::Ordering::Release);
    let answer = reader.open_accounts(&[new_account(2)]).await.unwrap();
    assert!(matches!(answer, Opened::Identical(_)), "{answer:?}");
}

#[tokio::test]
async fn an_id_and_a_key_tell_what_became_of_a_request() {
    let database = support::database().await;
    let link = database.connect().await;
    let base = now_ms(&link.client).await;
    let mut ledger = Ledger::new(&link.client, 2).await;
    ledger.transfer(base, 0, 1, details(Some("r"), Some("c")));
    ledger.reject(base, 0, 1, details(Some("r"), None));
    ledger.write(&link.client).await;
    let completed = Record::Completed(ledger.transfers[0].clone());
    let rejected = Record::Rejected(ledger.rejections[0].clone());
    let gone = TransferId::first_of_ms(base);
    let cases = [
        (1, completed.id(), Some(completed)),
        (2, rejected.id(), Some(rejected)),
        (3, gone, None),
    ];
    let reader = Reader::connect(&super::settings(&database.url), Clock::System);
    for (key, txn_id, record) in cases {
        link.client
            .execute(
                "INSERT INTO idempotency_keys (key, fingerprint, txn_id, period)
                 SELECT $1, $2, $3, period FROM key_periods
                  WHERE starts_at <= now() AND now() < ends_at",
                &[
                    &Uuid::from_u128(key),
                    &Uuid::from_u128(key + 90),
                    &txn_id.uuid(),
                ],
            )
            .await
            .unwrap();
        assert_eq!(reader.transfer(txn_id).await.unwrap(), record);
        let fate = reader.fate(Uuid::from_u128(key)).await.unwrap();
        let expected = Fate {
            fingerprint: Uuid::from_u128(key + 90),
            txn_id,
            record,
        };
        assert_eq!(fate, Some(expected));
    }
    assert_eq!(reader.fate(Uuid::from_u128(4)).await.unwrap(), None);
}

#[tokio::test]
async fn a_fate_is_not_told_before_what_was_read_is_durable() {
    let database = support::database().await;
    let (url, switches) = proxy::start(&database.url).await;
    let reader = reader(&url);
    let key = Uuid::from_u128(1);
    assert_eq!(reader.fate(key).await.unwrap(), None);
    switches
        .warn
        .store(true, std::sync::atomic::Ordering::Release);
    let answer = reader.fate(key).await;
    assert!(matches!(answer, Err(ReadError::NotDurable)), "{answer:?}");
    // A plain read is not concerned.
    assert_eq!(reader.balance(account(1)).await.unwrap(), None);
    switches
        .warn
        .store(false, std::sync::atomic::Ordering::Release);
    assert_eq!(reader.fate(key).await.unwrap(), None);

    // What makes it durable takes a transaction id: its commit writes WAL and
    // waits for it.
    let link = database.connect().await;
    let sql = include_str!("../../../../sql/queries/read_durable.sql");
    link.client.batch_execute("BEGIN").await.unwrap();
    link.client.query(sql, &[]).await.unwrap();
    let row = link
        .client
        .query_one("SELECT pg_current_xact_id_if_assigned() IS NOT NULL", &[])
        .await
        .unwrap();
    assert!(row.get::<_, bool>(0));
    link.client.batch_execute("ROLLBACK").await.unwrap();
}
