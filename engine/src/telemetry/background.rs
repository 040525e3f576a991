//! A thread that writes lines, so that whoever has something to say goes on.
//!
//! Owns: the queue, the thread and the count of what was given up.
//! Never: makes the caller wait, whatever the output does.
//! Bound: `capacity` items; past it, an item is dropped and counted.
//! Invariant: every item offered before [`Background::stop`] is written,
//! counted as dropped, or left behind by a writer that did not stop in time.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use crossbeam::queue::ArrayQueue;
use metrics::Counter;

/// How items become lines.
pub(super) trait Format<T>: Send + 'static {
    /// Appends the item's line, with its newline.
    fn line(&mut self, item: &T, buffer: &mut Vec<u8>);

    /// Appends a line saying that `count` lines are missing here.
    fn dropped(&mut self, count: u64, buffer: &mut Vec<u8>);
}

/// When the writer learns of a new item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wake {
    /// At once: for rare items that matter.
    AtOnce,
    /// Within [`NAP`]: the caller is spared the system call that wakes a thread.
    Later,
}

/// Where counts go.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) written: Option<Counter>,
    pub(super) dropped: Counter,
}

/// Whether the writer had finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Everything is written.
    Flushed,
    /// The output is stuck; its thread is left behind.
    Stuck,
}

/// How long lines of a [`Wake::Later`] queue may wait. At 80,000 lines a
/// second 1,600 gather, a tenth of the default queue.
pub(super) const NAP: Duration = Duration::from_millis(20);

/// One write call takes about this much.
const WRITE_BYTES: usize = 64 * 1024;

/// The sending end.
pub(super) struct Background<T> {
    shared: Arc<Shared<T>>,
    writer: Thread,
    wake: Wake,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
}

struct Shared<T> {
    queue: ArrayQueue<T>,
    /// Dropped by callers, not yet reported by the writer.
    dropped: AtomicU64,
    stopping: AtomicBool,
}

impl<T: Send + 'static> Background<T> {
    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system refused a thread.
    pub(super) fn start(
        name: &str,
        capacity: usize,
        wake: Wake,
        format: impl Format<T>,
        out: Box<dyn Write + Send>,
        counters: Counters,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: ArrayQueue::new(capacity.max(1)),
            dropped: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
        });
        let (alive, ended) = bounded(0);
        let mut writer = Writer {
            shared: Arc::clone(&shared),
            wake,
            format,
            out,
            counters,
            buffer: Vec::with_capacity(WRITE_BYTES + 4096),
            lines: 0,
            _alive: alive,
        };
        let handle = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || writer.run())?;
        Ok(Self {
            shared,
            writer: handle.thread().clone(),
            wake,
            ended,
        })
    }

    /// Queues `item`, or drops and counts it. Never waits.
    pub(super) fn offer(&self, item: T) {
        if self.shared.queue.push(item).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
        match self.wake {
            Wake::AtOnce => self.writer.unpark(),
            Wake::Later => {}
        }
    }

    /// Has everything queued written, and waits for it at most `limit`.
    pub(super) fn stop(&self, limit: Duration) -> Stopped {
        self.shared.stopping.store(true, Ordering::Release);
        self.writer.unpark();
        match self.ended.recv_timeout(limit) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Stopped::Flushed,
            Err(RecvTimeoutError::Timeout) => Stopped::Stuck,
        }
    }
}

impl<T> fmt::Debug for Background<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Background")
            .field("queued", &self.shared.queue.len())
            .field("capacity", &self.shared.queue.capacity())
            .finish_non_exhaustive()
    }
}

struct Writer<T, F> {
    shared: Arc<Shared<T>>,
    wake: Wake,
    format: F,
    out: Box<dyn Write + Send>,
    counters: Counters,
    buffer: Vec<u8>,
    /// Lines in `buffer`.
    lines: u64,
    _alive: Sender<()>,
}

impl<T, F: Format<T>> Writer<T, F> {
    fn run(&mut self) {
        loop {
            // Read before the queue: what was offered before `stop` is then in it.
            let stopping = self.shared.stopping.load(Ordering::Acquire);
            self.round();
            if stopping {
                return;
            }
            if self.shared.queue.is_empty() {
                match self.wake {
                    Wake::AtOnce => thread::park(),
                    Wake::Later => thread::park_timeout(NAP),
                }
            }
        }
    }

    /// Writes what is queued, at most one queue full, so that a producer that
    /// never rests does not keep the dropped lines from being reported.
    fn round(&mut self) {
        for _ in 0..self.shared.queue.capacity() {
            let Some(item) = self.shared.queue.pop() else {
                break;
            };
            self.format.line(&item, &mut self.buffer);
            self.lines = self.lines.saturating_add(1);
            if WRITE_BYTES <= self.buffer.len() {
                self.write_out();
            }
        }
        let dropped = self.shared.dropped.swap(0, Ordering::Relaxed);
        if 0 < dropped {
            self.counters.dropped.increment(dropped);
            self.format.dropped(dropped, &mut self.buffer);
        }
        self.write_out();
    }

    fn write_out(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let written = self
            .out
            .write_all(&self.buffer)
            .and_then(|()| self.out.flush());
        match (written, &self.counters.written) {
            (Ok(()), Some(counter)) => counter.increment(self.lines),
            (Ok(()), None) => {}
            // A closed pipe or a full disk: there is nobody to tell but the counter.
            (Err(_), _) => self.counters.dropped.increment(self.lines),
        }
        self.buffer.clear();
        self.lines = 0;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Mutex;

    use super::*;

    /// An output that says when it is first written to, then waits for a gate.
    pub(in crate::telemetry) struct Gated {
        pub(in crate::telemetry) entered: Option<Sender<()>>,
        pub(in crate::telemetry) gate: Receiver<()>,
        pub(in crate::telemetry) written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(entered) = self.entered.take() {
                entered.send(()).unwrap();
                // Disconnecting opens the gate for good.
                self.gate.recv().unwrap_or(());
            }
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Numbers;

    impl Format<u32> for Numbers {
        fn line(&mut self, item: &u32, buffer: &mut Vec<u8>) {
            writeln!(buffer, "{item}").unwrap();
        }

        fn dropped(&mut self, count: u64, buffer: &mut Vec<u8>) {
            writeln!(buffer, "dropped {count}").unwrap();
        }
    }

    #[derive(Default)]
    pub(in crate::telemetry) struct Count(AtomicU64);

    impl Count {
        pub(in crate::telemetry) fn get(&self) -> u64 {
            self.0.load(Ordering::SeqCst)
        }
    }

    impl metrics::CounterFn for Count {
        fn increment(&self, value: u64) {
            self.0.fetch_add(value, Ordering::SeqCst);
        }

        fn absolute(&self, value: u64) {
            self.0.fetch_max(value, Ordering::SeqCst);
        }
    }

    pub(in crate::telemetry) fn counters() -> (Counters, Arc<Count>, Arc<Count>) {
        let (written, dropped) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let counters = Counters {
            written: Some(Counter::from_arc(Arc::clone(&written))),
            dropped: Counter::from_arc(Arc::clone(&dropped)),
        };
        (counters, written, dropped)
    }

    const LONG: Duration = Duration::from_secs(60);

    /// With the writer stuck on item 0: `extra` items past what the queue holds.
    #[track_caller]
    fn check(wake: Wake, extra: u32) {
        const CAPACITY: u32 = 8;
        let (entered_tx, entered) = bounded(1);
        let (open, gate) = bounded(0);
        let text = Arc::new(Mutex::new(Vec::new()));
        let out = Gated {
            entered: Some(entered_tx),
            gate,
            written: Arc::clone(&text),
        };
        let (counters, written, dropped) = counters();
        let background =
            Background::start("test", 8, wake, Numbers, Box::new(out), counters).unwrap();
        background.offer(0);
        entered.recv().unwrap();
        for item in 1..=CAPACITY + extra {
            background.offer(item);
        }
        // The output is stuck, and yet this line is reached.
        assert_eq!(background.stop(Duration::ZERO), Stopped::Stuck);
        drop(open);
        assert_eq!(background.stop(LONG), Stopped::Flushed);

        let mut expected: String = (0..=CAPACITY).map(|item| format!("{item}\n")).collect();
        if 0 < extra {
            expected.push_str(&format!("dropped {extra}\n"));
        }
        assert_eq!(
            String::from_utf8(text.lock().unwrap().clone()).unwrap(),
            expected
        );
        assert_eq!(written.get(), u64::from(CAPACITY) + 1);
        assert_eq!(dropped.get(), u64::from(extra));
    }

    #[test]
    fn a_full_queue_is_written_and_nothing_is_dropped() {
        check(Wake::Later, 0);
        check(Wake::AtOnce, 0);
    }

    #[test]
    fn past_a_full_queue_items_are_dropped_counted_and_reported() {
        check(Wake::Later, 1);
        check(Wake::AtOnce, 100);
    }

    #[test]
    fn a_broken_output_counts_its_lines_as_dropped() {
        let (counters, written, dropped) = counters();
        let background =
            Background::start("test", 8, Wake::AtOnce, Numbers, Box::new(Broken), counters)
                .unwrap();
        background.offer(1);
        background.offer(2);
        assert_eq!(background.stop(LONG), Stopped::Flushed);
        assert_eq!((written.get(), dropped.get()), (0, 2));
    }

    #[test]
    fn a_stop_flushes_what_was_just_offered() {
        for _ in 0..100 {
            let (counters, written, _) = counters();
            let background = Background::start(
                "test",
                8,
                Wake::Later,
                Numbers,
                Box::new(io::sink()),
                counters,
            )
            .unwrap();
            background.offer(1);
            assert_eq!(background.stop(LONG), Stopped::Flushed);
            assert_eq!(written.get(), 1);
        }
    }
}
