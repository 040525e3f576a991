//! Amounts: exact decimals at the edge, minor units inside.

use std::fmt;

use rust_decimal::Decimal;

use super::currency::Currency;

/// Money in minor units (cents for USD), `1..=i64::MAX`.
///
/// Unsigned on purpose: direction belongs to the posting, not to the amount.
/// The upper bound is PostgreSQL's `BIGINT`, where the value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AmountMinor(i64);

impl AmountMinor {
    /// # Errors
    /// [`InvalidAmount`] names which end of the range was missed.
    pub const fn new(minor: i64) -> Result<Self, InvalidAmount> {
        if minor == 0 {
            return Err(InvalidAmount::Zero);
        }
        if minor < 0 {
            return Err(InvalidAmount::Negative);
        }
        Ok(Self(minor))
    }

    /// As PostgreSQL stores it.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }
}

/// Why an amount cannot be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidAmount {
    /// Not a JSON number, nor a string holding one.
    NotANumber,
    /// Nothing to move.
    Zero,
    /// Direction is said by `from` and `to`.
    Negative,
    /// More digits than an exact decimal holds (28), or an exponent out of range.
    TooManyDigits,
    /// More fraction digits than the account's currency has.
    TooPrecise,
    /// More minor units than `BIGINT` holds.
    TooLarge,
}

impl InvalidAmount {
    /// What to do about it, for the `detail` of an answer.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::NotANumber => "send the amount as a JSON number or a string of decimal digits",
            Self::Zero => "the amount must be greater than zero",
            Self::Negative => {
                "the amount must be positive; swap from and to for the other direction"
            }
            Self::TooManyDigits => {
                "the amount has more digits than can be held exactly (28) or its exponent is out of range"
            }
            Self::TooPrecise => "the amount has more fraction digits than the account's currency",
            Self::TooLarge => "the amount is larger than 9223372036854775807 minor units",
        }
    }
}

/// A positive decimal, exactly as sent, normalised (`5.00` equals `5`); which
/// minor units it is depends on the account's currency, known under its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecimalAmount(Decimal);

impl DecimalAmount {
    /// The longest text looked at: sign, 29 digits, point and an exponent fit
    /// several times over; the bound keeps hostile input cheap.
    pub const TEXT_BYTES_MAX: usize = 64;

    /// Reads JSON number text (also the content of a string).
    ///
    /// # Errors
    /// [`InvalidAmount`]; nothing is ever rounded.
    pub fn parse(text: &str) -> Result<Self, InvalidAmount> {
        if text.len() > Self::TEXT_BYTES_MAX {
            return Err(InvalidAmount::TooManyDigits);
        }
        check_number_form(text)?;
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, Some(exponent)),
            None => (text, None),
        };
        if !mantissa.bytes().any(|byte| (b'1'..=b'9').contains(&byte)) {
            return Err(InvalidAmount::Zero);
        }
        if text.starts_with('-') {
            return Err(InvalidAmount::Negative);
        }
        exact(mantissa, exponent)
            .ok_or(InvalidAmount::TooManyDigits)
            .and_then(Self::from_decimal)
    }

    /// The decimal of a stored amount.
    #[must_use]
    pub fn from_minor(amount: AmountMinor, currency: Currency) -> Self {
        Self(
            Decimal::from_i128_with_scale(i128::from(amount.get()), u32::from(currency.digits))
                .normalize(),
        )
    }

    /// A decimal read back from storage.
    ///
    /// # Errors
    /// [`InvalidAmount`] if it is not positive.
    pub fn from_decimal(decimal: Decimal) -> Result<Self, InvalidAmount> {
        if decimal.is_zero() {
            return Err(InvalidAmount::Zero);
        }
        if decimal.is_sign_negative() {
            return Err(InvalidAmount::Negative);
        }
        Ok(Self(decimal.normalize()))
    }

    /// Exact minor units in that currency.
    ///
    /// # Errors
    /// [`InvalidAmount::TooPrecise`] or [`InvalidAmount::TooLarge`].
    pub fn to_minor(self, currency: Currency) -> Result<AmountMinor, InvalidAmount> {
        let digits = u32::from(currency.digits);
        let scale = self.0.scale();
        let Some(missing) = digits.checked_sub(scale) else {
            return Err(InvalidAmount::TooPrecise);
        };
        let minor = 10_i128
            .checked_pow(missing)
            .and_then(|factor| self.0.mantissa().checked_mul(factor))
            .and_then(|minor| i64::try_from(minor).ok())
            .ok_or(InvalidAmount::TooLarge)?;
        AmountMinor::new(minor)
    }

    /// The decimal.
    #[must_use]
    pub const fn decimal(self) -> Decimal {
        self.0
    }
}

/// JSON's number grammar, so that `+1`, `01`, `.5`, `1_000`, `NaN` are refused
/// in strings as they are in JSON itself.
fn check_number_form(text: &str) -> Result<(), InvalidAmount> {
    let rest = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (rest, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let exponent_ok =
        exponent.is_none_or(|part| digits(part.strip_prefix(['+', '-']).unwrap_or(part)));
    let whole_ok = digits(whole) && (whole == "0" || !whole.starts_with('0'));
    if whole_ok && fraction.is_none_or(digits) && exponent_ok {
        Ok(())
    } else {
        Err(InvalidAmount::NotANumber)
    }
}

/// The decimal with all its digits, or none. `Decimal::from_scientific` would
/// not do: it rounds a mantissa of more than 28 digits without a word.
fn exact(mantissa: &str, exponent: Option<&str>) -> Option<Decimal> {
    let mantissa = Decimal::from_str_exact(mantissa).ok()?;
    let Some(exponent) = exponent else {
        return Some(mantissa);
    };
    let mantissa = mantissa.normalize();
    let exponent: i32 = exponent.parse().ok()?;
    let scale = i32::try_from(mantissa.scale())
        .ok()?
        .checked_sub(exponent)?;
    let (digits, scale) = match u32::try_from(scale) {
        Ok(scale) if scale <= Decimal::MAX_SCALE => (mantissa.mantissa(), scale),
        // Zeros that end a whole mantissa may go: `10e-29` is `1e-28`.
        Ok(scale) => {
            let factor = 10_i128.checked_pow(scale.checked_sub(Decimal::MAX_SCALE)?)?;
            let kept = mantissa.mantissa().checked_div(factor)?;
            if kept.checked_mul(factor)? != mantissa.mantissa() {
                return None;
            }
            (kept, Decimal::MAX_SCALE)
        }
        Err(_negative) => {
            let factor = 10_i128.checked_pow(scale.unsigned_abs())?;
            (mantissa.mantissa().checked_mul(factor)?, 0)
        }
    };
    // Refuses digits of more than 96 bits.
    Decimal::try_from_i128_with_scale(digits, scale).ok()
}

/// Writes minor units as a decimal with exactly the currency's digits:
/// 50000 of USD is `500.00`, -5 is `-0.05`, 7 of JPY is `7`.
#[derive(Clone, Copy, Debug)]
pub struct MinorDisplay {
    /// Minor units, of either sign (balances may be negative).
    pub minor: i64,
    /// Fraction digits of the currency, 0..=4.
    pub digits: u8,
}

impl fmt::Display for MinorDisplay {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let factor = 10_u64.pow(u32::from(self.digits));
        let sign = if self.minor < 0 { "-" } else { "" };
        let minor = self.minor.unsigned_abs();
        // The divisor is a power of ten, never zero.
        let whole = minor.checked_div(factor).unwrap_or(0);
        let fraction = minor.checked_rem(factor).unwrap_or(0);
        match self.digits {
            0 => write!(formatter, "{sign}{whole}"),
            digits => write!(
                formatter,
                "{sign}{whole}.{fraction:0width$}",
                width = usize::from(digits)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const USD: Currency = Currency::for_test(840, *b"USD", 2);
    const JPY: Currency = Currency::for_test(392, *b"JPY", 0);

    #[track_caller]
    fn check(text: &str, currency: Currency, expected: Result<i64, InvalidAmount>) {
        let minor = DecimalAmount::parse(text).and_then(|amount| amount.to_minor(currency));
        assert_eq!(minor.map(AmountMinor::get), expected, "text={text}");
    }

    #[test]
    fn amounts_are_read_exactly_or_not_at_all() {
        check("100", USD, Ok(10_000));
        check("5.00", USD, Ok(500));
        check("0.01", USD, Ok(1));
        check("1e2", USD, Ok(10_000));
        check("1.5E1", USD, Ok(1_500));
        check("100e-2", USD, Ok(100));
        check("0.010000000000000000000000", USD, Ok(1));
        check("92233720368547758.07", USD, Ok(i64::MAX));
        check("92233720368547758.08", USD, Err(InvalidAmount::TooLarge));
        check("0.001", USD, Err(InvalidAmount::TooPrecise));
        check("0.5", JPY, Err(InvalidAmount::TooPrecise));
        check("9223372036854775807", JPY, Ok(i64::MAX));
        check("9223372036854775808", JPY, Err(InvalidAmount::TooLarge));
        check("0", USD, Err(InvalidAmount::Zero));
        check("0.00", USD, Err(InvalidAmount::Zero));
        check("0e5", USD, Err(InvalidAmount::Zero));
        check("-1", USD, Err(InvalidAmount::Negative));
        check("-1e-40", USD, Err(InvalidAmount::Negative));
        check("1e400", USD, Err(InvalidAmount::TooManyDigits));
        check("1e-40", USD, Err(InvalidAmount::TooManyDigits));
        check("1.5e-28", USD, Err(InvalidAmount::TooManyDigits));
        check("1e99999999999", USD, Err(InvalidAmount::TooManyDigits));
        check(
            "0.00000000000000000000000000001",
            USD,
            Err(InvalidAmount::TooManyDigits),
        );
        check(&"9".repeat(65), USD, Err(InvalidAmount::TooManyDigits));
        for text in [
            "", "NaN", "Infinity", "+1", "01", ".5", "5.", "1_000", "1e", "0x10", " 1", "1 ",
            "--1", "1,5", "1e1.5",
        ] {
            check(text, USD, Err(InvalidAmount::NotANumber));
        }
    }

    #[test]
    fn a_long_mantissa_is_refused_and_not_rounded() {
        for text in [
            "92233720368547758.069999999999999999999e0",
            "1234567890.0000000000000000000001e0",
            "0.00999999999999999999999999999999e0",
            "79228162514264337593543950335.9e-1",
            "79228162514264337593543950336e0",
        ] {
            check(text, USD, Err(InvalidAmount::TooManyDigits));
        }
        check("92233720368547758.0700000000e0", USD, Ok(i64::MAX));
    }

    /// A number as its significant digits and a power of ten, of any length.
    #[derive(Debug, PartialEq, Eq)]
    struct BigDecimal {
        digits: String,
        exponent: i64,
    }

    impl BigDecimal {
        fn of(text: &str) -> Self {
            let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
            let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
            let all = format!("{whole}{fraction}");
            let digits = all.trim_end_matches('0');
            let dropped = i64::try_from(all.len() - digits.len()).unwrap();
            let fraction = i64::try_from(fraction.len()).unwrap();
            Self {
                digits: digits.trim_start_matches('0').to_owned(),
                exponent: exponent.parse::<i64>().unwrap() - fraction + dropped,
            }
        }

        /// Whether 28 digits, before and behind the point together, write it.
        fn fits(&self) -> bool {
            let digits = i64::try_from(self.digits.len()).unwrap();
            -28 <= self.exponent && digits + self.exponent.max(0) <= 28
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn an_amount_is_its_text_to_the_last_digit_or_refused(
            text in "(0|[1-9][0-9]{0,30})([.](0{0,12}|9{0,12})[0-9]{1,12})?(e[+-]?[0-9]{1,2})?",
        ) {
            let expected = BigDecimal::of(&text);
            match DecimalAmount::parse(&text) {
                Ok(amount) => {
                    prop_assert_eq!(BigDecimal::of(&amount.decimal().to_string()), expected);
                }
                Err(InvalidAmount::Zero) => prop_assert_eq!(expected.digits, ""),
                Err(error) => {
                    prop_assert_eq!(error, InvalidAmount::TooManyDigits);
                    // Written with 28 digits or fewer, nothing is refused.
                    let mantissa = text.split('e').next().unwrap_or_default();
                    let written = mantissa.bytes().filter(u8::is_ascii_digit).count();
                    prop_assert!(!expected.fits() || 28 < written, "text={}", text);
                }
            }
        }
    }

    #[test]
    fn the_same_value_is_the_same_amount() {
        assert_eq!(DecimalAmount::parse("5"), DecimalAmount::parse("5.00"));
        assert_eq!(DecimalAmount::parse("50e-1"), DecimalAmount::parse("5.00"));
    }

    #[test]
    fn minor_units_are_shown_with_the_currencys_digits() {
        for (minor, digits, text) in [
            (50_000, 2, "500.00"),
            (-5, 2, "-0.05"),
            (7, 0, "7"),
            (1, 3, "0.001"),
            (0, 2, "0.00"),
            (i64::MIN, 2, "-92233720368547758.08"),
            (-120, 2, "-1.20"),
        ] {
            assert_eq!(MinorDisplay { minor, digits }.to_string(), text);
        }
    }
}
