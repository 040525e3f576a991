//! Identifiers: accounts, transfers, commits.

use std::fmt;

use uuid::Uuid;

/// An account, `0..=2^53-1`, so that every JSON reader holds it exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(i64);

impl AccountId {
    /// The largest id, 2^53-1.
    pub const MAX: Self = Self(9_007_199_254_740_991);

    /// # Errors
    /// [`InvalidAccountId`] outside `0..=2^53-1`.
    pub const fn new(id: i64) -> Result<Self, InvalidAccountId> {
        if id < 0 || id > Self::MAX.0 {
            return Err(InvalidAccountId);
        }
        Ok(Self(id))
    }

    /// As PostgreSQL stores it.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// An account id outside `0..=2^53-1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidAccountId;

/// A row of `commits`: one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommitId(pub i64);

/// A transfer or a kept rejection: UUID v7, so ids order by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferId(Uuid);

impl TransferId {
    /// Wraps a UUID that was stored or sent; any version is taken, since a
    /// look-up of a foreign one simply finds nothing.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The UUID.
    #[must_use]
    pub const fn uuid(self) -> Uuid {
        self.0
    }

    /// Creation time, milliseconds since the Unix epoch: the first 48 bits.
    #[must_use]
    pub const fn unix_ms(self) -> u64 {
        let (high, _) = self.0.as_u64_pair();
        high >> 16
    }

    /// The least id of that millisecond: the bound for a time or a partition.
    #[must_use]
    pub const fn first_of_ms(unix_ms: u64) -> Self {
        Self(Uuid::from_u64_pair((unix_ms & 0xFFFF_FFFF_FFFF) << 16, 0))
    }
}

impl fmt::Display for TransferId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Makes ids that grow: each is greater than the last one made and than the
/// floor it is given.
///
/// The floor is the newest transfer of the accounts concerned. So ids grow along
/// every account's history even when engines disagree about the time; a cursor
/// or a time bound can then stop a walk early.
#[derive(Debug)]
pub struct TransferIds {
    last: u128,
    seed: u64,
}

impl TransferIds {
    const VERSION_AND_VARIANT: u128 = 0x7000_8000_0000_0000_0000;

    /// `seed` must differ between engines (take it from the operating system):
    /// it fills the 62 low bits, which keep two engines' ids apart.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { last: 0, seed }
    }

    /// The next id, not before `unix_ms`, above the previous one and `floor`.
    pub fn next(&mut self, unix_ms: u64, floor: Option<TransferId>) -> TransferId {
        // xorshift64*: distinctness between engines, not secrecy, is asked for.
        self.seed ^= self.seed >> 12;
        self.seed ^= self.seed << 25;
        self.seed ^= self.seed >> 27;
        let low = u128::from(self.seed.wrapping_mul(0x2545_F491_4F6C_DD1D));
        let floor = floor.map_or(0, |id| id.0.as_u128());
        let least = self.last.max(floor);
        let low = low & 0x3FFF_FFFF_FFFF_FFFF;
        // The counter starts in its lower half, random, so that it has room.
        let start = u128::from(self.seed >> 53);
        let mut id = u128::from(unix_ms & 0xFFFF_FFFF_FFFF) << 80
            | start << 64
            | low
            | Self::VERSION_AND_VARIANT;
        if id <= least {
            // Same millisecond or a clock behind: count up in the 12 bits after
            // the time (and on into the time itself), keep the random low bits.
            let counter = (least >> 80 << 12) | (least >> 64 & 0xFFF);
            let counter = counter.wrapping_add(1);
            id = (counter >> 12) << 80 | (counter & 0xFFF) << 64 | low | Self::VERSION_AND_VARIANT;
        }
        // A floor from the future (an engine's clock was wrong once) lifts the
        // accounts that have it, not everything made after it.
        if floor <= self.last || floor >> 80 <= u128::from(unix_ms) {
            self.last = id;
        }
        TransferId(Uuid::from_u128(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_id_accepts_exactly_what_json_holds() {
        for (id, ok) in [
            (0, true),
            (9_007_199_254_740_991, true),
            (-1, false),
            (9_007_199_254_740_992, false),
        ] {
            assert_eq!(AccountId::new(id).is_ok(), ok, "id={id}");
        }
    }

    #[test]
    fn ids_are_v7_carry_their_time_and_grow() {
        let mut ids = TransferIds::new(7);
        let mut last = ids.next(1_000, None);
        for unix_ms in [1_000, 1_000, 999, 5, 1_001]
            .into_iter()
            .chain((0..10_000).map(|_| 1_001))
        {
            let id = ids.next(unix_ms, None);
            assert!(last < id);
            assert_eq!(id.uuid().get_version_num(), 7);
            assert_eq!(id.uuid().get_variant(), uuid::Variant::RFC4122);
            last = id;
        }
        assert!(1_001 <= last.unix_ms() && last.unix_ms() < 1_010);
    }

    #[test]
    fn an_id_is_above_its_floor_even_when_the_clock_is_behind() {
        let floor = TransferIds::new(1).next(5_000, None);
        let id = TransferIds::new(2).next(4_000, Some(floor));
        assert!(floor < id);
        assert_eq!(id.unix_ms(), 5_000);
    }

    #[test]
    fn a_floor_from_the_future_lifts_only_the_accounts_that_have_it() {
        let future = TransferIds::new(1).next(900_000, None);
        let mut ids = TransferIds::new(2);
        let before = ids.next(1_000, None);
        assert!(future < ids.next(1_000, Some(future)));
        let after = ids.next(1_001, None);
        assert!(before < after);
        assert_eq!(after.unix_ms(), 1_001);
    }

    #[test]
    fn the_first_id_of_a_millisecond_bounds_it_from_below() {
        let id = TransferIds::new(3).next(77, None);
        assert!(TransferId::first_of_ms(77) < id && id < TransferId::first_of_ms(78));
    }
}
