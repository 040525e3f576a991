//! Whether a connection is worth its place.
//!
//! Owns: the counts by which the one who watches a connection tells a working
//! one from an idle one, and an idle one from one that sends its header byte by
//! byte. Counting instead of arming a timer for every request: the watcher wakes
//! some times a minute, requests come by the thousand.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::answers::Held;

/// Written by the connection's socket and requests, read by its watcher; lives
/// as long as the connection.
#[derive(Debug, Default)]
pub(super) struct Activity {
    requests: AtomicU64,
    in_flight: AtomicUsize,
    /// Bytes came since the last request began or ended.
    heard: AtomicBool,
    /// The client may be sending what nobody will read.
    lingers: AtomicBool,
    /// Told with `lingers`, which a stop brings about with every answer.
    answered_last: Notify,
    /// An answer waits for the client to read.
    blocked: AtomicBool,
    /// The client read some of it since the watcher last looked.
    drained: AtomicBool,
    /// It is HTTP/2: what comes and goes may be a PING, or another stream's.
    multiplexed: AtomicBool,
    /// Bytes of large answers that the client has not read yet, or that are being
    /// worked on.
    pub(super) unread: Held,
    /// Large answers that the client has not read yet.
    waiting: AtomicUsize,
    /// A slice of one of them left since the watcher last looked.
    moved: AtomicBool,
}

impl Activity {
    pub(super) fn heard(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    pub(super) fn must_linger(&self) {
        self.lingers.store(true, Ordering::Relaxed);
        self.answered_last.notify_one();
    }

    /// Until a request has been made, at once if one was before; during a stop only.
    pub(super) async fn asked_something(&self) {
        if self.requests.load(Ordering::Relaxed) == 0 {
            self.answered_last.notified().await;
        }
    }

    /// Whether a request, or a part of one, is here and not answered.
    pub(super) fn is_hearing(&self) -> bool {
        self.heard.load(Ordering::Relaxed) || 0 < self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether no request is here, and no large answer that is not read.
    pub(super) fn owes_nothing(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) == 0 && self.waiting.load(Ordering::Relaxed) == 0
    }

    /// Bytes of an answer left.
    pub(super) fn written(&self) {
        self.blocked.store(false, Ordering::Relaxed);
        self.drained.store(true, Ordering::Relaxed);
    }

    /// None left, for the client does not read.
    pub(super) fn cannot_write(&self) {
        self.blocked.store(true, Ordering::Relaxed);
    }

    /// A large answer is ready to be read.
    pub(super) fn answer_waits(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// It was, or was given up.
    pub(super) fn answer_is_gone(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// A slice of a large answer left.
    pub(super) fn moved(&self) {
        self.moved.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_multiplexed(&self) {
        self.multiplexed.store(true, Ordering::Relaxed);
    }

    pub(super) fn lingers(&self) -> bool {
        self.lingers.load(Ordering::Relaxed)
    }

    pub(super) fn request_begins(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.heard.store(false, Ordering::Relaxed);
    }

    pub(super) fn request_ends(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.heard.store(false, Ordering::Relaxed);
    }
}

/// How long a connection may be quiet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// In the middle of a header.
    pub(super) header: Duration,
    /// Between requests.
    pub(super) idle: Duration,
    /// While the client reads nothing of an answer that waits for it: no byte of the
    /// socket's, or of HTTP/2 no slice of a large one.
    pub(super) write: Duration,
}

impl Patience {
    /// How often to look: the shorter limit is kept to within a third of it.
    pub(super) fn look_every(self) -> Duration {
        (self.header.min(self.idle).min(self.write) / 3).max(Duration::from_millis(1))
    }
}

/// Looks at one connection from time to time.
#[derive(Debug)]
pub(super) struct Watcher {
    patience: Patience,
    requests: u64,
    quiet: Duration,
    unread: Duration,
}

impl Watcher {
    pub(super) fn new(patience: Patience) -> Self {
        Self {
            patience,
            requests: 0,
            quiet: Duration::ZERO,
            unread: Duration::ZERO,
        }
    }

    /// Whether to close it, `passed` after the last look.
    pub(super) fn has_enough(&mut self, activity: &Activity, passed: Duration) -> bool {
        let multiplexed = activity.multiplexed.load(Ordering::Relaxed);
        let drained = activity.drained.swap(false, Ordering::Relaxed);
        let moved = activity.moved.swap(false, Ordering::Relaxed);
        // A window that stays shut keeps an answer back while the socket is free, and
        // what the socket then takes is no progress of that answer.
        let held = multiplexed && 0 < activity.waiting.load(Ordering::Relaxed);
        let waits = held || activity.blocked.load(Ordering::Relaxed);
        if !waits || if held { moved } else { drained } {
            self.unread = Duration::ZERO;
        } else {
            // Before all else: new requests do not make up for unread answers.
            self.unread = self.unread.saturating_add(passed);
            if self.patience.write <= self.unread {
                return true;
            }
        }
        let requests = activity.requests.load(Ordering::Relaxed);
        let asked = requests != self.requests;
        self.requests = requests;
        // A request in flight has a deadline of its own, an answer the time above.
        let answers = 0 < activity.in_flight.load(Ordering::Relaxed) || waits;
        if asked || answers || (drained && !multiplexed) {
            self.quiet = Duration::ZERO;
            return false;
        }
        self.quiet = self.quiet.saturating_add(passed);
        // What comes over HTTP/2 after its first request may be no header at all.
        let is_header = !multiplexed || requests == 0;
        let limit = if is_header && activity.heard.load(Ordering::Relaxed) {
            self.patience.header
        } else {
            self.patience.idle
        };
        limit <= self.quiet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn watcher() -> Watcher {
        Watcher::new(Patience {
            header: 2 * SECOND,
            idle: 4 * SECOND,
            write: 3 * SECOND,
        })
    }

    #[test]
    fn a_silent_connection_has_the_idle_time() {
        let (activity, mut watcher) = (Activity::default(), watcher());
        let looks = [(); 4].map(|()| watcher.has_enough(&activity, SECOND));
        assert_eq!(looks, [false, false, false, true]);
    }

    #[test]
    fn half_a_header_has_the_header_time_however_it_trickles() {
        let (activity, mut watcher) = (Activity::default(), watcher());
        activity.heard();
        assert!(!watcher.has_enough(&activity, SECOND));
        activity.heard();
        assert!(watcher.has_enough(&activity, SECOND));
    }

    #[test]
    fn an_answer_that_nobody_reads_has_the_write_time_whatever_is_sent() {
        let (activity, mut watcher) = (Activity::default(), watcher());
        activity.cannot_write();
        let looks = [(); 3].map(|()| {
            activity.request_begins();
            activity.heard();
            watcher.has_enough(&activity, SECOND)
        });
        assert_eq!(looks, [false, false, true]);
    }

    #[test]
    fn an_answer_that_is_read_slowly_has_all_time() {
        let (activity, mut watcher) = (Activity::default(), watcher());
        activity.request_begins();
        activity.request_ends();
        for _ in 0..10 {
            activity.written();
            activity.cannot_write();
            // As a WINDOW_UPDATE would.
            activity.heard();
            assert!(!watcher.has_enough(&activity, SECOND));
            assert!(!watcher.has_enough(&activity, SECOND));
        }
        activity.written();
        activity.request_begins();
        for _ in 0..10 {
            assert!(!watcher.has_enough(&activity, SECOND));
        }
    }

    fn multiplexed() -> Activity {
        let activity = Activity::default();
        activity.is_multiplexed();
        activity.request_begins();
        activity.request_ends();
        activity
    }

    #[test]
    fn what_a_shut_window_keeps_back_has_the_write_time_whatever_else_is_sent() {
        let (activity, mut watcher) = (multiplexed(), watcher());
        activity.answer_waits();
        for _ in 0..10 {
            activity.written();
            assert!(!watcher.has_enough(&activity, SECOND));
            activity.moved();
            assert!(!watcher.has_enough(&activity, SECOND));
        }
        let looks = [(); 3].map(|()| {
            activity.request_begins();
            activity.request_ends();
            activity.written();
            watcher.has_enough(&activity, SECOND)
        });
        assert_eq!(looks, [false, false, true]);
    }

    #[test]
    fn pings_neither_shorten_nor_lengthen_the_idle_time() {
        let (activity, mut watcher) = (multiplexed(), watcher());
        let looks = [(); 5].map(|()| {
            activity.heard();
            activity.written();
            watcher.has_enough(&activity, SECOND)
        });
        // The first look sees the request.
        assert_eq!(looks, [false, false, false, false, true]);
    }

    #[test]
    fn a_request_in_flight_or_just_done_is_no_silence() {
        let (activity, mut watcher) = (Activity::default(), watcher());
        activity.request_begins();
        activity.heard();
        for _ in 0..10 {
            assert!(!watcher.has_enough(&activity, SECOND));
        }
        activity.request_ends();
        let looks = [(); 4].map(|()| watcher.has_enough(&activity, SECOND));
        assert_eq!(looks, [false, false, false, true]);
    }
}
