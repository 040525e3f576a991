//! Idempotency-Keys, and how to find one again.
//!
//! Owns: the form `SEED-USER-COUNTER` in lower-case hex of 16, 6 and 12 digits.
//! Never: repeats a key within a run, except on purpose.
//! Bound: 2^24 users; 2^35 requests per user of at most 8,192 transfers.
//! Invariant: seed, user and counter are the key: who stores the seed once and
//! (user, counter) per transfer has every key that was sent.
//!
//! The counter is the number of the user's request times 8,192 plus the place in
//! the batch. So it also tells which request a transfer was in, and that request
//! can be made again from the scenario.

use crate::scenario::BATCH_MAX;

/// Transfers that fit one request's part of the counter.
const PLACES: u64 = 8_192;
const USER_DIGITS: usize = 6;
const COUNTER_DIGITS: usize = 12;
/// User, hyphen and counter: what differs between the keys of a run.
pub(crate) const TAIL_BYTES: usize = USER_DIGITS + 1 + COUNTER_DIGITS;
const HEX: &[u8; 16] = b"0123456789abcdef";

// `BATCH_MAX` transfers take the places 0 to 8,191.
const _: () = assert!(BATCH_MAX == 8_192);

/// One key of a run; the next transfers of a batch have the next counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) user: u32,
    pub(crate) counter: u64,
}

impl Key {
    /// The key of the first transfer of a user's request.
    pub(crate) const fn first(user: u32, request: u64) -> Self {
        Self {
            user,
            counter: request * PLACES,
        }
    }

    pub(crate) const fn next(self) -> Self {
        Self {
            user: self.user,
            counter: self.counter + 1,
        }
    }

    /// Writes the key after its prefix; `field` has [`TAIL_BYTES`].
    pub(crate) fn write(self, field: &mut [u8]) {
        write_hex(&mut field[..USER_DIGITS], u64::from(self.user));
        field[USER_DIGITS] = b'-';
        write_hex(&mut field[USER_DIGITS + 1..TAIL_BYTES], self.counter);
    }
}

impl Key {
    /// The whole key, as a run with that seed sends it.
    pub(crate) fn text(self, seed: u64) -> String {
        let mut tail = [0; TAIL_BYTES];
        self.write(&mut tail);
        format!("{}{}", prefix(seed), String::from_utf8_lossy(&tail))
    }
}

/// What all keys of a run begin with.
pub(crate) fn prefix(seed: u64) -> String {
    format!("{seed:016x}-")
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

    #[test]
    fn a_key_is_seed_user_and_counter() {
        let mut tail = [0; TAIL_BYTES];
        let key = Key::first(0xab, 3).next();
        key.write(&mut tail);
        let text = format!("{}{}", prefix(0xfeed), std::str::from_utf8(&tail).unwrap());
        assert_eq!(text, "000000000000feed-0000ab-000000006001");
    }

    #[test]
    fn the_last_place_of_a_request_comes_before_the_first_of_the_next() {
        let last = Key::first(1, 7).counter + u64::from(BATCH_MAX) - 1;
        assert_eq!(last + 1, Key::first(1, 8).counter);
    }
}
