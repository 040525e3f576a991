//! What can go wrong around COMMIT, each case for real.

use std::sync::Arc;
use std::time::Duration;

use engine::admission::Refused;
use engine::batch::retry::Cause;
use engine::domain::account::MinBalance;
use engine::domain::fold::ChangeOutcome;
use engine::domain::{AccountChange, AccountStatus, Details, Outcome};
use engine::store::link::Link;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::support::core::{Core, CoreSettings, account, fund, in_seconds, keyed, transfer};
use crate::support::daemon::PATIENCE;
use crate::support::proxy::{Action, Fault, Proxy, Sender, Strike, Way};
use crate::support::{TestDatabase, database, verify};

/// Looks again and again, without a pause: some of what is waited for is short.
async fn soon(mut holds: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, looking).await.expect("never came");
}

/// A stranger who holds an account's row until it rolls back.
async fn hold(database: &TestDatabase, id: i64) -> Link {
    let holder = database.connect().await;
    let lock = format!("BEGIN; SELECT 1 FROM accounts WHERE id = {id} FOR UPDATE");
    holder.client.batch_execute(&lock).await.unwrap();
    holder
}

async fn balance(database: &TestDatabase, id: i64) -> i64 {
    let link = database.connect().await;
    link.client
        .query_one("SELECT balance FROM accounts WHERE id = $1", &[&id])
        .await
        .unwrap()
        .get(0)
}

async fn transfers(database: &TestDatabase) -> i64 {
    let link = database.connect().await;
    link.client
        .query_one("SELECT count(*) FROM transfers", &[])
        .await
        .unwrap()
        .get(0)
}

/// A core behind a proxy, two funded accounts.
async fn behind_proxy(
    way: Way,
    settings: &CoreSettings,
    funds: &str,
) -> (TestDatabase, Proxy, Core) {
    let database = database().await;
    let proxy = Proxy::start_by(&database.url, way).await;
    let core = Core::start(&proxy.url(&database), settings);
    fund(&database.url, &core, 2, funds).await;
    (database, proxy, core)
}

/// Whatever happens around COMMIT, one transfer is answered as done and is
/// stored once.
async fn check_fault(fault: Fault, cause: Cause, looked_up: Option<bool>) {
    let (database, proxy, core) = behind_proxy(Way::Plain, &CoreSettings::default(), "10.00").await;
    proxy.arm(fault);
    let outcome = core
        .admission
        .transfer(keyed(1, transfer(1, 2, "4.00")), in_seconds(30))
        .await;
    assert!(proxy.has_struck());
    assert!(
        matches!(
            outcome,
            Ok(Outcome::Completed {
                replayed: false,
                ..
            })
        ),
        "{outcome:?}"
    );
    {
        let seen = core.watch.0.lock().unwrap();
        assert_eq!(seen.failed.first(), Some(&cause), "{seen:?}");
        assert_eq!(seen.looked_up.first().copied(), looked_up, "{seen:?}");
    }
    core.stop().await;
    assert_eq!(balance(&database, 1).await, 600);
    assert_eq!(transfers(&database).await, 3);
    verify(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_found_not_repeated() {
    check_fault(Fault::CutAfter, Cause::ConnectionLost, Some(true)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_never_arrived_is_done_once() {
    check_fault(Fault::CutBefore, Cause::ConnectionLost, Some(false)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_answers_rollback_is_not_success() {
    check_fault(Fault::RollBack, Cause::CommitRolledBack, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_with_a_warning_is_looked_up_before_it_is_answered() {
    check_fault(Fault::Warn, Cause::CommitWarning, Some(true)).await;
}

/// The stalled backend holds its rows until the server, or an engine, ends it.
fn impatient() -> CoreSettings {
    CoreSettings {
        round_trip_timeout: Duration::from_millis(300),
        parameters: engine::store::commit::session_parameters(
            Duration::from_millis(100),
            Duration::from_millis(200),
            Duration::from_millis(300),
        ),
        attempts_max: 1_000,
        ..CoreSettings::default()
    }
}

/// One transfer with a key, or a group; done once, whatever happens on the way.
async fn done_once(core: &Core, database: &TestDatabase, transfers: u32, stored: &mut i64) {
    if transfers == 1 {
        let key = u128::try_from(*stored).unwrap();
        let pay = || keyed(key, transfer(1, 2, "0.01"));
        let first = core
            .admission
            .transfer(pay(), in_seconds(30))
            .await
            .unwrap();
        let again = core
            .admission
            .transfer(pay(), in_seconds(30))
            .await
            .unwrap();
        let (
            Outcome::Completed {
                receipt: first,
                replayed: false,
            },
            Outcome::Completed {
                receipt: again,
                replayed: true,
            },
        ) = (first, again)
        else {
            panic!("{first:?} {again:?}");
        };
        assert_eq!(first, again);
    } else {
        let requests = (0..transfers).map(|_| transfer(1, 2, "0.01")).collect();
        let outcome = core.admission.group(requests, in_seconds(30)).await;
        let outcomes = outcome.unwrap().unwrap();
        assert!(outcomes.iter().all(Outcome::is_completed), "{outcomes:?}");
    }
    *stored += i64::from(transfers);
    assert_eq!(self::transfers(database).await, *stored);
}

/// In front of each message of a commit, the engine's and the server's, until there
/// are no more: how many there were of each.
async fn walk(way: Way, action: Action, transfers: u32, before: &[Strike]) -> [usize; 2] {
    let (database, proxy, core) = behind_proxy(way, &impatient(), "100.00").await;
    let mut stored = self::transfers(&database).await;
    let mut boundaries = [0, 0];
    for (sender, reached) in [Sender::Engine, Sender::Server].iter().zip(&mut boundaries) {
        loop {
            let strike = Strike {
                sender: *sender,
                boundary: *reached,
                action,
            };
            proxy.script(before.iter().copied().chain([strike]));
            done_once(&core, &database, transfers, &mut stored).await;
            if proxy.strikes_left() > 0 {
                break;
            }
            *reached += 1;
        }
    }
    proxy.script([]);
    core.stop().await;
    let moved = stored - 2;
    assert_eq!(balance(&database, 1).await, 10_000 - moved);
    verify(&database).await;
    eprintln!("{way:?}: {action:?}, {transfers} transfers: {boundaries:?} boundaries");
    boundaries
}

/// BEGIN, lock, write, COMMIT: a Bind and an Execute each, and two Syncs; and an
/// answer to each, with a row of each account.
const BOUNDARIES_MIN: [usize; 2] = [10, 12];

async fn check_walk(action: Action) {
    // By one statement, and by COPY.
    for transfers in [1, 20] {
        let boundaries = walk(Way::Plain, action, transfers, &[]).await;
        assert!(BOUNDARIES_MIN[0] <= boundaries[0] && BOUNDARIES_MIN[1] <= boundaries[1]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_at_any_message_ends_in_one_commit() {
    check_walk(Action::Cut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_late_is_waited_for() {
    check_walk(Action::Delay).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_half_closed_at_any_message_ends_in_one_commit() {
    check_walk(Action::HalfClose).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_swallows_any_message_ends_in_one_commit() {
    check_walk(Action::BlackHole).await;
}

/// TLS ends with a farewell or without one; records hold messages in parts.
#[tokio::test(flavor = "multi_thread")]
async fn over_tls_too_a_broken_connection_ends_in_one_commit() {
    for (action, transfers) in [(Action::Cut, 1), (Action::HalfClose, 20)] {
        let boundaries = walk(Way::Tls, action, transfers, &[]).await;
        assert!(BOUNDARIES_MIN[0] <= boundaries[0] && BOUNDARIES_MIN[1] <= boundaries[1]);
    }
}

/// The answer to COMMIT is lost, and then the look-up is cut as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_up_cut_at_any_message_ends_in_one_commit() {
    // A group has no key: what is counted is one commit, not its replay as well.
    let [_, answers] = walk(Way::Plain, Action::Cut, 2, &[]).await;
    let lost = Strike {
        sender: Sender::Server,
        boundary: answers - 1,
        action: Action::Cut,
    };
    let boundaries = walk(Way::Plain, Action::Cut, 2, &[lost]).await;
    assert!(BOUNDARIES_MIN[0] <= boundaries[0] && BOUNDARIES_MIN[1] <= boundaries[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_is_given_up_and_its_locks_are_waited_for() {
    let settings = CoreSettings {
        round_trip_timeout: Duration::from_millis(300),
        // The stalled backend holds its rows until the server ends it.
        parameters: engine::store::commit::session_parameters(
            Duration::from_millis(100),
            Duration::from_millis(200),
            Duration::from_secs(1),
        ),
        ..CoreSettings::default()
    };
    let (database, proxy, core) = behind_proxy(Way::Plain, &settings, "10.00").await;
    proxy.arm(Fault::Stall);
    let outcome = core
        .admission
        .transfer(keyed(1, transfer(1, 2, "4.00")), in_seconds(30))
        .await;
    assert!(
        matches!(
            outcome,
            Ok(Outcome::Completed {
                replayed: false,
                ..
            })
        ),
        "{outcome:?} {:?}",
        core.watch
    );
    core.stop().await;
    assert_eq!(balance(&database, 1).await, 600);
    verify(&database).await;
}

/// The look-up must wait for the dying backend: without the locks it would see
/// the old state, call the commit missing, and do it twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_up_that_races_a_dying_backend_waits_for_it() {
    let (database, proxy, core) = behind_proxy(Way::Plain, &CoreSettings::default(), "10.00").await;
    let release = Arc::new(Notify::new());
    proxy.arm(Fault::Delay(Arc::clone(&release)));
    let admission = core.admission.clone();
    let call = tokio::spawn(async move {
        admission
            .transfer(keyed(1, transfer(1, 2, "4.00")), in_seconds(30))
            .await
    });
    let link = database.connect().await;
    // The engine has reconnected and waits for the rows that the old session holds.
    somebody_waits(&link).await;
    release.notify_one();
    let outcome = call.await.unwrap();
    assert!(
        matches!(
            outcome,
            Ok(Outcome::Completed {
                replayed: false,
                ..
            })
        ),
        "{outcome:?}"
    );
    assert_eq!(core.watch.0.lock().unwrap().looked_up, [true]);
    core.stop().await;
    assert_eq!(balance(&database, 1).await, 600);
    verify(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_on_disjoint_accounts_in_two_engines_is_used_once() {
    let database = database().await;
    let settings = CoreSettings::default();
    let first = Core::start(&database.url, &settings);
    let second = Core::start(&database.url, &settings);
    fund(&database.url, &first, 4, "100.00").await;
    for round in 0..40 {
        let (one, other) = tokio::join!(
            first
                .admission
                .transfer(keyed(round, transfer(1, 2, "1.00")), in_seconds(30)),
            second
                .admission
                .transfer(keyed(round, transfer(3, 4, "1.00")), in_seconds(30)),
        );
        let mut outcomes = [one.unwrap(), other.unwrap()];
        outcomes.sort_by_key(|outcome| !outcome.is_completed());
        assert!(outcomes[0].is_completed(), "{outcomes:?}");
        assert_eq!(outcomes[1], Outcome::KeyReused);
    }
    first.stop().await;
    second.stop().await;
    assert_eq!(transfers(&database).await, 4 + 40);
    verify(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_poisonous_row_among_thousands_fails_alone() {
    let database = database().await;
    let core = Core::start(&database.url, &CoreSettings::default());
    fund(&database.url, &core, 100, "1000.00").await;
    let link = database.connect().await;
    link.client
        .batch_execute("ALTER TABLE transfers ADD CONSTRAINT no_poison CHECK (reference IS DISTINCT FROM 'poison')")
        .await
        .unwrap();
    let poison = 1_234;
    let requests = (0..2_000_u32)
        .map(|index| {
            let mut request = transfer(i64::from(index % 99) + 1, 100, "0.01");
            if index == poison {
                let details = Details {
                    reference: Some("poison".into()),
                    ..Details::default()
                };
                request.details = Some(Box::new(details));
            }
            keyed(u128::from(index), request)
        })
        .collect();
    let outcomes = core
        .admission
        .transfers(requests, in_seconds(60))
        .await
        .unwrap();
    for (index, outcome) in (0..).zip(&outcomes) {
        if index == poison {
            assert_eq!(*outcome, Err(Refused::Unstorable));
        } else {
            assert!(
                outcome.is_ok_and(|outcome| outcome.is_completed()),
                "{index} {outcome:?}"
            );
        }
    }
    core.stop().await;
    assert_eq!(transfers(&database).await, 100 + 1_999);
    verify(&database).await;
}

/// An account that stays as it was beside transfers that move it is money made or
/// lost: the count of the rows written decides, in each statement that writes them.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_would_leave_an_account_unwritten_is_rolled_back() {
    let database = database().await;
    let core = Core::start(&database.url, &CoreSettings::default());
    fund(&database.url, &core, 2, "10.00").await;
    // No statement of the engine's skips a row that it has locked; a trigger can.
    let link = database.connect().await;
    link.client
        .batch_execute(
            "CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE TRIGGER skip BEFORE UPDATE ON accounts
                FOR EACH ROW WHEN (OLD.id = 2) EXECUTE FUNCTION skip()",
        )
        .await
        .unwrap();
    let small = core
        .admission
        .transfer(keyed(1, transfer(1, 2, "4.00")), in_seconds(30))
        .await;
    assert_eq!(small, Err(Refused::DatabaseUnavailable));
    // One piece of work, so that it is one batch, far too large for one statement.
    let large = core
        .admission
        .group(vec![transfer(1, 2, "0.01"); 100], in_seconds(30))
        .await;
    assert_eq!(large, Err(Refused::DatabaseUnavailable));
    let renamed = AccountChange {
        account_id: account(2),
        status: None,
        min_balance: None,
        name: Some(Some("unwritten".into())),
    };
    let terms = core.admission.change_account(renamed, in_seconds(30)).await;
    assert_eq!(terms, Err(Refused::DatabaseUnavailable));
    assert_eq!(core.watch.0.lock().unwrap().failed, [Cause::Other; 3]);
    core.stop().await;
    assert_eq!(balance(&database, 1).await, 1_000);
    assert_eq!(transfers(&database).await, 2);
    verify(&database).await;
}

/// The setting may change between the last look and COMMIT: the commit looks itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_would_wait_for_no_demanded_standby_is_rolled_back() {
    let database = database().await;
    let core = Core::start(&database.url, &CoreSettings::default());
    fund(&database.url, &core, 2, "10.00").await;
    core.stop().await;
    let mut settings = CoreSettings::default();
    let demand = engine::store::commit::demand_sync_standby();
    settings.parameters.push(demand);
    // No lookout here, and the server has no standby.
    let core = Core::start(&database.url, &settings);
    let small = core
        .admission
        .transfer(keyed(1, transfer(1, 2, "4.00")), in_seconds(30))
        .await;
    assert_eq!(small, Err(Refused::DatabaseUnavailable));
    // Too large for one statement.
    let large = core
        .admission
        .group(vec![transfer(1, 2, "0.01"); 100], in_seconds(30))
        .await;
    assert_eq!(large, Err(Refused::DatabaseUnavailable));
    core.stop().await;
    assert_eq!(balance(&database, 1).await, 1_000);
    assert_eq!(transfers(&database).await, 2);
    verify(&database).await;
}

/// A stopped engine's open transaction holds rows; the server ends it, and the
/// others go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_engine_does_not_hold_its_accounts_for_long() {
    let database = database().await;
    let core = Core::start(&database.url, &CoreSettings::default());
    fund(&database.url, &core, 2, "10.00").await;
    let stopped = database.connect().await;
    stopped
        .client
        .batch_execute(
            "SET idle_in_transaction_session_timeout = 500; BEGIN; SELECT 1 FROM accounts WHERE id = 1 FOR UPDATE",
        )
        .await
        .unwrap();
    let outcome = core
        .admission
        .transfer(transfer(1, 2, "4.00"), in_seconds(30))
        .await;
    assert!(
        outcome.is_ok_and(|outcome| outcome.is_completed()),
        "{outcome:?}"
    );
    core.stop().await;
    verify(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_past_the_deadline_and_every_answer_is_true() {
    let database = database().await;
    let core = Core::start(
        &database.url,
        &CoreSettings {
            attempts_max: 1_000,
            ..CoreSettings::default()
        },
    );
    fund(&database.url, &core, 3, "10.00").await;
    let holder = hold(&database, 1).await;
    let deadline = std::time::Instant::now() + Duration::from_millis(300);
    // The first is in a batch that waits for the row, the second behind it.
    let (first, second) = tokio::join!(
        core.admission
            .transfer(keyed(1, transfer(1, 2, "4.00")), deadline),
        core.admission
            .transfer(keyed(2, transfer(1, 3, "4.00")), deadline),
    );
    assert!(
        deadline.elapsed() < Duration::from_secs(1),
        "past the deadline"
    );
    for refused in [first, second] {
        assert!(
            matches!(
                refused,
                Err(Refused::DeadlineExceeded | Refused::OutcomeUnknown)
            ),
            "{refused:?}"
        );
    }
    assert!(
        [first, second].contains(&Err(Refused::OutcomeUnknown)),
        "one was being committed"
    );
    holder.client.batch_execute("ROLLBACK").await.unwrap();
    // The truth is told by the key, once the engine has come to rest.
    let after = core
        .admission
        .transfer(transfer(2, 1, "0.01"), in_seconds(30))
        .await;
    assert!(after.is_ok_and(|outcome| outcome.is_completed()));
    for (key, credit, told) in [(1, 2, first), (2, 3, second)] {
        let again = core
            .admission
            .transfer(keyed(key, transfer(1, credit, "4.00")), in_seconds(30))
            .await
            .unwrap();
        let Outcome::Completed { replayed, .. } = again else {
            panic!("{again:?}")
        };
        assert!(
            !(replayed && told == Err(Refused::DeadlineExceeded)),
            "told it was not applied, but it was"
        );
    }
    core.stop().await;
    verify(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_database_is_said_and_full_queues_refuse_at_once() {
    let database = database().await;
    let nowhere = "postgres://postgres@127.0.0.1:1/none";
    let core = Core::start(
        nowhere,
        &CoreSettings {
            queue_depth_max: 1,
            ..CoreSettings::default()
        },
    );
    let soon = std::time::Instant::now() + Duration::from_millis(200);
    let (first, second) = tokio::join!(
        core.admission.transfer(transfer(1, 2, "1"), soon),
        core.admission.transfer(transfer(1, 2, "1"), soon),
    );
    assert_eq!(first, Err(Refused::DatabaseUnavailable));
    assert_eq!(second, Err(Refused::DatabaseUnavailable));
    core.stop().await;
    let core = Core::start(
        &database.url,
        &CoreSettings {
            queue_depth_max: 2,
            ..CoreSettings::default()
        },
    );
    fund(&database.url, &core, 1, "1.00").await;
    let requests = || vec![transfer(0, 1, "1"); 3];
    assert_eq!(
        core.admission.transfers(requests(), in_seconds(10)).await,
        Err(Refused::QueueFull)
    );
    let admission = core.admission.clone();
    core.stop().await;
    assert_eq!(
        admission.permits().0,
        0,
        "neither refused nor answered calls keep permits"
    );

    verify(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_answers_everything_that_was_let_in() {
    let database = database().await;
    let core = Core::start(&database.url, &CoreSettings::default());
    fund(&database.url, &core, 50, "1000.00").await;
    let calls: Vec<_> = (0..500_u32)
        .map(|index| {
            let admission = core.admission.clone();
            let debit = i64::from(index % 50) + 1;
            let request = keyed(u128::from(index), transfer(debit, debit % 50 + 1, "0.01"));
            tokio::spawn(async move { admission.transfer(request, in_seconds(30)).await })
        })
        .collect();
    soon(async || core.committers.in_flight() > 0 || core.admission.permits().0 > 0).await;
    core.stop().await;
    let mut done = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(outcome) => {
                assert!(outcome.is_completed());
                done += 1;
            }
            Err(refused) => assert_eq!(refused, Refused::Draining),
        }
    }
    assert_eq!(transfers(&database).await, 50 + done);
    verify(&database).await;
}

/// Waits until a session of this database waits for a row.
async fn somebody_waits(link: &Link) {
    let count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    soon(async || {
        let waiting: i64 = link.client.query_one(count, &[]).await.unwrap().get(0);
        waiting > 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_waits_for_a_strangers_row_holds_nobody_else_up() {
    let database = database().await;
    let settings = CoreSettings {
        parallel_transfers_min: 128,
        ..CoreSettings::default()
    };
    let core = Core::start(&database.url, &settings);
    fund(&database.url, &core, 4, "10.00").await;
    let holder = hold(&database, 1).await;
    let admission = core.admission.clone();
    let blocked = tokio::spawn(async move {
        admission
            .transfer(transfer(1, 2, "1"), in_seconds(30))
            .await
    });
    let link = database.connect().await;
    somebody_waits(&link).await;
    let other = core
        .admission
        .transfer(transfer(3, 4, "1"), in_seconds(30))
        .await;
    assert!(
        other.is_ok_and(|outcome| outcome.is_completed()),
        "{other:?}"
    );
    assert!(!blocked.is_finished(), "the row is still held");
    holder.client.batch_execute("ROLLBACK").await.unwrap();
    assert!(
        blocked
            .await
            .unwrap()
            .is_ok_and(|outcome| outcome.is_completed())
    );
    core.stop().await;
    verify(&database).await;
}

#[expect(
    clippy::too_many_lines,
    reason = "one scenario, read from top to bottom"
)]
#[tokio::test(flavor = "multi_thread")]
async fn terms_and_transfers_of_one_account_commit_together() {
    let database = database().await;
    let core = Core::start(
        &database.url,
        &CoreSettings {
            committers: 1,
            ..CoreSettings::default()
        },
    );
    fund(&database.url, &core, 9, "10.00").await;
    let holder = hold(&database, 9).await;
    // One batch is in flight; what comes now is the next one.
    let admission = core.admission.clone();
    let first = tokio::spawn(async move {
        admission
            .transfer(transfer(9, 8, "1"), in_seconds(30))
            .await
    });
    let link = database.connect().await;
    somebody_waits(&link).await;
    let unlimited = AccountChange {
        account_id: account(1),
        status: None,
        min_balance: Some(MinBalance::Unlimited),
        name: Some(Some("credit line".into())),
    };
    let closed = AccountChange {
        account_id: account(3),
        status: Some(AccountStatus::Closed),
        min_balance: None,
        name: None,
    };
    let change = |change| {
        let admission = core.admission.clone();
        tokio::spawn(async move { admission.change_account(change, in_seconds(30)).await })
    };
    let pay = |request| {
        let admission = core.admission.clone();
        tokio::spawn(async move { admission.transfer(request, in_seconds(30)).await })
    };
    // In the next batch already: that is their order.
    let waiting = |count| {
        let committers = core.committers.clone();
        async move { soon(async || count <= committers.ready()).await }
    };
    let lifted = change(unlimited);
    waiting(1).await;
    let overdraft = pay(transfer(1, 2, "500.00"));
    let emptied = pay(transfer(3, 2, "10.00"));
    waiting(3).await;
    let close = change(closed);
    waiting(4).await;
    holder.client.batch_execute("ROLLBACK").await.unwrap();
    assert!(
        first
            .await
            .unwrap()
            .is_ok_and(|outcome| outcome.is_completed())
    );
    assert_eq!(lifted.await.unwrap(), Ok(ChangeOutcome::Changed));
    assert!(
        overdraft
            .await
            .unwrap()
            .is_ok_and(|outcome| outcome.is_completed())
    );
    assert!(
        emptied
            .await
            .unwrap()
            .is_ok_and(|outcome| outcome.is_completed())
    );
    assert_eq!(close.await.unwrap(), Ok(ChangeOutcome::Changed));
    assert!(
        !core
            .watch
            .0
            .lock()
            .unwrap()
            .failed
            .contains(&Cause::DataError)
    );
    core.stop().await;
    let row = link
        .client
        .query_one(
            "SELECT balance, min_balance, name FROM accounts WHERE id = 1",
            &[],
        )
        .await
        .unwrap();
    let row: (i64, Option<i64>, Option<String>) = (row.get(0), row.get(1), row.get(2));
    assert_eq!(row, (-49_000, None, Some("credit line".into())));
    verify(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_currency_added_while_serving_is_learnt_not_refused() {
    let database = database().await;
    let core = Core::start(&database.url, &CoreSettings::default());
    fund(&database.url, &core, 2, "10.00").await;
    let link = database.connect().await;
    link.client
        .batch_execute(
            "INSERT INTO currencies VALUES (963, 'XTS', 3);
             INSERT INTO accounts (id, currency_id, min_balance) VALUES (70, 963, NULL), (71, 963, 0)",
        )
        .await
        .unwrap();
    let (new, old) = tokio::join!(
        core.admission
            .transfer(transfer(70, 71, "1.234"), in_seconds(30)),
        core.admission
            .transfer(transfer(1, 2, "1.23"), in_seconds(30)),
    );
    for outcome in [new, old] {
        assert!(
            outcome.is_ok_and(|outcome| outcome.is_completed()),
            "{outcome:?}"
        );
    }
    core.stop().await;
    verify(&database).await;
}
