//! What Redis holds for an account, as text.
//!
//! Owns: the format, and whether an entry is young enough.
//! Never: does I/O or reads a clock.
//! Bound: [`TEXT_BYTES_MAX`] per entry; longer ones are not read.
//! Invariant: reading what was written gives it back; anything else is no entry.

use std::fmt::Write as _;
use std::time::Duration;

use crate::domain::{AccountId, Balance, Currency, CurrencyCode, CurrencyId};

/// Nine fields: 19 + 13 + 16 + 20 + 5 + 1 + 3 + 20 + 20 digits, 8 spaces.
pub(super) const TEXT_BYTES_MAX: usize = 128;

/// A cached balance and what is needed to judge it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) balance: Balance,
    /// No newer version was committed before this moment (Unix ms, the writing
    /// engine's clock). Taken before the database was asked, not when Redis was.
    pub(super) as_of_unix_ms: u64,
    /// Who wrote it, and under which epoch of its floor.
    pub(super) writer: Writer,
}

/// One engine process between two losses of its floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Writer {
    /// Random per process.
    pub(super) instance: u64,
    /// See `floor`.
    pub(super) epoch: u64,
}

impl Entry {
    /// Appends the text. Version and time come first: the script reads them.
    pub(super) fn write(&self, text: &mut String) {
        let Balance {
            account_id,
            balance,
            version,
            currency,
        } = self.balance;
        let written = write!(
            text,
            "{version} {} {account_id} {balance} {} {} {} {} {}",
            self.as_of_unix_ms,
            currency.id.0,
            currency.digits,
            currency.code,
            self.writer.instance,
            self.writer.epoch,
        );
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
    }

    /// `None` for anything that this code did not write for that account.
    pub(super) fn read(text: &[u8], account_id: AccountId) -> Option<Self> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let mut fields = std::str::from_utf8(text).ok()?.split(' ');
        let version: i64 = fields.next()?.parse().ok()?;
        let as_of_unix_ms = fields.next()?.parse().ok()?;
        let id: i64 = fields.next()?.parse().ok()?;
        let balance = fields.next()?.parse().ok()?;
        let currency = Currency {
            id: CurrencyId(fields.next()?.parse().ok()?),
            digits: fields.next()?.parse().ok()?,
            code: CurrencyCode::parse(fields.next()?)?,
        };
        let writer = Writer {
            instance: fields.next()?.parse().ok()?,
            epoch: fields.next()?.parse().ok()?,
        };
        let complete = fields.next().is_none()
            && id == account_id.get()
            && version >= 0
            && currency.digits <= 4;
        complete.then_some(Self {
            balance: Balance {
                account_id,
                balance,
                version,
                currency,
            },
            as_of_unix_ms,
            writer,
        })
    }
}

/// How long an entry may be believed, by the engines' clocks.
///
/// Redis expires entries by its own clock from when they are stored. That alone
/// fails when a put was delayed, when Redis' clock steps back, or when a value
/// was planted or restored without an expiry; so every entry also carries when
/// its balance was known to be current. Two clocks must be wrong at once before
/// an entry outlives the bound.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifetime {
    ttl_ms: u64,
    /// How far two engines' clocks may differ: taken off the life of every
    /// entry, and the most by which one may come from the future.
    skew_ms: u64,
}

impl Lifetime {
    /// A second is far more than NTP leaves between hosts; a tenth keeps short
    /// lives (tests, eager operators) usable.
    const SKEW_MS_MAX: u64 = 1_000;

    pub(super) fn new(ttl: Duration) -> Self {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        Self {
            ttl_ms,
            skew_ms: (ttl_ms / 10).min(Self::SKEW_MS_MAX),
        }
    }

    /// For Redis' `PX`: whole milliseconds, at least one.
    pub(super) const fn ttl_ms(self) -> u64 {
        self.ttl_ms
    }

    pub(super) const fn allows(self, as_of_unix_ms: u64, now_unix_ms: u64) -> bool {
        match now_unix_ms.checked_sub(as_of_unix_ms) {
            Some(age_ms) => age_ms < self.ttl_ms - self.skew_ms,
            None => as_of_unix_ms - now_unix_ms <= self.skew_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(account_id: i64, version: i64, balance: i64) -> Entry {
        Entry {
            balance: Balance {
                account_id: AccountId::new(account_id).unwrap(),
                balance,
                version,
                currency: Currency::for_test(840, *b"USD", 2),
            },
            as_of_unix_ms: 1_763_731_000_000,
            writer: Writer {
                instance: u64::MAX,
                epoch: 3,
            },
        }
    }

    fn text(entry: &Entry) -> String {
        let mut text = String::new();
        entry.write(&mut text);
        text
    }

    #[test]
    fn an_entry_reads_back_as_it_was_written() {
        for entry in [
            entry(0, 0, 0),
            entry(7, 1, -5),
            entry(AccountId::MAX.get(), i64::MAX, i64::MIN),
        ] {
            let text = text(&entry);
            assert!(text.len() <= TEXT_BYTES_MAX, "{text}");
            let id = entry.balance.account_id;
            assert_eq!(Entry::read(text.as_bytes(), id), Some(entry));
        }
    }

    #[test]
    fn anything_else_is_no_entry() {
        let id = AccountId::new(7).unwrap();
        let good = text(&entry(7, 1, 5));
        assert!(Entry::read(good.as_bytes(), id).is_some());
        for bad in [
            String::new(),
            "OK".to_owned(),
            format!("{good} 1"),
            format!(" {good}"),
            good.replacen('1', "-1", 1),
            good.replace(" USD ", " usd "),
            good.replace(" 2 USD", " 5 USD"),
            good.replace(" 7 5 ", " 8 5 "),
            good.replacen('1', "9223372036854775808", 1),
            good[..good.len() - 2].to_owned(),
            format!("{good}{}", "0".repeat(TEXT_BYTES_MAX)),
        ] {
            assert_eq!(Entry::read(bad.as_bytes(), id), None, "{bad}");
        }
        assert_eq!(Entry::read(&[0xff, 0xfe], id), None);
    }

    #[test]
    fn an_entry_lives_for_the_ttl_less_the_clocks_difference() {
        let lifetime = Lifetime::new(Duration::from_secs(60));
        let as_of = 1_000_000;
        for (now, allowed) in [
            (as_of - 1_001, false),
            (as_of - 1_000, true),
            (as_of, true),
            (as_of + 58_999, true),
            (as_of + 59_000, false),
            (as_of + 3_600_000, false),
        ] {
            assert_eq!(lifetime.allows(as_of, now), allowed, "now={now}");
        }
        let shortest = Lifetime::new(Duration::ZERO);
        assert!(shortest.allows(5, 5));
        assert!(!shortest.allows(5, 6));
    }
}
