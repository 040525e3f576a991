//! One client thread: an epoll loop over its connections.
//!
//! Owns: its slots, schedule, requests and tally.
//! Never: shares anything hot with another thread; `Live` takes relaxed counts.
//! Bound: its share of `--users` connections; `CONNECTING_MAX` opened at a time.
//! Invariant: a request leaves the schedule only when a connection is free for
//! it, and it is then counted exactly once: answered or as an error.
//!
//! No async runtime: at a few microseconds per request, wakers and timers cost
//! more than the work. One answer costs one read and one write.

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use crate::journal::{Lost, Recorder, Span};
use crate::request::Requests;
use crate::response::KeepBody;
use crate::schedule::Schedule;
use crate::slot::{Slot, State, Written};
use crate::stats::{Arrival, Class, Tally, Times};

/// Below any listen backlog: more at once could wait a second for a SYN retry.
/// The one task of a run.
const TASK: usize = 0;
const CONNECTING_MAX: usize = 64;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const RECONNECT_AFTER: Duration = Duration::from_millis(100);
/// How often timeouts and lost connections are looked for.
const SCAN_EVERY: Duration = Duration::from_millis(100);
const READ_BUFFER_BYTES: usize = 64 * 1024;
const EVENTS_MAX: usize = 256;
const TIMER_TOKEN: u64 = u64::MAX;

/// What a thread is told.
#[derive(Clone, Debug)]
pub(crate) struct Orders {
    pub(crate) address: SocketAddr,
    pub(crate) users: u32,
    pub(crate) run_time: Duration,
    pub(crate) timeout: Duration,
    /// The task's name.
    pub(crate) task: String,
    pub(crate) keep: KeepBody,
    /// None is the closed model.
    pub(crate) schedule: Option<Schedule>,
}

/// Counts that the progress line reads while the run goes on.
#[derive(Debug, Default)]
#[repr(align(128))] // A cache line pair of its own: no thread slows another.
pub(crate) struct Live {
    pub(crate) responses: AtomicU64,
    pub(crate) successes: AtomicU64,
    pub(crate) errors: AtomicU64,
}

/// A client thread with its connections open.
#[derive(Debug)]
pub(crate) struct Worker<'a> {
    orders: Orders,
    requests: Requests,
    slots: Vec<Slot>,
    /// Slots that may send, longest idle first; may name one that went down.
    idle: VecDeque<usize>,
    busy: usize,
    epoll: OwnedFd,
    /// epoll's own timeout is in milliseconds, too coarse for arrival times.
    timer: OwnedFd,
    read_buffer: Vec<u8>,
    start: Instant,
    next_scan: Duration,
    tally: Tally,
    recorder: Recorder,
    /// The transfers in flight on each slot.
    spans: Vec<Span>,
    live: &'a Live,
}

impl<'a> Worker<'a> {
    /// Opens the connections; those that fail are counted and tried again later.
    pub(crate) fn connect(
        orders: Orders,
        requests: Requests,
        recorder: Recorder,
        live: &'a Live,
    ) -> std::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        let token = epoll::EventData::new_u64(TIMER_TOKEN);
        epoll::add(&epoll, &timer, token, epoll::EventFlags::IN)?;
        let slots: Vec<_> = (0..orders.users).map(|_| Slot::new(orders.keep)).collect();
        let task = orders.task.clone();
        let spans = vec![Span::default(); slots.len()];
        let mut worker = Self {
            orders,
            requests,
            recorder,
            spans,
            slots,
            idle: VecDeque::new(),
            busy: 0,
            epoll,
            timer,
            read_buffer: vec![0; READ_BUFFER_BYTES],
            start: Instant::now(),
            next_scan: Duration::ZERO,
            tally: Tally::new([task]),
            live,
        };
        worker.open_all()?;
        Ok(worker)
    }

    /// Connections that are open.
    pub(crate) fn connected(&self) -> usize {
        self.idle.len()
    }

    pub(crate) fn last_error(&self) -> Option<&str> {
        self.tally.last_error.as_deref()
    }

    fn open_all(&mut self) -> std::io::Result<()> {
        let mut unopened = 0..self.slots.len();
        loop {
            let now = self.start.elapsed();
            self.expire_connects(now);
            let mut connecting = self.connecting();
            while connecting < CONNECTING_MAX
                && let Some(index) = unopened.next()
            {
                self.open(index, now);
                connecting = self.connecting();
            }
            if connecting == 0 && unopened.is_empty() {
                return Ok(());
            }
            self.wait(now, None)?;
        }
    }

    fn connecting(&self) -> usize {
        let connecting = |slot: &&Slot| matches!(slot.state, State::Connecting { .. });
        self.slots.iter().filter(connecting).count()
    }

    fn open(&mut self, index: usize, now: Duration) {
        let result = self.slots[index]
            .connect(self.orders.address, now)
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

    fn watch(&self, index: usize, flags: epoll::EventFlags) -> std::io::Result<()> {
        let token = epoll::EventData::new_u64(u64::try_from(index).unwrap_or(TIMER_TOKEN));
        epoll::modify(&self.epoll, self.slots[index].fd()?, token, flags)?;
        Ok(())
    }

    fn connect_failed(&mut self, index: usize, now: Duration, error: &std::io::Error) {
        self.tally.errors.connect += 1;
        self.live.errors.fetch_add(1, Ordering::Relaxed);
        self.tally.last_error = Some(format!("connect: {error}"));
        self.slots[index].disconnect(now + RECONNECT_AFTER);
    }

    /// Runs until `--run-time` after `start` and every answer is in or timed out.
    pub(crate) fn run(mut self, start: Instant) -> std::io::Result<Tally> {
        self.start = start;
        let end = self.orders.run_time;
        loop {
            let now = self.start.elapsed();
            self.dispatch(now);
            if now >= self.next_scan {
                self.scan(now);
                self.recorder.flush(now)?;
            }
            if now >= end && self.busy == 0 {
                break;
            }
            // With no free connection, or after the end, only an answer can matter.
            let wake_at = if self.idle.is_empty() || now >= end {
                None
            } else {
                self.orders.schedule.as_ref().and_then(Schedule::next_at)
            };
            self.wait(now, wake_at)?;
        }
        if let Some(schedule) = &self.orders.schedule {
            self.tally.unsent = schedule.remaining();
        }
        Ok(self.tally)
    }

    /// Sends on every free connection what is due.
    fn dispatch(&mut self, now: Duration) {
        if now >= self.orders.run_time {
            return;
        }
        while let Some(index) = self.idle.front().copied() {
            if self.slots[index].state != State::Idle {
                self.idle.pop_front();
                continue;
            }
            let intended = match &mut self.orders.schedule {
                None => now,
                Some(schedule) => match schedule.take_due(now) {
                    Some(intended) => intended,
                    None => return,
                },
            };
            self.idle.pop_front();
            self.requests.write_next(&mut self.slots[index].out);
            let (first, planned) = self.requests.planned();
            self.spans[index] = self.recorder.sent(now, first, planned);
            self.tally.send(TASK, now);
            self.busy += 1;
            let sent = self.slots[index].send(intended, now);
            if let Err(error) = self.after_write(index, sent, Written::All) {
                self.fail_io(index, now, &error);
            }
        }
    }

    /// Watches for room to write exactly while something is left to write.
    fn after_write(
        &self,
        index: usize,
        result: std::io::Result<Written>,
        before: Written,
    ) -> std::io::Result<()> {
        let flags = match (result?, before) {
            (Written::All, Written::All) | (Written::Part, Written::Part) => return Ok(()),
            (Written::Part, Written::All) => epoll::EventFlags::IN | epoll::EventFlags::OUT,
            (Written::All, Written::Part) => epoll::EventFlags::IN,
        };
        self.watch(index, flags)
    }

    /// Waits for events, at most until the next scan or `wake_at`.
    fn wait(&mut self, now: Duration, wake_at: Option<Duration>) -> std::io::Result<()> {
        let mut timeout = Timespec::try_from(SCAN_EVERY).unwrap_or(Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        });
        if let Some(at) = wake_at {
            match Timespec::try_from(at.saturating_sub(now)) {
                Ok(delay) if delay.tv_sec > 0 || delay.tv_nsec > 0 => self.arm(delay)?,
                Ok(_) | Err(_) => timeout.tv_nsec = 0,
            }
        }
        let mut space = [MaybeUninit::<epoll::Event>::uninit(); EVENTS_MAX];
        let events = match epoll::wait(&self.epoll, &mut space, Some(&timeout)) {
            Ok((events, _)) => events,
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for event in events {
            let (token, flags) = (event.data.u64(), event.flags);
            if token == TIMER_TOKEN {
                self.read_timer()?;
            } else if let Ok(index) = usize::try_from(token) {
                self.on_event(index, flags);
            }
        }
        Ok(())
    }

    fn arm(&self, delay: Timespec) -> std::io::Result<()> {
        let never = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let once = Itimerspec {
            it_interval: never,
            it_value: delay,
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    fn read_timer(&self) -> std::io::Result<()> {
        let mut count = [0_u8; 8];
        match rustix::io::read(&self.timer, &mut count) {
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn on_event(&mut self, index: usize, flags: epoll::EventFlags) {
        match self.slots[index].state {
            // An event of a connection that was dropped in this same round.
            State::Down { .. } => {}
            State::Connecting { .. } => {
                let now = self.start.elapsed();
                let result = self.slots[index]
                    .connected()
                    .and_then(|()| self.watch(index, epoll::EventFlags::IN));
                match result {
                    Ok(()) => self.idle.push_back(index),
                    Err(error) => self.connect_failed(index, now, &error),
                }
            }
            State::Idle => self.read_idle(index),
            State::Busy { intended, sent } => {
                if flags.contains(epoll::EventFlags::OUT) {
                    let result = self.slots[index].write_rest();
                    if let Err(error) = self.after_write(index, result, Written::Part) {
                        self.fail_io(index, self.start.elapsed(), &error);
                        return;
                    }
                }
                self.read_answer(index, intended, sent);
            }
        }
    }

    /// Nothing may come on an idle connection but its end.
    fn read_idle(&mut self, index: usize) {
        match self.slots[index].read(&mut self.read_buffer) {
            Ok(None) => {}
            Ok(Some(0)) | Err(_) => self.reconnect(index),
            Ok(Some(_)) => {
                self.tally.errors.protocol += 1;
                self.live.errors.fetch_add(1, Ordering::Relaxed);
                self.tally.last_error = Some("bytes that answer no request".to_owned());
                self.reconnect(index);
            }
        }
    }

    fn reconnect(&mut self, index: usize) {
        let now = self.start.elapsed();
        self.tally.reconnects += 1;
        self.slots[index].disconnect(now);
        self.open(index, now);
    }

    fn read_answer(&mut self, index: usize, intended: Duration, sent: Duration) {
        let slot = &mut self.slots[index];
        let count = match slot.read(&mut self.read_buffer) {
            Ok(None) => return,
            Ok(Some(0)) => {
                let error = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                return self.fail_io(index, self.start.elapsed(), &error);
            }
            Ok(Some(count)) => count,
            Err(error) => return self.fail_io(index, self.start.elapsed(), &error),
        };
        let response = match slot.parser.feed(&self.read_buffer[..count]) {
            Ok(None) => return,
            Ok(Some(response)) => response,
            Err(error) => {
                self.tally.errors.protocol += 1;
                self.tally.last_error = Some(error.to_string());
                return self.abandon(index, self.start.elapsed(), Lost::Protocol);
            }
        };
        let now = self.start.elapsed();
        self.recorder.answered(now, self.spans[index], &response);
        let class = Class::of(response.status);
        let arrival = if now < self.orders.run_time {
            Arrival::InWindow
        } else {
            Arrival::Late
        };
        let transfers = self.requests.transfers_per_request();
        self.tally.record(&response, transfers, arrival);
        let times = Times {
            intended,
            sent,
            answered: now,
        };
        self.tally.time(TASK, class, times);
        self.live.responses.fetch_add(1, Ordering::Relaxed);
        if class == Class::Success {
            self.live.successes.fetch_add(1, Ordering::Relaxed);
        }
        let close = response.close;
        self.busy -= 1;
        if close {
            self.reconnect(index);
        } else {
            slot.state = State::Idle;
            self.idle.push_back(index);
        }
        self.dispatch(now);
    }

    fn fail_io(&mut self, index: usize, now: Duration, error: &std::io::Error) {
        self.tally.errors.io += 1;
        self.tally.last_error = Some(error.to_string());
        self.abandon(index, now, Lost::Io);
    }

    /// Gives up the request in flight, whose error was counted.
    fn abandon(&mut self, index: usize, now: Duration, lost: Lost) {
        self.busy -= 1;
        self.recorder.unanswered(now, self.spans[index], lost);
        self.tally.give_up(TASK, now);
        self.live.errors.fetch_add(1, Ordering::Relaxed);
        self.slots[index].disconnect(now + RECONNECT_AFTER);
    }

    fn expire_connects(&mut self, now: Duration) {
        for index in 0..self.slots.len() {
            if let State::Connecting { since } = self.slots[index].state
                && now.saturating_sub(since) > CONNECT_TIMEOUT
            {
                let error = std::io::Error::from(std::io::ErrorKind::TimedOut);
                self.connect_failed(index, now, &error);
            }
        }
    }

    /// Finds what no event tells: answers that never come, lost connections.
    fn scan(&mut self, now: Duration) {
        self.next_scan = now + SCAN_EVERY;
        self.expire_connects(now);
        if now < self.orders.run_time {
            let up = |slot: &&Slot| matches!(slot.state, State::Idle | State::Busy { .. });
            let users = self.slots.iter().filter(up).count();
            self.tally.series.at(now).users = u64::try_from(users).unwrap_or(u64::MAX);
        }
        let mut connecting = self.connecting();
        for index in 0..self.slots.len() {
            match self.slots[index].state {
                State::Busy { sent, .. } if now.saturating_sub(sent) > self.orders.timeout => {
                    self.tally.errors.timeout += 1;
                    self.tally.last_error =
                        Some(format!("no answer within {:?}", self.orders.timeout));
                    self.abandon(index, now, Lost::Timeout);
                }
                State::Down { retry_at }
                    if retry_at <= now
                        && now < self.orders.run_time
                        && connecting < CONNECTING_MAX =>
                {
                    self.tally.reconnects += 1;
                    self.open(index, now);
                    connecting += 1;
                }
                State::Busy { .. }
                | State::Down { .. }
                | State::Connecting { .. }
                | State::Idle => {}
            }
        }
    }
}
