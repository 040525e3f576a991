//! The command against servers behind TLS, good and bad ones, in this process.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    reason = "clippy allows it in test functions only, not in their helpers"
)]

#[path = "tls/certificates.rs"]
mod certificates;
#[path = "proof/fake.rs"]
#[expect(dead_code, reason = "shared with the tests of verification")]
mod fake;
#[path = "tls/server.rs"]
mod server;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use rcgen::IsCa;
use rustls::version::{TLS12, TLS13};
use serde_json::Value;

use certificates::{Authority, GOOD, Shown};
use fake::Fake;
use server::{Manner, Server, accept};

fn loadtest(flags: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.args(flags.split_whitespace());
    command
}

/// Exit code and document of a short run.
fn run(authority: &Authority, address: SocketAddr, flags: &str) -> (Option<i32>, Value) {
    let file = authority.folder().join("report.json");
    let time = if flags.contains("--run-time") {
        ""
    } else {
        "--run-time 200ms"
    };
    let output = loadtest(&format!("run --quiet --accounts 1..=50 {time}"))
        .args(["--host", &format!("https://{address}")])
        .arg("--cacert")
        .arg(authority.file())
        .arg("--json")
        .arg(&file)
        .args(flags.split_whitespace())
        .output()
        .unwrap();
    let text = std::fs::read_to_string(&file).unwrap_or_else(|_| panic!("{output:?}"));
    (output.status.code(), serde_json::from_str(&text).unwrap())
}

fn number(document: &Value, pointer: &str) -> u64 {
    let value = document.pointer(pointer).and_then(Value::as_u64);
    value.unwrap_or_else(|| panic!("{pointer} in {document}"))
}

/// A run without an error, each of whose requests was answered.
#[track_caller]
fn check_clean(authority: &Authority, server: &Server, flags: &str) -> Value {
    let (code, document) = run(authority, server.address, flags);
    let sent = number(&document, "/requests/sent");
    assert_eq!(code, Some(0), "{flags}: {document}");
    assert!(sent > 1, "{flags}: {document}");
    assert_eq!(number(&document, "/requests/answered"), sent, "{document}");
    assert_eq!(server.seen().requests, sent, "{flags}");
    document
}

#[test]
fn both_models_speak_tls_in_each_version() {
    let authority = Authority::new();
    for versions in [[&TLS12], [&TLS13]] {
        for flags in ["--users 8 --threads 2", "--users 4 --rate 500"] {
            let server = Server::start(authority.server_of(GOOD, &versions), Manner::Plain);
            check_clean(&authority, &server, flags);
            let seen = server.seen();
            assert_eq!(seen.protocol.as_deref(), Some(&b"http/1.1"[..]));
            assert_eq!(seen.cut, 0, "every user says goodbye");
        }
    }
}

#[test]
fn no_byte_is_stuck_however_answers_are_cut_into_records() {
    let authority = Authority::new();
    for flags in [
        "--users 3",
        "--users 3 --rate 50",
        "--users 2 --task batch:500",
    ] {
        let server = Server::start(authority.server(GOOD), Manner::Pieces);
        check_clean(&authority, &server, flags);
    }
}

#[test]
fn a_body_of_many_records_waits_for_a_slow_reader() {
    let authority = Authority::new();
    for flags in ["--users 3", "--users 3 --rate 20"] {
        let server = Server::start(authority.server(GOOD), Manner::Plain);
        let flags = format!("{flags} --task batch:8192 --run-time 1s");
        let document = check_clean(&authority, &server, &flags);
        assert!(server.seen().body_bytes_max > 500_000);
        let transfers = number(&document, "/requests/sent") * 8192;
        assert_eq!(number(&document, "/transfers/completed"), transfers);
    }
}

#[test]
fn a_session_is_taken_up_again_after_each_close() {
    let authority = Authority::new();
    for versions in [[&TLS12], [&TLS13]] {
        for manner in [Manner::Closes, Manner::Lingers] {
            let server = Server::start(authority.server_of(GOOD, &versions), manner);
            let flags = "--users 1 --timeout 20s --require max<19s";
            check_clean(&authority, &server, flags);
            let seen = server.seen();
            assert_eq!(seen.full, 1, "{manner:?} {seen:?}");
            assert!(seen.resumed >= seen.requests - 1, "{manner:?} {seen:?}");
        }
    }
}

#[test]
fn a_connection_that_is_cut_between_requests_loses_none() {
    let authority = Authority::new();
    let server = Server::start(authority.server(GOOD), Manner::Cuts);
    let (_, document) = run(&authority, server.address, "--users 4 --retries 5");
    // The end may come while the next request is on its way: then it is repeated.
    assert!(number(&document, "/requests/answered") > 1, "{document}");
    assert_eq!(number(&document, "/errors/protocol"), 0, "{document}");
    assert_eq!(number(&document, "/errors/connect"), 0, "{document}");
}

#[test]
fn the_roots_of_the_machine_count_unless_others_are_given() {
    let (trusted, other) = (Authority::new(), Authority::new());
    let server = Server::start(trusted.server(GOOD), Manner::Plain);
    let run = |flags: &str| {
        loadtest("run --quiet --run-time 100ms --users 1")
            .args(["--host", &format!("https://{}", server.address)])
            .env("SSL_CERT_FILE", trusted.file())
            .env_remove("SSL_CERT_DIR")
            .args(flags.split_whitespace())
            .output()
            .unwrap()
    };
    let output = run("");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = run(&format!("--cacert {}", other.file().display()));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

/// A run that fails and says why.
#[track_caller]
fn check_failed(host: &str, cacert: Option<&Path>, parts: &[&str]) {
    let mut command = loadtest("run --run-time 200ms --users 2 --threads 1 --host");
    command.arg(host);
    if let Some(file) = cacert {
        command.arg("--cacert").arg(file);
    }
    let output: Output = command.output().unwrap();
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8(said).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in parts {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
}

#[test]
fn a_bad_certificate_is_refused_in_words_that_help() {
    let (authority, other) = (Authority::new(), Authority::new());
    let cases: [(Shown, &Authority, &[&str]); 4] = [
        (GOOD, &other, &["signed", "--cacert"]),
        (
            Shown {
                name: "engine.example",
                ..GOOD
            },
            &authority,
            &["not for 127.0.0.1 but for engine.example", "--host"],
        ),
        (
            Shown {
                years: (2019, 2020),
                ..GOOD
            },
            &authority,
            &["expired on 2020-01-01", "renew"],
        ),
        (
            Shown {
                years: (4000, 4001),
                ..GOOD
            },
            &authority,
            &["not valid before 4000-01-01", "clock"],
        ),
    ];
    for (shown, trusted, parts) in cases {
        let server = Server::start(authority.server(shown), Manner::Plain);
        let host = format!("https://{}", server.address);
        check_failed(&host, Some(&trusted.file()), parts);
        assert_eq!(server.seen().requests, 0, "nothing is sent to a stranger");
    }
}

#[test]
fn a_self_signed_certificate_is_its_own_authority_unless_it_says_so() {
    let authority = Authority::new();
    let (config, file) = authority.self_signed(IsCa::ExplicitNoCa);
    let server = Server::start(config, Manner::Plain);
    let host = format!("https://{}", server.address);
    let mut command = loadtest("run --quiet --run-time 100ms --users 1");
    let output = command.args(["--host", &host, "--cacert"]).arg(&file);
    let output = output.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");

    let is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let (config, file) = authority.self_signed(is_ca);
    let server = Server::start(config, Manner::Plain);
    let host = format!("https://{}", server.address);
    check_failed(&host, Some(&file), &["basicConstraints=CA:FALSE"]);
}

#[test]
fn a_server_that_wants_something_else_is_named() {
    let authority = Authority::new();
    let cacert = authority.file();
    let server = Server::start(authority.mutual_server(), Manner::Plain);
    let host = format!("https://{}", server.address);
    check_failed(&host, Some(&cacert), &["client certificate"]);

    let mut config = authority.server(GOOD);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let server = Server::start(config, Manner::Plain);
    let host = format!("https://{}", server.address);
    check_failed(&host, Some(&cacert), &["http/1.1"]);

    let server = Server::start(authority.server(GOOD), Manner::Plain);
    let host = format!("http://{}", server.address);
    check_failed(&host, None, &["--host https://"]);
}

/// Answers each connection with `bytes`, whatever it asks.
fn parrot(bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            drop(stream.read(&mut [0; 4096]));
            drop(stream.write_all(bytes));
        }
    });
    address
}

#[test]
fn a_server_without_tls_is_named() {
    let authority = Authority::new();
    for (bytes, part) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "--host http://"),
        (b"", "does it speak https?"),
    ] {
        let host = format!("https://{}", parrot(bytes));
        check_failed(&host, Some(&authority.file()), &["cannot reach", part]);
    }
}

#[test]
fn a_run_behind_tls_is_verified_behind_tls() {
    let authority = Authority::new();
    let config = Arc::new(authority.server(GOOD));
    let accept = move |socket| accept(socket, &config);
    let fake = Fake::behind(fake::Manner::Guarded, accept);
    let folder = authority.folder();
    let (journal, key) = (folder.join("journal"), folder.join("key"));
    std::fs::write(&key, fake::API_KEY).unwrap();
    let (journal, key) = (journal.to_str().unwrap(), key.to_str().unwrap());
    let flags = format!("--users 4 --threads 2 --journal {journal} --api-key-file {key}");
    run(&authority, fake.address, &flags);
    assert!(fake.count() > 0);
    let verify = |flags: &str| {
        let mut command = loadtest("verify --quiet --journal");
        let command = command.arg(journal).args(flags.split_whitespace());
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let cacert = format!("--cacert {}", authority.file().display());
    let (code, said) = verify(&cacert);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("401") && said.contains("--api-key-file"),
        "{said}"
    );
    let (code, said) = verify(&format!("{cacert} --api-key-file {key}"));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("found exactly once"), "{said}");
    let stranger = Authority::new();
    let (code, said) = verify(&format!("--cacert {}", stranger.file().display()));
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("https://") && said.contains("signed"),
        "{said}"
    );
}
