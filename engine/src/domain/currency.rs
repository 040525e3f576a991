//! Currencies: ISO 4217 codes and their fraction digits.

use std::fmt;

/// ISO 4217 numeric code, as stored: 840 is USD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CurrencyId(pub i16);

/// Three capital letters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CurrencyCode([u8; 3]);

impl CurrencyCode {
    /// `None` unless it is three letters A to Z.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let letters: [u8; 3] = text.as_bytes().try_into().ok()?;
        letters
            .iter()
            .all(u8::is_ascii_uppercase)
            .then_some(Self(letters))
    }

    /// The three letters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Checked at construction to be ASCII capitals.
        std::str::from_utf8(&self.0).unwrap_or("???")
    }
}

impl fmt::Debug for CurrencyCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Display for CurrencyCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A currency as the `currencies` table has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Currency {
    /// As stored in rows.
    pub id: CurrencyId,
    /// As sent on the wire.
    pub code: CurrencyCode,
    /// Fraction digits, 0..=4; never changed once stored.
    pub digits: u8,
}

impl Currency {
    /// A currency for tests, unchecked.
    #[cfg(test)]
    #[must_use]
    pub const fn for_test(id: i16, code: [u8; 3], digits: u8) -> Self {
        Self {
            id: CurrencyId(id),
            code: CurrencyCode(code),
            digits,
        }
    }
}

/// All currencies, read once at start: they are only ever added by a migration.
#[derive(Clone, Debug, Default)]
pub struct Currencies {
    by_id: hashbrown::HashMap<CurrencyId, Currency>,
}

impl Currencies {
    /// From the rows of the table.
    #[must_use]
    pub fn new(rows: impl IntoIterator<Item = Currency>) -> Self {
        Self {
            by_id: rows
                .into_iter()
                .map(|currency| (currency.id, currency))
                .collect(),
        }
    }

    /// By numeric code.
    #[must_use]
    pub fn by_id(&self, id: CurrencyId) -> Option<Currency> {
        self.by_id.get(&id).copied()
    }

    /// By letters. Linear: asked when an account is opened, not per transfer.
    #[must_use]
    pub fn by_code(&self, code: CurrencyCode) -> Option<Currency> {
        self.by_id
            .values()
            .find(|currency| currency.code == code)
            .copied()
    }
}
