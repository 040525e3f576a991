//! Who runs next: chance decides, by the seed.
//!
//! Owns: every task of a run, in groups that can be frozen (a stopped process)
//! or killed (a crash), and the choice among those that are ready.
//! Never: runs two things at once, or asks the operating system for anything.
//! Invariant: the order of polls depends on the seed alone.
//!
//! It runs inside a tokio runtime of one thread whose clock is paused: tokio's
//! timers then advance the time by themselves whenever nothing is ready.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use super::rng::Rng;
use super::trace::Trace;

/// A process of the simulated world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Group(pub(super) u64);

impl Group {
    /// Callers, faults, and the network.
    pub(super) const WORLD: Self = Self(0);
}

type TaskId = u64;
type Body = Pin<Box<dyn Future<Output = ()>>>;

struct Task {
    group: Group,
    /// Absent while it is polled.
    body: Option<Body>,
    ready: Arc<Ready>,
}

/// One task's waker.
struct Ready {
    id: TaskId,
    queued: AtomicBool,
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Queue {
    ready: Mutex<Vec<TaskId>>,
    outer: Mutex<Option<Waker>>,
}

impl Queue {
    fn ready(&self) -> std::sync::MutexGuard<'_, Vec<TaskId>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.queue.ready().push(self.id);
            let outer = self.queue.outer.lock();
            if let Some(outer) = &*outer.unwrap_or_else(PoisonError::into_inner) {
                outer.wake_by_ref();
            }
        }
    }
}

#[derive(Default)]
struct Tasks {
    all: BTreeMap<TaskId, Task>,
    next_id: TaskId,
    queue: Arc<Queue>,
    frozen: Vec<Group>,
    killed: Vec<Group>,
    trace: Trace,
    steps: u64,
}

thread_local! {
    static TASKS: RefCell<Tasks> = RefCell::default();
}

fn with<T>(act: impl FnOnce(&mut Tasks) -> T) -> T {
    TASKS.with_borrow_mut(act)
}

/// Starts a task; it never runs if its group was killed.
pub(super) fn spawn(group: Group, body: impl Future<Output = ()> + 'static) -> TaskId {
    let body: Body = Box::pin(body);
    let (id, ready, dead) = with(|tasks| {
        tasks.next_id += 1;
        let id = tasks.next_id;
        let ready = Arc::new(Ready {
            id,
            queued: AtomicBool::new(false),
            queue: Arc::clone(&tasks.queue),
        });
        if tasks.killed.contains(&group) {
            return (id, ready, Some(body));
        }
        let task = Task {
            group,
            body: Some(body),
            ready: Arc::clone(&ready),
        };
        tasks.all.insert(id, task);
        (id, ready, None)
    });
    // Dropped outside: its end may spawn or wake others.
    drop(dead);
    ready.wake();
    id
}

/// Ends one task where it stands.
pub(super) fn abort(id: TaskId) {
    let ended = with(|tasks| tasks.all.remove(&id));
    drop(ended);
}

/// Ends every task of the group where it stands, for good.
pub(super) fn kill(group: Group) {
    let ended: Vec<Task> = with(|tasks| {
        tasks.killed.push(group);
        let of_group = tasks.all.iter().filter(|(_, task)| task.group == group);
        let ids: Vec<TaskId> = of_group.map(|(id, _)| *id).collect();
        ids.iter().filter_map(|id| tasks.all.remove(id)).collect()
    });
    drop(ended);
}

/// Stops polling the group's tasks, as SIGSTOP does.
pub(super) fn freeze(group: Group) {
    with(|tasks| tasks.frozen.push(group));
}

/// Goes on with them.
pub(super) fn thaw(group: Group) {
    with(|tasks| {
        tasks.frozen.retain(|frozen| *frozen != group);
        let outer = tasks.queue.outer.lock();
        if let Some(outer) = &*outer.unwrap_or_else(PoisonError::into_inner) {
            outer.wake_by_ref();
        }
    });
}

pub(super) fn is_frozen(group: Group) -> bool {
    with(|tasks| tasks.frozen.contains(&group))
}

/// Adds something observable to the trace.
pub(super) fn trace(number: u64) {
    with(|tasks| tasks.trace.number(number));
}

pub(super) fn trace_bytes(bytes: &[u8]) {
    with(|tasks| tasks.trace.bytes(bytes));
}

/// How a run went, seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ran {
    /// Polls.
    pub(super) steps: u64,
    /// The hash of the trace.
    pub(super) trace: u64,
}

/// Polls what is ready, in an order by chance, until `over` says so.
///
/// `before` is called with the simulated milliseconds before each poll.
pub(super) async fn run(mut rng: Rng, mut before: impl FnMut(u64), over: impl Fn() -> bool) {
    let start = tokio::time::Instant::now();
    std::future::poll_fn(move |context| {
        with(|tasks| {
            let outer = tasks.queue.outer.lock();
            *outer.unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
        });
        // Those who yielded run again when the runtime has its turn: not only
        // once everybody else is done.
        while !over() {
            let Some(id) = choose(&mut rng) else {
                return Poll::Pending;
            };
            let now = start.elapsed().as_millis();
            let now = u64::try_from(now).unwrap_or(u64::MAX);
            before(now);
            poll(id, now);
            if rng.happens(150_000) {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    })
    .await;
}

/// Forgets every task, and says how it went.
pub(super) fn end() -> Ran {
    let (all, ran) = with(|tasks| {
        let ran = Ran {
            steps: tasks.steps,
            trace: tasks.trace.value(),
        };
        (std::mem::take(&mut tasks.all), ran)
    });
    drop(all);
    let rest = with(std::mem::take);
    drop(rest);
    ran
}

fn choose(rng: &mut Rng) -> Option<TaskId> {
    with(|tasks| {
        let mut ready = tasks.queue.ready();
        ready.retain(|id| tasks.all.contains_key(id));
        // Who is ready counts, not who was woken first: a `watch` channel wakes
        // its receivers in an order by chance that no seed decides.
        ready.sort_unstable();
        let thawed: Vec<usize> = (0..ready.len())
            .filter(|at| {
                let task = tasks.all.get(&ready[*at]);
                task.is_some_and(|task| !tasks.frozen.contains(&task.group))
            })
            .collect();
        if thawed.is_empty() {
            return None;
        }
        let at = thawed[rng.index(thawed.len())];
        Some(ready.swap_remove(at))
    })
}

fn poll(id: TaskId, now: u64) {
    let taken = with(|tasks| {
        tasks.steps += 1;
        tasks.trace.number(id);
        tasks.trace.number(now);
        let task = tasks.all.get_mut(&id)?;
        task.ready.queued.store(false, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&task.ready));
        Some((task.body.take()?, waker))
    });
    let Some((mut body, waker)) = taken else {
        return;
    };
    let mut context = Context::from_waker(&waker);
    let done = body.as_mut().poll(&mut context).is_ready();
    let dropped = with(|tasks| {
        if done {
            tasks.all.remove(&id);
            return Some(body);
        }
        match tasks.all.get_mut(&id) {
            Some(task) => {
                task.body = Some(body);
                None
            }
            // Killed meanwhile.
            None => Some(body),
        }
    });
    drop(dropped);
}
