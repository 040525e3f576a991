//! One attempt to commit: ask, fold, write.

use std::time::Duration;

use hashbrown::HashMap;
use uuid::Uuid;

use super::ticket::{Answer, Failure, Ticket, Work};
use crate::clock::Clock;
use crate::domain::account::Account;
use crate::domain::fold::{Fold, Known, KnownKey};
use crate::domain::id::TransferIds;
use crate::domain::{Outcome, TransferId, TransferRequest};
use crate::lock_queue::Claim;
use crate::plant::{Plant, planted};
use crate::store::commit::{Ask, CommitSession, FoundKey, Locked, StepError, Write};

/// A fold yields to other tasks after this many transfers: at about 1 µs each it
/// holds an I/O thread for less than a millisecond.
const FOLD_TRANSFERS_PER_TURN: usize = 512;

/// What an attempt decided, and would have written.
#[derive(Debug, Default)]
pub(super) struct Folded {
    /// One per ticket, in order.
    pub(super) answers: Vec<Answer>,
    /// Of every row in `transfers` and `rejections`: if one of them is stored,
    /// all are.
    pub(super) ids: Vec<Uuid>,
    /// When it was folded, before COMMIT was sent.
    pub(super) unix_ms: u64,
    /// Every account it locked, as they stand after it; the unchanged ones too,
    /// for a replay answers with what another engine may have committed.
    pub(super) accounts: Vec<Account>,
}

/// How long the parts of an attempt took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Phases {
    pub(super) lock: Duration,
    pub(super) fold: Duration,
    pub(super) write: Duration,
}

/// How an attempt ended.
#[derive(Debug)]
pub(super) enum Attempted {
    /// Committed by this attempt.
    Committed(Folded, Phases),
    /// An earlier attempt, believed lost, had committed.
    FoundCommitted,
    /// Before anything was looked up or written.
    FailedEarly(StepError),
    /// While writing. An earlier attempt's rows, if any were in doubt, are
    /// certainly not there; `Some` if this one's may be.
    FailedWriting(StepError, Option<Folded>),
    /// While making durable what an earlier attempt had committed.
    FailedConfirming(StepError),
}

/// What the tickets ask the database about.
pub(super) fn ask(tickets: &[Ticket]) -> Ask {
    let mut ask = Ask::default();
    for ticket in tickets {
        ask.accounts
            .extend(ticket.accounts().iter().map(|account| account.get()));
        for request in ticket.work().requests() {
            ask.keys.extend(request.key.map(|key| key.hash));
            ask.originals.extend(request.reverses.map(TransferId::uuid));
        }
    }
    // Ascending: the one order in which every engine locks.
    ask.accounts.sort_unstable();
    ask.accounts.dedup();
    ask.keys.sort_unstable();
    ask.keys.dedup();
    ask
}

/// Runs one attempt. `pending` is what an earlier attempt may have committed.
pub(super) async fn attempt(
    session: &mut CommitSession,
    tickets: &[Ticket],
    pending: Option<&Folded>,
    ids: &mut TransferIds,
    clock: &Clock,
) -> Attempted {
    let start = clock.now();
    let asked_ms = clock.unix_ms();
    let (locked, stored) = match look_up(session, tickets, pending).await {
        Ok(looked_up) => looked_up,
        Err(error) => return Attempted::FailedEarly(error),
    };
    let lock = clock.now().saturating_duration_since(start);
    // The locks are held, so whoever held them before has ended: what is not
    // there now will never be.
    let found = pending.is_some_and(|pending| {
        pending
            .ids
            .iter()
            .any(|id| stored.contains_key(&TransferId::from_uuid(*id)))
    });
    let known = Known {
        keys: known_keys(&locked.keys, &stored),
        accounts: locked.accounts,
        reversed: locked.reversed,
    };
    // Ids carry the database's time: one clock for all engines.
    let unix_ms = u64::try_from(locked.database_ms).unwrap_or(0);
    let mut fold = Fold::new(known, ids, unix_ms);
    let folded = if found {
        Folded::default()
    } else {
        fold_all(&mut fold, tickets, pending.is_some(), asked_ms).await
    };
    let fold_took = clock
        .now()
        .saturating_duration_since(start)
        .saturating_sub(lock);
    let requests: Vec<&TransferRequest> = tickets
        .iter()
        .flat_map(|ticket| ticket.work().requests())
        .collect();
    let write = Write {
        commit_id: locked.commit_id,
        engine_id: session.engine_id(),
        database_ms: locked.database_ms,
        transfers: &fold.transfers,
        rejections: &fold.rejections,
        keys: &fold.keys,
        terms: &fold.terms,
        accounts: fold.accounts(),
        requests: &requests,
    };
    reply_too_early(tickets, &folded);
    let written = session.write(&write).await;
    let phases = Phases {
        lock,
        fold: fold_took,
        write: start
            .elapsed()
            .saturating_sub(lock)
            .saturating_sub(fold_took),
    };
    match written {
        Ok(()) if found => Attempted::FoundCommitted,
        Ok(()) => Attempted::Committed(folded, phases),
        Err(_) if planted(Plant::WriteErrorIgnored) => Attempted::Committed(folded, phases),
        Err(error) if found => Attempted::FailedConfirming(error),
        Err(error) if planted(Plant::UnknownIsNothing) => Attempted::FailedWriting(error, None),
        Err(error @ StepError::Unknown(_)) => Attempted::FailedWriting(error, Some(folded)),
        Err(error) => Attempted::FailedWriting(error, None),
    }
}

/// Only as a planted bug.
fn reply_too_early(tickets: &[Ticket], folded: &Folded) {
    if planted(Plant::ReplyBeforeCommit) {
        for (ticket, answer) in tickets.iter().zip(&folded.answers) {
            ticket.answer(answer.clone());
        }
    }
}

/// The locked accounts, and the stored rows that keys or an earlier attempt name.
async fn look_up(
    session: &mut CommitSession,
    tickets: &[Ticket],
    pending: Option<&Folded>,
) -> Result<(Locked, HashMap<TransferId, Outcome>), StepError> {
    let early = match pending {
        Some(pending) if planted(Plant::LookUpBeforeLocks) => {
            Some(session.find(&pending.ids).await?)
        }
        _ => None,
    };
    let mut locked = session.lock(&ask(tickets)).await?;
    if planted(Plant::FundsUnchecked) {
        for account in locked.accounts.values_mut() {
            account.min_balance = None;
        }
    }
    let mut wanted: Vec<Uuid> = locked
        .keys
        .iter()
        .map(|found| found.txn_id.uuid())
        .collect();
    if let Some(pending) = pending {
        wanted.extend(&pending.ids);
    }
    let stored = if let Some(early) = early {
        early
    } else if wanted.is_empty() {
        HashMap::new()
    } else {
        session.find(&wanted).await?
    };
    Ok((locked, stored))
}

fn known_keys(keys: &[FoundKey], stored: &HashMap<TransferId, Outcome>) -> HashMap<Uuid, KnownKey> {
    keys.iter()
        .filter(|_| !planted(Plant::KeyCheckSkipped))
        .map(|found| {
            let outcome = stored
                .get(&found.txn_id)
                .copied()
                .unwrap_or(Outcome::KeyExpired);
            (
                found.key,
                KnownKey {
                    fingerprint: found.fingerprint,
                    outcome,
                },
            )
        })
        .collect()
}

/// Folds the tickets in their order. When an earlier attempt's outcome was
/// unknown, callers who left have been told so: their work is not begun anew.
async fn fold_all(
    fold: &mut Fold<'_>,
    tickets: &[Ticket],
    resolving: bool,
    unix_ms: u64,
) -> Folded {
    let mut answers = Vec::with_capacity(tickets.len());
    let mut index = 0_usize;
    let mut turn = 0_usize;
    for ticket in tickets {
        let requests = ticket.work().requests();
        answers.push(match ticket.work() {
            _ if resolving && ticket.is_abandoned() => Answer::Failed(Failure::OutcomeUnknown),
            Work::Transfer(request) => Answer::Transfer(fold.transfer(request, index)),
            Work::Group(requests) => Answer::Group(fold.group(requests.iter(), index)),
            Work::Change(change) => Answer::Change(fold.change(change)),
        });
        index = index.saturating_add(requests.len());
        turn = turn.saturating_add(requests.len());
        if FOLD_TRANSFERS_PER_TURN <= turn {
            turn = 0;
            tokio::task::yield_now().await;
        }
    }
    let mut accounts: Vec<Account> = fold.accounts().values().copied().collect();
    crate::plant::pin(&mut accounts, |account| account.id);
    Folded {
        answers,
        unix_ms,
        ids: fold
            .transfers
            .iter()
            .map(|transfer| transfer.id.uuid())
            .chain(fold.rejections.iter().map(|rejection| rejection.id.uuid()))
            .collect(),
        accounts,
    }
}
