//! The bytes of each request.
//!
//! Owns: the accounts, keys and order of the requests of one thread.
//! Never: does I/O or formats numbers with an allocation on the hot path.
//! Bound: a buffer holds one request; a batch has at most `BATCH_MAX` transfers.
//! Invariant: no two requests of a run carry the same Idempotency-Key, and the
//! same seed gives the same requests again.
//!
//! A request is built once per buffer and then only patched: account ids are
//! padded with spaces before the number, which JSON allows, so that offsets and
//! Content-Length never change.

use crate::args::{Accounts, Keys, Task};
use crate::journal::{Amount, Keyed, Planned};
use crate::rng::Rng;

/// Hex digits of the counter in a key: 2^48 requests per thread.
const COUNTER_DIGITS: usize = 12;
const HEX: &[u8; 16] = b"0123456789abcdef";
const PPM: u64 = 1_000_000;

/// What the requests are made of.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) task: Task,
    pub(crate) keys: Keys,
    /// `host:port`, as the Host header says it.
    pub(crate) authority: String,
    pub(crate) accounts: Accounts,
    pub(crate) amount: String,
    /// Transfers per million that credit the first account.
    pub(crate) hot_ppm: u32,
    pub(crate) seed: u64,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    from_at: usize,
    to_at: usize,
    /// Where the key's counter is, when there is a key.
    counter_at: Option<usize>,
}

/// What a thread's keys begin with; its counter in hexadecimal follows.
fn key_prefix(seed: u64, thread: u64) -> String {
    format!("{seed:016x}-{thread:02x}-")
}

/// The Idempotency-Key of a thread's transfer with that number.
pub(crate) fn key(seed: u64, thread: u64, counter: u64) -> String {
    format!("{}{counter:0COUNTER_DIGITS$x}", key_prefix(seed, thread))
}

/// Makes the requests of one thread.
#[derive(Debug)]
pub(crate) struct Requests {
    rng: Rng,
    accounts: Accounts,
    hot_ppm: u32,
    template: Vec<u8>,
    items: Vec<Item>,
    /// Digits reserved for an account id.
    width: usize,
    counter: u64,
    amount: Amount,
    keyed: Keyed,
    /// The transfers of the request written last.
    planned: Vec<Planned>,
    /// `GET /balance/`: the id is in the path, which cannot be padded.
    balance: Option<String>,
}

impl Requests {
    pub(crate) fn new(plan: &Plan, thread: u64) -> Self {
        let width = plan.accounts.last.to_string().len();
        let mut requests = Self {
            rng: Rng::new(plan.seed, thread),
            accounts: plan.accounts,
            hot_ppm: plan.hot_ppm,
            template: Vec::new(),
            items: Vec::new(),
            width,
            counter: 0,
            // `args` lets only decimal text through.
            amount: Amount::parse(&plan.amount).unwrap_or(Amount::new(0, 0)),
            keyed: match plan.keys {
                Keys::On => Keyed::Yes,
                Keys::Off => Keyed::No,
            },
            planned: Vec::new(),
            balance: None,
        };
        let prefix = key_prefix(plan.seed, thread);
        match plan.task {
            Task::Health => {
                requests.template =
                    format!("GET /health HTTP/1.1\r\nHost: {}\r\n\r\n", plan.authority)
                        .into_bytes();
            }
            Task::Balance => {
                requests.balance = Some(format!(" HTTP/1.1\r\nHost: {}\r\n\r\n", plan.authority));
            }
            Task::Transfer => requests.build_transfer(plan, &prefix),
            Task::Batch(count) => requests.build_batch(plan, &prefix, count),
        }
        requests
    }

    fn build_transfer(&mut self, plan: &Plan, prefix: &str) {
        let key = match plan.keys {
            Keys::On => format!(
                "Idempotency-Key: {prefix}{}\r\n",
                "0".repeat(COUNTER_DIGITS)
            ),
            Keys::Off => String::new(),
        };
        let mut body = Vec::new();
        let item = self.push_item(&mut body, &plan.amount, None);
        let head = format!(
            "POST /transaction HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n{key}\r\n",
            plan.authority,
            body.len()
        );
        let counter_at = match plan.keys {
            Keys::On => Some(head.len() - 4 - COUNTER_DIGITS),
            Keys::Off => None,
        };
        self.items.push(Item {
            from_at: head.len() + item.from_at,
            to_at: head.len() + item.to_at,
            counter_at,
        });
        self.template = head.into_bytes();
        self.template.append(&mut body);
    }

    fn build_batch(&mut self, plan: &Plan, prefix: &str, count: u32) {
        let prefix = match plan.keys {
            Keys::On => Some(prefix),
            Keys::Off => None,
        };
        let mut body = b"{\"transfers\":[".to_vec();
        for index in 0..count {
            if index > 0 {
                body.push(b',');
            }
            let item = self.push_item(&mut body, &plan.amount, prefix);
            self.items.push(item);
        }
        body.extend_from_slice(b"]}");
        let head = format!(
            "POST /transactions HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            plan.authority,
            body.len()
        );
        for item in &mut self.items {
            item.from_at += head.len();
            item.to_at += head.len();
            item.counter_at = item.counter_at.map(|at| at + head.len());
        }
        self.template = head.into_bytes();
        self.template.append(&mut body);
    }

    fn push_item(&self, body: &mut Vec<u8>, amount: &str, key_prefix: Option<&str>) -> Item {
        body.extend_from_slice(b"{\"from\":");
        let from_at = body.len();
        body.resize(from_at + self.width, b' ');
        body.extend_from_slice(b",\"to\":");
        let to_at = body.len();
        body.resize(to_at + self.width, b' ');
        body.extend_from_slice(b",\"amount\":");
        body.extend_from_slice(amount.as_bytes());
        let counter_at = key_prefix.map(|prefix| {
            body.extend_from_slice(b",\"idempotency_key\":\"");
            body.extend_from_slice(prefix.as_bytes());
            let at = body.len();
            body.resize(at + COUNTER_DIGITS, b'0');
            body.push(b'"');
            at
        });
        body.push(b'}');
        Item {
            from_at,
            to_at,
            counter_at,
        }
    }

    /// Transfers in one request.
    pub(crate) fn transfers_per_request(&self) -> usize {
        self.items.len()
    }

    /// The transfers of the request written last, and the number of the first.
    pub(crate) fn planned(&self) -> (u64, &[Planned]) {
        let count = u64::try_from(self.planned.len()).unwrap_or(0);
        (self.counter - count, &self.planned)
    }

    /// Writes the next request into `out`, which is empty or held the previous
    /// request of the same [`Requests`].
    pub(crate) fn write_next(&mut self, out: &mut Vec<u8>) {
        if let Some(tail) = &self.balance {
            let id = self.accounts.first + self.rng.below(self.accounts.count());
            out.clear();
            out.extend_from_slice(b"GET /balance/");
            let at = out.len();
            out.resize(at + self.width, b' ');
            let used = write_right(&mut out[at..], id);
            out.copy_within(at + self.width - used.., at);
            out.truncate(at + used);
            out.extend_from_slice(tail.as_bytes());
            return;
        }
        if out.is_empty() {
            out.extend_from_slice(&self.template);
        }
        self.planned.clear();
        for index in 0..self.items.len() {
            let (from, to) = self.pick_sides();
            self.planned.push(Planned {
                from,
                to,
                amount: self.amount,
                keyed: self.keyed,
            });
            let item = self.items[index];
            write_right(&mut out[item.from_at..item.from_at + self.width], from);
            write_right(&mut out[item.to_at..item.to_at + self.width], to);
            if let Some(at) = item.counter_at {
                write_hex(&mut out[at..at + COUNTER_DIGITS], self.counter);
            }
            self.counter += 1;
        }
    }

    /// Two different accounts; the hot share credits the first account.
    fn pick_sides(&mut self) -> (u64, u64) {
        let Accounts { first, .. } = self.accounts;
        let count = self.accounts.count();
        if self.hot_ppm > 0 && self.rng.below(PPM) < u64::from(self.hot_ppm) {
            return (first + 1 + self.rng.below(count - 1), first);
        }
        let from = self.rng.below(count);
        // One of the others, each equally likely.
        let other = self.rng.below(count - 1);
        let to = if other < from { other } else { other + 1 };
        (first + from, first + to)
    }
}

/// Writes `value` at the right end, spaces before it; gives its digits.
fn write_right(field: &mut [u8], value: u64) -> usize {
    let mut left = value;
    let mut used = 0;
    for byte in field.iter_mut().rev() {
        if left == 0 && used > 0 {
            *byte = b' ';
            continue;
        }
        *byte = b'0' + u8::try_from(left % 10).unwrap_or(0);
        left /= 10;
        used += 1;
    }
    used
}

fn write_hex(field: &mut [u8], value: u64) {
    let mut left = value;
    for byte in field.iter_mut().rev() {
        *byte = HEX[usize::try_from(left & 15).unwrap_or(0)];
        left >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::HashSet;

    fn plan(task: Task) -> Plan {
        Plan {
            task,
            keys: Keys::On,
            authority: "127.0.0.1:5000".to_owned(),
            accounts: Accounts {
                first: 1,
                last: 1000,
            },
            amount: "1.50".to_owned(),
            hot_ppm: 0,
            seed: 0xfeed,
        }
    }

    /// Head and parsed body; fails unless Content-Length is right.
    fn split(request: &[u8]) -> (String, Value) {
        let text = std::str::from_utf8(request).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        if body.is_empty() {
            return (head.to_owned(), Value::Null);
        }
        let length = head
            .lines()
            .find_map(|l| l.strip_prefix("Content-Length: "))
            .unwrap();
        assert_eq!(length.parse::<usize>().unwrap(), body.len());
        (head.to_owned(), serde_json::from_str(body).unwrap())
    }

    fn key_of(head: &str) -> String {
        let line = head
            .lines()
            .find_map(|l| l.strip_prefix("Idempotency-Key: "));
        line.unwrap().to_owned()
    }

    #[test]
    fn a_patched_transfer_is_a_valid_request_with_a_key_of_its_own() {
        let mut keys = HashSet::new();
        for thread in 0..3 {
            let mut requests = Requests::new(&plan(Task::Transfer), thread);
            let mut out = Vec::new();
            for _ in 0..500 {
                requests.write_next(&mut out);
                let (head, body) = split(&out);
                assert!(head.starts_with("POST /transaction HTTP/1.1\r\n"));
                let (from, to) = (body["from"].as_u64().unwrap(), body["to"].as_u64().unwrap());
                assert!((1..=1000).contains(&from) && (1..=1000).contains(&to));
                assert_ne!(from, to);
                assert_eq!(body["amount"].as_f64(), Some(1.5));
                let key = key_of(&head);
                assert!(key.len() <= 255);
                let (counter, planned) = requests.planned();
                assert_eq!(key, super::key(0xfeed, thread, counter));
                assert_eq!((planned[0].from, planned[0].to), (from, to));
                assert!(keys.insert(key), "key used twice");
            }
        }
        assert_eq!(keys.len(), 1500);
    }

    #[test]
    fn every_item_of_a_batch_has_a_key_of_its_own() {
        let mut requests = Requests::new(&plan(Task::Batch(100)), 7);
        let mut keys = HashSet::new();
        let (mut one, mut other) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            for out in [&mut one, &mut other] {
                requests.write_next(out);
                let (head, body) = split(out);
                assert!(!head.contains("Idempotency-Key"));
                let items = body["transfers"].as_array().unwrap();
                assert_eq!(items.len(), 100);
                for item in items {
                    assert!(keys.insert(item["idempotency_key"].as_str().unwrap().to_owned()));
                }
            }
        }
        assert_eq!(keys.len(), 1000);
        assert_eq!(requests.transfers_per_request(), 100);
    }

    #[test]
    fn a_seed_replays_and_another_seed_shares_no_key() {
        let take = |seed| {
            let mut requests = Requests::new(
                &Plan {
                    seed,
                    ..plan(Task::Transfer)
                },
                1,
            );
            let mut out = Vec::new();
            (0..100)
                .map(|_| {
                    requests.write_next(&mut out);
                    out.clone()
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(take(5), take(5));
        let keys = |seed| {
            take(seed)
                .iter()
                .map(|r| key_of(&split(r).0))
                .collect::<HashSet<_>>()
        };
        assert!(keys(5).is_disjoint(&keys(6)));
    }

    #[test]
    fn without_keys_nothing_is_sent_as_one() {
        for task in [Task::Transfer, Task::Batch(2)] {
            let mut requests = Requests::new(
                &Plan {
                    keys: Keys::Off,
                    ..plan(task)
                },
                0,
            );
            let mut out = Vec::new();
            requests.write_next(&mut out);
            let text = String::from_utf8(out.clone()).unwrap().to_lowercase();
            assert!(!text.contains("idempotency"), "{text}");
            assert!(split(&out).1.is_object());
        }
    }

    #[test]
    fn a_balance_request_names_an_account_without_padding() {
        let mut requests = Requests::new(&plan(Task::Balance), 0);
        let mut out = Vec::new();
        let mut seen = HashSet::new();
        for _ in 0..2000 {
            requests.write_next(&mut out);
            let text = std::str::from_utf8(&out).unwrap();
            let line = text.lines().next().unwrap();
            let id = line.strip_prefix("GET /balance/").unwrap();
            let id = id
                .strip_suffix(" HTTP/1.1")
                .unwrap()
                .parse::<u64>()
                .unwrap();
            assert!((1..=1000).contains(&id), "{line}");
            seen.insert(id);
        }
        assert!(seen.len() > 800);
        assert!(out.ends_with(b"\r\n\r\n"));
    }

    #[test]
    fn the_hot_share_credits_the_first_account() {
        for (hot_ppm, expected) in [(0, 0..=20), (500_000, 900..=1100), (1_000_000, 2000..=2000)] {
            let mut requests = Requests::new(
                &Plan {
                    hot_ppm,
                    ..plan(Task::Transfer)
                },
                0,
            );
            let mut out = Vec::new();
            let mut hot = 0;
            for _ in 0..2000 {
                requests.write_next(&mut out);
                hot += i32::from(split(&out).1["to"] == 1);
            }
            assert!(expected.contains(&hot), "hot_ppm={hot_ppm} hot={hot}");
        }
    }

    #[test]
    fn two_accounts_are_enough() {
        let accounts = Accounts { first: 9, last: 10 };
        let mut requests = Requests::new(
            &Plan {
                accounts,
                ..plan(Task::Transfer)
            },
            0,
        );
        let mut out = Vec::new();
        let mut seen = HashSet::new();
        for _ in 0..50 {
            requests.write_next(&mut out);
            let body = split(&out).1;
            seen.insert((body["from"].as_u64().unwrap(), body["to"].as_u64().unwrap()));
        }
        assert_eq!(seen, HashSet::from([(9, 10), (10, 9)]));
    }
}
