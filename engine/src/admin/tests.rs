use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;

use super::*;
use crate::telemetry::label::{Label as _, PartitionedTable};

const LONG: Duration = Duration::from_secs(20);

fn sources() -> Sources {
    Sources {
        exporter: Box::leak(Box::new(Exporter::new())),
        readiness: Arc::new(Readiness::new(ReadinessSettings::default())),
        heartbeat: Arc::new(Heartbeat::new()),
    }
}

fn started(settings: Settings, sources: &Sources) -> AdminHandle {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    start(listener, settings, sources.clone()).unwrap()
}

fn connect(admin: &AdminHandle) -> std::net::TcpStream {
    let stream = std::net::TcpStream::connect(admin.address()).unwrap();
    // A test that would hang fails instead.
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

/// What came until the connection closed; a reset counts as a close.
fn read_all(stream: &mut std::net::TcpStream) -> String {
    let mut text = Vec::new();
    match stream.read_to_end(&mut text) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
    String::from_utf8(text).unwrap()
}

fn ask(admin: &AdminHandle, method: &str, path: &str) -> (String, String) {
    let mut stream = connect(admin);
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: engine\r\n\r\n").unwrap();
    let answer = read_all(&mut stream);
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    let status = head.split(' ').nth(1).unwrap();
    (status.to_owned(), body.to_owned())
}

fn make_ready(readiness: &Readiness) {
    readiness.set_database(Database::Up);
    readiness.set_schema(Schema::Current(2));
    readiness.set_writes(Writes::Accepted);
    readiness.set_replication(Replication::Enough("none".to_owned()));
    readiness.set_clock_skew_ms(0);
    for table in PartitionedTable::ALL {
        readiness.set_partitions(*table, Partitions::Ahead(3));
    }
}

#[test]
fn each_path_answers_and_others_name_them() {
    let sources = sources();
    let admin = started(Settings::default(), &sources);
    for (method, path, status, body) in [
        ("GET", "/livez", "200", "alive\n"),
        (
            "GET",
            "/",
            "404",
            "there are /metrics, /livez and /readyz\n",
        ),
        (
            "POST",
            "/",
            "404",
            "there are /metrics, /livez and /readyz\n",
        ),
        ("POST", "/metrics", "405", "use GET\n"),
        ("HEAD", "/livez", "200", ""),
    ] {
        let expected = (status.to_owned(), body.to_owned());
        assert_eq!(ask(&admin, method, path), expected, "{method} {path}");
    }
    let (status, page) = ask(&admin, "GET", "/metrics");
    assert_eq!(status, "200");
    for family in sources.exporter.families() {
        assert!(page.contains(family.name), "{}", family.name);
    }
    assert!(page.contains("engine_ready 0\n"));
    assert_eq!(admin.stop(LONG), Stopped::Flushed);
}

#[test]
fn readyz_names_every_dependency() {
    let sources = sources();
    let admin = started(Settings::default(), &sources);
    let (status, body) = ask(&admin, "GET", "/readyz");
    assert_eq!(status, "503");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["status"], "unready");
    assert_eq!(body["checks"]["database"]["status"], "failed");

    make_ready(&sources.readiness);
    sources.readiness.set_redis(Redis::Down);
    let (status, body) = ask(&admin, "GET", "/readyz");
    assert_eq!(status, "200");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    let level = |name: &str| body["checks"][name]["status"].clone();
    assert_eq!(body["status"], "ready");
    assert_eq!(level("redis"), "warning");
    for name in [
        "database",
        "schema",
        "writable",
        "clock_skew",
        "partitions_ahead",
        "draining",
        "runtime",
    ] {
        assert_eq!(level(name), "ok", "{name}");
    }

    sources.readiness.set_draining();
    assert_eq!(ask(&admin, "GET", "/readyz").0, "503");
    assert_eq!(ask(&admin, "GET", "/livez").0, "200");
}

#[test]
fn it_answers_while_the_main_runtime_is_stuck() {
    let sources = sources();
    make_ready(&sources.readiness);
    let main = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (stuck_tx, stuck) = bounded(1);
    let (release, released) = bounded::<()>(0);
    let heartbeat = Arc::clone(&sources.heartbeat);
    main.spawn(async move {
        heartbeat.beat();
        stuck_tx.send(()).unwrap();
        // Holds the only worker, as a deadlock would.
        released.recv().unwrap_err();
    });
    stuck.recv().unwrap();

    let patient = started(Settings::default(), &sources);
    assert_eq!(ask(&patient, "GET", "/livez").0, "200");
    assert_eq!(ask(&patient, "GET", "/metrics").0, "200");

    let strict = Settings {
        live_silence_max: Duration::ZERO,
        ready_silence_max: Duration::ZERO,
        ..Settings::default()
    };
    let strict = started(strict, &sources);
    assert_eq!(ask(&strict, "GET", "/livez").0, "503");
    let (status, body) = ask(&strict, "GET", "/readyz");
    assert_eq!(status, "503");
    assert!(
        body.contains(r#""runtime":{"detail":"the main runtime is silent","status":"failed"}"#)
    );
    drop(release);
}

/// Each of the two limits alone closes it. Hyper's own default, 30 s, would
/// come after this test's patience.
#[test]
fn a_connection_that_says_nothing_is_closed() {
    let hour = Duration::from_secs(3600);
    let moment = Duration::from_millis(20);
    for (header_time_max, connection_time_max) in [(moment, hour), (hour, moment)] {
        let quick = Settings {
            header_time_max,
            connection_time_max,
            ..Settings::default()
        };
        let admin = started(quick, &sources());
        let mut silent = connect(&admin);
        assert!(!read_all(&mut silent).contains("200"));
        let mut half = connect(&admin);
        half.write_all(b"GET /livez HTTP/1.1\r\nHost:").unwrap();
        assert!(!read_all(&mut half).contains("200"));
    }
}

#[test]
fn one_connection_too_many_is_closed_and_counted() {
    let sources = sources();
    let narrow = Settings {
        connections_max: 1,
        header_time_max: LONG,
        connection_time_max: LONG,
        ..Settings::default()
    };
    let admin = started(narrow, &sources);
    let idle = connect(&admin);
    let mut refused = connect(&admin);
    assert_eq!(read_all(&mut refused), "");
    drop(idle);
    // The place is free as soon as the close is seen; until then, refusals.
    let answer = (0..10_000).find_map(|_| {
        let mut stream = connect(&admin);
        let sent = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        let answer = read_all(&mut stream);
        (sent.is_ok() && !answer.is_empty()).then_some(answer)
    });
    let page = answer.expect("an answer once the place is free");
    let refusals = page
        .lines()
        .find_map(|line| line.strip_prefix("engine_admin_connections_refused_total "))
        .unwrap();
    assert!(1 <= refusals.parse::<u64>().unwrap());
}

#[test]
fn a_stopped_listener_refuses_connections() {
    let admin = started(Settings::default(), &sources());
    let mut open = connect(&admin);
    assert_eq!(admin.stop(LONG), Stopped::Flushed);
    assert_eq!(read_all(&mut open), "");
    let refused = std::net::TcpStream::connect(admin.address()).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}
