//! Transfers out of records: what was asked, and how it ended.
//!
//! Owns: the transfers that were sent and have no answer yet.
//! Never: does I/O.
//! Bound: the transfers in flight at one moment of the run, retries of a key
//! included: answers and `Unanswered` take them out again.
//! Invariant: every `Sent` becomes one `Transfer`.

use std::collections::HashMap;

use crate::journal::{Event, Keyed, Lost, Outcome, Planned, Record, Replay};

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
    pub(crate) thread: u32,
    pub(crate) counter: u64,
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
        matches!(self.planned.keyed, Keyed::Yes)
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
    waiting: HashMap<(u32, u64), Waiting>,
}

impl Joiner {
    /// Takes the next record of a thread; adds to `ready` what it ends.
    pub(crate) fn take(&mut self, thread: u32, record: Record, ready: &mut Vec<Transfer>) {
        let id = (thread, record.counter);
        let ending = match record.event {
            Event::Sent(planned) => {
                let waiting = self.waiting.entry(id).or_insert(Waiting {
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
        let Some(waiting) = self.waiting.get_mut(&id) else {
            return;
        };
        ready.push(Transfer {
            thread,
            counter: record.counter,
            planned: waiting.planned,
            ending,
        });
        waiting.requests -= 1;
        if waiting.requests == 0 {
            self.waiting.remove(&id);
        }
    }

    /// What was in flight when the journal ended.
    pub(crate) fn rest(self) -> impl Iterator<Item = Transfer> {
        let mut rest: Vec<_> = self.waiting.into_iter().collect();
        rest.sort_unstable_by_key(|(id, _)| *id);
        rest.into_iter().flat_map(|((thread, counter), waiting)| {
            (0..waiting.requests).map(move |_| Transfer {
                thread,
                counter,
                planned: waiting.planned,
                ending: Ending::InFlight,
            })
        })
    }
}
