//! Randomness, as an argument: rooms are given an [`Entropy`], tests own theirs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where random numbers come from.
#[derive(Clone, Debug)]
pub enum Entropy {
    /// The operating system.
    System,
    /// A test's: the state of a splitmix64.
    Seeded(Arc<AtomicU64>),
}

impl Entropy {
    /// A random number, if there is one to be had.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::System => {
                let mut bytes = [0; 8];
                getrandom::fill(&mut bytes).ok()?;
                Some(u64::from_le_bytes(bytes))
            }
            Self::Seeded(state) => {
                let before = state.fetch_add(GOLDEN, Ordering::Relaxed);
                Some(mix(before.wrapping_add(GOLDEN)))
            }
        }
    }
}

/// 2^64 by the golden ratio: the step of splitmix64.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The output function of splitmix64.
const fn mix(state: u64) -> u64 {
    let mut mixed = state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_again() {
        let draw = |seed| {
            let entropy = Entropy::Seeded(Arc::new(AtomicU64::new(seed)));
            [entropy.number(), entropy.number()]
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let [first, second] = draw(1);
        assert_ne!(first, second);
        assert_ne!(Entropy::System.number(), Entropy::System.number());
    }
}
