//! Who is running, and how everything stops.
//!
//! Owns: the shutdown signal, and every task of the main runtime by name.
//! Never: restarts a task. A panic means that an invariant broke; with money a
//! fresh process that resolves its unknown outcomes is the safe way on.
//! Bound: [`Supervisor::finish`] waits its limit, then ends what is left.
//! Invariant: a task that panics, or a service that ends before it was asked
//! to, stops the whole engine with exit code 1.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use hashbrown::HashMap;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::telemetry::panic_message;

/// Spawns tasks and stops them. Clones share everything.
#[derive(Clone, Debug)]
pub struct Supervisor {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    shutdown: watch::Sender<bool>,
    /// Whether anything went wrong; never reset.
    failed: AtomicBool,
    panics: AtomicU64,
    /// Written when a task starts or ends; read by `finish`.
    tasks: Mutex<Tasks>,
    /// How many tasks run; lets `finish` wait without polling.
    running: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Tasks {
    next_id: u64,
    by_id: HashMap<u64, Task>,
}

#[derive(Debug)]
struct Task {
    name: &'static str,
    /// Absent between registering and spawning, and if the caller polls it.
    abort: Option<AbortHandle>,
}

/// How a stopped engine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Whether a task panicked, or a service ended early.
    pub failed: bool,
    /// Tasks that did not stop in time and were ended, by name.
    pub ended: Vec<&'static str>,
}

impl Finished {
    /// 0 after a clean stop, 1 otherwise.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        u8::from(self.failed || !self.ended.is_empty())
    }
}

/// Tells a task to stop. Clones wait for the same signal.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// Returns once the engine is stopping.
    pub async fn requested(&mut self) {
        // An error means that the supervisor is gone, which is a stop as well.
        match self.0.wait_for(|stop| *stop).await {
            Ok(_) | Err(_) => {}
        }
    }

    /// Whether the engine is stopping.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

/// What a task promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promise {
    /// To end some time.
    Ends,
    /// To run until shutdown.
    Runs,
}

impl Supervisor {
    /// With nothing to supervise yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                shutdown: watch::Sender::new(false),
                failed: AtomicBool::new(false),
                panics: AtomicU64::new(0),
                tasks: Mutex::new(Tasks::default()),
                running: watch::Sender::new(0),
            }),
        }
    }

    /// The signal that tasks stop on.
    #[must_use]
    pub fn shutdown(&self) -> Shutdown {
        Shutdown(self.shared.shutdown.subscribe())
    }

    /// Asks everything to stop. Repeating it changes nothing.
    pub fn stop(&self) {
        self.shared.shutdown.send_replace(true);
    }

    /// Runs a task that may end at any time, such as a connection. It must
    /// stop on [`Supervisor::shutdown`] by itself.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.launch(name, Promise::Ends, task);
    }

    /// Like [`Supervisor::spawn`] for a task that the caller polls itself, and
    /// drops after [`Supervisor::finish`].
    pub fn attend(
        &self,
        name: &'static str,
        task: impl Future<Output = ()>,
    ) -> impl Future<Output = ()> {
        Registration::new(&self.shared, name).watch(name, Promise::Ends, task)
    }

    /// Runs a task that must last until shutdown, such as a monitor; its end
    /// before that stops the engine. It must stop on shutdown by itself.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn_service(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.launch(name, Promise::Runs, task);
    }

    /// Like [`Supervisor::spawn_service`] for a loop that holds nothing worth
    /// finishing: it is dropped at its next await when shutdown comes.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn_loop(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let mut shutdown = self.shutdown();
        self.spawn_service(name, async move {
            tokio::select! {
                () = shutdown.requested() => {}
                () = task => {}
            }
        });
    }

    /// Names of what runs, sorted, with repeats.
    #[must_use]
    pub fn running(&self) -> Vec<&'static str> {
        self.shared.names()
    }

    /// Tasks that panicked so far, for the metric of that name.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.shared.panics.load(Ordering::Relaxed)
    }

    /// Waits until every task has ended, at most `limit`, then ends the rest.
    /// Call [`Supervisor::stop`] first, or await the signal.
    pub async fn finish(&self, limit: Duration) -> Finished {
        let mut running = self.shared.running.subscribe();
        let all_ended = running.wait_for(|count| *count == 0);
        let ended = match tokio::time::timeout(limit, all_ended).await {
            Ok(_) => Vec::new(),
            Err(_elapsed) => self.shared.abort_all(),
        };
        if !ended.is_empty() {
            tracing::error!(tasks = ?ended, "tasks did not stop in time and were ended");
        }
        Finished {
            failed: self.shared.failed.load(Ordering::Acquire),
            ended,
        }
    }

    fn launch(
        &self,
        name: &'static str,
        promise: Promise,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let registration = Registration::new(&self.shared, name);
        let id = registration.id;
        let handle = tokio::spawn(registration.watch(name, promise, task));
        if let Some(task) = self.shared.tasks().by_id.get_mut(&id) {
            task.abort = Some(handle.abort_handle());
        }
    }
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new()
    }
}

impl Shared {
    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn names(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.tasks().by_id.values().map(|task| task.name).collect();
        names.sort_unstable();
        names
    }

    fn abort_all(&self) -> Vec<&'static str> {
        let names = self.names();
        // Handles are taken out first: aborting may drop the future here and
        // now, and its registration takes the lock.
        let handles: Vec<_> = self
            .tasks()
            .by_id
            .values()
            .filter_map(|task| task.abort.clone())
            .collect();
        for handle in handles {
            handle.abort();
        }
        names
    }

    fn judge(&self, task: &'static str, promise: Promise, result: Result<(), Box<dyn Any + Send>>) {
        let stopping = *self.shutdown.borrow();
        match (result, promise) {
            (Err(panic), Promise::Ends | Promise::Runs) => {
                self.panics.fetch_add(1, Ordering::Relaxed);
                let panic = panic_message(panic.as_ref());
                tracing::error!(task, panic, "task panicked; the engine stops");
            }
            (Ok(()), Promise::Runs) if !stopping => {
                tracing::error!(
                    task,
                    "service ended before it was asked to; the engine stops"
                );
            }
            (Ok(()), Promise::Ends | Promise::Runs) => return,
        }
        self.failed.store(true, Ordering::Release);
        self.shutdown.send_replace(true);
    }
}

/// Takes its task off the list however it ends: returned, panicked or aborted.
struct Registration {
    shared: Arc<Shared>,
    id: u64,
}

impl Registration {
    fn new(shared: &Arc<Shared>, name: &'static str) -> Self {
        let mut tasks = shared.tasks();
        let id = tasks.next_id;
        // At a million tasks a second an id lasts half a million years.
        tasks.next_id = tasks.next_id.wrapping_add(1);
        tasks.by_id.insert(id, Task { name, abort: None });
        shared.running.send_replace(tasks.by_id.len());
        drop(tasks);
        Self {
            shared: Arc::clone(shared),
            id,
        }
    }

    /// The task, judged when it ends.
    async fn watch(self, name: &'static str, promise: Promise, task: impl Future<Output = ()>) {
        let result = AssertUnwindSafe(task).catch_unwind().await;
        self.shared.judge(name, promise, result);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut tasks = self.shared.tasks();
        tasks.by_id.remove(&self.id);
        self.shared.running.send_replace(tasks.by_id.len());
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn clean() -> Finished {
        Finished {
            failed: false,
            ended: Vec::new(),
        }
    }

    #[tokio::test]
    async fn tasks_stop_on_the_signal_and_are_awaited() {
        let supervisor = Supervisor::new();
        let (done_tx, done) = oneshot::channel();
        let mut shutdown = supervisor.shutdown();
        assert!(!shutdown.is_requested());
        supervisor.spawn_service("committer", async move {
            shutdown.requested().await;
            tokio::task::yield_now().await;
            done_tx.send(()).unwrap();
        });
        supervisor.spawn_loop("monitor", std::future::pending());
        supervisor.spawn("connection", async {});
        supervisor.stop();
        assert_eq!(supervisor.finish(LONG).await, clean());
        // Awaited: what the task did last is there already.
        done.await.unwrap();
        assert_eq!(supervisor.running(), [""; 0]);
        assert!(supervisor.shutdown().is_requested());
        assert_eq!(clean().exit_code(), 0);
    }

    #[tokio::test]
    async fn a_panic_stops_the_engine_with_exit_code_1() {
        for payload in ["plain", "formatted"] {
            let supervisor = Supervisor::new();
            supervisor.spawn_loop("bystander", std::future::pending());
            supervisor.spawn("culprit", async move {
                match payload {
                    "plain" => panic!("on purpose"),
                    _ => panic!("on purpose: {payload}"),
                }
            });
            supervisor.shutdown().requested().await;
            let finished = supervisor.finish(LONG).await;
            assert!(finished.failed && finished.ended.is_empty());
            assert_eq!((finished.exit_code(), supervisor.panics()), (1, 1));
        }
    }

    #[tokio::test]
    async fn a_task_polled_by_its_caller_is_judged_like_any_other() {
        let supervisor = Supervisor::new();
        let attended = supervisor.attend("committer", async { panic!("on purpose") });
        assert_eq!(supervisor.running(), ["committer"]);
        attended.await;
        supervisor.shutdown().requested().await;
        assert_eq!(supervisor.finish(LONG).await.exit_code(), 1);
        assert_eq!(supervisor.running(), [""; 0]);
    }

    #[tokio::test]
    async fn a_service_that_ends_early_stops_the_engine_and_a_task_does_not() {
        let supervisor = Supervisor::new();
        supervisor.spawn("connection", async {});
        assert_eq!(supervisor.finish(LONG).await, clean());
        assert!(!supervisor.shutdown().is_requested());
        supervisor.spawn_service("committer", async {});
        supervisor.shutdown().requested().await;
        assert_eq!(supervisor.finish(LONG).await.exit_code(), 1);
    }

    #[tokio::test]
    async fn a_task_that_does_not_stop_is_named_and_ended() {
        let supervisor = Supervisor::new();
        let (held, dropped) = oneshot::channel::<()>();
        supervisor.spawn("deaf", async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        assert_eq!(supervisor.running(), ["deaf"]);
        supervisor.stop();
        let finished = supervisor.finish(Duration::ZERO).await;
        assert_eq!(finished.ended, ["deaf"]);
        assert_eq!((finished.failed, finished.exit_code()), (false, 1));
        // What it held is released.
        dropped.await.unwrap_err();
        assert_eq!(supervisor.finish(LONG).await, clean());
    }

    #[tokio::test]
    async fn a_shutdown_signal_outlives_its_supervisor() {
        let supervisor = Supervisor::new();
        let mut shutdown = supervisor.shutdown();
        drop(supervisor);
        assert!(shutdown.is_requested());
        shutdown.requested().await;
    }
}
