//! What is kept of each user.
//!
//! Owns: how many requests a user made, and the few it may refer to.
//! Never: keeps a request: its number is enough to make it again.
//! Bound: about 130 bytes, 32 for users whose class has no look-up or repeat.

use uuid::Uuid;

use crate::rng::Rng;

/// How far back a look-up or a repeat reaches.
const RECENT_MAX: usize = 4;

/// One user's place in its own sequence of requests.
#[derive(Debug)]
pub(super) struct User {
    /// Seeds one stream of random numbers per request.
    pub(super) stream: u64,
    /// Requests made so far.
    pub(super) number: u64,
    /// Apart, because most users need none.
    pub(super) memory: Option<Box<Memory>>,
    pub(super) class: u16,
}

/// What look-ups and repeats refer to.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Numbers of the last requests with transfers.
    pub(super) requests: Recent<u64>,
    /// Ids of the last transactions that were answered.
    pub(super) transactions: Recent<Uuid>,
}

/// The last few of something.
#[derive(Debug, Default)]
pub(super) struct Recent<T> {
    kept: [T; RECENT_MAX],
    /// How many there ever were.
    count: u32,
}

impl<T: Copy> Recent<T> {
    pub(super) fn push(&mut self, value: T) {
        let count = usize::try_from(self.count).unwrap_or(0);
        self.kept[count % RECENT_MAX] = value;
        self.count = self.count.checked_add(1).unwrap_or(u32::MAX / 8 * 4);
    }

    /// One of them, each equally likely.
    pub(super) fn pick(&self, rng: &mut Rng) -> Option<T> {
        let kept = self.kept.len().min(usize::try_from(self.count).ok()?);
        let index = usize::try_from(rng.below(u64::try_from(kept).ok()?)).ok()?;
        self.kept[..kept].get(index).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn only_the_last_few_are_kept_and_each_can_be_picked() {
        let mut recent = Recent::<u64>::default();
        let mut rng = Rng::new(1, 0);
        assert_eq!(recent.pick(&mut rng), None);
        for value in 1..=6 {
            recent.push(value);
        }
        let seen: BTreeSet<_> = (0..200).filter_map(|_| recent.pick(&mut rng)).collect();
        assert_eq!(seen, BTreeSet::from([3, 4, 5, 6]));
    }

    #[test]
    fn ten_thousand_users_take_little_memory() {
        let bytes = size_of::<User>() + size_of::<Memory>();
        assert!(bytes <= 160, "{bytes}");
    }
}
