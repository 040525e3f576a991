//! Bugs planted on purpose, to see that the simulation finds them.
//!
//! Invariant: without the feature `simulation`, with which the engine's program
//! does not compile, [`planted`] is the constant `false` and every planted bug is
//! dead code that the compiler removes.

/// A bug that can be planted.
#[cfg_attr(
    not(feature = "simulation"),
    expect(
        dead_code,
        unreachable_pub,
        reason = "two are planted in the simulated servers; nobody else sees it"
    )
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// Callers are answered before the batch is written.
    ReplyBeforeCommit,
    /// A failed write counts as committed.
    WriteErrorIgnored,
    /// A lost reply of COMMIT counts as rolled back.
    UnknownIsNothing,
    /// A COMMIT that answers ROLLBACK counts as committed.
    CommitTagIgnored,
    /// A warning during COMMIT is ignored.
    CommitWarningIgnored,
    /// A batch in doubt is looked up before its accounts are locked.
    LookUpBeforeLocks,
    /// Keys that are found are ignored.
    KeyCheckSkipped,
    /// Keys are not stored.
    KeyNotStored,
    /// Accounts are read without locking them.
    RowLockSkipped,
    /// A replay is answered without a commit of its own.
    ReplayUnconfirmed,
    /// Funds are not checked.
    FundsUnchecked,
    /// Only the payer's version grows.
    VersionGap,
    /// The queue frees a batch's accounts before it is committed.
    LocksFreedEarly,
    /// Work that its caller cancelled is done all the same.
    CancelIgnored,
    /// A pusher leaves an idle committer asleep now and then.
    WakeUpLost,
    /// Permits are not given back.
    PermitLeaked,
    /// A caller waits past its deadline.
    DeadlineIgnored,
    /// One bad row fails the whole batch.
    BisectSkipped,
    /// A put replaces whatever the cache holds.
    CachePutUnversioned,
    /// The floor of committed versions is not raised.
    CacheFloorMissing,
    /// The cache is told what a lost COMMIT would have left.
    CacheToldTooMuch,
    /// Everybody's entries are believed from the start.
    CacheTrustsAtStart,
}

/// Gives what came out of a hash map an order that does not depend on the
/// process; without the simulation any order will do, and this does nothing.
#[cfg(feature = "simulation")]
pub(crate) fn pin<T, K: Ord>(items: &mut [T], key: impl FnMut(&T) -> K) {
    items.sort_by_key(key);
}

#[cfg(not(feature = "simulation"))]
pub(crate) const fn pin<T, K: Ord, F: Fn(&T) -> K + Copy>(_items: &mut [T], _key: F) {}

#[cfg(not(feature = "simulation"))]
pub(crate) const fn planted(_plant: Plant) -> bool {
    false
}

#[cfg(feature = "simulation")]
pub(crate) use chosen::planted;

#[cfg(feature = "simulation")]
mod chosen {
    use std::cell::Cell;

    use super::Plant;

    thread_local! {
        static CHOSEN: Cell<Option<Plant>> = const { Cell::new(None) };
    }

    /// Whether this thread's run is to have that bug.
    pub(crate) fn planted(plant: Plant) -> bool {
        CHOSEN.get() == Some(plant)
    }

    impl Plant {
        /// Every plant.
        pub const ALL: [Self; 22] = [
            Self::ReplyBeforeCommit,
            Self::WriteErrorIgnored,
            Self::UnknownIsNothing,
            Self::CommitTagIgnored,
            Self::CommitWarningIgnored,
            Self::LookUpBeforeLocks,
            Self::KeyCheckSkipped,
            Self::KeyNotStored,
            Self::RowLockSkipped,
            Self::ReplayUnconfirmed,
            Self::FundsUnchecked,
            Self::VersionGap,
            Self::LocksFreedEarly,
            Self::CancelIgnored,
            Self::WakeUpLost,
            Self::PermitLeaked,
            Self::DeadlineIgnored,
            Self::BisectSkipped,
            Self::CachePutUnversioned,
            Self::CacheFloorMissing,
            Self::CacheToldTooMuch,
            Self::CacheTrustsAtStart,
        ];

        /// Plants it in this thread's runs, or none.
        pub(crate) fn choose(plant: Option<Self>) {
            CHOSEN.set(plant);
        }

        /// Its name in words, as `ops/simulate --plant` takes it.
        #[must_use]
        pub fn name(self) -> String {
            let mut name = String::new();
            for letter in format!("{self:?}").chars() {
                if letter.is_ascii_uppercase() && !name.is_empty() {
                    name.push('-');
                }
                name.push(letter.to_ascii_lowercase());
            }
            name
        }
    }
}
