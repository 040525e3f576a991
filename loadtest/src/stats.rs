//! What is counted.
//!
//! Owns: the counters and histograms of one thread, and how they merge.
//! Never: is shared between threads while a run goes on.
//! Bound: `CODES_MAX` distinct problem codes; histograms hold three digits.
//! Invariant: `sent` equals responses plus errors once a run has ended.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::body::{self, ItemStatus};
use crate::response::Response;

/// A server that invents codes must not fill the memory.
const CODES_MAX: usize = 64;
const CODE_OVERFLOW: &str = "(other)";
/// Histograms start at this range and grow by themselves.
const LATENCY_US_MAX: u64 = 60_000_000;

/// Which histogram a response belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// 2xx.
    Success,
    /// 503: refused at once, so its latency is a promise of its own.
    Unavailable,
    /// Everything else.
    Other,
}

impl Class {
    pub(crate) fn of(status: u16) -> Self {
        match status {
            200..=299 => Self::Success,
            503 => Self::Unavailable,
            _ => Self::Other,
        }
    }
}

/// Latencies in microseconds by class.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    pub(crate) success: Histogram<u64>,
    pub(crate) unavailable: Histogram<u64>,
    pub(crate) other: Histogram<u64>,
}

impl Latencies {
    fn new() -> Self {
        Self {
            success: histogram(),
            unavailable: histogram(),
            other: histogram(),
        }
    }

    pub(crate) fn record(&mut self, class: Class, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let target = match class {
            Class::Success => &mut self.success,
            Class::Unavailable => &mut self.unavailable,
            Class::Other => &mut self.other,
        };
        // Auto-resize only fails on a platform whose usize is too small: count
        // the value at the largest place rather than lose it.
        if target.record(micros.max(1)).is_err() {
            target.saturating_record(micros);
        }
    }

    /// All classes together.
    pub(crate) fn all(&self) -> Histogram<u64> {
        let mut all = self.success.clone();
        for part in [&self.unavailable, &self.other] {
            merge_into(&mut all, part);
        }
        all
    }

    fn merge(&mut self, other: &Self) {
        merge_into(&mut self.success, &other.success);
        merge_into(&mut self.unavailable, &other.unavailable);
        merge_into(&mut self.other, &other.other);
    }
}

fn histogram() -> Histogram<u64> {
    let mut histogram = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
        .expect("1, 60,000,000 and 3 digits are valid bounds");
    histogram.auto(true);
    histogram
}

fn merge_into(target: &mut Histogram<u64>, part: &Histogram<u64>) {
    target
        .add(part)
        .expect("both grow by themselves, so the range always fits");
}

/// Requests without an answer, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Errors {
    /// Connections that could not be opened.
    pub(crate) connect: u64,
    /// Connections that broke with a request in flight.
    pub(crate) io: u64,
    /// Requests not answered within `--timeout`.
    pub(crate) timeout: u64,
    /// Answers that are not HTTP as this client reads it.
    pub(crate) protocol: u64,
}

impl Errors {
    pub(crate) fn total(&self) -> u64 {
        self.connect + self.io + self.timeout + self.protocol
    }
}

/// Transfers by how they ended, over single and batch calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Transfers {
    pub(crate) completed: u64,
    pub(crate) rejected: u64,
    pub(crate) failed: u64,
}

/// What happened before the end of the run time: what rates are made of.
/// Answers that came later are in the totals only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) responses: u64,
    pub(crate) successes: u64,
    pub(crate) transfers_completed: u64,
}

/// Whether an answer came before the end of the run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    InWindow,
    Late,
}

/// Everything one thread, or a whole run, counted.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    pub(crate) sent: u64,
    /// Arrivals of the open model that no connection was free for.
    pub(crate) unsent: u64,
    pub(crate) responses: u64,
    pub(crate) replayed: u64,
    /// Connections opened again after the server closed one.
    pub(crate) reconnects: u64,
    pub(crate) window: Window,
    pub(crate) transfers: Transfers,
    pub(crate) statuses: BTreeMap<u16, u64>,
    pub(crate) codes: BTreeMap<String, u64>,
    pub(crate) errors: Errors,
    /// From when the request should have been sent.
    pub(crate) latency: Latencies,
    /// From when it was sent; the same in the closed model.
    pub(crate) service: Latencies,
    /// The last protocol or socket error, in words.
    pub(crate) last_error: Option<String>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            sent: 0,
            unsent: 0,
            responses: 0,
            replayed: 0,
            reconnects: 0,
            window: Window::default(),
            transfers: Transfers::default(),
            statuses: BTreeMap::new(),
            codes: BTreeMap::new(),
            errors: Errors::default(),
            latency: Latencies::new(),
            service: Latencies::new(),
            last_error: None,
        }
    }

    /// Counts one answer to a request of `transfers` transfers.
    pub(crate) fn record(&mut self, response: &Response<'_>, transfers: usize, arrival: Arrival) {
        let class = Class::of(response.status);
        self.responses += 1;
        *self.statuses.entry(response.status).or_default() += 1;
        self.replayed += u64::from(response.replayed);
        for code in body::codes(response.body) {
            self.count_code(code);
        }
        let completed = match (class, transfers) {
            (Class::Success, 0) => 0,
            (Class::Success, 1) if response.body.is_empty() => {
                self.transfers.completed += 1;
                1
            }
            (Class::Success, _) => self.count_items(response.body),
            (Class::Unavailable | Class::Other, _) => 0,
        };
        if arrival == Arrival::InWindow {
            self.window.responses += 1;
            self.window.successes += u64::from(class == Class::Success);
            self.window.transfers_completed += completed;
        }
    }

    fn count_items(&mut self, body: &[u8]) -> u64 {
        let mut completed = 0;
        for status in body::item_statuses(body) {
            match status {
                ItemStatus::Completed => completed += 1,
                ItemStatus::Rejected => self.transfers.rejected += 1,
                ItemStatus::Failed => self.transfers.failed += 1,
            }
        }
        self.transfers.completed += completed;
        completed
    }

    fn count_code(&mut self, code: &str) {
        if let Some(count) = self.codes.get_mut(code) {
            *count += 1;
            return;
        }
        let name = if self.codes.len() < CODES_MAX {
            code
        } else {
            CODE_OVERFLOW
        };
        *self.codes.entry(name.to_owned()).or_default() += 1;
    }

    /// Adds what another thread counted.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.sent += other.sent;
        self.unsent += other.unsent;
        self.responses += other.responses;
        self.replayed += other.replayed;
        self.reconnects += other.reconnects;
        self.window.responses += other.window.responses;
        self.window.successes += other.window.successes;
        self.window.transfers_completed += other.window.transfers_completed;
        self.transfers.completed += other.transfers.completed;
        self.transfers.rejected += other.transfers.rejected;
        self.transfers.failed += other.transfers.failed;
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        for (code, count) in &other.codes {
            *self.codes.entry(code.clone()).or_default() += count;
        }
        self.errors.connect += other.errors.connect;
        self.errors.io += other.errors.io;
        self.errors.timeout += other.errors.timeout;
        self.errors.protocol += other.errors.protocol;
        self.latency.merge(&other.latency);
        self.service.merge(&other.service);
        if other.last_error.is_some() {
            self.last_error.clone_from(&other.last_error);
        }
    }

    /// Whether the run counts as a success: something worked, nothing broke.
    pub(crate) fn succeeded(&self) -> bool {
        !self.latency.success.is_empty() && self.errors.total() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, body: &[u8]) -> Response<'_> {
        Response {
            status,
            close: false,
            replayed: false,
            body,
        }
    }

    #[test]
    fn single_and_batch_answers_count_transfers_alike() {
        let mut tally = Tally::new();
        tally.record(&response(200, b""), 1, Arrival::InWindow);
        tally.record(
            &response(503, br#"{"status":503,"code":"queue_full"}"#),
            1,
            Arrival::InWindow,
        );
        let batch = br#"{"results":[{"status":"completed"},{"status":"rejected","code":"account_frozen"},{"status":"failed","code":"queue_full"}]}"#;
        tally.record(&response(200, batch), 3, Arrival::Late);
        let expected = Transfers {
            completed: 2,
            rejected: 1,
            failed: 1,
        };
        assert_eq!(tally.transfers, expected);
        assert_eq!(tally.codes["queue_full"], 2);
        assert_eq!(tally.statuses, BTreeMap::from([(200, 2), (503, 1)]));
        let window = Window {
            responses: 2,
            successes: 1,
            transfers_completed: 1,
        };
        assert_eq!(tally.window, window);
    }

    #[test]
    fn classes_keep_their_own_latencies_and_merge() {
        let mut one = Tally::new();
        let mut other = Tally::new();
        one.latency
            .record(Class::of(200), Duration::from_micros(500));
        other
            .latency
            .record(Class::of(503), Duration::from_millis(90));
        // Beyond the range that histograms start with.
        other
            .latency
            .record(Class::of(404), Duration::from_secs(300));
        other.latency.record(Class::of(201), Duration::ZERO);
        one.merge(&other);
        assert_eq!(one.latency.success.len(), 2);
        assert!((89_900..=90_100).contains(&one.latency.unavailable.max()));
        assert!(one.latency.other.max() >= 299_000_000);
        assert_eq!(one.latency.all().len(), 4);
    }

    #[test]
    fn codes_are_bounded() {
        let mut tally = Tally::new();
        for index in 0..CODES_MAX + 10 {
            tally.count_code(&format!("code_{index}"));
        }
        assert_eq!(tally.codes.len(), CODES_MAX + 1);
        assert_eq!(tally.codes[CODE_OVERFLOW], 10);
        tally.count_code("code_1");
        assert_eq!(tally.codes["code_1"], 2);
    }

    #[test]
    fn a_run_fails_if_nothing_succeeded_or_anything_broke() {
        let mut tally = Tally::new();
        assert!(!tally.succeeded());
        tally
            .latency
            .record(Class::Unavailable, Duration::from_millis(1));
        assert!(!tally.succeeded());
        tally
            .latency
            .record(Class::Success, Duration::from_millis(1));
        assert!(tally.succeeded());
        tally.errors.io = 1;
        assert!(!tally.succeeded());
    }
}
