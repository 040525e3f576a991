//! Telemetry as the daemon runs it: real sockets, real pipes, many threads.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use engine::admin::{self, Heartbeat, Readiness, ReadinessSettings, Sources};
use engine::clock::Clock;
use engine::telemetry::access_log::{self, AccessLog, AccessLogMode, LogFormat, RequestId};
use engine::telemetry::exporter::Exporter;
use engine::telemetry::label::{CommitPhase, Method, Route};
use engine::telemetry::{Observer, RequestFacts, Stopped};

const LONG: Duration = Duration::from_secs(60);

fn exporter() -> &'static Exporter {
    Box::leak(Box::new(Exporter::new()))
}

fn facts(status: u16) -> RequestFacts {
    RequestFacts {
        request_id: RequestId::new("0191d6b0-0000-7000-8000-000000000000"),
        client: SocketAddr::from((Ipv4Addr::LOCALHOST, 4711)),
        route: Route::Transaction,
        method: Method::Post,
        status,
        code: None,
        txn_id: None,
        duration: Duration::from_millis(1),
        replayed: false,
    }
}

fn scrape(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: engine\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    page.to_owned()
}

fn promtool(page: &str) -> String {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool checks the page; it is in the Debian package `prometheus`");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(page.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    format!("{}{}", String::from_utf8_lossy(&said), output.status)
}

#[test]
fn requests_counted_by_many_threads_under_scrapes_are_all_there() {
    const THREADS: usize = 4;
    const REQUESTS: usize = 20_000;
    let exporter = exporter();
    let admin = admin::start(
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(),
        admin::Settings::default(),
        Sources {
            exporter,
            readiness: Arc::new(Readiness::new(ReadinessSettings::default())),
            heartbeat: Arc::new(Heartbeat::new()),
        },
    )
    .unwrap();
    let observer = Observer::new(exporter.metrics(), None, Clock::System);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..REQUESTS {
                    observer.finished(&facts(200));
                    let total = exporter.metrics().commit.duration.get(CommitPhase::Total);
                    total.record(Duration::from_millis(2));
                }
            });
        }
        for _ in 0..5 {
            scrape(admin.address());
        }
    });
    let page = scrape(admin.address());
    let all = THREADS * REQUESTS;
    for line in [
        format!("engine_requests_total{{route=\"transaction\",status=\"200\"}} {all}\n"),
        "engine_request_duration_seconds_bucket{route=\"transaction\",status=\"2xx\",le=\"0.0005\"} 0\n".to_owned(),
        format!(
            "engine_request_duration_seconds_bucket{{route=\"transaction\",status=\"2xx\",le=\"0.001\"}} {all}\n"
        ),
        format!("engine_commit_duration_seconds_count{{phase=\"total\"}} {all}\n"),
    ] {
        assert!(page.contains(&line), "{line}");
    }
    assert_eq!(promtool(&page), "exit status: 0");
    assert_eq!(admin.stop(LONG), Stopped::Flushed);
}

#[test]
fn promtool_would_object_to_a_bad_page() {
    // Shows that the check above can fail.
    let said = promtool("# TYPE engine_wait_ms counter\nengine_wait_ms 1\n");
    assert!(said.contains("no help text"), "{said}");
    assert!(!said.ends_with("exit status: 0"), "{said}");
}

#[test]
fn a_pipe_that_nobody_reads_holds_up_no_request() {
    // A pipe holds 64 KiB; these lines are several megabytes.
    const REQUESTS: u64 = 20_000;
    let (mut reader, writer) = std::io::pipe().unwrap();
    let exporter = exporter();
    let engine = &exporter.metrics().engine;
    let log = AccessLog::start(
        access_log::Settings {
            mode: AccessLogMode::All,
            format: LogFormat::Json,
            queue_lines_max: 1_000,
        },
        Clock::System,
        Box::new(writer),
        engine.access_log_lines.clone(),
        engine.access_log_dropped.clone(),
    )
    .unwrap();
    let observer = Observer::new(exporter.metrics(), log, Clock::System);
    for _ in 0..REQUESTS {
        observer.finished(&facts(200));
    }
    // All requests are through, and the pipe is still unread.
    assert_eq!(observer.stop(Duration::ZERO), Stopped::Stuck);
    let reading = thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    assert_eq!(observer.stop(LONG), Stopped::Flushed);
    let text = reading.join().unwrap();
    let (mut lines, mut dropped) = (0, 0);
    for line in text.lines() {
        let object: serde_json::Value = serde_json::from_str(line).expect(line);
        match object["kind"].as_str() {
            Some("request") => lines += 1,
            Some("dropped") => dropped += object["lines"].as_u64().unwrap(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(lines + dropped, REQUESTS);
    assert!(0 < dropped);
    let page = exporter.render();
    assert!(page.contains(&format!("engine_access_log_lines_total {lines}\n")));
    assert!(page.contains(&format!("engine_access_log_dropped_total {dropped}\n")));
}
