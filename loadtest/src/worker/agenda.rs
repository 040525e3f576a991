//! What waits for a moment: users who think, requests that are sent again.
//!
//! Owns: the order of what is due.
//! Never: reads a clock.
//! Bound: its user's; a push is never refused here.
//! Invariant: what is due at the same moment leaves in the order it came.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

#[derive(Debug)]
struct Entry<T> {
    due: Duration,
    order: u64,
    what: T,
}

impl<T> Entry<T> {
    fn key(&self) -> (Duration, u64) {
        (self.due, self.order)
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

#[derive(Debug)]
pub(super) struct Agenda<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    pushed: u64,
}

impl<T> Agenda<T> {
    pub(super) const fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            pushed: 0,
        }
    }

    pub(super) fn push(&mut self, due: Duration, what: T) {
        let order = self.pushed;
        self.pushed += 1;
        self.heap.push(Reverse(Entry { due, order, what }));
    }

    pub(super) fn next_at(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse(entry)| entry.due)
    }

    pub(super) fn pop_due(&mut self, now: Duration) -> Option<(Duration, T)> {
        self.next_at().filter(|due| *due <= now)?;
        let Reverse(entry) = self.heap.pop()?;
        Some((entry.due, entry.what))
    }

    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    /// Everything, due or not, in no order.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = T> {
        self.heap.drain().map(|Reverse(entry)| entry.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_leaves_first_and_nothing_before_its_time() {
        let mut agenda = Agenda::new();
        for (millis, what) in [(30, 'c'), (10, 'a'), (20, 'b'), (10, 'A')] {
            agenda.push(Duration::from_millis(millis), what);
        }
        let ten = Duration::from_millis(10);
        assert_eq!(agenda.next_at(), Some(ten));
        assert_eq!(agenda.pop_due(ten - Duration::from_nanos(1)), None);
        assert_eq!(agenda.pop_due(ten), Some((ten, 'a')));
        assert_eq!(agenda.pop_due(ten), Some((ten, 'A')));
        assert_eq!(agenda.pop_due(ten), None);
        assert_eq!(agenda.len(), 2);
        assert_eq!(
            agenda
                .drain()
                .collect::<std::collections::BTreeSet<_>>()
                .len(),
            2
        );
    }
}
