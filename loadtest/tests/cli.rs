//! The command as a user meets it, against a small server in this process.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    reason = "clippy allows it in test functions only, not in their helpers"
)]

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

/// One request as the server saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    line: String,
    key: Option<String>,
    body: String,
}

type Log = Arc<Mutex<Vec<Seen>>>;

/// What the server writes to the n-th request (from 0), and whether it then closes.
type Answer = fn(usize, &Seen) -> (Vec<u8>, After);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Keep,
    Close,
}

fn http(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}").into_bytes()
}

fn ok(_: usize, _: &Seen) -> (Vec<u8>, After) {
    let body = r#"{"txn_id":"0","status":"completed"}"#;
    (http("200 OK", "", body), After::Keep)
}

/// Serves until the test process ends.
fn server(answer: Answer) -> (SocketAddr, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let log = Log::default();
    let shared = Arc::clone(&log);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let log = Arc::clone(&shared);
            std::thread::spawn(move || serve(stream.unwrap(), answer, &log));
        }
    });
    (address, log)
}

fn serve(stream: TcpStream, answer: Answer, log: &Log) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    // Or the second piece of an answer would wait for the first one's receipt.
    stream.set_nodelay(true).unwrap();
    let mut writer = stream;
    // Or the second piece waits for the acknowledgement of the first.
    writer.set_nodelay(true).unwrap();
    while let Some(seen) = read_request(&mut reader) {
        let number = {
            let mut log = log.lock().unwrap();
            log.push(seen.clone());
            log.len() - 1
        };
        let (bytes, after) = answer(number, &seen);
        // In two pieces, so that the client meets a split somewhere.
        let (left, right) = bytes.split_at(number % (bytes.len() + 1));
        for piece in [left, right] {
            if writer.write_all(piece).is_err() {
                return;
            }
        }
        if after == After::Close {
            return;
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Seen> {
    let mut line = String::new();
    reader
        .read_line(&mut line)
        .ok()
        .filter(|count| *count > 0)?;
    let (mut key, mut length) = (None, 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim_end();
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(": ").unwrap();
        match name {
            "Idempotency-Key" => key = Some(value.to_owned()),
            "Content-Length" => length = value.parse().unwrap(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Seen {
        line: line.trim_end().to_owned(),
        key,
        body: String::from_utf8(body).unwrap(),
    })
}

fn loadtest(flags: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(flags.split_whitespace())
        .output()
        .unwrap()
}

/// Exit code and document of a short run against `address`.
fn run(address: SocketAddr, flags: &str) -> (Option<i32>, Value) {
    let file = std::env::temp_dir().join(format!(
        "loadtest-{}-{}.json",
        std::process::id(),
        address.port()
    ));
    let timed = flags.contains("--run-time") || flags.contains("--stage");
    let time = if timed { "" } else { "--run-time 200ms" };
    let output = loadtest(&format!(
        "run --host http://{address} {time} --quiet --json {} {flags}",
        file.display()
    ));
    let text = std::fs::read_to_string(&file)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    std::fs::remove_file(&file).unwrap();
    (output.status.code(), serde_json::from_str(&text).unwrap())
}

fn number(document: &Value, pointer: &str) -> u64 {
    let value = document.pointer(pointer).and_then(Value::as_u64);
    value.unwrap_or_else(|| panic!("{pointer} in {document}"))
}

#[test]
fn a_closed_run_answers_all_it_sent_and_repeats_no_key() {
    let (address, log) = server(ok);
    let (code, document) = run(address, "--users 8 --threads 3 --accounts 1..=50");
    assert_eq!(code, Some(0), "{document}");
    let log = log.lock().unwrap();
    let sent = number(&document, "/requests/sent");
    assert_eq!(usize::try_from(sent).unwrap(), log.len());
    assert_eq!(number(&document, "/requests/answered"), sent);
    assert_eq!(number(&document, "/transfers/completed"), sent);
    assert_eq!(number(&document, "/latency_us/2xx/count"), sent);
    assert_eq!(number(&document, "/version"), 2);
    let keys: HashSet<_> = log.iter().map(|seen| seen.key.clone().unwrap()).collect();
    assert_eq!(keys.len(), log.len());
    assert!(
        log.iter()
            .all(|seen| seen.line == "POST /transaction HTTP/1.1")
    );
}

#[test]
fn a_seed_makes_the_same_requests_again() {
    let bodies = |seed| {
        let (address, log) = server(ok);
        run(address, &format!("--users 1 --rate 100 --seed {seed}"));
        let log = log.lock().unwrap();
        assert!(log.len() > 1);
        log[..2].to_vec()
    };
    assert_eq!(bodies(42), bodies(42));
    assert_ne!(bodies(42), bodies(43));
}

/// A fresh path in the directory for temporary files.
fn temporary(name: &str) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("loadtest-{}-{name}", std::process::id()));
    assert!(!path.exists(), "{}", path.display());
    path
}

#[test]
fn init_writes_a_scenario_that_runs_and_never_overwrites_one() {
    let file = temporary("init.toml");
    let first = loadtest(&format!("init {}", file.display()));
    let again = loadtest(&format!("init {}", file.display()));
    let (address, log) = server(ok);
    let flags = format!("--scenario {} --users 8 --threads 2", file.display());
    let (code, document) = run(address, &flags);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(first.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&first.stdout).contains("loadtest run --scenario"));
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("left alone"));
    assert_eq!(code, Some(0), "{document}");
    assert_eq!(number(&document, "/config/users"), 8);
    let log = log.lock().unwrap();
    assert!(
        log.iter()
            .any(|seen| seen.line == "POST /transaction HTTP/1.1")
    );
}

#[test]
fn a_scenario_looks_up_what_was_answered_and_repeats_what_was_sent() {
    let file = temporary("mixed.toml");
    let tasks = r#"[{ task = "transfer" }, { task = "lookup" }, { task = "repeat" }]"#;
    let text = format!("seed = 1\n[[classes]]\nname = \"a\"\ntasks = {tasks}\n");
    std::fs::write(&file, text).unwrap();
    let (address, log) = server(|_, _| {
        let body = r#"{"txn_id":"0190f3a2-7b1c-7def-8123-456789abcdef","status":"completed"}"#;
        (http("200 OK", "", body), After::Keep)
    });
    let (code, document) = run(address, &format!("--scenario {} --users 4", file.display()));
    std::fs::remove_file(&file).unwrap();
    assert_eq!(code, Some(0), "{document}");
    let log = log.lock().unwrap();
    let line = "GET /transactions/0190f3a2-7b1c-7def-8123-456789abcdef HTTP/1.1";
    assert!(log.iter().any(|seen| seen.line == line));
    let mut bodies = HashMap::new();
    let mut transfers = 0_u64;
    for seen in log.iter().filter(|seen| seen.key.is_some()) {
        let body = bodies.entry(&seen.key).or_insert(&seen.body);
        assert_eq!(*body, &seen.body, "a repeat is the same request");
        transfers += 1;
    }
    let different = u64::try_from(bodies.len()).unwrap();
    assert!(different < transfers, "nothing was repeated");
    // A repeat moves nothing, so it is no transfer.
    assert_eq!(number(&document, "/transfers/completed"), different);
}

#[test]
fn a_scenario_that_is_wrong_is_bad_usage_and_says_where() {
    let file = temporary("wrong.toml");
    std::fs::write(&file, "users = 3\n\n[defaults]\namount = 1.5\n").unwrap();
    let output = loadtest(&format!("run --scenario {}", file.display()));
    std::fs::remove_file(&file).unwrap();
    assert_eq!(output.status.code(), Some(64));
    let message = String::from_utf8_lossy(&output.stderr);
    let place = format!("{}:4: defaults.amount: ", file.display());
    assert!(message.contains(&place), "{message}");
    let missing = loadtest(&format!("run --scenario {}", file.display()));
    assert_eq!(missing.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("No such file"));
}

#[test]
fn an_open_run_sends_or_counts_every_arrival() {
    let (address, log) = server(ok);
    let (code, document) = run(address, "--users 2 --rate 500");
    assert_eq!(code, Some(0), "{document}");
    let sent = number(&document, "/requests/sent");
    // 500 a second for 200 ms, however slow this machine is just now.
    assert_eq!(sent + number(&document, "/requests/unsent"), 100);
    assert_eq!(usize::try_from(sent).unwrap(), log.lock().unwrap().len());
}

#[test]
fn refusals_are_counted_by_status_and_code_with_latencies_of_their_own() {
    let (address, _log) = server(|number, seen| {
        if number % 2 == 0 {
            return ok(number, seen);
        }
        let body = r#"{"status":503,"code":"queue_full"}"#;
        (http("503 Service Unavailable", "", body), After::Keep)
    });
    let (code, document) = run(address, "--retries 0 --users 4");
    assert_eq!(code, Some(0), "a refusal is an answer: {document}");
    let refused = number(&document, "/statuses/503");
    assert!(refused > 0);
    assert_eq!(number(&document, "/codes/queue_full"), refused);
    assert_eq!(number(&document, "/latency_us/503/count"), refused);
    let fine = number(&document, "/statuses/200");
    assert_eq!(number(&document, "/latency_us/2xx/count"), fine);
    assert_eq!(number(&document, "/transfers/completed"), fine);
}

#[test]
fn a_batch_counts_its_transfers_from_the_answer() {
    let (address, log) = server(|_, _| {
        let body = r#"{"results":[{"status":"completed"},{"status":"rejected","code":"insufficient_funds"},{"status":"completed","replayed":true}]}"#;
        (http("200 OK", "", body), After::Keep)
    });
    let (code, document) = run(address, "--users 2 --task batch:3");
    assert_eq!(code, Some(0), "{document}");
    let calls = number(&document, "/requests/answered");
    assert_eq!(number(&document, "/transfers/completed"), 2 * calls);
    assert_eq!(number(&document, "/transfers/rejected"), calls);
    assert_eq!(number(&document, "/codes/insufficient_funds"), calls);
    let first = log.lock().unwrap()[0].clone();
    let body: Value = serde_json::from_str(&first.body).unwrap();
    assert_eq!(body["transfers"].as_array().unwrap().len(), 3);
    assert_eq!(first.key, None);
}

#[test]
fn a_polite_close_is_no_error_and_a_broken_answer_is() {
    let (address, _log) = server(|_, _| {
        let answer = http("200 OK", "connection: close\r\n", "{}");
        (answer, After::Close)
    });
    let (code, document) = run(address, "--users 2 --task health");
    assert_eq!(code, Some(0), "{document}");
    assert!(number(&document, "/errors/reconnects") > 0);

    let (address, _log) = server(|number, seen| match number {
        0 => ok(number, seen),
        _ => (b"HTTP/1.1 200 OK\r\ncontent-le".to_vec(), After::Close),
    });
    let (code, document) = run(address, "--users 2");
    assert_eq!(code, Some(1), "{document}");
    assert!(number(&document, "/errors/io") > 0);
    assert_eq!(number(&document, "/requests/answered"), 1);
}

#[test]
fn replays_are_counted() {
    let (address, _log) = server(|_, _| {
        let header = "Idempotency-Replayed: true\r\n";
        (http("200 OK", header, "{}"), After::Keep)
    });
    let (_, document) = run(address, "--users 1");
    assert_eq!(
        number(&document, "/requests/replayed"),
        number(&document, "/requests/answered")
    );
}

#[test]
fn exit_codes_tell_bad_arguments_from_a_failed_run() {
    assert_eq!(loadtest("run --users 0").status.code(), Some(64));
    assert_eq!(loadtest("").status.code(), Some(64));
    let remote = loadtest("run --host http://192.0.2.1:1");
    assert_eq!(remote.status.code(), Some(64));
    assert_eq!(loadtest("run --help").status.code(), Some(0));

    // A port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let refused = loadtest(&format!("run --quiet --host http://{address}"));
    assert_eq!(refused.status.code(), Some(1));
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(message.contains("cannot reach"), "{message}");

    let (address, _log) = server(|_, _| (http("404 Not Found", "", "{}"), After::Keep));
    let (code, document) = run(address, "--users 1");
    assert_eq!(code, Some(1), "nothing succeeded: {document}");
}

#[test]
fn a_stall_of_the_target_is_seen_in_full_in_the_open_model() {
    // One connection's server sleeps for two seconds once; the others are free.
    // With one connection every arrival of those two seconds waits for it.
    let (address, _log) = server(|number, seen| {
        if number == 20 {
            std::thread::sleep(Duration::from_secs(2));
        }
        ok(number, seen)
    });
    let (code, document) = run(address, "--users 1 --rate 100 --run-time 2500ms");
    assert_eq!(code, Some(0), "{document}");
    let sent = number(&document, "/requests/sent");
    assert_eq!(sent + number(&document, "/requests/unsent"), 250);
    for place in ["p999", "max"] {
        let seen = number(&document, &format!("/latency_us/2xx/{place}"));
        assert!(seen >= 1_990_000, "{place}: {document}");
    }
    // The requests due during the stall were sent after it: they show it too,
    // although the target answered each of them at once.
    assert!(number(&document, "/latency_us/2xx/p90") >= 1_000_000);
    assert!(number(&document, "/service_us/2xx/p90") < 1_000_000);
    // The target stalled, not the generator: no connection was free.
    assert!(number(&document, "/generator/lag_p99_us") < 1_000_000);
}

/// 503 with Retry-After, a closed connection, 504, then the answer.
fn faults(number: usize, seen: &Seen) -> (Vec<u8>, After) {
    let body = r#"{"status":503,"code":"queue_full"}"#;
    match number {
        0 => {
            let answer = http("503 Service Unavailable", "Retry-After: 1\r\n", body);
            (answer, After::Keep)
        }
        1 => (Vec::new(), After::Close),
        2 => (http("504 Gateway Timeout", "", "{}"), After::Keep),
        _ => ok(number, seen),
    }
}

#[test]
fn a_transfer_is_sent_again_with_its_key_until_it_is_answered() {
    // A think time of an hour: each user sends one request, and its repeats.
    // In the open model the stage has one arrival.
    for flags in [
        "--users 1 --think 1h --run-time 3s",
        "--users 2 --stage duration=1ms,rate=1 --stage duration=3s,rate=0",
    ] {
        let (address, log) = server(faults);
        let (code, document) = run(address, &format!("{flags} --retries 5"));
        assert_eq!(code, Some(0), "{document}");
        let log = log.lock().unwrap();
        assert_eq!(log.len(), 4, "{log:?}");
        assert!(log[0].key.is_some());
        assert!(log.iter().all(|seen| *seen == log[0]), "{log:?}");
        assert_eq!(number(&document, "/requests/sent"), 4);
        assert_eq!(number(&document, "/requests/retried"), 3);
        assert_eq!(number(&document, "/transfers/completed"), 1);
        assert_eq!(number(&document, "/errors/io"), 1);
        assert_eq!(number(&document, "/statuses/503"), 1);
        // One request, so one latency: from its first start, with every wait.
        assert_eq!(number(&document, "/latency_us/2xx/count"), 1);
        assert!(number(&document, "/latency_us/2xx/max") >= 1_000_000);
        assert_eq!(number(&document, "/latency_us/503/count"), 0);
        let series = document["series"].as_array().unwrap();
        let sum = |name: &str| series.iter().filter_map(|p| p[name].as_u64()).sum::<u64>();
        assert_eq!((sum("succeeded"), sum("failed"), sum("retried")), (1, 0, 3));
    }
}

#[test]
fn a_repeat_is_bounded_and_only_for_transfers_with_a_key() {
    let refuse: Answer = |_, _| (http("503 Service Unavailable", "", "{}"), After::Keep);
    for (flags, sent) in [
        ("--retries 2", 3),
        ("--retries 0", 1),
        ("--retries 2 --keys off", 1),
        ("--retries 2 --task balance", 1),
    ] {
        let (address, log) = server(refuse);
        let flags = format!("--users 1 --think 1h --run-time 1s {flags}");
        let (code, document) = run(address, &flags);
        assert_eq!(code, Some(1), "nothing succeeded: {document}");
        assert_eq!(log.lock().unwrap().len(), sent, "{flags}");
        assert_eq!(number(&document, "/latency_us/503/count"), 1, "{flags}");
    }
}

#[test]
fn what_waits_to_be_sent_again_when_the_run_ends_ends_as_it_was() {
    // The second repeat would be due beyond the end of the run.
    let (address, log) = server(|_, _| {
        let answer = http("503 Service Unavailable", "Retry-After: 60\r\n", "{}");
        (answer, After::Keep)
    });
    let (_, document) = run(address, "--users 1 --think 1h --retries 9");
    assert_eq!(log.lock().unwrap().len(), 1);
    assert_eq!(number(&document, "/latency_us/503/count"), 1);
    assert_eq!(number(&document, "/requests/retried"), 0);
}

#[test]
fn users_start_at_the_spawn_rate_and_think_between_requests() {
    let (address, log) = server(ok);
    // Five users in half a second, each of which thinks longer than the run.
    let flags = "--users 100 --spawn-rate 10 --think 1h --run-time 500ms --threads 2";
    let (code, document) = run(address, flags);
    assert_eq!(code, Some(0), "{document}");
    // User 5 is due at the very end; a loaded machine may start fewer in time.
    let sent = log.lock().unwrap().len();
    assert!((1..=6).contains(&sent), "{sent} users sent");
    let keys: HashSet<_> = log.lock().unwrap().iter().map(|s| s.key.clone()).collect();
    assert_eq!(keys.len(), sent);
}

#[test]
fn an_interrupted_run_reports_what_was_done() {
    let (address, log) = server(ok);
    let file = std::env::temp_dir().join(format!("loadtest-stopped-{}.json", address.port()));
    let child = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args([
            "run",
            "--host",
            &format!("http://{address}"),
            "--users",
            "2",
        ])
        .args(["--run-time", "10m", "--json"])
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while log.lock().unwrap().len() < 10 {
        std::thread::yield_now();
    }
    let id = i32::try_from(child.id()).unwrap();
    let pid = rustix::process::Pid::from_raw(id).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("interrupted"), "{text}");
    let document: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    std::fs::remove_file(&file).unwrap();
    let sent = number(&document, "/requests/sent");
    assert_eq!(usize::try_from(sent).unwrap(), log.lock().unwrap().len());
    assert_eq!(number(&document, "/requests/answered"), sent);
    assert!(
        document["rate"].as_f64().unwrap() > 0.1,
        "over the time it ran"
    );
}
