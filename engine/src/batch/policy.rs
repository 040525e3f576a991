//! How many commits are worth having in flight.
//!
//! Pure. One commit at a time takes whatever is ready, so a lone transfer never
//! waits for company. A second commit beside it pays only when it is large: it
//! competes for the same cores and the same log, and two small commits cost
//! twice the fixed work of one.

/// The numbers behind the decision.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Commits in flight, at most.
    pub committers: usize,
    /// Transfers that must be ready before a commit starts beside another.
    pub parallel_transfers_min: usize,
}

impl Policy {
    /// Whether to start a commit now.
    #[must_use]
    pub const fn start(&self, ready: usize, in_flight: usize) -> bool {
        if ready == 0 || self.committers <= in_flight {
            return false;
        }
        in_flight == 0 || self.parallel_transfers_min <= ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(ready: usize, in_flight: usize, expected: bool) {
        let policy = Policy {
            committers: 2,
            parallel_transfers_min: 512,
        };
        assert_eq!(
            policy.start(ready, in_flight),
            expected,
            "{ready} ready, {in_flight} in flight"
        );
    }

    #[test]
    fn the_first_commit_takes_anything_and_the_second_only_plenty() {
        check(0, 0, false);
        check(1, 0, true);
        check(1, 1, false);
        check(511, 1, false);
        check(512, 1, true);
        check(100_000, 2, false);
    }
}
