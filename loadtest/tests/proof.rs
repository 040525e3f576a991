//! The journal and its verification: a run against a small engine in this process,
//! whose ledger is then spoiled.
//!
//! The same against a PostgreSQL, if `ENGINE_TEST_DATABASE_URL` names one (a
//! superuser on the `postgres` database, as `ops/test` sets it).
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    reason = "clippy allows it in test functions only, not in their helpers"
)]

#[path = "proof/database.rs"]
mod database;
#[path = "proof/fake.rs"]
mod fake;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use fake::{Fake, Manner, Transfer, id_of};

fn loadtest() -> Command {
    Command::new(env!("CARGO_BIN_EXE_loadtest"))
}

/// A short run against `address`. One that lost answers fails, but has a journal.
fn run(address: SocketAddr, journal: &Path, flags: &str) {
    let output = loadtest()
        .args(["run", "--quiet", "--accounts", "1..=40"])
        .args([
            "--users",
            "4",
            "--threads",
            "2",
            "--rate",
            "1000",
            "--retries",
            "0",
        ])
        .args(["--host", &format!("http://{address}")])
        .arg("--journal")
        .arg(journal)
        .args(flags.split_whitespace())
        .output()
        .unwrap();
    let code = output.status.code();
    assert!(code == Some(0) || code == Some(1), "{output:?}");
}

/// Exit code and document.
fn verify(journal: &Path, flags: &[&str]) -> (Option<i32>, Value) {
    let json = journal.with_extension("json");
    let output: Output = loadtest()
        .args(["verify", "--quiet", "--journal"])
        .arg(journal)
        .arg("--json")
        .arg(&json)
        .args(flags)
        .output()
        .unwrap();
    let text = std::fs::read_to_string(&json).unwrap_or_else(|_| panic!("{output:?}"));
    let document: Value = serde_json::from_str(&text).unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("found exactly once"), "{shown}");
    (output.status.code(), document)
}

#[track_caller]
fn check(found: &(Option<i32>, Value), code: i32, numbers: &[(&str, u64)]) {
    for (pointer, expected) in numbers {
        let number = found.1.pointer(pointer).and_then(Value::as_u64);
        assert_eq!(number, Some(*expected), "{pointer} in {}", found.1);
    }
    assert_eq!(found.0, Some(code), "{}", found.1);
}

fn number(found: &(Option<i32>, Value), pointer: &str) -> u64 {
    found.1.pointer(pointer).and_then(Value::as_u64).unwrap()
}

#[test]
fn a_kept_promise_is_found_once_for_each_acknowledgement() {
    for flags in ["", "--task batch:7", "--keys off"] {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("journal");
        let fake = Fake::start(Manner::Honest);
        run(fake.address, &journal, &format!("--run-time 200ms {flags}"));
        let applied = fake.count();
        assert!(applied > 0);
        let found = verify(&journal, &["--connections", "3"]);
        let numbers = [
            ("/acknowledged", applied),
            ("/found_exactly_once", applied),
            ("/journal/transfers", applied),
            ("/journal/cut_bytes", 0),
            ("/unanswered/total", 0),
        ];
        check(&found, 0, &numbers);
        assert_eq!(found.1["verdict"], "kept", "{flags}");
        assert_eq!(found.1["journal"]["ends_early"], false);
    }
}

#[test]
fn what_was_planted_is_found_and_fails() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal");
    let fake = Fake::start(Manner::Honest);
    run(fake.address, &journal, "--run-time 200ms");
    let applied = fake.count();
    assert!(applied > 6, "{applied}");

    fake.spoil(|transfers| transfers.remove(0));
    check(
        &verify(&journal, &[]),
        1,
        &[("/missing", 1), ("/found_exactly_once", applied - 1)],
    );

    let doubled = fake.spoil(|transfers| {
        let copy = Transfer {
            id: id_of(1 << 40),
            ..transfers[1].clone()
        };
        transfers.push(copy.clone());
        copy
    });
    let found = verify(&journal, &[]);
    check(
        &found,
        1,
        &[
            ("/missing", 1),
            ("/doubled", 1),
            ("/found_exactly_once", applied - 2),
        ],
    );
    let examples = found.1["examples"].to_string();
    assert!(
        examples.contains(doubled.key.as_deref().unwrap()),
        "{examples}"
    );

    fake.spoil(|transfers| transfers[2].amount = "1.01".to_owned());
    fake.spoil(|transfers| transfers[3].to += 1000);
    // The key leads to a transfer, but not to the one that was acknowledged.
    fake.spoil(|transfers| transfers[4].id = id_of(1 << 41));
    let numbers = [
        ("/missing", 2),
        ("/doubled", 1),
        ("/wrong_amount_or_accounts", 2),
        ("/acknowledged", applied),
        ("/found_exactly_once", applied - 5),
    ];
    check(&verify(&journal, &[]), 1, &numbers);
}

#[test]
fn books_that_do_not_add_up_fail() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal");
    let fake = Fake::start(Manner::Honest);
    run(fake.address, &journal, "--run-time 200ms");
    // On the second page of accounts.
    fake.set_accounts(&[
        r#"{"account_id":9,"currency":"USD","balance":-5.01,"min_balance":-5.00}"#,
    ]);
    let found = verify(&journal, &[]);
    check(&found, 1, &[("/overdrafts", 1), ("/missing", 0)]);
    assert_eq!(found.1["currencies_out_of_balance"][0]["sum"], "-501");
}

#[test]
fn money_that_moves_between_two_pages_is_not_gone() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal");
    let fake = Fake::start(Manner::Honest);
    run(fake.address, &journal, "--run-time 200ms");
    let page = |balance: i32| {
        format!(r#"{{"account_id":9,"currency":"USD","balance":{balance}.00,"min_balance":null}}"#)
    };
    let pages = [page(3), page(-2), page(0)];
    fake.set_accounts(&pages.each_ref().map(String::as_str));
    check(&verify(&journal, &[]), 0, &[("/missing", 0)]);

    // It never stops: nobody can say.
    let pages: Vec<_> = (1..20).map(page).collect();
    fake.set_accounts(&pages.iter().map(String::as_str).collect::<Vec<_>>());
    let output = loadtest()
        .args(["verify", "--quiet", "--journal"])
        .arg(&journal)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("when nothing moves"), "{message}");
}

#[test]
fn unanswered_requests_get_their_true_fate() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal");
    let fake = Fake::start(Manner::LosesAnswers);
    run(fake.address, &journal, "--run-time 600ms");
    let found = verify(&journal, &[]);
    let unanswered = number(&found, "/unanswered/total");
    let applied = number(&found, "/unanswered/applied");
    let never = number(&found, "/unanswered/never_arrived");
    assert!(applied > 0 && never > 0, "{}", found.1);
    assert_eq!(applied + never, unanswered);
    assert_eq!(number(&found, "/acknowledged") + applied, fake.count());
    check(&found, 0, &[("/doubled", 0), ("/missing", 0)]);
}

#[test]
fn a_key_that_is_sent_again_is_found_once_unless_the_engine_forgot_it() {
    for (manner, code) in [(Manner::LosesAnswers, 0), (Manner::ForgetsKeys, 1)] {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("journal");
        let fake = Fake::start(manner);
        let scenario = folder.path().join("scenario.toml");
        // What a user repeats on its own must be found once too.
        let tasks = r#"[{ task = "transfer", weight = 9 }, { task = "repeat" }]"#;
        let text = format!("[[classes]]\nname = \"a\"\ntasks = {tasks}\n");
        std::fs::write(&scenario, text).unwrap();
        let output = loadtest()
            .args(["run", "--quiet", "--accounts", "1..=40", "--users", "4"])
            .args([
                "--run-time",
                "1s",
                "--host",
                &format!("http://{}", fake.address),
            ])
            .arg("--scenario")
            .arg(&scenario)
            .arg("--journal")
            .arg(&journal)
            .output()
            .unwrap();
        assert!(output.status.code().is_some(), "{output:?}");
        let found = verify(&journal, &[]);
        let (doubled, replayed) = ("/doubled", "/acknowledged_replayed");
        assert_eq!(number(&found, doubled) > 0, code == 1, "{}", found.1);
        assert_eq!(number(&found, replayed) > 0, code == 0, "{}", found.1);
        check(&found, code, &[("/missing", 0)]);
    }
}

#[test]
fn a_refusal_that_was_applied_is_a_broken_promise() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal");
    let fake = Fake::start(Manner::LiesOnce);
    run(fake.address, &journal, "--run-time 200ms");
    let found = verify(&journal, &[]);
    assert!(number(&found, "/refused") > 1, "{}", found.1);
    check(&found, 1, &[("/rejected_but_applied", 1), ("/missing", 0)]);
}

#[test]
fn a_journal_survives_the_kill_of_its_generator() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal");
    let fake = Fake::start(Manner::Honest);
    let mut generator = loadtest()
        .args(["run", "--quiet", "--run-time", "5m", "--accounts", "1..=40"])
        .args(["--users", "4", "--threads", "2", "--rate", "400"])
        .args(["--host", &format!("http://{}", fake.address)])
        .arg("--journal")
        .arg(&journal)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Nothing but time hands a block over at this rate: two of them are written.
    let length = || std::fs::metadata(&journal).map_or(0, |file| file.len());
    let wait_past = |bytes: u64| {
        while length() <= bytes {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        length()
    };
    let header = wait_past(0);
    let one = wait_past(header);
    wait_past(one);
    generator.kill().unwrap();
    generator.wait().unwrap();
    let applied = fake.count();
    // As if the kill had come in the middle of a write.
    let mut bytes = std::fs::read(&journal).unwrap();
    bytes.extend_from_slice(b"LTJB torn");
    std::fs::write(&journal, &bytes).unwrap();

    let found = verify(&journal, &[]);
    let known = number(&found, "/journal/transfers");
    assert!(known > 0 && known <= applied + 4, "{known} of {applied}");
    check(&found, 0, &[("/journal/cut_bytes", 9), ("/missing", 0)]);
    assert_eq!(found.1["journal"]["ends_early"], true);
    let once = number(&found, "/found_exactly_once");
    assert_eq!(once + number(&found, "/unanswered/total"), known);
}

#[test]
fn what_is_no_journal_has_no_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal");
    let verify = |flags: &str| {
        let output = loadtest()
            .args(["verify", "--journal"])
            .arg(&journal)
            .args(flags.split_whitespace())
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    assert_eq!(verify("").0, Some(1));
    std::fs::write(&journal, "something else, but long enough to be one").unwrap();
    let (code, message) = verify("");
    assert_eq!(code, Some(1));
    assert!(message.contains("not a journal"), "{message}");
    assert_eq!(verify("--host 127.0.0.1").0, Some(64));
    assert_eq!(verify("--database-url nonsense://").0, Some(64));
    let (code, message) = verify("--database-url postgres://u:s3cret@h/d?sslmode=allow");
    assert_eq!(code, Some(64));
    assert!(
        message.contains("verify-full") && !message.contains("s3cret"),
        "{message}"
    );

    // Nothing was sent, so there is nothing to prove, and no file in the way.
    let unreached = folder.path().join("unreached");
    let output = loadtest()
        .args(["run", "--quiet", "--host", "http://127.0.0.1:1"])
        .arg("--journal")
        .arg(&unreached)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(!unreached.exists());

    let fake = Fake::start(Manner::Honest);
    let again = loadtest()
        .args([
            "run",
            "--quiet",
            "--host",
            &format!("http://{}", fake.address),
        ])
        .arg("--journal")
        .arg(&journal)
        .output()
        .unwrap();
    assert_eq!(again.status.code(), Some(1));
    let message = String::from_utf8(again.stderr).unwrap();
    assert!(message.contains("name another file"), "{message}");
}

#[test]
fn the_ledger_itself_is_asked_in_sql() {
    let Some(database) = database::Database::create() else {
        eprintln!("skipped: ENGINE_TEST_DATABASE_URL is not set (ops/test sets it)");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal");
    let fake = Fake::start(Manner::LosesAnswers);
    run(fake.address, &journal, "--run-time 600ms");
    database.fill(&fake.transfers());
    let acknowledged = number(&verify(&journal, &[]), "/acknowledged");
    let ask = || verify(&journal, &["--database-url", &database.url]);

    let found = ask();
    let once = [
        ("/acknowledged", acknowledged),
        ("/found_exactly_once", acknowledged),
    ];
    check(&found, 0, &once);
    let applied = number(&found, "/unanswered/applied");
    assert!(applied > 0 && number(&found, "/unanswered/never_arrived") > 0);
    assert_eq!(acknowledged + applied, fake.count());
    assert_eq!(found.1["asked"], "database");

    // Whose keys these are is not guessed: a refusal that was applied would stay unseen.
    let stranger = verify(
        &journal,
        &["--database-url", &database.url, "--principal", "nobody"],
    );
    let lost = [("/keys_not_kept", acknowledged), ("/missing", 0)];
    check(&stranger, 1, &lost);

    // Both in the middle, so that they are in the window of the acknowledged ids.
    database.copy_a_transfer();
    check(
        &ask(),
        1,
        &[
            ("/doubled_without_key", 1),
            ("/doubled", 0),
            ("/missing", 0),
        ],
    );
    let shared = verify(&journal, &["--shared", "--database-url", &database.url]);
    assert!(number(&shared, "/doubled_without_key") == 1);

    database.alter_a_transfer();
    check(&ask(), 1, &[("/wrong_amount_or_accounts", 1)]);
    database.double_a_key();
    check(&ask(), 1, &[("/doubled", 1)]);
    database.lose_a_transfer();
    check(
        &ask(),
        1,
        &[("/missing", 1), ("/acknowledged", acknowledged)],
    );
    let no_sum = number(&ask(), "/balances_wrong");
    database.overdraw();
    let found = ask();
    check(
        &found,
        1,
        &[("/overdrafts", 1), ("/balances_wrong", no_sum + 1)],
    );
    assert_eq!(found.1["currencies_out_of_balance"][0]["currency"], "USD");
}

/// A worker that keeps journals in `directory` and ends after one run; with it
/// its address.
fn worker(directory: &Path) -> (std::process::Child, String) {
    use std::io::{BufRead, BufReader};
    let mut child = loadtest()
        .args(["serve-worker", "--once", "--listen", "127.0.0.1:0"])
        .arg("--journal-dir")
        .arg(directory)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = child.stderr.take().unwrap();
    let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
    let said = lines.next().unwrap();
    let (_, rest) = said.split_once("the worker is at ").unwrap();
    let address = rest.split_whitespace().next().unwrap().to_owned();
    // Or its next line would find nobody who reads.
    std::thread::spawn(move || lines.for_each(drop));
    (child, address)
}

#[test]
fn the_journals_of_all_workers_are_verified_as_one_run() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::start(Manner::Honest);
    let (mut one, first) = worker(folder.path());
    let (mut two, second) = worker(folder.path());
    let workers = format!("--run-time 300ms --workers {first},{second}");
    run(fake.address, Path::new("drill"), &workers);
    assert!(one.wait().unwrap().success() && two.wait().unwrap().success());
    let journals = ["drill.1", "drill.2"].map(|name| folder.path().join(name));
    let second = journals[1].to_str().unwrap();
    let applied = fake.count();
    let numbers = [
        ("/journal/transfers", applied),
        ("/found_exactly_once", applied),
        ("/missing", 0),
    ];
    let both = verify(&journals[0], &["--journal", second]);
    check(&both, 0, &numbers);
    assert!(number(&verify(&journals[0], &[]), "/journal/transfers") < applied);

    let twice = loadtest()
        .args(["verify", "--journal", second, "--journal", second])
        .output()
        .unwrap();
    assert_eq!(twice.status.code(), Some(1));
    let said = String::from_utf8(twice.stderr).unwrap();
    assert!(said.contains("is in it twice"), "{said}");
    let other = folder.path().join("other");
    run(fake.address, &other, "--run-time 100ms");
    let mixed = loadtest()
        .args(["verify", "--journal", second, "--journal"])
        .arg(&other)
        .output()
        .unwrap();
    let said = String::from_utf8(mixed.stderr).unwrap();
    assert!(said.contains("not of the same run"), "{said}");
}
