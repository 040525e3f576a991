//! Below which version a cached balance is a lie.
//!
//! Owns: the versions this engine committed or answered lately, which accounts
//! were read lately, and which writers' entries may be believed.
//! Never: does I/O, awaits, or reads a clock (time is an argument).
//! Bound: `accounts_max` versions in three generations and `reads_max` ids in two.
//! Invariant: once [`Floor::raise`] has returned, no older version of that
//! account is believed: not while the version is remembered, and not after,
//! because by then every entry that could hold an older one has expired, or was
//! written under an earlier epoch.
//!
//! Why that holds. Let this engine commit version v at time C. An entry with an
//! older version was known to be current at some time A <= C, and lives until
//! A + ttl at most (Redis' expiry and [`super::entry::Lifetime`] both say so).
//! - A version is remembered until its generation is dropped, which rotation by
//!   time does 2 ttl after C at the earliest: the entry died at least one ttl ago.
//!   A put that is refused does not prolong an entry's life; one that is stored
//!   carries its own, later, A.
//! - A generation dropped earlier (the bound was reached) loses the floor: the
//!   epoch grows, and for one ttl only entries of this epoch of this process are
//!   believed. Those come from reads begun after the loss (which saw v) or from
//!   commits after it (which are in the floor). After that ttl every other entry
//!   with A <= C is dead. The same holds after a start, where everything this
//!   engine's predecessor committed is forgotten.
//! - Judging looks at the floor, the epoch and the trust under one lock, and the
//!   entry's age is looked at after it. So an entry judged just after a drop is
//!   seen with the new epoch, and with an age that includes the two ttl.
//!
//! All of it is measured with the monotonic clock; a step of the wall clock can
//! only touch the age, and Redis' own expiry stands behind that.

use std::mem;
use std::time::{Duration, Instant};

use hashbrown::hash_map::Entry as Slot;
use hashbrown::{HashMap, HashSet};

use crate::domain::AccountId;
use crate::plant::{Plant, planted};

/// Limits of one floor (one shard of the engine's).
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) ttl: Duration,
    pub(super) accounts_max: usize,
    pub(super) reads_max: usize,
}

/// Why the floor was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// This engine forgot versions it committed (a start, or the bound): other
    /// writers may have missed them, but a read of the database cannot.
    Forgotten,
    /// Another database answers now. A connection to the old one may still be
    /// read for a moment, so for one ttl nothing is believed nor stored.
    OtherDatabase,
}

/// What a cached entry is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// May be answered, if it is young enough.
    Believed,
    /// This engine committed a newer version.
    BelowFloor,
    /// Written by one who may not know what this engine forgot.
    Untrusted,
}

/// Under what the next put of an account is written; `None` where it is to be
/// given means that nothing may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) epoch: u64,
    /// The database history, as counted by the facade.
    pub(super) history: u64,
}

#[derive(Debug)]
struct Generation {
    /// When it became the newest; the one before it has been closed since.
    started: Instant,
    versions: HashMap<AccountId, i64>,
}

#[derive(Debug)]
pub(super) struct Floor {
    limits: Limits,
    /// Newest first.
    generations: [Generation; 3],
    reads_started: Instant,
    /// Newest first.
    reads: [HashSet<AccountId>; 2],
    /// Until then nobody's entry is believed and nothing is stored.
    banned_until: Instant,
    /// Until then only entries of this epoch of this process are believed.
    own_until: Instant,
    /// Counts the losses.
    epoch: u64,
    history: u64,
}

impl Floor {
    /// Lost, as at every start.
    pub(super) fn new(limits: Limits, now: Instant) -> Self {
        Self {
            limits,
            generations: std::array::from_fn(|_| Generation {
                started: now,
                versions: HashMap::new(),
            }),
            reads_started: now,
            reads: [HashSet::new(), HashSet::new()],
            banned_until: now,
            own_until: if planted(Plant::CacheTrustsAtStart) {
                now
            } else {
                now + limits.ttl
            },
            epoch: 0,
            history: 0,
        }
    }

    /// Remembers a committed version. If the account was read lately, says under
    /// what its new balance is to be put.
    pub(super) fn raise(&mut self, id: AccountId, version: i64, now: Instant) -> Raised {
        self.rotate_by_time(now);
        let mut lost = false;
        let [newest, ..] = &self.generations;
        if newest.versions.len() >= self.generation_max() && !newest.versions.contains_key(&id) {
            lost = self.rotate(now);
        }
        let [newest, ..] = &mut self.generations;
        newest
            .versions
            .entry(id)
            .and_modify(|known| *known = (*known).max(version))
            .or_insert(version);
        if planted(Plant::CacheFloorMissing) {
            newest.versions.clear();
        }
        let put = if self.was_read(id, now) {
            self.origin(now)
        } else {
            None
        };
        Raised { put, lost }
    }

    /// Remembers a version that is about to be answered, so that a caller who saw
    /// it is not shown an older one next, whoever committed it. Only into room
    /// that commits do not need: to them alone more is promised.
    pub(super) fn saw(&mut self, id: AccountId, version: i64, now: Instant) {
        self.rotate_by_time(now);
        let known = |generation: &Generation| generation.versions.get(&id).copied();
        if self.generations.iter().filter_map(known).max() >= Some(version) {
            return;
        }
        let [newest, ..] = &self.generations;
        let spare = newest.versions.len() < self.generation_max() / 2;
        let [newest, ..] = &mut self.generations;
        match newest.versions.entry(id) {
            Slot::Occupied(mut slot) => {
                slot.insert(version);
            }
            Slot::Vacant(slot) if spare => {
                slot.insert(version);
            }
            Slot::Vacant(_) => {}
        }
    }

    /// What an entry of that version is worth. `epoch` is the entry's, `None` if
    /// another process wrote it.
    pub(super) fn judge(
        &self,
        id: AccountId,
        version: i64,
        epoch: Option<u64>,
        now: Instant,
    ) -> Verdict {
        let below = self
            .generations
            .iter()
            .filter_map(|generation| generation.versions.get(&id))
            .any(|known| version < *known);
        if below {
            return Verdict::BelowFloor;
        }
        let own = epoch == Some(self.epoch);
        if now < self.banned_until || (now < self.own_until && !own) {
            return Verdict::Untrusted;
        }
        Verdict::Believed
    }

    /// Under what a read of the database that begins now may be put.
    pub(super) fn origin(&self, now: Instant) -> Option<Origin> {
        (self.banned_until <= now).then_some(Origin {
            epoch: self.epoch,
            history: self.history,
        })
    }

    /// Remembers that an account is read, for one to two ttl. Past `reads_max`
    /// it is not: its entry is then refreshed by expiry alone.
    pub(super) fn note_read(&mut self, id: AccountId, now: Instant) {
        if self.limits.ttl <= now.saturating_duration_since(self.reads_started) {
            let [newest, oldest] = &mut self.reads;
            mem::swap(newest, oldest);
            newest.clear();
            self.reads_started = now;
        }
        let [newest, _] = &mut self.reads;
        if newest.len() < (self.limits.reads_max / 2).max(1) {
            newest.insert(id);
        }
    }

    /// Forgets everything; from here on `history` is the database's.
    pub(super) fn lose(&mut self, loss: Loss, history: u64, now: Instant) {
        for generation in &mut self.generations {
            generation.versions.clear();
            generation.started = now;
        }
        self.history = history;
        if planted(Plant::CacheTrustsAtStart) && loss == Loss::Forgotten {
            return;
        }
        self.distrust(loss, now);
    }

    /// A third of the bound; at least one, to hold anything.
    fn generation_max(&self) -> usize {
        (self.limits.accounts_max / 3).max(1)
    }

    fn was_read(&self, id: AccountId, now: Instant) -> bool {
        // Beyond two ttl without any read, what the sets hold is older than that.
        now.saturating_duration_since(self.reads_started) < self.limits.ttl.saturating_mul(2)
            && self.reads.iter().any(|reads| reads.contains(&id))
    }

    /// Each ttl, unless the bound was reached meanwhile and the oldest is still
    /// young: then the newest generation goes on, which only keeps more.
    fn rotate_by_time(&mut self, now: Instant) {
        let [newest, ..] = &self.generations;
        let due = self.limits.ttl <= now.saturating_duration_since(newest.started);
        if due && !self.rotation_forgets(now) {
            self.rotate(now);
        }
    }

    /// Whether the oldest generation holds a commit of the last two ttl.
    fn rotation_forgets(&self, now: Instant) -> bool {
        let [_, middle, oldest] = &self.generations;
        // The oldest was closed when the middle one started.
        now < middle.started + self.limits.ttl.saturating_mul(2) && !oldest.versions.is_empty()
    }

    /// Starts a generation and drops the oldest. True if that lost the floor.
    fn rotate(&mut self, now: Instant) -> bool {
        let lost = self.rotation_forgets(now);
        if lost {
            self.distrust(Loss::Forgotten, now);
        }
        self.generations.rotate_right(1);
        let [newest, ..] = &mut self.generations;
        newest.started = now;
        newest.versions.clear();
        lost
    }

    fn distrust(&mut self, loss: Loss, now: Instant) {
        self.epoch += 1;
        self.own_until = now + self.limits.ttl;
        match loss {
            Loss::Forgotten => {}
            Loss::OtherDatabase => self.banned_until = self.own_until,
        }
    }
}

/// What raising the floor led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Raised {
    /// The account was read lately: put its new balance under this.
    pub(super) put: Option<Origin>,
    /// The bound was reached and versions were forgotten early.
    pub(super) lost: bool,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TTL: Duration = Duration::from_secs(60);
    const LIMITS: Limits = Limits {
        ttl: TTL,
        accounts_max: 12,
        reads_max: 4,
    };
    const NANO: Duration = Duration::from_nanos(1);

    fn id(id: i64) -> AccountId {
        AccountId::new(id).unwrap()
    }

    /// A floor long after its start, so that everyone is trusted.
    fn settled() -> (Floor, Instant) {
        let start = Instant::now();
        (Floor::new(LIMITS, start), start + TTL)
    }

    #[track_caller]
    fn check(floor: &Floor, version: i64, epoch: Option<u64>, now: Instant, expected: Verdict) {
        let verdict = floor.judge(id(1), version, epoch, now);
        assert_eq!(verdict, expected, "version={version} epoch={epoch:?}");
    }

    #[test]
    fn what_is_older_than_a_commit_is_not_believed() {
        let (mut floor, now) = settled();
        check(&floor, 0, None, now, Verdict::Believed);
        floor.raise(id(1), 8, now);
        check(&floor, 7, None, now, Verdict::BelowFloor);
        check(&floor, 8, None, now, Verdict::Believed);
        check(&floor, 9, None, now, Verdict::Believed);
        // Two committers may report in either order.
        floor.raise(id(1), 7, now);
        check(&floor, 7, None, now, Verdict::BelowFloor);
    }

    #[test]
    fn what_is_older_than_an_answer_is_not_believed_while_there_is_room() {
        let (mut floor, now) = settled();
        floor.saw(id(1), 8, now);
        floor.saw(id(1), 7, now);
        check(&floor, 7, None, now, Verdict::BelowFloor);
        // Half a generation of four; what is known already needs no room.
        floor.saw(id(2), 5, now);
        floor.saw(id(3), 5, now);
        floor.saw(id(1), 9, now);
        check(&floor, 8, None, now, Verdict::BelowFloor);
        assert_eq!(floor.judge(id(2), 4, None, now), Verdict::BelowFloor);
        assert_eq!(floor.judge(id(3), 4, None, now), Verdict::Believed);
        assert_eq!(floor.epoch, 0);
    }

    #[test]
    fn a_commit_is_remembered_for_two_ttl_whatever_else_is_committed() {
        let (mut floor, start) = settled();
        let committed = start + TTL - NANO;
        floor.raise(id(1), 8, committed);
        let mut now = committed;
        while now < committed + TTL * 2 {
            floor.raise(id(2), 1, now);
            check(&floor, 7, Some(floor.epoch), now, Verdict::BelowFloor);
            now += Duration::from_secs(7);
        }
        assert_eq!(floor.epoch, 0, "never lost");
        for later in 3..=6 {
            floor.raise(id(2), 1, committed + TTL * later);
        }
        check(&floor, 7, None, committed + TTL * 6, Verdict::Believed);
    }

    #[test]
    fn after_a_start_only_own_entries_are_believed_for_one_ttl() {
        let start = Instant::now();
        let floor = Floor::new(LIMITS, start);
        check(&floor, 1, None, start, Verdict::Untrusted);
        check(&floor, 1, Some(0), start, Verdict::Believed);
        check(&floor, 1, None, start + TTL - NANO, Verdict::Untrusted);
        check(&floor, 1, None, start + TTL, Verdict::Believed);
    }

    #[test]
    fn after_a_change_of_database_nothing_is_believed_nor_stored_for_one_ttl() {
        let (mut floor, now) = settled();
        floor.raise(id(1), 8, now);
        floor.lose(Loss::OtherDatabase, 2, now);
        let end = now + TTL;
        check(&floor, 9, Some(floor.epoch), now, Verdict::Untrusted);
        check(&floor, 9, Some(floor.epoch), end - NANO, Verdict::Untrusted);
        assert_eq!(floor.origin(end - NANO), None);
        // The shorter history counts again from below what was committed before.
        check(&floor, 3, None, end, Verdict::Believed);
        let origin = Origin {
            epoch: 1,
            history: 2,
        };
        assert_eq!(floor.origin(end), Some(origin));
    }

    #[test]
    fn at_the_bound_it_holds_and_one_past_it_the_floor_is_lost() {
        let (mut floor, now) = settled();
        // Four per generation, three generations.
        for account in 1..=12 {
            assert!(!floor.raise(id(account), 8, now).lost);
        }
        assert!(!floor.raise(id(12), 9, now).lost, "known: needs no room");
        check(&floor, 7, Some(0), now, Verdict::BelowFloor);
        assert!(floor.raise(id(13), 8, now).lost);
        check(&floor, 7, Some(0), now, Verdict::Untrusted);
        check(&floor, 7, None, now + TTL - NANO, Verdict::Untrusted);
        check(&floor, 8, Some(1), now, Verdict::Believed);
    }

    #[test]
    fn a_loss_within_a_ban_neither_ends_nor_prolongs_it() {
        let (mut floor, now) = settled();
        floor.lose(Loss::OtherDatabase, 2, now);
        for account in 1..=13 {
            floor.raise(id(account), 8, now + TTL / 2);
        }
        assert_eq!(floor.origin(now + TTL / 2), None);
        let own = Some(floor.epoch);
        check(&floor, 8, own, now + TTL - NANO, Verdict::Untrusted);
        check(&floor, 8, own, now + TTL, Verdict::Believed);
        check(&floor, 8, None, now + TTL, Verdict::Untrusted);
    }

    #[test]
    fn only_what_was_read_within_the_last_ttl_or_two_is_put() {
        let (mut floor, now) = settled();
        assert_eq!(floor.raise(id(1), 1, now).put, None);
        floor.note_read(id(1), now);
        assert!(floor.raise(id(1), 2, now + TTL).put.is_some());
        assert!(floor.raise(id(1), 3, now + TTL * 2 - NANO).put.is_some());
        assert_eq!(floor.raise(id(1), 4, now + TTL * 2).put, None);
        assert_eq!(floor.raise(id(2), 4, now).put, None);
    }

    #[test]
    fn past_the_bound_a_read_is_not_remembered() {
        let (mut floor, now) = settled();
        for account in 1..=3 {
            floor.note_read(id(account), now);
        }
        assert!(floor.raise(id(2), 1, now).put.is_some());
        assert_eq!(floor.raise(id(3), 1, now).put, None);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Pass(u64),
        /// Commit the next version of an account.
        Commit(i64),
        /// Read the database and keep the entry.
        Fill(i64),
        /// Another engine's entry of the present version.
        Foreign(i64),
        /// Answer the present version.
        Saw(i64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            2 => (0_u64..45).prop_map(Step::Pass),
            6 => (0_i64..20).prop_map(Step::Commit),
            2 => (0_i64..20).prop_map(Step::Fill),
            2 => (0_i64..20).prop_map(Step::Foreign),
            2 => (0_i64..20).prop_map(Step::Saw),
        ];
        prop::collection::vec(step, 0..300)
    }

    #[derive(Debug)]
    struct Stored {
        account: i64,
        version: i64,
        epoch: Option<u64>,
        written: Instant,
    }

    proptest! {
        /// Every entry that ever existed, alive by its ttl, is either as new as
        /// the last commit of its account or not believed: a Redis that answers
        /// with any of them at any time cannot show an old balance.
        #[test]
        fn no_living_entry_older_than_a_commit_is_ever_believed(steps in steps()) {
            let mut now = Instant::now();
            let mut floor = Floor::new(LIMITS, now);
            let mut versions = [0_i64; 20];
            let mut entries: Vec<Stored> = Vec::new();
            for step in steps {
                match step {
                    Step::Pass(seconds) => now += Duration::from_secs(seconds),
                    Step::Commit(account) => {
                        let version = &mut versions[usize::try_from(account).unwrap()];
                        *version += 1;
                        floor.raise(id(account), *version, now);
                    }
                    Step::Saw(account) => {
                        let version = versions[usize::try_from(account).unwrap()];
                        floor.saw(id(account), version, now);
                    }
                    Step::Fill(account) | Step::Foreign(account) => entries.push(Stored {
                        account,
                        version: versions[usize::try_from(account).unwrap()],
                        epoch: matches!(step, Step::Fill(_)).then_some(floor.epoch),
                        written: now,
                    }),
                }
                for entry in entries.iter().filter(|entry| now < entry.written + TTL) {
                    let verdict = floor.judge(id(entry.account), entry.version, entry.epoch, now);
                    let current = versions[usize::try_from(entry.account).unwrap()];
                    prop_assert!(
                        verdict != Verdict::Believed || entry.version == current,
                        "{:?} believed, committed {}", entry, current
                    );
                }
                let remembered: usize =
                    floor.generations.iter().map(|generation| generation.versions.len()).sum();
                prop_assert!(remembered <= LIMITS.accounts_max);
            }
        }
    }
}
