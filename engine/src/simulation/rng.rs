//! Chance, by the seed.
//!
//! Owns: one stream of numbers (splitmix64) that everything in a run draws from.
//! Invariant: the same seed and the same draws give the same numbers anywhere.

use std::ops::Range;
use std::time::Duration;

/// A seeded generator.
#[derive(Debug)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        super::trace::mix(self.0)
    }

    /// A number in the range, which must not be empty.
    pub(super) fn within(&mut self, range: Range<u64>) -> u64 {
        let width = range.end.saturating_sub(range.start).max(1);
        // The high half: splitmix64's bits are equally good, and the bias of a
        // remainder at these widths is far below what a run could notice.
        range.start + self.next() % width
    }

    pub(super) fn index(&mut self, length: usize) -> usize {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        usize::try_from(self.within(0..length)).unwrap_or(0)
    }

    /// True `parts` times in a million.
    pub(super) fn happens(&mut self, parts_per_million: u64) -> bool {
        self.next() % 1_000_000 < parts_per_million
    }

    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }

    pub(super) fn ms(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }
}
