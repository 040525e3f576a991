//! The rule book against plain arithmetic.

use proptest::prelude::*;
use rust_decimal::Decimal;

use super::*;
use crate::domain::{AccountId, Currency, CurrencyCode, DecimalAmount, Details};

const USD: Currency = Currency::for_test(840, *b"USD", 2);
const JPY: Currency = Currency::for_test(392, *b"JPY", 0);

fn id(id: i64) -> AccountId {
    AccountId::new(id).unwrap()
}

fn account(number: i64, balance: i64, min_balance: Option<i64>) -> Account {
    Account {
        id: id(number),
        currency: USD,
        balance,
        min_balance,
        debits_pending: 0,
        version: 0,
        head: None,
        status: AccountStatus::Open,
    }
}

fn known(accounts: &[Account]) -> Known {
    Known {
        accounts: accounts
            .iter()
            .map(|account| (account.id, *account))
            .collect(),
        ..Known::default()
    }
}

fn request(debit: i64, credit: i64, amount: &str) -> TransferRequest {
    TransferRequest {
        debit_account_id: id(debit),
        credit_account_id: id(credit),
        amount: DecimalAmount::parse(amount).unwrap(),
        currency: None,
        reverses: None,
        key: None,
        details: Some(Box::new(Details::default())),
    }
}

fn keyed(key: u128, fingerprint: u128, request: TransferRequest) -> TransferRequest {
    let key = IdempotencyKey {
        hash: Uuid::from_u128(key),
        fingerprint: Uuid::from_u128(fingerprint),
    };
    TransferRequest {
        key: Some(key),
        ..request
    }
}

fn reason(outcome: Outcome) -> RejectReason {
    let Outcome::Rejected { rejection, .. } = outcome else {
        panic!("not refused: {outcome:?}");
    };
    rejection.reason
}

#[track_caller]
fn check_refused(accounts: &[Account], request: &TransferRequest, expected: RejectReason) {
    let mut ids = TransferIds::new(1);
    let mut fold = Fold::new(known(accounts), &mut ids, 1_000);
    assert_eq!(reason(fold.transfer(request, 0)), expected);
    assert!(fold.transfers.is_empty() && fold.keys.is_empty() && fold.rejections.is_empty());
    for account in accounts {
        assert_eq!(
            fold.accounts()[&account.id],
            *account,
            "a refused transfer changes nothing"
        );
    }
}

#[test]
fn the_limit_is_reached_but_not_passed() {
    let accounts = [account(1, 500, Some(-100)), account(2, 0, Some(0))];
    check_refused(
        &accounts,
        &request(1, 2, "6.01"),
        RejectReason::InsufficientFunds,
    );
    let mut ids = TransferIds::new(1);
    let mut fold = Fold::new(known(&accounts), &mut ids, 1_000);
    assert!(fold.transfer(&request(1, 2, "6.00"), 0).is_completed());
    assert_eq!(fold.accounts()[&id(1)].balance, -100);
    assert_eq!(fold.accounts()[&id(2)].balance, 600);
}

#[test]
fn reserved_money_cannot_be_spent() {
    let accounts = [
        Account {
            debits_pending: 100,
            ..account(1, 500, Some(0))
        },
        account(2, 0, Some(0)),
    ];
    check_refused(
        &accounts,
        &request(1, 2, "4.01"),
        RejectReason::InsufficientFunds,
    );
}

#[test]
fn balances_stop_at_the_ends_of_bigint() {
    let accounts = [account(1, 10, None), account(2, i64::MAX, Some(0))];
    check_refused(
        &accounts,
        &request(1, 2, "0.01"),
        RejectReason::BalanceOverflow,
    );
    let accounts = [account(1, i64::MIN, None), account(2, 0, Some(0))];
    check_refused(
        &accounts,
        &request(1, 2, "0.01"),
        RejectReason::BalanceOverflow,
    );
}

#[test]
fn refusals_follow_their_precedence() {
    let closed = Account {
        status: AccountStatus::Closed,
        ..account(1, 0, Some(0))
    };
    let frozen = Account {
        status: AccountStatus::Frozen,
        ..account(2, 0, Some(0))
    };
    let yen = Account {
        currency: JPY,
        status: AccountStatus::Closed,
        ..account(3, 0, Some(0))
    };
    check_refused(
        &[closed, frozen],
        &request(1, 2, "1"),
        RejectReason::AccountClosed,
    );
    check_refused(
        &[closed, frozen],
        &request(2, 1, "1"),
        RejectReason::AccountClosed,
    );
    check_refused(
        &[account(1, 0, Some(0)), frozen],
        &request(1, 2, "1"),
        RejectReason::AccountFrozen,
    );
    check_refused(
        &[closed, yen],
        &request(1, 3, "1"),
        RejectReason::CurrencyMismatch,
    );
    let asked = TransferRequest {
        currency: CurrencyCode::parse("EUR"),
        ..request(1, 2, "1")
    };
    check_refused(
        &[account(1, 0, None), account(2, 0, None)],
        &asked,
        RejectReason::CurrencyMismatch,
    );
}

#[test]
fn what_is_missing_or_too_precise_is_no_business_refusal() {
    let mut ids = TransferIds::new(1);
    let mut fold = Fold::new(known(&[account(1, 500, Some(0))]), &mut ids, 1_000);
    let outcome = fold.transfer(&keyed(1, 1, request(1, 2, "1")), 0);
    assert_eq!(outcome, Outcome::AccountNotFound(id(2)));
    let mut fold = Fold::new(
        known(&[account(1, 500, None), account(2, 0, None)]),
        &mut ids,
        1_000,
    );
    let outcome = fold.transfer(&keyed(1, 1, request(1, 2, "0.001")), 0);
    assert_eq!(outcome, Outcome::InvalidAmount(InvalidAmount::TooPrecise));
    assert!(fold.keys.is_empty(), "neither keeps its key");
}

#[test]
fn a_key_answers_again_inside_the_batch_and_from_storage() {
    let mut ids = TransferIds::new(1);
    let mut fold = Fold::new(
        known(&[account(1, 500, Some(0)), account(2, 0, Some(0))]),
        &mut ids,
        1_000,
    );
    let first = fold.transfer(&keyed(9, 1, request(1, 2, "5")), 0);
    let again = fold.transfer(&keyed(9, 1, request(1, 2, "5.00")), 1);
    let other = fold.transfer(&keyed(9, 2, request(1, 2, "6")), 2);
    let Outcome::Completed {
        receipt,
        replayed: false,
    } = first
    else {
        panic!("{first:?}")
    };
    assert_eq!(
        again,
        Outcome::Completed {
            receipt,
            replayed: true
        }
    );
    assert_eq!(other, Outcome::KeyReused);
    assert_eq!((fold.transfers.len(), fold.keys.len()), (1, 1));
    let stored = KnownKey {
        fingerprint: Uuid::from_u128(1),
        outcome: first,
    };
    let mut later = known(&[account(1, 0, Some(0)), account(2, 500, Some(0))]);
    later.keys.insert(Uuid::from_u128(9), stored);
    let mut fold = Fold::new(later, &mut ids, 2_000);
    assert_eq!(
        fold.transfer(&keyed(9, 1, request(1, 2, "5")), 0),
        Outcome::Completed {
            receipt,
            replayed: true
        }
    );
    assert!(fold.transfers.is_empty());
}

#[test]
fn an_original_is_reversed_once() {
    let original = TransferIds::new(5).next(1, None);
    let reversal = TransferRequest {
        reverses: Some(original),
        ..request(2, 1, "1")
    };
    let accounts = [account(1, 500, Some(0)), account(2, 500, Some(0))];
    let mut ids = TransferIds::new(1);
    let mut fold = Fold::new(known(&accounts), &mut ids, 1_000);
    assert!(fold.transfer(&reversal, 0).is_completed());
    assert_eq!(
        reason(fold.transfer(&reversal, 1)),
        RejectReason::AlreadyReversed
    );
    let mut stored = known(&accounts);
    stored.reversed.insert(original);
    let mut fold = Fold::new(stored, &mut ids, 1_000);
    assert_eq!(
        reason(fold.transfer(&reversal, 0)),
        RejectReason::AlreadyReversed
    );
}

#[test]
fn terms_change_only_as_the_balance_allows() {
    let change = |status, min_balance: Option<&str>| AccountChange {
        account_id: id(1),
        status,
        min_balance: min_balance.map(|text| {
            crate::domain::account::MinBalance::AtLeast(Decimal::from_str_exact(text).unwrap())
        }),
        name: None,
    };
    let check = |balance, change: &AccountChange, expected| {
        let mut ids = TransferIds::new(1);
        let mut fold = Fold::new(known(&[account(1, balance, Some(0))]), &mut ids, 1_000);
        assert_eq!(fold.change(change), expected);
        assert_eq!(fold.terms.is_empty(), expected != ChangeOutcome::Changed);
    };
    check(
        0,
        &change(Some(AccountStatus::Closed), None),
        ChangeOutcome::Changed,
    );
    check(
        1,
        &change(Some(AccountStatus::Closed), None),
        ChangeOutcome::AccountNotEmpty,
    );
    check(500, &change(None, Some("5.00")), ChangeOutcome::Changed);
    check(
        500,
        &change(None, Some("5.01")),
        ChangeOutcome::BelowMinBalance,
    );
    check(
        500,
        &change(None, Some("0.001")),
        ChangeOutcome::InvalidAmount(InvalidAmount::TooPrecise),
    );
    let other = AccountChange {
        account_id: id(2),
        ..change(None, None)
    };
    check(0, &other, ChangeOutcome::AccountNotFound);
}

/// One request of a random run; groups are runs of them.
fn arbitrary_request() -> impl Strategy<Value = TransferRequest> {
    (0..6_i64, 0..6_i64, 1..400_i64, prop::option::of(0..8_u128)).prop_map(
        |(debit, credit, cents, key)| {
            let credit = if credit == debit {
                (credit + 1) % 6
            } else {
                credit
            };
            let amount = Decimal::new(cents, 2).to_string();
            let request = request(debit, credit, &amount);
            match key {
                None => request,
                Some(key) => keyed(
                    key,
                    key << 32 | u128::try_from(debit * 1000 + cents % 2).unwrap(),
                    request,
                ),
            }
        },
    )
}

fn start() -> Vec<Account> {
    let mut accounts: Vec<_> = (1..6).map(|number| account(number, 300, Some(0))).collect();
    accounts.push(account(0, -1_500, None));
    accounts
}

/// Folds the requests in batches cut at `cuts`, each from what the one before stored.
fn run(requests: &[TransferRequest], cuts: &[usize]) -> (Known, Vec<Outcome>) {
    let mut ids = TransferIds::new(3);
    let mut known = known(&start());
    let mut outcomes = Vec::new();
    let mut rest = requests;
    let mut cuts = cuts.iter().copied().cycle();
    while !rest.is_empty() {
        let (batch, after) = rest.split_at(cuts.next().unwrap_or(1).clamp(1, rest.len()));
        rest = after;
        let mut fold = Fold::new(known, &mut ids, 1_000);
        for (index, request) in batch.iter().enumerate() {
            outcomes.push(fold.transfer(request, index));
        }
        let keys_here = fold.keys_here.clone();
        known = fold.known;
        known.keys.extend(keys_here);
    }
    (known, outcomes)
}

/// What was decided, ids aside: they depend on how many were made before.
fn decided(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Completed { receipt, replayed } => format!("{} {replayed}", receipt.amount_minor),
        Outcome::Rejected {
            rejection,
            replayed,
        } => {
            format!(
                "{:?} {:?} {replayed}",
                rejection.reason, rejection.account_id
            )
        }
        Outcome::KeyReused
        | Outcome::AccountNotFound(_)
        | Outcome::InvalidAmount(_)
        | Outcome::KeyExpired => format!("{outcome:?}"),
    }
}

proptest! {
    #[test]
    fn any_batches_equal_one_by_one(
        requests in prop::collection::vec(arbitrary_request(), 1..80),
        cuts in prop::collection::vec(1..20_usize, 1..6),
    ) {
        let (batched, batched_outcomes) = run(&requests, &cuts);
        let (single, single_outcomes) = run(&requests, &[1]);
        let decisions = |outcomes: &[Outcome]| outcomes.iter().map(decided).collect::<Vec<_>>();
        prop_assert_eq!(decisions(&batched_outcomes), decisions(&single_outcomes));
        let mut sum = 0;
        for (id, account) in &single.accounts {
            let other = batched.accounts[id];
            prop_assert_eq!((account.balance, account.version), (other.balance, other.version));
            prop_assert!(account.min_balance.is_none_or(|limit| limit <= account.balance));
            sum += account.balance;
        }
        prop_assert_eq!(sum, 0, "money is neither made nor lost");
    }

    #[test]
    fn a_failed_group_leaves_nothing(
        before in prop::collection::vec(arbitrary_request(), 0..20),
        group in prop::collection::vec(arbitrary_request(), 1..20),
    ) {
        let mut ids = TransferIds::new(3);
        let mut fold = Fold::new(known(&start()), &mut ids, 1_000);
        for (index, request) in before.iter().enumerate() {
            fold.transfer(request, index);
        }
        let accounts = fold.accounts().clone();
        let rows = (fold.transfers.len(), fold.rejections.len(), fold.keys.len(), fold.keys_here.len());
        let outcome = fold.group(group.iter(), before.len());
        if let Err(failure) = outcome {
            prop_assert!(!failure.outcome.is_completed());
            prop_assert_eq!(fold.accounts(), &accounts);
            let now = (fold.transfers.len(), fold.rejections.len(), fold.keys.len(), fold.keys_here.len());
            prop_assert_eq!(now, rows);
        } else {
            let sum: i64 = fold.accounts().values().map(|account| account.balance).sum();
            prop_assert_eq!(sum, 0);
        }
    }

    #[test]
    fn rows_chain_along_every_account(requests in prop::collection::vec(arbitrary_request(), 1..80)) {
        let mut ids = TransferIds::new(3);
        let mut fold = Fold::new(known(&start()), &mut ids, 1_000);
        for (index, request) in requests.iter().enumerate() {
            fold.transfer(request, index);
        }
        let mut heads: HashMap<AccountId, (i64, Option<TransferId>)> = HashMap::new();
        for row in &fold.transfers {
            for (account, version, previous) in [
                (row.debit_account_id, row.debit_version, row.debit_previous),
                (row.credit_account_id, row.credit_version, row.credit_previous),
            ] {
                let (last, head) = heads.get(&account).copied().unwrap_or_default();
                prop_assert_eq!((version, previous), (last + 1, head));
                prop_assert!(previous < Some(row.id));
                heads.insert(account, (version, Some(row.id)));
            }
        }
    }
}
