//! How many commits are worth having in flight.
//!
//! Pure. One commit at a time takes whatever is ready, so a lone transfer never
//! waits for company. A second commit beside it pays only when it is large: it
//! competes for the same cores and the same log, and two small commits cost
//! twice the fixed work of one. A commit that waits for a stranger competes for
//! nothing, so it must not hold up those who have nothing to do with it.

/// The commits in flight.
#[derive(Clone, Copy, Debug, Default)]
pub struct InFlight {
    /// All of them.
    pub commits: usize,
    /// Those in flight for so long that they wait for somebody: a row that
    /// another engine holds, a server that is away. They use no core meanwhile.
    pub slow: usize,
}

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
    pub const fn start(&self, ready: usize, in_flight: InFlight) -> bool {
        if ready == 0 || self.committers <= in_flight.commits {
            return false;
        }
        in_flight.commits <= in_flight.slow || self.parallel_transfers_min <= ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(ready: usize, commits: usize, slow: usize, expected: bool) {
        let policy = Policy {
            committers: 2,
            parallel_transfers_min: 512,
        };
        assert_eq!(
            policy.start(ready, InFlight { commits, slow }),
            expected,
            "{ready} ready, {commits} in flight, {slow} of them slow"
        );
    }

    #[test]
    fn the_first_commit_takes_anything_and_the_second_only_plenty() {
        check(0, 0, 0, false);
        check(1, 0, 0, true);
        check(1, 1, 0, false);
        check(511, 1, 0, false);
        check(512, 1, 0, true);
        check(100_000, 2, 0, false);
    }

    #[test]
    fn a_slow_commit_keeps_nobody_from_another_committer() {
        check(0, 1, 1, false);
        check(1, 1, 1, true);
        check(1, 2, 1, false);
        check(1, 2, 2, false);
    }
}
