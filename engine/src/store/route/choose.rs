//! Which of several servers that take writes is the primary. Pure.
//!
//! Invariant: never a shorter history of the same database than one seen before:
//! an old primary that wakes up after its standby was promoted is left alone.

use crate::domain::DatabaseIdentity;

/// A server that takes writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Which history it writes.
    pub(super) identity: DatabaseIdentity,
    /// Whether a name of the URL leads to it now, not only earlier.
    pub(super) named: bool,
    /// Whether it is the primary so far.
    pub(super) current: bool,
    /// Its place in the URL.
    pub(super) order: usize,
}

/// The one to write to, if any may be. `seen` is the newest history written to.
pub(super) fn choose(seen: Option<DatabaseIdentity>, candidates: &[Candidate]) -> Option<usize> {
    let is_seen = |candidate: &Candidate| {
        seen.is_some_and(|seen| seen.system_identifier == candidate.identity.system_identifier)
    };
    candidates
        .iter()
        .enumerate()
        .filter(|(_, candidate)| {
            !is_seen(candidate)
                || seen.is_some_and(|seen| seen.timeline <= candidate.identity.timeline)
        })
        // Another database (a restored one, say) only if none of this one is left.
        .max_by_key(|(_, candidate)| {
            (
                is_seen(candidate),
                if is_seen(candidate) || seen.is_none() {
                    candidate.identity.timeline
                } else {
                    0
                },
                candidate.named,
                candidate.current,
                std::cmp::Reverse(candidate.order),
            )
        })
        .map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(system_identifier: u64, timeline: u32) -> Candidate {
        Candidate {
            identity: DatabaseIdentity {
                system_identifier,
                timeline,
            },
            named: true,
            current: false,
            order: 0,
        }
    }

    #[track_caller]
    fn check(seen: Option<(u64, u32)>, candidates: &[Candidate], expected: Option<usize>) {
        let seen = seen.map(|(system_identifier, timeline)| DatabaseIdentity {
            system_identifier,
            timeline,
        });
        let mut candidates = candidates.to_vec();
        for (order, candidate) in candidates.iter_mut().enumerate() {
            candidate.order = order;
        }
        assert_eq!(
            choose(seen, &candidates),
            expected,
            "{seen:?} {candidates:?}"
        );
    }

    #[test]
    fn the_longest_history_wins_wherever_it_stands() {
        check(None, &[], None);
        check(None, &[on(1, 1)], Some(0));
        check(None, &[on(1, 1), on(1, 2)], Some(1));
        check(None, &[on(1, 3), on(1, 2)], Some(0));
        check(Some((1, 1)), &[on(1, 1), on(1, 2)], Some(1));
    }

    #[test]
    fn an_old_primary_that_wakes_up_is_left_alone() {
        check(Some((1, 2)), &[on(1, 1)], None);
        check(Some((1, 2)), &[on(1, 1), on(1, 2)], Some(1));
        let current = Candidate {
            current: true,
            ..on(1, 1)
        };
        check(Some((1, 1)), &[current, on(1, 2)], Some(1));
    }

    #[test]
    fn of_equals_the_one_that_is_named_then_the_current_one_then_the_first() {
        let current = Candidate {
            current: true,
            ..on(1, 1)
        };
        let unnamed = Candidate {
            named: false,
            ..current
        };
        check(Some((1, 1)), &[on(1, 1), current], Some(1));
        check(Some((1, 1)), &[unnamed, on(1, 1)], Some(1));
        check(Some((1, 1)), &[unnamed], Some(0));
        check(None, &[on(1, 1), on(1, 1)], Some(0));
    }

    #[test]
    fn another_database_is_taken_only_when_none_of_this_one_is_left() {
        check(Some((1, 1)), &[on(2, 9), on(1, 1)], Some(1));
        check(Some((1, 5)), &[on(2, 1)], Some(0));
        check(Some((1, 5)), &[on(1, 4), on(2, 1)], Some(1));
    }
}
