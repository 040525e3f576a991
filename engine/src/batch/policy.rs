//! How many commits are worth having in flight.
//!
//! Pure. One commit at a time takes whatever is ready, so a lone transfer never
//! waits for company. A second commit beside it competes for the same cores and
//! the same log, and two small commits cost twice the fixed work of one: it pays
//! when it is large, or when it is about as large as what is in flight, for then
//! waiting would not have made it larger and one writes while the other syncs.

/// The numbers behind the decision.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Commits in flight, at most.
    pub committers: usize,
    /// So many ready transfers are worth a commit beside any other.
    pub parallel_transfers_min: usize,
}

/// What is being committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InFlight {
    /// Commits.
    pub commits: usize,
    /// Transfers in all of them.
    pub transfers: usize,
}

impl Policy {
    /// Whether to start a commit now.
    #[must_use]
    pub const fn start(&self, ready: usize, in_flight: InFlight) -> bool {
        if ready == 0 || self.committers <= in_flight.commits {
            return false;
        }
        // Three quarters: two halves of one crowd are never quite equal.
        let as_large = in_flight.transfers.saturating_sub(in_flight.transfers / 4);
        in_flight.commits == 0 || self.parallel_transfers_min <= ready || as_large <= ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(ready: usize, commits: usize, transfers: usize, expected: bool) {
        let policy = Policy {
            committers: 2,
            parallel_transfers_min: 512,
        };
        let in_flight = InFlight { commits, transfers };
        assert_eq!(
            policy.start(ready, in_flight),
            expected,
            "{ready} ready, {in_flight:?}"
        );
    }

    #[test]
    fn the_first_commit_takes_anything() {
        check(0, 0, 0, false);
        check(1, 0, 0, true);
    }

    #[test]
    fn the_second_is_large_or_about_as_large_as_the_first() {
        check(1, 1, 8, false);
        check(5, 1, 8, false);
        check(6, 1, 8, true);
        check(511, 1, 8_192, false);
        check(512, 1, 8_192, true);
    }

    #[test]
    fn no_more_commits_than_committers() {
        check(100_000, 2, 16, false);
    }
}
