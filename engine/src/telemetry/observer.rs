//! What is told about each finished request.
//!
//! Owns: the facts of a request, and their way to metrics and access log.
//! Never: waits or allocates; with the access log off it costs two counters.

use std::net::SocketAddr;
use std::time::Duration;

use super::access_log::{AccessLog, Record, RequestId, Subject};
use super::background::Stopped;
use super::label::{Method, Route};
use super::metrics::Metrics;
use crate::clock::Clock;
use crate::domain::TransferId;

/// A finished request.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts {
    /// Echoed or made.
    pub request_id: RequestId,
    /// Who asked.
    pub client: SocketAddr,
    /// What was called.
    pub route: Route,
    /// How.
    pub method: Method,
    /// Of the answer.
    pub status: u16,
    /// Of the problem, if the answer is one.
    pub code: Option<&'static str>,
    /// Of the one transfer the answer is about.
    pub txn_id: Option<TransferId>,
    /// From head read to answer handed over.
    pub duration: Duration,
    /// Whether an earlier request under the same key did it.
    pub replayed: bool,
}

/// One transfer of a finished batch call.
#[derive(Clone, Copy, Debug)]
pub struct TransferFacts {
    /// Of the call.
    pub request_id: RequestId,
    /// Its place in the call, from 0.
    pub index: u32,
    /// As in the answer.
    pub status: TransferStatus,
    /// Of the problem, unless it completed.
    pub code: Option<&'static str>,
    /// Of the row that answers it.
    pub txn_id: Option<TransferId>,
    /// Whether an earlier request under the same key did it.
    pub replayed: bool,
}

/// The `status` of one result of a batch call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferStatus {
    /// Money moved.
    Completed,
    /// Refused.
    Rejected,
    /// No answer of its own.
    Failed,
}

impl TransferStatus {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
        }
    }
}

/// Told of every finished request.
#[derive(Debug)]
pub struct Observer {
    metrics: &'static Metrics,
    access_log: Option<AccessLog>,
    clock: Clock,
}

impl Observer {
    /// `access_log` is `None` when it is off.
    #[must_use]
    pub const fn new(
        metrics: &'static Metrics,
        access_log: Option<AccessLog>,
        clock: Clock,
    ) -> Self {
        Self {
            metrics,
            access_log,
            clock,
        }
    }

    /// Counts the request and, if wanted, logs it.
    pub fn finished(&self, facts: &RequestFacts) {
        self.metrics
            .requests
            .finished(facts.route, facts.status, facts.duration);
        let Some(log) = &self.access_log else {
            return;
        };
        if log.wants(facts.status < 400) {
            log.offer(Record {
                unix_ms: self.clock.unix_ms(),
                request_id: facts.request_id,
                txn_id: facts.txn_id,
                code: facts.code,
                replayed: facts.replayed,
                subject: Subject::Request {
                    client: facts.client,
                    method: facts.method,
                    route: facts.route,
                    status: facts.status,
                    duration: facts.duration,
                },
            });
        }
    }

    /// Whether [`Observer::transfer`] would log anything: spares a caller with
    /// thousands of results the walk.
    #[must_use]
    pub const fn logs_transfers(&self) -> bool {
        self.access_log.is_some()
    }

    /// Logs one transfer of a batch call, if wanted.
    pub fn transfer(&self, facts: &TransferFacts) {
        let Some(log) = &self.access_log else {
            return;
        };
        if log.wants(facts.status == TransferStatus::Completed) {
            log.offer(Record {
                unix_ms: self.clock.unix_ms(),
                request_id: facts.request_id,
                txn_id: facts.txn_id,
                code: facts.code,
                replayed: facts.replayed,
                subject: Subject::Transfer {
                    index: facts.index,
                    result: facts.status.as_str(),
                },
            });
        }
    }

    /// Writes what is queued, waiting at most `limit`.
    pub fn stop(&self, limit: Duration) -> Stopped {
        self.access_log
            .as_ref()
            .map_or(Stopped::Flushed, |log| log.stop(limit))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::atomic::AtomicU64;
    use std::sync::{Arc, Mutex};

    use super::super::access_log::{AccessLogMode, LogFormat, Settings};
    use super::super::background::tests::{Gated, counters};
    use super::super::exporter::Exporter;
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Shared {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn clock() -> Clock {
        // 2026-11-21T12:00:00.007Z
        Clock::Manual(Arc::new(AtomicU64::new(1_795_262_400_007)))
    }

    fn exporter() -> &'static Exporter {
        Box::leak(Box::new(Exporter::new()))
    }

    fn observer(exporter: &'static Exporter, settings: Settings, out: &Shared) -> Observer {
        let engine = &exporter.metrics().engine;
        let log = AccessLog::start(
            settings,
            clock(),
            Box::new(out.clone()),
            engine.access_log_lines.clone(),
            engine.access_log_dropped.clone(),
        )
        .unwrap();
        Observer::new(exporter.metrics(), log, clock())
    }

    fn request(status: u16) -> RequestFacts {
        RequestFacts {
            request_id: RequestId::new("r-1\"\\\n"),
            client: "192.0.2.7:4711".parse().unwrap(),
            route: Route::Transaction,
            method: Method::Post,
            status,
            code: (400 <= status).then_some("insufficient_funds"),
            txn_id: Some(TransferId::first_of_ms(77)),
            duration: Duration::from_micros(1234),
            replayed: status == 200,
        }
    }

    fn transfer(index: u32, status: TransferStatus) -> TransferFacts {
        TransferFacts {
            request_id: RequestId::new("r-2"),
            index,
            status,
            code: (status != TransferStatus::Completed).then_some("account_frozen"),
            txn_id: None,
            replayed: false,
        }
    }

    #[track_caller]
    fn check(mode: AccessLogMode, format: LogFormat, expected: &[&str]) {
        let out = Shared::default();
        let settings = Settings {
            mode,
            format,
            ..Settings::default()
        };
        let observer = observer(exporter(), settings, &out);
        observer.finished(&request(200));
        observer.finished(&request(399));
        observer.finished(&request(400));
        observer.transfer(&transfer(0, TransferStatus::Completed));
        observer.transfer(&transfer(1, TransferStatus::Rejected));
        observer.transfer(&transfer(2, TransferStatus::Failed));
        assert_eq!(observer.stop(LONG), Stopped::Flushed);
        assert_eq!(out.text().lines().collect::<Vec<_>>(), expected);
    }

    const TEXT: [&str; 6] = [
        "2026-11-21T12:00:00.007Z request request_id=r-1\"\\? client=192.0.2.7:4711 method=POST route=transaction status=200 duration_us=1234 txn_id=00000000-004d-0000-0000-000000000000 replayed=true",
        "2026-11-21T12:00:00.007Z request request_id=r-1\"\\? client=192.0.2.7:4711 method=POST route=transaction status=399 duration_us=1234 txn_id=00000000-004d-0000-0000-000000000000",
        "2026-11-21T12:00:00.007Z request request_id=r-1\"\\? client=192.0.2.7:4711 method=POST route=transaction status=400 duration_us=1234 txn_id=00000000-004d-0000-0000-000000000000 code=insufficient_funds",
        "2026-11-21T12:00:00.007Z transfer request_id=r-2 index=0 status=completed",
        "2026-11-21T12:00:00.007Z transfer request_id=r-2 index=1 status=rejected code=account_frozen",
        "2026-11-21T12:00:00.007Z transfer request_id=r-2 index=2 status=failed code=account_frozen",
    ];

    #[test]
    fn all_logs_every_request_and_every_transfer() {
        check(AccessLogMode::All, LogFormat::Text, &TEXT);
    }

    #[test]
    fn errors_logs_from_400_and_what_did_not_complete() {
        check(
            AccessLogMode::Errors,
            LogFormat::Text,
            &[TEXT[2], TEXT[4], TEXT[5]],
        );
    }

    #[test]
    fn off_logs_nothing_and_still_counts() {
        check(AccessLogMode::Off, LogFormat::Text, &[]);
        let exporter = exporter();
        let observer = observer(exporter, Settings::default(), &Shared::default());
        assert!(!observer.logs_transfers());
        observer.finished(&request(422));
        let page = exporter.render();
        for line in [
            "engine_requests_total{route=\"transaction\",status=\"422\"} 1\n",
            "engine_request_duration_seconds_count{route=\"transaction\",status=\"4xx\"} 1\n",
            "engine_request_duration_seconds_bucket{route=\"transaction\",status=\"4xx\",le=\"0.001\"} 0\n",
            "engine_request_duration_seconds_bucket{route=\"transaction\",status=\"4xx\",le=\"0.0025\"} 1\n",
        ] {
            assert!(page.contains(line), "{line}");
        }
    }

    #[test]
    fn json_lines_are_objects_whatever_the_client_sent_as_its_id() {
        check(
            AccessLogMode::Errors,
            LogFormat::Json,
            &[
                r#"{"timestamp":"2026-11-21T12:00:00.007Z","kind":"request","client":"192.0.2.7:4711","method":"POST","route":"transaction","status":400,"duration_us":1234,"request_id":"r-1\"\\?","txn_id":"00000000-004d-0000-0000-000000000000","code":"insufficient_funds"}"#,
                r#"{"timestamp":"2026-11-21T12:00:00.007Z","kind":"transfer","index":1,"status":"rejected","request_id":"r-2","code":"account_frozen"}"#,
                r#"{"timestamp":"2026-11-21T12:00:00.007Z","kind":"transfer","index":2,"status":"failed","request_id":"r-2","code":"account_frozen"}"#,
            ],
        );
        let out = Shared::default();
        let settings = Settings {
            mode: AccessLogMode::All,
            format: LogFormat::Json,
            ..Settings::default()
        };
        let observer = observer(exporter(), settings, &out);
        observer.finished(&request(200));
        observer.stop(LONG);
        let object: serde_json::Value = serde_json::from_str(&out.text()).unwrap();
        assert_eq!(object["replayed"], true);
        assert_eq!(object["request_id"], "r-1\"\\?");
    }

    #[test]
    fn a_stuck_log_drops_and_says_how_many_while_requests_go_on() {
        const CAPACITY: u32 = 4;
        let (entered_tx, entered) = crossbeam::channel::bounded(1);
        let (open, gate) = crossbeam::channel::bounded(0);
        let text = Arc::new(Mutex::new(Vec::new()));
        let (counts, written, dropped) = counters();
        let log = AccessLog::start(
            Settings {
                mode: AccessLogMode::All,
                format: LogFormat::Json,
                queue_lines_max: 4,
            },
            clock(),
            Box::new(Gated {
                entered: Some(entered_tx),
                gate,
                written: Arc::clone(&text),
            }),
            counts.written.unwrap(),
            counts.dropped,
        )
        .unwrap();
        let observer = Observer::new(exporter().metrics(), log, clock());
        observer.finished(&request(200));
        entered.recv().unwrap();
        for _ in 0..CAPACITY + 3 {
            observer.finished(&request(200));
        }
        assert_eq!(observer.stop(Duration::ZERO), Stopped::Stuck);
        drop(open);
        assert_eq!(observer.stop(LONG), Stopped::Flushed);
        assert_eq!((written.get(), dropped.get()), (5, 3));
        let text = String::from_utf8(text.lock().unwrap().clone()).unwrap();
        assert_eq!(
            text.lines().last(),
            Some(r#"{"timestamp":"2026-11-21T12:00:00.007Z","kind":"dropped","lines":3}"#)
        );
    }

    #[test]
    fn a_request_id_is_cut_at_64_bytes() {
        for length in [0, 1, 63, 64, 65, 1000] {
            let id = RequestId::new(&"x".repeat(length));
            assert_eq!(id.as_str().len(), length.min(64));
        }
        assert_eq!(RequestId::new("é").as_str(), "??");
    }
}
