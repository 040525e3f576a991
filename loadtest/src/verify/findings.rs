//! What was found, in numbers and some examples.
//!
//! Owns: which numbers are bad.
//! Bound: `EXAMPLES_MAX` examples.
//! Invariant: a broken promise is counted in a bad column at least once.

use serde::Serialize;

use super::Verdict;
use super::args::Sharing;
use super::ledger::Books;
use crate::journal::Closing;

const EXAMPLES_MAX: usize = 20;

/// The fates of transfers that got no answer, or none that tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Unanswered {
    pub(crate) total: u64,
    /// Why: the connection broke, `--timeout`, no HTTP, the run ended before it was
    /// sent again, killed, 504 and its kin.
    pub(crate) io: u64,
    pub(crate) timeout: u64,
    pub(crate) protocol: u64,
    pub(crate) given_up: u64,
    pub(crate) in_flight: u64,
    pub(crate) unknown: u64,
    /// What became of them.
    pub(crate) applied: u64,
    pub(crate) rejected: u64,
    pub(crate) never_arrived: u64,
    /// Sent without a key: nobody can ask.
    pub(crate) unknowable: u64,
}

/// A broken promise to look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Example {
    pub(crate) problem: &'static str,
    pub(crate) key: Option<String>,
    pub(crate) txn_id: Option<String>,
    pub(crate) asked: String,
    pub(crate) found: Vec<String>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    /// Bytes of the journal's torn tail.
    pub(crate) cut_bytes: u64,
    pub(crate) closing: Closing,
    pub(crate) transfers: u64,
    pub(crate) transfers_keyless: u64,
    pub(crate) acknowledged: u64,
    pub(crate) acknowledged_replayed: u64,
    /// Acknowledged ones without a key that were found: no key leads to them.
    pub(crate) acknowledged_keyless_found: u64,
    /// Acknowledged without a key or an id: nobody can ask.
    pub(crate) acknowledged_unknowable: u64,
    pub(crate) found_once: u64,
    pub(crate) missing: u64,
    pub(crate) doubled: u64,
    pub(crate) wrong: u64,
    /// Acknowledged with a key that does not lead to it: a repeat would pay again.
    pub(crate) keys_lost: u64,
    pub(crate) rejected: u64,
    /// Rejections whose key does not lead to them.
    pub(crate) rejections_missing: u64,
    pub(crate) refused: u64,
    /// Answered with a no, and money moved.
    pub(crate) rejected_applied: u64,
    /// Refused in this run, applied by an earlier one with the same seed.
    pub(crate) refused_applied_before: u64,
    pub(crate) unanswered: Unanswered,
    pub(crate) books: Books,
    pub(crate) examples: Vec<Example>,
}

impl Findings {
    pub(crate) fn example(&mut self, make: impl FnOnce() -> Example) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(make());
        }
    }

    /// Transfers of the run's time that no key and no answer explains.
    pub(crate) fn unexplained(&self) -> Option<u64> {
        let keyless = self.books.rows?.keyless;
        let explained = self.acknowledged_keyless_found
            + self.acknowledged_unknowable
            + self.unanswered.unknowable;
        Some(keyless.saturating_sub(explained))
    }

    /// Whether everything that the run did without keys is in its journal, and
    /// nobody else did anything.
    pub(crate) fn can_explain(&self, sharing: Sharing) -> bool {
        let whole = self.closing == Closing::Closed || self.transfers_keyless == 0;
        sharing == Sharing::Alone && whole
    }

    /// Names and numbers that must be zero; none is what nobody was asked.
    pub(crate) fn bad(&self, sharing: Sharing) -> Vec<(&'static str, Option<u64>)> {
        let rows = self.books.rows;
        let unbalanced = u64::try_from(self.books.unbalanced.len()).unwrap_or(u64::MAX);
        let shared = rows.map(|rows| rows.answers_shared);
        let mut bad = vec![
            ("missing", Some(self.missing)),
            ("doubled", Some(self.doubled)),
            ("wrong amount or accounts", Some(self.wrong)),
            (
                "rejected or refused, but applied",
                Some(self.rejected_applied),
            ),
            ("keys not kept", Some(self.keys_lost)),
            ("rejections not kept", Some(self.rejections_missing)),
            ("currencies out of balance", Some(unbalanced)),
            ("overdrafts", Some(self.books.overdrafts)),
            ("answers shared by several keys", shared),
            (
                "balances that are no sum",
                rows.map(|rows| rows.balances_wrong),
            ),
        ];
        if self.can_explain(sharing) {
            bad.push(("doubled without a key", self.unexplained()));
        }
        bad
    }

    pub(crate) fn verdict(&self, sharing: Sharing) -> Verdict {
        let broken = |count: Option<u64>| count.is_some_and(|count| count > 0);
        if !self.bad(sharing).iter().any(|(_, count)| broken(*count)) {
            Verdict::Kept
        } else {
            Verdict::Broken
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ledger::RowBooks;
    use super::*;

    #[track_caller]
    fn check(closing: Closing, transfers_keyless: u64, sharing: Sharing, expected: Verdict) {
        let rows = RowBooks {
            keyless: 3,
            ..RowBooks::default()
        };
        let findings = Findings {
            closing,
            transfers_keyless,
            acknowledged_keyless_found: transfers_keyless,
            books: Books {
                rows: Some(rows),
                ..Books::default()
            },
            ..Findings::default()
        };
        assert_eq!(findings.verdict(sharing), expected, "{findings:?}");
    }

    #[test]
    fn what_a_cut_journal_cannot_explain_is_no_broken_promise() {
        use Closing::{Closed, CutShort};
        check(Closed, 2, Sharing::Alone, Verdict::Broken);
        check(Closed, 3, Sharing::Alone, Verdict::Kept);
        check(CutShort, 2, Sharing::Alone, Verdict::Kept);
        check(Closed, 2, Sharing::Shared, Verdict::Kept);
        // What is missing had keys like all the rest: nothing is without one.
        check(CutShort, 0, Sharing::Alone, Verdict::Broken);
    }
}
