//! After the storm: everything must work again, without anybody's help.

use std::time::Duration;

use super::engines::{self, Engine};
use super::executor;
use super::{client, fail, now_ms, oracle, world};
use crate::domain::{Outcome, TransferRequest};

/// The longest that recovery may take: a connection attempt to a host that is
/// silent, a statement that runs into its limit, and the back-off after both.
const RECOVERY: Duration = Duration::from_secs(40);
/// What a lone transfer may take once everything has recovered.
const LONE_MS_MAX: u64 = 3_000;

/// Mends everything, waits, and looks whether the engines work.
pub(super) async fn check() {
    world().calm.set(true);
    tokio::time::sleep(RECOVERY).await;
    for slot in 0..world().config.engines {
        let engine = world().engines.borrow().get(slot);
        let Some(engine) = engine else {
            fail(format!("nobody answers at address {slot}"));
            return;
        };
        works(&engine).await;
    }
    // Every cached balance that a lone read can meet.
    for slot in 0..world().config.engines {
        for account in world().config.account_ids() {
            client::read(slot, account, false).await;
            client::read(slot, account, false).await;
        }
    }
    for slot in 0..world().config.engines {
        let engine = world().engines.borrow().get(slot);
        if let Some(engine) = engine {
            ends(slot, &engine).await;
        }
    }
    oracle::last_judgement();
}

/// One transfer after the other, so that none is rescued by the next.
async fn works(engine: &Engine) {
    let accounts = world().config.accounts;
    for credit in 1..=accounts {
        lone(engine, credit, 2).await;
        lone(engine, credit, 1).await;
    }
    let (used, _) = engine.admission.permits();
    if used != 0 {
        fail(format!("permits: {used} are out and nobody is in"));
    }
    if engine.committers.waiting() != 0 || engine.committers.ready() != 0 {
        fail("lock queue: somebody waits and nobody asked".into());
    }
}

/// So many transfers at once, then nothing until they are answered.
async fn lone(engine: &Engine, credit: i64, count: usize) {
    let mut calls = Vec::new();
    for _ in 0..count {
        let number = {
            let world = world();
            let mut oracle = world.oracle.borrow_mut();
            let number = oracle.next_number();
            let number = oracle.want(request(credit, number), 1);
            oracle.attempt(number);
            number
        };
        let engine = engine.clone();
        let (done, answered) = tokio::sync::oneshot::channel();
        executor::spawn(engine.group, async move {
            let request = world().oracle.borrow().wanted(number).request.clone();
            let began_ms = now_ms();
            let deadline = engine.clock.now() + Duration::from_secs(60);
            let answer = engine.admission.transfer(request, deadline).await;
            oracle::answered(&engine, number, answer);
            let took_ms = now_ms() - began_ms;
            let fine = matches!(
                answer,
                Ok(Outcome::Completed { .. } | Outcome::Rejected { .. })
            );
            if !fine || LONE_MS_MAX < took_ms {
                fail(format!(
                    "liveness: with all faults over, a lone transfer got {answer:?} after {took_ms} ms"
                ));
            }
            // The world may have ended.
            done.send(()).ok();
        });
        calls.push(answered);
    }
    for answered in calls {
        answered.await.ok();
    }
    // The last of them gives its permit back.
    tokio::time::sleep(Duration::from_millis(200)).await;
}

fn request(credit: i64, number: usize) -> TransferRequest {
    TransferRequest {
        debit_account_id: oracle::account(0),
        credit_account_id: oracle::account(credit),
        amount: crate::domain::DecimalAmount::parse("0.01").expect("a number"),
        currency: None,
        reverses: None,
        key: None,
        details: Some(Box::new(crate::domain::Details {
            reference: Some(number.to_string()),
            ..crate::domain::Details::default()
        })),
    }
}

async fn ends(slot: usize, engine: &Engine) {
    if !engines::drain(engine, Duration::from_secs(20)).await {
        fail(format!("shutdown: the engine at {slot} does not end"));
    }
}
