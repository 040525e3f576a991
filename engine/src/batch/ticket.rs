//! What a caller hands in and waits for.
//!
//! Owns: the state of each piece of work between the caller and a committer.
//! Life: made by admission; the queue and a committer hold clones; freed, and
//! its permits with it, when the last of them is done.
//! Invariant: an item ends in exactly one way: answered by a committer, or
//! cancelled by its caller before a committer claimed it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use smallvec::{SmallVec, smallvec};
use tokio::sync::Notify;

use crate::domain::fold::{ChangeOutcome, GroupFailure};
use crate::domain::{AccountChange, AccountId, Outcome, TransferRequest};
use crate::lock_queue::Claim;
use crate::plant::{Plant, planted};

/// One piece of work.
#[derive(Debug)]
pub enum Work {
    /// One transfer.
    Transfer(TransferRequest),
    /// Transfers that happen together or not at all.
    Group(Vec<TransferRequest>),
    /// A change of an account's terms.
    Change(AccountChange),
}

impl Work {
    /// Distinct accounts it needs.
    fn accounts(&self) -> SmallVec<[AccountId; 2]> {
        match self {
            Self::Transfer(request) => {
                smallvec![request.debit_account_id, request.credit_account_id]
            }
            Self::Group(requests) => {
                let mut accounts: SmallVec<[AccountId; 2]> = requests
                    .iter()
                    .flat_map(|request| [request.debit_account_id, request.credit_account_id])
                    .collect();
                accounts.sort_unstable();
                accounts.dedup();
                accounts
            }
            Self::Change(change) => smallvec![change.account_id],
        }
    }

    /// The transfers in it.
    #[must_use]
    pub fn requests(&self) -> &[TransferRequest] {
        match self {
            Self::Transfer(request) => std::slice::from_ref(request),
            Self::Group(requests) => requests,
            Self::Change(_) => &[],
        }
    }
}

/// Why a piece of work was not decided, though its form was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Certainly not applied: its time was up before a committer took it.
    DeadlineExceeded,
    /// It may or may not be applied.
    OutcomeUnknown,
    /// Certainly not applied: the database could not take it.
    DatabaseUnavailable,
    /// Certainly not applied: the database refuses what it holds.
    Unstorable,
}

/// What became of a piece of work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Of [`Work::Transfer`].
    Transfer(Outcome),
    /// Of [`Work::Group`].
    Group(Result<Vec<Outcome>, GroupFailure>),
    /// Of [`Work::Change`].
    Change(ChangeOutcome),
    /// Of any.
    Failed(Failure),
}

const WAITING: u8 = 0;
const CLAIMED: u8 = 1;
const CANCELLED: u8 = 2;

#[derive(Debug)]
struct Item {
    work: Work,
    accounts: SmallVec<[AccountId; 2]>,
    /// WAITING -> CLAIMED by a committer (and back, when an attempt certainly
    /// wrote nothing), WAITING -> CANCELLED by the caller.
    phase: AtomicU8,
    answer: OnceLock<Answer>,
}

/// The work of one call, with whoever waits for it.
#[derive(Debug)]
pub struct Submission {
    items: SmallVec<[Item; 1]>,
    unanswered: AtomicUsize,
    answered: Notify,
    /// Nobody waits any more; set by the caller, read by committers.
    abandoned: AtomicBool,
    /// When it was admitted.
    pub admitted_at: Instant,
    /// Given back when the submission's memory is.
    _permits: Permits,
}

/// Something that gives a share of a budget back when dropped.
pub type Permits = Box<dyn std::any::Any + Send + Sync>;

impl Submission {
    /// Work for the queue, in the caller's order.
    #[must_use]
    pub fn new(
        work: impl IntoIterator<Item = Work>,
        admitted_at: Instant,
        permits: Permits,
    ) -> Arc<Self> {
        let items: SmallVec<[Item; 1]> = work
            .into_iter()
            .map(|work| Item {
                accounts: work.accounts(),
                work,
                phase: AtomicU8::new(WAITING),
                answer: OnceLock::new(),
            })
            .collect();
        Arc::new(Self {
            unanswered: AtomicUsize::new(items.len()),
            items,
            answered: Notify::new(),
            abandoned: AtomicBool::new(false),
            admitted_at,
            _permits: permits,
        })
    }

    /// A ticket per item, in order.
    pub fn tickets(self: &Arc<Self>) -> impl Iterator<Item = Ticket> + '_ {
        (0..self.items.len()).map(|index| Ticket {
            submission: Arc::clone(self),
            index,
        })
    }

    /// Returns once every item has an answer.
    pub async fn wait(&self) {
        while self.unanswered.load(Ordering::Acquire) > 0 {
            self.answered.notified().await;
        }
    }

    /// The caller leaves: what no committer has claimed is cancelled.
    ///
    /// Every item then reads as answered, certainly not applied, or unknown.
    pub fn abandon(&self) -> SmallVec<[Answer; 1]> {
        self.abandoned.store(true, Ordering::Release);
        self.items
            .iter()
            .map(|item| {
                let cancelled = item.phase.compare_exchange(
                    WAITING,
                    CANCELLED,
                    Ordering::AcqRel,
                    Ordering::Acquire,
                );
                match (item.answer.get(), cancelled) {
                    (Some(answer), _) => answer.clone(),
                    (None, Ok(_)) => Answer::Failed(Failure::DeadlineExceeded),
                    (None, Err(_)) => Answer::Failed(Failure::OutcomeUnknown),
                }
            })
            .collect()
    }
}

/// One item of a submission, as the queue and the committers pass it on.
#[derive(Clone, Debug)]
pub struct Ticket {
    submission: Arc<Submission>,
    index: usize,
}

impl Ticket {
    fn item(&self) -> &Item {
        &self.submission.items[self.index]
    }

    /// The work to do.
    #[must_use]
    pub fn work(&self) -> &Work {
        &self.item().work
    }

    /// When its call was admitted.
    #[must_use]
    pub fn admitted_at(&self) -> Instant {
        self.submission.admitted_at
    }

    /// Takes the item for an attempt; false if its caller cancelled it.
    #[must_use]
    pub fn claim(&self) -> bool {
        self.item()
            .phase
            .compare_exchange(WAITING, CLAIMED, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
            || planted(Plant::CancelIgnored)
    }

    /// The attempt certainly wrote nothing: until the next one the caller may
    /// cancel, and learn that for certain.
    pub fn unclaim(&self) {
        self.item().phase.store(WAITING, Ordering::Release);
    }

    /// Whether its caller has left.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.submission.abandoned.load(Ordering::Acquire)
    }

    /// Gives the one answer and wakes the caller when it was the last.
    pub fn answer(&self, answer: Answer) {
        let first = self.item().answer.set(answer).is_ok();
        debug_assert!(
            first || planted(Plant::ReplyBeforeCommit) || planted(Plant::CancelIgnored),
            "an item is answered once, by the committer that claimed it"
        );
        if first && self.submission.unanswered.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.submission.answered.notify_one();
        }
    }
}

impl Claim for Ticket {
    fn accounts(&self) -> &[AccountId] {
        &self.item().accounts
    }

    fn transfers(&self) -> usize {
        self.work().requests().len().max(1)
    }

    fn identity(&self) -> (usize, usize) {
        (Arc::as_ptr(&self.submission).addr(), self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::AccountId;

    fn submission() -> Arc<Submission> {
        let change = |id| {
            Work::Change(AccountChange {
                account_id: AccountId::new(id).unwrap(),
                status: None,
                min_balance: None,
                name: None,
            })
        };
        Submission::new(
            [change(1), change(2), change(3)],
            Instant::now(),
            Box::new(()),
        )
    }

    #[test]
    fn leaving_cancels_what_is_unclaimed_and_reports_the_rest_unknown() {
        let submission = submission();
        let tickets: Vec<_> = submission.tickets().collect();
        assert!(tickets[0].claim());
        tickets[0].answer(Answer::Change(ChangeOutcome::Changed));
        assert!(tickets[1].claim());
        let answers = submission.abandon();
        assert_eq!(
            answers.to_vec(),
            [
                Answer::Change(ChangeOutcome::Changed),
                Answer::Failed(Failure::OutcomeUnknown),
                Answer::Failed(Failure::DeadlineExceeded),
            ]
        );
        assert!(!tickets[2].claim(), "cancelled work is never done");
        assert!(tickets[1].is_abandoned());
    }

    #[test]
    fn work_given_back_can_be_cancelled_for_certain() {
        let submission = submission();
        let ticket = submission.tickets().next().unwrap();
        assert!(ticket.claim());
        ticket.unclaim();
        assert_eq!(
            submission.abandon()[0],
            Answer::Failed(Failure::DeadlineExceeded)
        );
        assert!(!ticket.claim());
    }

    #[test]
    fn permits_live_as_long_as_the_last_ticket() {
        let permit = Arc::new(());
        let submission = Submission::new([], Instant::now(), Box::new(Arc::clone(&permit)));
        assert_eq!(Arc::strong_count(&permit), 2);
        drop(submission);
        assert_eq!(Arc::strong_count(&permit), 1);
    }
}
