use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use super::*;
use crate::journal::Amount;
use crate::scenario::{ScenarioArgs, scenario};

const ID: &str = "0190f3a2-7b1c-7def-8123-456789abcdef";

fn requests(text: &str) -> Requests {
    requests_of(text, Numbers { first: 0, step: 1 })
}

fn requests_of(text: &str, numbers: Numbers) -> Requests {
    let scenario = scenario(text, &ScenarioArgs::default()).unwrap();
    let target = Target {
        authority: "127.0.0.1:5000".to_owned(),
        headers: crate::headers::Headers::default(),
    };
    Requests::new(&scenario, &target, numbers, Plans::Untold)
}

/// A scenario of one class with this one task.
fn only(task: &str) -> String {
    format!("seed = 7\n[[classes]]\nname = \"a\"\ntasks = [{{ task = \"{task}\" }}]\n")
}

/// Request line, headers and parsed body; fails unless Content-Length is right.
struct Parsed {
    line: String,
    headers: HashMap<String, String>,
    body: Value,
}

#[track_caller]
fn parse(request: &[u8]) -> Parsed {
    let text = std::str::from_utf8(request).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap().to_owned();
    let words: Vec<_> = line.split(' ').collect();
    assert_eq!(words.len(), 3, "{line}");
    assert_eq!(words[2], "HTTP/1.1");
    let mut headers = HashMap::new();
    for header in lines {
        let (name, value) = header.split_once(": ").unwrap();
        let before = headers.insert(name.to_ascii_lowercase(), value.to_owned());
        assert_eq!(before, None, "{name} twice");
    }
    assert_eq!(headers["host"], "127.0.0.1:5000");
    let body = if words[0] == "POST" {
        assert_eq!(headers["content-type"], "application/json");
        let length: usize = headers["content-length"].parse().unwrap();
        assert_eq!(length, body.len());
        serde_json::from_str(body).unwrap()
    } else {
        assert_eq!(body, "");
        Value::Null
    };
    Parsed {
        line,
        headers,
        body,
    }
}

fn take(requests: &mut Requests, index: usize, count: usize) -> Vec<(Next, Vec<u8>)> {
    let mut out = Vec::new();
    (0..count)
        .map(|_| {
            let next = requests.next(index, &mut out);
            (next, out.clone())
        })
        .collect()
}

#[test]
fn a_transfer_is_a_valid_request_with_a_key_of_its_own() {
    let mut requests = requests(&only("transfer"));
    let mut keys = HashSet::new();
    for user in 0..3 {
        for (next, out) in take(&mut requests, user, 500) {
            let parsed = parse(&out);
            assert_eq!(parsed.line, "POST /transaction HTTP/1.1");
            let side = |name: &str| parsed.body[name].as_u64().unwrap();
            assert!((1..=1000).contains(&side("from")) && (1..=1000).contains(&side("to")));
            assert_ne!(side("from"), side("to"));
            let key = &parsed.headers["idempotency-key"];
            assert!(keys.insert(key.clone()), "key used twice");
            assert_eq!(*key, next.span.first.text(7));
            assert_eq!(next.repeat, Repeat::Safe);
            assert_eq!((next.task, next.transfers), (0, 1));
        }
    }
    assert_eq!(keys.len(), 1500);
}

#[test]
fn every_item_of_a_batch_has_the_next_key() {
    let mut requests = requests(&only("batch:100"));
    let mut keys = HashSet::new();
    for (next, out) in take(&mut requests, 4, 10) {
        let parsed = parse(&out);
        assert_eq!(parsed.line, "POST /transactions HTTP/1.1");
        assert!(!parsed.headers.contains_key("idempotency-key"));
        let items = parsed.body["transfers"].as_array().unwrap();
        let count = next.span.count;
        assert_eq!((items.len(), next.transfers, count), (100, 100, 100));
        for (item, key) in items.iter().zip(next.span.keys()) {
            let text = item["idempotency_key"].as_str().unwrap().to_owned();
            assert_eq!(text, key.text(7));
            assert!(keys.insert(text));
        }
    }
    assert_eq!(keys.len(), 1000);
}

#[test]
fn without_keys_nothing_is_sent_as_one() {
    for task in ["transfer", "batch:2"] {
        let text = only(task).replace("name", "keys = false\nname");
        for (next, out) in take(&mut requests(&text), 0, 3) {
            let lower = String::from_utf8(out.clone()).unwrap().to_lowercase();
            assert!(!lower.contains("idempotency"), "{lower}");
            assert!(parse(&out).body.is_object());
            assert_eq!(next.repeat, Repeat::Unsafe);
        }
    }
}

#[test]
fn reads_name_an_account_or_a_page_without_padding() {
    for (task, before, after) in [
        ("balance", "GET /balance/", " HTTP/1.1"),
        (
            "history:20",
            "GET /transactions?account=",
            "&limit=20 HTTP/1.1",
        ),
    ] {
        let mut seen = HashSet::new();
        for (next, out) in take(&mut requests(&only(task)), 0, 2000) {
            let line = parse(&out).line;
            let id = line.strip_prefix(before).unwrap();
            let id: u64 = id.strip_suffix(after).unwrap().parse().unwrap();
            assert!((1..=1000).contains(&id), "{line}");
            assert_eq!((next.transfers, next.span.count), (0, 0));
            seen.insert(id);
        }
        assert!(seen.len() > 800);
    }
    let (_, out) = take(&mut requests(&only("health")), 0, 1).remove(0);
    assert_eq!(parse(&out).line, "GET /health HTTP/1.1");
}

#[test]
fn amounts_in_requests_are_the_decimal_text_of_the_scenario() {
    let list = r#"amount = ["1.50", "20"]"#;
    let text = only("transfer").replace("name", &format!("{list}\nname"));
    let mut seen = HashSet::new();
    for (_, out) in take(&mut requests(&text), 0, 50) {
        parse(&out);
        let text = String::from_utf8(out).unwrap();
        let amount = text.split("\"amount\":").nth(1).unwrap();
        seen.insert(amount.trim_end_matches('}').trim().to_owned());
    }
    assert_eq!(seen, HashSet::from(["1.50".to_owned(), "20".to_owned()]));
}

const MIXED: &str = r#"
seed = 3
[defaults]
amount = "0.01..=9.99"
think_time = "1ms..=9ms"
[[classes]]
name = "a"
choice = "zipf:1.2"
tasks = [
    { task = "transfer", weight = 5 },
    { task = "batch:3", weight = 1 },
    { task = "repeat", weight = 2 },
    { task = "lookup", weight = 2 },
]
[[classes]]
name = "b"
weight = 2
choice = "ring"
tasks = [{ task = "transfer" }, { task = "balance" }, { task = "history" }]
"#;

#[test]
fn a_seed_replays_for_each_user_however_threads_and_answers_come() {
    let mut one = requests(MIXED);
    let whole: Vec<_> = (0..6).map(|user| take(&mut one, user, 200)).collect();
    let first = whole[0].clone();
    // Three threads, users in turn, and answers that the other run did not have.
    let mut others: Vec<_> = (0..3)
        .map(|first| requests_of(MIXED, Numbers { first, step: 3 }))
        .collect();
    let mut whole: Vec<_> = whole.into_iter().map(Vec::into_iter).collect();
    let mut out = Vec::new();
    for turn in 0..200 {
        for user in [5, 0, 3, 1, 4, 2] {
            let requests = &mut others[user % 3];
            let next = requests.next(user / 3, &mut out);
            let (expected, bytes) = whole[user].next().unwrap();
            assert_eq!(next, expected);
            // A look-up asks for what an answer named.
            if !out.starts_with(b"GET /transactions/0") {
                assert_eq!(out, bytes, "user {user} request {turn}");
            }
            requests.answered(user / 3, ID);
        }
    }
    let other_seed = MIXED.replace("seed = 3", "seed = 4");
    assert_ne!(take(&mut requests(&other_seed), 0, 200), first);
}

#[test]
fn tasks_are_chosen_by_weight_and_think_time_is_drawn() {
    let mut requests = requests(MIXED);
    let mut seen = BTreeMap::new();
    let mut think = Duration::ZERO;
    for (next, _) in take(&mut requests, 0, 20_000) {
        *seen.entry(next.task).or_insert(0.0) += 1.0;
        think += next.think;
    }
    // User 0 is of the first class.
    let expected = [10_000.0, 2_000.0, 4_000.0, 4_000.0];
    assert_eq!(seen.len(), expected.len(), "{seen:?}");
    let chi2: f64 = seen
        .values()
        .zip(expected)
        .map(|(seen, expected): (&f64, f64)| (seen - expected).powi(2) / expected)
        .sum();
    // 3 degrees of freedom: 16.3 is passed once in a thousand.
    assert!(chi2 < 16.3, "{seen:?}");
    let mean = think / 20_000;
    assert!((4_900..=5_100).contains(&mean.as_micros()), "{mean:?}");
}

#[test]
fn any_number_of_users_has_about_the_right_share_of_each_class() {
    let text = r#"
        classes = [
            { name = "a", weight = 70, tasks = [{ task = "health" }] },
            { name = "b", weight = 29, tasks = [{ task = "health" }] },
            { name = "c", tasks = [{ task = "health" }] },
        ]
    "#;
    let requests = requests(text);
    let mut seen = [0_u32; 3];
    for user in 0..10_000_u32 {
        seen[requests.class_of(user)] += 1;
        let users = user + 1;
        let off = seen[0].abs_diff(users * 70 / 100);
        assert!(off <= 3, "{seen:?} of {users}");
    }
    assert!(seen[2].abs_diff(100) <= 3, "{seen:?}");
}

#[test]
fn a_repeat_is_one_of_the_last_four_requests_byte_by_byte() {
    let text = r#"
        seed = 9
        [[classes]]
        name = "a"
        amount = "1..=999"
        tasks = [{ task = "transfer", weight = 2 }, { task = "batch:2" }, { task = "repeat", weight = 3 }]
    "#;
    let mut requests = requests(text);
    let mut earlier: Vec<(Next, Vec<u8>)> = Vec::new();
    let mut repeats = 0;
    for (next, out) in take(&mut requests, 2, 3_000) {
        parse(&out);
        if next.task != 2 {
            earlier.push((next, out));
            continue;
        }
        assert_eq!(next.transfers, 0);
        if earlier.is_empty() {
            assert!(out.starts_with(b"GET /balance/"));
            assert_eq!(next.span.count, 0);
            continue;
        }
        let last = earlier.iter().rev().take(4);
        let found = last.into_iter().find(|(_, bytes)| *bytes == out);
        assert_eq!(next.span, found.unwrap().0.span);
        repeats += 1;
    }
    assert!(repeats > 1_000);
}

#[test]
fn what_is_planned_is_what_is_sent_and_a_read_plans_nothing() {
    let text = r#"
        [[classes]]
        name = "a"
        amount = ["7", "0.50", "12.345"]
        tasks = [{ task = "transfer" }, { task = "batch:3" }, { task = "repeat" }, { task = "balance" }]
    "#;
    let scenario = scenario(text, &ScenarioArgs::default()).unwrap();
    let numbers = Numbers { first: 0, step: 1 };
    let target = Target {
        authority: "127.0.0.1:5000".to_owned(),
        ..Target::default()
    };
    let mut requests = Requests::new(&scenario, &target, numbers, Plans::Told);
    let mut out = Vec::new();
    let mut told = 0;
    for _ in 0..400 {
        let next = requests.next(3, &mut out);
        let planned = requests.planned();
        assert_eq!(planned.len(), next.span.count);
        if planned.is_empty() {
            assert!(out.starts_with(b"GET "));
            continue;
        }
        assert_eq!(next.keep, KeepBody::All);
        let body = parse(&out).body;
        let one = [body.clone()];
        let items = body["transfers"].as_array().map_or(&one[..], Vec::as_slice);
        for (item, planned) in items.iter().zip(planned) {
            assert_eq!(item["from"], planned.from);
            assert_eq!(item["to"], planned.to);
            let amount = Amount::parse(&item["amount"].to_string());
            assert_eq!(amount, Some(planned.amount));
            told += 1;
        }
    }
    assert!(told > 400);
}

#[test]
fn a_look_up_asks_for_an_answered_transaction_and_a_balance_before_that() {
    let text = r#"
        [[classes]]
        name = "a"
        tasks = [{ task = "transfer" }, { task = "lookup" }]
    "#;
    let mut requests = requests(text);
    let mut out = Vec::new();
    // A user that never sent has nothing to remember for.
    requests.answered(0, ID);
    for answered in [false, true] {
        let mut lookups = 0;
        for _ in 0..100 {
            let next = requests.next(0, &mut out);
            if next.task == 0 {
                assert_eq!(next.keep, KeepBody::All, "the id is in the body");
                continue;
            }
            lookups += 1;
            let line = parse(&out).line;
            if answered {
                assert_eq!(line, format!("GET /transactions/{ID} HTTP/1.1"));
            } else {
                assert!(line.starts_with("GET /balance/"), "{line}");
            }
        }
        assert!(lookups > 20);
        requests.answered(0, "x\r\nEvil: 1");
        requests.answered(0, ID);
    }
}

#[test]
fn users_of_a_ring_begin_at_their_number_and_go_on_by_one() {
    let text = only("transfer").replace("name", "choice = \"ring\"\naccounts = \"1..=5\"\nname");
    let mut requests = requests(&text);
    let mut sides = |user: usize| -> Vec<(u64, u64)> {
        take(&mut requests, user, 3)
            .iter()
            .map(|(_, out)| parse(out).body)
            .map(|body| (body["from"].as_u64().unwrap(), body["to"].as_u64().unwrap()))
            .collect()
    };
    assert_eq!(sides(0), [(1, 2), (2, 3), (3, 4)]);
    assert_eq!(sides(3), [(4, 5), (5, 1), (1, 2)]);
}

#[test]
fn headers_are_sent_with_every_request() {
    let scenario = scenario(MIXED, &ScenarioArgs::default()).unwrap();
    let target = Target {
        authority: "127.0.0.1:5000".to_owned(),
        headers: crate::headers::Headers::of("X-Tenant", "blue"),
    };
    let mut requests = Requests::new(
        &scenario,
        &target,
        Numbers { first: 0, step: 1 },
        Plans::Untold,
    );
    for user in 0..4 {
        for (_, out) in take(&mut requests, user, 50) {
            assert_eq!(parse(&out).headers["x-tenant"], "blue");
        }
    }
}
