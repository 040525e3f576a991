//! A small seeded generator of random numbers.
//!
//! Owns: the sequence that decides each request.
//! Never: reads entropy by itself (a run without a seed takes one in `scenario`).
//! Invariant: the same seed and stream give the same sequence on every machine.

use std::convert::Infallible;

/// `SplitMix64` (Steele, Lea, Flood: "Fast splittable pseudorandom number
/// generators", 2014): one addition and three mixes, ample for picking accounts.
#[derive(Clone, Debug)]
pub(crate) struct Rng {
    state: u64,
}

const GOLDEN_GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

impl Rng {
    /// Stream `stream` of `seed`; the requests of one user take different streams
    /// of a seed that is the user's own stream of the run's seed.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut rng = Self {
            state: seed ^ stream.wrapping_mul(0xD134_2543_DE82_EF95),
        };
        // Neighbouring seeds must not start on neighbouring states.
        rng.state = rng.next();
        rng
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN_GAMMA);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in `0..bound`; zero for a bound of zero.
    ///
    /// The multiply-shift bias is below bound / 2^64: nothing for account counts.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }
}

/// What distributions of other crates draw from.
impl rand_core::TryRng for Rng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::try_from(self.next() >> 32).unwrap_or(0))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.next())
    }

    fn try_fill_bytes(&mut self, into: &mut [u8]) -> Result<(), Infallible> {
        for part in into.chunks_mut(8) {
            part.copy_from_slice(&self.next().to_le_bytes()[..part.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_replays_and_another_does_not() {
        let take = |seed, stream| {
            let mut rng = Rng::new(seed, stream);
            (0..64).map(|_| rng.next()).collect::<Vec<_>>()
        };
        assert_eq!(take(7, 0), take(7, 0));
        assert_ne!(take(7, 0), take(8, 0));
        assert_ne!(take(7, 0), take(7, 1));
    }

    #[test]
    fn below_reaches_every_value_and_never_the_bound() {
        let mut rng = Rng::new(1, 0);
        let mut seen = [0_u32; 10];
        for _ in 0..10_000 {
            let value = usize::try_from(rng.below(10)).unwrap();
            seen[value] += 1;
        }
        assert!(
            seen.iter().all(|count| (800..1200).contains(count)),
            "{seen:?}"
        );
        assert_eq!(rng.below(1), 0);
        assert_eq!(rng.below(0), 0);
    }
}
