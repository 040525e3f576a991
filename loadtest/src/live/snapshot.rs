//! A run as it is just now.
//!
//! Owns: the snapshot of all threads, and the rates over the last seconds.
//! Bound: [`RATE_OVER`] of past totals.
//! Invariant: the tasks' requests and failures add up to the total's.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::board::{Sheet, TaskSheet};
use crate::report::float;

/// Rates are over the last seconds: short enough to follow, long enough to read.
const RATE_OVER: Duration = Duration::from_secs(2);

/// A run as it is just now, over all threads.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Snapshot {
    pub(crate) at_seconds: f64,
    pub(crate) users: u64,
    /// Requests sent, repeats included, in the last seconds.
    pub(crate) requests_per_second: f64,
    /// Requests that ended without a 2xx, in the last seconds.
    pub(crate) failures_per_second: f64,
    /// Of the last one to two seconds, from the intended start.
    pub(crate) p50_us: u64,
    pub(crate) p95_us: u64,
    pub(crate) p99_us: u64,
    /// The rest counts from the start of the run.
    pub(crate) sent: u64,
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    pub(crate) retried: u64,
    pub(crate) unsent: u64,
    pub(crate) statuses: BTreeMap<u16, u64>,
    pub(crate) codes: BTreeMap<String, u64>,
    pub(crate) causes: Causes,
    pub(crate) last_error: Option<String>,
    pub(crate) tasks: Vec<TaskRow>,
    pub(crate) total: TaskRow,
}

/// Why there was no answer.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Causes {
    pub(crate) connect: u64,
    pub(crate) io: u64,
    pub(crate) timeout: u64,
    pub(crate) protocol: u64,
}

/// One task, as Locust's table has it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct TaskRow {
    pub(crate) name: String,
    /// Requests that ended, answered or not.
    pub(crate) requests: u64,
    pub(crate) failures: u64,
    /// In the last seconds.
    pub(crate) requests_per_second: f64,
    pub(crate) failures_per_second: f64,
    /// Of every answer since the start of the run.
    pub(crate) p50_us: u64,
    pub(crate) p95_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) mean_us: f64,
    pub(crate) min_us: u64,
    pub(crate) max_us: u64,
}

/// Requests that ended, and that failed, by a moment.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    ended: u64,
    failed: u64,
}

#[derive(Clone, Debug, Default)]
struct Past {
    at: Duration,
    sent: u64,
    failed: u64,
    tasks: BTreeMap<String, Ends>,
}

/// Makes snapshots of a board; it remembers enough to know rates.
#[derive(Debug)]
pub(crate) struct Watcher {
    past: VecDeque<Past>,
}

impl Watcher {
    pub(crate) fn new() -> Self {
        Self {
            past: VecDeque::from([Past::default()]),
        }
    }

    /// Of what all threads published last, `at` so long after the start.
    pub(crate) fn snapshot(&mut self, sum: Sheet, at: Duration) -> Snapshot {
        self.remember(&sum, at);
        let (Some(then), Some(now)) = (self.past.front(), self.past.back()) else {
            return Snapshot::default();
        };
        let over = at.saturating_sub(then.at);
        let rows = sum.tasks.iter().map(|task| row(task, then, over));
        Snapshot {
            at_seconds: at.as_secs_f64(),
            users: sum.users,
            requests_per_second: per_second(now.sent.saturating_sub(then.sent), over),
            failures_per_second: per_second(now.failed.saturating_sub(then.failed), over),
            p50_us: sum.recent.value_at_quantile(0.5),
            p95_us: sum.recent.value_at_quantile(0.95),
            p99_us: sum.recent.value_at_quantile(0.99),
            sent: sum.sent,
            succeeded: sum.succeeded,
            failed: sum.failed,
            retried: sum.retried,
            unsent: sum.unsent,
            causes: Causes {
                connect: sum.errors.connect,
                io: sum.errors.io,
                timeout: sum.errors.timeout,
                protocol: sum.errors.protocol,
            },
            total: total(&sum.tasks, then, over),
            tasks: rows.collect(),
            statuses: sum.statuses,
            codes: sum.codes,
            last_error: sum.last_error,
        }
    }

    fn remember(&mut self, sum: &Sheet, at: Duration) {
        let ends = |task: &TaskSheet| Ends {
            ended: task.ended,
            failed: task.failed,
        };
        let tasks = sum.tasks.iter().map(|task| (task.name.clone(), ends(task)));
        self.past.push_back(Past {
            at,
            sent: sum.sent,
            failed: sum.failed,
            tasks: tasks.collect(),
        });
        while self
            .past
            .get(1)
            .is_some_and(|next| RATE_OVER <= at.saturating_sub(next.at))
        {
            self.past.pop_front();
        }
    }
}

fn row(task: &TaskSheet, then: &Past, over: Duration) -> TaskRow {
    let before = then.tasks.get(&task.name).copied().unwrap_or_default();
    fill(task, before, over)
}

fn total(tasks: &[TaskSheet], then: &Past, over: Duration) -> TaskRow {
    let Some((first, others)) = tasks.split_first() else {
        return TaskRow::default();
    };
    let mut sum = first.clone();
    sum.name = "Aggregated".to_owned();
    others.iter().for_each(|task| sum.add(task));
    let before = Ends {
        ended: then.tasks.values().map(|ends| ends.ended).sum(),
        failed: then.tasks.values().map(|ends| ends.failed).sum(),
    };
    fill(&sum, before, over)
}

fn fill(task: &TaskSheet, before: Ends, over: Duration) -> TaskRow {
    let latency: &Histogram<u64> = &task.latency;
    TaskRow {
        name: task.name.clone(),
        requests: task.ended,
        failures: task.failed,
        requests_per_second: per_second(task.ended.saturating_sub(before.ended), over),
        failures_per_second: per_second(task.failed.saturating_sub(before.failed), over),
        p50_us: latency.value_at_quantile(0.5),
        p95_us: latency.value_at_quantile(0.95),
        p99_us: latency.value_at_quantile(0.99),
        mean_us: latency.mean(),
        // An empty histogram's least value is 0 as well.
        min_us: latency.min(),
        max_us: latency.max(),
    }
}

fn per_second(count: u64, over: Duration) -> f64 {
    if over.is_zero() {
        return 0.0;
    }
    float(count) / over.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::super::board::Board;
    use super::*;
    use crate::stats::{Class, Tally, Times};

    fn tally(second: u64, successes: u64) -> Tally {
        let mut tally = Tally::new(["transfer".to_owned()]);
        let at = Duration::from_secs(second);
        for _ in 0..successes {
            tally.send(0, at);
            let times = Times {
                intended: at,
                sent: at,
                answered: at + Duration::from_millis(2),
            };
            tally.time(0, Class::Success, times);
        }
        tally.send_again(0, at);
        tally.give_up(0, at);
        tally
    }

    #[test]
    fn a_snapshot_adds_the_threads_and_knows_the_rate_of_the_last_seconds() {
        let board = Board::new(2);
        let mut watcher = Watcher::new();
        board.publish(0, Sheet::new(&tally(0, 100)));
        let first = watcher.snapshot(board.sum(), Duration::from_secs(1));
        assert!((first.requests_per_second - 101.0).abs() < 1e-9);
        let sheet = Sheet {
            users: 7,
            unsent: 3,
            ..Sheet::new(&tally(1, 299))
        };
        board.publish(1, sheet);
        for second in 2..=4 {
            watcher.snapshot(board.sum(), Duration::from_secs(second));
        }
        let last = watcher.snapshot(board.sum(), Duration::from_secs(5));
        assert_eq!((last.sent, last.succeeded, last.failed), (401, 399, 2));
        assert_eq!((last.users, last.unsent, last.retried), (7, 3, 2));
        assert!((1_900..=2_100).contains(&last.p99_us), "{}", last.p99_us);
        assert!(last.requests_per_second < 1e-9, "nothing for two seconds");
        let json = serde_json::to_value(&last).unwrap();
        assert_eq!(json["failed"], 2);
    }

    #[test]
    fn each_task_has_a_row_and_they_add_up() {
        let two = |transfers: u64, health: u64| {
            let mut tally = Tally::new(["transfer".to_owned(), "health".to_owned()]);
            let at = Duration::ZERO;
            for (task, count, millis) in [(0, transfers, 4), (1, health, 1)] {
                for _ in 0..count {
                    let answered = Duration::from_millis(millis);
                    let times = Times {
                        intended: at,
                        sent: at,
                        answered,
                    };
                    tally.time(task, Class::Success, times);
                }
            }
            tally.give_up(1, at);
            tally
        };
        let board = Board::new(2);
        let mut watcher = Watcher::new();
        board.publish(0, Sheet::new(&two(10, 30)));
        board.publish(1, Sheet::new(&two(20, 40)));
        let now = watcher.snapshot(board.sum(), Duration::from_secs(2));
        let rows: Vec<_> = now
            .tasks
            .iter()
            .map(|row| (row.name.as_str(), row.requests, row.failures))
            .collect();
        assert_eq!(rows, [("transfer", 30, 0), ("health", 72, 2)]);
        assert_eq!((now.total.requests, now.total.failures), (102, 2));
        assert!((now.tasks[1].requests_per_second - 36.0).abs() < 1e-9);
        assert!((now.total.failures_per_second - 1.0).abs() < 1e-9);
        assert!((3_990..=4_010).contains(&now.tasks[0].p50_us));
        assert!((990..=1_010).contains(&now.total.p50_us));
        assert!(now.total.min_us <= 1_000 && 4_000 <= now.total.max_us);
        assert!((now.total.mean_us - 1_900.0).abs() < 10.0);
    }
}
