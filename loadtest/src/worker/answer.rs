//! What comes back: answers, and connections that break instead.
//!
//! Owns: how an attempt ends, and whether its request ends with it.
//! Never: sends.
//! Invariant: every attempt leaves `busy` exactly once.

use std::io::ErrorKind;
use std::time::Duration;

use rustix::event::epoll;

use super::Worker;
use super::connections::RECONNECT_AFTER;
use super::repeats::Repeated;
use crate::body;
use crate::journal::Lost;
use crate::response::KeepBody;
use crate::slot::{Flight, Setback, State, Written};
use crate::stats::{Arrival, Class};

impl Worker {
    pub(super) fn on_event(&mut self, index: usize, flags: epoll::EventFlags) {
        match self.slots[index].state {
            // An event of a connection that was dropped in this same round.
            State::Down { .. } => {}
            State::Connecting { .. } => self.on_connect(index),
            State::Idle { .. } => self.read_idle(index),
            State::Busy { sent } => {
                if flags.contains(epoll::EventFlags::OUT) {
                    let result = self.slots[index].write_rest();
                    if let Err(error) = self.after_write(index, result, Written::Part) {
                        self.fail_io(index, self.start.elapsed(), &error);
                        return;
                    }
                }
                self.read_answer(index, sent);
            }
        }
    }

    /// Nothing may come on an idle connection but its end.
    fn read_idle(&mut self, index: usize) {
        match self.slots[index].read(&mut self.read_buffer) {
            Ok(None) => {}
            // TLS lets a server refuse after the handshake: at once again would be
            // a storm of handshakes.
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                self.tally.errors.connect += 1;
                self.tally.last_error = Some(error.to_string());
                self.slots[index].disconnect(self.start.elapsed() + RECONNECT_AFTER);
            }
            Err(_) => self.reconnect(index),
            Ok(Some(_)) => {
                self.tally.errors.protocol += 1;
                self.tally.last_error = Some("bytes that answer no request".to_owned());
                self.reconnect(index);
            }
        }
    }

    /// Whether one more request may wait to be sent again.
    fn has_room(&self) -> bool {
        !self.is_open_model() || self.repeats.has_room()
    }

    fn read_answer(&mut self, index: usize, sent: Duration) {
        let has_room = self.has_room();
        let slot = &mut self.slots[index];
        let response = loop {
            let count = match slot.read(&mut self.read_buffer) {
                Ok(None) => return,
                Ok(Some(count)) => count,
                Err(error) => return self.fail_io(index, self.start.elapsed(), &error),
            };
            match slot.parser.feed(&self.read_buffer[..count]) {
                // More may be decrypted already, which no event would tell.
                Ok(None) if count == self.read_buffer.len() => {}
                Ok(None) => return,
                Ok(Some(response)) => break response,
                Err(error) => {
                    self.tally.errors.protocol += 1;
                    self.tally.last_error = Some(error.to_string());
                    return self.abandon(index, self.start.elapsed(), Lost::Protocol);
                }
            }
        };
        let Some(flight) = slot.flight else {
            return;
        };
        let now = self.start.elapsed();
        let arrival = if now < self.end {
            Arrival::InWindow
        } else {
            Arrival::Late
        };
        self.tally.record(&response, flight.next.transfers, arrival);
        if flight.next.keep == KeepBody::All
            && let Some(id) = body::txn_ids(response.body).next()
        {
            self.requests.answered(flight.user, id);
        }
        let (status, close, retry_after) = (response.status, response.close, response.retry_after);
        let class = Class::of(status);
        let times = flight.times(sent, now);
        let setback = Setback::Answer {
            status,
            class,
            times,
        };
        // A success is by far the most frequent: it skips the decision.
        let again = match class {
            Class::Success => None,
            Class::Unavailable | Class::Other => self
                .retry
                .again_at(&flight, &setback, retry_after, (now, self.end))
                .filter(|_| has_room),
        };
        if again.is_none() {
            let asked = (flight.next.span, flight.earlier());
            self.recorder.answered(now, asked, &response);
        }
        self.busy -= 1;
        match again {
            Some(due) => self.repeat(index, (flight, setback), due),
            None => {
                self.tally.time(flight.next.task, class, times);
                self.slots[index].due = now + flight.next.think;
            }
        }
        if (close || self.slots[index].has_ended()) && index < self.staffed {
            self.reconnect(index);
        } else {
            self.set_free(index, now);
        }
        self.dispatch(now);
    }

    /// The connection has its answer: for the next request, if its user stays.
    fn set_free(&mut self, index: usize, now: Duration) {
        if self.staffed <= index {
            self.leave(index, now);
        } else {
            self.slots[index].state = State::Idle { since: now };
            self.release(index, now);
        }
    }

    /// Plans to send the request again.
    fn repeat(&mut self, index: usize, (flight, setback): (Flight, Setback), due: Duration) {
        let slot = &mut self.slots[index];
        if self.orders.schedule.is_none() {
            slot.setback = Some(setback);
            slot.due = due;
            return;
        }
        // The connection is for the schedule; the request waits elsewhere.
        let repeated = Repeated {
            out: std::mem::take(&mut slot.out),
            flight,
            setback,
        };
        self.repeats.push(due, repeated);
    }

    pub(super) fn fail_io(&mut self, index: usize, now: Duration, error: &std::io::Error) {
        self.tally.errors.io += 1;
        self.tally.last_error = Some(error.to_string());
        self.abandon(index, now, Lost::Io);
    }

    /// Gives up the attempt in flight, whose error was counted.
    pub(super) fn abandon(&mut self, index: usize, now: Duration, lost: Lost) {
        self.busy -= 1;
        let has_room = self.has_room();
        if let Some(flight) = self.slots[index].flight {
            let setback = Setback::NoAnswer;
            let again = self
                .retry
                .again_at(&flight, &setback, None, (now, self.end))
                .filter(|_| has_room);
            match again {
                Some(due) => self.repeat(index, (flight, setback), due),
                None => {
                    self.recorder.unanswered(now, flight.next.span, lost);
                    self.tally.give_up(flight.next.task, now);
                    self.slots[index].due = now + flight.next.think;
                }
            }
        }
        self.slots[index].disconnect(now + RECONNECT_AFTER);
    }

    /// At the end: what was to be sent again ends as its last attempt did.
    pub(super) fn give_up_waiting(&mut self) {
        let users = self
            .slots
            .iter_mut()
            .filter_map(|slot| Some((slot.setback.take()?, slot.flight?)));
        let mut waiting: Vec<_> = users.collect();
        let repeats = self.repeats.drain();
        waiting.extend(repeats.map(|repeated| (repeated.setback, repeated.flight)));
        for (setback, flight) in waiting {
            let task = flight.next.task;
            self.recorder
                .unanswered(self.end, flight.next.span, Lost::GivenUp);
            match setback {
                Setback::NoAnswer => self.tally.give_up(task, self.end),
                Setback::Answer { class, times, .. } => self.tally.time(task, class, times),
            }
        }
    }
}
