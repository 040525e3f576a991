//! How much each transfer moves.
//!
//! Owns: amounts as decimal text or whole units of their last digit.
//! Never: holds money in a float.
//! Bound: `TEXT_MAX` characters; a range has at most `DIGITS_MAX` digits.
//! Invariant: every amount is a positive decimal and a valid JSON number.

use std::fmt;
use std::str::FromStr;

use crate::rng::Rng;

/// Longer than any amount the engine can hold.
const TEXT_MAX: usize = 24;
/// What surely fits 64 bits.
const DIGITS_MAX: usize = 18;
const LIST_MAX: usize = 1_000;

/// How the amount of each transfer is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Amount {
    Constant(String),
    /// Every amount from `min` to `max` is equally likely.
    Range(Range),
    /// Every entry is equally likely.
    List(Vec<String>),
}

/// Amounts in units of the last of `fraction` digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    min: u64,
    max: u64,
    fraction: usize,
}

impl Amount {
    /// The longest text that [`Amount::write`] makes.
    pub(crate) fn width(&self) -> usize {
        match self {
            Self::Constant(text) => text.len(),
            Self::Range(range) => range.text(range.max).len(),
            Self::List(texts) => texts.iter().map(String::len).max().unwrap_or(0),
        }
    }

    /// Writes the next amount at the right end of `field`, spaces before it.
    pub(crate) fn write(&self, field: &mut [u8], rng: &mut Rng) {
        match self {
            Self::Constant(text) => write_right(field, text.as_bytes()),
            Self::Range(range) => {
                let units = range.min + rng.below(range.max - range.min + 1);
                range.write(field, units);
            }
            Self::List(texts) => {
                let count = u64::try_from(texts.len()).unwrap_or(u64::MAX);
                let index = usize::try_from(rng.below(count)).unwrap_or(0);
                write_right(field, texts[index].as_bytes());
            }
        }
    }
}

impl Range {
    /// Digits with a point, at the right end of `field`, spaces before them.
    fn write(self, field: &mut [u8], units: u64) {
        let mut left = units;
        let mut digits = 0;
        for byte in field.iter_mut().rev() {
            if digits == self.fraction && self.fraction > 0 {
                // The point takes a place of its own, once.
                digits += 1;
                *byte = b'.';
                continue;
            }
            let whole_from = if self.fraction == 0 {
                0
            } else {
                self.fraction + 1
            };
            if left == 0 && digits > whole_from {
                *byte = b' ';
                continue;
            }
            *byte = b'0' + u8::try_from(left % 10).unwrap_or(0);
            left /= 10;
            digits += 1;
        }
    }

    fn text(self, units: u64) -> String {
        // A whole digit, the point and the most digits there can be.
        let mut field = [b' '; DIGITS_MAX + 2];
        self.write(&mut field, units);
        String::from_utf8_lossy(field.trim_ascii_start()).into_owned()
    }
}

fn write_right(field: &mut [u8], text: &[u8]) {
    let (padding, end) = field.split_at_mut(field.len() - text.len());
    padding.fill(b' ');
    end.copy_from_slice(text);
}

impl FromStr for Amount {
    type Err = String;

    /// `1.50`, `0.01..=9.99`, or several separated by commas.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((min, max)) = text.split_once("..=") {
            return range(min, max).map(Self::Range);
        }
        if text.contains(',') {
            return Self::list(text.split(',').map(|part| part.trim().to_owned()).collect());
        }
        check_decimal(text)?;
        Ok(Self::Constant(text.to_owned()))
    }
}

impl Amount {
    /// A list of constants.
    pub(crate) fn list(texts: Vec<String>) -> Result<Self, String> {
        if texts.is_empty() || texts.len() > LIST_MAX {
            return Err(format!("expected 1 to {LIST_MAX} amounts"));
        }
        texts.iter().try_for_each(|text| check_decimal(text))?;
        Ok(Self::List(texts))
    }
}

fn check_decimal(text: &str) -> Result<(), String> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = whole.len() > 1 && whole.starts_with('0');
    let zero = text.bytes().all(|byte| byte == b'0' || byte == b'.');
    if !digits(whole) || !digits(fraction) || leading_zero || zero || text.len() > TEXT_MAX {
        return Err(format!(
            "{text:?}: expected a positive decimal such as 1 or 0.05"
        ));
    }
    Ok(())
}

fn range(min: &str, max: &str) -> Result<Range, String> {
    check_decimal(min)?;
    check_decimal(max)?;
    let fraction_of = |text: &str| text.split_once('.').map_or(0, |(_, digits)| digits.len());
    let fraction = fraction_of(min).max(fraction_of(max));
    let units = |text: &str| {
        let (whole, digits) = text.split_once('.').unwrap_or((text, ""));
        let all = format!("{whole}{digits:0<fraction$}");
        let fits = all.len() <= DIGITS_MAX;
        let parsed = all.parse::<u64>().ok().filter(|_| fits);
        parsed.ok_or_else(|| format!("{text:?}: a range has at most {DIGITS_MAX} digits"))
    };
    let (min, max) = (units(min)?, units(max)?);
    if max < min {
        return Err("expected MIN..=MAX with MIN <= MAX, for example 0.01..=9.99".to_owned());
    }
    Ok(Range { min, max, fraction })
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(text) => f.write_str(text),
            Self::Range(range) => {
                write!(f, "{}..={}", range.text(range.min), range.text(range.max))
            }
            Self::List(texts) => f.write_str(&texts.join(",")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn draw(amount: &str, count: u32) -> BTreeMap<String, u32> {
        let amount: Amount = amount.parse().unwrap();
        let mut rng = Rng::new(3, 0);
        let mut seen = BTreeMap::new();
        for _ in 0..count {
            let mut field = vec![b'x'; amount.width()];
            amount.write(&mut field, &mut rng);
            let text = String::from_utf8(field).unwrap();
            *seen.entry(text.trim_start().to_owned()).or_default() += 1;
        }
        seen
    }

    #[test]
    fn a_range_gives_every_amount_and_both_ends_with_all_its_digits() {
        let seen = draw("0.98..=1.02", 5_000);
        let texts: Vec<_> = seen.keys().map(String::as_str).collect();
        assert_eq!(texts, ["0.98", "0.99", "1.00", "1.01", "1.02"]);
        assert!(seen.values().all(|count| (900..=1100).contains(count)));
        assert_eq!(draw("8..=11", 1_000).len(), 4);
        assert!(draw("8..=11", 1_000).contains_key("8"));
        assert!(draw("0.001..=100", 10).keys().all(|text| {
            text.parse::<f64>().is_ok() && text.split_once('.').unwrap().1.len() == 3
        }));
    }

    #[test]
    fn a_list_gives_its_entries_as_they_are_written() {
        let seen = draw("1, 2.50,1000", 3_000);
        let texts: Vec<_> = seen.keys().map(String::as_str).collect();
        assert_eq!(texts, ["1", "1000", "2.50"]);
        assert!(seen.values().all(|count| (900..=1100).contains(count)));
        assert_eq!(draw("7.00", 2), BTreeMap::from([("7.00".to_owned(), 2)]));
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in [
            "",
            "0",
            "0.00",
            "01",
            "1e2",
            "-1",
            "1.",
            ".5",
            "1,",
            "2..=1",
            "0..=1",
            "1..=1000000000000000000",
        ] {
            assert!(text.parse::<Amount>().is_err(), "{text}");
        }
        assert!("1..=999999999999999999".parse::<Amount>().is_ok());
        assert!(Amount::list(Vec::new()).is_err());
    }

    #[test]
    fn an_amount_is_written_as_it_is_read() {
        for text in ["1.50", "0.01..=9.99", "1,2.5"] {
            assert_eq!(text.parse::<Amount>().unwrap().to_string(), text);
        }
    }
}
