//! One client thread: an epoll loop over its connections.
//!
//! Owns: its slots, schedule and tally, and what waits to be sent again.
//! Never: shares anything hot with another thread; it publishes a sheet of
//! counts a few times a second.
//! Bound: its share of the most users there ever are; as many requests waiting to be
//! sent again as `repeats` says in the open model, one per user in the closed model.
//! Invariant: a request leaves the schedule only when a connection is free for
//! it; each attempt is then counted exactly once, answered or as an error, and
//! each request ends exactly once.
//!
//! No async runtime: at a few microseconds per request, wakers and timers cost
//! more than the work. One answer costs one read and one write.

mod agenda;
mod answer;
mod connections;
mod pace;
mod repeats;
mod retry;

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::generator::Effort;
use crate::journal::Recorder;
use crate::live::{Board, Counted, Order, PUBLISH_EVERY, Sheet};
use crate::request::Requests;
use crate::rng::Rng;
use crate::schedule::{Schedule, Share};
use crate::slot::{Slot, State, Written};
use crate::stages::Stages;
use crate::stats::Tally;
use crate::tls::TlsClient;
use agenda::Agenda;
use pace::{Pace, Wait};
use repeats::Repeats;
use retry::Retry;

/// How often timeouts and lost connections are looked for.
const SCAN_EVERY: Duration = Duration::from_millis(100);
/// How long a thread may not look for orders: those come with a longer lead.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often users are added or taken away while their number changes.
const STAFF_EVERY: Duration = Duration::from_millis(10);
const READ_BUFFER_BYTES: usize = 64 * 1024;
const EVENTS_MAX: usize = 256;
const TIMER_TOKEN: u64 = u64::MAX;

/// What a thread is told.
#[derive(Clone, Debug)]
pub(crate) struct Orders {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<TlsClient>,
    /// The users of this thread, unless their number is changed: its requests are
    /// theirs in turn (open model).
    pub(crate) users: u32,
    /// Users, or connections in the open model, of all threads over time.
    pub(crate) staff: Stages,
    /// Its number on this machine.
    pub(crate) thread: u32,
    /// Its place among the threads of all machines.
    pub(crate) share: Share,
    pub(crate) run_time: Duration,
    pub(crate) timeout: Duration,
    pub(crate) retries_max: u32,
    pub(crate) seed: u64,
    pub(crate) tasks: Vec<String>,
    /// None is the closed model.
    pub(crate) schedule: Option<Schedule>,
}

/// A client thread with its connections open.
#[derive(Debug)]
pub(crate) struct Worker {
    orders: Orders,
    requests: Requests,
    recorder: Recorder,
    slots: Vec<Slot>,
    /// Slots that may send, longest idle first; may name one that went down.
    idle: VecDeque<usize>,
    /// Users who think or wait to send again (closed model).
    asleep: Agenda<usize>,
    /// Requests that wait to be sent again (open model).
    repeats: Repeats,
    retry: Retry,
    /// Slots that are to be opened as soon as few enough are connecting.
    to_open: VecDeque<usize>,
    connecting: usize,
    /// Slots before this one take part just now.
    staffed: usize,
    busy: usize,
    epoll: OwnedFd,
    pace: Pace,
    read_buffer: Vec<u8>,
    start: Instant,
    /// When sending ends: the run time, or earlier if the run is stopped.
    end: Duration,
    next_scan: Duration,
    next_publish: Duration,
    /// None once the number of users changes no more.
    next_staff: Option<Duration>,
    tally: Tally,
    effort: Effort,
    board: Arc<Board>,
    /// How many orders of the board were obeyed.
    obeyed: usize,
    /// The last request for a copy of the counts that was answered.
    copied: u64,
}

impl Worker {
    /// Opens the connections that take part from the start, and at least one on
    /// the first thread; those that fail are counted and tried again later.
    pub(crate) fn connect(
        orders: Orders,
        (requests, recorder): (Requests, Recorder),
        board: Arc<Board>,
    ) -> std::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let pace = Pace::new()?;
        let token = epoll::EventData::new_u64(TIMER_TOKEN);
        // Edge-triggered: an expiry is told once and need not be read.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, pace.fd(), token, flags)?;
        let slots = (0..orders.users).map(|_| Slot::new()).collect();
        // A stream of its own, far from those of users and arrivals.
        let rng = Rng::new(!orders.seed, orders.share.index);
        let mut worker = Self {
            requests,
            recorder,
            slots,
            idle: VecDeque::new(),
            asleep: Agenda::new(),
            repeats: Repeats::new(),
            retry: Retry::new(orders.retries_max, rng),
            to_open: VecDeque::new(),
            connecting: 0,
            staffed: 0,
            busy: 0,
            epoll,
            pace,
            read_buffer: vec![0; READ_BUFFER_BYTES],
            start: Instant::now(),
            end: orders.run_time,
            next_scan: Duration::ZERO,
            next_publish: Duration::ZERO,
            next_staff: Some(Duration::ZERO),
            tally: Tally::new(orders.tasks.iter().cloned()),
            effort: Effort::new(),
            board,
            obeyed: 0,
            copied: 0,
            orders,
        };
        worker.open_first()?;
        Ok(worker)
    }

    pub(crate) fn last_error(&self) -> Option<&str> {
        self.tally.last_error.as_deref()
    }

    /// Runs until sending ends and every answer is in or timed out.
    pub(crate) fn run(mut self, start: Instant) -> std::io::Result<(Tally, Effort)> {
        self.start = start;
        self.pace.begin(start.elapsed());
        self.effort.begin();
        loop {
            let now = self.start.elapsed();
            if now < self.end && self.board.is_stopped() {
                self.end = self.board.stopped_at(now);
            }
            self.obey();
            if self.next_staff.is_some_and(|at| at <= now) && now < self.end {
                self.staff(now);
            }
            self.dispatch(now);
            if now >= self.next_scan {
                self.scan(now);
                self.recorder.flush(now)?;
            }
            if now >= self.next_publish {
                self.publish(now);
            }
            if now >= self.end {
                self.effort.end(now);
                if self.busy == 0 {
                    break;
                }
            }
            let longest = match self.next_staff {
                Some(at) if now < self.end => at.saturating_sub(now).min(LOOK_EVERY),
                Some(_) | None => LOOK_EVERY,
            };
            self.wait(now, self.wake_at(now), longest)?;
        }
        self.give_up_waiting();
        if let Some(schedule) = &self.orders.schedule {
            self.tally.unsent = schedule.remaining(self.end);
        }
        self.publish(self.start.elapsed());
        Ok((self.tally, self.effort))
    }

    /// Takes the orders that came since the last look.
    fn obey(&mut self) {
        let end = self.orders.run_time;
        for order in self.board.orders_after(self.obeyed) {
            self.obeyed += 1;
            match order {
                Order::Users(change) => {
                    self.orders.staff = self.orders.staff.changed(change, end);
                    let next = self.next_staff.unwrap_or(change.at);
                    self.next_staff = Some(next.min(change.at));
                }
                Order::Rate(change) => {
                    if let Some(schedule) = &mut self.orders.schedule {
                        schedule.change(change, end);
                    }
                }
            }
        }
    }

    fn is_open_model(&self) -> bool {
        self.orders.schedule.is_some()
    }

    /// Sends on every free connection what is due.
    fn dispatch(&mut self, now: Duration) {
        if now >= self.end {
            return;
        }
        while let Some((due, index)) = self.asleep.pop_due(now) {
            let slot = &mut self.slots[index];
            if slot.asleep_until != Some(due) {
                continue;
            }
            slot.asleep_until = None;
            if let State::Idle { since } = slot.state {
                self.effort.lag(now.saturating_sub(due.max(since)));
                self.idle.push_back(index);
            }
        }
        while let Some(index) = self.idle.front().copied() {
            let State::Idle { since } = self.slots[index].state else {
                self.idle.pop_front();
                continue;
            };
            let sends = if self.is_open_model() {
                self.load_arrival(index, since, now)
            } else {
                self.load_user(index, now)
            };
            match sends {
                Load::Loaded => {
                    self.idle.pop_front();
                    self.send(index, now);
                }
                Load::NotThis => {
                    self.idle.pop_front();
                }
                Load::NothingDue => return,
            }
        }
    }

    /// Gives the connection what is due first: an arrival or a repeat.
    fn load_arrival(&mut self, index: usize, since: Duration, now: Duration) -> Load {
        let Some(schedule) = &mut self.orders.schedule else {
            return Load::NothingDue;
        };
        let arrival_at = schedule.next_at();
        let repeat_first = match (self.repeats.next_at(), arrival_at) {
            (Some(repeat), Some(arrival)) => repeat < arrival,
            (repeat, None) => repeat.is_some(),
            (None, Some(_)) => false,
        };
        let slot = &mut self.slots[index];
        if repeat_first {
            let Some(repeated) = self.repeats.pop_due(now) else {
                return Load::NothingDue;
            };
            slot.out = repeated.out;
            slot.parser.keep = repeated.flight.next.keep;
            slot.flight = Some(repeated.flight);
            slot.setback = Some(repeated.setback);
            return Load::Loaded;
        }
        let Some(due) = schedule.take_due(now) else {
            return Load::NothingDue;
        };
        self.effort.lag(now.saturating_sub(due.at.max(since)));
        // Whichever connection is free sends it, but the schedule decides whose
        // request it is: all users take turns, so that a seed replays.
        let user = usize::try_from(due.user).unwrap_or(0);
        slot.load(&mut self.requests, user, due.at);
        Load::Loaded
    }

    /// Lets the user send its next request, or its last one again.
    fn load_user(&mut self, index: usize, now: Duration) -> Load {
        let slot = &mut self.slots[index];
        if now < slot.due || self.staffed <= index {
            return Load::NotThis;
        }
        if slot.setback.is_some() {
            return Load::Loaded;
        }
        slot.load(&mut self.requests, index, now);
        Load::Loaded
    }

    fn send(&mut self, index: usize, now: Duration) {
        let slot = &mut self.slots[index];
        let Some(flight) = &mut slot.flight else {
            return;
        };
        if slot.setback.take().is_some() {
            flight.attempt += 1;
            self.tally.send_again(flight.next.task, now);
        } else {
            self.recorder
                .sent(now, flight.next.span, self.requests.planned());
            self.tally.send(flight.next.task, now);
        }
        self.busy += 1;
        let sent = slot.send(now);
        if let Err(error) = self.after_write(index, sent, Written::All) {
            self.fail_io(index, now, &error);
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

    /// When something will be due that a free connection could send.
    fn wake_at(&self, now: Duration) -> Option<Duration> {
        if now >= self.end {
            return None;
        }
        let Some(schedule) = &self.orders.schedule else {
            return self.asleep.next_at();
        };
        // With no free connection only an answer can matter.
        if self.idle.is_empty() {
            return None;
        }
        let ends = [schedule.next_at(), self.repeats.next_at()];
        ends.into_iter().flatten().min()
    }

    /// Waits for events, at most `longest` or until `wake_at`.
    fn wait(
        &mut self,
        now: Duration,
        wake_at: Option<Duration>,
        mut longest: Duration,
    ) -> std::io::Result<()> {
        if let Some(at) = wake_at
            && self.pace.wake_at(at, now)? == Wait::Poll
        {
            longest = Duration::ZERO;
        }
        let timeout = Timespec::try_from(longest).ok();
        let mut space = [MaybeUninit::<epoll::Event>::uninit(); EVENTS_MAX];
        let events = match epoll::wait(&self.epoll, &mut space, timeout.as_ref()) {
            Ok((events, _)) => events,
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for event in events {
            let (token, flags) = (event.data.u64(), event.flags);
            if token == TIMER_TOKEN {
                self.pace.fired(self.start.elapsed());
            } else if let Ok(index) = usize::try_from(token) {
                self.on_event(index, flags);
            }
        }
        Ok(())
    }

    /// Puts the counts where the live view finds them.
    fn publish(&mut self, now: Duration) {
        self.next_publish = now + PUBLISH_EVERY;
        let behind = self.orders.schedule.as_ref();
        let unsent = behind.map_or(0, |schedule| schedule.remaining(now.min(self.end)));
        let mut sheet = Sheet::new(&self.tally);
        sheet.users = u64::try_from(self.users_up()).unwrap_or(u64::MAX);
        sheet.unsent = unsent;
        self.board.publish(self.orders.thread, sheet);
        if let Some(request) = self.board.copy_wanted(self.copied) {
            self.copied = request;
            let mut copy = Counted {
                request,
                at: now,
                tally: self.tally.clone(),
                effort: self.effort.clone(),
            };
            copy.tally.unsent = unsent;
            copy.effort.end(now);
            self.board.give_copy(self.orders.thread, copy);
        }
    }
}

/// Whether a free connection got something to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    Loaded,
    /// Not this connection: its user thinks, or takes no part any more.
    NotThis,
    /// Nothing for any connection.
    NothingDue,
}
