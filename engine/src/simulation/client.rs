//! Callers: what they want, how often they try, when they give up.
//!
//! A call's handler lives in the engine's process, as a request does: it dies with
//! the engine, and is dropped when its caller goes away. What it is answered is
//! judged there and then; the caller may never hear of it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::database::POISON;
use super::engines::{Engine, seen};
use super::executor::{self, Group};
use super::{now_ms, oracle, world};
use crate::admission::Refused;
use crate::cache::ReadMode;
use crate::domain::account::MinBalance;
use crate::domain::{
    AccountChange, AccountStatus, DecimalAmount, Details, Outcome, TransferId, TransferRequest,
    fingerprint,
};

/// Attempts of one keyed request.
const ATTEMPTS_MAX: u64 = 6;

/// Every client, until the last one has what it wanted or has given up.
pub(super) async fn all() {
    let clients = world().config.clients;
    let left = Rc::new(RefCell::new(clients));
    let (ended, all_ended) = oneshot::channel();
    let ended = Rc::new(RefCell::new(Some(ended)));
    for _ in 0..clients {
        let (left, ended) = (Rc::clone(&left), Rc::clone(&ended));
        executor::spawn(Group::WORLD, async move {
            one().await;
            *left.borrow_mut() -= 1;
            if *left.borrow() == 0
                && let Some(ended) = ended.borrow_mut().take()
            {
                // The world may have ended first.
                ended.send(()).ok();
            }
        });
    }
    // The clients hold the sender.
    all_ended.await.ok();
    world().idle.set(true);
}

async fn one() {
    for _ in 0..world().config.calls {
        let think = {
            let world = world();
            world.ms(0..world.config.think_ms_max + 1)
        };
        tokio::time::sleep(think).await;
        let slot = some_slot();
        let kind = world().within(0..100);
        match kind {
            0..45 => single(slot).await,
            45..55 => several(slot).await,
            55..65 => group(slot).await,
            65..70 => change(slot).await,
            _ => {
                let account = some_account();
                read(slot, account, kind.is_multiple_of(4)).await;
            }
        }
    }
}

fn some_slot() -> usize {
    let world = world();
    world.index(world.config.engines)
}

fn some_account() -> i64 {
    let world = world();
    let ids = world.config.account_ids();
    // Half of it is about the first few, so that they are hot.
    let among = if world.within(0..2) == 0 {
        3
    } else {
        ids.len()
    };
    ids[world.index(among.min(ids.len()))]
}

/// A request drawn by chance, under a number of its own.
fn draw() -> usize {
    let world = world();
    let (debit, mut credit) = (some_account(), some_account());
    if world.within(0..60) == 0 {
        credit = 999;
    }
    if debit == credit {
        credit = if debit == 0 { 1 } else { 0 };
    }
    let yen = debit >= 100;
    let minor = i64::try_from(world.within(1..4_000)).unwrap_or(1);
    let poisoned = world.chance(world.config.poison);
    let reversal = {
        let oracle = world.oracle.borrow();
        let at = world.index(oracle.next_number().max(1));
        let original = oracle
            .some_completed(at)
            .filter(|_| world.within(0..12) == 0);
        original.map(|(id, wanted)| {
            let request = &wanted.request;
            let sides = (
                request.credit_account_id.get(),
                request.debit_account_id.get(),
            );
            (id, sides, wanted.amount_minor)
        })
    };
    let number = world.oracle.borrow().next_number();
    let (reverses, (debit, credit), minor) = match reversal {
        Some((id, sides, minor)) => (Some(TransferId::from_uuid(id)), sides, minor),
        None => (None, (debit, credit), minor),
    };
    let yen = yen && reverses.is_none() || debit >= 100;
    let mut request = TransferRequest {
        debit_account_id: oracle::account(debit),
        credit_account_id: oracle::account(credit),
        amount: amount(minor, yen),
        currency: None,
        reverses,
        key: None,
        details: Some(Box::new(Details {
            reference: Some(number.to_string()),
            category: poisoned.then(|| POISON.to_owned()),
            metadata: None,
        })),
    };
    if world.within(0..10) < 6 {
        // Now and then somebody uses a key that another request had.
        let name = if world.within(0..15) == 0 && number > 0 {
            world.index(number)
        } else {
            number
        };
        request.key = Some(fingerprint::idempotency_key(
            "sim",
            &name.to_string(),
            &request,
        ));
    }
    let number = world.oracle.borrow_mut().want(request, minor);
    if poisoned {
        world.oracle.borrow_mut().poison(number);
    }
    number
}

fn amount(minor: i64, yen: bool) -> DecimalAmount {
    let text = if yen {
        minor.to_string()
    } else {
        format!("{}.{:02}", minor / 100, minor % 100)
    };
    DecimalAmount::parse(&text).expect("a number")
}

/// How a call looked to its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    /// Something to go by.
    Answer,
    /// Try again with the same key.
    Unclear,
}

async fn single(slot: usize) {
    let number = draw();
    let keyed = world().oracle.borrow().wanted(number).request.key.is_some();
    // Somebody else may send the very same at the same time.
    if keyed && world().within(0..6) == 0 {
        let other = some_slot();
        executor::spawn(Group::WORLD, async move {
            transfer(other, number).await;
        });
    }
    let mut slot = slot;
    for _ in 0..ATTEMPTS_MAX {
        let heard = transfer(slot, number).await;
        let again = heard == Heard::Unclear || world().within(0..10) == 0;
        if !again || !keyed {
            return;
        }
        let pause = world().ms(1..300);
        tokio::time::sleep(pause).await;
        slot = some_slot();
    }
}

async fn transfer(slot: usize, number: usize) -> Heard {
    let request = world().oracle.borrow().wanted(number).request.clone();
    call(slot, vec![number], move |engine, deadline| async move {
        let answer = engine.admission.transfer(request, deadline).await;
        oracle::answered(&engine, number, answer);
        hears(&answer)
    })
    .await
}

fn hears(answer: &Result<Outcome, Refused>) -> Heard {
    match answer {
        Ok(_) => Heard::Answer,
        Err(_) => Heard::Unclear,
    }
}

async fn several(slot: usize) {
    let count = world().within(1..12);
    let numbers: Vec<usize> = (0..count).map(|_| draw()).collect();
    let requests = requests(&numbers);
    call(slot, numbers.clone(), move |engine, deadline| async move {
        match engine.admission.transfers(requests, deadline).await {
            Ok(answers) => {
                for (number, answer) in numbers.into_iter().zip(answers) {
                    oracle::answered(&engine, number, answer);
                }
            }
            Err(refused) => {
                for number in numbers {
                    oracle::answered(&engine, number, Err(refused));
                }
            }
        }
        Heard::Answer
    })
    .await;
}

fn requests(numbers: &[usize]) -> Vec<TransferRequest> {
    let world = world();
    let oracle = world.oracle.borrow();
    let request = |number: &usize| oracle.wanted(*number).request.clone();
    numbers.iter().map(request).collect()
}

async fn group(slot: usize) {
    let count = world().within(1..5);
    let numbers: Vec<usize> = (0..count).map(|_| draw()).collect();
    let requests = requests(&numbers);
    {
        let world = world();
        let mut oracle = world.oracle.borrow_mut();
        if numbers.iter().any(|number| oracle.wanted(*number).poisoned) {
            numbers.iter().for_each(|number| oracle.poison(*number));
        }
    }
    call(slot, numbers.clone(), move |engine, deadline| async move {
        match engine.admission.group(requests, deadline).await {
            Ok(Ok(outcomes)) => {
                for (number, outcome) in numbers.into_iter().zip(outcomes) {
                    oracle::answered(&engine, number, Ok(outcome));
                }
            }
            Ok(Err(_)) => numbers.into_iter().for_each(oracle::not_applied),
            Err(refused) => {
                for number in numbers {
                    oracle::answered(&engine, number, Err(refused));
                }
            }
        }
        Heard::Answer
    })
    .await;
}

async fn change(slot: usize) {
    let account = oracle::account(some_account());
    let status = match world().within(0..4) {
        0 => Some(AccountStatus::Frozen),
        1..3 => Some(AccountStatus::Open),
        _ => None,
    };
    let limit = world().within(0..6) == 0 && account.get() > 0 && account.get() < 100;
    let change = AccountChange {
        account_id: account,
        status,
        min_balance: limit.then(|| {
            let minor = i64::try_from(world().within(0..3_000)).unwrap_or(0);
            MinBalance::AtLeast(rust_decimal::Decimal::new(-minor, 2))
        }),
        name: None,
    };
    call(slot, Vec::new(), move |engine, deadline| async move {
        if engine
            .admission
            .change_account(change, deadline)
            .await
            .is_ok()
        {
            seen("changes");
        }
        Heard::Answer
    })
    .await;
}

/// A GET of a balance.
pub(super) async fn read(slot: usize, account: i64, consistent: bool) {
    let mode = if consistent {
        ReadMode::Consistent
    } else {
        ReadMode::Cached
    };
    call(slot, Vec::new(), move |engine, _| async move {
        let expected = oracle::expect(&engine, account);
        let id = oracle::account(account);
        if let Ok(answer) = engine.balances.get(&engine.source, id, mode).await {
            oracle::read(&engine, &expected, answer);
        }
        Heard::Answer
    })
    .await;
}

/// Sends a call about these transfers, waits for its answer, or goes away.
async fn call<F>(
    slot: usize,
    numbers: Vec<usize>,
    handle: impl FnOnce(Engine, std::time::Instant) -> F + 'static,
) -> Heard
where
    F: Future<Output = Heard> + 'static,
{
    let way = || {
        let world = world();
        world.ms(0..world.config.network.delay_ms_max + 1)
    };
    tokio::time::sleep(way()).await;
    let Some(engine) = world().engines.borrow().get(slot) else {
        return Heard::Unclear;
    };
    for number in &numbers {
        world().oracle.borrow_mut().attempt(*number);
    }
    let deadline_ms = {
        let world = world();
        world.within(1..world.config.deadline_ms + 1)
    };
    let (reply, replied) = oneshot::channel();
    let group = engine.group;
    let handler = executor::spawn(group, async move {
        let (began_ms, frozen_ms) = (now_ms(), world().engines.borrow().frozen_ms(slot));
        let deadline = engine.clock.now() + Duration::from_millis(deadline_ms);
        let writes = !numbers.is_empty();
        let heard = handle(engine, deadline).await;
        if writes {
            oracle::in_time(slot, began_ms, frozen_ms, deadline_ms);
        }
        // The caller may have gone.
        reply.send(heard).ok();
    });
    let patience = {
        let world = world();
        if world.within(0..20) == 0 {
            world.ms(0..200)
        } else {
            Duration::from_secs(120)
        }
    };
    match tokio::time::timeout(patience, replied).await {
        Ok(Ok(heard)) => {
            tokio::time::sleep(way()).await;
            heard
        }
        Ok(Err(_died)) => Heard::Unclear,
        Err(_elapsed) => {
            executor::abort(handler);
            Heard::Unclear
        }
    }
}
