//! Reports as a user meets them: files written, merged, compared and required.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    reason = "clippy allows it in test functions only, not in their helpers"
)]

mod support;

use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use support::read_request;

/// Answers every request with 200 until the test process ends.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut writer = stream.try_clone().unwrap();
                let mut reader = BufReader::new(stream);
                while read_request(&mut reader).is_some() {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
                    if writer.write_all(answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn loadtest(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(arguments)
        .output()
        .unwrap()
}

/// A folder of its own, gone when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("loadtest-report-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).unwrap()
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(name)).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

fn run(address: SocketAddr, json: &str, more: &[&str]) -> Output {
    let host = format!("http://{address}");
    let mut all = vec!["run", "--quiet", "--host", &host, "--json", json];
    all.extend(["--users", "2", "--run-time", "300ms", "--rate", "200"]);
    all.extend(more);
    loadtest(&all)
}

/// What of JSON Schema the schema uses; another keyword fails the test rather
/// than go unchecked.
fn validate(root: &Value, schema: &Value, value: &Value, at: &str) {
    for (keyword, rule) in schema.as_object().unwrap() {
        match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "properties" => {}
            "$ref" => {
                let target = root.pointer(rule.as_str().unwrap().trim_start_matches('#'));
                validate(root, target.unwrap(), value, at);
            }
            "type" => {
                let fits = |name: &Value| has_type(value, name.as_str().unwrap());
                let names = rule.as_array().cloned().unwrap_or(vec![rule.clone()]);
                assert!(names.iter().any(fits), "{at}: {value} is no {rule}");
            }
            "const" => assert_eq!(value, rule, "{at}"),
            "enum" => assert!(rule.as_array().unwrap().contains(value), "{at}: {value}"),
            "minimum" => {
                let fits = value.is_null() || value.as_f64() >= rule.as_f64();
                assert!(fits, "{at}: {value}");
            }
            "minItems" => {
                let count = value.as_array().unwrap().len();
                assert!(rule.as_u64() <= u64::try_from(count).ok(), "{at}");
            }
            // Shapes of text are checked by the code that reads them.
            "pattern" => assert!(value.is_string(), "{at}"),
            "required" if value.is_null() => {}
            "required" => {
                for name in rule.as_array().unwrap() {
                    let name = name.as_str().unwrap();
                    assert!(value.get(name).is_some(), "{at}: no {name}");
                }
            }
            "items" => {
                for (index, item) in value.as_array().unwrap().iter().enumerate() {
                    validate(root, rule, item, &format!("{at}/{index}"));
                }
            }
            "additionalProperties" => {
                for (name, item) in value.as_object().unwrap() {
                    validate(root, rule, item, &format!("{at}/{name}"));
                }
            }
            other => panic!("the schema uses {other}, which nothing checks"),
        }
    }
    let Some(properties) = schema.get("properties") else {
        return;
    };
    // A reader may meet unknown fields, but what is written is documented.
    for (name, item) in value.as_object().into_iter().flatten() {
        let property = properties.get(name);
        let property = property.unwrap_or_else(|| panic!("{at}: {name} is not documented"));
        validate(root, property, item, &format!("{at}/{name}"));
    }
}

fn has_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("no such type: {other}"),
    }
}

fn schema() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("report.schema.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn the_document_is_the_documented_one() {
    let folder = Folder::new("schema");
    let (address, schema) = (server(), schema());
    for model in [&["--require", "errors<1%"][..], &["--task", "batch:2"]] {
        let output = run(address, &folder.file("a.json"), model);
        assert!(output.status.success(), "{output:?}");
        validate(&schema, &schema, &folder.json("a.json"), "");
    }
}

#[test]
#[should_panic(expected = "series/0/sent")]
fn a_document_that_is_not_documented_fails() {
    let folder = Folder::new("undocumented");
    run(server(), &folder.file("a.json"), &[]);
    let mut document = folder.json("a.json");
    document["series"][0]["sent"] = "many".into();
    validate(&schema(), &schema(), &document, "");
}

#[test]
fn all_forms_are_written_and_agree() {
    let folder = Folder::new("forms");
    let (csv, html) = (folder.file("out"), folder.file("out.html"));
    let output = run(
        server(),
        &folder.file("a.json"),
        &["--csv", &csv, "--html", &html],
    );
    assert!(output.status.success(), "{output:?}");
    let document = folder.json("a.json");
    let answered = document["requests"]["answered"].as_u64().unwrap();
    let stats = folder.read("out_stats.csv");
    let last = stats.lines().last().unwrap();
    assert!(
        last.starts_with(&format!(",Aggregated,{answered},0,")),
        "{last}"
    );
    assert_eq!(folder.read("out_failures.csv").lines().count(), 1);
    assert!(folder.read("out_stats_history.csv").lines().count() > 1);
    let page = folder.read("out.html");
    assert!(page.contains(&format!("{answered} answered")), "{page}");
    let missing = folder.file("no/such/folder.json");
    let output = run(server(), &missing, &[]);
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.contains("no/such/folder.json: No such file"),
        "{message}"
    );
}

#[test]
fn a_broken_requirement_makes_the_exit_code_1_and_is_named() {
    let folder = Folder::new("require");
    let address = server();
    let held = ["--require", "errors<=0", "--require", "transfer:max<1000s"];
    let output = run(address, &folder.file("a.json"), &held);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let broken = [&held[..], &["--require", "rate > 100000/s"]].concat();
    let output = run(address, &folder.file("a.json"), &broken);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("BROKEN: rate > 100000/s, measured "),
        "{text}"
    );
    assert!(text.contains("held: errors<=0, measured 0"), "{text}");
    let document = folder.json("a.json");
    assert_eq!(document["thresholds"][2]["held"], false);
    for bad in ["p99", "p99<10", "typo:p99<1ms"] {
        let output = run(address, &folder.file("a.json"), &["--require", bad]);
        assert_eq!(output.status.code(), Some(64), "{bad}");
    }
}

#[test]
fn two_generators_merge_into_one_report() {
    let folder = Folder::new("merge");
    let address = server();
    let (one, other) = (folder.file("a.json"), folder.file("b.json"));
    run(address, &one, &[]);
    run(address, &other, &[]);
    // As if they had run at once, which a busy machine would not promise.
    let mut document = folder.json("b.json");
    document["started_at"] = folder.json("a.json")["started_at"].clone();
    std::fs::write(&other, document.to_string()).unwrap();
    let merged = folder.file("m.json");
    let output = loadtest(&["merge", &one, &other, "--json", &merged]);
    assert!(output.status.success(), "{output:?}");
    let [one_json, other_json, all] = ["a.json", "b.json", "m.json"].map(|name| folder.json(name));
    for pointer in [
        "/requests/sent",
        "/requests/unsent",
        "/transfers/completed",
        "/statuses/200",
        "/latency_us/2xx/count",
        "/config/rate",
        "/config/users",
    ] {
        let count = |document: &Value| document.pointer(pointer).and_then(Value::as_u64).unwrap();
        assert_eq!(
            count(&all),
            count(&one_json) + count(&other_json),
            "{pointer}"
        );
    }
    assert_eq!(all["run_ids"].as_array().unwrap().len(), 2);
    validate(&schema(), &schema(), &all, "");
    let twice = loadtest(&["merge", &merged, &one]);
    assert_eq!(twice.status.code(), Some(1));
    let message = String::from_utf8(twice.stderr).unwrap();
    assert!(message.contains("is in it twice"), "{message}");
}

#[test]
fn compare_says_when_it_cannot_tell() {
    let folder = Folder::new("compare");
    let file = folder.file("a.json");
    run(server(), &file, &[]);
    let result = folder.file("c.json");
    let output = loadtest(&["compare", &file, &file, "--json", &result]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(
        folder.json("c.json")["intervals"],
        serde_json::json!([0, 0])
    );
    let gate = loadtest(&["compare", &file, &file, "--fail-if-worse", "5"]);
    assert_eq!(gate.status.code(), Some(1));
    let text = String::from_utf8(gate.stdout).unwrap();
    assert!(text.contains("Too short to tell"), "{text}");
    let usage = loadtest(&["compare", &file]);
    assert_eq!(usage.status.code(), Some(64));
}
