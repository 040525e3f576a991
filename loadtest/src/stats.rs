//! What is counted.
//!
//! Owns: the counters and histograms of one thread, and how they merge.
//! Never: is shared between threads while a run goes on.
//! Bound: `CODES_MAX` distinct problem codes; histograms hold three digits.
//! Invariant: `sent` equals responses plus errors once a run has ended.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::{Counter, Histogram};
use serde::{Deserialize, Serialize};

use crate::body::{self, ItemStatus};
use crate::response::Response;
use crate::series::Series;

/// A server that invents codes must not fill the memory.
const CODES_MAX: usize = 64;
const CODE_OVERFLOW: &str = "(other)";
/// Digits that a latency keeps.
pub(crate) const DIGITS: u8 = 3;
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
        let micros = micros(latency);
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

    /// How many were recorded.
    pub(crate) fn count(&self) -> u64 {
        self.success.len() + self.unavailable.len() + self.other.len()
    }

    /// All classes together.
    pub(crate) fn all(&self) -> Histogram<u64> {
        let mut all = self.success.clone();
        for part in [&self.unavailable, &self.other] {
            if !part.is_empty() {
                merge_into(&mut all, part);
            }
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
    let mut histogram = Histogram::new_with_bounds(1, LATENCY_US_MAX, DIGITS)
        .expect("1, 60,000,000 and 3 digits are valid bounds");
    histogram.auto(true);
    histogram
}

/// Adds a histogram to another that was made with the same bounds.
pub(crate) fn merge_into<C: Counter>(target: &mut Histogram<C>, part: &Histogram<C>) {
    target
        .add(part)
        .expect("both grow by themselves, so the range always fits");
}

/// Adds counts by name to others.
pub(crate) fn add_counts<K: Ord + Clone>(target: &mut BTreeMap<K, u64>, part: &BTreeMap<K, u64>) {
    for (name, count) in part {
        *target.entry(name.clone()).or_default() += count;
    }
}

/// A time as histograms hold it.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Requests without an answer, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
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

    pub(crate) fn add(&mut self, other: &Self) {
        self.connect += other.connect;
        self.io += other.io;
        self.timeout += other.timeout;
        self.protocol += other.protocol;
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

/// One kind of request.
#[derive(Clone, Debug)]
pub(crate) struct TaskTally {
    /// As the scenario calls it.
    pub(crate) name: String,
    pub(crate) sent: u64,
    /// Requests sent again with the same key, which `sent` counts too.
    pub(crate) retried: u64,
    /// Requests that ended without an answer.
    pub(crate) unanswered: u64,
    /// From when the request should have been sent.
    pub(crate) latency: Latencies,
    /// From when it was sent; the same in the closed model.
    pub(crate) service: Latencies,
}

impl TaskTally {
    fn new(name: String) -> Self {
        Self {
            name,
            sent: 0,
            retried: 0,
            unanswered: 0,
            latency: Latencies::new(),
            service: Latencies::new(),
        }
    }

    /// Requests that came to an end, answered or not.
    pub(crate) fn ended(&self) -> u64 {
        self.latency.count() + self.unanswered
    }

    /// Of those, all without a 2xx.
    pub(crate) fn failed(&self) -> u64 {
        self.ended() - self.latency.success.len()
    }

    fn merge(&mut self, other: &Self) {
        self.sent += other.sent;
        self.retried += other.retried;
        self.unanswered += other.unanswered;
        self.latency.merge(&other.latency);
        self.service.merge(&other.service);
    }
}

/// When a request was due, sent and answered, since the start of the run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) intended: Duration,
    pub(crate) sent: Duration,
    pub(crate) answered: Duration,
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
    /// One for each task, in the order of the scenario.
    pub(crate) tasks: Vec<TaskTally>,
    pub(crate) series: Series,
    /// The last protocol or socket error, in words.
    pub(crate) last_error: Option<String>,
}

impl Tally {
    /// Nothing counted yet, of these tasks.
    pub(crate) fn new(tasks: impl IntoIterator<Item = String>) -> Self {
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
            tasks: tasks.into_iter().map(TaskTally::new).collect(),
            series: Series::new(),
            last_error: None,
        }
    }

    /// Counts a request as it is sent.
    pub(crate) fn send(&mut self, task: usize, at: Duration) {
        self.sent += 1;
        if let Some(tally) = self.tasks.get_mut(task) {
            tally.sent += 1;
        }
        self.series.at(at).sent += 1;
    }

    /// Counts a request as it is sent again with the same key.
    pub(crate) fn send_again(&mut self, task: usize, at: Duration) {
        self.send(task, at);
        if let Some(tally) = self.tasks.get_mut(task) {
            tally.retried += 1;
        }
        self.series.at(at).retried += 1;
    }

    /// Counts a request that ends without an answer; its cause is counted apart.
    pub(crate) fn give_up(&mut self, task: usize, at: Duration) {
        if let Some(tally) = self.tasks.get_mut(task) {
            tally.unanswered += 1;
        }
        self.series.at(at).failed += 1;
    }

    /// Counts how long an answer took.
    pub(crate) fn time(&mut self, task: usize, class: Class, times: Times) {
        let latency = times.answered.saturating_sub(times.intended);
        let service = times.answered.saturating_sub(times.sent);
        if let Some(tally) = self.tasks.get_mut(task) {
            tally.latency.record(class, latency);
            tally.service.record(class, service);
        }
        let point = self.series.at(times.answered);
        match class {
            Class::Success => point.succeeded += 1,
            Class::Unavailable | Class::Other => point.failed += 1,
        }
        point.latency.saturating_record(micros(latency).max(1));
    }

    /// From when requests should have been sent, over all tasks.
    pub(crate) fn latency(&self) -> Latencies {
        let mut all = Latencies::new();
        self.tasks.iter().for_each(|task| all.merge(&task.latency));
        all
    }

    /// From when requests were sent, over all tasks.
    pub(crate) fn service(&self) -> Latencies {
        let mut all = Latencies::new();
        self.tasks.iter().for_each(|task| all.merge(&task.service));
        all
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
        add_counts(&mut self.statuses, &other.statuses);
        add_counts(&mut self.codes, &other.codes);
        self.errors.add(&other.errors);
        for task in &other.tasks {
            match self.tasks.iter_mut().find(|mine| mine.name == task.name) {
                Some(mine) => mine.merge(task),
                None => self.tasks.push(task.clone()),
            }
        }
        self.series.merge(&other.series);
        if other.last_error.is_some() {
            self.last_error.clone_from(&other.last_error);
        }
    }

    /// Whether the run counts as a success: something worked, nothing broke.
    pub(crate) fn succeeded(&self) -> bool {
        let answered = |task: &TaskTally| !task.latency.success.is_empty();
        self.tasks.iter().any(answered) && self.errors.total() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally() -> Tally {
        Tally::new(["transfer".to_owned()])
    }

    fn response(status: u16, body: &[u8]) -> Response<'_> {
        Response {
            status,
            close: false,
            replayed: false,
            retry_after: None,
            body,
        }
    }

    #[test]
    fn single_and_batch_answers_count_transfers_alike() {
        let mut tally = tally();
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

    fn took(micros: u64) -> Times {
        Times {
            intended: Duration::ZERO,
            sent: Duration::ZERO,
            answered: Duration::from_micros(micros),
        }
    }

    #[test]
    fn classes_keep_their_own_latencies_and_merge() {
        let mut one = tally();
        let mut other = Tally::new(["transfer".to_owned(), "balance".to_owned()]);
        one.time(0, Class::of(200), took(500));
        other.time(0, Class::of(503), took(90_000));
        // Beyond the range that histograms start with.
        other.time(1, Class::of(404), took(300_000_000));
        other.time(1, Class::of(201), took(0));
        one.merge(&other);
        let latency = one.latency();
        assert_eq!(latency.success.len(), 2);
        assert!((89_900..=90_100).contains(&latency.unavailable.max()));
        assert!(latency.other.max() >= 299_000_000);
        assert_eq!(latency.all().len(), 4);
        let names: Vec<&str> = one.tasks.iter().map(|task| task.name.as_str()).collect();
        assert_eq!(names, ["transfer", "balance"]);
        assert_eq!(one.tasks[1].latency.success.len(), 1);
        assert_eq!(
            (
                one.series.points()[0].succeeded,
                one.series.points()[0].failed
            ),
            (2, 1)
        );
        assert_eq!(one.series.points()[300].failed, 1);
    }

    #[test]
    fn codes_are_bounded() {
        let mut tally = tally();
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
        let mut tally = tally();
        assert!(!tally.succeeded());
        tally.time(0, Class::Unavailable, took(1_000));
        assert!(!tally.succeeded());
        tally.time(0, Class::Success, took(1_000));
        assert!(tally.succeeded());
        tally.errors.io = 1;
        assert!(!tally.succeeded());
    }
}
