//! Transfers out of records: what was asked, and how it ended.
//!
//! Owns: the transfers that were sent and have no answer yet.
//! Never: does I/O.
//! Bound: the transfers in flight at one moment of the run, retries of a key
//! included: answers and `Unanswered` take them out again.
//! Invariant: every `Sent` becomes one `Transfer`.

use std::collections::HashMap;

use crate::journal::{Event, Lost, Outcome, Planned, Record, Replay};
use crate::request::key::Key;
use crate::scenario::Keys;

/// How a transfer ended, as the generator saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Answered(Outcome, Replay),
    Unanswered(Lost),
    /// The journal ends before the answer.
    InFlight,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) key: Key,
    pub(crate) planned: Planned,
    pub(crate) ending: Ending,
}

impl Transfer {
    /// Nothing the generator saw forbids that this request moved money.
    pub(crate) const fn may_be_applied(&self) -> bool {
        match self.ending {
            Ending::Answered(Outcome::Completed(_) | Outcome::Unknown { .. }, _)
            | Ending::Unanswered(_)
            | Ending::InFlight => true,
            Ending::Answered(Outcome::Rejected { .. } | Outcome::Refused { .. }, _) => false,
        }
    }

    pub(crate) const fn is_keyed(&self) -> bool {
        matches!(self.planned.keys, Keys::On)
    }
}

#[derive(Debug)]
struct Waiting {
    planned: Planned,
    /// A key may be sent again while its first request is in flight.
    requests: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Joiner {
    waiting: HashMap<Key, Waiting>,
}

impl Joiner {
    /// Takes the next record; adds to `ready` what it ends.
    pub(crate) fn take(&mut self, record: Record, ready: &mut Vec<Transfer>) {
        let key = record.key;
        let ending = match record.event {
            Event::Sent(planned) => {
                let waiting = self.waiting.entry(key).or_insert(Waiting {
                    planned,
                    requests: 0,
                });
                waiting.requests += 1;
                return;
            }
            Event::Answered(outcome, replay) => Ending::Answered(outcome, replay),
            Event::Unanswered(lost) => Ending::Unanswered(lost),
        };
        // Only a writer with a fault answers what it did not send; the ledger is
        // asked about everything that was sent either way.
        let Some(waiting) = self.waiting.get_mut(&key) else {
            return;
        };
        ready.push(Transfer {
            key,
            planned: waiting.planned,
            ending,
        });
        waiting.requests -= 1;
        if waiting.requests == 0 {
            self.waiting.remove(&key);
        }
    }

    /// What was in flight when the journal ended.
    pub(crate) fn rest(self) -> impl Iterator<Item = Transfer> {
        let mut rest: Vec<_> = self.waiting.into_iter().collect();
        rest.sort_unstable_by_key(|(key, _)| *key);
        rest.into_iter().flat_map(|(key, waiting)| {
            (0..waiting.requests).map(move |_| Transfer {
                key,
                planned: waiting.planned,
                ending: Ending::InFlight,
            })
        })
    }
}
