//! Requests of the open model that wait to be sent again.
//!
//! Owns: their bytes, meanwhile, and how many there may be.
//! Never: decides whether one is sent again.
//! Bound: `COUNT_MAX` requests and, batches being large, `BYTES_MAX` of them; the
//! last one may pass it.

use std::time::Duration;

use super::agenda::Agenda;
use crate::slot::{Flight, Setback};

const COUNT_MAX: usize = 65_536;
/// As many single transfers, or some 60 calls of 8,192, on each thread.
const BYTES_MAX: usize = 64 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Repeated {
    pub(super) out: Vec<u8>,
    pub(super) flight: Flight,
    pub(super) setback: Setback,
}

#[derive(Debug)]
pub(super) struct Repeats {
    agenda: Agenda<Repeated>,
    bytes: usize,
}

impl Repeats {
    pub(super) const fn new() -> Self {
        Self {
            agenda: Agenda::new(),
            bytes: 0,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.agenda.len() < COUNT_MAX && self.bytes < BYTES_MAX
    }

    pub(super) fn push(&mut self, due: Duration, repeated: Repeated) {
        self.bytes += repeated.out.capacity();
        self.agenda.push(due, repeated);
    }

    pub(super) fn next_at(&self) -> Option<Duration> {
        self.agenda.next_at()
    }

    pub(super) fn pop_due(&mut self, now: Duration) -> Option<Repeated> {
        let (_, repeated) = self.agenda.pop_due(now)?;
        self.bytes -= repeated.out.capacity();
        Some(repeated)
    }

    /// Everything, due or not, in no order.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Repeated> {
        self.bytes = 0;
        self.agenda.drain()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Next, Repeat, Span};
    use crate::response::KeepBody;

    fn repeated(bytes: usize) -> Repeated {
        let next = Next {
            task: 0,
            transfers: 1,
            span: Span::default(),
            repeat: Repeat::Safe,
            think: Duration::ZERO,
            keep: KeepBody::Problems,
        };
        Repeated {
            out: Vec::with_capacity(bytes),
            flight: Flight {
                intended: Duration::ZERO,
                attempt: 0,
                user: 0,
                next,
            },
            setback: Setback::NoAnswer,
        }
    }

    #[test]
    fn large_requests_leave_room_for_few_and_what_leaves_makes_room() {
        let (mut repeats, now) = (Repeats::new(), Duration::ZERO);
        repeats.push(now, repeated(BYTES_MAX - 1));
        assert!(repeats.has_room());
        repeats.push(now, repeated(1));
        assert!(!repeats.has_room());
        assert!(repeats.pop_due(now).is_some());
        assert!(repeats.has_room());
        for _ in 1..COUNT_MAX {
            assert!(repeats.has_room());
            repeats.push(now, repeated(0));
        }
        assert!(!repeats.has_room());
        assert_eq!(repeats.drain().count(), COUNT_MAX);
        assert!(repeats.has_room());
    }
}
