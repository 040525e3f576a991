//! The bytes of each request.
//!
//! Owns: the accounts and keys of every request.
//! Never: does I/O or formats numbers with an allocation on the hot path.
//! Bound: a buffer holds one request; a batch has at most `BATCH_MAX` transfers.
//! Invariant: a request is a function of the seed and its [`RequestId`] alone,
//! whichever thread sends it and when; no two ids share an Idempotency-Key.
//!
//! A request is built once per buffer and then only patched: account ids are
//! padded with spaces before the number, which JSON allows, so that offsets and
//! Content-Length never change.

use std::time::Duration;

use crate::args::{Accounts, Keys, Task};
use crate::rng::Rng;
use crate::think::Think;

/// Hex digits of the user and of the counter in a key: 2^48 transfers per user.
const USER_DIGITS: usize = 8;
const COUNTER_DIGITS: usize = 12;
/// Both with a dash between.
const NUMBER_DIGITS: usize = USER_DIGITS + 1 + COUNTER_DIGITS;
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
    /// How long a user pauses after an answer.
    pub(crate) think: Think,
}

/// The users of one thread: numbers `first`, `first + step`, and so on. With the
/// threads as step no two threads meet, however many users each has or gets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    pub(crate) first: u32,
    pub(crate) step: u32,
}

/// Which request of a run: users number their requests independently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RequestId {
    user: u32,
    number: u64,
}

/// What was written, as far as the sender must know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Next {
    /// Its place among the tasks of the tally.
    pub(crate) task: usize,
    pub(crate) transfers: usize,
    pub(crate) repeat: Repeat,
    /// How long the user pauses after the answer.
    pub(crate) think: Duration,
}

/// Whether the same bytes may be sent again when the answer is in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Every transfer in it carries a key.
    Safe,
    Unsafe,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    from_at: usize,
    to_at: usize,
    /// Where the key's user and counter are, when there is a key.
    number_at: Option<usize>,
}

/// Makes the requests of one thread.
#[derive(Debug)]
pub(crate) struct Requests {
    seed: u64,
    numbers: Numbers,
    /// How many requests each user of the thread has made.
    made: Vec<u64>,
    think: Think,
    repeat: Repeat,
    accounts: Accounts,
    hot_ppm: u32,
    template: Vec<u8>,
    items: Vec<Item>,
    /// Digits reserved for an account id.
    width: usize,
    /// `GET /balance/`: the id is in the path, which cannot be padded.
    balance: Option<String>,
}

impl Requests {
    pub(crate) fn new(plan: &Plan, numbers: Numbers) -> Self {
        let width = plan.accounts.last.to_string().len();
        let mut requests = Self {
            seed: plan.seed,
            numbers,
            made: Vec::new(),
            think: plan.think,
            repeat: match (plan.task, plan.keys) {
                (Task::Transfer | Task::Batch(_), Keys::On) => Repeat::Safe,
                (Task::Transfer | Task::Batch(_) | Task::Balance | Task::Health, _) => {
                    Repeat::Unsafe
                }
            },
            accounts: plan.accounts,
            hot_ppm: plan.hot_ppm,
            template: Vec::new(),
            items: Vec::new(),
            width,
            balance: None,
        };
        let prefix = format!("{:016x}-", plan.seed);
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
            Keys::On => format!("Idempotency-Key: {prefix}{}\r\n", "0".repeat(NUMBER_DIGITS)),
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
        let number_at = match plan.keys {
            Keys::On => Some(head.len() - 4 - NUMBER_DIGITS),
            Keys::Off => None,
        };
        self.items.push(Item {
            from_at: head.len() + item.from_at,
            to_at: head.len() + item.to_at,
            number_at,
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
            item.number_at = item.number_at.map(|at| at + head.len());
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
        let number_at = key_prefix.map(|prefix| {
            body.extend_from_slice(b",\"idempotency_key\":\"");
            body.extend_from_slice(prefix.as_bytes());
            let at = body.len();
            body.resize(at + NUMBER_DIGITS, b'0');
            body.push(b'"');
            at
        });
        body.push(b'}');
        Item {
            from_at,
            to_at,
            number_at,
        }
    }

    /// Writes the next request of the thread's `index`-th user into `out`, which
    /// is empty or held a request of a [`Requests`] of the same plan.
    pub(crate) fn next(&mut self, index: usize, out: &mut Vec<u8>) -> Next {
        // Users that appear while the run goes on are made when they first send.
        if self.made.len() <= index {
            self.made.resize(index + 1, 0);
        }
        let offset = u32::try_from(index)
            .unwrap_or(u32::MAX)
            .saturating_mul(self.numbers.step);
        let id = RequestId {
            user: self.numbers.first.saturating_add(offset),
            number: self.made[index],
        };
        self.made[index] += 1;
        self.write(id, out)
    }

    fn write(&self, id: RequestId, out: &mut Vec<u8>) -> Next {
        // Each request draws from a stream of its own.
        let mut rng = Rng::new(Rng::new(self.seed, u64::from(id.user)).next(), id.number);
        if let Some(tail) = &self.balance {
            let account = self.accounts.first + rng.below(self.accounts.count());
            out.clear();
            out.extend_from_slice(b"GET /balance/");
            let at = out.len();
            out.resize(at + self.width, b' ');
            let used = write_right(&mut out[at..], account);
            out.copy_within(at + self.width - used.., at);
            out.truncate(at + used);
            out.extend_from_slice(tail.as_bytes());
        } else {
            if out.is_empty() {
                out.extend_from_slice(&self.template);
            }
            self.patch(id, &mut rng, out);
        }
        Next {
            task: 0,
            transfers: self.items.len(),
            repeat: self.repeat,
            think: self.think.pick(&mut rng),
        }
    }

    fn patch(&self, id: RequestId, rng: &mut Rng, out: &mut [u8]) {
        let count = u64::try_from(self.items.len()).unwrap_or(u64::MAX);
        let first = id.number.wrapping_mul(count);
        for (counter, item) in (first..).zip(&self.items) {
            let (from, to) = self.pick_sides(rng);
            write_right(&mut out[item.from_at..item.from_at + self.width], from);
            write_right(&mut out[item.to_at..item.to_at + self.width], to);
            if let Some(at) = item.number_at {
                let (user, rest) = out[at..at + NUMBER_DIGITS].split_at_mut(USER_DIGITS);
                write_hex(user, u64::from(id.user));
                rest[0] = b'-';
                write_hex(&mut rest[1..], counter);
            }
        }
    }

    /// Two different accounts; the hot share credits the first account.
    fn pick_sides(&self, rng: &mut Rng) -> (u64, u64) {
        let Accounts { first, .. } = self.accounts;
        let count = self.accounts.count();
        if self.hot_ppm > 0 && rng.below(PPM) < u64::from(self.hot_ppm) {
            return (first + 1 + rng.below(count - 1), first);
        }
        let from = rng.below(count);
        // One of the others, each equally likely.
        let other = rng.below(count - 1);
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

    const ALONE: Numbers = Numbers { first: 0, step: 1 };

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
            think: Think::default(),
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
        for first in 0..3 {
            let mut requests = Requests::new(&plan(Task::Transfer), Numbers { first, step: 3 });
            let mut out = Vec::new();
            for number in 0..500 {
                let issued = requests.next(number % 7, &mut out);
                assert_eq!(issued.repeat, Repeat::Safe);
                let (head, body) = split(&out);
                assert!(head.starts_with("POST /transaction HTTP/1.1\r\n"));
                let (from, to) = (body["from"].as_u64().unwrap(), body["to"].as_u64().unwrap());
                assert!((1..=1000).contains(&from) && (1..=1000).contains(&to));
                assert_ne!(from, to);
                assert_eq!(body["amount"].as_f64(), Some(1.5));
                let key = key_of(&head);
                assert!(key.len() <= 255);
                assert!(keys.insert(key), "key used twice");
            }
        }
        assert_eq!(keys.len(), 1500);
    }

    #[test]
    fn a_users_requests_depend_neither_on_threads_nor_on_other_users() {
        let take = |numbers, index, others: usize| {
            let mut requests = Requests::new(&plan(Task::Transfer), numbers);
            let mut out = Vec::new();
            let mut taken = Vec::new();
            for _ in 0..20 {
                (0..others).for_each(|other| {
                    requests.next(other, &mut out);
                });
                requests.next(index, &mut out);
                taken.push(out.clone());
            }
            taken
        };
        // User 6: the seventh of one thread, or the third of the first of three.
        let alone = take(ALONE, 6, 0);
        assert_eq!(alone, take(Numbers { first: 0, step: 3 }, 2, 2));
        assert_ne!(alone, take(ALONE, 5, 0));
    }

    #[test]
    fn every_item_of_a_batch_has_a_key_of_its_own() {
        let mut requests = Requests::new(&plan(Task::Batch(100)), ALONE);
        let mut keys = HashSet::new();
        let (mut one, mut other) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            for (user, out) in [(1, &mut one), (2, &mut other)] {
                let issued = requests.next(user, out);
                assert_eq!((issued.transfers, issued.repeat), (100, Repeat::Safe));
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
    }

    #[test]
    fn a_seed_replays_and_another_seed_shares_no_key() {
        let take = |seed| {
            let plan = Plan {
                seed,
                ..plan(Task::Transfer)
            };
            let mut requests = Requests::new(&plan, ALONE);
            let mut out = Vec::new();
            (0..100)
                .map(|_| {
                    requests.next(0, &mut out);
                    out.clone()
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(take(5), take(5));
        let distinct: HashSet<_> = take(5).iter().map(|r| split(r).1.to_string()).collect();
        assert!(distinct.len() > 90, "each request picks anew");
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
            let plan = Plan {
                keys: Keys::Off,
                ..plan(task)
            };
            let mut requests = Requests::new(&plan, ALONE);
            let mut out = Vec::new();
            let issued = requests.next(0, &mut out);
            assert_eq!(issued.repeat, Repeat::Unsafe);
            let text = String::from_utf8(out.clone()).unwrap().to_lowercase();
            assert!(!text.contains("idempotency"), "{text}");
            assert!(split(&out).1.is_object());
        }
    }

    #[test]
    fn a_balance_request_names_an_account_without_padding() {
        let mut requests = Requests::new(&plan(Task::Balance), ALONE);
        let mut out = Vec::new();
        let mut seen = HashSet::new();
        for _ in 0..2000 {
            requests.next(0, &mut out);
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
            let plan = Plan {
                hot_ppm,
                ..plan(Task::Transfer)
            };
            let mut requests = Requests::new(&plan, ALONE);
            let mut out = Vec::new();
            let mut hot = 0;
            for _ in 0..2000 {
                requests.next(0, &mut out);
                hot += i32::from(split(&out).1["to"] == 1);
            }
            assert!(expected.contains(&hot), "hot_ppm={hot_ppm} hot={hot}");
        }
    }

    #[test]
    fn two_accounts_are_enough() {
        let accounts = Accounts { first: 9, last: 10 };
        let plan = Plan {
            accounts,
            ..plan(Task::Transfer)
        };
        let mut requests = Requests::new(&plan, ALONE);
        let mut out = Vec::new();
        let mut seen = HashSet::new();
        for _ in 0..50 {
            requests.next(0, &mut out);
            let body = split(&out).1;
            seen.insert((body["from"].as_u64().unwrap(), body["to"].as_u64().unwrap()));
        }
        assert_eq!(seen, HashSet::from([(9, 10), (10, 9)]));
    }
}
