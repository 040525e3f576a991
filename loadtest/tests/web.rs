//! The web page as programs and a browser meet it, against a small target.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    reason = "clippy allows it in test functions only, not in their helpers"
)]

#[path = "web/browser.rs"]
mod browser;
#[path = "web/process.rs"]
mod process;
mod support;

use std::net::TcpListener;
use std::path::PathBuf;

use browser::Browser;
use process::{Loadtest, host, target};
use serde_json::{Value, json};

fn phase(name: &'static str) -> impl Fn(&Value) -> bool {
    move |state| state["phase"] == name
}

fn number(state: &Value, pointer: &str) -> u64 {
    let value = state.pointer(pointer);
    value.and_then(Value::as_u64).unwrap_or(0)
}

#[test]
fn users_are_changed_while_a_run_goes_on_and_it_can_be_stopped_and_downloaded() {
    let loadtest = Loadtest::start(&[
        "--host",
        &host(target()),
        "--threads",
        "2",
        "--retries",
        "0",
    ]);
    let state = loadtest.state();
    assert_eq!(state["phase"], "ready");
    assert_eq!(state["plan"]["run_time_seconds"], Value::Null);
    assert_eq!(loadtest.get("/report/loadtest.json").0, 409);
    assert_eq!(loadtest.post("/api/stop", &json!({})).0, 409);

    loadtest.done("/api/start", &json!({"users": 3}));
    assert_eq!(loadtest.post("/api/start", &json!({})).0, 409);
    loadtest.until("three users", |state| number(state, "/snapshot/users") == 3);
    // More than it began with, then fewer than it has threads.
    for users in [40, 1, 7] {
        loadtest.done("/api/load", &json!({"users": users}));
        let state = loadtest.until("their number", |state| {
            number(state, "/snapshot/users") == users
        });
        assert_eq!(number(&state, "/wanted/users"), users);
    }
    let (status, _, text) = loadtest.get("/report/loadtest.json");
    let early: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status, 200);
    assert!(number(&early, "/requests/answered") > 0);
    assert_eq!(number(&early, "/config/users"), 40);

    loadtest.done("/api/stop", &json!({}));
    let state = loadtest.until("the end", phase("finished"));
    assert_eq!(state["result"]["stopped"], true);
    let row = &state["snapshot"]["tasks"][0];
    assert_eq!(row["name"], "transfer");
    assert_eq!(row["requests"], state["snapshot"]["total"]["requests"]);
    assert_eq!(row["failures"], state["snapshot"]["statuses"]["503"]);
    assert!(
        state["history"]["points"]
            .as_array()
            .is_some_and(|p| !p.is_empty())
    );

    let (_, _, text) = loadtest.get("/report/loadtest.json");
    let last: Value = serde_json::from_str(&text).unwrap();
    let answered = number(&last, "/requests/answered");
    assert!(number(&early, "/requests/answered") <= answered);
    assert_eq!(Some(answered), row["requests"].as_u64());
    for (file, begin) in [
        ("loadtest.html", "<!DOCTYPE html>"),
        ("loadtest_stats.csv", "Type,Name,Request Count"),
        ("loadtest_stats_history.csv", "Timestamp,User Count"),
        ("loadtest_failures.csv", "Method,Name,Error"),
    ] {
        let (status, head, text) = loadtest.get(&format!("/report/{file}"));
        assert_eq!(status, 200, "{file}");
        assert!(text.starts_with(begin), "{file}: {text}");
        assert!(
            head.contains(&format!("attachment; filename=\"{file}\"")),
            "{head}"
        );
    }

    // Another run: its own seed and counts.
    loadtest.done("/api/start", &json!({"users": 1, "run_time_seconds": 0.2}));
    let again = loadtest.until("another run", |state| {
        number(state, "/run") == 2 && state["phase"] == "finished"
    });
    assert!(number(&again, "/snapshot/sent") < number(&state, "/snapshot/sent"));
    assert_ne!(again["plan"]["settings"], state["plan"]["settings"]);
    loadtest.signal();
    assert_eq!(loadtest.end().0, Some(0));
}

#[test]
fn the_rate_of_an_open_run_is_changed_while_it_goes_on() {
    let flags = ["--host", &host(target()), "--users", "20", "--rate", "50"];
    let loadtest = Loadtest::start(&[&flags[..], &["--autostart"]].concat());
    loadtest.until("answers", |state| number(state, "/snapshot/sent") > 0);
    loadtest.done("/api/load", &json!({"rate": 400}));
    loadtest.until("the new rate", |state| {
        state["snapshot"]["requests_per_second"].as_f64() > Some(200.0)
    });
    loadtest.done("/api/load", &json!({"rate": 1}));
    let state = loadtest.until("a pause", |state| {
        state["snapshot"]["requests_per_second"].as_f64() < Some(20.0)
    });
    assert_eq!(number(&state, "/wanted/rate"), 1);
    // Ctrl-C while a run goes on: it is reported, as without the page.
    loadtest.signal();
    let (code, said) = loadtest.end();
    assert_eq!(code, Some(130), "{said}");
}

#[test]
fn wrong_input_is_refused_with_the_reason() {
    let loadtest = Loadtest::start(&["--host", &host(target())]);
    let check = |path: &str, body: Value, status: u16, part: &str| {
        let (got, problem) = loadtest.post(path, &body);
        assert_eq!(got, status, "{path} {body}: {problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(part), "{path} {body}: {detail}");
    };
    check("/api/start", json!({"users": 0}), 400, "1 to 20000");
    check("/api/start", json!({"users": 20_001}), 400, "1 to 20000");
    check("/api/start", json!({"users": "ten"}), 400, "ten");
    check("/api/start", json!({"user": 1}), 400, "unknown field");
    check("/api/start", json!({"rate": 10_000_001}), 400, "rate");
    check(
        "/api/start",
        json!({"run_time_seconds": -1}),
        400,
        "run_time_seconds",
    );
    check("/api/start", json!([1]), 400, "expected");
    check("/api/load", json!({"users": 5}), 409, "no run");
    loadtest.done("/api/start", &json!({"users": 2}));
    loadtest.until("answers", |state| number(state, "/snapshot/sent") > 0);
    check("/api/load", json!({}), 400, "users, rate");
    check("/api/load", json!({"users": 20_001}), 400, "1 to 20000");
    check("/api/load", json!({"rate": 5}), 400, "closed model");
    assert_eq!(number(&loadtest.state(), "/wanted/users"), 2);
    assert_eq!(loadtest.get("/nothing").0, 404);
    assert_eq!(loadtest.get("/report/secrets").0, 404);
    assert_eq!(loadtest.get("/api/start").0, 405);
}

#[test]
fn foreign_pages_and_names_are_refused() {
    let loadtest = Loadtest::start(&["--host", &host(target())]);
    let own = loadtest.address.clone();
    let post = |host: &str, more: &str| {
        let (status, _, body) = loadtest.raw(&format!(
            "POST /api/start HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{more}\
             content-length: 2\r\n\r\n{{}}"
        ));
        let problem: Value = serde_json::from_str(&body).unwrap();
        (status, problem["code"].as_str().unwrap_or("").to_owned())
    };
    let json = "content-type: application/json\r\n";
    let foreign = format!("{json}origin: http://evil.example\r\n");
    assert_eq!(post("evil.example", json), (403, "foreign_host".into()));
    assert_eq!(post(&own, &foreign), (403, "foreign_origin".into()));
    assert_eq!(
        post(&own, "content-type: text/plain\r\n"),
        (415, "not_json".into())
    );
    let (status, head, _) =
        loadtest.raw("GET /api/state HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n");
    assert_eq!(status, 403, "{head}");
    assert_eq!(loadtest.state()["phase"], "ready", "nothing was started");
    let (_, head, _) = loadtest.get("/");
    assert!(
        head.contains("content-security-policy: default-src 'none';"),
        "{head}"
    );
}

#[test]
fn with_autostart_and_autoquit_the_exit_code_is_that_of_the_run() {
    let target = host(target());
    let flags = ["--host", &target, "--users", "2", "--run-time", "300ms"];
    let ends = ["--autostart", "--autoquit", "0s"];
    for (require, code) in [("p99<3600s", 0), ("p99<1us", 1)] {
        let require = ["--require", require];
        let loadtest = Loadtest::start(&[&flags[..], &ends, &require].concat());
        let (got, said) = loadtest.end();
        assert_eq!(got, Some(code), "{require:?}: {said}");
    }
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = host(free.local_addr().unwrap());
    drop(free);
    let flags = ["--host", &nobody, "--users", "2", "--run-time", "300ms"];
    let (code, said) = Loadtest::start(&[&flags[..], &ends].concat()).end();
    assert_eq!(code, Some(1));
    assert!(said.contains("cannot reach"), "{said}");
}

/// Pictures of the page go there; kept, so that a person can look at them.
fn pictures() -> PathBuf {
    let folder = std::env::temp_dir().join("loadtest-page");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn open_page(loadtest: &Loadtest, name: &str) -> Browser {
    let profile = format!("loadtest-browser-{}-{name}", std::process::id());
    let mut page = Browser::open(&std::env::temp_dir().join(profile));
    page.size(1280, 900);
    page.go(&format!("http://{}/", loadtest.address));
    page.wait("document.querySelector('#start') && !document.querySelector('#start').disabled");
    page
}

fn text(name: &str) -> String {
    format!("document.querySelector('#{name}').textContent")
}

#[test]
fn a_person_starts_changes_and_stops_a_run_on_the_page() {
    if browser::is_skipped() {
        eprintln!("LOADTEST_SKIP_BROWSER=1: the page was not opened");
        return;
    }
    let loadtest = Loadtest::start(&[
        "--host",
        &host(target()),
        "--require",
        "errors<50%",
        "--retries",
        "0",
    ]);
    let mut page = open_page(&loadtest, "run");
    let pictures = pictures();
    page.picture(&pictures.join("ready.png"));

    page.fill("#users", "nine");
    page.click("#start");
    page.wait(&format!("{}.includes('whole number')", text("form-error")));
    page.fill("#users", "9");
    page.click("#start");
    page.wait(&format!("{} === 'Running'", text("phase")));
    page.wait(&format!("{} === '9'", text("tile-users")));
    page.wait(&format!("Number.parseFloat({}) > 0", text("tile-rate")));
    page.wait("document.querySelectorAll('#chart-rate path.line').length === 2");
    let before = page.eval("document.querySelector('#tasks tbody td').textContent");
    page.wait(&format!(
        "document.querySelector('#tasks tbody td').textContent !== {before}"
    ));
    page.wait("document.querySelector('#failures').innerText.includes('queue_full')");

    page.fill("#users", "25");
    page.click("#apply");
    page.wait(&format!("{} === '25'", text("tile-users")));
    // Long enough for graphs that a person can judge.
    page.wait("document.querySelector('#clock').textContent.startsWith('12 s')");
    for (width, height, scheme) in [(1280, 900, "light"), (390, 844, "dark")] {
        page.size(width, height);
        page.scheme(scheme);
        page.wait("document.documentElement.scrollWidth <= innerWidth");
        page.picture(&pictures.join(format!("running-{width}-{scheme}.png")));
    }
    page.size(1280, 900);
    page.click("#stop");
    page.wait(&format!("{} === 'Finished'", text("phase")));
    page.wait("document.querySelector('#requirements').innerText.includes('held')");
    let users = page.eval("document.querySelector('#users').value");
    assert_eq!(users, "25", "the next run begins as the last one ended");
    let links = "[...document.querySelectorAll('#downloads a')].map((a) => a.pathname)";
    let links = page.eval(links);
    assert_eq!(links.as_array().map(Vec::len), Some(5));
    for link in links.as_array().unwrap() {
        assert_eq!(loadtest.get(link.as_str().unwrap()).0, 200, "{link}");
    }
    page.picture(&pictures.join("finished-1280-dark.png"));
    // Reading a graph with the keyboard.
    page.eval("document.querySelector('#chart-users svg').focus()");
    page.call(
        "Input.dispatchKeyEvent",
        json!({"type": "keyDown", "key": "Home"}),
    );
    page.wait("document.querySelector('#chart-users .cross') !== null");
    assert_eq!(page.faults, [""; 0]);
}

#[test]
fn the_stages_of_a_rate_are_followed_until_somebody_changes_it() {
    if browser::is_skipped() {
        eprintln!("LOADTEST_SKIP_BROWSER=1: the page was not opened");
        return;
    }
    let target = host(target());
    let flags = ["--host", &target, "--users", "20"];
    let stages = [
        "--stage",
        "duration=1s,rate=0..30",
        "--stage",
        "duration=1h,rate=30",
    ];
    let loadtest = Loadtest::start(&[&flags[..], &stages].concat());
    let mut page = open_page(&loadtest, "stages");
    page.wait("document.querySelector('#rate').disabled");
    page.picture(&pictures().join("staged-1280-light.png"));
    page.click("#start");
    page.wait(&format!("{} === 'of 30 wanted'", text("note-rate")));
    page.fill("#rate", "500");
    page.click("#apply");
    page.wait(&format!("{} === 'of 500 wanted'", text("note-rate")));
    page.wait(&format!("Number.parseFloat({}) > 100", text("tile-rate")));
    page.size(390, 844);
    page.picture(&pictures().join("open-390-light.png"));
    page.click("#stop");
    page.wait(&format!("{} === 'Finished'", text("phase")));
    // Without the stages the fields say what the next run is.
    page.click("#staged");
    page.fill("#rate", "40");
    page.fill("#run-time", "1s");
    page.click("#start");
    let state = loadtest.until("a second run", |state| {
        number(state, "/run") == 2 && state["phase"] == "finished"
    });
    // However slow this machine is just now.
    let due = number(&state, "/snapshot/sent") + number(&state, "/snapshot/unsent");
    assert_eq!(due, 40, "{state}");
    assert_eq!(page.faults, [""; 0]);
}

#[test]
fn the_page_says_why_a_run_was_refused_and_that_the_generator_is_gone() {
    if browser::is_skipped() {
        eprintln!("LOADTEST_SKIP_BROWSER=1: the page was not opened");
        return;
    }
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = host(free.local_addr().unwrap());
    drop(free);
    let loadtest = Loadtest::start(&["--host", &nobody]);
    let mut page = open_page(&loadtest, "refused");
    page.click("#start");
    page.wait(&format!("{} === 'Failed'", text("phase")));
    page.wait(&format!("{}.includes('cannot reach')", text("notices")));
    assert_eq!(page.faults, [""; 0]);
    page.picture(&pictures().join("failed-1280-light.png"));
    drop(loadtest);
    page.wait(&format!("{} === 'No connection'", text("phase")));
    page.wait("document.querySelector('#start').disabled");
    page.size(390, 844);
    page.picture(&pictures().join("gone-390-light.png"));
}
