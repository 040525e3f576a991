//! Records as bytes: small, because there are tens of millions.
//!
//! Owns: the encoding inside a block.
//! Never: allocates for a completed transfer.
//! Bound: `RECORD_BYTES_MAX` for one record; `CODES_MAX` codes in a block.
//! Invariant: a block is read without any other: numbers are differences to the
//! record before in the same block, and begin at zero.

use uuid::Uuid;

use super::{Amount, Event, Lost, Outcome, Planned, Record, Replay};
use crate::request::key::Key;
use crate::scenario::Keys;

const SENT: u8 = 0;
const SENT_WITHOUT_KEY: u8 = 1;
const COMPLETED: u8 = 2;
const COMPLETED_WITHOUT_ID: u8 = 3;
const REJECTED: u8 = 4;
const REJECTED_WITHOUT_ID: u8 = 5;
const REFUSED: u8 = 6;
const UNKNOWN: u8 = 7;
const LOST: u8 = 8;
const KIND_MASK: u8 = 0x0f;
const REPLAYED: u8 = 0x40;
const SAME_AMOUNT: u8 = 0x80;

/// A target that invents codes must not fill the journal.
const CODES_MAX: usize = 64;
const CODE_BYTES_MAX: usize = 64;
const CODE_OVERFLOW: &str = "(other)";

/// What the next record of a block is written as a difference to.
#[derive(Debug, Default)]
struct Before {
    sent: Key,
    answered: Key,
    at_us: u64,
    amount: Option<Amount>,
    codes: Vec<String>,
}

/// Writes the records of one block.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    before: Before,
    bytes: Vec<u8>,
}

impl Encoder {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The block's bytes; the next record begins another block.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.before = Before::default();
        std::mem::take(&mut self.bytes)
    }

    pub(super) fn sent(&mut self, key: Key, at_us: u64, planned: &Planned) {
        let kind = match planned.keys {
            Keys::On => SENT,
            Keys::Off => SENT_WITHOUT_KEY,
        };
        let same = self.before.amount == Some(planned.amount);
        self.bytes
            .push(if same { kind | SAME_AMOUNT } else { kind });
        let before = std::mem::replace(&mut self.before.sent, key);
        self.key(key, before);
        self.time(at_us);
        self.varint(planned.from.into());
        self.varint(planned.to.into());
        if !same {
            let (mantissa, scale) = planned.amount.parts();
            self.bytes.push(scale);
            self.varint(mantissa);
            self.before.amount = Some(planned.amount);
        }
    }

    pub(super) fn answered(&mut self, key: Key, at_us: u64, outcome: &Outcome, replay: Replay) {
        let (kind, id) = match outcome {
            Outcome::Completed(id) => (pick(*id, COMPLETED, COMPLETED_WITHOUT_ID), *id),
            Outcome::Rejected { id, .. } => (pick(*id, REJECTED, REJECTED_WITHOUT_ID), *id),
            Outcome::Refused { .. } => (REFUSED, None),
            Outcome::Unknown { .. } => (UNKNOWN, None),
        };
        self.bytes.push(match replay {
            Replay::First => kind,
            Replay::Replayed => kind | REPLAYED,
        });
        self.answer_head(key, at_us);
        if let Some(id) = id {
            self.bytes.extend_from_slice(id.as_bytes());
        }
        match outcome {
            Outcome::Completed(_) => {}
            Outcome::Rejected { code, .. } => self.code(code),
            Outcome::Refused { status, code } | Outcome::Unknown { status, code } => {
                self.varint((*status).into());
                self.code(code);
            }
        }
    }

    pub(super) fn unanswered(&mut self, key: Key, at_us: u64, lost: Lost) {
        self.bytes.push(LOST);
        self.answer_head(key, at_us);
        self.bytes.push(match lost {
            Lost::Io => 0,
            Lost::Timeout => 1,
            Lost::Protocol => 2,
            Lost::GivenUp => 3,
        });
    }

    fn answer_head(&mut self, key: Key, at_us: u64) {
        let before = std::mem::replace(&mut self.before.answered, key);
        self.key(key, before);
        self.time(at_us);
    }

    fn key(&mut self, key: Key, before: Key) {
        self.difference(key.user.into(), before.user.into());
        self.difference(key.counter, before.counter);
    }

    fn time(&mut self, at_us: u64) {
        let before = std::mem::replace(&mut self.before.at_us, at_us);
        self.difference(at_us, before);
    }

    /// The first use in a block spells a code out, later ones name its number.
    fn code(&mut self, code: &str) {
        let known = |codes: &[String], code: &str| codes.iter().position(|known| known == code);
        let fits = code.len() <= CODE_BYTES_MAX && self.before.codes.len() < CODES_MAX;
        let code = match known(&self.before.codes, code) {
            None if !fits => CODE_OVERFLOW,
            Some(_) | None => code,
        };
        let index = known(&self.before.codes, code);
        let fresh = self.before.codes.len();
        self.varint(u128::try_from(index.unwrap_or(fresh)).unwrap_or(0));
        if index.is_none() {
            self.varint(u128::try_from(code.len()).unwrap_or(0));
            self.bytes.extend_from_slice(code.as_bytes());
            self.before.codes.push(code.to_owned());
        }
    }

    fn difference(&mut self, value: u64, before: u64) {
        let difference = i128::from(value) - i128::from(before);
        // Zigzag: small differences are small numbers, whatever their sign.
        let zigzag = (difference << 1) ^ (difference >> 127);
        self.varint(zigzag.unsigned_abs());
    }

    fn varint(&mut self, mut value: u128) {
        loop {
            let low = u8::try_from(value & 0x7f).unwrap_or(0);
            value >>= 7;
            if value == 0 {
                self.bytes.push(low);
                return;
            }
            self.bytes.push(low | 0x80);
        }
    }
}

const fn pick(id: Option<Uuid>, with: u8, without: u8) -> u8 {
    if id.is_some() { with } else { without }
}

/// Reads the records of one block; `None` inside is a block this version cannot
/// read, although its check sum is right.
#[derive(Debug)]
pub(super) struct Decoder<'a> {
    before: Before,
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            before: Before::default(),
            rest: bytes,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn read(&mut self) -> Option<Record> {
        let tag = self.byte()?;
        let kind = tag & KIND_MASK;
        if kind == SENT || kind == SENT_WITHOUT_KEY {
            return self.read_sent(tag);
        }
        self.before.answered = self.key(self.before.answered)?;
        self.before.at_us = self.difference(self.before.at_us)?;
        let event = if kind == LOST {
            Event::Unanswered(match self.byte()? {
                0 => Lost::Io,
                1 => Lost::Timeout,
                2 => Lost::Protocol,
                3 => Lost::GivenUp,
                _ => return None,
            })
        } else {
            let replay = if tag & REPLAYED == 0 {
                Replay::First
            } else {
                Replay::Replayed
            };
            Event::Answered(self.read_outcome(kind)?, replay)
        };
        Some(Record {
            key: self.before.answered,
            at_us: self.before.at_us,
            event,
        })
    }

    fn read_sent(&mut self, tag: u8) -> Option<Record> {
        self.before.sent = self.key(self.before.sent)?;
        self.before.at_us = self.difference(self.before.at_us)?;
        let from = u64::try_from(self.varint()?).ok()?;
        let to = u64::try_from(self.varint()?).ok()?;
        if tag & SAME_AMOUNT == 0 {
            let scale = self.byte()?;
            self.before.amount = Some(Amount::new(self.varint()?, scale));
        }
        let keys = if tag & KIND_MASK == SENT {
            Keys::On
        } else {
            Keys::Off
        };
        Some(Record {
            key: self.before.sent,
            at_us: self.before.at_us,
            event: Event::Sent(Planned {
                from,
                to,
                amount: self.before.amount?,
                keys,
            }),
        })
    }

    fn read_outcome(&mut self, kind: u8) -> Option<Outcome> {
        Some(match kind {
            COMPLETED => Outcome::Completed(Some(self.id()?)),
            COMPLETED_WITHOUT_ID => Outcome::Completed(None),
            REJECTED => Outcome::Rejected {
                id: Some(self.id()?),
                code: self.code()?,
            },
            REJECTED_WITHOUT_ID => Outcome::Rejected {
                id: None,
                code: self.code()?,
            },
            REFUSED => Outcome::Refused {
                status: u16::try_from(self.varint()?).ok()?,
                code: self.code()?,
            },
            UNKNOWN => Outcome::Unknown {
                status: u16::try_from(self.varint()?).ok()?,
                code: self.code()?,
            },
            _ => return None,
        })
    }

    fn id(&mut self) -> Option<Uuid> {
        let (id, rest) = self.rest.split_first_chunk::<16>()?;
        self.rest = rest;
        Some(Uuid::from_bytes(*id))
    }

    fn code(&mut self) -> Option<String> {
        let index = usize::try_from(self.varint()?).ok()?;
        if let Some(known) = self.before.codes.get(index) {
            return Some(known.clone());
        }
        let length = usize::try_from(self.varint()?).ok()?;
        let (text, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        let code = std::str::from_utf8(text).ok()?.to_owned();
        self.before.codes.push(code.clone());
        Some(code)
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    fn key(&mut self, before: Key) -> Option<Key> {
        let user = self.difference(before.user.into())?;
        Some(Key {
            user: u32::try_from(user).ok()?,
            counter: self.difference(before.counter)?,
        })
    }

    fn difference(&mut self, before: u64) -> Option<u64> {
        let zigzag = i128::try_from(self.varint()?).ok()?;
        let difference = (zigzag >> 1) ^ -(zigzag & 1);
        u64::try_from(i128::from(before) + difference).ok()
    }

    fn varint(&mut self) -> Option<u128> {
        let mut value = 0_u128;
        let mut shift = 0_u32;
        loop {
            let byte = self.byte()?;
            // 19 groups of 7 bits hold the 128 of the largest number.
            if shift > 126 {
                return None;
            }
            value |= u128::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
            shift += 7;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(from: u64, amount: &str, keys: Keys) -> Planned {
        Planned {
            from,
            to: 9_007_199_254_740_991,
            amount: Amount::parse(amount).unwrap(),
            keys,
        }
    }

    fn all() -> Vec<Record> {
        let id = Some(Uuid::from_u128(0x0198_c0de_0000_7000_8000_0000_0000_0001));
        let code = || "insufficient_funds".to_owned();
        let mut events = vec![
            Event::Sent(planned(0, "1", Keys::On)),
            Event::Sent(planned(1, "1.00", Keys::Off)),
            Event::Sent(planned(2, "999999999999999999999.25", Keys::On)),
            Event::Answered(Outcome::Completed(id), Replay::Replayed),
            Event::Answered(Outcome::Completed(None), Replay::First),
        ];
        for id in [id, None] {
            events.push(Event::Answered(
                Outcome::Rejected { id, code: code() },
                Replay::First,
            ));
        }
        for status in [200, 503, u16::MAX] {
            let code = format!("code {status}");
            events.push(Event::Answered(
                Outcome::Refused {
                    status,
                    code: code.clone(),
                },
                Replay::First,
            ));
            events.push(Event::Answered(
                Outcome::Unknown { status, code },
                Replay::First,
            ));
        }
        events.extend(
            [Lost::Io, Lost::Timeout, Lost::Protocol, Lost::GivenUp].map(Event::Unanswered),
        );
        // Numbers that go up, down and as far as they can.
        let counters = [0, 7, 3, u64::MAX, 0];
        let pairs = events.into_iter().zip(counters.into_iter().cycle());
        pairs
            .map(|(event, counter)| Record {
                key: Key {
                    user: u32::try_from(counter % 5).unwrap(),
                    counter,
                },
                at_us: counter / 2,
                event,
            })
            .collect()
    }

    fn encode(records: &[Record]) -> Vec<u8> {
        let mut encoder = Encoder::default();
        for Record { key, at_us, event } in records {
            match event {
                Event::Sent(planned) => encoder.sent(*key, *at_us, planned),
                Event::Answered(outcome, replay) => {
                    encoder.answered(*key, *at_us, outcome, *replay);
                }
                Event::Unanswered(lost) => encoder.unanswered(*key, *at_us, *lost),
            }
        }
        encoder.take()
    }

    #[test]
    fn every_record_is_read_as_it_was_written() {
        let bytes = encode(&all());
        let mut decoder = Decoder::new(&bytes);
        for expected in all() {
            assert_eq!(decoder.read(), Some(expected));
        }
        assert!(decoder.is_empty());
    }

    #[test]
    fn a_record_cut_anywhere_is_refused_not_invented() {
        for record in all() {
            let bytes = encode(std::slice::from_ref(&record));
            for end in 0..bytes.len() {
                assert_eq!(Decoder::new(&bytes[..end]).read(), None, "{record:?} {end}");
            }
        }
    }

    #[test]
    fn an_ordinary_transfer_and_its_answer_are_small() {
        let mut encoder = Encoder::default();
        for counter in 0..1000 {
            let at = counter * 40;
            let user = u32::try_from(counter % 64).unwrap();
            let key = Key::first(user, counter / 64);
            encoder.sent(
                key,
                at,
                &Planned {
                    from: 700,
                    to: 800,
                    ..planned(0, "1", Keys::On)
                },
            );
            let id = Some(Uuid::from_u128(counter.into()));
            encoder.answered(key, at + 900, &Outcome::Completed(id), Replay::First);
        }
        assert!(encoder.len() < 32 * 1000, "{} bytes", encoder.len());
    }

    #[test]
    fn invented_codes_are_bounded() {
        let mut encoder = Encoder::default();
        for status in 0..1000 {
            let code = format!("code {status}");
            encoder.answered(
                Key::default(),
                0,
                &Outcome::Refused { status, code },
                Replay::First,
            );
        }
        let bytes = encoder.take();
        let mut decoder = Decoder::new(&bytes);
        let mut last = None;
        while !decoder.is_empty() {
            last = decoder.read();
        }
        let code = CODE_OVERFLOW.to_owned();
        let event = Event::Answered(Outcome::Refused { status: 999, code }, Replay::First);
        assert_eq!(last.unwrap().event, event);
        assert!(decoder.before.codes.len() <= CODES_MAX + 1);
    }
}
