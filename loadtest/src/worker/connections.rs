//! The connections of one client thread: opened, lost, opened again.
//!
//! Owns: every change of a slot between down, connecting and idle, and which
//! slots take part.
//! Never: sends or reads a request.
//! Bound: `CONNECTING_MAX` opened at a time; slots are added, never taken away.
//! Invariant: `connecting` counts the slots in that state.

use std::time::Duration;

use rustix::event::epoll;

use super::{SCAN_EVERY, STAFF_EVERY, TIMER_TOKEN, Worker};
use crate::journal::Lost;
use crate::slot::{Slot, State, Used};
use crate::stream::Handshake;

/// Below any listen backlog: more at once could wait a second for a SYN retry.
const CONNECTING_MAX: usize = 64;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
pub(super) const RECONNECT_AFTER: Duration = Duration::from_millis(100);

impl Worker {
    /// Connections that are open.
    pub(crate) fn connected(&self) -> usize {
        self.users_up()
    }

    pub(super) fn users_up(&self) -> usize {
        let up = |slot: &&Slot| matches!(slot.state, State::Idle { .. } | State::Busy { .. });
        self.slots.iter().filter(up).count()
    }

    /// Opens what takes part from the start, and one more on the first thread to
    /// know that the target is there.
    pub(super) fn open_first(&mut self) -> std::io::Result<()> {
        self.staffed = self.staff_at(Duration::ZERO);
        let probe = usize::from(self.orders.thread == 0);
        self.to_open = (0..self.staffed.max(probe).min(self.slots.len())).collect();
        loop {
            let now = self.start.elapsed();
            self.expire_connects(now);
            self.open_next(now);
            if self.connecting == 0 && self.to_open.is_empty() {
                return Ok(());
            }
            self.wait(now, None, SCAN_EVERY)?;
        }
    }

    /// How many slots of this thread take part at a moment.
    fn staff_at(&self, now: Duration) -> usize {
        let all = self.orders.share.of(self.orders.staff.level_at(now));
        usize::try_from(all).unwrap_or(usize::MAX)
    }

    /// Lets users in or out as the stages say.
    pub(super) fn staff(&mut self, now: Duration) {
        let changes = self.orders.staff.changes_after(now);
        self.next_staff = changes.then_some(now + STAFF_EVERY);
        let staffed = self.staff_at(now);
        // More than the run began with: somebody changed their number.
        while self.slots.len() < staffed {
            self.slots.push(Slot::new());
        }
        let before = std::mem::replace(&mut self.staffed, staffed);
        for index in self.staffed..before {
            if let State::Idle { .. } = self.slots[index].state {
                self.leave(index, now);
            }
        }
        for index in before..self.staffed {
            match self.slots[index].state {
                State::Down { .. } => self.to_open.push_back(index),
                State::Idle { .. } => self.release(index, now),
                State::Connecting { .. } | State::Busy { .. } => {}
            }
        }
        self.open_next(now);
    }

    /// Closes the connection of a user who takes no part any more.
    pub(super) fn leave(&mut self, index: usize, now: Duration) {
        let slot = &mut self.slots[index];
        slot.disconnect(now);
        slot.used = Used::Never;
    }

    /// An idle connection waits for what it may send next.
    pub(super) fn release(&mut self, index: usize, now: Duration) {
        let open_model = self.is_open_model();
        let slot = &mut self.slots[index];
        if open_model || slot.due <= now {
            self.idle.push_back(index);
        } else if slot.asleep_until != Some(slot.due) {
            slot.asleep_until = Some(slot.due);
            self.asleep.push(slot.due, index);
        }
    }

    fn open_next(&mut self, now: Duration) {
        while self.connecting < CONNECTING_MAX
            && let Some(index) = self.to_open.pop_front()
        {
            if let State::Down { .. } = self.slots[index].state {
                self.open(index, now);
            }
        }
    }

    fn open(&mut self, index: usize, now: Duration) {
        if self.slots[index].used == Used::Before {
            self.tally.reconnects += 1;
        }
        self.connecting += 1;
        let result = self.slots[index]
            .connect(self.orders.address, self.orders.tls.as_ref(), now)
            .and_then(|()| self.register(index));
        if let Err(error) = result {
            self.connect_failed(index, now, &error);
        }
    }

    fn register(&self, index: usize) -> std::io::Result<()> {
        let token = epoll::EventData::new_u64(u64::try_from(index).unwrap_or(TIMER_TOKEN));
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT;
        epoll::add(&self.epoll, self.slots[index].fd()?, token, flags)?;
        Ok(())
    }

    pub(super) fn watch(&self, index: usize, flags: epoll::EventFlags) -> std::io::Result<()> {
        let token = epoll::EventData::new_u64(u64::try_from(index).unwrap_or(TIMER_TOKEN));
        epoll::modify(&self.epoll, self.slots[index].fd()?, token, flags)?;
        Ok(())
    }

    fn watch_handshake(&self, index: usize, step: Handshake) -> std::io::Result<Handshake> {
        let flags = match step {
            Handshake::Done | Handshake::ToRead => epoll::EventFlags::IN,
            Handshake::ToWrite => epoll::EventFlags::IN | epoll::EventFlags::OUT,
        };
        self.watch(index, flags).map(|()| step)
    }

    fn connect_failed(&mut self, index: usize, now: Duration, error: &std::io::Error) {
        self.connecting -= 1;
        self.tally.errors.connect += 1;
        self.tally.last_error = Some(format!("connect: {error}"));
        self.slots[index].disconnect(now + RECONNECT_AFTER);
    }

    /// Connecting has ended, one way or the other, or TLS goes a step further.
    pub(super) fn on_connect(&mut self, index: usize) {
        let now = self.start.elapsed();
        let result = self.slots[index]
            .connected(now)
            .and_then(|handshake| self.watch_handshake(index, handshake));
        match result {
            Ok(Handshake::ToRead | Handshake::ToWrite) => {}
            Ok(Handshake::Done) => {
                self.connecting -= 1;
                self.release(index, now);
            }
            Err(error) => self.connect_failed(index, now, &error),
        }
    }

    /// Closes a connection and opens it again at once.
    pub(super) fn reconnect(&mut self, index: usize) {
        let now = self.start.elapsed();
        self.slots[index].disconnect(now);
        if now < self.end && index < self.staffed {
            self.open(index, now);
        }
    }

    fn expire_connects(&mut self, now: Duration) {
        for index in 0..self.slots.len() {
            if let State::Connecting { since } = self.slots[index].state
                && now.saturating_sub(since) > CONNECT_TIMEOUT
            {
                let error = self.slots[index].overdue();
                self.connect_failed(index, now, &error);
            }
        }
    }

    /// Finds what no event tells: answers that never come, lost connections.
    pub(super) fn scan(&mut self, now: Duration) {
        self.next_scan = now + SCAN_EVERY;
        self.expire_connects(now);
        if now < self.end {
            let users = self.users_up();
            self.tally.series.at(now).users = u64::try_from(users).unwrap_or(u64::MAX);
        }
        for index in 0..self.slots.len() {
            match self.slots[index].state {
                State::Busy { sent } if now.saturating_sub(sent) > self.orders.timeout => {
                    self.tally.errors.timeout += 1;
                    self.tally.last_error =
                        Some(format!("no answer within {:?}", self.orders.timeout));
                    self.abandon(index, now, Lost::Timeout);
                }
                State::Down { retry_at }
                    if retry_at <= now
                        && now < self.end
                        && index < self.staffed
                        && self.connecting < CONNECTING_MAX =>
                {
                    self.open(index, now);
                }
                State::Busy { .. }
                | State::Down { .. }
                | State::Connecting { .. }
                | State::Idle { .. } => {}
            }
        }
    }
}
