//! Who is let in, and for how long.
//!
//! Owns: the permits (one per transfer in the engine), the deadlines, and what a
//! caller who does not get an answer in time is told.
//! Never: decides about money, speaks HTTP or SQL.
//! Bound: `queue_depth_max` transfers between admission and the last use of
//! their memory; past it, `QueueFull` at once.
//! Invariant: every admitted call is answered at its deadline at the latest.
//!
//! A duplicate in flight needs no table here: the same key and request name the
//! same accounts, so the lock queue puts the second behind the first, and the
//! fold or the key look-up gives it the first one's answer. Each caller keeps its
//! own permit and deadline, and neither can cancel the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use crate::batch::{Answer, Committers, Failure, Submission, Work};
use crate::clock::Clock;
use crate::domain::fold::{ChangeOutcome, GroupFailure};
use crate::domain::{AccountChange, Outcome, TransferRequest};
use crate::plant::{Plant, planted};

/// Why a call has no outcome. Only `OutcomeUnknown` may have had an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// All permits are out. Nothing was done.
    QueueFull,
    /// No writable database. Nothing was done.
    DatabaseUnavailable,
    /// Its time was up before its batch closed. Nothing was done.
    DeadlineExceeded,
    /// It may or may not be applied; the same key tells.
    OutcomeUnknown,
    /// The engine is shutting down. Nothing was done.
    Draining,
    /// The database refuses what it holds. Nothing was done.
    Unstorable,
}

/// What admission is bounded by.
#[derive(Clone, Copy, Debug)]
pub struct AdmissionSettings {
    /// Transfers in the engine at once.
    pub queue_depth_max: usize,
}

#[derive(Debug)]
struct Gate {
    committers: Committers,
    clock: Clock,
    permits_max: usize,
    permits_used: AtomicUsize,
    draining: AtomicBool,
}

/// The way in. Clones share one gate.
#[derive(Clone, Debug)]
pub struct Admission {
    gate: Arc<Gate>,
}

/// Permits of one call; given back on drop.
#[derive(Debug)]
struct Permit {
    gate: Arc<Gate>,
    count: usize,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if planted(Plant::PermitLeaked) {
            return;
        }
        self.gate
            .permits_used
            .fetch_sub(self.count, Ordering::AcqRel);
    }
}

/// Cancels what was not claimed when its caller goes away without waiting.
#[derive(Debug)]
struct Waiting(Arc<Submission>);

impl Drop for Waiting {
    fn drop(&mut self) {
        drop(self.0.abandon());
    }
}

impl Admission {
    /// A gate in front of these committers.
    #[must_use]
    pub fn new(settings: AdmissionSettings, committers: Committers, clock: Clock) -> Self {
        Self {
            gate: Arc::new(Gate {
                committers,
                clock,
                permits_max: settings.queue_depth_max,
                permits_used: AtomicUsize::new(0),
                draining: AtomicBool::new(false),
            }),
        }
    }

    /// Lets nobody in any more; whoever is in gets an answer.
    pub fn drain(&self) {
        self.gate.draining.store(true, Ordering::Release);
    }

    /// Transfers in the engine, and how many there may be.
    #[must_use]
    pub fn permits(&self) -> (usize, usize) {
        (
            self.gate.permits_used.load(Ordering::Relaxed),
            self.gate.permits_max,
        )
    }

    /// Whether a call for so many transfers would be let in now. Cheap: lets a
    /// saturated engine refuse before it reads a body.
    ///
    /// # Errors
    /// [`Refused`], as the call itself would be.
    pub fn probe(&self, transfers: usize) -> Result<(), Refused> {
        let gate = &self.gate;
        if gate.draining.load(Ordering::Acquire) {
            return Err(Refused::Draining);
        }
        if gate.permits_max
            < gate
                .permits_used
                .load(Ordering::Relaxed)
                .saturating_add(transfers)
        {
            // A queue that nobody empties is full for another reason.
            return Err(if gate.committers.is_connected() {
                Refused::QueueFull
            } else {
                Refused::DatabaseUnavailable
            });
        }
        Ok(())
    }

    /// One transfer.
    ///
    /// # Errors
    /// [`Refused`] when it has no outcome.
    pub async fn transfer(
        &self,
        request: TransferRequest,
        deadline: Instant,
    ) -> Result<Outcome, Refused> {
        let answers = self.submit(1, [Work::Transfer(request)], deadline).await?;
        answers
            .into_iter()
            .next()
            .map_or(Err(Refused::OutcomeUnknown), transfer_outcome)
    }

    /// Independent transfers; all are let in or none.
    ///
    /// # Errors
    /// Outer: none was let in. Inner: that one has no outcome.
    pub async fn transfers(
        &self,
        requests: Vec<TransferRequest>,
        deadline: Instant,
    ) -> Result<Vec<Result<Outcome, Refused>>, Refused> {
        let count = requests.len();
        let answers = self
            .submit(count, requests.into_iter().map(Work::Transfer), deadline)
            .await?;
        Ok(answers.into_iter().map(transfer_outcome).collect())
    }

    /// Transfers that happen together or not at all.
    ///
    /// # Errors
    /// Outer: the group has no outcome. Inner: which transfer failed.
    pub async fn group(
        &self,
        requests: Vec<TransferRequest>,
        deadline: Instant,
    ) -> Result<Result<Vec<Outcome>, GroupFailure>, Refused> {
        let count = requests.len();
        match self
            .submit(count, [Work::Group(requests)], deadline)
            .await?
            .pop()
        {
            Some(Answer::Group(outcome)) => Ok(outcome),
            Some(Answer::Failed(failure)) => Err(failure.into()),
            Some(Answer::Transfer(_) | Answer::Change(_)) | None => Err(Refused::OutcomeUnknown),
        }
    }

    /// A change of an account's terms.
    ///
    /// # Errors
    /// [`Refused`] when it has no outcome.
    pub async fn change_account(
        &self,
        change: AccountChange,
        deadline: Instant,
    ) -> Result<ChangeOutcome, Refused> {
        match self
            .submit(1, [Work::Change(change)], deadline)
            .await?
            .pop()
        {
            Some(Answer::Change(outcome)) => Ok(outcome),
            Some(Answer::Failed(failure)) => Err(failure.into()),
            Some(Answer::Transfer(_) | Answer::Group(_)) | None => Err(Refused::OutcomeUnknown),
        }
    }

    async fn submit(
        &self,
        transfers: usize,
        work: impl IntoIterator<Item = Work>,
        deadline: Instant,
    ) -> Result<smallvec::SmallVec<[Answer; 1]>, Refused> {
        let now = self.gate.clock.now();
        if deadline <= now {
            return Err(Refused::DeadlineExceeded);
        }
        let permit = self.admit(transfers)?;
        let submission = Submission::new(work, now, Box::new(permit));
        let waiting = Waiting(Arc::clone(&submission));
        for ticket in submission.tickets() {
            self.gate.committers.push(ticket);
        }
        // Both ways every item is read the same: answered, cancelled or unknown.
        let mut left = deadline.saturating_duration_since(now);
        if planted(Plant::DeadlineIgnored) {
            left *= 4;
        }
        drop(tokio::time::timeout(left, submission.wait()).await);
        let mut answers = waiting.0.abandon();
        if !self.gate.committers.is_connected() {
            for answer in &mut answers {
                // Certainly not applied either way; this one says what to look at.
                if matches!(answer, Answer::Failed(Failure::DeadlineExceeded)) {
                    *answer = Answer::Failed(Failure::DatabaseUnavailable);
                }
            }
        }
        Ok(answers)
    }

    fn admit(&self, transfers: usize) -> Result<Permit, Refused> {
        self.probe(transfers)?;
        let gate = &self.gate;
        let used = gate.permits_used.fetch_add(transfers, Ordering::AcqRel);
        // From here the permit gives back what was added, on refusal too.
        let permit = Permit {
            gate: Arc::clone(gate),
            count: transfers,
        };
        if gate.permits_max < used.saturating_add(transfers) {
            return Err(Refused::QueueFull);
        }
        Ok(permit)
    }
}

fn transfer_outcome(answer: Answer) -> Result<Outcome, Refused> {
    match answer {
        Answer::Transfer(outcome) => Ok(outcome),
        Answer::Failed(failure) => Err(failure.into()),
        Answer::Group(_) | Answer::Change(_) => Err(Refused::OutcomeUnknown),
    }
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::DeadlineExceeded => Self::DeadlineExceeded,
            Failure::OutcomeUnknown => Self::OutcomeUnknown,
            Failure::DatabaseUnavailable => Self::DatabaseUnavailable,
            Failure::Unstorable => Self::Unstorable,
        }
    }
}
