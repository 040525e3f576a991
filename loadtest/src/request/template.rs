//! Requests that are built once and then only patched.
//!
//! Owns: the bytes of one task's request and where its changing parts are.
//! Never: formats with an allocation once it is built.
//! Bound: one request of at most `BATCH_MAX` transfers.
//! Invariant: numbers in a body are padded with spaces before them, which JSON
//! allows, so that offsets and Content-Length never change.

use crate::journal::{self, Planned};
use crate::request::key::{self, Key};
use crate::rng::Rng;
use crate::scenario::{Amount, Class, Keys, Population};

/// What every head has in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'a> {
    /// `host:port`, as the Host header says it.
    pub(super) authority: &'a str,
    /// Further header lines, each with its line end.
    pub(super) lines: &'a str,
    pub(super) seed: u64,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    debit_at: usize,
    credit_at: usize,
    amount_at: usize,
    /// Where the part of the key after its prefix is, when there is a key.
    key_at: Option<usize>,
}

/// Whose request it is, for what depends on that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) user: u32,
    /// The number of the user's request.
    pub(super) number: u64,
}

impl Turn {
    /// Where the user is in a ring of accounts.
    pub(super) fn place(self) -> u64 {
        u64::from(self.user).wrapping_add(self.number)
    }
}

/// Where a request is written.
pub(super) struct Page<'a> {
    pub(super) out: &'a mut Vec<u8>,
    /// Its transfers, if they are wanted.
    pub(super) planned: Option<&'a mut Vec<Planned>>,
}

/// `POST` of one or more transfers.
#[derive(Debug)]
pub(super) struct Post {
    bytes: Vec<u8>,
    items: Vec<Item>,
    population: Population,
    amount: Amount,
    keys: Keys,
    id_width: usize,
    amount_width: usize,
}

impl Post {
    /// `POST /transaction`, its key in a header.
    pub(super) fn transfer(head: Head<'_>, class: &Class) -> Self {
        let mut post = Self::empty(class);
        let mut body = Vec::new();
        let mut item = post.push_item(&mut body, None);
        let key_line = match class.keys {
            Keys::On => format!(
                "Idempotency-Key: {}{}\r\n",
                key::prefix(head.seed),
                "0".repeat(key::TAIL_BYTES)
            ),
            Keys::Off => String::new(),
        };
        let bytes = head.post("/transaction", &key_line, body.len());
        item.key_at = match class.keys {
            Keys::On => Some(bytes.len() - "\r\n\r\n".len() - key::TAIL_BYTES),
            Keys::Off => None,
        };
        post.items.push(item);
        post.join(bytes, &body)
    }

    /// `POST /transactions`, a key in each item.
    pub(super) fn batch(head: Head<'_>, class: &Class, count: u32) -> Self {
        let mut post = Self::empty(class);
        let prefix = match class.keys {
            Keys::On => Some(key::prefix(head.seed)),
            Keys::Off => None,
        };
        let mut body = b"{\"transfers\":[".to_vec();
        for index in 0..count {
            if index > 0 {
                body.push(b',');
            }
            let item = post.push_item(&mut body, prefix.as_deref());
            post.items.push(item);
        }
        body.extend_from_slice(b"]}");
        let bytes = head.post("/transactions", "", body.len());
        for item in &mut post.items {
            item.key_at = item.key_at.map(|at| at + bytes.len());
        }
        post.join(bytes, &body)
    }

    fn empty(class: &Class) -> Self {
        Self {
            bytes: Vec::new(),
            items: Vec::new(),
            population: class.population,
            amount: class.amount.clone(),
            keys: class.keys,
            id_width: class.population.accounts().width(),
            amount_width: class.amount.width(),
        }
    }

    fn push_item(&self, body: &mut Vec<u8>, key_prefix: Option<&str>) -> Item {
        let pad = |body: &mut Vec<u8>, name: &[u8], width: usize| {
            body.extend_from_slice(name);
            let at = body.len();
            body.resize(at + width, b' ');
            at
        };
        let debit_at = pad(body, b"{\"from\":", self.id_width);
        let credit_at = pad(body, b",\"to\":", self.id_width);
        let amount_at = pad(body, b",\"amount\":", self.amount_width);
        let key_at = key_prefix.map(|prefix| {
            body.extend_from_slice(b",\"idempotency_key\":\"");
            let at = pad(body, prefix.as_bytes(), key::TAIL_BYTES);
            body.push(b'"');
            at
        });
        body.push(b'}');
        Item {
            debit_at,
            credit_at,
            amount_at,
            key_at,
        }
    }

    /// `bytes` is the head; the items are in `body`.
    fn join(mut self, mut bytes: Vec<u8>, body: &[u8]) -> Self {
        for item in &mut self.items {
            item.debit_at += bytes.len();
            item.credit_at += bytes.len();
            item.amount_at += bytes.len();
        }
        bytes.extend_from_slice(body);
        self.bytes = bytes;
        self
    }

    /// Transfers in it.
    pub(super) fn transfers(&self) -> usize {
        self.items.len()
    }

    /// Writes the request of a turn; the same turn and numbers give it again.
    pub(super) fn write(&mut self, page: &mut Page<'_>, turn: Turn, rng: &mut Rng) {
        let mut key = Key::first(turn.user, turn.number);
        let mut place = turn.place();
        for item in &self.items {
            let sides = self.population.two(rng, place);
            let bytes = &mut self.bytes;
            write_right(
                &mut bytes[item.debit_at..item.debit_at + self.id_width],
                sides.debit,
            );
            write_right(
                &mut bytes[item.credit_at..item.credit_at + self.id_width],
                sides.credit,
            );
            let amount = item.amount_at..item.amount_at + self.amount_width;
            self.amount.write(&mut bytes[amount.clone()], rng);
            if let Some(planned) = &mut page.planned {
                planned.push(Planned {
                    from: sides.debit,
                    to: sides.credit,
                    // What `scenario` lets through is decimal text.
                    amount: journal::Amount::parse_bytes(&bytes[amount])
                        .unwrap_or_else(|| journal::Amount::new(0, 0)),
                    keys: self.keys,
                });
            }
            if let Some(at) = item.key_at {
                key.write(&mut bytes[at..at + key::TAIL_BYTES]);
            }
            key = key.next();
            place = place.wrapping_add(1);
        }
        page.out.extend_from_slice(&self.bytes);
    }
}

/// `GET` with something in the path, which cannot be padded.
#[derive(Debug)]
pub(super) struct Get {
    before: Vec<u8>,
    after: Vec<u8>,
}

impl Get {
    pub(super) fn new(head: Head<'_>, before: &str, after: &str) -> Self {
        Self {
            before: format!("GET {before}").into_bytes(),
            after: format!(
                "{after} HTTP/1.1\r\nHost: {}\r\n{}\r\n",
                head.authority, head.lines
            )
            .into_bytes(),
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>, what: &[u8]) {
        out.extend_from_slice(&self.before);
        out.extend_from_slice(what);
        out.extend_from_slice(&self.after);
    }

    pub(super) fn write_id(&self, out: &mut Vec<u8>, id: u64) {
        // 2^64 has 20 digits.
        let mut digits = [b' '; 20];
        let used = write_right(&mut digits, id);
        self.write(out, &digits[digits.len() - used..]);
    }
}

impl Head<'_> {
    fn post(self, path: &str, key_line: &str, body_bytes: usize) -> Vec<u8> {
        format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\n{}Content-Type: application/json\r\n\
             Content-Length: {body_bytes}\r\n{key_line}\r\n",
            self.authority, self.lines
        )
        .into_bytes()
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
