//! The committers: tasks that take batches and see them through.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::attempt::{Attempted, Folded, Phases, attempt};
use super::policy::{InFlight, Policy};
use super::retry::{Cause, NextStep, Written, judge};
use super::ticket::{Answer, Failure, Ticket};
use crate::clock::Clock;
use crate::domain::id::TransferIds;
use crate::domain::{Account, DatabaseIdentity};
use crate::entropy::Entropy;
use crate::lock_queue::{Batch, Claim, CloseReason, LockQueue, Placed};
use crate::plant::{Plant, planted};
use crate::store::commit::{CommitSession, CommitSettings, StepError};

/// A batch that takes longer than this no longer counts as in flight: it may wait
/// for a row that a stranger holds, and others need not wait with it. Ten times
/// what a usual commit takes.
const STALL: Duration = Duration::from_millis(50);

/// How often an idle committer looks whether more arrives before it starts.
const GATHER_TURNS_MAX: usize = 16;

/// How batches are committed.
#[derive(Clone, Debug)]
pub struct BatchSettings {
    /// How many commits, when.
    pub policy: Policy,
    /// Attempts of a batch that certainly wrote nothing, before it is refused.
    pub attempts_max: u32,
    /// First wait between attempts; doubles, with jitter, up to a second.
    pub backoff_min: Duration,
    /// For ids and jitter.
    pub entropy: Entropy,
    /// The sessions.
    pub commit: CommitSettings,
}

/// Told of everything that happens to batches; must be quick and never block.
pub trait BatchObserver: std::fmt::Debug + Send + Sync {
    /// A batch was taken, with how long each of its members had waited.
    fn taken(
        &self,
        reason: CloseReason,
        transfers: usize,
        accounts: usize,
        waited: &mut dyn Iterator<Item = Duration>,
    );
    /// A batch committed; its accounts stand so: called after COMMIT returned and
    /// before anyone is answered, so that no later read is older than an answer.
    ///
    /// `as_of_unix_ms` is a time not after COMMIT was sent.
    fn committed(&self, identity: DatabaseIdentity, as_of_unix_ms: u64, accounts: &[Account]);
    /// How long the parts took, in how many round trips.
    fn timed(&self, lock: Duration, fold: Duration, write: Duration, round_trips: u32);
    /// An attempt failed; `unknown` if it may have committed all the same.
    fn failed(&self, cause: Cause, unknown: bool);
    /// A batch was split to find a row that the database refuses.
    fn bisected(&self);
    /// What became of a batch whose outcome was unknown.
    fn looked_up(&self, found: bool);
    /// A committer reached a writable database, of this history.
    fn connected(&self, identity: DatabaseIdentity);
    /// A committer lost its session or could not open one.
    fn disconnected(&self, why: &str);
}

#[derive(Debug)]
struct Shared {
    queue: LockQueue<Ticket>,
    settings: BatchSettings,
    observer: Arc<dyn BatchObserver>,
    clock: Clock,
    work: Notify,
    /// Committers that are getting on with a batch, or about to take one.
    in_flight: AtomicUsize,
    /// The transfers of their batches. Only a measure: a batch counts a moment after
    /// its committer.
    in_flight_transfers: AtomicUsize,
    /// Transfers pushed and not yet taken.
    waiting: AtomicUsize,
    connected: AtomicUsize,
    draining: AtomicBool,
}

/// The queue and the tasks that empty it.
#[derive(Clone, Debug)]
pub struct Committers {
    shared: Arc<Shared>,
}

impl Committers {
    /// A queue that nobody empties until [`Committers::tasks`] are spawned.
    #[must_use]
    pub fn new(
        queue: LockQueue<Ticket>,
        settings: BatchSettings,
        observer: Arc<dyn BatchObserver>,
        clock: Clock,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                queue,
                settings,
                observer,
                clock,
                work: Notify::new(),
                in_flight: AtomicUsize::new(0),
                in_flight_transfers: AtomicUsize::new(0),
                waiting: AtomicUsize::new(0),
                connected: AtomicUsize::new(0),
                draining: AtomicBool::new(false),
            }),
        }
    }

    /// The committers' bodies; each ends after [`Committers::drain`].
    pub fn tasks(&self) -> impl Iterator<Item = impl Future<Output = ()> + Send + 'static> + '_ {
        (0..self.shared.settings.policy.committers).map(|number| {
            let shared = Arc::clone(&self.shared);
            async move { Worker::new(shared, number).run().await }
        })
    }

    /// Hands work over; it waits behind everything earlier on its accounts.
    pub fn push(&self, ticket: Ticket) {
        self.shared
            .waiting
            .fetch_add(ticket.transfers(), Ordering::Relaxed);
        if self.shared.queue.push(ticket) == Placed::Joined {
            if planted(Plant::WakeUpLost) && self.waiting() % 4 == 2 && self.in_flight() == 0 {
                return;
            }
            self.shared.nudge();
        }
    }

    /// Whether any committer has a session with a writable database.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        // An idle committer notices only at its next batch that its server was left.
        self.shared.connected.load(Ordering::Relaxed) > 0
            && self.shared.settings.commit.takes_commits()
    }

    /// Batches being committed now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::Relaxed)
    }

    /// Transfers waiting for an account or a committer.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    /// Transfers that a committer could take now.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.shared.queue.ready()
    }

    /// Lets the tasks end once everything pushed is answered. Push nothing after.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::SeqCst);
        self.shared.work.notify_waiters();
        self.shared.work.notify_one();
    }
}

impl Shared {
    /// Wakes a committer if there is one to start.
    ///
    /// Sequentially consistent with [`Worker::next_batch`]: a pusher that sees a
    /// commit in flight pushed before that committer looks at the queue again.
    fn nudge(&self) {
        let in_flight = self.in_flight.load(Ordering::SeqCst);
        if in_flight == 0 || self.pays_off(in_flight) {
            self.work.notify_one();
        }
    }

    /// Whether to start a commit beside so many others.
    fn pays_off(&self, commits: usize) -> bool {
        let transfers = self.in_flight_transfers.load(Ordering::Relaxed);
        let in_flight = InFlight { commits, transfers };
        self.settings.policy.start(self.queue.ready(), in_flight)
    }
}

impl Shared {
    /// Stops counting as in flight, once: another committer may start then.
    fn stand_aside(&self, counted: &mut Option<usize>) {
        if let Some(transfers) = counted.take() {
            self.in_flight_transfers
                .fetch_sub(transfers, Ordering::Relaxed);
            self.in_flight.fetch_sub(1, Ordering::SeqCst);
            self.nudge();
        }
    }

    /// Lets work run to its end, standing aside if that takes long.
    async fn unless_it_stalls<T>(
        &self,
        counted: &mut Option<usize>,
        work: impl Future<Output = T>,
    ) -> T {
        let mut work = pin!(work);
        if let Ok(done) = tokio::time::timeout(STALL, &mut work).await {
            return done;
        }
        self.stand_aside(counted);
        work.await
    }
}

/// One committer: its session and its id sequence.
#[derive(Debug)]
struct Worker {
    shared: Arc<Shared>,
    number: usize,
    session: Option<CommitSession>,
    ids: TransferIds,
    /// The transfers by which `in_flight_transfers` counts it, if `in_flight` does.
    counted: Option<usize>,
    /// Size of its last batch: what a busy queue is likely to gather again.
    last_transfers: usize,
}

/// A part of a batch on its way to an answer.
#[derive(Debug)]
struct Part {
    tickets: Vec<Ticket>,
    /// What an attempt may have committed without our knowing.
    pending: Option<Folded>,
    attempts: u32,
    claimed: bool,
}

/// How a part ended.
enum PartEnd {
    Answered,
    Split(Vec<Ticket>, Vec<Ticket>),
}

impl Worker {
    fn new(shared: Arc<Shared>, number: usize) -> Self {
        // Without entropy there is no telling two engines' ids apart.
        let seed = shared.settings.entropy.number();
        let seed = seed.expect("the operating system gives random bytes");
        let ids = TransferIds::new(seed | 1);
        Self {
            shared,
            number,
            session: None,
            ids,
            counted: None,
            last_transfers: 0,
        }
    }

    async fn run(mut self) {
        self.connect_while_idle().await;
        while let Some(batch) = self.next_batch().await {
            self.see_through(batch).await;
            self.stand_aside();
            if self.shared.draining.load(Ordering::SeqCst) {
                self.shared.work.notify_waiters();
            }
            self.connect_while_idle().await;
        }
        // Whoever waits may be the last now, and must see that it is over.
        self.shared.work.notify_waiters();
        self.shared.work.notify_one();
        if self.session.take().is_some() {
            self.shared.connected.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn stand_aside(&mut self) {
        self.shared.stand_aside(&mut self.counted);
    }

    /// Waits until there is a batch to commit; `None` when draining is over.
    async fn next_batch(&mut self) -> Option<Batch<Ticket>> {
        let shared = Arc::clone(&self.shared);
        loop {
            let notified = shared.work.notified();
            self.gather().await;
            // Claims a place in flight first: two committers must not both think
            // that they are the first.
            let in_flight = shared.in_flight.fetch_add(1, Ordering::SeqCst);
            if shared.pays_off(in_flight)
                && let Some(batch) = shared.queue.take()
            {
                let transfers = batch.transfers;
                shared
                    .in_flight_transfers
                    .fetch_add(transfers, Ordering::Relaxed);
                self.counted = Some(transfers);
                // What is left may be enough for another committer.
                shared.nudge();
                return Some(batch);
            }
            let others = shared
                .in_flight
                .fetch_sub(1, Ordering::SeqCst)
                .saturating_sub(1);
            if shared.draining.load(Ordering::SeqCst) && others == 0 && shared.queue.ready() == 0 {
                return None;
            }
            // Between the claim and its return a pusher may have seen this
            // committer as busy and not nudged: look once more before sleeping.
            if shared.pays_off(others) {
                continue;
            }
            notified.await;
        }
    }

    /// Under load callers answered together come back together: while more keep
    /// arriving and the batch is smaller than the last, other tasks go first.
    /// No timer: a lone transfer sees at most one empty turn.
    async fn gather(&self) {
        let expected = self.last_transfers / 2;
        let mut ready = self.shared.queue.ready();
        for _ in 0..GATHER_TURNS_MAX {
            if ready == 0 || expected <= ready {
                return;
            }
            tokio::task::yield_now().await;
            let now = self.shared.queue.ready();
            if now == ready {
                return;
            }
            ready = now;
        }
    }

    /// Commits a batch, part by part if need be, and frees its accounts.
    async fn see_through(&mut self, batch: Batch<Ticket>) {
        let mut accounts: Vec<_> = batch
            .members
            .iter()
            .flat_map(|ticket| ticket.accounts().iter().copied())
            .collect();
        accounts.sort_unstable();
        accounts.dedup();
        self.shared
            .waiting
            .fetch_sub(batch.transfers, Ordering::Relaxed);
        self.last_transfers = batch.transfers;
        let now = self.shared.clock.now();
        self.shared.observer.taken(
            batch.reason,
            batch.transfers,
            accounts.len(),
            &mut batch
                .members
                .iter()
                .map(|ticket| now.saturating_duration_since(ticket.admitted_at())),
        );
        if planted(Plant::LocksFreedEarly) {
            self.shared.queue.release(batch.id, accounts.clone());
        }
        let mut parts = VecDeque::from([batch.members]);
        while let Some(part) = parts.pop_front() {
            if let PartEnd::Split(first, second) = self.commit(part).await {
                self.shared.observer.bisected();
                parts.push_front(second);
                parts.push_front(first);
            }
        }
        if self.shared.queue.release(batch.id, accounts) {
            self.shared.nudge();
        }
    }

    /// Tries until every ticket is answered, or nobody waits for an answer.
    async fn commit(&mut self, tickets: Vec<Ticket>) -> PartEnd {
        let shared = Arc::clone(&self.shared);
        let mut part = Part {
            tickets,
            pending: None,
            attempts: 0,
            claimed: false,
        };
        loop {
            if !self.have_session(&part).await {
                return PartEnd::Answered;
            }
            part.claim();
            let Some(session) = self.session.as_mut().filter(|_| !part.tickets.is_empty()) else {
                return PartEnd::Answered;
            };
            part.attempts = part.attempts.saturating_add(1);
            let (pending, ids) = (part.pending.as_ref(), &mut self.ids);
            let work = attempt(session, &part.tickets, pending, ids, &shared.clock);
            let attempted = shared.unless_it_stalls(&mut self.counted, work).await;
            let round_trips = session.take_round_trips();
            let error = match attempted {
                Attempted::Committed(folded, phases) => {
                    if part.pending.is_some() {
                        shared.observer.looked_up(false);
                    }
                    self.reply(&part.tickets, folded, phases, round_trips);
                    return PartEnd::Answered;
                }
                Attempted::FoundCommitted => {
                    shared.observer.looked_up(true);
                    let folded = part.pending.unwrap_or_default();
                    self.reply(&part.tickets, folded, Phases::default(), round_trips);
                    return PartEnd::Answered;
                }
                Attempted::FailedWriting(error, folded) => {
                    if planted(Plant::CacheToldTooMuch)
                        && let Some(folded) = &folded
                    {
                        let (identity, unix_ms) = (session.identity(), folded.unix_ms);
                        shared
                            .observer
                            .committed(identity, unix_ms, &folded.accounts);
                    }
                    if part.pending.take().is_some() {
                        shared.observer.looked_up(false);
                    }
                    part.pending = folded;
                    error
                }
                Attempted::FailedEarly(error) | Attempted::FailedConfirming(error) => error,
            };
            self.stand_aside();
            if let Some(end) = self.after_failure(&mut part, &error) {
                return end;
            }
            if judge(&error).0 == Cause::LockTimeout {
                self.evict_stalled().await;
            }
            tokio::time::sleep(self.backoff(part.attempts)).await;
        }
    }

    /// Whoever holds the rows may be an engine that was stopped.
    async fn evict_stalled(&mut self) {
        let Some(session) = self.session.as_mut() else {
            return;
        };
        match session.evict_stalled().await {
            Ok(0) => {}
            Ok(ended) => {
                tracing::warn!(ended, "ended commit sessions whose engine did not go on");
            }
            Err(error) => self.disconnect(&error.to_string()),
        }
    }

    /// What the table says; `None` to try again.
    fn after_failure(&mut self, part: &mut Part, error: &StepError) -> Option<PartEnd> {
        let (cause, written, step) = judge(error);
        self.shared
            .observer
            .failed(cause, written == Written::Unknown);
        let (number, attempts, cause_text) = (self.number, part.attempts, cause.as_str());
        tracing::warn!(
            committer = number,
            attempts,
            cause = cause_text,
            ?error,
            "commit attempt failed"
        );
        // After a failure that nobody foresaw the session may be what is wrong.
        if matches!(step, NextStep::Reconnect | NextStep::Fail) {
            self.disconnect(&format!("{error:?}"));
        }
        if part.pending.is_some() {
            // Rows in doubt: nothing else may be done before they are looked up.
            return None;
        }
        part.unclaim();
        let exhausted = self.shared.settings.attempts_max <= part.attempts;
        match step {
            // A key conflict that does not go away is a row at fault.
            NextStep::Bisect => Some(part.bisect()),
            NextStep::Retry if exhausted && cause == Cause::KeyConflict => Some(part.bisect()),
            // A row that somebody else keeps must not keep strangers waiting.
            NextStep::Retry
                if cause == Cause::LockTimeout && 1 < part.attempts && 1 < part.tickets.len() =>
            {
                Some(part.bisect())
            }
            NextStep::Retry | NextStep::Reconnect if !exhausted => None,
            NextStep::Retry | NextStep::Reconnect | NextStep::Fail => {
                tracing::error!(
                    committer = number,
                    attempts,
                    cause = cause_text,
                    ?error,
                    "batch refused, nothing was written"
                );
                part.refuse(Failure::DatabaseUnavailable);
                Some(PartEnd::Answered)
            }
        }
    }

    /// After COMMIT: first who reads balances, then who asked.
    fn reply(&self, tickets: &[Ticket], folded: Folded, phases: Phases, round_trips: u32) {
        if let Some(session) = &self.session {
            let identity = session.identity();
            self.shared
                .observer
                .committed(identity, folded.unix_ms, &folded.accounts);
        }
        self.shared
            .observer
            .timed(phases.lock, phases.fold, phases.write, round_trips);
        for (ticket, answer) in tickets.iter().zip(folded.answers) {
            ticket.answer(answer);
        }
    }

    /// A session, waiting for one as long as anyone waits for an answer.
    async fn have_session(&mut self, part: &Part) -> bool {
        let mut tries = part.attempts;
        loop {
            if part.tickets.iter().all(Ticket::is_abandoned) {
                return false;
            }
            if self.session.as_ref().is_some_and(CommitSession::is_left) {
                self.disconnect("its server was left");
            }
            if self.session.is_some() || self.connect().await {
                return true;
            }
            self.stand_aside();
            tries = tries.saturating_add(1);
            self.pause(tries).await;
        }
    }

    /// Between batches: reconnects, so that the next batch need not wait for it
    /// and readiness is known. Work is left to those who have a session; only if
    /// nobody has one is it taken without, to be answered in time.
    async fn connect_while_idle(&mut self) {
        let mut tries = 0_u32;
        while self.session.is_none() && !self.connect().await {
            if self.shared.draining.load(Ordering::SeqCst) {
                return;
            }
            if self.shared.queue.ready() > 0 {
                if self.shared.connected.load(Ordering::Relaxed) == 0 {
                    return;
                }
                self.shared.nudge();
            }
            tries = tries.saturating_add(1);
            self.pause(tries).await;
        }
    }

    /// Between attempts to connect: no longer than until there is another primary.
    async fn pause(&self, tries: u32) {
        let backoff = self.backoff(tries);
        self.shared.settings.commit.pause(backoff).await;
    }

    async fn connect(&mut self) -> bool {
        match CommitSession::open(&self.shared.settings.commit).await {
            Ok(session) => {
                self.shared.connected.fetch_add(1, Ordering::Relaxed);
                self.shared.observer.connected(session.identity());
                self.session = Some(session);
                true
            }
            Err(error) => {
                self.shared.observer.disconnected(&error.to_string());
                false
            }
        }
    }

    fn disconnect(&mut self, why: &str) {
        if self.session.take().is_some() {
            self.shared.connected.fetch_sub(1, Ordering::Relaxed);
            self.shared.observer.disconnected(why);
        }
    }

    /// Doubles from the setting to a second, less up to half for jitter.
    fn backoff(&self, attempts: u32) -> Duration {
        let most = Duration::from_secs(1);
        let full = self
            .shared
            .settings
            .backoff_min
            .saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1).min(16)))
            .min(most);
        // A failure to get randomness costs jitter only.
        let Some(number) = self.shared.settings.entropy.number() else {
            return full;
        };
        let [byte, ..] = number.to_le_bytes();
        full - full.mul_f64(f64::from(byte) / 512.0)
    }
}

impl Part {
    fn claim(&mut self) {
        if !self.claimed {
            self.tickets.retain(Ticket::claim);
            self.claimed = true;
        }
    }

    /// The attempt certainly wrote nothing: whoever leaves now learns that.
    fn unclaim(&mut self) {
        if self.claimed {
            self.tickets.iter().for_each(Ticket::unclaim);
            self.claimed = false;
        }
    }

    /// In halves, or the end of the search: this one is the row at fault.
    fn bisect(&mut self) -> PartEnd {
        let mut first = std::mem::take(&mut self.tickets);
        if 1 < first.len() && !planted(Plant::BisectSkipped) {
            let second = first.split_off(first.len() / 2);
            return PartEnd::Split(first, second);
        }
        self.tickets = first;
        self.refuse(Failure::Unstorable);
        PartEnd::Answered
    }

    fn refuse(&mut self, failure: Failure) {
        self.claim();
        for ticket in &self.tickets {
            ticket.answer(Answer::Failed(failure));
        }
    }
}
