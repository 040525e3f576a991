//! Reports for tests, from the same recordings each time.

use std::time::{Duration, SystemTime};

use super::{Model, Report, Settings};
use crate::response::Response;
use crate::rng::Rng;
use crate::stats::{Arrival, Class, Tally, Times};

const RUN_TIME: Duration = Duration::from_secs(10);

/// What one request met.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recording {
    task: usize,
    /// None is no answer.
    status: Option<u16>,
    intended: Duration,
    sent: Duration,
    answered: Duration,
}

/// `count` recordings over ten seconds, of two tasks and every class.
pub(crate) fn recordings(seed: u64, count: u64) -> Vec<Recording> {
    let mut rng = Rng::new(seed, 0);
    let one = |_| {
        let intended = Duration::from_micros(rng.below(10_000_000));
        let sent = intended + Duration::from_micros(rng.below(400));
        // Most are quick, few are slow, as in life.
        let spread = 200 << rng.below(8);
        let answered = sent + Duration::from_micros(100 + rng.below(spread));
        Recording {
            task: usize::from(rng.below(4) == 0),
            status: match rng.below(50) {
                0 => Some(503),
                1 => Some(404),
                2 => None,
                _ => Some(200),
            },
            intended,
            sent,
            answered,
        }
    };
    (0..count).map(one).collect()
}

pub(crate) fn tally(recordings: &[Recording]) -> Tally {
    let mut tally = Tally::new(["transfer".to_owned(), "balance".to_owned()]);
    for recording in recordings {
        record(&mut tally, recording);
    }
    for index in 0..tally.series.points().len() {
        let second = u64::try_from(index).unwrap();
        tally.series.at(Duration::from_secs(second)).users = 8;
    }
    tally
}

fn record(tally: &mut Tally, recording: &Recording) {
    tally.send(recording.task, recording.sent);
    let Some(status) = recording.status else {
        tally.errors.timeout += 1;
        tally.last_error = Some("timeout".to_owned());
        tally.give_up(recording.task, recording.answered);
        return;
    };
    let body: &[u8] = match status {
        503 => br#"{"code":"queue_full"}"#,
        404 => br#"{"code":"account_not_found"}"#,
        _ => b"",
    };
    let response = Response {
        status,
        close: false,
        replayed: false,
        retry_after: None,
        body,
    };
    let arrival = if recording.answered < RUN_TIME {
        Arrival::InWindow
    } else {
        Arrival::Late
    };
    tally.record(&response, 1 - recording.task, arrival);
    let times = Times {
        intended: recording.intended,
        sent: recording.sent,
        answered: recording.answered,
    };
    tally.time(recording.task, Class::of(status), times);
}

/// That tally as the report of an open run.
pub(crate) fn of(tally: Tally, run_id: &str, users: u32) -> Report {
    Report {
        run_ids: vec![run_id.to_owned()],
        started_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_250),
        settings: Settings {
            host: "http://127.0.0.1:5000".to_owned(),
            model: Model::Open,
            task: "transfer".to_owned(),
            users,
            threads: 1,
            rate: Some(1_000),
            think: "0s".to_owned(),
            retries: 0,
            run_time_seconds: RUN_TIME.as_secs_f64(),
            timeout_seconds: 30.0,
            accounts: "1..=1000".to_owned(),
            amount: "1".to_owned(),
            keys: "on".to_owned(),
            seed: "7".to_owned(),
        },
        elapsed: RUN_TIME,
        tally,
        generator: None,
        workers: Vec::new(),
    }
}

pub(crate) fn report(seed: u64, count: u64) -> Report {
    of(tally(&recordings(seed, count)), &format!("{seed:016x}"), 8)
}

/// 1,000 transfers of 1 to 1,000 ms and one each of a 503, a 404 and no answer;
/// 500 balances of 2 ms; 10 unsent.
pub(crate) fn even() -> Report {
    let recording = |task, status, millis| Recording {
        task,
        status,
        intended: Duration::from_secs(1),
        sent: Duration::from_secs(1),
        answered: Duration::from_secs(1) + Duration::from_millis(millis),
    };
    let mut all: Vec<_> = (1..=1_000)
        .map(|millis| recording(0, Some(200), millis))
        .collect();
    all.extend([Some(503), Some(404), None].map(|status| recording(0, status, 5)));
    all.extend((0..500).map(|_| recording(1, Some(200), 2)));
    let mut report = of(tally(&all), "even", 8);
    report.tally.unsent = 10;
    report
}
