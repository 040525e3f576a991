//! One run over several workers, each a process of its own, as a user starts it.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    reason = "clippy allows it in test functions only, not in their helpers"
)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// For what must happen, however slow the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// The keys that a target saw, one for each request.
type Keys = Arc<Mutex<Vec<String>>>;

/// Answers every transfer, until the test process ends.
fn target() -> (SocketAddr, Keys) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let keys = Keys::default();
    let shared = Arc::clone(&keys);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let keys = Arc::clone(&shared);
            std::thread::spawn(move || answer(&stream.unwrap(), &keys));
        }
    });
    (address, keys)
}

fn answer(stream: &TcpStream, keys: &Keys) -> Option<()> {
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream);
    let body = r#"{"txn_id":"0","status":"completed"}"#;
    let length = body.len();
    let bytes = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
    loop {
        let (mut line, mut length) = (String::new(), 0);
        while line.trim_end() != "" || length == 0 {
            line.clear();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(key) = line.strip_prefix("Idempotency-Key: ") {
                keys.lock().unwrap().push(key.trim_end().to_owned());
            }
            if let Some(bytes) = line.strip_prefix("Content-Length: ") {
                length = bytes.trim_end().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        (&mut &*stream).write_all(bytes.as_bytes()).ok()?;
    }
}

/// A process that is ended with the test, and what it says on standard error.
struct Process {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Process {
    fn start(flags: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_loadtest"))
            .args(flags)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::<Mutex<String>>::default();
        let (shared, stderr) = (Arc::clone(&said), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                shared.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Self { child, said }
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    fn wait_to_say(&self, part: &str) {
        until(part, || self.said().contains(part));
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(status.success());
    }

    fn wait(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "still runs: {}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[track_caller]
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

struct Worker {
    process: Process,
    address: String,
}

fn worker(flags: &[&str]) -> Worker {
    let all = [&["serve-worker", "--listen", "127.0.0.1:0"], flags].concat();
    let process = Process::start(&all);
    process.wait_to_say("the worker is at ");
    let said = process.said();
    let (_, rest) = said.split_once("the worker is at ").unwrap();
    let address = rest.split_whitespace().next().unwrap().to_owned();
    Worker { process, address }
}

fn both(one: &Worker, other: &Worker) -> String {
    format!("{},{}", one.address, other.address)
}

fn loadtest(flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(flags)
        .output()
        .unwrap()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// A run of workers: exit code, document, standard error.
fn run(target: SocketAddr, workers: &str, flags: &str) -> (Option<i32>, Value, String) {
    let folder = Folder::new();
    let file = folder.file("report.json");
    let host = format!("http://{target}");
    let mut all = vec!["run", "--host", &host, "--workers", workers, "--quiet"];
    all.extend(["--json", file.to_str().unwrap()]);
    all.extend(flags.split_whitespace());
    let output = loadtest(&all);
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    let text = std::fs::read_to_string(file).unwrap_or_else(|_| "null".to_owned());
    let document = serde_json::from_str(&text).unwrap();
    (output.status.code(), document, said)
}

/// 600 arrivals, and time to send the last of them on a machine that is busy;
/// seven users are no multiple of four threads.
const OPEN: &str = "--users 7 --stage duration=1500ms,rate=400 --stage duration=1s,rate=0 \
    --seed 11 --retries 0";

#[test]
fn two_workers_are_one_run() {
    let (address, keys) = target();
    let (one, two) = (worker(&[]), worker(&[]));
    let workers = both(&one, &two);
    let (code, report, said) = run(address, &workers, &format!("{OPEN} --threads 2"));
    assert_eq!(code, Some(0), "{said}");
    let seen = std::mem::take(&mut *keys.lock().unwrap());
    let distinct: BTreeSet<String> = seen.iter().cloned().collect();
    assert_eq!(seen.len(), 600, "each arrival once: {said}");
    assert_eq!(distinct.len(), 600, "no key twice");
    let count = |of: &Value, name: &str| of[name].as_u64().unwrap();
    assert_eq!(count(&report["requests"], "sent"), 600);
    assert_eq!(count(&report["requests"], "answered"), 600);
    assert_eq!(count(&report["latency_us"]["2xx"], "count"), 600);
    assert_eq!((report["config"]["users"].as_u64()), Some(7));
    assert_eq!((report["config"]["rate"].as_u64()), Some(400));
    assert_eq!((report["config"]["threads"].as_u64()), Some(4));
    let parts = report["workers"].as_array().unwrap();
    let names: Vec<_> = parts.iter().map(|part| part["name"].as_str()).collect();
    assert_eq!(names, [Some(&*one.address), Some(&*two.address)]);
    // Users 0, 1, 4 and 5 on the first, and 600 arrivals are 85 turns and five.
    for (part, sent) in parts.iter().zip([343, 257]) {
        assert_eq!((count(part, "sent"), count(part, "answered")), (sent, sent));
        // No claim about speed: but the clocks were compared, on one machine.
        assert!(count(part, "clock_error_us") < 1_000_000, "{part}");
        assert!(count(part, "started_after_us") < 10_000_000, "{part}");
    }
    assert!(said.contains("began within"), "{said}");

    // The same seed on one machine, with another number of threads.
    let host = format!("http://{address}");
    let mut flags = vec!["run", "--quiet", "--threads", "1", "--host", &host];
    flags.extend(OPEN.split_whitespace());
    assert!(loadtest(&flags).status.success());
    let alone: BTreeSet<String> = keys.lock().unwrap().drain(..).collect();
    assert!(alone == distinct, "one run sends the same keys");

    // The workers are free for the next one, whose users are the closed model's.
    let flags = "--users 5 --think 5ms --run-time 400ms";
    let (code, report, said) = run(address, &workers, flags);
    assert_eq!(code, Some(0), "{said}");
    let seen = keys.lock().unwrap();
    let sent = count(&report["requests"], "sent");
    assert_eq!(u64::try_from(seen.len()).unwrap(), sent);
    let users: BTreeSet<_> = seen.iter().map(|key| key.split('-').nth(1)).collect();
    assert_eq!(users.len(), 5, "user numbers do not collide");
}

#[test]
fn nothing_starts_if_one_worker_is_missing() {
    let (address, keys) = target();
    let one = worker(&[]);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let missing = closed.local_addr().unwrap().to_string();
    drop(closed);
    let workers = format!("{},{missing}", one.address);
    let (code, _, said) = run(address, &workers, "--run-time 200ms");
    assert_eq!(code, Some(1));
    assert!(
        said.contains(&format!("worker {missing} cannot be reached")),
        "{said}"
    );
    assert!(said.contains("Nothing was started"), "{said}");
    let (code, _, said) = run(address, &workers, "--run-time 200ms --workers-wait 700ms");
    assert_eq!(code, Some(1));
    assert!(
        said.contains(&format!("waiting for worker {missing}")),
        "{said}"
    );
    assert!(keys.lock().unwrap().is_empty());
    let (code, _, said) = run(address, &one.address, "--run-time 200ms");
    assert_eq!(code, Some(0), "the other one is free: {said}");
}

#[test]
fn a_target_that_cannot_be_reached_is_said_by_its_worker() {
    let one = worker(&["--once"]);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let missing = closed.local_addr().unwrap();
    drop(closed);
    for _ in 0..2 {
        // Nothing was sent, so a worker with --once goes on waiting.
        let (code, _, said) = run(missing, &one.address, "--run-time 200ms");
        assert_eq!(code, Some(1));
        let expected = format!("worker {}: cannot reach http://{missing}", one.address);
        assert!(said.contains(&expected), "{said}");
    }
}

#[test]
fn only_who_knows_the_token_may_use_a_worker() {
    let (address, keys) = target();
    let folder = Folder::new();
    let files = ["right", "wrong"].map(|name| {
        let file = folder.file(name);
        std::fs::write(&file, format!("{name}-0123456789abcdef\n")).unwrap();
        file.to_str().unwrap().to_owned()
    });
    let one = worker(&["--token-file", &files[0], "--once"]);
    for (flags, part) in [
        (String::new(), "it wants a token"),
        (
            format!("--workers-token-file {}", files[1]),
            "its token is another one",
        ),
    ] {
        let (code, _, said) = run(address, &one.address, &format!("--run-time 200ms {flags}"));
        assert_eq!(code, Some(1));
        assert!(said.contains(part), "{said}");
    }
    assert!(keys.lock().unwrap().is_empty());
    let flags = format!("--run-time 200ms --workers-token-file {}", files[0]);
    let (code, _, said) = run(address, &one.address, &flags);
    assert_eq!(code, Some(0), "{said}");
    let mut process = one.process;
    assert!(process.wait().success(), "--once ends after one run");

    let open = loadtest(&["serve-worker", "--listen", "0.0.0.0:0"]);
    assert_eq!(open.status.code(), Some(64));
    let said = String::from_utf8_lossy(&open.stderr);
    assert!(said.contains("add --token-file"), "{said}");
}

#[test]
fn a_worker_sends_nothing_to_other_machines_unless_it_was_told_so() {
    let one = worker(&[]);
    let remote = "192.0.2.1:9".parse().unwrap();
    let (code, _, said) = run(remote, &one.address, "--allow-remote --run-time 200ms");
    assert_eq!(code, Some(1));
    assert!(
        said.contains("start the worker with --allow-remote"),
        "{said}"
    );
}

#[test]
fn another_version_is_refused() {
    let (address, _) = target();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let stream = listener.accept().unwrap().0;
        let mut reader = BufReader::new(&stream);
        let mut line = String::new();
        while reader.read_line(&mut line).unwrap() > 2 {
            line.clear();
        }
        let body = json!({"versions": {"program": "9.9.9", "protocol": 77}}).to_string();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        (&stream).write_all((head + &body).as_bytes()).unwrap();
    });
    let (code, _, said) = run(address, &other, "--run-time 200ms");
    assert_eq!(code, Some(1));
    assert!(said.contains("loadtest 9.9.9 with protocol 77"), "{said}");
    assert!(said.contains("one version"), "{said}");
}

/// A run that only ends if something ends it.
fn long(address: SocketAddr, workers: &str, flags: &[&str]) -> Process {
    let host = format!("http://{address}");
    let all = ["run", "--host", &host, "--workers", workers, "--users", "4"];
    Process::start(&[&all[..], &["--think", "5ms", "--run-time", "10m"], flags].concat())
}

fn until_sending(keys: &Keys) {
    let begun = keys.lock().unwrap().len();
    until("requests", || begun + 20 < keys.lock().unwrap().len());
}

/// Once it is quiet, it stays quiet.
fn until_quiet(keys: &Keys) {
    let mut last = usize::MAX;
    until("silence", || {
        let now = keys.lock().unwrap().len();
        std::thread::sleep(Duration::from_millis(300));
        std::mem::replace(&mut last, now) == now
    });
}

#[test]
fn a_lost_worker_ends_the_run_which_is_reported_and_failed() {
    let (address, keys) = target();
    let (one, two) = (worker(&[]), worker(&[]));
    let folder = Folder::new();
    let file = folder.file("report.json");
    let flags = ["--json", file.to_str().unwrap()];
    let mut conductor = long(address, &both(&one, &two), &flags);
    until_sending(&keys);
    let name = two.address.clone();
    drop(two);
    assert_eq!(conductor.wait().code(), Some(1), "{}", conductor.said());
    let said = conductor.said();
    assert!(said.contains(&format!("worker {name}: lost")), "{said}");
    let text = std::fs::read_to_string(file).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap();
    assert!(report["workers"][0]["sent"].as_u64().unwrap() > 0);
    assert_eq!(report["workers"][0]["lost"], Value::Null);
    assert!(
        report["workers"][1]["lost"]
            .as_str()
            .unwrap()
            .contains("lost")
    );
    until_quiet(&keys);
}

#[test]
fn workers_stop_when_nobody_conducts_them() {
    let (address, keys) = target();
    let (one, two) = (worker(&[]), worker(&[]));
    let conductor = long(address, &both(&one, &two), &[]);
    until_sending(&keys);
    conductor.signal("-KILL");
    for worker in [&one, &two] {
        worker.process.wait_to_say("has not been heard of for 5s");
        worker.process.wait_to_say("the run has ended");
    }
    until_quiet(&keys);
    let (code, _, said) = run(address, &both(&one, &two), "--run-time 200ms");
    assert_eq!(code, Some(0), "they are free again: {said}");
}

#[test]
fn an_interrupt_stops_all_and_reports() {
    let (address, keys) = target();
    let (one, two) = (worker(&[]), worker(&[]));
    let mut conductor = long(address, &both(&one, &two), &[]);
    until_sending(&keys);
    conductor.signal("-INT");
    assert_eq!(conductor.wait().code(), Some(130), "{}", conductor.said());
    assert!(conductor.said().contains("interrupted after"));
    until_quiet(&keys);
}

#[test]
fn a_worker_that_is_told_to_end_leaves_its_counts() {
    let (address, keys) = target();
    let (one, mut two) = (worker(&[]), worker(&[]));
    let folder = Folder::new();
    let file = folder.file("report.json");
    let flags = ["--json", file.to_str().unwrap()];
    let mut conductor = long(address, &both(&one, &two), &flags);
    until_sending(&keys);
    two.process.signal("-TERM");
    assert_eq!(conductor.wait().code(), Some(1), "{}", conductor.said());
    assert!(two.process.wait().success());
    let text = std::fs::read_to_string(file).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap();
    let sent = report["requests"]["sent"].as_u64().unwrap();
    assert_eq!(u64::try_from(keys.lock().unwrap().len()).unwrap(), sent);
    assert!(
        report["workers"][1]["lost"]
            .as_str()
            .unwrap()
            .contains("told to end")
    );
}

/// A request to the web page.
fn page(address: &str, request: &str, body: &str) -> Value {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    let text = format!(
        "{request} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    serde_json::from_str(body).unwrap_or(Value::Null)
}

#[test]
fn the_page_shows_and_steers_all_workers() {
    let (address, _keys) = target();
    let (one, two) = (worker(&[]), worker(&[]));
    let web = ["--web", "127.0.0.1:0", "--autostart"];
    let conductor = long(address, &both(&one, &two), &web);
    conductor.wait_to_say("the page is at http://");
    let said = conductor.said();
    let (_, rest) = said.split_once("the page is at http://").unwrap();
    let site = rest.split('/').next().unwrap().to_owned();
    let users = || {
        let state = page(&site, "GET /api/state", "");
        state["snapshot"]["users"].as_u64().unwrap_or(0)
    };
    until("4 users", || users() == 4);
    page(&site, "POST /api/load", r#"{"users": 9}"#);
    until("9 users", || users() == 9);
    let so_far = page(&site, "GET /report/loadtest.json", "");
    assert_eq!(so_far["workers"].as_array().unwrap().len(), 2, "{so_far}");
    assert!(so_far["requests"]["sent"].as_u64().unwrap() > 0);
    page(&site, "POST /api/stop", "");
    until("the end", || {
        page(&site, "GET /api/state", "")["phase"] == "finished"
    });
    let plan = page(&site, "GET /api/state", "")["plan"].to_string();
    assert!(
        plan.contains(&one.address) && plan.contains(&two.address),
        "{plan}"
    );
    let whole = page(&site, "GET /report/loadtest.json", "");
    assert_eq!(whole["config"]["users"], 9);
}

#[test]
fn each_worker_writes_its_own_journal() {
    let (address, keys) = target();
    let folder = Folder::new();
    let place = folder.0.path().to_str().unwrap();
    let (one, two) = (
        worker(&["--journal-dir", place]),
        worker(&["--journal-dir", place]),
    );
    let flags = format!("{OPEN} --journal drill");
    let (code, report, said) = run(address, &both(&one, &two), &flags);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(keys.lock().unwrap().len(), 600);
    for (index, name) in ["drill.1", "drill.2"].into_iter().enumerate() {
        let path = folder.file(name);
        assert!(std::fs::metadata(&path).unwrap().len() > 1_000);
        assert_eq!(report["workers"][index]["journal"], path.to_str().unwrap());
    }
    let none = worker(&[]);
    let (code, _, said) = run(address, &none.address, &flags);
    assert_eq!(code, Some(1));
    assert!(said.contains("--journal-dir DIRECTORY"), "{said}");
    let (code, _, said) = run(address, &none.address, "--journal ../drill");
    assert_eq!(code, Some(64));
    assert!(said.contains("--journal: with --workers a name"), "{said}");
}
