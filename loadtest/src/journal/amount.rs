//! An amount as decimal text means it, without a float.
//!
//! Owns: the one comparison between what was asked and what is stored.
//! Never: rounds.
//! Invariant: normalised (no trailing zero after the point), so that equal
//! values are equal fields: `5` and `5.00` are the same.

use std::fmt;

/// `mantissa / 10^scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Amount {
    mantissa: u128,
    scale: u8,
}

impl Amount {
    pub(crate) fn new(mut mantissa: u128, mut scale: u8) -> Self {
        while scale > 0 && mantissa.is_multiple_of(10) {
            mantissa /= 10;
            scale -= 1;
        }
        Self { mantissa, scale }
    }

    /// Digits with at most one point between them; none if it is anything else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return None;
        }
        let fraction = fraction.trim_end_matches('0');
        let mantissa = format!("{whole}{fraction}").parse().ok()?;
        Some(Self::new(mantissa, u8::try_from(fraction.len()).ok()?))
    }

    /// Decimal text with spaces before it, as a request holds it.
    pub(crate) fn parse_bytes(field: &[u8]) -> Option<Self> {
        let (mut mantissa, mut scale, mut after_point) = (0_u128, 0_u8, 0_u8);
        for byte in field.trim_ascii_start() {
            match byte {
                b'0'..=b'9' => {
                    mantissa = mantissa.checked_mul(10)?;
                    mantissa = mantissa.checked_add(u128::from(byte - b'0'))?;
                    scale = scale.checked_add(after_point)?;
                }
                b'.' if after_point == 0 => after_point = 1,
                _ => return None,
            }
        }
        Some(Self::new(mantissa, scale))
    }

    /// Stored minor units of a currency with that many fraction digits.
    pub(crate) fn of_minor(minor: i64, digits: i16) -> Option<Self> {
        Some(Self::new(
            u128::try_from(minor).ok()?,
            u8::try_from(digits).ok()?,
        ))
    }

    pub(super) const fn parts(self) -> (u128, u8) {
        (self.mantissa, self.scale)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = usize::from(self.scale);
        let digits = format!("{:0width$}", self.mantissa, width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        if fraction.is_empty() {
            f.write_str(whole)
        } else {
            write!(f, "{whole}.{fraction}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_compared_by_value() {
        for (text, minor, digits) in [
            ("5", 500, 2),
            ("5.00", 500, 2),
            ("0.05", 5, 2),
            ("1.500", 1500, 3),
            ("100", 100, 0),
        ] {
            let stored = Amount::of_minor(minor, digits);
            assert_eq!(Amount::parse(text), stored, "{text}");
            let padded = format!("  {text}");
            assert_eq!(Amount::parse_bytes(padded.as_bytes()), stored, "{text}");
        }
        assert_ne!(Amount::parse("5"), Amount::parse("50"));
        assert_ne!(Amount::parse("0.5"), Amount::parse("5"));
        for bad in ["", ".", "1.", ".5", "-1", "1e2", "1.2.3"] {
            assert_eq!(Amount::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn amounts_are_written_as_people_do() {
        for (text, shown) in [("5.00", "5"), ("0.05", "0.05"), ("1200", "1200")] {
            assert_eq!(Amount::parse(text).unwrap().to_string(), shown);
        }
    }
}
